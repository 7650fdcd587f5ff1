"""
What follows the status word of a report: cells, battery, SIM card, mileage, and what is not known, as it came.

The shape is decided by how many fields there are and what they look like, for
no firmware says which one it has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

#: The number of a SIM card, padded with F, or with what could not be read of it.
ICCID: Final = re.compile(r"89[0-9]{16,18}[0-9A-Fa-f?]?")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{1,8}")
#: metres, temperature, fuel, altitude, then LAC and cell in hex
_ODOMETER: Final = re.compile(
    r"[0-9]{1,10},-?[0-9]{1,3},[0-9]{1,3}(?:\.[0-9]{1,2})?,-?[0-9]{1,5},[0-9A-Fa-f]{4},[0-9A-Fa-f]{4}"
)
SERVER: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]{1,5})?")
PHONE: Final = re.compile(r"\+?[0-9]{7,15}")

#: Mobile country codes lie between these: 200 is none in use, 901 is for satellites and ships.
_COUNTRIES: Final = range(200, 902)
_NETWORKS: Final = range(1000)
#: GSM's received level 0 to 63 is -110 dBm and up (3GPP TS 45.008).
_RXLEV_DBM: Final = -110
_RXLEVS: Final = range(64)
#: Signal quality by AT+CSQ: 99 is unknown.
CSQ: Final = range(32)
#: More satellites than that are none.
SATELLITES: Final = range(65)


def cell(mcc: str, mnc: str, lac: str, cid: str) -> dict[str, Any] | None:
    """
    A serving cell in decimal; None when these fields are none, zeros included.

    Blanks after a field are nothing; those before area or number pad hex.
    """
    mcc, mnc, lac, cid = mcc.strip(), mnc.strip(), lac.rstrip(), cid.rstrip()
    if not (len(mcc) == 3 and 0 < len(mnc) <= 3 and 0 < len(lac) <= 6 and 0 < len(cid) <= 10):
        return None
    digits = f"{mcc}{mnc}{lac}{cid}"
    if not (digits.isascii() and digits.isdecimal()) or int(mcc) not in _COUNTRIES:
        return None
    if int(lac) == 0 and int(cid) == 0:
        return None
    return {"mcc": mcc, "mnc": mnc, "lac": int(lac), "cid": int(cid)}


def hex_cell(mcc: str, mnc: str, lac: str, cid: str) -> dict[str, Any] | None:
    """A serving cell in hex, padded with blanks or zeros, as devices with an IMEI send it."""
    fields = [field.strip() for field in (mcc, mnc, lac, cid)]
    if not all(map(_HEX.fullmatch, fields)):
        return None
    country, network, area, number = (int(field, 16) for field in fields)
    if country not in _COUNTRIES or network not in _NETWORKS or not (area or number):
        return None
    # the wire has a number: two digits at least, as networks are written
    return {"mcc": f"{country:03d}", "mnc": f"{network:02d}", "lac": area, "cid": number}


def level_dbm(text: str) -> int | None:
    """A received level: GSM's 0 to 63, or dBm below zero; what else was seen is not known to be either."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 3):
        return None
    value = int(text)
    return value if value < 0 else value + _RXLEV_DBM if value in _RXLEVS else None


