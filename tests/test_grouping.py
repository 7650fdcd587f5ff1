"""C{gateway groups}, against a real Redis."""

from __future__ import annotations

import json
import time
from typing import Any

from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.grouping import span
from tests.consuming import KEY
from tests.integration.parts import RealPartsTestCase, free_port


class GroupsTests(RealPartsTestCase):
    """The command."""

    def setUp(self) -> None:
        """Start the Redis."""
        super().setUp()
        self.redis = self.running_redis()
        self.client = self.redis.client

    def run_it(self, *words: str) -> Result:
        """Run it."""
        return CliRunner().invoke(main, ["groups", "--redis", self.redis.url, *words], catch_exceptions=False)

    def found(self) -> dict[str, dict[str, Any]]:
        """What it says to machines, by stream."""
        result = self.run_it("--json")
        self.assertEqual(0, result.exit_code, result.output)
        return {its["stream"]: its for its in map(json.loads, result.stdout.splitlines())}

    def old(self, count: int, hours: float, key: str = KEY) -> None:
        """Add entries of so many hours ago."""
        begin = int((time.time() - hours * 3600) * 1000)
        pipe = self.client.pipeline()
        for n in range(count):
            pipe.xadd(key, {"poison": str(n)}, id=f"{begin + n}-0")
        pipe.execute()

    def test_table(self) -> None:
        """Each stream has its groups with their figures; one that nobody reads is said to be that."""
        self.old(100, hours=6.0)
        self.client.xgroup_create(KEY, "map", id="0")
        self.client.xgroup_create(KEY, "fast", id="$")
        self.client.xreadgroup("map", "one", {KEY: ">"}, count=10)
        self.old(3, hours=1.0, key="gateway:event")
        result = self.run_it()
        self.assertEqual(0, result.exit_code, result.output)
        head, *lines = result.stdout.splitlines()
        self.assertEqual(
            "stream entries a minute group lag pending consumers oldest unread trimmed in", " ".join(head.split())
        )
        rows = [line.split() for line in lines]
        self.assertEqual(["fast", "0", "0", "0"], rows[0][3:])
        self.assertEqual([KEY, "100"], rows[0][:2])
        self.assertEqual(["map", "90", "10", "1", "6.0", "h", "18.0", "h"], rows[1])
        self.assertIn("nobody reads gateway:event: there is no consumer group", lines[-1])
        self.assertNotIn(f"nobody reads {KEY}", result.stdout)

    def test_json(self) -> None:
        """For machines there are the same figures, and unknown ones are absent."""
        self.old(100, hours=6.0)
        self.client.xgroup_create(KEY, "map", id="0")
        found = self.found()
        self.assertEqual((100, 100, 24.0), tuple(found[KEY][name] for name in ("entries", "added", "hours")))
        [group] = found[KEY]["groups"]
        self.assertEqual(("map", 100, 0, 0), tuple(group[name] for name in ("group", "lag", "pending", "consumers")))
        self.assertAlmostEqual(6 * 3600, group["behind_s"], delta=60)
        self.assertAlmostEqual(18 * 3600, group["trimmed_in_s"], delta=60)
        self.assertNotIn("idle_s", group)
        self.assertEqual({"stream": "gateway:link", "entries": 0, "groups": [], "hours": 168.0}, found["gateway:link"])

    def test_ceiling(self) -> None:
        """Where memory ends before the hours do, by what a running gateway says, that is when entries go."""
        self.old(100, hours=1.0)
        self.client.xgroup_create(KEY, "map", id="0")
        said = {"position": {"per_minute": 60.0, "limit": 700, "hours": 24.0}}
        self.client.set("gateway:instance:here", json.dumps({"streams": {}}))
        self.client.set("gateway:instance:there", json.dumps({"streams": said}))
        its = self.found()[KEY]
        self.assertEqual((60.0, 700, 600), (its["per_minute"], its["limit"], its["groups"][0]["trimmed_in_s"]))

    def test_ceiling_and_pending(self) -> None:
        """A group that is almost done is not about to lose what it has in hand, however full the stream is."""
        self.old(700, hours=1.0)
        self.client.xgroup_create(KEY, "map", id="0")
        self.client.xreadgroup("map", "one", {KEY: ">"}, count=1000)
        said = {"position": {"per_minute": 10.0, "limit": 700, "hours": 24.0}}
        self.client.set("gateway:instance:there", json.dumps({"streams": said}))
        # as many came since as come in an hour: 600
        self.assertAlmostEqual(600, self.found()[KEY]["groups"][0]["trimmed_in_s"], delta=30)

    def test_missed(self) -> None:
        """What went before a group had it is told."""
        self.old(100, hours=1.0)
        self.client.xgroup_create(KEY, "map", id="0")
        self.client.xtrim(KEY, maxlen=40, approximate=False)
        self.assertEqual(60, self.found()[KEY]["groups"][0]["missed"])
        self.assertIn("60 entries were trimmed before group map was given them", self.run_it().stdout)

    def test_cannot(self) -> None:
        """A Redis that can't be asked is one line, and status 2."""
        result = CliRunner().invoke(main, ["groups", "--redis", f"redis://127.0.0.1:{free_port()}"])
        self.assertEqual((2, 1), (result.exit_code, result.output.count("\n")), result.output)
        self.client.set(KEY, "no stream")
        result = self.run_it()
        self.assertEqual(2, result.exit_code)
        self.assertIn("does not answer the question: WRONGTYPE", result.output)
        self.client.delete(KEY)

    def test_span(self) -> None:
        """A time has the unit that suits it."""
        shown = [span(s) for s in (0, 119, 120, 7199, 7200, 172_800)]
        self.assertEqual(["0 s", "119 s", "2.0 min", "120.0 min", "2.0 h", "2.0 d"], shown)
