"""
The table of scenarios, into which they put themselves.

A scenario is a generator. It gets the L{Unit}, which is a tracker and the car
that it sits in, and yields one L{Step} after the other: what the tracker does,
and when. Most of it is C{yield unit.next()}, the next report. A new scenario is
a new function with L{scenario} before it; the first line of its docstring is
what C{gateway simulate --list} says of it. Commands it leaves to the L{Unit},
which obeys them whatever the scenario is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from gateway.simulator.steps import Step
from gateway.simulator.unit import Unit

Script = Callable[[Unit], Iterator[Step]]

#: Every scenario by its name.
SCENARIOS: Final[dict[str, Script]] = {}


def scenario(script: Script) -> Script:
    """Put a scenario into the table, by its name with dashes."""
    SCENARIOS[script.__name__.replace("_", "-")] = script
    return script


def about(script: Script) -> str:
    """What a scenario says of itself."""
    return (script.__doc__ or "").strip().partition("\n")[0]
