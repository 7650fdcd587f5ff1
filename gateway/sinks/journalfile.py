"""
The journal's file: batches that were acknowledged and are not in Redis yet, in SQLite, a row a batch.

A row holds a batch as the publisher gathered it, not the bytes of a command:
it can be sent under another prefix, to other shards, or by another process.
Beside the rows stands which of them are under way, and under which producer's
number, so that a crash in between leaves no doubt.  What Redis refuses for
good is kept in a table of its own, with the reason.

No Twisted in here: the gateway runs this in a thread, the command line as it is.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from binascii import crc32
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from gateway.batches import frames_of
from gateway.errors import JournalDamaged, JournalFull
from gateway.tickets import Batch

#: The name of a gateway's journal in its data directory; and of all that may lie there.
NAME: Final = "journal.sqlite"
PATTERN: Final = "journal*.sqlite"

#: The layout of the tables, as C{PRAGMA user_version}.
FORMAT: Final = 1
#: An emptied file that has grown beyond this is made small again.
LARGE_BYTES: Final = 16 * 1024 * 1024
#: What a transaction writes beside the rows themselves: heads of pages and of frames of the write-ahead log.
OVERHEAD: Final = 1.05
PAGE_BYTES: Final = 4096
#: A clock that says less than this (2020) was not set yet: nothing is said of the age of what it dated.
SINCE: Final = 1_577_836_800
#: Beyond this many numbers after the last that could be read nothing is looked for in a damaged file.
FAR: Final = 100_000
#: How long a command line that reads the file may keep us from writing.
BUSY_S: Final = 5.0
#: How long it is waited for a reader's end before the log is cut off another time.
READER_MS: Final = 50

#: Result codes of SQLite that mean that the file can't be trusted, and those that mean 'not now'.
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS batch (
  number INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice, so that the order is that of the numbers
  time REAL NOT NULL, instance TEXT NOT NULL, frames INTEGER NOT NULL,
  limited INTEGER NOT NULL, dropped INTEGER NOT NULL, body BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS sent (
  one INTEGER PRIMARY KEY CHECK (one = 1), producer TEXT NOT NULL, number INTEGER NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS quarantine (
  number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, reason TEXT NOT NULL, body BLOB NOT NULL);
"""

_HELD: Final = "SELECT COUNT(*), TOTAL(frames) FROM batch"
#: So many rows are read at a time.
_STEP: Final = 64
_COLUMNS: Final = "number, time, instance, frames, limited, dropped, body, checksum"

T = TypeVar("T")


class Row(NamedTuple):
    """
    A batch in the journal.

    @ivar number: its place; 0 before it has one.
    @ivar time: when it was gathered, UTC epoch seconds.
    @ivar instance: of the gateway that gathered it.
    @ivar frames: how many frames it settles.
    @ivar groups: as in L{gateway.tickets.Batch}.
    """

    number: int
    time: float
    instance: str
    frames: int
    limited: int
    dropped: int
    groups: list[bytes]

    @classmethod
    def of(cls, batch: Batch, instance: str) -> Row:
        """A batch that is to be kept."""
        return cls(0, batch.now, instance, batch.frames, batch.limited, batch.dropped, batch.groups)

    @property
    def batch(self) -> Batch:
        """The batch again."""
        return Batch(self.groups, self.limited, self.dropped, self.time, self.frames)


class Sent(NamedTuple):
    """Rows that were given to Redis together, under a producer's number; whether it took them is not known."""

    producer: str
    number: int
    first: int
    last: int


class Quarantined(NamedTuple):
    """What Redis refused for good: a group of one ident, and why."""

    number: int
    time: float
    reason: str
    group: bytes


class Content(NamedTuple):
    """
    What a journal holds.

    @ivar bytes: what it takes on the disk, the write-ahead log with it.
    @ivar oldest: when its first batch was gathered, UTC epoch seconds; None: it is empty.
    """

    rows: int
    frames: int
    quarantined: int
    bytes: int
    oldest: float | None


def pack(groups: Iterable[bytes]) -> bytes:
    """Groups as one value: each with its length before it, 4 bytes."""
    parts: list[bytes] = []
    for group in groups:
        parts += (struct.pack(">I", len(group)), group)
    return b"".join(parts)


def unpack(body: bytes) -> list[bytes]:
    """The reverse of L{pack}."""
    groups, at = [], 0
    while at < len(body):
        (size,) = struct.unpack_from(">I", body, at)
        groups.append(body[at + 4 : at + 4 + size])
        at += 4 + size
    return groups


