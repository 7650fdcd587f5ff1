"""The server-side script by itself, on a real server: numbers, duplicates, newest, and devices that another holds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gateway.sinks
from gateway.batches import gather
from gateway.events import Event
from gateway.interfaces import Message
from gateway.records import render
from gateway.session import Envelope, Session, Stored
from gateway.sessions import Sessions
from gateway.tickets import NO_FRAME, PUBLISHED, Ticket
from tests.integration.parts import RealPartsTestCase, connect, entries

IDENT = "9170123456"
STORE, BEGIN = (Path(gateway.sinks.__file__).with_name(f"{name}.lua").read_text() for name in ("store", "begin"))


class Producer:
    """One gateway as the script sees it: a producer with sessions of its own."""

    def __init__(self, client: Any, instance: str) -> None:
        self.client = client
        self.instance = instance
        self.number = 0
        self.sessions = Sessions()
        self.session = self.begin()

    def begin(self) -> Session:
        """Begin the session of the device, as with nothing stored."""
        session = self.sessions.begin(IDENT, time.time())
        self.sessions.load(session, Stored(), time.time())
        session.meet("192.0.2.7:4711", "tcp", "st907", time.time())
        return session

    def report(self, when: float, **attributes: Any) -> Ticket:
        """A report of the device on its way to the store."""
        raw = f"{when} {attributes}".encode()
        message = Message(raw, IDENT, (Event("position", when, attributes),), {"ignition": True})
        (envelope, *_) = self.sessions.judge(self.session, message, "st907", time.time())
        return self.ticket(message, envelope, PUBLISHED)

    def own(self, kind: str) -> Ticket:
        """An event of the gateway's own about the device."""
        envelope = Envelope(f"{kind} {time.time()}".encode()[:16].ljust(16), kind, time.time(), None, {"phase": "x"})
        return self.ticket(Message(b"", IDENT), envelope, NO_FRAME)

    def ticket(self, message: Message, envelope: Envelope, outcome: str) -> Ticket:
        """An event on its way to the store."""
        ticket = Ticket(message, None, "st907", time.time(), self.session, outcome)
        ticket.records = [render(envelope, message, self.session, None, "st907", time.time(), outcome, first=True)]
        return ticket

    def store(self, *tickets: Ticket, number: int | None = None) -> list[Any]:
        """Send a batch; the script's answer."""
        self.number += 1
        now = time.time()
        gathered = gather(tickets, now)
        head: Sequence[Any] = (
            "gateway:", self.number if number is None else number, self.instance, self.instance,
            f"gateway/{self.instance}", int(now * 1000), 900, 0, 0, len(gathered.groups), 0, 0, 0, 0, 0, 0,
            time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now)),
        )  # fmt: skip
        answer: list[Any] = self.client.eval(STORE, 1, f"gateway:producer:{self.instance}", *head, *gathered.groups)
        return answer


