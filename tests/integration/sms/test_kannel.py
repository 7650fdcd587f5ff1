"""The gateway with Debian's Kannel, over HTTP both ways, with its fakesmsc as the network."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, Final

from tests.integration.parts import Child, Gateway, accepts, entries, free_port, wait_for
from tests.integration.sms.peers import SMSTestCase

IDENT: Final = "9170225361"
PHONE: Final = "+4915112345678"
TOKEN: Final = "a-token-of-24-letters-or"
FAKE_SMSC: Final = Path("/usr/lib/kannel/test/fakesmsc")

#: Its configuration; the user guide of 1.4.5, chapters 4, 6 and 10.
KANNEL: Final = """
group = core
admin-port = {admin}
admin-password = secret
smsbox-port = {smsbox}
box-allow-ip = 127.0.0.1
admin-allow-ip = 127.0.0.1
dlr-storage = internal

group = smsc
smsc = fake
smsc-id = fake
port = {fake}
connect-allow-ip = 127.0.0.1

group = smsbox
bearerbox-host = 127.0.0.1
sendsms-port = {sendsms}
http-request-retry = 20
http-queue-delay = 1

group = sendsms-user
username = gateway
password = kannel-secret
max-messages = 5
concatenation = true

group = sms-service
keyword = default
catch-all = true
max-messages = 0
accept-x-kannel-headers = false
get-url = "http://127.0.0.1:{listen}/sms/received?token={token}&from=%p&text=%a&id=%I"
"""


class KannelTests(SMSTestCase):
    """All of it."""

    def setUp(self) -> None:
        """Start Kannel, its fakesmsc, and a gateway."""
        super().setUp()
        boxes = [shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("bearerbox", "smsbox")]
        self.need(all(boxes), "no bearerbox and smsbox (kannel)")
        self.need(FAKE_SMSC.exists(), f"no {FAKE_SMSC} (kannel-extras)")
        ports = {name: free_port() for name in ("admin", "smsbox", "fake", "sendsms", "listen")}
        file = self.directory / "kannel.conf"
        file.write_text(KANNEL.format(**ports, token=TOKEN))
        for box, port in ((boxes[0], ports["smsbox"]), (boxes[1], ports["sendsms"])):
            child = Child([str(box), "-v", "1", str(file)], self.directory / f"{Path(str(box)).name}.log")
            self.addCleanup(child.kill)
            wait_for(f"{box} to listen", lambda port=port: accepts("127.0.0.1", port), 20, detail=child.tail)  # type: ignore[misc]
        self.fake = subprocess.Popen(
            [str(FAKE_SMSC), "-H", "127.0.0.1", "-r", str(ports["fake"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self.heard: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.addCleanup(self._end)
        self.server = self.running_redis()
        self.client = self.server.client
        self.client.hset(f"gateway:registry:{IDENT}", mapping={"phone": PHONE})
        for name, secret in (("secret", "kannel-secret"), ("token", TOKEN)):
            (self.directory / name).write_text(secret)
        config = (
            '[sms]\ntransport = "http"\nnumber = "12345"\n[sms.http]\npreset = "kannel"\nuser = "gateway"\n'
            f'url = "http://127.0.0.1:{ports["sendsms"]}/cgi-bin/sendsms"\nlisten = "127.0.0.1:{ports["listen"]}"\n'
            f'public_url = "http://127.0.0.1:{ports["listen"]}"\n'
            f'secret_file = "{self.directory}/secret"\nin_secret_file = "{self.directory}/token"\n'
        )
        self.running: Gateway = self.running_gateway(self.server.url, config=config)
        wait_for("texts to come in", lambda: accepts("127.0.0.1", ports["listen"]), 20, detail=self.running.tail)

    def _end(self) -> None:
        self.fake.kill()
        self.fake.wait()
        for pipe in (self.fake.stdin, self.fake.stdout):
            if pipe is not None:
                pipe.close()
        self.reader.join(5)

    def _read(self) -> None:
        assert self.fake.stdout is not None
        self.heard.extend(iter(self.fake.stdout.readline, ""))

    def bring(self, text: str) -> None:
        """A phone sends a text."""
        assert self.fake.stdin is not None
        self.fake.stdin.write(f"{PHONE} 12345 text {text}\n")
        self.fake.stdin.flush()

    def got(self, text: str) -> bool:
        """Whether the network has got a text."""
        return any(f" text {text}" in line or f" text {text.replace(' ', '+')}" in line for line in self.heard)

    def results(self, kind: str) -> list[dict[str, Any]]:
        """Entries of the result stream of this type."""
        return [json.loads(f["data"]) for f in entries(self.client, "gateway:result") if f["type"] == kind]

    def test_both_ways(self) -> None:
        """A command goes out, its answer and a position come in; nothing secret is logged."""
        given = {"ident": IDENT, "command": "interval.set", "args": '{"seconds": 60}', "ref": "r", "channel": "sms"}
        self.client.xadd("gateway:command", given)
        wait_for(
            "the text", lambda: self.got("8050000 60"), 30, detail=lambda: "".join(self.heard) + self.running.tail()
        )
        wait_for("it to be sent", lambda: self.results("command.sent"), 20, detail=self.running.tail)
        wait_for("the delivery report", lambda: self.results("sms.delivered"), 20, detail=self.running.tail)
        self.bring("SET OK")
        wait_for("the answer", lambda: self.results("command.confirmed"), 30, detail=self.running.tail)
        self.bring("http://maps.google.com/maps?q=+52.5,+13.25 ID:9170225361 FIX:A Speed:12KM/H BAT:4 & more=1?")
        (entry,) = wait_for("a position", lambda: entries(self.client), 30, detail=self.running.tail)
        self.assertEqual(("52.500000", "13.250000", "sms"), (entry["latitude"], entry["longitude"], entry["transport"]))
        (received,) = [one for one in self.results("sms.received") if one["kind"] == "position"]
        self.assertTrue(received["raw_text"].endswith("& more=1?"), received)
        shown = self.running.output()
        for secret in ("kannel-secret", TOKEN, "8050000", PHONE):
            self.assertNotIn(secret, shown)
