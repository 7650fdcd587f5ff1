"""
PDUs as SMSCs send them: some sixty awkward ones, none of which drops the link, and what is read of each.

They are put together here by themselves, after the document (SMPP 3.4) and what is seen of real SMSCs, with nothing
of the codec that reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gateway.errors import NotReady
from gateway.sms.interfaces import Incoming, IPartStore, ISMSInbox, Receipt
from gateway.sms.smpp import alphabet, parts, receipts
from gateway.sms.smpp.pdus import LONGEST, PDU, Frames, FramingError, Short, message
from gateway.sms.smpp.settings import SMPPSection
from gateway.sms.smpp.transport import SMPPTransport

SENDER: Final = b"\x01\x01" + b"4915112345678\0"
US: Final = b"\x01\x01" + b"4930123456\0"
RECEIPT_TEXT: Final = (
    b"id:0123456789 sub:001 dlvrd:001 submit date:2612011200 done date:2612011201 stat:DELIVRD err:000 text:RCONF"
)


def pdu(command: int, body: bytes = b"", status: int = 0, sequence: int = 7) -> bytes:
    """A frame."""
    return struct.pack(">IIII", 16 + len(body), command, status, sequence) + body


def tlv(tag: int, value: bytes, length: int | None = None) -> bytes:
    """A parameter with a tag; C{length}: what it says of itself."""
    return struct.pack(">HH", tag, len(value) if length is None else length) + value


def body(
    text: bytes = b"SET OK",
    *,
    esm: int = 0,
    coding: int = 0,
    source: bytes = SENDER,
    destination: bytes = US,
    times: bytes = b"\0\0",
    length: int | None = None,
    more: bytes = b"",
) -> bytes:
    """The body of deliver_sm."""
    size = len(text) if length is None else length
    return b"".join(
        (b"\0", source, destination, bytes((esm, 0, 0)), times, bytes((0, 0, coding, 0, size & 0xFF)), text, more)
    )


def deliver(text: bytes = b"SET OK", **more: Any) -> bytes:
    """deliver_sm."""
    return pdu(5, body(text, **more))


def receipt(text: bytes = RECEIPT_TEXT, **more: Any) -> bytes:
    """A receipt."""
    return deliver(text, **{"esm": 4, **more})


def said(text: str, sender: str = "+4915112345678") -> list[object]:
    """A text came in."""
    return [Incoming(sender, text)]


def became(id: str, state: Any, reason: str) -> list[object]:
    """A receipt came in."""
    return [Receipt(id, state, reason)]


#: deliver_sm_resp and the rest, with the sequence number of what they answer.
TAKEN: Final = pdu(0x80000005, b"\0")
NOTHING: Final = b""

#: What is odd; the bytes; what is read of it; what it is answered.
AWKWARD: Final[Sequence[tuple[str, bytes, list[object], bytes]]] = [
    ("nothing is", deliver(), said("SET OK"), TAKEN),
    ("no zero byte behind the text, a length of one too many", deliver(b"SET OK", length=7), said("SET OK"), TAKEN),
    ("a length of nothing, and a text behind it", deliver(b"SET OK", length=0), said(""), TAKEN),
    ("a length that is too great by far", deliver(b"SET OK", length=250), said("SET OK"), TAKEN),
    ("a zero byte within the length, which is a letter of GSM", deliver(b"SET OK\0"), said("SET OK@"), TAKEN),
    ("the body ends behind the source", pdu(5, b"\0" + SENDER), said(""), TAKEN),
    ("no zero byte at the end of the source, which ends the body", pdu(5, b"\0\x01\x014915112345678"), said(""), TAKEN),
    ("no body at all", pdu(5), said("", ""), TAKEN),
    ("one octet of a body", pdu(5, b"\0"), said("", ""), TAKEN),
    ("type of number 0, no plus sign is known", deliver(source=b"\0\x00491511\0"), said("SET OK", "491511"), TAKEN),
    ("type of number 2, national", deliver(source=b"\x02\x010151123456\0"), said("SET OK", "0151123456"), TAKEN),
    ("type of number 5, a word", deliver(source=b"\x05\x00Operator\0"), said("SET OK", "Operator"), TAKEN),
    ("type of number 7, which there is not", deliver(source=b"\x07\xff491511\0"), said("SET OK", "491511"), TAKEN),
    ("international, and a plus sign as well", deliver(source=b"\x01\x01+491511\0"), said("SET OK", "+491511"), TAKEN),
    ("international, and letters", deliver(source=b"\x01\x01INFO\0"), said("SET OK", "INFO"), TAKEN),
    ("an empty source", deliver(source=b"\0\0\0"), said("SET OK", ""), TAKEN),
    ("a source of 60 digits", deliver(source=b"\x01\x01" + b"4" * 60 + b"\0"), said("SET OK", "+" + "4" * 60), TAKEN),
    ("a source that is no ASCII", deliver(source=b"\x05\x00\xe9\xff\0"), said("SET OK", "\xe9\xff"), TAKEN),
    ("an empty destination", deliver(destination=b"\0\0\0"), said("SET OK"), TAKEN),
    ("times that are none", deliver(times=b"soon\0later\0"), said("SET OK"), TAKEN),
    ("absolute times of 16 letters", deliver(times=b"261201120000000+\x00" * 2), said("SET OK"), TAKEN),
    ("a parameter of a vendor", deliver(more=tlv(0x1400, b"x" * 9)), said("SET OK"), TAKEN),
    ("a parameter that is cut off", deliver(more=tlv(0x1400, b"ab", 9)), said("SET OK"), TAKEN),
    ("half a parameter's head", deliver(more=b"\x14\x00\x00"), said("SET OK"), TAKEN),
    ("a parameter of length 0", deliver(more=tlv(0x0204, b"")), said("SET OK"), TAKEN),
    ("the same parameter twice", deliver(b"", more=tlv(0x0424, b"one") + tlv(0x0424, b"two")), said("one"), TAKEN),
    ("junk behind the parameters", deliver(more=tlv(0x1400, b"x") + b"\xff" * 5), said("SET OK"), TAKEN),
    ("the text as message_payload", deliver(b"", more=tlv(0x0424, b"SET OK")), said("SET OK"), TAKEN),
    ("a text, and message_payload too", deliver(b"SET OK", more=tlv(0x0424, b"other")), said("SET OK"), TAKEN),
    ("message_payload of 2,000 octets", deliver(b"", more=tlv(0x0424, b"x" * 2000)), said("x" * 2000), TAKEN),
    ("GSM letters that are not ASCII's", deliver(b"\x00\x02\x11\x7b\x7f"), said("@$_äà"), TAKEN),
    ("the extension of GSM", deliver(b"\x1b\x65\x1b\x14\x1b\x3c\x1b\x2f"), said("€^[\\"), TAKEN),
    ("an escape to what the extension does not have", deliver(b"\x1bA"), said("A"), TAKEN),
    ("an escape at the end", deliver(b"A\x1b"), said("A"), TAKEN),
    ("two escapes in a row", deliver(b"\x1b\x1bA"), said("\x1bA"), TAKEN),
    ("the default alphabet, and octets above 0x7F", deliver(b"caf\xe9"), said("café"), TAKEN),
    ("Latin-1", deliver(b"caf\xe9", coding=3), said("café"), TAKEN),
    ("ASCII", deliver(b"SET OK @", coding=1), said("SET OK @"), TAKEN),
    ("octets of no alphabet", deliver(b"\x80SET", coding=4), said("\x80SET"), TAKEN),
    ("UCS-2", deliver("命令".encode("utf-16-be"), coding=8), said("命令"), TAKEN),
    ("UCS-2 with a mark of its order", deliver("\ufeff命令".encode("utf-16-be"), coding=8), said("命令"), TAKEN),
    ("UCS-2 of an odd number of octets", deliver("命令".encode("utf-16-be") + b"\x00", coding=8), said("命令"), TAKEN),
    ("UCS-2 with half a surrogate pair", deliver(b"\xd8\x3d\x00A", coding=8), said("\ufffdA"), TAKEN),
    ("UCS-2 with a letter of two units", deliver("\U0001f600".encode("utf-16-be"), coding=8),
     said("\U0001f600"), TAKEN),
    ("class 0, to be shown at once", deliver(coding=0xF0), said("SET OK"), TAKEN),
    ("class 1 in 8 bits", deliver(b"caf\xe9", coding=0xF5), said("café"), TAKEN),
    ("UCS-2 with a class", deliver("命".encode("utf-16-be"), coding=0x18), said("命"), TAKEN),
    ("a message that waits, in UCS-2", deliver("命".encode("utf-16-be"), coding=0xE0), said("命"), TAKEN),
    ("an alphabet that there is not", deliver(coding=0x0C), said("SET OK"), TAKEN),
    ("a header of its own that says nothing of parts", deliver(b"\x02\x70\x00SET OK", esm=0x40), said("SET OK"), TAKEN),
    ("a header that is longer than the text", deliver(b"\x50SET OK", esm=0x40), said("PSET OK"), TAKEN),
    ("a header of length 0", deliver(b"\x00SET OK", esm=0x40), said("SET OK"), TAKEN),
    ("no text, and a header is announced", deliver(b"", esm=0x40), said(""), TAKEN),
    ("part 1 of 1", deliver(b"\x05\x00\x03\x2a\x01\x01SET OK", esm=0x40), said("SET OK"), TAKEN),
    ("part 3 of 2", deliver(b"\x05\x00\x03\x2a\x02\x03SET OK", esm=0x40), said("SET OK"), TAKEN),
    ("part 0 of 2", deliver(b"\x05\x00\x03\x2a\x02\x00SET OK", esm=0x40), said("SET OK"), TAKEN),
    ("sar_total without the others", deliver(more=tlv(0x020E, b"\x02")), said("SET OK"), TAKEN),
    ("data_sm", pdu(0x103, b"\0" + SENDER + US + b"\0\0\0" + tlv(0x0424, b"SET OK")), said("SET OK"),
     pdu(0x80000103, b"\0")),
    ("a receipt", receipt(), became("0123456789", "delivered", "DELIVRD"), TAKEN),
    ("a receipt that esm_class does not tell", receipt(esm=0), became("0123456789", "delivered", "DELIVRD"), TAKEN),
    ("a receipt in another order, with other signs",
     receipt(b"Stat=UNDELIV Err=1F2 ID=abc-9 sub=1"), became("abc-9", "failed", "UNDELIV (1F2)"), TAKEN),
    ("a receipt whose text is cut off", receipt(b"id:77 sub:001 dlvrd:000 subm"),
     became("77", "pending", "no state"), TAKEN),
    ("a receipt with parameters alone", receipt(b"", more=tlv(0x001E, b"77\0") + tlv(0x0427, b"\x03")),
     became("77", "failed", "state 3"), TAKEN),
    ("a receipt in UCS-2", receipt(RECEIPT_TEXT.decode().encode("utf-16-be"), coding=8),
     became("0123456789", "delivered", "DELIVRD"), TAKEN),
    ("a receipt with a state that there is not", receipt(b"id:77 stat:QUEUED"),
     became("77", "pending", "QUEUED"), TAKEN),
    ("a receipt of nothing", receipt(b"", more=b""), [], TAKEN),
    ("a text that only looks like a receipt", deliver(b"ID:9170225361 stat:home"),
     said("ID:9170225361 stat:home"), TAKEN),
    ("a command that there is not", pdu(0x00000777, b"abc"), [], pdu(0x80000000, b"", 3)),
    ("alert_notification", pdu(0x00000102, SENDER + US), [], pdu(0x80000000, b"", 3)),
    ("outbind", pdu(0x0000000B, b"smsc\0secret\0"), [], pdu(0x80000000, b"", 3)),
    ("enquire_link with a body", pdu(0x15, b"\0\0\0"), [], pdu(0x80000015)),
    ("enquire_link with a status", pdu(0x15, b"", 0x99), [], pdu(0x80000015)),
    ("a response to nothing", pdu(0x80000004, b"id\0", 0, 4711), [], NOTHING),
    ("a response that there is not", pdu(0x80000777, b"", 0xFFFF, 4711), [], NOTHING),
    ("generic_nack of nothing", pdu(0x80000000, b"", 0x02, 0), [], NOTHING),
    ("sequence number 0", pdu(5, body(), 0, 0), said("SET OK"), pdu(0x80000005, b"\0", 0, 0)),
    ("a sequence number beyond the document's", pdu(5, body(), 0, 0xFFFFFFFF), said("SET OK"),
     pdu(0x80000005, b"\0", 0, 0xFFFFFFFF)),
    ("a status in a request", pdu(5, body(), 0x45), said("SET OK"), TAKEN),
]  # fmt: skip


class Wire:
    """A transport: what is written to it, and whether it was cut."""

    def __init__(self) -> None:
        self.written = b""
        self.connected = True
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        self.written += data

    def take(self) -> bytes:
        """What was written since."""
        found, self.written = self.written, b""
        return found

    def loseConnection(self) -> None:
        self.abortConnection()

    def abortConnection(self) -> None:
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionDone()))


@implementer(ISMSInbox)
class Inbox:
    """Takes what comes in; C{away}: it can't be stored."""

    def __init__(self) -> None:
        self.took: list[object] = []
        self.away = False
        self.held: list[Deferred[None]] | None = None

    def received(self, incoming: object) -> Any:
        if self.away:
            raise NotReady("Redis is away")
        self.took.append(incoming)
        if self.held is not None:
            self.held.append(Deferred())
            return self.held[-1]
        return succeed(None)

    receipt = received


