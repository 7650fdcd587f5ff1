"""Workers: what they and their parent tell each other, and how the parent sees to them."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet import defer
from twisted.logger import Logger, LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gateway.datadir import DataDir
from gateway.reporting import Report
from gateway.transports.sockets import Pair, Sockets
from gateway.workers import wire
from gateway.workers.child import LINGER_S, Child
from gateway.workers.supervisor import BACKOFF_S, END_S, OPEN_S, RAN_S, READY_S, SILENT_S, Supervisor
from gateway.workers.wire import Entry, Lines, Pipe, Setup, Word
from gateway.workers.worker import Log, Told
from tests.worker_fakes import FIRST_PID, WHERE, FakeProcess, FakeReactor, FakeSocket

SETUP = Setup(
    2, 3, ["--port", "8888"], "vm", "/data", False, 1024, [[4, 5]], [6], [7], "twisted.internet.epollreactor", True
)


class LinesTests(SynchronousTestCase):
    """The lines of a pipe."""

    def test_cut_anywhere(self) -> None:
        """Lines come whole, however they are cut; empty ones do not come."""
        lines = Lines()
        found = [line for byte in b"one\n\ntwo\nthr" for line in lines.feed(bytes([byte]))]
        self.assertEqual([b"one", b"two"], found)
        self.assertEqual([b"thr"], lines.end())
        self.assertEqual([], lines.end())

    def test_endless(self) -> None:
        """What never ends is cut, and not kept for ever."""
        lines = Lines()
        self.assertEqual([], lines.feed(b"x" * wire.LINE_BYTES))
        self.assertEqual([b"x" * (wire.LINE_BYTES + 1)], lines.feed(b"x"))
        self.assertEqual([b"y"], lines.feed(b"y\n"))


class MessageTests(SynchronousTestCase):
    """What is said on the pipes."""

    def test_setup(self) -> None:
        """A setup comes as it was sent, in one line."""
        line = SETUP._replace(options=["--redis", "redis://:\u20ac\n@h"]).line()
        self.assertEqual(1, line.count(b"\n"))
        self.assertEqual(SETUP._replace(options=["--redis", "redis://:\u20ac\n@h"]), Setup.read(line))

    def test_word(self) -> None:
        """So does a word, with a report and without."""
        report = Report({"received": 3}, 1, 2, False, ["a problem"])
        for word in (Word(), Word(where=["a:1"]), Word(where=["a:1"], report=report)):
            found = Word.read(word.line())
            self.assertEqual((list(word.where), word.report), (found.where, found.report))

    def test_no_word(self) -> None:
        """What is none is an error, and no other one than that."""
        for line in (
            b"",
            b"{",
            b"7",
            b"[]",
            b"{}",
            b'{"where": []}',
            b'{"where": [], "report": {"pending": 1}}',
            b"\xff",
        ):
            with self.assertRaises(ValueError):
                Word.read(line)

    def test_entry(self) -> None:
        """A line of a log comes as it was sent, cut to a bound."""
        entry = Entry("warn", "gateway.toy", "two\nlines\x00")
        self.assertEqual(1, entry.line().count(b"\n"))
        self.assertEqual(entry, Entry.read(entry.line()))
        self.assertEqual(wire.TEXT, len(Entry.read(Entry("info", "", "x" * 2 * wire.TEXT).line()).text))

    def test_no_entry(self) -> None:
        """What something else wrote is shown as an error."""
        for line in (b"Fatal Python error", b"[1, 2]", b"{}", b"3", b"\xff\xfe"):
            self.assertEqual(
                ("error", "gateway.workers", line.decode("utf-8", "replace")), tuple(Entry.read(line)), line
            )


class PipeTests(SynchronousTestCase):
    """The writing end of a pipe."""

    def setUp(self) -> None:
        self.reading, self.writing = os.pipe()
        self.addCleanup(os.close, self.writing)
        self.pipe = Pipe(self.writing)
        self.open = True
        self.addCleanup(self._close)

    def _close(self) -> None:
        if self.open:
            os.close(self.reading)
        self.open = False

    def test_nobody_reads(self) -> None:
        """Nothing blocks when it is full: lines are left out, and counted; those that come are whole and in order."""
        lines = [f"{number:05}".encode() * 200 + b"\n" for number in range(500)]
        for line in lines:
            self.pipe.write(line)
        missing = self.pipe.missing
        self.assertGreater(missing, 0)
        found = Lines()
        read: list[bytes] = found.feed(os.read(self.reading, 10_000_000))
        self.pipe.write(b"last\n")
        read += found.feed(os.read(self.reading, 10_000_000))
        self.assertEqual(missing, self.pipe.missing)
        self.assertEqual([*lines[: len(lines) - missing], b"last\n"], [line + b"\n" for line in read])
        self.assertEqual([], found.end())

    def test_partly(self) -> None:
        """A line of which a part fitted in is finished first."""
        line = b"x" * 1_000_000 + b"\n"
        self.pipe.write(line)
        self.pipe.write(b"left out\n")
        self.assertEqual(1, self.pipe.missing)
        os.set_blocking(self.reading, False)
        read = b""
        for _ in range(1000):
            try:
                read += os.read(self.reading, 1_000_000)
            except BlockingIOError:
                if read.endswith(b"next\n"):
                    break
                self.pipe.write(b"next\n")
        self.assertEqual(line, read[: len(line)])
        self.assertEqual({b"next"}, set(read[len(line) :].splitlines()))

    def test_reader_gone(self) -> None:
        """That the parent is gone is no error."""
        self._close()
        self.pipe.write(b"one\n")
        self.pipe.write(b"two\n")


class WorkersLogTests(SynchronousTestCase):
    """What a worker says to its parent."""

    def setUp(self) -> None:
        self.reading, writing = os.pipe()
        self.addCleanup(os.close, self.reading)
        self.addCleanup(os.close, writing)
        self.pipe = Pipe(writing)

    def _read(self) -> list[bytes]:
        return Lines().feed(os.read(self.reading, 10_000_000))

    def test_log(self) -> None:
        """What is logged comes line by line, with tracebacks and without what is only for debugging."""
        logger = Logger(namespace="gateway.toy", observer=Log(self.pipe))
        logger.debug("not this")
        logger.warn("{n} things\nand more", n=2)
        try:
            raise RuntimeError("a reason")
        except RuntimeError:
            logger.failure("it failed", Failure())
        entries = [Entry.read(line) for line in self._read()]
        self.assertEqual([Entry("warn", "gateway.toy", text) for text in ("2 things", "and more")], entries[:2])
        self.assertEqual({("critical", "gateway.toy")}, {entry[:2] for entry in entries[2:]})
        self.assertEqual("it failed", entries[2].text)
        self.assertIn("RuntimeError: a reason", entries[-1].text)

    def test_missing(self) -> None:
        """How many lines are missing is said where they are."""
        logger = Logger(namespace="gateway.toy", observer=Log(self.pipe))
        while not self.pipe.missing:
            logger.info("x" * 1000)
        missing = self.pipe.missing
        before = self._read()
        logger.info("again")
        texts = [Entry.read(line).text for line in self._read()]
        self.assertEqual([f"{missing} lines of the log are missing here", "again"], texts[-2:])
        self.assertEqual({"x" * 1000}, {Entry.read(line).text for line in before})

    def test_told(self) -> None:
        """Each second it says where it listens and how it does."""
        told = Told(self.pipe)
        report = Report({"received": 1}, 0, 1, True, [])
        told.opened(WHERE, ["127.0.0.1:8889"])
        told.second(report)
        told.minute(report)
        told.ended(report)
        words = [Word.read(line) for line in self._read()]
        self.assertEqual({("127.0.0.1:8889",)}, {(*word.balancers,) for word in words})
        self.assertEqual([(list(WHERE), None), *2 * [(list(WHERE), report)]], [(w.where, w.report) for w in words])


class ChildTests(SynchronousTestCase):
    """A worker as its parent sees it."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.opened = 0
        self.child = Child(self.reactor, SETUP, self._open)
        self.process = self.reactor.spawnProcess(self.child, "python", [], childFDs={})

    def _open(self) -> None:
        self.opened += 1

    def test_life(self) -> None:
        """It is set up, gets ready, is let go, opens, reports, is told to stop, and ends."""
        self.assertEqual([SETUP.line().strip()], self.process.told)
        self.assertEqual(FIRST_PID, self.child.pid)
        self.assertNoResult(self.child.ready)
        self.process.ready()
        self.successResultOf(self.child.ready)
        self.child.go()
        self.assertNoResult(self.child.opened)
        self.process.opens()
        self.successResultOf(self.child.opened)
        self.process.reports(received=1)
        self.process.reports(received=2)
        self.assertEqual({"received": 2}, cast(Report, self.child.report).counters)
        self.assertEqual((1, [*WHERE]), (self.opened, self.child.where))
        self.child.stop()
        self.assertEqual([b"go", b"stop"], self.process.told[1:])
        self.assertTrue(self.child.leaving)
        self.assertNoResult(self.child.ended)
        self.process.ends()
        self.assertIn("finished with exit code 0", self.successResultOf(self.child.ended))
        self.assertEqual((0, 0), (self.child.pid, len(self.child.where)))

    def test_ends_early(self) -> None:
        """When it ends before it is ready, or before it is open, who waits for that hears why."""
        opened = self.child.opened
        self.process.ready()
        opened.addErrback(lambda failure: failure.getErrorMessage())
        self.process.logs("critical", "gateway.toml: unknown key 'x'")
        self.process.ends(1)
        self.assertIn("unknown key 'x'", self.successResultOf(opened))
        self.assertEqual("gateway.toml: unknown key 'x'", self.child.why)

    def test_ends_later(self) -> None:
        """What it complained of while it worked is not why it ended."""
        self.process.starts()
        self.process.logs("critical", "nothing can be stored")
        self.process.ends(9)
        self.assertIn("exit code 9", self.child.why)

    def test_garbage(self) -> None:
        """What it says that is no word is logged, cut to a bound, and changes nothing."""
        with capturedLogs() as logged:
            self.child.outReceived(b"\xff\xfe\n[]\n" + b"x" * 1000 + b"\n")
        self.assertEqual([LogLevel.warn] * 3, [event["log_level"] for event in logged])
        self.assertEqual(200, len(logged[2]["line"]))
        self.assertNoResult(self.child.ready)
        self.process.ready()
        self.successResultOf(self.child.ready)

    def test_log(self) -> None:
        """Its log is its parent's, with its number and its levels; what stands there besides is an error."""
        with capturedLogs() as logged:
            for level in ("info", "warn", "error", "critical", "nonsense"):
                self.process.logs(level, level)
            self.child.errReceived(b"Fatal Python error\nSegmentation")
            self.process.ends(1)
        error = LogLevel.error
        levels = [LogLevel.info, LogLevel.warn, error, LogLevel.critical, error, error, error]
        self.assertEqual(levels, [event["log_level"] for event in logged])
        self.assertEqual({"gateway.toy", "gateway.workers"}, {event["log_namespace"] for event in logged})
        self.assertEqual({2}, {event["n"] for event in logged})
        self.assertEqual("Segmentation", logged[-1]["text"])

    def test_pipes_kept_open(self) -> None:
        """What it started may keep its pipes: its end is not waited for longer than a moment."""
        self.process.exits()
        self.reactor.advance(LINGER_S)
        self.assertTrue(self.process.lost)

    def test_pipes_closed(self) -> None:
        """Where nobody keeps them nothing is left to be done."""
        self.process.ends()
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_killed_twice(self) -> None:
        """One that is gone can't be killed, and that is no error."""
        self.child.kill()
        self.process.exits(9)
        self.child.kill()
        self.assertEqual(["KILL"], self.process.signals)


