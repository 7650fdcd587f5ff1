"""What is traced, until when, and what is shown of it."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from gateway.cli import main
from gateway.commands import COMMANDS
from gateway.events import RAW_BYTES
from gateway.fields import rfc3339
from gateway.interfaces import CommandAnswer
from gateway.publisher import HUSH_S
from gateway.session import Stored
from gateway.tracing import LONGEST_S, MOST, until
from gateway.wiretap import exported, raw_line
from tests.fakes import NOON
from tests.test_publisher import IDENT, PublisherCase, broken, report


class UntilTests(SynchronousTestCase):
    """What stands in Redis, which anybody may have written."""

    def test_reads(self) -> None:
        """Those whose time is not over, for a day at most; nonsense is left out."""
        row = {
            "9170123456": rfc3339(NOON + 60),
            "9170123457": rfc3339(NOON),
            "9170123458": rfc3339(NOON + 10 * LONGEST_S),
            "9170123459": "tomorrow",
            "\x1b[31m": rfc3339(NOON + 60),
        }
        self.assertEqual({"9170123456": NOON + 60, "9170123458": NOON + LONGEST_S}, until(row, NOON))

    def test_bounded(self) -> None:
        """So many at most."""
        self.assertEqual(MOST, len(until({f"ident{n}": rfc3339(NOON + 60) for n in range(MOST + 1)}, NOON)))


class TraceTests(PublisherCase):
    """C{frame.raw.up} and C{frame.raw.down}."""

    def setUp(self) -> None:
        super().setUp()
        self.sink.stored[IDENT] = Stored(known=True, held=True)
        self.publisher.trace({IDENT: NOON + 600})

    def raw(self) -> list[tuple[str, dict[str, Any]]]:
        """What was shown: which way, and what."""
        found = [entry for entry in self.sink.events if entry["type"].startswith("frame.raw.")]
        return [(entry["type"].removeprefix("frame.raw."), json.loads(entry["data"])) for entry in found]

    def test_each_frame_and_its_answer(self) -> None:
        """Each frame is shown with what became of it, then what it was answered; the ledger does not count that."""
        message = report(1)
        self.take(message, report(2, "9170225362"))
        self.answer_all()
        self.take(broken())
        self.answer_all()
        up, down, bad = self.raw()
        self.assertEqual(("up", "published", message.raw.hex()), (up[0], up[1]["outcome"], up[1]["frame"]))
        self.assertEqual((self.link.peer, "tcp"), (up[1]["peer"], up[1]["transport"]))
        self.assertEqual(("down", b"ok 1;".hex()), (down[0], down[1]["frame"]))
        self.assertEqual(("up", "undecodable"), (bad[0], bad[1]["outcome"]))
        self.assertBalanced()

    def test_not_let_in(self) -> None:
        """What is turned away is shown as well."""
        self.sink.stored[IDENT] = Stored(known=True, registry={"enabled": "0"})
        self.take(report(1))
        self.answer_all()
        self.assertEqual(["unauthorised"], [data["outcome"] for _, data in self.raw()])

    def test_until(self) -> None:
        """It ends by itself, and when nobody is traced any more."""
        self.take(report(1))
        self.answer_all()
        self.publisher.trace({})
        self.take(report(2))
        self.publisher.trace({IDENT: self.clock.seconds() - 1})
        self.take(report(3))
        self.answer_all()
        self.assertEqual(1, len([way for way, _ in self.raw() if way == "up"]))

    def test_long(self) -> None:
        """A long frame is shown as far as it is bounded."""
        self.take(report(1)._replace(raw=b"x" * (RAW_BYTES + 1)))
        self.answer_all()
        (_, data), *_ = self.raw()
        self.assertEqual((RAW_BYTES * 2, RAW_BYTES + 1), (len(data["frame"]), data["frame_bytes"]))

    def test_commands(self) -> None:
        """What it is told is shown."""
        self.take(report(1))
        self.answer_all()
        session = self.sessions.get(IDENT)
        assert session is not None
        self.publisher.told(session, self.link, b"*HQ,S20#", False)
        self.turn()
        self.answer_all()
        self.assertEqual(("down", b"*HQ,S20#".hex()), (self.raw()[-1][0], self.raw()[-1][1]["frame"]))

    def test_secrets(self) -> None:
        """Neither a secret that it is told is shown, nor an answer that may repeat it."""
        self.assertTrue(COMMANDS["password.set"].secret)
        self.take(report(1))
        self.answer_all()
        session = self.sessions.get(IDENT)
        assert session is not None
        self.publisher.told(session, self.link, b"*HQ,777,1234#", True)
        answer = report(2)._replace(raw=b"*HQ,V4,777,1234#", answer=CommandAnswer("777"))
        self.take(answer)
        self.answer_all()
        text = json.dumps(self.raw())
        self.assertNotIn(b"1234#".hex(), text)
        self.assertEqual(2, text.count("what is secret is not shown"))
        self.clock.advance(HUSH_S + 1)
        self.take(answer._replace(raw=b"*HQ,V4,S20,DONE#"))
        self.answer_all()
        self.assertIn(b"DONE#".hex(), json.dumps(self.raw()))


class LineTests(SynchronousTestCase):
    """What C{gateway tail --raw} shows, and what C{gateway decode} reads of it."""

    def entry(self, kind: str, frame: bytes, **data: Any) -> dict[str, str]:
        """An entry of the stream."""
        said = {"frame": frame.hex(), "peer": "192.0.2.7:1", "transport": "tcp", **data}
        at = "2026-11-22T12:00:00.000Z"
        return {"time": at, "ident": IDENT, "type": f"frame.raw.{kind}", "data": json.dumps(said)}

    def test_lines(self) -> None:
        """Which way it went, what became of it, and what it says; never what a terminal obeys."""
        line = raw_line(self.entry("up", b"*HQ,1#", outcome="published"))
        self.assertEqual(f"2026-11-22T12:00:00.000Z {IDENT} > tcp 192.0.2.7:1 published *HQ,1#", line)
        self.assertIn(" < tcp", raw_line(self.entry("down", b"*HQ,1#")))
        self.assertNotIn("\x1b", raw_line(self.entry("up", b"\x1b[31m", outcome="\x1b[31m")))
        self.assertIn("?", raw_line({"type": "frame.raw.up", "data": '{"frame": "zz"}'}))
        self.assertIn("?", raw_line({"type": "frame.raw.up", "data": "[]"}))

    def test_decoded(self) -> None:
        """What is exported is read again: each frame once, and nothing that went the other way."""
        frame = f"*HQ,{IDENT},V1,120000,A,5231.2000,N,01324.3000,E,022.14,085,221126,FFFFFFFF,262,01,00341,8121#"
        entries = [self.entry("up", frame.encode()), self.entry("down", b"*HQ,1,V4#"), self.entry("up", b"\n#\n")]
        text = "\n".join(exported(entry) for entry in entries)
        result = CliRunner().invoke(main, ["decode", "--hex", "--json"], input=text)
        self.assertEqual(0, result.exit_code, result.output)
        first, second = (json.loads(line) for line in result.output.splitlines())
        self.assertEqual([frame.encode().hex()], [message["frame"] for message in first["messages"]])
        self.assertIsNone(second["protocol"])
