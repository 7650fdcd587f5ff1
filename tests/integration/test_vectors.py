"""The published messages of the H02 family arrive as the events that their authors' tests expect."""

from __future__ import annotations

import json
import re
import socket
import time
import unittest
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.integration.fleet import Client, Datagrams, event_id
from tests.integration.parts import CHECKOUT, Gateway, RealPartsTestCase, RedisServer, entries, wait_for

VECTORS: Final = CHECKOUT.parent / "shared" / "vectors" / "st907_expected.jsonl"

#: A frame that stands alone is decided after 1 s of silence, its protocol after 2 s at most.
_SILENCE: Final = 5.0

#: How long to look whether something comes that should not.
_NOTHING_MORE: Final = 0.5

_CLOCK: Final = re.compile(rb"(?<=,)(\d{14}|\d{6})(?=#)")


@dataclass(frozen=True)
class Vector:
    """One message and what it says; C{valid} is None where it has no position block."""

    frame: bytes
    ident: str
    type: str
    maker: str | None
    time: str | None
    valid: bool | None
    latitude: float | None
    longitude: float | None
    speed_kmh: float | None

    @classmethod
    def of(cls, known: dict[str, Any]) -> Vector:
        """From a line of the file."""
        names = ("ident", "type", "maker", "time", "valid", "latitude", "longitude", "speed_kmh")
        return cls(bytes.fromhex(known["hex"]), **{name: known[name] for name in names})

    def reply(self, maker: str) -> bytes | None:
        """The answer that is defined for it, with dashes for the time; None where there is none."""
        rest = {"V1": "V4,V1," + 14 * "-", "NBR": "V4,NBR," + 14 * "-", "$": "R12,------", "HTBT": "HTBT", "V0": "V0"}
        if self.type not in rest:
            return None
        return f"*{self.maker or maker},{self.ident},{rest[self.type]}#".encode()


def load(path: Path) -> list[Vector]:
    """All messages of the file, in its order."""
    return [Vector.of(json.loads(line)) for line in path.read_text().splitlines()]


def without_clock(answer: bytes) -> bytes:
    """An answer with dashes for its time."""
    return _CLOCK.sub(lambda found: b"-" * len(found[0]), answer)


def replies(vectors: Iterable[Vector]) -> list[bytes]:
    """The answers to messages of one connection: a binary frame's has the maker of the last text frame."""
    expected = []
    maker = "HQ"
    for vector in vectors:
        maker = vector.maker or maker
        if reply := vector.reply(maker):
            expected.append(reply)
    return expected


def distinct(vectors: Iterable[Vector]) -> list[Vector]:
    """Each message once; those without a time of their own are never the same."""
    return [*{vector.frame: vector for vector in vectors}.values()]


def epoch(text: str) -> float:
    """Seconds of an RFC 3339 time."""
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


