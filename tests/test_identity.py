"""Who is let in, and two senders of one ident, at the publisher: what is published, answered, closed and told."""

from __future__ import annotations

import json
from typing import Any

from gateway.events import Event
from gateway.identity import SAID, Mode, Senders, Strangers
from gateway.interfaces import Message
from gateway.publisher import Bounds, Publisher
from gateway.session import Stored
from gateway.sessions import Sessions
from tests.fakes import NOON, RecordingLink, by_type
from tests.test_publisher import IDENT, PublisherCase

BERLIN, MUNICH = (52.52, 13.405), (48.137, 11.575)


class ModeTests(PublisherCase):
    """C{[identity] mode}."""

    def in_mode(self, mode: Mode) -> None:
        """A publisher that lets in whom that mode does."""
        self.make(Bounds())
        self.sessions = Sessions(mode=mode)
        self.publisher = Publisher(self.clock, self.sink, self.sessions, Bounds())

    def report(self, n: int = 1) -> Message:
        """A report that would be answered."""
        event = Event("position", NOON + n, {"speed_kmh": float(n)})
        return Message(f"report {n};".encode(), IDENT, (event,), reply=lambda now: b"ok", refusal=b"no")

    def types(self) -> list[str]:
        """What was published."""
        return [entry["type"] for entry in self.sink.events]

    def test_open(self) -> None:
        """Every ident is taken as it comes."""
        self.in_mode("open")
        self.take(self.report())
        self.answer_all()
        self.assertEqual(["device.connected", "position"], self.types())

    def test_known(self) -> None:
        """What is not in the registry is recorded with what it sent, refused, and closed."""
        self.in_mode("known")
        self.take(self.report())
        self.answer_all()
        self.assertEqual(["frame.unauthorised", "device.unknown"], self.types())
        self.assertEqual(([b"no"], True), (self.link.written, bool(self.link.closed)))
        (unknown,) = by_type(self.sink.events, "device.unknown")
        data = json.loads(unknown["data"])
        self.assertEqual((IDENT, "it is not in the registry"), (unknown["ident"], data["reason"]))
        self.assertEqual((b"report 1;".hex(), self.link.peer), (data["frame"], data["peer"]))
        self.assertEqual({"unauthorised": 1}, self.outcomes())
        self.assertBalanced()

    def test_said_once_an_hour(self) -> None:
        """Each of its frames is recorded; that it is there is said once an hour."""
        self.in_mode("known")
        for minute in range(0, 130, 10):
            self.clock.advance(600 if minute else 0)
            self.take(self.report(minute))
            self.answer_all()
        self.assertEqual(13, len(by_type(self.sink.events, "frame.unauthorised")))
        self.assertEqual(3, len(by_type(self.sink.events, "device.unknown")))

    def test_known_and_there(self) -> None:
        """What is in the registry is let in."""
        self.in_mode("known")
        self.sink.stored[IDENT] = Stored(known=True, registry={"device_id": "van 7"})
        self.take(self.report())
        self.answer_all()
        self.assertEqual(["device.connected", "position"], self.types())

    def test_adopted(self) -> None:
        """A device that is put into the registry is let in with its next frame."""
        self.in_mode("quarantine")
        self.take(self.report(1))
        self.answer_all()
        self.publisher.register(IDENT, {"device_id": "van 7"})
        self.turn()
        self.answer_all()
        self.take(self.report(2))
        self.answer_all()
        expected = ["frame.unauthorised", "device.unknown", "device.connected", "position"]
        self.assertEqual(expected, self.types())
        self.assertEqual("van 7", by_type(self.sink.events, "position")[0]["device_id"])

    def test_adopted_before_it_is_answered(self) -> None:
        """A device that is adopted while its first frame is on the way to the dead stream is not closed for it."""
        self.in_mode("known")
        self.take(self.report(1))
        self.publisher.register(IDENT, {"device_id": "van 7"})
        self.answer_all()
        self.assertFalse(self.link.closed)

    def test_quarantine(self) -> None:
        """It may stay; what it sends is recorded, neither published nor acknowledged."""
        self.in_mode("quarantine")
        self.take(self.report(1), self.report(2))
        self.answer_all()
        self.assertEqual(["frame.unauthorised"] * 2 + ["device.unknown"], sorted(self.types(), reverse=True))
        self.assertNotIn(b"ok", self.link.written)
        self.assertFalse(self.link.closed)
        self.assertEqual({"unauthorised": 2}, self.outcomes())

    def test_disabled_in_quarantine(self) -> None:
        """What the registry disables is closed in quarantine, too."""
        self.in_mode("quarantine")
        self.sink.stored[IDENT] = Stored(known=True, registry={"enabled": "0"})
        self.take(self.report())
        self.answer_all()
        self.assertTrue(self.link.closed)
        self.assertEqual(["frame.unauthorised", "device.rejected"], self.types())

    def test_disabled_while_it_is_live(self) -> None:
        """A device that is disabled is closed at once, and stays out when it comes again."""
        self.in_mode("open")
        self.take(self.report(1))
        self.answer_all()
        self.publisher.register(IDENT, {"enabled": "0"})
        self.turn()
        self.answer_all()
        self.assertTrue(self.link.closed)
        (ended,) = by_type(self.sink.events, "device.disconnected")
        self.assertEqual("the registry says enabled 0", json.loads(ended["data"])["reason"])
        again = RecordingLink("192.0.2.7:4712")
        self.take(self.report(2), link=again)
        self.answer_all()
        self.assertTrue(again.closed)
        self.assertEqual([b"no"], again.written)
        self.clock.advance(1000)
        self.publisher.tick(self.clock.seconds())
        self.turn()
        self.answer_all()
        self.assertEqual(1, len(by_type(self.sink.events, "device.disconnected")))

    def test_taken_out_while_it_is_live(self) -> None:
        """A device that is taken out of the registry is turned away where the registry decides."""
        self.in_mode("known")
        self.sink.stored[IDENT] = Stored(known=True, registry={"device_id": "van 7"})
        self.take(self.report(1))
        self.answer_all()
        self.publisher.register(IDENT, {})
        self.turn()
        self.assertTrue(self.link.closed)

    def test_redis_away(self) -> None:
        """While nobody can say what the registry holds a device is taken in, and turned away once that is known."""
        self.in_mode("known")
        self.sink.stored[IDENT] = Stored(unknown=True)
        self.take(self.report(1))
        self.answer_all()
        self.assertEqual(["position"], self.types())
        self.sink.stored[IDENT] = Stored(known=True)
        self.publisher.restore()
        self.turn()
        self.answer_all()
        self.assertTrue(self.link.closed)
        self.take(self.report(2), link=RecordingLink("192.0.2.7:4712"))
        self.answer_all()
        self.assertEqual("frame.unauthorised", by_type(self.sink.events, "frame.unauthorised")[0]["type"])


