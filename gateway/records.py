"""
Events as the server-side script reads them: a record each, its fields ended by a zero byte.

What goes into a record is text that holds no zero byte: JSON escapes it, and
columns are held against what can be printed.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Mapping
from typing import Any, Final

import orjson

from gateway.events import COLUMNS, STREAM_OF, rounded
from gateway.fields import rfc3339, rfc3339_ascii
from gateway.interfaces import Message
from gateway.judging import Steady
from gateway.session import DIGEST_BYTES, Envelope, Session
from gateway.tickets import Link

#: The first letter of an event's head in the script: its stream.
_LETTER: Final = {kind: ("w" if stream == "raw" else stream[0]) for kind, stream in STREAM_OF.items()}
_FLAG: Final = {None: "", True: "1", False: "0"}

_COLUMNS: Final = frozenset(COLUMNS)

#: A position's record in one piece, as L{brief} writes it.
_BRIEF: Final = b"%b%b%d\0%b\0%b\0%b\0%.6f\0%.6f\0%b\0%.2f\0%b\0%b%b"
#: From here on degrees are 0 with six decimals, and would have a minus sign.
_BELOW_ZERO: Final = -5e-7

#: Marks columns that were shown with an altitude.
_HIGH: Final = b"+"


def render(
    envelope: Envelope,
    message: Message,
    session: Session | None,
    link: Link | None,
    protocol: str,
    received: float,
    outcome: str,
    first: bool,
) -> bytes:
    """
    An event as a record.

    @param outcome: of its frame, a letter of L{gateway.tickets}.
    @param first: whether it is the first event of its frame.
    @raise ValueError: for a column that can't be written; whatever foreign values lead to besides.
    """
    digest, kind, time, device_time, attributes = envelope
    letter = _LETTER[kind]
    attributes = rounded(attributes)
    if None in attributes.values() or "" in attributes.values():  # unknown is absent
        attributes = {name: value for name, value in attributes.items() if value is not None and value != ""}
    stamp = str(int(device_time * 1000)) if device_time is not None else "f" if _refused_as_future(attributes) else ""
    common = f"{stamp}\0{digest.hex()}\0{rfc3339(time)}\0{rfc3339(received)}\0"
    if letter != "p":
        head = f"{letter}{first:d}0{outcome}".encode()
        return b"".join((head, digest[:8], f"{common}{kind}\0{protocol}\0".encode(), orjson.dumps(attributes), b"\0"))
    take = attributes.pop
    latitude, longitude = take("latitude", None), take("longitude", None)
    altitude, speed = take("altitude_m", None), take("speed_kmh", None)
    course = str(take("course_deg", ""))
    late = take("late", "")
    columns = (
        _FLAG[take("valid", None)],
        str(take("satellites", "")),
        _FLAG[take("ignition", None)],
        _FLAG[take("immobilizer", None)],
        _FLAG[take("external_power", None)],
        str(take("battery_pct", "")),
        str(take("odometer_km", "")),
        ",".join(take("levels", ())),
        take("status_word", ""),
        late,
        take("transport", "") or (link.transport_name if link is not None else session.transport if session else ""),
        link.peer if link is not None else session.peer if session is not None else "",
    )
    printed = course + "".join(columns)
    if not (printed.isascii() and printed.isprintable()):
        raise ValueError("a column holds something else than printable ASCII")
    seldom = "\0".join((kind, protocol, *columns, "")).encode()
    data = orjson.dumps(attributes) + b"\0" if attributes else b"{}\0"
    mode = "1"
    if kind == "status" and session is not None:
        session.shown = b""  # the last state takes over what it says
    if kind == "position" and session is not None:
        shown = seldom if altitude is None else seldom + _HIGH
        mode = "3" if shown == session.shown else "2"
        session.shown = b"" if session.copy else shown
        stays = not late or session.lagging
        if message.same is not None and message.same is session.same and not session.copy and stays:
            _keep(session, seldom, data, attributes)
    where = (
        f"{'' if latitude is None else f'{latitude:.6f}'}\0{'' if longitude is None else f'{longitude:.6f}'}\0"
        f"{'' if altitude is None else _metres(altitude)}\0{'' if speed is None else f'{speed:.2f}'}\0{course}\0"
    )
    return b"".join((f"p{first:d}{mode}{outcome}".encode(), digest[:8], f"{common}{where}".encode(), seldom, data))


def _metres(altitude: float) -> str:
    """Metres with two decimals at most, and never with an exponent."""
    return f"{altitude:z.2f}".rstrip("0").rstrip(".")


def _refused_as_future(attributes: Mapping[str, Any]) -> bool:
    """Whether an event's device has given a time that may come to count, when the same frame comes again."""
    return "device_time" in attributes and "repeat_of" not in attributes


