"""Sessions: times that are checked, lateness that is stated, levels that become edges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gateway.events import Event, event_digest
from gateway.fields import rfc3339
from gateway.interfaces import Message
from gateway.session import Envelope, Session, Stored
from gateway.sessions import Sessions
from tests.fakes import NOON

WEEK = 604_800.0
IDENT = "9170225361"


class SessionsCase(SynchronousTestCase):
    """A device whose session has begun at noon."""

    maxDiff = None

    def setUp(self) -> None:
        self.sessions = Sessions()
        self.session = self.begin()

    def begin(self, stored: Stored | None = None, now: float = NOON, ident: str = IDENT) -> Session:
        """Begin a session with what is kept of the device."""
        session = self.sessions.begin(ident, now)
        self.sessions.load(session, Stored() if stored is None else stored, now)
        session.meet("192.0.2.7:4711", "tcp", "st907", now)
        return session

    def report(
        self,
        now: float,
        time: float | None = None,
        levels: Mapping[str, bool] | None = None,
        raw: bytes | None = None,
        session: Session | None = None,
        **attributes: Any,
    ) -> list[Envelope]:
        """What a position report leads to; each has bytes of its own unless C{raw} says otherwise."""
        raw = f"{now} {time} {levels} {attributes}".encode() if raw is None else raw
        message = Message(raw, IDENT, (Event("position", time, dict(attributes)),), levels or {})
        return self.sessions.judge(session or self.session, message, "st907", now)

    def assertPhases(self, wanted: Sequence[tuple[str, str]], envelopes: Sequence[Envelope]) -> None:
        """The edges among these, as type and phase."""
        got = [(e.type, e.attributes["phase"]) for e in envelopes if "phase" in e.attributes]
        self.assertEqual(list(wanted), got)


class TimeTests(SessionsCase):
    """What becomes of a device's time."""

    def test_device_time(self) -> None:
        """A report of now keeps the device's time, and nothing else is said of time."""
        (report,) = self.report(NOON, NOON - 2)
        self.assertEqual(NOON - 2, report.time)
        self.assertEqual(NOON - 2, report.device_time)
        self.assertTrue({"time_source", "device_time", "late", "clock"}.isdisjoint(report.attributes))

    def test_no_time(self) -> None:
        """A report without a time has the time of receipt, says that it is the server's, and is never the newest."""
        (report,) = self.report(NOON, None)
        self.assertEqual((NOON, None), (report.time, report.device_time))
        self.assertEqual({"time_source": "server"}, report.attributes)
        self.assertIsNone(self.session.newest)

    def test_no_time_has_an_id_of_its_own(self) -> None:
        """The same bytes without a time at another moment are another event; with a time they are the same one."""
        self.assertNotEqual(self.report(NOON, raw=b"a")[0].digest, self.report(NOON + 1, raw=b"a")[0].digest)
        wanted = event_digest(IDENT, "st907", b"b", "position", 0)
        self.assertEqual(wanted, self.report(NOON, NOON, raw=b"b")[0].digest)

    def test_future(self) -> None:
        """A time more than five minutes ahead is refused: server time, the original beside it, never the newest."""
        (report,) = self.report(NOON, NOON + 301)
        self.assertEqual((NOON, None), (report.time, report.device_time))
        self.assertEqual({"time_source": "server", "device_time": rfc3339(NOON + 301)}, report.attributes)
        (after,) = self.report(NOON + 10, NOON + 10)
        self.assertNotIn("late", after.attributes)

    def test_a_little_ahead(self) -> None:
        """A time up to five minutes ahead is the device's own."""
        (report,) = self.report(NOON, NOON + 300)
        self.assertEqual((NOON + 300, {}), (report.time, report.attributes))

    def test_week_rollover(self) -> None:
        """A time that 1,024 or 2,048 weeks more bring to within a week is corrected, and says by how much."""
        for weeks in (1024, 2048):
            for age in (0.0, 5.0, 6.9 * 86_400):
                time = NOON - age - weeks * WEEK
                session = self.begin()
                (report,) = self.report(NOON, time, session=session)
                self.assertEqual(NOON - age, report.time)
                self.assertEqual("device-corrected", report.attributes["time_source"])
                self.assertEqual(weeks * WEEK, report.attributes["time_correction_s"])
                self.assertEqual(rfc3339(time), report.attributes["device_time"])

    def test_week_rollover_is_exact(self) -> None:
        """What lands more than a week ago, or more than five minutes ahead, is no rollover: it stays as it is."""
        for off in (-7 * 86_400 - 1, 301.0):
            time = NOON + off - 1024 * WEEK
            (report,) = self.report(NOON, time, session=self.begin())
            self.assertEqual(time, report.time)
            self.assertNotIn("time_correction_s", report.attributes)

    def test_old_time(self) -> None:
        """Any other old time is kept and is late."""
        (report,) = self.report(NOON, NOON - 400 * 86_400)
        self.assertEqual((NOON - 400 * 86_400, {"late": "lag"}), (report.time, report.attributes))

    def test_frozen_after_rollover(self) -> None:
        """A clock that is 1,024 weeks behind and stands still says what the device itself said."""
        time = NOON - 5 - 1024 * WEEK
        self.report(NOON, time)
        (report,) = self.report(NOON + 60, time, n=2)
        self.assertEqual(rfc3339(time), report.attributes["device_time"])


