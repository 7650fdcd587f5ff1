"""Events as records: the short way leads where the long one does, and what can't be written is nobody's record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import nextafter
from typing import Any, Final, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.devices.st907 import device
from gateway.devices.st907.settings import Options
from gateway.events import Event, rounded
from gateway.fields import compact_time, rfc3339
from gateway.interfaces import Message
from gateway.judging import steady
from gateway.publisher import Bounds, Publisher
from gateway.records import brief, described, render
from gateway.session import DIGEST_BYTES, ENTRY_BYTES, Envelope, Session, Stored
from gateway.sessions import Sessions
from gateway.testing import plugins
from gateway.tickets import PUBLISHED
from tests.fakes import NOON, RecordingLink, RecordingSink, by_type

DEVICES: Final = plugins()
IDENTS: Final = ("9170123456", "9170123457")
#: Where frames come from.
ORIGINS: Final = (("192.0.2.7:4711", "tcp"), ("192.0.2.7:4712", "tcp"), ("192.0.2.7:4711", "udp"))

#: Status words: nothing on, ignition, overspeed, both, and the relay cut.
CALM, DRIVING, FAST, RACING, CUT = "FFFFFBFF", "FFFFFFFF", "FFFFFBFB", "FFFFFFFB", "F7FFFBFF"


class Report(NamedTuple):
    """
    A report of a device.

    @ivar after: seconds that have passed before it.
    @ivar clock: seconds that its clock is ahead of the gateway's; None: it stands where it stood.
    """

    after: float = 1.0
    clock: int | None = 0
    word: str = CALM
    flag: str = "A"
    where: str = "2235.1234,S,11402.5678,W"
    altitude: float | None = None
    device: int = 0
    origin: int = 0
    cell: int = 4081


class Beat(NamedTuple):
    """A heartbeat, which has no time and no position."""

    device: int = 0
    origin: int = 0


class Again(NamedTuple):
    """A frame once more, byte by byte: the last, the one before it..."""

    back: int = 1
    origin: int = 0


class Pass(NamedTuple):
    """Time passes, and the second's tick comes."""

    seconds: float = 10.0


class Answers(NamedTuple):
    """Redis answers the batch that is under way, with these codes from the first event on."""

    codes: str = ""


class Registered(NamedTuple):
    """An application writes a registry entry."""

    entry: Mapping[str, str]
    device: int = 0


class Moved(NamedTuple):
    """Another gateway held the device for a while."""

    device: int = 0


Step = Report | Beat | Again | Pass | Answers | Registered | Moved


