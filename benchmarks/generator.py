"""
The load: a fleet of ST-907 on TCP connections or UDP sockets, each of which keeps a window of reports outstanding.

Written from the protocol's documentation, in a process of its own; it shares
nothing with the gateway's decoder.  One epoll loop; what varies between two
reports of a fleet is a head (the id) and a tail (the rest), both made
beforehand, so that a report costs little more than its two system calls.

Every C{#} that comes back is one reply, first in first out.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import socket
import sys
import time
from collections import deque
from functools import lru_cache
from typing import Any, Final

#: A device's clock begins so long before now and ends so long after it: one second a report, and always a live
#: report (later than 120 s is late, earlier than 300 s is refused).  A connection whose device is through goes on
#: with another one, which is how a device can send far more often than once a second and still tell the time.
BEGINS_S: Final = -110
ENDS_S: Final = 240
STEPS: Final = ENDS_S - BEGINS_S

#: How many different drives there are; a device's id says which is its own.
TRACKS: Final = 16

#: The clocks of devices that begin later are made anew after so long.
TRACKS_STALE_S: Final = 5

FIRST_ID: Final = 9_100_000_000
IDS_PER_CONNECTION: Final = 10_000

PARKED: Final = "FFFFFBFF"
DRIVING: Final = "FFFFFFFF"

#: What is still outstanding when the time is up is waited for so long.
GRACE_S: Final = 3.0


def report(track: int, step: int, at: float) -> bytes:
    """All of a V1 frame after the id and its comma: one second of a drive, every 32nd without a fix."""
    moment = time.gmtime(at)
    driving = step >= 16
    valid = "V" if (step + track) % 32 == 31 else "A"
    latitude = 600 + track * 60 + step * 61
    longitude = 57_000 + track * 310 + step * 43
    speed = 1_000 + (step * 37 + track * 91) % 3_000 if driving else 0
    course = (35 + track * 22 + step // 8) % 360
    return (
        f"V1,{time.strftime('%H%M%S', moment)},{valid},"
        f"{1810 + latitude // 10_000:04d}.{latitude % 10_000:04d},N,"
        f"{6540 + longitude // 10_000:05d}.{longitude % 10_000:04d},W,"
        f"{speed // 100:03d}.{speed % 100:02d},{course:03d},{time.strftime('%d%m%y', moment)},"
        f"{DRIVING if driving else PARKED},310,260,{49_000 + track},{1_000 + step // 50}#"
    ).encode()


@lru_cache(maxsize=1)
def tracks(second: int) -> list[list[bytes]]:
    """Every drive, with the clock of devices that begin at this second."""
    return [[report(track, step, second + BEGINS_S + step) for step in range(STEPS)] for track in range(TRACKS)]


class Device:
    """Who speaks at present, and how far that one's drive is."""

    __slots__ = ("head", "ident", "step", "track")

    def __init__(self, ident: int) -> None:
        self.ident = ident
        self.begin()

    def begin(self) -> None:
        """Start the drive of C{ident}."""
        self.head = b"*HQ,%d," % self.ident
        second = int(time.time())
        self.track = tracks(second - second % TRACKS_STALE_S)[self.ident // IDS_PER_CONNECTION % TRACKS]
        self.step = 0

    def reports(self, count: int) -> bytes:
        """The next reports, one after the other; where the drive ends, those of the next device."""
        tails = self.track[self.step : self.step + count]
        self.step += count
        if self.step <= STEPS:
            return self.head + self.head.join(tails)
        made = self.head + self.head.join(tails) if tails else b""
        self.ident += 1
        self.begin()
        return made + self.reports(count - len(tails))


class Tracker(Device):
    """One connection: its device, and when what is outstanding was sent."""

    __slots__ = ("fd", "outstanding", "socket")

    def __init__(self, connected: socket.socket, number: int) -> None:
        super().__init__(FIRST_ID + number * IDS_PER_CONNECTION)
        self.socket = connected
        self.fd = connected.fileno()
        self.outstanding: deque[float] = deque()


class Fleet:
    """All connections, and what became of their reports."""

    def __init__(self, trackers: list[Tracker], udp: bool) -> None:
        self.udp = udp
        self.trackers = {tracker.fd: tracker for tracker in trackers}
        self.epoll = select.epoll()
        for fd in self.trackers:
            self.epoll.register(fd, select.EPOLLIN)
        self.sent = 0
        self.acknowledged = 0
        self.latencies: list[float] = []
        #: when each of those that were answered was due
        self.due: list[float] = []

    def send(self, tracker: Tracker, count: int, due: float | None = None) -> None:
        """Send some reports, timed from now or from when they were due: one write on TCP, a datagram each on UDP."""
        if self.udp and count > 1:
            for _ in range(count):
                self.send(tracker, 1)
            return
        data = tracker.reports(count)
        # A window is some kilobytes, far less than a socket's buffer: a short write is a server that does not read,
        # and the run is worth nothing.
        if os.write(tracker.fd, data) != len(data):
            raise RuntimeError("the server does not read")
        since = time.perf_counter() if due is None else due
        for _ in range(count):
            tracker.outstanding.append(since)
        self.sent += count

    def receive(self, fd: int) -> int:
        """Read what came back; how many replies it holds."""
        data = os.read(fd, 65_536)
        if not data and not self.udp:
            raise RuntimeError("the server closed a connection")
        now = time.perf_counter()
        tracker = self.trackers[fd]
        count = data.count(b"#")
        for _ in range(count):
            due = tracker.outstanding.popleft()
            self.due.append(due)
            self.latencies.append(now - due)
        self.acknowledged += count
        return count

    def drain(self, grace: float) -> None:
        """Wait for what is outstanding."""
        until = time.perf_counter() + grace
        while self.acknowledged < self.sent and time.perf_counter() < until:
            for fd, _ in self.epoll.poll(0.1):
                self.receive(fd)

    def greet(self) -> None:
        """One report of each, answered: connections, detection and sessions stand before the load begins."""
        for tracker in self.trackers.values():
            self.send(tracker, 1)
        self.drain(10.0)
        if self.acknowledged != self.sent:
            raise RuntimeError(f"only {self.acknowledged} of {self.sent} first reports were answered")
        self.sent = self.acknowledged = 0
        self.latencies.clear()
        self.due.clear()

    def steady(self, rate: int, seconds: float) -> float:
        """
        Send so many reports a second, by turns, each at its time; then wait for the rest.

        A report is timed from when it was due, so that a server that stands
        still is not spared what would have come meanwhile.
        """
        # epoll waits for whole milliseconds; select() on the epoll's own descriptor for microseconds
        poll, wait, sleeper = self.epoll.poll, select.select, [self.epoll.fileno()]
        trackers = list(self.trackers.values())
        started = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = started + number / rate
            while (left := due - time.perf_counter()) > 0:
                if wait(sleeper, (), (), left)[0]:
                    for fd, _ in poll(0):
                        self.receive(fd)
            self.send(trackers[number % len(trackers)], 1, due)
        self.drain(GRACE_S)
        return time.perf_counter() - started

    def load(self, window: int, seconds: float) -> float:
        """Keep the window full for so long, then wait for the rest; how many seconds it took in all."""
        started = time.perf_counter()
        until = started + seconds
        for tracker in self.trackers.values():
            self.send(tracker, window)
        poll, receive, send, trackers = self.epoll.poll, self.receive, self.send, self.trackers
        while time.perf_counter() < until:
            for fd, _ in poll(0.1):
                count = receive(fd)
                if count:
                    send(trackers[fd], count)
        self.drain(GRACE_S)
        return time.perf_counter() - started


def connect(port: int, connections: int, udp: bool) -> list[Tracker]:
    """Connect them all to this machine's port."""
    trackers = []
    for number in range(connections):
        connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        connected.connect(("127.0.0.1", port))
        if not udp:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        trackers.append(Tracker(connected, number))
    return trackers


def percentile(ordered: list[float], share: float) -> float:
    """In milliseconds."""
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3, 3) if ordered else 0.0


