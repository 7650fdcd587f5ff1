"""Setting trackers up by SMS: what each is told next, and what it ends as."""

from __future__ import annotations

from typing import Final

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from gateway import registry
from gateway.cli import main
from gateway.provisioning.unit import MEANINGS, Limits, Unit
from gateway.sms import making
from tests.fakes import NOON

ST907: Final = next(plugin for plugin in registry.load() if plugin.name == "st907")
LIMITS: Final = Limits(tries=3, answer_s=100.0, report_s=500.0)


class UnitCase(SynchronousTestCase):
    """A tracker."""

    def setUp(self) -> None:
        self.now = NOON
        self.unit = self.made()

    def made(self) -> Unit:
        """A new one."""
        texts = ST907.set_up("203.0.113.7", 8888, "internet", {}, 60)
        return Unit("9170225361", "+4915112345678", "st907", texts, LIMITS)

    def send(self, state: str = "accepted", reason: str = "") -> str:
        """Its next text goes out, and that becomes of it; the text's name."""
        text = self.unit.wants()
        assert text is not None, self.unit
        self.unit.began("id", self.now)
        self.assertIsNone(self.unit.wants(), "one at a time")
        self.unit.became(state, reason, self.now)
        return text.name

    def answer(self, *kinds: str, accepted: bool | None = True) -> None:
        """It answers."""
        self.now += 5
        for kind in kinds or ("configuration" if self.unit.text and self.unit.text.name == "RCONF" else "answer",):
            self.unit.heard(kind, accepted if kind == "answer" else None, "", self.now)

    def wait(self, seconds: float) -> None:
        """Time passes."""
        for _ in range(int(seconds)):
            self.now += 1
            self.unit.tick(self.now)


class GoodTests(UnitCase):
    """One that obeys."""

    def test_done(self) -> None:
        """All texts, each after the answer to the one before; and it is done with its first report, not before."""
        names = []
        while self.unit.wants() is not None:
            names.append(self.send())
            self.answer()
        self.assertEqual(["RCONF", "803", "804", "710", "805", "809", "RCONF"], names)
        self.wait(100)
        self.assertFalse(self.unit.over)
        self.unit.report(self.now)
        self.wait(1)
        self.assertEqual("done", self.unit.verdict)
        self.assertEqual((7, 7), (self.unit.sent, self.unit.answered))

    def test_reports_before(self) -> None:
        """A report of before it was told where to is none; one of after that is, while texts still follow."""
        self.unit.report(NOON + 1)
        for _ in range(2):
            self.send()
            self.answer()
        self.unit.report(self.now)
        self.assertFalse(self.unit.reported)
        self.send()
        self.unit.report(self.now + 3)
        self.assertTrue(self.unit.reported)
        self.assertFalse(self.unit.over)

    def test_lost_answers(self) -> None:
        """A text without an answer is sent again; RCONF is given up, as not every unit answers it."""
        for _ in range(3):
            self.assertEqual("RCONF", self.send())
            self.wait(100)
        self.assertEqual("803", self.send())
        self.wait(100)
        self.assertEqual("803", self.send())
        self.answer()
        self.assertEqual("804", self.send())
        self.assertFalse(self.unit.over)

    def test_late_answers(self) -> None:
        """What is no answer to the text that is on its way does not count as one."""
        self.send()
        self.answer("answer", "position", "alarm", "unmatched")
        self.assertEqual(0, self.unit.step)
        self.answer("configuration")
        self.assertEqual(1, self.unit.step)
        self.answer("answer", "configuration")
        self.assertEqual(1, self.unit.step, "nothing is on its way")

    def test_uncertain(self) -> None:
        """What the provider may have is waited for, and sent again: it does no harm twice."""
        self.send("uncertain")
        self.wait(50)
        self.answer()
        self.assertEqual(1, self.unit.step)

    def test_not_delivered(self) -> None:
        """What was not delivered, or could not be sent in time, is sent again at once."""
        for state in ("failed", "expired"):
            self.unit = self.made()
            self.send(state)
            self.assertIsNotNone(self.unit.wants())
            self.assertEqual(1, self.unit.tries)


