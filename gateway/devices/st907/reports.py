"""
Reads frames of the H02 family into messages: the position block, the status word, and who says it.

One reader for each type of text frame, in a table; one for binary frames.
Fields are split on commas and read one by one; what follows those that are
known is kept as C{tail}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from gateway.devices.st907 import downlink, status
from gateway.devices.st907.downlink import Reply
from gateway.errors import DecodeError, converting
from gateway.events import Event
from gateway.fields import KMH_PER_KNOT, compass, degrees, figure, time_of
from gateway.interfaces import Message

#: A report of 7 cells has 40 fields; more is nobody's.
MAX_FIELDS: Final = 128
MAX_IDENT: Final = 17
#: Faster than that, and the field is no speed.
MAX_KNOTS: Final = 9999.0

_WORD = re.compile(r"[0-9A-Fa-f]{8}")
_DATE = re.compile(r"[0-9]{6}")
_EMPTY = ("", "null")


class Reading(NamedTuple):
    """What one reader makes of a frame."""

    kind: str
    time: float | None
    attributes: dict[str, Any]
    levels: dict[str, bool]


class Block(NamedTuple):
    """A position block: what it says, whether it has a fix, and the field after it."""

    time: float | None
    attributes: dict[str, Any]
    valid: bool
    end: int


def read_text(raw: bytes, maker: str, ident: str | None, fields: Sequence[str]) -> Message:
    """
    Read a text frame.

    @param ident: whose it is; None when nobody has spoken on the connection yet.
    @param fields: the frame between C{*} and C{#}, split on commas.
    @raise DecodeError: when the fields of its type are not what they should be.
    """
    kind = fields[2].strip() if len(fields) > 2 else ""
    try:
        reading = _READERS.get(kind, _read_unknown)(fields, raw)
    except (ValueError, IndexError) as error:
        raise DecodeError(f"{kind or 'frame'} of {len(fields)} fields: {error}", raw) from error
    reply = _reply(kind, maker, ident)
    return Message(raw, ident, (Event(reading.kind, reading.time, reading.attributes),), reading.levels, reply)


def _reply(kind: str, maker: str, ident: str | None) -> Reply | None:
    if kind == "V1" or kind == "NBR":
        return downlink.v4(maker, ident or "", kind)
    if kind == "HTBT" or kind == "V0":
        return downlink.echo(maker, ident or "", kind)
    return None


def position(fields: Sequence[str], at: int, timed: bool = True) -> Block:
    """
    The position block: C{HHMMSS,S,LAT,N|S,LON,E|W,SPEED,COURSE,DDMMYY}, speed in knots.

    @param at: the index of C{HHMMSS}.
    @param timed: whether there is one; C{VP1} has none, and C{at} is then the index before C{S}.
    @raise ValueError: for a field that is no number.
    @raise IndexError: for a block that is cut short.
    """
    flag = fields[at + 1].strip()
    # A digit is the coding scheme of V2 and VI1, which send it with good fixes only
    valid = flag == "A" or (flag.isdecimal() and fields[2] in ("V2", "VI1"))
    latitude = degrees(fields[at + 2], 90)
    longitude = degrees(fields[at + 4], 180)
    speed, course = fields[at + 6].strip(), fields[at + 7].strip()
    # A Prime-07 puts its battery index before the date
    date_at = at + 9 if not _DATE.fullmatch(fields[at + 8]) and _is_date(fields, at + 9) else at + 8
    date = fields[date_at].strip()
    time = time_of(date, fields[at].strip()) if timed else None
    attributes: dict[str, Any] = {}
    if latitude is None or longitude is None or (date == "000000" and not latitude and not longitude):
        valid = False
    else:
        latitude = -abs(latitude) if fields[at + 3].strip() == "S" else latitude
        longitude = -abs(longitude) if fields[at + 5].strip() == "W" else longitude
        if valid:
            attributes["latitude"] = latitude
            attributes["longitude"] = longitude
            knots, degree = _figure_or_none(speed, MAX_KNOTS), _figure_or_none(course, 360.0)
            if knots is not None:
                attributes["speed_kmh"] = knots * KMH_PER_KNOT
            if degree is not None:
                attributes["course_deg"] = compass(degree)
        else:
            attributes["last_latitude"] = latitude
            attributes["last_longitude"] = longitude
    attributes["valid"] = valid
    if date_at > at + 8:
        attributes["battery_raw"] = int(figure(fields[at + 8], 255.0))
    return Block(time, attributes, valid, date_at + 1)


def _figure_or_none(text: str, limit: float) -> float | None:
    """A figure; empty means zero; what is no figure is left out, the position beside it stands."""
    if text in _EMPTY:
        return 0.0
    try:
        return figure(text, limit)
    except ValueError:
        return None


def _is_date(fields: Sequence[str], at: int) -> bool:
    return at < len(fields) and _DATE.fullmatch(fields[at]) is not None


def _status(fields: Sequence[str], at: int, reach: int, attributes: dict[str, Any], valid: bool) -> dict[str, bool]:
    """The first status word in the fields from C{at} on, at most C{reach} of them; the rest is the tail."""
    for i in range(at, min(at + reach, len(fields))):
        word = fields[i].strip()
        if len(word) == 8 and _WORD.fullmatch(word):
            attributes["status_word"] = word.upper()
            if any(fields[at:i]):
                attributes["tail"] = ",".join(fields[at:i])
            if i + 1 < len(fields):
                _tail(fields, i + 1, attributes)
            return status.levels(int(word, 16), valid)
    if any(fields[at:]):
        attributes["tail"] = ",".join(fields[at:])
    return {}


def _is_cell(mcc: str, mnc: str, lac: str, cid: str) -> bool:
    """Whether four fields are a serving cell in decimal."""
    return (
        len(mcc) == 3
        and 0 < len(mnc) <= 3
        and 0 < len(lac) <= 5
        and 0 < len(cid) <= 10
        and f"{mcc}{mnc}{lac}{cid}".isdecimal()
        and (lac.strip("0") != "" or cid.strip("0") != "")  # all zeros: no cell
    )


def _tail(fields: Sequence[str], at: int, attributes: dict[str, Any]) -> None:
    """What follows the status word of a report: the serving cell in decimal, else kept as it came."""
    rest = fields[at:]
    if len(rest) == 4 and "tail" not in attributes:
        mcc, mnc, lac, cid = rest
        if _is_cell(mcc, mnc, lac, cid):
            attributes["mcc"] = mcc
            attributes["mnc"] = mnc
            attributes["lac"] = int(lac)
            attributes["cid"] = int(cid)
            return
    text = ",".join(rest)
    if text:
        before = attributes.get("tail")
        attributes["tail"] = text if before is None else f"{before},{text}"


#: The report that nearly all traffic consists of: C{V1} at full width, its cell or nothing after it.
#: Whatever is not exactly so is cut and read by the general ways; a test holds the two equal.
USUAL: Final = re.compile(
    r"\*([A-Za-z]{2}),([0-9]{3,17}),V1,([0-9]{6}),([AV]),([0-9]{2})([0-5][0-9]\.[0-9]{4}),([NS]),"
    r"([0-9]{3})([0-5][0-9]\.[0-9]{4}),([EW]),([0-9]{3}\.[0-9]{2}),([0-9]{3}),([0-9]{6}),"
    r"([0-9A-Fa-f]{8}(?:,[0-9]{3},[0-9]{1,3},[0-9]{1,5},[0-9]{1,10})?)#[\r\n \0]*"
)
#: Its last group, before the C{#}.
USUAL_END: Final = 14


class Constant(NamedTuple):
    """What reports with one status word and one cell have in common; nobody changes it."""

    attributes: dict[str, Any]
    levels: dict[str, bool]


@lru_cache(maxsize=8192)
def _constant(text: str, valid: bool) -> Constant | None:
    """Status word and cell of a usual report; None: not the usual ones."""
    word, *cell = text.split(",")
    attributes: dict[str, Any] = {"valid": valid, "status_word": word.upper()}
    if cell:
        if not _is_cell(*cell):
            return None
        attributes |= {"mcc": cell[0], "mnc": cell[1], "lac": int(cell[2]), "cid": int(cell[3])}
    return Constant(attributes, status.levels(int(word, 16), valid))


def read_usual(groups: tuple[str, ...], raw: bytes, reply: Reply) -> Message | None:
    """
    Read what L{USUAL} matched.

    @param groups: the match's.
    @param reply: its acknowledgement.
    @return: None when a figure is out of bounds: the general ways say what that means.
    """
    _, ident, hhmmss, flag, lat, lat_min, north, lon, lon_min, east, speed, course, ddmmyy, rest = groups
    valid = flag == "A"
    constant = _constant(rest, valid)
    time = time_of(ddmmyy, hhmmss)
    latitude, longitude = int(lat) + float(lat_min) / 60.0, int(lon) + float(lon_min) / 60.0
    degree = int(course)
    if constant is None or time is None or latitude > 90.0 or longitude > 180.0 or degree > 360:
        return None
    if north == "S":
        latitude = -latitude
    if east == "W":
        longitude = -longitude
    if not valid:
        attributes = {"last_latitude": latitude, "last_longitude": longitude, **constant.attributes}
        return Message(raw, ident, (Event("position", time, attributes),), constant.levels, reply)
    attributes = {
        "latitude": latitude,
        "longitude": longitude,
        "speed_kmh": float(speed) * KMH_PER_KNOT,
        "course_deg": degree % 360,
        **constant.attributes,
    }
    event = Event("position", time, attributes)
    return Message(raw, ident, (event,), constant.levels, reply, b"", b"", None, False, constant)


def _read_report(fields: Sequence[str], raw: bytes) -> Reading:
    """C{V1} and its kin: type, position block, status word, tail."""
    block = position(fields, 3)
    attributes = block.attributes
    kind = fields[2].strip()
    if kind != "V1":
        attributes["message_type"] = kind
    # V19 puts a phone number or server and the ICCID before the status word
    levels = _status(fields, block.end, 4, attributes, block.valid)
    return Reading("position", block.time, attributes, levels)


def _read_vp1(fields: Sequence[str], raw: bytes) -> Reading:
    """C{VP1}: a position block without a time, or a list of cells."""
    if fields[5].strip() not in ("N", "S"):
        return _read_other(fields, raw)
    block = position(fields, 2, timed=False)
    attributes = {**block.attributes, "message_type": "VP1"}
    levels = _status(fields, block.end, 2, attributes, block.valid)
    return Reading("position", None, attributes, levels)


def _read_v4(fields: Sequence[str], raw: bytes) -> Reading:
    """C{V4}: the answer to a command, with or without a position block, which is looked for from its letters."""
    for at in range(3, len(fields) - 8):
        if fields[at + 1] in ("A", "V", "B") and fields[at + 3] in ("N", "S") and fields[at + 5] in ("E", "W"):
            block = position(fields, at)
            attributes = {**block.attributes, "message_type": "V4"}
            if any(fields[3:at]):
                attributes["reply_text"] = ",".join(fields[3:at])
            levels = _status(fields, block.end, 2, attributes, block.valid)
            return Reading("position", block.time, attributes, levels)
    return _read_other(fields, raw)


def _read_dated(fields: Sequence[str], raw: bytes) -> Reading:
    """C{NBR}, C{LINK}, C{V3}: no position, but a time in front and date and status word at the end."""
    reading = _read_other(fields, raw)
    for at in range(len(fields) - 1, 3, -1):
        if _WORD.fullmatch(fields[at]) and _DATE.fullmatch(fields[at - 1]):
            time = time_of(fields[at - 1], fields[3].strip())
            attributes = {**reading.attributes, "status_word": fields[at].upper()}
            return Reading("status", time, attributes, status.levels(int(fields[at], 16), False))
    return reading


def _read_nbr(fields: Sequence[str], raw: bytes) -> Reading:
    """C{NBR}: C{HHMMSS,mcc,mnc,ta,count} and groups of lac, cid and level; those that are there, not the count."""
    reading = _read_dated(fields, raw)
    cells: list[dict[str, Any]] = []
    at = 8
    while at + 2 < len(fields) and not _DATE.fullmatch(fields[at]) and fields[at].isdecimal():
        if _is_cell(fields[4], fields[5], fields[at], fields[at + 1]):
            cells.append({"mcc": fields[4], "mnc": fields[5], "lac": int(fields[at]), "cid": int(fields[at + 1])})
        at += 3
    return reading._replace(attributes={**reading.attributes, "cells": cells}) if cells else reading


def _read_other(fields: Sequence[str], raw: bytes) -> Reading:
    """Any other type: alive, with what it says as text."""
    kind = fields[2].strip()[:16] if len(fields) > 2 else ""
    attributes: dict[str, Any] = {"message_type": kind} if kind else {}
    attributes["raw_text"] = raw.decode("latin-1")
    return Reading("status", None, attributes, {})


def _read_unknown(fields: Sequence[str], raw: bytes) -> Reading:
    """A type without a reader: a position when it has the block of a V type, else its text."""
    if len(fields) > 2 and fields[2].startswith("V"):
        try:
            return _read_report(fields, raw)
        except (ValueError, IndexError):
            pass
    return _read_other(fields, raw)


_READERS: Final[dict[str, Callable[[Sequence[str], bytes], Reading]]] = {
    **dict.fromkeys(("V1", "V2", "V5", "V6", "V8", "V19", "VI1"), _read_report),
    "VP1": _read_vp1,
    "V4": _read_v4,
    "NBR": _read_nbr,
    "LINK": _read_dated,
    "V3": _read_dated,
}

#: Every type of text frame that was seen or is documented; detection is sure of a frame that has one.
TYPES: Final = frozenset(_READERS) | set("V0 HTBT XT SMS BASE BS BC ALRM I1 UP CM".split())


def read_binary(raw: bytes, maker: str, ident: str | None) -> Message:
    """
    Read a C{$} or C{X} frame; offsets are those of the 32-byte form, the 42-byte form has its ident 3 bytes longer.

    @param ident: whose it is.
    @raise DecodeError: when its digits are none.
    """
    with converting((ValueError,), f"binary frame of {len(raw)} bytes", raw):
        digits = raw[15:].hex() if len(raw) == 42 else raw[12:].hex()
        stamp = raw[9:15].hex() if len(raw) == 42 else raw[6:12].hex()
        time = time_of(stamp[6:12], stamp[0:6])
        flags = int(digits[19], 16)
        valid = flags & 2 != 0
        latitude = (int(digits[0:2]) + int(digits[2:8]) / 600_000) * (1 if flags & 4 else -1)
        longitude = (int(digits[10:13]) + int(digits[13:19]) / 600_000) * (1 if flags & 8 else -1)
        attributes: dict[str, Any]
        if valid:
            attributes = {
                "latitude": latitude,
                "longitude": longitude,
                "speed_kmh": int(digits[20:23]) * KMH_PER_KNOT,
                "course_deg": int(digits[23:26]) % 360,
            }
        else:
            attributes = {"last_latitude": latitude, "last_longitude": longitude}
        word = int(digits[26:34], 16)
        attributes["valid"] = valid
        attributes["status_word"] = f"{word:08X}"
        attributes["battery_raw"] = int(digits[8:10], 16)
        attributes["message_type"] = chr(raw[0])
        attributes["tail"] = digits[34:]
    event = Event("position", time, attributes)
    return Message(raw, ident, (event,), status.levels(word, valid), downlink.r12(maker, ident or ""))


def checked_ident(text: str, raw: bytes) -> str | None:
    """
    The ident of a text frame; None when it is empty.

    @raise DecodeError: for anything but digits.
    """
    ident = text.strip()
    if not ident:
        return None
    if not (ident.isascii() and ident.isdecimal() and 3 <= len(ident) <= MAX_IDENT):
        raise DecodeError(f"ident {ident[:32]!r} is not 3 to {MAX_IDENT} digits", raw)
    return ident