class Way:
    """A gateway from the frames on up to the sink, that goes the short way where it can, or never."""

    def __init__(self, short: bool) -> None:
        self._short = short
        self.clock = Clock()
        self.clock.advance(NOON)
        self.sink = RecordingSink()
        self.sessions = Sessions(devices=DEVICES)
        self.publisher = Publisher(self.clock, self.sink, self.sessions, Bounds())
        self.links = [RecordingLink(*origin) for origin in ORIGINS]
        self._frames: list[tuple[bytes, float | None]] = []
        self._times = dict.fromkeys(IDENTS, int(NOON))

    def go(self, *steps: Step) -> None:
        """Take some steps."""
        for step in steps:
            self._step(step)
            self.clock.advance(0)

    def _step(self, step: Step) -> None:
        match step:
            case Report():
                self._wait(step.after)
                self._receive(self._framed(step), step.altitude, step.origin)
            case Beat():
                self._receive(f"*HQ,{IDENTS[step.device]},HTBT#".encode(), None, step.origin)
            case Again() if len(self._frames) >= step.back:
                self._receive(*self._frames[-step.back], step.origin)
            case Pass():
                self._wait(step.seconds)
            case Answers() if self.sink.under_way is not None:
                codes = step.codes.ljust(len(self.sink.last), "p")[: len(self.sink.last)] if step.codes else ""
                self.sink.answer(codes, ["no"] * codes.count("r"))
            case Registered():
                self.publisher.register(IDENTS[step.device], step.entry)
            case Moved() if self.sink.under_way is not None:
                ident = IDENTS[step.device]
                if (session := self.sessions.get(ident)) is not None:
                    self.sink.stored[ident] = stored(session)
                self.sink.answer(lost=[ident])

    def _wait(self, seconds: float) -> None:
        """Time passes; the gateway looks at it each second, else it would have stood still."""
        self.clock.advance(seconds)
        self.publisher._ticked = self.clock.seconds()
        self.publisher.tick(self.clock.seconds())

    def _framed(self, report: Report) -> bytes:
        ident = IDENTS[report.device]
        if report.clock is not None:
            self._times[ident] = int(self.clock.seconds()) + report.clock
        stamp = compact_time(self._times[ident])
        day, time = f"{stamp[6:8]}{stamp[4:6]}{stamp[2:4]}", stamp[8:]
        speed = len(self._frames) % 1000  # so that no two are equal by accident
        text = f"V1,{time},{report.flag},{report.where},{speed:03d}.25,120,{day},{report.word}"
        return f"*HQ,{ident},{text},724,05,9784,{report.cell}#".encode()

    def _receive(self, frame: bytes, altitude: float | None, origin: int) -> None:
        self._frames.append((frame, altitude))
        now = self.clock.seconds()
        messages = device.decoder(Options(), self.sessions.memory).receive(frame, now)
        if altitude is not None:
            messages[0].events[0].attributes["altitude_m"] = altitude
        if not self._short:
            messages = [message._replace(same=None, alike=None) for message in messages]
        self.publisher.take(messages, self.links[origin], "st907", now)

    def finish(self) -> None:
        """Redis answers everything."""
        while self.sink.under_way is not None:
            self.go(Answers())

    def session(self, number: int = 0) -> Session:
        """The live session of a device."""
        found = self.sessions.get(IDENTS[number])
        assert found is not None
        return found

    def known(self) -> dict[str, dict[str, Any]]:
        """What is known of the devices, but for what only the short way needs."""
        names = (
            "newest newest_received recent fix first frames proven registered barred device_id changed holding "
            "reconnected refreshed seen shown late_on off peer transport protocol"
        ).split()
        found = {}
        for session in self.sessions:
            session.catch_up()
            found[session.ident] = {name: getattr(session, name) for name in names} | {"dump": session.dump()}
        return found


def stored(session: Session) -> Stored:
    """A session as Redis gives it back."""
    ids = range(0, len(session.recent), ENTRY_BYTES)
    recent = b"".join(session.recent[at : at + DIGEST_BYTES] for at in ids)
    return Stored(True, True, recent, session.newest, session.dump(), {})


reports = st.builds(
    Report,
    after=st.sampled_from([1.0, 1.0, 0.4, 0.0, 9.7, 30.0]),
    clock=st.sampled_from([0, 0, 0, 0, None, None, -1, -30, -150, 290, 600, -8 * 86_400, -1024 * 7 * 86_400 - 5]),
    word=st.sampled_from([CALM, CALM, CALM, DRIVING, FAST, RACING, CUT]),
    flag=st.sampled_from("AAAAV"),
    where=st.sampled_from(["2235.1234,S,11402.5678,W", "0000.0000,S,00000.0000,W", "2235.0000,N,11402.0000,E"]),
    altitude=st.sampled_from([None, None, None, 0.0, -12.5]),
    device=st.sampled_from([0, 0, 0, 1]),
    origin=st.sampled_from([0, 0, 0, 0, 1, 2]),
    cell=st.sampled_from([4081, 4081, 4082, 0]),
)
#: What most of the traffic is, with a clock that goes and with one that stands still.
drives: st.SearchStrategy[Sequence[Step]] = st.builds(
    lambda report, count: [report] * count,
    st.builds(
        Report,
        clock=st.sampled_from([0, 0, 0, None]),
        word=st.sampled_from([CALM, DRIVING, FAST]),
        altitude=st.sampled_from([None, None, 8.0]),
        device=st.just(0),
        after=st.just(1.0),
        flag=st.just("A"),
        where=st.just("2235.1234,S,11402.5678,W"),
        origin=st.just(0),
        cell=st.sampled_from([4081, 4082]),
    ),
    st.integers(1, 4),
)
others: st.SearchStrategy[Step] = st.one_of(
    reports,
    reports,
    st.builds(Pass, st.sampled_from([0.4, 1.0, 9.7, 10.0, 30.0, 61.0, 700.0, 1000.0])),
    st.builds(Answers, st.one_of(st.just(""), st.text("pdr", min_size=1, max_size=4))),
    st.builds(Again, st.integers(1, 6), st.sampled_from([0, 0, 1])),
    st.builds(Beat, st.sampled_from([0, 1]), st.sampled_from([0, 1])),
    st.builds(Registered, st.sampled_from([{}, {"device_id": "van 7"}, {"barred": "0"}]), st.sampled_from([0, 1])),
    st.builds(Moved, st.sampled_from([0, 1])),
)
histories = st.lists(st.one_of(drives, others.map(lambda step: [step])), max_size=30).map(
    lambda parts: [step for part in parts for step in part]
)


