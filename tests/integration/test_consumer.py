"""C{gateway.consumer} against a real Redis: nothing is lost, nothing acknowledged that was not handled."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, cast

from twisted.internet import defer, reactor, task
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from gateway.consumer import ConfigError, Consumer, ContractMismatch, Event, Later, Refused
from tests.consuming import KEY, add, contract, program, report
from tests.integration.parts import CHECKOUT, SOON, Child, RealPartsTestCase, RedisServer, free_port, wait_for
from tests.integration.sentinels import FAILOVER
from tests.integration.test_sentinel import SentinelTestCase

DEAD = "gateway:consumer:dead:map"


async def until(what: str, probe: Callable[[], Any], seconds: float = SOON) -> None:
    """Wait in the reactor for something to be true."""
    end = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        await task.deferLater(reactor, 0.02)


def asynchronous(method: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], defer.Deferred[None]]:
    """A test that is a coroutine."""

    def run(self: Any) -> defer.Deferred[None]:
        return defer.Deferred.fromCoroutine(method(self))

    run.__doc__ = method.__doc__
    return run


class ConsumerTestCase(TestCase):
    """A Redis with a contract, and consumers that are gone at the end."""

    timeout = 120

    def setUp(self) -> None:
        """Start it."""
        self.parts = RealPartsTestCase()
        self.parts.setUp()
        self.addCleanup(self.parts.doCleanups)
        self.server: RedisServer = self.parts.redis_server()
        self.server.start()
        self.client: Any = self.server.client
        self.client.set("gateway:contract", contract())
        self.said: list[LogEvent] = []
        observer = cast(ILogObserver, self.said.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.seen: list[str] = []

    def logged(self, text: str) -> int:
        """How many lines of the gateway's log have this text."""
        ours = [event for event in self.said if str(event.get("log_namespace")).startswith("gateway")]
        return sum(text in formatEvent(event) for event in ours)

    def made(self, handle: Callable[[Event], Any] | None = None, **options: Any) -> Consumer:
        """A consumer that is not started, and gone at the end; without a handler it writes down ids."""
        options = {"claim_after": 1.0, "retry_after": 0.05, **options}
        url, stream = options.pop("url", self.server.url), options.pop("stream", "position")
        consumer = Consumer(url, stream, "map", handle or (lambda event: self.seen.append(event.id)), **options)
        consumer.ended.addErrback(lambda failure: setattr(self, "why", failure))
        self.addCleanup(consumer.stopService)
        return consumer

    def started(self, handle: Callable[[Event], Any] | None = None, **options: Any) -> Consumer:
        """One that is started."""
        consumer = self.made(handle, **options)
        consumer.startService()
        return consumer

    def pending(self) -> int:
        """How many entries the group has in hand."""
        return sum(group["pending"] for group in self.groups())

    def groups(self) -> list[dict[str, Any]]:
        """The groups of the stream, if there is one."""
        found: list[dict[str, Any]] = self.client.xinfo_groups(KEY) if self.client.exists(KEY) else []
        return found

    async def until_read(self) -> None:
        """Wait until the group has read and acknowledged everything."""

        def done() -> bool:
            groups = self.groups()
            newest = self.client.xrevrange(KEY, count=1)
            return bool(groups) and groups[0]["pending"] == 0 and groups[0]["last-delivered-id"] == newest[0][0]

        await until("the group to have handled all", done)

    async def failing(self, consumer: Consumer) -> Any:
        """Wait for a consumer's end; what it ended with."""
        await until("the consumer to fail", lambda: hasattr(self, "why"))
        return self.why.value  # type: ignore[attr-defined]  # set by made