class LateTests(SessionsCase):
    """Which reports are late, and why."""

    def test_order(self) -> None:
        """A report older than the device's newest is late by order, however young it is."""
        self.report(NOON, NOON)
        self.assertEqual("order", self.report(NOON + 1, NOON - 1)[0].attributes["late"])
        self.assertEqual("order", self.report(NOON + 2, NOON - 7200)[0].attributes["late"])
        self.assertEqual(NOON, self.session.newest)

    def test_lag(self) -> None:
        """A report more than 120 s old is late by lag; one of exactly 120 s is not."""
        self.assertNotIn("late", self.report(NOON, NOON - 120)[0].attributes)
        session = self.begin()
        self.assertEqual("lag", self.report(NOON, NOON - 121, session=session)[0].attributes["late"])

    def test_lag_is_an_option(self) -> None:
        """How old is late can be set."""
        self.sessions = Sessions(lag_s=10)
        self.assertEqual("lag", self.report(NOON, NOON - 11, session=self.begin())[0].attributes["late"])

    def test_newest_of_before(self) -> None:
        """The newest time of a session before this one counts."""
        session = self.begin(Stored(known=True, newest=NOON - 5))
        self.assertEqual("order", self.report(NOON, NOON - 6, session=session)[0].attributes["late"])

    def test_frozen_clock(self) -> None:
        """A time equal to the newest is a live report of a clock that stands still, also after a day."""
        self.report(NOON, NOON - 3)
        for later in (10.0, 600.0, 86_400.0):
            (report,) = self.report(NOON + later, NOON - 3)
            self.assertEqual(NOON + later, report.time)
            self.assertEqual(
                {"clock": "frozen", "time_source": "server", "device_time": rfc3339(NOON - 3)}, report.attributes
            )

    def test_frozen_clock_of_before(self) -> None:
        """A clock that stood still over a restart of the gateway still does."""
        session = self.begin(Stored(known=True, newest=NOON - 5000))
        self.assertEqual("frozen", self.report(NOON, NOON - 5000, session=session)[0].attributes["clock"])

    def test_two_of_one_second(self) -> None:
        """Two different reports of the second of now: the second is not late."""
        self.report(NOON, NOON)
        self.assertNotIn("late", self.report(NOON + 1, NOON, n=2)[0].attributes)

    def test_clock_that_runs_again(self) -> None:
        """A clock that runs again after it stood is the device's time again."""
        self.report(NOON, NOON)
        self.report(NOON + 60, NOON)
        (report,) = self.report(NOON + 120, NOON + 119)
        self.assertEqual((NOON + 119, {}), (report.time, report.attributes))


class RepeatTests(SessionsCase):
    """The same bytes again."""

    def test_within_a_minute(self) -> None:
        """A copy within 60 s has the id of the first: the store knows it as a duplicate; no edge follows from it."""
        (first,) = self.report(NOON, NOON, {"overspeed": False}, b"a")
        envelopes = self.report(NOON + 59, NOON, {"overspeed": True}, b"a")
        self.assertEqual([(first.digest, "position")], [(e.digest, e.type) for e in envelopes])

    def test_after_a_minute(self) -> None:
        """A copy after 60 s is a status that names what it repeats, with an id that includes its receipt."""
        (first,) = self.report(NOON, NOON, raw=b"a")
        (again,) = self.report(NOON + 60, NOON, raw=b"a", status_word="FFFFFFFF", latitude=1.0)
        self.assertEqual("status", again.type)
        self.assertEqual(NOON + 60, again.time)
        self.assertEqual(first.digest.hex(), again.attributes["repeat_of"])
        self.assertEqual("FFFFFFFF", again.attributes["status_word"])
        self.assertNotIn("latitude", again.attributes)
        self.assertEqual(event_digest(IDENT, "st907", b"a", "status", 0, rfc3339(NOON + 60)), again.digest)
        self.assertIsNone(again.device_time)

    def test_counted_from_the_last_copy(self) -> None:
        """The minute counts from the copy before, also when that one was a duplicate."""
        self.report(NOON, NOON, raw=b"a")
        self.assertEqual("position", self.report(NOON + 50, NOON, raw=b"a")[0].type)
        self.assertEqual("position", self.report(NOON + 100, NOON, raw=b"a")[0].type)
        self.assertEqual("status", self.report(NOON + 160, NOON, raw=b"a")[0].type)

    def test_counted_from_the_reconnect(self) -> None:
        """After a reconnect a device sends again what was not answered: the minute counts from there."""
        self.report(NOON, NOON, raw=b"a")
        self.session.meet("192.0.2.8:1", "tcp", "st907", NOON + 90)
        self.assertEqual("position", self.report(NOON + 90, NOON, raw=b"a")[0].type)

    def test_not_too_early(self) -> None:
        """59.5 seconds are not a minute, wherever in its second the first copy came."""
        self.report(NOON + 0.9, NOON, raw=b"a")
        self.assertEqual("position", self.report(NOON + 60.4, NOON, raw=b"a")[0].type)

    def test_copies_of_before(self) -> None:
        """What the session before this one had seen is still a copy."""
        digest = event_digest(IDENT, "st907", b"a", "position", 0)
        session = self.begin(Stored(known=True, recent=digest[:8], newest=NOON))
        envelopes = self.report(NOON + 10, NOON, {"overspeed": True}, b"a", session)
        self.assertEqual([digest], [e.digest for e in envelopes])

    def test_memory_is_bounded(self) -> None:
        """Only the last 64 reports are remembered."""
        for n in range(500):
            self.report(NOON + n, NOON + n)
        self.assertLessEqual(len(self.session.recent), 64 * 14)


