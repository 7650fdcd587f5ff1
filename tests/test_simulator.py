"""The simulator: its frames, its roads, its scenarios, what it keeps, and how it behaves on the network."""

from __future__ import annotations

import io
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from click.testing import CliRunner
from twisted.internet.error import ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gateway.cli import main
from gateway.connection import Connection, Limits
from gateway.detection import Candidates
from gateway.session import Envelope, Stored
from gateway.sessions import Sessions
from gateway.simulator import connections, fleet, frames
from gateway.simulator.command import simulate
from gateway.simulator.counts import Counts, Latencies, Progress, table
from gateway.simulator.frames import Cell, Record
from gateway.simulator.manners import MANNERS
from gateway.simulator.outbox import Outbox
from gateway.simulator.registry import about, scenario
from gateway.simulator.roads import COUNTRY, KMH_PER_MS, METRES_PER_DEGREE, MOTORWAY, TOWN, Car, Road
from gateway.simulator.scenarios import SCENARIOS
from gateway.simulator.steps import Link, Step
from gateway.simulator.trips import CLOCK_ERRORS_S, STORM_EVERY
from gateway.simulator.unit import Unit
from gateway.testing import play, plugins
from tests.fakes import NOON
from tests.integration.parts import CHECKOUT
from tests.simulator_fakes import (
    IDENT,
    V4,
    FleetTestCase,
    accepted,
    dated,
    knots,
    record,
    steps,
    unit,
    word,
)

HOME: Final = (52.52, 13.405)
DEVICES: Final = plugins()


def way(tracker: Unit) -> list[list[bytes]]:
    """Where its first reports are, how fast, and to where."""
    return [step.frame.split(b",")[5:11] for step in steps("trip", 60, tracker)]


class Place(NamedTuple):
    """Where a car is and how it moves."""

    latitude: float
    longitude: float
    speed_ms: float
    course_deg: float


def metres(before: Place, after: Place) -> tuple[float, float]:
    """How far it is from one place to another, to the north and to the east."""
    north = (after.latitude - before.latitude) * METRES_PER_DEGREE
    east = (after.longitude - before.longitude) * METRES_PER_DEGREE * math.cos(math.radians(before.latitude))
    return north, east


def angle(degrees: float) -> float:
    """An angle between -180 and 180 degrees."""
    return (degrees + 180.0) % 360.0 - 180.0


class Terminal(io.StringIO):
    """Something to write to that is a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


class FrameTests(SynchronousTestCase):
    """The encoder, held against frames that real devices have sent, and against the gateway's decoder."""

    def test_text(self) -> None:
        """A V1 report is what the log of a driving SinoTrack shows."""
        real = b"*HQ,1234567890,V1,162614,A,4221.1699,N,00752.5296,W,018.47,122,250523,FFFFBBFF,214,03,13140,5085#"
        made = record(
            ident="1234567890",
            time=1_685_031_974.9,  # 25 May 2023, 16:26:14 UTC
            latitude=42 + 21.1699 / 60,
            longitude=-7 - 52.5296 / 60,
            speed_kmh=18.47 * 1.852,
            course_deg=122.3,
            conditions=frames.ACC_OFF | 1 << 14,
            cell=Cell(214, 3, 13140, 5085),
        )
        self.assertEqual(real, frames.v1(made))

    def test_binary(self) -> None:
        """A 45-byte report is what a device in Bogota sent, but for the signal and the satellites."""
        real = bytes.fromhex(
            "24410600082621532131081504419390060740418306000000fffffbfdff0015060000002c02dc0c000000001f"
        )
        made = record(
            ident="4106000826",
            time=1_441_058_001.0,  # 31 August 2015, 21:53:21 UTC
            latitude=4 + 41.9390 / 60,
            longitude=-74 - 4.1830 / 60,
            conditions=frames.ACC_OFF | 1 << 1,
            cell=Cell(732, 12, 0, 0),
            mileage_km=44.9,
            number=31,
        )
        signal_and_satellites = slice(31, 33)
        data = bytearray(frames.binary(made))
        data[signal_and_satellites] = real[signal_and_satellites]
        self.assertEqual(real.hex(), data.hex())

    def test_minutes_carry(self) -> None:
        """60 minutes are a degree, also after rounding; 360 degrees are 0."""
        made = record(latitude=-(52 + 59.99999 / 60), longitude=9 + 59.99996 / 60, course_deg=359.7)
        self.assertIn(b",5300.0000,S,01000.0000,E,000.00,000,", frames.v1(made))
        self.assertIn("53000000" + "06" + "010000000" + "a" + "000" + "000", frames.binary(made).hex())

    def test_decoded(self) -> None:
        """The gateway's decoder reads of each report of a trip what was meant, in both forms."""
        for encode, knots_off in ((frames.v1, 0.009), (frames.binary, 0.51)):
            made: list[Record] = []

            def noted(entry: Record, made: list[Record] = made, encode: Any = encode) -> bytes:
                made.append(entry)
                data: bytes = encode(entry)
                return data

            for seed in range(12):
                tracker = unit(seed)
                tracker.encode = noted
                for step in SCENARIOS["trip"](tracker):
                    (message, envelopes), *_ = play(step.frame, step.at, devices=DEVICES).messages
                    self.assertEqual((IDENT, int(step.at)), (message.ident, int(envelopes[0].time)))
                    self._assert_read(made[-1], envelopes[0].attributes, knots_off)
                    if len(made) % 20 == 0:
                        break
            # the cars are in three quarters of the globe at least
            self.assertGreater(len({(entry.latitude > 0, entry.longitude > 0) for entry in made}), 2)

    def _assert_read(self, meant: Record, read: dict[str, Any], knots_off: float) -> None:
        """It says what was meant, as exactly as the frame can."""
        self.assertApproximates(meant.latitude, read["latitude"], 2e-6)
        self.assertApproximates(meant.longitude, read["longitude"], 2e-6)
        self.assertApproximates(meant.speed_kmh, read["speed_kmh"], knots_off * 1.852)
        self.assertLess(abs((meant.course_deg - read["course_deg"] + 180) % 360 - 180), 0.51)
        self.assertEqual(f"{0xFFFFFFFF - meant.conditions:08X}", read["status_word"])
        self.assertEqual(bool(meant.conditions & frames.ENGINE_ON), read["ignition"])
        if "mcc" in read:
            cell = (f"{meant.cell.mcc:03d}", f"{meant.cell.mnc:02d}", meant.cell.lac, meant.cell.cid)
            self.assertEqual(cell, tuple(read[name] for name in ("mcc", "mnc", "lac", "cid")))


