"""Two gateways on one Redis, and devices that move between them: each command reaches its device once, and soon."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from datetime import datetime
from typing import Any, Final

from tests.integration.commands.commander import Commander
from tests.integration.parts import RealPartsTestCase, entries, wait_for
from tests.integration.simulated import Simulated

DEVICES: Final = 200
COMMANDS: Final = 1_000
FIRST: Final = 9_950_000_000
#: So long a device stays at a gateway.
STAY_S: Final = 10
#: Commands of one device follow each other at this distance, so that none waits for the answer to another.
APART_S: Final = 6.0
#: The gap that the wire rule wants between a reply and a command.
GAP_S: Final = 1.0
LIMIT_S: Final = 0.5
#: So long it takes at most until the gateway that has the device knows of a command.
READ_S: Final = 0.15

#: Which command: an ident, and the seconds that it is told.
Which = tuple[str, int]


class TwoGatewaysTests(RealPartsTestCase):
    """A fleet of which every device leaves its gateway for the other one every few seconds."""

    def test_moving_devices(self) -> None:
        """A thousand interval.set with changing seconds reach their devices once each, and without delay."""
        redis = self.running_redis()
        here = self.running_gateway(redis.url)
        there = self.gateway(redis.url, name="there")
        there.start()
        fleet = Simulated(
            self.directory,
            here.port,
            FIRST,
            devices=DEVICES,
            interval=2,
            scenario="standing",
            seed=1,
            move=STAY_S,
            to=f"127.0.0.1:{there.port}",
        )
        self.addCleanup(fleet.child.kill)
        wait_for("everybody to report", lambda: redis.client.zcard("gateway:seen") == DEVICES)
        commander = Commander(redis.client)
        given: dict[Which, float] = {}
        began = time.monotonic()
        for number in range(COMMANDS):
            due = began + number * APART_S / DEVICES
            time.sleep(max(due - time.monotonic(), 0.0))
            ident, seconds = str(FIRST + number % DEVICES), 5 + number // DEVICES
            entry = commander.give(ident, "interval.set", f"{ident}-{seconds}", args={"seconds": seconds}, ttl=120)
            given[ident, seconds] = int(entry.partition("-")[0]) / 1000
        finals = wait_for("all to come to their end", lambda: self._finals(commander), 60.0, detail=here.tail)
        self.assertEqual({"confirmed": COMMANDS}, finals)
        heard: Counter[Which] = Counter()
        at: dict[Which, float] = {}
        for command in fleet.commands():
            text = bytes.fromhex(command["hex"]).decode()
            which = command["ident"], int(text.split(",")[4].rstrip("#"))
            heard[which] += 1
            at.setdefault(which, _epoch(command["time"]))
            self.assertTrue(command["alone"], text)
        self.assertEqual(Counter(dict.fromkeys(given, 1)), heard)
        waits = self._waits(given, at, fleet, redis.client)
        p50, p99 = statistics.median(waits), statistics.quantiles(waits, n=100)[98]
        figures = f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, max {max(waits) * 1000:.0f} ms"
        text = f"{COMMANDS} commands, beyond the wire rule: {figures}"
        print(f"\n{text}", file=sys.stderr)
        slowest = max(zip(waits, at, strict=True))
        life = commander.life(f"{slowest[1][0]}-{slowest[1][1]}")
        told = "\n".join(f"{event.time} {event.kind} {event.data}" for event in life)
        self.assertLess(p99, LIMIT_S, f"{text}\nthe slowest, after {slowest[0]:.3f} s:\n{told}")

    def _finals(self, commander: Commander) -> dict[str, int] | None:
        """How the commands ended; None: not all have."""
        finals = Counter(event.kind for life in commander.lives().values() for event in life if event.final)
        return dict(finals) if sum(finals.values()) >= COMMANDS else None

    def _waits(self, given: dict[Which, float], at: dict[Which, float], fleet: Simulated, client: Any) -> list[float]:
        """
        For each command the seconds that it took beyond what the wire rule wants.

        That is a second after the last reply before a gateway had read it, for replies wait from then on; or, for a
        device that was on its way to the other gateway, after its first report there, which was answered at once.
        """
        replies: dict[str, list[float]] = defaultdict(list)
        for line in fleet.record.read_text().splitlines():
            row: dict[str, Any] = json.loads(line)
            replies[row["ident"]].append(_epoch(row["time"]))
        reports: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for entry in entries(client):
            reports[entry["ident"]].append((_epoch(entry["received"]), entry["peer"]))
        waits = []
        for (ident, seconds), heard in at.items():
            when = given[ident, seconds]
            before = [(received, peer) for received, peer in reports[ident] if received <= when]
            since = [(received, peer) for received, peer in reports[ident] if when < received <= heard]
            elsewhere = [received for received, peer in since if not before or peer != before[-1][1]]
            if elsewhere:
                allowed = elsewhere[0] + GAP_S
            else:
                allowed = max([when, *(reply + GAP_S for reply in replies[ident] if reply <= when + READ_S)])
            waits.append(max(heard - allowed, 0.0))
        return waits


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