class FakeRedis:
    """The gateway's own Redis."""

    def __init__(self) -> None:
        self.answers: defer.Deferred[None] = defer.Deferred()
        self.stopped = False

    def start(self, reactor: Any) -> defer.Deferred[None]:
        return self.answers

    def stop(self) -> defer.Deferred[None]:
        self.stopped = True
        return defer.succeed(None)


class SupervisorCase(SynchronousTestCase):
    """A parent of two."""

    embedded: FakeRedis | None = None

    def setUp(self) -> None:
        self.addCleanup(signal.signal, signal.SIGUSR2, signal.getsignal(signal.SIGUSR2))
        self.reactor = FakeReactor()
        self.data_dir = Path(self.mktemp())
        self.data_dir.mkdir()
        sockets: list[Any] = [FakeSocket(number) for number in range(50, 58)]
        self.sockets = sockets
        pairs = [Pair(*sockets[at : at + 2]) for at in range(0, 8, 2)]
        self.made = Supervisor(
            self.reactor,
            [Sockets(pairs[:2], [], []), Sockets(pairs[2:], [], [])],
            DataDir(self.data_dir, 40),
            options=["--port", "8888"],
            instance="vm",
            memory=1024,
            embedded=cast(Any, self.embedded),
            announce=["an announcement"],
            damaged=["a journal was damaged"],
        )

    def begin(self) -> tuple[FakeProcess, FakeProcess]:
        """Start it; both workers listen, and have for a while."""
        self.made.startService()
        one, two = self.reactor.started
        one.starts()
        two.starts()
        self.wait(RAN_S)
        return one, two

    def wait(self, seconds: float, *quiet: FakeProcess) -> None:
        """Let time pass, in which all say how they do, but for those that are quiet."""
        for _ in range(int(seconds)):
            self.reactor.advance(1.0)
            for process in self.reactor.started:
                if not process.gone and process not in quiet and process.protocol.where:
                    process.protocol.outReceived(Word(where=WHERE, report=process.protocol.report).line())
        self.reactor.advance(seconds % 1)

    @property
    def newest(self) -> FakeProcess:
        """The process that was started last."""
        return self.reactor.started[-1]

    def said(self) -> dict[str, Any]:
        """What its file says."""
        found: dict[str, Any] = json.loads((self.data_dir / "workers.json").read_text())
        return found

    def outcome(self) -> str:
        """What became of the last time that workers were replaced."""
        rolled = self.said()["rolled"]
        self.assertFalse(rolled["running"])
        found: str = rolled["outcome"]
        return found

    def pids(self) -> list[tuple[int, int, bool]]:
        """Number and pid of those that are there, and whether they listen."""
        return [(row["worker"], row["pid"] - FIRST_PID, row["open"]) for row in self.said()["workers"]]

    def logged(self, level: LogLevel, call: Callable[[], object]) -> list[str]:
        """What is logged at a level meanwhile."""
        with capturedLogs() as logged:
            call()
        return [formatEvent(event) for event in logged if event["log_level"] is level]


