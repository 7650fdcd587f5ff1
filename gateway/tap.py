"""C{twistd gateway}: its options, and the one place where the parts are put together."""

from __future__ import annotations

import fcntl
import os
import resource
from pathlib import Path
from typing import Any, Final

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from gateway import config as configuration
from gateway.config import Config
from gateway.connection import Limits
from gateway.errors import ConfigError, JournalFull, StartError

#: Descriptors beside those of connections: listeners, Redis, logs.
SPARE_DESCRIPTORS: Final = 64
#: With a Redis that is not there to be asked, streams may take this much.
UNKNOWN_MEMORY: Final = 1024**3


class Options(usage.Options):
    """The few options that a first run wants; everything else stands in the configuration file."""

    synopsis = "[options]"
    longdesc = "Takes what GPS trackers send on one port and puts it onto Redis streams."
    optParameters = [
        ["config", "c", None, "TOML file (see conf/gateway.toml)"],
        ["port", "p", None, "TCP and UDP port [default: 8888]"],
        ["redis", "r", None, "redis://, rediss:// or redis+sentinel:// URL [default: the gateway runs its own]"],
        ["data-dir", "d", None, "where the gateway keeps its data [default: $XDG_STATE_HOME/gateway]"],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self.listen: list[str] = []

    def opt_listen(self, address: str) -> None:
        """HOST, HOST:PORT or [V6]:PORT to listen on, TCP and UDP each; may be given several times [default: all]"""
        self.listen.append(address)

    opt_l = opt_listen

    def parseOptions(self, options: Any = None) -> None:
        """As usage.Options, but a mistake is one line and not the whole help with the line after it."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]  # Twisted's
        except usage.UsageError as error:
            raise SystemExit(f"gateway: command line: {error} (twistd gateway --help shows the options)") from None

    def parseArgs(self, *rest: str) -> None:
        if rest:
            raise usage.UsageError(f"unexpected argument {rest[0]!r}")

    def read(self) -> Config:
        """The configuration file with what the command line says over it."""
        config = configuration.read(self["config"])
        if self["port"] is not None:
            text = self["port"]
            if not (text.isascii() and text.isdecimal()):
                raise ConfigError("option --port", f"{text!r} is not a port")
            config = config.override("gateway", "option --port", port=int(text))
        if self.listen:
            config = config.override("gateway", "option --listen", listen=tuple(self.listen))
        if self["data-dir"] is not None:
            config = config.override("gateway", "option --data-dir", data_dir=self["data-dir"])
        if self["redis"] is not None:
            config = config.override("redis", "option --redis", url=self["redis"])
        return config


def makeService(options: Options) -> IService:
    """Put the gateway together; what can't work stops here, before the reactor runs, with one line."""
    try:
        return _make(options)
    except StartError as error:
        raise SystemExit(f"gateway: {error}") from None


def _make(options: Options) -> IService:
    # imported here: twistd chooses its reactor first
    from twisted.internet import reactor

    from gateway import registry
    from gateway.clock import TimeOfDay
    from gateway.detection import Candidates
    from gateway.downlink.dispatch import Dispatcher
    from gateway.publisher import Bounds, Publisher
    from gateway.service import GatewayService
    from gateway.sessions import Sessions
    from gateway.sinks import blocking, sentinel
    from gateway.sinks.commands import CommandStore
    from gateway.sinks.confirm import Confirmation
    from gateway.sinks.connection import Layout
    from gateway.sinks.delivery import Delivery
    from gateway.sinks.embedded import EmbeddedRedis
    from gateway.sinks.journal import Journal
    from gateway.sinks.redis import STREAM_ORDER, RedisSink
    from gateway.sinks.retention import Retention, Rule
    from gateway.transports.proxy import ProxyFactory
    from gateway.transports.sockets import bind, bind_tcp
    from gateway.transports.tcp import TCPLimits, TrackerFactory
    from gateway.transports.udp import TrackerDatagrams

    config = options.read()
    where = "option --redis" if options["redis"] is not None else f"{config.where}: section [redis], key 'url'"
    plugins = registry.load(config.disable, config.device_options, config.where)
    url = sentinel.address(config.redis.url, where) if config.redis.url else None
    confirm, where_confirm = config.redis.confirm, f"{config.where}: section [redis], key 'confirm'"
    if url is None and confirm == "replica":
        raise ConfigError(where_confirm, "'replica' can't be had from the embedded Redis: it has none")
    data_dir = hold(config.data_dir)
    addresses = config.addresses
    # without IPv6 in the kernel IPv4 alone will do, unless somebody asked for it
    optional = frozenset() if config.gateway.listen else frozenset({("::", config.gateway.port)})
    sockets = bind(addresses, optional)
    proxied = bind_tcp(config.proxied, [pair.tcp for pair in sockets])
    announce: list[str] = []
    embedded = None
    if url is None:
        memory = config.streams.memory or _machine_memory() // 2
        embedded = EmbeddedRedis(data_dir, maxmemory=memory + memory // 4 + 256 * 1024**2)
        url = embedded.url
        announce.append(f"Redis: embedded, {url}; its URL with the password stands in {data_dir / 'redis.url'}")
    else:
        confirmation = None if confirm == "memory" else Confirmation(confirm, config.redis.deadline)
        able = None if confirmation is None else lambda client: confirmation.check(client, where_confirm)
        why = blocking.check(url, where, able=able)
        memory = config.streams.memory or _redis_memory(url, reachable=why is None)
        announce.append(f"Redis: {url}" + (f", not reached yet ({why}): trying again" if why else ""))
    layout = Layout(config.redis.prefix, config.instance)
    sessions = Sessions(lag_s=config.events.late_after, devices=plugins)
    limits = config.limits
    clock = TimeOfDay(reactor)
    sink = RedisSink(reactor, url, layout, deadline=config.redis.deadline, confirm=confirm)
    bounds = Bounds(
        limits.pending,
        limits.pending_bytes,
        limits.new_idents,
        limits.new_idents_per_address,
        config.redis.deadline + 5.0,
    )
    path, damaged = open_journal(data_dir, config.journal.bytes, announce)
    journal = Journal(reactor, path, config.journal.bytes)
    patience, days = config.redis.deadline, config.journal.days
    delivery = Delivery(clock, sink, journal, config.instance, patience=patience, days=days)
    publisher = Publisher(clock, delivery, sessions, bounds)
    for line in damaged:
        publisher.counters["journal_damaged"] += 1
        Logger().critical("{line}", line=line)
    rules = {
        name: Rule(getattr(config.streams, f"{name}_hours"), getattr(config.streams, f"{name}_entries"))
        for name in STREAM_ORDER
    }
    required = config.streams.required_groups
    retention = Retention(sink, layout, rules, memory, publisher.counters, required)
    store = CommandStore(lambda: sink.connection, layout, clock.seconds, reactor.seconds, lambda: sink.maxlen["result"])
    dispatcher = Dispatcher(
        clock, reactor.seconds, store, sessions, plugins, config.commands, config.instance, publisher.counters
    )
    publisher.on_begin = dispatcher.began
    connections = _descriptors(limits.connections, announce)
    connection_limits = Limits(limits.detect_bytes, limits.detect_seconds, limits.frame_bytes, limits.junk_bytes)
    tcp_limits = TCPLimits(
        connections,
        limits.connections_per_address,
        limits.idle,
        limits.idle_unlearned,
        limits.unread_seconds,
        limits.unanswered,
    )
    streams, datagrams = Candidates(plugins, "tcp"), Candidates(plugins, "udp")
    factory = TrackerFactory(clock, streams, sessions, publisher, connection_limits, tcp_limits)
    announce.append("devices: " + ", ".join(f"{p.name} ({p.origin})" for p in plugins))
    announce.append(f"data directory: {data_dir}; instance: {config.instance}")
    announce.append(f"retention: {retention.spelled()}")
    announce.append(f"commands that are sent: {', '.join(dispatcher.commands) or 'none'}")
    announce.append("mode open: every ident is taken as it comes; anybody who reaches the port can send as any device")
    if optional and len(sockets) < len(addresses):
        announce.append("this kernel has no IPv6: listening on IPv4 alone")
    service = GatewayService(
        reactor,
        clock,
        sockets=sockets,
        proxied=proxied,
        factory=factory,
        balancers=ProxyFactory(factory, config.balancers),
        datagrams=lambda: TrackerDatagrams(clock, datagrams, sessions, publisher, connection_limits),
        publisher=publisher,
        sink=sink,
        delivery=delivery,
        retention=retention,
        dispatcher=dispatcher,
        layout=layout,
        plugins=plugins,
        embedded=embedded,
        announce=announce,
    )
    sink.connect(on_ready=service.greet, on_restart=service.lost, counters=publisher.counters)
    delivery.connect(
        on_back=publisher.restore,
        on_stall=publisher.stall,
        on_lost=publisher.lost,
        on_expired=publisher.expired,
        counters=publisher.counters,
    )
    made: IService = service
    return made


def hold(data_dir: Path) -> Path:
    """
    Make the data directory and hold it as long as this process lives.

    @raise StartError: when it can't be made, or another gateway holds it.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        data_dir = data_dir.resolve()
        fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        raise StartError(f"data directory {str(data_dir)!r}: {getattr(error, 'strerror', None) or error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StartError(f"data directory {data_dir} is in use by another gateway") from error
    return data_dir  # the descriptor stays open on purpose: the lock goes with the process


def open_journal(data_dir: Path, limit: int, announce: list[str]) -> tuple[Path, list[str]]:
    """
    Look whether the journal can be used, and take over those of others in the data directory.

    @return: its path, and a line for each that was damaged.
    @raise StartError: when it can't be opened.
    """
    from gateway.sinks.journal import damage
    from gateway.sinks.journalfile import JournalFile
    from gateway.sinks.journalrows import NAME, PATTERN

    path = data_dir / NAME
    try:
        file = JournalFile(path, limit)
        for other in sorted(data_dir.glob(PATTERN)):
            if other != path:
                announce.append(f"journal: {file.adopt(other)} batches of {other.name} are taken over")
        damaged = [damage(where, saved, file.lost) for where, saved in file.set_aside]
        file.close()
    except JournalFull as error:
        raise StartError(f"journal {error}") from error
    return path, damaged


def _machine_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _redis_memory(url: Any, reachable: bool) -> int:
    """Half of the server's maxmemory, where it has one and can be asked."""
    from gateway.sinks import blocking

    if reachable:
        try:
            client = url.connect(3.0)
            ceiling = int(blocking.info(client.command("INFO", "memory")).get("maxmemory", "0"))
            client.close()
        except Exception:  # it was there a moment ago; the check has said what there is to say
            ceiling = 0
        if ceiling:
            return ceiling // 2
    return UNKNOWN_MEMORY


def _descriptors(wanted: int, announce: list[str]) -> int:
    """Raise the soft limit of open files to the hard one; how many connections that allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY or wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or wanted + SPARE_DESCRIPTORS <= hard:
        return wanted
    allowed = max(hard - SPARE_DESCRIPTORS, 1)
    announce.append(
        f"the limit of open files is {hard}: connections lowered from {wanted} to {allowed} "
        f"(cure: ulimit -Hn {wanted + SPARE_DESCRIPTORS}, or LimitNOFILE= in the systemd unit)"
    )
    return allowed
