"""
What the status words and battery figures of a unit show of it: bits that are constants, and what its figure is.

Both take many reports over a day, counted by when they were received: a
parked unit's own clock may stand still.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.devices.st907 import status
from gateway.devices.st907.settings import Settings
from gateway.interfaces import Kept
from gateway.quality import Finding

#: Bits of alarms that were there in every report for so long, and in so many, are constants of the unit.
CONSTANT_S: Final = 86_400.0
CONSTANT_REPORTS: Final = 20
#: Messages whose figure is none of the two: V3 has its own, X frames a temperature in its place, texts five steps.
_OTHER_FIGURES: Final = ("V3", "X", "SMS")
#: Battery figures that say index all that time say index.
INDEX_S: Final = 86_400.0
INDEX_REPORTS: Final = 20

#: Percent by index, as Traccar reads them (C{decodeBattery}).
INDEX_PCT: Final = {1: 0, 2: 10, 3: 20, 4: 60, 5: 80, 6: 100}


def constants(word: int, held: Settings, kept: Kept, now: float, more: list[Finding]) -> int:
    """
    The bits that are constants of this unit: there from the first report on, and never seen gone.

    C{kept["stuck"]}: the bits that may be, since when they were received so, in
    how many reports, and whether that is settled.  Only of a unit that is new:
    what comes on later is news.
    """
    entry = kept.get("stuck")
    if entry is None:
        bits = ~word & (held.bits.alarms | status.DELAYED)
        if kept.new and bits:
            kept["stuck"] = [bits, now, 1, False]
        return 0
    bits, since, count, settled = entry
    left = bits & ~word
    if kept.again:
        return int(left) if settled else 0
    if not left:
        del kept["stuck"]
        return 0
    if not settled:
        count += 1
        settled = count >= CONSTANT_REPORTS and now - since >= CONSTANT_S
        if settled:
            names = [f"bit {number}: {bit.meaning}" for number, bit in enumerate(status.BITS) if left & 1 << number]
            reason = f"in each of its reports, so no alarm: {'; '.join(names)}"
            evidence = {"reports": count, "seconds": round(now - since), "bits": _numbers(left)}
            more.append(Finding("constant", reason, "", evidence))
    if [left, since, count, settled] != entry:
        kept["stuck"] = [left, since, count, settled]
    return int(left) if settled else 0


def _numbers(bits: int) -> list[int]:
    return [number for number in range(32) if bits & 1 << number]


def battery(attributes: dict[str, Any], held: Settings, kept: Kept, now: float, more: list[Finding]) -> None:
    """
    The battery in percent, once it is known what the figure is.

    C{kept["battery"]} is what was found out, or since when only figures were
    received that may be an index, and how many.
    """
    raw = attributes["battery_raw"]
    marked = 0xF1 <= raw <= 0xF6
    if marked:
        raw -= 0xF0  # the same index with a mark, probably: Traccar takes F1 to F6 for 1 to 6
    if not 1 <= raw <= 100 or attributes.get("message_type") in _OTHER_FIGURES:
        return
    known = held.battery or kept.get("battery")
    if not isinstance(known, str) or (known == "index" and raw > 6 and not held.battery):
        known = "" if kept.again else _unit_of(raw, kept, now, more)
    if known == "percent" and not marked:
        attributes["battery_pct"] = raw
    elif known == "index" and raw in INDEX_PCT:
        attributes["battery_pct"] = INDEX_PCT[raw]


def _unit_of(raw: int, kept: Kept, now: float, more: list[Finding]) -> str:
    """What a battery figure is: above 6 percent at once, else an index when a day brings nothing higher."""
    before = kept.get("battery", (now, 0))
    since, count = (now, 0) if isinstance(before, str) else before
    count += 1
    if raw > 6:
        kept["battery"] = "percent"
        reason = f"the battery figure {raw} is more than an index can be: percent"
        more.append(Finding("battery", reason, "battery=percent", {"battery_raw": raw}))
        return "percent"
    if count >= INDEX_REPORTS and now - since >= INDEX_S:
        kept["battery"] = "index"
        reason = "for a day no battery figure was above 6: an index of 1 to 6"
        evidence = {"reports": count, "seconds": round(now - since), "battery_raw": raw}
        more.append(Finding("battery", reason, "battery=index", evidence))
        return "index"
    kept["battery"] = [since, count]
    return ""
