"""What `sigmax.training.row_adamw` does to rows, in one pass over each. Importing this file imports Numba.

Tensor operations gather rows, work on the copies and scatter them; the loops read each number once and write it once.
Compiled once per machine, then read from Numba's cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["move", "pay"]


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def move(table, first, second, rows, values, fades, numbers):  # type: ignore[no-untyped-def]
    """Take a step of Adam on some rows.

    Args:
        table: (v, d).
        first: (v, d) moments m.
        second: (v, d) moments v.
        rows: (u,) distinct.
        values: (u, d) gradients.
        fades: (2, u) what β₁ and β₂ leave of the moments.
        numbers: 1 − β₁, 1 − β₂, η / (1 − β₁ᵗ), 1 / (1 − β₂ᵗ), ε.
    """
    new, square, rate, unbiased, eps = numbers
    for i in range(len(rows)):
        weights, m, v, gradient = table[rows[i]], first[rows[i]], second[rows[i]], values[i]
        old, older = fades[0, i], fades[1, i]
        for k in range(len(weights)):
            arriving = gradient[k]
            mean = m[k] * old + arriving * new
            spread = v[k] * older + arriving * arriving * square
            m[k] = mean
            v[k] = spread
            weights[k] -= rate * mean / (np.sqrt(spread * unbiased) + eps)


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def pay(table, first, second, rows, which, points, weights):  # type: ignore[no-untyped-def]
    """Let rows take the steps they have missed: −m Σ_j w_j / (√v + u_j).

    Args:
        table: (v, d).
        first: (v, d) moments m.
        second: (v, d) moments v.
        rows: (u,) distinct.
        which: (u,) places in `points`.
        points: (g, n) u.
        weights: (g, n) w.
    """
    width = table.shape[1]
    roots, total = np.empty(width, table.dtype), np.empty(width, table.dtype)
    for i in range(len(rows)):
        m, v, moved = first[rows[i]], second[rows[i]], table[rows[i]]
        u, w = points[which[i]], weights[which[i]]
        for k in range(width):
            roots[k] = np.sqrt(v[k])
            total[k] = w[0] / (roots[k] + u[0])
        for j in range(1, len(u)):
            share, point = w[j], u[j]
            for k in range(width):
                total[k] += share / (roots[k] + point)
        for k in range(width):
            moved[k] -= m[k] * total[k]
