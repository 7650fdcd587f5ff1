"""What several processes say of themselves, as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from gateway.reporting import Log, Report, together


class TogetherTests(SynchronousTestCase):
    """The whole of several."""

    def test_sums(self) -> None:
        """Counters add up, also with those of the dead, and so do frames and connections."""
        gone = Counter(received=5, refused=1)
        one, two = Report({"received": 1}, 2, 3, True, ()), Report({"received": 10, "published": 4}, 20, 30, True, ())
        whole = together([one, two], gone)
        self.assertEqual(Report({"received": 16, "published": 4, "refused": 1}, 22, 33, True, []), whole)
        self.assertEqual({"received": 5, "refused": 1}, gone)

    def test_ready(self) -> None:
        """It is ready when all are, and not when nobody is there; each problem is said once, in order."""

        def one(ready: bool, *problems: str) -> Report:
            return Report({}, 0, 0, ready, problems)

        def state(reports: Sequence[Report]) -> tuple[bool, list[str]]:
            whole = together(reports, {})
            return whole.ready, list(whole.problems)

        self.assertEqual((False, []), state([]))
        self.assertEqual((True, []), state([one(True), one(True)]))
        self.assertEqual((False, ["b", "a", "c"]), state([one(True, "b", "a"), one(False, "a", "c")]))


class LogTests(SynchronousTestCase):
    """The log of a gateway."""

    def test_changes(self) -> None:
        """Once a minute it says which counters changed, and nothing when none did; at the end all of them."""
        log = Log()
        after = {"received": 2, "limited": 1}
        with capturedLogs() as logged:
            for counters in ({"received": 1}, {"received": 1}, after, after):
                log.minute(Report(counters, 0, 0, True, ()))
            log.ended(Report(after, 0, 0, True, ()))
            log.ended(Report({}, 0, 0, True, ()))
        self.assertEqual(
            [
                "counters: received=1",
                "counters: limited=1 received=2",
                "ended: limited=1 received=2",
                "ended: nothing was received",
            ],
            [formatEvent(event) for event in logged],
        )
