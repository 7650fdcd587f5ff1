"""What is answered to who asks whether a gateway lives, and whether it is fit."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gateway.health import DEAD_S, LAG_S, live, ready
from gateway.reporting import Report

WELL = Report({}, 0, 0, True, [])


class HealthTests(SynchronousTestCase):
    """Live and ready."""

    def test_live(self) -> None:
        """Who answers lives, unless that took an age."""
        self.assertTrue(live(0.0).well)
        self.assertTrue(live(DEAD_S).well)
        self.assertFalse(live(DEAD_S + 0.1).well)

    def test_ready(self) -> None:
        """It is when it listens, stores in Redis, keeps up, and goes on."""
        self.assertTrue(ready(WELL, listening=True, draining=False).well)
        for report, listening, draining, said in (
            (None, True, False, "it has not begun"),
            (WELL, False, False, "it does not listen yet"),
            (WELL, True, True, "it is ending"),
            (WELL._replace(ready=False), True, False, "Redis is away or behind: what comes goes to the journal"),
            (WELL._replace(problems=["a group loses entries"]), True, False, "a group loses entries"),
            (WELL._replace(lag_s=LAG_S + 1), True, False, "it does not keep up: its timers come 3.0 s late"),
        ):
            found = ready(report, listening=listening, draining=draining)
            self.assertEqual(([said], False), (list(found.problems), found.well))
        self.assertTrue(ready(WELL._replace(lag_s=LAG_S), listening=True, draining=False).well)
        for share, well in ((0.94, True), (0.95, False), (1.2, False)):
            self.assertEqual(well, ready(WELL, listening=True, draining=False, journal=share).well)
        self.assertEqual(2, len(ready(None, listening=False, draining=True).problems))
