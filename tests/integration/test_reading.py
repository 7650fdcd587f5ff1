"""Connections that are read in one go: what happens to each of them is what the reactor would have done."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from gateway.transports import reading
from gateway.transports.reading import Readers
from tests.integration.parts import SOON

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@implementer(IHalfCloseableProtocol)
class Hearing(Protocol):
    """Keeps what it hears; C{boom} is an error, and C{apart} has the others wait."""

    transport: Any

    def __init__(self, all_of_them: list[Hearing]) -> None:
        self.all_of_them = all_of_them
        self.heard = b""
        self.half = False
        self.lost: Failure | None = None
        all_of_them.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if data == b"boom":
            raise ArithmeticError(data)
        if data == b"apart":
            for other in self.all_of_them:
                if other is not self:
                    other.transport.stopReading()

    def readConnectionLost(self) -> None:
        self.half = True

    def writeConnectionLost(self) -> None:
        """See L{IHalfCloseableProtocol}."""

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.lost = reason


class ReadersTests(TestCase):
    """Some connections on the reactor."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.turns: Any = reactor
        self.readers = Readers(self.turns)
        self.servers: list[Hearing] = []
        self.clients: list[socket.socket] = []
        self.port = self.listen()
        self.addCleanup(self.end)

    def listen(self) -> Any:
        """A port whose connections are read so."""
        factory = Factory.forProtocol(lambda: Hearing(self.servers))
        factory.noisy = False
        port = self.turns.listenTCP(0, factory, interface="127.0.0.1")
        port.reactor = self.readers
        return port

    async def end(self) -> None:
        """Nothing is left on the reactor."""
        await self.port.stopListening()
        self.reactor_ends()
        for client in self.clients:
            client.close()

    def reactor_ends(self) -> None:
        """What a reactor does at its end."""
        if self.readers in self.turns.getReaders():
            self.turns.removeReader(self.readers)
            self.readers.connectionLost(Failure(ConnectionAborted()))

    async def until(self, what: Callable[[], object]) -> None:
        """Let the reactor turn until something is so."""
        ends = time.monotonic() + SOON
        while not what():
            self.assertLess(time.monotonic(), ends, "it did not happen")
            await deferLater(self.turns, 0.005, lambda: None)

    async def connect(self, count: int) -> None:
        """So many connect."""
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", self.port.getHost().port))
            self.clients.append(client)
            await self.until(lambda: len(self.servers) == len(self.clients))

    def heard(self) -> list[bytes]:
        """What each has heard."""
        return [server.heard for server in self.servers]

    async def test_all(self) -> None:
        """What comes on any of them is heard there, also when not all are read at once."""
        self.patch(reading, "IN_A_ROW", 2)
        await self.connect(5)
        for number, client in enumerate(self.clients):
            client.sendall(b"%d" % number)
        await self.until(lambda: all(self.heard()))
        self.assertEqual([b"0", b"1", b"2", b"3", b"4"], self.heard())

    async def test_half_closed(self) -> None:
        """Who says no more can still be told something; once that is done it is over."""
        await self.connect(2)
        self.clients[0].shutdown(socket.SHUT_WR)
        await self.until(lambda: self.servers[0].half)
        self.assertIsNone(self.servers[0].lost)
        self.servers[0].transport.write(b"still there")
        self.clients[0].settimeout(0.0)
        said = b""

        def told() -> bool:
            nonlocal said
            try:
                said += self.clients[0].recv(100)
            except BlockingIOError:
                pass
            return said == b"still there"

        await self.until(told)
        self.servers[0].transport.loseConnection()
        await self.until(lambda: self.servers[0].lost)
        self.clients[1].sendall(b"as well")
        await self.until(lambda: self.servers[1].heard == b"as well")

    async def test_reset(self) -> None:
        """One that is reset is lost."""
        await self.connect(1)
        self.clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.clients[0].close()
        await self.until(lambda: self.servers[0].lost)
        self.assertIsInstance(self.servers[0].lost and self.servers[0].lost.value, ConnectionLost)

    async def test_error(self) -> None:
        """One whose protocol fails is lost; the others are not."""
        await self.connect(2)
        self.clients[0].sendall(b"boom")
        await self.until(lambda: self.servers[0].lost)
        self.assertEqual(1, len(self.flushLoggedErrors(ArithmeticError)))
        self.clients[1].sendall(b"fine")
        await self.until(lambda: self.servers[1].heard == b"fine")
        self.assertIsNone(self.servers[1].lost)

    async def test_not_read(self) -> None:
        """One that is not to be read is not, also when it was about to be; later it hears what has come meanwhile."""
        await self.connect(2)
        for client in self.clients:
            client.sendall(b"apart")  # whoever is read first has the other one wait
        await self.until(lambda: any(self.heard()))
        await deferLater(self.turns, 0.05, lambda: None)
        self.assertEqual([b"", b"apart"], sorted(self.heard()))
        for server in self.servers:
            server.transport.startReading()
        await self.until(lambda: self.heard() == [b"apart", b"apart"])

    async def test_same_number(self) -> None:
        """A connection that gets the descriptor of one that is gone is read."""
        for number in range(3):
            await self.connect(1)
            server = self.servers[number]
            self.clients[number].sendall(b"here")
            await self.until(lambda server=server: server.heard == b"here")  # type: ignore[misc]  # mypy can't tell
            server.transport.abortConnection()
            await self.until(lambda server=server: server.lost)  # type: ignore[misc]

    async def test_reactor_ends(self) -> None:
        """When the reactor ends all of them do."""
        await self.connect(2)
        self.reactor_ends()
        self.assertTrue(all(server.lost for server in self.servers))
