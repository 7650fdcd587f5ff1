"""The commands C{gateway devices}, C{show}, C{unknown} and C{registry}: what an operator asks of a fleet."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TextIO

import click

from gateway import registry as devices_installed
from gateway.errors import GatewayError
from gateway.fields import rfc3339
from gateway.fleet import listing, registering, showing, strangers
from gateway.fleet.listing import STATES, Device
from gateway.fleet.registering import RegistryError
from gateway.places import Opened, located, opened
from gateway.terminal import Duration, Fails, age, columns, printable, shortened
from gateway.tracing import server_time

#: How long a text is in a table.
CELL: Final = 24


@contextmanager
def _fleet(url: str | None, data_dir: str | None, path: str | None) -> Iterator[tuple[Opened, str, float]]:
    """The gateway that is asked, its prefix, and its Redis' time."""
    with opened(url, data_dir, path) as found:
        try:
            yield found, found.config.redis.prefix, server_time(found.client)
        except RegistryError as error:
            raise Fails(printable(str(error))) from error


@click.command()
@located
@click.option("--silent", type=Duration(), metavar="TIME", help="Not heard for so long, or never: 90s, 10m, 2h, 1d.")
@click.option("--tag", "tags", multiple=True, metavar="T", help="With this tag in the registry; may be given again.")
@click.option("--late", is_flag=True, help="Whose last report was late.")
@click.option("--no-fix", is_flag=True, help="Whose last report had no fix.")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="May be given again.")
@click.option("--csv", "as_csv", is_flag=True, help="All columns, for a spreadsheet.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a device.")
def devices(
    url: str | None,
    data_dir: str | None,
    path: str | None,
    silent: float | None,
    tags: Sequence[str],
    late: bool,
    no_fix: bool,
    states: Sequence[str],
    as_csv: bool,
    as_json: bool,
) -> None:
    """List devices with their last state; by default all that were heard or are in the registry."""
    with _fleet(url, data_dir, path) as (found, prefix, now):
        there = listing.devices(found.client, prefix, now)

    def wanted(device: Device) -> bool:
        quiet = silent is None or device.seen is None or now * 1000 - device.seen >= silent * 1000
        tagged = not tags or set(tags) <= {tag.strip() for tag in (device.tags or "").split(",")}
        return (
            quiet
            and tagged
            and not (late and not device.late)
            and not (no_fix and (device.seen is None or device.time is None or device.time == device.fix_time))
            and (not states or device.state in states)
        )

    chosen = [device for device in there if wanted(device)]
    if as_json:
        for device in chosen:
            click.echo(json.dumps(device._asdict()))
    elif as_csv:
        click.echo(_spreadsheet(chosen), nl=False)
    else:
        if chosen:
            click.echo(columns([list(_HEAD), *(_cells(device, now) for device in chosen)]))
        of = f" of {len(there):,}" if len(chosen) < len(there) else ""
        click.echo(f"{len(chosen):,}{of} device{'s' * (len(there) != 1)}", err=True)


_HEAD: Final = ("ident", "name", "state", "heard", "fix", "place", "km/h", "ign", "relay", "batt", "by", "alarms")


def _cells(device: Device, now: float) -> list[str]:
    def since(at: int | None) -> str:
        return "-" if at is None else age(now - at / 1000)

    def word(flag: bool | None, yes: str, no: str) -> str:
        return "-" if flag is None else yes if flag else no

    place = f"{device.latitude:.5f},{device.longitude:.5f}" if device.latitude is not None else "-"
    name = device.alias or device.device_id or "-"
    battery = f"{device.battery_pct:.0f}%" if device.battery_pct is not None else "-"
    cells = [
        device.ident,
        shortened(name, CELL),
        device.state,
        since(device.seen),
        since(device.fix_time),
        place,
        "-" if device.speed_kmh is None else f"{device.speed_kmh:.0f}",
        word(device.ignition, "on", "off"),
        word(device.immobilizer, "CUT", "ok"),
        "mains" if device.external_power and battery == "-" else battery,
        device.transport or "-",
        ",".join(device.levels) or "-",
    ]
    return [printable(cell) for cell in cells]


