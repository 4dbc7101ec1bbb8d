"""From logits and shares to presences, the probabilities that each pair is right: how a curve is fitted and chosen.

A logit says how well this candidate fits; its share says how much better it fits than the others. Both are evidence,
and the dev split says how much of each: log odds of a presence are a · logit + b · log odds of the share + c, or a
curve of more slopes in both (`Beta`, `Quadratic`, `Isotonic`), or that with a scale and bias for each candidate. Which
is one entry of `CALIBRATIONS`; cross-validation chooses.

Every calibration gives the log odds of a presence and can add a constant to them, which is what a world with more or
fewer right pairs (`moved`) and sampled training pairs (`sampling_shift`) ask for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import scipy
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints
from sigmax.calibration.curves import Beta, Calibration, Isotonic, Platt, PlattCandidate, Quadratic, halves, softplus
from sigmax.calibration.pairs import Pairs, check_finite
from sigmax.calibration.solvers import fit_candidates, fit_slopes, log_loss
from sigmax.errors import DataError, check_least, lookup

__all__ = ["CALIBRATIONS", "Fitted", "Method", "fit_calibration", "fit_platt"]


C = TypeVar("C", bound=Calibration)

#: Fewest right pairs with which anything but Platt is tried: with fewer, a fold holds one or two.
FEWEST_RIGHT = 10


#: Maximum pairs in cross-validation; beyond that, wrong pairs are subsampled and weighted. The last fit sees all.
COMPARED_PAIRS = 100_000


#: Candidates that may each have their own scale and bias, at most: the model's file holds two numbers for each.
MOST_CANDIDATES = 10_000


#: The interval of `Quadratic` leaves out this part of what the pairs tell at either end.
TAIL = 0.01


def fit_platt(
    logits: NDArray[Any], right: Bools, weights: Floats | None = None, share_odds: Floats | None = None
) -> Platt:
    """Fit scale ≥ 0, share ≥ 0 and bias by maximum likelihood.

    Minimises Σ w [softplus(z) − y·z], z = scale · logit + share · log odds of the share + bias, which is convex. As
    Platt did, targets are pulled in from 0 and 1 by one observation's worth, so that separable logits keep a finite
    scale. Equal logits give the scale 0: nothing is known about others.

    Args:
        logits: (k,) of pairs.
        right: (k,) whether each pair is right.
        weights: (k,) pairs that each stands for, where wrong pairs were sampled.
        share_odds: (k,) log odds of each pair's share, see `sigmax.calibration.share_odds`; None: the logit alone.

    Raises:
        DataError: no right or no wrong pair: nothing to tell apart.
        ValueError: logits that are not finite.
    """
    logits = logits.astype(np.float64)
    check_finite(logits)
    weights = np.ones(len(logits)) if weights is None else weights
    features = logits[None] if share_odds is None else np.stack([logits, share_odds])
    slopes, bias = fit_slopes(features, _targets(right, weights), weights)
    return Platt(float(slopes[0]), bias, 0.0 if share_odds is None else float(slopes[1]))


_fitted: WeakKeyDictionary[Pairs, dict[str, Calibration]] = WeakKeyDictionary()


def _once(fit: Callable[[Pairs], C]) -> Callable[[Pairs], C]:
    """Fit a curve to the same pairs once: several methods begin with it."""

    @wraps(fit)
    def fitted(pairs: Pairs) -> C:
        kept = _fitted.setdefault(pairs, {})
        if fit.__name__ not in kept:
            kept[fit.__name__] = fit(pairs)
        return cast(C, kept[fit.__name__])

    return fitted


@_once
def _fit_platt(pairs: Pairs) -> Platt:
    return fit_platt(pairs.logits, pairs.right, pairs.weights, pairs.share_odds)


@_once
def _fit_beta(pairs: Pairs) -> Beta:
    """Slopes below and above even odds, of the logit alone and of the share."""
    shared = fit_platt(pairs.logits, pairs.right, pairs.weights)
    z, r = shared.log_odds(pairs.logits), pairs.share_odds
    features = np.stack([-softplus(-z), softplus(z), -softplus(-r), softplus(r)])
    slopes, c = fit_slopes(features, _targets(pairs.right, pairs.weights), pairs.weights)
    a, b, share_a, share_b = slopes.tolist()
    return Beta(shared.scale, shared.bias, a, b, c, share_a, share_b)


@_once
def _fit_quadratic(pairs: Pairs) -> Quadratic:
    """Slopes at both ends of where pairs tell: what is weighed is p(1 − p), the information of a pair, by Platt's p."""
    presence = scipy.special.expit(_log_odds(_fit_platt(pairs), pairs))
    told = pairs.weights * presence * (1 - presence)
    ends: list[tuple[float, float]] = []
    features: list[Floats] = []
    for x in (pairs.logits, pairs.share_odds):
        order = np.argsort(x)
        upto = np.cumsum(told[order])
        low, high = (
            float(x[order][min(np.searchsorted(upto, part * upto[-1]), len(x) - 1)]) for part in (TAIL, 1 - TAIL)
        )
        if not low < high:
            low, high = low - 0.5, low + 0.5
        ends.append((low, high))
        features.extend(halves(x, low, high))
    slopes, bias = fit_slopes(np.stack(features), _targets(pairs.right, pairs.weights), pairs.weights)
    first, last = slopes[::2].tolist(), slopes[1::2].tolist()
    (low, high), (share_low, share_high) = ends
    return Quadratic((low, share_low), (high, share_high), (first[0], first[1]), (last[0], last[1]), bias)


