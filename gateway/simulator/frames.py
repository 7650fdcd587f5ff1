"""
Writes the frames that an ST-907 sends of its own.

Written from the documentation of the protocol alone: nothing of the gateway's
own decoder is used here, so that a wrong field can't agree with itself.
"""

from __future__ import annotations

import struct
import time
from typing import Final, NamedTuple

#: Bits of the status word by what they say; on the wire a bit is 0 while its condition is there.
THEFT: Final = 1 << 0
SOS: Final = 1 << 1
OVERSPEED: Final = 1 << 2
ILLEGAL_IGNITION: Final = 1 << 3
#: of a fence that must not be entered, and of one that must not be left
FENCE_ENTER: Final = 1 << 4
FENCE_EXIT: Final = 1 << 7
#: the alarm, and the state of the antenna
ANTENNA_OPEN: Final = 1 << 5 | 1 << 21
ANTENNA_SHORT: Final = 1 << 6 | 1 << 22
ARMED: Final = 1 << 9
ACC_OFF: Final = 1 << 10
ENGINE_ON: Final = 1 << 13
RECEIVER_FAULT: Final = 1 << 16
VIBRATION: Final = 1 << 17
ON_BACKUP_BATTERY: Final = 1 << 19
BATTERY_REMOVED: Final = 1 << 20
#: three times in a row
WRONG_PASSWORD: Final = 1 << 25
#: the record could not be sent when it was made
DELAYED: Final = 1 << 26
RELAY_CUT: Final = 1 << 27
POWER_CUT: Final = 1 << 28

KMH_PER_KNOT: Final = 1.852
#: An index, not a percentage: 6 is full.
BATTERY_FULL: Final = 6
#: Ten-thousandths of a minute, in which both forms give latitude and longitude.
_PER_DEGREE: Final = 600_000

#: user alarm flag, an unknown byte, signal, satellites, kilometres, MCC, MNC, LAC, CID, record number
_TAIL: Final = struct.Struct(">BBBBIHBHHB")


class Cell(NamedTuple):
    """A cell of the mobile network."""

    mcc: int
    mnc: int
    lac: int
    cid: int


class Neighbour(NamedTuple):
    """A cell of the same network that is heard, and how well, 0 to 63."""

    lac: int
    cid: int
    rxlev: int


