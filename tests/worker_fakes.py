"""What workers' parents are tried with: processes that do as a test says, a reactor that starts them, their sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet import error
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gateway.reporting import Report
from gateway.workers.wire import Entry, Word

#: Beyond what the kernel gives to a process.
FIRST_PID = 5_000_000

WHERE = ("127.0.0.1:8888",)


class FakeProcess:
    """
    A process.

    @ivar told: the lines that it was told, its setup first.
    @ivar signals: those that it got.
    @ivar lost: whether its pipes were closed.
    """

    def __init__(self, protocol: Any, pid: int, fds: Mapping[int, Any]) -> None:
        self.protocol = protocol
        self.pid = pid
        self.fds = fds
        self.told: list[bytes] = []
        self.signals: list[str] = []
        self.lost = False
        self.gone = False

    def write(self, data: bytes) -> None:
        self.told += data.splitlines()

    def signalProcess(self, name: str) -> None:
        if self.gone:
            raise error.ProcessExitedAlready()
        self.signals.append(name)

    def loseConnection(self) -> None:
        self.lost = True

    @property
    def setup(self) -> dict[str, Any]:
        """What it was told first."""
        found: dict[str, Any] = json.loads(self.told[0])
        return found

    # -- what it does

    def ready(self) -> None:
        """It has read its configuration."""
        self.protocol.outReceived(Word().line())

    def opens(self) -> None:
        """It listens."""
        self.protocol.outReceived(Word(where=WHERE).line())

    def starts(self) -> None:
        """Both."""
        self.ready()
        self.opens()

    def reports(self, problems: tuple[str, ...] = (), **counters: int) -> None:
        """It says how it does."""
        report = Report(counters, 1, 2, not problems, problems)
        self.protocol.outReceived(Word(where=WHERE, report=report).line())

    def logs(self, level: str, text: str) -> None:
        """It logs."""
        self.protocol.errReceived(Entry(level, "gateway.toy", text).line())

    def exits(self, status: int = 0) -> None:
        """It is gone, and what it had open may still be."""
        self.gone = True
        self.protocol.processExited(_reason(status))

    def ends(self, status: int = 0) -> None:
        """It is gone, with all that it had open."""
        self.exits(status)
        self.protocol.processEnded(_reason(status))


def _reason(status: int) -> Failure:
    if status:
        return Failure(error.ProcessTerminated(status, None, status))
    return Failure(error.ProcessDone(0))


class FakeReactor(Clock):
    """
    Time that passes when it is told to, and processes.

    @ivar started: all that were, in order.
    @ivar refuses: why no more can be started; None: they can.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started: list[FakeProcess] = []
        self.refuses: OSError | None = None
        self.stopped = False

    def spawnProcess(
        self, protocol: Any, executable: str, args: Any, env: Any = None, childFDs: Any = None
    ) -> FakeProcess:
        if self.refuses is not None:
            raise self.refuses
        process = FakeProcess(protocol, FIRST_PID + len(self.started), childFDs)
        self.started.append(process)
        protocol.makeConnection(process)
        return process

    def callFromThread(self, call: Any, *args: Any) -> None:
        call(*args)

    def stop(self) -> None:
        self.stopped = True


class FakeSocket:
    """A bound socket that has a number."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.backlog = 0

    def fileno(self) -> int:
        return self._number

    def listen(self, backlog: int) -> None:
        self.backlog = backlog
