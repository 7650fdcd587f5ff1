"""Commands on real sockets: what arrives together, what the kernel was told, and what is never delivered."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from gateway.connection import Limits
from gateway.detection import Candidates
from gateway.interfaces import Message
from gateway.publisher import Bounds, Publisher
from gateway.sessions import Sessions
from gateway.tickets import Answer, Batch, Link
from gateway.transports.tcp import TCPLimits, TrackerFactory
from gateway.transports.udp import TrackerDatagrams
from gateway.transports.writing import COMMAND_GAP_S, POLL_S
from tests.fakes import RecordingSink, plugin, starting
from tests.integration.parts import SOON
from tests.test_tcp import TLSClient, certificate

TOY = plugin("toy", starting(b"12"))
COMMAND = b"<do it>"
#: What a loaded machine may take from a measured gap: the ends of it are seen late, each by itself.
LATE_S = 0.5


class Publishing(Publisher):
    """A publisher that keeps the links."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.links: list[Link] = []

    def take(self, messages: Sequence[Message], link: Link, protocol: str, now: float) -> None:
        self.links.append(link)
        super().take(messages, link, protocol, now)


class PromptSink(RecordingSink):
    """A sink that has stored everything at once."""

    def store(self, batch: Batch) -> Deferred[Answer]:
        stored = super().store(batch)
        self.answer()
        return stored


class Tracker:
    """
    A tracker, and when it read what.

    @ivar heard: what each read brought, and when.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.setblocking(False)
        self.heard: list[tuple[float, bytes]] = []

    def read(self) -> int:
        """Read once, if there is anything; how many times something was read."""
        with contextlib.suppress(BlockingIOError):
            data = self.socket.recv(65_536)
            self.heard.append((time.monotonic(), data))
        return len(self.heard)

    @property
    def texts(self) -> list[bytes]:
        """What each read brought."""
        return [text for _, text in self.heard]

    def gap(self, second: int) -> float:
        """The seconds between a read and the one before it."""
        return self.heard[second][0] - self.heard[second - 1][0]


class WireCase(TestCase):
    """A gateway's transports on the reactor, and what they are told by it."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.turns: Any = reactor
        sessions = Sessions()
        self.publisher = Publishing(self.turns, PromptSink(), sessions, Bounds())
        self.factory = TrackerFactory(
            self.turns, Candidates((TOY,), "tcp"), sessions, self.publisher, Limits(), TCPLimits()
        )
        self.datagrams = TrackerDatagrams(
            self.turns, Candidates((TOY,), "udp"), sessions, self.publisher, Limits(), TCPLimits()
        )

    async def until(self, what: Callable[[], object], seconds: float = SOON) -> None:
        """Let the reactor turn until something is so."""
        ends = time.monotonic() + seconds
        while not what():
            self.assertLess(time.monotonic(), ends, "it did not happen")
            await self.pause(0.005)

    async def pause(self, seconds: float) -> None:
        """Let the reactor turn for a while."""
        await deferLater(self.turns, seconds, lambda: None)

    async def ready(self, link: Link) -> None:
        """Wait until a command may be written, as it says how long that takes."""
        while wait := link.ready_in():
            await self.pause(wait)
        self.assertEqual(0.0, link.ready_in())


