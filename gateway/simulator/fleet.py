"""
The fleet on the network: it connects, sends, waits for acknowledgements, sends again, obeys, and connects anew.

One clock for all: what is due stands in a heap, and time-outs are looked for
once a second, so that a report costs no timer of its own.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from gateway.simulator import downlink
from gateway.simulator.counts import Counts
from gateway.simulator.device import Device, State, limited
from gateway.simulator.downlink import Command, Downlink
from gateway.simulator.outbox import Kept, Outbox
from gateway.simulator.registry import Script
from gateway.simulator.steps import Link
from gateway.simulator.unit import Unit
from gateway.simulator.wires import Connecting, Datagrams, Wire

#: How often it is looked what is due.
TICK_S: Final = 0.02
#: How many connections may be on their way at a time, and how long one may take.
CONNECTING: Final = 300
CONNECT_S: Final = 20.0
#: A device that lost its connection tries again after about so long, then after twice that, and so on.
BACKOFF_S: Final = 1.0
LONGEST_BACKOFF_S: Final = 30.0
#: How many reports a tracker keeps.
ROOM: Final = 1000
#: How many of them may be outstanding: over TCP the gateway answers in order; datagrams have none.
TCP_WINDOW: Final = 20
UDP_WINDOW: Final = 1

Acknowledged = Callable[[str, bytes, float], None]


@dataclass(frozen=True, slots=True)
class Options:
    """
    What a fleet is and where it reports.

    @ivar host: a numeric address.
    @ivar first: the first ident; the others follow.
    @ivar interval: seconds between two reports of a device, at least 1, as no report has fractions of a second.
    @ivar count: how many reports a device makes; 0: no end.
    @ivar timeout: seconds after which a report without an answer is sent again.
    @ivar patience: seconds that are waited at the end for what is outstanding.
    """

    host: str
    port: int
    transport: str
    script: Script
    devices: int
    first: int
    interval: float
    count: int
    seed: int
    timeout: float = 10.0
    patience: float = 15.0


class Fleet:
    """All devices."""

    def __init__(
        self, reactor: Any, options: Options, counts: Counts, acknowledged: Acknowledged | None = None
    ) -> None:
        """
        @param acknowledged: is told of each report that is acknowledged: ident, frame and UTC epoch seconds.
        """
        self._reactor = reactor
        self._options = options
        self._counts = counts
        self._acknowledged = acknowledged
        self._random = Random(options.seed)  # of the network's chances; the devices have their own
        self._devices: list[Device] = []
        self._due: list[tuple[float, int, Callable[[Device, float], None], Device]] = []
        self._order = count()
        self._queue: deque[Device] = deque()
        self._connecting = 0
        self._running = 0
        self._swept = 0.0
        self._deadline: float | None = None
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor
        self._finished: Deferred[None] = Deferred()

    def start(self) -> Deferred[None]:
        """Begin; fires when all is acknowledged, or no more is waited for."""
        options = self._options
        started = self._reactor.seconds()
        window = TCP_WINDOW if options.transport == "tcp" else UDP_WINDOW
        self._running = options.devices
        for number in range(options.devices):
            ident = f"{options.first + number:010d}"
            offset = options.interval * number / options.devices
            unit = Unit(ident, options.seed, started, offset, options.interval)
            unit.server = options.host, options.port
            device = Device(unit, limited(options.script(unit), options.count), Outbox(ident, window, ROOM))
            self._devices.append(device)
            self._next_step(device)
        self._ticking.start(TICK_S).addErrback(self._failed)
        return self._finished

    def stop(self) -> None:
        """Make no more reports, and wait for what is outstanding; the second time: don't wait."""
        if self._deadline is not None:
            self._deadline = self._reactor.seconds()
        for device in self._devices:
            if device.step is not None:
                self._through(device)

    # -- time

    def _tick(self) -> None:
        now = self._reactor.seconds()
        due = self._due
        while due and due[0][0] <= now:
            _, _, action, device = heapq.heappop(due)
            action(device, now)
        if now - self._swept >= 1.0:
            self._swept = now
            self._sweep(now)
        self._connect_some()
        if self._running:
            return
        if self._deadline is None:
            self._deadline = now + self._options.patience
        if not self._counts.outstanding or now >= self._deadline:
            self._end()

    def _at(self, when: float, action: Callable[[Device, float], None], device: Device) -> None:
        heapq.heappush(self._due, (when, next(self._order), action, device))

    def _sweep(self, now: float) -> None:
        """Give up connections on which an answer is overdue."""
        timeout = self._options.timeout
        for device in self._devices:
            since = device.outbox.waiting_since()
            if since is not None and now - since >= timeout:
                self._counts.timeouts += 1
                self._drop(device)
                self._retry(device)

    def _end(self) -> None:
        self._ticking.stop()
        for device in self._devices:
            self._drop(device)
        self._finished.callback(None)

    def _failed(self, failure: Failure) -> None:
        """A scenario raised an error, or we did."""
        for device in self._devices:
            self._drop(device)
        self._finished.errback(failure)

    # -- the scenario

    def _next_step(self, device: Device) -> None:
        device.step = next(device.steps, None)
        if device.step is None:
            self._through(device)
        else:
            self._at(device.step.at, self._do_step, device)

    def _do_step(self, device: Device, now: float) -> None:
        step = device.step
        if step is None:
            return  # it was stopped
        device.covered = step.link is not Link.DOWN
        if step.link is not Link.KEEP:
            self._drop(device)
        if step.frame:
            self._counts.reports += 1
            if not device.outbox.keep(device.unit.due(step)):
                self._counts.dropped += 1
        if step.junk:
            self._send_junk(device, step.junk)
        device.telling += device.unit.told(step)
        self._flush(device, now)
        if step.link is Link.CUT or device.outbox or device.telling:
            self._want(device)
        self._next_step(device)

    def _through(self, device: Device) -> None:
        """It makes no more reports, and goes where there is a network."""
        device.step = None
        device.covered = True
        self._running -= 1
        if device.outbox:
            self._want(device)

    # -- reports and commands

    def _send_junk(self, device: Device, junk: bytes) -> None:
        """Junk comes between frames: a stream that begins with it is nobody's."""
        if device.wire is not None and (device.spoken or self._options.transport == "udp"):
            device.wire.send(junk)

    def _flush(self, device: Device, now: float) -> None:
        """Send what may be sent."""
        wire = device.wire
        if wire is None:
            return
        while device.telling:
            wire.send(device.telling.popleft())
            device.spoken = True
            self._counts.told += 1
        for report in device.outbox.due(now):
            if report.times == 1:
                self._counts.sent += 1
            else:
                self._counts.resent += 1
            wire.send(report.frame)
            device.spoken = True

    def received(self, device: Device, wire: Wire, data: bytes) -> None:
        """Bytes came back."""
        if device.wire is not wire:
            return
        now = self._reactor.seconds()
        for heard in device.downlink.receive(data):
            command = downlink.command(heard, device.unit.ident)
            if command is not None:
                self._obey(device, command, now)
            elif report := device.outbox.receive(heard):
                self._settled(device, report, now)
            else:
                self._counts.strange += 1
            if device.wire is not wire:
                return  # it starts anew
        self._flush(device, now)

    def _settled(self, device: Device, report: Kept, now: float) -> None:
        """A report is acknowledged."""
        counts = self._counts
        device.attempts = 0
        counts.trouble = ""
        counts.acknowledged += 1
        counts.latencies.add(now - report.sent_at)
        if self._acknowledged is not None:
            self._acknowledged(device.unit.ident, report.frame, now)

    def _obey(self, device: Device, command: Command, now: float) -> None:
        """A command came; what it is answered goes out next."""
        self._counts.commands += 1
        device.telling.append(device.unit.obey(command, now))
        if command.word == downlink.R1:
            self._drop(device)
            self._retry(device)

    # -- connections

    def _want(self, device: Device) -> None:
        """It has something to say: connect as soon as there is room, if it is not connected."""
        if device.state is State.DOWN and device.covered:
            device.state = State.WAITING
            self._queue.append(device)

    def _retry(self, device: Device) -> None:
        """Connect again, after a while that grows with each failure."""
        if device.state is State.DOWN and device.covered:
            device.state = State.WAITING
            delay = min(BACKOFF_S * 2**device.attempts, LONGEST_BACKOFF_S)
            device.attempts = min(device.attempts + 1, 16)
            self._at(self._reactor.seconds() + delay * self._random.uniform(0.5, 1.0), self._enqueue, device)

    def _enqueue(self, device: Device, now: float) -> None:
        if device.state is State.WAITING:
            self._queue.append(device)

    def _connect_some(self) -> None:
        while self._queue and self._connecting < CONNECTING:
            device = self._queue.popleft()
            if device.state is State.WAITING:
                self._connect(device)

    def _connect(self, device: Device) -> None:
        options = self._options
        device.state = State.CONNECTING
        self._connecting += 1
        if options.transport == "tcp":
            self._reactor.connectTCP(options.host, options.port, Connecting(self, device), timeout=CONNECT_S)
            return
        datagrams = Datagrams(self, device)
        try:
            datagrams.open(self._reactor, options.host, options.port)
        except CannotListenError as error:  # no port, or no descriptor, is left
            self.not_connected(device, str(error))
        else:
            self.connected(device, datagrams)

    def connected(self, device: Device, wire: Wire) -> None:
        """A connection is there."""
        self._connecting -= 1
        if device.state is not State.CONNECTING:
            wire.close()  # it is not wanted any more
            return
        device.state = State.UP
        device.wire = wire
        device.spoken = False
        device.downlink = Downlink()
        self._counts.connected += 1
        self._counts.connections += 1
        self._flush(device, self._reactor.seconds())

    def not_connected(self, device: Device, why: str) -> None:
        """No connection could be made."""
        self._connecting -= 1
        self._counts.trouble = why
        if device.state is State.CONNECTING:
            device.state = State.DOWN
            self._retry(device)

    def disconnected(self, device: Device, wire: Wire, why: str = "") -> None:
        """The other end closed a connection, or a datagram found nobody."""
        if device.wire is wire:
            self._counts.trouble = why
            self._drop(device)
            if device.outbox or device.step is not None:
                self._retry(device)

    def _drop(self, device: Device) -> None:
        """Close its connection, if there is one."""
        wire, device.wire = device.wire, None
        device.state = State.DOWN
        device.outbox.disconnected()
        if wire is not None:
            self._counts.connected -= 1
            wire.close()
