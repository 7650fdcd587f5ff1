"""A simulated tracker, what it sends, and a fleet of them on a network in memory."""

from __future__ import annotations

import calendar
import time
from itertools import islice
from typing import Any, Final

from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from gateway.simulator import fleet, frames
from gateway.simulator.counts import Counts
from gateway.simulator.frames import Cell, Record
from gateway.simulator.options import Options
from gateway.simulator.registry import Script
from gateway.simulator.scenarios import SCENARIOS
from gateway.simulator.steps import Step
from gateway.simulator.unit import Unit
from tests.fakes import NOON

IDENT: Final = "9900000001"
V4: Final = b"*HQ,9900000001,V4,V1,20261122120001#"
R12: Final = b"*HQ,9900000001,R12,120001#"


def unit(seed: int = 1, interval: float = 10.0, ident: str = IDENT, offset: float = 0.0) -> Unit:
    """A tracker of a fleet that starts at noon."""
    return Unit(ident, seed, NOON, offset, interval)


def steps(name: str, count: int, tracker: Unit | None = None) -> list[Step]:
    """The first steps of a scenario."""
    return list(islice(SCENARIOS[name](tracker or unit()), count))


def record(**values: Any) -> Record:
    """A record of a parked car in Berlin, but for these values."""
    cell = Cell(262, 1, 341, 8121)
    return Record(IDENT, NOON, 52.52, 13.405, 0.0, 0.0, frames.ACC_OFF, cell, 1234.5, 0)._replace(**values)


def word(frame: bytes) -> int:
    """The conditions in the status word of a V1 report."""
    return 0xFFFF_FFFF & ~int(frame.split(b",")[12], 16)


def knots(frame: bytes) -> float:
    """The speed in a V1 report."""
    return float(frame.split(b",")[9])


def dated(frame: bytes) -> int:
    """The time in a V1 report."""
    fields = frame.split(b",")
    return calendar.timegm(time.strptime((fields[11] + fields[3]).decode(), "%d%m%y%H%M%S"))


class Wire(StringTransport):
    """What a tracker has written on one connection."""

    #: whether the tracker sends no more
    left = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing to do in memory."""

    def loseWriteConnection(self) -> None:
        """Send no more."""
        self.left = True

    def frames(self) -> list[bytes]:
        """The frames on it."""
        return [frame + b"#" for frame in self.value().split(b"#")[:-1]]


def accepted(factory: Any) -> tuple[Any, Wire]:
    """Accept a connection: the tracker's end of it, and what it writes there."""
    protocol, wire = factory.buildProtocol(None), Wire()
    protocol.makeConnection(wire)
    return protocol, wire


class Port:
    """A UDP port in memory: what was sent from it."""

    def __init__(self, protocol: Any) -> None:
        self.sent: list[bytes] = []
        self.peer = ("", 0)
        self.closed = False
        self.protocol = protocol
        protocol.makeConnection(self)

    def connect(self, host: str, port: int) -> None:
        """Send to there."""
        self.peer = host, port

    def write(self, data: bytes) -> None:
        """Send a datagram."""
        self.sent.append(data)

    def stopListening(self) -> None:
        """Close it."""
        self.closed = True
        self.protocol.doStop()


class Network(MemoryReactorClock):
    """A network in memory, with UDP."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[Port] = []
        self.full = False

    def listenUDP(self, port: int, protocol: Any, interface: str = "") -> Port:
        """Open a port, if there is one left."""
        if self.full:
            raise CannotListenError(interface, port, "none left")
        self.ports.append(Port(protocol))
        return self.ports[-1]


class FleetTestCase(SynchronousTestCase):
    """A fleet, with a clock and a network in memory."""

    def begin(self, script: Script = SCENARIOS["trip"], count: int = 3, devices: int = 1, **values: Any) -> None:
        """Start a fleet at noon."""
        self.reactor = Network()
        self.reactor.advance(NOON)
        self.counts = Counts()
        self.recorded: list[tuple[str, bytes]] = []
        settings: dict[str, Any] = {
            "transport": "tcp",
            "interval": 10.0,
            "gateways": (("127.0.0.1", 8888),),
        } | values
        options = Options(
            script=script,
            devices=devices,
            first=int(IDENT),
            count=count,
            seed=1,
            **settings,
        )
        self.commanded: list[tuple[str, bytes, float, bool]] = []
        self.fleet = fleet.Fleet(
            self.reactor,
            options,
            self.counts,
            lambda ident, frame, _: self.recorded.append((ident, frame)),
            lambda *heard: self.commanded.append(heard),
        )
        self.finished = self.fleet.start()
        self.handled = 0

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        self.reactor.pump([0.05] * round(seconds / 0.05))

    def attempts(self) -> list[Any]:
        """The attempts to connect that nobody has answered yet."""
        made = [client[2] for client in self.reactor.tcpClients[self.handled :]]
        self.handled = len(self.reactor.tcpClients)
        return made

    def accept(self) -> tuple[Any, Wire]:
        """Accept the one connection that is asked for."""
        (factory,) = self.attempts()
        return accepted(factory)

    def seen(self, *names: str) -> tuple[int, ...]:
        """Some of the counters."""
        return tuple(getattr(self.counts, name) for name in names)
