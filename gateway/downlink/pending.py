"""One command that has no final outcome yet, as it stands in Redis and as it is known here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from gateway.commands import COMMANDS, GUARD, REF, Command, Definition, Guard
from gateway.events import IDENT

#: States of a command that its device was not told yet, that it may have been told, and that it was told.
QUEUED: Final = "queued"
SENDING: Final = "sending"
SENT: Final = "sent"
CONFIRMED: Final = "confirmed"
MISMATCH: Final = "mismatch"
#: Those in which something is awaited of the device.
UNDER_WAY: Final = frozenset({SENDING, SENT, CONFIRMED, MISMATCH})
_STATES: Final = UNDER_WAY | {QUEUED}
#: Outcomes, after which nothing follows.
VERIFIED: Final = "verified"
FAILED: Final = "failed"
EXPIRED: Final = "expired"
REFUSED: Final = "refused"
CANCELLED: Final = "cancelled"

#: What is known of a command since it was told.
_TOLD: Final = (
    *("age_s", "already", "answered", "attempt", "attempts", "contrary", "expected", "form", "link", "more", "name"),
    *("over", "sent", "sent_at", "sms", "timeout_s", "token", "tries", "written"),
)

#: After that long somebody else looks at what its device's instance should have seen to; s.
GRACE_S: Final = 10.0
#: After so long a step is tried again that Redis did not take; s.
RETRY_S: Final = 1.0
#: A command is told so often at most, each of its forms counted by itself.
ATTEMPTS: Final = 3


class Pending:
    """
    A command of a device.  What it waits for goes by a clock that nobody sets; what is stored goes by the server's.

    @ivar expires: until then it may be told, seconds of that clock; C{sent}: when it was told, or was about to be.
    @ivar sent_at: the same, UTC epoch seconds.
    @ivar timeout_s: seconds that the device has for an answer, and for a report that proves.
    @ivar step: how many steps it has behind it; the next one names it.
    @ivar form: which of its forms is the next, or the one that was told.
    @ivar attempts: how often it was told in all, C{tries} of them in this form.
    @ivar token: what its answer repeats; C{name}: what its answer calls it; C{expected}: its parameters.
    @ivar more: whether there is another form.
    @ivar answered: whether the device says anything at all when it obeys.
    @ivar attempt: a name that nobody else's attempt has: what this process knows of it is of that one.
    @ivar already: the device's reports had shown what is asked for before it was told.
    @ivar untaken: in words, what is known of its bytes when nobody acknowledged them; empty: nothing is.
    @ivar written: this process knows that its bytes went out.
    @ivar contrary: how many live reports since have shown that it was not obeyed.
    @ivar reason: why it waits, in words, as it was last said; C{why}: in one word.
    @ivar hurdle: it waits for its guard, and not for its device.
    @ivar channel: how it may be told, one of L{gateway.commands.CHANNELS}; C{over}: how it was told last, C{data} or
        C{sms}.
    @ivar sms_at: when it may be told by SMS, seconds of the clock that nobody sets; C{no_sms}: that was tried in vain.
    @ivar sms: the text by which it was told last.
    @ivar link: where it was sent; None: by somebody else, or not at all.
    @ivar age_s: seconds before that since the device had last been heard.
    @ivar loaded: when it was read, seconds of the clock that nobody sets.
    """

    __slots__ = (
        "age_s",
        "already",
        "answered",
        "args",
        "attempt",
        "attempts",
        "by",
        "channel",
        "command_name",
        "contrary",
        "expected",
        "expires",
        "form",
        "guard",
        "hurdle",
        "ident",
        "link",
        "loaded",
        "more",
        "name",
        "no_sms",
        "over",
        "reason",
        "ref",
        "sent",
        "sent_at",
        "sms",
        "sms_at",
        "state",
        "step",
        "timeout_s",
        "token",
        "tries",
        "untaken",
        "why",
        "written",
    )

    def __init__(self, fields: Mapping[str, str], server_s: float, now: float, elapsed: float) -> None:
        """
        From the fields of C{gateway:request:<ref>}.

        @param server_s: the server's time, UTC epoch seconds.
        @param now: our own.
        @param elapsed: seconds of the clock that nobody sets.
        @raise ValueError: somebody else wrote there, and it makes no sense.
        """
        text = fields.get
        self.ref = text("ref", "")
        self.ident = text("ident", "")
        self.command_name = text("command", "")
        self.args: dict[str, Any] = json.loads(text("args") or "{}")
        self.by = text("by", "")
        self.guard: dict[str, float] = json.loads(text("guard") or "{}")
        self.state = text("state", QUEUED)
        self.step = int(text("step") or 0)
        self.expires = elapsed + int(text("expires_ms") or 0) / 1000 - server_s
        self.form = int(text("form") or 0)
        self.attempts = int(text("attempts") or 0)
        self.tries = int(text("tries") or 0)
        self.name, self.token = text("name", ""), text("token", "")
        self.expected = tuple(json.loads(text("expected") or "[]"))
        self.more, self.answered = text("more") == "1", text("answered", "1") == "1"
        ago_s = max(server_s - int(text("sent_ms") or 0) / 1000, 0.0)  # a clock that was set back
        self.sent, self.sent_at = elapsed - ago_s, now - ago_s
        self.timeout_s = float(text("timeout_s") or 0.0)
        self.contrary = int(text("contrary") or 0)
        self.reason, self.why = text("reason", ""), text("why", "")
        self.hurdle = text("hurdle") == "1"
        self.attempt = text("attempt", "")
        self.already = text("already") == "1"
        self.channel, self.over = text("channel") or "data", text("over") or "data"
        self.sms, self.no_sms = text("sms", ""), text("no_sms") == "1"
        self.sms_at = elapsed + int(text("sms_ms") or 0) / 1000 - server_s
        self.untaken = ""
        self.written = False
        self.link: Any = None
        self.age_s = 0.0
        self.loaded = elapsed
        self._check(fields)

    def _check(self, fields: Mapping[str, str]) -> None:
        about = fields.get("about", "")
        sane = (
            isinstance(json.loads(about), dict)
            and about[:2] + about[-1:] == '{"}'  # what is said more is put in between
            and REF.fullmatch(self.ref)
            and self.command_name in COMMANDS
            and isinstance(self.args, dict)
            and isinstance(self.guard, dict)
            and all(
                name in GUARD and type(value) in (int, float) and math.isfinite(value)
                for name, value in self.guard.items()
            )
            and all(isinstance(value, str) for value in self.expected)
            and (self.state in _STATES or fields.get("final") == "1")
            and fields.get("step") == str(self.step)  # else no step would ever follow it
            and self.form >= 0
            and math.isfinite(self.timeout_s)
        )
        if not sane or (fields.get("final") != "1" and not IDENT.fullmatch(self.ident)):
            raise ValueError("a command that is none")

    @property
    def unsaid(self) -> bool:
        """Whether it was told over data by this process, which has not said so yet; of a text its sender says so."""
        return self.state == SENDING and self.written and self.over == "data"

    def by_sms(self, elapsed: float) -> bool:
        """Whether it may be told by SMS now, as far as whoever asked for it is concerned."""
        return self.channel != "data" and not self.no_sms and elapsed >= self.sms_at

    @property
    def command(self) -> Command:
        """What the device is told."""
        return Command(self.command_name, self.args)

    @property
    def definition(self) -> Definition:
        """What that means."""
        return self.command.definition

    def recall(self, other: Pending) -> None:
        """Take over from another one of the same reference what is known of how it was told last."""
        for name in _TOLD:
            setattr(self, name, getattr(other, name))

    def guard_over(self, guard: Guard) -> Guard:
        """The guard with what was asked for over it; it was held against the configuration when it was accepted."""
        return guard.asked(self.guard, looser=True)

    def told(self) -> dict[str, str]:
        """What has to be kept of what was sent, for whoever comes next to tell its answer; when, the server adds."""
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
            "timeout_s": f"{self.timeout_s:g}",
            "contrary": "0",
            "already": f"{self.already:d}",
            "over": self.over,
            "sms": self.sms,
        }
