"""An ST-907 in a unit test, the whole way from its bytes to the sink: decoder, sessions, publisher, answers."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.interfaces import IDecoder
from gateway.publisher import Bounds, Publisher
from gateway.registry import Plugin, load
from gateway.session import Session, Stored
from gateway.sessions import Sessions
from tests.fakes import NOON, RecordingLink, RecordingSink, entries

IDENT = "9170225361"
#: ACC on and off; everything else is calm.
ON, OFF = 0xFFFFFFFF, 0xFFFFFBFF
#: A network of Spain, and of South Africa, which lies south and east only.
SPAIN, SOUTH_AFRICA = "214,03,13140,5085", "655,01,13140,5085"


def without(word: int, *bits: int) -> int:
    """A status word with these conditions there: their bits are 0."""
    for bit in bits:
        word &= ~(1 << bit)
    return word


def v1(
    when: float,
    word: int = OFF,
    *,
    speed: float = 0.0,
    lat: str = "4219.0032,N",
    lon: str = "00753.0002,W",
    cell: str = SPAIN,
    fix: str = "A",
    kind: str = "V1",
    maker: str = "HQ",
    ident: str = IDENT,
) -> bytes:
    """A report; C{speed} in knots, C{cell} is all that follows the status word."""
    at = time.gmtime(when)
    clock, date = time.strftime("%H%M%S", at), time.strftime("%d%m%y", at)
    tail = f",{cell}" if cell else ""
    return f"*{maker},{ident},{kind},{clock},{fix},{lat},{lon},{speed:06.2f},122,{date},{word:08X}{tail}#".encode()


def binary(when: float, word: int = OFF, *, battery: int = 0, flags: str = "E", ident: str = IDENT) -> bytes:
    """A C{$} frame of 32 bytes at 22.5 and 114.0 degrees, with the end of a line, which says where it ends."""
    stamp = time.strftime("%H%M%S%d%m%y", time.gmtime(when))
    return bytes.fromhex(f"24{ident}{stamp}22300000{battery:02x}114000000{flags}000122{word:08x}ff0000") + b"\r\n"


class UnitCase(SynchronousTestCase):
    """
    A device, a gateway that knows the st907 plugin, and a sink that stores at once.

    @ivar registry: what begins to hold with the next session.
    """

    maxDiff = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOON)
        self.options: dict[str, Any] = {}
        self.registry: dict[str, str] = {}
        self.begin()

    @property
    def now(self) -> float:
        """What the gateway's clock says."""
        return self.clock.seconds()

    def plugin(self) -> Plugin:
        """The device with the options that are set."""
        (found,) = load(["osmand"], {"st907": self.options})
        return found

    def begin(self, stored: Stored | None = None) -> None:
        """A gateway starts, with this in its store, and a device connects."""
        plugin = self.plugin()
        self.sink = RecordingSink()
        self.sink.stored[IDENT] = stored or Stored(registry=self.registry)
        self.sessions = Sessions(devices=[plugin])
        self.publisher = Publisher(self.clock, self.sink, self.sessions, Bounds())
        self.device = plugin
        self.connect()

    def connect(self, port: int = 4711, transport: str = "tcp") -> None:
        """The device comes from another port."""
        self.link = RecordingLink(f"192.0.2.7:{port}", transport)
        self.decoder: IDecoder = self.device.decoder(self.sessions.memory)

    def restart(self) -> None:
        """The gateway is killed and started again: what the store has is all that is left, through JSON."""
        private = [self._private(batch) for batch in self.sink.batches]
        recent = self.session.recent
        ids = b"".join(recent[at : at + 8] for at in range(0, len(recent), 14))
        state = next((text for text in reversed(private) if text), b"")
        json.loads(state)
        self.begin(Stored(True, False, ids, self.session.newest, state, self.registry))

    @staticmethod
    def _private(batch: Any) -> bytes:
        found = [group.split(b"\0", 6)[4] for group in batch.groups if group.split(b"\0", 1)[0] == IDENT.encode()]
        return next((text for text in reversed(found) if text), b"")

    @property
    def session(self) -> Session:
        """The device's."""
        found = self.sessions.get(IDENT)
        assert found is not None
        return found

    def register(self, **fields: str) -> None:
        """An application changes the device's entry in the registry, and says so."""
        self.registry = fields
        self.publisher.register(IDENT, fields)

    def send(self, data: bytes) -> list[dict[str, Any]]:
        """The device sends, and Redis stores; what is new on the streams, with C{data} as an object."""
        before = len(self.sink.batches)
        messages = [*self.decoder.receive(data, self.now)]
        self.publisher.take(messages, self.link, "st907", self.now)
        self.clock.advance(0)
        while self.sink.under_way is not None:
            self.sink.answer()
            self.clock.advance(0)
        found = [entry for batch in self.sink.batches[before:] for entry in entries(batch)]
        for entry in found:
            entry["data"] = json.loads(entry["data"])
        return found

    def report(self, word: int = OFF, every: float = 10.0, off: float = -1.0, **more: Any) -> list[dict[str, Any]]:
        """After a while the device reports; C{off}: what its clock is ahead."""
        self.clock.advance(every)
        return self.send(v1(self.now + off, word, **more))

    def one(self, found: list[dict[str, Any]], kind: str = "position") -> dict[str, Any]:
        """The only entry of a type."""
        (entry,) = self.of(found, kind)
        return entry

    @staticmethod
    def of(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
        """The entries of a type."""
        return [entry for entry in found if entry["type"] == kind]

    def qualities(self, found: list[dict[str, Any]]) -> list[tuple[str, str]]:
        """What was found out, as name and setting."""
        return [(e["data"]["name"], e["data"].get("setting", "")) for e in self.of(found, "device.quality")]

    def edges(self, found: list[dict[str, Any]]) -> list[tuple[str, str]]:
        """Alarms and states, as type and phase."""
        return [(e["type"], e["data"]["phase"]) for e in found if "phase" in e["data"]]

    def answers(self) -> list[bytes]:
        """What the device was told since it was asked last."""
        written, self.link.written = self.link.written, []
        return written


def shown(entry: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    """Some columns of an entry."""
    return tuple(entry[name] for name in names)
