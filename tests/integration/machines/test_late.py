"""Commands through HAProxy to trackers that are cut off from it: what was not answered in time never arrives."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.integration.commands.commander import Commander
from tests.integration.fleet import IGNITION_OFF, v1
from tests.integration.machines.parts import MachinesTestCase
from tests.integration.parts import Child, wait_for

IDENT: Final = "9970000001"
#: A network of the process's own, as tests may run side by side.
_NET: Final = f"10.203.{os.getpid() // 64 % 256}"
_FIRST: Final = os.getpid() % 64 * 4
NEAR: Final = f"{_NET}.{_FIRST + 1}"
FAR: Final = f"{_NET}.{_FIRST + 2}"
#: Connects and sends a report, then writes down all that it reads, until it is closed.
TRACKER: Final = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
connection.sendall(bytes.fromhex(sys.argv[3]))
while True:
    try:
        data = connection.recv(65536)
    except OSError as error:
        data = b""
    print(data.hex() or "closed", flush=True)
    if not data:
        break
"""
TTL_S: Final = 6


class LateTests(MachinesTestCase):
    """A tracker in a network of its own, from which nothing comes through for a while."""

    def setUp(self) -> None:
        """Make the network, start all, and let the tracker report."""
        super().setUp()
        self.need(shutil.which("ip"), "no ip (iproute2) on PATH")
        self.need(os.geteuid() == 0, "only root can make a network namespace")
        self.space = f"gateway-test-{os.getpid()}"
        self.near, far = f"gwa{os.getpid()}"[:15], f"gwb{os.getpid()}"[:15]
        self.ip("netns", "add", self.space)
        self.addCleanup(self.ip, "netns", "del", self.space)
        self.ip("link", "add", self.near, "type", "veth", "peer", "name", far, "netns", self.space)
        for where, name, address in (((), self.near, NEAR), (("-n", self.space), far, FAR)):
            self.ip(*where, "addr", "add", f"{address}/30", "dev", name)
            self.ip(*where, "link", "set", name, "up")
        self.made = self.machine("one", "[commands]\nanswer_within = 8.0\n")

    def ip(self, *words: str) -> None:
        """Run C{ip}."""
        subprocess.run(["ip", *words], check=True)

    def begin(self, *changes: tuple[str, str]) -> None:
        """The tracker connects through HAProxy, and is answered."""
        self.port = self.haproxy(*changes, host=NEAR)
        self.heard = self.directory / "heard"
        command = [sys.executable, "-c", TRACKER, NEAR, str(self.port)]
        frame = v1(IDENT, int(time.time()), IGNITION_OFF)
        self.tracker = Child(["ip", "netns", "exec", self.space, *command, frame.hex()], self.heard)
        self.addCleanup(self.tracker.kill)
        wait_for("the tracker to be answered", self.lines, detail=self.tracker.tail)
        self.assertIn(FAR, self.rows(IDENT)[-1]["peer"])

    def lines(self) -> list[str]:
        """What the tracker has read, in hex."""
        return Path(self.heard).read_text().split()

    def cut_off(self) -> None:
        """What is sent to the tracker is lost from now on, while what it sends still comes."""
        self.ip("neigh", "replace", FAR, "lladdr", "02:00:00:00:00:99", "dev", self.near, "nud", "permanent")

    def mend(self) -> None:
        """All comes through again."""
        self.ip("neigh", "del", FAR, "dev", self.near)

    def tell(self) -> Commander:
        """Have the tracker told something that it can't hear; it is written when this returns."""
        self.cut_off()
        commander = Commander(self.redis.client)
        commander.give(IDENT, "interval.set", "late", args={"seconds": 33}, ttl=TTL_S)
        commander.until("late", "sent")
        return commander

    def never_arrives(self) -> None:
        """The tracker can hear again for longer than the kernel waits before it sends once more; it hears nothing."""
        self.mend()
        end = time.monotonic() + 10.0
        while time.monotonic() < end:
            self.assertFalse([line for line in self.lines()[1:] if line != "closed"], "it arrived late")
            time.sleep(0.1)

    def test_arrives(self) -> None:
        """What is mended within the ttl arrives: so the other tests could see it, too."""
        self.begin()
        self.tell()
        self.mend()
        wait_for("the command to arrive", lambda: len(self.lines()) > 1)
        self.assertIn(",S17,", bytes.fromhex(self.lines()[1]).decode())

    def test_ttl(self) -> None:
        """After the ttl it does not arrive any more, although HAProxy had it; and nobody says that it did."""
        self.begin()
        commander = self.tell()
        wait_for("the connection to be reset", lambda: "is cut off" in self.made.output(), detail=self.made.tail)
        self.never_arrives()
        final = commander.final("late", seconds=90)
        self.assertEqual("failed", final.kind)
        self.assertIn("whether it came to the device is not known", final.reason)

    def test_killed(self) -> None:
        """The gateway is killed meanwhile: what HAProxy has does not arrive after that, also before it finds out."""
        self.begin(("fall 3", "fall 300"))
        self.tell()
        self.made.kill()
        time.sleep(1.0)
        self.never_arrives()

    def test_machine_gone(self) -> None:
        """The whole machine is gone, without a word: after tcp-ut it does not arrive any more."""
        self.begin(("tcp-ut 60s", "tcp-ut 3s"), ("fall 3", "fall 300"))
        self.tell()
        # HAProxy's kernel knows no more of it than of a machine without power
        self.made.signal(signal.SIGSTOP)
        time.sleep(6.0)
        self.never_arrives()
