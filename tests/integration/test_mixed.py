"""Phones and trackers on one port: each is told from the others, read rightly and answered in its own way."""

from __future__ import annotations

import json
import random
import signal
import socket
import time
from calendar import timegm
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from http.client import HTTPConnection
from typing import Any, Final, NamedTuple

from tests.integration.fleet import Client, is_answer, v1
from tests.integration.parts import SOON, RealPartsTestCase, entries, locked_journal, wait_for

CONNECTIONS: Final = 200

#: Behind now, so that no report lies ahead of it.
_HEADSTART: Final = 1_800

#: Seconds after which a Redis that does not answer is one that is away, and a phone is told so 5 s later.
_DEADLINE: Final = 0.5


class Report(NamedTuple):
    """What one report says, as it has to stand on the stream."""

    ident: str
    when: int
    latitude: float
    longitude: float
    speed_kmh: float
    protocol: str
    transport: str


class Conversation(NamedTuple):
    """What one connection does, step by step, what it says in all, and what holds its answers against that."""

    steps: Iterator[None]
    reports: Sequence[Report]
    check: Callable[[], None]


def places(dice: random.Random, ident: str, count: int, phone: bool) -> list[Report]:
    """Reports of one device, some seconds apart, each at another place."""
    kind = ("osmand", "http") if phone else ("st907", "tcp")
    when = int(time.time()) - _HEADSTART
    found = []
    for _ in range(count):
        when += dice.randint(1, 50)
        # what both 4 decimals of a minute and 6 of a degree can say
        latitude, longitude = (dice.randrange(60_000) / 600 for _ in "xy")
        latitude, longitude = round(latitude % 90, 6), round(longitude, 6)
        knots = dice.randrange(100)
        found.append(Report(ident, when, latitude, longitude, round(knots * 1.852, 2), *kind))
    return found


def minutes(degrees: float, width: int) -> tuple[str, str]:
    """Degrees as whole degrees and minutes with 4 decimals."""
    whole, rest = divmod(round(degrees * 600_000), 600_000)
    return f"{whole:0{width}}", f"{rest / 10_000:07.4f}"


def text_frame(report: Report) -> bytes:
    """A V1 of an ST-907."""
    at = time.gmtime(report.when)
    clock, date = time.strftime("%H%M%S", at), time.strftime("%d%m%y", at)
    place = f"{''.join(minutes(report.latitude, 2))},N,{''.join(minutes(report.longitude, 3))},E"
    return f"*HQ,{report.ident},V1,{clock},A,{place},{report.speed_kmh / 1.852:06.2f},085,{date},FFFFFBFF#".encode()


def binary_frame(report: Report) -> bytes:
    """The 32-byte form of the same."""
    at = time.gmtime(report.when)
    north, east = ("".join(minutes(report.latitude, 2)), "".join(minutes(report.longitude, 3)))
    digits = (
        f"{report.ident}{time.strftime('%H%M%S%d%m%y', at)}{north.replace('.', '')}06{east.replace('.', '')}e"
        f"{round(report.speed_kmh / 1.852):03}085fffffbff00"
    )
    return b"$" + bytes.fromhex(digits.ljust(62, "0"))


def query(report: Report) -> str:
    """The parameters of a phone."""
    place = f"lat={report.latitude}&lon={report.longitude}&speed={report.speed_kmh / 1.852:.4f}"
    return f"/?id={report.ident}&timestamp={report.when}&{place}"


def body(report: Report) -> str:
    """The JSON of a phone, its speed in metres per second."""
    coords = {"latitude": report.latitude, "longitude": report.longitude, "speed": report.speed_kmh / 3.6}
    when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(report.when))
    return json.dumps({"location": {"timestamp": when, "coords": coords}, "device_id": report.ident})


def get(report: Report, more: str = "", version: str = "1.1") -> bytes:
    """A GET."""
    return f"GET {query(report)} HTTP/{version}\r\nHost: gateway\r\n{more}\r\n".encode()


def post(report: Report) -> bytes:
    """A POST."""
    text = body(report)
    return f"POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


