"""What becomes of a command: its steps on the stream of results, as they come and as they were, and in words."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import hiredis

from gateway import entries
from gateway.errors import NotReady, Refused
from gateway.sinks.blocking import Address, BlockingRedis

#: Seconds for which Redis may owe an answer, and after which it is tried again.
TIMEOUT_S: Final = 5.0
AGAIN_S: Final = 1.0
#: How long a read of the results waits for news, in seconds.
BLOCK_S: Final = 1.0
#: Seconds of silence after which it is looked whether a gateway is running at all, at first and from then on.
QUIET_S: Final = 5.0
STILL_QUIET_S: Final = 15.0
#: So many reads without news, and the request is final all the same: its last event does not come any more.
GONE: Final = 3
PAGE: Final = 1000

#: How a command ends when all is well.
GOOD: Final = frozenset({"confirmed", "verified"})
#: What a step says where it gives no reason.
PLAIN: Final[Mapping[str, str]] = {
    "queued": "waits",
    "sending": "is being sent",
    "sent": "waits for the device's answer",
    "confirmed": "the device says that it did it",
    "verified": "a later report proves it",
    "mismatch": "a later report disproves it",
    "failed": "it can't be done",
    "expired": "its time is over",
    "superseded": "another command takes its place",
    "cancelled": "taken back",
    "refused": "not sent",
    "sms.sent": "the provider has the text",
    "sms.delivered": "the text has arrived",
    "sms.failed": "the text was not sent, or not delivered",
    "sms.received": "the device answers",
}
#: That Redis is away for a moment.
AWAY: Final = (OSError, NotReady, hiredis.ProtocolError)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Step(NamedTuple):
    """
    An event of a command.

    @ivar entry: its id on the stream of results.
    @ivar data: its C{data}, read.
    """

    entry: str
    fields: Mapping[str, str]
    data: Mapping[str, Any]

    @classmethod
    def read(cls, entry: bytes, row: Sequence[bytes]) -> Step:
        """An entry as Redis gives it."""
        fields = entries.row(row)
        return cls(entry.decode(), fields, entries.data_of(fields))

    @property
    def state(self) -> str:
        """What it says: C{sent} of C{command.sent}."""
        return self.fields.get("type", "").removeprefix("command.")

    @property
    def final(self) -> bool:
        """Whether it is the last one."""
        return self.data.get("final") is True

    @property
    def object(self) -> dict[str, Any]:
        """For machines."""
        return {"entry": self.entry, **self.fields, "data": self.data}

    def line(self, dated: bool = False) -> str:
        """For people: when, and what; not yet fit for a terminal."""
        at = self.fields.get("time", "")
        shown = at[11:23] if _TIME.fullmatch(at) and not dated else at
        return f"{shown} {self.state}: {'; '.join(self._words(at))}"

    def _words(self, at: str) -> Iterator[str]:
        data, state = self.data, self.state
        if state == "queued" and "expires" in data and "reason" not in data:
            yield f"waits until {clock(data['expires'], at)}"
        else:
            yield str(data.get("reason") or PLAIN.get(state, "?"))
        if state == "confirmed" and not self.final:
            yield "a later report has to prove it"
        if isinstance(data.get("attempt"), int) and data["attempt"] > 1:
            yield f"attempt {data['attempt']}"
        if data.get("channel") == "sms" and not state.startswith("sms."):
            yield "by SMS"
        if state == "sms.received" and "raw_text" in data:
            yield f"it says {data['raw_text']}"
        if "reply_text" in data:
            yield f"it says {data['reply_text']}"
        if "superseded_by" in data:
            yield f"superseded by {data['superseded_by']}"
        if "next_report" in data:
            yield f"its next report is expected at {clock(data['next_report'], at)}"
        if "warning" in data:
            yield f"warning: {data['warning']}"


def clock(moment: Any, at: str) -> str:
    """A time of the day when it is of the same day as C{at}, else all of it."""
    text = str(moment)
    return text[11:19] if _TIME.fullmatch(text) and text[:10] == at[:10] else text


class Life:
    """The life of one command in Redis, by its reference.  What it asks may fail as any question to Redis may."""

    def __init__(self, address: Address, prefix: str, ref: str) -> None:
        self.ref = ref
        self._address = address
        self._prefix = prefix
        self._results = f"{prefix}:result"
        self._client: BlockingRedis | None = None
        self._last = "0-0"

    def ask(self, *args: str) -> Any:
        """Send a command, over a new connection where there is none."""
        if self._client is None:
            self._client = self._address.connect(TIMEOUT_S)
        try:
            return self._client.command(*args)
        except AWAY:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def mark(self) -> None:
        """Results from now on are news."""
        newest = self.ask("XREVRANGE", self._results, "+", "-", "COUNT", "1")
        self._last = newest[0][0].decode() if newest else "0-0"

    def add(self, fields: Mapping[str, str]) -> str:
        """Give the command; the id of its entry."""
        row = [text for pair in fields.items() for text in pair]
        found: bytes = self.ask("XADD", f"{self._prefix}:command", "*", *row)
        return found.decode()

    def present(self) -> dict[str, str]:
        """What C{gateway:request:<ref>} says; empty: nothing is known of it."""
        return entries.row(self.ask("HGETALL", f"{self._prefix}:request:{self.ref}"))

    def past(self, entry: str) -> Iterator[Step]:
        """Its steps until now, oldest first; what comes after them is news.  C{entry}: where the command stands."""
        # each result of a command is stored later than its entry, by the clock of the same server
        self._last = "0-0"
        start = entry.partition("-")[0] if re.fullmatch(r"\d{1,20}-\d{1,20}", entry) else "-"
        while rows := self.ask("XRANGE", self._results, start, "+", "COUNT", str(PAGE)):
            yield from self._mine(rows)
            start = f"({self._last}"

    def news(self, seconds: float) -> list[Step]:
        """Wait so long for steps that were not read yet."""
        ms = str(max(1, int(seconds * 1000)))
        answer = self.ask("XREAD", "COUNT", str(PAGE), "BLOCK", ms, "STREAMS", self._results, self._last)
        return [step for _, rows in answer or () for step in self._mine(rows)]

    def _mine(self, rows: Sequence[Any]) -> list[Step]:
        found = []
        for entry, row in rows:
            self._last = entry.decode()
            step = Step.read(entry, row)
            if step.data.get("ref") == self.ref:
                found.append(step)
        return found

    def anybody(self) -> bool | None:
        """Whether a gateway is running; None: this user may not see that."""
        cursor = b"0"
        try:
            while True:
                cursor, some = self.ask("SCAN", cursor.decode(), "MATCH", f"{self._prefix}:instance:*", "COUNT", "1000")
                if some:
                    return True
                if cursor == b"0":
                    return False
        except Refused:
            return None


class Follower:
    """
    Waits for the end of a command, through outages of Redis, and says what happens.

    @ivar taken: whether a gateway is known to have it.
    """

    def __init__(
        self, life: Life, show: Callable[[Step], None], notice: Callable[[str], None], taken: bool = False
    ) -> None:
        """
        Make it.

        @param show: is given each step.
        @param notice: is given, in words, what is no step.
        """
        self._life = life
        self._show = show
        self._notice = notice
        self.taken = taken
        self._said = ""
        self._gone = 0

    def follow(self, seconds: float | None) -> str | None:
        """
        Wait for so long at most; None: until the end.

        @return: how it ended; None: that is not known.
        @raise Refused: Redis does not let us in any more.
        """
        end = None if seconds is None else time.monotonic() + seconds
        heard, patience = time.monotonic(), QUIET_S
        while end is None or time.monotonic() < end:
            left = BLOCK_S if end is None else min(BLOCK_S, end - time.monotonic())
            try:
                steps = self._life.news(left)
                for step in steps:
                    self.taken = True
                    self._show(step)
                    if step.final:
                        return step.state
                if steps:
                    heard, patience, self._gone = time.monotonic(), QUIET_S, 0
                elif (state := self._ended()) is not None:
                    return state
                elif time.monotonic() - heard > patience:
                    heard, patience = time.monotonic(), STILL_QUIET_S
                    if not self._somebody():
                        return None
            except AWAY as error:
                self._say(f"Redis is away: {error}; trying again")
                time.sleep(max(0.0, min(AGAIN_S, left)))
        self._say("the time to wait is over")
        return None

    def _ended(self) -> str | None:
        """How it ended, where its last event can't be read any more: a failover lost it, or it was trimmed."""
        present = self._life.present()
        self.taken = self.taken or bool(present)
        self._gone = self._gone + 1 if present.get("final") == "1" else 0
        if self._gone < GONE:
            return None
        self._say(f"{present.get('state', '?')}, says its request; the event of it is not there")
        return present.get("state", "?")

    def _somebody(self) -> bool:
        """Whether there may be a gateway that takes it or has it; says what is known of that."""
        running = self._life.anybody()
        if running is None:
            what = "no news" if self.taken else "no gateway has taken it yet"
            self._say(f"{what}; whether one is running this user may not see")
        elif running and not self.taken:
            self._say("a gateway is running, but has not taken it yet")
        elif not running:
            self._say(f"no gateway is running, as far as Redis knows{'; waiting for one' if self.taken else ''}")
            return self.taken
        return True

    def _say(self, text: str) -> None:
        """Say it, unless it was the last thing said."""
        if text != self._said:
            self._said = text
            self._notice(text)
