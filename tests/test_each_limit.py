"""
Each key of C{[limits]}: what happens at it, one step below and one above.

A key without a test here fails this module.
"""

from __future__ import annotations

import dataclasses
import json

from twisted.trial.unittest import SynchronousTestCase

from gateway.config import LimitsSection
from gateway.connection import Limits
from gateway.identity import NOTICE_S, NOTICES_PER_S, Notices
from gateway.interfaces import NO, YES
from gateway.publisher import Bounds
from gateway.rates import ADDRESSES, Rate, Rates
from gateway.transports.tcp import TCPLimits
from tests.fakes import NOON, by_type, plugin, script
from tests.test_publisher import PublisherCase, report
from tests.test_tcp import TCPCase, Transport
from tests.test_udp import UDPCase

#: A device that says so late that it is nobody's, and so anything is until then.
PATIENT = plugin("patient", script((1, YES(40, "perhaps")), (5000, NO("no"))))
OTHER = plugin("other", script((1, YES(40, "perhaps"))))


class TCPLimitTests(TCPCase):
    """On connections."""

    def connections(self, count: int, host: str = "192.0.2.7") -> list[Transport]:
        """So many connections."""
        return [self.connect(host, 1000 + n)[1] for n in range(count)]

    def test_connections(self) -> None:
        """As many as the limit stay; one more is cut, where each is known to be a device's."""
        for count, cut in ((2, 0), (3, 0), (4, 1)):
            self.make(TCPLimits(connections=3))
            wires = []
            for n in range(count):
                protocol, wire = self.connect(port=1000 + n)
                wires.append(wire)
                if not wire.aborted:
                    self.say(protocol, b"12%d:a;" % n)
            self.assertEqual(cut, sum(wire.aborted for wire in wires))
            self.assertEqual(cut, self.counted("limited_connections"))

    def test_room_for_the_next(self) -> None:
        """Where there is no room the oldest that has not said who it is goes, not who is known, nor the newcomer."""
        self.make(TCPLimits(connections=3))
        known, known_wire = self.connect(port=1)
        self.say(known, b"123:a;")
        silent, newer = self.connections(2)
        _, newcomer = self.connect(port=9)
        self.assertEqual([False, True, False, False], [one.aborted for one in (known_wire, silent, newer, newcomer)])
        self.assertEqual((1, 0), (self.counted("closed_undetected"), self.counted("limited_connections")))

    def test_connections_per_address(self) -> None:
        """As many of an address as the limit stay; one more is cut, and other addresses are not concerned."""
        for count, cut in ((2, 0), (3, 0), (4, 1)):
            self.make(TCPLimits(connections_per_address=3))
            wires = self.connections(count) + self.connections(1, "192.0.2.8")
            self.assertEqual([*[False, False, False, True][:count], False], [wire.aborted for wire in wires])
            self.assertEqual(cut, self.counted("limited_connections_per_address"))

    def test_accepts(self) -> None:
        """As many a second as the limit are accepted; after one more the port rests, and nobody is turned away."""
        for count, rests in ((9, 0), (10, 0), (11, 1)):
            self.make(TCPLimits(accepts=10))
            rested: list[float] = []
            self.factory.on_rush = rested.append
            wires = self.connections(count)
            self.assertEqual(rests, len(rested), count)
            self.assertEqual(rests, self.counted("paused_accepts"))
            self.assertFalse(any(wire.aborted for wire in wires))
            self.pass_time(1)
            self.connections(5, "192.0.2.9")
            self.assertEqual(rests, len(rested), "a second later there is room again")

    def test_undetected(self) -> None:
        """As many as the limit may say nothing; with one more the oldest of them is cut."""
        for count, cut in ((2, 0), (3, 0), (4, 1)):
            self.make(TCPLimits(undetected=3))
            wires = self.connections(count)
            self.assertEqual([True] * cut + [False] * (count - cut), [wire.aborted for wire in wires])
            self.assertEqual(cut, self.counted("closed_undetected"))

    def test_undetected_and_known(self) -> None:
        """Who has said who it is does not count, and neither does who went."""
        self.make(TCPLimits(undetected=3))
        for n in range(20):
            protocol, wire = self.connect(port=n)
            self.say(protocol, b"12%d:a;" % n)
            self.assertFalse(wire.aborted)
        gone, _ = self.connect(port=100)
        gone.connectionLost()
        self.assertFalse(any(wire.aborted for wire in self.connections(3)))

    def test_strangers_per_address(self) -> None:
        """After so many of nobody's a minute a new one of the address is left unread for a while; others are read."""
        for count, read in ((5, True), (6, True), (7, False)):
            self.make(TCPLimits(strangers_per_address=6))
            for n in range(count):
                protocol, _ = self.connect(port=n)
                self.say(protocol, b"what?")
                self.pass_time(0)
            _, wire = self.connect(port=99)
            self.assertEqual(read, wire.reading, count)
            self.assertEqual(0 if read else 1, self.counted("paused_strangers_per_address"))
            self.assertTrue(self.connect("192.0.2.8")[1].reading)
            self.assertFalse(wire.aborted)
            self.pass_time(11)  # six a minute are one in ten seconds
            self.assertTrue(wire.reading)

    def test_reports_per_device(self) -> None:
        """As many a second as the limit are read at once; after one more the connection is read later: none is lost."""
        for count, reading in ((9, True), (10, True), (11, False)):
            self.make(TCPLimits(reports_per_device=10))
            protocol, wire = self.connect()
            other, other_wire = self.connect(port=2)
            self.say(protocol, b"123:a;" * count)
            self.say(other, b"124:a;")
            self.answer_all()
            self.assertEqual((reading, True), (wire.reading, other_wire.reading), count)
            self.assertEqual(count, wire.value().count(b"toy<"), "all that was read is answered")
            self.pass_time(0.5)
            self.assertTrue(wire.reading)
        self.pass_time(2)
        self.say(protocol, b"123:a;" * 10)
        self.assertTrue(wire.reading, "after a second of rest there is room for as many again")

    def test_reports_of_many_devices(self) -> None:
        """A connection that carries many devices is not slowed for what is little of each."""
        self.make(TCPLimits(reports_per_device=10))
        protocol, wire = self.connect()
        for n in range(100):
            self.say(protocol, b"1%03d:a;" % (200 + n))
        self.assertTrue(wire.reading)
        self.say(protocol, b"1200:a;" * 11)
        self.assertFalse(wire.reading)

    def test_reports_per_device_sustained(self) -> None:
        """Who sends all the time is read as fast as the limit says, and not at all meanwhile."""
        self.make(TCPLimits(reports_per_device=10))
        protocol, wire = self.connect()
        sent = 0
        for _ in range(4 * 20):
            if wire.reading:
                self.say(protocol, b"123:a;" * 4)
                self.answer_all()
                sent += 4
            self.pass_time(0.25)
        self.assertTrue(200 <= sent <= 230, sent)

    def test_reports_per_address(self) -> None:
        """So it is for all connections of an address together; one of another address is read."""
        for count, reading in ((9, True), (10, True), (11, False)):
            self.make(TCPLimits(reports_per_address=10))
            first, _ = self.connect()
            second, wire = self.connect(port=2)
            _, other = self.connect("192.0.2.8")
            self.say(first, b"123:a;" * 5)
            self.say(second, b"124:a;" * (count - 5))
            self.answer_all()
            self.assertEqual((reading, True), (wire.reading, other.reading), count)
            self.assertEqual(0 if reading else 1, self.counted("paused_reports_per_address"))

    def test_changed(self) -> None:
        """Changed limits hold for connections that there are, and the address's for all of them together."""
        self.make(TCPLimits(reports_per_device=5, reports_per_address=1000))
        first, wire = self.connect()
        second, other = self.connect(port=2)
        self.say(first, b"123:a;" * 5)
        self.factory.change(Limits(), TCPLimits(reports_per_device=100, reports_per_address=10))
        self.say(first, b"123:a;" * 6)
        self.say(second, b"124:a;" * 4)
        self.assertEqual((True, True), (wire.reading, other.reading))
        self.say(second, b"124:a;")
        self.assertEqual((True, False), (wire.reading, other.reading))
        self.assertEqual(1, self.counted("paused_reports_per_address"))

    def test_detect_bytes(self) -> None:
        """So many bytes decide: one less may still become somebody's."""
        for count, closed in ((99, False), (100, True), (101, True)):
            self.make(connection=Limits(detect_bytes=100), plugins=(PATIENT, OTHER))
            protocol, wire = self.connect()
            self.say(protocol, b"x" * count)
            self.answer_all()
            self.assertEqual(closed, wire.disconnecting, count)
            self.assertEqual(int(closed), self.counted("closed_detect_bytes"))

    def test_detect_seconds(self) -> None:
        """A second before its time is over it is not decided; a second after it is."""
        for seconds, closed in ((19.0, False), (20.0, True), (21.0, True)):
            self.make(connection=Limits(detect_seconds=20.0), plugins=(PATIENT, OTHER))
            protocol, wire = self.connect()
            for _ in range(int(seconds)):
                self.say(protocol, b"x")
                self.pass_time(1)
            self.clock.advance(0)
            self.answer_all()
            self.assertEqual(closed, wire.disconnecting, seconds)
            self.assertEqual(int(closed), self.counted("closed_detect_seconds"))

    def test_frame_bytes(self) -> None:
        """What is held of a frame that does not end may be as long as the limit, and not longer."""
        for count, closed in ((99, False), (100, False), (101, True)):
            self.make(connection=Limits(frame_bytes=100))
            protocol, wire = self.connect()
            self.say(protocol, b"123:a;" + b"x" * count)
            self.answer_all()
            self.assertEqual(closed, wire.disconnecting, count)
            self.assertEqual(int(closed), self.counted("closed_frame_bytes"))

    def test_junk_bytes(self) -> None:
        """So many bytes may come without a good frame, and not one more."""
        for count, closed in ((99, False), (100, False), (101, True)):
            self.make(connection=Limits(junk_bytes=100))
            protocol, wire = self.connect()
            self.say(protocol, b"123:a;" + b"!" + b"x" * (count - 2) + b";")
            self.answer_all()
            self.assertEqual(closed, wire.disconnecting, count)
            self.assertEqual(int(closed), self.counted("closed_junk_bytes"))

    def test_idle(self) -> None:
        """With an interval that was learned a connection may be silent for so long, or three intervals."""
        for seconds, closed in ((90, False), (112, True)):  # looked at every five seconds
            self.make(TCPLimits(idle=100.0))
            protocol, wire = self.connect()
            for n in range(3):
                self.say(protocol, b"123:%d;" % n)
                self.answer_all()
                self.pass_time(10 if n < 2 else seconds)
            self.assertEqual(closed, wire.aborted, seconds)
            self.assertEqual(int(closed), self.counted("closed_idle"))

    def test_idle_unlearned(self) -> None:
        """Until one was learned, for so long."""
        for seconds, closed in ((94, False), (106, True)):
            self.make(TCPLimits(idle=10.0, idle_unlearned=100.0))
            protocol, wire = self.connect()
            self.say(protocol, b"123:a;")
            self.answer_all()
            self.pass_time(seconds)
            self.assertEqual(closed, wire.aborted, seconds)

    def test_unread_seconds(self) -> None:
        """A client may leave its replies unread for so long, and is not read meanwhile."""
        for seconds, closed in ((54, False), (66, True)):
            self.make(TCPLimits(unread_seconds=60.0))
            protocol, wire = self.connect()
            self.say(protocol, b"123:a;")
            protocol.pauseProducing()
            self.assertFalse(wire.reading)
            self.pass_time(seconds)
            self.assertEqual(closed, wire.aborted, seconds)
            self.assertEqual(int(closed), self.counted("closed_unread_seconds"))

    def test_unanswered(self) -> None:
        """So many frames of one connection may wait; with one more it is not read until half of them are answered."""
        for count, reading in ((9, True), (10, True), (11, False)):
            self.make(TCPLimits(unanswered=10))
            protocol, wire = self.connect()
            self.say(protocol, b"123:a;")
            self.answer_all()
            self.say(protocol, b"123:b;" * count)
            self.assertEqual(reading, wire.reading, count)
            self.assertEqual(0 if reading else 1, self.counted("paused_unanswered"))
            self.answer_all()
            self.assertTrue(wire.reading)


