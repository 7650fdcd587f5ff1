"""A Redis under Sentinel: a master, its replicas and the sentinels, as processes that can be killed and started."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import redis

from tests.integration.parts import Child, RedisServer, connect, free_port, wait_for

NAME: Final = "main"

#: A sentinel that was not scheduled for 2 s trusts itself again only after 30 s.
FAILOVER: Final = 60.0
#: After so long an orderly failover that has led to nothing is asked for again.
BEGUN: Final = 15.0

DOWN_AFTER_MS: Final = 1_000
FAILOVER_TIMEOUT_MS: Final = 3_000


class SentinelServer:
    """One sentinel."""

    def __init__(self, binary: str, directory: Path, password: str = "", port: int | None = None) -> None:
        self.port = port or free_port()
        self._binary = binary
        self._directory = directory
        self._password = password
        self._child: Child | None = None
        self.client: Any = None

    def start(self, master_port: int, quorum: int, master_password: str = "") -> None:
        """Start it, to watch this master; again on what it knew if it ran before."""
        self._directory.mkdir(exist_ok=True)
        path = self._directory / "sentinel.conf"
        if not path.exists():
            lines = [
                f"port {self.port}",
                "bind 127.0.0.1",
                f"dir {self._directory}",
                f"sentinel monitor {NAME} 127.0.0.1 {master_port} {quorum}",
                f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}",
            ]
            if master_password:
                lines.append(f"sentinel auth-pass {NAME} {master_password}")
            if self._password:
                lines += [f"requirepass {self._password}", f"sentinel sentinel-pass {self._password}"]
            path.write_text("\n".join(lines) + "\n")
        child = self._child = Child([self._binary, str(path), "--sentinel"], self._directory / "output")
        self.client = connect(f"redis://{f':{self._password}@' if self._password else ''}127.0.0.1:{self.port}/0")
        wait_for("a sentinel to answer", self._answers, detail=child.tail)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.exceptions.ConnectionError:
            return False

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._child is not None and self._child.exited is None

    def facts(self) -> dict[str, str]:
        """What it knows of the master."""
        row = self.client.execute_command("SENTINEL", "MASTER", NAME)
        # redis-py makes a dictionary of it, or leaves the list, as its version likes
        return row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True))

    def named(self) -> int:
        """The port of the server that it names as master."""
        _, port = self.client.execute_command("SENTINEL", "get-master-addr-by-name", NAME)
        return int(port)

    def kill(self) -> None:
        """Kill it with -9."""
        if self.client is not None:
            self.client.close()
        if self._child is not None:
            self._child.kill()


class Sentinels:
    """
    A master, replicas and sentinels below one directory.

    @ivar servers: the Redis servers, whichever is master.
    @ivar sentinels: the sentinels.
    """

    def __init__(
        self,
        directory: Path,
        binary: str,
        *,
        replicas: int = 1,
        sentinels: int = 1,
        password: str = "",
        sentinel_password: str = "",
    ) -> None:
        self._directory = directory
        self._password = password
        self._sentinel_password = sentinel_password
        self.servers = [RedisServer(binary, directory / f"redis{n}", password) for n in range(1 + replicas)]
        self.sentinels = [
            SentinelServer(binary, directory / f"sentinel{n}", sentinel_password) for n in range(sentinels)
        ]

    @property
    def url(self) -> str:
        """What the gateway is given."""
        user = f":{self._password}@" if self._password else ""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        query = f"?sentinel_password={self._sentinel_password}" if self._sentinel_password else ""
        return f"redis+sentinel://{user}{hosts}/{NAME}/0{query}"

    def start(self) -> None:
        """Start all of them, and wait until a failover could succeed."""
        self._directory.mkdir(parents=True, exist_ok=True)
        first, *others = self.servers
        self._start(first)
        for server in others:
            self._start(server, first)
        self._in_sync(first)
        for sentinel in self.sentinels:
            sentinel.start(first.port, len(self.sentinels) // 2 + 1, self._password)
        wait_for("the sentinels to know each other and the replicas", self._acquainted, FAILOVER)

    def _start(self, server: RedisServer, master: RedisServer | None = None) -> None:
        server.start()
        server.client.config_set("repl-diskless-sync-delay", 0)
        if self._password:
            server.client.config_set("masterauth", self._password)
        if master is not None:
            server.client.replicaof("127.0.0.1", master.port)

    def _in_sync(self, master: RedisServer) -> None:
        others = [server for server in self.servers if server.running and server is not master]

        def linked() -> bool:
            infos = [server.client.info("replication") for server in others]
            return all(i["role"] == "slave" and i.get("master_link_status") == "up" for i in infos)

        wait_for("the replicas to have what the master has", _patient(linked), FAILOVER)

    def _acquainted(self) -> bool:
        for sentinel in self.sentinels:
            facts = sentinel.facts()
            known = int(facts["num-slaves"]), int(facts["num-other-sentinels"])
            if known != (len(self.servers) - 1, len(self.sentinels) - 1) or facts["flags"] != "master":
                return False
        return True

    # -- who is master

    @property
    def master_server(self) -> RedisServer:
        """The present master: all sentinels name it, and it says so itself; waits until it is so."""
        found: RedisServer = wait_for("a master that all agree on", _patient(self._agreed), FAILOVER)
        return found

    @property
    def master(self) -> Any:
        """A client of the present master."""
        return self.master_server.client

    @property
    def replica_servers(self) -> list[RedisServer]:
        """All that run and are not master."""
        master = self.master_server
        return [server for server in self.servers if server is not master and server.running]

    def _agreed(self) -> RedisServer | None:
        ports = {sentinel.named() for sentinel in self.sentinels if sentinel.running}
        for server in self.servers:
            if {server.port} == ports and server.running and server.client.role()[0] == "master":
                return server
        return None

    # -- what happens to them

    def kill_master(self) -> RedisServer:
        """Kill the master with -9, and return it; C{master} waits until another one is."""
        master = self.master_server
        master.kill()
        return master

    def restart_dead(self) -> None:
        """Start what was killed: servers as replicas of the present master, sentinels on what they knew."""
        for sentinel in self.sentinels:
            if not sentinel.running:
                sentinel.start(0, 0)
        dead = [server for server in self.servers if not server.running]
        if dead:
            master = self.master_server
            for server in dead:
                self._start(server, master)
            self._in_sync(master)

    def failover(self) -> None:
        """An orderly failover: both servers live; returns when another one is master."""
        before = self.master_server

        def accepted() -> bool:
            return self.sentinels[0].client.execute_command("SENTINEL", "FAILOVER", NAME) in (True, "OK", b"OK")

        # one that was begun may come to nothing, and is not begun again by itself
        end = time.monotonic() + FAILOVER
        while True:
            wait_for("a sentinel to begin a failover", _patient(accepted), FAILOVER)
            try:
                wait_for("another master", lambda: self._agreed() not in (None, before), BEGUN)
                return
            except AssertionError:
                if time.monotonic() > end:
                    raise

    def close(self) -> None:
        """Kill all of them with -9."""
        for sentinel in self.sentinels:
            sentinel.kill()
        for server in self.servers:
            server.kill()


def _patient(probe: Callable[[], Any]) -> Callable[[], Any]:
    """A server that is not there, or refuses for now, is no answer yet."""

    def asked() -> Any:
        with contextlib.suppress(redis.exceptions.RedisError):
            return probe()
        return None

    return asked
