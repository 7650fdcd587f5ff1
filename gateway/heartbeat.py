"""What a running gateway says of itself every few seconds, with its ledgers as they are at that moment."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from twisted.logger import Logger

from gateway.publisher import Publisher
from gateway.sinks.connection import Layout
from gateway.sinks.delivery import Delivery
from gateway.sinks.redis import INSTANCE_TTL_S, PRODUCER_TTL_S, RedisSink
from gateway.sinks.retention import Retention
from gateway.sinks.script import Script


class Heartbeat:
    """
    Writes C{gateway:instance:<instance>}, and sees whether somebody else does so, too.

    Whoever finds another process' beat where its own stood last shares its
    name with one that is alive; a process that was started anew finds that of
    the one before it once, when it has written none yet.
    """

    log = Logger()

    def __init__(
        self,
        publisher: Publisher,
        sink: RedisSink,
        delivery: Delivery,
        retention: Retention,
        layout: Layout,
        about: Callable[[], Mapping[str, Any]],
        elapsed: Callable[[], float],
    ) -> None:
        """
        @param about: what is said of the process itself.
        @param elapsed: seconds of a clock that nobody sets.
        """
        self._publisher = publisher
        self._sink = sink
        self._delivery = delivery
        self._retention = retention
        self._layout = layout
        self._about = about
        self._script = Script.load("beat.lua")
        self._host = socket.gethostname()
        self._boot = os.urandom(8).hex()
        self._beat = 0
        self._elapsed = elapsed
        self._written = False
        #: when somebody else of this name was seen last, and where
        self._met = -inf
        self._other = ""

    def write(self) -> None:
        """
        Write it, if Redis is there.

        What is counted here and what the script reads are of one moment: batches that are under way were written
        before it, and the last number tells which of them Redis took.
        """
        sink = self._sink
        connection = sink.connection
        if connection is None:
            return
        self._beat += 1
        producers = list(sink.stored)
        keys = (
            self._layout.key("instance", self._layout.instance),
            self._layout.key("producer", sink.producer),
            *map(sink.ledger_key, producers),
        )
        text = json.dumps(self._content())[:-1]  # the script goes on from there
        args = (str(INSTANCE_TTL_S), str(PRODUCER_TTL_S), text, *producers)
        written = connection.command("EVAL", self._script.text, len(keys), *keys, *args)
        written.addCallbacks(self._found, lambda _: None)

    def _found(self, before: Sequence[bytes]) -> None:
        """What had been written there before."""
        boot, host = (text.decode("utf-8", "replace") for text in before)
        if self._written and boot and boot != self._boot:
            if not self._clash:
                self._other = host
                self.log.error("{problem}; give each a name of its own, and start this one anew", problem=self._shared)
            self._met = self._elapsed()
        self._written = True

    @property
    def _clash(self) -> bool:
        return self._elapsed() - self._met < 2 * INSTANCE_TTL_S

    @property
    def _shared(self) -> str:
        return f"another gateway is called {self._layout.instance!r} as well, on host {self._other!r}"

    def end(self) -> None:
        """The gateway ends in order: nobody is to take it for one that runs."""
        connection = self._sink.connection
        if connection is not None:
            key = self._layout.key("instance", self._layout.instance)
            connection.command("DEL", key).addErrback(lambda _: None)

    @property
    def ready(self) -> bool:
        """Whether what comes is stored in Redis, and nobody misses anything."""
        return self._delivery.direct and not self.problems

    @property
    def problems(self) -> list[str]:
        """Why this process is not fit, in a few words each; empty when it is."""
        return [*self._retention.problems, *([self._shared] if self._clash else ())]

    def more(self) -> dict[str, Any]:
        """What is said besides counters and readiness, and needs no Redis."""
        journal = self._delivery.journal
        return {
            "host": self._host,
            **self._about(),
            "journal": {**journal.content._asdict(), "path": str(journal.path), "limit": journal.limit},
            "behind": self._retention.behind,
            "streams": self._retention.streams,
            "groups": self._retention.groups,
        }

    def _content(self) -> dict[str, Any]:
        publisher, sink, delivery = self._publisher, self._sink, self._delivery
        return {
            "beat": self._beat,
            "boot": self._boot,
            **self.more(),
            "producer": sink.producer,
            "pending": publisher.pending,
            "counters": dict(publisher.counters),
            # this is written; but Redis may refuse batches, or hold them up behind a journal
            "ready": self.ready,
            "problems": self.problems,
            "account": {
                "unsent": publisher.unsent,
                "handed": publisher.handed,
                "under_way": publisher.under_way,
                "earlier": delivery.earlier.frames,
                "forgotten": delivery.forgotten,
                "again": sink.again,
                "stored": sink.stored,
                "unanswered": sink.unanswered,
            },
        }