class ShortWayTests(SynchronousTestCase):
    """C{steady} is a shorter way to the same records, or no way at all."""

    maxDiff = None

    def assertSame(self, *history: Step) -> Way:
        """Both ways lead to the same batches, answers, counters and knowledge; the short one."""
        short, long = Way(short=True), Way(short=False)
        for way in (short, long):
            way.go(*history)
            way.finish()
        self.assertEqual(long.sink.events, short.sink.events)
        self.assertEqual(long.sink.batches, short.sink.batches)
        self.assertEqual([link.written for link in long.links], [link.written for link in short.links])
        self.assertEqual(long.publisher.counters, short.publisher.counters)
        self.assertEqual(long.known(), short.known())
        return short

    @settings(max_examples=600, deadline=None)
    @given(histories)
    def test_any_history(self, history: list[Step]) -> None:
        """Whatever devices send, and whatever becomes of it, both ways say the same byte by byte, and know the same."""
        self.assertSame(*history)

    def test_taken(self) -> None:
        """A report like the one before it goes the short way, with a clock that goes and with one that stands still."""
        for clock in (0, None):
            way = Way(short=True)
            way.go(*[Report(clock=clock)] * 3)
            self.assertIsNotNone(way.session().steady)

    def test_another_cell(self) -> None:
        """A report that differs from the one before it in its cell alone goes the short way too, and says its cell."""
        for clock in (0, None):
            history = [Report(clock=clock, cell=cell) for cell in (1, 1, 2, 1, 1, 3, 3)]
            for size in (3, 4, 6):
                way = Way(short=True)
                way.go(*history[:size])
                self.assertIsNotNone(way.session().steady)
            way = self.assertSame(*history)
            cells = [json.loads(event["data"])["cid"] for event in by_type(way.sink.events, "position")]
            self.assertEqual([1, 1, 2, 1, 1, 3, 3], cells)

    def test_not_taken(self) -> None:
        """One that says something else does not: another status word, an older time, another peer, no fix."""
        for other in (Report(word=DRIVING), Report(clock=-30), Report(origin=1), Report(flag="V"), Report(clock=600)):
            way = Way(short=True)
            way.go(*[Report()] * 3)
            way.session().steady = None
            way.go(other)
            self.assertIsNone(way.session().steady, other)

    def test_on_the_equator(self) -> None:
        """Zero degrees south or west have no sign."""
        way = self.assertSame(*[Report(where="0000.0000,S,00000.0000,W")] * 3)
        shown = {(event["latitude"], event["longitude"]) for event in by_type(way.sink.events, "position")}
        self.assertEqual({("0.000000", "0.000000")}, shown)

    def test_long_frame(self) -> None:
        """A frame of a kilobyte or more goes the long way."""
        for size, short in ((1023, True), (1024, False)):
            session = Session(IDENTS[0], NOON)
            where = {"latitude": 1.0, "longitude": 2.0, "speed_kmh": 3.0}
            message = Message(bytes(size), IDENTS[0], (Event("position", NOON, where),), same=where)
            session.same, session.newest, session.going = where, NOON - 1.0, True
            self.assertEqual(short, steady(session, message, "", "", NOON, 120.0) is not None)

    def test_just_below_zero(self) -> None:
        """What is zero with six decimals has no sign, and what is not keeps it."""
        session = Session(IDENTS[0], NOON)
        session.data = b"{}\0"
        message = Message(b"", events=(Event("position", NOON, {}),))
        for degrees in (0.0, -0.0, -4e-7, -5e-7, nextafter(-5e-7, -1.0), -6e-7, -1.0):
            record = brief(session, message, (bytes(16), NOON, 0, True, degrees, degrees, 0.0), NOON)
            self.assertEqual([f"{degrees:z.6f}".encode()] * 2, record[12:].split(b"\0")[4:6])

    def test_copy_among_reports_of_one_second(self) -> None:
        """A copy of a report from before a change does not hide that the next one takes the change back."""
        on = Report(word=DRIVING, after=0)
        way = self.assertSame(Report(), Report(), on, Again(2), Report())
        phases = [json.loads(event["data"])["phase"] for event in by_type(way.sink.events, "state.ignition")]
        self.assertEqual(["raised", "cleared"], phases)

    def test_time_of_the_future_that_comes(self) -> None:
        """A report whose time was refused is a copy when it comes again in its time, and news of the device later."""
        for ahead, later in ((310, 20.0), (600, 700.0)):
            self.assertSame(Report(), Report(), Report(clock=ahead), Pass(later), Again())

    def test_levels_of_other_frames(self) -> None:
        """What only other frames of the device speak of is not taken for seen again."""
        known = []
        for same in (object(), None):
            sessions = Sessions()
            session = sessions.begin(IDENTS[0], NOON)
            sessions.load(session, Stored(), NOON)
            link = RecordingLink()
            publisher = Publisher(Clock(), RecordingSink(), sessions, Bounds())
            for n, levels in enumerate(({"sos": True}, {"door": True}, {"door": True}, {"door": True}, {"sos": False})):
                at = NOON + 40 * n
                where = {"latitude": 1.0, "longitude": 2.0, "speed_kmh": 3.0}
                raw = b"%d" % n
                message = Message(raw, IDENTS[0], (Event("position", at, where),), levels)
                publisher.take([message._replace(same=same if "door" in levels else None)], link, "toy", at)
            known.append(session.dump())
        self.assertEqual(known[1], known[0])

    def test_back_in_another_frame(self) -> None:
        """An alarm that came back in a frame of another kind is cleared when the usual reports say that it is off."""
        same = {True: object(), False: object()}
        for short in (True, False):
            sink, clock, sessions = RecordingSink(), Clock(), Sessions()
            clock.advance(NOON)
            session = sessions.begin(IDENTS[0], NOON)
            sessions.load(session, Stored(), NOON)
            publisher = Publisher(clock, sink, sessions, Bounds())
            link = RecordingLink()
            for n, on in enumerate((False, True, True, False, None, False, False, False, False)):
                where = {"latitude": 1.0, "longitude": 2.0, "speed_kmh": 3.0}
                levels = {"overspeed": on is not False}  # None: another kind of frame, with overspeed
                event = Event("position", clock.seconds(), where)
                message = Message(b"%d" % n, IDENTS[0], (event,), levels)
                kind = same[on] if on is not None and short else None
                publisher.take([message._replace(same=kind)], link, "toy", clock.seconds())
                clock.advance(31 if n > 4 else 1)
                publisher.tick(clock.seconds())
                while sink.under_way is not None:
                    sink.answer()
                    clock.advance(0)
            phases = [json.loads(alarm["data"])["phase"] for alarm in by_type(sink.events, "alarm.overspeed")]
            self.assertEqual(["raised", "cleared"], phases, short)


