"""
What a consumer has in hand: each entry is seen to its end, those of one ident one after the other.

An entry is in hand from when it was read or taken over until its
acknowledgement was answered.  While it is, its idle time is kept short, so that
nobody else takes it for abandoned, however long its handler takes.  What was
not handled when this ends, in whatever way, is still pending in Redis.
"""

from __future__ import annotations

import inspect
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import txredisapi
from twisted.internet import defer, task
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.entries import Event, chosen
from gateway.errors import Later, Refused, UnreadableEntry
from gateway.sinks.link import Link

#: So long handlers may keep the reactor before it does other things in between.
TURN_S: Final = 0.05
#: How many characters of the reason are in a dead letter.
REASON: Final = 300

Handle = Callable[[Event], Awaitable[object] | None]


@dataclass(frozen=True, slots=True)
class Terms:
    """
    How a group is read; seconds, where nothing else is said.

    @ivar dead: key of the dead letters.
    @ivar start: where a group begins that does not exist yet: C{0}, or C{$} for what comes from now on.
    @ivar types: which events are handed to the handler; the others are acknowledged and counted.
    @ivar in_hand: how many entries of a shard are in hand at most.
    @ivar deliveries: how often an entry is delivered before it is a dead letter.
    @ivar retry_after: until an event whose handler failed is handed to it again.
    @ivar claim_after: for which an entry is idle when it is taken over.
    @ivar timeout: that a handler may take.
    @ivar dead_entries: how many dead letters are kept, about.
    @ivar forget_after: for which a consumer without entries has done nothing when it is deleted.
    """

    group: str
    name: str
    dead: str
    start: str
    types: tuple[str, ...]
    in_hand: int
    deliveries: int
    retry_after: float
    claim_after: float
    timeout: float
    dead_entries: int
    forget_after: float


class Delivery:
    """An entry in hand."""

    __slots__ = ("deliveries", "entry", "event", "handed", "reason", "row")

    def __init__(self, entry: bytes, row: Sequence[bytes], deliveries: int) -> None:
        self.entry = entry
        self.row = row
        self.deliveries = deliveries
        #: None: it can't be read
        self.event: Event | None = None
        #: whether this delivery was one to the handler, and counts
        self.handed = False
        #: why it is not handled, as far as is known
        self.reason = "delivered before, and never acknowledged"


