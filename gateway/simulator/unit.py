"""One tracker and the car that it sits in, as a scenario has them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from gateway.simulator import answers, frames
from gateway.simulator.downlink import R1, RCONF, S20, Command
from gateway.simulator.frames import Cell, Record
from gateway.simulator.manners import MANNERS
from gateway.simulator.orders import Obeyed, Order, understood
from gateway.simulator.pace import Pace
from gateway.simulator.relay import Relay
from gateway.simulator.roads import METRES_PER_DEGREE, Car
from gateway.simulator.steps import Step
from gateway.simulator.towns import TOWNS, heard

_MODEL: Final = "ST907(70SACD)_TQ_V_2.0 2024/06/07"
_PARKED_INTERVAL_S: Final = 300
_VOLTS: Final = 12.9


class Unit:
    """
    One tracker and its car.

    @ivar started: when the fleet began, the same for all of it, UTC epoch seconds.
    @ivar clock: the time of the latest step.
    @ivar random: its own; the same seed and ident give the same numbers.
    @ivar ignition: whether it is on.
    @ivar conditions: more bits of the status word that are there.
    @ivar fix: whether the receiver has one.
    @ivar battery: what is said of the backup battery, if anything.
    @ivar iccid: the number of the SIM.
    @ivar clock_error_s: how far the receiver's clock is off.
    @ivar stopped_at: what it shows, if it stands still; UTC epoch seconds.
    @ivar tower: which of the cells in reach it uses.
    @ivar encode: what makes a frame of a record.
    @ivar manner: how it takes commands.
    @ivar server: whom it reports to.
    """

    def __init__(self, ident: str, seed: int, started: float, offset: float, interval: float) -> None:
        """
        @param offset: seconds from the fleet's start to this device's first report.
        """
        self.ident = ident
        self.random = Random(f"{seed} {ident}")
        self.started = started
        self._pace = Pace(interval)
        self.clock = started + offset - interval
        self.ignition = False
        self.conditions = 0
        self.fix = True
        self.battery: int | None = None
        self.clock_error_s = 0
        self.stopped_at: float | None = None
        self.tower = 0
        self.encode: Callable[[Record], bytes] = frames.v1
        self.manner = MANNERS["obey"]
        self.server = "127.0.0.1", 8888
        self._town = self.random.choice(TOWNS)
        spread = 8_000 / METRES_PER_DEGREE
        latitude = self._town.latitude + self.random.uniform(-spread, spread)
        longitude = self._town.longitude + self.random.uniform(-spread, spread)
        self.car = Car(self.random, latitude, longitude)
        self._ahead_s = 0.0  # how far the car is ahead of the clock, after reports became more frequent
        self._sims = Random(f"{seed} {ident} SIM")
        self.change_sim()
        self._number = 0
        self._relay = Relay(self.car)
        self._fix = self._where()
        #: what the latest report said whose time has come, and when that was
        self._latest = self.record()
        self._latest_at = self.clock

    @property
    def interval(self) -> float:
        """Seconds between two reports."""
        return self._pace.seconds

    def wait(self, intervals: int = 1) -> None:
        """Let some intervals pass; a car that drives drives on."""
        self._pass(intervals * self._pace.next())

    def next(self, conditions: int = 0) -> Step:
        """The next report: an interval passes."""
        self.wait()
        return self.report(conditions)

    def report(self, conditions: int = 0) -> Step:
        """
        A report of now.

        @param conditions: bits of the status word for this report alone.
        """
        return self._step(self.record(conditions), self.encode)

    def next_cells(self) -> Step:
        """The next report, of the cells around: what there is to say without a fix."""
        self.wait()
        cells = heard(self._cell(), self.random.randint(3, 6))
        return self._step(self.record()._replace(neighbours=cells), frames.nbr)

    def record(self, conditions: int = 0) -> Record:
        """What there is to say now; without a fix with the place, the speed and the course of the last one."""
        if self.fix:
            self._fix = self._place()
        return Record(
            self.ident,
            self._time(self.clock),
            *self._fix,
            self._state() | self.conditions | conditions,
            self._cell(),
            self.car.mileage_m / 1000,
            self._number,
            self.fix,
            self.battery,
        )

    def change_sim(self) -> None:
        """Put another SIM in."""
        self.iccid = f"89{self._town.mcc:03d}{self._sims.randrange(10**14):014d}"

    # -- what commands do

    def due(self, step: Step) -> bytes:
        """The report of a step whose time has come, after what commands did since it was made."""
        record = step.record
        if record is None:
            return step.frame
        shown = self._relay.shown(record, self._latest)
        self._latest, self._latest_at = shown, step.at
        self._relay.reported(shown)
        return step.frame if shown == record else step.encode(shown)

    def sooner_or_later(self, step: Step, now: float) -> Step:
        """A step that was made ahead, an interval from now, if it is a report; what it says is of that time."""
        record = step.record
        if record is None:
            return step
        self._pass(now + self._pace.next() - step.at)
        record = record._replace(time=self._time(self.clock))
        if record.fix:
            self._fix = latitude, longitude, speed_kmh, course_deg = self._place()
            record = record._replace(latitude=latitude, longitude=longitude, speed_kmh=speed_kmh, course_deg=course_deg)
        return step._replace(at=self.clock, frame=step.encode(record), record=record)

    def told(self, step: Step) -> list[bytes]:
        """What is to be told in a step whose time has come, and whose report was made."""
        record = self._now(step.at)
        return [told.encode(record, *told.arguments) for told in step.told]

    def obey(self, command: Command, now: float) -> Obeyed:
        """Do what a command says, as far as this tracker does; what it answers is of before that."""
        manner = self.manner
        order = understood(command) if manner.understands or command.word == RCONF else None
        answer = self._answer(command, order, now) if manner.answers else b""
        if order is None or not manner.obeys:
            return Obeyed(answer)
        if command.word == R1:
            return Obeyed(frames.v6(self._now(now), self.iccid), restarts=True)
        if command.word == S20 and command.arguments in manner.relay:
            self._relay.switch(manner.relay[command.arguments], self._latest)
        if order.seconds:
            self._pace.change(order.seconds, order.reports)
        return Obeyed(answer, hurries=bool(order.seconds))

    def _answer(self, command: Command, order: Order | None, now: float) -> bytes:
        """What it says of a command."""
        word, stamp, arguments = command
        if order is None:
            return answers.v4(self._now(now), word, "ERROR", stamp)
        if word == RCONF:
            return answers.sms(self.ident, answers.rconf(self._configuration()))
        if word in self.manner.short:
            return answers.short_v4(self.ident, word, stamp, self.manner.in_short(word, arguments))
        if order.area is not None:
            return answers.area_v4(self._now(now), word, order.said, stamp, order.area)
        return answers.v4(self._now(now), word, order.said, stamp)

    def _now(self, now: float) -> Record:
        """The latest report as it is of this moment."""
        return self._latest._replace(time=self._time(now))

    def _configuration(self) -> answers.Configuration:
        seconds = round(self.interval)
        return answers.Configuration(
            _MODEL,
            self.ident,
            *self.server,
            (seconds, seconds, _PARKED_INTERVAL_S),
            0.0 if self._latest.conditions & frames.POWER_CUT else _VOLTS,
            "internet.example.com",
            "A-24-23" if self._latest.fix else "V-13-9",
            26,
        )

    # -- what there is to say

    def _step(self, record: Record, encode: Callable[[Record], bytes]) -> Step:
        self._number += 1
        return Step(self.clock, encode(record), record=record, encode=encode)

    def _pass(self, seconds: float) -> None:
        """Let time pass, or take it back; a car that was there already waits."""
        self.clock += seconds
        seconds -= self._ahead_s
        self._ahead_s = max(0.0, -seconds)
        if seconds > 0.0:
            self.car.move(seconds)

    def _time(self, now: float) -> float:
        """What the receiver's clock shows."""
        return now + self.clock_error_s if self.stopped_at is None else self.stopped_at

    def _place(self) -> tuple[float, float, float, float]:
        """Latitude, longitude, speed and course; of a car that is ahead of the clock on the straight way there."""
        there = self._where()
        if not self._ahead_s:
            return there
        passed = self.clock - self._latest_at
        share = passed / (passed + self._ahead_s)
        latest = self._latest
        before = latest.latitude, latest.longitude, latest.speed_kmh
        latitude, longitude, speed = (a + share * (b - a) for a, b in zip(before, there, strict=False))
        return latitude, longitude, speed, there[3]

    def _where(self) -> tuple[float, float, float, float]:
        car = self.car
        return car.latitude, car.longitude, car.speed_kmh, car.course_deg

    def _state(self) -> int:
        """The bits of ignition and relay; an engine that is cut does not run, with the ignition on or off."""
        cut = self._relay.cut
        running = 0 if cut else frames.ENGINE_ON
        return (running if self.ignition else frames.ACC_OFF) | (frames.RELAY_CUT if cut else 0)

    def _cell(self) -> Cell:
        return self._town.cell(self.car.latitude, self.car.longitude, self.tower)
