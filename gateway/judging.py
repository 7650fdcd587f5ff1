"""
What the next report of a device leads to, held against what is known of it.

Times are checked, lateness is stated.  Whether a report
is a duplicate is decided where it is stored; what is remembered here only
tells a parked device's repeats from the first copy.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

from gateway.edges import edges
from gateway.events import STREAM_OF, Event, event_digest
from gateway.fields import rfc3339
from gateway.interfaces import COLUMNS_OF_STATES, Levels, Message
from gateway.session import (
    DIGEST_BYTES,
    FROZEN_GAP_S,
    LATEST,
    LEARN,
    RECENT_BYTES,
    SHORTEST_S,
    STAMP_BYTES,
    Envelope,
    Session,
)

#: A device time further ahead than this is refused.
FUTURE_S: Final = 300.0
ROLLOVER_WEEKS: Final = (1024, 2048)
WEEK_S: Final = 604_800
#: How far back a corrected time may lie to be believed.
ROLLOVER_WINDOW_S: Final = 7 * 86_400
#: Coordinates are the same when they are published alike: 6 decimals.
SAME_PLACE: Final = 0.000_001
#: A repeated frame is news again after so long.
REPEAT_S: Final = 60.0

#: How the digest of a report's id ends: see L{gateway.events.event_digest}.
_POSITION: Final = b"\0position\x000\0"
#: The length of a frame, as it stands in the digest; a longer one than these goes the long way.
_LENGTHS: Final = [length.to_bytes(4, "big") for length in range(1024)]


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
    levels = message.levels if type(message.levels) is Levels else Levels(message.levels)
    # a good frame that says nothing else says that the device is alive
    for index, event in enumerate(message.events or (Event("status", None, {}),)):
        received = rfc3339(now) if event.time is None else None
        digest = event_digest(ident, protocol, message.raw, event.type, index, received)
        if index == 0:
            before = session.remember(digest, now)
            if before is not None:
                newest = is_newest(session, event.time, now)
                session.came_again(digest, before, now, newest)
                if now - max(before, session.reconnected) >= REPEAT_S:
                    live = newest and "late" not in event.attributes
                    envelopes.append(_repeat(session, message, levels if live else None, protocol, digest, now))
                    if live:  # a parked unit whose clock stands still may go back to a frame that it has sent before
                        edges(session, message, levels, protocol, envelopes, now)
                    return envelopes
                session.copy = True
                # the store decides what becomes of it; no edge follows from a copy
                return [_dated(session, event, digest, levels, now, lag_s, copy=True)]
        if index and event.type.startswith("device."):  # of the unit, and not of what it reports
            envelopes.append(Envelope(digest, event.type, envelopes[0].time, None, event.attributes))
            continue
        envelopes.append(_dated(session, event, digest, levels, now, lag_s, copy=index > 0))
    if levels and envelopes:
        edges(session, message, levels, protocol, envelopes, now)
    if message.same is not None and len(message.events) == 1:
        _note(session, message, envelopes[0])
    return envelopes


def is_newest(session: Session, time: float | None, now: float) -> bool:
    """Whether no time is known that is newer; one that was refused, or that is none, never becomes known."""
    if time is None or session.newest is None:
        return True
    return (_rolled(time, {}, now) if now - time > ROLLOVER_WINDOW_S else time) >= session.newest


def came_before(session: Session, message: Message, protocol: str) -> bool:
    """Whether a message is a copy of one that is remembered; one without a time of its own never is."""
    if not message.events or message.events[0].time is None:
        return False
    return session.find(event_digest(session.ident, protocol, message.raw, message.events[0].type)) >= 0


def _note(session: Session, message: Message, report: Envelope) -> None:
    """Note a report that the next one may be like: see L{steady}."""
    attributes = report.attributes
    late = attributes.get("late")
    if session.copy or (late is not None and late != "device"):
        return
    session.lagging = late is not None
    if not like(session, message):
        session.going = session.standing = False
    if message.same is not session.same:
        session.data = session.still = b""
    session.same, session.alike, session.said = message.same, message.alike, message.levels
    if "time_source" not in attributes:
        session.going = True
    elif attributes.get("clock") == "frozen" and report.device_time is not None:
        session.standing, session.still_ms = True, int(report.device_time * 1000)


def _dated(
    session: Session,
    event: Event,
    digest: bytes,
    levels: Levels,
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
    if levels and STREAM_OF.get(event.type) == "position":
        _mark(attributes, levels)
    return Envelope(digest, event.type, time, fixed, attributes)


def _by_server(attributes: dict[str, Any], time: float | None = None) -> None:
    """The time is the server's; the device's own, if it has one, stands beside it, without what corrected it."""
    if time is not None:
        attributes.setdefault("device_time", rfc3339(time))  # a correction has put the device's own there
    attributes.pop("time_correction_s", None)
    attributes["time_source"] = "server"


def _mark(attributes: dict[str, Any], levels: Levels) -> None:
    """What a report's levels say, as attributes: two have a column of their own, the others share one."""
    for name in COLUMNS_OF_STATES:
        if name in levels:
            attributes[name] = levels[name]
    if levels.shown:
        attributes["levels"] = levels.shown


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