class ImportTests(SynchronousTestCase):
    """What the simulator shares with the gateway: nothing."""

    def loaded(self, statement: str) -> set[str]:
        """The modules that are there after a statement, in a Python of its own."""
        code = f"{statement}; import sys; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    def test_of_its_own(self) -> None:
        """No module of it imports anything else of the gateway, so that no wrong field can agree with itself."""
        names = {path.stem for path in Path(fleet.__file__).parent.glob("*.py")} - {"__init__"}
        self.assertIn("frames", names)
        modules = self.loaded(f"from gateway.simulator import {', '.join(sorted(names))}")
        ours = {name for name in modules if name.partition(".")[0] == "gateway"}
        self.assertEqual({"gateway", "gateway.simulator", *(f"gateway.simulator.{name}" for name in names)}, ours)

    def test_no_reactor(self) -> None:
        """The other commands run without a reactor."""
        self.assertNotIn("twisted.internet.reactor", self.loaded("import gateway.cli"))


class RoadTests(SynchronousTestCase):
    """Cars that drive as cars do."""

    def drives(self, hours: float = 1.0) -> Iterator[tuple[Road, Car, list[Place]]]:
        """A car on each kind of road, and where it is after each second."""
        for number, road in enumerate((TOWN, COUNTRY, MOTORWAY)):
            car = Car(Random(number), *HOME, road)
            car.go()
            track = []
            for _ in range(int(hours * 3600)):
                car.move(1.0)
                track.append(Place(car.latitude, car.longitude, car.speed_ms, car.course_deg))
            yield road, car, track

    def test_speeds(self) -> None:
        """They keep to limits, accelerate and brake as cars do, and where there are junctions stop and go on."""
        for road, _, track in self.drives():
            speeds = [place.speed_ms for place in track]
            fastest = MOTORWAY if road is MOTORWAY else COUNTRY  # town and country take turns
            self.assertLessEqual(max(speeds) * KMH_PER_MS, fastest.limit_kmh + 0.01)
            self.assertGreater(max(speeds) * KMH_PER_MS, 0.8 * fastest.limit_kmh)
            changes = [after - before for before, after in pairwise(speeds)]
            self.assertLessEqual(max(changes), 1.81)
            self.assertGreaterEqual(min(changes), -3.51)
            stops = sum(1 for before, after in pairwise(speeds) if before and not after)
            self.assertEqual(road.junctions, stops > 5, stops)
            self.assertGreater(max(speeds[-60:]), 0.0, "it stands for ever")

    def test_movement(self) -> None:
        """A car moves as far as its speed says, and to where its course points."""
        for road, _, track in self.drives():
            for before, after in pairwise(track):
                north, east = metres(before, after)
                if not after.speed_ms:
                    self.assertLess(math.hypot(north, east), 2.5)  # the last second before a stop
                    continue
                self.assertApproximates(math.hypot(north, east), after.speed_ms, 0.05 * after.speed_ms)
                if after.speed_ms > 1.0:
                    turned = angle(after.course_deg - before.course_deg)
                    off = angle(math.degrees(math.atan2(east, north)) - before.course_deg - turned / 2)
                    self.assertLess(abs(off), 3.0 + abs(turned) / 2, road)

    def test_turns_back(self) -> None:
        """However long they drive, they stay in the country around their home."""
        for _, car, track in self.drives(5.0):
            there = Place(*HOME, 0.0, 0.0)
            self.assertLess(math.hypot(*metres(there, track[-1])), 40_000)
            self.assertGreater(max(math.hypot(*metres(there, place)) for place in track), 1_000, car.road)

    def test_halt(self) -> None:
        """A car that halts brakes to a stand, and stays."""
        car = Car(Random(1), *HOME, MOTORWAY)
        car.go()
        car.move(120.0)
        self.assertGreater(car.speed_kmh, 80)
        car.halt()
        car.move(5.0)
        self.assertTrue(0 < car.speed_kmh < 110)
        car.move(60.0)
        there = car.latitude, car.longitude
        self.assertEqual(0.0, car.speed_ms)
        car.move(600.0)
        self.assertEqual(there, (car.latitude, car.longitude))

    def test_hurry(self) -> None:
        """Who is in a hurry is faster than the limit, and then keeps to it again."""
        car = Car(Random(1), *HOME, Road(50.0, (5_000.0, 9_000.0), (5_000.0, 9_000.0), 6.0, False))
        car.go()
        for haste in (1.0, 1.3, 1.0):
            car.haste = haste
            car.move(60.0)
            self.assertApproximates(50.0 * haste, car.speed_kmh, 0.1)


