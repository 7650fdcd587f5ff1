"""The gateway as a service: how it starts, what stops it, how it ends, where it listens, its own Redis."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tests.integration.fleet import Client, Datagrams, event_id, is_answer, v1, v1_series
from tests.integration.parts import (
    SOON,
    Gateway,
    RealPartsTestCase,
    RedisServer,
    alive,
    connect,
    entries,
    free_port,
    has_ipv6,
    loopback_hosts,
    wait_for,
)

IDENT: Final = "9170123456"

COLUMNS: Final = (
    "device_id latitude longitude altitude_m speed_kmh course_deg valid satellites ignition immobilizer external_power "
    "battery_pct odometer_km levels status_word late transport peer"
).split()

ENVELOPE: Final = "v id type source time received ident protocol".split()

_URL_THAT_NOBODY_ANSWERS: Final = "redis://127.0.0.1:1/0"


class StartTests(RealPartsTestCase):
    """What can't work stops start-up, with one line that says what and where."""

    def assert_one_line(self, gateway: Gateway, *words: str) -> str:
        """Start it: it ends by itself, not with status 0, and says one line with these words."""
        gateway.launch()
        status = gateway.wait(SOON)
        lines = [line for line in gateway.output().splitlines() if line.strip()]
        self.assertNotEqual(status, 0, gateway.output())
        self.assertEqual(len(lines), 1, gateway.output())
        for word in words:
            self.assertIn(word.lower(), lines[0].lower())
        return lines[0]

    def _with_config(self, text: str) -> tuple[Gateway, str]:
        path = self.directory / "mine.toml"
        path.write_text(text)
        return self.gateway(_URL_THAT_NOBODY_ANSWERS, options=["--config", str(path)]), str(path)

    @contextlib.contextmanager
    def _taken(self, kind: socket.SocketKind) -> Iterator[int]:
        """A port that somebody else has."""
        with socket.socket(socket.AF_INET, kind) as other:
            port = free_port()
            other.bind(("127.0.0.1", port))
            if kind is socket.SOCK_STREAM:
                other.listen()
            yield port

    def test_busy_tcp_port(self) -> None:
        """Another program listens on the TCP port."""
        with self._taken(socket.SOCK_STREAM) as port:
            self.assert_one_line(self.gateway(_URL_THAT_NOBODY_ANSWERS, port=port), "127.0.0.1", str(port), "tcp")

    def test_busy_udp_port(self) -> None:
        """Another program has the UDP port of that number."""
        with self._taken(socket.SOCK_DGRAM) as port:
            self.assert_one_line(self.gateway(_URL_THAT_NOBODY_ANSWERS, port=port), "127.0.0.1", str(port), "udp")

    def test_balancers_port(self) -> None:
        """A port for balancers is nobody else's, also not one of the gateway's own, which the kernel would let pass."""
        with self._taken(socket.SOCK_STREAM) as taken:
            cases = [(f"127.0.0.1:{taken}", "in use")]
            port, other = free_port(), free_port()
            cases += [(f"{host}:{port}", "is listened on, too") for host in ("127.0.0.1", "0.0.0.0")]
            cases += [(f'127.0.0.1:{other}", "localhost:{other}', "is listened on, too")]
            for number, (listen, why) in enumerate(cases):
                path = self.directory / f"{number}.toml"
                path.write_text(f'[proxy]\nlisten = ["{listen}"]\nnetworks = ["127.0.0.1"]\n')
                options = ["--config", str(path)]
                made = self.gateway(_URL_THAT_NOBODY_ANSWERS, name=f"g{number}", port=port, options=options)
                self.assert_one_line(made, "tcp", listen.partition('"')[0], why)

    def test_unknown_option(self) -> None:
        """An option that does not exist is named."""
        self.assert_one_line(self.gateway(_URL_THAT_NOBODY_ANSWERS, options=["--colour", "blue"]), "colour")

    def test_bad_port(self) -> None:
        """A port that is no number is named."""
        self.assert_one_line(self.gateway(_URL_THAT_NOBODY_ANSWERS, options=["--port", "many"]), "port", "many")

    def test_unknown_section(self) -> None:
        """A section that does not exist is named, with the file."""
        gateway, path = self._with_config("[gatway]\nport = 8888\n")
        self.assert_one_line(gateway, path, "gatway")

    def test_unknown_key(self) -> None:
        """A key that does not exist is named, with its section and the file."""
        gateway, path = self._with_config("[limits]\nconections = 5\n")
        self.assert_one_line(gateway, path, "limits", "conections")

    def test_value_of_a_wrong_kind(self) -> None:
        """A value that can't be used is named by section and key, with the file."""
        gateway, path = self._with_config('[limits]\nconnections = "many"\n')
        self.assert_one_line(gateway, path, "limits", "connections")

    def test_not_toml(self) -> None:
        """A file that is no TOML is named."""
        gateway, path = self._with_config("[limits\n")
        self.assert_one_line(gateway, path)

    def test_no_such_file(self) -> None:
        """A configuration file that is not there is named."""
        path = str(self.directory / "missing.toml")
        self.assert_one_line(self.gateway(_URL_THAT_NOBODY_ANSWERS, options=["--config", path]), path)

    def test_data_directory_in_use(self) -> None:
        """Two gateways can't share a data directory: the second one stops, the first one goes on."""
        server = self.running_redis()
        first = self.running_gateway(server.url)
        second = self.gateway(server.url, name="second")
        second.data_dir = first.data_dir
        self.assert_one_line(second, str(first.data_dir))
        self.assertTrue(first.running)

    def test_malformed_redis_url(self) -> None:
        """A Redis URL that is none stops it."""
        for number, url in enumerate(("http://127.0.0.1:6379", "redis://127.0.0.1:port/0", "nonsense")):
            self.assert_one_line(self.gateway(url, name=f"gateway{number}"), "redis")

    def test_refusing_redis(self) -> None:
        """A Redis that refuses the password stops it; the line does not show the password."""
        server = self.redis_server(password="right")
        server.start()
        wrong = server.url.replace("right", "wr0ng")
        line = self.assert_one_line(self.gateway(wrong), "redis", f"127.0.0.1:{server.port}")
        self.assertNotIn("wr0ng", line)

    def test_what_it_says(self) -> None:
        """A start says where it listens, which Redis and devices it has, what is kept, and that anybody may send."""
        server = self.redis_server(password="hush-hush")
        server.start()
        gateway = self.running_gateway(server.url)
        listening = [
            f"[{host}]:{gateway.port}" if ":" in host else f"{host}:{gateway.port}" for host in loopback_hosts()
        ]
        for word in (*listening, f"127.0.0.1:{server.port}", "st907", "retention", "open", str(gateway.data_dir)):
            wait_for(f"{word!r} in the log", lambda word=word: word in gateway.output(), 5, gateway.tail)  # type: ignore[misc]  # a default
        self.assertNotIn("hush-hush", gateway.output())

    def test_redis_that_is_not_there_yet(self) -> None:
        """Without its Redis it starts and waits; what was sent meanwhile is answered when Redis appears."""
        server = self.redis_server()
        gateway = self.running_gateway(server.url)
        frames = v1_series(IDENT, 3)
        datagram = v1("9170123457", time.time() - 5)
        with Client(gateway.port) as client, Datagrams(gateway.port) as datagrams:
            client.send(b"".join(frames))
            datagrams.send(datagram)
            self.assertEqual(client.answers(1, seconds=1.0), [])
            server.start()
            self.assertEqual(len(client.answers(len(frames))), len(frames))
            self.assertEqual(len(datagrams.answers(1)), 1)
        expected = {event_id(IDENT, frame) for frame in frames} | {event_id("9170123457", datagram)}
        self.assertEqual({entry["id"] for entry in entries(server.client)}, expected)


