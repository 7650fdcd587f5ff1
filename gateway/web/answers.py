"""What the page's questions are answered: as its JSON says, from Redis and from what the processes tell."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from gateway.commands import COMMANDS, GUARD, Definition, Request
from gateway.config import Config
from gateway.connection import Limits
from gateway.decoding import explained
from gateway.errors import CommandError
from gateway.events import IDENT
from gateway.fleet import history, listing, registering, showing, strangers
from gateway.ledger import OUTCOMES, Beat
from gateway.registry import Plugin
from gateway.sinks.blocking import BlockingRedis
from gateway.tracing import server_time, trace_off, trace_on

#: Alarms are looked for among so many of the newest events, of so long, ms.
EVENTS: Final = 5000
DAY_MS: Final = 86_400_000
ALARMS: Final = 100
#: The longest that can be explained, bytes.
EXPLAINED: Final = 16_384
MOST: Final = 500


class Mistake(Exception):
    """What is asked makes no sense, in a sentence; C{status}: as HTTP calls that."""

    def __init__(self, what: str, status: int = 400) -> None:
        super().__init__(what)
        self.status = status


def ident(text: str) -> str:
    """
    An ident.

    @raise Mistake: when it is none.
    """
    if not IDENT.fullmatch(text):
        raise Mistake(f"{text[:64]!r} is no ident", 404)
    return text


class Answers:
    """All that is answered; what takes a client may take its time."""

    def __init__(self, config: Config, plugins: Sequence[Plugin]) -> None:
        self._prefix = config.redis.prefix
        self._plugins = plugins
        self._sms = bool(config.sms.transport)
        self.change(config)

    def change(self, config: Config) -> None:
        """The configuration has changed."""
        self._enabled = frozenset(config.commands.sent)
        self._limits = config.limits.of(Limits)

    # -- the fleet

    def devices(self, client: BlockingRedis) -> dict[str, Any]:
        """All devices."""
        now = server_time(client)
        return {
            "now": round(now * 1000),
            "columns": listing.Device._fields,
            **_rows(listing.devices(client, self._prefix, now)),
        }

    def changed(self, client: BlockingRedis, idents: Iterable[str]) -> dict[str, Any]:
        """These devices."""
        now = server_time(client)
        return {"now": round(now * 1000), **_rows(listing.some(client, self._prefix, idents, now))}

    def known(self, client: BlockingRedis) -> dict[str, Any]:
        """How many devices there are, how many were heard lately, and the alarms that are on."""
        now = server_time(client)
        since = str(round((now - listing.SILENT_S) * 1000))
        seen = f"{self._prefix}:seen"
        known, online = client.pipeline([("ZCARD", seen), ("ZCOUNT", seen, since, "+inf")])
        return {"devices": {"known": known, "online": online}, "alarms": self._alarms(client, now)}

    def _alarms(self, client: BlockingRedis, now: float) -> list[dict[str, Any]]:
        """Those that were raised and not cleared since."""
        since = str(round(now * 1000) - DAY_MS)
        rows = client.command("XREVRANGE", f"{self._prefix}:event", "+", since, "COUNT", str(EVENTS))
        over: set[tuple[str, str, str]] = set()
        found = []
        for entry, row in rows:
            event = history.Found.read(entry, row).as_json()
            kind, data = event.get("type", ""), event["data"]
            if not kind.startswith("alarm."):
                continue
            which = (event.get("ident", ""), kind, str(data.get("name", "")))
            if which in over:
                continue
            over.add(which)
            if data.get("phase") != "cleared":
                where = {name: data.get(name) for name in ("position_id", "latitude", "longitude", "name", "since")}
                found.append({"ident": which[0], "type": kind, "time": event.get("time"), **where})
                if len(found) >= ALARMS:
                    break
        return found

    # -- one device

    def device(self, client: BlockingRedis, name: str) -> dict[str, Any]:
        """All that is known of a device."""
        return showing.show(client, self._prefix, ident(name), server_time(client), self._plugins).as_json()

    def track(self, client: BlockingRedis, name: str, hours: float) -> dict[str, Any]:
        """Where it was."""
        since = round((server_time(client) - hours * 3600) * 1000)
        return history.track(client, self._prefix, ident(name), since).as_json()

    def entries(
        self, client: BlockingRedis, name: str, streams: Sequence[str], before: int | None, count: int
    ) -> dict[str, Any]:
        """What happened to it, the newest first."""
        found = history.entries(client, self._prefix, ident(name), streams, before, min(count, MOST))
        return {"entries": [one.as_json() for one in found]}

    def trace(self, client: BlockingRedis, name: str, seconds: float) -> dict[str, Any]:
        """Trace it for so long; 0: not any more."""
        if not seconds:
            trace_off(client, self._prefix, ident(name))
            return {"until": None}
        try:
            until = trace_on(client, self._prefix, ident(name), seconds, server_time(client))
        except ValueError as error:
            raise Mistake(str(error)) from error
        return {"until": round(until * 1000)}

    def register(
        self, client: BlockingRedis, name: str, values: Mapping[str, str | None], adopt: bool = False
    ) -> dict[str, Any]:
        """Write its entry of the registry."""
        try:
            if adopt:
                registering.adopt(client, self._prefix, ident(name), values)
            else:
                registering.write(client, self._prefix, [(ident(name), values)])
        except registering.RegistryError as error:
            raise Mistake(str(error)) from error
        return {"registry": registering.entry(client, self._prefix, name)}

    # -- strangers

    def unrecognised(self, client: BlockingRedis) -> dict[str, Any]:
        """Traffic that nobody took."""
        return {"groups": strangers.unrecognised(strangers.dead(client, self._prefix))}

    def unknown(self, client: BlockingRedis) -> dict[str, Any]:
        """Devices that are not let in."""
        return {"idents": strangers.unknown(client, self._prefix, strangers.dead(client, self._prefix))}

    # -- frames

    def explain(self, text: str, registry: Mapping[str, str], now: float) -> dict[str, Any]:
        """What bytes say, given in hex."""
        try:
            data = bytes.fromhex(text)
        except ValueError as error:
            raise Mistake("that is no hex") from error
        if not 0 < len(data) <= EXPLAINED:
            raise Mistake(f"1 to {EXPLAINED:,} bytes can be explained, not {len(data):,}", 413)
        return explained(data, now, "tcp", self._plugins, self._limits, registry)

    # -- commands

    def commands(self) -> dict[str, Any]:
        """Those that there are, and what the devices know of them."""
        known = {plugin.name: {name: s._asdict() for name, s in plugin.commands.items()} for plugin in self._plugins}
        return {
            "commands": [
                self._described(name, definition) for name, definition in COMMANDS.items() if name != "cancel"
            ],
            "guard": list(GUARD),
            "sms": self._sms,
            "devices": known,
        }

    def _described(self, name: str, definition: Definition) -> dict[str, Any]:
        return {
            "name": name,
            "meaning": definition.meaning,
            "arguments": [
                {
                    "name": argument,
                    "kind": parameter.kind.__name__,
                    "required": parameter.required,
                    "least": _finite(parameter.least),
                    "most": _finite(parameter.most),
                    "choices": list(parameter.choices),
                    "meaning": parameter.meaning,
                }
                for argument, parameter in definition.parameters.items()
            ],
            "dangerous": definition.level is not None or not definition.again or name in ("server.set", "apn.set"),
            "guarded": definition.guarded,
            "secret": definition.secret,
            "max_ttl_s": definition.max_ttl_s,
            "enabled": name in self._enabled,
        }

    def give(self, client: BlockingRedis, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Give a device a command."""
        fields = {
            "ident": ident(name),
            "command": str(asked.get("command", "")),
            "args": json.dumps(asked.get("args") or {}),
            "ref": str(asked.get("ref") or secrets.token_hex(8)),
            "by": str(asked.get("by") or "the operator's page"),
        }
        if asked.get("ttl"):
            fields["ttl"] = str(asked["ttl"])
        for field in ("channel", "sms_after"):
            if asked.get(field):
                fields[field] = str(asked[field])
        if asked.get("guard"):
            fields["guard"] = json.dumps(asked["guard"])
        return self._add(client, fields)

    def cancel(self, client: BlockingRedis, ref: str) -> dict[str, Any]:
        """Take a command back."""
        fields = {"command": "cancel", "args": json.dumps({"ref": ref}), "ref": secrets.token_hex(8)}
        return self._add(client, {**fields, "by": "the operator's page"})

    def _add(self, client: BlockingRedis, fields: Mapping[str, str]) -> dict[str, Any]:
        try:
            request = Request.parse("0-0", fields)
        except CommandError as error:
            raise Mistake(str(error)) from error
        if request.command.name not in self._enabled:
            raise Mistake(f"{request.command.name} is not enabled: section [commands], key 'enabled'", 403)
        row = [text for pair in fields.items() for text in pair]
        entry = client.command("XADD", f"{self._prefix}:command", "*", *row)
        return {"ref": request.ref, "entry": entry.decode()}

    def command(self, client: BlockingRedis, ref: str) -> dict[str, Any]:
        """How a command stands, and its steps; nothing of a secret one's arguments."""
        row = client.command("HMGET", f"{self._prefix}:request:{ref}", "state", "final", "entry", "command", "ident")
        texts = [None if value is None else value.decode("utf-8", "replace") for value in row]
        state, final, entry, name, whose = texts
        start = (entry or "").partition("-")[0] or "-"
        steps = []
        for step, fields in client.command("XRANGE", f"{self._prefix}:result", start, "+", "COUNT", "10000"):
            event = history.Found.read(step, fields).as_json()
            if event["data"].get("ref") == ref:
                steps.append(event)
        if state is None and not steps:
            raise Mistake("nothing is known of it: no gateway has taken it yet, or it was too long ago", 404)
        ended = final == "1" or any(step["data"].get("final") is True for step in steps)
        return {"ref": ref, "state": state, "command": name, "ident": whose, "final": ended, "steps": steps}


