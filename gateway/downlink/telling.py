"""How a device is told a command: when its link, its guard and its ttl allow it, stored first, and alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from gateway.downlink import window
from gateway.downlink.guard import Hurdle
from gateway.downlink.outcome import overdue
from gateway.downlink.pending import FAILED, GRACE_S, QUEUED, REFUSED, RETRY_S, SENDING, SENT, UNDER_WAY, Pending
from gateway.errors import UnsupportedCommand
from gateway.fields import rfc3339
from gateway.interfaces import Downlink

if TYPE_CHECKING:
    from gateway.downlink.line import Line

#: An answer, and a report that proves, may take two of the device's reports, and so long at most.
MOST_S: Final = 3600.0
#: Why a vehicle is not stopped while that is so.
CONTESTED: Final = "two senders use the ident: which of them is the vehicle is not known"
#: A link that can't take a command yet is asked so often before it is asked less often.
POLLS: Final = 20
#: A link that does not take what it could take is left alone for longer each time, and for so long at most; s.
PAUSE_MOST_S: Final = 60.0


class Telling:
    """
    What is said to one device.

    @ivar once: the last command that it was told of those that are not told twice, whatever became of it.
    """

    __slots__ = ("_line", "_pause_s", "_paused", "_polled", "_polls", "_refused_by", "_second", "once")

    def __init__(self, line: Line) -> None:
        self._line = line
        self.once: Pending | None = None
        #: the second that the last command was of: an answer tells it by that
        self._second = 0
        #: how often in a row its link was asked whether it can take a command, and which link that is
        self._polls = 0
        self._polled: Any = None
        #: until when it is not asked, seconds of the clock that nobody sets, and how long that was
        self._paused = self._pause_s = 0.0
        #: which link that is
        self._refused_by: Any = None

    async def tell_one(self) -> None:
        """Tell the device the first command that it may be told now; those of the engine come before the others."""
        elapsed = self._line.dispatcher.elapsed()
        soonest: float | None = None
        for pending in sorted(self._line.open, key=lambda one: not one.command_name.startswith("engine.")):
            if pending.state != QUEUED:
                continue
            wait_s = await self._tell(pending, elapsed)
            if wait_s is None:
                return  # something was done
            soonest = wait_s if soonest is None else min(soonest, wait_s)
        if soonest is not None:
            self._line.wake(soonest)

    async def _tell(self, pending: Pending, elapsed: float) -> float | None:
        """Tell the device; seconds until it is to be tried again, unless something comes; None: a step was taken."""
        left_s = pending.expires - elapsed
        if left_s <= 0:
            await self._line.end(pending, *overdue(pending))
            return None
        refusal = self._line.dispatcher.unable(pending, self._line.session.protocol)
        if refusal is not None:
            await self._line.end(pending, *refusal)
            return None
        if pending.definition.guarded and self._line.session.contested:
            await self._line.end(pending, REFUSED, CONTESTED)
            return None
        wait_s = self._ready_in(pending)
        if wait_s != 0.0 and pending.by_sms(elapsed):
            return await self._by_sms(pending, left_s)
        if wait_s is None:
            return self._until_sms(pending, elapsed, left_s)
        hurdle = self._line.hurdle(pending)
        if hurdle is not None:
            return left_s if await self._held_up(pending, hurdle) else None
        if wait_s > 0:
            link = self._line.session.link
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
        session, now = self._line.session, self._line.dispatcher.clock.seconds()
        link = session.link
        ready_s: float | None = link.ready_in() if link is not None else None
        if not self._line.dispatcher.over_data(pending, session.protocol):
            return None
        # whose the device is has to be known first; one that is not let in is told nothing
        if ready_s is None or session.unknown or session.barred:
            return None
        if link.windowed and not 0.0 <= now + ready_s - session.seen <= window.open_for(
            session, pending.definition.again
        ):
            return None
        if link is self._refused_by:
            ready_s = max(ready_s, self._paused - self._line.dispatcher.elapsed())
        if int(now) == self._second:
            ready_s = max(ready_s, self._second + 1 - now)
        return ready_s

    def _until_sms(self, pending: Pending, elapsed: float, left_s: float) -> float:
        """Seconds until something can be done: it may be told by SMS, or its time is over."""
        if pending.channel == "data" or pending.no_sms:
            return left_s
        return min(left_s, max(pending.sms_at - elapsed, 0.0))

    async def _by_sms(self, pending: Pending, left_s: float) -> float | None:
        """Have it told by SMS; as L{_tell}."""
        session, line = self._line.session, self._line
        if session.unknown or session.barred:
            return left_s
        if pending.definition.level is None and any(one.over == "sms" and one.state in UNDER_WAY for one in line.open):
            return left_s  # an answer does not say to which text it is
        hurdle = line.hurdle(pending)
        if hurdle is not None:
            return left_s if await self._held_up(pending, hurdle) else None

        def held() -> str:
            """Why it is not to be told now: much can have happened while that was stored."""
            hurdle = line.hurdle(pending)
            contested = pending.definition.guarded and session.contested
            return CONTESTED if contested else "" if hurdle is None else hurdle.reason

        guarded = pending.definition.guarded and line.track is not None
        evidence = {"evidence": line.track.evidence(line.dispatcher.elapsed())} if guarded and line.track else {}
        stepped = await line.dispatcher.texting.tell(
            *(pending, session.protocol, session.memory.registry, session.interval_s, held, evidence), holding=True
        )
        if pending.written and not pending.definition.again:
            self.once = pending  # should Redis forget that it was told
        line.stale()  # from here on others see to it as well
        if stepped is not None and stepped.status == "held":
            line.dispatcher.lost(session)
        return None

    async def _held_up(self, pending: Pending, hurdle: Hurdle) -> bool:
        """A command waits for its guard: said once for each kind of reason."""
        if hurdle.why == pending.why:
            pending.reason = hurdle.reason
            return True
        fields = {"reason": hurdle.reason, "why": hurdle.why, "hurdle": "1"}
        said = {"reason": f"waits: {hurdle.reason}"}
        if await self._line.step(pending, QUEUED, said, fields=fields):
            pending.why, pending.reason, pending.hurdle = hurdle.why, hurdle.reason, True
            return True
        return False

    async def _send(self, pending: Pending) -> None:
        """Store that the device is about to be told, then tell it, then store that it was."""
        session, link, dispatcher = self._line.session, self._line.session.link, self._line.dispatcher
        assert link is not None
        now, began = dispatcher.clock.seconds(), dispatcher.elapsed()
        try:
            downlink = dispatcher.encode(session, pending, now)
        except UnsupportedCommand as error:
            await self._line.end(pending, FAILED, str(error))
            return
        self._prepare(pending, downlink, now, began)
        link.quiet()  # the reply to the report that just came would take its place
        secret = pending.definition.secret
        about: dict[str, Any] = {"channel": "data", "attempt": pending.attempts}
        shown = about if secret else about | {"sent": downlink.data.hex()}
        if pending.definition.guarded and self._line.track is not None:
            shown = shown | {"evidence": self._line.track.evidence(began)}
        before = pending.attempts, pending.tries
        look_s = pending.timeout_s + GRACE_S
        # of a device that had never been heard nobody knew what it speaks
        about_device = pending.told() | {"protocol": session.protocol}
        stepped = await dispatcher.store.step(
            pending, SENDING, shown, fields=about_device, look_s=look_s, holding=True, in_time=True
        )
        self._line.again()
        if stepped.status == "late":
            pending.attempts, pending.tries = before[0] - 1, before[1] - 1
            await self._line.end(pending, *overdue(pending))
            return
        if stepped.status != "ok":
            self._line.stale()
            if stepped.status == "held":
                dispatcher.lost(session)
            return
        elapsed, now = dispatcher.elapsed(), dispatcher.clock.seconds()
        left_s = stepped.left_s - (elapsed - began)
        # much can have happened while that was stored
        hurdle = self._line.hurdle(pending)
        why = "its ttl has passed" if left_s <= 0 else hurdle.reason if hurdle is not None else ""
        if pending.definition.guarded and session.contested:
            why = why or CONTESTED
        if link.windowed:
            link = session.link  # from where it was heard last
        if self._line.over or link is None or link is not session.link:
            why = why or "the connection is gone"
        if not why and not link.command(downlink.data, left_s):
            why = "its link could not take it"
        if why:
            pending.attempts, pending.tries = before[0] - 1, before[1] - 1
            self._pause_s = min(max(2 * self._pause_s, RETRY_S), PAUSE_MOST_S)
            self._paused, self._refused_by = elapsed + self._pause_s, link
            await self._line.step(
                pending, QUEUED, {"reason": f"not sent: {why}"}, fields=pending.told(), look_s=GRACE_S
            )
            self._line.again()
            return
        dispatcher.counters["commands_sent"] += 1
        dispatcher.on_told(session, link, downlink.data, secret)
        if pending.definition.level is not None:
            who = {"command": pending.command_name, "ident": session.ident, "ref": pending.ref, "by": pending.by[:64]}
            self._line.log.info("{command} sent to {ident}, ref {ref}, asked for by {by!r}", **who)
        self._paused, self._pause_s, self._refused_by = 0.0, 0.0, None
        pending.written, pending.link = True, link
        if not pending.definition.again:
            self.once = pending
        pending.sent, pending.sent_at = elapsed, now
        self._second = int(now)
        pending.age_s = now - session.seen
        await self.say_sent(pending)

    def _prepare(self, pending: Pending, downlink: Downlink, now: float, elapsed: float) -> None:
        pending.name, pending.token, pending.expected = downlink.name, downlink.token, downlink.expected
        pending.more, pending.answered = downlink.more, downlink.answered
        pending.attempts, pending.tries = pending.attempts + 1, pending.tries + 1
        pending.contrary, pending.untaken = 0, ""
        pending.attempt = uuid4().hex
        pending.written, pending.link, pending.over, pending.sms = False, None, "data", ""
        pending.sent, pending.sent_at = elapsed, now
        level = pending.definition.level
        pending.already = level is not None and self._line.level(level[0]) is level[1]
        pending.timeout_s = max(min(2 * self._line.session.interval_s, MOST_S), self._line.dispatcher.answer_within_s)

    async def say_sent(self, pending: Pending) -> bool:
        """The device was told; False when that was the last that there is to say of it, or nothing was said."""
        about = {"channel": "data", "attempt": pending.attempts, "sent_time": rfc3339(pending.sent_at)}
        if not pending.answered and pending.definition.level is None:
            about["reason"] = "the device says nothing of it, whether it obeys or not"
            await self._line.step(pending, SENT, about, fields=pending.told(), final=True)
            return False
        return await self._line.step(
            pending, SENT, about, fields=pending.told(), look_s=self._line.left_s(pending) + GRACE_S
        )
