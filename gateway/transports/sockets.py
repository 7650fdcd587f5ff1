"""
Binds the listening sockets: TCP and UDP on the same port of each address, IPv6 beside IPv4.

Bound before the reactor runs, so that a busy port stops start-up with one line; they listen when there is
somewhere to put what comes.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.errors import StartError

BACKLOG: Final = 4096
UDP_RECEIVE_BUFFER: Final = 4 * 1024 * 1024
#: A peer that says nothing is asked after so long whether it is still there; mobile data costs money.
KEEPALIVE_IDLE_S: Final = 600


class Pair(NamedTuple):
    """A bound TCP and a bound UDP socket of one address."""

    tcp: socket.socket
    udp: socket.socket

    @property
    def name(self) -> str:
        """C{host:port} as it may be shown."""
        return socket_name(self.tcp)


def bind(addresses: Sequence[tuple[str, int]], optional: frozenset[tuple[str, int]] = frozenset()) -> list[Pair]:
    """
    Bind each address for TCP and UDP.

    @param optional: addresses that may be missing because the kernel has no IPv6.
    @raise StartError: naming the address that can't be had.
    """
    pairs: list[Pair] = []
    try:
        for host, port in addresses:
            for family, where in _resolve(host, port):
                try:
                    pairs.append(_pair(family, where))
                except OSError as error:
                    if (host, port) in optional and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        continue
                    raise StartError(f"can't listen on {host!r}: {error.strerror}") from error
    except BaseException:
        for pair in pairs:
            pair.tcp.close()
            pair.udp.close()
        raise
    return pairs


def bind_tcp(addresses: Sequence[tuple[str, int]], taken: Sequence[socket.socket] = ()) -> list[socket.socket]:
    """
    Bind each address for TCP alone.

    @param taken: bound sockets that don't listen yet; the kernel would let others bind where they are.
    @raise StartError: naming the address that can't be had.
    """
    found: list[socket.socket] = []
    try:
        for host, port in addresses:
            for family, where in _resolve(host, port):
                try:
                    found.append(_stream(family, where))
                except OSError as error:
                    raise StartError(f"can't listen on {host!r}: {error.strerror}") from error
                _apart(found[-1], [*taken, *found[:-1]])
    except BaseException:
        for sock in found:
            sock.close()
        raise
    return found


def _apart(sock: socket.socket, others: Sequence[socket.socket]) -> None:
    host, port = sock.getsockname()[:2]
    for other in others:
        there, number = other.getsockname()[:2]
        if (number, other.family) == (port, sock.family) and (host == there or {host, there} & {"0.0.0.0", "::"}):
            raise StartError(f"can't listen on TCP {socket_name(sock)}: {socket_name(other)} is listened on, too")


def socket_name(sock: socket.socket) -> str:
    """C{host:port} as it may be shown."""
    host, port = sock.getsockname()[:2]
    return peer_name(host, port)


def _resolve(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"can't listen on {host!r}: {error.strerror or error}") from error
    # a name may stand for several addresses; each once
    return list(dict.fromkeys((row[0], (str(row[4][0]), port)) for row in found))


def _pair(family: int, where: tuple[str, int]) -> Pair:
    tcp = _stream(family, where)
    try:
        # port 0 means any, for tests: UDP then takes the same number
        udp = _bound(family, socket.SOCK_DGRAM, (where[0], tcp.getsockname()[1]))
    except BaseException:
        tcp.close()
        raise
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_RECEIVE_BUFFER)
    return Pair(tcp, udp)


def _stream(family: int, where: tuple[str, int]) -> socket.socket:
    tcp = _bound(family, socket.SOCK_STREAM, where)
    # accepted connections inherit these
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    return tcp


def _bound(family: int, kind: int, where: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        name = "TCP" if kind == socket.SOCK_STREAM else "UDP"
        host = f"[{where[0]}]" if family == socket.AF_INET6 else where[0]
        raise StartError(
            f"can't listen on {name} {host}:{where[1]}: {error.strerror or os.strerror(error.errno or 0)}"
        ) from error
    return sock


def peer_name(host: str, port: int) -> str:
    """C{ip:port} or C{[ip6]:port}; an IPv4 address mapped into IPv6 is shown as what it is."""
    if ":" in host:
        if host.startswith("::ffff:") and "." in host:
            return f"{host[7:]}:{port}"
        return f"[{host}]:{port}"
    return f"{host}:{port}"
