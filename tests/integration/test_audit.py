"""C{gateway audit}: what was received is accounted for, under load and after faults; and what is missing is named."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import redis

from gateway.ledger import Beat
from gateway.sinks.journalfile import JournalFile
from gateway.sinks.journalrows import NAME, Row
from tests.integration.faults.wires import Wire
from tests.integration.fleet import Client, Datagrams, Fleet, v1, v1_series
from tests.integration.parts import CHECKOUT, Gateway, RealPartsTestCase, RedisServer, journaled, wait_for

_DEVICES: Final = 30
_IDENT: Final = "9170000001"
_INSTANCE: Final = "audited"
#: Heartbeats that are looked at, at least.
_MANY = 50
_CONFIG: Final = f'[gateway]\ninstance = "{_INSTANCE}"\n[redis]\ndeadline = 1\n'
_LIMIT: Final = 64 * 1024 * 1024

#: A gateway whose heart beats faster, so that many moments are looked at, and that looks for old batches more often.
_QUICK: Final = (
    "import gateway.service, gateway.sinks.delivery; gateway.service.BEAT_S = 0.01; "
    "gateway.sinks.delivery.EXPIRE_S = 1.0; from twisted.scripts.twistd import run; run()"
)


class QuickGateway(Gateway):
    """A gateway with a quick heart."""

    def _command(self) -> list[str]:
        return [sys.executable, "-c", _QUICK, *super()._command()[1:]]


class AuditCase(RealPartsTestCase):
    """A Redis, a gateway, and the command."""

    redis: RedisServer
    running: Gateway

    def begin(self, config: str = "", url: str | None = None) -> None:
        """Start both."""
        self.redis = self.running_redis()
        self.running = self.running_gateway(url or self.redis.url, config=_CONFIG + config)

    def fleet(self) -> Fleet:
        """A fleet that reports."""
        fleet = Fleet(self.running.port, _DEVICES, pace=0.02)
        self.addCleanup(fleet.stop)
        fleet.start()
        return fleet

    def audit(self, *words: str, status: int = 0) -> str:
        """Run it; what it printed."""
        command = [sys.executable, "-m", "gateway.cli", "audit", "--redis", self.redis.url]
        command += ["--data-dir", str(self.running.data_dir), *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, timeout=120)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr + self.running.tail())
        return done.stdout + done.stderr

    def beaten(self, received: int) -> None:
        """Wait until the gateway's heartbeat says that so many frames were received and none is pending."""

        def says() -> bool:
            beat = Beat.read(_INSTANCE, self.redis.client.get(f"gateway:instance:{_INSTANCE}") or b"")
            counters = beat.content.get("counters", {})
            return counters.get("received", 0) == received and not beat.content["pending"]

        wait_for("the heartbeat", says, detail=self.running.tail)

    def drained(self) -> None:
        """Wait until the journal is empty and batches go to Redis."""
        wait_for("the journal to be drained", lambda: journaled(self.running.data_dir) == 0, detail=self.running.tail)

    def report(self, frames: list[bytes]) -> None:
        """Send reports one after the other, each answered."""
        with Client(self.running.port) as device:
            for frame in frames:
                device.send(frame)
                self.assertEqual(len(device.answers(1)), 1, self.running.tail())