class ConnectionTests(WireCase):
    """TCP."""

    def connect(self, receive_buffer: int = 0) -> Tracker:
        """A tracker connects."""
        port = self.turns.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(self.factory.close)
        connection = socket.socket()
        self.addCleanup(connection.close)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", port.getHost().port))
        return Tracker(connection)

    async def report(self, tracker: Tracker, text: bytes) -> None:
        """A report comes, and is stored."""
        published = self.publisher.counters["published"]
        tracker.socket.sendall(b"123:" + text + b";")
        await self.until(lambda: self.publisher.counters["published"] > published)

    def option(self, link: Any, option: int) -> int:
        """An option of its socket."""
        value: int = link.transport.socket.getsockopt(socket.IPPROTO_TCP, option)
        return value

    async def test_apart(self) -> None:
        """A command is read by itself, a second after the reply before it, and a second before the ones after it."""
        tracker = self.connect()
        await self.report(tracker, b"a")
        await self.until(lambda: tracker.read() == 1)
        link = self.publisher.links[-1]
        await self.ready(link)
        self.assertTrue(link.command(COMMAND, 60.0))
        await self.report(tracker, b"b")
        await self.report(tracker, b"c")
        await self.until(lambda: tracker.read() == 3)
        self.assertEqual([b"toy<123:a;", COMMAND, b"toy<123:b;toy<123:c;"], tracker.texts)
        self.assertGreater(tracker.gap(1), COMMAND_GAP_S - LATE_S)
        self.assertGreater(tracker.gap(2), COMMAND_GAP_S - LATE_S)
        self.assertLess(tracker.gap(2), 3.0, "it was acknowledged long since")

    async def test_what_the_kernel_is_told(self) -> None:
        """Nothing is delayed to be sent with what follows it; a command's lifetime holds until it is answered."""
        tracker = self.connect()
        await self.report(tracker, b"a")
        link = self.publisher.links[-1]
        self.assertEqual((1, 0), (self.option(link, socket.TCP_NODELAY), self.option(link, socket.TCP_USER_TIMEOUT)))
        await self.ready(link)
        self.assertEqual(0, self.option(link, socket.TCP_USER_TIMEOUT))
        self.assertTrue(link.command(COMMAND, 12.5))
        self.assertEqual(12_500, self.option(link, socket.TCP_USER_TIMEOUT))
        await self.until(link.taken)
        link.answered()
        self.assertEqual(0, self.option(link, socket.TCP_USER_TIMEOUT))

    async def test_longest(self) -> None:
        """A lifetime that is longer than the kernel can count is as long as it can."""
        await self.report(self.connect(), b"a")
        link = self.publisher.links[-1]
        await self.ready(link)
        self.assertTrue(link.command(COMMAND, 1e9))
        self.assertEqual(2**31 - 1, self.option(link, socket.TCP_USER_TIMEOUT))

    async def test_not_acknowledged(self) -> None:
        """What the peer's kernel has no room for keeps a command from being written, until it has."""
        tracker = self.connect(receive_buffer=4096)
        await self.report(tracker, b"." * 50_000)
        link = self.publisher.links[-1]
        await self.pause(COMMAND_GAP_S + POLL_S)
        self.assertEqual(POLL_S, link.ready_in())
        self.assertFalse(link.taken())
        self.assertFalse(link.command(COMMAND, 60.0))
        await self.until(lambda: tracker.read() and link.taken())
        self.assertEqual(0.0, link.ready_in())
        self.assertTrue(link.command(COMMAND, 60.0))
        await self.until(lambda: tracker.read() and tracker.texts[-1].endswith(COMMAND))

    async def test_lifetime(self) -> None:
        """A command that is not acknowledged within its lifetime ends the connection, and its rest never arrives."""
        tracker = self.connect(receive_buffer=4096)
        await self.report(tracker, b"a")
        link: Any = self.publisher.links[-1]
        await self.ready(link)
        begun = time.monotonic()
        self.assertTrue(link.command(b"." * 50_000, 1.0))
        await self.until(lambda: not link.transport.connected)
        self.assertGreater(time.monotonic() - begun, 1.0 - LATE_S)
        self.assertIsNone(link.ready_in())
        with self.assertRaises(ConnectionResetError):
            while tracker.read():
                await self.pause(0)
        self.assertLess(sum(map(len, tracker.texts)), 50_000)

    async def test_cut_off(self) -> None:
        """A connection that is cut off is reset; what the peer has not acknowledged never arrives."""
        tracker = self.connect(receive_buffer=4096)
        await self.report(tracker, b"a")
        link: Any = self.publisher.links[-1]
        await self.ready(link)
        self.assertTrue(link.command(b"." * 50_000, 60.0))
        await self.pause(POLL_S)
        link.cut_off("it is too old")
        self.assertIsNone(link.ready_in())
        await self.until(lambda: not link.transport.connected)
        with self.assertRaises(ConnectionResetError):
            while tracker.read():
                await self.pause(0)
        self.assertLess(sum(map(len, tracker.texts)), 50_000)

    async def test_tls(self) -> None:
        """So it is through TLS."""
        port = self.turns.listenSSL(0, self.factory, certificate().options(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(self.factory.close)
        client = TLSClient(port.getHost().port)
        self.addCleanup(client.close)

        def heard(data: bytes) -> bool:
            client.pump()
            return client.heard == data

        client.say(b"123:a;")
        await self.until(lambda: heard(b"toy<123:a;"))
        link: Any = self.publisher.links[-1]
        self.assertEqual(1, self.option(link, socket.TCP_NODELAY))
        self.assertFalse(link.command(COMMAND, 60.0))
        await self.ready(link)
        self.assertTrue(link.command(COMMAND, 60.0))
        self.assertEqual(60_000, self.option(link, socket.TCP_USER_TIMEOUT))
        client.say(b"123:b;")
        await self.until(lambda: heard(b"toy<123:a;" + COMMAND))
        await self.until(link.taken)
        await self.until(lambda: heard(b"toy<123:a;" + COMMAND + b"toy<123:b;"))
        link.answered()
        self.assertEqual(0, self.option(link, socket.TCP_USER_TIMEOUT))
        link.cut_off("the test ends")
        self.assertIsNone(link.ready_in())
        await self.pause(POLL_S)
        self.assertFalse(link.taken())


class DatagramTests(WireCase):
    """UDP."""

    async def test_apart(self) -> None:
        """A command is a datagram of its own, a second after the last answer; answers after it do not wait."""
        bound = socket.socket(type=socket.SOCK_DGRAM)
        bound.bind(("127.0.0.1", 0))
        self.datagrams.listen(self.turns, bound)
        assert self.datagrams.socket is not None
        self.assertEqual(0.0, self.datagrams.socket.gettimeout())  # else nothing else would ever have its turn
        self.addCleanup(self.datagrams.close)
        self.addCleanup(bound.close)
        connection = socket.socket(type=socket.SOCK_DGRAM)
        self.addCleanup(connection.close)
        connection.connect(bound.getsockname())
        tracker = Tracker(connection)
        connection.send(b"123:a;")
        await self.until(lambda: tracker.read() == 1)
        link = self.publisher.links[-1]
        self.assertFalse(link.command(COMMAND, 60.0))
        await self.ready(link)
        self.assertTrue(link.command(COMMAND, 60.0))
        connection.send(b"123:b;")
        await self.until(lambda: tracker.read() == 3)
        self.assertEqual([b"toy<123:a;", COMMAND, b"toy<123:b;"], tracker.texts)
        self.assertGreater(tracker.gap(1), COMMAND_GAP_S - LATE_S)
        self.datagrams.close()
        self.assertIsNone(link.ready_in())
        self.assertFalse(link.command(COMMAND, 60.0))
