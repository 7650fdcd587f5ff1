"""
What a message means of the very unit that says it: what is set for it, and what its reports showed of it.

The decoder reads a frame before anything is known of its unit; this is what
follows once that is there.  What is found out is published once, as
C{device.quality} with the setting that settles it, and kept with the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway import quality
from gateway.devices.st907 import status
from gateway.devices.st907.settings import Options, Settings, of_family, settings
from gateway.fields import rfc3339
from gateway.interfaces import Kept, Message
from gateway.quality import Finding

#: A report that came again so often, its unit does not take the answers that it gets.
RESENDS: Final = 2
#: Bits of alarms that were there in every report for so long, and in so many, are constants of the unit.
CONSTANT_S: Final = 86_400.0
CONSTANT_REPORTS: Final = 20
#: Battery figures that say index all that time say index.
INDEX_S: Final = 86_400.0
INDEX_REPORTS: Final = 20

#: Percent by index, as Traccar reads them (C{decodeBattery}).
_INDEX_PCT: Final = {1: 0, 2: 10, 3: 20, 4: 60, 5: 80, 6: 100}


class Unit:
    """
    What follows from a unit's registry and from what it has learned of it.

    @ivar answered: when its last report was acknowledged, UTC epoch seconds.
    """

    __slots__ = ("answered", "settings")

    def __init__(self, found: Settings) -> None:
        self.settings = found
        self.answered = 0.0


def unit(options: Options, kept: Mapping[str, Any]) -> Unit:
    """What holds for the unit with which this is kept; at hand until its registry changes."""
    own = getattr(kept, "own", None)
    if type(own) is Unit:
        return own
    registry = getattr(kept, "registry", None)
    found = Unit(settings(options, registry) if registry else of_family(options))
    if isinstance(kept, Kept):
        kept.own = found
    return found


def policy(found: Unit, kept: Mapping[str, Any]) -> str:
    """Which acknowledgements a unit gets: what is set, or R12 for one that sends again what was answered otherwise."""
    if getattr(kept, "resends", 0) >= RESENDS or "r12" in kept:
        return found.settings.reply if found.settings.reply in ("none", "both") else "r12"
    return found.settings.reply


def learn(message: Message, options: Options, kept: Kept, now: float) -> Message:
    """See L{gateway.interfaces.ILearningDevice.learn}."""
    if not message.events:
        return message
    held = unit(options, kept).settings
    event = message.events[0]
    attributes, levels, time, same = event.attributes, message.levels, event.time, message.same
    more: list[Finding] = []
    if not kept.again:
        _set(held, kept, more)
    if kept.resends >= RESENDS and held.reply == "v4":
        _resent(kept, more)
    if held.time_offset_s and time is not None:
        time = _corrected(attributes, time, held.time_offset_s)
        same = None  # the short way takes the times of reports as they come
    word = attributes.get("status_word")
    if word is not None:
        levels = _worded(attributes, int(word, 16), held, of_family(options), kept, now, levels, more)
        if "stuck" in kept and not kept["stuck"][3]:
            same = None  # each of them counts until that is settled
    # from here on: whether it shows something of the unit as it is now
    fresh = "late" not in attributes and not kept.again
    if time is not None and fresh and not held.time_offset_s:
        more += _one(quality.clock(kept, time, now))
    same = _placed(attributes, held, kept, more, same)
    if "ignition" in levels:
        levels, same = _ignition(attributes, levels, held, kept, time, fresh, more, same)
    if "battery_raw" in attributes and "battery_pct" not in attributes:
        _battery(attributes, held, kept, now, more)
    events = [event if time == event.time else event._replace(time=time), *(finding.event(time) for finding in more)]
    if "iccid" in attributes and fresh:
        events += _one(quality.sim(kept, attributes["iccid"], time))
    return message._replace(events=events, levels=levels, same=same)


def _set(held: Settings, kept: Kept, more: list[Finding]) -> None:
    """What is set and can't be used is published once: C{kept["faults"]}."""
    reason = "; ".join(held.faults)
    if reason == kept.get("faults", ""):
        return
    if not reason:
        del kept["faults"]
        return
    kept["faults"] = reason
    more.append(Finding("registry", f"what is set can't be used: {reason}", "", {}))


def _resent(kept: Kept, more: list[Finding]) -> None:
    """A unit that sends again what was acknowledged: C{kept["r12"]} is whether that was published."""
    if kept.get("r12"):
        return
    kept["r12"] = not kept.again
    if not kept.again:
        reason = "it sends again what was acknowledged with V4: it gets R12 from now on"
        more.append(Finding("resends", reason, "reply=r12", {"copies": kept.resends}))


def _one(thing: Any) -> list[Any]:
    return [] if thing is None else [thing]


def _corrected(attributes: dict[str, Any], time: float, offset_s: int) -> float:
    """The time of a clock that is so far ahead of UTC."""
    attributes["device_time"] = rfc3339(time) if time >= 0 else None
    attributes["time_source"] = "device-corrected"
    attributes["time_correction_s"] = -offset_s
    return time - offset_s


