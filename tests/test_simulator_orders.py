"""Simulated trackers and their commands: the answers to each, the ways to take them, intervals, and what was heard."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gateway.simulator import frames
from gateway.simulator.downlink import Command, Downlink
from gateway.simulator.manners import MANNERS
from gateway.simulator.orders import WORDS, understood
from gateway.simulator.relay import CUT_BELOW_KMH
from gateway.simulator.roads import METRES_PER_DEGREE
from gateway.simulator.scenarios import SCENARIOS
from gateway.simulator.steps import Link, Step
from gateway.simulator.unit import Unit
from tests.fakes import NOON
from tests.simulator_fakes import IDENT, R12, V4, FleetTestCase, Wire, dated, knots, word

CUT = b"*HQ,9900000001,S20,130305,1,1#"
RESTORE = b"*HQ,9900000001,S20,130306,1,0#"
RESTORE_TOO = b"*HQ,9900000001,S20,130307,0,0#"


def parked(tracker: Unit) -> Iterator[Step]:
    """Stands with the ignition off."""
    while True:
        yield tracker.next()


def framed(order: str) -> bytes:
    """A command with the time of day 13:03:05 after its word."""
    name, _, arguments = order.partition(",")
    return f"*HQ,{IDENT},{','.join(filter(None, [name, '130305', arguments]))}#".encode()


def reports(wire: Wire) -> list[bytes]:
    """The V1 reports on a connection."""
    return [frame for frame in wire.frames() if b",V1," in frame]


class OrdersTestCase(FleetTestCase):
    """A device that is sent commands."""

    def drive(self, script: Any = parked, interval: float = 10.0, manner: str = "obey", **values: Any) -> None:
        """A device whose first report is under way."""
        settings: dict[str, Any] = {"count": 0, "timeout": 1000.0} | values
        self.begin(script, interval=interval, manner=MANNERS[manner], **settings)
        self.passes(0.1)
        self.protocol, self.wire = self.accept()

    def command(self, data: bytes) -> list[bytes]:
        """Bytes come; what is answered at once."""
        before = len(self.wire.frames())
        self.protocol.dataReceived(data)
        return self.wire.frames()[before:]

    def cut(self) -> bool:
        """Whether the next report says that the engine is cut."""
        before = len(reports(self.wire))
        self.passes(1.0)
        (report,) = reports(self.wire)[before:]
        return bool(word(report) & frames.RELAY_CUT)


class AnswerTests(OrdersTestCase):
    """What each command is answered."""

    def test_full(self) -> None:
        """As in the samples of the documentation: some repeat their arguments, one says OK, most say DONE."""
        self.drive()
        for order, said in (
            ("D1,30", "D1,30"),
            ("D1,30,5", "D1,30,5"),
            ("S17,30", "S17,30"),
            ("S71,22,30", "S71,22,30"),
            ("S14,100,10,1,3", "S14,100,10,1,3"),
            ("S18,1,2", "S18,DONE"),
            ("S23,165.165.33.250:8800", "S23,165.165.33.250:8800"),
            ("S24,thit.gd", "S24,thit.gd"),
            ("S1,0000,pass_word", "S1,OK,pass_word"),
            ("R7", "R7,DONE"),
            ("SCF,0,0", "SCF,DONE"),
            ("SCF,1,1", "SCF,DONE"),
        ):
            (answer,) = self.command(framed(order))
            self.assertTrue(answer.startswith(f"*HQ,{IDENT},V4,{said},130305,120000,A,".encode()), answer)
            self.assertTrue(answer.endswith(b",221126,FFFFFBFF#"), answer)
        self.assertEqual((12, 12, 1), self.seen("commands", "told", "reports"))

    def test_fence(self) -> None:
        """A fence is answered without a position and without a date; when it is taken away, without itself."""
        self.drive()
        area = "N,2245.318,2246.452,E,11233.232,11365.175"
        for order, answer in (
            (f"S21,17,1,{area}", f"V4,S21,17,1,130305,120000,{area},FFFFFBFF#"),
            ("S21,17,0", "V4,S21,17,0,130305,120000,FFFFFBFF#"),
            ("S21,0,0", "V4,S21,0,0,130305,120000,FFFFFBFF#"),
        ):
            self.assertEqual([f"*HQ,{IDENT},{answer}".encode()], self.command(framed(order)))

    def test_error(self) -> None:
        """What is not known, or has other arguments, is an error, and changes nothing."""
        self.drive(interval=5.0)
        for order in (
            "D1",
            "D1,0",
            "D1,x",
            "D1,30,0",
            "S17,",
            "S71,23,30",
            "S71,30",
            "S14,100",
            "S21,17,1",
            "S23,host",
        ):
            (answer,) = self.command(framed(order))
            self.assertIn(f"V4,{order.partition(',')[0]},ERROR,130305,120000,A,".encode(), answer)
        for order in ("S32,1", "S25", "R8,123", "CK", "WKMD,1", "S1,0000", "SCF,0,1", "R7,1"):
            (answer,) = self.command(framed(order))
            self.assertIn(b",ERROR,130305,", answer)
        self.passes(21.0)
        self.assertEqual(5, len(reports(self.wire)))

    def test_acknowledgements(self) -> None:
        """What acknowledges reports is no command, and an answer to a command waits for no acknowledgement."""
        self.drive(count=1)
        self.assertEqual([], self.command(V4))
        self.assertEqual((0, 1, 0), self.seen("commands", "acknowledged", "told"))
        self.passes(0.1)
        self.successResultOf(self.finished)
        self.drive(count=1)
        self.command(framed("R7") + V4 + framed("S18,1"))
        self.passes(0.1)
        self.successResultOf(self.finished)
        self.assertEqual((2, 1, 2, 1, 0), self.seen("commands", "acknowledged", "told", "sent", "strange"))
        self.assertEqual(0, self.counts.summary(1.0)["lost"])


class MannerTests(OrdersTestCase):
    """The ways in which trackers take commands."""

    def test_short(self) -> None:
        """All that is understood is obeyed and answered in short."""
        self.drive(interval=1.0, manner="short")
        self.assertEqual([b"*HQ,9900000001,V4,S14,130305,9,8,1,3#"], self.command(framed("S14,9,8,1,3")))
        self.assertEqual([b"*HQ,9900000001,V4,R7,130305#"], self.command(framed("R7")))
        self.assertIn(b",V4,CK,ERROR,130305,", *self.command(framed("CK")))
        self.assertEqual([b"*HQ,9900000001,V4,S20,130305,1,1#"], self.command(CUT))
        self.assertTrue(self.cut())
        self.assertEqual([b"*HQ,9900000001,V4,S20,130306,1,0#"], self.command(RESTORE))
        self.assertFalse(self.cut())

    def test_mute(self) -> None:
        """Nothing is answered, not even a text or what is wrong, and all is done."""
        self.drive(interval=1.0, manner="mute")
        self.assertEqual([], self.command(CUT + framed("CK") + b"RCONF"))
        self.assertTrue(self.cut())
        self.assertEqual([], self.command(RESTORE))
        self.assertFalse(self.cut())
        self.assertEqual((4, 0), self.seen("commands", "told"))
        self.protocol.dataReceived(framed("R1"))
        self.assertTrue(self.wire.disconnected)

    def test_ignore(self) -> None:
        """Nothing is answered and nothing done, though it is heard."""
        self.drive(interval=1.0, manner="ignore")
        self.assertEqual([], self.command(CUT + b"RCONF" + framed("R1") + framed("D1,30")))
        self.assertFalse(self.cut())
        self.assertFalse(self.wire.disconnected)
        self.assertEqual((4, 0, 0), self.seen("commands", "told", "strange"))

    def test_refuse(self) -> None:
        """Each command is an error, and nothing is done; the text, which has no such answer, is answered."""
        self.drive(interval=1.0, manner="refuse")
        for data in (CUT, RESTORE, framed("R1"), framed("D1,30"), framed("S14,100,10,1,3")):
            (answer,) = self.command(data)
            self.assertIn(b",ERROR,1303", answer)
        self.assertIn(b",SMS,", *self.command(b"RCONF"))
        self.assertFalse(self.cut())

    def test_stuck_relay(self) -> None:
        """It says that it is done, and the relay does not move."""
        self.drive(interval=1.0, manner="stuck-relay")
        for data in (CUT, RESTORE, RESTORE_TOO):
            self.assertIn(b",V4,S20,DONE,", *self.command(data))
            self.assertFalse(self.cut())
        self.assertIn(b",V4,R7,DONE,", *self.command(framed("R7")))

    def test_stays_cut(self) -> None:
        """It says 1,1 to each S20, and is cut for ever."""
        self.drive(interval=1.0, manner="stays-cut")
        self.assertEqual([b"*HQ,9900000001,V4,S20,130306,1,1#"], self.command(RESTORE))
        self.assertFalse(self.cut())
        for data in (CUT, RESTORE, RESTORE_TOO):
            (answer,) = self.command(data)
            self.assertEqual(b"*HQ,9900000001,V4,S20," + data[19:25] + b",1,1#", answer)
            self.assertTrue(self.cut())
        self.assertIn(b",V4,S17,1,130305,", *self.command(framed("S17,1")))

    def test_second_form(self) -> None:
        """It repeats either form, and only the second one restores the engine."""
        self.drive(interval=1.0, manner="second-form")
        for data, cut in ((CUT, True), (RESTORE, True), (RESTORE_TOO, False)):
            (answer,) = self.command(data)
            self.assertEqual(data.replace(b",S20,", b",V4,S20,"), answer)
            self.assertEqual(cut, self.cut())

    def test_with_scenario(self) -> None:
        """In C{commands} each fourth answers in short, of those that obey; the others keep their manner."""
        self.begin(SCENARIOS["commands"], devices=4, manner=MANNERS["refuse"])
        self.assertTrue(all(device.unit.manner is MANNERS["refuse"] for device in self.fleet._devices))

    def test_words(self) -> None:
        """Each command that is known has arguments with which it is understood, and is no acknowledgement."""
        self.assertNotIn("R12", WORDS)
        self.assertIsNone(understood(Command("R12", "130305")))
        self.assertTrue(
            {"S20", "D1", "S17", "S71", "S14", "S21", "S18", "S23", "S24", "S1", "R7", "SCF", "R1"} == WORDS
        )


class IntervalTests(OrdersTestCase):
    """Commands that change the time between reports."""

    def times(self) -> list[int]:
        """When the reports were made, in seconds from noon."""
        return [dated(report) - int(NOON) for report in reports(self.wire)]

    def test_changed(self) -> None:
        """From the command on there is a report at each new interval, more or less often, with each of the commands."""
        for order in ("D1,{}", "S17,{}", "S71,22,{}"):
            self.drive()
            self.passes(12.0)
            self.command(framed(order.format(3)))
            self.passes(10.0)
            self.command(framed(order.format(20)))
            self.passes(41.0)
            self.assertEqual([0, 10, 15, 18, 21, 42, 62], self.times(), order)

    def test_so_many(self) -> None:
        """With a count there are so many reports at the new interval, and then it is as before."""
        self.drive()
        self.command(framed("D1,2,3"))
        self.passes(27.0)
        self.assertEqual([0, 2, 4, 6, 16, 26], self.times())
        self.assertIn(b"\nUT:10,10,300\n", *self.command(b"RCONF"))

    def test_count(self) -> None:
        """A device makes as many reports as it is to make, and each is acknowledged once."""
        self.drive(count=3)
        self.command(framed("D1,1") + framed("D1,5") + framed("D1,2"))
        for _ in range(3):
            self.passes(2.1)
            self.protocol.dataReceived(V4)
        self.passes(0.1)
        self.successResultOf(self.finished)
        self.assertEqual((3, 3, 0), (len(self.times()), len(self.recorded), self.counts.summary(1.0)["lost"]))

    def test_way(self) -> None:
        """A car that drives is nowhere sooner than it can be, whichever way the interval changes."""
        self.drive(SCENARIOS["driving"], interval=60.0)
        self.passes(65.0)
        self.command(framed("D1,5"))
        self.passes(61.0)
        self.command(framed("D1,90"))
        self.passes(181.0)
        made = reports(self.wire)
        self.assertEqual(60 // 5 + 4, len(made))
        for before, after in pairwise(made):
            seconds = dated(after) - dated(before)
            degrees = [abs(float(b.split(b",")[5][:2]) + float(b.split(b",")[5][2:]) / 60) for b in (before, after)]
            self.assertLessEqual(abs(degrees[1] - degrees[0]) * METRES_PER_DEGREE / seconds, 130 / 3.6)
            self.assertGreater(knots(after) * 1.852, 50)
        self.assertEqual(len(made), len({tuple(report.split(b",")[5:9]) for report in made}))

    def test_planned(self) -> None:
        """What comes next and is no report comes when it was to come; the reports after it at the new interval."""

        def cut_off(tracker: Unit) -> Iterator[Step]:
            yield tracker.next()
            tracker.wait()
            yield Step(tracker.clock, link=Link.CUT)
            while True:
                yield tracker.next()

        self.drive(cut_off)
        self.protocol.dataReceived(V4 + framed("D1,2"))
        self.passes(9.8)
        self.assertFalse(self.wire.disconnected)
        self.passes(0.2)
        self.assertTrue(self.wire.disconnected)
        _, self.wire = self.accept()
        self.passes(4.2)
        self.assertEqual([12, 14], self.times())

    def test_every_scenario(self) -> None:
        """Whatever the scenario, reports go on, at the new interval but for pauses of the scenario's own."""
        for name, script in SCENARIOS.items():
            self.drive(script, count=60)
            self.command(framed("D1,2"))
            for _ in range(400):
                self.passes(1.0)
                for factory in self.attempts():
                    factory.buildProtocol(None).makeConnection(Wire())
            self.assertEqual(60, self.counts.reports, name)


