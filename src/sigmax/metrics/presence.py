"""Presence of each pair: log loss, Brier score, calibration, F1 at a threshold.

Sums over pairs are kept query by query, so that every metric can be bootstrapped over queries without looking at the
pairs again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, sparse, special

from sigmax.arrays import Bools, Floats
from sigmax.metrics.intervals import Estimate, Statistic, estimate, mean_statistic

__all__ = ["PRESENCE", "PresenceTally", "ReliabilityBin"]

PRESENCE = (
    "log_loss",
    "brier",
    "calibration_error",
    "smooth_calibration_error",
    "calibration_slope",
    "expected_ratio",
    "micro_f1",
    "macro_f1",
)
BINS = 15
#: The grids that presences are put on for the smooth calibration error: as fine as its bandwidth asks, within these.
COARSEST, FINEST = 256, 2**15
#: The grid that logits of presences are put on for the calibration slope.
LOGITS = np.arange(-28.5, 28.75, 0.25)
STEEPEST = 20.0


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs of like presence, and how many of them are right."""

    pairs: int
    presence: float  #: mean
    right: Estimate  #: share of right pairs, with its 95% interval over queries

    def as_dict(self) -> dict[str, Any]:
        """Return pairs, presence and right, for JSON."""
        return {"pairs": self.pairs, "presence": self.presence, "right": self.right.as_dict()}


