"""
Which device speaks: asks the detectors about the first bytes, and keeps why it decided as it did.

A stream is judged at every prefix in turn, so that the answer never depends
on how the network cut it; a datagram is judged whole.  The rules are those of
the design: commit at 80 with every other live answer at least 15 lower, or at
60 when one is left; silence may commit at 50 but never rejects; at the limit
or the end the best YES of 50 or more commits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.errors import PluginError
from gateway.interfaces import MORE, NO, YES, Answer, Transport
from gateway.registry import Plugin

CERTAIN: Final = 80
CLEAR_LEAD: Final = 15
LONE: Final = 60
ENOUGH: Final = 50

#: Bytes that some firmware sends before its first frame, and how many of them are skipped.
LEADING: Final = b"\r\n\0"
LEADING_LIMIT: Final = 16


#: A device's name, after how many bytes it was asked last, and what it answered.
Asked = tuple[str, int, Answer]


class Decision(NamedTuple):
    """
    The outcome of detection.

    @ivar plugin: whose it is, or None: nobody's.
    @ivar runner_up: who is tried when the first frame turns out not to be C{plugin}'s.
    @ivar at: after how many bytes it was made.
    @ivar answers: name, byte and answer of each candidate, its last.
    """

    plugin: Plugin | None
    runner_up: Plugin | None
    confidence: int
    reason: str
    at: int
    answers: tuple[Asked, ...]

    @property
    def trail(self) -> tuple[str, ...]:
        """What each candidate answered last, for whoever asks why."""
        return tuple(f"{name}: {_spelled(answer)} at byte {at}" for name, at, answer in self.answers)


def skip_leading(data: bytes) -> int:
    """How many bytes stand before a stream's first frame."""
    if not data or data[0] not in LEADING:
        return 0
    limit = min(len(data), LEADING_LIMIT)
    n = 0
    while n < limit and data[n] in LEADING:
        n += 1
    return n


class Candidates:
    """
    Who may speak on a transport, by the first byte.

    A NO is final for every longer prefix, so what a device says of each single
    byte is asked once, here; streams and datagrams then only ask those that
    did not say NO to theirs.

    @raise PluginError: when a device raises.
    """

    def __init__(self, plugins: Sequence[Plugin], transport: Transport) -> None:
        self.transport = transport
        #: how often it was decided for which device; "": for none
        self.decided: Counter[str] = Counter()
        self._live: list[tuple[Plugin, ...]] = []
        self._refusals: list[tuple[Asked, ...]] = []
        for value in range(256):
            answers = [(plugin, self._asked(plugin, bytes((value,)))) for plugin in plugins]
            self._live.append(tuple(plugin for plugin, answer in answers if type(answer) is not NO))
            self._refusals.append(tuple((plugin.name, 1, answer) for plugin, answer in answers if type(answer) is NO))

    def _asked(self, plugin: Plugin, first: bytes) -> Answer:
        try:
            return plugin.detect(first, self.transport)
        except Exception as error:  # foreign code
            what = f"detect fails on {first!r}: {type(error).__name__}: {error}"
            raise PluginError(plugin.name, plugin.origin, what) from error

    def of(self, first: int) -> tuple[tuple[Plugin, ...], tuple[Asked, ...]]:
        """Who is left after a first byte, and what the others said."""
        return self._live[first], self._refusals[first]


