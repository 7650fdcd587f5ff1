"""
The device plugins: found, verified and ordered; a broken one stops start-up and is named.

Built-in devices are the modules of C{gateway.devices}; others register the
entry point group C{gateway.devices}.  (Not C{twisted.plugin.getPlugins}: it
skips a plugin that fails to import and starts anyway, which for a tracker is
silent loss.)
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module, metadata
from pkgutil import iter_modules
from typing import Any, Final, NamedTuple

from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from gateway.commands import COMMANDS, Command
from gateway.errors import ConfigError, PluginError, UnsupportedCommand
from gateway.interfaces import (
    API,
    MORE,
    Answer,
    Downlink,
    Fact,
    ICommandDevice,
    IDatagramDevice,
    IDecoder,
    IDevice,
    IExplainingDevice,
    ILearningDevice,
    ISMSDevice,
    Kept,
    Memory,
    Message,
    SMSReading,
    SMSText,
    Support,
    Transport,
)

GROUP: Final = "gateway.devices"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
#: What a L{Support} may say.
_CHANNELS: Final = ("data", "sms")
_CERTAINTIES: Final = ("certain", "likely", "disputed")


class Plugin(NamedTuple):
    """
    A verified device with its options and where it comes from.

    @ivar origin: C{built in}, or the distribution and entry point.
    """

    name: str
    priority: int
    device: Any
    options: Any
    origin: str
    version: str

    def __hash__(self) -> int:
        return hash(self.name)  # options need not be hashable

    def detect(self, prefix: bytes, transport: Transport) -> Answer:
        """See L{IDevice.detect}."""
        answer: Answer = self.device.detect(prefix, transport)
        return answer

    def decoder(self, memory: Memory) -> IDecoder:
        """See L{IDevice.decoder}."""
        decoder: IDecoder = self.device.decoder(self.options, memory)
        return decoder

    def datagrams(self, memory: Memory) -> Callable[[bytes], Message | None] | None:
        """See L{IDatagramDevice.datagrams}; None of a device that does not have it."""
        if not IDatagramDevice.providedBy(self.device):
            return None
        read: Callable[[bytes], Message | None] = self.device.datagrams(self.options, memory)
        return read

    @property
    def learns(self) -> bool:
        """Whether its units differ: see L{ILearningDevice}."""
        return bool(ILearningDevice.providedBy(self.device))

    def learn(self, message: Message, kept: Kept, now: float) -> Message:
        """See L{ILearningDevice.learn}."""
        learned: Message = self.device.learn(message, self.options, kept, now)
        return learned

    @property
    def commands(self) -> Mapping[str, Support]:
        """The commands that it knows: see L{ICommandDevice}; none of a device that can't be told anything."""
        return self.device.commands if ICommandDevice.providedBy(self.device) else {}

    def encode(self, ident: str, command: Command, kept: Kept, now: float, form: int) -> Downlink:
        """See L{ICommandDevice.encode}."""
        if command.name not in self.commands:
            raise UnsupportedCommand(f"{self.name} does not know {command.name}")
        downlink: Downlink = self.device.encode(ident, command, self.options, kept, now, form)
        return downlink

    @property
    def has_sms(self) -> bool:
        """Whether its units take texts by SMS, and send some: see L{ISMSDevice}."""
        return bool(ISMSDevice.providedBy(self.device))

    def set_up(
        self,
        host: str,
        port: int,
        apn: str,
        registry: Mapping[str, str],
        interval_s: int | None = None,
        control: str = "",
    ) -> Sequence[SMSText]:
        """See L{ISMSDevice.set_up}; nothing of a device that has no SMS."""
        if not self.has_sms:
            return ()
        texts: Sequence[SMSText] = self.device.set_up(host, port, apn, self.options, registry, interval_s, control)
        return texts

    def sms(self, command: Command, registry: Mapping[str, str]) -> SMSText:
        """See L{ISMSDevice.sms}."""
        text: SMSText = self.device.sms(command, self.options, registry)
        return text

    def sms_password(self, registry: Mapping[str, str]) -> str:
        """See L{ISMSDevice.sms_password}."""
        password: str = self.device.sms_password(self.options, registry)
        return password

    def read_sms(self, text: str, registry: Mapping[str, str], now: float) -> SMSReading:
        """See L{ISMSDevice.read_sms}."""
        reading: SMSReading = self.device.read_sms(text, self.options, registry, now)
        return reading

    def explain(self, frame: bytes, unit: Mapping[str, str]) -> Sequence[Fact]:
        """See L{IExplainingDevice.explain}; nothing of a device that can't."""
        if not IExplainingDevice.providedBy(self.device):
            return ()
        facts: Sequence[Fact] = self.device.explain(frame, self.options, unit)
        return facts


class _Found(NamedTuple):
    name: str
    origin: str
    version: str
    load: Any


def _built_in() -> Iterator[_Found]:
    package = import_module("gateway.devices")
    try:
        version = metadata.version("gps-gateway")
    except metadata.PackageNotFoundError:  # a checkout on the path
        version = "unpackaged"
    for module in iter_modules(package.__path__):
        path = f"{package.__name__}.{module.name}"
        yield _Found(module.name, f"built in, {path}", version, lambda path=path: import_module(path).device)


