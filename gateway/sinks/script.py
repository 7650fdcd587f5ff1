"""Scripts that run in Redis: their text, and how they are called."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """A server-side script and the name under which the server knows it."""

    text: str
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        """One of the .lua files beside this module."""
        text = files("gateway.sinks").joinpath(name).read_text()
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