class AwayTests(RealPartsTestCase):
    """Redis is away for a while."""

    def test_new_device_while_redis_is_away(self) -> None:
        """A device that turns up while Redis is away is announced once, when Redis is back, and its state is kept."""
        server = self.running_redis()
        gateway = self.running_gateway(server.url, config="[redis]\ndeadline = 1\n")
        server.kill()
        first, second = v1_series(IDENT, 2)
        with Client(gateway.port) as client:
            client.send(first)
            self.assertEqual(len(client.answers(1)), 1)
            server.start()
            wait_for("it to be announced", lambda: server.client.xlen("gateway:link") > 0, detail=gateway.tail)
            client.send(second)
            self.assertEqual(len(client.answers(1)), 1)
        positions = entries(server.client)
        self.assertEqual([event_id(IDENT, frame) for frame in (first, second)], [entry["id"] for entry in positions])
        self.assertEqual(["unknown", None], [json.loads(entry["data"]).get("state") for entry in positions])
        types = [fields["type"] for _, fields in server.client.xrange("gateway:link")]
        self.assertEqual(["device.connected"], types)
        wait_for("its state", lambda: server.client.hexists(f"gateway:state:{IDENT}", "private"), detail=gateway.tail)
        self.assertGreater(server.client.ttl(f"gateway:session:{IDENT}"), 0)


