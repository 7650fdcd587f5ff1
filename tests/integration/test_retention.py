"""How long streams are kept, on a real server: by time, by memory, and for the consumer groups that are required."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, cast

from twisted.internet import defer, reactor, task
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import TestCase

from gateway.sinks.blocking import RedisURL
from gateway.sinks.connection import Layout
from gateway.sinks.redis import STREAM_ORDER, RedisSink
from gateway.sinks.retention import Retention, Rule
from tests.integration.parts import RealPartsTestCase, RedisServer, connect, wait_for

KEY = "gateway:position"
#: Entries fill whole nodes of a stream, and only whole nodes are trimmed.
MANY = 3000
TRIMMED = "gateway:trimmed"
HOUR = 3600.0
#: Entries of six hours, one in two seconds.
SIX_HOURS = 10_800


def watching(layout: Layout, test: TestCase) -> tuple[RedisSink, RedisServer]:
    """A server and a sink that connects to it, both gone at the end of the test."""
    parts = RealPartsTestCase()
    parts.setUp()
    test.addCleanup(parts.doCleanups)
    server = parts.running_redis()
    sink = RedisSink(reactor, RedisURL.parse(server.url, "test"), layout)
    sink.start()
    test.addCleanup(sink.stop)
    return sink, server


async def until_ready(sink: RedisSink) -> None:
    """Wait for a sink's connection."""
    for _ in range(200):
        if sink.ready:
            return
        await task.deferLater(reactor, 0.02)
    raise AssertionError("the sink does not get ready")


def asynchronous(method: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], defer.Deferred[None]]:
    """A test that is a coroutine."""

    def run(self: Any) -> defer.Deferred[None]:
        return defer.Deferred.fromCoroutine(method(self))

    run.__doc__ = method.__doc__
    return run


class RetentionTests(TestCase):
    """C{Retention} and the server's streams."""

    async def set_up(self, hours: float = 24.0, memory: int = 1 << 30) -> Retention:
        """A server with some thousand positions of two hours ago, and what looks after them."""
        layout = Layout("gateway", "test")
        sink, server = watching(layout, self)
        self.client = connect(server.url)
        self.addCleanup(self.client.close)
        begin = int(time.time() - 7200) * 1000
        pipe: Any = self.client.pipeline()
        for n in range(MANY):
            pipe.xadd(KEY, {"n": str(n)}, id=f"{begin + n}-0")
        pipe.execute()
        await until_ready(sink)
        self.counters: Counter[str] = Counter()
        rules = dict.fromkeys(STREAM_ORDER, Rule(hours, 0))
        self.sink = sink
        return Retention(sink, layout, rules, memory, self.counters)

    def test_time_is_the_rule(self) -> defer.Deferred[None]:
        """Entries older than the hours of their stream go; younger ones stay."""

        async def run() -> None:
            retention = await self.set_up(hours=3.0)
            await retention.minute(time.time())
            self.assertEqual(MANY, self.client.xlen(KEY))
            await retention.minute(time.time() + 2 * 3600)
            self.assertLess(self.client.xlen(KEY), MANY / 10)

        return defer.Deferred.fromCoroutine(run())

    def test_a_group_that_falls_behind(self) -> defer.Deferred[None]:
        """What goes before a consumer group has read it is counted, once, and said."""

        async def run() -> None:
            retention = await self.set_up(hours=3.0)
            self.client.xgroup_create(KEY, "slow", id="0")
            self.client.xreadgroup("slow", "me", {KEY: ">"}, count=10)
            await retention.minute(time.time())
            self.assertEqual(0, self.counters["trimmed_unread"])
            await retention.minute(time.time() + 2 * 3600)
            gone = MANY - self.client.xlen(KEY) - 10
            self.assertEqual(gone, self.counters["trimmed_unread"])
            await retention.minute(time.time() + 2 * 3600)
            self.assertEqual(gone, self.counters["trimmed_unread"])

        return defer.Deferred.fromCoroutine(run())

    def test_memory_is_the_ceiling(self) -> defer.Deferred[None]:
        """The ceiling is shared out by what entries cost, as measured; said in hours for fleets of two sizes."""

        async def run() -> None:
            retention = await self.set_up(memory=100_000_000)
            assumed = self.sink.maxlen["position"]
            await retention.minute(time.time())
            self.assertGreater(self.sink.maxlen["position"], assumed)  # these entries are small
            self.assertIn("of 1,000 devices", retention.spelled())

        return defer.Deferred.fromCoroutine(run())


