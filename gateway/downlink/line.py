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
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.downlink import window
from gateway.downlink.guard import Hurdle, Track
from gateway.downlink.outcome import Report, alike, anew, meant, overdue
from gateway.downlink.pending import (
    ATTEMPTS,
    CONFIRMED,
    FAILED,
    MISMATCH,
    QUEUED,
    SENDING,
    SENT,
    UNDER_WAY,
    VERIFIED,
    Pending,
)
from gateway.downlink.sightings import Sightings
from gateway.errors import NotReady, UnsupportedCommand
from gateway.fields import rfc3339
from gateway.interfaces import CommandAnswer, Downlink, Message
from gateway.judging import Steady
from gateway.session import Envelope, Session

if TYPE_CHECKING:
    from gateway.downlink.dispatch import Dispatcher

#: An answer, and a report that proves, may take two of the device's reports, and so long at most.
MOST_S: Final = 3600.0
#: After that long somebody else looks at what its device's instance should have seen to.
GRACE_S: Final = 10.0
#: A command of the engine waits so long for the answer to any other; s.
HINDERS_S: Final = 10.0
#: What somebody else may have sent is not sent again before so long has passed: its answer may be on its way.
UNCERTAIN_S: Final = 3.0
#: So many live reports that show that a command was not obeyed are an answer.
CONTRARY: Final = 2
#: A link that can't take a command yet is asked so often before it is asked less often; seconds between two of these.
POLLS: Final = 20
RETRY_S: Final = 1.0
#: A link that does not take what it could take is left alone for longer each time, and for so long at most; s.
PAUSE_MOST_S: Final = 60.0
#: So much of what a device says waits at most, while Redis is away say.
INBOX: Final = 64


