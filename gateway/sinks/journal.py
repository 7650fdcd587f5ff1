"""The journal as the reactor sees it: the file is written and read in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.errors import GatewayError
from gateway.sinks.journalfile import JournalFile
from gateway.sinks.journalrows import Content, Row, Sent

T = TypeVar("T")

Job = tuple[Callable[[JournalFile], Any], "defer.Deferred[Any]"]


class Journal:
    """
    A journal's file behind a thread, one job at a time, in the order in which they are asked for.

    @ivar content: what the file held after the last job.
    """

    log = Logger()

    def __init__(self, reactor: Any, path: Path, limit: int) -> None:
        """
        @param path: of the file.
        @param limit: bytes that it may take, its write-ahead log with it.
        """
        self._reactor = reactor
        self._path = path
        self.limit = limit
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: Thread | None = None
        self.content = Content(0, 0, 0, 0, None)
        self.on_damage: Callable[[], None] = lambda: None

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._path

    def start(self) -> defer.Deferred[tuple[Content, Sent | None]]:
        """
        Open the file; fires with what it holds, and what of that was under way when it was closed.

        It may be called again when the file could not be opened.
        """
        if self._thread is None:
            self._thread = Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()
        return self._do(lambda file: (file.counts(), file.sent()))

    def stop(self) -> defer.Deferred[None]:
        """Do what is still to be done, and close the file; fires when that is done."""
        thread, self._thread = self._thread, None
        if thread is None:
            return defer.succeed(None)
        closed: defer.Deferred[None] = self._do(lambda file: file.close())
        self._jobs.put(None)
        return closed.addErrback(self._not_closed)

    def _not_closed(self, failure: Failure) -> None:
        """What was committed is there all the same, and others have to end, too."""
        self.log.error("the journal could not be closed: {error}", error=failure.getErrorMessage()[:300])

    def append(self, row: Row, sent: tuple[str, int] | None = None) -> defer.Deferred[int]:
        """See L{JournalFile.append}."""
        return self._do(lambda file: file.append([row], sent))

    def ahead(self, after: int, size: int) -> defer.Deferred[list[Row]]:
        """See L{JournalFile.ahead}."""
        return self._do(lambda file: file.ahead(after, size))

    def take(
        self, done: int, producer: str, number: int, size: int, ahead: Sequence[Row] = ()
    ) -> defer.Deferred[list[Row]]:
        """See L{JournalFile.take}."""
        return self._do(lambda file: file.take(done, producer, number, size, ahead))

    def marked(self, sent: Sent) -> defer.Deferred[list[Row]]:
        """See L{JournalFile.marked}."""
        return self._do(lambda file: file.marked(sent))

    def quarantine(self, groups: Sequence[bytes], reason: str, now: float) -> defer.Deferred[None]:
        """See L{JournalFile.quarantine}."""
        return self._do(lambda file: file.quarantine(groups, reason, now))

    def expire(self, before: float) -> defer.Deferred[tuple[int, int]]:
        """See L{JournalFile.expire}."""
        return self._do(lambda file: file.expire(before))

    def _do(self, work: Callable[[JournalFile], T]) -> defer.Deferred[T]:
        d: defer.Deferred[T] = defer.Deferred()
        self._jobs.put((work, d))
        return d

    def _run(self) -> None:
        """The thread."""
        file: JournalFile | None = None
        while (job := self._jobs.get()) is not None:
            work, d = job
            try:
                if file is None:
                    file = JournalFile(self._path, self.limit)
                answer = work(file)
            except Exception:  # whatever it is: the one who asked hears of it
                self._reactor.callFromThread(self._failed, d, Failure())
            else:
                self._reactor.callFromThread(self._settled, d, answer, _content(file), file.set_aside, file.lost)
                file.set_aside, file.lost = [], 0

    def _failed(self, d: defer.Deferred[Any], failure: Failure) -> None:
        d.errback(failure)

    def _settled(
        self, d: defer.Deferred[Any], answer: Any, content: Content | None, damaged: list[Any], lost: int = 0
    ) -> None:
        if content is not None:
            self.content = content
        for where, saved in damaged:
            self.log.critical("{line}", line=damage(where, saved, lost))
            self.on_damage()
        d.callback(answer)


def damage(where: Path, saved: int, lost: int) -> str:
    """What is said of a damaged journal: where it is, how many batches of it are kept, and how many surely are not."""
    missing = f"{lost} batches or more could not be read" if lost else "what was at its ends may be missing"
    return f"the journal was DAMAGED: it is set aside as {where}; {saved} batches could be read and are kept, {missing}"


def _content(file: JournalFile) -> Content | None:
    """What it holds, where that can be said: a job that was done was done, whatever follows."""
    try:
        return None if file.closed else file.counts()
    except GatewayError:
        return None
