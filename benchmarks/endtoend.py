"""End to end: a fleet, a server, a Redis; what a message costs each of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from redis import Redis

from benchmarks.processes import (
    CHECKOUT,
    OTHER_CORE,
    SERVER_CORE,
    cpu_seconds,
    free_port,
    gateway_argv,
    pin,
    redis_argv,
    running,
    yardstick_argv,
)


class Work(NamedTuple):
    """What the fleet does."""

    connections: int
    window: int
    udp: bool = False


class Side(NamedTuple):
    """A server under test, and the stream on which its reports must be found."""

    name: str
    argv: Callable[[int, int, Path], list[str]]
    stream: str


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


WORKS: Final = {"A": Work(200, 1), "B": Work(50, 32), "D": Work(100, 1, udp=True)}
GATEWAY: Final = Side("gateway", gateway_argv, "gateway:position")
YARDSTICK: Final = Side("yardstick", yardstick_argv, "yardstick:position")

#: What a generator may take beside its load: to connect, to be answered once, to wait for the last replies.
GENERATOR_S: Final = 30.0


@contextmanager
def fleet(work: Work, port: int, seconds: float) -> Iterator[Callable[[], Any]]:
    """A generator whose connections stand; what it gives runs the load and returns the result."""
    argv = [sys.executable, "-m", "benchmarks.generator", "--wait", "--port", str(port), "--seconds", str(seconds)]
    argv += ["--connections", str(work.connections), "--window", str(work.window), *(["--udp"] if work.udp else [])]
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


def run(side: Side, work: Work, seconds: float, fsync: str) -> Run:
    """One run with a Redis of its own, empty; connecting, detection and the first report of each are not counted."""
    with TemporaryDirectory(prefix="benchmark-") as name, ExitStack() as stack:
        folder = Path(name)
        redis_port, port = free_port(), free_port()
        redis = stack.enter_context(
            running(redis_argv(redis_port, folder, fsync), redis_port, OTHER_CORE, folder / "redis.log")
        )
        server = stack.enter_context(
            running(side.argv(port, redis_port, folder), port, SERVER_CORE, folder / "server.log")
        )
        load = stack.enter_context(fleet(work, port, seconds))
        before, redis_before = cpu_seconds(server), cpu_seconds(redis)
        result = load()
        us, redis_us = cpu_seconds(server) - before, cpu_seconds(redis) - redis_before
        with Redis(port=redis_port) as client:
            stored = int(client.xlen(side.stream)) - work.connections
        answered = max(result["acknowledged"], 1)
        return Run(
            us=us / answered * 1e6,
            redis_us=redis_us / answered * 1e6,
            rate=result["rate"],
            p50_ms=result["p50_ms"],
            p99_ms=result["p99_ms"],
            unanswered=result["sent"] - result["acknowledged"],
            unstored=max(result["acknowledged"] - stored, 0),
            generator_us=result["generator_us"],
        )


def redis_version(fsync: str) -> str:
    """Which server it is, by its own word."""
    with TemporaryDirectory(prefix="benchmark-") as name:
        folder, port = Path(name), free_port()
        server = running(redis_argv(port, folder, fsync), port, OTHER_CORE, folder / "redis.log")
        with server, Redis(port=port) as client:
            info = client.info("server")
    kind = info.get("server_name", "redis")
    return f"{kind} {info.get(f'{kind}_version', info['redis_version'])}"


def middle(runs: Sequence[Run]) -> Run:
    """The median of each figure; of what must be nothing, all of it."""
    medians = Run(*(median(column) for column in zip(*runs, strict=True)))
    return medians._replace(unanswered=sum(one.unanswered for one in runs), unstored=sum(one.unstored for one in runs))