class EdgeTests(SessionsCase):
    """Levels become edges."""

    def test_raised(self) -> None:
        """An alarm that comes on is raised once, with where it happened and since when."""
        self.report(NOON, NOON, {"overspeed": False})
        report, alarm = self.report(
            NOON + 10, NOON + 9, {"overspeed": True}, latitude=1.5, longitude=2.5, speed_kmh=99.0, valid=True
        )
        self.assertEqual(("alarm.overspeed", NOON + 9), (alarm.type, alarm.time))
        self.assertEqual(
            {
                "phase": "raised", "origin": "device", "since": rfc3339(NOON + 9), "position_id": report.digest.hex(),
                "latitude": 1.5, "longitude": 2.5, "speed_kmh": 99.0, "valid": True,
            },
            alarm.attributes,
        )  # fmt: skip
        self.assertPhases([], self.report(NOON + 20, NOON + 19, {"overspeed": True}))

    def test_levels_of_a_report(self) -> None:
        """A report says what is on: states in columns of their own, alarms in a list."""
        (report, *_) = self.report(NOON, NOON, {"ignition": True, "immobilizer": False, "overspeed": True})
        attributes = report.attributes
        self.assertEqual(
            (True, False, ["overspeed"]), (attributes["ignition"], attributes["immobilizer"], attributes["levels"])
        )

    def test_without_a_fix(self) -> None:
        """An alarm without a fix carries the last fix that is known, by those names, and no other."""
        self.report(NOON, NOON, {"sos": False}, latitude=1.5, longitude=2.5, valid=True)
        _, alarm = self.report(NOON + 10, NOON + 9, {"sos": True}, valid=False)
        self.assertEqual((1.5, 2.5), (alarm.attributes["last_latitude"], alarm.attributes["last_longitude"]))
        self.assertTrue({"latitude", "longitude", "speed_kmh"}.isdisjoint(alarm.attributes))

    def test_active_at_first_contact(self) -> None:
        """Of a device of which nothing is known, an alarm that is on is published once, as active."""
        self.assertPhases([("alarm.overspeed", "active")], self.report(NOON, NOON, {"overspeed": True, "sos": False}))
        self.assertPhases([], self.report(NOON + 10, NOON + 10, {"overspeed": True, "sos": False}))

    def test_off_at_first_contact(self) -> None:
        """What is off when a device is first met is no news."""
        self.assertPhases([], self.report(NOON, NOON, {"overspeed": False, "ignition": False}))

    def test_cleared_by_report(self) -> None:
        """An alarm is cleared by the first report after 60 s without it, with what raised it and how long."""
        self.report(NOON, NOON, {"overspeed": False})
        _, raised = self.report(NOON + 10, NOON + 10, {"overspeed": True})
        self.report(NOON + 20, NOON + 20, {"overspeed": True})
        for later in (30, 50, 79):
            self.assertPhases([], self.report(NOON + later, NOON + later, {"overspeed": False}))
        _, cleared = self.report(NOON + 90, NOON + 90, {"overspeed": False})
        self.assertEqual("cleared", cleared.attributes["phase"])
        self.assertEqual(raised.digest.hex(), cleared.attributes["raised_id"])
        self.assertEqual(20.0, cleared.attributes["duration_s"])
        self.assertEqual([], self.sessions.cleared(NOON + 1000), "once")

    def test_back_to_a_frame_of_before(self) -> None:
        """A parked device whose clock stands still says with a frame that it has sent before that an alarm is over."""
        on, off = {"power.cut": True}, {"power.cut": False}
        self.report(NOON, NOON, off, b"calm")
        _, raised = self.report(NOON + 10, NOON, on, b"cut")
        self.assertPhases([], self.report(NOON + 20, NOON, off, b"calm"))  # a copy: the store has it
        _, cleared = self.report(NOON + 90, NOON, off, b"calm")
        self.assertEqual(("alarm.power.cut", "cleared"), (cleared.type, cleared.attributes["phase"]))
        self.assertEqual(raised.digest.hex(), cleared.attributes["raised_id"])
        _, again = self.report(NOON + 160, NOON, on, b"cut")
        self.assertEqual("raised", again.attributes["phase"])
        self.assertNotEqual(raised.digest, again.digest)

    def test_buffered_frame_once_more(self) -> None:
        """A frame of its buffer that comes once more says nothing of what is now."""
        self.report(NOON, NOON, {"sos": False}, b"old")
        self.report(NOON + 10, NOON + 10, {"sos": True}, b"new")
        self.assertPhases([], self.report(NOON + 90, NOON, {"sos": False}, b"old"))

    def test_cleared_by_timer(self) -> None:
        """An alarm is cleared 60 s after the last report that had it, also when no further report comes."""
        self.report(NOON, NOON, {"overspeed": False})
        _, raised = self.report(NOON + 10, NOON + 10, {"overspeed": True})
        self.report(NOON + 20, NOON + 20, {"overspeed": False})
        self.assertEqual([], self.sessions.cleared(NOON + 69))
        ((session, cleared),) = self.sessions.cleared(NOON + 70)
        self.assertIs(self.session, session)
        self.assertEqual(("alarm.overspeed", "cleared"), (cleared.type, cleared.attributes["phase"]))
        self.assertEqual(raised.digest.hex(), cleared.attributes["raised_id"])
        self.assertEqual(10.0, cleared.attributes["duration_s"])
        self.assertEqual([], self.sessions.cleared(NOON + 1000), "once")
        self.assertPhases([], self.report(NOON + 100, NOON + 100, {"overspeed": False}))

    def test_not_cleared_without_a_report(self) -> None:
        """Silence alone clears nothing: the last report had the alarm."""
        self.report(NOON, NOON, {"overspeed": False})
        self.report(NOON + 10, NOON + 10, {"overspeed": True})
        self.assertEqual([], self.sessions.cleared(NOON + 500))

    def test_flicker(self) -> None:
        """An alarm that goes and comes back within the hold-off is one alarm."""
        self.report(NOON, NOON, {"overspeed": False})
        got: list[Envelope] = []
        for n, on in enumerate((True, False, True, False, True, True)):
            got += self.report(NOON + 10 + n * 10, NOON + 10 + n * 10, {"overspeed": on})
        self.assertPhases([("alarm.overspeed", "raised")], got)
        self.assertEqual([], self.sessions.cleared(NOON + 119))

    def test_raised_again(self) -> None:
        """After it was cleared an alarm is raised anew, with an id of its own."""
        self.report(NOON, NOON, {"sos": False})
        _, first = self.report(NOON + 1, NOON + 1, {"sos": True})
        self.report(NOON + 2, NOON + 2, {"sos": False})
        self.assertEqual(1, len(self.sessions.cleared(NOON + 62)))
        _, second = self.report(NOON + 63, NOON + 63, {"sos": True})
        self.assertEqual("raised", second.attributes["phase"])
        self.assertNotEqual(first.digest, second.digest)

    def test_states_without_hold_off(self) -> None:
        """Ignition, immobilizer and arming are published at each change at once, with the state they are in."""
        self.report(NOON, NOON, {"ignition": False, "immobilizer": False})
        got: list[Envelope] = []
        for n, on in enumerate((True, False, True)):
            got += self.report(NOON + 1 + n, NOON + 1 + n, {"ignition": on, "immobilizer": not on})
        edges = [(e.type, e.attributes[e.type[6:]]) for e in got if e.type != "position"]
        self.assertEqual(
            [
                ("state.ignition", True),
                ("state.ignition", False),
                ("state.immobilizer", True),
                ("state.ignition", True),
                ("state.immobilizer", False),
            ],
            edges,
        )

    def test_several_at_once(self) -> None:
        """Each level of a report is an edge of its own; none hides another, and ids differ."""
        self.report(NOON, NOON, {"sos": False, "overspeed": False, "power.cut": False})
        got = self.report(NOON + 1, NOON + 1, {"sos": True, "overspeed": True, "power.cut": True})
        self.assertEqual(["position", "alarm.sos", "alarm.overspeed", "alarm.power.cut"], [e.type for e in got])
        self.assertEqual(4, len({e.digest for e in got}))

    def test_level_that_is_not_spoken_of(self) -> None:
        """A report that says nothing of a level changes nothing of it."""
        self.report(NOON, NOON, {"overspeed": False})
        self.report(NOON + 1, NOON + 1, {"overspeed": True})
        self.report(NOON + 2, NOON + 2, {"ignition": False})
        self.assertEqual([], self.sessions.cleared(NOON + 500))
        self.assertPhases([], self.report(NOON + 3, NOON + 3, {"overspeed": True}))


