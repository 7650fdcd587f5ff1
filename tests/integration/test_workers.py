"""A gateway with several workers: they share the load, and whatever ends, nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.integration.faults import checks, fleets
from tests.integration.faults.checks import Snapshot
from tests.integration.fleet import Client, Datagrams, Fleet, event_id, v1, v1_series
from tests.integration.parts import (
    CHECKOUT,
    CLOSING,
    SOON,
    Gateway,
    RealPartsTestCase,
    RedisServer,
    alive,
    batches,
    connect,
    entries,
    journaled,
    journals,
    loopback_hosts,
    wait_for,
)

_INSTANCE: Final = "shared"
_CONFIG: Final = f'[gateway]\ninstance = "{_INSTANCE}"\n[redis]\ndeadline = 1\n'

_DEVICES: Final = 40
_DATAGRAM_DEVICES: Final = 20

#: How long everything reports before and after what happens.
_LOAD_S: Final = 1.0

#: How many make a new connection all the time.
_NEWCOMERS: Final = 4


class Newcomers:
    """
    Devices that connect, report once, and are gone when they have their answer, one after the other.

    @ivar tries: how many needed one try, two, and so on.
    @ivar refused: connections that were, and C{reset} those that were broken before the answer came.
    @ivar silent: idents that got no answer at all.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"newcomers {number}", daemon=True)
            for number in range(_NEWCOMERS)
        ]
        self.ids: list[str] = []
        self.tries: Counter[int] = Counter()
        self.refused: list[str] = []
        self.reset: list[str] = []
        self.silent: list[str] = []
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Let those who are at it come to their end, and nobody after them."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * SOON)

    def _run(self, number: int) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            ident = f"918{number}{count:06}"
            frame = v1(ident, time.time() - 60)
            for tries in range(1, 5):
                if self._answered(ident, frame):
                    self.tries[tries] += 1
                    self.ids.append(event_id(ident, frame))
                    break
            else:
                self.silent.append(ident)

    def _answered(self, ident: str, frame: bytes) -> bool:
        try:
            with Client(self._port) as client:
                client.send(frame)
                client.socket.settimeout(SOON)
                return b"#" in client.socket.recv(1000)
        except ConnectionRefusedError:
            self.refused.append(ident)
        except ConnectionError:
            self.reset.append(ident)
        except TimeoutError:
            self.silent.append(ident)
        return False


