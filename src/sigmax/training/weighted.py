"""Linear models over features that are sparse, or whose rows have weights.

The minimum is the one that `sigmax.training.linear` finds on standardised features. That solver turns features to their
principal axes, which are dense, and counts all rows alike; this one takes more steps and does neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sigmax.arrays import Bools, Floats
from sigmax.losses import make_loss
from sigmax.positives import Positives

__all__ = ["fit_weighted"]


def fit_weighted(loss: str, features: Any, right: Bools, weights: Floats) -> tuple[Floats, Floats]:
    """Minimise (1/n) Σᵢ wᵢ Lᵢ(s) + |W|² / (2n), n = Σᵢ wᵢ, with s = W·z + b on features z standardised by weight.

    Args:
        loss: a name in `sigmax.families.OBJECTIVES`.
        features: (n, d) dense or sparse; sparse ones stay so, by z·W = x·(W / deviation) − mean·(W / deviation).
        right: (n, L) which labels are right.
        weights: (n,) not negative.

    Returns:
        (L, d) weights and (L,) biases, on the features as given.
    """
    total = weights.sum()
    mean, deviation = _moments(features, weights / total)
    deviation[deviation <= 1e-12 * np.maximum(1, np.abs(mean))] = 1.0  # constant: z is 0 and teaches nothing
    objective = make_loss(loss, logit_scale=1.0, logit_bias=0.0)
    objective.reduction = "none"
    positives = Positives.from_dense(torch.from_numpy(right))
    counted = weights * objective.objective.counted(positives.counts).numpy()
    shares = torch.from_numpy(counted / max(counted.sum(), np.finfo(float).tiny))
    parameters = torch.zeros(right.shape[1], features.shape[1], dtype=torch.float64, requires_grad=True)
    biases = torch.zeros(right.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [parameters, biases], max_iter=1000, tolerance_grad=1e-6, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )
    logits = _logits_of(features, mean, deviation)

    def step() -> Tensor:
        optimizer.zero_grad()
        losses = objective.from_logits(logits(parameters) + biases, positives)
        value: Tensor = shares @ losses + parameters.square().sum() / (2 * total)
        value.backward()
        return value

    optimizer.step(step)
    coefficients: Floats = parameters.detach().numpy() / deviation
    return coefficients, biases.detach().numpy() - coefficients @ mean


def _moments(features: Any, shares: Floats) -> tuple[Floats, Floats]:
    """(d,) mean and (d,) standard deviation of each feature, by the rows' shares of all weight."""
    if not sparse.issparse(features):
        mean = shares @ features
        return mean, np.sqrt(shares @ (features - mean) ** 2)
    mean = np.asarray(features.T @ shares)
    square = np.asarray(features.multiply(features).T @ shares)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _logits_of(features: Any, mean: Floats, deviation: Floats) -> Callable[[Tensor], Tensor]:
    """(L, d) weights on standardised features -> (n, L) logits."""
    if not sparse.issparse(features):
        z = torch.from_numpy((features - mean) / deviation)

        def of_dense(weights: Tensor) -> Tensor:
            return z @ weights.T

        return of_dense
    entries = features.tocoo()
    places = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    x = torch.sparse_coo_tensor(places, torch.from_numpy(entries.data), entries.shape, check_invariants=True).coalesce()
    centre, spread = torch.from_numpy(mean), torch.from_numpy(deviation)

    def of_sparse(weights: Tensor) -> Tensor:
        scaled = (weights / spread).T
        logits: Tensor = torch.sparse.mm(x, scaled) - centre @ scaled
        return logits

    return of_sparse
