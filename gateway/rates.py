"""How much comes from somewhere, against how much may."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
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


class Sender:
    """
    What came from one connection, or from one address and port.

    @ivar mine: its reports.
    @ivar address: those of its address, which it shares.
    """

    __slots__ = ("address", "mine")

    def __init__(self, mine: Rate, address: Rate) -> None:
        self.mine = mine
        self.address = address


class Allowance:
    """
    How many reports may come of a device and of an address, and how many strangers: see C{[limits]}.

    A sender may carry many devices, whose reports are counted by themselves once there are many.

    @ivar strangers: what was nobody's, by address.
    """

    def __init__(self, per_device: float, per_address: float, strangers_a_minute: float) -> None:
        """@param per_device: reports a second, and at once, as C{per_address}."""
        self._per_device = per_device
        self._idents = Rates(per_device, per_device)
        self._addresses = Rates(per_address, per_address)
        self.strangers = Rates(strangers_a_minute / 60.0, strangers_a_minute)

    def sender(self, address: str, now: float) -> Sender:
        """Somebody new."""
        return Sender(Rate(self._per_device, self._per_device, now), self._addresses.of(address, now))

    def wait(self, sender: Sender, idents: Iterable[str], now: float) -> tuple[str, float]:
        """
        More was counted than may come at once: which limit has to be waited for, and for how long, s; 0: none.

        @param idents: of the newest reports, which are counted.
        """
        waits = {"reports_per_address": sender.address.over(now)}
        if sender.mine.over(now) > 0.0:
            waits["reports_per_device"] = max(self._idents.of(ident, now).add(now) for ident in idents)
        limit = max(waits, key=waits.__getitem__)
        return limit, waits[limit]

    def undo(self, sender: Sender, ident: str, now: float) -> None:
        """The newest report, which L{wait} was asked of, is not taken: it does not count."""
        if sender.mine.count > sender.mine.burst:  # then its ident was counted
            self._idents.of(ident, now).count -= 1
        sender.mine.count -= 1
        sender.address.count -= 1
