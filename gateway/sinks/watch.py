"""Watches the consumer groups of the streams: how far they are, what they miss, and whether anybody reads at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger

from gateway.lag import EntryId, Group, Stream
from gateway.sinks.connection import Layout

#: Streams that somebody should read.
READ: Final = ("position", "event")
#: For so long entries come that no group reads before that is said.
NOBODY_S: Final = 300.0
#: For so long nobody of a group asks for entries, and some wait for it, before that is said.
ASLEEP_S: Final = 600.0
#: What the fields of C{<prefix>:trimmed} begin with that are written here.
COUNTED: Final = "missed "


class GroupWatch:
    """
    Watches, for one of all that write to a Redis.

    @ivar groups: stream -> group -> its figures, as of the last look.
    """

    log = Logger()

    def __init__(self, layout: Layout, required: Callable[[str, str], bool], counters: Counter[str]) -> None:
        """
        @param required: whether a group of a stream is one that the gateway waits for; what such a one misses is
            counted elsewhere.
        @param counters: where C{trimmed_unread} is counted.
        """
        self._layout = layout
        self._required = required
        self._counters = counters
        #: <stream>/<group> -> how many entries it misses, as far as they are counted
        self._missed: dict[str, int] = {}
        self._alone: dict[str, tuple[float, EntryId]] = {}
        self._lags: dict[str, int] = {}
        self._said: set[str] = set()
        self.groups: dict[str, dict[str, dict[str, float]]] = {}

    async def begin(self, connection: Any) -> None:
        """It is we who watch from now on: learn what was counted already."""
        row = await connection.command("HGETALL", self._layout.key("trimmed"))
        pairs = ((name.decode("utf-8", "replace"), n) for name, n in zip(row[::2], row[1::2], strict=True))
        self._missed = {name.removeprefix(COUNTED): int(n) for name, n in pairs if name.startswith(COUNTED)}

    def rest(self) -> None:
        """Somebody else does."""
        self.groups, self._alone, self._lags, self._said = {}, {}, {}, set()

    async def saw(self, connection: Any, stream: str, found: Stream | None, now: float) -> None:
        """What a look has found; None: there is no such stream."""
        self._nobody(stream, found, now)
        self.groups.pop(stream, None)
        if found is None or not found.groups:
            return
        self.groups[stream] = {group.name: group.figures for group in found.groups}
        for group in found.groups:
            self._asleep(stream, group)
            if not self._required(stream, group.name):
                await self._misses(connection, stream, group)

    def _nobody(self, stream: str, found: Stream | None, now: float) -> None:
        """Say once that entries come and no group is there, and again when there was one in between."""
        if stream not in READ or found is None or found.number:
            self._alone.pop(stream, None)
            self._said.discard(stream)
            return
        since, last = self._alone.setdefault(stream, (now, found.last))
        if now - since >= NOBODY_S and found.last != last and stream not in self._said:
            self._said.add(stream)
            self.log.warn(
                "{key}: entries come, and no consumer group reads them (who reads without a group can't be seen); "
                "they are trimmed all the same",
                key=self._layout.key(stream),
            )

    def _asleep(self, stream: str, group: Group) -> None:
        """Say once that a group has entries to read, more and more of them, and nobody asks for them."""
        name = f"{stream}/{group.name}"
        idle = group.idle_s is None or group.idle_s >= ASLEEP_S
        before, lag = self._lags.get(name), group.lag
        if lag is not None:
            self._lags[name] = lag
        if not (idle and group.behind_s >= ASLEEP_S):
            if name in self._said:
                self._said.discard(name)
                self.log.info("{key}: group {group} reads again", key=self._layout.key(stream), group=group.name)
        elif name not in self._said and (lag is None or (before is not None and lag > before)):
            self._said.add(name)
            self.log.warn(
                "{key}: group {group} does not read: {who}, {n} entries wait, the oldest for {minutes:.0f} minutes",
                key=self._layout.key(stream),
                group=group.name,
                who="it has no consumer" if group.idle_s is None else f"none of its {group.consumers} consumers asks",
                n="an unknown number of" if lag is None else lag,
                minutes=group.behind_s / 60,
            )

    async def _misses(self, connection: Any, stream: str, group: Group) -> None:
        """Count entries that went before a group was given them, each once, whoever watches."""
        name, missed = f"{stream}/{group.name}", group.missed
        before = self._missed.get(name, 0)
        if missed == before:
            return
        # written first: what is counted twice is worse than what is not, when the connection breaks in between
        field = COUNTED + name
        if missed:
            self._missed[name] = missed
            await connection.command("HSET", self._layout.key("trimmed"), field, missed)
        else:
            del self._missed[name]
            await connection.command("HDEL", self._layout.key("trimmed"), field)
        if missed > before:
            self._counters["trimmed_unread"] += missed - before
            if not before:
                key = self._layout.key(stream)
                self.log.warn(
                    "{key} {group}: {n} entries were trimmed before this group read them",
                    key=key,
                    group=group.name,
                    n=missed,
                )