class PublisherLimitTests(PublisherCase):
    """On frames and idents."""

    def limited(self, name: str, bounds: Bounds, count: int) -> int:
        """How many of so many new idents are turned away."""
        self.make(bounds)
        for n in range(count):
            self.take(report(n, f"id{n}"))
        self.answer_all()
        self.assertBalanced()
        return self.publisher.counters[f"limited_{name}"]

    def test_new_idents(self) -> None:
        """So many an hour are let in, and not one more."""
        found = [self.limited("new_idents", Bounds(new_idents=3), count) for count in (2, 3, 4)]
        self.assertEqual([0, 0, 1], found)

    def test_new_idents_per_address(self) -> None:
        """So many of an address, and not one more: that is on the dead stream, once a minute."""
        bounds = Bounds(new_idents_per_address=3)
        found = [self.limited("new_idents_per_address", bounds, count) for count in (2, 3, 4)]
        self.assertEqual([0, 0, 1], found)
        (said,) = by_type(self.sink.events, "device.rejected")
        data = json.loads(said["data"])
        self.assertEqual(("id3", "new_idents_per_address", 1), (said["ident"], data["limit"], data["times"]))

    def test_pending(self) -> None:
        """With so many frames that wait reading pauses; with one less it does not."""
        for count, full in ((9, False), (10, True), (11, True)):
            self.make(Bounds(pending=10))
            self.take(*[report(n) for n in range(count)])
            self.assertEqual(full, self.publisher.full, count)
            self.answer_all()
            self.turn()
            self.assertFalse(self.publisher.full)

    def test_pending_bytes(self) -> None:
        """So it is with their bytes."""
        for size, full in ((999, False), (1000, True), (1001, True)):
            self.make(Bounds(pending_bytes=1000))
            self.take(report(1)._replace(raw=b"x" * size))
            self.assertEqual(full, self.publisher.full, size)


