"""
Which devices are traced, and until when.

A device that is traced has each of its frames on C{gateway:raw}, and each that
it is sent.  Who is, is written in Redis, for whichever gateway has the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.entries import row
from gateway.events import IDENT
from gateway.fields import epoch, rfc3339
from gateway.sinks.blocking import BlockingRedis

#: So many devices are traced at most, and each for so long, s: what is forgotten ends by itself.
MOST: Final = 100
LONGEST_S: Final = 86_400


def key(prefix: str) -> str:
    """The hash of those that are traced, ident -> RFC 3339 time until which."""
    return f"{prefix}:trace"


def until(said: Mapping[str, str], now: float) -> dict[str, float]:
    """
    Who is traced by what stands in Redis, until when in UTC epoch seconds; what makes no sense is left out.

    @param said: what stands there; anybody may have written it.
    """
    found: dict[str, float] = {}
    for ident, text in said.items():
        end = epoch(text)
        if end is not None and now < end and IDENT.fullmatch(ident) and len(found) < MOST:
            found[ident] = min(end, now + LONGEST_S)
    return found


def traced(client: BlockingRedis, prefix: str, now: float) -> dict[str, float]:
    """Who is traced, until when, UTC epoch seconds."""
    return until(row(client.command("HGETALL", key(prefix))), now)


def trace_on(client: BlockingRedis, prefix: str, ident: str, seconds: float, now: float) -> float:
    """
    Trace a device; until when, UTC epoch seconds.

    @raise ValueError: when it can't be, in words.
    """
    if not IDENT.fullmatch(ident):
        raise ValueError(f"{ident[:64]!r} is no ident")
    if not 0 < seconds <= LONGEST_S:
        raise ValueError(f"{seconds:g} s: it is traced for more than 0 s and {LONGEST_S:,} s at most")
    there = traced(client, prefix, now)
    if ident not in there and len(there) >= MOST:
        raise ValueError(f"{MOST} devices are traced: switch one off first")
    for name in client.command("HKEYS", key(prefix)):  # those whose time is over
        if name.decode("utf-8", "replace") not in there:
            client.command("HDEL", key(prefix), name)
    client.command("HSET", key(prefix), ident, rfc3339(now + seconds))
    return now + seconds


def trace_off(client: BlockingRedis, prefix: str, ident: str) -> bool:
    """Trace a device no more; whether it was."""
    return bool(client.command("HDEL", key(prefix), ident))


def server_time(client: BlockingRedis) -> float:
    """The time of day by the server, UTC epoch seconds: it may be that of another machine."""
    seconds, micros = client.command("TIME")
    return int(seconds) + int(micros) / 1e6
