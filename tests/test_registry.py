"""The registry: who is found, who is refused and why, and a third party's device as a real wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from textwrap import dedent
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gateway import registry
from gateway.commands import Command
from gateway.errors import ConfigError, PluginError, UnsupportedCommand
from gateway.interfaces import API, YES, Downlink, ICommandDevice, IDevice, Kept, Support
from tests.fakes import ToyDecoder, ToyDevice, starting

ROOT = Path(__file__).resolve().parent.parent


class Distribution(metadata.Distribution):
    """An installed distribution that is nowhere but here."""

    def __init__(self, name: str, version: str = "1.2") -> None:
        self._texts = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}

    def read_text(self, filename: str) -> str | None:
        return self._texts.get(filename)

    def locate_file(self, path: Any) -> Any:
        return Path(str(path))


class Point:
    """An entry point that gives an object, or raises."""

    def __init__(self, name: str, give: Callable[[], Any], distribution: str = "acme-tracker") -> None:
        self.name = name
        self.value = f"{name}_module:device"
        self.dist = Distribution(distribution)
        self._give = give

    def load(self) -> Any:
        """See C{importlib.metadata.EntryPoint}."""
        return self._give()


def acme(**changes: Any) -> ToyDevice:
    """A sound device, with some of its attributes changed."""
    made = ToyDevice("acme", starting(b"acme"))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


class RegistryCase(SynchronousTestCase):
    """What is loaded when these entry points are installed."""

    def installed(self, *points: Point) -> None:
        """Install entry points."""

        def entry_points(*, group: str) -> list[Point]:
            self.assertEqual("gateway.devices", group)
            return list(points)

        self.patch(metadata, "entry_points", entry_points)

    def acme(self, **changes: Any) -> None:
        """Install a device."""
        self.installed(Point("acme", lambda: acme(**changes)))

    def assertBroken(self, word: str, plugin: str = "acme") -> str:
        """Loading stops with one line that names the plugin, where it comes from, and why."""
        error = self.assertRaises(PluginError, registry.load)
        line = str(error)
        self.assertEqual(plugin, error.plugin)
        for part in (plugin, "acme-tracker 1.2", "acme_module:device", word):
            self.assertIn(part, line)
        self.assertNotIn("\n", line)
        return line


class LoadTests(RegistryCase):
    """Devices that are found."""

    def test_built_in(self) -> None:
        """The st907 is there without anything being installed."""
        self.installed()
        names = [plugin.name for plugin in registry.load()]
        self.assertIn("st907", names)

    def test_third_party(self) -> None:
        """A device of an entry point stands beside the built-in ones, by priority, with where it comes from."""
        self.acme(priority=1)
        first, *rest = registry.load()
        self.assertEqual(("acme", "1.2"), (first.name, first.version))
        self.assertIn("acme-tracker 1.2", first.origin)
        self.assertIn("st907", [plugin.name for plugin in rest])

    def test_disabled(self) -> None:
        """A disabled device is not imported, so that a broken one can be switched off."""

        def explode() -> Any:
            raise AssertionError("it was imported")

        self.installed(Point("acme", explode))
        self.assertNotIn("acme", [plugin.name for plugin in registry.load(disable=["acme"])])
        self.assertEqual([], [plugin.name for plugin in registry.load(disable=["acme", "osmand", "st907"])])

    def test_disabled_with_options(self) -> None:
        """The options of a disabled device may stay in the file."""
        self.acme()
        registry.load(["acme"], {"acme": {"loud": True}})

    def test_options(self) -> None:
        """A section's keys become the device's options; what is not named keeps its default."""
        self.acme()
        (plugin,) = (p for p in registry.load(options={"acme": {"loud": True}}) if p.name == "acme")
        self.assertEqual(("ok", True), (plugin.options.greeting, plugin.options.loud))


class BrokenTests(RegistryCase):
    """Devices that stop start-up."""

    def test_import_error(self) -> None:
        """One that can't be imported is named, with the error."""

        def explode() -> Any:
            raise ImportError("no module named 'acme_parts'")

        self.installed(Point("acme", explode))
        self.assertBroken("acme_parts")

    def test_anything_else(self) -> None:
        """Whatever its import raises, the line names it; an error of several lines is still one."""

        def explode() -> Any:
            raise RuntimeError("first line\nsecond line")

        self.installed(Point("acme", explode))
        self.assertBroken("first line")

    def test_missing_method(self) -> None:
        """One without a method of the interface is named, with the method."""

        @implementer(IDevice)
        class NoDetect:  # type: ignore[misc]  # that is the point
            api, name, priority, options = API, "acme", 1, ToyDevice.options

            def decoder(self, options: Any, memory: Any) -> Any:
                return ToyDecoder(b"")

        self.installed(Point("acme", NoDetect))
        self.assertBroken("detect")

    def test_missing_attribute(self) -> None:
        """So is one without an attribute of it."""

        @implementer(IDevice)
        class NoPriority(ToyDevice):
            def __init__(self) -> None:
                self.name = "acme"

        self.installed(Point("acme", NoPriority))
        self.assertBroken("priority")

    def test_wrong_signature(self) -> None:
        """So is one whose method takes something else."""

        class Short(ToyDevice):
            def detect(self, prefix: bytes) -> Any:  # type: ignore[override]  # that is the point
                return YES(90, "always")

        self.installed(Point("acme", lambda: Short("acme", starting(b"a"))))
        self.assertBroken("detect")

    def test_not_declared(self) -> None:
        """So is one that does not say that it implements the interface."""
        self.installed(Point("acme", object))
        self.assertBroken("IDevice")

    def test_wrong_api(self) -> None:
        """One that was written for another major version says for which, and what this one is."""
        self.acme(api=2)
        line = self.assertBroken("2")
        self.assertIn(str(API), line)

    def test_wrong_name(self) -> None:
        """One whose name is not that of its entry point, or not a lower-case word, is refused."""
        self.acme(name="other")
        self.assertBroken("other")
        for name in ("Acme", "a b", "", "9acme", "a" * 40, "a:b"):
            self.installed(Point(name, lambda name=name: acme(name=name)))  # type: ignore[misc]  # the loop's own
            self.assertRaises(PluginError, registry.load)

    def test_taken_name(self) -> None:
        """Two of the same name are refused, both named; also when one is built in."""
        self.installed(Point("acme", acme), Point("acme", acme, "acme-fork"))
        line = self.assertBroken("acme-fork")
        self.assertIn("taken", line)
        self.installed(Point("st907", lambda: acme(name="st907")))
        self.assertIn("st907", str(self.assertRaises(PluginError, registry.load)))

    def test_options_that_are_none(self) -> None:
        """Options that are no dataclass, or that have no default, are refused."""

        @dataclass(frozen=True)
        class Needy:
            key: str

        self.acme(options=dict)
        self.assertBroken("dataclass")
        self.acme(options=Needy)
        self.assertBroken("default")

    def test_options_that_can_change(self) -> None:
        """Options that are not frozen are refused: one object serves every connection."""

        @dataclass
        class Loose:
            key: str = ""

        self.acme(options=Loose)
        self.assertBroken("frozen")

    def test_priority_that_is_no_number(self) -> None:
        """A priority that can't be compared is refused and named."""
        self.acme(priority="high")
        self.assertBroken("priority")

    def test_answers_to_nothing(self) -> None:
        """One whose detector takes nothing at all for its own, or raises, is refused."""

        class Eager(ToyDevice):
            def detect(self, prefix: bytes, transport: Any) -> Any:
                if transport == "tcp" and prefix == b"":
                    return self.answer()
                return YES(90, "always")

            answer: Callable[[], Any]

        def explode() -> Any:
            raise IndexError("index out of range")

        for answer, word in ((lambda: YES(90, "always"), "MORE(0)"), (explode, "index out of range")):
            made = Eager("acme", starting(b"a"))
            made.answer = answer
            self.installed(Point("acme", lambda made=made: made))  # type: ignore[misc]  # the loop's own
            self.assertBroken(word)

    def test_decoder_that_is_none(self) -> None:
        """One whose decoder is none is refused."""

        class Hollow(ToyDevice):
            def decoder(self, options: Any, memory: Any) -> Any:
                return object()

        self.installed(Point("acme", lambda: Hollow("acme", starting(b"a"))))
        self.assertBroken("IDecoder")


