"""The position block that most text frames carry, and what else is looked for by its form: dates, status words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from gateway.fields import KMH_PER_KNOT, compass, degrees, figure, time_of

#: Faster than that, and the field is no speed.
MAX_KNOTS: Final = 9999.0

WORD: Final = re.compile(r"[0-9A-Fa-f]{8}")
DATE: Final = re.compile(r"[0-9]{6}")
EMPTY: Final = ("", "null")


class Block(NamedTuple):
    """A position block: what it says, whether it has a fix, and the field after it."""

    time: float | None
    attributes: dict[str, Any]
    valid: bool
    end: int


def position(fields: Sequence[str], at: int, timed: bool = True) -> Block:
    """
    The position block: C{HHMMSS,S,LAT,N|S,LON,E|W,SPEED,COURSE,DDMMYY}, speed in knots.

    @param at: the index of C{HHMMSS}.
    @param timed: whether there is one; C{VP1} has none, and C{at} is then the index before C{S}.
    @raise ValueError: for a field that is no number.
    @raise IndexError: for a block that is cut short.
    """
    valid = vouched(fields[at + 1].strip(), fields[2].strip())
    latitude = coordinate(fields[at + 2], fields[at + 3], 90)
    longitude = coordinate(fields[at + 4], fields[at + 5], 180)
    speed, course = fields[at + 6].strip(), fields[at + 7].strip()
    date_at = block_date_at(fields, at)
    date = fields[date_at].strip()
    time = time_of(date, fields[at].strip()) if timed else None
    attributes: dict[str, Any] = {}
    nowhere = not latitude and not longitude and (not valid or date == "000000")
    if latitude is None or longitude is None or nowhere:
        valid = False
    elif valid:
        attributes["latitude"] = latitude
        attributes["longitude"] = longitude
        knots, degree = figure_or_none(speed, MAX_KNOTS), figure_or_none(course, 360.0)
        if knots is not None:
            attributes["speed_kmh"] = knots * KMH_PER_KNOT
        if degree is not None:
            attributes["course_deg"] = compass(degree)
    else:
        attributes["last_latitude"] = latitude
        attributes["last_longitude"] = longitude
    attributes["valid"] = valid
    before = fields[at + 8].strip() if date_at > at + 8 else ""
    if before not in EMPTY:
        battery = figure_or_none(before, 255.0)
        if battery is None:
            attributes["tail"] = before
        else:
            attributes["battery_raw"] = int(battery)
    return Block(time, attributes, valid, date_at + 1)


def coordinate(text: str, letter: str, limit: int) -> float | None:
    """Degrees with the sign that their letter says; what stands for none, as where it is empty, has its own."""
    if text.strip() in EMPTY:
        return None
    value = degrees(text, limit)
    side = letter.strip().upper()
    if value is None or side not in ("N", "S", "E", "W"):
        return value
    return -abs(value) if side in ("S", "W") else abs(value)


def vouched(flag: str, kind: str) -> bool:
    """Whether the validity of a block says that the receiver vouches for the fix."""
    # A digit is the coding scheme of V2 and VI1, which send it with good fixes only
    return flag == "A" or (flag.isdecimal() and kind in ("V2", "VI1"))


def block_date_at(fields: Sequence[str], at: int) -> int:
    """Where the date of a block stands."""
    # A Prime-07 puts its battery index before the date
    return at + 9 if not DATE.fullmatch(fields[at + 8]) and _is_date(fields, at + 9) else at + 8


def figure_or_none(text: str, limit: float) -> float | None:
    """A figure; empty means zero; what is no figure is left out, the position beside it stands."""
    if text in EMPTY:
        return 0.0
    try:
        return figure(text, limit)
    except ValueError:
        return None


def _is_date(fields: Sequence[str], at: int) -> bool:
    return at < len(fields) and DATE.fullmatch(fields[at]) is not None
