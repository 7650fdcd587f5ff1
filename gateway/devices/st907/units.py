"""
What a message means of the very unit that says it: what is set for it, and what its reports showed of it.

The decoder reads a frame before anything is known of its unit; this is what
follows once that is there.  What is found out is published once, as
C{device.quality} with the setting that settles it, and kept with the unit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final

from gateway import quality
from gateway.devices.st907 import status
from gateway.devices.st907.learning import battery, constants
from gateway.devices.st907.settings import Options, Settings, of_family, settings
from gateway.fields import rfc3339
from gateway.interfaces import Kept, Message
from gateway.quality import Finding

#: A report that came again so often, its unit does not take the answers that it gets.
RESENDS: Final = 2
#: The types of frames whose hemispheres are flags, and whose acknowledgement is R12 in any case.
BINARY: Final = ("$", "X")


#: What is kept of a unit and decides how its next reports are read, or whether they are to be seen.
_DECISIVE: Final = ("acc", "battery", "hemisphere", "stuck")


#: The maker's code of nearly all units, which is not kept, and what one looks like.
_USUAL_MAKER: Final = b"HQ"
_MAKER: Final = re.compile("[A-Za-z]{2}")


class Unit:
    """
    What follows from a unit's registry.

    @ivar answered: when its last report was acknowledged, UTC epoch seconds.
    @ivar plain: whether each of its reports gets V4, as long as it does not send again.
    """

    __slots__ = ("answered", "plain", "settings")

    def __init__(self, found: Settings, kept: Mapping[str, Any]) -> None:
        self.settings = found
        self.answered = 0.0
        self.plain = found.reply == "v4" and not found.reply_interval_s and (found.chosen or "r12" not in kept)


def unit(options: Options, kept: Mapping[str, Any]) -> Unit:
    """What holds for the unit with which this is kept; at hand until its registry changes."""
    own = getattr(kept, "own", None)
    if type(own) is Unit:
        return own
    _mend(kept)
    registry = getattr(kept, "registry", None)
    found = Unit(settings(options, registry) if registry else of_family(options), kept)
    if isinstance(kept, Kept):
        kept.own = found
    return found


def _mend(kept: Any) -> None:
    """Drop what is kept in a form that it never has: somebody else wrote it."""
    for name, sound in _SHAPES.items():
        if name in kept and not sound(kept[name]):
            del kept[name]


def _numbers(value: Any, size: int) -> bool:
    return isinstance(value, list) and len(value) == size and all(isinstance(one, (int, float)) for one in value)


def _clock(value: Any) -> bool:
    names = {"offset", "n", "since", "first", "last", "told"}
    if not isinstance(value, dict) or not value.keys() <= names:
        return False
    begun = not value.get("n") or {"offset", "since", "first", "last"} <= value.keys()
    return begun and all(isinstance(one, (int, float)) for one in value.values())


#: How each of the things that are kept of a unit looks.
_SHAPES: Final[dict[str, Callable[[Any], bool]]] = {
    "acc": lambda value: value in ("wired", "unwired") or _numbers(value, 3),
    "battery": lambda value: value in ("index", "percent") or _numbers(value, 2),
    "clock": _clock,
    "hemisphere": lambda value: value == "told" or isinstance(value, int),
    "stuck": lambda value: _numbers(value, 4) and isinstance(value[0], int),
    "maker": lambda value: isinstance(value, str) and _MAKER.fullmatch(value) is not None,
    "iccid": lambda value: isinstance(value, str),
    "faults": lambda value: isinstance(value, str),
}


def resends(kept: Mapping[str, Any]) -> bool:
    """Whether a unit was seen to send again what it had sent before, on the same connection."""
    return getattr(kept, "resends", 0) >= RESENDS or "r12" in kept


def policy(held: Settings, kept: Mapping[str, Any]) -> str:
    """Which acknowledgements a unit gets: what is set, or R12 for one that sends again and was not set otherwise."""
    if held.reply == "v4" and not held.chosen and resends(kept):
        return "r12"
    return held.reply


def learn(message: Message, options: Options, kept: Kept, now: float) -> Message:
    """See L{gateway.interfaces.ILearningDevice.learn}."""
    if not message.events:
        return message
    held = unit(options, kept).settings
    event = message.events[0]
    attributes, levels, time, same = event.attributes, message.levels, event.time, message.same
    if held.time_offset_s and time is not None:
        time = _corrected(attributes, time, held.time_offset_s)
        same = None  # the short way takes the times of reports as they come
    more: list[Finding] = []
    known = [kept.get(name) for name in _DECISIVE]
    word = attributes.get("status_word")
    if word is not None:
        levels = _worded(attributes, int(word, 16), held, of_family(options), kept, now, levels, more)
        if "stuck" in kept and not kept["stuck"][3]:
            same = None  # each counts until it is settled
    # what the device calls late, or has sent before, shows nothing of what is now
    live = "late" not in attributes and not kept.again
    if not kept.again:
        _made(message.raw, kept)
        _told(held, kept, more)
    if kept.resends >= RESENDS and attributes.get("message_type") not in BINARY:
        _resent(held, kept, more)
    if live and time is not None and not held.time_offset_s:
        more += _one(quality.clock(kept, time, now))
    same = _placed(attributes, held, kept, live, more, same)
    if "ignition" in levels:
        levels, same = _ignition(attributes, levels, held, kept, time, live, more, same)
    if "battery_raw" in attributes and "battery_pct" not in attributes:
        battery(attributes, held, kept, now, more)
    changed = _one(quality.sim(kept, attributes["iccid"], time)) if live and "iccid" in attributes else []
    plain = time == event.time and levels is message.levels and same is message.same and not more and not changed
    if plain and known == [kept.get(name) for name in _DECISIVE]:
        return message  # nearly all
    events = [event._replace(time=time), *(finding.event(time) for finding in more), *changed]
    return message._replace(events=events, levels=levels, same=same, alike=None)


def _made(raw: bytes, kept: Kept) -> None:
    """The maker's code that a unit's text frames have, which it looks for in commands: C{kept["maker"]}."""
    maker = raw[1:3]
    if raw[:1] != b"*" or (maker == _USUAL_MAKER and "maker" not in kept):
        return
    if maker == _USUAL_MAKER:
        del kept["maker"]
    else:
        kept["maker"] = maker.decode("latin-1")


def _told(held: Settings, kept: Kept, more: list[Finding]) -> None:
    """What is set and can't be used is published once: C{kept["faults"]}."""
    faults = "; ".join(held.faults)
    if faults == kept.get("faults", ""):
        return
    if not faults:
        del kept["faults"]
        return
    kept["faults"] = faults
    more.append(Finding("registry", f"what is set can't be used: {faults}", "", {}))


