"""The command line: what C{gateway journal} shows of a journal, and what it does not do to it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from gateway.batches import Group
from gateway.cli import main
from gateway.errors import JournalFull, JournalNewer
from gateway.sinks.journalfile import JournalFile
from gateway.sinks.journalreader import JournalReader
from gateway.sinks.journalrows import NAME, Row
from gateway.tickets import Batch
from tests.fakes import NOON
from tests.units import IDENT, UnitCase, v1

#: What a terminal would obey.
ESCAPE = "\x1b[31m"
LIMIT = 64 * 1024 * 1024


def files(directory: Path) -> dict[str, tuple[int, str]]:
    """The files of a directory: when each was written, and its bytes' hash."""
    return {
        path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in directory.iterdir()
    }


class JournalCase(UnitCase):
    """A data directory, and batches of real reports to fill its journal with."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / NAME

    def batch(self, *idents: str) -> Batch:
        """A batch with a report of each of these devices."""
        self.clock.advance(60)
        frames = b"".join(v1(self.now, ident=ident) for ident in idents)
        before = len(self.sink.batches)
        self.send(frames)
        return self.sink.batches[before]

    def journal(self, name: str = NAME) -> JournalFile:
        """A journal that is open, as a gateway has it."""
        file = JournalFile(self.directory / name, LIMIT)
        self.addCleanup(file.close)
        return file

    def fill(self, count: int = 3, name: str = NAME) -> list[Batch]:
        """A journal with batches of one device each, closed; the batches."""
        batches = [self.batch(f"91700000{number:02}") for number in range(1, count + 1)]
        file = JournalFile(self.directory / name, LIMIT)
        file.append([Row.of(batch, "gw-8888") for batch in batches])
        file.close()
        return batches

    def run_it(self, *words: str, status: int = 0) -> Result:
        """Run C{gateway journal}."""
        command, *options = words
        result = CliRunner().invoke(main, ["journal", command, "--data-dir", str(self.directory), *options])
        self.assertEqual(status, result.exit_code, result.output)
        self.assertTrue(result.exception is None or isinstance(result.exception, SystemExit), result.exception)
        return result

    def objects(self, *options: str) -> dict[str, Any]:
        """What C{list --json} says of the only journal."""
        (found,) = json.loads(self.run_it("list", "--json", *options).output)["journals"]
        assert isinstance(found, dict)
        return found

    def spoil(self, number: int) -> None:
        """Change a byte of a batch that is in the journal."""
        file = sqlite3.connect(self.path)
        (body,) = file.execute("SELECT body FROM batch WHERE number = ?", (number,)).fetchone()
        file.execute("UPDATE batch SET body = ? WHERE number = ?", (body[:-1] + b"?", number))
        file.commit()
        file.close()


class ListTests(JournalCase):
    """C{gateway journal list}."""

    def test_what_is_there(self) -> None:
        """The totals, and a line a batch: its number, its time, its frames and events, whose they are."""
        batches = self.fill()
        lines = self.run_it("list").output.splitlines()
        totals = dict(line.split(maxsplit=1) for line in lines[1:7])
        self.assertEqual(
            ("3", "3", "0", "2026-11-22T12:01:00.000Z"),
            tuple(totals[name] for name in ("batches", "frames", "quarantined", "oldest")),
        )
        events = sum(int(Group.parse(group).events) for batch in batches for group in batch.groups)
        self.assertEqual(str(events), totals["events"])
        self.assertEqual(f"{self.path.stat().st_size:,}", totals["bytes"])
        self.assertEqual(["2", "2026-11-22T12:02:00.000Z", "1", "2", "9170000002"], lines[9].split())

    def test_as_json(self) -> None:
        """The same for machines."""
        self.fill()
        found = self.objects()
        self.assertEqual((3, 3, 6, 0), tuple(found[k] for k in ("batches", "frames", "events", "quarantined")))
        self.assertEqual((str(self.path), None), (found["path"], found["under_way"]))
        expected = {
            "number": 1, "time": "2026-11-22T12:01:00.000Z", "instance": "gw-8888",
            "frames": 1, "events": 2, "idents": ["9170000001"], "ident_count": 1,
        }  # fmt: skip
        self.assertEqual(expected, found["rows"][0])

    def test_limit(self) -> None:
        """No more batches are shown than are asked for; the totals are those of all."""
        batch = self.batch(IDENT)
        self.journal().append([Row.of(batch, "gw-8888")] * 200)
        lines = self.run_it("list", "--limit", "2").output.splitlines()
        self.assertEqual("198  more (--limit)", lines[-1].strip())
        self.assertEqual(10, len(lines) - 1)
        found = self.objects("--limit", "0")
        self.assertEqual((200, 200, []), (found["batches"], found["frames"], found["rows"]))
        self.assertEqual(20, len(self.objects()["rows"]))

    def test_many_idents(self) -> None:
        """A batch of many devices names some, and says how many more there are."""
        batch = self.batch(*(f"91700000{number:02}" for number in range(1, 31)))
        self.journal().append([Row.of(batch, "gw-8888")])
        self.assertIn("9170000005 and 25 more", self.run_it("list").output)
        (row,) = self.objects()["rows"]
        self.assertEqual((20, 30), (len(row["idents"]), row["ident_count"]))

    def test_under_way(self) -> None:
        """What was given to Redis and was not answered is named with the number that will tell."""
        file = self.journal()
        file.append([Row.of(self.batch(IDENT), "gw-8888")], ("gw-8888-1a2b3c4d", 77))
        self.assertIn("batches 1 to 1, as number 77 of producer gw-8888-1a2b3c4d", self.run_it("list").output)
        expected = {"producer": "gw-8888-1a2b3c4d", "number": 77, "first": 1, "last": 1}
        self.assertEqual(expected, self.objects()["under_way"])

    def test_quarantine(self) -> None:
        """What Redis refused is shown when asked for: why, whose, which events."""
        batch = self.batch(IDENT)
        self.journal().quarantine(batch.groups, "WRONGTYPE Operation against a key", NOON)
        self.assertNotIn("WRONGTYPE", self.run_it("list").output)
        text = self.run_it("list", "--quarantine").output
        (found,) = self.objects("--quarantine")["quarantine"]
        self.assertEqual((IDENT, "WRONGTYPE Operation against a key"), (found["ident"], found["reason"]))
        self.assertEqual(["device.connected", "position"], sorted(event["type"] for event in found["events"]))
        for event in found["events"]:
            self.assertIn(f"{event['type']} {event['id']}", text)

    def test_terminals_are_safe(self) -> None:
        """Whatever stands in the file, no control character comes to the terminal."""
        file = self.journal()
        group = Group(f"91{ESCAPE}".encode(), b"", b"s", b"0", b"", b"0", b"").packed()
        file.append([Row(0, NOON, f"gw{ESCAPE}", 1, 0, 0, [group])], (f"gw{ESCAPE}", 1))
        file.quarantine([group, b"nonsense"], f"no {ESCAPE}\n", NOON)
        text = self.run_it("list", "--quarantine").output
        self.assertNotIn("\x1b", text)
        self.assertIn("91\\x1b[31m", text)
        self.assertIn("not readable", text)

    def test_a_batch_that_is_not_whole(self) -> None:
        """A batch whose checksum does not hold is named as such, the others are shown; the status says so."""
        self.fill()
        self.spoil(2)
        lines = self.run_it("list", status=1).output.splitlines()
        self.assertEqual("2  the checksum does not hold", lines[9].strip())
        self.assertEqual(f"can't be read: {self.path}: 1 batches", lines[-1])
        row = json.loads(self.run_it("list", "--json", status=1).output)["journals"][0]["rows"][1]
        self.assertEqual((2, "the checksum does not hold"), (row["number"], row["error"]))
        self.assertIn("9170000003", lines[10])

    def test_several(self) -> None:
        """Every journal of the directory is shown; what was set aside is named."""
        self.fill()
        self.fill(1, "journal-other.sqlite")
        (self.directory / "damaged-journal-20261122T120000Z-1-0.sqlite").write_bytes(b"")
        text = self.run_it("list").output
        self.assertIn(f"journal {self.path}", text)
        self.assertIn("journal-other.sqlite", text)
        self.assertIn("damaged-journal-20261122T120000Z-1-0.sqlite: was damaged and is set aside", text)
        found = json.loads(self.run_it("list", "--json").output)
        self.assertEqual([1, 3], sorted(journal["batches"] for journal in found["journals"]))
        self.assertEqual(1, len(found["damaged"]))

    def test_nothing_there(self) -> None:
        """Without a journal it says so, and makes none."""
        self.assertIn("there is no journal in", self.run_it("list").output)
        self.assertEqual([], [*self.directory.iterdir()])

    def test_no_such_directory(self) -> None:
        """A data directory that does not exist is an error, and is not made."""
        self.directory.rmdir()
        for command in ("list", "check", "replay"):
            options = ["--redis", "redis://127.0.0.1:1"] if command == "replay" else []
            self.assertIn("there is no such directory", self.run_it(command, *options, status=1).output)
        self.assertFalse(self.directory.exists())

    def test_configured(self) -> None:
        """The data directory of a configuration is looked at when none is named."""
        self.fill()
        config = self.directory / "gateway.toml"
        config.write_text(f'[gateway]\ndata_dir = "{self.directory}"\n')
        result = CliRunner().invoke(main, ["journal", "list", "--config", str(config)])
        self.assertIn("9170000003", result.output)

    def test_no_journal_at_all(self) -> None:
        """A file that is no journal is named with what it is, the others are shown."""
        self.fill()
        (self.directory / "journal-other.sqlite").write_bytes(b"no database, whatever its name says " * 100)
        text = self.run_it("list", status=1).output
        self.assertIn("9170000003", text)
        self.assertIn("journal-other.sqlite: file is not a database", text)


class ReadOnlyTests(JournalCase):
    """C{list} and C{check} leave everything as it is."""

    def test_closed(self) -> None:
        """Of a journal that nobody uses no file is written, and none is made beside it."""
        self.fill()
        before = files(self.directory)
        self.assertEqual([NAME], [*before])
        self.run_it("list", "--quarantine")
        self.run_it("check")
        self.assertEqual(before, files(self.directory))

    def test_in_use(self) -> None:
        """While a gateway has it open what it wrote last is seen."""
        file = self.journal()
        row = Row.of(self.batch(IDENT), "gw-8888")
        for count in (1, 2):
            file.append([row])
            self.assertEqual(count, self.objects()["batches"])
        self.assertIn("2 batches, all whole", self.run_it("check").output)

    def test_nobody_is_kept_waiting(self) -> None:
        """A reader that is between two batches keeps neither writes nor the end of the write-ahead log waiting."""
        file = self.journal()
        row = Row.of(self.batch(IDENT), "gw-8888")
        file.append([row] * 100)
        reader = JournalReader(self.path)
        self.addCleanup(reader.close)
        batches = reader.numbered()
        next(batches)
        file.append([row])
        other = sqlite3.connect(self.path)
        self.addCleanup(other.close)
        busy, left, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self.assertEqual((0, 0), (busy, left))
        self.assertEqual(100, len([*batches]))

    def test_killed(self) -> None:
        """What a killed gateway left is read with its log; the files stay for the next one as they are."""
        file = self.journal()
        file.append([Row.of(self.batch(IDENT), "gw-8888")])
        left = self.directory / "left"
        left.mkdir()
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(f"{self.path}{suffix}", left)
        self.directory = left
        before = files(left)
        self.assertEqual(1, self.objects()["batches"])
        self.run_it("check")
        self.assertEqual(before, files(left))

    def test_half_of_it(self) -> None:
        """A log without its index can't be read without writing one: that is said, and nothing is written."""
        file = self.journal()
        file.append([Row.of(self.batch(IDENT), "gw-8888")])
        left = self.directory / "left"
        left.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", left)
        self.directory = left
        before = files(left)
        self.assertIn("the index of that is not", self.run_it("list", status=1).output)
        self.assertEqual(before, files(left))

    def test_another_format(self) -> None:
        """A journal of another version is not guessed at; nor is a file that is gone."""
        self.fill()
        file = sqlite3.connect(self.path)
        file.execute("PRAGMA user_version = 9")
        file.close()
        self.assertRaises(JournalNewer, JournalReader, self.path)
        for command in ("list", "check"):
            self.assertIn("is of format 9", self.run_it(command, status=1).output)
        self.path.unlink()
        self.assertRaises(JournalFull, JournalReader, self.path)


