"""Detection: when a decision is made, for whom, and why."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.detection import LEADING_LIMIT, Candidates, Decision, Detector, skip_leading
from gateway.errors import PluginError
from gateway.interfaces import MORE, NO, YES
from gateway.registry import Plugin
from tests.fakes import plugin, script, starting

NEVER = script((1, NO("never")))


def detector(*plugins: Plugin, limit: int = 1024) -> Detector:
    """A detector of a TCP stream."""
    return Detector(Candidates(plugins, "tcp"), limit)


def yes(confidence: int) -> YES:
    """A YES."""
    return YES(confidence, f"is {confidence}")


class DetectionCase(SynchronousTestCase):
    """What detection comes to."""

    def assertDecides(
        self, decision: Decision | None, name: str | None, at: int | None = None, runner_up: str | None = None
    ) -> Decision:
        """It came to this device after so many bytes."""
        assert decision is not None, "no decision"
        self.assertEqual(name, decision.plugin.name if decision.plugin else None, decision)
        self.assertEqual(runner_up, decision.runner_up.name if decision.runner_up else None, decision)
        if at is not None:
            self.assertEqual(at, decision.at, decision)
        return decision


class CommitTests(DetectionCase):
    """When a stream is somebody's."""

    def test_80_with_a_lead_of_15(self) -> None:
        """A device commits at 80 when all others are at least 15 lower; the best of them is next in line."""
        a = plugin("a", script((4, yes(80))))
        found = detector(a, plugin("b", script((2, yes(65))))).feed(b"x" * 10)
        self.assertDecides(found, "a", 4, "b")

    def test_80_with_a_lead_of_14(self) -> None:
        """A lead of 14 is not enough: it waits for more bytes."""
        a = plugin("a", script((4, yes(80)), (8, yes(90))))
        d = detector(a, plugin("b", script((2, yes(66)))))
        self.assertIsNone(d.feed(b"x" * 7))
        self.assertDecides(d.feed(b"x"), "a", 8, "b")

    def test_a_claim_counts(self) -> None:
        """A device that wants more holds others back by what its bytes are worth, but is not next in line."""
        a = plugin("a", script((4, yes(90))))
        d = detector(a, plugin("b", script((2, MORE(80, "nearly")), (6, MORE(20, "hardly")))))
        self.assertIsNone(d.feed(b"x" * 5))
        self.assertDecides(d.feed(b"x"), "a", 6)

    def test_60_when_alone(self) -> None:
        """With one device left 60 is enough, 59 is not."""
        for confidence, at in ((60, 6), (59, None)):
            d = detector(plugin("a", script((2, yes(confidence)))), plugin("b", script((6, NO("no")))))
            found = d.feed(b"x" * 20)
            if at is None:
                self.assertIsNone(found)
            else:
                self.assertDecides(found, "a", at)

    def test_no_is_final(self) -> None:
        """A device that said no is not asked again."""
        asked: list[int] = []

        def once(prefix: bytes) -> NO:
            asked.append(len(prefix))
            return NO("no")

        d = detector(plugin("a", once), plugin("b", script((9, yes(90)))))
        self.assertEqual([1] * 256, asked)  # of each first byte, once and for all
        d.feed(b"x" * 5)
        d.feed(b"x" * 5)
        self.assertEqual([1] * 256, asked)

    def test_all_no(self) -> None:
        """When every device said no it is nobody's at once."""
        d = detector(plugin("a", NEVER), plugin("b", script((3, NO("no")))))
        self.assertIsNone(d.feed(b"xx"))
        self.assertDecides(d.feed(b"x"), None, 3)

    def test_no_devices(self) -> None:
        """Without any device every stream is nobody's."""
        self.assertDecides(detector().feed(b"x"), None)


