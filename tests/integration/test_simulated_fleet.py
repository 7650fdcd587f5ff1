"""
A large simulated fleet over TCP and one over UDP, while Redis is killed and the gateway is started again: nothing lost.

With C{GATEWAY_LONG=1} each reports for a minute; else for as long as a quick run of the suite allows.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import Counter
from typing import Any, Final

from tests.integration.parts import Gateway, RealPartsTestCase, RedisServer, connect, free_port, wait_for
from tests.integration.simulated import Simulated

LONG: Final = os.environ.get("GATEWAY_LONG") == "1"
DEVICES: Final = 1_000
INTERVAL_S: Final = 5
#: How many reports a device makes, and so for how long.
REPORTS: Final = 12 if LONG else 4
FIRST: Final = {"tcp": 9_920_000_000, "udp": 9_930_000_000}
#: Re-sent after so long: sooner than by default, so that the end does not have to wait for it.
TIMEOUT_S: Final = 3
PATIENCE_S: Final = 30
REDIS_AWAY_S: Final = 1.0
#: How many entries are read at once.
PAGE: Final = 10_000


class SimulatedFleetTests(RealPartsTestCase):
    """A thousand devices over TCP and a thousand over UDP."""

    def test_nothing_lost(self) -> None:
        """
        Redis is killed with -9 and started, then the gateway, then the gateway is told to end and started.

        At the end each report is acknowledged, and each that was acknowledged is on the stream exactly once.
        """
        redis = self.running_redis()
        running = self.running_gateway(redis.url)
        fleets = {
            transport: Simulated(
                self.directory,
                running.port,
                first,
                transport=transport,
                devices=DEVICES,
                interval=INTERVAL_S,
                count=REPORTS,
                timeout=TIMEOUT_S,
                patience=PATIENCE_S,
            )
            for transport, first in FIRST.items()
        }
        for fleet in fleets.values():
            self.addCleanup(fleet.child.kill)
        self._trouble(redis, running)
        summaries = {transport: fleet.summary(120.0) for transport, fleet in fleets.items()}
        published = self._published(redis.url)
        for transport, fleet in fleets.items():
            summary, acknowledged = summaries[transport], fleet.acknowledged()
            about = f"{transport}: {summary}\n{running.tail()}"
            self.assertEqual((0, 0), (summary["status"], summary["lost"]), about)
            self.assertEqual(DEVICES * REPORTS, len(set(acknowledged)), about)
            self.assertGreater(summary["connections"], DEVICES, about)  # the trouble was felt
            missing = [one for one in acknowledged if one not in published]
            self.assertEqual([], missing[:5], f"{len(missing)} acknowledged and not there; {about}")
            if LONG:
                print(transport, summary, file=sys.stderr)  # for the table in docs/simulator.rst
        self.assertEqual([], [one for one, times in published.items() if times > 1][:5])
        self.assertEqual(len(FIRST) * DEVICES * REPORTS, len(published))

    def _trouble(self, redis: RedisServer, running: Gateway) -> None:
        """What happens in the middle: at a quarter, a half and three quarters of the time."""
        started, quarter = time.monotonic(), REPORTS * INTERVAL_S / 4

        def wait_until(moment: float) -> None:
            time.sleep(max(0.0, started + moment - time.monotonic()))

        wait_until(quarter)
        redis.kill()
        time.sleep(REDIS_AWAY_S)
        redis.start()
        wait_until(2 * quarter)
        running.kill()
        running.start()
        wait_until(3 * quarter)
        running.terminate()
        running.start()

    def _published(self, url: str) -> Counter[str]:
        """The ids of all positions on the stream, and how often each is there."""
        client: Any = connect(url)
        self.addCleanup(client.close)
        published: Counter[str] = Counter()
        last = "-"
        while page := client.xrange("gateway:position", min=last, count=PAGE):
            published.update(fields["id"] for _, fields in page)
            last = f"({page[-1][0]}"
        return published


class MoveTests(RealPartsTestCase):
    """Devices that go from one gateway to another and back."""

    def test_nothing_lost(self) -> None:
        """No report is lost or sent twice, and each gateway has closed each connection in an orderly way."""
        redis = [RedisServer(self.binary(), self.directory / f"redis{number}") for number in range(2)]
        running = []
        for number, server in enumerate(redis):
            self.addCleanup(server.kill)
            server.start()
            running.append(self.gateway(server.url, name=f"gateway{number}"))
            running[-1].start()
        fleets = [
            Simulated(
                self.directory,
                running[0].port,
                first,
                transport=transport,
                devices=20,
                interval=1,
                count=9,
                move=2.5,
                to=f"127.0.0.1:{running[1].port}",
                timeout=5,
            )
            for transport, first in FIRST.items()
        ]
        for fleet in fleets:
            self.addCleanup(fleet.child.kill)
        there: list[set[str]] = []
        summaries = [fleet.summary(60.0) for fleet in fleets]
        for server in redis:
            client: Any = connect(server.url)
            self.addCleanup(client.close)
            there.append({fields["id"] for _, fields in client.xrange("gateway:position")})
        for fleet, summary in zip(fleets, summaries, strict=True):
            acknowledged = set(fleet.acknowledged())
            self.assertEqual((0, 0, 0), tuple(summary[name] for name in ("status", "resent", "strange_answers")))
            self.assertEqual(20 * 9, len(acknowledged), summary)
            self.assertEqual(set(), acknowledged - there[0] - there[1])
            self.assertTrue(20 * 4 - 20 <= summary["connections"] <= 20 * 5, summary)
            for ids in there:
                self.assertGreater(len(acknowledged & ids), 20 * 3)
        self.assertEqual(set(), there[0] & there[1])


class CommandTests(RealPartsTestCase):
    """How C{gateway simulate} ends when there is no gateway."""

    def start(self, **options: object) -> Simulated:
        """Start it on a port where nobody listens."""
        fleet = Simulated(self.directory, free_port(), FIRST["tcp"], devices=2, interval=1, **options)
        self.addCleanup(fleet.child.kill)
        return fleet

    def test_lost(self) -> None:
        """Reports that were not acknowledged are lost, and the exit status says so."""
        summary = self.start(count=1, patience=0).summary(20.0)
        self.assertEqual((1, 2, 0, 2), tuple(summary[name] for name in ("status", "reports", "acknowledged", "lost")))

    def test_heard(self) -> None:
        """A command is written down as it came, at once, and taken as --commands says."""
        for transport in ("tcp", "udp"):
            with socket.socket(type=socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM) as server:
                server.bind(("127.0.0.1", 0))
                server.settimeout(20.0)
                first = FIRST[transport]
                options: dict[str, object] = {"transport": transport, "scenario": "standing", "commands": "stays-cut"}
                fleet = Simulated(self.directory, server.getsockname()[1], first, devices=1, count=1, **options)
                self.addCleanup(fleet.child.kill)
                if transport == "tcp":
                    server.listen()
                    peer, _ = server.accept()
                    self.addCleanup(peer.close)
                    peer.settimeout(20.0)
                    report = peer.recv(4096)
                else:
                    peer = server
                    report, address = peer.recvfrom(4096)
                    peer.connect(address)
                self.assertIn(b",V1,", report)
                peer.send(b"*HQ,%d,S20,130305,0,0#" % first)
                self.assertEqual(b"*HQ,%d,V4,S20,130305,1,1#" % first, peer.recv(4096))
                (line,) = fleet.commands()
                peer.send(b"*HQ,%d,V4,V1,20261122120000#" % first)
                summary = fleet.summary(20.0)
            self.assertEqual({"ident", "hex", "time", "alone"}, line.keys())
            self.assertEqual((str(first), True), (line["ident"], line["alone"]))
            self.assertEqual(b"*HQ,%d,S20,130305,0,0#" % first, bytes.fromhex(line["hex"]))
            self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            self.assertEqual((0, 0, 1, 1), tuple(summary[name] for name in ("status", "lost", "commands", "told")))

    def test_interrupted(self) -> None:
        """Ctrl-C makes it wait for what is outstanding; a second one ends it."""
        fleet = self.start(patience=60)
        wait_for("it to say what it does", lambda: "2 devices" in fleet.child.tail())
        time.sleep(1.0)
        fleet.child.signal(signal.SIGINT)
        time.sleep(1.0)
        self.assertIsNone(fleet.child.exited, fleet.child.tail())
        fleet.child.signal(signal.SIGINT)
        summary = fleet.summary(5.0)
        self.assertEqual(1, summary["status"])
        self.assertLess(summary["lost"], 2 * 4)  # no more reports were made after the first
