"""
Roads that are made while they are driven on, and the car that drives there.

A road is a row of pieces: straights, bends, and corners at junctions, where a
car may have to stand for a while. A car keeps to what each piece allows,
accelerates and brakes as cars do, and looks far enough ahead to brake in time.
"""

from __future__ import annotations

import math
from collections import deque
from random import Random
from typing import Final, NamedTuple

METRES_PER_DEGREE: Final = 111_320.0
KMH_PER_MS: Final = 3.6

ACCELERATION_MS2: Final = 1.8
BRAKING_MS2: Final = 2.0
#: what a driver does who is surprised
HARD_BRAKING_MS2: Final = 3.5
#: how fast a bend is driven: with so much acceleration to the side
SIDEWAYS_MS2: Final = 2.5

#: A car is moved in steps of so many seconds.
_STEP_S: Final = 1.0
#: Further from home than this it turns back where it can.
_ROAM_M: Final = 15_000.0
_CORNER_M: Final = 14.0
#: Who brakes for a stop never quite gets there: so far from it is there.
_STOP_M: Final = 1.0
#: So much of the road is known ahead: enough to brake from any speed.
_AHEAD_M: Final = 500.0


class Road(NamedTuple):
    """
    A kind of road.

    @ivar straight_m: the shortest and the longest straight.
    @ivar radius_m: the narrowest and the widest bend.
    @ivar bend_deg: how far a bend turns at most; 0: there are none.
    @ivar junctions: whether there are any.
    """

    limit_kmh: float
    straight_m: tuple[float, float]
    radius_m: tuple[float, float]
    bend_deg: float
    junctions: bool


TOWN: Final = Road(50.0, (60.0, 250.0), (40.0, 150.0), 30.0, True)
COUNTRY: Final = Road(90.0, (200.0, 1000.0), (150.0, 500.0), 45.0, True)
MOTORWAY: Final = Road(130.0, (500.0, 2500.0), (900.0, 2000.0), 20.0, False)
#: Who turns round on it comes back to where he was.
STRAIGHT: Final = Road(50.0, (200.0, 800.0), (0.0, 0.0), 0.0, False)


class _Piece:
    """
    One piece of road.

    @ivar bend_ms: how fast its bend can be driven.
    @ivar left_m: how much of it is still ahead.
    @ivar stop_s: how long one stands at its end, 0 for not at all.
    """

    __slots__ = ("bend_deg", "bend_ms", "left_m", "length_m", "limit_ms", "stop_s")

    def __init__(self, length_m: float, limit_kmh: float, bend_deg: float = 0.0) -> None:
        self.length_m = self.left_m = length_m
        self.limit_ms = limit_kmh / KMH_PER_MS
        self.bend_deg = bend_deg
        radius_m = length_m / math.radians(abs(bend_deg)) if bend_deg else math.inf
        self.bend_ms = math.sqrt(SIDEWAYS_MS2 * radius_m)
        self.stop_s = 0.0