class VectorTests(RealPartsTestCase):
    """Each message, however it is sent, is published once, with the expected values, and answered once."""

    vectors: list[Vector]
    redis: RedisServer
    running: Gateway

    def setUp(self) -> None:
        """Read the messages and start Redis and the gateway."""
        super().setUp()
        if not VECTORS.exists():
            raise unittest.SkipTest(f"{VECTORS} is not there; it comes with the project's shared files")
        self.vectors = load(VECTORS)
        self.redis = self.running_redis()
        self.running = self.running_gateway(self.redis.url)

    # sending

    def _each_on_its_own_connection(self, send: Callable[[Sequence[tuple[Vector, Client]]], None]) -> None:
        """Send each message on a connection of its own, all at the same time, and check answers and events."""
        pairs = [(vector, Client(self.running.port)) for vector in self.vectors]
        for _, client in pairs:
            self.addCleanup(client.socket.close)
        send(pairs)
        self._wait_until_published()
        wrong = []
        for vector, client in pairs:
            expected = replies([vector])
            got = [without_clock(answer) for answer in client.answers(len(expected), _SILENCE)]
            got += client.rest(_SILENCE)
            if got != expected:
                wrong.append((vector.frame, expected, got))
        self.assertEqual(wrong, [], "frames, with the answers expected and got")
        self._check_events()

    def _on_one_connection(self, segments: Iterable[bytes], vectors: Sequence[Vector]) -> None:
        """Send segments that hold these messages on one connection, and check answers and events."""
        with Client(self.running.port) as client:
            for segment in segments:
                client.send(segment)
                time.sleep(0.02)  # so that it is a segment
            self._wait_until_published()
            expected = replies(vectors)
            got = [without_clock(answer) for answer in client.answers(len(expected), _SILENCE)]
            got += client.rest(_SILENCE)
        self.assertEqual(got, expected)
        self._check_events()

    def _as_datagrams(self, groups: Iterable[Sequence[Vector]]) -> None:
        """Send each group as one datagram, and check answers and events."""
        expected: Counter[bytes] = Counter()
        got: Counter[bytes] = Counter()
        with Datagrams(self.running.port) as client:
            for group in groups:
                client.send(b"".join(vector.frame for vector in group))
                wanted = replies(group)
                expected.update(wanted)
                got.update(without_clock(answer) for answer in client.answers(len(wanted), _SILENCE))
            self._wait_until_published()
            got.update(client.answers(1, _NOTHING_MORE))
        self.assertEqual(got, expected)
        self._check_events()

    # checking

    def _wait_until_published(self) -> None:
        count = len(distinct(self.vectors))
        wait_for(
            f"{count} events",
            lambda: self.redis.client.xlen("gateway:position") >= count,
            _SILENCE,
            lambda: f"{self.redis.client.xlen('gateway:position')} are there",
        )

    def _check_events(self) -> None:
        """Hold all that was published against what the messages say."""
        published = entries(self.redis.client)
        wrong = [problem for vector in distinct(self.vectors) for problem in self._problems(vector, published)]
        self.assertEqual(wrong, [])
        surplus = len(published) - len(distinct(self.vectors))
        self.assertEqual(surplus, 0, "events that belong to no message, or to one that was published before")

    def _problems(self, vector: Vector, published: Sequence[dict[str, str]]) -> list[str]:
        """What is wrong with what was published of this message."""
        kinds = ("position", "status") if vector.valid is None else ("position",)
        found = [entry for entry in published if entry["type"] in kinds and _is_of(entry, vector)]
        if len(found) != 1:
            return [f"{vector.frame!r} was published {len(found)} times as {' or '.join(kinds)}"]
        entry = found[0]
        checks = [*self._time_checks(vector, entry)]
        if vector.valid is not None:
            checks += self._fix_checks(vector, entry) if vector.valid else self._no_fix_checks(vector, entry)
        return [f"{vector.frame!r}: {text}: {entry}" for text, good in checks if not good]

    def _time_checks(self, vector: Vector, entry: dict[str, str]) -> list[tuple[str, bool]]:
        data = json.loads(entry["data"])
        by_server = entry["time"] == entry["received"] and data.get("time_source") == "server"
        fresh = abs(epoch(entry["received"]) - time.time()) < 60
        if vector.time is None:
            return [("has the time of receipt", by_server and fresh)]
        # The second of two messages of one device with one time looks like a clock that stands still.
        frozen = by_server and data.get("clock") == "frozen" and self._shares_its_time(vector)
        return [("has its own time", frozen or epoch(entry["time"]) == epoch(vector.time)), ("received now", fresh)]

    def _shares_its_time(self, vector: Vector) -> bool:
        return sum((v.ident, v.time) == (vector.ident, vector.time) for v in distinct(self.vectors)) > 1

    def _fix_checks(self, vector: Vector, entry: dict[str, str]) -> list[tuple[str, bool]]:
        return [
            ("valid", entry["valid"] == "1"),
            ("latitude", _near(entry["latitude"], vector.latitude, 0.000_001)),
            ("longitude", _near(entry["longitude"], vector.longitude, 0.000_001)),
            ("speed", _near(entry["speed_kmh"], vector.speed_kmh, 0.01)),
        ]

    def _no_fix_checks(self, vector: Vector, entry: dict[str, str]) -> list[tuple[str, bool]]:
        data = json.loads(entry["data"])
        empty = [entry[name] == "" for name in ("latitude", "longitude", "speed_kmh")]
        return [
            ("not valid", entry["valid"] == "0"),
            ("no position and no speed", all(empty)),
            ("the last latitude", _near(data.get("last_latitude"), vector.latitude, 0.000_001)),
            ("the last longitude", _near(data.get("last_longitude"), vector.longitude, 0.000_001)),
        ]

    # the tests

    def test_tcp_whole(self) -> None:
        """Each message alone on a TCP connection is recognised, published and answered."""

        def send(pairs: Sequence[tuple[Vector, Client]]) -> None:
            for vector, client in pairs:
                client.send(vector.frame)

        self._each_on_its_own_connection(send)

    def test_tcp_one_by_one(self) -> None:
        """All messages one after the other on one connection, each sent when the one before has its answer."""
        with Client(self.running.port) as client:
            maker = "HQ"
            for vector in self.vectors:
                maker = vector.maker or maker
                client.send(vector.frame)
                wanted = vector.reply(maker)
                got = [without_clock(answer) for answer in client.answers(1, _SILENCE if wanted else 0.0)]
                self.assertEqual(got, [wanted] if wanted else [], vector.frame)
            self._wait_until_published()
            self.assertEqual(client.rest(_SILENCE), [])
        self._check_events()

    def test_tcp_byte_by_byte(self) -> None:
        """Where a message is cut does not matter: each byte comes in a segment of its own."""

        def send(pairs: Sequence[tuple[Vector, Client]]) -> None:
            for position in range(max(len(vector.frame) for vector, _ in pairs)):
                for vector, client in pairs:
                    if position < len(vector.frame):
                        client.send(vector.frame[position : position + 1])
                time.sleep(0.002)  # lets the gateway read before the next byte is there

        self._each_on_its_own_connection(send)

    def test_tcp_several_to_a_segment(self) -> None:
        """Five messages to a segment, text and binary mixed, all on one connection."""
        groups = [self.vectors[at : at + 5] for at in range(0, len(self.vectors), 5)]
        self._on_one_connection((b"".join(v.frame for v in group) for group in groups), self.vectors)

    def test_tcp_all_at_once_backwards(self) -> None:
        """All messages in one go and in the opposite order, so that binary and text meet at other places."""
        backwards = self.vectors[::-1]
        self._on_one_connection([b"".join(vector.frame for vector in backwards)], backwards)

    def test_tcp_lines(self) -> None:
        """A line end after each message belongs to none of them."""
        self._on_one_connection([b"".join(vector.frame + b"\r\n" for vector in self.vectors)], self.vectors)

    def test_tcp_cut_anywhere(self) -> None:
        """All messages on one connection, cut into segments of 7 bytes."""
        stream = b"".join(vector.frame for vector in self.vectors)
        pieces = (stream[at : at + 7] for at in range(0, len(stream), 7))
        with Client(self.running.port) as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                client.send(piece)
            self._wait_until_published()
            expected = replies(self.vectors)
            self.assertEqual([without_clock(a) for a in client.answers(len(expected), _SILENCE)], expected)
            self.assertEqual(client.rest(_SILENCE), [])
        self._check_events()

    def test_udp_whole(self) -> None:
        """Each message as a datagram of its own; the end of a datagram ends a frame."""
        self._as_datagrams([[vector] for vector in self.vectors])

    def test_udp_several_to_a_datagram(self) -> None:
        """Several messages to a datagram, text and binary mixed."""
        self._as_datagrams([self.vectors[at : at + 7] for at in range(0, len(self.vectors), 7)])


def _near(value: object, expected: float | None, tolerance: float) -> bool:
    if expected is None or value in (None, ""):
        return expected is None and value in (None, "")
    return abs(float(str(value)) - expected) <= tolerance + 1e-9


def _is_of(entry: dict[str, str], vector: Vector) -> bool:
    """Whether the entry's id is that of an event of this frame."""
    received = entry["received"] if vector.time is None else ""
    return entry["ident"] == vector.ident and entry["id"] == event_id(
        vector.ident, vector.frame, entry["type"], received=received
    )