class PresenceTally:
    """Adds up blocks of queries, then gives the metrics.

    With presence p and truth y of each of N pairs:

    - log_loss: mean over queries of Σⱼ −y log p − (1 − y) log(1 − p), in nats a query;
    - brier: mean over queries of Σⱼ (p − y)²;
    - calibration_error: Σ_b (n_b / N) |mean p − mean y| over `BINS` bins of equally many pairs
      (adaptive ECE: Nixon et al. 2019);
    - smooth_calibration_error: the σ at which ∫₀¹ |Σ (p − y) K_σ(t, p) / N| dt = σ, K_σ(t, p) being the normal density
      at t with mean p and deviation σ, reflected at 0 and 1 (smooth ECE: Błasiok & Nakkiran 2023); p is shared between
      its neighbours on a grid whose steps are about σ/4 or less;
    - calibration_slope: the maximum-likelihood b of P(y) = σ(a + b · logit p) (Cox 1958): 1 where presences are spread
      as they should be, below 1 where they are too sure, above 1 where too cautious; NaN where right and wrong pairs
      are wholly apart, or |b| > `STEEPEST`;
    - expected_ratio: Σ p / Σ y, right pairs expected over right pairs there are (calibration in the large);
    - micro_f1 and macro_f1 of p ≥ threshold: over all pairs together, and the mean over the candidates that are
      right or claimed at least once.

    Args:
        threshold: presence from which a pair is claimed.
        edges: (BINS − 1,) inner edges of the bins, see `mass_edges`.
        expected_edges: inner edges of the bins of the reliability diagram, see `expected_edges`; None: `edges`.
        grid: steps of [0, 1] for the smooth calibration error, see `smooth_grid`.
    """

    def __init__(
        self, threshold: float, edges: Floats, *, expected_edges: Floats | None = None, grid: int = 2048
    ) -> None:
        self.threshold = threshold
        self.edges = edges
        self.expected_edges = edges if expected_edges is None else expected_edges
        self.grid = grid
        self._blocks: list[dict[str, Floats]] = []
        self._residuals: list[sparse.csr_array] = []
        self._claims: list[tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]] = []

    @classmethod
    def like(cls, presence: Floats, right: Bools, threshold: float) -> PresenceTally:
        """A tally whose bins and grid suit pairs like these (k,)."""
        return cls(
            threshold,
            mass_edges(presence),
            expected_edges=expected_edges(presence),
            grid=smooth_grid(presence, right),
        )

    def add(self, presence: Floats, right: Bools) -> None:
        """Count a block: presence (b, m) in [0, 1], right (b, m)."""
        p = np.clip(presence, 1e-12, 1 - 1e-12)
        z = special.logit(p)
        self._blocks.append(
            {
                "log_loss": -np.where(right, np.log(p), np.log1p(-p)).sum(1),
                "brier": ((presence - right) ** 2).sum(1),
                "answers": right.sum(1).astype(float),
                "answer_logits": np.where(right, z, 0).sum(1),
                "logits": _on_grid(z),
                "right_range": np.stack([np.where(right, z, np.inf).min(1), np.where(right, z, -np.inf).max(1)], 1),
                "wrong_range": np.stack([np.where(right, np.inf, z).min(1), np.where(right, -np.inf, z).max(1)], 1),
                **_in_bins(presence, right, self.edges, ""),
                **_in_bins(presence, right, self.expected_edges, "expected_"),
            }
        )
        rows = np.tile(np.repeat(np.arange(len(p)), p.shape[1]), 2)
        places, parts = _split(presence.ravel(), (presence - right).ravel(), self.grid)
        self._residuals.append(sparse.csr_array((parts, (rows, places)), shape=(len(p), self.grid + 1)))
        said = presence >= self.threshold
        self._claims.append(tuple(sparse.csr_array(part.astype(float)) for part in (said & right, said, right)))  # type: ignore[arg-type]

    def metrics(self) -> dict[str, Statistic]:
        """Metrics over all that was added, in the order of `PRESENCE`."""
        total = self._total()
        hits, said, there = (sparse.vstack(parts).tocsr() for parts in zip(*self._claims, strict=True))
        pairs = total["pairs"].sum(1)
        residuals = sparse.vstack(self._residuals).T.tocsr()
        start = _smooth_error(np.asarray(residuals.sum(1))[None] / pairs.sum(), 4 / self.grid)[0]

        def calibration_error(weights: Floats) -> Floats:
            gap = np.abs(weights @ total["claimed"] - weights @ total["right"]).sum(1)
            error: Floats = gap / (weights @ pairs)
            return error

        def smooth_calibration_error(weights: Floats) -> Floats:
            errors = np.empty(len(weights))
            for at in range(0, len(weights), 50):  # (50, grid) at a time
                block = weights[at : at + 50]
                mean = (residuals @ np.ascontiguousarray(block.T)).T / (block @ pairs)[:, None]
                errors[at : at + 50] = _smooth_error(mean, start)
            return errors

        def calibration_slope(weights: Floats) -> Floats:
            sums = weights @ np.stack([total["answers"], total["answer_logits"]], 1)
            slopes = _logistic_slope(weights @ total["logits"], sums)
            for row in np.flatnonzero(np.abs(slopes) > 2):  # the grid cannot tell steep from infinitely steep
                drawn = weights[row] > 0
                right, wrong = total["right_range"][drawn], total["wrong_range"][drawn]
                if right[:, 0].min() >= wrong[:, 1].max() or right[:, 1].max() <= wrong[:, 0].min():
                    slopes[row] = np.nan
            return slopes

        def expected_ratio(weights: Floats) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = (weights @ total["claimed"].sum(1)) / (weights @ total["answers"])
            return np.where(np.isfinite(ratio), ratio, np.nan)

        def micro_f1(weights: Floats) -> Floats:
            return _f1(*(weights @ part.sum(1) for part in (hits, said, there)))

        def macro_f1(weights: Floats) -> Floats:
            means = np.empty(len(weights))
            for start in range(0, len(weights), 100):  # (100, m) at a time
                block = weights[start : start + 100]
                f1 = _f1(*((part.T @ block.T).T for part in (hits, said, there)))
                known = ~np.isnan(f1)
                with np.errstate(invalid="ignore"):
                    means[start : start + 100] = np.where(known, f1, 0).sum(1) / known.sum(1)
            return means

        return {
            "log_loss": mean_statistic(total["log_loss"]),
            "brier": mean_statistic(total["brier"]),
            "calibration_error": calibration_error,
            "smooth_calibration_error": smooth_calibration_error,
            "calibration_slope": calibration_slope,
            "expected_ratio": expected_ratio,
            "micro_f1": micro_f1,
            "macro_f1": macro_f1,
        }

    def reliability(self, weights: Floats) -> tuple[ReliabilityBin, ...]:
        """The reliability diagram's bins that hold pairs, by rising presence, with intervals from (1 + draws, n)."""
        total = self._total()
        pairs, claimed, right = (weights @ total[f"expected_{name}"] for name in ("pairs", "claimed", "right"))
        with np.errstate(invalid="ignore"):
            shares = right / pairs
        return tuple(
            ReliabilityBin(int(pairs[0, b]), float(claimed[0, b] / pairs[0, b]), estimate(shares[:, b]))
            for b in np.flatnonzero(pairs[0])
        )

    def _total(self) -> dict[str, Floats]:
        """Name -> (n, …) of all queries."""
        return {name: np.concatenate([block[name] for block in self._blocks]) for name in self._blocks[0]}


def mass_edges(presence: Floats, bins: int = BINS) -> Floats:
    """Inner edges of `bins` bins that hold equally many of the given presences."""
    edges: Floats = np.quantile(presence, np.arange(1, bins) / bins)
    return edges


