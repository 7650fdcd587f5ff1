"""
ST-907s as sockets: they send V1 reports, wait for the answer, and send the same bytes again when none comes.

Nothing of the gateway is imported here.  The frames, and the definition of an
event's id, are written a second time from the documents, so that a mistake
can't agree with itself.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from tests.integration.parts import SOON, family_of, wait_for

#: Behind now, so that a device's clock, which goes a second a report, stays plausible however fast it reports.
_HEADSTART: Final = 1_800

_BLOCK: Final = 65_536

_RECONNECT_AFTER: Final = 0.2

IGNITION_ON: Final = "FFFFFFFF"
IGNITION_OFF: Final = "FFFFFBFF"


def event_id(
    ident: str, frame: bytes, kind: str = "position", index: int = 0, received: str = "", protocol: str = "st907"
) -> str:
    """The id of an event as DESIGN.md section 5 defines it."""
    digest = blake2b(digest_size=16)
    digest.update(ident.encode() + b"\0" + protocol.encode() + b"\0")
    digest.update(len(frame).to_bytes(4, "big") + frame + b"\0")
    digest.update(kind.encode() + b"\0" + str(index).encode() + b"\0")
    if received:
        digest.update(received.encode() + b"\0")
    return digest.hexdigest()


def v1(ident: str, when: float, status: str = IGNITION_OFF, maker: str = "HQ") -> bytes:
    """The usual report of an ST-907: a valid fix that moves on with time."""
    at = time.gmtime(when)
    minutes = f"{30 + when % 20_000 / 1_000:07.4f}"
    clock, date = time.strftime("%H%M%S", at), time.strftime("%d%m%y", at)
    place = f"A,42{minutes},N,007{minutes},E,018.47,122"
    return f"*{maker},{ident},V1,{clock},{place},{date},{status},214,03,13140,5085#".encode()


def v1_series(ident: str, count: int, age: float = _HEADSTART) -> list[bytes]:
    """Reports of one device, a second apart, the first C{age} seconds ago."""
    first = int(time.time() - age)
    return [v1(ident, first + number) for number in range(count)]


def is_answer(answer: bytes, ident: str, maker: str = "HQ") -> bool:
    """Whether this is the acknowledgement of a V1."""
    return re.fullmatch(rb"\*%s,%s,V4,V1,\d{14}#" % (maker.encode(), ident.encode()), answer) is not None


def split_answers(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole answers, and what is left."""
    *whole, rest = data.split(b"#")
    return [part + b"#" for part in whole], rest


class Client:
    """One TCP connection, in blocking code."""

    def __init__(self, port: int, host: str = "127.0.0.1", narrow: bool = False, source: str = "") -> None:
        """
        Connect, from an address of one's own if there is one.

        @param narrow: with so small segments and buffers that the kernel keeps little of what is not read.
        """
        self.socket = socket.socket(family_of(host))
        if source:
            self.socket.bind((source, 0))
        if narrow:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(SOON)
        self.socket.connect((host, port))
        self.ended = False
        self._held = b""

    def __enter__(self) -> Client:
        """Nothing to do."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.socket.close()

    @property
    def name(self) -> str:
        """Its own end as the C{peer} column has it."""
        host, port = self.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def answers(self, count: int, seconds: float = SOON) -> list[bytes]:
        """Read until there are so many answers, or the time is up, or the other end closes."""
        found: list[bytes] = []
        end = time.monotonic() + seconds
        while len(found) < count and (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(_BLOCK)
            except (TimeoutError, ConnectionResetError):
                break
            if not data:
                self.ended = True
                break
            whole, self._held = split_answers(self._held + data)
            found += whole
        return found

    def rest(self, seconds: float = SOON) -> list[bytes]:
        """End our direction, and read answers until the other end closes too."""
        with contextlib.suppress(OSError):  # it was closed from there
            self.socket.shutdown(socket.SHUT_WR)
        return self.until_closed(seconds)

    def until_closed(self, seconds: float = SOON) -> list[bytes]:
        """Read answers until the other end closes."""
        return self.answers(2**31, seconds)

    def closed(self, seconds: float = SOON) -> bool:
        """Wait until the other end closes; whether it did."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(_BLOCK):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True