class EndTests(RealPartsTestCase):
    """On SIGTERM and SIGINT it publishes what it has received, answers it, and is gone within 10 s."""

    def _end_under_load(self, number: signal.Signals) -> None:
        server = self.running_redis()
        gateway = self.running_gateway(server.url)
        frames = v1_series(IDENT, 400)
        with Client(gateway.port) as client:
            client.send(b"".join(frames))
            answers = client.answers(1)
            gateway.signal(number)
            answers += client.until_closed()
            self.assertIn(gateway.wait(10), (0, -number))
        self.assertEqual([a for a in answers if not is_answer(a, IDENT)], [])
        published = [entry["id"] for entry in entries(server.client)]
        self.assertEqual(published, [event_id(IDENT, frame) for frame in frames[: len(answers)]])

    def test_sigterm(self) -> None:
        """SIGTERM: each report is either stored and answered, or neither."""
        self._end_under_load(signal.SIGTERM)

    def test_sigint(self) -> None:
        """SIGINT does the same."""
        self._end_under_load(signal.SIGINT)

    def test_frame_that_waits_for_more(self) -> None:
        """A binary frame that could still go on is decided, stored and answered at the end."""
        server = self.running_redis()
        gateway = self.running_gateway(server.url)
        frame = bytes.fromhex("2427051711092133391406135002584900014337822e000000ffffffffff0000")
        with Client(gateway.port) as client:
            client.send(frame)
            time.sleep(0.2)
            gateway.signal(signal.SIGTERM)
            answers = client.until_closed()
            self.assertIn(gateway.wait(10), (0, -signal.SIGTERM))
        self.assertEqual([answer[:-8] for answer in answers], [b"*HQ,2705171109,R12"])
        self.assertEqual([entry["id"] for entry in entries(server.client)], [event_id("2705171109", frame)])

    def test_end_without_redis(self) -> None:
        """While Redis is away it still ends within 10 s, and leaves what it acknowledged to the next one."""
        server = self.running_redis()
        gateway = self.running_gateway(server.url)
        first, second = v1_series(IDENT, 2)
        with Client(gateway.port) as client:
            client.send(first)
            self.assertEqual(len(client.answers(1)), 1)
            server.kill()
            client.send(second)
            time.sleep(0.5)
            gateway.signal(signal.SIGTERM)
            self.assertEqual(1, len(client.until_closed()))
            self.assertIn(gateway.wait(10), (0, -signal.SIGTERM))
        self._assert_published_by_the_next(server, gateway, [first, second])

    def _assert_published_by_the_next(self, server: RedisServer, gateway: Gateway, frames: Sequence[bytes]) -> None:
        server.start()
        gateway.start()
        ids = [event_id(IDENT, frame) for frame in frames]
        wait_for("the journal to be drained", lambda: [entry["id"] for entry in entries(server.client)] == ids)

    def test_end_while_redis_hangs(self) -> None:
        """The same while Redis is there and does not move: what it was given and what the journal has is there once."""
        server = self.running_redis()
        gateway = self.running_gateway(server.url)
        first, second = v1_series(IDENT, 2)
        with Client(gateway.port) as client:
            client.send(first)
            self.assertEqual(len(client.answers(1)), 1)
            server.signal(signal.SIGSTOP)
            client.send(second)
            time.sleep(0.5)
            gateway.signal(signal.SIGTERM)
            self.assertEqual(1, len(client.until_closed()))
            self.assertIn(gateway.wait(10), (0, -signal.SIGTERM))
        server.signal(signal.SIGCONT)
        server.kill()
        self._assert_published_by_the_next(server, gateway, [first, second])

    def test_end_while_redis_can_not_be_reached(self) -> None:
        """The same while every attempt to connect to Redis gets no answer at all."""
        with socket.create_server(("127.0.0.1", 0), backlog=0) as hole, contextlib.ExitStack() as stack:
            port = hole.getsockname()[1]
            for _ in range(2):  # with its queue full the kernel drops further attempts silently
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            gateway = self.running_gateway(f"redis://127.0.0.1:{port}/0")
            with Client(gateway.port) as client:
                client.send(v1_series(IDENT, 1)[0])
                time.sleep(0.5)
                gateway.signal(signal.SIGTERM)
                self.assertEqual(1, len(client.until_closed()))
                self.assertIn(gateway.wait(10), (0, -signal.SIGTERM))

    def test_idle_clients_do_not_hold_it(self) -> None:
        """Connected devices that say nothing do not delay the end."""
        server = self.running_redis()
        gateway = self.running_gateway(server.url)
        clients = [Client(gateway.port) for _ in range(20)]
        for client in clients:
            self.addCleanup(client.socket.close)
        gateway.terminate()
        self.assertTrue(all(client.closed() for client in clients))


