"""What the README shows is run: the report, what it leads to, the consumer, and the plugin."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.integration.parts import Child, Gateway, RealPartsTestCase, accepts, connect, free_port, wait_for

README: Final = Path(__file__).resolve().parents[1] / "README.md"

#: redis-py gives up a read after so long unless it is told otherwise.
_REDIS_PY_PATIENCE: Final = 5.0

_UNLIKE: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "<time>"),
    (re.compile(r"V4,V1,\d{14}"), "V4,V1,<time>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<peer>"),
    (re.compile(r"gateway/[\w.-]+"), "gateway/<instance>"),
    (re.compile(r"\b\d{13}-\d+\b"), "<entry>"),
)


def block(mark: str) -> str:
    """The block of the README after C{<!-- mark -->}."""
    found = re.search(rf"^<!-- {re.escape(mark)} -->\n```\w+\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"the README has no block {mark}"
    return found[1]


def alike(text: str) -> str:
    """A text without what is another each time: times, ids, ports, names."""
    for pattern, name in _UNLIKE:
        text = pattern.sub(name, text)
    return text


def gateway_command(*words: str) -> list[str]:
    """The command line C{gateway} of this Python."""
    return [sys.executable, "-m", "gateway.cli", *words]


def environment(path: Path | None = None) -> dict[str, str]:
    """The environment with one more directory for Python to look in."""
    paths = [str(path)] if path is not None else []
    paths += [before] if (before := os.environ.get("PYTHONPATH")) else []
    return {**os.environ, **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}


class FirstLookTests(RealPartsTestCase):
    """The first look and the consumer, against a gateway with its embedded Redis."""

    def setUp(self) -> None:
        """Start the gateway."""
        super().setUp()
        self.binary()
        self.running: Gateway = self.running_gateway()

    def report(self) -> str:
        """Send the README's report; its answer."""
        command, _, _ = block("report").partition("|")
        frame = subprocess.run(["sh", "-c", command], capture_output=True, check=True, timeout=10).stdout
        with socket.create_connection(("127.0.0.1", self.running.port), timeout=10) as client:
            client.sendall(frame)
            return client.recv(1024).decode()

    def follow(self, *command: str) -> Child:
        """Start a program that runs on."""
        child = Child(command, self.directory / f"output-{len(list(self.directory.iterdir()))}", environment())
        self.addCleanup(child.kill)
        return child

    def lines(self, child: Child, count: int) -> list[str]:
        """Wait until it wrote so many lines, and return them."""
        wait_for(f"{count} lines", lambda: child.output.read_text().count("\n") >= count, detail=child.tail)
        return child.output.read_text().splitlines()

    def test_report(self) -> None:
        """The report is answered, shown by tail and stored as the README shows."""
        self.assertIn(alike(self.report()), alike(README.read_text()))
        tail = self.follow(*gateway_command("tail", "--from-start", "--data-dir", str(self.running.data_dir)))
        shown = sorted(alike(block("tail")).splitlines())
        self.assertEqual(sorted(alike(line) for line in self.lines(tail, len(shown))), shown)
        client = connect(self.running.embedded_url())
        self.addCleanup(client.close)
        [(_, fields)] = client.xrange("gateway:position")
        stored = [text for pair in fields.items() for text in pair]
        words = re.findall(r'\d+\) "((?:[^"\\]|\\.)*)"$', block("xread"), re.MULTILINE)[2:]
        self.assertEqual([alike(text) for text in stored], [alike(word.replace('\\"', '"')) for word in words])

    def test_consumer(self) -> None:
        """The consumer prints each report once, waits for as long as nothing comes, and goes on after a crash."""
        program = self.directory / "consumer.py"
        program.write_text(block("consumer.py"))
        command = [sys.executable, "-u", str(program), self.running.embedded_url()]
        expected = alike(block("consumed").splitlines()[1])
        client = connect(self.running.embedded_url())
        self.addCleanup(client.close)
        # an earlier run, that read the first report and crashed
        self.report()
        client.xgroup_create("gateway:position", "map", id="0")
        client.xreadgroup("map", "reader-1", {"gateway:position": ">"})
        consumer = self.follow(*command)
        self.assertEqual([alike(line) for line in self.lines(consumer, 1)], [expected])
        threading.Event().wait(_REDIS_PY_PATIENCE + 1)
        self.report()
        self.assertEqual([alike(line) for line in self.lines(consumer, 2)], [expected] * 2)
        wait_for("both to be acknowledged", lambda: client.xpending("gateway:position", "map")["pending"] == 0)
        self.assertIsNone(consumer.exited, consumer.tail())

    def test_consumer_first(self) -> None:
        """The consumer may come before the first report."""
        program = self.directory / "consumer.py"
        program.write_text(block("consumer.py"))
        consumer = self.follow(sys.executable, "-u", str(program), self.running.embedded_url())
        client = connect(self.running.embedded_url())
        self.addCleanup(client.close)
        wait_for("the group", lambda: client.exists("gateway:position"), detail=consumer.tail)
        self.report()
        self.assertEqual([alike(line) for line in self.lines(consumer, 1)], [alike(block("consumed").splitlines()[1])])

    def test_redis_cli(self) -> None:
        """The URL in redis.url is one that redis-cli takes: it needs the user's name, the password is not enough."""
        url = self.running.embedded_url()
        self.assertTrue(url.startswith("redis://default:"), url.partition("@")[2])
        if program := shutil.which("redis-cli"):
            done = subprocess.run([program, "-u", url, "PING"], capture_output=True, timeout=10, check=False)
            self.assertEqual(done.stdout.decode().split(), ["PONG"])


