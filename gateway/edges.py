"""
Levels become edges: an alarm is published when it comes on and when it has gone, a state when it changes.

What is on is kept with the session.  A late report's alarms are published as
late, where a run of late reports raises them, and change nothing of what is.
"""

from __future__ import annotations

from typing import Any

from gateway.events import STATES, event_digest
from gateway.fields import rfc3339
from gateway.interfaces import Levels, Message
from gateway.session import HOLD_OFF_S, Envelope, Level, Session, shared, type_of


def edges(
    session: Session, message: Message, levels: Levels, protocol: str, envelopes: list[Envelope], now: float
) -> None:
    """Hold a message's levels against the device's and append what changed."""
    report = envelopes[0]
    if "late" in report.attributes:
        _late_edges(session, message, levels, protocol, envelopes, now)
        return
    session.late_on = None
    known = session.levels
    if levels.off.isdisjoint(known) and (levels.off is session.off or levels.off <= session.off):
        # nearly always: nothing goes off; and what is on was so before, or the long way says what it is now
        for name in levels.on:
            level = known.get(name)
            if level is None or level.off_at is not None:
                break
            level.last_on, level.seen = report.time, now
        else:
            return
    for name, on in levels.items():
        if on:
            _on(session, message, protocol, envelopes, name, now)
        elif name in known:
            _gone(session, message, protocol, envelopes, name, now)
    fresh = levels.off - session.off - known.keys()
    if fresh:
        session.off = shared(session.off | fresh)
        session.changed = True


def _on(session: Session, message: Message, protocol: str, envelopes: list[Envelope], name: str, now: float) -> None:
    """A level is on: it comes on, is met for the first time, comes back within its hold-off, or stays."""
    report = envelopes[0]
    level = session.levels.get(name)
    if level is not None and level.off_at is not None and report.time - level.last_on >= HOLD_OFF_S:
        # its hold-off ended while nobody looked: it was over, and is there again
        _place(session, message, protocol, envelopes, name, "cleared", _cleared(level), now)
        _end(session, name)
        level = None
    if level is None:
        phase = "raised" if name in session.off else "active"
        level = session.levels[name] = Level(report.time)
        level.seen = now
        level.raised_id = _place(session, message, protocol, envelopes, name, phase, {}, now)
        session.changed = True
        return
    if level.off_at is not None:
        level.off_at = None
        session.changed = True
        session.same = session.alike = None
    level.last_on, level.seen = report.time, now


def _gone(session: Session, message: Message, protocol: str, envelopes: list[Envelope], name: str, now: float) -> None:
    """A level that was on is off: its hold-off begins, goes on, or ends."""
    report, level = envelopes[0], session.levels[name]
    if level.off_at is None:
        level.off_at = report.time
        session.changed = True
        session.holding = True
        session.held_until = min(session.held_until, level.last_on + HOLD_OFF_S)
        session.same = session.alike = None
    if name in STATES or report.time - level.last_on >= HOLD_OFF_S:
        _place(session, message, protocol, envelopes, name, "cleared", _cleared(level), now)
        _end(session, name)


def _late_edges(
    session: Session, message: Message, levels: Levels, protocol: str, envelopes: list[Envelope], now: float
) -> None:
    """The alarms of a late report: published where a run of late reports raises them, the live state untouched."""
    report = envelopes[0]
    session.same = session.alike = None
    if session.late_on is None:
        session.late_on = set()
    session.late_on -= levels.off
    for name in levels.on:
        if name in STATES or name in session.late_on:
            continue
        session.late_on.add(name)
        level = session.levels.get(name)
        if level is not None and level.off_at is None and level.since <= report.time:
            continue  # it is on, and has been since before this report: the same alarm
        _place(session, message, protocol, envelopes, name, "raised", {"late": report.attributes["late"]}, now)


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
    # a frame without a time of its own, and one that comes again, is told from others by when it came
    again = "repeat_of" in report.attributes or not message.events or message.events[0].time is None
    received = rfc3339(now) if again else None
    digest = event_digest(session.ident, protocol, message.raw, kind, len(envelopes), received)
    envelopes.append(Envelope(digest, kind, report.time, None, attributes))
    session.same = session.alike = None
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
    session.hold()
    return envelopes


def ended(session: Session, gone: dict[str, Level], now: float) -> list[Envelope]:
    """The levels that were on when nobody could be asked, and were found off, cleared."""
    envelopes: list[Envelope] = []
    for name, level in gone.items():
        attributes = _edge(session, "cleared", now) | _cleared(level)
        if name in STATES:
            attributes[name] = False
        kind = _type(name, session.protocol, attributes)
        digest = event_digest(session.ident, session.protocol, level.raised_id.encode(), kind, 0, rfc3339(now))
        envelopes.append(Envelope(digest, kind, now, None, attributes))
    return envelopes


def _type(name: str, protocol: str, attributes: dict[str, Any]) -> str:
    """The type of a level's events, which say which one it is where there are several of a type."""
    which = name.partition(":")[2]
    if which:
        attributes["name"] = f"{protocol}.{which}"
    return type_of(name)


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
    return {"raised_id": level.raised_id, "duration_s": max(0.0, round(off_at - level.since, 3))}


def _end(session: Session, name: str) -> None:
    del session.levels[name]
    session.off = shared(session.off | {name})
    session.changed = True
