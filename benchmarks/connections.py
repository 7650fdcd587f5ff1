"""What connections cost that do nothing, and how long twenty thousand wait that come at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from statistics import median
from typing import Final, NamedTuple

from benchmarks.crowd import Arrival
from benchmarks.endtoend import Side, serving, sides
from benchmarks.processes import (
    CHECKOUT,
    OTHER_CORE,
    cpu_seconds,
    pin,
    raise_descriptors,
    resident_bytes,
)
from benchmarks.tables import Settings, Table, machine, progress, redis_note, verdict, yardstick_note

#: What ten thousand idle connections may cost, in MB beyond a server without connections.
IDLE_BAR_MB: Final = 60.0
#: A server without connections has had so many, for what is imported and allocated with the first ones.
FIRST: Final = 10
#: Memory is read so long after the last reply.
SETTLE_S: Final = 2.0

#: How many come at once in a storm, where as many files may be open, and so many more.
STORM: Final = 20_000
SPARE: Final = 100
#: Within how many seconds all of them are to be answered, and by how much the server may grow for each.
STORM_BAR_S: Final = 15.0
STORM_BAR_KB: Final = 6.0

KB: Final = 1e3
MB: Final = 1e6


class Crowd:
    """The process that holds the connections."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def _tell(self, line: str) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the crowd ended at {line!r}")
        found: dict[str, float] = json.loads(answer)
        return found

    def connect(self, count: int) -> Arrival:
        """Open connections until there are so many."""
        return Arrival(**self._tell(f"connect {count}"))  # type: ignore[arg-type]  # its counts are whole

    def cut(self) -> None:
        """Reset them all."""
        self._tell("cut")


class Stage(NamedTuple):
    """A server with a Redis of its own and the crowd before its door."""

    server: int
    redis: int
    crowd: Crowd
    stored: Callable[[], int]


