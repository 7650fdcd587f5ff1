"""The journal's thread: jobs in order, and each one that asked hears of it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from gateway.errors import JournalFull
from gateway.sinks.journal import Journal
from gateway.sinks.journalfile import JournalFile
from gateway.sinks.journalrows import NAME, Sent
from tests.test_journalfile import LIMIT, number, row


class Turns:
    """The reactor, as far as threads know it: it does what they say when the test lets it."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()

    def callFromThread(self, call: Callable[..., object], *args: object) -> None:
        """See C{IReactorFromThreads}."""
        self._calls.put((call, args))

    def until(self, *deferreds: Deferred[Any]) -> None:
        """Go on until all of these were called."""
        while not all(d.called for d in deferreds):
            try:
                call, args = self._calls.get(timeout=10)
            except Empty:
                raise AssertionError("the thread does nothing") from None
            call(*args)


class JournalTests(SynchronousTestCase):
    """A journal with a thread of its own."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gateway-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = self.directory / NAME
        self.turns = Turns()
        self.journal = Journal(self.turns, self.path, LIMIT)
        self.damages = 0
        self.journal.on_damage = self.damage
        self.addCleanup(self.end)

    def damage(self) -> None:
        """The file was found damaged."""
        self.damages += 1

    def end(self) -> None:
        """Stop the thread."""
        self.turns.until(self.journal.stop())

    def result(self, d: Deferred[Any]) -> Any:
        """What it fires with."""
        self.turns.until(d)
        return self.successResultOf(d)

    def test_jobs(self) -> None:
        """Jobs are done in the order in which they are asked for, and what the file holds is known after each."""
        started = self.journal.start()
        appended = [self.journal.append(row(n)) for n in range(1, 6)]
        taken = self.journal.take(0, "p", 1, LIMIT)
        self.turns.until(started, *appended, taken)
        content, sent = self.successResultOf(started)
        self.assertEqual((0, None), (content.rows, sent))
        self.assertEqual([*range(1, 6)], [number(found) for found in self.successResultOf(taken)])
        self.assertEqual(5, self.journal.content.rows)
        self.result(self.journal.quarantine([b"one"], "why", 1.0))
        self.assertEqual(1, self.journal.content.quarantined)
        self.assertEqual((0, 0), self.result(self.journal.expire(0.0)))
        numbers = [self.successResultOf(d) for d in appended]
        self.assertEqual(5, len(self.result(self.journal.marked(Sent("p", 1, numbers[0], numbers[-1])))))

    def test_failure(self) -> None:
        """A job that fails is heard of by the one who asked, and the next one is done."""
        self.result(self.journal.start())
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("ALTER TABLE batch RENAME TO away")
            failed = self.journal.append(row(1))
            self.turns.until(failed)
            self.failureResultOf(failed, JournalFull)
            other.execute("ALTER TABLE away RENAME TO batch")
        self.result(self.journal.append(row(1)))
        self.assertEqual(1, self.journal.content.rows)

    def test_can_not_be_opened(self) -> None:
        """A file that can't be opened is tried again with each job, and what was asked first can be asked again."""
        self.path.mkdir()
        failed = self.journal.start()
        self.turns.until(failed)
        self.failureResultOf(failed, JournalFull)
        self.path.rmdir()
        content, _ = self.result(self.journal.start())
        self.assertEqual(0, content.rows)

    def test_counting_that_fails(self) -> None:
        """A batch that was kept was kept, also when it can't be said afterwards what the file holds."""
        self.result(self.journal.start())

        def broken(file: JournalFile) -> Any:
            raise JournalFull("not now")

        self.patch(JournalFile, "counts", broken)
        self.assertEqual(1, self.result(self.journal.append(row(1))))

    def test_damaged(self) -> None:
        """A damaged file is told of, once."""
        self.result(self.journal.start())
        for n in range(1, 4):
            self.result(self.journal.append(row(n)))
        with closing(sqlite3.connect(self.path)) as other:
            other.execute("UPDATE batch SET checksum = 1 WHERE number = 2")
            other.commit()
        for _ in range(2):
            taken = self.result(self.journal.take(0, "p", 1, LIMIT))
            self.assertEqual([1, 3], [number(found) for found in taken])
        self.assertEqual(1, self.damages)

    def test_stop(self) -> None:
        """What was asked for before the end is done before it; a journal that never started has nothing to end."""
        self.result(Journal(self.turns, self.path, LIMIT).stop())
        self.result(self.journal.start())
        appended, stopped = self.journal.append(row(1)), self.journal.stop()
        self.turns.until(appended, stopped)
        file = JournalFile(self.path, LIMIT)
        self.addCleanup(file.close)
        self.assertEqual(1, file.counts().rows)

    def test_stop_that_fails(self) -> None:
        """A file that can't be closed holds nobody up."""
        self.path.mkdir()
        started = self.journal.start()
        self.turns.until(started)
        self.failureResultOf(started, JournalFull)
        self.assertIsNone(self.result(self.journal.stop()))