class BadTests(UnitCase):
    """One that does not."""

    def play(self, verdict: str) -> None:
        """It came to this end, and has nothing more to be sent."""
        self.assertEqual(verdict, self.unit.verdict, self.unit)
        self.assertIsNone(self.unit.wants())
        self.assertIn(verdict, MEANINGS)
        self.unit.tick(self.now + 1e6)
        self.answer("answer", "configuration")
        self.assertEqual(verdict, self.unit.verdict)

    def test_silent(self) -> None:
        """No text is answered."""
        for _ in range(6):
            self.send()
            self.wait(100)
        self.play("silent")

    def test_wrong_password(self) -> None:
        """RCONF is answered, and nothing that has a password in it."""
        self.send()
        self.answer()
        for _ in range(3):
            self.send()
            self.wait(100)
        self.play("wrong password")

    def test_silent_in_the_middle(self) -> None:
        """One that obeyed before has no wrong password."""
        for _ in range(2):
            self.send()
            self.answer()
        for _ in range(3):
            self.send()
            self.wait(100)
        self.play("silent")

    def test_refused(self) -> None:
        """It says that it does not obey."""
        self.send()
        self.answer()
        self.send()
        self.answer("answer", accepted=False)
        self.play("refused")

    def test_rejected(self) -> None:
        """The provider has no such number."""
        self.send("rejected", "status 0xb")
        self.play("rejected")
        self.assertEqual("status 0xb", self.unit.reason)

    def test_another_device(self) -> None:
        """It is another one that answers."""
        self.send()
        self.unit.heard("unmatched", None, "it says that it is 9170999999", self.now)
        self.play("another device")

    def test_no_report(self) -> None:
        """It took all, and does not report."""
        while self.unit.wants() is not None:
            self.send()
            self.answer()
        self.wait(500)
        self.play("no report")

    def test_too_many(self) -> None:
        """No text is left."""
        self.unit.stop()
        self.play("too many texts")


class KeptTests(UnitCase):
    """What is kept of it."""

    def test_resumed(self) -> None:
        """One that was interrupted anywhere goes on from there."""
        for steps in range(15):
            self.setUp()
            for step in range(steps):
                if step % 2:
                    self.answer()
                elif self.unit.wants() is not None:
                    self.send()
            other = self.made()
            kept = self.unit.dump()
            self.assertEqual({str}, {type(value) for value in kept.values()})
            self.assertTrue(other.load(kept))
            self.assertEqual(self.unit, other)

    def test_another_plan(self) -> None:
        """Another plan, or one that is over, begins anew; one for which no text was left goes on."""
        self.send()
        kept = self.unit.dump()
        other = Unit("9170225361", "+4915112345678", "st907", ST907.set_up("203.0.113.8", 8888, "internet", {}), LIMITS)
        self.assertFalse(other.load(kept))
        self.assertFalse(self.made().load({}))
        for verdict, goes_on in (("done", False), ("silent", False), ("too many texts", True), ("", True)):
            self.assertEqual(goes_on, self.made().load({**kept, "verdict": verdict}), verdict)


class CommandTests(SynchronousTestCase):
    """C{gateway provision} itself."""

    def test_not_installed(self) -> None:
        """Without the extra it says which one, in a line."""
        self.patch(making, "_NEEDED", ("no_such_module",))
        words = ["9171000001", "--phone", "+4915100000001", "--apn", "internet", "--server", "203.0.113.7"]
        done = CliRunner().invoke(main, ["provision", *words, "--dry-run"])
        self.assertEqual(1, done.exit_code)
        self.assertIn("gateway provision needs no_such_module: pip install 'gps-gateway[sms]'", done.output)
        self.assertEqual(1, len(done.output.splitlines()), done.output)
