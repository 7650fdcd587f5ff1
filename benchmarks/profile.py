"""
Show where the time of a server goes, by function, while it does the work of a benchmark.

py-spy looks at its Python stack a few hundred times a second.  The time of what
is not Python (the kernel, hiredis, orjson) is the calling function's own.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from benchmarks.endtoend import WORKS, sides, standing
from benchmarks.processes import OTHER_CORE, cpu_seconds, pin
from benchmarks.tables import Settings, Table, render

TOP: Final = 40

#: Where a thread of a pool waits for something to do; py-spy now and then takes it for busy.
WAITING: Final = frozenset({"threading:Condition.wait"})

#: What py-spy may take to end after its time is up.
STOP_S: Final = 30.0

CURE: Final = (
    "py-spy may not look into the server: run this as root, allow it with sysctl kernel.yama.ptrace_scope=0, "
    "or start the container with --cap-add SYS_PTRACE"
)


class Profile(NamedTuple):
    """
    Samples by function.

    @ivar own: those in which it was the innermost Python function.
    @ivar within: those in which it was on the stack.
    """

    total: int
    own: Counter[str]
    within: Counter[str]


def py_spy() -> str:
    """Beside this Python, else on PATH."""
    beside = Path(sys.executable).with_name("py-spy")
    if found := str(beside) if beside.exists() else shutil.which("py-spy"):
        return found
    raise SystemExit("py-spy is not installed: pip install -e '.[bench]'")


def function(frame: str) -> str:
    """C{Class.name (package/module.py:1)} as C{package.module:Class.name}."""
    name, _, where = frame.rpartition(" (")
    path = where.rpartition(":")[0]
    return f"{path.removesuffix('.py').replace('/', '.').removesuffix('.__init__')}:{name}"


def read(lines: Iterable[str]) -> Profile:
    """py-spy's raw format: a stack a line, outermost function first, with its count behind it."""
    total, own, within = 0, Counter[str](), Counter[str]()
    for line in lines:
        stack, _, count = line.rstrip().rpartition(" ")
        functions = [function(frame) for frame in stack.split(";") if not frame.startswith("process ")]
        if not functions or functions[-1] in WAITING:
            continue
        samples = int(count)
        total += samples
        own[functions[-1]] += samples
        for one in set(functions):
            within[one] += samples
    return Profile(total, own, within)


def refusal(said: str) -> str:
    """What to tell of a py-spy that gave up with these words."""
    forbidden = "permission denied" in said.lower() or "not permitted" in said.lower()
    return f"py-spy failed: {said.strip()}" + (f"\n{CURE}" if forbidden else "")


def table(profile: Profile, us: float, top: int, note: str) -> Table:
    """The functions with the most time of their own."""
    rows = []
    for name, samples in profile.own.most_common(top):
        shares = samples / profile.total, profile.within[name] / profile.total
        rows.append([name, *(text for share in shares for text in (f"{share:.1%}", f"{share * us:.2f}"))])
    head = ("function", "own %", "own us", "with calls %", "with calls us")
    return Table(head, rows, (note,))


def main() -> None:
    """Run the work under the profiler and print one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("work", nargs="?", choices=tuple(WORKS), default="A")
    parser.add_argument("--seconds", type=float, default=10.0, help="of load (10)")
    parser.add_argument("--side", choices=("gateway", "yardstick"), default="gateway")
    parser.add_argument("--samples", type=int, default=250, help="a second (250)")
    parser.add_argument("--top", type=int, default=TOP, help=f"functions to show ({TOP})")
    options = parser.parse_args()
    settings = Settings(1, options.seconds, "everysec", "contract")
    side = next(one for one in sides(settings) if one.name == options.side)
    work = WORKS[options.work]
    with (
        TemporaryDirectory(prefix="benchmark-") as folder,
        standing(side, work, settings) as (server, _, _, load),
    ):
        out = Path(folder) / "stacks"
        argv = [py_spy(), "record", "--format", "raw", "--function", "--subprocesses", "--output", str(out)]
        argv += [
            "--rate",
            str(options.samples),
            "--duration",
            str(max(round(options.seconds), 1)),
            "--pid",
            str(server),
        ]
        spy = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            pin(spy.pid, OTHER_CORE)
            before = cpu_seconds(server)
            result = load()
            us = (cpu_seconds(server) - before) / max(result["acknowledged"], 1) * 1e6
            said, _ = spy.communicate(timeout=STOP_S)
        finally:
            spy.kill()
        if spy.returncode or not out.exists():
            raise SystemExit(refusal(said))
        profile = read(out.read_text().splitlines())
    if not profile.total:
        raise SystemExit("no samples: the server did nothing")
    note = (
        f"{side.name}, {work.name}: {profile.total} samples, {us:.1f} us CPU a message while it is looked at. Time in "
        "the kernel and in C counts as the own time of the Python function that calls it."
    )
    print(render(table(profile, us, options.top, note)))


if __name__ == "__main__":
    main()
