"""
What a request says: whose it is, and its locations, from parameters or from JSON.

Both forms become the same flat names, which one reader turns into events.
What can't be told from it or makes no sense stays in C{io}, as it came; only
an ident, a position or a time that can't be read spoils a request.

Sources: traccar.org/osmand for the parameters and the JSON of Traccar Client 9;
the documentation of background-geolocation, which that client is made of, for
the rest of the JSON (-1 is 'unknown' there; C{location} is a list with
C{batchSync}).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from gateway.events import IDENT, STREAM_OF, Event, event_digest
from gateway.fields import KMH_PER_KNOT, compass, rfc3339

NAME: Final = "osmand"

#: What C{speed} may be in, in km/h: Traccar Client sends knots, OsmAnd and GPSLogger metres per second
#: (traccar issue 3487).
UNITS: Final[Mapping[str, float]] = {"knots": KMH_PER_KNOT, "m/s": 3.6, "km/h": 1.0}

#: Parameters of a request, locations in one, and what C{io} holds of names, their letters and those of their texts.
MAX_PARAMETERS: Final = 100
MAX_LOCATIONS: Final = 500
IO_NAMES: Final = 32
IO_NAME: Final = 64
TEXT: Final = 256

MAX_KMH: Final = 10_000.0
MAX_ALTITUDE_M: Final = 99_999.0
#: Seconds from here on are milliseconds: as seconds it would be the year 5138, as milliseconds it is 1973.
MILLISECONDS_FROM: Final = 1e11

#: Traccar's words for alarms, where the contract has one; the contract's own names are taken as well.
ALARMS: Final[Mapping[str, str]] = {
    "accident": "crash",
    "fatigueDriving": "fatigue",
    "fuelLeak": "fuel",
    "geofenceEnter": "geofence.enter",
    "geofenceExit": "geofence.exit",
    "gpsAntennaCut": "gnss",
    "hardAcceleration": "harsh.acceleration",
    "hardBraking": "harsh.braking",
    "hardCornering": "harsh.cornering",
    "lowBattery": "battery.low",
    "powerCut": "power.cut",
    "tampering": "tamper",
}

_IDENTS: Final = ("id", "deviceid", "device_id")
_LOCATIONS: Final = ("location", "locations")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
#: A number that is the same when it is written again: C{007} and C{+49} are texts.
_PLAIN_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{0,15})?([eE][+-]?\d{1,2})?", re.ASCII)

#: What a location says, by the names of the parameters.
Given = dict[str, Any]


class Location(NamedTuple):
    """One location: its time, UTC epoch seconds or None, what it says, and the word of its alarm if it has one."""

    time: float | None
    attributes: dict[str, Any]
    alarm: str | None


# -- whose it is, and what is given


def unpack(target: str, body: bytes) -> tuple[str, list[Given]]:
    """
    The ident of a request and what it says, location by location.

    @param target: its path and query.
    @raise ValueError: for what can't be read, in words for whoever set up the phone.
    """
    query = _pairs(target.partition("?")[2])
    if body.lstrip()[:1] in (b"{", b"["):
        idents, found = _from_json(body, _joined(query))
    else:
        given = _joined([*query, *_pairs(body.decode("utf-8", "replace").strip())])
        idents, found = _idents(given), [given]
    if not idents:
        raise ValueError("no device: give id, deviceid or device_id")
    if len(idents) > 1:
        raise ValueError("more than one device in a request")
    (ident,) = idents
    if not IDENT.fullmatch(ident):
        raise ValueError(f"the id {ident[:40]!a} is not 3 to 32 letters, digits, '_', '-' or '.'")
    if len(found) > MAX_LOCATIONS:
        raise ValueError(f"{len(found)} locations, more than {MAX_LOCATIONS}")
    return ident, found


def _pairs(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, errors="replace", max_num_fields=MAX_PARAMETERS)


def _joined(pairs: Iterable[tuple[str, str]]) -> Given:
    """Parameters by name: the last one counts, but C{cell} and C{wifi} may come more than once."""
    given: Given = {}
    for name, value in pairs:
        if name in ("cell", "wifi"):
            given.setdefault(name, []).append(value)
        else:
            given[name] = value
    return given


def _idents(given: Given) -> set[str]:
    """Take out the names that stand for the device; what they say."""
    found = [given.pop(name) for name in _IDENTS if name in given]
    return {str(ident) for ident in found if type(ident) in (str, int)}


def _from_json(body: bytes, query: Given) -> tuple[set[str], list[Given]]:
    """The idents of a JSON body, and its locations; a query beside it counts for each of them."""
    try:
        tree = json.loads(body, parse_constant=_no_constant)
    except ValueError as error:
        raise ValueError(f"the body is not JSON: {error}") from error
    idents = _idents(query)
    found: list[Given] = []
    for root in tree if isinstance(tree, list) else [tree]:
        if not isinstance(root, dict):
            raise ValueError("the JSON is no object")
        if len(root) > MAX_PARAMETERS:
            raise ValueError(f"{len(root)} names beside the locations, more than {MAX_PARAMETERS}")
        shared = {**query, **root}
        idents |= _idents(shared)
        name = next((name for name in _LOCATIONS if name in root), None)
        # without one the location is the object itself: httpRootProperty "."
        inner, shared = (shared, {}) if name is None else (shared.pop(name), shared)
        for location in inner if isinstance(inner, list) else [inner]:
            if not isinstance(location, dict) or not isinstance(location.get("coords"), dict):
                raise ValueError("a location without coords")
            found.append(_flat(location, shared))
    return idents, found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _flat(location: Given, shared: Given) -> Given:
    """A location of the JSON form by the names of the parameters."""
    parts = {name: part for name in _PARTS if isinstance(part := location.get(name), dict)}
    own = {name: value for name, value in location.items() if name not in parts and name != "_"}
    given = {**shared, **parts.pop("extras", {})}
    for part, values in (("", own), *parts.items()):
        for name, value in values.items():
            if value == -1 and name in _UNKNOWN_BELOW_0:
                continue
            given[_JSON_NAMES.get((part, name), f"{part}_{name}" if part in _PREFIXED else name)] = value
    level = _take(given, "battery_level", 0.0, 1.0)
    if level is not None:
        given["batt"] = level * 100
    return given


#: Objects within a location; C{_}, beside them, is the same once more as a query.
_PARTS: Final = ("extras", "coords", "battery", "activity")
_PREFIXED: Final = ("battery", "activity")
#: What is -1 where it is not known.
_UNKNOWN_BELOW_0: Final = frozenset(
    "speed speed_accuracy heading heading_accuracy accuracy altitude_accuracy level odometer".split()
)
#: Object and name of the JSON form -> the name of the parameter.
_JSON_NAMES: Final[Mapping[tuple[str, str], str]] = {
    ("", "odometer"): "odometer_m",
    ("", "is_moving"): "motion",
    ("coords", "latitude"): "lat",
    ("coords", "longitude"): "lon",
    ("coords", "speed"): "speed_mps",
    ("battery", "is_charging"): "charge",
    ("activity", "type"): "activity",
}


# -- one location


def read(given: Given, speed_kmh: float) -> Location:
    """
    Read what is given of one location; it is used up.

    @param speed_kmh: what one unit of C{speed} is in km/h.
    @raise ValueError: for a position or a time that can't be read.
    """
    time = _time(given.pop("timestamp", None))
    attributes: dict[str, Any] = {"transport": "http"}
    place = _place(given)
    if place is not None:
        valid = _flag(given, "valid")
        _fix(given, attributes, place, valid is not False, speed_kmh)
    for name, attribute, low, high, digits in _FIGURES:
        value = _take(given, name, low, high)
        if value is not None:
            attributes[attribute] = _rounded(value, digits)
    metres = _take(given, "odometer_m", 0.0, 1e12)
    if metres is not None:
        attributes["odometer_km"] = _rounded(metres / 1000, 3)
    for name, attribute in _FLAGS:
        flag = _flag(given, name)
        if flag is not None:
            attributes[attribute] = flag
    for name, attribute in _TEXTS:
        if isinstance(given.get(name), str):
            attributes[attribute] = _text(given.pop(name))
    alarm = _text(given.pop("alarm")) if isinstance(given.get("alarm"), str) else None
    for name, attribute, reader in (("cell", "cells", _cell), ("wifi", "wifi", _access_point)):
        found = [reader(text) for text in given[name]] if isinstance(given.get(name), list) else []
        if found and None not in found:
            del given[name]
            attributes[attribute] = found
    io = _io(given)
    if io:
        attributes["io"] = io
    return Location(time, attributes, alarm)


#: Parameter, attribute, lowest and highest that makes sense, and decimals.
_FIGURES: Final = (
    ("altitude", "altitude_m", -MAX_ALTITUDE_M, MAX_ALTITUDE_M, 2),
    ("accuracy", "accuracy_m", 0.0, 1e9, 2),
    ("hdop", "hdop", 0.0, 1e3, 2),
    ("batt", "battery_pct", 0.0, 100.0, 1),
    ("satellites", "satellites", 0.0, 1e3, 0),
    ("sat", "satellites", 0.0, 1e3, 0),
)
_FLAGS: Final = (("charge", "charging"), ("motion", "motion"), ("ignition", "ignition"))
_TEXTS: Final = (("activity", "activity"), ("event", "message_type"), ("driverUniqueId", "driver_id"))


def _place(given: Given) -> tuple[float, float] | None:
    """
    Take out latitude and longitude.

    @return: None when neither is there.
    """
    if isinstance(given.get("location"), str):
        given["lat"], _, given["lon"] = given.pop("location").partition(",")
    if given.get("lat") is None and given.get("lon") is None:
        return None
    place = []
    for name, limit in (("lat", 90.0), ("lon", 180.0)):
        degrees = _number(given.get(name), -limit, limit)
        if degrees is None:
            raise ValueError(f"{name} is {str(given.get(name))[:32]!a}, not a number of -{limit:g} to {limit:g}")
        del given[name]
        place.append(degrees)
    return place[0], place[1]


def _fix(given: Given, attributes: dict[str, Any], place: tuple[float, float], valid: bool, speed_kmh: float) -> None:
    """Position, speed and course; of a location that says itself that it is not valid, only where it was last."""
    kmh = course = None
    for name, unit in (("speed", speed_kmh), ("speed_mps", UNITS["m/s"]), ("speed_kmh", 1.0)):
        value = _take(given, name, 0.0, MAX_KMH / unit)
        kmh = kmh if value is None else value * unit
    for name in ("bearing", "heading", "course"):
        value = _take(given, name, 0.0, 360.0)
        course = course if value is None else compass(value)
    attributes["valid"] = valid
    if not valid:
        attributes["last_latitude"], attributes["last_longitude"] = place
        return
    attributes["latitude"], attributes["longitude"] = place
    if kmh is not None:
        attributes["speed_kmh"] = kmh
    if course is not None:
        attributes["course_deg"] = course


def _cell(text: Any) -> dict[str, Any] | None:
    """C{mcc,mnc,lac,cid}, and maybe the level; None when it is none."""
    fields = str(text).split(",")
    sizes = zip(fields, (3, 3, 10, 10), strict=False)
    if len(fields) not in (4, 5) or not all(f.isascii() and f.isdecimal() and len(f) <= size for f, size in sizes):
        return None
    mcc, mnc, lac, cid = fields[:4]
    return _with_level({"mcc": mcc, "mnc": mnc, "lac": int(lac), "cid": int(cid)}, fields[4:])


def _access_point(text: Any) -> dict[str, Any] | None:
    """C{mac,level}, or None when it is none."""
    mac, *rest = str(text).split(",")
    mac = mac.replace("-", ":").lower()
    if not _MAC.fullmatch(mac) or len(rest) > 1:
        return None
    return _with_level({"mac": mac}, rest)


def _with_level(found: dict[str, Any], rest: list[str]) -> dict[str, Any] | None:
    """Add the level at which it is heard, in dBm, if one is given."""
    if rest:
        level = _number(rest[0], -300.0, 100.0)
        if level is None:
            return None
        found["rssi_dbm"] = round(level)
    return found


# -- single values


def _number(value: Any, low: float, high: float) -> float | None:
    """A number of C{low} to C{high}, or the text of one; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value.strip()):
            return None
        value = float(value)
    return float(value) if isinstance(value, int | float) and low <= value <= high else None