class WorkersCase(RealPartsTestCase):
    """A gateway with workers, and devices that report to it over TCP and UDP."""

    redis: RedisServer
    running: Gateway
    tcp: Fleet
    udp: fleets.Fleet

    def begin(self, workers: int = 2) -> None:
        """Start Redis and the gateway."""
        self.redis = self.running_redis()
        self.running = self.running_gateway(self.redis.url, config=_CONFIG, workers=workers)

    def load(self) -> None:
        """Start the devices; after a while all of them were served."""
        self.tcp = Fleet(self.running.port, _DEVICES, pace=0.05)
        self.addCleanup(self.tcp.stop)
        self.tcp.start()
        self.udp = fleets.Fleet(self.directory, self.running.port, "udp", _DATAGRAM_DEVICES, 1)
        self.addCleanup(self.udp.child.kill)
        self.served()
        time.sleep(_LOAD_S)

    def served(self) -> None:
        """Wait until each device has got an answer to something that it sent only now."""
        self.udp.mark(time.time())
        self.tcp.wait_until_all_are_served()

        wait_for("the devices over UDP to be served", self._udp_served, detail=self.running.tail)

    def _udp_served(self) -> bool:
        self.udp.follow()
        return self.udp.served

    def go_on_and_finish(self, more: Collection[str] = ()) -> None:
        """All are served again, report for a while, and come to their end: all acknowledged is there, and only once."""
        self.served()
        time.sleep(_LOAD_S)
        self.tcp.finish()
        self.udp.stop()
        summary = self.udp.finished()
        self.assertEqual((0, 0), (summary["status"], summary["lost"]), f"{summary}\n{self.running.tail()}")
        self.assertTrue(self.running.running, self.running.tail())
        wait_for("the journals to be drained", lambda: journaled(self.running.data_dir) == 0, detail=self.running.tail)
        self.kept(more)

    def kept(self, more: Collection[str] = (), client: Any = None) -> None:
        """Hold the streams and the ledger against what was acknowledged."""
        ids = {report.id for report in self.tcp.answered} | self.udp.ids | {*more}
        self.assertGreater(len(ids), 5 * _DEVICES, "too little load to say anything")
        client = client or self.redis.client
        wait_for("all of it", lambda: not Snapshot.take(client).lost(ids), detail=self.running.tail)
        self.assertEqual([], checks.problems(Snapshot.take(client), ids), self.running.tail())
        self.assertEqual([], self.tcp.strange)

    def command(self, *words: str, status: int = 0) -> str:
        """Run C{gateway}; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", *words, "--data-dir", str(self.running.data_dir)],
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
            timeout=120,
        )
        self.assertEqual(status, done.returncode, done.stdout + done.stderr + self.running.tail())
        return done.stdout + done.stderr

    def all_gone(self) -> None:
        """No process of the gateway is left."""
        self.assertEqual([], self.running.holders(), self.running.tail())


class SharedTests(WorkersCase):
    """Two workers do what one process would."""

    def test_shared(self) -> None:
        """Both take connections and datagrams; to whoever reads the streams, the ledger and the status they are one."""
        self.begin()
        self.load()
        self.go_on_and_finish()
        sources = Counter(entry["source"] for entry in entries(self.redis.client))
        self.assertEqual({f"gateway/{_INSTANCE}"}, set(sources))
        worked = [f"{_INSTANCE}/{number}" for number in (1, 2)]
        for name in worked:
            (producer,) = self.redis.client.scan_iter(f"gateway:ledger:{name}-*")
            self.assertGreater(int(self.redis.client.hget(producer, "published")), _DEVICES, name)

        def all_said() -> bool:
            said = [json.loads(self.redis.client.get(f"gateway:instance:{name}") or "{}") for name in worked]
            return bool(sum(one.get("counters", {}).get("received", 0) for one in said) == sources.total())

        wait_for("both to say what they received", all_said, detail=self.running.tail)
        (whole,) = map(json.loads, self.command("status", "--json", "--redis", self.redis.url).splitlines())
        self.assertEqual((_INSTANCE, 2, True), (whole["instance"], whole["workers"], whole["ready"]))
        self.assertEqual(sources.total(), whole["counters"]["received"])
        text = self.command("status", "--redis", self.redis.url)
        for line in (f"{_INSTANCE} on ", "worker 1, ", "worker 2, ", "together "):
            self.assertIn(line, text)
        account = self.command("audit", "--redis", self.redis.url)  # its status says whether it balances
        for name in worked:
            self.assertIn(f"instance {name}, ready", account)

    def test_descriptors(self) -> None:
        """A worker has its own sockets and no others; who ended leaves nothing open in its parent."""
        self.begin()
        parent, others = _sockets(self.running.pid), [_sockets(pid) for pid in self.running.open_workers().values()]
        self.assertEqual(set(), others[0] & others[1])
        for own in others:
            self.assertEqual(2 * len(loopback_hosts()), len(own & parent))
        for pid in self.running.open_workers().values():
            self.assertEqual([], _passed_on(pid))
        before = _descriptors(self.running.pid)
        for _ in range(2):
            self._kill_one()
            self.assertEqual("done", self.running.replace_workers())
        wait_for("nothing to be left open", lambda: _descriptors(self.running.pid) == before, detail=self.running.tail)

    def test_nobody_to_tell_it(self) -> None:
        """A worker that is started by hand, and told nothing, ends."""
        command = [sys.executable, "-m", "gateway.workers.worker"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SOON, cwd=CHECKOUT)
        self.assertEqual((0, b"", b""), (done.returncode, done.stdout, done.stderr))

    def test_hangs_and_is_alone(self) -> None:
        """One that hangs when its parent is gone ends all the same."""
        code = (
            "import time; from unittest.mock import Mock; from threading import Thread; "
            "from gateway.workers import worker; worker.ALONE_S = 0.1; "
            "Thread(target=worker._listen, args=(Mock(),), daemon=True).start(); time.sleep(60)"
        )
        done = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, timeout=SOON, cwd=CHECKOUT)
        self.assertEqual(1, done.returncode)

    def _kill_one(self) -> None:
        before = self.running.open_workers()
        os.kill(before[1], signal.SIGKILL)
        wait_for(
            "another one",
            lambda: self.running.open_workers().get(1, before[1]) != before[1],
            detail=self.running.tail,
        )

    def test_worker_stands_still(self) -> None:
        """While one does not move the other serves its devices; those of the first are answered when it goes on."""
        self.begin()
        os.kill(self.running.open_workers()[1], signal.SIGSTOP)
        with contextlib.ExitStack() as stack:
            waiting = []
            for number in range(24):
                client = stack.enter_context(Client(self.running.port))
                client.send(v1_series(f"91800{number:05}", 1)[0])
                waiting.append(client)
            answered = wait_for("some to be answered", lambda: [c for c in waiting if c.answers(1, 0.05)])
            waiting = [client for client in waiting if client not in answered]
            waiting = [client for client in waiting if not client.answers(1, 0.05)]
            self.assertGreater(len(waiting), 0)
            self.running.signal(signal.SIGCONT)
            for client in waiting:
                self.assertEqual(1, len(client.answers(1)), self.running.tail())
        # who stood still for longer than Redis may owe an answer may have put them into its journal first
        wait_for("all of them", lambda: len(entries(self.redis.client)) >= 24, detail=self.running.tail)
        self.assertEqual(24, len({entry["id"] for entry in entries(self.redis.client)}))
        self.assertEqual(24, len(entries(self.redis.client)))


def _sockets(pid: int) -> set[str]:
    return {name for name in _descriptors(pid) if name.startswith("socket:")}


def _passed_on(pid: int) -> list[str]:
    """What a process has open, beside its standard ones, that whatever it starts would get."""
    found = []
    for fd in Path(f"/proc/{pid}/fdinfo").iterdir():
        flags = next(line for line in fd.read_text().splitlines() if line.startswith("flags:"))
        if int(fd.name) > 2 and not int(flags.split()[1], 8) & os.O_CLOEXEC:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd.name}"))
    return found


def _descriptors(pid: int) -> Counter[str]:
    """What a process has open; pipes, which come and go with workers, by their number."""
    found: Counter[str] = Counter()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            name = os.readlink(fd)
            found["pipe" if name.startswith("pipe:") else name] += 1
    return found


class KilledTests(WorkersCase):
    """Something is killed under load."""

    def test_worker(self) -> None:
        """A worker is killed with -9: another one takes its place, nothing is lost and nothing is doubled."""
        self.begin()
        self.load()
        before = self.running.open_workers()
        os.kill(before[2], signal.SIGKILL)
        after = wait_for("another one", lambda: self._without(before[2]), detail=self.running.tail)
        self.assertEqual(before[1], after[1])
        self.go_on_and_finish()
        self.assertIn("worker 2 ended after", self.running.output())

    def _without(self, pid: int) -> dict[int, int]:
        now = self.running.open_workers()
        return now if len(now) == 2 and pid not in now.values() else {}

    def test_parent(self) -> None:
        """The parent is killed with -9: its workers store what they have and end; a gateway waits for that."""
        self.begin()
        self.load()
        before = self.running.workers_there()
        self.running.kill_parent()
        self.running.start()
        self.assertEqual([], [pid for pid in before if alive(pid)])
        self.go_on_and_finish()
        self.running.kill_parent()
        wait_for("the workers to be gone", lambda: not self.running.holders(), CLOSING, self.running.tail)

    def test_parent_of_an_embedded_redis(self) -> None:
        """The same where the Redis is the gateway's own, which outlives it until another gateway ends it."""
        self.running = self.running_gateway(config=_CONFIG, workers=2)
        self.load()
        self.running.kill_parent()
        self.running.start()
        self.served()
        self.tcp.finish()
        self.udp.stop()
        self.udp.finished()
        with contextlib.closing(connect(self.running.embedded_url())) as client:
            self.kept(client=client)
        self.assertIn(self.running.terminate(), (0, -signal.SIGTERM), self.running.tail())
        self.all_gone()
        self.assertEqual([], self.running.processes_left())


