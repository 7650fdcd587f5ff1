"""One stream from its first byte: replay, fallback, limits and deadlines."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gateway.connection import DETECT_SILENCE_S, Connection, Datagrams, Limits
from gateway.detection import Candidates
from gateway.interfaces import MORE, NO, YES, Answer, IDatagramDevice, Memory, Message
from gateway.registry import Plugin
from tests.fakes import NOON, ToyDevice, no_memory, plugin, script, starting

TOY = plugin("toy", starting(b"12"))
YES_90 = YES(90, "sure")


class ConnectionCase(SynchronousTestCase):
    """A connection to toy devices."""

    def connect(self, *plugins: Plugin, limits: Limits | None = None, transport: str = "tcp") -> Connection:
        """A connection that was opened at noon."""
        devices = plugins or (TOY,)
        return Connection(
            Candidates(devices, "udp" if transport == "udp" else "tcp"), limits or Limits(), no_memory, NOON
        )

    def assertFrames(self, wanted: list[bytes], messages: object) -> None:
        """These frames, in this order."""
        self.assertEqual(wanted, [message.raw for message in messages])  # type: ignore[attr-defined]  # a sequence

    def two(self) -> tuple[Plugin, Plugin]:
        """A device that is sure at 2 bytes, and another that is fairly sure."""
        return plugin("first", script((2, YES_90))), plugin("second", script((1, YES(60, "fairly sure"))))


class ReplayTests(ConnectionCase):
    """Bytes that came before the decision."""

    def test_replayed(self) -> None:
        """Whatever came before the device was known is decoded, once, byte by byte or whole."""
        stream = b"123:a;456:b;78"
        whole = self.connect()
        self.assertFrames([b"123:a;", b"456:b;"], whole.receive(stream, NOON))
        self.assertEqual(b"78", whole.rest)
        single = self.connect()
        self.assertFrames(
            [b"123:a;", b"456:b;"],
            [m for i in range(len(stream)) for m in single.receive(stream[i : i + 1], NOON)],
        )
        self.assertEqual(("toy", "toy"), tuple(c.plugin.name for c in (whole, single) if c.plugin))

    def test_leading(self) -> None:
        """Line ends before the first frame are no reason not to know a device."""
        connection = self.connect()
        connection.receive(b"\r\n", NOON)
        connection.receive(b"123:a;", NOON)
        self.assertEqual("toy", connection.plugin.name if connection.plugin else None)

    def test_unrecognised(self) -> None:
        """A stream that is nobody's says so at once, keeps its bytes, and takes no more."""
        connection = self.connect()
        self.assertFrames([], connection.receive(b"GET / HTTP/1.1", NOON))
        self.assertIn("unrecognised", connection.closing or "")
        self.assertEqual(b"GET / HTTP/1.1", connection.rest)
        self.assertFrames([], connection.receive(b"more", NOON))
        self.assertFrames([], connection.end(NOON))
        self.assertIsNone(connection.deadline)


class FallbackTests(ConnectionCase):
    """A device that turns out to be the wrong one."""

    def test_first_frame_is_bad(self) -> None:
        """When the first frame can't be read the runner-up gets all the bytes; nothing of the first is reported."""
        first, second = self.two()
        connection = self.connect(first, second)
        self.assertFrames([b"!a;"], connection.receive(b"!a;", NOON))
        self.assertEqual("second", connection.plugin.name if connection.plugin else None)

    def test_however_it_is_cut(self) -> None:
        """The runner-up gets all bytes, also those that came after the decision."""
        stream = b"!a;123:b;"
        results = []
        for size in (1, 2, 3, 4, 100):
            connection = self.connect(*self.two())
            messages: list[Message] = []
            for at in range(0, len(stream), size):
                messages += connection.receive(stream[at : at + size], NOON)
            results.append((connection.plugin.name if connection.plugin else None, [m.raw for m in messages]))
        self.assertEqual([("second", [b"!a;", b"123:b;"])] * 5, results)

    def test_once(self) -> None:
        """There is one fallback: the runner-up's own bad frame is reported as such."""
        connection = self.connect(*self.two())
        connection.receive(b"!a;", NOON)
        self.assertFrames([b"!b;"], connection.receive(b"!b;", NOON))
        self.assertEqual("second", connection.plugin.name if connection.plugin else None)

    def test_none_after_a_good_frame(self) -> None:
        """After a good frame a bad one is reported, and the device stays."""
        connection = self.connect(*self.two())
        self.assertFrames([b"123:a;"], connection.receive(b"123:a;", NOON))
        self.assertFrames([b"!b;"], connection.receive(b"!b;", NOON))
        self.assertEqual("first", connection.plugin.name if connection.plugin else None)

    def test_without_a_runner_up(self) -> None:
        """With nobody else in line a bad first frame is reported."""
        connection = self.connect(plugin("first", script((2, YES_90))))
        (message,) = connection.receive(b"!a;", NOON)
        self.assertIsNotNone(message.error)


