"""TCP: replies in order, reading that pauses, timers that stand still, limits, and ends."""

from __future__ import annotations

import contextlib
import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import Clock, deferLater
from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from gateway.connection import Limits
from gateway.detection import Candidates
from gateway.devices.st907 import device
from gateway.interfaces import NO, YES
from gateway.publisher import Bounds, Publisher
from gateway.registry import Plugin
from gateway.sessions import Sessions
from gateway.transports.tcp import TCPLimits, TrackerFactory, TrackerProtocol
from tests.fakes import NOON, RecordingSink, by_type, plugin, script, starting

TOY = plugin("toy", starting(b"12"))
SLOW = plugin("slow", script((1, YES(40, "perhaps")), (5000, NO("no"))))


class Transport(StringTransport):
    """A StringTransport that can be read from, stopped and aborted, as the reactor's own."""

    def __init__(self, peer: IPv4Address | IPv6Address, clock: Clock, protocol: TrackerProtocol) -> None:
        super().__init__(peerAddress=peer)
        self._clock = clock
        self._protocol = protocol
        self.reading = True
        self.aborted = False
        #: what is unsent, or not acknowledged
        self.dataBuffer = b""

    def startReading(self) -> None:
        """See C{twisted.internet.abstract.FileDescriptor}."""
        self.reading = True

    def stopReading(self) -> None:
        """See C{twisted.internet.abstract.FileDescriptor}."""
        self.reading = False

    def abortConnection(self) -> None:
        if not self.aborted:
            self.aborted = True
            self.connected = False
            self._clock.callLater(0, self._protocol.connectionLost)


class TCPCase(SynchronousTestCase):
    """A factory whose connections are StringTransports and whose time is a Clock."""

    def setUp(self) -> None:
        self.make()

    def make(
        self,
        limits: TCPLimits | None = None,
        connection: Limits | None = None,
        bounds: Bounds | None = None,
        plugins: tuple[Plugin, ...] = (TOY,),
    ) -> None:
        """Put one together."""
        self.clock = Clock()
        self.clock.advance(NOON)
        self.sink = RecordingSink()
        sessions = Sessions()
        self.publisher = Publisher(self.clock, self.sink, sessions, bounds or Bounds())
        self.factory = TrackerFactory(
            self.clock,
            Candidates(plugins, "tcp"),
            sessions,
            self.publisher,
            connection or Limits(),
            limits or TCPLimits(),
        )
        self.publisher.on_full = self.factory.pause
        self.publisher.on_room = self.factory.resume

    def connect(self, host: str = "192.0.2.7", port: int = 4711) -> tuple[TrackerProtocol, Transport]:
        """A tracker connects."""
        kind = IPv6Address if ":" in host else IPv4Address
        address = kind("TCP", host, port)
        protocol = self.factory.buildProtocol(address)
        transport = Transport(address, self.clock, protocol)
        protocol.makeConnection(transport)
        return protocol, transport

    def say(self, protocol: TrackerProtocol, data: bytes) -> None:
        """The tracker says something; the reactor turn ends."""
        protocol.dataReceived(data)
        self.clock.advance(0)

    def answer(self, codes: str = "") -> None:
        """Redis answers the batch that is under way."""
        self.sink.answer(codes)
        self.clock.advance(0)

    def answer_all(self) -> None:
        """Redis answers everything."""
        while self.sink.under_way is not None:
            self.answer()

    def pass_time(self, seconds: float) -> None:
        """Time passes, with a tick four times a second."""
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)
            self.factory.tick(self.clock.seconds())

    def counted(self, name: str) -> int:
        """A counter."""
        return self.publisher.counters[name]


