"""What the documentation says of giving commands, done as it says, with a real gateway and a device."""

from __future__ import annotations

import subprocess
import sys

from tests.integration.commands.test_outcomes import OutcomeCase
from tests.integration.parts import CHECKOUT, SOON


class WrittenTests(OutcomeCase):
    """The example of docs/commands, and the command line."""

    def test_stop_and_resume(self) -> None:
        """The example stops an engine and waits for the proof; C{gateway send} starts it again, and shows each step."""
        ident, _ = self.fleet()
        self.seen(ident)
        stopped = self._run(str(CHECKOUT / "docs" / "stop_engine.py"), self.redis.url, ident)
        self.assertEqual(0, stopped.returncode, stopped)
        self.assertIn("command.verified", stopped.stdout.splitlines()[-1])
        send = ("-m", "gateway.cli", "send", ident, "engine.resume", "--wait", "--redis", self.redis.url)
        resumed = self._run(*send)
        self.assertEqual(0, resumed.returncode, resumed)
        words = [line.split()[1].rstrip(":") for line in resumed.stdout.splitlines()[1:]]
        self.assertEqual(["queued", "sending", "sent", "confirmed", "verified"], words, resumed.stdout)
        state = self.redis.client.hget(f"gateway:last:{ident}", "immobilizer")
        self.assertEqual("0", state)

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=SOON + 20, cwd=CHECKOUT)
