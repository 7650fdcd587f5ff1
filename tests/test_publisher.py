"""The publisher: nothing is answered before it is stored, and every frame gets exactly one outcome."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.batches import Group
from gateway.errors import DecodeError
from gateway.events import Event
from gateway.interfaces import Message
from gateway.publisher import BATCH_EVENTS, HERE_S, STOOD_STILL_S, Bounds, Publisher
from gateway.session import Level, Stored
from gateway.sessions import Sessions
from tests.fakes import NOON, RecordingLink, RecordingSink, by_type

OUTCOMES = ("published", "duplicate", "undecodable", "unauthorised", "unrecognised", "refused", "limited", "dropped")
IDENT = "9170225361"


def report(
    n: int = 0,
    ident: str | None = IDENT,
    time: float | None = NOON,
    levels: Mapping[str, bool] | None = None,
    **attributes: Any,
) -> Message:
    """A position report whose answer is C{ok N;}."""
    raw = f"{ident} {n};".encode()
    events = (Event("position", time, attributes),)
    return Message(raw, ident, events, levels or {}, lambda now: f"ok {n};".encode())


def broken(n: int = 0) -> Message:
    """A frame that can't be read."""
    raw = f"!{n};".encode()
    return Message(raw, IDENT, error=DecodeError("no such field", raw))


class PublisherCase(SynchronousTestCase):
    """A publisher between a recording link and a recording sink."""

    maxDiff = None

    def setUp(self) -> None:
        self.make(Bounds())

    def make(self, bounds: Bounds) -> None:
        """Put one together."""
        self.clock = Clock()
        self.clock.advance(NOON)
        self.sink = RecordingSink()
        self.sessions = Sessions()
        self.publisher = Publisher(self.clock, self.sink, self.sessions, bounds)
        self.link = RecordingLink()
        self.frames = 0

    def take(self, *messages: Message, link: RecordingLink | None = None) -> None:
        """Receive frames, and let the reactor turn end."""
        self.frames += len(messages)
        self.publisher.take(messages, link or self.link, "st907", self.clock.seconds())
        self.turn()

    def turn(self) -> None:
        """The reactor turn ends."""
        self.clock.advance(0)

    def answer(self, codes: str = "", reasons: Sequence[str] = (), lost: Sequence[str] = ()) -> None:
        """Redis answers the batch that is under way; the reactor turn ends."""
        self.sink.answer(codes, reasons, lost)
        self.turn()

    def answer_all(self) -> None:
        """Redis answers everything that comes: published."""
        while self.sink.under_way is not None:
            self.answer()

    def known(self, ident: str = IDENT) -> None:
        """A device whose session is live."""
        self.sink.stored[ident] = Stored(known=True, held=True)
        self.take(report(999, ident))
        self.answer_all()
        self.link.written.clear()

    def outcomes(self) -> dict[str, int]:
        """The ledger."""
        return {name: n for name, n in self.publisher.counters.items() if name in OUTCOMES and n}

    def assertBalanced(self) -> None:
        """Every frame has one outcome, or is pending."""
        self.assertEqual(self.frames, sum(self.outcomes().values()) + self.publisher.pending, self.outcomes())


class AnswerTests(PublisherCase):
    """When a device is answered."""

    def test_only_after_the_store(self) -> None:
        """A device is answered when its report was stored, with the time of that, and not before."""
        self.known()
        self.frames = 0
        message = report(1)._replace(reply=lambda now: f"at {now:.0f}".encode())
        self.take(message)
        self.clock.advance(30)
        self.assertEqual([], self.link.written)
        self.answer()
        self.assertEqual([f"at {NOON + 30:.0f}".encode()], self.link.written)

    def test_in_order(self) -> None:
        """Answers leave a link in the order of its frames, whatever became of each."""
        self.known()
        self.take(report(1), broken(), report(2), Message(b"quiet;", IDENT, (Event("status", None, {}),)), report(3))
        self.answer_all()
        self.assertEqual([b"ok 1;", b"ok 2;", b"ok 3;"], self.link.written)

    def test_in_order_with_a_stranger(self) -> None:
        """A frame of a known device waits for its answer behind one of a stranger on the same link."""
        self.known()
        self.sink.waits = True
        self.take(report(1, "9170225362"), report(2))
        self.answer()
        self.assertEqual([], self.link.written)
        self.sink.begun()
        self.turn()
        self.answer_all()
        self.assertEqual([b"ok 1;", b"ok 2;"], self.link.written)

    def test_undecodable_is_not_answered(self) -> None:
        """What can't be read is stored, and not answered."""
        self.take(broken())
        self.answer_all()
        self.assertEqual([], self.link.written)

    def test_reply_that_raises(self) -> None:
        """A plugin whose reply raises costs its own frame the answer, and nobody else's."""
        self.known()

        def bad(now: float) -> bytes:
            raise RuntimeError("a plugin's bug")

        other = RecordingLink("192.0.2.8:1")
        self.publisher.take([report(1)._replace(reply=bad)], self.link, "toy", NOON)
        self.take(report(2), link=other)
        self.answer_all()
        self.flushLoggedErrors(RuntimeError)
        self.assertEqual([b"ok 2;"], other.written)
        self.assertEqual(0, self.publisher.pending)

    def test_unavailable(self) -> None:
        """A frame that has an answer for 'not now' gets it when nothing could be stored in time, and once only."""
        self.make(Bounds(unavailable_s=10))
        self.known()
        self.take(report(1)._replace(unavailable=b"503"))
        self.clock.advance(9.9)
        self.publisher.tick(self.clock.seconds())
        self.assertEqual([], self.link.written)
        self.clock.advance(0.1)
        self.publisher.tick(self.clock.seconds())
        self.assertEqual([b"503"], self.link.written)
        self.answer_all()
        self.assertEqual([b"503"], self.link.written)
        self.assertEqual(2, self.outcomes()["published"])