class ListenTests(RealPartsTestCase):
    """One port number: IPv4 and IPv6, TCP and UDP."""

    def test_everywhere_on_the_same_port(self) -> None:
        """A report is taken and answered over TCP and UDP on IPv4 and IPv6, and the event says how it came."""
        self.need(has_ipv6(), "no IPv6 on this machine")
        server = self.running_redis()
        gateway = self.running_gateway(server.url)
        ways = [(kind, host) for kind in ("tcp", "udp") for host in loopback_hosts()]
        expected = []
        for number, (kind, host) in enumerate(ways):
            ident = f"917020000{number}"
            frame = v1(ident, time.time() - 10)
            with Client(gateway.port, host) if kind == "tcp" else Datagrams(gateway.port, host) as client:
                client.send(frame)
                answers = client.answers(1)
                self.assertTrue(answers and is_answer(answers[0], ident), (kind, host, answers))
                name, port = client.socket.getsockname()[:2]
                peer = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
            expected.append((event_id(ident, frame), kind, peer))
        found = [(entry["id"], entry["transport"], entry["peer"]) for entry in entries(server.client)]
        self.assertEqual(found, expected)

    def test_one_that_hangs_up_at_once(self) -> None:
        """A device that closes after each report, without waiting for the answer, is published too."""
        server = self.running_redis()
        gateway = self.running_gateway(server.url)
        frames = v1_series(IDENT, 20)
        for frame in frames:
            with Client(gateway.port) as client:
                client.send(frame)
        expected = {event_id(IDENT, frame) for frame in frames}
        wait_for("all reports", lambda: {entry["id"] for entry in entries(server.client)} == expected)

    def test_same_report_over_tcp_and_udp(self) -> None:
        """A report that comes over TCP and again over UDP is one event, answered both times."""
        server = self.running_redis()
        gateway = self.running_gateway(server.url)
        frame = v1(IDENT, time.time() - 10)
        with Client(gateway.port) as client, Datagrams(gateway.port) as datagrams:
            client.send(frame)
            self.assertEqual(len(client.answers(1)), 1)
            datagrams.send(frame)
            self.assertEqual(len(datagrams.answers(1)), 1)
        self.assertEqual([entry["id"] for entry in entries(server.client)], [event_id(IDENT, frame)])


