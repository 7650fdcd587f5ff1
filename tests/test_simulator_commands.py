"""Commands to simulated trackers: what they answer, and what becomes of their reports and cars."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from gateway.simulator import frames
from gateway.simulator.relay import CUT_BELOW_KMH
from gateway.simulator.scenarios import SCENARIOS
from gateway.simulator.steps import Link, Step, Told
from gateway.simulator.unit import Unit
from tests.simulator_fakes import IDENT, R12, V4, FleetTestCase, Wire, knots, word

CUT = b"*HQ,9900000001,S20,130305,1,1#"
RESTORE = b"*HQ,9900000001,S20,130306,1,0#"
RESTORE_TOO = b"*HQ,9900000001,S20,130307,0,0#"


def parked(tracker: Unit) -> Iterator[Step]:
    """Stands with the ignition off."""
    while True:
        yield tracker.next()


def departing(tracker: Unit) -> Iterator[Step]:
    """Stands for one report, and drives off."""
    yield tracker.next()
    tracker.ignition = True
    tracker.car.go()
    while True:
        yield tracker.next()


def braking(tracker: Unit) -> Iterator[Step]:
    """Drives fast for three reports, and then comes to a stand."""
    tracker.ignition = True
    tracker.car.go()
    tracker.car.move(10.0)
    for _ in range(3):
        yield tracker.next()
    tracker.car.halt()
    while True:
        yield tracker.next()


def reports(wire: Wire) -> list[bytes]:
    """The V1 reports on a connection."""
    return [frame for frame in wire.frames() if b",V1," in frame]


def answered(wire: Wire) -> list[bytes]:
    """What else is on it."""
    return [frame for frame in wire.frames() if b",V1," not in frame]


class CommandTests(FleetTestCase):
    """Commands over TCP and UDP."""

    def drive(self, script: Any = parked, interval: float = 1.0, **values: Any) -> None:
        """A device whose first report is under way."""
        self.begin(script, count=0, interval=interval, timeout=1000.0, **values)
        self.passes(0.1)
        self.protocol, self.wire = self.accept()

    def command(self, data: bytes) -> list[bytes]:
        """Bytes come; what is answered at once."""
        before = len(answered(self.wire))
        self.protocol.dataReceived(data)
        return answered(self.wire)[before:]

    def test_cut(self) -> None:
        """A parked car is cut at once: DONE with the command's time of day, and bit 27 from the next report on."""
        self.drive()
        (answer,) = self.command(CUT)
        self.assertRegex(
            answer.decode(),
            r"^\*HQ,9900000001,V4,S20,DONE,130305,120000,A,\d{4}\.\d{4},[NS],\d{5}\.\d{4},[EW],0\.00,\d{3},"
            r"221126,FFFFFBFF#$",
        )
        self.assertEqual(1, len(reports(self.wire)))
        self.passes(3.0)
        first, *others = map(word, reports(self.wire))
        self.assertEqual(frames.ACC_OFF, first)
        self.assertEqual([frames.ACC_OFF | frames.RELAY_CUT] * 3, others)
        self.assertEqual((1, 1, 4, 0), self.seen("commands", "told", "reports", "strange"))

    def test_restore(self) -> None:
        """Both forms of the command restore the engine: bit 27 is gone from the next report on."""
        for restore in (RESTORE, RESTORE_TOO):
            self.drive()
            self.command(CUT)
            self.passes(1.0)
            (answer,) = self.command(restore)
            self.assertIn(b",DONE," + restore[19:25] + b",", answer)
            self.assertTrue(answer.endswith(b",F7FFFBFF#"))  # it is of before that
            self.passes(1.0)
            conditions = [bool(word(frame) & frames.RELAY_CUT) for frame in reports(self.wire)]
            self.assertEqual([False, True, False], conditions)

    def test_stands(self) -> None:
        """A car that is cut does not leave where it stood, though the ignition goes on; restored it drives off."""
        self.drive(departing)
        self.command(CUT)
        self.passes(8.0)
        first, *others = reports(self.wire)
        self.assertEqual({0.0}, set(map(knots, others)))
        self.assertEqual({tuple(first.split(b",")[5:9])}, {tuple(frame.split(b",")[5:9]) for frame in others})
        self.assertEqual({frames.RELAY_CUT}, set(map(word, others)))  # the engine does not run
        self.command(RESTORE)
        self.passes(10.0)
        self.assertGreater(max(map(knots, reports(self.wire))), 10.0)
        self.assertEqual(frames.ENGINE_ON, word(reports(self.wire)[-1]))

    def test_too_fast(self) -> None:
        """A fast car answers DONE and drives on; it is cut after the first report in which it is slow."""
        self.drive(braking)
        (answer,) = self.command(CUT)
        self.assertIn(b",DONE,", answer)
        self.passes(15.0)
        made = reports(self.wire)
        slow = next(n for n, frame in enumerate(made) if knots(frame) * 1.852 < CUT_BELOW_KMH)
        self.assertGreater(slow, 2)
        self.assertEqual({frames.ENGINE_ON}, set(map(word, made[: slow + 1])))
        self.assertGreater(knots(made[slow]), 0.0)
        self.assertEqual({frames.RELAY_CUT}, set(map(word, made[slow + 1 :])))
        self.assertEqual({0.0}, set(map(knots, made[slow + 1 :])))

    def test_taken_back(self) -> None:
        """A cut that still waits is forgotten when the engine is to be restored."""
        self.drive(braking)
        self.command(CUT)
        self.passes(1.0)
        self.command(RESTORE)
        self.passes(15.0)
        self.assertFalse(any(word(frame) & frames.RELAY_CUT for frame in reports(self.wire)))

    def test_every_scenario(self) -> None:
        """Whatever the scenario, the device obeys, in reports of any kind."""
        for name, script in SCENARIOS.items():
            self.drive(script, interval=10.0)
            (answer,) = self.command(CUT)
            self.assertIn(b",V4,S20,DONE,", answer, name)
            if name in {"overspeed", "driving"}:
                continue  # never slow enough
            conditions = 0
            for _ in range(60):
                self.reactor.pump([1.0] * 10)
                for factory in self.attempts():
                    factory.buildProtocol(None).makeConnection(Wire())
                conditions |= self.fleet._devices[0].unit.record().conditions
            self.assertTrue(conditions & frames.RELAY_CUT, name)

    def test_binary(self) -> None:
        """A report in binary form that was made ahead has the bit, too."""
        self.drive(SCENARIOS["binary"])
        self.protocol.dataReceived(CUT)
        self.wire.clear()
        self.passes(1.0)
        self.assertEqual(0xF7, self.wire.value()[25])

    def test_no_fix(self) -> None:
        """Without a fix the place and the speed of the last one are repeated when the engine is cut, too."""

        def underground(tracker: Unit) -> Iterator[Step]:
            tracker.ignition = True
            tracker.car.go()
            tracker.car.move(0.5)
            yield tracker.next()
            tracker.fix = False
            while True:
                yield tracker.next()

        self.drive(underground)
        self.command(CUT)
        self.passes(3.0)
        first, *others = reports(self.wire)
        self.assertGreater(knots(first), 0.0)
        for frame in others:
            self.assertEqual(first.split(b",")[5:11], frame.split(b",")[5:11])
            self.assertEqual((b"V", frames.RELAY_CUT), (frame.split(b",")[4], word(frame)))

    def test_unknown(self) -> None:
        """A command that it does not know is answered ERROR, and S20 with other arguments, too."""
        self.drive()
        for data, start in (
            (b"*HQ,9900000001,S71,130305,23,30#", b"*HQ,9900000001,V4,S71,ERROR,130305,120000,A,"),
            (b"*HQ,9900000001,R8,130305,123#", b"*HQ,9900000001,V4,R8,ERROR,130305,120000,A,"),
            (b"*HQ,9900000001,S20,130305,2,2#", b"*HQ,9900000001,V4,S20,ERROR,130305,120000,A,"),
            (b"*HQ,9900000001,S20,130305#", b"*HQ,9900000001,V4,S20,ERROR,130305,120000,A,"),
        ):
            (answer,) = self.command(data)
            self.assertTrue(answer.startswith(start), answer)
        self.passes(1.0)
        self.assertFalse(any(word(frame) & frames.RELAY_CUT for frame in reports(self.wire)))

    def test_ignored(self) -> None:
        """A command to another device, or with another maker's code, is ignored."""
        self.drive()
        self.assertEqual([], self.command(CUT.replace(b"01,S20", b"02,S20")))
        self.assertEqual([], self.command(CUT.replace(b"*HQ", b"*TH")))
        self.passes(1.0)
        self.assertFalse(any(word(frame) & frames.RELAY_CUT for frame in reports(self.wire)))
        self.assertEqual((0, 0, 2), self.seen("commands", "told", "strange"))

    def test_short(self) -> None:
        """In C{commands} each fourth device answers in the short form; what it does not know, in the full one."""
        self.begin(SCENARIOS["commands"], count=0, devices=4, interval=1.0)
        self.passes(1.0)
        answers = []
        for number, factory in enumerate(self.attempts()):
            protocol, wire = factory.buildProtocol(None), Wire()
            protocol.makeConnection(wire)
            ident = b"%010d" % (int(IDENT) + number)
            for data in (CUT, b"*HQ,9900000001,S71,130305#"):
                protocol.dataReceived(data.replace(IDENT.encode(), ident))
            answers.append(answered(wire))
        self.assertEqual([b"*HQ,9900000004,V4,S20,130305,1,1#"], answers[3][:1])
        self.assertTrue(all(b",S20,DONE," in answer for answer, _ in answers[:3]))
        self.assertTrue(all(b",S71,ERROR," in answer for _, answer in answers))

    def test_text(self) -> None:
        """RCONF, whatever is or is not behind it, is answered by a frame with the configuration, in lines."""
        for data in (b"RCONF", b"RCONF\r\n", V4 + b"RCONF#", b"RCONF,0000#", b"\nRCONF"):
            self.drive()
            (answer,) = self.command(data)
            head, *lines = answer.decode().split("\n")
            self.assertTrue(head.startswith("*HQ,9900000001,SMS,ST907"), answer)
            self.assertEqual(
                ["ID:9900000001", "IP:127.0.0.1 8888", "UT:1,1,300", "VOLT:12.9V", "APN:internet.example.com"],
                lines[:5],
            )
            self.assertEqual(["GPS:A-24-23", "GSM:26#"], lines[5:])
        self.assertEqual([], self.command(b"CXZT\nSTATUS#"))

    def test_text_of_state(self) -> None:
        """The configuration says when there is no supply, and no fix."""

        def poor(tracker: Unit) -> Iterator[Step]:
            tracker.conditions |= frames.POWER_CUT
            tracker.fix = False
            yield from parked(tracker)

        self.drive(poor)
        (answer,) = self.command(b"RCONF")
        self.assertIn(b"\nVOLT:0.0V\n", answer)
        self.assertIn(b"\nGPS:V-13-9\n", answer)

    def test_reboot(self) -> None:
        """R1 cuts the connection; on the next one V6 comes first, then what was not acknowledged."""
        self.drive()
        self.protocol.dataReceived(b"*HQ,9900000001,R1,130305#" + CUT)
        self.assertTrue(self.wire.disconnected)
        self.assertEqual([], answered(self.wire))
        self.passes(1.1)
        _, wire = self.accept()
        power_up, *others = wire.frames()
        self.assertRegex(power_up.decode(), r"^\*HQ,9900000001,V6,120000,A,.*,89\d{17}F,#$")
        self.assertEqual(reports(self.wire), others[:1])
        self.assertEqual((1, 1, 0), self.seen("commands", "told", "strange"))  # the other command went down with it

    def test_datagrams(self) -> None:
        """Over UDP a command is obeyed the same; answers are datagrams of their own."""
        self.begin(parked, count=0, interval=1.0, transport="udp")
        self.passes(0.1)
        port = self.reactor.ports[0]
        port.protocol.datagramReceived(CUT, None)
        port.protocol.datagramReceived(V4, None)
        self.passes(1.0)
        report, answer, second = port.sent
        self.assertEqual(frames.ACC_OFF, word(report))
        self.assertIn(b",V4,S20,DONE,", answer)
        self.assertEqual(frames.ACC_OFF | frames.RELAY_CUT, word(second))

    def test_past_the_end(self) -> None:
        """Who makes no more reports, and waits for an acknowledgement, still obeys."""
        self.begin(parked, count=1)
        self.passes(0.1)
        self.protocol, self.wire = self.accept()
        self.assertIn(b",DONE,", *self.command(CUT))
        self.protocol.dataReceived(V4)
        self.passes(0.1)
        self.successResultOf(self.finished)