class BalanceTests(AuditCase):
    """All balances."""

    def test_under_load(self) -> None:
        """Under load, asked again and again; the table has a line a producer, the sum, the journal and the instance."""
        self.begin()
        fleet = self.fleet()
        fleet.wait_until_all_are_served()
        for _ in range(4):
            text = self.audit()
            time.sleep(2)
        self.assertIn("everything balances", text)
        self.assertRegex(text, rf"(?m)^{_INSTANCE}-[0-9a-f]{{8}} +[\d,]+ +[\d,]+$")
        self.assertRegex(text, r"(?m)^sum ")
        self.assertIn(f"instance {_INSTANCE}, ready", text)
        self.assertIn("0 frames in 0 batches wait; 0 in quarantine", text)
        fleet.finish()
        self.beaten(len(fleet.reports))
        found = json.loads(self.audit("--json"))
        self.assertTrue(found["balanced"])
        self.assertEqual(found["differences"], [])
        self.assertEqual(found["sum"]["received"], len(fleet.reports))
        self.assertEqual(found["instances"][_INSTANCE]["counters"]["received"], len(fleet.reports))

    def test_after_kill(self) -> None:
        """After kill -9 of the gateway the ledgers balance; so do they when the next one goes on."""
        self.begin()
        fleet = self.fleet()
        fleet.wait_until_all_are_served()
        time.sleep(1)
        self.running.kill()
        wait_for("its heartbeat to be gone", lambda: not self.redis.client.exists(f"gateway:instance:{_INSTANCE}"))
        text = self.audit()
        self.assertIn("no gateway is running", text)
        self.assertIn("everything balances", text)
        self.running.start()
        fleet.wait_until_all_are_served()
        fleet.finish()
        self.assertIn(f"instance {_INSTANCE}", self.audit())
        self.assertEqual(len(json.loads(self.audit("--json"))["ledgers"]), 2)

    def test_redis_away(self) -> None:
        """While Redis is away nobody can be asked; of a gateway killed then it says how much waits in its journal."""
        self.begin()
        self.report(v1_series(_IDENT, 3))
        self.redis.kill()
        self.assertIn("can't be asked", self.audit(status=2))
        self.report(v1_series("9170000002", 20))
        self.running.kill()
        self.redis.start()
        wait_for("its heartbeat to be gone", lambda: not self.redis.client.exists(f"gateway:instance:{_INSTANCE}"))
        self.assertIn("20 frames in ", self.audit())
        self.running.start()
        self.drained()
        wait_for("a heartbeat", lambda: self.redis.client.exists(f"gateway:instance:{_INSTANCE}"))
        found = json.loads(self.audit("--json"))
        self.assertEqual((found["sum"]["received"], found["sum"]["published"]), (23, 23))
        self.assertEqual(found["journals"][0]["frames"], 0)

    def test_no_gateway_ever(self) -> None:
        """An empty Redis balances."""
        self.begin()
        self.running.kill()
        self.redis.client.flushall()
        self.assertIn("everything balances", self.audit())


class DifferenceTests(AuditCase):
    """What does not balance is named, and the exit status says so."""

    def test_ledger_changed(self) -> None:
        """A ledger whose outcomes are more than was received is named, with by how many."""
        self.begin()
        self.report(v1_series(_IDENT, 5))
        (key,) = self.redis.client.keys("gateway:ledger:*")
        self.redis.client.hincrby(key, "published", 2)
        name = key.rpartition(":")[2]
        self.assertIn(
            f"DIFFERENCE: ledger {name}: 5 received, but the outcomes are 7: 2 too many", self.audit(status=1)
        )
        found = json.loads(self.audit("--json", status=1))
        self.assertFalse(found["balanced"])

    def test_ledger_changed_on_both_sides(self) -> None:
        """A ledger that adds up, but not to what the gateway stored, is found by the gateway's own count."""
        self.begin()
        self.report(v1_series(_IDENT, 5))
        (key,) = self.redis.client.keys("gateway:ledger:*")
        self.beaten(5)
        for field in ("received", "published"):
            self.redis.client.hincrby(key, field, -1)
        time.sleep(6)
        self.assertIn("the ledger has 4 received: 1 missing", self.audit(status=1))

    def test_ledger_deleted(self) -> None:
        """A ledger that is gone is missed as long as its gateway runs."""
        self.begin()
        self.report(v1_series(_IDENT, 5))
        self.redis.client.delete(*self.redis.client.keys("gateway:ledger:*"))
        self.beaten(5)
        self.assertIn("the ledger has 0 received: 5 missing", self.audit(status=1))

    def test_row_deleted(self) -> None:
        """A batch that somebody took out of the journal's file is missed: it was acknowledged, and it is nowhere."""
        self.begin()
        self.redis.kill()
        self.report(v1_series(_IDENT, 5))
        with contextlib.closing(sqlite3.connect(self.running.data_dir / NAME)) as file:
            (number, frames) = file.execute("SELECT number, frames FROM batch ORDER BY number DESC LIMIT 1").fetchone()
            file.execute("DELETE FROM batch WHERE number = ?", (number,))
            file.commit()
        self.redis.start()
        self.drained()
        self.beaten(5)
        text = self.audit(status=1)
        self.assertRegex(text, rf"DIFFERENCE: journal .*: {frames} missing")

    def test_refused(self) -> None:
        """A Redis that does not let us in, a URL that can't be, a directory that is not there: status 2 and a line."""
        self.begin()
        self.redis.client.config_set("requirepass", "x")
        self.assertIn("refuses", self.audit(status=2))
        command = [sys.executable, "-m", "gateway.cli", "audit"]
        for words in (["--redis", "http://x"], ["--redis", self.redis.url, "--data-dir", "/nowhere/at/all"]):
            done = subprocess.run([*command, *words], capture_output=True, text=True, cwd=CHECKOUT, timeout=60)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done.stderr)


