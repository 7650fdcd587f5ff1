"""The files that a fleet writes while it runs: a JSON object a line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import click

#: Writes a line: an ident, bytes, the time, UTC epoch seconds, and what else there is to say.
Write = Callable[..., None]


@contextlib.contextmanager
def written(path: str | None, option: str, *more: str) -> Iterator[Write | None]:
    """
    What writes lines to a file; None without one.

    @param option: the option that names the file.
    @param more: the names of what else there is to say.
    """
    if path is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            # a line at a time, for those who follow it
            file = stack.enter_context(open(path, "w", encoding="ascii", buffering=1))
        except OSError as error:
            raise click.BadParameter(f"{path}: {error.strerror}", param_hint=option) from error

        def write(ident: str, data: bytes, at: float, *values: object) -> None:
            moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            row = {"ident": ident, "hex": data.hex(), "time": moment} | dict(zip(more, values, strict=True))
            file.write(json.dumps(row) + "\n")

        yield write
