"""TCP: one protocol for each tracker's connection, and the factory that counts and times them."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from math import inf
from sys import intern
from typing import Any, Final, NamedTuple

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.clock import monotonic
from gateway.connection import Connection, Limits
from gateway.detection import Candidates
from gateway.interfaces import Message
from gateway.publisher import Publisher
from gateway.rates import Allowance, Rate, Sender
from gateway.sessions import Sessions
from gateway.tickets import Ticket, settled
from gateway.transports.sockets import peer_name
from gateway.transports.writing import COMMAND_GAP_S, POLL_S, Hold, Quiet, expire_after, send, unacknowledged, undelayed

#: How often every connection's idle time is looked at.
IDLE_SWEEP_S: Final = 5.0
#: How much of an interval that was just learned counts, against those before.
LEARN: Final = 0.25


#: A connection of an address that sent too much of what is nobody's is left unread for so long at most, s.
HELD_S: Final = 30.0
#: Those that were accepted come in lots; the port rests for so long at least, s.
REST_S: Final = 0.05


class TCPLimits(NamedTuple):
    """See C{[limits]} of the configuration."""

    connections: int = 50_000
    connections_per_address: int = 20_000
    accepts: int = 5_000
    undetected: int = 25_000
    strangers_per_address: int = 600
    reports_per_device: int = 500
    reports_per_address: int = 100_000
    idle: float = 900.0
    idle_unlearned: float = 1800.0
    unread_seconds: float = 60.0
    unanswered: int = 500

    def allowance(self) -> Allowance:
        """Of reports and strangers, with nothing counted yet."""
        return Allowance(self.reports_per_device, self.reports_per_address, self.strangers_per_address)


@implementer(IPushProducer, IHalfCloseableProtocol)
class TrackerProtocol(Protocol):
    """
    One connection.

    It is also what its transport asks to stop when replies are not read:
    then it stops reading, and is closed when that lasts.
    """

    transport_name = "tcp"
    windowed = False
    untaken = "its side has not acknowledged what was sent"
    transport: Any
    factory: TrackerFactory

    def __init__(self, address: str, peer: str) -> None:
        self.address = address
        self.peer = peer
        self._order: list[Ticket] = []
        self._connection: Connection | None = None
        #: reading stands still because replies are not read, since then
        self.unread_since: float | None = None
        self.last_frame = 0.0
        self.interval = 0.0
        #: whether it is read; its timers stand still while it is not
        self.reading = True
        self._stopped_at = 0.0
        self._paused = False
        self._crowded = False
        self._leaving = False
        #: more came than may: it is left unread for a while
        self._slowed = False
        #: nobody knows yet whose it is
        self._unknown = True
        self._sender: Sender | None = None
        #: when the last reply was written, by the clock that nobody sets
        self._replied = -inf
        self._hold: Hold | Quiet | None = None

    def connectionMade(self) -> None:
        self.factory.opened(self)

    def begin(self, connection: Connection, sender: Sender, now: float) -> None:
        """The factory lets it in."""
        self._connection = connection
        self._sender = sender
        self.last_frame = now
        undelayed(self.transport)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        factory = self.factory
        now = factory.clock.seconds()
        try:
            messages = connection.receive(data, now)
        except Exception:  # foreign code: a device plugin
            self._connection = None
            self._failed(connection, data, now)
            return
        if messages:
            self._learn(now)
            if self._unknown:
                self._unknown = False
                factory.known(self)
            factory.publisher.take(messages, self, connection.plugin.name, now)  # type: ignore[union-attr]  # it decoded
            if len(self._order) > factory.unanswered:
                self._crowd()
            self._count(self._sender, messages, now)  # type: ignore[arg-type]  # it was let in
        if connection.deadline is not None or connection.closing is not None:
            factory.look(self, connection, now)

    def _count(self, sender: Sender, messages: Sequence[Message], now: float) -> None:
        """Where more reports come than may of one device, or of its address, what is left of them has to wait."""
        mine, address = sender.mine, sender.address
        mine.count += len(messages)
        address.count += len(messages)
        if mine.count > mine.burst or address.count > address.burst:
            limit, seconds = self.factory.allowance.wait(sender, [one.ident or "" for one in messages], now)
            if seconds > 0.0:
                self.factory.slow(self, limit, seconds)

    def allow(self, sender: Sender) -> None:
        """The limits have changed."""
        self._sender = sender

    def slow(self, slowed: bool) -> None:
        """Stop reading it for a while, or go on."""
        self._slowed = slowed
        self._apply()

    def _learn(self, now: float) -> None:
        """The interval of its reports, for how long it may be silent."""
        gap = now - self.last_frame
        self.last_frame = now
        if gap >= 1.0:
            self.interval = gap if not self.interval else self.interval + LEARN * (gap - self.interval)

    def silent(self, now: float) -> None:
        """The connection's deadline has passed."""
        connection = self._connection
        if connection is None:
            return
        try:
            messages = connection.silence(now)
        except Exception:  # foreign code: a device plugin
            self._connection = None
            self._failed(connection, b"", now)
            return
        if messages:
            self._unknown = False
            self.factory.known(self)
            self.factory.publisher.take(messages, self, connection.plugin.name, now)  # type: ignore[union-attr]
        self.factory.look(self, connection, now)

    def _failed(self, connection: Connection, data: bytes, now: float) -> None:
        name = connection.plugin.name if connection.plugin is not None else "in detection"
        self.factory.publisher.failed(self, data, name, now)

    def finish(self, now: float) -> None:
        """No more bytes count: hand over what can still be decided."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            messages = connection.end(now)
        except Exception:  # foreign code: a device plugin
            self._failed(connection, b"", now)
            return
        if connection.plugin is not None:
            if messages:
                self.factory.publisher.take(messages, self, connection.plugin.name, now)
            return
        self.factory.stranger(self, now)
        if connection.rest or connection.decision is not None:
            reason = connection.decision.reason if connection.decision is not None else "the end of the stream"
            self.factory.publisher.unrecognised(connection.rest, self, reason, now)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.closed(self)
        self._end_hold()
        self.finish(self.factory.clock.seconds())
        self._order.clear()

    # -- the publisher's Link

    def expect(self, ticket: Ticket) -> None:
        self._order.append(ticket)

    def flush(self) -> None:
        if self._hold is not None:
            return  # in the silence before or after a command; with its end all go that are settled then
        order = self._order
        out = settled(order)
        if out and self.transport is not None and self.transport.connected:
            self._replied = self.factory.elapsed()
            send(self.transport, out[0] if len(out) == 1 else b"".join(out))
        if self._crowded and len(order) * 2 <= self.factory.unanswered:
            self._crowded = False
            self._apply()
        if self._leaving and not order and self.transport is not None:
            self._lose()

    def _lose(self) -> None:
        """Close once what is written has gone out; who does not read it is cut off like anybody else."""
        if self.unread_since is None:
            self.unread_since = self.factory.clock.seconds()
        # a transport that waits for a paused producer to write more would never close
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def close(self, why: str) -> None:
        self.leave()

    def leave(self) -> None:
        """Read no more, and close once all that was received is stored and answered."""
        if self._leaving:
            return
        self._leaving = True
        # What is told now is told for the last time.  A reply that comes too soon after a command may cost that
        # one, and whoever gave it learns that; a reply that never comes has the tracker send everything again.
        self._end_hold()
        self.finish(self.factory.clock.seconds())
        self._apply()
        self.flush()

    def readConnectionLost(self) -> None:
        """The tracker will say no more, but it still hears."""
        self.leave()

    def writeConnectionLost(self) -> None:
        """It hears no more: connectionLost follows."""

    # -- commands

    def ready_in(self) -> float | None:
        if self._connection is None:
            return None
        if isinstance(self._hold, Hold):
            return self._hold.left
        rest = self._replied + COMMAND_GAP_S - self.factory.elapsed()
        if rest > 0.0:
            return rest
        return POLL_S if self.unread_since is not None or unacknowledged(self.transport) else 0.0

    def quiet(self) -> None:
        if self._hold is None and self._connection is not None:
            self._hold = Quiet(self.factory.clock, self._hold_over)

    def command(self, data: bytes, lifetime_s: float) -> bool:
        if lifetime_s <= 0.0 or self.ready_in() != 0.0 or not expire_after(self.transport, lifetime_s):
            return False
        self._end_hold()
        send(self.transport, data)
        self._hold = Hold(self.factory.clock, self.outstanding, self._hold_over)
        return True

    def _hold_over(self) -> None:
        self._hold = None
        self.flush()

    def _end_hold(self) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.cancel()

    def answered(self) -> None:
        expire_after(self.transport, 0)

    def taken(self) -> bool:
        return self._connection is not None and not self.outstanding()

    def outstanding(self) -> bool:
        """Whether something that was written has yet to come to the tracker."""
        return unacknowledged(self.transport)

    def cut_off(self, why: str) -> None:
        self.factory.log.info("{peer} is cut off: {why}", peer=self.peer, why=why)
        self._end_hold()
        self.finish(self.factory.clock.seconds())
        self.transport.abortConnection()

    # -- reading and not reading

    def pauseProducing(self) -> None:
        self.unread_since = self.factory.clock.seconds()
        self._apply()

    def resumeProducing(self) -> None:
        self.unread_since = None
        self._apply()

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost follows."""

    def pause(self, paused: bool) -> None:
        """Stop or go on reading, with everybody else."""
        self._paused = paused
        self._apply()

    def shift(self, seconds: float) -> None:
        """The clock was set by so much."""
        self.last_frame += seconds
        self._stopped_at += seconds
        if self.unread_since is not None:
            self.unread_since += seconds
        if self._connection is not None:
            self._connection.shift(seconds)

    def _crowd(self) -> None:
        """More of its frames wait than one connection may have waiting: the others' come first."""
        if not self._crowded:
            self._crowded = True
            self.factory.publisher.counters["paused_unanswered"] += 1
            self._apply()

    def _apply(self) -> None:
        """Read or do not; the time for which it was not read counts for none of its timers."""
        held = self._paused or self._crowded or self._slowed or self._leaving
        reading = not held and self.unread_since is None
        if reading == self.reading or self.transport is None or not self.transport.connected:
            return
        self.reading = reading
        now = self.factory.clock.seconds()
        if not reading:
            self._stopped_at = now
            self.transport.stopReading()
            return
        self.last_frame += now - self._stopped_at
        if self._connection is not None:
            self._connection.shift(now - self._stopped_at)
        # the transport's own: resumeProducing is what it asks of us
        self.transport.startReading()