class ScenarioTests(SynchronousTestCase):
    """Each scenario by what its devices send; what the streams show of it: tests/integration/test_scenarios.py."""

    def test_distinct(self) -> None:
        """No two frames of a fleet are identical, but where the scenario says so."""
        for name in SCENARIOS.keys() - {"parked-frozen-clock"}:
            for interval in (1.0, 7.3):
                trackers = (unit(5, interval, f"99000000{n:02d}", n * interval / 5) for n in range(5))
                made = [step.frame for tracker in trackers for step in steps(name, 200, tracker) if step.frame]
                self.assertEqual(len(made), len(set(made)), name)

    def test_seed(self) -> None:
        """The same seed gives the same fleet, times aside; another seed another one, and devices differ."""
        for name in SCENARIOS:
            first = steps(name, 60)
            self.assertEqual(first, steps(name, 60), name)
            self.assertNotEqual(first, steps(name, 60, unit(2)), name)
        another_day = steps("trip", 60, Unit(IDENT, 1, NOON + 86_400, 0.0, 10.0))
        self.assertEqual(
            *([step.frame.split(b",")[5:11] for step in made] for made in (steps("trip", 60), another_day))
        )
        another_device = steps("trip", 60, unit(ident="9900000002"))
        self.assertNotEqual(
            *([step.frame.split(b",")[5:11] for step in made] for made in (steps("trip", 60), another_device))
        )

    def test_times(self) -> None:
        """Steps come in the order of time, and reports an interval apart unless the device has no power."""
        for name in SCENARIOS.keys() - {"power-cut"}:
            made = steps(name, 100, unit(offset=3.5))
            self.assertEqual(sorted(step.at for step in made), [step.at for step in made], name)
            reports = [step.at for step in made if step.frame]
            self.assertEqual([NOON + 3.5 + 10 * n for n in range(len(reports))], reports, name)

    def test_trip(self) -> None:
        """A car moves with the ignition on only, stops on the way, and parks with the ignition off."""
        made = [step.frame for step in steps("trip", 1000, unit(interval=2.0))]
        off = [frame for frame in made if word(frame) == frames.ACC_OFF]
        on = [frame for frame in made if word(frame) == frames.ENGINE_ON]
        self.assertEqual(len(made), len(off) + len(on))
        self.assertEqual({0.0}, set(map(knots, off)))
        self.assertGreater(sum(1 for frame in on if knots(frame) > 10), 300)
        self.assertGreater(sum(1 for frame in on if not knots(frame)), 50)

    def test_overspeed(self) -> None:
        """Bit 2 is set above 120 km/h, and not below."""
        made = [step.frame for step in steps("overspeed", 200, unit(interval=1.0))]
        for frame in made:
            self.assertEqual(knots(frame) * 1.852 > 120.0, bool(word(frame) & frames.OVERSPEED), frame)
        share = sum(1 for frame in made if word(frame) & frames.OVERSPEED) / len(made)
        self.assertTrue(0.2 < share < 0.8, share)

    def test_power_cut(self) -> None:
        """Some reports with the bits of a power cut, then silence, then reports without them."""
        made = steps("power-cut", 100)
        cut = frames.POWER_CUT | frames.BATTERY_REMOVED | frames.ON_BACKUP_BATTERY
        shown = "".join("-" if not step.frame else "c" if word(step.frame) & cut == cut else "." for step in made)
        self.assertRegex(shown, r"^(\.+c{2,4}-){5,}")
        for before, after in pairwise(made):
            if not before.frame:
                self.assertIs(Link.DOWN, before.link)
                self.assertGreater(after.at - before.at, 15.0)

    def test_blind_area(self) -> None:
        """Records without coverage carry bit 26, and only those; nothing is left out."""
        made = steps("blind-area", 200)
        self.assertEqual({Link.KEEP, Link.DOWN}, {step.link for step in made})
        for step in made:
            self.assertEqual(step.link is Link.DOWN, bool(word(step.frame) & frames.DELAYED))

    def test_frozen_clock(self) -> None:
        """One time and one place; five identical frames at a time, and three different ones in all."""
        made = [step.frame for step in steps("parked-frozen-clock", 60)]
        self.assertEqual(3, len(set(made)))
        self.assertEqual(1, len({frame.rpartition(b",")[0] for frame in made}))
        for at in range(0, 60, 5):
            self.assertEqual(1, len(set(made[at : at + 5])))

    def test_binary(self) -> None:
        """Frames of 45 bytes, the record number counted up."""
        made = [step.frame for step in steps("binary", 300)]
        self.assertEqual({(45, b"$")}, {(len(frame), frame[:1]) for frame in made})
        self.assertEqual([n % 256 for n in range(300)], [frame[-1] for frame in made])

    def test_storm(self) -> None:
        """All devices cut their connections at the same moments, whenever they report."""
        moments = set()
        for number in range(4):
            tracker = unit(ident=f"990000000{number}", offset=number * 2.5)
            moments.add(tuple(step.at for step in steps("storm", 40, tracker) if step.link is Link.CUT)[:5])
        self.assertEqual({tuple(NOON + n * STORM_EVERY * 10.0 for n in range(1, 6))}, moments)

    def test_noise(self) -> None:
        """Junk, cut frames, and clocks of each kind of error; the reports themselves are whole."""
        made = steps("noise", 300)
        self.assertTrue(any(step.junk.startswith(b"GET") for step in made))
        self.assertTrue(any(step.junk and step.frame.startswith(step.junk) for step in made))
        self.assertTrue(all(step.frame.endswith(b"#") and step.frame.count(b"#") == 1 for step in made))
        errors = {dated(step.frame) - int(step.at) for step in made}
        self.assertEqual(set(CLOCK_ERRORS_S), errors)

    def test_new(self) -> None:
        """A function is all that a new scenario takes; its name gets dashes, its docstring is what is listed."""

        def engine_idling(tracker: Unit) -> Iterator[Step]:
            """Stands with the engine on."""
            tracker.ignition = True
            while True:
                yield tracker.next()

        self.addCleanup(SCENARIOS.pop, "engine-idling")
        self.assertIs(engine_idling, scenario(engine_idling))
        self.assertEqual("Stands with the engine on.", about(SCENARIOS["engine-idling"]))
        self.assertEqual({frames.ENGINE_ON}, {word(step.frame) for step in steps("engine-idling", 5)})
        self.assertTrue(all(about(script) for script in SCENARIOS.values()))


