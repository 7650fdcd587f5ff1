"""
Many connections at once: each sends one report when it stands, and then nothing more.

A process of its own, told by lines of input what to do: C{connect N} opens
connections until there are N and answers with one line of JSON when the
reports of all were answered, C{cut} resets them all, the end of input ends it.
A number has the same device each time, so that those that come again are known.
"""

from __future__ import annotations

import argparse
import errno
import gc
import json
import select
import socket
import struct
import sys
import time
from itertools import cycle
from typing import Final, NamedTuple

from benchmarks.generator import FIRST_ID, IDS_PER_CONNECTION, Device
from benchmarks.processes import raise_descriptors

#: Who is not answered by then is not counted as answered.
ANSWER_S: Final = 60.0

#: Where they come from, by turns: one address has some 28,000 ports for all of them.
SOURCES: Final = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
#: Of Linux: the port is chosen when it is known where to, so that each address has as many for each destination.
IP_BIND_ADDRESS_NO_PORT: Final = 24

#: Closes with a reset, as a mobile operator's NAT does, and leaves no TIME_WAIT behind.
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Arrival(NamedTuple):
    """
    What became of connections that were begun together.

    @ivar connected_s: seconds from the first connect() until the last that stood.
    @ivar answered_s: the same until the last reply.
    @ivar refused: connections that were refused or reset.
    """

    begun: int
    connected_s: float
    answered_s: float
    answered: int
    refused: int


class Crowd:
    """All connections."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._sources = cycle(SOURCES)
        self._devices: list[Device] = []
        self._sockets: list[socket.socket] = []

    def connect(self, count: int) -> Arrival:
        """Begin them all before the first is looked at, send a report on each that stands, and wait for the replies."""
        for number in range(len(self._devices), count):
            self._devices.append(Device(FIRST_ID + number * IDS_PER_CONNECTION))
        epoll = select.epoll()
        waiting: dict[int, tuple[socket.socket, Device]] = {}
        begun = count - len(self._sockets)
        started = time.perf_counter()
        for device in self._devices[len(self._sockets) : count]:
            one = socket.socket()
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            one.bind((next(self._sources), 0))
            if (error := one.connect_ex(self._address)) not in (0, errno.EINPROGRESS):
                raise OSError(error, "connect")
            self._sockets.append(one)
            waiting[one.fileno()] = one, device
            epoll.register(one, select.EPOLLOUT)
        connected = answered = started
        replies = refused = 0
        while waiting and time.perf_counter() - started < ANSWER_S:
            for fd, events in epoll.poll(0.1):
                one, device = waiting[fd]
                gone = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
                if events & select.EPOLLOUT and not gone:
                    one.send(device.reports(1))
                    connected = time.perf_counter()
                    epoll.modify(fd, select.EPOLLIN)
                    continue
                if not gone and one.recv(4096):
                    answered = time.perf_counter()
                    replies += 1
                else:
                    refused += 1
                epoll.unregister(fd)
                del waiting[fd]
        epoll.close()
        return Arrival(begun, round(connected - started, 4), round(answered - started, 4), replies, refused)

    def cut(self) -> None:
        """Reset them all."""
        for one in self._sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            one.close()
        self._sockets.clear()


def main() -> None:
    """Do what the lines of input say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crowd", description=__doc__.split("\n\n")[0])
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    raise_descriptors()
    gc.disable()
    crowd = Crowd(options.port)
    for line in sys.stdin:
        if line == "cut\n":
            crowd.cut()
            print("{}", flush=True)
        else:
            print(json.dumps(crowd.connect(int(line.removeprefix("connect ")))._asdict()), flush=True)


if __name__ == "__main__":
    main()