class ReadingTests(ConsumerTestCase):
    """What comes."""

    @asynchronous
    async def test_all(self) -> None:
        """What is there and what comes is handled once, typed, and acknowledged."""
        events: list[Event] = []
        there = add(self.client, 250)
        consumer = self.started(events.append)
        await until("what is there", lambda: len(events) == 250)
        there += add(self.client, 3, "other-1", speed_kmh="41.00")
        await self.until_read()
        self.assertEqual(there, [event.id for event in events])
        self.assertEqual((52.52, 41.0, True), (events[-1].latitude, events[-1].speed_kmh, events[-1].valid))
        self.assertEqual({"handled": 253}, +consumer.counters)

    @asynchronous
    async def test_from_now(self) -> None:
        """A new group may begin with what comes from now on."""
        add(self.client, 3)
        self.started(start="$")
        await until("the group", self.groups)
        later = add(self.client, 2)
        await self.until_read()
        self.assertEqual(later, self.seen)

    @asynchronous
    async def test_waits_for_contract(self) -> None:
        """Without a contract nothing is read, and a line says why; with one it begins."""
        self.client.delete("gateway:contract")
        add(self.client, 1)
        self.started()
        await until("a line", lambda: self.logged("there is no gateway:contract yet"))
        self.assertEqual([], self.groups())
        self.client.set("gateway:contract", contract())
        await self.until_read()
        self.assertEqual(1, len(self.seen))

    @asynchronous
    async def test_no_stream_yet(self) -> None:
        """A stream that has nothing yet is waited for."""
        self.started()
        await until("the group", self.groups)
        add(self.client, 1)
        await self.until_read()
        self.assertEqual(1, len(self.seen))

    @asynchronous
    async def test_stream_gone(self) -> None:
        """A stream that goes away is read from its start when it is there again."""
        add(self.client, 1)
        self.started(start="$")
        await until("the group", self.groups)
        self.client.delete(KEY)
        ids = add(self.client, 2)
        await until("what came", lambda: len(self.seen) == 2)
        await self.until_read()
        self.assertEqual(ids, self.seen)

    @asynchronous
    async def test_shards(self) -> None:
        """The streams of all shards of the contract are read."""
        self.client.set("gateway:contract", contract(shards=[{"tag": "a"}, {"tag": "b"}]))
        ids = [*add(self.client, 5, key="gateway:{a}:position"), *add(self.client, 5, key="gateway:{b}:position")]
        self.started()
        await until("all", lambda: len(self.seen) == 10)
        self.assertEqual(sorted(ids), sorted(self.seen))

    @asynchronous
    async def test_types(self) -> None:
        """Types that are not asked for are acknowledged and not handed over; unknown ones are not by default."""
        add(self.client, 2, type="status")
        add(self.client, 2, type="from.tomorrow")
        [wanted] = add(self.client, 1)
        consumer = self.started(types=["position"])
        await self.until_read()
        self.assertEqual([wanted], self.seen)
        self.assertEqual({"handled": 1, "ignored": 4}, +consumer.counters)
        await consumer.stopService()
        add(self.client, 1, type="from.tomorrow")
        other = self.started()
        await self.until_read()
        self.assertEqual({"ignored": 1}, +other.counters)

    @asynchronous
    async def test_order_of_an_ident(self) -> None:
        """Events of one ident are handled one after the other, also after a failure; those of others meanwhile."""
        busy: Counter[str] = Counter()
        most = 0
        order: dict[str, list[str]] = {}

        async def handle(event: Event) -> None:
            nonlocal most
            busy[event.ident] += 1
            self.assertEqual(1, busy[event.ident])
            most = max(most, busy.total())
            await task.deferLater(reactor, 0.01)
            busy[event.ident] -= 1
            if event.id in failing:
                failing.discard(event.id)
                raise ValueError("once")
            order.setdefault(event.ident, []).append(event.id)

        sent: dict[str, list[str]] = {}
        for n in range(80):
            ident = f"unit-{n % 8}"
            sent.setdefault(ident, []).extend(add(self.client, 1, ident))
        failing = {sent["unit-3"][2], sent["unit-5"][0]}
        consumer = self.started(handle, in_hand=20)
        await until("all", lambda: consumer.counters["handled"] == 80)
        self.assertEqual(sent, order)
        self.assertGreater(most, 1)
        self.assertEqual(2, len(self.flushLoggedErrors(ValueError)))

    @asynchronous
    async def test_in_hand(self) -> None:
        """No more is read than may be in hand."""
        add(self.client, 50)
        gates: list[defer.Deferred[None]] = []

        def handle(event: Event) -> defer.Deferred[None]:
            gates.append(defer.Deferred())
            return gates[-1]

        self.started(handle, in_hand=7)
        await until("the first", lambda: self.pending() == 7)
        for n in range(50):
            await until("one more", lambda n=n: len(gates) > n)  # type: ignore[misc]  # a default
            self.assertLessEqual(self.pending(), 7)
            gates[n].callback(None)
        await self.until_read()

    @asynchronous
    async def test_several(self) -> None:
        """Consumers of a group share what comes: each event is handled by one of them."""
        ids = add(self.client, 300)
        seen: list[list[str]] = [[], []]

        async def slow(mine: list[str], event: Event) -> None:
            await task.deferLater(reactor, 0.001)
            mine.append(event.id)

        for mine in seen:
            self.started(functools.partial(slow, mine), in_hand=10)
        await self.until_read()
        self.assertEqual(sorted(ids), sorted(seen[0] + seen[1]))
        self.assertTrue(all(seen))


