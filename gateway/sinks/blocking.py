"""
A Redis address, and a small blocking client for what runs without a reactor: start-up checks and the command line.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import hiredis

from gateway.errors import ConfigError, NotReady, Refused, UnknownMaster

#: How our own words begin for a batch that is stored, but not yet as C{[redis] confirm} asks.
NOT_CONFIRMED: Final = "not confirmed"
#: Answers that mean 'not now': the same request is sent again later.
NOT_NOW = (
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "READONLY",
    "MASTERDOWN",
    "LOADING",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY ",  # and not BUSYGROUP
    NOT_CONFIRMED,
)
#: Answers that mean that these credentials won't do.
REFUSALS = ("WRONGPASS", "NOAUTH", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR Client sent AUTH")

OLDEST = (6, 2)
#: The option of a URL that names a file of certificates, as redis-py calls it.
CA_OPTION: Final = "ssl_ca_certs"

#: A command's arguments as the protocol writes them.  (hiredis' own annotation admits one argument only.)
pack: Callable[[Sequence[str | bytes | int]], bytes] = hiredis.pack_command  # type: ignore[assignment]


class Address(Protocol):
    """What leads to a Redis: a server's own URL, or sentinels that know where it is."""

    def connect(self, timeout: float) -> BlockingRedis:
        """
        Connect and enter.

        @raise OSError: when it can't be reached; L{ssl.SSLError} when it is not who it should be.
        @raise NotReady: when it can't be used now.
        @raise Refused: when it does not take the credentials.
        """


@dataclass(frozen=True, slots=True)
class RedisURL:
    """Where a Redis is and how it is entered: C{redis://} or C{rediss://[user[:password]@]host[:port][/db]}."""

    host: str
    port: int = 6379
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: bool = False
    #: file with the certificates of those who may vouch for it; empty: those that the system trusts
    ca_file: str = ""

    @classmethod
    def parse(cls, text: str, where: str) -> RedisURL:
        """
        Read a URL.

        @param where: the option or file that it came from.
        @raise ConfigError: when it is malformed; the password is not shown.
        """

        def malformed(what: str) -> ConfigError:
            return ConfigError(where, f"malformed Redis URL: {what} (redis://[user:password@]host[:port][/db])")

        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise malformed(str(error)) from error
        if parts.scheme not in ("redis", "rediss"):
            raise malformed(f"the scheme is {parts.scheme!r}, not redis, rediss, redis+sentinel or rediss+sentinel")
        if not parts.hostname:
            raise malformed("there is no host")
        if parts.fragment:
            raise malformed("there is something after the database number")
        try:
            ca_file = _ca_file(parts.query, parts.scheme == "rediss")
        except ValueError as error:
            raise malformed(str(error)) from error
        try:
            parts.hostname.encode("idna")
        except UnicodeError as error:
            raise malformed(f"{parts.hostname[:64]!r} is no host name") from error
        path = parts.path.strip("/")
        if path and not (path.isascii() and path.isdecimal()):
            raise malformed(f"the database {path!r} is not a number")
        return cls(
            parts.hostname,
            6379 if port is None else port,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password else None,
            int(path or 0),
            parts.scheme == "rediss",
            ca_file,
        )

    def __str__(self) -> str:
        """As it may be shown: without the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.username or ''}:***@" if self.password else ""
        return f"{'rediss' if self.tls else 'redis'}://{user}{host}:{self.port}/{self.database}"

    def auth(self) -> tuple[str, ...] | None:
        """The AUTH command, if one is needed."""
        if self.password is None:
            return None
        return ("AUTH", self.username, self.password) if self.username else ("AUTH", self.password)

    def connect(self, timeout: float) -> BlockingRedis:
        return BlockingRedis.connect(self, timeout)


def certificates(path: str, tls: bool) -> str:
    """
    A file that C{?ssl_ca_certs=FILE} names, once it was seen that certificates stand there.

    @raise ValueError: when none can be read, in words.
    """
    if not tls:
        raise ValueError(f"{CA_OPTION} is for TLS: rediss:// or rediss+sentinel://")
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{path} holds no certificates that can be read: {error}") from error
    return path


def _ca_file(query: str, tls: bool) -> str:
    """The file with certificates of a URL's query; empty: there is none."""
    if not query:
        return ""
    options = dict(parse_qsl(query))
    path = options.pop(CA_OPTION, "")
    if options or not path:
        raise ValueError(f"there is something else after the database number than ?{CA_OPTION}=FILE")
    return certificates(path, tls)