class GuardTests(OrdersTestCase):
    """Scenarios for those who have to know whether a car stands."""

    def test_standing(self) -> None:
        """The engine runs, the speed is 0, there is a fix; a cut shows as bit 27 from the next report on."""
        self.drive(SCENARIOS["standing"], interval=1.0)
        self.passes(3.0)
        self.command(CUT)
        self.passes(2.0)
        made = reports(self.wire)
        self.assertEqual([frames.ENGINE_ON] * 4 + [frames.RELAY_CUT] * 2, [word(report) for report in made])
        self.assertEqual({(b"A", 0.0)}, {(report.split(b",")[4], knots(report)) for report in made})
        self.assertEqual(1, len({tuple(report.split(b",")[5:9]) for report in made}))

    def test_driving(self) -> None:
        """It is faster than 50 km/h in each report, so that a cut waits."""
        self.drive(SCENARIOS["driving"])
        self.assertIn(b",DONE,", *self.command(CUT))
        self.passes(1000.0)
        made = reports(self.wire)
        self.assertGreater(min(map(knots, made)) * 1.852, 50)
        self.assertGreater(50, CUT_BELOW_KMH)
        self.assertEqual({frames.ENGINE_ON}, set(map(word, made)))

    def test_stale_fix(self) -> None:
        """After the first report there is no fix: the place and speed 0 are repeated, while time goes on."""
        self.drive(SCENARIOS["stale-fix"], interval=1.0)
        self.passes(5.0)
        first, *others = reports(self.wire)
        self.assertEqual((b"A", 0.0), (first.split(b",")[4], knots(first)))
        for number, report in enumerate(others, 1):
            self.assertEqual((b"V", *first.split(b",")[5:11]), (report.split(b",")[4], *report.split(b",")[5:11]))
            self.assertEqual(dated(first) + number, dated(report))
        self.assertEqual(5, len(others))
        self.assertGreater(self.fleet._devices[0].unit.car.speed_kmh, 0)

    def test_frozen_clock(self) -> None:
        """A clock that stands still does so in answers and after the interval has changed, too."""
        self.drive(SCENARIOS["parked-frozen-clock"], interval=1.0)
        self.passes(2.0)
        self.assertIn(b",DONE,130305,120000,A,", *self.command(CUT))
        self.assertIn(b",3,130305,120000,A,", *self.command(framed("S17,3")))
        self.passes(9.5)
        made = reports(self.wire)
        self.assertEqual(({dated(made[0])}, 6), (set(map(dated, made)), len(made)))
        self.assertTrue(word(made[-1]) & frames.RELAY_CUT)


