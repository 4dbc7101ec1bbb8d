"""Several score columns become one logit: what each says by itself, beside its rivals, and by returning nothing.

With x the score of a column, turned so that higher is better, and as log odds where the column holds probabilities
that are read better so:

    s = scale · x + bias              Platt's logit of the column alone, fitted on dev
    r = log odds of the softmax share of s among what the column returned for the query
    z = Σ over columns (a · s + b · r + d · [not returned]) + c,     a ≥ 0, b ≥ 0

A candidate that a column did not return stands there with the lowest s and r of the query: it was no better than the
last that was returned; d says how much worse, or that it does not matter. The slopes are those of a logistic regression
with the squares of the standardised slopes as penalty, so that columns which say the same share the weight. A column is
never counted against itself: a score that rises lowers no presence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints
from sigmax.calibration.any_right import folds_of
from sigmax.calibration.curves import share_odds
from sigmax.calibration.fits import fit_platt
from sigmax.calibration.solvers import log_loss
from sigmax.errors import DataError, lookup
from sigmax.scores.table import Scores, judged

__all__ = [
    "Column",
    "Combination",
    "crossed_logits",
    "direction",
    "drawn",
    "fit_combination",
    "fuse_ranks",
    "segment_sums",
]

#: Rows that the slopes are fitted on, about; beyond that, a sample of the queries, but not fewer than these.
FITTED_ROWS, FITTED_QUERIES = 300_000, 2_000
#: Weight of the squares of the standardised slopes, in pairs.
RIDGE = 1.0
#: Probabilities are kept this far from 0 and 1 where their log odds are taken.
EDGE = 1e-6
#: Standard errors by which scores must fall with the truth to be read upside down.
SURE = 3.0
#: The constant of reciprocal-rank fusion (Cormack et al. 2009).
RANK_CONSTANT = 60


@dataclass(frozen=True)
class Column:
    """How one score column becomes a logit."""

    name: str
    lower: bool  #: whether lower is better, as of a distance
    odds: bool  #: whether log odds are taken: the column holds probabilities
    scale: float  #: of the logit, at least 0
    bias: float
    lowest: float  #: the logit for a query of which the column returned nothing
    share: float  #: the log odds of its share there

    def logits(self, x: Floats) -> Floats:
        """(k,) scores -> (k,) logits, NaN where the column returned nothing."""
        z: Floats = self.scale * _turned(x, self.lower, self.odds) + self.bias
        return z


@dataclass(frozen=True)
class Combination:
    """The weighted sum of score columns; see the module's head."""

    columns: tuple[Column, ...]
    logit_slopes: tuple[float, ...]  #: a of each column
    share_slopes: tuple[float, ...]  #: b
    absent: tuple[float, ...]  #: d
    bias: float

    def logits(self, scores: Scores) -> Floats:
        """(k,) logits z of all rows.

        Raises:
            DataError: a column that the combination was fitted on is missing.
        """
        names = {column.name: place for place, column in enumerate(self.columns)}
        lacking = [name for name in names if name not in scores.columns]
        if lacking:
            raise DataError(
                f"{scores.name}: expected the score columns {', '.join(names)}, as calibrated; "
                f"{', '.join(lacking)} missing. Its score columns are {', '.join(scores.columns)}."
            )
        z = np.full(len(scores), self.bias)
        for place, column in enumerate(self.columns):
            x = scores.values[:, scores.columns.index(column.name)]
            if not (self.share_slopes[place] or self.absent[place]) and not np.isnan(x).any():
                z += self.logit_slopes[place] * column.logits(x)
                continue
            s, r, absent = features(column, x, scores.starts)
            z += self.logit_slopes[place] * s + self.share_slopes[place] * r
            if self.absent[place]:
                z += self.absent[place] * absent
        return z

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Combination:
        """Inverse of `as_dict`."""
        a, b, d = (tuple(saved[name]) for name in ("logit_slopes", "share_slopes", "absent"))
        return cls(tuple(Column(**column) for column in saved["columns"]), a, b, d, saved["bias"])