class TrackerFactory(Factory):
    """All TCP connections."""

    log = Logger()
    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        candidates: Candidates,
        sessions: Sessions,
        publisher: Publisher,
        connection_limits: Limits,
        limits: TCPLimits,
    ) -> None:
        self.clock = clock
        self.elapsed = monotonic(clock)
        self.publisher = publisher
        self._candidates = candidates
        self._sessions = sessions
        self._connection_limits = connection_limits
        self._limits = limits
        self.unanswered = limits.unanswered
        self.allowance = limits.allowance()
        self._accepts = Rate(limits.accepts, limits.accepts, clock.seconds())
        #: connections of which it is not known yet whose they are, the oldest first
        self._undetected: OrderedDict[TrackerProtocol, None] = OrderedDict()
        #: those that are not read for a while, until when
        self._slow: dict[TrackerProtocol, float] = {}
        #: called when connections come too fast: no more are to be accepted for so many seconds
        self.on_rush: Callable[[float], None] = lambda seconds: None
        self._live: set[TrackerProtocol] = set()
        #: connections of which it is not known yet whose they are
        self.waiting = 0
        self._addresses: Counter[str] = Counter()
        #: connections whose detection or decoder waits for a silence
        self._watched: dict[TrackerProtocol, Connection] = {}
        self._paused = False
        self._swept = 0.0

    def change(self, connection_limits: Limits, limits: TCPLimits) -> None:
        """The configuration has changed; what an address has sent counts from now on anew."""
        now = self.clock.seconds()
        self._connection_limits, self._limits = connection_limits, limits
        self.unanswered = limits.unanswered
        self.allowance = limits.allowance()
        self._accepts = Rate(limits.accepts, limits.accepts, now)
        for protocol in self._live:
            protocol.allow(self.allowance.sender(protocol.address, now))

    @property
    def live(self) -> int:
        """How many connections there are."""
        return len(self._live)

    def buildProtocol(self, addr: Any) -> TrackerProtocol:  # type: ignore[override]  # its factory is this one
        return self.tracker(TrackerProtocol, addr.host.partition("%")[0], addr.port)

    def tracker(self, kind: type[TrackerProtocol], host: str, port: int) -> TrackerProtocol:
        """A protocol for a tracker that comes from there."""
        peer = peer_name(host, port)
        # operators put a fleet behind a few addresses: one string each
        protocol = kind(intern(peer.rpartition(":")[0]), peer)
        protocol.factory = self
        return protocol

    @property
    def full(self) -> bool:
        """Whether there are more connections than there may be."""
        return len(self._live) + self.waiting > self._limits.connections

    def opened(self, protocol: TrackerProtocol) -> None:
        """Let a connection in, unless a limit is reached."""
        limits = self._limits
        counters = self.publisher.counters
        counters["connections"] += 1
        self._live.add(protocol)
        self._addresses[protocol.address] += 1
        now = self.clock.seconds()
        limit = ""
        if self._addresses[protocol.address] > limits.connections_per_address:
            limit = "connections_per_address"
        elif self.full and not self.make_room(now):
            limit = "connections"
        if limit:
            self.publisher.limited(limit, protocol)
            protocol.transport.abortConnection()
            return
        connection = Connection(self._candidates, self._connection_limits, self._sessions.memory, now)
        protocol.begin(connection, self.allowance.sender(protocol.address, now), now)
        self._watched[protocol] = connection
        self._undetected[protocol] = None
        if len(self._undetected) > limits.undetected:
            self.make_room(now)
        if self._paused:
            protocol.pause(True)
        strangers = self.allowance.strangers.of(protocol.address, now)
        if strangers.count > strangers.burst and (wait := strangers.over(now)) > 0.0:
            self.slow(protocol, "strangers_per_address", min(wait, HELD_S))
        if (wait := self._accepts.add(now)) > 0.0:
            counters["paused_accepts"] += 1
            self.on_rush(max(wait, REST_S))

    def make_room(self, now: float) -> bool:
        """Cut the oldest connection of which nobody knows whose it is; whether there was one."""
        if not self._undetected:
            return False
        oldest, _ = self._undetected.popitem(last=False)
        self.publisher.counters["closed_undetected"] += 1
        self.publisher.notice("undetected", oldest)
        oldest.finish(now)
        self.closed(oldest)
        oldest.transport.abortConnection()
        return True

    def known(self, protocol: TrackerProtocol) -> None:
        """A connection has said whose it is."""
        self._undetected.pop(protocol, None)

    def slow(self, protocol: TrackerProtocol, limit: str, seconds: float) -> None:
        """Leave a connection unread for so long."""
        self.publisher.counters[f"paused_{limit}"] += 1
        self.publisher.notice(limit, protocol)
        self._slow[protocol] = self.elapsed() + seconds
        protocol.slow(True)

    def stranger(self, protocol: TrackerProtocol, now: float) -> None:
        """A connection ended, and was nobody's."""
        self.allowance.strangers.of(protocol.address, now).count += 1

    def closed(self, protocol: TrackerProtocol) -> None:
        """A connection is gone."""
        if protocol in self._live:
            self._live.discard(protocol)
            self._watched.pop(protocol, None)
            self._slow.pop(protocol, None)
            self._undetected.pop(protocol, None)
            self._addresses[protocol.address] -= 1
            if not self._addresses[protocol.address]:
                del self._addresses[protocol.address]

    def look(self, protocol: TrackerProtocol, connection: Connection, now: float) -> None:
        """Watch a connection that waits for a silence; close one that is at its end."""
        if connection.closing is not None:
            self._watched.pop(protocol, None)
            if connection.limit:
                self.publisher.counters[f"closed_{connection.limit}"] += 1
                self.publisher.notice(connection.limit, protocol)
            protocol.close(connection.closing)
        elif connection.deadline is not None:
            self._watched[protocol] = connection

    def tick(self, now: float) -> None:
        """Four times a second: deadlines; every few seconds: idle and unread connections."""
        if self._slow:
            elapsed = self.elapsed()
            for protocol in [one for one, until in self._slow.items() if elapsed >= until]:
                del self._slow[protocol]
                protocol.slow(False)
        if self._paused:
            return  # the timers stand still while reading does
        for protocol, connection in list(self._watched.items()):
            deadline = connection.deadline
            if not protocol.reading:
                continue  # bytes that would decide may wait
            if deadline is None:
                del self._watched[protocol]
            elif now >= deadline:
                del self._watched[protocol]
                protocol.silent(now)
        if not 0.0 <= now - self._swept < IDLE_SWEEP_S:  # a clock may be set back
            self._swept = now
            for protocol in [p for p in self._live if self._overdue(p, now)]:
                protocol.finish(now)
                protocol.transport.abortConnection()

    def _overdue(self, protocol: TrackerProtocol, now: float) -> bool:
        limits = self._limits
        if protocol.unread_since is not None:
            if now - protocol.unread_since >= limits.unread_seconds:
                self.publisher.counters["closed_unread_seconds"] += 1
                return True
            return False
        if not protocol.reading:
            return False
        allowed = max(3 * protocol.interval, limits.idle) if protocol.interval else limits.idle_unlearned
        if now - protocol.last_frame >= allowed:
            self.publisher.counters["closed_idle"] += 1
            return True
        return False

    def shift(self, seconds: float) -> None:
        """The clock was set by so much: no timer is to notice."""
        for protocol in self._live:
            protocol.shift(seconds)

    def pause(self) -> None:
        """Stop reading everywhere."""
        if not self._paused:
            self._paused = True
            for protocol in self._live:
                protocol.pause(True)

    def resume(self) -> None:
        """Read again; the time in between counts for nobody."""
        if self._paused:
            self._paused = False
            for protocol in self._live:
                protocol.pause(False)

    def finish(self) -> None:
        """The gateway ends: read no more, hand over what can still be decided."""
        self.pause()
        now = self.clock.seconds()
        for protocol in list(self._live):
            protocol.finish(now)

    def close(self) -> None:
        """Close all connections."""
        for protocol in list(self._live):
            protocol.leave()
