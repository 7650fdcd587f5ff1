"""
What a transport for SMS does, what it is given, and what it hands over.

A provider, an SMSC or a phone is behind one interface.  What was sent has one
of four outcomes; what came in is acknowledged to whoever brought it once it is
stored, never before.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from zope.interface import Attribute, Interface

from gateway.interfaces import PASSWORD

#: What is shown in the place of a password.
HIDDEN: Final = "****"

#: What became of a text that was to be sent: the provider has it; it does not, and may take it later; it does not, and
#: never will; nobody knows whether it has it.
Outcome = Literal["accepted", "temporary", "rejected", "uncertain"]
#: What became of a text that the provider had accepted.
State = Literal["delivered", "failed", "pending"]


class Body:
    """
    What a text says.  The password in it appears where L{render} is called, and that is in transports alone.
    """

    __slots__ = ("_password", "template")

    def __init__(self, template: str, password: str = "") -> None:
        """@param template: the text, L{PASSWORD} where the password stands."""
        self.template = template
        self._password = password

    def render(self) -> str:
        """The text as it is sent."""
        return self.template.replace(PASSWORD, self._password)

    def __str__(self) -> str:
        return self.template.replace(PASSWORD, HIDDEN)

    def __repr__(self) -> str:
        return f"<Body {str(self)!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Body) and self.render() == other.render()

    def __hash__(self) -> int:
        return hash(self.template)


class Outgoing(NamedTuple):
    """
    A text to be sent.

    @ivar id: our name for it, 32 hex digits; no other text has it.
    @ivar number: whom to, E.164 with its plus sign.
    @ivar validity_s: seconds after which it is not to be delivered any more, more than 0.
    """

    id: str
    number: str
    body: Body
    validity_s: float


class Sent(NamedTuple):
    """
    What became of a text that was to be sent.

    @ivar ids: the provider's names for its parts, under which its receipts come; empty: it gave none.
    @ivar reason: why, in words, with the provider's own code; no text, number or password in it.
    @ivar retry_s: after a C{temporary} outcome, seconds that the provider wants to be left alone; 0: it did not say.
    """

    outcome: Outcome
    ids: tuple[str, ...] = ()
    reason: str = ""
    retry_s: float = 0.0


class Receipt(NamedTuple):
    """
    What a provider says later of a text that it had accepted.

    @ivar id: the provider's name for it.
    @ivar state: C{pending}: it still tries.
    @ivar reason: the provider's own word or code for it.
    """

    id: str
    state: State
    reason: str = ""


class Incoming(NamedTuple):
    """
    A text that came in.

    @ivar sender: as the provider writes it: a number in any form, or a word.
    @ivar text: all of it, its parts put together.
    @ivar id: what makes the same text the same when the provider brings it again; empty: it does not say.
    """

    sender: str
    text: str
    id: str = ""


class ISMSInbox(Interface):
    """Takes what comes in."""

    def received(incoming: Incoming) -> Any:
        """
        Take a text.

        @return: a Deferred that fires once it is stored, or need not be: then the provider is told that it is taken.
            It fails with L{gateway.errors.NotReady} when it can't be stored now: the provider is to bring it again.
        """

    def receipt(receipt: Receipt) -> Any:
        """Take a receipt; the Deferred is as that of C{received}."""


class IPartStore(Interface):
    """Keeps parts of texts: each is acknowledged by itself, and a gateway may be started anew between them."""

    def part(key: str, number: int, total: int, text: str) -> Any:
        """
        Keep a part for some hours.

        @param key: what the parts of a text have in common.
        @param number: 1 to C{total}.
        @return: a Deferred of all their texts in order, when it was the last one; of None before.
        """

    def forget(key: str) -> Any:
        """A text is whole and taken: a Deferred that fires when its parts are not kept any more."""


class ISMSTransport(Interface):
    """A way to send and to receive texts."""

    name = Attribute("C{http} or C{smpp}; a str.")
    honours_validity = Attribute(
        "Whether the provider keeps to C{validity_s}; a bool.  Else no relay is switched through it."
    )
    problem = Attribute("Why nothing can be sent now, in words; empty: it can.  Shown to operators.")

    def start(inbox: ISMSInbox) -> None:
        """Begin: connect, listen.  A connection that breaks is made anew, without end and with growing pauses."""

    def stop() -> Any:
        """End: a Deferred that fires when nothing is under way any more, within 5 s."""

    def send(outgoing: Outgoing) -> Any:
        """
        Send a text, once: what is to be sent again is for the caller to say.

        @return: a Deferred of L{Sent}; it never fails.  C{uncertain} whenever the provider may have taken it: a
            connection that broke, an answer that did not come or can't be read.
        """
