"""Texts as Redis keeps them: each is given to one sender once, and receipts find their text."""

from __future__ import annotations

import json
from typing import Any, Final

import redis

from gateway.fields import rfc3339
from gateway.sinks.connection import Layout
from gateway.sinks.sms import LEASE_MS, Event, SMSStore
from gateway.sms.interfaces import Receipt, Sent
from gateway.sms.texts import Queued
from tests.fakes import NOON
from tests.integration.parts import RealPartsTestCase
from tests.integration.test_command_script import Client, now

IDENT: Final = "9170225361"
PLENTY: Final = 1000


class ScriptTests(RealPartsTestCase):
    """sms.lua on a real server, whose clock is what the test says."""

    def setUp(self) -> None:
        """A store."""
        super().setUp()
        self.server = self.running_redis()
        self.client = self.server.client
        plain = redis.Redis.from_url(self.server.url, protocol=2)
        plain.response_callbacks.clear()
        self.addCleanup(plain.close)
        real: Any = Client(plain)
        self.store = SMSStore(lambda: real, Layout("gateway", "here"), lambda: NOON, lambda stream: 0)
        script = self.store._script
        text = script.text.replace("call('TIME')", "{call('GET', 'now'), '0'}")
        self.assertNotEqual(text, script.text)
        self.store._script = script._replace(text=text, sha="0" * 40)
        self.at(NOON)

    def at(self, when: float) -> None:
        """It is then."""
        self.when = when
        self.client.set("now", int(when))

    def add(self, id: str = "a", validity_s: float = 600.0, per_device: int = PLENTY, per_hour: int = PLENTY) -> str:
        """A text is to be sent."""
        text = Queued(
            id, IDENT, "st907", "+49151", "RCONF", "RCONF", validity_s, "ref", {"channel": "sms", "ref": "ref"}
        )
        return str(now(self.store.add(text, per_device, per_hour)))

    def take(self, sending: bool = True) -> list[tuple[str, str, str]]:
        """What is to be seen to: what, id, attempt."""
        return [(one.what, one.fields["id"], one.fields["attempt"]) for one in now(self.store.take(16, sending))]

    def sent(self, outcome: Any, *ids: str, id: str = "a", attempt: str = "1", retry_s: float = 5.0) -> str:
        """What became of it."""
        return str(now(self.store.sent(id, attempt, Sent(outcome, ids, "why"), retry_s)))

    def receipt(self, id: str, state: Any) -> str:
        """The provider says more; what became of that."""
        return str(now(self.store.receipt(Receipt(id, state, "word")))[0])

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """What was published."""
        return [(f["type"], json.loads(f["data"])) for _, f in self.client.xrange("gateway:result")]

    def test_once(self) -> None:
        """It is taken once, and what became of it is said once."""
        self.assertEqual("ok", self.add())
        self.assertEqual("known", self.add())
        self.assertEqual([("send", "a", "1")], self.take())
        self.assertEqual([], self.take())
        self.assertEqual("accepted", self.sent("accepted", "m1"))
        self.assertEqual("", self.sent("rejected"))
        self.at(NOON + 86_400)
        self.assertEqual([], self.take())
        ((kind, data),) = self.events()
        self.assertEqual(("sms.sent", {"channel": "sms", "ref": "ref"}), (kind, data))

    def test_temporary(self) -> None:
        """What was not taken is tried again when it is time, under a new number; then it may be too late."""
        self.add(validity_s=100.0)
        self.take()
        self.assertEqual("queued", self.sent("temporary", retry_s=30.0))
        self.at(NOON + 29)
        self.assertEqual([], self.take())
        self.at(NOON + 30)
        self.assertEqual([("send", "a", "2")], self.take())
        self.assertEqual("", self.sent("accepted", attempt="1"), "that was another attempt")
        self.assertEqual("queued", self.sent("temporary", attempt="2", retry_s=300.0))
        self.at(NOON + 100)
        self.assertEqual([("expired", "a", "2")], self.take())
        ((kind, data),) = self.events()
        self.assertEqual("sms.failed", kind)
        self.assertEqual("it could not be sent in time: why", data["reason"])
        self.assertEqual([], self.take())

    def test_never_sent(self) -> None:
        """One that nobody took in time has expired."""
        self.add(validity_s=10.0)
        self.at(NOON + 10)
        self.assertEqual([("expired", "a", "0")], self.take())

    def test_nothing_can_be_sent(self) -> None:
        """While nothing can be sent those are taken whose time is over, and no other."""
        self.add("a", validity_s=10.0)
        self.add("b", validity_s=100.0)
        self.assertEqual([], self.take(sending=False))
        self.assertEqual([], self.take(), "it is looked at again, a moment later")
        self.at(NOON + 10)
        self.assertEqual([("expired", "a", "0")], self.take(sending=False))
        self.at(NOON + 12)
        self.assertEqual([("send", "b", "1")], self.take())

    def test_killed(self) -> None:
        """Whoever took it and says nothing leaves it uncertain: it is never given to anybody again."""
        self.add()
        self.take()
        self.at(NOON + LEASE_MS / 1000)
        self.assertEqual([("uncertain", "a", "1")], self.take())
        self.assertEqual([], self.take())
        ((kind, data),) = self.events()
        self.assertEqual(("sms.failed", True), (kind, data["uncertain"]))
        self.assertEqual("accepted", self.sent("accepted", "m1"), "if he says later that it was sent, it was")
        self.assertEqual("delivered", self.receipt("m1", "delivered"))
        self.assertEqual("", self.sent("rejected"))

    def test_receipts(self) -> None:
        """One, or one for each part; before it was known that it was sent, or after; and of nobody's text."""
        self.add()
        self.take()
        self.sent("accepted", "m1")
        self.assertEqual("ignored", self.receipt("m1", "pending"))
        self.assertEqual("delivered", self.receipt("m1", "delivered"))
        self.assertEqual("ignored", self.receipt("m1", "failed"), "the first counts")
        self.add("b")
        self.take()
        self.assertEqual("early", self.receipt("m2", "failed"))
        self.assertEqual("failed", self.sent("accepted", "m2", id="b"))
        self.add("c")
        self.take()
        self.sent("accepted", "m3", "m4", id="c")
        self.assertEqual("part", self.receipt("m3", "delivered"))
        self.assertEqual("delivered", self.receipt("m4", "delivered"))
        self.assertEqual("early", self.receipt("nobody's", "delivered"))
        kinds = [kind for kind, _ in self.events()]
        self.assertEqual(["sms.sent", "sms.delivered", "sms.sent", "sms.failed", "sms.sent", "sms.delivered"], kinds)

    def test_too_many(self) -> None:
        """So many an hour, to a device and in all."""
        self.assertEqual("ok", self.add("a", per_device=1))
        self.assertEqual("device", self.add("b", per_device=1))
        self.assertEqual("ok", self.add("c", per_hour=2))
        self.assertEqual("all", self.add("d", per_hour=2))
        self.assertEqual(2, self.client.zcard("gateway:sms"))
        self.assertEqual(3600, self.client.ttl(f"gateway:sms:rate:{IDENT}"))

    def test_received(self) -> None:
        """What came in is published once, where it has a name."""
        fields = {"v": "1", "id": "0" * 32, "type": "sms.received", "source": "gateway/here"}
        fields |= {"time": rfc3339(NOON), "received": rfc3339(NOON), "ident": IDENT, "protocol": "st907"}
        events = [Event("result", {**fields, "device_id": "", "data": "{}"})] * 2
        self.assertTrue(now(self.store.receive("name", 600, events)))
        self.assertFalse(now(self.store.receive("name", 600, events)))
        self.assertTrue(now(self.store.receive("", 0, events)))
        self.assertTrue(now(self.store.receive("", 0, events)))
        self.assertEqual(6, self.client.xlen("gateway:result"))

    def test_parts(self) -> None:
        """Parts wait for each other, whichever comes first, and how often."""
        for number, text, whole in ((2, "b", None), (2, "b", None), (3, "c", None), (1, "ä", ["ä", "b", "c"])):
            self.assertEqual(whole, self.now(self.store.part("key", number, 3, text)))
        self.assertEqual(["ä", "b", "c"], self.now(self.store.part("key", 1, 3, "ä")), "until it is forgotten")
        self.now(self.store.forget("key"))
        self.assertIsNone(self.now(self.store.part("key", 1, 3, "ä")))
        (key,) = self.client.keys("gateway:sms:part:*")
        self.assertGreater(self.client.ttl(key), 3600)

    def now(self, d: Any) -> Any:
        """What a Deferred has by now."""
        found: list[Any] = []
        d.addCallback(found.append)
        return found[0]

    def test_strange_keys(self) -> None:
        """What somebody else wrote at its keys is left alone, and harms nothing but the text itself."""
        self.client.set(f"gateway:sms:rate:{IDENT}", "odd")
        self.client.zadd("gateway:sms", {"nobody": 0})
        self.client.set("gateway:sms:text:nobody", "odd")
        self.assertEqual([], self.take())
        self.assertEqual(0, self.client.zcard("gateway:sms"))
