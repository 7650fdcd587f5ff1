"""
What an ST-907 says by SMS: positions, how it is set up, answers, and alarms.

One position text of the family is known to the letter, and one of a firmware
that is sold under the same labels; of alarms no text was ever published.  So
tokens are looked for wherever they stand, alarms go by patterns that can be
configured, and what can't be read is shown as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from gateway.devices.st907.texts import configuration, is_configuration
from gateway.events import STREAM_OF, Event
from gateway.interfaces import CommandAnswer, SMSReading

#: No more of a text is looked at, in characters.
LONGEST: Final = 1000
#: A receiver's count of weeks begins again after so many; firmware that is older than that shows them (st907.md, 6.3).
WEEKS: Final = (0, 1024, 2048)
WEEK_S: Final = 7 * 86_400
#: Times are local (896 sets the zone): zones are multiples of this, and within so many seconds of UTC.
ZONE_S: Final = 1800
ZONE_MOST_S: Final = 14 * 3600
#: A text that says "now" was made so long ago at most; and its clock may be a little ahead.
DELAY_S: Final = 600
AHEAD_S: Final = 60
#: Steps of C{BAT}, percent.
BATTERY_STEP: Final = 20

_FLAGS: Final = re.IGNORECASE | re.ASCII
#: What is known, each with the figure in it; found tokens are no part of what an alarm says.
_LINK: Final = re.compile(r"https?://\S*?[?&]q=(\S*)", _FLAGS)
_SIGNED: Final = re.compile(r"([+-]?\d{1,2}\.\d+)[,;]\s*([+-]?\d{1,3}\.\d+)", re.ASCII)
_LETTERED: Final = re.compile(r"([NS])\s*(\d{1,2}\.\d+)[,; ]+([EW])\s*(\d{1,3}\.\d+)", _FLAGS)
_NAMED: Final = re.compile(
    r"\blat(?:itude)?\s*[:=]\s*([NS]?)\s*([+-]?\d{1,2}\.\d+)[,;\s]+lon(?:g(?:itude)?)?\s*[:=]\s*([EW]?)\s*([+-]?\d{1,3}\.\d+)",
    _FLAGS,
)
_ID: Final = re.compile(r"\bID\s*[:=]\s*(\d{10,15})\b", _FLAGS)
_DATE: Final = re.compile(r"\bDate\s*[:=]\s*(\d{4})-(\d\d)-(\d\d)\b", _FLAGS)
_TIME: Final = re.compile(r"\bTime\s*[:=]\s*(\d\d):(\d\d):(\d\d)\b", _FLAGS)
_STAMP: Final = re.compile(r"\b(\d\d|\d{4})-(\d\d)-(\d\d)\s+(\d\d):(\d\d):(\d\d)\b")
_FIX: Final = re.compile(r"\b(?:FIX|GPS)\s*[:=]\s*([AV])\b", _FLAGS)
_SPEED: Final = re.compile(r"\bSpeed\s*[:=]\s*(\d{1,3}(?:\.\d{1,3})?)\s*KM/?H\b", _FLAGS)
_BATTERY: Final = re.compile(r"\bBAT\s*[:=]\s*(\d{1,3})\b%?", _FLAGS)
_ACC: Final = re.compile(r"\bACC\s*[:=]\s*(ON|OFF)\b", _FLAGS)
_POWER: Final = re.compile(r"\bPower\s*[:=]\s*(ON|OFF)\b", _FLAGS)
_OTHER: Final = re.compile(r"\b(?:Power|door|GSM|ICCID)\s*[:=]\s*\S+", _FLAGS)
_TOKENS: Final = (_LINK, _NAMED, _ID, _DATE, _TIME, _STAMP, _FIX, _SPEED, _BATTERY, _ACC, _POWER, _OTHER)

#: Answers: to whatever was told, and what they mean.  The Chinese one is "wrong command format" (TEN's README).
_YES: Final = re.compile(r"\s*(?:TIME ZONE )?(?:SET |admin |apn |speed |begin |password )?OK\b", _FLAGS)
_NO: Final = re.compile(
    r"\s*(?:SET )?(?:ERROR|FAIL(?:ED|URE)?|WRONG|INVALID|password (?:error|wrong|err))\b|指令格式错误", _FLAGS
)
_NUMBERS: Final = re.compile(r"\s*101#")

#: Alarms by what their text says, the first that fits counts: words that are likely, and the Chinese one that is known
#: ("main power lost", TEN's README).
ALARMS: Final[Mapping[str, str]] = {
    "sos": r"\bsos\b|\bhelp\b",
    "geofence.exit": r"\b(?:out|exit|leav\w*|left)\b.*\b(?:fence|area|zone)"
    r"|\b(?:fence|area|zone)\b.*\b(?:out|exit|leav\w*)",
    "geofence.enter": r"\b(?:in|into|enter\w*|entry)\b.*\b(?:fence|area|zone)"
    r"|\b(?:fence|area|zone)\b.*\b(?:in|enter\w*|entry)",
    "overspeed": r"over ?speed|speed",
    "battery.low": r"low\W{0,3}\w{0,12}\W{0,3}batt|batt\w*.{0,16}low",
    "power.cut": r"power.{0,16}(?:cut|off|lost|loss|fail|low|disconnect)|(?:cut|lost|loss of).{0,16}power|掉主电|断电",
    "vibration": r"shock|vibrat|\bmove",
    "door": r"\bdoor\b",
    "acc": r"\bacc\b|ignition",
}


@lru_cache(maxsize=64)
def patterns(own: tuple[tuple[str, str], ...]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """
    Alarms and what is looked for: an operator's own, and those that are likely behind them.

    @raise ValueError: for one that is none.
    """
    found = []
    for name, text in (*own, *ALARMS.items()):
        try:
            found.append((name, re.compile(text, re.IGNORECASE | re.DOTALL)))
        except re.error as error:
            raise ValueError(f"{name!r}: {text[:64]!r} is no regular expression: {error}") from error
        if not re.fullmatch(r"[a-z][a-z0-9_.]{0,31}", name):
            raise ValueError(f"{name[:32]!r} is no name of an alarm: lower-case letters, digits, '.' and '_'")
    return tuple(found)


def read(text: str, own: tuple[tuple[str, str], ...], now: float) -> SMSReading:
    """
    See L{gateway.interfaces.ISMSDevice.read_sms}.

    @param own: an operator's patterns of alarms.
    """
    text = text[:LONGEST]
    ident = match[1] if (match := _ID.search(text)) else None
    if is_configuration(text):
        attributes = {**configuration(text), "raw_text": text, "message_type": "SMS"}
        return SMSReading("configuration", ident, (Event("status", None, attributes),), CommandAnswer("RCONF"))
    if _NO.match(text):
        return SMSReading("answer", ident, answer=CommandAnswer("", accepted=False))
    if _YES.match(text):
        return SMSReading("answer", ident, answer=CommandAnswer("", accepted=True))
    if _NUMBERS.match(text):
        return SMSReading("answer", ident, answer=CommandAnswer("C10", accepted=True))
    report = _report(text, now)
    rest = text
    for token in _TOKENS:
        rest = token.sub(" ", rest)
    alarm = _alarm(rest, own)
    if alarm is not None:
        events = (alarm,) if report is None else (report, alarm)
        return SMSReading("alarm", ident, events)
    if report is not None:
        return SMSReading("position", ident, (report,), CommandAnswer("669", accepted=True))
    return SMSReading("unmatched", ident)


def _alarm(text: str, own: tuple[tuple[str, str], ...]) -> Event | None:
    for name, pattern in patterns(own):
        if pattern.search(text):
            kind = f"alarm.{name}"
            if kind in STREAM_OF and name != "other":
                return Event(kind, None, {})
            return Event("alarm.other", None, {"name": f"st907.{name}"})
    return None


def _report(text: str, now: float) -> Event | None:
    """A position or status, of a text with something of one; None: there is nothing."""
    attributes: dict[str, Any] = {}
    place = _place(text)
    fix = match[1].upper() if (match := _FIX.search(text)) else ""
    if place is None and not (fix and _ID.search(text)):
        return None
    valid = place is not None and fix == "A"  # of one that does not say so nothing is known
    attributes["valid"] = valid
    if place is not None:
        latitude, longitude = ("latitude", "longitude") if valid else ("last_latitude", "last_longitude")
        attributes |= {latitude: place[0], longitude: place[1]}
    if valid and (match := _SPEED.search(text)):
        attributes["speed_kmh"] = float(match[1])
    if match := _ACC.search(text):
        attributes["ignition"] = match[1].upper() == "ON"
    if match := _POWER.search(text):
        attributes["external_power"] = match[1].upper() == "ON"
    if (match := _BATTERY.search(text)) and 1 <= (step := int(match[1])) <= 100 // BATTERY_STEP:
        attributes |= {"battery_raw": step, "battery_pct": step * BATTERY_STEP}
    attributes["message_type"] = "SMS"
    time, said = _moment(text, now)
    if time is None and said:
        attributes["device_time"] = said
    return Event("position", time, attributes)


def _place(text: str) -> tuple[float, float] | None:
    """Degrees, where a text has some that can be."""
    link = _LINK.search(text)
    within = link[1] if link else text
    if (match := _LETTERED.search(within)) or (match := _NAMED.search(text)):
        found = _degrees(match[1], match[2]), _degrees(match[3], match[4])
    elif link and (match := _SIGNED.match(within)):
        found = float(match[1]), float(match[2])
    else:
        return None
    latitude, longitude = found
    if not (abs(latitude) <= 90 and abs(longitude) <= 180) or found == (0.0, 0.0):
        return None
    return found


def _degrees(letter: str, figure: str) -> float:
    return -float(figure) if letter.upper() in ("S", "W") and letter else float(figure)


def _moment(text: str, now: float) -> tuple[float | None, str]:
    """
    When a text says that it was, UTC epoch seconds, and its own words for it.

    Its time is local, and nobody says of which zone; but it is made when it is sent.  So the zone follows, if there is
    one in which it is of the last minutes; else nothing does.
    """
    if (date := _DATE.search(text)) and (time := _TIME.search(text)):
        year, *figures = date[1], date[2], date[3], time[1], time[2], time[3]
    elif stamp := _STAMP.search(text):
        year, *figures = stamp.groups()
        year = year if len(year) == 4 else f"20{year}"
    else:
        return None, ""
    said = f"{year}-{figures[0]}-{figures[1]}T{figures[2]}:{figures[3]}:{figures[4]}"
    try:
        local = datetime.fromisoformat(said).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None, said
    for weeks in WEEKS:
        ahead = local + weeks * WEEK_S - now
        if abs(ahead) <= ZONE_MOST_S + DELAY_S:
            zone = ZONE_S * ((ahead + DELAY_S) // ZONE_S)
            if -DELAY_S <= ahead - zone <= AHEAD_S:
                return now + ahead - zone, said
    return None, said