class Hand:
    """
    The entries of one stream that are in hand.

    @ivar failed: fires with what makes it of no use to go on.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, key: str, terms: Terms, handle: Handle, link: Link, counters: Counter[str]
    ) -> None:
        """@param key: of the stream."""
        self._reactor = reactor
        self._key = key
        self._stream = key.rpartition(":")[2]
        self._terms = terms
        self._handle = handle
        self._link = link
        self._counters = counters
        self._hand: dict[bytes, Delivery] = {}
        # of each ident, in order; the first of them is being handled.  What can't be read stands for itself
        self._lanes: dict[str | bytes, deque[Delivery]] = {}
        self._works: dict[str | bytes, defer.Deferred[None]] = {}
        self._to_acknowledge: list[Delivery] = []
        self._pauses: set[defer.Deferred[None]] = set()
        self._changed: list[defer.Deferred[None]] = []
        self._turn = 0.0
        self._later = self._stopped = False
        self._refreshing = task.LoopingCall(self._refresh)
        self._refreshing.clock = reactor
        self.stopping = False
        self.failed: defer.Deferred[None] = defer.Deferred()

    def __contains__(self, entry: bytes) -> bool:
        return entry in self._hand

    def __len__(self) -> int:
        return len(self._hand)

    # -- life

    def start(self) -> None:
        """Keep what is in hand from being taken over."""
        self._refreshing.start(self._terms.claim_after / 3, now=False)

    def fail(self, failure: Failure) -> None:
        """Go on no more, unless this is how the end looks like."""
        if not (self.stopping and failure.check(defer.CancelledError)) and not self.failed.called:
            self.failed.errback(failure)

    def stop(self) -> None:
        """Begin nothing any more."""
        self.stopping = True
        for d in [*self._pauses]:
            d.cancel()
        self._change()

    async def finish(self) -> None:
        """After L{stop}: wait for what was begun, and leave the rest to others."""
        while self._works or self._to_acknowledge:
            await self._change_to_come()
        # it can be taken over at once, and what was not handed over was not delivered
        idle = int(self._terms.claim_after * 1000) + 1
        counts: dict[int, list[bytes]] = {}
        for entry, delivery in self._hand.items():
            counts.setdefault(delivery.deliveries - (not delivery.handed), []).append(entry)
        for n, entries in counts.items():
            await self._claim(0, *entries, "IDLE", idle, "RETRYCOUNT", n, "JUSTID")
        self._hand.clear()

    def end(self) -> None:
        """Let go of everything."""
        self._stopped = True
        if self._refreshing.running:
            self._refreshing.stop()
        for d in [*self._works.values()]:
            d.cancel()

    # -- waiting

    def _change(self) -> None:
        """There is room, or less to do."""
        waiting, self._changed = self._changed, []
        for d in waiting:
            if not d.called:
                d.callback(None)

    def _change_to_come(self) -> defer.Deferred[None]:
        d: defer.Deferred[None] = defer.Deferred()
        self._changed.append(d)
        return d

    async def pause(self, seconds: float) -> None:
        """Wait, but not longer than until the end."""
        if self.stopping:
            return
        d: defer.Deferred[None] = task.deferLater(self._reactor, seconds)
        self._pauses.add(d)
        try:
            await d
        except defer.CancelledError:
            if not self.stopping or self._stopped:
                raise
        finally:
            self._pauses.discard(d)

    async def room(self) -> int:
        """How many entries can be taken into hand, as soon as it is one; 0 at the end."""
        while not self.stopping and len(self._hand) >= self._terms.in_hand:
            await self._change_to_come()
        return 0 if self.stopping else self._terms.in_hand - len(self._hand)

    async def breathe(self) -> None:
        """Let the reactor do other things, where handlers that are plain functions keep it."""
        if self._reactor.seconds() - self._turn > TURN_S:
            await task.deferLater(self._reactor, 0)
            self._turn = self._reactor.seconds()

    # -- an entry

    def take(self, entry: bytes, row: Sequence[bytes], deliveries: int) -> None:
        """Take an entry into hand, which was delivered so often, this time included."""
        if entry in self._hand:
            return
        delivery = self._hand[entry] = Delivery(entry, row, deliveries)
        try:
            delivery.event = Event.parse(self._stream, entry.decode(), row)
        except UnreadableEntry as error:
            delivery.reason = str(error)
        name: str | bytes = entry if delivery.event is None else delivery.event.ident
        lane = self._lanes.setdefault(name, deque())
        lane.append(delivery)
        if name not in self._works and not self.stopping:
            work = self._works[name] = defer.Deferred.fromCoroutine(self._work(name, lane))
            work.addErrback(self.fail)
            work.addBoth(lambda _: self._worked(name))

    async def _work(self, name: str | bytes, lane: deque[Delivery]) -> None:
        while lane and not self.stopping:
            await self._settle(lane[0])
            await self.breathe()
            lane.popleft()
            if not lane:
                del self._lanes[name]

    def _worked(self, name: str | bytes) -> None:
        del self._works[name]
        self._change()

    async def _settle(self, delivery: Delivery) -> None:
        """Hand over an event until it is handled, dead, or somebody else's."""
        event, terms = delivery.event, self._terms
        while not self.stopping:
            if event is None or delivery.deliveries > terms.deliveries:
                await self._bury(delivery)
                return
            if not chosen(event.type, terms.types):
                self._counters["ignored"] += 1
                self._acknowledge(delivery)
                return
            again = delivery.deliveries
            delivery.handed = True
            try:
                await self._handled(event)
            except Later as error:
                delivery.handed = False
                if not self._later:
                    self.log.warn("{key}: the handler can't take events now: {error}", key=self._key, error=str(error))
                self._later = True
            except Exception as error:  # the application's own
                if self._stopped:
                    raise
                self._failed(delivery, error)
                again += 1
            else:
                self._later = False
                self._counters["handled"] += 1
                self._acknowledge(delivery)
                return
            if again <= terms.deliveries:
                await self.pause(terms.retry_after)
            if self.stopping or not await self._again(delivery, again):
                return

    async def _handled(self, event: Event) -> None:
        result = self._handle(event)
        if inspect.isawaitable(result):

            async def wait() -> None:
                await result

            d: defer.Deferred[None] = defer.Deferred.fromCoroutine(wait())
            await d.addTimeout(self._terms.timeout, self._reactor, onTimeoutCancel=_took_too_long)

    def _failed(self, delivery: Delivery, error: Exception) -> None:
        self._counters["failed"] += 1
        delivery.reason = f"{type(error).__name__}: {error}"
        self.log.failure(
            "{key}: the handler failed with {entry}, delivery {n} of {most}",
            Failure(error),
            key=self._key,
            entry=delivery.entry.decode(),
            n=delivery.deliveries,
            most=self._terms.deliveries,
        )

    async def _again(self, delivery: Delivery, deliveries: int) -> bool:
        """Count one more delivery; whether there is still something to deliver."""
        if deliveries > self._terms.deliveries:
            delivery.deliveries = deliveries
            return True
        answer = await self._claim(0, delivery.entry, "RETRYCOUNT", deliveries)
        delivery.deliveries, delivery.handed = deliveries, False
        if answer and answer[0] is not None:
            return True
        if not await self._link.call("XRANGE", self._key, delivery.entry, delivery.entry):
            self.trimmed([delivery.entry])
        self._acknowledge(delivery)  # else somebody else took it over, and was quicker
        return False

    async def _claim(self, *args: str | bytes | int) -> Sequence[Any]:
        """XCLAIM what is in hand; nothing where the group is gone."""
        head = ("XCLAIM", self._key, self._terms.group, self._terms.name)
        try:
            found: Sequence[Any] = await self._link.call(*head, *args)
        except txredisapi.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            return ()
        return found

    def trimmed(self, entries: Sequence[bytes]) -> None:
        """These entries are gone, and were pending."""
        if entries:
            self._counters["trimmed"] += len(entries)
            self.log.warn(
                "{key}: {n} entries that group {group} had read and not acknowledged were trimmed, from {first} on",
                key=self._key,
                n=len(entries),
                group=self._terms.group,
                first=entries[0].decode(),
            )

    # -- its end

    async def _bury(self, delivery: Delivery) -> None:
        """Put an entry aside that can't be handled, then acknowledge it."""
        terms, reason = self._terms, delivery.reason[:REASON]
        fields: tuple[str | bytes | int, ...] = (
            *("dead_reason", reason),
            *("dead_stream", self._key),
            *("dead_entry", delivery.entry),
            *("dead_group", terms.group),
            *("dead_consumer", terms.name),
            "dead_deliveries",
            min(delivery.deliveries, terms.deliveries),
            *delivery.row,
        )
        said = False
        while not self.stopping:
            try:
                await self._link.call("XADD", terms.dead, "MAXLEN", "~", terms.dead_entries, "*", *fields)
            except (Refused, txredisapi.ResponseError) as error:
                if not said:
                    said = True
                    what = str(error)[:200]
                    self.log.error("{dead}: a dead letter is not taken: {error}", dead=terms.dead, error=what)
                await self.pause(terms.retry_after)
                continue
            self._counters["dead"] += 1
            entry = delivery.entry.decode()
            self.log.error("{key}: {entry} is a dead letter: {reason}", key=self._key, entry=entry, reason=reason)
            self._acknowledge(delivery)
            return

    def _acknowledge(self, delivery: Delivery) -> None:
        """Acknowledge with all others of this turn of the reactor."""
        self._to_acknowledge.append(delivery)
        if len(self._to_acknowledge) == 1:
            self._flush_soon()

    def _flush_soon(self) -> None:
        d: defer.Deferred[None] = task.deferLater(self._reactor, 0)
        d.addCallback(lambda _: defer.Deferred.fromCoroutine(self._flush()))
        d.addErrback(self.fail)

    async def _flush(self) -> None:
        batch = [delivery.entry for delivery in self._to_acknowledge]
        await self._link.call("XACK", self._key, self._terms.group, *batch)
        for entry in batch:
            del self._hand[entry]
        self._to_acknowledge = self._to_acknowledge[len(batch) :]
        if self._to_acknowledge:
            self._flush_soon()
        self._change()

    def _refresh(self) -> None:
        """What is in hand is not idle."""
        if self._hand and self._link.up:
            # what somebody else has taken over meanwhile is not as idle as that, and stays there
            idle = int(self._terms.claim_after * 250)
            # asked again soon; at worst somebody else takes it over
            defer.Deferred.fromCoroutine(self._claim_once(idle)).addErrback(lambda _: None)

    async def _claim_once(self, idle: int) -> None:
        head = ("XCLAIM", self._key, self._terms.group, self._terms.name, idle)
        await self._link.ask(*head, *self._hand, "JUSTID")


def _took_too_long(_: object, seconds: float) -> None:
    raise TimeoutError(f"not handled within {seconds:g} s")
