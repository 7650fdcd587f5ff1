"""What of a changed configuration is taken over."""

from __future__ import annotations

import dataclasses

from twisted.trial.unittest import SynchronousTestCase

from gateway.config import Config, IdentitySection, LimitsSection, RedisSection, StreamsSection
from gateway.reloading import changes, taken_over


class ChangesTests(SynchronousTestCase):
    """Two configurations."""

    def test_sorted(self) -> None:
        """Each difference is taken over or needs a new start, by its section and key."""
        before = Config()
        after = dataclasses.replace(
            before,
            identity=IdentitySection("known"),
            limits=LimitsSection(junk_bytes=1, unanswered=7),
            redis=RedisSection(prefix="other"),
            streams=StreamsSection(dead_entries=3),
            disable=("osmand",),
        )
        found = changes(before, after)
        self.assertEqual(["[identity] mode", "[limits] junk_bytes", "[limits] unanswered"], found.taken)
        self.assertEqual(["[redis] prefix", "[streams] dead_entries", "[devices]"], found.left)
        now = taken_over(before, after)
        self.assertEqual(("known", 1, "gateway"), (now.identity.mode, now.limits.junk_bytes, now.redis.prefix))
        self.assertEqual([], changes(now, after).taken)
        self.assertEqual(([], []), changes(before, Config()))