def expected_edges(presence: Floats) -> Floats:
    """Inner edges of `BINS` bins whose presences add up to equally much: equally many right pairs are expected in each.

    Bins of equally many pairs would lump all that is likely together, where most pairs are wrong.
    """
    rising = np.sort(presence)
    mass = rising.cumsum()
    places = np.searchsorted(mass, mass[-1] * np.arange(1, BINS) / BINS)
    edges: Floats = rising[np.minimum(places, len(rising) - 1)]
    return edges


def smooth_grid(presence: Floats, right: Bools) -> int:
    """The power of two, from `COARSEST` to `FINEST`, whose steps are at most a quarter of these pairs' bandwidth σ."""
    residuals = np.bincount(*_split(presence, presence - right, FINEST), FINEST + 1) / len(presence)
    bandwidth = _smooth_error(residuals[None], 0.01)[0]
    return int(min(FINEST, max(COARSEST, 2.0 ** np.ceil(np.log2(4 / max(bandwidth, 1e-9))))))


def _f1(hits: Floats, said: Floats, right: Floats) -> Floats:
    """2·hits / (said + right); NaN where nothing was said nor right."""
    with np.errstate(invalid="ignore"):
        f1: Floats = 2 * hits / (said + right)
    return f1


def _in_bins(presence: Floats, right: Bools, edges: Floats, prefix: str) -> dict[str, Floats]:
    """(b, bins) of each query: its pairs, the sum of their presences, and how many are right."""
    bins = len(edges) + 1
    places = np.searchsorted(edges, presence, side="right")
    return {
        f"{prefix}pairs": _sums(places, None, bins),
        f"{prefix}claimed": _sums(places, presence, bins),
        f"{prefix}right": _sums(places, right, bins),
    }


def _sums(places: NDArray[np.int64], values: NDArray[Any] | None, size: int) -> Floats:
    """(b, m) places in [0, size) -> (b, size) how many there are of each, or the sums of their values."""
    flat = (np.arange(len(places))[:, None] * size + places).ravel()
    values = None if values is None else values.ravel()
    return np.bincount(flat, values, len(places) * size).reshape(-1, size).astype(float)


def _split(presence: Floats, values: Floats, grid: int) -> tuple[NDArray[np.int64], Floats]:
    """(k,) presences and values -> (2k,) places in 0, …, grid, and the parts of the values there, by nearness."""
    at = presence * grid
    below = np.minimum(at.astype(np.int64), grid - 1)
    above = values * (at - below)
    return np.concatenate([below, below + 1]), np.concatenate([values - above, above])


def _on_grid(z: Floats) -> Floats:
    """(b, m) logits -> (b, len(LOGITS)) weights with Σ f(z) = Σ weight · f(LOGITS) for cubics, nearly for smooth f.

    Each logit is spread over its four neighbours by Lagrange's polynomials.
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
    weights: Floats = np.sum([_sums(below + k - 1, part, len(LOGITS)) for k, part in enumerate(spread)], axis=0)
    return weights


def _logistic_slope(counts: Floats, sums: Floats) -> Floats:
    """Maximise Σ_right (a + b z) − Σ counts · softplus(a + b z) by Newton's method, a row at a time.

    Args:
        counts: (r, len(LOGITS)) pairs at each logit.
        sums: (r, 2) right pairs, and the sum of their logits.

    Returns:
        (r,) b; NaN where no finite b is best.
    """
    inputs = np.stack([np.ones_like(LOGITS), LOGITS], 1)
    products = (inputs[:, :, None] * inputs[:, None, :]).reshape(-1, 4)
    theta = np.tile([0.0, 1.0], (len(counts), 1))
    slopes = np.full(len(counts), np.nan)

    def likelihood(rows: NDArray[np.int64], theta: Floats) -> Floats:
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


def _smooth_error(residuals: Floats, start: float) -> Floats:
    """(r, g + 1) mean residuals at 0, 1/g, …, 1 -> (r,) the σ that equals F(σ) = ∫ |residuals smoothed by K_σ|.

    A reflected normal density has the cosine series K_σ(t, p) = 1 + 2 Σₖ exp(−(kπσ)²/2) cos kπt cos kπp. As F falls,
    σ and F(σ) enclose the answer from both sides; between them, log F is taken as linear in log σ.
    """
    g = residuals.shape[1] - 1
    ends = np.ones(g + 1)
    ends[[0, -1]] = 2
    waves = fft.dct(residuals * ends / 2, type=1, axis=1)
    decay = -((np.pi * np.arange(g + 1)) ** 2) / 2

    def smoothed(rows: NDArray[np.int64], sigma: Floats) -> Floats:
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
