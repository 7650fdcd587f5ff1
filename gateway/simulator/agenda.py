"""What is to be done when: one clock for a whole fleet, so that a report costs no timer of its own."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from gateway.simulator.device import Device

#: It is told the device and the time, UTC epoch seconds.
Action = Callable[[Device, float], None]


class Agenda:
    """What is due, in the order of time."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Action, Device]] = []
        self._order = count()

    def at(self, when: float, action: Action, device: Device) -> None:
        """Have something done at a time, UTC epoch seconds."""
        heapq.heappush(self._entries, (when, next(self._order), action, device))

    def do(self, now: float) -> None:
        """Do what is due."""
        entries = self._entries
        while entries and entries[0][0] <= now:
            _, _, action, device = heapq.heappop(entries)
            action(device, now)