def cells(mcc: str, mnc: str, groups: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Cells of one network, of groups of LAC, cell and level; those that are none are left out."""
    found = []
    for lac, cid, level in groups:
        one = cell(mcc, mnc, lac, cid)
        if one is not None:
            dbm = level_dbm(level.strip())
            found.append(one if dbm is None else {**one, "rssi_dbm": dbm})
    return found


def number(text: str, limit: int) -> int | None:
    """A whole number from 0 to C{limit}; None for anything else."""
    if text.isascii() and text.isdecimal() and len(text) <= 10:
        value = int(text)
        return value if value <= limit else None
    return None


def battery(text: str) -> int | None:
    """A battery figure: an index of 1 to 6, a percentage, or an index with F before it; 0 says nothing."""
    value = number(text, 0xF6)
    return value if value and (value <= 100 or value >= 0xF1) else None


def read(fields: Sequence[str], kind: str, attributes: dict[str, Any]) -> None:
    """
    Read what follows the status word into C{attributes}; what is not known is kept as C{tail}.

    @param kind: the type of the message.
    """
    rest = [*fields]
    while rest and not rest[-1].strip():
        rest.pop()
    if not rest:
        return
    rest[-1] = rest[-1].rstrip()  # a blank before the end sign
    if ICCID.fullmatch(rest[-1].strip()):
        attributes["iccid"] = iccid(rest.pop())
    if len(rest) == 6 and _ODOMETER.fullmatch(",".join(rest)):
        _odometer(rest, attributes)
        return
    if len(rest) >= 4:
        _cell_and_more(rest, kind, attributes)
    elif any(rest):
        keep(",".join(rest), attributes)


def _cell_and_more(rest: list[str], kind: str, attributes: dict[str, Any]) -> None:
    """The serving cell, in decimal or in hex, or zeros in its place; then what only some firmware sends."""
    fields, after = rest[:4], rest[4:]
    decimal = cell(*fields)
    # a device that sends hex has a country that is none in decimal
    found = decimal or hex_cell(*fields)
    attributes.update(found or {})
    if decimal is not None or no_cell(*fields):
        raw = battery(after[0].strip()) if len(after) == 1 and kind != "V5" else None
        if raw is not None:
            attributes["battery_raw"] = raw
            after = []
        elif kind == "V8" and len(after) == 4:
            _v8(after, attributes)
    left = after if found is not None else [*fields, *after]
    if any(left):
        keep(",".join(left), attributes)


def no_cell(mcc: str, mnc: str, lac: str, cid: str) -> bool:
    """Whether the fields of a cell say that there is none: area and number zero."""
    mcc, mnc, lac, cid = (field.strip() for field in (mcc, mnc, lac, cid))
    return all(field.isdecimal() for field in (mcc, mnc, lac, cid)) and not (lac.strip("0") or cid.strip("0"))


def keep(text: str, attributes: dict[str, Any]) -> None:
    """Put what is not known behind what was kept already."""
    before = attributes.get("tail")
    attributes["tail"] = text if before is None else f"{before},{text}"


def iccid(text: str) -> str:
    """The number of a SIM card without what pads it."""
    return text.strip().rstrip("Ff?")


def _odometer(fields: Sequence[str], attributes: dict[str, Any]) -> None:
    """Metres, temperature, fuel, altitude, LAC and cell: not an ST-907, but of its family."""
    metres, temperature, fuel, altitude, lac, cid = fields
    attributes["odometer_km"] = int(metres) / 1000
    attributes["altitude_m"] = int(altitude)
    attributes["io"] = {"temperature": int(temperature), "fuel": float(fuel)}
    if int(lac, 16) or int(cid, 16):
        attributes["lac"], attributes["cid"] = int(lac, 16), int(cid, 16)


def _v8(fields: list[str], attributes: dict[str, Any]) -> None:
    """Satellites, signal, tenths of a volt, and one more, as an ST-901L sends them: likely, no document says so."""
    satellites, csq, tenths = number(fields[0], 64), number(fields[1], 31), number(fields[2], 999)
    if satellites is not None:
        attributes["satellites"] = satellites
    if csq is not None:
        attributes["csq"] = csq
    if tenths:
        attributes["supply_v"] = tenths / 10


def before_word(fields: Sequence[str], attributes: dict[str, Any]) -> None:
    """What C{V19} has between the date and the status word: a phone number or a server, and the SIM card."""
    rest = []
    for field in fields:
        text = field.strip()
        if ICCID.fullmatch(text):
            attributes["iccid"] = iccid(text)
        elif SERVER.fullmatch(text):
            attributes["server"] = text
        elif PHONE.fullmatch(text):
            attributes["phone"] = text
        elif text:
            rest.append(text)
    if rest:
        keep(",".join(rest), attributes)
