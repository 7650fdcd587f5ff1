"""conf/haproxy.cfg in a real HAProxy before two gateways, which die, hang and come back."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any, Final

from tests.integration.fleet import is_answer
from tests.integration.machines.parts import MachinesTestCase, Tracker
from tests.integration.parts import Gateway, outcomes, wait_for

TRACKERS: Final = 6
FIRST: Final = 9_960_000_000
#: What version 1 needs instead: the balancer does not say of a check that it is one.
VERSION_1: Final = (
    ("    option tcp-check\n    tcp-check connect send-proxy\n    tcp-check expect string alive\n", ""),
    ("default-server check ", "default-server check check-send-proxy "),
    ("send-proxy-v2", "send-proxy"),
)


class BalancerCase(MachinesTestCase):
    """Trackers that come through HAProxy."""

    changes: tuple[tuple[str, str], ...] = ()

    def setUp(self) -> None:
        """Start all, and let everybody report once."""
        super().setUp()
        self.gateways: dict[str, Gateway] = {name: self.machine(name) for name in self.ports}
        self.port = self.haproxy(*self.changes)
        self.trackers = [
            Tracker(f"{FIRST + number}", self.port, source=f"127.0.0.{10 + number}") for number in range(TRACKERS)
        ]
        for tracker in self.trackers:
            self.addCleanup(tracker.client.socket.close)
            tracker.report()

    def where(self, tracker: Tracker) -> str:
        """The instance that its newest report came to."""
        return self.rows(tracker.ident)[-1]["source"].removeprefix("gateway/")

    def at(self, name: str) -> list[Tracker]:
        """The trackers whose newest report came to an instance."""
        return [tracker for tracker in self.trackers if self.where(tracker) == name]

    def assert_complete(self) -> None:
        """Each report is there once, came from whoever sent it, and nothing else was taken for a frame."""
        peers = {}
        for tracker in self.trackers:
            rows = self.rows(tracker.ident)
            self.assertEqual(len(tracker.frames), len(rows), tracker.ident)
            peers[tracker.client.name] = rows[-1]["peer"]
        self.assertEqual({name: name for name in peers}, peers)
        # a report that was sent again to another gateway counts there, too
        frames = sum(len(tracker.frames) for tracker in self.trackers)
        counts = self.ledger_adds_up(self.redis.client, lambda counts: counts["published"] == frames)
        self.assertEqual(outcomes(counts), frames + counts.get("duplicate", 0))

    def next_beats(self) -> dict[str, dict[str, Any]]:
        """What both say of themselves when they do so next."""
        before = {name: self.beat(name).get("beat", 0) for name in self.ports}
        beats: dict[str, dict[str, Any]] = {}

        def both() -> bool:
            beats.update({name: self.beat(name) for name in self.ports})
            return all(beats[name].get("beat", 0) > before[name] for name in before)

        wait_for("both to say how they are", both)
        return beats

    def comes_back(self, lost: list[Tracker], to: str) -> None:
        """These find themselves cut off, connect anew, and send again what they have no answer to."""
        for tracker in lost:
            self.assertTrue(tracker.client.closed(), f"{tracker.ident} is not told\n{self.balancer.tail()}")
            tracker.client.socket.close()
        for tracker in lost:
            frame = tracker.new()

            def answered(tracker: Tracker = tracker, frame: bytes = frame) -> bool:
                try:
                    tracker.connect(self.port)
                    self.addCleanup(tracker.client.socket.close)
                    tracker.client.send(frame)
                except OSError:  # HAProxy knows of nobody at this moment
                    return False
                answers = tracker.client.answers(1, 3.0)
                return bool(answers) and is_answer(answers[0], tracker.ident)

            wait_for(f"{tracker.ident} to be answered", answered, detail=self.balancer.tail)
            self.assertEqual(to, self.where(tracker))


class BalancerTests(BalancerCase):
    """Gateways that live and die."""

    def test_spread(self) -> None:
        """Both have their share, events know who sent them, and health checks leave nothing behind."""
        self.assertLessEqual(2, min(Counter(map(self.where, self.trackers)).values()))
        for tracker in self.trackers:
            tracker.report()
        self.assert_complete()
        before = self.next_beats()
        for name, beat in self.next_beats().items():
            for counter in ("connections", "received"):
                self.assertEqual(before[name]["counters"][counter], beat["counters"][counter], name)
            self.assertEqual([], [counter for counter in beat["counters"] if "proxy" in counter], name)

    def test_killed(self) -> None:
        """One is killed: what it had comes to the other, which goes on as before; back again it is filled again."""
        lost, others = self.at("one"), self.at("two")
        self.gateways["one"].kill()
        for tracker in others:
            tracker.report()
        self.comes_back(lost, "two")
        self.assert_complete()
        self.balanced("gateways/one is DOWN")
        self.gateways["one"].start()
        self.balanced("gateways/one is UP")

        def comes_to_it() -> bool:
            tracker = Tracker(f"{FIRST + len(self.trackers)}", self.port)
            self.addCleanup(tracker.client.socket.close)
            self.trackers.append(tracker)
            tracker.report()
            return self.where(tracker) == "one"

        wait_for("a new one to come to it", comes_to_it, detail=self.balancer.tail)
        self.assert_complete()


class Version1Tests(BalancerTests):
    """The same with version 1 of the PROXY protocol."""

    changes = VERSION_1


class HangingTests(BalancerCase):
    """What only version 2 can do, and an orderly end."""

    def test_hanging(self) -> None:
        """One hangs and still accepts connections: it is found, and what it had comes to the other within seconds."""
        lost = self.at("one")
        self.gateways["one"].signal(signal.SIGSTOP)
        self.balanced("gateways/one is DOWN")
        self.comes_back(lost, "two")
        self.gateways["one"].signal(signal.SIGCONT)
        self.balanced("gateways/one is UP")
        for tracker in self.trackers:
            tracker.report()
        self.assert_complete()

    def test_restarted_in_turn(self) -> None:
        """Each ends in order and comes back, one after the other: everything is answered, and there once."""
        for name, other in (("one", "two"), ("two", "one")):
            lost = self.at(name)
            self.assertTrue(lost)
            self.gateways[name].terminate()
            self.comes_back(lost, other)
            self.balanced(f"gateways/{name} is DOWN")
            self.gateways[name].start()
            self.balanced(f"gateways/{name} is UP")
        self.assert_complete()
