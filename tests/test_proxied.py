"""Connections through a balancer: whose they are, what is no tracker, and commands that can't be seen to arrive."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import capturedLogs

from gateway.transports.proxy import ALIVE, HEADER_S, SAY_EVERY_S, ProxiedProtocol, ProxyFactory
from gateway.transports.tcp import TCPLimits, TrackerProtocol
from gateway.transports.writing import COMMAND_GAP_S, HOLD_S
from tests.test_proxy import BAD, GOOD, V2_TCP4, version_2
from tests.test_tcp import TCPCase, Transport

COMMAND = b"<do it>"
V1_TCP4 = b"PROXY TCP4 192.0.2.7 198.51.100.2 4711 8888\r\n"
BALANCER = "10.0.0.7"


class ProxiedTransport(Transport):
    """A transport whose protocol can be replaced, as that of the reactor's own."""

    def __init__(self, peer: IPv4Address | IPv6Address, clock: Any, protocol: Any) -> None:
        super().__init__(peer, clock, protocol)
        self.protocol = protocol

    def abortConnection(self) -> None:
        if not self.aborted:
            self.aborted = True
            self.connected = False
            self._clock.callLater(0, self._lose)

    def _lose(self) -> None:
        self.protocol.connectionLost()


class ProxiedCase(TCPCase):
    """A factory for balancers before that for trackers."""

    def make(self, *args: Any, **more: Any) -> None:
        super().make(*args, **more)
        self.balancers = ProxyFactory(self.factory, [ip_network("10.0.0.0/24"), ip_network("fd00::/64")])

    def pass_on(self, *data: bytes, host: str = BALANCER) -> ProxiedTransport:
        """A balancer connects, and sends that in these parts."""
        kind = IPv6Address if ":" in host else IPv4Address
        address = kind("TCP", host, 1234)
        protocol = self.balancers.buildProtocol(address)
        assert protocol is not None
        transport = ProxiedTransport(address, self.clock, protocol)
        protocol.makeConnection(transport)
        for part in data:
            if transport.connected:
                transport.protocol.dataReceived(part)
        self.clock.advance(0)
        return transport

    def trackers(self) -> set[str]:
        """The peers of all trackers."""
        return {protocol.peer for protocol in self.factory._live}