class WaitTests(DetectionCase):
    """What silence, limits and ends decide."""

    def test_silence_commits(self) -> None:
        """A silence commits to the best YES of 50 or more."""
        d = detector(plugin("a", script((2, yes(50)))), plugin("b", script((2, MORE(20, "more")))))
        self.assertIsNone(d.feed(b"xxx"))
        self.assertDecides(d.silence(), "a", 3)

    def test_silence_never_rejects(self) -> None:
        """A silence without a YES of 50 decides nothing, however often: the radio stalls for seconds."""
        for answer in (yes(49), MORE(90, "nearly")):
            d = detector(plugin("a", script((2, answer))), plugin("b", script((2, MORE(20, "more")))))
            d.feed(b"xxx")
            for _ in range(3):
                self.assertIsNone(d.silence())
        self.assertIsNone(detector(plugin("a", NEVER)).silence())

    def test_limit(self) -> None:
        """At 1,024 bytes the best YES of 50 commits; without one it is nobody's."""
        for confidence, name in ((50, "a"), (49, None)):
            other = plugin("b", script((2, MORE(40, "more"))))
            d = detector(plugin("a", script((2, yes(confidence)))), other)
            self.assertIsNone(d.feed(b"x" * 1023))
            self.assertDecides(d.feed(b"x"), name, 1024)

    def test_nobody_sees_more_than_the_limit(self) -> None:
        """A detector is never shown more than 1,024 bytes, however much came in one read."""
        seen: list[int] = []

        def watch(prefix: bytes) -> MORE:
            seen.append(len(prefix))
            return MORE(10, "more")

        self.assertDecides(detector(plugin("a", watch)).feed(b"x" * 100_000), None)
        self.assertDecides(Detector(Candidates([plugin("a", watch)], "udp"), 1024).whole(b"x" * 60_000), None)
        self.assertEqual(1024, max(seen))

    def test_end(self) -> None:
        """The end of the stream commits to the best YES of 50, and says when."""
        d = detector(plugin("a", script((2, yes(55)))), plugin("b", script((2, yes(50)))))
        d.feed(b"xxx")
        decision = self.assertDecides(d.end("the end of the stream"), "a", 3, "b")
        self.assertIn("the end of the stream", decision.reason)

    def test_end_of_nothing(self) -> None:
        """A stream that ends before its first byte is nobody's."""
        self.assertDecides(detector(plugin("a", starting(b"x"))).end("the end"), None)


class TieTests(DetectionCase):
    """Answers that are worth the same."""

    def test_priority(self) -> None:
        """Of two that are worth the same the smaller priority wins, in whichever order they are installed."""
        low, high = plugin("low", script((2, yes(70))), 90), plugin("high", script((2, yes(70))), 10)
        for order in ((low, high), (high, low)):
            d = detector(*order)
            self.assertIsNone(d.feed(b"xx"))
            self.assertDecides(d.end("the end"), "high", 2, "low")

    def test_confidence_before_priority(self) -> None:
        """Priority decides ties only."""
        d = detector(plugin("low", script((2, yes(71))), 90), plugin("high", script((2, yes(70))), 10))
        d.feed(b"xx")
        self.assertDecides(d.end("the end"), "low", 2, "high")


class CandidateTests(DetectionCase):
    """What each device says of each first byte, asked once."""

    def test_raises(self) -> None:
        """A device that raises on a first byte stops the start, and is named with the byte."""

        def fragile(prefix: bytes) -> NO:
            if prefix == b"\x07":
                raise ValueError("no bells")
            return NO("no")

        with self.assertRaises(PluginError) as caught:
            Candidates([plugin("sturdy", NEVER), plugin("fragile", fragile)], "tcp")
        self.assertEqual(("fragile", "test"), (caught.exception.plugin, caught.exception.origin))
        self.assertIn("ValueError: no bells", str(caught.exception))
        self.assertIn(r"b'\x07'", str(caught.exception))
        self.assertIsInstance(caught.exception.__cause__, ValueError)

    def test_no_to_the_first_byte(self) -> None:
        """A NO to the first byte is in the trail of stream and datagram, beside what others said of the last one."""
        candidates = Candidates([plugin("a", starting(b"abc")), plugin("b", starting(b"x"))], "tcp")
        for decision in (Detector(candidates, 1024).feed(b"abc"), Detector(candidates, 1024).whole(b"abc")):
            assert decision is not None
            wanted = {"a: YES 90, starts with b'abc' at byte 3", "b: NO, does not start with b'x' at byte 1"}
            self.assertEqual(wanted, set(decision.trail))

    def test_no_to_the_first_byte_of_all(self) -> None:
        """When all say NO to it, all of them are in the trail."""
        candidates = Candidates([plugin("a", starting(b"abc")), plugin("b", starting(b"x"))], "tcp")
        for decision in (Detector(candidates, 1024).feed(b"?"), Detector(candidates, 1024).whole(b"???")):
            self.assertDecides(decision, None)
            assert decision is not None
            self.assertEqual(["a: NO", "b: NO"], sorted(line[:5] for line in decision.trail))

    def test_not_shared(self) -> None:
        """What one stream's devices answered is in no other stream's trail."""
        candidates = Candidates([plugin("a", starting(b"abc")), plugin("b", starting(b"xy"))], "tcp")
        first, second = Detector(candidates, 1024), Detector(candidates, 1024)
        first.feed(b"abc")
        second.feed(b"abd")
        assert first.decision is not None
        assert second.decision is not None
        self.assertIn("a: YES 90, starts with b'abc' at byte 3", first.decision.trail)
        self.assertIn("a: NO, does not start with b'abc' at byte 3", second.decision.trail)


