"""The pairs that a fit looks at: logits, log odds of shares, truth, weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints, logsumexp
from sigmax.calibration.curves import share_odds

__all__ = ["Pairs", "check_finite", "row_totals"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a split with their logits: all, or all the right ones and a weighted sample of the wrong ones.

    Args:
        logits: (k,) finite.
        share_odds: (k,) log odds of each pair's share among all that its query is offered, see
            `sigmax.calibration.share_odds`.
        right: (k,) whether each pair is right.
        queries: (k,) row of the split.
        candidates: (k,) column, in [0, size).
        weights: (k,) pairs that each stands for, above 0.
        size: how many candidates are told apart: m, or 1 where columns are no candidates.
        groups: (n,) of each row of the split, equal for queries that are nearly the same, see
            `sigmax.data.alike.groups_of`; None: each row for itself.

    Raises:
        ValueError: shapes that do not fit, logits or weights that are not finite, columns out of range.
    """

    logits: Floats
    share_odds: Floats
    right: Bools
    queries: Ints
    candidates: Ints
    weights: Floats
    size: int
    groups: Ints | None = None

    def __post_init__(self) -> None:
        for name, dtype in _PAIRS.items():
            value: NDArray[Any] = np.asarray(getattr(self, name)).astype(dtype, copy=False)
            if value.shape != np.shape(self.logits) or value.ndim != 1:
                raise ValueError(
                    f"Expected `{name}` to be of shape (k,) like `logits` {np.shape(self.logits)}, got {value.shape}."
                )
            object.__setattr__(self, name, value)
        if self.groups is not None and len(self) and self.queries.max() >= len(self.groups):
            raise ValueError(f"Expected a group for each of {self.queries.max() + 1} rows, got {len(self.groups)}.")
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
    def of(
        cls,
        logits: NDArray[Any],
        right: Bools,
        *,
        most: int,
        none: NDArray[Any] | None = None,
        weights: Floats | None = None,
        groups: Ints | None = None,
        seed: int = 0,
    ) -> Pairs:
        """Take pairs of (n, m) logits and (n, m) right: all, or about `most` where there are more, see `thinned`.

        Args:
            logits: (n, m) over all candidates that are offered.
            right: (n, m).
            most: pairs, about.
            none: (n,) logits of *none of these*, where it was trained.
            weights: (n, m) pairs that each stands for, columns being no candidates then; None: each for itself.
            groups: (n,) equal for queries that are nearly the same; None: each for itself.
            seed: of the sample.
        """
        check_finite(logits)
        total = row_totals(logits, none, weights)
        odds = share_odds(logits, total[:, None])
        if weights is not None:
            queries, columns = np.nonzero(weights)
            chosen = logits[queries, columns], odds[queries, columns], right[queries, columns]
            alike = np.zeros_like(queries)
            return cls(*chosen, queries, alike, weights[queries, columns], 1, groups).thinned(most, seed=seed)
        places, drawn = _drawn(logits.ravel(), odds.ravel(), right.ravel(), np.ones(right.size), most, seed)
        queries, candidates = np.divmod(places, max(right.shape[1], 1))
        chosen = logits.ravel()[places], odds.ravel()[places], right.ravel()[places]
        return cls(*chosen, queries, candidates, drawn, right.shape[1], groups)

    def thinned(self, most: int, *, seed: int = 0) -> Pairs:
        """Return all right pairs and some of the wrong ones, weighted so that sums keep their expectation.

        Those wrong ones that are most easily taken for right say most: a third of the room is for the highest logits, a
        third for the highest shares, and what is left for a random sample of the others, which stands for all of them.
        """
        places, weights = _drawn(self.logits, self.share_odds, self.right, self.weights, most, seed)
        return replace(self.take(places), weights=weights)

    @property
    def units(self) -> Ints:
        """(k,) what each pair was drawn with: the group of its query, or the query itself."""
        return self.queries if self.groups is None else self.groups[self.queries]

    def take(self, places: NDArray[Any]) -> Pairs:
        """Return the pairs at the places of a mask or of an index."""
        return replace(self, **{name: getattr(self, name)[places] for name in _PAIRS})


_PAIRS: dict[str, Any] = {
    "logits": np.float64,
    "share_odds": np.float64,
    "right": np.bool_,
    "queries": np.int64,
    "candidates": np.int64,
    "weights": np.float64,
}


def row_totals(logits: NDArray[Any], none: NDArray[Any] | None = None, weights: NDArray[Any] | None = None) -> Floats:
    """(..., m) logits and (...) those of *none of these*, if trained -> (...) log Σ exp over all that is offered.

    With weights (..., m), each logit is there as often as its weight says.
    """
    total: Floats = np.full(logits.shape[:-1], -np.inf)
    if logits.shape[-1]:
        total = logsumexp(logits.astype(np.float64), weights)
    return total if none is None else np.logaddexp(total, none.astype(np.float64))


def _drawn(
    logits: NDArray[Any], odds: Floats, right: Bools, weights: Floats, most: int, seed: int
) -> tuple[Ints, Floats]:
    """Places kept, and how many each stands for: at least a tenth of `most` are wrong pairs, if there are so many."""
    if len(right) <= most:
        return np.arange(len(right)), weights
    kept, wrong = np.flatnonzero(right), np.flatnonzero(~right)
    size = min(len(wrong), max(most - len(kept), most // 10))
    near = np.zeros(len(wrong), bool)
    for values in (logits, odds):
        if size >= 3:
            near[np.argpartition(values[wrong], -(size // 3))[-(size // 3) :]] = True
    others = wrong[~near]
    drawn = np.random.default_rng(seed).choice(others, min(size - int(near.sum()), len(others)), replace=False)
    places = np.concatenate([kept, wrong[near], drawn])
    stands_for = weights[drawn] * (weights[others].sum() / max(weights[drawn].sum(), 1e-300))
    return places, np.concatenate([weights[kept], weights[wrong[near]], stands_for])


def check_finite(logits: Floats) -> None:
    """Check that logits can be calibrated on.

    Raises:
        ValueError: infinite ones, or NaN.
    """
    if not np.isfinite(logits).all():
        raise ValueError(f"Expected finite logits to calibrate on, got {(~np.isfinite(logits)).sum()} that are not.")
