"""Puts together what one process of the gateway runs: all of it, or a worker's part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.logger import Logger

from gateway.bounds import bounds_of
from gateway.clock import TimeOfDay
from gateway.config import Config
from gateway.datadir import worker_name
from gateway.detection import Candidates
from gateway.downlink.dispatch import Dispatcher
from gateway.downlink.texting import Texting
from gateway.publisher import Publisher
from gateway.registry import Plugin
from gateway.reporting import Reporter
from gateway.service import GatewayService
from gateway.sessions import Sessions
from gateway.sinks.commands import CommandStore
from gateway.sinks.connection import Layout, source
from gateway.sinks.delivery import Delivery
from gateway.sinks.embedded import EmbeddedRedis
from gateway.sinks.journal import Journal
from gateway.sinks.redis import STREAM_ORDER, RedisSink
from gateway.sinks.retention import Retention, Rule
from gateway.sinks.sms import SMSStore
from gateway.sms.making import honours_validity, make
from gateway.sms.phonebook import Phonebook
from gateway.sms.service import SMS
from gateway.transports.encrypted import Certificate
from gateway.transports.proxy import ProxyFactory
from gateway.transports.sockets import Sockets
from gateway.transports.tcp import TrackerFactory
from gateway.transports.udp import TrackerDatagrams

if TYPE_CHECKING:  # twisted.web and what it needs is imported where there is a page
    from gateway.web.page import Web

#: What each mode of identity means to whoever starts the gateway.
LET_IN: Final = {
    "open": "every ident is taken as it comes; anybody who reaches the port can send as any device",
    "known": "what is not in the registry is turned away; an ident is no password, and easy to guess",
    "quarantine": "what is not in the registry is recorded, and neither published nor acknowledged",
}


class Part(NamedTuple):
    """
    What one process has to itself.

    @ivar worker: its number; 0: it is alone.
    @ivar workers: how many share the work.
    @ivar sockets: bound.
    @ivar url: of the Redis.
    @ivar memory: bytes that all streams may take.
    @ivar journal: its file.
    """

    worker: int
    workers: int
    sockets: Sockets
    url: Any
    memory: int
    journal: Path


def assemble(
    reactor: Any,
    config: Config,
    plugins: Sequence[Plugin],
    part: Part,
    reporter: Reporter,
    *,
    announce: Sequence[str] = (),
    damaged: Sequence[str] = (),
    embedded: EmbeddedRedis | None = None,
    quiet: bool = False,
    web: Web | None = None,
) -> GatewayService:
    """
    Make the service.

    @param config: all of it, also for a worker.
    @param reporter: who is told how it does.
    @param announce: what is said at start, before what is known here.
    @param damaged: a line for each journal that was found damaged.
    @param embedded: the Redis that this process runs; None: somebody else does.
    @param quiet: say nothing at start, as another worker says the same.
    @param web: the page, if this process serves it.
    """
    name = worker_name(config.instance, part.worker)
    if part.worker:
        config = config.part()
    told = [*announce]
    layout = Layout(config.redis.prefix, name)
    mode: Any = config.identity.mode
    sessions = Sessions(lag_s=config.events.late_after, devices=plugins, mode=mode)
    clock = TimeOfDay(reactor)
    sink = RedisSink(reactor, part.url, layout, deadline=config.redis.deadline, confirm=config.redis.confirm)
    bounds, connection_limits, tcp_limits = bounds_of(config, told)
    journal = Journal(reactor, part.journal, config.journal.bytes)
    patience, days = config.redis.deadline, config.journal.days
    delivery = Delivery(clock, sink, journal, name, patience=patience, days=days)
    publisher = Publisher(clock, delivery, sessions, bounds)
    for line in damaged:
        publisher.counters["journal_damaged"] += 1
        Logger().critical("{line}", line=line)
    rules = {
        stream: Rule(getattr(config.streams, f"{stream}_hours"), getattr(config.streams, f"{stream}_entries"))
        for stream in STREAM_ORDER
    }
    required = config.streams.required_groups
    retention = Retention(sink, layout, rules, part.memory, publisher.counters, required)
    store = CommandStore(lambda: sink.connection, layout, clock.seconds, reactor.seconds, lambda: sink.maxlen["result"])
    texts = SMSStore(lambda: sink.connection, layout, clock.seconds, sink.maxlen.__getitem__)
    texting = Texting(store, texts, plugins, config.sms, reactor.seconds, clock.seconds)
    texting.honours_validity = honours_validity(config)
    dispatcher = Dispatcher(
        clock, reactor.seconds, store, sessions, plugins, config.commands, name, publisher.counters, texting
    )
    sms = None
    if config.sms.transport and part.worker <= 1:  # one of several workers does it for all
        book = Phonebook(lambda: sink.connection, layout, config.sms.region, reactor.seconds)
        transport, lag_s = make(config, reactor, texts), config.events.late_after
        sms = SMS(clock, transport, texts, book, plugins, source(name), lag_s, publisher.counters)
        sms.outbox.on_sent = sms.inbox.on_receipt = texting.followed
        sms.inbox.awaited, sms.inbox.on_answer = texting.awaited, texting.answered
    publisher.on_begin = dispatcher.began
    dispatcher.on_told = publisher.told
    streams, datagrams = Candidates(plugins, "tcp"), Candidates(plugins, "udp")
    factory = TrackerFactory(clock, streams, sessions, publisher, connection_limits, tcp_limits)
    told.append("devices: " + ", ".join(f"{p.name} ({p.origin})" for p in plugins))
    told.append(f"retention: {retention.spelled()}")
    told.append(f"commands that are sent: {', '.join(dispatcher.commands) or 'none'}")
    told.append(f"mode {mode}: {LET_IN[mode]}")
    service = GatewayService(
        reactor,
        clock,
        worker=part.worker,
        workers=part.workers,
        sockets=part.sockets,
        factory=factory,
        balancers=ProxyFactory(factory, config.balancers),
        datagrams=lambda: TrackerDatagrams(clock, datagrams, sessions, publisher, connection_limits, tcp_limits),
        publisher=publisher,
        sessions=sessions,
        sink=sink,
        delivery=delivery,
        retention=retention,
        dispatcher=dispatcher,
        sms=sms,
        config=config,
        layout=layout,
        plugins=plugins,
        detected=[streams.decided, datagrams.decided],
        embedded=embedded,
        reporter=reporter,
        announce=() if quiet else told,
        web=web,
        certificate=Certificate(config.tls.certificate, config.tls.key) if part.sockets.encrypted else None,
    )
    sink.connect(on_ready=service.greet, on_restart=service.lost, counters=publisher.counters)
    delivery.connect(
        on_back=publisher.restore,
        on_stall=publisher.stall,
        on_lost=publisher.lost,
        on_expired=publisher.expired,
        counters=publisher.counters,
    )
    return service