class CommandsTests(RegistryCase):
    """What devices say of the commands that they know."""

    def told(self, commands: Any) -> None:
        """Install a device that can be told these."""

        @implementer(ICommandDevice)
        class Told(ToyDevice):
            def __init__(self) -> None:
                super().__init__("acme", starting(b"acme"))
                self.commands = commands

            def encode(self, ident: str, command: Command, options: Any, kept: Kept, now: float, form: int) -> Downlink:
                return Downlink(command.name.encode(), "TOLD")

        self.installed(Point("acme", Told))

    def test_known(self) -> None:
        """Those of the vocabulary, over data or SMS; one that it does not know it is not asked for."""
        self.told({"arm": Support(("data",), "likely"), "reboot": Support(("sms", "data"), "certain", "a note")})
        (plugin,) = (p for p in registry.load() if p.name == "acme")
        self.assertEqual(["arm", "reboot"], [*plugin.commands])
        self.assertEqual(b"arm", plugin.encode("9170225361", Command("arm"), Kept(), 0.0, 0).data)
        error = self.assertRaises(UnsupportedCommand, plugin.encode, "1", Command("disarm"), Kept(), 0.0, 0)
        self.assertIn("acme does not know disarm", str(error))

    def test_none(self) -> None:
        """A device that can't be told anything knows no command."""
        self.acme()
        (plugin,) = (p for p in registry.load() if p.name == "acme")
        self.assertEqual({}, plugin.commands)

    def test_broken(self) -> None:
        """A command that there is not, and what is no Support, stop start-up and are named."""
        for commands, words in (
            (["arm"], ("mapping",)),
            ({"engine.halt": Support(("data",), "likely")}, ("'engine.halt'", "engine.stop")),
            ({"arm": ("data",)}, ("'arm'", "Support")),
            ({"arm": Support((), "likely")}, ("'arm'", "()", "data, sms")),
            ({"arm": Support(("data", "voice"), "likely")}, ("'arm'", "'voice'")),
            ({"arm": Support("data", "likely")}, ("'arm'", "'data'")),  # type: ignore[arg-type]  # that is the point
            ({"arm": Support(("data",), "sure")}, ("'arm'", "'sure'", "certain")),
        ):
            self.told(commands)
            for word in words:
                self.assertBroken(word)

    def test_missing(self) -> None:
        """One that says that it can be told something, and can't, is named with what it lacks."""

        @implementer(ICommandDevice)
        class Deaf(ToyDevice):  # type: ignore[misc]  # that is the point
            commands: Mapping[str, Support] = {}

        self.installed(Point("acme", lambda: Deaf("acme", starting(b"acme"))))
        self.assertIn("encode", self.assertBroken("ICommandDevice"))