class Line:
    """
    What is on its way to one device.

    @ivar over: it is not the device's any more.
    """

    log = Logger()

    __slots__ = (
        "_again",
        "_busy",
        "_call",
        "_dispatcher",
        "_fresh",
        "_inbox",
        "_once",
        "_open",
        "_pause_s",
        "_paused",
        "_polled",
        "_polls",
        "_refused_by",
        "_second",
        "_session",
        "_sightings",
        "over",
    )

    def __init__(self, session: Session, dispatcher: Dispatcher, track: Track | None) -> None:
        self._session = session
        self._dispatcher = dispatcher
        self._sightings = Sightings(session, dispatcher.clock.seconds, dispatcher.elapsed, track)
        self.over = False
        self._open: list[Pending] = []
        #: whether what is open here is what is stored
        self._fresh = True
        self._busy = self._again = False
        self._inbox: deque[tuple[CommandAnswer, bytes, float, float] | Report] = deque()
        self._call: Any = None
        #: the second that the last command was of: an answer tells it by that
        self._second = 0
        #: how often in a row its link was asked whether it can take a command, and which link that is
        self._polls = 0
        self._polled: Any = None
        #: the last command that it was told of those that are not told twice, whatever became of it
        self._once: Pending | None = None
        #: until when it is not asked, seconds of the clock that nobody sets, and how long that was
        self._paused = self._pause_s = 0.0
        #: which link that is
        self._refused_by: Any = None

    @property
    def track(self) -> Track | None:
        """Its live reports, where it has a relay that commands may cut."""
        return self._sightings.track

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
        if self._open or self._busy or not self._fresh:
            self._report(live)
            self.poke()

    def judged(self, message: Message, envelopes: list[Envelope], received: float) -> None:
        """Any other frame, as it was judged."""
        live = self._sightings.judged(message, envelopes[0], received) if envelopes else None
        if live is not None:
            self._report(live)
        if message.answer is not None and (self._busy or self._open or not self._fresh):
            self._put((message.answer, message.raw, received, self._sightings.at(received)))
        if self._open or not self._fresh:
            self.poke()

    def _report(self, report: Report) -> None:
        if self._busy or not self._fresh or any(pending.state in UNDER_WAY for pending in self._open):
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
        self._wake(GRACE_S)
        self.log.failure("a command of {ident} ended in an error of our own", failure, ident=self._session.ident)
        self._dispatcher.counters["command_errors"] += 1

    async def _work(self) -> None:
        try:
            while True:
                self._again = False
                await self._round()
                if not (self._again or self._inbox):
                    break
        except NotReady:
            self._fresh = False  # what became of the step is not known
            self._wake(RETRY_S)
        self._busy = False
        if self._again:
            self.poke()
        elif not self._open and self._fresh and self.track is None and self._session.line is self:
            self._session.line = None  # nothing is on its way

    def _wake(self, seconds: float) -> None:
        self._cancel()
        if not self.over:
            self._call = self._dispatcher.clock.callLater(max(seconds, 0.0), self._woken)

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
                await self._shown(what)
            else:
                await self._answered(*what)
            self._inbox.popleft()  # not before that is stored
            if not self._fresh and not self.over:
                await self._load()
        if self.over:
            return
        for pending in [one for one in self._open if one.state == QUEUED and one.expires <= self._dispatcher.elapsed()]:
            await self._end(pending, *overdue(pending))
        under_way = next((pending for pending in self._open if pending.state in UNDER_WAY), None)
        if under_way is not None:
            await self._wait_for(under_way)
        if under_way is None or under_way.state == QUEUED:
            await self._tell_one()

    async def _load(self) -> None:
        """What is stored, with what only we know of it."""
        known = {pending.ref: pending for pending in (self._once, *self._open) if pending is not None}
        self._fresh = True
        try:
            loaded = await self._dispatcher.store.load(self._session.ident)
        except NotReady:
            self._fresh = False
            raise
        for pending in loaded:
            mine = known.get(pending.ref)
            if mine is None or not mine.attempt:
                continue
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
                await self._requeue(pending, "not sent: Redis was away")
        self._open = loaded

    async def _restate(self, pending: Pending, mine: Pending) -> None:
        """Redis lost its newest writes, and that the device was told with them: say again that it was."""
        pending.recall(mine)
        about = {"channel": "data", "attempt": pending.attempts}
        look_s = self._left_s(pending) + GRACE_S
        await self._step(pending, SENDING, about, fields=pending.told(), look_s=look_s)

    async def _step(self, pending: Pending, kind: str, extra: Mapping[str, Any] | None = None, **more: Any) -> bool:
        """Take a step; False when somebody else has taken one: then what is stored is read again."""
        stepped = await self._dispatcher.store.step(pending, kind, extra, **more)
        self._again = True  # see what follows from that
        if stepped.status == "ok":
            if more.get("final"):
                self._open = [other for other in self._open if other is not pending]
                if pending.link is not None:
                    pending.link.answered()
            return True
        self._fresh = False
        if stepped.status == "held":
            self._dispatcher.lost(self._session)
        return False

    async def _end(self, pending: Pending, kind: str, reason: str = "", **more: Any) -> None:
        await self._step(pending, kind, {**more, **({"reason": reason} if reason else {})}, final=True)

    # -- telling

    async def _tell_one(self) -> None:
        """Tell the device the first command that it may be told now; those of the engine come before the others."""
        elapsed = self._dispatcher.elapsed()
        soonest: float | None = None
        for pending in sorted(self._open, key=lambda one: not one.command_name.startswith("engine.")):
            if pending.state != QUEUED:
                continue
            wait_s = await self._tell(pending, elapsed)
            if wait_s is None:
                return  # something was done
            soonest = wait_s if soonest is None else min(soonest, wait_s)
        if soonest is not None:
            self._wake(soonest)

    async def _tell(self, pending: Pending, elapsed: float) -> float | None:
        """Tell the device; seconds until it is to be tried again, unless something comes; None: a step was taken."""
        left_s = pending.expires - elapsed
        if left_s <= 0:
            await self._end(pending, *overdue(pending))
            return None
        refusal = self._dispatcher.unable(pending, self._session.protocol)
        if refusal is not None:
            await self._end(pending, *refusal)
            return None
        wait_s = self._ready_in(pending)
        if wait_s is None:
            return left_s
        hurdle = self._hurdle(pending)
        if hurdle is not None:
            return left_s if await self._held_up(pending, hurdle) else None
        if wait_s > 0:
            link = self._session.link
            if link is not self._polled and not link.windowed:
                self._polled, self._polls = link, 0
            self._polls += 1
            if self._polls >= POLLS:
                wait_s = max(wait_s, RETRY_S)
            elif wait_s <= RETRY_S:  # else replies would be held, and the command not be sent
                link.quiet()
            return min(wait_s, left_s)
        self._polls = 0
        await self._send(pending)
        return None

    def _ready_in(self, pending: Pending) -> float | None:
        """Seconds until its link can take a command; None: that is not before it is heard again."""
        session, now = self._session, self._dispatcher.clock.seconds()
        link = session.link
        ready_s: float | None = link.ready_in() if link is not None else None
        # whose the device is has to be known first; one that is not let in is told nothing
        if ready_s is None or session.unknown or not session.enabled:
            return None
        if link.windowed and not 0.0 <= now + ready_s - session.seen <= window.open_for(
            session, pending.definition.again
        ):
            return None
        if link is self._refused_by:
            ready_s = max(ready_s, self._paused - self._dispatcher.elapsed())
        if int(now) == self._second:
            ready_s = max(ready_s, self._second + 1 - now)
        return ready_s

    def _hurdle(self, pending: Pending) -> Hurdle | None:
        """Why the guard of a command is not met; None: it is, or it has none."""
        if not pending.definition.guarded:
            return None
        track = self.track
        if track is None:
            return Hurdle("few", "no live report with a valid fix yet")
        guard = pending.guard_over(self._dispatcher.guard)
        track.apart_s = max(track.apart_s, guard.min_apart_s)
        return track.hurdle(guard, self._dispatcher.elapsed())

    async def _held_up(self, pending: Pending, hurdle: Hurdle) -> bool:
        """A command waits for its guard: said once for each kind of reason."""
        if hurdle.why == pending.why:
            pending.reason = hurdle.reason
            return True
        fields = {"reason": hurdle.reason, "why": hurdle.why, "hurdle": "1"}
        said = {"reason": f"waits: {hurdle.reason}"}
        if await self._step(pending, QUEUED, said, fields=fields):
            pending.why, pending.reason, pending.hurdle = hurdle.why, hurdle.reason, True
            return True
        return False

    async def _send(self, pending: Pending) -> None:
        """Store that the device is about to be told, then tell it, then store that it was."""
        session, link, dispatcher = self._session, self._session.link, self._dispatcher
        assert link is not None
        now, began = dispatcher.clock.seconds(), dispatcher.elapsed()
        try:
            downlink = dispatcher.encode(session, pending, now)
        except UnsupportedCommand as error:
            await self._end(pending, FAILED, str(error))
            return
        self._prepare(pending, downlink, now, began)
        link.quiet()  # the reply to the report that just came would take its place
        secret = pending.definition.secret
        about: dict[str, Any] = {"channel": "data", "attempt": pending.attempts}
        shown = about if secret else about | {"sent": downlink.data.hex()}
        if pending.definition.guarded and self.track is not None:
            shown = shown | {"evidence": self.track.evidence(began)}
        before = pending.attempts, pending.tries
        look_s = pending.timeout_s + GRACE_S
        # of a device that had never been heard nobody knew what it speaks
        about_device = pending.told() | {"protocol": session.protocol}
        stepped = await dispatcher.store.step(
            pending, SENDING, shown, fields=about_device, look_s=look_s, holding=True, in_time=True
        )
        self._again = True
        if stepped.status == "late":
            pending.attempts, pending.tries = before[0] - 1, before[1] - 1
            await self._end(pending, *overdue(pending))
            return
        if stepped.status != "ok":
            self._fresh = False
            if stepped.status == "held":
                dispatcher.lost(session)
            return
        elapsed, now = dispatcher.elapsed(), dispatcher.clock.seconds()
        left_s = stepped.left_s - (elapsed - began)
        # much can have happened while that was stored
        hurdle = self._hurdle(pending)
        why = "its ttl has passed" if left_s <= 0 else hurdle.reason if hurdle is not None else ""
        if link.windowed:
            link = session.link  # from where it was heard last
        if self.over or link is None or link is not session.link:
            why = why or "the connection is gone"
        if not why and not link.command(downlink.data, left_s):
            why = "its link could not take it"
        if why:
            pending.attempts, pending.tries = before[0] - 1, before[1] - 1
            self._pause_s = min(max(2 * self._pause_s, RETRY_S), PAUSE_MOST_S)
            self._paused, self._refused_by = elapsed + self._pause_s, link
            await self._step(pending, QUEUED, {"reason": f"not sent: {why}"}, fields=pending.told(), look_s=GRACE_S)
            self._again = True
            return
        dispatcher.counters["commands_sent"] += 1
        if pending.definition.level is not None:
            who = {"command": pending.command_name, "ident": session.ident, "ref": pending.ref, "by": pending.by[:64]}
            self.log.info("{command} sent to {ident}, ref {ref}, asked for by {by!r}", **who)
        self._paused, self._pause_s, self._refused_by = 0.0, 0.0, None
        pending.written, pending.link = True, link
        if not pending.definition.again:
            self._once = pending
        pending.sent, pending.sent_at = elapsed, now
        self._second = int(now)
        pending.age_s = now - session.seen
        await self._say_sent(pending)

    def _prepare(self, pending: Pending, downlink: Downlink, now: float, elapsed: float) -> None:
        pending.name, pending.token, pending.expected = downlink.name, downlink.token, downlink.expected
        pending.more, pending.answered = downlink.more, downlink.answered
        pending.attempts, pending.tries = pending.attempts + 1, pending.tries + 1
        pending.contrary, pending.untaken = 0, ""
        pending.attempt = uuid4().hex
        pending.written, pending.link = False, None
        pending.sent, pending.sent_at = elapsed, now
        level = pending.definition.level
        pending.already = level is not None and self._now(level[0]) is level[1]
        pending.timeout_s = max(min(2 * self._session.interval_s, MOST_S), self._dispatcher.answer_within_s)

    async def _say_sent(self, pending: Pending) -> bool:
        """The device was told; False when that was the last that there is to say of it, or nothing was said."""
        about = {"channel": "data", "attempt": pending.attempts, "sent_time": rfc3339(pending.sent_at)}
        if not pending.answered and pending.definition.level is None:
            about["reason"] = "the device says nothing of it, whether it obeys or not"
            await self._step(pending, SENT, about, fields=pending.told(), final=True)
            return False
        return await self._step(pending, SENT, about, fields=pending.told(), look_s=self._left_s(pending) + GRACE_S)

    # -- what comes back

    async def _answered(self, answer: CommandAnswer, raw: bytes, received: float, at: float) -> None:
        """The device says something of a command; C{at}: when, seconds of the clock that nobody sets."""
        told = (one for one in self._open if one.state in (SENDING, SENT) and not (one.written and at < one.sent))
        pending = next((one for one in told if meant(answer, one)), None)
        if pending is None:
            return  # of one that was superseded, or somebody else's
        if pending.link is not None:
            pending.link.answered()
            if pending.link.windowed:
                window.reached(self._session, pending.age_s)
        if pending.state == SENDING and pending.written and not await self._say_sent(pending):
            return
        about: dict[str, Any] = {"channel": "data", "answered_time": rfc3339(received)}
        if not pending.definition.secret:
            about["answered"] = raw[:512].hex()
        if answer.accepted is False:
            await self._other_form(pending, FAILED, "the device says that it does not obey", about)
        elif answer.values and pending.expected and not alike(answer.values, pending.expected):
            why = f"asked for {','.join(pending.expected)}, answered {','.join(answer.values)[:64]}"
            await self._other_form(
                pending, MISMATCH, "an answer with other values" if "answered" not in about else why, about
            )
        elif pending.definition.level is None or not self._provable(pending):
            await self._step(pending, CONFIRMED, about, final=True)
        else:
            await self._step(pending, CONFIRMED, about, look_s=self._left_s(pending) + GRACE_S)

    async def _other_form(self, pending: Pending, kind: str, reason: str, about: Mapping[str, Any]) -> None:
        """A command was not understood as it was meant: it is told in its next form, if it has one and the time."""
        said = {**about, "reason": reason}
        if pending.more and pending.expires > self._dispatcher.elapsed():
            if await self._step(pending, MISMATCH, said, look_s=GRACE_S):
                await self._next_form(pending)
        elif kind == MISMATCH and self._provable(pending):
            # the relay itself has the last word
            await self._step(pending, MISMATCH, said, look_s=self._left_s(pending) + GRACE_S)
        else:
            await self._step(pending, kind, said, final=True)

    async def _next_form(self, pending: Pending) -> None:
        pending.form, pending.tries, pending.more = pending.form + 1, 0, False
        await self._requeue(pending, "its next form is tried")

    def _now(self, name: str) -> bool | None:
        """A level of the device as it was last reported; None: not known."""
        session = self._session
        session.catch_up()
        return True if name in session.levels else False if name in session.off else None

    def _provable(self, pending: Pending) -> bool:
        """Whether the device's reports show what the command changes."""
        level = pending.definition.level
        return level is not None and self._now(level[0]) is not None

    async def _requeue(self, pending: Pending, reason: str) -> None:
        await self._step(pending, QUEUED, {"reason": reason}, fields=pending.told(), look_s=GRACE_S)

    async def _shown(self, report: Report) -> None:
        """A live report shows whether the relay does what was asked for."""
        pending = next((one for one in self._open if one.state in UNDER_WAY and one.definition.level), None)
        if pending is None or pending.definition.level is None:
            return
        name, wanted = pending.definition.level
        if name not in report.levels or not report.after(pending):
            return
        if pending.state == SENDING and pending.written and not await self._say_sent(pending):
            return
        if report.levels[name] == wanted:
            # what was so before it was sent is no proof that it was obeyed, unless the device says so
            if not pending.already or pending.state == CONFIRMED:
                await self._end(pending, VERIFIED, position_id=report.id)
            return
        pending.contrary += 1
        if pending.contrary >= CONTRARY and pending.definition.again and pending.state in UNDER_WAY:
            reason = f"{pending.contrary} reports show that it was not obeyed"
            if pending.more:
                await self._other_form(pending, MISMATCH, reason, {})
            elif pending.state == SENDING and pending.tries < ATTEMPTS:
                await self._requeue(pending, reason)

    def _left_s(self, pending: Pending) -> float:
        return max(pending.sent + pending.timeout_s - self._dispatcher.elapsed(), 0.0)

    async def _wait_for(self, pending: Pending) -> None:
        """Something is awaited of the device: see whether it has had its time."""
        elapsed = self._dispatcher.elapsed()
        if pending.state == SENDING and pending.written:
            await self._say_sent(pending)
            return
        if pending.state == MISMATCH and pending.more and pending.expires > elapsed:  # whoever said so was killed then
            await self._next_form(pending)
            return
        left_s = self._left_s(pending)
        if left_s > 0 and self._hinders(pending):
            left_s = min(left_s, pending.sent + HINDERS_S - elapsed)
            if left_s <= 0:
                reason = f"no answer within {HINDERS_S:g} s, and a command of the engine waits for it no longer"
                await self._end(pending, FAILED, reason)
                return
        if left_s > 0:
            gone_s = self._gone_s(pending, elapsed)
            if gone_s is not None and gone_s <= 0:
                await self._requeue(pending, "the connection was lost before it was answered")
                return
            ends = [one.expires - elapsed for one in self._open if one.state == QUEUED]
            self._wake(min([left_s, *ends, *(() if gone_s is None else (gone_s,))]))
            return
        if pending.link is not None and not pending.link.taken():
            pending.untaken = ", and its side has not acknowledged what was sent"
            pending.link.cut_off("a command was not taken in time")
        if pending.link is not None and pending.link.windowed and pending.state in (SENDING, SENT):
            window.missed(self._session, pending.age_s)
        if anew(pending, elapsed):
            await self._requeue(pending, f"no answer within {pending.timeout_s:.0f} s")
            return
        await self._end(pending, *overdue(pending))

    def _hinders(self, pending: Pending) -> bool:
        """Whether a command of the engine waits for this one, and for nothing else."""
        return pending.definition.level is None and any(
            one.state == QUEUED and one.definition.level is not None and self._hurdle(one) is None for one in self._open
        )

    def _gone_s(self, pending: Pending, elapsed: float) -> float | None:
        """
        Seconds until a command may be told anew whose connection is gone before it was answered.

        None: it is not gone, or it is one that is not told twice.
        """
        if not anew(pending, elapsed):
            return None
        link = self._session.link
        if link is None or link.windowed or link.ready_in() is None:
            return None
        if pending.link is None:  # somebody else's: its answer may be on its way
            return pending.loaded + UNCERTAIN_S - elapsed
        if pending.link is link or pending.link.ready_in() is not None:
            return None
        return 0.0
