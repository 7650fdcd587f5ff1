"""How every process that C{twistd} starts begins: it says what it is, runs its own Redis, and opens when that runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.ledger import Beat
from gateway.reporting import Report
from gateway.sinks.embedded import EmbeddedRedis

if TYPE_CHECKING:  # twisted.web and what it needs is imported where there is a page
    from gateway.web.page import Web


class Beginning(Service):
    """
    A service that opens.

    One service and not a tree of them: a MultiService stops its children all
    at once, and Redis has to outlive the publisher.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, embedded: EmbeddedRedis | None, announce: Sequence[str], web: Web | None = None
    ) -> None:
        """
        @param embedded: the Redis that it runs; None: somebody else does.
        @param announce: what is said first.
        @param web: the page, if it serves one.
        """
        self._reactor = reactor
        self._embedded = embedded
        self._announce = announce
        self._web = web
        #: whether all of it listens, and whether it is about to end
        self.listening = self.draining = False

    @property
    def report(self) -> Report | None:
        """How the whole does; None: nobody has said anything yet."""
        raise NotImplementedError

    def beats(self) -> list[Beat]:
        """How each process does, as its heartbeat says it."""
        raise NotImplementedError

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's
        for line in self._announce:
            self.log.info("{line}", line=line)
        if self._web is not None:
            self._web.start(self)
        d = defer.succeed(None) if self._embedded is None else self._embedded.start(self._reactor)
        d.addCallback(lambda _: self._open() if self.running else None)
        d.addErrback(self._not_opened)

    def _open(self) -> None:
        """Begin to work."""
        raise NotImplementedError

    def _not_opened(self, failure: Failure) -> None:
        """Another process took the port between our bind and now, or worse: an operator has to know."""
        self.log.failure("the gateway could not be opened, ending", failure)
        self._reactor.stop()

    def _bug(self, failure: Any) -> None:
        self.log.failure("a timer ended in an error of the gateway's own", failure)
