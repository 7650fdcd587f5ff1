"""
What an ST-907 is told over data: each command as C{*HQ,ident,CMD,HHMMSS,parameters#}.

The time is UTC; the unit repeats it in its answer and does nothing else with
it.  The maker's code is the one that the unit itself uses: old firmware looks
at it and not at the ident (TianHe document).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Final, NamedTuple

from gateway.commands import Command
from gateway.devices.st907 import units
from gateway.devices.st907.downlink import DEFAULT_MAKER
from gateway.devices.st907.raw import raw
from gateway.devices.st907.settings import Options
from gateway.errors import UnsupportedCommand
from gateway.fields import KMH_PER_KNOT, compact_time
from gateway.interfaces import Downlink, Kept

#: What a field can hold: printable ASCII, but no blank and nothing that ends a field or begins or ends a frame.
_FIELD: Final = re.compile(r'[!"$-)+\--~]+')
#: Seconds for which a speed has to be exceeded: the document's examples have 3 and 10.
_OVERSPEED_S: Final = 10
#: Of C{S14} and C{S21}: only with a fix.
_WITH_A_FIX: Final = {"leave": 1, "enter": 3}
#: Thousandths of a minute, the unit of a fence's coordinates.
_PER_DEGREE: Final = 60_000
#: The forms of C{S20} that close the relay: with either the time for which it is cut is 0.
_RESUME: Final = (("1", "0"), ("0", "0"))

Args = Mapping[str, Any]


class _Told(NamedTuple):
    """A command before it is a frame; for C{expected}, C{answered} and C{more} see L{Downlink}."""

    name: str
    parameters: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    answered: bool = True
    more: bool = False
    #: whether its answer repeats the time of the command
    repeats: bool = True


def encode(ident: str, command: Command, options: Options, kept: Kept, now: float, form: int) -> Downlink:
    """See L{gateway.interfaces.ICommandDevice.encode}."""
    name, args = command
    if name == "raw":
        return raw(args)
    if name == "config.read":
        return Downlink(b"RCONF", "RCONF")
    held = units.unit(options, kept).settings
    if name == "interval.set":
        told = _interval(args, held.interval_command)
    elif name == "engine.resume":
        told = _resume(form)
    elif name in _TOLD:
        told = _TOLD[name](args)
    else:
        raise UnsupportedCommand(f"an ST-907 can't be told {name} over data")
    stamp = compact_time(int(now))[8:]
    fields = (kept.get("maker", DEFAULT_MAKER), ident, told.name, stamp, *told.parameters)
    if not all(map(_FIELD.fullmatch, fields)):
        raise UnsupportedCommand(
            "an argument holds a blank, ',', '#', '*' or what is no printable ASCII: it can't be told"
        )
    token = stamp if told.repeats else ""
    data = f"*{','.join(fields)}#".encode("ascii")
    return Downlink(data, told.name, token, told.expected, told.answered, told.more)


def _repeated(name: str, *parameters: object) -> _Told:
    """A command whose answer repeats its parameters."""
    said = tuple(map(str, parameters))
    return _Told(name, said, said)


def _resume(form: int) -> _Told:
    return _repeated("S20", *_RESUME[min(form, 1)])._replace(more=form == 0)


def _interval(args: Args, name: str) -> _Told:
    """What one says of itself in its answer differs: C{30,65535} was seen to C{30,1}, and nothing at all to S17."""
    seconds = str(args["seconds"])
    return _Told(name, ("22", seconds) if name == "S71" else (seconds,))


def _overspeed(args: Args) -> _Told:
    """C{S14}: upper limit, lower limit (0: none), 1 for 'with a fix only', seconds; speeds in whole knots."""
    kmh = args["speed_kmh"]
    knots = max(1, round(kmh / KMH_PER_KNOT)) if kmh else 0
    return _repeated("S14", knots, 0, 1, _OVERSPEED_S)


def _fence(args: Args) -> _Told:
    """C{S21}: number, mode, then both latitudes after their letter, and both longitudes; the smaller figure first."""
    said: list[object] = [args.get("number", 1), _WITH_A_FIX[args.get("alarm", "leave")]]
    for axis, letters, digits, line in (
        ("latitude", "NS", 2, "equator"),
        ("longitude", "EW", 3, "meridian of Greenwich"),
    ):
        least, most = args[f"min_{axis}"], args[f"max_{axis}"]
        if least < 0 < most:
            raise UnsupportedCommand(f"a fence across the {line} can't be told: both its {axis}s have one letter")
        low, high = sorted(round(abs(value) * _PER_DEGREE) for value in (least, most))
        if low == high:
            raise UnsupportedCommand(
                f"its {axis}s are too near to each other: they are told to a thousandth of a minute"
            )
        said += [letters[least < 0], _minutes(low, digits), _minutes(high, digits)]
    return _repeated("S21", *said)


def _minutes(thousandths: int, digits: int) -> str:
    """C{DDMM.mmm} or C{DDDMM.mmm}."""
    degrees, rest = divmod(thousandths, _PER_DEGREE)
    return f"{degrees:0{digits}d}{rest // 1000:02d}.{rest % 1000:03d}"


def _no_fence(args: Args) -> _Told:
    return _repeated("S21", args.get("number", 0), 0)


def _server(args: Args) -> _Told:
    try:
        address = IPv4Address(args["host"])
    except AddressValueError as error:
        raise UnsupportedCommand("the host is no IPv4 address: a name is resolved once at best") from error
    return _repeated("S23", f"{address}:{args['port']}")


_TOLD: Final[Mapping[str, Callable[[Args], _Told]]] = {
    "engine.stop": lambda args: _repeated("S20", 1, 1),
    "overspeed.set": _overspeed,
    "geofence.set": _fence,
    "geofence.clear": _no_fence,
    "alarm.clear": lambda args: _Told("R7", answered=False),
    "arm": lambda args: _Told("SCF", ("0", "0")),
    "disarm": lambda args: _Told("SCF", ("1", "1")),
    # it is the V6 of a unit that starts that answers, and that repeats nothing
    "reboot": lambda args: _Told("R1", repeats=False),
    "server.set": _server,
    "apn.set": lambda args: _repeated("S24", args["apn"]),
    # which of the two its answer repeats is not known
    "password.set": lambda args: _Told("S1", (args["old"], args["new"])),
}
