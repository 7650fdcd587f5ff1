"""The time of day, and timers that it does not stop."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import gateway.clock
from gateway.clock import TimeOfDay, monotonic


class Times:
    """The two clocks of a machine, of which one is set by people."""

    def __init__(self) -> None:
        self.up = 1000.0
        self.set = 1_795_348_800.0

    def time(self) -> float:
        """The time of day."""
        return self.set

    def monotonic(self) -> float:
        """How long the machine is up."""
        return self.up

    def go_on(self, seconds: float) -> None:
        """Time passes."""
        self.up += seconds
        self.set += seconds


class TimeOfDayTests(SynchronousTestCase):
    """A machine whose clock is set."""

    def setUp(self) -> None:
        self.times = Times()
        self.patch(gateway.clock, "time", self.times)
        self.reactor: Any = Clock()
        self.clock = TimeOfDay(self.reactor)

    def test_seconds(self) -> None:
        """It tells the time of day; the reactor's timers go by how long the machine is up."""
        self.assertLess(abs(time.time() - self.clock.seconds()), 5)
        self.assertEqual(1000.0, self.reactor.seconds())
        self.times.set -= 3600
        self.assertEqual(1000.0, self.reactor.seconds())

    def test_timers(self) -> None:
        """Calls are the reactor's own."""
        called: list[int] = []
        self.reactor.seconds = Clock.seconds.__get__(self.reactor)
        call = self.clock.callLater(2, called.append, 1)
        self.assertEqual([call], self.clock.getDelayedCalls())
        self.reactor.advance(2)
        self.assertEqual([1], called)

    def test_set(self) -> None:
        """By how much the clock was set is said once, whichever way; time that just passes says nothing."""
        self.times.go_on(500)
        self.assertEqual(0.0, self.clock.set_by())
        self.times.go_on(5)
        self.times.set -= 3600
        self.assertEqual(-3600.0, self.clock.set_by())
        self.assertEqual(0.0, self.clock.set_by())
        self.times.set += 7200
        self.assertEqual(7200.0, self.clock.set_by())
        self.times.go_on(5)
        self.assertEqual(0.0, self.clock.set_by())

    def test_monotonic(self) -> None:
        """What is measured goes by what the timers go by, of this clock and of any other."""
        measured = monotonic(self.clock)
        self.assertEqual(1000.0, measured())
        self.times.set -= 3600
        self.times.go_on(5)
        self.assertEqual(1005.0, measured())
        other = Clock()
        other.advance(3)
        self.assertEqual(3, monotonic(other)())

    def test_too_late(self) -> None:
        """A reactor with timers that go by the other clock is not taken."""
        reactor: Any = Clock()
        reactor.callLater(1, lambda: None)
        self.assertRaises(AssertionError, TimeOfDay, reactor)
