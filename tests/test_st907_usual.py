"""The fast reader of the usual report says what the general readers say."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.connection import Connection, Limits
from gateway.detection import Candidates
from gateway.devices.st907 import device, reports
from gateway.devices.st907.downlink import Reply
from gateway.devices.st907.settings import Options
from gateway.errors import DecodeError
from gateway.interfaces import IDecoder, Message
from gateway.registry import load
from tests.fakes import no_memory

USUAL = "HQ,9170123456,V1,173000,A,2235.1234,N,11402.5678,E,010.25,120,221126,FFFFBBFF,460,00,9784,4081"

#: What may stand in a field of a report, well formed and not.
ODD = st.sampled_from(
    "|0|-1|null|nan|inf|1_0|1e5|  3.34|A|V|B|2|N|S|E|W|n|9999.9999|99999.9999|0000.0000|9059.9999|8960.0000|-235.1234|"
    "+235.1234|22 5.1234|18000.0000|17960.0000|00753.0002|000000|221126|310226|010180|240000|160169|360|359.6|361|"
    "FFFFFFFF|f7fffbfb|FFFFFBF|0460|999999|4294967296|99999999999|\u00b2\u00b35".split("|")
)


@st.composite
def odd_reports(draw: st.DrawFn) -> str:
    """The usual report with and without a fix, with some odd fields, or some fields fewer or more."""
    fields = [*USUAL.split(","), "5"]
    fields[4] = draw(st.sampled_from("AV"))
    for at, text in draw(st.dictionaries(st.integers(3, 16), ODD, max_size=4)).items():
        fields[at] = text
    return ",".join(fields[: draw(st.sampled_from([12, 13, 16, 17, 18]))])


def general(text: str) -> Message | str:
    """What the general readers make of a frame, or why they can't."""
    fields = text.split(",")
    raw = f"*{text}#".encode("latin-1")
    try:
        message = reports.read_text(raw, fields[1], fields)
    except DecodeError as error:
        return error.reason
    return message._replace(reply=Reply(fields[0], fields[1], "V1", Options(), no_memory).give)


def as_usual(text: str) -> Message | str:
    """What the gateway makes of it."""
    (found,) = read(f"*{text}#".encode("latin-1"))
    return found


def read(*reads: bytes) -> list[Message | str]:
    """What the gateway makes of a stream that comes in these reads."""
    made = decoder()
    messages = [message for data in reads for message in made.receive(data, 1.8e9)]
    return [message if message.error is None else message.error.reason for message in messages]


def decoder() -> IDecoder:
    """A fresh one."""
    return device.decoder(device.options(), no_memory)


def comparable(message: Message | str) -> Any:
    """Without the function that makes the reply, with what it makes; without what only the fast way promises."""
    if isinstance(message, str):
        return message
    reply = message.reply(1.8e9) if message.reply is not None else None
    return message._replace(reply=None, same=None, alike=None), reply


class GlanceTests(SynchronousTestCase):
    """A datagram that is the usual report is read at a glance."""

    def setUp(self) -> None:
        self.glance = device.datagrams(device.options(), no_memory)

    def test_takes_the_usual_report(self) -> None:
        """With and without its cell, a fix, and what may stand behind it."""
        for text in (USUAL, ",".join(USUAL.split(",")[:13]), USUAL.replace(",A,", ",V,")):
            for end in ("#", "#\r\n", "#\0"):
                self.assertIsNotNone(self.glance(f"*{text}{end}".encode()))

    @settings(max_examples=1000, deadline=None)
    @given(odd_reports(), st.sampled_from(["HQ", "hq", "ET", "ZZ"]), st.sampled_from(["#", "#\r\n", "#x", "", "#*HQ,"]))
    def test_same(self, text: str, maker: str, end: str) -> None:
        """What it says of a datagram is what detection and a decoder say, if it says anything."""
        for datagram in (f"*{maker}{each[2:]}{end}".encode("latin-1") for each in (text, USUAL)):
            message = self.glance(datagram)
            if message is None:
                continue
            connection = Connection(Candidates(load(), "udp"), Limits(), no_memory, 1.8e9)
            (wanted,) = connection.datagram(datagram, 1.8e9)
            self.assertEqual("st907", connection.plugin.name if connection.plugin is not None else None)
            self.assertEqual(comparable(wanted), comparable(message))


