"""The commands of one device: told one at a time, each followed to exactly one outcome."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from typing import Any, Final

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.downlink.outcome import alike
from tests.command_fakes import IDENT, Process, Server, Unit, Way
from tests.fakes import NOON, RecordingLink

#: So many random walks.
WALKS: Final = 3_000 if os.environ.get("GATEWAY_LONG") else 150
#: Outcomes, and what they are.
STOP: Final = {"command": "engine.stop", "ttl": "300"}


class LineCase(SynchronousTestCase):
    """A device on an instance, and Redis."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOON)
        self.server = Server(self.clock)
        self.process = Process(self.server, self.clock)
        self.unit = Unit(self.process)
        self.process.turn()

    def ask(self, command: str, ref: str = "r", ident: str = IDENT, args: Any = None, **fields: str) -> None:
        """Somebody gives a command."""
        given = {"ident": ident, "command": command, "ref": ref, "args": json.dumps(args or {}), **fields}
        self.server.add("gateway:command", **{name: value for name, value in given.items() if value})
        self.process.turn()

    def stands(self) -> None:
        """Two reports of a vehicle that stands."""
        self.unit.report()
        self.clock.advance(12)
        self.unit.report()

    def pump(self, seconds: float, step: float = 1.0) -> None:
        """Time goes on."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.process.turn()

    def said(self, ref: str = "r") -> list[str]:
        """The kinds of events of a command; the final one with an exclamation mark."""
        found = [event for event in self.server.results if event["ref"] == ref]
        return [event["type"] + "!" * event.get("final", False) for event in found]

    def last(self, ref: str = "r") -> dict[str, Any]:
        """The last event of a command."""
        return [event for event in self.server.results if event["ref"] == ref][-1]

    def tearDown(self) -> None:
        self.assertEqual([], self.flushLoggedErrors())


class EngineTests(LineCase):
    """The closed loop of the immobiliser."""

    def test_verified(self) -> None:
        """A cut is sent to a vehicle that stands, confirmed by its answer, and verified by its relay."""
        self.stands()
        self.ask("engine.stop", ttl="300", by="me")
        self.assertEqual(["queued", "sending", "sent"], self.said())
        self.assertEqual(1, len(self.unit.told))
        sending = self.server.results[1]
        self.assertEqual(self.unit.told[0].hex(), sending["sent"])
        self.assertEqual([12.0, 0.0], [report["age_s"] for report in sending["evidence"]["reports"]])
        self.clock.advance(1)
        self.unit.answer()
        self.assertEqual("confirmed", self.said()[-1])
        self.unit.cut = True
        self.clock.advance(5)
        self.unit.report()
        self.assertEqual(["queued", "sending", "sent", "confirmed", "verified!"], self.said())
        self.assertEqual(32, len(self.last()["position_id"]))
        self.assertEqual({}, self.server.waiting)
        self.assertEqual({}, self.server.looks)

    def test_report_before_answer(self) -> None:
        """A report that shows the relay ends it; the answer that comes after it says nothing any more."""
        self.stands()
        self.ask("engine.stop", ttl="300")
        self.clock.advance(1)
        self.unit.cut = True
        self.unit.report()
        self.unit.answer()
        self.assertEqual(["queued", "sending", "sent", "verified!"], self.said())

    def test_report_of_before(self) -> None:
        """A report that was made before the command proves nothing, also if it comes after it."""
        self.stands()
        self.ask("engine.stop", ttl="300")
        self.clock.advance(3)
        self.unit.cut = True
        self.unit.report(time=self.clock.seconds() - 2.5)
        self.assertEqual("verified!", self.said()[-1])
        self.ask("engine.resume", "back")
        self.clock.advance(5)
        self.unit.cut = False
        self.unit.report(time=self.clock.seconds() - 7)
        self.assertEqual(["queued", "sending", "sent"], self.said("back"))

    def test_report_of_the_same_second(self) -> None:
        """A time of whole seconds does not tell what came first within one: the next report does."""
        self.stands()
        self.clock.advance(1.25)
        self.ask("engine.stop", ttl="300")
        self.clock.advance(0.5)
        self.unit.cut = True
        self.unit.report(time=float(int(self.clock.seconds())))
        self.assertEqual("sent", self.said()[-1])
        self.clock.advance(1)
        self.unit.report(time=float(int(self.clock.seconds())))
        self.assertEqual("verified!", self.said()[-1])

    def test_as_it_was_before(self) -> None:
        """What the relay showed before proves nothing until the device says that it obeyed."""
        self.stands()
        self.ask("engine.resume", ttl="300")
        self.clock.advance(5)
        self.unit.report()
        self.assertEqual(["queued", "sending", "sent"], self.said())
        self.unit.answer()
        self.assertEqual("confirmed", self.said()[-1])
        self.clock.advance(5)
        self.unit.report()
        self.assertEqual("verified!", self.said()[-1])

    def test_as_it_was_before_and_no_answer(self) -> None:
        """A device that says nothing, and whose relay was as asked for already: what is known is said."""
        self.unit.cut = True
        self.stands()
        self.ask("engine.stop", ttl="300")
        self.pump(5)
        self.unit.report()
        self.pump(70)
        self.assertEqual("failed!", self.said()[-1])
        self.assertIn("as it was before", self.last()["reason"])

    def test_confirmed_only(self) -> None:
        """Without a live report after its answer a cut ends as confirmed, and not before two reports were due."""
        self.stands()
        self.process.turn()
        self.ask("engine.stop", ttl="300")
        self.unit.answer()
        self.pump(59)
        self.assertEqual(["queued", "sending", "sent", "confirmed"], self.said())
        self.pump(3)
        self.assertEqual(["queued", "sending", "sent", "confirmed", "confirmed!"], self.said())

    def test_no_relay(self) -> None:
        """Of a device whose reports do not show the relay a confirmation is the last word."""
        self.unit.shows = False
        self.stands()
        self.ask("engine.stop", ttl="300")
        self.unit.answer()
        self.assertEqual(["queued", "sending", "sent", "confirmed!"], self.said())

    def test_mismatch(self) -> None:
        """A cut that is answered with other values waits for the relay, which has the last word."""
        for cut, end in ((True, "verified!"), (False, "mismatch!")):
            self.setUp()
            self.stands()
            self.ask("engine.stop", ttl="300")
            self.unit.answer(self.unit.told[-1].replace(b"1,1", b"1,0"))
            self.assertEqual("mismatch", self.said()[-1])
            self.unit.cut = cut
            for _ in range(8):
                self.pump(10)
                self.unit.report()
            self.assertEqual(["queued", "sending", "sent", "mismatch", end], self.said())
            self.assertEqual(1, len(self.unit.told))

    def test_refusal(self) -> None:
        """A device that says that it does not obey is believed."""
        self.stands()
        self.ask("engine.stop", ttl="300")
        self.unit.answer(accepted=False)
        self.assertEqual(["queued", "sending", "sent", "failed!"], self.said())

    def test_no_answer(self) -> None:
        """A cut that is not answered is not sent again."""
        self.stands()
        self.ask("engine.stop", ttl="300")
        for _ in range(8):
            self.pump(10)
            self.unit.report()
        self.assertEqual(["queued", "sending", "sent", "failed!"], self.said())
        self.assertIn("did not move", self.last()["reason"])
        self.assertEqual(1, len(self.unit.told))

    def test_resume_forms(self) -> None:
        """The second form of resume is tried when the first is answered with other values, or not obeyed."""
        for answered in (True, False):
            self.setUp()
            self.unit.cut = True
            self.unit.report()
            self.ask("engine.resume")
            if answered:
                self.clock.advance(1)
                self.unit.answer(self.unit.told[0].replace(b"1,0", b"1,1"))
            else:
                for _ in range(2):
                    self.clock.advance(5)
                    self.unit.report()
            self.pump(2)
            self.assertTrue(self.unit.told[1].endswith(b",0,0"), self.unit.told)
            self.unit.answer()
            self.unit.cut = False
            self.pump(5)
            self.unit.report()
            again = ["queued", "sending", "sent", "mismatch", "queued", "sending", "sent", "confirmed", "verified!"]
            self.assertEqual(again, self.said())

    def test_killed_between_forms(self) -> None:
        """An instance that is killed after the first form was not obeyed leaves the second to the next one."""
        self.unit.cut = True
        self.unit.report()
        self.ask("engine.resume")
        assert self.process.way is not None
        self.process.way.at_once = False
        self.clock.advance(1)
        self.unit.answer(self.unit.told[0].replace(b"1,0", b"1,1"))
        self.process.way.step()
        self.assertEqual("mismatch", self.said()[-1])
        self.process.kill()
        self.process = Process(self.server, self.clock)
        self.unit = Unit(self.process)
        self.unit.cut = True
        self.clock.advance(5)
        self.unit.report()
        self.assertTrue(self.unit.told[0].endswith(b",0,0"), self.unit.told)

    def test_superseded(self) -> None:
        """Giving the engine back takes the place of a cut, whatever became of that so far."""
        for told in (False, True):
            self.setUp()
            self.unit.report()
            if told:
                self.stands()
            self.ask("engine.stop", "cut", ttl="300")
            self.clock.advance(1)
            self.ask("engine.resume", "back")
            self.assertEqual("superseded!", self.said("cut")[-1])
            self.assertEqual("back", self.last("cut")["superseded_by"])
            self.assertEqual(told, "reason" in self.last("cut"))
            self.pump(2)
            self.assertTrue(self.unit.told[-1].endswith(b"1,0"))
            self.unit.answer(b"S20,1,1,1")  # the cut's, late
            self.unit.answer()
            self.pump(2)
            self.unit.report()
            self.assertEqual(["queued", "sending", "sent", "confirmed", "verified!"], self.said("back"))

    def test_guard(self) -> None:
        """A cut waits for its guard, says so once for each reason, and ends as refused when its time is over."""
        self.unit.speed_kmh = 50.0
        self.unit.report()
        self.ask("engine.stop", ttl="60")
        for _ in range(4):
            self.pump(10)
            self.unit.report()
        self.assertEqual(["queued", "queued"], self.said())
        self.assertEqual("waits: moving at 50 km/h", self.last()["reason"])
        self.pump(25)
        self.assertEqual(["queued", "queued", "refused!"], self.said())
        self.assertEqual([], self.unit.told)

    def test_guard_met_later(self) -> None:
        """It is sent as soon as the vehicle stands, if its time allows."""
        self.unit.speed_kmh = 50.0
        self.unit.report()
        self.ask("engine.stop", ttl="60")
        self.pump(5)
        self.unit.speed_kmh = 0.0
        self.unit.report()
        self.pump(5)
        self.unit.report()
        self.assertEqual([], self.unit.told)
        self.pump(6)
        self.unit.report()
        self.assertEqual(1, len(self.unit.told))

    def test_hurdles(self) -> None:
        """What is no evidence of standing: no fix, a refused time, a late report, an old one, a single one."""
        for say, why in (
            ({"valid": False}, "no valid fix"),
            ({"time": 9000.0}, "refused"),
            ({"time": -900.0}, "s old"),
            (None, "s old"),
        ):
            self.setUp()
            self.stands()
            self.clock.advance(70)
            if say is not None:
                attributes: dict[str, Any] = dict(say)
                if "time" in attributes:
                    attributes["time"] += self.clock.seconds()
                self.unit.report(**attributes)
            self.ask("engine.stop", ttl="300")
            self.assertEqual(["queued", "queued"], self.said(), why)
            self.assertIn(why, self.last()["reason"])
        self.setUp()
        self.unit.report()
        self.ask("engine.stop", ttl="300")
        self.assertIn("no second valid report", self.last()["reason"])

    def test_delayed(self) -> None:
        """A report that was long on its way is as old as its own time says, and as far from the one before it."""
        for delays, why in (((100, 100), "s old"), ((20, 30), "no second valid report")):
            self.setUp()
            for delay in delays:
                self.clock.advance(12)
                self.unit.report(time=self.clock.seconds() - delay)
            self.ask("engine.stop", ttl="300")
            self.assertEqual([], self.unit.told, delays)
            self.assertIn(why, self.last()["reason"])

    def test_frozen_clock(self) -> None:
        """A parked unit whose clock stands still says the same all the time, which is standing and shows its relay."""
        for every in (20, 70):
            self.setUp()
            start = self.clock.seconds()
            for _ in range(3):
                self.unit.report(time=start, raw=b"parked")
                self.pump(every)
            self.unit.report(time=start, raw=b"parked")
            self.ask("engine.stop", ttl="300")
            self.assertEqual(["queued", "sending", "sent"], self.said(), every)
            self.unit.cut = True
            self.pump(every)
            self.unit.report(time=start, raw=b"parked, and cut")
            self.assertEqual("verified!", self.said()[-1])

    def test_sent_again_is_not_standing(self) -> None:
        """The newest report of a vehicle, sent again on a new connection or at once, does not show that it stands."""
        start = self.clock.seconds()
        self.unit.report(time=start, raw=b"once")
        self.pump(15)
        self.unit.moves()
        self.unit.report(time=start, raw=b"once")
        self.pump(3)
        self.unit.report(time=start, raw=b"once")
        self.ask("engine.stop", ttl="300")
        self.assertEqual([], self.unit.told)
        self.assertIn("no second valid report", self.last()["reason"])

    def test_connection_lost(self) -> None:
        """A cut whose connection is lost after it was written is not sent again: the relay tells what became of it."""
        for cut, end in ((True, "verified!"), (False, "failed!")):
            self.setUp()
            self.stands()
            self.ask("engine.stop", ttl="300")
            self.unit.moves()
            self.unit.cut = cut
            for _ in range(8):
                self.pump(12)
                self.unit.report()
            self.assertEqual(["queued", "sending", "sent", end], self.said())
            self.assertEqual([], self.unit.told)

    def test_killed_while_sending(self) -> None:
        """Killed after 'sending' was stored: the next one does not send it, whatever was written, and ends it."""
        self.stands()
        assert self.process.way is not None
        self.server.add("gateway:command", ident=IDENT, ref="r", **STOP)
        self.process.turn()
        self.process.way.at_once = False
        self.setUp()
        self.stands()
        way = self.process.way
        assert way is not None
        self.ask("position.request", "before")
        self.unit.answer(b"position.request," + self.unit.told[-1].split(b",")[1])
        self.server.add("gateway:command", ident=IDENT, ref="r", **STOP)
        way.at_once = False
        self.pump(1)
        for _ in range(20):
            if self.said() and self.said()[-1] == "sending":
                break
            way.step()
        self.assertEqual("sending", self.said()[-1])
        self.process.kill()
        self.process = Process(self.server, self.clock)
        self.unit = Unit(self.process)
        for _ in range(8):
            self.unit.report()
            self.pump(12)
        self.assertEqual([], self.unit.told)
        self.assertEqual("failed!", self.said()[-1])
        self.assertEqual(1, self.said().count("sending"))

    def test_forgotten_by_redis(self) -> None:
        """A Redis that starts without its newest writes does not have a cut sent that we know was sent."""
        self.stands()
        self.unit.link.ready = None
        self.ask("engine.stop", ttl="300")
        before = dict(self.server.requests["r"])
        self.unit.link.ready = 0.0
        self.unit.session.line.poke()
        self.assertEqual(["queued", "sending", "sent"], self.said())
        self.server.requests["r"] = before
        self.unit.session.line.look()
        self.pump(3)
        self.assertEqual(1, len(self.unit.told))
        self.assertEqual("sent", self.server.requests["r"]["state"])
        self.unit.answer()
        self.unit.cut = True
        self.unit.report()
        self.assertEqual("verified!", self.said()[-1])

    def test_end_forgotten_by_redis(self) -> None:
        """Nor one that had come to its end by then: it comes to it again."""
        self.stands()
        self.unit.link.ready = None
        self.ask("engine.stop", ttl="300")
        before = dict(self.server.requests["r"])
        self.unit.link.ready = 0.0
        self.unit.session.line.poke()
        self.clock.advance(1)
        self.unit.cut = True
        self.unit.report()
        self.assertEqual("verified!", self.said()[-1])
        self.server.requests["r"], self.server.waiting[IDENT], self.server.looks["r"] = before, ["r"], 0
        self.pump(2)
        self.unit.report()
        self.assertEqual(1, len(self.unit.told))
        self.assertEqual(["sending", "sent", "verified!"] * 2, self.said()[1:])

    def test_answer_of_before(self) -> None:
        """What a device said before it was told is no answer, also if it says to nothing that it is one."""
        self.stands()
        self.unit.answer(b"S20,")
        self.assertEqual(0, len(self.unit.session.line._inbox))
        way = self.process.way
        assert way is not None
        way.at_once = False
        self.ask("engine.stop", ttl="300")
        while not any("sending" in args for args, _ in way.owed):
            self.assertTrue(way.step())
        self.unit.answer(b"S20,", values=False)
        self.clock.advance(0.1)
        while way.step():
            pass
        self.assertEqual(["queued", "sending", "sent"], self.said())

    def test_first_report_after_restart(self) -> None:
        """The first report after a restart shows the relay to a command that is found under way."""
        self.stands()
        self.ask("engine.stop", ttl="300")
        self.process.kill()
        self.process = Process(self.server, self.clock)
        self.unit = Unit(self.process)
        self.unit.cut = True
        self.clock.advance(5)
        assert self.process.way is not None
        self.process.way.at_once = False
        self.unit.report()
        while self.process.way.step():
            pass
        self.assertEqual("verified!", self.said()[-1])


class OtherCommandTests(LineCase):
    """Commands that do no harm twice, and those that nobody answers."""

    def test_confirmed(self) -> None:
        """A command whose answer repeats its values is confirmed, and that is all."""
        self.unit.report()
        self.ask("interval.set", args={"seconds": 30})
        self.unit.answer()
        self.assertEqual(["queued", "sending", "sent", "confirmed!"], self.said())
        self.assertEqual({"seconds": 30}, self.server.results[0]["args"])

    def test_again(self) -> None:
        """It is told three times when it is not answered, and fails then; nobody has to say anything meanwhile."""
        self.unit.report()
        self.ask("interval.set", args={"seconds": 30})
        self.pump(200)
        self.assertEqual(3, len(self.unit.told))
        self.assertEqual(["queued", "sending", "sent"] * 3 + ["failed!"], self.said())

    def test_lost_connection(self) -> None:
        """It is told again on the next connection when the first is lost before it was answered."""
        self.unit.report()
        self.ask("interval.set", args={"seconds": 30})
        self.unit.moves()
        self.pump(2)
        self.unit.report()
        self.assertEqual(1, len(self.unit.told))
        self.assertIn("connection was lost", self.server.results[3]["reason"])

    def test_killed(self) -> None:
        """One that an instance had sent that was killed is told again by the next, after its answer had its time."""
        self.unit.report()
        self.ask("interval.set", args={"seconds": 30})
        self.process.kill()
        self.process = Process(self.server, self.clock)
        self.unit = Unit(self.process)
        self.unit.report()
        self.assertEqual([], self.unit.told)
        self.pump(4)
        self.assertEqual(1, len(self.unit.told))

    def test_told_and_not_again(self) -> None:
        """One that was told and not answered does not end as if it had not been sent."""
        for end in ("failed", "cancelled", "superseded"):
            self.setUp()
            self.unit.report()
            self.ask("engine.resume", ttl="100")
            self.unit.link.ready = None
            self.pump(61)
            self.assertEqual(["queued", "sending", "sent", "queued"], self.said())
            if end == "cancelled":
                self.ask("cancel", "c", args={"ref": "r"}, ident="")
            elif end == "superseded":
                self.ask("engine.stop", "s", ttl="300")
            self.pump(45)
            self.assertEqual(end + "!", self.said()[-1])
            self.assertIn("sent" if end != "failed" else "told 1 time", self.last()["reason"])

    def test_nothing_is_said(self) -> None:
        """A command that is never answered ends with being sent."""
        self.unit.report()
        self.ask("alarm.clear")
        self.assertEqual(["queued", "sending", "sent!"], self.said())

    def test_one_at_a_time(self) -> None:
        """The next one waits for the outcome of the one before; the engine's go first."""
        self.stands()
        self.ask("interval.set", "one", args={"seconds": 30})
        self.ask("position.request", "two")
        self.ask("engine.stop", "three", ttl="300")
        self.assertEqual(1, len(self.unit.told))
        self.pump(2)
        self.assertEqual(1, len(self.unit.told))
        self.unit.answer()
        self.assertTrue(self.unit.told[1].startswith(b"S20"), self.unit.told)
        self.assertEqual(["queued"], self.said("two"))

    def test_not_let_in(self) -> None:
        """A device that the registry does not let in any more is told nothing."""
        self.stands()
        self.unit.session.barred = "it is not in the registry"
        self.ask("interval.set", args={"seconds": 30}, ttl="10")
        self.pump(12)
        self.assertEqual((["queued", "expired!"], []), (self.said(), self.unit.told))

    def test_two_senders(self) -> None:
        """While two are thought to use the ident a vehicle is not stopped, though it stands; all else is sent."""
        self.stands()
        self.unit.session.contested = True
        self.ask("engine.stop", "stop", ttl="300")
        self.ask("interval.set", "interval", args={"seconds": 30})
        self.pump(3)
        self.assertEqual(["queued", "refused!"], self.said("stop"))
        self.assertIn("two senders", self.last("stop")["reason"])
        self.assertEqual(["queued", "sending", "sent"], self.said("interval"))

    def test_two_senders_meanwhile(self) -> None:
        """They are found out while it is stored that the vehicle is about to be stopped: it is not."""
        self.stands()
        way = self.process.way
        assert way is not None
        way.at_once = False
        self.ask("engine.stop", "stop", ttl="300")
        while not any("sending" in args for args, _ in way.owed):
            self.assertTrue(way.step())
        self.unit.session.contested = True
        way.at_once = True
        while way.step():
            pass
        self.pump(3)
        self.assertEqual([], self.unit.told)
        self.assertEqual("refused!", self.said("stop")[-1])

    def test_expired_behind_another(self) -> None:
        """What waits for the outcome of another ends when its own ttl does."""
        self.unit.report()
        self.ask("interval.set", "one", args={"seconds": 30})
        self.ask("interval.set", "two", args={"seconds": 40}, ttl="5")
        self.pump(6)
        self.assertEqual(["queued", "sending", "sent"], self.said("one"))
        self.assertEqual(["queued", "expired!"], self.said("two"))

    def test_engine_first(self) -> None:
        """A command of the engine does not wait for the answer to another for longer than some seconds."""
        self.stands()
        self.ask("interval.set", args={"seconds": 60})
        self.ask("engine.stop", "stop", ttl="300")
        self.pump(9)
        self.assertEqual((["queued", "sending", "sent"], ["queued"]), (self.said(), self.said("stop")))
        self.pump(2)
        self.assertEqual("failed!", self.said()[-1])
        self.assertIn("a command of the engine", self.last()["reason"])
        self.assertEqual(["queued", "sending", "sent"], self.said("stop"))

    def test_engine_that_waits_itself(self) -> None:
        """One that waits for its guard as well is in nobody's way."""
        self.unit.report(speed_kmh=90.0)
        self.ask("interval.set", args={"seconds": 60})
        self.ask("engine.stop", "stop", ttl="300")
        self.pump(20)
        self.assertEqual(["queued", "sending", "sent"], self.said())

    def test_seconds(self) -> None:
        """Two commands are never told within one second: their answers could not be told apart."""
        self.unit.report()
        self.ask("position.request", "one")
        self.unit.answer()
        self.ask("position.request", "two")
        self.assertEqual(1, len(self.unit.told))
        self.pump(1)
        self.assertEqual(2, len(set(self.unit.told)))

    def test_unsupported(self) -> None:
        """What its plugin can't say ends it, and so does a plugin that breaks."""
        self.unit.report()
        self.ask("apn.set", args={"apn": "bad"})
        self.assertEqual((["queued", "failed!"], "no such access point"), (self.said(), self.last()["reason"]))
        self.ask("apn.set", "other", args={"apn": "broken"})
        self.assertIn("device plugin toy failed", self.last("other")["reason"])
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.ask("arm", "third")
        self.assertIn("over sms only", self.last("third")["reason"])
        self.ask("config.read", "fourth")
        self.assertIn("does not know", self.last("fourth")["reason"])

    def test_secret(self) -> None:
        """The arguments of a secret command are on no stream, and nowhere after its end."""
        self.unit.report()
        self.ask("password.set", args={"old": "hush1", "new": "hush2"})
        self.unit.answer(self.unit.told[0].replace(b"hush2", b"hush3"))
        self.assertEqual("mismatch!", self.said()[-1])
        kept = [self.server.results, self.server.requests, self.server.streams]
        self.assertNotIn("hush", json.dumps(kept, default=str))
        self.assertNotIn(b"hush".hex(), json.dumps(self.server.results))

    def test_away(self) -> None:
        """A device that is away gets it when it next speaks."""
        self.unit.report()
        self.unit.link.ready = None
        self.ask("position.request", ttl="600")
        self.pump(300)
        self.assertEqual(["queued"], self.said())
        self.unit.moves()
        self.unit.report()
        self.assertEqual(1, len(self.unit.told))

    def test_expired(self) -> None:
        """One that could not be told in time is not."""
        self.unit.report()
        self.unit.link.ready = None
        self.ask("position.request", ttl="60")
        self.pump(62)
        self.assertEqual(["queued", "expired!"], self.said())

    def test_cancelled(self) -> None:
        """What was not told yet can be taken back, and what was can't."""
        self.unit.report()
        self.unit.link.ready = None
        self.ask("position.request")
        self.ask("cancel", "c", ident="", args={"ref": "r"})
        self.assertEqual((["queued", "cancelled!"], ["confirmed!"]), (self.said(), self.said("c")))
        self.unit.moves()
        self.unit.report()
        self.assertEqual([], self.unit.told)
        self.ask("position.request", "second")
        self.ask("cancel", "d", ident="", args={"ref": "second"})
        self.assertEqual((["queued", "sending", "sent"], ["failed!"]), (self.said("second"), self.said("d")))

    def test_link_says_no(self) -> None:
        """A link that does not take it after all leaves it as it was: it was not told, and is told later."""
        self.unit.report()
        self.unit.link.command = lambda data, lifetime_s: False  # type: ignore[method-assign]
        self.ask("position.request")
        self.assertEqual(["queued", "sending", "queued"], self.said())
        self.pump(20)
        self.assertEqual(11, len(self.said()), "less often each time")
        self.assertEqual("0", self.server.requests["r"]["attempts"])

    def test_busy_link(self) -> None:
        """A link that has just been replied on takes it a moment later."""
        self.unit.report()
        self.unit.link.ready = 0.4
        self.ask("position.request")
        self.assertEqual([], self.unit.told)
        self.unit.link.ready = 0.0
        self.pump(0.5, 0.1)
        self.assertEqual(1, len(self.unit.told))

    def test_quiet(self) -> None:
        """Replies are not held for a link that is left alone for longer."""
        self.unit.report()
        self.unit.link.ready = 5.0
        self.ask("position.request")
        self.assertEqual(0, self.unit.link.quieted)
        self.unit.link.ready = 1.0
        self.unit.report()
        self.assertEqual(1, self.unit.link.quieted)
        self.unit.link.ready = 0.1
        self.pump(10, 0.1)
        self.assertEqual(18, self.unit.link.quieted)
        self.unit.moves()
        self.unit.link.ready = 0.1
        self.unit.report()
        self.assertEqual(1, self.unit.link.quieted)

    def test_gone(self) -> None:
        """A session that ends leaves no timer behind."""
        self.unit.report()
        self.unit.link.ready = None
        self.ask("position.request")
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.process.sessions.drop(IDENT)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_untaken(self) -> None:
        """A connection on which a command was not taken in its time is cut, so that it never arrives later."""
        self.unit.report()
        self.unit.link.all_taken = False
        self.ask("position.request")
        self.pump(62)
        self.assertIn("not taken", self.unit.link.cut)

    def test_damaged(self) -> None:
        """A command of which somebody else made nonsense keeps no other from being told."""
        self.unit.report()
        self.unit.link.ready = None
        self.ask("position.request", "one")
        self.ask("position.request", "two")
        self.server.requests["one"]["args"] = "[]"
        self.unit.moves()
        self.unit.report()
        self.assertEqual(1, len(self.unit.told))
        del self.server.looks["one"]