class LateEdgeTests(SessionsCase):
    """Alarms of reports that come late."""

    def test_published_with_late(self) -> None:
        """A late report's alarm is published, marked as late, at the time of the report."""
        self.report(NOON, NOON, {"overspeed": False})
        _, alarm = self.report(NOON + 1, NOON - 3600, {"overspeed": True})
        self.assertEqual(("alarm.overspeed", NOON - 3600), (alarm.type, alarm.time))
        self.assertEqual(("order", "raised"), (alarm.attributes["late"], alarm.attributes["phase"]))
        self.assertEqual(rfc3339(NOON - 3600), alarm.attributes["since"])

    def test_live_state_is_untouched(self) -> None:
        """A late report neither raises, clears nor holds a live alarm, and moves no state and no fix."""
        self.report(NOON, NOON, {"overspeed": False, "ignition": True}, latitude=1.0, longitude=1.0)
        self.report(NOON + 1, NOON - 3600, {"overspeed": True, "ignition": False}, latitude=9.0, longitude=9.0)
        self.assertPhases([], self.report(NOON + 2, NOON + 2, {"overspeed": False, "ignition": True}))
        self.assertPhases([("alarm.overspeed", "raised")], self.report(NOON + 3, NOON + 3, {"overspeed": True}))
        self.report(NOON + 4, NOON - 3500, {"overspeed": False})
        self.assertEqual([], self.sessions.cleared(NOON + 500))
        assert self.session.fix is not None
        self.assertEqual((1.0, 1.0), self.session.fix[:2])

    def test_late_at_first_contact(self) -> None:
        """A device that is first met with a late report: its alarm is late, and the next live one is still news."""
        envelopes = self.report(NOON, NOON - 3600, {"overspeed": True})
        self.assertEqual(["lag"], [e.attributes["late"] for e in envelopes if e.type == "alarm.overspeed"])
        self.assertPhases([("alarm.overspeed", "active")], self.report(NOON + 1, NOON + 1, {"overspeed": True}))

    def test_each_late_alarm(self) -> None:
        """A buffer of late reports publishes an alarm each time it comes on, and nothing twice."""
        self.report(NOON, NOON, {"overspeed": False})
        got: list[Envelope] = []
        for n, on in enumerate((True, True, False, True)):
            got += self.report(NOON + 1, NOON - 3600 + n, {"overspeed": on})
        self.assertPhases([("alarm.overspeed", "raised")] * 2, got)