class HeardTests(OrdersTestCase):
    """What a fleet notes of the commands that came."""

    def test_noted(self) -> None:
        """Each command is noted as it came, whatever becomes of it; acknowledgements and others' are not."""
        self.drive(interval=1.0, manner="ignore")
        self.passes(1.0)
        now = self.reactor.seconds()
        self.protocol.dataReceived(CUT)
        self.protocol.dataReceived(V4 + RESTORE)
        self.protocol.dataReceived(V4)
        self.protocol.dataReceived(framed("S18,1") + framed("S99"))
        self.protocol.dataReceived(b"RCONF\r\n")
        self.protocol.dataReceived(CUT.replace(b"01,S20", b"02,S20"))
        self.assertEqual(
            [
                (IDENT, CUT, now, True),
                (IDENT, RESTORE, now, False),
                (IDENT, framed("S18,1"), now, False),
                (IDENT, framed("S99"), now, False),
                (IDENT, b"RCONF", now, True),
            ],
            self.commanded,
        )

    def test_datagrams(self) -> None:
        """A datagram of its own is alone."""
        self.begin(parked, count=0, transport="udp")
        self.passes(0.1)
        port = self.reactor.ports[0]
        port.protocol.datagramReceived(V4, None)
        port.protocol.datagramReceived(CUT, None)
        port.protocol.datagramReceived(R12 + RESTORE, None)
        self.assertEqual([(CUT, True), (RESTORE, False)], [(data, alone) for _, data, _, alone in self.commanded])


class AloneTests(SynchronousTestCase):
    """Whether a command came alone."""

    def alone(self, *reads: bytes) -> list[bool]:
        """After each read in which something was heard, whether that was alone."""
        reader = Downlink()
        return [reader.alone for read in reads if reader.receive(read)]

    def test_reads(self) -> None:
        """It is alone when its reads, one or several, held nothing else but ends of lines."""
        for alone, reads in (
            ([True], (CUT,)),
            ([True, True], (V4, CUT)),
            ([True, True], (V4 + b"\r\n", CUT + b"\r\n")),
            ([True], (CUT[:9], CUT[9:])),
            ([True], tuple(bytes([byte]) for byte in CUT)),
            ([False], (V4 + CUT,)),
            ([False], (CUT + V4,)),
            ([False], (V4 + R12,)),
            ([True, False], (V4, R12 + CUT)),
            ([False, False], (V4 + CUT[:9], CUT[9:])),
            ([False], (CUT[:9], CUT[9:] + V4)),
            ([False, True], (b"junk" + CUT, CUT)),
            ([True], (b"RC", b"ONF")),
        ):
            self.assertEqual(alone, self.alone(*reads), reads)