class BatchTests(PublisherCase):
    """How reports become batches."""

    def test_one_in_flight(self) -> None:
        """What comes while a batch is under way is gathered for the next one."""
        self.known()
        count = len(self.sink.batches)
        for n in range(3):
            self.take(report(n))
        self.assertEqual(count + 1, len(self.sink.batches))
        self.answer()
        self.assertEqual(count + 2, len(self.sink.batches))
        self.assertEqual(2, len(self.sink.last))
        self.answer()
        self.assertEqual([b"ok 0;", b"ok 1;", b"ok 2;"], self.link.written)

    def test_a_turn_is_a_batch(self) -> None:
        """All frames of one reactor turn, of several links, are one batch; a device's stay in order and together."""
        self.known()
        self.known("9170225362")
        others = [RecordingLink(f"192.0.2.8:{n}") for n in range(3)]
        for n, link in enumerate(others):
            self.publisher.take([report(n, "9170225362" if n == 1 else IDENT)], link, "st907", NOON)
        self.turn()
        self.assertEqual([IDENT, IDENT, "9170225362"], [e["ident"] for e in self.sink.last])
        self.answer()
        self.assertEqual([[b"ok 0;"], [b"ok 1;"], [b"ok 2;"]], [link.written for link in others])

    def test_bounded(self) -> None:
        """A batch holds some hundred events, however many wait."""
        self.known()
        self.take(*(report(n) for n in range(3 * BATCH_EVENTS)))
        sizes = []
        while self.sink.under_way is not None:
            sizes.append(len(self.sink.last))
            self.answer()
        self.assertEqual([BATCH_EVENTS] * 3, sizes)

    def test_columns(self) -> None:
        """A position has its columns in words, empty where unknown, and the rest in data."""
        self.known()
        self.take(
            report(
                1, latitude=1.5, longitude=-2.25, speed_kmh=3.0, course_deg=0, valid=True, status_word="FFFFFFFF",
                satellites=7, cid=5, levels={"ignition": False, "immobilizer": True, "overspeed": True, "sos": True},
            )
        )  # fmt: skip
        entry = self.sink.last[0]
        data = json.loads(entry["data"])
        wanted = {
            "latitude": "1.500000", "longitude": "-2.250000", "altitude_m": "", "speed_kmh": "3.00", "course_deg": "0",
            "valid": "1", "satellites": "7", "ignition": "0", "immobilizer": "1", "external_power": "",
            "levels": "overspeed,sos", "status_word": "FFFFFFFF", "transport": "tcp", "peer": "192.0.2.7:4711",
        }  # fmt: skip
        self.assertEqual(wanted, {name: entry[name] for name in wanted})
        self.assertEqual({"cid": 5}, {k: v for k, v in data.items() if k == "cid"})
        self.assertTrue(set(wanted).isdisjoint(data))

    def test_poison(self) -> None:
        """An event that can't be written as JSON costs itself; the others of its batch are stored and answered."""
        self.known()
        other = RecordingLink("192.0.2.8:1")
        self.publisher.take([report(1, cid=1 << 70)], self.link, "st907", NOON)
        self.frames += 1
        try:
            self.take(report(2), link=other)
        except TypeError:
            pass  # what the reactor would log
        self.take(report(3), link=other)
        self.answer_all()
        self.flushLoggedErrors()
        self.assertEqual([b"ok 2;", b"ok 3;"], other.written)
        self.assertEqual(0, self.publisher.pending)


