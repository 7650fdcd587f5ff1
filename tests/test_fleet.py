"""What follows from what is known of a device, in a line; files of devices; what strangers have in common."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from gateway.fields import rfc3339
from gateway.fleet import registering, strangers
from gateway.fleet.listing import Device
from gateway.fleet.registering import RegistryError
from gateway.fleet.showing import Lately, Shown
from gateway.fleet.strangers import Entry
from tests.fakes import NOON

IDENT: Final = "9170123456"
FIX: Final = {"latitude": "52.520000", "longitude": "13.405000"}


def heard(ago: float = 5, **fields: str) -> dict[str, str]:
    """A last state of so long ago, with a fix unless it says otherwise."""
    at = rfc3339(NOON - ago)
    last = {"seen": at, "time": at, "received": at, "online": "1", "valid": "1", "peer": "192.0.2.7:4711", **FIX}
    return {**last, "transport": "tcp", "protocol": "st907", "speed_kmh": "0.00", **fields}


def unfixed(ago: float | None, **fields: str) -> dict[str, str]:
    """One whose last fix is so long ago."""
    fix = {} if ago is None else {"fix_time": rfc3339(NOON - ago), "fix_latitude": "1.0", "fix_longitude": "2.0"}
    return {**heard(latitude="", longitude="", valid="0"), **fix, **fields}


def refused(kind: str = "frame.unauthorised", ago: float = 60, by: str = "ident", **more: Any) -> dict[str, Any]:
    """Something that was turned away."""
    at = round((NOON - ago) * 1000)
    return {
        "type": kind,
        "at": at,
        "by": by,
        "reason": "it is not in the registry",
        "limit": None,
        "peer": "x:1",
    } | more


def shown(
    last: Mapping[str, str] | None = None,
    *,
    registry: Mapping[str, str] | None = None,
    state: Mapping[str, Any] | None = None,
    lately: tuple[int, int, int] = (14, 14, 0),
    holder: str = "gw",
    **more: Any,
) -> Shown:
    """What is known of a device."""
    device = Device.of(IDENT, last or {}, registry, None, NOON)
    values: dict[str, Any] = {
        "refusals": (),
        "near": (),
        "commands": (),
        "traced_until": None,
        "gateways": {"gw": True},
    } | more
    return Shown(
        IDENT,
        NOON,
        device,
        registry or {},
        last or {},
        state or {},
        holder,
        Lately(*lately, 600.0),
        b"",
        None,
        (),
        **values,
    )


class VerdictTests(SynchronousTestCase):
    """The first line of C{gateway show}."""

    maxDiff = None

    def test_each(self) -> None:
        """What happens to people, and the line that says so."""
        conflict = {"senders": ["b:2", NOON, "a:1", NOON, 20.0, "a:1", NOON, NOON, "x"]}
        cases: tuple[tuple[Shown, str], ...] = (
            (shown(heard()), "connected, 14 reports in 10 minutes"),
            (
                shown(
                    unfixed(4 * 3600 - 480),
                    lately=(14, 0, 0),
                    state={"memory": {"acc": "unwired"}},
                    commands=("ref",),
                ),
                "connected, 14 reports in 10 minutes, none with a fix since 08:08; ACC not wired; 1 command waiting",
            ),
            (
                shown(unfixed(None), lately=(1, 0, 0)),
                "connected, 1 report in 10 minutes, and never one with a fix: has it a view of the sky?",
            ),
            (shown(unfixed(60), lately=(9, 4, 0)), "connected, 9 reports in 10 minutes, 5 of them without a fix"),
            (shown(heard(30), holder=""), "heard 30s ago, 14 reports in 10 minutes"),
            (shown(heard(), lately=(0, 0, 0)), "connected, no report in 10 minutes, it only says that it is there"),
            (shown(), "never heard, and not in the registry"),
            (shown(registry={"alias": "van"}), "never heard"),
            (
                shown(near=("9170123457", "9170123465")),
                "never heard, and not in the registry; did you mean 9170123457, 9170123465?",
            ),
            (
                shown(refusals=(refused(),)),
                f"turned away 60s ago: it is not in the registry; let it in with: gateway registry adopt {IDENT}",
            ),
            (
                shown(refusals=(refused("device.rejected", limit="new_idents"),), registry={"alias": "van"}),
                "turned away 60s ago: new_idents; met the limit new_idents",
            ),
            (
                shown(refusals=(refused("frame.undecodable", reason="bad date"),)),
                "never heard, and not in the registry; but it sent what could not be read, 60s ago: bad date",
            ),
            (
                shown(heard(), registry={"enabled": "0"}, refusals=(refused(),)),
                "the registry turns it away (enabled 0), and it keeps trying",
            ),
            (
                shown(heard(7200, battery_pct="15", external_power="0"), holder=""),
                "silent for 2h; its battery was at 15 %; it had lost its supply",
            ),
            (
                shown(heard(late="device"), lately=(9, 9, 9)),
                "connected, 9 reports in 10 minutes; all of them late (device): it sends its buffer, or its clock is "
                "wrong",
            ),
            (
                shown(heard(time=rfc3339(NOON - 86_400 * 3))),
                "connected, 14 reports in 10 minutes; its newest report is of 2026-11-19 12:00: is its clock right?",
            ),
            (
                shown(heard(levels="sos,power.cut", immobilizer="1"), state=conflict),
                "connected, 14 reports in 10 minutes; two senders use this ident: a:1 and b:2; "
                "alarm: sos, power.cut; relay cut",
            ),
            (
                shown(heard(), registry={"acc_wired": "0"}, state={"memory": {"acc": "wired"}}),
                "connected, 14 reports in 10 minutes; ACC not wired",
            ),
            (
                shown(heard(), registry={"acc_wired": "1"}, state={"memory": {"acc": "unwired"}}),
                "connected, 14 reports in 10 minutes",
            ),
            (
                shown(heard(), refusals=(refused("frame.undecodable"), refused("frame.undecodable"))),
                "connected, 14 reports in 10 minutes; 2 frames of it could not be read, the last 60s ago",
            ),
            (
                shown(heard(), refusals=(refused("frame.unrecognised", by="address"),)),
                "connected, 14 reports in 10 minutes; 1 connection or frame from its address could not be read, the "
                "last 60s ago",
            ),
            (
                shown(heard(), gateways={"gw": False}),
                "the gateway is not ready: what comes may be in its journal; connected, 14 reports in 10 minutes",
            ),
            (shown(gateways={}), "no gateway is running on this Redis; never heard, and not in the registry"),
        )
        for one, line in cases:
            self.assertEqual(line, one.verdict)
            json.dumps(one.as_json())


class StateTests(SynchronousTestCase):
    """C{Device.state}, and where it was last."""

    def test_each(self) -> None:
        """What is said first of a device."""
        for last, registry, state in (
            (heard(speed_kmh="30.00"), None, "moving"),
            (heard(speed_kmh="5.00"), None, "standing"),
            (heard(speed_kmh="30.00", levels="overspeed"), None, "alarm"),
            (unfixed(60), None, "nofix"),
            (heard(899), None, "standing"),
            (heard(900, levels="sos"), None, "silent"),
            ({}, {"alias": "x"}, "never"),
            (heard(), {"enabled": "no"}, "disabled"),
            (heard(seen="nonsense", speed_kmh="fast"), None, "never"),
        ):
            self.assertEqual(state, Device.of(IDENT, last, registry, None, NOON).state, last)

    def test_where(self) -> None:
        """Where it is, or was last, and when; a fix of before is not taken for one of now."""
        device = Device.of(
            IDENT, heard(fix_time=rfc3339(NOON - 500), fix_latitude="9", fix_longitude="9"), None, None, 0
        )
        self.assertEqual((52.52, 13.405, round(NOON - 5) * 1000), (device.latitude, device.longitude, device.fix_time))
        device = Device.of(IDENT, unfixed(60), None, None, NOON)
        self.assertEqual((1.0, 2.0, round(NOON - 60) * 1000), (device.latitude, device.longitude, device.fix_time))
        device = Device.of(IDENT, unfixed(None), None, None, NOON)
        self.assertEqual((None, None, None), (device.latitude, device.longitude, device.fix_time))

    def test_no_number(self) -> None:
        """A column that holds no number, or none that is finite, and a time that no clock has, say nothing."""
        for said in ("inf", "-1e999", "nan", "east"):
            device = Device.of(
                IDENT, heard(course_deg=said, speed_kmh=said, latitude=said, battery_pct=said), None, None, NOON
            )
            self.assertEqual(
                [None] * 4, [device.course_deg, device.speed_kmh, device.latitude, device.battery_pct], said
            )
        for said in ("0001-01-01", "9999-12-31T23:59:59-23:00", "noon"):
            self.assertIsNone(Device.of(IDENT, heard(time=said), None, None, NOON).time, said)


class FileTests(SynchronousTestCase):
    """C{gateway registry import} and C{export}."""

    def read(self, text: str) -> list[registering.Row]:
        """Read a file."""
        return registering.read_csv(io.StringIO(text), "fleet.csv")

    def test_there_and_back(self) -> None:
        """What is exported is imported again."""
        entries = [("9170123456", {"alias": 'a "van", red', "imei": "351234567890123"}), ("9170123457", {"own": "x"})]
        file = io.StringIO()
        self.assertEqual(2, registering.write_csv(file, entries))
        self.assertEqual(entries, [(row.ident, dict(row.values)) for row in self.read(file.getvalue())])

    def test_mistakes(self) -> None:
        """Each line that can't be read is named, and nothing is taken."""
        for text, *said in (
            ("alias\nx\n", "fleet.csv, line 1", "ident"),
            ("ident,alias,alias\n", "line 1", "once"),
            ("", "line 1"),
            (
                "ident,alias\n1234567890,x,y\n!!,x\n1234567891,x\n1234567891,y\n",
                "line 2: 3 cells",
                "line 3: '!!'",
                "line 5",
            ),
            ("ident,phone\n1234567890,abc\n", "line 2: 1234567890: phone is 'abc', not 5 to 15 digits"),
            ("ident,enabled\n1234567890,maybe\n", "enabled is 'maybe', not 0 or 1"),
            ("ident,Alias\n1234567890,x\n", "'Alias' is no name of a field"),
            ('ident,alias\n1234567890,"x\n', "line", "is not CSV"),
            ("ident,alias\nchanges,x\n", "'changes' is no ident"),
            (f"ident,alias\n1234567890,{'x' * 513}\n", "longer than 512 bytes"),
        ):
            with self.assertRaises(RegistryError) as caught:
                self.read(text)
            for part in said:
                self.assertIn(part, str(caught.exception))

    def test_many_mistakes(self) -> None:
        """Of very many the first are named, and how many more there are."""
        with self.assertRaises(RegistryError) as caught:
            self.read("ident\n" + "!\n" * 1000)
        self.assertIn("and 980 more", str(caught.exception))
        self.assertLess(len(str(caught.exception)), 4000)


