"""Trackers that speak TLS, at a real gateway."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import time
from pathlib import Path

from click.testing import CliRunner

from gateway.cli import main
from tests.integration.certificates import Authority
from tests.integration.fleet import v1
from tests.integration.parts import Gateway, RealPartsTestCase, entries, free_port, wait_for

IDENT = "9170123456"


class TLSListenerTests(RealPartsTestCase):
    """C{[tls]}."""

    running: Gateway

    def set_up(self, workers: int = 1, more: str = "") -> None:
        """Start a gateway that listens with TLS, too."""
        self.redis = self.running_redis()
        self.authority = Authority(self.directory)
        self.certificate, self.key = self.authority.server("localhost", "127.0.0.1")
        self.tls = free_port()
        files = f'certificate = "{self.certificate}"\nkey = "{self.key}"\n'
        config = f'[tls]\nlisten = ["127.0.0.1:{self.tls}"]\n{files}{more}'
        self.running = self.running_gateway(self.redis.url, config=config, workers=workers)

    def connect(self, authority: Authority | None = None, **options: int) -> ssl.SSLSocket:
        """A tracker that looks whom it talks to."""
        context = ssl.create_default_context(cafile=str((authority or self.authority).file))
        for name, value in options.items():
            setattr(context, name, value)
        plain = socket.create_connection(("127.0.0.1", self.tls), 10)
        self.addCleanup(plain.close)
        wrapped = context.wrap_socket(plain, server_hostname="localhost")
        self.addCleanup(wrapped.close)
        return wrapped

    def test_served(self) -> None:
        """It is answered and stored as all others, and takes commands; plain TCP and UDP go on beside it."""
        self.set_up()
        tracker = self.connect()
        tracker.sendall(v1(IDENT, time.time()))
        self.assertIn(b",V4,V1,", tracker.recv(1000))
        (entry,) = entries(self.redis.client)
        self.assertEqual(("tcp", f"127.0.0.1:{tracker.getsockname()[1]}"), (entry["transport"], entry["peer"]))
        words = ["send", IDENT, "interval.set", "seconds=30", "--ttl", "60", "--redis", self.redis.url]
        self.assertEqual(0, CliRunner().invoke(main, words).exit_code)
        told = tracker.recv(1000)
        self.assertIn(b",S17,", told)
        tracker.sendall(told.replace(b",S17,", b",V4,S17,"))

        def states() -> list[str]:
            return [entry["type"] for entry in entries(self.redis.client, "gateway:result")]

        wait_for("the outcome", lambda: "command.confirmed" in states(), detail=lambda: str(states()))
        with socket.create_connection(("127.0.0.1", self.running.port), 10) as plain:
            plain.sendall(v1("9170123457", time.time()))
            self.assertIn(b",V4,V1,", plain.recv(1000))

    def test_workers(self) -> None:
        """Each worker listens with TLS."""
        self.set_up(workers=2)
        for n in range(6):
            tracker = self.connect()
            tracker.sendall(v1(f"91701234{n:02}", time.time()))
            self.assertIn(b",V4,V1,", tracker.recv(1000))

    def test_closed(self) -> None:
        """Who is not let in is closed at once, whether it says good-bye or not: nothing is kept of it."""
        self.set_up(more='[identity]\nmode = "known"\n')
        tracker = self.connect()
        tracker.settimeout(20)  # far from unread_seconds, after which it would be cut
        tracker.sendall(v1(IDENT, time.time()))
        self.assertEqual(b"", tracker.recv(1000))
        # the end of TLS is not the end of the connection
        with socket.socket(fileno=tracker.detach()) as plain:
            plain.settimeout(20)
            with contextlib.suppress(ConnectionError):
                self.assertEqual(b"", plain.recv(1000))

    def test_last_words(self) -> None:
        """What closes after its answer has sent that first, whole, and closes TLS in order."""
        self.set_up()
        phone = self.connect()
        phone.suppress_ragged_eofs = False  # type: ignore[attr-defined]  # its annotations lack it
        phone.settimeout(20)
        query = f"id={IDENT}&lat=1.0&lon=2.0&timestamp={int(time.time())}"
        phone.sendall(f"GET /?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := phone.recv(1000):
            answer += data
        self.assertTrue(answer.startswith(b"HTTP/1.1 200"), answer)
        self.assertTrue(b"\r\n\r\n" in answer, answer)

    def test_not_tls(self) -> None:
        """What speaks something else there, too old a TLS, or half of one, is closed in time."""
        self.set_up(more="[limits]\ndetect_seconds = 2.0\n")
        with socket.create_connection(("127.0.0.1", self.tls), 10) as plain:
            plain.sendall(v1(IDENT, time.time()))
            with contextlib.suppress(ConnectionError):
                while plain.recv(1000):
                    pass
        with socket.create_connection(("127.0.0.1", self.tls), 10) as half:
            half.sendall(bytes.fromhex("160301020001"))
            begun = time.monotonic()
            with contextlib.suppress(ConnectionError):
                while half.recv(1000):
                    pass
            self.assertLess(time.monotonic() - begun, 9.0)
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.connect(maximum_version=ssl.TLSVersion.TLSv1_1, minimum_version=ssl.TLSVersion.TLSv1)
        self.assertEqual([], entries(self.redis.client))
        tracker = self.connect()
        tracker.sendall(v1(IDENT, time.time()))
        self.assertIn(b",V4,V1,", tracker.recv(1000))

    def test_renewed(self) -> None:
        """SIGHUP takes over a certificate that was renewed; one that does not hold leaves the one before."""
        self.set_up()
        before = self.connect()
        other = Authority(self.directory, "Another one")
        new = other.server("localhost", "127.0.0.1")
        self.key.write_bytes(new[1].read_bytes())
        self.running.signal(signal.SIGHUP)
        wait_for("the mistake", lambda: "the certificate is not reloaded" in self.running.output())
        self.connect()
        self.certificate.write_bytes(new[0].read_bytes())
        self.running.signal(signal.SIGHUP)

        def renewed() -> bool:
            with contextlib.suppress(ssl.SSLError):
                self.connect(other)
                return True
            return False

        wait_for("the new one", renewed)
        before.sendall(v1(IDENT, time.time()))
        self.assertIn(b",V4,V1,", before.recv(1000), "who is connected stays so")

    def test_mistakes(self) -> None:
        """Files that can't be used stop the start, with their names."""
        redis = self.running_redis()
        authority = Authority(self.directory)
        certificate, key = authority.server("localhost")
        _, other = authority.server("localhost")
        for said, one, two in (
            ("key 'certificate': /nowhere.crt can't be used", Path("/nowhere.crt"), key),
            ("key 'key': /nowhere.key can't be used", certificate, Path("/nowhere.key")),
            (f"{other} can't be used: key values mismatch", certificate, other),
            ("section [tls], key 'key': is empty", certificate, Path()),
        ):
            path = self.directory / "mistake.toml"
            files = f"certificate = {json.dumps(str(one))}\nkey = {json.dumps('' if two == Path() else str(two))}\n"
            path.write_text(f'[tls]\nlisten = ["127.0.0.1:{free_port()}"]\n{files}')
            gateway = self.gateway(redis.url, name=f"gateway-{time.monotonic_ns()}", options=["--config", str(path)])
            gateway.launch()
            self.assertEqual(1, gateway.wait(30))
            self.assertIn(said, gateway.output())
