"""A gateway whose configuration changes, and one that ends slowly."""

from __future__ import annotations

import http.client
import json
import signal
import time
from pathlib import Path

from tests.integration.fleet import Client, v1
from tests.integration.parts import Gateway, RealPartsTestCase, free_port, wait_for

IDENT = "9170123456"


class ReloadTests(RealPartsTestCase):
    """SIGHUP and SIGTERM."""

    running: Gateway
    path: Path

    def set_up(self, config: str, workers: int = 1) -> None:
        """Start a gateway with a configuration, and a page."""
        self.redis = self.running_redis()
        self.path = self.directory / "reload.toml"
        self.path.write_text(config)
        self.web = free_port()
        options = ["--web", f"127.0.0.1:{self.web}", "--config", str(self.path)]
        self.running = self.gateway(self.redis.url, options=options, workers=workers)
        self.running.start()

    def reload(self, config: str, said: str) -> None:
        """Change the configuration, and wait until that is said of it."""
        before = len(self.running.output())
        self.path.write_text(config)
        self.running.signal(signal.SIGHUP)
        wait_for(said, lambda: said in self.running.output()[before:], detail=self.running.tail)

    def answered(self, ident: str = IDENT) -> bool:
        """Whether a device is answered on a new connection."""
        with Client(self.running.port) as client:
            client.send(v1(ident, time.time()))
            return bool(client.answers(1, 2.0))

    def ready(self) -> tuple[int, list[str]]:
        """What a balancer hears."""
        connection = http.client.HTTPConnection("127.0.0.1", self.web, timeout=10)
        connection.request("GET", "/health/ready")
        response = connection.getresponse()
        said = json.loads(response.read())
        connection.close()
        return response.status, said["problems"]

    def test_reload(self) -> None:
        """What can be taken over is, with no connection lost; what can not is named; a mistake changes nothing."""
        self.set_up('[identity]\nmode = "open"\n')
        with Client(self.running.port) as client:
            client.send(v1(IDENT, time.time() - 5))
            self.assertEqual(1, len(client.answers(1)))
            self.reload('[commands]\nenabled = ["engine.*"]\n[redis]\nprefix = "x"\n', "[redis] prefix")
            self.assertIn("the configuration is reloaded: [commands] enabled", self.running.output())
            wait_for(
                "the contract",
                lambda: "engine.stop" in json.loads(self.redis.client.get("gateway:contract"))["commands"],
            )
            self.reload('[identity]\nmode = "nonsense"\n', "the configuration is not reloaded: ")
            self.assertIn("[identity]", self.running.output())
            client.send(v1(IDENT, time.time()))
            self.assertEqual(1, len(client.answers(1)), "the connection is the same one, and served")
            self.reload('[identity]\nmode = "known"\n', "the configuration is reloaded: [identity] mode")
            self.assertTrue(client.closed(), "nobody has registered it")
        self.assertFalse(self.answered())
        self.reload("", "the configuration is reloaded: [identity] mode")
        self.assertTrue(self.answered())
        self.reload("", "nothing changed")

    def test_reload_of_workers(self) -> None:
        """Workers are replaced one by one, and read it anew."""
        self.set_up("", workers=2)
        self.assertTrue(self.answered())
        self.reload('[identity]\nmode = "known"\n', "all workers were replaced")
        self.assertFalse(self.answered())
        token = (self.running.data_dir / "web.token").read_text().strip()
        connection = http.client.HTTPConnection("127.0.0.1", self.web, timeout=10)
        connection.request("GET", "/api/session", headers={"Authorization": f"Bearer {token}"})
        self.assertEqual("known", json.loads(connection.getresponse().read())["mode"])
        connection.close()

    def test_drain(self) -> None:
        """Who is to end is not ready first, and serves whoever still comes; then it ends as ever."""
        self.set_up("[gateway]\ndrain = 3.0\n")
        wait_for("it to be ready", lambda: self.ready()[0] == 200)
        self.running.signal(signal.SIGTERM)
        wait_for("it to be not ready", lambda: self.ready() == (503, ["it is ending"]))
        self.assertTrue(self.answered())
        self.running.wait(30)
        self.assertIn("not ready any more", self.running.output())
