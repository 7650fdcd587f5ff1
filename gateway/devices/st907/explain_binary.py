"""
Explains binary C{$} and C{X} frames: each byte with its name and meaning.

Offsets are those of the frame; with a 15-digit IMEI all after it lies 3 bytes
further on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from gateway.devices.st907 import frames, meanings
from gateway.devices.st907.binary import METRES_A_COUNT, read_binary
from gateway.devices.st907.bits import word_facts
from gateway.devices.st907.settings import Settings
from gateway.devices.st907.telling import LACKING, NO_TIME, UNREADABLE
from gateway.fields import is_bcd
from gateway.interfaces import Fact

_X: Final = 0x58
_NO_FIX: Final = "no fix; the place is the last one: last_latitude and last_longitude; the speed is not used"
#: How much longer an ident is that is an IMEI.
_SHIFT: Final = 3
#: What frames of each length have after the status word.
_FORMS: Final[Mapping[int, str]] = {
    32: "the short form",
    42: "with an IMEI of 15 digits; what follows the status word is not known",
    45: "with signal, mileage and cell",
    46: "with mileage, fuel, temperature and cell; not a SinoTrack",
    48: "what follows the status word is not known",
}


class _Frame:
    """
    A frame, and what the reader made of it.

    @ivar flags: the nibble after the longitude.
    @ivar wrong: why it can't be read.
    """

    def __init__(self, raw: bytes, held: Settings) -> None:
        self.raw = raw
        self.held = held
        head = frames.binary_head(raw, 0)
        imei = len(raw) == 42 if head or len(raw) in frames.LENGTHS else bool(frames.imei_head(raw, 0))
        self.shift = _SHIFT if imei else 0
        self.flags = raw[21 + self.shift] & 15 if len(raw) > 21 + self.shift else 0
        self.valid = self.flags & 2 != 0
        self.wrong: list[str] = []
        self.attributes: Mapping[str, Any] = {}
        self.time: float | None = None
        size = len(raw)
        if size not in (frames.LENGTHS if raw[0] != _X else (frames.SHORTEST,)):
            self.wrong.append(f"no binary frame of this kind has {size} bytes")
        elif not frames.decodes(raw, 0, size):
            self.wrong.append("its fields are not those of a binary frame")
        else:
            event = read_binary(raw, None, held.bits).events[0]
            self.attributes, self.time = event.attributes, event.time

    def side(self, flag: int, sides: str) -> str:
        """The letter for the side of a coordinate."""
        return meanings.side(sides[0] if self.flags & flag else sides[1], sides, self.held)


class _Part(NamedTuple):
    """
    Some bytes of a frame.

    @ivar meaning: of the frame and these bytes in hex.
    @raise ValueError: by C{meaning}, for what can't be read.
    """

    size: int
    name: str
    meaning: Callable[[_Frame, str], str]
    details: Callable[[_Frame, str, str], list[Fact]] | None = None


def binary_facts(raw: bytes, held: Settings) -> list[Fact]:
    """
    The facts of a binary frame.

    @param held: what holds for the unit.
    """
    frame = _Frame(raw, held)
    facts: list[Fact] = []
    at = 0
    for part in (*_parts(frame), _Part(len(raw), "tail", _kept)):
        here = raw[at : at + part.size].hex()
        if here:
            end = at + len(here) // 2
            facts += _told(frame, part, here, str(at) if end == at + 1 else f"{at}-{end - 1}")
            at = end
    return facts + _conclusions(frame)


def _told(frame: _Frame, part: _Part, here: str, where: str) -> list[Fact]:
    """A part's fact, and what follows below it."""
    if len(here) < 2 * part.size and part.name != "tail":
        return [Fact(where, here, part.name, f"cut short: {len(here) // 2} of {part.size} bytes")]
    try:
        meaning = part.meaning(frame, here)
    except ValueError as error:
        frame.wrong.append(f"bytes {where}: {error}")
        return [Fact(where, here, part.name, f"can't be read: {error}")]
    return part.details(frame, where, here) if part.details else [Fact(where, here, part.name, meaning)]


def _conclusions(frame: _Frame) -> list[Fact]:
    """Why it lacks what it lacks."""
    if frame.wrong:
        return [Fact("", "", UNREADABLE, "; ".join(frame.wrong))]
    reasons = {"no position": "flag 2 is 0 (no fix)", "no speed": "without a fix the frame repeats the last one"}
    facts = [
        Fact("", "", lacking, reasons[lacking]) for lacking, name in LACKING.items() if name not in frame.attributes
    ]
    return facts if frame.time is not None else [*facts, Fact("", "", NO_TIME, "the date or the time is none")]


def _parts(frame: _Frame) -> list[_Part]:
    """What stands where, up to the end of the known."""
    who = _Part(5, "odometer", _mileage) if frame.raw[0] == _X else _Part(5 + frame.shift, "ident", _ident)
    return [_Part(1, "kind", _kind), who, *_BLOCK, *_TAILS.get(len(frame.raw), ())]


def _bcd(digits: str) -> str:
    if not is_bcd(digits):
        raise ValueError("not BCD: a digit is none")
    return digits


def _kind(frame: _Frame, here: str) -> str:
    size = len(frame.raw)
    kind = "a binary position" if frame.raw[0] != _X else "a binary position without an ident"
    form = f", {_FORMS[size]}" if size in _FORMS else ""
    return f"{chr(frame.raw[0])}: {kind} of {size} bytes{form}"