def _take(given: Given, name: str, low: float, high: float) -> float | None:
    """Take a number out, if it is one that makes sense."""
    value = _number(given.get(name), low, high)
    if value is not None:
        del given[name]
    return value


def _flag(given: Given, name: str) -> bool | None:
    """Take a flag out, if it is one."""
    value = given.get(name)
    for flag, words in ((True, ("true", "1")), (False, ("false", "0"))):
        if str(value).lower() in words:
            del given[name]
            return flag
    return None


def _time(value: Any) -> float | None:
    """
    Seconds or milliseconds since 1970, ISO 8601, or C{yyyy-MM-dd HH:mm:ss}; without a zone UTC.

    @raise ValueError: for anything else; None when there is none.
    """
    if value is None:
        return None
    seconds = _number(value, 0.0, MILLISECONDS_FROM * 1000)
    if seconds is not None:
        return seconds if seconds < MILLISECONDS_FROM else seconds / 1000
    text = str(value).strip()
    try:
        if ":" not in text:
            raise ValueError("no time of day")
        when = datetime.fromisoformat(text)
        stamp = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        if stamp < 0:
            raise ValueError("before 1970")
    except (ValueError, OverflowError):
        form = "seconds or milliseconds since 1970, ISO 8601 or yyyy-MM-dd HH:mm:ss"
        raise ValueError(f"the timestamp {text[:40]!a} is not {form}") from None
    return stamp


