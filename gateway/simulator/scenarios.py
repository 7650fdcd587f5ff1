"""
What the devices of a fleet do, a function a scenario.

A scenario is a generator. It gets the L{Unit}, which is a tracker and the car
that it sits in, and yields one L{Step} after the other: what the tracker does,
and when. Most of it is C{yield unit.next()}, the next report. A new scenario is
a new function with L{scenario} before it; the first line of its docstring is
what C{gateway simulate --list} says of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from itertools import islice
from random import Random
from typing import Final, NamedTuple

from gateway.simulator import frames
from gateway.simulator.frames import Cell, Record
from gateway.simulator.roads import METRES_PER_DEGREE, MOTORWAY, Car

#: The limit that the trackers of C{overspeed} are set to watch.
SPEED_LIMIT_KMH: Final = 120.0
#: In a C{storm} all connections are cut after each so many intervals.
STORM_EVERY: Final = 4
#: What the clocks of C{noise} are wrong by: not at all, a year ahead, a rollover of the GPS weeks behind.
CLOCK_ERRORS_S: Final = (0, 0, 0, 365 * 86_400, -1024 * 7 * 86_400)

_CELL_M: Final = 2_000.0
_AREA_M: Final = 20_000.0


class Town(NamedTuple):
    """Where some of the cars are at home, and what network there is."""

    latitude: float
    longitude: float
    mcc: int
    mnc: int


#: North and south, east and west; far enough inland for roads of any kind.
TOWNS: Final = (
    Town(52.5200, 13.4050, 262, 1),  # Berlin
    Town(40.4168, -3.7038, 214, 3),  # Madrid
    Town(23.8103, 90.4125, 470, 1),  # Dhaka
    Town(-1.2921, 36.8219, 639, 2),  # Nairobi
    Town(-15.7939, -47.8828, 724, 5),  # Brasilia
    Town(-26.2041, 28.0473, 655, 1),  # Johannesburg
)


class Link(Enum):
    """What a step does to the connection."""

    KEEP = "keep"
    DOWN = "down"  # there is no coverage, or no power, up to a step that says something else
    CUT = "cut"  # it is cut, and made anew at once


class Step(NamedTuple):
    """
    Something that a tracker does.

    @ivar at: when, UTC epoch seconds.
    @ivar frame: a report, kept until it is acknowledged; nothing when empty.
    @ivar junk: bytes that are written before it, if there is a connection, and forgotten.
    """

    at: float
    frame: bytes = b""
    junk: bytes = b""
    link: Link = Link.KEEP


class Unit:
    """
    One tracker and its car, as a scenario has it.

    @ivar started: when the fleet began, the same for all of it, UTC epoch seconds.
    @ivar interval: seconds between two reports.
    @ivar clock: the time of the latest step.
    @ivar random: its own; the same seed and ident give the same numbers.
    @ivar ignition: whether it is on.
    @ivar conditions: more bits of the status word that are there.
    @ivar clock_error_s: how far the receiver's clock is off.
    @ivar tower: which of the cells in reach it uses.
    @ivar encode: what makes a frame of a record.
    """

    def __init__(self, ident: str, seed: int, started: float, offset: float, interval: float) -> None:
        """
        @param offset: seconds from the fleet's start to this device's first report.
        """
        self.ident = ident
        self.random = Random(f"{seed} {ident}")
        self.started = started
        self.interval = interval
        self.clock = started + offset - interval
        self.ignition = False
        self.conditions = 0
        self.clock_error_s = 0
        self.tower = 0
        self.encode: Callable[[Record], bytes] = frames.v1
        self._town = self.random.choice(TOWNS)
        spread = 8_000 / METRES_PER_DEGREE
        latitude = self._town.latitude + self.random.uniform(-spread, spread)
        longitude = self._town.longitude + self.random.uniform(-spread, spread)
        self.car = Car(self.random, latitude, longitude)
        self._number = 0

    def wait(self, intervals: int = 1) -> None:
        """Let some intervals pass; a car that drives drives on."""
        seconds = intervals * self.interval
        self.clock += seconds
        self.car.move(seconds)

    def next(self, conditions: int = 0) -> Step:
        """The next report: an interval passes."""
        self.wait()
        return self.report(conditions)

    def report(self, conditions: int = 0, time: float | None = None) -> Step:
        """
        A report of now.

        @param conditions: bits of the status word for this report alone.
        @param time: what the receiver's clock says, if it is not the time.
        """
        car = self.car
        ignition = frames.ENGINE_ON if self.ignition else frames.ACC_OFF
        record = Record(
            self.ident,
            self.clock + self.clock_error_s if time is None else time,
            car.latitude,
            car.longitude,
            car.speed_kmh,
            car.course_deg,
            ignition | self.conditions | conditions,
            self._cell(),
            car.mileage_m / 1000,
            self._number,
        )
        self._number += 1
        return Step(self.clock, self.encode(record))

    def _cell(self) -> Cell:
        north = (self.car.latitude + 90) * METRES_PER_DEGREE
        east = (self.car.longitude + 180) * METRES_PER_DEGREE
        area = int(north / _AREA_M) * 7 + int(east / _AREA_M)
        cell = int(north / _CELL_M) * 11 + int(east / _CELL_M) * 3 + self.tower
        return Cell(self._town.mcc, self._town.mnc, 1 + area % 60_000, 1 + cell % 60_000)


Script = Callable[[Unit], Iterator[Step]]

#: Every scenario by its name.
SCENARIOS: Final[dict[str, Script]] = {}


def scenario(script: Script) -> Script:
    """Put a scenario into the table, by its name with dashes."""
    SCENARIOS[script.__name__.replace("_", "-")] = script
    return script


def about(script: Script) -> str:
    """What a scenario says of itself."""
    return (script.__doc__ or "").strip().partition("\n")[0]


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
    time = unit.clock
    while True:
        for _ in range(5):
            yield unit.report(time=time)
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
