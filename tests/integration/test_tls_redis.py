"""C{rediss://} against a real server with TLS: the right name, a wrong one, an unknown authority, an expired one."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from click.testing import CliRunner

from gateway.cli import main
from gateway.errors import ConfigError
from gateway.sinks.blocking import RedisURL, check
from tests.integration.certificates import Authority
from tests.integration.fleet import Client, v1
from tests.integration.parts import Child, RealPartsTestCase, free_port, wait_for


class TLSRedisTests(RealPartsTestCase):
    """A Redis that speaks TLS and nothing else."""

    def setUp(self) -> None:
        """Somebody vouches for servers."""
        super().setUp()
        self.authority = Authority(self.directory)

    def serve(self, files: tuple[Path, Path], port: int = 0) -> int:
        """Start a Redis with this certificate; its port."""
        port = port or free_port()
        folder = self.directory / f"redis-{port}"
        folder.mkdir()
        settings = {
            **{"port": "0", "tls-port": str(port), "bind": "127.0.0.1", "dir": str(folder), "save": ""},
            **{"tls-cert-file": str(files[0]), "tls-key-file": str(files[1]), "tls-auth-clients": "no"},
            **{"appendonly": "yes", "tls-ca-cert-file": str(self.authority.file)},
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        child = Child([self.binary(), *words], folder / "output")
        self.addCleanup(child.kill)
        wait_for("Redis to listen", lambda: "Ready to accept connections" in child.tail(), detail=child.tail)
        return port

    def url(self, port: int, host: str = "localhost", ca: Path | None = None) -> str:
        """What the gateway is given."""
        return f"rediss://{host}:{port}/0?ssl_ca_certs={ca or self.authority.file}"

    def refused(self, url: str) -> str:
        """Why a start-up check stops; and a gateway with it, in one line."""
        with self.assertRaises(ConfigError) as caught:
            check(RedisURL.parse(url, "option --redis"), "option --redis")
        gateway = self.gateway(url, name=f"gateway-{time.monotonic_ns()}")
        gateway.launch()
        self.assertEqual(1, gateway.wait(30))
        (line,) = [line for line in gateway.output().splitlines() if line.startswith("gateway:")]
        self.assertIn(str(caught.exception), line)
        return line

    def test_right_name(self) -> None:
        """With a certificate for its name, or its address, the gateway stores over TLS, and the command line asks."""
        port = self.serve(self.authority.server("localhost", "127.0.0.1"))
        for host in ("localhost", "127.0.0.1"):
            url = self.url(port, host)
            self.assertIsNone(check(RedisURL.parse(url, "test"), "test"))
            gateway = self.gateway(url, name=f"gateway-{host}")
            gateway.start()
            with Client(gateway.port) as client:
                client.send(v1("9170123456", time.time()))
                self.assertEqual(1, len(client.answers(1)), gateway.tail())
            result = CliRunner().invoke(main, ["devices", "--redis", url])
            self.assertIn("9170123456", result.output)
            self.assertNotIn(str(self.authority.file), gateway.output())
            gateway.terminate()

    def test_wrong_name(self) -> None:
        """A certificate for another name stops the start."""
        port = self.serve(self.authority.server("redis.example.org"))
        self.assertIn("its certificate does not hold: Hostname mismatch", self.refused(self.url(port)))

    def test_wrong_address(self) -> None:
        """So it does for another address."""
        port = self.serve(self.authority.server("192.0.2.1", "localhost"))
        self.assertIn("its certificate does not hold: IP address mismatch", self.refused(self.url(port, "127.0.0.1")))

    def test_unknown_authority(self) -> None:
        """One that nobody known vouches for stops it, too: another authority's, and none of the system's."""
        port = self.serve(self.authority.server("localhost"))
        other = Authority(self.directory, "Another one")
        self.assertIn("its certificate does not hold: ", self.refused(self.url(port, ca=other.file)))
        self.assertIn("its certificate does not hold: ", self.refused(f"rediss://localhost:{port}/0"))

    def test_expired(self) -> None:
        """So does one whose time is over."""
        port = self.serve(self.authority.server("localhost", days=-1))
        self.assertIn("its certificate does not hold: certificate has expired", self.refused(self.url(port)))

    def comes_later(self, said: str, host: str, files: tuple[Path, Path], ca: Path | None = None) -> None:
        """Start a gateway, then its Redis with this certificate: that is not used, and the log says why."""
        port = free_port()
        gateway = self.gateway(self.url(port, host, ca), name=f"gateway-{port}")
        gateway.start()
        self.serve(files, port)
        line = f"is not ready: its certificate does not hold: {said}"
        wait_for(line, lambda: line in gateway.output(), detail=gateway.tail)
        self.assertNotIn("Traceback", gateway.output())
        gateway.terminate()

    def test_later(self) -> None:
        """A Redis that comes when the gateway runs already is held against the same, in the same words."""
        other = Authority(self.directory, "Another one")
        self.comes_later("Hostname mismatch", "localhost", self.authority.server("redis.example.org"))
        self.comes_later("IP address mismatch", "127.0.0.1", self.authority.server("192.0.2.1"))
        # the server may send its authority's own certificate with it
        self.comes_later("self-signed certificate in", "localhost", self.authority.server("localhost"), other.file)
        self.comes_later("certificate has expired", "localhost", self.authority.server("localhost", days=-1))

    def test_silent(self) -> None:
        """One that says nothing to a handshake is left after the deadline."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            gateway = self.running_gateway(self.url(port), config="[redis]\ndeadline = 1.0\n")
            wait_for("the deadline", lambda: "no TLS handshake within 1 s" in gateway.output())
            gateway.terminate()

    def test_plain(self) -> None:
        """TLS to a Redis without it, and no TLS to one with it, come to nothing."""
        redis = self.running_redis()
        why = check(RedisURL.parse(self.url(redis.port, "127.0.0.1"), "test"), "test")
        self.assertIsNotNone(why)
        port = self.serve(self.authority.server("localhost"))
        self.assertIsNotNone(check(RedisURL.parse(f"redis://localhost:{port}/0", "test"), "test"))

    def test_mistakes(self) -> None:
        """What is wrong with the URL is said, and no password with it."""
        for url, said in (
            ("rediss://:secret@h/0?ssl_ca_certs=/nowhere.pem", "/nowhere.pem holds no certificates"),
            (f"redis://:secret@h/0?ssl_ca_certs={self.authority.file}", "is for TLS"),
            ("rediss://:secret@h/0?else=1", "something else"),
            ("rediss+sentinel://:secret@h/m?ssl_ca_certs=/nowhere.pem", "/nowhere.pem holds no certificates"),
        ):
            gateway = self.gateway(url, name=f"gateway-{time.monotonic_ns()}")
            gateway.launch()
            self.assertEqual(1, gateway.wait(30))
            self.assertIn(said, gateway.output())
            self.assertNotIn("secret", gateway.output())
