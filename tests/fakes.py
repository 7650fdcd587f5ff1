"""Parts that stand in for real ones in unit tests: a toy device, a recording sink, a recording link."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from gateway.errors import DecodeError
from gateway.events import COLUMNS, Event
from gateway.interfaces import (
    API,
    MORE,
    NO,
    YES,
    Answer,
    IDecoder,
    IDevice,
    ISink,
    Kept,
    Memory,
    Message,
    Transport,
)
from gateway.registry import Plugin
from gateway.session import Stored
from gateway.tickets import Answer as StoreAnswer
from gateway.tickets import Batch, Ticket

#: Sunday, 22 November 2026, 12:00:00 UTC
NOON = 1_795_348_800.0

Detect = Callable[[bytes], Answer]


def no_memory(ident: str) -> Kept:
    """What decoders are given before an ident's state was read."""
    return Kept()


class Memories(dict[str, Kept]):
    """What decoders keep, by ident."""

    def __call__(self, ident: str) -> Kept:
        return self.setdefault(ident, Kept())


@dataclass(frozen=True)
class ToyOptions:
    """The options of a toy device."""

    greeting: str = "ok"
    loud: bool = False


@implementer(IDecoder)
class ToyDecoder:
    """
    Frames end with C{;}: C{ident:text;} is a report, C{:text;} one without an ident, C{!text;} can't be read.

    C{?} at the end of what is held asks for a decision by silence.
    """

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        self.rest = b""

    @property
    def deadline(self) -> float | None:
        return 3.0 if self.rest.endswith(b"?") else None

    def receive(self, data: bytes, now: float) -> Sequence[Message]:
        *frames, self.rest = (self.rest + data).split(b";")
        return [self._message(frame + b";") for frame in frames]

    def finish(self, now: float) -> Sequence[Message]:
        if not self.rest.endswith(b"?"):
            return []
        frame, self.rest = self.rest, b""
        return [self._message(frame)]

    def _message(self, raw: bytes) -> Message:
        if raw.startswith(b"!"):
            return Message(raw, error=DecodeError("a toy that is broken", raw))
        ident, _, text = raw[:-1].partition(b":")
        event = Event("status", None, {"raw_text": text.decode("latin-1")})
        return Message(raw, ident.decode() or None, (event,), reply=lambda now: self._greeting + raw)


@implementer(IDevice)
class ToyDevice:
    """A device whose detector is a function."""

    api = API
    options = ToyOptions

    def __init__(self, name: str, detect: Detect, priority: int = 50) -> None:
        self.name = name
        self.priority = priority
        self._detect = detect

    def detect(self, prefix: bytes, transport: Transport) -> Answer:
        return self._detect(prefix) if prefix else MORE(0, "nothing yet")

    def decoder(self, options: Any, memory: Memory) -> IDecoder:
        decoder: IDecoder = ToyDecoder(self.name.encode() + b"<")
        return decoder


def script(*steps: tuple[int, Answer]) -> Detect:
    """A detector that gives each answer from that many bytes on."""

    def detect(prefix: bytes) -> Answer:
        answer: Answer = MORE(0, "too little")
        for size, then in steps:
            if len(prefix) >= size:
                answer = then
        return answer

    return detect


def starting(word: bytes, confidence: int = 90) -> Detect:
    """A detector that knows its device by its first bytes."""

    def detect(prefix: bytes) -> Answer:
        if prefix.startswith(word):
            return YES(confidence, f"starts with {word!r}")
        if word.startswith(prefix):
            return MORE(20, "may become it")
        return NO(f"does not start with {word!r}")

    return detect


def plugin(name: str, detect: Detect, priority: int = 50) -> Plugin:
    """A toy device as the registry gives it."""
    return Plugin(name, priority, ToyDevice(name, detect, priority), ToyOptions(), "test", "0")