class ClockTests(LineCase):
    """Clocks that are set, or do not agree."""

    def test_set(self) -> None:
        """An hour more or less on our clock makes no command end early or late."""
        for by in (3600.0, -3600.0):
            self.setUp()
            self.unit.report()
            self.unit.link.ready = None
            self.ask("position.request", "waits", ttl="100")
            self.process.clock.set_by = by
            self.pump(95)
            self.assertEqual(["queued"], self.said("waits"), by)
            self.pump(10)
            self.assertEqual(["queued", "expired!"], self.said("waits"), by)

    def test_set_while_under_way(self) -> None:
        """The same for what was told."""
        for by in (3600.0, -3600.0):
            self.setUp()
            self.stands()
            self.ask("engine.stop", ttl="300")
            self.process.clock.set_by = by
            self.unit.answer()
            self.pump(55)
            self.assertEqual("confirmed", self.said()[-1], by)
            self.pump(10)
            self.assertEqual("confirmed!", self.said()[-1], by)

    def test_guard(self) -> None:
        """A clock that is set between two reports does not move them apart, nor make an old one young."""
        self.unit.report()
        self.process.clock.set_by = 3600.0
        self.clock.advance(2)
        self.unit.report()
        self.ask("engine.stop", ttl="300")
        self.assertIn("no second valid report", self.last()["reason"])
        self.clock.advance(70)
        self.process.clock.set_by = 3600.0 - 65.0
        self.unit.session.line.poke()
        self.assertEqual([], self.unit.told)

    def test_server(self) -> None:
        """A server whose clock is an hour off tells how long a command may wait, and has been under way."""
        for by in (3600.0, -3600.0):
            self.setUp()
            self.server.set_by = by
            self.stands()
            self.ask("engine.stop", ttl="100")
            self.assertEqual(1, len(self.unit.told), by)
            self.process.kill()
            self.process = Process(self.server, self.clock)
            self.unit = Unit(self.process)
            self.unit.report()
            self.pump(50)
            self.assertEqual("sent", self.said()[-1], by)
            self.pump(12)
            self.assertEqual("failed!", self.said()[-1], by)


