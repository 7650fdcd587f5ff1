"""From the frames of one device to what counts for its commands: that it stands, and what its relay does, live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.downlink.guard import Track
from gateway.downlink.outcome import Report
from gateway.interfaces import Message
from gateway.judging import Steady, is_newest
from gateway.session import FROZEN_GAP_S, Envelope, Session


class Sightings:
    """
    What its live reports say.

    @ivar track: of its speed, where it has a relay that commands may cut.
    """

    __slots__ = ("_elapsed", "_newest", "_seconds", "_session", "track")

    def __init__(
        self, session: Session, seconds: Callable[[], float], elapsed: Callable[[], float], track: Track | None
    ) -> None:
        """
        @param seconds: the time of day, UTC epoch seconds.
        @param elapsed: seconds of a clock that nobody sets.
        """
        self._session = session
        self._seconds = seconds
        self._elapsed = elapsed
        self.track = track
        #: where its newest live report came from, and when: elapsed, and UTC epoch seconds
        self._newest: tuple[Any, float, float] = (None, 0.0, 0.0)

    def steady(self, message: Message, report: Steady, received: float) -> Report:
        """A live report that says what the one before it said, but for where and when."""
        digest, time, _, going, latitude, longitude, speed_kmh = report
        at = self.at(received)
        self._newest = self._session.link, at, received
        if self.track is not None:
            if message.events[0].attributes.get("valid"):
                made = at - max(received - time, 0.0) if going else at
                self.track.see(made, speed_kmh, latitude, longitude, not going)
            else:
                self.track.forget("fix", "its newest report has no valid fix")
        return Report(at, time if going else None, self._session.said, digest.hex())

    def judged(self, message: Message, first: Envelope, received: float) -> Report | None:
        """Any other frame, with the first of the events that it led to; None: it says nothing of now."""
        at = self.at(received)
        if self._session.copy or "repeat_of" in first.attributes:
            return self._again(message, first, at, received)
        if "late" in first.attributes or first.type not in ("position", "status"):
            return None
        attributes = first.attributes
        source = attributes.get("time_source")
        frozen = attributes.get("clock") == "frozen"
        believed = source != "server" or frozen
        track = self.track
        if first.type == "position":
            self._newest = self._session.link, at, received
            if track is None:
                pass
            elif not believed:
                track.forget("time", "the time of its newest report is refused")
            elif attributes.get("valid") and "speed_kmh" in attributes and "latitude" in attributes:
                # what was long on its way says what was then
                made = at if source == "server" else at - max(received - first.time, 0.0)
                track.see(made, attributes["speed_kmh"], attributes["latitude"], attributes["longitude"], frozen)
            else:
                track.forget("fix", "its newest report has no valid fix")
        if not (believed or first.type == "status") or not message.levels or message.answer is not None:
            return None
        return Report(at, None if source == "server" else first.time, message.levels, first.digest.hex())

    def _again(self, message: Message, first: Envelope, at: float, received: float) -> Report | None:
        """
        Its newest report came again, to the byte: so says a parked unit whose clock stands still that it is there.

        It has to come on the same connection, when the one before was answered, and some time after it: what is sent
        again because its answer was lost may be of a vehicle that moves.  Over UDP that can't be told apart.
        """
        session = self._session
        event = message.events[0] if message.events else None
        if event is None or event.type != "position" or event.time is None or "late" in event.attributes:
            return None
        if not is_newest(session, event.time, received) or session.link.windowed:
            return None
        link, before, received_before = self._newest
        if link is not session.link:
            self._newest = session.link, at, received  # from here on it can be told
            return None
        if at - before < FROZEN_GAP_S or session.answered < received_before:
            return None
        self._newest = session.link, at, received
        take = event.attributes
        if self.track is not None and take.get("valid") and "speed_kmh" in take and "latitude" in take:
            self.track.see(at, take["speed_kmh"], take["latitude"], take["longitude"], True)
        if not message.levels or message.answer is not None:
            return None
        return Report(at, None, message.levels, first.digest.hex())

    def at(self, received: float) -> float:
        """A time of receiving, UTC epoch seconds, on the clock that nobody sets."""
        return self._elapsed() - max(self._seconds() - received, 0.0)
