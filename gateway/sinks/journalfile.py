"""
The journal's file, to be written: batches that were acknowledged and are not in Redis yet, in SQLite, a row a batch.

Everything happens in transactions that are on the disk when they end.  A file
that turns out to be damaged is set aside, and a new one begun with what can be
read of it.

No Twisted in here: the gateway runs this in a thread, the command line as it is.
"""

from __future__ import annotations

import os
import sqlite3
import time
from binascii import crc32
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.batches import frames_of
from gateway.errors import JournalDamaged, JournalFull, JournalNewer
from gateway.sinks.journalreader import HELD, Readable, size_of
from gateway.sinks.journalrows import BUSY_S, COLUMNS, FORMAT, TABLES, Row, Sent, pack, parsed, translated
from gateway.sinks.salvage import salvage

#: An emptied file that has grown beyond this is made small again.
LARGE_BYTES: Final = 16 * 1024 * 1024
#: What a transaction writes beside the rows themselves: heads of pages and of frames of the write-ahead log.
OVERHEAD: Final = 1.05
PAGE_BYTES: Final = 4096
#: A clock that says less than this (2020) was not set yet: nothing is said of the age of what it dated.
SINCE: Final = 1_577_836_800
#: How long it is waited for a reader's end before the log is cut off another time.
READER_MS: Final = 50

T = TypeVar("T")


class JournalFile(Readable):
    """
    The file, opened.

    @ivar set_aside: where a damaged one was moved to, and how many rows of it could be saved, for each.
    @ivar lost: how many rows of them are known to be missing; how many were there at their ends is not known.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """
        @param limit: bytes that the file and its log may take.
        @raise JournalFull: when it can't be opened now.
        """
        self.path = path
        self.limit = limit
        self.set_aside: list[tuple[Path, int]] = []
        self.lost = 0
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
        with translated(self.path):
            if self._saved.exists():  # the process ended when all was saved and the damaged file was still in its place
                aside = self._swap()
        try:
            self._connect()
        except JournalDamaged:
            self._replace()
        if aside is not None:
            self.set_aside.append((aside, self._rows))

    def _connect(self) -> None:
        with translated(self.path):
            # autocommit: transactions begin and end where it says so below; one thread at a time uses it
            db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA secure_delete = OFF")  # Debian's default writes what is deleted once more, as zeros
                found = db.execute("PRAGMA user_version").fetchone()[0]
                if found not in (0, FORMAT):
                    raise JournalNewer(
                        f"journal {self.path}: is of format {found}, this gateway has {FORMAT}: "
                        "start the version that wrote it, or let that replay it"
                    )
                if not found:  # to write nothing where nothing is to be written: the disk may be full
                    db.executescript(TABLES)
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
        if not self._rows and self._footprint() > self.limit:
            self._shrink()

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
            rows, frames = self._read(HELD + " WHERE number > ? AND number <= ?", (self._done, done))[0]
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
        row = parsed(values)
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
                    for values in rest._each(f"SELECT {COLUMNS[8:]} FROM batch ORDER BY number"):
                        _insert(db, f"batch ({COLUMNS[8:]})", values)
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
            self.lost += rest.lost
            rest.close()
        _unlink(other)
        return count

    def marked(self, sent: Sent) -> list[Row]:
        """The rows that were under way."""
        query = f"SELECT {COLUMNS} FROM batch WHERE number BETWEEN ? AND ? ORDER BY number"

        def attempt() -> list[Row]:
            return [self._sound(values) for values in self._read(query, (sent.first, sent.last))]

        return self._safely(attempt)

    def _each(self, query: str) -> Iterator[Any]:
        with translated(self.path):
            yield from self._db.execute(query)

    # -- room

    def _make_room(self, need: int) -> None:
        """@raise JournalFull: when so many bytes more would be too many."""
        if self._grown(need) > self.limit:
            self._checkpoint()
            if self._grown(need) > self.limit:
                raise JournalFull(f"{self.path}: no room within the {self.limit:,} bytes that [journal] bytes allows")

    def _grown(self, need: int) -> int:
        """Bytes on the disk once so many are written: first to the log, and from there to the file."""
        with translated(self.path):
            pages: int = self._db.execute("PRAGMA page_count").fetchone()[0]
            free: int = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        file = pages * PAGE_BYTES + max(0, need - free * PAGE_BYTES)
        return max(file, size_of(self.path)) + size_of(self.path.with_name(self.path.name + "-wal")) + need

    def _checkpoint(self) -> None:
        """Write what is in the log to the file, and cut it off; a part of it stays while somebody reads it."""
        with translated(self.path):
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
        if self._footprint() < min(LARGE_BYTES, self.limit):
            return
        try:
            with translated(self.path):
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
        with translated(self.path):
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
        with translated(self.path):
            _unlink(new)
            try:
                db = sqlite3.connect(new, isolation_level=None)
                try:
                    db.executescript(TABLES)
                    db.execute("BEGIN")
                    saved = salvage(self.path, self._done, db)
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
        self.lost += self._missing()
        self.set_aside.append((aside, saved))

    def _missing(self) -> int:
        """How many numbers there are between the first and the last row that are no row's."""
        first, last, rows = self._read("SELECT MIN(number), MAX(number), COUNT(*) FROM batch")[0]
        return max(self._last, last) - first + 1 - rows if rows else 0

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
