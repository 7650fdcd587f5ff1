"""What a tracker sends through: a TCP connection, or a UDP socket of its own."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Any
from typing import Protocol as Interface

from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol, connectionDone
from twisted.python.failure import Failure

from gateway.simulator.downlink import Downlink


class Wire(Interface):
    """
    A connection, or a UDP socket.

    @ivar downlink: reads what comes back on it.
    """

    downlink: Downlink

    def send(self, data: bytes) -> None:
        """Send bytes."""

    def leave(self) -> None:
        """Send no more, and still receive."""

    def close(self) -> None:
        """Close it, at once."""


class Owner(Interface):
    """Whom wires belong to; it knows by its device which one it is told of."""

    def connected(self, device: Any, wire: Wire) -> None:
        """A connection is there."""

    def not_connected(self, device: Any, why: str) -> None:
        """No connection could be made."""

    def received(self, device: Any, wire: Wire, data: bytes) -> None:
        """Bytes came back."""

    def disconnected(self, device: Any, wire: Wire, why: str = "") -> None:
        """The other end closed it, or, of UDP, is not there."""


class Connecting(ClientFactory):
    """One attempt to connect."""

    noisy = False

    def __init__(self, owner: Owner, device: Any) -> None:
        self._owner = owner
        self._device = device

    def buildProtocol(self, addr: Any) -> Stream:
        return Stream(self._owner, self._device)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        error = reason.value
        refusal = error.osError if isinstance(error, ConnectError) else None
        self._owner.not_connected(self._device, os.strerror(refusal) if refusal else str(error))


class Stream(Protocol):
    """One TCP connection."""

    transport: Any

    def __init__(self, owner: Owner, device: Any) -> None:
        self.downlink = Downlink()
        self._owner = owner
        self._device = device

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._owner.connected(self._device, self)

    def dataReceived(self, data: bytes) -> None:
        self._owner.received(self._device, self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._owner.disconnected(self._device, self)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.write(data)

    def leave(self) -> None:
        """Send no more: the other end sees the end of what is sent, and closes the connection."""
        self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close it, at once."""
        self.transport.abortConnection()


class Datagrams(DatagramProtocol):
    """One UDP socket."""

    transport: Any
    noisy = False

    def __init__(self, owner: Owner, device: Any) -> None:
        self.downlink = Downlink()
        self._owner = owner
        self._device = device

    def open(self, reactor: Any, host: str, port: int) -> None:
        """Take a port of its own; the owner is told whether there was one left."""
        try:
            reactor.listenUDP(0, self, interface="::" if ":" in host else "")
        except CannotListenError as error:  # no port, or no descriptor
            self._owner.not_connected(self._device, str(error))
            return
        self.transport.connect(host, port)
        self._owner.connected(self._device, self)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._owner.received(self._device, self, datagram)

    def connectionRefused(self) -> None:
        self._owner.disconnected(self._device, self, os.strerror(errno.ECONNREFUSED))

    def stopProtocol(self) -> None:
        """It was closed; not by us: a datagram found nobody, of which epoll reports no more than an error."""
        self._owner.disconnected(self._device, self, os.strerror(errno.ECONNREFUSED))

    def send(self, data: bytes) -> None:
        """Send one datagram."""
        with suppress(OSError):  # without a way there now the report is sent again when its time is up
            self.transport.write(data)

    def leave(self) -> None:
        """Nobody is told."""

    def close(self) -> None:
        """Close it, at once."""
        if self.transport is not None:
            self.transport.stopListening()
