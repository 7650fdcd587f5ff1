"""What adds up and what does not, each said in words."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gateway.batches import frames_of
from gateway.ledger import Beat, Held, Ledger
from gateway.sinks.journalfile import JournalFile
from gateway.sinks.journalrows import Content
from tests.fakes import NOON, by_type
from tests.units import UnitCase, v1

#: 100 frames were received: 90 are in Redis, one of these as a duplicate, 6 in the journal, 3 under way, one waits.
BEAT: dict[str, Any] = {
    "beat": 7, "host": "here", "producer": "gw-2", "pending": 4, "ready": True,
    "journal": {"rows": 4, "frames": 8, "path": "/data/journal.sqlite"},
    "counters": {"received": 100, "published": 95, "duplicate": 1, "journaled": 10, "drained": 9},
    "account": {
        "unsent": 1, "handed": 99, "under_way": 3, "earlier": 5, "forgotten": 2, "again": 0,
        "stored": {"gw-1": 35, "gw-2": 60}, "unanswered": [[8, 3]],
    },
    "last": 8,
    "ledgers": {"gw-1": {"received": 35, "published": 35}, "gw-2": {"received": 63, "published": 62, "duplicate": 1}},
}  # fmt: skip


class LedgerTests(SynchronousTestCase):
    """One ledger."""

    def ledger(self, **fields: object) -> Ledger:
        """As Redis has it."""
        return Ledger.read("gw-1", [name.encode() for name in fields], [str(v).encode() for v in fields.values()])

    def test_balanced(self) -> None:
        """Received is the sum of the outcomes; what stands beside them is no part of it."""
        outcomes = "published duplicate undecodable unauthorised unrecognised refused limited dropped".split()
        ledger = self.ledger(received=36, trimmed_unread=1000, **{name: n for n, name in enumerate(outcomes, 1)})
        self.assertEqual([], [*ledger.wrong()])
        self.assertEqual([], [*self.ledger().wrong()])

    def test_not_balanced(self) -> None:
        """What is missing or too many is said with the ledger's name."""
        (said,) = self.ledger(received=1000, published=998).wrong()
        self.assertEqual("ledger gw-1: 1,000 received, but the outcomes are 998: 2 missing", said)
        (said,) = self.ledger(received=1, published=3).wrong()
        self.assertEqual("ledger gw-1: 1 received, but the outcomes are 3: 2 too many", said)

    def test_no_number(self) -> None:
        """A field that holds no number is named."""
        self.assertEqual(["ledger gw-1: published is no number"], [*self.ledger(received=0, published="x").wrong()])


class BeatTests(SynchronousTestCase):
    """A running instance against its ledgers."""

    def wrong(self, **changes: Any) -> list[str]:
        """What is said of the heartbeat with a change: C{account__handed=1} changes what is inside."""
        content = copy.deepcopy(BEAT)
        for path, value in changes.items():
            *above, name = path.split("__")
            place = content
            for key in above:
                place = place[key]
            place[name] = value
        return [*Beat.read("gw", json.dumps(content).encode()).wrong()]

    def test_balanced(self) -> None:
        """All fits: a batch that was not answered is in the ledger when its number was taken."""
        self.assertEqual([], self.wrong())
        self.assertEqual([], self.less(7, {"received": 60, "published": 60}))

    def less(self, last: int, ledger: dict[str, int]) -> list[str]:
        """The same with another state of the present producer."""
        return self.wrong(last=last, ledgers=BEAT["ledgers"] | {"gw-2": ledger})

    def test_ledger(self) -> None:
        """A ledger with other figures than were stored."""
        (said,) = self.less(8, {"received": 60, "published": 60})
        self.assertEqual(
            "instance gw: it stored 63 frames as producer gw-2, but the ledger has 60 received: 3 missing", said
        )
        (said,) = self.less(8, {"received": 63, "published": 60})
        self.assertIn("the ledger has 60 outcomes: 3 missing", said)
        (said,) = self.wrong(ledgers={"gw-2": BEAT["ledgers"]["gw-2"]})
        self.assertIn("as producer gw-1, but the ledger has 0 received: 35 missing", said)

    def test_pending(self) -> None:
        """A frame without an outcome that is not pending."""
        self.assertEqual(
            ["instance gw: received 100, but 96 have an outcome and 3 are pending: 1 missing"], self.wrong(pending=3)
        )

    def test_batches(self) -> None:
        """A frame that neither waits nor left."""
        (said,) = self.wrong(account__unsent=0)
        self.assertEqual("instance gw: of 100 frames 99 left in batches and 0 wait: 1 missing", said)

    def test_journal(self) -> None:
        """A batch that is nowhere; that the journal was damaged is said with it."""
        said = "instance gw: 104 frames were to be stored, but 95 are in Redis, 2 in the journal and 3 under way: "
        said += "4 missing"
        self.assertEqual([said], self.wrong(journal__frames=4))
        counters = BEAT["counters"] | {"journal_damaged": 1}
        self.assertEqual(
            [said + " (its journal was damaged 1 times)"], self.wrong(journal__frames=4, counters=counters)
        )

    def test_expired_and_replayed(self) -> None:
        """What expired in the journal leaves anew as dropped; what an earlier process gave is in its own ledger."""
        counters = BEAT["counters"] | {"journal_expired": 2, "replayed": 1}
        self.assertEqual([], self.wrong(counters=counters, account__handed=101, account__earlier=6))

    def test_others(self) -> None:
        """A heartbeat of an older version says too little, one that is none says nothing; half of one is named."""
        for text in (b'{"producer": "gw-1"}', b"[]", b"nonsense", b'{"account": 1, "ledgers": 2}'):
            beat = Beat.read("gw", text)
            self.assertEqual([], [*beat.wrong()])
            self.assertIn("older version", "".join(beat.lines()))
        (said,) = self.wrong(account={})
        self.assertIn("instance gw: its heartbeat is not what this version reads", said)


