"""The server-side script by itself, on a real server: numbers, duplicates, newest, and devices that another holds."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import ResponseError

import gateway.sinks
from gateway.batches import gather
from gateway.events import Event
from gateway.interfaces import Message
from gateway.records import render
from gateway.session import DIGEST_BYTES, ENTRY_BYTES, Envelope, Session, Stored
from gateway.sessions import Sessions
from gateway.sinks.redis import RECORD_BYTES, _stored
from gateway.tickets import NO_FRAME, PUBLISHED, Ticket
from tests.integration.parts import RealPartsTestCase, connect, entries, ledger

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

    def restarted(self) -> Producer:
        """The same gateway after a restart, which knows of the device what the store gives back."""
        again = self.forgetful()
        row = self.client.execute_command("EVAL", BEGIN, 0, "gateway:", self.instance, 900, IDENT, NEVER_DECODE=True)
        again.sessions.load(again.session, _stored(row[0]), time.time())
        return again

    def forgetful(self) -> Producer:
        """The same gateway, which knows nothing of the device: what is a copy is for the script to tell."""
        again = Producer(self.client, self.instance)
        again.number = self.number
        return again

    def report(self, when: float, received: float | None = None, **attributes: Any) -> Ticket:
        """A report of the device on its way to the store."""
        raw = f"{when} {attributes}".encode()
        message = Message(raw, IDENT, (Event("position", when, attributes),), {"ignition": True})
        (envelope, *_) = self.sessions.judge(self.session, message, "st907", received or time.time())
        return self.ticket(message, envelope, outcome=PUBLISHED)

    def alarm(self, when: float) -> Ticket:
        """A frame of two events, a position and an alarm."""
        events = (Event("position", when, {}), Event("alarm.sos", when, {"phase": "raised"}))
        message = Message(f"help at {when}".encode(), IDENT, events)
        envelopes = self.sessions.judge(self.session, message, "st907", time.time())
        return self.ticket(message, *envelopes, outcome=PUBLISHED)

    def own(self, kind: str) -> Ticket:
        """An event of the gateway's own about the device."""
        envelope = Envelope(f"{kind} {time.time()}".encode()[:16].ljust(16), kind, time.time(), None, {"phase": "x"})
        return self.ticket(Message(b"", IDENT), envelope, outcome=NO_FRAME)

    def ticket(self, message: Message, *envelopes: Envelope, outcome: str) -> Ticket:
        """A frame's events on their way to the store."""
        now = time.time()
        ticket = Ticket(message, None, "st907", now, self.session, outcome)
        ticket.records = [
            render(envelope, message, self.session, None, "st907", now, outcome, first=number == 0)
            for number, envelope in enumerate(envelopes)
        ]
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


class ScriptCase(RealPartsTestCase):
    """The script on a server of its own, and the gateways that use it."""

    def set_up(self) -> None:
        """A server and two gateways."""
        self.client = connect(self.running_redis().url)
        self.addCleanup(self.client.close)
        self.a, self.b = Producer(self.client, "a"), Producer(self.client, "b")


