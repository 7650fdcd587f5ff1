"""Where things are, by the options of a command: configuration, data directory, Redis, and who runs on that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

import click
import hiredis

from gateway import config as configuration
from gateway.config import Config
from gateway.errors import GatewayError, NotReady, Refused
from gateway.ledger import Beat
from gateway.sinks.blocking import Address, BlockingRedis, RedisURL
from gateway.sinks.sentinel import address
from gateway.terminal import Fails, printable

#: Seconds for which Redis may owe an answer.
TIMEOUT_S: Final = 10.0

Function = TypeVar("Function", bound=Callable[..., Any])


def located(command: Function) -> Function:
    """Give a command the options that lead to a gateway: C{url}, C{data_dir} and C{path}, each None by default."""
    url = "redis:// or rediss:// URL, or redis+sentinel://.  [default: the configuration's, else the embedded Redis]"
    for option in (
        click.option("--config", "path", metavar="FILE", help="Configuration of the gateway."),
        click.option("--data-dir", metavar="DIR", help="Data directory of a gateway on this machine."),
        click.option("--redis", "url", metavar="URL", help=url),
    ):
        command = option(command)
    return command


def configured(path: str | None, data_dir: str | None) -> Config:
    """
    The configuration file, with what the command line says over it.

    @raise ConfigError: when it can't be used.
    """
    config = configuration.read(path)
    return config if data_dir is None else config.override("gateway", "option --data-dir", data_dir=data_dir)


def redis_of(config: Config, url: str | None) -> Address:
    """
    The Redis of a gateway: the one of the option, else the configuration's, else its embedded one.

    @raise ConfigError: when its URL is malformed.
    """
    if url is not None:
        return address(url, "option --redis")
    if config.redis.url:
        return address(config.redis.url, f"{config.where}: section [redis], key 'url'")
    file = config.data_dir / "redis.url"
    try:
        return RedisURL.parse(file.read_text().strip(), str(file))
    except OSError as error:
        raise Fails(
            f"{file}: {error.strerror}; no gateway with an embedded Redis has run there (name yours with --redis URL)"
        ) from error


class CannotAsk(Fails):
    """There is nobody to be asked."""

    exit_code = 2


class Opened(NamedTuple):
    """A gateway's Redis that can be asked."""

    config: Config
    address: Address
    client: BlockingRedis


@contextmanager
def opened(url: str | None, data_dir: str | None, path: str | None) -> Iterator[Opened]:
    """
    The configuration, and the Redis of the gateway that the options of L{located} lead to.

    @raise CannotAsk: in one line, for whatever keeps it from answering, then and until the end.
    """
    try:
        config = configured(path, data_dir)
        where = redis_of(config, url)
    except Fails as error:
        raise CannotAsk(printable(error.message)) from error
    except GatewayError as error:
        raise CannotAsk(printable(str(error))) from error
    try:
        client = where.connect(TIMEOUT_S)
        try:
            yield Opened(config, where, client)
        finally:
            client.close()
    except Refused as error:
        raise CannotAsk(printable(f"{where} refuses: {error}")) from error
    except hiredis.ReplyError as error:
        raise CannotAsk(printable(f"{where} does not answer the question: {error}")) from error
    except (OSError, NotReady, hiredis.ProtocolError) as error:
        raise CannotAsk(printable(f"{where} can't be asked: {error}")) from error


def beats(client: BlockingRedis, prefix: str) -> dict[str, Beat]:
    """What each process of a gateway that runs says of itself, by its name."""
    found = {}
    for name, key in keys(client, f"{prefix}:instance:"):
        text = client.command("GET", key)
        if text is not None:  # it ended since
            found[name] = Beat.read(name, text)
    return found


def keys(client: BlockingRedis, start: str) -> list[tuple[str, bytes]]:
    """Keys that begin so, with what follows of their names, in order."""
    found: set[bytes] = set()
    cursor = b"0"
    # a prefix may hold none of what stands for something else in a pattern: see KEY_PARTS in config.py
    while True:
        cursor, some = client.command("SCAN", cursor, "MATCH", f"{start}*", "COUNT", "1000")
        found.update(some)
        if cursor == b"0":
            return sorted((key.decode("utf-8", "replace")[len(start) :], key) for key in found)
