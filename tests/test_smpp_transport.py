"""SMPP as a transport: bound to an SMSC, whatever that does; each text has one outcome, which is no guess."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError

from gateway.interfaces import PASSWORD
from gateway.sms.interfaces import Body, Incoming, Outgoing, Receipt, Sent
from gateway.sms.smpp.pdus import PDU, message
from gateway.sms.smpp.settings import SMPPSection
from tests.test_smpp_pdu import LinkCase, deliver, pdu, receipt

ENQUIRE, UNBIND, SUBMIT = 0x15, 6, 4


def text(body: str = "RCONF", validity_s: float = 900.5, password: str = "") -> Outgoing:
    """A text to be sent."""
    return Outgoing("0" * 32, "+4915112345678", Body(body, password), validity_s)


class BindTests(LinkCase):
    """The link."""

    def test_bound(self) -> None:
        """It binds as a transceiver of version 3.4."""
        ((command, status, _, body),) = self.asked()
        self.assertEqual((9, 0, b"gateway\0secret\0\0\x34\0\0\0"), (command, status, body))
        self.assertNotEqual("", self.transport.problem)

    def test_refused(self) -> None:
        """A bind that is refused is said with its reason, without the password, and tried again with pauses."""
        pauses = []
        for _ in range(8):
            ((command, _, sequence, _),) = self.asked()
            self.answer(command, sequence, b"", 0x0E)
            self.assertIn("password is invalid", self.transport.problem)
            self.assertNotIn("secret", self.transport.problem)
            made, waited = len(self.wires), 0
            while len(self.wires) == made:
                self.clock.advance(1)
                waited += 1
            pauses.append(waited)
        self.assertGreaterEqual(min(pauses), 9)
        self.assertEqual([60, 60], pauses[-2:])
        self.assertEqual([], self.flushLoggedErrors())
        self.bind()

    def test_unreachable(self) -> None:
        """An SMSC that is not there is called again, without end and with growing pauses."""
        self.bind()
        self.fails = [ConnectionRefusedError() for _ in range(20)]
        self.wire.abortConnection()
        for _ in range(1500):
            self.clock.advance(1)
            if not self.fails and len(self.wires) > 1:
                break
        self.bind()
        self.assertEqual([], self.flushLoggedErrors())

    def test_lost(self) -> None:
        """A link that is lost is made anew at once, nearly."""
        self.bind()
        self.wire.abortConnection()
        self.assertNotEqual("", self.transport.problem)
        self.clock.advance(2)
        self.assertEqual(2, len(self.wires))
        self.bind()

    def test_no_answer_to_bind(self) -> None:
        """An SMSC that says nothing is left after a while."""
        self.asked()
        self.clock.advance(10)
        self.assertFalse(self.wire.connected)
        self.clock.pump([1.0] * 30)
        self.assertGreater(len(self.wires), 1)

    def test_silence(self) -> None:
        """After a silence it is asked whether it is there; who does not answer is left."""
        self.bind()
        self.clock.advance(29)
        self.wire.protocol.dataReceived(deliver())
        self.asked()
        self.clock.advance(29)
        self.assertEqual([], self.asked())
        self.clock.advance(1)
        ((command, _, sequence, _),) = self.asked()
        self.assertEqual(ENQUIRE, command)
        self.answer(ENQUIRE, sequence, b"")
        self.clock.advance(30)
        self.assertTrue(self.wire.connected)
        self.clock.advance(10)
        self.assertFalse(self.wire.connected)
        self.assertIn("no answer within 10 s", self.transport.problem)

    def test_unbound(self) -> None:
        """An SMSC that unbinds is answered, and bound to again."""
        self.bind()
        self.wire.protocol.dataReceived(pdu(UNBIND))
        self.assertEqual([(0x80000006, 0, 7, b"")], self.asked())
        self.assertFalse(self.wire.connected)
        self.clock.pump([1.0] * 3)
        self.bind()

    def test_end(self) -> None:
        """At its end it unbinds, waits for the answer a little, and comes back no more."""
        for answered in (True, False):
            self.setUp()
            self.bind()
            d = self.transport.stop()
            ((command, _, sequence, _),) = self.asked()
            self.assertEqual(UNBIND, command)
            self.assertNoResult(d)
            if answered:
                self.answer(UNBIND, sequence, b"")
            else:
                self.clock.advance(2)
            self.successResultOf(d)
            self.assertFalse(self.wire.connected)
            self.clock.advance(1000)
            self.assertEqual(1, len(self.wires))
        self.assertEqual([], self.flushLoggedErrors())


class SendTests(LinkCase):
    """Texts that go out."""

    def sent(self, d: Deferred[Sent]) -> Sent:
        """What became of one."""
        return self.successResultOf(d)

    def test_accepted(self) -> None:
        """What the SMSC takes, under the name that it gives."""
        self.bind()
        d = self.transport.send(text("804{password} host 8888", password="0000"))
        ((command, _, sequence, body),) = self.asked()
        self.assertEqual(SUBMIT, command)
        short = message(PDU(command, 0, 1, body))
        self.assertEqual(
            ("4930123456", (1, 1), "4915112345678", (1, 1), b"8040000 host 8888", "000000001500000R", 1, 0),
            (
                *(short.source, short.source_kind, short.destination, short.destination_kind, short.octets),
                *(short.validity, short.registered, short.data_coding),
            ),
        )
        self.assertNoResult(d)
        self.answer(SUBMIT, sequence, b"4f0c\0")
        self.assertEqual(Sent("accepted", ("4f0c",)), self.sent(d))

    def test_validity(self) -> None:
        """It is never said to be more than it is."""
        self.bind()
        for seconds, said in (
            (1.9, "000000000001000R"),
            (86_400 * 40 + 61, "000110000101000R"),
            (1e9, "000203000000000R"),
        ):
            self.transport.send(text(validity_s=seconds))
            ((_, _, sequence, body),) = self.asked()
            self.assertEqual(said, message(PDU(4, 0, 1, body)).validity)
            self.answer(SUBMIT, sequence)
            self.clock.advance(0.1)
        self.assertEqual("temporary", self.sent(self.transport.send(text(validity_s=0.5))).outcome)

    def test_sources(self) -> None:
        """The sender's kind of number follows from how it is written."""
        for number, kind, source in (
            *(("+4930123456", (1, 1), "4930123456"), ("71234", (3, 0), "71234"), ("", (0, 0), "")),
            ("Gateway", (5, 0), "Gateway"),
        ):
            self.number = number
            self.setUp()
            self.bind()
            self.transport.send(text())
            ((_, _, _, body),) = self.asked()
            short = message(PDU(4, 0, 1, body))
            self.assertEqual((kind, source), (short.source_kind, short.source))

    def test_statuses(self) -> None:
        """What the SMSC did not take, for now or for good."""
        for status, outcome, retry_s in (
            *((0x58, "temporary", 5.0), (0x14, "temporary", 5.0), (0x08, "temporary", 0.0), (0x64, "temporary", 0.0)),
            *((0x0B, "rejected", 0.0), (0x45, "rejected", 0.0), (0x62, "rejected", 0.0), (0x0433, "rejected", 0.0)),
        ):
            self.setUp()
            self.bind()
            d = self.transport.send(text())
            ((_, _, sequence, _),) = self.asked()
            self.answer(SUBMIT, sequence, b"", status)
            found = self.sent(d)
            self.assertEqual((outcome, retry_s), (found.outcome, found.retry_s), hex(status))
            self.assertIn(f"{status:#x}", found.reason)

    def test_nack(self) -> None:
        """An answer that is a generic_nack is a no."""
        self.bind()
        d = self.transport.send(text())
        ((_, _, sequence, _),) = self.asked()
        self.wire.protocol.dataReceived(pdu(0x80000000, b"", 0x03, sequence))
        self.assertEqual("rejected", self.sent(d).outcome)

    def test_throttled(self) -> None:
        """Who wants to be spared is: nothing goes out for a while."""
        self.bind()
        self.transport.send(text())
        ((_, _, sequence, _),) = self.asked()
        self.answer(SUBMIT, sequence, b"", 0x58)
        self.transport.send(text())
        self.clock.advance(4.9)
        self.assertEqual([], self.asked())
        self.clock.advance(0.2)
        self.assertEqual(1, len(self.asked()))

    def test_uncertain(self) -> None:
        """A link that is lost, or an answer that does not come: the SMSC may have it."""
        self.bind()
        d = self.transport.send(text())
        self.wire.abortConnection()
        self.assertEqual("uncertain", self.sent(d).outcome)
        self.clock.pump([1.0] * 3)
        self.bind()
        d = self.transport.send(text())
        self.clock.advance(10)
        self.assertEqual("uncertain", self.sent(d).outcome)
        self.assertFalse(self.wire.connected, "what it owes an answer for it may owe for ever")

    def test_not_bound(self) -> None:
        """Without a link nothing was sent, for sure."""
        found = self.sent(self.transport.send(text()))
        self.assertEqual("temporary", found.outcome)
        self.assertNotIn("secret", found.reason)

    def test_window(self) -> None:
        """So many are under way, and the next one goes out with an answer."""
        self.bind()
        for _ in range(4):
            self.transport.send(text())
        self.clock.advance(1)
        asked = self.asked()
        self.assertEqual(2, len(asked))
        self.answer(SUBMIT, asked[0][2])
        self.clock.advance(1)
        self.assertEqual(1, len(self.asked()))

    def test_long(self) -> None:
        """A long text goes out part after part, each when the one before was taken, and has all their names."""
        self.bind()
        d = self.transport.send(text("x" * 400))
        for n in (1, 2, 3):
            ((_, _, sequence, body),) = self.asked()
            short = message(PDU(4, 0, 1, body))
            self.assertEqual((0x40, (3, n)), (short.esm_class, (short.octets[4], short.octets[5])))
            self.answer(SUBMIT, sequence, b"id%d\0" % n)
            self.clock.advance(0.1)
        self.assertEqual(Sent("accepted", ("id1", "id2", "id3")), self.sent(d))

    def test_part_refused(self) -> None:
        """A text of which a part was taken and another was not is neither sent nor not sent."""
        for fails_at, outcome in ((1, "temporary"), (2, "uncertain")):
            self.setUp()
            self.bind()
            d = self.transport.send(text("x" * 400))
            for n in range(1, fails_at + 1):
                ((_, _, sequence, _),) = self.asked()
                self.answer(SUBMIT, sequence, b"id\0", 0x58 if n == fails_at else 0)
                self.clock.advance(0.1)
            self.assertEqual(outcome, self.sent(d).outcome)

    def test_too_long(self) -> None:
        """A text of more parts than there can be is refused."""
        self.bind()
        self.assertEqual("rejected", self.sent(self.transport.send(text("x" * 50_000))).outcome)

    def test_pace(self) -> None:
        """So many a second go out."""
        self.section = SMPPSection(address="smsc.example:2775", system_id="gateway", window=50, per_second=4.0)
        self.setUp()
        self.bind()
        for _ in range(20):
            self.transport.send(text())
        count = len(self.asked())
        for _ in range(20):
            self.clock.advance(0.1)
            count += len(self.asked())
        self.assertTrue(8 <= count <= 9, count)

    def test_secret(self) -> None:
        """No password is shown by what is to be sent."""
        outgoing = text(f"940{PASSWORD}", password="4711")
        self.assertNotIn("4711", repr(outgoing) + str(outgoing.body))
        self.assertEqual("9404711", outgoing.body.render())