class AwayTests(LineCase):
    """Redis is away for a while."""

    def test_answer_while_away(self) -> None:
        """What the device answers and shows while Redis is away counts when it is back, however much it says."""
        for cut in (False, True):
            self.setUp()
            self.stands()
            self.ask("engine.stop", ttl="300")
            way, self.process.way = self.process.way, None
            self.clock.advance(1)
            self.unit.answer()
            self.unit.cut = cut
            for _ in range(100):
                self.clock.advance(0.3)
                self.unit.report()
            self.process.way = way
            self.pump(2)
            end = ["confirmed", "verified!"] if cut else ["confirmed"]
            self.assertEqual(["queued", "sending", "sent", *end], self.said())

    def test_lost_while_storing(self) -> None:
        """Where it is not known that 'sending' was stored nothing is written, and then it is told once."""
        for done in (0, 1):
            self.setUp()
            self.stands()
            way = self.process.way
            assert way is not None
            self.unit.link.ready = None
            self.ask("engine.stop", ttl="300")
            way.at_once = False
            self.unit.link.ready = 0.0
            self.unit.session.line.poke()
            self.assertEqual(1, len(way.owed))
            way.cut(done)
            self.assertEqual([], self.unit.told)
            way.at_once = True
            self.pump(3)
            self.assertEqual(1, len(self.unit.told))
            self.assertEqual("sent", self.said()[-1])
            self.assertEqual("1", self.server.requests["r"]["attempts"])


