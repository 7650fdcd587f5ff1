"""Scenarios in which there is cause for an alarm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Final

from gateway.simulator import frames
from gateway.simulator.registry import scenario
from gateway.simulator.roads import KMH_PER_MS, METRES_PER_DEGREE, MOTORWAY, STRAIGHT
from gateway.simulator.steps import Link, Step
from gateway.simulator.trips import trip
from gateway.simulator.unit import Unit

#: The limit that the trackers of C{overspeed} are set to watch.
SPEED_LIMIT_KMH: Final = 120.0
#: For how many reports it is calm between two alarms: with one each ten seconds for longer than a minute.
CALM: Final = (7, 9)
#: The faults of C{tamper}, and whether there is a fix meanwhile.
FAULTS: Final = (
    (frames.ANTENNA_OPEN, True),
    (frames.ANTENNA_SHORT, True),
    (frames.RECEIVER_FAULT, False),
    (frames.WRONG_PASSWORD, True),
)


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


@scenario
def fence(unit: Unit) -> Iterator[Step]:
    """Out of a circle around its home, bit 7, into one that it must not enter, bit 4, and back."""
    car, random = unit.car, unit.random
    car.road = STRAIGHT
    # as far as it gets between two reports, so that on the way back the circle is not missed
    least = STRAIGHT.limit_kmh / KMH_PER_MS * unit.interval
    while True:
        home = car.latitude, car.longitude
        unit.ignition = False
        yield unit.next()
        unit.ignition = True
        car.go()
        fences: list[tuple[float, int]] = []
        for condition, inside in ((frames.FENCE_EXIT, (3, 4)), (frames.FENCE_ENTER, (2, 3))):
            for _ in range(random.randint(*inside)):
                yield _fenced(unit, home, fences)
            # the first circle ends here; the other, somewhere ahead, begins here
            fences.append((max(_metres(unit, home), least), condition))
        yield from _halt(unit, home, fences)
        yield _fenced(unit, home, fences)
        car.turn_round()
        car.go()
        while _metres(unit, home) - car.stopping_m > fences[0][0] / 2:
            yield _fenced(unit, home, fences)
        yield from _halt(unit, home, fences)


def _halt(unit: Unit, home: tuple[float, float], fences: list[tuple[float, int]]) -> Iterator[Step]:
    """Brake to a stand."""
    unit.car.halt()
    while unit.car.speed_ms:
        yield _fenced(unit, home, fences)


def _fenced(unit: Unit, home: tuple[float, float], fences: list[tuple[float, int]]) -> Step:
    """The next report, with what fences say that begin so far from home."""
    unit.wait()
    away = _metres(unit, home)
    return unit.report(sum(condition for distance, condition in fences if away > distance))


def _metres(unit: Unit, home: tuple[float, float]) -> float:
    """How far from home it is."""
    north = (unit.car.latitude - home[0]) * METRES_PER_DEGREE
    east = (unit.car.longitude - home[1]) * METRES_PER_DEGREE * math.cos(math.radians(home[0]))
    return math.hypot(north, east)


@scenario
def sos(unit: Unit) -> Iterator[Step]:
    """A trip whose driver calls for help: bit 1 for a few reports."""
    drive = trip(unit)
    while True:
        yield from islice(drive, unit.random.randint(*CALM))
        unit.conditions |= frames.SOS
        yield from islice(drive, unit.random.randint(2, 4))
        unit.conditions &= ~frames.SOS


@scenario
def vibration(unit: Unit) -> Iterator[Step]:
    """Parked and armed, bit 9, and somebody is at the car: bits 17 and 0 for a few reports."""
    unit.conditions |= frames.ARMED
    while True:
        for _ in range(unit.random.randint(*CALM)):
            yield unit.next()
        for _ in range(unit.random.randint(3, 5)):
            yield unit.next(frames.VIBRATION | frames.THEFT)


@scenario
def tamper(unit: Unit) -> Iterator[Step]:
    """Parked, with the antenna cut off, then shorted, a receiver that fails, and wrong passwords: bits 5, 6, 16, 25."""
    while True:
        for fault, fix in FAULTS:
            for _ in range(unit.random.randint(2, 3)):
                yield unit.next()
            unit.fix = fix
            for _ in range(unit.random.randint(2, 3)):
                yield unit.next(fault)
            unit.fix = True
