"""Simulated trackers that go from one gateway to the next."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.python.failure import Failure

from gateway.simulator import frames
from gateway.simulator.connections import LEAVE_S
from gateway.simulator.scenarios import SCENARIOS
from tests.fakes import NOON
from tests.simulator_fakes import IDENT, R12, V4, FleetTestCase, Port, Wire, accepted, word

CUT = b"*HQ,9900000001,S20,130305,1,1#"
GATEWAYS = (("127.0.0.1", 8888), ("127.0.0.2", 9999))


class MoveTests(FleetTestCase):
    """A device that moves every 25 seconds, with a report every 10."""

    def drive(self, **values: Any) -> None:
        """Start it."""
        settings: dict[str, Any] = {"count": 0, "timeout": 100.0} | values
        self.begin(SCENARIOS["standing"], gateways=GATEWAYS, move=25.0, **settings)
        self.passes(0.1)

    def arrives(self, gateway: int) -> tuple[Any, Wire]:
        """Accept the one connection that is asked for, of this gateway."""
        self.assertEqual(GATEWAYS[gateway], self.reactor.tcpClients[-1][:2])
        return self.accept()

    def stays(self) -> tuple[Any, Wire]:
        """The first connection, up to the time to go; what is reported is acknowledged."""
        protocol, wire = self.arrives(0)
        for _ in range(2):
            protocol.dataReceived(V4)
            self.passes(10.0)
        protocol.dataReceived(V4)
        self.passes(4.8)
        self.assertFalse(wire.left)
        return protocol, wire

    def ends(self, protocol: Any) -> None:
        """The gateway sees the end, and closes the connection."""
        protocol.connectionLost(Failure(ConnectionDone()))
        self.passes(0.1)

    def test_in_turn(self) -> None:
        """It says that it sends no more, waits for the gateway to close, and goes to the other, and back again."""
        self.drive()
        protocol, wire = self.stays()
        self.passes(0.2)
        self.assertEqual((True, False, []), (wire.left, wire.disconnected, self.attempts()))
        self.ends(protocol)
        protocol, other = self.arrives(1)
        self.assertEqual([], other.frames())
        self.passes(5.0)
        self.assertEqual((3, 1), (len(wire.frames()), len(other.frames())))
        protocol.dataReceived(V4)
        self.passes(10.0)
        protocol.dataReceived(V4)
        self.passes(10.0)
        self.assertFalse(other.left)
        protocol.dataReceived(V4)
        self.assertTrue(other.left)
        self.ends(protocol)
        self.arrives(0)
        self.assertEqual((6, 0, 0, 3, 1), self.seen("acknowledged", "resent", "timeouts", "connections", "connected"))

    def test_waits(self) -> None:
        """While an acknowledgement is outstanding it stays, and sends no more; then it goes."""
        self.drive()
        protocol, wire = self.arrives(0)
        protocol.dataReceived(V4)
        self.passes(34.0)
        self.assertEqual((3, False), (len(wire.frames()), wire.left))
        protocol.dataReceived(V4)
        self.assertFalse(wire.left)
        protocol.dataReceived(V4)
        self.assertTrue(wire.left)
        self.ends(protocol)
        protocol, other = self.arrives(1)
        self.assertEqual([1, 0], [len(other.frames()), self.counts.resent])

    def test_in_vain(self) -> None:
        """What is not acknowledged in time is sent again to the next gateway."""
        self.drive(timeout=8.0)
        protocol, wire = self.arrives(0)
        protocol.dataReceived(V4)
        self.passes(10.0)
        protocol.dataReceived(V4)
        self.passes(20.0)
        self.assertTrue(wire.disconnected)
        self.assertFalse(wire.left)
        _, other = self.arrives(1)
        self.assertEqual(wire.frames()[2:], other.frames()[:1])
        self.assertEqual((1, 1), self.seen("resent", "timeouts"))

    def test_heard(self) -> None:
        """A command that is still under way when it leaves is obeyed, and answered on the next connection."""
        self.drive()
        protocol, wire = self.stays()
        self.passes(0.2)
        self.assertTrue(wire.left)
        protocol.dataReceived(CUT)
        self.assertEqual([(IDENT, CUT, True)], [(ident, data, alone) for ident, data, _, alone in self.commanded])
        self.assertEqual(3, len(wire.frames()))
        self.ends(protocol)
        _, other = self.arrives(1)
        self.assertIn(b",V4,S20,DONE,130305,", *other.frames())
        self.passes(5.0)
        self.assertTrue(word(other.frames()[1]) & frames.RELAY_CUT)
        self.assertEqual((1, 1, 0, 4), self.seen("commands", "told", "strange", "reports"))

    def test_in_one_read(self) -> None:
        """A command in the read with the last acknowledgement is obeyed and answered before it leaves."""
        self.drive()
        protocol, wire = self.arrives(0)
        protocol.dataReceived(V4)
        self.passes(26.0)
        protocol.dataReceived(V4 + V4 + CUT)
        self.assertTrue(wire.left)
        self.assertIn(b",V4,S20,DONE,", wire.frames()[-1])

    def test_other_half(self) -> None:
        """The R12 that goes with a last V4 and comes when it has left is nothing strange."""
        self.drive()
        protocol, wire = self.arrives(0)
        protocol.dataReceived(V4)
        self.passes(26.0)
        protocol.dataReceived(V4)
        protocol.dataReceived(V4)
        self.assertTrue(wire.left)
        protocol.dataReceived(R12)
        self.assertEqual((3, 0), self.seen("acknowledged", "strange"))

    def test_restart(self) -> None:
        """Told to start anew when it has left, it does so, and is at the next gateway afterwards."""
        self.drive()
        protocol, wire = self.stays()
        self.passes(0.2)
        protocol.dataReceived(CUT.replace(b"S20,130305,1,1", b"R1,130305"))
        self.assertTrue(wire.disconnected)
        self.passes(1.1)
        _, other = self.arrives(1)
        self.assertIn(b",V6,", *other.frames())

    def test_never_closed(self) -> None:
        """A gateway that does not close the connection is waited for so long, and no longer."""
        self.drive()
        _, wire = self.stays()
        self.passes(LEAVE_S - 0.5)
        self.assertFalse(wire.disconnected)
        self.passes(2.0)
        self.assertTrue(wire.disconnected)
        self.arrives(1)

    def test_not_there(self) -> None:
        """Who has no connection when it is time to go tries the next gateway from then on, and at once."""
        self.drive()
        hosts = []
        for _ in range(400):
            self.passes(0.1)
            for client in self.reactor.tcpClients[self.handled :]:
                hosts.append((client[0], self.reactor.seconds()))
            for factory in self.attempts():
                factory.clientConnectionFailed(None, Failure(Refused(111)))
        turned = [host for host, _ in hosts].index("127.0.0.2")
        self.assertEqual({"127.0.0.1"}, {host for host, _ in hosts[:turned]})
        self.assertEqual({"127.0.0.2"}, {host for host, _ in hosts[turned:]})
        self.assertApproximates(25.0, hosts[turned][1] - NOON, 0.11)
        self.assertGreater(len(hosts) - turned, 2)

    def test_on_its_way(self) -> None:
        """Who is connecting when it is time to go leaves as soon as it is connected, and has sent nothing there."""
        self.drive()
        (factory,) = self.attempts()
        self.passes(26.0)
        protocol, wire = accepted(factory)
        self.assertEqual((True, []), (wire.left, wire.frames()))
        self.ends(protocol)
        _, other = self.arrives(1)
        self.assertEqual(3, len(other.frames()))

    def test_past_the_end(self) -> None:
        """Who makes no more reports does not move."""
        self.drive(count=2, patience=100.0)
        protocol, wire = self.arrives(0)
        protocol.dataReceived(V4)
        self.passes(13.0)
        protocol.dataReceived(V4)
        self.passes(0.1)
        self.successResultOf(self.finished)
        self.assertFalse(wire.left)

    def test_leaving_at_the_end(self) -> None:
        """Told to stop while it leaves, with all acknowledged, it connects to nobody any more."""
        self.drive(count=4, patience=100.0)
        protocol, _ = self.stays()
        self.passes(0.2)
        self.fleet.stop()
        self.ends(protocol)
        self.successResultOf(self.finished)
        self.assertEqual((3, 3, 0), self.seen("reports", "acknowledged", "connected"))
        self.assertEqual([], self.attempts())

    def test_often(self) -> None:
        """A move that comes while it still leaves is a move all the same: it goes to the one after the next."""
        self.begin(SCENARIOS["standing"], count=0, gateways=GATEWAYS, move=1.0)
        self.passes(0.1)
        protocol, wire = self.arrives(0)
        protocol.dataReceived(V4)
        self.passes(2.2)
        self.assertTrue(wire.left)
        self.ends(protocol)
        self.arrives(0)

    def test_server(self) -> None:
        """What it tells of its server is where it is."""
        self.drive()
        protocol, wire = self.stays()
        protocol.dataReceived(b"RCONF")
        self.assertIn(b"\nIP:127.0.0.1 8888\n", wire.frames()[-1])
        self.passes(0.2)
        self.ends(protocol)
        protocol, other = self.arrives(1)
        protocol.dataReceived(b"RCONF")
        self.assertIn(b"\nIP:127.0.0.2 9999\n", other.frames()[-1])


class DatagramTests(FleetTestCase):
    """The same over UDP, where nobody is told."""

    def goes(self) -> tuple[Port, Port]:
        """A device that has just left its first gateway: its ports."""
        self.begin(SCENARIOS["standing"], count=0, gateways=GATEWAYS, move=25.0, transport="udp", timeout=15.0)
        self.passes(0.1)
        (first,) = self.reactor.ports
        for _ in range(2):
            first.protocol.datagramReceived(V4, None)
            self.passes(10.0)
        self.passes(6.0)
        self.assertEqual([first], self.reactor.ports)
        first.protocol.datagramReceived(V4, None)
        self.passes(0.1)
        _, second = self.reactor.ports
        return first, second

    def test_in_turn(self) -> None:
        """With nothing outstanding it sends from another port to the next gateway."""
        first, second = self.goes()
        self.assertEqual([*GATEWAYS], [first.peer, second.peer])
        self.passes(4.0)
        self.assertEqual((3, 1), (len(first.sent), len(second.sent)))
        second.protocol.datagramReceived(V4, None)
        self.assertEqual((4, 0, 0, 2, 1), self.seen("acknowledged", "resent", "timeouts", "connections", "connected"))

    def test_heard(self) -> None:
        """A command that comes to the port before is obeyed for a while, and answered from the new one."""
        first, second = self.goes()
        first.protocol.datagramReceived(R12, None)  # of an acknowledgement that was V4 and R12
        first.protocol.datagramReceived(CUT, None)
        self.assertEqual((3, True), (len(first.sent), self.commanded[0][3]))
        self.assertIn(b",V4,S20,DONE,130305,", *second.sent)
        self.passes(LEAVE_S + 1.1)
        self.assertEqual([True, False], [first.closed, second.closed])
        first.protocol.datagramReceived(CUT, None)
        self.assertEqual((1, 0), self.seen("commands", "strange"))

    def test_late_answer(self) -> None:
        """An acknowledgement that comes to the port before is for none of the reports sent since."""
        first, second = self.goes()
        self.passes(4.0)
        self.assertEqual(1, len(second.sent))
        first.protocol.datagramReceived(V4, None)
        self.assertEqual(3, self.counts.acknowledged)

    def test_refused(self) -> None:
        """That the gateway before is gone does not disturb it."""
        first, second = self.goes()
        first.protocol.connectionRefused()
        self.passes(4.0)
        second.protocol.datagramReceived(V4, None)
        self.assertEqual((4, 2, 1), self.seen("acknowledged", "connections", "connected"))