class DatagramTests(LineCase):
    """A device on UDP, to which the way down is open for a while after it was heard."""

    def setUp(self) -> None:
        """It comes over UDP."""
        super().setUp()
        self.unit = Unit(self.process, RecordingLink(transport_name="udp"))

    def test_window(self) -> None:
        """It is told at once when it was just heard, else right after it is heard again."""
        self.unit.report()
        self.pump(40)
        self.ask("position.request", "one")
        self.assertEqual([], self.unit.told)
        self.unit.report()
        self.assertEqual(1, len(self.unit.told))

    def test_learned(self) -> None:
        """What was answered late shows that the way is open for longer; what was not, that it is not."""
        self.unit.report()
        self.pump(25)
        self.ask("position.request", "one")
        self.assertEqual(1, len(self.unit.told))
        self.unit.answer()
        self.assertEqual(25.0, self.unit.session.nat_s)
        self.pump(15)
        self.ask("position.request", "two")
        self.pump(80)
        self.assertEqual(7.5, self.unit.session.nat_s)

    def test_copies(self) -> None:
        """A datagram that comes again may be one that was sent again: it does not show that its vehicle stands."""
        start = self.clock.seconds()
        for _ in range(4):
            self.unit.report(time=start, raw=b"once")
            self.pump(20)
        self.unit.report(time=start, raw=b"once")
        self.ask("engine.stop", ttl="300")
        self.assertEqual([], self.unit.told)

    def test_answered_at_once(self) -> None:
        """What is answered at once does not show that the way closes at once."""
        self.unit.report()
        self.ask("position.request", "one")
        self.unit.answer()
        self.pump(25)
        self.ask("position.request", "two")
        self.assertEqual(2, len(self.unit.told))

    def test_cut(self) -> None:
        """A cut, which is never sent twice, leaves only right after the device was heard."""
        self.stands()
        self.pump(12)
        self.ask("engine.stop", ttl="300")
        self.assertEqual([], self.unit.told)
        self.unit.report()
        self.assertEqual(1, len(self.unit.told))


