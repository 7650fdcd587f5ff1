"""What passes between the publisher, the links and the sink: a frame on its way, a batch, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from gateway.interfaces import Message
from gateway.session import Envelope, Session

PUBLISHED: Final = "p"
UNDECODABLE: Final = "u"
UNAUTHORISED: Final = "a"
UNRECOGNISED: Final = "n"
#: on its way to the dead stream; the script has counted it already
REFUSED: Final = "r"
NO_FRAME: Final = "-"

#: What the counters call each outcome.
OUTCOMES: Final = {
    "p": "published",
    "d": "duplicate",
    "r": "refused",
    "u": "undecodable",
    "a": "unauthorised",
    "n": "unrecognised",
}


class Link(Protocol):
    """Where a frame came from, and where its answer goes: a connection, or a datagram's sender."""

    peer: str
    transport_name: str

    def expect(self, ticket: Ticket) -> None:
        """A frame of this link waits to be stored."""

    def flush(self) -> None:
        """Frames of this link were settled: send what their tickets hold, in the order in which they came."""

    def close(self, why: str) -> None:
        """Cut it off."""


class Ticket:
    """
    A frame on its way to the store.

    @ivar out: what the device is told, None while that is open.
    """

    __slots__ = ("envelopes", "link", "message", "out", "outcome", "protocol", "received", "session")

    def __init__(
        self,
        message: Message,
        link: Link | None,
        protocol: str,
        received: float,
        outcome: str = PUBLISHED,
        envelopes: Sequence[Envelope] = (),
        session: Session | None = None,
    ) -> None:
        self.message = message
        self.link = link
        self.protocol = protocol
        self.received = received
        self.outcome = outcome
        self.envelopes = envelopes
        self.session = session
        self.out: bytes | None = None


class Batch(NamedTuple):
    """
    What one call of the script appends.

    @ivar groups: arguments, group by group, as the script reads them.
    @ivar group_count: how many groups.
    @ivar limited: frames that a limit turned away since the batch before.
    @ivar dropped: frames that were not taken in for want of room since the batch before.
    """

    groups: list[str | bytes]
    group_count: int
    limited: int
    dropped: int
    now: float


class Answer(NamedTuple):
    """
    What became of a batch.

    @ivar codes: one letter an event, C{p}, C{d} or C{r}; empty: all published.
    @ivar reasons: why, of each C{r} in order.
    @ivar lost: idents that another instance holds now.
    """

    codes: str = ""
    reasons: Sequence[str] = ()
    lost: Sequence[str] = ()
