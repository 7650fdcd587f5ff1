"""The command C{gateway trace}: a device's frames as they come and go, for people and for C{gateway decode}."""

from __future__ import annotations

import re
from collections.abc import Mapping

import click
import hiredis

from gateway.entries import data_of
from gateway.fields import rfc3339
from gateway.places import located, opened
from gateway.terminal import Duration, Fails, printable, shown
from gateway.tracing import key, server_time, trace_off, trace_on, traced


@click.command()
@located
@click.argument("ident", required=False)
@click.option("--for", "seconds", type=Duration(), default="10m", show_default=True, help="How long: 90s, 10m, 2h.")
@click.option("--off", is_flag=True, help="Not any more.")
def trace(
    url: str | None, data_dir: str | None, path: str | None, ident: str | None, seconds: float, off: bool
) -> None:
    """
    Have each frame of a device, and each that it is sent, on gateway:raw for a while; without IDENT, who is traced.

    `gateway tail --raw` shows them, and with --export writes what `gateway decode --hex` reads.
    """
    with opened(url, data_dir, path) as found:
        client, prefix = found.client, found.config.redis.prefix
        now = server_time(client)
        if ident is None:
            there = traced(client, prefix, now)
            for name, end in sorted(there.items()):
                click.echo(f"{name} until {rfc3339(end)}")
            if not there:
                click.echo("nobody is traced")
        elif off:
            was = trace_off(client, prefix, ident)
            click.echo(printable(f"{ident} is not traced any more" if was else f"{ident} was not traced"))
        else:
            try:
                end = trace_on(client, prefix, ident, seconds, now)
            except ValueError as error:
                raise Fails(printable(str(error))) from error
            except hiredis.ReplyError as error:
                raise Fails(printable(f"{key(prefix)}: {error}")) from error
            click.echo(f"{ident} is traced until {rfc3339(end)}: gateway tail --raw --ident {ident}")


def raw_line(fields: Mapping[str, str]) -> str:
    """A frame that was traced, for people: when, whose, which way, where, what became of it, and what it says."""
    data = data_of(fields)
    way = "<" if fields.get("type") == "frame.raw.down" else ">"
    try:
        frame = shown(bytes.fromhex(str(data.get("frame", ""))))
    except ValueError:
        frame = "?"
    where = f"{data.get('transport', '?')} {data.get('peer', '?')}"
    told = [fields.get("time", "?"), fields.get("ident") or "-", way, where, data.get("outcome", ""), frame]
    return printable(" ".join(str(part) for part in (*told, data.get("reason", "")) if part))


def exported(fields: Mapping[str, str]) -> str:
    """A frame that was traced, as C{gateway decode --hex} reads it; what was sent to the device as a comment."""
    frame = str(data_of(fields).get("frame", ""))
    down = fields.get("type") == "frame.raw.down" or not re.fullmatch("([0-9a-f]{2})+", frame)
    return f"# {raw_line(fields)}" + ("" if down else f"\n{frame}")
