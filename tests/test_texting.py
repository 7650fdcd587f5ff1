"""Commands by SMS: when a device is told by a text, and what comes of it; the cut above all is never sent twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from gateway.config import SMSSection
from gateway.interfaces import CommandAnswer
from tests.command_fakes import IDENT, Process, Server, Unit
from tests.fakes import RecordingLink
from tests.test_line import STOP, LineCase

SMS = SMSSection(transport="http", fallback_after=30.0, answer_within=100.0)
PHONE = "+4915112345678"


class TextingCase(LineCase):
    """The same with SMS."""

    sms = SMS

    def setUp(self) -> None:
        super().setUp()
        self.process.kill()
        self.server = Server(self.clock)
        self.process = Process(self.server, self.clock, sms=self.sms)
        self.unit = Unit(self.process)
        self.server.registry[IDENT] = {"phone": PHONE}
        self.server.protocols[IDENT] = "toy"
        self.process.turn()

    def begin(self) -> None:
        """It has reported, and stands; what the registry says of it is known."""
        self.stands()
        self.unit.session.register(self.server.registry[IDENT])

    @property
    def text(self) -> Mapping[str, str]:
        """The one text that is to be sent."""
        (text,) = self.server.texts.values()
        return text

    def becomes(self, state: str, reason: str = "", text: Mapping[str, str] | None = None) -> None:
        """What becomes of the text."""
        fields = {**(text or self.text), "reason": reason}
        self.successResultOf(Deferred.fromCoroutine(self.process.texting.followed(fields, state)))

    def answers(self, name: str = "", accepted: bool | None = True) -> str:
        """The device answers by SMS."""
        answer = CommandAnswer(name, accepted=accepted)
        asked = self.process.texting.answered(IDENT, answer, "SET OK", self.process.clock.seconds())
        return self.successResultOf(Deferred.fromCoroutine(asked))


class AwayTests(TextingCase):
    """A device that is nowhere live."""

    def test_sms(self) -> None:
        """It is told by SMS at once, and its answer ends that."""
        self.ask("interval.set", args={"seconds": 30}, channel="sms")
        self.pump(2)
        self.assertEqual(["queued", "sending"], self.said())
        text = self.text
        self.assertEqual(
            (IDENT, PHONE, "interval.set {password}", "interval.set", "r", "toy"),
            tuple(text[name] for name in ("ident", "number", "template", "name", "ref", "protocol")),
        )
        self.assertLessEqual(int(text["validity_ms"]), 3_600_000)
        self.becomes("accepted")
        self.assertEqual("r", self.answers())
        self.assertEqual(["queued", "sending", "sent", "confirmed!"], self.said())
        self.assertEqual(("sms", False), (self.last()["channel"], self.last()["authenticated"]))
        self.assertEqual("", self.answers(), "it is to nothing any more")

    def test_auto(self) -> None:
        """With auto that is after a while, or after as long as was asked for."""
        for after, wait_s in (("", 30), ("5", 5), ("0", 0)):
            self.setUp()
            self.ask("interval.set", args={"seconds": 30}, channel="auto", sms_after=after)
            self.pump(max(wait_s - 1, 0))
            self.assertEqual({}, self.server.texts, after)
            self.pump(3)
            self.assertEqual(1, len(self.server.texts), after)

    def test_data_alone(self) -> None:
        """Without being asked for none is sent."""
        self.ask("interval.set", args={"seconds": 30}, ttl="100")
        self.pump(120)
        self.assertEqual({}, self.server.texts)
        self.assertEqual(["queued", "expired!"], self.said())

    def test_came_before(self) -> None:
        """A device that comes in time is told over data."""
        self.ask("interval.set", args={"seconds": 30}, channel="auto")
        self.pump(10)
        self.unit.report()
        self.pump(1)
        self.assertEqual(1, len(self.unit.told))
        self.unit.answer()
        self.pump(60)
        self.assertEqual({}, self.server.texts)
        self.assertEqual("confirmed!", self.said()[-1])

    def test_guarded(self) -> None:
        """A cut wants live reports: without any it is refused when its time is over, and no text is sent."""
        self.ask(**STOP, channel="sms")
        self.pump(400)
        self.assertEqual({}, self.server.texts)
        self.assertEqual("refused!", self.said()[-1])
        self.assertIn("no live report", self.last()["reason"])

    def test_resume(self) -> None:
        """Giving an engine back needs none; a later report verifies it."""
        self.server.protocols[IDENT] = "toy"
        self.ask("engine.resume", channel="auto")
        self.pump(35)
        self.becomes("accepted")
        self.answers()
        self.assertEqual(["queued", "sending", "sent", "confirmed"], self.said())
        self.pump(5)
        self.unit.cut = True
        self.unit.report()
        self.pump(5)
        self.unit.cut = False
        self.unit.report()
        self.pump(2)
        self.assertEqual("verified!", self.said()[-1])
        self.assertEqual(1, len(self.server.texts))

    def test_held_by_nobody_any_more(self) -> None:
        """Where its instance is gone, but Redis does not know yet, somebody else does it, somewhat later."""
        self.server.holders[IDENT] = "gone"
        self.ask("interval.set", args={"seconds": 30}, channel="sms")
        self.pump(8)
        self.assertEqual({}, self.server.texts)
        self.pump(20)
        self.assertEqual(1, len(self.server.texts))

    def test_why_not(self) -> None:
        """What can't be told by SMS says why, and waits for data where it may."""
        cases: list[tuple[dict[str, str], dict[str, Any], str]] = [
            ({}, {"command": "interval.set", "args": {"seconds": 30}}, "no phone number"),
            ({"phone": "x"}, {"command": "interval.set", "args": {"seconds": 30}}, "is no number"),
            ({"phone": PHONE}, {"command": "apn.set", "args": {"apn": "bad"}}, "no such access point"),
        ]
        for registry, asked, why in cases:
            self.setUp()
            self.server.registry[IDENT] = registry
            self.ask(**asked, channel="sms")
            self.pump(8)
            self.assertEqual(["queued", "failed!"], self.said())
            self.assertIn(why, self.last()["reason"])
            self.ask(**asked, channel="auto", sms_after="0", ref="other")
            self.pump(8)
            self.assertEqual(["queued", "queued"], self.said("other"))
            self.assertIn(why, self.last("other")["reason"])
            self.assertEqual({}, self.server.texts)
            self.pump(60)
            self.assertEqual(["queued", "queued"], self.said("other"), "that is said once")

    def test_not_known_by_sms(self) -> None:
        """A command that its device does not take by SMS fails at once; so does one where nobody sends any."""
        self.ask("alarm.clear", channel="sms")
        self.assertEqual(["failed!"], self.said())
        self.assertIn("toy does not take alarm.clear by SMS", self.last()["reason"])
        self.ask("arm", ref="data")
        self.assertIn("takes arm over sms only", self.last("data")["reason"])
        plain = Process(self.server, self.clock, sms=SMSSection())
        self.process.kill()
        self.process = plain
        self.ask("arm", ref="none", channel="sms")
        self.assertIn("section [sms], key 'transport'", self.last("none")["reason"])

    def test_too_many(self) -> None:
        """A device is sent so many an hour."""
        self.process.kill()
        self.process = Process(self.server, self.clock, sms=SMSSection(transport="http", per_device_hour=1))
        for ref in ("one", "two"):
            self.ask("interval.set", args={"seconds": 30}, ref=ref, channel="sms")
            self.pump(8)
        self.assertEqual("failed!", self.said("two")[-1])
        self.assertIn("sent 1 texts within an hour", self.last("two")["reason"])
        self.assertEqual(1, len(self.server.texts))

    def test_secret(self) -> None:
        """Of a secret command nothing is shown of its text."""
        self.ask("password.set", args={"old": "0000", "new": "hunter2"}, channel="sms")
        self.pump(3)
        self.assertNotIn("raw_text", self.text["about"])
        self.assertNotIn("hunter2", str(self.server.results))