def _keep(session: Session, seldom: bytes, data: bytes, attributes: dict[str, Any]) -> None:
    """Keep what L{brief} needs for the next report that is like this one."""
    standing = attributes.get("clock") == "frozen"
    if not standing and "time_source" in attributes:
        return  # its time was refused or corrected: the next one's need not be
    if seldom != session.columns:
        session.columns = seldom
        session.going, session.standing = session.going and not standing, session.standing and standing
    if not standing:
        session.data = data
    else:
        session.still = data


def brief(session: Session, message: Message, report: Steady, received: float) -> bytes:
    """
    The record of a report that L{gateway.judging.steady} has judged: what L{render} makes of it, in less time.

    @raise ValueError: for an altitude or a course that is no number.
    """
    digest, when, device_ms, going, latitude, longitude, speed = report
    take = message.events[0].attributes.get
    altitude, course = take("altitude_m"), take("course_deg", "")
    if type(course) is not int and course != "":
        raise ValueError("the course is no whole number")
    same, columns = message.same, session.columns
    if same is not session.same:
        session.same = same
        session.data = session.still = b""
    data = (session.data if going else session.still) or _data(session, message, device_ms, going)
    height, shown = (b"", columns) if altitude is None else (_metres(altitude).encode(), columns + _HIGH)
    head = b"p13p" if session.shown == shown else b"p12p"
    session.shown = shown
    if _BELOW_ZERO <= latitude <= 0.0:
        latitude = 0.0
    if _BELOW_ZERO <= longitude <= 0.0:
        longitude = 0.0
    came = rfc3339_ascii(received)
    text = rfc3339_ascii(when) if going else came
    degrees = b"%d" % course if course != "" else b""
    # fmt: off
    return _BRIEF % (
        head, digest[:8], device_ms, hexlify(digest), text, came,
        latitude, longitude, height, speed, degrees, columns, data,
    )
    # fmt: on


def _data(session: Session, message: Message, device_ms: int, going: bool) -> bytes:
    """What is no column, of a report that is like the one before it, but for that; kept for those that are the same."""
    attributes = message.events[0].attributes
    said = {name: value for name, value in attributes.items() if name not in _COLUMNS}
    if not going:
        said |= {"clock": "frozen", "device_time": rfc3339(device_ms / 1000), "time_source": "server"}
    data = orjson.dumps(said) + b"\0" if said else b"{}\0"
    if going:
        session.data = data
    else:
        session.still = data
    return data


def entry(record: bytes, source: str, ident: str, device_id: str) -> dict[str, str]:
    """
    The fields of a record's entry, in their order, as the server-side script appends it.

    @param source: of the entry, C{gateway/<instance>}.
    """
    fields = record[4 + DIGEST_BYTES :].decode().split("\0")
    _, id, time, received, *rest = fields[:-1]
    if record[:1] == b"p":
        where, (kind, protocol), seldom = rest[:5], rest[5:7], rest[7:-1]
        columns = dict(zip(COLUMNS, (device_id, *where, *seldom), strict=True))
    else:
        kind, protocol, columns = *rest[:2], {"device_id": device_id}
    head = {"v": "1", "id": id, "type": kind, "source": source, "time": time, "received": received}
    return {**head, "ident": ident, "protocol": protocol, **columns, "data": rest[-1]}


def described(record: bytes) -> tuple[str, str, str]:
    """Type, time and id of a record's event."""
    head, fields = record[:4], record[4 + DIGEST_BYTES :].split(b"\0", 10)
    kind = fields[9] if head[:1] == b"p" else fields[4]
    return kind.decode(), fields[2].decode(), fields[1].decode()