class ReplyTests(TCPCase):
    """What a tracker is told, and when."""

    def test_after_the_store(self) -> None:
        """Nothing is written before the report is stored."""
        protocol, transport = self.connect()
        self.say(protocol, b"123:a;")
        self.assertEqual(b"", transport.value())
        self.answer_all()
        self.assertEqual(b"toy<123:a;", transport.value())

    def test_in_order(self) -> None:
        """Replies leave in the order of the frames, also when a later one was stored first."""
        protocol, transport = self.connect()
        self.say(protocol, b"123:a;")
        self.answer_all()
        transport.clear()
        self.sink.waits = True
        self.say(protocol, b"456:b;123:c;")
        self.answer_all()
        self.assertEqual(b"", transport.value(), "the stranger's frame waits for his state")
        self.sink.begun()
        self.clock.advance(0)
        self.answer_all()
        self.assertEqual(b"toy<456:b;toy<123:c;", transport.value())

    def test_silent_before_detection(self) -> None:
        """Nothing is written to who is not known yet, and nothing to who is nobody."""
        protocol, transport = self.connect()
        self.say(protocol, b"1")
        self.say(protocol, b"x")
        self.answer_all()
        self.assertEqual(b"", transport.value())
        self.assertEqual(1, self.counted("unrecognised"))
        self.assertTrue(transport.disconnecting)

    def test_peer(self) -> None:
        """Events say where they came from; IPv6 in brackets, mapped IPv4 as what it is."""
        for host, name in (
            ("192.0.2.7", "192.0.2.7:4711"),
            ("2001:db8::1", "[2001:db8::1]:4711"),
            ("::ffff:192.0.2.9", "192.0.2.9:4711"),
        ):
            protocol, _ = self.connect(host)
            self.say(protocol, b"123:a;")
            self.assertEqual(name, by_type(self.sink.last, "status")[0]["peer"])
            self.answer_all()


