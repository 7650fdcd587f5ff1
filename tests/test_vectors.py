"""The public vectors of ../shared: what each message says, and the laws of detection over all of them."""

from __future__ import annotations

import json
import random
from calendar import timegm
from functools import lru_cache
from pathlib import Path
from time import strptime
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from gateway import registry
from gateway.connection import Connection, Limits
from gateway.detection import Candidates, Detector
from gateway.devices.st907 import device
from gateway.fields import KMH_PER_KNOT
from gateway.interfaces import MORE, NO, YES, Message
from tests.fakes import NOON, no_memory

VECTORS = Path(__file__).resolve().parents[2] / "shared" / "vectors"
#: What the ST-907's family is called there.
FAMILY = "h02"


@lru_cache
def rows(name: str) -> tuple[dict[str, Any], ...]:
    """The lines of a file of vectors."""
    path = VECTORS / name
    if not path.exists():
        raise SkipTest(f"{path} is not there: the vectors lie beside the checkout, not in it")
    with path.open() as file:
        return tuple(json.loads(line) for line in file)


def expected() -> list[tuple[bytes, dict[str, Any]]]:
    """The messages of the ST-907's family and what they say; a text without its end sign has one on the wire."""
    return [(bytes.fromhex(row["hex"]), row) for row in rows("st907_expected.jsonl")]


def payloads(family: bool) -> list[bytes]:
    """The messages of this family, or those of all others, as they stand on the wire; each once."""
    found = {
        bytes.fromhex(row["wire_hex"])
        for row in rows("vectors.public.jsonl")
        if (row["protocol"] == FAMILY) is family and row.get("wire_hex")
    }
    return sorted(found - {b""})


def openers() -> list[bytes]:
    """Those of the family that are whole messages, not a splitter's own test bytes."""
    found = {
        bytes.fromhex(row["wire_hex"])
        for row in rows("vectors.public.jsonl")
        if row["protocol"] == FAMILY and row["group"] == "decoder" and row.get("wire_hex")
    }
    return sorted(found)


def decode(*reads: bytes) -> list[Message]:
    """What a decoder of the st907 makes of these reads and the end of the stream."""
    made = device.decoder(None, no_memory)
    return [*(m for read in reads for m in made.receive(read, NOON)), *made.finish(NOON)]


def essence(message: Message) -> tuple[Any, ...]:
    """What a message says, in a form that can be compared."""
    events = [(event.type, event.time, tuple(sorted(event.attributes.items(), key=repr))) for event in message.events]
    return (message.raw, message.ident, repr(events), repr(sorted(message.levels.items())), message.error is None)


class ExpectedTests(SynchronousTestCase):
    """Every message decodes as expected."""

    maxDiff = None

    def check(self, data: bytes, row: dict[str, Any]) -> list[str]:
        """What is wrong with the reading of a message."""
        messages = decode(data)
        if len(messages) != 1 or messages[0].error is not None:
            return [f"{len(messages)} messages, {[m.error for m in messages]}"]
        message = messages[0]
        (event,) = message.events
        wrong: list[str] = []

        def same(name: str, wanted: Any, got: Any, within: float = 0.0) -> None:
            close = got is not None and wanted is not None and within and abs(wanted - got) <= within
            if wanted != got and not close:
                wrong.append(f"{name}: {got!r}, not {wanted!r}")

        at = row["time"]
        same("ident", row["ident"], message.ident)
        same("time", None if at is None else float(timegm(strptime(at, "%Y-%m-%dT%H:%M:%SZ"))), event.time)
        attributes = event.attributes
        if row["valid"]:
            same("latitude", row["latitude"], attributes.get("latitude"), 0.000001)
            same("longitude", row["longitude"], attributes.get("longitude"), 0.000001)
            same("speed", row["speed_kmh"], attributes.get("speed_kmh"), 0.01)
            same("course", round(row["course"]) % 360 if row["course"] is not None else 0, attributes.get("course_deg"))
        else:
            same("last latitude", row["latitude"], attributes.get("last_latitude"), 0.000001)
            same("last longitude", row["longitude"], attributes.get("last_longitude"), 0.000001)
            found = {"latitude", "longitude", "speed_kmh", "course_deg"} & set(attributes)
            same("of a fix", set(), found)
        if row["valid"] is not None:
            same("type", "position", event.type)
            same("valid", row["valid"], attributes.get("valid"))
        if row["status"] is not None:
            same("status word", row["status"], attributes.get("status_word"))
            word = int(row["status"], 16)
            same("ignition", bool(word & 1 << 10), message.levels.get("ignition"))
            same("immobilizer", not word & 1 << 27, message.levels.get("immobilizer"))
        return wrong

    def test_all(self) -> None:
        """Ident, time, position, speed, course, validity and status word of each are those expected."""
        wrong = {}
        for data, row in expected():
            if found := self.check(data, row):
                wrong[row["text"] or row["hex"]] = found
        self.assertEqual({}, wrong)

    def test_knots(self) -> None:
        """The unit of the wire is the knot."""
        self.assertEqual(1.852, KMH_PER_KNOT)

    def test_byte_by_byte(self) -> None:
        """Each says the same when it comes byte by byte."""
        for data, row in expected():
            wanted = [essence(m) for m in decode(data)]
            self.assertEqual(
                wanted, [essence(m) for m in decode(*(bytes([b]) for b in data))], row["text"] or row["hex"]
            )

    def test_chains(self) -> None:
        """Chains of twenty messages, text and binary mixed, cut at random places, say what each says alone."""
        picked = [(data, [essence(m) for m in decode(data)]) for data, _ in expected()]
        for seed in range(150):
            dice = random.Random(seed)
            chain = [dice.choice(picked) for _ in range(20)]
            stream = b"".join(data + dice.choice((b"", b"", b"\r\n", b"\n")) for data, _ in chain)
            reads, at = [], 0
            while at < len(stream):
                size = dice.choice((1, 2, 31, 32, 45, 100, 1460)) if dice.random() < 0.5 else dice.randint(1, 200)
                reads.append(stream[at : at + size])
                at += size
            got = [essence(m) for m in decode(*reads)]
            self.assertEqual([one for _, said in chain for one in said], got, f"seed {seed}")


