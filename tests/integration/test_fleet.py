"""The operator's questions on a real Redis, and to a gateway that runs."""

from __future__ import annotations

import json
import time
from typing import Any

from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.fields import rfc3339
from gateway.fleet import history
from gateway.sinks.blocking import RedisURL
from tests.integration.fleet import Client, v1
from tests.integration.parts import RealPartsTestCase, RedisServer, wait_for

IDENT = "9170123456"


class FleetCase(RealPartsTestCase):
    """A Redis, and the command line."""

    redis: RedisServer

    def setUp(self) -> None:
        """Start it."""
        super().setUp()
        self.redis = self.running_redis()

    def ask(self, *words: str, status: int = 0, given: str | None = None) -> Result:
        """Run C{gateway}."""
        result = CliRunner().invoke(main, [*words, "--redis", self.redis.url], input=given)
        self.assertEqual(status, result.exit_code, result.output)
        return result


class DevicesTests(FleetCase):
    """C{gateway devices}."""

    def fill(self, count: int) -> None:
        """Devices as they stand in Redis."""
        now = time.time()
        pipe = self.redis.client.pipeline(transaction=False)
        for n in range(count):
            ident, at = f"99{n:08}", rfc3339(now - n % 1000)
            last = {
                "seen": at,
                "time": at,
                "latitude": "52.5",
                "longitude": "13.4",
                "speed_kmh": "30.00",
                "online": "1",
            }
            pipe.hset(f"gateway:last:{ident}", mapping=last)
            pipe.zadd("gateway:seen", {ident: int(now * 1000)})
        pipe.execute()

    def test_ten_thousand(self) -> None:
        """A large fleet is listed in a moment."""
        self.fill(10_000)
        began = time.monotonic()
        lines = self.ask("devices").output.splitlines()
        took = time.monotonic() - began
        self.assertEqual(10_000, len([line for line in lines if line.startswith("99")]))
        self.assertLess(took, 10.0, "about 1 s on a quiet machine")

    def test_filters(self) -> None:
        """Those that are asked for are shown, as a table, as JSON, and for a spreadsheet."""
        self.fill(3)
        self.ask("registry", "set", "9900000001", "tags=red,blue", "alias=\u2603 van")
        self.ask("registry", "set", "9900000009", "alias==1+1")
        self.redis.client.hset(
            "gateway:last:9900000002", mapping={"late": "device", "seen": rfc3339(time.time() - 7200)}
        )
        found = [json.loads(line) for line in self.ask("devices", "--json").output.splitlines() if line[0] == "{"]
        self.assertEqual(["moving", "moving", "silent", "never"], [one["state"] for one in found])
        for words, idents in (
            (["--silent", "1h"], ["9900000002", "9900000009"]),
            (["--tag", "red"], ["9900000001"]),
            (["--tag", "red", "--tag", "green"], []),
            (["--late"], ["9900000002"]),
            (["--state", "never", "--state", "silent"], ["9900000002", "9900000009"]),
        ):
            lines = self.ask("devices", *words).output.splitlines()
            self.assertEqual(idents, [line.split()[0] for line in lines if line.startswith("99")], words)
        text = self.ask("devices", "--csv").output
        self.assertIn("\n9900000009,,'=1+1,", text)


class RegistryTests(FleetCase):
    """C{gateway registry}."""

    def test_import(self) -> None:
        """A file is written whole or not at all, and a note tells the gateways of each."""
        path = self.directory / "fleet.csv"
        path.write_text(f"ident,alias,phone\n{IDENT},van,+4915550000001\n9170123457,,\n")
        self.assertIn("2 devices written", self.ask("registry", "import", str(path)).output)
        self.assertEqual(
            {"alias": "van", "phone": "+4915550000001"}, self.redis.client.hgetall(f"gateway:registry:{IDENT}")
        )
        notes = self.redis.client.xrange("gateway:registry:changes")
        self.assertEqual([IDENT, "9170123457"], [fields["ident"] for _, fields in notes])
        path.write_text(f"ident,alias\n{IDENT},bus\n!,x\n")
        self.assertIn("line 3", self.ask("registry", "import", str(path), status=1).output)
        self.assertEqual("van", self.redis.client.hget(f"gateway:registry:{IDENT}", "alias"))
        exported = self.ask("registry", "export").output
        self.assertEqual(f"ident,alias,phone\n{IDENT},van,+4915550000001\n", exported)

    def test_names(self) -> None:
        """A device may be given by its other names, if only one has it."""
        self.ask("registry", "set", IDENT, "alias=van", "phone=+4915550000001", "imei=351234567890123")
        for name in ("van", "4915550000001", "351234567890123"):
            self.assertIn(f"{IDENT}: model=ST-907", self.ask("registry", "set", name, "model=ST-907").output)
        self.assertIn("alias=van", self.ask("registry", "show", "van").output)
        self.ask("registry", "set", "9170123457", "alias=van")
        self.assertIn("several", self.ask("registry", "show", "van", status=1).output)
        self.ask("registry", "set", IDENT, "alias=")
        self.assertIsNone(self.redis.client.hget(f"gateway:registry:{IDENT}", "alias"))
        self.assertIn("is out", self.ask("registry", "remove", IDENT).output)
        self.assertIn("not in the registry", self.ask("registry", "remove", IDENT, status=1).output)
        self.assertIn("no ident, and no alias", self.ask("registry", "show", "no such", status=1).output)


