"""How often a figure fell between which bounds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any, Final, NamedTuple

#: Upper bounds of seconds, of frames in a batch.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
FRAMES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


class Histogram:
    """
    Counts by bounds.

    @ivar counts: of figures up to each of C{bounds}, not those below another; then of those above them all.
    @ivar total: of all figures.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, figure: float, times: int = 1) -> None:
        """A figure came, so many times."""
        self.counts[bisect_left(self.bounds, figure)] += times
        self.total += figure * times

    def shown(self) -> Counts:
        """As it is told."""
        return Counts(self.bounds, self.counts[:], self.total)


class Counts(NamedTuple):
    """A L{Histogram} at one moment, as a value."""

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float

    @classmethod
    def read(cls, said: Any) -> Counts | None:
        """As JSON has it; None: it is none."""
        try:
            bounds, counts, total = said
            found = cls([float(bound) for bound in bounds], [int(n) for n in counts], float(total))
        except (TypeError, ValueError):
            return None
        return found if len(found.counts) == len(found.bounds) + 1 else None

    def quantile(self, share: float) -> float | None:
        """The bound below which so large a share of all lies; above the last one, that; None: there are none."""
        most, seen = sum(self.counts), 0
        if not most:
            return None
        for bound, n in zip(self.bounds, self.counts, strict=False):
            seen += n
            if seen >= ceil(share * most):
                return bound
        return self.bounds[-1]

    def since(self, before: Counts | None) -> Counts:
        """What came after that; all of it where that is of another one, or of one that was begun anew."""
        if before is None or len(before.counts) != len(self.counts):
            return self
        counts = [now - then for now, then in zip(self.counts, before.counts, strict=True)]
        return self if min(counts) < 0 else Counts(self.bounds, counts, self.total - before.total)


def together(all_of: Iterable[Mapping[str, Counts]]) -> dict[str, Counts]:
    """The histograms of several processes as one of each name."""
    found: dict[str, Counts] = {}
    for some in all_of:
        for name, counts in some.items():
            mine = found.get(name)
            if mine is None:
                found[name] = counts
            elif len(mine.counts) == len(counts.counts):  # else it is of another version, which a restart ends
                summed = [a + b for a, b in zip(mine.counts, counts.counts, strict=True)]
                found[name] = Counts(mine.bounds, summed, mine.total + counts.total)
    return found
