"""The command C{gateway groups}: the streams, who reads them, and how far they are."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import click
import hiredis

from gateway.config import Config
from gateway.errors import Refused
from gateway.events import STREAMS
from gateway.lag import MOST_GROUPS, Group, Question, Stream, look
from gateway.ledger import Beat
from gateway.places import beats, located, opened
from gateway.sinks.blocking import BlockingRedis
from gateway.terminal import printable

HEAD: Final = ("stream", "entries", "a minute", "group", "lag", "pending", "consumers", "oldest unread", "trimmed in")
#: Columns that are words, by their places.
WORDS: Final = (0, 3)


class Found(NamedTuple):
    """
    A stream and what is known of how long its entries stay.

    @ivar per_minute: entries that come; None: not known.
    @ivar hours: after which they are trimmed; 0: not by time.
    @ivar limit: entries that it may have; None: no gateway says it.
    """

    key: str
    stream: Stream | None
    per_minute: float | None
    hours: float
    limit: int | None

    def left_s(self, group: Group, now: float) -> float | None:
        """Seconds until what a group is to read next is trimmed; None: nothing is, or it is not known."""
        assert self.stream is not None
        if group.oldest is None:
            return None
        ends = []
        if self.hours:
            ends.append(group.oldest[0] / 1000 + self.hours * 3600 - now)
        if self.limit and self.per_minute:
            # how many came after what is pending nobody counts: as many as come in that time
            came = min(self.per_minute * group.behind_s / 60, self.stream.length)
            behind = came if group.pending or group.lag is None else group.lag
            ends.append((self.limit - behind) / self.per_minute * 60)
        return max(min(ends), 0.0) if ends else None

    def as_json(self, now: float) -> dict[str, Any]:
        """For machines."""
        stream = self.stream
        found: dict[str, Any] = {"stream": self.key, "entries": stream.length if stream else 0, "groups": []}
        if stream is not None and stream.added is not None:
            found["added"] = stream.added
        known = {"per_minute": self.per_minute, "hours": self.hours or None, "limit": self.limit}
        found |= {name: value for name, value in known.items() if value is not None}
        for group in stream.groups if stream else ():
            left = self.left_s(group, now)
            its = {"group": group.name, **group.figures, "missed": group.missed}
            found["groups"].append(its | ({} if left is None else {"trimmed_in_s": round(left)}))
        return found

    def rows(self, now: float) -> Iterator[Sequence[str]]:
        """For people."""
        entries = f"{self.stream.length:,}" if self.stream else "0"
        rate = "" if self.per_minute is None else f"{self.per_minute:,.1f}"
        head: tuple[str, ...] = (self.key, entries, rate)
        for group in self.stream.groups if self.stream else ():
            left = self.left_s(group, now)
            lag = "?" if group.lag is None else f"{group.lag:,}"
            age = "" if group.oldest is None else span(group.behind_s)
            trimmed = "" if left is None else span(left)
            yield (*head, group.name, lag, f"{group.pending:,}", f"{group.consumers:,}", age, trimmed)
            head = ("", "", "")
        if head[0]:
            yield (*head, "-", "", "", "", "", "")

    def notes(self) -> Iterator[str]:
        """What should be said besides."""
        stream = self.stream
        if stream is not None and stream.length and not stream.number:
            yield f"nobody reads {self.key}: there is no consumer group (who reads without one can't be seen)"
        if stream is not None and stream.number > MOST_GROUPS:
            yield f"{self.key} has {stream.number:,} groups; {MOST_GROUPS} are shown"
        for group in stream.groups if stream else ():
            if group.missed:
                yield f"{self.key}: {group.missed:,} entries were trimmed before group {group.name} was given them"


@click.command()
@located
@click.option("--json", "as_json", is_flag=True, help="A JSON object a stream.")
def groups(url: str | None, data_dir: str | None, path: str | None, as_json: bool) -> None:
    """
    Show who reads the streams, and how far they are.

    Of each consumer group: the entries that it has still to be given, those that it has not acknowledged, its
    consumers, how old the oldest entry is that it is not done with, and when that is trimmed at the present rate.
    Exit status 2: Redis can't be asked.
    """
    with opened(url, data_dir, path) as (config, _, client):
        now = time.time()
        found = _look(client, config, now)
    if as_json:
        for its in found:
            click.echo(json.dumps(its.as_json(now)))
        return
    for line in _table([HEAD, *(row for its in found for row in its.rows(now))]):
        click.echo(printable(line))
    for its in found:
        for note in its.notes():
            click.echo(printable(note))


def _look(client: BlockingRedis, config: Config, now: float) -> list[Found]:
    prefix = config.redis.prefix
    said = _said(client, prefix)
    found = []
    for name in STREAMS:
        key = f"{prefix}:{name}"
        stream = answered(client, look(key, now))
        its = said.get(name, {})
        rate = its.get("per_minute")
        if rate is None and stream is not None and stream.length > 1:  # nobody measures: on the average
            rate = (stream.length - 1) * 60 / max(now - stream.first[0] / 1000, 1.0)
        limit = its.get("limit")
        hours = its.get("hours", getattr(config.streams, f"{name}_hours"))
        found.append(Found(key, stream, rate, float(hours), None if limit is None else int(limit)))
    return found


def _said(client: BlockingRedis, prefix: str) -> Mapping[str, Mapping[str, float]]:
    """What the gateway that looks after the streams says of them; nothing, where we may not see it."""
    try:
        running = beats(client, prefix)
    except Refused:
        return {}
    return streams_of(running.values())


def streams_of(running: Iterable[Beat]) -> Mapping[str, Mapping[str, float]]:
    """What heartbeats say of streams: one of them does."""
    for beat in running:
        said = beat.content.get("streams")
        if isinstance(said, dict) and said:
            return {name: its for name, its in said.items() if isinstance(its, dict)}
    return {}


def answered(client: BlockingRedis, questions: Generator[Question, Any, Stream | None]) -> Stream | None:
    """Ask what is to be asked, and give the answers."""
    answer = None
    while True:
        try:
            question = questions.send(answer)
        except StopIteration as end:
            found: Stream | None = end.value
            return found
        try:
            answer = client.command(*(part if isinstance(part, bytes) else str(part) for part in question))
        except hiredis.ReplyError as error:
            if not str(error).startswith(("ERR no such key", "NOGROUP")):
                raise
            answer = None


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        cells = (
            cell.ljust(width) if column in WORDS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def span(seconds: float) -> str:
    """A time in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} s"
