"""What tests of consumers need: a contract, reports, and the consumer in a process of its own."""

from __future__ import annotations

import itertools
import json
import sys
import time
from typing import Any, Final

from gateway.events import COLUMNS, STREAMS
from gateway.fields import rfc3339

KEY: Final = "gateway:position"

_number: Final = itertools.count(1)


def contract(**other: Any) -> str:
    """As a gateway writes it, some of it as given."""
    found = {
        "version": 1,
        "prefix": "gateway",
        "streams": {f"gateway:{stream}": types for stream, types in STREAMS.items()},
        "columns": COLUMNS,
        "shards": [{"tag": ""}],
    }
    return json.dumps(found | other)


def report(ident: str = "9170123456", **fields: str) -> dict[str, str]:
    """The fields of a report with an id of its own."""
    now = rfc3339(time.time())
    envelope = {"v": "1", "id": f"{next(_number):032x}", "type": "position", "source": "gateway/here"}
    envelope |= {"time": now, "received": now, "ident": ident, "protocol": "st907"}
    columns = dict.fromkeys(COLUMNS, "") | {"latitude": "52.520000", "valid": "1", "transport": "tcp"}
    return {**envelope, **columns, "data": "{}"} | fields


def add(client: Any, count: int, ident: str = "9170123456", key: str = KEY, **fields: str) -> list[str]:
    """Put reports on a stream; their ids."""
    rows = [report(ident, **fields) for _ in range(count)]
    pipe = client.pipeline()
    for row in rows:
        pipe.xadd(key, row)
    pipe.execute()
    return [row["id"] for row in rows]


def program(*words: str) -> list[str]:
    """The command line of L{main}."""
    return [sys.executable, "-u", "-m", "tests.consuming", *words]


def main() -> None:
    """
    Consume as C{URL NAME SECONDS}: write each event's id to a list C{seen} in Redis, C{SECONDS} after it came.

    Stopped or killed in between, an event is not handled.
    """
    import redis
    from twisted.internet import reactor, task

    from gateway.consumer import Consumer, Event

    url, name, seconds = sys.argv[1:]
    client: Any = redis.Redis.from_url(url)

    async def handle(event: Event) -> None:
        client.rpush("begun", event.id)
        await task.deferLater(reactor, float(seconds))
        client.rpush("seen", event.id)

    def run(_: Any) -> Any:
        consumer = Consumer(url, "position", "map", handle, consumer=name, claim_after=1.0, retry_after=0.1)
        any_reactor: Any = reactor
        any_reactor.addSystemEventTrigger("before", "shutdown", consumer.stopService)
        consumer.startService()
        return consumer.ended

    task.react(run)


if __name__ == "__main__":
    main()
