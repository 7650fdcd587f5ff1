"""How trackers take commands: most do as they are told and say so, and some do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.simulator.downlink import S20
from gateway.simulator.orders import WORDS

_CUT: Final = "1,1"


class Manner(NamedTuple):
    """
    How a tracker takes commands.

    @ivar about: in words.
    @ivar obeys: whether it does what it understands.
    @ivar answers: whether it says anything of it.
    @ivar understands: whether it understands any; else all are errors.
    @ivar short: the commands that it answers in the short form, when it understands them.
    @ivar repeats: whether the short form repeats the arguments of C{S20}; else it always says that the engine is cut.
    @ivar relay: what the arguments of C{S20} do: whether the relay is cut. What is not there moves nothing.
    """

    about: str
    obeys: bool = True
    answers: bool = True
    understands: bool = True
    short: frozenset[str] = frozenset()
    repeats: bool = True
    relay: Mapping[str, bool] = {_CUT: True, "1,0": False, "0,0": False}

    def in_short(self, word: str, arguments: str) -> str:
        """The arguments as the short form of an answer has them."""
        return arguments if self.repeats or word != S20 else _CUT


MANNERS: Final[Mapping[str, Manner]] = {
    "obey": Manner("does what it is told, and says so"),
    "short": Manner("obeys; answers repeat the command, without outcome and place", short=WORDS),
    "mute": Manner("obeys, and answers nothing", answers=False),
    "ignore": Manner("does nothing, and answers nothing", obeys=False, answers=False),
    "refuse": Manner("does nothing, and answers ERROR", obeys=False, understands=False),
    "stuck-relay": Manner("answers DONE, and its relay never moves", relay={}),
    "stays-cut": Manner(
        "never restores the engine; answers each S20 with 1,1, in short",
        short=frozenset({S20}),
        repeats=False,
        relay={_CUT: True},
    ),
    "second-form": Manner(
        "restores the engine at S20 with 0,0 only; answers S20 in short",
        short=frozenset({S20}),
        relay={_CUT: True, "0,0": False},
    ),
}
