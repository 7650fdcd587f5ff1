"""Commands without a network: Redis as far as command.lua goes, a way to it that is stepped, devices to be told."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1
from typing import Any, Final

import txredisapi
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer

from gateway.commands import Command
from gateway.config import CommandsSection, SMSSection
from gateway.downlink.dispatch import Dispatcher
from gateway.downlink.texting import Texting
from gateway.errors import UnsupportedCommand
from gateway.events import Event
from gateway.interfaces import (
    API,
    MORE,
    Answer,
    CommandAnswer,
    Downlink,
    ICommandDevice,
    IDecoder,
    ISMSDevice,
    Kept,
    Levels,
    Memory,
    Message,
    SMSReading,
    SMSText,
    Support,
    Transport,
)
from gateway.registry import Plugin
from gateway.session import Session, Stored
from gateway.sessions import Sessions
from gateway.sinks.commands import CommandStore
from gateway.sinks.connection import Layout
from gateway.sinks.sms import SMSStore
from tests.fakes import RecordingLink, ToyDecoder, ToyOptions

IDENT: Final = "9170123456"
ALL: Final = CommandsSection(enabled=("*",))
#: So long after a command is queued somebody looks at it, ms.
LOOK_MS: Final = 5000
GRACE_MS: Final = 10_000


@implementer(IReactorTime)
class TimeOfDay:
    """
    The time of day beside a clock that nobody sets.

    @ivar set_by: by how many seconds it was set.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.set_by = 0.0

    def seconds(self) -> float:
        return self._clock.seconds() + self.set_by

    def callLater(self, delay: float, callable: Any, *args: object, **kw: object) -> IDelayedCall:
        return self._clock.callLater(delay, callable, *args, **kw)

    def getDelayedCalls(self) -> Any:
        return self._clock.getDelayedCalls()


