"""Rows held out to calibrate on, and the temperature that they give."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from sigmax.arrays import Bools, Floats
from sigmax.errors import DataError

__all__ = ["check_dev", "fit_temperature", "held_out"]


def fit_temperature(logits: Floats, right: Bools) -> float:
    """Find the T at which softmax(s / T) has the lowest log loss (Guo et al. 2017).

    T minimises −Σᵢ Σⱼ yᵢⱼ log softmaxⱼ(sᵢ / T) with y = (1 − ε) · right + ε / L, ε = 1 / (n + 2): as in Platt's fit, so
    that few rows, all of them predicted rightly, do not make sure of everything.

    Args:
        logits: (n, L).
        right: (n, L), one right label a row.
    """
    n, labels = right.shape
    target = right * (1 - 1 / (n + 2)) + 1 / (n + 2) / labels
    centred = logits - logits.mean(1, keepdims=True)
    spread = max(float(centred.std()), 1e-12)

    def loss(log_temperature: float) -> float:
        return -float((target * special.log_softmax(centred / np.exp(log_temperature), axis=1)).sum())

    bounds = np.log(spread) + np.array([-5.0, 5.0])
    return float(np.exp(optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x))


def held_out(
    right: Bools, share: float, seed: int, *, several: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and a share of rows held out, drawn from all but one row of each label.

    With several labels, rows with a label and rows without any are drawn in the same share, at least one of each where
    there are some: both right and wrong pairs are needed to calibrate on, however rare labels are.
    """
    if not 0 < share < 1:
        raise ValueError(f"Expected `validation_fraction` between 0 and 1, got {share}.")
    order = np.random.default_rng(seed).permutation(len(right))
    kept = np.unique(right[order].argmax(0)[right.any(0)])
    free = np.delete(order, kept)
    if not len(free):
        raise ValueError(
            f"Expected more rows than labels, so that some can be held out to calibrate on, got {len(right)} rows of "
            f"{right.shape[1]} labels. Give more, or dev=(X, y)."
        )
    groups = [free]
    if several:
        labelled = right[free].any(1)
        groups = [free[part] for part in (labelled, ~labelled) if part.any()]
    drawn = [group[: max(1, round(share * len(right) * len(group) / len(free)))] for group in groups]
    dev = np.sort(np.concatenate(drawn))
    return np.setdiff1d(np.arange(len(right)), dev), dev


def check_dev(right: Bools) -> None:
    """Refuse rows of which nothing can be learnt about right and wrong."""
    if right.all() or not right.any():
        raise DataError(
            f"Expected right and wrong labels among the {len(right)} rows to calibrate on, got "
            f"{'right ones' if right.any() else 'wrong ones'} alone. Give more rows, a larger validation_fraction, or "
            "dev=(X, y)."
        )
