"""Bins of presences: where their edges lie, and what each query has in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Floats, Ints

__all__ = ["BINS", "expected_edges", "mass_edges", "sums_by_place"]

BINS = 15
#: Pairs that are weighted at a time.
BLOCK = 2**18


def mass_edges(presence: Floats, bins: int = BINS, *, weights: Floats | None = None) -> Floats:
    """Return the inner edges of `bins` bins that hold equally many of the given presences, counted by weight."""
    if weights is not None:
        order = np.argsort(presence)
        mass = weights[order]
        return _edges(presence, order, mass, bins)
    edges: Floats = np.quantile(presence, np.arange(1, bins) / bins)
    return edges


def expected_edges(presence: Floats, weights: Floats | None = None) -> Floats:
    """Return the inner edges of `BINS` bins in each of which equally many right pairs are expected.

    The presences in each add up to equally much. Bins of equally many pairs would lump all that is likely together,
    where most pairs are wrong.
    """
    order = np.argsort(presence)
    mass = presence[order]
    if weights is not None:
        for start in range(0, len(order), BLOCK):
            some = slice(start, start + BLOCK)
            mass[some] *= weights[order[some]]
    return _edges(presence, order, mass, BINS)


def _edges(presence: Floats, order: Ints, mass: Floats, bins: int) -> Floats:
    """Presences, in their order, at which equal parts of the mass end; the mass is added up in place."""
    np.cumsum(mass, out=mass)
    places = np.searchsorted(mass, mass[-1] * np.arange(1, bins) / bins)
    edges: Floats = presence[order[np.minimum(places, len(order) - 1)]]
    return edges


def sums_by_place(places: Ints, values: NDArray[Any] | None, size: int) -> Floats:
    """Count, for (b, m) places in [0, size), how many there are of each, or add up their values: (b, size)."""
    flat = (np.arange(len(places))[:, None] * size + places).ravel()
    values = None if values is None else values.ravel()
    return np.bincount(flat, values, len(places) * size).reshape(-1, size).astype(float)
