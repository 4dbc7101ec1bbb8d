"""A query's logits over very many candidates in few numbers, for all that is computed from sums over pairs.

Kept exactly, one by one: the right pairs, the best candidate, and about `HEAD` of the highest logits. All others are
pooled: bins of equal width between the lowest logit and the highest, each standing for its pairs by their number and
their mean logit. A sum Σ f(s) over the pairs of a bin of width h is off by at most h²/8 · n · max |f″|, and for an f
that is linear over the bin by nothing at all: with f = eˢ and logits over a range of 40, by 1e-5 of what is pooled.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints

__all__ = ["BINS", "HEAD", "Condensed", "condense", "joined"]

#: Highest logits of a query that are kept one by one: half as many at least, unless more than that are nearly equal.
HEAD = 512
#: Bins from a query's lowest logit to its highest.
BINS = 4096
#: Queries whose bins are held at a time.
ROWS = 64
#: Logits from which Numba's compilation pays.
FUSED_FROM = 2**26


@dataclass(frozen=True, eq=False)
class Condensed:
    """Pairs of n queries, k of each: columns that stand for one pair, for many, or, to fill the row, for none."""

    logits: NDArray[np.float32]  #: (n, k)
    right: Bools  #: (n, k); a pooled column is wrong
    weights: Floats  #: (n, k) pairs that each stands for: 1, a number of pooled pairs, or 0
    columns: Ints  #: (n, k) candidate of each pair; −1 where pairs are pooled, or there is none


def condense(logits: NDArray[np.float32], right: Bools, *, head: int = HEAD, bins: int = BINS) -> Condensed:
    """Condense (b, m) logits, whole rows, and which pairs are right (b, m)."""
    low, high = logits.min(1), logits.max(1)
    steps = (np.float32(bins) - np.float32(0.01)) / np.maximum(high - low, np.float32(1e-30))
    count = _bin_counts(logits.size)
    made: list[Condensed] = []
    for start in range(0, len(logits), ROWS):
        part = slice(start, start + ROWS)
        made += _condensed(
            logits[part], right[part], low[part], steps[part], head, *count(logits[part], low[part], steps[part], bins)
        )
    return joined(made)


def _condensed(
    logits: NDArray[np.float32],
    right: Bools,
    low: NDArray[np.float32],
    steps: NDArray[np.float32],
    head: int,
    counts: Ints,
    sums: Floats,
) -> list[Condensed]:
    """Condense some queries, each by itself, whose logits were counted in bins."""
    rows = []
    for i, row in enumerate(logits):
        above = counts[i, ::-1].cumsum()[::-1]  # pairs from each bin on
        # The first bin from which there are at most so many: a bin of equal logits must not bring in all candidates.
        first = int(np.searchsorted(-above, -2 * head, side="left"))
        near = np.flatnonzero(row >= low[i] + (first - 1) / steps[i])
        alone = np.union1d(near[_places(row[near], low[i], steps[i]) >= first], np.flatnonzero(right[i]))
        alone = np.union1d(alone, row.argmax())
        places = _places(row[alone], low[i], steps[i])
        np.subtract.at(counts[i], places, 1)
        np.subtract.at(sums[i], places, row[alone].astype(np.float64))
        held = np.flatnonzero(counts[i, :first] > 0)
        rows.append(
            Condensed(
                np.concatenate([row[alone], (sums[i, held] / counts[i, held]).astype(np.float32)])[None],
                np.concatenate([right[i, alone], np.zeros(len(held), bool)])[None],
                np.concatenate([np.ones(len(alone)), counts[i, held].astype(float)])[None],
                np.concatenate([alone, np.full(len(held), -1)])[None],
            )
        )
    return rows


def joined(parts: list[Condensed]) -> Condensed:
    """Put queries under each other, their rows filled up to the longest; the list is emptied, to need no room twice."""
    width = max((part.logits.shape[1] for part in parts), default=0)
    lowest = min((float(part.logits.min(initial=0.0)) for part in parts), default=0.0)
    fields: dict[str, list[NDArray[Any]]] = {name: [] for name in ("logits", "right", "weights", "columns")}
    while parts:
        part = parts.pop(0)
        for name, values in fields.items():
            values.append(getattr(part, name))
    return Condensed(
        _filled(fields.pop("logits"), width, lowest, np.float32),
        _filled(fields.pop("right"), width, False, np.bool_),
        _filled(fields.pop("weights"), width, 0.0, np.float64),
        _filled(fields.pop("columns"), width, -1, np.int64),
    )


def _filled(parts: list[NDArray[Any]], width: int, empty: float, dtype: type) -> NDArray[Any]:
    """Put parts under each other, with something where their rows end."""
    whole: NDArray[Any] = np.empty((sum(map(len, parts)), width), dtype)
    top = 0
    for part in parts:
        whole[top : top + len(part), : part.shape[1]] = part
        whole[top : top + len(part), part.shape[1] :] = empty
        top += len(part)
    return whole


def _places(logits: NDArray[np.float32], low: np.float32, step: np.float32) -> Ints:
    """Bin of each logit."""
    return ((logits - low) * step).astype(np.int64)


def _count_bins(
    logits: NDArray[np.float32], low: NDArray[np.float32], steps: NDArray[np.float32], bins: int
) -> tuple[Ints, Floats]:
    """(b, bins) how many logits of each row lie in each bin, and their sums."""
    counts, sums = np.empty((len(logits), bins), np.int64), np.empty((len(logits), bins))
    for i, row in enumerate(logits):
        place = _places(row, low[i], steps[i])
        counts[i], sums[i] = np.bincount(place, minlength=bins), np.bincount(place, row, bins)
    return counts, sums


def _bin_counts(size: int) -> Callable[..., tuple[Ints, Floats]]:
    """`_count_bins`; where there is much to count and Numba is installed, the same in one loop."""
    if size < FUSED_FROM or importlib.util.find_spec("numba") is None:
        return _count_bins
    return _fused()


@lru_cache(1)
def _fused() -> Callable[..., tuple[Ints, Floats]]:
    import numba

    @numba.njit(parallel=True, nogil=True)  # type: ignore[untyped-decorator]
    def count(
        logits: NDArray[np.float32], low: NDArray[np.float32], steps: NDArray[np.float32], bins: int
    ) -> tuple[Ints, Floats]:
        counts, sums = np.zeros((len(logits), bins), np.int64), np.zeros((len(logits), bins))
        for i in numba.prange(len(logits)):
            for j in range(logits.shape[1]):
                place = np.int64((logits[i, j] - low[i]) * steps[i])
                counts[i, place] += 1
                sums[i, place] += logits[i, j]
        return counts, sums

    fused: Callable[..., tuple[Ints, Floats]] = count
    return fused