def features(column: Column, x: Floats, starts: Ints) -> tuple[Floats, Floats, Bools]:
    """(k,) scores of a column -> (k,) logits and log odds of shares, filled in, and where they had to be."""
    s = column.logits(x)
    absent = np.isnan(s)
    if not absent.any():
        return s, share_odds(s, _spread(segment_totals(s, starts), starts)), absent
    total = segment_totals(np.where(absent, -np.inf, s), starts)
    r = share_odds(np.where(absent, 0.0, s), _spread(np.where(np.isfinite(total), total, 0.0), starts))
    least_s, least_r = (segment_least(np.where(absent, np.inf, part), starts) for part in (s, r))
    nothing = ~np.isfinite(least_s)
    least_s, least_r = np.where(nothing, column.lowest, least_s), np.where(nothing, column.share, least_r)
    return (
        np.where(absent, _spread(least_s, starts), s),
        np.where(absent, _spread(least_r, starts), r),
        absent,
    )


def fit_combination(
    scores: Scores, *, lower_is_better: Sequence[str] | None = None, seed: int = 0, columns: Sequence[Column] = ()
) -> Combination:
    """Fit the columns and their weights on judged pairs.

    Args:
        scores: with the truth.
        lower_is_better: columns that are distances or ranks; None: found out, see `direction`.
        seed: of the sample, where there are very many rows.
        columns: those fitted already, where the weights alone are to be fitted.

    Raises:
        DataError: no right or no wrong pair, or scores that are all equal.
        UnknownNameError: a column in `lower_is_better` that is not there.
    """
    for name in lower_is_better or ():
        lookup(dict.fromkeys(scores.columns), name, "lower_is_better")
    sample = _sample(scores, seed)
    right, told = sample.truth == 1, sample.truth >= 0
    _check_both(sample, right, told)
    fitted = list(columns) or [
        _fit_column(sample, name, right, told, lower_is_better) for name in scores.columns if _varies(sample, name)
    ]
    if not fitted:
        raise DataError(
            f"{scores.name}: all scores of {', '.join(scores.columns)} are equal: they tell nothing apart, so there is "
            "nothing to calibrate. Look at what wrote them."
        )
    whole = all(not np.isnan(sample.only(column.name).values).any() for column in fitted)
    if len(fitted) == 1 and whole:  # the calibrator does the rest
        return Combination(tuple(fitted), (1.0,), (0.0,), (0.0,), 0.0)
    parts = [features(one, sample.only(one.name).values[:, 0], sample.starts) for one in fitted]
    fitted = [
        column if columns else replace(column, share=float(np.median(r)))
        for column, (_, r, _) in zip(fitted, parts, strict=True)
    ]
    x = np.stack([part for s, r, absent in parts for part in (s, r, absent.astype(float))])
    slopes, bias = fit_ridge(x[:, told], right[told], free=np.arange(len(x)) % 3 == 2)
    a, b, d = (tuple(slopes[start::3].tolist()) for start in range(3))
    return Combination(tuple(fitted), a, b, d, bias)


def fit_ridge(x: Floats, right: Bools, *, free: Bools) -> tuple[Floats, float]:
    """Minimise Σ [softplus(z) − y z] + ½ `RIDGE` Σ (slope · spread)² over z = ⟨slopes, x⟩ + bias.

    Args:
        x: (f, k) features.
        right: (k,) y.
        free: (f,) whether a slope may be negative.

    Returns:
        (f,) slopes and the bias; 0 for a feature that never changes.
    """
    centre, spread = x.mean(1), x.std(1)
    used = np.flatnonzero(spread > 1e-9 * np.maximum(np.abs(x).max(1), 1e-300))
    standard = np.ascontiguousarray((x[used] - centre[used, None]) / spread[used, None])
    target = right.astype(np.float64)
    ones = np.ones(len(target))

    def loss(p: Floats) -> tuple[float, Floats]:
        value, residual = log_loss(p[:-1] @ standard + p[-1], target, ones)
        gradient = np.append(standard @ residual + RIDGE * p[:-1], residual.sum())
        return float(value.sum()) + 0.5 * RIDGE * float(p[:-1] @ p[:-1]), gradient

    mean = float(np.clip(target.mean(), 1e-6, 1 - 1e-6))
    start = np.append(np.full(len(used), 0.1), scipy.special.logit(mean))
    bounds = [(None if free[place] else 0.0, None) for place in used] + [(None, None)]
    # The scale of the sum is that of its last digits too: what is minimised is a mean.
    found = scipy.optimize.minimize(
        lambda p: tuple(part / len(target) for part in loss(p)),
        start,
        jac=True,
        bounds=bounds,
        method="L-BFGS-B",
        options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-9},
    )
    slopes = np.zeros(len(x))
    slopes[used] = found.x[:-1] / spread[used]
    return slopes, float(found.x[-1] - slopes @ centre)


