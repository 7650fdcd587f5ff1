"""
What a batch costs Redis: the gateway's script beside one that only checks the number and appends the same entries.

The gateway is driven over one connection that carries many devices: what is
written there at once becomes one batch, and the next is written when all of it
was answered.  Its entries are read back from the stream, and the reference
appends the very same ones in batches of the same size.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from hiredis import pack_command
from redis import Redis

from benchmarks.generator import FIRST_ID, IDS_PER_CONNECTION, Device
from benchmarks.processes import OTHER_CORE, SERVER_CORE, cpu_seconds, free_port, gateway_argv, redis_argv, running
from benchmarks.tables import Settings, Table, machine, progress, redis_note, verdict

STREAM: Final = "gateway:position"
#: The gateway says here how many batches it has sent.
PRODUCERS: Final = "gateway:producer:*"

#: A batch that is not answered by then never will be.
ANSWER_S: Final = 30.0


class Shape(NamedTuple):
    """A batch: how many devices, and how many reports of each."""

    devices: int
    reports: int

    @property
    def events(self) -> int:
        return self.devices * self.reports


#: How many events a run has, far more than the clock's resolution asks for.
EVENTS: Final = 100_000
#: The ratio to the reference's CPU that is to be met.
BAR: Final = 1.9

#: What occurs: little traffic, work A, work B.
SHAPES: Final = (Shape(16, 1), Shape(200, 1), Shape(50, 10))


class Cost(NamedTuple):
    """CPU microseconds of Redis an event, bytes of its memory an entry, and events a batch as they came about."""

    us: float
    entry_bytes: float
    batch: float


class Pair(NamedTuple):
    """One round of both sides."""

    ours: Cost
    reference: Cost


@contextmanager
def empty_redis(folder: Path, fsync: str) -> Iterator[tuple[int, int, Redis]]:
    """A Redis of its own: its port, its pid, and a client."""
    folder.mkdir()
    port = free_port()
    server = running(redis_argv(port, folder, fsync), port, OTHER_CORE, folder / "redis.log")
    with server as pid, Redis(port=port) as client:
        yield port, pid, client


class Fleet:
    """Devices behind one connection, which take turns."""

    def __init__(self, port: int, shape: Shape) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), ANSWER_S)
        self._shape = shape
        self._devices = [Device(FIRST_ID + number * IDS_PER_CONNECTION) for number in range(shape.devices)]

    def batch(self) -> None:
        """Send one batch and wait until all of it is answered."""
        self._socket.sendall(b"".join([device.reports(self._shape.reports) for device in self._devices]))
        outstanding = self._shape.events
        while outstanding > 0:
            data = self._socket.recv(65_536)
            if not data:
                raise RuntimeError("the gateway closed the connection")
            outstanding -= data.count(b"#")

    def close(self) -> None:
        self._socket.close()


def entry_bytes(client: Redis, stream: str) -> float:
    """What an entry takes in memory, all of the stream measured."""
    return float(client.memory_usage(stream, samples=0) or 0) / client.xlen(stream)


def entries(client: Any) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Names and values of each entry of the gateway's stream, oldest first."""
    after = "-"
    while rows := client.xrange(STREAM, after, "+", 1000):
        for _, fields in rows:
            yield list(fields), list(fields.values())
        after = f"({rows[-1][0].decode()}"


