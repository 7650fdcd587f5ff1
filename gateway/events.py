"""
The stream contract: event types, fields, columns, units and the deterministic event id.

What stands here is what consumers see.  C{docs/contract.rst} describes it in
words, C{docs/contract.schema.json} is made from it (C{python -m gateway.events}),
and tests hold the three equal.  A change of a field, a type or a key raises
L{CONTRACT_VERSION}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

CONTRACT_VERSION: Final = 1

#: What every entry starts with, in this order.
ENVELOPE: Final = ("v", "id", "type", "source", "time", "received", "ident", "protocol")

#: What an entry of the position stream goes on with, always all of them, before C{data}.
COLUMNS: Final = (
    "device_id",
    "latitude",
    "longitude",
    "altitude_m",
    "speed_kmh",
    "course_deg",
    "valid",
    "satellites",
    "ignition",
    "immobilizer",
    "external_power",
    "battery_pct",
    "odometer_km",
    "levels",
    "status_word",
    "late",
    "transport",
    "peer",
)

#: What an ident may look like; everything that becomes part of a key is held against it.
IDENT: Final = re.compile(r"[0-9A-Za-z_.-]{3,32}")

#: Stream name (after the prefix) -> the event types that it carries.
STREAMS: Final[Mapping[str, tuple[str, ...]]] = {
    "position": ("position", "status"),
    "event": (
        *(
            f"alarm.{name}"
            for name in (
                "overspeed geofence.enter geofence.exit sos vibration theft power.cut battery.low door tamper tow "
                "ignition.illegal harsh.acceleration harsh.braking harsh.cornering crash jamming fatigue "
                "temperature fuel gnss other"
            ).split()
        ),
        "state.ignition",
        "state.immobilizer",
        "state.armed",
        "device.identity.conflict",
        "device.sim.changed",
        "device.quality",
        "device.silent",
        "device.back",
    ),
    "link": ("device.connected", "device.disconnected"),
    "result": (
        *(
            f"command.{name}"
            for name in (
                "queued sending sent confirmed verified mismatch failed expired superseded cancelled refused"
            ).split()
        ),
        "sms.received",
        "sms.sent",
        "sms.delivered",
        "sms.failed",
    ),
    "raw": ("frame.raw.up", "frame.raw.down"),
    "dead": (
        "frame.undecodable",
        "frame.unauthorised",
        "frame.unrecognised",
        "frame.refused",
        "device.unknown",
        "device.rejected",
    ),
}

#: Event type -> stream name.
STREAM_OF: Final[Mapping[str, str]] = {kind: stream for stream, kinds in STREAMS.items() for kind in kinds}

#: Levels that are states of the vehicle: published on every change, never held off.
STATES: Final = frozenset({"ignition", "immobilizer", "armed"})

#: Decimals that a figure has on the streams, wherever it stands; devices need not round.
DECIMALS: Final = {"latitude": 6, "longitude": 6, "last_latitude": 6, "last_longitude": 6, "speed_kmh": 2}

#: How many bytes of a frame an entry of the dead stream shows.
DEAD_BYTES: Final = 512
#: And so much of one that is traced.
RAW_BYTES: Final = 4096


class Attribute(NamedTuple):
    """One name of the vocabulary: its JSON type, and what it means with its unit."""

    kind: str
    meaning: str


_TEXT: Final = "string"
_NUMBER: Final = "number"
_FLAG: Final = "boolean"

#: The vocabulary: an event's attributes, by the names they keep from wire to stream.
ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    "latitude": Attribute(_NUMBER, "degrees WGS84, north positive, 6 decimals; only of a valid fix"),
    "longitude": Attribute(_NUMBER, "degrees WGS84, east positive, 6 decimals; only of a valid fix"),
    "altitude_m": Attribute(_NUMBER, "metres above sea level"),
    "speed_kmh": Attribute(_NUMBER, "kilometres per hour, 2 decimals; only of a valid fix"),
    "course_deg": Attribute(_NUMBER, "course over ground in whole degrees, 0-359"),
    "valid": Attribute(_FLAG, "the receiver vouches for the fix"),
    "satellites": Attribute(_NUMBER, "satellites used"),
    "ignition": Attribute(_FLAG, "ignition on"),
    "immobilizer": Attribute(_FLAG, "relay cut"),
    "external_power": Attribute(_FLAG, "fed by the vehicle"),
    "battery_pct": Attribute(_NUMBER, "the device's own battery, percent"),
    "odometer_km": Attribute(_NUMBER, "kilometres"),
    "accuracy_m": Attribute(_NUMBER, "metres within which the position is right, as the device reckons"),
    "hdop": Attribute(_NUMBER, "horizontal dilution of precision"),
    "charging": Attribute(_FLAG, "its battery is being charged"),
    "motion": Attribute(_FLAG, "the device takes itself to be moving"),
    "activity": Attribute(_TEXT, "what its bearer does, in the device's own word: still, walking, in_vehicle"),
    "driver_id": Attribute(_TEXT, "who drives, as the device says"),
    "levels": Attribute("array", "what is on, by level name, without ignition and immobilizer"),
    "status_word": Attribute(_TEXT, "the device's own status word, upper-case hex"),
    "late": Attribute(_TEXT, "order | lag | device: why the report is not live"),
    "time_source": Attribute(_TEXT, "server | device-corrected; absent when `time` is the device's own"),
    "device_time": Attribute(_TEXT, "the time that the device gave, where `time` is another"),
    "time_correction_s": Attribute(_NUMBER, "seconds that were added to the device's time"),
    "clock": Attribute(_TEXT, "frozen: the device's clock stands still"),
    "last_latitude": Attribute(_NUMBER, "degrees WGS84 of the last fix, where there is none now"),
    "last_longitude": Attribute(_NUMBER, "degrees WGS84 of the last fix, where there is none now"),
    "last_fix_time": Attribute(_TEXT, "RFC 3339 time of the last fix, where known"),
    "message_type": Attribute(_TEXT, "the device's own name of the message, where it is not its usual report"),
    "raw_text": Attribute(
        _TEXT, "the text of a message that carries no position; of an SMS, {password} where that stands"
    ),
    "tail": Attribute(_TEXT, "fields after those that were read, as they came"),
    "reply_text": Attribute(_TEXT, "what the device says of a command"),
    "mcc": Attribute(_TEXT, "mobile country code"),
    "mnc": Attribute(_TEXT, "mobile network code"),
    "lac": Attribute(_NUMBER, "location area code"),
    "cid": Attribute(_NUMBER, "cell id"),
    "cells": Attribute("array", "cells in view: {mcc, mnc, lac, cid, rssi_dbm}"),
    "csq": Attribute(_NUMBER, "signal of the mobile network, 0-31 as AT+CSQ has it"),
    "wifi": Attribute("array", "access points in view: {mac, rssi_dbm}"),
    "imei": Attribute(_TEXT, "IMEI"),
    "iccid": Attribute(_TEXT, "SIM card number without padding"),
    "iccid_before": Attribute(_TEXT, "SIM card number before a change"),
    "phone": Attribute(_TEXT, "phone number, as the device has it"),
    "battery_raw": Attribute(_NUMBER, "the device's own battery figure, as it sends it: index, percent or another"),
    "supply_v": Attribute(_NUMBER, "volts of the vehicle, as the device measures them"),
    "ignition_bit": Attribute(_FLAG, "what the ignition's wire says, where it is not connected"),
    "firmware": Attribute(_TEXT, "model and version of the device's firmware"),
    "firmware_date": Attribute(_TEXT, "day on which its firmware was built"),
    "server": Attribute(_TEXT, "host:port that the device reports to"),
    "apn": Attribute(_TEXT, "access point name that the device uses"),
    "intervals_s": Attribute("array", "seconds between reports that the device is set to, in its own order"),
    "io": Attribute("object", "unknown inputs by name"),
    "repeat_of": Attribute(_TEXT, "id of the report that the device repeats byte by byte"),
    "state": Attribute(_TEXT, "unknown: Redis was away when the session began"),
    "phase": Attribute(_TEXT, "raised | cleared | active"),
    "origin": Attribute(_TEXT, "device | gateway: who found the alarm"),
    "name": Attribute(_TEXT, "which one: alarm.other, alarm.tamper: <plugin>.<word>; device.quality: what it is about"),
    "since": Attribute(_TEXT, "RFC 3339 time since when the level is as it is"),
    "raised_id": Attribute(_TEXT, "id of the event that raised what is cleared"),
    "duration_s": Attribute(_NUMBER, "seconds that it was on"),
    "position_id": Attribute(_TEXT, "id of the report that it came with"),
    "armed": Attribute(_FLAG, "armed"),
    "reason": Attribute(_TEXT, "why, in words"),
    "evidence": Attribute("object", "the figures that it follows from"),
    "setting": Attribute(_TEXT, "the field and value of the registry that settle it: acc_wired=0"),
    "frame": Attribute(
        _TEXT, f"the first {DEAD_BYTES} bytes in hex; {RAW_BYTES:,} of frame.raw.*; of what is secret none"
    ),
    "frame_bytes": Attribute(_NUMBER, "how long the frame is"),
    "outcome": Attribute(_TEXT, "what became of the frame: published, duplicate, refused, undecodable, unauthorised"),
    "refused": Attribute("object", "the event that was refused: its type, time and id"),
    "ref": Attribute(_TEXT, "reference of the command: the asker's, else the id of its entry"),
    "request": Attribute(_TEXT, "id of the command's entry on the command stream"),
    "command": Attribute(_TEXT, "name of the command"),
    "args": Attribute("object", "arguments of the command; of a secret one none"),
    "by": Attribute(_TEXT, "who asked for it"),
    "channel": Attribute(_TEXT, "data | sms: how the device is told"),
    "kind": Attribute(_TEXT, "what an SMS of the device is: position | alarm | configuration | answer | unmatched"),
    "accepted": Attribute(_FLAG, "whether an SMS of the device says that it obeys; absent: it says nothing of that"),
    "authenticated": Attribute(_FLAG, "false: it came by SMS, and the number of its sender can be forged"),
    "uncertain": Attribute(_FLAG, "whether the provider has the SMS is not known; it is not sent again"),
    "final": Attribute(_FLAG, "nothing more follows of this command"),
    "attempt": Attribute(_NUMBER, "how often the command was sent, this time included"),
    "expires": Attribute(_TEXT, "RFC 3339 time after which the command is not sent any more"),
    "sent": Attribute(_TEXT, "the bytes that were sent, in hex; of a secret command none"),
    "sent_time": Attribute(_TEXT, "RFC 3339 time at which they were sent"),
    "answered": Attribute(_TEXT, "the frame that the device answered with, in hex; to a secret command none"),
    "answered_time": Attribute(_TEXT, "RFC 3339 time at which it came"),
    "next_report": Attribute(_TEXT, "RFC 3339 time at which the device is expected to report next"),
    "superseded_by": Attribute(_TEXT, "reference of the command that takes its place"),
    "warning": Attribute(_TEXT, "what whoever asked should know"),
    "guard": Attribute("object", "when the vehicle counts as standing: max_speed_kmh, min_apart_s, max_age_s"),
    "limit": Attribute(_TEXT, "which of [limits] was met"),
    "times": Attribute(_NUMBER, "how often it was met since that was last said"),
    "peer": Attribute(_TEXT, "ip:port, [ip6]:port"),
    "peers": Attribute("array", "who sends as the device: who was there first, and the other"),
    "transport": Attribute(_TEXT, "tcp | udp | http | sms"),
}


class Event(NamedTuple):
    """
    One thing that a frame says.  (A NamedTuple: half the price of a frozen dataclass on the hot path.)

    @ivar type: one of the contract's types.
    @ivar time: the device's own time, UTC epoch seconds, or None where the frame has none.
    @ivar attributes: names of L{ATTRIBUTES} -> values; unknown is absent.
    """

    type: str
    time: float | None
    attributes: dict[str, Any]


def event_digest(
    ident: str, protocol: str, frame: bytes, type: str, index: int = 0, received: str | None = None
) -> bytes:
    """
    The 16 bytes whose hex form is an event's id.

    @param frame: the frame as delimited, no CR or LF after it.
    @param index: the event's place in the frame.
    @param received: RFC 3339 text of the time of receipt, only for a frame without a time of its own.
    """
    head = f"{ident}\0{protocol}\0".encode()
    tail = f"\0{type}\0{index}\0" if received is None else f"\0{type}\0{index}\0{received}\0"
    return blake2b(head + len(frame).to_bytes(4, "big") + frame + tail.encode(), digest_size=16).digest()


def rounded(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with the decimals of the contract; never -0.0."""
    fixed = dict(attributes)
    for name, places in DECIMALS.items():
        if fixed.get(name) is not None:
            fixed[name] = round(fixed[name], places) + 0.0
    return fixed