class OutcomeTests(PublisherCase):
    """One outcome a frame, and the counters add up."""

    def test_each(self) -> None:
        """Published, duplicate and undecodable frames are counted as such, and all but the last are answered."""
        self.known()
        self.take(report(1), report(2), broken())
        self.answer("pdp")
        self.assertEqual({"published": 2, "duplicate": 1, "undecodable": 1}, self.outcomes())
        self.assertEqual([b"ok 1;", b"ok 2;"], self.link.written)
        self.assertBalanced()

    def test_several_events(self) -> None:
        """A frame with several events is one frame: refused if any was, else published if any was, else duplicate."""
        self.known()
        for n, (codes, wanted) in enumerate(
            (("pp", "published"), ("dd", "duplicate"), ("dp", "published"), ("pd", "published"))
        ):
            before = self.outcomes().get(wanted, 0)
            self.take(report(n, levels={("sos", "theft", "tow", "door")[n]: True}))
            self.assertEqual(2, len(self.sink.last))
            self.answer(codes)
            self.assertEqual(before + 1, self.outcomes()[wanted], codes)
        self.assertBalanced()

    def test_refused(self) -> None:
        """A refused report goes to the dead stream with reason and event, is counted once, and then answered."""
        self.known()
        self.take(report(1), report(2))
        refused = self.sink.last[0]
        self.answer("rp", ["WRONGTYPE"])
        self.assertEqual([], self.link.written, "the second waits for the first")
        (dead,) = self.sink.last
        self.assertEqual(("frame.refused", IDENT), (dead["type"], dead["ident"]))
        data = json.loads(dead["data"])
        self.assertEqual(("WRONGTYPE", refused["id"]), (data["reason"], data["refused"]["id"]))
        self.assertEqual(f"{IDENT} 1;".encode().hex(), data["frame"])
        self.answer()
        self.assertEqual([b"ok 1;", b"ok 2;"], self.link.written)
        self.assertEqual({"published": 2, "refused": 1}, self.outcomes())
        self.assertBalanced()

    def test_refused_alarm(self) -> None:
        """Of a frame whose position was published and whose alarm was refused, the dead stream names the alarm."""
        self.known()
        self.take(report(1, levels={"sos": True}))
        alarm = self.sink.last[1]
        self.assertEqual("alarm.sos", alarm["type"])
        self.answer("pr", ["WRONGTYPE"])
        data = json.loads(self.sink.last[0]["data"])
        self.assertEqual({"id": alarm["id"], "type": "alarm.sos", "time": alarm["time"]}, data["refused"])
        self.answer()
        self.assertEqual({"published": 1, "refused": 1}, self.outcomes())

    def test_refused_position_and_alarm(self) -> None:
        """Of a frame of which two events are refused, none is silent."""
        self.known()
        self.take(report(1, levels={"sos": True}))
        refused = {entry["id"] for entry in self.sink.last}
        self.answer("rr", ["WRONGTYPE", "WRONGTYPE"])
        named = {json.loads(entry["data"])["refused"]["id"] for entry in self.sink.last}
        self.assertEqual(refused, named)

    def test_refused_by_the_dead_stream_too(self) -> None:
        """When the dead stream refuses too, what was refused is in quarantine, the frame counted once, and answered."""
        self.known()
        self.take(report(1))
        self.answer("r", ["WRONGTYPE"])
        self.answer("r", ["WRONGTYPE again"])
        ((group, reason),) = self.sink.quarantined
        self.assertEqual("the dead stream: WRONGTYPE again", reason)
        self.assertEqual((IDENT.encode(), b"1"), (Group.parse(group).ident, Group.parse(group).events))
        self.assertIn(b"\0position\0", group)
        self.answer()
        self.assertEqual([b"ok 1;"], self.link.written)
        self.assertEqual({"published": 1, "refused": 1}, self.outcomes())
        self.assertEqual(0, self.publisher.pending)
        self.assertBalanced()

    def test_undecodable_that_is_refused(self) -> None:
        """An undecodable frame that the dead stream refuses is counted once, and blocks nobody."""
        self.known()
        self.take(broken(), report(1))
        self.answer("rp", ["WRONGTYPE"])
        self.answer_all()
        self.assertEqual([b"ok 1;"], self.link.written)
        self.assertEqual(1, len(self.sink.quarantined))
        self.assertBalanced()

    def test_own_event_that_is_refused(self) -> None:
        """An event of the gateway's own that is refused is no frame: it goes to the dead stream, and counts as none."""
        self.sink.stored[IDENT] = Stored(known=True, held=False)
        self.take(report(1))
        self.assertEqual(["device.connected", "position"], [entry["type"] for entry in self.sink.last])
        self.answer("rp", ["WRONGTYPE"])
        self.assertEqual(["frame.refused"], [entry["type"] for entry in self.sink.last])
        self.answer("r", ["WRONGTYPE"])
        self.assertEqual({"published": 1}, self.outcomes())
        self.assertEqual(0, self.publisher.pending)

    def test_undecodable(self) -> None:
        """An undecodable frame is on the dead stream with the reason and the first 512 bytes in hex."""
        raw = b"!" * 2000
        self.take(Message(raw, None, error=DecodeError("no such field", raw)))
        (entry,) = self.sink.last
        data = json.loads(entry["data"])
        self.assertEqual(("frame.undecodable", "", "st907"), (entry["type"], entry["ident"], entry["protocol"]))
        self.assertEqual(("no such field", raw[:512].hex(), 2000), (data["reason"], data["frame"], data["frame_bytes"]))
        self.assertEqual(("192.0.2.7:4711", "tcp"), (data["peer"], data["transport"]))

    def test_bad_ident(self) -> None:
        """An ident that could break a key is undecodable, and is in no key."""
        for ident in ("a b", "x", "a:b", "{tag}", "a" * 33, "", "ä" * 5):
            self.take(report(1, ident))
        self.answer_all()
        self.assertEqual({"undecodable": 7}, self.outcomes())
        self.assertEqual({""}, {entry["ident"] for entry in self.sink.events})
        self.assertEqual([], self.sink.begins)

    def test_unrecognised(self) -> None:
        """A connection that was nobody's is one unrecognised frame on the dead stream."""
        self.frames += 1
        self.publisher.unrecognised(b"GET / HTTP/1.1", self.link, "every device said no", NOON)
        self.turn()
        (entry,) = self.sink.last
        self.assertEqual(("frame.unrecognised", "", ""), (entry["type"], entry["ident"], entry["protocol"]))
        self.answer()
        self.assertEqual({"unrecognised": 1}, self.outcomes())
        self.assertBalanced()

    def test_unauthorised(self) -> None:
        """A device that the registry shuts out is refused with its plugin's bytes, recorded, and cut off."""
        self.sink.stored[IDENT] = Stored(known=True, registry={"enabled": "0"})
        self.take(report(1)._replace(refusal=b"go away"))
        self.assertEqual(["frame.unauthorised", "device.rejected"], [entry["type"] for entry in self.sink.last])
        self.assertEqual([], self.link.written)
        self.answer()
        self.assertEqual([b"go away"], self.link.written)
        self.assertTrue(self.link.closed)
        self.assertEqual({"unauthorised": 1}, self.outcomes())
        self.assertBalanced()

    def test_good_frame_of_a_link_that_is_gone(self) -> None:
        """A frame whose link went away is stored and counted all the same."""
        self.known()
        self.take(report(1))
        self.link.order.clear()
        self.answer()
        self.assertEqual({"published": 2}, self.outcomes())

    def test_unauthorised_and_refused(self) -> None:
        """A device that is not let in gets its refusal and is closed, also when the dead stream takes no entry."""
        self.sink.stored[IDENT] = Stored(known=True, registry={"enabled": "0"})
        self.take(report(1)._replace(refusal=b"go away"))
        self.turn()
        self.answer("rr", ["OOPS", "OOPS"])
        self.answer()
        self.assertEqual(([b"go away"], True), (self.link.written, bool(self.link.closed)))
        self.assertEqual({"refused": 1}, self.outcomes())

    def test_reason_of_any_text(self) -> None:
        """What a plugin says of a frame may hold what can't be written: it is published as it can be."""
        self.take(broken()._replace(error=DecodeError("bad \udc80", b"x")), report(1))
        self.answer_all()
        self.assertBalanced()
        (dead,) = by_type(self.sink.events, "frame.undecodable")
        self.assertEqual("bad \\udc80", json.loads(dead["data"])["reason"])


