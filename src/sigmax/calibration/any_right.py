"""P(at least one candidate is right), from a query's logits over all candidates.

The way with the lowest cross-validated log loss on dev is kept, all are reported.

- noisy-or: 1 − Πⱼ (1 − presenceⱼ), as if pairs were independent (Pearl 1988). Right presences do not make it right:
  candidates that are alike are counted each as independent evidence.
- head: a logistic regression on what the sorted logits say, z = scale · s + bias of the shared calibration:
  the largest z, its lead over the next, log Σ exp z, and log Σ softplus z (the logarithm of noisy-or's own exponent).
- head-novelty: the same, and how near the training queries are (`sigmax.calibration.novelty`): logits do not know.
- succession: where dev has too few queries of either kind for a fit, what was seen of queries as unfamiliar is counted,
  see `sigmax.calibration.familiar`.
- none-candidate: where *none of these* was trained as a candidate with the logit s₀, a logistic regression on
  log Σ exp s − s₀, the log odds that its share leaves to the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints, expit, logsumexp
from sigmax.errors import lookup

__all__ = [
    "FEATURES",
    "METHODS",
    "SUCCESSION",
    "AnyFit",
    "AnyInputs",
    "Head",
    "any_features",
    "fit_any",
    "folds_of",
    "noisy_or",
    "none_odds",
]


FEATURES = ("largest", "lead", "logsumexp", "log sum of softplus")
#: How P(any) is made where there is nothing to fit: `Familiar.any_right`.
SUCCESSION = "succession"
#: Probabilities are kept this far from 0 and 1 in a log loss.
_EDGE = 1e-9
#: Weight of the squares of the head's coefficients, in queries: little more than what keeps separable data finite.
_RIDGE = 1.0
#: Queries with and without a right answer, of each at least, for a head to be fitted.
_LEAST = 10


def noisy_or(presence: Floats, weights: Floats | None = None) -> Floats:
    """(n, m) presences, each of as many pairs as its weight -> (n,) 1 − Πⱼ (1 − presenceⱼ)."""
    with np.errstate(divide="ignore"):  # a presence of 1 makes it certain
        logs = np.log1p(-presence)
    certain: Floats = -np.expm1((logs if weights is None else np.where(weights > 0, logs * weights, 0.0)).sum(-1))
    return certain


def any_features(z: NDArray[Any], weights: Floats | None = None) -> Floats:
    """(n, m) calibrated logits, each of as many pairs as its weight -> (n, 4), as named in `FEATURES`; m at least 1."""
    if not z.shape[1]:
        raise ValueError("Expected logits of at least one candidate, got none.")
    z = np.clip(z.astype(np.float64), -700, 700)
    best = -np.partition(-z, min(1, z.shape[1] - 1), axis=1)[:, :2]
    total = logsumexp(z, weights)
    softplus = (np.logaddexp(0, z) * (1.0 if weights is None else weights)).sum(1)
    return np.stack([best[:, 0], best[:, 0] - best[:, -1], total, np.log(np.maximum(softplus, 1e-300))], axis=1)


@dataclass(frozen=True)
class Head:
    """σ(⟨weights, (features − centre) / spread⟩ + bias)."""

    weights: tuple[float, ...]
    bias: float
    centre: tuple[float, ...]
    spread: tuple[float, ...]

    def probability(self, features: Floats) -> Floats:
        """(n, f) features -> (n,) probabilities."""
        x = (features - np.array(self.centre)) / np.array(self.spread)
        return expit(x @ np.array(self.weights) + self.bias)


def none_odds(logits: NDArray[Any], none: NDArray[Any], weights: Floats | None = None) -> Floats:
    """(n, m) logits and (n,) those of *none of these* -> (n, 1) log Σ exp s − s₀."""
    odds: Floats = (logsumexp(logits.astype(np.float64), weights) - none)[:, None]
    return odds


@dataclass(frozen=True, eq=False)
class AnyInputs:
    """What P(any) is made from: of n queries over m candidates."""

    logits: NDArray[Any]  #: (n, m)
    z: Floats  #: (n, m) log odds of the shared calibration
    none: NDArray[Any] | None = None  #: (n,) logits of *none of these*, where it was trained
    weights: Floats | None = None  #: (n, m) pairs that each stands for; None: each for itself
    novelty: Floats | None = None  #: (n, f) how near the training queries are

    @cached_property
    def presence(self) -> Floats:
        """(n, m) σ(z)."""
        return expit(self.z)


def _no_features(inputs: AnyInputs) -> None:
    """Noisy-or has nothing to fit."""


def _sorted_logits(inputs: AnyInputs) -> Floats:
    return any_features(inputs.z, inputs.weights)


def _none_candidate(inputs: AnyInputs) -> Floats | None:
    return None if inputs.none is None else none_odds(inputs.logits, inputs.none, inputs.weights)


def _logits_and_novelty(inputs: AnyInputs) -> Floats | None:
    return None if inputs.novelty is None else np.concatenate([_sorted_logits(inputs), inputs.novelty], axis=1)


def _none_and_novelty(inputs: AnyInputs) -> Floats | None:
    odds = _none_candidate(inputs)
    if odds is None or inputs.novelty is None:
        return None
    return np.concatenate([odds, _sorted_logits(inputs), inputs.novelty], axis=1)


#: Ways to make P(any) by name: (n, f) features of its logistic regression, None where it does not apply.
METHODS: dict[str, Callable[[AnyInputs], Floats | None]] = {
    "noisy-or": _no_features,
    "head": _sorted_logits,
    "none-candidate": _none_candidate,
    "head-novelty": _logits_and_novelty,
    "none-candidate-novelty": _none_and_novelty,
}


@dataclass(frozen=True)
class AnyFit:
    """How P(any) is made, and why."""

    method: str  #: a name in `METHODS`, or `SUCCESSION`
    head: Head | None  #: of the method; None for noisy-or
    log_loss: dict[str, float]  #: cross-validated, nats per query, of each method that applies
    reason: str | None = None  #: why others were not looked at

    def probability(self, inputs: AnyInputs) -> Floats:
        """(n,) probabilities; noisy-or where nothing was fitted."""
        features = None if self.head is None else lookup(METHODS, self.method, "method")(inputs)
        if self.head is None or features is None:  # a model that lost its none-candidate falls back
            return noisy_or(inputs.presence, inputs.weights)
        return self.head.probability(features)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> AnyFit:
        """Inverse of `as_dict`."""
        head = None
        if saved["head"]:
            weights, centre, spread = (tuple(saved["head"][name]) for name in ("weights", "centre", "spread"))
            head = Head(weights, saved["head"]["bias"], centre, spread)
        return cls(saved["method"], head, saved["log_loss"], saved["reason"])


def fit_any(
    inputs: AnyInputs,
    held_out_presence: Floats,
    answered: Bools,
    *,
    groups: Ints | None = None,
    folds: int = 5,
    seed: int = 0,
) -> AnyFit:
    """Choose how P(any) is made by cross-validated log loss, and fit it.

    Args:
        inputs: the dev queries.
        held_out_presence: (n, m) presences of each query from a calibration that did not see it.
        answered: (n,) whether a query has a right answer.
        groups: (n,) equal for queries that are nearly the same: they are in one fold, and count once where it is asked
            whether there are enough; None: each for itself.
        folds: of the cross-validation, over queries.
        seed: of the folds.
    """
    losses = {"noisy-or": _log_loss(noisy_or(held_out_presence, inputs.weights), answered)}
    units = np.arange(len(answered)) if groups is None else np.unique(groups, return_inverse=True)[1]
    have, lack = len(np.unique(units[answered])), len(np.unique(units[~answered]))
    if min(have, lack) < _LEAST:
        of = "" if groups is None else " that are not nearly the same"
        reason = f"a fit needs {_LEAST} queries with and {_LEAST} without a right answer; dev has {have} and {lack}{of}"
        return AnyFit("noisy-or", None, losses, reason)
    fold = folds_of(int(units.max()) + 1, folds, seed)[units]
    heads: dict[str, Head] = {}
    for method, features_of in METHODS.items():
        features = features_of(inputs)
        if features is None:
            continue
        held_out = np.empty(len(answered))
        for number in range(folds):
            out = fold == number
            held_out[out] = _fit(features[~out], answered[~out]).probability(features[out])
        losses[method], heads[method] = _log_loss(held_out, answered), _fit(features, answered)
    method = min(losses, key=lambda name: losses[name])
    return AnyFit(method, heads.get(method), losses)


def _fit(features: Floats, answered: Bools) -> Head:
    from sklearn.linear_model import LogisticRegression

    centre, spread = features.mean(0), features.std(0)
    spread[spread < 1e-9] = 1.0
    fit = LogisticRegression(C=1 / _RIDGE, tol=1e-8, max_iter=1000).fit((features - centre) / spread, answered)
    weights, bias = fit.coef_[0], fit.intercept_[0]
    return Head(tuple(weights.tolist()), float(bias), tuple(centre.tolist()), tuple(spread.tolist()))


def folds_of(n: int, folds: int, seed: int) -> NDArray[np.int64]:
    """(n,) the fold of each query, in [0, folds); sizes differ by at most one."""
    fold: NDArray[np.int64] = np.random.default_rng(seed).permutation(n) % folds
    return fold


def _log_loss(probability: Floats, truth: Bools) -> float:
    p = np.clip(probability, _EDGE, 1 - _EDGE)
    return float(-np.where(truth, np.log(p), np.log1p(-p)).mean())
