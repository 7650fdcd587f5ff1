"""
Explains text frames: each field with its name and meaning, and why there is no position where there is none.

Where a type has its fields is asked of the readers; the names are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gateway.devices.st907 import explain_blocks, meanings, reports, tails, texts
from gateway.devices.st907.bits import word_facts
from gateway.devices.st907.settings import Settings
from gateway.devices.st907.telling import LACKING, NO_TIME, UNREADABLE, Telling
from gateway.errors import DecodeError
from gateway.fields import second_of_day
from gateway.interfaces import Fact

#: What each type is.
_TYPES: Final[Mapping[str, str]] = {
    "": "none: nothing but an ident, which says that it is alive",
    "V0": "a heartbeat",
    "V1": "a position report",
    "V2": "a position that was asked for",
    "V3": "cells in place of a position",
    "V4": "the answer to a command",
    "V5": "a position with its cell, and one number more",
    "V6": "a position with the SIM card's number, sent as it starts up",
    "V8": "a position of an ST-901L",
    "V19": "a position with the SIM card's number",
    "VI1": "a position that was asked for",
    "VP1": "a position without a time, or cells",
    "HTBT": "a heartbeat",
    "LINK": "a status report",
    "NBR": "the cells around, sent when there is no fix",
    "SMS": "what it would have answered by SMS",
    "XT": "a heartbeat",
}


def text_facts(frame: bytes, held: Settings) -> list[Fact]:
    """
    The facts of a text frame.

    @param held: what holds for the unit.
    """
    ended = frame.endswith(b"#")
    fields = frame[1 : -1 if ended else None].decode("latin-1").split(",", reports.MAX_FIELDS)
    kind = reports.message_type(fields)
    problem, told, time = "" if ended else "the frame is cut short: no # at its end", None, None
    try:
        event = reports.read_text(frame, None, fields, held.bits).events[0]
        told, time = Telling(fields, kind, held, event.attributes), event.time
    except DecodeError as error:
        problem, told = problem or error.reason, Telling(fields, kind, held, {})
    if not ended:
        told.because(UNREADABLE, problem)
    told.say(0, "maker", "who made it; the answer has the same code")
    if not told.read(1, "ident", _ident):
        problem = problem or "no ident"
    if len(fields) > 2:
        known = "a type of which only the name is known" if kind in reports.TYPES else "an unknown type"
        told.say(2, "type", _TYPES.get(kind, known))
    _layout(told)(told)
    if problem:
        facts = told.facts("the frame can't be read, and this is lost with it")
        return [*facts, Fact("", "", UNREADABLE, told.reason(UNREADABLE, problem))]
    return [*told.facts(_kept(told)), *_conclusions(told, time)]


def _ident(text: str) -> str:
    """Who says it, or why that is nobody."""
    try:
        found = reports.checked_ident(text, b"")
    except DecodeError as error:
        raise ValueError(error.reason) from error
    return "empty: it is whoever spoke on the connection before" if found is None else "the tracker's number"


def _kept(told: Telling) -> str:
    kept = [name for name in ("tail", "raw_text") if name in told.attributes]
    return f"kept as it is, in {kept[0]}" if kept else "not used"


def _conclusions(told: Telling, time: float | None) -> list[Fact]:
    """Why it lacks what it lacks."""
    kind = f"type {told.kind[:16]}" if told.kind else "a frame without a type"
    facts = [
        Fact("", "", lacking, told.reason(lacking, f"{kind} has no position block"))
        for lacking, attribute in LACKING.items()
        if attribute not in told.attributes
    ]
    if time is None:
        facts.append(Fact("", "", NO_TIME, told.reason(NO_TIME, f"no time is read of {kind}")))
    return facts


def _layout(told: Telling) -> Callable[[Telling], None]:
    """What explains the fields of a type."""
    known = _LAYOUTS.get(told.kind)
    if known is not None:
        return known
    # an unknown V type is a report when it reads as one
    return _report if "valid" in told.attributes else _other


def _report(told: Telling) -> None:
    """C{V1} and its kin."""
    explain_blocks.report(told, 3, reports.REACH)


def _vp1(told: Telling) -> None:
    if len(told.fields) < 6:
        told.cut_short("position block and no cells")
        return
    if told.text(5) in ("N", "S"):
        told.because(NO_TIME, "type VP1 has a date, but no time")
        explain_blocks.report(told, 2, reports.SHORT_REACH, timed=False)
        return
    told.say(3, "validity", f"{meanings.shown(told.text(3))}: no fix")
    told.because("no position", "there are cells in place of it")
    _network(told)
    groups = reports.vp1_groups(told.fields)
    details = [
        Fact(f"cell {number}", ",".join(one), "cell", meanings.group(one, told.fields[4], told.fields[5]))
        for number, one in enumerate(groups, 1)
    ]
    told.say(6, "cells", f"{len(groups)} cells, with a Y between two: lac, cid, level", len(told.fields), details)


def _v4(told: Telling) -> None:
    at = reports.v4_block_at(told.fields)
    last = len(told.fields) - 1
    end = at
    if at is not None:
        explain_blocks.report(told, at, reports.SHORT_REACH)
    else:
        told.because("no position", "this answer has no position block")
        told.because("no speed", "this answer has no position block")
        told.because(NO_TIME, "this answer has no date")
        end = last if last > 3 and reports.is_word(told.fields[last]) else last + 1
        if end == last:
            _word(told, last)
    for number in range(3, end or 0):
        if number == 3:
            told.say(3, "command", "which command it answers; kept in reply_text")
        elif (second := second_of_day(told.text(number))) is not None:
            told.say(number, "argument", f"likely a time, {meanings.clock(second)}: the command's, or its own")
        else:
            told.say(number, "argument", "kept in reply_text")


def _word(told: Telling, at: int) -> None:
    """A status word; of a frame without a fix."""
    if at < len(told.fields):
        first, *bits = word_facts("", told.text(at), told.held, told.valid)
        told.say(at, first.name, first.meaning, 1, bits)


def _dated(told: Telling) -> int:
    """Time in front, date and status word at the end; where the date stands."""
    told.say(3, "time HHMMSS", meanings.time(told.text(3), told.held))
    end = reports.date_at(told.fields)
    if end < len(told.fields):
        told.say(end, "date DDMMYY", meanings.date(told.text(end)))
        _word(told, end + 1)
        explain_blocks.time_reasons(told, told.text(end), told.text(3))
    else:
        told.because(NO_TIME, "there is no date with a status word after it")
    return end


def _network(told: Telling) -> None:
    """Country and network of all cells of a frame."""
    for at, name in ((4, "mcc"), (5, "mnc")):
        told.say(at, name, f"{meanings.CELL[name]} {told.text(at)[:16]}")


def _nbr(told: Telling) -> None:
    end = _dated(told)
    told.because("no position", "type NBR is sent when there is no fix; it has cells in place of a position")
    starts = reports.nbr_groups(end)
    _network(told)
    told.say(6, "timing advance", "how far away the serving cell is; not used")
    told.say(7, "cells", f"how many; {len(starts)} are there, and those are read")
    for number, at in enumerate(starts, 1):
        one = told.fields[at : at + 3]
        told.say(at, f"cell {number}", meanings.group(one, told.text(4), told.text(5)), 3)
    if "battery_raw" in told.attributes:
        told.say(end + 2, "battery", meanings.battery(told.attributes["battery_raw"], told.held))


def _link(told: Telling) -> None:
    if _dated(told) < 9:
        return
    csq, satellites, battery = (tails.number(told.text(at), most) for at, most in ((4, 31), (5, 64), (6, 100)))
    told.say(4, "csq", meanings.csq(csq))
    told.say(5, "satellites", meanings.satellites(satellites))
    told.say(6, "battery", meanings.percent(battery))
    told.say(7, "steps", "of a pedometer")
    told.say(8, "turnovers", "of who wears it")


def _v3(told: Telling) -> None:
    end = _dated(told)
    told.because("no position", "type V3 has cells in place of a position")
    mark = end - 1
    if mark < 6 or told.text(mark) != "X":
        return
    network = told.text(4)
    said = f"{meanings.CELL['mcc']} {network[:3]}, {meanings.CELL['mnc']} {network[3:][:16]}"
    told.say(4, "mcc and mnc", said)
    starts = reports.v3_groups(mark)
    told.say(5, "cells", f"how many; {len(starts)} are there, and those are read")
    for number, at in enumerate(starts, 1):
        lac, cid, _, level = told.fields[at : at + 4]
        heard = level if level.startswith("-") else ""
        told.say(at, f"cell {number}", meanings.group((lac, cid, heard), network[:3], network[3:]), 4)
    if "battery_raw" in told.attributes:
        raw = told.attributes["battery_raw"]
        told.say(mark - 2, "battery", f"{raw} as a number; what it measures is not documented")
    told.say(mark - 1, "restart", "why it started last; not used (likely)")
    told.say(mark, "X", "the end of the cells")


def _heartbeat(told: Telling) -> None:
    last = len(told.fields) - 1
    if last >= 3 and "battery_pct" in told.attributes:
        told.say(last, "battery", meanings.percent(told.attributes["battery_pct"]))


def _sms(told: Telling) -> None:
    if len(told.fields) < 4:
        told.cut_short("text")
        return
    found = texts.configuration(",".join(told.fields[3:]))
    said = {**_SMS, "battery_raw": meanings.battery(found.get("battery_raw", 0), told.held)}
    details = [Fact("text", str(value), name, said.get(name, "")) for name, value in found.items()]
    meaning = "an answer to RCONF or CXZT" if found else "a text that is no answer to RCONF or CXZT"
    told.say(3, "text", f"{meaning}; kept in raw_text", len(told.fields), details)


#: What the answer to RCONF and CXZT says, by the contract's names.
_SMS: Final[Mapping[str, str]] = {
    "firmware": "model and version",
    "firmware_date": "when that was built",
    "server": "where it reports to (IP)",
    "intervals_s": "seconds between reports (UT); the last two are likely with the ignition on and off",
    "supply_v": "volts of the vehicle (VOLT)",
    "apn": "the access point of its SIM card (APN)",
    "satellites": "how many satellites (GPS, likely)",
    "csq": "signal, 0 to 31 (GSM)",
    "iccid": "the SIM card's number (ICCID)",
}


def _other(told: Telling) -> None:
    """Fields of which nothing is known."""


_LAYOUTS: Final[Mapping[str, Callable[[Telling], None]]] = {
    **dict.fromkeys(("V1", "V2", "V5", "V6", "V8", "V19", "VI1"), _report),
    **dict.fromkeys(("V0", "HTBT", "XT"), _heartbeat),
    "VP1": _vp1,
    "V3": _v3,
    "V4": _v4,
    "NBR": _nbr,
    "LINK": _link,
    "SMS": _sms,
}