class Detector:
    """The state of one detection."""

    __slots__ = ("_answers", "_asked", "_candidates", "_data", "_limit", "_live", "_refusals", "decision")

    def __init__(self, candidates: Candidates, limit: int) -> None:
        self._candidates = candidates
        self._live: Sequence[Plugin] = ()
        self._refusals: tuple[Asked, ...] | None = None
        self._answers: dict[str, tuple[int, Answer]] = {}
        self._limit = limit
        self._data = b""
        self._asked = 0
        self.decision: Decision | None = None

    def count(self, decision: Decision) -> None:
        """A decision holds: it is counted."""
        self._candidates.decided["" if decision.plugin is None else decision.plugin.name] += 1

    @property
    def data(self) -> bytes:
        """What was seen so far, to be replayed into the decoder."""
        return self._data

    def feed(self, data: bytes) -> Decision | None:
        """Take more of the stream; the decision, once there is one."""
        self._data += data
        start = skip_leading(self._data)
        end = min(len(self._data), self._limit)
        for size in range(max(self._asked, start) + 1, end + 1):
            self._asked = size
            if self._ask(self._data[start:size], size):
                return self.decision
        if len(self._data) >= self._limit:
            return self.end("the limit")
        return None

    def whole(self, data: bytes, hint: str | None = None) -> Decision:
        """Judge a datagram, all of which is here; C{hint}: the device that this peer turned out to be before."""
        self._data = data
        start = skip_leading(data)
        size = self._asked = min(len(data), self._limit)
        if self._ask(data[start:size], size):
            assert self.decision is not None
            return self.decision
        return self.end("the end of the datagram", hint)

    def silence(self) -> Decision | None:
        """Two seconds without a byte: may commit, never rejects."""
        best = self._ranked()
        if best and isinstance(best[0][1], YES) and best[0][1].confidence >= ENOUGH:
            return self._commit(best, "after a silence")
        return None

    def end(self, why: str, hint: str | None = None) -> Decision:
        """No more bytes will help: commit to the best YES, or to nobody."""
        best = [pair for pair in self._ranked() if isinstance(pair[1], YES) and pair[1].confidence >= ENOUGH]
        if hint is not None:  # worth as much as the lead that commits without one
            best.sort(key=lambda pair: -_worth(pair[1]) - CLEAR_LEAD * (pair[0].name == hint))
        if best:
            return self._commit(best, f"at {why}")
        live = "; ".join(f"{p.name}: {a.reason}" for p, a in self._ranked())
        return self._decide(None, None, 0, f"nobody by {why}" + (f" ({live})" if live else ""))

    def _ask(self, prefix: bytes, size: int) -> bool:
        """Ask every live candidate about this prefix; whether that settled it."""
        if not prefix:
            return False
        if self._refusals is None:
            self._live, self._refusals = self._candidates.of(prefix[0])
        if len(self._live) == 1:
            return self._ask_last(self._live[0], prefix, size)
        live: list[Plugin] = []
        for plugin in self._live:
            answer = plugin.detect(prefix, self._candidates.transport)
            self._answers[plugin.name] = (size, answer)
            if type(answer) is not NO:
                live.append(plugin)
        self._live = live
        if not live:
            self._decide(None, None, 0, "every device said no")
            return True
        if len(live) == 1:
            return self._lone(live[0], self._answers[live[0].name][1])
        best = self._ranked()
        first = best[0][1]
        if type(first) is YES and first.confidence >= CERTAIN and _worth(best[1][1]) <= first.confidence - CLEAR_LEAD:
            self._commit(best, "")
            return True
        return False

    def _ask_last(self, plugin: Plugin, prefix: bytes, size: int) -> bool:
        """Ask the one candidate that is left."""
        answer = plugin.detect(prefix, self._candidates.transport)
        self._answers[plugin.name] = (size, answer)
        if type(answer) is NO:
            self._live = ()
            self._decide(None, None, 0, "every device said no")
            return True
        return self._lone(plugin, answer)

    def _lone(self, plugin: Plugin, answer: Answer) -> bool:
        if type(answer) is YES and answer.confidence >= LONE:
            self._decide(plugin, None, answer.confidence, answer.reason)
            return True
        return False

    def _ranked(self) -> list[tuple[Plugin, Answer]]:
        """The live candidates with their last answers, best first."""
        pairs = [(p, self._answers[p.name][1]) for p in self._live if p.name in self._answers]
        return sorted(pairs, key=lambda pair: (-_worth(pair[1]), type(pair[1]) is not YES, pair[0].priority))

    def _commit(self, best: list[tuple[Plugin, Answer]], when: str) -> Decision:
        plugin, answer = best[0]
        runner_up = next((p for p, a in best[1:] if type(a) is YES and a.confidence >= ENOUGH), None)
        reason = f"{answer.reason}, {when}" if when else answer.reason
        return self._decide(plugin, runner_up, _worth(answer), reason)

    def _decide(self, plugin: Plugin | None, runner_up: Plugin | None, confidence: int, reason: str) -> Decision:
        answers = (*(self._refusals or ()), *((name, at, answer) for name, (at, answer) in self._answers.items()))
        decision = Decision(plugin, runner_up, confidence, reason, self._asked, answers)
        self.decision = _one(decision, tuple(type(answer) for _, _, answer in answers))
        return self.decision


@lru_cache(maxsize=256)
def _one(decision: Decision, kinds: tuple[type, ...]) -> Decision:
    """
    The same object for equal ones: each connection keeps its own, and nearly all are alike.

    @param kinds: of its answers, whose values alone don't tell a MORE from a YES.
    """
    return decision


def _worth(answer: Answer) -> int:
    if type(answer) is YES:
        return answer.confidence
    return answer.claim if type(answer) is MORE else 0


def _spelled(answer: Answer) -> str:
    worth = "" if type(answer) is NO else f" {_worth(answer)}"
    return f"{type(answer).__name__}{worth}, {answer.reason}"
