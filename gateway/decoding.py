"""
The command C{gateway decode}: what a tracker's frames say, what they lead to, and what they are answered.

It plays the bytes to a gateway that knows no device; devices that can explain
their frames are asked for the parts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import click

from gateway import config as configuration
from gateway import registry
from gateway.connection import Limits
from gateway.errors import GatewayError
from gateway.fleet import registering
from gateway.interfaces import Fact, Message
from gateway.registry import Plugin
from gateway.session import LATEST, Envelope
from gateway.terminal import Fails, printable, shortened, shown
from gateway.testing import Played, entry, play

#: Why a report says nothing of now.
_LATE: Final = {
    "device": "the device says so itself",
    "lag": "its time is long before its receipt (--received says when that was)",
    "order": "the device has sent a newer one",
}
#: How much of a file is read as one stream.
FILE_LIMIT: Final = 64 * 1024 * 1024
#: How much of a field is shown in the table, and of what it means.
RAW_SHOWN: Final = 24
MEANING_SHOWN: Final = 400


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--hex",
    "as_hex",
    is_flag=True,
    help="One payload a line, in hex; each line is a connection of its own; # begins a comment.",
)
@click.option("--sms", "as_sms", is_flag=True, help="FILE holds the text of an SMS, UTF-8.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each payload.")
@click.option("--received", metavar="TIME", help="RFC 3339 time (Z) or epoch seconds of receipt.  [default: now]")
@click.option("--transport", type=click.Choice(["tcp", "udp"]), default="tcp", show_default=True)
@click.option("--config", "path", metavar="FILE", help="Configuration with the options of the devices.")
@click.option(
    "--registry",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="What the registry says of the unit, acc_wired=0 say; may be given again.",
)
def decode(
    file: BinaryIO,
    as_hex: bool,
    as_sms: bool,
    as_json: bool,
    received: str | None,
    transport: Any,
    path: str | None,
    pairs: Sequence[str],
) -> None:
    """
    Decode what a tracker sends, as a gateway would that knows no device yet, and explain its parts.

    FILE holds bytes as they come from the wire (or hex lines); - is standard input.
    """
    now, unit = _moment(received), _registered(pairs)
    try:
        config = configuration.read(path)
        devices = registry.load(config.disable, config.device_options, config.where)
    except GatewayError as error:
        raise Fails(str(error)) from error
    if as_sms:
        _read_sms(file, devices, unit, now)
        return
    limits = config.limits.of(Limits)
    if unit and not as_json:
        said = ", ".join(f"{key}={value}" for key, value in registering.shown(unit).items())
        click.echo(f"set for the unit: {printable(said)}")
    wrong = False
    for payload in _payloads(file, as_hex):
        if isinstance(payload, str):
            wrong = True
            if as_json:
                click.echo(json.dumps(_object(Played(None, None, (), b""), None, unit, now) | {"error": payload}))
            click.echo(f"Error: {payload}", err=True)
            continue
        played = play(payload, now, transport, devices, limits, unit)
        plugin = next((device for device in devices if device.name == played.protocol), None)
        if as_json:
            click.echo(json.dumps(_object(played, plugin, unit, now)))
        else:
            _explain(played, plugin, unit, now)
        sys.stdout.flush()
    if wrong:
        raise SystemExit(1)


def explained(
    data: bytes, now: float, transport: Any, devices: Sequence[Plugin], limits: Limits, registry: Mapping[str, str]
) -> dict[str, Any]:
    """
    What bytes say, for machines: as C{gateway decode --json} has it, with how it was found out whose they are.

    @param now: of their receipt, UTC epoch seconds.
    @param registry: what is set for the unit.
    """
    played = play(data, now, transport, devices, limits, registry)
    plugin = next((device for device in devices if device.name == played.protocol), None)
    trail = played.decision.trail if played.decision is not None else ()
    return {**_object(played, plugin, registry, now), "detection": [printable(line) for line in trail]}


def _read_sms(file: BinaryIO, devices: Sequence[Plugin], unit: Mapping[str, str], now: float) -> None:
    """Print how each device that has SMS reads a text, as JSON."""
    text = file.read(FILE_LIMIT).decode("utf-8", "replace")
    for device in devices:
        if device.has_sms:
            reading = device.read_sms(text, unit, now)
            said = {
                "protocol": device.name,
                "kind": reading.kind,
                "ident": reading.ident,
                "events": [one._asdict() for one in reading.events],
                "answer": None if reading.answer is None else reading.answer._asdict(),
            }
            click.echo(json.dumps(said, indent=1))


def _registered(pairs: Sequence[str]) -> dict[str, str]:
    """What is said of the unit."""
    unit: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key.strip():
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--registry")
        unit[key.strip()] = value
    return unit


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
        if not text or text.startswith(b"#"):
            continue
        try:
            yield bytes.fromhex(text.decode("ascii"))
        except ValueError:
            yield f"{_name(file)}, line {number}: not hex: {text[:40].decode('latin-1')!r}"


def _name(file: BinaryIO) -> str:
    """What a file is called; a pipe may have no name."""
    return str(getattr(file, "name", "standard input"))


def _object(played: Played, plugin: Plugin | None, unit: Mapping[str, str], now: float) -> dict[str, Any]:
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
                "facts": [fact._asdict() for fact in facts_of(plugin, message.raw, unit)],
                "reply": reply.hex() if (reply := _reply(message, now)) else None,
                "events": [entry(e, message.ident or "", played.protocol or "") for e in envelopes],
            }
            for message, envelopes in played.messages
            if message.error is None
        ],
        "undecodable": [
            {
                "frame": message.raw.hex(),
                "facts": [fact._asdict() for fact in facts_of(plugin, message.raw, unit)],
                "error": message.error.reason,
            }
            for message, _ in played.messages
            if message.error is not None
        ],
        "rest": played.rest.hex(),
        "error": errors[0] if errors else None,
    }


def facts_of(plugin: Plugin | None, frame: bytes, unit: Mapping[str, str]) -> Sequence[Fact]:
    """What each part of a frame means, of a device that can tell."""
    if plugin is None:
        return ()
    try:
        return plugin.explain(frame, unit)
    except Exception as error:  # foreign code: what the frame leads to is shown all the same
        return [Fact("", "", "can't be explained", f"{type(error).__name__}: {error}")]


def _reply(message: Message, now: float) -> bytes | None:
    """What a frame is answered; None: its type never is; empty: it is not, as things are set."""
    return None if message.reply is None else message.reply(now)


def _explain(played: Played, plugin: Plugin | None, unit: Mapping[str, str], now: float) -> None:
    decision = played.decision
    if played.protocol is None:
        click.echo(f"nobody's: {printable(decision.reason if decision is not None else 'nothing to go by')}")
    elif decision is not None:
        click.echo(f"{played.protocol}, confidence {decision.confidence}, after {decision.at} bytes: {decision.reason}")
    for line in decision.trail if decision is not None and (played.protocol is None or len(decision.trail) > 1) else ():
        click.echo(f"  {printable(line)}")
    for number, (message, envelopes) in enumerate(played.messages, 1):
        click.echo(f"frame {number}, {len(message.raw)} bytes: {shown(message.raw)}")
        if message.error is not None:
            click.echo(f"  can't be read: {printable(message.error.reason)}")
        _table(facts_of(plugin, message.raw, unit))
        if message.error is None:
            _outcome(message, envelopes, played.protocol or "", now)
    if played.rest:
        click.echo(f"rest, {len(played.rest)} bytes that are no whole frame: {shown(played.rest)}")


def _table(facts: Sequence[Fact]) -> None:
    """Facts in columns; those without a place below one another after them."""
    rows = [(printable(f.where), shortened(f.raw, RAW_SHOWN), printable(f.name), f.meaning) for f in facts]
    wide = [max((len(row[column]) for row in rows if row[0]), default=0) for column in range(3)]
    for where, raw, name, meaning in rows:
        text = shortened(meaning, MEANING_SHOWN)
        if where:
            click.echo(f"  {where:<{wide[0]}}  {raw:<{wide[1]}}  {name:<{wide[2]}}  {text}".rstrip())
        else:
            click.echo(f"  {name}: {text}")


def _why(name: str, data: Mapping[str, Any]) -> str:
    """Why a report is late, or has another time than its device gave; empty where there is nothing to say."""
    value = data[name]
    if name == "late":
        return f"  {_LATE.get(value, '')}"
    if name != "time_source":
        return ""
    if value == "device-corrected":
        return f"  the device's, with {data.get('time_correction_s', 0):+d} s: a GPS week rollover, or time_offset_s"
    if data.get("clock") == "frozen":
        return "  the device's clock stands still"
    return "  the device's is more than 5 minutes ahead" if "device_time" in data else "  there is none of the device"


def _outcome(message: Message, envelopes: Sequence[Envelope], protocol: str, now: float) -> None:
    """What a frame leads to, and what it is answered."""
    for envelope in envelopes:
        what: Mapping[str, Any] = entry(envelope, message.ident or "", protocol)
        click.echo(f"  {what['type']} of {what['ident']} at {what['time']}")
        for name, value in what["data"].items():
            click.echo(f"    {name:<18} {printable(json.dumps(value, ensure_ascii=False))}{_why(name, what['data'])}")
    reply = _reply(message, now)
    if reply is not None:
        click.echo(f"  reply {shown(reply) if reply else 'none'}")
