"""C{gateway status} on a real Redis, with what gateways say there written by hand."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from gateway.cli import main
from tests.integration.parts import RealPartsTestCase, RedisServer


class StatusTests(RealPartsTestCase):
    """The command."""

    redis: RedisServer

    def setUp(self) -> None:
        """Start Redis."""
        super().setUp()
        self.redis = self.running_redis()

    def say(self, name: str, worker: int = 0, workers: int = 1, *, ready: bool = True, **more: Any) -> None:
        """What a process of a gateway says."""
        content = {"host": "vm", "ready": ready, "worker": worker, "workers": workers, **more}
        self.redis.client.set(f"gateway:instance:{name}", json.dumps(content))

    def status(self, *words: str, url: str = "") -> Result:
        """Run it."""
        return CliRunner().invoke(main, ["status", "--redis", url or self.redis.url, *words])

    def test_several(self) -> None:
        """Gateways are listed in order, or one that is asked for; its exit status says whether they are ready."""
        self.say("b/1", 1, 2)
        self.say("b/2", 2, 2)
        self.say("a", ready=False, problems=["\x1b[31mstreams are full"])
        result = self.status()
        self.assertEqual(1, result.exit_code, result.output)
        heads = [line for line in result.output.splitlines() if not line.startswith(" ")]
        self.assertEqual(["a on vm: NOT READY: ", "b on vm: ready"], [heads[0][:20], heads[1]])
        self.assertNotIn("\x1b", result.output)
        result = self.status("--instance", "b")
        self.assertEqual((0, 4), (result.exit_code, len(result.output.splitlines())), result.output)
        objects = [json.loads(line) for line in self.status("--json").output.splitlines()]
        self.assertEqual([("a", False), ("b", True)], [(one["instance"], one["ready"]) for one in objects])
        self.redis.client.delete("gateway:instance:b/1")
        result = self.status("--instance", "b")
        self.assertEqual(1, result.exit_code)
        self.assertIn("b on vm: NOT READY: worker 1 is not there", result.output)

    def test_none(self) -> None:
        """Without a gateway, or without the one that is asked for, that is what it says."""
        result = self.status()
        self.assertEqual(1, result.exit_code)
        self.assertIn("no gateway is running, as far as redis://127.0.0.1:", result.output)
        self.say("a")
        self.assertIn("no gateway b is running", self.status("--instance", "b").output)

    def test_nobody_to_ask(self) -> None:
        """When Redis can't be asked, or does not answer the question, the exit status is 2, with the reason."""
        for url, expected in (
            ("redis://127.0.0.1:1/0", "can't be asked: "),
            ("nonsense", "option --redis"),
            (self.redis.url.replace("//", "//:wrong@"), "refuses"),
        ):
            result = self.status(url=url)
            self.assertEqual(2, result.exit_code, result.output)
            self.assertIn(expected, result.output)
        self.redis.client.rpush("gateway:instance:a", "x")
        result = self.status()
        self.assertEqual(2, result.exit_code, result.output)
        self.assertIn("does not answer the question: WRONGTYPE", result.output)
