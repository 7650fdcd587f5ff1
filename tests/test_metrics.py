"""What gateways count, for Prometheus."""

from __future__ import annotations

import json
import re
import runpy
import unittest
from pathlib import Path
from typing import Any, Final

from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway.cli import main
from gateway.lag import Group
from gateway.ledger import OUTCOMES, Beat
from gateway.metrics import COUNTERS, FAMILIES, METRICS, PROCESS, HeartbeatCollector, text
from gateway.sinks.journalrows import Content
from tests.integration.parts import RealPartsTestCase, free_port, wait_for

ROOT: Final = Path(__file__).resolve().parents[1]
#: Counters of a consumer, which is no gateway.
CONSUMER: Final = ("gateway/consumer.py", "gateway/sinks/hand.py", "gateway/sinks/reader.py")

Labels = dict[str, str]


def beat(instance: str = "vm-8888", **other: Any) -> Beat:
    """A heartbeat, some of it as given."""
    content = {
        "host": "vm",
        "version": "0.1.0",
        "worker": 0,
        "since": 1_796_000_000,
        "connections": 7,
        "pending": 3,
        "ready": True,
        "problems": [],
        "journal": {"rows": 1, "frames": 20, "quarantined": 0, "bytes": 4096, "oldest": None, "path": "/x"},
        "counters": {"received": 10, "published": 8, "duplicate": 2},
        "streams": {},
        "groups": {},
    } | other
    return Beat.read(instance, json.dumps(content).encode())


class TextTests(unittest.TestCase):
    """C{text}."""

    def read(self, *beats: Beat) -> dict[str, list[tuple[Labels, float]]]:
        """As Prometheus reads it, by name."""
        found: dict[str, list[tuple[Labels, float]]] = {}
        for family in text_string_to_metric_families(text(beats)):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
        return found

    def test_process(self) -> None:
        """What a process says of itself; who has no workers has an empty label."""
        found = self.read(beat())
        whose = {"gateway": "vm-8888", "worker": ""}
        self.assertEqual([(whose, 1.0)], found["gateway_ready"])
        self.assertEqual([(whose, 0.0)], found["gateway_problems"])
        self.assertEqual([(whose, 7.0)], found["gateway_open_connections"])
        self.assertEqual([(whose, 3.0)], found["gateway_pending_frames"])
        self.assertEqual([(whose, 10.0)], found["gateway_received_frames_total"])
        self.assertEqual([(whose, 4096.0)], found["gateway_journal_bytes"])
        self.assertNotIn("gateway_journal_oldest_timestamp_seconds", found)
        self.assertEqual([(whose | {"host": "vm", "version": "0.1.0"}, 1.0)], found["gateway_info"])
        outcomes = {labels["outcome"]: n for labels, n in found["gateway_frames_total"] if n}
        self.assertEqual(len(OUTCOMES), len(found["gateway_frames_total"]), "nothing yet is 0, and not absent")
        self.assertEqual({"published": 8.0, "duplicate": 2.0}, outcomes)

    def test_workers(self) -> None:
        """The workers of a gateway are told apart by a label, and can be added up."""
        found = self.read(beat("vm/1"), beat("vm/2", ready=False), beat("other"))
        whose = [(labels["gateway"], labels["worker"], n) for labels, n in found["gateway_ready"]]
        self.assertEqual([("vm", "1", 1.0), ("vm", "2", 0.0), ("other", "", 1.0)], whose)

    def test_limits(self) -> None:
        """Limits and reasons are labels."""
        found = self.read(beat(counters={"limited": 3, "limited_connections": 3, "closed_idle": 4}))
        whose = {"gateway": "vm-8888", "worker": ""}
        self.assertEqual([(whose | {"limit": "connections"}, 3.0)], found["gateway_limited_total"])
        self.assertEqual([(whose | {"reason": "idle"}, 4.0)], found["gateway_closed_connections_total"])
        self.assertIn((whose | {"outcome": "limited"}, 3.0), found["gateway_frames_total"])

    def test_histograms(self) -> None:
        """What was measured is a histogram, each bucket with all that is below it; nonsense is left out."""
        said = {"wait": [[0.5, 1.0], [2, 1, 4], 9.5], "lag": "nonsense", "else": [[1.0], [1, 1], 1.0]}
        found = self.read(beat(histograms=said, detected={"st907": 3, "": 2}))
        buckets = {labels["le"]: n for labels, n in found["gateway_stored_seconds_bucket"]}
        self.assertEqual({"0.5": 2.0, "1.0": 3.0, "+Inf": 7.0}, {str(le): n for le, n in buckets.items()})
        self.assertEqual(
            (7.0, 9.5), (found["gateway_stored_seconds_count"][0][1], found["gateway_stored_seconds_sum"][0][1])
        )
        self.assertNotIn("gateway_reactor_lag_seconds_count", found)
        detected = {labels["protocol"]: n for labels, n in found["gateway_detected_total"]}
        self.assertEqual({"st907": 3.0, "none": 2.0}, detected)

    def test_groups(self) -> None:
        """Streams and groups are of the Redis: they have their names, and no gateway's."""
        group = Group("map", 10, 3, 2, 90.0, 7.5, (1, 0), 0)
        streams = {"position": {"entries": 100, "added": 1000, "limit": 5000, "hours": 24.0, "groups": 1}}
        found = self.read(beat("a"), beat("b", streams=streams, groups={"position": {"map": group.figures}}))
        its = {"stream": "position", "group": "map"}
        expected = {"lag_entries": 10, "pending_entries": 3, "consumers": 2, "behind_seconds": 90, "idle_seconds": 7.5}
        for name, value in expected.items():
            self.assertEqual([(its, value)], found[f"gateway_group_{name}"], name)
        self.assertEqual([({"stream": "position"}, 1000.0)], found["gateway_stream_added_entries_total"])
        self.assertEqual([({"stream": "position"}, 1.0)], found["gateway_stream_groups"])

    def test_strange_names(self) -> None:
        """A group's name may hold anything, and is one label."""
        name = 'a"b\\c\nd'
        found = self.read(beat(groups={"position": {name: {"lag": 1}}}))
        self.assertEqual([({"stream": "position", "group": name}, 1.0)], found["gateway_group_lag_entries"])

    def test_unknown(self) -> None:
        """A counter without a name of its own is not lost, and a heartbeat of another version is no error."""
        found = self.read(
            beat(counters={"from_tomorrow": 5, "strange": "x"}, journal=None, groups=[1], streams={"a": 1})
        )
        whose = {"gateway": "vm-8888", "worker": "", "counter": "from_tomorrow"}
        self.assertEqual([(whose, 5.0)], found["gateway_other_total"])
        self.assertEqual(["gateway_info"], [*self.read(Beat.read("x", b"?"))])

    def test_none(self) -> None:
        """Without gateways there is nothing."""
        self.assertEqual("", text([]))

    def test_registry(self) -> None:
        """The collector asks anew whenever it is asked."""
        beats = [beat()]
        registry = CollectorRegistry()
        registry.register(HeartbeatCollector(lambda: beats))
        labels = {"gateway": "vm-8888", "worker": ""}
        self.assertEqual(3, registry.get_sample_value("gateway_pending_frames", labels))
        beats[0] = beat(pending=4)
        self.assertEqual(4, registry.get_sample_value("gateway_pending_frames", labels))


