"""What every benchmark is told, and how its table is printed: aligned figures, and under them what they mean."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks import processes


class Settings(NamedTuple):
    """
    How to measure.

    @ivar rounds: medians are of so many; the sides take turns.
    @ivar seconds: of load in each run.
    @ivar fsync: appendfsync of Redis, C{off}: no append-only file.
    @ivar entry: of the yardstick, see there.
    @ivar before: the other checkout of C{cost}.
    @ivar workers: of the gateway; 1: one process.
    @ivar load: the program that makes the load of A, B, C and D in place of the project's own generator.
    """

    rounds: int
    seconds: float
    fsync: str
    entry: str
    before: Path | None = None
    load: Path | None = None
    workers: int = 1


class Table(NamedTuple):
    """
    Figures as text.

    @ivar notes: the lines under it.
    @ivar wrong: results that make the figures worthless.
    @ivar missed: bars that were not met.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    wrong: Sequence[str] = ()
    missed: Sequence[str] = ()


def render(table: Table) -> str:
    """Aligned plain text: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
    lines = []
    for row in (table.head, *table.rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join((*lines, "", *table.notes, *(f"WRONG: {text}" for text in table.wrong)))


def verdict(value: float, bar: float) -> str:
    """A bar, which is met at its limit, and whether it was."""
    return f"{bar:g} {'MET' if value <= bar else 'missed'}"


def at_least(value: float, bar: float) -> str:
    """The same of a bar that is met from its limit on."""
    return f"{bar:,g} {'MET' if value >= bar else 'missed'}"


def progress(text: str) -> None:
    """Say on stderr what is going on: a run takes seconds, all of them many minutes."""
    print(text, file=sys.stderr, flush=True)


def machine(settings: Settings) -> str:
    """Date, Python, machine, and how the processes share it."""
    pinned = "server on one, Redis and generator on the other" if processes.cores() > 1 else "nothing pinned"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.machine()}, "
        f"{processes.cores()} cores ({pinned}). Medians of {settings.rounds} rounds, interleaved."
    )


def redis_note(settings: Settings) -> str:
    """Which Redis, and how it writes."""
    kept = "no" if settings.fsync == "off" else f"yes, appendfsync {settings.fsync}"
    return f"{processes.redis_version()}, appendonly {kept}; a new empty one for each run, the same for both sides."


def load_note(settings: Settings) -> tuple[str, ...]:
    """Who makes the load, where it is somebody else: connecting, detection and first reports are measured as well."""
    if settings.load is None:
        return ()
    return (f"Load: {settings.load.name}, compiled with gcc -O2; connecting and the first reports are in the figures.",)


def yardstick_note(settings: Settings) -> str:
    """What the reference is, and what its entries are."""
    entries = {
        "contract": "its entries have the 27 fields that the gateway's have",
        "lean": "its entries have 8 fields where the gateway's have 27",
    }
    return (
        f"Reference: the yardstick, asyncio + uvloop + redis-py; {entries[settings.entry]} (--entry {settings.entry})."
    )