class TellingTests(FleetTestCase):
    """Frames that nobody acknowledges, and gateways that acknowledge in their own ways."""

    def test_once(self) -> None:
        """They wait for a connection, go out before the report, once, and are not waited for at the end."""

        def talkative(tracker: Unit) -> Iterator[Step]:
            for _ in range(2):
                yield tracker.next()._replace(told=(Told(frames.link, (20, 8, 67)),))

        self.begin(talkative, count=2)
        self.passes(0.1)
        protocol, wire = self.accept()
        first, report = wire.frames()
        self.assertEqual(b"*HQ,9900000001,LINK,120000,20,8,67,0,0,221126,FFFFFBFF#", first)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.passes(1.1)
        protocol, wire = self.accept()
        self.assertEqual([report], wire.frames())
        protocol.dataReceived(V4)
        self.passes(10.0)
        self.assertEqual(first.replace(b"120000", b"120010"), wire.frames()[1])
        protocol.dataReceived(V4)
        self.passes(0.1)
        self.successResultOf(self.finished)
        self.assertEqual((2, 2, 2, 2), self.seen("told", "reports", "sent", "acknowledged"))
        self.assertEqual(0, self.counts.summary(1.0)["lost"])

    def test_without_report(self) -> None:
        """A step may tell something and report nothing: it is reason enough to connect, and not a report."""

        def curt(tracker: Unit) -> Iterator[Step]:
            tracker.wait()
            yield Step(tracker.clock, told=(Told(frames.v6, (tracker.iccid,)),))
            yield tracker.next()

        self.begin(curt, count=0, interval=10.0)
        self.passes(0.1)
        _, wire = self.accept()
        self.assertEqual([True], [b",V6," in frame for frame in wire.frames()])
        self.assertEqual((0, 1), self.seen("reports", "told"))

    def test_of_its_time(self) -> None:
        """What is told says what a command has changed meanwhile, like the report beside it."""
        self.begin(SCENARIOS["power-up"], count=0, interval=1.0)
        self.passes(2.1)
        protocol, wire = self.accept()
        protocol.dataReceived(CUT)
        self.passes(1.0)
        told, report = wire.frames()[-2:]
        self.assertIn(b",LINK,", told)
        self.assertTrue(told.endswith(b",F7FFFBFF#"), told)
        self.assertTrue(word(report) & frames.RELAY_CUT)

    def test_no_room(self) -> None:
        """Without a connection only the latest of them are kept."""

        def talkative(tracker: Unit) -> Iterator[Step]:
            for number in range(30):
                yield tracker.next()._replace(told=(Told(frames.link, (number, 8, 67)),), link=Link.DOWN)
            yield tracker.next()

        self.begin(talkative, count=0, interval=1.0)
        self.passes(30.5)
        _, wire = self.accept()
        self.assertEqual([b"%d" % n for n in range(10, 30)], [frame.split(b",")[4] for frame in wire.frames()[:20]])

    def test_both(self) -> None:
        """A gateway that answers V4 and R12 acknowledges one report with them, and nothing of it is strange."""
        self.begin(parked, count=4, interval=1.0)
        self.passes(4.0)
        protocol, wire = self.accept()
        self.assertEqual(4, len(wire.frames()))
        for number in range(1, 5):
            for byte in V4 + R12:
                protocol.dataReceived(bytes([byte]))
            self.assertEqual((number, 0), self.seen("acknowledged", "strange"))
        self.passes(0.1)
        self.successResultOf(self.finished)

    def test_goes_over_to_r12(self) -> None:
        """A gateway that goes over to R12 for a device that sends again is understood on the next connection."""
        self.begin(parked, count=3, interval=1.0, timeout=2.0)
        self.passes(0.1)
        protocol, _ = self.accept()
        protocol.dataReceived(V4)
        self.passes(6.0)
        protocol, wire = self.accept()
        self.assertEqual(2, len(wire.frames()))
        protocol.dataReceived(R12 + R12)
        self.passes(0.1)
        self.successResultOf(self.finished)
        self.assertEqual((3, 0), self.seen("acknowledged", "strange"))

    def test_kinds(self) -> None:
        """Reports of several kinds are acknowledged in their order, each in its way."""

        def mixed(tracker: Unit) -> Iterator[Step]:
            yield tracker.next()
            yield tracker.next_cells()
            tracker.wait()
            yield Step(tracker.clock, frames.htbt(tracker.ident, 100))
            tracker.encode = frames.binary
            yield tracker.next()

        self.begin(mixed, count=4, interval=1.0)
        self.passes(4.0)
        protocol, _ = self.accept()
        for answer in (V4, b"*HQ,9900000001,V4,NBR,20261122120002#", b"*HQ,9900000001,HTBT#", R12):
            protocol.dataReceived(answer)
        self.passes(0.1)
        self.successResultOf(self.finished)
        self.assertEqual((4, 0), self.seen("acknowledged", "strange"))
