"""The contract: its tables, its schema and its examples are those of the code, and no entry breaks it."""

from __future__ import annotations

import doctest
import json
import re
import runpy
import unittest
from pathlib import Path
from typing import Any, Final

import jsonschema

from gateway import events
from gateway.config import StreamsSection

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"

#: What a position entry is at least.
ENTRY: Final = {
    "v": "1",
    "id": "8d072b598e923814a4ff8ffd31cbaec5",
    "type": "position",
    "source": "gateway/host-8888",
    "time": "2026-11-22T17:49:27.000Z",
    "received": "2026-11-22T17:49:27.685Z",
    "ident": "9170123456",
    "protocol": "st907",
    **dict.fromkeys(events.COLUMNS, ""),
    "latitude": "52.520000",
    "longitude": "-13.405000",
    "speed_kmh": "41.00",
    "course_deg": "85",
    "valid": "1",
    "transport": "tcp",
    "data": {"mcc": "262", "lac": 341},
}


def table(name: str) -> list[list[str]]:
    """The rows of a table of contract.rst, without its head, read from the text: each cell without its quotes."""
    text = (DOCS / "contract.rst").read_text()
    found = re.search(rf"^\.\. begin {name}\n(.*?)^\.\. end {name}\n", text, re.DOTALL | re.MULTILINE)
    assert found is not None, name
    rows = re.split(r"^   \* - ", found[1], flags=re.MULTILINE)[2:]
    return [[cell.strip().strip("`") for cell in re.split(r"^     -", row, flags=re.MULTILINE)] for row in rows]


class ContractTests(unittest.TestCase):
    """docs/contract.rst and docs/contract.schema.json."""

    def setUp(self) -> None:
        """Load the program that writes them."""
        self.program: dict[str, Any] = runpy.run_path(str(DOCS / "tables.py"))

    def test_written(self) -> None:
        """Tables and schema are as C{python docs/tables.py} writes them."""
        text = (DOCS / "contract.rst").read_text()
        self.assertEqual(self.program["inserted"](text), text)
        self.assertEqual((DOCS / "contract.schema.json").read_text(), self.program["schema"]())

    def test_schema(self) -> None:
        """The schema is that of gateway.events."""
        self.assertEqual(json.loads((DOCS / "contract.schema.json").read_text()), events.json_schema())

    def test_envelope(self) -> None:
        """The table of the first fields has all of them, in their order, with the present version."""
        rows = table("envelope")
        self.assertEqual([name for name, _ in rows], [*events.ENVELOPE])
        self.assertTrue(rows[0][1].endswith(f"``{events.CONTRACT_VERSION}"), rows[0])
        self.assertIn(events.IDENT.pattern, rows[6][1])

    def test_columns(self) -> None:
        """The table of columns has all of them, in their order, each with a form and a meaning."""
        rows = table("columns")
        self.assertEqual([row[0] for row in rows], [*events.COLUMNS])
        self.assertTrue(all(form and meaning for _, form, meaning in rows))

    def test_types(self) -> None:
        """The table of types has each type with its stream and a meaning, and no other."""
        rows = table("types")
        self.assertEqual(
            [(kind, stream) for kind, stream, _, _ in rows],
            [(kind, f"gateway:{stream}") for stream, kinds in events.STREAMS.items() for kind in kinds],
        )
        self.assertTrue(all(meaning for *_, meaning in rows))
        self.assertEqual({origin for _, _, origin, _ in rows}, {"device", "gateway", "later"})
        self.assertEqual(set(self.program["TYPES"]), set(events.STREAM_OF))

    def test_streams(self) -> None:
        """The table of streams has all of them, with the retention that is configured by default."""
        rows = table("streams")
        self.assertEqual([key for key, _, _ in rows], [f"gateway:{stream}" for stream in events.STREAMS])
        kept = {key.removeprefix("gateway:"): rule for key, _, rule in rows}
        for stream, rule in kept.items():
            hours = getattr(StreamsSection(), f"{stream}_hours")
            entries = getattr(StreamsSection(), f"{stream}_entries")
            said = [rule.partition(" ")[0]] if rule else []
            self.assertEqual(said, [f"{n:,g}" if n < 1000 else f"{n:,}" for n in (hours, entries) if n], stream)

    def test_attributes(self) -> None:
        """The table of the vocabulary has every name, with its JSON type and meaning."""
        rows = table("attributes")
        self.assertEqual([(name, kind) for name, kind, _ in rows], [(n, a.kind) for n, a in events.ATTRIBUTES.items()])
        self.assertTrue(all(meaning for *_, meaning in rows))

    def test_vocabulary(self) -> None:
        """Every column is a name of the vocabulary, but for what the gateway adds; every state is a name of it, too."""
        self.assertEqual(set(events.COLUMNS) - set(events.ATTRIBUTES), set(self.program["ADDED"]))
        self.assertLessEqual(events.STATES, set(events.ATTRIBUTES))

    def test_examples(self) -> None:
        """The examples in the pages give what stands there."""
        for page in ("contract.rst", "plugins.rst"):
            failed, tried = doctest.testfile(str(DOCS / page), module_relative=False, verbose=False)
            self.assertEqual(failed, 0, page)
            self.assertGreater(tried, 0, page)


class SchemaTests(unittest.TestCase):
    """What the schema lets through."""

    def setUp(self) -> None:
        """Read it."""
        schema = json.loads((DOCS / "contract.schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        self.validator = jsonschema.Draft202012Validator(schema)

    def fits(self, **fields: Any) -> bool:
        """Whether the example fits with these fields replaced; those that are None left out."""
        entry = {name: value for name, value in {**ENTRY, **fields}.items() if value is not None}
        return bool(self.validator.is_valid(entry))

    def test_position(self) -> None:
        """A position fits, with and without a fix."""
        self.assertTrue(self.fits())
        last = {"last_latitude": 52.52, "last_longitude": -13.405}
        self.assertTrue(self.fits(latitude="", longitude="", speed_kmh="", course_deg="", valid="0", data=last))

    def test_other(self) -> None:
        """An event of another stream has no columns but device_id."""
        columns = dict.fromkeys(set(events.COLUMNS) - {"device_id"})
        self.assertTrue(self.fits(**columns, type="alarm.overspeed", data={"phase": "raised"}))
        self.assertFalse(self.fits(type="alarm.overspeed"))

    def test_refused(self) -> None:
        """A field that is missing, one too many, an unknown type, and forms that are not the contract's do not fit."""
        for wrong in (
            {"time": None},
            {"data": None},
            {"altitude_m": None},
            {"more": ""},
            {"v": "2"},
            {"type": "alarm.unheard"},
            {"id": "8D072B598E923814A4FF8FFD31CBAEC5"},
            {"time": "2026-11-22T17:49:27Z"},
            {"latitude": "52.52"},
            {"latitude": "nan"},
            {"speed_kmh": "inf"},
            {"speed_kmh": "-1.00"},
            {"course_deg": "360"},
            {"valid": "true"},
            {"late": "yes"},
            {"ident": "no"},
            {"data": {"lac": "341"}},
        ):
            self.assertFalse(self.fits(**wrong), wrong)
