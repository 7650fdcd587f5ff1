"""Puts a batch together, an ident's events in one argument of the server-side script, and reads its answer back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from gateway.events import DEAD_BYTES
from gateway.session import DIGEST_BYTES, Session
from gateway.tickets import NO_FRAME, Answer, Ticket

#: Expiry, session and C{seen} of a device are refreshed at most so often.
REFRESH_S: Final = 60.0
#: How long the last state of an ident is kept: of a stranger, and of one that has proven itself.
STRANGER_TTL_S: Final = 3600
PROVEN_TTL_S: Final = 90 * 86_400


class Gathered(NamedTuple):
    """
    The tickets of a batch as the script takes them.

    @ivar groups: one argument for each ident: its head, and the records of its events.
    @ivar order: the tickets in the order of their events.
    @ivar faults: what plugins left behind that can't be kept.
    """

    groups: list[bytes]
    order: list[Ticket]
    faults: list[str]


def gather(tickets: Sequence[Ticket], now: float) -> Gathered:
    """Put together the tickets of one device; those without a session are never merged with those with one."""
    together: dict[Any, list[Ticket]] = {}
    for ticket in tickets:
        # by ident: a device may have had two sessions since the first of them
        ident = ticket.message.ident
        key = ident if ticket.session is not None else (ident,)
        group = together.get(key)
        if group is None:
            together[key] = [ticket]
        else:
            group.append(ticket)
    groups: list[bytes] = []
    order: list[Ticket] = []
    faults: list[str] = []
    for group in together.values():
        records = group[0].records if len(group) == 1 else [record for ticket in group for record in ticket.records]
        groups.append(_head(group, len(records), now, faults) + b"".join(records))
        order += group
    return Gathered(groups, order, faults)


def _head(group: Sequence[Ticket], events: int, now: float, faults: list[str]) -> bytes:
    """What the script is told of an ident: its name, what is kept of it, and how many records follow."""
    session = group[-1].session
    if session is None:
        return f"{group[0].message.ident or ''}\0\0\x000\0\0{events}\0".encode()
    flags, ttl, private = "s", 0, ""
    if (
        now - session.refreshed >= REFRESH_S
        and not session.unknown  # how long it is kept depends on what is known
        and any(ticket.outcome != NO_FRAME for ticket in group)
    ):
        session.refreshed = now
        flags, ttl = "sr", 0 if session.registered else PROVEN_TTL_S if session.proven else STRANGER_TTL_S
        session.changed = True  # what is kept is written with it, or when nothing more waits
    if session.dirty and not (session.queued or session.unknown):  # else it is ahead of this batch, or not all there is
        # an answer may repeat what is secret
        frames = [ticket for ticket in group if ticket.message.raw and ticket.message.answer is None]
        if frames:
            session.raw = frames[-1].message.raw[:DEAD_BYTES], frames[-1].received
        private = _kept(session, faults)
    return f"{session.ident}\0{session.device_id}\0{flags}\0{ttl}\0{private}\0{events}\0".encode()


def _kept(session: Session, faults: list[str]) -> str:
    """The private state of a device; what its plugin keeps with it may be anything, and is dropped when it can't be."""
    try:
        return session.dump()
    except Exception as error:  # foreign values
        faults.append(f"{session.ident}: what device plugin {session.protocol} keeps can't be stored: {error}")
        session.memory.clear()
        return session.dump()


#: Fields of a record behind its head, of the position stream and of the others.
_POSITION_FIELDS: Final = 24
_OTHER_FIELDS: Final = 7
_RECORD_HEAD: Final = 4 + DIGEST_BYTES


class Group(NamedTuple):
    """What the script is told of an ident, taken apart: see L{gather}."""

    ident: bytes
    device_id: bytes
    flags: bytes
    ttl: bytes
    private: bytes
    events: bytes
    records: bytes

    @classmethod
    def parse(cls, group: bytes) -> Group:
        """The reverse of L{packed}."""
        return cls(*group.split(b"\0", 6))

    def packed(self) -> bytes:
        """As the script takes it."""
        return b"\0".join(self)

    def each(self) -> list[bytes]:
        """Its records, one by one."""
        rest, found = self.records, []
        for _ in range(int(self.events)):
            end = _RECORD_HEAD
            for _ in range(_POSITION_FIELDS if rest[:1] == b"p" else _OTHER_FIELDS):
                end = rest.index(b"\0", end) + 1
            found.append(rest[:end])
            rest = rest[end:]
        return found


def frames_of(groups: Iterable[bytes]) -> int:
    """How many frames the script counts in these groups: by the first event of each that is of a frame."""
    frames = 0
    for group in groups:
        try:
            records = Group.parse(group).each()
        except (TypeError, ValueError):  # the script can't read it either
            continue
        frames += sum(record[1:2] == b"1" and record[3:4] != b"-" for record in records)
    return frames


def merged(groups: Iterable[bytes]) -> list[bytes]:
    """
    The groups of several batches, in their order, as those of one: an ident with what is kept of it once.

    The script reads what is remembered of an ident once a call.
    """
    together: dict[tuple[bytes, bool], list[bytes]] = {}
    for group in groups:
        ident, _, flags, _ = group.split(b"\0", 3)
        together.setdefault((ident, not flags), []).append(group)
    return [same[0] if len(same) == 1 else _joined(same).packed() for same in together.values()]


def _joined(groups: Sequence[bytes]) -> Group:
    parts = [Group.parse(group) for group in groups]
    refreshing = [part for part in parts if part.flags == b"sr"]
    return parts[-1]._replace(
        flags=b"sr" if refreshing else parts[-1].flags,
        ttl=refreshing[-1].ttl if refreshing else parts[-1].ttl,
        private=next((part.private for part in reversed(parts) if part.private), b""),
        events=b"%d" % sum(int(part.events) for part in parts),
        records=b"".join(part.records for part in parts),
    )


def outcomes(answer: Answer, order: Sequence[Ticket]) -> dict[Ticket, tuple[str, list[tuple[bytes, str]]]]:
    """The outcome of each frame of which an event was not simply published, and which records were refused why."""
    reasons = iter(answer.reasons)
    codes = iter(answer.codes)
    found: dict[Ticket, tuple[str, list[tuple[bytes, str]]]] = {}
    for ticket in order:
        mine = [(record, next(codes)) for record in ticket.records]
        letters = {code for _, code in mine}
        refusals = [(record, next(reasons, "")) for record, code in mine if code == "r"]
        if letters and letters != {"p"}:  # one without events went to quarantine with them
            found[ticket] = ("r" if refusals else "p" if "p" in letters else "d", refusals)
    return found
