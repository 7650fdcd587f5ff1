"""
Faults at random, one after the other and at times two at once, in rounds with a fresh store each.

C{GATEWAY_FAULTS} says how many, C{GATEWAY_FAULT_SEED} which ones: a failure
names the seed that brings it again, as far as chance allows, and
C{GATEWAY_FAULT_ROUND} runs one round of it alone.
"""

from __future__ import annotations

import os
import sys
import time
from random import Random, SystemRandom
from typing import Any, Final

from tests.integration.faults.conditions import faketime
from tests.integration.faults.draws import at_random
from tests.integration.faults.faults import LONG
from tests.integration.faults.rounds import RoundTestCase
from tests.integration.faults.stage import Stage
from tests.integration.faults.table import Row, machine, table

FAULTS: Final = int(os.environ.get("GATEWAY_FAULTS") or (200 if LONG else 3))
#: The short form has the same ones each time.
SEED: Final = int(os.environ.get("GATEWAY_FAULT_SEED") or (SystemRandom().randrange(2**32) if LONG else 1))
ONLY: Final = os.environ.get("GATEWAY_FAULT_ROUND")

#: Faults in a round: its stream has some ten thousand entries at the end, and is read whole after each one.
ROUND: Final = 10

#: The share of draws with two faults at once.
PAIRS: Final = 0.25

#: Of so many rounds one has its store under Sentinel, and one a clock that can jump.
SENTINEL_EVERY: Final = 4
CLOCK_EVERY: Final = 3


class RandomTests(RoundTestCase):
    """A long row of faults."""

    def test_at_random(self) -> None:
        """Each fault is followed by all devices being served, with nothing lost and nothing twice."""
        started = time.monotonic()
        rows: list[Row] = []
        failures: list[str] = []
        server = ""
        _say(f"{FAULTS} faults, GATEWAY_FAULT_SEED={SEED}")
        first = int(ONLY) if ONLY else 0
        # a round that fails ends early, and another one takes its place; but not for ever
        last = first if ONLY else 2 * FAULTS // ROUND
        for number in range(first, last + 1):
            if len(rows) >= FAULTS:
                break
            try:
                with self.stage(f"round{number}", SEED + number, **_options(number)) as stage:
                    server = server or _server(stage)
                    self._round(stage, number, min(ROUND, FAULTS - len(rows)), rows)
            except AssertionError as error:
                failures.append(f"round {number}: {error}")
                _say(failures[-1])
        _say(table(rows, machine(server, time.monotonic() - started)))
        self.assertEqual([], [failure[:2_000] for failure in failures], f"GATEWAY_FAULT_SEED={SEED}")
        self.assertGreaterEqual(len(rows), 1 if ONLY else FAULTS)

    def _round(self, stage: Stage, number: int, faults: int, rows: list[Row]) -> None:
        random = Random(f"{SEED} {number}")
        for _ in range(faults):
            draw = at_random(random, stage.has, PAIRS)
            row = self.strike(stage, draw)
            rows.append(row)
            _say(f"{len(rows)} of {FAULTS}, round {number}: {draw.name}, for {draw.hold_s:.1f} s: {row.text}")
            self.assertEqual([], row.problems, self.about(stage, f"after {draw.name}"))


def _options(number: int) -> dict[str, Any]:
    if not LONG:
        return {"disk": True}
    if number % SENTINEL_EVERY == SENTINEL_EVERY - 1:
        return {"sentinel": True}
    # without the library a round goes without; the tests of each kind alone say that it is missing
    return {"disk": True, "clock": number % CLOCK_EVERY == 1 and faketime() is not None}


def _server(stage: Stage) -> str:
    return f"Redis {stage.client.info('server')['redis_version']} with appendfsync always"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
