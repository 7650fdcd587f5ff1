"""Whether a vehicle stands: what its newest live reports say of its speed, and whether that is enough for a guard."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from gateway.commands import Guard
from gateway.fields import metres_between

#: Reports that come closer than this are seen as one, with the greater speed.
GRAIN_S: Final = 1.0
#: So many are remembered at most: a guard that wants reports further apart than these go back is not met.
REMEMBERED: Final = 128


#: Two fixes of a vehicle that stands may be so far apart.
NOISE_M: Final = 100.0


class Hurdle(NamedTuple):
    """
    Why a guard is not met.

    @ivar why: in one word: C{moving}, C{stale}, C{fix}, C{time}, C{few}.
    """

    why: str
    reason: str


class Track:
    """
    The live reports of one vehicle with a valid fix, as far back as a guard has to look.

    @ivar apart_s: how far that is.  All times are seconds of a clock that nobody sets.
    """

    __slots__ = ("_hurdle", "_place", "_reports", "apart_s")

    def __init__(self, apart_s: float) -> None:
        self.apart_s = apart_s
        #: when received, speed, latitude and longitude; the oldest first
        self._reports: list[tuple[float, float, float, float]] = []
        self._place: tuple[float, float, float] | None = None
        self._hurdle = Hurdle("few", "no live report with a valid fix yet")

    def see(self, received: float, speed_kmh: float, latitude: float, longitude: float, frozen: bool) -> None:
        """
        A live report with a valid fix.

        @param received: when that was, or when it was made, where its device's clock says that this was before.
        @param frozen: its device's clock stands still.
        """
        place = (latitude, longitude, speed_kmh)
        if frozen and self._place is not None and place != self._place:
            self.forget("time", "its clock stands still, and its place or speed changes")
        self._place = place
        reports = self._reports
        if reports and abs(received - reports[-1][0]) < GRAIN_S:
            # the time of the first: what is far enough from that is far enough from both
            reports[-1] = (reports[-1][0], max(reports[-1][1], speed_kmh), latitude, longitude)
            return
        if reports and received < reports[-1][0]:  # which is newer is not known
            reports.clear()
        reports.append((received, speed_kmh, latitude, longitude))
        while len(reports) > 2 and (received - reports[1][0] >= self.apart_s or len(reports) > REMEMBERED):
            del reports[0]

    def forget(self, why: str, reason: str) -> None:
        """A report that proves nothing, or the contrary: only what comes after it counts."""
        self._reports.clear()
        self._place = None
        self._hurdle = Hurdle(why, reason)

    def hurdle(self, guard: Guard, now: float) -> Hurdle | None:
        """What the guard wants and is not there; None: it is met."""
        reports = self._reports
        if not reports:
            return self._hurdle
        newest, speed_kmh, latitude, longitude = reports[-1]
        if not 0.0 <= now - newest <= guard.max_age_s:
            return Hurdle("stale", f"the newest valid report is {now - newest:.0f} s old")
        if speed_kmh > guard.max_speed_kmh:
            return Hurdle("moving", f"moving at {speed_kmh:.0f} km/h")
        for received, earlier_kmh, *place in reversed(reports[:-1]):
            if earlier_kmh > guard.max_speed_kmh:
                return Hurdle(
                    "moving", f"moved at {earlier_kmh:.0f} km/h {newest - received:.0f} s before its newest report"
                )
            if newest - received >= guard.min_apart_s:
                metres = max(metres_between(latitude, longitude, *place) - NOISE_M, 0.0)
                between_kmh = 3.6 * metres / (newest - received) if newest > received else 0.0
                if between_kmh <= guard.max_speed_kmh:
                    return None
                return Hurdle(
                    "moving",
                    f"{metres / 1000:.1f} km from where it was {newest - received:.0f} s before: moved meanwhile",
                )
        return Hurdle("few", f"no second valid report {guard.min_apart_s:g} s before the newest one")

    def evidence(self, now: float) -> dict[str, Any]:
        """The reports that a met guard goes by: ages in seconds, speeds in km/h."""
        return {
            "reports": [{"age_s": round(now - at, 1), "speed_kmh": round(kmh, 2)} for at, kmh, *_ in self._reports[-3:]]
        }
