"""
One stream or one datagram from its first byte: detect, replay, decode.

Sans-I/O: bytes and the time go in, messages come out; what a timer is wanted
for stands in C{deadline}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from gateway.detection import Candidates, Decision, Detector
from gateway.errors import DecodeError
from gateway.interfaces import IDecoder, Memory, Message
from gateway.registry import Plugin

#: Seconds of silence after which a stream that is still being detected is judged by what is there.
DETECT_SILENCE_S: Final = 2.0


class Limits(NamedTuple):
    """What one connection may cost before it is cut: see C{[limits]} of the configuration."""

    detect_bytes: int = 1024
    detect_seconds: float = 60.0
    frame_bytes: int = 65_536
    junk_bytes: int = 8_192


class Connection:
    """
    The state of one stream.

    @ivar plugin: whose it turned out to be, None while that is open.
    @ivar ident: who spoke last on it.
    @ivar closing: why the stream is at its end, None while it is not.
    @ivar limit: the option in C{[limits]} that ended it, if one did.
    @ivar leftover: the bytes that the stream ended with, which are no whole frame.
    @ivar decision: how detection ended.
    """

    __slots__ = (
        "_decoder",
        "_detector",
        "_good",
        "_junk",
        "_last",
        "_limits",
        "_memory",
        "_opened",
        "_replay",
        "closing",
        "decision",
        "ident",
        "leftover",
        "limit",
        "plugin",
    )

    def __init__(self, candidates: Candidates, limits: Limits, memory: Memory, now: float) -> None:
        self._detector: Detector | None = Detector(candidates, limits.detect_bytes)
        self._decoder: IDecoder | None = None
        self._limits = limits
        self._memory = memory
        self._replay = b""
        self._opened = now
        self._last = now
        self._junk = 0
        self._good = False
        self.plugin: Plugin | None = None
        self.ident: str | None = None
        self.closing: str | None = None
        self.limit = ""
        self.leftover = b""
        self.decision: Decision | None = None

    def receive(self, data: bytes, now: float) -> Sequence[Message]:
        """Take bytes as they come; the messages that they complete."""
        self._last = now
        if self._decoder is not None:
            if self._replay:
                # a good frame has to come within the longest one, or there is no second chance
                self._replay = self._replay + data if len(self._replay) < self._limits.frame_bytes else b""
            return self._checked(self._decoder.receive(data, now), now)
        if self.closing or self._detector is None:
            return ()
        decision = self._detector.feed(data)
        if decision is None:
            return ()
        if decision.plugin is None and decision.at >= self._limits.detect_bytes:
            self.limit = "detect_bytes"
        return self._decided(decision, now)

    def datagram(self, data: bytes, now: float, hint: str | None = None) -> Sequence[Message]:
        """Take a whole datagram: what it holds, and nothing after it."""
        assert self._detector is not None
        messages = self._decided(self._detector.whole(data, hint), now)
        return [*messages, *self.end(now)] if self.rest else messages

    @property
    def deadline(self) -> float | None:
        """When L{silence} is wanted unless bytes come first, UTC epoch seconds; None: not at all."""
        if self._decoder is not None:
            wait = self._decoder.deadline
            return None if wait is None else self._last + wait
        if self._detector is None or self.closing:
            return None
        limit = self._opened + self._limits.detect_seconds
        return min(limit, self._last + DETECT_SILENCE_S) if self._detector.data else limit

    def silence(self, now: float) -> Sequence[Message]:
        """The deadline has passed."""
        if self._decoder is not None:
            return self._checked(self._decoder.finish(now), now)
        if self._detector is None or self.closing:
            return ()
        decision = self._detector.silence()
        if decision is None and now >= self._opened + self._limits.detect_seconds:
            decision = self._detector.end(f"{self._limits.detect_seconds:g} s")
            if decision.plugin is None:
                self.limit = "detect_seconds"
        if decision is None:
            self._last = now  # asked again after as long
            return ()
        return self._decided(decision, now)

    def end(self, now: float) -> Sequence[Message]:
        """No more bytes will come: what can still be decided, and what is left over as undecodable."""
        if self._decoder is None:
            if self._detector is None or self.closing or not self._detector.data:
                return ()
            return [*self._decided(self._detector.end("the end of the stream"), now), *self.end(now)]
        messages = list(self._checked(self._decoder.finish(now), now))
        rest = self._decoder.rest
        if rest:
            self.leftover = rest
            messages.append(Message(rest, self.ident, error=DecodeError("the stream ended inside a frame", rest)))
        self._decoder = None
        self.closing = self.closing or "the end of the stream"
        return messages

    @property
    def rest(self) -> bytes:
        """What is held because it is no whole frame yet."""
        if self._decoder is not None:
            rest: bytes = self._decoder.rest
            return rest
        return self._detector.data if self._detector is not None else b""

    def shift(self, seconds: float) -> None:
        """Reading stood still for so long: the timers stand still with it."""
        self._opened += seconds
        self._last += seconds

    def _decided(self, decision: Decision, now: float) -> Sequence[Message]:
        assert self._detector is not None
        data = self._detector.data
        self.decision = decision
        self._detector.count(decision)
        if decision.plugin is None:
            self.closing = f"unrecognised: {decision.reason}"
            return ()
        self._detector = None
        self._replay = data if decision.runner_up is not None else b""
        return self._start(decision.plugin, data, now)

    def _start(self, plugin: Plugin, data: bytes, now: float) -> Sequence[Message]:
        self.plugin = plugin
        self._decoder = plugin.decoder(self._memory)
        return self._checked(self._decoder.receive(data, now), now)

    def _checked(self, messages: Sequence[Message], now: float) -> Sequence[Message]:
        """Keep who speaks and how much of it was junk; before the first good frame the runner-up gets its chance."""
        if len(messages) == 1 and (message := messages[0]).ident is not None and message.error is None:
            self.ident = message.ident
            self._good = True
            self._junk = 0
            self._replay = b""
            if message.close:
                self._closed()
            if self._decoder is None or not self._decoder.rest:
                return messages
        before, unnamed = self.ident, False
        for message in messages:
            if message.error is None:
                self._good = True
                self._junk = 0
                self._replay = b""
                if message.ident is not None:
                    self.ident = message.ident
                else:
                    unnamed = True
            elif self._replay and not self._good and self.decision is not None and self.decision.runner_up is not None:
                data, self._replay = self._replay, b""
                return self._start(self.decision.runner_up, data, now)
            else:
                self._junk += len(message.raw)
            if message.close:
                self._closed()
                messages = messages[: messages.index(message) + 1]
                break
        if self._junk > self._limits.junk_bytes:
            self.closing = f"{self._junk} bytes without a good frame"
            self.limit = "junk_bytes"
        if self._decoder is not None and len(self._decoder.rest) > self._limits.frame_bytes:
            self.closing = f"a frame of more than {self._limits.frame_bytes} bytes"
            self.limit = "frame_bytes"
        return self._named(messages, before) if unnamed else messages

    def _closed(self) -> None:
        """The device ends the stream: nothing after it counts."""
        self.closing = "the device ends the stream"
        self._decoder = None

    def _named(self, messages: Sequence[Message], ident: str | None) -> Sequence[Message]:
        """Give messages without an ident that of whoever spoke before them; without one they can't be read."""
        named: list[Message] = []
        for message in messages:
            if message.error is None and message.ident is None:
                if ident is None:
                    error = DecodeError("no ident, and nobody has spoken on this connection yet", message.raw)
                    message = Message(message.raw, error=error)
                else:
                    message = message._replace(ident=ident)
            ident = message.ident or ident
            named.append(message)
        return named


