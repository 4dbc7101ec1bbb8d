"""One check against chance: broken for sure, not shown to be broken, or too few queries to tell.

A promise says that a loss per query, in [0, 1], is at most a on average. On n fresh queries it is *broken* where so
high a loss would be rarer than α if the promise held, by the p-value of "the mean is at most a": exact for losses of 0
and 1, else Hoeffding–Bentkus, both of one minus the loss (see `sigmax.calibration.p_values`). It *cannot be told* where
n is so small that a promise broken by far, losing twice what it may, would go unseen in more than one of five cases;
else it was *not shown* to be broken. Several checks share α equally (Bonferroni), so that all together raise a false
alarm with a probability of at most α.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from sigmax.calibration.p_values import p_values
from sigmax.errors import lookup
from sigmax.metrics.registry import METRICS

__all__ = ["BROKEN", "POWER", "UNSHOWN", "UNTOLD", "Bound", "Check", "check_bound", "check_loss", "parse_bound"]

BROKEN, UNSHOWN, UNTOLD = "broken", "not shown to be broken", "too few to tell"
#: Probability with which a promise that is broken by far is to be seen.
POWER = 0.8
#: A bound of a metric is broken by far where it is missed by this part of it.
MARGIN = 0.1
#: Metrics that are quotients of two sums.
RATIOS = ("expected_ratio",)
#: Queries beyond which nobody goes.
MOST = 10**7


@dataclass(frozen=True)
class Check:
    """What fresh queries say of a promise or a bound."""

    name: str  #: such as "precision=0.95" or "map>=0.8"
    value: float | None  #: measured; None: there is nothing to measure
    low: float | None  #: of its 95% interval
    high: float | None
    bound: float  #: what it has to reach, or may not exceed
    queries: int  #: that it is about
    p: float | None  #: probability of a value so bad if the promise held
    verdict: str  #: `BROKEN`, `UNSHOWN` or `UNTOLD`
    needed: int | None  #: queries with which a promise broken by far would be seen; None: not known
    words: str  #: what was checked, and what came of it, for people

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Bound:
    """A metric and what it has to be."""

    metric: str
    least: bool  #: whether the bound is the least that it may be, not the most
    level: float

    def __str__(self) -> str:
        return f"{self.metric}{'>=' if self.least else '<='}{self.level:g}"


def parse_bound(text: str) -> Bound:
    """Read a bound such as "map>=0.8" or "log_loss<=1.2".

    Raises:
        ValueError: not of that form.
        UnknownNameError: no such metric.
    """
    found = re.fullmatch(r"\s*([\w@-]+)\s*(>=|<=|=>|=<|>|<)\s*([-+.\deE]+)\s*", text)
    try:
        level = float(found[3]) if found else math.nan
    except ValueError:
        level = math.nan
    if found is None or not math.isfinite(level):
        raise ValueError(f"Expected a metric and a bound such as map>=0.8 or log_loss<=1.2, got {text!r}.")
    lookup(METRICS, found[1], "metric")
    return Bound(found[1], ">" in found[2], level)


def check_loss(
    name: str,
    total: float,
    n: int,
    allowed: float,
    *,
    exact: bool,
    alpha: float,
    words: str,
    level: float | None = None,
) -> Check:
    """Check that a loss per query is at most `allowed` on average.

    Args:
        name: of the promise.
        total: Σ loss over the queries.
        n: how many queries.
        allowed: a.
        exact: whether each loss is 0 or 1.
        alpha: of this check.
        words: what is promised.
        level: as the promise gives it, where that is not the loss allowed: what is told is then one minus the loss.
    """
    turned = level is not None and not math.isclose(level, allowed)
    bound = allowed if level is None else level
    needed = _fewest(lambda count: _power(count, allowed, exact, alpha) >= POWER)
    if not n:
        return Check(name, None, None, None, bound, 0, None, UNTOLD, needed, f"{words}: there was no such query")
    p = _p(total, n, allowed, exact)
    low, high = _interval(total, n, exact)
    value = total / n
    if turned:
        value, low, high = 1 - value, 1 - high, 1 - low
    verdict = BROKEN if p <= alpha else UNTOLD if _power(n, allowed, exact, alpha) < POWER else UNSHOWN
    return Check(name, value, low, high, bound, n, p, verdict, needed, words)


def check_bound(bound: Bound, draws: np.ndarray, n: int, *, alpha: float, name: str = "", words: str = "") -> Check:
    """Check a bound of a metric by its bootstrap draws.

    p is that of Student's t for (value − bound) / standard error with n − 1 degrees of freedom, the standard error
    being the deviation of the draws; a miss by `MARGIN` of the bound is to be seen. A ratio (`RATIOS`) is tested on its
    logarithm: its standard error grows with it, so that one that came out small looks surer than it is.

    Args:
        bound: what the metric has to be.
        draws: (1 + draws,) values of the metric, the first being the plain one.
        n: queries.
        alpha: of this check.
        name: of the check; the bound's own text if not given.
        words: what is checked; the metric's meaning if not given.
    """
    value, drawn = float(draws[0]), draws[1:][~np.isnan(draws[1:])]
    words = words or METRICS[bound.metric].meaning
    name = name or str(bound)
    if math.isnan(value) or len(drawn) < 10 or n < 2:
        return Check(name, None, None, None, bound.level, n, None, UNTOLD, None, f"{words}: cannot be measured here")
    low, high = (float(x) for x in np.quantile(drawn, [0.025, 0.975]))
    gap, margin, spread = value - bound.level, max(MARGIN * abs(bound.level), 1e-9), drawn
    if bound.metric in RATIOS and bound.level > 0 and value > 0 and (drawn > 0).all():
        gap, margin, spread = math.log(value / bound.level), math.log1p(MARGIN), np.log(drawn)
    error = max(float(spread.std(ddof=1)), 1e-12)
    p = float(scipy.stats.t.cdf((gap if bound.least else -gap) / error, n - 1))
    steps = float(scipy.stats.norm.ppf(1 - alpha) + scipy.stats.norm.ppf(POWER))
    needed = max(2, math.ceil(n * (steps * error / margin) ** 2))
    verdict = BROKEN if p <= alpha else UNTOLD if needed > n else UNSHOWN
    return Check(name, value, low, high, bound.level, n, p, verdict, needed, words)


def _p(total: float, n: int, allowed: float, exact: bool) -> float:
    """P-value of "the mean loss is at most `allowed`": of the mean of one minus the loss being at least the rest."""
    return float(p_values(np.array([n - total]), np.array([float(n)]), 1 - allowed, exact=exact)[0])


def _interval(total: float, n: int, exact: bool) -> tuple[float, float]:
    """95% interval of the mean loss: the means that neither one-sided test of 2.5% rejects."""

    def end(keeps: Callable[[float], bool]) -> float:
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (low, middle) if keeps(middle) else (middle, high)
        return (low + high) / 2

    lower = end(lambda a: _p(total, n, a, exact) > 0.025)
    upper = end(lambda a: float(p_values(np.array([total]), np.array([float(n)]), a, exact=exact)[0]) <= 0.025)
    return lower, upper


def _power(n: int, allowed: float, exact: bool, alpha: float) -> float:
    """Probability that losing twice what is allowed is seen; of other losses than 0 and 1, as if they were."""
    far = min(2 * allowed, (1 + allowed) / 2)
    low, high = 0, n + 1
    while low < high:  # the fewest losses that are broken for sure
        middle = (low + high) // 2
        low, high = (low, middle) if _p(middle, n, allowed, exact) <= alpha else (middle + 1, high)
    return float(scipy.stats.binom.sf(low - 1, n, far)) if low <= n else 0.0


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """About the least number from which on it is enough: exact losses make small steps up and down."""
    high = 1
    while not enough(high):
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
