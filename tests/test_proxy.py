"""The header of the PROXY protocol: both versions, cut anywhere, and what is none."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.errors import MalformedHeader
from gateway.proxy import V1_BYTES, V2, V2_BYTES, V2_FIXED, Header, read_header

#: What HAProxy 2.6 sends: a TCP4 and a TCP6 header of each version, as they are on the wire.
V2_TCP4 = V2 + bytes.fromhex("2111000c c0000207 c6336402 1267 22b8")
V2_TCP6 = V2 + bytes.fromhex("21210024") + bytes.fromhex("20010db8000000000000000000000007" * 2 + "126722b8")
SIX = "2001:db8::7"


def version_2(command: int, family: int, block: bytes, size: int | None = None, version: int = 2) -> bytes:
    """A header of version 2."""
    announced = len(block) if size is None else size
    return V2 + bytes([version << 4 | command, family]) + announced.to_bytes(2, "big") + block


#: Headers, and whom they are for.
GOOD: list[tuple[bytes, tuple[str, int] | None]] = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.2 4711 8888\r\n", ("192.0.2.7", 4711)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ("255.255.255.255", 65535)),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ("0.0.0.0", 0)),
    (b"PROXY TCP6 2001:DB8::7 2001:db8::2 4711 8888\r\n", (SIX, 4711)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:c000:202 4711 8888\r\n", ("::ffff:192.0.2.7", 4711)),
    (
        b"PROXY TCP6 %b %b 65535 65535\r\n" % (b":".join([b"ffff"] * 8), b":".join([b"ffff"] * 8)),
        (":".join(["ffff"] * 8), 65535),
    ),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN \r\n", None),
    (b"PROXY UNKNOWN whatever\r \n stands \0\xff there\r\n", None),
    (b"PROXY UNKNOWN " + b"f" * (V1_BYTES - 16) + b"\r\n", None),
    (V2_TCP4, ("192.0.2.7", 4711)),
    (V2_TCP6, (SIX, 4711)),
    (version_2(1, 0x11, V2_TCP4[16:] + b"\x04\0\1x\x03\0\4abcd"), ("192.0.2.7", 4711)),
    (version_2(1, 0x21, V2_TCP6[16:] + b"t" * (V2_BYTES - 36)), (SIX, 4711)),
    (version_2(1, 0x21, IPv6Address("::ffff:192.0.2.7").packed * 2 + V2_TCP6[48:]), ("::ffff:192.0.2.7", 4711)),
    (version_2(0, 0x00, b""), None),
    (version_2(0, 0x00, b"\x04\0\1x"), None),
    (version_2(0, 0x11, V2_TCP4[16:]), None),
    (version_2(0, 0xFF, b"x"), None),
    (version_2(1, 0x00, b""), None),
    (version_2(1, 0x00, b"y" * 40), None),
    (version_2(1, 0x12, V2_TCP4[16:]), None),
    (version_2(1, 0x22, V2_TCP6[16:]), None),
    (version_2(1, 0x31, b"/run/one".ljust(108, b"\0") * 2), None),
    (version_2(1, 0x32, b"/run/one".ljust(108, b"\0") * 2), None),
]

#: What is no header, the byte at which that shows, and a word of why.
BAD: list[tuple[bytes, int, str]] = [
    (b"*HQ,9170123456,V1,", 0, "begins no header"),
    (b"GET / HTTP/1.1\r\n", 0, "begins no header"),
    (b"proxy TCP4 ", 0, "begins no header"),
    (b"PROXX", 4, "b'X' begins no header"),
    (b"PROXY\r\n", 5, "begins no header"),
    (b"\r\n\r\n\0\r\nQUITE", 11, "begins no header"),
    (b"\n", 0, "begins no header"),
    (b"PROXY \r\n", 6, "none of TCP4"),
    (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", 6, "none of TCP4"),
    (b"PROXY UNKNOWNS\r\n", 6, "none of TCP4"),
    (b"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", 6, "none of TCP4"),
    (b"PROXY TCP4\r\n", 12, "2 words"),
    (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", 30, "5 words"),
    (b"PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", 33, "7 words"),
    (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", 33, "7 words"),
    (b"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", 11, "no address of TCP4"),
    (b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", 11, "no address of TCP4"),
    (b"PROXY TCP4 1.2.3.4 1.2.3 1 2\r\n", 19, "no address of TCP4"),
    (b"PROXY TCP4 ::1 ::1 1 2\r\n", 11, "no address of TCP4"),
    (b"PROXY TCP4 1.2.3.4/8 1.2.3.4 1 2\r\n", 11, "no address of TCP4"),
    (b"PROXY TCP4 \xd9\xa1.2.3.4 1.2.3.4 1 2\r\n", 11, "no address of TCP4"),
    (b"PROXY TCP6 1.2.3.4 ::1 1 2\r\n", 11, "no address of TCP6"),
    (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", 11, "no address of TCP6"),
    (b"PROXY TCP6 ::1 1::2::3 1 2\r\n", 15, "no address of TCP6"),
    (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", 27, "no port"),
    (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 02\r\n", 29, "no port"),
    (b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", 27, "no port"),
    (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", 29, "no port"),
    (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r\n", 29, "no port"),
    (b"PROXY UNKNOWN " + b"f" * (V1_BYTES - 14), V1_BYTES, "no CR LF"),
    (b"PROXY UNKNOWN " + b"f" * (V1_BYTES - 15) + b"\r\n", V1_BYTES, "no CR LF"),
    (V2 + b"\x11", 12, "version 1"),
    (V2 + b"\x32", 12, "version 3"),
    (V2 + b"\x22", 12, "command 2"),
    (version_2(1, 0x13, V2_TCP4[16:]), 13, "0x13"),
    (version_2(1, 0x41, V2_TCP6[16:]), 13, "0x41"),
    (version_2(1, 0x10, V2_TCP4[16:]), 13, "0x10"),
    (version_2(1, 0x11, V2_TCP4[16:27]), 14, "11 bytes are announced"),
    (version_2(1, 0x21, V2_TCP4[16:]), 14, "12 bytes are announced"),
    (version_2(1, 0x11, b"", size=V2_BYTES + 1), 14, "more than 4096"),
    (version_2(0, 0x00, b"", size=0xFFFF), 14, "more than 4096"),
]

ports = st.integers(0, 65_535)


class HeaderTests(SynchronousTestCase):
    """Headers as the specification has them."""

    def test_good(self) -> None:
        """Each says whom it is for, and how long it is; LOCAL alone is the balancer's own."""
        for data, source in GOOD:
            header = read_header(data)
            self.assertEqual(Header(source, len(data), data[12:13] == b"\x20"), header, data)

    def test_cut_anywhere(self) -> None:
        """Wherever a header is cut, the bytes before that are too few; what follows it changes nothing."""
        for data, _ in GOOD:
            for cut in range(len(data)):
                self.assertIsNone(read_header(data[:cut]), data[:cut])
            for rest in (b"*HQ,9170123456,V0#", b"\r\n", data, b"\0"):
                self.assertEqual(read_header(data), read_header(data + rest))

    def test_bad(self) -> None:
        """What is none is refused, at the byte that shows it, and in the same words with more behind it."""
        for data, at, why in BAD:
            for rest in (b"", b" ", b"\r\n", b"x" * 5000):
                if not rest and not data.endswith(b"\n") and data.startswith(b"PROXY ") and len(data) < V1_BYTES:
                    continue
                with self.assertRaises(MalformedHeader, msg=str(data)) as caught:
                    read_header(data + rest)
                self.assertEqual(at, caught.exception.at, data)
                self.assertIn(why, str(caught.exception))
                self.assertIn(f"byte {at}: ", str(caught.exception))


