"""What comes in by SMS: whose it is, what is published of it, and what is not."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from gateway import registry
from gateway.errors import NotReady, StepRefused
from gateway.events import Event, json_schema
from gateway.interfaces import CommandAnswer, SMSReading
from gateway.registry import Plugin
from gateway.sinks.sms import Event as Entry
from gateway.sms.inbox import Inbox
from gateway.sms.interfaces import Incoming, Receipt
from tests.command_fakes import TextedDevice
from tests.fakes import NOON, ToyOptions

PHONE: Final = "+4915112345678"
PLACE: Final = "http://maps.google.com/maps?q=+52.5,+13.25 ID:9170225361 FIX:A Speed:12KM/H BAT:4"


class Book:
    """Whose numbers there are."""

    whole = True

    def __init__(self) -> None:
        self.numbers: dict[str, set[str]] = {PHONE: {"9170225361"}}

    def idents(self, sender: str) -> frozenset[str]:
        """The devices of a number."""
        return frozenset(self.numbers.get(sender, ()))


class Store:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.registry: dict[str, dict[str, str]] = {}
        self.entries: list[dict[str, str]] = []
        self.names: dict[str, int] = {}
        self.error: Exception | None = None

    async def about(self, ident: str) -> tuple[dict[str, str], str]:
        """What is registered, and its protocol."""
        if self.error:
            raise self.error
        return self.registry.get(ident, {}), ""

    async def receive(self, name: str, window_s: int, events: list[Entry]) -> bool:
        """Publish."""
        if name and name in self.names:
            return False
        self.names[name] = window_s
        self.entries += [dict(one.fields) for one in events]
        return True

    async def receipt(self, receipt: Receipt) -> tuple[str, dict[str, str]]:
        """A receipt."""
        return receipt.state, {"id": receipt.id}


class Odd(TextedDevice):
    """A plugin that reads what can't be published, or breaks."""

    name = "odd"

    def read_sms(self, text: str, options: Any, registry: Any, now: float) -> SMSReading:
        if text == "break":
            raise ZeroDivisionError
        where = {"latitude": "north"} if text == "north" else {"altitude_m": object()}
        return SMSReading("position", None, (Event("position", None, where),))


class InboxCase(SynchronousTestCase):
    """An inbox."""

    plugins: tuple[Plugin, ...] = tuple(plugin for plugin in registry.load() if plugin.name == "st907")

    def setUp(self) -> None:
        self.book, self.store, self.counters = Book(), Store(), Counter[str]()
        book: Any = self.book
        store: Any = self.store
        self.inbox = Inbox(store, book, self.plugins, lambda: NOON, "gateway/here", 120.0, self.counters)
        self.answers: list[tuple[str, str, bool | None]] = []

        async def awaited(ident: str, answer: CommandAnswer) -> str:
            return "r"

        async def answered(ident: str, answer: CommandAnswer, text: str, received: float) -> str:
            self.answers.append((ident, answer.name, answer.accepted))
            return "r"

        self.inbox.awaited, self.inbox.on_answer = awaited, answered

    def come(self, text: str, sender: str = PHONE, id: str = "") -> list[str]:
        """A text comes in: the types of what was published."""
        before = len(self.store.entries)
        self.successResultOf(self.inbox.received(Incoming(sender, text, id)))
        return [entry["type"] for entry in self.store.entries[before:]]

    def last(self) -> dict[str, Any]:
        """The data of the last entry."""
        data: dict[str, Any] = json.loads(self.store.entries[-1]["data"])
        return data


