"""
Reads binary C{$} and C{X} frames.

Offsets are those of the 32-byte form; the 42-byte form has its ident 3 bytes
longer.  What follows the status word differs with the length.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from gateway.devices.st907 import status
from gateway.devices.st907.reports import worded
from gateway.devices.st907.status import Map
from gateway.devices.st907.tails import CSQ, SATELLITES, cell
from gateway.errors import converting
from gateway.events import Event
from gateway.fields import KMH_PER_KNOT, time_of
from gateway.interfaces import Message

#: Status word and what stands before it, in hex digits from the latitude on.
TAIL_AT: Final = 34
#: An C{X} frame has a mileage in place of the ident, counted in these.
METRES_A_COUNT: Final = 0.51444

#: alarm flag, a byte, signal, satellites, kilometres, MCC, MNC, LAC, cell, record number: the 45-byte form
_TAIL_45: Final = struct.Struct(">BBBBIHBHHB")
#: alarm flag, a byte, record number, metres as 10 digits, fuel, temperature, altitude, LAC, cell: the 46-byte form
_TAIL_46: Final = struct.Struct(">BBB5sHbhHH")


def read_binary(raw: bytes, ident: str | None, names: Map = status.DEFAULT) -> Message:
    """
    Read a C{$} or C{X} frame.

    @param ident: whose it is.
    @param names: what the bits of the status word mean.
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
        elif latitude or longitude:
            attributes = {"last_latitude": latitude, "last_longitude": longitude}
        else:
            attributes = {}  # there was no fix yet
        attributes["valid"] = valid
        levels = worded(attributes, int(digits[26:TAIL_AT], 16), valid, names)
        attributes["battery_raw"] = int(digits[8:10], 16)
        attributes["message_type"] = chr(raw[0])
        attributes["tail"] = digits[TAIL_AT:]
        if raw[0] == 0x58:
            attributes["odometer_km"] = round(int(raw[1:6].hex()) * METRES_A_COUNT / 1000, 3)
    if len(raw) == 45:
        _read_45(raw[29:], attributes)
    elif len(raw) == 46:
        _read_46(raw[29:], attributes)
    return Message(raw, ident, (Event("position", time, attributes),), levels)


def _read_45(tail: bytes, attributes: dict[str, Any]) -> None:
    """Mileage and cell; signal and satellites only where the two bytes before them are as in most captures."""
    flag, second, csq, satellites, kilometres, mcc, mnc, lac, cid, _ = _TAIL_45.unpack(tail)
    if flag == 0xFF and second == 0:
        if csq in CSQ:
            attributes["csq"] = csq
        if satellites in SATELLITES:
            attributes["satellites"] = satellites
    attributes["odometer_km"] = kilometres
    attributes.update(cell(f"{mcc:03d}", f"{mnc:02d}", str(lac), str(cid)) or {})


def _read_46(tail: bytes, attributes: dict[str, Any]) -> None:
    """What the text frames of the same devices say, too: metres, fuel, temperature, altitude, LAC and cell."""
    _, _, _, metres, fuel, temperature, altitude, lac, cid = _TAIL_46.unpack(tail)
    if metres.hex().isdecimal():
        attributes["odometer_km"] = int(metres.hex()) / 1000
    attributes["altitude_m"] = altitude
    attributes["io"] = {**attributes.get("io", {}), "temperature": temperature, "fuel": fuel}
    if lac or cid:
        attributes["lac"], attributes["cid"] = lac, cid