class PluginTests(RealPartsTestCase):
    """The plugin, installed as a package of its own."""

    def setUp(self) -> None:
        """Install what the README shows: the module, and what pip makes of its pyproject.toml."""
        super().setUp()
        project = tomllib.loads(block("pyproject.toml"))
        about = project["project"]
        for module in project["tool"]["setuptools"]["py-modules"]:
            (self.directory / f"{module}.py").write_text(block(f"{module}.py"))
        info = self.directory / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
        points: Mapping[str, Mapping[str, str]] = about["entry-points"]
        lines = [
            line
            for group, names in points.items()
            for line in (f"[{group}]", *(f"{n} = {v}" for n, v in names.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

    def run_shown(self, command: str) -> str:
        """What a command of the README gives."""
        words = subprocess.list2cmdline(gateway_command())
        done = subprocess.run(
            ["sh", "-c", re.sub(r"(^|\| )gateway ", rf"\1{words} ", command)],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=self.directory,
            env=environment(self.directory),
            check=False,
        )
        self.assertEqual(done.stderr, "")
        return done.stdout

    def test_shown(self) -> None:
        """The commands give what the README shows, but for other plugins that are installed, and their versions."""
        for part in re.split(r"^\$ ", block("acme"), flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            given = self.run_shown(command)
            if command == "gateway plugins":
                self.assertIn(shown.splitlines()[-1], given.splitlines())
                self.assertEqual(
                    [line.split()[0] for line in given.splitlines() if "built in" in line], ["st907", "osmand"]
                )
            else:
                self.assertEqual(given, shown)

    def test_gateway(self) -> None:
        """A gateway with the plugin takes a report and answers it; what is no report is kept with the reason."""
        redis, port = self.running_redis(), free_port()
        options = (
            "--port",
            str(port),
            "--listen",
            "127.0.0.1",
            "--data-dir",
            str(self.directory),
            "--redis",
            redis.url,
        )
        command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "gateway"]
        made = Child([*command, *options], self.directory / "output", environment(self.directory))
        self.addCleanup(made.kill)
        wait_for("the gateway to listen", lambda: accepts("127.0.0.1", port), detail=made.tail)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as tracker:
            for line in (
                b"!acme;351234567890123;1767225600;52.520000;13.405000;41.5;0\r\n",
                b"!acme;351234567890123;nan\r\n",
                b"!acme;351234567890123;1767225601;nan;13.405000;41.5;0\r\n",
            ):
                tracker.sendall(line)
            self.assertEqual(tracker.recv(100), b"OK\r\n")
        wait_for("both frames that are none", lambda: redis.client.xlen("gateway:dead") == 2, detail=made.tail)
        [(_, stored)] = redis.client.xrange("gateway:position")
        self.assertEqual(stored["protocol"], "acme")
        self.assertEqual(stored["ident"], "351234567890123")
        self.assertEqual(stored["speed_kmh"], "41.50")


class LinkTests(unittest.TestCase):
    """The README's links."""

    def test_files(self) -> None:
        """Each file that it points to is there."""
        for name in set(re.findall(r"\]\(([^):]+)\)", README.read_text())):
            self.assertTrue((README.parent / name).exists(), name)
