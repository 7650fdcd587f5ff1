"""
What the next report of a device leads to, held against what is known of it.

Times are checked, lateness is stated, levels become edges.  Whether a report
is a duplicate is decided where it is stored; what is remembered here only
tells a parked device's repeats from the first copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from gateway.events import STATES, Event, event_digest
from gateway.fields import rfc3339
from gateway.interfaces import Message
from gateway.session import (
    DIGEST_BYTES,
    ENTRY_BYTES,
    FROZEN_GAP_S,
    RECENT,
    STAMP_BYTES,
    Envelope,
    Level,
    Session,
    shared,
)

#: A device time further ahead than this is refused.
FUTURE_S: Final = 300.0
ROLLOVER_WEEKS: Final = (1024, 2048)
WEEK_S: Final = 604_800
#: The last second that RFC 3339 can say; a time past it is none.
LATEST: Final = 253_402_300_799
#: How far back a corrected time may lie to be believed.
ROLLOVER_WINDOW_S: Final = 7 * 86_400
#: Coordinates are the same when they are published alike: 6 decimals.
SAME_PLACE: Final = 0.000_001
#: A cleared alarm is published after so long without it.
HOLD_OFF_S: Final = 60.0
#: A repeated frame is news again after so long.
REPEAT_S: Final = 60.0

#: How the digest of a report's id ends: see L{gateway.events.event_digest}.
_POSITION: Final = b"\0position\x000\0"
_KEPT: Final = (RECENT - 1) * ENTRY_BYTES


def remembered(session: Session, message: Message, protocol: str) -> bool:
    """Whether a message is a copy of one that is remembered."""
    if not message.events or message.events[0].time is None:
        return False  # its id holds when it was received
    return session.find(event_digest(session.ident, protocol, message.raw, message.events[0].type)) >= 0


def judge(session: Session, message: Message, protocol: str, now: float, lag_s: float) -> list[Envelope]:
    """
    What a message of a device leads to, in order: its events, then the edges of its levels.

    @param now: when it was received, UTC epoch seconds.
    @param lag_s: a report whose time is older than this is late.
    """
    ident = session.ident
    envelopes: list[Envelope] = []
    session.catch_up()
    session.count(now)
    if message.levels:
        session.memory.new = False
    session.copy = False
    # a good frame that says nothing else says that the device is alive
    for index, event in enumerate(message.events or (Event("status", None, {}),)):
        received = rfc3339(now) if event.time is None else None
        digest = event_digest(ident, protocol, message.raw, event.type, index, received)
        if index == 0:
            before = session.remember(digest, now)
            if before is not None:
                session.came_again(digest, before, now, _is_newest(session, event.time, now))
                if now - max(before, session.reconnected) >= REPEAT_S:
                    return [_repeat(session, message, event, protocol, digest, now)]
                session.copy = True
                # the store decides what becomes of it; no edge follows from a copy
                return [_dated(session, event, digest, message.levels, now, lag_s, copy=True)]
        envelopes.append(_dated(session, event, digest, message.levels, now, lag_s, copy=index > 0))
    if message.levels and envelopes:
        _edges(session, message, protocol, envelopes, now)
    return envelopes


def _is_newest(session: Session, time: float | None, now: float) -> bool:
    """Whether no time is known that is newer; one that was refused, or that is none, never becomes known."""
    if time is None or session.newest is None:
        return True
    return (_rolled(time, {}, now) if now - time > ROLLOVER_WINDOW_S else time) >= session.newest


def _dated(
    session: Session,
    event: Event,
    digest: bytes,
    levels: Mapping[str, bool],
    now: float,
    lag_s: float,
    copy: bool = False,
) -> Envelope:
    """
    Check an event's time against the clock and the device's own past, and add what its levels say.

    A device that says itself that its report is late is believed.
    """
    attributes = event.attributes
    time = event.time
    fixed: float | None = None
    if time is None or not 0 <= time <= LATEST:
        time = now
        _by_server(attributes)
    elif time > now + FUTURE_S:
        _by_server(attributes, time)
        time = now
        session.premature = True
    else:
        if now - time > ROLLOVER_WINDOW_S:
            time = _rolled(time, attributes, now)
        fixed = time
        newest = session.newest
        if newest is None or time > newest:
            session.newest = time
            session.newest_received = now
            if now - time > lag_s:
                attributes.setdefault("late", "lag")
        elif time < newest:
            attributes.setdefault("late", "order")
        elif (
            not copy
            and "late" not in attributes
            and (now - session.newest_received >= FROZEN_GAP_S or now - time <= ROLLOVER_WINDOW_S)
        ):
            attributes["clock"] = "frozen"
            _by_server(attributes, time)
            time = now
        elif now - time > lag_s:
            attributes.setdefault("late", "lag")
    if "latitude" in attributes and "late" not in attributes:
        session.fix = (attributes["latitude"], attributes["longitude"], time)
    elif "last_latitude" in attributes and session.fix is not None:
        latitude, longitude, when = session.fix
        last = attributes["last_latitude"], attributes["last_longitude"]
        if abs(last[0] - latitude) < SAME_PLACE and abs(last[1] - longitude) < SAME_PLACE:
            attributes["last_fix_time"] = rfc3339(when)
    if levels and not event.type.startswith("device."):
        _mark(attributes, levels)
    return Envelope(digest, event.type, time, fixed, attributes)


def _by_server(attributes: dict[str, Any], time: float | None = None) -> None:
    """The time is the server's; the device's own, if it has one, stands beside it, without what corrected it."""
    if time is not None:
        attributes.setdefault("device_time", rfc3339(time))  # a correction has put the device's own there
    attributes.pop("time_correction_s", None)
    attributes["time_source"] = "server"


def _mark(attributes: dict[str, Any], levels: Mapping[str, bool]) -> None:
    """What a report's levels say, as attributes: two have a column of their own, the others share one."""
    on: dict[str, None] = {}
    for name, is_on in levels.items():
        if name == "ignition" or name == "immobilizer":
            attributes[name] = is_on
        elif is_on:
            on[name.partition(":")[0]] = None
    if on:
        attributes["levels"] = list(on)


