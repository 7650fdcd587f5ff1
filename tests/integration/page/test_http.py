"""The page's HTTP side on a running gateway, as a client sees it that is no browser."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import time
from typing import Any, NamedTuple

from tests.integration.fleet import IGNITION_OFF, IGNITION_ON, Client, v1
from tests.integration.parts import Gateway, RealPartsTestCase, RedisServer, free_port, wait_for

IDENT = "9170123456"


class Answered(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


class HTTPCase(RealPartsTestCase):
    """A gateway with a page."""

    redis: RedisServer
    running: Gateway

    def set_up(self, config: str = "", workers: int = 1) -> None:
        """Start both."""
        self.redis = self.running_redis()
        self.web = free_port()
        path = self.directory / "page.toml"
        path.write_text(config)
        self.running = self.gateway(
            self.redis.url, options=["--web", f"127.0.0.1:{self.web}", "--config", str(path)], workers=workers
        )
        self.running.start()
        self.token = (self.running.data_dir / "web.token").read_text().strip()

    def ask(self, method: str, path: str, body: Any = None, token: str | None = "", **headers: str) -> Answered:
        """Ask; the token is given unless it is None, or another one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.web, timeout=20)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if token is not None:
                sent.setdefault("Authorization", f"Bearer {token or self.token}")
            data = None
            if body is not None:
                sent = {"Content-Type": "application/json", "X-Gateway": "page", **sent}
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, {name: value for name, value in sent.items() if value})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answered(response.status, names, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """What a question is answered."""
        answered = self.ask("GET", path)
        self.assertEqual(200, answered.status, answered.body)
        return answered.json


class AccessTests(HTTPCase):
    """Who is let in, and how."""

    def test_token(self) -> None:
        """Without the token there is health, and the page that asks for it; nothing else."""
        self.set_up()
        wait_for("it to be ready", lambda: self.ask("GET", "/health/ready", token=None).status == 200)
        for path, status in (
            ("/health/live", 200),
            ("/health/ready", 200),
            ("/", 200),
            ("/static/leaflet/leaflet.js", 200),
            ("/metrics", 401),
            ("/api/overview", 401),
            ("/api/stream", 401),
            ("/nothing", 401),
            ("/static/nothing.js", 404),
        ):
            answered = self.ask("GET", path, token=None)
            self.assertEqual(status, answered.status, path)
            self.assertIn("default-src 'none'", answered.headers["content-security-policy"])
            self.assertEqual("nosniff", answered.headers["x-content-type-options"])
        self.assertEqual(401, self.ask("GET", "/api/overview", token="wrong").status)
        self.assertIn(b"gateway_received_frames_total", self.ask("GET", "/metrics").body)
        self.assertEqual(404, self.ask("GET", "/nothing").status)
        self.assertEqual(405, self.ask("GET", "/api/adopt").status)
        log = self.running.output()
        self.assertNotIn(self.token, log)
        self.assertIn(f"operator's page: http://127.0.0.1:{self.web}/", log)

    def test_browser(self) -> None:
        """A browser gives the token once and has a session; it may not ask by another name, nor from elsewhere."""
        self.set_up()
        self.assertEqual(401, self.ask("POST", "/api/login", {"token": "wrong"}, token=None).status)
        self.assertEqual(403, self.ask("POST", "/api/login", {"token": self.token}, token=None, X_Gateway="").status)
        answered = self.ask("POST", "/api/login", {"token": self.token}, token=None)
        self.assertEqual((200, "open"), (answered.status, answered.json["mode"]))
        cookie = answered.headers["set-cookie"]
        self.assertIn("HttpOnly", cookie)
        self.assertIn("samesite=strict", cookie.lower())
        self.assertNotIn(self.token, cookie)
        session = cookie.partition(";")[0]
        self.assertEqual(200, self.ask("GET", "/api/session", token=None, Cookie=session).status)
        self.assertEqual(403, self.ask("GET", "/api/session", token=None, Cookie=session, Host="evil.test").status)
        text = self.ask("POST", "/api/adopt", {}, token=None, Cookie=session, Content_Type="text/plain")
        self.assertEqual(415, text.status)
        self.assertEqual(200, self.ask("POST", "/api/logout", {}, token=None, Cookie=session).status)
        self.assertEqual(401, self.ask("GET", "/api/session", token=None, Cookie=session).status)
        statuses = {self.ask("POST", "/api/login", {"token": "wrong"}, token=None).status for _ in range(30)}
        self.assertEqual({401, 429}, statuses)

    def test_bodies(self) -> None:
        """What is no JSON object, or too long, is turned away."""
        self.set_up()
        self.assertEqual(400, self.ask("POST", "/api/adopt", b"{").status)
        self.assertEqual(400, self.ask("POST", "/api/adopt", b"[" * 60_000).status)
        self.assertEqual(400, self.ask("POST", "/api/adopt", [1]).status)
        self.assertEqual(413, self.ask("POST", "/api/adopt", b" " * 65_537).status)
        self.assertEqual(413, self.ask("POST", "/api/explain", {"hex": "00" * 16_385}).status)


class QuestionTests(HTTPCase):
    """What the page asks."""

    def test_device(self) -> None:
        """A device is listed, shown, found in the past, explained, registered and traced."""
        self.set_up()
        with Client(self.running.port) as client:
            for n in range(3):
                client.send(v1(IDENT, time.time() - 3 + n))
                self.assertEqual(1, len(client.answers(1)))
            listed = self.get("/api/devices")
            (row,) = [dict(zip(listed["columns"], row, strict=True)) for row in listed["rows"]]
            self.assertEqual((IDENT, "moving"), (row["ident"], row["state"]))
            self.assertIn("connected, 3 reports", self.get(f"/api/device/{IDENT}")["verdict"])
            self.assertEqual(3, len(self.get(f"/api/device/{IDENT}/track?hours=1")["points"]))
            kinds = {entry["type"] for entry in self.get(f"/api/device/{IDENT}/events")["entries"]}
            self.assertIn("device.connected", kinds)
            values = {"values": {"alias": "van <b>", "model": "x"}}
            self.assertEqual(200, self.ask("POST", f"/api/device/{IDENT}/registry", values).status)
            gone = self.ask("POST", f"/api/device/{IDENT}/registry", {"values": {"model": None}})
            self.assertEqual({"alias": "van <b>"}, gone.json["registry"])
            self.assertEqual(400, self.ask("POST", f"/api/device/{IDENT}/registry", {"values": {"A": "x"}}).status)
            self.assertEqual(200, self.ask("POST", f"/api/device/{IDENT}/trace", {"for_s": 60}).status)

            def traced() -> Any:
                time.sleep(1.0)
                client.send(v1(IDENT, time.time()))
                client.answers(1)
                return self.get(f"/api/device/{IDENT}/raw")["entries"]

            self.assertIn("frame", wait_for("a frame", traced)[0]["data"])
        said = self.ask("POST", "/api/explain", {"hex": v1(IDENT, 1_796_000_000).hex()}).json
        self.assertEqual("st907", said["protocol"])
        self.assertIn("fix", json.dumps(said["messages"][0]["facts"]))
        self.assertEqual(400, self.ask("POST", "/api/explain", {"hex": "zz"}).status)
        self.assertEqual(404, self.ask("GET", "/api/device/no%20ident").status)
        self.assertEqual(400, self.ask("GET", f"/api/device/{IDENT}/track?hours=never").status)
        texts = [one["text"] for one in self.get(f"/api/device/{IDENT}/sms-setup?host=192.0.2.1&apn=net")["texts"]]
        self.assertIn(f"804{{password}} 192.0.2.1 {self.running.port}", texts)

    def test_commands(self) -> None:
        """A command is given, followed to its end, and refused where it is not enabled."""
        self.set_up()
        known = {one["name"]: one for one in self.get("/api/commands")["commands"]}
        self.assertEqual((True, False), (known["interval.set"]["enabled"], known["engine.stop"]["enabled"]))
        with Client(self.running.port) as client:
            client.send(v1(IDENT, time.time()))
            client.answers(1)
            asked = {"command": "interval.set", "args": {"seconds": 30}, "ttl": 60}
            ref = self.ask("POST", f"/api/device/{IDENT}/command", asked).json["ref"]
            (told,) = client.answers(1)
            self.assertIn(b",S17,", told)
            client.send(told.replace(b",S17,", b",V4,S17,"))

            def ended() -> Any:
                answered = self.ask("GET", f"/api/command/{ref}")
                return answered.json if answered.status == 200 and answered.json["final"] else None

            steps = [step["type"] for step in wait_for("its end", ended)["steps"]]
        self.assertEqual(["command.queued", "command.sending", "command.sent"], steps[:3])
        self.assertFalse(self.get("/api/commands")["sms"])
        asked = {"command": "position.request", "channel": "sms", "ttl": 60}
        ref = self.ask("POST", f"/api/device/{IDENT}/command", asked).json["ref"]
        self.assertIn("[sms]", wait_for("its end", ended)["steps"][-1]["data"]["reason"])
        for command, status in (("engine.stop", 403), ("nonsense", 400)):
            answered = self.ask("POST", f"/api/device/{IDENT}/command", {"command": command, "ttl": 60})
            self.assertEqual(status, answered.status, answered.body)
        self.assertEqual(404, self.ask("GET", "/api/command/none").status)

    def test_stream(self) -> None:
        """News come while somebody looks; who does not read misses some, and the gateway's memory stays."""
        self.set_up()
        before = self.running.resident_mib()
        slow = socket.create_connection(("127.0.0.1", self.web))
        self.addCleanup(slow.close)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(
            f"GET /api/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n\r\n".encode()
        )
        connection = http.client.HTTPConnection("127.0.0.1", self.web, timeout=20)
        self.addCleanup(connection.close)
        connection.request("GET", "/api/stream", headers={"Authorization": f"Bearer {self.token}"})
        response = connection.getresponse()
        self.assertEqual("text/event-stream; charset=utf-8", response.headers["Content-Type"])
        wanted = {"overview", "devices", "event"}
        words = itertools.cycle((IGNITION_ON, IGNITION_OFF))
        with Client(self.running.port) as client:
            end = time.monotonic() + 20
            while wanted and time.monotonic() < end:
                line = response.readline().decode()
                if line.startswith("event: overview"):  # every two seconds
                    client.send(v1(IDENT, time.time(), next(words)))
                if line.startswith("event: "):
                    wanted.discard(line.removeprefix("event: ").strip())
        self.assertEqual(set(), wanted)
        self.assertLess(self.running.resident_mib() - before, 30)

    def test_redis_away(self) -> None:
        """While Redis is away the page says so: not ready, metrics all the same, and questions are answered 503."""
        self.set_up()
        self.redis.kill()
        wait_for("it to be not ready", lambda: self.ask("GET", "/health/ready").status == 503)
        self.assertEqual(200, self.ask("GET", "/health/live").status)
        self.assertIn("Redis is away", self.ask("GET", "/health/ready").json["problems"][0])
        self.assertIn(b"gateway_ready{", self.ask("GET", "/metrics").body)
        self.assertFalse(self.get("/api/overview")["ready"])
        self.assertEqual(503, self.ask("GET", "/api/devices").status)
        self.redis.start()
        wait_for("it to be ready again", lambda: self.ask("GET", "/health/ready").status == 200)
        self.assertEqual([], self.get("/api/devices")["rows"])

    def test_workers(self) -> None:
        """The parent of workers serves the page of all of them; a busy address stops a start that asks for it."""
        self.set_up(workers=2)
        with Client(self.running.port) as client:
            client.send(v1(IDENT, time.time()))
            client.answers(1)
            wait_for("both", lambda: len(self.get("/api/overview")["processes"]) == 2)
            wait_for("the report", lambda: self.get("/api/overview")["received"] == 1)
            wait_for("how long it waited", lambda: self.get("/api/overview")["latency"]["p99_ms"])
        metrics = self.ask("GET", "/metrics").body.decode()
        self.assertIn('worker="2"', metrics)
        wait_for("it to be ready", lambda: self.ask("GET", "/health/ready").status == 200)
        other = self.gateway(self.redis.url, name="other", options=["--web", f"127.0.0.1:{self.web}"])
        other.launch()
        self.assertEqual(1, other.wait(20))
        self.assertIn("gateway: the operator's page: can't listen on TCP 127.0.0.1:", other.output())