@implementer(IPartStore)
class Parts:
    """Keeps parts, in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[int, str]] = {}

    def part(self, key: str, number: int, total: int, text: str) -> Any:
        known = self.kept.setdefault(key, {})
        known[number] = text
        return succeed([known[n] for n in range(1, total + 1)] if len(known) == total else None)

    def forget(self, key: str) -> Any:
        self.kept.pop(key, None)
        return succeed(None)


class LinkCase(SynchronousTestCase):
    """A transport that is bound to an SMSC."""

    section = SMPPSection(address="smsc.example:2775", system_id="gateway", window=2, per_second=1000.0)
    number = "+4930123456"

    def setUp(self) -> None:
        self.clock = Clock()
        self.wires: list[Wire] = []
        #: what the next attempts to connect end as; None: they do
        self.fails: list[Exception] = []
        self.inbox, self.parts = Inbox(), Parts()
        self.transport = SMPPTransport(
            self.clock, self.section, "secret", self.number, self.connect, self.parts, lambda: 0.5
        )
        self.transport.start(self.inbox)

    def connect(self, factory: Any) -> Any:
        """The SMSC is there, or not."""
        if self.fails:
            return fail(self.fails.pop(0))
        wire = Wire()
        wire.protocol = factory.buildProtocol(None)
        self.wires.append(wire)
        wire.protocol.makeConnection(wire)
        return succeed(wire.protocol)

    @property
    def wire(self) -> Wire:
        """The newest connection."""
        return self.wires[-1]

    def asked(self) -> list[tuple[int, int, int, bytes]]:
        """What was written since: command, status, sequence number and body of each."""
        data, found = self.wire.take(), []
        while data:
            length, command, status, sequence = struct.unpack_from(">IIII", data)
            found.append((command, status, sequence, data[16:length]))
            data = data[length:]
        return found

    def answer(self, command: int, sequence: int, answer: bytes = b"id1\0", status: int = 0) -> None:
        """The SMSC answers."""
        self.wire.protocol.dataReceived(pdu(command | 0x80000000, answer, status, sequence))

    def bind(self) -> None:
        """It is bound."""
        ((command, _, sequence, _),) = self.asked()
        self.assertEqual(9, command)
        self.answer(command, sequence, b"SMSC\0")
        self.assertEqual("", self.transport.problem)


class AwkwardTests(LinkCase):
    """PDUs that are none of the document's, or nearly."""

    def test_each(self) -> None:
        """Each is read as far as it goes and answered, and the link stays."""
        self.bind()
        for what, data, read, answer in AWKWARD:
            self.wire.protocol.dataReceived(data)
            self.assertEqual(read, self.inbox.took, what)
            self.assertEqual(answer, self.wire.take(), what)
            self.assertTrue(self.wire.connected, what)
            self.inbox.took.clear()
        self.assertGreater(len(AWKWARD), 60)
        self.assertEqual([], self.flushLoggedErrors())

    def test_cut_anywhere(self) -> None:
        """However the stream is cut, it says the same."""
        self.bind()
        for data in (b"".join(one[1] for one in AWKWARD),):
            for step in (1, 2, 7, 100):
                self.inbox.took.clear()
                for at in range(0, len(data), step):
                    self.wire.protocol.dataReceived(data[at : at + step])
                self.assertEqual([said for one in AWKWARD for said in one[2]], self.inbox.took, step)

    def test_no_length(self) -> None:
        """A length that can't be one ends the link: nothing behind it can be told apart."""
        for length in (0, 15, LONGEST + 1, 0xFFFFFFFF):
            self.setUp()
            self.bind()
            self.wire.protocol.dataReceived(struct.pack(">IIII", length, 5, 0, 1))
            self.assertFalse(self.wire.connected)
            self.assertIn("can't be read", self.transport.problem)


