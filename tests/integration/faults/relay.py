"""A UDP relay between the fleet and the gateway, which loses, copies and holds up datagrams on demand."""

from __future__ import annotations

import contextlib
import heapq
import select
import socket
import threading
import time
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final

_BLOCK: Final = 65_536

#: A socket of the relay on which nothing came for so long is closed.
_IDLE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Weather:
    """
    What becomes of datagrams, in both directions.

    @ivar loss: the share that disappears.
    @ivar copies: the share of reports that come twice, the copy later.
    @ivar late: the share that is held up, so that others overtake it.
    @ivar longest_s: for how long at most.
    """

    loss: float = 0.0
    copies: float = 0.0
    late: float = 0.0
    longest_s: float = 0.0


@dataclass(slots=True)
class _Way:
    """
    The relay's socket to the gateway for one socket of the fleet.

    @ivar unwanted: answers to copies that are still to come.  An answer says not which report it is for: a tracker
        would take the second answer to one report for the answer to its next one, so that one answer for each copy
        is dropped, as soon as one comes.
    """

    far: socket.socket
    device: tuple[str, int]
    used: float = 0.0
    unwanted: int = 0


@dataclass
class Tally:
    """What the relay did."""

    lost: int = 0
    copied: int = 0
    delayed: int = 0
    passed: int = 0


class Relay:
    """A UDP relay to the gateway, in a thread of its own."""

    def __init__(self, target: int, random: Random | None = None) -> None:
        self._target = ("127.0.0.1", target)
        self._random = random or Random()
        self._weather = Weather()
        self._front = socket.socket(type=socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self._front.setblocking(False)
        self.port: int = self._front.getsockname()[1]
        self.tally = Tally()
        self._ways: dict[tuple[str, int], _Way] = {}
        self._by_number: dict[int, _Way] = {}
        self._due: list[tuple[float, int, _Way, bytes, bool]] = []
        self._order = count()
        self._swept = time.monotonic()
        self._poll = select.epoll()
        self._poll.register(self._front, select.EPOLLIN)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def become(self, weather: Weather) -> None:
        """Treat datagrams like this from now on."""
        self._weather = weather

    def heal(self) -> None:
        """Be faithful again; what is held up still comes late."""
        self._weather = Weather()

    def close(self) -> None:
        """Stop."""
        self._stopping.set()
        self._thread.join(5.0)
        for way in self._ways.values():
            way.far.close()
        self._front.close()
        self._poll.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, way, data, up = heapq.heappop(self._due)
                self._hand_over(way, data, up)
            wait = min(0.1, self._due[0][0] - now) if self._due else 0.1
            for number, _ in self._poll.poll(max(0.0, wait)):
                if number == self._front.fileno():
                    self._from_fleet(now)
                elif number in self._by_number:
                    self._from_gateway(self._by_number[number], now)
            if now - self._swept > 1.0:
                self._swept = now
                self._sweep(now)

    def _from_fleet(self, now: float) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, device = self._front.recvfrom(_BLOCK)
                way = self._ways.get(device) or self._new_way(device)
                way.used = now
                if self._random.random() < self._weather.copies:
                    self.tally.copied += 1
                    way.unwanted += 1
                    self._later(way, data, True, now)
                self._send(way, data, True, now)

    def _from_gateway(self, way: _Way, now: float) -> None:
        with contextlib.suppress(OSError):  # nobody listens there now, or there is no more to read
            while True:
                data = way.far.recv(_BLOCK)
                if way.unwanted:
                    way.unwanted -= 1
                else:
                    self._send(way, data, False, now)

    def _send(self, way: _Way, data: bytes, up: bool, now: float) -> None:
        chance = self._random.random()
        if chance < self._weather.loss:
            self.tally.lost += 1
        elif chance < self._weather.loss + self._weather.late:
            self.tally.delayed += 1
            self._later(way, data, up, now)
        else:
            self._hand_over(way, data, up)

    def _later(self, way: _Way, data: bytes, up: bool, now: float) -> None:
        due = now + self._random.uniform(0.0, self._weather.longest_s)
        heapq.heappush(self._due, (due, next(self._order), way, data, up))

    def _hand_over(self, way: _Way, data: bytes, up: bool) -> None:
        self.tally.passed += 1
        with contextlib.suppress(OSError):  # nobody listens there now, or the socket was given up
            if up:
                way.far.send(data)
            else:
                self._front.sendto(data, way.device)

    def _new_way(self, device: tuple[str, int]) -> _Way:
        far = socket.socket(type=socket.SOCK_DGRAM)
        far.setblocking(False)
        far.connect(self._target)
        way = self._ways[device] = self._by_number[far.fileno()] = _Way(far, device)
        self._poll.register(far, select.EPOLLIN)
        return way

    def _sweep(self, now: float) -> None:
        for device, way in [*self._ways.items()]:
            if now - way.used > _IDLE_S:
                del self._ways[device], self._by_number[way.far.fileno()]
                self._poll.unregister(way.far)
                way.far.close()