class StrangersTests(SynchronousTestCase):
    """C{gateway unknown}."""

    def entry(self, frame: bytes, kind: str = "frame.unrecognised", peer: str = "192.0.2.7:1", **more: Any) -> Entry:
        """An entry of the dead stream."""
        data = {"frame": frame.hex(), "frame_bytes": len(frame), "peer": peer, "transport": "tcp", **more}
        return Entry({"type": kind, "received": rfc3339(NOON), "data": json.dumps(data)})

    def test_groups(self) -> None:
        """What looks alike is one group, with where it came from and why it was not taken; the most of it first."""
        entries = [self.entry(b"GET /%d HTTP/1.1\r\n" % n, peer=f"192.0.2.{n}:5", reason="no") for n in range(12)]
        entries.append(self.entry(b"\x16\x03\x01\0" + bytes(60), reason="no"))
        first, second = strangers.unrecognised(entries)
        self.assertEqual((12, "GET /9 HTTP/9.9"), (first["count"], first["signature"]))
        self.assertEqual((8, 4), (len(first["addresses"]), first["more_addresses"]))
        self.assertEqual([{"reason": "no", "count": 12}], first["reasons"])
        self.assertEqual((1, "16 03 01 00 (binary)"), (second["count"], second["signature"]))

    def test_hostile(self) -> None:
        """What a terminal obeys is nowhere; entries of anybody's are no error."""
        text = json.dumps(strangers.unrecognised([self.entry(b"\x1b[31mred\x07"), self.entry(b""), Entry({})]))
        self.assertNotIn("\\u001b", text)
        Entry({"data": "[]"})
        self.assertEqual(b"", Entry({"data": '{"frame": "zz"}'}).frame)

    def test_bounded(self) -> None:
        """However many kinds there are, so many are shown."""
        shapes = ("".join(chr(33 + (n >> shift) % 15) for shift in (0, 4, 8)) for n in range(1000))
        found = strangers.unrecognised(self.entry(shape.encode()) for shape in shapes)
        self.assertLessEqual(len(found), strangers.GROUPS + 1)
        self.assertEqual(1000, sum(group["count"] for group in found))

    def test_near(self) -> None:
        """What a number may have been meant for."""
        others = "9170123457 9170123465 917012345 91701234560 123459170123456 9170999999 9170123456".split()
        expected = "123459170123456 917012345 91701234560 9170123457 9170123465".split()
        self.assertEqual(expected, strangers.near(IDENT, others))
