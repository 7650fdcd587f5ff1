"""
Writing on a TCP transport: at once, how much of it the peer has acknowledged, and the silence after a command.

What the kernel holds is asked of Linux.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.tcp import Client, Server

from gateway.clock import monotonic

#: So long nothing is written before a command and after it: trackers overlook one that comes with a reply.
COMMAND_GAP_S: Final = 1.0
#: For so long at most replies wait for a command to be acknowledged, what it waits for itself included.
HOLD_S: Final = 5.0
#: How often it is looked whether the peer has acknowledged what was written; the kernel does not call.
POLL_S: Final = 0.1
#: The longest time that TCP_USER_TIMEOUT takes.
LONGEST_MS: Final = 2**31 - 1
#: Those that pass bytes on as they are: what one accepts, and what one makes.
_PLAIN: Final = (Server, Client)


def send(transport: Any, data: bytes) -> None:
    """
    Write at once what the socket takes, and leave the rest to the reactor.

    C{transport.write} always waits for the socket to become writable, which
    costs three system calls and a turn more.  Only a plain TCP transport with
    nothing unsent may be gone around: a TLS one would send the bytes in the
    clear.
    """
    if type(transport) in _PLAIN and not (
        transport.TLS or transport.dataBuffer or transport._tempDataBuffer or transport.disconnecting
    ):
        try:
            sent = transport.socket.send(data)
        except OSError:
            sent = 0  # full, or gone: the transport finds out by itself
        if sent == len(data):
            return
        data = data[sent:]
    transport.write(data)


def undelayed(transport: Any) -> None:
    """Let each write leave at once, in segments of its own: a command does not wait, and nothing is added to it."""
    connection = _socket(transport)
    if connection is not None:
        # by itself: some versions of transport.setTcpNoDelay log an error for a socket that is gone, or none of TCP's
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def unacknowledged(transport: Any) -> bool:
    """Whether the transport or the kernel holds bytes that the peer's kernel has not acknowledged."""
    if getattr(transport, "dataBuffer", b"") or getattr(transport, "_tempDataBuffer", ()):
        return True
    connection = _socket(transport)
    if connection is None:
        return False
    try:
        return fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)) != bytes(4)
    except (OSError, ValueError):  # closed
        return True


def expire_after(transport: Any, seconds: float) -> bool:
    """
    Have the kernel drop the connection when something stays unacknowledged for so long; 0: as it does by itself.

    By itself it sends again for a quarter of an hour or more.  It keeps to this when the gateway is killed, too.

    @return: False when it does not.
    """
    connection = _socket(transport)
    if connection is None:
        return True
    ms = min(max(1, int(seconds * 1000)), LONGEST_MS) if seconds else 0
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ms)
    except OSError:
        return False
    return True


def reset_on_close(transport: Any, reset: bool) -> None:
    """Have the kernel reset the connection when it is closed, by whatever: also when the gateway is killed."""
    connection = _socket(transport)
    if connection is not None:
        with contextlib.suppress(OSError):  # it is gone
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))


def _socket(transport: Any) -> socket.socket | None:
    """The socket of a transport, through TLS as well; None: one in memory."""
    return getattr(transport, "socket", None)


class Quiet:
    """The silence before a command, in which replies wait; it ends with the command, or after C{HOLD_S} without."""

    __slots__ = ("_call",)

    def __init__(self, clock: IReactorTime, over: Callable[[], None]) -> None:
        self._call: IDelayedCall = clock.callLater(HOLD_S, over)

    def cancel(self) -> None:
        """Let it end without a call; at once."""
        self._call.cancel()


class Hold:
    """
    The silence after a command, in which replies wait.

    It lasts C{COMMAND_GAP_S}, and on until the peer has acknowledged the
    command: the kernel may send again what is not acknowledged in one segment
    with what follows it.  After C{HOLD_S} it ends all the same, as
    acknowledgements that stay out have the tracker send everything again.
    """

    __slots__ = ("_call", "_clock", "_ends", "_now", "_outstanding", "_over")

    def __init__(self, clock: IReactorTime, outstanding: Callable[[], bool], over: Callable[[], None]) -> None:
        """@param outstanding: whether the command has yet to be acknowledged."""
        self._clock = clock
        self._now = monotonic(clock)
        self._outstanding = outstanding
        self._over = over
        self._ends = self._now() + HOLD_S
        self._call: IDelayedCall = clock.callLater(COMMAND_GAP_S, self._look)

    @property
    def left(self) -> float:
        """Seconds until it ends or goes on; never 0."""
        return max(POLL_S, self._call.getTime() - self._now())

    def cancel(self) -> None:
        """Let it end without a call; at once."""
        self._call.cancel()

    def _look(self) -> None:
        left = self._ends - self._now()
        if left > 0.0 and self._outstanding():
            self._call = self._clock.callLater(min(POLL_S, left), self._look)
        else:
            self._over()
