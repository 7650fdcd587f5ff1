"""How the last hour went, as the process that serves the page has seen it."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from gateway.histogram import Counts
from gateway.reporting import Report

#: A figure in so many seconds, and so many of them.
STEP_S: Final = 10.0
STEPS: Final = 360
#: Waiting times are those of so many steps.
RECENT: Final = 6


class Past:
    """Figures of the last hour."""

    def __init__(self) -> None:
        self._at = 0.0
        self._received = 0
        self._reports: deque[int] = deque(maxlen=STEPS)
        self._connections: deque[int] = deque(maxlen=STEPS)
        self._waits: deque[Counts | None] = deque(maxlen=RECENT + 1)
        self._rate = (0.0, 0, 0.0)

    def look(self, report: Report | None, now: float) -> None:
        """Once a second or so: take a figure when it is time; C{now}: UTC epoch seconds."""
        if report is None:
            return
        received = report.counters.get("received", 0)
        then, before, _ = self._rate
        if now - then >= 2.0:
            rate = max(received - before, 0) / (now - then) if then else 0.0
            self._rate = now, received, rate
        if self._at and now - self._at < STEP_S:
            return
        if self._at:
            self._reports.append(max(received - self._received, 0))
            self._connections.append(report.connections)
        self._received, self._at = received, now
        self._waits.append(report.histograms.get("wait"))

    @property
    def rate(self) -> float:
        """Frames a second, of the last seconds."""
        return self._rate[2]

    def waits(self, report: Report | None) -> dict[str, float | None]:
        """How long frames of the last minute waited until they were stored, ms: half of them, and 99 in 100."""
        now = report.histograms.get("wait") if report is not None else None
        if now is None:
            return {"p50_ms": None, "p99_ms": None}
        since = now.since(self._waits[0] if self._waits else None)
        found = {}
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
            bound = since.quantile(share)
            found[name] = None if bound is None else bound * 1000
        return found

    def as_json(self) -> dict[str, Any]:
        """For the page: figures of steps, the newest last."""
        return {
            "step_s": STEP_S,
            "start": round(self._at - STEP_S * len(self._reports)),
            "reports": list(self._reports),
            "connections": list(self._connections),
        }
