"""Addresses of a Redis, and how they are shown."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gateway.errors import ConfigError
from gateway.sinks.blocking import RedisURL


class RedisURLTests(SynchronousTestCase):
    """C{redis://} and C{rediss://} URLs."""

    def test_read(self) -> None:
        """Host, port, user, password, database and TLS, with their defaults."""
        cases = {
            "redis://h": RedisURL("h"),
            "redis://h:7000/3": RedisURL("h", 7000, database=3),
            "rediss://h/": RedisURL("h", tls=True),
            "redis://:pw@h": RedisURL("h", password="pw"),
            "redis://me:p%40w@[::1]:7000": RedisURL("::1", 7000, "me", "p@w"),
        }
        for text, url in cases.items():
            self.assertEqual(url, RedisURL.parse(text, "here"), text)

    def test_malformed(self) -> None:
        """What can't be read says where it stands and what is wrong, and does not show the password."""
        for text in (
            "h:6379",
            "http://h",
            "redis://",
            "redis://h:x",
            "redis://h:99999",
            "redis://h/a",
            "redis://h?x=1",
        ):
            error = self.assertRaises(ConfigError, RedisURL.parse, text, "option --redis")
            self.assertTrue(str(error).startswith("option --redis: malformed Redis URL: "), str(error))
        error = self.assertRaises(ConfigError, RedisURL.parse, "redis://me:secret@h/x", "here")
        self.assertNotIn("secret", str(error))

    def test_shown(self) -> None:
        """The password is never shown."""
        url = RedisURL.parse("rediss://me:secret@[::1]:7000/2", "here")
        self.assertEqual("rediss://me:***@[::1]:7000/2", str(url))
        self.assertNotIn("secret", repr(url))

    def test_auth(self) -> None:
        """AUTH is sent with a user where there is one, and not at all without a password."""
        self.assertEqual(("AUTH", "me", "pw"), RedisURL.parse("redis://me:pw@h", "").auth())
        self.assertEqual(("AUTH", "pw"), RedisURL.parse("redis://:pw@h", "").auth())
        self.assertIsNone(RedisURL.parse("redis://h", "").auth())
