"""The steps of commands as Redis takes them: one call of the server-side script each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet import defer

from gateway.downlink.pending import Pending
from gateway.entries import row
from gateway.errors import NotReady
from gateway.fields import rfc3339
from gateway.sinks.connection import Layout, RedisConnection, source
from gateway.sinks.scripted import Scripted

#: The consumer group in which all instances read commands.
GROUP: Final = "gateway"
#: So many commands are read at once.
READ: Final = 64
#: What an instance does not finish with for so long, another one takes over; ms.
CLAIM_MS: Final = 30_000
#: Commands that somebody has to look at: so many at once, and nobody else does for so long; ms.
DUE: Final = 500
LEASE_MS: Final = 60_000
#: An instance that is not there any more does not get more handed over than this, and not for longer; s.
HANDED: Final = 10_000
HANDED_S: Final = 86_400


class Accepted(NamedTuple):
    """
    What became of a command that was given.

    @ivar kind: the kind of its first event, or C{known} where its reference is another's, C{again} where it was
        accepted before.
    @ivar holder: the instance that holds its device; empty: none.
    @ivar superseded: references of the commands whose place it takes.
    """

    kind: str
    holder: str
    superseded: tuple[str, ...]


class Stepped(NamedTuple):
    """
    What became of a step.

    @ivar status: C{ok}; C{stale}: another one came first; C{held}: the device is another instance's; C{late}: the ttl
        has passed.
    @ivar left_s: seconds until it expires.
    """

    status: str
    left_s: float


class Due(NamedTuple):
    """A command that somebody has to look at, and the instance that holds its device; empty: none."""

    holder: str
    pending: Pending


class CommandStore(Scripted):
    """Commands in Redis."""

    def __init__(
        self,
        connection: Callable[[], RedisConnection | None],
        layout: Layout,
        seconds: Callable[[], float],
        elapsed: Callable[[], float],
        maxlen: Callable[[], int],
    ) -> None:
        """
        @param connection: gives the connection while Redis is there.
        @param seconds: the time of day, UTC epoch seconds.
        @param elapsed: seconds of a clock that nobody sets.
        @param maxlen: gives how many entries the result stream is trimmed to; 0: to none.
        """
        super().__init__("command.lua", connection, layout)
        self._seconds = seconds
        self._elapsed = elapsed
        self._maxlen = maxlen

    async def _run(self, what: str, *args: str | bytes | int) -> Any:
        layout = self._layout
        head = (what, f"{layout.prefix}:", layout.instance, source(layout.instance))
        return await self._call(layout.key("pending"), *head, rfc3339(self._seconds()), str(self._maxlen()), *args)

    # -- what applications give

    async def join(self) -> None:
        """Make the streams and the group in which commands are read."""
        for key in self._streams:
            try:
                await self._command("XGROUP", "CREATE", key, GROUP, "0", "MKSTREAM")
            except NotReady as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        await self._keep()

    async def _keep(self) -> None:
        """What is handed over to this instance is kept for as long as it is there, and a day."""
        await self._command("EXPIRE", self._streams[1], HANDED_S)

    @property
    def _streams(self) -> tuple[str, str]:
        return self._layout.key("command"), self._layout.key("command", self._layout.instance)

    async def read(
        self, mine: bool = False
    ) -> tuple[list[tuple[str, dict[str, str]]], list[tuple[str, dict[str, str]]]]:
        """
        Entries that nobody has read yet: of applications, and those that other instances hand over.

        @param mine: those that this instance has read before and did not finish with, instead.
        """
        after = "0" if mine else ">"
        given, handed = self._streams
        answer = await self._command(
            *(
                "XREADGROUP",
                "GROUP",
                GROUP,
                self._layout.instance,
                "COUNT",
                READ,
                "STREAMS",
                given,
                handed,
                after,
                after,
            )
        )
        found: dict[str, list[tuple[str, dict[str, str]]]] = {given: [], handed: []}
        for key, entries in answer or ():
            found[key.decode()] = [(at.decode(), row(fields or ())) for at, fields in entries]
        return found[given], found[handed]

    async def claim(self) -> list[tuple[str, dict[str, str]]]:
        """Entries of applications that another instance has read, and did not finish with for a while."""
        await self._keep()
        answer = await self._command(
            *("XAUTOCLAIM", self._streams[0], GROUP, self._layout.instance, CLAIM_MS, "0", "COUNT", READ)
        )
        if None in answer[1]:  # Redis 6.2 does not say which of them are deleted: whoever reads its own is told
            return (await self.read(mine=True))[0]
        return [(one[0].decode(), row(one[1] or ())) for one in answer[1]]

    async def finished(self, entries: Sequence[str], handed: bool = False) -> None:
        """These entries are done with."""
        if entries:
            key = self._streams[handed]
            # what is deleted and still to be acknowledged is empty when it is read again; the other way it would stay
            await self._command("XDEL", key, *entries)
            await self._command("XACK", key, GROUP, *entries)

    async def seen(self, ident: str) -> tuple[str, float | None, float]:
        """
        What is known of a device.

        @return: its protocol, when it was last seen (UTC epoch seconds), and seconds between its reports; 0: unknown.
        """
        key, connection = self._layout.key, self._connection()
        if connection is None:
            raise NotReady("Redis is away")
        command = connection.command
        asked = (
            command("HGET", key("last", ident), "protocol"),
            command("ZSCORE", key("seen"), ident),
            command("HGET", key("state", ident), "private"),
        )
        # what is of a wrong type is somebody else's, and says nothing
        answers = await defer.DeferredList(asked, consumeErrors=True)
        protocol, stamp, private = (found if there else None for there, found in answers)
        try:
            interval_s = float(json.loads(private or b"{}").get("interval", 0.0))
        except (ValueError, TypeError, AttributeError):  # somebody else wrote there
            interval_s = 0.0
        return (protocol or b"").decode("latin-1"), float(stamp) / 1000 if stamp else None, interval_s

    async def holder(self, ident: str) -> str:
        """The instance that holds a device; empty: none."""
        return (await self._command("GET", self._layout.key("session", ident)) or b"").decode("utf-8", "replace")

    async def accept(
        self,
        entry: str,
        ref: str,
        ident: str,
        kind: str,
        *,
        ttl_s: float,
        per_hour: int,
        waiting: int,
        opposite: str,
        about: Mapping[str, Any],
        extra: Mapping[str, Any],
        fields: Mapping[str, str],
    ) -> Accepted:
        """
        Take a command in, with its first event.

        @param kind: C{queued}, or what it ends as at once.
        @param per_hour: how many commands a device may be given an hour; 0: any number.
        @param waiting: how many may wait for it.
        @param about: what each of its events says; C{extra}: what the first says besides.
        """
        many = {"final": True, "reason": f"the device was given {per_hour} commands within an hour"}
        full = {"final": True, "reason": f"{waiting} commands wait for the device already"}
        given = {**fields, "about": json.dumps(about, separators=(",", ":"))}
        answer = await self._run(
            *("accept", entry, ref, ident, int(ttl_s * 1000), per_hour, waiting, opposite, _behind(extra), kind),
            *(_behind(many), _behind(full), *(part for pair in given.items() for part in pair)),
        )
        return Accepted(answer[0].decode(), answer[1].decode(), tuple(one.decode() for one in answer[2]))

    async def hand(self, holder: str, ident: str, ref: str) -> None:
        """Tell another instance that there is a command for a device that it holds."""
        key = self._layout.key("command", holder)
        await self._command("XADD", key, "MAXLEN", "~", HANDED, "*", "ident", ident, "ref", ref)
        await self._command("EXPIRE", key, HANDED_S)

    # -- steps

    async def step(
        self,
        pending: Pending,
        kind: str,
        extra: Mapping[str, Any] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        final: bool = False,
        look_s: float | None = None,
        holding: bool = False,
        in_time: bool = False,
    ) -> Stepped:
        """
        Take a step, if nobody else has taken one since the command was read.

        @param kind: of its event; empty: it has none.
        @param look_s: after so long somebody has to look at it, whoever that is.
        @param holding: only if no other instance holds the device.
        @param in_time: only if its ttl has not passed.
        """
        said = {**(extra or {}), "final": True} if final else extra or {}
        kept = {**(fields or {})}
        if kind:
            kept["state"] = kind
        if final and pending.definition.secret:
            kept["args"] = "{}"
        answer = await self._run(
            *("step", pending.ref, pending.step, kind, _behind(said), f"{final:d}"),
            *("" if look_s is None else int(look_s * 1000), f"{holding:d}", f"{in_time:d}"),
            *(part for pair in kept.items() for part in pair),
        )
        status = answer[0].decode()
        if status == "ok":
            pending.step = answer[1]
            if kind:
                pending.state = kind
        return Stepped(status, answer[2] / 1000)

    async def load(self, ident: str) -> list[Pending]:
        """The commands of a device that have no outcome yet, in the order in which they were given."""
        ms, *rows = await self._run("load", ident)
        found = (self.pending(row(flat), ms / 1000) for flat in rows)
        return [pending for pending in found if pending is not None]

    async def due(self) -> list[Due]:
        """
        Commands that somebody has to look at now; nobody else gets them for a while.

        One that makes no sense as it is stored ends here.
        """
        ms, *rows = await self._run("due", DUE, LEASE_MS)
        found = []
        for ref, holder, flat in rows:
            pending = self.pending(row(flat), ms / 1000)
            if pending is not None and pending.ref == ref.decode("utf-8", "replace"):
                found.append(Due(holder.decode("utf-8", "replace"), pending))
            else:
                said = {"final": True, "reason": "what is stored of it makes no sense: somebody else wrote there"}
                await self._run("drop", ref, _behind(said))
        return found

    async def find(self, ref: str) -> dict[str, str]:
        """What is kept of a command, whatever became of it; empty: there is none."""
        return row(await self._command("HGETALL", self._layout.key("request", ref)))

    def pending(self, fields: Mapping[str, str], server_s: float) -> Pending | None:
        """
        A command of what is kept of it; None: somebody else wrote that.

        @param server_s: the server's time, UTC epoch seconds.
        """
        try:
            return Pending(fields, server_s, self._seconds(), self._elapsed())
        except (ValueError, TypeError, RecursionError, OverflowError):
            return None


def _behind(fields: Mapping[str, Any]) -> str:
    """JSON of more fields, to stand behind others."""
    return "," + json.dumps(fields, separators=(",", ":"))[1:-1] if fields else ""
