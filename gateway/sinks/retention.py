"""
How long streams are kept: time is the rule, memory the ceiling.

The script trims to C{MAXLEN} once a batch, a timer here trims by C{MINID} once
a minute, measures what an entry costs, and tells what the ceiling means in
hours.  What a group that is required has not read stays until the ceiling:
L{gateway.sinks.groups}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import txredisapi
from twisted.logger import Logger

from gateway.errors import NotReady
from gateway.sinks.connection import Layout
from gateway.sinks.groups import RequiredGroups
from gateway.sinks.redis import STREAM_ORDER, RedisSink

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
        self._warned: set[str] = set()
        self._cursor: bytes = b"0"
        self._added: dict[str, tuple[float, int]] = {}
        #: stream -> entries a minute, as measured
        self.rates: dict[str, float] = {}
        self._counters = counters
        self._unread: dict[str, int] = {}
        self._required = RequiredGroups(layout, required)
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
            for stream in STREAM_ORDER:
                await self._look(connection, stream, now)
            await self._forget(connection)
        except (txredisapi.RedisError, NotReady) as error:
            self.log.warn("the streams could not be looked after: {error}", error=str(error)[:200])
        self.apply()

    async def look(self, now: float) -> None:
        """Every few seconds: trim the streams that groups are required to read, and see how these do."""
        connection = self._sink.connection
        if connection is None or self._looking:
            return
        self._looking = True
        try:
            for stream in self._required.streams:
                await self._look_at_groups(connection, stream, now)
        except (txredisapi.RedisError, NotReady):
            pass  # the connection is lost, and the sink says so
        finally:
            self._looking = False

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
            elif hours:
                oldest = f"{int((now - hours * 3600) * 1000)}-0"
                await connection.command("XTRIM", key, "MINID", "~", oldest, "LIMIT", AT_ONCE)
            facts = _fields(await connection.command("XINFO", "STREAM", key))
        except txredisapi.ResponseError as error:
            if "no such key" not in str(error):
                self.log.warn("{key} could not be looked after: {error}", key=key, error=str(error)[:200])
            return
        length, added = int(facts[b"length"]), int(facts.get(b"entries-added", facts[b"length"]))
        before = self._added.get(stream)
        self._added[stream] = (now, added)
        if before is not None and now > before[0]:
            self.rates[stream] = (added - before[1]) * 60 / (now - before[0])
        if length >= MEASURED_FROM:
            size = await connection.command("MEMORY", "USAGE", key, "SAMPLES", "0")
            self._costs[stream] = max(int(size or 0) / length, 50.0)
        if int(facts[b"groups"]):
            await self._groups(connection, stream, facts)

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

    async def _groups(self, connection: Any, stream: str, facts: Mapping[bytes, Any]) -> None:
        """Warn when entries went that a consumer group has not read."""
        key = self._layout.key(stream)
        entry = facts.get(b"first-entry")
        # what was read to the end has lost nothing, also when nothing is left
        kept_from = _entry_id(entry[0] if entry else facts[b"last-generated-id"])
        for row in await connection.command("XINFO", "GROUPS", key):
            group = _fields(row)
            called = group[b"name"].decode("utf-8", "replace")
            if self._required.required(stream, called):
                continue
            name = f"{key} {called}"
            behind = _entry_id(group[b"last-delivered-id"]) < kept_from
            read, added, length = group.get(b"entries-read"), facts.get(b"entries-added"), int(facts[b"length"])
            gone = int(added) - length - int(read) if read is not None and added is not None else int(behind)
            if behind and gone > 0:
                # what one more minute took; a group that has not moved misses the same ones again
                self._counters["trimmed_unread"] += max(gone - self._unread.get(name, 0), 0)
                self._unread[name] = gone
                if name not in self._warned:
                    self._warned.add(name)
                    self.log.warn("{name}: {n} entries were trimmed before this group read them", name=name, n=gone)
            else:
                self._warned.discard(name)
                self._unread.pop(name, None)


def _fields(row: Any) -> dict[bytes, Any]:
    return dict(zip(row[::2], row[1::2], strict=True))


def _entry_id(text: bytes) -> tuple[int, int]:
    ms, _, sequence = text.partition(b"-")
    return int(ms), int(sequence or 0)
