"""From a logit to a presence: the probability that this pair is right.

Logits are comparable but carry an unknown scale and bias: the softmax never saw its bias, and the sigmoid learnt its
own among the candidates of a batch. A fit on the dev split, over the candidates offered in use, mends both in the
same way for either family. Which curve is fitted is one entry of `CALIBRATIONS`; cross-validation chooses.

Every calibration gives the log odds of a presence and can add a constant to them, which is what a world with more or
fewer right pairs (`moved`) and sampled training pairs (`sampling_shift`) ask for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from sigmax.errors import DataError, check_least, lookup

__all__ = [
    "CALIBRATIONS",
    "Beta",
    "Calibration",
    "Fitted",
    "Isotonic",
    "Method",
    "Pairs",
    "Platt",
    "PlattCandidate",
    "calibration_from_dict",
    "fit_calibration",
    "fit_platt",
    "moved",
    "sampling_shift",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Right pairs from which curves other than Platt's are looked at: with fewer, a fold holds one or two.
FEWEST_RIGHT = 10
#: Pairs that cross-validation looks at, at most: beyond, wrong pairs are sampled and weighted. The last fit sees all.
COMPARED_PAIRS = 100_000
#: Right pairs a candidate, on average, from which each may have its own scale and bias. A bias known from r right pairs
#: has a standard error of about 1/√r: below 3 it is wider than most of the differences between candidates.
RIGHT_A_CANDIDATE = 3
#: Candidates that may each have their own scale and bias, at most: the model's file holds two numbers for each.
MOST_CANDIDATES = 10_000


# -- what a fit looks at -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a split with their logits: all, or all the right ones and a weighted sample of the wrong ones.

    Args:
        logits: (k,) finite.
        right: (k,) whether each pair is right.
        queries: (k,) row of the split.
        candidates: (k,) column, in [0, size).
        weights: (k,) pairs that each stands for, above 0.
        size: m, how many candidates there are.

    Raises:
        ValueError: shapes that do not fit, logits or weights that are not finite, columns out of range.
    """

    logits: Floats
    right: Bools
    queries: Ints
    candidates: Ints
    weights: Floats
    size: int

    def __post_init__(self) -> None:
        for name, dtype in _PAIRS.items():
            value: NDArray[Any] = np.asarray(getattr(self, name)).astype(dtype, copy=False)
            if value.shape != np.shape(self.logits) or value.ndim != 1:
                raise ValueError(
                    f"Expected `{name}` to be of shape (k,) like `logits` {np.shape(self.logits)}, got {value.shape}."
                )
            object.__setattr__(self, name, value)
        _check_finite(self.logits)
        if not (np.isfinite(self.weights) & (self.weights > 0)).all():
            raise ValueError("Expected `weights` to be finite and above 0, got others. Leave out pairs of weight 0.")
        if len(self.candidates) and not (self.candidates.min() >= 0 and self.candidates.max() < self.size):
            raise ValueError(
                f"Expected `candidates` in [0, {self.size}), got {self.candidates.min()} to {self.candidates.max()}."
            )

    def __len__(self) -> int:
        return len(self.logits)

    @classmethod
    def of(cls, logits: NDArray[Any], right: Bools, *, most: int, seed: int = 0) -> Pairs:
        """Take pairs of (n, m) logits and (n, m) right: all, or about `most` where there are more, see `thinned`."""
        places, weights = _drawn(right.ravel(), most, seed)
        queries, candidates = np.divmod(places, right.shape[1])
        return cls(logits.ravel()[places], right.ravel()[places], queries, candidates, weights, right.shape[1])

    def thinned(self, most: int, *, seed: int = 0) -> Pairs:
        """All right pairs and a random sample of the wrong ones, weighted so that sums keep their expectation."""
        places, weights = _drawn(self.right, most, seed)
        taken = self.take(places)
        return replace(taken, weights=taken.weights * weights)

    def take(self, places: NDArray[Any]) -> Pairs:
        """Return the pairs at the places of a mask or of an index."""
        return replace(self, **{name: getattr(self, name)[places] for name in _PAIRS})


_PAIRS: dict[str, Any] = {
    "logits": np.float64,
    "right": np.bool_,
    "queries": np.int64,
    "candidates": np.int64,
    "weights": np.float64,
}