class RealTransportTests(TCPCase):
    """Replies on the transport that the reactor makes, with a socket at its other end."""

    def setUp(self) -> None:
        super().setUp()
        near, self.far = socket.socketpair()
        for end in (near, self.far):
            self.addCleanup(end.close)
            end.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        address = IPv4Address("TCP", "192.0.2.7", 4711)
        self.protocol = self.factory.buildProtocol(address)
        reactor = MemoryReactor()
        server: Any = Server(near, self.protocol, (address.host, address.port), None, 1, reactor)  # type: ignore[arg-type]
        self.transport = server
        self.protocol.makeConnection(server)

    def heard(self) -> bytes:
        """What the tracker reads at once."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while part := self.far.recv(65_536):
                data += part
        return data

    def test_at_once(self) -> None:
        """A reply is on the wire when the store has answered; the reactor need not turn for that."""
        self.say(self.protocol, b"123:a;")
        self.assertEqual(b"", self.heard())
        self.sink.answer()
        self.assertEqual(b"toy<123:a;", self.heard())
        self.assertEqual(0, len(self.transport.dataBuffer) + self.transport._tempDataLen)

    def test_rest_goes_by_the_reactor(self) -> None:
        """What the socket does not take follows when it does, in order, and no later reply overtakes it."""
        wanted = heard = b""

        def reply(text: bytes) -> None:
            nonlocal wanted, heard
            self.say(self.protocol, b"123:" + text + b";")
            self.answer_all()
            wanted += b"toy<123:" + text + b";"
            heard += self.heard()  # now there is room in the socket

        reply(b"." * 300_000)
        self.assertLess(len(heard), len(wanted), "the socket took all of it: the test shows nothing")
        reply(b"while the rest has not been tried again")
        self.transport.doWrite()
        heard += self.heard()
        self.assertLess(len(heard), 300_000)
        reply(b"while the rest is being written")
        for _ in range(300_000):
            if len(heard) >= len(wanted):
                break
            self.transport.doWrite()
            heard += self.heard()
        self.assertEqual(wanted, heard)
        reply(b"with nothing unsent it goes at once again")
        self.assertEqual(wanted, heard)

    def test_peer_is_gone(self) -> None:
        """A reply to who has hung up hurts nobody: the transport finds out, and says so."""
        self.say(self.protocol, b"123:a;")
        self.far.close()
        self.answer_all()
        self.assertEqual(1, self.counted("published"))
        self.assertIsInstance(self.transport.doWrite(), Exception)


class TLSTests(TestCase):
    """Replies through TLS, on a real listener."""

    async def listening(self) -> tuple[RecordingSink, int]:
        """A gateway that listens with TLS; the sink that its replies wait for, and its port."""
        from twisted.internet import reactor

        turns: Any = reactor
        sink = RecordingSink()
        publisher = Publisher(turns, sink, Sessions(), Bounds())
        factory = TrackerFactory(turns, Candidates((TOY,), "tcp"), Sessions(), publisher, Limits(), TCPLimits())
        port = turns.listenSSL(0, factory, certificate().options(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(factory.close)
        self.turns = turns
        return sink, port.getHost().port

    async def turn(self) -> None:
        """The reactor turns a few times."""
        await deferLater(self.turns, 0.005, lambda: None)

    async def test_never_in_clear(self) -> None:
        """A device behind TLS is answered, and no byte goes past the encryption."""
        sink, port = await self.listening()
        client = TLSClient(port)
        self.addCleanup(client.close)
        client.say(b"123:a;123:b;")
        wanted = b"toy<123:a;toy<123:b;"
        for _ in range(2000):
            client.pump()
            if sink.under_way is not None:
                sink.answer()
            if client.heard == wanted:
                break
            await self.turn()
        self.assertEqual(wanted, client.heard)
        self.assertNotIn(b"toy<", client.received)
        self.assertEqual(b"", client.unframed, "something that is no TLS record")


class TLSClient:
    """
    A client that speaks TLS over a plain socket, and keeps what it reads from that.

    @ivar received: all bytes that came from the server, as they were on the wire.
    @ivar heard: what they say.
    """

    def __init__(self, port: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._unsaid = b""
        self.received = self.heard = b""

    def say(self, data: bytes) -> None:
        """Send something once the handshake is done."""
        self._unsaid += data

    def pump(self) -> None:
        """Go on as far as that is possible without waiting."""
        with contextlib.suppress(BlockingIOError):
            while data := self._socket.recv(65_536):
                self.received += data
                self._incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
            if self._unsaid:
                self._tls.write(self._unsaid)
                self._unsaid = b""
            while data := self._tls.read(65_536):
                self.heard += data
        self._socket.sendall(self._outgoing.read())

    @property
    def unframed(self) -> bytes:
        """What is left of the bytes received without the TLS records (RFC 8446, 5.1) that they are."""
        rest = self.received
        while len(rest) >= 5 and rest[0] in range(20, 24) and rest[1] == 3:
            rest = rest[5 + int.from_bytes(rest[3:5], "big") :]
        return rest

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def certificate() -> PrivateCertificate:
    """A certificate that its own key has signed, for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway.test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    loaded: PrivateCertificate = PrivateCertificate.loadPEM(secret + signed.public_bytes(Encoding.PEM))
    return loaded


class PauseTests(TCPCase):
    """Reading that stops for want of room."""

    def test_pause_and_resume(self) -> None:
        """With too many frames waiting every connection stops being read, new ones too; with room all go on."""
        self.make(bounds=Bounds(pending=4))
        one, one_wire = self.connect()
        _, two_wire = self.connect(port=2)
        self.say(one, b"123:a;123:b;123:c;123:d;")
        _, three_wire = self.connect(port=3)
        wires = (one_wire, two_wire, three_wire)
        self.assertEqual([False] * 3, [wire.reading for wire in wires])
        self.answer_all()
        self.assertEqual([True] * 3, [wire.reading for wire in wires])
        self.assertEqual(4, one_wire.value().count(b";"))

    def test_timers_stand_still(self) -> None:
        """While reading is paused nobody is idle, late in detection, or silent."""
        self.make(TCPLimits(idle_unlearned=100.0), plugins=(TOY, SLOW))
        _, idle_wire = self.connect()
        detecting, detecting_wire = self.connect(port=2)
        self.say(detecting, b"1")
        self.pass_time(30)
        self.factory.pause()
        self.pass_time(1000)
        self.factory.resume()
        self.pass_time(29)
        self.assertFalse(detecting_wire.disconnecting)
        self.assertFalse(idle_wire.aborted)
        self.pass_time(2)
        self.assertEqual(0, self.counted("closed_idle"))
        self.assertEqual(2, self.publisher.pending, "60 s in detection, both")

    def test_connected_while_paused(self) -> None:
        """A connection that came while reading was paused has its own time, not more."""
        self.factory.pause()
        self.pass_time(1000)
        _, wire = self.connect()
        self.pass_time(10)
        self.factory.resume()
        self.pass_time(61)
        self.answer_all()
        self.assertTrue(wire.disconnecting)