class Readable:
    """
    What can be read of a journal's file.

    @ivar closed: whether L{close} was called.
    """

    path: Path
    closed = False
    _db: sqlite3.Connection
    #: rows up to here are stored in Redis, also when the disk was too full to say so
    _done = 0

    def close(self) -> None:
        """Close it; a writer's log becomes a part of the file where there is room for it."""
        self.closed = True
        self._db.close()

    def sent(self) -> Sent | None:
        """What was under way when the file was last written."""
        found = self._read("SELECT producer, number, first, last FROM sent")
        return Sent(*found[0]) if found else None

    def rows(self) -> Iterator[Row | None]:
        """Every batch in order; None for one whose checksum does not hold."""
        for _, row in self.numbered():
            yield row

    def numbered(self) -> Iterator[tuple[int, Row | None]]:
        """
        Every batch in order with its number; None for one whose checksum does not hold.

        A few at a time, each few in a transaction of their own: they may be more than the memory holds, and a reader
        that goes on and on keeps the write-ahead log from beginning anew.
        """
        after = self._done
        while found := self._after(after):
            for values in found:
                after = values[0]
                yield after, _row(values)

    def _after(self, number: int) -> list[Any]:
        return self._read(f"SELECT {_COLUMNS} FROM batch WHERE number > ? ORDER BY number LIMIT {_STEP}", (number,))

    def quarantined(self) -> list[Quarantined]:
        """All that is in quarantine."""
        return [Quarantined(*found) for found in self._read("SELECT number, time, reason, body FROM quarantine")]

    def counts(self) -> Content:
        """What it holds."""
        rows, frames, quarantined = self._held()
        first = self._read("SELECT time FROM batch WHERE number > ? ORDER BY number LIMIT 1", (self._done,))
        return Content(rows, int(frames), quarantined, self._footprint(), first[0][0] if first else None)

    def _held(self) -> tuple[int, float, int]:
        """Batches, frames, and what is in quarantine."""
        rows, frames = self._read(_HELD + " WHERE number > ?", (self._done,))[0]
        return rows, frames, self._read("SELECT COUNT(*) FROM quarantine")[0][0]

    def check(self) -> list[str]:
        """What is wrong with the file; nothing, it is to be hoped."""
        try:
            wrong = [text for (text,) in self._read("PRAGMA integrity_check(20)") if text != "ok"]
            return wrong or [f"batch {n}: the checksum does not hold" for n, row in self.numbered() if row is None]
        except JournalDamaged as error:
            return [str(error)]

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with _translated(self.path):
            return self._db.execute(query, values).fetchall()

    def _footprint(self) -> int:
        """Bytes on the disk."""
        return sum(_size(self.path.with_name(self.path.name + suffix)) for suffix in ("", "-wal"))


class JournalReader(Readable):
    """
    The file, opened to be read: nothing is created, changed or set aside, and a gateway may be using it.

    @ivar settled: whether it was taken to be used by nobody, as there is no write-ahead log.
    """

    def __init__(self, path: Path) -> None:
        """
        @raise JournalFull: when it can't be opened; L{JournalDamaged} when it is none.
        """
        self.path = path
        log = _size(path.with_name(path.name + "-wal"))
        index = path.with_name(path.name + "-shm").exists()
        self.settled = not log and not index
        # Without a log the file is all there is, and SQLite would make an empty one.  With one its index, which a
        # killed gateway leaves behind, is built again in memory rather than in its file; where that can't be done,
        # because nobody has marked yet how far readers are, the mark in the index is all that is written.
        ways = ("immutable=1",) if self.settled else ("mode=ro&readonly_shm=1", "mode=ro") if index else ()
        with _translated(path):
            if not path.is_file():
                raise JournalFull(f"{path}: there is no such file")
            if not ways:
                raise JournalFull(f"{path}: its log is there, the index of that is not: a gateway can open it")
            for way in ways:
                self._db = sqlite3.connect(f"{path.absolute().as_uri()}?{way}", uri=True, timeout=BUSY_S)
                try:
                    found = self._db.execute("PRAGMA user_version").fetchone()[0]
                    break
                except sqlite3.Error:
                    self._db.close()
                    if way == ways[-1]:
                        raise
        if found != FORMAT:
            self._db.close()
            raise JournalDamaged(f"{path}: is of format {found}, this version reads {FORMAT}")


