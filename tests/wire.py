"""From bytes on a wire to stream entries, through all of a gateway that has no network and no clock of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from time import gmtime, strftime
from typing import Any, NamedTuple

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway import registry
from gateway.interfaces import IDecoder
from gateway.publisher import Bounds, Publisher
from gateway.session import Stored
from gateway.sessions import Sessions
from gateway.tickets import Batch
from tests.fakes import NOON, RecordingLink, RecordingSink, entries

IDENT = "9170225361"


class Entry(NamedTuple):
    """An entry of a stream: its type, all of its fields as text, and what is in C{data}."""

    type: str
    fields: Mapping[str, str]
    data: Mapping[str, Any]

    @property
    def edge(self) -> tuple[str, str | None]:
        """Of an alarm or a state: type and phase."""
        return self.type, self.data.get("phase")


def dated(seconds: float) -> tuple[str, str]:
    """C{HHMMSS} and C{DDMMYY} of so many seconds after noon."""
    when = gmtime(NOON + seconds)
    return strftime("%H%M%S", when), strftime("%d%m%y", when)


def text(word: str = "FFFFFFFF", seconds: float = 0, flag: str = "A", tail: str = ",214,03,13140,5085") -> bytes:
    """A V1 report of the usual form, so many seconds after noon: a car at 34 km/h."""
    time, date = dated(seconds)
    place = "4221.1699,N,00752.5296,W,018.47,122"
    return f"*HQ,{IDENT},V1,{time},{flag},{place},{date},{word}{tail}#".encode()


def odd_text(word: str = "FFFFFFFF", seconds: float = 0, flag: str = "A") -> bytes:
    """The same in another than the usual form: five decimals, speed and course without zeros, a lower-case word."""
    time, date = dated(seconds)
    place = "4221.16990,N,752.52960,W,18.47,122.0"
    return f"*HQ,{IDENT},V1,{time},{flag},{place},{date},{word.lower()}#".encode()


def binary(word: str = "FFFFFFFF", seconds: float = 0, flag: str = "A") -> bytes:
    """The same as a C{$} frame of 45 bytes, whose speed is in whole knots."""
    time, date = dated(seconds)
    nibble = "6" if flag == "A" else "4"
    tail = "ff001506" "0000002c" "00d6" "03" "3354" "13dd" "1f"  # fmt: skip
    return bytes.fromhex(f"24{IDENT}{time}{date}42211699" + "00" + f"007525296{nibble}018122{word}{tail}")


class WireCase(SynchronousTestCase):
    """One connection to a gateway whose store is a recording sink."""

    maxDiff = None

    def setUp(self) -> None:
        self.sink = RecordingSink()
        self.start()

    def start(self) -> None:
        """Put a gateway together that knows what the sink has; it is noon."""
        self.clock = Clock()
        self.clock.advance(NOON)
        self.sessions = Sessions(devices=registry.load())
        self.publisher = Publisher(self.clock, self.sink, self.sessions, Bounds())
        self.connect()

    def connect(self) -> None:
        """A new connection of the device."""
        self.link = RecordingLink()
        (plugin,) = (plugin for plugin in registry.load() if plugin.name == "st907")
        self.decoder: IDecoder = plugin.decoder(self.sessions.memory)

    def restart(self, *, lose: bool = False, seconds: float = 0) -> None:
        """
        The gateway ends and starts again, so many seconds after noon.

        @param lose: nothing of the device's state is left, but that it is known.
        """
        session = self.sessions.get(IDENT)
        assert session is not None
        state = session.dump()
        if lose:
            self.sink.stored[IDENT] = Stored(known=True, held=True)
        else:
            self.sink.stored[IDENT] = Stored(known=True, held=True, newest=session.newest, state=state)
        self.start()
        self.at(seconds)

    def at(self, seconds: float) -> None:
        """Let it be so many seconds after noon."""
        self.clock.advance(NOON + seconds - self.clock.seconds())

    def send(self, data: bytes, seconds: float | None = None) -> list[Entry]:
        """The entries that these bytes lead to, received so many seconds after noon; silence follows them."""
        if seconds is not None:
            self.at(seconds)
        now = self.clock.seconds()
        messages = [*self.decoder.receive(data, now), *self.decoder.finish(now)]
        count = len(self.sink.batches)
        self.publisher.take(messages, self.link, "st907", now)
        return self._entries(count)

    def tick(self, seconds: float) -> list[Entry]:
        """The entries that nothing but time leads to."""
        self.at(seconds)
        count = len(self.sink.batches)
        self.publisher.tick(self.clock.seconds())
        return self._entries(count)

    def _entries(self, count: int) -> list[Entry]:
        self.clock.advance(0)
        while self.sink.under_way is not None:
            self.sink.answer()
            self.clock.advance(0)
        found = [entry for batch in self.sink.batches[count:] for entry in _of(batch)]
        return [entry for entry in found if not entry.type.startswith("device.connected")]


def _of(batch: Batch) -> list[Entry]:
    return [Entry(fields["type"], fields, json.loads(fields["data"])) for fields in entries(batch)]


def report_of(found: Sequence[Entry]) -> Entry:
    """The position or status among entries: there is one."""
    (report,) = (entry for entry in found if entry.type in ("position", "status"))
    return report


def edges_of(found: Sequence[Entry]) -> list[Entry]:
    """The alarms and states among entries, and whatever else is no report."""
    return [entry for entry in found if entry.type not in ("position", "status")]