class ContractTests(RealPartsTestCase):
    """What a consumer finds in Redis."""

    client: Any
    frames: list[bytes]
    began_ms: float

    def setUp(self) -> None:
        """Send two live reports and a late one."""
        super().setUp()
        server = self.running_redis()
        gateway = self.running_gateway(server.url)
        self.client = server.client
        self.began_ms = time.time() * 1000
        now = int(time.time())
        self.frames = [v1(IDENT, now - 20), v1(IDENT, now - 10), v1(IDENT, now - 3_600)]
        with Client(gateway.port) as client:
            for frame in self.frames:
                client.send(frame)
                self.assertEqual(len(client.answers(1)), 1)

    def test_contract_key(self) -> None:
        """gateway:contract tells version, streams and columns before anybody waits on a wrong name."""
        contract = json.loads(self.client.get("gateway:contract"))
        self.assertEqual(contract["version"], 1)
        self.assertIn("gateway:position", json.dumps(contract["streams"]))
        columns = [name for name in contract["columns"] if name not in (*ENVELOPE, "data")]
        self.assertEqual(columns, COLUMNS)
        self.assertIn("interval.set", contract["commands"])
        self.assertNotIn("engine.stop", contract["commands"], "nobody has turned it on")

    def test_fields_of_an_entry(self) -> None:
        """Every entry of gateway:position has the same fields in the same order, with units and times as said."""
        for entry in entries(self.client):
            self.assertEqual([*entry], [*ENVELOPE, *COLUMNS, "data"])
            self.assertEqual((entry["v"], entry["type"], entry["protocol"]), ("1", "position", "st907"))
            self.assertRegex(entry["source"], r"^gateway/.+")
            for name in ("time", "received"):
                self.assertRegex(entry[name], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            self.assertRegex(entry["latitude"], r"^42\.\d{6}$")
            self.assertEqual((entry["speed_kmh"], entry["course_deg"]), ("34.21", "122"))
            self.assertEqual((entry["status_word"], entry["ignition"]), ("FFFFFBFF", "0"))
            json.loads(entry["data"])

    def test_late_report(self) -> None:
        """A report older than the newest is marked, and the last state stays that of the newest."""
        published = entries(self.client)
        self.assertEqual([entry["late"] for entry in published], ["", "", "order"])
        last = self.client.hgetall(f"gateway:last:{IDENT}")
        self.assertEqual(last["position_id"], event_id(IDENT, self.frames[1]))
        for name in ("latitude", "longitude", "speed_kmh", "time", "protocol"):
            self.assertEqual(last[name], published[1][name], name)

    def test_last_state(self) -> None:
        """gateway:last:<ident> has the position columns by their names, and when and how the device was seen."""
        last = self.client.hgetall(f"gateway:last:{IDENT}")
        wanted = {*COLUMNS, "position_id", "time", "received", "seen", "protocol", "transport", "online"}
        self.assertEqual(wanted - last.keys() - {"late", "peer", "device_id"}, set())
        self.assertEqual(last["online"], "1")
        self.assertGreater(self.client.ttl(f"gateway:last:{IDENT}"), 0)

    def test_session_and_seen(self) -> None:
        """Which instance holds the session, and when the device was seen."""
        self.assertTrue(self.client.exists(f"gateway:session:{IDENT}"))
        self.assertIn(self.client.ttl(f"gateway:session:{IDENT}"), range(800, 901))
        seen = self.client.zscore("gateway:seen", IDENT)
        self.assertGreaterEqual(seen, self.began_ms - 1_000)
        self.assertLessEqual(seen, time.time() * 1000 + 1_000)

    def test_ledger(self) -> None:
        """Three reports were received and published."""
        counts = self.ledger_adds_up(self.client, lambda counts: counts["received"] >= len(self.frames))
        self.assertEqual(counts["published"], len(self.frames), counts)

    def test_connected(self) -> None:
        """The session's begin is on gateway:link."""
        kinds = [(entry["type"], entry["ident"]) for entry in entries(self.client, "gateway:link")]
        self.assertIn(("device.connected", IDENT), kinds)


class EmbeddedTests(RealPartsTestCase):
    """Without a Redis of the operator's the gateway runs its own."""

    def setUp(self) -> None:
        """There must be a server to run."""
        super().setUp()
        self.binary()

    def _report(self, gateway: Gateway, frames: Sequence[bytes]) -> None:
        with Client(gateway.port) as client:
            client.send(b"".join(frames))
            self.assertEqual(len(client.answers(len(frames))), len(frames))

    def _published(self, gateway: Gateway) -> list[str]:
        with contextlib.closing(connect(gateway.embedded_url())) as client:
            return [entry["id"] for entry in entries(client)]

    def test_listens_when_its_server_answers(self) -> None:
        """The port opens when there is somewhere to put what comes: not before its server answers."""
        gateway = self.gateway()
        gateway.launch()
        gateway.wait_until_it_listens()
        self.assertTrue(gateway.embedded_answers())

    def test_its_url(self) -> None:
        """redis.url, for the owner's eyes only, leads to a server with a password that loses nothing it answered."""
        gateway = self.running_gateway()
        mode = stat.S_IMODE((gateway.data_dir / "redis.url").stat().st_mode)
        self.assertEqual(oct(mode), oct(0o600))
        frames = v1_series(IDENT, 3)
        self._report(gateway, frames)
        self.assertEqual(self._published(gateway), [event_id(IDENT, frame) for frame in frames])
        with contextlib.closing(connect(gateway.embedded_url())) as client:
            found = client.config_get("append*", "maxmemory-policy")
            self.assertEqual((found["appendonly"], found["appendfsync"]), ("yes", "always"))
            self.assertEqual(found["maxmemory-policy"], "noeviction")
            port = client.connection_pool.connection_kwargs["port"]
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"PING\r\n")
            self.assertTrue(stranger.recv(100).startswith(b"-NOAUTH"))

    def test_ends_with_the_gateway(self) -> None:
        """SIGTERM ends its server too; the next start has the data and the same URL."""
        gateway = self.running_gateway()
        first, second = v1_series(IDENT, 2)
        self._report(gateway, [first])
        url, server = gateway.embedded_url(), gateway.embedded_pid()
        gateway.terminate()
        self.assertFalse(alive(server))
        gateway.start()
        self.assertEqual(gateway.embedded_url().rpartition(":")[2], url.rpartition(":")[2])
        self._report(gateway, [second])
        self.assertEqual(self._published(gateway), [event_id(IDENT, frame) for frame in (first, second)])

    def test_takes_over_what_a_killed_gateway_left(self) -> None:
        """After kill -9 the next start shuts down the orphaned server, keeps its port, and has all the data."""
        gateway = self.running_gateway()
        first, second = v1_series(IDENT, 2)
        self._report(gateway, [first])
        url, orphan = gateway.embedded_url(), gateway.embedded_pid()
        gateway.kill()
        self.assertTrue(alive(orphan), "nothing to take over: this test needs an orphan")
        gateway.start()
        self.assertFalse(alive(orphan))
        self.assertEqual(gateway.embedded_url().rpartition(":")[2], url.rpartition(":")[2])
        self._report(gateway, [first, second])
        self.assertEqual(self._published(gateway), [event_id(IDENT, frame) for frame in (first, second)])

    def test_its_server_killed(self) -> None:
        """When its server is killed with -9 it starts another one, and reports go on being answered."""
        gateway = self.running_gateway()
        first, second = v1_series(IDENT, 2)
        self._report(gateway, [first])
        os.kill(gateway.embedded_pid(), signal.SIGKILL)
        self._report(gateway, [second])
        wait_for("another server", gateway.embedded_answers)
        ids = [event_id(IDENT, frame) for frame in (first, second)]
        wait_for("the journal to be drained", lambda: self._published(gateway) == ids)

    def test_long_path(self) -> None:
        """A data directory whose path is longer than a unix socket's address may be works as well."""
        gateway = self.gateway(name="d" * 120)
        gateway.start()
        self._report(gateway, v1_series(IDENT, 1))
        orphan = gateway.embedded_pid()
        gateway.kill()
        gateway.start()
        self.assertFalse(alive(orphan))
        self.assertEqual(len(self._published(gateway)), 1)

    def test_told_to_end_while_it_starts(self) -> None:
        """SIGTERM as soon as it listens: it ends, and leaves no server behind."""
        gateway = self.gateway()
        gateway.launch()
        gateway.wait_until_it_listens()
        self.assertIn(gateway.terminate(), (0, -signal.SIGTERM))
        self.assertEqual(gateway.processes_left(), [])

    def test_data_directory_in_use(self) -> None:
        """A second gateway in the same data directory stops, and leaves the first one's server alone."""
        first = self.running_gateway()
        server = first.embedded_pid()
        second = self.gateway(name="second")
        second.data_dir = first.data_dir
        second.launch()
        self.assertNotEqual(second.wait(SOON), 0)
        self.assertIn(str(first.data_dir), second.output())
        self.assertTrue(alive(server))
        self._report(first, v1_series(IDENT, 1))

    def test_ctrl_c_in_a_terminal(self) -> None:
        """Ctrl-C in a terminal: what was received is published and answered; the gateway and its server end."""
        gateway = self.gateway()
        terminal = self.terminal(gateway)
        server = gateway.embedded_pid()
        frames = v1_series(IDENT, 400)
        with Client(gateway.port) as client:
            client.send(b"".join(frames))
            answers = client.answers(1)
            os.write(terminal, b"\x03")
            answers += client.until_closed()
            self.assertIn(gateway.wait(10), (0, -signal.SIGINT, 128 + signal.SIGINT))
        self.assertFalse(alive(server))
        self.assertEqual([a for a in answers if not is_answer(a, IDENT)], [])
        gateway.start()
        self.assertEqual(self._published(gateway), [event_id(IDENT, frame) for frame in frames[: len(answers)]])