class WalkTests(SynchronousTestCase):
    """Everything happens in any order, on two instances."""

    def walk(self, seed: int, clocks: int = 0) -> None:
        """A random walk, and what is promised at its end."""
        choose = random.Random(seed)
        clock = Clock()
        clock.advance(NOON)
        server = Server(clock)
        processes = [Process(server, clock, name) for name in ("here", "there")]
        unit = Unit(processes[0])
        links = [unit.link]
        written: Counter[bytes] = Counter()
        given: list[str] = []

        def ways() -> list[Any]:
            return [process.way for process in processes if process.way is not None]

        def ask() -> None:
            command = choose.choice(["engine.stop", "engine.resume", "position.request", "reboot", "cancel", "no"])
            ref = f"{command}{len(given)}" if choose.random() < 0.9 or not given else choose.choice(given)
            fields = {"ident": IDENT, "command": command, "ref": ref}
            if command == "cancel":
                fields["args"] = json.dumps({"ref": choose.choice(given or ["x"])})
            if command != "cancel" or choose.random() < 0.3:
                fields["ttl"] = str(choose.choice([20, 100, 600]))
            given.append(ref)
            server.add("gateway:command", **fields)

        def move(at: int) -> None:
            unit.process = processes[at]
            unit.moves()
            links.append(unit.link)

        def report() -> None:
            if unit.told and choose.random() < 0.5:
                unit.cut = unit.told[-1].endswith(b"1,1")
            unit.report()

        def answer() -> None:
            if unit.told:
                unit.answer(values=choose.random() < 0.8, accepted=choose.choice([None, None, False]))

        def other() -> None:
            """It is on the other instance: what it had here is not known to be over there."""
            move(1 - processes.index(unit.process))

        def dropped() -> None:
            """What an instance hears with its next batch: the device is another's."""
            for process in processes:
                if server.holders.get(IDENT) != process.instance:
                    process.sessions.drop(IDENT)

        def kill() -> None:
            at = choose.randrange(2)
            old = processes[at]
            if old.way is not None and choose.random() < 0.5:
                old.way.step()
            old.kill()
            processes[at] = Process(server, clock, old.instance)
            processes[at].way.at_once = False  # type: ignore[union-attr]
            if unit.process is old:
                move(at)

        def cut() -> None:
            process = choose.choice(processes)
            way, process.way = process.way, None
            if way is not None:
                way.cut(choose.randrange(len(way.owed) + 1))
            else:
                back(process)

        def back(process: Process) -> None:
            process.way = Way(server.execute)
            process.way.at_once = False
            process.dispatcher.restart()

        def step() -> None:
            if ways():
                choose.choice(ways()).step()

        def busy() -> None:
            unit.link.ready = 0.5 if unit.link.ready == 0.0 else 0.0

        def tick() -> None:
            for process in processes:
                process.turn()

        def wait() -> None:
            clock.advance(choose.choice([0.1, 1.0, 5.0, 12.0, 70.0]))

        def speed() -> None:
            unit.speed_kmh = choose.choice([0.0, 0.0, 60.0])

        def sets() -> None:
            what: Any = choose.choice([server, processes[0].clock, processes[1].clock])
            what.set_by += choose.choice([-90, -5, 5, 90])

        calls = [
            (sets, clocks),
            (ask, 6),
            (report, 14),
            (answer, 6),
            (other, 1),
            (kill, 1),
            (cut, 2),
            (step, 60),
            (busy, 2),
        ]
        calls += [(tick, 30), (wait, 14), (speed, 2), (dropped, 2), (lambda: move(processes.index(unit.process)), 1)]
        for way in ways():
            way.at_once = False
        for call in choose.choices([c for c, _ in calls], [w for _, w in calls], k=choose.randrange(50, 600)):
            call()
        # everything is there again, and all that waits comes to its end
        for process in processes:
            if process.way is None:
                back(process)
            assert process.way is not None
            process.way.at_once = True
            while process.way.step():
                pass
        unit.link.ready = 0.0
        for _ in range(600):
            clock.advance(5.0)
            tick()
        where = f"seed {seed}"
        ends = Counter(event["ref"] for event in server.results if event.get("final"))
        last = {event["ref"]: event for event in server.results}
        self.assertEqual(dict.fromkeys(given, 1), dict(ends), where)
        self.assertEqual([], [event for event in last.values() if not event.get("final")], f"{where}: not the last")
        self.assertEqual(({}, {}), (server.waiting, server.looks), where)
        ids = Counter(event["id"] for event in server.results)
        self.assertEqual([], [one for one, n in ids.items() if n > 1], f"{where}: twice")
        for link in links:
            written.update(data for data, _ in link.commands)
        sent = Counter(event["sent"] for event in server.results if event["type"] == "sending" and "sent" in event)
        for data, count in written.items():
            self.assertLessEqual(count, sent[data.hex()], f"{where}: {data!r} was not said")
        stops = [e["ref"] for e in server.results if e["type"] == "sent" and e["command"] == "engine.stop"]
        self.assertEqual(len(stops), len(set(stops)), f"{where}: a cut was sent twice")
        cuts = sum(count for data, count in written.items() if data.endswith(b"1,1"))
        reached = {e["ref"] for e in server.results if e["type"] == "sending" and e["command"] == "engine.stop"}
        self.assertLessEqual(cuts, len(reached), f"{where}: more cuts than commands")
        for process in processes:
            self.assertEqual(0, process.counters["command_errors"], where)
        self.assertEqual([], self.flushLoggedErrors(), where)

    def test_walks(self) -> None:
        """Each command has one last event, and no cut is written twice, whoever is killed and whatever is away."""
        for seed in range(WALKS):
            self.walk(seed)

    def test_clocks(self) -> None:
        """The same while clocks are set, those of the instances and the server's."""
        for seed in range(WALKS):
            self.walk(seed, clocks=2)


class ValueTests(SynchronousTestCase):
    """What counts as the same parameters."""

    def test_alike(self) -> None:
        """Numbers are the same as numbers, words whatever their case; an answer may say more, and not less."""
        for values, expected, same in (
            (("1", "1"), ("1", "1"), True),
            (("01", "1.0"), ("1", "1"), True),
            (("1", "0"), ("1", "1"), False),
            (("1",), ("1", "1"), False),
            (("1", "1", "9"), ("1", "1"), True),
            (("Internet",), ("internet",), True),
            (("nan",), ("nan",), True),
            (("x",), ("1",), False),
        ):
            self.assertEqual(same, alike(values, expected), (values, expected))
