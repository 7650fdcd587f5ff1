"""
Whose frames an ident's are: whether it is let in, and whether two senders use it.

An ident is all that a tracker says of itself, and easy to guess.  That two
send as one shows in two ways: frames of both come in turn, or both have a fix,
and no vehicle gets from the one to the other in that time.  A device that is
given a new address, as operators do, never speaks from the old one again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from gateway.fields import metres_between, rfc3339

if TYPE_CHECKING:
    from gateway.session import Envelope, Session

#: C{open}: every ident is taken as it comes.  C{known}: what is not in the registry is closed.  C{quarantine}: it may
#: stay, what it sends is recorded and not acknowledged.
Mode = Literal["open", "known", "quarantine"]
MODES: Final = ("open", "known", "quarantine")

#: Frames of two peers come in turn when one speaks again within two of the device's intervals, or so many seconds.
TURN_S: Final = 60.0
#: Faster than this nobody goes from one fix to the next, km/h; fixes that are further apart in time say nothing of it,
#: s; and each may be off by so much, m.
FASTEST_KMH: Final = 300.0
APART_S: Final = 900.0
OFF_M: Final = 500.0
#: A conflict is over after so long without evidence, or after two intervals if that is longer.
OVER_S: Final = 600.0

#: What is not let in is said once in so long of an ident, and remembered of so many.
SAID_S: Final = 3600.0
SAID: Final = 20_000
#: The same for limits, and so many a second at most.
NOTICE_S: Final = 60.0
NOTICES_PER_S: Final = 10


def disabled(registry: Mapping[str, str]) -> bool:
    """Whether the registry has a device turned away."""
    return registry.get("enabled", "1") in ("0", "false", "no")


class Was(NamedTuple):
    """
    Where a device was heard before it was heard elsewhere.

    @ivar seen: when last, UTC epoch seconds.
    @ivar fix: its last live one: degrees, and UTC epoch seconds.
    """

    peer: str
    seen: float
    fix: tuple[float, float, float] | None


class Senders:
    """
    From where live reports of one ident came lately.

    @ivar peer: the newest one; C{at}: when it was last heard, UTC epoch seconds, once another one is.
    @ivar before: the one before it, and when that was last heard.
    @ivar interval_s: of the device's reports, as it was before the second one came.
    @ivar first: who was there first, while two are thought to use the ident; empty: nobody thinks so.
    """

    __slots__ = ("at", "before", "before_at", "first", "interval_s", "newest", "peer", "raised_id", "since")

    def __init__(self, peer: str, at: float, interval_s: float) -> None:
        self.peer = peer
        self.at = at
        self.before = ""
        self.before_at = 0.0
        self.interval_s = interval_s
        self.first = ""
        #: since when there is a conflict, the newest evidence of it, UTC epoch seconds, and the event that said so
        self.since = self.newest = 0.0
        self.raised_id = ""

    @property
    def over_s(self) -> float:
        """A conflict ends after so long without evidence."""
        return max(2 * self.interval_s, OVER_S)

    @property
    def other(self) -> str:
        """Who came after the first."""
        return self.before if self.first == self.peer else self.peer

    @property
    def over(self) -> bool:
        """Whether what is known of them says nothing any more, but for a conflict."""
        return not self.first and self.at - self.before_at > max(2 * self.interval_s, TURN_S)

    def dump(self) -> list[Any]:
        """As JSON."""
        return [getattr(self, name) for name in _DUMPED]

    @classmethod
    def load(cls, row: list[Any]) -> Senders:
        """The reverse of L{dump}."""
        senders = cls("", 0.0, 0.0)
        for name, value in zip(_DUMPED, row, strict=True):
            setattr(senders, name, type(getattr(senders, name))(value))
        return senders


_DUMPED: Final = ("peer", "at", "before", "before_at", "interval_s", "first", "since", "newest", "raised_id")


def look(session: Session, report: Envelope, now: float) -> dict[str, Any] | None:
    """
    See where a device's frame came from, once it was judged; C{session.contested} says what is thought since.

    @param report: the first of the events that it led to.
    @return: what an event is to say of it, whose id C{session.senders} is given if it says that there is a conflict.
        None: nothing is to be said.
    """
    was, session.was = session.was, None
    senders = session.senders
    if senders is None:
        if was is None or was.peer == session.peer or now - was.seen > max(2 * session.interval_s, APART_S):
            return None
        senders = session.senders = Senders(was.peer, was.seen, session.interval_s)
    elif was is not None and was.peer == senders.peer:
        senders.at = was.seen
    evidence = _evidence(session, senders, was, report, now) if _live(session, report) else None
    if evidence is not None:
        senders.newest, session.changed = now, True
        if not session.contested:
            session.contested = True
            senders.since = now
            senders.first = senders.before if evidence["kind"] == "speed" else senders.peer
            return _raised(senders, evidence)
    elif session.contested and not 0.0 <= now - senders.newest < senders.over_s:
        session.contested, session.senders, session.changed = False, None, True
        return _cleared(senders, now)
    return None


def _live(session: Session, report: Envelope) -> bool:
    """Whether a report was made now: one that is late, a copy, or of a clock that stands still, was on its way."""
    attributes = report.attributes
    return (
        report.device_time is not None
        and not session.copy
        and not ("late" in attributes or "clock" in attributes or "repeat_of" in attributes)
    )


def _evidence(
    session: Session, senders: Senders, was: Was | None, report: Envelope, now: float
) -> dict[str, Any] | None:
    """What a live report says against one sender; it is known from now on where the device was heard."""
    peer = session.peer
    if peer == senders.peer:
        return None
    found: dict[str, Any] | None = None
    silent_s = now - senders.before_at
    if peer == senders.before and 0.0 <= silent_s <= max(2 * senders.interval_s, TURN_S):
        found = {"kind": "interleaved", "within_s": round(silent_s, 1)}
    attributes, fix = report.attributes, was.fix if was is not None else None
    if fix is not None and "latitude" in attributes:
        seconds = abs(report.time - fix[2])
        metres = metres_between(fix[0], fix[1], attributes["latitude"], attributes["longitude"]) - 2 * OFF_M
        kmh = 3.6 * metres / max(seconds, 1.0)
        if seconds <= APART_S and kmh > FASTEST_KMH:
            found = {"kind": "speed", "speed_kmh": round(kmh), "distance_m": round(metres), "within_s": round(seconds)}
    senders.interval_s = senders.interval_s or session.interval_s
    senders.before, senders.before_at, senders.peer, senders.at = senders.peer, senders.at, peer, now
    session.changed = True
    return found


def _raised(senders: Senders, evidence: dict[str, Any]) -> dict[str, Any]:
    if evidence["kind"] == "speed":
        how = f"their fixes are {evidence['distance_m'] / 1000:.0f} km apart within {evidence['within_s']} s"
    else:
        how = "their reports come in turn"
    return {
        "phase": "raised",
        "origin": "gateway",
        "reason": f"{senders.first} and {senders.other} send as the same device: {how}",
        "peers": [senders.first, senders.other],
        "evidence": evidence,
        "since": rfc3339(senders.since),
    }


def _cleared(senders: Senders, now: float) -> dict[str, Any]:
    return {
        "phase": "cleared",
        "origin": "gateway",
        "reason": f"nothing has spoken for two senders for {now - senders.newest:.0f} s",
        "peers": [senders.first, senders.other],
        "since": rfc3339(senders.since),
        "raised_id": senders.raised_id,
        "duration_s": round(senders.newest - senders.since, 1),
    }


def speaks_for(session: Session, link: Any, before: Any) -> bool:
    """
    Whether a device of which two are thought to use the ident is told something where its frame came from.

    @param before: where it was told something until now.
    """
    senders = session.senders
    if senders is None or link.peer == senders.first:
        return True
    gone = before is None or before.ready_in() is None
    if gone and _address(link.peer) == _address(senders.first):  # it has connected anew
        senders.first, session.changed = link.peer, True
        return True
    return False


def _address(peer: str) -> str:
    return peer.rpartition(":")[0]


class Strangers:
    """Idents that are not let in: which of them were spoken of lately."""

    def __init__(self) -> None:
        self._said: OrderedDict[tuple[str, str], float] = OrderedDict()

    def news(self, kind: str, ident: str, now: float) -> bool:
        """Whether it is time to speak of an ident in this way."""
        before = self._said.get((kind, ident))
        if before is not None and 0.0 <= now - before < SAID_S:
            return False
        self._said[kind, ident] = now
        self._said.move_to_end((kind, ident))
        if len(self._said) > SAID:
            self._said.popitem(last=False)
        return True


class Notices:
    """Limits that were met: once a minute of whom, with how often that was, and so many a second in all."""

    def __init__(self) -> None:
        #: when it was said last, and how often it was met since
        self._met: OrderedDict[tuple[str, str], list[float]] = OrderedDict()
        self._second, self._said = 0, 0

    def news(self, limit: str, name: str, now: float) -> int:
        """A limit was met; how often it was since that was last said, 0: it is not to be said now."""
        entry = self._met.setdefault((limit, name), [-NOTICE_S, 0])
        entry[1] += 1
        if len(self._met) > SAID:
            self._met.popitem(last=False)
        if int(now) != self._second:
            self._second, self._said = int(now), 0
        if 0.0 <= now - entry[0] < NOTICE_S or self._said >= NOTICES_PER_S:
            return 0
        times, self._said = int(entry[1]), self._said + 1
        entry[:] = [now, 0]
        return times