class LastStateTests(SynchronousTestCase):
    """Which of a report's columns the last state takes up."""

    def modes(self, way: Way) -> list[str]:
        """How each position is told to the script: 2 with all its columns, 3 with where it is."""
        return [event["head"][2] for event in by_type(way.sink.events, "position")]

    def test_only_where(self) -> None:
        """All of the first report's, and then only where it is, until something else changes."""
        way = Way(short=True)
        way.go(Report(), Report(), Report(word=DRIVING), Report(word=DRIVING), Report(origin=1, word=DRIVING))
        way.finish()
        self.assertEqual(["2", "3", "2", "3", "2"], self.modes(way))

    def test_altitude(self) -> None:
        """A report with an altitude is another than one without."""
        way = Way(short=True)
        way.go(Report(), Report(altitude=8.0), Report(altitude=9.0), Report())
        way.finish()
        self.assertEqual(["2", "2", "3", "2"], self.modes(way))

    def test_after_one_that_was_not_written(self) -> None:
        """After a duplicate or a refused report all columns are told again."""
        for codes in ("d", "r"):
            way = Way(short=True)
            way.go(Report(), Answers(), Report(), Answers(codes), Answers(), Report())
            way.finish()
            self.assertEqual("2", self.modes(way)[-1], codes)

    def test_after_a_copy_from_elsewhere(self) -> None:
        """A device that comes from elsewhere and sends its last report again is shown with its new address at once."""
        way = Way(short=True)
        way.go(Report(), Answers(), Again(1, origin=1), Report(origin=1), Answers("d"))
        way.finish()
        self.assertEqual("2", self.modes(way)[-1])


