"""From a logit to a presence: the probability that this pair is right.

Logits are comparable but carry an unknown scale and bias: the softmax never saw its bias, and the sigmoid learnt its
own among the candidates of a batch. A fit on the dev split, over the candidates offered in use, fixes both for
either family. Which curve is fitted is one entry of `CALIBRATIONS`; cross-validation chooses.

Every calibration gives the log odds of a presence and can add a constant to them, which is what a world with more or
fewer right pairs (`moved`) and sampled training pairs (`sampling_shift`) ask for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints
from sigmax.calibration.curves import Beta, Calibration, Isotonic, Platt, PlattCandidate, softplus
from sigmax.calibration.pairs import Pairs, check_finite
from sigmax.errors import DataError, check_least, lookup

__all__ = ["CALIBRATIONS", "Fitted", "Method", "calibration_from_dict", "fit_calibration", "fit_platt"]


#: Fewest right pairs with which anything but Platt is tried: with fewer, a fold holds one or two.
FEWEST_RIGHT = 10


#: Maximum pairs in cross-validation; beyond that, wrong pairs are subsampled and weighted. The last fit sees all.
COMPARED_PAIRS = 100_000


#: Minimum mean number of right pairs per candidate for a scale and bias of its own. A bias known from r right pairs
#: has a standard error of about 1/√r: below 3 it is wider than most of the differences between candidates.
RIGHT_A_CANDIDATE = 3


#: Candidates that may each have their own scale and bias, at most: the model's file holds two numbers for each.
MOST_CANDIDATES = 10_000


def fit_platt(logits: NDArray[Any], right: Bools, weights: Floats | None = None) -> Platt:
    """Fit scale ≥ 0 and bias by maximum likelihood.

    Minimises Σ w [softplus(z) − y·z], z = scale · logit + bias, which is convex. As Platt did, targets are pulled in
    from 0 and 1 by one observation's worth, so that separable logits keep a finite scale. Equal logits give the scale
    0: nothing is known about others.

    Args:
        logits: (k,) of pairs.
        right: (k,) whether each pair is right.
        weights: (k,) pairs that each stands for, where wrong pairs were sampled.

    Raises:
        DataError: no right or no wrong pair: nothing to tell apart.
        ValueError: logits that are not finite.
    """
    logits = logits.astype(np.float64)
    check_finite(logits)
    weights = np.ones(len(logits)) if weights is None else weights
    target, positives, negatives = _targets(right, weights)
    if np.ptp(logits) == 0:
        return Platt(0.0, float(scipy.special.logit(np.average(target, weights=weights))))
    centre, spread = float(logits.mean()), float(logits.std())
    x = (logits - centre) / spread

    def loss(parameters: Floats) -> tuple[float, Floats]:
        z = parameters[0] * x + parameters[1]
        value, residual = _log_loss(z, target, weights)
        return value.sum() / positives, np.array([(residual * x).sum(), residual.sum()]) / positives

    start = np.array([1.0, np.log(positives / negatives)])
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    scale = float(found.x[0]) / spread
    return Platt(scale, float(found.x[1]) - scale * centre)


def _fit_beta(pairs: Pairs, shared: Platt) -> Beta:
    """Maximum likelihood with Platt's targets, from Platt's fit on: convex in a ≥ 0, b ≥ 0 and c."""
    z = shared.log_odds(pairs.logits)
    target, positives, _ = _targets(pairs.right, pairs.weights)
    features = np.stack([-softplus(-z), softplus(z), np.ones_like(z)])
    size = np.sqrt((features**2).mean(1))  # so that all steps are of an ordinary size

    def loss(parameters: Floats) -> tuple[float, Floats]:
        value, residual = _log_loss((parameters / size) @ features, target, pairs.weights)
        return value.sum() / positives, features @ residual / size / positives

    found = scipy.optimize.minimize(
        loss,
        size * [1, 1, 0],
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None), (0, None), (None, None)],
        options={"ftol": 1e-11, "maxiter": 500},
    )
    a, b, c = (float(value) for value in found.x / size)
    return Beta(shared.scale, shared.bias, a, b, c)


def _fit_isotonic(pairs: Pairs, shared: Platt) -> Isotonic:
    """Least squares under "never falls" (Zadrozny & Elkan 2002), with a right pair below all and a wrong one above.

    Those two observations, like Platt's, keep presences off 0 and 1 by what the pairs at each end can say: w wrong
    pairs below the first right one give 1/(w + 1).
    """
    from sklearn.isotonic import IsotonicRegression

    x = np.concatenate([pairs.logits, [pairs.logits.min(), pairs.logits.max()]])
    y = np.concatenate([pairs.right, [1.0, 0.0]])
    fit = IsotonicRegression().fit(x, y, sample_weight=np.concatenate([pairs.weights, [1.0, 1.0]]))
    heights = scipy.special.logit(fit.y_thresholds_)
    return Isotonic(tuple(fit.X_thresholds_.tolist()), tuple(np.maximum.accumulate(heights).tolist()))


def _fit_platt_candidate(pairs: Pairs, shared: Platt, slopes: float, offsets: float) -> PlattCandidate:
    """Log odds (1 + uⱼ) z + vⱼ with z = scale · logit + bias the shared fit; u ~ N(0, slopes²), v ~ N(0, offsets²).

    Minimises Σ w [softplus − target · log odds] + Σⱼ (uⱼ/slopes)²/2 + (vⱼ/offsets)²/2 with u ≥ −1, which is convex.
    The shared fit stays what it is, so that a candidate without pairs, or a new one, gets it.
    """
    z, j = shared.log_odds(pairs.logits), pairs.candidates
    target, positives, _ = _targets(pairs.right, pairs.weights)
    spread = np.array([[slopes], [offsets]])

    def loss(parameters: Floats) -> tuple[float, Floats]:
        unit = parameters.reshape(2, -1)
        u, v = spread * unit
        value, residual = _log_loss((1 + u[j]) * z + v[j], target, pairs.weights)
        gradient = spread * [np.bincount(j, residual * part, pairs.size) for part in (z, np.ones_like(z))] + unit
        return (value.sum() + (unit**2).sum() / 2) / positives, gradient.ravel() / positives

    found = scipy.optimize.minimize(
        loss,
        np.zeros(2 * pairs.size),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-1 / slopes, None)] * pairs.size + [(None, None)] * pairs.size,
    )
    u, v = spread * found.x.reshape(2, -1)
    u = np.maximum(u, -1)  # the bound times the spread may be off by a rounding
    return PlattCandidate(
        shared.scale,
        shared.bias,
        tuple(((1 + u) * shared.scale).tolist()),
        tuple(((1 + u) * shared.bias + v).tolist()),
    )


def _never(pairs: Pairs) -> str | None:
    """Refuse nothing."""
    return None


def _refuse_candidates(pairs: Pairs) -> str | None:
    """Refuse too many candidates, and too few right pairs for each."""
    right = int(pairs.right.sum())
    if pairs.size < 2 or pairs.size > MOST_CANDIDATES:
        return f"it takes 2 to {MOST_CANDIDATES} candidates, there are {pairs.size}"
    if right < RIGHT_A_CANDIDATE * pairs.size:
        return f"it takes {RIGHT_A_CANDIDATE} right pairs a candidate on average, there are {right} for {pairs.size}"
    return None


@dataclass(frozen=True)
class Method:
    """One way to calibrate: its curve, how it is fitted, and what cross-validation may choose."""

    curve: type[Calibration]
    fit: Callable[..., Calibration]  #: (pairs, Platt's fit of the same pairs, *setting) -> the curve
    settings: tuple[tuple[float, ...], ...] = ((),)  #: what cross-validation chooses from
    refuses: Callable[[Pairs], str | None] = _never  #: why the pairs cannot carry it, if they cannot


#: Every way to calibrate, the simplest first.
CALIBRATIONS: dict[str, Method] = {
    "platt": Method(Platt, lambda pairs, shared: shared),
    "beta": Method(Beta, _fit_beta),
    "isotonic": Method(Isotonic, _fit_isotonic),
    "platt-candidate": Method(
        PlattCandidate,
        _fit_platt_candidate,
        ((0.1, 0.3), (0.1, 1.0), (0.3, 0.3), (0.3, 1.0), (0.3, 3.0)),
        _refuse_candidates,
    ),
}


def calibration_from_dict(saved: dict[str, Any]) -> Calibration:
    """Read what `Calibration.as_dict` gave. Without a kind it is Platt's, as older versions saved it.

    Raises:
        TypeError, ValueError: an unknown kind, or parameters that do not fit it.
    """
    parameters = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
    kind: Any = parameters.pop("kind", Platt.kind)
    return lookup(CALIBRATIONS, kind, "kind").curve(**parameters)


@dataclass(frozen=True)
class Fitted:
    """A calibration and how it was chosen."""

    calibration: Calibration
    log_loss: dict[str, float]  #: method -> cross-validated, nats per query; empty where nothing had to be chosen
    method: str
    reason: str  #: why this method, for people


def fit_calibration(pairs: Pairs, method: str = "auto", *, folds: int = 5, seed: int = 0) -> Fitted:
    """Fit a calibration, chosen by cross-validated log loss.

    All pairs of a query are in one fold. "auto" takes the simplest method whose log loss a query is within one standard
    error of the lowest, the error being that of the paired difference over queries (one-standard-error rule: Breiman
    et al. 1984). The settings of a method are chosen on the same folds, so its own log loss is a little optimistic.

    Args:
        pairs: of the dev split.
        method: a name of `CALIBRATIONS`, or "auto". Platt alone is fitted where "auto" has too little to choose by:
            fewer than 10 right pairs, fewer queries with a right (or a wrong) pair than folds, equal logits.
        folds: at least 2.
        seed: of the folds.

    Raises:
        DataError: no right or no wrong pair, or a method that the pairs cannot carry.
        UnknownNameError: another method.
        ValueError: fewer than 2 folds.
    """
    if method != "auto":
        lookup({**CALIBRATIONS, "auto": None}, method, "method")
    check_least(2, folds=folds)
    shared = fit_platt(pairs.logits, pairs.right, pairs.weights)
    refused = {name: entry.refuses(pairs) for name, entry in CALIBRATIONS.items()}
    names = [name for name in CALIBRATIONS if not refused[name]] if method == "auto" else [method]
    if method != "auto" and refused[method]:
        raise DataError(f"Calibration {method!r} does not fit the dev split: {refused[method]}. Try 'auto'.")
    tried = [(name, setting) for name in names for setting in CALIBRATIONS[name].settings]
    log_loss: dict[str, float] = {}
    chosen, reason = tried[0], "asked for"
    if len(tried) > 1:
        few = _too_few(pairs, folds)
        if few and method != "auto":
            raise DataError(f"Calibration {method!r} needs cross-validation, but {few}. Try 'platt'.")
        if few:
            chosen, reason = ("platt", ()), f"{few}: too little to choose by"
        else:
            chosen, log_loss, reason = _choose(tried, pairs.thinned(COMPARED_PAIRS, seed=seed), folds, seed)
    name, setting = chosen
    return Fitted(CALIBRATIONS[name].fit(pairs, shared, *setting), log_loss, name, reason)


def _too_few(pairs: Pairs, folds: int) -> str | None:
    right = int(pairs.right.sum())
    if right < FEWEST_RIGHT:
        return f"{right} right pairs, of at least {FEWEST_RIGHT}"
    for word, which in (("right", pairs.right), ("wrong", ~pairs.right)):
        queries = len(np.unique(pairs.queries[which]))
        if queries < folds:
            return f"{queries} queries with a {word} pair for {folds} folds"
    return "all logits are equal" if np.ptp(pairs.logits) == 0 else None


def _folds(pairs: Pairs, folds: int, seed: int) -> tuple[Ints, Ints]:
    """(k,) query of each pair counted from 0, and (queries,) fold of each: right and wrong pairs in every one."""
    names, query = np.unique(pairs.queries, return_inverse=True)
    right, wrong = (np.bincount(query, which, len(names)) > 0 for which in (pairs.right, ~pairs.right))
    # Queries with a right pair stand side by side in this order, and so do those with a wrong one.
    order = np.lexsort([np.random.default_rng(seed).random(len(names)), wrong.astype(int) - right.astype(int)])
    fold = np.empty(len(names), np.int64)
    fold[order] = np.arange(len(names)) % folds
    return query, fold


def _choose(
    tried: list[tuple[str, tuple[float, ...]]], pairs: Pairs, folds: int, seed: int
) -> tuple[tuple[str, tuple[float, ...]], dict[str, float], str]:
    query, fold = _folds(pairs, folds, seed)
    losses = np.empty((len(tried), len(pairs)))
    for held in range(folds):
        out = fold[query] == held
        rest, test = pairs.take(~out), pairs.take(out)
        shared = fit_platt(rest.logits, rest.right, rest.weights)
        for row, (name, setting) in zip(losses, tried, strict=True):
            curve = CALIBRATIONS[name].fit(rest, shared, *setting)
            row[out] = _log_loss(curve.log_odds(test.logits, test.candidates), test.right, test.weights)[0]
    of_query = np.stack([np.bincount(query, row, len(fold)) for row in losses])
    means = of_query.mean(1)
    best: dict[str, int] = {}  # method -> its best setting
    for place in np.argsort(means, kind="stable"):
        best.setdefault(tried[place][0], int(place))
    log_loss = {name: float(means[best[name]]) for name in CALIBRATIONS if name in best}
    lowest = int(means.argmin())
    for name in log_loss:  # the simplest first
        gap = of_query[best[name]] - of_query[lowest]
        error = float(gap.std(ddof=1)) / math.sqrt(len(gap))
        if gap.mean() <= error:
            break
    reason = "the lowest cross-validated log loss"
    if name != tried[lowest][0]:
        reason = f"simpler than {tried[lowest][0]}, within one standard error of the lowest cross-validated log loss"
    return tried[best[name]], log_loss, reason


def _targets(right: Bools, weights: Floats) -> tuple[Floats, float, float]:
    """(k,) targets of Platt, (N₊ + 1)/(N₊ + 2) and 1/(N₋ + 2), and the weights N₊ and N₋ of right and wrong pairs."""
    positives, negatives = float(weights[right].sum()), float(weights[~right].sum())
    if not (positives and negatives):
        raise DataError(
            f"Calibration needs right and wrong pairs in the dev split, got {positives:.0f} and {negatives:.0f}."
        )
    return np.where(right, (positives + 1) / (positives + 2), 1 / (negatives + 2)), positives, negatives


def _log_loss(z: Floats, target: NDArray[Any], weights: Floats) -> tuple[Floats, Floats]:
    """(k,) w [softplus(z) − target · z] and its derivative by z."""
    return weights * (softplus(z) - target * z), weights * (scipy.special.expit(z) - target)