class HeaderTests(ProxiedCase):
    """What a balancer says before it passes on what a tracker does."""

    def test_every_header(self) -> None:
        """What follows a header is the tracker's that it names; the balancer's own where it names none."""
        for header, source in GOOD:
            for host in (BALANCER, "fd00::7"):
                self.make()
                transport = self.pass_on(header + b"123:a;", host=host)
                own = f"[{host}]:1234" if ":" in host else f"{host}:1234"
                name = own
                if source is not None:
                    address = source[0].removeprefix("::ffff:")
                    name = f"[{address}]:{source[1]}" if ":" in address else f"{address}:{source[1]}"
                self.assertEqual({name}, self.trackers(), header)
                self.answer_all()
                self.assertTrue(transport.value().endswith(b"toy<123:a;"), header)

    def test_split_anywhere(self) -> None:
        """It does not matter how header and report are cut."""
        for header in (V1_TCP4, V2_TCP4, version_2(0, 0, b"\x04\0\1x")):
            whole = header + b"123:a;"
            cuts = [[whole[:cut], whole[cut:]] for cut in range(1, len(whole))]
            for parts in [*cuts, [bytes([byte]) for byte in whole]]:
                self.make()
                transport = self.pass_on(*parts)
                self.answer_all()
                self.assertEqual((1, 1), (self.counted("published"), self.counted("received")), parts)
                self.assertTrue(transport.value().endswith(b"toy<123:a;"), parts)

    def test_malformed(self) -> None:
        """What is no header closes, is counted, and is nobody's frame; once a minute a line says why."""
        for data, _, _ in BAD:
            self.make()
            transport = self.pass_on(data + b"\r\n" + b"x" * 120)
            self.assertTrue(transport.aborted, data)
            self.assertEqual((1, 0), (self.counted("closed_proxy_header"), self.counted("received")), data)
            self.assertEqual(0, self.factory.waiting)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_missing(self) -> None:
        """A tracker that connects to a balancers' port is closed at its first byte."""
        transport = self.pass_on(b"1", b"23:a;")
        self.assertTrue(transport.aborted)
        self.assertEqual((1, 0), (self.counted("closed_proxy_header"), self.counted("received")))

    def test_late(self) -> None:
        """A header that does not come in time closes, and so does one of which only a part came."""
        for data in (b"", b"PROXY TCP4 ", V2_TCP4[:-1]):
            self.make()
            transport = self.pass_on(data)
            self.clock.advance(HEADER_S - 0.1)
            self.assertFalse(transport.aborted)
            self.clock.advance(0.2)
            self.assertTrue(transport.aborted)
            self.clock.advance(0)
            self.assertEqual((1, 0), (self.counted("closed_proxy_seconds"), self.counted("closed_proxy_header")))
            self.assertEqual((0, 0), (self.factory.waiting, self.counted("received")))

    def test_strangers(self) -> None:
        """Whoever is in none of the networks is closed at once and counted, whatever he says."""
        for host in ("10.0.1.7", "192.0.2.7", "fd00:0:0:1::7"):
            kind = IPv6Address if ":" in host else IPv4Address
            self.assertIsNone(self.balancers.buildProtocol(kind("TCP", host, 1234)))
        self.assertEqual((3, 0, 0), tuple(map(self.counted, ("closed_proxy_network", "received", "connections"))))

    def test_said_sparingly(self) -> None:
        """One line a minute says what was closed and why."""
        with capturedLogs() as said:
            self.pass_on(b"junk")
            self.pass_on(b"junk")
            self.assertEqual(["10.0.0.7:1234"], [event["peer"] for event in said])
            self.assertIn("byte 0", said[0]["why"])
            self.clock.advance(SAY_EVERY_S)
            self.pass_on(b"junk")
        self.assertEqual((2, 3), (len(said), self.counted("closed_proxy_header")))

    def test_only_here(self) -> None:
        """On a port for trackers a header is what it is there: nobody's."""
        for header in (V1_TCP4, V2_TCP4):
            self.make()
            protocol, transport = self.connect()
            self.say(protocol, header + b"123:a;")
            self.answer_all()
            self.assertEqual((1, 0), (self.counted("unrecognised"), self.counted("published")))
            self.assertEqual(b"", transport.value())


class CheckTests(ProxiedCase):
    """Balancers that only look whether somebody is there."""

    def test_nothing_left(self) -> None:
        """They leave nothing behind: no frame, no connection, no error."""
        checks = (b"", V1_TCP4, b"PROXY UNKNOWN\r\n", version_2(0, 0, b""), V2_TCP4, version_2(1, 0, b""))
        for data in checks:
            transport = self.pass_on(data)
            transport.connected = False
            transport.protocol.connectionLost()
        self.clock.advance(HEADER_S)
        self.assertEqual({}, dict(self.publisher.counters))
        self.assertEqual((0, []), (self.factory.waiting, self.clock.getDelayedCalls()))

    def test_answered(self) -> None:
        """A balancer that connects for itself is answered, as a kernel accepts by itself; nobody else is."""
        self.assertEqual(ALIVE, self.pass_on(version_2(0, 0, b"")).value())
        for data in (V1_TCP4, b"PROXY UNKNOWN\r\n", V2_TCP4, version_2(1, 0, b"")):
            self.assertEqual(b"", self.pass_on(data).value())

    def test_ends_in_the_header(self) -> None:
        """One that ends in the middle of a header is counted."""
        transport = self.pass_on(V1_TCP4[:9])
        transport.protocol.connectionLost()
        self.assertEqual(1, self.counted("closed_proxy_header"))