class FramesTests(SynchronousTestCase):
    """Frames."""

    @given(st.binary(max_size=200), st.integers(1, 50))
    def test_anything(self, data: bytes, step: int) -> None:
        """Any bytes are frames or an error, and nothing else."""
        frames = Frames()
        try:
            for at in range(0, len(data), step):
                for one in frames.receive(data[at : at + step]):
                    message(one)
        except FramingError:
            pass

    @given(st.binary(max_size=300), st.sampled_from((4, 5, 0x103)))
    def test_any_body(self, data: bytes, command: int) -> None:
        """Any body is a message, which says something or is a receipt."""
        short = message(PDU(command, 0, 1, data))
        receipts.read(short)
        parts.read(short)

    def test_there_and_back(self) -> None:
        """What is submitted is read as it was."""
        short = Short("491511", "4930", b"\x00abc", 0x40, 8, {}, (1, 1), (3, 0), "000000001500000R", 1)
        self.assertEqual(short, message(PDU(4, 0, 1, short.submit())))


class TextTests(SynchronousTestCase):
    """Alphabets, and parts."""

    @given(st.text(alphabet.decode(0, bytes(range(27))) + "€[]{}^~|\\ABCäöüß", max_size=400) | st.text(max_size=200))
    def test_there_and_back(self, text: str) -> None:
        """Every text comes back from its parts; none is longer than a part can be, and no letter is parted."""
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip("\0").replace("\ufeff", "")
        cut = parts.cut(text, 7)
        read = []
        for esm_class, coding, octets in cut:
            self.assertLessEqual(len(octets), 140 if coding == 8 else 160)
            read.append(parts.read(Short(octets=octets, esm_class=esm_class, data_coding=coding)))
        self.assertEqual(text, "".join(one.text for one in read).rstrip("\0"))
        if len(cut) > 1:
            self.assertEqual([(7, len(cut), n) for n in range(1, len(cut) + 1)], [one[:3] for one in read])

    def test_alphabet(self) -> None:
        """All 127 letters of the default alphabet, and its ten more."""
        for code in [*range(27), *range(28, 128)]:
            coding, (octets,) = alphabet.encode(alphabet.decode(0, bytes((code,))))
            self.assertEqual((0, bytes((code,))), (coding, octets))
        for letter in "\f^{}\\[~]|€":
            coding, (pair,) = alphabet.encode(letter)
            self.assertEqual((0, 2, letter), (coding, len(pair), alphabet.decode(0, pair)))

    def test_lengths(self) -> None:
        """160 letters are one message, 161 are two; of UCS-2 70 and 71."""
        for text, count in (
            ("a" * 160, 1),
            ("a" * 161, 2),
            ("a" * 306, 2),
            ("a" * 307, 3),
            ("命" * 70, 1),
            ("命" * 71, 2),
        ):
            self.assertEqual(count, len(parts.cut(text, 1)), len(text))
        self.assertEqual(2, len(parts.cut("€" * 81, 1)))
        self.assertRaises(ValueError, parts.cut, "a" * 40_000, 1)

    def test_forms(self) -> None:
        """A message's name in the forms in which it may come back."""
        self.assertIn("26", receipts.forms("1a"))
        self.assertIn("1a", receipts.forms("26"))
        self.assertIn("123", receipts.forms("000123"))
        self.assertNotIn("7f", receipts.forms("7f"))