@contextmanager
def stage(side: Side, fsync: str) -> Iterator[Stage]:
    """Set it up, and take it down."""
    raise_descriptors()
    with serving(side, fsync) as (port, pid, redis, client):
        argv = [sys.executable, "-m", "benchmarks.crowd", "--port", str(port)]
        with subprocess.Popen(argv, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                pin(process.pid, OTHER_CORE)
                yield Stage(pid, redis, Crowd(process), lambda: int(client.xlen(side.stream)))
            finally:
                process.kill()


class Idle(NamedTuple):
    """
    Connections that do nothing.

    @ivar step: how many come at a time, and are answered before the next.
    @ivar bar_mb: what they may cost; 0: no bar.
    """

    connections: int
    step: int
    bar_mb: float = 0.0

    @property
    def name(self) -> str:
        come = "come at once" if self.step >= self.connections else f"come {self.step} at a time"
        return f"memory: {self.connections:,} idle connections, {come}"


#: What is measured.  Those that come at once leave behind what the batches took in which they were served.
IDLE: Final = (Idle(1_000, 250), Idle(10_000, 250, IDLE_BAR_MB), Idle(10_000, 10_000, IDLE_BAR_MB))


def idle(side: Side, what: Idle, fsync: str, settle: float) -> tuple[int, int]:
    """Resident bytes without connections, and with those that were answered once each."""
    with stage(side, fsync) as (server, _, crowd, _):
        crowd.connect(FIRST)
        crowd.cut()
        time.sleep(settle)
        without = resident_bytes(server)
        for count in range(what.step, what.connections + 1, what.step):
            arrival = crowd.connect(count)
            if arrival.answered != arrival.begun:
                raise RuntimeError(f"{side.name}: {arrival.answered} of {arrival.begun} connections were answered")
        time.sleep(settle)
        return without, resident_bytes(server)


def memory_table(settings: Settings, measured: Sequence[Idle] = IDLE, settle: float = SETTLE_S) -> Table:
    """A row for each way to have idle connections."""
    head = ["", "RSS MB without:", "ours", "reference", "with:", "ours", "reference", "cost MB:", "ours", "reference"]
    head += ["bar", "bytes a connection:", "ours", "reference"]
    both = sides(settings)
    rows, missed = [], []
    for what in measured:
        runs: dict[Side, list[tuple[int, int]]] = {side: [] for side in both}
        for number in range(settings.rounds):
            for side, done in runs.items():
                done.append(run := idle(side, what, settings.fsync, settle))
                progress(f"{what.name}, round {number + 1}: {side.name} {(run[1] - run[0]) / MB:.1f} MB")
        without, connected = ([median(run[at] for run in runs[side]) for side in both] for at in (0, 1))
        costs = [median(run[1] - run[0] for run in runs[side]) for side in both]
        row = [what.name]
        for figures in (without, connected, costs):
            row += ["", *(f"{figure / MB:.1f}" for figure in figures)]
        row += [verdict(costs[0] / MB, what.bar_mb) if what.bar_mb else ""]
        row += ["", *(f"{cost / what.connections:,.0f}" for cost in costs)]
        rows.append(row)
        if what.bar_mb and costs[0] > what.bar_mb * MB:
            missed.append(f"{what.name}: {costs[0] / MB:.1f} MB, bar {what.bar_mb:g}")
    notes = (
        machine(settings),
        f"RSS of all processes of the server, {settle:g} s after each connection sent one report and was answered; "
        f"without connections: after {FIRST} that went again. MB: 10^6 bytes.",
        yardstick_note(settings),
        redis_note(settings),
    )
    return Table(head, rows, notes, missed=missed)


class Storm(NamedTuple):
    """
    One arrival, and CPU microseconds a connection.

    @ivar unstored: answers for which there is no entry on the stream.
    @ivar kb: by how much the server has grown for each since it had no connections.
    """

    connected_s: float
    answered_s: float
    refused: float
    unanswered: float
    unstored: float
    us: float
    redis_us: float
    kb: float


def storm(side: Side, count: int, fsync: str, settle: float) -> tuple[Storm, Storm]:
    """So many come at once as strangers, all are cut, and all come again at once."""
    with stage(side, fsync) as (server, redis, crowd, stored):
        found = []
        crowd.connect(FIRST)
        crowd.cut()
        time.sleep(settle)
        without = resident_bytes(server)
        for _ in range(2):
            before, redis_before, stored_before = cpu_seconds(server), cpu_seconds(redis), stored()
            crowd.cut()
            arrival = crowd.connect(count)
            us, redis_us = cpu_seconds(server) - before, cpu_seconds(redis) - redis_before
            time.sleep(settle)
            one = Storm(
                arrival.connected_s,
                arrival.answered_s,
                refused=arrival.refused,
                unanswered=count - arrival.answered - arrival.refused,
                unstored=max(arrival.answered - (stored() - stored_before), 0),
                us=us / count * 1e6,
                redis_us=redis_us / count * 1e6,
                kb=(resident_bytes(server) - without) / count / KB,
            )
            found.append(one)
        return found[0], found[1]


def middle(storms: Sequence[Storm]) -> Storm:
    """The median of each figure; of what must be nothing, all of it."""
    columns = dict(zip(Storm._fields, zip(*storms, strict=True), strict=True))
    nothing = {"refused", "unanswered", "unstored"}
    return Storm(**{name: sum(column) if name in nothing else median(column) for name, column in columns.items()})


def storm_table(settings: Settings, wanted: int = STORM, settle: float = SETTLE_S) -> Table:
    """A row for strangers, one for those that come again."""
    limit = raise_descriptors(wanted + SPARE)
    count = min(wanted, limit - SPARE)
    both = sides(settings)
    runs: dict[Side, list[tuple[Storm, Storm]]] = {side: [] for side in both}
    for number in range(settings.rounds):
        for side, done in runs.items():
            done.append(one := storm(side, count, settings.fsync, settle))
            progress(
                f"storm round {number + 1}: {side.name} {one[0].answered_s:.2f} s, again {one[1].answered_s:.2f} s"
            )
    head = ["", "connected s:", "ours", "reference", "answered s:", "ours", "reference", "bar"]
    head += ["refused:", "ours", "reference", "KB each:", "ours", "reference", "bar"]
    head += ["us CPU:", "ours", "reference", "Redis us:", "ours", "reference"]
    rows, wrong, missed = [], [], []
    for which, name in enumerate((f"storm: {count:,} strangers at once", f"storm: {count:,} cut, all back at once")):
        ours, reference = (middle([one[which] for one in runs[side]]) for side in both)
        met = inf if ours.refused or ours.unanswered else ours.answered_s
        row = [name, "", f"{ours.connected_s:.3f}", f"{reference.connected_s:.3f}"]
        row += ["", f"{ours.answered_s:.3f}", f"{reference.answered_s:.3f}", verdict(met, STORM_BAR_S)]
        row += ["", f"{ours.refused:.0f}", f"{reference.refused:.0f}"]
        row += ["", f"{ours.kb:.1f}", f"{reference.kb:.1f}", verdict(ours.kb, STORM_BAR_KB)]
        row += ["", f"{ours.us:.0f}", f"{reference.us:.0f}", "", f"{ours.redis_us:.0f}", f"{reference.redis_us:.0f}"]
        rows.append(row)
        if met > STORM_BAR_S:
            missed.append(f"{name}: answered in {ours.answered_s:.1f} s, {ours.refused:.0f} refused")
        if ours.kb > STORM_BAR_KB:
            missed.append(f"{name}: {ours.kb:.1f} KB each, bar {STORM_BAR_KB:g}")
        wrong += [
            f"{name}, {side.name}: {one.unanswered:.0f} not answered, {one.unstored:.0f} answered, not stored"
            for side, one in zip(both, (ours, reference), strict=True)
            if one.unanswered or one.unstored
        ]
    notes = (
        machine(settings),
        "Seconds from the first connect() until the last connection stood, and until the last report was answered. CPU "
        "in microseconds a connection. refused: connections refused or reset, of all rounds; the bar wants none.",
        f"KB each: RSS of all processes of the server {settle:g} s after that, beyond what it had without connections.",
        f"The limit of open files is {limit:,}"
        + (f": {count:,} connections instead of {wanted:,}." if count < wanted else "."),
        yardstick_note(settings),
        redis_note(settings),
    )
    return Table(head, rows, notes, wrong, missed)