class DatagramTests(DetectionCase):
    """A datagram is decided on its own."""

    def test_whole(self) -> None:
        """It is judged as a whole: at its end the best YES of 50 commits."""
        a, b = plugin("a", script((2, yes(50)))), plugin("b", script((4, NO("no"))))
        self.assertDecides(Detector(Candidates([a, b], "udp"), 1024).whole(b"xx"), "a", 2)
        self.assertDecides(Detector(Candidates([b], "udp"), 1024).whole(b"xxxx"), None, 4)
        self.assertDecides(Detector(Candidates([b], "udp"), 1024).whole(b""), None, 0)

    def test_hint(self) -> None:
        """What the peer was before decides between answers that are worth the same, and not against the bytes."""
        a, b = plugin("a", script((2, yes(60))), 10), plugin("b", script((2, yes(60))), 90)
        self.assertDecides(Detector(Candidates([a, b], "udp"), 1024).whole(b"xx"), "a", 2, "b")
        self.assertDecides(Detector(Candidates([a, b], "udp"), 1024).whole(b"xx", "b"), "b", 2, "a")
        sure = plugin("sure", script((2, yes(95))))
        self.assertDecides(Detector(Candidates([sure, b], "udp"), 1024).whole(b"xx", "b"), "sure", 2, "b")
        self.assertDecides(Detector(Candidates([plugin("a", NEVER)], "udp"), 1024).whole(b"xx", "a"), None)

    def test_transport(self) -> None:
        """A detector is told the transport."""
        told: list[str] = []

        class Listening:
            def detect(self, prefix: bytes, transport: str) -> NO:
                told.append(transport)
                return NO("no")

        one = plugin("a", NEVER)._replace(device=Listening())
        Candidates([one], "udp")
        self.assertEqual({"udp"}, set(told))
        Candidates([one], "tcp")
        self.assertEqual({"udp", "tcp"}, set(told))


class LeadingTests(DetectionCase):
    """CR, LF and NUL before the first frame."""

    def test_skipped(self) -> None:
        """Up to 16 of them are not shown to detectors; the bytes of the decision count them."""
        for leading in (b"\r\n", b"\0", b"\r\n\0" * 5):
            d = detector(plugin("a", starting(b"abc")))
            self.assertDecides(d.feed(leading + b"abc"), "a", len(leading) + 3)
            self.assertEqual(leading + b"abc", d.data, "replayed whole")
            self.assertEqual(len(leading), skip_leading(leading + b"abc"))

    def test_bytewise(self) -> None:
        """They are skipped when they come one by one."""
        d = detector(plugin("a", starting(b"abc")))
        self.assertEqual([None] * 5, [d.feed(bytes([byte])) for byte in b"\r\n\0\r\n"])
        self.assertDecides(d.feed(b"abc"), "a", 8)

    def test_bounded(self) -> None:
        """The 17th is a byte like any other."""
        d = detector(plugin("a", starting(b"abc")))
        self.assertDecides(d.feed(b"\n" * (LEADING_LIMIT + 1) + b"abc"), None, LEADING_LIMIT + 1)


class ExplanationTests(DetectionCase):
    """Every decision can be explained."""

    def test_trail(self) -> None:
        """It names each candidate, its last answer, the byte and the reason."""
        decision = detector(plugin("a", starting(b"abc")), plugin("b", starting(b"x"))).feed(b"abc")
        assert decision is not None
        trail = "\n".join(decision.trail)
        for word in ("a: YES 90, starts with b'abc' at byte 3", "b: NO, does not start with b'x' at byte 1"):
            self.assertIn(word, trail)
        self.assertEqual((90, "starts with b'abc'"), (decision.confidence, decision.reason))

    def test_nobody(self) -> None:
        """So does one for nobody."""
        decision = detector(plugin("a", starting(b"abc")), plugin("b", starting(b"x"))).feed(b"q")
        assert decision is not None
        self.assertEqual(2, len(decision.trail))
        self.assertIn("no", decision.reason)


#: Several that overlap.
OVERLAPPING: Sequence[Plugin] = (
    plugin("a", starting(b"abc", 90), 10),
    plugin("b", script((2, MORE(30, "more")), (5, yes(70)), (9, NO("too long"))), 20),
    plugin("c", starting(b"abcd", 85), 30),
    plugin("d", script((3, yes(55))), 40),
)


class CutTests(DetectionCase):
    """How the network cut the stream."""

    @given(
        st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"abc", b"\r\n", b"x"]), min_size=1, max_size=20),
        st.lists(st.integers(min_value=1, max_value=7), max_size=40),
    )
    def test_independent(self, parts: list[bytes], cuts: list[int]) -> None:
        """A decision never depends on it: not for whom, not at which byte, not why."""
        stream = b"".join(parts)
        whole = detector(*OVERLAPPING)
        wanted = whole.feed(stream)
        cut = detector(*OVERLAPPING)
        at, got = 0, None
        for size in [*cuts, len(stream)]:
            if got is None and at < len(stream):
                got = cut.feed(stream[at : at + size])
                at += size
        if wanted is None:
            self.assertIsNone(got)
            self.assertEqual(whole.end("the end"), cut.end("the end"))
        else:
            self.assertEqual(wanted, got)