class SessionTests(PublisherCase):
    """Sessions begin, and frames wait for that."""

    def test_frames_wait_for_their_state(self) -> None:
        """A stranger's frames wait until what is kept of him was read; nobody else's do."""
        self.known()
        self.sink.waits = True
        other = RecordingLink("192.0.2.8:1")
        self.take(report(1, "9170225362"), report(2, "9170225362"), link=other)
        self.take(report(3))
        self.answer_all()
        self.assertEqual([b"ok 3;"], self.link.written)
        self.assertEqual(1, self.sink.begins.count(["9170225362"]), "asked once")
        self.assertEqual([], other.written)
        self.sink.begun()
        self.turn()
        self.assertEqual(["device.connected", "position", "position"], [entry["type"] for entry in self.sink.last])
        self.answer_all()
        self.assertEqual([b"ok 1;", b"ok 2;"], other.written)

    def test_many_begin_together(self) -> None:
        """Sessions that begin while others are being read are read together next."""
        self.sink.waits = True
        self.take(report(1, "111"))
        self.take(report(2, "222"))
        self.take(report(3, "333"))
        self.assertEqual([["111"]], self.sink.begins)
        self.sink.begun()
        self.turn()
        self.assertEqual([["111"], ["222", "333"]], self.sink.begins)

    def test_connected_once(self) -> None:
        """A session's begin is published, with where it came from; one that is held already is not new."""
        self.take(report(1))
        self.answer_all()
        self.take(report(2), link=RecordingLink("192.0.2.8:1"))
        self.answer_all()
        (connected,) = by_type(self.sink.events, "device.connected")
        self.assertEqual({"peer": "192.0.2.7:4711", "transport": "tcp"}, json.loads(connected["data"]))
        self.assertEqual(2, len(by_type(self.sink.events, "position")))
        self.assertEqual({"published": 2}, self.outcomes())

    def test_disconnected(self) -> None:
        """A session that was not heard of for its time is published as disconnected, once; the next report connects."""
        self.known()
        self.clock.advance(900)
        self.publisher.tick(self.clock.seconds())
        self.publisher.tick(self.clock.seconds())
        self.turn()
        self.answer_all()
        self.assertEqual(1, len(by_type(self.sink.events, "device.disconnected")))
        self.sink.stored.clear()
        self.take(report(1))
        self.answer_all()
        self.assertEqual(1, len(by_type(self.sink.events, "device.connected")))

    def test_cleared_by_the_timer(self) -> None:
        """An alarm whose hold-off ends is published without a further report."""
        self.known()
        for n, on in enumerate((False, True, False)):
            self.take(report(n, time=NOON + n, levels={"sos": on}))
        self.clock.advance(61)
        self.publisher.tick(self.clock.seconds())
        self.turn()
        self.answer_all()
        phases = [json.loads(entry["data"])["phase"] for entry in by_type(self.sink.events, "alarm.sos")]
        self.assertEqual(["raised", "cleared"], phases)

    def test_lost_to_another_instance(self) -> None:
        """An ident that another instance holds, and that is gone from here, is read again before its next frame."""
        self.known()
        self.take(report(1))
        self.link.ready = None
        self.answer(lost=[IDENT])
        self.assertIsNone(self.sessions.get(IDENT))
        self.assertEqual([[IDENT]], self.sink.begins)
        self.link.ready = 0.0
        self.take(report(2))
        self.answer_all()
        self.assertEqual([[IDENT], [IDENT]], self.sink.begins)

    def test_back_from_another_instance(self) -> None:
        """A device that is here again is taken back at once, for the commands that wait for it."""
        begun: list[tuple[str, bool]] = []
        self.publisher.on_begin = lambda session, waiting: begun.append((session.peer, waiting))
        self.known()
        self.take(report(1))
        self.sink.stored[IDENT] = Stored(known=True, held=True, commands=True)
        self.answer(lost=[IDENT])
        self.assertEqual([[IDENT], [IDENT]], self.sink.begins)
        self.assertEqual([(self.link.peer, False), (self.link.peer, True)], begun)
        session = self.sessions.get(IDENT)
        assert session is not None
        self.assertIs(self.link, session.link)
        self.take(report(2))
        self.answer_all()
        self.assertEqual([[IDENT], [IDENT]], self.sink.begins)

    def test_lost_with_frames_on_their_way(self) -> None:
        """What is read must hold what was judged already: while that is not on its way the next frame is waited for."""
        self.known()
        self.take(report(1))
        self.take(report(2))
        self.answer(lost=[IDENT])
        self.assertEqual([[IDENT]], self.sink.begins)
        self.answer_all()
        self.take(report(3))
        self.assertEqual([[IDENT], [IDENT]], self.sink.begins)

    def test_lost_by_the_journal(self) -> None:
        """It does not wait for a frame of anybody's, whoever says that it is lost."""
        self.known()
        self.take(report(1))
        self.answer_all()
        self.publisher.lost([IDENT])
        self.turn()
        self.assertEqual([[IDENT], [IDENT]], self.sink.begins)

    def test_lost_long_ago(self) -> None:
        """A device that was not heard for a while may be anywhere: it is not taken back from another instance."""
        self.known()
        self.take(report(1))
        self.answer_all()
        self.clock.advance(HERE_S)
        self.publisher.lost([IDENT])
        self.turn()
        self.assertIsNone(self.sessions.get(IDENT))
        self.assertEqual([[IDENT]], self.sink.begins)

    def test_another_connection(self) -> None:
        """A device that comes on another connection may have been elsewhere: that is asked, and its frames wait."""
        self.known()
        session = self.sessions.get(IDENT)
        self.sink.waits = True
        other = RecordingLink("192.0.2.8:1")
        self.take(report(1), link=other)
        self.take(report(2), link=other)
        self.assertEqual((2, None), (self.publisher.unsent, self.sink.under_way))
        self.assertEqual([[IDENT], [IDENT]], self.sink.begins)
        self.sink.begun()
        self.turn()
        self.answer_all()
        self.assertEqual([b"ok 1;", b"ok 2;"], other.written)
        self.assertIs(session, self.sessions.get(IDENT))
        self.assertEqual([], self.sink.looked)
        self.take(report(3), link=other)
        self.assertEqual([[IDENT], [IDENT]], self.sink.begins)
        self.assertEqual(0, self.publisher.counters["came_back"])

    def test_came_back(self) -> None:
        """What another instance said of it meanwhile is not said again."""
        self.known()
        self.take(report(1, levels={"sos": False}))
        self.answer_all()
        session = self.sessions.get(IDENT)
        assert session is not None
        session.levels["sos"] = Level(NOON, "ab" * 16)
        session.off = frozenset()
        self.sink.stored[IDENT] = Stored(True, True, b"", NOON + 1, session.dump())
        session.levels, session.off = {}, frozenset({"sos"})
        self.sink.elsewhere.add(IDENT)
        self.take(report(2, time=NOON + 2, levels={"sos": True}), link=RecordingLink("192.0.2.8:1"))
        self.answer_all()
        self.assertEqual([], by_type(self.sink.events, "alarm.sos"))
        self.assertEqual(1, self.publisher.counters["came_back"])
        self.assertIsNot(session, self.sessions.get(IDENT))

    def test_nobody_can_be_asked(self) -> None:
        """While Redis is away it goes on with what is known here."""
        self.known()
        session = self.sessions.get(IDENT)
        self.sink.stored[IDENT] = Stored(unknown=True)
        self.sink.elsewhere.add(IDENT)
        self.take(report(1), link=RecordingLink("192.0.2.8:1"))
        self.answer_all()
        self.assertIs(session, self.sessions.get(IDENT))
        self.assertEqual(2, self.publisher.counters["published"])

    def test_datagrams(self) -> None:
        """Datagrams from where the one before came are not asked for, but when a report was left out."""
        self.known()
        asked = []
        for n, gap in enumerate((0, 10, 10, 10, 12, 20, 10, 70)):
            for _ in range(gap):
                self.clock.advance(1.0)
                self.publisher.tick(self.clock.seconds())
            before = len(self.sink.begins)
            self.take(report(n, time=NOON + n), link=RecordingLink("192.0.2.8:1", "udp"))
            asked.append(len(self.sink.begins) - before)
        # at first it comes from elsewhere than before, and then how often it reports is not known
        self.assertEqual([1, 1, 0, 0, 0, 1, 0, 1], asked)

    def test_stood_still(self) -> None:
        """A process that was stopped takes nobody back for what came meanwhile, and sends no commands there."""
        self.known()
        self.take(report(1, time=NOON + 1))
        self.answer_all()
        self.clock.advance(STOOD_STILL_S)
        self.sink.stored[IDENT] = Stored(True, True, b"", NOON + 60, b"")
        self.sink.elsewhere.add(IDENT)
        self.sink.waits = True
        self.take(report(2, time=NOON + 2))
        session = self.sessions.get(IDENT)
        assert session is not None
        self.assertIsNone(session.link)
        self.sink.begun()
        self.turn()
        self.answer(lost=[IDENT])
        self.assertEqual([IDENT], self.sink.looked)
        self.assertEqual([[IDENT], [IDENT]], self.sink.begins)
        self.assertIsNone(self.sessions.get(IDENT))
        (position,) = by_type(self.sink.events[-1:], "position")
        self.assertEqual("order", position["late"])
        self.assertEqual(1, self.publisher.counters["stood_still"])

    def test_stood_still_alone(self) -> None:
        """What is its own still goes on as before."""
        self.known()
        session = self.sessions.get(IDENT)
        self.clock.advance(STOOD_STILL_S)
        self.take(report(2))
        self.answer_all()
        assert session is not None
        self.assertIs(session, self.sessions.get(IDENT))
        self.assertIs(self.link, session.link)

    def test_refreshed_once_a_minute(self) -> None:
        """Expiry and session are refreshed with a device's first report and then at most once a minute."""
        self.known()
        flags = []
        for _ in range(5):
            self.clock.advance(20)
            self.take(report(int(self.clock.seconds()), time=self.clock.seconds()))
            flags.append(self.sink.last[0]["flags"])
            self.answer_all()
        self.assertEqual(["s", "s", "sr", "s", "s"], flags)

    def test_registry(self) -> None:
        """A changed registry entry holds from the device's next frame on: its key is on each event."""
        self.known()
        self.publisher.register(IDENT, {"device_id": "van 7"})
        self.publisher.register("nobody", {"device_id": "van 8"})
        self.take(report(1))
        self.assertEqual("van 7", self.sink.last[0]["device_id"])
        self.assertEqual("0", self.sink.last[0]["ttl"], "kept for ever")

    def test_two_sessions_in_one_batch(self) -> None:
        """A frame that waited longer than its session lived, and its copy in the next one, are one group."""
        self.known()
        self.take(report(1))
        self.take(report(2))  # waits: a batch is under way
        self.sessions.drop(IDENT)
        self.take(report(2))
        self.answer()
        self.assertEqual(1, len(self.sink.batches[-1].groups))
        first, *_, second = [entry["id"] for entry in by_type(self.sink.last, "position")]
        self.assertEqual(first, second)


