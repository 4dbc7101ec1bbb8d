"""The calibration slope: a logistic regression on the logits of presences, from counts on a grid of logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sigmax.arrays import Floats, Ints
from sigmax.metrics.bins import sums_by_place

__all__ = ["LOGITS", "STEEPEST", "logistic_slope", "on_grid"]

#: The grid that logits of presences are put on.
LOGITS = np.arange(-28.5, 28.75, 0.25)
#: A steeper slope counts as infinite.
STEEPEST = 20.0


def on_grid(z: Floats, counts: Floats | None = None) -> Floats:
    """Turn (b, m) logits into (b, len(LOGITS)) weights with Σ f(z) = Σ weight · f(LOGITS).

    Exact for cubic f, nearly so for smooth ones: each logit is spread over its four neighbours by Lagrange's
    polynomials.

    Args:
        z: (b, m).
        counts: (b, m) how often each is there; None: once.
    """
    at = (z - LOGITS[0]) / (LOGITS[1] - LOGITS[0])
    below = np.floor(at).astype(np.int64)
    t = at - below
    spread: Sequence[Floats] = (
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    )
    weights: Floats = np.sum(
        [
            sums_by_place(below + k - 1, part if counts is None else part * counts, len(LOGITS))
            for k, part in enumerate(spread)
        ],
        axis=0,
    )
    return weights


def logistic_slope(counts: Floats, sums: Floats) -> Floats:
    """Maximise Σ_right (a + b z) − Σ counts · softplus(a + b z) over a and b by Newton's method, row by row.

    Args:
        counts: (r, len(LOGITS)) pairs at each logit.
        sums: (r, 2) right pairs, and the sum of their logits.

    Returns:
        (r,) b; NaN where no finite b is best.
    """
    from scipy import special

    inputs = np.stack([np.ones_like(LOGITS), LOGITS], 1)
    products = (inputs[:, :, None] * inputs[:, None, :]).reshape(-1, 4)
    theta = np.tile([0.0, 1.0], (len(counts), 1))
    slopes = np.full(len(counts), np.nan)

    def likelihood(rows: Ints, theta: Floats) -> Floats:
        value: Floats = (sums[rows] * theta).sum(1) - (counts[rows] * np.logaddexp(0, theta @ inputs.T)).sum(1)
        return value

    rows = np.flatnonzero(sums[:, 0] > 0)
    value = likelihood(rows, theta[rows])
    for _ in range(50):
        p = special.expit(theta[rows] @ inputs.T)
        gradient = sums[rows] - (counts[rows] * p) @ inputs
        information = ((counts[rows] * p * (1 - p)) @ products).reshape(-1, 2, 2)
        determinant = np.linalg.det(information)
        sound = determinant > 1e-9 * (information[:, 0, 0] * information[:, 1, 1])
        rows, value, gradient, information = rows[sound], value[sound], gradient[sound], information[sound]
        if not len(rows):
            break
        step = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
        moved = likelihood(rows, theta[rows] + step)
        for _ in range(30):
            worse = moved < value - 1e-9 * np.abs(value)
            if not worse.any():
                break
            step[worse] /= 2
            moved[worse] = likelihood(rows[worse], theta[rows[worse]] + step[worse])
        theta[rows] += step
        done = np.abs(step).max(1) < 1e-8
        slopes[rows[done]] = theta[rows[done], 1]
        go_on = ~done & (np.abs(theta[rows, 1]) <= STEEPEST)
        rows, value = rows[go_on], moved[go_on]
    return np.where(np.abs(slopes) <= STEEPEST, slopes, np.nan)
