"""
Fields that many protocols share: times, degrees and minutes, BCD, and their text on the streams.

Everything here is pure.  What is asked for again and again (the text of a
second, the epoch of a day) is cached with a bound.
"""

from __future__ import annotations

import math
from calendar import timegm
from datetime import UTC, datetime
from functools import lru_cache
from time import gmtime
from typing import Final

#: Of latitude, and of longitude at the equator.
METRES_A_DEGREE: Final = 111_320.0

KMH_PER_KNOT = 1.852


@lru_cache(maxsize=8192)
def _second_text(second: int) -> str:
    t = gmtime(second)
    return f"{t[0]:04d}-{t[1]:02d}-{t[2]:02d}T{t[3]:02d}:{t[4]:02d}:{t[5]:02d}."


@lru_cache(maxsize=8192)
def _ms_text(ms: int) -> str:
    second, rest = divmod(ms, 1000)
    return f"{_second_text(second)}{rest:03d}Z"


def rfc3339(when: float) -> str:
    """UTC epoch seconds as RFC 3339 with milliseconds and C{Z}."""
    return _ms_text(round(when * 1000))


@lru_cache(maxsize=8192)
def _ms_ascii(ms: int) -> bytes:
    return _ms_text(ms).encode()


def rfc3339_ascii(when: float) -> bytes:
    """As L{rfc3339}, as it is written."""
    return _ms_ascii(round(when * 1000))


def epoch(text: str) -> float | None:
    """An RFC 3339 time as UTC epoch seconds; None where it is none, or none of the years 1 to 9999."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=64)
def compact_time(second: int) -> str:
    """UTC epoch seconds as C{YYYYMMDDHHMMSS}."""
    t = gmtime(second)
    return f"{t[0]:04d}{t[1]:02d}{t[2]:02d}{t[3]:02d}{t[4]:02d}{t[5]:02d}"


@lru_cache(maxsize=4096)
def day_epoch(ddmmyy: str) -> int | None:
    """
    The UTC epoch seconds of midnight of a C{DDMMYY} date, or None when it is none (C{000000}, empty, nonsense).

    Years are two digits: 70-99 are of the last century, where a receiver's
    epoch lies (1980), the others of this one.
    """
    if len(ddmmyy) != 6 or not ddmmyy.isascii() or not ddmmyy.isdigit():
        return None
    day, month, year = int(ddmmyy[0:2]), int(ddmmyy[2:4]), int(ddmmyy[4:6])
    if not (1 <= day <= 31 and 1 <= month <= 12):
        return None
    epoch = timegm((year + (1900 if year >= 70 else 2000), month, day, 0, 0, 0))
    return epoch if gmtime(epoch)[2] == day else None  # 31 February and the like


@lru_cache(maxsize=8192)
def second_of_day(hhmmss: str) -> int | None:
    """
    C{HHMMSS} as seconds since midnight, or None when it is none.

    Seconds of 60-99 are counted on: C{160169} was seen and means 16:02:09.
    """
    if len(hhmmss) != 6 or not hhmmss.isascii() or not hhmmss.isdigit():
        return None
    hour, minute = int(hhmmss[0:2]), int(hhmmss[2:4])
    if hour > 23 or minute > 59:
        return None
    return hour * 3600 + minute * 60 + int(hhmmss[4:6])


@lru_cache(maxsize=8192)
def time_of(ddmmyy: str, hhmmss: str) -> float | None:
    """UTC epoch seconds of a C{DDMMYY} date and C{HHMMSS} time, or None unless both are there."""
    day = day_epoch(ddmmyy)
    second = second_of_day(hhmmss)
    return None if day is None or second is None else float(day + second)


def degrees(text: str, limit: int) -> float | None:
    """
    The degrees in C{[D..D]MM.MMMM}: the last two digits before the dot are minutes, what stands before them degrees.

    Degrees may be missing (C{38.6508} is 0 degrees 38.6508 minutes), may carry a
    sign with a dash of their own (C{-23-3.3408}), and 7 digits or more without
    a dot have four decimals.

    @param limit: 90 or 180; minutes of 60 and more and degrees past the limit are no position: C{9999.9999}
        says 'no fix'.
    @raise ValueError: for what is not a number.
    """
    text = text.strip(" ")
    if not text:
        return None
    sign = 1.0
    if text[0] == "-":
        sign = -1.0
        whole, dash, minutes = text[1:].partition("-")
        if not dash:
            whole, minutes = _split(whole)
    else:
        whole, minutes = _split(text)
    if (whole and not whole.isdecimal()) or len(whole) > 9 or not minutes.replace(".", "", 1).isdecimal():
        raise ValueError(f"{text[:16]!r} is not degrees and minutes")
    value = int(whole) if whole else 0
    minute = float(minutes)
    if minute >= 60.0:
        return None
    value_degrees = value + minute / 60.0
    return sign * value_degrees if value_degrees <= limit else None


def _split(text: str) -> tuple[str, str]:
    """Degrees and minutes of C{[D..D]MM[.MMMM]}, or of 7 digits and more without a dot."""
    dot = text.find(".")
    if dot < 0:
        if len(text) < 7:
            raise ValueError(f"no dot in {text[:16]!r}")
        return text[:-6], f"{text[-6:-4]}.{text[-4:]}"
    return text[: max(dot - 2, 0)], text[max(dot - 2, 0) :]


def figure(text: str, limit: float) -> float:
    """
    A plain decimal figure of 0 to C{limit}.

    @raise ValueError: for anything else, C{nan}, C{inf} and C{1_0} included.
    """
    value = float(text)
    if not 0.0 <= value <= limit or not text.replace(".", "", 1).isdecimal():
        raise ValueError(f"{text[:16]!r} is not a figure of 0 to {limit:g}")
    return value


def is_bcd(digits: str) -> bool:
    """Whether hex digits are all decimal: binary coded decimal."""
    return digits.isdecimal()


def compass(course: float) -> int:
    """A course over ground as whole degrees, 0-359."""
    return round(course) % 360


def metres_between(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """How far two places are apart, near enough for a vehicle: the earth is flat between them."""
    east = (longitude - other_longitude + 180.0) % 360.0 - 180.0
    north = latitude - other_latitude
    return METRES_A_DEGREE * math.hypot(north, east * math.cos(math.radians(latitude)))
