"""The commands C{gateway status} and C{gateway restart}: how gateways do, and one after the other anew."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

import click

from gateway.datadir import is_held, read_workers, runs
from gateway.errors import GatewayError
from gateway.ledger import Beat
from gateway.places import beats, configured, located, opened
from gateway.terminal import Fails, printable

POLL_S: Final = 0.1


class Whole(NamedTuple):
    """A gateway: its one process, or all of its workers."""

    instance: str
    processes: Sequence[Beat]

    @classmethod
    def of(cls, running: Mapping[str, Beat]) -> list[Whole]:
        """Who belongs together."""
        by_instance: dict[str, list[Beat]] = {}
        for name, beat in running.items():
            by_instance.setdefault(name.partition("/")[0], []).append(beat)
        return [
            cls(instance, sorted(found, key=lambda beat: _number(beat, "worker")))
            for instance, found in sorted(by_instance.items())
        ]

    @property
    def workers(self) -> int:
        """How many there should be."""
        return max(_number(beat, "workers") for beat in self.processes)

    @property
    def problems(self) -> list[str]:
        """Why it is not fit, in a few words each; empty when it is."""
        there = {_number(beat, "worker") for beat in self.processes}
        expected = () if 0 in there else range(1, self.workers + 1)
        found = [f"worker {n} is not there" for n in expected if n not in there]
        for beat in self.processes:
            who = f"worker {_number(beat, 'worker')}: " if len(self.processes) > 1 else ""
            said = beat.content.get("problems")
            named = [f"{who}{problem}" for problem in said] if isinstance(said, list) else []
            if not beat.content.get("ready") and not named:
                named = [f"{who}batches go to the journal"]
            found += named
        return found

    def total(self, name: str) -> int:
        """A number of all its processes."""
        return sum(_number(beat, name) for beat in self.processes)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        counters: dict[str, int] = {}
        for beat in self.processes:
            for name, n in _mapping(beat, "counters").items():
                counters[name] = counters.get(name, 0) + n
        return {
            "instance": self.instance,
            "host": self.processes[0].host,
            "ready": not self.problems,
            "problems": self.problems,
            "workers": self.workers,
            "connections": self.total("connections"),
            "pending": self.total("pending"),
            "journal_frames": sum(_frames(beat) for beat in self.processes),
            "counters": counters,
            "processes": [dict(beat.content) for beat in self.processes],
        }

    def lines(self, now: float) -> Iterator[str]:
        """For people."""
        state = "ready" if not self.problems else f"NOT READY: {'; '.join(self.problems)}"
        yield f"{self.instance} on {self.processes[0].host}: {state}"
        for beat in self.processes:
            name = f"worker {_number(beat, 'worker')}, " if _number(beat, "worker") else ""
            yield f"  {name}{_work([beat])}, up {_up(beat, now)}"
            if isinstance(sms := beat.content.get("sms"), str):
                yield f"  SMS: {sms}"
        if len(self.processes) > 1:
            yield f"  together {_work(self.processes)}"


def _work(of: Sequence[Beat]) -> str:
    received = sum(_mapping(beat, "counters").get("received", 0) for beat in of)
    return (
        f"{sum(_number(beat, 'connections') for beat in of):,} connections, {received:,} frames received, "
        f"{sum(_number(beat, 'pending') for beat in of):,} pending, {sum(map(_frames, of)):,} in the journal"
    )


def _number(beat: Beat, name: str) -> int:
    found = beat.content.get(name)
    return found if isinstance(found, int) else 0


def _mapping(beat: Beat, name: str) -> dict[str, int]:
    found = beat.content.get(name)
    return {key: n for key, n in found.items() if isinstance(n, int)} if isinstance(found, dict) else {}


def _frames(beat: Beat) -> int:
    found = beat.journal.get("frames")
    return int(found) if isinstance(found, (int, float)) else 0


def _up(beat: Beat, now: float) -> str:
    return str(timedelta(seconds=max(0, int(now) - _number(beat, "since"))))


@click.command()
@located
@click.option("--instance", metavar="NAME", help="Only this gateway.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a gateway.")
def status(url: str | None, data_dir: str | None, path: str | None, instance: str | None, as_json: bool) -> None:
    """
    Show how the gateways on a Redis do, each with all of its workers.

    Each writes that every 5 s; one that is gone is shown for 15 s at most.
    Exit status 1: one is not ready, or there is none; 2: Redis can't be asked.
    """
    with opened(url, data_dir, path) as (config, address, client):
        running = beats(client, config.redis.prefix)
    found = [whole for whole in Whole.of(running) if instance is None or whole.instance == instance]
    if not found:
        raise Fails(f"no gateway{f' {instance}' if instance else ''} is running, as far as {address} knows")
    for whole in found:
        if as_json:
            click.echo(json.dumps(whole.as_json()))
            continue
        for line in whole.lines(time.time()):
            click.echo(printable(line))
    if any(whole.problems for whole in found):
        raise SystemExit(1)


@click.command()
@click.option("--data-dir", metavar="DIR", help="Data directory of the gateway.")
@click.option("--config", "path", metavar="FILE", help="Configuration of the gateway.")
@click.option("--timeout", type=click.FloatRange(min=1.0), default=300.0, show_default=True, metavar="SECONDS")
def restart(data_dir: str | None, path: str | None, timeout: float) -> None:
    """
    Replace the workers of a gateway on this machine one by one, with no connection refused.

    Each new worker reads the configuration and the installed version; where that fails, the old ones stay.  What the
    parent holds - port, addresses, instance, data directory, number of workers, Redis - needs a new start.
    Exit status 1: not all were replaced.
    """
    try:
        config = configured(path, data_dir)
    except GatewayError as error:
        raise Fails(str(error)) from error
    directory = config.data_dir
    said = read_workers(directory)
    if said is None or not is_held(directory) or not runs(said.get("pid"), said.get("started")):
        raise Fails(f"no gateway with workers runs in {directory} (twistd gateway --workers N)")
    if said["rolled"]["running"]:
        raise Fails("the workers are being replaced already; what changed since that began needs another time")
    before = int(said["rolled"]["count"])
    try:
        os.kill(said["pid"], signal.SIGUSR2)
    except OSError as error:
        raise Fails(f"the gateway, pid {said['pid']}, can't be told: {error.strerror}") from error
    shown: set[tuple[int, int]] = set()
    old = {row["pid"] for row in said["workers"]}
    ends = time.monotonic() + timeout
    while time.monotonic() < ends:
        said = read_workers(directory) or said
        for row in said["workers"]:
            who = (row["worker"], row["pid"])
            if row["open"] and row["pid"] not in old and who not in shown:
                shown.add(who)
                click.echo(f"worker {row['worker']} is now pid {row['pid']}")
        if int(said["rolled"]["count"]) > before:
            if said["rolled"]["outcome"] != "done":
                raise Fails(printable(f"not all workers were replaced: {said['rolled']['outcome']}"))
            return
        if not runs(said.get("pid"), said.get("started")):
            raise Fails("the gateway ended meanwhile")
        time.sleep(POLL_S)
    raise Fails(f"the workers are not all replaced after {timeout:g} s; the log of the gateway says more")
