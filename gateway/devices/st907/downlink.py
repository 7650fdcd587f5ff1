"""What an ST-907 is told: acknowledgements, with the maker's code that the device itself used."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from gateway.fields import compact_time

#: The maker's code for a device that has not named its own yet.
DEFAULT_MAKER: Final = "HQ"

Reply = Callable[[float], bytes]


@lru_cache(maxsize=64)
def _end(second: int) -> bytes:
    """How an acknowledgement ends: the time, and the end sign."""
    return f"{compact_time(second)}#".encode()


@lru_cache(maxsize=8192)
def v4(maker: str, ident: str, kind: str) -> Reply:
    """C{V4} with the message's type and the time, which newer firmware sets its clock by."""
    head = f"*{maker},{ident},V4,{kind},".encode()

    def reply(now: float) -> bytes:
        return head + _end(int(now))

    return reply


def r12(maker: str, ident: str) -> Reply:
    """C{R12} with the time of day: without it an ST-901L sends its stored binary records again and again."""
    head = f"*{maker},{ident},R12,"

    def reply(now: float) -> bytes:
        return f"{head}{compact_time(int(now))[8:]}#".encode()

    return reply


def echo(maker: str, ident: str, kind: str) -> Reply:
    """The heartbeat itself, without what it carried."""
    line = f"*{maker},{ident},{kind}#".encode()
    return lambda now: line
