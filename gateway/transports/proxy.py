"""TCP through a balancer that says by the PROXY protocol whose connection it passes on."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from math import inf
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.errors import MalformedHeader
from gateway.proxy import Header, read_header
from gateway.transports.sockets import peer_name
from gateway.transports.tcp import TrackerFactory, TrackerProtocol
from gateway.transports.writing import reset_on_close

#: Within so many seconds the header has to come; and after so many a connection is a tracker's also when it is silent.
HEADER_S: Final = 5.0
#: Of connections that are closed for what a balancer did a line is logged so often at most; they are all counted; s.
SAY_EVERY_S: Final = 60.0
#: What a balancer is told that connects for itself: who does not answer may accept connections all the same.
ALIVE: Final = b"alive\r\n"

Network = IPv4Network | IPv6Network


class ProxiedProtocol(TrackerProtocol):
    """
    A tracker behind a balancer.

    What the kernel says of the connection is said of the balancer, which
    acknowledges what may never come to the tracker.  So a command counts as
    outstanding until the tracker has answered it; and when it has not within
    the command's lifetime the connection is reset, for the balancer to drop
    with its own to the tracker what that has not got.  It is reset as well
    when the gateway is killed before: after an orderly end the balancer would
    go on.
    """

    untaken = "whether it came to the device is not known, as there is a balancer between"
    _lifetime: IDelayedCall | None = None

    def command(self, data: bytes, lifetime_s: float) -> bool:
        if not super().command(data, lifetime_s):
            return False
        self._end_lifetime()
        reset_on_close(self.transport, True)
        self._lifetime = self.factory.clock.callLater(lifetime_s, self._too_late)
        return True

    def _too_late(self) -> None:
        self._lifetime = None
        self.cut_off("a command was not answered within its lifetime, and is not to come to it later")

    def outstanding(self) -> bool:
        return self._lifetime is not None or super().outstanding()

    def answered(self) -> None:
        self._end_lifetime()
        reset_on_close(self.transport, False)
        super().answered()

    def cut_off(self, why: str) -> None:
        self._end_lifetime()
        super().cut_off(why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end_lifetime()
        super().connectionLost(reason)

    def _end_lifetime(self) -> None:
        call, self._lifetime = self._lifetime, None
        if call is not None:
            call.cancel()


class HeaderProtocol(Protocol):
    """
    A connection of which is still to be said whose it is.

    It becomes a tracker's with the first byte after its header.  A balancer
    that only looks whether somebody is there leaves nothing behind.
    """

    transport: Any
    factory: ProxyFactory

    def __init__(self, host: str, port: int) -> None:
        self._own = host, port
        self._data = b""
        self._header: Header | None = None
        self._wait: IDelayedCall | None = None

    def connectionMade(self) -> None:
        if self.factory.enter(self):
            self._wait = self.factory.trackers.clock.callLater(HEADER_S, self._waited)
        else:
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._wait is None:
            return  # it is turned away
        if self._header is None:
            data = self._data + data
            try:
                header = read_header(data)
            except MalformedHeader as error:
                self._refuse("header", f"the PROXY header, {error}")
                return
            if header is None:
                self._data = data
                return
            self._header = header
            self._data, data = b"", data[header.length :]
            if header.local:
                self.transport.write(ALIVE)
        if data:
            self._hand_over(self._header, data)

    def _waited(self) -> None:
        if self._header is None:
            self._refuse("seconds", f"no PROXY header within {HEADER_S:g} s")
        else:
            self._hand_over(self._header, b"")

    def _hand_over(self, header: Header, data: bytes) -> None:
        """Whoever stands in the header speaks from now on."""
        self._leave()
        tracker = self.factory.trackers.tracker(ProxiedProtocol, *(header.source or self._own))
        self.transport.protocol = tracker
        tracker.makeConnection(self.transport)  # type: ignore[no-untyped-call]  # Twisted's
        if data:
            tracker.dataReceived(data)

    def _refuse(self, name: str, why: str) -> None:
        self._leave()
        self.factory.refused(name, peer_name(*self._own), why)
        self.transport.abortConnection()

    def _leave(self) -> None:
        if self._wait is not None:
            if self._wait.active():
                self._wait.cancel()
            self._wait = None
            self.factory.leave(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._wait is not None and self._data:
            self.factory.refused("header", peer_name(*self._own), "the PROXY header ends in the middle")
        self._leave()


class ProxyFactory(Factory):
    """The connections that balancers pass on, until it is known whose they are."""

    log = Logger()
    noisy = False

    def __init__(self, trackers: TrackerFactory, networks: Sequence[Network]) -> None:
        """
        @param trackers: whose they become then.
        @param networks: where balancers connect from.
        """
        self.trackers = trackers
        self._networks = networks
        self._waiting: set[HeaderProtocol] = set()
        self._said = -inf

    def buildProtocol(self, addr: Any) -> HeaderProtocol | None:  # type: ignore[override]  # its factory is this one
        host, port = addr.host.partition("%")[0], addr.port
        address: IPv4Address | IPv6Address = ip_address(host)
        if not any(address in network for network in self._networks):
            self.refused("network", peer_name(host, port), "it is in none of [proxy] networks")
            return None  # the port closes it
        protocol = HeaderProtocol(host, port)
        protocol.factory = self
        return protocol

    def enter(self, protocol: HeaderProtocol) -> bool:
        """A connection has come; whether there is room for it."""
        self._waiting.add(protocol)
        self.trackers.waiting = len(self._waiting)
        if not self.trackers.full or self.trackers.make_room(self.trackers.clock.seconds()):
            return True
        self.leave(protocol)
        self.trackers.publisher.limited("connections", None)
        return False

    def leave(self, protocol: HeaderProtocol) -> None:
        """It is a tracker's, or gone."""
        self._waiting.discard(protocol)
        self.trackers.waiting = len(self._waiting)

    def refused(self, name: str, peer: str, why: str) -> None:
        """A connection is closed that can be nobody's."""
        self.trackers.publisher.counters[f"closed_proxy_{name}"] += 1
        elapsed = self.trackers.elapsed()
        if elapsed - self._said >= SAY_EVERY_S:
            self._said = elapsed
            self.log.warn("connection of {peer} to a port for balancers is closed: {why}", peer=peer, why=why)

    def close(self) -> None:
        """The gateway ends: nobody has said anything on these connections yet."""
        for protocol in list(self._waiting):
            protocol.transport.abortConnection()
