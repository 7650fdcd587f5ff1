"""The journal's file: what an append returned for is there, whatever happens to the process, the disk and the file."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from gateway.errors import JournalDamaged, JournalFull, JournalNewer
from gateway.sinks import journalfile
from gateway.sinks.journal import damage
from gateway.sinks.journalfile import SINCE, JournalFile
from gateway.sinks.journalrows import FORMAT, NAME, Row, Sent, pack, unpack
from gateway.sinks.salvage import salvage

MIB = 1024 * 1024
LIMIT = 64 * MIB
NOW = 1_795_348_800.0
#: So often a writer is killed.
KILLS = 40


def row(n: int, size: int = 200, *, instance: str = "here", when: float = NOW) -> Row:
    """A batch that can be told by its number, and by its size."""
    return Row(0, when, instance, 1, 0, 0, [b"%d:" % n + bytes([n % 251]) * size])


def number(found: Row) -> int:
    """Which batch it is; it is as it was."""
    head, _, rest = found.groups[0].partition(b":")
    assert rest == bytes([int(head) % 251]) * len(rest), "it is another one"
    return int(head)


class FileCase(SynchronousTestCase):
    """A file in a directory of its own."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gateway-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = self.directory / NAME

    def open(self, limit: int = LIMIT, path: Path | None = None) -> JournalFile:
        """Open it."""
        file = JournalFile(path or self.path, limit)
        self.addCleanup(file.close)
        return file

    def fast(self, file: JournalFile) -> JournalFile:
        """The same for tests of something else than what a crash of the machine leaves."""
        file._db.execute("PRAGMA synchronous = OFF")
        return file

    def filled(self, count: int, size: int = 200) -> JournalFile:
        """One that holds batches from 1 on."""
        file = self.fast(self.open())
        file.append([row(n, size) for n in range(1, count + 1)])
        return file

    def held(self, file: JournalFile) -> list[int]:
        """The batches that are in it."""
        return [number(found) for found in file.rows() if found is not None]

    def drained(self, file: JournalFile, size: int = 5000) -> list[int]:
        """The batches that it gives, to the last."""
        found: list[int] = []
        done = 0
        while rows := file.take(done, "p", 1, size):
            found += map(number, rows)
            done = rows[-1].number
        return found

    def assertCounted(self, file: JournalFile) -> None:
        """What it says that it holds is what it holds."""
        content = file.counts()
        rows = [found for found in file.rows() if found is not None and found.number > file._done]
        frames = sum(found.frames for found in rows)
        kept = len(file.quarantined())
        self.assertEqual((len(rows), frames, kept), (content.rows, content.frames, content.quarantined))
        self.assertEqual(rows[0].time if rows else None, content.oldest)


