"""The page on consumers: its programs run, as the user that the ACLs allow, and do what the page says."""

from __future__ import annotations

import inspect
import os
import re
import signal
import sys
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.consumer import Consumer
from tests.consuming import KEY, add, contract
from tests.integration.parts import CHECKOUT, SOON, Child, wait_for
from tests.test_docs_commands import AclTestCase

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
PROGRAMS: Final = ("consume.py", "consume_redis.py")
DEAD: Final = "gateway:consumer:dead:map"


class PageTests(unittest.TestCase):
    """docs/consumers.rst."""

    def test_programs(self) -> None:
        """Both programs are shown."""
        page = (DOCS / "consumers.rst").read_text()
        for name in PROGRAMS:
            self.assertIn(f".. literalinclude:: {name}\n", page)

    def test_defaults(self) -> None:
        """What the page says of options is so."""
        page = (DOCS / "consumers.rst").read_text()
        defaults = {name: p.default for name, p in inspect.signature(Consumer).parameters.items()}
        said = re.findall(r"``(\w+)`` \(([\d,]+)(?: s)?\)", page)
        self.assertLessEqual(
            {"retry_after", "deliveries", "claim_after", "in_hand", "timeout"}, {name for name, _ in said}
        )
        for name, figure in said:
            self.assertEqual(float(figure.replace(",", "")), defaults[name], name)


class ProgramTests(AclTestCase):
    """Both programs, as the user of the page on commands."""

    def setUp(self) -> None:
        """Write the contract."""
        super().setUp()
        self.own.set("gateway:contract", contract())

    def program(self, name: str, *words: str) -> Child:
        """One of them."""
        output = self.directory / f"output-{len(list(self.directory.iterdir()))}"
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        command = [sys.executable, str(DOCS / name), self.server.url("consumer"), *words]
        child = Child(command, output, environment)
        self.addCleanup(child.kill)
        return child

    def shown(self, child: Child, ids: Sequence[str]) -> None:
        """Wait until it has printed these events and acknowledged all."""

        def done() -> bool:
            return set(ids) == set(re.findall(r"^([0-9a-f]{32}) ", child.output.read_text(), re.MULTILINE))

        wait_for("the events", done, detail=child.tail)
        wait_for("all to be acknowledged", lambda: self.own.xpending(KEY, "map")["pending"] == 0, detail=child.tail)

    def test_handled(self) -> None:
        """Each prints what is there, what comes, and what it had not finished when it was killed."""
        for name in PROGRAMS:
            self.own.delete(KEY)
            ids = add(self.own, 3)
            child = self.program(name, "me")
            self.shown(child, ids)
            child.signal(signal.SIGKILL)
            child.wait(SOON)
            ids = add(self.own, 2)
            [[_, rows]] = self.own.xreadgroup("map", "me", {KEY: ">"})
            # as if that had been a minute ago
            self.own.xclaim(KEY, "map", "me", 0, [entry for entry, _ in rows], idle=60_001, justid=True)
            child = self.program(name, "me")
            self.shown(child, ids)
            ids += add(self.own, 2)
            self.shown(child, ids)
            self.assertIsNone(child.exited, child.tail())
            child.kill()

    def test_poison(self) -> None:
        """What can't be handled is a dead letter, with what it was, and the rest goes on."""
        for name in PROGRAMS:
            self.own.delete(KEY, DEAD)
            self.own.xgroup_create(KEY, "map", id="0", mkstream=True)
            poison = self.own.xadd(KEY, {"poison": "1"})
            ids = add(self.own, 2)
            # delivered four times before, and a minute ago
            self.own.xreadgroup("map", "other", {KEY: ">"}, count=1)
            self.own.xclaim(KEY, "map", "other", 0, [poison], idle=60_001, retrycount=4, justid=True)
            child = self.program(name, "me")
            self.shown(child, ids)
            [(_, letter)] = self.own.xrange(DEAD)
            self.assertEqual(("1", poison), (letter["poison"], letter["dead_entry"]))
            self.assertTrue(letter["dead_reason"])
            child.kill()

    def test_ends(self) -> None:
        """The one with Twisted ends in order when it is asked to."""
        child = self.program("consume.py")
        ids = add(self.own, 3)
        self.shown(child, ids)
        child.signal(signal.SIGTERM)
        self.assertEqual(0, child.wait(SOON), child.tail())
        self.assertNotIn("Traceback", child.tail())

    def test_no_gateway(self) -> None:
        """Without a contract one waits and says so, and the other ends."""
        self.own.delete("gateway:contract")
        child = self.program("consume_redis.py", "me")
        self.assertEqual(1, child.wait(SOON))
        self.assertIn("no gateway writes gateway:position here", child.tail())
        child = self.program("consume.py")
        wait_for("a line", lambda: "there is no gateway:contract yet" in child.tail(), detail=child.tail)

    def test_gateway(self) -> None:
        """What a real gateway publishes is what the consumer reads."""
        import socket
        import time

        from tests.integration.fleet import v1

        self.own.delete("gateway:contract")
        child = self.program("consume.py")
        gateway = self.running_gateway(self.server.url("gateway"))
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as tracker:
            tracker.sendall(v1("9170123456", time.time()))
            self.assertTrue(tracker.recv(1000).startswith(b"*HQ,"))
        wait_for("the report", lambda: " 9170123456 " in child.tail(), detail=child.tail)
        wait_for("all to be acknowledged", lambda: self.own.xpending(KEY, "map")["pending"] == 0, detail=child.tail)
