"""
What one tracker keeps until it is acknowledged.

An acknowledgement names the device, and perhaps the kind of frame, but not the frame: of
several that are outstanding on one connection it is for the oldest. So nothing
is sent twice on one connection: an answer to the first copy would be taken for
the answer to something else. Whoever waits in vain makes a new connection, or
over UDP takes a new port, where old answers can't arrive.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from gateway.simulator.downlink import acknowledges


class Kept:
    """A report that is not acknowledged yet: how often it was sent, and when last, UTC epoch seconds."""

    __slots__ = ("frame", "sent_at", "times")

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.times = 0
        self.sent_at = 0.0


class Outbox:
    """
    The reports of one tracker that are not acknowledged yet, oldest first.

    @ivar outstanding: how many of them were sent on the present connection.
    """

    __slots__ = ("_ident", "_kept", "_room", "_window", "outstanding")

    def __init__(self, ident: str, window: int, room: int) -> None:
        """
        @param window: how many may be outstanding at a time.
        @param room: how many are kept.
        """
        self._ident = ident
        self._window = window
        self._room = room
        self._kept: deque[Kept] = deque()
        self.outstanding = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, frame: bytes) -> bool:
        """Keep a report; False when the oldest that is not under way was given up to make room."""
        self._kept.append(Kept(frame))
        if len(self._kept) <= self._room:
            return True
        del self._kept[self.outstanding]
        return False

    def due(self, now: float) -> list[Kept]:
        """What is to be written now."""
        reports = list(islice(self._kept, self.outstanding, self._window))
        for report in reports:
            report.times += 1
            report.sent_at = now
        self.outstanding += len(reports)
        return reports

    def disconnected(self) -> None:
        """The connection is gone, with all that was outstanding on it."""
        self.outstanding = 0

    def receive(self, answer: bytes) -> Kept | None:
        """The report that this answer acknowledges; None when it is none of ours."""
        if self.outstanding and acknowledges(answer, self._ident, self._kept[0].frame):
            self.outstanding -= 1
            return self._kept.popleft()
        return None

    def waiting_since(self) -> float | None:
        """When the oldest report that is outstanding was sent; None when there is none."""
        return self._kept[0].sent_at if self.outstanding else None
