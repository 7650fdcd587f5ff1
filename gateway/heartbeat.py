"""What a running gateway says of itself every few seconds, with its ledgers as they are at that moment."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

from gateway.publisher import Publisher
from gateway.sinks.connection import Layout, Script
from gateway.sinks.delivery import Delivery
from gateway.sinks.redis import INSTANCE_TTL_S, PRODUCER_TTL_S, RedisSink
from gateway.sinks.retention import Retention


class Heartbeat:
    """Writes C{gateway:instance:<instance>}."""

    def __init__(
        self,
        publisher: Publisher,
        sink: RedisSink,
        delivery: Delivery,
        retention: Retention,
        layout: Layout,
        about: Callable[[], Mapping[str, Any]],
    ) -> None:
        """@param about: what is said of the process itself."""
        self._publisher = publisher
        self._sink = sink
        self._delivery = delivery
        self._retention = retention
        self._layout = layout
        self._about = about
        self._script = Script.load("beat.lua")
        self._host = socket.gethostname()
        self._beat = 0

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
        connection.command("EVAL", self._script.text, len(keys), *keys, *args).addErrback(lambda _: None)

    def end(self) -> None:
        """The gateway ends in order: nobody is to take it for one that runs."""
        connection = self._sink.connection
        if connection is not None:
            key = self._layout.key("instance", self._layout.instance)
            connection.command("DEL", key).addErrback(lambda _: None)

    @property
    def ready(self) -> bool:
        """Whether what comes is stored in Redis, and nobody misses anything."""
        return self._delivery.direct and not self._retention.problems

    def _content(self) -> dict[str, Any]:
        publisher, sink, delivery = self._publisher, self._sink, self._delivery
        return {
            "beat": self._beat,
            "host": self._host,
            **self._about(),
            "producer": sink.producer,
            "pending": publisher.pending,
            "journal": delivery.journal.content._asdict() | {"path": str(delivery.journal.path)},
            "counters": dict(publisher.counters),
            # this is written; but Redis may refuse batches, or hold them up behind a journal
            "ready": self.ready,
            "problems": self._retention.problems,
            "behind": self._retention.behind,
            "streams": self._retention.streams,
            "groups": self._retention.groups,
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
