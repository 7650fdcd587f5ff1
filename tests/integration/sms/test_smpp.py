"""The gateway with an SMSC of npm's smpp: texts both ways, and whatever goes wrong on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from tests.integration.certificates import Authority
from tests.integration.parts import Gateway, RedisServer, entries, wait_for
from tests.integration.sms.peers import SYSTEM_ID, SMSTestCase

IDENT: Final = "9170225361"
PHONE: Final = "+4915112345678"
POSITION: Final = (
    "http://maps.google.com/maps?q=+52.5,+13.25 Date:{date} Time:{time} ID:9170225361 FIX:A Speed:12KM/H BAT:4"
)


class SMPPCase(SMSTestCase):
    """A gateway that is bound to an SMSC, and a device of the registry."""

    def set_up(self, more: str = "", smpp: str = "", workers: int = 1, bound: bool = True, **smsc: Any) -> None:
        """Start all."""
        self.server: RedisServer = self.running_redis()
        self.client = self.server.client
        self.client.hset(f"gateway:registry:{IDENT}", mapping={"phone": PHONE, "device_id": "van 7"})
        self.peer, self.port = self.smsc(**smsc)
        secret = self.directory / "secret"
        secret.write_text("secret\n")
        config = (
            f'[sms]\ntransport = "smpp"\nnumber = "+4930123456"\n{more}\n[sms.smpp]\n'
            f'address = "localhost:{self.port}"\nsystem_id = "{SYSTEM_ID}"\npassword_file = "{secret}"\n{smpp}\n'
        )
        self.running: Gateway = self.running_gateway(self.server.url, config=config, workers=workers)
        if bound:
            wait_for("the gateway to be bound", lambda: self.peer.kind("bound"), 20, detail=self.running.tail)
            wait_for("it to know whose numbers there are", self.known, 20)

    def known(self) -> bool:
        """Whether the gateway takes texts: one of nobody is."""
        before = len(self.peer.kind("answered"))
        self.peer.deliver("+4917000000000", "?")
        wait_for("an answer", lambda: len(self.peer.kind("answered")) > before)
        done = bool(self.peer.kind("answered")[-1]["status"] == 0)
        if done:
            self.peer.heard = [one for one in self.peer.heard if "answered" not in one]
        return done

    def results(self, *kinds: str) -> list[dict[str, Any]]:
        """Entries of the result stream of these types, their data with their type."""
        found = []
        for _, fields in self.client.xrange("gateway:result"):
            if fields["type"] in kinds or not kinds:
                found.append({"type": fields["type"], "ident": fields["ident"], **json.loads(fields["data"])})
        return found

    def give(self, command: str, **fields: Any) -> None:
        """Give a command."""
        given = {"ident": IDENT, "command": command, "ref": "r", "channel": "sms", **fields}
        self.client.xadd("gateway:command", {name: str(value) for name, value in given.items()})

    def ended(self, ref: str = "r") -> dict[str, Any]:
        """The last step of a command."""
        final = wait_for(
            "the command to end",
            lambda: [one for one in self.results() if one.get("ref") == ref and one.get("final")],
            30,
            detail=lambda: f"{self.results()}\n{self.running.tail()}",
        )
        return dict(final[-1])

    def failed(self, ref: str) -> None:
        """Wait until the text of a command has failed."""
        wait_for("it to fail", lambda: [one for one in self.results("sms.failed") if one["ref"] == ref], 20)

    def more(self, kind: str, count: int) -> None:
        """Wait until the SMSC has told more of a kind."""
        wait_for(f"more of {kind}", lambda: len(self.peer.kind(kind)) > count, 20, detail=self.running.tail)

    def text(self, n: int = 0) -> Mapping[str, Any]:
        """A text that the SMSC was given."""
        wait_for("a text", lambda: len(self.peer.texts) > n, 20, detail=self.running.tail)
        return self.peer.texts[n]


class WayOutTests(SMPPCase):
    """Commands."""

    def test_answered(self) -> None:
        """A text with its validity, a receipt for it, and the tracker's answer, which ends the command."""
        self.set_up()
        self.give("interval.set", args='{"seconds": 60}', ttl=600)
        text = self.text()
        self.assertEqual(("4915112345678", "4930123456", "8050000 60"), (text["to"], text["from"], text["text"]))
        until = datetime.fromisoformat(text["validity"]).timestamp()
        self.assertTrue(590 < until - time.time() <= 600, text)
        self.peer.tell(receipt={"id": text["id"], "state": "DELIVRD", "from": PHONE[1:]})
        wait_for("the receipt", lambda: self.results("sms.delivered"), detail=self.running.tail)
        self.peer.deliver(PHONE, "SET OK")
        final = self.ended()
        self.assertEqual(("command.confirmed", "sms", False), (final["type"], final["channel"], final["authenticated"]))
        self.assertEqual(
            ["command.queued", "command.sending", "sms.sent", "command.sent", "sms.delivered", "sms.received",
             "command.confirmed"],
            [one["type"] for one in self.results()],
        )  # fmt: skip
        shown = json.dumps(self.results()) + self.running.output()
        self.assertNotIn("8050000", shown, "the password is seen by the tracker alone")
        (sent,) = self.results("sms.sent")
        self.assertEqual("805{password} 60", sent["raw_text"])
        self.assertEqual("r", self.results("sms.received")[0]["ref"])

    def test_throttled(self) -> None:
        """A text that the SMSC does not take now is sent later; one that it never takes fails."""
        self.set_up()
        self.peer.tell(mode="throttle", count=1)
        self.give("config.read")
        wait_for("two tries", lambda: len(self.peer.kind("submit")) == 2, 30, detail=self.running.tail)
        self.peer.tell(mode="reject")
        self.give("interval.set", ref="other", args='{"seconds": 60}')
        self.assertEqual("command.failed", self.ended("other")["type"])
        self.assertIn("0xb", self.ended("other")["reason"])

    def test_drops(self) -> None:
        """A link that breaks with a text on its way: nobody knows, and it is not sent again; the link comes back."""
        self.set_up()
        for mode, taken in (("drop", 0), ("drop-after", 1)):
            before = len(self.peer.kind("bound"))
            self.peer.tell(mode=mode, count=1)
            self.give("interval.set", ref=mode, args='{"seconds": 60}', ttl=30)
            self.failed(mode)
            self.assertTrue(self.results("sms.failed")[-1]["uncertain"])
            self.more("bound", before)
            time.sleep(1)
            self.assertEqual(taken, len(self.peer.texts), mode)

    def test_wrong_password(self) -> None:
        """A bind that is refused is tried again with pauses, and works once the password is right."""
        self.set_up(password="another", bound=False)
        wait_for("the bind to be refused", lambda: self.peer.kind("refused"), 20, detail=self.running.tail)
        time.sleep(3)
        self.assertEqual(1, len(self.peer.kind("refused")))
        wait_for("it to be said", lambda: "password is invalid" in self.running.output(), 10)
        self.assertNotIn("secret", self.running.output().replace(str(self.directory), ""))
        self.peer.tell(password="secret")
        wait_for("the gateway to be bound", lambda: self.peer.kind("bound"), 30)
        self.give("config.read")
        self.assertEqual("RCONF", self.text()["text"])

    def test_workers(self) -> None:
        """One of several workers is bound for all of them."""
        self.set_up(workers=2)
        time.sleep(2)
        self.assertEqual(1, len(self.peer.kind("bound")))
        self.give("config.read")
        self.assertEqual("RCONF", self.text()["text"])

    def test_tls(self) -> None:
        """The SMSC's certificate has to hold, for its name."""
        authority = Authority(self.directory)
        files = authority.server("localhost")
        self.set_up(smpp=f'tls = true\nca_file = "{authority.file}"', files=files)
        self.give("config.read")
        self.assertEqual("RCONF", self.text()["text"])

    def test_tls_of_somebody_else(self) -> None:
        """One that does not is not told the password."""
        authority = Authority(self.directory)
        other = Authority(self.directory, "Another authority")
        files = other.server("localhost")
        self.set_up(smpp=f'tls = true\nca_file = "{authority.file}"', files=files, bound=False)
        wait_for("it to be said", lambda: "no SMS can be sent now" in self.running.output(), 20)
        time.sleep(2)
        self.assertEqual(([], []), (self.peer.kind("bound"), self.peer.kind("refused")))