class JournalFile(Readable):
    """
    The file, opened.

    @ivar set_aside: where a damaged one was moved to, and how many rows of it could be saved, for each.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """
        @param limit: bytes that the file and its log may take.
        @raise JournalFull: when it can't be opened now.
        """
        self.path = path
        self.limit = limit
        self.set_aside: list[tuple[Path, int]] = []
        #: whether there is no connection, as the file could not be opened again; it is tried with the next thing to do
        self._shut = False
        #: rows up to here may have been read ahead of their turn
        self._ahead = 0
        #: the highest number that was given to a row: a file that begins anew goes on from there
        self._last = 0
        self._rows, self._frames, self._quarantined = 0, 0.0, 0
        self._open()

    def _open(self) -> None:
        self._shut = True
        aside: Path | None = None
        with _translated(self.path):
            if self._saved.exists():  # the process ended when all was saved and the damaged file was still in its place
                aside = self._swap()
        try:
            self._connect()
        except JournalDamaged:
            self._replace()
        if aside is not None:
            self.set_aside.append((aside, self._rows))

    def _connect(self) -> None:
        with _translated(self.path):
            # autocommit: transactions begin and end where it says so below; one thread at a time uses it
            db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA secure_delete = OFF")  # Debian's default writes what is deleted once more, as zeros
                found = db.execute("PRAGMA user_version").fetchone()[0]
                if found not in (0, FORMAT):
                    raise JournalDamaged(f"{self.path}: is of format {found}, this gateway writes {FORMAT}")
                if not found:  # to write nothing where nothing is to be written: the disk may be full
                    db.executescript(_TABLES)
                    db.execute(f"PRAGMA user_version = {FORMAT}")
                if (verdict := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                    raise JournalDamaged(f"{self.path}: {verdict}")
                self._last = _go_on(db, self._last)
                os.chmod(self.path, 0o600)
                self._db = db
                self._count()
            except BaseException:
                db.close()
                raise
        self._shut = False

    def _count(self) -> None:
        """Count what is there; from then on what comes and goes is, as looking at all of it takes time."""
        self._rows, self._frames, self._quarantined = super()._held()

    def _held(self) -> tuple[int, float, int]:
        return self._rows, self._frames, self._quarantined

    # -- writing

    def append(self, rows: Sequence[Row], sent: tuple[str, int] | None = None) -> int:
        """
        Keep batches, in one transaction; they are on the disk when it returns.

        @param sent: producer and number under which the only one of them was given to Redis already.
        @return: the number of the last of them.
        @raise JournalFull: when they can't be kept now; none of them was.
        """
        bodies = [pack(row.groups) for row in rows]
        need = int(sum(len(body) + PAGE_BYTES for body in bodies) * OVERHEAD)

        def write(db: sqlite3.Connection) -> int:
            last = 0
            for row, body in zip(rows, bodies, strict=True):
                values = (row.time, row.instance, row.frames, row.limited, row.dropped, body, crc32(body))
                last = _insert(db, "batch (time, instance, frames, limited, dropped, body, checksum)", values)
            if sent is not None:
                db.execute("INSERT OR REPLACE INTO sent VALUES (1, ?, ?, ?, ?)", (*sent, last, last))
            return last

        def attempt() -> int:
            self._last = last = self._transaction(write, need)
            self._rows += len(rows)
            self._frames += sum(row.frames for row in rows)
            return last

        return self._safely(attempt)

    def ahead(self, after: int, size: int) -> list[Row]:
        """
        Read the rows after this one ahead of their turn; they do not become too old from then on.

        @param size: as in L{take}.
        @return: the rows in order, of one instance.
        """

        def attempt() -> list[Row]:
            rows = self._next(after, size)
            if rows:
                self._ahead = rows[-1].number
            return rows

        return self._safely(attempt)

    def take(self, done: int, producer: str, number: int, size: int, ahead: Sequence[Row] = ()) -> list[Row]:
        """
        Forget the rows up to C{done}, which Redis has, and take the next ones to give it together.

        That they are under way, under this producer's number, is on the disk when it returns; unless
        the disk is full, when only the events' ids tell after a crash what Redis has.

        @param size: bytes of groups after which no further row is taken.
        @param ahead: the rows after C{done}, where they were read already.
        @return: the rows in order, of one instance; none when there are no more.
        """
        if done > self._done:
            rows, frames = self._read(_HELD + " WHERE number > ? AND number <= ?", (self._done, done))[0]
            self._rows, self._frames, self._done = self._rows - rows, self._frames - frames, done

        def step(db: sqlite3.Connection) -> list[Row]:
            db.execute("DELETE FROM batch WHERE number <= ?", (self._done,))
            rows = [*ahead] or self._next(self._done, size)
            db.execute("DELETE FROM sent")
            if rows:
                mark = (producer, number, rows[0].number, rows[-1].number)
                db.execute("INSERT INTO sent VALUES (1, ?, ?, ?, ?)", mark)
            return rows

        def attempt() -> list[Row]:
            try:
                if not self._below():
                    raise JournalFull(f"{self.path}: somebody reads it, and its log can't be cut off")
                rows = self._transaction(step, 0)
                self._below()
            except JournalFull as error:
                rows = [*ahead] or self._next(self._done, size)
                if not rows and _no_room(error):
                    self._empty_without_room()
            if not rows:
                self._shrink()
            return rows

        return self._safely(attempt)

    def _next(self, after: int, size: int) -> list[Row]:
        rows: list[Row] = []
        taken = 0
        while taken < size:
            if not (found := self._after(after)):
                return rows
            for values in found:
                row = self._sound(values)
                if rows and row.instance != rows[0].instance:
                    return rows
                rows.append(row)
                taken += len(values[6])
                after = row.number
                if taken >= size:
                    break
        return rows

    def _sound(self, values: Sequence[Any]) -> Row:
        row = _row(values)
        if row is None:
            raise JournalDamaged(f"{self.path}: the checksum of batch {values[0]} does not hold")
        return row

    def quarantine(self, groups: Sequence[bytes], reason: str, now: float) -> None:
        """
        Keep what Redis refuses for good, with the reason.

        @raise JournalFull: when it can't be kept now.
        """

        def write(db: sqlite3.Connection) -> None:
            for group in groups:
                _insert(db, "quarantine (time, reason, body)", (now, reason[:1000], group))

        need = sum(len(group) + PAGE_BYTES for group in groups)
        self._safely(lambda: self._transaction(write, need))
        self._quarantined += len(groups)

    def requeue(self, instance: str) -> int:
        """
        Make batches again of what is in quarantine, so that it is sent once more; how many groups that were.

        @raise JournalFull: when there is no room for that now; all is as it was.
        """

        def write(db: sqlite3.Connection) -> int:
            found = db.execute("SELECT number, time, body FROM quarantine ORDER BY number").fetchall()
            for number, when, group in found:
                body = pack([group])
                # the script counts them anew
                values = (when, instance, frames_of([group]), 0, 0, body, crc32(body))
                _insert(db, "batch (time, instance, frames, limited, dropped, body, checksum)", values)
                db.execute("DELETE FROM quarantine WHERE number = ?", (number,))
            return len(found)

        def attempt() -> int:
            size, count = self._read("SELECT TOTAL(LENGTH(body)), COUNT(*) FROM quarantine")[0]
            return self._transaction(write, int(size) + count * PAGE_BYTES)

        found = self._safely(attempt)
        self._count()
        return found

    def expire(self, before: float) -> tuple[int, int]:
        """
        Drop the batches that were gathered before then, unless they are under way.

        @return: how many batches, and how many frames they settled.
        """

        def write(db: sqlite3.Connection) -> tuple[int, int]:
            which = f"time BETWEEN {SINCE} AND ? AND number > ? AND number NOT IN"
            which += " (SELECT b.number FROM batch b, sent s WHERE b.number BETWEEN s.first AND s.last)"
            values = (before, max(self._done, self._ahead))
            rows, frames = db.execute(f"SELECT COUNT(*), TOTAL(frames) FROM batch WHERE {which}", values).fetchone()
            if rows:
                db.execute(f"DELETE FROM batch WHERE {which}", values)
            return rows, int(frames)

        gone = self._safely(lambda: self._transaction(write, 0))
        if gone[0]:
            self._count()
        return gone

    def adopt(self, other: Path) -> int:
        """
        Take over the batches of another journal, which nobody has open, all or none, and delete it.

        After a crash in between they are in both, and their events' ids tell.

        @return: how many.
        @raise JournalFull: when there is no room for them now; both are as they were.
        """
        rest = JournalFile(other, self.limit)
        try:
            if rest.check():
                rest._set_aside()

            def write(db: sqlite3.Connection) -> int:
                count = 0
                try:
                    for values in rest._each(f"SELECT {_COLUMNS[8:]} FROM batch ORDER BY number"):
                        _insert(db, f"batch ({_COLUMNS[8:]})", values)
                        count += 1
                    for values in rest._each("SELECT time, reason, body FROM quarantine ORDER BY number"):
                        _insert(db, "quarantine (time, reason, body)", values)
                except JournalDamaged as error:  # it, and not this one
                    raise JournalFull(str(error)) from error
                return count

            count = self._safely(lambda: self._transaction(write, rest._footprint()))
            self._last = _go_on(self._db, self._last)
            self._count()
        finally:
            self.set_aside += rest.set_aside
            rest.close()
        _unlink(other)
        return count

    def marked(self, sent: Sent) -> list[Row]:
        """The rows that were under way."""
        query = f"SELECT {_COLUMNS} FROM batch WHERE number BETWEEN ? AND ? ORDER BY number"

        def attempt() -> list[Row]:
            return [self._sound(values) for values in self._read(query, (sent.first, sent.last))]

        return self._safely(attempt)

    def _each(self, query: str) -> Iterator[Any]:
        with _translated(self.path):
            yield from self._db.execute(query)

    # -- room

    def _make_room(self, need: int) -> None:
        """@raise JournalFull: when so many bytes more would be too many."""
        if self._grown(need) > self.limit:
            self._checkpoint()
            if self._grown(need) > self.limit:
                raise JournalFull(f"{self.path}: holds the {self.limit:,} bytes that [journal] bytes allows")

    def _grown(self, need: int) -> int:
        """Bytes on the disk once so many are written: first to the log, and from there to the file."""
        with _translated(self.path):
            pages: int = self._db.execute("PRAGMA page_count").fetchone()[0]
            free: int = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        file = pages * PAGE_BYTES + max(0, need - free * PAGE_BYTES)
        return max(file, _size(self.path)) + _size(self.path.with_name(self.path.name + "-wal")) + need

    def _checkpoint(self) -> None:
        """Write what is in the log to the file, and cut it off; a part of it stays while somebody reads it."""
        with _translated(self.path):
            self._db.execute(f"PRAGMA busy_timeout = {READER_MS}")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000:.0f}")

    def _below(self) -> bool:
        """Whether it is not beyond its limit: what says that rows are gone is written to the log as well."""
        if self._grown(0) > self.limit:
            self._checkpoint()
        return self._grown(0) <= self.limit

    def _shrink(self) -> None:
        """Give back the room of an emptied file that had grown."""
        if self._footprint() < LARGE_BYTES:
            return
        try:
            with _translated(self.path):
                self._db.execute("VACUUM")
            self._checkpoint()
        except JournalFull:
            pass  # as it is, then

    def _empty_without_room(self) -> None:
        """All is in Redis, and the disk is too full even to say so: the file goes, which needs no room."""
        if self._read("SELECT 1 FROM quarantine LIMIT 1") or self._footprint() <= PAGE_BYTES * 8:
            return
        self._shut = True
        self._db.close()
        _unlink(self.path)
        self._connect()

    # -- trouble

    def _transaction(self, work: Callable[[sqlite3.Connection], T], need: int) -> T:
        if need:
            self._make_room(need)
        db = self._db
        with _translated(self.path):
            db.execute("BEGIN IMMEDIATE")
            try:
                answer = work(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        return answer

    def _safely(self, work: Callable[[], T]) -> T:
        """Do it; if the file turns out to be damaged, set it aside, begin a new one, and do it there."""
        if self._shut and not self.closed:
            self._open()
        try:
            return work()
        except JournalDamaged:
            self._set_aside()
            return work()

    def _set_aside(self) -> None:
        self._shut = True
        self._db.close()
        self._replace()

    @property
    def _saved(self) -> Path:
        """Where a new file stands that holds all that could be saved, before it takes the place of the damaged one."""
        return self.path.with_name(f"{self.path.name}.saved")

    def _replace(self) -> None:
        """
        Set the file aside as it is, and begin a new one with what can be read of it.

        The new one is whole before the other leaves its place: whatever happens in between, nothing is forgotten.
        """
        new = self.path.with_name(f"{self.path.name}.new")
        with _translated(self.path):
            _unlink(new)
            try:
                db = sqlite3.connect(new, isolation_level=None)
                try:
                    db.executescript(_TABLES)
                    db.execute("BEGIN")
                    saved = _salvage(self.path, self._done, db)
                    db.execute("COMMIT")
                finally:
                    db.close()
            except BaseException:
                _unlink(new)
                raise
            new.rename(self._saved)
            _sync(self.path.parent)
            aside = self._swap()
        self._connect()
        self.set_aside.append((aside, saved))

    def _swap(self) -> Path:
        """Put the file in which all is saved in the place of the damaged one; where that is now."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = self.path.with_name(f"damaged-{self.path.stem}-{stamp}-{os.getpid()}-{len(self.set_aside)}.sqlite")
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        self._saved.rename(self.path)
        _sync(self.path.parent)
        return aside


