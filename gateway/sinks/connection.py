"""One connection to Redis: txredisapi's protocol, commands packed by hiredis, the scripts, and the names of keys."""

from __future__ import annotations

import re
import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import txredisapi
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import defer
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

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


@implementer(IHandshakeListener)
class EncryptedConnection(RedisConnection):
    """
    One with TLS.

    @ivar proven: fires when the server has proven who it is; fails when the connection is lost before.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        super().__init__(seconds)
        self.proven: defer.Deferred[None] = defer.Deferred()

    def handshakeCompleted(self) -> None:
        if not self.transport.disconnecting:  # it is where the certificate is for another name
            self.proven.callback(None)

    def connectionLost(self, why: Failure) -> None:
        super().connectionLost(why)
        if not self.proven.called:
            self.proven.errback(why)


def dial(reactor: Any, url: RedisURL, timeout: float) -> defer.Deferred[RedisConnection]:
    """
    A connection to the server of this URL, on which nothing was said yet; fails within C{timeout} seconds.

    With TLS the server has proven who it is, or what is wrong with its certificate is said.
    """
    if url.tls:
        return defer.Deferred.fromCoroutine(_dial_encrypted(reactor, url, timeout))
    return _connect(HostnameEndpoint(reactor, url.host.encode(), url.port, timeout=timeout), reactor, RedisConnection)


def _connect(endpoint: Any, reactor: Any, kind: type[RedisConnection]) -> defer.Deferred[Any]:
    factory: Any = Factory.forProtocol(lambda: kind(reactor.seconds))
    factory.noisy = False
    d: defer.Deferred[Any] = endpoint.connect(factory)
    return d


async def _dial_encrypted(reactor: Any, url: RedisURL, timeout: float) -> RedisConnection:
    options = optionsForClientTLS(url.host, trusted(url.ca_file))
    plain: Any = HostnameEndpoint(reactor, url.host.encode(), url.port, timeout=timeout)
    connection: EncryptedConnection = await _connect(wrapClientTLS(options, plain), reactor, EncryptedConnection)
    try:
        await connection.proven.addTimeout(timeout, reactor)
    except defer.TimeoutError as error:
        connection.transport.abortConnection()
        raise NotReady(f"no TLS handshake within {timeout:g} s") from error
    except defer.CancelledError:
        connection.transport.abortConnection()
        raise
    except (SSL.Error, VerificationError) as error:
        # what verifies here does not say why it won't; what verifies at the start does
        why = await deferToThreadPool(reactor, reactor.getThreadPool(), _complaint, url, timeout)
        raise NotReady(why or "the TLS handshake failed") from error
    return connection


def _complaint(url: RedisURL, timeout: float) -> str:
    """What is wrong with a server's certificate, or its TLS; empty: nothing any more."""
    try:
        url.connect(timeout).close()
    except ssl.SSLCertVerificationError as error:
        return f"its certificate does not hold: {error.verify_message}"
    except Exception as error:  # whatever it is, it is only told
        return str(error)
    return ""


def trusted(path: str) -> Any:
    """Whose certificates are believed: those of a file, which holds one after the other; None: the system's."""
    if not path:
        return None
    blocks = re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", Path(path).read_text(), re.DOTALL)
    return trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])


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
