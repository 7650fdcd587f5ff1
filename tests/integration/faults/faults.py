"""The kinds of faults: each a context manager that breaks a part of a stage, and makes it whole at its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.integration.faults.relay import Weather
from tests.integration.faults.stage import Stage
from tests.integration.faults.wires import Fate

LONG: Final = os.environ.get("GATEWAY_LONG") == "1"

HOUR_S: Final = 3600

#: Devices of a storm that comes while others report.
_STORM: Final = 1_000 if LONG else 500

#: A datagram of three is in trouble.
_WEATHER: Final = Weather(loss=0.1, copies=0.1, late=0.15, longest_s=1.0)

Breaking = Callable[[Stage, Random], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Kind:
    """
    A kind of fault.

    @ivar parts: what it breaks, or leaves no margin for; two faults at once share none.
    @ivar holds: seconds that it lasts, at least and at most.
    @ivar needs: what the stage must have for it; empty: nothing.
    @ivar weight: how often it is drawn, beside the others.
    @ivar journaled: whether it keeps Redis from the gateway for as long as it lasts; then devices are acknowledged by
        way of the journal.
    """

    name: str
    breaking: Breaking
    parts: frozenset[str]
    holds: tuple[float, float]
    needs: str
    weight: float = 1.0
    journaled: bool = False


KINDS: Final[dict[str, Kind]] = {}


def _kind(
    name: str, parts: str, holds: tuple[float, float], needs: str, weight: float = 1.0, journaled: bool = False
) -> Callable[[Breaking], Breaking]:
    def register(breaking: Breaking) -> Breaking:
        KINDS[name] = Kind(name, breaking, frozenset(parts.split()), holds, needs, weight, journaled)
        return breaking

    return register


# -- the gateway


@_kind("gateway killed", "gateway", (0.2, 3.0), "")
@contextmanager
def gateway_killed(stage: Stage, random: Random) -> Iterator[None]:
    """The gateway is killed with -9, and started again after a moment."""
    stage.gateway.kill()
    yield
    stage.gateway.launch()


@_kind("gateway killed while Redis is away", "gateway redis", (1.0, 3.0), "redis")
@contextmanager
def gateway_killed_without_redis(stage: Stage, random: Random) -> Iterator[None]:
    """Redis is killed, some seconds later the gateway; which of the two is there first again is left to chance."""
    stage.redis.kill()
    time.sleep(random.uniform(1.0, 2.5))
    stage.gateway.kill()
    yield
    if random.random() < 0.5:
        stage.gateway.launch()
        time.sleep(random.uniform(1.0, 3.0))
        stage.redis.start()
    else:
        stage.redis.start()
        stage.gateway.launch()


# -- its workers


@_kind("worker killed", "gateway", (0.2, 3.0), "workers")
@contextmanager
def worker_killed(stage: Stage, random: Random) -> Iterator[None]:
    """One of the workers is killed with -9; who started it starts another one."""
    os.kill(random.choice(sorted(stage.gateway.open_workers().values())), signal.SIGKILL)
    yield


@_kind("workers replaced", "gateway disk", (0.2, 3.0), "workers")
@contextmanager
def workers_replaced(stage: Stage, random: Random) -> Iterator[None]:
    """The workers are replaced one by one, whatever else is broken meanwhile."""
    before, times = stage.gateway.open_workers(), stage.gateway.times_replaced()
    stage.gateway.signal(signal.SIGUSR2)
    yield
    outcome = stage.gateway.replaced(times)
    assert outcome == "done", outcome
    assert not before.items() & stage.gateway.open_workers().items()


# -- Redis


@_kind("Redis killed", "redis", (0.0, 5.0), "redis", 2.0, journaled=True)
@_kind("Redis away for longer", "redis", (10.0, 15.0), "redis", 0.3, journaled=True)
@contextmanager
def redis_killed(stage: Stage, random: Random) -> Iterator[None]:
    """Redis is killed with -9, and started again on its files."""
    stage.redis.kill()
    yield
    stage.redis.start()


@_kind("Redis stopped", "redis", (4.0, 6.0), "redis", journaled=True)
@_kind("Redis stopped for 30 s", "redis", (30.0, 30.0), "redis", 0.25, journaled=True)
@contextmanager
def redis_stopped(stage: Stage, random: Random) -> Iterator[None]:
    """Redis gets SIGSTOP, and SIGCONT later than the gateway's deadline."""
    stage.redis.signal(signal.SIGSTOP)
    yield
    stage.redis.signal(signal.SIGCONT)


@_kind("Redis out of memory", "redis", (1.0, 4.0), "redis", journaled=True)
@contextmanager
def redis_full(stage: Stage, random: Random) -> Iterator[None]:
    """Redis has reached its maxmemory and refuses to write."""
    stage.client.config_set("maxmemory", 1)
    yield
    stage.client.config_set("maxmemory", 0)