class LimitTests(ProxiedCase):
    """Limits behind a balancer."""

    def test_address(self) -> None:
        """Connections are counted by the address in the header."""
        self.make(TCPLimits(connections_per_address=1))
        first = self.pass_on(V1_TCP4 + b"1")
        other = self.pass_on(V1_TCP4.replace(b".7 ", b".8 ") + b"1")
        second = self.pass_on(V1_TCP4 + b"1")
        self.assertEqual([False, False, True], [one.aborted for one in (first, other, second)])
        self.assertEqual(1, self.counted("limited_connections_per_address"))

    def test_all(self) -> None:
        """Those of which it is not known yet whose they are count as well, and make room for the next."""
        self.make(TCPLimits(connections=2))
        first = self.pass_on(V1_TCP4 + b"1")
        second = self.pass_on(V1_TCP4)
        third = self.pass_on(V1_TCP4)
        _, fourth = self.connect()
        self.assertEqual([True, False, False, True], [one.aborted for one in (first, second, third, fourth)])
        self.assertEqual((1, 1), (self.counted("closed_undetected"), self.counted("limited_connections")))
        self.clock.advance(0)
        first.protocol.dataReceived(b"123:a;")
        second.protocol.dataReceived(b"123:a;")
        self.clock.advance(0)
        self.answer_all()
        self.assertEqual((1, {"192.0.2.7:4711"}), (self.counted("published"), self.trackers()))
        self.assertEqual(1, len(self.factory._live))

    def test_silent(self) -> None:
        """A tracker that says nothing yet is one after some seconds, and is timed and counted like any other."""
        transport = self.pass_on(V1_TCP4)
        self.assertEqual(set(), self.trackers())
        self.clock.advance(HEADER_S)
        self.assertEqual({"192.0.2.7:4711"}, self.trackers())
        self.assertIsInstance(transport.protocol, ProxiedProtocol)
        self.say(transport.protocol, b"123:a;")
        self.answer_all()
        self.assertEqual(b"toy<123:a;", transport.value())

    def test_paused(self) -> None:
        """While nobody is read, one that is handed over is not read either."""
        self.factory.pause()
        transport = self.pass_on(V1_TCP4 + b"1")
        self.assertFalse(transport.reading)
        self.factory.resume()
        self.assertTrue(transport.reading)

    def test_gateway_ends(self) -> None:
        """Those that have said nothing yet are closed."""
        transport = self.pass_on(V1_TCP4)
        self.balancers.close()
        self.clock.advance(0)
        self.assertTrue(transport.aborted)
        self.assertEqual((0, []), (self.factory.waiting, self.clock.getDelayedCalls()))


class CommandTests(ProxiedCase):
    """Commands to a tracker whose acknowledgements nobody sees."""

    def setUp(self) -> None:
        super().setUp()
        self.wire = self.pass_on(V1_TCP4 + b"123:a;")
        self.answer_all()
        self.clock.advance(COMMAND_GAP_S)
        self.wire.clear()
        self.link: TrackerProtocol = self.wire.protocol
        self.assertEqual(0.0, self.link.ready_in())
        self.assertTrue(self.link.taken())
        self.assertTrue(self.link.command(COMMAND, 30.0))

    def report(self) -> None:
        """A report comes, and is stored."""
        self.say(self.link, b"123:b;")
        self.answer_all()

    def test_outstanding(self) -> None:
        """It is taken when the tracker has answered it, and not before."""
        self.assertEqual(COMMAND, self.wire.value())
        self.clock.advance(10.0)
        self.assertFalse(self.link.taken())
        self.assertIn("not known", self.link.untaken)
        self.link.answered()
        self.assertTrue(self.link.taken())
        self.clock.advance(60.0)
        self.assertFalse(self.wire.aborted)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_too_late(self) -> None:
        """Without an answer within its lifetime the connection is dropped: what the balancer holds is not for later."""
        self.clock.advance(29.9)
        self.assertFalse(self.wire.aborted)
        self.clock.advance(0.2)
        self.assertTrue(self.wire.aborted)
        self.assertFalse(self.link.taken())
        self.assertIsNone(self.link.ready_in())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_gone_before(self) -> None:
        """Nothing is left of a connection that is lost or cut off before."""
        self.link.cut_off("a test")
        self.clock.advance(0)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_replies_wait(self) -> None:
        """Replies wait for the answer, as the balancer's acknowledgement says nothing, and not for ever."""
        self.wire.clear()
        self.report()
        self.clock.advance(2.0)
        self.assertEqual(b"", self.wire.value())
        self.link.answered()
        self.clock.advance(0.2)
        self.assertEqual(b"toy<123:b;", self.wire.value())

    def test_replies_wait_no_longer(self) -> None:
        """They go after 5 s all the same."""
        self.wire.clear()
        self.report()
        for _ in range(round(HOLD_S * 10) + 1):
            self.clock.advance(0.1)
        self.assertEqual(b"toy<123:b;", self.wire.value())