def judged(name: str, count: int, interval: float) -> list[Envelope]:
    """What a gateway would publish of a device that does this."""
    sessions = Sessions()
    connection = Connection(Candidates(DEVICES, "tcp"), Limits(), sessions.memory, NOON)
    session = sessions.begin(IDENT, NOON)
    sessions.load(session, Stored(), NOON)
    published: list[Envelope] = []
    for step in steps(name, count, unit(interval=interval)):
        for message in connection.receive(step.frame, step.at):
            published += sessions.judge(session, message, "st907", step.at)
        published += (envelope for _, envelope in sessions.cleared(step.at))
    return published


class JudgedTests(SynchronousTestCase):
    """What takes longer than an integration test may: an hour of a scenario, decoded and judged."""

    def test_overspeed(self) -> None:
        """The alarm is raised and, a minute after its end, cleared."""
        alarms = [e.attributes["phase"] for e in judged("overspeed", 120, 30.0) if e.type == "alarm.overspeed"]
        self.assertGreater(len(alarms), 4)
        self.assertEqual((["raised", "cleared"] * len(alarms))[: len(alarms)], alarms)

    def test_frozen_clock(self) -> None:
        """A frame that differs is a position with a frozen clock; its copies, a minute and more apart, are status."""
        published = [e for e in judged("parked-frozen-clock", 40, 90.0) if not e.type.startswith("state.")]
        positions = [e for e in published if e.type == "position"]
        repeats = [e for e in published if e.type == "status" and e.attributes["repeat_of"]]
        self.assertEqual((3, 37), (len(positions), len(repeats)))
        self.assertEqual([None, "frozen", "frozen"], [e.attributes.get("clock") for e in positions])


