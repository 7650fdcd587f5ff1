"""
What frames say of commands: C{V4}, the C{SMS} that a C{RCONF} is answered with, and the C{V6} of a unit that starts.

A C{V4} has the command, its parameters or a word for how it went, and the time
stamp that the command had.  Where that stands depends on what follows: right
before the unit's own time if there is a position, or a status word alone; in
the short form it comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.devices.st907.blocks import DATE
from gateway.fields import day_epoch, second_of_day
from gateway.interfaces import CommandAnswer

_ACCEPTED: Final = {"DONE": True, "OK": True, "ERROR": False, "FAIL": False}
#: Its answer repeats a password, which may look like a time.
PASSWORD: Final = "S1"

#: A report that the unit has started.
STARTED: Final = CommandAnswer("R1")
#: A text that says how it is set up.
CONFIGURATION: Final = CommandAnswer("RCONF")


def with_position(said: Sequence[str]) -> CommandAnswer | None:
    """
    The answer before a position block.

    @param said: the fields between C{V4} and the block, which starts with the unit's own time.
    """
    name, values = _split(said)
    for at in range(len(values) - 1, -1, -1):
        if second_of_day(values[at]) is not None:
            return _answer(name, values, at, 1)
    return _answer(name, values, 0, 0)


def with_word(said: Sequence[str]) -> CommandAnswer | None:
    """
    The answer of a frame that ends with a status word and has no position: C{S21,17,1,hhmmss,HHMMSS,N,...}.

    @param said: the fields between C{V4} and the word.
    """
    name, values = _split(said)
    return _answer(name, values, *_stamps(name, values))


def short(said: Sequence[str]) -> CommandAnswer | None:
    """
    The answer of a frame that has nothing else: C{S20,hhmmss,1,1}, C{S20,DONE}.

    @param said: the fields after C{V4}.
    """
    name, values = _split(said)
    if values and second_of_day(values[0]) is not None:
        return _answer(name, values, 0, 1)
    # C{S1,OK,} and a password, which is no time
    return _answer(name, values, *(_stamps(name, values) if name != PASSWORD else (0, 0)))


def _split(said: Sequence[str]) -> tuple[str, list[str]]:
    """The command, and what follows it without the blanks around it."""
    name, *values = (field.strip() for field in said or ("",))
    return name.upper(), values


def _stamps(name: str, values: Sequence[str]) -> tuple[int, int]:
    """Where the command's time stamp stands, and for how many fields it goes on with the unit's own time and date."""
    end = len(values)
    while end and not DATE.fullmatch(values[end - 1]):
        end -= 1
    start = end
    while start and DATE.fullmatch(values[start - 1]):
        start -= 1
    size = min(end - start, 2)
    if end - start > 2 and name != PASSWORD and day_epoch(values[end - 1]) is not None:
        size = 3
    return (end - size, size) if size and second_of_day(values[end - size]) is not None else (0, 0)


def _answer(name: str, values: Sequence[str], at: int, size: int) -> CommandAnswer | None:
    """
    Put an answer together; None where it does not say to what.

    @param at: where the time stamp stands; C{size}: how many fields are no values because of it.
    """
    if not name:
        return None
    token = values[at] if size else ""
    left = [*values[:at], *values[at + size :]]
    while left and not left[-1]:
        left.pop()
    accepted = _ACCEPTED.get(left[0].upper()) if left else None
    if accepted is not None:
        left.pop(0)
    return CommandAnswer(name, token, accepted, tuple(left))
