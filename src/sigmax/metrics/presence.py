"""Presence of each pair: log loss, Brier score, calibration error, F1 at a threshold.

Sums over pairs are kept query by query, so that every figure can be bootstrapped over queries without looking at the
pairs again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sigmax.metrics.intervals import Figure, Floats, mean_figure

__all__ = ["PRESENCE", "PresenceTally", "best_f1_threshold"]

PRESENCE = ("log_loss", "brier", "calibration_error", "micro_f1", "macro_f1")
BINS = 15
Bools = NDArray[np.bool_]


class PresenceTally:
    """Adds up blocks of queries, then gives the figures.

    With presence p and truth y of each pair:

    - log_loss: mean over queries of Σⱼ −y log p − (1 − y) log(1 − p), in nats a query;
    - brier: mean over queries of Σⱼ (p − y)²;
    - calibration_error: Σ_b (n_b / N) |mean p − mean y| over `BINS` bins of equally many pairs
      (adaptive ECE: Nixon et al. 2019);
    - micro_f1 and macro_f1 of p ≥ threshold: over all pairs together, and the mean over the candidates that are
      right or claimed at least once.

    Args:
        threshold: presence from which a pair is claimed.
        edges: (BINS − 1,) inner edges of the bins, see `mass_edges`.
    """

    def __init__(self, threshold: float, edges: Floats) -> None:
        self.threshold = threshold
        self.edges = edges
        self._blocks: list[dict[str, Floats]] = []
        self._claims: list[tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]] = []

    def add(self, presence: Floats, right: Bools) -> None:
        """Count a block: presence (b, m) in [0, 1], right (b, m)."""
        p = np.clip(presence, 1e-12, 1 - 1e-12)
        bins = np.searchsorted(self.edges, presence, side="right")
        flat = (np.arange(len(p))[:, None] * BINS + bins).ravel()
        size = len(p) * BINS
        self._blocks.append(
            {
                "log_loss": -np.where(right, np.log(p), np.log1p(-p)).sum(1),
                "brier": ((presence - right) ** 2).sum(1),
                "pairs": np.bincount(flat, minlength=size).reshape(-1, BINS).astype(float),
                "claimed": np.bincount(flat, presence.ravel(), size).reshape(-1, BINS).astype(float),
                "right": np.bincount(flat, right.ravel(), size).reshape(-1, BINS).astype(float),
            }
        )
        said = presence >= self.threshold
        self._claims.append(tuple(sparse.csr_array(part.astype(float)) for part in (said & right, said, right)))  # type: ignore[arg-type]

    def figures(self) -> dict[str, Figure]:
        """Figures over all that was added, in the order of `PRESENCE`."""
        total = {name: np.concatenate([block[name] for block in self._blocks]) for name in self._blocks[0]}
        hits, said, right = (sparse.vstack(parts).tocsr() for parts in zip(*self._claims, strict=True))

        def calibration_error(weights: Floats) -> Floats:
            gap = np.abs(weights @ total["claimed"] - weights @ total["right"]).sum(1)
            error: Floats = gap / (weights @ total["pairs"]).sum(1)
            return error

        def micro_f1(weights: Floats) -> Floats:
            return _f1(*(weights @ part.sum(1) for part in (hits, said, right)))

        def macro_f1(weights: Floats) -> Floats:
            means = np.empty(len(weights))
            for start in range(0, len(weights), 100):  # (100, m) at a time
                block = weights[start : start + 100]
                f1 = _f1(*((part.T @ block.T).T for part in (hits, said, right)))
                known = ~np.isnan(f1)
                with np.errstate(invalid="ignore"):
                    means[start : start + 100] = np.where(known, f1, 0).sum(1) / known.sum(1)
            return means

        return {
            "log_loss": mean_figure(total["log_loss"]),
            "brier": mean_figure(total["brier"]),
            "calibration_error": calibration_error,
            "micro_f1": micro_f1,
            "macro_f1": macro_f1,
        }


def mass_edges(presence: Floats) -> Floats:
    """Inner edges of `BINS` bins that hold equally many of the given presences."""
    edges: Floats = np.quantile(presence, np.arange(1, BINS) / BINS)
    return edges


def best_f1_threshold(presence: Floats, right: Bools, weights: Floats | None = None) -> float:
    """Return the presence from which claiming pairs gives the best micro-F1.

    Args:
        presence: (k,) of pairs.
        right: (k,).
        weights: (k,) pairs that each stands for, where wrong pairs were sampled.

    Raises:
        ValueError: no right pair.
    """
    if not right.any():
        raise ValueError("Expected at least one right pair to choose a threshold on, got none.")
    weights = np.ones(len(presence)) if weights is None else weights
    order = np.argsort(-presence, kind="stable")
    hits = np.cumsum((weights * right)[order])
    said = np.cumsum(weights[order])
    last = np.append(np.diff(presence[order]) != 0, True)  # a threshold cannot part equal presences
    f1 = np.where(last, 2 * hits / (said + hits[-1]), -1.0)
    best = int(f1.argmax())
    below = presence[order][best + 1] if best + 1 < len(order) else 0.0
    half_way = float((presence[order][best] + below) / 2)
    return half_way if half_way > below else float(presence[order][best])  # neighbouring floats have no half


def _f1(hits: Floats, said: Floats, right: Floats) -> Floats:
    """2·hits / (said + right); NaN where nothing was said nor right."""
    with np.errstate(invalid="ignore"):
        f1: Floats = 2 * hits / (said + right)
    return f1
