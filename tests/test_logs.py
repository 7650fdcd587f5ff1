"""Logs as JSON lines."""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import Logger, LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gateway.logs import FIELD, FIELDS, TEXT, line


class Unprintable:
    """What can't be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")


class LineTests(SynchronousTestCase):
    """One line an event."""

    def logged(self, format: str, **fields: Any) -> dict[str, Any]:
        """What a line says."""
        with capturedLogs() as events:
            Logger("gateway.test").emit(LogLevel.warn, format, **fields)
        text = line(events[0])
        self.assertNotIn("\n", text)
        self.assertTrue(text.isascii() and text.isprintable())
        said: dict[str, Any] = json.loads(text)
        return said

    def test_fields(self) -> None:
        """Time, level, logger, the text, and what that is made of."""
        said = self.logged("{ident} from {peer}: {n}", ident="9170123456", peer="192.0.2.7:1", n=3, share=0.5, on=True)
        self.assertEqual(("warn", "gateway.test"), (said["level"], said["logger"]))
        self.assertEqual("9170123456 from 192.0.2.7:1: 3", said["text"])
        self.assertEqual(("9170123456", 3, 0.5, True), tuple(said[name] for name in ("ident", "n", "share", "on")))
        self.assertRegex(said["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")

    def test_hostile(self) -> None:
        """Whatever a field holds is one line, as long as it may be, and no other field."""
        said = self.logged("{text}", text="\x1b[31m\n\u2028<b>\0" + "x" * 10_000, logger="none")
        self.assertEqual((TEXT, "gateway.test"), (len(said["text"]), said["logger"]))
        said = self.logged("x", **{f"field{n}": "y" * 10_000 for n in range(100)})
        self.assertLessEqual(len(said), FIELDS + 5)
        self.assertEqual(FIELD, max(len(value) for value in said.values() if isinstance(value, str)))

    def test_odd_values(self) -> None:
        """Numbers that JSON does not have, objects, and what can't be shown."""
        said = self.logged(
            "x", inf=float("inf"), nan=float("nan"), big=2**70, thing=[1, 2], bad=Unprintable(), none=None
        )
        expected = {"inf": "inf", "nan": "nan", "big": str(2**70), "thing": "[1, 2]", "bad": "?", "none": None}
        self.assertEqual(expected, {name: said[name] for name in expected})

    def test_traceback(self) -> None:
        """A failure has its traceback in a field."""
        try:
            raise RuntimeError("secret of nobody")
        except RuntimeError:
            failure = Failure()
        with capturedLogs() as events:
            Logger("gateway.test").failure("it failed", failure)
        self.flushLoggedErrors(RuntimeError)
        said = json.loads(line(events[0]))
        self.assertEqual(("critical", "it failed"), (said["level"], said["text"]))
        self.assertIn("RuntimeError: secret of nobody", said["traceback"])
