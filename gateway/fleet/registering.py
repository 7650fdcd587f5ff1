"""The registry: what applications and operators write of devices, and how a device is found by its other names."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TextIO

from gateway.entries import row
from gateway.events import IDENT
from gateway.places import keys
from gateway.sinks.blocking import BlockingRedis
from gateway.sms.interfaces import HIDDEN
from gateway.terminal import printable

#: Fields by which a device may be named instead of its ident.
NAMES: Final = ("alias", "phone", "imei", "device_id")
#: Notes of changes that are kept.
NOTES: Final = 200_000
#: The most devices of one file, the most bytes of a value, and the most fields of a device.
MOST: Final = 500_000
VALUE_BYTES: Final = 512
FIELDS: Final = 64
#: So many are read or written at once.
CHUNK: Final = 500

_FLAG: Final = re.compile("0|1|true|false|yes|no")
_FIELD: Final = re.compile("[a-z][a-z0-9_]{0,63}")
#: What the values of fields have to look like, of those that the gateway reads itself.
_FORMS: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    "enabled": (_FLAG, "0 or 1"),
    "imei": (re.compile("[0-9]{14,16}"), "14 to 16 digits"),
    "phone": (re.compile(r"\+?[0-9]{5,15}"), "5 to 15 digits, with + before them or not"),
    "acc_wired": (re.compile("[01]"), "0 or 1"),
    "time_offset_s": (re.compile("-?[0-9]{1,6}"), "whole seconds"),
    "sms_password": (re.compile("[0-9A-Za-z]{4,8}"), "4 to 8 letters and digits"),
    "speed_limit_kmh": (re.compile(r"[0-9]{1,3}(\.[0-9]+)?"), "km/h"),
}


#: Fields whose values are shown to nobody.
SECRET: Final = frozenset({"sms_password"})


class RegistryError(Exception):
    """What can't be written, in words."""


class Ambiguous(RegistryError):
    """A name that nobody has, or several."""


def check(ident: str, values: Mapping[str, str | None]) -> None:
    """
    Look whether an entry can be written.

    @raise RegistryError: naming the ident and the field.
    """
    if not IDENT.fullmatch(ident) or ident == "changes":
        raise RegistryError(f"{ident[:64]!r} is no ident: 3 to 32 letters, digits, _, - or .")
    if len(values) > FIELDS:
        raise RegistryError(f"{ident}: more than {FIELDS} fields")
    for name, value in values.items():
        if not _FIELD.fullmatch(name):
            raise RegistryError(f"{ident}: {name[:64]!r} is no name of a field: small letters, digits and _")
        if value is None:
            continue
        if len(value.encode()) > VALUE_BYTES or not value.isprintable():
            raise RegistryError(f"{ident}: {name} is longer than {VALUE_BYTES} bytes, or can't be printed")
        form = _FORMS.get(name)
        if form is not None and value and not form[0].fullmatch(value):
            raise RegistryError(f"{ident}: {name} is {HIDDEN if name in SECRET else repr(value)}, not {form[1]}")


def write(client: BlockingRedis, prefix: str, entries: Iterable[tuple[str, Mapping[str, str | None]]]) -> int:
    """
    Write entries, and say so to the gateways; None takes a field out.  How many there were.

    A secret as it is shown is left as it is.

    @raise RegistryError: before anything is written, when one of them can't be.
    """
    checked = [
        (ident, {n: v for n, v in values.items() if n not in SECRET or v != HIDDEN}) for ident, values in entries
    ]
    for ident, values in checked:
        check(ident, values)
    for at in range(0, len(checked), CHUNK):
        commands: list[Sequence[str]] = [("MULTI",)]
        for ident, values in checked[at : at + CHUNK]:
            key = f"{prefix}:registry:{ident}"
            kept = [part for name, value in values.items() if value is not None for part in (name, value)]
            gone = [name for name, value in values.items() if value is None]
            if kept:
                commands.append(("HSET", key, *kept))
            if gone:
                commands.append(("HDEL", key, *gone))
            commands.append(_note(prefix, ident))
        commands.append(("EXEC",))
        *_, done = client.pipeline(commands)
        if isinstance(done, Exception):
            raise done
        for answer in done:
            if isinstance(answer, Exception):
                raise answer
    return len(checked)


def adopt(client: BlockingRedis, prefix: str, ident: str, values: Mapping[str, str | None] = {}) -> None:
    """
    Let a device in: it is registered and enabled from now on.

    @raise RegistryError: when it can't be.
    """
    write(client, prefix, [(ident, {**values, "enabled": "1"})])


def remove(client: BlockingRedis, prefix: str, ident: str) -> bool:
    """Take a device out of the registry; whether it was in it."""
    there, _ = client.pipeline([("DEL", f"{prefix}:registry:{ident}"), _note(prefix, ident)])
    return bool(there == 1)