def like(session: Session, message: Message) -> bool:
    """Whether a message says what the device's last one said, but for where and when, and for what is no column."""
    if message.same is None:
        return False
    return message.same is session.same or (message.alike is not None and message.alike is session.alike)


#: A report that says what the one before it said, but for where and when, judged: its id (16 bytes), when it happened
#: (UTC epoch seconds), the device's own time in ms, whether the device's clock goes (else it stands still), latitude,
#: longitude and speed in km/h.  (A plain tuple: it is made for nearly every report.)
Steady = tuple[bytes, float, int, bool, float, float, float]


def steady(
    session: Session, message: Message, peer: str, transport: str, received: float, lag_s: float
) -> Steady | None:
    """
    Judge a report that says what the one before it said, but for where and when: the way of nearly all.

    It leads to what L{judge} leads to, which a test holds it to, at a quarter of its time.

    @return: None when it has to go the long way instead; then nothing has changed.
    """
    same = message.same
    if same is None or (same is not session.same and not like(session, message)):
        return None
    if peer != session.peer or transport != session.transport:
        return None
    _, time, attributes = message.events[0]
    newest = session.newest
    if time is None or newest is None or time < newest or time > received + FUTURE_S:
        return None
    if time >= session.memory.look_at or (session.holding and session.held_until <= max(time, received)):
        return None
    lagging = session.lagging
    if lagging and session.line is not None:
        return None
    take = attributes.get
    latitude, longitude, speed = take("latitude"), take("longitude"), take("speed_kmh")
    if type(latitude) is not float or type(longitude) is not float or type(speed) is not float:
        return None  # not there, or a plugin's own idea of a number: the long way shows what is wrong with it
    raw = message.raw
    try:
        length = _LENGTHS[len(raw)]
    except IndexError:
        return None
    hashed = session.hashed
    if hashed is None:
        hashed = session.hashed = blake2b(f"{session.ident}\0{session.protocol}\0".encode(), digest_size=16)
    hashed = hashed.copy()
    hashed.update(length + raw + _POSITION)
    digest = hashed.digest()
    ms = int(time * 1000)
    if time > newest:
        # no copy of a report that is remembered, unless that one came before its time
        if not session.going or received - time > lag_s or (session.premature and session.find(digest) >= 0):
            return None
        session.newest, session.newest_received = time, received
        when, going = time, True
    elif lagging:
        if session.find(digest) >= 0:
            return None
        when, going = time, True
    else:
        if (
            not session.standing
            or ms != session.still_ms
            or received - time > ROLLOVER_WINDOW_S
            or session.find(digest) >= 0
        ):
            return None
        when, going = received, False
    if not session.proven:
        session.count(received)
    recent = session.recent
    if len(recent) >= RECENT_BYTES:
        session.forget()
    recent += digest[:DIGEST_BYTES] + int(received * 1000).to_bytes(STAMP_BYTES, "big")
    gap = received - session.seen
    if gap >= SHORTEST_S:
        interval_s = session.interval_s  # as in Session.meet
        session.interval_s = interval_s + (min(gap, 2 * interval_s) - interval_s) * LEARN if interval_s else gap
    session.seen = received
    if not lagging:  # else it says nothing of now
        session.steady = (when, received, session.said, latitude, longitude)
    return digest, when, ms, going, latitude, longitude, speed


#: What a repeated report still says of now.
_REPEATED = ("status_word", "satellites", "external_power", "battery_pct", "battery_raw")


def _repeat(
    session: Session, message: Message, levels: Levels | None, protocol: str, digest: bytes, now: float
) -> Envelope:
    """
    A parked device sent the same frame again after a while: it is alive, and stands where it stood.

    @param levels: None of a record of its buffer, which says nothing of now.
    """
    event = message.events[0]
    attributes: dict[str, Any] = {}
    if levels is not None:
        attributes = {name: event.attributes[name] for name in _REPEATED if name in event.attributes}
        _mark(attributes, levels)
    attributes["repeat_of"] = digest.hex()
    attributes["time_source"] = "server"
    if event.time is not None:
        attributes["device_time"] = event.attributes.get("device_time") or rfc3339(event.time)
    again = event_digest(session.ident, protocol, message.raw, "status", 0, rfc3339(now))
    return Envelope(again, "status", now, None, attributes)
