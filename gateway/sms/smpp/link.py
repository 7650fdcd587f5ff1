"""One connection to an SMSC: requests with their answers, and what it asks of us."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.errors import NotReady
from gateway.sms.smpp.pdus import (
    DATA_SM,
    DELIVER_SM,
    ENQUIRE_LINK,
    GENERIC_NACK,
    INVALID_COMMAND,
    OK,
    PDU,
    RECEIVER_TEMPORARY,
    RESPONSE,
    UNBIND,
    Frames,
    FramingError,
)

#: So many messages of the SMSC may wait to be stored; what comes beyond is to be brought again.
WAITING: Final = 200
_SEQUENCE_MOST: Final = 0x7FFFFFFF


class Unanswered(NotReady):
    """The link was lost, or answered nothing in time, after a request had gone out."""


class Link(Protocol):
    """
    The connection.

    @ivar on_message: called with what the SMSC brings; what it gives has to fire before that is acknowledged.
    @ivar on_lost: called once, when the connection is gone, with the reason in words.
    """

    log = Logger()
    transport: Any

    def __init__(
        self,
        clock: IReactorTime,
        enquire_s: float,
        answer_s: float,
        on_message: Callable[[PDU], Any],
        on_lost: Callable[[Link, str], None],
    ) -> None:
        """
        @param enquire_s: after so long without a word from the SMSC it is asked whether it is there.
        @param answer_s: for so long an answer is awaited.
        """
        self._clock = clock
        self._enquire_s = enquire_s
        self._answer_s = answer_s
        self._on_message = on_message
        self._on_lost = on_lost
        self._frames = Frames()
        self._sequence = 0
        self._asked: dict[int, tuple[Deferred[PDU], IDelayedCall]] = {}
        self._waiting = 0
        self._why = ""
        self._silence: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._heard()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._silence is not None and self._silence.active():
            self._silence.cancel()
        self._silence = None
        why = self._why or reason.getErrorMessage()
        asked, self._asked = self._asked, {}
        for d, timer in asked.values():
            timer.cancel()
            d.errback(Unanswered(why))
        self._on_lost(self, why)

    # -- asking

    def ask(self, command: int, body: bytes = b"") -> Deferred[PDU]:
        """
        A request.

        @return: its answer, whatever status that has; it fails with L{Unanswered}.
        """
        d: Deferred[PDU] = Deferred()
        if self.transport is None or not self.transport.connected:
            d.errback(Unanswered(self._why or "the connection is lost"))
            return d
        self._sequence = self._sequence % _SEQUENCE_MOST + 1
        timer = self._clock.callLater(self._answer_s, self._unanswered, self._sequence)
        self._asked[self._sequence] = d, timer
        self.transport.write(PDU(command, OK, self._sequence, body).encoded)
        return d

    def _unanswered(self, sequence: int) -> None:
        d, _ = self._asked.pop(sequence)
        self.abort(f"no answer within {self._answer_s:g} s")
        d.errback(Unanswered(self._why))

    def abort(self, why: str) -> None:
        """Cut the connection."""
        self._why = self._why or why
        self.transport.abortConnection()

    # -- being told

    def dataReceived(self, data: bytes) -> None:
        self._heard()
        try:
            pdus = self._frames.receive(data)
        except FramingError as error:
            self.abort(f"what it sends can't be read: {error}")
            return
        for pdu in pdus:
            self._take(pdu)

    def _heard(self) -> None:
        if self._silence is not None and self._silence.active():
            self._silence.reset(self._enquire_s)
        else:
            self._silence = self._clock.callLater(self._enquire_s, self._enquire)

    def _enquire(self) -> None:
        self._silence = None
        self.ask(ENQUIRE_LINK).addErrback(lambda failure: failure.trap(Unanswered))

    def _take(self, pdu: PDU) -> None:
        if pdu.is_response:
            asked = self._asked.pop(pdu.sequence, None)
            if asked is not None:  # else it is to a request that is given up, or to none
                asked[1].cancel()
                asked[0].callback(pdu)
            return
        if pdu.command == ENQUIRE_LINK:
            self._answer(pdu)
        elif pdu.command == UNBIND:
            self._answer(pdu)
            self._why = "the SMSC ends the session"
            self.transport.loseConnection()
        elif pdu.command in (DELIVER_SM, DATA_SM):
            self._message(pdu)
        else:
            self._nack(pdu)

    def _nack(self, pdu: PDU) -> None:
        self.log.debug("the SMSC sends {command}, which nobody knows", command=f"{pdu.command:#010x}")
        self._write(PDU(GENERIC_NACK, INVALID_COMMAND, pdu.sequence))

    def _message(self, pdu: PDU) -> None:
        if self._waiting >= WAITING:
            self._answer(pdu, RECEIVER_TEMPORARY)
            return
        self._waiting += 1
        d = maybeDeferred(self._on_message, pdu)
        d.addCallbacks(lambda _: OK, self._not_taken)
        d.addCallback(lambda status: self._answer(pdu, status))
        d.addBoth(self._done)

    def _not_taken(self, failure: Failure) -> int:
        if not failure.check(NotReady):
            self.log.failure("what the SMSC brought ended in an error of our own", failure)
        return RECEIVER_TEMPORARY

    def _done(self, _: object) -> None:
        self._waiting -= 1

    def _answer(self, pdu: PDU, status: int = OK) -> None:
        body = b"\0" if pdu.command in (DELIVER_SM, DATA_SM) else b""
        self._write(PDU(pdu.command | RESPONSE, status, pdu.sequence, body))

    def _write(self, pdu: PDU) -> None:
        if self.transport is not None and self.transport.connected:
            self.transport.write(pdu.encoded)
