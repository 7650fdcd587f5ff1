"""
Redis goes and comes back: what a device waits for meanwhile, and how fast the journal is given to Redis then.

The fleet reports at a steady rate all the while.  Beside it a thread writes
and syncs a file on the file system of the journal, now and then: what a disk
takes for that is what no acknowledgement can be faster than.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any, Final, NamedTuple

from redis import Redis

from benchmarks.appending import entries
from benchmarks.endtoend import Work, fleet
from benchmarks.generator import percentile
from benchmarks.processes import (
    OTHER_CORE,
    SERVER_CORE,
    cpu_seconds,
    free_port,
    gateway_argv,
    redis_argv,
    running,
    wait_for,
    waited_seconds,
)
from benchmarks.tables import Settings, Table, at_least, machine, progress, redis_note, verdict

WORK: Final = Work("journal: TCP, 300 connections, 2,000 reports/s", 300, rate=2000, each=True)

#: Redis is away for so many times the seconds of load of the other benchmarks.
AWAY: Final = 5
#: The load goes on after that for so long, and for this share of the time that Redis was away.
BACK_S: Final = 3.0
BACK_SHARE: Final = 0.35
#: What the gateway may take to notice that Redis has gone, and to empty the journal.
NOTICE_S: Final = 10.0
EMPTY_S: Final = 120.0

#: What an acknowledgement may take at the 99th percentile: so long, or so many syncs, whichever is more.
BAR_MS: Final = 100.0
BAR_SYNCS: Final = 10
#: The journal is to be given to Redis so many times faster than reports come.
BAR_DRAIN: Final = 10

PROBE_BYTES: Final = 4096
PROBE_S: Final = 0.05

AWAY_LINE: Final = "what comes goes to the journal"
BACK_LINE: Final = re.compile(
    r"batches go to Redis; \d+ with (\d+) frames came out of the journal in ([\d.]+) s",
)


class Outage(NamedTuple):
    """
    One run; latencies in milliseconds, from when a report was due.

    @ivar drained: frames that came out of the journal, those among them that came in while it was emptied.
    @ivar drain_s: seconds from when Redis was ready until batches went there directly.
    @ivar redis_us: microseconds of CPU that Redis took for each of them, its start included.
    @ivar redis_waits_s: seconds for which Redis was to run meanwhile and something else had its core.
    """

    p50: float
    p99: float
    sync_p50: float
    sync_p99: float
    drained: float
    drain_s: float
    back_p50: float
    back_p99: float
    redis_us: float
    redis_waits_s: float

    @property
    def rate(self) -> float:
        return self.drained / max(self.drain_s, 0.01)


@contextmanager
def syncs(folder: Path) -> Iterator[list[float]]:
    """Milliseconds of each write of 4 KB with its fdatasync, some twenty a second."""
    found: list[float] = []
    stop = Event()

    def probe() -> None:
        fd = os.open(folder / "probe", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            while not stop.wait(PROBE_S):
                begun = time.perf_counter()
                os.write(fd, bytes(PROBE_BYTES))
                os.fdatasync(fd)
                found.append((time.perf_counter() - begun) * 1e3)
        finally:
            os.close(fd)

    thread = Thread(target=probe)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def run(work: Work, away: float, fsync: str) -> tuple[Outage, list[str]]:
    """One run, and what is wrong with it."""
    seconds = away * (1 + BACK_SHARE) + BACK_S
    with TemporaryDirectory(prefix="benchmark-") as name, ExitStack() as stack:
        folder = Path(name)
        redis_port, port = free_port(), free_port()
        log = folder / "server.log"
        redis = (redis_argv(redis_port, folder, fsync), redis_port, OTHER_CORE, folder / "redis.log")
        with ExitStack() as first:
            first.enter_context(running(*redis))
            stack.enter_context(running(gateway_argv(port, redis_port, folder), port, SERVER_CORE, log))
            load = stack.enter_context(fleet(work, port, seconds))
        wait_for("the gateway to miss Redis", lambda: AWAY_LINE in log.read_text(), NOTICE_S)
        turns = len(BACK_LINE.findall(log.read_text()))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        with syncs(folder) as probed:
            loading = pool.submit(load)
            time.sleep(away)
            begun = time.perf_counter()
        server = stack.enter_context(running(*redis))
        wait_for("the journal to be empty", lambda: len(BACK_LINE.findall(log.read_text())) > turns, EMPTY_S)
        redis_s, redis_waits_s, outlasted = cpu_seconds(server), waited_seconds(server), not loading.done()
        result: dict[str, Any] = loading.result()
        # the last answers came with the last batch: nothing is on its way any more
        frames, drain_s = BACK_LINE.findall(log.read_text())[-1]
        with Redis(port=redis_port) as client:
            ids = [values[1] for _, values in entries(client)]
    meanwhile = [sorted(ms for due, ms in result["each"] if (due < begun) is before) for before in (True, False)]
    waits = [percentile([ms / 1e3 for ms in one], share) for one in meanwhile for share in (0.5, 0.99)]
    probed.sort()
    sync = [percentile([ms / 1e3 for ms in probed], share) for share in (0.5, 0.99)]
    wrong = []
    if unanswered := result["sent"] - result["acknowledged"]:
        wrong.append(f"{unanswered} not answered")
    # no two reports of the fleet are the same, so that all of them are there once when there are as many ids
    sent = result["sent"] + work.connections
    if not len(ids) == len(set(ids)) == sent:
        wrong.append(f"{sent} sent, {len(ids)} on the stream, {len(set(ids))} of them different")
    if not outlasted:
        wrong.append("the load ended before the journal was empty")
    us = redis_s / max(int(frames), 1) * 1e6
    back = (float(frames), float(drain_s), waits[2], waits[3], us, redis_waits_s)
    return Outage(waits[0], waits[1], sync[0], sync[1], *back), wrong


def table(settings: Settings, work: Work = WORK) -> Table:
    """One row."""
    away = AWAY * settings.seconds
    runs: list[Outage] = []
    wrong: list[str] = []
    for number in range(settings.rounds):
        one, faults = run(work, away, settings.fsync)
        runs.append(one)
        wrong += [f"round {number + 1}: {fault}" for fault in faults]
        progress(
            f"journal round {number + 1}: p50 {one.p50:.1f} ms, p99 {one.p99:.1f} ms, fsync p99 {one.sync_p99:.1f} ms, "
            f"{one.drained:,.0f} frames drained at {one.rate:,.0f}/s, Redis {one.redis_us:.1f} us, "
            f"waits {one.redis_waits_s:.2f} of {one.drain_s:.2f} s, meanwhile p99 {one.back_p99:.0f} ms"
        )
    found = Outage(*map(median, zip(*runs, strict=True)))
    rate = median(one.rate for one in runs)
    bar, drain_bar = max(BAR_MS, BAR_SYNCS * found.sync_p99), float(BAR_DRAIN * work.rate)
    head = ["", "away ms:", "p50", "p99", "fsync p50", "fsync p99", "bar"]
    head += ["back:", "frames", "seconds", "frames/s", "bar", "Redis us", "waits s", "back ms:", "p50", "p99"]
    row = [work.name, "", f"{found.p50:.1f}", f"{found.p99:.1f}", f"{found.sync_p50:.2f}", f"{found.sync_p99:.2f}"]
    row += [verdict(found.p99, round(bar, 1))]
    row += ["", f"{found.drained:,.0f}", f"{found.drain_s:.2f}", f"{rate:,.0f}", at_least(rate, drain_bar)]
    row += [f"{found.redis_us:.1f}", f"{found.redis_waits_s:.2f}"]
    row += ["", f"{found.back_p50:.1f}", f"{found.back_p99:.1f}"]
    return Table(head, [row], _notes(settings, away), wrong, _missed(found.p99, bar, rate, drain_bar))


def _missed(p99: float, bar: float, rate: float, drain_bar: float) -> Sequence[str]:
    missed = [f"journal: p99 of {p99:.1f} ms, bar {bar:.1f}"] if p99 > bar else []
    return [*missed, *([f"journal: drained at {rate:,.0f}/s, bar {drain_bar:,.0f}"] if rate < drain_bar else [])]


def _notes(settings: Settings, away: float) -> tuple[str, ...]:
    return (
        machine(settings).removesuffix(", interleaved.") + ".",
        f"away: Redis is stopped for {away:g} s; reports leave at their time, and latency counts from then. fsync: a "
        f"thread writes {PROBE_BYTES // 1024} KB and calls fdatasync every {PROBE_S * 1e3:g} ms beside it, on the same "
        "file system.",
        f"The bar of p99: {BAR_MS:g} ms, or {BAR_SYNCS} times the fsync p99, whichever is more.",
        "back: Redis is started again while reports keep coming. Frames that came out of the journal, from when Redis "
        "was ready until batches went there directly, as the gateway's log says; and CPU of Redis, in microseconds a "
        "frame. waits: for so long of that something else had the core that Redis was to run on.",
        "Every report is on the stream once at the end.",
        redis_note(settings).replace("; a new empty one for each run, the same for both sides", ""),
    )