def _edges(session: Session, message: Message, protocol: str, envelopes: list[Envelope], now: float) -> None:
    """Hold a message's levels against the device's and append what changed."""
    report = envelopes[0]
    if "late" in report.attributes:
        _late_edges(session, message, protocol, envelopes, now)
        return
    session.late_on = None
    known, off = session.levels, session.off
    fresh: list[str] = []
    for name, on in message.levels.items():
        level = known.get(name)
        if level is None:
            if on:
                phase = "raised" if name in off else "active"
                level = known[name] = Level(report.time)
                level.seen = now
                level.raised_id = _place(session, message, protocol, envelopes, name, phase, {}, now)
                session.changed = True
            elif name not in off:
                fresh.append(name)
        elif on:
            if level.off_at is not None:  # it came back within the hold-off
                level.off_at = None
                session.changed = True
                session.same = None
            level.last_on, level.seen = report.time, now
        else:
            if level.off_at is None:
                level.off_at = report.time
                session.changed = True
                session.holding = True
                session.same = None
            if name in STATES or report.time - level.last_on >= HOLD_OFF_S:
                _place(session, message, protocol, envelopes, name, "cleared", _cleared(level), now)
                _end(session, name)
    if fresh:
        session.off = shared(session.off.union(fresh))
        session.changed = True


def _late_edges(session: Session, message: Message, protocol: str, envelopes: list[Envelope], now: float) -> None:
    """The alarms of a late report: published where a run of late reports raises them, the live state untouched."""
    late = envelopes[0].attributes["late"]
    session.same = None
    if session.late_on is None:
        session.late_on = set()
    for name, on in message.levels.items():
        if name in STATES:
            continue
        if not on:
            session.late_on.discard(name)
        elif name not in session.late_on:
            session.late_on.add(name)
            _place(session, message, protocol, envelopes, name, "raised", {"late": late}, now)


def _place(
    session: Session,
    message: Message,
    protocol: str,
    envelopes: list[Envelope],
    name: str,
    phase: str,
    more: dict[str, Any],
    now: float,
) -> str:
    """Append one edge with where it happened; its id."""
    report = envelopes[0]
    level = session.levels.get(name)
    since = report.time
    if level is not None and "late" not in more:
        since = level.since if level.off_at is None else level.off_at
    attributes = _edge(session, phase, since, report) | more
    if name in STATES:
        attributes[name] = phase != "cleared"
    kind = _type(name, protocol, attributes)
    received = rfc3339(now) if not message.events or message.events[0].time is None else None
    digest = event_digest(session.ident, protocol, message.raw, kind, len(envelopes), received)
    envelopes.append(Envelope(digest, kind, report.time, None, attributes))
    session.same = None
    return digest.hex()


def overdue(session: Session, now: float) -> list[Envelope]:
    """The alarms of a device whose hold-off ended without a further report, cleared."""
    envelopes: list[Envelope] = []
    session.catch_up()
    for name, level in list(session.levels.items()):
        if level.off_at is not None and now - level.seen >= HOLD_OFF_S:
            attributes = _edge(session, "cleared", level.off_at) | _cleared(level)
            kind = _type(name, session.protocol, attributes)
            # there is no frame: what it clears stands for one
            digest = event_digest(session.ident, session.protocol, level.raised_id.encode(), kind, 0, rfc3339(now))
            envelopes.append(Envelope(digest, kind, now, None, attributes))
            _end(session, name)
    session.holding = any(level.off_at is not None for level in session.levels.values())
    return envelopes


def _type(name: str, protocol: str, attributes: dict[str, Any]) -> str:
    """The type of a level's events; what stands behind a colon in its name tells alarms of one type apart."""
    if name in STATES:
        return f"state.{name}"
    kind, _, which = name.partition(":")
    if which:
        attributes["name"] = f"{protocol}.{which}"
    return f"alarm.{kind}"


