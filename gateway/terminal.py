"""How the command line shows things: errors in a line, and nothing of a device's that a terminal would obey."""

from __future__ import annotations

import re
from typing import Any, Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Fails(click.ClickException):
    """An error of the gateway's as the command line shows it: one line, exit status 1."""


def printable(text: str) -> str:
    """A text with its control characters as what stands for them in hex."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def shown(data: bytes) -> str:
    """Bytes as text where they are text, else as hex; never a control character to the terminal."""
    text = data.decode("latin-1")
    if all(32 <= byte < 127 or byte in b"\r\n" for byte in data[:200]):
        return printable(text[:400])
    return data[:200].hex()


def shortened(text: str, most: int) -> str:
    """A printable text of C{most} characters at most."""
    found = printable(text[: most + 1])
    return found if len(text) <= most and len(found) <= most else f"{found[: most - 3]}..."


class Duration(click.ParamType[float]):
    """C{90s}, C{10m}, C{2h} or C{1d}, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        found = re.fullmatch(r"(\d{1,6})([smhd]?)", value) if isinstance(value, str) else None
        if found is None:
            self.fail(f"{value!r} is no duration: 90s, 10m, 2h or 1d", param, ctx)
        return float(int(found[1]) * _UNITS[found[2] or "s"])


def age(seconds: float) -> str:
    """How long something is ago, in the largest unit that says it: 12s, 5m, 3h, 2d."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def columns(rows: list[list[str]]) -> str:
    """Rows in columns of the same width, the first of them the head."""
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows)