class RecordingLink:
    """
    Where frames come from in a test; what was written to it, in order.

    @ivar ready: what it says of when a command may be written.
    @ivar commands: those that were, with their lifetimes.
    @ivar all_taken: what it says of whether the peer has all of it.
    """

    def __init__(self, peer: str = "192.0.2.7:4711", transport_name: str = "tcp") -> None:
        self.peer = peer
        self.transport_name = transport_name
        self.order: list[Ticket] = []
        self.written: list[bytes] = []
        self.closed = ""
        self.windowed = transport_name == "udp"
        self.untaken = "its side has not acknowledged what was sent"
        self.ready: float | None = 0.0
        self.commands: list[tuple[bytes, float]] = []
        self.answers = 0
        self.all_taken = True
        self.cut = ""
        self.quieted = 0

    def expect(self, ticket: Ticket) -> None:
        self.order.append(ticket)

    def flush(self) -> None:
        while self.order and self.order[0].out is not None:
            out = self.order.pop(0).out
            if out:
                self.written.append(out)

    def close(self, why: str) -> None:
        self.closed = why

    def ready_in(self) -> float | None:
        return self.ready

    def quiet(self) -> None:
        self.quieted += 1

    def command(self, data: bytes, lifetime_s: float) -> bool:
        if self.ready != 0.0:
            return False
        self.commands.append((data, lifetime_s))
        return True

    def answered(self) -> None:
        self.answers += 1

    def taken(self) -> bool:
        return self.all_taken

    def cut_off(self, why: str) -> None:
        self.cut, self.ready = why, None


@implementer(ISink)
class RecordingSink:
    """
    A sink that keeps what it is given and answers when the test says so.

    @ivar stored: what is kept of idents, for C{begin}; C{elsewhere}: those that another instance has held since.
    @ivar looked: those that were read and not taken.
    @ivar waits: whether C{begin} waits for L{begun}.
    @ivar quarantined: what was refused for good, with the reason.
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.begins: list[list[str]] = []
        self.stored: dict[str, Stored] = {}
        self.elsewhere: set[str] = set()
        self.looked: list[str] = []
        self.waits = False
        self.quarantined: list[tuple[bytes, str]] = []
        self.under_way: Deferred[StoreAnswer] | None = None
        self._begin: Deferred[list[Stored]] | None = None

    def begin(self, idents: Sequence[str], take: bool = True) -> Deferred[list[Stored]]:
        self.begins.append(list(idents))
        if not take:
            self.looked += idents
        if self.waits:
            self._begin = Deferred()
            return self._begin
        return succeed(self._kept(idents))

    def _kept(self, idents: Sequence[str]) -> list[Stored]:
        return [self.stored.get(ident, Stored())._replace(mine=ident not in self.elsewhere) for ident in idents]

    def read(self, idents: Sequence[str]) -> Deferred[list[Stored]]:
        return self.begin(idents)

    def quarantine(self, group: bytes, reason: str) -> Deferred[None]:
        self.quarantined.append((group, reason))
        return succeed(None)

    def begun(self) -> None:
        """Redis answers the C{begin} that is under way."""
        waiting, self._begin = self._begin, None
        assert waiting is not None, "nothing begins"
        waiting.callback(self._kept(self.begins[-1]))

    def store(self, batch: Batch) -> Deferred[StoreAnswer]:
        if self.under_way is not None:
            raise AssertionError("a second batch while one is under way")
        self.batches.append(batch)
        self.under_way = Deferred()
        return self.under_way

    def answer(self, codes: str = "", reasons: Sequence[str] = (), lost: Sequence[str] = ()) -> None:
        """Redis answers the batch that is under way."""
        waiting, self.under_way = self.under_way, None
        assert waiting is not None, "nothing is under way"
        waiting.callback(StoreAnswer(codes, reasons, lost))

    @property
    def last(self) -> list[dict[str, Any]]:
        """The events of the newest batch."""
        return entries(self.batches[-1])

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events of all batches."""
        return [entry for batch in self.batches for entry in entries(batch)]


def entries(batch: Batch) -> list[dict[str, Any]]:
    """The events of a batch as consumers would read them, with C{ident} and the script's C{head}."""
    names = [name for name in COLUMNS if name != "device_id"]
    where, seldom = names[:5], names[5:]
    found = []
    for group in batch.groups:
        ident, device_id, flags, ttl, _, count, rest = group.split(b"\0", 6)
        for _ in range(int(count)):
            head, rest = rest[:4].decode(), rest[12:]  # the beginning of the id follows the head
            fields = ["stamp", "id", "time", "received", *(where if head[0] == "p" else ()), "type", "protocol"]
            fields += [*(seldom if head[0] == "p" else ()), "data"]
            *values, rest = rest.split(b"\0", len(fields))
            entry: dict[str, Any] = {
                "ident": ident.decode(), "device_id": device_id.decode(), "flags": flags.decode(),
                "ttl": ttl.decode(), "head": head,
            }  # fmt: skip
            entry |= {name: value.decode() for name, value in zip(fields, values, strict=True)}
            found.append(entry)
        assert rest == b"", rest
    return found


def by_type(events: Iterable[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """Those of one type."""
    return [event for event in events if event["type"] == kind]
