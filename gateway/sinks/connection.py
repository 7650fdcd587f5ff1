"""One connection to Redis: txredisapi's protocol, commands packed by hiredis, the scripts, and the names of keys."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from hashlib import sha1
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import txredisapi
from twisted.internet import defer
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure

from gateway.errors import NotReady, Refused
from gateway.sinks.blocking import REFUSALS, RedisURL, pack
from gateway.transports.writing import send as write


class RedisConnection(txredisapi.HiredisProtocol):  # type: ignore[misc]  # txredisapi has no annotations
    """txredisapi's protocol without its pool: bytes stay bytes, and a packed command is written as it is."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self._seconds = seconds
        #: when the commands were written that are still to be answered
        self.owed: deque[float] = deque()
        self.lost: defer.Deferred[None] = defer.Deferred()

    def connectionMade(self) -> None:
        # the pool's own AUTH gives up for ever when it is refused; ours is part of the handshake
        self.connected = 1
        self._ready = True

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        reader = self._reader
        reader.feed(data)
        while (answer := reader.gets()) is not False:
            if not self.owed:  # a server that speaks unasked turns us away: too many clients, say
                self.transport.abortConnection()
                return
            self.owed.popleft()
            self.replyReceived(answer)

    def connectionLost(self, why: Failure) -> None:
        self.owed.clear()
        super().connectionLost(why)
        self.lost.callback(None)

    def send(self, packed: bytes) -> defer.Deferred[Any]:
        """Write a packed command; its answer."""
        self.owed.append(self._seconds())
        write(self.transport, packed)
        d: defer.Deferred[Any] = self.replyQueue.get()
        return d.addCallback(self.handle_reply)

    def command(self, *args: str | bytes | int) -> defer.Deferred[Any]:
        """Pack and write a command; its answer."""
        if not self.connected:
            return defer.fail(NotReady("the connection is lost"))
        return self.send(pack(args))


def dial(reactor: Any, url: RedisURL, timeout: float) -> defer.Deferred[RedisConnection]:
    """A connection to the server of this URL, on which nothing was said yet; fails within C{timeout} seconds."""
    endpoint: Any = HostnameEndpoint(reactor, url.host.encode(), url.port, timeout=timeout)
    if url.tls:
        endpoint = wrapClientTLS(optionsForClientTLS(url.host, _trusted(url.ca_file)), endpoint)
    factory: Any = Factory.forProtocol(lambda: RedisConnection(reactor.seconds))
    factory.noisy = False
    d: defer.Deferred[RedisConnection] = endpoint.connect(factory)
    return d


def _trusted(path: str) -> Any:
    """Whose certificates are believed: those of a file, which holds one after the other; None: the system's."""
    if not path:
        return None
    blocks = re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", Path(path).read_text(), re.DOTALL)
    return trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])


class Script(NamedTuple):
    """A server-side script and the name under which the server knows it."""

    text: str
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        """One of the .lua files beside this module."""
        text = files("gateway.sinks").joinpath(name).read_text()
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


class Layout(NamedTuple):
    """
    Names that the sink writes under.

    @ivar prefix: of every key, without its colon.
    @ivar instance: the name of this process among all; of a worker, that of its gateway, C{/} and its number.
    """

    prefix: str
    instance: str

    def key(self, *parts: str) -> str:
        """A key."""
        return ":".join((self.prefix, *parts))


def source(instance: str) -> str:
    """C{source} of events: the gateway, whichever of its workers it was."""
    return f"gateway/{instance.partition('/')[0]}"


async def translated(d: defer.Deferred[Any]) -> Any:
    """Tell what Redis refuses for good from what it can't do now."""
    try:
        return await d
    except txredisapi.ResponseError as error:
        if str(error).startswith(REFUSALS):
            raise Refused(str(error)) from error
        raise NotReady(str(error)) from error
