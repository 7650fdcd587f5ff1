"""One live device: what is known of it, from the store and since, and what of that is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from math import inf
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from gateway.events import STATES, STREAM_OF
from gateway.identity import Mode, Senders, Was, disabled
from gateway.interfaces import Kept

#: Two reports of one second that come closer than this are two reports of a buffer when that second is long
#: ago; a clock that stands still shows in reports that are further apart.
FROZEN_GAP_S: Final = 10.0
#: How many reports are remembered at most, how many when there is no room for another, and how much of an id.
RECENT: Final = 64
KEEP: Final = 48
DIGEST_BYTES: Final = 8
#: An ident is proven by so many good frames over so long.
PROVEN_FRAMES: Final = 3
PROVEN_S: Final = 300.0

#: Frames that come closer than that are no two reports; and how much the last one says of the interval.
SHORTEST_S: Final = 1.0
LEARN: Final = 0.25

#: Milliseconds, in so many bytes, of when the last copy came.
STAMP_BYTES: Final = 6
ENTRY_BYTES: Final = DIGEST_BYTES + STAMP_BYTES
RECENT_BYTES: Final = RECENT * ENTRY_BYTES
#: A cleared alarm is published after so long without it.
HOLD_OFF_S: Final = 60.0


#: Shared by all sessions whose plugin keeps nothing: there are many.
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_NO_NAMES: Final[frozenset[str]] = frozenset()

#: The last second that RFC 3339 can say; a time past it is none.
LATEST: Final = 253_402_300_799
#: Copies are counted of so many reports.
MAX_COPIES: Final = 64


class Stored(NamedTuple):
    """
    What is kept of an ident, as a session begins.

    @ivar known: whether the ident had reported before.
    @ivar held: whether a session of it was live, here or on another instance.
    @ivar recent: the first 8 bytes of the ids of its recent reports, oldest first.
    @ivar newest: its newest device time, UTC epoch seconds.
    @ivar state: the private JSON of L{Session.dump}.
    @ivar registry: what applications wrote of it.
    @ivar unknown: nobody could be asked; the rest says nothing.
    @ivar commands: whether commands wait for it.
    @ivar mine: nobody else has held it since this instance did.
    """

    known: bool = False
    held: bool = False
    recent: bytes = b""
    newest: float | None = None
    state: str | bytes = b""
    registry: Mapping[str, str] = {}
    unknown: bool = False
    commands: bool = False
    mine: bool = False


@lru_cache(maxsize=4096)
def shared(names: frozenset[str]) -> frozenset[str]:
    """One object for equal sets: nearly all devices have the same levels off."""
    return names


def type_of(name: str) -> str:
    """The type of a level's events; what stands behind a colon tells levels of one type apart."""
    return f"state.{name}" if name in STATES else f"alarm.{name.partition(':')[0]}"


