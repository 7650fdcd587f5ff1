"""Figures counted by bounds."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from gateway.histogram import Counts, Histogram, together


class HistogramTests(SynchronousTestCase):
    """Counts, what follows from them, and how they travel."""

    def setUp(self) -> None:
        self.histogram = Histogram((1.0, 2.0, 4.0))
        for figure in (0.5, 1.0, 1.1, 3.0, 100.0):
            self.histogram.add(figure)

    def test_counts(self) -> None:
        """A figure counts up to the bound that it does not exceed; what exceeds all counts at the end."""
        self.assertEqual(([2, 1, 1, 1], 105.6), (self.histogram.counts, round(self.histogram.total, 3)))
        self.histogram.add(2.0, 10)
        self.assertEqual(([2, 11, 1, 1], 125.6), (self.histogram.counts, round(self.histogram.total, 3)))

    def test_quantile(self) -> None:
        """The bound below which a share lies."""
        shown = self.histogram.shown()
        found = [shown.quantile(share) for share in (0.2, 0.4, 0.5, 0.6, 0.8, 0.99)]
        self.assertEqual([1.0, 1.0, 2.0, 2.0, 4.0, 4.0], found)
        self.assertIsNone(Histogram((1.0,)).shown().quantile(0.5))

    def test_since(self) -> None:
        """What came after a moment; all of it when the process was started anew since."""
        before = self.histogram.shown()
        self.histogram.add(1.5)
        self.assertEqual([0, 1, 0, 0], self.histogram.shown().since(before).counts)
        self.assertEqual([2, 2, 1, 1], self.histogram.shown().since(None).counts)
        again = Histogram((1.0, 2.0, 4.0))
        again.add(1.5)
        self.assertEqual([0, 1, 0, 0], again.shown().since(before).counts)

    def test_travels(self) -> None:
        """It goes through JSON; what is none is taken for nothing."""
        shown = self.histogram.shown()
        self.assertEqual(shown.counts, getattr(Counts.read(json.loads(json.dumps(shown))), "counts", None))
        all_of: tuple[object, ...] = (None, 1, [], [[1], [1], 1], [["a"], [1, 2], 1], [[1], [1, 2], None], {})
        for nonsense in all_of:
            self.assertIsNone(Counts.read(nonsense), nonsense)

    def test_together(self) -> None:
        """Several processes' add up; one with other bounds does not spoil the rest."""
        shown = self.histogram.shown()
        whole = together([{"wait": shown}, {"wait": shown, "lag": shown}, {"wait": Counts((1.0,), [1, 1], 2.0)}])
        self.assertEqual(([4, 2, 2, 2], [2, 1, 1, 1]), (whole["wait"].counts, whole["lag"].counts))