class EndTests(WorkersCase):
    """The parent is told to end under load."""

    def setUp(self) -> None:
        """Start nothing yet."""
        super().setUp()
        self.redis = self.running_redis()

    def _ended(self, status: int, *allowed: int) -> None:
        self.assertIn(status, (0, *allowed), self.running.tail())
        self.all_gone()
        self.tcp.stop()
        self.udp.child.kill()
        self.udp.follow()
        self.kept()
        self.assertEqual(0, journaled(self.running.data_dir))
        self.assertEqual(1, self.running.output().count("ended: "), self.running.tail())

    def test_sigterm(self) -> None:
        """SIGTERM: all processes are gone within 10 s, and what was acknowledged is there."""
        self.running = self.running_gateway(self.redis.url, workers=2)
        self.load()
        self._ended(self.running.terminate(), -signal.SIGTERM)

    def test_ctrl_c(self) -> None:
        """Ctrl-C in a terminal, which all of its processes get: the same."""
        self.running = self.gateway(self.redis.url, workers=2)
        keyboard = self.terminal(self.running)
        self.load()
        os.write(keyboard, b"\x03")
        self._ended(self.running.wait(CLOSING), -signal.SIGINT, 128 + signal.SIGINT)

    def test_sigterm_while_they_are_replaced(self) -> None:
        """SIGTERM when one waits for its turn: the same, and nobody says that anything failed."""
        self.running = self.running_gateway(self.redis.url, workers=2)
        self.load()
        self.running.signal(signal.SIGUSR2)
        wait_for("a third one", lambda: len(self.running.workers_there()) > 2)
        self._ended(self.running.terminate(), -signal.SIGTERM)
        self.assertIn("#info] not all workers were replaced: the gateway ends", self.running.output())


