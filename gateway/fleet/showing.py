"""
Why a device is not on the map: all that is known of one, and what follows from it in one line.

What is said first is what keeps it from being seen; what is said then is what
an operator would ask next.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from gateway.decoding import facts_of
from gateway.entries import row
from gateway.fields import rfc3339
from gateway.fleet import registering, strangers
from gateway.fleet.history import Search
from gateway.fleet.listing import SILENT_S, Device, some
from gateway.interfaces import Fact
from gateway.places import beats
from gateway.registry import Plugin
from gateway.sinks.blocking import BlockingRedis
from gateway.terminal import age
from gateway.tracing import traced

#: Reports of so long are counted, s, among so many entries of all devices at most.
LATELY_S: Final = 600.0
ENTRIES: Final = 100_000
#: So many refusals are shown.
REFUSALS: Final = 20


class Lately(NamedTuple):
    """
    What came of a device in the last minutes.

    @ivar reports: how many; C{fixes}: of them with a fix; C{late}: of them late.
    @ivar seconds: of how long that is: less than L{LATELY_S} where too much of others' had to be looked through.
    """

    reports: int
    fixes: int
    late: int
    seconds: float


class Shown(NamedTuple):
    """
    All that is known of a device.

    @ivar last: its last state as it stands in Redis.
    @ivar holder: the gateway that has it.
    @ivar facts: what its last frame says, part by part.
    @ivar refusals: what was turned away of it, or from where it was heard last.
    @ivar near: idents that it may have been meant for.
    @ivar commands: references of those that wait.
    @ivar gateways: those that run, and whether each is fit.
    """

    ident: str
    now: float
    device: Device
    registry: Mapping[str, str]
    last: Mapping[str, str]
    state: Mapping[str, Any]
    holder: str
    lately: Lately
    frame: bytes
    frame_at: float | None
    facts: Sequence[Fact]
    refusals: Sequence[Mapping[str, Any]]
    near: Sequence[str]
    commands: Sequence[str]
    traced_until: float | None
    gateways: Mapping[str, bool]

    @property
    def verdict(self) -> str:
        """What there is to say of it, in a line."""
        return verdict(self)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "ident": self.ident,
            "verdict": self.verdict,
            "now": round(self.now * 1000),
            "device": self.device._asdict(),
            "registry": dict(self.registry),
            "last": dict(self.last),
            "interval_s": self.state.get("interval") or None,
            "acc": self.state.get("memory", {}).get("acc") if isinstance(self.state.get("memory"), dict) else None,
            "conflict": _conflict(self.state),
            "holder": self.holder or None,
            "lately": self.lately._asdict(),
            "frame": {
                "hex": self.frame.hex(),
                "at": None if self.frame_at is None else round(self.frame_at * 1000),
                "facts": [fact._asdict() for fact in self.facts],
            },
            "refusals": list(self.refusals),
            "near": list(self.near),
            "commands": list(self.commands),
            "traced_until": None if self.traced_until is None else round(self.traced_until * 1000),
            "gateways": dict(self.gateways),
        }


def show(client: BlockingRedis, prefix: str, ident: str, now: float, plugins: Sequence[Plugin]) -> Shown:
    """
    All that is known of a device.

    @param now: UTC epoch seconds.
    """
    (device,) = some(client, prefix, [ident], now)
    registry = registering.entry(client, prefix, ident)
    last, private, holder, waiting = client.pipeline(
        [
            ("HGETALL", f"{prefix}:last:{ident}"),
            ("HGET", f"{prefix}:state:{ident}", "private"),
            ("GET", f"{prefix}:session:{ident}"),
            ("LRANGE", f"{prefix}:pending:{ident}", "0", "-1"),
        ]
    )
    state = _state(private)
    frame, frame_at = _frame(state)
    dead = list(strangers.dead(client, prefix))
    refusals = _refusals(dead, ident, device)
    plugin = next((one for one in plugins if one.name == state.get("protocol")), None)
    near: Sequence[str] = ()
    if device.seen is None or not registry:
        others = {name.decode("utf-8", "replace") for name in client.command("ZRANGE", f"{prefix}:seen", "0", "-1")}
        known = {entry.ident for entry in dead if entry.kind in strangers.NOT_LET_IN}
        near = strangers.near(ident, others | known | {name for name, _ in registering.everything(client, prefix)})
    return Shown(
        ident,
        now,
        device,
        registry,
        row(last) if isinstance(last, list) else {},
        state,
        holder.decode("utf-8", "replace") if isinstance(holder, bytes) else "",
        _lately(client, prefix, ident, now),
        frame,
        frame_at,
        facts_of(plugin, frame, registry) if frame else (),
        refusals,
        near,
        [ref.decode("utf-8", "replace") for ref in waiting] if isinstance(waiting, list) else [],
        traced(client, prefix, now).get(ident),
        {name: bool(beat.content.get("ready")) for name, beat in beats(client, prefix).items()},
    )


def _state(private: Any) -> Mapping[str, Any]:
    try:
        state = json.loads(private) if isinstance(private, bytes) else {}
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}


def _frame(state: Mapping[str, Any]) -> tuple[bytes, float | None]:
    try:
        at = float(state["raw_at"])
        return bytes.fromhex(state.get("raw", "")), at if 0 < at < math.inf else None
    except (KeyError, TypeError, ValueError):
        return b"", None


def _lately(client: BlockingRedis, prefix: str, ident: str, now: float) -> Lately:
    since = now - LATELY_S
    search = Search(client, f"{prefix}:position", ident, until=str(int(since * 1000)), entries=ENTRIES, seconds=1.0)
    reports = fixes = late = 0
    for found in search:
        reports += 1
        fixes += bool(found.fields.get("latitude"))
        late += bool(found.fields.get("late"))
    place = search.place_ms
    seconds = LATELY_S if search.complete or place is None else min(max(now - place / 1000, 0.0), LATELY_S)
    return Lately(reports, fixes, late, seconds)


def _refusals(dead: Sequence[strangers.Entry], ident: str, device: Device) -> list[dict[str, Any]]:
    """The newest entries of the dead stream of the device, or of where it was heard last."""
    address = (device.peer or "").rpartition(":")[0]
    found = []
    for entry in dead:
        mine = entry.ident == ident
        if not mine and not (address and entry.address == address and not entry.ident):
            continue
        found.append(
            {
                "type": entry.kind,
                "at": entry.at,
                "by": "ident" if mine else "address",
                "reason": entry.reason,
                "limit": entry.data.get("limit"),
                "peer": entry.data.get("peer"),
                "frame": entry.frame[:64].hex(),
            }
        )
        if len(found) >= REFUSALS:
            break
    return found


def _conflict(state: Mapping[str, Any]) -> list[str] | None:
    """The peers that send as this device, who was first before the other; None: there is one."""
    said = state.get("senders")
    if not isinstance(said, list) or len(said) < 6 or not said[5]:
        return None
    peer, before, first = str(said[0]), str(said[2]), str(said[5])
    return [first, before if first == peer else peer]


# -- the line


def verdict(shown: Shown) -> str:
    """What there is to say of a device, in a line: what keeps it from being seen first."""
    return "; ".join([*_first(shown), *_then(shown)])


def _first(shown: Shown) -> list[str]:
    """Where it stands: never heard, turned away, silent, or reporting."""
    device, now = shown.device, shown.now
    ready = list(shown.gateways.values())
    said = []
    if not ready:
        said.append("no gateway is running on this Redis")
    elif not any(ready):
        said.append("the gateway is not ready: what comes may be in its journal")
    refused = [one for one in shown.refusals if one["by"] == "ident"]
    newest = refused[0] if refused else None
    disabled = device.state == "disabled"
    if disabled:
        said.append("the registry turns it away (enabled 0)" + (", and it keeps trying" if refused else ""))
        return said
    turned = newest is not None and newest["type"] in strangers.NOT_LET_IN
    if newest is not None and turned and (device.seen is None or (newest["at"] or 0) > device.seen):
        said.append(f"turned away {_ago(newest['at'], now)} ago: {newest['limit'] or newest['reason']}")
        if newest["limit"] is None and not device.registered:
            said.append(f"let it in with: gateway registry adopt {shown.ident}")
    elif device.seen is None:
        said.append("never heard" + ("" if device.registered else ", and not in the registry"))
        if newest is not None:
            said.append(f"but it sent what could not be read, {_ago(newest['at'], now)} ago: {newest['reason']}")
        if shown.near:
            said.append(f"did you mean {', '.join(shown.near[:3])}?")
    elif now * 1000 - device.seen >= SILENT_S * 1000:
        said.append(f"silent for {_ago(device.seen, now)}")
        if device.battery_pct is not None and device.battery_pct <= 20:
            said.append(f"its battery was at {device.battery_pct:g} %")
        if device.external_power is False:
            said.append("it had lost its supply")
    else:
        said.append(_reporting(shown))
    return said


def _reporting(shown: Shown) -> str:
    device, lately = shown.device, shown.lately
    there = "connected" if shown.holder else "heard"
    if not shown.holder:
        there = f"heard {_ago(device.seen, shown.now)} ago"
    minutes = max(round(lately.seconds / 60), 1)
    reports = f"{lately.reports} report{'s' * (lately.reports != 1)} in {minutes} minute{'s' * (minutes != 1)}"
    if not lately.reports:
        return f"{there}, no report in {minutes} minutes, it only says that it is there"
    if lately.fixes:
        without = lately.reports - lately.fixes
        return f"{there}, {reports}" + (f", {without} of them without a fix" if without else "")
    if device.fix_time is None:
        return f"{there}, {reports}, and never one with a fix: has it a view of the sky?"
    return f"{there}, {reports}, none with a fix since {_when(device.fix_time, shown.now)}"


def _then(shown: Shown) -> list[str]:
    """What an operator would ask next."""
    device, now, said = shown.device, shown.now, []
    if (conflict := _conflict(shown.state)) is not None:
        said.append(f"two senders use this ident: {conflict[0]} and {conflict[1]}")
    heard = device.seen is not None and device.state not in ("disabled", "never")
    if heard and shown.lately.late and shown.lately.late == shown.lately.reports:
        said.append(f"all of them late ({device.late or 'order'}): it sends its buffer, or its clock is wrong")
    elif heard and device.time is not None and abs(now * 1000 - device.time) > 86_400_000 and device.state != "silent":
        said.append(f"its newest report is of {_when(device.time, now)}: is its clock right?")
    if heard and device.levels:
        said.append(f"alarm: {', '.join(device.levels)}")
    memory = shown.state.get("memory")
    acc = memory.get("acc") if isinstance(memory, dict) else None
    wired = shown.registry.get("acc_wired", "")
    if wired == "0" or (not wired and acc == "unwired"):
        said.append("ACC not wired")
    if device.immobilizer:
        said.append("relay cut")
    if shown.commands:
        said.append(f"{len(shown.commands)} command{'s' * (len(shown.commands) != 1)} waiting")
    others = [one for one in shown.refusals if one["type"] in strangers.NOT_READ]
    if others and heard:
        many = f"{len(others)}{'+' * (len(shown.refusals) >= REFUSALS)}"
        plural = "s" * (len(others) != 1)
        mine = others[0]["by"] == "ident"
        what = f"frame{plural} of it" if mine else f"connection{plural} or frame{plural} from its address"
        said.append(f"{many} {what} could not be read, the last {_ago(others[0]['at'], now)} ago")
    limits = sorted({str(one["limit"]) for one in shown.refusals if one["limit"]})
    if limits:
        said.append(f"met the limit {', '.join(limits)}")
    return said


def _ago(at: int | None, now: float) -> str:
    return age(now - at / 1000) if at is not None else "some time"


def _when(at: int, now: float) -> str:
    """A time of the day where it is of today, else with its date."""
    text = rfc3339(at / 1000)
    return text[11:16] if text[:10] == rfc3339(now)[:10] else f"{text[:10]} {text[11:16]}"
