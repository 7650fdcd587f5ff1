"""How long streams are kept, on a real server: by time, by memory, and with a word when a consumer falls behind."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from twisted.internet import defer, reactor, task
from twisted.trial.unittest import TestCase

from gateway.sinks.blocking import RedisURL
from gateway.sinks.connection import Layout
from gateway.sinks.redis import STREAM_ORDER, RedisSink
from gateway.sinks.retention import Retention, Rule
from tests.integration.parts import RealPartsTestCase, connect

KEY = "gateway:position"
#: Entries fill whole nodes of a stream, and only whole nodes are trimmed.
MANY = 3000


class RetentionTests(TestCase):
    """C{Retention} and the server's streams."""

    async def set_up(self, hours: float = 24.0, memory: int = 1 << 30) -> Retention:
        """A server with some thousand positions of two hours ago, and what looks after them."""
        parts = RealPartsTestCase()
        parts.setUp()
        self.addCleanup(parts.doCleanups)
        server = parts.running_redis()
        self.client = connect(server.url)
        self.addCleanup(self.client.close)
        begin = int(time.time() - 7200) * 1000
        pipe: Any = self.client.pipeline()
        for n in range(MANY):
            pipe.xadd(KEY, {"n": str(n)}, id=f"{begin + n}-0")
        pipe.execute()
        layout = Layout("gateway", "test")
        sink = RedisSink(reactor, RedisURL.parse(server.url, "test"), layout)
        sink.start()
        self.addCleanup(sink.stop)
        for _ in range(200):
            if sink.ready:
                break
            await task.deferLater(reactor, 0.02)
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
