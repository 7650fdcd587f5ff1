"""Texts by SMS as Redis keeps them: one call of the server-side script for each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import implementer

from gateway.entries import row
from gateway.fields import rfc3339
from gateway.sinks.connection import Layout, RedisConnection, source
from gateway.sinks.scripted import Scripted
from gateway.sms.interfaces import IPartStore, Receipt, Sent
from gateway.sms.texts import Queued, added

#: Who has taken a text has to have said after so long what became of it; ms.
LEASE_MS: Final = 120_000
#: For so long a receipt is awaited at least, s.
RECEIPT_S: Final = 7 * 86_400
#: For so long a part of a text waits for the others, s.
PART_S: Final = 6 * 3600


class Taken(NamedTuple):
    """
    A text that somebody has to see to.

    @ivar what: C{send}; C{expired}: it was never sent; C{uncertain}: what became of it is not known.
    @ivar left_s: seconds until it expires.
    """

    what: str
    left_s: float
    fields: Mapping[str, str]


class Event(NamedTuple):
    """An event of a text that came in: its stream, and its entry's fields."""

    stream: str
    fields: Mapping[str, str]


@implementer(IPartStore)
class SMSStore(Scripted):
    """Texts in Redis."""

    def __init__(
        self,
        connection: Callable[[], RedisConnection | None],
        layout: Layout,
        seconds: Callable[[], float],
        maxlen: Callable[[str], int],
    ) -> None:
        """
        @param connection: gives the connection while Redis is there.
        @param seconds: the time of day, UTC epoch seconds.
        @param maxlen: gives how many entries a stream is trimmed to; 0: to none.
        """
        super().__init__("sms.lua", connection, layout)
        self._seconds = seconds
        self._maxlen = maxlen

    async def _run(self, what: str, *args: str | bytes | int) -> Any:
        layout = self._layout
        head = (what, f"{layout.prefix}:", source(layout.instance), rfc3339(self._seconds()))
        return await self._call(layout.key("sms"), *head, str(self._maxlen("result")), *args)

    async def add(self, text: Queued, per_device: int, per_hour: int) -> str:
        """
        Have a text sent.

        @param per_device: how many its device may be sent an hour; C{per_hour}: all of them.
        @return: C{ok}; C{known}: it was added before; C{device}, C{all}: there are too many.
        """
        answer = await self._run("add", *added(text, per_device, per_hour))
        return str(answer.decode())

    async def take(self, count: int, sending: bool) -> list[Taken]:
        """
        The texts that somebody has to see to now; nobody else gets them.

        @param sending: whether any can be sent; else it is those alone whose time is over.
        """
        found = await self._run("take", count, LEASE_MS, f"{sending:d}")
        return [Taken(what.decode(), left / 1000, row(flat)) for what, left, flat in found]

    async def sent(self, id: str, attempt: str, sent: Sent, retry_s: float) -> str:
        """
        Say what became of a text that was taken.

        @param attempt: which of its attempts it is of.
        @param retry_s: after a temporary outcome, seconds until it is taken again.
        @return: its state from now on; empty: somebody else has said something before.
        """
        status, state = await self._run(
            "sent", id, attempt, sent.outcome, sent.reason[:300], int(retry_s * 1000), RECEIPT_S, *sent.ids
        )
        return state.decode() if status == b"ok" else ""

    async def receipt(self, receipt: Receipt) -> tuple[str, dict[str, str]]:
        """
        Take a receipt.

        @return: what became of it: C{delivered}, C{failed}, C{part}, C{early}, C{ignored}; and its text's fields.
        """
        became, flat = await self._run("receipt", receipt.id, receipt.state, receipt.reason[:100])
        return became.decode(), row(flat)

    async def receive(self, name: str, window_s: int, events: Sequence[Event]) -> bool:
        """
        Publish what came in, unless it was before.

        @param name: under which it is known again, for C{window_s} seconds; empty: under none.
        """
        args: list[str | int] = []
        for stream, fields in events:
            args += (stream, self._maxlen(stream), 2 * len(fields), *(part for pair in fields.items() for part in pair))
        return bool(await self._run("receive", name, window_s, *args) == b"ok")

    def part(self, key: str, number: int, total: int, text: str) -> Deferred[list[str] | None]:
        """See L{gateway.sms.interfaces.IPartStore}."""
        return Deferred.fromCoroutine(self._part(key, number, total, text))

    async def _part(self, key: str, number: int, total: int, text: str) -> list[str] | None:
        found = await self._run("part", _digest(key), number, total, text.replace("\0", ""), PART_S)
        return [one.decode() for one in found] if found else None

    def forget(self, key: str) -> Deferred[None]:
        """See L{gateway.sms.interfaces.IPartStore}."""
        return Deferred.fromCoroutine(self._forget(key))

    async def _forget(self, key: str) -> None:
        await self._command("DEL", self._layout.key("sms", "part", _digest(key)))

    async def about(self, ident: str) -> tuple[dict[str, str], str]:
        """The registry's entry of a device, and its protocol as it last reported; empty: not known."""
        registry = row(await self._command("HGETALL", self._layout.key("registry", ident)))
        protocol = await self._command("HGET", self._layout.key("last", ident), "protocol")
        return registry, (protocol or b"").decode("latin-1")


def _digest(key: str) -> str:
    """A part of a key for what somebody else may have written."""
    return blake2b(key.encode(), digest_size=16).hexdigest()
