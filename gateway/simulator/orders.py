"""
The commands that an ST-907 knows: with which arguments, and what it says of them.

As the documentation has them; what it leaves open, such as the password that
is right, is taken as it comes.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from gateway.simulator.downlink import R1, RCONF, S20, Command

_SECONDS: Final = r"(?P<seconds>[1-9]\d{0,4})"
_PLACE: Final = r"\d{1,5}\.\d{1,4}"
#: The arguments of each; what is no match is an error.
_ARGUMENTS: Final = {
    word: re.compile(pattern)
    for word, pattern in {
        S20: r"1,1|1,0|0,0",
        R1: r"",
        RCONF: r"",
        # seconds between two reports; for so many of them
        "D1": rf"{_SECONDS}(?:,(?P<reports>[1-9]\d{{0,4}}))?",
        "S17": _SECONDS,
        "S71": rf"22,{_SECONDS}",
        # the fastest and the slowest speed in knots, mode, seconds
        "S14": r"\d{1,3},\d{1,3},\d,\d{1,5}",
        "S18": r".+",
        # number and mode of a fence, and where it is; mode 0 takes it away
        "S21": rf"(?P<fence>\d{{1,2}},(?:0|[1-4](?=,)))(?:,(?P<area>[NS],{_PLACE},{_PLACE},[EW],{_PLACE},{_PLACE}))?",
        "S23": r"[^,:]+:\d{1,5}",
        "S24": r"[^,]+(?:,[^,]+)*",
        "S1": r"[^,]+,(?P<password>[^,]+)",
        "R7": r"",
        "SCF": r"0,0|1,1",
    }.items()
}
#: Those whose answer repeats the arguments.
_REPEATED: Final = frozenset({"D1", "S17", "S71", "S14", "S23", "S24"})
#: All commands in frames that it knows.
WORDS: Final = frozenset(_ARGUMENTS) - {RCONF}


class Order(NamedTuple):
    """
    A command that is understood.

    @ivar said: what the full answer says before the time of day.
    @ivar area: what it says instead of a position; None: it has a position.
    @ivar seconds: between two reports, from now on; 0: as before.
    @ivar reports: for so many reports; 0: for good.
    """

    said: str = "DONE"
    area: str | None = None
    seconds: int = 0
    reports: int = 0


class Obeyed(NamedTuple):
    """
    What came of a command.

    @ivar answer: what is answered; nothing when empty.
    @ivar restarts: whether the tracker starts anew.
    @ivar hurries: whether the time of its next report is another one now.
    """

    answer: bytes = b""
    restarts: bool = False
    hurries: bool = False


def understood(command: Command) -> Order | None:
    """What a command says; None when it is not known, or its arguments are not."""
    pattern = _ARGUMENTS.get(command.word)
    match = pattern.fullmatch(command.arguments) if pattern else None
    if match is None:
        return None
    found = match.groupdict()
    if command.word == "S21":
        return Order(found["fence"], found["area"] or "")
    if command.word == "S1":
        return Order(f"OK,{found['password']}")
    said = command.arguments if command.word in _REPEATED else "DONE"
    return Order(said, None, int(found.get("seconds") or 0), int(found.get("reports") or 0))
