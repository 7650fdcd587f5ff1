"""What one device kept and sends more than once: each report is on the stream once, and each copy is answered."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Final

from tests.integration.faults import checks
from tests.integration.faults.checks import Snapshot
from tests.integration.fleet import Client, event_id, v1
from tests.integration.parts import Gateway, RealPartsTestCase, RedisServer, wait_for

IDENT: Final = "9170000007"

#: An hour of reports, ten seconds apart, of which the last is an hour old.
REPORTS: Final = 360
APART_S: Final = 10
AGE_S: Final = 3600

#: How long Redis is away.
AWAY_S: Final = 3.0

#: Well below the deadline within which Redis may owe an answer.
STOPPED_S: Final = 0.7


class BufferedTests(RealPartsTestCase):
    """A device comes out of an area without a network, and doubts that it was heard."""

    redis: RedisServer
    running: Gateway
    frames: list[bytes]

    def setUp(self) -> None:
        """Start Redis and the gateway, and make the reports."""
        super().setUp()
        self.redis = self.running_redis()
        self.running = self.running_gateway(self.redis.url)
        first = int(time.time()) - AGE_S - REPORTS * APART_S
        self.frames = [v1(IDENT, first + number * APART_S) for number in range(REPORTS)]

    def _send_all(
        self, before_half: Callable[[], object] = lambda: None, after_half: Callable[[], object] = lambda: None
    ) -> None:
        """All reports over a fresh connection, with what happens before and after the second half; all are answered."""
        with Client(self.running.port) as device:
            half = REPORTS // 2
            device.send(b"".join(self.frames[:half]))
            self.assertEqual(half, len(device.answers(half)))
            before_half()
            device.send(b"".join(self.frames[half:]))
            after_half()
            self.assertEqual(REPORTS - half, len(device.answers(REPORTS - half)))
            self.assertEqual([], device.rest())

    def _back_after_a_while(self) -> None:
        time.sleep(AWAY_S)
        self.redis.start()

    def _assert_once_each(self, copies: int) -> None:
        ids = {event_id(IDENT, frame) for frame in self.frames}
        wait_for("all of them", lambda: not Snapshot.take(self.redis.client).lost(ids))
        snapshot = Snapshot.take(self.redis.client)
        self.assertEqual([], checks.problems(snapshot, ids))
        self.assertEqual(REPORTS, len(snapshot.positions))
        self.assertEqual({"lag"}, {entry.late for entry in snapshot.positions})
        counts = self.ledger_adds_up(self.redis.client, lambda counts: counts["received"] >= REPORTS * copies)
        self.assertEqual((REPORTS, REPORTS * (copies - 1)), (counts["published"], counts["duplicate"]))

    def test_sent_whole_three_times(self) -> None:
        """What was kept for two hours is sent whole, and whole twice more over fresh connections."""
        for _ in range(3):
            self._send_all()
        self._assert_once_each(3)

    def test_redis_away_in_the_middle(self) -> None:
        """The same, with Redis killed after the first half of each, and started again."""
        for _ in range(3):
            self._send_all(self.redis.kill, self._back_after_a_while)
        self._assert_once_each(3)

    def test_gateway_killed_in_the_middle(self) -> None:
        """The gateway is killed when the first half was sent, and all is sent again to the next one."""
        with Client(self.running.port) as device:
            device.send(b"".join(self.frames[: REPORTS // 2]))
            self.running.kill()
        self.running.start()
        self._send_all()
        ids = {event_id(IDENT, frame) for frame in self.frames}
        self.assertEqual([], checks.problems(Snapshot.take(self.redis.client), ids))

    def test_copy_of_what_is_pending(self) -> None:
        """
        A copy of a report that Redis has not answered for yet waits for that, too.

        Redis stands still; both copies, on connections of their own, are
        answered when it goes on, and the report is there once.
        """
        with Client(self.running.port) as one, Client(self.running.port) as other:
            one.send(self.frames[0])
            self.assertEqual(1, len(one.answers(1)))
            self.redis.signal(signal.SIGSTOP)
            one.send(self.frames[1])
            time.sleep(0.1)
            other.send(self.frames[1])
            self.assertEqual([], one.answers(1, STOPPED_S / 2))
            self.assertEqual([], other.answers(1, STOPPED_S / 2))
            self.redis.signal(signal.SIGCONT)
            self.assertEqual(1, len(one.answers(1)))
            self.assertEqual(1, len(other.answers(1)))
            self.assertEqual(([], []), (one.rest(), other.rest()))
        snapshot = Snapshot.take(self.redis.client)
        self.assertEqual(
            [event_id(IDENT, frame) for frame in self.frames[:2]], [entry.id for entry in snapshot.positions]
        )
        self.assertEqual([], checks.problems(snapshot, ()))
