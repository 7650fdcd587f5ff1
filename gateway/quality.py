"""
What the data of a unit show of the unit itself: its wiring, its clock, its hemisphere, its SIM card.

Each function takes one report's figures and what is kept of the unit, and
gives a L{Finding} once there is enough evidence; it corrects nothing.  What it
needs until then is kept in a few numbers.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final, NamedTuple

from gateway import countries
from gateway.events import Event

Kept = MutableMapping[str, Any]

#: Faster than that, and a car's engine is on.
MOVING_KMH: Final = 20.0
#: So many reports, over so long a drive, with the ignition off: its wire is not connected.
DRIVE_REPORTS: Final = 10
DRIVE_S: Final = 180.0
#: What lies between two reports of a drive, at most; a longer gap counts as this, and what comes sooner for nothing.
DRIVE_GAP_S: Final = 60.0
DRIVE_STEP_S: Final = 1.0

#: Zones are multiples of a quarter of an hour, up to 14 hours; a clock in one is off by that, and by some seconds.
QUARTER_S: Final = 900
FURTHEST_S: Final = 14 * 3600
CLOCK_SLACK_S: Final = 30.0
CLOCK_REPORTS: Final = 10
CLOCK_SPAN_S: Final = 60.0
#: A clock goes as fast as ours, but for what the network takes; stored records come faster than they were made.
CLOCK_DRIFT_S: Final = 5.0

#: So many fixes in a row on the wrong side of the globe.
HEMISPHERE_REPORTS: Final = 10
#: Nearer to the equator or to the meridian than that, a cell across the border proves nothing; degrees.
NEAR: Final = 1.0


class Finding(NamedTuple):
    """
    Something that was found out of a unit.

    @ivar name: what it is about.
    @ivar reason: in words.
    @ivar setting: the registry's field and value that settle it, C{acc_wired=0}; empty: nothing to set.
    @ivar evidence: the figures.
    """

    name: str
    reason: str
    setting: str
    evidence: dict[str, Any]

    def event(self, time: float | None) -> Event:
        """As an event of the report that completed the evidence."""
        attributes = {"name": self.name, "reason": self.reason, "setting": self.setting, "evidence": self.evidence}
        return Event("device.quality", time, attributes)


def wiring(kept: Kept, ignition: bool, speed_kmh: float | None, time: float | None) -> Finding | None:
    """
    Whether the ACC wire is connected, of a report that is not late.

    C{kept["acc"]} is C{wired} once the ignition was on, C{unwired} once a drive
    was seen without it; until then what there was of a drive: reports,
    seconds, and the time of the last one.

    @param ignition: what the wire says.
    @param speed_kmh: of a valid fix.
    """
    known = kept.get("acc")
    if ignition:
        if known == "wired":
            return None
        kept["acc"] = "wired"
        if known != "unwired":
            return None
        return Finding("acc_wiring", "the ignition was seen on: the ACC wire is connected", "acc_wired=1", {})
    if isinstance(known, str) or speed_kmh is None or time is None or speed_kmh <= MOVING_KMH:
        return None
    reports, seconds, last = known or (0, 0.0, time)
    if known and time < last + DRIVE_STEP_S:
        return None
    reports, seconds = reports + 1, seconds + min(max(time - last, 0.0), DRIVE_GAP_S)
    if reports < DRIVE_REPORTS or seconds < DRIVE_S:
        kept["acc"] = [reports, seconds, time]
        return None
    kept["acc"] = "unwired"
    reason = f"driven for {seconds / 60:.0f} minutes with the ignition off, and never seen on: no ACC wire"
    return Finding("acc_wiring", reason, "acc_wired=0", {"reports": reports, "seconds": round(seconds)})


def clock(kept: Kept, time: float, now: float) -> Finding | None:
    """
    Whether a unit's clock is off by a time zone, of a report that its device does not call late.

    C{kept["clock"]} is, while the offset is the same: the offset, reports, when
    the first of them was received, the first and the last device time; C{told} is the
    offset that was reported.  Stored records come faster than they were made, so that
    their time goes at another pace than ours.

    @param time: the device's own.
    @param now: of receipt.
    """
    entry = kept.get("clock")
    if entry is None and abs(time - now) < QUARTER_S / 2:
        return None  # nearly all
    offset = round((time - now) / QUARTER_S) * QUARTER_S
    if not offset or abs(offset) > FURTHEST_S or abs(time - now - offset) > CLOCK_SLACK_S:
        if entry and entry.get("n"):
            told = entry.get("told")
            if told is None:
                del kept["clock"]
            else:
                kept["clock"] = {"told": told}
        return None
    if entry is None:
        entry = {}
    if entry.get("told") == offset:
        return None
    if entry.get("offset") != offset or not entry.get("n"):
        kept["clock"] = {**entry, "offset": offset, "n": 1, "since": now, "first": time, "last": time}
        return None
    if time <= entry["last"]:
        return None
    count, seconds = entry["n"] + 1, now - entry["since"]
    if abs(time - entry["first"] - seconds) > CLOCK_DRIFT_S:  # it goes at another pace than ours: a buffer that drains
        kept["clock"] = {**entry, "offset": offset, "n": 1, "since": now, "first": time, "last": time}
        return None
    if count < CLOCK_REPORTS or seconds < CLOCK_SPAN_S:
        kept["clock"] = {**entry, "n": count, "last": time}
        return None
    kept["clock"] = {"told": offset}
    side = "ahead of" if offset > 0 else "behind"
    reason = f"its clock is {abs(offset) / 3600:g} h {side} UTC: set to a time zone"
    evidence = {"offset_s": offset, "reports": count, "seconds": round(seconds)}
    return Finding("clock", reason, f"time_offset_s={offset}", evidence)


def hemisphere(kept: Kept, mcc: str, latitude: float, longitude: float) -> Finding | None:
    """
    Whether a unit's fixes lie on a side of the globe on which its mobile network's country does not.

    C{kept["hemisphere"]} counts such fixes in a row; C{told} once they were reported.

    @param mcc: of the serving cell.
    @param latitude: degrees, as the frame has it; so is C{longitude}.
    """
    entry = kept.get("hemisphere")
    if entry == "told":
        return None
    wrong = countries.other_side(mcc, latitude, longitude, NEAR)
    if not wrong:
        if entry is not None:
            del kept["hemisphere"]
        return None
    count = (entry or 0) + 1
    if count < HEMISPHERE_REPORTS:
        kept["hemisphere"] = count
        return None
    kept["hemisphere"] = "told"
    shown = {"latitude": round(latitude, 6), "longitude": round(longitude, 6), "mcc": mcc, "reports": count}
    reason = f"{count} fixes in a row lie where mobile country code {mcc} does not: that is {wrong}"
    return Finding("hemisphere", reason, f"hemisphere={wrong}", shown)


def sim(kept: Kept, iccid: str, time: float | None) -> Event | None:
    """The change of a SIM card, once the one before it is known: C{kept["iccid"]}."""
    before = kept.get("iccid")
    if before is not None and (iccid.startswith(before) or before.startswith(iccid)):
        # one card, of whose number some digits could not be read at times
        if len(iccid) > len(before):
            kept["iccid"] = iccid
        return None
    kept["iccid"] = iccid
    if before is None:
        return None
    return Event("device.sim.changed", time, {"iccid": iccid, "iccid_before": before})
