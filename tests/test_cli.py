"""The command line: what C{gateway decode} and C{gateway plugins} print."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from gateway.cli import main
from gateway.testing import event_id

V1 = b"*HQ,9170123456,V1,173000,A,2235.0000,N,11402.0000,E,010.00,120,221126,FFFFFBFF,460,00,9784,4081#"
BINARY = bytes.fromhex("2491701234561730002211262235000006114020000e010120fffffbffff0000")
RECEIVED = "2026-11-22T17:30:05Z"


class DecodeTests(SynchronousTestCase):
    """C{gateway decode}."""

    def run_it(self, data: bytes, *options: str) -> Result:
        """Run it with its input."""
        return CliRunner().invoke(main, ["decode", *options, "-"], input=data)

    def objects(self, data: bytes, *options: str) -> list[dict[str, Any]]:
        """The JSON objects that it prints."""
        result = self.run_it(data, "--json", "--received", RECEIVED, *options)
        self.assertEqual(0, result.exit_code, result.output)
        return [json.loads(line) for line in result.output.splitlines()]

    def test_one_report(self) -> None:
        """Bytes of a report: who, when, where, what is answered, and how it was recognised."""
        (found,) = self.objects(V1)
        self.assertEqual(("st907", None, ""), (found["protocol"], found["error"], found["rest"]))
        self.assertEqual((80, 18), (found["confidence"], found["bytes_to_commit"]))
        (message,) = found["messages"]
        self.assertEqual(V1.hex(), message["frame"])
        self.assertEqual(b"*HQ,9170123456,V4,V1,20261122173005#", bytes.fromhex(message["reply"]))
        (event,) = message["events"]
        self.assertEqual({"type", "time", "ident", "protocol", "data"}, set(event))
        self.assertEqual(
            ("position", "2026-11-22T17:30:00.000Z", "9170123456", "st907"),
            (event["type"], event["time"], event["ident"], event["protocol"]),
        )
        data = event["data"]
        self.assertEqual((22.583333, 114.033333, 18.52, 120), tuple(data[k] for k in _WHERE))
        self.assertEqual((True, False, False, "FFFFFBFF"), tuple(data[k] for k in _FLAGS))
        self.assertEqual(("460", "00", 9784, 4081), tuple(data[k] for k in ("mcc", "mnc", "lac", "cid")))

    def test_text_and_binary_mixed(self) -> None:
        """Several frames of a stream come in order, the start of another is the rest."""
        (found,) = self.objects(V1 + b"\r\n" + BINARY + V1[:20])
        self.assertEqual([V1.hex(), BINARY.hex()], [m["frame"] for m in found["messages"]])
        self.assertEqual(b"*HQ,9170123456,R12,173005#".hex(), found["messages"][1]["reply"])
        self.assertEqual(V1[:20].hex(), found["rest"])

    def test_a_payload_a_line(self) -> None:
        """With --hex each line is a connection of its own, in order; nobody's line says so and shows its bytes."""
        lines = b"\n".join([V1.hex().encode(), b"68656c6c6f", BINARY.hex().upper().encode(), b""])
        first, second, third = self.objects(lines, "--hex")
        self.assertEqual(["st907", None, "st907"], [o["protocol"] for o in (first, second, third)])
        self.assertEqual(([], b"hello".hex()), (second["messages"], second["rest"]))
        self.assertTrue(second["error"])
        self.assertEqual("$", third["messages"][0]["events"][0]["data"]["message_type"])

    def test_datagram(self) -> None:
        """As a datagram what follows a whole frame is its rest too."""
        (found,) = self.objects(V1 + V1[:20], "--transport", "udp")
        self.assertEqual([V1.hex()], [m["frame"] for m in found["messages"]])
        self.assertEqual(V1[:20].hex(), found["rest"])

    def test_bad_frame(self) -> None:
        """A frame that can't be read is named with its reason; the next one is read."""
        (found,) = self.objects(b"*HQ,9170123456,V1,bad#" + V1)
        self.assertEqual([V1.hex()], [m["frame"] for m in found["messages"]])
        self.assertIn("V1 of 4 fields", found["error"])
        (found,) = self.objects(V1 + b"hello")
        self.assertEqual(([V1.hex()], b"hello".hex()), ([m["frame"] for m in found["messages"]], found["rest"]))

    def test_no_fix(self) -> None:
        """An invalid report has no position and no speed; where it was last is marked as such."""
        (found,) = self.objects(V1.replace(b",A,", b",V,"))
        data = found["messages"][0]["events"][0]["data"]
        self.assertEqual((False, 22.583333, 114.033333), (data["valid"], data["last_latitude"], data["last_longitude"]))
        self.assertFalse({"latitude", "longitude", "speed_kmh"} & set(data))

    def test_without_a_time(self) -> None:
        """A frame without a time has that of receipt."""
        (found,) = self.objects(b"*HQ,9170123456,HTBT,100#")
        (event,) = found["messages"][0]["events"]
        self.assertEqual(("status", "2026-11-22T17:30:05.000Z"), (event["type"], event["time"]))
        self.assertEqual(b"*HQ,9170123456,HTBT#".hex(), found["messages"][0]["reply"])

    def test_nothing(self) -> None:
        """No bytes are nobody's."""
        (found,) = self.objects(b"")
        self.assertEqual((None, [], ""), (found["protocol"], found["messages"], found["rest"]))

    def test_received(self) -> None:
        """--received takes epoch seconds and RFC 3339 with or without a fraction; anything else is refused."""
        for text in ("1795368605", RECEIVED, "2026-11-22T19:30:05+02:00", "1795368605.0"):
            result = self.run_it(V1, "--json", "--received", text)
            self.assertIn(b"20261122173005".hex(), result.output, text)
        result = self.run_it(V1, "--received", "yesterday")
        self.assertEqual(2, result.exit_code)
        self.assertIn("'yesterday' is neither RFC 3339 nor epoch seconds", result.output)
        for text in ("nan", "inf", "-5", "1e30"):
            self.assertIn("lies outside of the years 1970 to 9999", self.run_it(V1, "--received", text).output)

    def test_not_hex(self) -> None:
        """A line that is not hex is named with its number in its own object; those after it are decoded."""
        line = V1.hex().encode()
        result = self.run_it(line + b"\nzz\n" + line + b"\n", "--hex", "--json")
        self.assertEqual(1, result.exit_code)
        self.assertIn("line 2: not hex: 'zz'", result.stderr)
        first, second, third = (json.loads(text) for text in result.stdout.splitlines())
        self.assertEqual(["st907", None, "st907"], [o["protocol"] for o in (first, second, third)])
        self.assertIn("line 2: not hex: 'zz'", second["error"])

    def test_readable(self) -> None:
        """Without --json it is explained in words, and nothing that a terminal would obey is printed."""
        result = self.run_it(b"\x1b[31m" + V1 + b"*HQ,9170123456,X\x1bY,1#")
        self.assertIn("nobody's", result.output)
        self.assertNotIn("\x1b", result.output)
        result = self.run_it(V1 + b"*HQ,9170123456,X\x1bY,1#" + V1[:9])
        self.assertNotIn("\x1b", result.output)
        for text in (
            "st907, confidence 80, after 18 bytes",
            "position of 9170123456",
            "latitude",
            "reply *HQ,",
            "rest, 9",
        ):
            self.assertIn(text, result.output)