class ShowTests(FleetCase):
    """C{gateway show} and C{gateway unknown} of a gateway that runs."""

    def test_show(self) -> None:
        """What a device did is shown, with its last frame explained; what a stranger sent is told by its address."""
        gateway = self.running_gateway(self.redis.url, config='[identity]\nmode = "known"\n')
        self.ask("registry", "adopt", IDENT, "alias=van")
        with Client(gateway.port) as client:
            for n in range(3):
                client.send(v1(IDENT, time.time() - 3 + n))
                client.answers(1)
            with Client(gateway.port) as other:
                other.send(b"\x1b[31mGET /<script> HTTP/1.1\r\n\r\n")
                self.assertTrue(other.closed())
            with Client(gateway.port) as other:
                other.send(v1("9170123465", time.time()))
                self.assertTrue(other.closed())

            def known() -> str:
                output = self.ask("show", "van").output
                return output if "could not be read" in output and "frame of" in output else ""

            output = wait_for("its frame and the stranger", known)
        self.assertIn(f"{IDENT}: connected, 3 reports in 10 minutes; ", output.splitlines()[0])
        self.assertIn("time HHMMSS", output)
        said: dict[str, Any] = json.loads(self.ask("show", IDENT, "--json").output)
        self.assertEqual((3, IDENT), (said["lately"]["reports"], said["device"]["ident"]))
        output = self.ask("unknown").output
        self.assertNotIn("\x1b", output)
        self.assertIn("GET /<script> HTTP/1.1", output)
        self.assertIn("9170123465: not let in, it is not in the registry; 1 frame, ", output)
        self.assertIn(f"near {IDENT}", output)
        self.ask("registry", "adopt", "9170123465")
        self.assertNotIn("9170123465", self.ask("unknown", "--idents").output)

    def test_history(self) -> None:
        """One device's reports are found among others', back to a time, and it is said when that was not reached."""
        pipe = self.redis.client.pipeline(transaction=False)
        for n in range(3000):
            ident = IDENT if n % 100 == 0 else f"99{n:08}"
            head = {"v": "1", "id": "", "type": "position", "source": "", "time": rfc3339(1e9 + n), "received": ""}
            where = {"ident": ident, "latitude": "1.0", "longitude": f"{n}", "speed_kmh": "", "late": ""}
            pipe.xadd("gateway:position", {**head, **where}, id=f"{1000 + n}-0")
        pipe.execute()
        client = RedisURL.parse(self.redis.url, "test").connect(5.0)
        self.addCleanup(client.close)
        self.addCleanup(self.redis.client.delete, "gateway:position")  # no gateway wrote it
        track = history.track(client, "gateway", IDENT, 0)
        self.assertEqual((30, True), (len(track.points), track.complete))
        self.assertEqual((1_000_000_000_000, 1.0, 0.0, None, None, False), track.points[0])
        self.assertEqual(10, len(history.track(client, "gateway", IDENT, 3000).points))
        search = history.Search(client, "gateway:position", IDENT, entries=1000)
        self.assertEqual((10, False), (len(list(search)), search.complete))
        newest = history.entries(client, "gateway", IDENT, ["position"], None, 3)
        self.assertEqual(["3900-0", "3800-0", "3700-0"], [one.entry for one in newest])
        older = history.entries(client, "gateway", IDENT, ["position"], 3700, 2)
        self.assertEqual(["3600-0", "3500-0"], [one.entry for one in older])
