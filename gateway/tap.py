"""C{twistd gateway}: its options, and what has to be there before the reactor runs."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from gateway import config as configuration
from gateway.config import Config, WebSection
from gateway.datadir import adopt_journals, hold, journal_name
from gateway.errors import ConfigError, StartError

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
        ["workers", "w", None, "processes that share the work, or auto: one a CPU [default: 1]"],
        ["web", None, None, "HOST:PORT of the operator's page, or off [default: 127.0.0.1:8889]"],
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
        if self["web"] is not None:
            config = config.override("web", "option --web", listen=self["web"])
        if self["workers"] is not None:
            text = self["workers"]
            if text != "auto" and not (text.isascii() and text.isdecimal()):
                raise ConfigError("option --workers", f"{text!r} is neither a number nor auto")
            workers = 0 if text == "auto" else int(text)
            config = config.override("gateway", "option --workers", workers=workers)
        return config

    def words(self) -> list[str]:
        """The options again, for a process that runs elsewhere."""
        words = [word for address in self.listen for word in ("--listen", address)]
        for name in ("port", "redis", "workers"):
            if self[name] is not None:
                words += [f"--{name}", self[name]]
        for name in ("config", "data-dir"):
            if self[name] is not None:
                words += [f"--{name}", os.path.abspath(self[name])]
        return words


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
    from gateway.assembly import Part, assemble
    from gateway.reporting import Log
    from gateway.sms.making import check as check_sms
    from gateway.transports.encrypted import Certificate
    from gateway.transports.sockets import bind
    from gateway.workers.supervisor import Supervisor

    # it would end the process; where there are workers, their parent takes it over
    signal.signal(signal.SIGUSR2, lambda *_: reactor.callFromThread(_no_workers))  # type: ignore[attr-defined]
    config = options.read()
    plugins = registry.load(config.disable, config.device_options, config.where)
    check_sms(config)
    address = redis_of(config, options)
    data_dir = hold(config.data_dir)
    addresses, workers = config.addresses, config.workers
    # without IPv6 in the kernel IPv4 alone will do, unless somebody asked for it
    optional = frozenset() if config.gateway.listen else frozenset({("::", config.gateway.port)})
    if config.encrypted:
        Certificate(config.tls.certificate, config.tls.key)  # whoever listens reads it again
    sets = [_activated()] if config.activated else bind(addresses, optional, config.proxied, workers, config.encrypted)
    announce: list[str] = []
    store = _store(config, options, address, data_dir.path, announce)
    names = [journal_name(number) for number in (range(1, workers + 1) if workers > 1 else (0,))]
    damaged = adopt_journals(data_dir.path, config.journal.bytes, names, announce)
    announce.append(f"data directory: {data_dir.path}; instance: {config.instance}")
    if optional and len(sets[0].pairs) < len(addresses):
        announce.append("this kernel has no IPv6: listening on IPv4 alone")
    web = _web(reactor, config, plugins, store.url, announce)
    made: IService
    if workers > 1:
        made = Supervisor(
            reactor,
            sets,
            data_dir,
            options=options.words(),
            instance=config.instance,
            memory=store.memory,
            embedded=store.embedded,
            announce=announce,
            damaged=damaged,
            web=web,
            drain_s=config.gateway.drain,
            on_reload=_refreshing(web, options),
        )
    else:
        part = Part(0, 1, sets[0], store.url, store.memory, data_dir.path / names[0])
        made = assemble(
            reactor,
            config,
            plugins,
            part,
            Log(),
            announce=announce,
            damaged=damaged,
            embedded=store.embedded,
            web=web,
        )
        signal.signal(signal.SIGHUP, _reloading(reactor, made, options))
    return made


def _web(reactor: Any, config: Config, plugins: Any, address: Any, announce: list[str]) -> Any:
    """The page, unless there is to be none; where nobody has asked for its address, it may be in use."""
    from time import time

    from gateway.transports.sockets import bind_page, socket_name
    from gateway.web.access import token
    from gateway.web.page import Web

    where = config.page
    if where is None:
        return None
    try:
        sock = bind_page(*where)
    except (OSError, StartError) as error:
        if config.web.listen != WebSection().listen:
            raise StartError(f"the operator's page: {error}") from error
        announce.append(f"no operator's page: {config.web.listen} is in use (--web HOST:PORT names another)")
        return None
    file = config.token_file
    secret = token(file)
    shown = socket_name(sock)
    announce.append(f"operator's page: http://{shown}/; its token stands in {file} (gateway page shows both)")
    if not ip_address(sock.getsockname()[0]).is_loopback:
        announce.append(f"the page on {shown} is not encrypted: who can read the network can read its token")
    return Web(reactor, config, plugins, address, sock, secret, time)


def _refreshing(web: Any, options: Options) -> Any:
    """Has the page of workers know of a configuration that has changed; whether it can be used the workers say."""

    def refresh() -> None:
        if web is not None:
            with suppress(StartError):
                web.change(options.read())

    return refresh


def _activated() -> Any:
    """The sockets that systemd hands over."""
    # Twisted takes what systemd says of them out of the environment when it is imported, and has no public name for it
    from twisted.internet.endpoints import _SystemdParser

    from gateway.transports.sockets import inherited

    return inherited(_SystemdParser._sddaemon.inheritedDescriptors())


def _reloading(reactor: Any, service: Any, options: Options) -> Any:
    """What SIGHUP does: the configuration is read anew, in the reactor's turn."""

    def reload(*_: object) -> None:
        reactor.callFromThread(service.reload, options.read)

    return reload


