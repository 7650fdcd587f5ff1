"""One tracker of a fleet: what it does next, what it keeps, and its connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Final

from gateway.simulator.outbox import Outbox
from gateway.simulator.steps import Step
from gateway.simulator.unit import Unit
from gateway.simulator.wires import Wire

#: How many frames that nobody acknowledges wait for a connection; of more the oldest are forgotten.
TELLING: Final = 20


class State(Enum):
    """The connection of a device."""

    DOWN = "down"
    WAITING = "waiting"  # for its turn to connect
    CONNECTING = "connecting"
    UP = "up"
    LEAVING = "leaving"  # for another gateway: it waits for the other end to close this connection


class Device:
    """
    One tracker.

    @ivar step: what it does next; None when it is through.
    @ivar telling: frames that are sent once, as soon as there is a connection.
    @ivar covered: whether there is a network where it is.
    @ivar attempts: connections that failed in a row.
    @ivar spoken: whether something was sent on this connection.
    @ivar gateway: the number of the gateway that it reports to.
    @ivar moving: whether it is to go to the next one.
    @ivar leaving: the connection to the one before, on which it still listens; since C{left_at}.
    """

    __slots__ = (
        "attempts",
        "covered",
        "gateway",
        "leaving",
        "left_at",
        "moving",
        "outbox",
        "spoken",
        "state",
        "step",
        "steps",
        "telling",
        "unit",
        "wire",
    )

    def __init__(self, unit: Unit, steps: Iterator[Step], outbox: Outbox) -> None:
        self.unit = unit
        self.steps = steps
        self.step: Step | None = None
        self.outbox = outbox
        self.telling: deque[bytes] = deque(maxlen=TELLING)
        self.state = State.DOWN
        self.wire: Wire | None = None
        self.covered = True
        self.attempts = 0
        self.spoken = False
        self.gateway = 0
        self.moving = False
        self.leaving: Wire | None = None
        self.left_at = 0.0


def limited(steps: Iterator[Step], reports: int) -> Iterator[Step]:
    """The steps up to so many reports; 0: all."""
    made = 0
    for step in steps:
        yield step
        made += bool(step.frame)
        if reports and made == reports:
            return
