"""
Reads text frames of the H02 family into messages, one reader for each type, in a table.

Fields are split on commas and read one by one; what follows those that are
known is kept as C{tail}, and a type that is not known as its text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from gateway.devices.st907 import answers, status, tails, texts
from gateway.devices.st907.blocks import DATE, WORD, position
from gateway.devices.st907.status import Map
from gateway.errors import DecodeError
from gateway.events import Event
from gateway.fields import time_of
from gateway.interfaces import CommandAnswer, Levels, Message

#: A report of 7 cells has 40 fields; more is nobody's.
MAX_FIELDS: Final = 128
MAX_IDENT: Final = 17
#: The status word is one of so many fields after a position block; in frames that have nothing else there, of so many.
REACH: Final = 4
SHORT_REACH: Final = 2
#: How much of the name of a type that is not known is shown.
_MAX_KIND: Final = 16


class Reading(NamedTuple):
    """
    What one reader makes of a frame.

    @ivar word: its status word, None where it has none; C{valid}: whether it has a fix.
    @ivar answer: what it says of a command.
    """

    kind: str
    time: float | None
    attributes: dict[str, Any]
    word: int | None = None
    valid: bool = False
    answer: CommandAnswer | None = None


def read_text(raw: bytes, ident: str | None, fields: Sequence[str], names: Map = status.DEFAULT) -> Message:
    """
    Read a text frame.

    @param ident: whose it is; None when nobody has spoken on the connection yet.
    @param fields: the frame between C{*} and C{#}, split on commas.
    @param names: what the bits of the status word mean.
    @raise DecodeError: when the fields of its type are not what they should be.
    """
    kind = message_type(fields)
    try:
        kind_of_event, time, attributes, word, valid, answer = _READERS.get(kind, _read_unknown)(fields, raw)
    except IndexError as error:
        raise DecodeError(f"{kind or 'frame'} of {len(fields)} fields: it is cut short", raw) from error
    except ValueError as error:
        raise DecodeError(f"{kind or 'frame'} of {len(fields)} fields: {error}", raw) from error
    levels = {} if word is None else worded(attributes, word, valid, names)
    return Message(raw, ident, (Event(kind_of_event, time, attributes),), levels, answer=answer)


def message_type(fields: Sequence[str]) -> str:
    """The type of a text frame; empty: it has none."""
    return fields[2].strip() if len(fields) > 2 else ""


def worded(attributes: dict[str, Any], word: int, valid: bool, names: Map) -> Levels:
    """Put what a status word says into a report's attributes; its levels."""
    attributes["status_word"] = f"{word:08X}"
    attributes["external_power"] = status.external_power(word)
    inputs = status.inputs(word)
    if inputs:
        attributes["io"] = {**attributes.get("io", {}), **inputs}
    if not word & status.DELAYED:
        attributes["late"] = "device"
    return status.levels(word, valid, names)


def _report(fields: Sequence[str], at: int, kind: str, reach: int, timed: bool = True) -> Reading:
    """A position block, the status word in the fields after it, and what follows that."""
    block = position(fields, at, timed)
    attributes = block.attributes
    if kind != "V1":
        attributes["message_type"] = kind
    rest = fields[block.end :]
    number = word_at(rest, kind, reach)
    if number is not None:
        tails.before_word(rest[:number], attributes)
        tails.read(rest[number + 1 :], kind, attributes)
        return Reading("position", block.time, attributes, int(rest[number], 16), block.valid)
    if any(rest):
        tails.keep(",".join(rest), attributes)
    return Reading("position", block.time, attributes, None, block.valid)


def word_at(rest: Sequence[str], kind: str, reach: int) -> int | None:
    """Where the status word stands among the fields after a position block."""
    # V19 ends with its word, and a phone number of 8 digits before it looks like one
    order = range(len(rest) - 1, -1, -1) if kind == "V19" else range(min(reach, len(rest)))
    return next((number for number in order if is_word(rest[number])), None)


def is_word(field: str) -> bool:
    """Whether a field is a status word."""
    text = field.strip()
    return len(text) == 8 and WORD.fullmatch(text) is not None


def _read_report(fields: Sequence[str], raw: bytes) -> Reading:
    """C{V1} and its kin: type, position block, status word, tail."""
    return _report(fields, 3, fields[2].strip(), REACH)


def _read_started(fields: Sequence[str], raw: bytes) -> Reading:
    """C{V6}: a report that is sent once, when the unit starts."""
    return _read_report(fields, raw)._replace(answer=answers.STARTED)


def _read_vp1(fields: Sequence[str], raw: bytes) -> Reading:
    """C{VP1}: a position block without a time, or cells, C{mcc,mnc,lac,cid,level}, with a C{Y} between two of them."""
    if fields[5].strip().upper() in ("N", "S"):
        return _report(fields, 2, "VP1", SHORT_REACH, timed=False)._replace(time=None)
    reading = _read_other(fields, raw)
    return _with(reading, cells=tails.cells(fields[4], fields[5], vp1_groups(fields)))


def vp1_groups(fields: Sequence[str]) -> list[list[str]]:
    """LAC, cell and level of each of the cells of a C{VP1}."""
    groups = [group.split(",") for group in ",".join(fields[6:]).split("Y")]
    return [group for group in groups if len(group) == 3]


def _read_v4(fields: Sequence[str], raw: bytes) -> Reading:
    """C{V4}: the answer to a command, with or without a position block, which is looked for from its letters."""
    reading = _answer(fields, raw)
    answer = reading.answer
    if answer is not None and answer.name == answers.PASSWORD:  # it is nobody's but the device's
        word = {None: "", True: ",OK", False: ",ERROR"}[answer.accepted]
        reading.attributes.pop("raw_text", None)
        return _with(reading, reply_text=f"{answer.name}{word},***")
    return reading


def _answer(fields: Sequence[str], raw: bytes) -> Reading:
    at = v4_block_at(fields)
    if at is not None:
        said = fields[3:at]
        reading = _with(_report(fields, at, "V4", SHORT_REACH), reply_text=",".join(said))
        return reading._replace(answer=answers.with_position(said))
    reading = _read_other(fields, raw)
    rest = [*fields[3:]]
    while rest and not rest[-1].strip():
        rest.pop()
    if not (len(rest) > 1 and is_word(rest[-1])):
        return _with(reading, reply_text=",".join(rest))._replace(answer=answers.short(rest))
    word, said = int(rest[-1], 16), rest[:-1]
    return _with(reading, reply_text=",".join(said))._replace(word=word, answer=answers.with_word(said))


def v4_block_at(fields: Sequence[str]) -> int | None:
    """Where the position block of a C{V4} starts; None: it has none."""
    for at in range(len(fields) - 9, 2, -1):
        flag, north, east = (fields[at + offset].strip().upper() for offset in (1, 3, 5))
        if flag in ("A", "V", "B", "") and north in ("N", "S") and east in ("E", "W"):
            try:
                position(fields, at)
            except ValueError:
                continue  # arguments that look like one
            return at
    return None


def _with(reading: Reading, **more: Any) -> Reading:
    """A reading that says more; empty is nothing."""
    reading.attributes.update((name, value) for name, value in more.items() if value not in (None, "", []))
    return reading


def _read_dated(fields: Sequence[str], raw: bytes) -> tuple[Reading, int]:
    """No position, but a time in front and date and status word at the end; and where the date stands."""
    reading = _read_other(fields, raw)
    at = date_at(fields)
    if at == len(fields):
        return reading, at
    time = time_of(fields[at].strip(), fields[3].strip())
    return reading._replace(time=time, word=int(fields[at + 1], 16)), at


def date_at(fields: Sequence[str]) -> int:
    """Where the date before the status word stands in a frame without a position block; its end: nowhere."""
    for at in range(len(fields) - 1, 3, -1):
        word, date = fields[at].strip(), fields[at - 1].strip()
        if WORD.fullmatch(word) and DATE.fullmatch(date):
            return at - 1
    return len(fields)


def _read_nbr(fields: Sequence[str], raw: bytes) -> Reading:
    """C{NBR}: C{HHMMSS,mcc,mnc,ta,count} and groups of LAC, cell and level; those that are there, not the count."""
    reading, end = _read_dated(fields, raw)
    groups = [fields[at : at + 3] for at in nbr_groups(end)]
    found = tails.cells(fields[4].strip(), fields[5].strip(), groups) if len(fields) > 5 else []
    raw_battery = tails.battery(fields[end + 2].strip()) if end + 2 < len(fields) else None
    return _with(reading, cells=found, battery_raw=raw_battery)


def nbr_groups(end: int) -> range:
    """Where the groups of cells of an C{NBR} start, whose date stands at C{end}."""
    return range(8, end - 2, 3)


def _read_link(fields: Sequence[str], raw: bytes) -> Reading:
    """C{LINK}: C{HHMMSS,csq,satellites,battery %,steps,turnovers,DDMMYY,status}."""
    reading, end = _read_dated(fields, raw)
    if end < 9:
        return reading
    csq, satellites, battery = (tails.number(fields[at].strip(), most) for at, most in ((4, 31), (5, 64), (6, 100)))
    steps, turnovers = (tails.number(fields[at].strip(), 10**9) for at in (7, 8))
    io = {name: count for name, count in (("steps", steps), ("turnovers", turnovers)) if count}
    return _with(reading, csq=csq, satellites=satellites, battery_raw=battery, battery_pct=battery, io=io or None)


def _read_v3(fields: Sequence[str], raw: bytes) -> Reading:
    """
    C{V3}: C{HHMMSS,mcc and mnc,count}, groups of LAC, cell, a number and level, then the battery in hex.

    The count is not to be trusted: the groups end before C{battery,0,X,DDMMYY,status}.
    """
    reading, end = _read_dated(fields, raw)
    mark = end - 1
    if mark < 6 or fields[mark].strip() != "X":
        return reading
    groups = [fields[at : at + 4] for at in v3_groups(mark)]
    mcc, mnc = fields[4].strip()[:3], fields[4].strip()[3:]
    # the level, where there is one, is in dBm; 0 is none
    levels = [level if level.startswith("-") else "" for *_, level in groups]
    found = tails.cells(mcc, mnc, [(*group[:2], level) for group, level in zip(groups, levels, strict=True)])
    # a raw figure; what it measures is not documented
    battery = fields[mark - 2].strip()
    return _with(reading, cells=found, battery_raw=int(battery, 16) if WORD.fullmatch(f"0000{battery}") else None)


def v3_groups(mark: int) -> range:
    """Where the groups of cells of a C{V3} start, whose C{X} stands at C{mark}."""
    return range(6, mark - 5, 4)


def _read_heartbeat(fields: Sequence[str], raw: bytes) -> Reading:
    """C{HTBT}, C{V0} and C{XT}: alive, with the battery in percent as its last field, if any."""
    reading = _read_other(fields, raw)
    said = [field.strip() for field in fields[3:] if field.strip()]
    percent = tails.number(said[-1], 100) if said else None
    return _with(reading, battery_raw=percent, battery_pct=percent)


def _read_sms(fields: Sequence[str], raw: bytes) -> Reading:
    """C{SMS}: what the device would have answered by SMS; of C{RCONF} and C{CXZT} also what it says."""
    reading = _read_other(fields, raw)
    text = raw.decode("latin-1").split(",", 3)[3][:-1]
    answer = answers.CONFIGURATION if texts.is_configuration(text) else None
    return _with(reading, **texts.configuration(text))._replace(answer=answer)


def _read_other(fields: Sequence[str], raw: bytes) -> Reading:
    """Any other type: alive, with what it says as text."""
    kind = message_type(fields)[:_MAX_KIND]
    attributes: dict[str, Any] = {"message_type": kind} if kind else {}
    attributes["raw_text"] = raw.decode("latin-1")
    return Reading("status", None, attributes)


def _read_unknown(fields: Sequence[str], raw: bytes) -> Reading:
    """A type without a reader: a position when it has the block of a V type, else its text."""
    if len(fields) > 2 and fields[2].startswith("V"):
        try:
            return _read_report(fields, raw)
        except (ValueError, IndexError):
            pass
    return _read_other(fields, raw)


_READERS: Final[dict[str, Callable[[Sequence[str], bytes], Reading]]] = {
    **dict.fromkeys(("V1", "V2", "V5", "V8", "V19", "VI1"), _read_report),
    "V6": _read_started,
    **dict.fromkeys(("V0", "HTBT", "XT"), _read_heartbeat),
    "VP1": _read_vp1,
    "V3": _read_v3,
    "V4": _read_v4,
    "NBR": _read_nbr,
    "LINK": _read_link,
    "SMS": _read_sms,
}

#: Every type of text frame that was seen or is documented; detection is sure of a frame that has one.
TYPES: Final = frozenset(_READERS) | set("BASE BS BC ALRM I1 UP CM".split())


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
