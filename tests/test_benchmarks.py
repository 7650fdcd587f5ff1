"""Tests of L{benchmarks}: that each runs and prints a table, and that what it compares is the same work."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from unittest import SkipTest

import orjson
from redis import Redis
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import alone, appending, connections, cost, endtoend, outage, outside, profile, yardstick
from benchmarks.appending import Shape
from benchmarks.connections import Idle
from benchmarks.generator import IDS_PER_CONNECTION, STEPS, Device, report
from benchmarks.processes import CHECKOUT
from benchmarks.tables import Settings, Table, render, verdict
from gateway.events import COLUMNS, ENVELOPE
from tests.integration.parts import RealPartsTestCase

#: As short as a run can be.
SETTINGS = Settings(rounds=1, seconds=0.2, fsync="everysec", entry="contract")

FRAME = b"*HQ,9100000000," + report(track=0, step=20, at=1_800_000_000.0)


def match(frame: bytes) -> re.Match[bytes]:
    """The frame as the yardstick's servers find it."""
    found = yardstick.V1.search(frame)
    assert found is not None
    return found


class YardstickTests(SynchronousTestCase):
    """The reference gives its consumers what the gateway gives them."""

    def test_fieldsOfTheContract(self) -> None:
        """Its entry has the fields of the position stream, all of them in their order."""
        entry = yardstick.contract(match(FRAME), b"tcp", b"127.0.0.1:1234")
        self.assertEqual([*ENVELOPE, *COLUMNS, "data"], [name.decode() for name in entry])

    def test_values(self) -> None:
        """What the report says stands in the columns as the gateway would write it."""
        entry = yardstick.contract(match(FRAME), b"tcp", b"127.0.0.1:1234")
        expected = {
            b"time": b"2027-01-15T08:00:00.000Z",
            b"ident": b"9100000000",
            b"latitude": b"18.169700",
            b"longitude": b"-65.763100",
            b"valid": b"1",
            b"ignition": b"1",
            b"immobilizer": b"0",
            b"levels": b"",
            b"status_word": b"FFFFFFFF",
            b"peer": b"127.0.0.1:1234",
            b"data": b'{"mcc":"310","mnc":"260","lac":49000,"cid":1000}',
        }
        self.assertEqual(expected, {name: entry[name] for name in expected})

    def test_noFix(self) -> None:
        """Without a fix there is no position, only the last one in data."""
        entry = yardstick.contract(match(FRAME.replace(b",A,", b",V,")), b"tcp", b"")
        self.assertEqual((b"", b"", b"0"), (entry[b"latitude"], entry[b"longitude"], entry[b"valid"]))
        self.assertEqual(18.1697, orjson.loads(entry[b"data"])["last_latitude"])


class DeviceTests(SynchronousTestCase):
    """The generator's devices never send the same frame twice."""

    def test_allDifferent(self) -> None:
        """Frames differ over the end of a drive, and each is one that the yardstick reads."""
        device = Device(IDS_PER_CONNECTION)
        frames = (device.reports(STEPS - 10) + device.reports(20)).split(b"#")[:-1]
        self.assertEqual(STEPS + 10, len(frames))
        self.assertEqual(len(frames), len(set(frames)))
        self.assertEqual({b"10000", b"10001"}, {frame.split(b",")[1] for frame in frames})


class ProfileTests(SynchronousTestCase):
    """What py-spy writes is summed by function."""

    def test_functions(self) -> None:
        """Own time is the innermost function's; one that calls itself counts once a sample; who waits does not."""
        stacks = [
            'process 7:"python -m x";main (app/main.py:1);read (app/codec.py:1);read (app/codec.py:1) 3',
            'process 7:"python -m x";main (app/main.py:1);Loop.run (app/__init__.py:9) 1',
            'process 7:"python -m x";worker (app/pool.py:1);Condition.wait (threading.py:288) 5',
        ]
        found = profile.read(stacks)
        self.assertEqual(4, found.total)
        self.assertEqual({"app.codec:read": 3, "app:Loop.run": 1}, dict(found.own))
        self.assertEqual({"app.main:main": 4, "app.codec:read": 3, "app:Loop.run": 1}, dict(found.within))
        rows = profile.table(found, us=8.0, top=1, note="").rows
        self.assertEqual([["app.codec:read", "75.0%", "6.00", "75.0%", "6.00"]], rows)

    def test_refusal(self) -> None:
        """Where py-spy may not attach, the cure stands beside what it says; where it fails otherwise, it does not."""
        self.assertIn("SYS_PTRACE", profile.refusal("Permission Denied: Try running again with elevated permissions\n"))
        self.assertIn("SYS_PTRACE", profile.refusal("Error: Operation not permitted (os error 1)"))
        self.assertEqual("py-spy failed: Error: No such process", profile.refusal("Error: No such process\n"))


