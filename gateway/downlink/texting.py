"""
Commands by SMS: for devices that have no data link, where whoever asks allows it.

That a device is about to be told is stored first, as over data; then its text
is given to whoever sends texts.  What becomes of the text, and what the device
answers, may come to any instance: each step names the step that it follows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from gateway.commands import Command
from gateway.config import SMSSection
from gateway.downlink.outcome import overdue
from gateway.downlink.pending import CONFIRMED, EXPIRED, FAILED, GRACE_S, QUEUED, SENDING, SENT, Pending
from gateway.errors import UnsupportedCommand
from gateway.fields import rfc3339
from gateway.interfaces import CommandAnswer, SMSText
from gateway.registry import Plugin
from gateway.sinks.commands import CommandStore, Stepped
from gateway.sinks.sms import SMSStore
from gateway.sms.numbers import e164
from gateway.sms.texts import Queued

#: A step that somebody else's came before is tried again so often.
TRIES: Final = 5


class Texting:
    """Has devices told by SMS; C{sender}: whether this gateway can send any."""

    def __init__(
        self,
        commands: CommandStore,
        texts: SMSStore,
        plugins: Sequence[Plugin],
        section: SMSSection,
        elapsed: Callable[[], float],
        seconds: Callable[[], float],
    ) -> None:
        """
        @param elapsed: seconds of a clock that nobody sets.
        @param seconds: the time of day, UTC epoch seconds.
        """
        self._commands = commands
        self._texts = texts
        self._plugins = {plugin.name: plugin for plugin in plugins if plugin.has_sms}
        self._section = section
        self._elapsed = elapsed
        self._seconds = seconds
        #: whether texts are not delivered once their time is over: else no relay is cut by one
        self.honours_validity = True
        #: called when a command has come a step further, with its ident and reference
        self.on_step: Callable[[str, str], Awaitable[None]] = _nothing

    @property
    def fallback_s(self) -> float:
        """After so long a command that may be told by SMS is, where it says nothing."""
        return self._section.fallback_after

    def unable(self, command: Command, protocol: str) -> str:
        """Why a device of this protocol is not told a command by SMS, in words; empty: it can be."""
        if not self._section.transport:
            return "no SMS are sent: section [sms], key 'transport'"
        plugin = self._plugins.get(protocol)
        if plugin is None:
            return f"{protocol} takes nothing by SMS"
        support = plugin.commands.get(command.name)
        if support is None or "sms" not in support.channels:
            return f"{protocol} does not take {command.name} by SMS"
        if command.definition.level is not None and not self.honours_validity:
            return "the provider may deliver a text when its time is over: a relay is not moved like that"
        return ""

    def spoken(self, protocol: str) -> str:
        """What a device speaks; of one that was never heard what it must, as there is one kind that has SMS."""
        return protocol or (next(iter(self._plugins)) if len(self._plugins) == 1 else "")

    async def about(self, ident: str) -> tuple[dict[str, str], str]:
        """The registry's entry of a device, and its protocol."""
        registry, protocol = await self._texts.about(ident)
        return registry, self.spoken(protocol)

    async def tell(
        self,
        pending: Pending,
        protocol: str,
        registry: Mapping[str, str],
        interval_s: float,
        hurdle: Callable[[], str],
        evidence: Mapping[str, Any],
        holding: bool,
    ) -> Stepped | None:
        """
        Have a device told a command by SMS.

        @param interval_s: seconds between its reports.
        @param hurdle: why it is not to be told now, in words; asked again once it is stored that it is about to be.
        @param evidence: what its guard goes by.
        @param holding: only if no other instance holds the device.
        @return: what became of its first step; None: it was not told, and that is stored.
        """
        why = self.unable(pending.command, protocol)
        number = e164(registry.get("phone", ""), self._section.region)
        text: SMSText | None = None
        if not why and number is None:
            why = "the registry has no phone number of it" if not registry.get("phone") else "its phone is no number"
        if not why:
            try:
                text = self._plugins[protocol].sms(pending.command, registry)
            except UnsupportedCommand as error:
                why = str(error)
            except Exception as error:  # foreign code: a device plugin
                why = f"device plugin {protocol} failed: {type(error).__name__}"
        if text is None or number is None:
            await self._not(pending, f"not by SMS: {why}")
            return None
        left_s = pending.expires - self._elapsed()
        self._prepare(pending, text, max(left_s, 0.0) + max(2 * interval_s, self._section.answer_within))
        about: dict[str, Any] = {"channel": "sms", "attempt": pending.attempts}
        stepped = await self._commands.step(
            *(pending, SENDING, {**about, **evidence}),
            fields=pending.told() | {"protocol": protocol},
            look_s=pending.timeout_s + GRACE_S,
            holding=holding,
            in_time=True,
        )
        if stepped.status == "late":
            pending.attempts -= 1
            await self._commands.step(pending, *_said(overdue(pending)), final=True)
            return None
        if stepped.status != "ok":
            return stepped
        if why := hurdle():
            await self._undo(pending, f"not sent: {why}", {})
            return None
        said: dict[str, Any] = {"channel": "sms", "ref": pending.ref, "command": pending.command_name}
        if not pending.definition.secret:
            said["raw_text"] = text.template
        queued = Queued(
            *(pending.sms, pending.ident, protocol, number, text.template, text.name),
            *(stepped.left_s, pending.ref, said),
        )
        added = await self._texts.add(queued, self._section.per_device_hour, self._section.per_hour)
        if added in ("device", "all"):
            n = self._section.per_device_hour if added == "device" else self._section.per_hour
            whom = "the device was" if added == "device" else "all devices were"
            await self._not(pending, f"not by SMS: {whom} sent {n} texts within an hour")
            return None
        pending.written = True
        return stepped

    def _prepare(self, pending: Pending, text: SMSText, timeout_s: float) -> None:
        pending.name, pending.token, pending.expected = text.name, "", ()
        pending.more, pending.answered = False, text.answered
        pending.attempts, pending.tries = pending.attempts + 1, pending.tries + 1
        pending.attempt = pending.sms = uuid4().hex
        pending.over, pending.written, pending.link = "sms", False, None
        pending.already, pending.timeout_s = False, timeout_s

    async def _not(self, pending: Pending, reason: str) -> None:
        """A command can't be told by SMS: it waits for data, if it may."""
        if pending.channel == "sms":
            await self._commands.step(pending, FAILED, {"reason": reason}, final=True)
        else:
            await self._undo(pending, reason, {"no_sms": "1"})

    async def _undo(self, pending: Pending, reason: str, fields: Mapping[str, str]) -> None:
        """A command waits again: its device was certainly not told."""
        if pending.state == SENDING:
            pending.attempts, pending.tries = pending.attempts - 1, pending.tries - 1
        pending.over = "data"
        pending.no_sms = pending.no_sms or "no_sms" in fields
        await self._commands.step(
            pending, QUEUED, {"reason": reason}, fields={**pending.told(), **fields}, look_s=GRACE_S
        )

    # -- what comes of it

    async def followed(self, fields: Mapping[str, str], state: str) -> None:
        """What became of a text: take the command that it carries a step further."""
        ref, id = fields.get("ref", ""), fields.get("id", "")
        if not ref:
            return
        for _ in range(TRIES):
            found = await self._commands.find(ref)
            pending = self._commands.pending(found, self._seconds()) if found else None
            if pending is None or found.get("final") == "1" or pending.sms != id or pending.over != "sms":
                return  # it has come to its end, or is told anew
            if await self._follow(pending, state, fields.get("reason", "")):
                await self.on_step(pending.ident, ref)
                return

    async def _follow(self, pending: Pending, state: str, reason: str) -> bool:
        """A step, if there is one to take; False: somebody else's came first."""
        about: dict[str, Any] = {"channel": "sms", "attempt": pending.attempts}
        step = self._commands.step
        if state == "accepted":
            if pending.state != SENDING:
                return True
            about["sent_time"] = rfc3339(self._seconds())
            if not pending.answered and pending.definition.level is None:
                about["reason"] = "the device says nothing of it, whether it obeys or not"
                return (await step(pending, SENT, about, final=True)).status == "ok"
            look_s = max(pending.sent + pending.timeout_s - self._elapsed(), 0.0) + GRACE_S
            return (await step(pending, SENT, about, look_s=look_s)).status == "ok"
        if pending.state not in (SENDING, SENT) or state in ("delivered", "uncertain"):
            # what is uncertain is awaited: a report may show it; it is never told twice
            return True
        why = f"by SMS: {reason}" if reason else f"by SMS: {state}"
        if state == "expired":
            return (await step(pending, EXPIRED, {**about, "reason": why}, final=True)).status == "ok"
        # the provider says that the device was not told
        left_s = pending.expires - self._elapsed()
        if pending.channel == "auto" and left_s > 0 and (state == "rejected" or pending.definition.again):
            before = pending.step
            await self._undo(pending, why, {"no_sms": "1"})
            return pending.step > before
        return (await step(pending, FAILED, {**about, "reason": why}, final=True)).status == "ok"

    async def awaited(self, ident: str, answer: CommandAnswer) -> str:
        """The reference of the command that an answer is to; empty: it is to none."""
        waiting = await self._waiting(ident, answer)
        return waiting[0].ref if waiting else ""

    async def _waiting(self, ident: str, answer: CommandAnswer) -> list[Pending]:
        return [
            pending
            for pending in await self._commands.load(ident)
            if pending.over == "sms" and pending.state in (SENDING, SENT) and answer.name in ("", pending.name)
        ]

    async def answered(self, ident: str, answer: CommandAnswer, text: str, received: float) -> str:
        """
        A device says by SMS something of a command.

        @return: the reference of the command; empty: it is to none.
        """
        for _ in range(TRIES):
            waiting = await self._waiting(ident, answer)
            if not waiting:
                return ""
            pending = waiting[0]
            about: dict[str, Any] = {"channel": "sms", "authenticated": False, "answered_time": rfc3339(received)}
            if not pending.definition.secret:
                about["answered"] = text.encode()[:512].hex()
            relay = pending.definition.level is not None
            if answer.accepted is False and relay:
                return pending.ref  # anybody can say that; a report has the last word
            if answer.accepted is False:
                stepped = await self._commands.step(
                    pending, FAILED, {**about, "reason": "the device says that it does not obey"}, final=True
                )
            elif relay:
                look_s = max(pending.sent + pending.timeout_s - self._elapsed(), 0.0) + GRACE_S
                stepped = await self._commands.step(pending, CONFIRMED, about, look_s=look_s)
            else:
                stepped = await self._commands.step(pending, CONFIRMED, about, final=True)
            if stepped.status == "ok":
                await self.on_step(ident, pending.ref)
                return pending.ref
        return ""


def _said(outcome: tuple[str, str]) -> tuple[str, Mapping[str, Any]]:
    return outcome[0], {"reason": outcome[1]}


async def _nothing(ident: str, ref: str) -> None:
    pass
