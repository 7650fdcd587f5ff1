"""What watches consumer groups, on a real server: figures, warnings, and one of several gateways that does."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any, cast

from twisted.internet import reactor
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from gateway.sinks.blocking import RedisURL
from gateway.sinks.connection import Layout
from gateway.sinks.redis import STREAM_ORDER, RedisSink
from gateway.sinks.retention import LEASE_S, Retention, Rule
from tests.consuming import KEY, add
from tests.integration.parts import RealPartsTestCase, RedisServer, connect, wait_for
from tests.integration.test_retention import asynchronous, until_ready

MINUTE = 60.0


class WatchTestCase(TestCase):
    """A server, and gateways' parts that look after its streams."""

    def setUp(self) -> None:
        """Start it."""
        parts = RealPartsTestCase()
        parts.setUp()
        self.addCleanup(parts.doCleanups)
        self.server: RedisServer = parts.redis_server()
        self.server.start()
        self.client = connect(self.server.url)
        self.addCleanup(self.client.close)
        self.said: list[LogEvent] = []
        observer = cast(ILogObserver, self.said.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.now = time.time()

    def logged(self, *words: str) -> int:
        """How many lines have all of these words."""
        lines = [formatEvent(event) for event in self.said if str(event.get("log_namespace")).startswith("gateway")]
        return sum(all(word in line for word in words) for line in lines)

    async def looking(self, name: str, hours: float = 24.0, required: tuple[str, ...] = ()) -> Retention:
        """What looks after the streams in a gateway of this name."""
        layout = Layout("gateway", name)
        sink = RedisSink(reactor, RedisURL.parse(self.server.url, "test"), layout)
        sink.start()
        self.addCleanup(sink.stop)
        await until_ready(sink)
        rules = dict.fromkeys(STREAM_ORDER, Rule(hours, 0))
        self.counters: Counter[str] = Counter()
        return Retention(sink, layout, rules, 1 << 30, self.counters, required)

    async def minutes(self, number: int, *them: Retention) -> None:
        """Let minutes pass."""
        for _ in range(number):
            self.now += MINUTE
            for retention in them:
                await retention.minute(self.now)

    def old(self, count: int, hours: float, key: str = KEY) -> None:
        """Add entries of so many hours ago."""
        pipe: Any = self.client.pipeline()
        begin = int((self.now - hours * 3600) * 1000)
        for n in range(count):
            pipe.xadd(key, {"n": str(n)}, id=f"{begin + n}-0")
        pipe.execute()


class FiguresTests(WatchTestCase):
    """What is said in the heartbeat."""

    @asynchronous
    async def test_figures(self) -> None:
        """Of each group lag, pending, consumers and how long it is behind; of each stream what is there."""
        self.old(100, hours=1.0)
        self.client.xgroup_create(KEY, "map", id="0")
        self.client.xgroup_create(KEY, "fast", id="$")
        self.client.xreadgroup("map", "one", {KEY: ">"}, count=10)
        retention = await self.looking("here")
        await self.minutes(1, retention)
        groups = retention.groups["position"]
        map_, fast = groups["map"], groups["fast"]
        self.assertEqual((90, 10, 1), (map_["lag"], map_["pending"], map_["consumers"]))
        self.assertAlmostEqual(3660, map_["behind_s"], delta=5)
        self.assertEqual({"lag": 0, "pending": 0, "consumers": 0, "behind_s": 0}, fast)
        stream = retention.streams["position"]
        self.assertEqual((100, 100, 24.0, 2), tuple(stream[name] for name in ("entries", "added", "hours", "groups")))
        self.assertGreater(stream["limit"], 1000)
        self.assertEqual({"position"}, {*retention.streams})
        self.old(60, hours=0.0)
        await self.minutes(1, retention)
        self.assertEqual(60, retention.streams["position"]["per_minute"])

    @asynchronous
    async def test_heartbeat(self) -> None:
        """They are in the heartbeat of a real gateway."""
        parts = RealPartsTestCase()
        parts.setUp()
        self.addCleanup(parts.doCleanups)
        gateway = parts.running_gateway(self.server.url)

        def beat() -> dict[str, Any]:
            keys = self.client.keys("gateway:instance:*")
            return json.loads(self.client.get(keys[0]) or "{}") if keys else {}

        wait_for("a heartbeat", beat, detail=gateway.tail)
        self.assertEqual(({}, {}), (beat()["groups"], beat()["streams"]))  # until the first minute is over
        wait_for("it to have the lease", lambda: self.client.get("gateway:retention"), detail=gateway.tail)


class WarningsTests(WatchTestCase):
    """What is said in the log."""

    @asynchronous
    async def test_nobody(self) -> None:
        """Entries that no group reads are a warning, after some minutes, once; and again after there was a group."""
        words = ("gateway:event: entries come, and no consumer group reads them",)
        retention = await self.looking("here")
        await self.minutes(2, retention)
        for _ in range(2):
            add(self.client, 1, key="gateway:event")
            await self.minutes(2, retention)
        self.assertEqual(0, self.logged(*words))
        await self.minutes(4, retention)
        self.assertEqual(1, self.logged(*words))
        await self.minutes(10, retention)
        self.assertEqual(1, self.logged(*words))
        self.client.xgroup_create("gateway:event", "alarms", id="0")
        await self.minutes(10, retention)
        self.client.xgroup_destroy("gateway:event", "alarms")
        await self.minutes(1, retention)
        add(self.client, 1, key="gateway:event")
        await self.minutes(6, retention)
        self.assertEqual(2, self.logged(*words))

    @asynchronous
    async def test_nobody_where_nothing_comes(self) -> None:
        """A stream that gets nothing needs nobody, and neither do streams that people look at themselves."""
        self.old(10, hours=1.0, key="gateway:event")
        retention = await self.looking("here")
        await self.minutes(5, retention)
        for _ in range(10):
            add(self.client, 1, key="gateway:dead")
            await self.minutes(1, retention)
        self.assertEqual(0, self.logged("no consumer group"))

    @asynchronous
    async def test_asleep(self) -> None:
        """A group that nobody reads for while ever more waits is a warning, once; that it reads again is told."""
        self.old(10, hours=1.0)
        self.client.xgroup_create(KEY, "map", id="0")
        retention = await self.looking("here")
        await self.minutes(2, retention)
        self.assertEqual(0, self.logged("does not read"))  # nothing comes
        for _ in range(3):
            self.old(10, hours=0.0)
            await self.minutes(1, retention)
        self.assertEqual(1, self.logged(f"{KEY}: group map does not read: it has no consumer, 20 entries wait"))
        self.assertEqual(1, self.logged("does not read"))
        rows = self.client.xreadgroup("map", "me", {KEY: ">"}, count=100)
        self.client.xack(KEY, "map", *(entry for entry, _ in rows[0][1]))
        await self.minutes(1, retention)
        self.assertEqual(1, self.logged(f"{KEY}: group map reads again"))


class SeveralTests(WatchTestCase):
    """Several gateways, or workers of one, on a server."""

    @asynchronous
    async def test_one_of_several(self) -> None:
        """One counts and warns; when it is gone another one goes on where it was, and nothing is counted twice."""
        self.old(3000, hours=2.0)
        self.client.xgroup_create(KEY, "slow", id="0")
        self.client.xreadgroup("slow", "me", {KEY: ">"}, count=10)
        here = await self.looking("here/1", hours=3.0)
        counted_here = self.counters
        there = await self.looking("here/2", hours=3.0)
        counted_there = self.counters
        both = (here, there)
        await self.minutes(1, *both)
        self.assertEqual("here/1", self.client.get("gateway:retention"))
        self.assertLessEqual(self.client.ttl("gateway:retention"), LEASE_S)
        self.assertEqual(({}, {}), (there.groups, there.streams))
        self.now += 3600.0
        await self.minutes(3, *both)
        gone = 3000 - self.client.xlen(KEY) - 10
        self.assertGreater(gone, 1000)
        self.assertEqual((gone, 0), (counted_here["trimmed_unread"], counted_there["trimmed_unread"]))
        self.assertEqual(1, self.logged("were trimmed before this group read them"))
        # the first one is gone, and its lease has run out
        self.client.delete("gateway:retention")
        await there.look(self.now)
        self.assertEqual("here/2", self.client.get("gateway:retention"))
        await self.minutes(2, there)
        self.assertEqual(0, counted_there["trimmed_unread"])
        self.assertIn("slow", there.groups["position"])
        self.old(1, hours=0.0)
        self.client.xtrim(KEY, maxlen=1, approximate=False)
        await self.minutes(1, there)
        self.assertEqual(3000 - 10, counted_here["trimmed_unread"] + counted_there["trimmed_unread"])
        # and back again: the other one says and counts nothing
        await self.minutes(1, here)
        self.assertEqual(({}, {}), (here.groups, here.streams))

    @asynchronous
    async def test_lease_that_ran_out(self) -> None:
        """One that did nothing for so long that another one took its place notices."""
        here, there = await self.looking("a"), await self.looking("b")
        self.old(10, hours=1.0)
        await self.minutes(1, here)
        self.assertTrue(here.streams)
        self.client.set("gateway:retention", "b", ex=LEASE_S)
        await self.minutes(1, here, there)
        self.assertEqual((False, True), (bool(here.streams), bool(there.streams)))

    @asynchronous
    async def test_required_is_said_once(self) -> None:
        """That a required group is missing is said by one, and every gateway knows what it needs to be ready."""
        self.old(10, hours=1.0)
        here = await self.looking("a", required=("position:billing",))
        there = await self.looking("b", required=("position:billing",))
        for retention in (here, there):
            await retention.look(self.now)
        self.assertEqual(1, self.logged("no group billing"))
        self.assertEqual(here.behind, there.behind)
        self.assertEqual(10, there.behind["position:billing"]["entries"])