class OutboxTests(SynchronousTestCase):
    """What a tracker keeps."""

    def filled(self, count: int, window: int = 5, room: int = 100) -> tuple[Outbox, list[bytes]]:
        """An outbox with so many reports in it."""
        outbox = Outbox(IDENT, window, room)
        made = [frames.v1(record(time=NOON + n)) for n in range(count)]
        for frame in made:
            outbox.keep(frame)
        return outbox, made

    def acknowledged(self, outbox: Outbox) -> bytes:
        """The report that one more answer is for."""
        kept = outbox.receive(V4)
        assert kept is not None
        return kept.frame

    def test_oldest_first(self) -> None:
        """Answers are for the oldest; as many as the window are under way, and each goes out once."""
        outbox, made = self.filled(7)
        self.assertEqual(made[:5], [kept.frame for kept in outbox.due(1.0)])
        self.assertEqual([], outbox.due(2.0))
        self.assertEqual(made[:2], [self.acknowledged(outbox) for _ in range(2)])
        self.assertEqual(made[5:], [kept.frame for kept in outbox.due(3.0)])
        self.assertEqual((5, 5, 1.0), (len(outbox), outbox.outstanding, outbox.waiting_since()))

    def test_strange(self) -> None:
        """Answers to somebody else, of another kind, or to nothing acknowledge nothing."""
        outbox, _ = self.filled(1)
        self.assertIsNone(outbox.receive(V4))  # before anything was sent
        outbox.due(1.0)
        for answer in (V4.replace(b"V4,V1", b"V4,NBR"), V4.replace(b"1,V4", b"2,V4"), b"*HQ,9900000001,HTBT#"):
            self.assertIsNone(outbox.receive(answer), answer)
        self.assertEqual(1, len(outbox))

    def test_disconnected(self) -> None:
        """On a new connection all that is not acknowledged goes out again."""
        outbox, made = self.filled(3)
        outbox.due(1.0)
        outbox.receive(V4)
        outbox.disconnected()
        self.assertIsNone(outbox.waiting_since())
        again = outbox.due(9.0)
        self.assertEqual([(made[1], 2, 9.0), (made[2], 2, 9.0)], [(k.frame, k.times, k.sent_at) for k in again])
        self.assertEqual(made[1], self.acknowledged(outbox))

    def test_full(self) -> None:
        """When there is no more room the oldest that is not under way is given up."""
        outbox, made = self.filled(4, window=2, room=4)
        outbox.due(1.0)
        self.assertFalse(outbox.keep(b"*new#"))
        self.assertEqual(made[:2], [self.acknowledged(outbox) for _ in range(2)])
        self.assertEqual([made[3], b"*new#"], [kept.frame for kept in outbox.due(2.0)])


