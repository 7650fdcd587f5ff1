"""
Gateways that have the same name by mistake, and one that is started anew, which is none.

With C{GATEWAY_LONG=1} it is waited until they have forgotten it, and more than one start is tried.
"""

from __future__ import annotations

import os
from typing import Final

from tests.integration.machines.parts import MachinesTestCase
from tests.integration.parts import wait_for

LONG: Final = os.environ.get("GATEWAY_LONG") == "1"


class NameTests(MachinesTestCase):
    """Each instance needs a name of its own."""

    def test_same_name(self) -> None:
        """Both find out and say so; when one of them is gone the other is ready again."""
        one, two = self.machine("one", instance="same"), self.machine("two", instance="same")
        problem = "another gateway is called 'same' as well"
        for made in (one, two):
            wait_for("it to be found", lambda made=made: problem in made.output(), detail=made.tail)  # type: ignore[misc]  # a default

        def said() -> bool:
            beat = self.beat("same")
            return not beat["ready"] and any(problem in text for text in beat["problems"])

        wait_for("the heartbeat to say so", said)
        self.assertEqual(1, one.output().count(problem))
        if not LONG:
            return
        two.kill()
        wait_for("it to be over", lambda: self.beat("same")["ready"], 50.0)
        self.assertEqual(1, one.output().count(problem))

    def test_started_anew(self) -> None:
        """One that was killed and comes back at once finds its own heartbeat, and thinks nothing of it."""
        one = self.machine("one")
        for _ in range(2 if LONG else 1):
            wait_for("it to be there", lambda: self.beat("one").get("beat", 0) > 0)
            before = self.beat("one")["boot"]
            one.kill()
            one.start()
            wait_for("the new one", lambda before=before: self.beat("one")["boot"] != before)  # type: ignore[misc]  # a default
        wait_for("it to be there for a while", lambda: self.beat("one")["beat"] > 1)
        self.assertTrue(self.beat("one")["ready"])
        self.assertNotIn("another gateway", one.output())
