"""Scenarios in which there is cause for an alarm."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from gateway.simulator import frames
from gateway.simulator.registry import scenario
from gateway.simulator.roads import MOTORWAY
from gateway.simulator.steps import Link, Step
from gateway.simulator.trips import trip
from gateway.simulator.unit import Unit

#: The limit that the trackers of C{overspeed} are set to watch.
SPEED_LIMIT_KMH: Final = 120.0


@scenario
def overspeed(unit: Unit) -> Iterator[Step]:
    """On a motorway, now and then faster than the 120 km/h that the tracker watches: status bit 2."""
    car = unit.car
    unit.ignition = True
    car.road = MOTORWAY
    car.go()
    car.haste = 110 / MOTORWAY.limit_kmh
    car.move(120.0)
    while True:
        for speed_kmh in (110, 145):
            car.haste = speed_kmh / MOTORWAY.limit_kmh
            for _ in range(unit.random.randint(4, 8)):
                unit.wait()
                yield unit.report(frames.OVERSPEED if car.speed_kmh > SPEED_LIMIT_KMH else 0)


@scenario
def power_cut(unit: Unit) -> Iterator[Step]:
    """Somebody cuts the supply: bits 28, 20 and 19 while the backup battery lasts, silence, then power again."""
    drive = trip(unit)
    cut = frames.POWER_CUT | frames.BATTERY_REMOVED | frames.ON_BACKUP_BATTERY
    while True:
        yield from islice(drive, unit.random.randint(3, 6))
        unit.conditions |= cut
        yield from islice(drive, unit.random.randint(2, 4))
        unit.wait()
        yield Step(unit.clock, link=Link.DOWN)
        unit.wait(unit.random.randint(2, 4))
        unit.conditions &= ~cut
