"""Decoding, judging and detection alone: no socket, no Redis; CPU microseconds beside splitting the same frame."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from benchmarks.generator import FIRST_ID, IDS_PER_CONNECTION, tracks
from benchmarks.tables import Settings, Table, machine, progress, verdict
from gateway.detection import Candidates, Detector
from gateway.interfaces import Kept
from gateway.judging import steady
from gateway.registry import Plugin, load
from gateway.session import Stored
from gateway.sessions import Sessions

#: Passes over all frames a round; the fastest of a round counts, whatever the neighbours do meanwhile.
PASSES: Final = 5

NAMES: Final = {
    "decode": "decode a V1 report",
    "events": "a V1 report to its events, edges included",
    "detection": "detect a fresh stream",
}
#: At most so many times the reference.
BARS: Final = {"events": 25.0}
#: Where the reports come from, as far as sessions care.
PEER: Final = "127.0.0.1:8888"
#: A session that is so old, with some reports, is of a device that has proven itself, as most are.
PROVEN_S: Final = 600.0


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


def events(plugin: Plugin, fleet: Sequence[Sequence[bytes]], now: float) -> None:
    """From the bytes to what is published and kept of the device, as the publisher does it; not rendered yet."""
    sessions = Sessions(devices=[plugin])
    for reports in fleet:
        receive = plugin.decoder(sessions.memory).receive
        session = sessions.begin(reports[0].split(b",")[1].decode(), now - PROVEN_S)
        sessions.load(session, Stored(), now)
        session.meet(PEER, "tcp", plugin.name, now)
        for frame in reports:
            for message in receive(frame, now):
                if steady(session, message, PEER, "tcp", now, sessions.lag_s) is not None:
                    continue
                message = sessions.learn(session, message, plugin.name, now)
                sessions.judge(session, message, plugin.name, now)


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
    """Run one of L{NAMES}."""
    plugins = load()
    candidates = Candidates(plugins, "tcp")
    plugin = next(plugin for plugin in plugins if plugin.name == "st907")
    fleet = frames()
    check(candidates, plugin, fleet)
    count = sum(map(len, fleet))
    works = {
        "decode": partial(decode, plugin, fleet, time.time()),
        "events": partial(events, plugin, fleet, time.time()),
        "detection": partial(detect, candidates, fleet),
    }
    timed = works[name]
    pairs = [(cpu_us(timed, count), cpu_us(partial(split, fleet), count)) for _ in range(rounds)]
    return Alone(*(statistics.median(column) for column in zip(*pairs, strict=True)))


def table(names: Sequence[str], settings: Settings) -> Table:
    """Decode, events and detection."""
    rows = []
    missed = []
    for name in names:
        progress(name)
        got = measure(name, settings.rounds)
        ratio, bar = got.us / got.reference_us, BARS.get(name)
        said = "" if bar is None else verdict(ratio, bar)
        rows.append([NAMES[name], "", f"{got.us:.2f}", f"{got.reference_us:.2f}", f"{ratio:.1f}", said])
        if bar is not None and ratio > bar:
            missed.append(f"{name}: {ratio:.1f}, bar {bar:g}")
    notes = (machine(settings), "Reference: bytes.split at the commas.")
    return Table(("", "us CPU:", "ours", "reference", "ratio", "bar"), rows, notes, missed=missed)
