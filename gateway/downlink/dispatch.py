"""
Takes commands in, has each told by the instance that holds its device, and sees to those that nobody holds.

An entry of C{gateway:command} is read by one instance of the group; it is
validated, stored as a request, and then acknowledged: whoever is killed in
between leaves it to be read again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.commands import FIELDS, REF, Command, Guard, Request
from gateway.config import CommandsSection
from gateway.downlink.guard import Hurdle, Track
from gateway.downlink.line import Line
from gateway.downlink.outcome import anew, overdue
from gateway.downlink.pending import CANCELLED, CONFIRMED, FAILED, GRACE_S, QUEUED, REFUSED, Pending
from gateway.downlink.texting import Texting
from gateway.errors import CommandError, NotReady, StepRefused, UnsupportedCommand
from gateway.events import IDENT
from gateway.fields import rfc3339
from gateway.interfaces import Downlink
from gateway.registry import Plugin
from gateway.session import Session
from gateway.sessions import Sessions
from gateway.sinks.commands import READ, Accepted, CommandStore
from gateway.tickets import Link

#: How often new entries are asked for, those of others that were not finished, and commands that are due; s.
POLL_S: Final = 0.05
CLAIM_S: Final = 10.0
DUE_S: Final = 1.0
#: So often in a row, while there are as many as are read at once.
PAGES: Final = 20
#: So long after its end a command of a device that somebody holds is ended by somebody else; s.
OVERDUE_S: Final = 3 * GRACE_S


class Dispatcher:
    """
    All commands of this instance.

    @ivar guard: what a guard is where a request says nothing.
    @ivar answer_within_s: for so long at least an answer, and a report that proves, is waited for.
    @ivar counters: where what happens is counted.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        elapsed: Callable[[], float],
        store: CommandStore,
        sessions: Sessions,
        plugins: Sequence[Plugin],
        section: CommandsSection,
        instance: str,
        counters: Counter[str],
        texting: Texting,
    ) -> None:
        """
        @param elapsed: seconds of a clock that nobody sets.
        @param instance: the name of this one.
        @param texting: has devices told by SMS.
        """
        self.clock = clock
        self.elapsed = elapsed
        self.store = store
        self.counters = counters
        self.texting = texting
        texting.on_step = self._stepped
        self._sessions = sessions
        self._plugins = {plugin.name: plugin for plugin in plugins}
        self._instance = instance
        self._set(section)
        #: called when a device was told something: its session, the link, the bytes, and whether they are secret
        self.on_told: Callable[[Session, Link, bytes, bool], None] = lambda session, link, data, secret: None
        self._joined = False
        self._busy = False
        self._claimed = self._looked = 0.0
        self._said = ""
        self._stopped = False

    def _set(self, section: CommandsSection) -> None:
        self._section = section
        self.answer_within_s = section.answer_within
        self.guard = Guard(section.guard_speed, section.guard_apart, section.guard_age)
        self._enabled = frozenset(section.sent)
        #: kinds of tracker whose vehicles a command may stop: their speed is followed
        self._stoppable = frozenset(
            plugin.name
            for plugin in self._plugins.values()
            if "engine.stop" in self._enabled and "engine.stop" in plugin.commands
        )

    def change(self, section: CommandsSection) -> None:
        """The configuration has changed."""
        self._set(section)
        for session in self._sessions:
            if session.loaded and session.protocol in self._stoppable:
                self._line(session).watch(Track(self.guard.min_apart_s))

    @property
    def commands(self) -> list[str]:
        """The commands that are sent."""
        return self._section.sent

    # -- devices that come and go

    def began(self, session: Session, waiting: bool) -> None:
        """A device is live here from now on; C{waiting}: there are commands for it."""
        if session.protocol in self._stoppable or waiting:
            line = self._line(session)
            if waiting:
                line.look()

    def _line(self, session: Session) -> Line:
        line: Line | None = session.line
        if line is None:
            track = Track(self.guard.min_apart_s) if session.protocol in self._stoppable else None
            line = session.line = Line(session, self, track)
        return line

    def lost(self, session: Session) -> None:
        """
        Another instance holds a device.

        One whose session began while nobody could be asked has yet to be taken; one that is asked for is just taken.
        """
        if self._sessions.get(session.ident) is session and not (session.unknown or session.asking):
            self._sessions.drop(session.ident)

    def _look(self, ident: str) -> bool:
        """There is something new for a device; False when it is not live here."""
        session = self._sessions.get(ident)
        if session is None or not session.loaded:
            return False
        self._line(session).look()
        return True

    # -- what lines ask

    def encode(self, session: Session, pending: Pending, now: float) -> Downlink:
        """
        A command as its device is told it.

        @raise UnsupportedCommand: when it can't be.
        """
        plugin = self._plugins[session.protocol]
        try:
            return plugin.encode(session.ident, pending.command, session.memory, now, pending.form)
        except UnsupportedCommand:
            raise
        except Exception as error:  # foreign code: a device plugin
            self.counters["plugin_errors"] += 1
            self.log.failure(
                "device plugin {plugin} can't say {command}", plugin=plugin.name, command=pending.command_name
            )
            raise UnsupportedCommand(f"device plugin {plugin.name} failed: {type(error).__name__}") from error

    def unable(self, pending: Pending, protocol: str) -> tuple[str, str] | None:
        """What a command ends as that a device of this protocol can't be told, and why; None: it can."""
        return self._unable(pending.command, protocol, pending.channel)

    def _unable(self, command: Command, protocol: str, channel: str) -> tuple[str, str] | None:
        if command.name not in self._enabled:
            return REFUSED, _disabled(command.name)
        plugin = self._plugins.get(protocol)
        if plugin is None:
            return FAILED, f"the device speaks {protocol}, which is not installed"
        support = plugin.commands.get(command.name)
        if support is None:
            known = ", ".join(plugin.commands) or "none"
            return FAILED, f"{protocol} does not know {command.name} (it knows: {known})"
        if channel != "sms" and "data" in support.channels:
            return None
        if channel == "data":
            return FAILED, f"{protocol} takes {command.name} over {', '.join(support.channels)} only: see 'channel'"
        why = self.texting.unable(command, protocol)
        return (FAILED, why) if why else None

    def over_data(self, pending: Pending, protocol: str) -> bool:
        """Whether a device of this protocol may be told a command over data."""
        return pending.channel != "sms" and "data" in self._plugins[protocol].commands[pending.command_name].channels

    # -- new entries

    def tick(self) -> None:
        """Called every L{POLL_S}: read what is new, and see to what is due."""
        if self._busy or self._stopped or not self.store.ready:
            return
        self._busy = True
        d = Deferred.fromCoroutine(self._turn())
        d.addErrback(self._failed)
        d.addBoth(self._done)

    def _done(self, _: object) -> None:
        self._busy = False

    def _failed(self, failure: Failure) -> None:
        if failure.check(NotReady):
            self._joined = False  # a group may be gone with what Redis lost
            text = failure.getErrorMessage()
            if text != self._said:
                self._said = text
                self.log.warn("commands can't be read now: {error}", error=text[:300])
            return
        self.counters["command_errors"] += 1
        self.log.failure("commands ended in an error of our own", failure)

    def stop(self) -> None:
        """Read no more."""
        self._stopped = True

    def restart(self) -> None:
        """There is a new connection: the group is to be there, and what was read before is gone through again."""
        self._joined = False

    async def _turn(self) -> None:
        if not self._joined:
            await self.store.join()
            self._joined = True
            await self._take(mine=True)
        await self._take()
        self._said = ""
        elapsed = self.elapsed()
        if elapsed - self._claimed >= CLAIM_S:
            self._claimed = elapsed
            await self._each(await self.store.claim())
        if elapsed - self._looked >= DUE_S:
            self._looked = elapsed
            await self._see_to_due()

    async def _take(self, mine: bool = False) -> None:
        for _ in range(PAGES):
            given, handed = await self.store.read(mine)
            for _, fields in handed:
                self._look(fields.get("ident", ""))
            await self.store.finished([at for at, _ in handed], handed=True)
            await self._each(given)
            if len(given) < READ and len(handed) < READ:
                return

    async def _each(self, entries: Sequence[tuple[str, dict[str, str]]]) -> None:
        done: list[str] = []
        for entry, fields in entries:
            try:
                if fields:  # else it was done with, but for that
                    await self._accept(entry, fields)
            except StepRefused as error:  # somebody else's keys are in the way
                self.log.error("command {entry} is refused: {error}", entry=entry, error=str(error)[:300])
                if not await self._turned_away(entry, fields, f"Redis refuses it: {str(error)[:200]}"):
                    continue  # it is tried again, the others go on
            except NotReady:
                raise
            except Exception:  # whatever it is, the entries behind this one are not to wait for it
                self.log.failure("command {entry} ended in an error of our own", entry=entry)
                if not await self._turned_away(entry, fields, "an error of the gateway's own; its log says more"):
                    continue
            done.append(entry)
        await self.store.finished(done)

    async def _turned_away(self, entry: str, fields: Mapping[str, str], reason: str) -> bool:
        """A command can't be taken in: say so, without the keys that it would need."""
        self.counters["command_errors"] += 1
        try:
            await self._reject(entry, fields, reason, key=entry)
        except StepRefused:
            return False
        return True

    async def _accept(self, entry: str, fields: Mapping[str, str]) -> None:
        """One entry: whatever is wrong with it is said on the result stream."""
        self.counters["commands"] += 1
        try:
            request = Request.parse(entry, fields)
            if request.guard:
                self.guard.asked(request.guard, self._section.guard_looser)
        except CommandError as error:
            await self._reject(entry, fields, str(error))
            return
        if request.command.name == "cancel":
            await self._cancel(request)
            return
        protocol, seen, interval_s = await self.store.seen(request.ident)
        session = self._sessions.get(request.ident)
        if session is not None and session.loaded:
            protocol, seen, interval_s = session.protocol, session.seen, session.interval_s
        refusal = self._refusal(request, protocol)
        if refusal is not None:
            kind, extra = refusal[0], {"final": True, "reason": refusal[1]}
        else:
            kind, extra = QUEUED, self._first(request, seen, interval_s)
        accepted = await self._store(request, kind, protocol, extra)
        if accepted.kind in (QUEUED, "again"):
            await self._route(request.ident, request.ref, accepted.holder)

    def _refusal(self, request: Request, protocol: str) -> tuple[str, str] | None:
        if request.command.name not in self._enabled:
            return REFUSED, _disabled(request.command.name)
        # of a device that was never heard nobody knows yet
        return self._unable(request.command, protocol, request.channel) if protocol else None

    def _first(self, request: Request, seen: float | None, interval_s: float) -> dict[str, Any]:
        """What is said of a command as it is queued."""
        command, now = request.command, self.clock.seconds()
        extra: dict[str, Any] = {"expires": rfc3339(_made(request.entry, now) + request.ttl_s)}
        if command.args and not command.definition.secret:
            extra["args"] = dict(command.args)
        if command.definition.guarded:
            extra["guard"] = self.guard.asked(request.guard, looser=True)._asdict()
        if seen is not None and interval_s and seen + interval_s >= now:
            extra["next_report"] = rfc3339(seen + interval_s)
        if interval_s and request.ttl_s < interval_s:
            extra["warning"] = (
                f"the ttl of {request.ttl_s:g} s is shorter than the {interval_s:.0f} s between the device's reports"
            )
        return extra

    async def _store(
        self, request: Request, kind: str, protocol: str, extra: Mapping[str, Any], ident: str | None = None
    ) -> Accepted:
        command = request.command
        definition = command.definition
        about = {"ref": request.ref, "request": request.entry, "command": command.name}
        if request.by:
            about["by"] = request.by
        # what gives an engine back is never one too many
        free = command.name == "engine.resume"
        return await self.store.accept(
            request.entry,
            request.ref,
            request.ident if ident is None else ident,
            kind,
            ttl_s=request.ttl_s,
            per_hour=0 if free else self._section.per_hour,
            waiting=10 * self._section.waiting if free else self._section.waiting,
            opposite=definition.opposite,
            about=about,
            extra=extra,
            fields={
                **self._by_sms(request),
                "command": command.name,
                "args": _json(command.args if not (definition.secret and kind != QUEUED) else {}),
                "by": request.by,
                "guard": _json(request.guard),
                "protocol": protocol,
            },
        )

    def _by_sms(self, request: Request) -> dict[str, str]:
        """What is kept of how a device may be told, if not over data alone."""
        if request.channel == "data":
            return {}
        after_s = self.texting.fallback_s if request.sms_after_s is None else request.sms_after_s
        return {
            "channel": request.channel,
            "sms_after_ms": str(int(after_s * 1000) if request.channel == "auto" else 0),
        }

    async def _reject(self, entry: str, fields: Mapping[str, str], reason: str, key: str = "") -> None:
        """
        An entry that makes no sense ends as failed, under the reference that it gave if that can be one.

        @param key: the reference under which that is kept, if not under its own.
        """
        ref, name, ident, by = (fields.get(one, "") for one in ("ref", "command", "ident", "by"))
        ref = ref if REF.fullmatch(ref) else entry
        about = {"ref": ref, "request": entry, "command": name[: FIELDS["command"]]}
        if by:
            about["by"] = by[: FIELDS["by"]]
        self.counters["commands_rejected"] += 1
        await self.store.accept(
            entry,
            key or ref,
            ident if IDENT.fullmatch(ident) else "",
            FAILED,
            ttl_s=0,
            per_hour=0,
            waiting=0,
            opposite="",
            about=about,
            extra={"final": True, "reason": reason},
            fields={"command": about["command"], "args": "{}", "by": by[: FIELDS["by"]], "guard": "{}", "protocol": ""},
        )

    async def _cancel(self, request: Request) -> None:
        """Take back a command that its device was not told yet; both end with that."""
        target = str(request.command.args["ref"])
        if (await self.store.find(request.ref)).get("entry", request.entry) != request.entry:
            return  # another command has that reference, and the same reference twice is one command
        ident, protocol, reason = "", "", ""
        for _ in range(PAGES):
            found = await self.store.find(target)
            pending = self.store.pending(found, 0.0) if found else None
            if not found:
                reason = f"no command has the reference {target!r}"
                break
            if pending is None:
                reason = "what is stored of it makes no sense"
                break
            ident, protocol = pending.ident, found.get("protocol", "")
            if found.get("cancelled_by") == request.entry:  # by us, and we were cut off then
                break
            if found.get("final") == "1":
                reason = f"it has come to its end already: {pending.state}"
                break
            if pending.state != QUEUED:
                reason = f"its device was told already: {pending.state}"
                break
            after = ", after it was sent" if pending.attempts else ""
            by = {"reason": f"cancelled by {request.by or 'a command'}{after}"}
            kept = {"cancelled_by": request.entry}
            if (await self.store.step(pending, CANCELLED, by, fields=kept, final=True)).status == "ok":
                break
        else:
            reason = "it could not be taken back: it changes all the time"
        extra: dict[str, Any] = {"final": True, "args": {"ref": target}}
        kind = FAILED if reason else CONFIRMED
        if reason:
            extra["reason"] = reason
        await self._store(request, kind, protocol, extra, ident)
        self._look(ident)

    async def _route(self, ident: str, ref: str, holder: str) -> None:
        """Have a command told by whoever holds its device; nobody: it waits until it is heard."""
        if holder in ("", self._instance):
            self._look(ident)
            return
        session = self._sessions.get(ident)
        if session is not None and session.loaded:
            self.lost(session)
        try:
            await self.store.hand(holder, ident, ref)
        except StepRefused as error:  # somebody else's key is in the way: it waits, and comes to its end in time
            self.counters["command_errors"] += 1
            self.log.error("{ref} can't be handed to {to}: {error}", ref=ref, to=holder, error=str(error)[:300])
            return
        self.counters["commands_handed"] += 1

    # -- what is due

    async def _see_to_due(self) -> None:
        for _ in range(PAGES):
            due = await self.store.due()
            for holder, pending in due:
                await self._see_to(holder, pending)
            if len(due) < READ:
                return

    async def _see_to(self, holder: str, pending: Pending) -> None:
        """A command that whoever should have seen to it did not: it comes to its end, or is handed over again."""
        await self._route(pending.ident, pending.ref, holder)
        elapsed = self.elapsed()
        if await self._text(holder, pending, elapsed):
            return
        end = pending.expires if pending.state == QUEUED else pending.sent + pending.timeout_s
        # whoever holds the device knows more of it, and is given the time to say so
        if elapsed < end + (OVERDUE_S if holder else 0.0):
            return
        if anew(pending, elapsed):
            await self.store.step(pending, QUEUED, {"reason": f"no answer within {pending.timeout_s:.0f} s"})
            return
        kind, reason = overdue(pending)
        await self.store.step(pending, kind, {"reason": reason}, final=True)

    async def _text(self, holder: str, pending: Pending, elapsed: float) -> bool:
        """
        Have a device that is nowhere live told by SMS, if it may be; whether it was.

        Whoever holds it sees to that himself; where he does not for a while, he is not there any more.
        """
        session = self._sessions.get(pending.ident)
        if pending.state != QUEUED or (session is not None and session.loaded) or pending.expires <= elapsed:
            return False
        if not pending.by_sms(elapsed - (GRACE_S if holder else 0.0)):
            return False
        if pending.definition.guarded:
            if not pending.hurdle:
                hurdle = Hurdle("few", "no live report with a valid fix yet")
                said, fields = {"reason": f"waits: {hurdle.reason}"}, {"reason": hurdle.reason, "why": hurdle.why}
                await self.store.step(pending, QUEUED, said, fields=fields | {"hurdle": "1"})
            return False
        registry, protocol = await self.texting.about(pending.ident)
        if not protocol:
            return False  # what it speaks is not known
        _, _, interval_s = await self.store.seen(pending.ident)
        await self.texting.tell(pending, protocol, registry, interval_s, lambda: "", {}, holding=False)
        return True

    async def _stepped(self, ident: str, ref: str) -> None:
        """A command has come a step further by what became of its text: whoever holds its device is to know."""
        await self._route(ident, ref, await self.store.holder(ident))


def _disabled(name: str) -> str:
    return f"{name} is not enabled: section [commands], key 'enabled' of the gateway's configuration"


def _made(entry: str, now: float) -> float:
    """When an entry was made, by its id; UTC epoch seconds."""
    ms = entry.partition("-")[0]
    return min(int(ms) / 1000, now) if ms.isdecimal() else now


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), separators=(",", ":"))
