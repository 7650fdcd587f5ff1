"""What has to be true of the streams and of the ledger, whatever has happened; each check says what is wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from tests.integration.parts import outcomes

STREAMS: Final = ("position", "event", "link")

#: How many examples a complaint names.
_SOME: Final = 3

#: How many entries are read at once: a thousand take Redis some milliseconds.
_PAGE: Final = 1_000


class Entry(NamedTuple):
    """
    What the checks need of an entry.

    @ivar at: its time, UTC epoch seconds.
    @ivar own_time: it has the gateway's own time, which did not believe the device's.
    """

    id: str
    ident: str
    at: float
    late: str
    own_time: bool

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Entry:
        """From an entry of any stream."""
        at = datetime.fromisoformat(fields["time"]).timestamp()
        own_time = json.loads(fields["data"]).get("time_source") == "server"
        return cls(fields["id"], fields["ident"], at, fields.get("late", ""), own_time)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    What Redis held at one moment.

    @ivar positions: the entries of gateway:position, oldest first.
    @ivar others: those of gateway:event and gateway:link.
    @ivar ledger: the outcomes of frames, added up over all producers.
    """

    positions: Sequence[Entry]
    others: Sequence[Entry]
    ledger: Mapping[str, int]

    @classmethod
    def take(cls, client: Any) -> Snapshot:
        """
        Read all of it.

        The ledger and the ends of the streams are read in one transaction, as batches come in; what stands before the
        ends does not change any more.
        """
        while True:
            keys = sorted(client.scan_iter("gateway:ledger:*", count=1000))
            pipe = client.pipeline(transaction=True)
            for stream in STREAMS:
                pipe.xrevrange(f"gateway:{stream}", count=1)
            for key in keys:
                pipe.hgetall(key)
            answers = pipe.execute()
            if keys == sorted(client.scan_iter("gateway:ledger:*", count=1000)):
                break  # no producer has begun meanwhile
        ledger: Counter[str] = Counter()
        for row in answers[len(STREAMS) :]:
            ledger.update({name: int(frames) for name, frames in row.items()})
        ends = zip(STREAMS, answers, strict=False)  # the ledgers' answers come after them
        positions, events, links = (list(_entries(client, name, end[0][0])) if end else [] for name, end in ends)
        return cls(positions, [*events, *links], ledger)

    def lost(self, acknowledged: Collection[str]) -> list[str]:
        """Ids that were acknowledged and are not there."""
        there = {entry.id for entry in self.positions}
        return [one for one in acknowledged if one not in there]

    def twice(self) -> list[str]:
        """Ids that are there more than once."""
        times = Counter(entry.id for entry in (*self.positions, *self.others))
        return [one for one, number in times.items() if number > 1]


def _entries(client: Any, stream: str, last: str) -> Iterator[Entry]:
    """The entries of a stream up to one of them."""
    begin = "-"
    while page := client.xrange(f"gateway:{stream}", begin, last, count=_PAGE):
        for _, fields in page:
            yield Entry.of(fields)
        begin = f"({page[-1][0]}"


def problems(snapshot: Snapshot, acknowledged: Collection[str]) -> list[str]:
    """Everything that is wrong."""
    found = [
        _complaint("acknowledged, but not on the stream", snapshot.lost(acknowledged)),
        _complaint("on a stream more than once", snapshot.twice()),
        _complaint("out of order, and not marked as late", list(unmarked(snapshot.positions))),
    ]
    return [*filter(None, found), *ledger_problems(snapshot)]


def _complaint(what: str, which: Sequence[str]) -> str:
    return f"{len(which)} {what}: {', '.join(which[:_SOME])}" if which else ""


def unmarked(positions: Sequence[Entry]) -> Iterator[str]:
    """
    Ids of entries that are older than an earlier one of the same device and don't say so.

    Where the gateway did not believe the device its own time stands there, which says nothing of the order.
    """
    newest: dict[str, float] = {}
    for entry in positions:
        if entry.own_time:
            continue
        before = newest.setdefault(entry.ident, entry.at)
        if entry.at < before and not entry.late:
            yield entry.id
        newest[entry.ident] = max(entry.at, before)


def ledger_problems(snapshot: Snapshot) -> Iterator[str]:
    """
    Whether the counters add up, and whether they say what the stream says.

    Every report of the fleets is a position (or a status), so that each frame that was published has one entry there.
    """
    ledger, entries = snapshot.ledger, len(snapshot.positions)
    received = ledger.get("received", 0)
    if received != outcomes(ledger):
        yield f"the ledger does not balance: received {received}, outcomes {outcomes(ledger)}: {dict(ledger)}"
    if ledger.get("published", 0) != entries:
        yield f"the ledger has {ledger.get('published', 0)} frames published, and there are {entries}: {dict(ledger)}"
    if ledger.get("refused", 0):
        yield f"{ledger['refused']} frames were refused: {dict(ledger)}"
