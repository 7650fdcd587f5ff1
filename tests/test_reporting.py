"""What several processes say of themselves, as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from gateway.metrics import text
from gateway.reporting import Log, Report, together
from gateway.workers.wire import Word


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

    def test_beat(self) -> None:
        """A report says what a heartbeat says, without a Redis, also when it came through a pipe."""
        more = {"host": "vm", "version": "1", "histograms": {"wait": [[1.0], [1, 2], 5.0], "x": None}}
        report = Report({"received": 3}, 1, 2, False, ["a problem"], 0.5, more)
        word = Word.read(Word(("there",), (), report).line())
        assert word.report is not None
        self.assertEqual(report, word.report)
        beat = word.report.beat("gw/1")
        self.assertEqual(("gw/1", "vm", False), (beat.instance, beat.host, beat.content["ready"]))
        self.assertIn('gateway_received_frames_total{gateway="gw",worker="1"} 3.0', text([beat]))
        self.assertEqual([1, 2], word.report.histograms["wait"].counts)
        whole = together([report, report._replace(lag_s=0.1)], {})
        self.assertEqual((0.5, [2, 4]), (whole.lag_s, whole.histograms["wait"].counts))


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
