"""How the command line shows things: errors in a line, and nothing of a device's that a terminal would obey."""

from __future__ import annotations

import click


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
