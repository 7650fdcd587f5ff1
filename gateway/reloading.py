"""What of a changed configuration a running gateway takes over, and what needs a new start."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

from gateway.config import SECTIONS, Config

#: Sections, all of whose keys are taken over, and single keys.
WHOLE: Final = frozenset({"identity", "commands", "limits"})
KEYS: Final = frozenset({("events", "late_after")})


class Changes(NamedTuple):
    """
    What differs, each as C{[section] key}.

    @ivar taken: what is taken over; C{left}: what needs a new start.
    """

    taken: list[str]
    left: list[str]


def changes(before: Config, after: Config) -> Changes:
    """Hold two configurations against each other."""
    taken: list[str] = []
    left: list[str] = []
    for section in SECTIONS:
        old, new = getattr(before, section), getattr(after, section)
        for field in dataclasses.fields(old):
            if getattr(old, field.name) != getattr(new, field.name):
                mine = section in WHOLE or (section, field.name) in KEYS
                (taken if mine else left).append(f"[{section}] {field.name}")
    if before.disable != after.disable or before.device_options != after.device_options:
        left.append("[devices]")
    return Changes(taken, left)


def taken_over(before: Config, after: Config) -> Config:
    """The configuration from now on: what was, with what is taken over."""
    events = dataclasses.replace(before.events, late_after=after.events.late_after)
    whole = {section: getattr(after, section) for section in WHOLE}
    return dataclasses.replace(before, **whole, events=events)
