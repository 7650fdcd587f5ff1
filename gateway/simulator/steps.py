"""
What a tracker does, a step after the other.

Steps are made one ahead of the time. What a command changes meanwhile comes
into the report, and into what is told beside it, when the time has come.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from gateway.simulator import frames
from gateway.simulator.frames import Record


class Link(Enum):
    """What a step does to the connection."""

    KEEP = "keep"
    DOWN = "down"  # there is no coverage, or no power, up to a step that says something else
    CUT = "cut"  # it is cut, and made anew at once


class Told(NamedTuple):
    """
    A frame that nobody acknowledges.

    @ivar encode: what makes it of a record and the C{arguments}.
    """

    encode: Callable[..., bytes]
    arguments: tuple[object, ...] = ()


class Step(NamedTuple):
    """
    Something that a tracker does.

    @ivar at: when, UTC epoch seconds.
    @ivar frame: a report, kept until it is acknowledged; nothing when empty.
    @ivar junk: bytes that are written before it, if there is a connection, and forgotten.
    @ivar told: what is sent once, before the report.
    @ivar record: what the report says, C{encode} what made it of that; None when no command changes it.
    """

    at: float
    frame: bytes = b""
    junk: bytes = b""
    link: Link = Link.KEEP
    told: tuple[Told, ...] = ()
    record: Record | None = None
    encode: Callable[[Record], bytes] = frames.v1