class DatagramLimitTests(UDPCase):
    """On datagrams, which can't be left unread: they are not taken, and counted."""

    def test_reports_per_device(self) -> None:
        """So many a second of a sender, and not one more; then again."""
        for count, lost in ((9, 0), (10, 0), (11, 1)):
            self.make(limits=TCPLimits(reports_per_device=10))
            for n in range(10):  # a sender of many devices is busy, and none of them
                self.say(b"12%d:a;" % n)
            for _ in range(count):
                self.say(b"1277:a;")
                self.answer_all()
            self.assertEqual(lost, self.publisher.counters["limited_reports_per_device"], count)
            self.assertEqual(10 + count, self.publisher.counters["received"])
            self.say(b"1277:a;", ("192.0.2.9", 1))
            self.clock.advance(0.2)
            self.say(b"1277:a;")
            self.assertEqual(lost, self.publisher.counters["limited_reports_per_device"])

    def test_reports_per_address(self) -> None:
        """So it is for all senders of an address together."""
        for count, lost in ((9, 0), (10, 0), (11, 1)):
            self.make(limits=TCPLimits(reports_per_address=10))
            for n in range(count):
                self.say(b"123:a;", ("192.0.2.7", 1000 + n))
                self.answer_all()
            self.assertEqual(lost, self.publisher.counters["limited_reports_per_address"], count)

    def test_not_taken(self) -> None:
        """What one device sends too much of is nothing that its address has sent."""
        self.make(limits=TCPLimits(reports_per_device=5, reports_per_address=20))
        for _ in range(100):
            self.say(b"123:a;")
            self.answer_all()
        for n in range(10):
            self.say(b"124:a;", ("192.0.2.7", 2000 + n))
            self.answer_all()
        self.assertEqual(0, self.publisher.counters["limited_reports_per_address"])
        self.assertEqual(90, self.publisher.counters["limited_reports_per_device"])

    def test_changed(self) -> None:
        """Limits that are changed hold for senders that are known."""
        self.make(limits=TCPLimits(reports_per_device=5))
        self.say(b"123:a;")
        self.protocol.change(Limits(), TCPLimits(reports_per_device=100, reports_per_address=10))
        for _ in range(11):
            self.say(b"123:a;")
            self.answer_all()
        self.assertEqual(1, self.publisher.counters["limited_reports_per_address"])

    def test_strangers_per_address(self) -> None:
        """So many of nobody's a minute are recorded; one more is not."""
        for count, lost in ((5, 0), (6, 0), (7, 1)):
            self.make(limits=TCPLimits(strangers_per_address=6))
            for _ in range(count):
                self.say(b"what?")
                self.answer_all()
            self.assertEqual(lost, self.publisher.counters["limited_strangers_per_address"], count)
            self.assertEqual(count - lost, self.publisher.counters["unrecognised"])