def _go_on(db: sqlite3.Connection, last: int) -> int:
    """See that no number up to this one is given again; the highest that was given."""
    found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'batch'").fetchone()
    if found is not None and found[0] >= last:
        return int(found[0])
    if last:
        db.execute("DELETE FROM sqlite_sequence WHERE name = 'batch'")
        db.execute("INSERT INTO sqlite_sequence VALUES ('batch', ?)", (last,))
    return last


def _no_room(error: JournalFull) -> bool:
    """Whether it was for want of room on the disk that something failed, and not that somebody has the file locked."""
    code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _insert(db: sqlite3.Connection, into: str, values: Sequence[Any]) -> int:
    row = db.execute(f"INSERT INTO {into} VALUES ({', '.join('?' * len(values))})", values).lastrowid
    assert row is not None
    return row


def _row(values: Sequence[Any]) -> Row | None:
    """A row as it was read; None when its checksum does not hold."""
    number, when, instance, frames, limited, dropped, body, checksum = values
    if crc32(body) != checksum:
        return None
    return Row(number, when, instance, frames, limited, dropped, unpack(body))


def _salvage(path: Path, done: int, into: sqlite3.Connection) -> int:
    """
    Copy what can be read of a damaged file: rows after C{done}, what was under way, and what was in quarantine.

    From both ends up to the damage, then each number in between by itself: looking one up touches only the pages that
    it needs.

    @return: how many rows.
    """

    def save(row: Sequence[Any]) -> None:
        if isinstance(row[6], bytes) and crc32(row[6]) == row[7]:
            into.execute(f"INSERT OR IGNORE INTO batch ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    select = f"SELECT {_COLUMNS} FROM batch WHERE number"
    with _Damaged(path) as file:
        end = done
        for row in file.read(f"{select} > ? ORDER BY number", done):
            end = row[0]
            save(row)
        if not file.whole:
            other_end = next((row[0] for row in file.read("SELECT seq FROM sqlite_sequence")), end + FAR) + 1
            for row in file.read(f"{select} > ? ORDER BY number DESC", end):
                other_end = row[0]
                save(row)
            for number in range(end + 1, min(other_end, end + FAR)):
                for row in file.read(f"{select} = ?", number):
                    save(row)
        for row in file.read("SELECT time, reason, body FROM quarantine ORDER BY number"):
            into.execute("INSERT OR IGNORE INTO quarantine (time, reason, body) VALUES (?, ?, ?)", row)
        for row in file.read("SELECT producer, number, first, last FROM sent"):
            into.execute("INSERT OR IGNORE INTO sent VALUES (1, ?, ?, ?, ?)", row)
    return int(into.execute("SELECT COUNT(*) FROM batch").fetchone()[0])


class _Damaged:
    """
    A damaged file, read as far as it goes.

    @ivar whole: whether what was read last came to its end.
    """

    def __init__(self, path: Path) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode=ro"
        self._db: sqlite3.Connection | None = None
        self.whole = False

    def __enter__(self) -> _Damaged:
        with suppress(sqlite3.Error):
            db = sqlite3.connect(self._uri, uri=True, timeout=BUSY_S)
            try:
                db.execute("PRAGMA writable_schema = ON")  # else one that was cut off is not read at all
                db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()  # else nothing else can be read
            except sqlite3.Error:
                db.close()
                raise
            self._db = db
        return self

    def __exit__(self, *_: object) -> None:
        if self._db is not None:
            self._db.close()

    def read(self, query: str, *values: Any) -> Iterator[Any]:
        """What a query gives, up to where it fails."""
        self.whole = False
        if self._db is None:
            return
        try:
            rows = self._db.execute(query, values)
            while (row := rows.fetchone()) is not None:
                yield row
        except (sqlite3.Error, OverflowError):
            return
        self.whole = True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sync(directory: Path) -> None:
    """Have it on the disk what its files are called now."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unlink(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class _translated:
    """Turns SQLite's errors into those that a caller can react to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, sqlite3.Error):
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED:
                raise JournalDamaged(f"{self._path}: {error}") from error
            raise JournalFull(f"{self._path}: {error}") from error
        if isinstance(error, OSError):
            raise JournalFull(f"{self._path}: {error.strerror or error}") from error
