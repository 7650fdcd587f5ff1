"""What came of the faults, as a table: a line for each kind of them."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from tests.integration.faults.stage import Recovery

_COUNTS: Final = ("reports", "lost", "twice")
_TIMES: Final = ("first", "all", "journal")
_HEAD: Final = ("fault", "faults", *_COUNTS, *(f"{time} {figure}" for time in _TIMES for figure in ("p50", "max")))

#: The line for all draws of more than one fault.
TWO: Final = "two of them at once"


@dataclass(frozen=True, slots=True)
class Row:
    """
    One fault, or two at once.

    @ivar reports: acknowledged from its begin to when it was verified.
    @ivar problems: what the verification found.
    """

    kinds: Sequence[str]
    reports: int
    lost: int
    twice: int
    recovery: Recovery
    problems: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its figures as a line."""
        first_s, all_s, drained_s = self.recovery
        return (
            f"{self.reports} reports, lost {self.lost}, twice {self.twice}; first served after {first_s:.2f} s, "
            f"all after {all_s:.2f} s, the journal empty after {drained_s:.2f} s"
        )


def table(rows: Iterable[Row], about: str) -> str:
    """A line for each kind, one for two at once, one for all; and under it where and when."""
    by_name: dict[str, list[Row]] = {}
    every = [*rows]
    for row in sorted(every, key=lambda row: (len(row.kinds), row.kinds)):
        by_name.setdefault(row.kinds[0] if len(row.kinds) == 1 else TWO, []).append(row)
    lines = [_HEAD, *(_line(name, those) for name, those in by_name.items()), _line("all", every)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = " ".join("=" * width for width in widths)
    texts = [
        " ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    ]
    return "\n".join((rule, texts[0], rule, *texts[1:], rule, "", about))


def _line(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    counts = (len(rows), *(sum(getattr(row, what) for row in rows) for what in _COUNTS))
    recoveries = zip(*(row.recovery for row in rows), strict=True)
    times = [figure for seconds in recoveries for figure in (statistics.median(seconds), max(seconds))]
    return (name, *(f"{count:,}" for count in counts), *(f"{seconds:.2f}" for seconds in times))


def machine(server: str, seconds: float) -> str:
    """Date, Python, machine and Redis."""
    cores = len(os.sched_getaffinity(0))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.machine()}, {cores} cores, "
        f"{server}, {seconds / 60:.0f} minutes. Times in seconds."
    )
