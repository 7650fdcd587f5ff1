"""
The yardstick: what a good plain server for the same trackers costs, with asyncio, uvloop and redis-py.

It reads V1 reports with one regular expression, appends each to one stream,
and answers it after Redis did.  Reports are appended in pipelines, one at a
time; what comes while one is under way goes with the next.  It decides
nothing about duplicates, lateness or state, and knows one protocol.

Its entries are C{contract}, the fields that a consumer of the gateway gets, or
C{lean}, the least that somebody could live with.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, cast

import orjson
from redis.asyncio import Redis

STREAM: Final = "yardstick:position"
SOURCE: Final = b"yardstick/%b" % socket.gethostname().encode()
KMH_PER_KNOT: Final = 1.852

#: What is held of a stream that has no frame in it.
HELD: Final = 2048

V1: Final = re.compile(
    rb"\*HQ,(\d{10}),V1,(\d\d)(\d\d)(\d\d),([AV]),(\d\d)(\d\d\.\d{4}),([NS]),(\d{3})(\d\d\.\d{4}),([EW]),"
    rb"(\d{3}\.\d\d),(\d{3}),(\d\d)(\d\d)(\d\d),([0-9A-F]{8})(?:,(\d{3}),(\d{1,3}),(\d+),(\d+))?[^#]*#"
)

#: Bits of the status word, 0 when the condition is there; the first is 1 with the ignition on.
ACC_OFF: Final = 1 << 10
RELAY_CUT: Final = 1 << 27
OVERSPEED: Final = 1 << 2

Fields = dict[bytes, bytes]
#: Makes an entry of a report; the others are the transport and the peer that it came by.
Entry = Callable[[re.Match[bytes], bytes, bytes], Fields]
Answer = tuple[Callable[[bytes], object], bytes]


def lean(report: re.Match[bytes], transport: bytes, peer: bytes) -> Fields:
    """Eight fields: who, when, where, how fast, and the status word."""
    groups = report.groups()
    ident, hour, minute, second, valid, lat, lat_min, north, lon, lon_min, east, knots, course = groups[:13]
    day, month, year, status = groups[13:17]
    latitude = int(lat) + float(lat_min) / 60
    longitude = int(lon) + float(lon_min) / 60
    return {
        b"ident": ident,
        b"time": b"20%b-%b-%bT%b:%b:%bZ" % (year, month, day, hour, minute, second),
        b"lat": b"%.6f" % (latitude if north == b"N" else -latitude),
        b"lon": b"%.6f" % (longitude if east == b"E" else -longitude),
        b"speed": b"%.2f" % (float(knots) * KMH_PER_KNOT),
        b"course": course,
        b"valid": b"1" if valid == b"A" else b"0",
        b"status": status,
    }


@lru_cache(maxsize=64)
def second_text(second: int) -> bytes:
    """The time of receipt without its milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()


@lru_cache(maxsize=1024)
def status_fields(status: bytes) -> tuple[bytes, bytes, bytes]:
    """Ignition, immobilizer and levels of a status word."""
    word = int(status, 16)
    return (
        b"1" if word & ACC_OFF else b"0",
        b"0" if word & RELAY_CUT else b"1",
        b"" if word & OVERSPEED else b"overspeed",
    )