class HeldTests(SynchronousTestCase):
    """A journal's file against what its instance says."""

    def test_file(self) -> None:
        """The same is there; or so many frames are missing."""
        beat = Beat.read("gw", json.dumps(BEAT).encode())
        self.assertEqual([], [*Held(Path("/data/j"), Content(4, 8, 0, 0, None), None).against(beat)])
        (said,) = Held(Path("/data/j"), Content(3, 6, 0, 0, None), None).against(beat)
        expected = "journal /data/j: 3 batches with 6 frames are there, instance gw counts 4 with 8: 2 missing"
        self.assertEqual(expected, said)


class FramesTests(UnitCase):
    """Frames of a batch, by what is in it and by what the publisher says."""

    def test_frames_of_groups(self) -> None:
        """Frames are counted as the server's script does: not the gateway's own events, not further ones of a frame."""
        self.send(v1(self.now, speed=100.0, word=0xFFFFFFFB) + b"*HQ,9170225361,V1,nonsense#" + v1(self.now - 5))
        self.assertGreater(len(self.sink.events), 3)
        for batch in self.sink.batches:
            self.assertEqual(batch.frames, frames_of(batch.groups))
        self.assertEqual(3, sum(batch.frames for batch in self.sink.batches))

    def test_out_of_quarantine(self) -> None:
        """What goes from quarantine to the journal once more is frames there again: the script will count them."""
        self.send(v1(self.now))
        file = JournalFile(Path(self.mktemp()), 10_000_000)
        self.addCleanup(file.close)
        file.quarantine(self.sink.batches[0].groups, "why", NOON)
        file.requeue("gw")
        self.assertEqual((1, 0), (file.counts().frames, file.counts().quarantined))

    def balance(self) -> None:
        """Each frame that was received has an outcome or is pending, and left or is here."""
        publisher = self.publisher
        counters = publisher.counters
        outcomes = "published duplicate undecodable unauthorised unrecognised refused limited dropped".split()
        self.assertEqual(counters["received"], sum(counters[name] for name in outcomes) + publisher.pending)
        given = counters["received"] + counters["journal_expired"]
        self.assertEqual(given, publisher.handed + publisher.unsent)

    def test_at_every_step(self) -> None:
        """While a session begins, while a batch is under way, when events are refused, and when the dead stream is."""
        publisher, sink = self.publisher, self.sink
        sink.waits = True
        messages = [*self.decoder.receive(v1(self.now) + b"*HQ,9170225361,V1,nonsense#" + v1(self.now + 1), self.now)]
        publisher.take(messages, self.link, "st907", self.now)
        publisher.limited("connections", None)
        publisher.drop()
        self.balance()
        self.assertEqual((5, 0), (publisher.unsent, publisher.under_way))
        self.clock.advance(0)
        self.balance()
        self.assertEqual((2, 3), (publisher.unsent, publisher.under_way))
        sink.begun()
        publisher.counters["journal_expired"] += 7
        publisher.expired(7)
        self.balance()
        sink.answer("r", ["WRONGTYPE"])  # the one that can't be read, and the dead stream does not take it either
        self.balance()
        while sink.under_way is not None or publisher.pending:
            self.clock.advance(0)
            self.balance()
            codes = "".join("r" if entry["type"] == "position" else "p" for entry in sink.last)
            sink.answer(codes, ["WRONGTYPE"] * codes.count("r"))
            self.balance()
        self.assertEqual(len(by_type(sink.events, "frame.refused")), publisher.counters["refused"] - 1)
        self.assertEqual((0, 0, 0), (publisher.unsent, publisher.under_way, publisher.pending))
        self.assertEqual(5 + 7, publisher.handed)
