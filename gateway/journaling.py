"""The commands C{gateway journal list} and C{check}: what waits on the disk for Redis, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from gateway.batches import Group
from gateway.errors import GatewayError, JournalDamaged, JournalFull, JournalNewer
from gateway.fields import rfc3339
from gateway.places import configured
from gateway.records import described
from gateway.replaying import replay
from gateway.sinks.journalreader import JournalReader
from gateway.sinks.journalrows import DAMAGED, PATTERN, Content, Quarantined, Row, Sent
from gateway.terminal import Fails, printable, shortened

#: Idents of a batch that are shown, in the table and as JSON; and how long a reason may be there.
IDENTS_SHOWN: Final = 5
IDENTS_KEPT: Final = 20
REASON_SHOWN: Final = 200
#: Journals that could not be read, beside those that are there to be read.


class Line(NamedTuple):
    """
    A batch as it is shown.

    @ivar idents: some of them.
    @ivar ident_count: how many there are.
    @ivar error: why it can't be read.
    """

    number: int
    time: float | None = None
    instance: str = ""
    frames: int = 0
    events: int = 0
    idents: tuple[str, ...] = ()
    ident_count: int = 0
    error: str = ""

    @classmethod
    def of(cls, number: int, row: Row | None) -> Line:
        """A row as it was read."""
        if row is None:
            return cls(number, error="the checksum does not hold")
        try:
            groups = [Group.parse(group) for group in row.groups]
            events = sum(int(group.events) for group in groups)
        except (TypeError, ValueError):
            return cls(number, row.time, row.instance, row.frames, error="is not what this version writes")
        idents = dict.fromkeys(group.ident.decode("latin-1") for group in groups if group.ident)
        return cls(number, row.time, row.instance, row.frames, events, tuple(idents)[:IDENTS_KEPT], len(idents))

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        fields = self._asdict() | {"time": _moment(self.time)}
        return fields if self.error else {name: value for name, value in fields.items() if name != "error"}

    def __str__(self) -> str:
        if self.error:
            return f"{self.number:>9}  {self.error}"
        more = f" and {self.ident_count - IDENTS_SHOWN} more" if self.ident_count > IDENTS_SHOWN else ""
        idents = " ".join(self.idents[:IDENTS_SHOWN]) or "-"
        return (
            f"{self.number:>9}  {_moment(self.time) or '-':<24}  {self.frames:>6,}  {self.events:>6,}  {idents}{more}"
        )


class Refusal(NamedTuple):
    """Something in quarantine, as it is shown: C{events} are type and id of each."""

    number: int
    time: float
    ident: str
    events: tuple[tuple[str, str], ...]
    reason: str

    @classmethod
    def of(cls, item: Quarantined) -> Refusal:
        """As it was kept."""
        ident, events = "", tuple[tuple[str, str], ...]()
        try:
            group = Group.parse(item.group)
            ident = group.ident.decode("latin-1")
            events = tuple((kind, id) for kind, _, id in map(described, group.each()))
        except (TypeError, ValueError, IndexError):  # it is shown whatever it is
            pass
        return cls(item.number, item.time, ident, events, item.reason)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return self._asdict() | {
            "time": _moment(self.time),
            "events": [{"type": kind, "id": id} for kind, id in self.events],
        }

    def __str__(self) -> str:
        events = ", ".join(f"{kind} {id}" for kind, id in self.events) or "not readable"
        return f"{self.number:>9}  {_moment(self.time)}  {self.ident or '-'}  {events}: {self.reason}"


class Look(NamedTuple):
    """
    What a journal holds.

    @ivar events: of all its batches.
    @ivar lines: the first of them.
    @ivar quarantine: what is in quarantine, if it was asked for.
    @ivar unreadable: how many batches can't be read.
    """

    path: Path
    content: Content
    events: int
    sent: Sent | None
    lines: list[Line]
    quarantine: list[Refusal]
    unreadable: int

    @classmethod
    def at(cls, path: Path, limit: int, quarantine: bool) -> Look:
        """
        Look at a journal.

        @param limit: of the batches that are shown.
        @raise JournalFull: when it can't be read; L{JournalDamaged} when it is none.
        """
        for last in (False, True):
            file = JournalReader(path)
            try:
                return cls._at(file, limit, quarantine)
            except JournalDamaged:
                # a gateway began to write to it while it was read as if nobody did
                if last or not file.settled:
                    raise
            finally:
                file.close()
        raise AssertionError("not reached")

    @classmethod
    def _at(cls, file: JournalReader, limit: int, quarantine: bool) -> Look:
        content, sent = file.counts(), file.sent()
        events, unreadable, lines = 0, 0, list[Line]()
        for number, row in file.numbered():
            line = Line.of(number, row)
            events += line.events
            unreadable += bool(line.error)
            if len(lines) < limit:
                lines.append(line)
        refusals = [Refusal.of(item) for item in file.quarantined()] if quarantine else []
        return cls(file.path, content, events, sent, lines, refusals, unreadable)

    def as_json(self, quarantine: bool) -> dict[str, Any]:
        """For machines."""
        content = self.content
        found = {
            "path": str(self.path),
            "batches": content.rows,
            "frames": content.frames,
            "events": self.events,
            "quarantined": content.quarantined,
            "bytes": content.bytes,
            "oldest": _moment(content.oldest),
            "under_way": self.sent._asdict() if self.sent is not None else None,
            "rows": [line.as_json() for line in self.lines],
        }
        return found | ({"quarantine": [item.as_json() for item in self.quarantine]} if quarantine else {})

    def text(self) -> Iterator[str]:
        """For people, line by line."""
        content, sent = self.content, self.sent
        yield f"journal {self.path}"
        yield f"  batches      {content.rows:,}"
        yield f"  frames       {content.frames:,}"
        yield f"  events       {self.events:,}"
        yield f"  quarantined  {content.quarantined:,}"
        yield f"  bytes        {content.bytes:,}"
        yield f"  oldest       {_moment(content.oldest) or '-'}"
        if sent is not None:
            yield (
                f"  under way    batches {sent.first} to {sent.last}, as number {sent.number} of producer "
                f"{sent.producer}: its number tells whether Redis has them"
            )
        if self.lines:
            yield f"{'batch':>9}  {'gathered':<24}  frames  events  idents"
            yield from map(str, self.lines)
            if content.rows > len(self.lines):
                yield f"{content.rows - len(self.lines):>9,}  more (--limit)"
        if self.quarantine:
            yield "in quarantine, as Redis refuses it:"
            yield from map(str, self.quarantine)


def _moment(time: float | None) -> str | None:
    try:
        return None if time is None else rfc3339(time)
    except (ValueError, OverflowError, OSError):  # whatever the file says
        return str(time)


@click.group()
def journal() -> None:
    """Look after what waits on the disk for Redis."""


journal.add_command(replay)


#: Options of all of them.
_of = click.option("--data-dir", metavar="DIR", help="Data directory of the gateway.")
_by = click.option("--config", "path", metavar="FILE", help="Configuration of the gateway.")


@journal.command("list")
@_of
@_by
@click.option(
    "--limit", type=click.IntRange(0), default=20, show_default=True, metavar="N", help="Batches that are shown."
)
@click.option("--quarantine", is_flag=True, help="Show what Redis refuses for good, too, and why.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def listing(data_dir: str | None, path: str | None, limit: int, quarantine: bool, as_json: bool) -> None:
    """
    Show what waits there: totals, then a line a batch, oldest first.

    Nothing is changed; a gateway may be using it.  Exit status 1: something can't be read.
    """
    where = _directory(path, data_dir)
    journals, damaged = _journals(where)
    looks, troubles = [], []
    for file in journals:
        try:
            looks.append(Look.at(file, limit, quarantine))
        except (JournalFull, JournalDamaged, JournalNewer) as error:
            troubles.append(str(error))
    troubles += [f"{look.path}: {look.unreadable:,} batches" for look in looks if look.unreadable]
    if as_json:
        found = {
            "data_dir": str(where),
            "journals": [look.as_json(quarantine) for look in looks],
            "damaged": [str(file) for file in damaged],
            "errors": troubles,
        }
        click.echo(json.dumps(found))
    else:
        for look in looks:
            for line in look.text():
                click.echo(printable(line))
        if not journals:
            click.echo(printable(f"there is no journal in {where}"))
        _mention(damaged)
        for trouble in troubles:
            click.echo(printable(f"can't be read: {trouble}"), err=True)
    if troubles:
        raise SystemExit(1)


@journal.command()
@_of
@_by
def check(data_dir: str | None, path: str | None) -> None:
    """
    Look whether it is whole: the file itself, and the checksum of each batch.

    Nothing is changed; a gateway may be using it.  Exit status 1: something is wrong.
    """
    where = _directory(path, data_dir)
    journals, damaged = _journals(where)
    wrong = []
    for file in journals:
        try:
            found, batches = _checked(file)
        except (JournalFull, JournalDamaged, JournalNewer) as error:
            found, batches = [str(error)], 0
        for what in found:
            click.echo(printable(what if what.startswith(str(file)) else f"{file}: {shortened(what, REASON_SHOWN)}"))
        if not found:
            click.echo(printable(f"{file}: {batches:,} batches, all whole"))
        wrong += found
    if not journals:
        raise Fails(f"there is no journal in {where}: no gateway has run there")
    _mention(damaged)
    if wrong:
        raise SystemExit(1)


def _checked(path: Path) -> tuple[list[str], int]:
    """What is wrong with a journal, and how many batches it has."""
    for last in (False, True):
        file = JournalReader(path)
        try:
            found = file.check()
            if last or not (found and file.settled):
                return found, 0 if found else file.counts().rows
        finally:
            file.close()
    raise AssertionError("not reached")


def _directory(path: str | None, data_dir: str | None) -> Path:
    try:
        where = configured(path, data_dir).data_dir
    except GatewayError as error:
        raise Fails(str(error)) from error
    if not where.is_dir():
        raise Fails(f"data directory {str(where)!r}: there is no such directory")
    return where


def _journals(where: Path) -> tuple[list[Path], list[Path]]:
    """The journals in a data directory, and those that were set aside."""
    return sorted(where.glob(PATTERN)), sorted(where.glob(DAMAGED))


def _mention(damaged: list[Path]) -> None:
    for file in damaged:
        click.echo(printable(f"{file}: was damaged and is set aside; what could be read of it went into the journal"))