class Datagrams:
    """One UDP socket that talks to the gateway, in blocking code."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(family_of(host), socket.SOCK_DGRAM)
        self.socket.connect((host, port))

    def __enter__(self) -> Datagrams:
        """Nothing to do."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send one datagram."""
        self.socket.send(data)

    def answers(self, count: int, seconds: float = SOON) -> list[bytes]:
        """Read until there are so many answers, or the time is up; a datagram may hold more than one."""
        found: list[bytes] = []
        end = time.monotonic() + seconds
        while len(found) < count and (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                found += split_answers(self.socket.recv(_BLOCK))[0]
            except TimeoutError:
                break
        return found


@dataclass
class Report:
    """One report of a device and what became of it; times are of the monotonic clock."""

    frame: bytes
    id: str
    sent_at: float = 0.0
    last_sent_at: float = 0.0
    answered_at: float | None = None


@dataclass
class Device:
    """
    One tracker.

    An answer says whose it is, not which report it is for, so each is
    credited to the oldest unanswered frame of its connection: the gateway
    answers in order, and a report counts as acknowledged no earlier than it was.
    """

    ident: str
    address: tuple[str, int]
    pace: float
    patience: float
    clock: int
    reports: list[Report] = field(default_factory=list)
    strange: list[bytes] = field(default_factory=list)
    connections: int = 0
    next_at: float = 0.0
    _socket: socket.socket | None = None
    _connected: bool = False
    _unanswered: deque[Report] = field(default_factory=deque)
    _unsent: bytes = b""
    _held: bytes = b""
    _retry_at: float = 0.0

    @property
    def waiting(self) -> Report | None:
        """The report that has no answer yet."""
        return self.reports[-1] if self.reports and self.reports[-1].answered_at is None else None

    def tick(self, now: float, selector: selectors.BaseSelector, resting: bool) -> None:
        """Do what is due."""
        if self._socket is None:
            if now >= self._retry_at:
                self._connect(selector)
        elif self._connected:
            waiting = self.waiting
            if waiting is None:
                if not resting and now >= self.next_at:
                    self._send(self._next_report(now), now)
            elif now - waiting.last_sent_at > self.patience:
                self._send(waiting, now)

    def ready(self, mask: int, now: float, selector: selectors.BaseSelector) -> None:
        """The socket can be read or written."""
        try:
            if mask & selectors.EVENT_WRITE:
                self._writable(now, selector)
            if mask & selectors.EVENT_READ:
                self._readable(now)
        except OSError:
            self.disconnect(selector)
            self._retry_at = now + _RECONNECT_AFTER

    def disconnect(self, selector: selectors.BaseSelector) -> None:
        """Close the socket, if there is one."""
        if self._socket is not None:
            selector.unregister(self._socket)
            self._socket.close()
        self._socket, self._connected = None, False
        self._unanswered.clear()
        self._unsent = self._held = b""

    def _connect(self, selector: selectors.BaseSelector) -> None:
        self._socket = socket.socket(family_of(self.address[0]))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.connect_ex(self.address)
        selector.register(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def _next_report(self, now: float) -> Report:
        self.clock += 1
        frame = v1(self.ident, self.clock)
        report = Report(frame, event_id(self.ident, frame), sent_at=now)
        self.reports.append(report)
        return report

    def _send(self, report: Report, now: float) -> None:
        report.last_sent_at = now
        self._unanswered.append(report)
        self._unsent += report.frame
        self._flush()

    def _flush(self) -> None:
        assert self._socket is not None
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass  # the gateway reads nothing now; at the next try
        except OSError:
            pass  # the loop reads the same error from the socket

    def _writable(self, now: float, selector: selectors.BaseSelector) -> None:
        assert self._socket is not None
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "connect")
        self._connected = True
        self.connections += 1
        selector.modify(self._socket, selectors.EVENT_READ, self)
        if self.waiting is not None:
            self._send(self.waiting, now)

    def _readable(self, now: float) -> None:
        assert self._socket is not None
        data = self._socket.recv(_BLOCK)
        if not data:
            raise ConnectionResetError("closed by the gateway")
        answers, self._held = split_answers(self._held + data)
        for answer in answers:
            self._answered(answer, now)
        if self._unsent:
            self._flush()

    def _answered(self, answer: bytes, now: float) -> None:
        if not self._unanswered or not is_answer(answer, self.ident):
            self.strange.append(answer)
            return
        report = self._unanswered.popleft()
        if report.answered_at is None:
            report.answered_at = now
            self.next_at = now + self.pace


class Fleet:
    """Devices that report in a thread of their own until they are told to stop."""

    def __init__(
        self,
        port: int,
        count: int,
        *,
        host: str = "127.0.0.1",
        pace: float = 0.05,
        patience: float = 3.0,
        first: int = 1,
    ) -> None:
        clock = int(time.time()) - _HEADSTART
        self.devices = [
            Device(f"91700{number:05}", (host, port), pace, patience, clock) for number in range(first, first + count)
        ]
        self._selector = selectors.DefaultSelector()
        self._resting = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            now = time.monotonic()
            for device in self.devices:
                device.tick(now, self._selector, self._resting.is_set())
            for key, mask in self._selector.select(0.01):
                key.data.ready(mask, time.monotonic(), self._selector)

    def finish(self, seconds: float = SOON) -> None:
        """Make no more reports, and wait until the last ones have their answer."""
        self._resting.set()
        try:
            wait_for("the last reports of the fleet to be answered", self._all_answered, seconds, self._silent)
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop at once."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(SOON)
        for device in self.devices:
            device.disconnect(self._selector)
        self._selector.close()

    def _all_answered(self) -> bool:
        return all(device.waiting is None for device in self.devices)

    def _silent(self) -> str:
        idents = [device.ident for device in self.devices if device.waiting is not None]
        return f"{len(idents)} devices have no answer: {' '.join(idents[:10])}"

    def wait_until_all_are_served(self, seconds: float = SOON) -> None:
        """Wait until each device has got an answer to a report that it began only now."""
        moment = time.monotonic()

        def served() -> bool:
            return all(_answered_since(device.reports, moment) for device in self.devices)

        wait_for("every device of the fleet to be served", served, seconds, self._silent)

    @property
    def reports(self) -> list[Report]:
        """Every report so far."""
        return [report for device in self.devices for report in [*device.reports]]

    @property
    def answered(self) -> list[Report]:
        """Those that were acknowledged."""
        return [report for report in self.reports if report.answered_at is not None]

    @property
    def strange(self) -> list[bytes]:
        """Answers that no device waited for."""
        return [answer for device in self.devices for answer in device.strange]

    @property
    def connections(self) -> int:
        """How often devices have connected."""
        return sum(device.connections for device in self.devices)

    def latencies(self) -> Latencies:
        """How long the answers took, from the first sending on."""
        return Latencies.of((report.answered_at or 0.0) - report.sent_at for report in self.answered)


def _answered_since(reports: Sequence[Report], moment: float) -> bool:
    return any(report.sent_at > moment and report.answered_at is not None for report in reports[-100:])


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long answers took, in seconds."""

    count: int
    median: float
    worst: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Latencies:
        """From the single ones."""
        known = [*values]
        if not known:
            return cls(0, 0.0, 0.0)
        return cls(len(known), statistics.median(known), max(known))
