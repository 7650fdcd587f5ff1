"""
What an ST-907 is told: acknowledgements, with the maker's code that the device itself used.

Which ones a unit gets is looked up when they are sent: by then what is set for it has been read.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from gateway.devices.st907.settings import Options
from gateway.devices.st907.units import RESENDS, Unit, policy, resends, unit
from gateway.fields import compact_time
from gateway.interfaces import Memory

#: The maker's code for a device that has not named its own yet.
DEFAULT_MAKER: Final = "HQ"

#: Reports that are answered V4, heartbeats that come back, and what R12 is for.
_V4: Final = frozenset({"V1", "NBR"})
_ECHO: Final = frozenset({"HTBT", "V0"})
_R12: Final = frozenset({"V1", "V2", "V5", "V6", "V8", "V19", "VI1", "NBR"})
#: What stands for the type of a binary frame.
BINARY: Final = "$"


@lru_cache(maxsize=64)
def _end(second: int) -> bytes:
    """How a V4 ends: the time, which newer firmware sets its clock by, and the end sign."""
    return f"{compact_time(second)}#".encode()


@lru_cache(maxsize=64)
def _r12_end(second: int) -> bytes:
    return f"{compact_time(second)[8:]}#".encode()


class Reply:
    """
    The acknowledgement of a frame, for the time at which it is sent.

    C{none}: nothing at all.  C{v4}: V1 and NBR get V4.  C{r12}: every report
    gets R12.  C{both}: both of them, in one piece.  But for C{none}, heartbeats
    come back without what they carried, and binary frames get R12, without which
    an ST-901L sends its stored records again and again.
    """

    __slots__ = ("_head", "_ident", "_kind", "_maker", "_memory", "_options", "_v4")

    def __init__(self, maker: str, ident: str, kind: str, options: Options, memory: Memory) -> None:
        self._maker = maker
        self._ident = ident
        self._kind = kind
        self._options = options
        self._memory = memory
        #: how a V4 begins
        self._head = f"*{maker},{ident},V4,{kind},".encode()
        self._v4 = kind in _V4

    def give(self, now: float) -> bytes:
        """What a frame is answered, if it is answered now."""
        kept = self._memory(self._ident)
        found = kept.own
        if type(found) is Unit and found.plain and kept.resends < RESENDS and self._v4:
            return self._head + _end(int(now))  # nearly all
        found = unit(self._options, kept)
        held = found.settings
        chosen = policy(held, kept)
        usual = chosen == "v4" and self._kind in _V4
        said = self._head + _end(int(now)) if usual else self._other(chosen, int(now))
        # one that waits for each answer gets each
        if held.reply_interval_s and said and self._kind in _R12 and not resends(kept):
            if 0 <= now - found.answered < held.reply_interval_s:
                return b""
            found.answered = now
        return said

    def _other(self, chosen: str, second: int) -> bytes:
        kind = self._kind
        if chosen == "none":
            return b""
        if kind in _ECHO:
            return f"*{self._maker},{self._ident},{kind}#".encode()
        r12 = f"*{self._maker},{self._ident},R12,".encode() + _r12_end(second)
        if kind == BINARY:
            return r12
        said = self._head + _end(second) if chosen == "both" and kind in _V4 else b""
        return said + r12 if chosen != "v4" and kind in _R12 else said


def answered(kind: str) -> bool:
    """Whether some units get an answer to this type of text frame."""
    return kind in _R12 or kind in _ECHO
