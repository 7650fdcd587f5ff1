"""
The 32-bit status word: each bit on its own, active low (0: the condition is there).

Bit n is C{word & (1 << n)}, as the manufacturers' documents count byte 1 from
the left.  Only what is certain on the family becomes a level here.
"""

from __future__ import annotations

from typing import Final

OVERSPEED: Final = 1 << 2
ACC_OFF: Final = 1 << 10
RELAY_CUT: Final = 1 << 27


def levels(word: int, valid: bool) -> dict[str, bool]:
    """
    The levels of a status word.

    @param valid: whether the frame has a fix; without one the device repeats its last speed, and its overspeed
        bit says nothing of now.
    """
    on = {"ignition": word & ACC_OFF != 0, "immobilizer": word & RELAY_CUT == 0}
    if valid:
        on["overspeed"] = word & OVERSPEED == 0
    return on
