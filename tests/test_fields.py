"""Fields that many protocols share: every oddity that was seen on the wire."""

from __future__ import annotations

from calendar import timegm
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.fields import (
    compact_time,
    compass,
    day_epoch,
    degrees,
    epoch,
    is_bcd,
    rfc3339,
    second_of_day,
    time_of,
)
from tests.fakes import NOON


class DegreesTests(SynchronousTestCase):
    """Degrees and minutes, as devices write them."""

    def test_table(self) -> None:
        """Each form that was seen gives the degrees it means."""
        table = (
            ("4219.0032", 90, 42.31672),
            ("00753.0002", 180, 7.883337),
            ("5238.26259", 90, 52.63771),
            ("701.8915", 90, 7.031525),
            ("954.9490", 180, 9.915817),
            ("9733.2842", 180, 97.554737),
            ("8502.8648", 180, 85.047747),
            ("38.6508", 180, 0.64418),
            ("8.6508", 180, 0.14418),
            ("37573392", 90, 37.955653),
            ("145037022", 180, 145.061703),
            ("-23-3.3408", 90, -23.05568),
            ("-23-35.3408", 90, -23.589013),
            ("-48-2.8926", 180, -48.04821),
            ("-4219.0032", 90, -42.31672),
            ("0.0000", 90, 0.0),
            ("0000.0000", 90, 0.0),
            ("  4219.0032 ", 90, 42.31672),
            ("9000.0000", 90, 90.0),
            ("18000.0000", 180, 180.0),
        )
        for text, limit, wanted in table:
            got = degrees(text, limit)
            self.assertIsNotNone(got, text)
            self.assertAlmostEqual(wanted, got or 0.0, 6, text)

    def test_no_position(self) -> None:
        """Nothing, nines, minutes of 60 and degrees past the pole are no position."""
        for text, limit in (
            ("", 90), ("  ", 90), ("9999.9999", 90), ("99999.9999", 180), ("4260.0000", 90), ("9000.0001", 90),
            ("18000.0001", 180), ("-91-0.0", 90),
        ):  # fmt: skip
            self.assertIsNone(degrees(text, limit), text)

    def test_no_number(self) -> None:
        """What is not a number is an error, not a position."""
        for text in ("north", "42,19", "12.3.4", "1", "123456", "-", ".", "nan", "inf", "4219.00x", "0x10.0"):
            try:
                value = degrees(text, 90)
            except ValueError:
                continue
            self.assertIsNone(value, text)

    @given(st.text(max_size=40))
    def test_any_text(self, text: str) -> None:
        """Any text is degrees within the limit, no position, or a ValueError; nothing else."""
        try:
            value = degrees(text, 90)
        except ValueError:
            return
        self.assertTrue(value is None or -90 <= value <= 90, repr(text))

    def test_long_numbers(self) -> None:
        """A number of hundreds of digits is no position."""
        for text in ("9" * 400, "9" * 400 + ".0", "9" * 400 + "00.0"):
            try:
                value = degrees(text, 90)
            except ValueError:
                continue
            self.assertIsNone(value)


class TimeTests(SynchronousTestCase):
    """Dates and times of two digits each."""

    def test_time_of(self) -> None:
        """Day, month, year and hour, minute, second, in UTC."""
        self.assertEqual(timegm((2023, 5, 25, 5, 43, 56)), time_of("250523", "054356"))
        self.assertEqual(timegm((2024, 2, 29, 23, 59, 59)), time_of("290224", "235959"))
        self.assertEqual(timegm((2004, 1, 1, 0, 23, 39)), time_of("010104", "002339"))

    def test_seconds_over_59(self) -> None:
        """69 seconds were seen: they are counted on."""
        self.assertEqual(16 * 3600 + 2 * 60 + 9, second_of_day("160169"))
        self.assertEqual(timegm((2023, 5, 26, 0, 0, 39)), time_of("250523", "235999"))

    def test_no_date(self) -> None:
        """000000, nothing, a 13th month, 31 February and letters are no date."""
        for text in ("000000", "", "251323", "310223", "290223", "320123", "00012", "2505233", "25o523", "٢٥٠٥٢٣"):
            self.assertIsNone(day_epoch(text), text)
            self.assertIsNone(time_of(text, "054356"), text)

    def test_no_time(self) -> None:
        """Nothing, 24 o'clock, 60 minutes and letters are no time."""
        for text in ("", "240000", "006000", "0543", "05435x", "0543560", "-10000"):
            self.assertIsNone(second_of_day(text), text)
            self.assertIsNone(time_of("250523", text), text)

    def test_century(self) -> None:
        """80 is 1980, where the receivers' epoch lies; 69 is 2069."""
        self.assertEqual(timegm((1980, 1, 6, 0, 0, 0)), day_epoch("060180"))
        self.assertEqual(timegm((1999, 12, 31, 0, 0, 0)), day_epoch("311299"))
        self.assertEqual(timegm((2000, 1, 1, 0, 0, 0)), day_epoch("010100"))
        self.assertEqual(timegm((2069, 1, 1, 0, 0, 0)), day_epoch("010169"))

    def test_epoch(self) -> None:
        """A time as text is read; what is none, or of no year that there is, is not."""
        self.assertEqual(NOON + 0.25, epoch(rfc3339(NOON + 0.25)))
        self.assertEqual(epoch("2026-01-02T03:04:05Z"), epoch("2026-01-02T04:04:05+01:00"))
        for text in ("", "soon", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "10000-01-01T00:00:00Z"):
            self.assertIsNone(epoch(text), text)

    def test_compact(self) -> None:
        """The form that acknowledgements carry."""
        self.assertEqual("20230525054356", compact_time(timegm((2023, 5, 25, 5, 43, 56))))


class RFC3339Tests(SynchronousTestCase):
    """Times on the streams."""

    def test_table(self) -> None:
        """UTC, milliseconds, Z; rounded, never cut to the second before."""
        for when, text in (
            (0.0, "1970-01-01T00:00:00.000Z"),
            (1_795_348_800.0, "2026-11-22T12:00:00.000Z"),
            (1_795_348_800.0624, "2026-11-22T12:00:00.062Z"),
            (1_795_348_800.9996, "2026-11-22T12:00:01.000Z"),
            (315_532_799.999, "1979-12-31T23:59:59.999Z"),
        ):
            self.assertEqual(text, rfc3339(when))

    @given(st.integers(min_value=0, max_value=4_102_444_800_000))
    def test_round_trip(self, ms: int) -> None:
        """What is written is read back to the millisecond, and is 24 characters long."""
        text = rfc3339(ms / 1000)
        self.assertEqual(24, len(text))
        self.assertEqual(ms, round(datetime.fromisoformat(text).timestamp() * 1000))


class SmallTests(SynchronousTestCase):
    """The small ones."""

    def test_bcd(self) -> None:
        """Digits are BCD, hex letters are not."""
        self.assertTrue(is_bcd("0123456789"))
        for text in ("", "12a4", "f"):
            self.assertFalse(is_bcd(text))

    def test_compass(self) -> None:
        """A course is whole degrees from 0 to 359; 360 is 0."""
        for course, wanted in ((0, 0), (359.4, 359), (359.5, 0), (360, 0), (205.7, 206), (0.5, 0), (270.9, 271)):
            self.assertEqual(wanted, compass(course))
