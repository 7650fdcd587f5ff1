"""Run benchmarks and print their tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import alone, appending, connections, cost, endtoend, outage, outside, yardstick
from benchmarks.tables import Settings, Table, render

#: The rows of each table, in the order in which they are run, and what makes it.
TABLES: Final[dict[tuple[str, ...], Callable[[Sequence[str], Settings], Table]]] = {
    ("decode", "events", "detection"): alone.table,
    ("A", "B", "D"): endtoend.closed_table,
    ("C",): lambda _, settings: endtoend.open_table(settings),
    ("journal",): lambda _, settings: outage.table(settings),
    ("cost",): lambda _, settings: cost.table(settings),
    ("workers",): lambda _, settings: cost.workers_table(settings),
    ("redis",): lambda _, settings: appending.table(settings),
    ("memory",): lambda _, settings: connections.memory_table(settings),
    ("storm",): lambda _, settings: connections.storm_table(settings),
}
NAMES: Final = tuple(name for names in TABLES for name in names)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all: every one (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are taken (5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of load in each run of A, B, C and D (4)")
    parser.add_argument("--fsync", choices=("everysec", "always", "no", "off"), default="everysec")
    parser.add_argument("--entry", choices=tuple(yardstick.ENTRIES), default="contract", help="of the yardstick")
    parser.add_argument("--before", type=Path, help="another checkout, beside which cost is measured (else it is not)")
    parser.add_argument("--workers", type=int, default=1, help="of the gateway (1)")
    parser.add_argument("--load", type=Path, metavar="FILE.c", help="a load generator in place of the project's own")
    parser.add_argument("--bars", action="store_true", help="exit with status 1 also when a bar is missed")
    options = parser.parse_args()
    chosen = set(options.names) - {"all"}
    if unknown := chosen - set(NAMES):
        parser.error(f"no such benchmark: {' '.join(sorted(unknown))} (there are: {' '.join(NAMES)}, all)")
    if "cost" in chosen and options.before is None:
        parser.error("cost wants another checkout: --before DIRECTORY")
    if "all" in options.names or not options.names:
        chosen = set(NAMES) - ({"cost"} if options.before is None else set())
    with TemporaryDirectory(prefix="benchmark-") as folder:
        load = outside.compiled(options.load, Path(folder)) if options.load is not None else None
        settings = Settings(
            options.rounds, options.seconds, options.fsync, options.entry, options.before, load, options.workers
        )
        failed = False
        for names, make in TABLES.items():
            if mine := [name for name in names if name in chosen]:
                table = make(mine, settings)
                print(render(table), end="\n\n", flush=True)
                failed = failed or bool(table.wrong) or (options.bars and bool(table.missed))
    sys.exit(failed)


if __name__ == "__main__":
    main()
