"""
A worker's process: it makes itself ready, waits for its turn, and runs until it is told to stop.

Started by L{gateway.workers.supervisor}, as C{python -m gateway.workers.worker}.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import Any, Final

from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogBeginner
from zope.interface import implementer

from gateway.errors import StartError
from gateway.reporting import Report
from gateway.workers.wire import GO, STOP, Entry, Pipe, Setup, Word

#: The descriptors that it is started with.
INPUT: Final = 0
OUTPUT: Final = 1
ERRORS: Final = 2
LOCK: Final = 3
#: So long one whose parent is gone may take to end; who starts the gateway anew waits a little longer.
ALONE_S: Final = 12.0


class Told:
    """The parent is told."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._open = Word()

    def opened(self, where: Sequence[str], balancers: Sequence[str]) -> None:
        self._open = Word(where, balancers)
        self._pipe.write(self._open.line())

    def second(self, report: Report) -> None:
        self._pipe.write(self._open._replace(report=report).line())

    def minute(self, report: Report) -> None:
        pass

    def ended(self, report: Report) -> None:
        self.second(report)


@implementer(ILogObserver)
class Log:
    """An observer that hands what is logged to the parent."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._said = 0

    def __call__(self, event: LogEvent) -> None:
        level = getattr(event.get("log_level"), "name", "info")
        namespace = str(event.get("log_namespace", ""))
        if level == "debug":
            return
        text = formatEvent(event)
        if (failure := event.get("log_failure")) is not None:
            text = f"{text}\n{failure.getTraceback()}"
        if self._pipe.missing > self._said:
            missing, self._said = self._pipe.missing - self._said, self._pipe.missing
            self._pipe.write(Entry("warn", __name__, f"{missing} lines of the log are missing here").line())
        for line in text.splitlines() or [""]:
            self._pipe.write(Entry(level, namespace, line).line())


def main() -> None:
    """Run it."""
    # Ctrl-C in a terminal reaches all its processes; the parent is the one who ends them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    pipe = Pipe(os.dup(OUTPUT))
    os.dup2(ERRORS, OUTPUT)  # what a plugin prints is no word of ours
    globalLogBeginner.beginLoggingTo([Log(Pipe(ERRORS))], redirectStandardIO=False, discardBuffer=True)
    line = _line()
    if not line:
        return
    setup = Setup.read(line)
    for fd in (
        LOCK,
        *chain.from_iterable(setup.sockets),
        *setup.proxied,
        *setup.encrypted,
    ):  # what a plugin starts has no need of them
        os.set_inheritable(fd, False)
    try:
        run = _prepare(setup, pipe)
    except StartError as error:
        os.write(ERRORS, Entry("critical", "gateway.workers", str(error)).line())
        sys.exit(1)
    pipe.write(Word().line())
    if _line() == GO:
        run()


def _line() -> bytes:
    """A line of what it is told, and nothing of what follows; empty at the end."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(INPUT, 1)):
        line += byte
    return line if line.endswith(b"\n") else b""


def _prepare(setup: Setup, pipe: Pipe) -> Any:
    """Do all that can be done while another still has the work; what is returned does the rest."""
    import_module(setup.reactor).install()
    from twisted.internet import reactor

    from gateway import registry
    from gateway.assembly import Part, assemble
    from gateway.datadir import journal_name
    from gateway.errors import ConfigError
    from gateway.sinks.blocking import RedisURL
    from gateway.tap import Options, redis_of
    from gateway.transports.encrypted import Certificate
    from gateway.transports.sockets import Pair, Sockets

    options = Options()
    options.parseOptions(setup.options)
    config = options.read().override("gateway", "its parent", workers=setup.workers)
    for what, now, before in (
        ("instance", config.instance, setup.instance),
        ("data_dir", str(config.data_dir.resolve()), setup.data_dir),
    ):
        if now != before:
            raise ConfigError(config.where, f"{what} is {now!r} now and was {before!r}: that needs a new start")
    plugins = registry.load(config.disable, config.device_options, config.where)
    url = redis_of(config, options)
    if (url is None) != setup.embedded:
        raise ConfigError(config.where, "another kind of Redis than before: that needs a new start")
    data_dir = Path(setup.data_dir)
    if url is None:
        file = data_dir / "redis.url"
        url = RedisURL.parse(file.read_text().strip(), str(file))
    if setup.encrypted:
        Certificate(config.tls.certificate, config.tls.key)
    pairs = [Pair(_socket(tcp), _socket(udp)) for tcp, udp in setup.sockets]
    sockets = Sockets(pairs, [*map(_socket, setup.proxied)], [*map(_socket, setup.encrypted)])
    part = Part(setup.worker, setup.workers, sockets, url, setup.memory, data_dir / journal_name(setup.worker))

    def run() -> None:
        service = assemble(reactor, config, plugins, part, Told(pipe), quiet=not setup.announce)
        of_reactor: Any = reactor
        of_reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
        of_reactor.callWhenRunning(service.startService)
        Thread(target=_listen, args=(of_reactor,), name="parent", daemon=True).start()
        of_reactor.run()

    return run


def _socket(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    # Python does not look how a descriptor is; a duplicate of one that it takes for a blocking one would be made so
    sock.setblocking(False)
    return sock


def _listen(reactor: Any) -> None:
    """Until it is told to stop, or nobody is there any more who could tell it."""
    while (line := _line()) not in (STOP, b""):
        pass
    reactor.callFromThread(_stop, reactor)
    if not line:  # nor anybody who would kill one that hangs
        time.sleep(ALONE_S)
        os._exit(1)


def _stop(reactor: Any) -> None:
    with suppress(ReactorNotRunning):  # a signal came first
        reactor.stop()


if __name__ == "__main__":
    main()
