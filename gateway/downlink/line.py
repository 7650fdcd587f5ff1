"""
The commands of one device that is live here: one is told at a time, and followed to its outcome.

Whatever happens is taken in order, a step at a time; each step is stored
before anything follows from it.  What another instance, or this one before it
was killed, has begun is gone on with from what is stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.downlink.guard import Hurdle, Track
from gateway.downlink.hearing import Hearing
from gateway.downlink.outcome import Report, overdue
from gateway.downlink.pending import GRACE_S, QUEUED, RETRY_S, SENDING, UNDER_WAY, Pending
from gateway.downlink.sightings import Sightings
from gateway.downlink.telling import Telling
from gateway.errors import NotReady
from gateway.interfaces import CommandAnswer, Message
from gateway.judging import Steady
from gateway.session import Envelope, Session

if TYPE_CHECKING:
    from gateway.downlink.dispatch import Dispatcher

#: So much of what a device says waits at most, while Redis is away say.
INBOX: Final = 64


class Line:
    """
    What is on its way to one device.

    @ivar open: the commands that have no outcome, in the order in which they were given.
    @ivar over: it is not the device's any more.
    """

    log = Logger()

    __slots__ = (
        "_again",
        "_busy",
        "_call",
        "_fresh",
        "_hearing",
        "_inbox",
        "_sightings",
        "_telling",
        "dispatcher",
        "open",
        "over",
        "session",
    )

    def __init__(self, session: Session, dispatcher: Dispatcher, track: Track | None) -> None:
        self.session = session
        self.dispatcher = dispatcher
        self._sightings = Sightings(session, dispatcher.clock.seconds, dispatcher.elapsed, track)
        self.over = False
        self.open: list[Pending] = []
        #: whether what is open here is what is stored
        self._fresh = True
        self._busy = self._again = False
        self._inbox: deque[tuple[CommandAnswer, bytes, float, float] | Report] = deque()
        self._call: Any = None
        self._telling = Telling(self)
        self._hearing = Hearing(self, self._telling)

    @property
    def track(self) -> Track | None:
        """Its live reports, where it has a relay that commands may cut."""
        return self._sightings.track

    def watch(self, track: Track) -> None:
        """Commands may cut its relay from now on: what its reports say of its speed counts."""
        if self._sightings.track is None:
            self._sightings.track = track

    # -- what happens to the device

    def look(self) -> None:
        """There may be something new in Redis for the device."""
        self._fresh = False
        self.poke()

    def leave(self) -> None:
        """The device is not here any more: what is on its way is somebody else's, but for what has come already."""
        self.over = True
        self._cancel()

    def steady(self, message: Message, report: Steady, received: float) -> None:
        """A live report that says what the one before it said, but for where and when."""
        live = self._sightings.steady(message, report, received)
        if self.open or self._busy or not self._fresh:
            self._report(live)
            self.poke()

    def judged(self, message: Message, envelopes: list[Envelope], received: float) -> None:
        """Any other frame, as it was judged."""
        live = self._sightings.judged(message, envelopes[0], received) if envelopes else None
        if live is not None:
            self._report(live)
        if message.answer is not None and (self._busy or self.open or not self._fresh):
            self._put((message.answer, message.raw, received, self._sightings.at(received)))
        if self.open or not self._fresh:
            self.poke()

    def _report(self, report: Report) -> None:
        if self._busy or not self._fresh or any(pending.state in UNDER_WAY for pending in self.open):
            self._put(report)

    def _put(self, what: tuple[CommandAnswer, bytes, float, float] | Report) -> None:
        """Keep it for later; what is too much goes: a report before an answer, and not the first, which is read."""
        inbox = self._inbox
        if len(inbox) >= INBOX:
            old = next((n for n, one in enumerate(inbox) if n and isinstance(one, Report)), None)
            if old is None:
                return
            del inbox[old]
        inbox.append(what)

    # -- one thing after the other

    def poke(self) -> None:
        """See what can be done."""
        self._cancel()
        if self._busy:
            self._again = True
            return
        self._busy = True
        d = Deferred.fromCoroutine(self._work())
        d.addErrback(self._bug)

    def _bug(self, failure: Failure) -> None:
        self._busy, self._fresh = False, False
        if self._inbox:
            self._inbox.popleft()
        self.wake(GRACE_S)
        self.log.failure("a command of {ident} ended in an error of our own", failure, ident=self.session.ident)
        self.dispatcher.counters["command_errors"] += 1

    async def _work(self) -> None:
        try:
            while True:
                self._again = False
                await self._round()
                if not (self._again or self._inbox):
                    break
        except NotReady:
            self._fresh = False  # what became of the step is not known
            self.wake(RETRY_S)
        self._busy = False
        if self._again:
            self.poke()
        elif not self.open and self._fresh and self.track is None and self.session.line is self:
            self.session.line = None  # nothing is on its way

    def wake(self, seconds: float) -> None:
        """See again after so long what can be done, if nothing happens before."""
        self._cancel()
        if not self.over:
            self._call = self.dispatcher.clock.callLater(max(seconds, 0.0), self._woken)

    def _woken(self) -> None:
        self._call = None
        self.poke()

    def _cancel(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    async def _round(self) -> None:
        if not self._fresh and not self.over:
            await self._load()
        while self._inbox:
            what = self._inbox[0]
            if isinstance(what, Report):
                await self._hearing.shown(what)
            else:
                await self._hearing.answered(*what)
            self._inbox.popleft()  # not before that is stored
            if not self._fresh and not self.over:
                await self._load()
        if self.over:
            return
        for pending in [one for one in self.open if one.state == QUEUED and one.expires <= self.dispatcher.elapsed()]:
            await self.end(pending, *overdue(pending))
        under_way = next((pending for pending in self.open if pending.state in UNDER_WAY), None)
        if under_way is not None:
            await self._hearing.wait_for(under_way)
        if under_way is None or under_way.state == QUEUED:
            await self._telling.tell_one()

    async def _load(self) -> None:
        """What is stored, with what only we know of it."""
        known = {pending.ref: pending for pending in (self._telling.once, *self.open) if pending is not None}
        self._fresh = True
        try:
            loaded = await self.dispatcher.store.load(self.session.ident)
        except NotReady:
            self._fresh = False
            raise
        for pending in loaded:
            mine = known.get(pending.ref)
            if mine is None or not mine.attempt:
                continue
            if mine.attempt == pending.attempt and pending.over == "sms":
                pending.written = mine.written
                continue  # what became of it others know
            if mine.attempt != pending.attempt:
                if mine.written and pending.step < mine.step:
                    await self._restate(pending, mine)
                continue
            pending.written, pending.link, pending.age_s = mine.written, mine.link, mine.age_s
            pending.contrary = mine.contrary
            if mine.written:
                pending.sent, pending.sent_at = mine.sent, mine.sent_at
            elif pending.state == SENDING:  # stored, but Redis did not come to say so: then nothing was sent
                pending.attempts, pending.tries = pending.attempts - 1, pending.tries - 1
                await self.requeue(pending, "not sent: Redis was away")
        self.open = loaded

    async def _restate(self, pending: Pending, mine: Pending) -> None:
        """Redis lost its newest writes, and that the device was told with them: say again that it was."""
        pending.recall(mine)
        about = {"channel": pending.over, "attempt": pending.attempts}
        look_s = self.left_s(pending) + GRACE_S
        await self.step(pending, SENDING, about, fields=pending.told(), look_s=look_s)

    def again(self) -> None:
        """Something has changed: see once more what can be done."""
        self._again = True

    def stale(self) -> None:
        """What is open here is not what is stored any more: it is read again."""
        self._fresh, self._again = False, True

    async def step(self, pending: Pending, kind: str, extra: Mapping[str, Any] | None = None, **more: Any) -> bool:
        """Take a step; False when somebody else has taken one: then what is stored is read again."""
        stepped = await self.dispatcher.store.step(pending, kind, extra, **more)
        self._again = True  # see what follows from that
        if stepped.status == "ok":
            if more.get("final"):
                self.open = [other for other in self.open if other is not pending]
                if pending.link is not None:
                    pending.link.answered()
            return True
        self._fresh = False
        if stepped.status == "held":
            self.dispatcher.lost(self.session)
        return False

    async def requeue(self, pending: Pending, reason: str) -> None:
        """A command waits again, to be told once more."""
        await self.step(pending, QUEUED, {"reason": reason}, fields=pending.told(), look_s=GRACE_S)

    async def end(self, pending: Pending, kind: str, reason: str = "", **more: Any) -> None:
        """The last step of a command."""
        await self.step(pending, kind, {**more, **({"reason": reason} if reason else {})}, final=True)

    # -- what is known of it

    def hurdle(self, pending: Pending) -> Hurdle | None:
        """Why the guard of a command is not met; None: it is, or it has none."""
        if not pending.definition.guarded:
            return None
        track = self.track
        if track is None:
            return Hurdle("few", "no live report with a valid fix yet")
        guard = pending.guard_over(self.dispatcher.guard)
        track.apart_s = max(track.apart_s, guard.min_apart_s)
        return track.hurdle(guard, self.dispatcher.elapsed())

    def level(self, name: str) -> bool | None:
        """A level of the device as it was last reported; None: not known."""
        session = self.session
        session.catch_up()
        return True if name in session.levels else False if name in session.off else None

    def left_s(self, pending: Pending) -> float:
        """Seconds for which something is still awaited of a command that was told."""
        return max(pending.sent + pending.timeout_s - self.dispatcher.elapsed(), 0.0)
