"""For how long after a device on UDP was heard the way down to it is open, as it is learned of each."""

from __future__ import annotations

from typing import Final

from gateway.session import Session

#: Seconds until more is known; and a cut, which is never repeated, is sent within so many.
NAT_S: Final = 20.0
NAT_SURE_S: Final = 10.0
#: How far beyond what has worked the next command goes, and how far it ever goes; s.
NAT_STEP: Final = 1.5
NAT_MOST_S: Final = 300.0
#: It is never taken for shorter: a command leaves a second after the reply, which waits for Redis.
NAT_LEAST_S: Final = 3.0


def open_for(session: Session, again: bool) -> float:
    """
    Seconds after it was heard within which a device is told something.

    @param again: whether what is lost is told again.
    """
    known_s = session.nat_s or NAT_S
    return min(known_s * NAT_STEP, NAT_MOST_S) if again else min(known_s, NAT_SURE_S)


def reached(session: Session, age_s: float) -> None:
    """It got what was sent so many seconds after it had been heard."""
    session.nat_s = max(session.nat_s or NAT_S, min(age_s, NAT_MOST_S))


def missed(session: Session, age_s: float) -> None:
    """It did not answer what was sent so many seconds after it had been heard."""
    session.nat_s = max(min(age_s, NAT_S) / 2, NAT_LEAST_S)
