"""What was acknowledged is kept, whatever dies: Redis, its data, the gateway."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable

from tests.integration.faults.wires import Wire
from tests.integration.fleet import Client, Datagrams, Fleet, event_id, v1_series
from tests.integration.parts import (
    Gateway,
    RealPartsTestCase,
    RedisServer,
    entries,
    journaled,
    locked_journal,
    wait_for,
)

_DEVICES = 40

#: How long the fleet reports before and after what happens to it.
_LOAD_SECONDS = 2.0

#: The gateway keeps the batches of the last 3 s; this much of it does not depend on a busy machine.
_KEPT_SECONDS = 2.0


class FaultTestCase(RealPartsTestCase):
    """A fleet that reports to a gateway that stores in Redis."""

    redis: RedisServer
    running: Gateway
    fleet: Fleet

    def setUp(self) -> None:
        """Start Redis, the gateway and the fleet."""
        super().setUp()
        self.redis = self.running_redis()
        self.running = self.running_gateway(self._redis_url())
        self.fleet = Fleet(self.running.port, _DEVICES, pace=0.02)
        self.addCleanup(self.fleet.stop)
        self.fleet.start()
        self.fleet.wait_until_all_are_served()
        time.sleep(_LOAD_SECONDS)

    def _redis_url(self) -> str:
        return self.redis.url

    def _go_on_and_finish(self) -> None:
        """After the fault the fleet is served again, keeps the gateway busy for a while, and comes to its end."""
        self.fleet.wait_until_all_are_served()
        time.sleep(_LOAD_SECONDS)
        self.fleet.finish()
        self.assertTrue(self.running.running, self.running.tail())

    def _assert_kept(self, answered_after: float = 0.0) -> None:
        """Hold the stream against what the fleet knows, once nothing is on its way any more."""
        wait_for("the journal to be drained", lambda: journaled(self.running.data_dir) == 0, detail=self.running.tail)
        published = Counter(entry["id"] for entry in entries(self.redis.client))
        acknowledged = {r.id for r in self.fleet.answered if (r.answered_at or 0.0) > answered_after}
        sent = {report.id for report in self.fleet.reports}
        self.assertGreater(len(acknowledged), 10 * _DEVICES, "too little load to say anything")
        self._assert_none("acknowledged, but not on the stream", acknowledged - published.keys())
        self._assert_none("on the stream more than once", (i for i, times in published.items() if times > 1))
        self._assert_none("on the stream, but never sent", published.keys() - sent)
        self._assert_none("answers to nothing", self.fleet.strange)

    def _assert_none(self, what: str, found: Iterable[object]) -> None:
        all_of_them = [*found]
        if all_of_them:
            self.fail(f"{len(all_of_them)} {what}: {all_of_them[:5]}\n{self.running.tail()}")


class FaultTests(FaultTestCase):
    """Something is killed; nothing that was acknowledged is missing, nothing is there twice."""

    def test_redis_killed(self) -> None:
        """Redis is killed with -9 and comes back with its files: every acknowledged report is there once."""
        self.redis.kill()
        time.sleep(1)
        self.redis.start()
        self._go_on_and_finish()
        self._assert_kept()

    def test_redis_killed_again_and_again(self) -> None:
        """Redis is killed with -9 three times in a row while the gateway tries to reach it: nothing is lost."""
        for _ in range(3):
            self.redis.kill()
            self.redis.start()
            time.sleep(0.3)
        self._go_on_and_finish()
        self._assert_kept()

    def test_redis_emptied(self) -> None:
        """
        Redis is emptied by FLUSHALL: all that is acknowledged afterwards is there.

        So is what the gateway still kept, which it sends again when it finds its own number gone.
        """
        emptied = time.monotonic()
        self.redis.client.flushall()
        self._go_on_and_finish()
        self._assert_kept(emptied)
        self._assert_kept(emptied - _KEPT_SECONDS)

    def test_gateway_told_to_end(self) -> None:
        """The gateway gets SIGTERM under load: it ends within 10 s, and another one on the port goes on."""
        self.assertIn(self.running.terminate(), (0, -signal.SIGTERM), self.running.tail())
        self.running.start()
        self._go_on_and_finish()
        self._assert_kept()

    def test_gateway_killed(self) -> None:
        """The gateway is killed with -9 under load: devices send again what had no answer, and nothing is doubled."""
        self.running.kill()
        self.running.start()
        self._go_on_and_finish()
        self._assert_kept()

    def test_gateway_killed_between_store_and_answer(self) -> None:
        """The gateway dies when Redis has the reports and no device has its answer: sent again, they are duplicates."""
        self.redis.signal(signal.SIGSTOP)
        time.sleep(0.3)  # the batch is on its way, and every device waits
        self.running.signal(signal.SIGSTOP)
        self.redis.signal(signal.SIGCONT)
        time.sleep(0.3)  # it is stored, and the gateway can't know
        self.running.kill()
        self.running.start()
        self._go_on_and_finish()
        self._assert_kept()

    def test_both_killed(self) -> None:
        """A power cut: Redis and the gateway are killed together and started again."""
        self.redis.kill()
        self.running.kill()
        self.redis.start()
        self.running.start()
        self._go_on_and_finish()
        self._assert_kept()


class CutTests(FaultTestCase):
    """The network between the gateway and Redis fails at the worst moment."""

    wire: Wire

    def _redis_url(self) -> str:
        self.wire = Wire(self.redis.port)
        self.addCleanup(self.wire.close)
        return self.redis.url.replace(str(self.redis.port), str(self.wire.port))

    def test_answer_of_redis_lost(self) -> None:
        """Connections to Redis break after it has stored and before it is heard: the batch sent again adds nothing."""
        for _ in range(4):
            self.wire.lose_answers()
            time.sleep(0.3)  # some batch was stored, its answer is lost
            self.wire.cut()
            self.fleet.wait_until_all_are_served()
        self._go_on_and_finish()
        self._assert_kept()


class AnswerTests(RealPartsTestCase):
    """A device is answered when its report is stored, not earlier, and then it is answered."""

    redis: RedisServer
    running: Gateway
    first: bytes
    others: list[bytes]
    known = "9170000001"
    new = "9170000002"

    def _start(self, config: str = "") -> Client:
        """Start both, with a device that has reported once."""
        self.redis = self.running_redis()
        self.running = self.running_gateway(self.redis.url, config=config)
        return self._known_device()

    def _known_device(self) -> Client:
        device = Client(self.running.port)
        self.addCleanup(device.socket.close)
        self.first, *self.others = v1_series(self.known, 4)
        device.send(self.first)
        self.assertEqual(len(device.answers(1)), 1)
        self.assertEqual([entry["id"] for entry in entries(self.redis.client)], [event_id(self.known, self.first)])
        return device

    def _assert_stored_once(self, *more: tuple[str, bytes]) -> None:
        frames = [(self.known, self.first), *((self.known, frame) for frame in self.others), *more]
        expected = sorted(event_id(ident, frame) for ident, frame in frames)
        published: list[str] = []

        def all_there() -> bool:
            published[:] = sorted(entry["id"] for entry in entries(self.redis.client))
            return len(published) >= len(expected)

        wait_for("all to be on the stream", all_there, detail=self.running.tail)
        self.assertEqual(published, expected)

    def _while_it_can_not(self, broken: Callable[[], object], cure: Callable[[], object]) -> None:
        """
        Break Redis, and send reports of a known and of a new device: they are answered, once they are on the disk.

        Cure Redis: all are on the stream.
        """
        device = self._start("[redis]\ndeadline = 1\n")
        broken()
        frame = v1_series(self.new, 1)[0]
        with Client(self.running.port) as newcomer:
            device.send(b"".join(self.others))
            newcomer.send(frame)
            self.assertEqual(len(device.answers(len(self.others))), len(self.others))
            self.assertEqual(len(newcomer.answers(1)), 1)
            cure()
        self.assertEqual(device.rest(), [])
        self._assert_stored_once((self.new, frame))

    def test_redis_stands_still(self) -> None:
        """While Redis does not move for less than its deadline no device gets an answer; then each gets one."""
        device = self._start()
        self.redis.signal(signal.SIGSTOP)
        device.send(b"".join(self.others))
        self.assertEqual(device.answers(1, seconds=0.7), [])
        self.redis.signal(signal.SIGCONT)
        self.assertEqual(len(device.answers(len(self.others))), len(self.others))
        self.assertEqual(device.rest(), [])
        self._assert_stored_once()

    def test_nothing_can_be_stored(self) -> None:
        """Redis is killed and the journal can't be written: nobody gets an answer, and all get one when it can."""
        device = self._start()
        frame = v1_series(self.new, 1)[0]
        with Client(self.running.port) as newcomer:
            with locked_journal(self.running.data_dir):
                self.redis.kill()
                device.send(b"".join(self.others))
                newcomer.send(frame)
                self.assertEqual(device.answers(1, seconds=7), [])
                self.assertEqual(newcomer.answers(1, seconds=0.1), [])
                self.assertIn("nothing can be stored, reading stops", self.running.output())
            self.assertEqual(len(device.answers(len(self.others))), len(self.others))
            self.assertEqual(len(newcomer.answers(1)), 1)
        self.redis.start()
        self.assertEqual(device.rest(), [])
        self._assert_stored_once((self.new, frame))

    def test_redis_is_full(self) -> None:
        """At maxmemory Redis refuses to write; reports wait on the disk until it has room again."""
        self._while_it_can_not(
            lambda: self.redis.client.config_set("maxmemory", 1),
            lambda: self.redis.client.config_set("maxmemory", 0),
        )

    def test_redis_has_become_a_replica(self) -> None:
        """After a failover the old master is read-only; reports wait until somebody is master there."""
        self._while_it_can_not(
            lambda: self.redis.client.replicaof("127.0.0.1", 1),
            lambda: self.redis.client.replicaof("NO", "ONE"),
        )

    def test_redis_lacks_replicas(self) -> None:
        """With min-replicas-to-write Redis refuses to write alone; reports wait for the replica."""
        self._while_it_can_not(
            lambda: self.redis.client.config_set("min-replicas-to-write", 1),
            lambda: self.redis.client.config_set("min-replicas-to-write", 0),
        )

    def test_credentials_refused_later(self) -> None:
        """When Redis wants a password of a sudden the gateway goes on trying until it is let in again."""

        def lock_out() -> None:
            self.redis.client.config_set("requirepass", "new")
            self.redis.client.execute_command("CLIENT", "KILL", "TYPE", "normal")

        self._while_it_can_not(lock_out, lambda: self.redis.client.config_set("requirepass", ""))

    def test_scripts_flushed(self) -> None:
        """SCRIPT FLUSH, which looks like a restart to who uses scripts, is not noticed by anybody."""
        device = self._start()
        frame = v1_series(self.new, 1)[0]
        self.redis.client.script_flush()
        with Client(self.running.port) as newcomer:
            newcomer.send(frame)
            self.assertEqual(len(newcomer.answers(1)), 1)
        for report in self.others:
            self.redis.client.script_flush()
            device.send(report)
            self.assertEqual(len(device.answers(1)), 1)
        self._assert_stored_once((self.new, frame))

    def test_redis_hangs_longer_than_its_deadline(self) -> None:
        """A Redis that hangs is given up and connected anew; what it had taken before it hung is not stored twice."""
        device = self._start("[redis]\ndeadline = 1\n")
        self.redis.signal(signal.SIGSTOP)
        device.send(b"".join(self.others))
        time.sleep(2.5)
        self.redis.signal(signal.SIGCONT)
        self.assertEqual(len(device.answers(len(self.others))), len(self.others))
        self.assertEqual(device.rest(), [])
        self._assert_stored_once()

    def test_connection_goes_deaf(self) -> None:
        """The answer to a batch never arrives on a connection that stays open: another one is made."""
        wire, device = self._through_a_wire()
        wire.lose_answers()
        device.send(b"".join(self.others))
        self.assertEqual(len(device.answers(len(self.others), seconds=8)), len(self.others))
        self._assert_stored_once()

    def test_connection_goes_deaf_before_a_new_device(self) -> None:
        """The same when what is lost is the answer to the question what is known of a new device."""
        wire, _ = self._through_a_wire()
        wire.lose_answers()
        frame = v1_series(self.new, 1)[0]
        with Client(self.running.port) as newcomer:
            newcomer.send(frame)
            self.assertEqual(len(newcomer.answers(1, seconds=8)), 1)
        self.others = []
        self._assert_stored_once((self.new, frame))

    def _through_a_wire(self) -> tuple[Wire, Client]:
        self.redis = self.running_redis()
        wire = Wire(self.redis.port)
        self.addCleanup(wire.close)
        url = self.redis.url.replace(str(self.redis.port), str(wire.port))
        self.running = self.running_gateway(url, config="[redis]\ndeadline = 1\n")
        return wire, self._known_device()

    def test_more_than_may_wait(self) -> None:
        """
        While Redis is away the gateway takes in so much and no more.

        Over TCP it stops reading and all is answered afterwards; datagrams
        are dropped, counted, and answered when they are sent again.
        """
        device = self._start("[limits]\npending = 200\n")
        self.others = v1_series(self.known, 3_000)[1:]
        frame = v1_series(self.new, 1)[0]
        with Datagrams(self.running.port) as datagrams:
            self.redis.signal(signal.SIGSTOP)
            device.send(b"".join(self.others[:1_000]))
            time.sleep(0.3)
            for _ in range(5):
                datagrams.send(frame)
            device.send(b"".join(self.others[1_000:]))
            self.assertEqual(datagrams.answers(1, seconds=0.3), [])
            self.redis.signal(signal.SIGCONT)
            self.assertEqual(len(device.answers(len(self.others))), len(self.others))
            datagrams.send(frame)
            self.assertEqual(len(datagrams.answers(1)), 1)
        self._assert_stored_once((self.new, frame))
        counts = self.ledger_adds_up(self.redis.client, lambda counts: counts["received"] >= 3_006)
        self.assertEqual(counts["dropped"], 5, counts)
