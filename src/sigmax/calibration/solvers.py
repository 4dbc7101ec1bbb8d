"""Two convex problems with quick answers: slopes that may not be negative, and two numbers for each candidate."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from sigmax.arrays import Floats, Ints, expit

__all__ = ["fit_candidates", "fit_slopes", "log_loss"]


#: Newton steps, at most: ten are usual, more where pairs can be parted.
STEPS = 100


def log_loss(z: Floats, target: NDArray[Any], weights: Floats) -> tuple[Floats, Floats]:
    """Return (k,) w [softplus(z) − target · z] and its derivative by z."""
    softplus, presence = _softplus(z)
    return weights * (softplus - target * z), weights * (presence - target)


def _softplus(z: Floats) -> tuple[Floats, Floats]:
    """Return log(1 + exp z) = max(z, 0) + log(1 + e^−|z|) and its derivative σ(z), of one exponential."""
    small = np.exp(-np.abs(z))
    return np.maximum(z, 0) + np.log1p(small), np.where(z >= 0, 1.0, small) / (1 + small)


def fit_slopes(features: Floats, target: Floats, weights: Floats) -> tuple[Floats, float]:
    """Minimise Σ w [softplus(z) − target · z] over z = ⟨slopes, features⟩ + bias with all slopes ≥ 0.

    Newton's method, each step with its bounds (a small problem of bounded least squares) and halved until it helps. A
    feature that is the same for all pairs gets the slope 0: nothing is known about others.

    Args:
        features: (f, k) of k pairs.
        target: (k,) in (0, 1).
        weights: (k,) above 0.

    Returns:
        (f,) slopes and the bias.
    """
    centre = np.average(features, axis=1, weights=weights)
    spread = np.sqrt(np.average((features - centre[:, None]) ** 2, axis=1, weights=weights))
    used = np.flatnonzero(np.ptp(features, axis=1) > 1e-12 * np.abs(features).max(axis=1))
    x = np.concatenate([(features[used] - centre[used, None]) / spread[used, None], np.ones((1, features.shape[1]))])
    mean = float(np.average(target, weights=weights))
    p = np.append(np.zeros(len(used)), scipy.special.logit(mean))
    least = np.append(np.zeros(len(used)), -np.inf)
    z = p @ x
    softplus, presence = _softplus(z)
    total = float(weights @ (softplus - target * z))
    for _ in range(STEPS):
        gradient = x @ (weights * (presence - target))
        hessian = (x * (weights * presence * (1 - presence))) @ x.T
        step = _bounded(hessian + 1e-9 * np.trace(hessian) * np.eye(len(p)), gradient, p, least)
        gain = -float(gradient @ step)
        if gain <= 1e-9 * max(total, 1e-300):
            break
        length = 1.0
        while length > 1e-8:
            z = (p + length * step) @ x
            softplus, presence = _softplus(z)
            value = float(weights @ (softplus - target * z))
            if value <= total - 1e-4 * length * gain:
                break
            length /= 2
        p, total = np.maximum(p + length * step, least), value
    slopes = np.zeros(len(features))
    slopes[used] = p[:-1] / spread[used]
    return slopes, float(p[-1] - slopes @ centre)


def _bounded(hessian: Floats, gradient: Floats, p: Floats, least: Floats) -> Floats:
    """Return Δ with the least ½ ΔᵀHΔ + gᵀΔ where p + Δ ≥ least.

    Numbers that would fall below their bounds are held there. If none of these would rise again that is the answer;
    else, which is rare, it is found by bounded least squares, ½ |RᵀΔ + R⁻¹g|² with RRᵀ = H.
    """
    held = np.zeros(len(p), bool)
    for _ in range(len(p)):
        step = np.where(held, least - p, 0.0)
        free = ~held
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)], -(gradient + hessian @ step)[free])
        below = free & (p + step < least)
        if not below.any():
            if (held & (gradient + hessian @ step < 0)).any():
                break
            return step
        held |= below
    root = np.linalg.cholesky(hessian)
    right_side = root.T @ p - scipy.linalg.solve_triangular(root, gradient, lower=True)
    bounded: Floats = scipy.optimize.lsq_linear(root.T, right_side, (least, np.inf), method="bvls").x - p
    return bounded


def fit_candidates(
    z: Floats, target: Floats, weights: Floats, candidates: Ints, size: int
) -> tuple[Floats, Floats, float, float]:
    """Fit log odds (1 + uⱼ) z + vⱼ with u ~ N(0, σ_u²), v ~ N(0, σ_v²), u ≥ −1, and how wide both are.

    The widths are those that make the data likeliest, by EM with Laplace's approximation of each candidate's posterior
    (empirical Bayes: Efron & Morris 1973; for scores of several sources: Stein 1956): where candidates hardly differ,
    all shrink to what they share, and one with few pairs shrinks more than one with many.

    Args:
        z: (k,) log odds by the curve that all share.
        target: (k,) in (0, 1).
        weights: (k,) above 0.
        candidates: (k,) in [0, size).
        size: m.

    Returns:
        (m,) u, (m,) v, σ_u, σ_v.
    """
    order = np.argsort(candidates, kind="stable")
    z, target, weights, candidates = z[order], target[order], weights[order], candidates[order]
    first = np.flatnonzero(np.append(True, candidates[1:] != candidates[:-1]))
    names = candidates[first]
    place = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(z))))

    def sums(values: Floats) -> Floats:
        total: Floats = np.add.reduceat(values, first)
        return total

    u, v = np.zeros(len(first)), np.zeros(len(first))
    absent = size - len(first)
    wide_u, wide_v = 0.3, 1.0
    for step in range(STEPS):
        presence = expit((1 + u[place]) * z + v[place])
        residual, curvature = weights * (presence - target), weights * presence * (1 - presence)
        of_z = curvature * z
        gradient_u, gradient_v = sums(residual * z) + u / wide_u**2, sums(residual) + v / wide_v**2
        uu, uv, vv = sums(of_z * z) + 1 / wide_u**2, sums(of_z), sums(curvature) + 1 / wide_v**2
        determinant = uu * vv - uv**2
        step_u = -(vv * gradient_u - uv * gradient_v) / determinant
        step_v = -(uu * gradient_v - uv * gradient_u) / determinant
        # At u's bound, v alone moves.
        bound = (u <= -1) & (step_u < 0)
        step_u, step_v = np.where(bound, 0, step_u), np.where(bound, -gradient_v / vv, step_v)
        length = 1 / np.maximum(1, np.maximum(np.abs(step_u) / 0.5, np.abs(step_v) / 2))
        u, v = np.maximum(u + length * step_u, -1), v + length * step_v
        moved = max(float(np.abs(step_u).max()), float(np.abs(step_v).max()))
        # One without pairs has its prior for a posterior.
        before = wide_u, wide_v
        wide_u = max(float(np.sqrt(((u**2 + vv / determinant).sum() + absent * wide_u**2) / size)), 1e-3)
        wide_v = max(float(np.sqrt(((v**2 + uu / determinant).sum() + absent * wide_v**2) / size)), 1e-3)
        settled = abs(wide_u / before[0] - 1) + abs(wide_v / before[1] - 1)
        if step and moved < 1e-4 and settled < 1e-2:
            break
    of_u, of_v = np.zeros(size), np.zeros(size)
    of_u[names], of_v[names] = u, v
    return of_u, of_v, wide_u, wide_v
