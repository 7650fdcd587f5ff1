"""
How long streams are kept: time is the rule, memory the ceiling.

The script trims to C{MAXLEN} once a batch, a timer here trims by C{MINID} once
a minute, measures what an entry costs, and tells what the ceiling means in
hours.  What a group that is required has not read stays until the ceiling:
L{gateway.sinks.groups}.

Of all that write to one Redis one trims by time, counts and warns: who holds the
lease.  When it goes, another one has it some seconds later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Final, NamedTuple

import txredisapi
from twisted.logger import Logger

from gateway.errors import NotReady
from gateway.lag import Question, Stream, look
from gateway.sinks.connection import Layout
from gateway.sinks.groups import RequiredGroups
from gateway.sinks.redis import STREAM_ORDER, RedisSink
from gateway.sinks.script import Script
from gateway.sinks.watch import GroupWatch

GIB: Final = 1024**3

#: Shares of the memory, and what an entry costs until enough of them were measured (bytes; valkey 9.1).
SHARES: Final[Mapping[str, float]] = {
    "position": 0.80,
    "event": 0.10,
    "link": 0.03,
    "result": 0.04,
    "raw": 0.02,
    "dead": 0.01,
}
ENTRY_BYTES: Final[Mapping[str, float]] = {
    "position": 264.0,
    "event": 420.0,
    "link": 260.0,
    "result": 300.0,
    "raw": 300.0,
    "dead": 420.0,
}
#: Fewer entries than this say nothing of the cost of one.
MEASURED_FROM: Final = 2000
#: Entries that the time rule takes at once.  Without a number Redis takes some thousand: fewer than come in a minute.
AT_ONCE: Final = 1_000_000
#: How many idents of the list of the fleet are looked at a minute.
FORGET: Final = 1000
#: Seconds after which another one looks after the streams, when the one that did is gone.
LEASE_S: Final = 30


class Rule(NamedTuple):
    """Of one stream: hours (0: not by time) and entries (0: what the memory allows)."""

    hours: float
    entries: int


class Retention:
    """Keeps the streams of one Redis within their rules."""

    log = Logger()

    def __init__(
        self,
        sink: RedisSink,
        layout: Layout,
        rules: Mapping[str, Rule],
        memory: int,
        counters: Counter[str],
        required: Iterable[str] = (),
    ) -> None:
        """
        @param memory: bytes for all streams.
        @param counters: where C{trimmed_unread} is counted.
        @param required: consumer groups, each C{STREAM:GROUP}, before which nothing is trimmed below the ceiling.
        """
        self._sink = sink
        self._layout = layout
        self._rules = rules
        self.memory = memory
        self._costs = dict(ENTRY_BYTES)
        self._cursor: bytes = b"0"
        self._added: dict[str, tuple[float, int]] = {}
        #: stream -> entries a minute, as measured
        self.rates: dict[str, float] = {}
        #: stream -> what is said of it elsewhere, as of the last look; empty where another one looks
        self.streams: dict[str, dict[str, float]] = {}
        self._counters = counters
        self._required = RequiredGroups(layout, required)
        self._watch = GroupWatch(layout, self._required.required, counters)
        self._lease = Script.load("lease.lua")
        self._holds = False
        self._looking = False
        self.apply()

    @property
    def problems(self) -> list[str]:
        """Why this gateway is not fit, in a few words each; empty when it is."""
        return self._required.problems

    @property
    def behind(self) -> dict[str, dict[str, float]]:
        """How far each required group is behind, C{entries} and C{seconds}."""
        return self._required.behind

    @property
    def groups(self) -> dict[str, dict[str, dict[str, float]]]:
        """How far the groups of each stream are; empty where another one looks."""
        return self._watch.groups

    def apply(self) -> None:
        """Tell the script how long each stream may get."""
        for stream in STREAM_ORDER:
            ceiling = max(int(self.memory * SHARES[stream] / self._costs[stream]), 1)
            # the script knows nothing of groups: where some are required, it gets the ceiling alone
            entries = 0 if stream in self._required.streams else self._rules[stream].entries
            self._sink.maxlen[stream] = min(entries, ceiling) if entries else ceiling

    def spelled(self) -> str:
        """What the ceiling means for positions, for whoever starts the gateway."""
        entries = self._sink.maxlen["position"]

        def hours(devices: int) -> str:
            span = entries / (devices * 360)  # a report every 10 s
            rule = self._rules["position"].hours
            return f"{min(span, rule) if rule else span:.1f} h"

        rate = self.rates.get("position", 0.0)
        now = f", at the present {rate:.0f} a minute {entries / rate / 60:.1f} h" if rate else ""
        return (
            f"{self.memory / GIB:.1f} GiB hold {entries:,} positions: with a report every 10 s "
            f"{hours(1000)} of 1,000 devices, {hours(10_000)} of 10,000{now}"
        )

    async def minute(self, now: float) -> None:
        """Once a minute: trim by time, measure, and look for consumers that fall behind."""
        connection = self._sink.connection
        if connection is None:
            return
        try:
            await self._hold(connection)
            for stream in STREAM_ORDER:
                await self._look(connection, stream, now)
            if self._holds:
                await self._forget(connection)
        except (txredisapi.RedisError, NotReady) as error:
            self.log.warn("the streams could not be looked after: {error}", error=str(error)[:200])
        self.apply()

    async def look(self, now: float) -> None:
        """Every few seconds: keep the lease, trim the streams that groups are required to read, and see to these."""
        connection = self._sink.connection
        if connection is None or self._looking:
            return
        self._looking = True
        try:
            await self._hold(connection)
            for stream in self._required.streams:
                await self._look_at_groups(connection, stream, now)
        except (txredisapi.RedisError, NotReady):
            pass  # the connection is lost, and the sink says so
        finally:
            self._looking = False

    async def _hold(self, connection: Any) -> None:
        """Take the lease, or keep it; what is counted and said is then for this one to count and to say."""
        args = ("EVAL", self._lease.text, 1, self._layout.key("retention"), self._layout.instance, LEASE_S)
        holds = await connection.command(*args) == 1
        if holds and not self._holds:
            await self._watch.begin(connection)
        elif self._holds and not holds:
            self._watch.rest()
            self.streams = {}
        self._holds = self._required.speaks = holds

    async def _look_at_groups(self, connection: Any, stream: str, now: float) -> None:
        rule = self._rules[stream]
        self._counters["trimmed_unread"] += await self._required.look(
            connection, self._sink.producer, stream, now, rule.hours, rule.entries, self._sink.maxlen[stream]
        )

    async def _look(self, connection: Any, stream: str, now: float) -> None:
        key = self._layout.key(stream)
        hours = self._rules[stream].hours
        try:
            if stream in self._required.streams:
                await self._look_at_groups(connection, stream, now)
            elif hours and self._holds:
                oldest = f"{int((now - hours * 3600) * 1000)}-0"
                await connection.command("XTRIM", key, "MINID", "~", oldest, "LIMIT", AT_ONCE)
            found = await _answered(connection, look(key, now, self._holds))
            if self._holds:
                await self._watch.saw(connection, stream, found, now)
        except txredisapi.ResponseError as error:
            self.log.warn("{key} could not be looked after: {error}", key=key, error=str(error)[:200])
            return
        if found is None:
            self.streams.pop(stream, None)
            return
        added = found.length if found.added is None else found.added
        before = self._added.get(stream)
        self._added[stream] = (now, added)
        if before is not None and now > before[0]:
            self.rates[stream] = (added - before[1]) * 60 / (now - before[0])
        if found.length >= MEASURED_FROM:
            size = await connection.command("MEMORY", "USAGE", key, "SAMPLES", "0")
            self._costs[stream] = max(int(size or 0) / found.length, 50.0)
        if self._holds:
            self.streams[stream] = self._figures(stream, found)

    def _figures(self, stream: str, found: Stream) -> dict[str, float]:
        figures: dict[str, float] = {
            **{"entries": found.length, "limit": self._sink.maxlen[stream], "hours": self._rules[stream].hours},
            "groups": found.number,
        }
        if found.added is not None:
            figures["added"] = found.added
        if stream in self.rates:
            figures["per_minute"] = round(self.rates[stream], 1)
        return figures

    async def _forget(self, connection: Any) -> None:
        """Take idents whose last state is no longer kept off the list of the fleet, some of it a minute."""
        seen = self._layout.key("seen")
        self._cursor, row = await connection.command("ZSCAN", seen, self._cursor, "COUNT", FORGET)
        idents = row[::2]
        gone = [
            i for i in idents if not await connection.command("EXISTS", self._layout.key("last", i.decode("latin-1")))
        ]
        if gone:
            await connection.command("ZREM", seen, *gone)


async def _answered(connection: Any, questions: Generator[Question, Any, Stream | None]) -> Stream | None:
    """Ask what is to be asked, and give the answers."""
    answer = None
    while True:
        try:
            question = questions.send(answer)
        except StopIteration as end:
            found: Stream | None = end.value
            return found
        try:
            answer = await connection.command(*question)
        except txredisapi.ResponseError as error:
            if not str(error).startswith(("ERR no such key", "NOGROUP")):
                raise
            answer = None
