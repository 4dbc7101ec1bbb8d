"""Types of NumPy arrays, the logits of queries over candidates, and what is computed of logits everywhere.

`expit` and `logsumexp` are scipy's, without the import, which takes longer than all that answers a first query.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bools", "Floats", "Ints", "Logits", "expit", "logsumexp", "row_blocks"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Logits:
    """Logits of n queries over m candidates."""

    values: NDArray[np.float32]  #: (n, m)
    none: NDArray[np.float32] | None = None  #: (n,) of *none of these*; None for a model trained without it
    #: (n, f) how near the training queries are, and, of n-grams, which share of them training had; larger the more
    #: familiar. None for a model that keeps nothing of its training queries.
    novelty: Floats | None = None


def row_blocks(shape: tuple[int, ...], most: int) -> Iterator[slice]:
    """Cut (n, m) numbers into blocks of whole rows, each of at most `most` numbers but of one row at least."""
    height = max(1, most // max(1, shape[1]))
    return (slice(start, start + height) for start in range(0, shape[0], height))


def expit(z: Floats) -> Floats:
    """Return σ(z) = 1 / (1 + exp −z), of any shape."""
    with np.errstate(over="ignore"):  # exp −z = ∞ gives the 0 that it should
        found: Floats = 1 / (1 + np.exp(-z))
    return found


def logsumexp(z: Floats, weights: Floats | None = None, *, keepdims: bool = False) -> Floats:
    """Return log Σⱼ wⱼ exp zⱼ over the last axis, of at least one: (..., m) -> (...), or (..., 1) with `keepdims`."""
    largest = z.max(-1, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(over="ignore", divide="ignore"):  # infinite logits have infinite sums, or none
        terms = np.exp(z - largest)
        total: Floats = np.log((terms if weights is None else terms * weights).sum(-1, keepdims=True)) + largest
    return total if keepdims else total[..., 0]
