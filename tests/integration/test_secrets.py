"""Nothing secret stands in a log, and nothing of a device's that a terminal or a page would obey."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from click.testing import CliRunner

from gateway.cli import main
from tests.integration.fleet import Client, Datagrams, v1
from tests.integration.parts import Gateway, RealPartsTestCase, free_port, wait_for

IDENT = "9170123456"
REDIS, TRACKER = "redis-pa55word", "s3cr3t77"
#: What a terminal would obey, what a page would, and what would begin a line of its own.
HOSTILE = b"\x1b[31m\x07<script>alert(1)</script>\r\n2026-12-01 all is well\x9b2J"


class JSONGateway(Gateway):
    """One that logs for machines."""

    def _command(self) -> list[str]:
        command = super()._command()
        command[1:1] = ["--logger", "gateway.logs.json_lines"]
        return command


class SecretTests(RealPartsTestCase):
    """The log of a gateway that has seen a lot."""

    def seen(self, kind: type[Gateway], workers: int = 1) -> str:
        """Its log, after a hostile tracker, a secret command, a Redis that went away, and wrong tokens."""
        redis = self.redis_server(password=REDIS)
        redis.start()
        web = free_port()
        gateway = kind(
            self.directory / f"{kind.__name__}{workers}",
            redis_url=redis.url,
            options=["--web", f"127.0.0.1:{web}"],
            workers=workers,
        )
        self.addCleanup(self._remove, gateway)
        gateway.start()
        token = (gateway.data_dir / "web.token").read_text().strip()
        for head in (b"", b"*HQ,", b"*HQ,9170\x1b123,V1,", f"*HQ,{IDENT},V1,".encode(), b"GET /?id=a\x1b&lat="):
            with Client(gateway.port) as client:
                client.send(head + HOSTILE + b"#")
        with Datagrams(gateway.port) as datagrams:
            datagrams.send(HOSTILE)
        with Client(gateway.port) as client:
            client.send(v1(IDENT, time.time()))
            client.answers(1)
            words = ["send", IDENT, "password.set", "old=0000", f"new={TRACKER}", "--redis", redis.url]
            self.assertEqual(0, CliRunner().invoke(main, words).exit_code)
            (told,) = client.answers(1, 10.0)
            self.assertIn(TRACKER.encode(), told)
            for header in (f"Authorization: Bearer {token}x", f"Authorization: Bearer {token}"):
                subprocess.run(
                    [sys.executable, "-c", _GET, str(web), f"/api/overview?token={token}", header], check=True
                )
            redis.kill()
            client.send(v1(IDENT, time.time() + 1))
            wait_for("it to miss Redis", lambda: "journal" in gateway.output().partition("batches go to Redis")[2])
        gateway.terminate()
        log = gateway.output()
        for secret in (REDIS, TRACKER, token, token[:20]):
            self.assertNotIn(secret, log)
        for control in ("\x1b", "\x07", "\x9b", "<script>"):
            self.assertNotIn(control, log)
        return log

    def test_text(self) -> None:
        """As people read it."""
        self.assertIn("batches go to Redis", self.seen(Gateway))

    def test_json(self) -> None:
        """As machines read it: each line is an object, of the parent of workers, too."""
        for line in self.seen(JSONGateway, workers=2).splitlines():
            said = json.loads(line)
            self.assertLessEqual({"time", "level", "logger", "text"}, set(said))

    def test_terminal(self) -> None:
        """What the command line shows of it is nothing that a terminal obeys."""
        redis = self.running_redis()
        gateway = self.running_gateway(redis.url)
        with Client(gateway.port) as client:
            client.send(f"*HQ,{IDENT},V1,".encode() + HOSTILE + b"#" + v1(IDENT, time.time()))
            client.answers(1)
        redis.client.hset(f"gateway:registry:{IDENT}", "alias", "\x1b[31mvan")
        wait_for("the dead", lambda: redis.client.xlen("gateway:dead"))
        for words in (
            ["show", IDENT],
            ["devices"],
            ["devices", "--csv"],
            ["unknown"],
            ["registry", "export"],
            ["status"],
        ):
            output = CliRunner().invoke(main, [*words, "--redis", redis.url]).output
            self.assertTrue(output)
            for control in ("\x1b", "\x07", "\x9b"):
                self.assertNotIn(control, output, words)
        tail = [sys.executable, "-m", "gateway.cli", "tail", "--from-start", "--redis", redis.url]
        with subprocess.Popen(tail, stdout=subprocess.PIPE, cwd=str(Path(__file__).parents[2])) as shown:
            assert shown.stdout is not None
            text = b"".join(shown.stdout.readline() for _ in range(3))
            shown.kill()
        self.assertNotIn(b"\x1b", text)


#: A client of its own, so that nothing of ours is asked twice.
_GET = """
import http.client, sys
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
name, _, value = sys.argv[3].partition(": ")
c.request("GET", sys.argv[2], headers={name: value})
c.getresponse().read()
"""
