"""What a process of the gateway tells of itself: into the log when it is alone, to its parent when it is a worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from twisted.logger import Logger

from gateway import histogram
from gateway.histogram import Counts
from gateway.ledger import Beat


class Report(NamedTuple):
    """
    How a process does.

    @ivar counters: of all that it did since it was started.
    @ivar pending: frames that have no outcome yet.
    @ivar connections: over TCP.
    @ivar ready: whether what comes is stored in Redis.
    @ivar problems: why it is not fit, in a few words each.
    @ivar lag_s: how late its timers come, seconds.
    @ivar more: what else its heartbeat says: see C{gateway:instance:<instance>} in the contract.
    """

    counters: Mapping[str, int]
    pending: int
    connections: int
    ready: bool
    problems: Sequence[str]
    lag_s: float = 0.0
    more: Mapping[str, Any] = {}

    def beat(self, name: str) -> Beat:
        """The same as a heartbeat of a process of that name."""
        said = {"counters": self.counters, "pending": self.pending, "connections": self.connections}
        return Beat(name, b"", {**self.more, **said, "ready": self.ready, "problems": self.problems})

    @property
    def histograms(self) -> dict[str, Counts]:
        """What it measured, by name."""
        said = self.more.get("histograms", {})
        return {name: counts for name, row in said.items() if (counts := Counts.read(row)) is not None}


class Reporter(Protocol):
    """Who is told."""

    def opened(self, where: Sequence[str], balancers: Sequence[str]) -> None:
        """It listens, for trackers and for balancers."""

    def second(self, report: Report) -> None:
        """How it does, once a second."""

    def minute(self, report: Report) -> None:
        """The same, once a minute."""

    def ended(self, report: Report) -> None:
        """The last one."""


class Log:
    """The log of a gateway, which says what changed."""

    log = Logger()

    def __init__(self) -> None:
        self._said: dict[str, int] = {}

    def opened(self, where: Sequence[str], balancers: Sequence[str]) -> None:
        self.log.info("listening on {where}, TCP and UDP", where=", ".join(where))
        if balancers:
            told = ", ".join(balancers)
            self.log.info("listening on {where} for balancers, TCP with the PROXY protocol", where=told)

    def second(self, report: Report) -> None:
        pass

    def minute(self, report: Report) -> None:
        changed = {name: n for name, n in sorted(report.counters.items()) if n != self._said.get(name)}
        if changed:
            self._said = dict(report.counters)
            self.log.info("counters: {text}", text=" ".join(f"{name}={n}" for name, n in changed.items()))

    def ended(self, report: Report) -> None:
        counted = " ".join(f"{name}={n}" for name, n in sorted(report.counters.items()))
        self.log.info("ended: {text}", text=counted or "nothing was received")


def together(reports: Sequence[Report], gone: Mapping[str, int]) -> Report:
    """
    The whole of several processes.

    @param gone: the counters of those that are not there any more.
    """
    counters = Counter(gone)
    for report in reports:
        counters.update(report.counters)
    return Report(
        counters,
        sum(report.pending for report in reports),
        sum(report.connections for report in reports),
        bool(reports) and all(report.ready for report in reports),
        list(dict.fromkeys(problem for report in reports for problem in report.problems)),
        max((report.lag_s for report in reports), default=0.0),
        {"histograms": measured} if (measured := histogram.together(report.histograms for report in reports)) else {},
    )
