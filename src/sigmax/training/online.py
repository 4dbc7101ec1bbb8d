"""A linear model that learns from rows as they come, and keeps none of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse, special

from sigmax.arrays import Bools, Floats
from sigmax.losses import make_loss
from sigmax.positives import Positives

__all__ = ["OnlineLinear"]


class OnlineLinear:
    """Weights (m, d) and biases (m,) after some rows; more rows move them.

    Of rows that are gone a quadratic is left, Laplace's approximation with a diagonal curvature (Chapelle & Li 2011,
    algorithm 3). Rows that come are learnt at the minimum of

        Σᵢ wᵢ Lᵢ(x·W + b) + ½ Σⱼₖ (Aⱼₖ + vₖ) (Wⱼₖ − W⁰ⱼₖ)² + ½ Σⱼ cⱼ (bⱼ − b⁰ⱼ)²

    with W⁰ and b⁰ from before (0 at first), vₖ the variance of feature k over all rows so far, and curvatures A = Σᵢ wᵢ
    pᵢⱼ (1 − pᵢⱼ) (xᵢₖ − x̄ₖ)² and c = Σᵢ wᵢ pᵢⱼ (1 − pᵢⱼ) of all rows before. The first rows alone give what
    `sigmax.training.weighted.fit_weighted` does: v penalises as |W|² does on standardised features.

    Args:
        loss: a name in `sigmax.families.OBJECTIVES`.
        labels: m.
        width: d.
    """

    def __init__(self, loss: str, labels: int, width: int) -> None:
        self.objective = make_loss(loss, logit_scale=1.0, logit_bias=0.0)
        self.objective.reduction = "none"
        self.weights, self.biases = np.zeros((labels, width)), np.zeros(labels)
        self._curvature, self._bias_curvature = np.zeros((labels, width)), np.zeros(labels)
        self._total, self._mean, self._squares = 0.0, np.zeros(width), np.zeros(width)

    @classmethod
    def after(
        cls, loss: str, features: Any, right: Bools, weights: Floats, found: tuple[Floats, Floats]
    ) -> OnlineLinear:
        """Go on from the minimum over some rows, found elsewhere: (m, d) weights and (m,) biases; see `learn`."""
        made = cls(loss, right.shape[1], features.shape[1])
        made.weights, made.biases = map(np.ascontiguousarray, found)
        made._count(features, weights)
        made._remember(features, np.asarray(features @ made.weights.T) + made.biases, weights)
        return made

    def learn(self, features: Any, right: Bools, weights: Floats) -> None:
        """Move to the minimum with some more rows.

        Args:
            features: (n, d), dense or sparse.
            right: (n, m) which labels are right.
            weights: (n,) of the rows, not negative; with a sum of 0 nothing is learnt.
        """
        if not weights.sum() > 0:
            return
        self._count(features, weights)
        variance = self._squares / self._total
        variance[variance <= 1e-24 * np.maximum(1, self._mean**2)] = 1.0  # constant so far: it teaches nothing
        stretch = 1 / np.sqrt(self._curvature + variance)
        mean, before, anchor = (torch.from_numpy(x) for x in (self._mean, self.weights, self.biases))
        scale, hold = torch.from_numpy(stretch), torch.from_numpy(self._bias_curvature)
        rows, counts = _tensor(features), torch.from_numpy(weights)
        positives = Positives.from_dense(torch.from_numpy(right))
        moved = torch.zeros_like(before, requires_grad=True)  # (W − W⁰) / stretch
        lift = torch.zeros_like(anchor, requires_grad=True)  # b − b⁰ at the mean
        optimizer = torch.optim.LBFGS(
            [moved, lift], max_iter=500, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
        )
        centre = before @ mean + anchor

        def logits() -> torch.Tensor:
            table = before + moved * scale
            found: torch.Tensor = rows @ table.T - table @ mean + centre + lift
            return found

        def step() -> torch.Tensor:
            optimizer.zero_grad()
            value: torch.Tensor = counts @ self.objective.from_logits(logits(), positives)
            value = value + moved.square().sum() / 2 + hold @ lift.square() / 2
            value.backward()
            return value

        optimizer.step(step)
        with torch.no_grad():
            table = before + moved * scale
            self._remember(features, logits().numpy(), weights)
            self.biases = (centre + lift - table @ mean).numpy()
            self.weights = table.numpy()

    def _count(self, features: Any, weights: Floats) -> None:
        """Add rows to mean and sum of squared deviations (Chan, Golub & LeVeque 1979)."""
        total = weights.sum()
        mean = np.asarray(features.T @ weights) / total
        if sparse.issparse(features):
            squares = np.asarray(features.multiply(features).T @ weights) - total * mean**2
        else:
            squares = weights @ (features - mean) ** 2
        apart, share = mean - self._mean, total / (self._total + total)
        self._squares += np.maximum(squares, 0) + apart**2 * self._total * share
        self._mean = self._mean + apart * share
        self._total += total

    def _remember(self, features: Any, logits: Floats, weights: Floats) -> None:
        """Add the curvature of rows at what was learnt of them."""
        softmax = self.objective.objective.family == "softmax"
        shares = special.softmax(logits, axis=1) if softmax else special.expit(logits)
        curvature = shares * (1 - shares) * weights[:, None]
        total = curvature.sum(0)
        if sparse.issparse(features):
            by_square, by_row = features.multiply(features).T @ curvature, features.T @ curvature
            self._curvature += (
                np.asarray(by_square - 2 * self._mean[:, None] * by_row).T + total[:, None] * self._mean**2
            )
        else:
            self._curvature += curvature.T @ (features - self._mean) ** 2
        self._bias_curvature += total


def _tensor(features: Any) -> torch.Tensor:
    if not sparse.issparse(features):
        return torch.from_numpy(np.ascontiguousarray(features))
    entries = features.tocoo()
    places = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    return torch.sparse_coo_tensor(
        places, torch.from_numpy(entries.data), entries.shape, check_invariants=True
    ).coalesce()
