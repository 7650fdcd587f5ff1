"""When a vehicle counts as standing."""

from __future__ import annotations

import unittest

from gateway.commands import Guard
from gateway.downlink.guard import REMEMBERED, Track
from gateway.errors import CommandError

GUARD = Guard()
HERE = (52.0, 13.0)


def track(*reports: tuple[float, float], apart_s: float = 10.0) -> Track:
    """What is known after reports at these seconds, with these speeds in km/h."""
    made = Track(apart_s)
    for at, speed_kmh in reports:
        made.see(at, speed_kmh, *HERE, False)
    return made


class TrackTests(unittest.TestCase):
    """What reports are enough for a guard."""

    def test_table(self) -> None:
        """Two reports far enough apart, the newest young enough, neither and none between them too fast."""
        for reports, now, why in (
            ((), 0, "few"),
            (((0, 0),), 0, "few"),
            (((0, 0), (9.9, 0)), 10, "few"),
            (((0, 0), (10, 0)), 10, ""),
            (((0, 20), (10, 20)), 10, ""),
            (((0, 20.1), (10, 0)), 10, "moving"),
            (((0, 0), (10, 20.1)), 10, "moving"),
            (((0, 0), (5, 30), (10, 0)), 10, "moving"),
            (((0, 30), (5, 0), (15, 0)), 15, ""),
            (((0, 30), (5, 0), (14, 0)), 14, "moving"),
            (((0, 0), (1200, 0)), 1200, ""),
            (((0, 0), (10, 0)), 70, ""),
            (((0, 0), (10, 0)), 70.1, "stale"),
            (((0, 0), (10, 0)), 9, "stale"),
        ):
            hurdle = track(*reports).hurdle(GUARD, now)
            self.assertEqual(why, hurdle.why if hurdle else "", (reports, now))

    def test_places(self) -> None:
        """Two reports of a vehicle that stands, at places that it can't have got to standing: it drove meanwhile."""
        for latitude, longitude, seconds, met in (
            (52.0, 13.0, 10, True),
            (52.0009, 13.0, 10, True),  # 100 m: what fixes differ by
            (52.002, 13.0, 10, False),
            (52.002, 13.0, 3600, True),
            (53.0, 13.0, 3600, False),
            (52.0, 14.0, 3600, False),
        ):
            known = track((0, 0))
            known.see(seconds, 0.0, latitude, longitude, False)
            hurdle = known.hurdle(GUARD, seconds)
            self.assertEqual("" if met else "moving", hurdle.why if hurdle else "", (latitude, longitude, seconds))

    def test_date_line(self) -> None:
        """East and west of the 180th meridian is the same place."""
        known = Track(10.0)
        known.see(0, 0.0, -17.0, 179.9999, False)
        known.see(12, 0.0, -17.0, -179.9999, False)
        self.assertIsNone(known.hurdle(GUARD, 12))

    def test_often(self) -> None:
        """Reports of one second are one, with the greater speed; however many come, the oldest that matters stays."""
        reports = [(n / 10, 30.0 if n == 95 else 0.0) for n in range(200)]
        hurdle = track(*reports).hurdle(GUARD, 19.9)
        assert hurdle is not None
        self.assertEqual("moving", hurdle.why)
        self.assertIsNone(track(*((n / 10, 0.0) for n in range(200))).hurdle(GUARD, 19.9))

    def test_received_together(self) -> None:
        """Reports that come at once, or a trifle out of order, take nothing away."""
        known = track((0, 0.0), (12.0, 0.0), (11.999999, 0.0))
        self.assertIsNone(known.hurdle(GUARD, 12))

    def test_bounded(self) -> None:
        """A guard that wants more than is remembered is not met, and no more is remembered."""
        known = track(*((float(n), 0.0) for n in range(3 * REMEMBERED)), apart_s=1000.0)
        self.assertEqual(3, len(known.evidence(400.0)["reports"]))
        hurdle = known.hurdle(Guard(min_apart_s=1000), 3 * REMEMBERED)
        assert hurdle is not None
        self.assertEqual("few", hurdle.why)

    def test_forget(self) -> None:
        """What a report that proves nothing says is the reason until two others came."""
        known = track((0, 0), (10, 0))
        known.forget("fix", "no fix")
        self.assertEqual(("fix", "no fix"), known.hurdle(GUARD, 10))
        known.see(11, 0.0, *HERE, False)
        known.see(22, 0.0, *HERE, False)
        self.assertIsNone(known.hurdle(GUARD, 22))

    def test_frozen(self) -> None:
        """With a clock that stands still place and speed have to stay as they are."""
        for latitude, speed_kmh, met in ((52.0, 0.0, True), (52.1, 0.0, False), (52.0, 1.0, False)):
            known = track((0, 0))
            known.see(12, speed_kmh, latitude, 13.0, True)
            self.assertEqual(met, known.hurdle(GUARD, 12) is None, (latitude, speed_kmh))

    def test_evidence(self) -> None:
        """What a met guard goes by can be told."""
        self.assertEqual(
            {"reports": [{"age_s": 12.0, "speed_kmh": 3.0}, {"age_s": 2.0, "speed_kmh": 0.0}]},
            track((0, 3.0), (10, 0.0)).evidence(12.0),
        )


class GuardTests(unittest.TestCase):
    """What a request may say of the guard."""

    def test_stricter(self) -> None:
        """It may always be stricter, and looser only where that is allowed."""
        for guard, stricter in (
            ({"max_speed_kmh": 5.0}, True),
            ({"max_speed_kmh": 21.0}, False),
            ({"min_apart_s": 30.0}, True),
            ({"min_apart_s": 9.0}, False),
            ({"max_age_s": 30.0}, True),
            ({"max_age_s": 61.0}, False),
        ):
            self.assertEqual(GUARD._replace(**guard), GUARD.asked(guard, looser=True))
            if stricter:
                self.assertEqual(GUARD._replace(**guard), GUARD.asked(guard, looser=False))
            else:
                with self.assertRaisesRegex(CommandError, "looser"):
                    GUARD.asked(guard, looser=False)
