"""UDP: each datagram is decided and decoded on its own, and answered where it came from."""

from __future__ import annotations

import socket
from math import inf
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.clock import monotonic
from gateway.connection import Datagrams, Limits
from gateway.detection import Candidates
from gateway.publisher import Publisher
from gateway.rates import Sender
from gateway.sessions import Sessions
from gateway.tickets import Ticket
from gateway.transports.sockets import peer_name
from gateway.transports.tcp import TCPLimits
from gateway.transports.writing import COMMAND_GAP_S

#: What a peer turned out to be is remembered so long, for so many peers.
PEER_S: Final = 600.0
PEERS: Final = 50_000
#: So many datagrams are read at most before others have their turn.
IN_A_ROW: Final = 512
#: No datagram is longer.
LONGEST: Final = 65_536

Address = tuple[str, int]


class Peer:
    """
    An address: it is owed replies to what came from there, and can be sent commands after that, too.

    @ivar plugin: what it turned out to be when it was last heard.
    @ivar seen: when that was, UTC epoch seconds.
    """

    __slots__ = ("_address", "_port", "_replied", "_waiting", "peer", "plugin", "seen", "sender")

    transport_name = "udp"
    windowed = True
    untaken = ""

    def __init__(self, port: TrackerDatagrams, address: Address, sender: Sender) -> None:
        self._port = port
        self.sender = sender
        self._address = address
        self._waiting: list[Ticket] = []
        #: when it was last answered, by the clock that nobody sets
        self._replied = -inf
        self.peer = peer_name(address[0].partition("%")[0], address[1])
        self.plugin: str | None = None
        self.seen = 0.0

    def expect(self, ticket: Ticket) -> None:
        self._waiting.append(ticket)

    def flush(self) -> None:
        """
        One datagram a reply: a tracker reads one of a datagram, not several.

        None waits for the reply to a datagram before it: these are in no order.
        """
        waiting, self._waiting = self._waiting, []
        for ticket in waiting:
            if ticket.out is None:
                self._waiting.append(ticket)
            elif ticket.out:
                self._replied = self._port.elapsed()
                self._port.send(ticket.out, self._address)

    def close(self, why: str) -> None:
        """There is nothing to close."""

    def ready_in(self) -> float | None:
        if not self._port.open:
            return None
        if self._waiting:
            return COMMAND_GAP_S  # a reply is about to go out
        return max(0.0, self._replied + COMMAND_GAP_S - self._port.elapsed())

    def quiet(self) -> None:
        """Datagrams never go together."""

    def command(self, data: bytes, lifetime_s: float) -> bool:
        """Replies may follow it at once: datagrams stay apart, and none is sent again."""
        return lifetime_s > 0.0 and self.ready_in() == 0.0 and self._port.send(data, self._address)

    def answered(self) -> None:
        """There is nothing to end: a datagram does not outlive its way."""

    def taken(self) -> bool:
        """A datagram is never acknowledged; nothing of it is held either."""
        return True

    def cut_off(self, why: str) -> None:
        """There is nothing unsent."""


