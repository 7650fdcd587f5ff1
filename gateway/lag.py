"""
How far the consumer groups of a stream are: what Redis is asked, and what its answers mean.

L{look} is a generator of commands that is sent their answers, so that the
gateway asks with its reactor and the command line without one.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final, NamedTuple

#: So many groups of a stream are looked at; the others are only counted.
MOST_GROUPS: Final = 100

Question = tuple[str | bytes | int, ...]
EntryId = tuple[int, int]


class Group(NamedTuple):
    """
    A consumer group.

    @ivar lag: entries that it has still to be given; None: Redis can't tell (before 7.0, or where some were deleted).
    @ivar pending: entries that it was given and has not acknowledged.
    @ivar behind_s: age of the oldest of both; 0: there are none.
    @ivar idle_s: since one of its consumers last asked for something; None: it has none.
    @ivar oldest: id of the oldest of both; None: there are none.
    @ivar missed: entries that were trimmed before it was given them, since it last was at what is there; where Redis
        does not count them 1 stands for some.
    """

    name: str
    lag: int | None
    pending: int
    consumers: int
    behind_s: float
    idle_s: float | None
    oldest: EntryId | None
    missed: int

    @property
    def figures(self) -> dict[str, float]:
        """What is said of it elsewhere; unknown is absent."""
        found: dict[str, float | None] = {
            **{"lag": self.lag, "pending": self.pending, "consumers": self.consumers},
            **{"behind_s": round(self.behind_s, 1), "idle_s": None if self.idle_s is None else round(self.idle_s, 1)},
        }
        return {name: value for name, value in found.items() if value is not None}


class Stream(NamedTuple):
    """
    A stream.

    @ivar added: entries that were ever added; None before Redis 7.0.
    @ivar first: id of the oldest entry that is there; of what comes next, where there is none.
    @ivar last: id of the newest entry that ever was.
    @ivar number: of groups.
    @ivar groups: the first L{MOST_GROUPS} of them, if they were asked for.
    """

    length: int
    added: int | None
    first: EntryId
    last: EntryId
    number: int
    groups: tuple[Group, ...] = ()


def look(key: str, now: float, groups: bool = True) -> Generator[Question, Any, Stream | None]:
    """
    Look at a stream.

    What is sent is the answer to a command, or None where the key is not there.

    @param now: UTC epoch seconds.
    @param groups: at its groups, too.
    @return: None: there is no such stream.
    """
    answer = yield ("XINFO", "STREAM", key)
    if answer is None:
        return None
    facts = fields(answer)
    last = entry_id(facts[b"last-generated-id"])
    entry = facts.get(b"first-entry")
    first = entry_id(entry[0]) if entry else (last[0], last[1] + 1)
    added = facts.get(b"entries-added")
    stream = Stream(int(facts[b"length"]), None if added is None else int(added), first, last, int(facts[b"groups"]))
    if not (groups and stream.number):
        return stream
    found = []
    for row in ((yield ("XINFO", "GROUPS", key)) or ())[:MOST_GROUPS]:
        found.append((yield from _group(key, stream, fields(row), now)))
    return stream._replace(groups=tuple(found))


def _group(key: str, stream: Stream, facts: Mapping[bytes, Any], now: float) -> Generator[Question, Any, Group]:
    name, pending, consumers = facts[b"name"], int(facts[b"pending"]), int(facts[b"consumers"])
    delivered = entry_id(facts[b"last-delivered-id"])
    lag, read = facts.get(b"lag"), facts.get(b"entries-read")
    if delivered >= stream.last:
        lag = 0
    elif delivered < stream.first:
        lag = stream.length  # Redis counts what was trimmed as well
    oldest = []
    if lag != 0 and (rows := (yield ("XRANGE", key, b"(" + facts[b"last-delivered-id"], "+", "COUNT", 1))):
        oldest.append(entry_id(rows[0][0]))
    if pending and (rows := (yield ("XPENDING", key, name, "-", "+", 1))):
        oldest.append(entry_id(rows[0][0]))
    idle = None
    if consumers and (rows := (yield ("XINFO", "CONSUMERS", key, name))):
        idle = min(int(fields(row)[b"idle"]) for row in rows) / 1000
    missed = 0
    if delivered < stream.first and delivered < stream.last:
        if read is None and delivered == (0, 0):
            read = 0  # it is to have all there ever was
        if read is not None and stream.added is not None:
            missed = max(stream.added - stream.length - int(read), 0)
        else:
            missed = int(delivered > (0, 0))
    return Group(
        name.decode("utf-8", "replace"),
        None if lag is None else int(lag),
        pending,
        consumers,
        max(now - min(oldest)[0] / 1000, 0.0) if oldest else 0.0,
        idle,
        min(oldest) if oldest else None,
        missed,
    )


def fields(row: Any) -> dict[bytes, Any]:
    """Names and values of an answer that has them one after the other."""
    return dict(zip(row[::2], row[1::2], strict=True))


def entry_id(text: bytes) -> EntryId:
    """An entry's id, so that it can be compared."""
    ms, _, sequence = text.partition(b"-")
    return int(ms), int(sequence or 0)
