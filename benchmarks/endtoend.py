"""End to end: a fleet, a server, a Redis; what a message costs each of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from redis import Redis

from benchmarks import outside
from benchmarks.processes import (
    CHECKOUT,
    OTHER_CORE,
    SERVER_CORE,
    START_S,
    cpu_seconds,
    free_port,
    gateway_argv,
    pin,
    redis_argv,
    running,
    wait_for,
    yardstick_argv,
)
from benchmarks.tables import Settings, Table, load_note, machine, progress, redis_note, verdict, yardstick_note


class Work(NamedTuple):
    """
    What the fleet does.

    @ivar window: reports that each connection keeps outstanding.
    @ivar rate: reports a second of all connections together, whether the ones before were answered or not; 0: as
        the window allows.
    @ivar bar: the ratio that is to be met: to the yardstick's CPU, or at a C{rate} to its latency (p99).
    @ivar each: whether the generator tells of each report.
    """

    name: str
    connections: int
    window: int = 1
    udp: bool = False
    rate: int = 0
    bar: float = inf
    each: bool = False


class Side(NamedTuple):
    """
    A server under test.

    @ivar stream: on which its reports must be found.
    @ivar ledgers: how the keys begin at which it counts duplicates; empty: it has none.
    @ivar workers: of how many a heartbeat is waited for before there is any load.
    @ivar checkout: where its code is.
    """

    name: str
    argv: Callable[[int, int, Path], list[str]]
    stream: str
    ledgers: str = ""
    workers: int = 0
    checkout: Path = CHECKOUT


def gateway(name: str = "gateway", checkout: Path = CHECKOUT, workers: int = 1) -> Side:
    """The gateway of a checkout."""
    argv = partial(gateway_argv, workers=workers, checkout=checkout)
    return Side(name, argv, "gateway:position", "gateway:ledger:", workers, checkout)


class Run(NamedTuple):
    """
    What one run came to; CPU in microseconds a message.

    @ivar unanswered: reports that were not answered.
    @ivar unstored: answers for which there is no entry on the stream.
    """

    us: float
    redis_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    unanswered: float
    unstored: float
    generator_us: float


WORKS: Final = {
    "A": Work("A: TCP, 200 connections, 1 report at a time", 200, bar=0.70),
    "B": Work("B: TCP, 50 connections, 32 outstanding", 50, window=32, bar=0.40),
    "C": Work("C: TCP, 200 connections, 2,000 reports/s", 200, rate=2000, bar=1.5),
    "D": Work("D: UDP, 100 sockets, 1 report at a time", 100, udp=True, bar=0.50),
}


def sides(settings: Settings) -> tuple[Side, Side]:
    """The gateway, and the yardstick with its kind of entry."""
    yardstick = partial(yardstick_argv, entry=settings.entry)
    return gateway(workers=settings.workers), Side("yardstick", yardstick, "yardstick:position")


#: What a generator may take beside its load: to connect, to be answered once, to wait for the last replies.
GENERATOR_S: Final = 30.0


def outside_load(binary: Path, work: Work, port: int, seconds: float) -> Any:
    """The result of a load generator from elsewhere."""
    argv = ["-p", str(port), "-c", str(work.connections), "-t", str(seconds), "-j", *(["-u"] * work.udp)]
    argv += ["-r", str(work.rate)] if work.rate else ["-w", str(work.window)]
    return outside.run(binary, argv, seconds + GENERATOR_S)


@contextmanager
def fleet(work: Work, port: int, seconds: float) -> Iterator[Callable[[], Any]]:
    """A generator whose connections stand; what it gives runs the load and returns the result."""
    argv = [sys.executable, "-m", "benchmarks.generator", "--wait", "--port", str(port), "--seconds", str(seconds)]
    argv += ["--connections", str(work.connections), "--window", str(work.window), "--rate", str(work.rate)]
    argv += ["--udp"] * work.udp + ["--each"] * work.each
    process = subprocess.Popen(argv, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        pin(process.pid, OTHER_CORE)
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the generator did not get ready")

        def load() -> Any:
            out, _ = process.communicate("go\n", timeout=seconds + GENERATOR_S)
            return json.loads(out)

        yield load
    finally:
        process.kill()
        process.wait()


class Stand(NamedTuple):
    """
    A server whose fleet has been answered once; C{load} runs the work and gives the generator's result.

    @ivar stored: how many reports are stored: entries, and the duplicates that a ledger counts.
    """

    server: int
    redis: int
    stored: Callable[[], int]
    load: Callable[[], Any]


@contextmanager
def standing(side: Side, work: Work, settings: Settings) -> Iterator[Stand]:
    """
    Set up a server and a Redis of its own, empty.

    Connections, detection and the first reports are behind them, unless the load is made from elsewhere.
    """
    with serving(side, settings.fsync) as (port, pid, redis, client):

        def stored() -> int:
            ledgers = client.scan_iter(f"{side.ledgers}*") if side.ledgers else ()
            return int(client.xlen(side.stream)) + sum(int(client.hget(key, "duplicate") or 0) for key in ledgers)

        if settings.load is not None:
            yield Stand(pid, redis, stored, partial(outside_load, settings.load, work, port, settings.seconds))
        else:
            with fleet(work, port, settings.seconds) as load:
                yield Stand(pid, redis, stored, load)


@contextmanager
def serving(side: Side, fsync: str) -> Iterator[tuple[int, int, int, Redis]]:
    """A server, and a Redis of its own, empty: the one's port and process, the other's process and a client."""
    with TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        redis_port, port = free_port(), free_port()
        with (
            running(redis_argv(redis_port, folder, fsync), redis_port, OTHER_CORE, folder / "redis.log") as redis,
            running(
                side.argv(port, redis_port, folder), port, SERVER_CORE, folder / "server.log", side.checkout
            ) as pid,
            Redis(port=redis_port) as client,
        ):
            # before each of them listens the others get all connections
            wait_for(
                f"{side.name} to be ready", lambda: len(client.keys("gateway:instance:*")) >= side.workers, START_S
            )
            yield port, pid, redis, client


def run(side: Side, work: Work, settings: Settings) -> Run:
    """One run."""
    with standing(side, work, settings) as (pid, redis, stored, load):
        before, redis_before, stored_before = cpu_seconds(pid), cpu_seconds(redis), stored()
        result = load()
        us, redis_us = cpu_seconds(pid) - before, cpu_seconds(redis) - redis_before
        answered = max(result["acknowledged"], 1)
        return Run(
            us=us / answered * 1e6,
            redis_us=redis_us / answered * 1e6,
            rate=result["rate"],
            p50_ms=result["p50_ms"],
            p99_ms=result["p99_ms"],
            unanswered=result["sent"] - result["acknowledged"],
            unstored=max(result["acknowledged"] - (stored() - stored_before), 0),
            generator_us=result["generator_us"],
        )


def middle(runs: Sequence[Run]) -> Run:
    """The median of each figure; of what must be nothing, all of it."""
    medians = Run(*(median(column) for column in zip(*runs, strict=True)))
    return medians._replace(unanswered=sum(one.unanswered for one in runs), unstored=sum(one.unstored for one in runs))


def measure(names: Sequence[str], settings: Settings) -> tuple[dict[str, tuple[Run, Run]], list[str]]:
    """The medians of each work, ours and the reference's, and what is wrong with them."""
    found: dict[str, tuple[Run, Run]] = {}
    wrong: list[str] = []
    for name in names:
        runs: dict[Side, list[Run]] = {side: [] for side in sides(settings)}
        for number in range(settings.rounds):
            for side, done in runs.items():
                done.append(one := run(side, WORKS[name], settings))
                progress(f"{name} round {number + 1}: {side.name} {one.us:.1f} us, Redis {one.redis_us:.1f} us")
        ours, reference = (middle(done) for done in runs.values())
        found[name] = ours, reference
        wrong += [
            f"{name}, {side.name}: {one.unanswered:.0f} not answered, {one.unstored:.0f} answered, not stored"
            for side, one in zip(runs, found[name], strict=True)
            if one.unanswered or one.unstored
        ]
    return found, wrong


