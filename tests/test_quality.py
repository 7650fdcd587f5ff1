"""What the data of a unit show of the unit itself, each learner alone: from when on it speaks, and when it must not."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway import quality
from gateway.quality import Finding
from tests.fakes import NOON

#: Spain and Brazil lie west of 4 and of -34 degrees; Poland and South Africa lie on one side of both lines.
POLAND, SOUTH_AFRICA = "260", "655"
WEEK = 604_800.0


class LearnerCase(SynchronousTestCase):
    """What is kept goes through JSON between any two reports, as it does when the gateway restarts."""

    maxDiff = None

    def setUp(self) -> None:
        self.kept: dict[str, Any] = {}

    def restart(self) -> None:
        """What is kept is written and read again; it comes back as it was."""
        again = json.loads(json.dumps(self.kept))
        self.assertEqual(again, json.loads(json.dumps(again)))
        self.kept = again

    def only(self, found: list[Finding | None]) -> Finding:
        """The one finding among these."""
        (one,) = [each for each in found if each is not None]
        return one

    def none(self, found: list[Finding | None]) -> None:
        """Nothing was found."""
        self.assertEqual([], [each for each in found if each is not None])


class WiringTests(LearnerCase):
    """Whether the ACC wire is connected."""

    def drive(
        self, reports: int, every: float = 20.0, speed: float | None = 60.0, first: float = NOON, ignition: bool = False
    ) -> list[Finding | None]:
        """Reports of a drive, with the gateway restarted after each."""
        found = []
        for n in range(reports):
            found.append(quality.wiring(self.kept, ignition, speed, first + n * every))
            self.restart()
        return found

    def test_a_drive(self) -> None:
        """Ten moving reports over three minutes with the ignition off, and never seen on: the wire is not connected."""
        found = self.drive(10)
        self.none(found[:9])
        told = self.only(found[9:])
        self.assertEqual(("acc_wiring", "acc_wired=0"), (told.name, told.setting))
        self.assertEqual({"reports": 10, "seconds": 180}, told.evidence)
        self.assertEqual("unwired", self.kept["acc"])

    def test_too_short(self) -> None:
        """A drive of a second less than three minutes shows nothing yet, however many reports it has."""
        self.none(self.drive(180, every=1.0))
        self.only([quality.wiring(self.kept, False, 60.0, NOON + 180)])

    def test_too_few(self) -> None:
        """Nine reports show nothing yet, however long the drive is; a long silence counts for a minute."""
        self.none(self.drive(9, every=3600.0))
        self.assertEqual([9, 480.0, NOON + 8 * 3600.0], self.kept["acc"])

    def test_silence_is_no_drive(self) -> None:
        """What lies between two reports counts for a minute at most: three reports in an hour are no hour's drive."""
        self.drive(3, every=1800.0)
        self.assertEqual(120.0, self.kept["acc"][1])

    def test_not_fast_enough(self) -> None:
        """At 20 km/h a car may be pushed or towed; above it is driven."""
        self.none(self.drive(50, speed=20.0))
        self.assertEqual({}, self.kept)
        self.only(self.drive(10, speed=20.1))

    def test_no_speed_or_no_time(self) -> None:
        """A report without a valid fix, or without a time, shows nothing."""
        self.none(self.drive(50, speed=None))
        self.none([quality.wiring(self.kept, False, 60.0, None) for _ in range(50)])
        self.assertEqual({}, self.kept)

    def test_ferry(self) -> None:
        """Once the ignition was seen on, the wire is there: a car on a ferry or a trailer is no finding."""
        self.none(self.drive(5))
        self.none([quality.wiring(self.kept, True, 0.0, NOON)])
        self.assertEqual("wired", self.kept["acc"])
        self.none(self.drive(200, first=NOON + 1000))
        self.assertEqual("wired", self.kept["acc"])

    def test_told_once(self) -> None:
        """It is told once."""
        self.only(self.drive(300))

    def test_taken_back(self) -> None:
        """The ignition is seen on after all: told once, with what settles it; then the ferry is none again."""
        self.drive(10)
        told = self.only([quality.wiring(self.kept, True, speed, NOON + 900) for speed in (None, 0.0, 60.0)])
        self.assertEqual(("acc_wiring", "acc_wired=1"), (told.name, told.setting))
        self.none(self.drive(300, first=NOON + 1000))

    def test_times_that_go_back(self) -> None:
        """Records in the wrong order add no time."""
        found = [quality.wiring(self.kept, False, 60.0, NOON - n) for n in range(500)]
        self.none(found)
        self.assertEqual(0.0, self.kept["acc"][1])


