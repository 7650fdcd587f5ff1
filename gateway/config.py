"""
The configuration: TOML read once into frozen dataclasses, every key with a default.

C{conf/gateway.toml} shows each key at its default; a test holds the two equal.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

from gateway.commands import COMMANDS
from gateway.errors import ConfigError
from gateway.events import STREAMS
from gateway.identity import MODES
from gateway.sms.http.settings import HTTPSection
from gateway.sms.smpp.settings import SMPPSection

DEFAULT_PORT = 8888

_Limits = TypeVar("_Limits", bound=tuple[Any, ...])


@dataclass(frozen=True, slots=True)
class GatewaySection:
    """C{[gateway]}."""

    #: name of this gateway in events and keys; empty: <hostname>-<port of the first listener>
    instance: str = ""
    #: TCP and UDP port of every listener that names none
    port: int = DEFAULT_PORT
    #: HOST, HOST:PORT or [V6]:PORT, each TCP and UDP; empty: every IPv4 and IPv6 address; "systemd": its sockets
    listen: tuple[str, ...] = ()
    #: where the gateway keeps what it must not lose; empty: $STATE_DIRECTORY, else $XDG_STATE_HOME/gateway
    data_dir: str = ""
    #: seconds for which it goes on listening when it is to end, and says that it is not ready
    drain: float = 0.0
    #: processes that share the work; 0 or "auto": one a CPU that may be used
    workers: int = 1


@dataclass(frozen=True, slots=True)
class ProxySection:
    """C{[proxy]}: where balancers connect that say by the PROXY protocol whose connection they pass on."""

    #: HOST:PORT or [V6]:PORT, TCP alone
    listen: tuple[str, ...] = ()
    #: addresses and networks of the balancers; nobody else is let in there
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TLSSection:
    """C{[tls]}: where trackers connect that can speak TLS."""

    #: HOST:PORT or [V6]:PORT, TCP alone
    listen: tuple[str, ...] = ()
    #: files in PEM: the certificate with those that vouch for it after it, and its key
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class RedisSection:
    """C{[redis]}."""

    #: redis:// or rediss://[user:password@]host[:port][/db]; redis+sentinel:// or rediss+sentinel://
    #: [user:password@]host[:port][,host[:port]...]/name[/db]; empty: the gateway runs its own
    url: str = ""
    #: of every key
    prefix: str = "gateway"
    #: seconds that Redis may owe an answer before it is connected anew
    deadline: float = 5.0
    #: what makes a batch stored: "memory": Redis answered; "replica": a replica has it, too; "fsync": it is on disk
    confirm: str = "memory"


@dataclass(frozen=True, slots=True)
class IdentitySection:
    """C{[identity]}: which devices are let in."""

    #: "open": every ident is taken as it comes; "known": what is not in the registry is closed; "quarantine": it may
    #: stay, and what it sends is recorded, but neither published nor acknowledged
    mode: str = "open"


@dataclass(frozen=True, slots=True)
class JournalSection:
    """C{[journal]}: where batches go while Redis is away."""

    #: bytes that it may take in the data directory; when it is full nothing more is acknowledged
    bytes: int = 4_294_967_296
    #: days after which what could not be given to Redis is dropped
    days: float = 14.0


@dataclass(frozen=True, slots=True)
class StreamsSection:
    """C{[streams]}: hours 0: not trimmed by time; entries 0: what the memory allows."""

    #: bytes that all streams may take; 0: half of the machine's memory with the embedded Redis, else half of the
    #: server's maxmemory, else 1 GiB
    memory: int = 0
    #: consumer groups, each STREAM:GROUP: what one has not read is not trimmed before the memory is full
    required_groups: tuple[str, ...] = ()
    position_hours: float = 24.0
    position_entries: int = 0
    event_hours: float = 168.0
    event_entries: int = 0
    link_hours: float = 168.0
    link_entries: int = 0
    result_hours: float = 168.0
    result_entries: int = 0
    raw_hours: float = 0.0
    raw_entries: int = 100_000
    dead_hours: float = 0.0
    dead_entries: int = 10_000


@dataclass(frozen=True, slots=True)
class EventsSection:
    """C{[events]}."""

    #: a report whose device time is so many seconds old is late
    late_after: float = 120.0


@dataclass(frozen=True, slots=True)
class CommandsSection:
    """C{[commands]}."""

    #: the commands that are sent, C{*} for any word: those of the engine and raw are the operator's to turn on
    enabled: tuple[str, ...] = tuple(name for name in COMMANDS if name != "raw" and not name.startswith("engine."))
    #: a vehicle counts as standing when the two newest live valid reports are not faster than so many km/h, so many
    #: seconds apart at least, and the newer one so many seconds old at most
    guard_speed: float = 20.0
    guard_apart: float = 10.0
    guard_age: float = 60.0
    #: whether a request's own guard may be looser
    guard_looser: bool = False
    #: an answer, and a report that proves what was done, may take two of the device's reports, and so many seconds
    answer_within: float = 60.0
    #: commands that a device may be given an hour, and that may wait for it; engine.resume is not limited by the hour
    per_hour: int = 60
    waiting: int = 16

    @property
    def sent(self) -> list[str]:
        """The commands that are sent, by name."""
        return [name for name in COMMANDS if any(fnmatchcase(name, pattern) for pattern in self.enabled)]


@dataclass(frozen=True, slots=True)
class SMSSection:
    """C{[sms]}: the second channel to trackers."""

    #: what texts go through: "http" or "smpp"; empty: none are sent, and none come in
    transport: str = ""
    #: the gateway's own number, or word, as the sender of what it sends; empty: the provider's
    number: str = ""
    #: two letters of ISO 3166: the country of numbers that are written without their country's
    region: str = ""
    #: seconds after which a command with channel "auto", which could not be told over data, is told by SMS
    fallback_after: float = 60.0
    #: seconds that a device has to answer a text, once that can't be delivered any more
    answer_within: float = 300.0
    #: texts an hour: to one device, and in all
    per_device_hour: int = 20
    per_hour: int = 1000
    http: HTTPSection = field(default_factory=HTTPSection)
    smpp: SMPPSection = field(default_factory=SMPPSection)


@dataclass(frozen=True, slots=True)
class WebSection:
    """C{[web]}: the operator's page, health checks and metrics."""

    #: HOST:PORT or [V6]:PORT; empty or "off": there is none
    listen: str = "127.0.0.1:8889"
    #: names by which it may be asked for, besides the address and those of this very machine
    hosts: tuple[str, ...] = ()
    #: file with the token that it asks for; empty: <data_dir>/web.token, made at first start
    token_file: str = ""
    #: whether /metrics needs no token
    metrics_open: bool = False
    #: map tiles, https://tile.example.org/{z}/{x}/{y}.png say, and whose they are; empty: a map without
    tiles: str = ""
    attribution: str = ""


