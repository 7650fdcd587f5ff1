"""Who is let in, two senders of one ident, and tracing, on a running gateway."""

from __future__ import annotations

import json
import time
from typing import Any

from click.testing import CliRunner, Result

from gateway.cli import main
from tests.integration.fleet import Client, Datagrams, v1
from tests.integration.parts import Gateway, RealPartsTestCase, RedisServer, entries, wait_for

IDENT = "9170123456"


class IdentityCase(RealPartsTestCase):
    """A gateway on a Redis."""

    redis: RedisServer
    running: Gateway

    def set_up(self, mode: str = "open") -> None:
        """Start both."""
        self.redis = self.running_redis()
        self.running = self.running_gateway(self.redis.url, config=f'[identity]\nmode = "{mode}"\n')

    def register(self, **fields: str) -> None:
        """An application writes the registry, and says so."""
        self.redis.client.delete(f"gateway:registry:{IDENT}")
        if fields:
            self.redis.client.hset(f"gateway:registry:{IDENT}", mapping=fields)
        self.redis.client.xadd("gateway:registry:changes", {"ident": IDENT})

    def types(self, stream: str) -> list[str]:
        """What is on a stream."""
        return [entry["type"] for entry in entries(self.redis.client, f"gateway:{stream}")]

    def run_command(self, *words: str) -> Result:
        """Run C{gateway}."""
        result = CliRunner().invoke(main, [*words, "--redis", self.redis.url])
        self.assertEqual(0, result.exit_code, result.output)
        return result


class ModeTests(IdentityCase):
    """Strangers, adopted and disabled devices."""

    def test_quarantine(self) -> None:
        """A stranger stays unanswered, over TCP and UDP, until it is adopted; and is closed when it is disabled."""
        self.set_up("quarantine")
        with Client(self.running.port) as client, Datagrams(self.running.port) as datagrams:
            client.send(v1(IDENT, time.time() - 3))
            datagrams.send(v1("9170123457", time.time()))
            wait_for("the strangers", lambda: self.types("dead").count("device.unknown") == 2)
            self.register(device_id="van 7")

            def answered() -> bool:
                client.send(v1(IDENT, time.time()))
                return bool(client.answers(1, 1.0))

            wait_for("it to be let in", answered)
            self.assertEqual({"van 7"}, {e["device_id"] for e in entries(self.redis.client)})
            self.assertEqual({IDENT}, {e["ident"] for e in entries(self.redis.client)})
            self.register(enabled="0")
            self.assertTrue(client.closed())
        with Client(self.running.port) as client:
            client.send(v1(IDENT, time.time()))
            self.assertTrue(client.closed())
        wait_for("the event", lambda: "device.rejected" in self.types("dead"))
        self.ledger_adds_up(self.redis.client, lambda counts: counts.get("unauthorised", 0) >= 3)

    def test_known(self) -> None:
        """A stranger is closed; one that is registered is served, also when it is registered by then."""
        self.set_up("known")
        with Client(self.running.port) as client:
            client.send(v1(IDENT, time.time()))
            self.assertTrue(client.closed())
        self.assertEqual([], entries(self.redis.client))
        self.register(device_id="van 7")

        def served() -> bool:
            with Client(self.running.port) as client:
                client.send(v1(IDENT, time.time()))
                return bool(client.answers(1, 2.0))

        wait_for("it to be let in", served)


class SendersTests(IdentityCase):
    """One ident, from several places."""

    def conflicts(self) -> list[dict[str, Any]]:
        """What was said of two senders."""
        found = entries(self.redis.client, "gateway:event")
        return [json.loads(e["data"]) for e in found if e["type"] == "device.identity.conflict"]

    def test_reconnects_and_two_senders(self) -> None:
        """Reconnects behind changing addresses, old sockets left open, are no conflict; two that take turns are."""
        self.set_up()
        at = time.time() - 40
        left = []
        for n in range(8):
            client = Client(self.running.port, source=f"127.0.0.{2 + n % 3}")
            self.addCleanup(client.socket.close)
            left.append(client)
            at += 1
            client.send(v1(IDENT, at))
            self.assertEqual(1, len(client.answers(1)))
        self.assertEqual([], self.conflicts())
        first, second = left[-1], left[0]
        for client in (second, first):
            at += 1
            client.send(v1(IDENT, at))
            self.assertEqual(1, len(client.answers(1)))
        (raised,) = wait_for("the conflict", self.conflicts)
        self.assertEqual(("raised", [first.name, second.name]), (raised["phase"], raised["peers"]))
        self.assertEqual(10, len(entries(self.redis.client)))


class TraceTests(IdentityCase):
    """C{gateway trace}."""

    def test_trace(self) -> None:
        """It is switched on while the gateway runs, shown, and switched off."""
        self.set_up()
        said = self.run_command("trace", IDENT, "--for", "10m").output
        self.assertIn(f"{IDENT} is traced until ", said)
        self.assertIn(f"{IDENT} until ", self.run_command("trace").output)
        with Client(self.running.port) as client:

            def shown() -> bool:
                time.sleep(1.0)  # a report of the same second is a copy
                client.send(v1(IDENT, time.time()))
                client.answers(1)
                return {"frame.raw.up", "frame.raw.down"} <= set(self.types("raw"))

            wait_for("its frames", shown)
            up, down = (
                next(json.loads(e["data"]) for e in entries(self.redis.client, "gateway:raw") if e["type"] == kind)
                for kind in ("frame.raw.up", "frame.raw.down")
            )
            self.assertEqual(("published", client.name), (up["outcome"], up["peer"]))
            self.assertTrue(bytes.fromhex(up["frame"]).startswith(f"*HQ,{IDENT},V1".encode()))
            self.assertEqual(f"*HQ,{IDENT},V4,V1".encode(), bytes.fromhex(down["frame"])[:20])
            self.assertIn("not traced any more", self.run_command("trace", IDENT, "--off").output)

            def silent() -> bool:
                before = len(self.types("raw"))
                client.send(v1(IDENT, time.time()))
                client.answers(1)
                time.sleep(0.2)
                return len(self.types("raw")) == before

            wait_for("no more frames", silent)
        self.assertIn("nobody is traced", self.run_command("trace").output)

    def test_mistakes(self) -> None:
        """What can't be traced is said in a line."""
        redis = self.running_redis()
        for words, said in (
            (["no ident!"], "is no ident"),
            ([IDENT, "--for", "25h"], "86,400 s at most"),
            ([IDENT, "--for", "soon"], "is no duration"),
        ):
            result = CliRunner().invoke(main, ["trace", *words, "--redis", redis.url])
            self.assertNotEqual(0, result.exit_code)
            self.assertIn(said, result.output)