class OutcomeTests(TextingCase):
    """What becomes of a text."""

    def told(self, **asked: Any) -> None:
        """A device that is away is told."""
        self.ask(**({"command": "interval.set", "args": {"seconds": 30}, "channel": "auto", "sms_after": "0"} | asked))
        self.pump(2)
        self.assertEqual(["queued", "sending"], self.said())

    def test_rejected(self) -> None:
        """What the provider does not take was not told: it fails, or waits for data where it may."""
        self.told(channel="sms", sms_after="")
        self.becomes("rejected", "no such number")
        self.assertEqual(["queued", "sending", "failed!"], self.said())
        self.assertEqual("by SMS: no such number", self.last()["reason"])
        self.setUp()
        self.told()
        self.becomes("rejected", "no such number")
        self.assertEqual(["queued", "sending", "queued"], self.said())
        self.pump(60)
        self.assertEqual(1, len(self.server.texts), "it is not tried again by SMS")
        self.unit.report()
        self.pump(2)
        self.assertEqual(1, len(self.unit.told))

    def test_expired(self) -> None:
        """One that could not be sent in time ends with its command."""
        self.told(ttl="100")
        self.becomes("expired", "throttled")
        self.assertEqual(["queued", "sending", "expired!"], self.said())

    def test_uncertain(self) -> None:
        """Of one that may have been sent or not nothing is known: it is waited for, and fails saying so."""
        self.told(ttl="100")
        self.becomes("uncertain", "the connection broke")
        self.pump(99)
        self.assertEqual(["queued", "sending"], self.said())
        self.pump(200)
        self.assertEqual("failed!", self.said()[-1])
        self.assertIn("whether the device was told is not known", self.last()["reason"])
        self.assertEqual(1, len(self.server.texts))

    def test_not_delivered(self) -> None:
        """A receipt that says that it was not delivered: what may be told twice waits for data."""
        self.told()
        self.becomes("accepted")
        self.becomes("failed", "not delivered: EXPIRED")
        self.assertEqual(["queued", "sending", "sent", "queued"], self.said())
        self.setUp()
        self.told(command="reboot", args={})
        self.becomes("accepted")
        self.assertEqual(["queued", "sending", "sent!"], self.said(), "nothing more will be heard of it")

    def test_no_answer(self) -> None:
        """Without an answer until the text can't come any more, and a while longer, it has failed."""
        self.told(ttl="100")
        self.becomes("accepted")
        self.pump(150)
        self.assertEqual(["queued", "sending", "sent"], self.said())
        self.pump(100)
        self.assertEqual("failed!", self.said()[-1])

    def test_said_no(self) -> None:
        """The device may say that it does not obey."""
        self.told()
        self.becomes("accepted")
        self.answers(accepted=False)
        self.assertEqual("failed!", self.said()[-1])

    def test_answer_before_it_was_known_sent(self) -> None:
        """An answer that comes before what became of the text is known counts, and what comes then is late."""
        self.told()
        self.answers()
        self.becomes("accepted")
        self.assertEqual(["queued", "sending", "confirmed!"], self.said())

    def test_answer_to_another(self) -> None:
        """An answer that names another text is to none of these; one to a command over data neither."""
        self.told()
        self.becomes("accepted")
        self.assertEqual("", self.answers("RCONF"))
        self.assertEqual("r", self.answers("interval.set"))

    def test_of_another_text(self) -> None:
        """What becomes of a text that a command is not told by any more changes nothing."""
        self.told()
        self.becomes("accepted", text={**self.text, "id": "0" * 32})
        self.becomes("accepted", text={"id": "0" * 32, "ref": ""})
        self.assertEqual(["queued", "sending"], self.said())