def _no_workers() -> None:
    Logger().warn("SIGUSR2 replaces workers one by one, and none runs now (--workers N): nothing is done")


def redis_of(config: Config, options: Options) -> Any:
    """
    The Redis that is configured; None: the gateway runs its own.

    @raise ConfigError: when that can't be.
    """
    from gateway.sinks import sentinel

    where = "option --redis" if options["redis"] is not None else f"{config.where}: section [redis], key 'url'"
    if config.redis.url:
        return sentinel.address(config.redis.url, where)
    if config.redis.confirm == "replica":
        where = f"{config.where}: section [redis], key 'confirm'"
        raise ConfigError(where, "'replica' can't be had from the embedded Redis: it has none")
    return None


class Store(NamedTuple):
    """
    The Redis that is used, and what of its memory streams may take.

    @ivar embedded: to be run; None: it is another's.
    """

    url: Any
    memory: int
    embedded: Any


def _store(config: Config, options: Options, address: Any, data_dir: Path, announce: list[str]) -> Store:
    """Look at the Redis that is configured, or prepare the gateway's own."""
    from gateway.sinks import blocking
    from gateway.sinks.confirm import Confirmation
    from gateway.sinks.embedded import EmbeddedRedis

    if address is None:
        memory = config.streams.memory or _machine_memory() // 2
        embedded = EmbeddedRedis(data_dir, maxmemory=memory + memory // 4 + 256 * 1024**2)
        announce.append(
            f"Redis: embedded, {embedded.url}; its URL with the password stands in {data_dir / 'redis.url'}"
        )
        return Store(embedded.url, memory, embedded)
    confirm, where = config.redis.confirm, f"{config.where}: section [redis], key"
    confirmation = None if confirm == "memory" else Confirmation(confirm, config.redis.deadline)
    able = None if confirmation is None else lambda client: confirmation.check(client, f"{where} 'confirm'")
    why = blocking.check(address, "option --redis" if options["redis"] is not None else f"{where} 'url'", able=able)
    memory = config.streams.memory or _redis_memory(address, reachable=why is None)
    announce.append(f"Redis: {address}" + (f", not reached yet ({why}): trying again" if why else ""))
    return Store(address, memory, None)


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
