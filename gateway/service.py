"""
The running gateway: starts its parts in order, keeps their time, and ends them in order.
"""

from __future__ import annotations

import gc
import json
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import defer, task
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from gateway.beginning import Beginning
from gateway.bounds import bounds_of
from gateway.clock import TimeOfDay
from gateway.config import Config
from gateway.downlink.dispatch import POLL_S, Dispatcher
from gateway.entries import row
from gateway.errors import StartError
from gateway.events import COLUMNS, CONTRACT_VERSION, IDENT, STREAMS
from gateway.heartbeat import Heartbeat
from gateway.histogram import SECONDS, Histogram
from gateway.ledger import Beat
from gateway.publisher import Publisher
from gateway.registry import Plugin
from gateway.reloading import changes, taken_over
from gateway.reporting import Report, Reporter
from gateway.sessions import Sessions
from gateway.sinks.connection import Layout, RedisConnection
from gateway.sinks.delivery import Delivery
from gateway.sinks.embedded import EmbeddedRedis
from gateway.sinks.groups import LOOK_S
from gateway.sinks.redis import RedisSink
from gateway.sinks.retention import Retention
from gateway.sms.service import SMS, stopped
from gateway.tracing import until
from gateway.transports.encrypted import Certificate
from gateway.transports.proxy import ProxyFactory
from gateway.transports.reading import Readers
from gateway.transports.sockets import Sockets, socket_name
from gateway.transports.tcp import TrackerFactory
from gateway.transports.udp import TrackerDatagrams

if TYPE_CHECKING:  # twisted.web and what it needs is imported where there is a page
    from gateway.web.page import Web

TICK_S: Final = 0.25
BEAT_S: Final = 5.0
MINUTE_S: Final = 60.0
#: A step of the time of day beyond this was not the passing of time.
JUMP_S: Final = 1.0
#: What was received is published within so long after the signal to end; then the gateway ends without it.
FLUSH_S: Final = 7.0
#: Notes of changed registry entries that are read at once.
NOTES: Final = 10_000
#: So many new objects make Python look for cycles of them: some thousand reports, instead of some hundred.
GC_THRESHOLD: Final = 50_000


