"""How often a tracker reports: as it is set up, until a command says otherwise."""

from __future__ import annotations


class Pace:
    """
    The time between two reports of a tracker.

    @ivar seconds: what it is now.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = self._usual = seconds
        self._left = 0

    def change(self, seconds: float, reports: int) -> None:
        """Report so often from now on; with C{reports} so many times, and then as before."""
        self.seconds = seconds
        self._left = reports
        if not reports:
            self._usual = seconds

    def next(self) -> float:
        """How long it is to the next report."""
        seconds = self.seconds
        if self._left:
            self._left -= 1
            if not self._left:
                self.seconds = self._usual
        return seconds