class ClockThatIsSetTests(TCPCase):
    """The machine's clock is set, and nobody's timer notices."""

    def set_clock(self, by: float) -> None:
        """Set it."""
        self.clock.rightNow += by
        self.factory.shift(by)
        self.factory.tick(self.clock.seconds())

    def test_idle(self) -> None:
        """Whichever way it is set, a connection is closed when it was idle for its time, not earlier, and soon."""
        for by in (3600.0, -3600.0):
            self.make(TCPLimits(idle_unlearned=100.0))
            protocol, wire = self.connect()
            self.say(protocol, b"123:a;")
            self.answer_all()
            self.pass_time(60)
            self.set_clock(by)
            self.pass_time(39)
            self.assertFalse(wire.aborted, by)
            self.pass_time(20)
            self.assertTrue(wire.aborted, by)

    def test_detection(self) -> None:
        """So it is for what has not been detected yet."""
        for by in (3600.0, -3600.0):
            self.make(plugins=(TOY, SLOW))
            protocol, wire = self.connect()
            self.say(protocol, b"x")
            self.pass_time(30)
            self.set_clock(by)
            self.pass_time(29)
            self.assertFalse(wire.aborted, by)
            self.pass_time(2)
            self.assertEqual(1, self.publisher.counters["received"], by)

    def test_while_paused(self) -> None:
        """And for one that is not read while the clock is set: the pause counts for nobody."""
        for by in (3600.0, -3600.0):
            self.make(TCPLimits(idle_unlearned=100.0))
            protocol, wire = self.connect()
            self.say(protocol, b"123:a;")
            self.answer_all()
            self.pass_time(60)
            self.factory.pause()
            self.pass_time(10)
            self.set_clock(by)
            self.pass_time(10)
            self.factory.resume()
            self.clock.advance(0)
            self.pass_time(39)
            self.assertFalse(wire.aborted, by)
            self.pass_time(20)
            self.assertTrue(wire.aborted, by)


class CrowdedTests(TCPCase):
    """A client that sends far more than is stored meanwhile."""

    def test_others_come_first(self) -> None:
        """With more than 500 frames unanswered it is not read, until half of them are; others are all the while."""
        self.make(TCPLimits(reports_per_device=10_000))
        protocol, wire = self.connect()
        _, other_wire = self.connect("192.0.2.8")
        self.say(protocol, b"123:a;" * 500)
        self.assertTrue(wire.reading)
        self.say(protocol, b"123:a;")
        self.assertEqual((False, True), (wire.reading, other_wire.reading))
        self.assertEqual(1, self.counted("paused_unanswered"))
        self.answer_all()
        self.assertTrue(wire.reading)

    def test_is_not_idle(self) -> None:
        """It is not closed for a silence that is ours."""
        protocol, wire = self.connect()
        self.say(protocol, b"123:a;" * 501)
        self.pass_time(2000)
        self.assertFalse(wire.aborted)