class GatewayService(Beginning):
    """Everything that one process of the gateway runs."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        clock: TimeOfDay,
        *,
        worker: int,
        workers: int,
        sockets: Sockets,
        factory: TrackerFactory,
        balancers: ProxyFactory,
        datagrams: Callable[[], TrackerDatagrams],
        publisher: Publisher,
        sessions: Sessions,
        sink: RedisSink,
        delivery: Delivery,
        retention: Retention,
        dispatcher: Dispatcher,
        sms: SMS | None,
        config: Config,
        layout: Layout,
        plugins: Sequence[Plugin],
        detected: Sequence[Counter[str]],
        embedded: EmbeddedRedis | None,
        reporter: Reporter,
        announce: Sequence[str],
        web: Web | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        """
        @param worker: its number among C{workers}; 0: it is alone.
        @param sms: None: it has nothing to do with them.
        @param detected: how often a stream or a datagram was found to be whose.
        """
        super().__init__(reactor, embedded, announce, web)
        self._clock = clock
        self._sockets = sockets
        self._factory = factory
        self._balancers = balancers
        self._datagrams = datagrams
        self._publisher = publisher
        self._sessions = sessions
        self._sink = sink
        self._delivery = delivery
        self._retention = retention
        self._dispatcher = dispatcher
        self._sms = sms
        self._heartbeat = Heartbeat(publisher, sink, delivery, retention, layout, self._about, reactor.seconds)
        self._config = config
        self._certificate = certificate
        self._layout = layout
        self._plugins = plugins
        self._decisions = detected
        self._reporter = reporter
        self._worker = worker
        self._part = {"worker": worker, "workers": workers, "version": version("gps-gateway")}
        self._since = clock.seconds()
        self._ports: list[Any] = []
        self._udp: list[TrackerDatagrams] = []
        self._loops: list[task.LoopingCall] = []
        self._notes = "$"
        self._second = 0.0
        self._resting = False
        #: when the next tick is due, how late the last ones came, and the worst of the last second; s
        self._due = 0.0
        self._lags = Histogram(SECONDS)
        self._lag_s = self._worst_s = 0.0
        delivery.on_direct = self._heartbeat.write
        factory.on_rush = self._rest
        publisher.on_full = factory.pause
        publisher.on_room = factory.resume

    def startService(self) -> None:
        # what is here stays; and looking for cycles among waiting reports finds none, again and again
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
        super().startService()

    def _open(self) -> None:
        self._delivery.start()
        self._sink.start()
        self._sockets.listen()
        self._readers = Readers(self._reactor)
        for tcp, udp in self._sockets.pairs:
            self._listen(tcp, self._factory)
            protocol = self._datagrams()
            self._udp.append(protocol)
            protocol.listen(self._reactor, udp)
        for tcp in self._sockets.proxied:
            self._listen(tcp, self._balancers)
        for tcp in self._sockets.encrypted:
            assert self._certificate is not None  # it is read where there are such sockets
            self._listen(tcp, self._certificate.around(self._factory))
            self.log.info("listening on {where}, TCP with TLS", where=socket_name(tcp))
        where, balancers = self._sockets.names
        self._sockets.close()
        calls = (
            (TICK_S, self._tick),
            (POLL_S, self._dispatcher.tick),
            (LOOK_S, self._look),
            (BEAT_S, self._heartbeat.write),
            (MINUTE_S, self._minute),
        )
        for interval, call in calls:
            loop = task.LoopingCall(call)
            loop.clock = self._reactor
            loop.start(interval, now=interval != MINUTE_S).addErrback(self._bug)
            self._loops.append(loop)
        if self._sms is not None:
            self._sms.start()
        self.listening = True
        self._reporter.opened(where, balancers)

    def _listen(self, bound: socket.socket, factory: Factory | TLSMemoryBIOFactory) -> None:
        port = self._reactor.adoptStreamPort(bound.fileno(), bound.family, factory)
        port.reactor = self._readers  # for its connections
        self._ports.append(port)

    def _rest(self, seconds: float) -> None:
        """Connections come too fast: the next ones wait in the kernel for so long."""
        if not self._resting:
            self._resting = True
            for port in self._ports:
                self._reactor.removeReader(port)
            self._reactor.callLater(seconds, self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        for port in self._ports:
            if port.connected:
                self._reactor.addReader(port)

    # -- time

    def _tick(self) -> None:
        if abs(by := self._clock.set_by()) >= JUMP_S:
            self.log.warn("the machine's clock was set by {by:+.1f} s", by=by)
            self._factory.shift(by)
        now, elapsed = self._clock.seconds(), self._reactor.seconds()
        if self._due:
            late = max(elapsed - self._due, 0.0)
            self._lags.add(late)
            self._worst_s = max(self._worst_s, late)
        self._due = elapsed + TICK_S
        self._factory.tick(now)
        if elapsed - self._second >= 1.0:
            self._second = elapsed
            self._lag_s, self._worst_s = self._worst_s, 0.0
            self._publisher.tick(now)
            self._delivery.tick(now)
            self._sink.watch(elapsed)
            self._reporter.second(self.report)
            defer.Deferred.fromCoroutine(self._read_notes()).addErrback(self._bug)
            defer.Deferred.fromCoroutine(self._read_traces(now)).addErrback(self._bug)

    def _look(self) -> None:
        defer.Deferred.fromCoroutine(self._retention.look(self._clock.seconds())).addErrback(self._bug)

    def _minute(self) -> None:
        now = self._clock.seconds()
        defer.Deferred.fromCoroutine(self._retention.minute(now)).addErrback(self._bug)
        self._reporter.minute(self.report)

    @property
    def report(self) -> Report:
        """How it does."""
        return Report(
            self._publisher.counters,
            self._publisher.pending,
            self._factory.live,
            self._heartbeat.ready,
            self._heartbeat.problems,
            self._lag_s,
            self._heartbeat.more(),
        )

    def beats(self) -> list[Beat]:
        return [self.report.beat(self._layout.instance)]

    @property
    def _detected(self) -> Counter[str]:
        return sum(self._decisions, Counter())

    def _about(self) -> dict[str, Any]:
        """What the heartbeat says of this process."""
        publisher = self._publisher
        measured = {"wait": publisher.waits, "store": publisher.stores, "batch": publisher.sizes, "lag": self._lags}
        return {
            **self._part,
            "since": int(self._since),
            "connections": self._factory.live,
            "detected": dict(self._detected),
            **({} if self._sms is None else self._sms.state),
            "histograms": {name: histogram.shown() for name, histogram in measured.items()},
        }

    def lost(self) -> None:
        """Redis lost more than was kept: what stands there once is written again."""
        self._publisher.doubt()
        connection = self._sink.connection
        if connection is not None:
            defer.Deferred.fromCoroutine(self._state_contract(connection)).addErrback(lambda _: None)

    async def _state_contract(self, connection: RedisConnection) -> None:
        """Write what consumers check before they wait on a wrong name."""
        contract = {
            "version": CONTRACT_VERSION,
            "prefix": self._layout.prefix,
            "streams": {self._layout.key(stream): list(kinds) for stream, kinds in STREAMS.items()},
            "columns": list(COLUMNS),
            "shards": [{"tag": ""}],
            "commands": self._dispatcher.commands,
            "plugins": {plugin.name: plugin.version for plugin in self._plugins},
        }
        await connection.command("SET", self._layout.key("contract"), json.dumps(contract))

    async def greet(self, connection: RedisConnection) -> None:
        """On each new connection, before batches flow: the contract, and where notes are read from."""
        await self._state_contract(connection)
        self._dispatcher.restart()
        if self._notes == "$":
            try:
                newest = await connection.command(
                    "XREVRANGE", self._layout.key("registry", "changes"), "+", "-", "COUNT", 1
                )
                self._notes = newest[0][0].decode() if newest else "0-0"
            except Exception as error:  # a wrong type there is the applications' own affair
                self.log.warn("registry changes can't be read: {error}", error=str(error)[:200])

    async def _read_notes(self) -> None:
        """The registry entries that applications say they changed."""
        connection = self._sink.connection
        if connection is None or self._notes == "$":
            return
        key = self._layout.key("registry", "changes")
        try:
            answer = await connection.command("XREAD", "COUNT", NOTES, "STREAMS", key, self._notes)
        except Exception:  # lost, or of a wrong type: asked again in a second
            return
        for _, entries in answer or ():
            for entry_id, fields in entries:
                self._notes = entry_id.decode()
                said = row(fields)
                if not (ident := said.get("ident", "")):
                    continue
                if self._sms is not None and IDENT.fullmatch(ident):
                    self._sms.changed([ident])
                # what is not live here is read when its session begins
                if self._publisher.live(ident):
                    await self._reload(connection, ident)

    async def _read_traces(self, now: float) -> None:
        """Whose frames are to be shown."""
        connection = self._sink.connection
        if connection is None:
            return
        try:
            said = row(await connection.command("HGETALL", self._layout.key("trace")))
        except Exception:  # lost, or of a wrong type: asked again in a second
            return
        self._publisher.trace(until(said, now))

    async def _reload(self, connection: RedisConnection, ident: str) -> None:
        try:
            said = row(await connection.command("HGETALL", self._layout.key("registry", ident)))
        except Exception as error:
            self.log.warn(
                "the registry's entry of {ident} can't be read: {error}", ident=ident[:32], error=str(error)[:200]
            )
            return
        self._publisher.register(ident, said)

    # -- a changed configuration

    def reload(self, read: Callable[[], Config]) -> None:
        """
        Take over what can be of a configuration that was changed; a mistake in it changes nothing.

        @param read: reads it.
        """
        try:
            after = read()
        except StartError as error:
            self.log.error("the configuration is not reloaded: {error}", error=error)
            return
        if self._certificate is not None:
            try:
                self._certificate.reload()
            except StartError as error:
                self.log.error("the certificate is not reloaded: {error}", error=error)
        found = changes(self._config, after)
        if found.left:
            self.log.warn("needs a new start, and stays as it was: {keys}", keys=", ".join(found.left))
        if not found.taken:
            self.log.info("the configuration is reloaded: nothing changed" + (" that can be" if found.left else ""))
            return
        config = self._config = taken_over(self._config, after)
        said: list[str] = []
        bounds, connection_limits, tcp_limits = bounds_of(config, said)
        mode: Any = config.identity.mode
        self._publisher.change(bounds, mode)
        self._sessions.lag_s = config.events.late_after
        self._factory.change(connection_limits, tcp_limits)
        for udp in self._udp:
            udp.change(connection_limits, tcp_limits)
        self._dispatcher.change(config.commands)
        if self._web is not None:
            self._web.change(config)
        connection = self._sink.connection
        if connection is not None:
            defer.Deferred.fromCoroutine(self._state_contract(connection)).addErrback(lambda _: None)
        for line in said:
            self.log.info("{line}", line=line)
        self.log.info("the configuration is reloaded: {keys}", keys=", ".join(found.taken))

    # -- the end

    def stopService(self) -> defer.Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's
        return defer.Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """Listen and read no more, publish and answer what was received, then let Redis go."""
        self.draining = True
        if self._config.gateway.drain and self._worker == 0:  # of workers the parent has waited
            self.log.info("not ready any more: listening goes on for {s:g} s", s=self._config.gateway.drain)
            await task.deferLater(self._reactor, self._config.gateway.drain)
        self._dispatcher.stop()
        await stopped(self._sms)
        for port in self._ports:
            await defer.maybeDeferred(port.stopListening)
        self._balancers.close()
        self._factory.finish()
        for udp in self._udp:  # these stay open for the answers; what comes is for who inherits the socket next
            udp.finish()
        done: defer.Deferred[None] = defer.Deferred()

        def fire() -> None:
            if not done.called:
                done.callback(None)

        self._publisher.drained(fire)
        late = self._reactor.callLater(FLUSH_S, fire)
        await done
        if late.active():
            late.cancel()
        if self._publisher.pending:
            self.log.warn(
                "{n} frames could not be stored in time; they were not acknowledged", n=self._publisher.pending
            )
        for loop in self._loops:
            if loop.running:
                loop.stop()
        self._factory.close()
        self._heartbeat.end()
        # what was written to the sockets leaves with the next turns of the reactor
        await task.deferLater(self._reactor, 0.1)
        for udp in self._udp:
            udp.close()
        await self._delivery.stop()
        await self._sink.stop()
        if self._embedded is not None:
            await self._embedded.stop()
        self._reporter.ended(self.report)
        if self._web is not None:
            await self._web.stop()
