"""The command C{gateway provision}."""

from __future__ import annotations

import csv
import getpass
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TextIO

import click

from gateway import registry
from gateway.errors import GatewayError, UnsupportedCommand
from gateway.events import IDENT
from gateway.fleet.registering import RegistryError
from gateway.places import beats, located, opened
from gateway.provisioning.running import POLL_S, Bounds, Run, as_json, prepared
from gateway.provisioning.unit import MEANINGS, Limits, Unit
from gateway.registry import Plugin
from gateway.sms.interfaces import Body
from gateway.sms.making import not_installed
from gateway.sms.numbers import e164
from gateway.terminal import Duration, Fails, columns, printable
from gateway.tracing import server_time

#: Columns of a file.
COLUMNS: Final = ("ident", "phone", "apn", "server", "port", "interval", "password", "control")
#: Trackers of a file at most.
MOST: Final = 100_000


class _Asked(NamedTuple):
    """What is asked for one tracker, as text."""

    where: str
    ident: str
    values: Mapping[str, str]


@click.command()
@located
@click.argument("ident", required=False)
@click.option("--phone", metavar="NUMBER", help="Of the tracker's SIM; as in +49151..., or of [sms] region.")
@click.option("--apn", metavar="A", help="Access point of the SIM; with user and password behind it, if it has them.")
@click.option("--server", metavar="HOST", help="Where it is to report to; an address is safer than a name.")
@click.option("--port", type=click.IntRange(1, 65_535), help="[default: the gateway's]")
@click.option("--interval", type=click.IntRange(1, 86_400), metavar="S", help="Seconds between reports.")
@click.option("--password", metavar="P", help="Of the tracker, if not the factory's.  Kept, and shown to nobody.")
@click.option("--control", metavar="NUMBER", help="Where it is to send alarms by SMS.")
@click.option("--protocol", default="st907", show_default=True, help="Kind of tracker.")
@click.option("--csv", "file", type=click.File("r", encoding="utf-8"), help=f"Many: {', '.join(COLUMNS)}.")
@click.option("--dry-run", is_flag=True, help="Print the texts, and send none.")
@click.option(
    "--tries", type=click.IntRange(1, 20), default=3, show_default=True, help="How often a text is sent at most."
)
@click.option("--answer-within", type=Duration(), default="5m", show_default=True, help="What an answer may take.")
@click.option("--report-within", type=Duration(), default="20m", show_default=True, help="And then the first report.")
@click.option(
    "--at-once", type=click.IntRange(1, 1000), default=20, show_default=True, help="Trackers at the same time."
)
@click.option("--texts", type=click.IntRange(1), help="So many may be sent in all.  [default: enough for all tries]")
@click.option("--json", "as_objects", is_flag=True, help="A JSON object a tracker.")
def provision(
    url: str | None,
    data_dir: str | None,
    path: str | None,
    ident: str | None,
    protocol: str,
    file: TextIO | None,
    dry_run: bool,
    tries: int,
    answer_within: float,
    report_within: float,
    at_once: int,
    texts: int | None,
    as_objects: bool,
    **given: Any,
) -> None:
    """
    Set trackers up by SMS, until they report here.

    A gateway that runs sends the texts, one at a time to each, and reads the answers.  What was interrupted goes on
    when it is called again in the same way.  Exit status 0: all report.
    """
    said = {name: str(value) for name, value in given.items() if value is not None}
    if (ident is None) == (file is None):
        raise click.UsageError("give either IDENT or --csv FILE")
    if missing := not_installed():
        raise Fails(f"gateway provision {missing}")
    asked = _file(file, said) if file is not None else [_Asked("command line", ident or "", said)]
    limits = Limits(tries, answer_within, report_within)
    with opened(url, data_dir, path) as found:
        config, client, prefix = found.config, found.client, found.config.redis.prefix
        plugin = _plugin(config, protocol)
        port = str(config.gateway.port)
        units = [_unit(one, plugin, port, config.sms.region, limits) for one in asked]
        if dry_run:
            for unit in units:
                _show(unit)
            return
        if not any(beat.content.get("sms") for beat in beats(client, prefix).values()):
            raise Fails("no gateway that sends SMS runs there: section [sms], key 'transport'")
        entries = {
            unit.ident: {
                "phone": unit.phone,
                **({"sms_password": one.values["password"]} if one.values.get("password") else {}),
            }
            for unit, one in zip(units, asked, strict=True)
        }
        try:
            resumed = prepared(client, prefix, units, entries)
        except RegistryError as error:
            raise Fails(printable(str(error))) from error
        if resumed and not as_objects:
            click.echo(f"{resumed} of {len(units)} go on from where they were")
        most = texts or sum(tries * len(unit.texts) for unit in units)
        run = Run(client, prefix, units, Bounds(at_once, most), server_time(client), _who())
        try:
            _follow(run, units, client, as_objects)
        except KeyboardInterrupt:
            click.echo("\ninterrupted: call it again in the same way to go on", err=True)
    if not as_objects:
        _table(units, run.sent)
    if any(unit.verdict != "done" for unit in units):
        sys.exit(1)