def _third_party() -> Iterator[_Found]:
    for point in metadata.entry_points(group=GROUP):
        name, version = (point.dist.name, point.dist.version) if point.dist else ("unknown distribution", "?")
        yield _Found(point.name, f"{name} {version}, entry point {point.value}", version, point.load)


def load(
    disable: Iterable[str] = (), options: Mapping[str, Mapping[str, Any]] | None = None, where: str = "configuration"
) -> tuple[Plugin, ...]:
    """
    Load every device that is not disabled, in the order of their priorities.

    @param options: section name -> keys, the C{[devices.NAME]} of the configuration.
    @param where: the configuration file, for errors.
    @raise PluginError: for a device that can't be imported, that does not provide the interface, that was written
        for another major version, or that takes a name twice.
    @raise ConfigError: for a section without a device, a key that its device does not have, or a C{disable} of nobody.
    """
    disabled = set(disable)
    sections = dict(options or {})
    found = [*_built_in(), *_third_party()]
    names = [f.name for f in found]
    for unknown in sorted(disabled - set(names)):
        raise ConfigError(where, f"section [devices], key disable: no device {unknown!r} is installed")
    plugins: list[Plugin] = []
    for candidate in found:
        if candidate.name in disabled:
            continue
        if names.count(candidate.name) > 1:
            others = [f.origin for f in found if f.name == candidate.name and f is not candidate]
            raise PluginError(candidate.name, candidate.origin, f"the name is taken by another: {', '.join(others)}")
        plugins.append(_verified(candidate, sections.pop(candidate.name, {}), where))
    for unknown in sections:
        if unknown not in disabled:
            known = ", ".join(sorted(names))
            raise ConfigError(where, f"section [devices.{unknown}]: no such device is installed (there are: {known})")
    return tuple(sorted(plugins, key=lambda plugin: (plugin.priority, plugin.name)))


def _verified(found: _Found, section: Mapping[str, Any], where: str) -> Plugin:
    def broken(what: str) -> PluginError:
        return PluginError(found.name, found.origin, " ".join(what.split()))

    try:
        device = found.load()
    except Exception as error:  # foreign code: whatever it raises stops start-up and names it
        raise broken(f"can't be imported: {type(error).__name__}: {error}") from error
    for interface in (IDevice, IDatagramDevice, ILearningDevice, IExplainingDevice, ICommandDevice, ISMSDevice):
        if interface is IDevice or interface.providedBy(device):
            try:
                verifyObject(interface, device)
            except Invalid as error:
                raise broken(f"does not provide {interface.__name__}: {' '.join(str(error).split())}") from error
    if device.api != API:
        raise broken(f"was written for interface version {device.api!r}, this gateway has {API}")
    if device.name != found.name or not _NAME.fullmatch(device.name):
        raise broken(f"calls itself {device.name!r}; module or entry point and name must be the same lower-case word")
    if type(device.priority) is not int:
        raise broken(f"its priority {device.priority!r} is not a number")
    if ICommandDevice.providedBy(device):
        _commands(device.commands, broken)
    options = _options(device.options, section, f"{where}: section [devices.{found.name}]", broken)
    plugin = Plugin(device.name, device.priority, device, options, found.origin, found.version)
    try:
        answer = plugin.detect(b"", "tcp")
        verifyObject(IDecoder, plugin.decoder(lambda ident: Kept()))
    except Invalid as error:
        raise broken(f"its decoder does not provide IDecoder: {' '.join(str(error).split())}") from error
    except Exception as error:  # foreign code
        raise broken(f"fails on nothing at all: {type(error).__name__}: {error}") from error
    if not (type(answer) is MORE and answer.claim == 0):
        raise broken(f"must answer MORE(0) to nothing at all, not {answer!r}")
    return plugin


def _commands(commands: Any, broken: Callable[[str], PluginError]) -> None:
    if not isinstance(commands, Mapping):
        raise broken("its commands are no mapping")
    for name, support in commands.items():
        if name not in COMMANDS:
            raise broken(f"knows a command {name!r} that there is not (there are: {', '.join(COMMANDS)})")
        if not isinstance(support, Support):
            raise broken(f"what it says of command {name!r} is no Support")
        channels = support.channels
        if not (isinstance(channels, tuple) and channels and all(channel in _CHANNELS for channel in channels)):
            raise broken(f"the channels {channels!r} of command {name!r} are not some of {', '.join(_CHANNELS)}")
        if support.certainty not in _CERTAINTIES:
            raise broken(f"certainty {support.certainty!r} of command {name!r} is none of {', '.join(_CERTAINTIES)}")


def _options(kind: Any, section: Mapping[str, Any], where: str, broken: Any) -> Any:
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise broken("its options are not a dataclass")
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # every dataclass has them
        raise broken("its options are not a frozen dataclass")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    try:
        defaults = kind()
    except TypeError as error:
        raise broken(f"its options need a default each: {error}") from error
    for key, value in section.items():
        if key not in fields:
            raise ConfigError(where, f"unknown key {key!r} (there are: {', '.join(fields) or 'none'})")
        wanted = type(getattr(defaults, key))
        if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
            name = "table" if wanted is dict else wanted.__name__
            said = repr(value) if fields[key].repr else "what is set"
            raise ConfigError(where, f"key {key!r}: {said} is not of type {name}")
    try:
        return dataclasses.replace(defaults, **section)
    except ValueError as error:
        raise ConfigError(where, str(error)) from error