class FailingTests(ConsumerTestCase):
    """What goes wrong with an event."""

    @asynchronous
    async def test_dead_letter(self) -> None:
        """What fails again and again becomes a dead letter with all that is known; what comes after it goes on."""

        def handle(event: Event) -> None:
            if event.id == poison:
                raise ValueError("can't stand it")
            self.seen.append(event.id)

        [poison] = add(self.client, 1, new="field")
        good = add(self.client, 2)
        consumer = self.started(handle, deliveries=3, consumer="me")
        await self.until_read()
        self.assertEqual(good, self.seen)
        self.assertEqual({"handled": 2, "failed": 3, "dead": 1}, +consumer.counters)
        [(_, letter)] = self.client.xrange(DEAD)
        [(entry, fields), *_] = self.client.xrange(KEY)
        mine = {name: letter.pop(name) for name in [*letter] if name.startswith("dead_")}
        self.assertEqual(fields, letter)
        expected = {
            **{"dead_reason": "ValueError: can't stand it", "dead_stream": KEY, "dead_entry": entry},
            **{"dead_group": "map", "dead_consumer": "me", "dead_deliveries": "3"},
        }
        self.assertEqual(expected, mine)
        self.assertEqual(3, len(self.flushLoggedErrors(ValueError)))

    @asynchronous
    async def test_dead_letters_have_a_limit(self) -> None:
        """Dead letters are bounded."""
        for _ in range(3):
            pipe = self.client.pipeline()
            for _ in range(200):
                pipe.xadd(KEY, {"poison": "1"})
            pipe.execute()
        consumer = self.started(dead_entries=100)
        await until("all to be dead", lambda: consumer.counters["dead"] == 600)
        self.assertLess(self.client.xlen(DEAD), 300)

    @asynchronous
    async def test_unreadable(self) -> None:
        """What is no entry of the contract is a dead letter at once, and nobody has to wait for it."""
        self.client.xadd(KEY, report() | {"latitude": "poison", "poison": "1"})
        good = add(self.client, 1)
        consumer = self.started()
        await self.until_read()
        self.assertEqual((good, {"handled": 1, "dead": 1}), (self.seen, +consumer.counters))
        [(_, letter)] = self.client.xrange(DEAD)
        self.assertIn("could not convert string to float: 'poison'", letter["dead_reason"])

    @asynchronous
    async def test_dead_letter_not_taken(self) -> None:
        """While a dead letter can't be written its entry is not acknowledged, and the log says so once."""
        self.client.set(DEAD, "in the way")
        self.client.xadd(KEY, {"poison": "1"})
        consumer = self.started()
        await until("a line", lambda: self.logged("a dead letter is not taken: WRONGTYPE"))
        self.assertEqual((1, 0), (self.pending(), consumer.counters["dead"]))
        self.client.delete(DEAD)
        await self.until_read()
        self.assertEqual(1, self.client.xlen(DEAD))
        self.assertEqual(1, self.logged("a dead letter is not taken"))

    @asynchronous
    async def test_later(self) -> None:
        """An application that can't go on now is asked again, as often as it takes, and nothing is dead."""
        add(self.client, 2)
        asked = 0

        async def handle(event: Event) -> None:
            nonlocal asked
            asked += 1
            if asked < 20:
                raise Later("the database is away")
            self.seen.append(event.id)

        consumer = self.started(handle, deliveries=2, retry_after=0.01)
        await self.until_read()
        self.assertEqual({"handled": 2}, +consumer.counters)
        self.assertEqual(1, self.logged("the database is away"))

    @asynchronous
    async def test_too_slow(self) -> None:
        """A handler that takes too long is cancelled, and has failed."""
        add(self.client, 1)
        consumer = self.started(lambda event: defer.Deferred(), timeout=0.05, deliveries=2)
        await self.until_read()
        self.assertEqual({"failed": 2, "dead": 1}, +consumer.counters)
        self.assertEqual("TimeoutError: not handled within 0.05 s", self.client.xrange(DEAD)[0][1]["dead_reason"])
        self.flushLoggedErrors(TimeoutError)

    @asynchronous
    async def test_a_slow_handler_keeps_its_events(self) -> None:
        """What is in hand for longer than the time after which it is taken over is not taken over."""
        ids = add(self.client, 3)
        gate: defer.Deferred[None] = defer.Deferred()

        async def slow(event: Event) -> None:
            if not gate.called:
                await gate
            self.seen.append(event.id)

        first = self.started(slow, claim_after=2.0)
        await until("it to have them", lambda: self.pending() == 3)
        other = self.started(lambda event: self.fail("taken over"), claim_after=2.0)
        await task.deferLater(reactor, 6.0)  # three times as long as it takes to be taken over
        gate.callback(None)
        await self.until_read()
        self.assertEqual(ids, self.seen)
        self.assertEqual(({"handled": 3}, {}), (+first.counters, +other.counters))

    @asynchronous
    async def test_trimmed(self) -> None:
        """What was trimmed while nobody had acknowledged it is counted and said, and is not pending any more."""
        add(self.client, 5)
        self.client.xgroup_create(KEY, "map", id="0")
        self.client.xreadgroup("map", "gone", {KEY: ">"}, count=2)
        self.client.xreadgroup("map", "me", {KEY: ">"}, count=2)
        [gone, _, mine, *_] = [entry for entry, _ in self.client.xrange(KEY)]
        self.client.xdel(KEY, gone, mine)
        consumer = self.started(consumer="me")
        await self.until_read()
        self.assertEqual((2, 3), (consumer.counters["trimmed"], consumer.counters["handled"]))
        self.assertEqual(2, self.logged("1 entries that group map had read and not acknowledged were trimmed"))

    @asynchronous
    async def test_trimmed_while_it_waits(self) -> None:
        """An event that is trimmed before its handler is called again is not handed over again."""
        add(self.client, 1)
        calls: list[str] = []

        def handle(event: Event) -> None:
            calls.append(event.id)
            self.client.xdel(KEY, event.entry)
            raise ValueError("once")

        consumer = self.started(handle)
        await until("it to be gone", lambda: consumer.counters["trimmed"])
        await until("nothing to be pending", lambda: self.pending() == 0)
        self.assertEqual(1, len(calls))
        self.flushLoggedErrors(ValueError)