def _follow(run: Run, units: Sequence[Unit], client: Any, as_objects: bool) -> None:
    """Until all have come to their ends."""
    quiet = as_objects or not sys.stderr.isatty()

    def said(unit: Unit) -> None:
        if as_objects:
            click.echo(as_json(unit))
        elif quiet:
            click.echo(printable(f"{unit.ident}: {unit.verdict}{f' ({unit.reason})' if unit.reason else ''}"))

    if quiet:
        run.on_end = said
        while not run.over:
            run.turn(server_time(client))
            time.sleep(0 if run.over else POLL_S)
        return
    with click.progressbar(length=sum(len(unit.texts) + 1 for unit in units), label="set up", file=sys.stderr) as bar:
        done = 0
        while not run.over:
            run.turn(server_time(client))
            now = sum(len(unit.texts) + 1 if unit.over else unit.step for unit in units)
            bar.label = f"set up {sum(unit.over for unit in units)} of {len(units)}, {run.sent} texts"
            bar.update(now - done)
            done = now
            time.sleep(0 if run.over else POLL_S)


def _table(units: Sequence[Unit], sent: int) -> None:
    rows = [["ident", "result", "texts", "answered", "why"]]
    for unit in units:
        why = unit.reason or MEANINGS[unit.verdict]
        rows.append([unit.ident, unit.verdict or "interrupted", str(unit.sent), str(unit.answered), why])
    click.echo(printable_lines(columns(rows)))
    for verdict in dict.fromkeys(unit.verdict for unit in units):
        if verdict != "done":
            n = sum(unit.verdict == verdict for unit in units)
            click.echo(f"{n} {verdict or 'interrupted'}: {MEANINGS[verdict]}")
    click.echo(f"{sum(unit.verdict == 'done' for unit in units)} of {len(units)} report; {sent} texts were sent")


def printable_lines(text: str) -> str:
    """Several lines, each of them printable."""
    return "\n".join(map(printable, text.splitlines()))


def _show(unit: Unit) -> None:
    click.echo(printable(f"{unit.ident}, {unit.phone}:"))
    for text in unit.texts:
        click.echo(printable(f"  {Body(text.template)!s:<32} {text.meaning} ({text.certainty})"))


def _plugin(config: Any, protocol: str) -> Plugin:
    try:
        plugins = registry.load(config.disable, config.device_options, config.where)
    except GatewayError as error:
        raise Fails(str(error)) from error
    found = next((plugin for plugin in plugins if plugin.name == protocol and plugin.has_sms), None)
    if found is None:
        there = ", ".join(plugin.name for plugin in plugins if plugin.has_sms)
        raise Fails(f"{protocol!r} is no kind of tracker that is set up by SMS (there are: {there or 'none'})")
    return found


def _unit(asked: _Asked, plugin: Plugin, port: str, region: str, limits: Limits) -> Unit:
    """
    A tracker with its texts.

    @raise Fails: naming where what is asked can't be done.
    """
    values, where = asked.values, asked.where
    if not IDENT.fullmatch(asked.ident):
        raise Fails(printable(f"{where}: ident {asked.ident[:64]!r} is not 3 to 32 letters, digits, '_', '.' or '-'"))
    for name in ("phone", "apn", "server"):
        if not values.get(name):
            raise Fails(f"{where}: {name} is missing")
    phone = e164(values["phone"], region)
    if phone is None:
        raise Fails(
            printable(f"{where}: phone {values['phone'][:32]!r} is no number; with + and its country, or [sms] region")
        )
    figures = {}
    for name, default in (("port", port), ("interval", "")):
        text = values.get(name) or default
        if text and not (text.isascii() and text.isdecimal() and int(text) <= 86_400):
            raise Fails(printable(f"{where}: {name} {text[:16]!r} is no whole number"))
        figures[name] = int(text) if text else None
    control = e164(values["control"], region) if values.get("control") else ""
    if control is None:
        raise Fails(printable(f"{where}: control {values['control'][:32]!r} is no number"))
    try:
        texts = plugin.set_up(values["server"], figures["port"] or 0, values["apn"], {}, figures["interval"], control)
    except UnsupportedCommand as error:
        raise Fails(printable(f"{where}: {error}")) from error
    return Unit(asked.ident, phone, plugin.name, texts, limits)


def _file(file: TextIO, said: Mapping[str, str]) -> list[_Asked]:
    """The trackers of a CSV file; what stands on the command line holds for those of which it says nothing."""
    name = getattr(file, "name", "standard input")
    try:
        reader = csv.DictReader(file, strict=True)
        head = [column.strip() for column in reader.fieldnames or ()]
        if "ident" not in head or (unknown := [column for column in head if column not in COLUMNS]):
            wrong = unknown[0] if "ident" in head else "no ident"
            raise Fails(printable(f"{name}, line 1: {wrong[:64]!r} (columns are: {', '.join(COLUMNS)})"))
        found: dict[str, _Asked] = {}
        for cells in reader:
            where = f"{name}, line {reader.line_num}"
            values = {key.strip(): (cells[key] or "").strip() for key in reader.fieldnames or () if key in cells}
            ident = values.pop("ident")
            if ident in found:
                raise Fails(printable(f"{where}: {ident[:64]} stands there twice"))
            if None in cells:
                raise Fails(f"{where}: has more cells than the head")
            found[ident] = _Asked(where, ident, {**said, **{key: value for key, value in values.items() if value}})
            if len(found) > MOST:
                raise Fails(f"{name}: more than {MOST:,} trackers")
    except (csv.Error, UnicodeDecodeError) as error:
        raise Fails(printable(f"{name}: is no CSV: {error}")) from error
    if not found:
        raise Fails(f"{name}: no tracker stands there")
    return list(found.values())


def _who() -> str:
    """Who calls this, for whoever reads the stream later."""
    try:
        return f"gateway provision, {getpass.getuser()}"
    except (KeyError, OSError):
        return f"gateway provision, uid {os.getuid()}"
