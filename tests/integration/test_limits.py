"""A stranger, a broken tracker or a poisoned Redis costs the others nothing, and everything is counted."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import time
from collections.abc import Iterable
from typing import Any

from tests.integration.fleet import (
    IGNITION_OFF,
    IGNITION_ON,
    Client,
    Datagrams,
    Fleet,
    event_id,
    is_answer,
    v1,
    v1_series,
)
from tests.integration.parts import Gateway, RealPartsTestCase, RedisServer, entries, wait_for

#: What a well-behaved device may wait on a machine that others use too; on a quiet one it is some milliseconds.
_USUAL_WAIT = 0.5
_WORST_WAIT = 2.5

#: How much more memory a bad client may make the gateway use.
_MEMORY_MIB = 80

_MEGABYTE = 1_000_000

_GREATEST_ID = "18446744073709551615-18446744073709551615"


class LimitTestCase(RealPartsTestCase):
    """A gateway with a few well-behaved devices."""

    redis: RedisServer
    running: Gateway
    good: Fleet

    def set_up(self, config: str = "") -> None:
        """Start Redis, the gateway and the good devices."""
        self.redis = self.running_redis()
        self.running = self.running_gateway(self.redis.url, config=config)
        time.sleep(0.2)  # until it has seen the end of the connections that looked whether it listens
        self.good = Fleet(self.running.port, 5, first=90_001)
        self.addCleanup(self.good.stop)
        self.good.start()
        self.good.wait_until_all_are_served()

    def assert_no_harm(self) -> None:
        """The good devices were answered all the while, fast, on the connections that they began with."""
        self.good.wait_until_all_are_served()
        self.good.finish()
        seen = self.good.latencies()
        self.assertLess(seen.median, _USUAL_WAIT, seen)
        self.assertLess(seen.worst, _WORST_WAIT, seen)
        self.assertEqual(self.good.connections, len(self.good.devices), "they had to connect again")
        published = {entry["id"] for entry in entries(self.redis.client)}
        self.assertEqual([r for r in self.good.answered if r.id not in published], [])

    def counted(self, strangers: int) -> dict[str, int]:
        """Wait until the ledger has what the good ones sent and at least so many frames or connections of others."""
        good = len(self.good.reports)
        return self.ledger_adds_up(self.redis.client, lambda counts: counts["received"] >= good + strangers)


class NoiseTests(LimitTestCase):
    """Bytes that are no reports."""

    def test_random_bytes(self) -> None:
        """Random bytes over TCP and UDP are recorded as not recognised and harm nobody."""
        self.set_up()
        noise = random.Random(907)
        connections = [Client(self.running.port) for _ in range(60)]
        for client in connections:
            with client:
                self._push(client, noise.randbytes(noise.randint(1, 4_000)))
        with Datagrams(self.running.port) as datagrams:
            for _ in range(60):
                datagrams.send(noise.randbytes(noise.randint(1, 1_400)))
                time.sleep(0.002)  # a full socket buffer would drop some
        counts = self.counted(120)
        self.assert_no_harm()
        self.assertEqual(counts.get("limited", 0), 0, counts)
        dead = entries(self.redis.client, "gateway:dead")
        self.assertGreaterEqual(len([e for e in dead if e["type"] == "frame.unrecognised"]), 100, counts)
        self.assertEqual({json.loads(entry["data"]).get("reason", "") for entry in dead} & {""}, set())

    def test_strangers(self) -> None:
        """Browsers and scanners get not one byte, are hung up on, and what they sent is on record."""
        self.set_up()
        openings = (
            b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
            bytes.fromhex("16030100c8010000c403036b6c6d6e6f") + b"\1" * 100,
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"*1\r\n$4\r\nINFO\r\n",
            b"\0" * 2_000,
        )
        for opening in openings:
            with Client(self.running.port) as client:
                client.send(opening)
                client.socket.settimeout(10)
                with contextlib.suppress(ConnectionError):
                    self.assertEqual(client.socket.recv(100), b"", opening)
        self.counted(len(openings))
        dead = [json.loads(entry["data"]) for entry in entries(self.redis.client, "gateway:dead")]
        self.assertEqual({opening[:512].hex() for opening in openings} - {data["frame"] for data in dead}, set())
        self.assert_no_harm()

    def test_rude_ends(self) -> None:
        """Connections that are reset in the middle of a frame, and empty datagrams, leave nothing but counts."""
        self.set_up()
        whole = v1("9170050006", time.time() - 60)
        for number in range(30):
            with Client(self.running.port) as client:
                client.send(whole[: 3 * number])
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with Datagrams(self.running.port) as datagrams:
            datagrams.send(b"")
        self.assert_no_harm()
        self.counted(0)
        self.assertNotIn("9170050006", {entry["ident"] for entry in entries(self.redis.client)})

    def test_noise_in_the_middle_of_a_session(self) -> None:
        """A device that sends garbage after each of its reports is still answered for each report."""
        self.set_up()
        noise = random.Random(8090)
        ident = "9170050001"
        with Client(self.running.port) as client:
            for frame in v1_series(ident, 20):
                client.send(frame + bytes(byte for byte in noise.randbytes(40) if byte not in b"*$X#\r\n"))
                answers = client.answers(1)
                self.assertTrue(answers and is_answer(answers[0], ident), answers)
        self.assert_no_harm()

    def test_truncated_frames(self) -> None:
        """A frame that ends too early is never published, over TCP or UDP, and is counted."""
        self.set_up()
        whole = v1("9170050002", time.time() - 60)
        binary = bytes.fromhex("2491700500031224470111260450415000730000000e018122fffffbffff0000")
        pieces = [frame[:length] for frame in (whole, binary) for length in range(1, len(frame))]
        for piece in pieces:
            with Client(self.running.port) as client:
                client.send(piece)
        with Datagrams(self.running.port) as datagrams:
            for piece in pieces:
                datagrams.send(piece)
                time.sleep(0.001)  # a full socket buffer would drop some
        self.counted(2 * len(pieces))
        self.assert_no_harm()
        strangers = [e for e in entries(self.redis.client) if e["ident"] not in {d.ident for d in self.good.devices}]
        self.assertEqual(strangers, [])

    def test_ten_megabytes_without_an_end(self) -> None:
        """10 MB that begin like a report and never end do not fill the memory, and other devices don't notice."""
        self.set_up()
        before = self.running.resident_mib()
        with Client(self.running.port) as client:
            self._push(client, b"*HQ,9170050004,V1,")
            for _ in range(10):
                self._push(client, b"A" * _MEGABYTE)
            self.assertLess(self.running.resident_mib() - before, _MEMORY_MIB)
        with Datagrams(self.running.port) as datagrams:
            datagrams.send(b"*HQ,9170050005,V1," + b"A" * 60_000)
        self.counted(2)
        self.assert_no_harm()

    def _push(self, client: Client, data: bytes) -> None:
        """Send as much as the gateway wants."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it may close on a client like this
            client.send(data)


class SlowTests(LimitTestCase):
    """Clients that are slow to send, or do not read."""

    def test_a_byte_now_and_then(self) -> None:
        """A report that comes a byte at a time is answered at its end; nobody waits for it."""
        self.set_up()
        ident = "9170050010"
        with Client(self.running.port) as client:
            for byte in v1(ident, time.time() - 60):
                client.send(bytes([byte]))
                time.sleep(0.05)
            answers = client.answers(1)
            self.assertTrue(answers and is_answer(answers[0], ident), answers)
        self.assert_no_harm()

    def test_one_that_never_says_who_it_is(self) -> None:
        """A connection that is not recognised in time is closed and counted, however slowly it goes on sending."""
        self.set_up("[limits]\ndetect_seconds = 2\n")
        with Client(self.running.port) as client:
            client.send(b"*")
            self.assertTrue(client.closed(seconds=10))
        with Client(self.running.port) as client:
            began = time.monotonic()
            for byte in b"*HQ," + b"9" * 60:
                try:
                    client.send(bytes([byte]))
                except ConnectionError:
                    break
                time.sleep(0.25)
                self.assertLess(time.monotonic() - began, 10, "still open")
        counts = self.counted(2)
        self.assertGreaterEqual(counts["unrecognised"], 2, counts)
        self.assert_no_harm()

    def test_one_that_never_reads(self) -> None:
        """A client that sends report after report and reads no answer fills no memory and slows nobody down."""
        self.set_up()
        before = self.running.resident_mib()
        frames = [f for number in range(100) for f in v1_series(f"91700{60_000 + number}", 100)]
        with Client(self.running.port, narrow=True) as client:
            taken = self._send_without_reading(client, b"".join(frames), seconds=6)
            self.good.wait_until_all_are_served()
            self.assertLess(self.running.resident_mib() - before, _MEMORY_MIB)
        self.assertGreater(taken, 1_000 * len(frames[0]), "too little to say anything")
        self.counted(1)
        self.assert_no_harm()
        known = {event_id(frame[4:14].decode(), frame) for frame in frames} | {r.id for r in self.good.reports}
        published = [entry["id"] for entry in entries(self.redis.client)]
        self.assertEqual(len(published), len(set(published)))
        self.assertEqual(set(published) - known, set())

    def test_one_that_reads_late(self) -> None:
        """A client that sends a lot, ends its direction and reads only then gets every answer, and the end."""
        self.set_up("[limits]\nreports_per_device = 10000\n")
        ident = "9170050011"
        frames = v1_series(ident, 6_000, age=7_200)
        with Client(self.running.port, narrow=True) as client:
            client.send(b"".join(frames))
            client.socket.shutdown(socket.SHUT_WR)
            wait_for(
                "the first reports to be stored",
                lambda: self.redis.client.xlen("gateway:position") >= 500 + len(self.good.devices),
            )
            time.sleep(1.0)  # the rest is read as far as the answers find room
            answers = client.until_closed(seconds=8)
            self.assertEqual(len([a for a in answers if is_answer(a, ident)]), len(frames))
            self.assertTrue(client.ended, "all answers are there, but the connection stays open")
        self.assert_no_harm()

    def test_one_that_is_given_up(self) -> None:
        """A client that leaves its answers unread for too long is closed."""
        self.set_up("[limits]\nunread_seconds = 1\n")
        frames = v1_series("9170050012", 20_000, age=21_600)
        with Client(self.running.port, narrow=True) as client:
            self._send_without_reading(client, b"".join(frames), seconds=4)
            client.socket.settimeout(1)
            wait_for("the client to be closed", lambda: self._is_closed(client))
        self.assert_no_harm()

    def _is_closed(self, client: Client) -> bool:
        """Whether the other end has aborted; reads nothing."""
        try:
            client.socket.send(b"\r")
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return False

    def test_one_that_says_nothing_more(self) -> None:
        """A connection on which nothing comes for too long is closed."""
        self.set_up("[limits]\nidle = 1\nidle_unlearned = 1\n")
        with Client(self.running.port) as client:
            client.send(v1("9170050013", time.time() - 60))
            self.assertEqual(len(client.answers(1)), 1)
            self.assertTrue(client.closed(seconds=12))
        self.assert_no_harm()

    def _send_without_reading(self, client: Client, data: bytes, seconds: float) -> int:
        """Send until the gateway has taken all, or takes no more."""
        client.socket.settimeout(1)
        end = time.monotonic() + seconds
        sent = 0
        while sent < len(data) and time.monotonic() < end:
            try:
                sent += client.socket.send(data[sent : sent + 10_000])
            except (TimeoutError, ConnectionError):
                break
        return sent


class ManyIdentsTests(LimitTestCase):
    """A mobile operator puts a whole fleet behind one address."""

    def test_eight_thousand_new_idents(self) -> None:
        """8,000 devices that were never seen before begin within a minute from one address: none is turned away."""
        self.set_up()
        began = time.monotonic()
        now = time.time() - 60
        frames = [v1(f"4100{number:06}", now) for number in range(8_000)]
        by_tcp, by_udp = frames[:7_200], frames[7_200:]
        clients = [Client(self.running.port) for _ in range(8)]
        for number, client in enumerate(clients):
            self.addCleanup(client.socket.close)
            client.send(b"".join(by_tcp[number :: len(clients)]))
        for number, client in enumerate(clients):
            expected = by_tcp[number :: len(clients)]
            self._assert_answers(client.answers(len(expected), seconds=40), expected)
        self._by_datagram(by_udp)
        self.assertLess(time.monotonic() - began, 60)
        self.good.finish(seconds=40)
        counts = self.counted(len(frames))
        self.assertEqual(counts.get("limited", 0), 0, counts)
        self.assertEqual(counts["published"], len(frames) + len(self.good.reports), counts)
        published = {entry["id"] for entry in entries(self.redis.client)}
        self.assertEqual({event_id(frame[4:14].decode(), frame) for frame in frames} - published, set())

    def _by_datagram(self, frames: list[bytes]) -> None:
        """Send so few at a time that no socket buffer overflows."""
        with Datagrams(self.running.port) as client:
            for at in range(0, len(frames), 40):
                group = frames[at : at + 40]
                for frame in group:
                    client.send(frame)
                self._assert_answers(client.answers(len(group)), group)

    def _assert_answers(self, answers: Iterable[bytes], frames: Iterable[bytes]) -> None:
        expected = sorted(frame[4:14] for frame in frames)
        self.assertEqual(sorted(answer[4:14] for answer in answers), expected)


class LimitOptionTests(LimitTestCase):
    """Each limit is an option, and what it turns away is counted."""

    def test_connections(self) -> None:
        """One connection more than allowed is closed at once, where all the others are devices'; they stay."""
        self.set_up("[limits]\nconnections = 6\n")
        with Client(self.running.port) as last:
            last.send(v1("9170050030", time.time() - 60))
            self.assertEqual(len(last.answers(1)), 1)
            self.assertTrue(self._turned_away())
        counts = self.counted(2)
        self.assertEqual(counts.get("limited"), 1, counts)
        self.assert_no_harm()

    def test_room(self) -> None:
        """A connection that has not said who it is makes room for the next one."""
        self.set_up("[limits]\nconnections = 6\n")
        with Client(self.running.port) as silent, Client(self.running.port) as last:
            last.send(v1("9170050030", time.time() - 60))
            self.assertEqual(len(last.answers(1)), 1)
            self.assertTrue(silent.closed())
        self.assert_no_harm()

    def test_connections_per_address(self) -> None:
        """The same for the connections of one address."""
        self.set_up("[limits]\nconnections_per_address = 6\n")
        with Client(self.running.port) as last:
            self.assertTrue(self._turned_away())
            last.send(v1("9170050030", time.time() - 60))
            self.assertEqual(len(last.answers(1)), 1)
        counts = self.counted(2)
        self.assertEqual(counts.get("limited"), 1, counts)
        self.assert_no_harm()

    def _turned_away(self) -> bool:
        """Whether one more connection is closed, at the latest soon after it was made."""
        try:
            with Client(self.running.port) as surplus:
                return surplus.closed(seconds=5)
        except ConnectionResetError:  # it was, before it was known to be made
            return True

    def test_new_idents_per_address(self) -> None:
        """New idents beyond the limit get no answer and are not published; known ones go on, on any connection."""
        self._new_idents("new_idents_per_address")

    def test_new_idents(self) -> None:
        """The same for new idents from everywhere."""
        self._new_idents("new_idents")

    def _new_idents(self, limit: str) -> None:
        self.set_up(f"[limits]\n{limit} = 6\n")
        known = v1_series("9170050031", 2, age=60)
        refused = v1("9170050032", time.time() - 60)
        with Client(self.running.port) as client:
            client.send(known[0])
            self.assertEqual(len(client.answers(1)), 1)
            client.send(refused)
            self.assertEqual(client.answers(1, seconds=0.5), [])
        with Client(self.running.port) as client:
            client.send(known[1])
            self.assertEqual(len(client.answers(1)), 1)
        counts = self.counted(3)
        self.assertEqual(counts.get("limited"), 1, counts)
        self.assert_no_harm()
        self.assertNotIn("9170050032", {entry["ident"] for entry in entries(self.redis.client)})