class PropertyTests(SynchronousTestCase):
    """For any header, and for any bytes."""

    def hold(self, data: bytes, source: tuple[str, int], rest: bytes, cut: int) -> None:
        """A header says what it says, with anything behind it, and nothing when it is cut."""
        header = read_header(data + rest)
        assert header is not None
        self.assertEqual((source, data), (header.source, data[: header.length]))
        self.assertIsNone(read_header(data[: cut % len(data)]))

    @given(st.ip_addresses(v=4), ports, ports, st.binary(max_size=40), st.integers(0, 10_000))
    def test_tcp4(self, host: IPv4Address, port: int, to: int, rest: bytes, cut: int) -> None:
        """TCP over IPv4, in both versions."""
        self.hold(f"PROXY TCP4 {host} {host} {port} {to}\r\n".encode(), (str(host), port), rest, cut)
        block = host.packed * 2 + port.to_bytes(2, "big") + to.to_bytes(2, "big")
        self.hold(version_2(1, 0x11, block), (str(host), port), rest, cut)

    @given(
        st.ip_addresses(v=6), ports, st.binary(max_size=V2_BYTES - 36), st.binary(max_size=40), st.integers(0, 10_000)
    )
    def test_tcp6(self, host: IPv6Address, port: int, more: bytes, rest: bytes, cut: int) -> None:
        """TCP over IPv6, in both versions, with anything behind the addresses in version 2."""
        text = f"::ffff:{host.ipv4_mapped}" if host.ipv4_mapped else str(host)
        for spelled in (host.compressed, host.exploded, host.exploded.upper()):
            self.hold(f"PROXY TCP6 {spelled} ::1 {port} 8888\r\n".encode(), (text, port), rest, cut)
        block = host.packed * 2 + port.to_bytes(2, "big") * 2
        self.hold(version_2(1, 0x21, block + more), (text, port), rest, cut)

    @given(
        st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN", V2, V2 + b"\x21\x11\0\x0c", V2_TCP4]),
        st.one_of(st.binary(max_size=60), st.text("TCP46 .:0123456789abf\r\n", max_size=120).map(str.encode)),
    )
    def test_anything(self, start: bytes, more: bytes) -> None:
        """Any bytes are a header, none, or too few; and as they come one by one, that changes once at most."""
        data = start + more
        answers = [_answer(data[:cut]) for cut in range(len(data) + 1)]
        decided = [answer for answer in answers if answer is not None]
        self.assertEqual(answers[len(answers) - len(decided) :], decided, "undecided again")
        self.assertLessEqual(len(set(decided)), 1)

    @given(st.binary(min_size=1, max_size=20), st.sampled_from([b"", b"PROXY ", V2, V2_TCP4[:14]]))
    def test_bounded(self, more: bytes, start: bytes) -> None:
        """No more bytes are asked for than the longest header has."""
        longest = V2_FIXED + V2_BYTES
        self.assertIsNotNone(_answer((start + more * longest)[:longest]))


def _answer(data: bytes) -> Header | str | None:
    """What is made of bytes."""
    try:
        return read_header(data)
    except MalformedHeader as error:
        return str(error)
