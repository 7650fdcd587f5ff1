"""
What adds up: the ledgers of producers, what a running instance counts, and what its journal holds.

A frame that was received is pending, or has one outcome.  It leaves in a
batch, and a batch is in a ledger, in the journal, or under way between the
publisher and these; never in two of them, but for what an instance says of
itself: which frames were counted again, and which Redis has that the journal
still holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.fields import rfc3339
from gateway.sinks.journalrows import Content, Sent
from gateway.tickets import OUTCOMES as LETTERS

#: The outcomes of a frame.
OUTCOMES: Final = (*LETTERS.values(), "limited", "dropped")
#: What stands beside them in a ledger and is no frame's outcome.
EXTRA: Final = ("trimmed_unread",)


class Ledger(NamedTuple):
    """
    What became of a producer's frames.

    @ivar strange: fields that hold no number.
    """

    producer: str
    counts: dict[str, int]
    strange: tuple[str, ...]

    @classmethod
    def read(cls, producer: str, names: Sequence[bytes], values: Sequence[bytes]) -> Ledger:
        """As Redis has it."""
        counts: dict[str, int] = {}
        strange = []
        for name, value in zip(names, values, strict=True):
            field = name.decode("utf-8", "replace")
            try:
                counts[field] = int(value)
            except ValueError:
                strange.append(field)
        return cls(producer, counts, tuple(strange))

    @property
    def received(self) -> int:
        """Frames."""
        return self.counts.get("received", 0)

    def wrong(self) -> Iterator[str]:
        """Its own differences."""
        for field in self.strange:
            yield f"ledger {self.producer}: {field} is no number"
        settled = sum(self.counts.get(name, 0) for name in OUTCOMES)
        if settled != self.received:
            yield f"ledger {self.producer}: {self.received:,} received, but the outcomes are {settled:,}: " + _by(
                settled - self.received
            )


class Beat(NamedTuple):
    """
    What a running instance says of itself and of its ledgers, at one moment.

    @ivar text: as it was read.
    @ivar content: the object; empty when it is none.
    """

    instance: str
    text: bytes
    content: Mapping[str, Any]

    @classmethod
    def read(cls, instance: str, text: bytes) -> Beat:
        """As Redis has it."""
        try:
            content = json.loads(text)
        except ValueError:
            content = {}
        return cls(instance, text, content if isinstance(content, dict) else {})

    @property
    def host(self) -> str:
        """Where it runs."""
        return str(self.content.get("host", ""))

    @property
    def journal(self) -> Mapping[str, Any]:
        """What its journal held."""
        found = self.content.get("journal")
        return found if isinstance(found, dict) else {}

    @property
    def journal_path(self) -> str:
        """Where its journal is."""
        return str(self.journal.get("path", ""))

    @property
    def speaks(self) -> bool:
        """Whether it says what is needed: an older gateway does not."""
        return isinstance(self.content.get("account"), dict) and isinstance(self.content.get("ledgers"), dict)

    def wrong(self) -> Iterator[str]:
        """What does not add up."""
        if not self.speaks:
            return
        try:
            yield from self._received()
            yield from self._delivered()
            yield from self._stored()
        except (KeyError, TypeError, ValueError) as error:
            yield f"instance {self.instance}: its heartbeat is not what this version reads: {error!r}"

    def _received(self) -> Iterator[str]:
        """Each frame is pending or has an outcome, and each is still here or left in a batch."""
        counters, account = self.content["counters"], self.content["account"]
        received, pending = counters.get("received", 0), self.content["pending"]
        settled = sum(counters.get(name, 0) for name in OUTCOMES)
        if received != settled + pending:
            yield (
                f"instance {self.instance}: received {received:,}, but {settled:,} have an outcome and {pending:,} are "
                f"pending: {_by(settled + pending - received)}"
            )
        # those that expired in the journal are given an outcome once more
        given, left = received + counters.get("journal_expired", 0), account["handed"] + account["unsent"]
        if given != left:
            yield (
                f"instance {self.instance}: of {given:,} frames {account['handed']:,} left in batches and "
                f"{account['unsent']:,} wait: {_by(left - given)}"
            )

    def _delivered(self) -> Iterator[str]:
        """Each batch is stored, in the journal, or under way."""
        counters, account = self.content["counters"], self.content["account"]
        gone = counters.get("journal_expired", 0) + counters.get("replayed", 0)
        given = account["handed"] + account["earlier"] + account["again"] - gone
        stored, waiting = sum(account["stored"].values()), self.journal["frames"] - account["forgotten"]
        have = stored + waiting + account["under_way"]
        if given != have:
            damaged = counters.get("journal_damaged", 0)
            yield (
                f"instance {self.instance}: {given:,} frames were to be stored, but {stored:,} are in Redis, "
                f"{waiting:,} in the journal and {account['under_way']:,} under way: {_by(have - given)}"
                + (f" (its journal was damaged {damaged} times)" if damaged else "")
            )

    def _stored(self) -> Iterator[str]:
        """What it says to be stored is in the ledgers, as they were at that moment."""
        account, producer, last = self.content["account"], self.content["producer"], int(self.content["last"])
        taken = sum(frames for number, frames in account["unanswered"] if number <= last)
        for name, frames in account["stored"].items():
            stored = frames + (taken if name == producer else 0)
            ledger = self.content["ledgers"].get(name, {})
            received, settled = ledger.get("received", 0), sum(ledger.get(outcome, 0) for outcome in OUTCOMES)
            if received != stored:
                yield (
                    f"instance {self.instance}: it stored {stored:,} frames as producer {name}, but the ledger has "
                    f"{received:,} received: {_by(received - stored)}"
                )
            elif settled != stored:
                yield (
                    f"instance {self.instance}: it stored {stored:,} frames as producer {name}, but the ledger has "
                    f"{settled:,} outcomes: {_by(settled - stored)}"
                )

    def lines(self) -> Iterator[str]:
        """For people."""
        if not self.speaks:
            yield f"instance {self.instance} does not say enough to be compared: it is of an older version"
            return
        counters, account, content = self.content["counters"], self.content["account"], self.content
        state = "ready" if content.get("ready") else "not ready"
        yield (
            f"instance {self.instance}, {state}, producer {content['producer']}: "
            f"received {counters.get('received', 0):,}, of which {content['pending']:,} are pending"
        )
        yield (
            f"  stored {sum(account['stored'].values()):,}, in the journal {self.journal['frames']:,}, "
            f"of an earlier run {account['earlier']:,}, under way {account['under_way']:,}"
        )


class Held(NamedTuple):
    """What a journal's file holds."""

    path: Path
    content: Content
    sent: Sent | None

    def against(self, beat: Beat) -> Iterator[str]:
        """What its own instance says of it."""
        said, found = beat.journal, self.content
        if (said.get("rows"), said.get("frames")) != (found.rows, found.frames):
            yield (
                f"journal {self.path}: {found.rows:,} batches with {found.frames:,} frames are there, instance "
                f"{beat.instance} counts {said.get('rows', 0):,} with {said.get('frames', 0):,}: "
                f"{_by(found.frames - said.get('frames', 0))}"
            )

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return self.content._asdict() | {"path": str(self.path), "under_way": self.sent and self.sent._asdict()}

    def lines(self) -> Iterator[str]:
        """For people."""
        content, sent = self.content, self.sent
        since = "" if content.oldest is None else f", the oldest of {rfc3339(content.oldest)}"
        yield (
            f"journal {self.path}: {content.frames:,} frames in {content.rows:,} batches wait{since}; "
            f"{content.quarantined:,} in quarantine"
        )
        if sent is not None and content.rows:
            yield (
                f"  batches {sent.first} to {sent.last} were under way as number {sent.number} of {sent.producer}, "
                "and may be in its ledger"
            )


def _by(frames: int) -> str:
    return f"{-frames:,} missing" if frames < 0 else f"{frames:,} too many"