class Datagrams:
    """
    Datagrams of one port, each decided and decoded on its own.

    @ivar plugin: whose the last one was, None: nobody's.
    @ivar reason: why it was nobody's.
    """

    def __init__(self, candidates: Candidates, limits: Limits, memory: Memory) -> None:
        self._candidates = candidates
        self.limits = limits
        self._memory = memory
        #: by the first byte: who may read a datagram at a glance, as nobody else speaks like that, and with what
        self._glances = [self._glance(candidates.of(first)[0]) for first in range(256)]
        self.plugin: Plugin | None = None
        self.reason = ""

    def _glance(self, live: Sequence[Plugin]) -> tuple[Plugin, Callable[[bytes], Message | None]] | None:
        read = live[0].datagrams(self._memory) if len(live) == 1 else None
        return None if read is None else (live[0], read)

    def receive(self, data: bytes, now: float, hint: str | None) -> Sequence[Message]:
        """What a datagram holds; C{hint}: the device that its sender turned out to be before."""
        glance = self._glances[data[0]] if data else None
        if glance is not None:
            self.plugin, read = glance
            if (message := read(data)) is not None:
                return (message,)  # nearly all
        self.plugin = None
        connection = Connection(self._candidates, self.limits, self._memory, now)
        try:
            return connection.datagram(data, now, hint)
        finally:
            self.plugin = connection.plugin
            self.reason = connection.decision.reason if connection.decision is not None else ""