class StartTests(SupervisorCase):
    """The beginning."""

    def test_start(self) -> None:
        """Each worker has its sockets and the lock, is set up, and let go when it is ready."""
        self.made.startService()
        self.assertTrue(all(socket.backlog for socket in self.sockets[::2]))
        one, two = self.reactor.started
        self.assertEqual({0: "w", 1: "r", 2: "r", 3: 40, 4: 50, 5: 51, 6: 52, 7: 53}, one.fds)
        self.assertEqual({0: "w", 1: "r", 2: "r", 3: 40, 4: 54, 5: 55, 6: 56, 7: 57}, two.fds)
        self.assertEqual([[4, 5], [6, 7]], two.setup["sockets"])
        self.assertEqual(
            (2, 2, "vm", False), tuple(two.setup[k] for k in ("worker", "workers", "instance", "announce"))
        )
        self.assertTrue(one.setup["announce"])
        self.assertEqual((1, 1), (len(one.told), len(two.told)))
        two.ready()
        self.assertEqual(([], [b"go"]), (one.told[1:], two.told[1:]))
        two.opens()
        self.assertEqual(["worker 1 does not run"], list(self.made.report.problems))
        self.assertEqual(["2 workers"], [t for t in self.logged(LogLevel.info, one.starts) if "workers" in t])

    def test_file(self) -> None:
        """Its file says who works there, and only its owner may read it."""
        self.begin()
        said = self.said()
        self.assertEqual((os.getpid(), "vm"), (said["pid"], said["instance"]))
        self.assertGreater(said["started"], 0)
        self.assertEqual({"count": 0, "outcome": "", "running": False}, said["rolled"])
        self.assertEqual([(1, 0, True), (2, 1, True)], self.pids())
        self.assertEqual(0o600, stat.S_IMODE((self.data_dir / "workers.json").stat().st_mode))
        self.assertEqual(["workers.json"], [path.name for path in self.data_dir.iterdir()])

    def test_file_can_not_be_written(self) -> None:
        """That is said once, and tried again until it can be."""
        self.data_dir.rmdir()
        warned = self.logged(LogLevel.warn, self.begin)
        self.assertEqual(1, len(warned))
        self.assertIn("workers.json can't be written, trying again", warned[0])
        self.data_dir.mkdir()
        self.wait(1.0)
        self.assertEqual([(1, 0, True), (2, 1, True)], self.pids())

    def test_can_not_be_started(self) -> None:
        """When there can be no more processes it is tried again."""
        self.reactor.refuses = OSError(errno.EAGAIN, "no more processes")
        errors = self.logged(LogLevel.error, self.made.startService)
        self.assertEqual(2, len([text for text in errors if "can't be started (no more processes)" in text]))
        self.wait(3.0)
        self.reactor.refuses = None
        self.wait(BACKOFF_S[1])
        self.assertEqual([1, 2], sorted(process.setup["worker"] for process in self.reactor.started))


