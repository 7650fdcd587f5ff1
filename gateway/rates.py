"""How much comes from somewhere, against how much may."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

#: So many addresses are remembered; those that were idle longest are forgotten.
ADDRESSES: Final = 50_000


class Rate:
    """
    A count of what came, against so much a second, and so much at once.

    Who counts adds to C{count}, and asks L{over} when that is more than C{burst}:
    an addition is all that it costs while little comes.
    """

    __slots__ = ("burst", "count", "per_s", "since")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self.per_s = per_s
        self.burst = burst
        self.count = 0.0
        self.since = now

    def over(self, now: float) -> float:
        """Seconds until what came is what may come; 0: it is."""
        left = self.count - max(now - self.since, 0.0) * self.per_s
        self.since = now
        self.count = max(left, 0.0)
        return max(left - self.burst, 0.0) / self.per_s

    def add(self, now: float) -> float:
        """One more; seconds until that may come."""
        self.count += 1
        return self.over(now) if self.count > self.burst else 0.0


class Rates:
    """A L{Rate} for each address."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._rates: OrderedDict[str, Rate] = OrderedDict()

    def of(self, address: str, now: float) -> Rate:
        """That of an address."""
        rate = self._rates.get(address)
        if rate is None:
            rate = self._rates[address] = Rate(self._per_s, self._burst, now)
            if len(self._rates) > ADDRESSES:
                self._rates.popitem(last=False)
        else:
            self._rates.move_to_end(address)
        return rate
