"""UDP: each datagram is decided and decoded on its own, and answered where it came from."""

from __future__ import annotations

from math import inf
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.udp import Port
from twisted.logger import Logger

from gateway.clock import monotonic
from gateway.connection import Datagrams, Limits
from gateway.detection import Candidates
from gateway.publisher import Publisher
from gateway.sessions import Sessions
from gateway.tickets import Ticket, settled
from gateway.transports.sockets import peer_name
from gateway.transports.writing import COMMAND_GAP_S

#: What a peer turned out to be is remembered so long, for so many peers.
PEER_S: Final = 600.0
PEERS: Final = 50_000

Address = tuple[str, int]


class Peer:
    """
    An address, as it is shown, and what it turned out to be when it was last heard.

    @ivar replied: when it was last answered, by the clock that nobody sets.
    """

    __slots__ = ("name", "plugin", "replied", "seen")

    def __init__(self, name: str) -> None:
        self.name = name
        self.plugin: str | None = None
        self.seen = 0.0
        self.replied = -inf


class Sender:
    """The sender of one datagram, who is owed its replies; he can be sent commands after that, too."""

    __slots__ = ("_address", "_known", "_order", "_protocol", "peer")

    transport_name = "udp"
    windowed = True
    untaken = ""

    def __init__(self, protocol: TrackerDatagrams, address: Address, known: Peer) -> None:
        self._protocol = protocol
        self._address = address
        self._known = known
        self._order: list[Ticket] = []
        self.peer = known.name

    def expect(self, ticket: Ticket) -> None:
        self._order.append(ticket)

    def flush(self) -> None:
        """One datagram a reply: a tracker reads one of a datagram, not several."""
        for out in settled(self._order):
            self._known.replied = self._protocol.elapsed()
            self._protocol.send(out, self._address)

    def close(self, why: str) -> None:
        """There is nothing to close."""

    def ready_in(self) -> float | None:
        if not self._protocol.open:
            return None
        if self._order:
            return COMMAND_GAP_S  # a reply is about to go out
        return max(0.0, self._known.replied + COMMAND_GAP_S - self._protocol.elapsed())

    def quiet(self) -> None:
        """Datagrams never go together."""

    def command(self, data: bytes, lifetime_s: float) -> bool:
        """Replies may follow it at once: datagrams stay apart, and none is sent again."""
        return lifetime_s > 0.0 and self.ready_in() == 0.0 and self._protocol.send(data, self._address)

    def answered(self) -> None:
        """There is nothing to end: a datagram does not outlive its way."""

    def taken(self) -> bool:
        """A datagram is never acknowledged; nothing of it is held either."""
        return True

    def cut_off(self, why: str) -> None:
        """There is nothing unsent."""


class TrackerDatagrams(DatagramProtocol):
    """One UDP port."""

    log = Logger()
    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        candidates: Candidates,
        sessions: Sessions,
        publisher: Publisher,
        limits: Limits,
    ) -> None:
        self._clock = clock
        self.elapsed = monotonic(clock)
        self._publisher = publisher
        self._datagrams = Datagrams(candidates, limits, sessions.memory)
        self._peers: dict[Address, Peer] = {}
        self._ended = False

    @property
    def open(self) -> bool:
        """Whether there is a way to its peers."""
        return self.transport is not None and not self._ended

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        publisher = self._publisher
        if publisher.full or self._ended:
            publisher.drop()
            return
        now = self._clock.seconds()
        peer = self._peers.get(addr)
        if peer is None:
            peer = Peer(peer_name(addr[0].partition("%")[0], addr[1]))
        hint = peer.plugin if now - peer.seen < PEER_S else None
        sender = Sender(self, addr, peer)
        datagrams = self._datagrams
        try:
            messages = datagrams.receive(datagram, now, hint)
        except Exception:  # foreign code: a device plugin
            name = datagrams.plugin.name if datagrams.plugin is not None else "in detection"
            publisher.failed(sender, datagram, name, now)
            return
        plugin = datagrams.plugin
        if plugin is None:
            publisher.unrecognised(datagram, sender, datagrams.reason, now)
            return
        if peer.plugin is None:
            self._remember(addr, peer)
        peer.plugin, peer.seen = plugin.name, now
        if messages:
            publisher.take(messages, sender, plugin.name, now)

    def _remember(self, address: Address, peer: Peer) -> None:
        """One address more, in place of the one that was met first."""
        self._peers[address] = peer
        if len(self._peers) > PEERS:
            del self._peers[next(iter(self._peers))]

    def send(self, data: bytes, address: Address) -> bool:
        """Send a datagram; whether it left."""
        transport = self.transport
        if transport is None:
            return False
        try:
            if type(transport) is Port:
                # the transport would take the address apart again to see that it is none of a host by name
                transport.socket.sendto(data, address)
            else:
                transport.write(data, address)
        except OSError as error:  # a full buffer, or a peer that can't be reached; it will send again
            self._publisher.counters["udp_unsent"] += 1
            self.log.debug("datagram not sent: {error}", error=error)
            return False
        return True

    def connectionRefused(self) -> None:
        """An earlier answer found nobody: the peer is gone."""

    def finish(self) -> None:
        """The gateway ends: what comes now is not taken in."""
        self._ended = True
