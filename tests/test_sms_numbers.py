"""Phone numbers, whoever wrote them, and whose they are."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.errors import NotReady
from gateway.sinks.connection import Layout
from gateway.sms.numbers import e164, masked, readings
from gateway.sms.phonebook import AGAIN_S, Phonebook


class NumberTests(SynchronousTestCase):
    """One form for all."""

    def test_forms(self) -> None:
        """With the plus sign, without it, of a country, or as no number at all."""
        for text, region, number in (
            *(("+4915112345678", "", "+4915112345678"), ("+49 151 1234-5678", "", "+4915112345678")),
            *(("0151 12345678", "DE", "+4915112345678"), ("015112345678", "", None)),
            *(("4915112345678", "", "+4915112345678"), ("004915112345678", "", "+4915112345678")),
            *(
                ("12345678", "PT", None),
                ("912345678", "PT", "+351912345678"),
                ("Gateway", "DE", None),
                ("", "DE", None),
            ),
            *(("+", "", None), ("+1", "", None), ("+49151123456789012345", "", None), ("٠١٥١", "DE", None)),
        ):
            self.assertEqual(number, e164(text, region), (text, region))

    def test_readings(self) -> None:
        """A sender without a plus sign may be of this country, or of any."""
        self.assertIn("+4915112345678", readings("4915112345678", "DE"))
        self.assertIn("+4915112345678", readings("015112345678", "DE"))
        self.assertEqual((), readings("Operator", "DE"))

    @given(st.text(max_size=40), st.sampled_from(("", "DE", "US")))
    def test_anything(self, text: str, region: str) -> None:
        """Whatever comes is a number or none."""
        for number in (e164(text, region), *readings(text, region)):
            self.assertTrue(number is None or (number[0] == "+" and number[1:].isdecimal()))
        masked(text)

    def test_masked(self) -> None:
        """So much is shown that who knows it knows it again."""
        self.assertEqual("+49****78", masked("+4915112345678"))
        self.assertEqual("****", masked("12345"))
        self.assertNotIn("\x1b", masked("\x1b[31mred"))


class Redis:
    """As much of one as a phonebook asks for."""

    def __init__(self) -> None:
        self.registry: dict[str, Any] = {}
        self.away = False

    def command(self, name: str, *args: Any) -> Deferred[Any]:
        """A command, done."""
        if self.away:
            return fail(NotReady("away"))
        if name == "SCAN":
            return succeed([b"0", [f"gateway:registry:{ident}".encode() for ident in self.registry]])
        entry = self.registry.get(args[0].removeprefix("gateway:registry:"), {})
        return succeed(entry.get(args[1], "").encode() or None) if isinstance(entry, dict) else fail(ValueError("odd"))


class PhonebookTests(SynchronousTestCase):
    """The registry, the other way round."""

    def setUp(self) -> None:
        self.clock, self.redis = Clock(), Redis()
        connection: Any = self.redis
        self.book = Phonebook(lambda: connection, Layout("gateway", "here"), "DE", self.clock.seconds)

    def read(self, *idents: str) -> None:
        """Read all of it, or these."""
        asked = self.book.look(idents) if idents else self.book.read()
        self.successResultOf(Deferred.fromCoroutine(asked))

    def test_whose(self) -> None:
        """By the number in any form; of two devices with one number both."""
        self.redis.registry = {
            "9170000001": {"phone": "+4915112345678"},
            "9170000002": {"phone": "0151 2222222"},
            "9170000003": {"phone": "+4915112345678"},
            "9170000004": {"alias": "none"},
            "changes": {"phone": "+4915199999999"},
            "9170000005": "somebody else's",
            "x": {"phone": "+4915188888888"},
        }
        self.assertFalse(self.book.whole)
        self.read()
        self.assertTrue(self.book.whole)
        self.assertEqual(3, len(self.book))
        self.assertEqual({"9170000001", "9170000003"}, self.book.idents("4915112345678"))
        for sender in ("+491512222222", "491512222222", "01512222222", "00491512222222"):
            self.assertEqual({"9170000002"}, self.book.idents(sender), sender)
        for sender in ("", "Operator", "+4915199999999", "2222222", "+441512222222x", "151"):
            self.assertEqual(frozenset(), self.book.idents(sender), sender)
        self.assertEqual("+491512222222", self.book.number("9170000002"))

    def test_changes(self) -> None:
        """A number that is changed, taken away, or whose device is gone, is nobody's any more."""
        self.redis.registry = {f"917000000{n}": {"phone": f"+491511111111{n}"} for n in range(3)}
        self.read()
        self.redis.registry["9170000000"] = {"phone": "+4915122222220"}
        self.redis.registry["9170000001"] = {}
        del self.redis.registry["9170000002"]
        self.read("9170000000", "9170000001")
        self.assertEqual({"9170000000"}, self.book.idents("+4915122222220"))
        for n in (0, 1):
            self.assertEqual(frozenset(), self.book.idents(f"+491511111111{n}"))
        self.assertFalse(self.book.due())
        self.clock.advance(AGAIN_S)
        self.assertTrue(self.book.due())
        self.read()
        self.assertEqual(frozenset(), self.book.idents("+4915111111112"))
        self.assertEqual(1, len(self.book))

    def test_away(self) -> None:
        """With Redis away it is not read, and says so."""
        self.redis.away = True
        d = Deferred.fromCoroutine(self.book.read())
        self.failureResultOf(d, NotReady)
        self.assertFalse(self.book.whole)
