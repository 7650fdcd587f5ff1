"""Explains what position reports have: the position block, the status word, and what follows that."""

from __future__ import annotations

from typing import Any, Final

from gateway.devices.st907 import meanings, reports, tails
from gateway.devices.st907.bits import word_facts
from gateway.devices.st907.blocks import EMPTY, MAX_KNOTS, block_date_at, figure_or_none, vouched
from gateway.devices.st907.settings import Settings
from gateway.devices.st907.telling import NO_TIME, Telling
from gateway.fields import day_epoch, degrees, second_of_day

#: The names of a block's fields, and of those that a tail may have.
_BLOCK: Final = ("time", "validity", "latitude", "N/S", "longitude", "E/W", "speed", "course", "date")
_NO_SPEED: Final = "it counts only with a position: without a fix the field repeats the last one"
_CELL: Final = ("mcc", "mnc", "lac", "cid")
_ODOMETER: Final = (
    ("odometer", "metres"),
    ("temperature", "degrees Celsius (likely)"),
    ("fuel", "percent (likely)"),
    ("altitude", "metres"),
    ("lac", "location area, in hex"),
    ("cid", "cell, in hex"),
)


def report(told: Telling, at: int, reach: int, timed: bool = True) -> None:
    """
    A position block, and what follows it.

    @param at: where the block starts; C{reach}: how many fields after it are looked at for the status word.
    @param timed: whether it has a time; without one it starts with the next field.
    """
    end = _block(told, at, timed)
    if end is None:
        return
    rest = told.fields[end:]
    number = reports.word_at(rest, told.kind, reach)
    if number is None:
        return
    word = end + number
    for before in range(end, word):
        _before_word(told, before)
    first, *bits = word_facts("", told.text(word), told.held, told.valid)
    told.say(word, first.name, first.meaning, 1, bits)
    _tail(told, word + 1)


def _block(told: Telling, at: int, timed: bool) -> int | None:
    """The block's fields; where it ends, None where it is cut short or can't be read."""
    held = told.held
    if timed:
        told.say(at, "time HHMMSS", meanings.time(told.text(at), held))
    told.say(at + 1, "validity", meanings.validity(told.text(at + 1), told.fields[2]))
    readable = [_coordinate(told, at + 2, "latitude", 90, "NS"), _coordinate(told, at + 4, "longitude", 180, "EW")]
    unused = "" if vouched(told.text(at + 1), told.fields[2]) else "; of the last fix, not used"
    told.say(at + 6, "speed", meanings.speed(told.text(at + 6)) + unused)
    told.say(at + 7, "course", meanings.course(told.text(at + 7)) + unused)
    if at + 8 >= len(told.fields):
        told.cut_short(_BLOCK[len(told.fields) - at])
        return None
    date = block_date_at(told.fields, at)
    if date > at + 8:
        told.say(at + 8, "battery", _battery(told.text(at + 8), held))
    told.say(date, "date DDMMYY", meanings.date(told.text(date)))
    if not all(readable):
        return None
    _place_reasons(told, at, told.text(date))
    if timed:
        time_reasons(told, told.text(date), told.text(at))
    return date + 1


def _coordinate(told: Telling, at: int, name: str, limit: int, sides: str) -> bool:
    """A coordinate and the letter after it; whether it can be read."""
    letter = told.text(at + 1)
    told.say(at + 1, f"{sides[0]}/{sides[1]}", meanings.side_meaning(letter, sides, told.held))
    chosen = meanings.side(letter, sides, told.held)
    return told.read(at, name, lambda _: meanings.coordinate(name, told.fields[at].strip(" "), limit, chosen))