class MomentTests(AuditCase):
    """
    At each of very many moments what a gateway says of itself and its ledgers add up to the frame.

    Nothing is asked again here: a heartbeat and its ledgers are of one moment.
    """

    def begin_quick(self, config: str = "", url: str | None = None) -> None:
        """Start both, or with a URL the gateway alone, with a quick heart."""
        if url is None:
            self.redis = self.running_redis()
        path = self.directory / "quick.toml"
        path.write_text(_CONFIG + config)
        options = ("--config", str(path))
        self.running = QuickGateway(self.directory / "quick", redis_url=url or self.redis.url, options=options)
        self.addCleanup(self._remove, self.running)
        self.addCleanup(self.hold_against_its_log, self.running)
        self.running.start()

    @contextlib.contextmanager
    def watched(self, always: bool = True) -> Iterator[list[Beat]]:
        """Look at very many heartbeats; at the end none of them was wrong, or, if not always, the last one is right."""
        seen: list[Beat] = []
        over = threading.Event()

        def watch() -> None:
            client = redis.Redis.from_url(self.redis.url, socket_timeout=5)
            while not over.is_set():
                try:
                    text = client.get(f"gateway:instance:{_INSTANCE}")
                except redis.exceptions.RedisError:
                    time.sleep(0.02)
                    continue
                if isinstance(text, bytes) and (not seen or seen[-1].text != text):
                    seen.append(Beat.read(_INSTANCE, text))
                time.sleep(0.002)
            client.close()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join(10)
        looked_at = seen if always else seen[-1:]
        wrong = [(beat.text, [*beat.wrong()]) for beat in looked_at if not beat.speaks or [*beat.wrong()]]
        self.assertEqual(len(wrong), 0, f"{len(wrong)} of {len(seen)}: {wrong[:2]}\n{self.running.tail()}")
        self.assertGreater(len(seen), _MANY)

    def settled(self, seen: list[Beat], expect: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the counters of the newest heartbeat are so, nothing is pending, and enough were seen."""
        wait_for("very many heartbeats", lambda: len(seen) > _MANY, detail=self.running.tail)
        wait_for(
            "the counters",
            lambda: seen and not seen[-1].content["pending"] and expect(seen[-1].content["counters"]),
            detail=lambda: f"{seen[-1].text!r}" if seen else "",
        )

    def test_load(self) -> None:
        """A fleet at full speed: batches are under way when the heart beats."""
        self.begin_quick()
        with self.watched() as seen:
            fleet = self.fleet()
            time.sleep(4)
            fleet.finish()
        self.assertTrue(any(beat.content["account"]["unanswered"] for beat in seen), "no beat saw a batch under way")
        self.assertTrue(
            any(number <= beat.content["last"] for beat in seen for number, _ in beat.content["account"]["unanswered"]),
            "no beat saw one stored that was not answered",
        )

    def test_redis_killed(self) -> None:
        """Redis is killed under load and comes back: the journal fills, and is drained."""
        self.begin_quick()
        with self.watched() as seen:
            fleet = self.fleet()
            for _ in range(3):
                fleet.wait_until_all_are_served()
                self.redis.kill()
                time.sleep(1)
                self.redis.start()
                time.sleep(2)
            fleet.finish()
            self.drained()
            self.settled(seen, lambda counters: counters.get("drained", 0) > 0)

    def test_answers_lost(self) -> None:
        """Answers of Redis get lost: a batch that is in Redis and in the journal is counted once."""
        server = self.redis = self.running_redis()
        wire = Wire(server.port)
        self.addCleanup(wire.close)
        self.begin_quick(url=server.url.replace(str(server.port), str(wire.port)))
        with self.watched() as seen:
            fleet = self.fleet()
            for _ in range(5):
                fleet.wait_until_all_are_served()
                time.sleep(0.5)
                wire.lose_answers()
                time.sleep(0.2)
                wire.cut()
            fleet.finish()
            self.drained()
            self.settled(seen, lambda counters: counters.get("already", 0) > 0)

    def test_gateway_killed(self) -> None:
        """What an earlier process left in the journal is in the ledgers of the next, and kept apart there."""
        self.begin_quick()
        self.redis.kill()
        fleet = self.fleet()
        fleet.wait_until_all_are_served()
        self.running.kill()
        self.redis.start()
        with self.watched() as seen:
            self.running.start()
            fleet.wait_until_all_are_served()
            time.sleep(2)
            fleet.finish()
            self.drained()
            self.settled(seen, lambda counters: counters.get("drained", 0) > 0)
        self.assertGreater(seen[-1].content["account"]["earlier"], 0)

    def test_batches_expire(self) -> None:
        """What waited in the journal for too long is dropped there, and so says the ledger."""
        self.begin_quick("[journal]\ndays = 0.00003\n")
        self.redis.kill()
        fleet = self.fleet()
        fleet.wait_until_all_are_served()
        time.sleep(5)
        self.redis.start()
        with self.watched() as seen:
            wait_for("a heartbeat", lambda: seen)
            time.sleep(2)
            fleet.finish()
            self.drained()
            self.settled(seen, lambda counters: counters.get("journal_expired", 0) > 0)
        self.ledger_adds_up(self.redis.client, lambda counts: counts.get("dropped", 0) > 0)

    def test_every_outcome(self) -> None:
        """Duplicates, strangers, what can't be read, who may not come, what a limit turns away, dropped datagrams."""
        self.begin_quick("[limits]\nnew_idents_per_address = 5\npending = 50\nconnections_per_address = 3\n")
        self.redis.client.hset("gateway:registry:9170000009", "enabled", "0")
        with self.watched() as seen:
            frames = v1_series(_IDENT, 50)
            self.report([*frames, frames[3]])
            with Client(self.running.port) as device:
                device.send(b"hello world, who is there?\r\n" * 50)
                device.answers(1, 1)
            with Client(self.running.port) as device:
                device.send(b"*HQ,9170000001,V1,nonsense#" + frames[-1])
                device.answers(1)
            with Client(self.running.port) as device:
                device.send(v1_series("9170000009", 1)[0])
                device.answers(1, 1)
            with contextlib.ExitStack() as clients:
                for _ in range(8):
                    with contextlib.suppress(OSError):
                        clients.enter_context(Client(self.running.port))
                time.sleep(0.5)
            with Datagrams(self.running.port) as datagrams:
                for number in range(20, 40):
                    datagrams.send(v1(f"91700000{number}", time.time()))
                self.redis.signal(signal.SIGSTOP)
                for second in range(300):
                    datagrams.send(v1(_IDENT, time.time() - 900 + second))
                time.sleep(0.4)
                self.redis.signal(signal.SIGCONT)
            wanted = "duplicate unrecognised undecodable unauthorised limited dropped".split()
            self.settled(seen, lambda counters: all(counters.get(name) for name in wanted))
        self.ledger_adds_up(
            self.redis.client, lambda counts: counts["received"] == seen[-1].content["counters"]["received"]
        )

    def test_refused(self) -> None:
        """Events that Redis refuses, and their entries on the dead stream, too: in the ledger once, as refused."""
        self.begin_quick()
        self.redis.client.set("gateway:position", "poison")
        with self.watched() as seen:
            self.report(v1_series(_IDENT, 20))
            self.redis.client.set("gateway:dead", "poison")
            self.report(v1_series("9170000002", 20))
            self.settled(seen, lambda counters: counters.get("refused", 0) == 40)
            time.sleep(1)
        self.assertGreater(seen[-1].content["counters"]["quarantined"], 0)
        self.ledger_adds_up(self.redis.client, lambda counts: counts["refused"] == 40)
        self.redis.client.delete("gateway:position", "gateway:dead")

    def test_refused_as_a_whole(self) -> None:
        """An event that makes the script fail takes nobody with it: its frame is refused, the others are published."""
        self.begin_quick()
        self.redis.kill()
        self.report(v1_series(_IDENT, 20))
        self.running.kill()
        file = JournalFile(self.running.data_dir / NAME, _LIMIT)
        rows = [row for row in file.rows() if row is not None]
        good = rows[5]
        group = good.groups[0]
        _, device_id, flags, ttl, private, _, _ = group.split(b"\0", 6)
        record = b"z10p" + b"12345678" + b"\0".join([b"", b"i", b"t", b"r", b"k", b"p", b"{}", b""])
        bad = b"\0".join([b"9170000077", device_id, flags, ttl, private, b"1", record])
        file.append([Row(0, good.time, good.instance, good.frames + 4, 1, 2, [*good.groups, bad])])
        before = file.counts().frames
        file.close()
        self.redis.start()
        # whether a number that was taken says something is known only when the script's error is
        with self.watched(always=False) as seen:
            self.running.start()
            self.drained()
            self.settled(seen, lambda counters: counters.get("quarantined", 0) == 1)
            time.sleep(0.5)
        self.ledger_adds_up(
            self.redis.client,
            lambda counts: (
                (counts["received"], counts["refused"], counts["limited"], counts["dropped"]) == (before, 1, 1, 2)
            ),
        )

    def test_producer_begun_anew(self) -> None:
        """A batch that can't be taken under its number goes on under another producer: nothing is counted twice."""
        self.begin_quick()
        with self.watched() as seen:
            self.report(v1_series(_IDENT, 20))
            (key,) = self.redis.client.keys("gateway:producer:*")
            self.redis.client.delete(key)
            self.redis.client.lpush(key, "nonsense")
            self.report(v1_series("9170000002", 20))
            self.drained()
            self.settled(seen, lambda counters: counters.get("producer_restarts", 0) > 0)
            time.sleep(1)
        self.ledger_adds_up(self.redis.client, lambda counts: (counts["received"], counts["published"]) == (40, 40))