class UnknownTests(PublisherCase):
    """Sessions that begin while Redis is away, and what follows when it is back."""

    def setUp(self) -> None:
        super().setUp()
        self.sink.stored[IDENT] = Stored(unknown=True)

    def restore(self, *stored: Stored) -> bool:
        """Redis is back, and has this of the device; whether there was anything to read."""
        if stored:
            self.sink.stored[IDENT] = stored[0]
        found = self.successResultOf(self.publisher.restore())
        self.turn()
        self.answer_all()
        return found

    def data(self, kind: str) -> list[dict[str, Any]]:
        """The data of all events of a type."""
        return [json.loads(entry["data"]) for entry in by_type(self.sink.events, kind)]

    def private(self) -> list[str]:
        """What was written of the device's private state, by batch."""
        groups = [Group.parse(group) for batch in self.sink.batches for group in batch.groups]
        return [group.private.decode() for group in groups if group.flags]

    def test_says_so(self) -> None:
        """Every event of such a session says that nothing was known, until it is."""
        self.take(report(1, levels={"sos": True}))
        self.answer_all()
        self.assertEqual(["unknown"], [data.get("state") for data in self.data("position")])
        self.assertEqual([("active", "unknown")], [(d["phase"], d["state"]) for d in self.data("alarm.sos")])
        self.assertTrue(self.restore(Stored(known=True)))
        self.take(report(2, time=NOON + 1))
        self.answer_all()
        self.assertEqual(["unknown", None], [data.get("state") for data in self.data("position")])
        self.assertFalse(self.restore())

    def test_each_frame_in_full(self) -> None:
        """A report that is like the one before it says so, too."""
        for n in range(4):
            same = report(n, time=NOON + n, levels={"sos": False}, latitude=1.0, longitude=2.0, speed_kmh=3.0)
            self.take(same._replace(same="it", alike="it"))
        self.answer_all()
        self.assertEqual(["unknown"] * 4, [data.get("state") for data in self.data("position")])

    def test_private_state_is_left_alone(self) -> None:
        """What is kept of the device is not written before it was read, and whole afterwards; nor is its expiry."""
        self.take(report(1, levels={"sos": True}))
        self.answer_all()
        self.clock.advance(70)
        self.take(report(2, time=NOON + 70, levels={"sos": True}))
        self.answer_all()
        self.assertEqual({""}, {*self.private()})
        self.assertEqual({"s"}, {entry["flags"] for entry in self.sink.events})
        self.restore(Stored(known=True))
        self.take(report(3, time=NOON + 71, levels={"sos": True}))
        self.answer_all()
        self.assertEqual("sr", self.sink.last[0]["flags"])
        self.assertIn("sos", json.loads(self.private()[-1])["levels"])

    def test_connected_once(self) -> None:
        """The session's begin is published when it is known that nobody held it, and not before."""
        self.take(report(1))
        self.answer_all()
        self.assertEqual([], self.data("device.connected"))
        self.restore(Stored(known=True))
        self.restore(Stored(known=True))
        (connected,) = self.data("device.connected")
        self.assertEqual(("192.0.2.7:4711", "2026-11-22T12:00:00.000Z"), (connected["peer"], connected["since"]))

    def test_held(self) -> None:
        """One that was held, here or by another instance, is not announced again."""
        self.take(report(1))
        self.answer_all()
        self.assertTrue(self.restore(Stored(known=True, held=True)))
        self.assertEqual([], self.data("device.connected"))

    def test_difference(self) -> None:
        """An alarm of before that has ended meanwhile is published as cleared, once."""
        self.sink.stored[IDENT] = Stored()
        self.take(report(1, levels={"sos": True}))
        self.answer_all()
        session = self.sessions.get(IDENT)
        assert session is not None
        kept = Stored(known=True, held=True, newest=NOON, state=session.dump())
        (active,) = by_type(self.sink.events, "alarm.sos")
        self.sessions.drop(IDENT)
        self.sink.stored[IDENT] = Stored(unknown=True)
        self.clock.advance(100)
        self.take(report(2, time=NOON + 100, levels={"sos": False}))
        self.answer_all()
        self.restore(kept)
        self.restore(kept)
        _, cleared = self.data("alarm.sos")
        self.assertEqual(("cleared", active["id"]), (cleared["phase"], cleared["raised_id"]))

    def test_session_that_is_gone(self) -> None:
        """A session that ended before it could be read is not read, and nothing is kept of it."""
        self.take(report(1))
        self.answer_all()
        self.clock.advance(900)
        self.publisher.tick(self.clock.seconds())
        self.turn()
        self.answer_all()
        self.assertEqual({}, self.publisher._unknown)
        self.assertFalse(self.restore(Stored(known=True)))

    def test_ends_while_it_is_read(self) -> None:
        """One that ends while Redis is asked is left alone."""
        self.take(report(1))
        self.answer_all()
        self.sink.waits = True
        found: list[bool] = []
        self.publisher.restore().addCallback(found.append)
        self.sessions.drop(IDENT)
        self.sink.begun()
        self.assertEqual([True], found)
        self.assertIsNone(self.sessions.get(IDENT))

    def test_held_by_another_meanwhile(self) -> None:
        """A session that is not read yet is not lost to the instance that held the device before."""
        self.take(report(1))
        self.answer(lost=[IDENT])
        self.answer_all()
        session = self.sessions.get(IDENT)
        assert session is not None
        self.assertTrue(self.restore(Stored(known=True, held=True)))
        self.assertFalse(session.unknown)
        self.take(report(2, time=NOON + 1))
        self.link.ready = None
        self.answer(lost=[IDENT])
        self.assertIsNone(self.sessions.get(IDENT))

    def test_registry_says_no(self) -> None:
        """A device that the registry does not let in is served until that is known, and no longer; nor announced."""
        self.take(report(1))
        self.answer_all()
        self.restore(Stored(known=True, registry={"enabled": "0"}))
        self.take(report(2))
        self.answer_all()
        self.assertEqual({"published": 1, "unauthorised": 1}, self.outcomes())
        self.assertTrue(self.link.closed)
        self.assertEqual([], self.data("device.connected"))

    def test_registry(self) -> None:
        """What applications call the device is on its events as soon as it is known."""
        self.take(report(1))
        self.answer_all()
        self.restore(Stored(known=True, registry={"device_id": "van 7"}))
        self.take(report(2, time=NOON + 1))
        self.assertEqual(["van 7"], [entry["device_id"] for entry in self.sink.last])
        self.assertEqual("0", self.sink.last[0]["ttl"], "kept for ever")

    def test_state_that_can_not_be_read(self) -> None:
        """It is counted, and the device goes on with what is known of it."""
        self.take(report(1, levels={"sos": True}))
        self.answer_all()
        self.restore(Stored(known=True, state="{"))
        self.assertEqual(1, self.publisher.counters["faults"])
        self.take(report(2, time=NOON + 1, levels={"sos": True}))
        self.answer_all()
        self.assertEqual(["active"], [data["phase"] for data in self.data("alarm.sos")])

    def test_many(self) -> None:
        """Thousands are read some hundreds at a time."""
        idents = [f"{n:010}" for n in range(1200)]
        for ident in idents:
            self.sink.stored[ident] = Stored(unknown=True)
        self.take(*(report(1, ident) for ident in idents))
        while self.sink.under_way is not None or self.publisher._begin:
            self.answer_all()
            self.turn()
        self.sink.begins.clear()
        for ident in idents:
            self.sink.stored[ident] = Stored(known=True)
        self.assertTrue(self.restore())
        self.assertEqual([BATCH_EVENTS, BATCH_EVENTS, 1200 - 2 * BATCH_EVENTS], [*map(len, self.sink.begins)])
        self.assertEqual(1200, len(self.data("device.connected")))
        self.assertEqual({}, self.publisher._unknown)


