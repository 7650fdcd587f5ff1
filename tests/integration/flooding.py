"""
A flood against a gateway, as a process of its own, with PORT SECONDS SILENT JUNK RATE as its arguments.

Connections that say nothing, connections that send junk as fast as they can and
come again when they are cut, and one that sends reports faster than it may.
Prints a JSON object at its end.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import socket
import sys
import time
from typing import Any, Final

from tests.integration.fleet import v1

#: Where they come from: addresses of the loopback that no honest device has.
SILENT_FROM: Final = "127.66.0.1"
JUNK_FROM: Final = "127.66.0.2"
REPORTS_FROM: Final = "127.66.0.3"
#: What is no device's, and looks like none's: a piece of it.
JUNK: Final = bytes(range(128, 256)) * 128
#: A connection that is cut is made anew after so long, s: no faster, or the flooder would only connect.
AGAIN_S: Final = 0.01


class Flood:
    """All of them, in one loop."""

    def __init__(self, port: int, silent: int, junk: int, rate: int) -> None:
        self._where = ("127.0.0.1", port)
        self._epoll = select.epoll()
        self._junk: dict[int, socket.socket] = {}
        self._sent: dict[int, int] = {}
        self._silent: list[socket.socket] = []
        self._due: list[float] = [0.0] * junk
        self._wanted = silent
        self._rate = rate
        self._reports = 0
        counted = ("silent", "silent_refused", "junk", "cut", "most_bytes", "reports")
        self.found: dict[str, Any] = dict.fromkeys(counted, 0)

    def run(self, seconds: float) -> dict[str, Any]:
        """Flood it for so long."""
        begun = time.monotonic()
        self._report = self._connect(REPORTS_FROM)
        while (now := time.monotonic()) - begun < seconds:
            for _ in range(200):
                if len(self._silent) < self._wanted:
                    self._add_silent()
            self._junk_again(now)
            for fd, _ in self._epoll.poll(0.002, 256):
                self._push(fd)
            self._send_reports(now - begun)
        return self.found

    def _connect(self, source: str) -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: as many ports as there are to each peer
        made.bind((source, 0))
        made.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            made.connect(self._where)
        return made

    def _add_silent(self) -> None:
        try:
            self._silent.append(self._connect(SILENT_FROM))
            self.found["silent"] += 1
        except OSError:
            self.found["silent_refused"] += 1

    def _junk_again(self, now: float) -> None:
        waiting = [due for due in self._due if due > now]
        for _ in range(len(self._due) - len(waiting)):
            try:
                made = self._connect(JUNK_FROM)
            except OSError:
                waiting.append(now + AGAIN_S)
                continue
            self._junk[made.fileno()], self._sent[made.fileno()] = made, 0
            self._epoll.register(made.fileno(), select.EPOLLOUT | select.EPOLLIN | select.EPOLLHUP)
            self.found["junk"] += 1
        self._due = waiting

    def _push(self, fd: int) -> None:
        made = self._junk.get(fd)
        if made is None:
            return
        try:
            with contextlib.suppress(BlockingIOError):
                if made.recv(4096) == b"":
                    raise ConnectionResetError
            self._sent[fd] += made.send(JUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return
            self.found["cut"] += 1
            self.found["most_bytes"] = max(self.found["most_bytes"], self._sent.pop(fd))
            self._epoll.unregister(fd)
            del self._junk[fd]
            made.close()
            self._due.append(time.monotonic() + AGAIN_S)

    def _send_reports(self, passed: float) -> None:
        """As many as should have been sent by now, if it takes them."""
        while self._reports < passed * self._rate:
            try:
                self._report.send(v1("9170666666", time.time() - 100_000 + self._reports))
            except OSError:  # it is not read
                self._reports = int(passed * self._rate)
                return
            self._reports += 1
            self.found["reports"] += 1


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.nice(10)
    port, seconds, silent, junk, rate = map(int, sys.argv[1:6])
    print(json.dumps(Flood(port, silent, junk, rate).run(seconds)), flush=True)
    os._exit(0)
