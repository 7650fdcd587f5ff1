"""C{gateway simulate} as a process of its own, and what it says became of its reports."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.integration.fleet import event_id
from tests.integration.parts import CHECKOUT, Child


class Simulated:
    """A fleet that runs."""

    def __init__(self, directory: Path, port: int, first: int, **options: object) -> None:
        """
        @param first: the first ident; names the fleet's files, too.
        @param options: of the command, without their dashes.

        @ivar record: the file with the reports that were acknowledged, C{heard} that with the commands.
        """
        self.record = directory / f"{first}.jsonl"
        self.heard = directory / f"{first}.heard.jsonl"
        command = [sys.executable, "-m", "gateway.cli", "simulate", "--json", "--port", str(port)]
        command += ["--first", str(first), "--record", str(self.record), "--heard", str(self.heard)]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        self.child = Child(command, directory / f"{first}.output", environment)

    def summary(self, seconds: float) -> dict[str, Any]:
        """Wait for its end; what it printed, with its exit status as C{status}."""
        status = self.child.wait(seconds)
        lines = [line for line in self.child.tail().splitlines() if line.startswith("{")]
        if not lines:
            raise AssertionError(f"no summary, exit status {status}\n{self.child.tail()}")
        summary: dict[str, Any] = json.loads(lines[-1])
        return summary | {"status": status}

    def commands(self) -> list[dict[str, Any]]:
        """The commands that came to the devices: C{ident}, C{hex}, C{time} and C{alone}."""
        return [json.loads(line) for line in self.heard.read_text().splitlines()]

    def acknowledged(self) -> list[str]:
        """The ids of the events of the reports that were acknowledged, as DESIGN.md section 5 defines them."""
        ids = []
        for line in self.record.read_text().splitlines():
            row = json.loads(line)
            ids.append(report_id(row["ident"], bytes.fromhex(row["hex"])))
        return ids


def report_id(ident: str, frame: bytes) -> str:
    """The id of the first event of a report."""
    return event_id(ident, frame, "status" if b",NBR," in frame else "position")  # cells are no position
