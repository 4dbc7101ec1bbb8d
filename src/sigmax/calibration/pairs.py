"""The pairs that a fit looks at: logits, truth, weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints

__all__ = ["Pairs", "check_finite"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a split with their logits: all, or all the right ones and a weighted sample of the wrong ones.

    Args:
        logits: (k,) finite.
        right: (k,) whether each pair is right.
        queries: (k,) row of the split.
        candidates: (k,) column, in [0, size).
        weights: (k,) pairs that each stands for, above 0.
        size: m, how many candidates there are.

    Raises:
        ValueError: shapes that do not fit, logits or weights that are not finite, columns out of range.
    """

    logits: Floats
    right: Bools
    queries: Ints
    candidates: Ints
    weights: Floats
    size: int

    def __post_init__(self) -> None:
        for name, dtype in _PAIRS.items():
            value: NDArray[Any] = np.asarray(getattr(self, name)).astype(dtype, copy=False)
            if value.shape != np.shape(self.logits) or value.ndim != 1:
                raise ValueError(
                    f"Expected `{name}` to be of shape (k,) like `logits` {np.shape(self.logits)}, got {value.shape}."
                )
            object.__setattr__(self, name, value)
        check_finite(self.logits)
        if not (np.isfinite(self.weights) & (self.weights > 0)).all():
            raise ValueError("Expected `weights` to be finite and above 0, got others. Leave out pairs of weight 0.")
        if len(self.candidates) and not (self.candidates.min() >= 0 and self.candidates.max() < self.size):
            raise ValueError(
                f"Expected `candidates` in [0, {self.size}), got {self.candidates.min()} to {self.candidates.max()}."
            )

    def __len__(self) -> int:
        return len(self.logits)

    @classmethod
    def of(cls, logits: NDArray[Any], right: Bools, *, most: int, seed: int = 0) -> Pairs:
        """Take pairs of (n, m) logits and (n, m) right: all, or about `most` where there are more, see `thinned`."""
        places, weights = _drawn(right.ravel(), most, seed)
        queries, candidates = np.divmod(places, right.shape[1])
        return cls(logits.ravel()[places], right.ravel()[places], queries, candidates, weights, right.shape[1])

    def thinned(self, most: int, *, seed: int = 0) -> Pairs:
        """All right pairs and a random sample of the wrong ones, weighted so that sums keep their expectation."""
        places, weights = _drawn(self.right, most, seed)
        taken = self.take(places)
        return replace(taken, weights=taken.weights * weights)

    def take(self, places: NDArray[Any]) -> Pairs:
        """Return the pairs at the places of a mask or of an index."""
        return replace(self, **{name: getattr(self, name)[places] for name in _PAIRS})


_PAIRS: dict[str, Any] = {
    "logits": np.float64,
    "right": np.bool_,
    "queries": np.int64,
    "candidates": np.int64,
    "weights": np.float64,
}


def _drawn(right: Bools, most: int, seed: int) -> tuple[Ints, Floats]:
    """Places kept, and how many each stands for: at least a tenth of `most` are wrong pairs, if there are so many."""
    if len(right) <= most:
        return np.arange(len(right)), np.ones(len(right))
    kept, wrong = np.flatnonzero(right), np.flatnonzero(~right)
    size = min(len(wrong), max(most - len(kept), most // 10))
    drawn = np.random.default_rng(seed).choice(wrong, size, replace=False)
    weights = np.concatenate([np.ones(len(kept)), np.full(size, len(wrong) / max(size, 1))])
    return np.concatenate([kept, drawn]), weights


def check_finite(logits: Floats) -> None:
    """Check that logits can be calibrated on.

    Raises:
        ValueError: infinite ones, or NaN.
    """
    if not np.isfinite(logits).all():
        raise ValueError(f"Expected finite logits to calibrate on, got {(~np.isfinite(logits)).sum()} that are not.")