class TextTests(InboxCase):
    """Texts of devices."""

    def test_kinds(self) -> None:
        """Each leads to its events, and to itself; the position stands before what happened there."""
        for text, types, kind in (
            (PLACE, ["position", "sms.received"], "position"),
            (f"SOS {PLACE}", ["position", "alarm.sos", "sms.received"], "alarm"),
            ("SOS", ["alarm.sos", "sms.received"], "alarm"),
            ("SET OK", ["sms.received"], "answer"),
            ("hello", ["sms.received"], "unmatched"),
            ("", ["sms.received"], "unmatched"),
        ):
            self.assertEqual(types, self.come(text), text)
            data = self.last()
            self.assertEqual((kind, "sms", False), (data["kind"], data["channel"], data["authenticated"]))
        self.assertEqual(2, self.counters["sms_unmatched"])
        for entry in self.store.entries:
            self.assertEqual("9170225361", entry["ident"])
            names = list(json_schema()["$defs"]["position" if entry["type"] == "position" else "event"]["required"])
            self.assertEqual(names, list(entry), "its fields are the contract's, in that order")

    def test_alarm(self) -> None:
        """An alarm says where, is raised, and never cleared."""
        self.come(f"SOS {PLACE}")
        alarm = json.loads(self.store.entries[1]["data"])
        self.assertEqual(
            ("raised", "device", 52.5, True), tuple(alarm[n] for n in ("phase", "origin", "latitude", "valid"))
        )
        self.assertEqual(self.store.entries[0]["id"], alarm["position_id"])

    def test_answers(self) -> None:
        """An answer is given on once it is stored, with whose it is in what is stored."""
        self.come("SET OK")
        self.assertEqual([("9170225361", "", True)], self.answers)
        self.assertEqual(("r", True), (self.last()["ref"], self.last()["accepted"]))

    def test_again(self) -> None:
        """What is brought again under its name is the same; without one that is so of what says where or what."""
        for text, id, types, answers in (
            *(
                ("SET OK", "7", 1, 1),
                ("SET OK", "7", 0, 1),
                ("SET OK", "8", 1, 2),
                ("SET OK", "", 1, 3),
                ("SET OK", "", 1, 4),
            ),
            *((PLACE, "", 2, 5), (PLACE, "", 0, 5), ("hello", "", 1, 5), ("hello", "", 1, 5)),
        ):
            self.assertEqual(types, len(self.come(text, id=id)), (text, id))
            self.assertEqual(answers, len(self.answers), (text, id))

    def test_whose(self) -> None:
        """Of nobody it is dropped; of one of two it has to say which; of one that is turned away it is dropped."""
        self.assertEqual([], self.come("SOS", "+4917000000000"))
        self.book.numbers[PHONE] |= {"9170999999"}
        self.assertEqual([], self.come("SOS"))
        self.assertEqual(2, self.counters["sms_unknown"])
        self.assertEqual(["position", "sms.received"], self.come(PLACE))
        self.book.numbers[PHONE] = {"9170225361"}
        self.store.registry["9170225361"] = {"enabled": "0"}
        self.assertEqual([], self.come("SOS"))
        self.assertEqual(1, self.counters["sms_turned_away"])

    def test_another_ident(self) -> None:
        """One that says that it is another is shown, and is nothing else."""
        self.assertEqual(["sms.received"], self.come(PLACE.replace("9170225361", "9170999999")))
        self.assertEqual("unmatched", self.last()["kind"])
        self.assertEqual([], self.answers)

    def test_away(self) -> None:
        """Before it is known whose numbers there are, and without Redis, it is to be brought again."""
        self.book.whole = False
        self.failureResultOf(self.inbox.received(Incoming(PHONE, "SOS")), NotReady)
        self.book.whole = True
        self.store.error = NotReady("away")
        self.failureResultOf(self.inbox.received(Incoming(PHONE, "SOS")), NotReady)

    def test_anything(self) -> None:
        """What is no Unicode, or too long, is stored as far as it can be."""
        self.come("a\ud800b\0c")
        self.assertEqual("a?bc", self.last()["raw_text"])
        self.come("x" * 100_000)
        self.assertEqual(1600, len(self.last()["raw_text"]))
        self.assertEqual([], self.come("x", "\ud800"))
        self.come("SOS", id="\ud800")

    def test_receipt(self) -> None:
        """A receipt is counted, and given on."""
        followed: list[tuple[str, str]] = []

        async def follow(fields: Any, state: str) -> None:
            followed.append((fields["id"], state))

        self.inbox.on_receipt = follow
        for state in ("delivered", "failed", "pending"):
            d: Deferred[None] = self.inbox.receipt(Receipt("m1", state))
            self.successResultOf(d)
        self.assertEqual([("m1", "delivered"), ("m1", "failed")], followed)


class OddTests(InboxCase):
    """A plugin that is not as it should be."""

    plugins = (Plugin("odd", 50, Odd(), ToyOptions(), "test", "0"),)

    def test_each(self) -> None:
        """Whatever it does, the text is taken, shown as it is, and not brought again and again."""
        for text in ("break", "north", "object"):
            self.assertEqual(["sms.received"], self.come(text))
            self.assertEqual(("unmatched", text), (self.last()["kind"], self.last()["raw_text"]))
        self.assertEqual(3, self.counters["plugin_errors"])
        self.assertEqual(3, len(self.flushLoggedErrors()))

    def test_refused(self) -> None:
        """What Redis refuses is to be brought again."""

        async def refuse(*args: Any) -> bool:
            raise StepRefused("WRONGTYPE")

        self.store.receive = refuse  # type: ignore[assignment]
        self.failureResultOf(self.inbox.received(Incoming(PHONE, "break")), NotReady)
        self.flushLoggedErrors()
