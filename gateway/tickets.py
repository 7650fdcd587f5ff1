"""What passes between the publisher, the links and the sink: a frame on its way, a batch, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from gateway.interfaces import Message
from gateway.session import Session

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
    """
    Where a frame came from, and where its answer goes: a connection, or a datagram's sender.

    Commands go there too, each by itself: trackers overlook one that comes with a reply.

    @ivar windowed: the way down is open only for a while after something came up, as it is for datagrams.
    @ivar untaken: what is known of what was written when it was not L{taken}, in words.
    """

    peer: str
    transport_name: str
    windowed: bool
    untaken: str

    def expect(self, ticket: Ticket) -> None:
        """A frame of this link waits to be stored."""

    def flush(self) -> None:
        """Frames of this link were settled: send what their tickets hold, in the order in which they came."""

    def close(self, why: str) -> None:
        """Take nothing in any more; close it when what came is answered."""

    def ready_in(self) -> float | None:
        """Seconds until it may be asked again whether a command may be written; 0: one may; None: never any more."""

    def quiet(self) -> None:
        """A command waits to be written: have replies wait for it for some seconds, or there may never be room."""

    def command(self, data: bytes, lifetime_s: float) -> bool:
        """
        Write a command by itself; False when that can't be: nothing was written then.

        On a connection no reply is written for a while after it.

        @param lifetime_s: after so many seconds it is not sent again: a link on which it can't be delivered till
            then is dropped.  That holds for all that is written, until it has been L{answered}.
        """

    def answered(self) -> None:
        """The device has answered the last command, or that does not matter any more: its lifetime is over."""

    def taken(self) -> bool:
        """
        Whether all that was written has come to the device's side; False when that can't be told any more.

        The peer's kernel acknowledges it, or, where that is a balancer's, the device itself with its answer.
        """

    def cut_off(self, why: str) -> None:
        """Drop it at once, with all that is unsent."""


class Ticket:
    """
    A frame on its way to the store.

    @ivar records: its events, as the server-side script reads them: see L{gateway.records}.
    @ivar refused: its events that Redis refuses, as a group, while it is tried to say so on the dead stream.
    @ivar out: what the device is told, None while that is open.
    """

    __slots__ = ("link", "message", "out", "outcome", "protocol", "received", "records", "refused", "session")

    def __init__(
        self,
        message: Message,
        link: Link | None,
        protocol: str,
        received: float,
        session: Session | None = None,
        outcome: str = PUBLISHED,
    ) -> None:
        self.message = message
        self.link = link
        self.protocol = protocol
        self.received = received
        self.outcome = outcome
        self.records: Sequence[bytes] = ()
        self.session = session
        self.refused = b""
        self.out: bytes | None = None


def settled(order: list[Ticket]) -> list[bytes]:
    """Take the tickets off the front of a link's that say what their device is told; what it is told."""
    out: list[bytes] = []
    size = 0
    for ticket in order:
        if ticket.out is None:
            break
        size += 1
        if ticket.out:
            out.append(ticket.out)
    del order[:size]
    return out


class Batch(NamedTuple):
    """
    What one call of the script appends.

    @ivar groups: each ident's events together, as the script reads them: see L{gateway.batches.gather}.
    @ivar limited: frames that a limit turned away since the batch before.
    @ivar dropped: frames that were not taken in for want of room since the batch before.
    @ivar now: when it was gathered, UTC epoch seconds.
    @ivar frames: how many frames get their outcome with it, those that were limited, dropped or refused among them.
    @ivar refused: frames that are in quarantine, as the batch that they were in was refused as a whole.
    """

    groups: list[bytes]
    limited: int
    dropped: int
    now: float
    frames: int = 0
    refused: int = 0


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
