"""
Whose number it is: the registry's C{phone}, the other way round.

The registry is the applications': any of them may write it at any time.  It is
read whole at first and every ten minutes, and entry by entry where somebody
says that one has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.defer import fail

from gateway.errors import NotReady
from gateway.events import IDENT
from gateway.sinks.connection import Layout, RedisConnection
from gateway.sms.numbers import LEAST_DIGITS, e164, readings

#: So many entries are read at once, and so many are known at most.
CHUNK: Final = 500
MOST: Final = 1_000_000
#: How often all of it is read again, s.
AGAIN_S: Final = 600.0


class Phonebook:
    """
    Numbers of devices.

    @ivar read_at: when all of it was read last, seconds of the clock that nobody sets; None: never.
    @ivar whole: whether all of it was read once.
    """

    def __init__(
        self,
        connection: Callable[[], RedisConnection | None],
        layout: Layout,
        region: str,
        elapsed: Callable[[], float],
    ) -> None:
        """@param region: whose numbers those are that are written without their country's."""
        self._connection = connection
        self._layout = layout
        self._region = region
        self._elapsed = elapsed
        self._idents: dict[str, set[str]] = {}
        self._numbers: dict[str, str] = {}
        self._ends: dict[str, set[str]] = {}
        self.read_at: float | None = None
        self.whole = False

    def __len__(self) -> int:
        return len(self._numbers)

    def put(self, ident: str, phone: str) -> None:
        """A device's number; empty, or none that can be: it has none."""
        number = e164(phone, self._region) if phone else None
        before = self._numbers.get(ident)
        if before == number:
            return
        if before is not None:
            del self._numbers[ident]
            for index, key in ((self._idents, before), (self._ends, before[-LEAST_DIGITS:])):
                index[key].discard(ident)
                if not index[key]:
                    del index[key]
        if number is not None and len(self._numbers) < MOST:
            self._numbers[ident] = number
            self._idents.setdefault(number, set()).add(ident)
            self._ends.setdefault(number[-LEAST_DIGITS:], set()).add(ident)

    def number(self, ident: str) -> str | None:
        """The number of a device, E.164."""
        return self._numbers.get(ident)

    def idents(self, sender: str) -> frozenset[str]:
        """The devices that have the number of a sender, as the network writes it."""
        for number in readings(sender, self._region):
            if number in self._idents:
                return frozenset(self._idents[number])
        digits = "".join(filter(str.isdigit, sender))
        if len(digits) < LEAST_DIGITS or len(digits) != sum(map(str.isalnum, sender)):
            return frozenset()
        # written without its country's: the devices whose numbers end with it
        own = digits.lstrip("0")
        ends = self._ends.get(digits[-LEAST_DIGITS:], ())
        return frozenset(ident for ident in ends if self._numbers[ident].endswith(own))

    # -- the registry

    def due(self) -> bool:
        """Whether all of it is to be read again."""
        return self.read_at is None or self._elapsed() - self.read_at >= AGAIN_S

    async def read(self) -> None:
        """Read all of it; what fails is tried again when it is due again."""
        self.read_at = self._elapsed()
        key = self._layout.key("registry", "")
        cursor, seen = b"0", set()
        while True:
            cursor, names = await self._ask("SCAN", cursor, "MATCH", f"{_escaped(key)}*", "COUNT", CHUNK)
            idents = [name.decode("latin-1")[len(key) :] for name in names]
            found = [ident for ident in idents if IDENT.fullmatch(ident) and ident != "changes"]
            await self.look(found)
            seen.update(found)
            if cursor == b"0":
                break
        for ident in self._numbers.keys() - seen:
            self.put(ident, "")
        self.whole = True

    async def look(self, idents: Iterable[str]) -> None:
        """Read the entries of these."""
        asked = [(ident, self._ask("HGET", self._layout.key("registry", ident), "phone")) for ident in idents]
        for ident, answer in asked:
            try:
                phone = await answer
            except Exception:  # not a hash: somebody else's
                phone = None
            self.put(ident, (phone or b"").decode("utf-8", "replace"))

    def _ask(self, *args: str | bytes | int) -> Any:
        connection = self._connection()
        return fail(NotReady("Redis is away")) if connection is None else connection.command(*args)


def _escaped(key: str) -> str:
    """A key as a pattern that means itself."""
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in key)
