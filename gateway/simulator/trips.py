"""Scenarios about what a tracker reports and how: trips, clocks, networks, SIMs, and commands."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from gateway.simulator import frames
from gateway.simulator.manners import MANNERS
from gateway.simulator.registry import scenario
from gateway.simulator.roads import MOTORWAY
from gateway.simulator.steps import Link, Step, Told
from gateway.simulator.unit import Unit

#: In a C{storm} all connections are cut after each so many intervals.
STORM_EVERY: Final = 4
#: What the clocks of C{noise} are wrong by: not at all, a year ahead, a rollover of the GPS weeks behind.
CLOCK_ERRORS_S: Final = (0, 0, 0, 365 * 86_400, -1024 * 7 * 86_400)
#: What C{power-up} tells between reports: each so often which frame.
LINK_EVERY: Final = 3
V19_EVERY: Final = 4
#: In C{commands} each device whose ident this divides answers in the short form.
SHORT_EVERY: Final = 4


@scenario
def trip(unit: Unit) -> Iterator[Step]:
    """Parked, ignition on, a drive with stops at junctions, ignition off, and again."""
    car, random = unit.car, unit.random
    while True:
        for _ in range(random.randint(1, 3)):
            yield unit.next()
        unit.ignition = True
        yield unit.next()
        car.go()
        for _ in range(random.randint(10, 20)):
            yield unit.next()
        car.halt()
        while car.speed_ms:
            yield unit.next()
        unit.ignition = False


@scenario
def blind_area(unit: Unit) -> Iterator[Step]:
    """Without coverage now and then: records are kept, with bit 26, and sent when there is a network again."""
    drive = trip(unit)
    while True:
        yield from islice(drive, unit.random.randint(3, 5))
        unit.conditions |= frames.DELAYED
        for step in islice(drive, unit.random.randint(7, 9)):
            yield step._replace(link=Link.DOWN)
        unit.conditions &= ~frames.DELAYED


@scenario
def parked_frozen_clock(unit: Unit) -> Iterator[Step]:
    """Parked, and the receiver's clock stands still: identical frames, but for the cell that changes at times."""
    unit.wait()
    unit.stopped_at = unit.clock
    while True:
        for _ in range(5):
            yield unit.report()
            unit.wait()
        unit.tower = (unit.tower + 1) % 3


@scenario
def binary(unit: Unit) -> Iterator[Step]:
    """A trip in 45-byte binary frames, which are answered with R12."""
    unit.encode = frames.binary
    yield from trip(unit)


@scenario
def storm(unit: Unit) -> Iterator[Step]:
    """A trip; after every four intervals all devices lose their connections together and reconnect at once."""
    cuts = 1
    for step in trip(unit):
        while (moment := unit.started + cuts * STORM_EVERY * unit.interval) <= step.at:
            yield Step(moment, link=Link.CUT)
            cuts += 1
        yield step


@scenario
def noise(unit: Unit) -> Iterator[Step]:
    """A trip with junk and cut frames between the reports, and with clocks that are wrong at times."""
    random = unit.random
    drive = trip(unit)
    while True:
        unit.clock_error_s = random.choice(CLOCK_ERRORS_S)
        step = next(drive)
        junk = random.choice(
            (
                b"",
                b"GET / HTTP/1.1\r\n\r\n",
                random.randbytes(random.randint(8, 60)),
                step.frame[: random.randint(8, len(step.frame) - 8)],
            )
        )
        yield step._replace(junk=junk)


@scenario
def no_fix(unit: Unit) -> Iterator[Step]:
    """Into an underground garage: V1 flagged V that repeats the last fix and its speed, then NBR, then a fix again."""
    car, random = unit.car, unit.random
    while True:
        unit.ignition = True
        car.go()
        for _ in range(random.randint(4, 6)):
            yield unit.next()
        while not car.speed_ms:  # the speed that is repeated is to be one
            yield unit.next()
        unit.fix = False
        car.halt()
        for _ in range(random.randint(3, 5)):
            yield unit.next()
        unit.ignition = False
        for _ in range(random.randint(3, 5)):
            yield unit.next_cells()
        unit.fix = True


@scenario
def power_up(unit: Unit) -> Iterator[Step]:
    """Fitted into a parked car: V6 with the number of the SIM, V19 and LINK at times; then another SIM, and again."""
    link = Link.KEEP
    while True:
        unit.battery = 4
        yield unit.next()._replace(link=link, told=(Told(frames.v6, (unit.iccid,)),))
        for number in range(1, unit.random.randint(9, 11)):
            unit.battery = min(4 + number // 2, frames.BATTERY_FULL)
            told: tuple[Told, ...] = ()
            if not number % LINK_EVERY:
                told = (Told(frames.link, (26, 8, 100)),)
            elif not number % V19_EVERY:
                told = (Told(frames.v19, (unit.server[0], unit.iccid)),)
            yield unit.next()._replace(told=told)
        unit.change_sim()
        link = Link.CUT


@scenario
def commands(unit: Unit) -> Iterator[Step]:
    """A trip, of devices to be sent commands to; each fourth of those that obey answers in the short form."""
    if unit.manner is MANNERS["obey"] and int(unit.ident) % SHORT_EVERY == 0:
        unit.manner = MANNERS["short"]
    yield from trip(unit)


@scenario
def standing(unit: Unit) -> Iterator[Step]:
    """Stands with the engine running: a fix and speed 0 in every report."""
    unit.ignition = True
    while True:
        yield unit.next()


@scenario
def driving(unit: Unit) -> Iterator[Step]:
    """On a motorway, always faster than 50 km/h."""
    car = unit.car
    unit.ignition = True
    car.road = MOTORWAY
    car.haste = 0.8
    car.go()
    car.move(120.0)
    while True:
        yield unit.next()


@scenario
def stale_fix(unit: Unit) -> Iterator[Step]:
    """One report with a fix, of a car that stands; then it drives off, and reports repeat that place, flagged V."""
    unit.ignition = True
    yield unit.next()
    unit.fix = False
    unit.car.go()
    while True:
        yield unit.next()