class DetectionTests(SynchronousTestCase):
    """Who is taken for whom."""

    def test_all_of_the_family(self) -> None:
        """Every message of the family alone is detected as st907, over TCP and as a datagram."""
        plugins = registry.load()
        for data in [*openers(), *(data for data, _ in expected())]:
            detector = Detector(Candidates(plugins, "tcp"), 1024)
            decision = detector.feed(data) or detector.end("the end of the stream")
            self.assertEqual("st907", decision.plugin.name if decision.plugin else None, (data, decision))
            datagram = Detector(Candidates(plugins, "udp"), 1024).whole(data)
            self.assertEqual("st907", datagram.plugin.name if datagram.plugin else None, (data, datagram))

    def test_bytes_until_commit(self) -> None:
        """Half of them are known by 24 bytes, all by 32."""
        plugins = registry.load()
        at = []
        for data in openers():
            decision = Detector(Candidates(plugins, "tcp"), 1024).feed(data)
            self.assertIsNotNone(decision, data)
            if decision is not None:
                at.append(decision.at)
        at.sort()
        self.assertLessEqual(at[len(at) // 2], 24)
        self.assertLessEqual(at[-1], 32)

    def test_nobody_else(self) -> None:
        """No message of another protocol is taken for an st907's, over TCP or as a datagram."""
        plugins = [plugin for plugin in registry.load() if plugin.name == "st907"]
        own = set(payloads(True))
        taken = []
        for data in payloads(False):
            detector = Detector(Candidates(plugins, "tcp"), 1024)
            decision = detector.feed(data) or detector.silence() or detector.end("the end of the stream")
            datagram = Detector(Candidates(plugins, "udp"), 1024).whole(data)
            if data not in own and (decision.plugin or datagram.plugin):
                taken.append((data, decision.reason))
        self.assertEqual([], taken)

    def test_laws(self) -> None:
        """On every prefix of every vector NO is final, a YES of 80 stays, and nothing at all is MORE(0)."""
        own = {data for data, _ in expected()} | set(openers())
        for plugin in registry.load():
            self.assertEqual(0, getattr(plugin.detect(b"", "tcp"), "claim", None))
            self.assertIsInstance(plugin.detect(b"", "udp"), MORE)
            for data in sorted(own | set(payloads(False)) | set(payloads(True))):
                refused, sure = 0, 0
                for size in range(1, min(len(data), 1024) + 1):
                    answer = plugin.detect(data[:size], "tcp")
                    if isinstance(answer, NO):
                        if plugin.name == "st907":
                            self.assertNotIn(data, own, f"NO on its own at byte {size}: {answer.reason}")
                        self.assertFalse(sure, f"YES at byte {sure}, NO at byte {size}: {data!r}")
                        if refused and size > refused + 60:
                            break  # far enough: detectors look at the start
                        refused = refused or size
                    else:
                        self.assertFalse(refused, f"NO at byte {refused}, {answer} at byte {size}: {data!r}")
                        if isinstance(answer, YES) and answer.confidence >= 80:
                            sure = sure or size


class ConnectionTests(SynchronousTestCase):
    """The vectors through a whole connection."""

    def test_detected_and_decoded(self) -> None:
        """Each message, byte by byte on a connection of its own, is known and says what its decoder says of it."""
        plugins = registry.load()
        for data, row in expected():
            connection = Connection(Candidates(plugins, "tcp"), Limits(), no_memory, NOON)
            got = [m for byte in data for m in connection.receive(bytes([byte]), NOON)] + [*connection.end(NOON)]
            self.assertEqual([essence(m) for m in decode(data)], [essence(m) for m in got], row["text"] or row["hex"])
