r"""The steps that AdamW takes where the gradient is 0, many at once.

After a step at which a weight had the moments m and v, and then k steps s = t + k without a gradient, Adam has moved it
by

    −m Σ_k η_s β₁ᵏ / (1 − β₁ˢ) / (√v β₂^{k/2} / √(1 − β₂ˢ) + ε)  =  −m Σ_k ω_k u_k / (√v + ε u_k),

    ω_k = η_s β₁ᵏ / (1 − β₁ˢ),  u_k = √(1 − β₂ˢ) β₂^{−k/2}

with the learning rates η. The ω and u are those of the step, not of the weight, and u hardly changes while β₁ᵏ fades:
Gauss's rule for the measure Σ ω_k δ(u_k) puts n nodes in place of all steps. n nodes are exact for polynomials in u of
degree 2n − 1, so for ε = 0 and for v = 0; between the two ends the error is largest where u changes most, in the first
steps of all, which get more nodes. After `WINDOW` steps nothing that float32 could tell is left of m.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sigmax.arrays import Floats, Ints

__all__ = ["NODES", "WINDOW", "Rates", "gauss", "missed"]

#: Steps after which a weight has stopped: (β₁ / √β₂)ᵏ < 6 · 10⁻⁸ with the usual β.
WINDOW = 160
#: Nodes by the last step with a gradient: up to which step, and how many.
NODES = ((40, 8), (400, 4), (2**31 - 1, 2))


class Rates:
    """The learning rate of each step, from 1 on."""

    def __init__(self, steps: int = 0) -> None:
        self._values = np.full(max(1024, 2 * steps), np.nan)  # those before this run are never asked for
        self.steps = steps

    def append(self, rate: float) -> None:
        """Take one more step."""
        self.steps += 1
        if self.steps == len(self._values):
            self._values = np.append(self._values, np.full(self.steps, np.nan))
        self._values[self.steps] = rate

    def __getitem__(self, steps: Ints) -> Floats:
        """Return the rates of some steps."""
        found: Floats = self._values[steps]
        return found


def missed(
    last: Ints, paid: Ints, now: int, rates: Rates, nodes: int, betas: tuple[float, float]
) -> tuple[Floats, Floats]:
    """Make nodes u and weights ω u, (g, nodes) each, of the steps from `paid` on, exclusive, to `now`.

    Args:
        last: (g,) steps at which there was a gradient last.
        paid: (g,) steps from then on up to which the weight has moved already.
        now: the last step.
        rates: of the steps.
        nodes: how many.
        betas: β₁ and β₂.
    """
    ends = np.minimum(now, last + WINDOW)
    steps = paid[:, None] + 1 + np.arange(max(0, int((ends - paid).max(initial=0))))
    there = steps <= ends[:, None]
    steps = np.where(there, steps, ends[:, None])
    k = steps - last[:, None]
    omega = np.where(there, rates[steps] * betas[0] ** k / -np.expm1(steps * np.log(betas[0])), 0.0)
    u = np.sqrt(-np.expm1(steps * np.log(betas[1]))) * betas[1] ** (-k / 2)
    found, weights = gauss(u, omega, nodes)
    return found, weights * found


def gauss(x: Floats, weights: Floats, nodes: int) -> tuple[Floats, Floats]:
    """Make Gauss's rules (Golub & Welsch 1969) for g discrete measures: nodes and weights, (g, nodes) each.

    Nodes that a measure of fewer points does not need have a weight of 0.

    Args:
        x: (g, p) points.
        weights: (g, p) of the points, not negative.
        nodes: how many.
    """
    groups = len(x)
    matrix = np.zeros((groups, nodes, nodes))
    total = weights.sum(1)
    before: Any = 0.0
    norm = np.ones(groups)
    polynomial = np.ones_like(x) * (total > 0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        for j in range(nodes):  # Stieltjes: orthonormal polynomials, each from the two before
            square = weights * polynomial**2
            size = square.sum(1)
            ended = size <= 1e-26 * norm if j else size <= 0  # a polynomial with all the points among its roots
            centre = np.where(ended, 1.0, (square * x).sum(1) / size)
            matrix[:, j, j] = centre
            link = np.where(ended, 0.0, size / norm) if j else np.zeros(groups)
            if j:
                matrix[:, j, j - 1] = matrix[:, j - 1, j] = np.sqrt(link)
            polynomial, before = (
                np.where(ended[:, None], 0.0, (x - centre[:, None]) * polynomial - link[:, None] * before),
                polynomial,
            )
            norm = np.where(ended, 1.0, size)
    values, vectors = np.linalg.eigh(matrix)
    return values, total[:, None] * vectors[:, 0, :] ** 2