def ours(folder: Path, shape: Shape, batches: int, fsync: str) -> tuple[Cost, list[bytes], list[list[bytes]]]:
    """The gateway's side; the names of the fields that it appended, and the values of each entry."""
    with empty_redis(folder, fsync) as (redis_port, redis, client):
        port = free_port()
        with running(gateway_argv(port, redis_port, folder), port, SERVER_CORE, folder / "gateway.log"):
            fleet = Fleet(port, shape)
            fleet.batch()  # connection, detection and sessions stand before anything is counted
            numbered, stored = sent_batches(client), int(client.xlen(STREAM))
            before = cpu_seconds(redis)
            for _ in range(batches):
                fleet.batch()
            seconds = cpu_seconds(redis) - before
            numbered, stored = sent_batches(client) - numbered, int(client.xlen(STREAM)) - stored
            fleet.close()
        if stored != batches * shape.events:
            raise RuntimeError(f"{batches * shape.events} events were answered, {stored} stored")
        cost = Cost(seconds / stored * 1e6, entry_bytes(client, STREAM), stored / numbered)
        found = list(entries(client))
    names = found[0][0]
    if any(other != names for other, _ in found):
        raise RuntimeError("the entries of the stream do not all have the same fields")
    return cost, names, [values for _, values in found]


def sent_batches(client: Redis) -> int:
    """How many batches the gateway has numbered."""
    return sum(int(client.get(key) or 0) for key in client.scan_iter(PRODUCERS))


def reference(folder: Path, names: Sequence[bytes], values: Sequence[Sequence[bytes]], size: int, fsync: str) -> Cost:
    """The reference: the same entries in batches of the same size, each sent when the one before was answered."""
    with empty_redis(folder, fsync) as (port, redis, client):
        sha = str(client.script_load(Path(__file__).with_name("append.lua").read_text()))
        before = cpu_seconds(redis)
        with socket.create_connection(("127.0.0.1", port), ANSWER_S) as connection:
            for number, at in enumerate(range(0, len(values), size), 1):
                head: list[Any] = ["EVALSHA", sha, 2, "reference:producer", "reference:position", number, len(names)]
                connection.sendall(pack_command((*head, *names, *(v for row in values[at : at + size] for v in row))))
                if (answer := connection.recv(4096)) != b":%d\r\n" % number:
                    raise RuntimeError(f"the reference answers {answer!r}")
        seconds = cpu_seconds(redis) - before
        if client.xlen("reference:position") != len(values):
            raise RuntimeError("the reference did not append all entries")
        size_of = entry_bytes(client, "reference:position")
        return Cost(seconds / len(values) * 1e6, size_of, len(values) / number)


def once(shape: Shape, events: int, fsync: str) -> Pair:
    """One round: so many events, the gateway's first."""
    with TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        cost, names, values = ours(folder / "ours", shape, events // shape.events, fsync)
        return Pair(cost, reference(folder / "reference", names, values, shape.events, fsync))


def table(settings: Settings, events: int = EVENTS, shapes: Sequence[Shape] = SHAPES) -> Table:
    """A row a shape."""
    head = ["", "Redis us:", "ours", "reference", "ratio", "bar", "bytes an entry:", "ours", "reference"]
    head += ["events a batch:", "ours", "reference"]
    rows, missed = [], []
    for shape in shapes:
        name = f"redis: {shape.events} events of {shape.devices} devices"
        pairs = []
        for number in range(settings.rounds):
            pairs.append(pair := once(shape, events, settings.fsync))
            progress(f"{name}, round {number + 1}: {pair.ours.us:.1f} us, reference {pair.reference.us:.1f} us")
        ours, reference = (Cost(*map(median, zip(*side, strict=True))) for side in zip(*pairs, strict=True))
        ratio = ours.us / reference.us
        row = [name, "", f"{ours.us:.1f}", f"{reference.us:.1f}", f"{ratio:.2f}", verdict(ratio, BAR)]
        for index, digits in ((1, 0), (2, 1)):
            row += ["", *(f"{side[index]:.{digits}f}" for side in (ours, reference))]
        rows.append(row)
        if ratio > BAR:
            missed.append(f"{name}: {ratio:.2f} of the reference's CPU, bar {BAR}")
    notes = (
        machine(settings),
        f"{events:,} events a run. CPU of the Redis process, in microseconds an event of the position stream.",
        "Reference: a script that checks and sets the producer's number and appends the same entries, as many a call.",
        redis_note(settings),
    )
    return Table(head, rows, notes, missed=missed)