def closed_table(names: Sequence[str], settings: Settings) -> Table:
    """A, B and D: what a message costs at full load."""
    found, wrong = measure(names, settings)
    head = ["", "us CPU:", "ours", "reference", "ratio", "bar", "Redis us:", "ours", "reference"]
    head += ["rate/s:", "ours", "reference", "p50/p99 ms:", "ours", "reference", "generator us:", "ours", "reference"]
    rows, missed = [], []
    for name, (ours, reference) in found.items():
        work, ratio = WORKS[name], ours.us / reference.us
        row = [work.name, "", f"{ours.us:.1f}", f"{reference.us:.1f}", f"{ratio:.2f}", verdict(ratio, work.bar)]
        row += ["", f"{ours.redis_us:.1f}", f"{reference.redis_us:.1f}"]
        row += ["", f"{ours.rate:,.0f}", f"{reference.rate:,.0f}"]
        row += ["", *(f"{one.p50_ms:.1f}/{one.p99_ms:.1f}" for one in (ours, reference))]
        row += ["", *(f"{one.generator_us:.1f}" for one in (ours, reference))]
        rows.append(row)
        if ratio > work.bar:
            missed.append(f"{name}: {ratio:.2f} of the yardstick's CPU, bar {work.bar}")
    return Table(head, rows, _notes(settings), wrong, missed)


def open_table(settings: Settings) -> Table:
    """C: what a report waits for at a steady rate."""
    found, wrong = measure(["C"], settings)
    work, (ours, reference) = WORKS["C"], found["C"]
    ratio = ours.p99_ms / reference.p99_ms
    head = ["", "p50 ms:", "ours", "reference", "p99 ms:", "ours", "reference", "ratio", "bar"]
    head += ["us CPU:", "ours", "reference", "Redis us:", "ours", "reference"]
    row = [work.name, "", f"{ours.p50_ms:.2f}", f"{reference.p50_ms:.2f}"]
    row += ["", f"{ours.p99_ms:.2f}", f"{reference.p99_ms:.2f}", f"{ratio:.2f}", verdict(ratio, work.bar)]
    row += ["", f"{ours.us:.1f}", f"{reference.us:.1f}", "", f"{ours.redis_us:.1f}", f"{reference.redis_us:.1f}"]
    note = "Reports leave at their time, whatever became of those before; latency counts from that time."
    missed = [f"C: p99 {ratio:.2f} of the yardstick's, bar {work.bar}"] if ratio > work.bar else []
    return Table(head, [row], (*_notes(settings), note), wrong, missed)


def _notes(settings: Settings) -> tuple[str, ...]:
    return (
        machine(settings),
        f"{settings.seconds:g} s of load a run. CPU, in microseconds a message: all processes of the server; Redis and "
        "generator beside it." + (f" The gateway has {settings.workers} workers." if settings.workers > 1 else ""),
        *load_note(settings),
        yardstick_note(settings),
        redis_note(settings),
    )
