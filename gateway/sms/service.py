"""SMS as one process of the gateway runs it: the transport, what is sent through it, and what comes in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from twisted.internet import task
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from gateway.errors import NotReady
from gateway.registry import Plugin
from gateway.sinks.sms import SMSStore
from gateway.sms.inbox import Inbox
from gateway.sms.outbox import POLL_S, Outbox
from gateway.sms.phonebook import Phonebook

#: How often it is seen whether the numbers of devices are to be read again, s.
LOOK_S: Final = 1.0


class SMS:
    """
    All of it.

    @ivar transport: an L{gateway.sms.interfaces.ISMSTransport}.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        transport: Any,
        store: SMSStore,
        book: Phonebook,
        plugins: Sequence[Plugin],
        source: str,
        lag_s: float,
        counters: Counter[str],
    ) -> None:
        self._clock = clock
        self.transport = transport
        self.inbox = Inbox(store, book, plugins, clock.seconds, source, lag_s, counters)
        self.outbox = Outbox(clock, store, transport, book, plugins, counters)
        self._book = book
        self._loops: list[task.LoopingCall] = []
        self._reading = False
        self._said = ""

    @property
    def state(self) -> dict[str, Any]:
        """What the heartbeat says: whether texts can be sent now, or why not."""
        problem = self.transport.problem
        return {"sms": problem or "ready", "sms_ready": not problem}

    def start(self) -> None:
        """Connect, listen, and send what waits."""
        self.transport.start(self.inbox)
        calls: tuple[tuple[float, Callable[[], object]], ...] = ((POLL_S, self.outbox.tick), (LOOK_S, self._look))
        for interval, call in calls:
            loop = task.LoopingCall(call)
            loop.clock = self._clock
            loop.start(interval).addErrback(self._bug)
            self._loops.append(loop)

    def stop(self) -> Deferred[None]:
        """End: what is under way comes to its end, if it does so soon."""
        for loop in self._loops:
            if loop.running:
                loop.stop()
        self.outbox.stop()
        stopped: Deferred[None] = self.transport.stop()
        return stopped

    def changed(self, idents: Iterable[str]) -> None:
        """Entries of the registry have changed."""
        self._ask(self._book.look(list(idents)))

    def _look(self) -> None:
        problem = self.transport.problem
        if problem != self._said:
            self._said = problem
            if problem:
                self.log.warn("no SMS can be sent now: {problem}", problem=problem)
            else:
                self.log.info("SMS can be sent")
        if self._book.due() and not self._reading:
            self._reading = True
            self._ask(self._book.read()).addBoth(self._read)

    def _read(self, _: object) -> None:
        self._reading = False

    def _ask(self, coroutine: Any) -> Deferred[None]:
        d: Deferred[None] = Deferred.fromCoroutine(coroutine)
        return d.addErrback(self._away)

    def _away(self, failure: Any) -> None:
        self._book.read_at = None  # all of it is read again, soon
        if not failure.check(NotReady):
            self.log.warn("the numbers of devices can't be read: {error}", error=failure.getErrorMessage()[:200])

    def _bug(self, failure: Any) -> None:
        self.log.failure("a timer ended in an error of the gateway's own", failure)


def stopped(sms: SMS | None) -> Deferred[None]:
    """End it, if there is any."""
    return succeed(None) if sms is None else sms.stop()
