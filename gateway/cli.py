"""
The command line C{gateway}: decode, follow the streams, give commands, see how gateways do, simulate, and more.

The same core as the server, without a reactor, which only C{simulate} and C{journal replay} run.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import click

from gateway import config as configuration
from gateway import registry
from gateway.auditing import audit
from gateway.decoding import decode
from gateway.entries import row
from gateway.errors import GatewayError, NotReady, Refused, UnknownMaster
from gateway.events import STREAMS
from gateway.exporting import metrics
from gateway.fleet import asking
from gateway.grouping import groups
from gateway.journaling import journal
from gateway.operating import restart, status
from gateway.places import configured, redis_of
from gateway.provisioning.command import provision
from gateway.registry import Plugin
from gateway.sending import cancel, history, send
from gateway.simulator.command import simulate
from gateway.sinks.blocking import Address
from gateway.sms.interfaces import HIDDEN
from gateway.terminal import Fails, printable
from gateway.web.finding import page
from gateway.wiretap import exported, raw_line, trace

#: How long a read of the streams waits for news.
BLOCK_MS: Final = 1000


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gps-gateway")
def main() -> None:
    """GPS trackers of many protocols, onto Redis streams.  The server itself: twistd -n gateway"""


# -- tail


@main.command()
@click.option(
    "--redis",
    "url",
    metavar="URL",
    help="redis:// or rediss:// URL, or redis+sentinel://.  [default: the embedded Redis]",
)
@click.option("--data-dir", metavar="DIR", help="Data directory of the gateway whose embedded Redis to follow.")
@click.option("--config", "path", metavar="FILE", help="Configuration of the gateway.")
@click.option(
    "--type", "types", multiple=True, metavar="T", help="Only this type; alarm. stands for all that begin so."
)
@click.option("--ident", "idents", multiple=True, metavar="I", help="Only this device.")
@click.option("--from-start", is_flag=True, help="What is there already, too.")
@click.option("--raw", is_flag=True, help="The frames of devices that are traced, and nothing else: see gateway trace.")
@click.option("--export", is_flag=True, help="With --raw: as text that gateway decode --hex reads.")
def tail(
    url: str | None,
    data_dir: str | None,
    path: str | None,
    types: Sequence[str],
    idents: Sequence[str],
    from_start: bool,
    raw: bool,
    export: bool,
) -> None:
    """Follow the streams: a line an event."""
    if export and not raw:
        raise click.UsageError("--export goes with --raw")
    try:
        config = configured(path, data_dir)
        address = redis_of(config, url)
    except GatewayError as error:
        raise Fails(str(error)) from error
    prefix = config.redis.prefix
    keys = [f"{prefix}:{stream}" for stream in (("raw",) if raw else STREAMS)]
    line = exported if export else raw_line if raw else _line
    last = dict.fromkeys(keys, "0-0" if from_start else "$")
    said = ""
    while True:
        try:
            _follow(address, keys, last, types, idents, line)
        except UnknownMaster as error:
            raise Fails(f"{address}: {error}") from error
        except Refused as error:
            raise Fails(f"{address} refuses: {error}") from error
        except (OSError, NotReady) as error:
            if str(error) != said:
                said = str(error)
                click.echo(f"{address}: {said}; trying again", err=True)
            time.sleep(1.0)
        except KeyboardInterrupt:
            return


def _follow(
    address: Address,
    keys: Sequence[str],
    last: dict[str, str],
    types: Sequence[str],
    idents: Sequence[str],
    line: Callable[[Mapping[str, str]], str],
) -> None:
    client = address.connect(BLOCK_MS / 1000 + 5)
    try:
        for key in keys:
            if last[key] == "$":  # a fixed place, so that nothing is missed between two reads
                newest = client.command("XREVRANGE", key, "+", "-", "COUNT", "1")
                last[key] = newest[0][0].decode() if newest else "0-0"
        while True:
            ids = [last[key] for key in keys]
            answer = client.command("XREAD", "COUNT", "500", "BLOCK", str(BLOCK_MS), "STREAMS", *keys, *ids)
            for key, entries in answer or ():
                for entry_id, flat in entries:
                    last[key.decode()] = entry_id.decode()
                    fields = row(flat)
                    if _wanted(fields, types, idents):
                        click.echo(line(fields))
            sys.stdout.flush()
    finally:
        client.close()


def _wanted(fields: Mapping[str, str], types: Sequence[str], idents: Sequence[str]) -> bool:
    kind = fields.get("type", "?")
    if types and not any(kind == t or (t.endswith(".") and kind.startswith(t)) for t in types):
        return False
    return not idents or fields.get("ident") in idents


def _line(fields: Mapping[str, str]) -> str:
    shown = [fields.get("time", "?"), fields.get("ident") or "-", fields.get("type", "?")]
    skipped = {"v", "id", "type", "source", "time", "received", "ident"}
    shown += [f"{name}={value}" for name, value in fields.items() if value and value != "{}" and name not in skipped]
    return printable(" ".join(shown))


# -- plugins


@main.command()
@click.argument("name", required=False)
@click.option("--config", "path", metavar="FILE", help="Configuration with the options of the devices.")
def plugins(name: str | None, path: str | None) -> None:
    """List the installed device plugins, or show one with its options."""
    try:
        config = configuration.read(path)
        devices = registry.load(config.disable, config.device_options, config.where)
    except GatewayError as error:
        raise Fails(str(error)) from error
    if name is None:
        for device in devices:
            options = ", ".join(field.name for field in dataclasses.fields(device.options)) or "none"
            where = f"{device.origin}; options: {options}"
            click.echo(f"{device.name:<16} {device.version:<12} priority {device.priority:<4} {where}")
        return
    for device in devices:
        if device.name == name:
            _show(device)
            return
    raise Fails(f"no device {name!r} is installed (there are: {', '.join(d.name for d in devices)})")


def _show(device: Plugin) -> None:
    about = (type(device.device).__doc__ or "").strip().splitlines()
    click.echo(f"{device.name}: {about[0] if about else ''}")
    click.echo(f"  version   {device.version}")
    click.echo(f"  from      {device.origin}")
    click.echo(f"  priority  {device.priority}")
    options = dataclasses.fields(device.options)
    click.echo(f"  options   {'none' if not options else f'[devices.{device.name}]'}")
    for option in options:
        value = repr(getattr(device.options, option.name)) if option.repr else HIDDEN
        click.echo(f"    {option.name} = {value}")
    click.echo(f"  commands  {'' if device.commands else 'none'}".rstrip())
    for command, support in device.commands.items():
        click.echo(f"    {command:<18}{', '.join(support.channels):<11}{support.certainty:<10}{support.note}".rstrip())


main.add_command(audit)
main.add_command(cancel)
main.add_command(decode)
main.add_command(asking.devices)
main.add_command(groups)
main.add_command(history)
main.add_command(journal)
main.add_command(metrics)
main.add_command(page)
main.add_command(asking.registry)
main.add_command(provision)
main.add_command(restart)
main.add_command(send)
main.add_command(asking.show)
main.add_command(simulate)
main.add_command(status)
main.add_command(trace)
main.add_command(asking.unknown)

if __name__ == "__main__":
    main()