def _resent(held: Settings, kept: Kept, more: list[Finding]) -> None:
    """A unit that sends again what was stored: C{kept["r12"]} is whether that was published, which a copy can't."""
    if kept.get("r12"):
        return
    kept["r12"] = not kept.again
    kept.own = None  # what follows from it is worked out anew
    if not kept.again and policy(held, kept) != held.reply:
        reason = "it sends reports again that were stored: every report is answered with R12 from now on"
        more.append(Finding("resends", reason, "reply=r12", {"copies": kept.resends}))


def _one(thing: Any) -> list[Any]:
    return [] if thing is None else [thing]


def _corrected(attributes: dict[str, Any], time: float, offset_s: int) -> float:
    """The time of a clock that is so far ahead of UTC."""
    attributes["device_time"] = rfc3339(time) if time >= 0 else None
    attributes["time_source"] = "device-corrected"
    attributes["time_correction_s"] = -offset_s
    return time - offset_s


def _placed(
    attributes: dict[str, Any], held: Settings, kept: Kept, live: bool, more: list[Finding], same: object
) -> object:
    """Put a position on the side of the globe that is set; else see whether it is on the side of its network."""
    if held.hemisphere:
        for name, negative, positive in (("latitude", "S", "N"), ("longitude", "W", "E")):
            for key in (name, f"last_{name}"):
                if key in attributes and (negative in held.hemisphere or positive in held.hemisphere):
                    sign = -1.0 if negative in held.hemisphere else 1.0
                    attributes[key] = sign * abs(attributes[key])
        return None  # the short way takes the places of reports as they come
    # a binary frame has flags of its own, which no firmware is known to set wrong
    if live and "latitude" in attributes and "mcc" in attributes and attributes.get("message_type") not in BINARY:
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
    stuck = constants(word, held, kept, now, more)
    if stuck:
        calm = word | stuck
        attributes["external_power"] = status.external_power(calm)
        if stuck & status.DELAYED:
            attributes.pop("late", None)
        word = calm
    elif held.bits is family.bits:
        return levels  # as they were read
    return status.levels(word, bool(attributes.get("valid")), held.bits)


def _ignition(
    attributes: dict[str, Any],
    levels: Mapping[str, bool],
    held: Settings,
    kept: Kept,
    time: float | None,
    live: bool,
    more: list[Finding],
    same: object,
) -> tuple[Mapping[str, bool], object]:
    """Levels without the ignition where its wire is not connected; the bit is shown by its own name then."""
    on = levels["ignition"]
    kept.look_at = inf
    if live and not held.acc_wired:
        speed_kmh = attributes.get("speed_kmh")
        more += _one(quality.wiring(kept, on, speed_kmh, time))
        acc = kept.get("acc")
        if isinstance(acc, list) and not on and speed_kmh is not None and speed_kmh > quality.MOVING_KMH:
            kept.look_at = acc[2] + quality.DRIVE_STEP_S  # they count until there are enough
    if held.acc_wired == "0" or (not held.acc_wired and kept.get("acc") == "unwired"):
        attributes["ignition_bit"] = on
        return {name: is_on for name, is_on in levels.items() if name != "ignition"}, same
    return levels, same
