"""Sentinel URLs, how they are shown, and what sentinels' answers mean."""

from __future__ import annotations

import hiredis
from twisted.trial.unittest import SynchronousTestCase

from gateway.errors import ConfigError, NotReady, Refused, UnknownMaster
from gateway.sinks.blocking import RedisURL
from gateway.sinks.sentinel import SentinelURL, address, must_be_master


class SentinelURLTests(SynchronousTestCase):
    """C{redis+sentinel://} and C{rediss+sentinel://} URLs."""

    def test_read(self) -> None:
        """Sentinels with their ports, the master's name, user, password, database, and TLS for both."""
        cases = {
            "redis+sentinel://a/m": SentinelURL((RedisURL("a", 26379),), "m"),
            "redis+sentinel://a:1,b,[::1]:3,[::2]/m/4": SentinelURL(
                (RedisURL("a", 1), RedisURL("b", 26379), RedisURL("::1", 3), RedisURL("::2", 26379)),
                "m",
                RedisURL("", 0, database=4),
            ),
            "rediss+sentinel://me:p%40w+%2F@a/m/": SentinelURL(
                (RedisURL("a", 26379, tls=True),), "m", RedisURL("", 0, "me", "p@w+/", tls=True)
            ),
            "redis+sentinel://:a@b:c@h/m?sentinel_password=s%26+&sentinel_username=u": SentinelURL(
                (RedisURL("h", 26379, "u", "s&+"),), "m", RedisURL("", 0, None, "a@b:c")
            ),
        }
        for text, url in cases.items():
            self.assertEqual(url, address(text, "here"), text)

    def test_others(self) -> None:
        """Other URLs are those of a server."""
        self.assertEqual(RedisURL("h"), address("redis://h", "here"))
        error = self.assertRaises(ConfigError, address, "sentinel://h/m", "here")
        self.assertIn("redis+sentinel", str(error))

    def test_malformed(self) -> None:
        """What can't be read says where it stands and what is wrong, and repeats nothing that may be a password."""
        cases = {
            "redis+sentinel://:secret@/m": "sentinel 1 is not",
            "redis+sentinel://:secret@a,,b/m": "sentinel 2 is not",
            "redis+sentinel://:secret@::1/m": "sentinel 1 is not",
            "redis+sentinel://:secret@[::1/m": "sentinel 1 is not",
            "redis+sentinel://:secret@[::1]x/m": "sentinel 1 is not",
            "redis+sentinel://:secret@a:/m": "sentinel 1 is not",
            "redis+sentinel://:secret@a:1,b:x/m": "sentinel 2 has a port that is none",
            "redis+sentinel://:secret@a:65536/m": "sentinel 1 has a port that is none",
            "redis+sentinel://:secret@a:0/m": "sentinel 1 has a port that is none",
            "redis+sentinel://:secret@a": "no name of a master",
            "redis+sentinel://:secret@a/": "no name of a master",
            "redis+sentinel://:secret@a/m/x": "not the number of a database",
            "redis+sentinel://:secret@a/m/1/2": "not the number of a database",
            "redis+sentinel://:pass/secret@a/m": "written %2F",
            "redis+sentinel://:12/secret@a/m": "written %2F",
            "redis+sentinel://:pass?secret@a/m": "written %2F",
            "redis+sentinel://:pass#secret@a/m": "written %2F",
            "redis+sentinel://a/m#secret": "written %2F",
            "redis+sentinel://a/m?password=secret": "sentinel_username and sentinel_password",
            "redis+sentinel://a/m?sentinel_password=secret&x": "sentinel_username and sentinel_password",
            "redis+sentinel://a/m?sentinel_password=1&sentinel_password=secret": "once each",
        }
        for text, what in cases.items():
            error = str(self.assertRaises(ConfigError, address, text, "option --redis"))
            self.assertTrue(error.startswith("option --redis: malformed Redis URL: "), error)
            self.assertIn(what, error, text)
            self.assertNotIn("secret", error, text)
            self.assertNotIn("\n", error)

    def test_shown(self) -> None:
        """No password is ever shown."""
        url = address("rediss+sentinel://me:secret@a,[::1]:7000/m/2?sentinel_password=secret2", "here")
        self.assertEqual("rediss+sentinel://me:***@a:26379,[::1]:7000/m/2", str(url))
        self.assertNotIn("secret", repr(url))
        self.assertEqual("redis+sentinel://a:26379/m/0", str(address("redis+sentinel://a/m", "here")))

    def test_at(self) -> None:
        """The master is entered where it is, as the URL says."""
        url = SentinelURL.parse("redis+sentinel://me:pw@a/m/2?sentinel_password=other", "here")
        self.assertEqual(RedisURL("h", 7, "me", "pw", 2), url.at(("h", 7)))


class AnswerTests(SynchronousTestCase):
    """What sentinels and servers answer."""

    url = SentinelURL.parse("redis+sentinel://a,b,c/m", "here")

    def test_place(self) -> None:
        """Host and port, or nothing for a name that it does not know."""
        self.assertEqual(("::1", 7), self.url.place([b"::1", b"7"]))
        error = self.assertRaises(UnknownMaster, self.url.place, None)
        self.assertEqual("knows no master named 'm'", str(error))

    def test_role(self) -> None:
        """Only a master will do."""
        must_be_master([b"master", 1, []])
        error = self.assertRaises(NotReady, must_be_master, [b"slave", b"h", 1, b"connect", 0])
        self.assertEqual("is no master, but a replica", str(error))
        self.assertRaises(NotReady, must_be_master, [b"sentinel", [b"m"]])

    def test_verdict(self) -> None:
        """An unknown name weighs more than a refusal, that more than a server that is none, and that than silence."""
        a, b, c = self.url.sentinels
        silence, refusal = TimeoutError("timed out"), Refused("WRONGPASS")
        strange, unknown = hiredis.ReplyError("ERR unknown command"), UnknownMaster("knows none")
        found = self.url.verdict({c: silence, a: OSError(), b: silence})
        self.assertIs(NotReady, type(found))
        self.assertEqual(
            "sentinel a:26379: no answer; sentinel b:26379: timed out; sentinel c:26379: timed out", str(found)
        )
        self.assertIs(hiredis.ReplyError, type(self.url.verdict({a: silence, b: strange})))
        self.assertIs(Refused, type(self.url.verdict({a: refusal, b: strange})))
        found = self.url.verdict({a: refusal, b: unknown, c: silence})
        self.assertIs(UnknownMaster, type(found))
        self.assertEqual("sentinel b:26379: knows none", str(found))
