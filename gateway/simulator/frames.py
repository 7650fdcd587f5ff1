"""
Writes the frames of an ST-907, and reads the answers to them.

Written from the documentation of the protocol alone: nothing of the gateway's
own decoder is used here, so that a wrong field can't agree with itself.
"""

from __future__ import annotations

import re
import struct
import time
from typing import Final, NamedTuple

#: Bits of the status word by what they say; on the wire a bit is 0 while its condition is there.
OVERSPEED: Final = 1 << 2
ACC_OFF: Final = 1 << 10
ENGINE_ON: Final = 1 << 13
ON_BACKUP_BATTERY: Final = 1 << 19
BATTERY_REMOVED: Final = 1 << 20
#: the record could not be sent when it was made
DELAYED: Final = 1 << 26
POWER_CUT: Final = 1 << 28

KMH_PER_KNOT: Final = 1.852
#: An index, not a percentage: 6 is full.
_BATTERY_FULL: Final = 6
#: Ten-thousandths of a minute, in which both forms give latitude and longitude.
_PER_DEGREE: Final = 600_000

#: user alarm flag, an unknown byte, signal, satellites, kilometres, MCC, MNC, LAC, CID, record number
_TAIL: Final = struct.Struct(">BBBBIHBHHB")

_ANSWER: Final = re.compile(rb"\*HQ,(\d{10}),(?:V4,V1,\d{14}|(R12),\d{6})#")


class Cell(NamedTuple):
    """A cell of the mobile network."""

    mcc: int
    mnc: int
    lac: int
    cid: int


class Record(NamedTuple):
    """
    What a report says.

    @ivar time: of the receiver's clock, UTC epoch seconds.
    @ivar conditions: the bits of the status word whose conditions are there.
    @ivar number: how many reports there were before.
    """

    ident: str
    time: float
    latitude: float
    longitude: float
    speed_kmh: float
    course_deg: float
    conditions: int
    cell: Cell
    mileage_km: float
    number: int


def v1(record: Record) -> bytes:
    """The usual report as text, with a fix and the serving cell."""
    at = time.gmtime(record.time)
    latitude, longitude = round(abs(record.latitude) * _PER_DEGREE), round(abs(record.longitude) * _PER_DEGREE)
    cell = record.cell
    return (
        f"*HQ,{record.ident},V1,{at.tm_hour:02d}{at.tm_min:02d}{at.tm_sec:02d},A,"
        f"{_minutes(latitude, 2)},{'S' if record.latitude < 0 else 'N'},"
        f"{_minutes(longitude, 3)},{'W' if record.longitude < 0 else 'E'},"
        f"{record.speed_kmh / KMH_PER_KNOT:06.2f},{round(record.course_deg) % 360:03d},"
        f"{at.tm_mday:02d}{at.tm_mon:02d}{at.tm_year % 100:02d},{_word(record.conditions):08X},"
        f"{cell.mcc:03d},{cell.mnc:02d},{cell.lac:05d},{cell.cid}#"
    ).encode()


def binary(record: Record) -> bytes:
    """The same report in the 45-byte form, in which the speed is in whole knots."""
    at = time.gmtime(record.time)
    latitude, longitude = round(abs(record.latitude) * _PER_DEGREE), round(abs(record.longitude) * _PER_DEGREE)
    flags = 0x2 | (0 if record.latitude < 0 else 0x4) | (0 if record.longitude < 0 else 0x8)
    digits = (
        f"{record.ident}{at.tm_hour:02d}{at.tm_min:02d}{at.tm_sec:02d}"
        f"{at.tm_mday:02d}{at.tm_mon:02d}{at.tm_year % 100:02d}"
        f"{latitude // _PER_DEGREE:02d}{latitude % _PER_DEGREE:06d}{_BATTERY_FULL:02x}"
        f"{longitude // _PER_DEGREE:03d}{longitude % _PER_DEGREE:06d}{flags:x}"
        f"{round(record.speed_kmh / KMH_PER_KNOT):03d}{round(record.course_deg) % 360:03d}"
        f"{_word(record.conditions):08x}"
    )
    cell = record.cell
    tail = _TAIL.pack(
        0xFF, 0, 20, 8, int(record.mileage_km), cell.mcc, cell.mnc, cell.lac, cell.cid, record.number % 256
    )
    return b"$" + bytes.fromhex(digits) + tail


def _minutes(angle: int, width: int) -> str:
    """C{DDMM.MMMM}, with so many digits of degrees."""
    degrees, rest = divmod(angle, _PER_DEGREE)
    return f"{degrees:0{width}d}{rest // 10_000:02d}.{rest % 10_000:04d}"


def _word(conditions: int) -> int:
    return 0xFFFF_FFFF & ~conditions


def acknowledges(answer: bytes, ident: str, frame: bytes) -> bool:
    """
    Whether this answer can be the acknowledgement of that frame: C{V4} of a text frame, C{R12} of a binary one.

    It names the device and the kind of frame. Which of several it is for shows in their order alone.
    """
    match = _ANSWER.fullmatch(answer)
    return match is not None and match[1] == ident.encode() and (match[2] is not None) == frame.startswith(b"$")