def contract(report: re.Match[bytes], transport: bytes, peer: bytes) -> Fields:
    """The fields of the gateway's position stream, all 27 in their order; empty where the report says nothing."""
    groups = report.groups()
    ident, hour, minute, second, flag, lat, lat_min, north, lon, lon_min, east, knots, course = groups[:13]
    day, month, year, status, mcc, mnc, lac, cid = groups[13:]
    now = time.time()
    latitude = int(lat) + float(lat_min) / 60
    longitude = int(lon) + float(lon_min) / 60
    if north == b"S":
        latitude = -latitude
    if east == b"W":
        longitude = -longitude
    data: dict[str, Any] = (
        {} if mcc is None else {"mcc": mcc.decode(), "mnc": mnc.decode(), "lac": int(lac), "cid": int(cid)}
    )
    fix = flag == b"A"
    if not fix:
        data["last_latitude"] = round(latitude, 6)
        data["last_longitude"] = round(longitude, 6)
    ignition, immobilizer, levels = status_fields(status)
    return {
        b"v": b"1",
        b"id": blake2b(report[0], digest_size=16).hexdigest().encode(),
        b"type": b"position",
        b"source": SOURCE,
        b"time": b"20%b-%b-%bT%b:%b:%b.000Z" % (year, month, day, hour, minute, second),
        b"received": b"%b.%03dZ" % (second_text(int(now)), int(now * 1000) % 1000),
        b"ident": ident,
        b"protocol": b"st907",
        b"device_id": b"",
        b"latitude": b"%.6f" % latitude if fix else b"",
        b"longitude": b"%.6f" % longitude if fix else b"",
        b"altitude_m": b"",
        b"speed_kmh": b"%.2f" % (float(knots) * KMH_PER_KNOT) if fix else b"",
        b"course_deg": b"%d" % int(course) if fix else b"",
        b"valid": b"1" if fix else b"0",
        b"satellites": b"",
        b"ignition": ignition,
        b"immobilizer": immobilizer,
        b"external_power": b"",
        b"battery_pct": b"",
        b"odometer_km": b"",
        b"levels": levels,
        b"status_word": status,
        b"late": b"",
        b"transport": transport,
        b"peer": peer,
        b"data": orjson.dumps(data),
    }


ENTRIES: Final[dict[str, Entry]] = {"contract": contract, "lean": lean}


class Store:
    """Appends reports in pipelines, one under way, and answers those that are stored."""

    def __init__(self, redis: Redis, entry: Entry) -> None:
        self._redis = redis
        self._entry = entry
        self._reports: list[Fields] = []
        self._answers: list[Answer] = []
        self._storing: asyncio.Task[None] | None = None

    def report(self, report: re.Match[bytes], transport: bytes, peer: bytes, write: Callable[[bytes], object]) -> None:
        """Take one report; C{write} takes its answer."""
        self._reports.append(self._entry(report, transport, peer))
        self._answers.append((write, report[1]))
        if self._storing is None:
            self._storing = asyncio.create_task(self._store())

    async def _store(self) -> None:
        try:
            while self._reports:
                reports, self._reports = self._reports, []
                answers, self._answers = self._answers, []
                pipeline = self._redis.pipeline(transaction=False)
                for report in reports:
                    pipeline.xadd(STREAM, report)  # type: ignore[arg-type]  # bytes are fine, the dict is invariant
                await pipeline.execute()
                now = time.strftime("%Y%m%d%H%M%S", time.gmtime()).encode()
                for write, ident in answers:
                    write(b"*HQ,%b,V4,V1,%b#" % (ident, now))
        finally:
            self._storing = None


def peer_text(address: tuple[str | Any, int]) -> bytes:
    """C{ip:port}."""
    return f"{address[0]}:{address[1]}".encode()


class Stream(asyncio.Protocol):
    """One connection."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not instances of asyncio's classes.
        self._write = cast(asyncio.WriteTransport, transport).write
        self._peer = peer_text(transport.get_extra_info("peername"))

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        end = 0
        for match in V1.finditer(data):
            self._store.report(match, b"tcp", self._peer, self._write)
            end = match.end()
        self._held = data[end:][-HELD:]


class Datagrams(asyncio.DatagramProtocol):
    """The UDP port."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._sendto = cast(asyncio.DatagramTransport, transport).sendto

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        sendto = self._sendto
        for match in V1.finditer(data):
            self._store.report(match, b"udp", peer_text(addr), lambda answer: sendto(answer, addr))


async def serve(port: int, url: str, entry: Entry) -> None:
    """Listen on TCP and UDP of one port until killed."""
    # No time limit on a read: it would cost an asyncio.timeout a reply.
    redis = Redis.from_url(url, single_connection_client=True, socket_timeout=None)
    await redis.ping()
    store = Store(redis, entry)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Datagrams(store), local_addr=("127.0.0.1", port))
    server = await loop.create_server(lambda: Stream(store), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    """Run it."""
    import uvloop  # of the bench extra; what makes entries is tested without it

    parser = argparse.ArgumentParser(prog="python -m benchmarks.yardstick", description=__doc__.split("\n\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redis", required=True, help="redis://127.0.0.1:PORT/0")
    parser.add_argument("--entry", choices=tuple(ENTRIES), default="contract")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.redis, ENTRIES[options.entry]))


if __name__ == "__main__":
    main()
