"""
A fleet of trackers: it reports, waits for acknowledgements, sends again, and obeys.

Time-outs are looked for once a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from gateway.simulator import downlink
from gateway.simulator.agenda import Agenda
from gateway.simulator.connections import Connections
from gateway.simulator.counts import Counts
from gateway.simulator.device import Device, limited
from gateway.simulator.downlink import Command
from gateway.simulator.options import Options
from gateway.simulator.outbox import Kept, Outbox
from gateway.simulator.steps import Link
from gateway.simulator.unit import Unit
from gateway.simulator.wires import Wire

#: How often it is looked what is due.
TICK_S: Final = 0.02
#: How many reports a tracker keeps.
ROOM: Final = 1000
#: How many of them may be outstanding: over TCP the gateway answers in order; datagrams have none.
TCP_WINDOW: Final = 20
UDP_WINDOW: Final = 1

Acknowledged = Callable[[str, bytes, float], None]
Heard = Callable[[str, bytes, float, bool], None]


class Fleet:
    """All devices."""

    def __init__(
        self,
        reactor: Any,
        options: Options,
        counts: Counts,
        acknowledged: Acknowledged | None = None,
        heard: Heard | None = None,
    ) -> None:
        """
        @param acknowledged: is told of each report that is acknowledged: ident, frame and UTC epoch seconds.
        @param heard: is told of each command: ident, frame or text, UTC epoch seconds, and whether it came alone.
        """
        self._reactor = reactor
        self._options = options
        self._counts = counts
        self._acknowledged = acknowledged
        self._heard = heard
        self._devices: list[Device] = []
        self._agenda = Agenda()
        self._connections = Connections(reactor, options, counts, self._agenda, self)
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
            unit.server = options.gateways[0]
            unit.manner = options.manner
            device = Device(unit, limited(options.script(unit), options.count), Outbox(ident, window, ROOM))
            self._devices.append(device)
            self._next_step(device)
            if options.move:
                self._agenda.at(started + offset + options.move, self._move, device)
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
        self._agenda.do(now)
        if now - self._swept >= 1.0:
            self._swept = now
            self._sweep(now)
        self._connections.connect_some()
        if self._running:
            return
        if self._deadline is None:
            self._deadline = now + self._options.patience
        if not self._counts.outstanding or now >= self._deadline:
            self._end()

    def _sweep(self, now: float) -> None:
        """Give up connections on which an answer is overdue."""
        timeout = self._options.timeout
        for device in self._devices:
            self._connections.sweep(device, now)
            since = device.outbox.waiting_since()
            if since is not None and now - since >= timeout:
                self._counts.timeouts += 1
                self._connections.drop(device)
                self._connections.retry(device)

    def _end(self) -> None:
        self._ticking.stop()
        for device in self._devices:
            self._connections.drop(device)
        self._finished.callback(None)

    def _failed(self, failure: Failure) -> None:
        """A scenario raised an error, or we did."""
        for device in self._devices:
            self._connections.drop(device)
        self._finished.errback(failure)

    # -- the scenario

    def _next_step(self, device: Device) -> None:
        device.step = next(device.steps, None)
        if device.step is None:
            self._through(device)
        else:
            self._agenda.at(device.step.at, self._do_step, device)

    def _do_step(self, device: Device, now: float) -> None:
        step = device.step
        if step is None or step.at > now:
            return  # it was stopped, or is to come later than was thought
        device.covered = step.link is not Link.DOWN
        if step.link is not Link.KEEP:
            self._connections.drop(device)
        if step.frame:
            self._counts.reports += 1
            if not device.outbox.keep(device.unit.due(step)):
                self._counts.dropped += 1
        if step.junk:
            self._send_junk(device, step.junk)
        device.telling += device.unit.told(step)
        self._flush(device, now)
        if step.link is Link.CUT or device.outbox or device.telling:
            self._connections.want(device)
        self._next_step(device)

    def _through(self, device: Device) -> None:
        """It makes no more reports, and goes where there is a network."""
        device.step = None
        device.covered = True
        self._running -= 1
        if device.outbox:
            self._connections.want(device)

    def _move(self, device: Device, now: float) -> None:
        """It is time to go to the next gateway; who makes no more reports stays where it is."""
        if device.step is not None:
            self._connections.move(device)
            self._agenda.at(now + self._options.move, self._move, device)

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
        if device.moving:
            return  # what is outstanding is waited for, and no more is sent here
        for report in device.outbox.due(now):
            if report.times == 1:
                self._counts.sent += 1
            else:
                self._counts.resent += 1
            wire.send(report.frame)
            device.spoken = True

    def up(self, device: Device) -> None:
        """A device has a connection."""
        self._flush(device, self._reactor.seconds())

    def heard(self, device: Device, wire: Wire, data: bytes) -> None:
        """Bytes came back to a device."""
        now = self._reactor.seconds()
        for heard in wire.downlink.receive(data):
            command = downlink.command(heard, device.unit.ident)
            if command is not None:
                if self._heard is not None:
                    self._heard(device.unit.ident, heard, now, wire.downlink.alone)
                self._obey(device, command, now)
            elif device.wire is wire and (report := device.outbox.receive(heard)):
                self._settled(device, report, now)
            else:
                self._counts.strange += 1
            if wire not in (device.wire, device.leaving):
                return  # it starts anew
        self._flush(device, now)
        self._connections.leave(device)

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
        obeyed = device.unit.obey(command, now)
        if obeyed.answer:
            device.telling.append(obeyed.answer)
        if obeyed.hurries and device.step is not None:
            device.step = device.unit.sooner_or_later(device.step, now)
            self._agenda.at(device.step.at, self._do_step, device)
        if obeyed.restarts:
            self._connections.drop(device)
            self._connections.retry(device)