class ClockTests(LearnerCase):
    """Whether a clock is set to a time zone."""

    def live(
        self, offset: float, reports: int = 10, every: float = 10.0, first: float = NOON, lag: float = 2.0
    ) -> list[Finding | None]:
        """Live reports of a clock that is off by so much, with the gateway restarted after each."""
        found = []
        for n in range(reports):
            now = first + n * every
            found.append(quality.clock(self.kept, now - lag + offset, now))
            self.restart()
        return found

    def test_zones(self) -> None:
        """Ten live reports with one offset of a whole number of quarter hours: told, with what settles it."""
        for hours in (8.0, -3.0, 5.75, -9.5, 14.0, -14.0, 0.25):
            self.kept = {}
            found = self.live(hours * 3600)
            self.none(found[:9])
            told = self.only(found[9:])
            self.assertEqual(("clock", f"time_offset_s={hours * 3600:.0f}"), (told.name, told.setting))
            self.assertEqual({"offset_s": hours * 3600, "reports": 10, "seconds": 90}, told.evidence)
            self.assertIn("ahead of" if hours > 0 else "behind", told.reason)

    def test_too_fast(self) -> None:
        """Ten reports within less than a minute show nothing yet."""
        self.none(self.live(8 * 3600, 60, every=1.0))
        self.only(self.live(8 * 3600, 2, every=1.0, first=NOON + 60.0))

    def test_buffer_that_drains(self) -> None:
        """Records that are sent faster than they were made pass through many offsets, and none is a time zone."""
        for made, sent in ((5.0, 1.0), (3.0, 2.0), (10.0, 6.0), (10.0, 9.0)):
            self.kept = {}
            for n in range(1500):
                self.assertIsNone(quality.clock(self.kept, NOON - 7200 + n * made, NOON + n * sent), (made, sent, n))

    def test_right_clock(self) -> None:
        """A clock that is right, or off by a few minutes, is in no zone."""
        for offset in (0.0, 20.0, -30.0, 449.0, -440.0, 869.0, 8 * 3600 + 40.0):
            self.none(self.live(offset, 100, lag=0.0))

    def test_slack(self) -> None:
        """Half a minute beside a quarter hour, a slow link included, is still that; a second more is not."""
        self.none(self.live(3600 - 31.0, 100, lag=0.0))
        self.only(self.live(3600 - 30.0, lag=0.0))

    def test_further_than_any_zone(self) -> None:
        """No zone is further than 14 hours: a day, a year or a week rollover are something else."""
        for offset in (14.25 * 3600, -86_400.0, 365 * 86_400.0, -1024 * WEEK, -2048 * WEEK, -NOON):
            self.none(self.live(offset, 100))
        self.assertEqual({}, self.kept)

    def test_told_once(self) -> None:
        """It is told once, also when the clock was right in between."""
        self.only(self.live(8 * 3600, 300))
        self.none(self.live(0.0, 20, first=NOON + 9000))
        self.none(self.live(8 * 3600, 300, first=NOON + 20_000))

    def test_another_zone(self) -> None:
        """A clock that is set to another zone later is told again, with that."""
        self.only(self.live(8 * 3600, 30))
        told = self.only(self.live(7 * 3600, 30, first=NOON + 9000))
        self.assertEqual("time_offset_s=25200", told.setting)

    def test_reset(self) -> None:
        """One report that is right, or off by something else, and the counting begins anew."""
        for other in (0.0, 3600.0, 40 * 3600.0):
            self.kept = {}
            self.none(self.live(8 * 3600, 9))
            self.live(other, 1, first=NOON + 90)
            self.none(self.live(8 * 3600, 9, first=NOON + 100))
            self.only(self.live(8 * 3600, 1, first=NOON + 190))

    def test_clock_that_stands_still(self) -> None:
        """A parked unit's clock that stands still for a day is no offset, whichever quarter hour it passes."""
        self.none([quality.clock(self.kept, NOON, NOON + n * 10.0) for n in range(8640)])

    def test_copies(self) -> None:
        """Copies of one report are one report."""
        self.none([quality.clock(self.kept, NOON + 3600, NOON + n) for n in range(29)])

    @settings(max_examples=300, deadline=None)
    @given(
        made_every=st.integers(2, 120),
        faster=st.floats(2.0, 100.0),
        age=st.floats(300.0, 15 * 3600.0),
    )
    def test_stored_records(self, made_every: int, faster: float, age: float) -> None:
        """Stored records that are sent faster than they were made are no clock that is off, wherever they begin."""
        kept: dict[str, Any] = {}
        now, time = NOON, NOON - age
        for _ in range(400):
            if time > now:
                break
            self.assertIsNone(quality.clock(kept, time, now))
            time += made_every
            now += made_every / faster

    def test_burst(self) -> None:
        """A whole buffer at one moment is no clock that is off."""
        self.none([quality.clock(self.kept, NOON - 3620 + n, NOON) for n in range(60)])