def _place_reasons(told: Telling, at: int, date: str) -> None:
    """Why a block is no position, and why its speed is none."""
    flag, latitude, longitude = told.text(at + 1), told.fields[at + 2].strip(" "), told.fields[at + 4].strip(" ")
    reasons = [] if vouched(flag, told.fields[2]) else [meanings.no_fix(flag)]
    reasons += [meanings.no_place("latitude", latitude, 90), meanings.no_place("longitude", longitude, 180)]
    nowhere = (
        latitude not in EMPTY and longitude not in EMPTY and not (degrees(latitude, 90) or degrees(longitude, 180))
    )
    if date == "000000" and nowhere:
        reasons.append("0/0 with date 000000")
    for reason in filter(None, reasons):
        told.because("no position", reason)
        told.because("no speed", _NO_SPEED)
    speed = told.text(at + 6)
    if figure_or_none(speed, MAX_KNOTS) is None:
        told.because("no speed", f"speed {speed[:32]} is no figure of 0 to {MAX_KNOTS:g}")


def _battery(text: str, held: Settings) -> str:
    """The figure that a Prime-07 has before the date."""
    if text in EMPTY:
        return "empty"
    raw = figure_or_none(text, 255.0)
    return f"{text[:32]}: no figure of 0 to 255; kept in tail" if raw is None else meanings.battery(int(raw), held)


def time_reasons(told: Telling, date: str, time: str) -> None:
    """Why a date and a time are no time."""
    if day_epoch(date) is None:
        told.because(NO_TIME, "the date is empty" if not date else f"date {date[:32]} is none")
    if second_of_day(time) is None:
        told.because(NO_TIME, "the time is empty" if not time else f"time {time[:32]} is none")


def _before_word(told: Telling, at: int) -> None:
    """What C{V19} has before its status word."""
    found: dict[str, Any] = {}
    tails.before_word([told.fields[at]], found)
    names = {"iccid": "ICCID", "server": "server", "phone": "phone"}
    for name, value in found.items():
        if name in names:
            told.say(at, names[name], f"the SIM card's number {value}" if name == "iccid" else f"the {name} it knows")
    if not found:
        told.say(at, "empty", "nothing")


def _tail(told: Telling, at: int) -> None:
    """What follows the status word, by the shape in which it was read."""
    found: dict[str, Any] = {}
    tails.read(told.fields[at:], told.kind, found)
    end = len(told.fields)
    while end > at and not told.text(end - 1):
        end -= 1
        told.say(end, "empty", "nothing")
    if "iccid" in found:
        end -= 1
        told.say(end, "ICCID", f"the SIM card's number {found['iccid']}")
    if "odometer_km" in found:
        for number, (name, unit) in enumerate(_ODOMETER):
            told.say(at + number, name, f"{unit} (not an ST-907)")
    elif end - at >= len(_CELL):
        _cell(told, at)
        _after_cell(told, at + len(_CELL), end, found)


def _cell(told: Telling, at: int) -> None:
    """The serving cell."""
    four = told.fields[at : at + 4]
    decimal = tails.cell(*four)
    found = decimal or tails.hex_cell(*four)
    if found is None:
        if tails.no_cell(*four):
            for number, name in enumerate(_CELL):
                told.say(at + number, name, "no cell: area and number are zero")
        return
    for number, name in enumerate(_CELL):
        of = f"{found[name]}" if decimal else f"{four[number].strip()[:16]} in hex = {found[name]}"
        told.say(at + number, name, f"{meanings.CELL[name]} {of}")


def _after_cell(told: Telling, at: int, end: int, found: dict[str, Any]) -> None:
    """What some firmware sends after the cell."""
    if "battery_raw" in found:
        told.say(at, "battery", meanings.battery(found["battery_raw"], told.held))
    elif told.kind == "V8" and end - at == 4 and "satellites" in found:
        told.say(at, "satellites", f"{meanings.satellites(found['satellites'])} (likely)")
        told.say(at + 1, "csq", f"{meanings.csq(found.get('csq'))} (likely)")
        volts = f"{found['supply_v']} V" if "supply_v" in found else "no voltage"
        told.say(at + 2, "supply voltage", f"{volts}, tenths of a volt (likely)")
        told.say(at + 3, "not known", "kept in tail")
