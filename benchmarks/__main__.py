"""Run the benchmarks and print one table."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from benchmarks import alone, endtoend, processes

HEAD: Final = (
    *("", "us CPU:", "ours", "reference", "ratio", "Redis us:", "ours", "reference"),
    *("rate/s:", "ours", "reference", "p50/p99 ms:", "ours", "reference"),
)
ALONE: Final = {
    "decode": "decode a V1 report",
    "detection": "detect a fresh stream",
}
END_TO_END: Final = {
    "A": "A: TCP, 200 connections, 1 report at a time",
    "B": "B: TCP, 50 connections, 32 outstanding",
    "D": "D: UDP, 100 sockets, 1 report at a time",
}


def progress(text: str) -> None:
    """Say on stderr what is going on: a run takes seconds, all of them a minute or two."""
    print(text, file=sys.stderr, flush=True)


def alone_row(name: str, rounds: int) -> list[str]:
    """Decode or detection."""
    progress(name)
    got = alone.measure(name, rounds)
    row = [ALONE[name], "", f"{got.us:.2f}", f"{got.reference_us:.2f}", f"{got.us / got.reference_us:.1f}"]
    return row + [""] * (len(HEAD) - len(row))


def end_to_end_row(name: str, rounds: int, seconds: float, fsync: str) -> tuple[list[str], list[str]]:
    """A work: the row, and what is wrong with it."""
    work = endtoend.WORKS[name]
    runs: dict[endtoend.Side, list[endtoend.Run]] = {endtoend.GATEWAY: [], endtoend.YARDSTICK: []}
    for number in range(rounds):
        for side, done in runs.items():
            done.append(one := endtoend.run(side, work, seconds, fsync))
            progress(f"{name} round {number + 1}: {side.name} {one.us:.1f} us, Redis {one.redis_us:.1f} us")
    ours, reference = (endtoend.middle(done) for done in runs.values())
    row = [END_TO_END[name], "", f"{ours.us:.1f}", f"{reference.us:.1f}", f"{ours.us / reference.us:.2f}"]
    row += ["", f"{ours.redis_us:.1f}", f"{reference.redis_us:.1f}"]
    row += ["", f"{ours.rate:,.0f}", f"{reference.rate:,.0f}"]
    row += ["", *(f"{one.p50_ms:.1f}/{one.p99_ms:.1f}" for one in (ours, reference))]
    wrong = [
        f"WRONG: {name}, {side.name}: {one.unanswered:.0f} not answered, {one.unstored:.0f} answered, not stored"
        for side, one in zip(runs, (ours, reference), strict=True)
        if one.unanswered or one.unstored
    ]
    return row, wrong


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned plain text: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    lines = []
    for row in (HEAD, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def caption(rounds: int, seconds: float, fsync: str, redis: str) -> str:
    """Under which circumstances."""
    pinned = "server on one, Redis and generator on the other" if processes.cores() > 1 else "nothing pinned"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.machine()}, "
        f"{processes.cores()} cores ({pinned}). Medians of {rounds} rounds, {seconds:g} s each, interleaved.\n"
        f"Reference: split at the commas (decode, detection); asyncio + uvloop + redis-py (A, B, D).\n"
        f"{redis}, appendonly {'no' if fsync == 'off' else f'yes, appendfsync {fsync}'}, a new empty one for each run, "
        "the same for both sides."
    )


def main() -> None:
    """Parse, measure, print."""
    names = [*ALONE, *END_TO_END]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which rows, of {' '.join(names)}; all without")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of load in each run (4)")
    parser.add_argument("--fsync", choices=("everysec", "always", "no", "off"), default="everysec")
    options = parser.parse_args()
    chosen = options.rows or names
    if unknown := set(chosen) - set(names):
        parser.error(f"no such row: {' '.join(sorted(unknown))} (there are: {' '.join(names)})")
    rows, wrong = [], []
    for name in names:
        if name in chosen and name in ALONE:
            rows.append(alone_row(name, options.rounds))
        elif name in chosen:
            row, problems = end_to_end_row(name, options.rounds, options.seconds, options.fsync)
            rows.append(row)
            wrong += problems
    redis = endtoend.redis_version(options.fsync)
    print("\n".join((table(rows), "", caption(options.rounds, options.seconds, options.fsync, redis), *wrong)))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
