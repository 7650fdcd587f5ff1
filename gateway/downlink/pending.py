"""One command that has no final outcome yet, as it stands in Redis and as it is known here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.commands import Command, Definition, Guard

#: States of a command that its device was not told yet, that it may have been told, and that it was told.
QUEUED: Final = "queued"
SENDING: Final = "sending"
SENT: Final = "sent"
CONFIRMED: Final = "confirmed"
MISMATCH: Final = "mismatch"
#: Those in which something is awaited of the device.
UNDER_WAY: Final = frozenset({SENDING, SENT, CONFIRMED, MISMATCH})
#: Outcomes, after which nothing follows.
VERIFIED: Final = "verified"
FAILED: Final = "failed"
EXPIRED: Final = "expired"
REFUSED: Final = "refused"
CANCELLED: Final = "cancelled"

#: A command is told so often at most, each of its forms counted by itself.
ATTEMPTS: Final = 3


class Pending:
    """
    A command of a device.

    @ivar step: how many steps it has behind it; the next one names it.
    @ivar form: which of its forms is the next, or the one that was told.
    @ivar attempts: how often it was told in all, C{tries} of them in this form.
    @ivar token: what its answer repeats; C{name}: what its answer calls it; C{expected}: its parameters.
    @ivar more: whether there is another form.
    @ivar answered: whether the device says anything at all when it obeys.
    @ivar sent_at: when it was told, or was about to be, UTC epoch seconds.
    @ivar attempt: a name that nobody else's attempt has: what this process knows of it is of that one.
    @ivar written: this process knows that its bytes went out.
    @ivar contrary: how many live reports since have shown that it was not obeyed.
    @ivar reason: why it waits, in words, as it was last said; C{why}: in one word.
    @ivar hurdle: it waits for its guard, and not for its device.
    @ivar link: where it was sent; None: by somebody else, or not at all.
    @ivar age_s: how long before that the device had last been heard.
    """

    __slots__ = (
        "age_s",
        "answered",
        "args",
        "attempt",
        "attempts",
        "by",
        "command_name",
        "contrary",
        "entry",
        "expected",
        "expires_at",
        "form",
        "guard",
        "hurdle",
        "ident",
        "link",
        "loaded_at",
        "more",
        "name",
        "reason",
        "ref",
        "sent_at",
        "state",
        "step",
        "timeout_s",
        "token",
        "tries",
        "why",
        "written",
    )

    def __init__(self, fields: Mapping[str, str], ahead_s: float, now: float) -> None:
        """
        From the fields of C{gateway:request:<ref>}.

        @param ahead_s: how far the server's clock is ahead of ours.
        @param now: UTC epoch seconds.
        """
        text = fields.get
        self.ref = fields["ref"]
        self.entry = text("entry", "")
        self.ident = text("ident", "")
        self.command_name = text("command", "")
        self.args: dict[str, Any] = json.loads(text("args") or "{}")
        self.by = text("by", "")
        self.guard: dict[str, float] = json.loads(text("guard") or "{}")
        self.state = text("state", QUEUED)
        self.step = int(text("step") or 0)
        self.expires_at = int(text("expires_ms") or 0) / 1000 - ahead_s
        self.form = int(text("form") or 0)
        self.attempts = int(text("attempts") or 0)
        self.tries = int(text("tries") or 0)
        self.name, self.token = text("name", ""), text("token", "")
        self.expected = tuple(json.loads(text("expected") or "[]"))
        self.more, self.answered = text("more") == "1", text("answered", "1") == "1"
        self.sent_at = int(text("sent_ms") or 0) / 1000
        self.timeout_s = float(text("timeout_s") or 0.0)
        self.contrary = int(text("contrary") or 0)
        self.reason, self.why = text("reason", ""), text("why", "")
        self.hurdle = text("hurdle") == "1"
        self.attempt = text("attempt", "")
        self.written = False
        self.link: Any = None
        self.age_s = 0.0
        self.loaded_at = now

    @property
    def command(self) -> Command:
        """What the device is told."""
        return Command(self.command_name, self.args)

    @property
    def definition(self) -> Definition:
        """What that means."""
        return self.command.definition

    def guard_over(self, guard: Guard) -> Guard:
        """The guard with what was asked for over it; it was held against the configuration when it was accepted."""
        return guard.asked(self.guard, looser=True)

    def told(self) -> dict[str, str]:
        """What has to be kept of what was sent, so that whoever comes next can tell its answer."""
        return {
            "form": str(self.form),
            "attempt": self.attempt,
            "attempts": str(self.attempts),
            "tries": str(self.tries),
            "name": self.name,
            "token": self.token,
            "expected": json.dumps(self.expected),
            "more": f"{self.more:d}",
            "answered": f"{self.answered:d}",
            "sent_ms": str(int(self.sent_at * 1000)),
            "timeout_s": f"{self.timeout_s:g}",
            "contrary": "0",
        }


def row(flat: Iterable[bytes]) -> dict[str, str]:
    """Fields and values, one after the other, as a dict of text."""
    texts = [one.decode("utf-8", "replace") for one in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
