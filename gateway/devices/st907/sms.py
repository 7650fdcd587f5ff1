"""
What an ST-907 is told by SMS: the texts that set it up, and commands.

A text is a number, the unit's password, and arguments behind blanks.  Numbers
and forms: docs/st907.rst, which has their sources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gateway.commands import Command
from gateway.errors import UnsupportedCommand
from gateway.interfaces import PASSWORD, SMSText

#: What a unit's password may be, and what it has from the factory.
PASSWORDS: Final = re.compile(r"[0-9A-Za-z]{4,8}")
FACTORY: Final = "0000"
#: Seconds between reports with the ignition on that a unit takes; 0 would close its connection.
INTERVALS: Final = (5, 18_000)
#: A word of a text: printable ASCII, and nothing that could be taken for our own mark.
_WORD: Final = re.compile(r"[!-z|~]+")

Args = Mapping[str, Any]


def set_up(
    host: str,
    port: int,
    apn: str,
    interval_s: int | None = None,
    control: str = "",
) -> Sequence[SMSText]:
    """See L{gateway.interfaces.ISMSDevice.set_up}."""
    seconds = 20 if interval_s is None else interval_s
    if not INTERVALS[0] <= seconds <= INTERVALS[1]:
        raise UnsupportedCommand(f"an interval of {seconds} s can't be set: {INTERVALS[0]} to {INTERVALS[1]}")
    texts = [
        _read("it answers with model, ident, server, intervals and APN: keep that"),
        _set("803", " ".join(_apn(apn)), "the APN of the SIM, with user name and password behind it", "certain"),
        _server(host, port)._replace(meaning="where it reports to; an address is safer than a name"),
        _set("710", "", "report over GPRS, not by SMS", "likely"),
        _set("805", str(seconds), "seconds between reports with the ignition on", "certain"),
        _set("809", str(max(300, seconds)), "seconds between reports with the ignition off", "certain"),
        _read("check what it says now"),
    ]
    if control:
        number = control.removeprefix("+")
        if not (number.isascii() and number.isdecimal()):
            raise UnsupportedCommand(f"{control[:32]!r} is no number")
        meaning = "the number that alarms are sent to"
        texts.insert(1, SMSText(f"{number}{PASSWORD} 1", "control", meaning, "certain"))
    return tuple(texts)


def _read(meaning: str) -> SMSText:
    return SMSText("RCONF", "RCONF", meaning, "certain", asks="configuration")


def _set(number: str, argument: str, meaning: str, certainty: str) -> SMSText:
    blank = " " if argument else ""
    return SMSText(f"{number}{PASSWORD}{blank}{argument}", number, meaning, certainty)


def _server(host: str, port: int) -> SMSText:
    return _plain("804", f"{_word(host, 'host')} {port}")._replace(moves=True)


def _word(text: str, what: str) -> str:
    if not _WORD.fullmatch(text):
        raise UnsupportedCommand(f"{what} {text[:64]!r} can't be told: it has to be one word of printable ASCII")
    return text


def _apn(text: str) -> list[str]:
    """The APN, or with user name and password; an APN with a blank can't be told (Traccar's issue 3040)."""
    words = text.split()
    if len(words) not in (1, 3):
        raise UnsupportedCommand(f"APN {text[:64]!r} can't be told: it is one word, or three with user and password")
    return [_word(word, "APN") for word in words]


def sms(command: Command) -> SMSText:
    """See L{gateway.interfaces.ISMSDevice.sms}."""
    told = _TOLD.get(command.name)
    if told is None:
        raise UnsupportedCommand(f"an ST-907 can't be told {command.name} by SMS")
    return told(command.args)


def _interval(args: Args) -> SMSText:
    if not INTERVALS[0] <= args["seconds"] <= INTERVALS[1]:
        raise UnsupportedCommand(f"by SMS an interval is {INTERVALS[0]} to {INTERVALS[1]} s")
    return _plain("805", str(args["seconds"]))


def _plain(number: str, argument: str = "") -> SMSText:
    return _set(number, argument, "", "certain")


_TOLD: Final[Mapping[str, Callable[[Args], SMSText]]] = {
    "engine.stop": lambda args: _plain("940")._replace(once=True),
    "engine.resume": lambda args: _plain("941"),
    "position.request": lambda args: _plain("669")._replace(asks="position"),
    "interval.set": _interval,
    "overspeed.set": lambda args: _plain("122", str(round(args["speed_kmh"]))),
    # some units answer SET OK, some say nothing
    "reboot": lambda args: SMSText("RESTART", "RESTART", answered=False, once=True),
    "config.read": lambda args: _read(""),
    "server.set": lambda args: _server(args["host"], args["port"]),
    "apn.set": lambda args: _plain("803", " ".join(_apn(args["apn"]))),
}