def crossed_logits(scores: Scores, combination: Combination, *, folds: int = 5, seed: int = 0) -> Floats:
    """(k,) logits of each query by weights that were fitted without it, for what promises are decided by.

    A single column has no weights; nor can they be fitted where a part holds no right or no wrong pair.
    """
    z = combination.logits(scores)
    if len(combination.columns) == 1 and combination.logit_slopes == (1.0,):
        return z
    fold = folds_of(len(scores.queries), folds, seed)
    rows = scores.rows
    for number in range(folds):
        rest = scores.take(drawn(scores, np.flatnonzero(fold != number), seed))
        truth = rest.truth
        if not ((truth == 1).any() and (truth == 0).any()):
            continue
        lower = [column.name for column in combination.columns if column.lower]
        names = [column.name for column in combination.columns]
        try:
            fitted = fit_combination(rest.only(*names), lower_is_better=lower, seed=seed)
        except DataError:  # scores that are all equal in a part
            continue
        out = fold[rows] == number
        z[out] = fitted.logits(scores.take(fold == number))
    return z


def direction(scores: Scores, name: str) -> tuple[bool, float]:
    """Whether lower scores of a column are better, and how sure that is, in standard errors.

    Within each query that has right and wrong candidates: how often a right one scores above a wrong one (AUC), less
    one half; over queries, its mean and standard error. Upside down is what is below 0 by `SURE` standard errors.
    Where fewer than 10 queries have both, all pairs together decide.
    """
    x = scores.only(name).values[:, 0]
    told = ~np.isnan(x) & (scores.truth >= 0)
    rows, x, right = scores.rows[told], x[told], scores.truth[told] == 1
    n = len(scores.queries)
    both = (np.bincount(rows[right], minlength=n) > 0) & (np.bincount(rows[~right], minlength=n) > 0)
    if both.sum() < 10:
        rows, both = np.zeros(len(x), np.int64), np.array([True])
    keep = both[rows]
    rows, x, right = rows[keep], x[keep], right[keep]
    order = np.lexsort([x, rows])
    rows, x, right = rows[order], x[order], right[order]
    # Ranks within the query, those of equal scores averaged (Mann & Whitney 1947).
    first = np.flatnonzero(np.append(True, np.diff(rows) != 0))
    place = np.arange(len(x)) - np.repeat(first, np.diff(np.append(first, len(x)))) + 1.0
    level = np.cumsum(np.append(True, (np.diff(rows) != 0) | (np.diff(x) != 0))) - 1
    rank = (np.bincount(level, place) / np.bincount(level))[level]
    group = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(x))))
    positives = np.bincount(group, right).astype(float)
    negatives = np.bincount(group) - positives
    above = np.bincount(group, rank * right) - positives * (positives + 1) / 2
    gaps = above / np.maximum(positives * negatives, 1) - 0.5
    if len(gaps) == 1:
        p, q = positives[0], negatives[0]
        error = float(np.sqrt((p + q + 1) / (12 * max(p * q, 1))))
    else:
        error = float(max(gaps.std(ddof=1), 1e-3) / np.sqrt(len(gaps)))
    sure = float(gaps.mean()) / error
    return sure < -SURE, sure


def fuse_ranks(scores: Scores, lower: Sequence[str] = ()) -> Floats:
    """(k,) Σ over columns 1 / (60 + rank), a column that did not return the candidate adding nothing.

    Reciprocal-rank fusion (Cormack et al. 2009); equal scores keep the order of the rows.
    """
    total = np.zeros(len(scores))
    rows = scores.rows
    for place, name in enumerate(scores.columns):
        x = scores.values[:, place] * (-1 if name in lower else 1)
        order = np.lexsort([-x, rows])  # NaN comes last
        rank = np.empty(len(x))
        rank[order] = np.arange(len(x)) - scores.starts[rows[order]] + 1
        total += np.where(np.isnan(x), 0.0, 1 / (RANK_CONSTANT + rank))
    return total


