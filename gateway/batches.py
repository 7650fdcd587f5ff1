"""Puts a batch together, an ident's events in one argument of the server-side script, and reads its answer back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from gateway.session import Session
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
        key = (ticket.message.ident, ticket.session is None)
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
        groups.append(b"".join((_head(group, len(records), now, faults), *records)))
        order += group
    return Gathered(groups, order, faults)


def _head(group: Sequence[Ticket], events: int, now: float, faults: list[str]) -> bytes:
    """What the script is told of an ident: its name, what is kept of it, and how many records follow."""
    session = group[-1].session
    if session is None:
        return f"{group[0].message.ident or ''}\0\0\x000\0\0{events}\0".encode()
    if now - session.refreshed >= REFRESH_S and any(ticket.outcome != NO_FRAME for ticket in group):
        session.refreshed = now
        ttl = 0 if session.registered else PROVEN_TTL_S if session.proven else STRANGER_TTL_S
        session.changed = True  # what is kept is written with it, or when nothing more waits
        head = f"{session.ident}\0{session.device_id}\0sr\0{ttl}\0{_private(session, faults)}\0{events}\0"
    else:
        private = _private(session, faults)
        head = f"{session.ident}\0{session.device_id}\0s\x000\0{private}\0{events}\0"
    return head.encode()


def _private(session: Session, faults: list[str]) -> str:
    """What is kept of a device; nothing while it is as it was, or is ahead of what is in this batch."""
    return _kept(session, faults) if session.dirty and not session.queued else ""


def _kept(session: Session, faults: list[str]) -> str:
    """The private state of a device; what its plugin keeps with it may be anything, and is dropped when it can't be."""
    try:
        return session.dump()
    except Exception as error:  # foreign values
        faults.append(f"{session.ident}: what device plugin {session.protocol} keeps can't be stored: {error}")
        session.memory.clear()
        return session.dump()


def outcomes(answer: Answer, order: Sequence[Ticket]) -> dict[Ticket, tuple[str, list[tuple[bytes, str]]]]:
    """The outcome of each frame of which an event was not simply published, and which records were refused why."""
    reasons = iter(answer.reasons)
    codes = iter(answer.codes)
    found: dict[Ticket, tuple[str, list[tuple[bytes, str]]]] = {}
    for ticket in order:
        mine = [(record, next(codes)) for record in ticket.records]
        letters = {code for _, code in mine}
        refusals = [(record, next(reasons, "")) for record, code in mine if code == "r"]
        if letters != {"p"}:
            found[ticket] = ("r" if refusals else "p" if "p" in letters else "d", refusals)
    return found
