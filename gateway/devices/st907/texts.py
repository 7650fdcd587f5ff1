"""
The text that a device answers C{RCONF} and C{CXZT} with, by SMS or through its connection.

Lines of C{KEY:VALUE}, or one line with blanks between them; the first words are
model and firmware.  (One capture of a SinoTrack with TQ firmware, one of an
XM_GT09; what is not one of their keys stays in the text, which is always kept.)
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any, Final

from gateway.devices.st907.tails import CSQ, ICCID, SATELLITES, battery, iccid, number

#: How much of a value is taken.
_VALUE: Final = 128
_KEY: Final = re.compile(r"(?:^|[\s,])(ID|IP|UT|VOLT|BAT|APN|GPS|GSM|ICCID)[:=]")
_FIRMWARE: Final = re.compile(r"\A\s*([0-9A-Za-z_.()/+-]{4,64})(?:\s+(\d{4})/(\d\d)/(\d\d))?\s*\Z")
_VOLTS: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)\s*V?")
_SERVER: Final = re.compile(r"([0-9A-Za-z.-]{1,100})[\s:,]+([0-9]{1,5})")
_INTERVALS: Final = re.compile(r"[0-9]{1,6}(?:,[0-9]{1,6}){0,4}")
#: validity, satellites, and a number that may be a signal or satellites too
_GPS: Final = re.compile(r"([AV])-([0-9]{1,3})-([0-9]{1,3})")


def is_configuration(text: str) -> bool:
    """Whether a text is an answer to C{RCONF} or C{CXZT}: it says who it is, and where it reports to or how often."""
    keys = set(_KEY.findall(text))
    return "ID" in keys and bool(keys & {"IP", "UT"})


def configuration(text: str) -> dict[str, Any]:
    """What a text says, by the names of the contract; nothing of a text that is no such answer."""
    parts = _KEY.split(text)
    if len(parts) < 5:  # one key alone may be any text
        return {}
    values = {key: value.strip()[:_VALUE] for key, value in zip(parts[1::2], parts[2::2], strict=True)}
    attributes: dict[str, Any] = {}
    _firmware(parts[0], attributes)
    if match := _SERVER.fullmatch(values.get("IP", "")):
        attributes["server"] = f"{match[1]}:{match[2]}"
    if _INTERVALS.fullmatch(values.get("UT", "")):
        attributes["intervals_s"] = [int(seconds) for seconds in values["UT"].split(",")]
    if match := _VOLTS.fullmatch(values.get("VOLT", "")):
        attributes["supply_v"] = float(match[1])
    if raw := battery(values.get("BAT", "")):
        attributes["battery_raw"] = raw
    if apn := values.get("APN", ""):
        attributes["apn"] = apn
    if match := _GPS.fullmatch(values.get("GPS", "")):
        satellites = int(match[2])
        if satellites in SATELLITES:
            attributes["satellites"] = satellites
    csq = number(values.get("GSM", ""), 31)
    if csq is not None and csq in CSQ:
        attributes["csq"] = csq
    if ICCID.fullmatch(values.get("ICCID", "")):
        attributes["iccid"] = iccid(values["ICCID"])
    return attributes


def _firmware(head: str, attributes: dict[str, Any]) -> None:
    """Model and version as one word, and the date on which it was built."""
    match = _FIRMWARE.match(head)
    if match is None:
        return
    attributes["firmware"] = match[1]
    if match[2]:
        try:
            attributes["firmware_date"] = date(int(match[2]), int(match[3]), int(match[4])).isoformat()
        except ValueError:
            pass
