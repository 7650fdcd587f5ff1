"""Entries as consumers read them, and the contract that they check."""

from __future__ import annotations

import json
import unittest
from datetime import UTC, datetime
from typing import Any, get_type_hints

from gateway.entries import Contract, Event, chosen
from gateway.errors import ContractMismatch, UnreadableEntry
from gateway.events import COLUMNS, ENVELOPE, STREAMS

ENTRY = "1795369767688-0"


def report(**fields: str) -> dict[str, str]:
    """The fields of a report, some of them as given."""
    envelope = {
        **{"v": "1", "id": "8d072b598e923814a4ff8ffd31cbaec5", "type": "position", "source": "gateway/here"},
        **{"time": "2026-11-22T17:49:27.000Z", "received": "2026-11-22T17:49:27.685Z"},
        **{"ident": "9170123456", "protocol": "st907"},
    }
    return {**envelope, **dict.fromkeys(COLUMNS, ""), "data": "{}"} | fields


def row(fields: dict[str, str]) -> list[bytes]:
    """Fields as Redis gives them."""
    return [text.encode() for pair in fields.items() for text in pair]


def read(stream: str = "position", **fields: str) -> Event:
    """A report as an event."""
    return Event.parse(stream, ENTRY, row(report(**fields)))


class EventTests(unittest.TestCase):
    """C{Event}."""

    def test_report(self) -> None:
        """The columns of a report have their types, and times are times."""
        event = read(
            latitude="52.520000",
            longitude="-13.405000",
            speed_kmh="41.00",
            course_deg="85",
            valid="1",
            ignition="0",
            battery_pct="80",
            levels="overspeed,power.cut",
            late="lag",
            data='{"mcc":"262","lac":341}',
        )
        self.assertEqual((52.52, -13.405, 41.0), (event.latitude, event.longitude, event.speed_kmh))
        self.assertEqual((85, True, False, 80.0), (event.course_deg, event.valid, event.ignition, event.battery_pct))
        self.assertEqual((("overspeed", "power.cut"), "lag"), (event.levels, event.late))
        self.assertEqual({"mcc": "262", "lac": 341}, event.data)
        self.assertEqual(datetime(2026, 11, 22, 17, 49, 27, 685_000, UTC), event.received)
        self.assertEqual((1, "position", ENTRY, "gateway/here"), (event.v, event.stream, event.entry, event.source))

    def test_unknown(self) -> None:
        """What is empty is unknown: None, and not zero or false."""
        event = read()
        for name in ("latitude", "speed_kmh", "course_deg", "valid", "satellites", "ignition", "odometer_km"):
            self.assertIsNone(getattr(event, name), name)
        self.assertEqual(((), "", ""), (event.levels, event.late, event.status_word))

    def test_every_field(self) -> None:
        """Every field and column of the contract is an attribute of an event."""
        self.assertLessEqual({*ENVELOPE, *COLUMNS, "data"}, set(get_type_hints(Event)))
        self.assertEqual({}, read().more)

    def test_other_streams(self) -> None:
        """An entry of another stream has no columns, but a device id and data."""
        fields = {name: text for name, text in report(type="alarm.sos", device_id="car-7").items() if name != "valid"}
        fields = {name: fields[name] for name in (*ENVELOPE, "device_id", "data")}
        event = Event.parse("event", ENTRY, row(fields))
        self.assertEqual(("alarm.sos", "car-7", None), (event.type, event.device_id, event.valid))

    def test_more(self) -> None:
        """Fields that are not known yet are kept as they are."""
        self.assertEqual({"hdg": "7"}, read(hdg="7").more)

    def test_unreadable(self) -> None:
        """What is not as the contract says is refused, with what is wrong."""
        cases: list[tuple[dict[str, str], str]] = [
            ({"time": "yesterday"}, "yesterday"),
            ({"time": "2026-11-22T17:49:27"}, "has no zone"),
            ({"data": "[" * 100_000}, "not an entry of the contract"),
            ({"data": "[1]"}, "no JSON object"),
            ({"data": "{"}, "not an entry of the contract"),
            ({"latitude": "north"}, "north"),
            ({"latitude": "nan"}, "'nan' is no number"),
            ({"valid": "yes"}, "'yes' is not 1, 0 or empty"),
            ({"v": "one"}, "one"),
        ]
        for fields, what in cases:
            with self.assertRaisesRegex(UnreadableEntry, what):
                read(**fields)
        for missing in ("v", "id", "time", "data", "device_id"):
            with self.assertRaisesRegex(UnreadableEntry, missing):
                Event.parse("position", ENTRY, row({n: t for n, t in report().items() if n != missing}))
        with self.assertRaises(UnreadableEntry):
            Event.parse("position", ENTRY, [b"v", b"1", b"\xff", b""])

    def test_another_version(self) -> None:
        """An entry of another version is no broken one: whoever reads has to know."""
        with self.assertRaisesRegex(ContractMismatch, "version 2"):
            read(v="2")


class ContractTests(unittest.TestCase):
    """C{Contract}."""

    def contract(self, **other: Any) -> Contract:
        """One as a gateway writes it, some of it as given."""
        found = {
            "version": 1,
            "prefix": "gateway",
            "streams": {f"gateway:{stream}": types for stream, types in STREAMS.items()},
            "columns": COLUMNS,
            "shards": [{"tag": ""}],
        }
        return Contract.parse(json.dumps(found | other).encode(), "gateway:contract")

    def test_right(self) -> None:
        """What a gateway writes is what a consumer needs; its keys are those of the shards."""
        for stream in STREAMS:
            self.contract().check("gateway", stream, ())
            self.assertEqual([f"gateway:{stream}"], self.contract().keys(stream))
        self.contract().check("gateway", "event", ("alarm.", "state.ignition"))
        shards = self.contract(shards=[{"tag": "a"}, {"tag": "b"}])
        self.assertEqual(["gateway:{a}:position", "gateway:{b}:position"], shards.keys("position"))

    def test_wrong(self) -> None:
        """What is missing is named."""
        cases: list[tuple[dict[str, Any], str, tuple[str, ...], str]] = [
            ({"version": 2}, "position", (), "version 2"),
            ({"prefix": "other"}, "position", (), "prefix 'other'"),
            ({}, "positions", (), "no stream 'positions' .there are: position, event"),
            ({"columns": COLUMNS[1:]}, "position", (), "no column device_id"),
            ({}, "event", ("alarm.sso",), "no type 'alarm.sso' on the stream 'event'"),
            ({"shards": []}, "position", (), "no shard"),
            ({"streams": []}, "position", (), "no contract of a gateway"),
        ]
        for other, stream, types, what in cases:
            with self.assertRaisesRegex(ContractMismatch, what):
                self.contract(**other).check("gateway", stream, types)
        for text in (b"", b"[]", b"{}", b"\xff"):
            with self.assertRaisesRegex(ContractMismatch, "gateway:contract is no contract"):
                Contract.parse(text, "gateway:contract")

    def test_chosen(self) -> None:
        """A name stands for itself, or for all that begin so when it ends in a dot."""
        self.assertTrue(chosen("alarm.sos", ("state.", "alarm.")))
        self.assertTrue(chosen("alarm.sos", ("alarm.sos",)))
        self.assertFalse(chosen("alarm.sos", ("alarm", "alarm.so")))