class Record(NamedTuple):
    """
    What a report says.

    @ivar time: of the receiver's clock, UTC epoch seconds.
    @ivar conditions: the bits of the status word whose conditions are there.
    @ivar number: how many reports there were before.
    @ivar fix: whether the receiver vouches for the place; if not, place, speed and course are those of the last fix.
    @ivar battery: an index from 1 to 6; None: not said. The binary form always says 6.
    @ivar neighbours: what C{NBR} tells instead of a place.
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
    fix: bool = True
    battery: int | None = None
    neighbours: tuple[Neighbour, ...] = ()


def v1(record: Record) -> bytes:
    """The usual report as text, with the serving cell."""
    return f"*HQ,{record.ident},V1,{position(record)},{word(record)},{_cell(record)}{_battery(record)}#".encode()


def v6(record: Record, iccid: str) -> bytes:
    """
    What is sent when the power comes on, with the number of the SIM.

    Its numbers have no leading zeros, and there is a comma more than needed: so the one that is known has it.
    """
    place = position(record, places=(1, 1), speed=".2f", course=".2f")
    return f"*HQ,{record.ident},V6,{place},{word(record)},{_cell(record)},{iccid:F<20},#".encode()


def v19(record: Record, peer: str, iccid: str) -> bytes:
    """
    A report with the number of the SIM; the status word is its last field.

    @param peer: the address of the server, or a phone number.
    """
    return f"*HQ,{record.ident},V19,{position(record)},,{peer},{iccid:F<20},{word(record)}#".encode()


def nbr(record: Record) -> bytes:
    """The cells around, where there is no fix; the date is at the end."""
    cells = "".join(f",{lac},{cid},{rxlev}" for lac, cid, rxlev in record.neighbours)
    return (
        f"*HQ,{record.ident},NBR,{clock(record)},{record.cell.mcc:03d},{record.cell.mnc:02d},0,"
        f"{len(record.neighbours)}{cells},{_date(record)},{word(record)}{_battery(record)}#"
    ).encode()


def link(record: Record, rssi: int, satellites: int, battery_percent: int) -> bytes:
    """How it is: signal, satellites and battery; a car makes no steps and does not turn over."""
    return (
        f"*HQ,{record.ident},LINK,{clock(record)},{rssi},{satellites},{battery_percent},0,0,"
        f"{_date(record)},{word(record)}#"
    ).encode()


def htbt(ident: str, battery_percent: int | None = None) -> bytes:
    """A heartbeat; not seen of wired trackers, and no scenario has it."""
    battery = "" if battery_percent is None else f",{battery_percent}"
    return f"*HQ,{ident},HTBT{battery}#".encode()


def binary(record: Record) -> bytes:
    """The usual report in the 45-byte form, in which the speed is in whole knots."""
    latitude, longitude = _angles(record)
    flags = 0x2 * record.fix | (0 if record.latitude < 0 else 0x4) | (0 if record.longitude < 0 else 0x8)
    digits = (
        f"{record.ident}{clock(record)}{_date(record)}"
        f"{latitude // _PER_DEGREE:02d}{latitude % _PER_DEGREE:06d}{BATTERY_FULL:02x}"
        f"{longitude // _PER_DEGREE:03d}{longitude % _PER_DEGREE:06d}{flags:x}"
        f"{round(record.speed_kmh / KMH_PER_KNOT):03d}{round(record.course_deg) % 360:03d}"
        f"{word(record)}"
    )
    cell = record.cell
    tail = _TAIL.pack(
        0xFF, 0, 20, 8, int(record.mileage_km), cell.mcc, cell.mnc, cell.lac, cell.cid, record.number % 256
    )
    return b"$" + bytes.fromhex(digits) + tail


def position(record: Record, places: tuple[int, int] = (4, 5), speed: str = "06.2f", course: str = "03d") -> str:
    """
    The block that all text reports with a place have, from the time of day to the date.

    @param places: how many digits latitude and longitude have before the point, at least.
    @param speed: how the speed is written, C{course} how the course is.
    """
    latitude, longitude = _angles(record)
    return (
        f"{clock(record)},{'A' if record.fix else 'V'},"
        f"{_minutes(latitude, places[0])},{'S' if record.latitude < 0 else 'N'},"
        f"{_minutes(longitude, places[1])},{'W' if record.longitude < 0 else 'E'},"
        f"{record.speed_kmh / KMH_PER_KNOT:{speed}},{round(record.course_deg) % 360:{course}},{_date(record)}"
    )


def word(record: Record) -> str:
    """The status word."""
    return f"{0xFFFF_FFFF & ~record.conditions:08X}"


def clock(record: Record) -> str:
    """The time of day."""
    return time.strftime("%H%M%S", time.gmtime(record.time))


def _date(record: Record) -> str:
    return time.strftime("%d%m%y", time.gmtime(record.time))


def _angles(record: Record) -> tuple[int, int]:
    """Latitude and longitude without their signs."""
    return round(abs(record.latitude) * _PER_DEGREE), round(abs(record.longitude) * _PER_DEGREE)


def _minutes(angle: int, digits: int) -> str:
    """C{DDMM.MMMM}, with so many digits before the point, at least."""
    degrees, rest = divmod(angle, _PER_DEGREE)
    return f"{degrees * 100 + rest // 10_000:0{digits}d}.{rest % 10_000:04d}"


def _cell(record: Record) -> str:
    cell = record.cell
    return f"{cell.mcc:03d},{cell.mnc:02d},{cell.lac:05d},{cell.cid}"


def _battery(record: Record) -> str:
    return "" if record.battery is None else f",{record.battery}"
