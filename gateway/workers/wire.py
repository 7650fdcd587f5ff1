"""
What a parent and its workers tell each other, a JSON object a line.

A worker's standard input is what it is told: its L{Setup}, then C{GO}, then
C{STOP}.  Its standard output says how it does, and its standard error is its
log.  Nobody waits for the other: a line that does not fit into the pipe is
left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.reporting import Report

GO: Final = b"go\n"
STOP: Final = b"stop\n"
#: The longest line that is taken, and the longest text of one line of a log.
LINE_BYTES: Final = 65_536
TEXT: Final = 4000


class Setup(NamedTuple):
    """
    What a worker is told first.

    @ivar worker: its number, from 1; C{workers}: how many there are.
    @ivar options: those of C{twistd gateway}; it reads the configuration itself.
    @ivar instance: the gateway's name, C{data_dir}: where it keeps its data; neither may have changed.
    @ivar embedded: whether the Redis is the gateway's own.
    @ivar memory: bytes that streams may take.
    @ivar sockets: descriptors that it inherits, TCP and UDP of each address.
    @ivar proxied: the same, TCP where balancers connect; C{encrypted}: where trackers connect with TLS.
    @ivar reactor: the module of the one to use.
    @ivar announce: whether it says what all of them would say at start.
    """

    worker: int
    workers: int
    options: list[str]
    instance: str
    data_dir: str
    embedded: bool
    memory: int
    sockets: list[list[int]]
    proxied: list[int]
    encrypted: list[int]
    reactor: str
    announce: bool

    def line(self) -> bytes:
        """As it is sent."""
        return json.dumps(self._asdict()).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Setup:
        """As it came."""
        return cls(**json.loads(line))


class Word(NamedTuple):
    """
    What a worker says.

    It has read its configuration, and waits for C{GO} or has it.

    @ivar where: the addresses on which it listens for trackers, and C{balancers}; empty: it does not.
    @ivar report: how it does.
    """

    where: Sequence[str] = ()
    balancers: Sequence[str] = ()
    report: Report | None = None

    def line(self) -> bytes:
        """As it is sent."""
        report = self.report and {**self.report._asdict(), "counters": dict(self.report.counters)}
        return json.dumps({"where": [*self.where], "balancers": [*self.balancers], "report": report}).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Word:
        """
        As it came.

        @raise ValueError: when it is none.
        """
        try:
            said = json.loads(line)
            report = said["report"]
            return cls(said["where"], said["balancers"], report and Report(**report))
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from error


class Entry(NamedTuple):
    """A line of a worker's log."""

    level: str
    namespace: str
    text: str

    def line(self) -> bytes:
        """As it is sent."""
        return json.dumps([self.level, self.namespace, self.text[:TEXT]]).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Entry:
        """As it came; what is none was written by something else, which is rarely good."""
        try:
            level, namespace, text = json.loads(line)
            return cls(str(level), str(namespace), str(text))
        except (TypeError, ValueError):
            return cls("error", "gateway.workers", line.decode("utf-8", "replace")[:TEXT])


class Lines:
    """The lines of what comes through a pipe."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Those that are whole now; what never ends is cut."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        return [line for line in lines if line]

    def end(self) -> list[bytes]:
        """What is left when nothing more comes."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class Pipe:
    """
    The writing end of a pipe, for whole lines.

    @ivar missing: lines that did not fit, as nobody read.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""
        self.missing = 0
        os.set_blocking(fd, False)

    def write(self, line: bytes) -> None:
        """Write a line, or leave it out."""
        if self._rest:
            self._rest = self._push(self._rest)
        if self._rest:
            self.missing += 1
        else:
            self._rest = self._push(line)
            if self._rest == line:
                self._rest = b""
                self.missing += 1

    def _push(self, data: bytes) -> bytes:
        try:
            return data[os.write(self._fd, data) :]
        except BlockingIOError:
            return data
        except OSError:  # the parent is gone
            return b""