_WHERE = ("latitude", "longitude", "speed_kmh", "course_deg")
_FLAGS = ("valid", "ignition", "immobilizer", "status_word")


class PluginsTests(SynchronousTestCase):
    """C{gateway plugins}."""

    def test_list(self) -> None:
        """A line a device: name, version, priority and where it comes from."""
        result = CliRunner().invoke(main, ["plugins"])
        line = r"(?m)^st907 +\S+ +priority 10 +built in, gateway\.devices\.st907; options: reply, .*, models$"
        self.assertRegex(result.output, line)

    def test_one(self) -> None:
        """One device with its options."""
        result = CliRunner().invoke(main, ["plugins", "st907"])
        for text in ("st907: SinoTrack ST-907", "version", "priority  10", "options"):
            self.assertIn(text, result.output)

    def test_unknown(self) -> None:
        """One that is not installed is an error that names those that are."""
        result = CliRunner().invoke(main, ["plugins", "gt06x"])
        self.assertEqual(1, result.exit_code)
        self.assertIn("no device 'gt06x' is installed (there are: st907", result.output)


class EventIdTests(SynchronousTestCase):
    """C{gateway.testing.event_id}, the id's public definition."""

    def test_known(self) -> None:
        """The id of a report, computed by another tool."""
        # printf '9170123456\0st907\0\0\0\0\5*HQ,#\0position\0%s\0' 0 | b2sum -l 128
        self.assertEqual("5e0327413a0e0181f1dd41cb0717c11b", event_id("9170123456", "st907", b"*HQ,#", "position"))