class UsualReportTests(SynchronousTestCase):
    """C{usual.read} is a shorter way to the same result, or no way at all."""

    def test_takes_the_usual_report(self) -> None:
        """The report of a wired SinoTrack goes the fast way, with and without its cell."""
        for text in (USUAL, ",".join(USUAL.split(",")[:13])):
            (message,) = decoder().receive(f"*{text}#".encode(), 1.8e9)
            self.assertIsNotNone(message.same)

    def test_same_for_the_usual_report(self) -> None:
        """Both ways read it alike."""
        for text in (USUAL, ",".join(USUAL.split(",")[:13])):
            self.assertEqual(comparable(as_usual(text)), comparable(general(text)))

    @settings(max_examples=1500, deadline=None)
    @given(odd_reports())
    def test_same_for_odd_fields(self, text: str) -> None:
        """Whatever stands in its fields, both ways read it alike, or refuse it for the same reason."""
        self.assertEqual(comparable(as_usual(text)), comparable(general(text)))

    @settings(max_examples=300, deadline=None)
    @given(odd_reports(), st.booleans(), st.data())
    def test_same_in_a_stream(self, text: str, first: bool, data: st.DataObject) -> None:
        """So they do when it stands before or behind a usual one, in one read and cut in two anywhere."""
        texts = [text, USUAL] if first else [USUAL, text]
        stream = "".join(f"*{each}#" for each in texts).encode("latin-1")
        cut = data.draw(st.integers(1, len(stream) - 1), label="cut")
        wanted = [comparable(general(each)) for each in texts]
        self.assertEqual(wanted, [comparable(each) for each in read(stream)])
        self.assertEqual(wanted, [comparable(each) for each in read(stream[:cut], stream[cut:])])

    def test_second_is_odd(self) -> None:
        """Of two in one read the first goes the fast way, and the second the general one."""
        odd = USUAL.replace("010.25", "10.25")
        usual, other = decoder().receive(f"*{USUAL}#*{odd}#".encode(), 1.8e9)
        self.assertIsNotNone(usual.same)
        self.assertIsNone(other.same)
        self.assertEqual(comparable(general(odd)), comparable(other))

    def test_cut_in_two(self) -> None:
        """Wherever a read ends, the frame is read as it is whole, by the fast way."""
        frame = f"*{USUAL}#".encode()
        for cut in range(1, len(frame)):
            made = decoder()
            self.assertEqual([], list(made.receive(frame[:cut], 1.8e9)), cut)
            (message,) = made.receive(frame[cut:], 1.8e9)
            self.assertIsNotNone(message.same, cut)
            self.assertEqual(comparable(general(USUAL)), comparable(message))

    def test_without_a_fix(self) -> None:
        """A report without a fix goes the fast way too, and promises nothing of the next one."""
        text = USUAL.replace(",A,", ",V,")
        (message,) = decoder().receive(f"*{text}#".encode(), 1.8e9)
        self.assertIsNone(message.same)
        self.assertEqual(comparable(general(text)), comparable(message))

    def test_same_says_the_same(self) -> None:
        """Two reports share what C{same} is only when status word, cell and fix are the same."""

        def same(text: str) -> object:
            (message,) = decoder().receive(f"*{text}#".encode(), 1.8e9)
            return message.same

        self.assertIs(same(USUAL), same(USUAL.replace("2235.1234", "2236.0000").replace("173000", "173010")))
        for other in (USUAL.replace("FFFFBBFF", "FFFFBBFB"), USUAL.replace("4081", "4082"), USUAL[: -len(",4081")]):
            self.assertIsNot(same(USUAL), same(other))

    def test_levels_are_not_shared_by_change(self) -> None:
        """The levels of two reports with one status word are equal, and reading one does not change the other."""
        first, second = as_usual(USUAL), as_usual(USUAL)
        assert isinstance(first, Message)
        assert isinstance(second, Message)
        self.assertEqual(
            {"ignition": False, "sos": False}.items() & first.levels.items(), {("ignition", False), ("sos", False)}
        )
        self.assertEqual(first.levels, second.levels)