def json_schema() -> dict[str, Any]:
    """The contract as a JSON Schema of an entry: its fields as text, C{data} as the object it holds."""
    text = {"type": "string"}
    time = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}
    flag = {"enum": ["", "0", "1"]}

    def number(pattern: str) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^({pattern})?$"}

    columns: dict[str, Any] = dict.fromkeys(COLUMNS, text)
    columns |= dict.fromkeys(("valid", "ignition", "immobilizer", "external_power"), flag)
    columns |= {
        "latitude": number(r"-?\d{1,2}\.\d{6}"),
        "longitude": number(r"-?\d{1,3}\.\d{6}"),
        "altitude_m": number(r"-?\d+(\.\d+)?"),
        "speed_kmh": number(r"\d+\.\d\d"),
        "course_deg": number(r"[0-2]?\d?\d|3[0-5]\d"),
        "satellites": number(r"\d+"),
        "battery_pct": number(r"\d+(\.\d+)?"),
        "odometer_km": number(r"\d+(\.\d+)?"),
        "late": {"enum": ["", "order", "lag", "device"]},
        "transport": {"enum": ["tcp", "udp", "http", "sms"]},
    }
    envelope = {
        "v": {"const": str(CONTRACT_VERSION)},
        "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "type": text,
        "source": {"type": "string", "pattern": "^gateway/"},
        "time": time,
        "received": time,
        "ident": {"type": "string", "pattern": f"^({IDENT.pattern})?$"},
        "protocol": text,
    }
    data = {
        "type": "object",
        "properties": {name: {"type": a.kind, "description": a.meaning} for name, a in ATTRIBUTES.items()},
    }

    def of(kinds: tuple[str, ...], fields: dict[str, Any]) -> dict[str, Any]:
        properties = {**envelope, **fields, "type": {"enum": list(kinds)}, "data": {"$ref": "#/$defs/data"}}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"An entry of the gateway's streams, contract version {CONTRACT_VERSION}",
        "$defs": {
            "data": data,
            **{
                stream: of(kinds, columns if stream == "position" else {"device_id": text})
                for stream, kinds in STREAMS.items()
            },
        },
        "oneOf": [{"$ref": f"#/$defs/{stream}"} for stream in STREAMS],
    }


if __name__ == "__main__":
    import json

    print(json.dumps(json_schema(), indent=1))
