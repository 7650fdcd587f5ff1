"""What comes back of a command that a device was told: its answer, reports that show its relay, or nothing in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from gateway.downlink import window
from gateway.downlink.outcome import Report, alike, anew, meant, overdue
from gateway.downlink.pending import (
    ATTEMPTS,
    CONFIRMED,
    FAILED,
    GRACE_S,
    MISMATCH,
    QUEUED,
    SENDING,
    SENT,
    UNDER_WAY,
    VERIFIED,
    Pending,
)
from gateway.downlink.telling import Telling
from gateway.fields import rfc3339
from gateway.interfaces import CommandAnswer

if TYPE_CHECKING:
    from gateway.downlink.line import Line

#: A command of the engine waits so long for the answer to any other; s.
HINDERS_S: Final = 10.0
#: What somebody else may have sent is not sent again before so long has passed: its answer may be on its way.
UNCERTAIN_S: Final = 3.0
#: So many live reports that show that a command was not obeyed are an answer.
CONTRARY: Final = 2


class Hearing:
    """What is heard of one device."""

    __slots__ = ("_line", "_telling")

    def __init__(self, line: Line, telling: Telling) -> None:
        self._line = line
        self._telling = telling

    async def answered(self, answer: CommandAnswer, raw: bytes, received: float, at: float) -> None:
        """The device says something of a command; C{at}: when, seconds of the clock that nobody sets."""
        told = (one for one in self._line.open if one.state in (SENDING, SENT) and not (one.written and at < one.sent))
        pending = next((one for one in told if meant(answer, one)), None)
        if pending is None:
            return  # of one that was superseded, or somebody else's
        if pending.link is not None:
            pending.link.answered()
            if pending.link.windowed:
                window.reached(self._line.session, pending.age_s)
        if pending.unsaid and not await self._telling.say_sent(pending):
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
            await self._line.step(pending, CONFIRMED, about, final=True)
        else:
            await self._line.step(pending, CONFIRMED, about, look_s=self._line.left_s(pending) + GRACE_S)

    async def _other_form(self, pending: Pending, kind: str, reason: str, about: Mapping[str, Any]) -> None:
        """A command was not understood as it was meant: it is told in its next form, if it has one and the time."""
        said = {**about, "reason": reason}
        if pending.more and pending.expires > self._line.dispatcher.elapsed():
            if await self._line.step(pending, MISMATCH, said, look_s=GRACE_S):
                await self._next_form(pending)
        elif kind == MISMATCH and self._provable(pending):
            # the relay itself has the last word
            await self._line.step(pending, MISMATCH, said, look_s=self._line.left_s(pending) + GRACE_S)
        else:
            await self._line.step(pending, kind, said, final=True)

    async def _next_form(self, pending: Pending) -> None:
        pending.form, pending.tries, pending.more = pending.form + 1, 0, False
        await self._line.requeue(pending, "its next form is tried")

    def _provable(self, pending: Pending) -> bool:
        """Whether the device's reports show what the command changes."""
        level = pending.definition.level
        return level is not None and self._line.level(level[0]) is not None

    async def shown(self, report: Report) -> None:
        """A live report shows whether the relay does what was asked for."""
        pending = next((one for one in self._line.open if one.state in UNDER_WAY and one.definition.level), None)
        if pending is None or pending.definition.level is None:
            return
        name, wanted = pending.definition.level
        if name not in report.levels or not report.after(pending):
            return
        if pending.unsaid and not await self._telling.say_sent(pending):
            return
        if report.levels[name] == wanted:
            # what was so before it was sent is no proof that it was obeyed, unless the device says so
            if not pending.already or pending.state == CONFIRMED:
                await self._line.end(pending, VERIFIED, position_id=report.id)
            return
        pending.contrary += 1
        if pending.over == "sms":
            return  # that may take its time
        if pending.contrary >= CONTRARY and pending.definition.again and pending.state in UNDER_WAY:
            reason = f"{pending.contrary} reports show that it was not obeyed"
            if pending.more:
                await self._other_form(pending, MISMATCH, reason, {})
            elif pending.state == SENDING and pending.tries < ATTEMPTS:
                await self._line.requeue(pending, reason)

    async def wait_for(self, pending: Pending) -> None:
        """Something is awaited of the device: see whether it has had its time."""
        elapsed = self._line.dispatcher.elapsed()
        if pending.unsaid:
            await self._telling.say_sent(pending)
            return
        if pending.state == MISMATCH and pending.more and pending.expires > elapsed:  # whoever said so was killed then
            await self._next_form(pending)
            return
        left_s = self._line.left_s(pending)
        if left_s > 0 and self._hinders(pending):
            left_s = min(left_s, pending.sent + HINDERS_S - elapsed)
            if left_s <= 0:
                reason = f"no answer within {HINDERS_S:g} s, and a command of the engine waits for it no longer"
                await self._line.end(pending, FAILED, reason)
                return
        if left_s > 0:
            gone_s = self._gone_s(pending, elapsed)
            if gone_s is not None and gone_s <= 0:
                await self._line.requeue(pending, "the connection was lost before it was answered")
                return
            ends = [one.expires - elapsed for one in self._line.open if one.state == QUEUED]
            self._line.wake(min([left_s, *ends, *(() if gone_s is None else (gone_s,))]))
            return
        if pending.link is not None and not pending.link.taken():
            pending.untaken = f", and {pending.link.untaken}"
            pending.link.cut_off("a command was not taken in time")
        if pending.link is not None and pending.link.windowed and pending.state in (SENDING, SENT):
            window.missed(self._line.session, pending.age_s)
        if anew(pending, elapsed):
            await self._line.requeue(pending, f"no answer within {pending.timeout_s:.0f} s")
            return
        await self._line.end(pending, *overdue(pending))

    def _hinders(self, pending: Pending) -> bool:
        """Whether a command of the engine waits for this one, and for nothing else."""
        return pending.definition.level is None and any(
            one.state == QUEUED and one.definition.level is not None and self._line.hurdle(one) is None
            for one in self._line.open
        )

    def _gone_s(self, pending: Pending, elapsed: float) -> float | None:
        """
        Seconds until a command may be told anew whose connection is gone before it was answered.

        None: it is not gone, or it is one that is not told twice.
        """
        if pending.over == "sms" or not anew(pending, elapsed):
            return None
        link = self._line.session.link
        if link is None or link.windowed or link.ready_in() is None:
            return None
        if pending.link is None:  # somebody else's: its answer may be on its way
            return pending.loaded + UNCERTAIN_S - elapsed
        if pending.link is link or pending.link.ready_in() is not None:
            return None
        return 0.0