class CutTests(TextingCase):
    """A relay, of a device that is live and stands, but can't be told over data."""

    def fall_back(self, **more: str) -> None:
        """Its connection is lost; a cut that was given falls back to SMS."""
        self.begin()
        self.unit.link.ready = None
        self.ask(**STOP, channel="auto", sms_after="5", **more)
        self.pump(8)

    def test_verified(self) -> None:
        """It is sent once, and the relay's own word ends it, also when nobody answers."""
        self.fall_back()
        self.assertEqual(["queued", "sending"], self.said())
        self.assertEqual("engine.stop {password}", self.text["template"])
        self.assertIn("evidence", self.server.results[-1])
        self.becomes("accepted")
        self.unit.moves()
        self.unit.report()
        self.pump(3)
        self.unit.cut = True
        self.unit.report()
        self.pump(3)
        self.assertEqual(["queued", "sending", "sent", "verified!"], self.said())
        self.assertEqual([], self.unit.told, "nor over data")
        self.assertEqual(1, len(self.server.texts))

    def test_no_from_anybody(self) -> None:
        """A text that says no does not end a cut: anybody can send that."""
        self.fall_back()
        self.becomes("accepted")
        self.assertEqual("r", self.answers(accepted=False))
        self.assertEqual(["queued", "sending", "sent"], self.said())

    def test_uncertain(self) -> None:
        """After an uncertain send it is never told again, by SMS or over data, whatever connects."""
        self.fall_back()
        self.becomes("uncertain", "the connection broke")
        self.unit.moves()
        for _ in range(50):
            self.unit.report()
            self.pump(10)
        self.assertEqual([], self.unit.told)
        self.assertEqual(1, len(self.server.texts))
        self.assertEqual("failed!", self.said()[-1])

    def test_told_over_data(self) -> None:
        """One that was told over data, and not answered, is not told by SMS as well."""
        self.begin()
        self.ask(**STOP, channel="auto", sms_after="5")
        self.pump(2)
        self.assertEqual(1, len(self.unit.told))
        self.unit.link.ready = None
        self.pump(200)
        self.assertEqual({}, self.server.texts)
        self.assertEqual("failed!", self.said()[-1])

    def test_data_came_first(self) -> None:
        """A device that comes back before is told over data, and not by SMS then."""
        self.begin()
        self.unit.link.ready = None
        self.ask(**STOP, channel="auto", sms_after="20")
        self.pump(10)
        self.unit.moves(RecordingLink())
        self.unit.report()
        self.pump(40)
        self.assertEqual(1, len(self.unit.told))
        self.assertEqual({}, self.server.texts)

    def test_moving(self) -> None:
        """The guard holds: a vehicle that moved is not cut by SMS either."""
        self.begin()
        self.unit.speed_kmh = 80.0
        self.unit.report()
        self.unit.link.ready = None
        self.ask(**STOP, channel="sms")
        self.pump(400)
        self.assertEqual({}, self.server.texts)
        self.assertEqual("refused!", self.said()[-1])

    def test_stale(self) -> None:
        """Nor one that was not heard for longer than the guard allows."""
        self.begin()
        self.unit.link.ready = None
        self.pump(70)
        self.ask(**STOP, channel="sms")
        self.pump(20)
        self.assertEqual({}, self.server.texts)

    def test_forgotten_by_redis(self) -> None:
        """A Redis that starts without its newest writes does not have a cut told again that we know was told."""
        for told in (False, True):
            self.setUp()
            self.begin()
            self.unit.link.ready = None
            self.ask(**STOP, channel="auto", sms_after="5")
            before = dict(self.server.requests["r"])
            self.pump(8)
            if told:
                self.becomes("accepted")
            self.server.requests["r"] = before
            line = self.unit.session.line
            assert line is not None
            line.look()
            self.pump(10)
            self.assertEqual(1, len(self.server.texts))
            self.assertEqual("sending", self.server.requests["r"]["state"])
            self.unit.moves()
            self.unit.report()
            self.pump(3)
            self.unit.cut = True
            self.unit.report()
            self.pump(3)
            self.assertEqual("verified!", self.said()[-1])
            self.assertEqual([], self.unit.told)

    def test_validity(self) -> None:
        """A provider that delivers when the time is over gets no cut."""
        self.process.texting.honours_validity = False
        self.begin()
        self.ask(**STOP, channel="sms")
        self.assertEqual(["failed!"], self.said())
        self.assertIn("may deliver a text when its time is over", self.last()["reason"])

    def test_killed(self) -> None:
        """Killed after it was stored that the device is told, whoever comes next does not tell it again."""
        self.begin()
        self.unit.link.ready = None
        self.ask(**STOP, channel="auto", sms_after="5")
        for done in range(1, 12):
            self.setUp()
            self.begin()
            self.unit.link.ready = None
            self.ask(**STOP, channel="auto", sms_after="5")
            way = self.process.way
            assert way is not None
            way.at_once = False
            for _ in range(done):
                self.clock.advance(1)
                self.process.turn()
                way.step()
            self.process.kill()
            self.process = Process(self.server, self.clock, "next", sms=SMS)
            self.server.holders.pop(IDENT, None)
            self.unit = Unit(self.process)
            for _ in range(40):
                self.unit.report()
                self.pump(10)
            cuts = len(self.server.texts) + len(self.unit.told)
            self.assertLessEqual(cuts, 1, done)
            self.assertEqual(1, sum(kind.endswith("!") for kind in self.said()), (done, self.said()))


class OneAtATimeTests(TextingCase):
    """An answer does not say to which text it is."""

    def test_one(self) -> None:
        """A device has one text to answer at a time; one of the engine does not wait for long."""
        self.begin()
        self.unit.link.ready = None
        for ref in ("one", "two"):
            self.ask("interval.set", args={"seconds": 30}, ref=ref, channel="sms")
        self.pump(5)
        self.assertEqual(1, len(self.server.texts))
        self.becomes("accepted")
        self.answers()
        self.pump(5)
        self.assertEqual(2, len(self.server.texts))
        self.unit.report()
        self.unit.link.ready = None
        self.ask(**STOP, ref="stop", channel="sms")
        self.pump(15)
        self.assertEqual(3, len(self.server.texts))
        self.assertEqual("failed!", self.said("two")[-1], "it is waited for no longer")
