"""
The connections of a fleet: devices connect, a few at a time, and connect anew, at longer and longer intervals.

A device that goes to another gateway does so when nothing is outstanding. It
sends no more, and still takes what is under way to it: over TCP until the other
end has closed the connection, over UDP beside its new port.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any, Final
from typing import Protocol as Interface

from gateway.simulator.agenda import Agenda
from gateway.simulator.counts import Counts
from gateway.simulator.device import Device, State
from gateway.simulator.options import Options
from gateway.simulator.wires import Connecting, Datagrams, Wire

#: How many connections may be on their way at a time, and how long one may take.
CONNECTING: Final = 300
CONNECT_S: Final = 20.0
#: A device that lost its connection tries again after about so long, then after twice that, and so on.
BACKOFF_S: Final = 1.0
LONGEST_BACKOFF_S: Final = 30.0
#: How long a device that leaves a gateway still listens to it, at most.
LEAVE_S: Final = 2.0


class Talk(Interface):
    """What is said on connections."""

    def up(self, device: Device) -> None:
        """A device has a connection."""

    def heard(self, device: Device, wire: Wire, data: bytes) -> None:
        """Bytes came back to it."""


class Connections:
    """The connections of all devices of a fleet."""

    def __init__(self, reactor: Any, options: Options, counts: Counts, agenda: Agenda, talk: Talk) -> None:
        self._reactor = reactor
        self._options = options
        self._counts = counts
        self._agenda = agenda
        self._talk = talk
        self._random = Random(options.seed)  # of the network's chances; the devices have their own
        self._queue: deque[Device] = deque()
        self._connecting = 0

    def want(self, device: Device) -> None:
        """It has something to say: connect as soon as there is room, if it is not connected."""
        if device.state is State.DOWN and device.covered:
            device.state = State.WAITING
            self._queue.append(device)

    def retry(self, device: Device) -> None:
        """Connect again, after a while that grows with each failure."""
        if device.state is State.DOWN and device.covered:
            device.state = State.WAITING
            delay = min(BACKOFF_S * 2**device.attempts, LONGEST_BACKOFF_S)
            device.attempts = min(device.attempts + 1, 16)
            when = self._reactor.seconds() + delay * self._random.uniform(0.5, 1.0)
            self._agenda.at(when, self._enqueue, device)

    def drop(self, device: Device) -> None:
        """Close its connection, if there is one."""
        wire, device.wire = device.wire, None
        device.state = State.DOWN
        device.outbox.disconnected()
        if wire is not None:
            self._counts.connected -= 1
            wire.close()
        self._let_go(device)

    def move(self, device: Device) -> None:
        """Have it go to the next gateway, as soon as nothing is outstanding."""
        device.moving = True
        self.leave(device)
        if device.state is State.WAITING:
            self._queue.append(device)  # for the next one it has not waited yet

    def leave(self, device: Device) -> None:
        """Go to the next gateway, if that is to be and may be."""
        if not device.moving or device.outbox.outstanding or device.state is State.CONNECTING:
            return
        gateways = self._options.gateways
        device.moving = False
        device.gateway = (device.gateway + 1) % len(gateways)
        device.unit.server = gateways[device.gateway]
        device.attempts = 0
        wire, device.wire = device.wire, None
        if wire is None:
            return  # it goes there when it connects the next time
        self._counts.connected -= 1
        self._let_go(device)
        wire.leave()
        device.leaving, device.left_at = wire, self._reactor.seconds()
        if self._options.transport == "tcp":
            device.state = State.LEAVING
        else:
            device.state = State.DOWN
            self._arrive(device)

    def sweep(self, device: Device, now: float) -> None:
        """Don't wait for ever for the other end to close a connection."""
        if device.leaving is not None and now - device.left_at >= LEAVE_S:
            self._left(device)

    def _left(self, device: Device) -> None:
        """It listens no more to the gateway that it has left."""
        self._let_go(device)
        if device.state is State.LEAVING:
            device.state = State.DOWN
            self._arrive(device)

    def _let_go(self, device: Device) -> None:
        leaving, device.leaving = device.leaving, None
        if leaving is not None:
            leaving.close()

    def _arrive(self, device: Device) -> None:
        """Connect to the next gateway, unless there is nothing more to say."""
        if device.outbox or device.telling or device.step is not None:
            self.want(device)

    def connect_some(self) -> None:
        """Connect those whose turn it is."""
        while self._queue and self._connecting < CONNECTING:
            device = self._queue.popleft()
            if device.state is State.WAITING:
                self._connect(device)

    def _enqueue(self, device: Device, now: float) -> None:
        if device.state is State.WAITING:
            self._queue.append(device)

    def _connect(self, device: Device) -> None:
        self.leave(device)
        host, port = self._options.gateways[device.gateway]
        device.state = State.CONNECTING
        self._connecting += 1
        if self._options.transport == "tcp":
            self._reactor.connectTCP(host, port, Connecting(self, device), timeout=CONNECT_S)
        else:
            Datagrams(self, device).open(self._reactor, host, port)

    # -- what wires tell

    def connected(self, device: Device, wire: Wire) -> None:
        """A connection is there."""
        self._connecting -= 1
        if device.state is not State.CONNECTING:
            wire.close()  # it is not wanted any more
            return
        device.state = State.UP
        device.wire = wire
        device.spoken = False
        self._counts.connected += 1
        self._counts.connections += 1
        self.leave(device)
        if device.wire is not None:
            self._talk.up(device)

    def not_connected(self, device: Device, why: str) -> None:
        """No connection could be made."""
        self._connecting -= 1
        self._counts.trouble = why
        if device.state is State.CONNECTING:
            device.state = State.DOWN
            self.retry(device)

    def received(self, device: Device, wire: Wire, data: bytes) -> None:
        """Bytes came back."""
        if wire in (device.wire, device.leaving):
            self._talk.heard(device, wire, data)

    def disconnected(self, device: Device, wire: Wire, why: str = "") -> None:
        """The other end closed a connection, or a datagram found nobody."""
        if device.wire is wire:
            self._counts.trouble = why
            self.drop(device)
            if device.outbox or device.step is not None:
                self.retry(device)
        elif device.leaving is wire:
            self._left(device)
