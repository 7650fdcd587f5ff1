"""
What a journal's file holds: batches, what of them is under way, what Redis refused for good; and how it lies in SQLite.

A row holds a batch as the publisher gathered it, not the bytes of a command:
it can be sent under another prefix, to other shards, or by another process.
Beside the rows stands which of them are under way, and under which producer's
number, so that a crash in between leaves no doubt.
"""

from __future__ import annotations

import sqlite3
import struct
from binascii import crc32
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.errors import JournalDamaged, JournalFull
from gateway.tickets import Batch

#: The name of a gateway's journal in its data directory; and of all that may lie there.
NAME: Final = "journal.sqlite"
PATTERN: Final = "journal*.sqlite"
#: Those that were set aside.
DAMAGED: Final = "damaged-*.sqlite"

#: The layout of the tables, as C{PRAGMA user_version}.
FORMAT: Final = 1
#: How long one who reads the file may keep others from writing.
BUSY_S: Final = 5.0

#: Result codes of SQLite that mean that the file can't be trusted; the others mean 'not now'.
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})

TABLES: Final = """
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

COLUMNS: Final = "number, time, instance, frames, limited, dropped, body, checksum"


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


def parsed(values: Sequence[Any]) -> Row | None:
    """A row as it was read; None when its checksum does not hold."""
    number, when, instance, frames, limited, dropped, body, checksum = values
    if crc32(body) != checksum:
        return None
    return Row(number, when, instance, frames, limited, dropped, unpack(body))


class translated:
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
