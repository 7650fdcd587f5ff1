"""
The live devices: what is known of each, and what that makes of the next report.

A session is a device's, not a socket's.  It knows the device's newest time,
its levels, its last fix and its recent reports; L{Sessions.judge} holds a
message against that and returns the envelopes to publish: times checked,
lateness stated, levels turned into edges.  Whether a report is a duplicate is
decided where it is stored; what is remembered here only tells a parked
device's repeats from the first copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final, NamedTuple

from gateway.events import STATES, Event, event_digest
from gateway.fields import rfc3339
from gateway.interfaces import Message

#: A device time further ahead than this is refused.
FUTURE_S: Final = 300.0
ROLLOVER_WEEKS: Final = (1024, 2048)
WEEK_S: Final = 604_800
#: The last second that RFC 3339 can say; a time past it is none.
LATEST: Final = 253_402_300_799
#: How far back a corrected time may lie to be believed.
ROLLOVER_WINDOW_S: Final = 7 * 86_400
#: A cleared alarm is published after so long without it.
HOLD_OFF_S: Final = 60.0
#: A repeated frame is news again after so long.
REPEAT_S: Final = 60.0
#: Two reports of one second that come closer than this are two reports of a buffer when that second is long
#: ago; a clock that stands still shows in reports that are further apart.
FROZEN_GAP_S: Final = 10.0
#: How many reports are remembered, and how much of an id.
RECENT: Final = 64
DIGEST_BYTES: Final = 8
#: An ident is proven by so many good frames over so long.
PROVEN_FRAMES: Final = 3
PROVEN_S: Final = 300.0

#: milliseconds, in so many bytes, of when the last copy came
_STAMP_BYTES: Final = 6
_ENTRY = DIGEST_BYTES + _STAMP_BYTES


class Stored(NamedTuple):
    """
    What is kept of an ident, as a session begins.

    @ivar known: whether the ident had reported before.
    @ivar held: whether a session of it was live, here or on another instance.
    @ivar recent: the first 8 bytes of the ids of its recent reports, oldest first.
    @ivar newest: its newest device time, UTC epoch seconds.
    @ivar state: the private JSON of L{Session.dump}.
    @ivar registry: what applications wrote of it.
    """

    known: bool = False
    held: bool = False
    recent: bytes = b""
    newest: float | None = None
    state: bytes = b""
    registry: Mapping[str, str] = {}


class Level:
    """One level of a device: what it is, since when, and what the hold-off needs."""

    __slots__ = ("last_on", "off_at", "on", "raised_id", "seen", "since")

    def __init__(self, on: bool, since: float, raised_id: str = "") -> None:
        self.on = on
        self.since = since
        self.raised_id = raised_id
        #: time of the last report that had it on, and when that was received
        self.last_on = since
        self.seen = since
        #: time of the first report without it, while the hold-off runs
        self.off_at: float | None = None

    def dump(self) -> list[Any]:
        """As JSON."""
        return [self.on, self.since, self.raised_id, self.last_on, self.seen, self.off_at]

    @classmethod
    def load(cls, row: list[Any]) -> Level:
        """The reverse of L{dump}."""
        level = cls(bool(row[0]), float(row[1]), str(row[2]))
        level.last_on, level.seen = float(row[3]), float(row[4])
        level.off_at = None if row[5] is None else float(row[5])
        return level


class Envelope(NamedTuple):
    """
    An event and what it is published with.

    @ivar digest: 16 bytes, the event's id.
    @ivar time: when it happened, UTC epoch seconds.
    @ivar device_time: the device's own newest-candidate time, None when it must not count as one.
    """

    digest: bytes
    type: str
    time: float
    device_time: float | None
    attributes: dict[str, Any]


class Session:
    """A live device."""

    __slots__ = (
        "_late_levels",
        "_saved_memory",
        "changed",
        "device_id",
        "enabled",
        "first",
        "fix",
        "frames",
        "ident",
        "levels",
        "loaded",
        "memory",
        "newest",
        "newest_received",
        "peer",
        "protocol",
        "proven",
        "recent",
        "reconnected",
        "refreshed",
        "registered",
        "seen",
        "shown",
        "transport",
        "waiting",
    )

    def __init__(self, ident: str, now: float) -> None:
        self.ident = ident
        self.loaded = False
        self.waiting: list[Any] = []
        self.memory: dict[str, Any] = {}
        self._saved_memory: dict[str, Any] = {}
        self._late_levels: dict[str, bool] = {}
        self.levels: dict[str, Level] = {}
        self.newest: float | None = None
        self.newest_received = now
        self.recent = b""
        self.fix: tuple[float, float, float] | None = None
        self.first = now
        self.frames = 0
        self.proven = False
        self.registered = False
        self.enabled = True
        self.device_id = ""
        self.changed = True
        self.reconnected = now
        self.refreshed = 0.0
        self.seen = now
        #: columns of its last report that seldom change, as they went to the store
        self.shown: tuple[str, ...] = ()
        self.peer = ""
        self.transport = ""
        self.protocol = ""

    def load(self, stored: Stored, now: float) -> None:
        """Take over what is kept of the device."""
        self.newest = stored.newest
        self.newest_received = now - FROZEN_GAP_S  # it was received by a session before this one
        stamp = int(now * 1000).to_bytes(_STAMP_BYTES, "big")
        known = (stored.recent[i : i + DIGEST_BYTES] for i in range(0, len(stored.recent), DIGEST_BYTES))
        self.recent = b"".join(digest + stamp for digest in known)[-RECENT * _ENTRY :]
        self.register(stored.registry)
        if stored.state:
            state = json.loads(stored.state)
            self.levels = {name: Level.load(row) for name, row in state["levels"].items()}
            self.fix = tuple(state["fix"]) if state["fix"] else None
            self.memory = state["memory"]
            self._saved_memory = dict(self.memory)
            self.first, self.frames, self.proven = state["first"], state["frames"], state["proven"]
            self.changed = False
        self.loaded = True

    def register(self, registry: Mapping[str, str]) -> None:
        """Take over what applications wrote of the device."""
        self.registered = bool(registry)
        self.device_id = registry.get("device_id", "")
        self.enabled = registry.get("enabled", "1") not in ("0", "false", "no")

    def dump(self) -> bytes:
        """The private JSON that L{load} reads, and from now on what counts as saved."""
        self.changed = False
        self._saved_memory = dict(self.memory)
        state = {
            "levels": {name: level.dump() for name, level in self.levels.items()},
            "fix": self.fix,
            "memory": self.memory,
            "first": self.first,
            "frames": self.frames,
            "proven": self.proven,
        }
        return json.dumps(state, separators=(",", ":"), default=str).encode()

    @property
    def dirty(self) -> bool:
        """Whether L{dump} would give something else than what was saved."""
        return self.changed or self.memory != self._saved_memory

    def meet(self, peer: str, transport: str, protocol: str, now: float) -> None:
        """A frame of it came from there."""
        self.seen = now
        if peer != self.peer:
            self.peer, self.transport, self.protocol = peer, transport, protocol
            self.reconnected = now

    def count(self, now: float) -> None:
        """One more good frame; a stranger's ident becomes proven by a few of them over some minutes."""
        if not self.proven:
            self.frames += 1
            if self.frames >= PROVEN_FRAMES and now - self.first >= PROVEN_S:
                self.proven = True
                self.changed = True

    def remember(self, digest: bytes, now: float) -> float | None:
        """Note a report; when it is a copy, the time of the previous one."""
        key = digest[:DIGEST_BYTES]
        stamp = int(now * 1000).to_bytes(_STAMP_BYTES, "big")
        recent = self.recent
        at = recent.find(key)
        while at >= 0 and at % _ENTRY:
            at = recent.find(key, at + 1)
        if at < 0:
            self.recent = recent[-(RECENT - 1) * _ENTRY :] + key + stamp
            return None
        before = int.from_bytes(recent[at + DIGEST_BYTES : at + _ENTRY], "big")
        self.recent = recent[: at + DIGEST_BYTES] + stamp + recent[at + _ENTRY :]
        return before / 1000


