"""
What a plugin's own tests need: the id of an event, and a stream played to a device whole or in pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.connection import Connection, Limits
from gateway.detection import Candidates, Decision
from gateway.events import event_digest, rounded
from gateway.fields import rfc3339
from gateway.interfaces import Message, Transport
from gateway.registry import Plugin, load
from gateway.session import Envelope, Stored
from gateway.sessions import Sessions

__all__ = ["Played", "entry", "event_id", "pieces", "play", "plugins"]


def event_id(ident: str, protocol: str, frame: bytes, type: str, index: int = 0, received: str | None = None) -> str:
    """
    The C{id} field of an event.

    @param ident: the device's.
    @param protocol: the plugin's name.
    @param frame: the frame as delimited, without CR or LF after it.
    @param type: the event's type.
    @param index: its place in the frame.
    @param received: the C{received} field, only for a frame without a time of its own.
    @return: 32 hex digits.
    """
    return event_digest(ident, protocol, frame, type, index, received).hex()


def plugins(disable: Sequence[str] = ()) -> tuple[Plugin, ...]:
    """Every installed device."""
    return load(disable)


class Played(NamedTuple):
    """
    What a stream led to.

    @ivar decision: how detection ended; None when it did not.
    @ivar messages: each with the envelopes that a fresh gateway would publish for it.
    @ivar rest: the bytes after the last frame.
    """

    decision: Decision | None
    protocol: str | None
    messages: tuple[tuple[Message, tuple[Envelope, ...]], ...]
    rest: bytes


def play(
    data: bytes | Sequence[bytes],
    received: float,
    transport: Transport = "tcp",
    devices: Sequence[Plugin] | None = None,
    limits: Limits | None = None,
    registry: Mapping[str, str] | None = None,
) -> Played:
    """
    Play a stream, or a datagram, to a gateway that knows no device yet.

    @param data: the bytes, or the pieces in which they come.
    @param received: UTC epoch seconds at which all of them come.
    @param registry: what is set for each ident that turns up.
    """
    stored = Stored(registry=registry or {})
    devices = plugins() if devices is None else devices
    sessions = Sessions(devices=devices)
    connection = Connection(Candidates(devices, transport), limits or Limits(), sessions.memory, received)
    chunks = [data] if isinstance(data, bytes) else list(data)
    messages: list[Message] = []
    if transport == "udp":
        messages += connection.datagram(b"".join(chunks), received)
    else:
        for chunk in chunks:
            messages += connection.receive(chunk, received)
        messages += connection.silence(received)
        messages += connection.end(received)
    rest = _rest(messages) if connection.plugin is not None else b"".join(chunks)
    if connection.leftover:
        messages.pop()  # what the stream ended inside of is the rest, and no frame
    protocol = connection.plugin.name if connection.plugin is not None else None
    judged = tuple(_judged(sessions, message, protocol or "", received, stored) for message in messages)
    return Played(connection.decision, protocol, judged, rest)


def _rest(messages: Sequence[Message]) -> bytes:
    """The bytes after the last frame that could be read."""
    good = max((at for at, message in enumerate(messages) if message.error is None), default=-1)
    return b"".join(message.raw for message in messages[good + 1 :])


def _judged(
    sessions: Sessions, message: Message, protocol: str, received: float, stored: Stored
) -> tuple[Message, tuple[Envelope, ...]]:
    if message.error is not None or message.ident is None:
        return message, ()
    session = sessions.get(message.ident)
    if session is None:
        session = sessions.begin(message.ident, received)
        sessions.load(session, stored, received)
    message = sessions.learn(session, message, protocol, received)
    return message, tuple(sessions.judge(session, message, protocol, received))


def pieces(data: bytes, size: int = 1) -> list[bytes]:
    """A stream cut into reads of C{size} bytes."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def entry(envelope: Envelope, ident: str, protocol: str) -> Mapping[str, Any]:
    """An envelope with the names of the contract: type, time, ident, protocol, and all its attributes as data."""
    return {
        "type": envelope.type,
        "time": rfc3339(envelope.time),
        "ident": ident,
        "protocol": protocol,
        "data": {name: v for name, v in rounded(envelope.attributes).items() if v is not None and v != ""},
    }