def statuses(link: socket.socket, count: int) -> list[int]:
    """Read so many responses; what each says."""
    found: list[int] = []
    with link.makefile("rb") as answers:
        while len(found) < count:
            found.append(int(answers.readline().split()[1]))
            length = 0
            while line := answers.readline().strip():
                name, _, value = line.lower().partition(b":")
                length = int(value) if name == b"content-length" else length
            answers.read(length)
    return found


class MixedTests(RealPartsTestCase):
    """Many connections of all kinds."""

    def setUp(self) -> None:
        """Start Redis and the gateway."""
        super().setUp()
        self.redis = self.running_redis()
        self.running = self.running_gateway(self.redis.url, config=f"[redis]\ndeadline = {_DEADLINE}\n")
        self.dice = random.Random(907)

    def cut(self, stream: bytes) -> Iterable[bytes]:
        """A stream as it may come over a mobile network."""
        while stream:
            size = self.dice.choice((1, 7, 40, 200, 1460))
            yield stream[:size]
            stream = stream[size:]

    def tracker(self, ident: str, frame: Callable[[Report], bytes], mark: bytes) -> Conversation:
        """An ST-907; each frame is answered in its turn."""
        reports = places(self.dice, ident, self.dice.randint(1, 4), phone=False)
        client = Client(self.running.port)
        self.addCleanup(client.socket.close)

        def steps() -> Iterator[None]:
            for part in self.cut(b"".join(frame(report) for report in reports)):
                client.send(part)
                yield

        def check() -> None:
            answers = client.answers(len(reports))
            self.assertEqual([True] * len(reports), [mark in answer and ident.encode() in answer for answer in answers])

        return Conversation(steps(), reports, check)

    def pipeline(self, ident: str) -> Conversation:
        """A phone that does not wait for answers; requests that can't be read are among those that can."""
        reports = places(self.dice, ident, self.dice.randint(1, 6), phone=True)
        link = Client(self.running.port).socket
        self.addCleanup(link.close)
        stream, wanted = b"", []
        for report in reports:
            stream += self.dice.choice((get, post))(report)
            wanted.append(200)
            if self.dice.random() < 0.3:
                stream += get(report._replace(latitude=95.0))
                wanted.append(400)
        if self.dice.random() < 0.3:
            stream += get(reports[-1]._replace(ident="x"), "Connection: close\r\n") + b"GET / HTTP/1.1\r\n\r\n"
            wanted.append(400)

        def steps() -> Iterator[None]:
            for part in self.cut(stream):
                link.sendall(part)
                yield

        def check() -> None:
            self.assertEqual(wanted, statuses(link, len(wanted)))

        return Conversation(steps(), reports, check)

    def browser(self, ident: str) -> Conversation:
        """A phone with an HTTP client as it comes with Python, which waits for each answer and keeps its connection."""
        reports = places(self.dice, ident, self.dice.randint(1, 4), phone=True)
        client = HTTPConnection("127.0.0.1", self.running.port, timeout=SOON)
        client.connect()
        self.addCleanup(client.close)
        link = client.sock

        def steps() -> Iterator[None]:
            for report in reports:
                kind = self.dice.choice(("get", "json", "form", "chunked"))
                if kind == "get":
                    client.request("GET", query(report))
                elif kind == "json":
                    client.request("POST", "/", body(report), {"Content-Type": "application/json"})
                elif kind == "form":
                    client.request(
                        "POST", "/", query(report)[2:], {"Content-Type": "application/x-www-form-urlencoded"}
                    )
                else:
                    text = body(report).encode()
                    client.request("POST", "/", iter((text[:50], text[50:])))
                yield
                answer = client.getresponse()
                self.assertEqual((200, b""), (answer.status, answer.read()), kind)
                self.assertIs(link, client.sock, "it had to connect again")
                yield

        return Conversation(steps(), reports, client.close)

    def once(self, ident: str) -> Conversation:
        """A phone that connects for one report, and is hung up on."""
        reports = places(self.dice, ident, 1, phone=True)
        link = Client(self.running.port).socket
        self.addCleanup(link.close)
        request = self.dice.choice((get(reports[0], version="1.0"), get(reports[0], "Connection: close\r\n")))

        def steps() -> Iterator[None]:
            for part in self.cut(request):
                link.sendall(part)
                yield

        def check() -> None:
            self.assertEqual([200], statuses(link, 1))
            self.assertEqual(b"", link.recv(1))

        return Conversation(steps(), reports, check)

    def conversation(self, number: int) -> Conversation:
        """One of any kind."""
        kind = self.dice.randrange(6)
        if kind < 2:
            return self.tracker(f"91700{number:05}", text_frame, b",V4,V1,")
        if kind == 2:
            return self.tracker(f"91710{number:05}", binary_frame, b",R12,")
        make = {3: self.pipeline, 4: self.browser, 5: self.once}[kind]
        return make(f"phone-{number}")

    def test_mixed(self) -> None:
        """200 connections, mixed at random: what each said stands on the stream, in its order, and was answered."""
        made = [self.conversation(number) for number in range(CONNECTIONS)]
        open_ones = [one.steps for one in made]
        while open_ones:
            steps = self.dice.choice(open_ones)
            try:
                next(steps)
            except StopIteration:
                open_ones.remove(steps)
        for one in made:
            one.check()
        wanted = {one.reports[0].ident: [*one.reports] for one in made}
        self.assertEqual(wanted, self.stored())

    def stored(self) -> dict[str, list[Report]]:
        """What stands on the stream of positions, by ident."""
        found: dict[str, list[Report]] = defaultdict(list)
        for entry in entries(self.redis.client):
            when = timegm(time.strptime(entry["time"], "%Y-%m-%dT%H:%M:%S.000Z"))
            north, east, kmh = (float(entry[name]) for name in ("latitude", "longitude", "speed_kmh"))
            found[entry["ident"]].append(
                Report(entry["ident"], when, north, east, kmh, entry["protocol"], entry["transport"])
            )
        return dict(found)

    def test_while_redis_is_away(self) -> None:
        """While nothing can be stored a phone is told 503, a tracker nothing; once it can be, each gets its answer."""
        phone, tracker = places(self.dice, "my-phone", 2, phone=True), v1("9170123456", time.time())
        client = HTTPConnection("127.0.0.1", self.running.port, timeout=SOON)
        self.addCleanup(client.close)

        def report(one: Report) -> tuple[int, str | None]:
            client.request("GET", query(one))
            answer = client.getresponse()
            answer.read()
            return answer.status, answer.getheader("Retry-After")

        self.assertEqual((200, None), report(phone[0]))
        self.redis.signal(signal.SIGSTOP)
        other = Client(self.running.port)
        with locked_journal(self.running.data_dir):
            other.send(tracker)
            before = time.monotonic()
            self.assertEqual((503, "30"), report(phone[1]))
            self.assertGreater(time.monotonic() - before, _DEADLINE + 4)
            self.assertEqual([], other.answers(1, 0.1))
        with other:
            self.redis.signal(signal.SIGCONT)
            self.assertEqual([True], [is_answer(answer, "9170123456") for answer in other.answers(1)])
        wait_for("the phone to be answered", lambda: report(phone[1]) == (200, None))
        self.assertEqual(phone, self.stored()["my-phone"])

    def test_alarm(self) -> None:
        """A call for help is an alarm of its own, which names the report that it came with."""
        (report,) = places(self.dice, "my-phone", 1, phone=True)
        client = HTTPConnection("127.0.0.1", self.running.port, timeout=SOON)
        self.addCleanup(client.close)
        client.request("GET", query(report) + "&alarm=sos")
        self.assertEqual(200, client.getresponse().status)
        (position,) = entries(self.redis.client)
        (alarm,) = entries(self.redis.client, "gateway:event")
        data: dict[str, Any] = json.loads(alarm["data"])
        self.assertEqual(("alarm.sos", "my-phone"), (alarm["type"], alarm["ident"]))
        self.assertEqual((position["id"], "raised"), (data["position_id"], data["phase"]))
        self.assertEqual((report.latitude, report.longitude), (data["latitude"], data["longitude"]))
