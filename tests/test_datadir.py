"""The data directory: who holds it, who is waited for, and whose journals lie in it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gateway import datadir
from gateway.datadir import (
    adopt_journals,
    hold,
    is_held,
    journal_name,
    read_workers,
    runs,
    started,
    worker_name,
    write_workers,
)
from gateway.errors import StartError
from gateway.sinks.journalfile import JournalFile
from gateway.sinks.journalrows import Row

LIMIT = 64 * 1024 * 1024
NOW = 1_795_348_800.0
#: A process that there is not.
NOBODY = {"pid": 5_000_000, "started": 1}


def myself() -> dict[str, int]:
    """This process, as workers.json names one."""
    return {"pid": os.getpid(), "started": started(os.getpid())}


class DataDirCase(SynchronousTestCase):
    """A directory."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gateway-test-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def hold(self, directory: Path | None = None) -> int:
        """Hold it; the descriptor that does."""
        fd = hold(directory or self.directory).lock
        self.addCleanup(_close, fd)
        return fd

    def lock(self) -> int:
        """Hold it as a worker does that nobody waits for."""
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT)
        self.addCleanup(_close, fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    def refused(self) -> str:
        """What is said when it can't be held."""
        with self.assertRaises(StartError) as caught:
            hold(self.directory)
        return str(caught.exception)


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        pass  # the test did


class HoldTests(DataDirCase):
    """One gateway at a time."""

    def test_made(self) -> None:
        """It is made for its owner alone, and named by its real path."""
        (self.directory / "link").symlink_to(self.directory)
        fd = os.open(self.directory, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        held = hold(self.directory / "link" / "a" / "b")
        self.addCleanup(os.close, held.lock)
        self.assertEqual(self.directory.resolve() / "a" / "b", held.path)
        self.assertEqual(0o700, stat.S_IMODE(held.path.stat().st_mode))

    def test_can_not_be_made(self) -> None:
        """Where a file is in the way that is said."""
        (self.directory / "file").touch()
        with self.assertRaises(StartError) as caught:
            hold(self.directory / "file" / "data")
        self.assertIn(f"data directory '{self.directory}/file/data': Not a directory", str(caught.exception))

    def test_held(self) -> None:
        """A second one is refused at once, and leaves nothing open; when the first one is gone it is free."""
        fd = self.hold()
        before = len(os.listdir("/proc/self/fd"))
        begun = time.monotonic()
        self.assertIn("is in use by another gateway", self.refused())
        self.assertLess(time.monotonic() - begun, datadir.ENDING_S / 2)
        self.assertEqual(before, len(os.listdir("/proc/self/fd")))
        self.assertTrue(is_held(self.directory))
        os.close(fd)
        self.assertFalse(is_held(self.directory))
        self.hold()

    def test_not_passed_on(self) -> None:
        """Who holds it does not hand that to every program that it starts."""
        self.assertFalse(os.get_inheritable(self.hold()))

    def test_asking_makes_nothing(self) -> None:
        """Where there is no gateway's directory nobody holds it, and none is made."""
        self.assertFalse(is_held(self.directory / "none"))
        self.assertFalse(is_held(self.directory))
        self.assertEqual([], list(self.directory.iterdir()))

    def test_workers_left_behind(self) -> None:
        """Workers whose parent is gone are waited for."""
        write_workers(self.directory, {**NOBODY, "workers": [myself(), NOBODY]})
        fd = self.lock()
        end = threading.Timer(0.3, os.close, [fd])
        end.start()
        self.addCleanup(end.join)
        begun = time.monotonic()
        self.hold()
        self.assertGreater(time.monotonic() - begun, 0.2)

    def test_workers_stay(self) -> None:
        """Those that do not end are named."""
        self.patch(datadir, "ENDING_S", 0.3)
        write_workers(self.directory, {**NOBODY, "workers": [myself(), NOBODY]})
        self.lock()
        self.assertIn(f"is in use by workers of an earlier one, pids {os.getpid()}", self.refused())

    def test_pid_given_anew(self) -> None:
        """A process that has got the pid of a worker is none."""
        write_workers(self.directory, {**NOBODY, "workers": [{"pid": os.getpid(), "started": 1}]})
        self.lock()
        self.assertIn("is in use by another gateway", self.refused())

    def test_parent_runs(self) -> None:
        """While the parent runs nobody waits."""
        write_workers(self.directory, {**myself(), "workers": [myself()]})
        self.lock()
        self.assertIn("is in use by another gateway", self.refused())


class WorkersFileTests(DataDirCase):
    """workers.json."""

    def test_written(self) -> None:
        """What is written is read; nothing else is left, and only the owner may read it."""
        content: dict[str, Any] = {"pid": 1, "workers": []}
        for _ in range(2):
            write_workers(self.directory, content)
        self.assertEqual(content, read_workers(self.directory))
        (file,) = self.directory.iterdir()
        self.assertEqual(("workers.json", 0o600), (file.name, stat.S_IMODE(file.stat().st_mode)))

    def test_nothing_there(self) -> None:
        """A missing file, and one that makes no sense, say nothing."""
        self.assertIsNone(read_workers(self.directory))
        for text in ("", "{", "[]", "7", "\x00"):
            (self.directory / "workers.json").write_text(text)
            self.assertIsNone(read_workers(self.directory), text)

    def test_it_runs(self) -> None:
        """A process runs when it was started then; one that ended and was not waited for does not."""
        here = os.getpid()
        self.assertTrue(runs(here, started(here)))
        for pid, since in ((here, 1), (here, 0), (here, None), (5_000_000, 0), (None, 1), ("1", 1)):
            self.assertFalse(runs(pid, since), (pid, since))
        pid = os.fork()
        if not pid:
            os._exit(0)
        end = time.monotonic() + 20
        while started(pid) and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(0, started(pid))
        os.waitpid(pid, 0)
        self.assertEqual(0, started(pid))

    def test_thread_left(self) -> None:
        """A process of which a thread is left, as after a kill in the middle of writing, runs."""
        code = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); "
        with subprocess.Popen([sys.executable, "-c", code + "ctypes.CDLL(None).pthread_exit(None)"]) as process:
            end = time.monotonic() + 20
            file = Path(f"/proc/{process.pid}/stat")
            while ") Z " not in file.read_text() and time.monotonic() < end:
                time.sleep(0.01)
            self.assertIn(") Z ", file.read_text())
            self.assertGreater(started(process.pid), 0)
            process.kill()
            while started(process.pid) and time.monotonic() < end:
                time.sleep(0.01)
            self.assertEqual(0, started(process.pid))


class JournalTests(DataDirCase):
    """The journals of workers that are not there any more."""

    def fill(self, name: str, *numbers: int, size: int = 1) -> None:
        """A journal with batches of so many bytes, and one group in quarantine."""
        file = JournalFile(self.directory / name, LIMIT)
        file.append([Row(0, NOW, "here", 1, 0, 0, [b"%0*d" % (size, number)]) for number in numbers])
        file.quarantine([b"refused by %s" % name.encode()], "a reason", NOW)
        file.close()

    def read(self, name: str) -> tuple[list[bytes], int]:
        """The batches of a journal in order, and how much is in quarantine."""
        file = JournalFile(self.directory / name, LIMIT)
        try:
            return [row.groups[0] for _, row in file.numbered() if row is not None], len(file.quarantined())
        finally:
            file.close()

    def adopt(self, *names: str, limit: int = LIMIT) -> tuple[list[str], list[str]]:
        """Do it; what was damaged, and what is said."""
        announce: list[str] = []
        return adopt_journals(self.directory, limit, names, announce), announce

    def names(self) -> list[str]:
        """The journals that are there."""
        return sorted(path.name for path in self.directory.glob("*.sqlite"))

    def test_names(self) -> None:
        """A gateway without workers has no number in its names."""
        self.assertEqual(("vm", "journal.sqlite"), (worker_name("vm", 0), journal_name(0)))
        self.assertEqual(("vm/2", "journal-2.sqlite"), (worker_name("vm", 2), journal_name(2)))

    def test_nothing(self) -> None:
        """At the first start there is nothing, and afterwards the first worker's."""
        self.assertEqual(([], []), self.adopt("journal-1.sqlite", "journal-2.sqlite"))
        self.assertEqual(["journal-1.sqlite"], self.names())

    def test_fewer(self) -> None:
        """The first one takes over what those hold that are no worker's, in order; they are gone."""
        for name, numbers in (("journal.sqlite", (5, 6)), ("journal-1.sqlite", (1, 2)), ("journal-3.sqlite", (3, 4))):
            self.fill(name, *numbers)
        self.fill("journal-2.sqlite", 7)
        damaged, said = self.adopt("journal-1.sqlite", "journal-2.sqlite")
        self.assertEqual([], damaged)
        self.assertEqual(
            [f"journal: 2 batches of {name} are taken over" for name in ("journal-3.sqlite", "journal.sqlite")], said
        )
        self.assertEqual(["journal-1.sqlite", "journal-2.sqlite"], self.names())
        self.assertEqual(([b"1", b"2", b"3", b"4", b"5", b"6"], 3), self.read("journal-1.sqlite"))
        self.assertEqual(([b"7"], 1), self.read("journal-2.sqlite"))

    def test_no_room(self) -> None:
        """Where there is no room for them that is said, and all are as they were."""
        self.fill("journal.sqlite", 1)
        self.fill("journal-1.sqlite", *range(400), size=10_000)
        with self.assertRaises(StartError) as caught:
            self.adopt("journal.sqlite", limit=2 * 1024 * 1024)
        self.assertIn("no room within the 2,097,152 bytes", str(caught.exception))
        self.assertEqual(([b"1"], 1), self.read("journal.sqlite"))
        self.assertEqual(400, len(self.read("journal-1.sqlite")[0]))

    def test_damaged(self) -> None:
        """One that is damaged is set aside, and what can be read of it is taken over."""
        self.fill("journal-2.sqlite", *range(2_000))
        path = self.directory / "journal-2.sqlite"
        data = bytearray(path.read_bytes())
        middle = len(data) // 2 // 4096 * 4096
        data[middle : middle + 4096] = bytes(4096)
        path.write_bytes(data)
        damaged, said = self.adopt("journal.sqlite")
        self.assertEqual((1, 1), (len(damaged), len(said)))
        self.assertIn("the journal was DAMAGED", damaged[0])
        kept = len(self.read("journal.sqlite")[0])
        self.assertGreater(kept, 1_000)
        self.assertEqual(f"journal: {kept} batches of journal-2.sqlite are taken over", said[0])

    def test_other_format(self) -> None:
        """One of another version is left alone, and that stops the start."""
        self.fill("journal-2.sqlite", 1)
        file = JournalFile(self.directory / "journal-2.sqlite", LIMIT)
        file._db.execute("PRAGMA user_version = 99")
        file.close()
        with self.assertRaises(StartError) as caught:
            self.adopt("journal.sqlite")
        self.assertIn("is of format 99", str(caught.exception))
        self.assertIn("journal-2.sqlite", self.names())

    def test_file_of_an_application(self) -> None:
        """What is no journal by its name is left alone."""
        (self.directory / "other.sqlite").write_text(json.dumps("mine"))
        self.adopt("journal.sqlite")
        self.assertIn("other.sqlite", self.names())
