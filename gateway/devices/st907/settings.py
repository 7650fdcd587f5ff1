"""
How one unit is read and answered: the family's options, over them those of its model, over them its registry's.

Where documents disagree, or a unit was wired or set in its own way, this is what tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

from gateway.devices.st907 import status
from gateway.devices.st907.sms import PASSWORDS
from gateway.devices.st907.sms_texts import patterns
from gateway.devices.st907.status import Map

REPLIES: Final = ("none", "v4", "r12", "both")
BATTERIES: Final = ("", "index", "percent")
WIRED: Final = ("", "0", "1")
INTERVAL_COMMANDS: Final = ("D1", "S17", "S71")
HEMISPHERES: Final = ("", "N", "S", "E", "W", "NE", "NW", "SE", "SW")
#: A clock that is further off than that is in no time zone.
MAX_OFFSET_S: Final = 86_400
MAX_INTERVAL_S: Final = 86_400


class Settings(NamedTuple):
    """
    What holds for a unit.

    @ivar reply: which acknowledgements it gets: see L{REPLIES}.
    @ivar reply_interval_s: seconds between two of them, at least; 0: each report gets its own.
    @ivar acc_wired: whether the ignition's wire is connected, C{0} or C{1}; empty: found out.
    @ivar battery: what its battery figure is: see L{BATTERIES}; empty: found out.
    @ivar hemisphere: the sides of the globe on which it is, whatever it says; empty: it is believed.
    @ivar time_offset_s: how many seconds its clock is ahead of UTC.
    @ivar bits: what the bits of its status word mean.
    @ivar interval_command: which command sets its interval.
    @ivar faults: what is set and can't be used, in words.
    @ivar chosen: whether C{reply} is set for this very unit.
    """

    reply: str = "v4"
    reply_interval_s: int = 0
    acc_wired: str = ""
    battery: str = ""
    hemisphere: str = ""
    time_offset_s: int = 0
    bits: Map = status.DEFAULT
    interval_command: str = "S17"
    faults: tuple[str, ...] = ()
    chosen: bool = False


def _one_of(known: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in known:
            raise ValueError(f"{text[:32]!r} is none of {', '.join(repr(one) for one in known)}")
        return text

    return read


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 9) or not least <= int(text) <= most:
            raise ValueError(f"{text[:32]!r} is not a whole number of {least} to {most}")
        return int(text)

    return read


def _bits(text: str) -> Map:
    """C{17=vibration,18=}: bits with another meaning than by default; empty: with none."""
    changes: dict[str, str] = {}
    for part in text.split(","):
        number, sign, level = part.partition("=")
        if part.strip() and not sign:
            raise ValueError(f"{part[:32]!r} is not BIT=ALARM")
        if part.strip():
            changes[number.strip()] = level.strip()
    return status.mapped(changes)


#: How each setting is read from text.
_READ: Final[dict[str, Callable[[str], Any]]] = {
    "reply": _one_of(REPLIES),
    "reply_interval_s": _number(0, MAX_INTERVAL_S),
    "acc_wired": _one_of(WIRED),
    "battery": _one_of(BATTERIES),
    "hemisphere": _one_of(HEMISPHERES),
    "time_offset_s": _number(-MAX_OFFSET_S, MAX_OFFSET_S),
    "bits": _bits,
    "interval_command": _one_of(INTERVAL_COMMANDS),
}


@dataclass(frozen=True, slots=True, eq=False)  # one object for a gateway: looked up by identity
class Options:
    """
    C{[devices.st907]}: what holds for all units that nothing else is said of; for the meaning see L{Settings}.

    @ivar bits: bit -> alarm, C{17=vibration,18=sos}.
    @ivar sms_password: of the texts that a unit is told something by, unless the registry has its own.
    @ivar sms_alarms: alarm -> regular expression that its texts match, before those that are likely.
    @ivar models: model, as the registry's C{model} names it -> any of the options above.
    """

    reply: str = "v4"
    reply_interval_s: int = 0
    acc_wired: str = ""
    battery: str = ""
    hemisphere: str = ""
    time_offset_s: int = 0
    bits: str = ""
    interval_command: str = "S17"
    sms_password: str = field(default="0000", repr=False)
    sms_alarms: dict[str, Any] = field(default_factory=dict)
    models: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what can't be used, when the gateway starts."""
        for name in _READ:
            _checked(name, getattr(self, name), f"key {name!r}")
        if not PASSWORDS.fullmatch(self.sms_password):
            raise ValueError("key 'sms_password': is not 4 to 8 letters and digits")  # it is not shown
        for name, pattern in self.sms_alarms.items():
            if not isinstance(pattern, str):
                raise ValueError(f"table 'sms_alarms', key {name!r}: is not a text")
        try:
            patterns(self.own_alarms)
        except ValueError as error:
            raise ValueError(f"table 'sms_alarms', {error}") from None
        for model, table in self.models.items():
            where = f"table 'models', model {model!r}"
            if not isinstance(table, dict):
                raise ValueError(f"{where}: is not a table")
            for name, value in table.items():
                if name not in _READ:
                    raise ValueError(f"{where}: unknown key {name!r} (there are: {', '.join(_READ)})")
                if type(value) is not type(getattr(Settings(), name)) and not (name == "bits" and type(value) is str):
                    raise ValueError(f"{where}, key {name!r}: {value!r} is of the wrong type")
                _checked(name, value, f"{where}, key {name!r}")

    @property
    def own_alarms(self) -> tuple[tuple[str, str], ...]:
        """The operator's own patterns of alarms by SMS."""
        return tuple(self.sms_alarms.items())


def _checked(name: str, value: Any, where: str) -> Any:
    try:
        return _READ[name](str(value))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


@lru_cache(maxsize=64)
def of_family(options: Options) -> Settings:
    """What holds for a unit of which nothing is registered."""
    return settings(options, {})


def settings(options: Options, registry: Mapping[str, str]) -> Settings:
    """What holds for a unit of which this is registered."""
    values = {name: str(getattr(options, name)) for name in _READ}
    model = options.models.get(registry.get("model", ""), {})
    values |= {name: str(value) for name, value in model.items()}
    said = tuple((name, registry[name].strip()) for name in _READ if registry.get(name, "").strip())
    return _settings(tuple(values.items()), said)


@lru_cache(maxsize=1024)
def _settings(values: tuple[tuple[str, str], ...], said: tuple[tuple[str, str], ...]) -> Settings:
    """The same object for equal settings: nearly all units have the same."""
    found = {name: _READ[name](text) for name, text in values}
    faults = []
    for name, text in said:
        try:
            found[name] = _READ[name](text)
        except ValueError as error:
            faults.append(f"{name}: {error}")
            continue
        if name == "reply":
            found["chosen"] = True
    return Settings(**found, faults=tuple(faults))