def _spreadsheet(chosen: Sequence[Device]) -> str:
    """As CSV: times as RFC 3339, and no cell that a spreadsheet would take for a formula."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Device._fields)
    for device in chosen:
        row: list[Any] = []
        for name, value in device._asdict().items():
            if name in ("seen", "time", "fix_time"):
                row.append("" if value is None else rfc3339(value / 1000))
            elif name == "levels":
                row.append(",".join(value))
            elif isinstance(value, str):
                row.append(printable(f"'{value}" if value[:1] in ("=", "+", "-", "@") else value))
            else:
                row.append("" if value is None else int(value) if isinstance(value, bool) else value)
        writer.writerow(row)
    return file.getvalue()


@click.command()
@located
@click.argument("ident")
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON.")
def show(url: str | None, data_dir: str | None, path: str | None, ident: str, as_json: bool) -> None:
    """
    Say why a device is, or is not, on the map: what is known of it, and what follows.

    IDENT may be an alias, phone number, IMEI or device id of the registry, too.
    """
    with _fleet(url, data_dir, path) as (found, prefix, now):
        config = found.config
        try:
            plugins = devices_installed.load(config.disable, config.device_options, config.where)
        except GatewayError as error:
            raise Fails(printable(str(error))) from error
        name = registering.resolve(found.client, prefix, ident)
        shown = showing.show(found.client, prefix, name, now, plugins)
    if as_json:
        click.echo(json.dumps(shown.as_json()))
        return
    for line in _lines(shown):
        click.echo(line)


def _lines(shown: showing.Shown) -> Iterator[str]:
    now = shown.now
    yield printable(f"{shown.ident}: {shown.verdict}")
    if shown.registry:
        yield printable("registry  " + "  ".join(f"{name}={value}" for name, value in sorted(shown.registry.items())))
    else:
        yield "registry  nothing"
    if shown.last:
        yield printable("last      " + "  ".join(f"{name}={value}" for name, value in shown.last.items() if value))
    if shown.holder:
        yield printable(f"held by   {shown.holder}")
    if shown.traced_until is not None:
        yield f"traced    until {rfc3339(shown.traced_until)}"
    for ref in shown.commands:
        yield printable(f"command   {ref}: gateway history {ref}")
    for one in shown.near:
        yield printable(f"near      {one}")
    for refusal in shown.refusals[:8]:
        at = refusal["at"]
        when = age(now - at / 1000) if at is not None else "?"
        why = refusal["limit"] or refusal["reason"]
        yield printable(f"refused   {when} ago, {refusal['type']} by its {refusal['by']}, {refusal['peer']}: {why}")
    if shown.frame:
        at_text = "" if shown.frame_at is None else f" of {rfc3339(shown.frame_at)}"
        yield f"frame{at_text}, {len(shown.frame)} bytes: {printable(shown.frame[:200].decode('latin-1'))}"
        for fact in shown.facts:
            yield printable(f"  {fact.where:<8} {shortened(fact.raw, CELL):<{CELL}} {fact.name}: {fact.meaning}")


@click.command()
@located
@click.option("--idents", "only_idents", is_flag=True, help="Only the devices that are not let in.")
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON.")
def unknown(url: str | None, data_dir: str | None, path: str | None, only_idents: bool, as_json: bool) -> None:
    """Show what came and was not taken: traffic by what it looks like, and devices that are not let in."""
    with _fleet(url, data_dir, path) as (found, prefix, now):
        entries = list(strangers.dead(found.client, prefix))
        groups = [] if only_idents else strangers.unrecognised(entries)
        idents = strangers.unknown(found.client, prefix, entries)
    if as_json:
        click.echo(json.dumps({"unrecognised": groups, "unknown": idents}))
        return
    for group in groups:
        for line in _group(group, now):
            click.echo(printable(line))
    for row in idents:
        near = f"; near {', '.join(row['near'][:3])}" if row["near"] else ""
        cure = "" if row["disabled"] else f"; gateway registry adopt {row['ident']}"
        heard = age(now - row["last"] / 1000) if row["last"] is not None else "?"
        frames = f"{row['count']:,} frame{'s' * (row['count'] != 1)}"
        click.echo(
            printable(
                f"{row['ident']}: not let in, {row['reason']}; {frames}, the last {heard} ago from "
                f"{row['peer']}{near}{cure}"
            )
        )
        click.echo(f"  {row['text']}")
    if not groups and not idents:
        click.echo("nothing: all that came was somebody's, and let in")


def _group(group: dict[str, Any], now: float) -> Iterator[str]:
    addresses = ", ".join(f"{one['address']} ({one['count']})" for one in group["addresses"][:4])
    more = len(group["addresses"][4:]) + group["more_addresses"]
    heard = age(now - group["last"] / 1000) if group["last"] is not None else "?"
    kind = "nobody's" if group["type"] == "frame.unrecognised" else f"{group['protocol']}, can't be read"
    yield f"{group['count']:,} x {group['signature']} over {group['transport']}, {kind}, the last {heard} ago"
    yield f"  from {addresses}" + (f" and {more} more" if more else "")
    yield f"  {group['text'] or group['frame'][:64]}"
    for one in group["reasons"][:2]:
        yield f"  {one['reason']}"


@click.group()
def registry() -> None:
    """The registry: which devices there are, by which names, with which settings.  It is effective at once."""


@registry.command("import")
@located
@click.argument("file", type=click.File("r", encoding="utf-8"))
def import_(url: str | None, data_dir: str | None, path: str | None, file: TextIO) -> None:
    """
    Write the devices of a CSV file: a head with ident and the names of fields, a device a line.

    An empty cell leaves the field as it is.  Nothing is written when a line can't be.
    """
    with _fleet(url, data_dir, path) as (found, prefix, _):
        rows = registering.read_csv(file, getattr(file, "name", "standard input"))
        n = registering.write(found.client, prefix, [(row.ident, row.values) for row in rows])
    click.echo(f"{n:,} device{'s' * (n != 1)} written")


@registry.command()
@located
def export(url: str | None, data_dir: str | None, path: str | None) -> None:
    """Print all devices as the CSV that import reads."""
    with _fleet(url, data_dir, path) as (found, prefix, _):
        registering.write_csv(sys.stdout, registering.everything(found.client, prefix))


@registry.command("set")
@located
@click.argument("ident")
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE...")
def set_(url: str | None, data_dir: str | None, path: str | None, ident: str, pairs: Sequence[str]) -> None:
    """Write fields of a device, KEY= takes one out.  IDENT may be an alias, phone number or IMEI, too."""
    with _fleet(url, data_dir, path) as (found, prefix, _):
        values = _values(pairs)
        name = registering.resolve(found.client, prefix, ident)
        registering.write(found.client, prefix, [(name, values)])
    shown_values = registering.shown({key: value or "" for key, value in values.items()})
    said = " ".join(f"{key}={value}" for key, value in shown_values.items())
    click.echo(printable(f"{name}: {said}"))


@registry.command()
@located
@click.argument("ident")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE...]")
def adopt(url: str | None, data_dir: str | None, path: str | None, ident: str, pairs: Sequence[str]) -> None:
    """Let a device in."""
    with _fleet(url, data_dir, path) as (found, prefix, _):
        registering.adopt(found.client, prefix, ident, _values(pairs))
    click.echo(printable(f"{ident} is let in"))


@registry.command()
@located
@click.argument("ident")
def remove(url: str | None, data_dir: str | None, path: str | None, ident: str) -> None:
    """Take a device out of the registry."""
    with _fleet(url, data_dir, path) as (found, prefix, _):
        there = registering.remove(found.client, prefix, ident)
    if not there:
        raise Fails(printable(f"{ident} is not in the registry"))
    click.echo(printable(f"{ident} is out of the registry"))


@registry.command("show")
@located
@click.argument("ident")
def show_entry(url: str | None, data_dir: str | None, path: str | None, ident: str) -> None:
    """Print what is written of a device."""
    with _fleet(url, data_dir, path) as (found, prefix, _):
        name = registering.resolve(found.client, prefix, ident)
        values = registering.entry(found.client, prefix, name)
    if not values:
        raise Fails(printable(f"{name} is not in the registry"))
    for key, value in sorted(values.items()):
        click.echo(printable(f"{key}={value}"))


def _values(pairs: Sequence[str]) -> dict[str, str | None]:
    values: dict[str, str | None] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE")
        values[key.strip()] = value or None
    return values