class CompleteTests(SynchronousTestCase):
    """This module, and what it stands on."""

    def test_each(self) -> None:
        """Each key has a test of its name here."""
        tested = {name for case in (TCPLimitTests, PublisherLimitTests, DatagramLimitTests) for name in dir(case)}
        keys = [field.name for field in dataclasses.fields(LimitsSection)]
        self.assertEqual([], [key for key in keys if f"test_{key}" not in tested])

    def test_rate(self) -> None:
        """So much at once, then so much a second; a clock that is set back gives nothing away."""
        rate = Rate(10.0, 5.0, NOON)
        self.assertEqual([0.0] * 5, [rate.add(NOON) for _ in range(5)])
        self.assertAlmostEqual(0.1, rate.add(NOON))
        self.assertAlmostEqual(0.2, rate.add(NOON))
        self.assertEqual(0.0, rate.add(NOON + 0.5))
        rate.count = 5.0
        self.assertGreater(rate.add(NOON - 3600), 0.0)
        self.assertEqual(0.0, rate.over(NOON))

    def test_rates(self) -> None:
        """So many addresses are remembered; those that were idle longest are not."""
        rates = Rates(1.0, 1.0)
        first = rates.of("0", NOON)
        for n in range(ADDRESSES - 1):
            rates.of(str(n), NOON)
        self.assertIs(first, rates.of("0", NOON))
        rates.of("one", NOON)
        rates.of("two", NOON)
        self.assertIs(first, rates.of("0", NOON))
        self.assertEqual(0.0, rates.of("1", NOON).count)

    def test_notices(self) -> None:
        """A limit that is met is said once a minute of whom, with how often; and so many a second in all."""
        notices = Notices()
        self.assertEqual([1, 0, 0], [notices.news("junk_bytes", "a", NOON) for _ in range(3)])
        self.assertEqual(0, notices.news("junk_bytes", "a", NOON + NOTICE_S - 1))
        self.assertEqual(4, notices.news("junk_bytes", "a", NOON + NOTICE_S))
        found = [notices.news("junk_bytes", str(n), NOON + 100) for n in range(NOTICES_PER_S + 5)]
        self.assertEqual([1] * NOTICES_PER_S + [0] * 5, found)
        self.assertEqual(2, notices.news("junk_bytes", str(NOTICES_PER_S), NOON + 101))
