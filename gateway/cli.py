"""
The command line C{gateway}: decode frames, follow the streams, list the plugins, simulate a fleet.

The same core as the server, without a reactor, which only C{simulate} runs; only that and C{tail} open connections.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import click

from gateway import config as configuration
from gateway import registry
from gateway.connection import Limits
from gateway.errors import GatewayError, NotReady, Refused
from gateway.events import STREAMS
from gateway.judging import LATEST
from gateway.registry import Plugin
from gateway.simulator.command import simulate
from gateway.sinks.blocking import BlockingRedis, RedisURL
from gateway.testing import Played, entry, play

#: How much of a file is read as one stream.
FILE_LIMIT: Final = 64 * 1024 * 1024
#: How long a read of the streams waits for news.
BLOCK_MS: Final = 1000


class Fails(click.ClickException):
    """An error of the gateway's as the command line shows it: one line, exit status 1."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gps-gateway")
def main() -> None:
    """GPS trackers of many protocols, onto Redis streams.  The server itself: twistd -n gateway"""


# -- decode


@main.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--hex", "as_hex", is_flag=True, help="One payload a line, in hex; each line is a connection of its own.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each payload.")
@click.option("--received", metavar="TIME", help="RFC 3339 time (Z) or epoch seconds of receipt.  [default: now]")
@click.option("--transport", type=click.Choice(["tcp", "udp"]), default="tcp", show_default=True)
@click.option("--config", "path", metavar="FILE", help="Configuration with the options of the devices.")
def decode(file: BinaryIO, as_hex: bool, as_json: bool, received: str | None, transport: Any, path: str | None) -> None:
    """
    Decode what a tracker sends, as a gateway would that knows no device yet.

    FILE holds bytes as they come from the wire (or hex lines); - is standard input.
    """
    now = _moment(received)
    try:
        config = configuration.read(path)
        devices = registry.load(config.disable, config.device_options, config.where)
    except GatewayError as error:
        raise Fails(str(error)) from error
    limits = Limits(
        config.limits.detect_bytes, config.limits.detect_seconds, config.limits.frame_bytes, config.limits.junk_bytes
    )
    wrong = False
    for payload in _payloads(file, as_hex):
        if isinstance(payload, str):
            wrong = True
            if as_json:
                click.echo(json.dumps(_object(Played(None, None, (), b""), now) | {"error": payload}))
            click.echo(f"Error: {payload}", err=True)
            continue
        played = play(payload, now, transport, devices, limits)
        if as_json:
            click.echo(json.dumps(_object(played, now)))
        else:
            _explain(played, now)
        sys.stdout.flush()
    if wrong:
        raise SystemExit(1)


def _moment(text: str | None) -> float:
    if text is None:
        return time.time()
    try:
        when = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            what = f"{text!r} is neither RFC 3339 nor epoch seconds"
            raise click.BadParameter(what, param_hint="--received") from error
        when = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not 0 <= when <= LATEST:
        raise click.BadParameter(f"{text!r} lies outside of the years 1970 to 9999", param_hint="--received")
    return when


def _payloads(file: BinaryIO, as_hex: bool) -> Iterator[bytes | str]:
    """The payloads of a file; for a line that is none, what is wrong with it."""
    if not as_hex:
        data = file.read(FILE_LIMIT + 1)
        if len(data) > FILE_LIMIT:
            raise Fails(f"{_name(file)}: more than {FILE_LIMIT} bytes")
        yield data
        return
    for number, line in enumerate(file, 1):
        text = line.strip()
        if not text:
            continue
        try:
            yield bytes.fromhex(text.decode("ascii"))
        except ValueError:
            yield f"{_name(file)}, line {number}: not hex: {text[:40].decode('latin-1')!r}"


def _name(file: BinaryIO) -> str:
    """What a file is called; a pipe may have no name."""
    return str(getattr(file, "name", "standard input"))


def _object(played: Played, now: float) -> dict[str, Any]:
    decision = played.decision
    errors = [message.error.reason for message, _ in played.messages if message.error is not None]
    if played.protocol is None:
        errors.append(decision.reason if decision is not None else "nothing to go by")
    return {
        "protocol": played.protocol,
        "confidence": decision.confidence if decision is not None and played.protocol else None,
        "reason": decision.reason if decision is not None else None,
        "bytes_to_commit": decision.at if decision is not None and played.protocol else None,
        "messages": [
            {
                "frame": message.raw.hex(),
                "reply": message.reply(now).hex() if message.reply is not None else None,
                "events": [entry(e, message.ident or "", played.protocol or "") for e in envelopes],
            }
            for message, envelopes in played.messages
            if message.error is None
        ],
        "rest": played.rest.hex(),
        "error": errors[0] if errors else None,
    }


