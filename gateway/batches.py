"""Renders a batch: the arguments of the server-side script, an ident's events together, and its answer read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from gateway.events import DEAD_BYTES, STREAM_OF, event_digest
from gateway.fields import rfc3339
from gateway.session import Envelope, Session
from gateway.tickets import NO_FRAME, REFUSED, UNDECODABLE, Answer, Ticket

#: Expiry, session and C{seen} of a device are refreshed at most so often.
REFRESH_S: Final = 60.0
#: How long the last state of an ident is kept: of a stranger, and of one that has proven itself.
STRANGER_TTL_S: Final = 3600
PROVEN_TTL_S: Final = 90 * 86_400

#: The first letter of an event's head in the script: its stream.
_LETTER: Final = {kind: ("w" if stream == "raw" else stream[0]) for kind, stream in STREAM_OF.items()}


class Gathered(NamedTuple):
    """
    The tickets of a batch as the script takes them.

    @ivar args: its arguments, group by group.
    @ivar groups: how many groups.
    @ivar order: the ticket of each event, in the order of the arguments.
    @ivar faults: what plugins left behind that can't be kept.
    """

    args: list[str | bytes]
    groups: int
    order: list[Ticket]
    faults: list[str]


def gather(tickets: Sequence[Ticket], now: float) -> Gathered:
    """Render tickets, those of one device together; those without a session are never merged with those with one."""
    groups: dict[Any, list[Ticket]] = {}
    for ticket in tickets:
        key = ticket.session if ticket.session is not None else ticket.message.ident
        group = groups.get(key)
        if group is None:
            groups[key] = [ticket]
        else:
            group.append(ticket)
    args: list[str | bytes] = []
    order: list[Ticket] = []
    faults: list[str] = []
    for group in groups.values():
        _render_group(group, args, order, now, faults)
    return Gathered(args, len(groups), order, faults)


def _render_group(
    group: Sequence[Ticket], args: list[str | bytes], order: list[Ticket], now: float, faults: list[str]
) -> None:
    """The arguments of one ident's events."""
    session = group[0].session
    ident, device_id, flags, ttl, private = group[0].message.ident or "", "", "", "0", b""
    if session is not None:
        ident, device_id, flags = session.ident, session.device_id, "s"
        if now - session.refreshed >= REFRESH_S and any(ticket.outcome != NO_FRAME for ticket in group):
            session.refreshed = now
            flags = "sr"
            if not session.registered:
                ttl = str(PROVEN_TTL_S if session.proven else STRANGER_TTL_S)
            private = _kept(session, faults)
        elif session.dirty:
            private = _kept(session, faults)
    at = len(args)
    args += (ident, device_id, flags, ttl, private, "")
    events = 0
    for ticket in group:
        start = len(args)
        try:
            _render_ticket(ticket, args)
        except Exception as error:  # foreign values: what a plugin put into an event can't be written
            del args[start:]
            _spoil(ticket, error)
            _render_ticket(ticket, args)
        order += [ticket] * len(ticket.envelopes)
        events += len(ticket.envelopes)
    args[at + 5] = str(events)


def _kept(session: Session, faults: list[str]) -> bytes:
    """The private state of a device; what its plugin keeps with it may be anything, and is dropped when it can't be."""
    try:
        return session.dump()
    except Exception as error:  # foreign values
        faults.append(f"{session.ident}: what device plugin {session.protocol} keeps can't be stored: {error}")
        session.memory.clear()
        return session.dump()


def _render_ticket(ticket: Ticket, args: list[str | bytes]) -> None:
    """The arguments of one frame's events."""
    received = rfc3339(ticket.received)
    outcome = NO_FRAME if ticket.outcome == REFUSED else ticket.outcome
    head = f"1%s{outcome}"
    for envelope in ticket.envelopes:
        _render(envelope, ticket, head, received, args)
        head = f"0%s{outcome}"


def _spoil(ticket: Ticket, error: Exception) -> None:
    """Turn a frame whose events can't be written into an undecodable one, in place."""
    raw = ticket.message.raw
    reason = f"device plugin {ticket.protocol}: its event can't be written: {type(error).__name__}: {error}"
    attributes = {"reason": reason[:300], "frame": raw[:DEAD_BYTES].hex(), "frame_bytes": len(raw)}
    received = rfc3339(ticket.received)
    digest = event_digest(ticket.message.ident or "", ticket.protocol, raw, "frame.undecodable", 0, received)
    ticket.outcome = UNDECODABLE
    ticket.envelopes = [Envelope(digest, "frame.undecodable", ticket.received, None, attributes)]


def _render(envelope: Envelope, ticket: Ticket, head: str, received: str, args: list[str | bytes]) -> None:
    """The arguments of one event, in the order of the script."""
    digest, kind, time, device_time, attributes = envelope
    letter = _LETTER[kind]
    if None in attributes.values() or "" in attributes.values():  # unknown is absent
        attributes = {name: value for name, value in attributes.items() if value is not None and value != ""}
    stamp = "" if device_time is None else str(int(device_time * 1000))
    common = (digest[:8], stamp, digest.hex(), kind, rfc3339(time), received, ticket.protocol)
    if letter != "p":
        args += (letter + head % "0", *common, orjson.dumps(attributes))
        return
    link = ticket.link
    session = ticket.session
    take = attributes.pop
    latitude, longitude = take("latitude", None), take("longitude", None)
    altitude, speed = take("altitude_m", None), take("speed_kmh", None)
    rest = (
        _FLAG[take("valid", None)],
        str(take("satellites", "")),
        _FLAG[take("ignition", None)],
        _FLAG[take("immobilizer", None)],
        _FLAG[take("external_power", None)],
        str(take("battery_pct", "")),
        str(take("odometer_km", "")),
        ",".join(take("levels", ())),
        take("status_word", ""),
        take("late", ""),
        take("transport", "") or (link.transport_name if link is not None else session.transport if session else ""),
        link.peer if link is not None else session.peer if session is not None else "",
    )
    course = str(take("course_deg", ""))
    if not (course + "".join(rest)).isascii():
        raise ValueError("a column holds something else than ASCII")
    data = orjson.dumps(attributes) if attributes else b"{}"
    mode = "1"
    if kind == "position" and session is not None:
        mode = "3" if rest == session.shown else "2"
        session.shown = rest
    args += (
        letter + head % mode,
        *common,
        "" if latitude is None else f"{latitude:.6f}",
        "" if longitude is None else f"{longitude:.6f}",
        "" if altitude is None else f"{altitude:g}",
        "" if speed is None else f"{speed:.2f}",
        course,
    )
    args += rest
    args.append(data)


_FLAG: Final = {None: "", True: "1", False: "0"}


def outcomes(answer: Answer, order: Sequence[Ticket]) -> dict[int, tuple[str, list[tuple[Envelope, str]]]]:
    """The outcome of each frame of which an event was not simply published, and which events were refused why."""
    reasons = iter(answer.reasons)
    found: dict[int, tuple[str, list[tuple[Envelope, str]]]] = {}
    places: Counter[int] = Counter()
    for code, ticket in zip(answer.codes, order, strict=True):
        which = id(ticket)
        envelope = ticket.envelopes[places[which]]
        places[which] += 1
        before, refusals = found.get(which, ("", []))
        if code == "r":
            refusals.append((envelope, next(reasons, "")))
        if not before or code == "r" or (code == "p" and before == "d"):
            found[which] = (code, refusals)
    return found