class StrangersTests(PublisherCase):
    """Who was spoken of lately."""

    def test_bounded(self) -> None:
        """So many are remembered; the one before them is forgotten, and spoken of again."""
        strangers = Strangers()
        for n in range(SAID + 1):
            self.assertTrue(strangers.news("device.unknown", str(n), NOON))
        self.assertFalse(strangers.news("device.unknown", "1", NOON))
        self.assertTrue(strangers.news("device.unknown", "0", NOON))


class ConflictTests(PublisherCase):
    """C{device.identity.conflict}."""

    def setUp(self) -> None:
        super().setUp()
        self.sink.stored[IDENT] = Stored(known=True, held=True)
        self.a, self.b = RecordingLink("192.0.2.7:4711"), RecordingLink("198.51.100.9:5000")

    def send(self, link: RecordingLink, place: tuple[float, float] = BERLIN, **attributes: Any) -> None:
        """A report of now, after 10 s, and its outcome."""
        self.wait(10)
        now = self.clock.seconds()
        at = attributes.pop("at", now)
        said = {"latitude": place[0], "longitude": place[1], "speed_kmh": 0.0, "valid": True} | attributes
        self.take(Message(f"at {at}".encode(), IDENT, (Event("position", at, said),)), link=link)
        self.answer_all()

    def wait(self, seconds: int) -> None:
        """Time passes."""
        for _ in range(seconds):
            self.clock.advance(1)
            self.publisher.tick(self.clock.seconds())

    def conflicts(self) -> list[dict[str, Any]]:
        """What was said of it."""
        return [json.loads(entry["data"]) for entry in by_type(self.sink.events, "device.identity.conflict")]

    def test_interleaved(self) -> None:
        """Two that report in turn are noticed when the first one speaks again; nothing of theirs is held back."""
        for link in (self.a, self.a, self.b):
            self.send(link)
        self.assertEqual([], self.conflicts())
        self.send(self.a)
        (raised,) = self.conflicts()
        self.assertEqual(("raised", [self.a.peer, self.b.peer]), (raised["phase"], raised["peers"]))
        self.assertEqual("interleaved", raised["evidence"]["kind"])
        for link in (self.b, self.a, self.b, self.a):
            self.send(link)
        self.assertEqual(1, len(self.conflicts()))
        self.assertEqual(8, len(by_type(self.sink.events, "position")))

    def test_reconnects(self) -> None:
        """A device that connects anew from ever other addresses, with reports of its buffer, is no two."""
        for n in range(20):
            link = RecordingLink(f"192.0.2.{n % 3}:{4000 + n}")
            self.send(link)
            self.send(link, at=self.clock.seconds() - 300, late="device")
        self.assertEqual([], self.conflicts())

    def test_left_over(self) -> None:
        """What an old connection still held when the device had a new one already is no second sender."""
        self.send(self.a)
        self.send(self.b)
        self.send(self.a, at=self.clock.seconds() - 15)
        self.send(self.b)
        self.send(self.a, at=self.clock.seconds())  # the very time that was the newest: as of a clock that stands still
        self.assertEqual([], self.conflicts())

    def test_long_ago(self) -> None:
        """Who speaks from an old address after more than two intervals may have it again."""
        for link in (self.a, self.b):
            self.send(link)
        self.wait(100)
        self.send(self.a)
        self.assertEqual([], self.conflicts())

    def test_speed(self) -> None:
        """Two fixes that no vehicle can go between within the time are two senders at once; the first is the first."""
        self.send(self.a, BERLIN)
        self.send(self.b, MUNICH)
        (raised,) = self.conflicts()
        self.assertEqual(("speed", [self.a.peer, self.b.peer]), (raised["evidence"]["kind"], raised["peers"]))
        self.assertGreater(raised["evidence"]["speed_kmh"], 300)
        session = self.sessions.get(IDENT)
        assert session is not None
        self.assertIs(self.a, session.link)
        self.send(self.b, MUNICH)
        self.assertIs(self.a, session.link)

    def test_speed_that_can_be(self) -> None:
        """300 km/h from one peer to the next, give or take what fixes are off, is a train; a bit more is none."""
        degree = 111_320.0
        for metres, found in ((800 + 1000, 0), (900 + 1000, 1)):
            self.setUp()
            self.send(self.a, (0.0, 0.0))
            self.send(self.b, (metres / degree, 0.0))  # 10 s later: 288 and 324 km/h
            self.assertEqual(found, len(self.conflicts()), metres)

    def test_one_peer_that_jumps(self) -> None:
        """Fixes of one sender that jump are its receiver's affair."""
        for place in (BERLIN, MUNICH, BERLIN):
            self.send(self.a, place)
        self.assertEqual([], self.conflicts())

    def test_flown(self) -> None:
        """A device that was switched off on a flight is where it is."""
        self.send(self.a, BERLIN)
        self.wait(901)
        self.send(self.b, MUNICH)
        self.assertEqual([], self.conflicts())

    def test_told_where_it_was_first(self) -> None:
        """While two send, commands go to who was first, also when that one connects anew; never to the other."""
        for link in (self.a, self.a, self.b, self.a, self.b):
            self.send(link)
        session = self.sessions.get(IDENT)
        assert session is not None
        self.assertIs(self.a, session.link)
        self.a.ready = None  # its connection is gone
        self.send(self.b)
        self.assertIs(self.a, session.link)
        again = RecordingLink("192.0.2.7:4799")
        self.send(again)
        self.assertIs(again, session.link)
        self.send(self.b)
        self.assertIs(again, session.link)

    def test_over(self) -> None:
        """When only one has spoken for ten minutes it is over, and said so."""
        for link in (self.a, self.a, self.b, self.a):
            self.send(link)
        for _ in range(65):
            self.send(self.a)
        _, cleared = self.conflicts()
        self.assertEqual("cleared", cleared["phase"])
        (event, _) = by_type(self.sink.events, "device.identity.conflict")
        self.assertEqual(event["id"], cleared["raised_id"])
        session = self.sessions.get(IDENT)
        assert session is not None
        self.assertFalse(session.contested)

    def test_another_instance(self) -> None:
        """What one worker knows of the senders is known to the next one that gets the device."""
        for link in (self.a, self.a, self.b):
            self.send(link)
        session = self.sessions.get(IDENT)
        assert session is not None
        self.sink.stored[IDENT] = Stored(True, True, newest=session.newest, state=session.dump())
        now = self.clock.seconds()
        self.make(Bounds())
        self.sink.stored[IDENT] = Stored(True, True, newest=session.newest, state=session.dump())
        self.clock.advance(now - self.clock.seconds())
        self.send(self.a)
        (raised,) = self.conflicts()
        self.assertEqual([self.a.peer, self.b.peer], raised["peers"])
        # and that there is a conflict, to the one after it
        session = self.sessions.get(IDENT)
        assert session is not None
        kept = session.dump()
        self.make(Bounds())
        self.sink.stored[IDENT] = Stored(True, True, newest=session.newest, state=kept)
        self.clock.advance(now + 20 - self.clock.seconds())
        self.send(self.b)
        self.assertEqual([], self.conflicts())
        session = self.sessions.get(IDENT)
        assert session is not None
        self.assertTrue(session.contested)

    def test_kept(self) -> None:
        """What is stored of senders comes back as it was."""
        senders = Senders("a:1", NOON, 20.0)
        senders.before, senders.first = "b:2", "b:2"
        self.assertEqual(senders.dump(), Senders.load(senders.dump()).dump())

    def test_nothing_is_kept_of_one(self) -> None:
        """A device that has moved from one address to another some time ago takes no memory for it."""
        self.send(self.a)
        for _ in range(10):
            self.send(self.b)
        session = self.sessions.get(IDENT)
        assert session is not None
        session.dump()
        self.assertIsNone(session.senders)
