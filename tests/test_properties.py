"""What holds for any bytes: nothing raises, nothing is lost, nothing depends on the reads, nothing grows."""

from __future__ import annotations

import tracemalloc
from time import process_time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.connection import Connection, Limits
from gateway.detection import Candidates
from gateway.devices.st907 import device
from gateway.devices.st907.settings import Options
from gateway.interfaces import Message
from gateway.registry import Plugin
from tests.fakes import NOON, Memories
from tests.test_st907 import CASES

#: What stands between frames and is nobody's.
GAP = b"\r\n \0"
PLUGINS = (Plugin(device.name, device.priority, device, Options(), "built in", "0"),)

frames = st.sampled_from([case.data for case in CASES])
noise = st.one_of(
    st.binary(max_size=60),
    st.text("*#$,XHQV1SM\r\n 0123456789", max_size=60).map(str.encode),
    st.sampled_from(
        [b"\r\n", b"\n", b" ", b"\0", b"#", b"*", b"$", b"X", b"*HQ,", b"*HQ,1234567890,SMS,", b"$\x11\x11"]
    ),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A frame with some of its bytes replaced, doubled or missing."""
    data = bytearray(draw(frames))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        if data and (kind := draw(st.integers(0, 3))) == 0:
            data[at] = draw(st.integers(0, 255))
        elif data and kind == 1:
            del data[at : at + draw(st.integers(1, 20))]
        elif data and kind == 2:
            data[at:at] = draw(st.binary(max_size=8))
        elif data:
            data[at:at] = draw(st.sampled_from([b"inf", b"nan", b"9" * 30, b"-", b",", b"#", b"*HQ,", b"1e999"]))
    return bytes(data)


streams = st.lists(st.one_of(frames, mutated(), noise), max_size=8).map(b"".join)
#: Streams that begin with a good frame, so that they are an st907's for sure.
known = streams.map(lambda rest: b"*HQ,1234567890,V0#" + rest)


def connection() -> Connection:
    """A fresh connection to the st907."""
    return Connection(Candidates(PLUGINS, "tcp"), Limits(), Memories(), NOON)


def essence(message: Message) -> tuple[Any, ...]:
    """What a message says, in a form that can be compared."""
    reply = None if message.reply is None else message.reply(NOON)
    return (message.raw, message.ident, repr(message.events), repr(message.levels), reply, message.error is None)


def play(stream: bytes, size: int) -> tuple[Connection, list[Message]]:
    """A stream in reads of this size."""
    made = connection()
    messages: list[Message] = []
    for at in range(0, len(stream), size):
        if made.closing is None:
            messages += made.receive(stream[at : at + size], NOON)
    return made, messages


class PropertyTests(SynchronousTestCase):
    """For any stream."""

    def assertAccounted(self, stream: bytes, messages: list[Message], rest: bytes) -> None:
        """Every byte is in a message, in what is held, or is one of those that stand between frames; in order."""
        pieces = b"".join([*(m.raw for m in messages), rest])
        self.assertEqual(stream.translate(None, GAP), pieces.translate(None, GAP))
        for message in messages:
            if message.error is None:
                self.assertIn(message.raw, stream)

    @settings(max_examples=300, deadline=None)
    @given(known, st.integers(1, 50))
    def test_accounted(self, stream: bytes, size: int) -> None:
        """No byte is lost, before the end and after it, and nothing raises."""
        made, messages = play(stream, size)
        if made.closing is not None:
            return
        self.assertAccounted(stream, messages, made.rest)
        messages += made.end(NOON)
        self.assertAccounted(stream, messages, b"")

    @settings(max_examples=300, deadline=None)
    @given(streams)
    def test_any_stream(self, stream: bytes) -> None:
        """Any bytes on a fresh connection lead to messages or to 'nobody', and never raise."""
        made, messages = play(stream, 7)
        messages += made.silence(NOON + 2)
        messages += made.silence(NOON + 61)
        messages += made.end(NOON + 62)
        for message in messages:
            if message.reply is not None:
                message.reply(NOON)
        if made.plugin is None:
            self.assertEqual([], messages)

    @settings(max_examples=300, deadline=None)
    @given(known)
    def test_reported_as_it_came(self, stream: bytes) -> None:
        """What is reported as unreadable is shown as it came, the blanks in it too."""
        for message in play(stream, len(stream))[1]:
            self.assertIn(message.raw, stream)

    @settings(max_examples=300, deadline=None)
    @given(known, st.integers(1, 50))
    def test_reads_do_not_matter_to_frames(self, stream: bytes, size: int) -> None:
        """Byte by byte, in pieces and whole are the same good frames with the same meaning."""
        results = []
        for each in (1, size, len(stream)):
            made, messages = play(stream, each)
            messages += made.end(NOON)
            results.append([essence(m) for m in messages if m.error is None])
        self.assertEqual(results[0], results[2])
        self.assertEqual(results[0], results[1])

    @settings(max_examples=300, deadline=None)
    @given(known, st.integers(1, 50))
    def test_reads_do_not_matter(self, stream: bytes, size: int) -> None:
        """Byte by byte, in pieces and whole are the same messages, the same rest and the same fate."""
        results = []
        for each in (1, size, len(stream)):
            made, messages = play(stream, each)
            rest = made.rest
            messages += made.end(NOON)
            results.append(([essence(m) for m in messages], rest))
        self.assertEqual(results[0], results[2])
        self.assertEqual(results[0], results[1])

    @settings(max_examples=200, deadline=None)
    @given(streams)
    def test_datagrams(self, data: bytes) -> None:
        """Any datagram is accounted for, or is nobody's."""
        made = Connection(Candidates(PLUGINS, "udp"), Limits(), Memories(), NOON)
        messages = list(made.datagram(data, NOON))
        if made.plugin is not None:
            self.assertAccounted(data, messages, b"")
        else:
            self.assertEqual([], messages)

    @settings(max_examples=200, deadline=None)
    @given(mutated())
    def test_values(self, frame: bytes) -> None:
        """Whatever is decoded is something the stream's contract can carry."""
        made = device.decoder(Options(), Memories())
        for message in [*made.receive(frame, NOON), *made.finish(NOON)]:
            for event in message.events:
                a = event.attributes
                self.assertLessEqual(abs(a.get("latitude", 0)), 90)
                self.assertLessEqual(abs(a.get("longitude", 0)), 180)
                self.assertTrue(0 <= a.get("speed_kmh", 0) < 1e6, a)
                self.assertIn(a.get("course_deg", 0), range(360))
                for value in a.values():
                    if isinstance(value, int):
                        self.assertLess(value, 1 << 63)


class CostTests(SynchronousTestCase):
    """What a stranger costs."""

    def flood(self, start: bytes, chunk: bytes, total: int) -> tuple[float, int, Connection]:
        """Seconds, peak bytes, and the connection, of a flood that goes on when it should have been cut."""
        made = connection()
        made.receive(start, NOON)
        tracemalloc.start()
        try:
            before = process_time()
            for _ in range(total // len(chunk)):
                made.receive(chunk, NOON)
            spent = process_time() - before
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        return spent, peak, made

    def test_ten_megabytes_without_an_end(self) -> None:
        """10 MB without an end sign after a good frame cost little, and the connection is closed for it."""
        for start in (b"*HQ,1234567890,V0#*HQ,1234567890,V1,", b"*HQ,1234567890,V0#", b"*HQ,1234567890,SMS,"):
            spent, peak, made = self.flood(start, b"x" * 65_536, 10_000_000)
            self.assertLess(spent, 2.0, start)
            self.assertLess(peak, 2_000_000, start)
            self.assertIsNotNone(made.closing, start)

    def test_ten_megabytes_of_nobody(self) -> None:
        """10 MB from nobody are not even kept."""
        spent, peak, made = self.flood(b"GET ", b"x" * 65_536, 10_000_000)
        self.assertLess(spent, 1.0)
        self.assertLess(peak, 1_000_000)
        self.assertIn("unrecognised", made.closing or "")

    def test_small_reads(self) -> None:
        """A frame that never ends, byte by byte, costs per byte what it costs in large reads or little more."""
        for start in (b"*HQ,1234567890,V0#*HQ,1234567890,V1,", b"*HQ,1234567890,V0#"):
            made = connection()
            made.receive(start, NOON)
            before = process_time()
            for _ in range(20_000):
                made.receive(b"x", NOON)
            self.assertLess(process_time() - before, 1.0, start)

    def test_end_signs_in_a_text(self) -> None:
        """An SMS text of nothing but end signs, byte by byte, costs no more than another."""
        made = connection()
        made.receive(b"*HQ,1234567890,SMS,", NOON)
        before = process_time()
        for _ in range(2000):
            made.receive(b"#", NOON)
        self.assertLess(process_time() - before, 0.5)

    def test_small_frames_in_large_reads(self) -> None:
        """Many small frames in one read are read in time that grows with their number, not with its square."""
        spent = []
        for count in (2_000, 16_000):
            took = []
            for _ in range(3):  # the least: what else the machine does makes it more only
                made = connection()
                before = process_time()
                messages = made.receive(b"*HQ,1234567890,V0#" * count, NOON)
                took.append(process_time() - before)
                self.assertEqual(count, len(messages))
            spent.append(min(took))
        self.assertLess(spent[1], max(spent[0], 0.01) * 24, str(spent))
