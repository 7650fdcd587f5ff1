"""Batches that are given to Redis as one lead to what they lead to one by one: with the script, on a real server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.batches import Group, gather, merged
from gateway.events import Event
from gateway.interfaces import Message
from gateway.records import render
from gateway.session import Envelope, Session, Stored
from gateway.sessions import Sessions
from gateway.tickets import NO_FRAME, PUBLISHED, UNDECODABLE, Ticket
from tests.integration.parts import RealPartsTestCase, connect
from tests.integration.test_script import STORE

IDENTS = ("9170000001", "9170000002", "9170000003")
STREAMS = ("position", "event", "link", "dead")

#: What happens to a device: what, which one, how long before now its time is, and a number.
HAPPENS = st.tuples(
    st.sampled_from(["report", "report", "moved", "status", "alarm", "again", "gone", "own", "broken", "nobody"]),
    st.sampled_from(IDENTS),
    st.integers(0, 300),
    st.integers(0, 5),
)
BATCHES = st.lists(
    st.tuples(st.sampled_from([0, 1, 70]), st.lists(HAPPENS, min_size=1, max_size=6)), min_size=1, max_size=6
)


class Fleet:
    """Some devices, and what becomes of what they send."""

    def __init__(self, now: float, unknown: bool) -> None:
        self.now = now
        self.unknown = unknown
        self.sessions = Sessions()
        self.sent: dict[str, list[Ticket]] = {ident: [] for ident in IDENTS}

    def session(self, ident: str) -> Session:
        """The live session of a device."""
        session = self.sessions.get(ident)
        if session is None:
            session = self.sessions.begin(ident, self.now)
            self.sessions.load(session, Stored(unknown=self.unknown), self.now)
            session.meet("192.0.2.7:4711", "tcp", "st907", self.now)
        return session

    def happens(self, what: str, ident: str, age: int, n: int) -> Ticket:
        """What a device sends, or what happens to its session, on its way to the store."""
        session, when = self.session(ident), self.now - age
        if what == "again" and self.sent[ident]:
            return self.sent[ident][n % len(self.sent[ident])]
        if what == "gone":
            self.sessions.drop(ident)
            self.sent[ident] = []
            return self.ticket(Message(b"", ident), session, self.own("device.disconnected"), outcome=NO_FRAME)
        if what == "own":
            return self.ticket(Message(b"", ident), session, self.own("alarm.overspeed"), outcome=NO_FRAME)
        if what in ("broken", "nobody"):
            name = ident if what == "broken" else ""
            dead = self.own("frame.undecodable")
            return self.ticket(Message(b"?", name), None, dead, outcome=UNDECODABLE)
        kind = "status" if what == "status" else "position"
        where = {} if what == "status" else {"latitude": 1.0 + n, "longitude": 2.0, "speed_kmh": float(n)}
        levels = {"overspeed": n % 2 == 1} if what == "alarm" else {}
        raw = f"{what} {ident} {when} {n}".encode()
        rest: dict[str, Any] = {"battery_pct": n} if what in ("status", "alarm") else {}
        message = Message(raw, ident, (Event(kind, when, where | rest),), levels)
        session.memory["n"] = n
        envelopes = self.sessions.judge(session, message, "st907", self.now)
        ticket = self.ticket(message, session, *envelopes, outcome=PUBLISHED)
        self.sent[ident].append(ticket)
        return ticket

    def own(self, kind: str) -> Envelope:
        """An event that is of no frame."""
        self.now += 0.001
        digest = f"{kind[-8:]}{self.now:.3f}".encode()[-16:].ljust(16)
        return Envelope(digest, kind, self.now, None, {"reason": "x"})

    def ticket(self, message: Message, session: Session | None, *envelopes: Envelope, outcome: str) -> Ticket:
        """Events on their way to the store."""
        ticket = Ticket(message, None, "st907", self.now, session, outcome)
        ticket.records = [
            render(envelope, message, session, None, "st907", self.now, outcome, first=at == 0)
            for at, envelope in enumerate(envelopes)
        ]
        return ticket


class MergingTests(RealPartsTestCase):
    """Whatever the batches hold."""

    def setUp(self) -> None:
        """A server."""
        super().setUp()
        self.client = connect(self.running_redis().url)
        self.addCleanup(self.client.close)

    def store(self, batches: Sequence[Sequence[bytes]], now: float) -> None:
        """Give the script one batch after the other, from number 1 on, on an empty server."""
        self.client.flushall()
        for number, groups in enumerate(batches, 1):
            head: Sequence[Any] = (
                "gateway:", number, "a", "a", "gateway/a", int(now * 1000), 900, 0, 0, len(groups), 0, 0, 0, 0, 0, 0,
                "2026-11-22T12:00:00.000Z",
            )  # fmt: skip
            answer = self.client.eval(STORE, 1, "gateway:producer:a", *head, *groups)
            self.assertEqual(("ok", number, []), (answer[0], answer[1], answer[5]))

    def found(self) -> dict[str, Any]:
        """What is on the server: each device's entries in order, and what is kept of it."""
        found: dict[str, Any] = {}
        for stream in STREAMS:
            for _, entry in self.client.xrange(f"gateway:{stream}"):
                found.setdefault(f"{stream} of {entry['ident']}", []).append(entry)
        for ident in IDENTS:
            for kind in ("last", "state"):
                kept = self.client.hgetall(f"gateway:{kind}:{ident}")
                # one batch has one time; and a device that came back with a late report in the batch in which its
                # session ended is shown as away until its next live report
                for name in ("seen", "online"):
                    kept.pop(name, "")
                found[f"{kind} of {ident}"] = kept, self.client.ttl(f"gateway:{kind}:{ident}") > 0
        found["ledger"] = self.client.hgetall("gateway:ledger:a")
        return found

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(BATCHES, st.booleans())
    def test_as_one_by_one(
        self, batches: Sequence[tuple[int, Sequence[tuple[str, str, int, int]]]], unknown: bool
    ) -> None:
        """The same entries in the same order for each device, the same state, and the same counts."""
        fleet = Fleet(time.time() - 1000, unknown)
        stored: list[list[bytes]] = []
        for later, happens in batches:
            fleet.now += later
            stored.append(gather([fleet.happens(*what) for what in happens], fleet.now).groups)
        self.store(stored, fleet.now)
        one_by_one = self.found()
        together = merged(group for groups in stored for group in groups)
        self.store([together], fleet.now)
        self.maxDiff = None
        self.assertEqual(one_by_one, self.found())

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(BATCHES)
    def test_taken_apart(self, batches: Sequence[tuple[int, Sequence[tuple[str, str, int, int]]]]) -> None:
        """A group that is taken apart and put together is as it was, and its records are those of its events."""
        fleet = Fleet(time.time() - 1000, unknown=False)
        for later, happens in batches:
            fleet.now += later
            tickets = [fleet.happens(*what) for what in happens]
            gathered = gather(tickets, fleet.now)
            records = [record for ticket in gathered.order for record in ticket.records]
            for packed in gathered.groups:
                group = Group.parse(packed)
                self.assertEqual(packed, group.packed())
                self.assertEqual(records[: int(group.events)], group.each())
                del records[: int(group.events)]
            self.assertEqual(gathered.groups, merged(gathered.groups))