class EmbeddedTests(SupervisorCase):
    """With a Redis of its own."""

    def setUp(self) -> None:
        self.embedded = FakeRedis()
        super().setUp()

    def test_redis_first(self) -> None:
        """Workers are started when Redis answers, replaced only then, and Redis ends after them."""
        assert self.embedded is not None
        self.made.startService()
        self.assertIn("the gateway begins or ends", " ".join(self.logged(LogLevel.warn, self.made.roll)))
        self.assertEqual([], self.reactor.started)
        self.embedded.answers.callback(None)
        self.assertEqual(2, len(self.reactor.started))
        self.assertTrue(self.newest.setup["embedded"])
        d = self.made.stopService()
        for process in self.reactor.started:
            self.assertFalse(self.embedded.stopped)
            process.ends()
        self.successResultOf(d)
        self.assertTrue(self.embedded.stopped)

    def test_stopped_before(self) -> None:
        """Told to end before Redis answers it starts nobody."""
        assert self.embedded is not None
        self.made.startService()
        self.successResultOf(self.made.stopService())
        self.embedded.answers.callback(None)
        self.assertEqual([], self.reactor.started)


class EndedTests(SupervisorCase):
    """Workers that end or say nothing."""

    def test_once(self) -> None:
        """One that ran for a while is started again at once; the other one is left alone."""
        one, two = self.begin()
        errors = self.logged(LogLevel.error, lambda: two.ends(9))
        self.assertEqual(1, len(errors))
        self.assertIn("worker 2 ended after 10.0 s", errors[0])
        self.assertEqual(["worker 2 does not run"], list(self.made.report.problems))
        self.assertFalse(self.made.report.ready)
        self.reactor.advance(0)
        self.assertEqual((3, 2), (len(self.reactor.started), self.newest.setup["worker"]))
        self.assertEqual([(1, 0, True), (2, 2, False)], self.pids())
        self.newest.starts()
        self.assertEqual([], list(self.made.report.problems))
        self.assertEqual(([], []), (one.told[2:], one.signals))

    def test_again_and_again(self) -> None:
        """One that keeps ending waits longer each time, up to a limit; after one that ran that begins anew."""
        self.begin()
        self.newest.ends(1)
        self.reactor.advance(0)
        waits = []
        for _ in range(9):
            before = len(self.reactor.started)
            self.newest.ends(1)
            waited = 0.0
            while len(self.reactor.started) == before:
                self.reactor.advance(0.25)
                waited += 0.25
            waits.append(waited)
        self.assertEqual([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0], waits)
        self.newest.starts()
        self.wait(RAN_S)
        self.newest.ends(1)
        self.reactor.advance(0)
        self.newest.ends(1)
        before = len(self.reactor.started)
        self.reactor.advance(BACKOFF_S[0])
        self.assertEqual(before + 1, len(self.reactor.started))

    def test_counters(self) -> None:
        """What the dead did stays in the sum; what is pending or open there does not."""
        one, two = self.begin()
        one.reports(received=5, published=3)
        two.reports(received=7)
        report = self.made.report
        self.assertEqual((12, 2, 4, True), (report.counters["received"], *report[1:4]))
        two.ends(9)
        self.reactor.advance(0)
        report = self.made.report
        self.assertEqual((12, 1, 2, False), (report.counters["received"], *report[1:4]))
        self.newest.starts()
        self.newest.reports(("streams are full",), received=1)
        report = self.made.report
        self.assertEqual((13, 3, 1, 1), tuple(report.counters[k] for k in _COUNTED))
        self.assertEqual((False, ["streams are full"]), (report.ready, report.problems))

    def test_silent(self) -> None:
        """One that says nothing for a minute is killed, once; the other one is not."""
        one, two = self.begin()
        self.wait(SILENT_S, two)
        self.assertEqual([], two.signals)
        self.wait(2.0, two)
        self.assertEqual((["KILL"], []), (two.signals, one.signals))
        self.wait(10.0, two)
        self.assertEqual(["KILL"], two.signals)
        two.ends(9)
        self.reactor.advance(0)
        self.assertEqual(2, self.newest.setup["worker"])

    def test_parent_stood_still(self) -> None:
        """When it was the parent that did nothing for long, nobody is killed for that."""
        one, two = self.begin()
        self.reactor.advance(10 * SILENT_S)
        self.wait(3.0)
        self.assertEqual(([], []), (one.signals, two.signals))


