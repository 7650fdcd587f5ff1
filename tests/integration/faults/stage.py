"""Everything that faults happen to: a store, the gateway, and two fleets that report all the time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, Final, NamedTuple

from tests.integration.faults.checks import Snapshot
from tests.integration.faults.conditions import Clock, Disk, faketime
from tests.integration.faults.fleets import Fleet
from tests.integration.faults.relay import Relay
from tests.integration.faults.wires import Wire
from tests.integration.parts import WORKERS, Gateway, RealPartsTestCase, RedisServer, journaled, wait_for
from tests.integration.sentinels import Sentinels

#: How many devices report once a second.
DEVICES: Final = {"tcp": 120, "udp": 40}

#: How long Redis may owe the gateway an answer.
DEADLINE_S: Final = 1

#: A device that failed to connect several times in a row waits up to 30 s before it tries again.
SERVED_S: Final = 60.0

#: Idents of fleets that come for a while.
_EXTRA_FIRST: Final = 9_960_000_001
_EXTRA_EACH: Final = 10_000


class Recovery(NamedTuple):
    """
    How long things took from the end of a fault.

    @ivar first_s: until the first acknowledgement.
    @ivar all_s: until each device had had one.
    @ivar drained_s: until the journal was empty.
    """

    first_s: float
    all_s: float
    drained_s: float


class Stage:
    """
    The parts of one round, started in order; C{close} takes them all away.

    @ivar has: what can be broken here, in the words of C{faults.Kind.needs}.
    @ivar mended_at: when what was broken was whole again, where that is not when the fault is over.
    """

    redis: RedisServer
    wire: Wire
    clock: Clock
    disk: Disk
    gateway: Gateway
    relay: Relay

    def __init__(
        self,
        case: RealPartsTestCase,
        name: str,
        seed: int,
        *,
        sentinel: bool = False,
        clock: bool = False,
        disk: bool = False,
        devices: Mapping[str, int] = DEVICES,
        config: str = "",
        workers: int = WORKERS,
    ) -> None:
        """
        @param sentinel: the store is a master with a replica under Sentinel, not one Redis behind a wire.
        @param clock: the gateway's clock can jump, which makes all of it a little slower.
        @param disk: the gateway's data directory is a small file system.
        @param devices: how many report once a second, by transport.
        @param config: more sections of the gateway's configuration.
        """
        self.random = Random(seed)
        self.sentinels: Sentinels | None = None
        self.has = {"", "sentinel"} if sentinel else {"", "redis", "wire"}
        self.fleets: dict[str, Fleet] = {}
        self.mended_at: float | None = None
        self._case = case
        self.seed = seed
        self._directory = case.directory / name
        self._directory.mkdir()
        self._with_clock, self._with_disk = clock, disk
        self._devices = devices
        self._config = f"[redis]\ndeadline = {DEADLINE_S}\n{config}"
        self._workers = workers
        if workers > 1:
            self.has.add("workers")
        self._extra: list[Fleet] = []
        self.summaries: list[dict[str, Any]] = []
        self._parts = contextlib.ExitStack()

    def start(self) -> None:
        """Start everything and wait until each device was answered."""
        self._start_store()
        self._start_gateway()
        self.relay = Relay(self.gateway.port, self.random)
        self._parts.callback(self.relay.close)
        for transport, devices in self._devices.items():
            port = self.relay.port if transport == "udp" else self.gateway.port
            fleet = self.fleets[transport] = Fleet(self._directory, port, transport, devices, self.seed)
            self._parts.callback(fleet.child.kill)
        self.wait_until_served(0.0)

    def _start_store(self) -> None:
        if "sentinel" in self.has:
            self.sentinels = Sentinels(self._directory / "sentinels", self._case.binary())
            self._parts.callback(self.sentinels.close)
            self.sentinels.start()
            return
        self.redis = RedisServer(self._case.binary(), self._directory / "redis")
        self._parts.callback(self.redis.kill)
        self.redis.start()
        self.wire = Wire(self.redis.port, self.random)
        self._parts.callback(self.wire.close)

    def _redis_url(self) -> str:
        if self.sentinels is not None:
            return self.sentinels.url
        return self.redis.url.replace(str(self.redis.port), str(self.wire.port))

    def _start_gateway(self) -> None:
        directory = self._directory / "gateway"
        environment = {}
        if self._with_clock:
            library = self._case.need(faketime(), "no libfaketime (Debian: faketime)")
            self.clock = Clock(library, self._directory / "clock")
            environment = dict(self.clock.environment)
            self.has.add("clock")
        if self._with_disk:
            self.disk = Disk(directory / "data")
            self._parts.callback(self.disk.unmount)
            why = self.disk.mount()
            self._case.need(not why, f"no small file system can be mounted: {why}")
            self.has.add("disk")
        config = self._directory / "gateway.toml"
        config.write_text(self._config)
        options = ["--config", str(config)]
        url = self._redis_url()
        self.gateway = Gateway(
            directory, redis_url=url, options=options, environment=environment, workers=self._workers
        )
        self._parts.callback(self.gateway.kill)
        self.gateway.start()

    @contextlib.contextmanager
    def extra_fleet(self, devices: int, **options: object) -> Iterator[Fleet]:
        """One more fleet over TCP, which comes to its end by itself; what is acknowledged to it counts too."""
        first = _EXTRA_FIRST + len(self._extra) * _EXTRA_EACH
        fleet = Fleet(self._directory, self.gateway.port, "tcp", devices, self.seed, first, **options)
        self._extra.append(fleet)
        self._parts.callback(fleet.child.kill)
        yield fleet
        summary = fleet.finished()
        self.summaries.append(summary)
        self._case.assertEqual((0, 0), (summary["status"], summary["lost"]), f"{summary}\n{self.gateway.tail()}")

    @property
    def store(self) -> RedisServer:
        """The Redis that takes what is written: under Sentinel the present master."""
        return self.redis if self.sentinels is None else self.sentinels.master_server

    @property
    def client(self) -> Any:
        """A client of the store as it is now."""
        return self.store.client

    def snapshot(self) -> Snapshot:
        """What the store holds now."""
        return Snapshot.take(self.client)

    def acknowledged(self) -> set[str]:
        """The ids of everything that was acknowledged so far."""
        for fleet in (*self.fleets.values(), *self._extra):
            fleet.follow()
        return set().union(*(fleet.ids for fleet in (*self.fleets.values(), *self._extra)))

    def answers(self, begin: float, end: float) -> int:
        """How many acknowledgements the two fleets had between two moments (UTC epoch seconds)."""
        for fleet in self.fleets.values():
            fleet.follow()
        return sum(fleet.answers(begin, end) for fleet in self.fleets.values())

    @property
    def journaled(self) -> int:
        """How many batches are in the gateway's journal."""
        return journaled(self.gateway.data_dir)

    def wait_until_served(self, moment: float) -> Recovery:
        """Wait until each device of the two fleets was answered after a moment (UTC epoch seconds)."""
        return self._wait(moment, "every device to be served", lambda: True)

    def wait_until_whole(self, moment: float, seconds: float = SERVED_S) -> Recovery:
        """Wait for that, and until the journal was seen to be empty."""
        what = "every device to be served, and an empty journal"
        return self._wait(moment, what, lambda: not self.journaled, seconds)

    def _wait(self, moment: float, what: str, drained: Callable[[], bool], seconds: float = SERVED_S) -> Recovery:
        for fleet in self.fleets.values():
            fleet.mark(moment)
        drained_at: list[float] = []

        def whole() -> bool:
            if not drained_at and drained():
                drained_at.append(time.time())
            for fleet in self.fleets.values():
                fleet.follow()
            return bool(drained_at) and all(fleet.served for fleet in self.fleets.values())

        wait_for(what, whole, seconds, self._unserved)
        firsts = [at for fleet in self.fleets.values() for at in fleet.firsts.values()]
        return Recovery(*(max(0.0, at - moment) for at in (min(firsts), max(firsts), *drained_at)))

    def _unserved(self) -> str:
        counts = ", ".join(f"{len(f.firsts)} of {f.devices} over {name}" for name, f in self.fleets.items())
        outputs = "\n".join(fleet.child.tail()[-300:] for fleet in self.fleets.values())
        return f"answered: {counts}; {self.journaled} batches in the journal\n{outputs}\n{self.gateway.tail()}"

    def finish(self) -> int:
        """Let the fleets come to their end, with everything acknowledged; how many frames were sent, by all of them."""
        for fleet in self.fleets.values():
            fleet.stop()
        summaries = {name: fleet.finished() for name, fleet in self.fleets.items()}
        for name, summary in summaries.items():
            about = f"{name}: {summary}\n{self.gateway.tail()}"
            self._case.assertEqual((0, 0), (summary["status"], summary["lost"]), about)
        every = [*summaries.values(), *self.summaries]
        sent: int = sum(summary["sent"] + summary["resent"] for summary in every)
        return sent + self.relay.tally.copied

    def close(self) -> None:
        """Take everything away."""
        self._parts.close()

    def mended(self) -> None:
        """What was broken is whole from now on, although the fault goes on."""
        self.mended_at = time.time()
