"""What came and was not taken: traffic that nobody recognised, and devices that are not let in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.entries import data_of, row
from gateway.fleet.listing import ms
from gateway.identity import disabled
from gateway.places import keys
from gateway.sinks.blocking import BlockingRedis
from gateway.terminal import printable

#: The dead stream is read so far back, and so many entries at once.
MOST: Final = 20_000
PAGE: Final = 1000
#: So much of a frame makes its signature, and is shown.
SIGNATURE_BYTES: Final = 24
SHOWN_BYTES: Final = 64
ADDRESSES: Final = 8
REASONS: Final = 4
GROUPS: Final = 200

#: What is of a device that was not let in; and what nobody could read.
NOT_LET_IN: Final = frozenset({"device.unknown", "device.rejected", "frame.unauthorised"})
NOT_READ: Final = frozenset({"frame.unrecognised", "frame.undecodable"})


class Entry:
    """
    An entry of the dead stream.

    @ivar at: when it came, UTC epoch ms.
    @ivar frame: as much of it as is kept.
    """

    __slots__ = ("at", "data", "frame", "ident", "kind", "protocol")

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.kind = fields.get("type", "")
        self.ident = fields.get("ident", "")
        self.protocol = fields.get("protocol", "")
        self.at = ms(fields.get("received"))
        self.data: Mapping[str, Any] = data_of(fields)
        try:
            self.frame = bytes.fromhex(str(self.data.get("frame", "")))
        except ValueError:
            self.frame = b""

    @property
    def address(self) -> str:
        """Where it came from, without the port."""
        return str(self.data.get("peer", "")).rpartition(":")[0]

    @property
    def reason(self) -> str:
        """Why."""
        return str(self.data.get("reason", ""))


def dead(client: BlockingRedis, prefix: str) -> Iterator[Entry]:
    """The dead stream, the newest first."""
    end, left = "+", MOST
    while left > 0:
        rows = client.command("XREVRANGE", f"{prefix}:dead", end, "-", "COUNT", str(min(PAGE, left)))
        for _, flat in rows:
            yield Entry(row(flat))
        if len(rows) < min(PAGE, left):
            return
        left -= len(rows)
        end = f"({rows[-1][0].decode()}"


def signature(frame: bytes) -> str:
    """What frames of one kind have in common: their beginning, with digits and letters as such."""
    text = frame[:SIGNATURE_BYTES]
    if text and sum(32 <= byte < 127 or byte in b"\r\n\t" for byte in text) >= len(text) - 1:
        shape = re.sub("[a-z]+", "a", re.sub("[0-9]+", "9", text.decode("latin-1").split("\n")[0].rstrip("\r")))
        return printable(shape[:SIGNATURE_BYTES])
    return text[:4].hex(" ") + f" ({'short' if len(frame) < SIGNATURE_BYTES else 'binary'})" if text else "nothing"


class Group:
    """Traffic of one kind."""

    def __init__(self, entry: Entry, shape: str) -> None:
        self.kind, self.protocol, self.signature = entry.kind, entry.protocol, shape
        self.transport = str(entry.data.get("transport", ""))
        self.count = 0
        self.newest = self.oldest = entry.at
        self.frame = entry.frame
        self.frame_bytes = entry.data.get("frame_bytes")
        self.addresses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def add(self, entry: Entry) -> None:
        """One more, older than those before."""
        self.count += 1
        self.oldest = entry.at
        self.addresses[entry.address] += 1
        if len(self.reasons) < 64 or entry.reason in self.reasons:
            self.reasons[entry.reason] += 1

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "type": self.kind,
            "protocol": self.protocol or None,
            "transport": self.transport,
            "signature": self.signature,
            "count": self.count,
            "first": self.oldest,
            "last": self.newest,
            "frame": self.frame.hex(),
            "frame_bytes": self.frame_bytes,
            "text": printable(self.frame[:SHOWN_BYTES].decode("latin-1")),
            "addresses": [{"address": name, "count": n} for name, n in self.addresses.most_common(ADDRESSES)],
            "more_addresses": max(len(self.addresses) - ADDRESSES, 0),
            "reasons": [{"reason": name, "count": n} for name, n in self.reasons.most_common(REASONS)],
        }


def unrecognised(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Traffic that nobody recognised, or that could not be read, by what it looks like; the most of it first."""
    groups: dict[tuple[str, str, str, str], Group] = {}
    for entry in entries:
        if entry.kind not in NOT_READ:
            continue
        shape = signature(entry.frame)
        where = (entry.kind, entry.protocol, str(entry.data.get("transport", "")), shape)
        group = groups.get(where)
        if group is None:
            if len(groups) >= GROUPS:
                where = (entry.kind, "", "", "others")
                group = groups.get(where)
            if group is None:
                group = groups[where] = Group(entry, where[3])
        group.add(entry)
    return [group.as_json() for group in sorted(groups.values(), key=lambda group: -group.count)]


def unknown(client: BlockingRedis, prefix: str, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Devices that were not let in and are not by now, those that came last first, with what they sent."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry.kind not in NOT_LET_IN or not entry.ident:
            continue
        said = found.get(entry.ident)
        if said is None:
            said = found[entry.ident] = {
                "ident": entry.ident,
                "protocol": entry.protocol or None,
                "count": 0,
                "first": entry.at,
                "last": entry.at,
                "reason": entry.reason,
                "peer": entry.data.get("peer"),
                "transport": entry.data.get("transport"),
                "frame": entry.frame.hex(),
                "text": printable(entry.frame[:SHOWN_BYTES].decode("latin-1")),
            }
        said["count"] += entry.kind == "frame.unauthorised"
        said["first"] = entry.at
    registered = {ident for ident, _ in keys(client, f"{prefix}:registry:")} if found else set()
    there = [ident for ident in found if ident in registered]
    entries = client.pipeline([("HGETALL", f"{prefix}:registry:{ident}") for ident in there])
    off = {ident: isinstance(flat, list) and disabled(row(flat)) for ident, flat in zip(there, entries, strict=True)}
    for ident in there:
        if not off[ident]:  # adopted since
            del found[ident]
    for ident, said in found.items():
        said["disabled"] = ident in off
        said["near"] = near(ident, registered)
    return list(found.values())


def near(ident: str, others: Iterable[str]) -> list[str]:
    """Idents that this one may have been meant for: one character off, two changed about, or one inside the other."""
    return sorted(other for other in others if other != ident and _near(ident, other))[:8]


def _near(one: str, other: str) -> bool:
    if len(one) == len(other):
        apart = [at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
        if len(apart) == 1:
            return True
        return len(apart) == 2 and apart[1] == apart[0] + 1 and one[apart[0]] == other[apart[1]]
    short, long = sorted((one, other), key=len)
    if len(long) == len(short) + 1:  # one left out
        return any(long[:at] + long[at + 1 :] == short for at in range(len(long)))
    return len(short) >= 8 and short.isdecimal() and long.isdecimal() and short in long