class BatchesTests(FileCase):
    """Batches come and go."""

    def test_round_trip(self) -> None:
        """A batch comes back as it was, also from a file that was closed in between."""
        given = Row(0, NOW, "there", 7, 2, 1, [b"", b"\0" * 5, bytes(range(256)) * 40])
        self.open().append([given])
        (found,) = self.open().take(0, "p", 1, 1)
        self.assertEqual(given._replace(number=found.number), found)
        self.assertEqual(given.groups, unpack(pack(given.groups)))

    def test_in_order(self) -> None:
        """They are given oldest first, so many bytes at a time, each once."""
        file = self.filled(100)
        self.assertEqual([*range(1, 101)], self.drained(file))
        self.assertEqual([], self.drained(file))
        self.assertCounted(file)
        file.append([row(101)])
        self.assertEqual([101], self.drained(file))

    def test_one_instance_at_a_time(self) -> None:
        """What is given together was gathered by one instance."""
        file = self.open()
        file.append([row(1), row(2), row(3, instance="there"), row(4)])
        sizes, done = [], 0
        while rows := file.take(done, "p", 1, LIMIT):
            sizes.append(len(rows))
            done = rows[-1].number
        self.assertEqual([2, 1, 1], sizes)

    def test_under_way(self) -> None:
        """What is under way, and under which number, is there after a crash."""
        file = self.filled(5)
        taken = file.take(0, "p", 7, 450)
        again = self.open()
        sent = again.sent()
        self.assertEqual(Sent("p", 7, taken[0].number, taken[-1].number), sent)
        assert sent is not None
        self.assertEqual(taken, again.marked(sent))
        last = file.append([row(6)], ("q", 3))
        self.assertEqual(Sent("q", 3, last, last), self.open().sent())

    def test_numbers_go_on(self) -> None:
        """No number is given twice, also when the file is emptied and opened again in between."""
        file = self.open()
        first = file.append([row(1)])
        self.drained(file)
        file.close()
        self.assertGreater(self.open().append([row(2)]), first)

    def test_counts(self) -> None:
        """What it says that it holds is right after everything that can be done with it."""
        file = self.fast(self.open())
        choose = random.Random(1)
        done, n = 0, 0
        for _ in range(300):
            what = choose.randrange(6)
            if what < 2:
                n += 2
                file.append([row(n, when=NOW - n), row(n + 1, when=NOW - n)])
            elif what == 2:
                rows = file.take(done, "p", 1, 500)
                done = rows[-1].number if rows else done
            elif what == 3:
                file.quarantine([b"9170\0\0s\00\0\01\0event"], "why", NOW)
            elif what == 4 and choose.random() < 0.3:
                file.requeue("here")
                done = max(done, 0)
            elif choose.random() < 0.1:
                file.expire(NOW - n + 4)
            self.assertCountedWithoutReading(file)

    def assertCountedWithoutReading(self, file: JournalFile) -> None:
        """As L{assertCounted}, whatever the rows hold."""
        content = file.counts()
        rows = [found for found in file.rows() if found is not None and found.number > file._done]
        self.assertEqual(
            (len(rows), sum(found.frames for found in rows), len(file.quarantined())),
            (content.rows, content.frames, content.quarantined),
        )

    def test_quarantine(self) -> None:
        """What is refused for good is kept with the reason, and becomes batches again when somebody says so."""
        file = self.open()
        file.quarantine([b"one", b"two"], "WRONGTYPE", NOW)
        self.assertEqual(
            [(b"one", "WRONGTYPE"), (b"two", "WRONGTYPE")], [(q.group, q.reason) for q in file.quarantined()]
        )
        self.assertEqual(2, file.requeue("there"))
        self.assertEqual([], file.quarantined())
        self.assertEqual(
            [([b"one"], "there"), ([b"two"], "there")], [(r.groups, r.instance) for r in file.take(0, "p", 1, 99)]
        )
        self.assertEqual(0, file.counts().quarantined)

    def test_expire(self) -> None:
        """Batches that are too old go, with their count, not those under way or of a clock that was not set."""
        file = self.open()
        times = [NOW - 100, NOW - 90, SINCE - 1, NOW - 80, NOW]
        file.append([row(n, when=when) for n, when in enumerate(times, 1)])
        file.take(0, "p", 1, 1)
        self.assertEqual((2, 2), file.expire(NOW - 50))
        self.assertEqual([1, 3, 5], self.held(file))
        self.assertCounted(file)

    def test_adopt(self) -> None:
        """Another journal's batches and quarantine follow one's own, and the other one is gone."""
        file, path = self.open(), self.directory / "journal-2.sqlite"
        file.append([row(1)])
        other = JournalFile(path, LIMIT)
        other.append([row(2, instance="there"), row(3)])
        other.quarantine([b"one"], "why", NOW)
        other.close()
        self.assertEqual(2, file.adopt(path))
        self.assertEqual([1, 2, 3], self.held(file))
        self.assertCounted(file)
        self.assertEqual(
            ["journal.sqlite"], [p.name for p in self.directory.glob("journal*.sqlite*") if "-" not in p.name]
        )
        self.assertEqual([1, 2, 3], self.drained(file))

    def test_adopt_all_or_none(self) -> None:
        """When there is no room for all of them none is taken over, and the other journal is as it was."""
        file, path = self.open(MIB), self.directory / "journal-2.sqlite"
        other = JournalFile(path, LIMIT)
        other.append([row(n, 10_000) for n in range(400)])
        other.close()
        for _ in range(2):
            self.assertRaises(JournalFull, file.adopt, path)
        self.assertEqual([], self.held(file))
        self.assertCounted(file)
        self.assertEqual(400, len(self.held(self.open(path=path))))

    def test_adopt_damaged(self) -> None:
        """Of a damaged one what can be read is taken over, and it is set aside: nothing goes unsaid."""
        file, path = self.open(), self.directory / "journal-2.sqlite"
        other = JournalFile(path, LIMIT)
        other.append([row(n) for n in range(1, 6)])
        other._db.execute("UPDATE batch SET checksum = 1 WHERE number = 3")
        other.close()
        self.assertEqual(4, file.adopt(path))
        self.assertEqual([1, 2, 4, 5], self.held(file))
        ((aside, saved),) = file.set_aside
        self.assertEqual((True, 4), (aside.exists(), saved))

    def test_not_to_be_written(self) -> None:
        """A file that can't be made is said to be so."""
        self.path.mkdir()
        self.assertRaises(JournalFull, JournalFile, self.path, LIMIT)
        self.assertRaises(JournalFull, JournalFile, self.directory / "nowhere" / NAME, LIMIT)

    def test_directory_of_another(self) -> None:
        """In a directory in which nothing may be written it is said to be so."""

        def child() -> None:
            os.chmod(self.directory, 0o555)
            if os.geteuid() == 0:
                os.setegid(65534)
                os.seteuid(65534)
            with contextlib.suppress(JournalFull):
                JournalFile(self.path, LIMIT)
                os._exit(1)

        os.chmod(self.directory, 0o755)
        self.addCleanup(os.chmod, self.directory, 0o755)
        self.assertEqual(0, forked(child))

    def test_locked(self) -> None:
        """While somebody else writes nothing can be kept; what is there is given all the same, and stays there."""
        self.patch(journalfile, "BUSY_S", 0.05)
        file = self.filled(20, 5000)
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            self.assertRaises(JournalFull, file.append, [row(21)])
            self.assertEqual([*range(1, 21)], self.drained(file))
            other.execute("INSERT INTO quarantine (time, reason, body) VALUES (1, 'why', x'00')")
            other.execute("COMMIT")
        self.assertEqual(1, len(self.open().quarantined()), "the file is the same")
        file.append([row(21)])
        self.assertEqual([21], self.drained(file))


