"""From a logit to a presence: the probability that this pair is right.

Logits are comparable but carry an unknown scale and bias: the softmax never saw its bias, and the sigmoid learnt its
own among the candidates of a batch. A fit on the dev split, over the candidates offered in use, mends both in the
same way for either family.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from sigmax.errors import DataError

__all__ = ["Platt", "fit_platt"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Platt:
    """presence = σ(scale · logit + bias), one scale and one bias for all candidates (Platt 1999)."""

    scale: float
    bias: float

    def presence(self, logits: NDArray[Any]) -> Floats:
        """Logits of any shape -> presences of the same shape, in [0, 1]."""
        presence: Floats = special.expit(self.scale * logits.astype(np.float64) + self.bias)
        return presence

    def as_dict(self) -> dict[str, float]:
        """Return scale and bias."""
        return asdict(self)


def fit_platt(logits: NDArray[Any], right: NDArray[np.bool_], weights: Floats | None = None) -> Platt:
    """Fit scale ≥ 0 and bias by maximum likelihood.

    Minimises Σ w [softplus(z) − y·z], z = scale · logit + bias, which is convex. As Platt did, targets are pulled in
    from 0 and 1 by one observation's worth, so that separable logits keep a finite scale.

    Args:
        logits: (k,) of pairs.
        right: (k,) whether each pair is right.
        weights: (k,) pairs that each stands for, where wrong pairs were sampled.

    Raises:
        DataError: no right or no wrong pair: nothing to tell apart.
        ValueError: logits that are not finite.
    """
    logits = logits.astype(np.float64)
    if not np.isfinite(logits).all():
        raise ValueError(f"Expected finite logits to calibrate on, got {(~np.isfinite(logits)).sum()} that are not.")
    weights = np.ones(len(logits)) if weights is None else weights
    positives, negatives = float(weights[right].sum()), float(weights[~right].sum())
    if not (positives and negatives):
        raise DataError(
            f"Calibration needs right and wrong pairs in the dev split, got {positives:.0f} and {negatives:.0f}."
        )
    target = np.where(right, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, spread = float(logits.mean()), float(logits.std())
    if np.ptp(logits) == 0:  # the rounded mean of equal numbers may differ from them
        centre, spread = float(logits[0]), 1.0
    x = (logits - centre) / spread

    def loss(parameters: Floats) -> tuple[float, Floats]:
        z = parameters[0] * x + parameters[1]
        residual = weights * (special.expit(z) - target)
        value = float((weights * (np.logaddexp(0, z) - target * z)).sum())
        return value / positives, np.array([(residual * x).sum(), residual.sum()]) / positives

    start = np.array([1.0, np.log(positives / negatives)])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    scale = float(found.x[0]) / spread
    return Platt(scale, float(found.x[1]) - scale * centre)