def _fit_isotonic(pairs: Pairs) -> Isotonic:
    """Rise along Platt's mixture of logit and share."""
    shared = _fit_platt(pairs)
    return _rise(pairs, shared.scale, shared.share) if shared.share > 0 else _rise(pairs, 1.0, 0.0)


def _fit_isotonic_logit(pairs: Pairs) -> Isotonic:
    """Rise along the logit alone: where Platt's curve fits badly, so may its mixture."""
    return _rise(pairs, 1.0, 0.0)


def _rise(pairs: Pairs, scale: float, share: float) -> Isotonic:
    """Least squares under "never falls" (Zadrozny & Elkan 2002), with a right pair below all and a wrong one above.

    Those two observations, like Platt's, keep presences off 0 and 1 by what the pairs at each end can say: w wrong
    pairs below the first right one give 1/(w + 1). It rises along scale · logit + share · log odds of the share.
    """
    from sklearn.isotonic import IsotonicRegression

    seen = scale * pairs.logits + share * pairs.share_odds
    x = np.concatenate([seen, [seen.min(), seen.max()]])
    y = np.concatenate([pairs.right, [1.0, 0.0]])
    fit = IsotonicRegression().fit(x, y, sample_weight=np.concatenate([pairs.weights, [1.0, 1.0]]))
    heights = scipy.special.logit(fit.y_thresholds_)
    return Isotonic(tuple(fit.X_thresholds_.tolist()), tuple(np.maximum.accumulate(heights).tolist()), scale, share)


def _fit_on(base: Callable[[Pairs], Calibration]) -> Callable[[Pairs], PlattCandidate]:
    """Scale and bias for each candidate on the log odds of a curve that all share, shrunk towards 1 and 0.

    Queries that are nearly the same are one witness of how a candidate differs: their pairs share the weight of one.
    """

    def fit(pairs: Pairs) -> PlattCandidate:
        shared = base(pairs)
        target = _targets(pairs.right, pairs.weights)
        weights = pairs.weights / _repeated(pairs)
        u, v, _, _ = fit_candidates(_log_odds(shared, pairs), target, weights, pairs.candidates, pairs.size)
        return PlattCandidate(1.0, 0.0, tuple((1 + u).tolist()), tuple(v.tolist()), shared)

    return fit


def _repeated(pairs: Pairs) -> Floats:
    """(k,) how many queries are in the group of each pair's."""
    names, query = np.unique(pairs.queries, return_inverse=True)
    if pairs.groups is None:
        return np.ones(len(pairs))
    group = np.unique(pairs.groups[names], return_inverse=True)[1]
    repeated: Floats = np.bincount(group)[group][query].astype(np.float64)
    return repeated


def _never(pairs: Pairs) -> str | None:
    """Refuse nothing."""
    return None