def _drawn(right: Bools, most: int, seed: int) -> tuple[Ints, Floats]:
    """Places kept, and how many each stands for: at least a tenth of `most` are wrong pairs, if there are so many."""
    if len(right) <= most:
        return np.arange(len(right)), np.ones(len(right))
    kept, wrong = np.flatnonzero(right), np.flatnonzero(~right)
    size = min(len(wrong), max(most - len(kept), most // 10))
    drawn = np.random.default_rng(seed).choice(wrong, size, replace=False)
    weights = np.concatenate([np.ones(len(kept)), np.full(size, len(wrong) / max(size, 1))])
    return np.concatenate([kept, drawn]), weights


# -- curves --------------------------------------------------------------------------------------


class Calibration(ABC):
    """A curve from logit to presence, monotone in the logit.

    `candidates` says which fitted candidate each column of the logits is, by its place among those of the fit; −1 is
    one that was added later. Without it, the columns are the fitted candidates in their order.
    """

    kind: ClassVar[str]

    def presence(self, logits: ArrayLike, candidates: ArrayLike | None = None) -> Floats:
        """(..., m) logits -> presences of the same shape, in [0, 1]. Infinite logits are allowed.

        Raises:
            ValueError: NaN, or candidates that do not fit.
        """
        presence: Floats = special.expit(self.log_odds(logits, candidates))
        return presence

    def log_odds(self, logits: ArrayLike, candidates: ArrayLike | None = None) -> Floats:
        """(..., m) logits -> log(presence / (1 − presence)), of the same shape."""
        x = np.asarray(logits, dtype=np.float64)
        if np.isnan(x).any():
            raise ValueError(f"Expected logits to be numbers, got {int(np.isnan(x).sum())} NaN.")
        return self._curve(x, None if candidates is None else np.asarray(candidates, dtype=np.int64))

    def as_dict(self) -> dict[str, Any]:
        """Return kind and parameters, for JSON; `calibration_from_dict` reads them."""
        return {"kind": self.kind, **{name: _plain(value) for name, value in asdict(self).items()}}  # type: ignore[call-overload]

    @abstractmethod
    def shifted(self, shift: float) -> Calibration:
        """Return the curve with `shift` added to all log odds."""

    @abstractmethod
    def _curve(self, x: Floats, candidates: Ints | None) -> Floats: ...


@dataclass(frozen=True)
class Platt(Calibration):
    """presence = σ(scale · logit + bias), one scale ≥ 0 and one bias for all candidates (Platt 1999)."""

    kind: ClassVar[str] = "platt"
    scale: float
    bias: float

    def __post_init__(self) -> None:
        _check_parameters(self, ("scale",))

    def shifted(self, shift: float) -> Platt:
        """Return the curve with `shift` added to all log odds."""
        return replace(self, bias=self.bias + shift)

    def _curve(self, x: Floats, candidates: Ints | None) -> Floats:
        return _times(self.scale, x) + self.bias


@dataclass(frozen=True)
class Beta(Calibration):
    """Log odds a · log σ(z) − b · log σ(−z) + c with z = scale · logit + bias: slope a far below 0, b far above.

    Beta calibration (Kull et al. 2017) of the presences σ(z) that Platt's fit gives; a = b = 1, c = 0 is that fit.
    """

    kind: ClassVar[str] = "beta"
    scale: float
    bias: float
    a: float
    b: float
    c: float

    def __post_init__(self) -> None:
        _check_parameters(self, ("scale", "a", "b"))

    def shifted(self, shift: float) -> Beta:
        """Return the curve with `shift` added to all log odds."""
        return replace(self, c=self.c + shift)

    def _curve(self, x: Floats, candidates: Ints | None) -> Floats:
        z = _times(self.scale, x) + self.bias
        return _times(self.b, _softplus(z)) - _times(self.a, _softplus(-z)) + self.c


@dataclass(frozen=True)
class Isotonic(Calibration):
    """Log odds linear between knots and constant outside: `heights` at the logits `places`, neither ever falling."""

    kind: ClassVar[str] = "isotonic"
    places: tuple[float, ...]
    heights: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_parameters(self, ())
        falls = any(min(np.diff(knots), default=0) < 0 for knots in (self.places, self.heights))
        if not self.places or len(self.places) != len(self.heights) or falls:
            raise ValueError(
                f"Expected as many rising heights as rising places, at least 1, got {len(self.heights)} and "
                f"{len(self.places)}{', of which some fall' if falls else ''}. Fit again."
            )

    def shifted(self, shift: float) -> Isotonic:
        """Return the curve with `shift` added to all log odds."""
        return replace(self, heights=tuple(height + shift for height in self.heights))

    def _curve(self, x: Floats, candidates: Ints | None) -> Floats:
        places, heights = np.array(self.places), np.array(self.heights)
        x = np.clip(x, places[0], places[-1])
        after = np.clip(np.searchsorted(places, x, side="right"), 1, max(len(places) - 1, 1))
        low, high = np.minimum(after - 1, len(places) - 1), np.minimum(after, len(places) - 1)
        gap = places[high] - places[low]
        part = np.divide(x - places[low], gap, out=np.zeros_like(x), where=gap > 0)
        # np.interp may overshoot a knot by a rounding; a curve that never falls must not.
        curve: Floats = np.minimum(heights[low] + part * (heights[high] - heights[low]), heights[high])
        return curve


@dataclass(frozen=True)
class PlattCandidate(Calibration):
    """presence = σ(scalesⱼ · logit + biasesⱼ) for fitted candidate j, σ(scale · logit + bias) for one added later."""

    kind: ClassVar[str] = "platt-candidate"
    scale: float
    bias: float
    scales: tuple[float, ...]
    biases: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_parameters(self, ("scale", "scales"))
        if len(self.scales) != len(self.biases):
            raise ValueError(f"Expected as many biases as scales, got {len(self.biases)} and {len(self.scales)}.")

    def shifted(self, shift: float) -> PlattCandidate:
        """Return the curve with `shift` added to all log odds."""
        return replace(self, bias=self.bias + shift, biases=tuple(bias + shift for bias in self.biases))

    def _curve(self, x: Floats, candidates: Ints | None) -> Floats:
        m = len(self.scales)
        columns = x.shape[-1] if x.ndim else None
        if candidates is None and columns != m:
            raise ValueError(
                f"Expected logits of shape (..., {m}), a column for each fitted candidate, got {x.shape}. Try "
                "`candidates`: the fitted place of each column, −1 for a new one."
            )
        places = np.arange(m) if candidates is None else candidates
        if places.shape != (columns,):
            raise ValueError(f"Expected `candidates` of shape ({columns},) for logits {x.shape}, got {places.shape}.")
        if places.size and not (places.min() >= -1 and places.max() < m):
            raise ValueError(f"Expected `candidates` from −1 to {m - 1}, got {places.min()} to {places.max()}.")
        # Place −1 is the last: what all share.
        scales, biases = np.array((*self.scales, self.scale)), np.array((*self.biases, self.bias))
        curve: Floats = _times(scales[places], x) + biases[places]
        return curve


def calibration_from_dict(saved: dict[str, Any]) -> Calibration:
    """Read what `Calibration.as_dict` gave. Without a kind it is Platt's, as older versions saved it.

    Raises:
        TypeError, ValueError: an unknown kind, or parameters that do not fit it.
    """
    parameters = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
    kind: Any = parameters.pop("kind", Platt.kind)
    return lookup(CALIBRATIONS, kind, "kind").curve(**parameters)


# -- fits ----------------------------------------------------------------------------------------


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
    _check_finite(logits)
    weights = np.ones(len(logits)) if weights is None else weights
    target, positives, negatives = _targets(right, weights)
    if np.ptp(logits) == 0:
        return Platt(0.0, float(special.logit(np.average(target, weights=weights))))
    centre, spread = float(logits.mean()), float(logits.std())
    x = (logits - centre) / spread

    def loss(parameters: Floats) -> tuple[float, Floats]:
        z = parameters[0] * x + parameters[1]
        value, residual = _log_loss(z, target, weights)
        return value.sum() / positives, np.array([(residual * x).sum(), residual.sum()]) / positives

    start = np.array([1.0, np.log(positives / negatives)])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    scale = float(found.x[0]) / spread
    return Platt(scale, float(found.x[1]) - scale * centre)


def _fit_beta(pairs: Pairs, shared: Platt) -> Beta:
    """Maximum likelihood with Platt's targets, from Platt's fit on: convex in a ≥ 0, b ≥ 0 and c."""
    z = shared.log_odds(pairs.logits)
    target, positives, _ = _targets(pairs.right, pairs.weights)
    features = np.stack([-_softplus(-z), _softplus(z), np.ones_like(z)])
    size = np.sqrt((features**2).mean(1))  # so that all steps are of an ordinary size

    def loss(parameters: Floats) -> tuple[float, Floats]:
        value, residual = _log_loss((parameters / size) @ features, target, pairs.weights)
        return value.sum() / positives, features @ residual / size / positives

    found = optimize.minimize(
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
    heights = special.logit(fit.y_thresholds_)
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

    found = optimize.minimize(
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


# -- choice --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """A calibration and how it was chosen."""

    calibration: Calibration
    log_loss: dict[str, float]  #: method -> cross-validated, nats a query; empty where nothing had to be chosen
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


# -- other worlds --------------------------------------------------------------------------------


def moved(calibration: Calibration, share_from: float, share_to: float) -> Calibration:
    """Move presences to a world with another share of right pairs.

        logit p′ = logit p + logit share_to − logit share_from

    By Bayes' rule, where the two worlds differ in how many pairs are right but not in what the logits of right and of
    wrong pairs look like (Saerens et al. 2002).

    Args:
        calibration: of any kind; it is not changed.
        share_from: share of right pairs among all where it was fitted, in (0, 1).
        share_to: share of right pairs where it will be used, in (0, 1).

    Raises:
        ValueError: a share outside (0, 1).

    Example:
        >>> from sigmax.calibration import Platt, moved
        >>> Platt(1.0, 0.0).presence([0.0]), moved(Platt(1.0, 0.0), 0.5, 0.1).presence([0.0])
        (array([0.5]), array([0.1]))
    """
    for name, share in (("share_from", share_from), ("share_to", share_to)):
        if not 0 < share < 1:
            raise ValueError(f"Expected `{name}` between 0 and 1, both left out, got {share}.")
    return calibration.shifted(float(special.logit(share_to) - special.logit(share_from)))


def sampling_shift(negative_rate: float, positive_rate: float = 1.0) -> float:
    """What to add to the logits of a sigmoid that was trained on a sample of the pairs.

    Keep each wrong pair with probability r₋ and each right one with r₊. Among those kept, by Bayes' rule, a pair that
    is right with probability p is right with

        p′ = p r₊ / (p r₊ + (1 − p) r₋),   logit p′ = logit p + log r₊ − log r₋

    and p′ is what the sigmoid learns. Hence logit p = logit p′ + log r₋ − log r₊, which is at most logit p′ where only
    wrong pairs were left out. `candidate_log_q` = log r₋ does the same inside the loss, candidate by candidate: there
    the logits need no shift any more.

    Args:
        negative_rate: r₋, in (0, 1].
        positive_rate: r₊, in (0, 1].

    Returns:
        log r₋ − log r₊.

    Raises:
        ValueError: a rate outside (0, 1].

    Example:
        >>> from sigmax.calibration import sampling_shift
        >>> round(sampling_shift(0.01), 3)
        -4.605
    """
    for name, rate in (("negative_rate", negative_rate), ("positive_rate", positive_rate)):
        if not 0 < rate <= 1:
            raise ValueError(f"Expected `{name}` above 0 and at most 1, got {rate}.")
    return math.log(negative_rate) - math.log(positive_rate)


# -- small parts ---------------------------------------------------------------------------------


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
    return weights * (_softplus(z) - target * z), weights * (special.expit(z) - target)


def _softplus(z: Floats) -> Floats:
    softplus: Floats = np.logaddexp(0, z)
    return softplus


def _times(factor: float | Floats, x: Floats) -> Floats:
    """Return factor · x, where 0 · ∞ = 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        product: Floats = np.where(np.equal(factor, 0), 0.0, factor * x)
    return product


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_finite(logits: Floats) -> None:
    if not np.isfinite(logits).all():
        raise ValueError(f"Expected finite logits to calibrate on, got {(~np.isfinite(logits)).sum()} that are not.")


def _check_parameters(calibration: Any, at_least_0: tuple[str, ...]) -> None:
    for name, value in asdict(calibration).items():
        numbers = np.asarray(value, dtype=np.float64)
        if not np.isfinite(numbers).all() or (name in at_least_0 and (numbers < 0).any()):
            bound = " and at least 0" if name in at_least_0 else ""
            raise ValueError(f"Expected `{name}` of {calibration.kind!r} to be finite{bound}, got {value}. Fit again.")
