"""Whether a gateway lives, and whether it is fit for work: what load balancers and orchestrators ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.reporting import Report

#: A reactor that comes to its timers so late does not keep up, s; and one so late might as well be dead.
LAG_S: Final = 2.0
DEAD_S: Final = 30.0
#: A journal that is so full will soon take nothing more.
FULL: Final = 0.95


class Health(NamedTuple):
    """
    An answer.

    @ivar problems: why not, in a few words each; empty when all is well.
    """

    problems: Sequence[str]

    @property
    def well(self) -> bool:
        """Whether it is."""
        return not self.problems


def live(lag_s: float) -> Health:
    """
    Whether the process is worth keeping: one that answers at all is, if not after an age.

    @param lag_s: how late the timers of the slowest process come, seconds.
    """
    return Health([f"its timers come {lag_s:.0f} s late"] if lag_s > DEAD_S else [])


def ready(report: Report | None, *, listening: bool, draining: bool, journal: float = 0.0) -> Health:
    """
    Whether what trackers send is taken, and stored in Redis.

    @param report: of the whole; None: it has not said anything yet.
    @param listening: whether all of it listens.
    @param draining: whether it is about to end.
    @param journal: how full the fullest journal is, 1.0: no more goes in.
    """
    problems = []
    if draining:
        problems.append("it is ending")
    if not listening:
        problems.append("it does not listen yet")
    if report is None:
        return Health(problems or ["it has not begun"])
    problems += report.problems
    if not report.ready and not report.problems:
        problems.append("Redis is away or behind: what comes goes to the journal")
    if journal >= FULL:
        problems.append(f"the journal is {min(journal, 1.0):.0%} full: when it is, nothing more is acknowledged")
    if report.lag_s > LAG_S:
        problems.append(f"it does not keep up: its timers come {report.lag_s:.1f} s late")
    return Health(list(dict.fromkeys(problems)))