@dataclass(frozen=True, slots=True)
class LimitsSection:
    """
    C{[limits]}: each has a counter, C{limited_<key>} or C{closed_<key>}; C{paused} for what may wait.

    They hold for all workers together; each has its part of what L{SHARED} names.
    """

    #: TCP connections
    connections: int = 50_000
    connections_per_address: int = 20_000
    #: connections that are accepted a second; the others wait in the kernel
    accepts: int = 5_000
    #: connections of which it is not known yet whose they are; beyond it the oldest is cut
    undetected: int = 25_000
    #: connections, or datagrams, of one address that were nobody's, a minute; beyond it its new connections are left
    #: unread for a while, for 30 s at most, and its datagrams that are nobody's are not taken
    strangers_per_address: int = 600
    #: reports of one device's connection, and of an address, a second; what comes beyond that is read later, datagrams
    #: are not taken
    reports_per_device: int = 500
    reports_per_address: int = 100_000
    #: bytes and seconds within which a connection has to be recognised
    detect_bytes: int = 1024
    detect_seconds: float = 60.0
    #: longest frame of any device
    frame_bytes: int = 65_536
    #: bytes without a good frame after which a connection is closed
    junk_bytes: int = 8192
    #: seconds without a frame after which a connection is closed, at least and until an interval is learned
    idle: float = 900.0
    idle_unlearned: float = 1800.0
    #: seconds that a client may leave its replies unread
    unread_seconds: float = 60.0
    #: frames of one connection that may wait to be answered before it is not read for a while
    unanswered: int = 500
    #: idents that were never seen before, an hour
    new_idents_per_address: int = 20_000
    new_idents: int = 100_000
    #: frames, and bytes of frames, that may wait for Redis before reading pauses
    pending: int = 20_000
    pending_bytes: int = 67_108_864

    def of(self, kind: type[_Limits]) -> _Limits:
        """Those that somebody keeps: a NamedTuple, by the names of its fields."""
        made: Any = kind  # no type says that something is a NamedTuple
        found: _Limits = made._make(getattr(self, name) for name in made._fields)
        return found


