"""Two gateways on one Redis, each as if it had a machine of its own, and HAProxy before them."""

from __future__ import annotations

import json
import re
import time
from typing import Any, Final

from tests.integration.fleet import IGNITION_OFF, Client, is_answer, v1
from tests.integration.parts import (
    CHECKOUT,
    SOON,
    Child,
    Gateway,
    RealPartsTestCase,
    RedisServer,
    accepts,
    entries,
    free_port,
    haproxy_binary,
    wait_for,
)

#: The addresses of the machines; their ports for balancers are open there.
HOSTS: Final = {"one": "127.0.0.2", "two": "127.0.0.3"}
#: HAProxy's own file, with what a test changes in it: addresses and ports, how many descriptors, and some patience.
HAPROXY: Final = CHECKOUT / "conf" / "haproxy.cfg"


class MachinesTestCase(RealPartsTestCase):
    """Two gateways, C{one} and C{two}."""

    def setUp(self) -> None:
        """Start Redis; the gateways when they are asked for."""
        super().setUp()
        self.redis: RedisServer = self.running_redis()
        #: where balancers reach them
        self.ports = {name: free_port() for name in HOSTS}

    def machine(self, name: str, more: str = "", instance: str = "") -> Gateway:
        """A gateway that listens; C{more}: of its configuration."""
        path = self.directory / f"{name}.toml"
        listen = f'listen = ["{HOSTS[name]}:{self.ports[name]}"]\nnetworks = ["127.0.0.0/8", "10.203.0.0/24"]'
        path.write_text(f'[gateway]\ninstance = "{instance or name}"\n[proxy]\n{listen}\n{more}')
        made = self.gateway(self.redis.url, name=name, options=["--config", str(path)])
        made.start()
        return made

    def haproxy(self, *changes: tuple[str, str], host: str = "127.0.0.1") -> int:
        """HAProxy with its file, in which this is changed, before both machines; the port that trackers connect to."""
        binary = self.need(haproxy_binary(), "no haproxy on PATH")
        port = free_port()
        places = [(f"10.0.0.1{at}:8889", f"{HOSTS[name]}:{self.ports[name]}") for at, name in enumerate(HOSTS, 1)]
        every = [
            *places,
            ("bind 0.0.0.0:8888", f"bind {host}:{port}"),
            ("    bind [::]:8888 v6only backlog 4096 tcp-ut 60s\n", ""),
            ("    maxconn 100000\n    # Health", "    maxconn 1000\n    # Health"),
            ("    maxconn 100000\n    # When", "    maxconn 1000\n    # When"),
            ("inter 2s", "inter 500ms"),
            ("log /dev/log local0 info", "log stderr format raw local0 info"),
        ]
        text = HAPROXY.read_text()
        for before, after in [*every, *changes]:
            self.assertIn(before, text)
            text = text.replace(before, after)
        path = self.directory / "haproxy.cfg"
        path.write_text(text)
        self.balancer = Child([binary, "-db", "-f", str(path)], self.directory / "haproxy.output")
        self.addCleanup(self.balancer.kill)
        wait_for("HAProxy to listen", lambda: accepts(host, port), detail=self.balancer.tail)
        return port

    def balanced(self, pattern: str, seconds: float = SOON) -> None:
        """Wait until HAProxy says something."""
        tail = self.balancer.tail
        wait_for(f"HAProxy to say {pattern}", lambda: re.search(pattern, tail()), seconds, detail=tail)

    def beat(self, instance: str) -> dict[str, Any]:
        """What an instance says of itself; empty: nothing."""
        found: dict[str, Any] = json.loads(self.redis.client.get(f"gateway:instance:{instance}") or "{}")
        return found

    def rows(self, ident: str, stream: str = "gateway:position") -> list[dict[str, str]]:
        """The entries of a device, oldest first."""
        return [entry for entry in entries(self.redis.client, stream) if entry["ident"] == ident]

    def holder(self, ident: str) -> str:
        """The instance that holds its session."""
        return self.redis.client.get(f"gateway:session:{ident}") or ""


class Tracker:
    """
    An ST-907, in blocking code, that connects anew as it is told, and counts the seconds of its own clock.

    @ivar frames: what it sent, each once; C{commands}: what it was told and has not seen to.
    """

    def __init__(self, ident: str, port: int, host: str = "127.0.0.1", source: str = "") -> None:
        self.ident = ident
        self.frames: list[bytes] = []
        self.commands: list[bytes] = []
        self._source = source
        self._when = int(time.time()) - 60
        self.connect(port, host)

    def connect(self, port: int, host: str = "127.0.0.1") -> None:
        """Connect; what it had before stays open at the other end, for all that is known there."""
        self.client = Client(port, host, source=self._source)

    def new(self, status: str = IGNITION_OFF) -> bytes:
        """The next report."""
        self._when += 1
        self.frames.append(v1(self.ident, self._when, status))
        return self.frames[-1]

    def report(self, frame: bytes | None = None, seconds: float = SOON) -> None:
        """Send a report, the next one by default, and wait for its answer."""
        self.client.send(frame or self.new())
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for text in self.client.answers(1, end - time.monotonic()):
                if is_answer(text, self.ident):
                    return
                self.commands.append(text)
        raise AssertionError(f"{self.ident}: no answer to {self.frames[-1]!r}")

    def command(self) -> bytes:
        """The next thing that it is told that is no answer to a report."""
        while not self.commands:
            texts = self.client.answers(1)
            if not texts:
                raise AssertionError(f"{self.ident}: no command")
            self.commands += [text for text in texts if not is_answer(text, self.ident)]
        return self.commands.pop(0)