class LifeTests(SessionsCase):
    """How long sessions live, and what is kept of them."""

    def test_round_trip(self) -> None:
        """State that is saved and read again goes on as if nothing had happened: levels, fix, what was learned."""
        self.report(NOON, NOON, {"overspeed": False, "ignition": True}, latitude=1.5, longitude=2.5)
        _, raised = self.report(NOON + 10, NOON + 10, {"overspeed": True, "ignition": True})
        self.session.memory["binary"] = [45, 2]
        state = self.session.dump()
        self.sessions.drop(IDENT)
        session = self.begin(Stored(known=True, newest=self.session.newest, state=state), NOON + 20)
        self.assertEqual([45, 2], session.memory["binary"])
        self.assertPhases([], self.report(NOON + 30, NOON + 30, {"overspeed": True, "ignition": True}, session=session))
        envelopes = self.report(NOON + 100, NOON + 100, {"overspeed": False, "ignition": False}, session=session)
        self.assertPhases([("alarm.overspeed", "cleared"), ("state.ignition", "cleared")], envelopes)
        self.assertEqual(raised.digest.hex(), envelopes[1].attributes["raised_id"])

    def test_round_trip_in_the_hold_off(self) -> None:
        """An alarm whose hold-off ran when its state was saved is cleared by the timer after it was read again."""
        self.report(NOON, NOON, {"overspeed": False})
        self.report(NOON + 10, NOON + 10, {"overspeed": True})
        self.report(NOON + 20, NOON + 20, {"overspeed": False})
        state = self.session.dump()
        self.sessions.drop(IDENT)
        self.begin(Stored(known=True, newest=self.session.newest, state=state), NOON + 25)
        self.assertEqual(["alarm.overspeed"], [e.type for _, e in self.sessions.cleared(NOON + 90)])

    def test_dirty(self) -> None:
        """State is saved when a level or what was learned changed, and not for each report."""
        self.report(NOON, NOON, {"overspeed": False})
        self.assertTrue(self.session.dirty)
        self.session.dump()
        self.report(NOON + 1, NOON + 1, {"overspeed": False})
        self.assertFalse(self.session.dirty)
        self.session.memory["binary"] = (45, 1)
        self.assertTrue(self.session.dirty)
        self.session.dump()
        self.assertFalse(self.session.dirty)

    def test_memory(self) -> None:
        """A decoder's memory is the ident's; until its state was read, and for strangers, it is thrown away."""
        self.sessions.memory(IDENT)["binary"] = 1
        self.assertEqual({"binary": 1}, self.session.memory)
        self.sessions.begin("9170225362", NOON)
        for ident in ("9170225362", "9170225363"):
            self.sessions.memory(ident)["binary"] = 1
            self.assertEqual({}, dict(self.sessions.memory(ident)))

    def test_expired(self) -> None:
        """A session ends 900 s after the device was last heard of, not before, and a later report begins a new one."""
        self.session.meet("192.0.2.7:4711", "tcp", "st907", NOON + 100)
        self.assertEqual([], self.sessions.expired(NOON + 999))
        self.assertEqual([self.session], self.sessions.expired(NOON + 1000))
        self.assertIsNone(self.sessions.get(IDENT))
        self.assertEqual(0, len(self.sessions))

    def test_hold_off_of_a_session_that_ended(self) -> None:
        """A hold-off that a session did not live to see harms nobody."""
        self.report(NOON, NOON, {"overspeed": False})
        self.report(NOON + 10, NOON + 10, {"overspeed": True})
        self.report(NOON + 20, NOON + 20, {"overspeed": False})
        self.sessions.expired(NOON + 2000)
        self.assertEqual([], self.sessions.cleared(NOON + 2001))

    def test_proven(self) -> None:
        """An ident is proven by three good frames over five minutes; neither frames nor minutes alone are enough."""
        for n in range(10):
            self.report(NOON + n, NOON + n)
        self.assertFalse(self.session.proven)
        self.report(NOON + 300, NOON + 300)
        self.assertTrue(self.session.proven)
        other = self.begin(ident="9170225362")
        self.report(NOON, NOON, session=other)
        self.report(NOON + 400, NOON + 400, session=other)
        self.assertFalse(other.proven, "two frames")

    def test_proven_over_a_restart(self) -> None:
        """What counts towards being proven is kept."""
        self.report(NOON, NOON)
        self.report(NOON + 1, NOON + 1)
        session = self.begin(Stored(known=True, state=self.session.dump()), NOON + 299)
        self.report(NOON + 301, NOON + 301, session=session)
        self.assertTrue(session.proven)

    def test_registry(self) -> None:
        """What applications wrote of a device holds: its key, and whether it is let in."""
        self.session.register({"device_id": "van 7", "enabled": "0"})
        self.assertEqual(
            ("van 7", False, True), (self.session.device_id, not self.session.barred, self.session.registered)
        )
        self.session.register({})
        self.assertEqual(("", True, False), (self.session.device_id, not self.session.barred, self.session.registered))


