"""
A flood from some places does not slow the others.

Ten thousand connections say nothing, five hundred send junk as fast as they
can, one sends five thousand reports a second; and two hundred honest devices
wait for their acknowledgements.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from tests.integration import flooding
from tests.integration.parts import CHECKOUT, Child, RealPartsTestCase, entries, wait_for
from tests.integration.simulated import Simulated

#: How long it is flooded, s.
SECONDS: Final = 300 if os.environ.get("GATEWAY_LONG") else 14
SILENT: Final = 10_000
JUNK: Final = 500
RATE: Final = 5_000
HONEST: Final = 200
#: The longest that 99 of 100 acknowledgements may take, ms.
P99_MS: Final = 500.0
#: A flooder is cut within so many bytes that were read of it.
CUT_BYTES: Final = 65_536
#: Ten thousand connections of some 6 KB, what waits of reports and batches, and Python's way of keeping it; MiB.
MEMORY_MIB: Final = 160


class FloodTests(RealPartsTestCase):
    """What honest devices notice of it."""

    def test_flood(self) -> None:
        """They lose nothing and are answered in time; flooders are cut, and memory stays within its bound."""
        redis = self.running_redis()
        running = self.running_gateway(redis.url, workers=1)
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(running.pid, {cores[0]})
        before = running.resident_mib()
        honest = Simulated(
            self.directory, running.port, 9900000001, devices=HONEST, interval=1, count=SECONDS + 4, host="127.0.0.1"
        )
        self.addCleanup(honest.child.kill)
        wait_for("the honest ones", lambda: redis.client.xlen("gateway:position") >= HONEST)
        command = [sys.executable, "-m", "tests.integration.flooding"]
        command += [str(n) for n in (running.port, SECONDS, SILENT, JUNK, RATE)]
        flood = Child(command, Path(self.directory) / "flood.output", {**os.environ, "PYTHONPATH": str(CHECKOUT)})
        self.addCleanup(flood.kill)
        if len(cores) > 1:
            os.sched_setaffinity(flood.pid, {cores[-1]})
        self.assertEqual(0, flood.wait(SECONDS + 30), flood.tail())
        after = running.resident_mib()
        flooded: dict[str, Any] = json.loads(flood.tail().splitlines()[-1])
        summary = honest.summary(SECONDS + 60)
        counters = self._counters(redis.client)
        shown = ("acknowledged", "lost", "p50_ms", "p99_ms", "resent")
        limits = {name: n for name, n in counters.items() if name.startswith(("closed_", "paused_", "limited"))}
        told: dict[str, Any] = {name: summary[name] for name in shown if name in summary}
        told |= {**flooded, "memory_mib": round(after - before), **limits}
        print(json.dumps(told))
        self.assertEqual((0, 0), (summary["status"], summary["lost"]), summary)
        acknowledged = set(honest.acknowledged())
        self.assertGreaterEqual(len(acknowledged), HONEST * SECONDS)
        stored = {entry["id"] for entry in entries(redis.client)}
        self.assertEqual(set(), acknowledged - stored)
        self.assertLess(summary["p99_ms"], P99_MS, told)
        self.assertGreater(flooded["silent"], SILENT * 0.9)
        self.assertGreater(flooded["cut"], JUNK)
        # the kernel has taken some of what was sent and never read
        self.assertGreater(counters["unrecognised"], JUNK)
        dead = [json.loads(entry["data"]) for entry in entries(redis.client, "gateway:dead")]
        from_there = [data for data in dead if data.get("peer", "").startswith(flooding.JUNK_FROM)]
        junk = [data["frame_bytes"] for data in from_there if "frame_bytes" in data]
        self.assertLessEqual(max(junk), CUT_BYTES)
        self.assertIn("strangers_per_address", [data.get("limit") for data in from_there])
        self.assertGreater(counters["paused_reports_per_device"], 0)
        flooder = [entry for entry in entries(redis.client) if entry["ident"] == "9170666666"]
        # as much at once for the connection, and for its ident
        self.assertLess(len(flooder), 500 * (SECONDS + 3) + CUT_BYTES / 90)
        self.assertLess(after - before, MEMORY_MIB)

    def _counters(self, client: Any) -> dict[str, int]:
        (key,) = client.keys("gateway:instance:*")
        counters: dict[str, int] = json.loads(client.get(key))["counters"]
        return counters
