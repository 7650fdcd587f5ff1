"""Redis under Sentinel: the master dies or moves, and what was acknowledged is on the new one, once."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

from tests.integration import parts as real_parts
from tests.integration.fleet import Client, Fleet, event_id, v1_series
from tests.integration.parts import (
    SOON,
    Child,
    Gateway,
    RealPartsTestCase,
    accepts,
    entries,
    free_port,
    journaled,
    wait_for,
)
from tests.integration.sentinels import FAILOVER, NAME, Sentinels

_DEVICES = 30
_LOAD_SECONDS = 2.0


class SentinelTestCase(RealPartsTestCase):
    """Servers and sentinels of the test's own."""

    def running_sentinels(self, *, replicas: int = 1, sentinels: int = 1, **passwords: str) -> Sentinels:
        """All of them answer."""
        made = Sentinels(
            self.directory / "sentinels", self.binary(), replicas=replicas, sentinels=sentinels, **passwords
        )
        self.addCleanup(made.close)
        made.start()
        return made

    def counters(self, gateway: Gateway) -> dict[str, int]:
        """What the gateway counted, as it says when it ends."""
        gateway.terminate()
        line = gateway.output().rpartition("ended: ")[2].splitlines()[0]
        return {name: int(n) for name, _, n in (word.partition("=") for word in line.split())}


class FailoverTests(SentinelTestCase):
    """A fleet reports while the master changes."""

    parts: Sentinels
    running: Gateway
    fleet: Fleet

    def _begin(self, sentinels: int = 1, replicas: int = 1) -> None:
        self.parts = self.running_sentinels(sentinels=sentinels, replicas=replicas)
        self.running = self.running_gateway(self.parts.url)
        self.fleet = Fleet(self.running.port, _DEVICES, pace=0.02)
        self.addCleanup(self.fleet.stop)
        self.fleet.start()
        self.fleet.wait_until_all_are_served()
        time.sleep(_LOAD_SECONDS)

    def _go_on_and_finish(self) -> None:
        self.fleet.wait_until_all_are_served(FAILOVER)
        time.sleep(_LOAD_SECONDS)
        self.fleet.finish()
        self.assertTrue(self.running.running, self.running.tail())

    def _assert_kept(self) -> None:
        self._wait_until_drained()
        published = Counter(entry["id"] for entry in entries(self.parts.master))
        acknowledged = {report.id for report in self.fleet.answered}
        self.assertGreater(len(acknowledged), 10 * _DEVICES, "too little load to say anything")
        self._assert_none("acknowledged, but not on the stream", acknowledged - published.keys())
        self._assert_none("on the stream more than once", (i for i, times in published.items() if times > 1))
        self._assert_none("answers to nothing", self.fleet.strange)

    def _wait_until_drained(self) -> None:
        data_dir = self.running.data_dir
        wait_for("the journal to be drained", lambda: journaled(data_dir) == 0, FAILOVER, self.running.tail)

    def _assert_none(self, what: str, found: Iterable[object]) -> None:
        all_of_them = [*found]
        if all_of_them:
            self.fail(f"{len(all_of_them)} {what}: {all_of_them[:5]}\n{self.running.tail()}")

    def test_master_killed(self) -> None:
        """The master is killed with -9: all that was acknowledged is on the replica that took over, once."""
        self._begin(sentinels=3)
        dead = self.parts.kill_master()
        self._go_on_and_finish()
        self.assertIsNot(self.parts.master_server, dead)
        self._assert_kept()

    def test_master_killed_with_writes_of_its_own(self) -> None:
        """The replica lacks the newest second when the master dies: the gateway finds out, and sends it again."""
        self._begin()
        (replica,) = self.parts.replica_servers
        replica.client.replicaof("127.0.0.1", free_port())
        time.sleep(1.0)
        self.parts.kill_master()
        self._go_on_and_finish()
        self._assert_kept()
        counts = self.counters(self.running)
        self.assertGreater(counts.get("resent", 0), 0, counts)
        self.assertNotIn("producer_restarts", counts)

    def test_orderly_failover(self) -> None:
        """The old master lives on and takes writes for a while: they are on the new one as well."""
        self._begin(sentinels=3)
        self.parts.failover()
        self._go_on_and_finish()
        self._assert_kept()
        self.assertNotIn("producer_restarts", self.counters(self.running))

    def test_there_and_back(self) -> None:
        """The master is killed, comes back as a replica, and the next failover makes it master again."""
        self._begin()
        first = self.parts.kill_master()
        self.fleet.wait_until_all_are_served(FAILOVER)
        self._wait_until_drained()
        self.parts.restart_dead()
        self.parts.kill_master()
        self._go_on_and_finish()
        self.assertIs(self.parts.master_server, first)
        self._assert_kept()

    def test_master_hangs(self) -> None:
        """A master that does not move is replaced; when it moves again it is a replica, and nothing came to it."""
        self._begin()
        hung = self.parts.master_server
        hung.signal(signal.SIGSTOP)
        wait_for("another master", lambda: self.parts.sentinels[0].named() != hung.port, FAILOVER)
        self.fleet.wait_until_all_are_served(FAILOVER)
        hung.signal(signal.SIGCONT)
        self._go_on_and_finish()
        self._assert_kept()

    def test_sentinels_die(self) -> None:
        """While all is well nobody needs a sentinel; the ones that are left are asked when one is needed."""
        self._begin(sentinels=3)
        self.parts.sentinels[0].kill()
        self.parts.kill_master()
        self._go_on_and_finish()
        self._assert_kept()
        self.assertIn("batches go to Redis", self.running.tail())
        for sentinel in self.parts.sentinels:
            sentinel.kill()
        ident = "9170099999"
        frame = v1_series(ident, 1)[0]
        with Client(self.running.port) as client:
            client.send(frame)
            self.assertEqual(len(client.answers(1)), 1)


