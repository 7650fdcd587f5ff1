"""C{gateway status} and C{gateway restart}: what they make of what gateways say."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from gateway.cli import main
from gateway.datadir import hold, started, write_workers
from gateway.ledger import Beat
from gateway.operating import Whole

NOW = 1_795_348_800.0


def beat(name: str, worker: int = 0, workers: int = 1, *, ready: bool = True, **more: Any) -> Beat:
    """What a process says that has been up for an hour and a minute."""
    content = {"host": "vm", "ready": ready, "worker": worker, "workers": workers, "since": int(NOW) - 3_660}
    content |= {"connections": 1_000, "pending": 2, "counters": {"received": 5_000}, "journal": {"frames": 3}}
    return Beat.read(name, json.dumps(content | more).encode())


def wholes(*of: Beat) -> list[Whole]:
    """Who belongs together."""
    return Whole.of({one.instance: one for one in of})


class WholeTests(SynchronousTestCase):
    """Who belongs together, and how they do."""

    def test_one_process(self) -> None:
        """A gateway of one process has two lines."""
        (whole,) = wholes(beat("vm-8888"))
        self.assertEqual([], whole.problems)
        self.assertEqual(
            [
                "vm-8888 on vm: ready",
                "  1,000 connections, 5,000 frames received, 2 pending, 3 in the journal, up 1:01:00",
            ],
            list(whole.lines(NOW)),
        )

    def test_workers(self) -> None:
        """One with workers has a line for each, in their order, and the sum."""
        first, second = wholes(*(beat(f"b/{n}", n, 10) for n in (10, 2, *range(3, 10), 1)), beat("a"))
        self.assertEqual(("a", "b", 10, []), (first.instance, second.instance, second.workers, second.problems))
        lines = list(second.lines(NOW))
        self.assertEqual([f"  worker {n}" for n in range(1, 11)], [line.partition(",")[0] for line in lines[1:-1]])
        self.assertEqual(
            "  together 10,000 connections, 50,000 frames received, 20 pending, 30 in the journal", lines[-1]
        )

    def test_missing(self) -> None:
        """A worker that says nothing is missed."""
        (whole,) = wholes(beat("vm/1", 1, 3), beat("vm/3", 3, 3))
        self.assertEqual(["worker 2 is not there"], whole.problems)
        self.assertEqual("vm on vm: NOT READY: worker 2 is not there", next(whole.lines(NOW)))

    def test_not_ready(self) -> None:
        """What is wrong is said with the worker's number, and with a reason when it says none."""
        (whole,) = wholes(
            beat("vm/1", 1, 2, ready=False), beat("vm/2", 2, 2, ready=False, problems=["streams are full"])
        )
        self.assertEqual(["worker 1: batches go to the journal", "worker 2: streams are full"], whole.problems)
        (alone,) = wholes(beat("vm", ready=False))
        self.assertEqual(["batches go to the journal"], alone.problems)

    def test_for_machines(self) -> None:
        """The same as an object: sums, and what each process says."""
        (whole,) = wholes(beat("vm/1", 1, 2), beat("vm/2", 2, 2, counters={"received": 1, "limited": 2}))
        found = whole.as_json()
        self.assertEqual(
            {
                "instance": "vm",
                "host": "vm",
                "ready": True,
                "problems": [],
                "workers": 2,
                "connections": 2_000,
                "pending": 4,
                "journal_frames": 6,
                "counters": {"received": 5_001, "limited": 2},
            },
            {name: value for name, value in found.items() if name != "processes"},
        )
        self.assertEqual([1, 2], [process["worker"] for process in found["processes"]])

    def test_nonsense(self) -> None:
        """What makes no sense in a heartbeat, or an older gateway does not say, is taken for nothing."""
        for text in (
            b"",
            b"[]",
            b"\xff",
            b'{"counters": 7, "connections": "x", "problems": "y", "journal": [], "since": null}',
        ):
            (whole,) = wholes(Beat.read("vm", text))
            self.assertEqual(["batches go to the journal"], whole.problems, text)
            self.assertEqual(2, len(list(whole.lines(NOW))), text)
            json.dumps(whole.as_json())