class Server:
    """
    Redis, as far as commands go: what command.lua does, in memory.

    @ivar set_by: by how many seconds its clock was set.
    @ivar results: what was appended to the result stream: id, type, ident, protocol and the parsed data of each.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.set_by = 0.0
        self.requests: dict[str, dict[str, str]] = {}
        self.waiting: dict[str, list[str]] = {}
        self.looks: dict[str, int] = {}
        self.rates: dict[str, tuple[int, int]] = {}
        self.holders: dict[str, str] = {}
        self.protocols: dict[str, str] = {}
        self.intervals: dict[str, float] = {}
        self.results: list[dict[str, Any]] = []
        #: texts that are to be sent, by id, with the seconds for which they may
        self.texts: dict[str, dict[str, str]] = {}
        #: what the registry says of devices
        self.registry: dict[str, dict[str, str]] = {}
        self.streams: dict[str, dict[str, list[bytes]]] = {}
        self.owned: dict[str, dict[str, tuple[str, int]]] = {}
        self._read: dict[str, int] = {}
        self._number = 0

    @property
    def now(self) -> int:
        """Its time, ms."""
        return round((self._clock.seconds() + self.set_by) * 1000)

    def add(self, key: str, **fields: str) -> str:
        """XADD; the id."""
        self._number += 1
        entry = f"{self.now}-{self._number}"
        flat = [part.encode() for pair in fields.items() for part in pair]
        self.streams.setdefault(key, {})[entry] = flat
        return entry

    def execute(self, args: Sequence[Any]) -> Any:
        """Do a command; its answer."""
        name, *rest = args
        answer: Any = getattr(self, f"_do_{name.lower()}")(*rest)
        return answer

    def _do_xgroup(self, what: str, key: str, *rest: str) -> Any:
        if key in self.owned:
            return txredisapi.ResponseError("BUSYGROUP there is one")
        self.owned[key], self._read[key] = {}, 0
        self.streams.setdefault(key, {})
        return b"OK"

    def _do_xreadgroup(self, *args: Any) -> Any:
        who, count, first, second, after = args[2], args[4], args[6], args[7], args[8]
        found = []
        for key in (first, second):
            if key not in self.owned:
                return txredisapi.ResponseError("NOGROUP")
            owned, stream = self.owned[key], self.streams[key]
            if after == ">":
                entries = [at for at in stream if int(at.split("-")[1]) > self._read[key]][:count]
                for at in entries:
                    owned[at], self._read[key] = (who, self.now), int(at.split("-")[1])
            else:
                entries = [at for at, (owner, _) in owned.items() if owner == who][:count]
            if entries or after != ">":
                found.append([key.encode(), [[at.encode(), stream.get(at)] for at in entries]])
        return found

    def _do_xautoclaim(self, key: str, group: str, who: str, idle: int, *rest: Any) -> Any:
        old = [at for at, (_, when) in self.owned[key].items() if self.now - when >= idle]
        for at in old:
            self.owned[key][at] = who, self.now
        return [b"0-0", [[at.encode(), self.streams[key].get(at)] for at in old if at in self.streams[key]], []]

    def _do_xdel(self, key: str, *entries: str) -> int:
        for at in entries:
            self.streams[key].pop(at, None)
        return 0

    def _do_xack(self, key: str, group: str, *entries: str) -> int:
        for at in entries:
            self.owned[key].pop(at, None)
        return 0

    def _do_xadd(self, key: str, *args: Any) -> bytes:
        fields = args[args.index("*") + 1 :]
        return self.add(key, **dict(zip(fields[::2], fields[1::2], strict=True))).encode()

    def _do_expire(self, *args: Any) -> int:
        return 1

    def _do_hget(self, key: str, field: str) -> Any:
        ident = key.split(":")[2]
        if field == "protocol":
            return self.protocols.get(ident, "").encode() or None
        return json.dumps({"interval": self.intervals.get(ident, 0.0)}).encode()

    def _do_zscore(self, key: str, member: str) -> Any:
        return None

    def _do_get(self, key: str) -> bytes | None:
        return self.holders.get(key.removeprefix("gateway:session:"), "").encode() or None

    def _do_hgetall(self, key: str) -> list[bytes]:
        if key.startswith("gateway:registry:"):
            entry = self.registry.get(key.removeprefix("gateway:registry:"), {})
            return [part.encode() for pair in entry.items() for part in pair]
        return self._flat(key.removeprefix("gateway:request:"))

    def _flat(self, ref: str) -> list[bytes]:
        return [part.encode() for pair in self.requests.get(ref, {}).items() for part in pair]

    def _do_evalsha(self, sha: str, keys: str, key: str, what: str, *args: Any) -> Any:
        if key == "gateway:sms":
            return self._add(*args[4:])
        answer: Any = getattr(self, f"_{what}")(args[1], *args[5:])
        return answer

    def _add(self, id: str, ident: str, ttl: int, per_device: int, per_hour: int, *flat: str) -> bytes:
        if id in self.texts:
            return b"known"
        if sum(text["ident"] == ident for text in self.texts.values()) >= per_device:
            return b"device"
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        self.texts[id] = {"id": id, "ident": ident, "validity_ms": str(ttl), **fields}
        return b"ok"

    def _publish(self, ref: str, kind: str, step: int, extra: str) -> None:
        request = self.requests[ref]
        data = json.loads(request["about"][:-1] + extra + "}")
        digest = sha1(f"command\0{ref}\0{step}".encode(), usedforsecurity=False).hexdigest()[:32]
        self.results.append(
            {"id": digest, "type": kind, "ident": request["ident"], "protocol": request["protocol"], **data}
        )

    def _settle(self, ref: str) -> None:
        request = self.requests[ref]
        request |= {"args": "{}", "expected": "[]"}
        waiting = self.waiting.get(request["ident"], [])
        if ref in waiting:
            waiting.remove(ref)
        if not waiting:
            self.waiting.pop(request["ident"], None)
        self.looks.pop(ref, None)

    def _accept(self, instance: str, entry: str, ref: str, ident: str, ttl: int, *args: Any) -> Any:
        per_hour, room, opposite, extra, kind, many, full, *flat = args
        holder = self.holders.get(ident, "").encode()
        if ref in self.requests:
            return [b"again" if self.requests[ref]["entry"] == entry else b"known", holder, []]
        given = dict(zip(flat[::2], flat[1::2], strict=True))
        queued = min(int(entry.partition("-")[0]), self.now)
        expires, superseded = queued + ttl, []
        count, until = self.rates.get(ident, (0, 0))
        if until <= self.now:
            count = 0
        waiting = self.waiting.get(ident, [])
        if kind == "queued":
            if expires <= self.now:
                kind, extra = "expired", ',"final":true,"reason":"its ttl had passed when it was read"'
            elif per_hour and count >= per_hour:
                kind, extra = "refused", many
            else:
                superseded = [one for one in waiting if opposite and self.requests[one]["command"] == opposite]
                if len(waiting) - len(superseded) >= room:
                    kind, extra, superseded = "refused", full, []
        for other in superseded:
            request = self.requests[other]
            step = int(request["step"]) + 1
            told = "given to the device: it may have been obeyed" if request["state"] == "sending" else "sent"
            untold = request["state"] == "queued" and request.get("attempts", "0") == "0"
            why = "" if untold else f',"reason":"after it was {told}"'
            self._publish(other, "superseded", step, f',"final":true,"superseded_by":"{ref}"{why}')
            request |= {"state": "superseded", "final": "1", "step": str(step)}
            self._settle(other)
        final = kind != "queued"
        self.requests[ref] = {
            "entry": entry, "ref": ref, "ident": ident, "state": kind, "final": f"{final:d}", "step": "1",
            "queued_ms": str(queued), "expires_ms": str(expires), **given,
        }  # fmt: skip
        sms = queued + int(given["sms_after_ms"]) if "sms_after_ms" in given else None
        if sms is not None:
            self.requests[ref]["sms_ms"] = str(sms)
        self._publish(ref, kind, 1, extra)
        if final:
            self.requests[ref]["args"] = "{}"
        else:
            if per_hour:
                self.rates[ident] = (count + 1, until if count else self.now + 3_600_000)
            self.waiting.setdefault(ident, []).append(ref)
            self.looks[ref] = min(self.now + LOOK_MS, expires, expires if sms is None else max(sms, self.now))
        return [kind.encode(), holder, [one.encode() for one in superseded]]

    def _step(self, instance: str, ref: str, after: int, kind: str, extra: str, final: str, *args: Any) -> Any:
        look, holding, in_time, *flat = args
        request = self.requests.get(ref, {})
        left = int(request.get("expires_ms", "0")) - self.now
        if request.get("step") != str(after) or request["final"] == "1":
            return [b"stale", 0, left]
        if holding == "1" and self.holders.get(request["ident"], instance) != instance:
            return [b"held", 0, left]
        if in_time == "1" and left <= 0:
            return [b"late", 0, left]
        request |= dict(zip(flat[::2], flat[1::2], strict=True))
        request |= {"step": str(after + 1), "final": final}
        if kind:
            self._publish(ref, kind, after + 1, extra)
        if kind == "sending":
            request["sent_ms"] = str(self.now)
        if final == "1":
            self._settle(ref)
        elif look != "":
            at = self.now + look
            self.looks[ref] = min(at, self.now + max(left, 0)) if kind == "queued" else at
        return [b"ok", after + 1, left]

    def _load(self, instance: str, ident: str) -> Any:
        return [self.now, *(self._flat(ref) for ref in self.waiting.get(ident, []))]

    def _due(self, instance: str, count: int, lease: int) -> Any:
        found: list[Any] = [self.now]
        for ref in sorted(self.looks, key=lambda one: (self.looks[one], one))[:count]:
            if self.looks[ref] > self.now:
                break
            request = self.requests[ref]
            expires, at = int(request["expires_ms"]), self.now + lease
            if request["state"] == "queued":
                sms = int(request.get("sms_ms", "0"))
                if sms > self.now - GRACE_MS:
                    at = min(at, max(sms, self.now) + GRACE_MS)
                if sms > self.now:
                    at = min(at, sms)
                if expires > self.now:
                    at = min(at, expires)
            self.looks[ref] = at
            found.append([ref.encode(), self.holders.get(request["ident"], "").encode(), self._flat(ref)])
        return found

    def _drop(self, instance: str, ref: bytes, extra: str) -> Any:
        raise AssertionError("what is stored is never damaged here")


class Way:
    """
    A connection to Redis; commands are done at once, or when they are stepped.

    @ivar at_once: whether they are.
    @ivar owed: what was written and is not done yet, where they are not.
    """

    def __init__(self, execute: Callable[[Sequence[Any]], Any]) -> None:
        self._execute = execute
        self.at_once = True
        self.owed: deque[tuple[Sequence[Any], Deferred[Any]]] = deque()

    def command(self, *args: Any) -> Deferred[Any]:
        """Write a command; its answer."""
        d: Deferred[Any] = Deferred()
        self.owed.append((args, d))
        if self.at_once:
            self.step()
        return d

    def step(self) -> bool:
        """Redis does a command and answers; whether there was one."""
        if not self.owed:
            return False
        args, d = self.owed.popleft()
        answer = self._execute(args)
        if isinstance(answer, Exception):
            d.errback(answer)
        else:
            d.callback(answer)
        return True

    def cut(self, done: int) -> None:
        """It is lost: Redis has done so many of the commands, and nobody hears what became of any."""
        owed, self.owed = self.owed, deque()
        for args, _ in list(owed)[:done]:
            self._execute(args)
        for _, d in owed:
            d.errback(txredisapi.ConnectionError("lost"))


SUPPORTED: Final = {
    name: Support(("data",), "certain")
    for name in (
        *("engine.stop", "engine.resume", "interval.set", "position.request", "reboot", "alarm.clear"),
        *("password.set", "raw", "apn.set"),
    )
} | {"arm": Support(("sms",), "likely")}


@implementer(ICommandDevice)
class ToldDevice:
    """
    A toy that can be told something: C{name,token,values} it is told, and so it answers.

    The engine is given back in two forms; C{alarm.clear} is never answered; an apn of C{bad} can't be said, and one of
    C{broken} breaks it.
    """

    api = API
    name = "toy"
    priority = 50
    options = ToyOptions
    commands = SUPPORTED

    def detect(self, prefix: bytes, transport: Transport) -> Answer:
        return MORE(0, "never asked")

    def decoder(self, options: Any, memory: Memory) -> IDecoder:
        decoder: IDecoder = ToyDecoder(b"")
        return decoder

    def encode(self, ident: str, command: Command, options: Any, kept: Kept, now: float, form: int) -> Downlink:
        name, args = command.name, command.args
        values: tuple[str, ...] = tuple(str(value) for value in args.values())
        if args.get("apn") == "bad":
            raise UnsupportedCommand("no such access point")
        if args.get("apn") == "broken":
            raise ZeroDivisionError
        if name.startswith("engine."):
            values = ("1", "1") if name == "engine.stop" else ("1", "0") if form == 0 else ("0", "0")
            name = "S20"
        token = str(int(now))
        data = ",".join((name, token, *values)).encode()
        more = command.name == "engine.resume" and form == 0
        return Downlink(data, name, token, values, answered=command.name != "alarm.clear", more=more)


@implementer(ISMSDevice)
class TextedDevice(ToldDevice):
    """The same, that takes nearly all of it by SMS as well: C{name password}."""

    commands = SUPPORTED | {
        name: Support(("data", "sms"), "certain")
        for name in ("engine.stop", "engine.resume", "interval.set", "apn.set", "reboot", "password.set")
    }

    def set_up(
        self,
        host: str,
        port: int,
        apn: str,
        options: Any,
        registry: Mapping[str, str],
        interval_s: int | None,
        control: str,
    ) -> list[SMSText]:
        return []

    def sms(self, command: Command, options: Any, registry: Mapping[str, str]) -> SMSText:
        if command.args.get("apn") == "bad":
            raise UnsupportedCommand("no such access point")
        return SMSText(f"{command.name} {{password}}", command.name, answered=command.name != "reboot")

    def sms_password(self, options: Any, registry: Mapping[str, str]) -> str:
        return "0000"

    def read_sms(self, text: str, options: Any, registry: Mapping[str, str], now: float) -> SMSReading:
        return SMSReading("unmatched")


class Unit:
    """A device on a gateway: what it says goes to its session's line, as the publisher has it."""

    def __init__(self, process: Process, link: RecordingLink | None = None, ident: str = IDENT) -> None:
        self.process = process
        self.ident = ident
        self.link = link or RecordingLink()
        self.cut = False
        #: whether its frames say what its relay does
        self.shows = True
        self.speed_kmh = 0.0

    @property
    def session(self) -> Session:
        """Its session, which begins if need be."""
        process = self.process
        now = process.clock.seconds()
        session = process.sessions.get(self.ident)
        if session is None:
            session = process.sessions.begin(self.ident, now)
            waiting = bool(process.server.waiting.get(self.ident))
            process.sessions.load(session, Stored(known=True), now)
            session.meet(self.link.peer, self.link.transport_name, "toy", now)
            process.server.holders[self.ident] = process.instance
            process.server.protocols[self.ident] = "toy"
            session.link = self.link
            process.dispatcher.began(session, waiting)
        return session

    def say(self, message: Message, received: float | None = None) -> None:
        """A frame of it comes in."""
        session, process = self.session, self.process
        now = process.clock.seconds() if received is None else received
        session.meet(self.link.peer, self.link.transport_name, "toy", now)
        session.link = self.link
        envelopes = process.sessions.judge(session, message, "toy", now)
        session.answered = now
        if session.line is not None:
            session.line.judged(message, envelopes, now)

    def report(self, time: float | None = None, raw: bytes = b"", **attributes: Any) -> None:
        """It reports where it is, and its relay if it shows it."""
        now = self.process.clock.seconds()
        time = now if time is None else time
        there = {"valid": True, "latitude": 52.0, "longitude": 13.0, "speed_kmh": self.speed_kmh} | attributes
        levels = Levels({"immobilizer": self.cut} if self.shows else {})
        self.say(Message(raw or f"{now} {there}".encode(), self.ident, (Event("position", time, there),), levels))

    def answer(self, data: bytes | None = None, accepted: bool | None = None, values: bool = True) -> None:
        """It answers what it was told last, or as if it had been told this."""
        name, token, *rest = (self.told[-1] if data is None else data).decode().split(",")
        answer = CommandAnswer(name, token, accepted, tuple(rest) if values else ())
        raw = f"{self.process.clock.seconds()} answer {name}".encode()
        self.say(Message(raw, self.ident, (Event("status", None, {}),), answer=answer))

    @property
    def told(self) -> list[bytes]:
        """What it was told on its present link."""
        return [data for data, _ in self.link.commands]

    def moves(self, link: RecordingLink | None = None) -> None:
        """Its connection is lost, and it comes on a new one."""
        self.link.ready = None
        self.link = link or RecordingLink()