@dataclass(frozen=True, slots=True)
class Config:
    """
    All of it.

    @ivar where: the file, for errors.
    @ivar devices: C{[devices]} disable.
    @ivar device_options: C{[devices.NAME]}, which the registry reads.
    """

    where: str = "defaults"
    gateway: GatewaySection = GatewaySection()
    proxy: ProxySection = ProxySection()
    tls: TLSSection = TLSSection()
    redis: RedisSection = RedisSection()
    identity: IdentitySection = IdentitySection()
    journal: JournalSection = JournalSection()
    streams: StreamsSection = StreamsSection()
    events: EventsSection = EventsSection()
    commands: CommandsSection = CommandsSection()
    sms: SMSSection = SMSSection()
    web: WebSection = WebSection()
    limits: LimitsSection = LimitsSection()
    disable: tuple[str, ...] = ()
    device_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def override(self, section: str, where: str, **values: Any) -> Config:
        """This configuration with keys of a section replaced by what the command line says."""
        checked = _section(type(getattr(self, section)), values, where)
        kept = {key: getattr(checked, key) for key in values}
        return dataclasses.replace(self, **{section: dataclasses.replace(getattr(self, section), **kept)})

    @property
    def workers(self) -> int:
        """How many processes share the work."""
        return self.gateway.workers or min(cpus(), MOST_WORKERS)

    def part(self) -> Config:
        """What one worker of several works with: its part of what they share."""
        n = self.workers
        limits = {key: -(-getattr(self.limits, key) // n) for key in SHARED}
        journal = max(self.journal.bytes // n, int(LIMITS["bytes"][0]))
        return dataclasses.replace(
            self,
            limits=dataclasses.replace(self.limits, **limits),
            journal=dataclasses.replace(self.journal, bytes=journal),
        )

    @property
    def data_dir(self) -> Path:
        """Where the gateway keeps what it must not lose."""
        if self.gateway.data_dir:
            return Path(self.gateway.data_dir).expanduser()
        if state := os.environ.get("STATE_DIRECTORY"):
            return Path(state.split(":")[0])
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "gateway"

    @property
    def instance(self) -> str:
        """The name of this gateway."""
        if self.gateway.instance:
            return self.gateway.instance
        return f"{socket.gethostname()}-{self.addresses[0][1]}"

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """
        Where to listen, address and port.

        @raise ConfigError: for what is no address.
        """
        port = self.gateway.port
        if self.activated:
            return [(SYSTEMD, port)]
        if not self.gateway.listen:
            return [("0.0.0.0", port), ("::", port)]
        return [parse_listen(text, port, f"listen {text!r}") for text in self.gateway.listen]

    @property
    def activated(self) -> bool:
        """
        Whether systemd listens for us.

        @raise ConfigError: when it is to, and somebody else as well.
        """
        if SYSTEMD not in self.gateway.listen:
            return False
        where = f"{self.where}: section [gateway], key 'listen'"
        if len(self.gateway.listen) > 1:
            raise ConfigError(where, f"'{SYSTEMD}' stands alone: all sockets are those of gateway.socket")
        if self.workers > 1:
            raise ConfigError(where, f"'{SYSTEMD}' is for one process: workers need sockets of their own")
        if self.proxy.listen or self.tls.listen:
            raise ConfigError(where, f"'{SYSTEMD}' and the 'listen' of [proxy] and [tls] do not go together")
        return True

    @property
    def proxied(self) -> list[tuple[str, int]]:
        """
        Where balancers connect, address and port.

        @raise ConfigError: for what is no address with a port, or when nobody is let in there.
        """
        where = f"{self.where}: section [proxy], key 'listen'"
        found = [parse_listen(text, None, where) for text in self.proxy.listen]
        if found and not self.proxy.networks:
            where = f"{self.where}: section [proxy], key 'networks'"
            raise ConfigError(where, "is empty, and 'listen' is not: who may speak the PROXY protocol there?")
        return found

    @property
    def encrypted(self) -> list[tuple[str, int]]:
        """
        Where trackers connect with TLS, address and port.

        @raise ConfigError: for what is no address with a port, or when there is no certificate.
        """
        found = [parse_listen(text, None, f"{self.where}: section [tls], key 'listen'") for text in self.tls.listen]
        for key in ("certificate", "key"):
            if found and not getattr(self.tls, key):
                raise ConfigError(f"{self.where}: section [tls], key {key!r}", "is empty, and 'listen' is not")
        return found

    @property
    def page(self) -> tuple[str, int] | None:
        """
        Where the page is, address and port; None: nowhere.

        @raise ConfigError: for what is no address with a port.
        """
        if self.web.listen in ("", "off"):
            return None
        return parse_listen(self.web.listen, None, f"{self.where}: section [web], key 'listen'")

    @property
    def token_file(self) -> Path:
        """Where the page's token stands."""
        return Path(self.web.token_file).expanduser() if self.web.token_file else self.data_dir / "web.token"

    @property
    def balancers(self) -> list[IPv4Network | IPv6Network]:
        """The networks of the balancers."""
        return [ip_network(text) for text in self.proxy.networks]


#: What C{[gateway] listen} says instead of an address where systemd listens for us.
SYSTEMD: Final = "systemd"
#: Keys whose value becomes a part of Redis keys, and keys for which 0 makes no sense.
KEY_PARTS = frozenset({"prefix", "instance"})
_KEY_PART = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
#: A template of the URLs of map tiles; its origin becomes a part of what browsers are told.
_TILES = re.compile(r"https?://(\{s\}\.)?[A-Za-z0-9.-]+(:[0-9]{1,5})?/[!-:<-~]*\{z\}[!-:<-~]*")
POSITIVE = frozenset(
    {
        "deadline",
        "connections",
        "detect_bytes",
        "detect_seconds",
        "frame_bytes",
        "pending",
        "unanswered",
        "accepts",
        "undetected",
        "strangers_per_address",
        "reports_per_device",
        "reports_per_address",
        "answer_within",
        "guard_age",
        "per_hour",
        "per_device_hour",
        "window",
        "per_second",
        "enquire_after",
        "waiting",
        "bytes",
        "days",
    }
)

#: Keys that take one of some words.
CHOICES = {"confirm": ("memory", "replica", "fsync"), "mode": MODES, "transport": ("", "http", "smpp")}

#: Keys of C{[limits]} of which each worker has its part.
SHARED = (
    "connections",
    "connections_per_address",
    "accepts",
    "undetected",
    "strangers_per_address",
    "reports_per_address",
    "new_idents_per_address",
    "new_idents",
    "pending",
    "pending_bytes",
)

#: More workers than this are a mistake of the pen.
MOST_WORKERS = 256

#: Least and most of keys for which not every number makes sense: less than the journal's file takes by itself, and
#: longer than Redis remembers the producers that wrote it.
LIMITS = {"bytes": (1_048_576, math.inf), "days": (0.0, 30.0), "workers": (0, MOST_WORKERS)}

SECTIONS = {
    "gateway": GatewaySection,
    "proxy": ProxySection,
    "tls": TLSSection,
    "redis": RedisSection,
    "identity": IdentitySection,
    "journal": JournalSection,
    "streams": StreamsSection,
    "events": EventsSection,
    "commands": CommandsSection,
    "web": WebSection,
    "limits": LimitsSection,
    "sms": SMSSection,
}


def cpus(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """
    How many CPUs this process may keep busy.

    @param quota: where a container is told how much of them it gets, as microseconds of each so many; or C{max}.
    """
    there = len(os.sched_getaffinity(0))
    try:
        share, _, period = quota.read_text().partition(" ")
        return there if share == "max" else max(1, min(there, math.ceil(int(share) / int(period))))
    except (OSError, ValueError):
        return there


def read(path: str | None) -> Config:
    """
    Read a configuration file; None: the defaults.

    @raise ConfigError: naming file, section and key of what can't be used.
    """
    if path is None:
        return Config()
    try:
        with open(path, "rb") as file:
            tree = tomllib.load(file)
    except OSError as error:
        raise ConfigError(path, error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"is not TOML: {error}") from error
    sections: dict[str, Any] = {}
    for name, keys in tree.items():
        if not isinstance(keys, dict):
            raise ConfigError(path, f"key {name!r} stands outside of any section")
        if name == "devices":
            continue
        if name not in SECTIONS:
            raise ConfigError(path, f"unknown section [{name}] (there are: {', '.join([*SECTIONS, 'devices'])})")
        sections[name] = _section(SECTIONS[name], keys, f"{path}: section [{name}]")
    disable, options = _devices(tree.get("devices", {}), path)
    return Config(path, **sections, disable=disable, device_options=options)


def _devices(tree: Any, path: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    where = f"{path}: section [devices]"
    disable: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            options[key] = value
        elif key == "disable":
            disable = _value(value, tuple[str, ...], where, key)
        else:
            raise ConfigError(where, f"unknown key {key!r} (there are: disable, and a section for each device)")
    return disable, options


def _section(kind: Any, keys: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in keys.items():
        if key not in hints:
            raise ConfigError(where, f"unknown key {key!r} (there are: {', '.join(hints)})")
        values[key] = _value(value, hints[key], where, key)
    return kind(**values)


def _value(value: Any, wanted: Any, where: str, key: str) -> Any:
    if wanted == tuple[str, ...]:
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            for item in value if key == "required_groups" else ():
                _required_group(item, where, key)
            for item in value if key == "networks" else ():
                _network(item, where, key)
            for item in value if key == "enabled" else ():
                if not any(fnmatchcase(name, item) for name in COMMANDS):
                    there = ", ".join(COMMANDS)
                    raise ConfigError(where, f"key {key!r}: {item!r} is no command (there are: {there})")
            return tuple(value)
        raise ConfigError(where, f"key {key!r}: {value!r} is not a list of strings")
    if dataclasses.is_dataclass(wanted):
        if not isinstance(value, dict):
            raise ConfigError(where, f"key {key!r}: is not a section of its own")
        return _section(wanted, value, f"{where.removesuffix(']')}.{key}]")
    if wanted == dict[str, str]:
        if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
            return dict(value)
        raise ConfigError(where, f"key {key!r}: {value!r} is not a table of strings")
    if key == "workers" and value == "auto":
        value = 0
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ConfigError(where, f"key {key!r}: {value!r} is not of type {wanted.__name__}")
    if isinstance(value, (int, float)) and not (0 <= value < math.inf):
        raise ConfigError(where, f"key {key!r}: {value!r} is not a number of 0 or more")
    if key in POSITIVE and not value:
        raise ConfigError(where, f"key {key!r}: must be more than 0")
    if key in LIMITS and not LIMITS[key][0] <= value <= LIMITS[key][1]:
        least, most = LIMITS[key]
        raise ConfigError(where, f"key {key!r}: {value!r} is not between {least:g} and {most:g}")
    if key in KEY_PARTS and not (value == "" and key == "instance") and not _KEY_PART.fullmatch(value):
        raise ConfigError(where, f"key {key!r}: {value!r} is not 1 to 64 letters, digits, '_', '.', ':' or '-'")
    if key == "tiles" and value and not _TILES.fullmatch(value):
        raise ConfigError(where, f"key {key!r}: {value[:100]!r} is no template like https://HOST/{{z}}/{{x}}/{{y}}.png")
    if key in CHOICES and value not in CHOICES[key]:
        raise ConfigError(where, f"key {key!r}: {value!r} is none of {', '.join(CHOICES[key])}")
    if key == "port" and not value <= 65_535:
        raise ConfigError(where, f"key 'port': {value} is not a port")
    return value


def _required_group(text: str, where: str, key: str) -> None:
    stream, _, group = text.partition(":")
    if not stream or not group:
        raise ConfigError(where, f"key {key!r}: {text!r} is not STREAM:GROUP")
    if stream not in STREAMS:
        there = ", ".join(STREAMS)
        raise ConfigError(where, f"key {key!r}: {text!r} names no stream (there are: {there})")


def _network(text: str, where: str, key: str) -> None:
    try:
        ip_network(text)
    except ValueError as error:
        raise ConfigError(
            where, f"key {key!r}: {text!r} is no address or network such as 10.0.0.0/8: {error}"
        ) from None


def parse_listen(text: str, port: int | None, where: str) -> tuple[str, int]:
    """
    C{HOST}, C{HOST:PORT}, C{V6} or C{[V6]:PORT} as address and port.

    @param port: where it names none; None: it has to.
    @raise ConfigError: for anything else.
    """
    host, rest = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ConfigError(where, f"{text!r} is not HOST, HOST:PORT or [V6]:PORT")
        rest = rest[1:]
    elif text.count(":") == 1:
        host, _, rest = text.partition(":")
    if rest:
        if not (rest.isascii() and rest.isdecimal() and int(rest) <= 65_535):
            raise ConfigError(where, f"{text!r}: {rest!r} is not a port")
        port = int(rest)
    if not host:
        raise ConfigError(where, f"{text!r} names no host")
    if port is None:
        raise ConfigError(where, f"{text!r} names no port")
    return host, port
