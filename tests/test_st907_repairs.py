"""An ST-907 in situations that once went wrong: what is kept of it, what is found out, what its alarms lead to."""

from __future__ import annotations

import json
from typing import Any

from gateway.session import Stored
from tests.fakes import NOON, RecordingLink, entries
from tests.units import IDENT, OFF, ON, UnitCase, v1, without

DAY = 86_400.0


class KeptTests(UnitCase):
    """What the store gives back of a unit."""

    def kept(self, **memory: Any) -> Stored:
        """What is kept of a unit that is known, with this in its plugin's memory."""
        state = {"levels": {}, "off": "sos", "fix": None, "memory": memory, "first": NOON, "frames": 1, "proven": True}
        return Stored(True, True, b"", None, json.dumps(state), {})

    def test_wrong_shapes(self) -> None:
        """What somebody else wrote there is dropped, and the unit's reports are read; so is a binary length."""
        wrong: tuple[Any, ...] = ("x", 5, [1, 2], ["a", None, 1], {"offset": 1, "n": "a"}, {"n": 3}, [[], 0, 1, 0])
        for name in ("stuck", "clock", "acc", "hemisphere", "battery", "binary", "iccid", "faults"):
            for value in wrong:
                self.begin(self.kept(**{name: value}))
                for word in (ON, without(ON, 17), without(OFF, 17)):
                    found = self.report(word, speed=30.0, cell="214,03,13140,5085,5")
                    self.assertEqual(["position"], [e["type"] for e in found if e["head"][0] in "pd"], (name, value))

    def test_levels_that_are_none(self) -> None:
        """A level that has no event, and a time that is none, make the state unreadable and stop nothing."""
        for name, since in (("foo", NOON), ("sos", float("nan")), ("sos", 1e300), ("sos", -5.0)):
            row = [since, "aa", since, since, since]
            state = {"levels": {name: row}, "off": "", "fix": None, "memory": {}, "first": NOON, "frames": 1}
            self.begin(Stored(True, True, b"", None, json.dumps({**state, "proven": True}), {}))
            self.assertEqual(1, len(self.of(self.report(), "position")))
            self.clock.advance(120)
            self.publisher.tick(self.now)

    def test_not_ahead_of_what_is_stored(self) -> None:
        """What is kept says no more than the reports that are stored with it: an alarm behind them is raised again."""
        self.report()
        self.clock.advance(61)
        waits = [v1(self.now - 1), *(v1(self.now - 1, ident=str(9_000_000_000 + n)) for n in range(600))]
        alarm = v1(self.now, without(OFF, 1))
        for frame in (*waits, alarm):
            self.publisher.take([*self.decoder.receive(frame, self.now)], self.link, "st907", self.now)
        self.clock.advance(0)
        seen = False
        while self.sink.under_way is not None:
            batch = self.sink.batches[-1]
            mine = [entry["type"] for entry in entries(batch) if entry["ident"] == IDENT]
            seen = seen or "alarm.sos" in mine
            if mine:
                self.assertEqual(seen, b'"sos":[' in self._private(batch), mine)
            self.sink.answer()
            self.clock.advance(0)
        self.assertTrue(seen)


class AlarmTests(UnitCase):
    """Levels over restarts, settings and late reports."""

    def test_constant_that_ends_in_another_frame(self) -> None:
        """A constant whose bit is seen gone in a frame without a fix is an alarm like any other from then on."""
        stuck = without(ON, 17)
        for _ in range(24):
            self.report(stuck, DAY / 20)
        self.assertEqual([], self.edges(self.report(stuck)))
        self.report(ON, fix="V")
        self.assertEqual([("alarm.vibration", "raised")], self.edges(self.report(stuck)))

    def test_over_while_nobody_looked(self) -> None:
        """An alarm that was over before a long restart, and is there again after it, is cleared and raised."""
        self.report()
        (raised,) = self.of(self.report(without(OFF, 1)), "alarm.sos")
        self.report()
        self.restart()
        self.clock.advance(7200)
        cleared, again = self.of(self.report(without(OFF, 1)), "alarm.sos")
        self.assertEqual(("cleared", raised["id"]), (cleared["data"]["phase"], cleared["data"]["raised_id"]))
        self.assertEqual("raised", again["data"]["phase"])

    def test_hold_off_after_a_restart(self) -> None:
        """A single report without an alarm that was on before a restart clears nothing."""
        self.report()
        for _ in range(30):
            self.report(without(OFF, 1))
        self.restart()
        self.assertEqual([], self.edges(self.report()))
        self.assertEqual([], self.edges(self.report(without(OFF, 1))))

    def test_bit_that_means_nothing_any_more(self) -> None:
        """An alarm that is on when its bit is set to mean nothing is cleared."""
        self.report()
        self.report(without(OFF, 17))
        self.register(bits="17=")
        found = [edge for _ in range(10) for edge in self.edges(self.report(without(OFF, 17)))]
        self.assertEqual([("alarm.vibration", "cleared")], found)

    def test_late_and_on_already(self) -> None:
        """A late report of an alarm that is on, and was before it, is no other alarm; of one that was not, it is."""
        self.report()
        self.report(without(OFF, 19))
        for _ in range(4):
            self.connect(self.link_port() + 1)
            late = self.report(without(OFF, 19, 26))
            self.assertEqual([], self.edges(late))
            self.assertEqual("device", self.one(late)["late"])
            self.assertEqual([], self.edges(self.report(without(OFF, 19))))
        self.assertEqual([("alarm.sos", "raised")], self.edges(self.report(without(OFF, 1, 19, 26))))

    def link_port(self) -> int:
        """The port that the device came from."""
        return int(self.link.peer.rpartition(":")[2])

    def test_duration(self) -> None:
        """A state is never shorter than nothing, whatever the clock does."""
        self.report(ON, off=0.0)
        self.clock.advance(30)
        self.send(v1(NOON + 10, without(ON, 9), lat="4219.0033,N"))
        (state,) = self.of(self.report(ON, 1.0, off=-20.0), "state.armed")
        self.assertGreaterEqual(state["data"]["duration_s"], 0.0)


