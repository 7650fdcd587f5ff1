"""What a simulated fleet is, and where it reports."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.simulator.manners import MANNERS, Manner
from gateway.simulator.registry import Script


@dataclass(frozen=True, slots=True)
class Options:
    """
    What a fleet is and where it reports.

    @ivar gateways: numeric addresses and ports; devices begin with the first.
    @ivar first: the first ident; the others follow.
    @ivar interval: seconds between two reports of a device, at least 1, as no report has fractions of a second.
    @ivar count: how many reports a device makes; 0: no end.
    @ivar timeout: seconds after which a report without an answer is sent again.
    @ivar patience: seconds that are waited at the end for what is outstanding.
    @ivar manner: how the devices take commands.
    @ivar move: seconds after which a device goes to the next gateway; 0: it stays.
    """

    gateways: tuple[tuple[str, int], ...]
    transport: str
    script: Script
    devices: int
    first: int
    interval: float
    count: int
    seed: int
    timeout: float = 10.0
    patience: float = 15.0
    manner: Manner = MANNERS["obey"]
    move: float = 0.0