class Car:
    """
    A car on a road of its own.

    @ivar road: the kind of road that it takes next.
    @ivar haste: how its driver takes speed limits: 1.2 for a fifth too fast.
    @ivar stalled: whether its engine is cut, so that it stands whatever its driver does.
    """

    __slots__ = (
        "_ahead",
        "_going",
        "_home",
        "_laid_deg",
        "_random",
        "_standing_s",
        "course_deg",
        "haste",
        "latitude",
        "longitude",
        "mileage_m",
        "road",
        "speed_ms",
        "stalled",
    )

    def __init__(self, random: Random, latitude: float, longitude: float, road: Road = TOWN) -> None:
        self._random = random
        self._home = latitude, longitude
        self._ahead: deque[_Piece] = deque()
        self._going = False
        self._standing_s = 0.0
        self.latitude = latitude
        self.longitude = longitude
        self.course_deg = self._laid_deg = random.uniform(0.0, 360.0)
        self.speed_ms = 0.0
        self.mileage_m = random.uniform(0.0, 2e8)
        self.road = road
        self.haste = 1.0
        self.stalled = False

    @property
    def speed_kmh(self) -> float:
        """Its speed."""
        return self.speed_ms * KMH_PER_MS

    @property
    def stopping_m(self) -> float:
        """How far it still gets when it halts now; it brakes from the first step on."""
        return max(0.0, self.speed_ms**2 / (2 * BRAKING_MS2) - self.speed_ms * _STEP_S / 2)

    def go(self) -> None:
        """Drive on, until told to L{halt}."""
        self._going = True

    def halt(self) -> None:
        """Brake, and stay where that ends."""
        self._going = False

    def stall(self, latitude: float, longitude: float) -> None:
        """Stop here, and stay until the engine is not cut any more."""
        self.stalled = True
        self.latitude, self.longitude, self.speed_ms = latitude, longitude, 0.0

    def turn_round(self) -> None:
        """Take the road back, or what goes that way; of a car that stands."""
        self._ahead.clear()
        self.course_deg = self._laid_deg = (self.course_deg + 180.0) % 360.0

    def move(self, seconds: float) -> None:
        """Let time pass."""
        while seconds > 0.0 and not self.stalled and (self._going or self.speed_ms):
            self._step(min(_STEP_S, seconds))
            seconds -= _STEP_S

    def _step(self, seconds: float) -> None:
        if self._standing_s > 0.0:
            self._standing_s -= seconds
            return
        while sum(piece.left_m for piece in self._ahead) < _AHEAD_M:
            self._lay()
        target = self._allowed() if self._going else 0.0
        if self.speed_ms < target:
            self.speed_ms = min(target, self.speed_ms + ACCELERATION_MS2 * seconds)
        else:
            braking = HARD_BRAKING_MS2 if self._going else BRAKING_MS2
            self.speed_ms = max(target, self.speed_ms - braking * seconds)
        self._drive(self.speed_ms * seconds)

    def _allowed(self) -> float:
        """How fast one may be in this step, so that braking for what is ahead may begin after it."""
        allowed, distance, change = math.inf, 0.0, BRAKING_MS2 * _STEP_S
        for piece in self._ahead:
            limit = min(piece.limit_ms * self.haste, piece.bend_ms)
            reachable = math.sqrt(change**2 + limit**2 + 2 * BRAKING_MS2 * distance) - change
            allowed = min(allowed, max(limit, reachable))
            distance += piece.left_m
            if piece.stop_s:
                allowed = min(allowed, math.sqrt(change**2 + 2 * BRAKING_MS2 * distance) - change)
                break
        return allowed

    def _drive(self, metres: float) -> None:
        while metres > 0.0:
            piece = self._ahead[0]
            part = min(metres, piece.left_m)
            bend = piece.bend_deg * part / piece.length_m
            direction = math.radians(self.course_deg + bend / 2)
            self.latitude += part * math.cos(direction) / METRES_PER_DEGREE
            self.longitude += part * math.sin(direction) / (METRES_PER_DEGREE * math.cos(math.radians(self.latitude)))
            self.course_deg = (self.course_deg + bend) % 360.0
            self.mileage_m += part
            piece.left_m -= part
            metres -= part
            if piece.left_m <= (_STOP_M if piece.stop_s else 0.0):
                self._ahead.popleft()
                if piece.stop_s:
                    self.speed_ms, self._standing_s = 0.0, piece.stop_s
                    return

    def _lay(self) -> None:
        """Make the road up to the next junction and around it, or as much of one that has none."""
        random, road = self._random, self.road
        for _ in range(random.randint(1, 3)):
            self._ahead.append(_Piece(random.uniform(*road.straight_m), road.limit_kmh))
            if not road.bend_deg:
                continue
            angle = random.uniform(5.0, road.bend_deg)
            bend = self._choose((-angle, angle))
            length = random.uniform(*road.radius_m) * math.radians(angle)
            self._ahead.append(_Piece(length, road.limit_kmh, bend))
        if road.junctions:
            if random.random() < 0.5:
                self._ahead[-1].stop_s = random.uniform(2.0, 20.0)
            turn = self._choose((-90.0, 0.0, 90.0))
            self._ahead.append(_Piece(_CORNER_M, road.limit_kmh, turn))
            if random.random() < 0.2:
                self.road = COUNTRY if road is TOWN else TOWN

    def _choose(self, turns: tuple[float, ...]) -> float:
        """One of these turns; far from home that which leads there."""
        north = (self._home[0] - self.latitude) * METRES_PER_DEGREE
        east = (self._home[1] - self.longitude) * METRES_PER_DEGREE * math.cos(math.radians(self.latitude))
        if math.hypot(north, east) > _ROAM_M:
            back = math.degrees(math.atan2(east, north))
            turn = min(turns, key=lambda turn: abs((self._laid_deg + turn - back + 180.0) % 360.0 - 180.0))
        else:
            turn = self._random.choice(turns)
        self._laid_deg = (self._laid_deg + turn) % 360.0
        return turn