class CountsTests(SynchronousTestCase):
    """The numbers."""

    def test_percentiles(self) -> None:
        """Percentiles are exact to a percent, from microseconds to minutes."""
        self.assertIsNone(Latencies().percentile(0.5))
        for scale in (1e-5, 1e-1, 10.0):
            latencies = Latencies()
            for n in range(1, 1001):
                latencies.add(n * scale)
            for share in (0.5, 0.99, 1.0):
                self.assertApproximates(1.0, (latencies.percentile(share) or 0.0) / (share * 1000 * scale), 0.01)

    def test_table(self) -> None:
        """The summary has a line for each figure, aligned; what is not known is a dash."""
        counts = Counts()
        counts.reports, counts.sent, counts.acknowledged, counts.resent = 12_345, 12_344, 12_340, 6
        lines = table(counts.summary(61.04)).splitlines()
        self.assertEqual(1, len({len(line) for line in lines}), lines)
        found = dict(line.rsplit(maxsplit=1) for line in lines)
        self.assertEqual("12,345 12,344 12,340 5 6".split(), list(found.values())[:5])
        self.assertEqual(("-", "61.0"), (found["latency p99, ms"], found["seconds"]))

    def test_progress(self) -> None:
        """On a terminal one line is written over each second, elsewhere there is a new one every ten."""
        for out, seconds, expected in ((Terminal(), 2, "\r"), (io.StringIO(), 20, "\n")):
            counts = Counts()
            progress = Progress(counts, out)
            for _ in range(seconds):
                counts.acknowledged += 30
                progress.second()
            progress.end()
            shown = out.getvalue()
            self.assertEqual((2, 2), (shown.count(expected), shown.count(" 30/s")), shown)
            self.assertTrue(shown.endswith("\n"))


