"""Each kind of fault alone, as short as it makes sense; with C{GATEWAY_LONG=1} as long as it may last."""

from __future__ import annotations

from tests.integration.faults.rounds import RoundTestCase


class AloneTests(RoundTestCase):
    """Two fleets report all the time; after each fault all devices are served, nothing is lost, nothing is doubled."""

    def test_redis(self) -> None:
        """Redis is killed, stands still for longer than its deadline, and has no memory left."""
        with self.stage() as stage:
            self.suffer(stage, "Redis killed", "Redis stopped", "Redis out of memory")

    def test_gateway(self) -> None:
        """The gateway is killed, also while Redis is away."""
        with self.stage() as stage:
            self.suffer(stage, "gateway killed", "gateway killed while Redis is away")

    def test_network(self) -> None:
        """The network between the gateway and Redis cuts, loses, delays, swallows, and delivers halves."""
        with self.stage() as stage:
            self.suffer(stage, "connection to Redis cut", "answers of Redis lost", "network to Redis slow")
            self.suffer(stage, "black hole before Redis", "replies of Redis cut short")

    def test_datagrams(self) -> None:
        """The network between the devices and the gateway loses datagrams, doubles them and changes their order."""
        with self.stage() as stage:
            self.suffer(stage, "UDP lost, late and copied")
            tally = stage.relay.tally
            self.assertGreater(min(tally.lost, tally.copied, tally.delayed), 0, tally)

    def test_disk(self) -> None:
        """The disk is full while Redis is away."""
        with self.stage(disk=True) as stage:
            self.suffer(stage, "disk full while Redis is away")

    def test_clock(self) -> None:
        """The gateway's clock jumps by an hour, forward and backward, and back again."""
        with self.stage(clock=True) as stage:
            self.suffer(stage, "clock an hour ahead", "clock an hour behind")
