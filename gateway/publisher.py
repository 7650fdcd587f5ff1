"""
From judged messages to batches, and from stored batches to acknowledgements.

What a reactor turn brings is gathered into one batch; one batch is under way
at a time; a device is answered when its batch was stored, never before.  Each
frame gets exactly one outcome, and the counters add up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.batches import Group, gather, outcomes
from gateway.errors import DecodeError
from gateway.events import DEAD_BYTES, IDENT, RAW_BYTES, event_digest
from gateway.fields import rfc3339
from gateway.histogram import FRAMES, SECONDS, Histogram
from gateway.identity import Mode, Notices, Strangers, speaks_for
from gateway.interfaces import ISink, Message
from gateway.judging import steady
from gateway.records import brief, described, render
from gateway.session import Envelope, Session, Stored
from gateway.sessions import Sessions
from gateway.tickets import (
    NO_FRAME,
    OUTCOMES,
    PUBLISHED,
    REFUSED,
    UNAUTHORISED,
    UNDECODABLE,
    UNRECOGNISED,
    Answer,
    Batch,
    Link,
    Ticket,
)

#: The most events that one batch holds.
BATCH_EVENTS: Final = 512
HOUR_S: Final = 3600.0
#: So many different reasons of refusal are logged; all are counted and on the dead stream.
MAX_COMPLAINTS: Final = 64
#: Outcomes of what is no frame, or was counted as one before.
_NOT_COUNTED: Final = frozenset({NO_FRAME, REFUSED})
#: A device that was heard so long ago is where it was heard.
HERE_S: Final = 5.0
#: A device on UDP that left a report out, or was not heard for so long, may have been at another instance; s.
ELSEWHERE_S: Final = (2.0, 60.0)
#: A process that did nothing for so long was stopped, and others may have taken its devices; s.
STOOD_STILL_S: Final = 3.0
#: After a device was told a secret its answers are not shown for so long; s.
HUSH_S: Final = 120.0
#: How often all sessions are looked at for those at their end.
LOOK_S: Final = 10.0


def _counts(ticket: Ticket) -> bool:
    """
    Whether the batch that it leaves with counts it as a frame.

    A refused one was counted when it was refused, and so was one that is in quarantine.
    """
    return ticket.outcome not in _NOT_COUNTED and bool(ticket.records)


class Bounds(NamedTuple):
    """What may wait, and how many strangers may come: see C{[limits]} of the configuration."""

    pending: int = 20_000
    pending_bytes: int = 64 * 1024 * 1024
    new_idents: int = 100_000
    new_idents_per_address: int = 20_000
    unavailable_s: float = 10.0


class Publisher:
    """
    The one way from the links to the sink.

    @ivar full: whether reading has to wait.
    @ivar counters: outcomes of frames, and every limit that was hit.
    @ivar on_full: called when no more may be read; C{on_room}: when there is room again.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, sink: ISink, sessions: Sessions, bounds: Bounds) -> None:
        self._clock = clock
        self._sink = sink
        self._sessions = sessions
        self._bounds = bounds
        self._queue: deque[Ticket] = deque()
        self._begin: list[Session] = []
        self._beginning = False
        self._in_flight: list[Ticket] = []
        self._order: list[Ticket] = []
        self._busy = False
        #: frames that left in batches, and those of the batch that is under way
        self.handed = self.under_way = 0
        self._armed = False
        self._pending = 0
        self._pending_bytes = 0
        self.full = False
        self._oldest: deque[tuple[float, Ticket]] = deque()
        self._limited = self._dropped = 0
        self._hour = 0.0
        self._looked = 0.0
        self._ticked = clock.seconds()
        self._new: Counter[str] = Counter()
        self._idle: list[Callable[[], None]] = []
        #: sessions that began while nobody could be asked what is known of the device
        self._unknown: dict[str, Session] = {}
        self._stalled = False
        self._complained: set[str] = set()
        self._strangers = Strangers()
        self._notices = Notices()
        #: idents whose frames are shown, until when, UTC epoch seconds
        self._traced: Mapping[str, float] = {}
        #: until when an answer of theirs may repeat what is secret
        self._hushed: dict[str, float] = {}
        self.counters: Counter[str] = Counter()
        #: seconds from receipt to the outcome of a frame, and of each batch at the sink; frames of a batch
        self.waits, self.stores, self.sizes = Histogram(SECONDS), Histogram(SECONDS), Histogram(FRAMES)
        self._gathered_at = 0.0
        #: called with a device's session once what is kept of it was read, and whether commands wait for it
        self.on_begin: Callable[[Session, bool], None] = lambda session, waiting: None
        self.on_full: Callable[[], None] = lambda: None
        self.on_room: Callable[[], None] = lambda: None

    @property
    def pending(self) -> int:
        """Frames that have no outcome yet."""
        return self._pending

    @property
    def unsent(self) -> int:
        """Frames that are in no batch yet; they are counted one by one."""
        queued = sum(map(_counts, self._queue))
        waiting = sum(len(session.waiting) for session in self._sessions)
        return queued + waiting + self._limited + self._dropped

    def take(self, messages: Sequence[Message], link: Link, protocol: str, now: float) -> None:
        """Frames that were received on a link, in order."""
        sessions, lag_s = self._sessions, self._sessions.lag_s
        if not 0.0 <= now - self._ticked < STOOD_STILL_S:
            self._stood_still(now)
        self.counters["received"] += len(messages)
        self._pending += len(messages)
        for message in messages:
            self._pending_bytes += len(message.raw)
            ticket = Ticket(message, link, protocol, now)
            link.expect(ticket)
            if message.unavailable:
                self._oldest.append((now, ticket))
            ident = message.ident
            if ident is None or message.error is not None:
                self._undecodable(ticket, message.error or DecodeError("no ident", message.raw))
                continue
            session = sessions.get(ident)
            if session is None:
                session = self._stranger(ident, ticket)
                if session is None:
                    continue
            if not session.loaded:
                session.waiting.append(ticket)
                continue
            # on a connection a device has not been elsewhere; datagrams say nothing of that
            new = link is not session.link or (link.windowed and now - session.seen >= ELSEWHERE_S[0])
            if new and self._elsewhere(session, link, now):
                session.waiting.append(ticket)
                continue
            slow = session.unknown or session.contested
            report = None if slow else steady(session, message, link.peer, link.transport_name, now, lag_s)
            if report is None:
                self._judge(session, ticket)
                continue
            ticket.session = session
            session.link = link
            try:
                ticket.records = (brief(session, message, report, now),)
            except Exception as error:  # foreign values
                self._senseless(session, ticket, error)
            else:
                session.queued += 1
                self._queue.append(ticket)
                if session.line is not None:
                    session.line.steady(message, report, now)
        bounds = self._bounds
        if self._pending >= bounds.pending or self._pending_bytes >= bounds.pending_bytes:
            self._weigh()
        if self._begin or not (self._armed or self._busy):  # else it is done when the batch under way is stored
            self._arm()

    def unrecognised(self, data: bytes, link: Link, reason: str, now: float) -> None:
        """A connection or datagram that was nobody's."""
        self.counters["received"] += 1
        self._pending += 1
        self._pending_bytes += len(data)
        ticket = Ticket(Message(data), link, "", now, outcome=UNRECOGNISED)
        link.expect(ticket)
        self._dead(ticket, "frame.unrecognised", "", reason)
        self._weigh()
        self._arm()

    def failed(self, link: Link, data: bytes, plugin: str, now: float) -> None:
        """A plugin raised, called from an except clause: its stream's bytes are on the dead stream, and it is cut."""
        self.log.failure("device plugin {plugin} failed on {peer}", plugin=plugin, peer=link.peer)
        self.counters["plugin_errors"] += 1
        message = Message(data, error=DecodeError(f"device plugin {plugin} failed", data))
        self.take([message], link, plugin, now)
        link.close(f"device plugin {plugin} failed")

    def limited(self, limit: str, link: Link | None) -> None:
        """A connection or datagram was turned away by a limit."""
        self.counters["received"] += 1
        self._limit(limit)
        if link is not None:
            self.notice(limit, link)

    def notice(self, limit: str, link: Link, ident: str = "", protocol: str = "") -> None:
        """Say that something met a limit: once a minute of a device, or else of an address."""
        now = self._clock.seconds()
        name = ident or link.peer.rpartition(":")[0]
        times = self._notices.news(limit, name, now)
        if times:
            attributes = {"limit": limit, "reason": f"limit {limit}", "times": times}
            attributes |= {"peer": link.peer, "transport": link.transport_name}
            self._notice("device.rejected", ident, protocol, attributes, now)

    def _notice(self, kind: str, ident: str, protocol: str, attributes: dict[str, Any], now: float) -> None:
        ticket = Ticket(Message(b"", ident), None, protocol, now, None, NO_FRAME)
        digest = event_digest(ident, protocol, str(attributes).encode(), kind, 0, rfc3339(now))
        ticket.records = self._rendered(ticket, [Envelope(digest, kind, now, None, attributes)])
        self._queue.append(ticket)
        self._arm()

    def _limit(self, limit: str) -> None:
        self.counters["limited"] += 1
        self.counters[f"limited_{limit}"] += 1
        self._limited += 1

    def drop(self) -> None:
        """A datagram was not taken in for want of room."""
        self.counters["received"] += 1
        self.counters["dropped"] += 1
        self._dropped += 1

    def live(self, ident: str) -> bool:
        """Whether a device is here."""
        return self._sessions.get(ident) is not None

    def register(self, ident: str, registry: Mapping[str, str]) -> None:
        """The registry's entry of an ident changed; it holds from its next frame on."""
        session = self._sessions.get(ident)
        if session is not None and session.loaded:
            was = session.barred
            session.register(registry)
            session.refreshed = 0.0  # how long its state is kept depends on it
            self._admission(session, was, self._clock.seconds())

    def change(self, bounds: Bounds, mode: Mode) -> None:
        """The configuration has changed: what may wait, and which devices are let in."""
        self._bounds = bounds
        if mode == self._sessions.mode:
            return
        self._sessions.mode = mode
        now = self._clock.seconds()
        for session in list(self._sessions):
            was, session.mode = session.barred, mode
            if session.loaded:
                session.register(session.memory.registry)
                self._admission(session, was, now)

    def _admission(self, session: Session, was: str, now: float) -> None:
        """The registry has changed, or is known by now: a device may not be let in any more, or may again."""
        if session.barred and not was:
            self._link_event(
                session, "device.disconnected", {"reason": session.barred, "since": rfc3339(session.seen)}, now
            )
            if session.link is not None and not session.quarantined:
                session.link.close(session.barred)
        elif was and not session.barred:
            self._link_event(session, "device.connected", {}, now)
        self._arm()

    def trace(self, idents: Mapping[str, float]) -> None:
        """Show the frames of these idents, and what they are sent, until then (UTC epoch seconds); of nobody else."""
        self._traced = idents

    def told(self, session: Session, link: Link, data: bytes, secret: bool) -> None:
        """A device was told something."""
        now = self._clock.seconds()
        if self._traced.get(session.ident, 0.0) > now:
            if secret:
                self._hushed = {ident: end for ident, end in self._hushed.items() if end > now}
                self._hushed[session.ident] = now + HUSH_S
            self._show("frame.raw.down", session.ident, link, session.protocol, data, now, secret=secret)

    def doubt(self) -> None:
        """Redis lost what it was told: each device's state goes there whole with its next report."""
        for session in self._sessions:
            session.refreshed = 0.0

    def lost(self, idents: Sequence[str]) -> None:
        """
        Another instance holds these idents now: the session of each begins anew, with its next frame.

        Or at once, where the device has just been heard and its link is there: it came back, and commands that are
        for it are not to wait for its next report.  One that began while nobody could be asked has not taken its
        ident yet, and will.
        """
        now = self._clock.seconds()
        for ident in idents:
            session = self._sessions.get(ident)
            if session is None or not session.loaded or session.unknown or session.asking:
                continue
            self._sessions.drop(ident)
            if session.queued:
                continue  # what is read now would not hold what they led to, and that would be said twice
            link = session.link
            # what it had said before may have come only now
            if link is not None and 0.0 <= now - session.newest_received < HERE_S and link.ready_in() is not None:
                again = self._sessions.begin(ident, now)
                again.link = link
                again.meet(session.peer, session.transport, session.protocol, session.seen)
                self._begin.append(again)
                self._arm()

    def expired(self, frames: int) -> None:
        """Frames that were acknowledged waited for Redis for too long: the ledger says that they were dropped."""
        self._dropped += frames

    def stall(self, stalled: bool) -> None:
        """Nothing can be stored, not even on the disk: read no more; or go on."""
        self._stalled = stalled
        if stalled and not self.full:
            self._pause()
        elif not stalled:
            self._settled(0)

    def restore(self) -> Deferred[bool]:
        """Read what is kept of the devices whose sessions began without; fires with whether there were any."""
        return Deferred.fromCoroutine(self._restore())

    async def _restore(self) -> bool:
        unknown, self._unknown = self._unknown, {}
        sessions = [session for session in unknown.values() if self._sessions.get(session.ident) is session]
        for at in range(0, len(sessions), BATCH_EVENTS):
            some = sessions[at : at + BATCH_EVENTS]
            stored = await self._sink.read([session.ident for session in some])
            now = self._clock.seconds()
            for session, kept in zip(some, stored, strict=True):
                if self._sessions.get(session.ident) is session:
                    self._adopt(session, kept, now)
        self._arm()
        return bool(sessions)

    def _adopt(self, session: Session, kept: Stored, now: float) -> None:
        """What is kept of a device is known again: the difference is published."""
        was = session.barred
        difference = self._sessions.adopt(session, kept, now)
        if difference is None:
            self._unreadable(session)
        if session.barred:
            self._admission(session, was, now)
            return
        if not kept.held:
            self._link_event(session, "device.connected", {"since": rfc3339(session.first)}, now)
        for envelope in difference or ():
            self._own(session, envelope, now)
        self.on_begin(session, kept.commands)

    def _unreadable(self, session: Session) -> None:
        self.counters["faults"] += 1
        self.log.error("the stored state of {ident} can't be read: going on without", ident=session.ident)

    def tick(self, now: float) -> None:
        """Once a second: hold-offs, sessions at their end, and answers for those that can't wait any longer."""
        if not 0.0 <= now - self._ticked < STOOD_STILL_S:
            self._stood_still(now)
        self._ticked = now
        for session, envelope in self._sessions.cleared(now):
            self._own(session, envelope, now)
        if not 0.0 <= now - self._looked < LOOK_S:  # a clock may be set back
            self._looked = now
            for session in self._sessions.expired(now):
                attributes: dict[str, Any] = {"reason": "silent", "since": rfc3339(session.seen)}
                if not session.barred:
                    self._link_event(session, "device.disconnected", attributes, now)
                if self._unknown.get(session.ident) is session:
                    del self._unknown[session.ident]
        while self._oldest and now - self._oldest[0][0] >= self._bounds.unavailable_s:
            _, ticket = self._oldest.popleft()
            if ticket.out is None and ticket.link is not None:
                ticket.out = ticket.message.unavailable
                ticket.link.flush()
        if self._queue or self._limited or self._dropped:
            self._arm()

    def drained(self, then: Callable[[], None]) -> None:
        """Call back once nothing waits any more."""
        self._idle.append(then)
        self._arm()

    # -- from messages to records

    def _stranger(self, ident: str, ticket: Ticket) -> Session | None:
        """Begin the session of an ident that is not live here."""
        if not IDENT.fullmatch(ident):
            self._undecodable(ticket, DecodeError(f"ident {ident[:64]!r} can't be a key", ticket.message.raw))
            return None
        session = self._sessions.begin(ident, ticket.received)
        self._begin.append(session)
        return session

    def _judge(self, session: Session, ticket: Ticket) -> None:
        link, before = ticket.link, session.link
        if link is not None:
            session.meet(link.peer, link.transport_name, ticket.protocol, ticket.received)
            session.link = link
        if session.barred:
            self._turn_away(session, ticket)
            return
        ticket.session = session
        try:
            sessions, protocol, now = self._sessions, ticket.protocol, ticket.received
            ticket.message = sessions.learn(session, ticket.message, protocol, now)
            envelopes = sessions.judge(session, ticket.message, protocol, now)
            if session.unknown:
                for envelope in envelopes:
                    envelope.attributes["state"] = "unknown"
            ticket.records = self._rendered(ticket, envelopes)
        except Exception as error:  # foreign values
            self._senseless(session, ticket, error)
            return
        if session.contested and link is not None and not speaks_for(session, link, before):
            session.link = before
        session.queued += 1
        self._queue.append(ticket)
        if session.line is not None:
            session.line.judged(ticket.message, envelopes, ticket.received)

    def _turn_away(self, session: Session, ticket: Ticket) -> None:
        """A frame of a device that is not let in; once in a while it is said that it is there."""
        ticket.outcome, ticket.session = UNAUTHORISED, None
        kind, ident = "device.rejected" if session.registered else "device.unknown", session.ident
        self._dead(ticket, "frame.unauthorised", ident, session.barred)
        if self._strangers.news(kind, ident, ticket.received):
            notice = Ticket(ticket.message, None, ticket.protocol, ticket.received, outcome=NO_FRAME)
            self._bury(notice, kind, ident, self._looks(ticket, session.barred))

    def _senseless(self, session: Session, ticket: Ticket, error: Exception) -> None:
        """What a plugin put into its message makes no sense: nothing of it is published."""
        ticket.session = None
        session.shown, session.same, session.alike = b"", None, None
        why = f"device plugin {ticket.protocol}: {type(error).__name__}: {error}"
        self._undecodable(ticket, DecodeError(why[:300], ticket.message.raw))

    def _rendered(self, ticket: Ticket, envelopes: Sequence[Envelope]) -> list[bytes]:
        outcome = NO_FRAME if ticket.outcome == REFUSED else ticket.outcome
        session, message, link, protocol, received = (
            *(ticket.session, ticket.message, ticket.link, ticket.protocol, ticket.received),
        )
        return [
            render(envelope, message, session, link, protocol, received, outcome, first=number == 0)
            for number, envelope in enumerate(envelopes)
        ]

    def _undecodable(self, ticket: Ticket, error: DecodeError) -> None:
        ident = ticket.message.ident or ""
        ticket.outcome = UNDECODABLE
        self._dead(ticket, "frame.undecodable", ident if IDENT.fullmatch(ident) else "", error.reason)

    def _dead(self, ticket: Ticket, kind: str, ident: str, reason: str) -> None:
        """Queue a frame for the dead stream, with the reason and what it looked like."""
        self._bury(ticket, kind, ident, self._looks(ticket, reason))

    def _looks(self, ticket: Ticket, reason: str) -> dict[str, Any]:
        raw = ticket.message.raw
        # what a plugin says may hold anything, lone surrogates too
        reason = reason.encode("utf-8", "backslashreplace").decode()
        attributes = {"reason": reason, "frame": raw[:DEAD_BYTES].hex(), "frame_bytes": len(raw)}
        if ticket.link is not None:
            attributes["peer"] = ticket.link.peer
            attributes["transport"] = ticket.link.transport_name
        return attributes

    def _bury(self, ticket: Ticket, kind: str, ident: str, attributes: dict[str, Any]) -> None:
        received = ticket.received
        digest = event_digest(ident, ticket.protocol, ticket.message.raw, kind, 0, rfc3339(received))
        ticket.message = ticket.message._replace(ident=ident)
        ticket.records = self._rendered(ticket, [Envelope(digest, kind, received, None, attributes)])
        self._queue.append(ticket)

    def _own(self, session: Session, envelope: Envelope, now: float) -> None:
        """Queue an event of the gateway's own about a device."""
        ticket = Ticket(Message(b"", session.ident), None, session.protocol, now, session, NO_FRAME)
        try:
            ticket.records = self._rendered(ticket, [envelope])
        except Exception as error:  # what a plugin calls a level, or kept of it
            self.counters["plugin_errors"] += 1
            self.log.error(
                "{type} of {ident} makes no sense: {error}", type=envelope.type, ident=session.ident, error=error
            )
            return
        session.queued += 1
        self._queue.append(ticket)

    def _link_event(self, session: Session, kind: str, attributes: dict[str, Any], now: float) -> None:
        attributes |= {"peer": session.peer, "transport": session.transport}
        digest = event_digest(session.ident, session.protocol, b"", kind, 0, rfc3339(now))
        self._own(session, Envelope(digest, kind, now, None, attributes), now)

    # -- sessions

    def _elsewhere(self, session: Session, link: Link, now: float) -> bool:
        """
        Whether a device may have been at another instance since it was heard here.

        Then that is asked before its next frame is judged by what is known here: what another one said of it would be
        said again.  On one connection it was not.
        """
        if not session.asking:
            same = link.peer == session.peer and link.transport_name == session.transport
            least, most = ELSEWHERE_S
            missed_s = min(max(1.5 * session.interval_s, least), most)
            if session.unknown or (session.link is not None and same and now - session.seen < missed_s):
                return False
            session.asking = True
            self._begin.append(session)
        return True

    def _stood_still(self, now: float) -> None:
        """
        This process was stopped, or the clock was set: all devices may be elsewhere by now.

        What they say next may have come long ago, and does not show that they are here.
        """
        self._ticked = now
        if len(self._sessions):
            self.counters["stood_still"] += 1
        for session in self._sessions:
            if session.loaded and not session.asking:
                session.link = None

    def _begin_sessions(self) -> None:
        if self._beginning or not self._begin:
            return
        take = _takes(self._begin[0])
        sessions = list(takewhile(lambda session: _takes(session) == take, self._begin[:BATCH_EVENTS]))
        del self._begin[: len(sessions)]
        self._beginning = True
        d = self._sink.begin([session.ident for session in sessions], take)
        d.addCallback(self._began, sessions)
        d.addErrback(self._bug, "a session's begin")

    def _began(self, stored: Sequence[Stored], sessions: Sequence[Session]) -> None:
        self._beginning = False
        now = self._clock.seconds()
        for session, kept in zip(sessions, stored, strict=True):
            waiting, session.waiting = session.waiting, []
            if session.asking:
                session = self._asked(session, kept, now)
                if session.loaded:
                    for ticket in waiting:
                        self._judge(session, ticket)
                    continue
            elif not kept.known and not self._let_in(waiting):
                self._sessions.drop(session.ident)
                continue
            if not self._sessions.load(session, kept, now):
                self._unreadable(session)
            if kept.unknown:
                self._unknown[session.ident] = session
                self.counters["begun_unknown"] += 1
            if waiting and waiting[0].link is not None:
                link = waiting[0].link
                session.meet(link.peer, link.transport_name, waiting[0].protocol, waiting[0].received)
            if not (kept.held or kept.unknown or session.barred):
                self._link_event(session, "device.connected", {}, now)
            self.on_begin(session, kept.commands)
            for ticket in waiting:
                self._judge(session, ticket)
        self._arm()

    def _asked(self, session: Session, kept: Stored, now: float) -> Session:
        """The session of a device of which it was asked who has held it: the one that was here, or one to be loaded."""
        session.asking = False
        if kept.mine or kept.unknown or not kept.known:
            return session
        # what is known of it here is out of date
        self.counters["came_back"] += 1
        self._sessions.drop(session.ident)
        return self._sessions.begin(session.ident, now)

    def _let_in(self, waiting: Sequence[Ticket]) -> bool:
        """Whether one more new ident may come from there; its frames are turned away otherwise."""
        now = self._clock.seconds()
        if not 0.0 <= now - self._hour < HOUR_S:
            self._hour = now
            self._new.clear()
        link = waiting[0].link if waiting else None
        address = link.peer.rpartition(":")[0] if link is not None else ""
        # "" counts them all
        if self._new[""] >= self._bounds.new_idents:
            limit = "new_idents"
        elif self._new[address] >= self._bounds.new_idents_per_address:
            limit = "new_idents_per_address"
        else:
            self._new[""] += 1
            self._new[address] += 1
            return True
        if link is not None:
            ident = waiting[0].message.ident or ""
            self.notice(limit, link, ident if IDENT.fullmatch(ident) else "", waiting[0].protocol)
        for ticket in waiting:
            self._limit(limit)
            ticket.out = ticket.message.refusal
            self._pending -= 1
            self._settled(len(ticket.message.raw))
        for where in {ticket.link for ticket in waiting if ticket.link is not None}:
            where.flush()
        return False

    # -- batches

    def _arm(self) -> None:
        """Flush at the end of this reactor turn."""
        if not self._armed:
            self._armed = True
            self._clock.callLater(0, self._flush)

    def _flush(self) -> None:
        self._armed = False
        self._begin_sessions()
        if self._busy:
            return
        if not (self._queue or self._limited or self._dropped):
            self._rest()
            return
        batch = self._gather()
        self._busy = True
        self._gathered_at = batch.now
        self.sizes.add(batch.frames)
        d = self._sink.store(batch)
        d.addCallback(self._stored)
        d.addErrback(self._bug, "a batch")

    def _gather(self) -> Batch:
        """The next batch: what waits, an ident's frames together."""
        queue = self._queue
        tickets = self._in_flight = []
        events = frames = 0
        while queue and events < BATCH_EVENTS:
            ticket = queue.popleft()
            if ticket.session is not None:
                ticket.session.queued -= 1
            tickets.append(ticket)
            events += len(ticket.records)
            frames += _counts(ticket)
        now = self._clock.seconds()
        gathered = gather(tickets, now)
        self._order = gathered.order
        for fault in gathered.faults:
            self.counters["plugin_errors"] += 1
            self.log.error("{fault}", fault=fault[:300])
        limited, self._limited = self._limited, 0
        dropped, self._dropped = self._dropped, 0
        self.under_way = frames + limited + dropped
        self.handed += self.under_way
        return Batch(gathered.groups, limited, dropped, now, self.under_way)

    def _stored(self, answer: Answer) -> None:
        """A batch was stored: settle its frames and answer their senders."""
        tickets, order = self._in_flight, self._order
        self._in_flight, self._order = [], []
        self._busy, self.under_way = False, 0
        odd = outcomes(answer, order) if answer.codes else {}
        now = self._clock.seconds()
        tally = dict.fromkeys(OUTCOMES, 0)
        links: dict[Link, None] = {}
        traced, waits, received = self._traced, self.waits, -1.0
        waited, alike = 0.0, 0
        self.stores.add(max(now - self._gathered_at, 0.0))
        unwanted: list[Link] = []
        settled = size = 0
        for ticket in tickets:
            message, link, outcome = ticket.message, ticket.link, ticket.outcome
            counted = outcome if ticket.records or outcome == NO_FRAME else REFUSED
            if odd and ticket in odd:
                found = self._odd(ticket, *odd[ticket])
                if found is None:
                    continue
                counted = found
            if counted != NO_FRAME:
                tally[counted] += 1
            if link is None:
                continue  # the gateway's own: it was never received
            if ticket.out is None:
                ticket.out = self._reply(ticket, message, now) if outcome != UNAUTHORISED else message.refusal
            if outcome == UNAUTHORISED and self._unwanted(message.ident):
                unwanted.append(link)
            if ticket.received != received:  # many of a batch came with one read
                waits.add(waited, alike)
                received, waited, alike = ticket.received, max(now - ticket.received, 0.0), 0
            alike += 1
            settled += 1
            size += len(message.raw)
            links[link] = None
            if traced and message.ident in traced:
                self._trace(ticket, link, counted, now)
        waits.add(waited, alike)
        self._sessions.answering = None
        self._pending -= settled
        for outcome, count in tally.items():
            if count:
                self.counters[OUTCOMES[outcome]] += count
        self._settled(size)
        for link in links:
            link.flush()
        for link in unwanted:
            link.close("its device is not let in")
        self.lost(answer.lost)
        if self._queue or self._limited or self._dropped or self._idle:
            self._arm()

    def _trace(self, ticket: Ticket, link: Link, outcome: str, now: float) -> None:
        """Show a frame of a device, what became of it, and what it is answered."""
        message, ident = ticket.message, ticket.message.ident
        if ident is None or self._traced[ident] <= now or not IDENT.fullmatch(ident):
            return
        secret = message.answer is not None and self._hushed.get(ident, 0.0) > now
        said = {"outcome": OUTCOMES[outcome]} if outcome in OUTCOMES else {}
        self._show("frame.raw.up", ident, link, ticket.protocol, message.raw, ticket.received, said, secret)
        if ticket.out:
            self._show("frame.raw.down", ident, link, ticket.protocol, ticket.out, now)

    def _show(
        self,
        kind: str,
        ident: str,
        link: Link,
        protocol: str,
        data: bytes,
        at: float,
        said: Mapping[str, Any] = {},
        secret: bool = False,
    ) -> None:
        """Queue bytes for the stream of what is traced."""
        shown = {"reason": "what is secret is not shown"} if secret else {"frame": data[:RAW_BYTES].hex()}
        attributes = {**shown, "frame_bytes": len(data), "peer": link.peer, "transport": link.transport_name, **said}
        self._notice(kind, ident, protocol, attributes, at)

    def _unwanted(self, ident: str | None) -> bool:
        """Whether a device that was turned away has to go: it may stay in quarantine, and it may be let in by now."""
        session = self._sessions.get(ident) if ident is not None else None
        return session is None or bool(session.barred and not session.quarantined)

    def _odd(self, ticket: Ticket, code: str, refusals: Sequence[tuple[bytes, str]]) -> str | None:
        """The outcome of a frame that was not simply published; None when it has to wait for the dead stream now."""
        if code == "r" and self._refused(ticket, refusals):
            return None
        if code != "p" and ticket.session is not None:
            ticket.session.shown = b""  # its columns were not written
            if code == "d":
                self._found_anyway(ticket.session, ticket)
        if code != "p" and ticket.outcome not in (NO_FRAME, REFUSED) and (ticket.outcome == PUBLISHED or code == "r"):
            return code
        return ticket.outcome

    def _reply(self, ticket: Ticket, message: Message, now: float) -> bytes:
        reply, session = message.reply, ticket.session
        if reply is None:
            return b""
        if session is not None:
            session.answered = ticket.received
        self._sessions.answering = session
        try:
            said: object = reply(now)
            if not isinstance(said, bytes):
                raise TypeError(f"a reply is bytes, not {type(said).__name__}")
            return said
        except Exception:  # foreign code: a device plugin
            self.counters["plugin_errors"] += 1
            self.log.failure("the answer to {frame} failed", frame=message.raw[:64].hex())
            return b""

    def _found_anyway(self, session: Session, ticket: Ticket) -> None:
        """What was found out of a unit with a report that the store had already: it goes there by itself."""
        raw, now = ticket.message.raw, ticket.received
        for index, event in enumerate(ticket.message.events):
            if index and event.type.startswith("device."):
                digest = event_digest(session.ident, ticket.protocol, raw, event.type, index, rfc3339(now))
                self._own(session, Envelope(digest, event.type, now, None, event.attributes), now)

    def _refused(self, ticket: Ticket, refusals: Sequence[tuple[bytes, str]]) -> bool:
        """
        Redis refuses events of a frame for good: they go to the dead stream, and the frame waits for that.

        When that fails too, or the event was none of a device's, they go to the journal's quarantine.
        """
        raw, ident = ticket.message.raw, ticket.message.ident or ""
        if ticket.session is None:
            # what was to be published, if that was refused first: it is to be published when it is tried again
            alone = ticket.refused or _alone(ident, "", b"", refusals)
            ticket.records = ()  # it is answered with the batch after that
            kept = self._sink.quarantine(alone, f"the dead stream: {refusals[0][1]}")
            kept.addCallback(lambda _: self._queue.append(ticket)).addCallback(lambda _: self._arm())
            return True
        ticket.refused = _alone(ticket.session.ident, ticket.session.device_id, b"s", refusals)
        buried: list[Envelope] = []
        received = rfc3339(ticket.received)
        ident = ticket.session.ident
        for index, (record, reason) in enumerate(refusals):
            kind, time, id = described(record)
            event = {"id": id, "type": kind, "time": time}
            attributes = {"reason": reason, "frame": raw[:DEAD_BYTES].hex(), "frame_bytes": len(raw), "refused": event}
            digest = event_digest(ident, ticket.protocol, raw, "frame.refused", index, received)
            buried.append(Envelope(digest, "frame.refused", ticket.received, None, attributes))
            if reason not in self._complained and len(self._complained) < MAX_COMPLAINTS:
                self._complained.add(reason)
                self.log.error("Redis refuses {type}: {reason}; see the dead stream", type=kind, reason=reason)
        ticket.message = ticket.message._replace(ident=ident)
        ticket.session.shown = b""  # the last state was not written as far as we know
        ticket.session = None
        if ticket.outcome != NO_FRAME:
            ticket.outcome = REFUSED
        ticket.records = self._rendered(ticket, buried)
        self._queue.append(ticket)
        return True

    def _settled(self, size: int) -> None:
        """Frames of so many bytes have their outcome: read again when there is room."""
        self._pending_bytes -= size
        bounds = self._bounds
        if not self.full or self._stalled:
            return
        if self._pending * 2 <= bounds.pending and self._pending_bytes * 2 <= bounds.pending_bytes:
            self.full = False
            self.log.info("reading again: {pending} frames wait", pending=self._pending)
            self._clock.callLater(0, self.on_room)

    def _weigh(self) -> None:
        """Pause reading when as much waits as may."""
        bounds = self._bounds
        if not self.full and (self._pending >= bounds.pending or self._pending_bytes >= bounds.pending_bytes):
            self._pause()

    def _pause(self) -> None:
        self.full = True
        self.counters["paused"] += 1
        self.log.warn("reading is paused: {pending} frames wait to be stored", pending=self._pending)
        self.on_full()

    def _rest(self) -> None:
        if self._pending == 0 and self._idle:
            idle, self._idle = self._idle, []
            for then in idle:
                then()

    def _bug(self, failure: Failure, what: str) -> None:
        self.log.failure("{what} ended in an error of the gateway's own", failure, what=what)


def _takes(session: Session) -> bool:
    """Whether a session that begins, or is asked for, is taken from whoever holds it."""
    return session.link is not None or not session.asking


def _alone(ident: str, device_id: str, flags: bytes, refusals: Sequence[tuple[bytes, str]]) -> bytes:
    """Records that Redis refuses, as a group of their ident."""
    records = b"".join(record for record, _ in refusals)
    return Group(ident.encode(), device_id.encode(), flags, b"0", b"", b"%d" % len(refusals), records).packed()
