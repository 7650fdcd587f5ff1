"""The configuration: its file in conf/ says what the code says, and what can't be used is named."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import tomllib
import unittest
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final
from unittest import mock

from gateway import config, registry
from gateway.config import SECTIONS, Config
from gateway.errors import ConfigError

FILE: Final = Path(__file__).resolve().parents[1] / "conf" / "gateway.toml"


class ExampleTests(unittest.TestCase):
    """conf/gateway.toml."""

    def setUp(self) -> None:
        """Read it as TOML, without the gateway's own reader."""
        self.text = FILE.read_text()
        self.tree = tomllib.loads(self.text)

    def test_sections(self) -> None:
        """It has every section that the gateway knows, in that order, and no other."""
        self.assertEqual([*self.tree], [*SECTIONS, "devices"])

    def test_keys_and_defaults(self) -> None:
        """Each section has every key of its dataclass, in that order, at its default and of its type, and no other."""
        for name, section in SECTIONS.items():
            defaults = {key: _as_toml(value) for key, value in dataclasses.asdict(section()).items()}
            self.assertEqual([*self.tree[name].items()], [*defaults.items()], name)
            for key, value in defaults.items():
                self.assertIs(type(self.tree[name][key]), type(value), f"[{name}] {key}")

    def test_devices(self) -> None:
        """[devices] has disable, and a section at its defaults for each built-in device that has options."""
        expected: dict[str, Any] = {"disable": []}
        for plugin in registry.load():
            options = {f.name: _as_toml(getattr(plugin.options, f.name)) for f in dataclasses.fields(plugin.options)}
            if options and plugin.origin.startswith("built in"):
                expected[plugin.name] = options
        self.assertEqual(self.tree["devices"], expected)

    def test_read(self) -> None:
        """The gateway reads it as its defaults."""
        read = config.read(str(FILE))
        self.assertEqual(dataclasses.replace(read, where="defaults", device_options={}), Config())

    def test_explained(self) -> None:
        """Each key has a comment of its own above it, or shares that of the key above it."""
        before = ""
        for line in self.text.splitlines():
            if "=" in line and not line.startswith("#"):
                self.assertTrue(before.startswith("#") or "=" in before, f"{line!r} comes after {before!r}")
            before = line