class Sessions:
    """All live devices, by ident."""

    def __init__(self, *, lag_s: float = 120.0, ttl_s: float = 900.0) -> None:
        """
        @param lag_s: a report whose time is older than this is late.
        @param ttl_s: how long a session outlives the device's last frame.
        """
        self._lag_s = lag_s
        self._ttl_s = ttl_s
        self._live: dict[str, Session] = {}
        #: idents with an alarm in its hold-off
        self._clearing: set[str] = set()

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._live.values())

    def get(self, ident: str) -> Session | None:
        """The live session of an ident."""
        return self._live.get(ident)

    def begin(self, ident: str, now: float) -> Session:
        """A session whose state is still to be read."""
        session = self._live[ident] = Session(ident, now)
        return session

    def load(self, session: Session, stored: Stored, now: float) -> None:
        """Take over what is kept of a device whose session begins; its frames may be judged from now on."""
        session.load(stored, now)
        if any(level.off_at is not None for level in session.levels.values()):
            self._clearing.add(session.ident)

    def drop(self, ident: str) -> None:
        """Forget a session: another instance holds it, or it never was one."""
        self._live.pop(ident, None)
        self._clearing.discard(ident)

    def memory(self, ident: str) -> MutableMapping[str, Any]:
        """What a decoder may keep with an ident; a throw-away dict until the ident's state was read."""
        session = self._live.get(ident)
        return session.memory if session is not None and session.loaded else {}

    def expired(self, now: float) -> list[Session]:
        """End and return the sessions that were not heard of for their time to live."""
        gone = [s for s in self._live.values() if s.loaded and now - s.seen >= self._ttl_s]
        for session in gone:
            self.drop(session.ident)
        return gone

    def cleared(self, now: float) -> list[tuple[Session, Envelope]]:
        """The alarms whose hold-off ended without a further report."""
        due: list[tuple[Session, Envelope]] = []
        for ident in list(self._clearing):
            session = self._live[ident]
            for name, level in session.levels.items():
                if level.off_at is not None and now - level.seen >= HOLD_OFF_S:
                    raised = level.raised_id
                    attributes = _edge(session, "cleared", level.off_at) | _cleared(level)
                    digest = event_digest(ident, session.protocol, raised.encode(), _type(name), 0, rfc3339(now))
                    due.append((session, Envelope(digest, _type(name), now, None, attributes)))
                    _end(session, level, level.off_at)
            if not any(level.off_at is not None for level in session.levels.values()):
                self._clearing.discard(ident)
        return due

    def judge(self, session: Session, message: Message, protocol: str, now: float) -> list[Envelope]:
        """
        What a message of a device leads to, in order: its events, then the edges of its levels.

        @param now: when it was received, UTC epoch seconds.
        """
        ident = session.ident
        envelopes: list[Envelope] = []
        session.count(now)
        for index, event in enumerate(message.events):
            received = rfc3339(now) if event.time is None else None
            digest = event_digest(ident, protocol, message.raw, event.type, index, received)
            if index == 0:
                before = session.remember(digest, now)
                if before is not None:
                    if now - max(before, session.reconnected) >= REPEAT_S:
                        return [_repeat(session, message, event, protocol, digest, now)]
                    # the store decides what becomes of it; no edge follows from a copy
                    return [self._dated(session, event, digest, message.levels, now, copy=True)]
            envelopes.append(self._dated(session, event, digest, message.levels, now))
        if message.levels and envelopes:
            self._edges(session, message, protocol, envelopes, now)
        return envelopes

    def _dated(
        self,
        session: Session,
        event: Event,
        digest: bytes,
        levels: Mapping[str, bool],
        now: float,
        copy: bool = False,
    ) -> Envelope:
        """Check an event's time against the clock and the device's own past, and add what its levels say."""
        attributes = event.attributes
        time = event.time
        fixed: float | None = None
        if time is None or not 0 <= time <= LATEST:
            time = now
            attributes["time_source"] = "server"
        elif time > now + FUTURE_S:
            attributes["device_time"] = rfc3339(time)
            attributes["time_source"] = "server"
            time = now
        else:
            if now - time > ROLLOVER_WINDOW_S:
                time = _rolled(time, attributes, now)
            fixed = time
            newest = session.newest
            if newest is None or time > newest:
                session.newest = time
                session.newest_received = now
                if now - time > self._lag_s:
                    attributes["late"] = "lag"
            elif time < newest:
                attributes["late"] = "order"
            elif copy:
                if now - time > self._lag_s:
                    attributes["late"] = "lag"
            elif now - session.newest_received >= FROZEN_GAP_S or now - time <= ROLLOVER_WINDOW_S:
                attributes["clock"] = "frozen"
                attributes.setdefault("device_time", rfc3339(time))  # a rollover has put the device's own there
                attributes.pop("time_correction_s", None)
                attributes["time_source"] = "server"
                time = now
            elif now - time > self._lag_s:
                attributes["late"] = "lag"
        if "latitude" in attributes and "late" not in attributes:
            session.fix = (attributes["latitude"], attributes["longitude"], time)
        elif "last_latitude" in attributes and session.fix is not None:
            latitude, longitude, when = session.fix
            if attributes["last_latitude"] == latitude and attributes["last_longitude"] == longitude:
                attributes["last_fix_time"] = rfc3339(when)
        if levels:
            on = []
            for name, is_on in levels.items():
                if name == "ignition" or name == "immobilizer":
                    attributes[name] = is_on
                elif is_on:
                    on.append(name)
            if on:
                attributes["levels"] = on
        return Envelope(digest, event.type, time, fixed, attributes)

    def _edges(self, session: Session, message: Message, protocol: str, envelopes: list[Envelope], now: float) -> None:
        """Hold a message's levels against the device's and append what changed."""
        report = envelopes[0]
        if "late" in report.attributes:
            self._late_edges(session, message, protocol, envelopes, now)
            return
        if session._late_levels:
            session._late_levels = {}
        known = session.levels
        for name, on in message.levels.items():
            level = known.get(name)
            if level is None:
                level = known[name] = Level(on, report.time)
                level.seen = now
                session.changed = True
                if on:
                    level.raised_id = self._edge(session, message, protocol, envelopes, name, "active", {}, now)
            elif on:
                if not level.on:
                    level.on, level.since = True, report.time
                    level.raised_id = self._edge(session, message, protocol, envelopes, name, "raised", {}, now)
                    session.changed = True
                elif level.off_at is not None:  # it came back within the hold-off
                    level.off_at = None
                    session.changed = True
                level.last_on, level.seen = report.time, now
            elif level.on:
                if level.off_at is None:
                    level.off_at = report.time
                    session.changed = True
                    self._clearing.add(session.ident)
                if name in STATES or report.time - level.last_on >= HOLD_OFF_S:
                    self._edge(session, message, protocol, envelopes, name, "cleared", _cleared(level), now)
                    _end(session, level, level.off_at)

    def _late_edges(
        self, session: Session, message: Message, protocol: str, envelopes: list[Envelope], now: float
    ) -> None:
        """The alarms of a late report: published where a run of late reports raises them, the live state untouched."""
        late = envelopes[0].attributes["late"]
        for name, on in message.levels.items():
            if name in STATES:
                continue
            if on and not session._late_levels.get(name):
                self._edge(session, message, protocol, envelopes, name, "raised", {"late": late}, now)
            session._late_levels[name] = on

    def _edge(
        self,
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
        kind = _type(name)
        received = rfc3339(now) if message.events[0].time is None else None
        digest = event_digest(session.ident, protocol, message.raw, kind, len(envelopes), received)
        envelopes.append(Envelope(digest, kind, report.time, None, attributes))
        return digest.hex()


def _type(name: str) -> str:
    return f"state.{name}" if name in STATES else f"alarm.{name}"


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


def _end(session: Session, level: Level, since: float) -> None:
    level.on, level.off_at, level.since, level.raised_id = False, None, since, ""
    session.changed = True


def _rolled(time: float, attributes: dict[str, Any], now: float) -> float:
    """A time that 1,024 or 2,048 weeks more bring near now, corrected; any other as it is."""
    for weeks in ROLLOVER_WEEKS:
        corrected = time + weeks * WEEK_S
        if now - ROLLOVER_WINDOW_S <= corrected <= now + FUTURE_S:
            attributes["device_time"] = rfc3339(time)
            attributes["time_source"] = "device-corrected"
            attributes["time_correction_s"] = weeks * WEEK_S
            return corrected
    return time


#: What a repeated report still says of now.
_REPEATED = ("status_word", "satellites", "external_power", "battery_pct", "battery_raw")


def _repeat(session: Session, message: Message, event: Event, protocol: str, digest: bytes, now: float) -> Envelope:
    """A parked device sent the same frame again after a while: it is alive, and stands where it stood."""
    attributes = {name: event.attributes[name] for name in _REPEATED if name in event.attributes}
    attributes |= {name: on for name, on in message.levels.items() if name in ("ignition", "immobilizer")}
    on = [name for name, on in message.levels.items() if on and name not in ("ignition", "immobilizer")]
    if on:
        attributes["levels"] = on
    attributes["repeat_of"] = digest.hex()
    attributes["time_source"] = "server"
    if event.time is not None:
        attributes["device_time"] = rfc3339(event.time)
    again = event_digest(session.ident, protocol, message.raw, "status", 0, rfc3339(now))
    return Envelope(again, "status", now, None, attributes)