class ConfigurationTests(RegistryCase):
    """What the configuration says of devices."""

    def assertConfig(self, *words: str, **load: Any) -> None:
        """Loading stops with a line that holds these."""
        line = str(self.assertRaises(ConfigError, registry.load, where="gateway.toml", **load))
        for word in ("gateway.toml", *words):
            self.assertIn(word, line)
        self.assertNotIn("\n", line)

    def test_unknown_section(self) -> None:
        """A section of a device that is not installed is named, with those that are."""
        self.acme()
        self.assertConfig("[devices.acne]", "acme", options={"acne": {}})

    def test_unknown_key(self) -> None:
        """A key that the device does not have is named, with those that it has."""
        self.acme()
        self.assertConfig("[devices.acme]", "'volume'", "greeting", options={"acme": {"volume": 11}})

    def test_wrong_type(self) -> None:
        """A value of another type is named with its key; a number is no flag and a flag no number."""
        self.acme()
        for section in ({"greeting": 1}, {"loud": "yes"}, {"loud": 1}, {"greeting": True}):
            self.assertConfig("[devices.acme]", *section, options={"acme": section})

    def test_unknown_disable(self) -> None:
        """A disable of nobody is named."""
        self.acme()
        self.assertConfig("disable", "'acne'", disable=["acne"])


ACME_SETUP = """
    [build-system]
    requires = ["setuptools"]
    build-backend = "setuptools.build_meta"

    [project]
    name = "acme-tracker"
    version = "1.0"

    [project.entry-points."gateway.devices"]
    acme = "acme_tracker:device"

    [tool.setuptools]
    py-modules = ["acme_tracker"]
"""

ACME = '''
    """The Acme tracker, which says: !acme;ident;epoch seconds;latitude;longitude, and a line end."""

    from dataclasses import dataclass

    from zope.interface import implementer

    from gateway.errors import DecodeError
    from gateway.events import Event
    from gateway.interfaces import API, MORE, NO, YES, IDecoder, IDevice, Message

    HEAD = b"!acme;"


    @dataclass(frozen=True)
    class Options:
        answer: bool = True


    @implementer(IDevice)
    class Acme:
        api, name, priority, options = API, "acme", 50, Options

        def detect(self, prefix, transport):
            if prefix.startswith(HEAD):
                return YES(80, "begins with !acme;")
            return MORE(0, "too short") if HEAD.startswith(prefix) else NO("does not begin with !acme;")

        def decoder(self, options, memory):
            return Decoder(options)


    @implementer(IDecoder)
    class Decoder:
        deadline = None

        def __init__(self, options):
            self._options = options
            self.rest = b""

        def receive(self, data, now):
            *lines, self.rest = (self.rest + data).split(b"\\n")
            return [self._message(line.rstrip(b"\\r")) for line in lines]

        def finish(self, now):
            return []

        def _message(self, raw):
            try:
                _, ident, time, latitude, longitude = raw.decode().split(";")
                position = {"latitude": float(latitude), "longitude": float(longitude), "valid": True}
                event = Event("position", float(time), position)
            except ValueError as error:
                return Message(raw, error=DecodeError(str(error), raw))
            return Message(raw, ident, (event,), reply=(lambda now: b"OK") if self._options.answer else None)


    device = Acme()
'''

