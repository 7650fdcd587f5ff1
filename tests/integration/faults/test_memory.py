"""The gateway's memory while Redis stands still under load: 20 s, with C{GATEWAY_LONG=1} ten minutes."""

from __future__ import annotations

import signal
import sys
import time
from typing import Final

from tests.integration.faults.faults import LONG
from tests.integration.faults.rounds import RoundTestCase

STOPPED_S: Final = 600.0 if LONG else 20.0

#: Reports a second, one from each device.
DEVICES: Final = {"tcp": 240, "udp": 60}

#: What may wait is reached within the first quarter of the short form.
PENDING: Final = 1_000

#: How much more the gateway may hold at any time after the first quarter than at its end.
MARGIN_MIB: Final = 8.0

#: How long the journal may take to be drained: 180,000 reports after ten minutes.
DRAINED_S: Final = 300.0

SAMPLE_S: Final = 0.5


class MemoryTests(RoundTestCase):
    """Devices report, and Redis takes nothing."""

    def test_flat(self) -> None:
        """Once what may wait in memory has been reached it holds no more, however long it takes; then all goes on."""
        with self.stage(devices=DEVICES, config=f"[limits]\npending = {PENDING}\n") as stage:
            before = stage.gateway.resident_mib()
            stage.redis.signal(signal.SIGSTOP)
            samples = []
            end = time.monotonic() + STOPPED_S
            while time.monotonic() < end:
                time.sleep(SAMPLE_S)
                samples.append(stage.gateway.resident_mib())
            stage.redis.signal(signal.SIGCONT)
            recovery = stage.wait_until_whole(time.time(), DRAINED_S)
            settled, *others = samples[len(samples) // 4 :]
            about = (
                f"{before:.0f} MiB before, {settled:.0f} after {STOPPED_S / 4:g} s, at most {max(others):.0f} "
                f"within {STOPPED_S:g} s; all served after {recovery.all_s:.1f} s, "
                f"the journal empty after {recovery.drained_s:.1f} s"
            )
            print(about, file=sys.stderr)
            self.assertLess(max(others), settled + MARGIN_MIB, about)
