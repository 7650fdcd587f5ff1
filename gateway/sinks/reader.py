"""
Reads one shard's stream as a member of a consumer group: what is pending for its name, what others left, what is new.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Final

import txredisapi
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.errors import NotReady, Refused
from gateway.sinks.hand import Hand, Handle, Terms
from gateway.sinks.link import RETRY_S, Link

#: How long a read waits for news; so long an end waits for a read that is under way.
BLOCK_MS: Final = 1000
#: So often consumers that are gone are looked for.
FORGET_EVERY_S: Final = 600.0
#: Answers that mean that the stream or its group is gone.
GONE: Final = ("NOGROUP", "UNBLOCKED", "ERR no such key")


class Reader:
    """
    One member of a group, on one stream.

    @ivar hand: what it has read and is not at its end.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, key: str, terms: Terms, handle: Handle, reading: Link, link: Link, counters: Counter[str]
    ) -> None:
        """
        @param reading: a connection of its own, on which a read may wait.
        @param link: where all else is asked.
        """
        self._reactor = reactor
        self._key = key
        self._terms = terms
        self._link = reading
        self._counters = counters
        self._created = False
        self._cursor: bytes = b"0-0"
        self._claim_at = self._forget_at = 0.0
        self._loop: defer.Deferred[None] | None = None
        self._read_all: defer.Deferred[None] = defer.Deferred()
        self.hand = Hand(reactor, key, terms, handle, link, counters)

    def start(self) -> None:
        """Read."""
        self.hand.start()
        self._loop = defer.Deferred.fromCoroutine(self._read())
        self._loop.addErrback(self.hand.fail)
        self._loop.addBoth(self._read_all.callback)

    def stop(self, seconds: float) -> defer.Deferred[None]:
        """Read no more, let what is being handled end within C{seconds}, and leave the rest to others."""
        self.hand.stop()
        if self._loop is not None and not self._link.up:
            self._loop.cancel()
        d: defer.Deferred[None] = defer.Deferred.fromCoroutine(self._finish())
        d.addTimeout(seconds, self._reactor)
        d.addErrback(self._unfinished)
        return d.addBoth(self._end)

    async def _finish(self) -> None:
        if self._loop is not None:
            await self._read_all
        await self.hand.finish()

    def _unfinished(self, failure: Failure) -> None:
        late = failure.check(defer.TimeoutError)
        why = "in time" if late else f"({failure.value})"
        text = "{key}: {n} entries could not be brought to their end {why}; they are delivered again"
        self.log.warn(text, key=self._key, n=len(self.hand), why=why)

    def _end(self, _: object) -> None:
        self.hand.end()
        if self._loop is not None:
            self._loop.cancel()

    async def _read(self) -> None:
        number = 0  # of the connection on which it was looked for what is pending already
        while await self.hand.room():
            try:
                await self._link.connected()
                if number != self._link.number:
                    its = self._link.number
                    await self._create()
                    await self._resume()
                    number = its
                await self._claim()
                await self._forget()
                await self._new()
            except NotReady:  # asked anew on the next connection
                await self.hand.pause(RETRY_S)
            except txredisapi.ResponseError as error:
                if not str(error).startswith(GONE):
                    raise
                number = 0

    async def _create(self) -> None:
        """Make the group, if it is not there; one that was there and is gone begins where the stream does."""
        start = "0" if self._created else self._terms.start
        try:
            await self._link.ask("XGROUP", "CREATE", self._key, self._terms.group, start, "MKSTREAM")
        except txredisapi.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        else:
            level = self.log.warn if self._created else self.log.info
            level("{key}: group {group} is made, from {start}", key=self._key, group=self._terms.group, start=start)
        self._created = True

    async def _new(self) -> None:
        """What nobody has read yet."""
        if not (room := await self.hand.room()):
            return
        head = ("XREADGROUP", "GROUP", self._terms.group, self._terms.name, "COUNT", room, "BLOCK", BLOCK_MS)
        for _, entries in await self._link.ask(*head, "STREAMS", self._key, ">") or ():
            for entry, row in entries:
                self.hand.take(entry, row, 1)
                await self.hand.breathe()

    async def _claim(self) -> None:
        """Take over what others left, some of it at a time."""
        now = self._reactor.seconds()
        if now < self._claim_at or not (room := await self.hand.room()):
            return
        head = ("XAUTOCLAIM", self._key, self._terms.group, self._terms.name, int(self._terms.claim_after * 1000))
        # the ids alone: that an entry is taken over is no delivery yet
        answer = await self._link.ask(*head, self._cursor, "COUNT", room, "JUSTID")
        self._cursor, entries = answer[0], [entry for entry in answer[1] if entry not in self.hand]
        if len(answer) > 2:  # from Redis 7.0 on it has acknowledged what was trimmed itself
            self.hand.trimmed(answer[2])
        self._counters["claimed"] += len(entries)
        if self._cursor == b"0-0":
            self._claim_at = now + self._terms.claim_after / 2
        if entries:
            await self._resume()

    async def _resume(self) -> None:
        """Take into hand what is pending for this name and is not: of an earlier run, or of a lost answer."""
        start: str | bytes = "-"
        while room := await self.hand.room():
            head = ("XPENDING", self._key, self._terms.group, start, "+", self._terms.in_hand, self._terms.name)
            rows = await self._link.ask(*head)
            if not rows:
                return
            new = [row for row in rows if row[0] not in self.hand]
            start = b"(" + (new[room - 1] if len(new) > room else rows[-1])[0]
            if new:
                await self._deliver({row[0]: int(row[3]) + 1 for row in new[:room]})

    async def _deliver(self, deliveries: dict[bytes, int]) -> None:
        """Read entries that are pending for this name, which counts as one more delivery."""
        answer = await self._link.ask("XCLAIM", self._key, self._terms.group, self._terms.name, 0, *deliveries)
        rows = {row[0]: row[1] for row in answer if row is not None}  # None: trimmed, before Redis 7.0
        for entry, row in rows.items():
            self.hand.take(entry, row, deliveries[entry])
            await self.hand.breathe()
        if gone := [entry for entry in deliveries if entry not in rows]:
            await self._link.ask("XACK", self._key, self._terms.group, *gone)
            self.hand.trimmed(gone)

    async def _forget(self) -> None:
        """Delete consumers that have nothing and do nothing, so that their names don't gather."""
        now = self._reactor.seconds()
        if now < self._forget_at:
            return
        self._forget_at = now + min(FORGET_EVERY_S, self._terms.forget_after)
        try:
            rows = await self._link.ask("XINFO", "CONSUMERS", self._key, self._terms.group)
            for row in rows:
                facts = dict(zip(row[::2], row[1::2], strict=True))
                # one that lives reads every second: it can't get an entry between this look and its end
                if facts[b"pending"] == 0 and facts[b"idle"] > self._terms.forget_after * 1000:
                    await self._link.ask("XGROUP", "DELCONSUMER", self._key, self._terms.group, facts[b"name"])
        except Refused as error:
            self.log.warn("{key}: old consumers can't be looked for: {error}", key=self._key, error=str(error))
            self._forget_at = math.inf
