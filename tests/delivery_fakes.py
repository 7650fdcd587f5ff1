"""Redis and the journal's thread, stepped by hand: what a test does not let happen does not happen yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hiredis
import txredisapi
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gateway.batches import Group
from gateway.errors import JournalFull, NotReady
from gateway.sinks.blocking import RedisURL
from gateway.sinks.connection import Layout
from gateway.sinks.journal import Journal
from gateway.sinks.journalfile import JournalFile
from gateway.sinks.redis import RedisSink
from gateway.tickets import Batch

PRODUCER = "gateway:producer:"


class FakeRedis:
    """
    The server, as far as the script's numbers and the ids of events go.

    @ivar up: whether it can be connected to.
    @ivar refuses: what it says to every batch: C{OOM}, say; empty: it takes them.
    @ivar stream: the ids of the events, in order.
    @ivar doubled: how many events came under a new number although they were there: their ids told.
    """

    def __init__(self) -> None:
        self.up = True
        self.refuses = ""
        self.stream: list[str] = []
        self.doubled = 0
        self.held: set[str] = set()
        self.begun: list[str] = []
        self.connection: FakeConnection | None = None
        self._numbers: dict[str, int] = {}
        self._undo: list[tuple[str, int, int]] = []

    def execute(self, args: Sequence[bytes]) -> Any:
        """Do a command; its answer."""
        if args[0] == b"INFO":
            return b"redis_version:7.0.0\r\n"
        if args[0] == b"GET":
            number = self._numbers.get(args[1].decode(), 0)
            return str(number).encode() if number else None
        if args[0] == b"SET":
            self._numbers[args[1].decode()] = int(args[2])
        if args[0] != b"EVALSHA":
            return b"OK"
        if len(args) > 9 and args[5].isdigit():
            return self._store(args)
        return self._begin([ident.decode() for ident in args[7:]])

    def _begin(self, idents: Sequence[str]) -> Any:
        self.begun += idents
        return [[1, int(ident in self.held), b"", b"", b"", [], 0, 0] for ident in idents]

    def _store(self, args: Sequence[bytes]) -> Any:
        key, number = args[3].decode(), int(args[5])
        groups = [Group.parse(group) for group in args[21 : 21 + int(args[13])]]
        assert len(groups) == int(args[13]), args
        if self.refuses:
            return txredisapi.ResponseError(self.refuses)
        last = self._numbers.get(key, 0)
        if number <= last:
            return [b"already", last]
        if number > last + 1:
            return [b"gap", last]
        events = [record.split(b"\0")[1].decode() for group in groups for record in group.each()]
        if any(event.startswith("poison") for event in events):
            return txredisapi.ResponseError("ERR poison")
        self._numbers[key] = number
        codes, reasons, before = "", [], len(self.stream)
        for event in events:
            if event.startswith("bad"):
                codes += "r"
                reasons.append(b"WRONGTYPE")
            elif event in self.stream:
                codes += "d"
                self.doubled += 1
            else:
                codes += "p"
                self.stream.append(event)
        self._undo.append((key, last, before))
        return [b"ok", number, codes.encode() if codes.strip("p") else b"", reasons, [], []]

    def lose(self) -> None:
        """It is not there, and has lost the batch that it took last."""
        self.down()
        if self._undo:
            key, number, size = self._undo.pop()
            self._numbers[key] = number
            del self.stream[size:]

    def down(self) -> None:
        """It is not there any more: what it was sent is lost, and so is what it answered."""
        self.up = False
        if self.connection is not None:
            self.connection.cut()

    def step(self) -> bool:
        """It does the next thing that it was asked, and does not answer yet; whether there was one."""
        return self.connection is not None and self.connection.execute()

    def answer(self) -> bool:
        """The oldest of its answers arrives; whether there was one."""
        return self.connection is not None and self.connection.answer()


class FakeConnection:
    """A connection to it: a L{RedisConnection} as the sink uses it, and the transport of that."""

    def __init__(self, server: FakeRedis) -> None:
        self._server = server
        self.lost: defer.Deferred[None] = defer.Deferred()
        self.owed: deque[float] = deque()
        self.transport = self
        self.connected = True
        self._asked: deque[tuple[Sequence[bytes], defer.Deferred[Any]]] = deque()
        self._answers: deque[tuple[defer.Deferred[Any], Any]] = deque()

    def abortConnection(self) -> None:
        self.cut()

    def cut(self) -> None:
        """It is lost, with all that is on the way."""
        if not self.connected:
            return
        self.connected = False
        self._server.connection = None
        waiting = [d for d, _ in self._answers] + [d for _, d in self._asked]
        self._answers.clear()
        self._asked.clear()
        for d in waiting:
            d.errback(Failure(txredisapi.ConnectionError("lost")))
        self.lost.callback(None)

    def send(self, packed: bytes) -> defer.Deferred[Any]:
        reader = hiredis.Reader()
        reader.feed(packed)
        args: Any = reader.gets()
        assert isinstance(args, list), packed
        d: defer.Deferred[Any] = defer.Deferred()
        if self.connected:
            self._asked.append((args, d))
        return d

    def command(self, *args: str | bytes | int) -> defer.Deferred[Any]:
        if not self.connected:
            return defer.fail(NotReady("the connection is lost"))
        d: defer.Deferred[Any] = defer.Deferred()
        packed = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        self._asked.append((packed, d))
        return d

    def execute(self) -> bool:
        """The server does the next thing that it was asked."""
        if not self._asked:
            return False
        args, d = self._asked.popleft()
        self._answers.append((d, self._server.execute(args)))
        return True

    def answer(self) -> bool:
        """Its oldest answer arrives."""
        if not self._answers:
            return False
        d, answer = self._answers.popleft()
        if isinstance(answer, Exception):
            d.errback(Failure(answer))
        else:
            d.callback(answer)
        return True


class SteppedRedisSink(RedisSink):
    """The sink itself, whose connections lead to a L{FakeRedis}."""

    def __init__(self, clock: Clock, server: FakeRedis, instance: str = "here") -> None:
        super().__init__(clock, RedisURL("127.0.0.1"), Layout("gateway", instance))
        self._server = server

    async def _connect(self) -> Any:
        if not self._server.up:
            raise NotReady("nobody is there")
        connection = FakeConnection(self._server)
        self._server.connection = connection
        return connection


class SteppedJournal(Journal):
    """
    The journal, whose thread is the test: a job is done, and then heard of, when the test says so.

    @ivar full: whether nothing can be written.
    """

    def __init__(self, path: Path, limit: int = 100_000_000) -> None:
        super().__init__(None, path, limit)
        self.full = False
        self.file: JournalFile | None = None
        self._asked: deque[Any] = deque()
        self._ready: deque[Any] = deque()

    def start(self) -> defer.Deferred[Any]:
        return self._do(lambda file: (file.counts(), file.sent()))

    def stop(self) -> defer.Deferred[None]:
        return self._do(lambda file: file.close())

    def append(self, row: Any, sent: Any = None) -> defer.Deferred[int]:
        def work(file: JournalFile) -> int:
            if self.full:
                raise JournalFull("no room")
            return file.append([row], sent)

        return self._do(work)

    def _do(self, work: Any) -> defer.Deferred[Any]:
        d: defer.Deferred[Any] = defer.Deferred()
        self._asked.append((work, d))
        return d

    def step(self) -> bool:
        """The thread does its next job; whether there was one."""
        if not self._asked:
            return False
        work, d = self._asked.popleft()
        try:
            if self.file is None:
                self.file = JournalFile(self._path, self.limit)
                self.file._db.execute("PRAGMA synchronous = OFF")
            answer = work(self.file)
        except Exception:  # as the thread does
            self._ready.append((self._failed, d, Failure()))
        else:
            content = None if self.file.closed else self.file.counts()
            self._ready.append((self._settled, d, answer, content, []))
        return True

    def tell(self) -> bool:
        """The reactor hears of the oldest job that was done; whether there was one."""
        if not self._ready:
            return False
        call, *args = self._ready.popleft()
        call(*args)
        return True

    def crash(self) -> None:
        """The process is gone: what was committed is there, nothing else."""
        self._asked.clear()
        self._ready.clear()
        if self.file is not None and not self.file.closed:
            self.file.close()


def batch(*events: str, now: float = 0.0, apart: bool = False) -> Batch:
    """
    A batch of events whose names are their ids.

    @param apart: whether each is of a device of its own.
    """
    records = [
        b"e10p........" + b"\0".join((b"0", e.encode(), b"t", b"r", b"status", b"toy", b"{}", b"")) for e in events
    ]
    if apart:
        groups = [
            Group(e.encode(), b"", b"s", b"0", b"", b"1", r).packed() for e, r in zip(events, records, strict=True)
        ]
    else:
        groups = [Group(b"9170", b"", b"s", b"0", b"", b"%d" % len(records), b"".join(records)).packed()]
    return Batch(groups, 0, 0, now, len(events))
