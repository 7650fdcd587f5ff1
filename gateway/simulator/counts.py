"""What became of a fleet's reports, in numbers: counted, on one line while it runs, and as a summary."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from typing import Any, Final, TextIO

#: Latencies are counted in steps of 1 %, so that any number of them takes little memory.
_STEP: Final = math.log(1.01)
_SHORTEST_S: Final = 1e-6

#: Where the line can't be written over, there is a new one after so many seconds.
_LINE_EVERY: Final = 10


class Latencies:
    """Times from a report's last sending to its acknowledgement, exact to a percent."""

    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """One more."""
        self._steps[round(math.log(max(seconds, _SHORTEST_S)) / _STEP)] += 1

    def percentile(self, share: float) -> float | None:
        """The time, in seconds, that so large a share of them did not take longer than; None without any."""
        missing = share * self._steps.total()
        for step in sorted(self._steps):
            missing -= self._steps[step]
            if missing <= 0:
                return math.exp(step * _STEP)
        return None


class Counts:
    """
    The counters of a fleet.

    @ivar reports: reports made, C{sent} those that were sent at least once, C{acknowledged} those that were answered.
    @ivar resent: how often a report was sent again.
    @ivar dropped: reports given up because a tracker had no more room.
    @ivar timeouts: connections given up because an answer did not come.
    @ivar strange: answers that nobody waited for.
    @ivar commands: commands that came, C{told} frames sent that nobody acknowledges, answers to commands among them.
    @ivar connected: connections that are up now, C{connections} all that were ever up.
    @ivar trouble: why the latest attempt to connect failed; empty when it did not.
    """

    def __init__(self) -> None:
        self.reports = 0
        self.sent = 0
        self.acknowledged = 0
        self.resent = 0
        self.dropped = 0
        self.timeouts = 0
        self.strange = 0
        self.commands = 0
        self.told = 0
        self.connected = 0
        self.connections = 0
        self.trouble = ""
        self.latencies = Latencies()

    @property
    def outstanding(self) -> int:
        """Reports that may still be acknowledged."""
        return self.reports - self.acknowledged - self.dropped

    def summary(self, seconds: float) -> dict[str, Any]:
        """
        What is said at the end, when what is not acknowledged is lost; latencies in milliseconds.

        @param seconds: how long it took.
        """
        return {
            "reports": self.reports,
            "sent": self.sent,
            "acknowledged": self.acknowledged,
            "lost": self.reports - self.acknowledged,
            "resent": self.resent,
            "connections": self.connections,
            "timeouts": self.timeouts,
            "strange_answers": self.strange,
            "commands": self.commands,
            "told": self.told,
            "p50_ms": _milliseconds(self.latencies.percentile(0.50)),
            "p99_ms": _milliseconds(self.latencies.percentile(0.99)),
            "seconds": round(seconds, 1),
        }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


_ROWS: Final = {
    "reports": "reports",
    "sent": "sent",
    "acknowledged": "acknowledged",
    "lost": "lost",
    "resent": "re-sent",
    "connections": "connections",
    "timeouts": "timed out",
    "strange_answers": "strange answers",
    "commands": "commands",
    "told": "told",
    "p50_ms": "latency p50, ms",
    "p99_ms": "latency p99, ms",
    "seconds": "seconds",
}


def table(summary: dict[str, Any]) -> str:
    """A summary as lines for people."""
    width = max(map(len, _ROWS.values()))
    values = {name: "-" if summary[name] is None else f"{summary[name]:,}" for name in _ROWS}
    figures = max(map(len, values.values()))
    return "\n".join(f"{title:<{width}}  {values[name]:>{figures}}" for name, title in _ROWS.items())


class Progress:
    """The line that says each second how it goes: in place on a terminal, else a new one now and then."""

    def __init__(self, counts: Counts, out: TextIO) -> None:
        self._counts = counts
        self._out = out
        self._in_place = out.isatty()
        self._calls = 0
        self._acknowledged = 0
        self._width = 0

    def second(self) -> None:
        """A second has passed."""
        self._calls += 1
        every = 1 if self._in_place else _LINE_EVERY
        if self._calls % every:
            return
        counts = self._counts
        rate = (counts.acknowledged - self._acknowledged) / every
        self._acknowledged = counts.acknowledged
        line = (
            f"connected {counts.connected:,}  sent {counts.sent:,}  acknowledged {counts.acknowledged:,}  "
            f"outstanding {counts.outstanding:,}  re-sent {counts.resent:,}  {rate:,.0f}/s"
        )
        if counts.trouble:
            line += f"  ({counts.trouble})"
        if self._in_place:
            line = line[: shutil.get_terminal_size().columns - 1]  # a line that wraps can't be written over
            self._out.write(f"\r{line:<{self._width}}")
            self._width = len(line)
        else:
            self._out.write(f"{line}\n")
        self._out.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._in_place and self._width:
            self._out.write("\n")
            self._out.flush()
