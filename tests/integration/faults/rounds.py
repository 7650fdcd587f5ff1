"""A round: faults come one after the other while the fleets report, and after each one everything is verified."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from tests.integration.faults import checks
from tests.integration.faults.checks import Snapshot
from tests.integration.faults.draws import Draw, broken, shortest
from tests.integration.faults.stage import Stage
from tests.integration.faults.table import Row
from tests.integration.parts import RealPartsTestCase

#: How long what was acknowledged may take to be on the stream, once all devices are served.
SETTLED_S: Final = 30.0

#: What the gateway may hold more after a fault than before it.
MARGIN_MIB: Final = 32.0

#: How long the fleets report between two faults.
CALM_S: Final = 0.5

#: How long after Redis went away devices are acknowledged again, by way of the journal: Redis may owe an answer for
#: 1 s, which is looked for once a second.
NOTICED_S: Final = 3.0


#: How often it is looked whether it is there.
PROBE_S: Final = 0.3


class Verdict(NamedTuple):
    """
    What a verification says.

    @ivar acknowledged: how many reports were, so far.
    @ivar problems: everything that is wrong, lost and doubled reports too.
    """

    snapshot: Snapshot
    acknowledged: int
    lost: int
    twice: int
    problems: list[str]


class RoundTestCase(RealPartsTestCase):
    """Has stages, and brings faults to them."""

    @contextmanager
    def stage(self, name: str = "stage", seed: int = 1, **options: Any) -> Iterator[Stage]:
        """Everything running, all devices served; at the end the fleets finish, and all is verified a last time."""
        stage = Stage(self, name, seed, **options)
        try:
            stage.start()
            yield stage
            sent = stage.finish()
            verdict = self.verify(stage)
            self.assertEqual([], verdict.problems, self.about(stage, "at the end"))
            # each was sent by a fleet or copied on its way: nothing is counted that nobody sent
            self.assertLessEqual(verdict.snapshot.ledger["received"], sent)
            self.hold_against_the_schema(stage.store)
        finally:
            stage.close()

    def about(self, stage: Stage, when: str) -> str:
        """What a failure says."""
        return f"{when}; seed of the stage: {stage.seed}\n{stage.gateway.tail()}"

    def suffer(self, stage: Stage, *names: str) -> None:
        """These kinds of faults, each alone, as short as it makes sense."""
        for name in names:
            row = self.strike(stage, shortest(name))
            self.assertEqual([], row.problems, self.about(stage, f"after {name}"))

    def strike(self, stage: Stage, draw: Draw) -> Row:
        """Break what the draw says, make it whole, wait until all devices are served, and verify."""
        time.sleep(CALM_S)
        before, memory = len(stage.acknowledged()), stage.gateway.resident_mib()
        stage.mended_at = None
        with broken(stage, draw):
            begun = time.time()
            time.sleep(draw.hold_s)
            held = time.time()
        moment = (len(draw.kinds) == 1 and stage.mended_at) or time.time()
        stage.gateway.wait_until_it_listens()
        recovery = stage.wait_until_whole(moment)
        verdict = self.verify(stage)
        problems = verdict.problems
        kept = held - begun > NOTICED_S and len(draw.kinds) == 1 and draw.kinds[0].journaled
        if kept and not stage.answers(begun + NOTICED_S, held):
            problems.append(f"nothing was acknowledged while Redis was away, for {draw.hold_s:.1f} s")
        more = stage.gateway.resident_mib() - memory
        if more > MARGIN_MIB:
            problems.append(f"the gateway holds {more:.0f} MiB more than before")
        kinds = [kind.name for kind in draw.kinds]
        return Row(kinds, verdict.acknowledged - before, verdict.lost, verdict.twice, recovery, problems)

    def verify(self, stage: Stage, settled_s: float = SETTLED_S) -> Verdict:
        """Hold the store against what the fleets saw acknowledged; the gateway lives and has nothing to regret."""
        self.assertTrue(stage.gateway.running, stage.gateway.tail())
        self.hold_against_its_log(stage.gateway)
        acknowledged = stage.acknowledged()
        # what is in the journal was acknowledged, and is on its way
        end = time.monotonic() + settled_s
        while (lost := (snapshot := stage.snapshot()).lost(acknowledged)) and time.monotonic() < end:
            time.sleep(PROBE_S)
        found = checks.problems(snapshot, acknowledged)
        return Verdict(snapshot, len(acknowledged), len(lost), len(snapshot.twice()), found)
