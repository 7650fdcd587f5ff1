"""Explains a frame of the H02 family: what each field or byte means, how sure that is, and what is lacking."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.devices.st907 import frames
from gateway.devices.st907.explain_binary import binary_facts
from gateway.devices.st907.explain_text import text_facts
from gateway.devices.st907.settings import Settings
from gateway.devices.st907.telling import UNREADABLE
from gateway.interfaces import Fact


def explain(frame: bytes, held: Settings) -> Sequence[Fact]:
    """
    See L{gateway.interfaces.IExplainingDevice.explain}.

    Facts without C{where} come last: they say what the frame lacks, and why.

    @param held: what holds for its unit.
    """
    if not frame:
        return ()
    if frames.star_head(frame, 0):
        return text_facts(frame, held)
    if frame[0] in b"$X" and (frames.frame_head(frame, 0) is not False or len(frame) in frames.LENGTHS):
        return binary_facts(frame, held)
    where = f"0-{len(frame) - 1}" if len(frame) > 1 else "0"
    reason = "it starts neither with *, two letters and a comma nor with $ or X, a time and a date"
    return [Fact(where, frame.hex(), "bytes", "no frame"), Fact("", "", UNREADABLE, reason)]