class EndsTests(ConsumerTestCase):
    """What ends, and begins again."""

    def process(self, name: str, seconds: float) -> Child:
        """A consumer in a process of its own."""
        words = program(self.server.url, name, str(seconds))
        child = Child(words, self.parts.directory / f"output-{name}", environment())
        self.addCleanup(child.kill)
        return child

    @asynchronous
    async def test_killed(self) -> None:
        """What a consumer had in hand that was killed is taken over; nothing is lost."""
        ids = add(self.client, 40)
        child = self.process("killed", 0.3)
        await until("it to be in the middle", lambda: self.client.llen("seen") >= 2)
        child.signal(signal.SIGKILL)
        child.wait(SOON)
        handled = self.client.lrange("seen", 0, -1)
        left = self.pending()
        self.assertGreater(left, 0)
        consumer = self.started()
        await self.until_read()
        self.assertEqual(left, consumer.counters["claimed"])
        self.assertEqual(set(ids), {*handled, *self.seen})
        self.assertLessEqual(len(handled) + len(self.seen), 40 + 1)

    @asynchronous
    async def test_same_name(self) -> None:
        """A consumer that comes again with its name goes on at once, in order."""
        ids = add(self.client, 10)
        child = self.process("me", 60)
        await until("it to be in the middle", lambda: self.client.llen("begun"))
        child.kill()
        ids += add(self.client, 5)
        self.started(consumer="me", claim_after=3600.0)
        await self.until_read()
        self.assertEqual(ids, self.seen)

    @asynchronous
    async def test_stop(self) -> None:
        """One that is asked to end ends what it is at, and what it has not begun is there for others at once."""
        ids = add(self.client, 10)
        child = self.process("stopped", 1.0)
        await until("it to be in the middle", lambda: self.client.llen("begun") == 1)
        child.signal(signal.SIGTERM)
        self.assertEqual(0, child.wait(SOON), child.tail())
        self.assertEqual(ids[:1], self.client.lrange("seen", 0, -1))
        rows = self.client.xpending_range(KEY, "map", "-", "+", 20)
        self.assertEqual([0] * 9, [row["times_delivered"] for row in rows])
        self.started(claim_after=3600.0, deliveries=1)
        # they are idle for as long as this one waits, whatever that one was told
        self.client.xclaim(
            KEY, "map", "stopped", 0, [row["message_id"] for row in rows], idle=3_600_001, retrycount=0, justid=True
        )
        await self.until_read()
        self.assertEqual(ids[1:], self.seen)

    @asynchronous
    async def test_stop_in_time(self) -> None:
        """A handler that does not end holds nobody up for long; its event is delivered again."""
        [event_id] = add(self.client, 1)
        begun: list[str] = []

        def handle(event: Event) -> defer.Deferred[None]:
            begun.append(event.id)
            return defer.Deferred()

        consumer = self.started(handle, stop_within=0.5)
        await until("it to have begun", lambda: begun)
        await consumer.stopService()
        self.assertEqual((1, {}), (self.pending(), +consumer.counters))
        self.assertTrue(self.logged("could not be brought to their end in time"))
        self.started()
        await self.until_read()
        self.assertEqual([event_id], self.seen)

    @asynchronous
    async def test_redis_restarts(self) -> None:
        """While Redis is away it waits, and goes on; what was in hand is handled once, and nothing is lost."""
        ids = add(self.client, 60)
        gate: defer.Deferred[None] = defer.Deferred()

        async def handle(event: Event) -> None:
            if not gate.called:
                await gate
            self.seen.append(event.id)

        consumer = self.started(handle, in_hand=20, claim_after=30.0)
        await until("some to be in hand", lambda: self.pending() == 20)
        self.server.kill()
        await until("it to be noticed", lambda: self.logged("the connection is lost"))
        gate.callback(None)  # they are handled while Redis is away
        await until("them to be handled", lambda: len(self.seen) == 20)
        self.server.start()
        self.client = self.server.client
        ids += add(self.client, 5)
        await self.until_read()
        self.assertEqual(ids, self.seen)
        self.assertEqual({"handled": 65}, +consumer.counters)

    @asynchronous
    async def test_lost_answer(self) -> None:
        """What was read for it and never came, because its connection broke, is handled once there is another."""
        self.started(consumer="me", claim_after=3600.0)
        await until("the group", self.groups)
        # nobody else may read while it is done: as if the server had, just before the connection broke
        with self.client.pipeline(transaction=True) as pipe:
            fields = report()
            pipe.xadd(KEY, fields, id="99999999999999-1")
            pipe.xreadgroup("map", "me", {KEY: ">"})
            pipe.client_kill_filter(_type="normal", skipme=True)
            pipe.execute()
        ids = [fields["id"], *add_after(self.client, 2)]
        await self.until_read()
        self.assertEqual(ids, self.seen)

    @asynchronous
    async def test_redis_is_slow(self) -> None:
        """A Redis that owes an answer for too long is connected to anew."""
        self.patch_deadline(0.5)
        self.started()
        await until("the group", self.groups)
        self.server.signal(signal.SIGSTOP)
        try:
            await until("a line", lambda: self.logged("owes an answer"))
        finally:
            self.server.signal(signal.SIGCONT)
        ids = add(self.client, 2)
        await self.until_read()
        self.assertEqual(ids, self.seen)

    def patch_deadline(self, seconds: float) -> None:
        """Be less patient."""
        from gateway import consumer

        self.patch(consumer, "DEADLINE_S", seconds)

    @asynchronous
    async def test_forgotten(self) -> None:
        """Consumers that did nothing for long are deleted, but for those that have something."""
        add(self.client, 2)
        self.client.xgroup_create(KEY, "map", id="0")
        self.client.xgroup_createconsumer(KEY, "map", "idle")
        self.client.xreadgroup("map", "owes", {KEY: ">"}, count=1)
        await task.deferLater(reactor, 0.2)
        consumer = self.made(consumer="me", claim_after=3600.0, forget_after=10.0)
        # nobody waits for as long as it takes
        terms: Any = consumer._terms
        object.__setattr__(terms, "forget_after", 0.1)
        consumer.startService()
        names = lambda: sorted(row["name"] for row in self.client.xinfo_consumers(KEY, "map"))  # noqa: E731
        await until("the idle one to be gone", lambda: names() == ["me", "owes"])


