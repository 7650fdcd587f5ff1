"""The units for systemd, and the sockets that it hands over."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.fleet import Client, Datagrams, v1
from tests.integration.parts import CHECKOUT, Gateway, RealPartsTestCase, free_port, wait_for

UNIT = CHECKOUT / "conf" / "gateway.service"
#: What docs/security says of it: less is better.
EXPOSURE = 1.3

#: Does what systemd does: sockets from descriptor 3 on, then the program in the same process.
_ACTIVATE = """
import os, socket, sys
kinds, port, command = sys.argv[1].split(","), int(sys.argv[2]), sys.argv[3:]
made = []
for kind in kinds:
    if kind == "file":
        made.append(os.open("/dev/null", os.O_RDONLY))
        continue
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    if kind == "tcp":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    if kind == "tcp":
        sock.listen(16)
    made.append(sock.detach())
high = [os.dup2(fd, 100 + at) for at, fd in enumerate(made)]
for at, fd in enumerate(high):
    os.dup2(fd, 3 + at, inheritable=True)
names = ":".join(["gateway.socket"] * len(made))
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(made)), LISTEN_FDNAMES=names)
os.execv(command[0], command)
"""


class Activated(Gateway):
    """A gateway that is handed sockets."""

    kinds = "tcp,udp"

    def _command(self) -> list[str]:
        words = super()._command()
        while "--listen" in words:
            del words[words.index("--listen") : words.index("--listen") + 2]
        return [sys.executable, "-c", _ACTIVATE, self.kinds, str(self.port), *words, "--listen", "systemd"]

    def _listening(self) -> bool:
        return "listening on" in self.output()


class SystemdTests(RealPartsTestCase):
    """What is in C{conf/}."""

    def activated(self, kinds: str, *options: str) -> Activated:
        """A gateway that is handed these, not started yet."""
        made = Activated(
            self.directory / f"activated-{time.monotonic_ns()}",
            redis_url=self.redis_url,
            port=free_port(),
            options=options,
            workers=1,
        )
        made.kinds = kinds
        self.addCleanup(self._remove, made)
        return made

    def test_sockets(self) -> None:
        """It serves on sockets that it is handed, and who connected before it ran is served, too."""
        self.redis_url = self.running_redis().url
        gateway = self.activated("tcp,udp")
        gateway.launch()

        def connected() -> Client | None:
            try:
                return Client(gateway.port)
            except OSError:
                return None

        early = wait_for("the socket", connected)
        assert early is not None
        with early:
            early.send(v1("9170123456", time.time()))
            self.assertEqual(1, len(early.answers(1)), gateway.tail())
        with Datagrams(gateway.port) as datagrams:
            datagrams.send(v1("9170123457", time.time()))
            self.assertEqual(1, len(datagrams.answers(1)))

    def test_mistakes(self) -> None:
        """What is handed over and makes no sense is one line."""
        self.redis_url = self.running_redis().url
        for kinds, said in (
            ("tcp", "lacks its ListenDatagram="),
            ("udp", "lacks its ListenStream="),
            ("tcp,udp,file", "descriptor 5 is no socket"),
        ):
            gateway = self.activated(kinds)
            gateway.launch()
            self.assertEqual(1, gateway.wait(30))
            self.assertIn(said, gateway.output())
        for options, said in (
            (("--listen", "systemd"), "systemd has handed over no sockets"),
            (("--listen", "systemd", "--listen", "127.0.0.1"), "stands alone"),
            (("--listen", "systemd", "--workers", "2"), "for one process"),
        ):
            words = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "gateway", "--web", "off"]
            words += ["--data-dir", str(self.directory / "none"), "--redis", self.redis_url, *options]
            found = subprocess.run(words, capture_output=True, text=True, timeout=60)
            self.assertEqual(1, found.returncode)
            self.assertIn(said, found.stdout + found.stderr)

    def test_exposure(self) -> None:
        """C{systemd-analyze} finds the service as little exposed as the documentation says."""
        tool = shutil.which("systemd-analyze")
        if tool is None:
            self.skipTest("systemd-analyze is not there: no part of the gateway needs it")
        found = subprocess.run([tool, "security", "--offline=true", str(UNIT)], capture_output=True, text=True)
        exposure = re.search(r"exposure level for gateway.service: ([0-9.]+)", found.stdout)
        assert exposure is not None, found.stdout + found.stderr
        self.assertLessEqual(float(exposure[1]), EXPOSURE)
        self.assertIn(f"{exposure[1]}", (CHECKOUT / "docs" / "security.rst").read_text())

    def test_ports(self) -> None:
        """The socket unit listens where the gateway does by itself."""
        text = (CHECKOUT / "conf" / "gateway.socket").read_text()
        self.assertEqual(2, len(re.findall(r"^ListenStream=.*:8888$", text, re.MULTILINE)))
        self.assertEqual(2, len(re.findall(r"^ListenDatagram=.*:8888$", text, re.MULTILINE)))
