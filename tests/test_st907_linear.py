"""The decoder's time grows with its input and not with the square of it, whatever that input is."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import process_time
from typing import Final, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from gateway.devices.st907 import device
from gateway.devices.st907.frames import TEXT_LIMIT
from gateway.devices.st907.settings import Options
from gateway.interfaces import Kept
from tests.fakes import NOON
from tests.wire import IDENT, binary, text

#: What a read brings at most.
READ: Final = 65_536
#: Four times as much may take so many times as long, eight times as much so many: linear is 4 and 8, quadratic 16, 64.
FOUR_TIMES: Final = 9.0
EIGHT_TIMES: Final = 20.0
#: Times below this are the clock's, not the decoder's.
FLOOR_S: Final = 0.002

HEAD: Final = f"*HQ,{IDENT},".encode()


def repeated(unit: bytes) -> Callable[[int], bytes]:
    """This again and again, up to a size."""
    return lambda size: (unit * (size // len(unit) + 1))[:size]


def framed(kind: bytes, unit: bytes, end: bytes = b"#") -> Callable[[int], bytes]:
    """One text frame that is filled up with this."""

    def make(size: int) -> bytes:
        room = size - len(HEAD) - len(kind) - len(end)
        return HEAD + kind + repeated(unit)(max(room, 0)) + end

    return make


class Input(NamedTuple):
    """A name, and what makes an input of a size."""

    name: str
    make: Callable[[int], bytes]


# Streams: as many bytes as there are.
STREAMS: Final = (
    Input("usual reports", repeated(text() + b"\r\n")),
    Input("binary frames", repeated(binary())),
    Input("dollars", repeated(b"$")),
    Input("stars", repeated(b"*")),
    Input("X", repeated(b"X")),
    Input("end signs", repeated(b"#")),
    Input("line ends", repeated(b"\r\n")),
    Input("zeros", repeated(b"\0")),
    Input("blanks after junk", lambda size: b"!" + b" " * (size - 1)),
    Input("BCD digits", repeated(b"\x11\x22\x10\x05")),
    Input("dollars and BCD digits", repeated(b"$\x11\x11\x11")),
    Input("heads of binary frames", repeated(binary()[:12])),
    Input("binary frames with a status word that is none", repeated(binary()[:25] + b"\0\0\0\0" + b"\0\0\0")),
    Input("binary frames that are cut short", repeated(binary()[:31])),
    Input("binary frames with what is none behind them", repeated(binary() + b"!")),
    Input("starts of text", repeated(b"*HQ,")),
    Input("almost starts of text", repeated(b"*H")),
    Input("text that is cut short", repeated(HEAD + b"V1,0543")),
    Input("text without an end", lambda size: HEAD + b"V1," + b"x" * size),
    Input("commas without an end", lambda size: b"*HQ,1," + b"," * size),
    Input("a report, then line ends", lambda size: text() + b"\r\n \0" * (size // 4)),
    Input("almost the usual report, no end sign", repeated(text()[:-1])),
    Input("almost the usual report, a letter too many", repeated(text()[:-1] + b"x#")),
    Input("almost the usual report, a digit too many", repeated(text().replace(b"018.47", b"0018.47"))),
    Input("usual and unusual reports in turn", repeated(text() + text().replace(b"018.47", b"0018.47"))),
    Input("SMS frames", repeated(HEAD + b"SMS,a#b#c#" + text())),
    Input("SMS frames of end signs", repeated(HEAD + b"SMS," + b"#" * 1000)),
    Input("SMS frames of end signs and stars", repeated(HEAD + b"SMS," + b"#*" * 900)),
    Input("SMS frames of end signs and blanks", repeated(HEAD + b"SMS," + b"# " * 900)),
    Input("SMS frames of end signs and dollars", repeated(HEAD + b"SMS," + b"#$\x12" * 600)),
)

# Frames: one at a time, up to the longest that there is.
FRAMES: Final = (
    Input("commas", framed(b"V1", b",")),
    Input("commas and an ident of one digit", lambda size: b"*HQ,1," + b"," * (size - 7) + b"#"),
    Input("fields of V1", framed(b"V1", b",1")),
    Input("fields behind a good V1", lambda size: text()[:-1] + b",1" * ((size - len(text())) // 2) + b"#"),
    Input("status words behind a good V1", lambda size: text()[:-1] + b",FFFFFFF" * ((size - len(text())) // 8) + b"#"),
    Input("a long number in place of a latitude", framed(b"V1,120000,A,", b"1", b",N,1,E,1,1,221126,FFFFFFFF#")),
    Input("a long fraction", framed(b"V1,120000,A,4221.", b"1", b",N,00752.5296,E,1,1,221126,FFFFFFFF#")),
    Input("a long speed", framed(b"V1,120000,A,4221.1699,N,00752.5296,E,", b"9", b",1,221126,FFFFFFFF#")),
    Input("blanks around a speed", framed(b"V1,120000,A,4221.1699,N,00752.5296,E,", b" ", b",1,221126,FFFFFFFF#")),
    Input("groups of NBR", framed(b"NBR,103732,722,310,0,99", b",8106,32010,23", b",100217,FFFFFBFF,5#")),
    Input("dates and words of NBR", framed(b"NBR,103732", b",100217,FFFFFBF")),
    Input("groups of V3", framed(b"V3,044855,28403,99", b",001450,011473,158,-62", b",0292,0,X,030817,FFFFFBFF#")),
    Input("cells of VP1", framed(b"VP1,V,470,002,92,3565,0", b"Y92,19433,30")),
    Input("Y of VP1", framed(b"VP1,V,470,002,", b"Y")),
    Input("positions of V4", framed(b"V4,S20", b",A,4221.1699,N,00752.5296,E,1,1,221126,FFFFFFFF")),
    Input("almost positions of V4", framed(b"V4,S20", b",A,x,N,x,E,1,1,221126")),
    Input("arguments of V4", framed(b"V4,S20", b",1")),
    Input("SIM cards of V19", framed(b"V19,120000,A,4221.1699,N,00752.5296,E,1,1,221126", b",8948061050039263302")),
    Input("digits of V19", framed(b"V19,120000,A,4221.1699,N,00752.5296,E,1,1,221126,", b"1")),
    Input("a long type", framed(b"", b"Q")),
    Input("a long ident", lambda size: b"*HQ," + b"1" * (size - 9) + b",V1,#"),
    Input("keys of an SMS", framed(b"SMS,", b"ID:1 ")),
    Input(
        "all keys of an SMS", framed(b"SMS,", b"ID:1 IP:1.2.3.4 5 UT:1,2 VOLT:1V BAT:1 APN:x GPS:A-1-2 GSM:3 ICCID:89 ")
    ),
    Input("almost keys of an SMS", framed(b"SMS,", b"I")),
    Input("blanks of an SMS", framed(b"SMS,", b" ", b"ID:1 GSM:2#")),
    Input("a firmware of an SMS", framed(b"SMS,", b"a", b" ID:1 GSM:2#")),
    Input("a firmware and blanks of an SMS", framed(b"SMS,ST906_TQ", b" ", b"x ID:1 GSM:2#")),
    Input("dates of an SMS", framed(b"SMS,ST906", b" 2024/06/07", b" ID:1 GSM:2#")),
    Input("a server of an SMS", framed(b"SMS,ID:1 IP:", b"a.", b" GSM:2#")),
    Input("blanks of a server of an SMS", framed(b"SMS,ID:1 IP:a", b" ", b"x GSM:2#")),
    Input("intervals of an SMS", framed(b"SMS,ID:1 UT:", b"1,", b"x GSM:2#")),
    Input("end signs of an SMS", framed(b"SMS,", b"#")),
)


def spent(reads: list[bytes], times: int = 1) -> float:
    """CPU seconds that a fresh decoder takes for these reads and the silence after them: the best of a few."""
    best = float("inf")
    for _ in range(2):
        before = process_time()
        for _ in range(times):
            made = device.decoder(Options(), no_kept)
            for data in reads:
                made.receive(data, NOON)
            made.finish(NOON)
        best = min(best, process_time() - before)
    return best


def no_kept(ident: str) -> Kept:
    """What decoders are given before an ident's state was read."""
    return Kept()