def _note(prefix: str, ident: str) -> Sequence[str]:
    """Tells the gateways that an entry has changed."""
    return ("XADD", f"{prefix}:registry:changes", "MAXLEN", "~", str(NOTES), "*", "ident", ident)


def entry(client: BlockingRedis, prefix: str, ident: str) -> dict[str, str]:
    """What is written of a device, to be shown; empty: nothing."""
    return shown(row(client.command("HGETALL", f"{prefix}:registry:{ident}")))


def shown(values: Mapping[str, str]) -> dict[str, str]:
    """What is written of a device, L{HIDDEN} for what is secret."""
    return {name: HIDDEN if value and name in SECRET else value for name, value in values.items()}


def everything(client: BlockingRedis, prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    """All entries, by ident."""
    found = [(ident, key) for ident, key in keys(client, f"{prefix}:registry:") if ident != "changes"]
    for at in range(0, len(found), CHUNK):
        chunk = found[at : at + CHUNK]
        answers = client.pipeline([("HGETALL", key) for _, key in chunk])
        for (ident, _), flat in zip(chunk, answers, strict=True):
            if isinstance(flat, list):
                yield ident, {name: value for name, value in row(flat).items() if name not in SECRET}


class Named(NamedTuple):
    """A device that has a name, and which of its fields holds it."""

    ident: str
    field: str


def named(client: BlockingRedis, prefix: str, name: str) -> list[Named]:
    """The registered devices that have this alias, phone number, IMEI or device id."""
    digits = name.lstrip("+")
    found = []
    for ident, values in everything(client, prefix):
        for field in NAMES:
            value = values.get(field, "")
            if value and (value == name or (field == "phone" and value.lstrip("+") == digits)):
                found.append(Named(ident, field))
                break
    return found


def resolve(client: BlockingRedis, prefix: str, name: str) -> str:
    """
    The ident of a device that is given by its ident, alias, phone number, IMEI or device id.

    What looks like an ident and is nobody's name is one, also when it is not known.

    @raise Ambiguous: when several have the name, or nobody.
    """
    if IDENT.fullmatch(name):
        known = client.pipeline([("EXISTS", f"{prefix}:{kind}:{name}") for kind in ("registry", "last")])
        if 1 in known:
            return name
    found = named(client, prefix, name)
    if len(found) > 1:
        who = ", ".join(f"{one.ident} ({one.field})" for one in found[:8])
        raise Ambiguous(f"{name!r} is the name of several: {who}")
    if found:
        return found[0].ident
    if IDENT.fullmatch(name):
        return name
    raise Ambiguous(f"{name!r} is no ident, and no alias, phone, imei or device_id in the registry")


class Row(NamedTuple):
    """A device of a file, and the line on which it stands."""

    line: int
    ident: str
    values: Mapping[str, str | None]


def read_csv(file: TextIO, where: str) -> list[Row]:
    """
    Read devices from a file with a head: C{ident}, and the names of fields; an empty cell says nothing.

    @raise RegistryError: naming file, line and what is wrong with each line that can't be read.
    """
    reader = csv.reader(file, strict=True)
    rows: list[Row] = []
    wrong: list[str] = []
    seen: dict[str, int] = {}
    try:
        head = [name.strip() for name in next(reader, [])]
        if "ident" not in head or len(set(head)) != len(head):
            raise RegistryError(f"{where}, line 1: the head has to name each column once, ident among them: {head}")
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(head):
                wrong.append(f"line {line}: {len(cells)} cells, and the head has {len(head)}")
                continue
            values = {name: cell.strip() for name, cell in zip(head, cells, strict=True) if cell.strip()}
            ident = values.pop("ident", "")
            try:
                check(ident, values)
            except RegistryError as error:
                wrong.append(f"line {line}: {error}")
                continue
            if ident in seen:
                wrong.append(f"line {line}: {ident} stands on line {seen[ident]} already")
                continue
            seen[ident] = line
            rows.append(Row(line, ident, values))
            if len(rows) > MOST:
                raise RegistryError(f"{where}: more than {MOST:,} devices")
    except (csv.Error, UnicodeDecodeError) as error:
        raise RegistryError(f"{where}, line {reader.line_num}: is not CSV: {error}") from error
    if wrong:
        more = f"; and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise RegistryError(f"{where}: nothing was written: {'; '.join(wrong[:20])}{more}")
    return rows


def write_csv(file: TextIO, entries: Iterable[tuple[str, Mapping[str, str]]]) -> int:
    """Write devices as L{read_csv} reads them; how many there were."""
    rows = list(entries)
    fields = list(dict.fromkeys(name for _, values in rows for name in values))
    known = [name for name in ("device_id", "alias", "imei", "phone", "model", "tags", "enabled") if name in fields]
    head = [*known, *sorted(set(fields) - set(known))]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["ident", *head])
    for ident, values in rows:
        # what could not be written by us is shown as what it is, and refused when it is read again
        writer.writerow([ident, *(printable(values.get(name, "")) for name in head)])
    return len(rows)
