"""The short way of alike reports says what the long way says, of units that are set or that are learned of."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.publisher import Publisher
from gateway.registry import load
from gateway.sessions import Sessions
from tests.test_records import Again as Copy
from tests.test_records import Answers, Beat, Moved, Pass, Registered, Report, Step, Way

#: ACC off, on; too fast; SOS; antenna open, bit 18, bit 26 and bit 28 beside ACC off.
WORDS = ("FFFFFBFF", "FFFFFFFF", "FFFFFBFB", "FFFFFBFD", "FFFFFBDF", "FFFBFBFF", "FBFFFBFF", "EFFFFBFF")

ENTRIES: tuple[dict[str, str], ...] = (
    {},
    {"acc_wired": "0"},
    {"acc_wired": "1"},
    {"hemisphere": "N"},
    {"time_offset_s": "60"},
    {"time_offset_s": "-60"},
    {"time_offset_s": "3600"},
    {"bits": "18=sos,2=,15="},
    {"bits": "5="},
    {"reply": "r12"},
    {"reply_interval_s": "30"},
    {"reply": "nonsense"},
)


class UnitWay(Way):
    """A gateway that learns of its units."""

    def __init__(self, short: bool) -> None:
        super().__init__(short)
        self.sessions = Sessions(devices=load(["osmand"]))
        self.publisher = Publisher(self.clock, self.sink, self.sessions, self.publisher._bounds)

    def known(self) -> dict[str, dict[str, Any]]:
        """
        What is known of the devices, but for what only the short way needs.

        Nor for the first of ten reports whose clock may be off: a clock that stands still passes such times, and
        only the long way notes it, without consequence.
        """
        names = "newest newest_received recent fix first frames proven holding reconnected seen late_on".split()
        found = {}
        for session in self.sessions:
            state = json.loads(session.dump())
            if state["memory"].get("clock", {}).get("n") == 1:
                del state["memory"]["clock"]
            found[session.ident] = {name: getattr(session, name) for name in names} | {"state": state}
        return found


alike = st.builds(
    lambda report, count: [report] * count,
    st.builds(
        Report,
        after=st.sampled_from([1.0, 20.0, 60.0, 300.0, 7200.0]),
        clock=st.sampled_from([0, 0, 0, None, 60, -60, 3600, -3600]),
        word=st.sampled_from(WORDS),
        flag=st.just("A"),
        altitude=st.none(),
        device=st.just(0),
        origin=st.just(0),
    ),
    st.integers(1, 25),
)
others: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        Report,
        after=st.sampled_from([1.0, 30.0]),
        clock=st.sampled_from([0, -30, -150, -8 * 86_400]),
        word=st.sampled_from(WORDS),
        flag=st.sampled_from("AV"),
        altitude=st.none(),
        device=st.sampled_from([0, 1]),
        origin=st.sampled_from([0, 1]),
    ),
    st.builds(Pass, st.sampled_from([9.7, 61.0, 1000.0])),
    st.builds(Copy, st.integers(1, 6), st.sampled_from([0, 0, 1])),
    st.builds(Beat, st.just(0), st.just(0)),
    st.builds(Registered, st.sampled_from(ENTRIES), st.just(0)),
    st.builds(Moved, st.just(0)),
    st.just(Answers("")),
)
histories = st.lists(st.one_of(alike, others.map(lambda step: [step])), max_size=16).map(
    lambda parts: [step for part in parts for step in part]
)


class ShortWayTests(SynchronousTestCase):
    """C{steady}, with all that is set for a unit and learned of it."""

    maxDiff = None

    @settings(max_examples=200, deadline=None)
    @given(histories, st.sampled_from(["2235.1234,S,11402.5678,W", "2235.1234,N,11402.5678,E"]))
    def test_any_history(self, history: list[Step], where: str) -> None:
        """Whatever a unit sends and whatever is set for it, both ways publish and answer the same and know the same."""
        short, long = UnitWay(short=True), UnitWay(short=False)
        # the letters of a unit are what they are
        history = [step._replace(where=where) if isinstance(step, Report) else step for step in history]
        for way in (short, long):
            way.go(*history)
            way.finish()
        self.assertEqual(long.sink.events, short.sink.events)
        self.assertEqual([link.written for link in long.links], [link.written for link in short.links])
        self.assertEqual(long.publisher.counters, short.publisher.counters)
        self.assertEqual(long.known(), short.known())

    def test_taken(self) -> None:
        """A unit whose wire was found not to be connected goes the short way from then on."""
        way = UnitWay(short=True)
        way.go(*[Report(word="FFFFFBFF", after=20.0)] * 100)
        self.assertIsNotNone(way.session().steady)