def _placed(attributes: dict[str, Any], held: Settings, kept: Kept, more: list[Finding], same: object) -> object:
    """Put a position on the side of the globe that is set; else see whether it is on the side of its network."""
    if held.hemisphere:
        for name, negative, positive in (("latitude", "S", "N"), ("longitude", "W", "E")):
            for key in (name, f"last_{name}"):
                if key in attributes and (negative in held.hemisphere or positive in held.hemisphere):
                    sign = -1.0 if negative in held.hemisphere else 1.0
                    attributes[key] = sign * abs(attributes[key])
        return None  # the short way takes the places of reports as they come
    # a binary frame has flags of its own, which no firmware is known to set wrong
    if kept.again or attributes.get("message_type") in ("$", "X"):
        return same
    if "latitude" in attributes and "mcc" in attributes:
        before = kept.get("hemisphere")
        more += _one(quality.hemisphere(kept, attributes["mcc"], attributes["latitude"], attributes["longitude"]))
        if kept.get("hemisphere") not in (before, "told"):
            return None  # each counts until there are enough
    return same


def _worded(
    attributes: dict[str, Any],
    word: int,
    held: Settings,
    family: Settings,
    kept: Kept,
    now: float,
    levels: Mapping[str, bool],
    more: list[Finding],
) -> Mapping[str, bool]:
    """The levels of a status word, with what is set of its bits, and without those that are constants of the unit."""
    stuck = _constants(word, held, kept, now, more)
    if stuck:
        calm = word | stuck
        attributes["external_power"] = status.external_power(calm)
        if stuck & status.DELAYED:
            attributes.pop("late", None)
        word = calm
    elif held.bits is family.bits:
        return levels  # as they were read
    return status.levels(word, bool(attributes.get("valid")), held.bits)


def _constants(word: int, held: Settings, kept: Kept, now: float, more: list[Finding]) -> int:
    """
    The bits that are constants of this unit: there from the first report on, and never seen gone.

    C{kept["stuck"]}: the bits that may be, since when, in how many reports, and
    whether that is settled.  Only of a unit that is new: what comes on later is news.
    Since when is by our clock: a unit's own may be years behind in its first reports.
    """
    entry = kept.get("stuck")
    if entry is None:
        if kept.new:
            bits = ~word & (held.bits.alarms | status.DELAYED)
            if bits:
                kept["stuck"] = [bits, now, 1, 0]
        return 0
    bits, since, count, settled = entry
    left = int(bits & ~word)
    if kept.again:
        return left if settled else 0
    if not left:
        del kept["stuck"]
        return 0
    if settled:
        if left != bits:
            kept["stuck"] = [left, since, count, 1]
        return left
    if count + 1 >= CONSTANT_REPORTS and now - since >= CONSTANT_S:
        kept["stuck"] = [left, since, count + 1, 1]
        names = [f"bit {number}: {bit.meaning}" for number, bit in enumerate(status.BITS) if left & 1 << number]
        reason = f"in each of its reports, so no alarm: {'; '.join(names)}"
        evidence = {"reports": count + 1, "seconds": round(now - since), "bits": _numbers(left)}
        more.append(Finding("constant", reason, "", evidence))
        return left
    kept["stuck"] = [left, since, min(count + 1, CONSTANT_REPORTS), 0]
    return 0


def _numbers(bits: int) -> list[int]:
    return [number for number in range(32) if bits & 1 << number]


def _ignition(
    attributes: dict[str, Any],
    levels: Mapping[str, bool],
    held: Settings,
    kept: Kept,
    time: float | None,
    fresh: bool,
    more: list[Finding],
    same: object,
) -> tuple[Mapping[str, bool], object]:
    """Levels without the ignition where its wire is not connected; the bit is shown by its own name then."""
    on = levels["ignition"]
    if not held.acc_wired and fresh:
        before = kept.get("acc")
        more += _one(quality.wiring(kept, on, attributes.get("speed_kmh"), time))
        if kept.get("acc") is not before and kept.get("acc") not in ("wired", "unwired"):
            same = None  # each of them counts until there are enough
    if held.acc_wired == "0" or (not held.acc_wired and kept.get("acc") == "unwired"):
        attributes["ignition_bit"] = on
        return {name: is_on for name, is_on in levels.items() if name != "ignition"}, same
    return levels, same


def _battery(attributes: dict[str, Any], held: Settings, kept: Kept, now: float, more: list[Finding]) -> None:
    """
    The battery in percent, once it is known what the figure is.

    C{kept["battery"]} is what was found out, or since when there were only
    figures that may be an index, and how many.
    """
    raw = attributes["battery_raw"]
    marked = 0xF1 <= raw <= 0xF6
    if marked:
        raw -= 0xF0  # the same index with a mark, probably: Traccar takes F1 to F6 for 1 to 6
    if not 1 <= raw <= 100:
        return
    known = held.battery or kept.get("battery")
    if not isinstance(known, str):
        known = "" if kept.again else _unit_of(raw, kept, now, more)
    if known == "percent" and not marked:
        attributes["battery_pct"] = raw
    elif known == "index" and raw in _INDEX_PCT:
        attributes["battery_pct"] = _INDEX_PCT[raw]


def _unit_of(raw: int, kept: Kept, now: float, more: list[Finding]) -> str:
    """What a battery figure is: above 6 percent at once, else an index when a day brings nothing higher."""
    since, count = kept.get("battery", (now, 0))
    if raw > 6:
        kept["battery"] = "percent"
        reason = f"the battery figure {raw} is more than an index can be: percent"
        more.append(Finding("battery", reason, "battery=percent", {"battery_raw": raw}))
        return "percent"
    if count + 1 >= INDEX_REPORTS and now - since >= INDEX_S:
        kept["battery"] = "index"
        reason = "for a day no battery figure was above 6: an index of 1 to 6"
        evidence = {"reports": count + 1, "seconds": round(now - since), "battery_raw": raw}
        more.append(Finding("battery", reason, "battery=index", evidence))
        return "index"
    kept["battery"] = [since, min(count + 1, INDEX_REPORTS)]
    return ""
