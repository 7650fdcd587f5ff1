"""All devices with their last state: who moves, who is silent, who has an alarm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from gateway.fields import epoch
from gateway.identity import disabled
from gateway.places import keys
from gateway.sinks.blocking import BlockingRedis

#: So many are listed at most: those that were heard last.
MOST: Final = 200_000
#: So many are read at once.
CHUNK: Final = 500
#: A device that was not heard for so long is silent, s; and one that is faster than this moves, km/h.
SILENT_S: Final = 900.0
MOVES_KMH: Final = 5.0

#: What is read of C{gateway:last:<ident>}, and of the registry.
_LAST: Final = (
    *("seen", "time", "latitude", "longitude", "speed_kmh", "course_deg", "valid", "ignition", "immobilizer"),
    *("external_power", "battery_pct", "levels", "transport", "protocol", "peer", "late", "online"),
    *("fix_time", "fix_latitude", "fix_longitude", "received"),
)
_REGISTRY: Final = ("device_id", "alias", "tags", "enabled")

STATES: Final = ("alarm", "moving", "standing", "nofix", "silent", "never", "disabled")


class Device(NamedTuple):
    """
    One device, as it was last known; None: not known.

    @ivar state: one of L{STATES}: C{never}: registered, and not heard yet.
    @ivar seen: when it was heard; C{time}: of its last report; C{fix_time}: of its last fix: UTC epoch ms.
    @ivar latitude: of its last fix, degrees, as C{longitude}.
    @ivar late: whether its last report was late.
    """

    ident: str
    device_id: str | None
    alias: str | None
    tags: str | None
    state: str
    online: bool
    seen: int | None
    time: int | None
    fix_time: int | None
    latitude: float | None
    longitude: float | None
    speed_kmh: float | None
    course_deg: int | None
    valid: bool | None
    ignition: bool | None
    immobilizer: bool | None
    external_power: bool | None
    battery_pct: float | None
    levels: Sequence[str]
    transport: str | None
    protocol: str | None
    peer: str | None
    registered: bool
    late: str | None

    @classmethod
    def of(
        cls, ident: str, last: Mapping[str, str], registry: Mapping[str, str] | None, score: float | None, now: float
    ) -> Device:
        """
        By what stands in Redis.

        @param registry: None: it is not registered.
        @param score: when it was seen, to the minute, UTC epoch ms.
        """
        said = registry or {}
        seen = ms(last.get("seen")) or (int(score) if score is not None else None)
        fixed = bool(last.get("latitude"))
        prefix = "" if fixed else "fix_"
        levels = [name for name in last.get("levels", "").split(",") if name]
        speed = number(last.get("speed_kmh"))
        if disabled(said):
            state = "disabled"
        elif seen is None:
            state = "never"
        elif now * 1000 - seen >= SILENT_S * 1000:
            state = "silent"
        elif levels:
            state = "alarm"
        elif not fixed:
            state = "nofix"
        else:
            state = "moving" if (speed or 0.0) > MOVES_KMH else "standing"
        course = number(last.get("course_deg"))
        return cls(
            ident,
            said.get("device_id") or None,
            said.get("alias") or None,
            said.get("tags") or None,
            state,
            last.get("online") == "1" and state != "silent",
            seen,
            ms(last.get("time")),
            ms(last.get(f"{prefix}time")),
            number(last.get(f"{prefix}latitude")),
            number(last.get(f"{prefix}longitude")),
            speed,
            None if course is None else int(course),
            flag(last.get("valid")),
            flag(last.get("ignition")),
            flag(last.get("immobilizer")),
            flag(last.get("external_power")),
            number(last.get("battery_pct")),
            levels,
            last.get("transport") or None,
            last.get("protocol") or None,
            last.get("peer") or None,
            registry is not None,
            last.get("late") or None,
        )


def ms(text: str | None) -> int | None:
    """An RFC 3339 time as UTC epoch ms; None where there is none, or none of the years 1 to 9999."""
    at = epoch(text or "")
    return None if at is None else round(at * 1000)


def number(text: str | None) -> float | None:
    """A number of a column; None where there is none, or none that is finite."""
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def flag(text: str | None) -> bool | None:
    """A flag of a column."""
    return {"1": True, "0": False}.get(text or "")


def devices(client: BlockingRedis, prefix: str, now: float) -> list[Device]:
    """All devices that were heard or are registered, by ident; those that were heard last, where they are too many."""
    row = client.command("ZREVRANGE", f"{prefix}:seen", "0", str(MOST - 1), "WITHSCORES")
    scores = {ident.decode("utf-8", "replace"): float(score) for ident, score in zip(row[::2], row[1::2], strict=True)}
    registered = {ident for ident, _ in keys(client, f"{prefix}:registry:")} - {"changes"}
    idents = sorted(scores.keys() | registered)[: 2 * MOST]
    return list(_read(client, prefix, idents, registered, scores, now))


def some(client: BlockingRedis, prefix: str, idents: Iterable[str], now: float) -> list[Device]:
    """These devices, whether they are known or not."""
    idents = list(idents)
    row = client.pipeline([("ZSCORE", f"{prefix}:seen", ident) for ident in idents])
    there = client.pipeline([("EXISTS", f"{prefix}:registry:{ident}") for ident in idents])
    scores = {ident: float(score) for ident, score in zip(idents, row, strict=True) if isinstance(score, bytes)}
    registered = {ident for ident, found in zip(idents, there, strict=True) if found == 1}
    return list(_read(client, prefix, idents, registered, scores, now))


def _read(
    client: BlockingRedis,
    prefix: str,
    idents: Sequence[str],
    registered: set[str],
    scores: Mapping[str, float],
    now: float,
) -> Iterator[Device]:
    for at in range(0, len(idents), CHUNK):
        chunk = idents[at : at + CHUNK]
        there = [ident for ident in chunk if ident in registered]
        answers = client.pipeline(
            [("HMGET", f"{prefix}:last:{ident}", *_LAST) for ident in chunk]
            + [("HMGET", f"{prefix}:registry:{ident}", *_REGISTRY) for ident in there]
        )
        registry = {ident: _texts(_REGISTRY, row) for ident, row in zip(there, answers[len(chunk) :], strict=True)}
        for ident, row in zip(chunk, answers, strict=False):
            yield Device.of(ident, _texts(_LAST, row), registry.get(ident), scores.get(ident), now)


def _texts(names: Sequence[str], row: Any) -> dict[str, str]:
    if not isinstance(row, list):  # somebody else wrote a key of another type there
        return {}
    return {name: value.decode("utf-8", "replace") for name, value in zip(names, row, strict=True) if value is not None}
