"""C{gateway journal} beside a gateway that runs, and in the place of one that does not."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from gateway.sinks.journalfile import JournalFile
from gateway.sinks.journalrows import NAME
from tests.integration.fleet import Client, event_id, v1_series
from tests.integration.parts import CHECKOUT, Child, Gateway, RealPartsTestCase, RedisServer, entries, wait_for

_REPORTS = 50
_IDENT = "9170000001"
_LIMIT = 64 * 1024 * 1024


class JournalCommandCase(RealPartsTestCase):
    """A gateway whose Redis was killed, and what a device reported to it since."""

    redis: RedisServer
    running: Gateway
    reports: list[bytes]

    config = "[redis]\ndeadline = 1\n"

    def setUp(self) -> None:
        """Have reports acknowledged by a gateway that only has its journal."""
        super().setUp()
        self.redis = self.running_redis()
        self.running = self.running_gateway(self.redis.url, config=self.config)
        self.redis.kill()
        self.reports = v1_series(_IDENT, _REPORTS)
        with Client(self.running.port) as device:
            for report in self.reports:  # one by one: a batch each
                device.send(report)
                self.assertEqual(len(device.answers(1)), 1, self.running.tail())

    def words(self, *words: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "gateway.cli", "journal", *words, "--data-dir", str(self.running.data_dir)]

    def command(self, *words: str, status: int = 0) -> str:
        """Run C{gateway journal}; what it printed."""
        done = subprocess.run(self.words(*words), capture_output=True, text=True, cwd=CHECKOUT, timeout=60)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def listed(self) -> dict[str, Any]:
        """What is in the journal."""
        (found,) = json.loads(self.command("list", "--json"))["journals"]
        assert isinstance(found, dict)
        return found

    def files(self) -> dict[str, str]:
        """The journal's files by what is in them."""
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in Path(self.running.data_dir).glob("*.sqlite*")
        }

    def assert_published(self, prefix: str = "gateway") -> None:
        """Each report is on the stream once, in order."""
        published = [entry["id"] for entry in entries(self.redis.client, f"{prefix}:position")]
        self.assertEqual(published, [event_id(_IDENT, report) for report in self.reports])


class BesideTests(JournalCommandCase):
    """While a gateway runs."""

    def test_list_and_check(self) -> None:
        """What the gateway acknowledged is there to be seen, none of its files is written by that, and it goes on."""
        before = self.files()
        self.assertEqual(set(before), {NAME, f"{NAME}-wal", f"{NAME}-shm"})
        found = self.listed()
        self.assertEqual(found["frames"], _REPORTS)
        self.assertIn(f"{found['batches']} batches, all whole", self.command("check"))
        self.assertEqual(self.files(), before)
        self.redis.start()
        wait_for("the journal to be drained", lambda: self.listed()["batches"] == 0, detail=self.running.tail)
        self.assert_published()

    def test_replay_refuses(self) -> None:
        """The journal of a gateway that runs is not given away behind its back."""
        self.assertIn("in use by another gateway", self.command("replay", "--redis", self.redis.url, status=1))
        self.assertEqual(self.listed()["frames"], _REPORTS)