class StallTests(PublisherCase):
    """Nothing can be stored, not even on the disk."""

    def test_stall(self) -> None:
        """Reading stops at once, however little waits, and goes on when there is room again."""
        calls: list[str] = []
        self.publisher.on_full = lambda: calls.append("full")
        self.publisher.on_room = lambda: calls.append("room")
        self.known()
        self.take(report(1))
        self.publisher.stall(True)
        self.assertEqual((["full"], True), (calls, self.publisher.full))
        self.answer()  # what was under way is settled
        self.assertTrue(self.publisher.full)
        self.publisher.stall(False)
        self.turn()
        self.assertEqual((["full", "room"], False), (calls, self.publisher.full))

    def test_stall_while_full(self) -> None:
        """With as much waiting as may, there is room when that is stored, and not before."""
        self.make(Bounds(pending=4))
        calls: list[str] = []
        self.publisher.on_full = lambda: calls.append("full")
        self.publisher.on_room = lambda: calls.append("room")
        self.known()
        self.take(*(report(n) for n in range(4)))
        self.publisher.stall(True)
        self.publisher.stall(False)
        self.turn()
        self.assertEqual((["full"], True), (calls, self.publisher.full))
        self.answer_all()
        self.assertEqual((["full", "room"], False), (calls, self.publisher.full))

    def test_too_old(self) -> None:
        """Frames that were acknowledged and dropped from the journal are dropped in the ledger."""
        self.publisher.expired(3)
        self.publisher.tick(self.clock.seconds())
        self.turn()
        self.assertEqual(3, self.sink.batches[-1].dropped)
        self.assertEqual(3, self.sink.batches[-1].frames)


