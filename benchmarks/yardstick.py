"""
The yardstick: what a good plain server for the same trackers costs, with asyncio, uvloop and redis-py.

It reads V1 reports with one regular expression, appends each to one stream,
and answers it after Redis did.  Reports are appended in pipelines, one at a
time; what comes while one is under way goes with the next.  It decides
nothing about duplicates, lateness or state, and knows one protocol.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Callable
from typing import Any, Final, cast

import uvloop
from redis.asyncio import Redis

STREAM: Final = "yardstick:position"

#: What is held of a stream that has no frame in it.
HELD: Final = 2048

V1: Final = re.compile(
    rb"\*HQ,(\d{10}),V1,(\d\d)(\d\d)(\d\d),([AV]),(\d\d)(\d\d\.\d{4}),([NS]),(\d{3})(\d\d\.\d{4}),([EW]),"
    rb"(\d{3}\.\d\d),(\d{3}),(\d\d)(\d\d)(\d\d),([0-9A-F]{8})[^#]*#"
)

Fields = dict[bytes, bytes]
Answer = tuple[Callable[[bytes], object], bytes]


def fields(groups: tuple[bytes, ...]) -> Fields:
    """One report as the fields of its entry."""
    ident, hour, minute, second, valid, lat, lat_min, north, lon, lon_min, east, knots, course, day, month, year, st = (
        groups
    )
    latitude = int(lat) + float(lat_min) / 60
    longitude = int(lon) + float(lon_min) / 60
    return {
        b"ident": ident,
        b"time": b"20%b-%b-%bT%b:%b:%bZ" % (year, month, day, hour, minute, second),
        b"lat": b"%.6f" % (latitude if north == b"N" else -latitude),
        b"lon": b"%.6f" % (longitude if east == b"E" else -longitude),
        b"speed": b"%.2f" % (float(knots) * 1.852),
        b"course": course,
        b"valid": b"1" if valid == b"A" else b"0",
        b"status": st,
    }


class Store:
    """Appends reports in pipelines, one under way, and answers those that are stored."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._reports: list[Fields] = []
        self._answers: list[Answer] = []
        self._storing: asyncio.Task[None] | None = None

    def report(self, groups: tuple[bytes, ...], write: Callable[[bytes], object]) -> None:
        """Take one report; C{write} takes its answer."""
        self._reports.append(fields(groups))
        self._answers.append((write, groups[0]))
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


class Stream(asyncio.Protocol):
    """One connection."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not instances of asyncio's classes.
        self._write = cast(asyncio.WriteTransport, transport).write

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        end = 0
        for match in V1.finditer(data):
            self._store.report(match.groups(), self._write)
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
            self._store.report(match.groups(), lambda answer: sendto(answer, addr))


async def serve(port: int, url: str) -> None:
    """Listen on TCP and UDP of one port until killed."""
    # No time limit on a read: it would cost an asyncio.timeout a reply.
    redis = Redis.from_url(url, single_connection_client=True, socket_timeout=None)
    await redis.ping()
    store = Store(redis)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Datagrams(store), local_addr=("127.0.0.1", port))
    server = await loop.create_server(lambda: Stream(store), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.yardstick", description=__doc__.split("\n\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redis", required=True, help="redis://127.0.0.1:PORT/0")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.redis))


if __name__ == "__main__":
    main()