class FleetTests(FleetTestCase):
    """The fleet, with a clock and a network in memory."""

    def test_to_the_end(self) -> None:
        """Each report goes out in its time; when all are acknowledged it is over."""
        self.begin(count=3)
        self.passes(0.1)
        protocol, wire = self.accept()
        for number in range(1, 4):
            self.assertEqual(number, len(wire.frames()))
            self.assertNoResult(self.finished)
            protocol.dataReceived(V4)
            self.passes(10.0)
        self.successResultOf(self.finished)
        self.assertEqual([(IDENT, frame) for frame in wire.frames()], self.recorded)
        self.assertEqual((3, 3, 3, 0), self.seen("reports", "sent", "acknowledged", "resent"))
        self.assertEqual((1, 0), self.seen("connections", "connected"))
        self.assertTrue(wire.disconnected)

    def test_no_answer(self) -> None:
        """A report without an answer goes out again on a new connection, where an old answer can't arrive."""
        self.begin(count=1, timeout=4.0)
        self.passes(0.1)
        old, first = self.accept()
        self.passes(3.5)
        self.assertFalse(first.disconnected)
        self.passes(2.6)
        self.assertTrue(first.disconnected)
        new, second = self.accept()
        self.assertEqual(first.frames(), second.frames())
        old.dataReceived(V4)
        self.assertEqual(0, self.counts.acknowledged)
        self.passes(1.0)
        new.dataReceived(V4)
        self.assertEqual((1, 1, 1, 1), self.seen("sent", "resent", "timeouts", "acknowledged"))
        self.assertLess(self.counts.latencies.percentile(0.5) or 9.9, 2.0)  # from the second copy on

    def test_connection_lost(self) -> None:
        """Reports are made and kept without a connection, and go out in order when there is one again."""
        self.begin(count=9)
        self.passes(0.1)
        protocol, first = self.accept()
        protocol.connectionLost(Failure(ConnectionLost()))
        self.passes(1.1)
        (factory,) = self.attempts()
        self.passes(25.0)
        self.assertEqual((3, 3, 0), self.seen("reports", "outstanding", "connected"))
        _, second = accepted(factory)
        self.assertEqual(3, len(second.frames()))
        self.assertEqual(first.frames(), second.frames()[:1])
        self.assertEqual(sorted(second.frames()), second.frames())

    def test_refused(self) -> None:
        """Attempts that fail come more and more seldom, and why they fail is said."""
        self.begin(count=1, patience=1000.0)
        moments: list[float] = []
        for _ in range(2000):
            self.passes(0.1)
            for factory in self.attempts():
                moments.append(self.reactor.seconds())
                factory.clientConnectionFailed(None, Failure(Refused(111)))
        gaps = [after - before for before, after in pairwise(moments)]
        self.assertTrue(0.4 < gaps[0] < 1.2, gaps)
        self.assertTrue(14.0 < gaps[-1] < 30.5, gaps)
        self.assertEqual("Connection refused", self.counts.trouble)

    def test_patience(self) -> None:
        """At the end it waits so long for what is outstanding, and no longer."""
        self.begin(count=1, patience=5.0)
        self.passes(0.1)
        self.accept()
        self.passes(4.7)
        self.assertNoResult(self.finished)
        self.passes(0.5)
        self.successResultOf(self.finished)
        self.assertEqual(1, self.counts.summary(1.0)["lost"])

    def test_stop(self) -> None:
        """Told to stop it makes no more reports and waits for what is outstanding."""
        self.begin(count=0)
        self.passes(0.1)
        protocol, wire = self.accept()
        self.fleet.stop()
        self.passes(12.0)
        self.assertNoResult(self.finished)
        protocol, wire = self.accept()  # the first connection had no answer
        self.assertEqual(1, len(wire.frames()))
        protocol.dataReceived(V4)
        self.passes(0.1)
        self.successResultOf(self.finished)

    def test_stop_at_once(self) -> None:
        """Told to stop a second time it does not wait."""
        self.begin(count=0)
        self.passes(0.1)
        for _ in range(2):
            self.assertNoResult(self.finished)
            self.fleet.stop()
            self.passes(0.1)
        self.successResultOf(self.finished)

    def test_crowd(self) -> None:
        """However many devices want to connect, so many attempts are on their way at a time and no more."""
        self.begin(count=1, devices=1000, interval=1.0)
        self.passes(1.0)
        waiting = self.attempts()
        self.assertEqual(connections.CONNECTING, len(waiting))
        for factory in waiting[:40]:
            factory.clientConnectionFailed(None, Failure(Refused(111)))
        for factory in waiting[40:100]:
            accepted(factory)
        self.passes(0.1)
        self.assertEqual(100, len(self.attempts()))

    def test_junk(self) -> None:
        """Junk goes out between reports, never as the first bytes of a connection, and is not sent again."""

        def junky(tracker: Unit) -> Iterator[Step]:
            while True:
                yield tracker.next()._replace(junk=b"junk")

        self.begin(junky, count=2)
        self.passes(0.1)
        protocol, wire = self.accept()
        self.passes(5.0)
        protocol.dataReceived(V4)
        self.passes(5.0)
        first, second = wire.frames()
        self.assertTrue(first.startswith(b"*HQ"), first)
        self.assertTrue(second.startswith(b"junk*HQ"), second)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.passes(1.1)
        _, wire = self.accept()
        self.assertEqual([second.removeprefix(b"junk")], wire.frames())

    def test_links(self) -> None:
        """Without coverage the connection is closed and none is made; one that is cut is made anew at once."""

        def moody(tracker: Unit) -> Iterator[Step]:
            yield tracker.next()
            yield tracker.next()._replace(link=Link.DOWN)
            yield tracker.next()
            yield Step(tracker.clock + 1.0, link=Link.CUT)
            yield tracker.next()

        self.begin(moody, count=0)
        self.passes(0.1)
        protocol, wire = self.accept()
        protocol.dataReceived(V4)
        self.passes(10.0)
        self.assertEqual((True, []), (wire.disconnected, self.attempts()))
        self.passes(10.0)
        protocol, wire = self.accept()
        self.assertEqual(2, len(wire.frames()))
        protocol.dataReceived(V4 + V4)
        self.passes(1.1)
        self.assertTrue(wire.disconnected)
        self.accept()
        self.assertEqual(3, self.counts.acknowledged)

    def test_full(self) -> None:
        """A report that a tracker had no room for is lost, and the end is not waited for because of it."""
        self.begin(count=fleet.ROOM + 5, interval=1.0, patience=1000.0)
        self.passes(fleet.ROOM + 10.0)
        self.assertEqual(5, self.counts.dropped)
        self.assertEqual(fleet.ROOM, self.counts.outstanding)
        protocol, wire = self.accept()
        for _ in range(fleet.ROOM):
            protocol.dataReceived(V4)
        self.passes(0.1)
        self.successResultOf(self.finished)
        self.assertEqual((fleet.ROOM, 5), (len(wire.frames()), self.counts.summary(1.0)["lost"]))

    def test_datagrams(self) -> None:
        """Over UDP one report is under way at a time; what had no answer goes out again from another port."""
        self.begin(count=3, transport="udp", timeout=15.0)
        self.passes(31.0)
        first, second = self.reactor.ports[0], self.reactor.ports[-1]
        self.assertEqual((2, 3, 1), (len(self.reactor.ports), *self.seen("reports", "resent")))
        self.assertEqual(first.sent, second.sent)
        self.assertEqual(1, len(first.sent))
        for number in range(1, 4):
            self.assertEqual(number, len(second.sent))
            first.protocol.datagramReceived(V4, None)
            self.assertEqual(number - 1, self.counts.acknowledged)
            second.protocol.datagramReceived(V4, None)
        self.passes(0.1)
        self.successResultOf(self.finished)

    def test_datagrams_refused(self) -> None:
        """When nobody listens a datagram goes out again after a while that grows, and this is said."""
        self.begin(count=1, transport="udp", patience=100.0)
        self.passes(0.1)
        self.reactor.ports[0].protocol.connectionRefused()
        self.assertEqual("Connection refused", self.counts.trouble)
        self.passes(1.1)
        self.reactor.ports[1].protocol.doStop()  # as the epoll reactor does
        self.passes(2.1)
        last = self.reactor.ports[2]
        self.assertEqual((3, 3), (len(self.reactor.ports), self.counts.connections))
        last.protocol.datagramReceived(V4, None)
        self.passes(0.1)
        self.successResultOf(self.finished)
        self.assertEqual((2, ""), (self.counts.resent, self.counts.trouble))

    def test_no_port_left(self) -> None:
        """When there is no UDP port left this is said, and it is tried again."""
        self.begin(count=1, transport="udp", patience=100.0)
        self.reactor.full = True
        self.reactor.ports[0].protocol.connectionRefused()
        self.passes(1.1)
        self.assertIn("Couldn't listen", self.counts.trouble)
        self.assertEqual((1, 0), self.seen("connections", "connected"))
        self.reactor.full = False
        self.passes(4.1)
        self.assertEqual((2, 1, 1), self.seen("connections", "sent", "resent"))

    def test_scenario_fails(self) -> None:
        """An error in a scenario ends the fleet, and is not hidden."""

        def broken(tracker: Unit) -> Iterator[Step]:
            yield tracker.next()
            raise ZeroDivisionError

        self.begin(broken)
        self.passes(0.1)
        self.failureResultOf(self.finished, ZeroDivisionError)


