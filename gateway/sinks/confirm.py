"""
What makes a batch stored: the server's answer alone, a replica that has it, or its file on disk.

For more than the answer a command is written right behind each batch, on the
same connection and in the same turn of the reactor: WAIT or WAITAOF, which
speak of what their own connection wrote before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Any, Final, Protocol

import hiredis
from twisted.internet import defer
from twisted.python.failure import Failure

from gateway.errors import CannotConfirm, ConfigError, NotReady, Refused
from gateway.sinks.blocking import NOT_CONFIRMED, BlockingRedis, info, pack, version
from gateway.sinks.connection import RedisConnection, translated

#: The server waits for so much of the deadline: the rest is for the batch itself.
PART: Final = 0.5
#: The first Redis whose WAITAOF surely waits with appendfsync everysec.  Others answer 1 when nothing was synced yet
#: (https://github.com/redis/redis/pull/13793; seen with strace on Valkey 9.1.2), so that only always will do there.
HONEST: Final = (8, 0)

Command = tuple[str, ...]


class Held(Protocol):
    """A batch that keeps the script's answer until it is confirmed."""

    answer: Any


class Confirmation:
    """What is asked of the server behind each batch."""

    def __init__(self, mode: str, deadline: float) -> None:
        """
        @param mode: C{replica} or C{fsync}.
        @param deadline: seconds that the server may owe an answer.
        """
        self._mode = mode
        self._seconds = deadline * PART
        self._command: bytes | None = None

    def _questions(self) -> Generator[Command, Any, Command | None]:
        return questions(self._mode, max(1, int(self._seconds * 1000)))

    def check(self, client: BlockingRedis, where: str) -> None:
        """
        At start: whether this server can do it.

        @raise ConfigError: when it can't.
        """
        asking = self._questions()
        try:
            question = next(asking)
            while True:
                try:
                    answer = client.command(*question)
                except (Refused, hiredis.ReplyError) as error:
                    question = asking.throw(error)
                else:
                    question = asking.send(answer)
        except StopIteration:
            return
        except CannotConfirm as error:
            raise ConfigError(where, f"{self._mode!r} can't be had from this Redis: {error}") from error

    async def agree(self, connection: RedisConnection) -> None:
        """
        On each new connection: find out which command it is there.

        @raise CannotConfirm: there is none.
        """
        asking = self._questions()
        try:
            question = next(asking)
            while True:
                try:
                    answer = await translated(connection.command(*question))
                except Refused as error:
                    question = asking.throw(error)
                else:
                    question = asking.send(answer)
        except StopIteration as end:
            self._command = pack(end.value) if end.value else None

    def after(
        self, stored: defer.Deferred[Any], batch: Held, connection: RedisConnection, counters: Counter[str]
    ) -> defer.Deferred[Any]:
        """
        Ask behind a batch that was just written.

        @param stored: the script's answer to it.
        @return: the same answer, once it is confirmed; fails with L{NotReady} when it is not in time.
        """
        if self._command is None:
            return stored
        confirmed = connection.send(self._command)

        def answered(answer: Any) -> Any:
            if answer[0] == b"gap":  # nothing was written
                confirmed.addErrback(lambda _: None)
                return answer
            if answer[0] == b"ok":
                # what it says of each event has to outlive that the batch is sent again, to be told that it is there
                batch.answer = answer
            return confirmed.addCallback(judge, answer)

        def judge(count: Any, answer: Any) -> Any:
            if (count[0] if isinstance(count, list) else count) < 1:
                counters["not_confirmed"] += 1
                who = "no replica has it" if self._mode == "replica" else "it is not on disk"
                raise NotReady(f"{NOT_CONFIRMED}: after {self._seconds:g} s {who}")
            first, batch.answer = batch.answer, None
            return first or answer

        def failed(failure: Failure) -> Failure:
            confirmed.addErrback(lambda _: None)
            return failure

        return stored.addCallbacks(answered, failed)


def questions(mode: str, ms: int) -> Generator[Command, Any, Command | None]:
    """
    Ask a server what it can do: yields commands and is sent their answers.

    @param ms: how long it may wait.
    @return: the command that confirms; None where each answer is a confirmation already, and no command is there
        to notice that this changes.
    @raise CannotConfirm: with what is missing.
    """
    if mode == "replica":
        if info((yield ("INFO", "replication"))).get("connected_slaves", "0") == "0":
            raise CannotConfirm("no replica is connected to it")
        return ("WAIT", "1", str(ms))
    if info((yield ("INFO", "persistence"))).get("aof_enabled") != "1":
        raise CannotConfirm("its appendonly is off")
    about = info((yield ("INFO", "server")))
    known = yield ("COMMAND", "INFO", "WAITAOF")
    waitaof = ("WAITAOF", "1", "0", str(ms)) if known and known[0] else None
    if waitaof is not None and "valkey_version" not in about and version(about) >= HONEST:
        return waitaof
    lack = "it has no WAITAOF" if waitaof is None else "its WAITAOF answers before the sync, as before Redis 8.0"
    try:
        setting = yield ("CONFIG", "GET", "appendfsync")
    except (Refused, hiredis.ReplyError) as error:
        raise CannotConfirm(f"{lack}, and it does not tell its appendfsync: {error}") from error
    if not setting or setting[1] != b"always":
        raise CannotConfirm(f"{lack}, and its appendfsync is not always")
    return waitaof