class FindingTests(UnitCase):
    """What is found out, and what is not."""

    def test_of_a_report_that_the_store_has(self) -> None:
        """What was found with a report that the store calls a duplicate is published all the same."""
        self.report()
        self.clock.advance(10)
        messages = [*self.decoder.receive(v1(self.now, cell="214,03,13140,5085,87"), self.now)]
        self.publisher.take(messages, self.link, "st907", self.now)
        self.clock.advance(0)
        self.sink.answer("dd")
        self.clock.advance(0)
        (entry,) = [e for e in self.sink.last if e["type"] == "device.quality"]
        self.assertEqual("battery", json.loads(entry["data"])["name"])

    def test_not_answered_yet(self) -> None:
        """A unit that sends again while nothing can be stored, and so answered, is none that does not take answers."""
        self.report()
        self.clock.advance(10)
        frame = v1(self.now)
        for _ in range(6):
            self.publisher.take([*self.decoder.receive(frame, self.now)], self.link, "st907", self.now)
            self.clock.advance(5)
        while self.sink.under_way is not None:
            self.sink.answer()
            self.clock.advance(0)
        self.answers()
        self.report(ON)
        self.assertEqual([b"V4"], [answer.split(b",")[2] for answer in self.answers()])

    def test_figures_that_are_no_battery(self) -> None:
        """A text's steps, the temperature of an X frame and the unknown number of a V5 settle nothing."""
        self.report()
        self.send(f"*HQ,{IDENT},SMS,XM_GT09 ID:{IDENT} BAT:85 GSM:20#\r\n*HQ,{IDENT},V0#".encode())
        parts = "0000981499 173000 221126 42319003 25 0075300026 000122 fffffbff ff0000"
        (entry,) = self.of(self.send(b"X" + bytes.fromhex(parts) + b"\r\n"), "position")
        self.assertEqual(0x25, entry["data"]["battery_raw"])
        self.report(kind="V5", cell="214,03,13140,5085,57")
        self.assertNotIn("battery", self.session.memory)

    def test_no_index_after_all(self) -> None:
        """A unit whose figure was taken for an index and goes above 6 has percent."""
        for _ in range(24):
            self.report(cell="214,03,13140,5085,5", every=DAY / 20)
        self.assertEqual("index", self.session.memory["battery"])
        found = self.report(cell="214,03,13140,5085,87")
        self.assertEqual([("battery", "battery=percent")], self.qualities(found))
        self.assertEqual("87", self.one(found)["battery_pct"])

    def test_one_card(self) -> None:
        """A number of which the last digits could not be read is that of the same card."""
        tails = ("8948061050039263302?", "89480610500392633029", "8948061050039263302F")
        found = [self.report(kind="V6", cell=f"214,03,13140,5085,{tail},") for tail in tails]
        self.assertEqual([], [e for each in found for e in self.of(each, "device.sim.changed")])

    def test_time_of_a_finding(self) -> None:
        """A finding has the time of the report that completed it: a clock that stands still does not date it back."""
        for _ in range(24):
            self.clock.advance(DAY / 20)
            found = self.send(v1(NOON, cell=f"214,03,13140,{self.now:.0f},5"))
            if of := self.of(found, "device.quality"):
                self.assertEqual(self.one(found)["time"], of[0]["time"])
                self.assertNotIn("late", of[0]["data"])
                return
        self.fail("nothing was found")

    def test_own_time_of_a_repeat(self) -> None:
        """A repeated frame of a unit whose clock is corrected shows the time that the unit gave."""
        self.registry = {"time_offset_s": "28800"}
        self.begin()
        frame = v1(self.now + 28_800)
        first = self.one(self.send(frame))
        self.clock.advance(120)
        self.assertEqual(first["data"]["device_time"], self.one(self.send(frame), "status")["data"]["device_time"])


class AnswerTests(UnitCase):
    """Who is answered, and how."""

    def test_dropped_before_its_answer(self) -> None:
        """A unit that is not to be answered is not, also when another instance has taken it over meanwhile."""
        self.registry = {"reply": "none"}
        self.begin()
        self.report()
        link = RecordingLink("192.0.2.7:4711")
        self.link = link
        for _ in range(2):
            self.clock.advance(1)
            self.publisher.take([*self.decoder.receive(v1(self.now), self.now)], link, "st907", self.now)
            self.clock.advance(0)
        self.sink.answer(lost=[IDENT])
        self.clock.advance(0)
        while self.sink.under_way is not None:
            self.sink.answer()
            self.clock.advance(0)
        self.assertEqual([], link.written)

    def test_bare_ident(self) -> None:
        """A frame of nothing but a maker and an ident, with and without a second comma, is known and says: alive."""
        for frame in (f"*HQ,{IDENT}#", f"*HQ,{IDENT},#"):
            answer = self.device.detect(frame.encode(), "tcp")
            self.assertGreaterEqual(getattr(answer, "confidence", 0), 80, frame)
            self.assertEqual(1, len(self.of(self.send(frame.encode()), "status")), frame)
