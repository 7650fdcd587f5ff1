"""
Binds the listening sockets: TCP and UDP on the same port of each address, IPv6 beside IPv4.

Bound before the reactor runs, so that a busy port stops start-up with one line; they listen when there is
somewhere to put what comes.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from gateway.errors import StartError

BACKLOG: Final = 4096
UDP_RECEIVE_BUFFER: Final = 4 * 1024 * 1024
#: A peer that says nothing is asked after so long whether it is still there; mobile data costs money.
KEEPALIVE_IDLE_S: Final = 600


class Pair(NamedTuple):
    """A bound TCP and a bound UDP socket of one address."""

    tcp: socket.socket
    udp: socket.socket


class Sockets(NamedTuple):
    """
    What one process listens on.

    @ivar proxied: where balancers connect, TCP alone.
    @ivar encrypted: where trackers connect with TLS.
    """

    pairs: list[Pair]
    proxied: list[socket.socket]
    encrypted: list[socket.socket]

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """Where trackers connect, and where balancers do, as it may be shown."""
        return [socket_name(pair.tcp) for pair in self.pairs], [socket_name(sock) for sock in self.proxied]

    def close(self) -> None:
        """Give them up."""
        for pair in self.pairs:
            _close(pair)
        for sock in (*self.proxied, *self.encrypted):
            sock.close()

    def listen(self) -> None:
        """
        Let the kernel take connections.

        @raise OSError: when another process does.
        """
        for sock in (*(pair.tcp for pair in self.pairs), *self.proxied, *self.encrypted):
            sock.listen(BACKLOG)


def bind(
    addresses: Sequence[tuple[str, int]],
    optional: frozenset[tuple[str, int]] = frozenset(),
    proxied: Sequence[tuple[str, int]] = (),
    processes: int = 1,
    encrypted: Sequence[tuple[str, int]] = (),
) -> list[Sockets]:
    """
    Bind each address for each process: the kernel shares out what comes between them.

    @param addresses: for TCP and UDP.
    @param optional: addresses that may be missing because the kernel has no IPv6.
    @param proxied: for TCP alone, where balancers connect.
    @param encrypted: for TCP alone, where trackers connect with TLS.
    @raise StartError: naming the address that can't be had.
    """
    bound = [Sockets([], [], []) for _ in range(processes)]
    try:
        for host, port in addresses:
            for family, where in _resolve(host, port):
                try:
                    for at, pair in enumerate(_each(_pair, family, where, processes)):
                        bound[at].pairs.append(pair)
                except OSError as error:
                    if (host, port) in optional and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        continue
                    raise StartError(f"can't listen on {host!r}: {error.strerror}") from error
        alone = [*((where, "proxied") for where in proxied), *((where, "encrypted") for where in encrypted)]
        for (host, port), kind in alone:
            for family, where in _resolve(host, port):
                # before it is bound: the kernel would let it, as nobody listens there yet
                first = bound[0]
                _apart(family, where, [*(pair.tcp for pair in first.pairs), *first.proxied, *first.encrypted])
                try:
                    for at, sock in enumerate(_each(_stream, family, where, processes)):
                        getattr(bound[at], kind).append(sock)
                except OSError as error:
                    raise StartError(f"can't listen on {host!r}: {error.strerror}") from error
    except BaseException:
        for sockets in bound:
            sockets.close()
        raise
    return bound


def inherited(descriptors: Sequence[int]) -> Sockets:
    """
    The sockets that systemd listens on for us: of each address a TCP and a UDP one.

    @raise StartError: when there are none, or others than these.
    """
    if not descriptors:
        raise StartError("listen 'systemd': systemd has handed over no sockets; see conf/gateway.socket")
    found: dict[tuple[int, str, int], dict[int, socket.socket]] = {}
    for fd in descriptors:
        try:
            sock = socket.socket(fileno=fd)
            kind, name = sock.type, sock.getsockname()
        except OSError as error:
            raise StartError(f"listen 'systemd': descriptor {fd} is no socket: {error.strerror}") from error
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or kind not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            raise StartError(f"listen 'systemd': descriptor {fd} is neither TCP nor UDP")
        os.set_inheritable(fd, False)
        sock.setblocking(False)
        if found.setdefault((sock.family, name[0], name[1]), {}).setdefault(kind, sock) is not sock:
            raise StartError(f"listen 'systemd': {socket_name(sock)} was handed over twice")
    for sockets in found.values():
        if len(sockets) < 2:
            (lone,) = sockets.values()
            other = "ListenDatagram" if lone.type == socket.SOCK_STREAM else "ListenStream"
            raise StartError(
                f"listen 'systemd': {socket_name(lone)} lacks its {other}=: each address takes TCP and UDP"
            )
    pairs = [Pair(one[socket.SOCK_STREAM], one[socket.SOCK_DGRAM]) for one in found.values()]
    for pair in pairs:
        _kept_alive(pair.tcp)
        pair.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_RECEIVE_BUFFER)
    return Sockets(pairs, [], [])


def bind_page(host: str, port: int) -> socket.socket:
    """
    Bind the page's address.

    @raise StartError: when it is in use, or OSError when it can't be had.
    """
    family, where = next(iter(_resolve(host, port)))
    return _stream(family, where)


def _each(make: Callable[..., Any], family: int, where: tuple[str, int], processes: int) -> Iterator[Any]:
    """
    Sockets of one address, as C{make} makes them, for each process.

    Those that share a port would share it with those of any other process of
    the same user as well, and say nothing: whether it is free is tried with one
    that does not share.
    """
    first = make(family, where)
    if processes == 1:
        yield first
        return
    where = (where[0], (first.tcp if isinstance(first, Pair) else first).getsockname()[1])
    _close(first)
    for _ in range(processes):
        yield make(family, where, shared=True)


def _close(made: Pair | socket.socket) -> None:
    for sock in made if isinstance(made, Pair) else (made,):
        sock.close()


def _apart(family: int, where: tuple[str, int], others: Sequence[socket.socket]) -> None:
    host, port = where
    for other in others:
        there, number = other.getsockname()[:2]
        if port and (number, other.family) == (port, family) and (host == there or {host, there} & {"0.0.0.0", "::"}):
            raise StartError(f"can't listen on TCP {peer_name(host, port)}: {socket_name(other)} is listened on, too")


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


def _pair(family: int, where: tuple[str, int], shared: bool = False) -> Pair:
    tcp = _stream(family, where, shared)
    try:
        # port 0 means any, for tests: UDP then takes the same number
        udp = _bound(family, socket.SOCK_DGRAM, (where[0], tcp.getsockname()[1]), shared)
    except BaseException:
        tcp.close()
        raise
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_RECEIVE_BUFFER)
    return Pair(tcp, udp)


def _stream(family: int, where: tuple[str, int], shared: bool = False) -> socket.socket:
    tcp = _bound(family, socket.SOCK_STREAM, where, shared)
    _kept_alive(tcp)
    return tcp


def _kept_alive(tcp: socket.socket) -> None:
    """What accepted connections inherit."""
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)


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