class ScriptTests(RealPartsTestCase):
    """What the script does with batches of one and of two gateways."""

    def set_up(self) -> None:
        """A server and two gateways."""
        self.client = connect(self.running_redis().url)
        self.addCleanup(self.client.close)
        self.a, self.b = Producer(self.client, "a"), Producer(self.client, "b")

    def last(self) -> dict[str, str]:
        """The device's last state."""
        found: dict[str, str] = self.client.hgetall(f"gateway:last:{IDENT}")
        return found

    def test_numbers(self) -> None:
        """A number is taken once and in order: again is 'already', one left out is 'gap', and neither appends."""
        self.set_up()
        now = time.time()
        self.assertEqual("ok", self.a.store(self.a.report(now - 9))[0])
        self.assertEqual("already", self.a.store(self.a.report(now - 8), number=1)[0])
        status, last, *_ = self.a.store(self.a.report(now - 7), number=3)
        self.assertEqual(("gap", 1), (status, last))
        self.assertEqual(1, len(entries(self.client)))

    def test_360_late_reports_twice(self) -> None:
        """A buffer of 360 records, sent whole twice, is on the stream once each."""
        self.set_up()
        old = time.time() - 7200
        records = [self.a.report(old + 10 * n, speed_kmh=n) for n in range(360)]
        for at in range(0, 360, 90):
            self.a.store(*records[at : at + 90])
        again = Producer(self.client, "c")
        for at in range(0, 360, 90):
            batch = [again.report(old + 10 * n, speed_kmh=n) for n in range(at, at + 90)]
            self.assertEqual("d" * 90, again.store(*batch)[2])
        self.assertEqual(360, len(entries(self.client)))

    def test_older_from_another(self) -> None:
        """An older report of another gateway is late by order, and the last state stays with the newer one."""
        self.set_up()
        now = time.time()
        self.a.store(self.a.report(now - 5, speed_kmh=50.0))
        self.b.store(self.b.report(now - 9, speed_kmh=10.0))
        self.assertEqual(["", "order"], [entry["late"] for entry in entries(self.client)])
        self.assertEqual("50.00", self.last()["speed_kmh"])

    def test_moving_device(self) -> None:
        """The last state follows a moving device, and takes up a change of anything else."""
        self.set_up()
        now = time.time()
        self.a.store(self.a.report(now - 9, latitude=1.0, longitude=2.0, status_word="FFFFFFFF"))
        self.a.store(self.a.report(now - 8, latitude=1.5, longitude=2.5, status_word="FFFFFFFF"))
        last = self.last()
        self.assertEqual(("1.500000", "2.500000", "FFFFFFFF"), tuple(last[k] for k in _SHOWN))
        self.a.store(
            self.a.report(now - 7, latitude=1.6, longitude=2.5, status_word="FFFFFFFB"),
            self.a.report(now - 6, latitude=1.7, longitude=2.5, status_word="FFFFFFFB"),
        )
        last = self.last()
        self.assertEqual(("1.700000", "2.500000", "FFFFFFFB"), tuple(last[k] for k in _SHOWN))
        self.assertEqual(last["position_id"], entries(self.client)[-1]["id"])

    def test_held_by_another(self) -> None:
        """A gateway that no longer holds a device announces nothing of it, and leaves its state alone."""
        self.set_up()
        now = time.time()
        self.a.store(self.a.report(now - 9))
        self.client.execute_command("EVAL", BEGIN, 0, "gateway:", "b", 900, IDENT, NEVER_DECODE=True)
        self.client.hset(f"gateway:state:{IDENT}", "private", "{}")
        self.client.set(f"gateway:session:{IDENT}", "b")
        answer = self.a.store(self.a.own("device.disconnected"), self.a.own("alarm.overspeed"))
        self.assertEqual([IDENT], answer[4])
        self.assertEqual(0, self.client.xlen("gateway:link") + self.client.xlen("gateway:event"))
        self.assertEqual("1", self.last()["online"])
        self.assertEqual("{}", self.client.hget(f"gateway:state:{IDENT}", "private"))
        self.assertEqual("b", self.client.get(f"gateway:session:{IDENT}"))

    def test_end_of_a_session(self) -> None:
        """The end of a session is published, and the last state says so."""
        self.set_up()
        self.a.store(self.a.report(time.time() - 9))
        self.a.store(self.a.own("device.disconnected"))
        self.assertEqual(1, self.client.xlen("gateway:link"))
        self.assertEqual("0", self.last()["online"])
        self.assertIsNone(self.client.get(f"gateway:session:{IDENT}"))

    def test_nothing_for_ever(self) -> None:
        """After FLUSHALL an event of the gateway's own leaves no key of the device without an expiry."""
        self.set_up()
        self.a.store(self.a.report(time.time() - 9))
        self.client.flushall()
        self.a.store(self.a.own("device.disconnected"), self.a.own("alarm.overspeed"), number=1)
        left = [key for key in self.client.keys(f"gateway:*:{IDENT}") if self.client.ttl(key) < 0]
        self.assertEqual([], left)


_SHOWN = ("latitude", "longitude", "status_word")