class RecordTests(SynchronousTestCase):
    """What a record holds."""

    def record(self, kind: str, **attributes: Any) -> bytes:
        """An event of nobody's session as a record."""
        envelope = Envelope(bytes(range(16)), kind, NOON, NOON, attributes)
        return render(envelope, Message(b"frame"), None, RecordingLink(), "toy", NOON + 1, PUBLISHED, first=True)

    def test_described(self) -> None:
        """Type, time and id are read back from records of every stream, whatever else is in them."""
        for kind in ("position", "status", "alarm.sos", "device.connected", "frame.undecodable"):
            for attributes in ({}, {"latitude": 1.5, "longitude": 2.5, "course_deg": 7, "reason": "\0 and \n"}):
                wanted = (kind, rfc3339(NOON), bytes(range(16)).hex())
                self.assertEqual(wanted, described(self.record(kind, **attributes)))

    def test_id_full_of_zeros(self) -> None:
        """An id may begin with zero bytes: it does not end a field."""
        envelope = Envelope(bytes(16), "status", NOON, None, {})
        record = render(envelope, Message(b""), None, None, "toy", NOON, PUBLISHED, first=True)
        self.assertEqual(("status", rfc3339(NOON), "00" * 16), described(record))

    def test_control_characters(self) -> None:
        """A column with one makes its frame undecodable: it is on the dead stream, and the next is published."""
        for text in ("\0", "FF\0FF", "\n", "\x1b[31m", "\x7f", "\xe9"):
            way = Way(short=True)
            way.go(Report(), Answers(), Answers())
            raw = b"the frame"
            bad = Message(raw, IDENTS[0], (Event("position", NOON, {"status_word": text}),))
            way.publisher.take([bad], way.links[0], "toy", NOON + 5)
            way.go(Report())
            way.finish()
            (dead,) = by_type(way.sink.events, "frame.undecodable")
            data = json.loads(dead["data"])
            self.assertEqual((IDENTS[0], raw.hex()), (dead["ident"], data["frame"]), repr(text))
            self.assertIn("printable", data["reason"])
            counted = way.publisher.counters
            self.assertEqual((2, 1), (counted["published"], counted["undecodable"]))

    def test_control_characters_in_data(self) -> None:
        """In C{data} they are text like any other."""
        record = self.record("status", raw_text="a\0b\n")
        self.assertEqual({"raw_text": "a\0b\n"}, json.loads(record.split(b"\0")[-2]))

    def test_unknown_is_absent(self) -> None:
        """None and empty text are left out, False and 0 are not."""
        record = self.record("alarm.sos", reason="", since=None, valid=False, cid=0)
        self.assertEqual({"valid": False, "cid": 0}, json.loads(record.split(b"\0")[-2]))


class RoundedTests(SynchronousTestCase):
    """The decimals of the contract."""

    def test_decimals(self) -> None:
        """Degrees have six, speeds two; other figures are as the device gave them."""
        exact = {"latitude": 52.123456789, "last_longitude": -13.9999999, "speed_kmh": 41.00328, "hdop": 0.123456789}
        wanted = {"latitude": 52.123457, "last_longitude": -14.0, "speed_kmh": 41.0, "hdop": 0.123456789}
        self.assertEqual(wanted, rounded(exact))
        self.assertEqual(52.123456789, exact["latitude"], "the plugin's own are untouched")

    @given(st.floats(-180, 180, allow_nan=False))
    def test_never_a_negative_zero(self, degrees: float) -> None:
        """What rounds to zero has no sign, in a column and in C{data}."""
        for value in (degrees, degrees / 1e9, -0.0):
            for name in ("latitude", "last_latitude", "speed_kmh"):
                self.assertNotEqual("-0.0", str(rounded({name: value})[name]))

    def test_unknown(self) -> None:
        """What is unknown stays so."""
        self.assertEqual({"latitude": None}, rounded({"latitude": None}))
