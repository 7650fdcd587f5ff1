"""
Binds the listening sockets: TCP and UDP on the same port of each address, IPv6 beside IPv4.

Bound before the reactor runs, so that a busy port stops start-up with one line; they listen when there is
somewhere to put what comes.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
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
        host, port = self.tcp.getsockname()[:2]
        return f"[{host}]:{port}" if self.tcp.family == socket.AF_INET6 else f"{host}:{port}"


def bind(
    addresses: Sequence[tuple[str, int]], optional: frozenset[tuple[str, int]] = frozenset(), sets: int = 1
) -> list[list[Pair]]:
    """
    Bind each address for TCP and UDP, so many times: the kernel shares out what comes between the sets.

    @param optional: addresses that may be missing because the kernel has no IPv6.
    @return: the sets, each with a pair of each address.
    @raise StartError: naming the address that can't be had.
    """
    bound: list[list[Pair]] = [[] for _ in range(sets)]
    try:
        for host, port in addresses:
            for family, where in _resolve(host, port):
                try:
                    for at, pair in enumerate(_pairs(family, where, sets)):
                        bound[at].append(pair)
                except OSError as error:
                    if (host, port) in optional and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        continue
                    raise StartError(f"can't listen on {host!r}: {error.strerror}") from error
    except BaseException:
        close(bound)
        raise
    return bound


def close(sets: Sequence[Sequence[Pair]]) -> None:
    """Give up what was bound."""
    for pairs in sets:
        for pair in pairs:
            pair.tcp.close()
            pair.udp.close()


def _pairs(family: int, where: tuple[str, int], sets: int) -> Iterator[Pair]:
    """
    Pairs of one address.

    Sockets that share a port would share it with those of any other process of
    the same user as well, and say nothing: whether it is free is tried with one
    that does not share.
    """
    first = _pair(family, where)
    if sets == 1:
        yield first
        return
    where = (where[0], first.tcp.getsockname()[1])
    close([[first]])
    for _ in range(sets):
        yield _pair(family, where, shared=True)


def _resolve(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"can't listen on {host!r}: {error.strerror or error}") from error
    # a name may stand for several addresses; each once
    return list(dict.fromkeys((row[0], (str(row[4][0]), port)) for row in found))


def _pair(family: int, where: tuple[str, int], shared: bool = False) -> Pair:
    tcp = _bound(family, socket.SOCK_STREAM, where, shared)
    try:
        # accepted connections inherit these
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        # port 0 means any, for tests: UDP then takes the same number
        udp = _bound(family, socket.SOCK_DGRAM, (where[0], tcp.getsockname()[1]), shared)
    except BaseException:
        tcp.close()
        raise
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_RECEIVE_BUFFER)
    return Pair(tcp, udp)


def _bound(family: int, kind: int, where: tuple[str, int], shared: bool) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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