class ReadTests(unittest.TestCase):
    """Reading a file."""

    def read(self, text: str) -> Config:
        """Read a file with this text."""
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            self.path = file.name
            return config.read(file.name)

    def refuses(self, text: str) -> str:
        """What is said of a file that can't be used, without its name, which has to be said too."""
        with self.assertRaises(ConfigError) as caught:
            self.read(text)
        said = str(caught.exception)
        self.assertTrue(said.startswith(self.path), said)
        self.assertNotIn("\n", said)
        return said.removeprefix(self.path)

    def test_tiles(self) -> None:
        """A template of tiles is a URL, as its origin goes into what browsers are told."""
        for good in ("https://tile.example.org/{z}/{x}/{y}.png", "http://127.0.0.1:81/{s}/{z}/{x}/{y}?k=1", ""):
            self.assertEqual(good, self.read(f'[web]\ntiles = "{good}"\n').web.tiles)
        for bad in (
            "tile.example.org/{z}",
            "https://a b/{z}",
            "https://a/{z}; script-src *",
            "javascript:{z}",
            "https://a/",
        ):
            self.assertIn("key 'tiles'", self.refuses(f'[web]\ntiles = "{bad}"\n'))

    def test_listen_of_sections(self) -> None:
        """What can't go together, or lacks its certificate, is named."""
        for text, said in (
            ('[tls]\nlisten = ["127.0.0.1:1"]\n', "section [tls], key 'certificate'"),
            ('[tls]\nlisten = ["127.0.0.1"]\ncertificate = "a"\nkey = "b"\n', "names no port"),
            ('[gateway]\nlisten = ["systemd", "::"]\n', "stands alone"),
            ('[gateway]\nlisten = ["systemd"]\nworkers = 2\n', "for one process"),
            ('[gateway]\nlisten = ["systemd"]\n[proxy]\nlisten = ["::1:5"]\n', "do not go together"),
            ('[web]\nlisten = "nowhere"\n', "section [web], key 'listen'"),
        ):
            with self.assertRaises(ConfigError) as caught:
                read = self.read(text)
                _ = read.addresses, read.encrypted, read.page
            self.assertIn(said, str(caught.exception))
        self.assertIsNone(self.read('[web]\nlisten = "off"\n').page)

    def test_no_file(self) -> None:
        """Everything runs without a file."""
        self.assertEqual(config.read(None), Config())

    def test_values(self) -> None:
        """What a file says replaces the default, the rest stays."""
        read = self.read('[gateway]\nlisten = ["[::1]:9000"]\n[redis]\ndeadline = 2\n')
        self.assertEqual(read.gateway, config.GatewaySection(listen=("[::1]:9000",)))
        self.assertEqual(read.redis, config.RedisSection(deadline=2.0))
        self.assertIs(type(read.redis.deadline), float)
        self.assertEqual(read.limits, config.LimitsSection())

    def test_devices(self) -> None:
        """The options of devices are handed on as they are; the registry knows what they have to be."""
        read = self.read('[devices]\ndisable = ["acme"]\n[devices.st907]\nanything = 1\n')
        self.assertEqual(read.disable, ("acme",))
        self.assertEqual(read.device_options, {"st907": {"anything": 1}})

    def test_missing(self) -> None:
        """A file that is not there is named."""
        with self.assertRaises(ConfigError) as caught:
            config.read("/nowhere/gateway.toml")
        self.assertEqual(str(caught.exception), "/nowhere/gateway.toml: No such file or directory")

    def test_not_toml(self) -> None:
        """A file that is not TOML is named, with the place."""
        self.assertIn("is not TOML: ", self.refuses("[gateway\n"))
        self.assertIn("line 1", self.refuses("[gateway\n"))

    def test_required_groups(self) -> None:
        """A required group names a stream that there is; a group's name may have a colon."""
        read = self.read('[streams]\nrequired_groups = ["position:billing", "event:a:b"]\n')
        self.assertEqual(read.streams.required_groups, ("position:billing", "event:a:b"))
        for text in ("position", "position:", ":billing", ""):
            said = self.refuses(f'[streams]\nrequired_groups = ["event:good", "{text}"]\n')
            self.assertIn(f"section [streams]: key 'required_groups': {text!r} is not STREAM:GROUP", said)
        said = self.refuses('[streams]\nrequired_groups = ["positions:billing"]\n')
        self.assertIn("key 'required_groups': 'positions:billing' names no stream (there are: position, event", said)
        self.assertIn(
            "'position:billing' is not a list", self.refuses('[streams]\nrequired_groups = "position:billing"\n')
        )

    def test_workers(self) -> None:
        """A number of workers is a number, or auto: one for each CPU that the process may use."""
        self.assertEqual(1, Config().workers)
        self.assertEqual(3, self.read("[gateway]\nworkers = 3\n").workers)
        for text in ('"auto"', "0"):
            self.assertEqual(len(os.sched_getaffinity(0)), self.read(f"[gateway]\nworkers = {text}\n").workers)
        for text in ("257", "-1", "1.5", "true", '"many"', '"2"', "[2]"):
            self.assertIn("section [gateway]: key 'workers': ", self.refuses(f"[gateway]\nworkers = {text}\n"))

    def test_part(self) -> None:
        """A worker has its part of what all share, rounded up, and the rest whole."""
        limits = "[limits]\nconnections = 100\npending = 1\nidle = 100\n"
        read = self.read(f"[gateway]\nworkers = 3\n[journal]\nbytes = 30000000\n{limits}")
        part = read.part()
        self.assertEqual((34, 1, 100.0), (part.limits.connections, part.limits.pending, part.limits.idle))
        self.assertEqual(10_000_000, part.journal.bytes)
        shared = {
            key: -(-getattr(read.limits, key) // 3) if key in config.SHARED else getattr(read.limits, key)
            for key in dataclasses.asdict(read.limits)
        }
        self.assertEqual(shared, dataclasses.asdict(part.limits))
        self.assertEqual(read.streams, part.streams)
        small = self.read("[gateway]\nworkers = 256\n[journal]\nbytes = 1048576\n[limits]\nnew_idents = 0\n").part()
        self.assertEqual((1_048_576, 0), (small.journal.bytes, small.limits.new_idents))

    def test_unknown_section(self) -> None:
        """An unknown section is named, with those that there are."""
        said = self.refuses("[gatewy]\nport = 1\n")
        self.assertIn("unknown section [gatewy]", said)
        self.assertIn(", ".join([*SECTIONS, "devices"]), said)

    def test_unknown_key(self) -> None:
        """An unknown key is named with its section, and with the keys that there are."""
        said = self.refuses("[gateway]\nprot = 1\n")
        self.assertIn("section [gateway]: unknown key 'prot'", said)
        self.assertIn("instance, port, listen, data_dir", said)
        self.assertIn("section [devices]: unknown key 'disabled'", self.refuses("[devices]\ndisabled = []\n"))

    def test_key_without_section(self) -> None:
        """A key outside of any section is named, also when a section has its name."""
        self.assertIn("port", self.refuses("port = 1\n"))
        self.assertIn("key 'gateway' stands outside of any section", self.refuses("gateway = 1\n"))

    def test_wrong_type(self) -> None:
        """A value of the wrong type is named with section and key."""
        for section, line, wanted in (
            ("gateway", 'port = "8888"', "'8888' is not of type int"),
            ("gateway", "port = true", "True is not of type int"),
            ("gateway", "port = 88.88", "88.88 is not of type int"),
            ("gateway", "instance = 1", "1 is not of type str"),
            ("gateway", 'listen = "::1"', "'::1' is not a list of strings"),
            ("gateway", "listen = [1]", "[1] is not a list of strings"),
            ("redis", "deadline = true", "True is not of type float"),
            ("devices", 'disable = "st907"', "'st907' is not a list of strings"),
        ):
            key = line.partition(" ")[0]
            self.assertIn(f"section [{section}]: key {key!r}: {wanted}", self.refuses(f"[{section}]\n{line}\n"))

    def test_out_of_range(self) -> None:
        """A negative number, or a port that is none, is named."""
        self.assertIn("key 'pending': -1 is not a number of 0 or more", self.refuses("[limits]\npending = -1\n"))
        self.assertIn("key 'port': 65536 is not a port", self.refuses("[gateway]\nport = 65536\n"))
        self.assertIn("key 'bytes': 60000 is not between 1.04858e+06", self.refuses("[journal]\nbytes = 60000\n"))
        self.assertIn("key 'days': 40.0 is not between 0 and 30", self.refuses("[journal]\ndays = 40\n"))


class ProxyTests(unittest.TestCase):
    """Listeners for balancers."""

    def made(self, *listen: str, networks: tuple[str, ...] = ("10.0.0.0/24",)) -> Config:
        """A configuration with these."""
        return Config("mine.toml").override("proxy", "here", listen=listen, networks=networks)

    def test_forms(self) -> None:
        """Addresses with their ports, and networks of both families."""
        made = self.made("10.0.0.1:8889", "[fd00::1]:8889", "::1", networks=("10.0.0.7", "fd00::/64"))
        self.assertEqual([ip_network("10.0.0.7/32"), ip_network("fd00::/64")], made.balancers)
        with self.assertRaises(ConfigError) as caught:
            _ = made.proxied
        self.assertEqual("mine.toml: section [proxy], key 'listen': '::1' names no port", str(caught.exception))
        self.assertEqual([("10.0.0.1", 8889), ("fd00::1", 8889)], self.made("10.0.0.1:8889", "[fd00::1]:8889").proxied)
        self.assertEqual([], Config().proxied)

    def test_nobody_let_in(self) -> None:
        """A listener without networks makes no sense, and is not one for everybody."""
        with self.assertRaises(ConfigError) as caught:
            _ = self.made("10.0.0.1:8889", networks=()).proxied
        self.assertIn("mine.toml: section [proxy], key 'networks': is empty", str(caught.exception))

    def test_networks(self) -> None:
        """What is no network is named."""
        for text in ("10.0.0.1/8", "10.0.0", "balancer", "", "10.0.0.0/33", "fd00::/129"):
            with self.assertRaises(ConfigError, msg=text) as caught:
                self.made(networks=("10.0.0.0/8", text))
            self.assertTrue(str(caught.exception).startswith(f"here: key 'networks': {text!r} is no address"), text)


class OverrideTests(unittest.TestCase):
    """What the command line says over the file."""

    def test_cpus(self) -> None:
        """C{auto} goes by what a container may use, where it is told."""
        there = config.cpus(Path("/nowhere"))
        self.assertGreaterEqual(there, 1)
        with tempfile.NamedTemporaryFile("w") as file:
            quota = Path(file.name)
            for text, n in (
                ("max 100000", there),
                ("50000 100000", 1),
                ("nonsense", there),
                ("99900000 100000", there),
            ):
                quota.write_text(f"{text}\n")
                self.assertEqual(n, config.cpus(quota), text)

    def test_override(self) -> None:
        """One key is replaced, the others of its section stay."""
        before = dataclasses.replace(Config(), gateway=config.GatewaySection(instance="here", port=1))
        after = before.override("gateway", "option --port", port=2)
        self.assertEqual(after.gateway, config.GatewaySection(instance="here", port=2))
        self.assertEqual(before.gateway.port, 1)

    def test_refused(self) -> None:
        """What can't be used is named by its option."""
        with self.assertRaises(ConfigError) as caught:
            Config().override("gateway", "option --port", port=65_536)
        self.assertEqual(str(caught.exception), "option --port: key 'port': 65536 is not a port")


class DerivedTests(unittest.TestCase):
    """What follows from an empty value."""

    def data_dir(self, **environment: str) -> Path:
        """Where data is kept with nothing configured and this environment."""
        with mock.patch.dict(os.environ, {"HOME": "/home/me", **environment}, clear=True):
            return Config().data_dir

    def test_data_dir(self) -> None:
        """The data directory: what systemd says, else XDG's state directory, else where that is by default."""
        self.assertEqual(
            self.data_dir(STATE_DIRECTORY="/var/lib/gateway", XDG_STATE_HOME="/x"), Path("/var/lib/gateway")
        )
        self.assertEqual(self.data_dir(STATE_DIRECTORY="/a:/b"), Path("/a"))
        self.assertEqual(self.data_dir(XDG_STATE_HOME="/x"), Path("/x/gateway"))
        self.assertEqual(self.data_dir(), Path("/home/me/.local/state/gateway"))

    def test_configured_data_dir(self) -> None:
        """What is configured goes before all of them, and may begin with ~."""
        configured = dataclasses.replace(Config(), gateway=config.GatewaySection(data_dir="~/here"))
        with mock.patch.dict(os.environ, {"HOME": "/home/me", "STATE_DIRECTORY": "/var/lib/gateway"}):
            self.assertEqual(configured.data_dir, Path("/home/me/here"))

    def test_instance(self) -> None:
        """A gateway without a name is called by its host and port."""
        with mock.patch("socket.gethostname", return_value="host"):
            self.assertEqual(Config().instance, "host-8888")
        self.assertEqual(dataclasses.replace(Config(), gateway=config.GatewaySection(instance="a")).instance, "a")


class ListenTests(unittest.TestCase):
    """Addresses to listen on."""

    def test_forms(self) -> None:
        """A host of any kind, with or without a port."""
        for text, expected in (
            ("127.0.0.1", ("127.0.0.1", 8888)),
            ("127.0.0.1:9", ("127.0.0.1", 9)),
            ("::", ("::", 8888)),
            ("::1", ("::1", 8888)),
            ("[::1]", ("::1", 8888)),
            ("[::1]:9", ("::1", 9)),
            ("localhost:0", ("localhost", 0)),
        ):
            self.assertEqual(config.parse_listen(text, 8888, "here"), expected, text)

    def test_refused(self) -> None:
        """Anything else is named."""
        for text in ("", ":9", "[]", "[::1", "[::1]9", "host:x", "host:65536", "host:-1", "host:\u0663"):
            with self.assertRaises(ConfigError, msg=text) as caught:
                config.parse_listen(text, 8888, "here")
            self.assertTrue(str(caught.exception).startswith("here: "), text)


def _as_toml(value: Any) -> Any:
    """A default as TOML writes it: a list for a tuple."""
    return [*value] if isinstance(value, tuple) else value
