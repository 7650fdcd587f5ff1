"""Many trackers at once, by way of Redis: a gateway that runs sends the texts, and stores what comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import uuid4

from gateway.entries import data_of, row
from gateway.fields import epoch, rfc3339
from gateway.fleet import registering
from gateway.provisioning.unit import Unit
from gateway.sinks.blocking import BlockingRedis
from gateway.sinks.script import Script
from gateway.sms.texts import Queued, added

#: How often it is looked at what has happened, s.
POLL_S: Final = 0.5
#: Entries of the result stream that are read at once.
READ: Final = 1000
#: For so long is kept where a tracker stands, s.
KEPT_S: Final = 30 * 86_400
#: Texts an hour: this command has a limit of its own.
NO_LIMIT: Final = 1_000_000_000


class Bounds(NamedTuple):
    """
    What a run may take.

    @ivar at_once: trackers that are set up at the same time.
    @ivar texts: texts that may be sent in all.
    """

    at_once: int
    texts: int


class Run:
    """
    All of them.

    @ivar sent: texts so far.
    """

    def __init__(
        self, client: BlockingRedis, prefix: str, units: Sequence[Unit], bounds: Bounds, now: float, by: str
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._units = {unit.ident: unit for unit in units}
        self._waiting = [unit for unit in units if not unit.over]
        self._active: dict[str, Unit] = {}
        self._bounds = bounds
        self._by = by
        self._script = Script.load("sms.lua")
        self.sent = 0
        #: called with each that has come to its end
        self.on_end: Callable[[Unit], None] = lambda unit: None
        # one that goes on may have been answered meanwhile
        since = min((unit.since for unit in units if unit.out), default=now)
        self._last = f"{int(since * 1000)}-0"

    @property
    def over(self) -> bool:
        """Whether all have come to their ends."""
        return not self._waiting and not self._active

    def turn(self, now: float) -> None:
        """See what has happened, and do what is to be done."""
        while self._waiting and len(self._active) < self._bounds.at_once:
            unit = self._waiting.pop(0)
            self._active[unit.ident] = unit
        self._see_texts(now)
        self._read(now)
        self._see_reports()
        for unit in list(self._active.values()):
            before = unit.dump()
            unit.tick(now)
            text = unit.wants()
            if text is not None and self.sent >= self._bounds.texts:
                unit.stop()
            elif text is not None:
                self._send(unit, text.template, text.name, now)
            if unit.dump() != before or unit.over:
                self._keep(unit)
            if unit.over:
                del self._active[unit.ident]
                self.on_end(unit)

    def _send(self, unit: Unit, template: str, name: str, now: float) -> None:
        id = uuid4().hex
        unit.began(id, now)
        self._keep(unit)  # first: what is not known to be sent would be sent twice
        about = {"channel": "sms", "ref": f"provision:{unit.ident}", "by": self._by, "raw_text": template}
        text = Queued(
            *(id, unit.ident, unit.protocol, unit.phone, template, name),
            *(unit.limits.answer_s, "", about),
        )
        head = ("add", f"{self._prefix}:", "gateway/provision", rfc3339(now), "0")
        args = (*head, *map(str, added(text, NO_LIMIT, NO_LIMIT)))
        self._client.command("EVAL", self._script.text, "1", f"{self._prefix}:sms", *args)
        self.sent += 1

    def _keep(self, unit: Unit) -> None:
        key = f"{self._prefix}:provision:{unit.ident}"
        flat = [part for pair in unit.dump().items() for part in pair]
        self._client.pipeline([("HSET", key, *flat), ("EXPIRE", key, str(KEPT_S))])

    def _see_texts(self, now: float) -> None:
        out = [unit for unit in self._active.values() if unit.out]
        asked = [("HMGET", f"{self._prefix}:sms:text:{unit.out}", "state", "reason") for unit in out]
        for unit, answer in zip(out, self._client.pipeline(asked) if asked else (), strict=True):
            if isinstance(answer, list) and answer[0] is not None:
                state, reason = ((one or b"").decode("utf-8", "replace") for one in answer)
                unit.became(state, reason, now)

    def _read(self, now: float) -> None:
        while True:
            found = self._client.command("XREAD", "COUNT", str(READ), "STREAMS", f"{self._prefix}:result", self._last)
            entries = found[0][1] if found else []
            for entry, flat in entries:
                self._last = entry.decode()
                fields = row(flat)
                unit = self._active.get(fields.get("ident", ""))
                if unit is None or fields.get("type") != "sms.received":
                    continue
                data = data_of(fields)
                came = epoch(fields.get("received", "")) or now
                if unit.out and came >= unit.since:  # what came before is to a text before
                    unit.heard(str(data.get("kind", "")), data.get("accepted"), str(data.get("reason", "")), now)
            if len(entries) < READ:
                return

    def _see_reports(self) -> None:
        moved = [unit for unit in self._active.values() if unit.moved and not unit.reported]
        asked = [("HGET", f"{self._prefix}:last:{unit.ident}", "received") for unit in moved]
        for unit, answer in zip(moved, self._client.pipeline(asked) if asked else (), strict=True):
            if isinstance(answer, bytes) and (received := epoch(answer.decode("latin-1"))) is not None:
                unit.report(received)


def prepared(
    client: BlockingRedis, prefix: str, units: Sequence[Unit], entries: Mapping[str, Mapping[str, str]]
) -> int:
    """
    Write into the registry what has to be known of the trackers, and go on from where they stood.

    @param entries: fields of the registry, by ident.
    @return: how many go on.
    """
    registering.write(client, prefix, [(unit.ident, dict(entries.get(unit.ident, {}))) for unit in units])
    resumed = 0
    answers = client.pipeline([("HGETALL", f"{prefix}:provision:{unit.ident}") for unit in units])
    for unit, flat in zip(units, answers, strict=True):
        if isinstance(flat, list) and flat and unit.load(row(flat)):
            resumed += 1
    return resumed


def as_json(unit: Unit) -> str:
    """A tracker's result, for machines."""
    shown: dict[str, Any] = {"ident": unit.ident, "verdict": unit.verdict or "interrupted", "reason": unit.reason}
    return json.dumps(shown | {"texts": unit.sent, "answered": unit.answered, "reported": unit.reported})