class ReceiveTests(LinkCase):
    """Texts that come in."""

    def test_acknowledged_when_stored(self) -> None:
        """The SMSC is answered when the text is stored, and not before."""
        self.bind()
        self.inbox.held = []
        self.wire.protocol.dataReceived(deliver())
        self.assertEqual([], self.asked())
        self.inbox.held[0].callback(None)
        self.assertEqual([(0x80000005, 0, 7, b"\0")], self.asked())

    def test_away(self) -> None:
        """What can't be stored now the SMSC is to bring again."""
        self.bind()
        self.inbox.away = True
        self.wire.protocol.dataReceived(deliver())
        self.assertEqual([(0x80000005, 0x64, 7, b"\0")], self.asked())
        self.assertEqual([], self.flushLoggedErrors())

    def test_too_many(self) -> None:
        """More than may wait are to be brought again."""
        self.bind()
        self.inbox.held = []
        self.wire.protocol.dataReceived(deliver() * 201)
        self.assertEqual([(0x80000005, 0x64, 7, b"\0")], self.asked())

    def test_parts(self) -> None:
        """Parts are acknowledged one by one, and put together in their order, whichever way they come."""
        self.bind()
        head, other = b"\x05\x00\x03\x2a\x03", b"\x06\x08\x04\x01\x2a\x02"
        for data in (
            *(deliver(head + b"\x03c", esm=0x40), deliver(other + b"\x02z", esm=0x40)),
            *(deliver(head + b"\x01a", esm=0x40), deliver(head + b"\x01a", esm=0x40)),
        ):
            self.wire.protocol.dataReceived(data)
        self.assertEqual([], self.inbox.took)
        self.assertEqual(4, len(self.asked()))
        self.wire.protocol.dataReceived(deliver(head + b"\x02b", esm=0x40))
        self.assertEqual([Incoming("+4915112345678", "abc")], self.inbox.took)
        self.wire.protocol.dataReceived(deliver(other + b"\x01y", esm=0x40))
        self.assertEqual(Incoming("+4915112345678", "yz"), self.inbox.took[-1])
        self.assertEqual({}, self.parts.kept)

    def test_parts_not_stored(self) -> None:
        """The last part of a text that can't be stored is to come again; the others are kept."""
        self.bind()
        self.wire.protocol.dataReceived(deliver(b"\x05\x00\x03\x2a\x02\x01a", esm=0x40))
        self.inbox.away = True
        self.wire.protocol.dataReceived(deliver(b"\x05\x00\x03\x2a\x02\x02b", esm=0x40))
        self.assertEqual([0, 0x64], [status for _, status, _, _ in self.asked()])
        self.inbox.away = False
        self.wire.protocol.dataReceived(deliver(b"\x05\x00\x03\x2a\x02\x02b", esm=0x40))
        self.assertEqual([Incoming("+4915112345678", "ab")], self.inbox.took)

    def test_sar(self) -> None:
        """Parts by parameters are put together as well."""
        self.bind()
        for n, letter in ((2, b"b"), (1, b"a")):
            tags = b"".join((b"\x02\x0c\x00\x02\x12\x34", b"\x02\x0e\x00\x01\x02", b"\x02\x0f\x00\x01" + bytes((n,))))
            self.wire.protocol.dataReceived(deliver(letter, more=tags))
        self.assertEqual([Incoming("+4915112345678", "ab")], self.inbox.took)

    def test_receipt_in_another_form(self) -> None:
        """A receipt that says in decimal what the answer said in hex, or with zeros before it, is of that text."""
        self.bind()
        for named, later in (
            (b"1a2b", "6699"),
            (b"000123", "123"),
            (b"ABCD", "abcd"),
            (b"77", "77"),
            (b"1001", "00001001"),
        ):
            self.asked()
            self.transport.send(text())
            ((_, _, sequence, _),) = self.asked()
            self.answer(SUBMIT, sequence, named + b"\0")
            self.clock.advance(0.1)
            self.wire.protocol.dataReceived(receipt(b"id:%b stat:DELIVRD" % later.encode()))
            self.assertEqual(Receipt(named.decode(), "delivered", "DELIVRD"), self.inbox.took[-1])
        self.asked()
