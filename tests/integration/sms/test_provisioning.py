"""C{gateway provision} with an SMSC, a gateway and fifty simulated trackers, some of which don't obey."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import Final

from tests.integration.parts import wait_for
from tests.integration.sms.test_smpp import SMPPCase
from tests.integration.sms.trackers import Phone, Trackers

COUNT: Final = 50
GATEWAY: Final = (sys.executable, "-m", "gateway.cli")
PROVISION: Final = (*GATEWAY, "provision")


class ProvisionCase(SMPPCase):
    """A gateway and its SMSC."""

    def options(self, *more: str) -> list[str]:
        """Of the command."""
        return ["--redis", self.server.url, "--port", str(self.running.port), "--server", "127.0.0.1", *more]

    def call(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Call it, and wait for its end."""
        return subprocess.run([*PROVISION, *self.options(*more)], capture_output=True, text=True, timeout=200)

    def quick(self) -> list[str]:
        """Options for those who have no time."""
        return ["--answer-within", "2s", "--report-within", "5s", "--apn", "internet"]


class FiftyTests(ProvisionCase):
    """Many at once."""

    def test_fifty(self) -> None:
        """Each ends with the right verdict, whatever is lost on the way; and no password is seen by anybody else."""
        self.set_up(smpp="per_second = 200.0\nwindow = 50\n")
        manners = {
            "good": "done",
            "lossy": "done",
            "silent": "silent",
            "password": "wrong password",
            "absent": "no report",
            "stranger": "another device",
        }
        phones, expected = [], {}
        for n in range(COUNT):
            manner = [*manners, "good", "good", "lossy", "good"][n % 10]
            ident, number = f"91710000{n:02d}", f"+49151000000{n:02d}"
            phone = Phone(ident, number, manner=manner if manner in ("silent", "absent", "stranger") else "good")
            if manner == "lossy":
                phone.loses = 0.15
            if manner == "password":
                phone.password = "7351"
            phones.append(phone)
            expected[ident] = manners[manner]
        Trackers(self.peer, phones, seed=7)
        file = self.directory / "fleet.csv"
        lines = [
            "ident,phone,password",
            *(f"{p.ident},{p.number},{'4862' if n % 7 == 0 else ''}" for n, p in enumerate(phones)),
        ]
        for n, phone in enumerate(phones):
            if n % 7 == 0 and phone.password == "0000":
                phone.password = "4862"
        file.write_text("\n".join(lines) + "\n")
        done = self.call("--csv", str(file), "--json", "--tries", "6", "--at-once", "50", *self.quick())
        found = {one["ident"]: one for one in map(json.loads, done.stdout.splitlines())}
        wrong = {
            ident: found.get(ident) for ident in expected if found.get(ident, {}).get("verdict") != expected[ident]
        }
        self.assertEqual({}, wrong, done.stderr + self.running.tail())
        self.assertEqual(1, done.returncode)
        for phone in phones:
            if expected[phone.ident] == "done":
                self.assertEqual(("127.0.0.1", self.running.port), phone.server)
                self.assertGreater(phone.reports, 0)
        shown = done.stdout + done.stderr + self.running.output() + json.dumps(self.results())
        texts = [fields for key in self.client.keys("gateway:sms:text:*") for fields in [self.client.hgetall(key)]]
        # alone, or behind the three digits of what it is the password for; not within a time or an id
        self.assertNotRegex(shown + json.dumps(texts), "(?<![0-9a-f])([0-9]{3})?4862(?![0-9a-f])")
        words = ["registry", "show", phones[0].ident, "--redis", self.server.url]
        entry = subprocess.run([*GATEWAY, *words], capture_output=True, text=True).stdout
        self.assertIn("sms_password=****", entry)


class OneTests(ProvisionCase):
    """One at a time."""

    def test_dry_run(self) -> None:
        """The texts are printed, none is sent, and no password with them."""
        self.set_up()
        done = self.call(
            "9171000001", "--phone", "+4915100000001", "--apn", "internet", "--password", "4862", "--dry-run"
        )
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn(f"804**** 127.0.0.1 {self.running.port}", done.stdout)
        self.assertNotIn("4862", done.stdout)
        time.sleep(1)
        self.assertEqual([], self.peer.texts)

    def test_resumed(self) -> None:
        """Interrupted by Ctrl-C, or killed, it goes on where it was, and sends nothing twice that was answered."""
        self.set_up()
        phone = Phone("9171000001", "+4915100000001")
        Trackers(self.peer, [phone])
        words = ["9171000001", "--phone", phone.number, "--apn", "internet"]
        for number in (signal.SIGINT, signal.SIGKILL):
            process = subprocess.Popen(
                [*PROVISION, *self.options(*words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            before = len(phone.texts)
            wait_for("two texts", lambda: len(phone.texts) >= before + 2, 30)  # noqa: B023
            process.send_signal(number)
            process.communicate(timeout=20)
        done = self.call(*words)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr + self.running.tail())
        self.assertIn("1 of 1 report", done.stdout)
        self.assertIn("go on from where they were", done.stdout)
        told = [text for text in phone.texts if text != "RCONF"]
        self.assertLessEqual(len(told), 7, told)
        server = f"8040000 127.0.0.1 {self.running.port}"
        wanted = ["8030000 internet", server, "7100000", "8050000 20", "8090000 300"]
        self.assertEqual(wanted, [*dict.fromkeys(told)])

    def test_budget(self) -> None:
        """So many texts, and no more; what is left goes on when it is called again."""
        self.set_up()
        phone = Phone("9171000001", "+4915100000001")
        Trackers(self.peer, [phone])
        words = ["9171000001", "--phone", phone.number, "--apn", "internet"]
        done = self.call(*words, "--texts", "3")
        self.assertEqual(1, done.returncode)
        self.assertIn("too many texts", done.stdout)
        self.assertEqual(3, len(phone.texts))
        done = self.call(*words)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        self.assertEqual(7, len(phone.texts))

    def test_mistakes(self) -> None:
        """What can't be is said in a line, with the line of the file, and nothing is sent."""
        self.set_up()
        file = self.directory / "fleet.csv"
        for text, said in (
            ("phone\n+491510000001\n", "no ident"),
            ("ident,phone,color\n", "color"),
            ("ident,phone\n9171000001,12\n", "line 2: phone '12' is no number"),
            (
                "ident,phone\n9171000001,+4915100000001\n9171000001,+4915100000002\n",
                "line 3: 9171000001 stands there twice",
            ),
            ("ident,phone,interval\n9171000001,+4915100000001,soon\n", "line 2: interval 'soon'"),
            ("ident,phone,apn\n9171000001,+4915100000001,two words\n", "line 2: APN 'two words'"),
            ("ident,phone\n", "no tracker stands there"),
        ):
            file.write_text(text)
            done = self.call("--csv", str(file), "--apn", "internet")
            self.assertEqual(1, done.returncode, text)
            self.assertIn(said, done.stderr)
            self.assertEqual(1, len(done.stderr.splitlines()), done.stderr)
        done = self.call("9171000001", "--apn", "internet")
        self.assertIn("phone is missing", done.stderr)
        self.assertEqual([], self.peer.texts)


class NobodyTests(ProvisionCase):
    """No gateway that sends SMS."""

    def test_nobody(self) -> None:
        """That is said, instead of waiting for nothing."""
        self.server = self.running_redis()
        self.running = self.running_gateway(self.server.url)
        done = self.call("9171000001", "--phone", "+4915100000001", "--apn", "internet")
        self.assertEqual(1, done.returncode)
        self.assertIn("no gateway that sends SMS runs there", done.stderr)
