"""The journal's file as one who only reads it sees it; a gateway may be using it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.errors import JournalDamaged, JournalFull, JournalNewer
from gateway.sinks.journalrows import BUSY_S, COLUMNS, FORMAT, Content, Quarantined, Row, Sent, parsed, translated

HELD: Final = "SELECT COUNT(*), TOTAL(frames) FROM batch"
#: So many rows are read at a time.
_STEP: Final = 64


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
                yield after, parsed(values)

    def _after(self, number: int) -> list[Any]:
        return self._read(f"SELECT {COLUMNS} FROM batch WHERE number > ? ORDER BY number LIMIT {_STEP}", (number,))

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
        rows, frames = self._read(HELD + " WHERE number > ?", (self._done,))[0]
        return rows, frames, self._read("SELECT COUNT(*) FROM quarantine")[0][0]

    def check(self) -> list[str]:
        """What is wrong with the file; nothing, it is to be hoped."""
        try:
            wrong = [text for (text,) in self._read("PRAGMA integrity_check(20)") if text != "ok"]
            return wrong or [f"batch {n}: the checksum does not hold" for n, row in self.numbered() if row is None]
        except JournalDamaged as error:
            return [str(error)]

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with translated(self.path):
            return self._db.execute(query, values).fetchall()

    def _footprint(self) -> int:
        """Bytes on the disk."""
        return sum(size_of(self.path.with_name(self.path.name + suffix)) for suffix in ("", "-wal"))


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
        log = size_of(path.with_name(path.name + "-wal"))
        index = path.with_name(path.name + "-shm").exists()
        self.settled = not log and not index
        # Without a log the file is all there is, and SQLite would make an empty one.  With one its index, which a
        # killed gateway leaves behind, is built again in memory rather than in its file; where that can't be done,
        # because nobody has marked yet how far readers are, the mark in the index is all that is written.
        ways = ("immutable=1",) if self.settled else ("mode=ro&readonly_shm=1", "mode=ro") if index else ()
        with translated(path):
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
            raise JournalNewer(f"journal {path}: is of format {found}, this version reads {FORMAT}")


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