class WayInTests(SMPPCase):
    """Texts of trackers."""

    def test_position(self) -> None:
        """A position is one, with what makes it less than a report; so is an alarm, which clears nothing."""
        self.set_up()
        now = time.gmtime()
        text = POSITION.format(date=time.strftime("%Y-%m-%d", now), time=time.strftime("%H:%M:%S", now))
        self.peer.deliver(PHONE, text)
        (entry,) = wait_for("a position", lambda: entries(self.client), 20)
        self.assertEqual(
            ("position", IDENT, "van 7", "52.500000", "13.250000", "12.00", "1", "sms", "+49****78"),
            tuple(
                entry[name]
                for name in (
                    "type",
                    "ident",
                    "device_id",
                    "latitude",
                    "longitude",
                    "speed_kmh",
                    "valid",
                    "transport",
                    "peer",
                )
            ),
        )
        data = json.loads(entry["data"])
        self.assertEqual(("sms", False), (data["channel"], data["authenticated"]))
        self.peer.deliver(PHONE, f"SOS! {text}")
        (alarm,) = wait_for("an alarm", lambda: entries(self.client, "gateway:event"), 20)
        self.assertEqual("alarm.sos", alarm["type"])
        about = json.loads(alarm["data"])
        self.assertEqual(("raised", "sms", False), (about["phase"], about["channel"], about["authenticated"]))
        self.assertEqual(52.5, about["latitude"])
        wait_for("the SMSC to be answered", lambda: len(self.peer.kind("answered")) == 2)
        self.assertFalse(self.client.exists(f"gateway:last:{IDENT}"), "it moves no state of the device")
        self.peer.deliver(PHONE, text)
        wait_for("the SMSC to be answered", lambda: len(self.peer.kind("answered")) == 3)
        self.assertEqual(2, self.client.xlen("gateway:position"), "the same text again is the same")

    def test_long(self) -> None:
        """A text in parts is one."""
        self.set_up()
        parts = [
            "ST906(70SACD)_TQ_V_2.0 2024/06/07\nID:9170225361\nIP:1.2.3.4 ",
            "5013\nUT:30,30,300\nVOLT:12.9V\nGSM:26",
        ]
        self.peer.deliver(PHONE, "", parts=parts)
        (entry,) = wait_for("a status", lambda: entries(self.client), 20)
        self.assertEqual("1.2.3.4:5013", json.loads(entry["data"])["server"])
        wait_for("both parts to be answered", lambda: self.peer.kind("answered") == [{"status": 0}, {"status": 0}])

    def test_stranger(self) -> None:
        """What is from nobody known is dropped, and nothing of it is shown; what can't be read is shown as it is."""
        self.set_up()
        self.peer.deliver("+4917099999999", "hello stranger")
        self.peer.deliver(PHONE, "Your balance is 3.50 EUR")
        (entry,) = wait_for("the other", lambda: self.results("sms.received"), 20)
        self.assertEqual(("unmatched", "Your balance is 3.50 EUR"), (entry["kind"], entry["raw_text"]))
        self.assertNotIn("stranger", json.dumps(self.results()) + self.running.output())
        self.assertIn("a text from +49****00 is dropped: no device", self.running.output())

    def test_another_ident(self) -> None:
        """A text that says that it is another device than its number's is no position."""
        self.set_up()
        now = time.gmtime()
        text = POSITION.format(date=time.strftime("%Y-%m-%d", now), time=time.strftime("%H:%M:%S", now))
        self.peer.deliver(PHONE, text.replace(IDENT, "9170999999"))
        (entry,) = wait_for("it", lambda: self.results("sms.received"), 20)
        self.assertEqual("unmatched", entry["kind"])
        self.assertIn("9170999999", entry["reason"])
        self.assertEqual(0, self.client.xlen("gateway:position"))

    def test_registered_later(self) -> None:
        """A number that is registered while the gateway runs is known at once."""
        self.set_up()
        self.client.hset("gateway:registry:9170000001", "phone", "+4917012345670")
        self.client.xadd("gateway:registry:changes", {"ident": "9170000001"})
        time.sleep(2)
        self.peer.deliver("+4917012345670", "SOS")
        (alarm,) = wait_for("an alarm", lambda: entries(self.client, "gateway:event"), 20)
        self.assertEqual("9170000001", alarm["ident"])

    def test_redis_away(self) -> None:
        """While Redis is away a text is not acknowledged, and taken when it is brought again."""
        self.set_up()
        self.server.kill()
        self.peer.deliver(PHONE, "SOS")
        wait_for("it to be turned down", lambda: self.peer.kind("answered") == [{"status": 0x64}], 20)
        self.server.start()
        deadline = time.monotonic() + 20
        while self.peer.kind("answered")[-1] != {"status": 0} and time.monotonic() < deadline:
            before = len(self.peer.kind("answered"))
            self.peer.deliver(PHONE, "SOS")
            self.more("answered", before)
            time.sleep(0.5)
        wait_for("the alarm", lambda: self.server.client.xlen("gateway:event") == 1, 20)


