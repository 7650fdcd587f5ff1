"""A web server that keeps to limits, and says nothing of what it is asked."""

from __future__ import annotations

from typing import Any, Final

from twisted.web import server
from twisted.web.resource import Resource

#: The longest body, the most connections, and how long one may be idle, s.
BODY_BYTES: Final = 65_536
CONNECTIONS: Final = 256
IDLE_S: Final = 60


class BoundedRequest(server.Request):
    """A request whose body has a limit."""

    def gotLength(self, length: int | None) -> None:
        if length is not None and length > BODY_BYTES:
            self._too_long()
            return
        super().gotLength(length)  # type: ignore[no-untyped-call]  # Twisted's

    def handleContentChunk(self, data: bytes) -> None:
        if self.content is None or self.content.tell() + len(data) > BODY_BYTES:
            self._too_long()
            return
        super().handleContentChunk(data)  # type: ignore[no-untyped-call]  # Twisted's

    def _too_long(self) -> None:
        channel = self.channel
        if channel is not None and channel.transport is not None:
            channel.transport.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            channel.loseConnection()


class QuietSite(server.Site):
    """A site that logs no requests, which hold tokens, numbers and idents, and takes so many connections."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource, requestFactory=BoundedRequest, timeout=IDLE_S)  # type: ignore[no-untyped-call]  # Twisted's
        self._open = 0
        self.noisy = False

    def log(self, request: Any) -> None:
        """Nothing is logged."""

    def buildProtocol(self, addr: Any) -> Any:
        if self._open >= CONNECTIONS:
            return None
        protocol = super().buildProtocol(addr)  # type: ignore[no-untyped-call]  # Twisted's
        self._open += 1
        lost = protocol.connectionLost

        def connection_lost(reason: Any) -> None:
            self._open -= 1
            lost(reason)

        protocol.connectionLost = connection_lost
        return protocol