class UnreadTests(TCPCase):
    """A client that never reads its replies."""

    def test_closed(self) -> None:
        """It is not read any more while its replies pile up, and is cut off after 60 s, counted; others are not."""
        protocol, wire = self.connect()
        other, other_wire = self.connect("192.0.2.8")
        self.say(protocol, b"123:a;")
        self.say(other, b"124:a;")
        self.answer_all()
        protocol.pauseProducing()
        self.assertFalse(wire.reading)
        self.pass_time(55)
        self.assertFalse(wire.aborted)
        self.pass_time(12)
        self.assertTrue(wire.aborted)
        self.assertEqual(1, self.counted("closed_unread_seconds"))
        self.assertEqual((True, False), (other_wire.reading, other_wire.aborted))

    def test_reads_again(self) -> None:
        """One that reads again is read again."""
        protocol, wire = self.connect()
        protocol.pauseProducing()
        self.pass_time(55)
        protocol.resumeProducing()
        self.assertTrue(wire.reading)
        self.pass_time(3)
        self.assertFalse(wire.aborted)

    def test_both_reasons(self) -> None:
        """Reading goes on only when there is room and replies are read."""
        protocol, wire = self.connect()
        protocol.pauseProducing()
        self.factory.pause()
        protocol.resumeProducing()
        self.assertFalse(wire.reading)
        protocol.pauseProducing()
        self.factory.resume()
        self.assertFalse(wire.reading)
        protocol.resumeProducing()
        self.assertTrue(wire.reading)

    def test_timers_stand_still(self) -> None:
        """While it is not read its decoder is not told of a silence: the bytes may lie in the socket."""
        protocol, _ = self.connect()
        self.say(protocol, b"123:a;")
        self.answer_all()
        self.say(protocol, b"123:b?")
        protocol.pauseProducing()
        self.pass_time(10)
        self.assertEqual(0, self.publisher.pending)
        protocol.resumeProducing()
        self.pass_time(1)
        self.assertEqual(0, self.publisher.pending)
        self.pass_time(3)
        self.assertEqual(1, self.publisher.pending)


class EndTests(TCPCase):
    """Connections that end."""

    def test_half_closed(self) -> None:
        """A tracker that says no more still gets its answer, then the connection is closed."""
        protocol, wire = self.connect()
        self.say(protocol, b"123:a;456:b?")
        protocol.readConnectionLost()
        self.clock.advance(0)
        self.assertFalse(wire.disconnecting)
        self.answer_all()
        self.assertEqual(b"toy<123:a;toy<456:b?", wire.value())
        self.assertTrue(wire.disconnecting)

    def test_lost(self) -> None:
        """What a connection that broke off had sent is stored; its broken frame is recorded."""
        protocol, wire = self.connect()
        protocol.dataReceived(b"123:a;456:b")
        protocol.connectionLost()
        self.clock.advance(0)
        self.answer_all()
        self.assertEqual((1, 1), (self.counted("published"), self.counted("undecodable")))
        self.assertEqual(b"", wire.value())

    def test_lost_without_a_byte(self) -> None:
        """A connection that says nothing and goes is nothing: health checks do that."""
        protocol, _ = self.connect()
        protocol.connectionLost()
        self.clock.advance(0)
        self.assertEqual((0, []), (self.publisher.pending, self.sink.batches))

    def test_lost_in_detection(self) -> None:
        """One that goes before anybody knew it is one unrecognised."""
        protocol, _ = self.connect()
        self.say(protocol, b"1")
        protocol.connectionLost()
        self.clock.advance(0)
        self.answer_all()
        self.assertEqual(1, self.counted("unrecognised"))

    def test_close(self) -> None:
        """When the gateway ends, connections are closed after what they sent was stored and answered."""
        protocol, wire = self.connect()
        self.say(protocol, b"123:a;")
        self.factory.finish()
        self.say(protocol, b"123:too late;")
        self.factory.close()
        self.assertFalse(wire.disconnecting)
        self.answer_all()
        self.assertEqual(b"toy<123:a;", wire.value())
        self.assertTrue(wire.disconnecting)
        self.assertEqual(1, self.counted("published"))