def _finite(bound: float) -> float | None:
    """A bound, where there is one: JSON has no infinity."""
    return bound if math.isfinite(bound) else None


def _rows(devices: Iterable[listing.Device]) -> dict[str, Any]:
    return {"rows": [list(device) for device in devices]}


def processes(beats: Iterable[Beat]) -> list[dict[str, Any]]:
    """What runs, as the page shows it."""
    wanted = ("ready", "connections", "pending", "since", "version", "worker")
    return [
        {"name": beat.instance, "host": beat.host, **{name: beat.content.get(name) for name in wanted}}
        for beat in beats
    ]


def outcomes(counters: Mapping[str, int]) -> dict[str, int]:
    """What became of frames."""
    return {name: counters[name] for name in OUTCOMES if counters.get(name)}


def limits(counters: Mapping[str, int]) -> dict[str, int]:
    """Which limits were met, how often."""
    found = {name: n for name, n in counters.items() if name.startswith(("limited_", "closed_", "paused")) and n}
    return dict(sorted(found.items()))


def groups(beats: Iterable[Beat]) -> list[dict[str, Any]]:
    """Consumer groups; one process tells of them."""
    found = []
    for beat in beats:
        streams = beat.content.get("groups")
        for stream, named in streams.items() if isinstance(streams, Mapping) else ():
            for name, figures in named.items():
                found.append({"stream": stream, "group": name, **figures})
    return found


def fullness(beat: Beat) -> float:
    """How full the journal of a process is; 1: as full as it may be."""
    size, limit = beat.journal.get("bytes"), beat.journal.get("limit")
    return size / limit if isinstance(size, int) and isinstance(limit, int) and limit > 0 else 0.0


def journal(beats: Iterable[Beat]) -> dict[str, Any]:
    """All journals together."""
    all_of = [beat.journal for beat in beats]
    oldest = [held["oldest"] for held in all_of if held.get("oldest")]
    summed = {name: sum(int(held.get(name) or 0) for held in all_of) for name in ("frames", "bytes", "limit")}
    return {**summed, "oldest": round(min(oldest) * 1000) if oldest else None}
