"""
The command C{gateway journal replay}: gives Redis what is in a journal, without a gateway.

By the way that a gateway does it: the same numbers, the same order, the same
quarantine.  Whatever stops it, what Redis has not said to have is still there.
"""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.config import Config
from gateway.errors import ConfigError, GatewayError
from gateway.places import configured
from gateway.sinks.blocking import Address, check
from gateway.sinks.journalfile import JournalFile
from gateway.sinks.journalrows import NAME, PATTERN, Content
from gateway.sinks.sentinel import address
from gateway.terminal import Fails, printable

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from gateway.sinks.delivery import Delivery
    from gateway.sinks.redis import RedisSink

#: How often a connection that is silent is looked at.
WATCH_S: Final = 1.0


@click.command()
@click.option(
    "--redis",
    "url",
    metavar="URL",
    help="redis:// or rediss:// URL, or redis+sentinel://.  [default: the configuration's]",
)
@click.option("--data-dir", metavar="DIR", help="Data directory of the gateway, which must not run.")
@click.option("--config", "path", metavar="FILE", help="Configuration of the gateway.")
@click.option("--quarantine", is_flag=True, help="Try again what Redis refused, too.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long Redis may be away.",
)
def replay(url: str | None, data_dir: str | None, path: str | None, quarantine: bool, timeout: float) -> None:
    """
    Give Redis all that waits there, while no gateway runs.

    A gateway does that by itself when it starts; this is for a journal whose gateway won't come back, say.
    Ctrl-C ends it.  Exit status 1: something is still there.
    """
    # only this command needs them, and the others are quicker without
    from twisted.internet import reactor

    from gateway.datadir import adopt_journals, hold

    try:
        config = configured(path, data_dir)
        redis = _redis(config, url)
        directory = config.data_dir
        if not directory.is_dir():
            raise Fails(f"data directory {str(directory)!r}: there is no such directory")
        if not any(directory.glob(PATTERN)):
            raise Fails(f"there is no journal in {directory}: no gateway has run there")
        directory = hold(directory).path
        check(redis, "option --redis" if url is not None else config.where)
        said: list[str] = []
        file = directory / NAME
        damaged = adopt_journals(directory, config.journal.bytes, [NAME], said)
        for line in (*said, *damaged):
            click.echo(printable(line), err=True)
        if quarantine:
            click.echo(f"out of quarantine: {_requeued(file, config):,} groups of events")
    except GatewayError as error:
        raise Fails(printable(str(error))) from error
    if _run(reactor, config, redis, file, timeout) or damaged:
        raise Fails("not all of the journal could be read: see above")


def _redis(config: Config, url: str | None) -> Address:
    if url is not None:
        return address(url, "option --redis")
    if config.redis.url:
        return address(config.redis.url, f"{config.where}: section [redis], key 'url'")
    raise ConfigError("option --redis", "is needed: an embedded Redis runs only with its gateway")


def _requeued(path: Path, config: Config) -> int:
    file = JournalFile(path, config.journal.bytes)
    try:
        return file.requeue(config.instance)
    finally:
        file.close()