def _ident(frame: _Frame, here: str) -> str:
    return f"the tracker's number: {_bcd(here[:15] if frame.shift else here)}"


def _mileage(frame: _Frame, here: str) -> str:
    count = int(_bcd(here))
    return f"{count} x {METRES_A_COUNT} m = {count * METRES_A_COUNT / 1000:.3f} km (likely); the connection tells whose"


def _time(frame: _Frame, here: str) -> str:
    return meanings.time(_bcd(here), frame.held)


def _date(frame: _Frame, here: str) -> str:
    return meanings.date(_bcd(here))


def _latitude(frame: _Frame, here: str) -> str:
    _bcd(here)
    return _coordinate("latitude", f"{here[:4]}.{here[4:]}", 90, frame.side(4, "NS"))


def _longitude(frame: _Frame, here: str) -> str:
    _bcd(here[:9])
    return _coordinate("longitude", f"{here[:5]}.{here[5:9]}", 180, frame.side(8, "EW"))


def _coordinate(name: str, text: str, limit: int, side: str) -> str:
    """A coordinate, as the text frames have it."""
    if reason := meanings.no_place(name, text, limit):
        raise ValueError(reason)
    return meanings.coordinate(name, text, limit, side)


def _flags(frame: _Frame, where: str, here: str) -> list[Fact]:
    """The longitude, and the four flags in its last nibble."""
    held = frame.held
    flags = (
        (8, "E/W", meanings.side_meaning("E" if frame.flags & 8 else "W", "EW", held)),
        (4, "N/S", meanings.side_meaning("N" if frame.flags & 4 else "S", "NS", held)),
        (2, "validity", meanings.FIX if frame.valid else _NO_FIX),
        (1, "not known", "not used"),
    )
    told = [Fact(f"flag {bit}", str(int(frame.flags & bit != 0)), name, meaning) for bit, name, meaning in flags]
    return [Fact(where, here, "longitude and flags", _longitude(frame, here)), *told]


def _speed(frame: _Frame, here: str) -> str:
    _bcd(here)
    if int(here[3:]) > 360:
        raise ValueError(f"course {here[3:]} is past 360 degrees")
    return f"{meanings.in_knots(int(here[:3]))}; {int(here[3:]) % 360} degrees"


def _battery(frame: _Frame, here: str) -> str:
    return meanings.battery(int(here, 16), frame.held)


def _is_word(frame: _Frame, here: str) -> str:
    if int(here, 16).bit_count() < frames.MIN_ONES:
        raise ValueError(f"less than {frames.MIN_ONES} of its bits are ones, so it is no status word")
    return ""


def _word(frame: _Frame, where: str, here: str) -> list[Fact]:
    return word_facts(where, here, frame.held, frame.valid)


def _kept(frame: _Frame, here: str) -> str:
    return "not known; kept in tail" if frame.attributes else "not known"


def _raw(what: str) -> Callable[[_Frame, str], str]:
    """Bytes that are not used."""
    return lambda frame, here: f"{what}; kept in tail"


def _value(name: str, unit: str, otherwise: str) -> Callable[[_Frame, str], str]:
    """A figure that the reader took, with its unit."""

    def meaning(frame: _Frame, here: str) -> str:
        found = frame.attributes.get(name, frame.attributes.get("io", {}).get(name))
        return otherwise if found is None else unit.format(found)

    return meaning


_INFORMAL: Final = "not used: no figure, or bytes 29-30 are not FF 00 as in most captures"
_NO_CELL: Final = "no cell: country, area or number is none"
_FLAG: Final = _Part(1, "alarm flag", _raw("likely"))
_UNKNOWN: Final = _Part(1, "not known", _raw("not used"))
_RECORD: Final = _Part(1, "record number", _raw("likely"))

_BLOCK: Final[Sequence[_Part]] = (
    _Part(3, "time HHMMSS", _time),
    _Part(3, "date DDMMYY", _date),
    _Part(4, "latitude", _latitude),
    _Part(1, "battery", _battery),
    _Part(5, "longitude and flags", _longitude, _flags),
    _Part(3, "speed and course", _speed),
    _Part(4, "status word", _is_word, _word),
)

#: After the status word, by the length of the frame.
_TAILS: Final[Mapping[int, Sequence[_Part]]] = {
    32: (_FLAG, _UNKNOWN, _RECORD),
    45: (
        _FLAG,
        _UNKNOWN,
        _Part(1, "csq", _value("csq", "signal {} of 31, CSQ (likely)", _INFORMAL)),
        _Part(1, "satellites", _value("satellites", "{} satellites (likely)", _INFORMAL)),
        _Part(4, "odometer", _value("odometer_km", "{} km (likely)", "none")),
        *(
            _Part(size, name, _value(name, f"{meanings.CELL[name]} {{}}", _NO_CELL))
            for name, size in (("mcc", 2), ("mnc", 1), ("lac", 2), ("cid", 2))
        ),
        _RECORD,
    ),
    46: (
        _FLAG,
        _UNKNOWN,
        _RECORD,
        _Part(5, "odometer", _value("odometer_km", "{} km (likely)", "not BCD: no mileage")),
        _Part(2, "fuel", _value("fuel", "{} (likely)", "none")),
        _Part(1, "temperature", _value("temperature", "{} degrees Celsius (likely)", "none")),
        _Part(2, "altitude", _value("altitude_m", "{} m (likely)", "none")),
        _Part(2, "lac", _value("lac", "location area {} (likely)", "no cell")),
        _Part(2, "cid", _value("cid", "cell {} (likely)", "no cell")),
    ),
}
