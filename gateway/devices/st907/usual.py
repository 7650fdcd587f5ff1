"""
The report that nearly all traffic consists of, by one expression: C{V1} at full width, its cell or nothing after it.

Whatever is not exactly so is cut and read by the general ways; a test holds the two equal.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from gateway.devices.st907 import reports, tails
from gateway.devices.st907.status import Map
from gateway.events import Event
from gateway.fields import KMH_PER_KNOT, time_of
from gateway.interfaces import Levels, Message
from gateway.quality import MOVING_KMH

#: A dot stands for what is looked up in a table or a cache, which know what is none: it costs nothing to match.
USUAL: Final = re.compile(
    r"\*([A-Za-z]{2}),([0-9]{3,17}),V1,(.{6}),([AV]),(..)([0-5][0-9]\.[0-9]{4}),([NS]),"
    r"(...)([0-5][0-9]\.[0-9]{4}),([EW]),([0-9]{3}\.[0-9]{2}),(...),(.{6}),([^#]{8,33})#[\r\n \0]*",
    re.DOTALL,
)
#: Status word and cell.
_REST: Final = re.compile(r"[0-9A-Fa-f]{8}(?:,[0-9]{3},[0-9]{1,3},[0-9]{1,5},[0-9]{1,10})?")
#: Its last group, before the C{#}.
USUAL_END: Final = 14

#: Degrees of latitude and longitude, and courses, by their digits: faster than reading them.  The poles and the date
#: line are left to the general ways, which look at the minutes.
_LATITUDE: Final = {f"{number:02d}": float(number) for number in range(90)}
_LONGITUDE: Final = {f"{number:03d}": float(number) for number in range(180)}
_COURSE: Final = {f"{number:03d}": number % 360 for number in range(361)}

# A NamedTuple's own constructor takes three times as long, and there are two a report
_new: Final[Any] = tuple.__new__


class Constant:
    """
    What reports with one status word, one cell and one hemisphere have in common; nobody changes it.

    @ivar attributes: of a report with a fix, with room for where it is, which is cheaper copied than put together.
    @ivar alike: what those with one status word share, whatever their cell.
    @ivar moving: stands for those of a car that moves with the ignition off, which show whether that is wired; so does
        C{alike_moving}.
    """

    __slots__ = ("alike", "alike_moving", "attributes", "levels", "moving")

    def __init__(self, attributes: dict[str, Any], levels: Levels, word: int, sides: str) -> None:
        self.attributes = attributes
        self.levels = levels
        self.alike = _alike(word, sides, moving=False)
        self.moving: object = self
        self.alike_moving = self.alike
        if not levels["ignition"]:
            self.moving, self.alike_moving = object(), _alike(word, sides, moving=True)


@lru_cache(maxsize=8192)
def _alike(word: int, sides: str, moving: bool) -> object:
    """What stands for reports with one status word, of one side of the globe and one country, moving or standing."""
    return object()


@lru_cache(maxsize=8192)
def _constant(text: str, valid: bool, north: str, east: str, names: Map) -> Constant | None:
    """
    Status word and cell of a usual report; None: not the usual ones.

    @param north: its hemisphere letters, which show whether they are right; C{east} too.
    """
    if not _REST.fullmatch(text):
        return None
    word, *cell = text.split(",")
    where = ("latitude", "longitude", "speed_kmh", "course_deg") if valid else ("last_latitude", "last_longitude")
    attributes: dict[str, Any] = {**dict.fromkeys(where), "valid": valid}
    levels = reports.worded(attributes, int(word, 16), valid, names)
    if cell:
        found = tails.cell(*cell)
        if found is None:
            return None
        attributes |= found
    return Constant(attributes, levels, int(word, 16), f"{north}{east}{attributes.get('mcc', '')}")


def read(groups: tuple[str, ...], raw: bytes, names: Map, reply: Any) -> Message | None:
    """
    Read what L{USUAL} matched.

    @param groups: the match's.
    @param names: what the bits of the status word mean.
    @param reply: its acknowledgement.
    @return: None when a figure is out of bounds: the general ways say what that means.
    """
    _, ident, hhmmss, flag, lat, lat_min, north, lon, lon_min, east, speed, course, ddmmyy, rest = groups
    valid = flag == "A"
    constant = _constant(rest, valid, north, east, names)
    time = time_of(ddmmyy, hhmmss)
    if constant is None or time is None:
        return None
    try:
        latitude = _LATITUDE[lat] + float(lat_min) / 60.0
        longitude = _LONGITUDE[lon] + float(lon_min) / 60.0
        degree = _COURSE[course]
    except KeyError:
        return None
    if north == "S":
        latitude = -latitude
    if east == "W":
        longitude = -longitude
    attributes = constant.attributes.copy()
    if not valid:
        if not latitude and not longitude:
            return None  # there was no fix yet
        attributes["last_latitude"] = latitude
        attributes["last_longitude"] = longitude
        return Message(raw, ident, (Event("position", time, attributes),), constant.levels, reply)
    speed_kmh = float(speed) * KMH_PER_KNOT
    attributes["latitude"] = latitude
    attributes["longitude"] = longitude
    attributes["speed_kmh"] = speed_kmh
    attributes["course_deg"] = degree
    event = _new(Event, ("position", time, attributes))
    same: object = constant
    alike = constant.alike
    if speed_kmh > MOVING_KMH:
        same, alike = constant.moving, constant.alike_moving
    fields = (raw, ident, (event,), constant.levels, reply, b"", b"", None, False, same, alike, None)
    message: Message = _new(Message, fields)
    return message