class StartTests(SentinelTestCase):
    """What is there at start."""

    def _assert_one_line(self, url: str, *words: str, name: str = "gateway") -> None:
        gateway = self.gateway(url, name=name)
        gateway.launch()
        self.assertNotEqual(gateway.wait(SOON), 0)
        lines = [line for line in gateway.output().splitlines() if line.strip()]
        self.assertEqual(len(lines), 1, gateway.output())
        for word in words:
            self.assertIn(word, lines[0])

    def test_passwords(self) -> None:
        """Servers and sentinels have passwords of their own; neither is shown."""
        parts = self.running_sentinels(password="open-sesame", sentinel_password="let-me-in")
        running = self.running_gateway(parts.url)
        with Client(running.port) as client:
            frame = v1_series("9170000001", 1)[0]
            client.send(frame)
            self.assertEqual(len(client.answers(1)), 1)
        self.assertEqual([event_id("9170000001", frame)], [entry["id"] for entry in entries(parts.master)])
        self.assertNotIn("open-sesame", running.output())
        self.assertNotIn("let-me-in", running.output())

    def test_refused(self) -> None:
        """A wrong password of the servers or of the sentinels, and a name that nobody knows, stop it with one line."""
        parts = self.running_sentinels(password="open-sesame", sentinel_password="let-me-in")
        wrong = parts.url.replace("open-sesame", "open-barley")
        self._assert_one_line(wrong, "option --redis", "WRONGPASS")
        wrong = parts.url.replace("let-me-in", "let-me-out")
        sentinel = f"sentinel 127.0.0.1:{parts.sentinels[0].port}"
        self._assert_one_line(wrong, "option --redis", sentinel, "WRONGPASS", name="second")
        wrong = parts.url.replace(f"/{NAME}/", "/another/")
        self._assert_one_line(wrong, "option --redis", "knows no master named 'another'", name="third")

    def test_no_sentinel(self) -> None:
        """A server that is no sentinel stops it."""
        server = self.running_redis()
        url = f"redis+sentinel://127.0.0.1:{server.port}/{NAME}"
        self._assert_one_line(url, "option --redis", f"sentinel 127.0.0.1:{server.port}", "unknown command")

    def test_not_there_yet(self) -> None:
        """Sentinels that can't be reached do not stop it: it starts, and goes on when they are there."""
        parts = Sentinels(self.directory / "sentinels", self.binary())
        self.addCleanup(parts.close)
        running = self.running_gateway(parts.url)
        frame = v1_series("9170000001", 1)[0]
        with Client(running.port) as client:
            client.send(frame)
            self.assertEqual(client.answers(1, seconds=0.5), [])
            parts.start()
            self.assertEqual(len(client.answers(1)), 1)
        self.assertEqual(running.output().count("is not ready: "), 1, running.output())

    def test_first_sentinel_knows_nothing(self) -> None:
        """One sentinel is down, and one watches other masters: the third one is enough."""
        parts = self.running_sentinels()
        stranger = Sentinels(self.directory / "strangers", self.binary(), replicas=0)
        self.addCleanup(stranger.close)
        stranger.start()
        other = stranger.sentinels[0]
        other.client.execute_command("SENTINEL", "REMOVE", NAME)
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{other.port},"
        running = self.running_gateway(parts.url.replace("://", f"://{hosts}"))
        with Client(running.port) as client:
            client.send(v1_series("9170000001", 1)[0])
            self.assertEqual(len(client.answers(1)), 1)