LOOK = """
    import json
    from gateway import registry
    from gateway.connection import Connection, Limits
    from gateway.detection import Candidates
    from gateway.interfaces import Kept

    plugins = registry.load(options={"acme": {"answer": True}})
    connection = Connection(Candidates(plugins, "tcp"), Limits(), lambda ident: Kept(), 0.0)
    (message,) = connection.receive(b"!acme;351234567890123;1767225600;52.52;13.405\\r\\n", 1767225601.0)
    (event,) = message.events
    print(json.dumps({
        "plugins": [[p.name, p.version, p.origin] for p in plugins],
        "protocol": connection.plugin.name, "ident": message.ident, "type": event.type, "time": event.time,
        "attributes": event.attributes, "reply": message.reply(0.0).decode(),
    }))
"""


class WheelTests(SynchronousTestCase):
    """A third party's device, built, installed and used as third parties do."""

    def run_python(self, *args: str, path: Path | None = None, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run this Python in an empty directory, with C{path} and the gateway on its path."""
        paths = [str(ROOT)] if path is None else [str(path), str(ROOT)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        cwd = Path(self.mktemp()).resolve()
        cwd.mkdir(parents=True)
        ran = subprocess.run([sys.executable, *args], capture_output=True, text=True, env=environment, cwd=cwd)
        if ok:
            self.assertEqual(0, ran.returncode, ran.stdout + ran.stderr)
        return ran

    def test_wheel(self) -> None:
        """A device in a package of its own is built as a wheel, installed, found, shown, and decodes."""
        source, wheels, target = (Path(self.mktemp()).resolve() for _ in range(3))
        source.mkdir(parents=True)
        (source / "pyproject.toml").write_text(dedent(ACME_SETUP))
        (source / "acme_tracker.py").write_text(dedent(ACME))
        self.run_python("-m", "build", "--wheel", "--outdir", str(wheels), str(source))
        (wheel,) = wheels.glob("*.whl")
        self.run_python(
            "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)
        )
        seen = json.loads(self.run_python("-c", dedent(LOOK), path=target).stdout)
        plugins = {name: (version, origin) for name, version, origin in seen.pop("plugins")}
        self.assertEqual({"acme", "osmand", "st907"}, set(plugins))
        self.assertEqual(("1.0", "acme-tracker 1.0, entry point acme_tracker:device"), plugins["acme"])
        self.assertEqual(
            {
                "protocol": "acme", "ident": "351234567890123", "type": "position", "time": 1767225600.0,
                "attributes": {"latitude": 52.52, "longitude": 13.405, "valid": True}, "reply": "OK",
            },
            seen,
        )  # fmt: skip
        shown = self.run_python("-c", "from gateway.cli import main; main(['plugins'])", path=target).stdout
        self.assertIn("acme", shown)
        self.assertIn("acme-tracker 1.0", shown)
        self.assertIn("st907", shown)

    def test_broken(self) -> None:
        """An installed device that can't be imported stops twistd with one line that names it."""
        target = Path(self.mktemp()).resolve()
        info = target / "acme_tracker-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-tracker\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[gateway.devices]\nacme = acme_tracker:device\n")
        (target / "acme_tracker.py").write_text("import acme_parts\n")
        data = Path(self.mktemp()).resolve()
        arguments = ("gateway", "--data-dir", str(data), "--listen", "127.0.0.1:0", "--redis", "redis://127.0.0.1:1")
        ran = self.run_python(
            "-c", "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()",
            "--nodaemon", "--pidfile=", *arguments, path=target, ok=False,
        )  # fmt: skip
        self.assertNotEqual(0, ran.returncode)
        lines = [line for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
        self.assertEqual(1, len(lines), lines)
        for word in ("acme", "acme-tracker 1.0", "acme_parts"):
            self.assertIn(word, lines[0])
