"""
Where the master is, for whoever runs in the reactor: sentinels are asked at each connect, and in between.

The sentinel that answered last is asked first, and what it names has to say
itself that it is a master.  They are asked once a second as well while all
seems well: in an orderly failover the old master goes on taking writes for
some seconds, and they are lost when it becomes a replica.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.errors import NotReady, Refused
from gateway.sinks.blocking import RedisURL
from gateway.sinks.connection import RedisConnection, dial, translated
from gateway.sinks.sentinel import ASK_S, Place, SentinelURL, must_be_master, shown

#: Answers of a server that is a replica by now, or is becoming one.
MOVED: Final = ("READONLY", "MASTERDOWN", "LOADING")
#: Stored batches are kept so long: from the promotion of a replica until that is noticed, and some more.
KEPT_S: Final = 10.0


class MasterSearch:
    """Finds the master for whoever runs in the reactor, and notices when it is another one."""

    log = Logger()

    def __init__(self, reactor: Any, url: SentinelURL) -> None:
        self._reactor = reactor
        self._url = url
        self._order = [*url.sentinels]
        self._place: Place = ("", 0)
        self._looking: defer.Deferred[None] | None = None

    def connect(self, timeout: float) -> defer.Deferred[RedisConnection]:
        """Ask where the master is, and connect to it within C{timeout} seconds; it is still to be verified."""
        return defer.Deferred.fromCoroutine(self._connect(timeout))

    async def _connect(self, timeout: float) -> RedisConnection:
        self._place = await self._find()
        try:
            return await dial(self._reactor, self._url.at(self._place), timeout)
        except defer.CancelledError:
            raise
        except Exception as error:
            self._turn()
            raise NotReady(f"master {shown(self._place)}: {error}") from error

    async def verify(self, connection: RedisConnection) -> None:
        """
        Hear from the server itself that it is a master.

        @raise NotReady: it is not.
        """
        try:
            must_be_master(await translated(connection.command("ROLE")))
        except NotReady as error:
            self._turn()
            raise NotReady(f"{shown(self._place)}: {error}") from error

    def look(self, connection: RedisConnection) -> None:
        """Ask whether the master is still the one of this connection, and hang up when it is not."""
        if self._looking is None:
            self._looking = defer.Deferred.fromCoroutine(self._look(connection))
            self._looking.addBoth(self._looked)

    async def _look(self, connection: RedisConnection) -> None:
        before = self._place
        try:
            now = await self._find()
        except (NotReady, Refused):  # a master without sentinels is still one
            return
        if now != before and connection.connected:
            self.log.warn("the master was {before}, and is {now}: going there", before=shown(before), now=shown(now))
            connection.transport.abortConnection()

    def _looked(self, result: Any) -> None:
        self._looking = None
        if isinstance(result, Failure) and not result.check(defer.CancelledError):
            self.log.failure("looking for the master ended in an error of our own", result)

    def stop(self) -> None:
        """Ask no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _find(self) -> Place:
        errors: dict[RedisURL, Exception] = {}
        for sentinel in [*self._order]:
            try:
                place = await defer.Deferred.fromCoroutine(self._ask(sentinel)).addTimeout(ASK_S, self._reactor)
            except defer.CancelledError:
                raise
            except Exception as error:  # whatever it is, the next one may answer
                errors[sentinel] = error
                continue
            self._order.remove(sentinel)
            self._order.insert(0, sentinel)
            return place
        raise self._url.verdict(errors)

    async def _ask(self, sentinel: RedisURL) -> Place:
        connection = await dial(self._reactor, sentinel, ASK_S)
        try:
            if (auth := sentinel.auth()) is not None:
                await translated(connection.command(*auth))
            return self._url.place(await translated(connection.command(*self._url.question())))
        finally:
            connection.transport.abortConnection()

    def _turn(self) -> None:
        """What the first sentinel says is out of date: ask the others before it."""
        self._order.append(self._order.pop(0))
