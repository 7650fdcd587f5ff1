"""What can be read of a journal's file that is damaged."""

from __future__ import annotations

import sqlite3
from binascii import crc32
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gateway.sinks.journalrows import BUSY_S, COLUMNS

#: Beyond this many numbers after the last that could be read nothing is looked for.
FAR: Final = 100_000


def salvage(path: Path, done: int, into: sqlite3.Connection) -> int:
    """
    Copy what can be read of a damaged file: rows after C{done}, what was under way, and what was in quarantine.

    From both ends up to the damage, then each number in between by itself: looking one up touches only the pages that
    it needs.

    @return: how many rows.
    """

    def save(row: Sequence[Any]) -> None:
        if isinstance(row[6], bytes) and crc32(row[6]) == row[7]:
            into.execute(f"INSERT OR IGNORE INTO batch ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    select = f"SELECT {COLUMNS} FROM batch WHERE number"
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
        for row in file.read("SELECT seq FROM sqlite_sequence WHERE name = 'batch'"):
            into.execute("DELETE FROM sqlite_sequence WHERE name = 'batch'")
            into.execute("INSERT INTO sqlite_sequence VALUES ('batch', ?)", row)
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