class DeadlineTests(ConnectionCase):
    """Waits."""

    def test_before_the_first_byte(self) -> None:
        """A connection that says nothing has 60 s, then it is nobody's."""
        connection = self.connect()
        self.assertEqual(NOON + 60, connection.deadline)
        self.assertFrames([], connection.silence(NOON + 60))
        self.assertIn("unrecognised", connection.closing or "")
        self.assertIsNone(connection.deadline)

    def test_silence_in_detection(self) -> None:
        """After 2 s of silence the best YES commits; the bytes are decoded."""
        wary = plugin("wary", script((2, YES(50, "perhaps"))))
        connection = self.connect(wary, plugin("other", script((1, MORE(10, "more")))))
        connection.receive(b"1:a;", NOON + 1)
        self.assertEqual(NOON + 1 + DETECT_SILENCE_S, connection.deadline)
        self.assertFrames([b"1:a;"], connection.silence(NOON + 3))
        self.assertEqual("wary", connection.plugin.name if connection.plugin else None)

    def test_silence_never_rejects(self) -> None:
        """A stall in detection only postpones, until 60 s have passed since it was opened."""
        connection = self.connect(plugin("slow", script((1, MORE(10, "more")))))
        connection.receive(b"1", NOON)
        now = NOON
        while connection.closing is None:
            deadline = connection.deadline
            assert deadline is not None
            self.assertGreater(deadline, now)
            now = deadline
            connection.silence(now)
        self.assertEqual(NOON + 60, now)

    def test_one_byte_at_a_time(self) -> None:
        """Bytes that trickle do not postpone the 60 s."""
        connection = self.connect(plugin("slow", script((1, MORE(10, "more")))))
        for second in range(0, 60):
            connection.receive(b"1", NOON + second)
            self.assertIsNone(connection.closing)
        assert connection.deadline is not None
        self.assertLessEqual(connection.deadline, NOON + 60)

    def test_of_the_decoder(self) -> None:
        """A decoder that wants a decision by silence gets it after as long as it says, from the last byte."""
        connection = self.connect()
        connection.receive(b"123:a;", NOON)
        self.assertIsNone(connection.deadline)
        connection.receive(b"123:b?", NOON + 5)
        self.assertEqual(NOON + 8, connection.deadline)
        self.assertFrames([b"123:b?"], connection.silence(NOON + 8))

    def test_stands_still(self) -> None:
        """While reading stood still no deadline came nearer."""
        connection = self.connect()
        connection.shift(100)
        self.assertEqual(NOON + 160, connection.deadline)
        connection.receive(b"123:a?", NOON + 101)
        connection.shift(10)
        self.assertEqual(NOON + 114, connection.deadline)