class ReplacedTests(WorkersCase):
    """The workers are replaced one by one, under load, while new devices connect all the time."""

    @contextmanager
    def _newcomers(self) -> Iterator[Newcomers]:
        """Who come meanwhile; none is refused, and each is answered, at its second connection at the latest."""
        before = self.running.open_workers()
        newcomers = Newcomers(self.running.port)
        self.addCleanup(newcomers.finish)
        yield newcomers
        newcomers.finish()
        after = self.running.open_workers()
        self.assertEqual(before.keys(), after.keys())
        self.assertEqual(set(), {*before.values()} & {*after.values()}, "nobody stayed")
        self.assertEqual([], [pid for pid in before.values() if alive(pid)])
        about = f"by tries: {newcomers.tries}; reset: {newcomers.reset}"
        print(about, file=sys.stderr)
        self.assertEqual(([], []), (newcomers.refused, newcomers.silent), about)
        # a connection that was open when its worker was told to end is closed; each of them had one at most
        self.assertLessEqual(sum(newcomers.tries.values()) - newcomers.tries[1], 2 * _NEWCOMERS, about)
        self.assertGreater(newcomers.tries[1], 10 * _NEWCOMERS, about)

    def test_by_a_signal(self) -> None:
        """SIGUSR2: both are replaced, no connection is refused, nothing is lost, and nothing is doubled."""
        self.begin()
        self.load()
        with self._newcomers() as newcomers:
            self.assertEqual("done", self.running.replace_workers(), self.running.tail())
            time.sleep(_LOAD_S)
        self.go_on_and_finish(newcomers.ids)
        self.assertEqual(2, self.running.output().count(" is replaced: "))

    def test_by_the_command(self) -> None:
        """C{gateway restart}: the same, and it says who is new."""
        self.begin()
        self.load()
        with self._newcomers() as newcomers:
            said = self.command("restart")
            time.sleep(_LOAD_S)
        self.go_on_and_finish(newcomers.ids)
        found = {int(number): int(pid) for number, pid in re.findall(r"worker (\d) is now pid (\d+)", said)}
        self.assertEqual(self.running.open_workers(), found)

    def test_after_a_mistake(self) -> None:
        """With a configuration that became wrong the old ones stay, and C{gateway restart} says what is wrong."""
        self.begin()
        file = self.directory / "gateway.toml"
        before = self.running.open_workers()
        for wrong, expected in (
            (f"{_CONFIG}deadlien = 2\n", "unknown key 'deadlien'"),
            (_CONFIG.replace(_INSTANCE, "another"), "instance is 'another' now and was 'shared'"),
        ):
            file.write_text(wrong)
            self.assertIn(expected, self.command("restart", status=1))
            self.assertEqual(before, self.running.open_workers())
            wait_for("the one that failed to be gone", lambda: len(self.running.workers_there()) == 2)
        file.write_text(_CONFIG)
        self.command("restart")
        self.assertEqual(set(), {*before.values()} & {*self.running.open_workers().values()})
        with Client(self.running.port) as client:
            client.send(v1_series("9180000001", 1)[0])
            self.assertEqual(1, len(client.answers(1)))

    def test_nobody_there(self) -> None:
        """Where no gateway with workers runs C{gateway restart} says so."""
        self.begin()
        self.assertIn(self.running.terminate(), (0, -signal.SIGTERM))
        self.assertIn("no gateway with workers runs in", self.command("restart", status=1))


