"""A TCP forwarder between the gateway and Redis, which is faulty on demand."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from random import Random
from typing import Final

_BLOCK: Final = 65_536


@dataclass(frozen=True, slots=True)
class Fate:
    """
    What becomes of what goes through a wire.

    @ivar swallows: connections are accepted, and all that is sent on them disappears.
    @ivar delay_s: each piece is held up for so long, in both directions.
    @ivar replies: so many pieces of Redis' replies pass on a connection, at most; of the next one a part, and then
        the connection is cut.  None: all.
    """

    swallows: bool = False
    delay_s: float = 0.0
    replies: int | None = None


_FAITHFUL: Final = Fate()


@dataclass(slots=True)
class _Link:
    """
    Two connections that belong together.

    @ivar deaf: answers don't pass any more.
    @ivar spoilt: something was swallowed, so that what follows makes no sense.
    @ivar passed: pieces of replies that went through while they are counted.
    """

    near: socket.socket
    far: socket.socket
    deaf: bool = False
    spoilt: bool = False
    passed: int = 0
    limit: int = -1

    def shut(self) -> None:
        """Break both."""
        _shut(self.near)
        _shut(self.far)


class Wire:
    """
    A TCP forwarder to Redis.

    @ivar accepted: how many connections went through it so far.
    """

    def __init__(self, target: int, random: Random | None = None) -> None:
        """@param random: decides where a reply is cut."""
        self._target = target
        self._random = random or Random()
        self._fate = _FAITHFUL
        self._links: list[_Link] = []
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="wire", daemon=True).start()

    def lose_answers(self) -> None:
        """From now on requests go through and answers don't, on the connections that there are."""
        for link in self._links:
            link.deaf = True

    def cut(self) -> None:
        """Break the connections that there are."""
        were, self._links = self._links, []
        for link in were:
            link.shut()

    def become(self, fate: Fate) -> None:
        """Treat all connections like this from now on."""
        self._fate = fate

    def heal(self) -> None:
        """Be faithful again; connections on which something is missing are broken."""
        self._fate = _FAITHFUL
        for link in self._links:
            if link.spoilt or link.deaf:
                link.shut()

    def close(self) -> None:
        """Stop."""
        _shut(self._listener)
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link = _Link(near, far)
                self.accepted += 1
                self._links = [*(one for one in self._links if one.near.fileno() >= 0), link]
                threading.Thread(target=self._requests, args=(link,), daemon=True).start()
                threading.Thread(target=self._answers, args=(link,), daemon=True).start()

    def _requests(self, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while data := link.near.recv(_BLOCK):
                if self._passes(link):
                    link.far.sendall(data)
        link.shut()

    def _answers(self, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while data := link.far.recv(_BLOCK):
                if link.deaf or not self._passes(link):
                    continue
                if self._is_cut(link):
                    link.near.sendall(data[: self._random.randrange(len(data))])
                    break
                link.near.sendall(data)
        link.shut()

    def _passes(self, link: _Link) -> bool:
        fate = self._fate
        if fate.delay_s:
            time.sleep(fate.delay_s)
        if fate.swallows:
            link.spoilt = True
        return not link.spoilt

    def _is_cut(self, link: _Link) -> bool:
        most = self._fate.replies
        if most is None:
            link.passed, link.limit = 0, -1
            return False
        if link.limit < 0:
            link.limit = self._random.randint(0, most)
        link.passed += 1
        return link.passed > link.limit


def _shut(end: socket.socket) -> None:
    """Close a socket that another thread may be reading."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
