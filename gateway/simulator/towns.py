"""Where cars are at home, and the cells of the mobile networks there."""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.simulator.frames import Cell, Neighbour
from gateway.simulator.roads import METRES_PER_DEGREE

_CELL_M: Final = 2_000.0
_AREA_M: Final = 20_000.0
_CELLS: Final = 60_000


class Town(NamedTuple):
    """Where some of the cars are at home, and what network there is."""

    latitude: float
    longitude: float
    mcc: int
    mnc: int

    def cell(self, latitude: float, longitude: float, tower: int) -> Cell:
        """
        A cell that is heard at a place.

        @param tower: which of them.
        """
        north = (latitude + 90) * METRES_PER_DEGREE
        east = (longitude + 180) * METRES_PER_DEGREE
        area = int(north / _AREA_M) * 7 + int(east / _AREA_M)
        cell = int(north / _CELL_M) * 11 + int(east / _CELL_M) * 3 + tower
        return Cell(self.mcc, self.mnc, 1 + area % _CELLS, 1 + cell % _CELLS)


#: North and south, east and west; far enough inland for roads of any kind.
TOWNS: Final = (
    Town(52.5200, 13.4050, 262, 1),  # Berlin
    Town(40.4168, -3.7038, 214, 3),  # Madrid
    Town(23.8103, 90.4125, 470, 1),  # Dhaka
    Town(-1.2921, 36.8219, 639, 2),  # Nairobi
    Town(-15.7939, -47.8828, 724, 5),  # Brasilia
    Town(-26.2041, 28.0473, 655, 1),  # Johannesburg
)


def heard(serving: Cell, count: int) -> tuple[Neighbour, ...]:
    """The serving cell and others of its area, each heard less well than the one before."""
    return tuple(Neighbour(serving.lac, 1 + (serving.cid - 1 + 9 * n) % _CELLS, 40 - 6 * n) for n in range(count))
