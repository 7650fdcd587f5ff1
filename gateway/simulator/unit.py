"""One tracker and the car that it sits in, as a scenario has them."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from random import Random
from typing import Final

from gateway.simulator import answers, frames
from gateway.simulator.downlink import R1, RCONF, S20, Command
from gateway.simulator.frames import Cell, Record
from gateway.simulator.roads import METRES_PER_DEGREE, Car
from gateway.simulator.steps import Step
from gateway.simulator.towns import TOWNS, heard

#: An ST-907 does not cut the engine of a car that is faster: it waits until it is slower.
CUT_BELOW_KMH: Final = 20.0
#: What the arguments of S20 do: whether the relay is cut.
RELAY: Final = {"1,1": True, "1,0": False, "0,0": False}

#: What is not there any more when the engine stops.
_DRIVING: Final = frames.ENGINE_ON | frames.OVERSPEED
_MODEL: Final = "ST907(70SACD)_TQ_V_2.0 2024/06/07"
_PARKED_INTERVAL_S: Final = 300
_VOLTS: Final = 12.9


class Relay(Enum):
    """What the relay in the engine's circuit does."""

    CLOSED = "closed"
    WAITING = "waiting"  # it cuts as soon as the car is slow enough
    CUT = "cut"


class Unit:
    """
    One tracker and its car.

    @ivar started: when the fleet began, the same for all of it, UTC epoch seconds.
    @ivar interval: seconds between two reports.
    @ivar clock: the time of the latest step.
    @ivar random: its own; the same seed and ident give the same numbers.
    @ivar ignition: whether it is on.
    @ivar conditions: more bits of the status word that are there.
    @ivar fix: whether the receiver has one.
    @ivar battery: what is said of the backup battery, if anything.
    @ivar iccid: the number of the SIM.
    @ivar clock_error_s: how far the receiver's clock is off.
    @ivar tower: which of the cells in reach it uses.
    @ivar encode: what makes a frame of a record.
    @ivar short_answers: whether it answers C{S20} in the short form.
    @ivar server: whom it reports to.
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
        self.fix = True
        self.battery: int | None = None
        self.clock_error_s = 0
        self.tower = 0
        self.encode: Callable[[Record], bytes] = frames.v1
        self.short_answers = False
        self.server = "127.0.0.1", 8888
        self._town = self.random.choice(TOWNS)
        spread = 8_000 / METRES_PER_DEGREE
        latitude = self._town.latitude + self.random.uniform(-spread, spread)
        longitude = self._town.longitude + self.random.uniform(-spread, spread)
        self.car = Car(self.random, latitude, longitude)
        self._sims = Random(f"{seed} {ident} SIM")
        self.change_sim()
        self._number = 0
        self._relay = Relay.CLOSED
        self._fix = self._place()
        #: what the latest report said whose time has come
        self._latest = self.record()

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
        return self._step(self.record(conditions, time), self.encode)

    def next_cells(self) -> Step:
        """The next report, of the cells around: what there is to say without a fix."""
        self.wait()
        cells = heard(self._cell(), self.random.randint(3, 6))
        return self._step(self.record()._replace(neighbours=cells), frames.nbr)

    def record(self, conditions: int = 0, time: float | None = None) -> Record:
        """What there is to say now; without a fix with the place, the speed and the course of the last one."""
        if self.fix:
            self._fix = self._place()
        return Record(
            self.ident,
            self.clock + self.clock_error_s if time is None else time,
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
        record, frame = step.record, step.frame
        if record is None:
            return frame
        cut = self._relay is Relay.CUT
        if cut != bool(record.conditions & frames.RELAY_CUT):
            record = self._stalled(record) if cut else record._replace(conditions=record.conditions & ~frames.RELAY_CUT)
            frame = step.encode(record)
        self._latest = record
        if self._relay is Relay.WAITING:
            self._cut_if_slow()
        return frame

    def told(self, step: Step) -> list[bytes]:
        """What is to be told in a step whose time has come, and whose report was made."""
        record = self._latest._replace(time=step.at + self.clock_error_s)
        return [told.encode(record, *told.arguments) for told in step.told]

    def obey(self, command: Command, now: float) -> bytes:
        """Do what a command says; what is answered, which is of before that."""
        record = self._latest._replace(time=now + self.clock_error_s)
        if command.word == RCONF:
            return answers.sms(self.ident, answers.rconf(self._configuration()))
        if command.word == R1:
            return frames.v6(record, self.iccid)
        cut = RELAY.get(command.arguments) if command.word == S20 else None
        if cut is None:
            return answers.v4(record, command.word, "ERROR", command.stamp)
        self._relay = Relay.WAITING if cut else Relay.CLOSED
        self.car.stalled = False
        if cut:
            self._cut_if_slow()
        if self.short_answers:
            return answers.short_v4(self.ident, command.word, command.stamp, command.arguments)
        return answers.v4(record, command.word, "DONE", command.stamp)

    def _cut_if_slow(self) -> None:
        """Cut the engine where the car was last seen, if it was slow enough there."""
        latest = self._latest
        if latest.speed_kmh < CUT_BELOW_KMH:
            self._relay = Relay.CUT
            self.car.stall(latest.latitude, latest.longitude)

    def _stalled(self, record: Record) -> Record:
        """What a report says of a car that did not get so far."""
        record = record._replace(conditions=record.conditions & ~_DRIVING | frames.RELAY_CUT)
        if not record.fix:
            return record
        _, _, latitude, longitude, _, course, *_ = self._latest
        return record._replace(latitude=latitude, longitude=longitude, speed_kmh=0.0, course_deg=course)

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

    def _place(self) -> tuple[float, float, float, float]:
        car = self.car
        return car.latitude, car.longitude, car.speed_kmh, car.course_deg

    def _state(self) -> int:
        """The bits of ignition and relay; an engine that is cut does not run, with the ignition on or off."""
        cut = self._relay is Relay.CUT
        running = 0 if cut else frames.ENGINE_ON
        return (running if self.ignition else frames.ACC_OFF) | (frames.RELAY_CUT if cut else 0)

    def _cell(self) -> Cell:
        return self._town.cell(self.car.latitude, self.car.longitude, self.tower)
