"""What a consumer has in hand, with a clock and a Redis that only writes down what it is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.entries import Event
from gateway.errors import ContractMismatch, Later
from gateway.sinks.hand import Hand, Terms
from tests.consuming import KEY, report

TERMS = Terms(
    group="map",
    name="me",
    dead="gateway:consumer:dead:map",
    start="0",
    types=("position",),
    in_hand=4,
    deliveries=2,
    retry_after=10.0,
    claim_after=60.0,
    timeout=300.0,
    dead_entries=100,
    forget_after=86_400.0,
)


class FakeLink:
    """Answers at once that all is well, or not at all while it holds."""

    up = True

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.gone = False
        self.held: list[defer.Deferred[Any]] | None = None

    async def ask(self, *args: Any) -> Any:
        """Write it down."""
        self.asked.append(args)
        if self.held is not None:
            self.held.append(defer.Deferred())
            await self.held[-1]
        return [] if self.gone else [args[5:6]] if args[0] == "XCLAIM" else 1

    call = ask

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of all that were of this name, after the key."""
        return [args[2:] for args in self.asked if args[0] == name]


class HandTests(SynchronousTestCase):
    """C{Hand}."""

    def setUp(self) -> None:
        """Make one whose handler returns a Deferred for each event."""
        self.clock = Clock()
        self.link: Any = FakeLink()
        self.counters: Counter[str] = Counter()
        self.given: list[tuple[str, defer.Deferred[None]]] = []
        self.hand = self.made(self.handle)

    def made(self, handle: Callable[[Event], Any]) -> Hand:
        """One with this handler."""
        hand = Hand(self.clock, KEY, TERMS, handle, self.link, self.counters)
        hand.start()
        return hand

    def handle(self, event: Event) -> defer.Deferred[None]:
        """What is in it is up to the test."""
        self.given.append((event.entry, defer.Deferred()))
        return self.given[-1][1]

    def take(self, entry: str, ident: str = "unit-1", deliveries: int = 1, **fields: str) -> None:
        """Take an entry into hand."""
        row = [text.encode() for pair in report(ident, **fields).items() for text in pair]
        self.hand.take(entry.encode(), row, deliveries)

    def entries(self) -> list[str]:
        """What was handed over so far."""
        return [entry for entry, _ in self.given]

    def test_order(self) -> None:
        """The next event of an ident is handed over when the one before it is done; one of another ident at once."""
        self.take("1-0")
        self.take("2-0")
        self.take("3-0", "unit-2")
        self.assertEqual(["1-0", "3-0"], self.entries())
        self.given[1][1].callback(None)
        self.assertEqual(["1-0", "3-0"], self.entries())
        self.given[0][1].callback(None)
        self.assertEqual(["1-0", "3-0", "2-0"], self.entries())

    def test_acknowledged_together(self) -> None:
        """What was handled in a turn is acknowledged with one command, and what was not is not."""
        for n in range(3):
            self.take(f"{n}-1", f"unit-{n}")
        self.given[0][1].callback(None)
        self.given[2][1].callback(None)
        self.assertEqual([], self.link.of("XACK"))
        self.clock.advance(0)
        self.assertEqual([("map", b"0-1", b"2-1")], self.link.of("XACK"))
        self.assertEqual(1, len(self.hand))

    def test_in_hand_until_answered(self) -> None:
        """An entry is in hand until Redis has answered that it is acknowledged."""
        self.link.held = []
        self.take("1-0")
        self.given[0][1].callback(None)
        self.clock.advance(0)
        self.assertIn(b"1-0", self.hand)
        self.link.held[0].callback(None)
        self.assertNotIn(b"1-0", self.hand)

    def test_room(self) -> None:
        """When as much is in hand as may be there is room again when something is done."""
        for n in range(4):
            self.take(f"{n}-1", f"unit-{n}")
        room = defer.Deferred.fromCoroutine(self.hand.room())
        self.assertNoResult(room)
        self.given[3][1].callback(None)
        self.clock.advance(0)
        self.assertEqual(1, self.successResultOf(room))

    def test_fails(self) -> None:
        """An event whose handler failed comes again after a while, those of its ident after it; then it is dead."""
        self.take("1-0")
        self.take("2-0")
        self.given[0][1].errback(ValueError("no"))
        self.clock.advance(9.9)
        self.assertEqual(["1-0"], self.entries())
        self.clock.advance(0.1)
        self.assertEqual(["1-0", "1-0"], self.entries())
        self.assertEqual([("map", "me", 0, b"1-0", "RETRYCOUNT", 2)], self.link.of("XCLAIM"))
        self.given[1][1].errback(ValueError("never"))
        [letter] = self.link.of("XADD")
        self.assertEqual(("MAXLEN", "~", 100, "*", "dead_reason", "ValueError: never"), letter[:6])
        self.clock.advance(0)
        self.assertEqual("2-0", self.entries()[-1])
        self.assertEqual([("map", b"1-0")], self.link.of("XACK"))
        self.assertEqual({"failed": 2, "dead": 1}, self.counters)
        self.assertEqual(2, len(self.flushLoggedErrors(ValueError)))

    def test_raises(self) -> None:
        """A handler that is a plain function, and raises, has failed as well."""
        calls: list[str] = []

        def handle(event: Event) -> None:
            calls.append(event.entry)
            raise ValueError("no")

        self.hand = self.made(handle)
        self.take("1-0", deliveries=2)
        self.assertEqual((["1-0"], {"failed": 1, "dead": 1}), (calls, self.counters))
        self.flushLoggedErrors(ValueError)

    def test_delivered_too_often(self) -> None:
        """What others had so often, and never acknowledged, is dead without one more try."""
        self.take("1-0", deliveries=3)
        self.assertEqual(([], {"dead": 1}), (self.entries(), self.counters))
        self.assertIn("delivered before, and never acknowledged", self.link.of("XADD")[0])

    def test_later(self) -> None:
        """What the application can't take now is no failure, however often."""
        self.take("1-0")
        for n in range(10):
            self.given[n][1].errback(Later("no database"))
            self.clock.advance(10)
        self.assertEqual({("map", "me", 0, b"1-0", "RETRYCOUNT", 1)}, {*self.link.of("XCLAIM")} - self.refreshes())
        self.assertEqual({}, self.counters)

    def refreshes(self) -> set[tuple[Any, ...]]:
        """What kept entries from being taken over."""
        return {args for args in self.link.of("XCLAIM") if args[-1] == "JUSTID"}

    def test_refreshed(self) -> None:
        """What is in hand for long is kept from being idle, without a delivery more."""
        self.take("1-0")
        self.clock.pump([20.0, 20.0, 20.0])
        self.assertEqual([("map", "me", 15_000, b"1-0", "JUSTID")] * 3, self.link.of("XCLAIM"))

    def test_too_slow(self) -> None:
        """A handler has so much time; what it returned is cancelled, and it has failed."""
        self.take("1-0")
        self.clock.advance(300)
        self.assertTrue(self.given[0][1].called)
        self.assertEqual({"failed": 1}, self.counters)
        [failure] = self.flushLoggedErrors(TimeoutError)
        self.assertIn("not handled within 300 s", str(failure.value))

    def test_somebody_elses(self) -> None:
        """What can't be claimed any more is not handed over again."""
        self.take("1-0")
        self.given[0][1].errback(ValueError("no"))
        self.link.gone = True
        self.clock.advance(10)
        self.clock.advance(0)
        self.assertEqual((["1-0"], 1), (self.entries(), self.counters["trimmed"]))
        self.assertEqual(0, len(self.hand))
        self.flushLoggedErrors(ValueError)

    def test_stop(self) -> None:
        """At the end what was begun ends; the rest may be taken over at once, and keeps its count."""
        self.take("1-0")
        self.take("2-0")
        self.take("3-0", "unit-2", deliveries=2)
        self.take("4-0", "unit-2", deliveries=2)
        self.hand.stop()
        done = defer.Deferred.fromCoroutine(self.hand.finish())
        self.given[0][1].callback(None)
        self.assertNoResult(done)
        self.given[1][1].callback(None)
        self.clock.advance(0)
        self.successResultOf(done)
        self.assertEqual(["1-0", "3-0"], self.entries())
        released = [
            ("map", "me", 0, e, "IDLE", 60_001, "RETRYCOUNT", n, "JUSTID") for e, n in ((b"2-0", 0), (b"4-0", 1))
        ]
        self.assertEqual(released, self.link.of("XCLAIM"))

    def test_stop_while_it_waits(self) -> None:
        """An event that failed, and waits to come again, is left to others, and its failure counts."""
        self.take("1-0")
        self.given[0][1].errback(ValueError("no"))
        self.hand.stop()
        self.successResultOf(defer.Deferred.fromCoroutine(self.hand.finish()))
        self.assertEqual([("map", "me", 0, b"1-0", "IDLE", 60_001, "RETRYCOUNT", 1, "JUSTID")], self.link.of("XCLAIM"))
        self.flushLoggedErrors(ValueError)

    def test_another_version(self) -> None:
        """An entry of another version of the contract is not for this hand."""
        with self.assertRaises(ContractMismatch):
            self.take("1-0", v="2")
