"""
For applications: a consumer of one of the gateway's streams, as a Twisted service.

It is one member of a consumer group.  Each event is handed to the application's
handler, acknowledged when that is done, handed over again when it failed, and
put aside as a dead letter when it fails again and again.  An event that was
handled may come once more, when what stood between its handling and its
acknowledgement broke: handle the same C{id} once.

C{docs/consumers.rst} says how to use it, C{docs/consume.py} is a program.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet import defer, task
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.entries import Contract, Event, known
from gateway.errors import ConfigError, ContractMismatch, Later, Refused
from gateway.sinks.hand import Handle, Terms
from gateway.sinks.link import Link
from gateway.sinks.reader import BLOCK_MS, Reader
from gateway.sinks.sentinel import address

__all__ = ["ConfigError", "Consumer", "ContractMismatch", "Event", "Later", "Refused"]

#: Seconds that Redis may owe an answer.
DEADLINE_S: Final = 5.0
#: So often it is looked for a contract that is not there yet.
CONTRACT_S: Final = 2.0

_number: Final = itertools.count(1)


class Consumer(Service):
    """
    One consumer of one stream, all its shards.

    @ivar counters: C{handled}, C{failed} (a handler's failure, each time), C{dead} (letters), C{claimed} (taken over
        from another name, or left by it), C{trimmed} (gone before they were acknowledged) and C{ignored} (types that
        were not asked for); entries each.
    @ivar ended: fires when it has stopped.  Fails with what makes it of no use to go on, which is logged, too:
        L{ContractMismatch}, or L{Refused}.
    """

    log = Logger()

    def __init__(
        self,
        url: str,
        stream: str,
        group: str,
        handle: Handle,
        *,
        prefix: str = "gateway",
        consumer: str = "",
        start: str = "0",
        types: Iterable[str] = (),
        in_hand: int = 100,
        deliveries: int = 5,
        retry_after: float = 10.0,
        claim_after: float = 60.0,
        timeout: float = 300.0,
        stop_within: float = 10.0,
        dead_entries: int = 10_000,
        forget_after: float = 86_400.0,
        reactor: Any = None,
    ) -> None:
        """
        @param url: C{redis://}, C{rediss://} or C{redis+sentinel://}, as of the gateway.
        @param stream: by its short name: C{position}.
        @param handle: called with each L{Event}.  When it returns, or when the awaitable or Deferred that it returns
            fires, the event is handled; when it raises, it is not.  L{Later} says that nothing is wrong with the event.
        @param consumer: its name in the group, which no other one may have; by default of host and process.  With the
            same name after a restart it goes on with what was not acknowledged at once.
        @param start: where a new group begins: C{0} is all that is kept, C{$} what comes from now on.
        @param types: the types that are handed over; C{alarm.} stands for all that begin so.  By default those that
            this version knows.  The others are acknowledged.
        @param in_hand: entries of a shard that are being handled, or wait for it, at most.
        @param deliveries: an entry is delivered so often, then it is a dead letter.
        @param retry_after: seconds after which an event is handed over again whose handler failed.
        @param claim_after: seconds after which entries of a consumer that is gone are taken over.
        @param timeout: seconds that a handler may take; what it returned is then cancelled, and it has failed.
        @param stop_within: seconds that handlers have to end in when this stops.
        @param dead_entries: dead letters of the group that are kept, about.
        @param forget_after: seconds after which a consumer that did nothing, and has nothing, is deleted.
        @raise ConfigError: when one of these can't be used.
        """
        for name, text in (("stream", stream), ("group", group), ("prefix", prefix)):
            if not text:
                raise ConfigError("Consumer", f"{name} is empty")
        if start not in ("0", "$"):
            raise ConfigError("Consumer", f"start is {start!r}, and has to be '0' or '$'")
        limits: tuple[tuple[str, float, float], ...] = (
            *(("in_hand", 1, in_hand), ("deliveries", 1, deliveries), ("dead_entries", 1, dead_entries)),
            *(("retry_after", 0.01, retry_after), ("timeout", 0.01, timeout), ("stop_within", 0.01, stop_within)),
            # what is in hand is kept from being taken over three times in this time, by whole milliseconds
            *(("claim_after", 1, claim_after), ("forget_after", 10, forget_after)),
        )
        for name, least, value in limits:
            if value < least:
                raise ConfigError("Consumer", f"{name} is {value:g}, and has to be {least:g} at least")
        if isinstance(types, str):
            raise ConfigError("Consumer", "types is one text, and has to be several")
        self._url = address(url, "Consumer, url")
        self._prefix, self._stream, self._handle, self._stop_within = prefix, stream, handle, stop_within
        self._types = tuple(types)
        self._terms = Terms(
            group=group,
            name=consumer or _own_name(),
            dead=f"{prefix}:consumer:dead:{group}",
            start=start,
            types=self._types or known(stream),
            in_hand=in_hand,
            deliveries=deliveries,
            retry_after=retry_after,
            claim_after=claim_after,
            timeout=timeout,
            dead_entries=dead_entries,
            forget_after=forget_after,
        )
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        self._link = self._linked(DEADLINE_S)
        self._links = [self._link]
        self._readers: list[Reader] = []
        self._agreeing: defer.Deferred[None] | None = None
        self._stopping: defer.Deferred[None] | None = None
        self.counters: Counter[str] = Counter()
        self.ended: defer.Deferred[None] = defer.Deferred()

    def _linked(self, deadline: float) -> Link:
        """A connection to where a shard is: the one server, as long as there is no cluster."""
        return Link(self._reactor, self._url, deadline)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's
        self._link.start()
        self._agreeing = defer.Deferred.fromCoroutine(self._begin())
        self._agreeing.addErrback(self._fail)

    async def _begin(self) -> None:
        contract = await self._contract()
        contract.check(self._prefix, self._stream, self._types)
        for key in contract.keys(self._stream):
            reading = self._linked(DEADLINE_S + BLOCK_MS / 1000)
            reader = Reader(self._reactor, key, self._terms, self._handle, reading, self._link, self.counters)
            reader.hand.failed.addErrback(self._fail)
            self._links.append(reading)
            self._readers.append(reader)
            reading.start()
            reader.start()

    async def _contract(self) -> Contract:
        """What the gateway says of its streams, as soon as one does."""
        key, said = f"{self._prefix}:contract", False
        while (text := await self._link.call("GET", key)) is None:
            if not said:
                said = True
                self.log.warn("there is no {key} yet: waiting for a gateway with this prefix", key=key)
            await task.deferLater(self._reactor, CONTRACT_S)
        return Contract.parse(text, key)

    def _fail(self, failure: Failure) -> None:
        """Go on no more."""
        if self._stopping is not None and failure.check(defer.CancelledError):
            return
        self.log.error(
            "the consumer of {stream} in group {group} ends: {error}",
            **{"stream": self._stream, "group": self._terms.group, "error": str(failure.value)[:300]},
        )
        self._stop(failure)

    def stopService(self) -> defer.Deferred[None]:
        """Read no more, let handlers end, and leave what was not begun to others."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's
        self._stop(None)
        done: defer.Deferred[None] = defer.Deferred()
        assert self._stopping is not None
        self._stopping.addBoth(lambda _: done.callback(None))
        return done

    def _stop(self, why: Failure | None) -> None:
        if self._stopping is None:
            self._stopping = defer.Deferred()
            ended = defer.Deferred.fromCoroutine(self._end(why))
            ended.addErrback(lambda f: self.log.failure("a consumer's end ended in an error of our own", f))

    async def _end(self, why: Failure | None) -> None:
        if self._agreeing is not None:
            self._agreeing.cancel()
        await defer.DeferredList([reader.stop(self._stop_within) for reader in self._readers])
        for link in self._links:
            link.stop()
        assert self._stopping is not None
        self._stopping.callback(None)
        if why is None:
            self.ended.callback(None)
        else:
            self.ended.errback(why)


def _own_name() -> str:
    """Host and process; of the second consumer of a process with its number."""
    number = next(_number)
    names: Sequence[object] = (socket.gethostname(), os.getpid(), *((number,) if number > 1 else ()))
    return "-".join(map(str, names))