class NumberTests(WorkersCase):
    """The number of workers changes while journals hold what Redis has not."""

    def test_fewer_and_more(self) -> None:
        """Three, one, two: what the journals of those who are not there any more held is published, once."""
        self.begin(workers=3)
        directory = self.running.data_dir
        self.redis.kill()
        ids = []
        for number in range(100):
            if number >= 10 and len(journals(directory)) == 3 and all(map(batches, journals(directory))):
                break
            ids += self._report(f"91800{number:05}")
        held = journaled(directory)
        self.running.kill()

        self.running.workers = 1
        self.running.start()
        self.assertEqual(["journal.sqlite"], [path.name for path in journals(directory)])
        self.assertEqual(held, batches(directory / "journal.sqlite"))
        ids += self._report("9181000001")
        self.assertIn(self.running.terminate(), (0, -signal.SIGTERM), self.running.tail())

        self.running.workers = 2
        self.running.start()
        self.assertEqual(["journal-1.sqlite", "journal-2.sqlite"], [path.name for path in journals(directory)])
        ids += self._report("9181000002")
        self.redis.start()
        wait_for("the journals to be drained", lambda: journaled(directory) == 0, detail=self.running.tail)
        self.assertEqual(Counter(ids), Counter(entry["id"] for entry in entries(self.redis.client)))

    def _report(self, ident: str) -> list[str]:
        """One report over TCP and one over UDP; their ids."""
        frames = v1_series(ident, 2)
        with Client(self.running.port) as client:
            client.send(frames[0])
            self.assertEqual(1, len(client.answers(1)), self.running.tail())
        with Datagrams(self.running.port) as datagrams:
            datagrams.send(frames[1])
            self.assertEqual(1, len(datagrams.answers(1)), self.running.tail())
        return [event_id(ident, frame) for frame in frames]