def forked(child: Callable[[], object], until: Callable[[int], object] = lambda pid: None) -> int:
    """Do something in a process of its own; its status: 0, when all went well."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    try:
        until(pid)
    finally:
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


class KilledTests(FileCase):
    """The process dies at any moment."""

    def killed(self, work: Callable[[Callable[[str, int], None]], None], after: float) -> list[tuple[str, int]]:
        """Do something in a process that is killed after a while; what it said until then."""
        readable, writable = os.pipe()

        def say(what: str, n: int) -> None:
            os.write(writable, f"{what} {n}\n".encode())

        def until(pid: int) -> None:
            time.sleep(after)
            os.kill(pid, signal.SIGKILL)

        status = forked(lambda: work(say), until)
        self.assertIn(status, (0, -signal.SIGKILL))
        os.close(writable)
        with os.fdopen(readable) as said:
            words = [line.split() for line in said]
        return [(what, int(n)) for what, n in words]

    def test_append(self) -> None:
        """A writer is killed again and again: what it was told is kept is there, and nothing else."""
        choose = random.Random(7)
        kept: set[int] = set()
        asked: set[int] = set()
        for life in range(KILLS):

            def write(say: Callable[[str, int], None], first: int = life * 10_000) -> None:
                file = JournalFile(self.path, LIMIT)
                for n in range(first, first + 10_000):
                    say("asked", n)
                    file.append([row(n, n * 37 % 9000)])
                    say("kept", n)

            said = self.killed(write, choose.uniform(0.0, 0.06))
            kept |= {n for what, n in said if what == "kept"}
            asked |= {n for what, n in said if what == "asked"}
        file = self.open()
        found = self.held(file)
        self.assertEqual(sorted(set(found)), found)
        self.assertEqual(set(), kept.difference(found), "kept, and not there")
        self.assertEqual(set(), set(found).difference(asked), "never asked for")
        self.assertGreater(len(found), KILLS / 2)
        self.assertEqual([], file.check())
        self.assertEqual([], file.set_aside)
        self.assertCounted(file)

    def test_take(self) -> None:
        """One that gives batches away is killed: what is not known to be stored is there, or under way as noted."""
        choose = random.Random(8)
        self.filled(3000).close()
        stored: set[int] = set()
        for _ in range(KILLS // 2):

            def take(say: Callable[[str, int], None]) -> None:
                file = JournalFile(self.path, LIMIT)
                done = 0
                while rows := file.take(done, "p", 1, 1000):
                    done = rows[-1].number
                    for taken in rows:
                        say("stored", number(taken))

            stored |= {n for _, n in self.killed(take, choose.uniform(0.0, 0.06))}
        left = self.held(self.open())
        self.assertEqual(set(), set(range(1, 3001)) - stored - set(left))
        self.assertEqual([*range(left[0], 3001)] if left else [], left)

    def test_damaged(self) -> None:
        """It is killed while a damaged file is set aside and what can be read of it is saved: that stays saved."""
        choose = random.Random(9)
        for _ in range(KILLS // 2):
            file = self.filled(400, 1000)
            file._db.execute("UPDATE batch SET checksum = 1 WHERE number = 200")
            file.close()

            def take(say: Callable[[str, int], None]) -> None:
                file = JournalFile(self.path, LIMIT)
                say("opened", 0)
                file.take(199, "p", 1, 100)
                say("taken", 0)

            self.killed(take, choose.uniform(0.0, 0.04))
            file = self.open()
            rows = file.take(199, "p", 1, LIMIT)
            self.assertEqual([*range(201, 401)], [number(found) for found in rows])
            file.close()
            for path in self.directory.iterdir():
                path.unlink()


class RoomTests(FileCase):
    """There is not room for everything."""

    def size(self) -> int:
        """Bytes on the disk."""
        return sum(p.stat().st_size for p in self.directory.glob(f"{NAME}*") if not p.name.endswith("-shm"))

    def fill(self, file: JournalFile, first: int = 1, size: int = 3000) -> int:
        """Append until it is full; the first one that was not kept."""
        n = first
        with contextlib.suppress(JournalFull):
            while True:
                file.append([row(n, size)])
                n += 1
        return n

    def test_limit(self) -> None:
        """File and log together stay below the limit; there is room again when something was given away."""
        for limit, size in ((MIB, 300), (2 * MIB, 40_000), (12 * MIB, 3000)):
            file = self.fast(self.open(limit))
            end = self.fill(file, size=size)
            self.assertLessEqual(self.size(), limit)
            self.assertGreater((end - 1) * size, limit * 0.4, "most of it can be used")
            self.assertEqual([*range(1, end)], self.drained(file, 100_000))
            self.assertLessEqual(self.size(), limit)
            file.close()
            self.path.unlink()

    def test_limit_over_time(self) -> None:
        """So it is after many batches came and went."""
        limit = 2 * MIB
        file = self.fast(self.open(limit))
        choose = random.Random(3)
        done, n, most = 0, 1, 0
        for _ in range(40):
            n = self.fill(file, n, choose.randrange(1000, 20_000))
            for _ in range(choose.randrange(1, 12)):
                rows = file.take(done, "p", 1, 300_000)
                done = rows[-1].number if rows else done
                most = max(most, self.size())
            most = max(most, self.size())
        self.assertLessEqual(most, limit)
        self.assertCounted(file)

    def test_limit_with_a_reader(self) -> None:
        """So it is while somebody reads the file and does not end; afterwards there is room again."""
        limit = 4 * MIB
        file = self.fast(self.open(limit))
        end = self.fill(file)
        done = file.take(0, "p", 1, MIB)[-1].number
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT COUNT(*) FROM batch").fetchone()
            for _ in range(30):
                end = self.fill(file, end)
                rows = file.take(done, "p", 1, 20_000)
                done = rows[-1].number if rows else done
                self.assertLessEqual(self.size(), limit + 200_000)
        file.take(done, "p", 1, 1)
        self.assertGreater(self.fill(file, end), end)
        self.assertLessEqual(self.size(), limit)

    def test_requeue(self) -> None:
        """What is in quarantine becomes batches again only when there is room for that, and is in quarantine else."""
        file = self.fast(self.open(4 * MIB))
        for n in range(80):
            file.quarantine([b"x" * 20_000], f"{n}", NOW)
        self.fill(file)
        self.assertRaises(JournalFull, file.requeue, "here")
        self.assertEqual(80, file.counts().quarantined)
        self.assertLessEqual(self.size(), 4 * MIB)

    def test_small_again(self) -> None:
        """A large file that is emptied becomes small again."""
        file = self.filled(1)
        for _ in range(20):
            file.append([row(n, 100_000) for n in range(10)])
        self.assertGreater(self.size(), 20_000_000)
        self.drained(file, MIB)
        self.assertLess(self.size(), MIB)

    @contextlib.contextmanager
    def small_disk(self, size: int = MIB) -> Iterator[Path]:
        """A disk of that size, for as long as it is needed."""
        where = self.directory / "disk"
        where.mkdir()
        found = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", where], capture_output=True, text=True, check=False
        )
        if found.returncode:
            why = f"no small disk can be mounted: {found.stderr.strip()}"
            if os.environ.get("CI") == "true":
                self.fail(why)
            raise SkipTest(why)
        try:
            yield where
        finally:
            subprocess.run(["umount", "--lazy", where], check=True)

    def test_full_disk(self) -> None:
        """
        On a full disk nothing can be kept, and nothing is half kept.

        What is there can be given to Redis, each batch once; and when there is room it goes on.
        """
        with self.small_disk() as disk:
            ballast = disk / "ballast"
            ballast.write_bytes(b"x" * 300_000)
            file = self.open(path=disk / NAME)
            end = self.fill(file)
            self.assertEqual([*range(1, end)], self.held(file))
            self.assertRaises(JournalFull, file.append, [row(end, 100_000)])
            self.assertEqual([*range(1, end)], self.held(file))
            found: list[int] = []
            done = 0
            while rows := file.take(done, "p", 1, 10_000):
                found += map(number, rows)
                done = rows[-1].number
                if len(found) > end / 2:
                    break
            self.assertEqual([*range(1, len(found) + 1)], found)
            self.assertCounted(file)
            ballast.unlink()
            self.assertGreater(file.append([row(end, 100)]), done)
            self.assertEqual([*range(len(found) + 1, end + 1)], [number(r) for r in file.take(done, "p", 1, LIMIT)])
            file.close()

    def test_full_disk_emptied(self) -> None:
        """When the last batch is in Redis and the disk is too full to say so, what comes later is kept all the same."""
        with self.small_disk() as disk:
            file = self.open(path=disk / NAME)
            end = self.fill(file)
            with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as other:
                while True:
                    other.write(b"x" * 512)
            done = 0
            while rows := file.take(done, "p", 1, 100_000):
                done = rows[-1].number
            self.assertEqual(end - 1, done)
            self.assertEqual([], file.take(done, "p", 1, 100_000))
            self.assertEqual(0, file.counts().rows)
            self.assertGreater(file.append([row(end, 100)]), done)
            self.assertEqual([end], [number(found) for found in file.take(0, "p", 1, 100)])
            file.close()

    def test_no_room_to_begin_anew(self) -> None:
        """When somebody takes the room that the emptied file left, nothing can be kept until there is some again."""
        file = self.filled(300, 1000)
        rows = file.take(0, "p", 1, LIMIT)
        file._shut = True  # as a file is that could not be opened again
        file._db.close()
        self.path.rename(self.path.with_suffix(".away"))
        self.path.mkdir()
        self.assertRaises(JournalFull, file.append, [row(301)])
        self.assertRaises(JournalFull, file.counts)
        self.path.rmdir()
        self.path.with_suffix(".away").rename(self.path)
        file.append([row(301)])
        self.assertEqual([301], [number(found) for found in file.take(rows[-1].number, "p", 1, LIMIT)])

    def test_largest_file(self) -> None:
        """A file that may not grow further is a full disk."""

        def child() -> None:
            file = JournalFile(self.path, LIMIT)
            resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
            end = self.fill(file)
            assert 50 < end < 1000, end
            assert self.held(file) == [*range(1, end)]
            found: list[int] = []
            done = 0
            while rows := file.take(done, "p", 1, 30_000):
                found += map(number, rows)
                done = rows[-1].number
            assert found == [*range(1, end)], found
            file.append([row(end)])
            assert self.drained(file) == [end]

        self.assertEqual(0, forked(child))


class DamagedTests(FileCase):
    """The file is not what was written."""

    COUNT = 400

    def damaged(self, damage: Callable[[Path], None], size: int = 1500) -> tuple[JournalFile, list[int]]:
        """A file to which something happened while it was closed, opened again, and what it gives."""
        file = self.filled(self.COUNT, size)
        file.quarantine([b"one"], "why", NOW)
        file.close()
        damage(self.path)
        file = self.open()
        return file, self.drained(file)

    def assertSetAside(self, file: JournalFile, saved: int) -> None:
        """The damaged one is kept as it is, beside a new one that is sound."""
        ((aside, count),) = file.set_aside
        self.assertLessEqual(count, saved, "those that were given away before it turned out are not counted")
        self.assertGreaterEqual(count, saved * 3 / 4)
        self.drained(file)
        self.assertTrue(aside.exists())
        self.assertTrue(aside.name.startswith("damaged-"), aside)
        self.assertEqual([], file.check())
        self.assertCounted(file)
        self.assertEqual([], [*self.directory.glob("*.new*"), *self.directory.glob("*.saved*")])
        file.append([row(999)])
        self.assertEqual([999], [number(found) for found in file.take(0, "p", 1, 100)])

    def overwrite(self, path: Path, at: int, size: int) -> None:
        """Write noise over a part of it."""
        with path.open("r+b") as raw:
            raw.seek(at)
            raw.write(random.Random(5).randbytes(size))

    def noise(self, path: Path) -> None:
        """Another file stands there."""
        path.write_bytes(b"not a database, " * 5000)

    def test_checksum(self) -> None:
        """A batch that is not what it was is left out, all others are saved, with what was under way."""

        def damage(path: Path) -> None:
            with contextlib.closing(sqlite3.connect(path)) as db:
                db.execute("UPDATE batch SET body = x'00000001ff' WHERE number = 77")
                db.execute("INSERT INTO sent VALUES (1, 'p', 9, 1, 3)")
                db.commit()

        file, found = self.damaged(damage)
        self.assertEqual([n for n in range(1, self.COUNT + 1) if n != 77], found)
        self.assertSetAside(file, self.COUNT - 1)
        self.assertEqual([b"one"], [item.group for item in file.quarantined()])

    def test_under_way(self) -> None:
        """A batch that was under way is not what it was: the others are still known by the number that they had."""
        file = self.filled(10)
        file.take(0, "p", 4, 600)
        file._db.execute("UPDATE batch SET checksum = 1 WHERE number = 2")
        file.close()
        file = self.open()
        sent = file.sent()
        assert sent is not None
        self.assertEqual([1, 3], [number(found) for found in file.marked(sent)])
        self.assertEqual(sent, file.sent())
        self.assertSetAside(file, 9)

    def test_pages(self) -> None:
        """Pages in the middle are overwritten: what is in the others is saved."""
        file, found = self.damaged(lambda path: self.overwrite(path, 60 * 4096, 8 * 4096))
        self.assertEqual(sorted(set(found)), found)
        # a page holds 2 batches, and one of an index above them the places of a hundred pages
        self.assertGreaterEqual(len(found), self.COUNT - 8 * 3)
        self.assertSetAside(file, len(found))

    def test_overflowing_pages(self) -> None:
        """The same with batches that take many pages each: one of them is lost, or two."""
        file, found = self.damaged(lambda path: self.overwrite(path, 1000 * 4096, 4096), 30_000)
        self.assertGreaterEqual(len(found), self.COUNT - 2)
        self.assertSetAside(file, len(found))

    def test_truncated(self) -> None:
        """The end is missing: the beginning is saved, as far as its index is there."""
        file, found = self.damaged(lambda path: os.truncate(path, path.stat().st_size // 2))
        self.assertEqual([*range(1, len(found) + 1)], found)
        self.assertGreater(len(found), self.COUNT / 3)
        self.assertSetAside(file, len(found))

    def test_header(self) -> None:
        """The first page is noise: nothing can be read, the file is kept for who knows more, and it goes on."""
        file, found = self.damaged(lambda path: self.overwrite(path, 0, 4096))
        self.assertEqual([], found)
        self.assertSetAside(file, 0)

    def test_noise(self) -> None:
        """The whole file is something else."""
        file, found = self.damaged(self.noise)
        self.assertEqual([], found)
        self.assertSetAside(file, 0)

    def test_empty(self) -> None:
        """A file of no bytes is a new one."""
        file, found = self.damaged(lambda path: os.truncate(path, 0))
        self.assertEqual(([], []), (found, file.set_aside))
        file.append([row(1)])
        self.assertEqual([1], self.drained(file))

    def test_log_that_is_gone(self) -> None:
        """Without its log the file is as it was when that was last written into it: sound, and older."""
        file = self.filled(10)
        file._checkpoint()
        file.append([row(11)])
        copy = self.path.read_bytes()
        file.close()
        self.path.write_bytes(copy)
        file = self.open()
        self.assertEqual([*range(1, 11)], self.drained(file))
        self.assertEqual([], file.set_aside)

    def test_log_of_noise(self) -> None:
        """A log that is noise from some place on counts up to there."""
        file = self.fast(self.open())
        for n in range(1, 51):
            file.append([row(n, 1500)])
        raw, log = self.path.read_bytes(), self.path.with_name(f"{NAME}-wal").read_bytes()
        file.close()
        self.path.write_bytes(raw)
        half = len(log) // 2
        self.path.with_name(f"{NAME}-wal").write_bytes(log[:half] + random.Random(6).randbytes(half))
        file = self.open()
        found = self.drained(file)
        self.assertEqual([*range(1, len(found) + 1)], found)
        self.assertGreater(len(found), 10)

    def test_of_a_newer_version(self) -> None:
        """A file of a format that this version does not know is not damaged: it is refused, and stays as it is."""
        self.filled(20).close()
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            db.execute(f"PRAGMA user_version = {FORMAT + 1}")
        self.assertRaises(JournalNewer, JournalFile, self.path, LIMIT)
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            db.execute(f"PRAGMA user_version = {FORMAT}")
        self.assertEqual([*range(1, 21)], self.held(self.open()))

    def test_how_many_are_missing(self) -> None:
        """What is missing between the first and the last batch is counted, and said."""
        file = self.filled(20)
        file.take(5, "p", 1, 1000)
        file._db.execute("UPDATE batch SET checksum = 1 WHERE number IN (9, 20)")
        file.take(5, "p", 1, LIMIT)
        self.assertEqual(2, file.lost)
        ((where, saved),) = file.set_aside
        self.assertIn("13 batches could be read and are kept, 2 batches or more", damage(where, saved, file.lost))

    def test_larger_than_a_new_limit(self) -> None:
        """An empty file that is larger than a limit that was lowered since is made small when it is opened."""
        file = self.filled(400, 5000)
        self.drained(file)
        file.close()
        limit = 1_048_576
        self.assertGreater(self.path.stat().st_size, limit)
        file = self.open(limit)
        file.append([row(1)])
        self.assertLess(self.path.stat().st_size, limit)

    def test_while_it_is_used(self) -> None:
        """It turns out while it is read: what was given is not given again, the rest follows, and numbers go on."""
        file = self.filled(100, 1500)
        first = file.take(0, "p", 1, 30_000)
        file._checkpoint()
        self.overwrite(self.path, 40 * 4096, 4096)
        file._db.execute("PRAGMA cache_size = 0")
        file._db.execute("PRAGMA shrink_memory")
        done = first[-1].number
        found = [*map(number, first)]
        while rows := file.take(done, "p", 1, 30_000):
            found += map(number, rows)
            done = rows[-1].number
        self.assertEqual(sorted(set(found)), found)
        self.assertGreaterEqual(len(found), 95)
        self.assertEqual(1, len(file.set_aside))
        self.assertGreater(file.append([row(101)]), done)
        self.assertEqual([101], [number(found) for found in file.take(done, "p", 1, 100)])

    def test_nothing_left_while_it_is_used(self) -> None:
        """All of it is lost while some is under way: what comes then has numbers that nothing had before."""
        file = self.filled(100)
        done = file.take(0, "p", 1, 10**6)[-1].number
        self.patch(journalfile, "salvage", lambda path, done, into: 0)
        file._db.execute("UPDATE batch SET checksum = 1")
        file.append([row(101)])
        file._set_aside()
        file.append([row(102)])
        self.assertEqual([102], [number(found) for found in file.take(done, "p", 1, 100)])

    def test_no_room_to_save(self) -> None:
        """There is no room for what can be read of a damaged file: it stays where it is until there is."""

        def full(path: Path, done: int, into: sqlite3.Connection) -> int:
            raise sqlite3.OperationalError("database or disk is full")

        file = self.filled(20)
        file._db.execute("UPDATE batch SET checksum = 1 WHERE number = 3")
        self.patch(journalfile, "salvage", full)
        self.assertRaises(JournalFull, file.take, 0, "p", 1, LIMIT)
        self.assertRaises(JournalFull, file.take, 0, "p", 1, LIMIT)
        self.patch(journalfile, "salvage", salvage)
        self.assertEqual([n for n in range(1, 21) if n != 3], self.drained(file))
        self.assertEqual(1, len(file.set_aside))

    def test_name_that_is_special(self) -> None:
        """A directory's name may hold anything."""
        self.path = self.directory / "100%25? #1" / NAME
        self.path.parent.mkdir()
        file = self.filled(10)
        file._db.execute("UPDATE batch SET checksum = 1 WHERE number = 3")
        self.assertEqual([n for n in range(1, 11) if n != 3], self.drained(file))

    def test_check(self) -> None:
        """What is wrong with a file is said, before anything is done about it."""
        file = self.filled(10)
        self.assertEqual([], file.check())
        file._db.execute("UPDATE batch SET checksum = 1 WHERE number = 3")
        self.assertEqual(["batch 3: the checksum does not hold"], file.check())
        self.assertIsNone([*file.rows()][2])

    def test_damaged_again(self) -> None:
        """What can't be read even in the new file is said to be so, and not tried for ever."""
        file = self.filled(10)

        def broken(*_: Any) -> Any:
            raise JournalDamaged("again")

        self.patch(file, "_next", broken)
        self.assertRaises(JournalDamaged, file.take, 0, "p", 1, LIMIT)
