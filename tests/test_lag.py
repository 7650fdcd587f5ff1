"""How far groups are, by the answers of a Redis: what is known, and what a server of before 7.0 does not tell."""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from typing import Any

from gateway.lag import Group, Question, Stream, entry_id, look

NOW = 1_796_000_000.0
KEY = "gateway:position"


def at(seconds: float) -> bytes:
    """The id of an entry of so many seconds ago."""
    return b"%d-0" % int((NOW - seconds) * 1000)


def row(facts: Mapping[str, Any]) -> list[Any]:
    """As Redis answers."""
    return [part for name, value in facts.items() for part in (name.encode(), value)]


class LookTests(unittest.TestCase):
    """C{look}."""

    def stream(self, **other: Any) -> dict[str, Any]:
        """What Redis says of a stream of 100 entries that had 1,000, some of it as given."""
        return {
            "length": 100,
            "last-generated-id": at(1),
            "entries-added": 1000,
            "groups": 1,
            "first-entry": [at(3600), []],
        } | {name.replace("_", "-"): value for name, value in other.items()}

    def group(self, **other: Any) -> dict[str, Any]:
        """What it says of a group that is 10 entries behind, some of it as given."""
        return {
            "name": b"map",
            "consumers": 2,
            "pending": 3,
            "last-delivered-id": at(60),
            "entries-read": 990,
            "lag": 10,
        } | {name.replace("_", "-"): value for name, value in other.items()}

    def look(self, stream: Mapping[str, Any] | None, group: Mapping[str, Any] | None = None) -> Stream | None:
        """Look at them; what was not delivered is 50 s old, and what is pending 90 s."""
        answers: dict[str, Any] = {
            "XINFO STREAM": None if stream is None else row(stream),
            "XINFO GROUPS": [row(group or self.group())],
            "XINFO CONSUMERS": [row({"name": b"a", "idle": 7_500}), row({"name": b"b", "idle": 900_000})],
            "XRANGE": [[at(50), []]],
            "XPENDING": [[at(90), b"a", 5000, 1]],
        }
        self.asked: list[Question] = []
        questions = look(KEY, NOW)
        answer = None
        while True:
            try:
                question = questions.send(answer)
            except StopIteration as end:
                found: Stream | None = end.value
                return found
            self.asked.append(question)
            head = str(question[0])
            answer = answers[f"{head} {question[1]!s}" if head == "XINFO" else head]

    def its(self, stream: Mapping[str, Any], group: Mapping[str, Any] | None = None) -> Group:
        """The one group of it."""
        found = self.look(stream, group)
        assert found is not None
        [only] = found.groups
        return only

    def test_behind(self) -> None:
        """What a group has still to be given and to acknowledge, and how old the oldest of both is."""
        group = self.its(self.stream())
        self.assertEqual(("map", 10, 3, 2, 90.0, 7.5, 0), (*group[:6], group.missed))
        self.assertEqual({"lag": 10, "pending": 3, "consumers": 2, "behind_s": 90.0, "idle_s": 7.5}, group.figures)

    def test_nothing_to_read(self) -> None:
        """A group that has all is 0 s behind, and no more is asked."""
        group = self.its(self.stream(), self.group(pending=0, last_delivered_id=at(1), lag=0))
        self.assertEqual((0, 0, 0.0, None), (group.lag, group.pending, group.behind_s, group.oldest))
        self.assertFalse([q for q in self.asked if q[0] in ("XRANGE", "XPENDING")])

    def test_before_7(self) -> None:
        """A server that does not count says what it can: all, nothing, or that it is not known."""
        old = self.stream()
        del old["entries-added"]

        def its(**other: Any) -> Group:
            facts = self.group(**other)
            del facts["lag"], facts["entries-read"]
            return self.its(old, facts)

        self.assertIsNone(its().lag)
        self.assertNotIn("lag", its().figures)
        self.assertEqual(90.0, its().behind_s)
        self.assertEqual(0, its(last_delivered_id=at(1)).lag)
        behind = its(last_delivered_id=at(4000))
        self.assertEqual((100, 1), (behind.lag, behind.missed))
        self.assertEqual(0, its(last_delivered_id=b"0-0").missed)

    def test_missed(self) -> None:
        """What was trimmed before a group had it is counted, and is not what it can still read."""
        group = self.its(self.stream(), self.group(last_delivered_id=at(4000), entries_read=850, lag=150))
        self.assertEqual((50, 100), (group.missed, group.lag))
        fresh = self.its(self.stream(), self.group(last_delivered_id=b"0-0", entries_read=None, lag=1000))
        self.assertEqual((900, 100), (fresh.missed, fresh.lag))

    def test_emptied(self) -> None:
        """A group that had read all has missed nothing when nothing is left; one that had not has."""
        empty = self.stream(length=0, first_entry=None)
        self.assertEqual(0, self.its(empty, self.group(last_delivered_id=at(1), entries_read=1000, lag=0)).missed)
        self.assertEqual(10, self.its(empty).missed)

    def test_nobody(self) -> None:
        """A group without consumers has nobody who could be idle."""
        self.assertIsNone(self.its(self.stream(), self.group(consumers=0)).idle_s)

    def test_no_stream(self) -> None:
        """A stream that is not there is none."""
        self.assertIsNone(self.look(None))

    def test_entry_id(self) -> None:
        """Ids are compared as numbers."""
        self.assertLess(entry_id(b"9-10"), entry_id(b"10-9"))
        self.assertLess(entry_id(b"9-9"), entry_id(b"9-10"))
