"""
Reads all connections in one go.

The reactor looks up, wraps in the context of its log and calls each descriptor
by itself, which costs more than to read it.  So connections are in an epoll of
their own, and the reactor knows only that.
"""

from __future__ import annotations

import select
from typing import Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

#: So many connections are read at most before others have their turn.
IN_A_ROW: Final = 512


@implementer(IReadDescriptor)
class Readers:
    """
    What a port's connections take for the reactor.

    It reads them itself, and passes on to the reactor all else that they ask for.
    """

    log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._readers: dict[int, Any] = {}
        reactor.addReader(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def addReader(self, reader: Any) -> None:
        fd = reader.fileno()
        if fd not in self._readers:
            self._epoll.register(fd, select.EPOLLIN)
        self._readers[fd] = reader

    def removeReader(self, reader: Any) -> None:
        fd = reader.fileno()
        if self._readers.get(fd) is reader:
            del self._readers[fd]
            self._epoll.unregister(fd)
        else:  # the port itself
            self._reactor.removeReader(reader)

    # -- what the reactor asks for

    def fileno(self) -> int:
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        return "tcp"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended, and so have the connections."""
        for reader in list(self._readers.values()):
            reader.connectionLost(reason)
        self._epoll.close()

    def doRead(self) -> None:
        """Read what can be read."""
        readers = self._readers
        for fd, event in self._epoll.poll(0, IN_A_ROW):
            reader = readers.get(fd)
            if reader is None:
                continue  # it went while others were read
            readable = bool(event & select.EPOLLIN)
            try:
                why = reader.doRead() if readable else CONNECTION_LOST
            except Exception as error:
                self.log.failure("reading a connection ended in an error of the gateway's own")
                why = error
            if why:
                self.removeReader(reader)
                self._reactor._disconnectSelectable(reader, why, readable)
