"""
What a message costs a gateway, beside what it costs another one: the same work, the same minutes.

The other one is of another checkout, a worktree of an earlier commit say, or
has another number of workers.  Each gateway runs in its own checkout with that
first on its path, and is asked beforehand where it finds its code: an installed
package must not stand in for it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.endtoend import WORKS, Run, Side, gateway, middle, run
from benchmarks.processes import CHECKOUT, within
from benchmarks.tables import Settings, Table, load_note, machine, progress, redis_note, verdict

#: What is measured, and how much more it may cost than before.
NAMES: Final = ("A", "B", "D")
BAR: Final = 1.15
#: The same of a gateway with so many workers, beside one without.
WORKERS_NAMES: Final = ("A", "D")
WORKERS_BAR: Final = 1.1
WORKERS: Final = 2

_WHERE: Final = "import gateway.tap; print(gateway.tap.__file__)"


def side(name: str, checkout: Path) -> Side:
    """
    The gateway of a checkout.

    @raise SystemExit: when there is none, or it would run the code of another one.
    """
    where, environment = within(checkout)
    done = subprocess.run([sys.executable, "-c", _WHERE], cwd=where, env=environment, capture_output=True, text=True)
    expected = checkout / "gateway" / "tap.py"
    if done.returncode or Path(done.stdout.strip()) != expected:
        raise SystemExit(f"{checkout}: no gateway runs from there: {done.stdout or done.stderr[-500:]}")
    return gateway(name, checkout)


def table(settings: Settings, names: Sequence[str] = NAMES) -> Table:
    """A, B and D in this checkout and in another one."""
    before = settings.before
    assert before is not None
    now = "now: this checkout, " + _commit(CHECKOUT) + "; before: " + _commit(before)
    return compared("cost", names, (side("now", CHECKOUT), side("before", before.resolve())), BAR, now, settings)


def workers_table(settings: Settings, names: Sequence[str] = WORKERS_NAMES) -> Table:
    """A and D with workers and with one process."""
    count = settings.workers if settings.workers > 1 else WORKERS
    both = gateway(f"{count} workers", workers=count), gateway("one")
    what = f"{count} workers: and their parent, all on one core; one: one process"
    return compared("workers", names, both, WORKERS_BAR, what, settings)


def compared(
    title: str, names: Sequence[str], sides: tuple[Side, Side], bar: float, what: str, settings: Settings
) -> Table:
    """
    A row a work: what a message costs one gateway, and another.

    @param bar: how much more it may cost the one.
    @param what: what they are.
    """
    one, other = (each.name for each in sides)
    head = ["", "us CPU:", one, other, "ratio", "bar", "of rounds:", "median", "least", "most"]
    head += ["Redis us:", one, other, "rate/s:", one, other, "p50/p99 ms:", one, other]
    rows, wrong, missed = [], [], []
    for name in names:
        runs: dict[Side, list[Run]] = {each: [] for each in sides}
        for number in range(settings.rounds):
            # each begins every other round, so that what comes first has no share in the difference
            for each in sides if number % 2 == 0 else sides[::-1]:
                runs[each].append(found := run(each, WORKS[name], settings))
                progress(f"{title} {name} {number + 1}: {each.name} {found.us:.1f} us, Redis {found.redis_us:.1f} us")
        ours, theirs = (middle(done) for done in runs.values())
        ratio = ours.us / theirs.us
        ratios = [a.us / b.us for a, b in zip(*runs.values(), strict=True)]
        row = [f"{title} {WORKS[name].name}", "", f"{ours.us:.1f}", f"{theirs.us:.1f}", f"{ratio:.2f}"]
        row += [verdict(ratio, bar), "", *(f"{of(ratios):.2f}" for of in (median, min, max))]
        row += ["", f"{ours.redis_us:.1f}", f"{theirs.redis_us:.1f}", "", f"{ours.rate:,.0f}", f"{theirs.rate:,.0f}"]
        rows.append([*row, "", *(f"{figures.p50_ms:.1f}/{figures.p99_ms:.1f}" for figures in (ours, theirs))])
        if ratio > bar:
            missed.append(f"{title} {name}: {ratio:.2f} of what it is for the other, bar {bar}")
        wrong += [
            f"{name}, {each.name}: {figures.unanswered:.0f} not answered, {figures.unstored:.0f} answered, not stored"
            for each, figures in zip(sides, (ours, theirs), strict=True)
            if figures.unanswered or figures.unstored
        ]
    notes = (
        machine(settings),
        f"{settings.seconds:g} s of load a run. CPU of all processes of the gateway, in microseconds a message. {what}."
        " of rounds: the ratio of a round's two runs.",
        *load_note(settings),
        redis_note(settings),
    )
    return Table(head, rows, notes, wrong, missed)


def _commit(checkout: Path) -> str:
    """Which commit a checkout is at."""
    done = subprocess.run(["git", "-C", str(checkout), "log", "-1", "--format=%h"], capture_output=True, text=True)
    return done.stdout.strip() or "of no known commit"
