"""Between which knots of a piecewise linear curve many numbers lie."""

from __future__ import annotations

import numpy as np

from sigmax.arrays import Floats, Ints

__all__ = ["Knots"]

#: Numbers from which a table of cells is quicker than a search of its own for each.
MANY = 4096
#: Cells, and knots in one cell, at most: with more, each number is searched for.
CELLS, CROWDED = 2**14, 4


class Knots:
    """Knots of a curve that never falls, and its pieces: piece i ends at knot i and begins at the one before.

    Args:
        places: (k,) never falling, k at least 1.
        heights: (k,) of the curve there.
    """

    def __init__(self, places: Floats, heights: Floats) -> None:
        pieces = np.arange(max(len(places), 2))
        low, high = np.maximum(pieces - 1, 0), np.minimum(pieces, len(places) - 1)
        self.places = places
        self.starts, self.gaps = places[low], places[high] - places[low]
        self.feet, self.tops, self.rises = heights[low], heights[high], heights[high] - heights[low]
        width = float(places[-1] - places[0])
        self._factor = CELLS / width if width > 0 else 0.0
        self._first: Ints | None = None
        if 0 < self._factor < np.inf:
            cells = self._cells(places)
            crowd = int(np.bincount(cells).max())
            if crowd <= CROWDED:
                # A number lies right of every knot in an earlier cell: what rises with the number never falls.
                self._first = np.searchsorted(cells, np.arange(CELLS))
                self._crowd, self._padded = crowd, np.append(places, np.inf)

    def before(self, x: Floats) -> Ints:
        """Return how many knots are at most each number, as `np.searchsorted(places, x, side="right")` does.

        Args:
            x: of any shape, from the first knot to the last.
        """
        if self._first is None or x.size < MANY:
            return np.searchsorted(self.places, x, side="right")
        found: Ints = self._first[self._cells(x)]
        for _ in range(self._crowd):
            found += self._padded[found] <= x
        return found

    def _cells(self, x: Floats) -> Ints:
        cells: Ints = np.minimum(((x - self.places[0]) * self._factor).astype(np.int64), CELLS - 1)
        return cells
