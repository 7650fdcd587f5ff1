"""The peers: processes that nobody here wrote, each driven by a small script."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.integration.parts import RealPartsTestCase, free_port, wait_for

HERE: Final = Path(__file__).parent
SMPP: Final = "smpp@0.5.1"
SYSTEM_ID: Final = "gateway"


@cache
def node_modules() -> str:
    """Where npm's smpp is, which is fetched once for a process; empty: it can't be had."""
    if not (shutil.which("node") and shutil.which("npm")):
        return ""
    where = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gateway-tests" / SMPP
    if not (where / "node_modules" / "smpp").is_dir():
        where.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(where), SMPP], capture_output=True
        )
        if done.returncode:
            return ""
    return str(where / "node_modules")


class Told:
    """
    A process that is told, and tells, a JSON object a line.

    @ivar heard: all that it has told.
    """

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.heard: list[dict[str, Any]] = []
        #: called with each, in a thread of its own
        self.on_heard: Callable[[dict[str, Any]], None] = lambda heard: None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            heard = json.loads(line)
            self.heard.append(heard)
            self.on_heard(heard)

    def tell(self, **what: Any) -> None:
        """Tell it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def kind(self, name: str) -> list[Any]:
        """What it has told of one kind."""
        return [one[name] for one in self.heard if name in one]

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._thread.join(5)


class SMSC(Told):
    """An SMSC: of npm's smpp, or of Perl's Net::SMPP."""

    def __init__(
        self, port: int, password: str = "secret", files: tuple[Path, Path] | None = None, perl: bool = False
    ) -> None:
        """@param files: certificate and key, with TLS."""
        if perl:
            super().__init__(["perl", str(HERE / "smsc.pl"), str(port), SYSTEM_ID, password])
        else:
            words = [str(port), node_modules(), SYSTEM_ID, password, *map(str, files or ())]
            super().__init__(["node", str(HERE / "smsc.js"), *words])
        wait_for("the SMSC to listen", lambda: self.kind("listening"), 20)

    @property
    def texts(self) -> list[Mapping[str, Any]]:
        """What it was given and took."""
        return [one for one in self.kind("submit") if one["taken"]]

    def deliver(self, sender: str, text: str, **more: Any) -> None:
        """A text comes from a phone."""
        self.tell(deliver={"from": sender.removeprefix("+"), "text": text, **more})


class SMSTestCase(RealPartsTestCase):
    """A gateway with SMS, and its SMSC."""

    def smsc(self, **more: Any) -> tuple[SMSC, int]:
        """Start one; and its port."""
        if more.get("perl"):
            there = subprocess.run(["perl", "-MNet::SMPP", "-e", "1"], capture_output=True).returncode == 0
            self.need(there, "no Net::SMPP of Perl (libnet-smpp-perl)")
        else:
            self.need(bool(shutil.which("node") and shutil.which("npm")), "no node and npm on PATH")
            self.need(bool(node_modules()), f"npm can't fetch {SMPP}")
        port = free_port()
        made = SMSC(port, **more)
        self.addCleanup(made.end)
        return made, port
