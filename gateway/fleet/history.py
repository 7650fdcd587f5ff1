"""
What one device did lately, found in streams that hold the whole fleet.

The server looks for it, some hundred entries at a time, so that it is held up
by none of these and only what is of the device travels.  How far back that
goes is bounded, and said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple

from gateway.entries import data_of, row
from gateway.fleet.listing import ms, number
from gateway.sinks.blocking import BlockingRedis

#: Entries of which the server looks through at once: some hundred microseconds.
CHUNK: Final = 500
#: How many entries, and how many seconds, a question may take.
ENTRIES: Final = 2_000_000
SECONDS: Final = 3.0

#: Where the ident stands in an entry.
_FIND: Final = """
local rows, found = redis.call('XREVRANGE', KEYS[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4]), {}
for i = 1, #rows do
  local row = rows[i][2]
  if row[14] == ARGV[1] and row[13] == 'ident' then found[#found + 1] = rows[i] end
end
return {#rows, #rows > 0 and rows[#rows][1] or '', found}
"""


class Found(NamedTuple):
    """
    An entry of a stream.

    @ivar entry: its id.
    """

    entry: str
    fields: Mapping[str, str]

    @classmethod
    def read(cls, entry: bytes, flat: Sequence[bytes]) -> Found:
        """An entry as Redis gives it."""
        return cls(entry.decode(), row(flat))

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {"entry": self.entry, **self.fields, "data": data_of(self.fields)}


class Search:
    """
    A device's entries on a stream, from the newest to the oldest.

    @ivar place: the id of the oldest entry that was looked at; empty: none was.
    @ivar complete: whether all was looked at, back to where it was to end.
    @ivar looked: how many entries.
    """

    def __init__(
        self,
        client: BlockingRedis,
        key: str,
        ident: str,
        *,
        before: str = "",
        until: str = "-",
        entries: int = ENTRIES,
        seconds: float = SECONDS,
    ) -> None:
        """
        @param before: an id; only what is older counts.
        @param until: an id, or C{-}: what is older does not.
        """
        self._client, self._key, self._ident = client, key, ident
        self._start = f"({before}" if before else "+"
        self._until = until
        self._entries, self._seconds = entries, seconds
        self.place, self.complete, self.looked = before, False, 0

    def __iter__(self) -> Iterator[Found]:
        end = monotonic() + self._seconds
        while self.looked < self._entries and monotonic() < end:
            args = (self._ident, self._start, self._until, str(CHUNK))
            count, last, rows = self._client.command("EVAL", _FIND, "1", self._key, *args)
            self.looked += count
            for entry, flat in rows:
                self.place = entry.decode()
                yield Found.read(entry, flat)
            if count < CHUNK:
                self.complete = True
                return
            self.place = last.decode()
            self._start = f"({self.place}"

    @property
    def place_ms(self) -> int | None:
        """The time of L{place}, UTC epoch ms."""
        return int(self.place.partition("-")[0]) if self.place else None


class Track(NamedTuple):
    """
    Where a device was.

    @ivar points: each when (UTC epoch ms), latitude, longitude (degrees), speed (km/h), course (degrees), and whether
        it was late; the oldest first.
    @ivar looked_to: how far back was looked, UTC epoch ms.
    @ivar complete: whether that is as far as was asked for.
    """

    points: Sequence[tuple[int, float, float, float | None, float | None, bool]]
    looked_to: int | None
    complete: bool

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return self._asdict()


#: So many points are given at most.
POINTS: Final = 20_000


def track(client: BlockingRedis, prefix: str, ident: str, since_ms: int) -> Track:
    """Where a device was since then, as far as it can be found."""
    search = Search(client, f"{prefix}:position", ident, until=str(max(since_ms, 0)))
    points = []
    for found in search:
        fields = found.fields
        latitude, longitude = number(fields.get("latitude")), number(fields.get("longitude"))
        when = ms(fields.get("time"))
        if latitude is not None and longitude is not None and when is not None:
            speed, course = number(fields.get("speed_kmh")), number(fields.get("course_deg"))
            points.append((when, latitude, longitude, speed, course, bool(fields.get("late"))))
        if len(points) >= POINTS:
            break
    return Track(sorted(points), search.place_ms, search.complete)


def entries(
    client: BlockingRedis, prefix: str, ident: str, streams: Sequence[str], before_ms: int | None, count: int
) -> list[Found]:
    """The newest entries of a device on these streams, or those before a time; the newest first."""
    found: list[Found] = []
    for stream in streams:
        before = "" if before_ms is None else f"{before_ms}-0"
        some: list[Found] = []
        search = Search(client, f"{prefix}:{stream}", ident, before=before, seconds=SECONDS / len(streams))
        for one in search:
            some.append(one)
            if len(some) >= count:
                break
        found += some
    return sorted(found, key=lambda one: tuple(map(int, one.entry.split("-"))), reverse=True)[:count]
