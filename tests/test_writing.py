"""Commands on a connection: alone, a second apart from every reply, and late never."""

from __future__ import annotations

from gateway.transports.tcp import TCPLimits, TrackerProtocol
from gateway.transports.writing import COMMAND_GAP_S, HOLD_S, POLL_S
from tests.test_tcp import TCPCase

COMMAND = b"<do it>"


class CommandCase(TCPCase):
    """A connection on which one report was answered, more than a second ago."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def begin(self, limits: TCPLimits | None = None) -> None:
        """Put it together."""
        self.make(limits)
        self.protocol, self.wire = self.connect()
        self.report(b"a")
        self.clock.advance(COMMAND_GAP_S)
        self.wire.clear()

    def report(self, text: bytes, protocol: TrackerProtocol | None = None) -> None:
        """A report comes and is stored: its reply may go."""
        self.say(protocol or self.protocol, b"123:" + text + b";")
        self.answer_all()

    def command(self) -> bool:
        """Write the command."""
        return self.protocol.command(COMMAND, 60.0)

    def written(self) -> bytes:
        """What the tracker was told since this was last asked."""
        data: bytes = self.wire.value()
        self.wire.clear()
        return data


class BeforeTests(CommandCase):
    """When a command may be written."""

    def test_at_once(self) -> None:
        """On a connection that was quiet for a second it goes at once, and is all that is written."""
        self.assertEqual(0.0, self.protocol.ready_in())
        self.assertTrue(self.command())
        self.assertEqual(COMMAND, self.written())

    def test_nothing_was_said_yet(self) -> None:
        """A connection on which nothing was written has not been answered a moment ago."""
        protocol, wire = self.connect(port=2)
        self.assertEqual(0.0, protocol.ready_in())
        self.assertTrue(protocol.command(COMMAND, 60.0))
        self.assertEqual(COMMAND, wire.value())

    def test_gap(self) -> None:
        """After a reply it has to wait for the rest of a second; each reply begins the second anew."""
        self.report(b"b")
        self.assertEqual(1.0, self.protocol.ready_in())
        self.assertFalse(self.command())
        self.clock.advance(0.75)
        self.assertEqual(0.25, self.protocol.ready_in())
        self.report(b"c")
        self.clock.advance(0.75)
        self.assertEqual(0.25, self.protocol.ready_in())
        self.assertFalse(self.command())
        self.assertEqual(b"toy<123:b;toy<123:c;", self.written())
        self.clock.advance(0.25)
        self.assertTrue(self.command())
        self.assertEqual(COMMAND, self.written())

    def test_quiet(self) -> None:
        """While a command waits replies do: it goes out before them, however often the device reports."""
        self.report(b"b")
        self.protocol.quiet()
        for text in (b"c", b"d", b"e", b"f"):
            self.clock.advance(0.25)
            self.report(text)
        self.assertEqual(b"toy<123:b;", self.written())
        self.assertTrue(self.command())
        self.assertEqual(COMMAND, self.written())
        self.clock.advance(COMMAND_GAP_S)
        self.assertEqual(b"toy<123:c;toy<123:d;toy<123:e;toy<123:f;", self.written())

    def test_quiet_for_nothing(self) -> None:
        """A command that does not come in the end holds replies for some seconds only."""
        self.protocol.quiet()
        self.report(b"b")
        self.clock.advance(HOLD_S - 0.1)
        self.assertEqual(b"", self.written())
        self.clock.advance(0.1)
        self.assertEqual(b"toy<123:b;", self.written())

    def test_no_reply_no_gap(self) -> None:
        """A report that is not answered yet is no reason to wait: the command is alone all the same."""
        self.say(self.protocol, b"123:b;")
        self.assertTrue(self.command())
        self.answer_all()
        self.assertEqual(COMMAND, self.written())

    def test_unsent(self) -> None:
        """It does not join what the transport has not sent yet."""
        for name in ("dataBuffer", "_tempDataBuffer"):
            self.begin()
            setattr(self.wire, name, [b"unsent"])
            self.assertEqual(POLL_S, self.protocol.ready_in())
            self.assertFalse(self.protocol.taken())
            self.assertFalse(self.command())
            setattr(self.wire, name, [])
            self.assertTrue(self.protocol.taken())
            self.assertTrue(self.command())
            self.assertEqual(COMMAND, self.written())

    def test_unread(self) -> None:
        """It is not written to who does not read."""
        self.protocol.pauseProducing()
        self.assertEqual(POLL_S, self.protocol.ready_in())
        self.assertFalse(self.command())
        self.protocol.resumeProducing()
        self.assertTrue(self.command())

    def test_one_after_the_other(self) -> None:
        """A second command waits until the silence of the first one is over."""
        self.assertTrue(self.command())
        self.assertEqual(COMMAND_GAP_S, self.protocol.ready_in())
        self.assertFalse(self.command())
        self.clock.advance(COMMAND_GAP_S)
        self.assertTrue(self.command())
        self.assertEqual(2 * COMMAND, self.written())

    def test_no_life_left(self) -> None:
        """A command whose time is over is not written."""
        for lifetime_s in (0.0, -1.0):
            self.assertFalse(self.protocol.command(COMMAND, lifetime_s))
        self.assertEqual(b"", self.written())

    def refused(self) -> None:
        """It says that it is gone, and writes nothing."""
        self.wire.clear()
        self.assertIsNone(self.protocol.ready_in())
        self.assertFalse(self.command())
        self.assertFalse(self.protocol.taken())
        self.protocol.answered()
        self.assertEqual(b"", self.written())

    def test_gone(self) -> None:
        """Nothing is written to a connection that is lost."""
        self.protocol.connectionLost()
        self.refused()

    def test_leaving(self) -> None:
        """Nor to one that waits for its last answers."""
        self.say(self.protocol, b"123:b;")
        self.protocol.readConnectionLost()
        self.refused()

    def test_gateway_ends(self) -> None:
        """Nor by a gateway that is about to end."""
        self.factory.finish()
        self.refused()

    def test_not_let_in(self) -> None:
        """Nor to one that a limit keeps out."""
        self.make(TCPLimits(connections=0))
        self.protocol, self.wire = self.connect()
        self.refused()


class AfterTests(CommandCase):
    """Replies after a command."""

    def test_held(self) -> None:
        """They wait for a second, and then go in order in one write; what comes later goes at once again."""
        self.say(self.protocol, b"123:before;")
        self.assertTrue(self.command())
        self.assertEqual(COMMAND, self.written())
        self.answer_all()
        self.report(b"b")
        self.clock.advance(0.5)
        self.report(b"c")
        self.assertEqual(b"", self.written())
        writes: list[bytes] = []
        self.patch(self.wire, "write", writes.append)
        self.clock.advance(0.5)
        self.assertEqual([b"toy<123:before;toy<123:b;toy<123:c;"], writes)
        self.report(b"d")
        self.assertEqual(b"toy<123:d;", writes[1])
        self.assertEqual(COMMAND_GAP_S, self.protocol.ready_in())

    def test_nothing_to_say(self) -> None:
        """Without any reply nothing is written when the second is over."""
        self.assertTrue(self.command())
        self.written()
        self.clock.advance(HOLD_S)
        self.assertEqual(b"", self.written())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_not_stored(self) -> None:
        """The end of the wait answers what is stored; what is not stored yet is answered when it is."""
        self.assertTrue(self.command())
        self.report(b"b")
        self.say(self.protocol, b"123:c;")
        self.written()
        self.clock.advance(COMMAND_GAP_S)
        self.assertEqual(b"toy<123:b;", self.written())
        self.answer_all()
        self.assertEqual(b"toy<123:c;", self.written())

    def unacknowledged(self) -> None:
        """A command was written that the peer does not acknowledge, and a report was stored after it."""
        self.assertTrue(self.command())
        self.wire.dataBuffer = COMMAND
        self.report(b"b")
        self.written()

    def advance(self, seconds: float) -> None:
        """Time passes, bit by bit."""
        for _ in range(round(seconds * 20)):
            self.clock.advance(0.05)

    def test_until_acknowledged(self) -> None:
        """They wait on while the command is not acknowledged, and go soon after it is."""
        self.unacknowledged()
        self.advance(3.0)
        self.assertEqual(b"", self.written())
        self.assertEqual(POLL_S, self.protocol.ready_in())
        self.wire.dataBuffer = b""
        self.advance(2 * POLL_S)
        self.assertEqual(b"toy<123:b;", self.written())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_no_longer(self) -> None:
        """They do not wait for more than 5 s: the tracker would send everything again."""
        self.unacknowledged()
        self.advance(HOLD_S - 0.1)
        self.assertEqual(b"", self.written())
        self.advance(0.2)
        self.assertEqual(b"toy<123:b;", self.written())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_others(self) -> None:
        """Nobody else's replies wait."""
        other, other_wire = self.connect(port=2)
        self.assertTrue(self.command())
        self.report(b"b", other)
        self.assertEqual(b"toy<123:b;", other_wire.value())

    def test_crowded(self) -> None:
        """Frames whose replies wait count as unanswered: their connection is not read for that long, and then is."""
        self.begin(TCPLimits(unanswered=2))
        self.assertTrue(self.command())
        for text in (b"b", b"c", b"d"):
            self.report(text)
        self.assertFalse(self.wire.reading)
        self.assertEqual(1, self.counted("paused_unanswered"))
        self.written()
        self.clock.advance(COMMAND_GAP_S)
        self.assertTrue(self.wire.reading)
        self.assertEqual(b"toy<123:b;toy<123:c;toy<123:d;", self.written())


