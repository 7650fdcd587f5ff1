"""
The sink that appends to Redis streams: one producer, one batch in flight, nothing twice and nothing lost.

The producer numbers its batches; the server-side script C{store.lua} takes a
number once.  An answer that got lost, a restart, a server that lost its newest
writes or all of them: the numbers tell what to send again.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final

import txredisapi
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.errors import BatchRefused, NotReady, Refused
from gateway.fields import rfc3339
from gateway.session import DIGEST_BYTES, Stored
from gateway.sinks.blocking import NOT_NOW, OLDEST, REFUSALS, RedisURL, info, pack, version
from gateway.sinks.confirm import Confirmation
from gateway.sinks.connection import Layout, RedisConnection, dial, source, translated
from gateway.sinks.script import Script
from gateway.sinks.search import KEPT_S as SENTINEL_KEPT_S
from gateway.sinks.search import MOVED, MasterSearch
from gateway.sinks.sentinel import SentinelURL
from gateway.tickets import Answer, Batch

STREAM_ORDER: Final = ("position", "event", "link", "result", "raw", "dead")
#: Stored batches are kept so long, and so many bytes of them, for a server that loses its newest writes.
KEPT_S: Final = 3.0
KEPT_BYTES: Final = 64 * 1024 * 1024
RETRY_S: Final = 0.2
SESSION_TTL_S: Final = 900
INSTANCE_TTL_S: Final = 15
#: How long ledgers and numbers of producers are kept after their last batch; store.lua has it, too.
PRODUCER_TTL_S: Final = 30 * 86_400
#: What the script keeps of a recent report: the beginning of its id, and the newest device time in ms.
STAMP_BYTES: Final = 6
RECORD_BYTES: Final = DIGEST_BYTES + STAMP_BYTES
BACKOFF_S: Final = (0.05, 2.0)
#: So often a batch is sent that is refused for no reason that is known to pass.
TRIES: Final = 3


class Numbered:
    """
    A batch with its number.

    @ivar args: of the script, but for those that say which batch of which producer it is.
    @ivar size: bytes that it takes as it is sent.
    """

    __slots__ = ("answer", "args", "counted", "doubtful", "frames", "number", "size", "stored_at", "tries")

    def __init__(self, batch: Batch, head: tuple[str, ...], tail: tuple[str, ...]) -> None:
        self.args: tuple[str | bytes, ...] = (
            *head,
            str(batch.limited),
            str(batch.dropped),
            str(len(batch.groups)),
            *tail,
            *batch.groups,
            *((str(batch.refused),) if batch.refused else ()),
        )
        self.size = 0
        self.number = 0
        self.stored_at = 0.0
        self.tries = 0
        self.answer: Any = None
        self.frames = batch.frames
        #: the producer in whose ledger its frames are, as far as was answered
        self.counted = ""
        #: whether the script ended in the middle of it: its number may be taken, and that says nothing
        self.doubtful = False


class RedisSink:
    """
    One producer on one Redis.

    @ivar ready: whether there is a connection on which everything that has to be said first was said.
    @ivar taking: whether the server takes batches now, as far as is known.
    @ivar on_down: called when batches are not taken any more, or the first attempt failed.
    @ivar maxlen: stream -> entries that the script trims it to; 0: not.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        url: RedisURL | SentinelURL,
        layout: Layout,
        *,
        deadline: float = 5.0,
        confirm: str = "memory",
    ) -> None:
        """
        @param deadline: seconds that the server may owe an answer.
        @param confirm: what makes a batch stored: C{memory}, C{replica} or C{fsync}.
        """
        self._reactor: Any = reactor
        self._url = url
        # the user, password and database of the server, wherever it is
        self._entry = url.master if isinstance(url, SentinelURL) else url
        self._search = MasterSearch(reactor, url) if isinstance(url, SentinelURL) else None
        self._confirm = None if confirm == "memory" else Confirmation(confirm, deadline)
        # answers after which this connection is of no use any more
        self._hang_up = REFUSALS if self._search is None else (*REFUSALS, *MOVED)
        self._kept_s = KEPT_S if self._search is None else SENTINEL_KEPT_S
        self._layout = layout
        self._deadline = deadline
        self._on_ready: Callable[[RedisConnection], Coroutine[Any, Any, None]] | None = None
        self._on_restart: Callable[[], None] = lambda: None
        self._counters: Counter[str] = Counter()
        self._store = Script.load("store.lua")
        self._begin = Script.load("begin.lua")
        self._connection: RedisConnection | None = None
        self._running: defer.Deferred[None] | None = None
        self._stopping = False
        self._wake: defer.Deferred[None] | None = None
        self._attempts = 0
        self._attempt: defer.Deferred[Any] | None = None
        self._boot = _boot_id()
        #: frames that Redis said to have, by the name under which their batches were numbered, the present one last
        self.stored: dict[str, int] = {self.producer: 0}
        #: frames that were counted once more, under another name than before
        self.again = 0
        self._number = 0
        self._current: Numbered | None = None
        self._done: defer.Deferred[Answer] | None = None
        self._kept: deque[Numbered] = deque()
        self._kept_bytes = 0
        self._resend: deque[Numbered] = deque()
        self._waiting_begin: list[tuple[list[str], bool, defer.Deferred[list[Stored]]]] = []
        self._complained = ""
        self._waiting: list[defer.Deferred[None]] = []
        self.ready = False
        self.taking = False
        self.on_down: Callable[[], None] = lambda: None
        self.maxlen: dict[str, int] = dict.fromkeys(STREAM_ORDER, 0)

    @property
    def producer(self) -> str:
        """The name under which batches are numbered now."""
        return f"{self._layout.instance}-{self._boot}"

    @property
    def next_number(self) -> int:
        """The number that the next batch gets, if all goes well until then."""
        return self._number + 1

    @property
    def connection(self) -> RedisConnection | None:
        """The connection, while the server is ready."""
        return self._connection if self.ready else None

    def connect(
        self,
        *,
        on_ready: Callable[[RedisConnection], Coroutine[Any, Any, None]],
        on_restart: Callable[[], None],
        counters: Counter[str],
    ) -> None:
        """
        Tie it to those that need it to be made first.

        @param on_ready: what is done on each new connection before batches flow.
        @param on_restart: called when Redis lost more than was kept, so that every cached state is doubtful.
        @param counters: where what happens is counted.
        """
        self._on_ready, self._on_restart, self._counters = on_ready, on_restart, counters

    # -- life

    def start(self) -> None:
        """Connect, and stay connected."""
        self._running = defer.Deferred.fromCoroutine(self._run())
        self._running.addErrback(lambda f: self.log.failure("the Redis connection ended in an error of our own", f))

    def stop(self) -> defer.Deferred[None]:
        """Hang up for good; fires when that is done."""
        self._stopping = True
        self._wake_up()
        if self._attempt is not None:
            self._attempt.cancel()
        if self._search is not None:
            self._search.stop()
        if self._connection is not None:
            self._connection.transport.abortConnection()
        return self._running if self._running is not None else defer.succeed(None)

    def watch(self, now: float) -> None:
        """Called once a second: a server that owes an answer for longer than the deadline is hung up on."""
        connection = self._connection
        if connection is not None and connection.owed and now - connection.owed[0] > self._deadline:
            connection.owed.clear()
            self.log.warn("{url} owes an answer for {s:g} s: connecting anew", url=str(self._url), s=self._deadline)
            connection.transport.abortConnection()
        elif connection is not None and self._search is not None and self.ready:
            self._search.look(connection)

    async def _run(self) -> None:
        while not self._stopping:
            connection: RedisConnection | None = None
            try:
                connection = await self._connect()
                await self._handshake(connection)
            except Exception as error:  # whatever keeps us from this server: say it once, try again
                if not self._stopping:
                    self._down(error)
                if connection is not None:
                    connection.transport.abortConnection()
                await self._pause()
                continue
            self._attempts = 0
            await connection.lost
            self.ready = self.taking = False
            self._connection = None
            if not self._stopping:
                self._down(NotReady("the connection is lost"))
                await self._pause()

    async def _connect(self) -> RedisConnection:
        if self._search is not None:
            self._attempt = self._search.connect(self._deadline)
        else:
            self._attempt = dial(self._reactor, self._entry, self._deadline)
        try:
            connection: RedisConnection = await self._attempt
        finally:
            self._attempt = None
        return connection

    async def _handshake(self, connection: RedisConnection) -> None:
        self._connection = connection
        auth = self._entry.auth()
        if auth is not None:
            await translated(connection.command(*auth))
        if self._search is not None:
            await self._search.verify(connection)
        if self._entry.database:
            await translated(connection.command("SELECT", self._entry.database))
        found = version(info(await translated(connection.command("INFO", "server"))))
        if found < OLDEST:
            raise Refused(f"version {'.'.join(map(str, found))} is too old, 6.2 or later is needed")
        if self._confirm is not None:
            await self._confirm.agree(connection)
        for script in (self._store, self._begin):
            await translated(connection.command("SCRIPT", "LOAD", script.text))
        if self._on_ready is not None:
            await self._on_ready(connection)
        last = await translated(connection.command("GET", self._producer_key()))
        self.ready = True
        self._complained = ""
        self.log.info("Redis {url} is ready, producer {producer}", url=str(self._url), producer=self.producer)
        self._resume(int(last or 0))  # before anybody gives us another batch
        self._up()
        waiting, self._waiting_begin = self._waiting_begin, []
        for idents, take, d in waiting:
            self._send_begin(idents, take, d)

    def _down(self, error: BaseException) -> None:
        """Say once why Redis is not there."""
        text = str(error) or type(error).__name__
        if text != self._complained:
            self._complained = text
            level = self.log.error if isinstance(error, Refused) else self.log.warn
            level("Redis {url} is not ready: {error}", url=str(self._url), error=text)
        self._counters["redis_down"] += 1
        self._refusing()

    def _up(self) -> None:
        """Batches are taken now."""
        if not self.taking:
            self.taking = True
            waiting, self._waiting = self._waiting, []
            for d in waiting:
                d.callback(None)

    def _refusing(self) -> None:
        """Batches are not taken now."""
        self.taking = False
        self.on_down()

    def until_taking(self) -> defer.Deferred[None]:
        """Fires when the server takes batches."""
        d: defer.Deferred[None] = defer.Deferred()
        if self.taking:
            d.callback(None)
        else:
            self._waiting.append(d)
        return d

    async def _pause(self) -> None:
        if self._stopping:
            return
        wait = min(BACKOFF_S[0] * 2**self._attempts, BACKOFF_S[1])
        self._attempts = min(self._attempts + 1, 16)
        self._wake = defer.Deferred()
        call = self._reactor.callLater(wait, self._wake_up)
        await self._wake
        if call.active():
            call.cancel()

    def _wake_up(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    def _now(self) -> float:
        now: float = self._reactor.seconds()
        return now

    # -- batches

    def store(self, batch: Batch, instance: str = "") -> defer.Deferred[Answer]:
        """
        Append a batch; only one may be under way.

        @return: its answer; it waits, and sends again, until there is one.  L{BatchRefused} when there won't be.
        @param instance: of the gateway that gathered the batch, if it was another one.
        """
        assert self._current is None, "one batch is in flight at a time"
        numbered = self._numbered(batch, instance)
        self._number += 1
        numbered.number = self._number
        self._current = numbered
        self._done = defer.Deferred()
        if self.ready and not self._resend:
            self._send(numbered)
        return self._done

    async def replay(self, batch: Batch, producer: str, number: int, instance: str) -> Answer | None:
        """
        Send what an earlier process gave Redis, or was about to, under the number that it had.

        @return: None when the number says nothing: the server has lost what came before it, or refuses it, or the
            script failed in the middle of it.
        """
        numbered = self._numbered(batch, instance)
        numbered.number = number
        doubtful = False
        while True:
            await self.until_taking()
            connection = self._connection
            assert connection is not None
            try:
                answer = await self._write(connection, numbered, producer)
            except Exception as error:  # lost, or not now: it is asked again, or the next connection is
                text = str(error)
                if text.startswith("NOSCRIPT"):
                    connection.command("SCRIPT", "LOAD", self._store.text).addErrback(lambda _: None)
                elif not isinstance(error, (txredisapi.ConnectionError, NotReady)):
                    self._say_refused(text)
                    doubtful = doubtful or not text.startswith((*NOT_NOW, *self._hang_up))
                    if text.startswith(self._hang_up):
                        connection.transport.abortConnection()
                    numbered.tries += not text.startswith((*NOT_NOW, *REFUSALS))
                    if numbered.tries >= TRIES:
                        return None
                pause: defer.Deferred[None] = defer.Deferred()
                self._reactor.callLater(RETRY_S, pause.callback, None)
                await pause
                continue
            if answer[0] == b"gap" or (doubtful and answer[0] != b"ok"):
                return None
            self._counters["already"] += answer[0] != b"ok"
            return _answer(answer) if answer[0] == b"ok" else Answer()

    def _numbered(self, batch: Batch, instance: str) -> Numbered:
        instance = instance or self._layout.instance
        head = (instance, source(instance), str(int(batch.now * 1000)), str(SESSION_TTL_S))
        tail = (*(str(self.maxlen[stream]) for stream in STREAM_ORDER), rfc3339(batch.now))
        return Numbered(batch, head, tail)

    def ledger_key(self, producer: str) -> str:
        """Where the script counts what became of a producer's frames."""
        return self._layout.key("ledger", producer)

    def _producer_key(self) -> str:
        return self._layout.key("producer", self.producer)

    def _write(self, connection: RedisConnection, batch: Numbered, producer: str) -> defer.Deferred[Any]:
        layout = self._layout
        head = ("EVALSHA", self._store.sha, "1", layout.key("producer", producer), f"{layout.prefix}:")
        packed = pack((*head, str(batch.number), producer, *batch.args))
        batch.size = len(packed)
        d = connection.send(packed)
        if self._confirm is not None:
            d = self._confirm.after(d, batch, connection, self._counters)
        return d

    def _send(self, batch: Numbered) -> None:
        connection = self._connection
        assert connection is not None
        d = self._write(connection, batch, self.producer)
        d.addCallback(self._answered, batch, connection)
        d.addErrback(self._failed, batch, connection)

    def _answered(self, answer: Sequence[Any], batch: Numbered, connection: RedisConnection) -> None:
        if connection is not self._connection:
            return
        self._complained = ""
        if not self.taking:
            self._up()
        status = answer[0]
        if status == b"gap":
            self._resume(int(answer[1]))
            return
        if status == b"ok":
            for fault in answer[5]:
                self._counters["faults"] += 1
                self.log.error("Redis refused a part of the state: {fault}", fault=str(fault)[:200])
        elif batch.doubtful and batch is self._current:
            self._give_up("the script failed in the middle of it")
            return
        else:
            self._counters["already"] += 1
        self._count(batch)
        if self._resend:
            self._resend.popleft()
            self._counters["resent"] += 1
        if batch is self._current:
            self._keep(batch)
            self._current = None
            done, self._done = self._done, None
            assert done is not None
            done.callback(_answer(answer) if status == b"ok" else Answer())
        elif self._resend:
            self._send(self._resend[0])
        elif self._current is not None:
            self._send(self._current)

    def _count(self, batch: Numbered) -> None:
        """The ledger has a batch: in the same name it has it once, however often it was sent."""
        if batch.counted != self.producer:
            self.again += batch.frames if batch.counted else 0
            self.stored[self.producer] += batch.frames
            batch.counted = self.producer

    @property
    def unanswered(self) -> list[tuple[int, int]]:
        """Number and frames of the batches of which only their number in Redis tells whether the ledger has them."""
        under_way = (*self._resend, *((self._current,) if self._current is not None else ()))
        return [
            (batch.number, batch.frames)
            for batch in under_way
            if not (batch.counted == self.producer or batch.doubtful)
        ]

    def _failed(self, failure: Failure, batch: Numbered, connection: RedisConnection) -> None:
        if connection is not self._connection or failure.check(txredisapi.ConnectionError):
            return  # the next connection asks for the number and goes on from there
        text = str(failure.value)
        if text.startswith("NOSCRIPT"):
            d = connection.command("SCRIPT", "LOAD", self._store.text)
            d.addCallback(lambda _: self._send(batch))
            d.addErrback(self._failed, batch, connection)
            return
        self._say_refused(text)
        if text.startswith(self._hang_up):
            connection.transport.abortConnection()
            return
        if not text.startswith(NOT_NOW):
            batch.doubtful = True
            batch.tries += 1
            if batch.tries >= TRIES and batch is self._current:
                self._give_up(text)
                return
        self._refusing()
        self._reactor.callLater(RETRY_S, self._retry, batch, connection)

    def _say_refused(self, text: str) -> None:
        if text != self._complained:
            self._complained = text
            level = self.log.warn if text.startswith(NOT_NOW) else self.log.error
            level("Redis does not take a batch, sending it again: {error}", error=text[:300])
        self._counters["not_now"] += 1

    def _give_up(self, text: str) -> None:
        """The batch that is under way is refused, and will be: whoever gave it to us has to see to it."""
        self._current = None
        done, self._done = self._done, None
        # whether its number was taken is not known
        self._restart("a batch is refused for good: after {before} goes on {producer}, with the last {n} batches")
        self._resume(self._number)
        self._begin_behind(self._connection)
        assert done is not None
        done.errback(BatchRefused(text))
        if not (self.taking or self._resend or self._current):  # no answer is to come that says so
            self._up()

    def _begin_behind(self, connection: RedisConnection | None) -> None:
        """
        Let the new name begin behind what is kept, which is stored: it is sent again only if Redis loses it.

        Where a batch comes first it leaves a gap, and all of it is sent.
        """
        if connection is None or connection is not self._connection or self._current is not None or self._resend:
            return
        begun = connection.command("SET", self._producer_key(), self._number, "EX", PRODUCER_TTL_S)
        begun.addErrback(lambda _: self._reactor.callLater(RETRY_S, self._begin_behind, connection))

    def _retry(self, batch: Numbered, connection: RedisConnection) -> None:
        if connection is self._connection and self.ready:
            self._send(batch)

    def _keep(self, batch: Numbered) -> None:
        now = batch.stored_at = self._now()
        self._kept.append(batch)
        self._kept_bytes += batch.size
        while self._kept_bytes > KEPT_BYTES or now - self._kept[0].stored_at > self._kept_s:
            self._kept_bytes -= self._kept.popleft().size

    def _resume(self, last: int) -> None:
        """The server has our batches up to C{last}: send again what it lost, then what it has not had."""
        later = [batch for batch in self._kept if batch.number > last]
        follows = later[0].number if later else self._number if self._current else self._number + 1
        if last < follows - 1:
            self._restart("Redis lost what producer {before} wrote: going on as {producer} with the last {n} batches")
            later = list(self._kept)
        self._resend = deque(later)
        if self._resend:
            self._send(self._resend[0])
        elif self._current is not None:
            self._send(self._current)

    def _restart(self, why: str) -> None:
        """More is lost than was kept: a new producer, which sends what it has from 1; the ids tell duplicates."""
        before, self._boot = self.producer, _boot_id()
        if not self.stored[before]:
            del self.stored[before]
        self.stored[self.producer] = 0
        self._number = 0
        for batch in (*self._kept, *((self._current,) if self._current is not None else ())):
            self._number += 1
            batch.number = self._number
        self._counters["producer_restarts"] += 1
        self.log.warn(why, before=before, producer=self.producer, n=len(self._kept))
        self._on_restart()

    # -- sessions

    def begin(self, idents: Sequence[str], take: bool = True) -> defer.Deferred[list[Stored]]:
        """Take the sessions of these idents and read what is kept of them; it waits while there is no server."""
        d: defer.Deferred[list[Stored]] = defer.Deferred()
        if self.ready:
            self._send_begin(list(idents), take, d)
        else:
            self._waiting_begin.append((list(idents), take, d))
        return d

    def _send_begin(self, idents: list[str], take: bool, done: defer.Deferred[list[Stored]]) -> None:
        connection = self._connection
        assert connection is not None
        layout = self._layout
        head = ("EVALSHA", self._begin.sha, "1", self._producer_key(), f"{layout.prefix}:", layout.instance)
        d = connection.command(*head, str(SESSION_TTL_S if take else 0), *idents)
        d.addCallback(lambda rows: done.callback([_stored(row) for row in rows]))
        d.addErrback(self._begin_failed, idents, take, done, connection)

    def _begin_failed(
        self,
        failure: Failure,
        idents: list[str],
        take: bool,
        done: defer.Deferred[list[Stored]],
        connection: RedisConnection,
    ) -> None:
        self._waiting_begin.append((idents, take, done))
        if failure.check(txredisapi.ConnectionError, NotReady) or connection is not self._connection:
            if self.ready and connection is not self._connection:
                self._retry_begin()
            return  # the next connection asks again
        text = str(failure.value)
        self._counters["not_now"] += 1
        if text != self._complained and not text.startswith("NOSCRIPT"):
            self._complained = text
            self.log.warn("Redis does not give the state of devices, asking again: {error}", error=text[:300])
        if text.startswith("NOSCRIPT"):
            connection.command("SCRIPT", "LOAD", self._begin.text).addErrback(lambda _: None)
        if self._search is not None and text.startswith(MOVED):
            connection.transport.abortConnection()
            return
        self._reactor.callLater(RETRY_S, self._retry_begin)

    def _retry_begin(self) -> None:
        if self.ready:
            waiting, self._waiting_begin = self._waiting_begin, []
            for idents, take, done in waiting:
                self._send_begin(idents, take, done)


def _boot_id() -> str:
    return os.urandom(4).hex()


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _answer(answer: Sequence[Any]) -> Answer:
    return Answer(_text(answer[2]), [_text(reason) for reason in answer[3]], [_text(ident) for ident in answer[4]])


def _stored(row: Sequence[Any]) -> Stored:
    known, held, older, records, private, registry, waiting, mine = row
    pairs: Iterable[Any] = zip(registry[::2], registry[1::2], strict=False)
    fields: Mapping[str, str] = {_text(name): _text(value) for name, value in pairs}
    if len(records) % RECORD_BYTES:  # somebody else wrote it
        records = b""
    older = older if len(older) % DIGEST_BYTES == 0 else b""
    recent = older + b"".join(records[at : at + DIGEST_BYTES] for at in range(0, len(records), RECORD_BYTES))
    newest = int.from_bytes(records[-STAMP_BYTES:], "big")
    when = newest / 1000 if newest else None
    return Stored(known == 1, held == 1, recent, when, private, fields, commands=waiting == 1, mine=mine == 1)