def segment_totals(s: Floats, starts: Ints) -> Floats:
    """(k,) logits -> (n,) log Σ exp of each query; −∞ for one without rows."""
    most = -segment_least(-s, starts)
    safe = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        total: Floats = safe + np.log(segment_sums(np.exp(s - _spread(safe, starts)), starts))
    return total


def segment_sums(values: Floats, starts: Ints) -> Floats:
    """(k,) -> (n,) the sum over each query's rows."""
    return _reduced(np.add, values, starts, 0.0)


def segment_least(values: Floats, starts: Ints) -> Floats:
    """(k,) -> (n,) the least of each query's rows; ∞ for one without."""
    return _reduced(np.minimum, values, starts, np.inf)


def _reduced(what: np.ufunc, values: Floats, starts: Ints, empty: float) -> Floats:
    """Reduce rows query by query; queries without rows get `empty`."""
    found = np.full(len(starts) - 1, empty)
    filled = np.flatnonzero(np.diff(starts))
    if len(filled):
        found[filled] = what.reduceat(values, starts[filled])
    return found


def _spread(of_queries: Floats, starts: Ints) -> Floats:
    return np.repeat(of_queries, np.diff(starts))


def _turned(x: Floats, lower: bool, odds: bool) -> Floats:
    if odds:
        x = scipy.special.logit(np.clip(x, EDGE, 1 - EDGE))
    return -x if lower else x


def _varies(scores: Scores, name: str) -> bool:
    x = scores.only(name).values
    x = x[~np.isnan(x)]
    return bool(len(x)) and bool(np.ptp(x) > 1e-12 * np.abs(x).max())


def _fit_column(scores: Scores, name: str, right: Bools, told: Bools, lower_is_better: Sequence[str] | None) -> Column:
    x = scores.only(name).values[:, 0]
    known = told & ~np.isnan(x)
    lower = direction(scores, name)[0] if lower_is_better is None else name in lower_is_better
    probabilities = float(np.nanmin(x)) >= 0 and float(np.nanmax(x)) <= 1
    fits: list[tuple[float, Column]] = []
    for odds in (False, True) if probabilities else (False,):
        t = _turned(x[known], lower, odds)
        centre, width = float(t.mean()), float(t.std()) or 1.0
        if right[known].any() and not right[known].all():
            platt = fit_platt((t - centre) / width, right[known])
            slope = max(platt.scale, 1e-3)  # what tells nothing over all queries may tell within each
            scale, bias = slope / width, platt.bias - slope * centre / width
        else:  # a column that returned right ones only, or none
            scale, bias = 1 / width, -centre / width
        z = scale * t + bias
        loss = float(log_loss(z, right[known].astype(float), np.ones(len(z)))[0].sum())
        fits.append((loss, Column(name, lower, odds, scale, bias, float(np.quantile(z, 0.05)), 0.0)))
    return min(fits, key=lambda fit: fit[0])[1]


def _sample(scores: Scores, seed: int) -> Scores:
    """All queries, or so many of them that there are about `FITTED_ROWS` rows."""
    n = len(scores.queries)
    places = drawn(scores, np.arange(n), seed)
    return judged(scores if len(places) == n else scores.take(places))


def drawn(scores: Scores, places: Ints, seed: int) -> Ints:
    """Some of the queries at some places, so many that they have about `FITTED_ROWS` rows; all if that is not more."""
    rows = int(scores.lengths[places].sum())
    count = max(FITTED_QUERIES, round(len(places) * FITTED_ROWS / max(rows, 1)))
    if rows <= FITTED_ROWS or count >= len(places):
        return places
    return np.sort(np.random.default_rng(seed).choice(places, count, replace=False))


def _check_both(scores: Scores, right: Bools, told: Bools) -> None:
    if right.any() and (told & ~right).any():
        return
    what = "no right pair" if not right.any() else "no wrong pair"
    tip = (
        "Rows without a judgement take part in nothing; if they are wrong, say so: --unjudged wrong."
        if (~told).any()
        else "Keep what was retrieved and is wrong in the table."
    )
    raise DataError(f"{scores.name}: {what} in the column `right`, of {len(scores):,} rows. {tip}")


def share_of(z: Floats, starts: Ints) -> NDArray[np.float64]:
    """(k,) logits -> (k,) softmax shares within each query."""
    return np.exp(z - _spread(segment_totals(z, starts), starts))