class LimitTests(PublisherCase):
    """New idents."""

    def test_per_address(self) -> None:
        """Of one address only so many new idents an hour are taken; the rest is counted, not stored, not answered."""
        self.make(Bounds(new_idents_per_address=3))
        for n in range(5):
            self.take(report(n, f"id{n}"))
        self.answer_all()
        self.assertEqual({"published": 3, "limited": 2}, self.outcomes())
        self.assertEqual(2, self.publisher.counters["limited_new_idents_per_address"])
        self.assertEqual([b"ok 0;", b"ok 1;", b"ok 2;"], self.link.written)
        self.take(report(9, "id9"), link=RecordingLink("192.0.2.8:1"))
        self.answer_all()
        self.assertEqual(4, self.outcomes()["published"], "another address")
        self.assertBalanced()
        self.assertEqual(2, sum(batch.limited for batch in self.sink.batches), "the ledger knows")

    def test_of_all(self) -> None:
        """Of all addresses together only so many new idents an hour are taken."""
        self.make(Bounds(new_idents=3))
        for n in range(5):
            self.take(report(n, f"id{n}"), link=RecordingLink(f"192.0.2.{n}:1"))
        self.answer_all()
        self.assertEqual({"published": 3, "limited": 2}, self.outcomes())
        self.assertEqual(2, self.publisher.counters["limited_new_idents"])

    def test_known_are_exempt(self) -> None:
        """An ident that had reported before is never limited."""
        self.make(Bounds(new_idents=0, new_idents_per_address=0))
        self.sink.stored[IDENT] = Stored(known=True)
        self.take(report(1))
        self.answer_all()
        self.assertEqual({"published": 1}, self.outcomes())

    def test_an_hour_later(self) -> None:
        """After an hour new idents are taken again."""
        self.make(Bounds(new_idents_per_address=1))
        self.take(report(1, "id1"))
        self.take(report(2, "id2"))
        self.answer_all()
        self.clock.advance(3600)
        self.take(report(3, "id3"))
        self.answer_all()
        self.assertEqual({"published": 2, "limited": 1}, self.outcomes())

    def test_8000_in_a_minute(self) -> None:
        """At the defaults 8,000 new idents of one address within a minute are none of them limited."""
        for n in range(80):
            self.take(*(report(n, f"id{n}-{i}") for i in range(100)))
            self.answer_all()
        self.assertEqual({"published": 8000}, self.outcomes())


class RoomTests(PublisherCase):
    """Bounded queues."""

    def bounded(self, **bounds: int) -> list[str]:
        """A publisher with little room; what it said."""
        said: list[str] = []
        self.make(Bounds(**bounds))
        self.publisher.on_full = lambda: said.append("full")
        self.publisher.on_room = lambda: said.append("room")
        return said

    def test_full_and_room(self) -> None:
        """With so many frames waiting reading stops, once; with half of them stored it goes on, once."""
        said = self.bounded(pending=10)
        self.take(*(report(n) for n in range(9)))
        self.assertEqual(([], False), (said, self.publisher.full))
        self.take(report(10), report(11))
        self.take(report(12))
        self.assertEqual((["full"], True), (said, self.publisher.full))
        self.answer_all()
        self.assertEqual((["full", "room"], False), (said, self.publisher.full))
        self.assertEqual(1, self.publisher.counters["paused"])
        self.assertBalanced()

    def test_full_by_bytes(self) -> None:
        """Few large frames fill the room as many small ones do."""
        said = self.bounded(pending_bytes=1000)
        self.take(Message(b"x" * 1000, error=DecodeError("large")))
        self.assertEqual(["full"], said)
        self.answer_all()
        self.assertEqual(["full", "room"], said)

    def test_full_by_strangers(self) -> None:
        """Connections that are nobody's fill the room as well: memory is bounded while Redis is away."""
        said = self.bounded(pending=10)
        for _ in range(20):
            self.publisher.unrecognised(b"GET / HTTP/1.1", self.link, "no", NOON)
        self.turn()
        self.assertEqual(["full"], said)

    def test_dropped(self) -> None:
        """What is not taken in for want of room is counted, and the ledger knows."""
        self.publisher.drop()
        self.publisher.tick(NOON)
        self.turn()
        self.assertEqual({"dropped": 1}, self.outcomes())
        self.assertEqual([1], [batch.dropped for batch in self.sink.batches])

    def test_drained(self) -> None:
        """Who waits for the end is called when everything is stored and answered, and not before."""
        done: list[bool] = []
        self.sink.waits = True
        self.take(report(1))
        self.publisher.drained(lambda: done.append(True))
        self.turn()
        self.assertEqual([], done)
        self.sink.begun()
        self.turn()
        self.assertEqual([], done)
        self.answer_all()
        self.assertEqual([True], done)
        self.publisher.drained(lambda: done.append(True))
        self.turn()
        self.assertEqual([True, True], done, "nothing waits")