def steep(cost: Callable[[int], float], size: int) -> str:
    """Whether the time grows faster than it may, with the times; looked at again before it is said."""
    times: list[float] = []
    for _ in range(5):
        times = [max(cost(size * factor), FLOOR_S) for factor in (1, 4, 8)]
        if times[1] < FOUR_TIMES * times[0] and times[2] < EIGHT_TIMES * times[0]:
            return ""
    return " ".join(f"{seconds * 1000:.1f} ms" for seconds in times)


class LinearTests(SynchronousTestCase):
    """CPU time for once, four times and eight times as much."""

    def setUp(self) -> None:
        """Do without the search for cycles: it goes through what all tests before this one have left."""
        gc.disable()
        self.addCleanup(gc.enable)

    def each(self, inputs: tuple[Input, ...], cost: Callable[[Input, int], float], size: int) -> None:
        """Hold each input to what it may cost; all that cost more are shown."""
        wrong = []
        for one in inputs:
            if found := steep(lambda size, one=one: cost(one, size), size):  # type: ignore[misc]  # bound at once
                wrong.append(f"{one.name}: {found}")
        self.assertEqual([], wrong, "\n" + "\n".join(wrong))

    def test_streams(self) -> None:
        """A stream that comes in reads of 64 KiB."""

        def cost(one: Input, size: int) -> float:
            data = one.make(size)
            return spent([data[at : at + READ] for at in range(0, len(data), READ)])

        self.each(STREAMS, cost, 8_192)

    def test_streams_byte_by_byte(self) -> None:
        """A stream that comes byte by byte, up to the longest frame and past it."""

        def cost(one: Input, size: int) -> float:
            data = one.make(size)
            return spent([data[at : at + 1] for at in range(len(data))])

        self.each(STREAMS, cost, TEXT_LIMIT // 4)

    def test_frames(self) -> None:
        """A frame that comes in one read, up to the longest: many times over, for a single one takes no time."""

        def cost(one: Input, size: int) -> float:
            return spent([one.make(size)], 20)

        self.each(FRAMES, cost, TEXT_LIMIT // 8)

    def test_frames_byte_by_byte(self) -> None:
        """A frame that comes byte by byte, up to the longest."""

        def cost(one: Input, size: int) -> float:
            data = one.make(size)
            return spent([data[at : at + 1] for at in range(len(data))])

        self.each(FRAMES, cost, TEXT_LIMIT // 8)

    def test_frames_in_a_stream(self) -> None:
        """Frames of the longest form, one after the other."""

        def cost(one: Input, size: int) -> float:
            data = one.make(TEXT_LIMIT - 100) * (size // TEXT_LIMIT)
            return spent([data[at : at + READ] for at in range(0, len(data), READ)])

        self.each(FRAMES, cost, 8_192)
