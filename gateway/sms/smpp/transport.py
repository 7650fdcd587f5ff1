"""SMPP as a transport: it stays bound to an SMSC as a transceiver, and comes back whatever happens."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.sms.interfaces import Incoming, IPartStore, ISMSInbox, ISMSTransport, Outgoing, Receipt, Sent
from gateway.sms.smpp import parts, receipts
from gateway.sms.smpp.link import Link, Unanswered
from gateway.sms.smpp.pdus import (
    BIND_TRANSCEIVER,
    OK,
    PDU,
    STATUSES,
    SUBMIT_SM,
    UNBIND,
    Short,
    bind,
    message,
    message_id,
)
from gateway.sms.smpp.settings import SMPPSection

#: A link that was lost is made anew after so long, twice as long each time, and so long at most; s.
PAUSE_S: Final = 1.0
PAUSE_MOST_S: Final = 60.0
#: One that was refused is tried again after so long at least, s.
REFUSED_S: Final = 10.0
#: After the SMSC was asked to be spared nothing is sent for so long, s.
REST_S: Final = 5.0
#: Ends within that, s.
END_S: Final = 2.0
#: So many names of messages are remembered, to know them in another form.
REMEMBERED: Final = 10_000
#: A day is 86,400 s: validity is said to the second in days and less.
VALIDITY_MOST_S: Final = 63 * 86_400
#: Statuses after which the SMSC may take the same text later: it says that it did not take it now.
TEMPORARY: Final = frozenset({0x08, 0x14, 0x58, 0x64})
_THROTTLED: Final = frozenset({0x14, 0x58})


@implementer(ISMSTransport)
class SMPPTransport:
    """
    The transport.

    @ivar problem: why nothing can be sent now.
    """

    log = Logger()
    name = "smpp"
    honours_validity = True

    def __init__(
        self,
        reactor: Any,
        section: SMPPSection,
        password: str,
        number: str,
        connect: Callable[[Any], Deferred[Any]],
        store: IPartStore,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """
        @param number: the sender of what is sent; empty: the SMSC's.
        @param connect: makes a connection of a factory.
        @param dice: 0 to 1: pauses differ, so that not everybody comes back at once.
        """
        self._reactor = reactor
        self._section = section
        self._password = password
        self._source = _source(number)
        self._connect = connect
        self._store = store
        self._dice = dice
        self.problem = "not connected yet"
        self._inbox: ISMSInbox | None = None
        self._link: Link | None = None
        self._bound = self._stopped = False
        self._pauses = 0
        self._retry: IDelayedCall | None = None
        self._window = DeferredSemaphore(section.window)
        #: when the next text may go out, seconds of the reactor's clock
        self._next = 0.0
        self._reference = int(dice() * 256)
        self._names: OrderedDict[str, str] = OrderedDict()
        self._others: dict[str, str] = {}

    # -- the link

    def start(self, inbox: ISMSInbox) -> None:
        self._inbox = inbox
        self._dial()

    def _dial(self) -> None:
        self._retry = None
        factory: Any = Factory.forProtocol(self._make)
        factory.noisy = False
        d = self._connect(factory)
        d.addCallbacks(self._connected, self._not_connected)
        d.addErrback(lambda failure: self.log.failure("SMPP ended in an error of our own", failure))

    def _make(self) -> Link:
        section = self._section
        return Link(self._reactor, section.enquire_after, section.answer_within, self._brought, self._lost)

    def _connected(self, link: Link) -> None:
        if self._stopped:
            link.abort("the gateway ends")
            return
        self._link = link
        section = self._section
        d = link.ask(BIND_TRANSCEIVER, bind(section.system_id, self._password, section.system_type))
        d.addCallbacks(self._answered, lambda failure: failure.trap(Unanswered), callbackArgs=(link,))

    def _answered(self, pdu: PDU, link: Link) -> None:
        if pdu.status != OK:
            self._pauses = max(self._pauses, 1)
            link.abort(f"it refuses to bind {self._section.system_id[:32]!r}: {_named(pdu.status)}")
            return
        self._bound, self._pauses, self.problem = True, 0, ""
        self.log.info("bound to the SMSC at {address}", address=self._section.address)

    def _not_connected(self, failure: Failure) -> None:
        self._again(f"it can't be connected to: {failure.getErrorMessage()}", 0.0)

    def _lost(self, link: Link, why: str) -> None:
        if link is not self._link:
            return
        refused = not self._bound
        self._link, self._bound = None, False
        self._again(why, REFUSED_S if refused else 0.0)

    def _again(self, why: str, least_s: float) -> None:
        """Come back after a while, a longer one each time."""
        self.problem = f"the SMSC at {self._section.address}: {why}"[:300]
        if self._stopped:
            return
        pause_s = min(PAUSE_S * 2.0**self._pauses, PAUSE_MOST_S)
        self._pauses = min(self._pauses + 1, 10)
        pause_s = max(pause_s, least_s) * (0.75 + self._dice() / 2)
        self._retry = self._reactor.callLater(min(pause_s, PAUSE_MOST_S), self._dial)

    def stop(self) -> Deferred[None]:
        self._stopped = True
        self.problem = "the gateway ends"
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        d: Deferred[None] = Deferred()
        link = self._link
        if link is None:
            d.callback(None)
            return d
        unbound: Deferred[Any] = link.ask(UNBIND)
        unbound.addTimeout(END_S, self._reactor)
        unbound.addErrback(lambda _: None)

        def end(_: object) -> None:
            link.abort("the gateway ends")
            d.callback(None)

        unbound.addCallback(end)
        return d

    # -- sending

    def send(self, outgoing: Outgoing) -> Deferred[Sent]:
        d = Deferred.fromCoroutine(self._send(outgoing, self._reactor.seconds()))
        return d.addErrback(self._bug)

    def _bug(self, failure: Failure) -> Sent:
        self.log.failure("a text ended in an error of our own", failure)
        return Sent("uncertain", reason="an error of the gateway's own; its log says more")

    async def _send(self, outgoing: Outgoing, began: float) -> Sent:
        self._reference += 1
        try:
            chunks = parts.cut(outgoing.body.render(), self._reference)
        except ValueError as error:
            return Sent("rejected", reason=str(error))
        await self._window.acquire()
        try:
            found: list[str] = []
            for esm_class, coding, octets in chunks:
                await self._turn()
                left_s = outgoing.validity_s - (self._reactor.seconds() - began)
                link = self._link
                if link is None or not self._bound or left_s < 1.0:
                    why = self.problem or "its time is over"
                    # a text of which a part went out is neither sent nor not sent
                    return Sent("uncertain" if found else "temporary", reason=why)
                short = Short(
                    *(self._source[2], outgoing.number.removeprefix("+"), octets, esm_class, coding),
                    source_kind=self._source[:2],
                    destination_kind=(1, 1),
                    validity=_validity(left_s),
                    registered=1,
                )
                try:
                    answer = await link.ask(SUBMIT_SM, short.submit())
                except Unanswered as error:
                    return Sent("uncertain", reason=str(error))
                if answer.status != OK:
                    return self._refused(answer.status, bool(found))
                found.append(self._named(message_id(answer)))
            return Sent("accepted", tuple(filter(None, found)))
        finally:
            self._window.release()

    def _refused(self, status: int, begun: bool) -> Sent:
        reason = _named(status)
        if status in _THROTTLED:
            self._next = max(self._next, self._reactor.seconds() + REST_S)
        if begun:
            return Sent("uncertain", reason=f"a part of it is sent, another one is not: {reason}")
        if status in TEMPORARY:
            return Sent("temporary", reason=reason, retry_s=REST_S if status in _THROTTLED else 0.0)
        return Sent("rejected", reason=reason)

    async def _turn(self) -> None:
        """Wait until the next text may go out."""
        now = self._reactor.seconds()
        at = max(self._next, now)
        self._next = at + 1.0 / self._section.per_second
        if at > now:
            d: Deferred[None] = Deferred()
            self._reactor.callLater(at - now, d.callback, None)
            await d

    def _named(self, id: str) -> str:
        """Remember the name of a message in each form in which a receipt may have it."""
        if id:
            self._names[id] = id
            for form in receipts.forms(id):
                self._others.setdefault(form, id)
            if len(self._names) > REMEMBERED:
                old, _ = self._names.popitem(last=False)
                for form in receipts.forms(old):
                    if self._others.get(form) == old:
                        del self._others[form]
        return id

    def _known_as(self, id: str) -> str:
        """The name that the SMSC gave, of a form of it."""
        for form in (id, id.lstrip("0")):
            if form in self._names:
                return form
            if form in self._others:
                return self._others[form]
        return id

    # -- what comes in

    def _brought(self, pdu: PDU) -> Deferred[None]:
        return Deferred.fromCoroutine(self._take(message(pdu)))

    async def _take(self, short: Short) -> None:
        inbox = self._inbox
        assert inbox is not None  # it was there before the link
        receipt = receipts.read(short)
        if receipt is not None:
            if receipt.id:
                await inbox.receipt(Receipt(self._known_as(receipt.id), receipt.state, receipt.reason))
            return
        part = parts.read(short)
        sender = f"+{short.source}" if short.source_kind[0] == 1 and short.source.isdecimal() else short.source
        if part.total == 1:
            await inbox.received(Incoming(sender, part.text))
            return
        key = f"{sender}/{part.reference}/{part.total}"
        texts = await self._store.part(key, part.number, part.total, part.text)
        if texts is not None:
            await inbox.received(Incoming(sender, "".join(texts)))
            await self._store.forget(key)


def _source(number: str) -> tuple[int, int, str]:
    """The sender's kind of number, its plan, and the number; 3GPP TS 23.040, 9.1.2.5."""
    if not number:
        return 0, 0, ""
    digits = number.removeprefix("+")
    if not (digits.isascii() and digits.isdecimal()):
        return 5, 0, number[:11]
    return (1, 1, digits) if number.startswith("+") else (3, 0, digits)


def _validity(seconds: float) -> str:
    """How long a text may be delivered from now on: C{YYMMDDhhmmss000R}, never more than it is."""
    left = int(min(seconds, VALIDITY_MOST_S))
    minutes, s = divmod(left, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    months, days = divmod(days, 30)
    return f"00{months:02d}{days:02d}{h:02d}{m:02d}{s:02d}000R"


def _named(status: int) -> str:
    return f"status {status:#x}" + (f", {STATUSES[status]}" if status in STATUSES else "")