class Process:
    """One instance: its sessions, its dispatcher and its way to Redis."""

    def __init__(
        self,
        server: Server,
        clock: Clock,
        instance: str = "here",
        section: CommandsSection = ALL,
        execute: Callable[[Sequence[Any]], Any] | None = None,
        sms: SMSSection | None = None,
    ) -> None:
        self.server = server
        self.clock = TimeOfDay(clock)
        self.instance = instance
        self.way: Way | None = Way(execute or server.execute)
        self.sessions = Sessions()
        self.counters: Counter[str] = Counter()
        layout = Layout("gateway", instance)
        seconds = self.clock.seconds
        self.store = CommandStore(lambda: self.way, layout, seconds, clock.seconds, lambda: 0)  # type: ignore[arg-type, return-value]  # a fake
        device = TextedDevice() if sms is not None else ToldDevice()
        plugin = Plugin("toy", 50, device, ToyOptions(), "test", "0")
        self.texts = SMSStore(lambda: self.way, layout, seconds, lambda stream: 0)  # type: ignore[arg-type, return-value]  # a fake
        self.texting = Texting(self.store, self.texts, [plugin], sms or SMSSection(), clock.seconds, seconds)
        self.dispatcher = Dispatcher(
            self.clock,
            clock.seconds,
            self.store,
            self.sessions,
            [plugin],
            section,
            instance,
            self.counters,
            self.texting,
        )

    def kill(self) -> None:
        """It is gone: what it had written to Redis is done."""
        self.dispatcher.stop()
        way, self.way = self.way, None
        if way is not None:
            way.owed.clear()
        for session in list(self.sessions):
            session.link.ready = None
            self.sessions.drop(session.ident)

    def turn(self, times: int = 1) -> None:
        """Let it read what there is, as it does all the time."""
        for _ in range(times):
            self.dispatcher.tick()
