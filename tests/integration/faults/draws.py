"""Which faults come, and for how long: each kind alone, or drawn at random, also two at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.integration.faults.faults import KINDS, LONG, Kind
from tests.integration.faults.stage import Stage

#: What lasts longer comes alone.
LASTING_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Draw:
    """
    One fault, or two at once.

    @ivar offset_s: how long after the first one the second one begins.
    """

    kinds: Sequence[Kind]
    hold_s: float
    offset_s: float = 0.0

    @property
    def name(self) -> str:
        """What is broken."""
        return " + ".join(kind.name for kind in self.kinds)


def shortest(name: str) -> Draw:
    """A kind alone, as short as it makes sense; in the long form as long as it may last."""
    kind = KINDS[name]
    return Draw((kind,), kind.holds[1 if LONG else 0])


def at_random(random: Random, has: set[str], pairs: float) -> Draw:
    """A fault that is possible here; two at once in such a share of draws."""
    possible = [kind for kind in KINDS.values() if kind.needs in has]
    weights = [kind.weight for kind in possible]
    (first,) = random.choices(possible, weights)
    others = [kind for kind in possible if not kind.parts & first.parts and kind.holds[0] < LASTING_S]
    if random.random() >= pairs or first.holds[0] >= LASTING_S or not others:
        return Draw((first,), random.uniform(*first.holds))
    (second,) = random.choices(others, [kind.weight for kind in others])
    hold_s = max(random.uniform(*first.holds), random.uniform(*second.holds))
    return Draw((first, second), hold_s, random.uniform(0.0, 1.0))


@contextmanager
def broken(stage: Stage, draw: Draw) -> Iterator[None]:
    """Break what the draw says, one after the other, and make it whole in the opposite order."""
    with contextlib.ExitStack() as stack:
        for number, kind in enumerate(draw.kinds):
            if number:
                time.sleep(draw.offset_s)
            stack.enter_context(kind.breaking(stage, stage.random))
        yield
