"""The page without a network: its token, its names, its last hour, and what is served."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from gateway.errors import StartError
from gateway.histogram import Histogram
from gateway.reporting import Report
from gateway.web.access import SESSION_S, SESSIONS, WRONG_PER_S, Door, token
from gateway.web.answers import Mistake, fullness, groups, journal, limits, outcomes
from gateway.web.past import STEPS, Past
from gateway.web.site import Question, _found, policy
from tests.fakes import NOON


class TokenTests(SynchronousTestCase):
    """The file with the token."""

    def test_made(self) -> None:
        """It is made where there is none, for its owner alone, and read from then on."""
        path = Path(self.mktemp())
        made = token(path)
        self.assertEqual((0o600, made), (path.stat().st_mode & 0o777, token(path)))
        self.assertGreaterEqual(len(made), 43)
        self.assertNotEqual(made, token(Path(self.mktemp())))

    def test_mistakes(self) -> None:
        """What is none is named, and never taken for one."""
        path = Path(self.mktemp())
        for text in (b"", b"short", b"\xff" * 20, b"x" * 513, b"sixteen chars \x07\x07 "):
            path.write_bytes(text)
            with self.assertRaises(StartError) as caught:
                token(path)
            self.assertIn(str(path), str(caught.exception))
        with self.assertRaises(StartError):
            token(path / "below")
        if os.getuid():
            path.chmod(0)
            self.assertRaises(StartError, token, path)


class DoorTests(SynchronousTestCase):
    """Who is let in."""

    def setUp(self) -> None:
        self.door = Door("the token, which is long", ["gps.example.org"])

    def test_token(self) -> None:
        """The token, and nothing else."""
        self.assertTrue(self.door.knows("the token, which is long", NOON))
        for wrong in ("", "the token", "the token, which is long ", "\udcff", "\u2603"):
            self.assertFalse(self.door.knows(wrong, NOON))

    def test_names(self) -> None:
        """A request has to call us by a name of ours: that of a page elsewhere is none."""
        for host in (
            "127.0.0.1:8889",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8889",
            "gps.example.org",
            "gps.example.org:443",
        ):
            self.assertTrue(self.door.calls_us(host), host)
        for host in ("", "evil.example.org", "127.0.0.1.evil.example.org:8889", "example.org", "0.0.0.0:8889"):
            self.assertFalse(self.door.calls_us(host), host)

    def test_sessions(self) -> None:
        """A browser stays in for twelve hours, or until it leaves; so many do."""
        first = self.door.enter(NOON)
        self.assertTrue(self.door.inside(first, NOON + SESSION_S - 1))
        self.assertFalse(self.door.inside(first, NOON + SESSION_S))
        self.assertFalse(self.door.inside("", NOON))
        second = self.door.enter(NOON)
        self.door.leave(second)
        self.assertFalse(self.door.inside(second, NOON))
        for _ in range(SESSIONS):
            self.door.enter(NOON)
        self.assertFalse(self.door.inside(first, NOON))

    def test_guesses(self) -> None:
        """A token is looked at no more after some wrong ones a second, right or wrong; then again."""
        for _ in range(int(WRONG_PER_S)):
            self.assertTrue(self.door.patient(NOON))
            self.door.knows("wrong", NOON)
        self.assertFalse(self.door.patient(NOON))
        self.assertTrue(self.door.patient(NOON + 1))


class PastTests(SynchronousTestCase):
    """The last hour."""

    def report(self, received: int, waits: Histogram) -> Report:
        """How the whole does."""
        return Report({"received": received}, 0, 7, True, (), 0.0, {"histograms": {"wait": waits.shown()}})

    def test_hour(self) -> None:
        """Reports of each ten seconds are kept for an hour, and a restart of a process is no negative number."""
        past, waits = Past(), Histogram((0.001, 0.1))
        past.look(None, NOON)
        for n in range(10 * (STEPS + 5) + 1):
            past.look(self.report(n, waits), NOON + n)
        shown = past.as_json()
        self.assertEqual(([10] * STEPS, [7] * STEPS), (shown["reports"], shown["connections"]))
        self.assertEqual(NOON + 10 * (STEPS + 5) - 10 * STEPS, shown["start"])
        self.assertAlmostEqual(1.0, past.rate)
        past.look(self.report(0, waits), NOON + n + 10)
        self.assertEqual(0, past.as_json()["reports"][-1])

    def test_waits(self) -> None:
        """Waiting times are those of the last minute."""
        past, waits = Past(), Histogram((0.001, 0.1))
        waits.add(0.05, 1000)
        self.assertEqual({"p50_ms": None, "p99_ms": None}, past.waits(None))
        for n in range(80):
            past.look(self.report(n, waits), NOON + n)
        waits.add(0.0005, 100)
        self.assertEqual({"p50_ms": 1.0, "p99_ms": 1.0}, past.waits(self.report(80, waits)))


class SiteTests(SynchronousTestCase):
    """What is served, and what a browser may do with it."""

    def test_files(self) -> None:
        """The page's own files and Leaflet's, and nothing outside of them."""
        for path in ("/", "/static/index.html", "/static/leaflet/leaflet.js", "/static/leaflet/images/layers.png"):
            self.assertIsNotNone(_found(path), path)
        for path in (
            *("/static/../site.py", "/static/..%2fsite.py", "/static//etc/passwd", "/static/leaflet/../__init__.py"),
            *("/static/.hidden", "/static/", "/static/leaflet/", "/static/leaflet/leaflet.js.map", "/etc/passwd"),
        ):
            self.assertIsNone(_found(path), path)

    def test_policy(self) -> None:
        """Nothing is loaded from elsewhere, but tiles where they are configured."""
        self.assertIn("img-src 'self' data:;", policy(""))
        self.assertIn(
            "img-src 'self' data: https://tile.example.org;", policy("https://tile.example.org/{z}/{x}/{y}.png")
        )
        self.assertIn(" https://*.tile.example.org;", policy("https://{s}.tile.example.org/{z}/{x}/{y}.png"))
        self.assertNotIn("unsafe", policy(""))

    def test_parameters(self) -> None:
        """Numbers within their bounds."""
        question = Question({}, {"hours": "2", "odd": "nan", "big": "1e9"}, {"values": {"a": 1}}, NOON)
        self.assertEqual((2.0, 5.0), (question.number("hours", 1, 0, 24), question.number("none", 5, 0, 24)))
        for name in ("odd", "big"):
            self.assertRaises(Mistake, question.number, name, 1, 0, 24)
        self.assertRaises(Mistake, question.values)


class WholeTests(SynchronousTestCase):
    """What is shown of the processes together."""

    def test_sums(self) -> None:
        """Journals add up, groups are told by one, counters are sorted out."""
        one = Report({}, 0, 0, True, (), 0.0, {"journal": {"frames": 2, "bytes": 10, "limit": 100, "oldest": 5.0}})
        more = {
            "journal": {"frames": 1, "bytes": 10, "limit": 100, "oldest": None},
            "groups": {"position": {"map": {"lag": 1}}},
        }
        beats = [one.beat("gw/1"), one._replace(more=more).beat("gw/2")]
        self.assertEqual({"frames": 3, "bytes": 20, "limit": 200, "oldest": 5000}, journal(beats))
        self.assertEqual([0.1, 0.1, 0.0], [fullness(beat) for beat in (*beats, Report({}, 0, 0, True, ()).beat("x"))])
        self.assertEqual([{"stream": "position", "group": "map", "lag": 1}], groups(beats))
        counters = {"received": 3, "published": 3, "limited": 1, "limited_x": 1, "closed_idle": 2, "paused": 0}
        self.assertEqual({"published": 3, "limited": 1}, outcomes(counters))
        self.assertEqual({"closed_idle": 2, "limited_x": 1}, limits(counters))
