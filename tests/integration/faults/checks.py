"""What has to be true of the streams and of the ledger, whatever has happened; each check says what is wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tests.integration.parts import outcomes

#: How many examples a complaint names.
_SOME: Final = 3

Entry = Mapping[str, str]


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
        """Read all of it in one transaction: while batches come in the ledger would not match the streams else."""
        while True:
            keys = sorted(client.scan_iter("gateway:ledger:*", count=1000))
            pipe = client.pipeline(transaction=True)
            for stream in ("position", "event", "link"):
                pipe.xrange(f"gateway:{stream}")
            for key in keys:
                pipe.hgetall(key)
            positions, events, links, *rows = pipe.execute()
            if keys == sorted(client.scan_iter("gateway:ledger:*", count=1000)):
                break  # no producer has begun meanwhile
        ledger: Counter[str] = Counter()
        for row in rows:
            ledger.update({name: int(frames) for name, frames in row.items()})
        others = [fields for _, fields in (*events, *links)]
        return cls([fields for _, fields in positions], others, ledger)

    def lost(self, acknowledged: Collection[str]) -> list[str]:
        """Ids that were acknowledged and are not there."""
        there = {entry["id"] for entry in self.positions}
        return [one for one in acknowledged if one not in there]

    def twice(self) -> list[str]:
        """Ids that are there more than once."""
        times = Counter(entry["id"] for entry in (*self.positions, *self.others))
        return [one for one, number in times.items() if number > 1]


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
        if json.loads(entry["data"]).get("time_source") == "server":
            continue
        at = datetime.fromisoformat(entry["time"]).timestamp()
        before = newest.setdefault(entry["ident"], at)
        if at < before and not entry["late"]:
            yield entry["id"]
        newest[entry["ident"]] = max(at, before)


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