class EndTests(CommandCase):
    """Connections that end in the silence after a command."""

    def setUp(self) -> None:
        super().setUp()
        self.assertTrue(self.command())
        self.report(b"b")
        self.say(self.protocol, b"123:c;")
        self.written()

    def assert_answered(self) -> None:
        """All is answered, at once, and the connection is closed then."""
        self.assertEqual(b"toy<123:b;", self.written())
        self.assertFalse(self.wire.disconnecting)
        self.answer_all()
        self.assertEqual(b"toy<123:c;", self.written())
        self.assertTrue(self.wire.disconnecting)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_half_closed(self) -> None:
        """A tracker that says no more is answered without any wait."""
        self.protocol.readConnectionLost()
        self.assert_answered()

    def test_gateway_ends(self) -> None:
        """So are all when the gateway ends."""
        self.factory.finish()
        self.factory.close()
        self.assert_answered()

    def test_lost(self) -> None:
        """Nothing is left of one that is lost."""
        self.protocol.connectionLost()
        self.wire.connected = False
        self.clock.advance(HOLD_S)
        self.answer_all()
        self.assertEqual(b"", self.written())

    def test_cut_off(self) -> None:
        """One that is cut off is dropped with what is unsent; what it had sent is stored."""
        self.protocol.cut_off("the command is too old")
        self.assertTrue(self.wire.aborted)
        self.assertIsNone(self.protocol.ready_in())
        self.clock.advance(HOLD_S)
        self.answer_all()
        self.assertEqual(b"", self.written())
        self.assertEqual(3, self.counted("published"))
        self.assertEqual([], self.clock.getDelayedCalls())
        self.protocol.cut_off("once more")


class CloseTests(CommandCase):
    """A connection that is cut off while nothing is held."""

    def test_cut_off(self) -> None:
        """It is dropped at once, and its broken frame is recorded."""
        self.say(self.protocol, b"123:b")
        self.protocol.cut_off("the command is too old")
        self.clock.advance(0)
        self.answer_all()
        self.assertTrue(self.wire.aborted)
        self.assertEqual(1, self.counted("undecodable"))
