"""
The live devices, by ident.

A session is a device's, not a socket's: it outlives its connection for a while
and goes on wherever the device turns up next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from gateway import identity, judging
from gateway.edges import ended, overdue
from gateway.events import event_digest
from gateway.fields import rfc3339
from gateway.identity import Mode
from gateway.interfaces import Kept, Message
from gateway.registry import Plugin
from gateway.session import Envelope, Session, Stored


class Sessions:
    """All live devices, by ident."""

    def __init__(
        self, *, lag_s: float = 120.0, ttl_s: float = 900.0, devices: Iterable[Plugin] = (), mode: Mode = "open"
    ) -> None:
        """
        @param lag_s: a report whose time is older than this is late.
        @param ttl_s: how long a session outlives the device's last frame.
        @param devices: those whose units differ are asked what a message means of the unit.
        @param mode: which idents are let in.
        """
        self.mode = mode
        #: whose frame is being answered: it may have been dropped since
        self.answering: Session | None = None
        self._learning = {plugin.name: plugin for plugin in devices if plugin.learns}
        self.lag_s = lag_s
        self._ttl_s = ttl_s
        self._live: dict[str, Session] = {}
        #: the live session of an ident, None: it has none
        self.get: Callable[[str], Session | None] = self._live.get
        #: idents with an alarm in its hold-off
        self._holding: set[str] = set()

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._live.values())

    def begin(self, ident: str, now: float) -> Session:
        """A session whose state is still to be read."""
        session = self._live[ident] = Session(ident, now, self.mode)
        return session

    def load(self, session: Session, stored: Stored, now: float) -> bool:
        """
        Take over what is kept of a device whose session begins; its frames may be judged from now on.

        @return: whether all of it could be read.
        """
        readable = session.load(stored, now)
        if session.holding:
            self._holding.add(session.ident)
        return readable

    def adopt(self, session: Session, stored: Stored, now: float) -> list[Envelope] | None:
        """
        Take over what is kept of a device whose session began while nobody could be asked.

        @return: the difference, to be published; None when what is kept can't be read.
        """
        session.catch_up()
        gone = session.adopt(stored)
        if session.holding:
            self._holding.add(session.ident)
        return None if gone is None else ended(session, gone, now)

    def drop(self, ident: str) -> None:
        """Forget a session: another instance holds it, or it never was one."""
        session = self._live.pop(ident, None)
        self._holding.discard(ident)
        if session is not None and session.line is not None:
            session.line.leave()

    def memory(self, ident: str) -> Kept:
        """What a decoder may keep with an ident; a throw-away dict until the ident's state was read."""
        session = self.answering
        if session is None or session.ident != ident:
            session = self._live.get(ident)
            if session is None or not session.loaded:
                return Kept()
        return session.memory

    def expired(self, now: float) -> list[Session]:
        """End and return the sessions that were not heard of for their time to live."""
        gone = [s for s in self._live.values() if s.loaded and not s.asking and now - s.seen >= self._ttl_s]
        for session in gone:
            self.drop(session.ident)
        return gone

    def learn(self, session: Session, message: Message, protocol: str, now: float) -> Message:
        """What a message means of this very device."""
        plugin = self._learning.get(protocol)
        if plugin is None:
            return message
        session.memory.again = judging.came_before(session, message, protocol)
        learned = plugin.learn(message, session.memory, now)
        if learned is not message:  # what comes next may come out in another way, or is to be seen
            session.same = session.alike = None
        return learned

    def judge(self, session: Session, message: Message, protocol: str, now: float) -> list[Envelope]:
        """What a message of a device leads to: see L{judging.judge}."""
        envelopes = judging.judge(session, message, protocol, now, self.lag_s)
        if session.holding:
            self._holding.add(session.ident)
        if session.was is not None or session.senders is not None:
            said = identity.look(session, envelopes[0], now)
            if said is not None:
                kind = "device.identity.conflict"
                digest = event_digest(session.ident, protocol, message.raw, kind, 0, rfc3339(now))
                if session.contested and session.senders is not None:
                    session.senders.raised_id = digest.hex()
                envelopes.append(Envelope(digest, kind, now, None, said))
        return envelopes

    def cleared(self, now: float) -> list[tuple[Session, Envelope]]:
        """The alarms whose hold-off ended without a further report."""
        due: list[tuple[Session, Envelope]] = []
        for ident in list(self._holding):
            session = self._live[ident]
            if session.asking:
                continue  # another instance may have said so
            due += [(session, envelope) for envelope in overdue(session, now)]
            if not session.holding:
                self._holding.discard(ident)
        return due