_COUNTED = ("received", "published", "worker_restarts", "journal_damaged")


class ReplacedTests(SupervisorCase):
    """The workers are replaced one by one."""

    def test_in_order(self) -> None:
        """The new one is ready before the old one is told to end, and is let go when that is gone; then the next."""
        one, two = self.begin()
        self.made.roll()
        self.assertTrue(self.said()["rolled"]["running"])
        self.assertEqual([(1, 0, True), (1, 2, False), (2, 1, True)], self.pids())
        (new,) = self.reactor.started[2:]
        self.assertEqual((1, False), (new.setup["worker"], new.setup["announce"]))
        self.assertEqual([b"go"], one.told[1:])
        new.ready()
        self.assertEqual(([b"go", b"stop"], []), (one.told[1:], new.told[1:]))
        self.wait(2.0)
        one.ends()
        self.assertEqual([b"go"], new.told[1:])
        self.assertEqual(3, len(self.reactor.started))
        new.opens()
        self.assertEqual([(1, 2, True), (2, 1, True), (2, 3, False)], self.pids())
        self.assertEqual(2, self.newest.setup["worker"])
        self.newest.ready()
        two.ends()
        self.assertTrue(self.said()["rolled"]["running"])
        self.newest.opens()
        self.assertEqual({"count": 1, "outcome": "done", "running": False}, self.said()["rolled"])
        self.assertEqual([(1, 2, True), (2, 3, True)], self.pids())
        self._nothing_more()

    def _nothing_more(self) -> None:
        """Nobody is started, told or killed after that."""
        started = len(self.reactor.started)
        signals = [list(process.signals) for process in self.reactor.started]
        self.wait(2 * SILENT_S)
        self.assertEqual(started, len(self.reactor.started))
        self.assertEqual(signals, [process.signals for process in self.reactor.started])

    def test_by_a_signal(self) -> None:
        """SIGUSR2 does it."""
        self.begin()
        os.kill(os.getpid(), signal.SIGUSR2)
        self.assertEqual(3, len(self.reactor.started))

    def test_while_it_runs(self) -> None:
        """Another time meanwhile is refused, and said so."""
        self.begin()
        self.made.roll()
        self.assertIn("replaced already", " ".join(self.logged(LogLevel.warn, self.made.roll)))
        self.assertEqual(3, len(self.reactor.started))

    def test_mistake(self) -> None:
        """When the new one ends before it is ready the old one stays, the mistake is named, and one can try again."""
        one, two = self.begin()
        self.made.roll()
        self.newest.logs("critical", "gateway.toml: unknown key 'x'")
        self.newest.ends(1)
        self.assertEqual("the new worker 1 did not get ready: gateway.toml: unknown key 'x'", self.outcome())
        self._old_ones_stay(one, two)
        self.made.roll()
        self.assertEqual(4, len(self.reactor.started))

    def _old_ones_stay(self, one: FakeProcess, two: FakeProcess) -> None:
        self._nothing_more()
        self.assertEqual([(1, 0, True), (2, 1, True)], self.pids())
        self.assertEqual(([b"go"], [b"go"]), (one.told[1:], two.told[1:]))

    def test_bug(self) -> None:
        """Where something fails that never should it is not said that all were replaced."""
        self.begin()
        self.patch(self.reactor, "spawnProcess", lambda *_, **__: 1 // 0)
        self.made.roll()
        self.assertIn("an error of the gateway's own", self.outcome())
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_does_not_get_ready(self) -> None:
        """One that does not get ready in time is killed, and the old one stays."""
        one, two = self.begin()
        self.made.roll()
        new = self.newest
        self.wait(READY_S)
        self.assertEqual(["KILL"], new.signals)
        self.assertEqual("the new worker 1 did not get ready: 30 s are over", self.outcome())
        new.ends(9)
        self._old_ones_stay(one, two)

    def test_can_not_be_started(self) -> None:
        """When there can be no more processes the old ones stay, and it can be tried again."""
        one, two = self.begin()
        self.reactor.refuses = OSError(errno.ENOMEM, "no memory")
        self.made.roll()
        self.assertEqual("the new worker 1 can't be started: no memory", self.outcome())
        self._old_ones_stay(one, two)
        self.reactor.refuses = None
        self.made.roll()
        self.assertEqual(3, len(self.reactor.started))

    def test_old_one_does_not_end(self) -> None:
        """An old one that does not end in time is killed, and the new one goes on."""
        one, _ = self.begin()
        self.made.roll()
        new = self.newest
        new.ready()
        self.wait(END_S)
        self.assertEqual((["KILL"], []), (one.signals, new.told[1:]))
        one.ends(9)
        self.assertEqual([b"go"], new.told[1:])

    def test_old_one_ends_by_itself(self) -> None:
        """An old one that ends while the new one makes itself ready is not started again: the new one goes on."""
        one, _ = self.begin()
        self.made.roll()
        one.ends(9)
        self.reactor.advance(BACKOFF_S[1])
        new = self.newest
        self.assertEqual(3, len(self.reactor.started))
        new.ready()
        self.assertEqual([b"go"], new.told[1:])
        new.opens()
        self.assertEqual(2, self.newest.setup["worker"])

    def test_both_end(self) -> None:
        """When the old one and the new one end before the new one is ready there is one again at once."""
        one, _ = self.begin()
        self.made.roll()
        one.ends(9)
        self.newest.ends(1)
        self.assertIn("did not get ready", self.outcome())
        self._one_again(4)

    def _one_again(self, started: int) -> None:
        """There is another worker 1, and nobody else."""
        self.reactor.advance(BACKOFF_S[1])
        self.assertEqual((started, 1), (len(self.reactor.started), self.newest.setup["worker"]))
        self.newest.starts()
        self._nothing_more()
        self.assertEqual([(1, started - 1, True), (2, 1, True)], sorted(self.pids()))

    def test_new_one_ends_while_it_waits(self) -> None:
        """A new one that ends while the old one does is noticed, and there is another one."""
        one, _ = self.begin()
        self.made.roll()
        new = self.newest
        new.ready()
        new.ends(9)
        one.ends()
        self.assertIn("ended before its turn came", self.outcome())
        self._one_again(4)

    def test_new_one_ends_before_it_is_open(self) -> None:
        """A new one that ends instead of listening is started again."""
        one, _ = self.begin()
        self.made.roll()
        self.newest.ready()
        one.ends()
        self.newest.ends(1)
        self.assertIn("did not open", self.outcome())
        self._one_again(4)

    def test_new_one_does_not_open(self) -> None:
        """A new one that does not come to listen is killed, and there is another one."""
        one, _ = self.begin()
        self.made.roll()
        new = self.newest
        new.ready()
        one.ends()
        self.wait(OPEN_S)
        self.assertEqual("the new worker 1 did not open: 60 s are over", self.outcome())
        self.assertEqual(["KILL"], new.signals)
        new.ends(9)
        self._one_again(4)

    def test_one_waits_to_be_started_again(self) -> None:
        """Where one is about to be started again the new one takes its place."""
        one, two = self.begin()
        one.ends(1)
        self.reactor.advance(0)
        self.newest.ends(1)
        self.made.roll()
        new = self.newest
        self.wait(BACKOFF_S[1])
        self.assertEqual(4, len(self.reactor.started))
        new.starts()
        self.assertEqual([b"go"], new.told[1:])
        self.newest.ready()
        two.ends()
        self.newest.opens()
        self.assertEqual("done", self.outcome())
        self._nothing_more()

    def test_counters(self) -> None:
        """What the old ones did stays in the sum."""
        one, two = self.begin()
        one.reports(received=5)
        two.reports(received=1)
        self.made.roll()
        self.newest.ready()
        one.reports(received=6)
        one.ends()
        self.newest.opens()
        self.assertEqual(7, self.made.report.counters["received"])


class StopTests(SupervisorCase):
    """It is told to end."""

    def test_stop(self) -> None:
        """All are told to end, and when they are gone it says what they all did; nobody is started again."""
        one, two = self.begin()
        one.reports(received=5)
        two.reports(received=1)
        d = self.made.stopService()
        self.assertEqual((b"stop", b"stop"), (one.told[-1], two.told[-1]))
        one.ends()
        self.assertNoResult(d)
        self.assertEqual(["ended: journal_damaged=1 received=6"], self.logged(LogLevel.info, two.ends)[-1:])
        self.successResultOf(d)
        self.assertEqual(2, len(self.reactor.started))
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_do_not_end(self) -> None:
        """Those that do not end in time are killed, all at the same time."""
        one, two = self.begin()
        d = self.made.stopService()
        self.reactor.advance(END_S)
        self.assertEqual((["KILL"], ["KILL"]), (one.signals, two.signals))
        one.ends(9)
        two.ends(9)
        self.successResultOf(d)

    def test_ended_already(self) -> None:
        """One that is about to be started again is not."""
        one, two = self.begin()
        one.ends(9)
        self.reactor.advance(0)
        self.newest.ends(9)
        d = self.made.stopService()
        two.ends()
        self.successResultOf(d)
        self.assertEqual([], self.reactor.getDelayedCalls())
        self.assertEqual(3, len(self.reactor.started))

    def test_while_they_are_replaced(self) -> None:
        """In the middle of that all are told to end, at each of its steps, and nobody is started or let go."""
        for step in range(3):
            with self.subTest(step=step):
                self.setUp()
                one, two = self.begin()
                self.made.roll()
                new = self.newest
                if step:
                    new.ready()
                if step > 1:
                    one.ends()
                errors: list[str] = []
                d = self.made.stopService()
                self.assertEqual(b"stop", new.told[-1])
                there = [process for process in (new, two, one) if not process.gone]
                for process in there:
                    self.assertEqual(b"stop", process.told[-1])
                    errors += self.logged(LogLevel.error, process.ends)
                self.successResultOf(d)
                self.assertEqual((3, []), (len(self.reactor.started), errors))
                self.assertEqual("the gateway ends", self.outcome())
                self.assertEqual([], self.reactor.getDelayedCalls())

    def test_before_they_are_ready(self) -> None:
        """Workers that were not ready yet are told, too."""
        self.made.startService()
        one, two = self.reactor.started
        d = self.made.stopService()
        self.assertEqual(([b"stop"], [b"stop"]), (one.told[1:], two.told[1:]))
        one.ends()
        two.ends()
        self.successResultOf(d)