class CommandTests(SynchronousTestCase):
    """C{gateway simulate}, as far as it goes without a gateway."""

    def run_it(self, *options: str) -> Any:
        """Run it."""
        return CliRunner().invoke(main, ["simulate", *options])

    def test_list(self) -> None:
        """--list names each scenario with what it does."""
        lines = self.run_it("--list").output.splitlines()
        self.assertEqual(list(SCENARIOS), [line.split()[0] for line in lines])
        self.assertTrue(all(len(line.split()) > 4 for line in lines))

    def test_wrong(self) -> None:
        """What can't be is refused, with the option's name or value."""
        for options, said in (
            (("--scenario", "nothing"), "'nothing' is not one of 'trip', 'blind-area'"),
            (("--interval", "0.5"), "'--interval'"),
            (("--first", "9999999999", "--devices", "2"), "--first"),
            (("--devices", "1000000000", "--first", "0"), "open files"),
            (("--host", "nowhere.invalid"), "'nowhere.invalid'"),
            (("--record", "/nowhere/file"), "/nowhere/file: No such file or directory"),
            (("--heard", "/nowhere/file"), "--heard: /nowhere/file: No such file or directory"),
            (("--commands", "gladly"), "'gladly' is not one of 'obey', 'short'"),
            (("--to", "127.0.0.1:9999"), "--to: without --move"),
            (("--move", "9", "--to", "127.0.0.1"), "--to: '127.0.0.1' is not HOST:PORT"),
            (("--move", "9", "--to", ":9999"), "--to: ':9999' is not HOST:PORT"),
            (("--move", "9", "--to", "127.0.0.1:65536"), "--to: '127.0.0.1:65536' is not HOST:PORT"),
            (("--move", "9", "--to", "nowhere.invalid:1"), "--to: 'nowhere.invalid'"),
            (("--move", "0.5"), "'--move'"),
        ):
            result = self.run_it(*options)
            self.assertNotEqual(0, result.exit_code)
            self.assertIn(said, result.output)

    def test_documented(self) -> None:
        """The commands that README and docs show are such, and the docs have a line for each scenario."""
        shown = []
        for name in ("README.md", "docs/simulator.rst"):
            text = (CHECKOUT / name).read_text()
            shown += re.findall(r"^(?:\$| {3}) ?gateway simulate([^#\n]*)", text, re.MULTILINE)
        self.assertGreater(len(shown), 4)
        for options in shown:
            if "--list" not in options:
                simulate.make_context("simulate", options.split())
        rows = re.findall(r"^   \* - ``([a-z][a-z-]+)``$", (CHECKOUT / "docs/simulator.rst").read_text(), re.MULTILINE)
        self.assertEqual(list(SCENARIOS), rows)

    def test_manners(self) -> None:
        """The help and the docs say of each way to take commands what it is."""
        shown = self.run_it("--help").output
        text = (CHECKOUT / "docs/simulator.rst").read_text()
        self.assertEqual(list(MANNERS), re.findall(r"^   \* - ``--commands ([a-z-]+)``$", text, re.MULTILINE))
        for name, manner in MANNERS.items():
            self.assertRegex(shown, rf"\n  +{name} +{re.escape(manner.about)}\n")
