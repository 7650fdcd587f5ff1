"""
The time of day, for everything that is dated; while the reactor's timers go by a clock that nobody sets.

Twisted times its calls by the time of day, and would stand still for an hour
when that is set back by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


@implementer(IReactorTime)
class TimeOfDay:
    """UTC epoch seconds, and the reactor's timers."""

    seconds = staticmethod(time.time)

    def __init__(self, reactor: Any) -> None:
        """
        Have the reactor's timers go by a clock that is never set.

        No call may be waiting yet: it would be timed by the other clock.
        """
        assert not reactor.getDelayedCalls(), "timers were started before their clock was chosen"
        self.timed_by: Callable[[], float] = time.monotonic
        reactor.seconds = self.timed_by
        self._reactor = reactor
        self._offset = self._ahead()

    def callLater(self, delay: float, callable: Any, *args: object, **kw: object) -> IDelayedCall:
        """See L{IReactorTime}."""
        call: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kw)
        return call

    def getDelayedCalls(self) -> Any:
        """See L{IReactorTime}."""
        return self._reactor.getDelayedCalls()

    def _ahead(self) -> float:
        return time.time() - time.monotonic()

    def set_by(self) -> float:
        """By how many seconds the time of day was set since this was last asked; 0 when it just went on."""
        offset = self._ahead()
        by, self._offset = offset - self._offset, offset
        return by


def monotonic(clock: IReactorTime) -> Callable[[], float]:
    """The seconds that a clock's timers go by: to measure how long something takes, as nobody sets them."""
    return clock.timed_by if isinstance(clock, TimeOfDay) else clock.seconds
