"""A storm of reconnects: 2,000 devices, with C{GATEWAY_LONG=1} 5,000, lose their connections and come again at once."""

from __future__ import annotations

import resource
import sys
import time
from typing import Final

from tests.integration.faults.faults import LONG
from tests.integration.faults.rounds import RoundTestCase

DEVICES: Final = 5_000 if LONG else 2_000
INTERVAL_S: Final = 5 if LONG else 2

#: What the gateway may still hold of each afterwards: its state as a session, and what the allocator keeps.
EACH_MIB: Final = 16 / 1024

#: They are cut after each four intervals.
REPORTS: Final = 6

#: Descriptors of the fleet and of the gateway beside their connections.
_OTHER_FILES: Final = 512


class StormTests(RoundTestCase):
    """Two fleets report while a third one comes, is cut off, and comes again."""

    def test_storm(self) -> None:
        """Every device of all fleets is served, before the storm and after it; nothing is lost, nothing is doubled."""
        self._allow_files(DEVICES + _OTHER_FILES)
        with self.stage() as stage:
            memory = stage.gateway.resident_mib()
            with stage.extra_fleet(DEVICES, scenario="storm", interval=INTERVAL_S, count=REPORTS) as fleet:
                pass
            recovery = stage.wait_until_served(time.time())
            verdict = self.verify(stage)
            self.assertEqual([], verdict.problems, self.about(stage, "after the storm"))
            self.assertEqual(DEVICES * REPORTS, len(fleet.ids))
            summary = stage.summaries[-1]
            self.assertGreaterEqual(summary["connections"], 2 * DEVICES, summary)
            more = stage.gateway.resident_mib() - memory
            about = f"{summary}, {more:.1f} MiB more than before, all served after {recovery.all_s:.2f} s"
            print(about, file=sys.stderr)
            self.assertLess(more, DEVICES * EACH_MIB, about)

    def _allow_files(self, files: int) -> None:
        """Have so many descriptors, for this process and those that it starts."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < files:
            self.need(None, f"{files} open files are needed, and {hard} allowed (ulimit -Hn)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