class CheckTests(JournalCase):
    """C{gateway journal check}."""

    def test_whole(self) -> None:
        """A journal that is whole says how much is in it."""
        self.fill()
        self.assertIn("3 batches, all whole", self.run_it("check").output)

    def test_checksum(self) -> None:
        """A batch whose bytes changed is named."""
        self.fill()
        self.spoil(2)
        self.assertIn(f"{self.path}: batch 2: the checksum does not hold", self.run_it("check", status=1).output)

    def test_damaged(self) -> None:
        """A file with a page of nonsense is not whole."""
        batch = self.batch(*(f"91700000{number:02}" for number in range(1, 51)))
        file = JournalFile(self.path, LIMIT)
        file.append([Row.of(batch, "gw-8888")] * 20)
        file.close()
        with self.path.open("r+b") as raw:
            raw.seek(4096)
            raw.write(b"\xff" * 4096 * 8)
        before = files(self.directory)
        self.assertIn(str(self.path), self.run_it("check", status=1).output)
        self.assertEqual(before, files(self.directory))

    def test_no_journal(self) -> None:
        """A directory in which no gateway has run is a mistake of whoever named it; what is no database is wrong."""
        self.assertIn("there is no journal in", self.run_it("check", status=1).output)
        self.path.write_bytes(b"no database, whatever its name says " * 100)
        self.assertIn("file is not a database", self.run_it("check", status=1).output)


class ReplayTests(JournalCase):
    """C{gateway journal replay}: what it refuses to begin with."""

    def test_no_redis(self) -> None:
        """Without a Redis that somebody runs there is nothing to give it to."""
        self.fill()
        self.assertIn("an embedded Redis runs only with its gateway", self.run_it("replay", status=1).output)

    def test_malformed(self) -> None:
        """A URL that can't be is named."""
        self.fill()
        self.assertIn("malformed Redis URL", self.run_it("replay", "--redis", "http://x", status=1).output)

    def test_in_use(self) -> None:
        """While a gateway runs on the data directory its journal is left alone."""
        self.fill()
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            result = self.run_it("replay", "--redis", "redis://127.0.0.1:1", status=1)
        self.assertIn("in use by another gateway", result.output)

    def test_no_journal(self) -> None:
        """Where there is no journal nothing can be given, and none is made."""
        said = self.run_it("replay", "--redis", "redis://127.0.0.1:1", status=1).output
        self.assertIn("there is no journal in", said)
        self.assertEqual([], [*self.directory.iterdir()])