class LimitTests(ConnectionCase):
    """What one connection may cost."""

    def test_junk(self) -> None:
        """So many bytes without a good frame close it; each good frame starts the count anew."""
        connection = self.connect(limits=Limits(junk_bytes=20))
        connection.receive(b"12:a;", NOON)
        for _ in range(10):
            self.assertIsNone(connection.closing)
            connection.receive(b"!45678901234567890;", NOON)
            connection.receive(b"12:a;", NOON)
        connection.receive(b"!45678901234567890;", NOON)
        self.assertIsNone(connection.closing)
        self.assertEqual(1, len(connection.receive(b"!2;", NOON)), "still reported")
        self.assertIn("without a good frame", connection.closing or "")

    def test_frame(self) -> None:
        """A frame that grows past the limit closes it."""
        connection = self.connect(limits=Limits(frame_bytes=100))
        connection.receive(b"12:" + b"x" * 97, NOON)
        self.assertIsNone(connection.closing)
        connection.receive(b"x", NOON)
        self.assertIn("more than 100 bytes", connection.closing or "")

    def test_detection(self) -> None:
        """Detection looks at so many bytes and no more."""
        connection = self.connect(plugin("slow", script((1, MORE(10, "more")))), limits=Limits(detect_bytes=64))
        connection.receive(b"x" * 63, NOON)
        self.assertIsNone(connection.closing)
        connection.receive(b"x", NOON)
        self.assertIsNotNone(connection.closing)


class IdentTests(ConnectionCase):
    """Whose frames are whose."""

    def test_bound(self) -> None:
        """A frame without an ident is that of whoever spoke last before it."""
        connection = self.connect()
        messages = connection.receive(b"123:a;:b;456:c;:d;", NOON)
        self.assertEqual(["123", "123", "456", "456"], [m.ident for m in messages])
        (later,) = connection.receive(b":e;", NOON)
        self.assertEqual(("456", "456"), (later.ident, connection.ident))

    def test_nobody_yet(self) -> None:
        """Before anybody spoke a frame without an ident can't be used: it is reported with its bytes."""
        connection = self.connect(plugin("toy", script((1, YES_90))))
        messages = connection.receive(b":a;123:b;:c;", NOON)
        self.assertEqual([False, True, True], [m.error is None for m in messages])
        self.assertEqual([b":a;", b"123:b;", b":c;"], [m.raw for m in messages])
        self.assertEqual([None, "123", "123"], [m.ident for m in messages])


class EndTests(ConnectionCase):
    """The end of a stream."""

    def test_inside_a_frame(self) -> None:
        """What is left over is reported as undecodable, once."""
        connection = self.connect()
        connection.receive(b"123:a;456:b", NOON)
        (message,) = connection.end(NOON)
        self.assertEqual((b"456:b", True), (message.raw, message.error is not None))
        self.assertFrames([], connection.end(NOON))
        self.assertIsNotNone(connection.closing)

    def test_what_can_be_decided(self) -> None:
        """What silence would decide is decided."""
        connection = self.connect()
        connection.receive(b"123:a;456:b?", NOON)
        (message,) = connection.end(NOON)
        self.assertEqual((b"456:b?", None), (message.raw, message.error))

    def test_in_detection(self) -> None:
        """A stream that ends while it is being detected is decided by what is there, and decoded."""
        wary = plugin("wary", script((2, YES(50, "perhaps"))))
        connection = self.connect(wary, plugin("other", script((1, MORE(10, "more")))))
        connection.receive(b"1:a;2", NOON)
        self.assertFrames([b"1:a;", b"2"], connection.end(NOON))

    def test_nobody(self) -> None:
        """A stream that ends before anybody knows it is unrecognised; one without a byte is nothing."""
        connection = self.connect(plugin("slow", script((1, MORE(10, "more")))))
        connection.receive(b"x", NOON)
        self.assertFrames([], connection.end(NOON))
        self.assertIn("unrecognised", connection.closing or "")
        self.assertFrames([], self.connect().end(NOON))


class Closing:
    """A decoder that ends the stream with each frame that holds an C{x}."""

    deadline = None
    rest = b"more"

    def receive(self, data: bytes, now: float) -> list[Message]:
        return [Message(frame, "123", close=b"x" in frame) for frame in data.split(b";") if frame]

    def finish(self, now: float) -> list[Message]:
        return []


