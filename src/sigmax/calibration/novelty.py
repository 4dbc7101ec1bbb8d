"""How near is a query to those that training saw? Cosines with its nearest ones, in what the candidates see of it.

Logits look at a query from the candidates' side: of something that nobody saw they say what it is nearest to, not how
far off it is. The distance to the nearest training queries does (Sun et al. 2022). It is measured where it matters:
with x a query's vector, x̄ the mean of the training queries, c the candidates' vectors and c̄ their mean, the profile of
the query is its products ⟨x − x̄, c − c̄⟩ with all candidates, its logits but for scale and bias. Two queries are near if
the cosine of their profiles is large. Profiles of any number of candidates have a form of at most d numbers with the
same cosines, (x − x̄) A, where A Aᵀ = Σ (c − c̄)(c − c̄)ᵀ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Floats

__all__ = ["MOST_KEPT", "Novelty", "fit_novelty"]


#: How many training queries are looked at: the mean over some is steadier than the nearest alone, and what is rare in
#: training is not far from three.
NEAREST = 3


#: Training queries that are kept, at most; beyond that, a random sample. Of 384 numbers each: 7 MiB in a model folder.
MOST_KEPT = 10_000


#: Fewer directions than this tell queries apart too coarsely; then vectors are compared as they are.
FEWEST_VIEWS = 8


#: Queries compared at a time.
BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Novelty:
    """Directions of training queries, as the candidates see them."""

    seen: NDArray[np.float16]  #: (t, r) unit vectors of training queries that have a right answer
    mean: NDArray[np.float32]  #: (d,) of their vectors
    views: NDArray[np.float32] | None  #: (d, r) A; None: vectors are compared as they are, less the mean

    def nearness(self, vectors: NDArray[Any]) -> Floats:
        """Return (b,): the mean cosine of each profile with its `NEAREST` nearest among the training queries.

        Args:
            vectors: (b, d) of queries. One that is the mean of training is near to nothing: 0.
        """
        unit = _profiles(vectors, self.mean, self.views)
        count = min(NEAREST, len(self.seen))
        found = np.zeros(len(unit))
        for start in range(0, len(unit), BLOCK):
            cosines = unit[start : start + BLOCK] @ self._kept
            found[start : start + BLOCK] = np.partition(cosines, -count, axis=1)[:, -count:].mean(1)
        return found

    @cached_property
    def _kept(self) -> NDArray[np.float32]:
        """(r, t) as they are multiplied with: turned into single precision once, not for every query."""
        return np.ascontiguousarray(self.seen.T.astype(np.float32))

    def as_tensors(self) -> dict[str, NDArray[Any]]:
        """Return arrays by name, to be saved."""
        views = {} if self.views is None else {"views": self.views}
        return {"seen": self.seen, "mean": self.mean, **views}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Novelty:
        """Inverse of `as_tensors`.

        Raises:
            ValueError: a tensor is missing, or they do not fit together.
        """
        missing = {"seen", "mean"} - tensors.keys()
        if missing:
            raise ValueError(f"Expected tensors of training queries, {', '.join(sorted(missing))} missing.")
        seen, mean = tensors["seen"].astype(np.float16), tensors["mean"].astype(np.float32)
        views = tensors["views"].astype(np.float32) if "views" in tensors else None
        shape = mean.shape * 2 if views is None else views.shape
        if seen.ndim != 2 or not len(seen) or mean.ndim != 1 or shape != (len(mean), seen.shape[1]):
            raise ValueError(f"Expected (t, r), (d,) and (d, r) tensors, got {seen.shape}, {mean.shape} and {shape}.")
        return cls(seen, mean, views)


def fit_novelty(training: NDArray[Any], candidates: NDArray[Any], *, seed: int = 0) -> Novelty:
    """Keep what tells whether a query is like those of training.

    Args:
        training: (t, d) vectors of the training queries that have a right answer.
        candidates: (m, d) vectors of the candidates.
        seed: of the sample, where there are more training queries than are kept.

    Raises:
        ValueError: vectors of different widths, or none to compare with.
    """
    if training.ndim != 2 or candidates.ndim != 2 or training.shape[1] != candidates.shape[1] or not len(training):
        raise ValueError(
            f"Expected (t, d) and (m, d) vectors, t at least 1, got {training.shape} and {candidates.shape}."
        )
    if len(training) > MOST_KEPT:
        training = training[np.sort(np.random.default_rng(seed).choice(len(training), MOST_KEPT, replace=False))]
    mean = training.mean(0, dtype=np.float64).astype(np.float32)
    views = _views(candidates.astype(np.float64))
    return Novelty(_profiles(training, mean, views).astype(np.float16), mean, views)


def _views(candidates: Floats) -> NDArray[np.float32] | None:
    """(m, d) -> (d, r) A, of the r directions in which candidates differ."""
    if len(candidates) <= FEWEST_VIEWS:
        return None
    apart = candidates - candidates.mean(0)
    squares, directions = np.linalg.eigh(apart.T @ apart)
    kept = squares > 1e-6 * max(float(squares[-1]), 1e-30)
    if kept.sum() < FEWEST_VIEWS:
        return None
    views: NDArray[np.float32] = (directions[:, kept] * np.sqrt(squares[kept])).astype(np.float32)
    return views


def _profiles(
    vectors: NDArray[Any], mean: NDArray[np.float32], views: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """(b, d) -> (b, r) of length 1, or 0."""
    seen = vectors.astype(np.float32) - mean
    seen = seen if views is None else seen @ views
    lengths = np.linalg.norm(seen, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(seen, lengths, out=np.zeros_like(seen), where=lengths > 1e-12)
    return unit