class ScriptTests(ScriptCase):
    """What the script does with batches of one and of two gateways."""

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

    def test_again_is_a_write(self) -> None:
        """A number again writes, without a change: WAIT has something to wait for, and a replica does not say yes."""
        self.set_up()
        report = self.a.report(time.time())
        self.a.store(report)
        self.client.expire("gateway:producer:a", 100)
        self.assertEqual("already", self.a.store(report, number=1)[0])
        self.assertGreater(self.client.ttl("gateway:producer:a"), 86_400)
        self.client.replicaof("127.0.0.1", 1)
        with self.assertRaises(ResponseError) as caught:
            self.a.store(report, number=1)
        self.assertIn("READONLY", f"{type(caught.exception).__name__} {caught.exception}".upper())

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

    def test_fix_that_was(self) -> None:
        """A report without a fix leaves where the device was last, and when: of an earlier batch or of its own."""
        self.set_up()
        now = time.time()
        self.a.store(self.a.report(now - 9, latitude=1.0, longitude=2.0))
        self.assertNotIn("fix_time", self.last())
        self.a.store(self.a.report(now - 8, valid=False), self.a.report(now - 7, valid=False))
        first = entries(self.client)[0]
        last = self.last()
        self.assertEqual(("", ""), (last["latitude"], last["longitude"]))
        fix = ("fix_latitude", "fix_longitude", "fix_time")
        self.assertEqual(("1.000000", "2.000000", first["time"]), tuple(last[name] for name in fix))
        self.a.store(self.a.report(now - 6, valid=False))
        self.assertEqual(first["time"], self.last()["fix_time"])
        self.a.store(
            self.a.report(now - 5, latitude=3.0, longitude=4.0),
            self.a.report(now - 4, valid=False),
        )
        last = self.last()
        self.assertEqual(("3.000000", "4.000000"), tuple(last[name] for name in fix[:2]))
        self.assertEqual(entries(self.client)[-2]["time"], last["fix_time"])

    def test_last_frame(self) -> None:
        """With a device's private state goes the frame that it sent last, for whoever asks what it says."""
        self.set_up()
        now = time.time()
        self.a.store(self.a.report(now - 9), self.a.report(now - 8))
        state = json.loads(self.client.hget(f"gateway:state:{IDENT}", "private"))
        self.assertEqual(f"{now - 8} {{}}", bytes.fromhex(state["raw"]).decode())
        self.assertAlmostEqual(now, state["raw_at"], delta=5)

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

    def test_asked_for(self) -> None:
        """Whoever asks is told whether another one has held a device since, and may leave it to that."""
        self.set_up()
        self.a.store(self.a.report(time.time() - 9))

        def ask(who: str, ttl: int) -> Stored:
            row = self.client.execute_command("EVAL", BEGIN, 0, "gateway:", who, ttl, IDENT, NEVER_DECODE=True)
            return _stored(row[0])

        self.assertTrue(ask("a", 0).mine)
        self.assertFalse(ask("b", 0).mine)
        self.assertTrue(ask("a", 900).mine, "b only looked")
        self.assertEqual("a", self.client.get(f"gateway:session:{IDENT}"))
        self.assertFalse(ask("b", 900).mine)
        self.assertTrue(ask("b", 900).mine)
        self.assertFalse(ask("a", 0).mine)
        self.assertEqual("b", self.client.get(f"gateway:session:{IDENT}"))

    def test_status_and_position(self) -> None:
        """What a status says goes into the last state, and the next position's columns again."""
        self.set_up()
        now = time.time()
        self.a.store(self.a.report(now - 9, battery_pct=80))
        status = Message(b"status", IDENT, (Event("status", now - 8, {"battery_pct": 20}),))
        (envelope, *_) = self.a.sessions.judge(self.a.session, status, "st907", now)
        self.a.store(self.a.ticket(status, envelope, outcome=PUBLISHED))
        self.assertEqual("20", self.last()["battery_pct"])
        self.a.store(self.a.report(now - 7, battery_pct=80))
        self.assertEqual("80", self.last()["battery_pct"])

    def test_columns_of_another(self) -> None:
        """A gateway that no longer holds a device writes all columns of its report, not only what changed for it."""
        self.set_up()
        now = time.time()
        self.a.store(self.a.report(now - 9, battery_pct=80))
        self.client.setrange(f"gateway:recent:{IDENT}", 0, "b" * 16)
        self.b.store(self.b.report(now - 8, battery_pct=20))
        self.a.store(self.a.report(now - 7, battery_pct=80))
        self.assertEqual("80", self.last()["battery_pct"])

    def test_report_and_end_in_one_batch(self) -> None:
        """A session that ends in the batch of its last report is at its end."""
        self.set_up()
        now = time.time()
        self.a.store(self.a.report(now - 9), self.a.own("device.disconnected"))
        self.assertEqual("0", self.last()["online"])
        self.assertIsNone(self.client.get(f"gateway:session:{IDENT}"))

    def test_copies_in_two_sessions(self) -> None:
        """A copy that came in another session of its device, in the same batch, is a duplicate."""
        self.set_up()
        now = time.time()
        again = self.a.forgetful()
        answer = self.a.store(self.a.report(now - 9), again.report(now - 9))
        self.assertEqual(("pd", 1), (answer[2], len(entries(self.client))))

    def test_reading_is_refused(self) -> None:
        """Where the script may not read what is remembered, nothing is stored, and the batch can be sent again."""
        self.set_up()
        self.client.execute_command("ACL", "SETUSER", "default", "-mget")
        with self.assertRaises(ResponseError):
            self.a.store(self.a.report(time.time() - 9))
        self.client.execute_command("ACL", "SETUSER", "default", "+mget")
        self.assertEqual("ok", self.a.store(self.a.report(time.time() - 8), number=1)[0])

    def test_deleted_between(self) -> None:
        """What somebody deleted between two refreshes is made anew with an expiry."""
        self.set_up()
        now = time.time()
        self.a.store(self.a.report(now - 9))
        self.client.delete(*(f"gateway:{kind}:{IDENT}" for kind in ("recent", "state", "last")))
        self.a.store(self.a.report(now - 8))
        for kind in ("recent", "last"):
            self.assertGreater(self.client.ttl(f"gateway:{kind}:{IDENT}"), 0, kind)

    def test_reports_of_a_session_that_began_unasked(self) -> None:
        """What a new device sent while Redis was away makes nobody hold it: its session is still to be announced."""
        self.set_up()
        self.a.session.unknown = True
        self.a.store(self.a.report(time.time() - 9))
        self.assertIsNone(self.client.get(f"gateway:session:{IDENT}"))
        row = self.client.execute_command("EVAL", BEGIN, 0, "gateway:", "a", 900, IDENT, NEVER_DECODE=True)
        self.assertEqual((True, False), _stored(row[0])[:2])
        self.assertEqual("a", self.client.get(f"gateway:session:{IDENT}"))

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