class Level:
    """A level that is on, or in its hold-off: since when, and what the hold-off needs."""

    __slots__ = ("last_on", "off_at", "raised_id", "seen", "since")

    def __init__(self, since: float, raised_id: str = "") -> None:
        self.since = since
        self.raised_id = raised_id
        #: time of the last report that had it on, and when that was received
        self.last_on = since
        self.seen = since
        #: time of the first report without it, while the hold-off runs
        self.off_at: float | None = None

    def dump(self) -> list[Any]:
        """As JSON."""
        return [self.since, self.raised_id, self.last_on, self.seen, self.off_at]

    @classmethod
    def load(cls, row: list[Any]) -> Level:
        """The reverse of L{dump}."""
        since, raised_id, last_on, seen, off_at = row
        times = [float(time) for time in (since, last_on, seen, 0.0 if off_at is None else off_at)]
        if not all(0.0 <= time <= LATEST for time in times):
            raise ValueError(f"no time in {times}")
        level = cls(times[0], str(raised_id))
        level.last_on, level.seen = times[1], times[2]
        level.off_at = None if off_at is None else times[3]
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
    """
    A live device.

    @ivar levels: those that are on, or were until their hold-off began; C{off}: the names of those known to be off.
    @ivar memory: what its plugin keeps with it.
    """

    __slots__ = (
        "_saved_memory",
        "alike",
        "answered",
        "asking",
        "barred",
        "changed",
        "columns",
        "contested",
        "copies",
        "copy",
        "data",
        "device_id",
        "first",
        "fix",
        "frames",
        "going",
        "hashed",
        "held_until",
        "holding",
        "ident",
        "interval_s",
        "lagging",
        "late_on",
        "levels",
        "line",
        "link",
        "loaded",
        "memory",
        "mode",
        "nat_s",
        "newest",
        "newest_received",
        "off",
        "peer",
        "premature",
        "protocol",
        "proven",
        "queued",
        "raw",
        "recent",
        "reconnected",
        "refreshed",
        "registered",
        "said",
        "same",
        "seen",
        "senders",
        "shown",
        "standing",
        "steady",
        "still",
        "still_ms",
        "transport",
        "unknown",
        "waiting",
        "was",
    )

    def __init__(self, ident: str, now: float, mode: Mode = "open") -> None:
        self.ident = ident
        self.mode = mode
        #: why the device is not let in; empty: it is
        self.barred = ""
        #: where it was heard before it was heard elsewhere, and from where lately, if that was more than one place
        self.was: Was | None = None
        self.senders: Senders | None = None
        #: two are thought to use the ident
        self.contested = False
        self.loaded = False
        #: it is being asked whether another instance has held it since; its frames wait for that
        self.asking = False
        #: where its last frame came from
        self.link: Any = None
        #: the commands that are on their way to it, if any are
        self.line: Any = None
        #: seconds between its reports, as they came lately; 0: not known
        self.interval_s = 0.0
        #: on UDP: for so long after it was heard the way down was seen to be open; 0: not known
        self.nat_s = 0.0
        #: it began while nobody could be asked what is known of the device
        self.unknown = False
        self.waiting: list[Any] = []
        self.memory = Kept()
        self._saved_memory: Mapping[str, Any] = _NOTHING
        #: alarms that are on in the run of late reports that is under way; None: there is none
        self.late_on: set[str] | None = None
        self.levels: dict[str, Level] = {}
        self.off = _NO_NAMES
        #: of reports that came again on the connection on which they had come before: how often
        self.copies: dict[bytes, int] | None = None
        #: when the latest of its frames that was answered had been received
        self.answered = 0.0
        #: how many of its frames were judged and are in no batch yet
        self.queued = 0
        self.newest: float | None = None
        self.newest_received = now
        self.recent = bytearray()
        self.fix: tuple[float, float, float] | None = None
        self.first = now
        self.frames = 0
        self.proven = False
        self.registered = False
        self.device_id = ""
        self.changed = True
        #: an alarm is in its hold-off, and none of these ends before then
        self.holding = False
        self.held_until = inf
        self.reconnected = now
        self.refreshed = 0.0
        self.seen = now
        #: the digest of its frames' ids as far as it is always the same, once it is needed often
        self.hashed: Any = None
        #: columns of its last report that seldom change, as they went to the store
        self.shown = b""
        #: C{Message.same} and C{Message.alike} of a report whose L{columns} hold for the next one like it, L{data} only
        #: for one that is the same; None: of none
        self.same: object = None
        #: whether that report was late by its device's own word
        self.lagging = False
        self.alike: object = None
        #: the levels of that report, as they are this very device's
        self.said: Mapping[str, bool] = _NOTHING
        self.columns = b""
        #: the report that is judged is one that is remembered: no edges follow, and its columns are not written
        self.copy = False
        #: a time of the future was refused: its frame may come again when it is due
        self.premature = False
        #: whether such a report was met with a clock that goes, and with one that stands still at L{still_ms}
        self.going = self.standing = False
        self.still_ms = 0
        #: its data as it went to the store, with the one and with the other
        self.data = self.still = b""
        #: of the last report that said what the one before it said: its times, for the levels that are on, those, and
        #: where it was
        self.steady: tuple[float, float, Mapping[str, bool], float, float] | None = None
        self.peer = ""
        self.transport = ""
        self.protocol = ""
        #: one of its last frames, as it is kept with the rest for whoever asks, and when it came, UTC epoch seconds
        self.raw = (b"", 0.0)

    def load(self, stored: Stored, now: float) -> bool:
        """Take over what is kept of the device; whether all of it could be read."""
        self.unknown = stored.unknown
        self.newest = stored.newest
        self.newest_received = now - FROZEN_GAP_S  # it was received by a session before this one
        stamp = bytes(STAMP_BYTES)  # they came before this session
        known = (stored.recent[i : i + DIGEST_BYTES] for i in range(0, len(stored.recent), DIGEST_BYTES))
        self.recent = bytearray(b"".join(digest + stamp for digest in known)[-RECENT_BYTES:])
        self.premature = bool(stored.recent)  # not known
        self.register(stored.registry)
        self.loaded = True
        try:
            if stored.state:
                self._restore(json.loads(stored.state))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError):
            return False  # somebody else wrote there: the device is taken as unknown
        return True

    def _restore(self, state: dict[str, Any]) -> None:
        """The reverse of L{dump}; nothing is changed unless all of it can be read."""
        levels = {name: Level.load(row) for name, row in state["levels"].items()}
        if not all(type_of(name) in STREAM_OF for name in levels):
            raise ValueError("a level that is none")
        off = shared(frozenset(str(state["off"]).split()))
        fix = state["fix"]
        where = (float(fix[0]), float(fix[1]), float(fix[2])) if fix else None
        if where is not None and not 0.0 <= where[2] <= LATEST:
            raise ValueError(f"no time: {where[2]}")
        memory = Kept(state["memory"])
        memory.registry, memory.new = self.memory.registry, not (levels or off)
        first, frames, proven = float(state["first"]), int(state["frames"]), bool(state["proven"])
        interval_s, nat_s = float(state.get("interval", 0.0)), float(state.get("nat", 0.0))
        raw = bytes.fromhex(state.get("raw", "")), float(state.get("raw_at", 0.0))
        senders = Senders.load(state["senders"]) if state.get("senders") else None
        heard = Was(str(state["peer"]), float(state["heard"]), where) if state.get("peer") else None
        self.levels, self.off, self.fix, self.memory = levels, off, where, memory
        self.first, self.frames, self.proven = first, frames, proven
        self.interval_s, self.nat_s, self.raw = interval_s, nat_s, raw
        if not self.peer:
            self.senders, self.was = senders, heard
            self.contested = senders is not None and senders.first != ""
        self._saved_memory = dict(memory) if memory else _NOTHING
        self.changed = False
        self.hold()
        for level in levels.values():
            if level.off_at is None:  # it was on when we last looked, which was not kept to the second
                level.last_on = level.seen = max(level.last_on, self.seen)

    def adopt(self, stored: Stored) -> dict[str, Level] | None:
        """
        Take over what is kept of a device whose session began without.

        What is known by now goes before it: an alarm that is on in both goes on, as the one of then.

        @return: the levels that were on and are known to be off by now; None when what is kept can't be read.
        """
        mine, off, fix, first, frames = self.levels, self.off, self.fix, self.first, self.frames
        memory, proven = self.memory, self.proven
        self.unknown, self.changed = False, True
        if stored.newest is not None and (self.newest is None or stored.newest > self.newest):
            self.newest = stored.newest
        self.premature = self.premature or bool(stored.recent)
        readable = True
        try:
            if stored.state:
                self._restore(json.loads(stored.state))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError):
            readable = False
        was, self.changed = self.levels if stored.state and readable else {}, True
        gone = {name: level for name, level in was.items() if name in off}
        levels = {name: level for name, level in was.items() if name not in off}
        for name, level in mine.items():
            if name in levels:
                level.since, level.raised_id = levels[name].since, levels[name].raised_id
            levels[name] = level
        self.levels, self.off = levels, shared((self.off | off).difference(levels))
        self.hold()
        self.fix = fix or self.fix
        self.first, self.proven = min(first, self.first), proven or self.proven
        self.frames = max(frames, self.frames)
        if self.memory is not memory:  # what was learned before goes before what was begun to be learned since
            for name, value in memory.items():
                self.memory.setdefault(name, value)
            self.memory.resends = memory.resends
        self.memory.new = False
        self.register(stored.registry)
        return gone if readable else None

    def register(self, registry: Mapping[str, str]) -> None:
        """Take over what applications wrote of the device."""
        self.same = self.alike = None
        self.memory.registry, self.memory.own = registry, None
        self.registered = bool(registry)
        self.device_id = registry.get("device_id", "").replace("\0", "")
        if disabled(registry):
            self.barred = "the registry says enabled 0"
        elif self.mode != "open" and not (registry or self.unknown):
            self.barred = "it is not in the registry"
        else:
            self.barred = ""

    @property
    def quarantined(self) -> bool:
        """Whether it may stay although it is not let in."""
        return self.mode == "quarantine" and not self.registered

    def dump(self) -> str:
        """The private JSON that L{load} reads, and from now on what counts as saved."""
        self.catch_up()
        if self.senders is not None:
            if self.senders.peer == self.peer:
                self.senders.at = self.seen
            if self.senders.over:
                self.senders = None
        self.changed = False
        self._saved_memory = dict(self.memory) if self.memory else _NOTHING
        state = {
            "levels": {name: level.dump() for name, level in self.levels.items()},
            "off": " ".join(sorted(self.off)),
            "fix": self.fix,
            "memory": self.memory,
            "first": self.first,
            "frames": self.frames,
            "proven": self.proven,
            "interval": round(self.interval_s, 1),
            "nat": round(self.nat_s, 1),
            "raw": self.raw[0].hex(),
            "raw_at": round(self.raw[1], 3),
            "protocol": self.protocol,
            "peer": self.peer,
            "heard": round(self.seen, 3),
            "senders": self.senders.dump() if self.senders is not None else None,
        }
        return json.dumps(state, separators=(",", ":"), default=str)

    @property
    def dirty(self) -> bool:
        """Whether L{dump} would give something else than what was saved."""
        memory, saved = self.memory, self._saved_memory
        return self.changed or (memory != saved if memory or saved else False)

    def meet(self, peer: str, transport: str, protocol: str, now: float) -> None:
        """A frame of it came from there."""
        before = self.seen
        gap = now - before
        if gap >= SHORTEST_S:
            interval_s = self.interval_s
            # a night without coverage is no interval
            self.interval_s = interval_s + (min(gap, 2 * interval_s) - interval_s) * LEARN if interval_s else gap
        self.seen = now
        if peer != self.peer or transport != self.transport or protocol != self.protocol:
            if self.peer and peer != self.peer:
                self.catch_up()
                self.was = Was(self.peer, before, self.fix)
            self.peer, self.transport, self.protocol = peer, transport, protocol
            self.hashed = None
            self.reconnected = now
            self.same = self.alike = None

    def hold(self) -> None:
        """Look which levels are in their hold-off."""
        ends = [level.last_on + HOLD_OFF_S for level in self.levels.values() if level.off_at is not None]
        self.holding, self.held_until = bool(ends), min(ends, default=inf)

    def catch_up(self) -> None:
        """Let the levels and the fix know of the reports that changed none of the levels."""
        if self.steady is not None:
            time, received, levels, latitude, longitude = self.steady
            self.steady = None
            self.fix = latitude, longitude, time
            for name, level in self.levels.items():
                if levels.get(name):
                    level.last_on, level.seen = time, received

    def count(self, now: float) -> None:
        """One more good frame; a stranger's ident becomes proven by a few of them over some minutes."""
        if not self.proven:
            self.frames += 1
            if self.frames >= PROVEN_FRAMES and now - self.first >= PROVEN_S:
                self.proven = True
                self.changed = True

    def remember(self, digest: bytes, now: float) -> float | None:
        """Note a report; when it is a copy, the time of the previous one."""
        stamp = int(now * 1000).to_bytes(STAMP_BYTES, "big")
        at = self.find(digest)
        if at < 0:
            if len(self.recent) >= RECENT_BYTES:
                self.forget()
            self.recent += digest[:DIGEST_BYTES] + stamp
            return None
        before = int.from_bytes(self.recent[at + DIGEST_BYTES : at + ENTRY_BYTES], "big")
        self.recent[at + DIGEST_BYTES : at + ENTRY_BYTES] = stamp
        return before / 1000

    def forget(self) -> None:
        """Make room in what is remembered: of some at a time, as taking off the oldest each time would cost more."""
        del self.recent[: -KEEP * ENTRY_BYTES]

    def came_again(self, digest: bytes, before: float, now: float, newest: bool) -> None:
        """
        A report is a copy: count those of a device that sends again what it has already sent on this connection.

        A parked unit, whose newest report comes again at its interval, does not; nor does one that
        connected anew, as the answer to the first may have been lost, or that was not answered yet.

        @param before: when the previous copy came.
        @param newest: whether no other report of the device has a newer time.
        """
        parked = newest and now - before >= FROZEN_GAP_S
        if parked or before > self.answered or before < int(self.reconnected * 1000) / 1000:
            return
        copies = self.copies
        if copies is None:
            copies = self.copies = {}
        count = copies[digest] = copies.get(digest, 0) + 1
        if len(copies) > MAX_COPIES:
            del copies[next(iter(copies))]
        self.memory.resends = max(self.memory.resends, count)
        self.same = self.alike = None  # what follows from that is said with the next report

    def find(self, digest: bytes) -> int:
        """Where a report stands in what is remembered, -1: nowhere."""
        key, recent = digest[:DIGEST_BYTES], self.recent
        at = recent.find(key)
        while at >= 0 and at % ENTRY_BYTES:
            at = recent.find(key, at + 1)
        return at
