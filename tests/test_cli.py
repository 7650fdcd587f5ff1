"""The command line: what C{gateway decode} and C{gateway plugins} print."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gateway.cli import main
from gateway.decoding import facts_of
from gateway.devices.st907.device import ST907
from gateway.devices.st907.settings import Options
from gateway.interfaces import Fact, IExplainingDevice
from gateway.registry import Plugin
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

    def test_why_no_position(self) -> None:
        """The fields of a report are shown with what they mean, and why there is no position."""
        frame = V1.replace(b",A,", b",V,").replace(b"FFFFFBFF", b"EFFFBBFF")
        lines = self.run_it(frame, "--received", RECEIVED).output.splitlines()
        table = [re.split(r" {2,}", line.strip()) for line in lines]
        self.assertIn(["2", "V1", "type", "a position report"], table)
        self.assertIn(["5", "2235.0000", "latitude", "22 degrees 35 minutes N = 22.583333"], table)
        self.assertIn(
            ["bit 28", "0", "alarm.power.cut", "main power cut, alarm (certain); external_power is false"], table
        )
        self.assertIn("  no position: validity is V (no fix)", lines)
        self.assertLess(lines.index("  no position: validity is V (no fix)"), self.first(lines, "  position of"))
        self.assertLess(self.first(lines, "  alarm.power.cut of 9170123456"), self.first(lines, "  reply *HQ,"))

    def first(self, lines: list[str], start: str) -> int:
        """Where the first line stands that begins so."""
        return next(at for at, line in enumerate(lines) if line.startswith(start))

    def test_aligned(self) -> None:
        """The facts of a frame stand in columns, long fields shortened, binary ones by their offsets."""
        result = self.run_it(BINARY + b"*HQ,9170123456,SMS,%b#" % (b"x" * 100))
        rows = [line for line in result.output.splitlines() if re.match(r"  (\d|flag|bit)", line)]
        binary, sms = rows[:-4], rows[-4:]
        self.assertEqual(["0", "1-5", "6-8"], [row.split()[0] for row in binary[:3]])
        for part in (binary, sms):
            self.assertEqual(1, len({_column(row) for row in part}), part)
        self.assertIn(f"  3  {'x' * 21}...  text", sms[-1])

    def test_terminal(self) -> None:
        """Whatever stands in a field, nothing reaches the terminal that it would obey."""
        for frame in (
            b"*HQ,9170123456,\x1b[31mRED\x07,\x9b2J\x85#",
            b"*HQ,9170123456,V1,17\x1b[0m,\x1bA,\x1b,N,\x1b,E,\x1b,\x1b,221126,FFFFFBFF#",
            b"*HQ,\x1b]0;me\x07,V1#",
            b"*HQ,9170123456,SMS,\x1b[1m\nID:1\x1b\nIP:\x1b 1\nAPN:\x1b[2J#",
        ):
            output = self.run_it(V1 + frame).output
            self.assertIn("frame 2", output)
            self.assertEqual("", "".join(c for c in output if not c.isprintable() and c != "\n"))

    def test_facts_as_json(self) -> None:
        """With --json each message has its facts as a list, and so have frames that can't be read."""
        bad = V1.replace(b"2235.0000", b"22x5.0000")
        (found,) = self.objects(V1.replace(b",A,", b",V,") + bad)
        (message,), (lost,) = found["messages"], found["undecodable"]
        fact = {"where": "9", "raw": "010.00", "name": "speed"}
        self.assertIn(
            fact | {"meaning": "10 knots = 18.52 km/h; of the last fix, not used"},
            message["facts"],
        )
        self.assertIn(
            {"where": "", "raw": "", "name": "no position", "meaning": "validity is V (no fix)"}, message["facts"]
        )
        self.assertEqual((bad.hex(), found["error"]), (lost["frame"], lost["error"]))
        self.assertEqual("field 5: '22x5.0000' is not degrees and minutes", lost["facts"][-1]["meaning"])

    def test_unreadable(self) -> None:
        """What is wrong with a frame that can't be read is shown at its field."""
        lines = self.run_it(V1 + V1.replace(b"2235.0000", b"22x5.0000")).output.splitlines()
        at = self.first(lines, "  can't be read: V1 of 17 fields")
        self.assertTrue(lines[at - 1].startswith("frame 2, "))
        self.assertIn("can't be read: '22x5.0000' is not degrees and minutes", "\n".join(lines[at + 1 :]))

    def test_devices_that_do_not_explain(self) -> None:
        """The frames of a device that can't explain them are shown as ever, without facts."""
        request = b"GET /?id=abc&lat=1&lon=2&timestamp=1795368600 HTTP/1.1\r\nHost: x\r\n\r\n"
        (found,) = self.objects(request)
        self.assertEqual(("osmand", []), (found["protocol"], found["messages"][0]["facts"]))
        lines = self.run_it(request, "--received", RECEIVED).output.splitlines()
        self.assertTrue(lines[self.first(lines, "frame 1") + 1].startswith("  position of abc"))

    def test_fails_to_explain(self) -> None:
        """A device that fails to explain a frame does not hide what the frame leads to."""

        @implementer(IExplainingDevice)
        class Broken(ST907):
            """A device with a bug."""

            def explain(self, frame: bytes, options: Any, registry: Mapping[str, str]) -> Sequence[Fact]:
                raise KeyError("\x1b")

        plugin = Plugin("st907", 10, Broken(), Options(), "built in", "0")
        self.assertEqual(["can't be explained"], [fact.name for fact in facts_of(plugin, V1, {})])

    def test_registry(self) -> None:
        """What would be registered of a unit can be tried: its events and its reply are those of such a unit."""
        frame = V1.replace(b"#", b",5#")
        (found,) = self.objects(frame)
        data = found["messages"][0]["events"][0]["data"]
        self.assertEqual((False, 22.583333), (data["ignition"], data["latitude"]))
        self.assertNotIn("battery_pct", data)
        options = ("acc_wired=0", "hemisphere=SW", "battery=percent", "time_offset_s=28800", "reply=r12")
        (found,) = self.objects(frame, *(word for option in options for word in ("--registry", option)))
        event = found["messages"][0]["events"][0]
        data = event["data"]
        self.assertEqual((-22.583333, -114.033333, 5), (data["latitude"], data["longitude"], data["battery_pct"]))
        self.assertEqual(("2026-11-22T09:30:00.000Z", False), (event["time"], data["ignition_bit"]))
        self.assertNotIn("ignition", data)
        self.assertEqual(b"*HQ,9170123456,R12,173005#".hex(), found["messages"][0]["reply"])
        output = self.run_it(frame, "--registry", "acc_wired=0").output
        self.assertTrue(output.startswith("set for the unit: acc_wired=0\n"), output)
        self.assertNotIn("state.ignition", output)

    def test_registry_model(self) -> None:
        """A model's options, as they are configured, hold for a unit that is registered as one."""
        path = Path(self.mktemp())
        path.write_text('[devices.st907.models.ST-901L]\nreply = "both"\n')
        (found,) = self.objects(V1, "--config", str(path), "--registry", "model=ST-901L")
        reply = b"*HQ,9170123456,V4,V1,20261122173005#*HQ,9170123456,R12,173005#"
        self.assertEqual(reply.hex(), found["messages"][0]["reply"])

    def test_registry_faults(self) -> None:
        """A value that can't be used is told as a gateway tells it; what is no KEY=VALUE is refused."""
        (found,) = self.objects(V1, "--registry", "battery=volts")
        (finding,) = [e for e in found["messages"][0]["events"] if e["type"] == "device.quality"]
        self.assertIn("battery: 'volts' is none of", finding["data"]["reason"])
        for text in ("battery", "=1"):
            result = self.run_it(V1, "--registry", text)
            self.assertEqual(2, result.exit_code)
            self.assertIn(f"'{text}' is not KEY=VALUE", result.output)

    def test_no_reply(self) -> None:
        """A unit that gets no answers is shown to get none."""
        (found,) = self.objects(V1, "--registry", "reply=none")
        self.assertIsNone(found["messages"][0]["reply"])
        self.assertIn("  reply none\n", self.run_it(V1, "--registry", "reply=none").output)


def _column(row: str) -> int:
    """Where the last but one column of a table's row begins."""
    match = re.match(r"  (?:\S+ ?\S*?) +(?=\S)", row)
    return match.end() if match is not None else -1


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

    def test_commands(self) -> None:
        """The commands that it knows, each with its channels, how sure that is, and what there is to know."""
        result = CliRunner().invoke(main, ["plugins", "st907"])
        self.assertRegex(result.output, r"(?m)^  commands\n    engine\.stop +data, sms +likely +S20: .+$")
        self.assertRegex(result.output, r"(?m)^    position\.request +sms +certain +SMS 669; .+$")
        self.assertRegex(CliRunner().invoke(main, ["plugins", "osmand"]).output, r"(?m)^  commands  none$")

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