def _explain(played: Played, now: float) -> None:
    decision = played.decision
    if played.protocol is None:
        click.echo(f"nobody's: {_printable(decision.reason if decision is not None else 'nothing to go by')}")
    elif decision is not None:
        click.echo(f"{played.protocol}, confidence {decision.confidence}, after {decision.at} bytes: {decision.reason}")
    for line in decision.trail if decision is not None and (played.protocol is None or len(decision.trail) > 1) else ():
        click.echo(f"  {_printable(line)}")
    for number, (message, envelopes) in enumerate(played.messages, 1):
        click.echo(f"frame {number}, {len(message.raw)} bytes: {_shown(message.raw)}")
        if message.error is not None:
            click.echo(f"  can't be read: {_printable(message.error.reason)}")
            continue
        for envelope in envelopes:
            what = entry(envelope, message.ident or "", played.protocol or "")
            click.echo(f"  {what['type']} of {what['ident']} at {what['time']}")
            for name, value in what["data"].items():
                click.echo(f"    {name:<18} {_printable(json.dumps(value, ensure_ascii=False))}")
        if message.reply is not None:
            click.echo(f"  reply {_shown(message.reply(now))}")
    if played.rest:
        click.echo(f"rest, {len(played.rest)} bytes that are no whole frame: {_shown(played.rest)}")


def _shown(data: bytes) -> str:
    """Bytes as text where they are text, else as hex; never a control character to the terminal."""
    text = data.decode("latin-1")
    if all(32 <= byte < 127 or byte in b"\r\n" for byte in data[:200]):
        return _printable(text[:400])
    return data[:200].hex()


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


# -- tail


@main.command()
@click.option("--redis", "url", metavar="URL", help="redis:// or rediss:// URL.  [default: the embedded Redis]")
@click.option("--data-dir", metavar="DIR", help="Data directory of the gateway whose embedded Redis to follow.")
@click.option("--config", "path", metavar="FILE", help="Configuration of the gateway.")
@click.option(
    "--type", "types", multiple=True, metavar="T", help="Only this type; alarm. stands for all that begin so."
)
@click.option("--ident", "idents", multiple=True, metavar="I", help="Only this device.")
@click.option("--from-start", is_flag=True, help="What is there already, too.")
def tail(
    url: str | None,
    data_dir: str | None,
    path: str | None,
    types: Sequence[str],
    idents: Sequence[str],
    from_start: bool,
) -> None:
    """Follow the streams: a line an event."""
    try:
        config = configuration.read(path)
        if data_dir is not None:
            config = config.override("gateway", "option --data-dir", data_dir=data_dir)
        address = _address(config, url)
    except GatewayError as error:
        raise Fails(str(error)) from error
    prefix = config.redis.prefix
    keys = [f"{prefix}:{stream}" for stream in STREAMS]
    last = dict.fromkeys(keys, "0-0" if from_start else "$")
    said = ""
    while True:
        try:
            _follow(address, keys, last, types, idents)
        except Refused as error:
            raise Fails(f"{address} refuses: {error}") from error
        except (OSError, NotReady) as error:
            if str(error) != said:
                said = str(error)
                click.echo(f"{address}: {said}; trying again", err=True)
            time.sleep(1.0)
        except KeyboardInterrupt:
            return


def _address(config: configuration.Config, url: str | None) -> RedisURL:
    if url is not None:
        return RedisURL.parse(url, "option --redis")
    if config.redis.url:
        return RedisURL.parse(config.redis.url, f"{config.where}: section [redis], key 'url'")
    file = config.data_dir / "redis.url"
    try:
        return RedisURL.parse(file.read_text().strip(), str(file))
    except OSError as error:
        raise Fails(
            f"{file}: {error.strerror}; no gateway with an embedded Redis has run there (name yours with --redis URL)"
        ) from error


def _follow(
    address: RedisURL, keys: Sequence[str], last: dict[str, str], types: Sequence[str], idents: Sequence[str]
) -> None:
    client = BlockingRedis.connect(address, BLOCK_MS / 1000 + 5)
    try:
        for key in keys:
            if last[key] == "$":  # a fixed place, so that nothing is missed between two reads
                newest = client.command("XREVRANGE", key, "+", "-", "COUNT", "1")
                last[key] = newest[0][0].decode() if newest else "0-0"
        while True:
            ids = [last[key] for key in keys]
            answer = client.command("XREAD", "COUNT", "500", "BLOCK", str(BLOCK_MS), "STREAMS", *keys, *ids)
            for key, entries in answer or ():
                for entry_id, row in entries:
                    last[key.decode()] = entry_id.decode()
                    texts = [value.decode("utf-8", "replace") for value in row]
                    _line(dict(zip(texts[::2], texts[1::2], strict=False)), types, idents)
            sys.stdout.flush()
    finally:
        client.close()


def _line(fields: dict[str, str], types: Sequence[str], idents: Sequence[str]) -> None:
    kind = fields.get("type", "?")
    if types and not any(kind == t or (t.endswith(".") and kind.startswith(t)) for t in types):
        return
    if idents and fields.get("ident") not in idents:
        return
    shown = [fields.get("time", "?"), fields.get("ident") or "-", kind]
    skipped = {"v", "id", "type", "source", "time", "received", "ident"}
    shown += [f"{name}={value}" for name, value in fields.items() if value and value != "{}" and name not in skipped]
    click.echo(_printable(" ".join(shown)))


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
        click.echo(f"    {option.name} = {getattr(device.options, option.name)!r}")


main.add_command(simulate)

if __name__ == "__main__":
    main()