class CloseTests(ConnectionCase):
    """A message that ends its stream."""

    def test_nothing_after_it(self) -> None:
        """Messages, bytes and what is held after it count for nothing, whether it comes alone or with others."""
        for data, wanted in ((b"Ax;", [b"Ax"]), (b"A1;A2x;A3;", [b"A1", b"A2x"])):
            toy = plugin("toy", starting(b"A"))
            device = toy.device
            device.decoder = lambda options, memory: Closing()
            connection = self.connect(toy)
            self.assertEqual(wanted, [message.raw for message in connection.receive(data, NOON)])
            self.assertEqual("the device ends the stream", connection.closing)
            self.assertEqual([], [*connection.receive(b"A4;", NOON), *connection.end(NOON)])
            self.assertEqual(b"", connection.rest)


class DatagramsTests(ConnectionCase):
    """A port's datagrams."""

    def test_whose_fault(self) -> None:
        """A device that raises is the one that is named, not that of the datagram before."""

        def boom(prefix: bytes) -> Answer:
            if len(prefix) > 1 and prefix.startswith(b"Z"):
                raise RuntimeError("boom")
            return MORE(10, "may be") if prefix.startswith(b"Z") else NO("no")

        candidates = Candidates([plugin("good", starting(b"A")), plugin("bad", boom)], "udp")
        datagrams = Datagrams(candidates, Limits(), no_memory)
        datagrams.receive(b"A123:hello;", NOON, None)
        self.assertEqual("good", datagrams.plugin.name if datagrams.plugin else "")
        with self.assertRaises(RuntimeError):
            datagrams.receive(b"Z123:hello;", NOON, None)
        self.assertIsNone(datagrams.plugin)


@implementer(IDatagramDevice)
class GlancingDevice(ToyDevice):
    """A toy device that knows the datagram C{A1:glance;} at a glance."""

    def datagrams(self, options: object, memory: Memory) -> Callable[[bytes], Message | None]:
        return self.glance

    def glance(self, data: bytes) -> Message | None:
        """See L{IDatagramDevice}."""
        if data == b"A1:boom;":
            raise RuntimeError("boom")
        return Message(data, "glanced") if data == b"A1:glance;" else None


class GlanceTests(ConnectionCase):
    """Datagrams that a device knows at a glance."""

    def ident(self, *others: Plugin) -> str | None:
        """Whose such a datagram is said to be, beside other devices."""
        self.datagrams = Datagrams(Candidates([self.glancing, *others], "udp"), Limits(), no_memory)
        (message,) = self.datagrams.receive(b"A1:glance;", NOON, None)
        self.assertEqual("toy", self.datagrams.plugin.name if self.datagrams.plugin else "")
        return message.ident

    def setUp(self) -> None:
        self.glancing = TOY._replace(device=GlancingDevice("toy", starting(b"A")))

    def test_alone(self) -> None:
        """It is asked where nobody else speaks like that; what it does not know goes the way of all."""
        self.assertEqual("glanced", self.ident(plugin("other", starting(b"B"))))
        (message,) = self.datagrams.receive(b"A1:x;", NOON, None)
        self.assertEqual("A1", message.ident)

    def test_not_alone(self) -> None:
        """Where another device may speak like that, detection decides."""
        self.assertEqual("A1", self.ident(plugin("other", starting(b"AB"))))

    def test_whose_fault(self) -> None:
        """When it raises it is named."""
        self.ident()
        self.assertRaises(RuntimeError, self.datagrams.receive, b"A1:boom;", NOON, None)
        self.assertEqual("toy", self.datagrams.plugin.name if self.datagrams.plugin else "")


class DatagramTests(ConnectionCase):
    """A datagram is a stream that ends."""

    def test_several_frames(self) -> None:
        """Its frames are decoded, its incomplete tail is reported and not kept."""
        connection = self.connect(transport="udp")
        self.assertFrames([b"123:a;", b"456:b;", b"7"], connection.datagram(b"123:a;456:b;7", NOON))
        self.assertEqual(b"", connection.rest)

    def test_nobody(self) -> None:
        """One that is nobody's leads to nothing."""
        connection = self.connect(plugin("no", script((1, NO("no")))), transport="udp")
        self.assertFrames([], connection.datagram(b"hello", NOON))
        self.assertIsNone(connection.plugin)
