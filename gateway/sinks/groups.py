"""
Consumer groups that are required: what they have not read is held up to the memory's ceiling, and counted when it goes.

C{groups.lua} does it in the server, in one piece; here is what is made of its
answer: alerts, and whether this gateway is fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import txredisapi
from twisted.logger import Logger

from gateway.sinks.connection import Layout
from gateway.sinks.script import Script

#: Seconds between looks: short against the minutes in which streams fill, long against what a look costs.
LOOK_S: Final = 5.0
LEDGER_TTL_S: Final = 30 * 86_400
#: So near to the ceiling, and to the oldest entry, a group is about to lose entries.
NEAR: Final = 0.01


class Status(NamedTuple):
    """
    What a look found of a group.

    @ivar unread: ms of the first entry that it has not read; None: it has read all.
    @ivar behind: entries that it has still to read or to acknowledge; -1: not known.
    @ivar lost: entries that went unread since the last look.
    @ivar total: the same, ever.
    @ivar near: it has not read what goes next, and the memory is full.
    @ivar at_front: it has not read the oldest entry.
    """

    exists: bool
    unread: int | None = None
    behind: int = 0
    lost: int = 0
    total: int = 0
    near: bool = False
    at_front: bool = False


@dataclass(slots=True)
class Said:
    """What is known and was said of a group, so that it is said once."""

    behind: dict[str, float]
    problem: str = ""
    losing: bool = False
    missing: bool = False
    held: bool = False


class RequiredGroups:
    """
    Looks after the streams that groups are required to read.

    @ivar speaks: whether what is found is logged: others find the same.
    """

    log = Logger()

    def __init__(self, layout: Layout, required: Iterable[str]) -> None:
        """@param required: each C{STREAM:GROUP}, the stream by its short name."""
        self._layout = layout
        self._script = Script.load("groups.lua")
        self._groups: dict[str, list[str]] = {}
        self._said: dict[tuple[str, str], Said] = {}
        self._faults: dict[str, str] = {}
        self._grown: dict[str, tuple[float, int]] = {}
        self._reserve: dict[str, int] = {}
        self.speaks = True
        for name in required:
            stream, _, group = name.partition(":")
            if (stream, group) not in self._said:
                self._groups.setdefault(stream, []).append(group)
                self._said[stream, group] = Said({})

    @property
    def streams(self) -> list[str]:
        """The streams that have some, by their short names."""
        return [*self._groups]

    def required(self, stream: str, group: str) -> bool:
        """Whether this group of this stream is one of them."""
        return (stream, group) in self._said

    @property
    def problems(self) -> list[str]:
        """What is wrong, in a few words each; empty when nothing is."""
        return [*self._faults.values(), *(said.problem for said in self._said.values() if said.problem)]

    @property
    def behind(self) -> dict[str, dict[str, float]]:
        """How far each group is behind: C{entries}, where it is known, and C{seconds}."""
        return {f"{stream}:{group}": said.behind for (stream, group), said in self._said.items() if said.behind}

    async def look(
        self, connection: Any, producer: str, stream: str, now: float, hours: float, entries: int, ceiling: int
    ) -> int:
        """
        Trim a stream, and see how its groups do.

        @param hours: the time limit; 0: none.
        @param entries: how many are enough; 0: no such rule.
        @param ceiling: how many the memory allows.
        @return: how many entries a group had not read were trimmed since the last look.
        """
        oldest = max(int((now - hours * 3600) * 1000), 0) if hours else 0
        command = (
            *("EVAL", self._script.text, "3", self._layout.key(stream), self._layout.key("trimmed")),
            *(self._layout.key("ledger", producer), stream, f"{oldest}-0" if oldest else "", str(entries)),
            *(str(max(ceiling - self._reserve.get(stream, 0), 1)), str(LEDGER_TTL_S), *self._groups[stream]),
        )
        try:
            row = await connection.command(*command)
        except txredisapi.ResponseError as error:  # no stream, or a user who may not do this
            text = f"{stream}: its groups can't be looked after: {str(error)[:200]}"
            if text != self._faults.get(stream):
                self.log.error("{text}", text=text)
            self._faults[stream] = text
            return 0
        self._faults.pop(stream, None)
        return self._read(row, stream, now, oldest, ceiling)

    def _read(self, row: Sequence[Any], stream: str, now: float, oldest: int, ceiling: int) -> int:
        """What the script says."""
        groups = self._groups[stream]
        if not row:  # nothing was ever written to it
            for group in groups:
                self._tell(stream, group, Status(False), now, 0)
            return 0
        length, added, first, last = int(row[0]), int(row[1]), _ms(row[2]), _ms(row[3])
        self._room(stream, now, added, ceiling)
        full = length >= ceiling * (1 - NEAR)
        lost = 0
        for group, (exists, unread_id, *counts) in zip(groups, row[4:], strict=True):
            unread = _ms(unread_id) if unread_id else None
            near = full and unread is not None and unread - first <= (last - first) * NEAR
            behind, gone, total = map(int, counts)
            status = Status(bool(exists), unread, behind, gone, total, near, unread_id == row[2])
            self._tell(stream, group, status, now, oldest)
            lost += gone
        return lost

    def _room(self, stream: str, now: float, added: int, ceiling: int) -> None:
        """
        Leave room below the ceiling for what comes until the look after the next.

        The look's own trimming is counted exactly; what the batches trim can
        only be seen by the next look, when a group may have read on.
        """
        before = self._grown.get(stream)
        self._grown[stream] = (now, added)
        if before is not None and now > before[0] and added >= before[1] >= 0:
            grown = (added - before[1]) / (now - before[0]) * 2 * LOOK_S
            self._reserve[stream] = int(min(grown, ceiling * NEAR))

    def _tell(self, stream: str, group: str, status: Status, now: float, oldest: int) -> None:
        said = self._said[stream, group]
        fields: Mapping[str, Any] = {
            **{"stream": self._layout.key(stream), "group": group, "n": status.lost, "all": status.total},
            "behind": f"{status.behind} entries" if status.behind >= 0 else "an unknown number of entries",
        }
        if not status.exists and not said.missing and self.speaks:
            self.log.warn("{stream}: there is no group {group}, which is required: all is held for it", **fields)
        said.missing = not status.exists
        self._alert(f"{stream}:{group}", said, status, fields)
        seconds = max(now - status.unread / 1000, 0.0) if status.unread is not None else 0.0
        said.behind = {"seconds": round(seconds)}
        if status.behind >= 0:
            said.behind = {"entries": status.behind, **said.behind}
        # a group that does not exist holds all there is; that was said
        held = status.exists and status.unread is not None and status.unread < oldest
        if held and not said.held and self.speaks:
            self.log.info(
                "{stream}: group {group} is {behind} and {hours:.1f} hours behind; what it has not read is kept",
                **fields,
                hours=seconds / 3600,
            )
        said.held = held

    def _alert(self, name: str, said: Said, status: Status, fields: Mapping[str, Any]) -> None:
        """Once when the memory gets full, once when entries are lost, and once when it is over."""
        if status.near or status.lost or (said.problem and status.at_front):
            losing = said.losing or status.lost > 0
            if (not said.problem or losing != said.losing) and self.speaks:
                self.log.error(
                    "{stream}: the memory is full and group {group} does not read on: {n} entries were trimmed before "
                    "it read them, {all} so far",
                    **fields,
                )
            said.losing = losing
            said.problem = f"{name} does not read, the memory is full: {fields['all']} entries trimmed unread so far"
        elif said.problem:
            said.problem, said.losing = "", False
            if self.speaks:
                self.log.info("{stream}: group {group} reads again; {all} entries were trimmed unread so far", **fields)


def _ms(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