def _edge(session: Session, phase: str, since: float, report: Envelope | None = None) -> dict[str, Any]:
    """What every alarm and state says: phase, since when, and where."""
    attributes: dict[str, Any] = {"phase": phase, "origin": "device", "since": rfc3339(since)}
    if report is not None:
        attributes["position_id"] = report.digest.hex()
        there = report.attributes
        if "latitude" in there:
            for key in ("latitude", "longitude", "speed_kmh", "valid"):
                if key in there:
                    attributes[key] = there[key]
            return attributes
        if "valid" in there:
            attributes["valid"] = there["valid"]
        if "last_latitude" in there:
            attributes["last_latitude"] = there["last_latitude"]
            attributes["last_longitude"] = there["last_longitude"]
            return attributes
    if session.fix is not None:
        attributes["last_latitude"], attributes["last_longitude"] = session.fix[0], session.fix[1]
        attributes["last_fix_time"] = rfc3339(session.fix[2])
    return attributes


def _cleared(level: Level) -> dict[str, Any]:
    off_at = level.last_on if level.off_at is None else level.off_at
    return {"raised_id": level.raised_id, "duration_s": round(off_at - level.since, 3)}


def _end(session: Session, name: str) -> None:
    del session.levels[name]
    session.off = shared(session.off | {name})
    session.changed = True


def _rolled(time: float, attributes: dict[str, Any], now: float) -> float:
    """A time that 1,024 or 2,048 weeks more bring near now, corrected; any other as it is."""
    for weeks in ROLLOVER_WEEKS:
        corrected = time + weeks * WEEK_S
        if now - ROLLOVER_WINDOW_S <= corrected <= now + FUTURE_S:
            attributes.setdefault("device_time", rfc3339(time))
            attributes["time_source"] = "device-corrected"
            attributes["time_correction_s"] = weeks * WEEK_S + attributes.get("time_correction_s", 0)
            return corrected
    return time


class Steady(NamedTuple):
    """
    A report that says what the one before it said, but for where and when, judged.

    @ivar digest: 16 bytes, its id.
    @ivar time: when it happened, UTC epoch seconds.
    @ivar device_ms: the device's own time, in ms.
    @ivar going: the device's clock goes; else it stands still.
    """

    digest: bytes
    time: float
    device_ms: int
    going: bool


def steady(
    session: Session, message: Message, peer: str, transport: str, received: float, lag_s: float
) -> Steady | None:
    """
    Judge a report that says what the one before it said, but for where and when: the way of nearly all.

    It leads to what L{judge} leads to, which a test holds it to, at a quarter of its time.

    @param message: one whose C{same} is the session's.
    @return: None when it has to go the long way instead; then nothing has changed.
    """
    if session.holding or peer != session.peer or transport != session.transport:
        return None
    event = message.events[0]
    time, newest = event.time, session.newest
    if time is None or newest is None or time < newest or time > received + FUTURE_S:
        return None
    take = event.attributes.get
    latitude, longitude, speed = take("latitude"), take("longitude"), take("speed_kmh")
    if type(latitude) is not float or type(longitude) is not float or type(speed) is not float:
        return None  # not there, or a plugin's own idea of a number: the long way shows what is wrong with it
    raw = message.raw
    digest = blake2b(session.head + len(raw).to_bytes(4, "big") + raw + _POSITION, digest_size=16).digest()
    ms = int(time * 1000)
    if time > newest:
        # no copy of a report that is remembered, unless that one came before its time
        if not session.data or received - time > lag_s or (session.premature and session.find(digest) >= 0):
            return None
        session.newest, session.newest_received = time, received
        found = Steady(digest, time, ms, True)
    else:
        if (
            not session.still
            or ms != session.still_ms
            or received - time > ROLLOVER_WINDOW_S
            or session.find(digest) >= 0
        ):
            return None
        found = Steady(digest, received, ms, False)
    if not session.proven:
        session.count(received)
    session.recent = session.recent[-_KEPT:] + digest[:DIGEST_BYTES] + int(received * 1000).to_bytes(STAMP_BYTES, "big")
    session.seen = received
    session.fix = (latitude, longitude, found.time)
    session.steady = (found.time, received, session.said)
    return found


#: What a repeated report still says of now.
_REPEATED = ("status_word", "satellites", "external_power", "battery_pct", "battery_raw")


def _repeat(session: Session, message: Message, event: Event, protocol: str, digest: bytes, now: float) -> Envelope:
    """A parked device sent the same frame again after a while: it is alive, and stands where it stood."""
    attributes: dict[str, Any] = {}
    if event.time is None or session.newest is None or event.time >= session.newest:
        attributes = {name: event.attributes[name] for name in _REPEATED if name in event.attributes}
        _mark(attributes, message.levels)
    # else: a record of its buffer once more, which says nothing of now
    attributes["repeat_of"] = digest.hex()
    attributes["time_source"] = "server"
    if event.time is not None:
        attributes["device_time"] = rfc3339(event.time)
    again = event_digest(session.ident, protocol, message.raw, "status", 0, rfc3339(now))
    return Envelope(again, "status", now, None, attributes)
