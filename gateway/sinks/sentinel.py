"""
Redis Sentinel: URLs that name sentinels and a master, and asking them without a reactor.

L{gateway.sinks.search} asks them from the reactor; the command line does
without it, so it does not stand here.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import unquote

import hiredis

from gateway.errors import ConfigError, NotReady, Refused, UnknownMaster
from gateway.sinks.blocking import CA_OPTION, BlockingRedis, RedisURL, certificates

SENTINEL_PORT: Final = 26379
#: Seconds that one sentinel is given.
ASK_S: Final = 1.0

SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
FORM: Final = "redis+sentinel://[user:password@]host[:port][,host[:port]...]/name[/db][?sentinel_password=...]"
OPTIONS: Final = ("sentinel_username", "sentinel_password", CA_OPTION)

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class SentinelURL:
    """
    Who knows where a master is, and how the master is entered.

    @ivar sentinels: in the order in which they are asked.
    @ivar name: of the master, as the sentinels know it.
    @ivar master: the user, password, database and TLS of the master; its host and port are what is asked for.
    """

    sentinels: tuple[RedisURL, ...]
    name: str
    master: RedisURL = field(default=RedisURL("", 0))

    @classmethod
    def parse(cls, text: str, where: str) -> SentinelURL:
        """
        Read a URL.

        @param where: the option or file that it came from.
        @raise ConfigError: when it is malformed.  Nothing of the URL is repeated there: where a password is not
            escaped, any part of it may be a part of the password.
        """

        try:
            return cls._parse(text)
        except ValueError as error:
            raise ConfigError(where, f"malformed Redis URL: {error} ({FORM})") from None

    @classmethod
    def _parse(cls, text: str) -> SentinelURL:
        scheme, _, rest = text.partition("://")
        if scheme not in SCHEMES:
            raise ValueError(f"the scheme is not {' or '.join(SCHEMES)}")
        rest, _, query = rest.partition("?")
        authority, _, path = rest.partition("/")
        if "#" in text or "@" in path or "@" in query:
            raise ValueError("in a password /, ?, # and @ are written %2F, %3F, %23 and %40")
        user, _, hosts = authority.rpartition("@")
        username, _, password = user.partition(":")
        tls = scheme == SCHEMES[1]
        options = _options(query)
        ca_file = certificates(options[CA_OPTION], tls) if CA_OPTION in options else ""
        names = options.get("sentinel_username"), options.get("sentinel_password")
        entry = RedisURL("", 0, *names, tls=tls, ca_file=ca_file)
        places = [_place(host, number) for number, host in enumerate(hosts.split(","), 1)]
        name, _, database = path.partition("/")
        name = unquote(name)
        if not name or not name.isprintable() or " " in name:
            raise ValueError("there is no name of a master after the hosts")
        if database and not (database.isascii() and database.isdecimal()):
            raise ValueError("what follows the name of the master is not the number of a database")
        master = RedisURL("", 0, unquote(username) or None, unquote(password) or None, int(database or 0), tls, ca_file)
        return cls(tuple(replace(entry, host=host, port=port) for host, port in places), name, master)

    def __str__(self) -> str:
        """As it may be shown: without the passwords."""
        master = self.master
        user = f"{master.username or ''}:***@" if master.password else ""
        hosts = ",".join(map(spelled, self.sentinels))
        return f"{SCHEMES[master.tls]}://{user}{hosts}/{self.name}/{master.database}"

    def at(self, place: Place) -> RedisURL:
        """The master's own URL, when it is there."""
        return replace(self.master, host=place[0], port=place[1])

    def connect(self, timeout: float) -> BlockingRedis:
        end = time.monotonic() + timeout
        each = min(ASK_S, timeout / (len(self.sentinels) + 1))
        errors: dict[RedisURL, Exception] = {}
        named: dict[RedisURL, Exception] = {}
        for sentinel in self.sentinels:
            try:
                place = self._ask(sentinel, each)
            except ssl.SSLCertVerificationError:
                raise
            except (OSError, NotReady, Refused, hiredis.HiredisError) as error:
                errors[sentinel] = error
                continue
            try:
                return self._enter(place, max(end - time.monotonic(), each))
            except ssl.SSLCertVerificationError:
                raise
            except (OSError, NotReady) as error:  # the next sentinel may know better
                named[sentinel] = NotReady(f"names {shown(place)}: {error}")
        raise self.verdict(named or errors)

    def _ask(self, sentinel: RedisURL, timeout: float) -> Place:
        client = BlockingRedis.connect(sentinel, timeout)
        try:
            return self.place(client.command(*self.question()))
        finally:
            client.close()

    def _enter(self, place: Place, timeout: float) -> BlockingRedis:
        client = BlockingRedis.connect(self.at(place), timeout)
        try:
            must_be_master(client.command("ROLE"))
        except BaseException:
            client.close()
            raise
        return client

    # -- what both forms of asking say and understand

    def question(self) -> tuple[str, ...]:
        """What a sentinel is asked."""
        return ("SENTINEL", "get-master-addr-by-name", self.name)

    def place(self, answer: Any) -> Place:
        """
        What a sentinel's answer says.

        @raise UnknownMaster: it knows no master of this name.
        """
        if answer is None:
            raise UnknownMaster(f"knows no master named {self.name!r}")
        host, port = answer
        return host.decode(), int(port)

    def verdict(self, errors: Mapping[RedisURL, Exception]) -> Exception:
        """What it means that none of the sentinels helped: the worst of what they said, each named."""
        for kind in (UnknownMaster, Refused):
            of_kind = {s: e for s, e in errors.items() if isinstance(e, kind)}
            if of_kind:
                return kind(self._listed(of_kind))
        # a server that answers, but not this question, is no sentinel
        strange = {s: e for s, e in errors.items() if isinstance(e, hiredis.HiredisError)}
        if strange:
            return hiredis.ReplyError(self._listed(strange))
        return NotReady(self._listed(errors))

    def _listed(self, errors: Mapping[RedisURL, Exception]) -> str:
        # in the order of the URL, whatever the order of asking: what is said again is not logged again
        some = [f"sentinel {spelled(s)}: {str(errors[s]) or 'no answer'}" for s in self.sentinels if s in errors]
        return "; ".join(some)