class OutsideTests(SynchronousTestCase):
    """A load generator from elsewhere."""

    def setUp(self) -> None:
        if which("gcc") is None:
            raise SkipTest("there is no gcc")
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def compiled(self, text: str) -> Path:
        """The program that this C makes."""
        source = self.folder / "load.c"
        source.write_text(text)
        return outside.compiled(source, self.folder)

    def test_result(self) -> None:
        """It is told what to do, and what it says comes out by our names and in our units."""
        said = '{\\"sent\\":%s,\\"acked\\":2,\\"msgs_per_s\\":3.5,\\"p50_us\\":400,\\"p99_us\\":5000,'
        said += '\\"load_cpu_us_per_msg\\":0.6}'
        binary = self.compiled(
            f'#include <stdio.h>\nint main(int n, char **v) {{ printf("{said}\\n", v[1]); return 3; }}'
        )
        expected = {"sent": 3, "acknowledged": 2, "rate": 3.5, "p50_ms": 0.4, "p99_ms": 5.0, "generator_us": 0.6}
        self.assertEqual(expected, outside.run(binary, ["3"], 10.0))

    def test_says_nothing(self) -> None:
        """One that does not say how it went ends the benchmark, with what it said."""
        binary = self.compiled("int main(void) { return 2; }")
        self.assertIn("load does not say", str(self.assertRaises(RuntimeError, outside.run, binary, [], 10.0)))

    def test_broken(self) -> None:
        """A file that is no C ends it with what the compiler says."""
        self.assertIn("error", str(self.assertRaises(SystemExit, self.compiled, "no C")))


class TableTests(SynchronousTestCase):
    """Tables say what was measured, and what is wrong with it."""

    def test_wrong(self) -> None:
        """A wrong result stands under the figures."""
        lines = render(Table(["", "us"], [["A", "1.0"]], ["a note"], wrong=["3 not stored"])).splitlines()
        self.assertEqual(["    us", "A  1.0", "", "a note", "WRONG: 3 not stored"], lines)

    def test_verdict(self) -> None:
        """A bar is met at its limit."""
        self.assertEqual(("0.8 MET", "0.8 missed"), (verdict(0.8, 0.8), verdict(0.81, 0.8)))

    def test_unknown(self) -> None:
        """A name that there is not ends with what there is, before anything runs."""
        argv = [sys.executable, "-m", "benchmarks", "A", "E"]
        done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True)
        self.assertEqual(2, done.returncode)
        self.assertIn("no such benchmark: E", done.stderr)


class RunTests(RealPartsTestCase):
    """Each benchmark runs and has a figure in every row; none of their results is wrong."""

    def setUp(self) -> None:
        """Both sides need a Redis, the reference uvloop."""
        super().setUp()
        self.binary()
        if find_spec("uvloop") is None:
            self._missing("uvloop is not installed: pip install -e '.[bench]'")

    def check(self, make: Callable[[], Table], names: Sequence[str]) -> None:
        """The table has these rows, with what was asked for in each."""
        table = make()
        self.assertEqual([], list(table.wrong))
        text = render(table)
        for name, row in zip(names, table.rows, strict=True):
            self.assertTrue(row[0].startswith(name), text)
            figures = [float(cell.replace(",", "")) for cell in row[2:4]]
            self.assertTrue(all(figure > 0 for figure in figures), text)

    def test_alone(self) -> None:
        """Decode, events and detection."""
        names = ["decode", "events", "detection"]
        self.check(lambda: alone.table(names, SETTINGS), ["decode", "a V1 report to its events", "detect"])

    def test_closed(self) -> None:
        """TCP and UDP with a window."""
        self.check(lambda: endtoend.closed_table(["B", "D"], SETTINGS), ["B: TCP", "D: UDP"])

    def test_open(self) -> None:
        """A steady rate."""
        self.check(lambda: endtoend.open_table(SETTINGS), ["C: TCP"])

    def test_journal(self) -> None:
        """Redis goes and comes back."""
        self.check(lambda: outage.table(SETTINGS), ["journal: TCP"])

    def test_cost(self) -> None:
        """A checkout beside another one, here beside itself."""
        self.check(lambda: cost.table(SETTINGS._replace(before=CHECKOUT), ["B"]), ["cost B: TCP"])

    def test_workers(self) -> None:
        """Two processes beside one."""
        self.check(lambda: cost.workers_table(SETTINGS, ["D"]), ["workers D: UDP"])

    def test_costOfNothing(self) -> None:
        """Where no gateway runs from, nothing is measured: what is installed does not stand in for it."""
        self.assertRaises(SystemExit, cost.side, "before", CHECKOUT / "docs")

    def test_redis(self) -> None:
        """The script beside a plainer one."""
        self.check(lambda: appending.table(SETTINGS, 2000, [Shape(50, 10)]), ["redis: 500 events of 50 devices"])

    def test_memory(self) -> None:
        """Idle connections."""
        what = Idle(60, 30)
        self.check(lambda: connections.memory_table(SETTINGS, [what], settle=0.1), ["memory: 60 idle connections"])

    def test_storm(self) -> None:
        """Strangers, and the same again."""
        self.check(
            lambda: connections.storm_table(SETTINGS, 100, settle=0.1), ["storm: 100 strangers", "storm: 100 cut"]
        )


class AppendTests(RealPartsTestCase):
    """The reference of the redis row."""

    def test_checksTheNumber(self) -> None:
        """A batch is appended once: neither again nor with a gap before it."""
        server = self.redis_server()
        server.start()
        with Redis.from_url(server.url) as client:
            append = client.register_script((CHECKOUT / "benchmarks" / "append.lua").read_text())
            answers = [
                append(keys=["number", "stream"], args=[number, 2, "a", "b", *"1234"]) for number in (1, 1, 3, 2)
            ]
            self.assertEqual([1, 1, 1, 2], answers)
            fields = [entry for _, entry in client.xrange("stream")]
        self.assertEqual([{b"a": b"1", b"b": b"2"}, {b"a": b"3", b"b": b"4"}] * 2, fields)