class LedgerTests(PublisherCase):
    """All of it at once."""

    def mixed_day(self, every: Callable[[], None]) -> list[RecordingLink]:
        """Frames of all kinds on four links, some refused, C{every} now and then; at its end all is stored."""
        self.make(Bounds(new_idents_per_address=4))
        links = [RecordingLink(f"192.0.2.{n}:1") for n in range(4)]
        codes = "ppdprpppdr"
        step = 0
        for n in range(300):
            link = links[n % 4]
            if n % 11 == 0:
                self.take(broken(n), link=link)
            elif n % 29 == 0:
                self.frames += 1
                self.publisher.unrecognised(b"GET", link, "no", self.clock.seconds())
                self.turn()
            else:
                levels = {"sos": n % 3 == 0, "ignition": n % 5 == 0}
                self.take(report(n, f"id{n % 23}", self.clock.seconds(), levels), link=link)
            self.clock.advance(0.7)
            if n % 4 == 0:
                self.publisher.tick(self.clock.seconds())
            if n % 7 == 0 and self.sink.under_way is not None:
                # the dead stream takes everything; that it does not is another test
                picked = "".join(
                    "p" if entry["type"].startswith("frame.") else codes[(step + i) % 10]
                    for i, entry in enumerate(self.sink.last)
                )
                step += 3
                self.answer(picked, ["no"] * picked.count("r"))
            every()
        self.answer_all()
        return links

    def test_adds_up(self) -> None:
        """After a mixed day every frame has one outcome, nothing is pending, and nobody is owed an answer."""
        links = self.mixed_day(lambda: None)
        self.assertEqual(0, self.publisher.pending)
        self.assertBalanced()
        self.assertTrue(all(not link.order for link in links))
        self.assertLessEqual(
            {"published", "duplicate", "undecodable", "unrecognised", "refused", "limited"}, set(self.outcomes())
        )

    def test_adds_up_at_every_moment(self) -> None:
        """At every moment of it a frame is either pending or has one outcome, and nothing else is pending."""
        self.mixed_day(self.assertBalanced)

    def test_pending_is_of_frames(self) -> None:
        """An event of the gateway's own that waits is no pending frame."""
        self.take(report(1))
        self.assertEqual(["device.connected", "position"], [entry["type"] for entry in self.sink.last])
        self.assertEqual(1, self.publisher.pending)

    def test_refused_once(self) -> None:
        """A refused frame that waits for the dead stream is pending or refused, not both."""
        self.known()
        self.take(report(1))
        self.answer("r", ["WRONGTYPE"])
        self.assertBalanced()


class ForeignTests(PublisherCase):
    """What a plugin may do wrong, and that it costs its own frame only."""

    def test_text_that_can_not_be_written(self) -> None:
        """A column or attribute that has no encoding makes its frame undecodable; the others are published."""
        self.known()
        self.frames = 1
        bad = report(1, "9170000001", status_word="\ud800"), report(2, "9170000002", name="\ud800")
        self.sink.stored = {ident: Stored(known=True, held=True) for ident in ("9170000001", "9170000002")}
        self.take(*bad, report(3))
        self.answer_all()
        self.assertEqual({"published": 2, "undecodable": 2}, self.outcomes())
        self.assertBalanced()

    def test_memory_that_can_not_be_kept(self) -> None:
        """What a plugin keeps with an ident and JSON can't hold is dropped and counted; the frame is published."""
        self.known()
        self.sessions.memory(IDENT)[("a", 1)] = 2  # type: ignore[index]  # that is the mistake
        self.take(report(1))
        self.answer_all()
        self.assertEqual({"published": 2}, self.outcomes())
        self.assertEqual(1, self.publisher.counters["plugin_errors"])
        self.flushLoggedErrors()

    def test_reply_that_is_text(self) -> None:
        """A reply that is no bytes is not sent, and counted; the next frame is answered."""
        self.known()
        self.take(report(1)._replace(reply=lambda now: "ok"), report(2))  # type: ignore[arg-type, return-value]
        self.answer_all()
        self.assertEqual([b"ok 2;"], self.link.written)
        self.assertEqual(1, self.publisher.counters["plugin_errors"])
        self.flushLoggedErrors()

    def test_good_frame_without_events(self) -> None:
        """A frame that says nothing is a status: the device is alive; its levels count."""
        self.known()
        self.take(report(1)._replace(events=(), levels={"overspeed": True}))
        self.assertEqual(["status", "alarm.overspeed"], [e["type"] for e in self.sink.last])

    def test_time_that_is_none(self) -> None:
        """A time that no calendar has is taken for none."""
        self.known()
        self.take(report(1, time=1e20), report(2, time=float("nan")))
        self.answer_all()
        self.assertEqual({"published": 3}, self.outcomes())

    def test_state_that_somebody_else_wrote(self) -> None:
        """A stored state that can't be read is as good as none, for that device alone."""
        for n, state in enumerate((b"{}", b"no JSON", b'{"levels": 1}', b"[]")):
            self.sink.stored[f"917000000{n}"] = Stored(known=True, held=True, state=state)
        self.take(*(report(n, f"917000000{n}") for n in range(4)), report(5))
        self.answer_all()
        self.assertEqual({"published": 5}, self.outcomes())
        self.assertEqual(4, self.publisher.counters["faults"])
