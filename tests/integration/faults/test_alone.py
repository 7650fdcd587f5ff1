"""Each kind of fault alone, as short as it makes sense; with C{GATEWAY_LONG=1} as long as it may last."""

from __future__ import annotations

import time
from typing import Final

from tests.integration.faults.draws import Draw
from tests.integration.faults.faults import KINDS, LONG
from tests.integration.faults.rounds import RoundTestCase
from tests.integration.faults.stage import Stage
from tests.integration.parts import wait_for

#: How long the disk is full; in the second half of it nothing is acknowledged.
FULL_S: Final = 3.0

#: The gateway's heart beats every 5 s.
BEAT_S: Final = 8.0


class AloneTests(RoundTestCase):
    """Two fleets report all the time; after each fault all devices are served, nothing is lost, nothing is doubled."""

    def test_redis(self) -> None:
        """Redis is killed, stands still for longer than its deadline, and has no memory left."""
        with self.stage() as stage:
            self.suffer(stage, "Redis killed", "Redis stopped", "Redis out of memory")
            if LONG:
                self.suffer(stage, "Redis away for longer", "Redis stopped for 30 s")

    def test_gateway(self) -> None:
        """The gateway is killed, also while Redis is away."""
        with self.stage() as stage:
            self.suffer(stage, "gateway killed", "gateway killed while Redis is away")

    def test_workers(self) -> None:
        """One of two workers is killed; both are replaced, one by one, while Redis is there and while it is not."""
        with self.stage(workers=2) as stage:
            self.suffer(stage, "worker killed", "workers replaced")
            row = self.strike(stage, Draw([KINDS["Redis killed"], KINDS["workers replaced"]], 1.0, 0.3))
            self.assertEqual([], row.problems, self.about(stage, "after both"))

    def test_network(self) -> None:
        """The network between the gateway and Redis cuts, loses, delays, swallows, and delivers halves."""
        with self.stage() as stage:
            self.suffer(stage, "network to Redis slow")
            kinds = "connection to Redis cut", "answers of Redis lost", "black hole before Redis"
            for kind in (*kinds, "replies of Redis cut short"):
                before = stage.wire.accepted
                self.suffer(stage, kind)
                self.assertGreater(stage.wire.accepted, before, f"{kind}: nothing was felt")

    def test_datagrams(self) -> None:
        """Datagrams are lost, doubled and overtaken; and once more while Redis and the gateway die together."""
        with self.stage() as stage:
            self.suffer(stage, "UDP lost, late and copied")
            tally = stage.relay.tally
            self.assertGreater(min(tally.lost, tally.copied, tally.delayed), 0, tally)
            kinds = [KINDS[name] for name in ("Redis killed", "gateway killed", "UDP lost, late and copied")]
            row = self.strike(stage, Draw(kinds, 1.0, 0.3))
            self.assertEqual([], row.problems, self.about(stage, "after all of them"))

    def test_disk(self) -> None:
        """
        Redis is killed, and the disk fills up: nothing is acknowledged any more, by a gateway started then neither.

        With room again the devices are served, though Redis is still away.
        """
        with self.stage(disk=True) as stage:
            stage.redis.kill()
            stage.wait_until_served(time.time())
            self.assertGreater(stage.journaled, 0)
            stage.disk.fill()
            self._nothing_is_acknowledged(stage)
            stage.gateway.kill()
            before = stage.gateway.output().count("listening on")
            stage.gateway.launch()
            wait_for("it to listen", lambda: stage.gateway.output().count("listening on") > before)
            self._nothing_is_acknowledged(stage)
            stage.disk.clear()
            stage.wait_until_served(time.time())
            stage.redis.start()
            stage.wait_until_served(time.time())

    def _nothing_is_acknowledged(self, stage: Stage) -> None:
        time.sleep(FULL_S)
        end = time.time()
        self.assertEqual(0, stage.answers(end - FULL_S / 2, end), stage.gateway.tail())

    def test_clock(self) -> None:
        """The gateway's clock jumps by an hour, and back again; what it does every few seconds goes on."""
        with self.stage(clock=True) as stage:
            self.suffer(stage, "clock an hour behind", "clock an hour ahead")
            positions = stage.snapshot().positions
            self.assertIn("lag", {entry.late for entry in positions})  # an hour ahead: all is old
            # an hour behind: all comes from the future
            self.assertIn(True, {entry.own_time for entry in positions})
            beats = [*stage.client.scan_iter("gateway:instance:*")]
            self.assertEqual(stage.gateway.workers, len(beats))
            stage.client.delete(*beats)
            wait_for("the next heartbeats", lambda: stage.client.exists(*beats) == len(beats), BEAT_S)

    def test_sentinel(self) -> None:
        """The master dies, or another one is made master: the gateway goes after it, and brings what it lacks."""
        with self.stage(sentinel=True) as stage:
            self.suffer(stage, "master killed", "orderly failover")
