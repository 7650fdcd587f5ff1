"""
What goes out by SMS: texts are taken from Redis, given to the transport once, and what became of them is stored.

Whoever takes a text has it alone.  What the transport says of it is kept until
Redis has it; a process that is killed before leaves the text uncertain, and an
uncertain one is never sent again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.errors import NotReady, StepRefused
from gateway.interfaces import PASSWORD
from gateway.registry import Plugin
from gateway.sinks.sms import SMSStore, Taken
from gateway.sms.interfaces import Body, Outgoing, Sent
from gateway.sms.numbers import masked
from gateway.sms.phonebook import Phonebook

#: How often texts are looked for, s.
POLL_S: Final = 0.2
#: After a text was not taken it is tried again after so long, twice as long each time, and so long at most; s.
RETRY_S: Final = 5.0
RETRY_MOST_S: Final = 300.0
#: What became of a text is stored again after so long, while Redis is away; s.
AGAIN_S: Final = 1.0
#: So many texts are under way at most: with the slowest provider the last of them goes out before its lease is over.
UNDER_WAY: Final = 16
#: So many that were sent are remembered, should Redis forget that they were.
REMEMBERED: Final = 10_000
#: A text of which that much is left at least is worth being sent, s.
LEAST_S: Final = 1.0

#: Called with a text's fields and its state: what follows for the command that it carries.
Follow = Callable[[Mapping[str, str], str], Awaitable[None]]


class Outbox:
    """Gives texts to a transport."""

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: SMSStore,
        transport: Any,
        book: Phonebook,
        plugins: Sequence[Plugin],
        counters: Counter[str],
    ) -> None:
        """@param transport: an L{gateway.sms.interfaces.ISMSTransport}."""
        self._clock = clock
        self._store = store
        self._transport = transport
        self._book = book
        self._plugins = {plugin.name: plugin for plugin in plugins if plugin.has_sms}
        self._counters = counters
        self._busy = self._stopped = False
        self._under_way: set[str] = set()
        self._remembered: OrderedDict[str, Sent] = OrderedDict()
        self._said = ""
        #: called when what became of a text is stored
        self.on_sent: Follow = _nothing

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    def stop(self) -> None:
        """Take no more."""
        self._stopped = True

    def tick(self) -> None:
        """Called every L{POLL_S}."""
        full = len(self._under_way) >= UNDER_WAY
        if self._busy or self._stopped or full or not self._store.ready:
            return
        self._busy = True
        d = Deferred.fromCoroutine(self._take())
        d.addErrback(self._failed)
        d.addBoth(self._done)

    def _done(self, _: object) -> None:
        self._busy = False

    def _failed(self, failure: Failure) -> None:
        if failure.check(NotReady):
            return
        if failure.check(StepRefused):
            text = failure.getErrorMessage()[:300]
            if text != self._said:
                self._said = text
                self.log.error("texts can't be read: Redis refuses it: {error}", error=text)
            return
        self.log.failure("texts ended in an error of our own", failure)

    async def _take(self) -> None:
        sending = not self._transport.problem
        for taken in await self._store.take(UNDER_WAY - len(self._under_way), sending):
            id = taken.fields.get("id", "")
            self._under_way.add(id)
            d = Deferred.fromCoroutine(self._see_to(id, taken))
            d.addErrback(self._lost, id)
            d.addBoth(self._over, id)

    def _over(self, _: object, id: str) -> None:
        self._under_way.discard(id)

    def _lost(self, failure: Failure, id: str) -> None:
        self.log.failure("text {id} ended in an error of our own", failure, id=id)

    async def _see_to(self, id: str, taken: Taken) -> None:
        fields = taken.fields
        if taken.what != "send":
            self._counters[f"sms_out_{taken.what}"] += 1
            await self._tell(fields, taken.what)
            return
        sent = self._remembered.get(id)  # Redis may have forgotten that it was sent
        if sent is None:
            sent = await self._send(id, fields, taken.left_s)
        if sent.outcome != "temporary":
            self._remembered[id] = sent
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        self._counters[f"sms_out_{sent.outcome}"] += 1
        attempt = fields.get("attempt", "1")
        tries = int(attempt) if attempt.isdecimal() else 1
        retry_s = max(sent.retry_s, min(RETRY_S * 2 ** min(tries - 1, 10), RETRY_MOST_S))
        if sent.outcome != "accepted":
            who = masked(fields.get("number", ""))
            self.log.warn("text {id} to {who}: {outcome}, {why}", id=id, who=who, outcome=sent.outcome, why=sent.reason)
        while True:
            try:
                state = await self._store.sent(id, attempt, sent, retry_s)
                break
            except NotReady:
                await self._pause()
        if state and state != "queued":
            await self._tell(fields, state, sent.reason)

    async def _send(self, id: str, fields: Mapping[str, str], left_s: float) -> Sent:
        template, number = fields.get("template", ""), fields.get("number", "")
        if left_s < LEAST_S:
            return Sent("temporary", reason="too little time is left to send it")
        password = ""
        if PASSWORD in template:
            try:
                password = await self._password(fields)
            except NotReady:
                return Sent("temporary", reason="Redis is away")
            except Exception as error:  # foreign code, or what applications wrote
                return Sent("rejected", reason=f"the device's password can't be had: {type(error).__name__}")
        # it may answer before it is noticed that the registry has changed
        self._book.put(fields.get("ident", ""), number)
        sent: Sent = await self._transport.send(Outgoing(id, number, Body(template, password), left_s))
        return sent

    async def _password(self, fields: Mapping[str, str]) -> str:
        registry, _ = await self._store.about(fields.get("ident", ""))
        return self._plugins[fields.get("protocol", "")].sms_password(registry)

    async def _tell(self, fields: Mapping[str, str], state: str, reason: str = "") -> None:
        while True:
            try:
                await self.on_sent({**fields, "reason": reason or fields.get("reason", "")}, state)
                return
            except NotReady:
                await self._pause()

    def _pause(self) -> Deferred[None]:
        d: Deferred[None] = Deferred()
        self._clock.callLater(AGAIN_S, d.callback, None)
        return d


async def _nothing(fields: Mapping[str, str], state: str) -> None:
    pass