def _run(reactor: Any, config: Config, redis: Any, file: Path, timeout: float) -> bool:
    """Run the reactor until it is done, and say what came of it; whether the journal turned out to be damaged."""
    from twisted.internet.defer import Deferred
    from twisted.logger import FilteringLogObserver, LogLevel, LogLevelFilterPredicate, formatEvent, globalLogBeginner

    from gateway.clock import TimeOfDay
    from gateway.sinks.connection import Layout
    from gateway.sinks.delivery import Delivery
    from gateway.sinks.journal import Journal
    from gateway.sinks.redis import RedisSink

    def say(event: Any) -> None:
        click.echo(printable(formatEvent(event)), err=True)

    warnings: Any = LogLevelFilterPredicate(LogLevel.warn)
    observer: Any = say
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(observer, [warnings])], redirectStandardIO=False, discardBuffer=True
    )
    clock = TimeOfDay(reactor)
    layout = Layout(config.redis.prefix, config.instance)
    sink = RedisSink(reactor, redis, layout, deadline=config.redis.deadline, confirm=config.redis.confirm)
    journal = Journal(reactor, file, config.journal.bytes)
    delivery = Delivery(clock, sink, journal, config.instance)
    work = Replay(reactor, sink, delivery, timeout)
    failures: list[Any] = []

    def begin() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # the reactor's own would end it at once
            signal.signal(number, lambda *_: reactor.callFromThread(work.end, "interrupted"))
        done = Deferred.fromCoroutine(work.run())
        done.addErrback(failures.append)
        done.addCallback(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    if failures:
        failures[0].raiseException()
    click.echo(f"given to {redis}: {work.told()}")
    if work.why:
        rows, frames = work.content.rows, work.content.frames
        raise Fails(f"stopped: {work.why}; {rows:,} batches with {frames:,} frames are still in the journal")
    if work.refused:
        raise Fails(f"Redis refuses {work.refused:,} groups of events for good: they are in quarantine")
    return work.damaged


class Replay:
    """
    Drains a journal.

    @ivar why: what ended it before it was done; empty: it is done.
    """

    def __init__(self, reactor: Any, sink: RedisSink, delivery: Delivery, timeout: float) -> None:
        """@param timeout: seconds that Redis may take no batches."""
        from twisted.internet.defer import Deferred

        self._reactor = reactor
        self._sink = sink
        self._delivery = delivery
        self._timeout = timeout
        self._counters: Counter[str] = Counter()
        self._ledger: Counter[str] = Counter()
        self._done: Deferred[None] = Deferred()
        self._taken = 0.0
        self.why = ""

    @property
    def content(self) -> Content:
        """What the journal holds now."""
        return self._delivery.journal.content

    @property
    def damaged(self) -> bool:
        """Whether not all of the journal could be read."""
        return bool(self._counters["journal_damaged"])

    @property
    def refused(self) -> int:
        """How much went into quarantine."""
        return self._counters["quarantined"]

    def end(self, why: str = "") -> None:
        """Stop: it is done, or something is in the way."""
        if not self._done.called:
            self.why = why
            self._done.callback(None)

    async def run(self) -> None:
        """Give all of it; fires when everything is closed again."""
        from twisted.internet.defer import succeed
        from twisted.internet.task import LoopingCall

        sink, delivery = self._sink, self._delivery

        async def nothing(connection: Any) -> None:
            pass

        sink.connect(on_ready=nothing, on_restart=lambda: None, counters=self._counters)
        delivery.connect(
            on_back=lambda: succeed(False),
            on_stall=lambda stalled: None,
            on_lost=lambda idents: None,
            on_expired=lambda frames: None,
            counters=self._counters,
        )
        # the journal is empty then
        delivery.on_direct = lambda: self._reactor.callLater(0, self.end)
        self._taken = self._reactor.seconds()
        watch = LoopingCall(self._watch)
        watch.clock = self._reactor
        watch.start(WATCH_S, now=False)
        delivery.start()
        sink.start()
        await self._done
        await self._read_ledger()
        watch.stop()  # until here it hangs up on a Redis that owes an answer
        await delivery.stop()
        await sink.stop()

    def _watch(self) -> None:
        now = self._reactor.seconds()
        self._sink.watch(now)
        if self._sink.taking:
            self._taken = now
        elif now - self._taken >= self._timeout:
            self.end(f"Redis has taken no batch for {self._timeout:g} s")

    async def _read_ledger(self) -> None:
        """What Redis says became of the frames."""
        connection = self._sink.connection
        if connection is None:
            return
        for producer in self._sink.stored:
            try:
                row = await connection.command("HGETALL", self._sink.ledger_key(producer))
                self._ledger.update({name.decode(): int(n) for name, n in zip(row[::2], row[1::2], strict=True)})
            except Exception:  # it is gone in this moment, or says nonsense: then that is not known
                return

    def told(self) -> str:
        """What was given, and what became of it as far as that is known."""
        before, now = self._delivery.earlier, self.content
        text = f"{before.rows - now.rows:,} batches with {before.frames - now.frames:,} frames"
        outcomes = [f"{name} {n:,}" for name, n in sorted(self._ledger.items()) if name != "received" and n]
        if outcomes:
            text += f" ({', '.join(outcomes)})"
        if self._counters["replayed"]:
            text += f"; {self._counters['replayed']:,} frames went under the number that they had before"
        if self._counters["already"]:
            text += f"; {self._counters['already']:,} batches were there already"
        if self._counters["quarantined"]:
            text += f"; {self._counters['quarantined']:,} refused: in quarantine"
        return text
