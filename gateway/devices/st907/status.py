"""
The 32-bit status word: each bit on its own, active low (0: the condition is there).

Bit n is C{word & (1 << n)}, as the manufacturers' documents count byte 1 from
the left.  The documents of the family, code that ran fleets of it and captures
agree on most bits; where they don't, the table says so, and what a bit means
can be set for a device or a model.  Sources: the TianHe and LKGPS documents,
the status tables of Traccar's issues 2920 and 5567, published captures.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.interfaces import Levels

ALL: Final = 0xFFFF_FFFF
OVERSPEED: Final = 1 << 2
ARMED: Final = 1 << 9
ACC_OFF: Final = 1 << 10
ON_BATTERY: Final = 1 << 19
DELAYED: Final = 1 << 26
RELAY_CUT: Final = 1 << 27
POWER_CUT: Final = 1 << 28


class Bit(NamedTuple):
    """
    One bit of the word.

    @ivar meaning: what is so while it is 0.
    @ivar sure: certain | likely | disputed.
    @ivar level: the alarm or state that it is a part of; empty: none by default.  Several bits may be one level; what
        follows a colon tells alarms of one type apart.
    @ivar io: by which name an event shows it, for those that are inputs and no alarm.
    """

    meaning: str
    sure: str
    level: str = ""
    io: str = ""


#: The bits, 0 first.
BITS: Final[tuple[Bit, ...]] = (
    Bit("theft alarm: door or vibration while armed", "likely", "theft"),
    Bit("SOS, robbery", "certain", "sos"),
    Bit("overspeed alarm", "certain", "overspeed"),
    Bit("illegal ignition: switched on while armed", "likely", "ignition.illegal"),
    Bit("geofence alarm: entered", "likely", "geofence.enter"),
    Bit("GPS antenna open, alarm", "likely", "tamper:antenna_open"),
    Bit("GPS antenna short, alarm", "likely", "tamper:antenna_short"),
    Bit("geofence alarm: left", "likely", "geofence.exit"),
    Bit("door open", "likely", "door"),
    Bit("armed", "certain", "armed"),
    Bit("ACC off: ignition off, or its wire not connected", "certain"),
    Bit("reserved; a crash in one document", "disputed"),
    Bit("reserved", "likely"),
    Bit("engine on", "likely"),
    Bit("custom alarm; constant on many SinoTracks", "certain"),
    Bit("overspeed, as a state", "likely", "overspeed"),
    Bit("GNSS receiver fault", "likely", "tamper:receiver"),
    Bit("shock or vibration alarm", "likely", "vibration"),
    Bit("reserved; tilt in one document, SOS to Traccar; constant on some", "disputed"),
    Bit("runs on its backup battery: the vehicle's power is lost", "certain", "power.cut"),
    Bit("vehicle battery removed, or not charging", "disputed", "", "battery_removed"),
    Bit("GPS antenna open", "likely", "tamper:antenna_open"),
    Bit("GPS antenna short", "likely", "tamper:antenna_short"),
    Bit("input 2, or low battery", "disputed", "", "input2_or_battery_low"),
    Bit("temperature alarm; nothing on an ST-907", "likely"),
    Bit("three wrong passwords", "likely", "tamper:password"),
    Bit("the record was delayed: there was no link when it was made", "likely"),
    Bit("relay cut: fuel or ignition is interrupted", "certain", "immobilizer"),
    Bit("main power cut, alarm", "certain", "power.cut"),
    Bit("input: sensor 1 is high", "likely", "", "sensor1_high"),
    Bit("input: sensor 2 is high; constant on some", "likely", "", "sensor2_high"),
    Bit("input: sensor 1 is grounded", "likely", "", "sensor1_low"),
)

#: Levels that are states: what they say is never an alarm, and no constant hides it.
STATES: Final = frozenset({"armed", "immobilizer"})

#: What a bit may be said to be: the alarms that the family's documents know, and none.
LEVELS: Final = frozenset(
    {*(bit.level for bit in BITS), "battery.low", "crash", "tow", "temperature", "fuel", "gnss", "tamper"}
) - {"immobilizer"}


class Map:
    """
    What the bits mean; equal ones are one object, which is cheap to look up by.

    @ivar names: a level name for each bit, 0 first; empty: none.
    @ivar masks: the levels, each with all of its bits.
    @ivar alarms: all bits that can raise an alarm.
    @ivar unread: the usual levels that no bit means here: they are off, also where they were on when that was set.
    """

    __slots__ = ("alarms", "masks", "names", "unread")

    def __init__(self, names: tuple[str, ...]) -> None:
        found: dict[str, int] = {}
        for number, level in enumerate(names):
            if level:
                found[level] = found.get(level, 0) | 1 << number
        self.names = names
        self.masks = tuple(found.items())
        self.alarms = sum(mask for level, mask in self.masks if level not in STATES)
        self.unread = tuple({bit.level: None for bit in BITS if bit.level and bit.level not in found})


DEFAULT: Final = Map(tuple(bit.level for bit in BITS))


def mapped(changes: Mapping[str, str]) -> Map:
    """
    The default map with some bits read otherwise.

    @param changes: number of a bit as text -> level name, empty for none.
    @raise ValueError: for what is no bit, a bit whose meaning is not open to doubt, or no level.
    """
    names = list(DEFAULT.names)
    for number, level in changes.items():
        if not (number.isascii() and number.isdecimal() and int(number) < 32):
            raise ValueError(f"{number[:16]!r} is not a bit, 0 to 31")
        if int(number) in (10, 26, 27):
            raise ValueError(f"bit {number} is no alarm, and stays what it is")
        if level not in LEVELS:
            known = ", ".join(sorted(LEVELS - {""}))
            raise ValueError(f"bit {number}: {level[:32]!r} is no alarm (there are: {known}; empty: none)")
        names[int(number)] = level
    return _map(tuple(names))


@lru_cache(maxsize=256)
def _map(names: tuple[str, ...]) -> Map:
    return DEFAULT if names == DEFAULT.names else Map(names)


@lru_cache(maxsize=8192)
def levels(word: int, valid: bool, names: Map = DEFAULT) -> Levels:
    """
    The levels of a status word; shared, not to be changed.

    @param valid: whether the frame has a fix.  Without one the device repeats its last speed, and its overspeed
        bits say nothing of now; and it withdraws fences, so that a fence bit that is off says nothing either.
    """
    on = {"ignition": word & ACC_OFF != 0}
    for level, mask in names.masks:
        is_on = word & mask != mask
        if not valid and (level == "overspeed" or (not is_on and level.startswith("geofence"))):
            continue
        on[level] = is_on
    return Levels({**on, **dict.fromkeys(names.unread, False)})


def external_power(word: int) -> bool:
    """Whether the vehicle feeds the device: neither on its backup battery nor told that the main power is cut."""
    both = ON_BATTERY | POWER_CUT
    return word & both == both


def inputs(word: int) -> dict[str, bool]:
    """The inputs that are on, by name."""
    return {bit.io: True for number, bit in enumerate(BITS) if bit.io and not word & 1 << number}