# -- Redis under Sentinel, which replicates when it has answered: what the new master lacks the gateway sends again.
# It can't when it is killed as well, so that these are no two at once.


@_kind("master killed", "redis gateway", (0.5, 4.0), "sentinel")
@contextmanager
def master_killed(stage: Stage, random: Random) -> Iterator[None]:
    """The master is killed with -9; when its replica was made master the old one is started as a replica."""
    assert stage.sentinels is not None
    stage.sentinels.kill_master()
    assert stage.store.running  # waits for the new master
    stage.mended()
    yield
    stage.sentinels.restart_dead()


@_kind("orderly failover", "redis gateway", (0.5, 4.0), "sentinel")
@contextmanager
def failover(stage: Stage, random: Random) -> Iterator[None]:
    """The replica is made master on command, with both alive."""
    assert stage.sentinels is not None
    stage.sentinels.failover()
    stage.mended()
    yield


# -- the network between the gateway and Redis


@_kind("connection to Redis cut", "network", (1.0, 3.0), "wire")
@contextmanager
def connection_cut(stage: Stage, random: Random) -> Iterator[None]:
    """Connections to Redis break some times in a row."""
    for _ in range(random.randint(1, 4)):
        stage.wire.cut()
        time.sleep(random.uniform(0.0, 0.5))
    yield
    stage.wire.cut()


@_kind("answers of Redis lost", "network", (0.3, 3.0), "wire")
@contextmanager
def answers_lost(stage: Stage, random: Random) -> Iterator[None]:
    """What Redis has stored is not heard of, then the connection breaks."""
    stage.wire.lose_answers()
    yield
    stage.wire.cut()


@_kind("network to Redis slow", "network", (2.0, 4.0), "wire")
@contextmanager
def network_slow(stage: Stage, random: Random) -> Iterator[None]:
    """Each piece takes a moment, in both directions, longer than the deadline at times."""
    stage.wire.become(Fate(delay_s=random.choice((0.02, 0.1, 0.3, 0.7))))
    yield
    stage.wire.heal()


@_kind("black hole before Redis", "network", (2.0, 4.0), "wire", journaled=True)
@contextmanager
def black_hole(stage: Stage, random: Random) -> Iterator[None]:
    """Connections to Redis are accepted, and all that is sent on them disappears."""
    stage.wire.become(Fate(swallows=True))
    yield
    stage.wire.heal()


@_kind("replies of Redis cut short", "network", (1.0, 4.0), "wire")
@contextmanager
def replies_cut(stage: Stage, random: Random) -> Iterator[None]:
    """Of some reply only a part comes, then the connection breaks; so with the next ones."""
    stage.wire.become(Fate(replies=random.choice((10, 30, 60))))
    yield
    stage.wire.heal()


# -- what the gateway stands on


@_kind("disk full while Redis is away", "disk redis", (2.0, 4.0), "disk")
@contextmanager
def disk_full(stage: Stage, random: Random) -> Iterator[None]:
    """Redis is killed, then the data directory fills up; the room comes back first, or Redis does."""
    stage.redis.kill()
    time.sleep(random.uniform(0.0, 1.0))
    stage.disk.fill()
    try:
        yield
        if random.random() < 0.5:
            stage.redis.start()
            time.sleep(random.uniform(0.0, 1.0))
            stage.disk.clear()
        else:
            stage.disk.clear()
            time.sleep(random.uniform(0.0, 1.0))
            stage.redis.start()
    finally:
        stage.disk.clear()


@_kind("clock an hour ahead", "clock", (2.0, 4.0), "clock")
@contextmanager
def clock_ahead(stage: Stage, random: Random) -> Iterator[None]:
    """The gateway's clock jumps forward by an hour, and back."""
    with _clock(stage, HOUR_S):
        yield


@_kind("clock an hour behind", "clock", (2.0, 4.0), "clock")
@contextmanager
def clock_behind(stage: Stage, random: Random) -> Iterator[None]:
    """The gateway's clock jumps backward by an hour, and forward."""
    with _clock(stage, -HOUR_S):
        yield


@contextmanager
def _clock(stage: Stage, seconds: int) -> Iterator[None]:
    stage.clock.jump(seconds)
    try:
        yield
    finally:
        stage.clock.jump(0)


# -- the fleets


@_kind("storm of reconnects", "fleet", (0.0, 0.0), "", 0.4)
@contextmanager
def storm(stage: Stage, random: Random) -> Iterator[None]:
    """Many more devices come, are cut off at the same moment, and all come again."""
    with stage.extra_fleet(_STORM, scenario="storm", interval=2, count=6):
        yield


@_kind("UDP lost, late and copied", "datagrams", (3.0, 5.0), "")
@contextmanager
def datagrams_lost(stage: Stage, random: Random) -> Iterator[None]:
    """Datagrams between the fleet and the gateway are lost, overtake each other, and come twice."""
    stage.relay.become(_WEATHER)
    yield
    stage.relay.heal()