class HemisphereTests(LearnerCase):
    """Whether the hemisphere letters are right."""

    def fixes(self, latitude: float, longitude: float, mcc: str, count: int = 10) -> list[Finding | None]:
        """Fixes at one place, with the gateway restarted after each."""
        found = []
        for _ in range(count):
            found.append(quality.hemisphere(self.kept, mcc, latitude, longitude))
            self.restart()
        return found

    def test_wrong_letters(self) -> None:
        """Ten fixes in a row where the network's country is not: told, with the letters that are right."""
        found = self.fixes(26.2, 28.0, SOUTH_AFRICA)
        self.none(found[:9])
        told = self.only(found[9:])
        self.assertEqual(("hemisphere", "hemisphere=S"), (told.name, told.setting))
        self.assertEqual({"latitude": 26.2, "longitude": 28.0, "mcc": "655", "reports": 10}, told.evidence)

    def test_each_side(self) -> None:
        """North, south, east and west, one or both."""
        for mcc, latitude, longitude, setting in (
            (POLAND, -52.0, 21.0, "N"), (POLAND, 52.0, -21.0, "E"), (POLAND, -52.0, -21.0, "NE"),
            ("722", 34.6, 58.4, "SW"), ("334", 19.4, 99.1, "W"), ("724", -23.5, 46.6, "W"),
        ):  # fmt: skip
            self.kept = {}
            self.assertEqual(f"hemisphere={setting}", self.only(self.fixes(latitude, longitude, mcc)).setting)

    def test_right_letters(self) -> None:
        """Fixes in the network's country leave nothing behind."""
        for mcc, latitude, longitude in ((SOUTH_AFRICA, -26.2, 28.0), (POLAND, 52.0, 21.0), ("724", -23.5, -46.6)):
            self.none(self.fixes(latitude, longitude, mcc, 50))
        self.assertEqual({}, self.kept)

    def test_in_a_row(self) -> None:
        """One fix on the right side, and the counting begins anew."""
        self.none(self.fixes(26.2, 28.0, SOUTH_AFRICA, 9))
        self.none(self.fixes(-26.2, 28.0, SOUTH_AFRICA, 1))
        self.none(self.fixes(26.2, 28.0, SOUTH_AFRICA, 9))
        self.only(self.fixes(26.2, 28.0, SOUTH_AFRICA, 1))

    def test_told_once(self) -> None:
        """It is told once."""
        self.only(self.fixes(26.2, 28.0, SOUTH_AFRICA, 300))
        self.none(self.fixes(-26.2, 28.0, SOUTH_AFRICA, 5))
        self.none(self.fixes(26.2, 28.0, SOUTH_AFRICA, 300))

    def test_near_the_lines(self) -> None:
        """Within a degree of the equator or of the meridian of Greenwich a cell across the border proves nothing."""
        self.none(self.fixes(1.0, 30.0, "635", 50))
        self.none(self.fixes(42.0, -1.0, "213", 50))
        self.only(self.fixes(1.01, 30.0, "635"))


class SimTests(LearnerCase):
    """Whether the SIM card is another one."""

    def test_change(self) -> None:
        """The first card is noted, the same one again says nothing, another one is an event with both numbers."""
        self.assertIsNone(quality.sim(self.kept, "8944501311217563382", NOON))
        self.restart()
        self.assertIsNone(quality.sim(self.kept, "8944501311217563382", NOON + 1))
        self.restart()
        event = quality.sim(self.kept, "8948061050039263302", NOON + 2)
        assert event is not None
        self.assertEqual(("device.sim.changed", NOON + 2), (event.type, event.time))
        self.assertEqual({"iccid": "8948061050039263302", "iccid_before": "8944501311217563382"}, event.attributes)
        self.restart()
        self.assertIsNone(quality.sim(self.kept, "8948061050039263302", NOON + 3))

    def test_back(self) -> None:
        """The old card back in is a change too."""
        cards = ["8944501311217563382", "8948061050039263302", "8944501311217563382"]
        events = [quality.sim(self.kept, card, None) for card in cards]
        self.assertEqual([False, True, True], [event is not None for event in events])


class FindingTests(SynchronousTestCase):
    """How a finding is published."""

    def test_event(self) -> None:
        """It is a device.quality event of the report that completed the evidence, with the line that settles it."""
        finding = Finding("clock", "its clock is 8 h ahead", "time_offset_s=28800", {"reports": 10})
        event = finding.event(NOON)
        self.assertEqual(("device.quality", NOON), (event.type, event.time))
        self.assertEqual(
            {
                "name": "clock",
                "reason": "its clock is 8 h ahead",
                "setting": "time_offset_s=28800",
                "evidence": {"reports": 10},
            },
            event.attributes,
        )
