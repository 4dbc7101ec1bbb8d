"""Histograms of logits: right pairs, wrong pairs, and the largest logit of each query with no right answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LogitHistogram"]

BINS = 25


@dataclass(frozen=True, eq=False)
class LogitHistogram:
    """Counts in bins of equal width from the smallest logit to the largest."""

    edges: NDArray[np.float64]  #: (BINS + 1,)
    right: NDArray[np.int64]  #: (BINS,) right pairs
    wrong: NDArray[np.int64]  #: (BINS,) all other pairs
    unanswered: NDArray[np.int64]  #: (BINS,) queries with no right answer, by their largest logit

    @classmethod
    def of(
        cls, logits: NDArray[Any], right: NDArray[np.bool_], weights: NDArray[np.float64] | None = None
    ) -> LogitHistogram:
        """Count (n, m) finite logits by whether the pairs are right (n, m), each as often as its weight (n, m)."""
        ends = (float(logits.min()), float(logits.max()))

        def counts(values: NDArray[Any], weights: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
            return np.histogram(values, BINS, ends, weights=weights)[0].astype(np.int64)

        of_right = counts(logits[right])
        return cls(
            np.histogram_bin_edges(logits[:0], BINS, ends),
            of_right,
            counts(logits, weights) - of_right,
            counts(logits[~right.any(1)].max(1)),
        )

    def as_dict(self) -> dict[str, list[float]]:
        """Return edges and counts, for JSON."""
        return {name: getattr(self, name).tolist() for name in ("edges", "right", "wrong", "unanswered")}
