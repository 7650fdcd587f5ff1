"""
Server-sent events: what changes is told to the browsers that look.

Once a second it is asked what is new, for all of them together, and only while
somebody looks.  A browser that does not keep up misses what came meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.web.http import Request
from zope.interface import implementer

from gateway.fleet.history import Found
from gateway.sinks.blocking import BlockingRedis
from gateway.web.answers import Answers
from gateway.web.asking import Asker, Away

#: So many browsers may look at once.
LISTENERS: Final = 50
#: So many devices are told of at once, and entries of each stream.
DEVICES: Final = 1000
ENTRIES: Final = 200
#: A browser hears something at least so often, s: else it takes the connection for dead.
QUIET_S: Final = 15.0
#: Streams of which each entry is told, by the name of their event.
TOLD: Final = {"event": "event", "result": "result", "raw": "raw"}

#: The idents of the newest entries since one, and which is the newest.
_CHANGED: Final = """
local rows = redis.call('XREVRANGE', KEYS[1], '+', ARGV[1], 'COUNT', ARGV[2])
local idents, seen = {}, {}
for i = 1, #rows do
  local ident = rows[i][2][14]
  if ident and not seen[ident] then seen[ident] = true; idents[#idents + 1] = ident end
end
return {rows[1] and rows[1][1] or '', idents}
"""


@implementer(IPushProducer)
class Listener:
    """One browser."""

    def __init__(self, request: Request, gone: Callable[[Listener], None]) -> None:
        self._request = request
        self._full = False
        self.missed = 0
        request.setHeader(b"content-type", b"text/event-stream; charset=utf-8")
        request.setHeader(b"x-accel-buffering", b"no")
        request.registerProducer(self, True)
        request.notifyFinish().addBoth(lambda _: gone(self))
        request.write(b"retry: 2000\n\n")

    def tell(self, message: bytes) -> None:
        """Write, unless it does not keep up."""
        if self._full:
            self.missed += 1
        else:
            self._request.write(message)

    def end(self) -> None:
        """The gateway ends."""
        self._request.unregisterProducer()
        self._request.finish()

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False

    def stopProducing(self) -> None:
        """The connection is gone; its request says so, too."""


class News:
    """Everybody who looks."""

    log = Logger()

    def __init__(self, asker: Asker, answers: Answers, prefix: str, overview: Callable[[], Mapping[str, Any]]) -> None:
        """@param overview: what is told of the whole."""
        self._asker = asker
        self._answers = answers
        self._prefix = prefix
        self._overview = overview
        self._listeners: set[Listener] = set()
        self._last: dict[str, str] = {}
        self._asking = False
        self._told = self._overviewed = 0.0

    @property
    def full(self) -> bool:
        """Whether there are as many as there may be."""
        return len(self._listeners) >= LISTENERS

    def add(self, request: Request) -> None:
        """One more."""
        if not self._listeners:
            self._last.clear()  # what came while nobody looked is no news
        self._listeners.add(Listener(request, self._listeners.discard))

    def end(self) -> None:
        """Tell nobody anything any more."""
        for listener in list(self._listeners):
            listener.end()

    def tick(self, elapsed: float) -> None:
        """Once a second."""
        if not self._listeners:
            return
        if elapsed - self._overviewed >= 2.0:
            self._overviewed = elapsed
            self._tell("overview", self._overview(), elapsed)
        if not self._asking:
            self._asking = True
            try:
                d = self._asker.ask(self._news)
            except Away:
                self._asking = False
                return
            d.addCallbacks(lambda found: self._found(found, elapsed), self._failed)
        if elapsed - self._told >= QUIET_S:
            self._told = elapsed
            for listener in self._listeners:
                listener.tell(b": still here\n\n")

    def _failed(self, failure: Any) -> None:
        self._asking = False
        if not failure.check(Away):
            self.log.failure("what is new could not be read", failure)

    def _news(self, client: BlockingRedis) -> list[tuple[str, Mapping[str, Any]]]:
        """What is new since the last time; in a thread."""
        found: list[tuple[str, Mapping[str, Any]]] = []
        key = f"{self._prefix}:position"
        since = self._last.get("position")
        start = f"({since}" if since else "+"
        newest, idents = client.command("EVAL", _CHANGED, "1", key, start, str(DEVICES if since else 1))
        self._last["position"] = newest.decode() or since or "0-0"
        if since and idents:
            names = [ident.decode("utf-8", "replace") for ident in idents]
            found.append(("devices", self._answers.changed(client, names)))
        for stream, name in TOLD.items():
            key, last = f"{self._prefix}:{stream}", self._last.get(stream)
            if last is None:
                rows = client.command("XREVRANGE", key, "+", "-", "COUNT", "1")
                self._last[stream] = rows[0][0].decode() if rows else "0-0"
                continue
            # the newest: who looks now wants to know of now
            rows = client.command("XREVRANGE", key, "+", f"({last}", "COUNT", str(ENTRIES))
            if rows:
                self._last[stream] = rows[0][0].decode()
                found += [(name, Found.read(entry, row).as_json()) for entry, row in reversed(rows)]
        return found

    def _found(self, found: list[tuple[str, Mapping[str, Any]]], elapsed: float) -> None:
        self._asking = False
        for name, said in found:
            self._tell(name, said, elapsed)

    def _tell(self, name: str, said: Mapping[str, Any], elapsed: float) -> None:
        self._told = elapsed
        message = f"event: {name}\ndata: {json.dumps(said)}\n\n".encode()
        for listener in list(self._listeners):
            listener.tell(message)