def _rounded(value: float, digits: int) -> float | int:
    """A number as it is published: without C{.0}, and never C{-0}."""
    figure = round(value, digits) + 0.0
    return int(figure) if figure.is_integer() else figure


def _text(value: str) -> str:
    """A text that can be stored: bounded, and without the halves of surrogate pairs that JSON lets through."""
    return value[:TEXT].encode("utf-8", "replace").decode()


def _io(given: Given) -> dict[str, Any]:
    """What nothing is known of, by its name: flags, numbers and texts; bounded."""
    io: dict[str, Any] = {}
    for name, value in given.items():
        if len(io) == IO_NAMES:
            break
        if value is not None and value != "":
            io[_text(name)[:IO_NAME]] = _plain(value)
    return io


def _plain(value: Any) -> Any:
    """A value of a parameter or of JSON as flag, number or text."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value in ("true", "false"):
            return value == "true"
        if _PLAIN_NUMBER.fullmatch(value):
            return float(value) if "." in value else int(value)
        return _text(value)
    if isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1 << 53:
        return value
    return _text(json.dumps(value, separators=(",", ":")))


# -- events


def events(ident: str, locations: list[Location], raw: bytes, now: float) -> list[Event]:
    """
    The events of a request: its locations, oldest first, and after each its alarm.

    An alarm is what happened once, an event and no level: nothing says when
    it is over.

    @param raw: the request, of which the ids are made.
    """
    made: list[Event] = []
    for time, attributes, alarm in sorted(locations, key=lambda one: now if one.time is None else one.time):
        kind = "position" if "valid" in attributes else "status"
        received = rfc3339(now) if time is None else None
        digest = event_digest(ident, NAME, raw, kind, len(made), received)
        made.append(Event(kind, time, attributes))
        if alarm:
            made.append(_alarm(alarm, made[-1], digest.hex(), now))
    return made


def _alarm(word: str, report: Event, report_id: str, now: float) -> Event:
    """An alarm with where it happened."""
    kind = f"alarm.{ALARMS.get(word, word)}"
    attributes: dict[str, Any] = {
        "phase": "raised",
        "origin": "device",
        "since": rfc3339(now if report.time is None else report.time),
        "position_id": report_id,
    }
    if kind not in STREAM_OF or kind == "alarm.other":
        kind, attributes["name"] = "alarm.other", f"{NAME}.{word[:IO_NAME]}"
    for name in ("latitude", "longitude", "speed_kmh", "valid", "last_latitude", "last_longitude"):
        if name in report.attributes:
            attributes[name] = report.attributes[name]
    return Event(kind, report.time, attributes)
