"""A worker as its parent sees it: a process that is ready, is let go, tells how it does, and ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet import defer, error
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import InvalidLogLevelError, Logger, LogLevel
from twisted.python.failure import Failure

from gateway.datadir import started
from gateway.reporting import Report
from gateway.workers.wire import GO, STOP, Entry, Lines, Setup, Word

#: So long the last words of one that is gone may take to arrive; s.
LINGER_S: Final = 1.0


class Child(ProcessProtocol):
    """
    One process.

    @ivar pid: of it; C{since}: when it was started, in ticks of the kernel.
    @ivar where: the addresses on which it listens for trackers, and C{balancers}; empty: it does not.
    @ivar report: its last one.
    @ivar heard: when it last said how it does, by the reactor's clock.
    @ivar leaving: whether it was told to end.
    @ivar why: why it ended, in its own words where it said some; empty: it has not.
    @ivar ready: fires when it has made itself ready; C{opened}: when it listens; C{ended}: when it is gone.  The first
        two fail when it ends before.
    """

    log = Logger()

    def __init__(self, reactor: Any, setup: Setup, on_open: Callable[[], None]) -> None:
        self._reactor = reactor
        self._setup = setup
        self._on_open = on_open
        self._transport: Any = None
        self._late: Any = None
        self._words, self._entries = Lines(), Lines()
        self.number = setup.worker
        self.pid = self.since = 0
        self.begun = self.heard = reactor.seconds()
        self.where: Sequence[str] = ()
        self.balancers: Sequence[str] = ()
        self.report: Report | None = None
        self.leaving = False
        self.why = ""
        self._complaint = ""
        self.ready: defer.Deferred[None] = defer.Deferred()
        self.opened: defer.Deferred[None] = defer.Deferred()
        self.ended: defer.Deferred[str] = defer.Deferred()

    # -- what it is told

    def connectionMade(self) -> None:
        self._transport = self.transport
        self.pid = self._transport.pid
        self.since = started(self.pid)
        self._transport.write(self._setup.line())

    def go(self) -> None:
        """It is its turn."""
        self.heard = self._reactor.seconds()
        self._tell(GO)

    def stop(self) -> None:
        """End, once all that was received is stored and answered."""
        self.leaving = True
        self._tell(STOP)

    def kill(self) -> None:
        """End at once."""
        self._signal("KILL")

    def _tell(self, line: bytes) -> None:
        if self._transport is not None:
            self._transport.write(line)  # what nobody reads any more is dropped

    def _signal(self, name: str) -> None:
        try:
            self._transport.signalProcess(name)
        except error.ProcessExitedAlready:
            pass

    # -- what it says

    def outReceived(self, data: bytes) -> None:
        for line in self._words.feed(data):
            try:
                word = Word.read(line)
            except ValueError:
                self.log.warn("worker {n} says what is not understood: {line}", n=self.number, line=line[:200])
                continue
            self._said(word)

    def _said(self, word: Word) -> None:
        self.heard = self._reactor.seconds()
        if not self.ready.called:
            self.ready.callback(None)
        if word.report is not None:
            self.report = word.report
        if word.where and not self.where:
            self.where, self.balancers = word.where, word.balancers
            if not self.opened.called:
                self.opened.callback(None)
            self._on_open()

    def errReceived(self, data: bytes) -> None:
        self._relay(self._entries.feed(data))

    def _relay(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            entry = Entry.read(line)
            try:
                level = LogLevel.levelWithName(entry.level)
            except InvalidLogLevelError:
                level = LogLevel.error
            if level is LogLevel.critical and not self.opened.called:  # later it goes on all the same
                self._complaint = entry.text
            Logger(entry.namespace).emit(level, "worker {n}: {text}", n=self.number, text=entry.text)

    def processExited(self, reason: Failure) -> None:
        """What it started may have its pipes and live on: that is not waited for."""
        self._late = self._reactor.callLater(LINGER_S, self._transport.loseConnection)

    def processEnded(self, reason: Failure = Failure(error.ProcessDone(0))) -> None:  # noqa: B008 (Twisted's)
        self._relay(self._entries.end())
        if self._late is not None and self._late.active():
            self._late.cancel()
        self.pid, self.where = 0, ()
        self.why = why = self._complaint or reason.getErrorMessage()
        for waited in (self.ready, self.opened):
            if not waited.called:
                waited.addErrback(lambda _: None)  # nobody may be waiting
                waited.errback(error.ConnectionLost(why))
        self.ended.callback(why)
