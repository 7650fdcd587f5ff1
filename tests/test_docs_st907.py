"""The page on the ST-907: its tables are those of the code, and its examples can be used."""

from __future__ import annotations

import re
import runpy
import tomllib
import unittest
from pathlib import Path
from typing import Any, Final

from gateway import events, registry
from gateway.devices.st907 import status
from gateway.devices.st907.settings import REPLIES, Options, settings
from gateway.errors import ConfigError

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"


def rows(text: str) -> list[list[str]]:
    """The rows of the first list-table in a text, without its head, each cell in one line."""
    found = re.search(r"^\.\. list-table::\n   :header-rows: 1\n\n((?:   .*\n)+)", text, re.MULTILINE)
    assert found is not None
    lines = re.split(r"^   \* - ", found[1], flags=re.MULTILINE)
    cells = (re.split(r"^     -", line, flags=re.MULTILINE) for line in lines)
    return [[" ".join(cell.split()) for cell in row] for row in cells][2:]


def coded(text: str) -> list[str]:
    """What stands in double backquotes."""
    return re.findall(r"``(.+?)``", text)


class PageTests(unittest.TestCase):
    """docs/st907.rst."""

    def setUp(self) -> None:
        """Read it, and load the program that writes its tables."""
        self.text = (DOCS / "st907.rst").read_text()
        self.program: dict[str, Any] = runpy.run_path(str(DOCS / "tables.py"))

    def after(self, mark: str) -> str:
        """The page from a mark on."""
        _, found, rest = self.text.partition(mark)
        self.assertTrue(found, mark)
        return rest

    def test_written(self) -> None:
        """Its tables are as C{python docs/tables.py} writes them."""
        self.assertEqual(self.program["inserted"](self.text, self.program["ST907"]), self.text)

    def test_bits(self) -> None:
        """All 32 bits are there, with mask, meaning and how sure that is, and with what the code makes of them."""
        table = rows(self.after(".. begin bits\n"))
        self.assertEqual([int(row[0]) for row in table], [*range(31, -1, -1)])
        for number, mask, meaning, sure, becomes in table:
            bit = status.BITS[int(number)]
            self.assertEqual((int(mask.strip("`"), 16), meaning, sure), (1 << int(number), bit.meaning, bit.sure))
            kind, _, which = bit.level.partition(":")
            named = [f"state.{kind}" if kind in events.STATES else f"alarm.{kind}"] if kind else []
            named += ["name", f"st907.{which}"] if which else []
            named += [f"io.{bit.io}"] if bit.io else []
            said = coded(becomes)
            self.assertEqual(said[: len(named)], named, number)
            self.assertTrue(said or becomes == "nothing", number)

    def test_special_bits(self) -> None:
        """What is no level of its own: the ignition, a late record, the supply."""
        said = {row[0]: coded(row[4]) for row in rows(self.after(".. begin bits\n"))}
        self.assertEqual(said["10"], ["state.ignition", "ignition", "0"])
        self.assertEqual(said["26"], ["late", "device"])
        self.assertEqual(said["27"], ["state.immobilizer", "immobilizer", "1"])
        for number in ("19", "28"):
            self.assertEqual(said[number], ["alarm.power.cut", "external_power", "0"])
        self.assertEqual([number for number, names in said.items() if not names], ["24", "18", "14", "13", "12", "11"])

    def test_settings(self) -> None:
        """Every option is there, in its order, with its default."""
        table = rows(self.after("\nSettings\n--------\n"))
        shown = {coded(name)[0]: default.strip("`") for name, _, default, _ in table}
        options = Options()
        self.assertEqual([*shown], list(options.__dataclass_fields__))
        for name, default in shown.items():
            value = getattr(options, name)
            self.assertEqual(default, "none" if value == {} else {"": "empty"}.get(value, str(value)), name)
        self.assertEqual(coded(table[0][1]), [*REPLIES])

    def test_alarms(self) -> None:
        """The alarms that a bit may be said to be are those that the code takes."""
        paragraph = self.after("The alarms for ``bits``:").partition("\n\n")[0]
        self.assertEqual(coded(paragraph), sorted(status.LEVELS - {""}))

    def test_file(self) -> None:
        """The example of the configuration can be used, and says what the page says."""
        example = self.after(".. code-block:: toml\n\n").partition("\n\nand for one unit")[0]
        tree = tomllib.loads(re.sub("^   ", "", example, flags=re.MULTILINE))["devices"]
        [plugin] = [plugin for plugin in registry.load(options=tree) if plugin.name == "st907"]
        held = settings(plugin.options, {"model": "ST-903"})
        self.assertEqual((held.battery, held.acc_wired, held.hemisphere, held.reply), ("percent", "0", "", "v4"))
        # and what the registry says goes before it
        words = self.after("    HSET gateway:registry:9170123456 ").partition("\n")[0].split()
        held = settings(plugin.options, dict(zip(words[::2], words[1::2], strict=True)))
        self.assertEqual((held.battery, held.acc_wired, held.time_offset_s, held.faults), ("percent", "1", 28_800, ()))

    def test_bits_shown(self) -> None:
        """Each text for C{bits} that the page shows can be used."""
        shown = [text for text in coded(self.text) if re.fullmatch(r"\d+=[a-z.:_]*(?:,\d+=[a-z.:_]*)*", text)]
        self.assertGreater(len(shown), 3)
        for text in shown:
            self.assertEqual(settings(Options(bits=text), {"bits": text}).faults, (), text)

    def test_refused(self) -> None:
        """A value that can't be used is refused with the line that stands there."""
        with self.assertRaises(ConfigError) as caught:
            registry.load(options={"st907": {"acc_wired": "2"}}, where="gateway.toml")
        self.assertIn(f"\n    {caught.exception}\n", self.text)
