"""The smooth calibration error: the bandwidth that equals the mean gap smoothed with it."""

from __future__ import annotations

import numpy as np

from sigmax.arrays import Bools, Floats, Ints

__all__ = ["COARSEST", "FINEST", "smooth_error", "smooth_grid", "spread"]

#: The grids that presences are put on: as fine as the bandwidth asks, within these.
COARSEST, FINEST = 256, 2**15
#: Pairs that are put there at a time.
BLOCK = 2**18


def smooth_grid(presence: Floats, right: Bools, weights: Floats | None = None) -> int:
    """Return the power of two, in [`COARSEST`, `FINEST`], whose steps are at most a quarter of the bandwidth."""
    residuals = np.zeros(FINEST + 1)
    for start in range(0, len(presence), BLOCK):
        some = slice(start, start + BLOCK)
        apart = presence[some] - right[some]
        places, parts = spread(presence[some], apart if weights is None else apart * weights[some], FINEST)
        residuals += np.bincount(places, parts, FINEST + 1)
    residuals /= len(presence) if weights is None else weights.sum()
    bandwidth = smooth_error(residuals[None], 0.01)[0]
    return int(min(FINEST, max(COARSEST, 2.0 ** np.ceil(np.log2(4 / max(bandwidth, 1e-9))))))


def spread(presence: Floats, values: Floats, grid: int) -> tuple[Ints, Floats]:
    """Share values between the two nearest points of a grid: (2k,) places in 0, …, grid, and the part that goes there.

    Args:
        presence: (k,) in [0, 1], where the values lie.
        values: (k,).
        grid: steps of [0, 1].
    """
    at = presence * grid
    below = np.minimum(at.astype(np.int64), grid - 1)
    above = values * (at - below)
    return np.concatenate([below, below + 1]), np.concatenate([values - above, above])


def smooth_error(residuals: Floats, start: float) -> Floats:
    """Solve F(σ) = σ for F(σ) = ∫ |residuals smoothed by K_σ|, row by row.

    A reflected normal density has the cosine series K_σ(t, p) = 1 + 2 Σₖ exp(−(kπσ)²/2) cos kπt cos kπp. As F falls,
    σ and F(σ) enclose the answer from both sides; between them, log F is taken as linear in log σ.

    Args:
        residuals: (r, g + 1) mean residuals at 0, 1/g, …, 1.
        start: a first guess of σ.

    Returns:
        (r,) σ; 0 where there is no residual but for rounding.
    """
    from scipy import fft

    g = residuals.shape[1] - 1
    ends = np.ones(g + 1)
    ends[[0, -1]] = 2
    waves = fft.dct(residuals * ends / 2, type=1, axis=1)
    decay = -((np.pi * np.arange(g + 1)) ** 2) / 2

    def smoothed(rows: Ints, sigma: Floats) -> Floats:
        with np.errstate(under="ignore"):
            curve = fft.dct(waves[rows] * np.exp(decay * sigma[:, None] ** 2), type=1, axis=1, overwrite_x=True)
        area: Floats = np.abs(curve, out=curve) @ (1 / ends) / g
        return area

    found = np.zeros(len(residuals))
    rows = np.arange(len(residuals))
    low, high = np.full(len(rows), -np.inf), np.zeros(len(rows))  # of log σ
    x = np.full(len(rows), np.log(np.clip(start, 1e-9, 1)))
    before: tuple[Floats, Floats] | None = None
    for _ in range(60):
        error = smoothed(rows, np.exp(x))
        some = error > 1e-15  # else no residual at all, but for rounding
        rows, x, low, high = rows[some], x[some], low[some], high[some]
        if not len(rows):
            break
        y = np.log(error[some])
        low, high = np.maximum(low, np.minimum(x, y)), np.minimum(high, np.maximum(x, y))
        fall = np.full(len(rows), 0.5)  # −d log F / d log σ
        if before is not None:
            x_before, y_before = (part[some] for part in before)
            apart = np.abs(x - x_before) > 1e-12
            fall[apart] = np.maximum(0, -((y - y_before)[apart] / (x - x_before)[apart]))
        following = np.clip((y + fall * x) / (1 + fall), low, high)
        found[rows] = np.exp(following)
        go_on = np.abs(following - x) > 1e-3  # what is left after this step is of second order
        before = x[go_on], y[go_on]
        rows, x, low, high = rows[go_on], following[go_on], low[go_on], high[go_on]
        if not len(rows):
            break
    return found