class BlockingRedis:
    """One connection, one command at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = hiredis.Reader()

    @classmethod
    def connect(cls, url: RedisURL, timeout: float) -> BlockingRedis:
        """
        Connect and enter.

        @raise OSError: when it can't be reached; L{ssl.SSLError} when it is not who it should be.
        @raise Refused: when it does not take the credentials.
        """
        sock = socket.create_connection((url.host, url.port), timeout)
        try:
            if url.tls:
                context = ssl.create_default_context(cafile=url.ca_file or None)
                sock = context.wrap_socket(sock, server_hostname=url.host)
            self = cls(sock)
            if (auth := url.auth()) is not None:
                self.command(*auth)
            if url.database:
                self.command("SELECT", str(url.database))
        except BaseException:
            sock.close()
            raise
        return self

    @classmethod
    def unix(cls, path: str, timeout: float) -> BlockingRedis:
        """Connect to a server's socket in the file system."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def command(self, *args: str | bytes) -> Any:
        """
        Send a command and wait for its answer.

        @raise Refused: the server does not let us in.
        @raise NotReady: the server answers 'not now'.
        @raise hiredis.ReplyError: any other error.
        @raise OSError: the connection broke or timed out.
        """
        self._socket.sendall(pack(args))
        answer = self._answer()
        if isinstance(answer, Exception):
            text = str(answer)
            if text.startswith(REFUSALS):
                raise Refused(text) from answer
            if text.startswith(NOT_NOW):
                raise NotReady(text) from answer
            raise answer
        return answer

    def pipeline(self, commands: Sequence[Sequence[str | bytes]]) -> list[Any]:
        """
        Send commands at once and wait for their answers, some hundred at most: what neither side reads meanwhile waits.

        @return: the answer of each; an exception, of one that was refused.
        @raise OSError: the connection broke or timed out.
        """
        self._socket.sendall(b"".join(map(pack, commands)))
        return [self._answer() for _ in commands]

    def _answer(self) -> Any:
        while (answer := self._reader.gets()) is False:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._reader.feed(data)
        return answer

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def info(answer: bytes) -> dict[str, str]:
    """The fields of an INFO answer."""
    lines = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def version(fields: dict[str, str]) -> tuple[int, ...]:
    """The server's version; Valkey speaks of the Redis that it is compatible with."""
    return tuple(int(part) for part in fields.get("redis_version", "0").split(".")[:3] if part.isdecimal())


def check(
    url: Address, where: str, timeout: float = 3.0, able: Callable[[BlockingRedis], None] | None = None
) -> str | None:
    """
    Look whether this Redis can be used, for C{timeout} seconds at most.

    @param able: what else it has to be able to do; raises L{ConfigError} when it is not.
    @return: why it can't be reached now, which is no error; None when all is well.
    @raise ConfigError: when it refuses us, is too old, or is not who it should be.
    """
    try:
        client = url.connect(timeout)
    except UnknownMaster as error:
        raise ConfigError(where, f"{url}: {error}") from error
    except Refused as error:
        raise ConfigError(where, f"{url} refuses the credentials: {error}") from error
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(where, f"{url}: its certificate does not hold: {error.verify_message}") from error
    except hiredis.ProtocolError as error:
        raise ConfigError(where, f"{url} does not speak Redis: {error}") from error
    except hiredis.ReplyError as error:
        raise ConfigError(where, f"{url} refuses: {error}") from error
    except (OSError, NotReady) as error:
        return str(error)
    try:
        found = version(info(client.command("INFO", "server")))
        if found < OLDEST:
            raise ConfigError(where, f"{url} is version {'.'.join(map(str, found))}; 6.2 or later is needed")
        if able is not None:
            able(client)
    except Refused as error:
        raise ConfigError(where, f"{url} refuses: {error}") from error
    except hiredis.ProtocolError as error:
        raise ConfigError(where, f"{url} does not speak Redis: {error}") from error
    except hiredis.ReplyError as error:
        raise ConfigError(where, f"{url} refuses INFO: {error}") from error
    except (OSError, NotReady) as error:
        return str(error)
    finally:
        client.close()
    return None