class LimitTests(TCPCase):
    """What is not let in, and what is cut off."""

    def test_connections(self) -> None:
        """The connection past the limit is cut at once and counted; when one goes another may come."""
        self.make(TCPLimits(connections=2))
        first, _ = self.connect()
        second, _ = self.connect(port=2)
        for protocol in (first, second):  # who has not said who it is would have to make room
            self.say(protocol, b"123:a;")
        self.answer_all()
        over, over_wire = self.connect(port=3)
        self.assertTrue(over_wire.aborted)
        self.assertEqual((1, 1), (self.counted("limited"), self.counted("limited_connections")))
        over.dataReceived(b"123:a;")
        self.clock.advance(0)
        self.assertEqual(0, self.publisher.pending)
        first.connectionLost()
        _, wire = self.connect(port=4)
        self.assertFalse(wire.aborted)

    def test_connections_per_address(self) -> None:
        """So is the one past the limit of its address; other addresses are not concerned."""
        self.make(TCPLimits(connections_per_address=1))
        self.connect()
        _, same = self.connect(port=2)
        _, other = self.connect("192.0.2.8")
        self.assertEqual((True, False), (same.aborted, other.aborted))
        self.assertEqual(1, self.counted("limited_connections_per_address"))

    def test_junk(self) -> None:
        """A connection that only sends junk is closed and counted, with its frames recorded."""
        self.make(connection=Limits(junk_bytes=20))
        protocol, wire = self.connect()
        self.say(protocol, b"123:a;")
        self.say(protocol, b"!" + b"x" * 30 + b";")
        self.answer_all()
        self.assertTrue(wire.disconnecting)
        self.assertEqual((1, 1), (self.counted("closed_junk_bytes"), self.counted("undecodable")))

    def test_detection_time(self) -> None:
        """A connection that is not known after 60 s is closed and recorded, however it trickles."""
        self.make(plugins=(SLOW, plugin("other", script((1, YES(40, "perhaps"))))))
        protocol, wire = self.connect()
        for _ in range(59):
            self.say(protocol, b"x")
            self.pass_time(1)
        self.assertFalse(wire.disconnecting)
        self.pass_time(2)
        self.answer_all()
        self.assertTrue(wire.disconnecting)
        self.assertEqual(1, self.counted("unrecognised"))


class IdleTests(TCPCase):
    """Connections that say nothing."""

    def test_unlearned(self) -> None:
        """Until an interval is learned a connection may be silent for 30 minutes."""
        protocol, wire = self.connect()
        self.say(protocol, b"123:a;")
        self.answer_all()
        self.pass_time(1790)
        self.assertFalse(wire.aborted)
        self.pass_time(20)
        self.assertTrue(wire.aborted)
        self.assertEqual(1, self.counted("closed_idle"))

    def test_learned(self) -> None:
        """Afterwards for three intervals, at least 15 minutes."""
        for interval, allowed in ((10, 900), (600, 1800)):
            self.make()
            protocol, wire = self.connect()
            for n in range(4):
                self.say(protocol, b"123:%d;" % n)
                self.answer_all()
                if n < 3:
                    self.pass_time(interval)
            self.pass_time(allowed - 10)
            self.assertFalse(wire.aborted, interval)
            self.pass_time(20)
            self.assertTrue(wire.aborted, interval)

    def test_one_byte_a_minute(self) -> None:
        """Bytes that never become a frame do not keep a connection alive."""
        protocol, wire = self.connect()
        self.say(protocol, b"123:a;")
        self.answer_all()
        for _ in range(31):
            self.say(protocol, b"x")
            self.pass_time(60)
        self.assertTrue(wire.aborted)


class ST907Tests(TCPCase):
    """The device itself, on a connection."""

    def setUp(self) -> None:
        self.make(plugins=(Plugin("st907", 10, device, device.options(), "built in", "0"),))

    def test_binary_after_silence(self) -> None:
        """A binary frame of unknown length is taken after a second of silence, and answered after its store."""
        protocol, wire = self.connect()
        self.say(protocol, bytes.fromhex("24430025645511183817091319355128000465632432000100ffe7fbffff0000"))
        self.pass_time(0.75)
        self.assertEqual(0, self.publisher.pending)
        self.pass_time(0.5)
        self.answer_all()
        self.assertEqual(b"*HQ,4300256455,R12,120001#", wire.value())
