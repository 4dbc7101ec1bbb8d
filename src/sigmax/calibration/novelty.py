"""Is a query like those that training saw? Its nearest training queries, and a flag with a promised false-alarm rate.

Logits look at a query from the candidates' side: of something that nobody saw they say what it is nearest to, not how
far off it is. The distance to the nearest training queries does (Sun et al. 2022); P(any) reads it beside the logits.

Where the dev split has no query without an answer, nothing can be fitted, and a flag remains: *unlike the training
queries*, for a query that is farther from them than nearly all dev queries are. Its p-value is conformal (Vovk et al.
2005): (1 + dev queries that are as far or farther) / (dev queries + 1). A query drawn as dev's were has one of at most
α with a probability of at most α, whatever the distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Floats

__all__ = ["Novelty", "fit_novelty"]


#: How many training queries are looked at: the mean over some is steadier than the nearest alone.
NEAREST = 10


#: Training queries that are kept, at most; beyond that, a random sample.
MOST_KEPT = 50_000


#: Queries compared at a time.
BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Novelty:
    """Directions of training queries, and how near to them the dev queries are."""

    seen: NDArray[np.float32]  #: (t, d) unit vectors of training queries that have a right answer
    dev: Floats  #: (n,) mean cosine of each dev query with its nearest, rising

    def features(self, vectors: NDArray[Any]) -> Floats:
        """Return (b, 2): the cosine with the nearest training query, and the mean over the nearest `NEAREST`.

        Args:
            vectors: (b, d) of queries, as the encoder gives them. A vector of zeros is like nothing: 0 and 0.
        """
        unit = _unit(vectors)
        count = min(NEAREST, len(self.seen))
        found = np.zeros((len(unit), 2))
        for start in range(0, len(unit) if count else 0, BLOCK):
            rows = slice(start, start + BLOCK)
            cosines = unit[rows] @ self.seen.T
            nearest = np.partition(cosines, -count, axis=1)[:, -count:]
            found[rows] = np.stack([nearest.max(1), nearest.mean(1)], axis=1)
        return found

    def p_values(self, features: Floats) -> Floats:
        """(b, 2) features -> (b,) p-values of "drawn as the dev queries were"; small: unlike the training queries."""
        as_far = np.searchsorted(self.dev, features[:, 1], side="right")
        p: Floats = (1 + as_far) / (len(self.dev) + 1)
        return p

    def as_tensors(self) -> dict[str, NDArray[Any]]:
        """Return arrays by name, to be saved."""
        return {"seen": self.seen, "dev": self.dev}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Novelty:
        """Inverse of `as_tensors`.

        Raises:
            ValueError: a tensor is missing.
        """
        missing = {"seen", "dev"} - tensors.keys()
        if missing:
            raise ValueError(f"Expected tensors of training queries, {', '.join(sorted(missing))} missing.")
        return cls(tensors["seen"].astype(np.float32), tensors["dev"].astype(np.float64))


def fit_novelty(training: NDArray[Any], dev: NDArray[Any], *, seed: int = 0) -> Novelty:
    """Keep what tells whether a query is like those of training.

    Args:
        training: (t, d) vectors of the training queries that have a right answer.
        dev: (n, d) vectors of the dev queries that have one; none of them was trained on.
        seed: of the sample, where there are more than are kept.

    Raises:
        ValueError: vectors of different widths, or none to compare with.
    """
    if training.ndim != 2 or dev.ndim != 2 or training.shape[1:] != dev.shape[1:] or not len(training):
        raise ValueError(f"Expected (t, d) and (n, d) vectors, t at least 1, got {training.shape} and {dev.shape}.")
    if len(training) > MOST_KEPT:
        training = training[np.sort(np.random.default_rng(seed).choice(len(training), MOST_KEPT, replace=False))]
    novelty = Novelty(_unit(training), np.zeros(0))
    return replace(novelty, dev=np.sort(novelty.features(dev)[:, 1]))


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
