"""A metric with its uncertainty: 95% intervals by the bootstrap over queries, and paired differences.

A metric is a function of the queries' weights. The plain value gives every query weight 1; a bootstrap draw gives
each the number of times it was drawn (Efron & Tibshirani 1993, ch. 13). Every metric of one split is evaluated on the
*same* draws, so differences between models are paired query by query.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sigmax.arrays import Floats

__all__ = [
    "DRAWS",
    "Difference",
    "Estimate",
    "Statistic",
    "bootstrap_weights",
    "combine_seeds",
    "difference",
    "estimate",
    "interval",
    "mean_statistic",
    "measure",
    "number",
]


#: (b, n) query weights -> (b,) values; NaN where a draw has nothing to measure.
Statistic = Callable[[Floats], Floats]

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Return value, low and high; None where not defined (JSON has no NaN)."""
        return {key: None if np.isnan(number) else number for key, number in asdict(self).items()}


@dataclass(frozen=True)
class Difference(Estimate):
    """A paired difference and its 95% interval."""

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return bool(self.low > 0 or self.high < 0)

    def as_dict(self) -> dict[str, float | None]:
        """Return value, low, high and whether the interval excludes 0."""
        return {**super().as_dict(), "significant": self.significant}


def bootstrap_weights(n: int, *, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Return (1 + draws, n) weights: all ones, then counts of n queries drawn n times with replacement."""
    random = np.random.default_rng([seed, n])
    return np.concatenate([np.ones((1, n)), random.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)])


def mean_statistic(values: Floats) -> Statistic:
    """Make the mean over the queries whose value is not NaN a function of their weights."""
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)

    def metric(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            mean: Floats = (weights @ filled) / (weights @ known)
        return mean

    return metric


def estimate(values: Floats) -> Estimate:
    """Return the first of (1 + draws,) values, with the percentile interval of the others."""
    draws = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not len(draws):
        return Estimate(float(values[0]), float("nan"), float("nan"))
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values[0]), float(low), float(high))


def combine_seeds(values: Sequence[Floats], *, seed: int = 0) -> Floats:
    """Average (1 + draws,) values over training seeds; each draw also draws seeds with replacement.

    The interval then covers both other queries and other seeds. The choice of seeds
    depends on the number of seeds only, so two models' combined values are paired.
    """
    stacked = np.stack(values)
    count, draws = stacked.shape
    weights = np.ones((count, draws))
    weights[:, 1:] = np.random.default_rng([seed, count]).multinomial(count, np.full(count, 1 / count), draws - 1).T
    combined: Floats = (weights * stacked).sum(0) / count
    return combined


def difference(a: Floats, b: Floats) -> Difference:
    """Return the paired difference a − b of two metrics evaluated on the same draws."""
    gap = estimate(a - b)
    return Difference(gap.value, gap.low, gap.high)


def measure(metrics: Mapping[str, Statistic], weights: Floats) -> dict[str, Floats]:
    """Evaluate every metric on every row of weights."""
    return {name: metric(weights) for name, metric in metrics.items()}


def interval(value: Estimate) -> str:
    """Print both ends of an interval."""
    return f"{number(value.low)}–{number(value.high)}"


def number(value: float) -> str:
    """Print the digits that matter: 0.912, 0.0031, 12.0."""
    if math.isnan(value):
        return "–"
    if 0 < abs(value) < 0.01:
        return f"{value:.4f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