class ReplayTests(JournalCommandCase):
    """After the gateway was killed."""

    def setUp(self) -> None:
        """Kill it."""
        super().setUp()
        self.running.kill()

    def test_all_of_it(self) -> None:
        """What is in the journal is published, once and in order; then the journal is empty, and a gateway goes on."""
        self.assertEqual(self.listed()["frames"], _REPORTS)
        batches = self.listed()["batches"]
        self.redis.start()
        said = self.command("replay", "--redis", self.redis.url)
        self.assertIn(f"{batches} batches with {_REPORTS} frames", said)
        self.assert_published()
        self.assertEqual((self.listed()["batches"], self.listed()["under_way"]), (0, None))
        self.assertIn(" 0 batches with 0 frames", self.command("replay", "--redis", self.redis.url))
        self.running.start()
        with Client(self.running.port) as device:
            self.reports += v1_series(_IDENT, 1, age=5)
            device.send(self.reports[-1])
            self.assertEqual(len(device.answers(1)), 1, self.running.tail())
        self.assert_published()
        self.ledger_adds_up(self.redis.client, lambda counts: counts["received"] == _REPORTS + 1)

    def test_twice(self) -> None:
        """What Redis has already is told as such and published once."""
        self.redis.start()
        copy = (self.running.data_dir / NAME).read_bytes(), (self.running.data_dir / f"{NAME}-wal").read_bytes()
        self.command("replay", "--redis", self.redis.url)
        for path, data in zip((NAME, f"{NAME}-wal"), copy, strict=True):
            (self.running.data_dir / path).write_bytes(data)
        (self.running.data_dir / f"{NAME}-shm").unlink(missing_ok=True)
        said = self.command("replay", "--redis", self.redis.url)
        self.assertRegex(said, r"duplicate \d+")
        self.assert_published()

    def test_redis_away(self) -> None:
        """A Redis that can't be reached ends it in time, and all is still there."""
        before = self.listed()
        started = time.monotonic()
        said = self.command("replay", "--redis", self.redis.url, "--timeout", "1", status=1)
        self.assertLess(time.monotonic() - started, 10)
        self.assertIn("stopped: Redis has taken no batch for 1 s", said)
        self.assertIn("Connection", said)
        self.assertIn(f"{before['batches']} batches with {_REPORTS} frames are still in the journal", said)
        self.assertEqual(self.listed()["frames"], _REPORTS)

    def test_redis_takes_none(self) -> None:
        """A Redis that is full ends it, too, with what it says; when it has room all is given."""
        self.redis.start()
        self.redis.client.config_set("maxmemory", 1)
        said = self.command("replay", "--redis", self.redis.url, "--timeout", "1", status=1)
        self.assertIn("OOM", said)
        self.assertIn("are still in the journal", said)
        self.redis.client.config_set("maxmemory", 0)
        self.command("replay", "--redis", self.redis.url)
        self.assert_published()

    def test_ended_in_the_middle(self) -> None:
        """Ctrl-C or kill -9 at whatever moment: nothing is lost by it, and nothing doubled when it goes on."""
        self.redis.start()
        for number in (signal.SIGINT, signal.SIGKILL):
            child = Child(self.words("replay", "--redis", self.redis.url), self.directory / f"replay-{number}")
            self.addCleanup(child.kill)
            wait_for(
                "something to be published", lambda: self.redis.client.exists("gateway:position"), detail=child.tail
            )
            child.signal(number)
            child.wait(10)
        self.command("replay", "--redis", self.redis.url)
        self.assert_published()
        self.assertEqual(self.listed()["batches"], 0)

    def test_interrupted_while_waiting(self) -> None:
        """Ctrl-C while Redis is away ends it at once."""
        child = Child(self.words("replay", "--redis", self.redis.url, "--timeout", "60"), self.directory / "replay")
        self.addCleanup(child.kill)
        wait_for("it to wait", lambda: "is not ready" in child.tail(), detail=child.tail)
        child.signal(signal.SIGINT)
        self.assertEqual(child.wait(10), 1, child.tail())
        self.assertIn("stopped: interrupted", child.tail())
        self.assertEqual(self.listed()["frames"], _REPORTS)

    def test_quarantine(self) -> None:
        """What Redis refused once is tried again on request, and is published when it takes it."""
        file = JournalFile(self.running.data_dir / NAME, _LIMIT)
        groups = [group for row in file.rows() if row is not None for group in row.groups]
        file.quarantine(groups, "WRONGTYPE", 1.0)
        file.close()
        self.redis.start()
        self.command("replay", "--redis", self.redis.url)
        self.assertEqual(self.listed()["quarantined"], len(groups))
        said = self.command("replay", "--redis", self.redis.url, "--quarantine")
        self.assertIn(f"out of quarantine: {len(groups)} groups", said)
        self.assertEqual((self.listed()["quarantined"], self.listed()["batches"]), (0, 0))
        ids = Counter(entry["id"] for entry in entries(self.redis.client))
        self.assertEqual(ids, Counter(event_id(_IDENT, report) for report in self.reports))

    def test_what_nobody_took(self) -> None:
        """Reports that neither their stream nor the dead one took: tried again when both do, they are on theirs."""
        self.redis.start()
        self.running.start()
        wait_for("the journal to be drained", lambda: self.listed()["batches"] == 0, detail=self.running.tail)
        for key in ("gateway:position", "gateway:dead"):
            self.redis.client.delete(key)
            self.redis.client.set(key, "no stream")
        more = v1_series("9170000002", 5)
        with Client(self.running.port) as device:
            device.send(b"".join(more))
            self.assertEqual(len(device.answers(len(more))), len(more), self.running.tail())
        self.assertEqual(self.listed()["quarantined"], len(more))
        self.running.terminate()
        self.assertEqual(self.redis.client.keys("gateway:instance:*"), [], "one that has ended says so")
        refused = self.command("replay", "--redis", self.redis.url, "--quarantine", status=1)
        self.assertIn(f"Redis refuses {len(more)} groups of events for good", refused)
        self.redis.client.delete("gateway:position", "gateway:dead")
        self.command("replay", "--redis", self.redis.url, "--quarantine")
        published = [entry["id"] for entry in entries(self.redis.client)]
        self.assertEqual(published, [event_id("9170000002", frame) for frame in more])

    def test_damaged(self) -> None:
        """What can be read of a damaged journal is given; the status says that it is not all, and so does the audit."""
        self.running.kill()
        file = JournalFile(self.running.data_dir / NAME, _LIMIT)
        file._db.execute("UPDATE batch SET checksum = 1 WHERE number = 7")
        file.close()
        self.redis.start()
        said = self.command("replay", "--redis", self.redis.url, status=1)
        self.assertIn("49 batches could be read and are kept, 1 batches or more could not be read", said)
        self.assertEqual(len(entries(self.redis.client)), _REPORTS - 1)
        words = [sys.executable, "-m", "gateway.cli", "audit", "--redis", self.redis.url]
        words += ["--data-dir", str(self.running.data_dir)]
        audit = subprocess.run(words, capture_output=True, text=True, cwd=CHECKOUT, timeout=60)
        self.assertEqual(audit.returncode, 1, audit.stdout)
        self.assertRegex(audit.stdout, r"DIFFERENCE: .*damaged-journal-.* was damaged")
        before = self.running.output().count("batches go to Redis")
        self.running.start()
        wait_for(
            "the gateway to go on with a sound journal",
            lambda: self.running.output().count("batches go to Redis") > before,
            detail=self.running.tail,
        )


class PrefixTests(JournalCommandCase):
    """With a prefix of its own."""

    config = '[redis]\nprefix = "mine"\ndeadline = 1\n'

    def test_prefix(self) -> None:
        """The streams are those that the configuration names."""
        self.running.kill()
        self.redis.start()
        config = str(self.directory / "gateway.toml")
        self.command("replay", "--redis", self.redis.url, "--config", config)
        self.assert_published("mine")
        self.assertEqual(self.redis.client.exists("gateway:position"), 0)
