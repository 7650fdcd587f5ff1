"""
What one field of an ST-907 says, in words with units.

The conversions are those of the readers; only the words are added here.  A
field that can't be read raises ValueError, as it does in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from gateway.devices.st907 import tails
from gateway.devices.st907.blocks import EMPTY, MAX_KNOTS, figure_or_none, vouched
from gateway.devices.st907.blocks import coordinate as signed
from gateway.devices.st907.learning import INDEX_PCT
from gateway.devices.st907.settings import Settings
from gateway.fields import KMH_PER_KNOT, compass, day_epoch, degrees, rfc3339, second_of_day

#: What a fix is, and why a frame without one has neither position nor speed.
FIX: Final = "the receiver vouches for the fix"
NO_FIX: Final = "no fix; what follows is the last one: last_latitude and last_longitude, and its speed not at all"


def time(text: str, held: Settings) -> str:
    """C{HHMMSS}."""
    second = second_of_day(text)
    if second is None:
        return f"{shown(text)}: no time"
    counted = f"{clock(second)} {_zone(held)}"
    return counted if int(text[4:]) < 60 else f"{counted}: seconds of 60 and more are counted on"


def clock(second: int) -> str:
    """A second of the day as C{HH:MM:SS}."""
    return f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


def _zone(held: Settings) -> str:
    offset = held.time_offset_s
    if not offset:
        return "UTC"
    return f"by its clock, {abs(offset)} s {'ahead of' if offset > 0 else 'behind'} UTC as is set (time_offset_s)"


def date(text: str) -> str:
    """C{DDMMYY}."""
    day = day_epoch(text)
    return f"{shown(text)}: no date" if day is None else rfc3339(day)[:10]


def shown(text: str) -> str:
    """A field's text as a subject; empty is said."""
    return text[:32] or "empty"


def validity(flag: str, kind: str) -> str:
    """What the receiver says of the fix."""
    if flag == "A":
        return f"A: {FIX}"
    if vouched(flag, kind):
        return f"{shown(flag)}: a coding scheme, which {kind} sends with good fixes only (likely)"
    return f"{shown(flag)}: {NO_FIX}"


def no_fix(flag: str) -> str:
    """Why there is no position, of a validity that is none."""
    return f"validity is {shown(flag)} (no fix)"


def no_place(name: str, text: str, limit: int) -> str:
    """Why coordinates that can be read are no position; empty: they are one."""
    if text in EMPTY:
        return "coordinates are empty"
    if degrees(text, limit) is not None:
        return ""
    if not text.replace(".", "").strip("9"):
        return f"{name} {text} says 'no fix'"
    if degrees(text, 10**9) is None:
        return f"{name} {text[:32]} has minutes of 60 and more"
    return f"{name} {text[:32]} is past {limit} degrees"


def coordinate(name: str, text: str, limit: int, side: str) -> str:
    """C{[D..D]MM.MMMM} with the letter of its side."""
    value = signed(text, side, limit)
    if value is None:
        return no_place(name, text, limit)
    return place(value, "NS" if limit == 90 else "EW")


def place(value: float, sides: str) -> str:
    """
    Degrees as degrees, minutes and side, and as a number.

    @param sides: the letters for positive and negative.
    """
    whole, minutes = divmod(round(abs(value) * 60, 5), 60)
    shown_minutes = f"{minutes:.5f}".rstrip("0").rstrip(".")
    side = sides[1] if value < 0 else sides[0]
    return f"{int(whole)} degrees {shown_minutes} minutes {side} = {value:.6f}"


def side(text: str, sides: str, held: Settings) -> str:
    """The letter that holds for a coordinate: what is set for its side, else what stands there."""
    for letter in sides:
        if letter in held.hemisphere:
            return letter
    return text.upper()


def side_meaning(text: str, sides: str, held: Settings) -> str:
    """A letter for a side of the globe."""
    names = {"N": "north", "S": "south", "E": "east", "W": "west"}
    chosen = side(text, sides, held)
    if chosen != text.upper():
        return f"{names[chosen]}, whatever it says: hemisphere={held.hemisphere} is set"
    if chosen in names:
        return names[chosen]
    return f"{shown(text)}: no side, so the sign of the number counts"


def speed(text: str) -> str:
    """Knots."""
    knots = figure_or_none(text, MAX_KNOTS)
    if knots is None:
        return f"{text[:32]}: no figure of 0 to {MAX_KNOTS:g}, so there is no speed"
    return f"{in_knots(knots)}{_taken_as_zero(text)}"


def in_knots(knots: float) -> str:
    """A speed in knots and in km/h."""
    return f"{knots:g} knots = {knots * KMH_PER_KNOT:.2f} km/h"


def course(text: str) -> str:
    """Degrees over ground."""
    degree = figure_or_none(text, 360.0)
    if degree is None:
        return f"{text[:32]}: no figure of 0 to 360, so there is no course"
    return f"{compass(degree)} degrees{_taken_as_zero(text)}"


def _taken_as_zero(text: str) -> str:
    return f" ({shown(text)} is zero)" if text in EMPTY else ""


def battery(raw: int, held: Settings) -> str:
    """A battery figure, of which there are two kinds."""
    value = raw - 0xF0 if 0xF1 <= raw <= 0xF6 else raw
    marked = f"{raw:02X} hex is {value} with a mark (disputed); " if value != raw else ""
    if not 1 <= value <= 100:
        return f"{raw}: says nothing"
    percent = INDEX_PCT.get(value)
    if held.battery == "percent" and value != raw:
        return f"{marked}no percent, as battery=percent is set"
    if held.battery == "percent" or (not held.battery and percent is None):
        return f"{marked}{value} %"
    if percent is None:
        return f"{marked}{value}: no index of 1 to 6, as battery=index is set"
    if held.battery == "index":
        return f"{marked}index {value} of 6 = {percent} %"
    return f"{marked}index {value} of 6 = {percent} %, or {value} % (disputed); battery=index or =percent settles it"


def csq(value: int | None) -> str:
    """Signal quality."""
    return "no signal figure of 0 to 31" if value is None else f"signal {value} of 31 (CSQ)"


def satellites(value: int | None) -> str:
    """How many satellites."""
    return "no number of satellites" if value is None else f"{value} satellites"


def percent(value: int | None) -> str:
    """A battery figure that is percent for sure."""
    return "no percentage" if value is None else f"{value} %"


#: The fields of a cell.
CELL: Final[Mapping[str, str]] = {
    "mcc": "mobile country code",
    "mnc": "mobile network code",
    "lac": "location area",
    "cid": "cell",
}


def group(one: Sequence[str], country: str, network: str) -> str:
    """One cell of several: LAC, cell and level."""
    lac, cid, level = one
    if tails.cell(country, network, lac, cid) is None:
        return "no cell: not published"
    dbm = tails.level_dbm(level.strip())
    heard = f"{dbm} dBm" if dbm is not None else f"level {shown(level)}, not known"
    return f"location area {int(lac.strip())}, cell {int(cid.strip())}, {heard}"