class RestartTests(SynchronousTestCase):
    """C{gateway restart} beside a gateway that this test plays."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gateway-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.addCleanup(signal.signal, signal.SIGUSR2, signal.getsignal(signal.SIGUSR2))
        self.content: dict[str, Any] = {
            "pid": os.getpid(),
            "started": started(os.getpid()),
            "workers": [{"worker": n, "pid": 10 + n, "started": 1, "open": True} for n in (1, 2)],
            "rolled": {"count": 3, "outcome": "done", "running": False},
        }

    def runs(self, then: Callable[[], None] = lambda: None) -> None:
        """A gateway runs, and does this when it is told."""
        self.addCleanup(os.close, hold(self.directory).lock)
        signal.signal(signal.SIGUSR2, lambda *_: self._told(then))
        write_workers(self.directory, self.content)

    def _told(self, then: Callable[[], None]) -> None:
        then()
        write_workers(self.directory, self.content)

    def restart(self, *words: str) -> Result:
        """Run it."""
        return CliRunner().invoke(main, ["restart", "--data-dir", str(self.directory), "--timeout", "20", *words])

    def refused(self, expected: str, *words: str) -> Result:
        """It ends with status 1, and says this."""
        result = self.restart(*words)
        self.assertEqual(1, result.exit_code, result.output)
        self.assertIn(expected, result.output)
        self.assertNotIn("Traceback", result.output)
        return result

    def _replaced(self, outcome: str = "done") -> None:
        self.content["workers"] = [{"worker": 1, "pid": 21, "started": 1, "open": True}, self.content["workers"][1]]
        self.content["workers"].append({"worker": 2, "pid": 22, "started": 1, "open": False})
        self.content["rolled"] = {"count": 4, "outcome": outcome, "running": False}

    def test_done(self) -> None:
        """It names those that listen now and did not before."""
        self.runs(self._replaced)
        result = self.restart()
        self.assertEqual((0, "worker 1 is now pid 21\n"), (result.exit_code, result.output))

    def test_not_done(self) -> None:
        """Why not all were replaced is what it says."""
        self.runs(lambda: self._replaced("the new worker 2 did not get ready: gateway.toml: \x1b[31mwrong"))
        result = self.refused("not all workers were replaced: the new worker 2 did not get ready: gateway.toml: ")
        self.assertNotIn("\x1b", result.output)

    def test_nobody(self) -> None:
        """Without a gateway, with one that is gone, and with one that has no workers nothing can be replaced."""
        expected = f"no gateway with workers runs in {self.directory}"
        self.refused(expected)
        write_workers(self.directory, self.content)  # left behind: nobody holds the directory
        self.refused(expected)
        os.remove(self.directory / "workers.json")
        self.addCleanup(os.close, hold(self.directory).lock)  # one without workers does
        self.refused(expected)
        write_workers(self.directory, self.content | {"started": 1})  # and its pid was that of an earlier parent
        self.refused(expected)

    def test_already(self) -> None:
        """While they are replaced it does not count what somebody else began."""
        self.content["rolled"]["running"] = True
        self.runs(self._replaced)
        self.refused("are being replaced already")

    def test_ends_meanwhile(self) -> None:
        """When the gateway ends instead it says so."""
        self.runs(lambda: self.content.update(started=1))
        self.refused("the gateway ended meanwhile")

    def test_takes_too_long(self) -> None:
        """It does not wait for ever."""
        self.runs()
        self.refused("the workers are not all replaced after 1 s", "--timeout", "1")

    def test_bad_configuration(self) -> None:
        """A configuration that can't be read is named."""
        (self.directory / "gateway.toml").write_text("[gatewy]\n")
        self.refused("unknown section [gatewy]", "--config", str(self.directory / "gateway.toml"))
