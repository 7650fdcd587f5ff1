"""The container's files say what the README and the configuration say.  They are not built here."""

from __future__ import annotations

import json
import re
import unittest
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.config import Config
from gateway.tap import Options

ROOT: Final = Path(__file__).resolve().parents[1]


class ContainerTests(unittest.TestCase):
    """Dockerfile and compose file."""

    def setUp(self) -> None:
        """Read them."""
        self.docker = (ROOT / "Dockerfile").read_text()
        self.compose: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())

    def test_dockerfile(self) -> None:
        """It installs and runs what the README does, on its port, as nobody of importance."""
        install, run = re.findall(
            r"pip install '\.(\[embedded\])' && (twistd -n gateway)", (ROOT / "README.md").read_text()
        )[0]
        self.assertIn(f"pip install --no-cache-dir '/usr/src/gateway{install}'", self.docker)
        entry = json.loads(re.findall(r"ENTRYPOINT (.*)", self.docker)[0])
        self.assertEqual(run.split(), [word for word in entry if word != "--pidfile="])
        port = Config().gateway.port
        self.assertIn(f"EXPOSE {port}/tcp {port}/udp", self.docker)
        self.assertLess(self.docker.index("USER gateway"), self.docker.index("ENTRYPOINT"))
        self.assertIn(f"http://{Config().web.listen}/health/ready", self.docker)
        self.assertIn("STATE_DIRECTORY=/var/lib/gateway", self.docker)

    def test_compose(self) -> None:
        """The files that it mounts are there, its options are options, and what keeps data has a volume."""
        services = self.compose["services"]
        self.assertEqual({"redis", "gateway", "consumer"}, set(services))
        for service in services.values():
            for volume in service["volumes"]:
                source = volume.partition(":")[0]
                self.assertTrue(
                    (ROOT / source).exists() if source.startswith("./") else source in self.compose["volumes"]
                )
        options = Options()
        options.parseOptions(services["gateway"]["command"])
        self.assertEqual("redis://redis:6379/0", options.read().redis.url)
        self.assertIn("redis://redis:6379/0", services["consumer"]["command"][-1])
        port = Config().gateway.port
        self.assertEqual([f"{port}:{port}/tcp", f"{port}:{port}/udp"], services["gateway"]["ports"])
        for text in (self.docker, (ROOT / "compose.yaml").read_text()):
            self.assertRegex(text, "not (built|run) by the project's tests")