class PoisonTests(LimitTestCase):
    """Something in Redis that makes it refuse some events."""

    def test_a_string_where_the_events_go(self) -> None:
        """With a string at gateway:event the alarms are refused one by one; reports and answers go on."""
        self.set_up()
        self.redis.client.delete("gateway:event")
        self.redis.client.set("gateway:event", "poison")
        ident = "9170050020"
        frames = self._with_ignition_edges(ident, 10)
        with Client(self.running.port) as client:
            for frame in frames:
                client.send(frame)
                answers = client.answers(1)
                self.assertTrue(answers and is_answer(answers[0], ident), answers)
        self.assert_no_harm()
        published = {entry["id"] for entry in entries(self.redis.client)}
        self.assertEqual([f for f in frames if event_id(ident, f) not in published], [])
        self.assertEqual(self.redis.client.get("gateway:event"), "poison")
        refused = [entry for entry in self._refused() if entry["ident"] == ident]
        kinds = {json.loads(entry["data"])["refused"]["type"] for entry in refused}
        self.assertGreaterEqual(len(refused), 9)
        self.assertEqual(kinds, {"state.ignition"})
        counts = self.counted(len(frames))
        self.assertGreaterEqual(counts["refused"], 9, counts)

    def _with_ignition_edges(self, ident: str, count: int) -> list[bytes]:
        start = int(time.time()) - 60
        words = (IGNITION_OFF, IGNITION_ON)
        return [v1(ident, start + number, words[number % 2]) for number in range(count)]

    def test_no_id_left_on_the_position_stream(self) -> None:
        """With the greatest possible id on gateway:position every report is refused, recorded, and answered."""
        self.set_up()
        self.redis.client.xadd("gateway:position", {"poison": "1"}, id=_GREATEST_ID)
        ident = "9170050021"
        frames = v1_series(ident, 20, age=60)
        with Client(self.running.port) as client:
            client.send(b"".join(frames))
            answers = client.answers(len(frames))
            self.assertEqual([a for a in answers if not is_answer(a, ident)], [])
            self.assertEqual(len(answers), len(frames))
        self.good.wait_until_all_are_served()
        self.good.finish()
        self.assertTrue(self.running.running)
        self.assertEqual(self.redis.client.xrevrange("gateway:position", count=1)[0][0], _GREATEST_ID)
        refused = {json.loads(entry["data"])["refused"]["id"] for entry in self._refused()}
        self.assertEqual({event_id(ident, frame) for frame in frames} - refused, set())
        counts = self.counted(len(frames))
        self.assertGreaterEqual(counts["refused"], len(frames), counts)

    def test_a_string_where_refused_events_go(self) -> None:
        """When even gateway:dead can't take an event, the devices are still answered."""
        self.set_up()
        self.redis.client.delete("gateway:dead")
        self.redis.client.set("gateway:dead", "poison")
        self.redis.client.xadd("gateway:position", {"poison": "1"}, id=_GREATEST_ID)
        ident = "9170050022"
        frames = v1_series(ident, 5, age=60)
        with Client(self.running.port) as client:
            client.send(b"".join(frames))
            self.assertEqual(len(client.answers(len(frames))), len(frames))
        self.good.wait_until_all_are_served()
        self.good.finish()
        self.assertTrue(self.running.running)

    def test_strings_where_the_state_of_a_device_goes(self) -> None:
        """When what is kept of a device can't be read or written, its reports are published and answered anyway."""
        self.set_up()
        ident = "9170050023"
        for key in ("state", "last"):
            self.redis.client.set(f"gateway:{key}:{ident}", "poison")
        self.redis.client.delete("gateway:seen", "gateway:link")
        self.redis.client.set("gateway:seen", "poison")
        self.redis.client.set("gateway:link", "poison")
        self.redis.client.rpush(f"gateway:session:{ident}", "poison")
        self.redis.client.set(f"gateway:registry:{ident}", "poison")
        frames = v1_series(ident, 10, age=60)
        with Client(self.running.port) as client:
            for frame in frames:
                client.send(frame)
                self.assertEqual(len(client.answers(1)), 1)
        self.assert_no_harm()
        published = [entry["id"] for entry in entries(self.redis.client) if entry["ident"] == ident]
        self.assertEqual(published, [event_id(ident, frame) for frame in frames])

    def _refused(self) -> list[dict[str, str]]:
        """What is on the stream of the dead as refused, each with its reason."""
        found: list[dict[str, str]] = wait_for("refused events on gateway:dead", self._refused_now)
        self.assertEqual([entry for entry in found if not _reason(entry)], [])
        return found

    def _refused_now(self) -> list[dict[str, str]]:
        return [entry for entry in entries(self.redis.client, "gateway:dead") if entry["type"] == "frame.refused"]


def _reason(entry: dict[str, str]) -> Any:
    return json.loads(entry["data"]).get("reason")
