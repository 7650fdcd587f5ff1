"""Questions to Redis that take their time, in threads of their own: the reactor has trackers to answer."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

import hiredis
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from gateway.errors import NotReady, Refused
from gateway.sinks.blocking import Address, BlockingRedis

#: Threads, and questions that may wait for one.
THREADS: Final = 2
WAITING: Final = 32
#: Seconds for which Redis may owe an answer.
TIMEOUT_S: Final = 5.0

Answer = TypeVar("Answer")


class Away(Exception):
    """The question can't be answered now: Redis is away, or too much is asked."""


class Asker:
    """Asks Redis, over connections of its own."""

    def __init__(self, reactor: Any, address: Address) -> None:
        self._reactor = reactor
        self._address = address
        self._pool = ThreadPool(0, THREADS, "page")
        self._clients: SimpleQueue[BlockingRedis] = SimpleQueue()
        self._waiting = 0

    def start(self) -> None:
        """Begin."""
        self._pool.start()

    def stop(self) -> None:
        """End, without those who do not come to an end."""
        self._pool.stop()
        while (client := self._idle()) is not None:
            client.close()

    def ask(self, question: Callable[[BlockingRedis], Answer]) -> Deferred[Answer]:
        """
        Have a question answered in a thread.

        @return: fails with L{Away} where that can't be now.
        """
        return self.run(lambda: self._asked(question))

    def run(self, work: Callable[[], Answer]) -> Deferred[Answer]:
        """Have something done in a thread."""
        if self._waiting >= WAITING:
            raise Away("too much is asked at once: try again")
        self._waiting += 1
        d: Deferred[Answer] = deferToThreadPool(self._reactor, self._pool, work)

        def done(result: Any) -> Any:
            self._waiting -= 1
            return result

        return d.addBoth(done)

    def _idle(self) -> BlockingRedis | None:
        try:
            return self._clients.get_nowait()
        except Empty:
            return None

    def _asked(self, question: Callable[[BlockingRedis], Answer]) -> Answer:
        client = self._idle()
        for _ in range(2):
            fresh = client is None
            try:
                if client is None:
                    client = self._address.connect(TIMEOUT_S)
                answer = question(client)
            except (OSError, NotReady, hiredis.ProtocolError) as error:
                if client is not None:
                    client.close()
                client = None
                if fresh or not isinstance(error, OSError):
                    raise Away(f"Redis can't be asked: {error}") from error
                continue  # it had hung up since it was asked last
            except Refused as error:
                if client is not None:
                    client.close()
                raise Away(f"Redis refuses: {error}") from error
            except BaseException:
                if client is not None:
                    self._clients.put(client)
                raise
            self._clients.put(client)
            return answer
        raise AssertionError("a fresh connection either answers or raises")