def _refuse_candidates(pairs: Pairs) -> str | None:
    """Refuse one candidate, which has nothing to differ from, and more than a model's file should hold."""
    if pairs.size < 2 or pairs.size > MOST_CANDIDATES:
        return f"it takes 2 to {MOST_CANDIDATES} candidates, there are {pairs.size}"
    return None


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to calibrate."""

    name: str
    fit: Callable[[Pairs], Calibration]
    on: str | None = None  #: the method whose curve this one gives each candidate its own version of
    steps: bool = False  #: whether it gives different pairs the same presence, and so loses their order
    refuses: Callable[[Pairs], str | None] = _never  #: why the pairs cannot carry it, if they cannot


_SHARED = (
    Method(name="platt", fit=_fit_platt),
    Method(name="beta", fit=_fit_beta),
    Method(name="quadratic", fit=_fit_quadratic),
    Method(name="isotonic-logit", fit=_fit_isotonic_logit, steps=True),
    Method(name="isotonic", fit=_fit_isotonic, steps=True),
)


#: Every way to calibrate, the simplest first.
CALIBRATIONS: dict[str, Method] = {
    method.name: method
    for method in (
        *_SHARED,
        *(
            Method(name=f"{one.name}-candidate", fit=_fit_on(one.fit), on=one.name, refuses=_refuse_candidates)
            for one in _SHARED
            if not one.steps
        ),
    )
}


@dataclass(frozen=True)
class Fitted:
    """A calibration and how it was chosen."""

    calibration: Calibration
    log_loss: dict[str, float]  #: method -> cross-validated, nats per query; empty where nothing had to be chosen
    method: str
    reason: str  #: why this method, for people


def fit_calibration(pairs: Pairs, method: str = "auto", *, folds: int = 5, seed: int = 0) -> Fitted:
    """Fit a calibration, chosen by cross-validated log loss.

    All pairs of a query are in one fold, and so are those of queries that are nearly the same (`Pairs.groups`): else
    what is learnt of a message would be tested on the same message in other words. "auto" begins with Platt and goes
    on to the other curves that all candidates share, to a scale and bias for each candidate on top of the one chosen,
    and to isotonic, whose steps lose the order of pairs. Each has more to adapt with than the one before, and has to be
    better by more than half a standard error over queries (or over groups of them).

    Args:
        pairs: of the dev split.
        method: a name of `CALIBRATIONS`, or "auto". Platt alone is fitted where "auto" has too little to choose by:
            fewer than 10 right pairs, fewer queries with a right (or a wrong) pair than folds, equal logits. Queries
            that are nearly the same count as one.
        folds: at least 2.
        seed: of the folds.

    Raises:
        DataError: no right or no wrong pair, or a method that the pairs cannot carry.
        UnknownNameError: another method.
        ValueError: fewer than 2 folds.
    """
    if method != "auto":
        entry = lookup({**CALIBRATIONS, "auto": None}, method, "method")
        refused = entry and entry.refuses(pairs)
        if refused:
            raise DataError(f"Calibration {method!r} does not fit the dev split: {refused}. Try 'auto'.")
    check_least(2, folds=folds)
    _targets(pairs.right, pairs.weights)
    log_loss: dict[str, float] = {}
    reason = "asked for"
    if method == "auto":
        few = _too_few(pairs, folds)
        if few:
            method, reason = "platt", f"{few}: too little to choose by"
        else:
            method, log_loss = _choose(pairs.thinned(COMPARED_PAIRS, seed=seed), folds, seed)
            reason = "the lowest cross-validated log loss"
            if log_loss[method] > min(log_loss.values()):
                reason += " but for what has more to adapt with and is within half a standard error"
    return Fitted(CALIBRATIONS[method].fit(pairs), log_loss, method, reason)


def _too_few(pairs: Pairs, folds: int) -> str | None:
    of = "" if pairs.groups is None else " that are not nearly the same"
    if pairs.groups is None:
        right = int(pairs.right.sum())
    else:
        right = len(np.unique(pairs.units[pairs.right] * pairs.size + pairs.candidates[pairs.right]))
    if right < FEWEST_RIGHT:
        return f"{right} right pairs{of}, of at least {FEWEST_RIGHT}"
    for word, which in (("right", pairs.right), ("wrong", ~pairs.right)):
        queries = len(np.unique(pairs.units[which]))
        if queries < folds:
            return f"{queries} queries{of} with a {word} pair for {folds} folds"
    return "all logits are equal" if np.ptp(pairs.logits) == 0 else None


def _folds(pairs: Pairs, folds: int, seed: int) -> tuple[Ints, Ints]:
    """(k,) query of each pair counted from 0, and (queries,) fold of each: right and wrong pairs in every one."""
    names, query = np.unique(pairs.queries, return_inverse=True)
    units, unit = np.unique(pairs.units, return_inverse=True)
    right, wrong = (np.bincount(unit, which, len(units)) > 0 for which in (pairs.right, ~pairs.right))
    # Queries with a right pair stand side by side in this order, and so do those with a wrong one.
    order = np.lexsort([np.random.default_rng(seed).random(len(units)), wrong.astype(int) - right.astype(int)])
    fold = np.empty(len(units), np.int64)
    fold[order] = np.arange(len(units)) % folds
    of_query = np.empty(len(names), np.int64)
    of_query[query] = fold[unit]
    return query, of_query


def _choose(pairs: Pairs, folds: int, seed: int) -> tuple[str, dict[str, float]]:
    """Return the method chosen, and the log loss per query of each that was tried."""
    able = [method for method in CALIBRATIONS.values() if not method.refuses(pairs)]
    parts = _parted(pairs, folds, seed)
    losses = _cross_validated([one for one in able if one.on is None], parts)
    unit = _units(pairs)
    chosen = able[0].name
    for name in losses:
        if not CALIBRATIONS[name].steps and _better(losses[chosen] - losses[name], unit):
            chosen = name
    own = [one for one in able if one.on == chosen]
    losses |= _cross_validated(own, parts)
    for method in [*own, *(one for one in able if one.steps)]:
        if _better(losses[chosen] - losses[method.name], unit):
            chosen = method.name
    return chosen, {name: float(value.mean()) for name, value in losses.items()}


def _units(pairs: Pairs) -> Ints:
    """(queries,) the group of each query, both counted from 0."""
    names = np.unique(pairs.queries)
    return np.arange(len(names)) if pairs.groups is None else np.unique(pairs.groups[names], return_inverse=True)[1]


def _better(gain: Floats, unit: Ints) -> bool:
    """Whether (queries,) gains are above 0 by more than half a standard error, which groups have, not queries."""
    mean = float(gain.mean())
    of_unit = np.bincount(unit, gain - mean)
    error = math.sqrt(float(of_unit @ of_unit) * len(of_unit) / max(len(of_unit) - 1, 1)) / len(gain)
    return mean > error / 2


class _Part(NamedTuple):
    """A fold of a cross-validation."""

    rest: Pairs  #: fitted on
    test: Pairs  #: tested on
    query: Ints  #: of each pair tested on, counted from 0
    queries: int  #: of all folds


def _parted(pairs: Pairs, folds: int, seed: int) -> list[_Part]:
    query, fold = _folds(pairs, folds, seed)
    parts = []
    for held in range(folds):
        out = fold[query] == held
        parts.append(_Part(pairs.take(~out), pairs.take(out), query[out], len(fold)))
    return parts


def _cross_validated(methods: Sequence[Method], parts: Sequence[_Part]) -> dict[str, Floats]:
    """Log loss of each query by each method, fitted on the other folds."""
    losses = {method.name: np.zeros(parts[0].queries) for method in methods}
    for part in parts:
        for method in methods:
            value, _ = log_loss(_log_odds(method.fit(part.rest), part.test), part.test.right, part.test.weights)
            losses[method.name] += np.bincount(part.query, value, part.queries)
    return losses


def _log_odds(calibration: Calibration, pairs: Pairs) -> Floats:
    return calibration.curve(pairs.logits, pairs.share_odds, pairs.candidates)


def _targets(right: Bools, weights: Floats) -> Floats:
    """(k,) targets of Platt, (N₊ + 1)/(N₊ + 2) and 1/(N₋ + 2), with the weights N₊ and N₋ of right and wrong pairs."""
    positives, negatives = float(weights[right].sum()), float(weights[~right].sum())
    if not (positives and negatives):
        raise DataError(
            f"Calibration needs right and wrong pairs in the dev split, got {positives:.0f} and {negatives:.0f}."
        )
    return np.where(right, (positives + 1) / (positives + 2), 1 / (negatives + 2))