class RequiredGroupsTests(TestCase):
    """Consumer groups that are required: what they have not read is held, up to the ceiling."""

    async def set_up(self, *required: str, entries: int = 0, hours: float = 1.0) -> Retention:
        """A server with positions of the six hours from C{self.begin}, and what looks after them."""
        self.layout = Layout("gateway", "test")
        self.sink, server = watching(self.layout, self)
        self.client = connect(server.url)
        self.addCleanup(self.client.close)
        self.begin = float(int(time.time()) - 6 * 3600)
        self.add(SIX_HOURS)
        await until_ready(self.sink)
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.rules = dict.fromkeys(STREAM_ORDER, Rule(hours, entries))
        return self.retention(required)

    def retention(self, required: Iterable[str]) -> Retention:
        """What looks after the streams, as after a start of the gateway."""
        self.counters: Counter[str] = Counter()
        return Retention(self.sink, self.layout, self.rules, 1 << 30, self.counters, required)

    def add(self, n: int, begin: float | None = None) -> None:
        """Append entries, one in two seconds."""
        pipe: Any = self.client.pipeline()
        for at in range(n):
            pipe.xadd(KEY, {"n": str(at)}, id=f"{int((begin or self.begin) + 2 * at) * 1000}-0")
        pipe.execute()

    def read(self, group: str, count: int | None = None, *, ack: bool = True) -> int:
        """Read as a consumer of a group does; how many entries it got."""
        rows = self.client.xreadgroup(group, "me", {KEY: ">"}, count=count or 10 * SIX_HOURS)
        ids = [entry_id for entry_id, _ in rows[0][1]] if rows else []
        if ack and ids:
            self.client.xack(KEY, group, *ids)
        return len(ids)

    def said(self, level: Any, *words: str) -> list[str]:
        """What was logged with this level and these words."""
        lines = [
            event["log_format"].format(**event)
            for event in self.events
            if event.get("log_level") is level and "{" in (event.get("log_format") or "")
        ]
        return [line for line in lines if all(word in line for word in words)]

    async def hours(self, retention: Retention, first: int = 1, last: int = 6) -> None:
        """Simulate hours, some of the minutes of each."""
        for hour in range(first, last + 1):
            for minute in (59, 30, 0):
                await retention.minute(self.begin + hour * HOUR - minute * 60.0)

    def ledger(self) -> int:
        """What the ledger says was trimmed unread."""
        return int(self.client.hget(f"gateway:ledger:{self.sink.producer}", "trimmed_unread") or 0)

    async def at_ceiling(self, retention: Retention, ceiling: int) -> None:
        """Trim as the script does with each batch, and look."""
        self.sink.maxlen["position"] = ceiling
        self.client.xtrim(KEY, maxlen=ceiling, approximate=True)
        await retention.look(self.begin + 6 * HOUR)

    @asynchronous
    async def test_six_hours(self) -> None:
        """What a required group did not read for six hours is there; when it has read, the next minute trims."""
        retention = await self.set_up("position:billing")
        self.client.xgroup_create(KEY, "billing", id="0")
        self.client.xgroup_create(KEY, "other", id="0")
        await self.hours(retention)
        self.assertEqual(SIX_HOURS, self.client.xlen(KEY))
        self.assertEqual([], retention.problems)
        self.assertEqual({"entries": SIX_HOURS, "seconds": 6 * HOUR}, retention.behind["position:billing"])
        self.assertEqual(1, len(self.said(LogLevel.info, "billing", f"{SIX_HOURS} entries", "1.0 hours behind")))
        self.assertEqual(SIX_HOURS, self.read("billing"))
        await retention.minute(self.begin + 6 * HOUR)
        self.assertLess(self.client.xlen(KEY), SIX_HOURS / 4)
        self.assertEqual({"entries": 0, "seconds": 0}, retention.behind["position:billing"])
        # the group that is not required lost them, and that is said as ever
        self.assertEqual(1, len(self.said(LogLevel.warn, "other", "were trimmed before this group read them")))
        self.assertEqual(0, self.ledger())

    @asynchronous
    async def test_not_required(self) -> None:
        """A stream of which no group is required goes by time, whoever reads it."""
        retention = await self.set_up("event:billing")
        self.client.xgroup_create(KEY, "billing", id="0")
        await self.hours(retention)
        self.assertLess(self.client.xlen(KEY), SIX_HOURS / 4)

    @asynchronous
    async def test_pending(self) -> None:
        """What was delivered and not acknowledged is held: a consumer that crashed finds it."""
        retention = await self.set_up("position:billing")
        self.client.xgroup_create(KEY, "billing", id="0")
        self.read("billing", 100)
        self.read("billing", 50, ack=False)
        self.read("billing")
        await self.hours(retention)
        pending = self.client.xpending_range(KEY, "billing", "-", "+", 100)
        self.assertEqual(50, len(pending))
        ids = [row["message_id"] for row in pending]
        self.assertGreater(self.client.xlen(KEY), SIX_HOURS - 200)
        self.assertEqual(50, len(self.client.xrange(KEY, ids[0], ids[-1])))
        self.assertEqual(50, retention.behind["position:billing"]["entries"])
        self.assertEqual(1, len(self.said(LogLevel.info, "billing is 50 entries")))
        self.client.xack(KEY, "billing", *ids)
        await retention.minute(self.begin + 6 * HOUR)
        self.assertLess(self.client.xlen(KEY), SIX_HOURS / 4)
        self.assertEqual(0, self.ledger())

    @asynchronous
    async def test_two_groups(self) -> None:
        """The slower of two required groups decides."""
        retention = await self.set_up("position:billing", "position:alerts")
        for group in ("billing", "alerts"):
            self.client.xgroup_create(KEY, group, id="0")
        self.read("alerts")
        self.read("billing", SIX_HOURS // 2)
        await self.hours(retention)
        self.assertEqual(SIX_HOURS // 2, self.read("billing"))
        await retention.minute(self.begin + 6 * HOUR)
        self.assertLess(self.client.xlen(KEY), SIX_HOURS / 4)

    @asynchronous
    async def test_no_group(self) -> None:
        """A required group that does not exist has read nothing: all is held, and that is said once."""
        retention = await self.set_up("position:billing", "event:billing")
        await self.hours(retention)
        self.assertEqual(SIX_HOURS, self.client.xlen(KEY))
        self.assertEqual(1, len(self.said(LogLevel.warn, "gateway:position", "no group billing")))
        self.assertEqual(1, len(self.said(LogLevel.warn, "gateway:event", "no group billing")))
        self.assertEqual([], retention.problems)
        await self.at_ceiling(retention, 8000)
        self.assertEqual(SIX_HOURS - self.client.xlen(KEY), self.ledger())
        self.assertEqual(1, len(retention.problems))
        self.client.xgroup_create(KEY, "billing", id="0")
        self.read("billing")
        await retention.look(self.begin + 6 * HOUR)
        self.assertEqual([], retention.problems)

    @asynchronous
    async def test_entries_rule(self) -> None:
        """A stream's number of entries takes what was read, and nothing else."""
        retention = await self.set_up("position:billing", entries=1000, hours=0.0)
        self.client.xgroup_create(KEY, "billing", id="0")
        self.assertGreater(self.sink.maxlen["position"], SIX_HOURS)
        self.assertEqual(1000, self.sink.maxlen["event"])
        await self.hours(retention)
        self.assertEqual(SIX_HOURS, self.client.xlen(KEY))
        self.read("billing", 2000)
        await retention.look(self.begin + 6 * HOUR)
        self.assertEqual(SIX_HOURS - 2000, self.read("billing"))
        await retention.look(self.begin + 6 * HOUR)
        self.assertGreaterEqual(self.client.xlen(KEY), 1000)
        self.assertLess(self.client.xlen(KEY), 1300)
        self.assertEqual(0, self.ledger())

    @asynchronous
    async def test_ceiling(self) -> None:
        """At the ceiling: an alert, not ready, and each lost entry counted once; when the group has read on, ready."""
        retention = await self.set_up("position:billing")
        self.client.xgroup_create(KEY, "billing", id="0")
        read = self.read("billing", 1000)
        await retention.minute(self.begin + 6 * HOUR)
        self.assertEqual([], retention.problems)
        await self.at_ceiling(retention, 8000)
        lost = SIX_HOURS - self.client.xlen(KEY) - read
        self.assertGreater(lost, 0)
        self.assertEqual((lost, lost), (self.ledger(), self.counters["trimmed_unread"]))
        self.assertEqual(1, len(self.said(LogLevel.error, "billing", "gateway:position", str(lost))))
        [problem] = retention.problems
        self.assertIn("position:billing", problem)
        self.assertIn(str(lost), problem)
        # more comes and more goes: the same alert, and what is more is counted
        self.add(1000, self.begin + 6 * HOUR)
        await self.at_ceiling(retention, 8000)
        await retention.minute(self.begin + 6 * HOUR)
        self.sink.maxlen["position"] = 8000
        await retention.look(self.begin + 6 * HOUR)
        self.assertEqual(1, len(self.said(LogLevel.error)))
        read += self.read("billing")
        self.assertEqual(SIX_HOURS + 1000 - read, self.ledger())
        await retention.look(self.begin + 6 * HOUR)
        self.assertEqual([], retention.problems)
        self.assertEqual(1, len(self.said(LogLevel.info, "billing reads again")))
        self.assertEqual(SIX_HOURS + 1000 - read, self.ledger())

    @asynchronous
    async def test_below_the_ceiling(self) -> None:
        """About to lose is a problem already; reading on ends it without a loss."""
        retention = await self.set_up("position:billing")
        self.client.xgroup_create(KEY, "billing", id="0")
        await self.at_ceiling(retention, SIX_HOURS)
        self.assertEqual(SIX_HOURS, self.client.xlen(KEY))
        self.assertEqual(1, len(retention.problems))
        self.assertEqual(0, self.ledger())
        self.read("billing", SIX_HOURS // 2)
        await retention.look(self.begin + 2 * HOUR)
        self.assertEqual([], retention.problems)

    @asynchronous
    async def test_reading_while_losing(self) -> None:
        """A group that reads, but too slowly, is told what it lost: all that came and that it did not get."""
        retention = await self.set_up("position:billing", hours=0.0)
        self.client.xgroup_create(KEY, "billing", id="0")
        self.sink.maxlen["position"] = 8000
        read, came, now = 0, SIX_HOURS, self.begin + 6 * HOUR
        for _ in range(10):
            await retention.look(now)
            read += self.read("billing", 300)
            self.add(700, now)
            now, came = now + 1400.0, came + 700
        await retention.look(now)
        self.sink.maxlen["position"] = 10 * SIX_HOURS
        rest = self.read("billing")
        self.assertEqual(came - read - rest, self.ledger())
        await retention.look(now)
        self.assertEqual(came - read - rest, self.ledger())

    @asynchronous
    async def test_pending_lost(self) -> None:
        """At the ceiling entries go that were delivered and not acknowledged: they are counted, once."""
        retention = await self.set_up("position:billing", hours=0.0)
        self.client.xgroup_create(KEY, "billing", id="0")
        self.read("billing", 1500, ack=False)
        self.read("billing")
        await retention.look(self.begin + 6 * HOUR)
        for ceiling in (SIX_HOURS - 700, SIX_HOURS - 1200):
            await self.at_ceiling(retention, ceiling)
            gone = SIX_HOURS - self.client.xlen(KEY)
            self.assertEqual(gone, self.ledger())
            self.assertEqual(1, len(retention.problems))
        # what went stays pending until it is acknowledged, and holds nothing
        rows = self.client.xpending_range(KEY, "billing", "-", "+", 2000)
        self.client.xack(KEY, "billing", *(row["message_id"] for row in rows[gone:]))
        await retention.look(self.begin + 6 * HOUR)
        self.assertEqual([], retention.problems)
        self.assertEqual(gone, self.ledger())

    @asynchronous
    async def test_restart(self) -> None:
        """A gateway that starts again knows what was counted, and finds what went since."""
        retention = await self.set_up("position:billing")
        self.client.xgroup_create(KEY, "billing", id="0")
        self.read("billing", 1000)
        self.read("billing", 500, ack=False)
        await retention.minute(self.begin + 6 * HOUR)
        await self.at_ceiling(retention, 8000)
        lost = SIX_HOURS - self.client.xlen(KEY) - 1000
        self.assertEqual(lost, self.ledger())
        again = self.retention(["position:billing"])
        await again.look(self.begin + 6 * HOUR)
        self.assertEqual(lost, self.ledger())
        self.client.xtrim(KEY, maxlen=7000, approximate=False)
        again = self.retention(["position:billing"])
        await self.at_ceiling(again, 7000)
        self.assertEqual(SIX_HOURS - 7000 - 1000, self.ledger())
        self.assertEqual(SIX_HOURS - 7000 - 1000 - lost, self.counters["trimmed_unread"])
        self.assertEqual(str(self.ledger()), self.client.hget(TRIMMED, "position/billing"))

    @asynchronous
    async def test_later_group(self) -> None:
        """A group that is made when much has gone already has not lost that."""
        retention = await self.set_up("position:billing", "position:late")
        self.client.xgroup_create(KEY, "billing", id="0")
        self.client.xgroup_create(KEY, "late", id="$")
        self.client.xtrim(KEY, maxlen=8000, approximate=False)
        self.client.xgroup_destroy(KEY, "billing")
        self.client.xgroup_create(KEY, "billing", id="0")
        await retention.look(self.begin + 6 * HOUR)
        self.assertEqual(0, self.ledger())
        self.assertEqual(8000, self.read("billing"))

    @asynchronous
    async def test_no_stream(self) -> None:
        """A key that is no stream can't be looked after: that is a problem, said once, and over when it is one."""
        retention = await self.set_up("event:billing")
        self.client.set("gateway:event", "mine")
        for _ in range(2):
            await retention.look(self.begin)
        self.assertEqual(1, len(self.said(LogLevel.error, "event", "WRONGTYPE")))
        self.assertIn("can't be looked after", retention.problems[0])
        self.client.delete("gateway:event")
        await retention.look(self.begin)
        self.assertEqual([], retention.problems)


class HeartbeatTests(RealPartsTestCase):
    """What a running gateway says of the groups that it requires."""

    def test_ready(self) -> None:
        """The heartbeat is not ready while a required group loses entries, and ready when it has read."""
        server = self.running_redis()
        client = server.client
        self.addCleanup(client.delete, "gateway:link")  # what this test writes is no event
        pipe: Any = client.pipeline()
        for _ in range(1000):
            pipe.xadd("gateway:link", {"n": "1"})
        pipe.execute()
        client.xgroup_create("gateway:link", "billing", id="0")
        # 260 bytes an entry, until it is measured: 115 entries
        self.running_gateway(
            server.url,
            config='[gateway]\ninstance = "one"\n[streams]\nmemory = 1000000\nrequired_groups = ["link:billing"]\n',
        )

        def beat() -> Any:
            return json.loads(client.get("gateway:instance:one") or "{}")

        wait_for("the heartbeat to say that it is not ready", lambda: beat().get("ready") is False)
        found = beat()
        self.assertIn("link:billing", found["problems"][0])
        self.assertEqual(client.xlen("gateway:link"), found["behind"]["link:billing"]["entries"])
        lost = 1000 - client.xlen("gateway:link")
        self.assertEqual(str(lost), client.hget(f"gateway:ledger:{found['producer']}", "trimmed_unread"))
        rows = client.xreadgroup("billing", "me", {"gateway:link": ">"}, count=1000)
        client.xack("gateway:link", "billing", *(entry_id for entry_id, _ in rows[0][1]))
        wait_for("the heartbeat to say that it is ready", lambda: beat()["ready"] is True)
        self.assertEqual([], beat()["problems"])
