"""
The commands that applications give: their names, arguments and limits, and how an entry of C{gateway:command} is read.

What stands here is what commanders see, and part of the contract.  Which of them a kind of tracker knows, and over
which channel, is said by its plugin.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gateway.errors import CommandError
from gateway.events import IDENT

#: What an entry may hold, and how long each of them may be.
FIELDS: Final[Mapping[str, int]] = {
    "ident": 32,
    "command": 64,
    "args": 4096,
    "ttl": 16,
    "ref": 64,
    "by": 128,
    "guard": 512,
    "channel": 4,
    "sms_after": 16,
}
#: How a device may be told: over data alone, by SMS alone, or by SMS where it could not be told over data for a while.
CHANNELS: Final = ("data", "sms", "auto")
#: What a reference may look like: it becomes part of a key.
REF: Final = re.compile(r"[0-9A-Za-z_.:@-]{1,64}")
_REF_WORDS: Final = "is not 1 to 64 letters, digits, '_', '.', ':', '@' or '-'"
#: Seconds, as a ttl says them: float() would take 1_0, blanks and the digits of every script.
_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
_HEX: Final = re.compile(r"([0-9A-Fa-f]{2})+")
#: Seconds that a command may wait for its device, where it says nothing, and at most.
TTL_S: Final = 3600.0
MAX_TTL_S: Final = 7 * 86_400.0
#: A command that stops an engine says itself how long it may wait, and that is not long.
ENGINE_TTL_S: Final = 900.0


class Parameter(NamedTuple):
    """
    An argument of a command.

    @ivar kind: C{int}, C{float} or C{str}.
    @ivar meaning: with its unit.
    @ivar least: of a number; of a text, how long it has to be; C{most} likewise.
    @ivar choices: the words that it may be; empty: any.
    """

    kind: type
    meaning: str
    least: float = 0
    most: float = math.inf
    required: bool = True
    choices: tuple[str, ...] = ()


class Definition(NamedTuple):
    """
    A command.

    @ivar parameters: by name.
    @ivar opposite: the command that takes back what it asks for, and supersedes it.
    @ivar level: the level and its value that prove it, in a later report of the device.
    @ivar needs_ttl: whether it has to say how long it may wait.
    @ivar max_ttl_s: how long it may wait at most.
    @ivar guarded: whether it is sent to a vehicle that stands only.
    @ivar again: whether it does no harm twice: it is sent again where its answer does not come.
    @ivar secret: whether its arguments are shown to nobody.
    """

    meaning: str
    parameters: Mapping[str, Parameter] = {}
    opposite: str = ""
    level: tuple[str, bool] | None = None
    needs_ttl: bool = False
    max_ttl_s: float = MAX_TTL_S
    guarded: bool = False
    again: bool = True
    secret: bool = False


_NUMBER: Final = Parameter(int, "number of the fence", 1, 99, required=False)
_LATITUDE: Final = "degrees WGS84, north positive"
_LONGITUDE: Final = "degrees WGS84, east positive"

COMMANDS: Final[Mapping[str, Definition]] = {
    "engine.stop": Definition(
        "cut the relay of the immobiliser",
        opposite="engine.resume",
        level=("immobilizer", True),
        needs_ttl=True,
        max_ttl_s=ENGINE_TTL_S,
        guarded=True,
        again=False,
    ),
    "engine.resume": Definition(
        "close the relay of the immobiliser", opposite="engine.stop", level=("immobilizer", False)
    ),
    "position.request": Definition("report the position now"),
    "interval.set": Definition(
        "set the time between two reports", {"seconds": Parameter(int, "seconds between two reports", 5, 86_400)}
    ),
    "overspeed.set": Definition(
        "set the speed from which on there is an alarm",
        {"speed_kmh": Parameter(float, "kilometres per hour; 0: no alarm", 0, 400)},
    ),
    "geofence.set": Definition(
        "set a rectangular fence",
        {
            "min_latitude": Parameter(float, _LATITUDE, -90, 90),
            "max_latitude": Parameter(float, _LATITUDE, -90, 90),
            "min_longitude": Parameter(float, _LONGITUDE, -180, 180),
            "max_longitude": Parameter(float, _LONGITUDE, -180, 180),
            "alarm": Parameter(str, "what raises the alarm", choices=("leave", "enter"), required=False),
            "number": _NUMBER,
        },
    ),
    "geofence.clear": Definition("take a fence away; without its number all of them", {"number": _NUMBER}),
    "alarm.clear": Definition("silence the alarms that are on"),
    "arm": Definition("arm", opposite="disarm"),
    "disarm": Definition("disarm", opposite="arm"),
    "reboot": Definition("start anew", again=False),
    "config.read": Definition("tell how it is set up"),
    "server.set": Definition(
        "report to another server",
        {"host": Parameter(str, "address or name", 1, 64), "port": Parameter(int, "TCP or UDP port", 1, 65_535)},
    ),
    "apn.set": Definition("use another access point of the mobile network", {"apn": Parameter(str, "its name", 1, 64)}),
    "password.set": Definition(
        "change the password",
        {"old": Parameter(str, "the one until now", 1, 16), "new": Parameter(str, "the one from now on", 1, 16)},
        again=False,
        secret=True,
    ),
    "raw": Definition(
        "send bytes as they are",
        {
            "text": Parameter(str, "what to send, as text", 1, 512, required=False),
            "hex": Parameter(str, "what to send, in hex", 2, 1024, required=False),
        },
        again=False,
    ),
    "cancel": Definition("take back a command that is not sent yet", {"ref": Parameter(str, "its reference", 1, 64)}),
}

#: What a guard may say, and whether more of it is stricter.
GUARD: Final[Mapping[str, bool]] = {"max_speed_kmh": False, "min_apart_s": True, "max_age_s": False}


class Guard(NamedTuple):
    """
    When a vehicle counts as standing: the two newest live valid reports say so.

    @ivar max_speed_kmh: neither is faster.
    @ivar min_apart_s: so far are they apart.
    @ivar max_age_s: so old is the newer one at most.
    """

    max_speed_kmh: float = 20.0
    min_apart_s: float = 10.0
    max_age_s: float = 60.0

    def asked(self, guard: Mapping[str, float], looser: bool) -> Guard:
        """
        This guard with what a request says over it.

        @param looser: whether it may be looser.
        @raise CommandError: when it is and may not be.
        """
        for name, value in guard.items():
            mine = getattr(self, name)
            if not looser and (value < mine if GUARD[name] else value > mine):
                raise CommandError(
                    f"guard {name} {value:g} is looser than {mine:g}, which section [commands], key 'guard_looser' "
                    "does not allow"
                )
        return self._replace(**guard)


class Command(NamedTuple):
    """
    What a device is told to do.

    @ivar args: the arguments, of the kinds that their parameters say.
    """

    name: str
    args: Mapping[str, Any] = {}

    @property
    def definition(self) -> Definition:
        """What it means."""
        return COMMANDS[self.name]


@dataclass(frozen=True, slots=True)
class Request:
    """
    An entry of C{gateway:command} that makes sense.

    @ivar entry: its id on the stream.
    @ivar ref: the asker's reference, else C{entry}.
    @ivar ident: the device; C{cancel} needs none.
    @ivar ttl_s: seconds from the time of the entry until which it may be sent.
    @ivar by: who asks.
    @ivar guard: what it says of the guard; None: nothing.
    @ivar channel: one of L{CHANNELS}.
    @ivar sms_after_s: seconds after which it is told by SMS with C{auto}; None: it does not say.
    """

    entry: str
    ref: str
    ident: str
    command: Command
    ttl_s: float
    by: str
    guard: Mapping[str, float]
    channel: str = "data"
    sms_after_s: float | None = None

    @classmethod
    def parse(cls, entry: str, fields: Mapping[str, str]) -> Request:
        """
        Read an entry.

        @raise CommandError: with everything that is wrong with it in words.
        """
        for name, text in fields.items():
            if name not in FIELDS:
                raise CommandError(f"unknown field {name[:32]!r} (there are: {', '.join(FIELDS)})")
            if len(text) > FIELDS[name]:
                raise CommandError(f"field {name!r} has more than {FIELDS[name]} characters")
        name, ident = fields.get("command", ""), fields.get("ident", "")
        definition = COMMANDS.get(name)
        if definition is None:
            raise CommandError(f"unknown command {name!r} (there are: {', '.join(COMMANDS)})")
        if "ref" in fields and not REF.fullmatch(fields["ref"]):
            raise CommandError(f"ref {fields['ref']!r} {_REF_WORDS}")
        if (ident or name != "cancel") and not IDENT.fullmatch(ident):
            raise CommandError(f"ident {ident!r} is not 3 to 32 letters, digits, '_', '.' or '-'")
        if not fields.get("by", "").isprintable():
            raise CommandError("field 'by' holds something else than printable characters")
        args = _args(definition, _object(fields.get("args") or "{}", "args"))
        _together(name, args, fields.get("ref"))
        guard = {name: _guard(name, value) for name, value in _object(fields.get("guard") or "{}", "guard").items()}
        if guard and not definition.guarded:
            raise CommandError(f"{name} has no guard")
        ttl_s = _ttl(name, definition, fields.get("ttl", ""))
        channel, sms_after_s = _channel(fields.get("channel") or "data", fields.get("sms_after", ""))
        about = (fields.get("ref") or entry, ident, Command(name, args), ttl_s, fields.get("by", ""), guard)
        return cls(entry, *about, channel, sms_after_s)


def _object(text: str, field: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{field} is no JSON: {str(error)[:100]}") from error
    if not isinstance(found, dict):
        raise CommandError(f"{field} is no JSON object")
    return found


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no name stands twice: which of them is meant nobody knows."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _args(definition: Definition, given: Mapping[str, Any]) -> dict[str, Any]:
    parameters = definition.parameters
    for name in given:
        if name not in parameters:
            raise CommandError(f"unknown argument {name[:32]!r} (there are: {', '.join(parameters) or 'none'})")
    missing = [name for name, parameter in parameters.items() if parameter.required and name not in given]
    if missing:
        raise CommandError(f"argument {missing[0]!r} is missing: {parameters[missing[0]].meaning}")
    return {name: _value(name, parameters[name], value) for name, value in given.items()}


def _value(name: str, parameter: Parameter, value: Any) -> Any:
    if type(value) in (int, float):  # JSON has one kind of numbers: 10 and 10.0 are the same
        value = _number(value, parameter.kind)
    if type(value) is not parameter.kind or not isinstance(value, (int, float, str)):
        kind = {int: "a whole number", float: "a number", str: "a text"}[parameter.kind]
        raise CommandError(f"argument {name!r} is not {kind}")
    if parameter.choices and value not in parameter.choices:
        raise CommandError(f"argument {name!r} is none of {', '.join(parameter.choices)}")
    if isinstance(value, str):
        if not parameter.least <= len(value) <= parameter.most:
            raise CommandError(f"argument {name!r} does not have {parameter.least:g} to {parameter.most:g} characters")
        if not (value.isascii() and value.isprintable()):
            raise CommandError(f"argument {name!r} holds something else than printable ASCII")
    elif not parameter.least <= value <= parameter.most:
        raise CommandError(f"argument {name!r} is not {parameter.least:g} to {parameter.most:g}")
    return value


def _number(value: float, kind: type) -> float:
    """A number of this kind where it can be one, else as it is; never -0.0."""
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float:
        try:
            return float(value) + 0.0
        except OverflowError:  # an integer of hundreds of digits
            return math.inf if value > 0 else -math.inf
    return value


def _together(name: str, args: Mapping[str, Any], ref: str | None) -> None:
    """What arguments have to be to each other, and to the reference of the entry."""
    if name == "raw":
        if len(args) != 1:
            raise CommandError("raw takes either the argument 'text' or the argument 'hex'")
        if "hex" in args and not _HEX.fullmatch(args["hex"]):
            raise CommandError("argument 'hex' is no hex")
    if name == "cancel":
        if not REF.fullmatch(args["ref"]):
            raise CommandError(f"argument 'ref' {_REF_WORDS}")
        if args["ref"] == ref:
            raise CommandError("cancel needs a ref of its own: the argument 'ref' is the one of what it takes back")
    if name == "geofence.set":
        for axis in ("latitude", "longitude"):
            if not args[f"min_{axis}"] < args[f"max_{axis}"]:
                raise CommandError(f"argument 'min_{axis}' is not less than 'max_{axis}'")


def _guard(name: str, value: Any) -> float:
    if name not in GUARD:
        raise CommandError(f"unknown guard {name[:32]!r} (there are: {', '.join(GUARD)})")
    found = _number(value, float) if type(value) in (int, float) else math.nan
    if not 0 <= found < math.inf:
        raise CommandError(f"guard {name!r} is not a number of 0 or more")
    return found


def _channel(channel: str, after: str) -> tuple[str, float | None]:
    if channel not in CHANNELS:
        raise CommandError(f"channel {channel!r} is none of {', '.join(CHANNELS)}")
    if not after:
        return channel, None
    if channel != "auto":
        raise CommandError("sms_after is for the channel auto")
    if not _SECONDS.fullmatch(after):
        raise CommandError(f"sms_after {after!r} is not a number of seconds")
    return channel, float(after)


def _ttl(name: str, definition: Definition, text: str) -> float:
    if not text:
        if definition.needs_ttl:
            raise CommandError(f"{name} needs a ttl: the seconds that it may wait, {definition.max_ttl_s:g} at most")
        return TTL_S
    ttl_s = float(text) if _SECONDS.fullmatch(text) else 0.0
    if not ttl_s > 0:
        raise CommandError(f"ttl {text!r} is not a number of seconds above 0")
    if ttl_s > definition.max_ttl_s:
        raise CommandError(f"ttl {text} is more than the {definition.max_ttl_s:g} s that {name} may wait")
    return ttl_s
