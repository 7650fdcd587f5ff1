"""What a status word says, bit by bit: which conditions are there, how sure that is, and what becomes of them."""

from __future__ import annotations

from typing import Final

from gateway.devices.st907 import status
from gateway.devices.st907.settings import Settings
from gateway.devices.st907.status import BITS
from gateway.interfaces import Fact

_IGNITION: Final = 10
_DELAYED: Final = 26
_POWER: Final = status.ON_BATTERY | status.POWER_CUT


def word_facts(where: str, raw: str, held: Settings, valid: bool) -> list[Fact]:
    """
    The word, and each of its bits that is active.

    @param raw: 8 hex digits.
    @param valid: whether its frame has a fix.
    """
    word = int(raw, 16)
    active = [number for number in range(31, -1, -1) if not word & 1 << number]
    numbers = ", ".join(map(str, active))
    found = f"active (0) {'is bit' if len(active) == 1 else 'are bits'} {numbers}" if active else "no bit is active (0)"
    ignition = f"; {_named(_IGNITION, held, False)}: bit {_IGNITION} is 1" if word & status.ACC_OFF else ""
    return [Fact(where, raw, "status word", found + ignition), *(bit_fact(number, held, valid) for number in active)]


def bit_fact(number: int, held: Settings, valid: bool) -> Fact:
    """An active bit: what it becomes, what it means, and how sure that is."""
    bit = BITS[number]
    level = held.bits.names[number]
    meaning = f"{bit.meaning} ({bit.sure})"
    if level != bit.level:
        meaning += f"; bits are set so that it is {level or 'nothing'}"
    if number == _DELAYED:
        meaning += "; its alarms are published as late, and change no live state"
    if number == _IGNITION and held.acc_wired == "0":
        meaning += "; acc_wired=0 is set: no state"
    if 1 << number & _POWER:
        meaning += "; external_power is false"
    if level == "overspeed" and not valid:
        meaning += "; without a fix no event: the device repeats its last speed"
    return Fact(f"bit {number}", "0", _named(number, held, True), meaning)


def _named(number: int, held: Settings, active: bool) -> str:
    """What a bit becomes, by the contract's names."""
    if number == _IGNITION:
        if held.acc_wired == "0":
            return f"ignition_bit {'off' if active else 'on'}"
        return f"state.ignition {'off' if active else 'on'}"
    if number == _DELAYED:
        return "late"
    level = held.bits.names[number]
    kind, _, which = level.partition(":")
    names = [f"state.{level} on" if level in status.STATES else f"alarm.{kind} {which}".rstrip()] if level else []
    if BITS[number].io:
        names.append(f"io.{BITS[number].io}")
    return ", ".join(names) or "no event"