class AdoptTests(SessionsCase):
    """What is kept of a device whose session began while nobody could be asked is read later."""

    maxDiff = None

    def setUp(self) -> None:
        super().setUp()
        self.raised: dict[str, str] = {}

    def stored(self, *levels: Mapping[str, bool], **more: Any) -> Stored:
        """What a session left behind that had these levels, ten seconds apart, an hour before noon."""
        start = NOON - 3600
        before = self.begin(now=start)
        for n, on in enumerate(levels):
            for envelope in self.report(
                start + 10 * n, start + 10 * n, on, session=before, latitude=1.0, longitude=2.0
            ):
                if envelope.attributes.get("phase") in ("raised", "active"):
                    self.raised[envelope.type] = envelope.digest.hex()
        before.memory.update(more)
        self.sessions.drop(IDENT)
        return Stored(True, False, b"12345678", before.newest, before.dump())

    def unknown(self, now: float = NOON) -> Session:
        """Its session during the outage."""
        self.session = self.begin(Stored(unknown=True), now)
        self.assertTrue(self.session.unknown)
        return self.session

    def adopt(self, stored: Stored, now: float = NOON + 60) -> list[Envelope]:
        """Redis is back; the difference."""
        difference = self.sessions.adopt(self.session, stored, now)
        assert difference is not None
        self.assertFalse(self.session.unknown)
        return difference

    def test_on_before_and_off_now(self) -> None:
        """An alarm that was on before and is off now is cleared once, as the one of then."""
        stored = self.stored({"overspeed": False}, {"overspeed": True})
        self.unknown()
        self.assertPhases([], self.report(NOON, NOON, {"overspeed": False}))
        (cleared,) = self.adopt(stored)
        self.assertPhases([("alarm.overspeed", "cleared")], [cleared])
        self.assertEqual(self.raised["alarm.overspeed"], cleared.attributes["raised_id"])
        self.assertEqual(NOON + 60, cleared.time)
        self.assertPhases([], self.report(NOON + 70, NOON + 70, {"overspeed": False}))
        self.assertEqual([], self.sessions.cleared(NOON + 900))
        raised = self.report(NOON + 80, NOON + 80, {"overspeed": True})
        self.assertPhases([("alarm.overspeed", "raised")], raised)

    def test_on_before_and_now(self) -> None:
        """An alarm that is on in both is one alarm: since then, and cleared as the one that was raised then."""
        stored = self.stored({"overspeed": False}, {"overspeed": True})
        self.unknown()
        self.assertPhases([("alarm.overspeed", "active")], self.report(NOON, NOON, {"overspeed": True}))
        self.assertEqual([], self.adopt(stored))
        self.assertPhases([], self.report(NOON + 70, NOON + 70, {"overspeed": True}))
        envelopes = self.report(NOON + 200, NOON + 200, {"overspeed": False})
        self.assertPhases([("alarm.overspeed", "cleared")], envelopes)
        self.assertEqual(self.raised["alarm.overspeed"], envelopes[1].attributes["raised_id"])
        # until the first report without it
        self.assertEqual(3600 - 10 + 200, envelopes[1].attributes["duration_s"])

    def test_unknown_before_and_on_now(self) -> None:
        """An alarm of which nothing was known before goes on as what it was published as."""
        self.unknown()
        _, active = self.report(NOON, NOON, {"overspeed": True})
        self.assertEqual([], self.adopt(Stored(known=True)))
        envelopes = self.report(NOON + 200, NOON + 200, {"overspeed": False})
        self.assertEqual(active.digest.hex(), envelopes[1].attributes["raised_id"])

    def test_on_before_and_not_spoken_of(self) -> None:
        """An alarm of which the device has not spoken since is on, as before."""
        stored = self.stored({"overspeed": True})
        self.unknown()
        self.report(NOON, NOON, {})
        self.assertEqual([], self.adopt(stored))
        envelopes = self.report(NOON + 200, NOON + 200, {"overspeed": False})
        self.assertEqual(self.raised["alarm.overspeed"], envelopes[1].attributes["raised_id"])

    def test_hold_off_before(self) -> None:
        """An alarm that was in its hold-off and was not spoken of since is cleared by the timer."""
        stored = self.stored({"overspeed": True}, {"overspeed": False})
        self.unknown()
        self.report(NOON, NOON, {})
        self.assertEqual([], self.adopt(stored))
        self.assertEqual(["alarm.overspeed"], [e.type for _, e in self.sessions.cleared(NOON + 61)])

    def test_hold_off_now(self) -> None:
        """An alarm that is in its hold-off now, and was on before, is cleared once, as the one of then."""
        stored = self.stored({"overspeed": True})
        self.unknown()
        self.report(NOON, NOON, {"overspeed": True})
        self.report(NOON + 10, NOON + 10, {"overspeed": False})
        self.assertEqual([], self.adopt(stored))
        ((_, cleared),) = self.sessions.cleared(NOON + 71)
        self.assertEqual(self.raised["alarm.overspeed"], cleared.attributes["raised_id"])

    def test_states(self) -> None:
        """A state that changed meanwhile is published as it is now."""
        stored = self.stored({"ignition": True, "armed": False})
        self.unknown()
        self.report(NOON, NOON, {"ignition": False, "armed": True})
        (off,) = self.adopt(stored)
        self.assertEqual(("state.ignition", False), (off.type, off.attributes["ignition"]))

    def test_newest(self) -> None:
        """The newest device time is that of both."""
        stored = self.stored({})
        self.unknown()
        self.report(NOON, NOON)
        self.adopt(stored)
        self.assertEqual(NOON, self.session.newest)
        self.unknown()
        self.report(NOON, NOON - 50)
        self.adopt(stored._replace(newest=NOON - 10))
        self.assertEqual(NOON - 10, self.session.newest)

    def test_what_was_learned(self) -> None:
        """What the plugin had learned is kept, with what it has learned since; and that the ident is proven."""
        stored = self.stored({"overspeed": False}, binary=[45, 2])
        session = self.unknown()
        self.report(NOON, NOON, {"overspeed": False})
        session.memory |= {"binary": [32, 1], "battery": "percent"}
        session.memory.resends = 2
        session.proven = True
        self.adopt(stored)
        self.assertEqual({"binary": [45, 2], "battery": "percent"}, session.memory)
        self.assertEqual(2, session.memory.resends)
        self.assertFalse(session.memory.new)
        self.assertTrue(session.proven)
        self.assertEqual(NOON - 3600, session.first)
        again = self.begin(Stored(known=True, state=session.dump()))
        self.assertEqual(session.memory, again.memory)
        self.assertTrue(again.proven)

    def test_proven_before(self) -> None:
        """An ident that was proven before stays so."""
        stored = self.stored()
        before = self.begin(stored)
        before.proven = True
        session = self.unknown()
        self.adopt(stored._replace(state=before.dump()))
        self.assertTrue(session.proven)

    def test_to_be_stored(self) -> None:
        """What is known after that is stored with the next report, whatever was the same before."""
        session = self.unknown()
        self.adopt(self.stored())
        self.assertTrue(session.dirty)

    def test_registry(self) -> None:
        """What applications wrote of the device holds from then on."""
        session = self.unknown()
        self.adopt(Stored(known=True, registry={"device_id": "van 7", "enabled": "0"}))
        self.assertEqual(("van 7", False, True), (session.device_id, not session.barred, session.registered))
        self.assertEqual("van 7", session.memory.registry["device_id"])

    def test_what_can_not_be_read(self) -> None:
        """What somebody else wrote there changes nothing of what is known by now."""
        for state in (
            "{", "[]", "null", '{"levels":{}}', b"\xff",
            self.stored({"overspeed": True}).state[:-9],
            '{"levels":{},"off":"","fix":[1,2,1e300],"memory":{},"first":0,"frames":0,"proven":false}',
            '{"levels":{},"off":"","fix":null,"memory":{},"first":0,"frames":Infinity,"proven":false}',
        ):  # fmt: skip
            session = self.unknown()
            self.report(NOON, NOON, {"overspeed": True})
            session.memory["battery"] = "percent"
            kept = Stored(known=True, state=state, registry={"device_id": "van 7"})
            self.assertIsNone(self.sessions.adopt(session, kept, NOON + 60), state)
            self.assertFalse(session.unknown)
            self.assertEqual(["overspeed"], [*session.levels])
            self.assertEqual({"battery": "percent"}, session.memory)
            self.assertEqual("van 7", session.device_id)
            self.assertTrue(session.dirty)