@implementer(IReadDescriptor)
class TrackerDatagrams:
    """One UDP port, which reads its socket itself: Twisted's own way from there costs more than the system call."""

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        candidates: Candidates,
        sessions: Sessions,
        publisher: Publisher,
        limits: Limits,
        rates: TCPLimits,
    ) -> None:
        self._allowance = rates.allowance()
        self._clock = clock
        self.elapsed = monotonic(clock)
        self._publisher = publisher
        self._datagrams = Datagrams(candidates, limits, sessions.memory)
        self._peers: dict[Address, Peer] = {}
        self._reactor: Any = None
        self.socket: socket.socket | None = None
        self._ended = False

    def change(self, limits: Limits, rates: TCPLimits) -> None:
        """The configuration has changed."""
        self._datagrams.limits = limits
        self._allowance = rates.allowance()
        now = self._clock.seconds()
        for address, peer in self._peers.items():
            peer.sender = self._allowance.sender(address[0], now)

    def listen(self, reactor: Any, bound: socket.socket) -> None:
        """Read a bound socket: a duplicate of it, which is closed with this port."""
        self._reactor, self.socket = reactor, bound.dup()
        self.socket.setblocking(False)  # one that was inherited is taken for one that blocks
        reactor.addReader(self)

    def finish(self) -> None:
        """The gateway ends: nothing more is read, what was received is answered."""
        self._ended = True
        if self.socket is not None:
            self._reactor.removeReader(self)

    def close(self) -> None:
        """Nothing more is sent."""
        self.finish()
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    @property
    def open(self) -> bool:
        """Whether there is a way to its peers."""
        return self.socket is not None and not self._ended

    # -- what the reactor asks for

    def fileno(self) -> int:
        return self.socket.fileno() if self.socket is not None else -1

    def logPrefix(self) -> str:
        return "udp"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended."""
        self.close()

    def doRead(self) -> None:
        """Take what has come."""
        assert self.socket is not None
        receive = self.socket.recvfrom
        for _ in range(IN_A_ROW):
            try:
                datagram, address = receive(LONGEST)
            except BlockingIOError:
                return
            except OSError as error:  # a peer that can't be reached, say: it is told of an answer to it
                self.log.debug("no datagram: {error}", error=error)
                return
            try:
                self.received(datagram, address[:2])  # the rest of an IPv6 address is of the interface
            except Exception:
                self.log.failure("a datagram ended in an error of the gateway's own")

    def received(self, datagram: bytes, address: Address) -> None:
        """A datagram came."""
        publisher = self._publisher
        if publisher.full or self._ended:
            publisher.drop()
            return
        now = self._clock.seconds()
        peer = self._peers.get(address)
        if peer is None:
            peer = Peer(self, address, self._allowance.sender(address[0], now))
        datagrams = self._datagrams
        try:
            messages = datagrams.receive(datagram, now, peer.plugin if now - peer.seen < PEER_S else None)
        except Exception:  # foreign code: a device plugin
            name = datagrams.plugin.name if datagrams.plugin is not None else "in detection"
            publisher.failed(peer, datagram, name, now)
            return
        plugin = datagrams.plugin
        if plugin is None:
            if self._allowance.strangers.of(address[0], now).add(now) > 0.0:
                publisher.limited("strangers_per_address", peer)
            else:
                publisher.unrecognised(datagram, peer, datagrams.reason, now)
            return
        if peer.plugin is None:
            self._remember(address, peer)
        peer.plugin, peer.seen = plugin.name, now
        if messages and self._may(peer, messages[0].ident or "", now):
            publisher.take(messages, peer, plugin.name, now)

    def _may(self, peer: Peer, ident: str, now: float) -> bool:
        """Count a report; whether it may come: there may be too many of a device, or of its address."""
        sender = peer.sender
        mine, address = sender.mine, sender.address
        mine.count += 1
        address.count += 1
        if mine.count > mine.burst or address.count > address.burst:
            limit, seconds = self._allowance.wait(sender, (ident,), now)
            if seconds > 0.0:
                self._allowance.undo(sender, ident, now)
                self._publisher.limited(limit, peer)
                return False
        return True

    def _remember(self, address: Address, peer: Peer) -> None:
        """One address more, in place of the one that was met first."""
        self._peers[address] = peer
        if len(self._peers) > PEERS:
            del self._peers[next(iter(self._peers))]

    def send(self, data: bytes, address: Address) -> bool:
        """Send a datagram; whether it left."""
        if self.socket is None:
            return False
        try:
            self.socket.sendto(data, address)
        except OSError as error:  # a full buffer, or a peer that can't be reached; it will send again
            self._publisher.counters["udp_unsent"] += 1
            self.log.debug("datagram not sent: {error}", error=error)
            return False
        return True
