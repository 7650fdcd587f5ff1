"""
A connection to Redis for whoever consumes: made anew whenever it is lost, while what was asked waits.

The gateway's own L{gateway.sinks.redis} has more to lose than a request.
"""

from __future__ import annotations

from typing import Any, Final

import txredisapi
from twisted.internet import defer, task
from twisted.logger import Logger

from gateway.errors import NotReady, Refused
from gateway.sinks.blocking import NOT_NOW, RedisURL
from gateway.sinks.connection import RedisConnection, dial, translated
from gateway.sinks.search import MOVED, MasterSearch
from gateway.sinks.sentinel import SentinelURL

BACKOFF_S: Final = (0.05, 5.0)
#: After an answer 'not now' the same is asked again.
RETRY_S: Final = 0.2
WATCH_S: Final = 1.0


class Link:
    """
    One connection.

    @ivar number: how many were made so far: another number is another connection, to what may be another server.
    """

    log = Logger()

    def __init__(self, reactor: Any, url: RedisURL | SentinelURL, deadline: float) -> None:
        """@param deadline: seconds that the server may owe an answer."""
        self._reactor = reactor
        self._url = url
        self._entry = url.master if isinstance(url, SentinelURL) else url
        self._search = MasterSearch(reactor, url) if isinstance(url, SentinelURL) else None
        self._deadline = deadline
        self._connection: RedisConnection | None = None
        self._waiting: list[defer.Deferred[RedisConnection]] = []
        self._running: defer.Deferred[None] | None = None
        self._stopping = False
        self._attempts = 0
        self._said = ""
        self._watching = task.LoopingCall(self._watch)
        self._watching.clock = reactor
        self.number = 0

    @property
    def up(self) -> bool:
        """Whether it is connected."""
        return self._connection is not None and bool(self._connection.connected)

    # -- life

    def start(self) -> None:
        """Connect, and stay connected."""
        self._running = defer.Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._ended)
        self._watching.start(WATCH_S, now=False)

    def stop(self) -> None:
        """Hang up for good; what waits is cancelled."""
        self._stopping = True
        if self._watching.running:
            self._watching.stop()
        if self._running is not None:
            self._running.cancel()
        if self._search is not None:
            self._search.stop()
        if self._connection is not None:
            self._connection.transport.abortConnection()
        for d in [*self._waiting]:
            d.cancel()

    def _ended(self, failure: Any) -> None:
        if not (self._stopping and failure.check(defer.CancelledError)):
            self.log.failure("a connection to Redis ended in an error of our own", failure)

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._open()
            except defer.CancelledError:
                raise
            except Exception as error:  # whatever keeps us from this server: say it once, try again
                self._down(error)
            else:
                self._attempts = 0
                self._said = ""
                self._connection = connection
                self.number += 1
                waiting, self._waiting = self._waiting, []
                for d in waiting:
                    d.callback(connection)
                await connection.lost
                self._down(NotReady("the connection is lost"))
            if self._stopping:  # whoever was told so has stopped it
                return
            low, high = BACKOFF_S
            await task.deferLater(self._reactor, min(low * 2**self._attempts, high))
            self._attempts = min(self._attempts + 1, 16)

    async def _open(self) -> RedisConnection:
        if self._search is not None:
            connection = await self._search.connect(self._deadline)
        else:
            connection = await dial(self._reactor, self._entry, self._deadline)
        try:
            await self._enter(connection).addTimeout(self._deadline, self._reactor)
        except BaseException:
            connection.transport.abortConnection()
            raise
        return connection

    def _enter(self, connection: RedisConnection) -> defer.Deferred[None]:
        async def enter() -> None:
            if (auth := self._entry.auth()) is not None:
                await translated(connection.command(*auth))
            if self._search is not None:
                await self._search.verify(connection)
            if self._entry.database:
                await translated(connection.command("SELECT", self._entry.database))
            await translated(connection.command("PING"))  # without a password it is here that we are refused

        return defer.Deferred.fromCoroutine(enter())

    def _down(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text != self._said:
            self._said = text
            level = self.log.error if isinstance(error, Refused) else self.log.warn
            level("Redis {url} is not ready: {error}", url=str(self._url), error=text[:300])
        if isinstance(error, Refused) and not self.number:  # who was never let in has to be told
            waiting, self._waiting = self._waiting, []
            for d in waiting:
                d.errback(error)

    def _watch(self) -> None:
        connection = self._connection
        if connection is None or not connection.connected:
            return
        if connection.owed and self._reactor.seconds() - connection.owed[0] > self._deadline:
            connection.owed.clear()
            self.log.warn("{url} owes an answer for {s:g} s: connecting anew", url=str(self._url), s=self._deadline)
            connection.transport.abortConnection()
        elif self._search is not None:
            self._search.look(connection)

    # -- asking

    def connected(self) -> defer.Deferred[RedisConnection]:
        """
        The connection, as soon as there is one.

        Fails with L{Refused} when the server does not take the credentials, and never has.
        """
        connection = self._connection
        if connection is not None and connection.connected:
            return defer.succeed(connection)
        d: defer.Deferred[RedisConnection] = defer.Deferred(self._forget)
        self._waiting.append(d)
        return d

    def _forget(self, d: defer.Deferred[RedisConnection]) -> None:
        if d in self._waiting:
            self._waiting.remove(d)

    async def ask(self, *args: str | bytes | int) -> Any:
        """
        Ask once, as soon as there is a connection.

        @raise NotReady: the server answers 'not now', or the connection was lost, and nobody knows what was done.
        @raise Refused: the server does not allow it.
        @raise txredisapi.ResponseError: for any other error that it answers.
        """
        connection = await self.connected()
        try:
            return await _shielded(connection.command(*args))
        except txredisapi.ConnectionError as error:
            raise NotReady(str(error)) from error
        except txredisapi.ResponseError as error:
            text = str(error)
            if text.startswith("NOPERM"):
                raise Refused(f"{args[0]!s}: {text}") from error
            if self._search is not None and text.startswith(MOVED):
                connection.transport.abortConnection()
            if text.startswith(NOT_NOW):
                raise NotReady(text) from error
            raise

    async def call(self, *args: str | bytes | int) -> Any:
        """Ask until there is an answer; what is asked may be done twice.  Raises as L{ask}, but for L{NotReady}."""
        while True:
            try:
                return await self.ask(*args)
            except NotReady as error:
                if self.up:
                    self._down(error)
                await task.deferLater(self._reactor, RETRY_S)


def _shielded(d: defer.Deferred[Any]) -> defer.Deferred[Any]:
    """An answer that may be waited for no longer: it is still taken from the connection when it comes."""
    outer: defer.Deferred[Any] = defer.Deferred()
    d.addBoth(outer.callback)
    return outer
