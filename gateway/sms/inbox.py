"""
What comes in by SMS: whose it is, what it says, and where that goes.

The number of an SMS can be forged: what it says is data and never authority.
It raises alarms and clears none, moves no state of a device, and causes no
command.  What is from nobody known is counted and dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from gateway.errors import NotReady, StepRefused
from gateway.events import STREAM_OF, event_digest
from gateway.fields import rfc3339
from gateway.identity import disabled
from gateway.interfaces import CommandAnswer, Message, SMSReading
from gateway.records import entry, render
from gateway.registry import Plugin
from gateway.session import Envelope
from gateway.sinks.sms import Event, SMSStore
from gateway.sms.interfaces import Incoming, ISMSInbox, Receipt
from gateway.sms.numbers import masked
from gateway.sms.phonebook import Phonebook
from gateway.tickets import PUBLISHED

#: No text is longer, in characters: ten parts of an SMS.
LONGEST: Final = 1600
#: For so long a text is known again, s: where the provider names it, and where it does not.
NAMED_S: Final = 7 * 86_400
UNNAMED_S: Final = 600
#: What says where it was, or that something happens, is the same when it comes again; an answer need not be.
_THE_SAME: Final = frozenset({"position", "alarm", "configuration"})
#: How often strangers are spoken of in the log, s.
QUIET_S: Final = 60.0

Awaited = Callable[[str, CommandAnswer], Awaitable[str]]
#: Called with what a device answers: its ident, the answer, the text, and when it came, UTC epoch seconds.
Answered = Callable[[str, CommandAnswer, str, float], Awaitable[str]]


@implementer(ISMSInbox)
class Inbox:
    """Takes texts and receipts of a transport."""

    log = Logger()

    def __init__(
        self,
        store: SMSStore,
        book: Phonebook,
        plugins: Sequence[Plugin],
        seconds: Callable[[], float],
        source: str,
        lag_s: float,
        counters: Counter[str],
    ) -> None:
        """
        @param source: of its events, C{gateway/<instance>}.
        @param lag_s: a report of that age is late.
        """
        self._store = store
        self._book = book
        self._plugins = {plugin.name: plugin for plugin in plugins if plugin.has_sms}
        self._seconds = seconds
        self._source = source
        self.lag_s = lag_s
        self._counters = counters
        self._said = 0.0
        self._refused = ""
        #: called with an answer: gives the reference of the command that it is to, or nothing
        self.awaited: Awaited = _nobodys
        #: called with an answer once it is stored
        self.on_answer: Answered = _nobody
        #: called with what became of a text that had been sent, its fields and its state
        self.on_receipt: Callable[[Mapping[str, str], str], Awaitable[None]] = _nothing

    def received(self, incoming: Incoming) -> Deferred[None]:
        return Deferred.fromCoroutine(self._receive(incoming))

    def receipt(self, receipt: Receipt) -> Deferred[None]:
        return Deferred.fromCoroutine(self._settle(receipt))

    async def _settle(self, receipt: Receipt) -> None:
        became, fields = await self._store.receipt(receipt)
        if became in ("delivered", "failed"):
            self._counters[f"sms_out_{became}"] += 1
            await self.on_receipt(fields, became)

    async def _receive(self, incoming: Incoming) -> None:
        if not self._book.whole:
            raise NotReady("whose numbers there are is not known yet")
        now = self._seconds()
        self._counters["sms_received"] += 1
        # what is no Unicode can't be stored
        sender, text = (one.replace("\0", "").encode("utf-8", "replace").decode() for one in incoming[:2])
        text = text[:LONGEST]
        idents = self._book.idents(sender)
        if not idents:
            self._stranger(sender, "no device of the registry has that number", now)
            return
        found = await self._whose(idents, text, now)
        if found is None:
            self._stranger(sender, f"{len(idents)} devices of the registry have that number", now)
            return
        ident, registry, plugin, reading = found
        if disabled(registry):
            self._counters["sms_turned_away"] += 1
            return
        about: dict[str, Any] = {"kind": reading.kind, "raw_text": text, "channel": "sms", "authenticated": False}
        events: list[Envelope] = []
        if reading.ident is not None and reading.ident != ident:
            about["reason"] = f"it says that it is {reading.ident[:32]}, and the number is that of {ident}"
            about["kind"] = "unmatched"
        else:
            events = self._events(ident, plugin.name, text, reading, now)
        if reading.answer is not None and reading.answer.accepted is not None:
            about["accepted"] = reading.answer.accepted
        name, window_s = self._known_by(incoming, text, about["kind"])
        answer = reading.answer if about["kind"] != "unmatched" else None
        if answer is not None and (ref := await self.awaited(ident, answer)):
            about["ref"] = ref
        digest = event_digest(ident, plugin.name, text.encode(), "sms.received", 0, rfc3339(now))
        came = Envelope(digest, "sms.received", now, None, about)
        whose = (ident, registry, plugin.name, masked(sender), now)
        try:
            entries = self._entries([*events, came], *whose)
        except Exception:  # foreign values: the text is not to be brought again and again for them
            self._counters["plugin_errors"] += 1
            self.log.failure("what device plugin {plugin} reads of a text can't be published", plugin=plugin.name)
            about["kind"], answer = "unmatched", None
            entries = self._entries([came], *whose)
        if not await self._publish(name, window_s, entries):
            return  # it was brought before
        if about["kind"] == "unmatched":
            self._counters["sms_unmatched"] += 1
        if answer is not None:
            await self.on_answer(ident, answer, text, now)

    async def _publish(self, name: str, window_s: int, entries: Sequence[Event]) -> bool:
        """Store what came in, unless it was before."""
        try:
            return await self._store.receive(name, window_s, entries)
        except StepRefused as error:  # somebody else's key is in the way, say: it is brought again, until it is not
            if str(error) != self._refused:
                self._refused = str(error)
                self.log.error("texts can't be stored: Redis refuses it: {error}", error=str(error)[:300])
            raise NotReady(str(error)) from error

    async def _whose(
        self, idents: frozenset[str], text: str, now: float
    ) -> tuple[str, Mapping[str, str], Plugin, SMSReading] | None:
        """Which of the devices of a number says this, and what that is; None: it can't be told."""
        for ident in sorted(idents):
            registry, protocol = await self._store.about(ident)
            candidates = [self._plugins[protocol]] if protocol in self._plugins else [*self._plugins.values()]
            readings = [(plugin, self._read(plugin, text, registry, now)) for plugin in candidates]
            # of a device that was never heard the first that can read it will do
            plugin, reading = next(((p, r) for p, r in readings if r.kind != "unmatched"), readings[0])
            if len(idents) == 1 or reading.ident == ident:
                return ident, registry, plugin, reading
        return None

    def _read(self, plugin: Plugin, text: str, registry: Mapping[str, str], now: float) -> SMSReading:
        try:
            return plugin.read_sms(text, registry, now)
        except Exception:  # foreign code: a device plugin
            self._counters["plugin_errors"] += 1
            self.log.failure("device plugin {plugin} failed on a text", plugin=plugin.name)
            return SMSReading("unmatched")

    def _stranger(self, sender: str, why: str, now: float) -> None:
        self._counters["sms_unknown"] += 1
        if not 0.0 <= now - self._said < QUIET_S:
            self._said = now
            self.log.warn("a text from {sender} is dropped: {why}", sender=masked(sender), why=why)

    def _events(self, ident: str, protocol: str, text: str, reading: SMSReading, now: float) -> list[Envelope]:
        """The events that a text leads to, a position before what happened there."""
        found: list[Envelope] = []
        where: dict[str, Any] = {}
        for index, event in enumerate(sorted(reading.events, key=lambda one: STREAM_OF[one.type] != "position")):
            time = event.time
            attributes = {**event.attributes, "channel": "sms", "authenticated": False}
            if time is None:
                attributes["time_source"] = "server"
            digest = event_digest(
                ident, protocol, text.encode(), event.type, index, rfc3339(now) if time is None else None
            )
            if STREAM_OF[event.type] == "position":
                if time is not None and now - time > self.lag_s:
                    attributes["late"] = "lag"
                places = ("latitude", "longitude", "last_latitude", "last_longitude", "speed_kmh", "valid")
                where = {name: attributes[name] for name in places if name in attributes}
                where["position_id"] = digest.hex()
                attributes["transport"] = "sms"
            else:
                attributes = {"phase": "raised", "origin": "device", **where, **attributes}
            found.append(Envelope(digest, event.type, now if time is None else time, time, attributes))
        return found

    def _entries(
        self,
        events: Sequence[Envelope],
        ident: str,
        registry: Mapping[str, str],
        protocol: str,
        peer: str,
        now: float,
    ) -> list[Event]:
        message, device_id = Message(b"", ident), registry.get("device_id", "").replace("\0", "")
        entries = []
        for envelope in events:
            record = render(envelope, message, None, None, protocol, now, PUBLISHED, first=True)
            fields = entry(record, self._source, ident, device_id)
            if "peer" in fields:
                fields["peer"] = peer
            entries.append(Event(STREAM_OF[envelope.type], fields))
        return entries

    @staticmethod
    def _known_by(incoming: Incoming, text: str, kind: str) -> tuple[str, int]:
        """The name under which a text is known when it is brought again, and for how long; empty: under none."""
        if incoming.id:
            what, window_s = f"id\0{incoming.id}", NAMED_S
        elif kind in _THE_SAME:
            what, window_s = text, UNNAMED_S
        else:
            return "", 0
        return blake2b(f"{incoming.sender}\0{what}".encode("utf-8", "replace"), digest_size=16).hexdigest(), window_s


async def _nobody(ident: str, answer: CommandAnswer, text: str, received: float) -> str:
    return ""


async def _nobodys(ident: str, answer: CommandAnswer) -> str:
    return ""


async def _nothing(fields: Mapping[str, str], state: str) -> None:
    pass
