"""UDP: each datagram on its own, answered where it came from."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Self

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gateway.connection import Limits
from gateway.detection import Candidates
from gateway.interfaces import YES, Message
from gateway.publisher import Bounds, Publisher
from gateway.registry import Plugin
from gateway.sessions import Sessions
from gateway.tickets import Link
from gateway.transports.tcp import TCPLimits
from gateway.transports.udp import IN_A_ROW, PEER_S, TrackerDatagrams
from tests.fakes import NOON, RecordingSink, plugin, script, starting

TOY = plugin("toy", starting(b"12"))
PEER = ("192.0.2.7", 4711)


class Socket:
    """A UDP socket: has what came, and keeps what is sent."""

    def __init__(self) -> None:
        self.came: deque[tuple[bytes, tuple[str | int, ...]]] = deque()
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.error: OSError | None = None
        self.closed = False

    def setblocking(self, blocks: bool) -> None:
        """See C{socket.socket}."""

    def dup(self) -> Self:
        """See C{socket.socket}."""
        return self

    def fileno(self) -> int:
        """See C{socket.socket}."""
        return 7

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str | int, ...]]:
        """See C{socket.socket}."""
        if self.error is not None:
            raise self.error
        if not self.came:
            raise BlockingIOError
        return self.came.popleft()

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        """See C{socket.socket}."""
        if self.error is not None:
            raise self.error
        self.sent.append((data, address))

    def close(self) -> None:
        """See C{socket.socket}."""
        self.closed = True


class Readers(set[Any]):
    """As much of a reactor as is used."""

    addReader = set.add
    removeReader = set.discard


class UDPCase(SynchronousTestCase):
    """A port whose time is a Clock."""

    def setUp(self) -> None:
        self.make()

    def make(
        self, plugins: tuple[Plugin, ...] = (TOY,), bounds: Bounds | None = None, limits: TCPLimits | None = None
    ) -> None:
        """Put one together."""
        self.clock = Clock()
        self.clock.advance(NOON)
        self.sink = RecordingSink()
        sessions = Sessions()
        self.publisher = Publisher(self.clock, self.sink, sessions, bounds or Bounds())
        self.protocol = TrackerDatagrams(
            self.clock, Candidates(plugins, "udp"), sessions, self.publisher, Limits(), limits or TCPLimits()
        )
        self.socket = Socket()
        self.reactor = Readers()
        self.protocol.listen(self.reactor, self.socket)  # type: ignore[arg-type]  # as much of one as is used

    def say(self, datagram: bytes, address: tuple[str | int, ...] = PEER) -> None:
        """A datagram comes; the reactor turn ends."""
        self.socket.came.append((datagram, address))
        self.protocol.doRead()
        self.clock.advance(0)

    def answer_all(self) -> None:
        """Redis answers everything."""
        while self.sink.under_way is not None:
            self.sink.answer()
            self.clock.advance(0)


class DatagramTests(UDPCase):
    """Datagrams and their answers."""

    def test_answered(self) -> None:
        """A report is answered to the port that it came from, after its store."""
        self.say(b"123:a;")
        self.assertEqual([], self.socket.sent)
        self.answer_all()
        self.assertEqual([(b"toy<123:a;", PEER)], self.socket.sent)

    def test_several_frames(self) -> None:
        """Each frame of a datagram is a frame, answered in order, a datagram each; the incomplete tail is recorded."""
        self.say(b"123:a;124:b;12")
        self.answer_all()
        self.assertEqual([(b"toy<123:a;", PEER), (b"toy<124:b;", PEER)], self.socket.sent)
        self.assertEqual(1, self.publisher.counters["undecodable"])

    def test_nothing_is_kept(self) -> None:
        """A frame that is split over datagrams is not put together."""
        self.say(b"123:a")
        self.say(b"124;")
        self.answer_all()
        self.assertEqual((1, 1), (self.publisher.counters["undecodable"], self.publisher.counters["published"]))
        self.assertEqual([(b"toy<124;", PEER)], self.socket.sent)

    def test_unrecognised(self) -> None:
        """What is nobody's is recorded and not answered; an empty datagram too."""
        for datagram in (b"hello", b"", b"\r\n", b"x" * 60_000):
            self.say(datagram)
        self.answer_all()
        self.assertEqual([], self.socket.sent)
        self.assertEqual(4, self.publisher.counters["unrecognised"])
        self.assertEqual(0, self.publisher.pending)

    def test_broken_is_not_answered(self) -> None:
        """A datagram that can't be decoded is not answered."""
        self.make((plugin("toy", script((1, YES(90, "sure")))),))
        self.say(b"!a;")
        self.answer_all()
        self.assertEqual([], self.socket.sent)

    def test_several_senders(self) -> None:
        """Each sender gets his own answers."""
        other = ("2001:db8::1", 5)
        self.say(b"123:a;")
        self.say(b"124:b;", (*other, 0, 0))
        self.answer_all()
        self.assertEqual([(b"toy<123:a;", PEER), (b"toy<124:b;", other)], self.socket.sent)
        peers = {entry["ident"]: entry["peer"] for entry in self.sink.events if entry["type"] == "status"}
        self.assertEqual({"123": "192.0.2.7:4711", "124": "[2001:db8::1]:5"}, peers)

    def test_dropped_when_full(self) -> None:
        """Without room datagrams are dropped and counted: the sender keeps them. With room they are taken again."""
        self.make(bounds=Bounds(pending=2))
        self.say(b"123:a;123:b;")
        self.say(b"123:c;")
        self.assertEqual(1, self.publisher.counters["dropped"])
        self.answer_all()
        self.say(b"123:c;")
        self.answer_all()
        self.assertEqual(3, len(self.socket.sent))

    def test_unreachable(self) -> None:
        """An answer that can't be sent is counted and harms nobody."""
        self.say(b"123:a;")
        self.socket.error = OSError(101, "Network is unreachable")
        self.answer_all()
        self.assertEqual((1, 1), (self.publisher.counters["udp_unsent"], self.publisher.counters["published"]))
        self.protocol.doRead()

    def test_end(self) -> None:
        """When the gateway ends, what comes is dropped and counted; what came is answered."""
        self.say(b"123:a;")
        self.assertEqual({self.protocol}, self.reactor)
        self.protocol.finish()
        self.assertEqual(set(), self.reactor)
        self.answer_all()
        self.assertEqual([(b"toy<123:a;", PEER)], self.socket.sent)
        self.say(b"123:b;")
        self.answer_all()
        self.assertEqual(1, self.publisher.counters["dropped"])
        self.protocol.close()
        self.assertTrue(self.socket.closed)
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def test_in_a_row(self) -> None:
        """Of many datagrams some are read at a time, and the others with the next turns; none is lost."""
        self.make(limits=TCPLimits(reports_per_device=10_000))
        self.socket.came.extend((b"123:%d;" % number, PEER) for number in range(IN_A_ROW + 3))
        self.protocol.doRead()
        self.assertEqual(3, len(self.socket.came))
        self.protocol.doRead()
        self.clock.advance(0)
        self.answer_all()
        self.assertEqual(IN_A_ROW + 3, len(self.socket.sent))

    def test_an_error_of_our_own(self) -> None:
        """What goes wrong with one datagram does not harm those behind it."""

        def failing(datagram: bytes, address: tuple[str, int]) -> None:
            raise ArithmeticError(datagram)

        self.patch(self.protocol, "received", failing)
        self.socket.came.extend([(b"123:a;", PEER), (b"123:b;", PEER)])
        self.protocol.doRead()
        self.assertEqual(2, len(self.flushLoggedErrors(ArithmeticError)))
        self.assertEqual({self.protocol}, self.reactor)

    def test_any_order(self) -> None:
        """A device whose state is still to be read does not hold up what another one from the same port is told."""
        self.say(b"123:a;")
        self.answer_all()
        self.sink.waits = True
        self.say(b"124:a;")
        self.say(b"123:b;")
        self.sink.answer()
        self.clock.advance(0)
        self.assertEqual([b"toy<123:a;", b"toy<123:b;"], [data for data, _ in self.socket.sent])
        self.sink.begun()
        self.clock.advance(0)
        self.answer_all()
        self.assertEqual(b"toy<124:a;", self.socket.sent[-1][0])