class RefusedTests(ConsumerTestCase):
    """What can't be."""

    @asynchronous
    async def test_contract(self) -> None:
        """A contract that is not what is needed ends it with what is wrong; nothing is made under a wrong name."""
        for other, options, what in (
            ({"version": 2}, {}, "gateway:contract is of version 2"),
            ({}, {"stream": "positions"}, "no stream 'positions'"),
            ({}, {"types": ["alarm.sos"]}, "no type 'alarm.sos' on the stream 'position'"),
            ({"columns": []}, {}, "no column device_id"),
        ):
            self.client.set("gateway:contract", contract(**other))
            error = await self.failing(self.started(**options))
            self.assertIsInstance(error, ContractMismatch)
            self.assertIn(what, str(error))
            self.assertEqual(1, self.logged(what))
            del self.why  # type: ignore[attr-defined]  # set by made
        self.assertEqual(["gateway:contract"], self.client.keys("*"))

    @asynchronous
    async def test_another_version(self) -> None:
        """An entry of another version ends it, and stays."""
        self.client.xadd(KEY, report() | {"v": "2", "poison": "1"})
        error = await self.failing(self.started())
        self.assertIn("version 2 of the contract", str(error))
        self.assertEqual((1, []), (self.pending(), self.seen))

    @asynchronous
    async def test_credentials(self) -> None:
        """Credentials that are refused at start end it."""
        self.client.config_set("requirepass", "secret")
        error = await self.failing(self.started())
        self.assertIsInstance(error, Refused)
        self.assertIn("NOAUTH", str(error))

    @asynchronous
    async def test_not_there(self) -> None:
        """A Redis that is not there is waited for; the end does not wait."""
        consumer = self.started(url=f"redis://127.0.0.1:{free_port()}")
        await until("a line", lambda: self.logged("is not ready"))
        await consumer.stopService()

    def test_options(self) -> None:
        """Options that can't be are refused, and named."""
        for options, what in (
            ({"url": "http://here"}, "url"),
            ({"in_hand": 0}, "in_hand is 0"),
            ({"deliveries": 0}, "deliveries is 0"),
            ({"claim_after": 0.1}, "claim_after is 0.1"),
            ({"start": "now"}, "start is 'now'"),
            ({"types": "alarm."}, "types is one text"),
            ({"prefix": ""}, "prefix is empty"),
        ):
            given: dict[str, Any] = {"url": self.server.url, "stream": "position", "group": "map", "handle": print}
            with self.assertRaisesRegex(ConfigError, what):
                Consumer(**(given | cast(dict[str, Any], options)))

    def test_names(self) -> None:
        """Two consumers of a process have names of their own."""
        names = {self.made()._terms.name, self.made()._terms.name}
        self.assertEqual(2, len(names))


class FailoverTests(SentinelTestCase):
    """A Redis with sentinels."""

    def test_failover(self) -> None:
        """A consumer follows the master, and reads on there."""
        servers = self.running_sentinels()
        servers.master.set("gateway:contract", contract())
        ids = add(servers.master, 3)
        program = str(CHECKOUT / "docs" / "consume.py")
        child = Child([sys.executable, program, servers.url], self.directory / "output", environment())
        self.addCleanup(child.kill)

        def shown() -> bool:
            return set(ids) <= set(re.findall(r"^([0-9a-f]{32}) ", child.output.read_text(), re.MULTILINE))

        wait_for("what is there", shown, detail=child.tail)
        servers.failover()
        ids += add(servers.master, 3)
        wait_for("what came after it", shown, FAILOVER, child.tail)


def add_after(client: Any, count: int) -> list[str]:
    """Put reports behind what is newest, whatever its time."""
    rows = [report() for _ in range(count)]
    for n, row in enumerate(rows, 2):
        client.xadd(KEY, row, id=f"99999999999999-{n}")
    return [row["id"] for row in rows]


def environment() -> dict[str, str]:
    """Where the tests are found."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT)}
