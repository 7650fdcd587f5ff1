"""Whoever gives commands: puts them on the stream, and reads what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.integration.parts import SOON, wait_for


class Event(NamedTuple):
    """An event of a command, without the C{command.} of its type."""

    kind: str
    ident: str
    time: str
    data: dict[str, Any]

    @property
    def final(self) -> bool:
        """Whether nothing more is to follow."""
        return bool(self.data.get("final"))

    @property
    def reason(self) -> str:
        """Why."""
        return str(self.data.get("reason", ""))


class Commander:
    """Gives commands on one Redis."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def give(self, ident: str, command: str, ref: str, **fields: Any) -> str:
        """Put a command on the stream; C{args} and C{guard} as dicts. The id of its entry."""
        entry = {"ident": ident, "command": command, "ref": ref, "by": "a test"}
        entry |= {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in fields.items()}
        added: str = self._client.xadd("gateway:command", entry)
        return added

    def life(self, ref: str) -> list[Event]:
        """All that was said of a command, in order."""
        return self.lives().get(ref, [])

    def lives(self) -> dict[str, list[Event]]:
        """All that was said of each command, in order."""
        found: dict[str, list[Event]] = {}
        for _, entry in self._client.xrange("gateway:result"):
            data = json.loads(entry["data"])
            event = Event(entry["type"].removeprefix("command."), entry["ident"], entry["time"], data)
            found.setdefault(data["ref"], []).append(event)
        return found

    def state(self, ref: str) -> str:
        """Its present state."""
        return self._client.hget(f"gateway:request:{ref}", "state") or ""

    def until(self, ref: str, *kinds: str, seconds: float = SOON) -> Event:
        """Wait for an event of one of these kinds, and return it."""
        return wait_for(
            f"{ref} to be {' or '.join(kinds)}",
            lambda: [event for event in self.life(ref) if event.kind in kinds],
            seconds,
            detail=self._told(ref),
        )[0]

    def final(self, ref: str, seconds: float = SOON) -> Event:
        """Wait for the end of a command, and return its last event."""
        return wait_for(
            f"{ref} to come to its end",
            lambda: [event for event in self.life(ref) if event.final],
            seconds,
            detail=self._told(ref),
        )[0]

    def _told(self, ref: str) -> Callable[[], str]:
        return lambda: "\n".join(f"{event.kind}: {event.data}" for event in self.life(ref))