class LastFixTests(SessionsCase):
    """Positions without a fix."""

    def test_last_fix_time(self) -> None:
        """Coordinates that repeat the last fix say when that was; others do not."""
        self.report(NOON, NOON, latitude=1.5, longitude=2.5, valid=True)
        (same,) = self.report(NOON + 10, NOON + 10, last_latitude=1.5, last_longitude=2.5, valid=False)
        self.assertEqual(rfc3339(NOON), same.attributes["last_fix_time"])
        (other,) = self.report(NOON + 20, NOON + 20, last_latitude=1.6, last_longitude=2.5, valid=False)
        self.assertNotIn("last_fix_time", other.attributes)

    def test_never_invented(self) -> None:
        """A position without coordinates gets none."""
        self.report(NOON, NOON, latitude=1.5, longitude=2.5, valid=True)
        (report,) = self.report(NOON + 10, NOON + 10, valid=False)
        self.assertEqual({"valid": False}, report.attributes)


class IntervalTests(SynchronousTestCase):
    """The time between a device's reports, as it is learned."""

    def setUp(self) -> None:
        self.session = Session("9170225361", NOON)
        self.now = NOON

    def meet(self, *gaps: float) -> float:
        """It is heard at these distances; the interval that follows, in seconds."""
        for gap in gaps:
            self.now += gap
            self.session.meet("192.0.2.1:1", "tcp", "st907", self.now)
        return self.session.interval_s

    def test_learned(self) -> None:
        """The first gap is the interval until more come; what comes within a second is no report of its own."""
        self.assertEqual(0.0, self.session.interval_s)
        self.assertEqual(10.0, self.meet(10.0))
        self.assertEqual(10.0, self.meet(0.5))
        self.assertApproximates(30.0, self.meet(*[30.0] * 20), 0.5)

    def test_outage(self) -> None:
        """A night without coverage is no interval."""
        self.meet(10.0)
        self.assertEqual(12.5, self.meet(28_800.0))
        self.assertApproximates(10.0, self.meet(*[10.0] * 10), 0.2)

    def test_kept(self) -> None:
        """It is kept with the device, as is how long the way down to it stays open."""
        self.meet(10.0)
        self.session.nat_s = 25.0
        other = Session("9170225361", NOON)
        self.assertTrue(other.load(Stored(known=True, state=self.session.dump()), NOON))
        self.assertEqual((10.0, 25.0), (other.interval_s, other.nat_s))

    def test_kept_by_an_earlier_version(self) -> None:
        """What was kept without them says that they are not known."""
        state = json.loads(self.session.dump())
        del state["interval"], state["nat"]
        self.assertTrue(self.session.load(Stored(known=True, state=json.dumps(state)), NOON))
        self.assertEqual((0.0, 0.0), (self.session.interval_s, self.session.nat_s))