class TLSTests(SentinelTestCase):
    """C{rediss+sentinel://}: TLS to the sentinels and to the servers."""

    def _certificate(self) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 that vouches for itself, and its key."""
        openssl = self.need(shutil.which("openssl"), "no openssl")
        certificate, key = self.directory / "certificate", self.directory / "key"
        command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
        files = ["-out", str(certificate), "-keyout", str(key)]
        subprocess.run([openssl, *command.split(), *files], check=True, capture_output=True)
        return certificate, key

    def _start(self, name: str, port: int, certificate: Path, key: Path, *lines: str) -> None:
        directory = self.directory / name
        directory.mkdir()
        path = directory / "server.conf"
        files = [f"tls-cert-file {certificate}", f"tls-key-file {key}", f"tls-ca-cert-file {certificate}"]
        here = ["port 0", f"tls-port {port}", "bind 127.0.0.1", f"dir {directory}", "tls-auth-clients no"]
        path.write_text("\n".join([*here, *files, "tls-replication yes", *lines, ""]))
        sentinel = ["--sentinel"] if name == "sentinel" else []
        child = Child([self.binary(), str(path), *sentinel], directory / "output")
        self.addCleanup(child.kill)
        wait_for(f"the {name}", lambda: accepts("127.0.0.1", port) or child.exited is not None)
        if child.exited is not None:
            self._missing("the Redis server has no TLS")

    def test_tls(self) -> None:
        """Both are verified, and used; a certificate of somebody unknown stops it with one line."""
        certificate, key = self._certificate()
        port, sentinel_port = free_port(), free_port()
        self._start("redis", port, certificate, key, "save ''", "appendonly no")
        self._start("sentinel", sentinel_port, certificate, key, f"sentinel monitor {NAME} 127.0.0.1 {port} 1")
        url = f"rediss+sentinel://127.0.0.1:{sentinel_port}/{NAME}"
        stranger = self.gateway(url, name="stranger")
        stranger.launch()
        self.assertNotEqual(stranger.wait(SOON), 0)
        self.assertIn("its certificate does not hold", stranger.output())
        self.assertEqual(len(stranger.output().splitlines()), 1, stranger.output())
        trusting = {**real_parts._gateway_environment(), "SSL_CERT_FILE": str(certificate)}
        with mock.patch.object(real_parts, "_gateway_environment", return_value=trusting):
            running = self.running_gateway(url)
        (frame,) = v1_series("9170000001", 1)
        with Client(running.port) as client:
            client.send(frame)
            self.assertEqual(len(client.answers(1)), 1)


class TailTests(SentinelTestCase):
    """C{gateway tail} follows the master as well."""

    def test_follows(self) -> None:
        """It shows what is added before and after a failover."""
        parts = self.running_sentinels()
        output = self.directory / "tail"
        command = [str(Path(sys.executable).with_name("gateway")), "tail", "--from-start", "--redis", parts.url]
        with output.open("wb") as out:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        parts.master.xadd("gateway:position", {"type": "status", "ident": "before"})
        wait_for("the first line", lambda: "before" in output.read_text(), detail=output.read_text)
        parts.kill_master()
        parts.master.xadd("gateway:position", {"type": "status", "ident": "after"})
        wait_for("the second line", lambda: "after" in output.read_text(), FAILOVER, detail=output.read_text)

    def test_unknown_master(self) -> None:
        """A name that no sentinel knows ends it with one line."""
        parts = self.running_sentinels()
        url = parts.url.replace(f"/{NAME}/", "/another/")
        command = [str(Path(sys.executable).with_name("gateway")), "tail", "--redis", url]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SOON)
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn("knows no master named 'another'", ended.stderr)
        self.assertEqual(len(ended.stderr.splitlines()), 1, ended.stderr)
