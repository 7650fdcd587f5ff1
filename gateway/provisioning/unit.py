"""
One tracker that is set up: which text is next, what its answers mean, and what it ends as.

Pure: time and what happened are told.  An answer does not say to which text
it is, so that a tracker has one text at a time; and it may be late, so that
what is sent again is a text that may come twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.interfaces import SMSText

#: How a tracker ends.
Verdict = Literal[
    "",
    "done",
    "silent",
    "wrong password",
    "refused",
    "rejected",
    "another device",
    "no report",
    "too many texts",
]
#: What each means, and what helps.
MEANINGS: Final[Mapping[str, str]] = {
    "done": "it reports to the gateway",
    "silent": "it answered no text: number, SIM, coverage, or another kind of tracker",
    "wrong password": "it answers RCONF, and no text with its password: give the right one with --password",
    "refused": "it answers that it does not obey: wrong form or password",
    "rejected": "the provider does not take texts for its number",
    "another device": "another ident answers from that number",
    "no report": "it took all texts, and no report came: server, port, APN, credit, or no coverage",
    "too many texts": "the texts that were allowed are used up; run it again to go on",
    "": "interrupted: run it again to go on",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What may be tried.

    @ivar tries: how often a text is sent at most.
    @ivar answer_s: seconds that an answer may take.
    @ivar report_s: seconds that the first report may take, once all texts were taken.
    """

    tries: int = 3
    answer_s: float = 300.0
    report_s: float = 1200.0


@dataclass(slots=True)
class Unit:
    """
    A tracker.

    @ivar texts: what it is to be told, in order.
    @ivar step: which of them is next, or on its way.
    @ivar tries: how often that was sent.
    @ivar out: our name for the text that is on its way; empty: none is.
    @ivar since: when that was sent, or when the last text was answered, UTC epoch seconds.
    @ivar moved: when it was told to report here; 0: not yet.
    @ivar sent: texts in all.
    @ivar answered: how many of them were answered.
    """

    ident: str
    phone: str
    protocol: str
    texts: Sequence[SMSText]
    limits: Limits = field(default_factory=Limits)
    step: int = 0
    tries: int = 0
    out: str = ""
    since: float = 0.0
    moved: float = 0.0
    sent: int = 0
    answered: int = 0
    said: int = 0
    reported: bool = False
    verdict: Verdict = ""
    reason: str = ""

    @property
    def plan(self) -> str:
        """What tells one plan from another."""
        words = "\0".join((self.phone, *(text.template for text in self.texts)))
        return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()

    @property
    def over(self) -> bool:
        """Whether it has come to its end."""
        return bool(self.verdict)

    @property
    def text(self) -> SMSText | None:
        """The text that is next, or on its way; None: all were answered."""
        return self.texts[self.step] if self.step < len(self.texts) else None

    def wants(self) -> SMSText | None:
        """The text that is to be sent now; None: none is."""
        return None if self.over or self.out else self.text

    def began(self, id: str, now: float) -> None:
        """A text was given to whoever sends it."""
        self.out, self.since = id, now
        self.tries += 1
        self.sent += 1

    def became(self, state: str, reason: str, now: float) -> None:
        """What became of the text that is on its way."""
        if self.over or not self.out:
            return
        text = self.text
        if state in ("accepted", "delivered", "uncertain") and text is not None and text.moves and not self.moved:
            self.moved = self.since
        if state == "rejected":
            self._end("rejected", reason)
        elif state in ("expired", "failed"):
            self._again(now)

    def heard(self, kind: str, accepted: bool | None, reason: str, now: float) -> None:
        """A text of it came in."""
        if self.over:
            return
        if kind == "unmatched" and reason:
            self._end("another device", reason)
            return
        text = self.text
        if text is None or not self.out:
            return
        self.said += 1
        if text.asks == "configuration" == kind:
            self._next(now)
        elif text.asks == "answer" == kind:
            if accepted is False:
                self._end("refused", f"to the text with {text.name}")
            else:
                self._next(now)

    def report(self, received: float) -> None:
        """It reported to the gateway, over data."""
        if self.moved and received > self.moved:
            self.reported = True

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.over:
            return
        if self.text is None:
            if self.reported:
                self._end("done", "")
            elif now - self.since >= self.limits.report_s:
                self._end("no report", f"{self.limits.report_s:.0f} s after the last text")
        elif self.out and now - self.since >= self.limits.answer_s:
            self._again(now)

    def _next(self, now: float) -> None:
        text = self.text
        if text is not None and text.moves and not self.moved:
            self.moved = self.since
        self.answered += 1
        self.step, self.tries, self.out, self.since = self.step + 1, 0, "", now

    def _again(self, now: float) -> None:
        """No answer: once more, or that was it."""
        self.out = ""
        if self.tries < self.limits.tries:
            return
        text = self.text
        assert text is not None
        if text.asks == "configuration":  # not every unit answers it (eusonlito/GPS-Tracker issue 41)
            self.step, self.tries, self.since = self.step + 1, 0, now
        elif self.reported and self.moved:
            # it reports here: what it did not answer matters no more
            self.step, self.tries, self.since = self.step + 1, 0, now
        elif self.said and not any(one.asks == "answer" for one in self.texts[: self.step]):
            self._end("wrong password", f"no answer to {self.tries} texts with it")
        elif not self.said:
            self._end("silent", f"no answer to {self.sent} texts")
        else:
            self._end("silent", f"no answer to {self.tries} texts with {text.name}, though it answered before")

    def stop(self) -> None:
        """No text may be sent any more."""
        if not self.over:
            self._end("too many texts", f"{self.answered} of {len(self.texts)} texts were answered")

    def _end(self, verdict: Verdict, reason: str) -> None:
        self.verdict, self.reason, self.out = verdict, reason, ""

    # -- kept in Redis

    def dump(self) -> dict[str, str]:
        """What has to be known to go on."""
        return {"plan": self.plan, **{name: str(getattr(self, name)) for name in _KEPT}}

    def load(self, kept: Mapping[str, str]) -> bool:
        """Go on from what is kept, if that is of the same plan and not over; whether it is."""
        if kept.get("plan") != self.plan or kept.get("verdict") not in ("", "too many texts"):
            return False
        for name in _KEPT:
            value: Any = kept.get(name, "")
            kind = type(getattr(self, name))
            setattr(self, name, value == "True" if kind is bool else kind(value) if value else kind())
        self.verdict, self.reason = "", ""
        return True


_KEPT: Final = (
    *("step", "tries", "out", "since", "moved", "sent", "answered", "said", "reported", "verdict", "reason"),
)