class MemoryTests(ScriptCase):
    """What the script remembers of a device's reports, so that none is on the stream twice."""

    def setUp(self) -> None:
        """A server and a gateway."""
        super().setUp()
        self.set_up()
        self.start = time.time() - 100

    def reports(self, producer: Producer, count: int, start: float | None = None) -> list[Ticket]:
        """So many reports, a second apart."""
        return [producer.report((self.start if start is None else start) + 0.5 * n, speed_kmh=n) for n in range(count)]

    def store_one_by_one(self, tickets: Sequence[Ticket]) -> None:
        """Each in a batch of its own, all of them published."""
        for ticket in tickets:
            status, number, codes, *_ = self.a.store(ticket)
            self.assertEqual(("ok", self.a.number, ""), (status, number, codes))

    def codes(self, producer: Producer, tickets: Sequence[Ticket]) -> str:
        """What became of them, a letter each."""
        answers = [producer.store(*tickets[at : at + 64]) for at in range(0, len(tickets), 64)]
        return "".join(answer[2] or "p" * len(tickets[64 * n :][:64]) for n, answer in enumerate(answers))

    def ids(self) -> list[str]:
        """How the ids on the stream begin, oldest first."""
        return [entry["id"][: 2 * DIGEST_BYTES] for entry in entries(self.client)]

    def newest_ids(self) -> int:
        """How many are remembered among the newest."""
        return (int(self.client.strlen(RECENT_KEY)) - HEAD) // RECORD_BYTES

    def older_ids(self) -> int:
        """How many are remembered as older."""
        return int(self.client.hstrlen(STATE_KEY, "older")) // DIGEST_BYTES

    def test_among_the_newest(self) -> None:
        """A report that comes again soon is a duplicate, also within one batch."""
        one, two = self.reports(self.a, 2)
        self.assertEqual("pd", self.a.store(one, one)[2])
        self.assertEqual("dpd", self.a.store(one, two, two)[2])
        self.assertEqual((2, 0), (self.newest_ids(), self.older_ids()))
        self.assertEqual(2, len(entries(self.client)))

    def test_after_a_move(self) -> None:
        """When there are more than 16, their ids move, and none is forgotten; newest stays the newest."""
        seen = set()
        for ticket in self.reports(self.a, 40):
            self.store_one_by_one([ticket])
            self.assertLessEqual(self.newest_ids(), 16)
            seen.add(self.newest_ids() + self.older_ids())
        self.assertEqual({*range(1, 41)}, seen)
        again = self.a.forgetful()
        self.assertEqual("d" * 40, self.codes(again, self.reports(again, 40)))
        self.assertEqual(40, len(entries(self.client)))

    def test_many_in_one_batch(self) -> None:
        """Those of a device's first batch stay together, and move with the next report."""
        for count in (50, 51):
            tickets = self.reports(self.a, count)
            self.a.store(*tickets)
            again = self.a.forgetful()
            self.assertEqual("d" * count, self.codes(again, self.reports(again, count)))
            self.a.number = again.number
        self.assertEqual((1, 50), (self.newest_ids(), self.older_ids()))

    def test_bounded(self) -> None:
        """Of a device that sends no late reports the last 64 are remembered, and those among the newest."""
        self.store_one_by_one(self.reports(self.a, 150))
        self.assertEqual(64, self.older_ids())
        again = self.a.forgetful()
        self.assertEqual("d" * 64, self.codes(again, self.reports(again, 150)[-64:]))

    def test_late_reports(self) -> None:
        """Of one that sends late reports it is 512; further back nothing is."""
        old = time.time() - 7200
        self.assertEqual("p" * 640, self.codes(self.a, self.reports(self.a, 640, old)))
        self.assertEqual(512, self.older_ids())
        again = self.a.forgetful()
        tickets = self.reports(again, 640, old)
        self.assertEqual("d" * 512, self.codes(again, tickets[-512:]))
        self.assertEqual("p", self.codes(again, tickets[:1]))

    def test_live_after_late(self) -> None:
        """Once it has sent late reports it is remembered that far back when it is live again."""
        old = time.time() - 7200
        self.codes(self.a, self.reports(self.a, 300, old))
        self.store_one_by_one(self.reports(self.a, 40))
        again = self.a.forgetful()
        self.assertEqual("d" * 300, self.codes(again, self.reports(again, 300, old)))

    def test_given_back(self) -> None:
        """A gateway that starts again is given all of them, oldest first, and the newest device time."""
        for count in (1, 16, 17, 40):
            self.client.flushall()
            self.a.number = 0
            self.a.session = self.a.begin()
            self.store_one_by_one(self.reports(self.a, count))
            session = self.a.restarted().session
            kept = [session.recent[at : at + DIGEST_BYTES].hex() for at in range(0, len(session.recent), ENTRY_BYTES)]
            self.assertEqual(self.ids(), kept)
            self.assertAlmostEqual(self.start + 0.5 * (count - 1), session.newest or 0.0, delta=0.001)

    def test_after_a_restart(self) -> None:
        """What comes again after a restart of the gateway is a duplicate."""
        self.store_one_by_one(self.reports(self.a, 40))
        again = self.a.restarted()
        self.assertEqual("d" * 40, self.codes(again, self.reports(again, 40)))

    def test_of_the_future(self) -> None:
        """A report whose time was refused is a duplicate when it comes again in its time, however many came between."""
        for between in (0, 3, 40):
            self.client.flushall()
            self.a.number = 0
            self.a.session = self.a.begin()
            now = time.time()
            self.store_one_by_one([*self.reports(self.a, 2), self.a.report(now + 600)])
            self.store_one_by_one(self.reports(self.a, 2 + between)[2:])
            again = self.a.forgetful()
            self.assertEqual("d", self.codes(again, [again.report(now + 600, received=now + 600)]), between)
            self.assertEqual("p", self.codes(again, [again.report(now + 601, received=now + 601)]), between)
            self.assertEqual(4 + between, len(entries(self.client)))

    def test_expiry(self) -> None:
        """A move leaves the expiry as it was."""
        self.store_one_by_one(self.reports(self.a, 1))
        for key in (RECENT_KEY, STATE_KEY):
            self.client.expire(key, 1000)
        self.store_one_by_one(self.reports(self.a, 40)[1:])
        self.assertGreater(self.older_ids(), 0)
        for key in (RECENT_KEY, STATE_KEY):
            self.assertIn(self.client.ttl(key), range(900, 1001), key)

    def test_written_by_somebody_else(self) -> None:
        """What is no memory at its key harms nothing: reports are stored, remembered anew and told apart."""
        client = self.client
        for write in (
            lambda: client.set(RECENT_KEY, "hello"),
            lambda: client.set(RECENT_KEY, "x" * (HEAD + RECORD_BYTES + 1)),
            lambda: client.set(RECENT_KEY, ""),
            lambda: client.rpush(RECENT_KEY, "a", "list"),
            lambda: client.hset(RECENT_KEY, "a", "hash"),
            lambda: client.set(STATE_KEY, "no hash"),
            lambda: client.hset(STATE_KEY, "older", "odd"),
        ):
            client.flushall()
            write()
            first = Producer(client, "a").restarted()
            one, two = self.reports(first, 2)
            self.assertEqual(["ok", 1, "", [], []], first.store(one)[:5])
            self.assertEqual("dp", first.store(one, two)[2])
            self.assertEqual(2, len(first.restarted().session.recent) // ENTRY_BYTES)
            self.assertEqual(2, len(entries(client)))

    def test_two_events_in_a_frame(self) -> None:
        """A frame is remembered by its first event: when it comes again none of them is on a stream twice."""
        frame = self.a.alarm(self.start)
        self.assertEqual(2, len(frame.records))
        self.assertEqual("", self.a.store(frame)[2])
        again = self.a.forgetful()
        self.assertEqual("dd", again.store(again.alarm(self.start))[2])
        self.assertEqual((1, 1), (self.client.xlen("gateway:position"), self.client.xlen("gateway:event")))
        self.assertEqual(1, self.newest_ids())
        self.assertEqual({"received": 2, "published": 1, "duplicate": 1}, ledger(self.client))


#: How the memory of the newest reports begins: who holds the device, and whether it sent a time of the future.
HEAD = 17
RECENT_KEY, STATE_KEY = f"gateway:recent:{IDENT}", f"gateway:state:{IDENT}"
_SHOWN = ("latitude", "longitude", "status_word")
