"""
What consumers read: an entry of a stream as a typed event, and the contract that says which streams there are.

The other side of L{gateway.records}, and pure as that is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from gateway.errors import ContractMismatch, UnreadableEntry
from gateway.events import COLUMNS, CONTRACT_VERSION, STREAMS


@dataclass(frozen=True, slots=True)
class Event:
    """
    An entry of a stream.  Units are in the names, as in the contract; None is unknown.

    @ivar stream: by its short name: C{position}.
    @ivar entry: id of the entry in the stream.
    @ivar id: of the event; the same id is the same event, whatever its entry.
    @ivar time: when it happened.
    @ivar received: when the gateway had it.
    @ivar late: why the report is not live: C{order}, C{lag} or C{device}; empty when it is.
    @ivar data: what else is said of it; names and units are those of the contract.
    @ivar more: fields that this version does not know, as they are.
    """

    stream: str
    entry: str
    v: int
    id: str
    type: str
    source: str
    time: datetime
    received: datetime
    ident: str
    protocol: str
    device_id: str
    data: Mapping[str, Any]
    more: Mapping[str, str]
    # of reports alone
    latitude: float | None = None
    longitude: float | None = None
    altitude_m: float | None = None
    speed_kmh: float | None = None
    course_deg: int | None = None
    valid: bool | None = None
    satellites: int | None = None
    ignition: bool | None = None
    immobilizer: bool | None = None
    external_power: bool | None = None
    battery_pct: float | None = None
    odometer_km: float | None = None
    levels: tuple[str, ...] = ()
    status_word: str = ""
    late: str = ""
    transport: str = ""
    peer: str = ""

    @classmethod
    def parse(cls, stream: str, entry: str, row: Sequence[bytes]) -> Event:
        """
        Read an entry.

        @param row: its fields and values, one after the other.
        @raise UnreadableEntry: when it is none of the contract's.
        @raise ContractMismatch: when it is of another version of the contract.
        """
        try:
            texts = [part.decode() for part in row]
            fields = dict(zip(texts[::2], texts[1::2], strict=True))
            if (v := int(fields.pop("v"))) != CONTRACT_VERSION:
                raise ContractMismatch(
                    f"{stream} {entry} is of version {v} of the contract; this consumer reads {CONTRACT_VERSION}"
                )
            values = {name: read(fields.pop(name)) for name, read in _READ.items() if name in fields}
            return cls(stream, entry, v, more=fields, **values)
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            what = f"there is no field {error}" if isinstance(error, KeyError) else str(error)
            raise UnreadableEntry(f"not an entry of the contract: {what}"[:300]) from error


def row(flat: Iterable[bytes]) -> dict[str, str]:
    """Fields and values, one after the other, as a dict of text; whatever somebody wrote there."""
    texts = [one.decode("utf-8", "replace") for one in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def data_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """The data of an entry; empty where it is none of the contract's."""
    try:
        return _object(fields.get("data", "{}"))
    except (ValueError, RecursionError):
        return {}


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text[:32]!r} has no zone")
    return found


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("data is no JSON object")
    return found


def _flag(text: str) -> bool | None:
    if text not in ("", "0", "1"):
        raise ValueError(f"{text[:16]!r} is not 1, 0 or empty")
    return text == "1" if text else None


def _figure(text: str) -> float | None:
    value = float(text) if text else None
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{text[:16]!r} is no number")
    return value


def _whole(text: str) -> int | None:
    return int(text) if text else None


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


#: How each field is read, but for C{v}.
_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    **dict.fromkeys(("id", "type", "source", "ident", "protocol"), str),
    **dict.fromkeys(("time", "received"), _moment),
    "data": _object,
    **dict.fromkeys(COLUMNS, str),
    **dict.fromkeys(("latitude", "longitude", "altitude_m", "speed_kmh", "battery_pct", "odometer_km"), _figure),
    **dict.fromkeys(("course_deg", "satellites"), _whole),
    **dict.fromkeys(("valid", "ignition", "immobilizer", "external_power"), _flag),
    "levels": _list,
}


@lru_cache(maxsize=1024)
def chosen(kind: str, types: tuple[str, ...]) -> bool:
    """Whether a type is one of these; one that ends in a dot stands for all that begin so."""
    return any(kind == name or (name.endswith(".") and kind.startswith(name)) for name in types)


class Contract(NamedTuple):
    """
    What C{gateway:contract} says.

    @ivar streams: types by the short name of their stream.
    @ivar tags: of the shards; an empty one is none.
    """

    prefix: str
    streams: Mapping[str, tuple[str, ...]]
    columns: tuple[str, ...]
    tags: tuple[str, ...]

    @classmethod
    def parse(cls, text: bytes, key: str) -> Contract:
        """
        Read it.

        @param key: where it stands.
        @raise ContractMismatch: when it is of another version, or none at all.
        """
        try:
            found = json.loads(text)
            version = found["version"]
            if version != CONTRACT_VERSION:
                raise ContractMismatch(f"{key} is of version {version}; this consumer reads {CONTRACT_VERSION}")
            streams = {name.rpartition(":")[2]: tuple(types) for name, types in found["streams"].items()}
            tags = tuple(str(shard["tag"]) for shard in found["shards"])
            return cls(str(found["prefix"]), streams, tuple(found["columns"]), tags)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ContractMismatch(f"{key} is no contract of a gateway: {error!r}"[:300]) from error

    def check(self, prefix: str, stream: str, types: Iterable[str]) -> None:
        """
        Look whether there is what a consumer needs.

        @raise ContractMismatch: there is not.
        """
        if self.prefix != prefix:
            raise ContractMismatch(f"{prefix}:contract speaks of the prefix {self.prefix!r}")
        if stream not in self.streams:
            names = ", ".join(self.streams)
            raise ContractMismatch(f"{prefix}:contract has no stream {stream!r} (there are: {names})")
        if not self.tags:
            raise ContractMismatch(f"{prefix}:contract has no shard")
        if stream == "position" and (missing := [name for name in COLUMNS if name not in self.columns]):
            raise ContractMismatch(f"{prefix}:contract has no column {', '.join(missing)}")
        for name in types:
            if not any(chosen(kind, (name,)) for kind in self.streams[stream]):
                raise ContractMismatch(f"{prefix}:contract has no type {name!r} on the stream {stream!r}")

    def keys(self, stream: str) -> list[str]:
        """The keys of a stream, one a shard."""
        return [f"{self.prefix}:{{{tag}}}:{stream}" if tag else f"{self.prefix}:{stream}" for tag in self.tags]


def known(stream: str) -> tuple[str, ...]:
    """The types that this version knows on a stream."""
    return STREAMS.get(stream, ())