class CommandTests(UDPCase):
    """Commands to who has sent a datagram."""

    def setUp(self) -> None:
        super().setUp()
        self.links: list[Link] = []
        take = self.publisher.take

        def taking(messages: Sequence[Message], link: Link, protocol: str, now: float) -> None:
            self.links.append(link)
            take(messages, link, protocol, now)

        self.patch(self.publisher, "take", taking)

    def report(self, text: bytes, address: tuple[str, int] = PEER) -> Link:
        """A report comes and is answered; where from."""
        self.say(b"123:" + text + b";", address)
        self.answer_all()
        return self.links[-1]

    def test_datagram_of_its_own(self) -> None:
        """A command leaves by itself, a second after the last answer to that port, and answers go on at once."""
        link = self.report(b"a")
        self.assertTrue(link.windowed)
        self.assertEqual(1.0, link.ready_in())
        self.assertFalse(link.command(b"do it", 60.0))
        self.clock.advance(0.75)
        self.assertEqual(0.25, link.ready_in())
        self.clock.advance(0.25)
        self.assertEqual(0.0, link.ready_in())
        self.assertTrue(link.command(b"do it", 60.0))
        self.report(b"b")
        self.assertEqual([(b"toy<123:a;", PEER), (b"do it", PEER), (b"toy<123:b;", PEER)], self.socket.sent)
        self.assertTrue(link.taken())
        link.answered()
        link.cut_off("it is too old")

    def test_answers_of_other_datagrams(self) -> None:
        """The second counts from the last answer to that port, whichever datagram it was to, and not from others'."""
        link = self.report(b"a")
        self.clock.advance(0.75)
        newer = self.report(b"b")
        self.assertEqual((1.0, 1.0), (link.ready_in(), newer.ready_in()))
        self.clock.advance(1.0)
        self.report(b"c", ("192.0.2.7", 4712))
        self.assertEqual((0.0, 0.0), (link.ready_in(), newer.ready_in()))
        self.assertTrue(link.command(b"do it", 60.0))

    def test_no_life_left(self) -> None:
        """A command whose time is over is not sent."""
        link = self.report(b"a")
        self.clock.advance(1.0)
        self.assertFalse(link.command(b"do it", 0.0))
        self.assertEqual(1, len(self.socket.sent))

    def test_unreachable(self) -> None:
        """One that can't be sent is said not to be."""
        link = self.report(b"a")
        self.clock.advance(1.0)
        self.socket.error = OSError(101, "Network is unreachable")
        self.assertFalse(link.command(b"do it", 60.0))
        self.assertEqual(1, self.publisher.counters["udp_unsent"])

    def test_closed(self) -> None:
        """Nothing is sent by a gateway that ends, or by a port that is closed."""
        link = self.report(b"a")
        self.clock.advance(1.0)
        self.protocol.finish()
        self.assertIsNone(link.ready_in())
        self.assertFalse(link.command(b"do it", 60.0))
        self.protocol.close()
        self.assertIsNone(link.ready_in())
        self.assertEqual(1, len(self.socket.sent))


class HintTests(UDPCase):
    """What a peer was before."""

    def test_ten_minutes(self) -> None:
        """It decides between two that are equally sure, for ten minutes and for this peer alone."""

        def either(word: bytes, priority: int, name: str) -> Plugin:
            return plugin(name, lambda prefix: YES(95 if prefix.startswith(word) else 60, "may be"), priority)

        self.make((either(b"1a", 10, "first"), either(b"1b", 90, "second")))
        self.say(b"1b:sure;")
        self.say(b"1c:either;")
        self.answer_all()
        self.say(b"1c:either;", ("192.0.2.7", 4712))
        self.answer_all()
        self.clock.advance(PEER_S)
        self.say(b"1d:either;")
        self.answer_all()
        self.assertEqual(
            [b"second<1b:sure;", b"second<1c:either;", b"first<1c:either;", b"first<1d:either;"],
            [data for data, _ in self.socket.sent],
        )
