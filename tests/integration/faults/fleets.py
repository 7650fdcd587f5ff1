"""Simulated fleets that report as long as a test wants, followed through what they say was acknowledged."""

from __future__ import annotations

import json
import signal
from bisect import bisect_left
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tests.integration.simulated import Simulated, report_id

#: Between two reports of a device.
INTERVAL_S: Final = 1

#: After which a report is sent again: over UDP, where a datagram may be lost, soon.
TIMEOUTS_S: Final = {"tcp": 8, "udp": 2}

#: How long a fleet waits at its end for what is outstanding; as long as its devices may wait to connect, and more.
PATIENCE_S: Final = 60

_FIRST: Final = {"tcp": 9_940_000_001, "udp": 9_950_000_001}


class Fleet(Simulated):
    """
    A fleet that reports until it is told to stop.

    @ivar ids: the ids of what was acknowledged so far.
    @ivar firsts: for each device the time of the first acknowledgement since the moment that was marked.
    """

    def __init__(
        self,
        directory: Path,
        port: int,
        transport: str,
        devices: int,
        seed: int,
        first: int | None = None,
        **options: object,
    ) -> None:
        settings = {"interval": INTERVAL_S, "timeout": TIMEOUTS_S[transport], "patience": PATIENCE_S, "seed": seed}
        super().__init__(
            directory,
            port,
            _FIRST[transport] if first is None else first,
            transport=transport,
            devices=devices,
            **(settings | options),
        )
        self.devices = devices
        self.ids: set[str] = set()
        self.firsts: dict[str, float] = {}
        self._times: list[float] = []
        self._moment = 0.0
        self._read = 0

    def mark(self, moment: float) -> None:
        """Look from now on for acknowledgements since then (UTC epoch seconds)."""
        self._moment = moment
        self.firsts.clear()

    def follow(self) -> None:
        """Read what was acknowledged since the last time."""
        if not self.record.exists():
            return
        with self.record.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            row = json.loads(line)
            self.ids.add(report_id(row["ident"], bytes.fromhex(row["hex"])))
            at = datetime.fromisoformat(row["time"]).timestamp()
            self._times.append(at)
            if at >= self._moment:
                self.firsts.setdefault(row["ident"], at)

    def answers(self, begin: float, end: float) -> int:
        """How many acknowledgements came between two moments, of those that were followed so far."""
        return bisect_left(self._times, end) - bisect_left(self._times, begin)

    @property
    def served(self) -> bool:
        """Whether each device has had an acknowledgement since the moment that was marked."""
        return len(self.firsts) == self.devices

    def stop(self) -> None:
        """Let it make no more reports, and wait for what is outstanding."""
        self.child.signal(signal.SIGTERM)

    def finished(self) -> dict[str, Any]:
        """Wait for its end, and return its summary."""
        summary = self.summary(PATIENCE_S + 20.0)
        self.follow()
        return summary
