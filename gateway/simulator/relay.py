"""The relay in the circuit of an engine, and what becomes of the car when it cuts."""

from __future__ import annotations

from enum import Enum
from typing import Final

from gateway.simulator import frames
from gateway.simulator.frames import Record
from gateway.simulator.roads import Car

#: An ST-907 does not cut the engine of a car that is faster: it waits until it is slower.
CUT_BELOW_KMH: Final = 20.0

#: What is not there any more when the engine stops.
_DRIVING: Final = frames.ENGINE_ON | frames.OVERSPEED


class _State(Enum):
    CLOSED = "closed"
    WAITING = "waiting"  # it cuts as soon as the car is slow enough
    CUT = "cut"


class Relay:
    """The relay of one car."""

    def __init__(self, car: Car) -> None:
        self._car = car
        self._state = _State.CLOSED

    @property
    def cut(self) -> bool:
        """Whether it has cut the engine."""
        return self._state is _State.CUT

    def switch(self, cut: bool, latest: Record) -> None:
        """Cut the engine as soon as the car is slow enough, or restore it."""
        self._state = _State.WAITING if cut else _State.CLOSED
        self._car.stalled = False
        self.reported(latest)

    def reported(self, latest: Record) -> None:
        """Where the car was seen: a cut that waits is done if it was slow enough there."""
        if self._state is _State.WAITING and latest.speed_kmh < CUT_BELOW_KMH:
            self._state = _State.CUT
            self._car.stall(latest.latitude, latest.longitude)

    def shown(self, record: Record, latest: Record) -> Record:
        """
        A report that was made ahead, as it is with this relay.

        @param latest: the report before it: a car that is cut did not get further.
        """
        if not self.cut:
            return record._replace(conditions=record.conditions & ~frames.RELAY_CUT)
        if record.conditions & frames.RELAY_CUT:
            return record
        record = record._replace(conditions=record.conditions & ~_DRIVING | frames.RELAY_CUT)
        if not record.fix:
            return record
        return record._replace(
            latitude=latest.latitude, longitude=latest.longitude, speed_kmh=0.0, course_deg=latest.course_deg
        )
