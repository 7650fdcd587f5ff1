"""
Reads the header of the PROXY protocol, with which a balancer says for whom it opened a connection.

Versions 1 and 2, as in HAProxy's C{doc/proxy-protocol.txt}, of 2020/03/05.  A
header is the same however it was cut on its way: whoever reads it keeps all
bytes until it is complete, and what follows it is not looked at.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from struct import unpack_from
from typing import Final, NamedTuple

from gateway.errors import MalformedHeader

#: How a header of version 1 begins, and its most bytes, CR and LF included.
V1: Final = b"PROXY "
V1_BYTES: Final = 107
#: How one of version 2 begins; then version and command, family and protocol, and how many bytes follow.
V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
V2_FIXED: Final = 16
#: So many bytes at most may follow: two addresses need 216, and what else a balancer says of a connection is short.
V2_BYTES: Final = 4096

LOCAL: Final = 0
PROXY: Final = 1
#: Families and protocols of version 2 that have an address of TCP.
TCP4: Final = 0x11
TCP6: Final = 0x21
#: Those without one that a receiver takes for unspecified: nothing, UDP, and UNIX.
OTHERS: Final = frozenset({0x00, 0x12, 0x22, 0x31, 0x32})


class Header(NamedTuple):
    """
    What a balancer says of a connection.

    @ivar source: address and port of whoever connected to it; None: it does not say.
    @ivar length: bytes of the header.
    @ivar local: the balancer opened the connection for itself, to see whether somebody is there.
    """

    source: tuple[str, int] | None
    length: int
    local: bool = False


def read_header(data: bytes) -> Header | None:
    """
    The header with which a connection begins.

    @param data: all bytes that have come so far.
    @return: None: more bytes are needed, of 16 + 4096 at most.
    @raise MalformedHeader: when it is none, whatever comes; the line of version 1 is read when it has ended.
    """
    if data.startswith(V1):
        return _version_1(data)
    if data.startswith(V2):
        return _version_2(data)
    for start in (V1, V2):
        if start.startswith(data):
            return None
    at = max(_alike(data, V1), _alike(data, V2))
    raise MalformedHeader(at, f"{data[at : at + 1]!r} begins no header of the PROXY protocol")


def _alike(data: bytes, other: bytes) -> int:
    """How many bytes two texts begin with in common; they differ before either ends."""
    return next(at for at, (one, two) in enumerate(zip(data, other, strict=False)) if one != two)


def _version_1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, V1_BYTES)
    if end < 0:
        if len(data) >= V1_BYTES:
            raise MalformedHeader(V1_BYTES, f"no CR LF within {V1_BYTES} bytes")
        return None
    length, words = end + 2, data[:end].split(b" ")
    family = words[1]
    if family == b"UNKNOWN":
        return Header(None, length)  # whatever stands behind it
    if family not in (b"TCP4", b"TCP6"):
        raise MalformedHeader(len(V1), f"{family!r} is none of TCP4, TCP6 and UNKNOWN")
    if len(words) != 6:
        raise MalformedHeader(length, f"{len(words)} words instead of 6")
    starts = [sum(len(word) + 1 for word in words[:number]) for number in range(6)]
    source = _address(words[2], family, starts[2])
    _address(words[3], family, starts[3])
    port = _port(words[4], starts[4])
    _port(words[5], starts[5])
    return Header((source, port), length)


def _address(word: bytes, family: bytes, at: int) -> str:
    try:
        text = word.decode("ascii")
        if "%" in text or "/" in text:
            raise ValueError("more than an address")
        return str(IPv4Address(text)) if family == b"TCP4" else _ipv6(IPv6Address(text))
    except ValueError as error:
        raise MalformedHeader(at, f"{word!r} is no address of {family.decode()}") from error


def _port(word: bytes, at: int) -> int:
    if not (word.isdigit() and len(word) <= 5 and int(word) <= 65_535) or (len(word) > 1 and word[:1] == b"0"):
        raise MalformedHeader(at, f"{word!r} is no port")
    return int(word)


def _ipv6(address: IPv6Address) -> str:
    """As the kernel writes it, an IPv4 address within it as such."""
    mapped = address.ipv4_mapped
    return str(address) if mapped is None else f"::ffff:{mapped}"


def _version_2(data: bytes) -> Header | None:
    at = len(V2)
    if len(data) > at:
        if data[at] >> 4 != 2:
            raise MalformedHeader(at, f"version {data[at] >> 4} instead of 2")
        if data[at] & 15 not in (LOCAL, PROXY):
            raise MalformedHeader(at, f"command {data[at] & 15} is neither LOCAL nor PROXY")
    if len(data) < V2_FIXED:
        return None
    command, family, size = data[at] & 15, data[at + 1], int.from_bytes(data[at + 2 : V2_FIXED], "big")
    if size > V2_BYTES:
        raise MalformedHeader(at + 2, f"{size} bytes are announced, more than {V2_BYTES}")
    needed = {TCP4: 12, TCP6: 36}.get(family, 0)
    if command == PROXY:
        if not needed and family not in OTHERS:
            raise MalformedHeader(at + 1, f"family and protocol {family:#04x} are unknown")
        if size < needed:
            raise MalformedHeader(at + 2, f"{size} bytes are announced, and the addresses take {needed}")
    length = V2_FIXED + size
    if len(data) < length:
        return None
    if command == LOCAL or not needed:
        return Header(None, length, command == LOCAL)
    if family == TCP4:
        return Header((str(IPv4Address(data[16:20])), *unpack_from(">H", data, 24)), length)
    return Header((_ipv6(IPv6Address(data[16:32])), *unpack_from(">H", data, 48)), length)