class PerlTests(SMPPCase):
    """The same with an SMSC of Perl's Net::SMPP, which shows what stands in a PDU."""

    def test_both_ways(self) -> None:
        """A text and its answer, a receipt in another form than the name, a long text each way."""
        self.set_up(perl=True)
        self.give("interval.set", args='{"seconds": 60}', ttl=600)
        text = self.text()
        self.assertEqual(
            ("4915112345678", "4930123456", "8050000 60", 0, 0, 1),
            tuple(text[name] for name in ("to", "from", "text", "coding", "esm", "registered")),
        )
        self.assertRegex(text["validity"], "^0000000009[0-5][0-9]000R$")
        self.peer.tell(receipt={"id": f"0000{text['id']}", "state": "DELIVRD", "from": PHONE[1:]})
        wait_for("the receipt", lambda: self.results("sms.delivered"), detail=self.running.tail)
        self.peer.deliver(PHONE, "SET OK")
        self.assertEqual("command.confirmed", self.ended()["type"])
        self.peer.deliver(PHONE, "", parts=["ID:9170225361 IP:1.2.3.4 5013 ", "UT:30,30,300 ", "GSM:26"])
        (entry,) = wait_for("a status", lambda: entries(self.client), 20)
        self.assertEqual("1.2.3.4:5013", json.loads(entry["data"])["server"])
        apn = "a" * 60
        self.give("apn.set", ref="long", args=json.dumps({"apn": f"{apn[:20]} {apn} {apn}"[:64]}))
        self.give("apn.set", ref="longer", args=json.dumps({"apn": "internet"}))
        self.peer.tell(cut=True)
        self.more("bound", 1)
        self.give("config.read", ref="again")
        wait_for("another text", lambda: [one for one in self.peer.texts if one["text"] == "RCONF"], 20)

    def test_long(self) -> None:
        """A text of more than 160 letters goes out in parts that can be put together."""
        self.set_up(perl=True)
        self.client.hset("gateway:registry:9170000001", "phone", "+4917012345670")
        words = ["x" * 60] * 3
        store = {"id": "a" * 32, "ident": "9170000001", "state": "queued", "attempt": "0", "protocol": "st907"}
        store |= {"number": "+4917012345670", "template": " ".join(words), "about": "{}", "ref": "", "name": "x"}
        self.client.hset(
            "gateway:sms:text:" + "a" * 32, mapping=store | {"expires_ms": str(int(time.time() * 1000) + 600_000)}
        )
        self.client.zadd("gateway:sms", {"a" * 32: 0})
        wait_for("both parts", lambda: len(self.peer.texts) == 2, 20, detail=self.running.tail)
        heads = [one["text"][:6].encode("latin-1") for one in self.peer.texts]
        self.assertEqual([(2, 1), (2, 2)], [(head[4], head[5]) for head in heads])
        self.assertEqual({0x40}, {one["esm"] for one in self.peer.texts})
        self.assertEqual(" ".join(words), "".join(one["text"][6:] for one in self.peer.texts))
        fields = wait_for(
            "it to be sent", lambda: self.client.hget("gateway:sms:text:" + "a" * 32, "state") == "accepted", 20
        )
        self.assertTrue(fields)
