"""What reports and answers of a device say of a command, and what it ends as when nothing more comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.downlink.pending import (
    ATTEMPTS,
    CONFIRMED,
    EXPIRED,
    FAILED,
    MISMATCH,
    QUEUED,
    REFUSED,
    SENDING,
    SENT,
    Pending,
)
from gateway.interfaces import CommandAnswer


class Report(NamedTuple):
    """
    What a live report of the device says of its relay.

    @ivar at: when it was received, seconds of the clock that nobody sets.
    @ivar time: the device's own, UTC epoch seconds; None: its clock can't be gone by.
    @ivar id: the event's.
    """

    at: float
    time: float | None
    levels: Mapping[str, bool]
    id: str

    def after(self, pending: Pending) -> bool:
        """Whether it was made after a command was sent: its time is of whole seconds, and GNSS time."""
        return self.at > pending.sent and (self.time is None or self.time > pending.sent_at)


def overdue(pending: Pending) -> tuple[str, str]:
    """What a command ends as whose time is over, and why."""
    waited = f"within {pending.timeout_s:.0f} s"
    relay = pending.definition.level is not None
    late = "; it may still cut when it is slower" if pending.command_name == "engine.stop" else ""
    if pending.state == QUEUED:
        if pending.attempts:
            times = f"{pending.attempts} time{'s' * (pending.attempts > 1)}"
            return FAILED, f"told {times}, and not obeyed as far as is known; it could not be told again in time"
        if pending.hurdle:
            return REFUSED, pending.reason
        return EXPIRED, "the device could not be told in time"
    if pending.state == MISMATCH or (pending.state == CONFIRMED and pending.contrary):
        return MISMATCH, f"the relay does not show it {waited}{late}"
    if pending.state == CONFIRMED:
        return CONFIRMED, f"no live report {waited} shows the relay"
    doubt = "whether the device was told is not known: " if pending.state == SENDING else ""
    shown = ""
    if pending.contrary:
        shown = f", and {pending.contrary} reports show that the relay did not move{late}"
    elif pending.already:
        shown = ", and the relay is as it was before: as it was asked for"
    elif relay:
        shown = f", and no report shows the relay{late}"
    return FAILED, f"{doubt}no answer {waited}{pending.untaken}{shown}"


def anew(pending: Pending, elapsed: float) -> bool:
    """Whether a command that was not answered is told again: it does no harm twice, and may still be told."""
    return (
        pending.state in (SENDING, SENT)
        and pending.definition.again
        and pending.tries < ATTEMPTS
        and pending.expires > elapsed
    )


def meant(answer: CommandAnswer, pending: Pending) -> bool:
    """Whether an answer is to this command."""
    if answer.name != pending.name:
        return False
    return not (answer.token and pending.token) or answer.token == pending.token


def alike(values: tuple[str, ...], expected: tuple[str, ...]) -> bool:
    """Whether parameters are the same, as numbers where they are such; an answer may say more."""
    return len(values) >= len(expected) and all(map(_same, values, expected))


def _same(text: str, other: str) -> bool:
    text, other = text.strip().upper(), other.strip().upper()
    try:
        return text == other or float(text) == float(other)
    except ValueError:
        return False