class NamesTests(unittest.TestCase):
    """The names."""

    def test_every_counter(self) -> None:
        """Every counter of a gateway has a metric, and every metric of a counter has one."""
        found: set[str] = set()
        for path in (ROOT / "gateway").rglob("*.py"):
            if str(path.relative_to(ROOT)) not in CONSUMER:
                found |= set(re.findall(r'counters\[f?"(\w+)', path.read_text()))
        starts = {name for name in found if name.startswith((*FAMILIES,))}
        self.assertEqual(set(COUNTERS), found - starts - set(OUTCOMES))
        self.assertEqual(set(FAMILIES), {start for start in FAMILIES if any(n.startswith(start) for n in starts)})

    def test_names(self) -> None:
        """Names are as Prometheus wants them, and each has a meaning."""
        for name, (kind, labels, meaning) in METRICS.items():
            self.assertRegex(name, r"^gateway_[a-z_]+$")
            self.assertEqual(kind == "counter", name.endswith("_total"), name)
            self.assertTrue(meaning and meaning[-1] != ".", name)
            self.assertIn(labels[: len(PROCESS)], (PROCESS, ("stream",), ("stream", "group")), name)
        self.assertEqual(len(COUNTERS), len({name for name, _ in COUNTERS.values()}))

    def test_fields(self) -> None:
        """What is read of a journal and of a group is there."""
        from gateway import metrics

        self.assertLessEqual(set(metrics.JOURNAL), {*Content._fields, "limit"})
        self.assertEqual(set(metrics.GROUP), set(Group("a", 1, 1, 1, 1.0, 1.0, None, 0).figures))
        for names in (metrics.FIELDS, metrics.JOURNAL, metrics.STREAM, metrics.GROUP, metrics.HISTOGRAMS):
            self.assertLessEqual(set(names.values()), set(METRICS))

    def test_page(self) -> None:
        """The page's table is as C{python docs/tables.py} writes it."""
        program: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "tables.py"))
        page = program["METRICS_PAGE"]
        self.assertEqual(program["inserted"](page.read_text(), page), page.read_text())


class CommandTests(RealPartsTestCase):
    """C{gateway metrics}."""

    def test_running_gateway(self) -> None:
        """What a real gateway counts is printed, each name with what it is."""
        redis = self.running_redis()
        gateway = self.running_gateway(redis.url)
        wait_for("a heartbeat", lambda: redis.client.keys("gateway:instance:*"), detail=gateway.tail)
        result = CliRunner().invoke(main, ["metrics", "--redis", redis.url], catch_exceptions=False)
        self.assertEqual(0, result.exit_code, result.output)
        self.assertIn("# TYPE gateway_ready gauge\n", result.stdout)
        names = {family.name for family in text_string_to_metric_families(result.stdout)}
        self.assertLessEqual({"gateway_ready", "gateway_journal_bytes", "gateway_start_time_seconds"}, names)

    def test_cannot(self) -> None:
        """A Redis that can't be asked is one line, and status 2."""
        result = CliRunner().invoke(main, ["metrics", "--redis", f"redis://127.0.0.1:{free_port()}"])
        self.assertEqual((2, 1), (result.exit_code, result.output.count("\n")), result.output)
