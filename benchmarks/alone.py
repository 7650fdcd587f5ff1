"""Decode and detection alone: no socket, no Redis; CPU microseconds beside splitting the same frame at its commas."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from benchmarks.generator import FIRST_ID, IDS_PER_CONNECTION, tracks
from benchmarks.tables import Settings, Table, machine, progress
from gateway.detection import Candidates, Detector
from gateway.interfaces import Kept
from gateway.registry import Plugin, load

#: Passes over all frames a round; the fastest of a round counts, whatever the neighbours do meanwhile.
PASSES: Final = 5

NAMES: Final = {"decode": "decode a V1 report", "detection": "detect a fresh stream"}


class Alone(NamedTuple):
    """CPU microseconds a frame: of what is measured, and of the reference."""

    us: float
    reference_us: float


def frames() -> list[list[bytes]]:
    """Some thousand V1 reports, all different, by device."""
    return [
        [b"*HQ,%d," % (FIRST_ID + number * IDS_PER_CONNECTION) + tail for tail in track]
        for number, track in enumerate(tracks(int(time.time())))
    ]


def cpu_us(work: Callable[[], None], count: int) -> float:
    """CPU microseconds a frame of the fastest pass."""

    def once() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return min(once() for _ in range(PASSES)) / count * 1e6


def split(fleet: Sequence[Sequence[bytes]]) -> None:
    """The reference."""
    for reports in fleet:
        for frame in reports:
            frame.split(b",")


def decode(plugin: Plugin, fleet: Sequence[Sequence[bytes]], now: float) -> None:
    """A connection a device, a report a read."""
    memories: dict[str, Kept] = {}
    for reports in fleet:
        receive = plugin.decoder(lambda ident: memories.setdefault(ident, Kept())).receive
        for frame in reports:
            receive(frame, now)


def detect(candidates: Candidates, fleet: Sequence[Sequence[bytes]]) -> None:
    """Every report is the first of a new stream."""
    for reports in fleet:
        for frame in reports:
            Detector(candidates, 1024).feed(frame)


def check(candidates: Candidates, plugin: Plugin, fleet: Sequence[Sequence[bytes]]) -> None:
    """What is timed does what it should."""
    decision = Detector(candidates, 1024).feed(fleet[0][0])
    if decision is None or decision.plugin != plugin:
        raise RuntimeError(f"a V1 report is not detected as {plugin.name}: {decision}")
    messages = plugin.decoder(lambda ident: Kept()).receive(b"".join(fleet[0]), time.time())
    if len(messages) != len(fleet[0]) or any(message.error for message in messages):
        raise RuntimeError("not every V1 report is decoded")


def measure(name: str, rounds: int) -> Alone:
    """Run C{decode} or C{detection}."""
    plugins = load()
    candidates = Candidates(plugins, "tcp")
    plugin = next(plugin for plugin in plugins if plugin.name == "st907")
    fleet = frames()
    check(candidates, plugin, fleet)
    count = sum(map(len, fleet))
    timed = partial(decode, plugin, fleet, time.time()) if name == "decode" else partial(detect, candidates, fleet)
    pairs = [(cpu_us(timed, count), cpu_us(partial(split, fleet), count)) for _ in range(rounds)]
    return Alone(*(statistics.median(column) for column in zip(*pairs, strict=True)))


def table(names: Sequence[str], settings: Settings) -> Table:
    """Decode and detection."""
    rows = []
    for name in names:
        progress(name)
        got = measure(name, settings.rounds)
        rows.append([NAMES[name], "", f"{got.us:.2f}", f"{got.reference_us:.2f}", f"{got.us / got.reference_us:.1f}"])
    notes = (machine(settings), "Reference: bytes.split at the commas.")
    return Table(("", "us CPU:", "ours", "reference", "ratio"), rows, notes)
