"""
Logs for machines: a JSON object a line, for C{twistd -n --logger gateway.logs.json_lines gateway}.

What a line holds is bounded, and nothing in it ends it early.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

from twisted.logger import ILogObserver, LogEvent, formatEvent
from zope.interface import implementer

from gateway.fields import rfc3339

#: How long the text of a line, a field, and a traceback may be, and how many fields there are.
TEXT: Final = 4096
FIELD: Final = 512
TRACEBACK: Final = 16_384
FIELDS: Final = 32
#: Names that lines have of their own.
OWN: Final = frozenset({"time", "level", "logger", "text", "traceback"})


def line(event: LogEvent) -> str:
    """An event as one line."""
    level = event.get("log_level")
    said: dict[str, Any] = {
        "time": rfc3339(float(event.get("log_time", 0.0))),
        "level": getattr(level, "name", "info"),
        "logger": str(event.get("log_namespace", ""))[:FIELD],
        "text": formatEvent(event)[:TEXT],
    }
    said |= _fields(event)
    failure = event.get("log_failure")
    if failure is not None:
        try:
            said["traceback"] = failure.getTraceback()[-TRACEBACK:]
        except Exception:  # foreign: what a failure holds may fail to be shown
            said["traceback"] = repr(failure)[:TRACEBACK]
    return json.dumps(said, ensure_ascii=True)


def _fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """What an event's text is made of."""
    found: dict[str, Any] = {}
    for name, value in event.items():
        if name.startswith("log_") or name in OWN or len(found) >= FIELDS:
            continue
        if isinstance(value, bool) or value is None or (isinstance(value, int) and abs(value) < 2**53):
            found[name[:64]] = value
        elif isinstance(value, float):
            found[name[:64]] = value if value - value == 0 else str(value)
        elif name not in ("format", "isError", "system", "why", "message", "failure"):  # Twisted's older way of logging
            try:
                found[name[:64]] = str(value)[:FIELD]
            except Exception:  # foreign
                found[name[:64]] = "?"
    return found


@implementer(ILogObserver)
class JSONLines:
    """Writes each event as a line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, event: LogEvent) -> None:
        if getattr(event.get("log_level"), "name", "info") == "debug":
            return
        self._file.write(line(event) + "\n")
        self._file.flush()


def json_lines() -> JSONLines:
    """The observer for C{twistd --logger}: on the standard output, which twistd takes over for all else."""
    return JSONLines(sys.__stdout__ or sys.stdout)