def main() -> None:
    """Run one load and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generator", description=__doc__.split("\n\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--window", type=int, default=1, help="reports outstanding a connection")
    parser.add_argument(
        "--rate", type=int, default=0, help="reports a second, answered or not; 0: as the window allows"
    )
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--udp", action="store_true")
    parser.add_argument("--each", action="store_true", help="also give when each report was due, and its latency")
    parser.add_argument("--wait", action="store_true", help="print 'ready' when connected, begin at a line of input")
    options = parser.parse_args()
    fleet = Fleet(connect(options.port, options.connections, options.udp), options.udp)
    fleet.greet()
    gc.collect()
    gc.disable()
    if options.wait:
        print("ready", flush=True)
        sys.stdin.readline()
    cpu = time.process_time()
    if options.rate:
        seconds = fleet.steady(options.rate, options.seconds)
    else:
        seconds = fleet.load(options.window, options.seconds)
    cpu = time.process_time() - cpu
    each, latencies = (fleet.due, fleet.latencies), sorted(fleet.latencies)
    result: dict[str, Any] = {
        "sent": fleet.sent,
        "acknowledged": fleet.acknowledged,
        "seconds": round(seconds, 3),
        "rate": round(fleet.acknowledged / seconds),
        "p50_ms": percentile(latencies, 0.50),
        "p99_ms": percentile(latencies, 0.99),
        "generator_us": round(cpu / max(fleet.acknowledged, 1) * 1e6, 2),
    }
    if options.each:  # the clock is the machine's, the same for all of its processes
        result["each"] = [(round(due, 6), round(waited * 1e3, 3)) for due, waited in zip(*each, strict=True)]
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
