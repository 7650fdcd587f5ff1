"""
What a message costs in this checkout, beside what it costs in another one: the same work, the same minutes.

The other one is a worktree of an earlier commit, say.  Each gateway runs in its
own checkout with that first on its path, and is asked beforehand where it
finds its code: an installed package must not stand in for it.
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
    """A row a work."""
    before = settings.before
    assert before is not None
    sides = side("now", CHECKOUT), side("before", before.resolve())
    head = ["", "us CPU:", "now", "before", "ratio", "bar", "of rounds:", "median", "least", "most"]
    head += ["Redis us:", "now", "before", "rate/s:", "now", "before", "p50/p99 ms:", "now", "before"]
    rows, wrong, missed = [], [], []
    for name in names:
        runs: dict[Side, list[Run]] = {one: [] for one in sides}
        for number in range(settings.rounds):
            # each begins every other round, so that what comes first has no share in the difference
            for one in sides if number % 2 == 0 else sides[::-1]:
                runs[one].append(found := run(one, WORKS[name], settings))
                progress(f"cost {name} round {number + 1}: {one.name} {found.us:.1f} us, Redis {found.redis_us:.1f} us")
        now, then = (middle(done) for done in runs.values())
        ratio = now.us / then.us
        each = [a.us / b.us for a, b in zip(*runs.values(), strict=True)]
        row = [f"cost {WORKS[name].name}", "", f"{now.us:.1f}", f"{then.us:.1f}", f"{ratio:.2f}", verdict(ratio, BAR)]
        row += [
            "",
            f"{median(each):.2f}",
            f"{min(each):.2f}",
            f"{max(each):.2f}",
            "",
            f"{now.redis_us:.1f}",
            f"{then.redis_us:.1f}",
        ]
        row += ["", f"{now.rate:,.0f}", f"{then.rate:,.0f}"]
        rows.append([*row, "", *(f"{one.p50_ms:.1f}/{one.p99_ms:.1f}" for one in (now, then))])
        if ratio > BAR:
            missed.append(f"cost {name}: {ratio:.2f} of what it was, bar {BAR}")
        wrong += [
            f"{name}, {one.name}: {figures.unanswered:.0f} not answered, {figures.unstored:.0f} answered, not stored"
            for one, figures in zip(sides, (now, then), strict=True)
            if figures.unanswered or figures.unstored
        ]
    notes = (
        machine(settings),
        f"{settings.seconds:g} s of load a run. CPU of all processes of the gateway, in microseconds a message. now: "
        f"this checkout, {_commit(CHECKOUT)}; before: {_commit(before)}. of rounds: the ratio of a round's two runs.",
        *load_note(settings),
        redis_note(settings),
    )
    return Table(head, rows, notes, wrong, missed)


def _commit(checkout: Path) -> str:
    """Which commit a checkout is at."""
    done = subprocess.run(["git", "-C", str(checkout), "log", "-1", "--format=%h"], capture_output=True, text=True)
    return done.stdout.strip() or "of no known commit"