def address(text: str, where: str) -> RedisURL | SentinelURL:
    """
    A Redis URL of any kind.

    @param where: the option or file that it came from.
    @raise ConfigError: when it is malformed; no password is shown.
    """
    if text.partition("://")[0] in SCHEMES:
        return SentinelURL.parse(text, where)
    return RedisURL.parse(text, where)


def spelled(url: RedisURL) -> str:
    """Host and port."""
    return shown((url.host, url.port))


def must_be_master(role: Any) -> None:
    """
    Look at an answer to ROLE.

    @raise NotReady: it is not a master's.
    """
    if role[0] != b"master":
        raise NotReady(f"is no master, but a {'replica' if role[0] == b'slave' else role[0].decode()}")


def shown(place: Place) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _place(text: str, number: int) -> Place:
    """C{HOST}, C{HOST:PORT}, C{[V6]} or C{[V6]:PORT}."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        good = bracket and ":" in host and (not rest or rest.startswith(":"))
        port = rest[1:]
    else:
        host, colon, port = text.partition(":")
        good = ":" not in port and bool(port or not colon)
    try:
        host.encode("idna")
    except UnicodeError:
        good = False
    if not good or not host or not host.isprintable() or " " in host:
        raise ValueError(f"sentinel {number} is not host, host:port or [v6]:port")
    if not port:
        return host, SENTINEL_PORT
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= 65_535):
        raise ValueError(f"sentinel {number} has a port that is none")
    return host, int(port)


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in OPTIONS or name in options:
            raise ValueError(f"after the ? there may stand, once each, {' and '.join(OPTIONS)}")
        options[name] = unquote(value)
    return options
