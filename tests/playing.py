"""A test that plays the gateway's part in the life of a command: takes the entry, and publishes what it is told to."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from gateway.commands import Request

#: A step: what happens, and what it says besides; None: half a second passes.
Play = Sequence[tuple[str, dict[str, Any]] | None]

ENDS: Final = frozenset("verified mismatch failed expired superseded cancelled refused".split())


def now() -> str:
    """The time as the streams have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Played:
    """A gateway by hand."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.taken: list[Request] = []
        self._last = "0-0"

    def run(self, seconds: float = 60.0) -> None:
        """Be there, for those who look whether somebody is."""
        self.client.set("gateway:instance:played", "{}", px=int(seconds * 1000))

    def take(self, seconds: float = 15.0) -> Request:
        """Wait for the next entry and read it."""
        answer = self.client.xread({"gateway:command": self._last}, count=1, block=int(seconds * 1000))
        assert answer, "no command came"
        [[_, [(entry, fields)]]] = answer
        self._last = entry
        self.taken.append(Request.parse(entry, fields))
        return self.taken[-1]

    def publish(self, request: Request, state: str, **data: Any) -> str:
        """Publish what happens with it, and keep how it stands."""
        final = data.setdefault("final", state in ENDS)
        fields = {
            "v": "1",
            "id": secrets.token_hex(16),
            "type": f"command.{state}",
            "source": "gateway/played",
            "time": data.pop("time", None) or now(),
            "received": now(),
            "ident": request.ident,
            "protocol": "st907",
            "device_id": "",
        }
        who = {"ref": request.ref, "request": request.entry, "command": request.command.name, "by": request.by}
        expires = int(request.entry.partition("-")[0]) + int(request.ttl_s * 1000)
        with self.client.pipeline() as together:
            key = f"gateway:request:{request.ref}"
            known = {"state": state, "final": int(final), "ident": request.ident, "entry": request.entry}
            known |= {"command": who["command"], "by": request.by, "args": json.dumps(dict(request.command.args))}
            together.hset(key, mapping=known | {"expires_ms": str(expires), "step": "1"})
            together.xadd("gateway:result", fields | {"data": json.dumps(who | data)})
            return str(together.execute()[-1])

    def play(self, steps: Play) -> Request:
        """Take the next entry and let this happen with it."""
        request = self.take()
        for step in steps:
            if step is None:
                time.sleep(0.5)
            else:
                self.publish(request, step[0], **step[1])
        return request

    def at_once(self, steps: Play, then: Callable[[], None] = lambda: None) -> threading.Thread:
        """The same beside the test."""

        def run() -> None:
            self.play(steps)
            then()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread
