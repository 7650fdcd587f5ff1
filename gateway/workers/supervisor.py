"""
The parent of workers: it binds the sockets and keeps them, runs the gateway's own Redis, and sees to its children.

Each worker inherits a TCP and a UDP socket of each address, and so does who
comes after it: what the kernel has accepted for a socket waits there while
nobody reads, and a tracker notices nothing but a moment.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import defer, error, task
from twisted.logger import Logger, LogLevel

from gateway.beginning import Beginning
from gateway.datadir import WORKERS, DataDir, started, worker_name, write_workers
from gateway.ledger import Beat
from gateway.reporting import Log, Report, together
from gateway.sinks.embedded import EmbeddedRedis
from gateway.transports.sockets import Sockets
from gateway.workers.child import Child
from gateway.workers.wire import Setup

if TYPE_CHECKING:  # twisted.web and what it needs is imported where there is a page
    from gateway.web.page import Web

#: So long a worker may take to make itself ready, to listen, and to end; s.
READY_S: Final = 30.0
OPEN_S: Final = 60.0
END_S: Final = 12.0
#: One that says nothing for so long does nothing either, and is killed; s.
SILENT_S: Final = 60.0
#: One that ran for so long is started again at once; s.
RAN_S: Final = 10.0
#: How long it is waited before one that keeps ending is started again: at first, and at most; s.
BACKOFF_S: Final = (0.25, 10.0)
TICK_S: Final = 1.0
MINUTE_S: Final = 60.0


class NotReplaced(Exception):
    """Why a worker could not be replaced."""


class Seat:
    """
    The place of one worker.

    @ivar child: who has the work; C{next}: who waits for it.
    @ivar rolling: whether its worker is being replaced, so that nobody else has to see to it.
    @ivar failures: how often it ended in a row soon after its start.
    """

    def __init__(self, number: int, sockets: Sockets) -> None:
        self.number = number
        self.sockets = sockets
        self.child: Child | None = None
        self.next: Child | None = None
        self.rolling = False
        self.failures = 0
        self.again: Any = None


class Supervisor(Beginning):
    """C{twistd gateway} with several workers."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        sets: Sequence[Sockets],
        data_dir: DataDir,
        *,
        options: Sequence[str],
        instance: str,
        memory: int,
        embedded: EmbeddedRedis | None,
        announce: Sequence[str],
        damaged: Sequence[str],
        web: Web | None = None,
        drain_s: float = 0.0,
        on_reload: Callable[[], None] = lambda: None,
    ) -> None:
        """
        @param sets: the sockets of each worker.
        @param options: those that each worker reads the configuration by.
        @param memory: bytes that streams may take.
        @param embedded: the Redis to run; None: somebody else does.
        @param damaged: a line for each journal that was found damaged.
        @param on_reload: called when the configuration has changed.
        @param drain_s: so long it goes on listening when it is to end, and is not ready.
        """
        super().__init__(reactor, embedded, announce, web)
        self._seats = [Seat(at + 1, sockets) for at, sockets in enumerate(sets)]
        self._data_dir = data_dir
        self._options = [*options]
        self._instance = instance
        self._drain_s = drain_s
        self._on_reload = on_reload
        self._memory = memory
        self._damaged = damaged
        self._log = Log()
        self._gone: Counter[str] = Counter()
        if damaged:
            self._gone["journal_damaged"] = len(damaged)
        self._loops: list[task.LoopingCall] = []
        self._ticked = 0.0
        self._said = False
        self._unwritten = False
        self._rolling = False
        self._rolled: dict[str, Any] = {"count": 0, "outcome": "", "running": False}

    @property
    def report(self) -> Report:
        """How the whole does."""
        children = [seat.child for seat in self._seats]
        reports = [child.report for child in children if child is not None and child.report is not None]
        whole = together(reports, self._gone)
        down = [
            f"worker {seat.number} does not run" for seat in self._seats if seat.child is None or not seat.child.where
        ]
        return whole._replace(ready=whole.ready and not down, problems=[*down, *whole.problems])

    def beats(self) -> list[Beat]:
        children = [seat.child for seat in self._seats if seat.child is not None]
        return [
            child.report.beat(worker_name(self._instance, child.number))
            for child in children
            if child.report is not None
        ]

    # -- the beginning

    def startService(self) -> None:
        signal.signal(signal.SIGUSR2, lambda *_: self._reactor.callFromThread(self.roll))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reload))
        for line in self._damaged:
            self.log.critical("{line}", line=line)
        super().startService()

    def _open(self) -> None:
        for seat in self._seats:
            seat.sockets.listen()
            self._start(seat)
        for interval, call in ((TICK_S, self._tick), (MINUTE_S, self._minute)):
            loop = task.LoopingCall(call)
            loop.clock = self._reactor
            loop.start(interval, now=False).addErrback(self._bug)
            self._loops.append(loop)

    # -- workers

    def _start(self, seat: Seat) -> None:
        """Give the work to a new one, as soon as it is ready."""
        seat.again = None
        if not self.running or seat.rolling:
            return
        try:
            child = seat.child = self._spawn(seat)
        except OSError as why:  # too many processes, say
            self._start_again(seat, 0.0, f"can't be started ({why.strerror})")
            return
        child.ready.addCallbacks(lambda _: child.go(), lambda _: None)
        self._write()

    def _start_again(self, seat: Seat, ran: float, what: str) -> None:
        """Start another one, the later the more often one ended soon."""
        seat.failures = 0 if ran >= RAN_S else seat.failures + 1
        wait = min(BACKOFF_S[0] * 2 ** (seat.failures - 1), BACKOFF_S[1]) if seat.failures else 0.0
        self.log.error("worker {n} {what}, it is started again in {wait:g} s", n=seat.number, what=what, wait=wait)
        self._gone["worker_restarts"] += 1
        seat.again = self._reactor.callLater(wait, self._start, seat)

    def _spawn(self, seat: Seat) -> Child:
        """
        Start a process that makes itself ready.

        @raise OSError: when there can't be one more.
        """
        fds: dict[int, Any] = {0: "w", 1: "r", 2: "r", 3: self._data_dir.lock}

        def inherited(sock: socket.socket) -> int:
            fds[len(fds)] = sock.fileno()
            return len(fds) - 1

        sockets = [[inherited(pair.tcp), inherited(pair.udp)] for pair in seat.sockets.pairs]
        proxied = [inherited(sock) for sock in seat.sockets.proxied]
        encrypted = [inherited(sock) for sock in seat.sockets.encrypted]
        setup = Setup(
            seat.number,
            len(self._seats),
            self._options,
            self._instance,
            str(self._data_dir.path),
            self._embedded is not None,
            self._memory,
            sockets,
            proxied,
            encrypted,
            type(self._reactor).__module__,
            seat.number == 1 and not self._said,
        )
        child = Child(self._reactor, setup, self._opened)
        argv = [sys.executable, "-m", "gateway.workers.worker"]
        self._reactor.spawnProcess(child, sys.executable, argv, env=os.environ, childFDs=fds)
        child.ended.addCallback(lambda why: self._ended(seat, child, why))
        return child

    def _opened(self) -> None:
        self._write()
        there = [seat.child for seat in self._seats if seat.child is not None and seat.child.where]
        if len(there) == len(self._seats) and not self._said:
            self._said = self.listening = True
            self.log.info("{n} workers", n=len(there))
            self._log.opened(there[0].where, there[0].balancers)

    def _ended(self, seat: Seat, child: Child, why: str) -> None:
        if child.report is not None:
            self._gone.update(child.report.counters)
            child.report = None
        if child is seat.next:
            seat.next = None
        if child is seat.child:
            seat.child = None
        self._write()
        if not self.running:
            return
        if seat.rolling or seat.child is not None or seat.again is not None:  # somebody sees to it that there is one
            if not child.leaving:
                self.log.error("worker {n} ended: {why}", n=seat.number, why=why)
            return
        ran = self._reactor.seconds() - child.begun
        self._start_again(seat, ran, f"ended after {ran:.1f} s ({why})")

    # -- one after the other

    def _reload(self) -> None:
        """The configuration has changed: a new worker reads it, and so does the page."""
        self._on_reload()
        self.roll()

    def roll(self) -> None:
        """Replace the workers one by one, with no connection refused."""
        if self._rolling or not self.running or not self._loops:
            why = "they are being replaced already" if self._rolling else "the gateway begins or ends"
            self.log.warn("the workers are not replaced: {why}", why=why)
            return
        self._rolling = True
        self._rolled = {**self._rolled, "running": True, "outcome": ""}
        defer.Deferred.fromCoroutine(self._roll()).addErrback(self._bug)

    async def _roll(self) -> None:
        outcome = "an error of the gateway's own, which its log has"
        try:
            for seat in self._seats:
                await self._take_turn(seat)
            outcome = "done"
            self.log.info("all workers were replaced")
        except NotReplaced as why:
            outcome = str(why) if self.running else "the gateway ends"
            level = LogLevel.error if self.running else LogLevel.info
            self.log.emit(level, "not all workers were replaced: {outcome}", outcome=outcome)
        finally:
            self._rolling = False
            self._rolled = {"count": self._rolled["count"] + 1, "outcome": outcome, "running": False}
            self._write()

    async def _take_turn(self, seat: Seat) -> None:
        if not self.running:
            raise NotReplaced("the gateway ends")
        seat.rolling = True
        try:
            await self._replace(seat)
        finally:
            seat.rolling = False
            if seat.child is None and seat.again is None:
                self._start(seat)

    async def _replace(self, seat: Seat) -> None:
        """
        Let another have the work.

        It makes itself ready first; then the old one ends, and meanwhile what comes waits in the sockets.
        """
        if seat.again is not None:
            seat.again.cancel()
            seat.again = None
        begun = self._reactor.seconds()
        try:
            new = seat.next = self._spawn(seat)
        except OSError as why:
            raise NotReplaced(f"the new worker {seat.number} can't be started: {why.strerror}") from why
        self._write()
        await self._within(READY_S, new, new.ready, f"the new worker {seat.number} did not get ready")
        stopped = self._reactor.seconds()
        old = seat.child
        if old is not None:
            old.stop()
            await self._gone_within(END_S, old)
        if new.ended.called:
            raise NotReplaced(f"the new worker {seat.number} ended before its turn came: {new.why}")
        seat.child, seat.next = new, None
        new.go()
        await self._within(OPEN_S, new, new.opened, f"the new worker {seat.number} did not open")
        self.log.info(
            "worker {n} is replaced: {ready:.1f} s until the new one was ready, {pause:.1f} s in which neither read",
            n=seat.number,
            ready=stopped - begun,
            pause=self._reactor.seconds() - stopped,
        )

    async def _within(self, seconds: float, child: Child, d: defer.Deferred[None], problem: str) -> None:
        d.addTimeout(seconds, self._reactor)
        try:
            await d
        except (defer.TimeoutError, error.ConnectionLost) as error_:
            why = child.why or f"{seconds:g} s are over"
            child.leaving = True
            child.kill()
            raise NotReplaced(f"{problem}: {why}") from error_

    async def _gone_within(self, seconds: float, child: Child) -> None:
        """Until it is gone, the hard way where it takes too long."""
        late = self._reactor.callLater(seconds, self._too_late, child)
        gone: defer.Deferred[None] = defer.Deferred()

        def pass_on(why: str) -> str:
            gone.callback(None)
            return why

        child.ended.addCallback(pass_on)
        await gone
        if late.active():
            late.cancel()

    def _too_late(self, child: Child) -> None:
        self.log.critical("worker {n} does not end, it is killed", n=child.number)
        child.kill()

    # -- time

    def _tick(self) -> None:
        now = self._reactor.seconds()
        late, self._ticked = now - self._ticked > 5 * TICK_S, now
        if self._unwritten:
            self._write()
        for seat in self._seats:
            child = seat.child
            if child is None or not child.pid:
                continue
            if late:  # it was this process that stood still
                child.heard = now
            elif now - child.heard > SILENT_S and not child.leaving:
                self.log.critical("worker {n} says nothing for {s:g} s, it is killed", n=seat.number, s=SILENT_S)
                child.heard = now
                child.kill()

    def _minute(self) -> None:
        self._log.minute(self.report)

    def _write(self) -> None:
        """Who works here, for the command line and for whoever starts the gateway next."""
        children = [child for seat in self._seats for child in (seat.child, seat.next) if child is not None]
        content = {
            "pid": os.getpid(),
            "started": started(os.getpid()),
            "instance": self._instance,
            "workers": [
                {"worker": child.number, "pid": child.pid, "started": child.since, "open": bool(child.where)}
                for child in children
                if child.pid
            ],
            "rolled": self._rolled,
        }
        try:
            write_workers(self._data_dir.path, content)
            self._unwritten = False
        except OSError as why:  # a full disk, say: the work goes on
            if not self._unwritten:
                file = self._data_dir.path / WORKERS
                self.log.warn("{file} can't be written, trying again: {why}", file=file, why=why.strerror)
            self._unwritten = True

    # -- the end

    def stopService(self) -> defer.Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's
        return defer.Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """Let all workers publish and answer what they have, then let Redis go."""
        self.draining = True
        if self._drain_s:
            self.log.info("not ready any more: listening goes on for {s:g} s", s=self._drain_s)
            await task.deferLater(self._reactor, self._drain_s)
        for loop in self._loops:
            if loop.running:
                loop.stop()
        children = []
        for seat in self._seats:
            if seat.again is not None and seat.again.active():
                seat.again.cancel()
            children += [child for child in (seat.next, seat.child) if child is not None]
        for child in children:
            child.stop()
        gone = [self._gone_within(END_S, child) for child in children]
        await defer.gatherResults(map(defer.Deferred.fromCoroutine, gone))
        if self._embedded is not None:
            await self._embedded.stop()
        self._log.ended(together([], self._gone))
        if self._web is not None:
            await self._web.stop()
