"""What was said of a text frame's fields so far, and why it lacks what a report should have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gateway.devices.st907.settings import Settings
from gateway.interfaces import Fact

#: What a frame may lack, with the attribute that tells.
LACKING: Final = {"no position": "latitude", "no speed": "speed_kmh"}
NO_TIME: Final = "time is the server's"
UNREADABLE: Final = "nothing is published"


class Telling:
    """
    The facts of one text frame, in the order of its fields.

    @ivar fields: the frame between C{*} and C{#}, split on commas.
    @ivar kind: its type.
    @ivar valid: whether it has a fix.
    @ivar attributes: what the reader made of it; nothing of a frame that can't be read.
    """

    def __init__(self, fields: Sequence[str], kind: str, held: Settings, attributes: Mapping[str, Any]) -> None:
        self.fields = fields
        self.kind = kind
        self.held = held
        self.attributes = attributes
        self.valid = bool(attributes.get("valid"))
        self._said: dict[int, tuple[int, list[Fact]]] = {}
        self._reasons: dict[str, list[str]] = {}
        self._end: list[Fact] = []

    def text(self, at: int) -> str:
        """A field without the blanks around it; empty where there is none."""
        return self.fields[at].strip() if at < len(self.fields) else ""

    def say(self, at: int, name: str, meaning: str, size: int = 1, details: Sequence[Fact] = ()) -> None:
        """
        Say what a field is, or what several in a row are together; nothing of one that is not there.

        @param details: what follows below it.
        """
        end = min(at + size, len(self.fields))
        if at < end:
            where = str(at) if end == at + 1 else f"{at}-{end - 1}"
            self._said[at] = end, [Fact(where, ",".join(self.fields[at:end]), name, meaning), *details]

    def read(self, at: int, name: str, meaning: Callable[[str], str]) -> bool:
        """As L{say}, with a meaning that may be that the field can't be read; whether it is there and can."""
        if at >= len(self.fields):
            return False
        try:
            self.say(at, name, meaning(self.text(at)))
        except ValueError as error:
            self.say(at, name, f"can't be read: {error}")
            self.because(UNREADABLE, f"field {at}: {error}")
            return False
        return True

    def cut_short(self, missing: str) -> None:
        """Say that the frame ends where this should follow."""
        self._end = [Fact("end", "", missing, "missing: the frame ends here")]
        self.because(UNREADABLE, f"the frame is cut short: no {missing}")

    def because(self, lacking: str, reason: str) -> None:
        """Keep a reason for something that may be lacking."""
        reasons = self._reasons.setdefault(lacking, [])
        if reason and reason not in reasons:
            reasons.append(reason)

    def reason(self, lacking: str, otherwise: str) -> str:
        """Why something is lacking."""
        return "; ".join(self._reasons.get(lacking, ())) or otherwise

    def facts(self, unsaid: str) -> list[Fact]:
        """
        All of them; each field once.

        @param unsaid: what becomes of fields of which nothing was said.
        """
        facts: list[Fact] = []
        at = 0
        while at < len(self.fields):
            end, said = self._said.get(at, (at + 1, [Fact(str(at), self.fields[at], "not known", unsaid)]))
            facts += said
            at = end
        return facts + self._end
