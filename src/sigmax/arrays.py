"""Types of NumPy arrays, and the logits of queries over candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bools", "Floats", "Ints", "Logits"]

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
