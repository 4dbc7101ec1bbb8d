"""Curves from logit and share to presence."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from sigmax.arrays import Floats, Ints, expit, logsumexp
from sigmax.calibration.knots import Knots
from sigmax.errors import lookup

__all__ = [
    "SHARE_BOUND",
    "Adjusted",
    "Beta",
    "Calibration",
    "Isotonic",
    "Platt",
    "PlattCandidate",
    "Quadratic",
    "calibration_from_dict",
    "share_odds",
    "softplus",
]


#: Log odds of a share are kept within ± this: a share nearer to 0 or 1 than 1e-13 says no more than that.
SHARE_BOUND = 30.0


def share_odds(logits: ArrayLike, totals: ArrayLike) -> Floats:
    """Compute log odds of shares, log(share / (1 − share)) with share = exp(logit − total).

    That is the logit minus the logsumexp of its rivals, clipped to ± `SHARE_BOUND`, so that the share of a candidate
    that is offered alone, always 1, gives `SHARE_BOUND`.

    Args:
        logits: of pairs, of any shape.
        totals: log Σ exp over all that is offered to the pair's query, *none of these* included where it was trained;
            of a shape that broadcasts. In float64: the difference from the logit is what counts.

    Example:
        >>> from sigmax.calibration import share_odds
        >>> share_odds([0.0, 0.0], [0.6931471805599453, 1.0986122886681098]).round(3)  # of 2 and of 3 equal ones
        array([ 0.   , -0.693])
    """
    s, total = np.asarray(logits, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.where(s >= total, 0.0, s - total)
        # log(1 − exp gap), by whichever form keeps its digits.
        rest = np.where(gap > -math.log(2), np.log(-np.expm1(gap)), np.log1p(-np.exp(gap)))
        odds: Floats = np.clip(gap - rest, -SHARE_BOUND, SHARE_BOUND)
    return odds


class Calibration(ABC):
    """A curve from a pair's logit and the log odds of its share to its presence; it falls in neither.

    `candidates` says which fitted candidate each column of the logits is, by its place among those of the fit; −1 is
    one that was added later. Without it, the columns are the fitted candidates in their order.
    """

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Calibration]]] = {}  #: every curve that can be saved, by its kind

    def __init_subclass__(cls) -> None:
        """Enter the curve among those that can be read."""
        Calibration.kinds[cls.kind] = cls

    def presence(
        self, logits: ArrayLike, candidates: ArrayLike | None = None, totals: ArrayLike | None = None
    ) -> Floats:
        """Return presences, in [0, 1], of the shape of the logits; see `log_odds`."""
        return expit(self.log_odds(logits, candidates, totals))

    def log_odds(
        self, logits: ArrayLike, candidates: ArrayLike | None = None, totals: ArrayLike | None = None
    ) -> Floats:
        """Return log(presence / (1 − presence)), of the shape of the logits.

        Args:
            logits: (..., m) over all candidates that are offered. Infinite ones are allowed.
            candidates: (m,) fitted place of each column, −1 for a new candidate.
            totals: (...) or (..., 1) log Σ exp of each row over all that is offered. Needed where a row of `logits` is
                not all of it: *none of these* was trained, only the best are at hand, or pairs come one by one.

        Raises:
            ValueError: NaN, or candidates that do not fit.
        """
        s = np.asarray(logits, dtype=np.float64)
        if np.isnan(s).any():
            raise ValueError(f"Expected logits to be numbers, got {int(np.isnan(s).sum())} NaN.")
        places = None if candidates is None else np.asarray(candidates, dtype=np.int64)
        if not self.competition:
            return self.curve(s, np.zeros(()), places)
        if totals is None:
            total = logsumexp(s, keepdims=True) if s.size else np.zeros(())
        else:
            total = np.asarray(totals, dtype=np.float64)
            total = total[..., None] if total.ndim == s.ndim - 1 else total
        return self.curve(s, share_odds(s, total), places)

    def as_dict(self) -> dict[str, Any]:
        """Return kind and parameters, for JSON; `calibration_from_dict` reads them."""
        return {"kind": self.kind, **{one.name: _plain(getattr(self, one.name)) for one in fields(self)}}  # type: ignore[arg-type]

    @property
    @abstractmethod
    def competition(self) -> float:
        """How much competition counts, from 0 to 1: b / (a + b) of log odds a · logit + b · log odds of the share.

        0: the logit alone, as a sigmoid sees it. 1: the share alone, as a softmax does. Where a curve has slopes that
        change, those at the middle of what it was fitted on.
        """

    @abstractmethod
    def shifted(self, shift: float) -> Calibration:
        """Return the curve with `shift` added to all log odds."""

    @abstractmethod
    def curve(self, s: Floats, r: Floats, candidates: Ints | None) -> Floats:
        """Return log odds from logits and log odds of shares, pair by pair; candidates as in `log_odds`."""


@dataclass(frozen=True)
class Platt(Calibration):
    """presence = σ(scale · logit + share · log odds of the share + bias), the same for all candidates.

    scale ≥ 0 and share ≥ 0. With share = 0 that is Platt's (1999), of the logit alone.
    """

    kind: ClassVar[str] = "platt"
    scale: float
    bias: float
    share: float = 0.0

    def __post_init__(self) -> None:
        _check_parameters(self, at_least_0=("scale", "share"))

    @property
    def competition(self) -> float:
        """How much competition counts: share / (scale + share)."""
        return _part(self.share, self.scale)

    def shifted(self, shift: float) -> Platt:
        """Return the curve with `shift` added to all log odds."""
        return replace(self, bias=self.bias + shift)

    def curve(self, s: Floats, r: Floats, candidates: Ints | None) -> Floats:
        """Return scale · s + share · r + bias."""
        return _times(self.scale, s) + _times(self.share, r) + self.bias


@dataclass(frozen=True)
class Beta(Calibration):
    """Log odds a · log σ(z) − b · log σ(−z) + share_a · log σ(r) − share_b · log σ(−r) + c, z = scale · logit + bias.

    Two slopes for each view: a where z is far below 0, b far above, and likewise for r, the log odds of the share.
    Beta calibration (Kull et al. 2017) of σ(z), presences by the logit alone, and of the share; with a = b = 1,
    c = share_a = share_b = 0 it is σ(z).
    """

    kind: ClassVar[str] = "beta"
    scale: float
    bias: float
    a: float
    b: float
    c: float
    share_a: float = 0.0
    share_b: float = 0.0

    def __post_init__(self) -> None:
        _check_parameters(self, at_least_0=("scale", "a", "b", "share_a", "share_b"))

    @property
    def competition(self) -> float:
        """How much competition counts, by the slopes half-way: (share_a + share_b) / (scale · (a + b) + …)."""
        return _part(self.share_a + self.share_b, self.scale * (self.a + self.b))

    def shifted(self, shift: float) -> Beta:
        """Return the curve with `shift` added to all log odds."""
        return replace(self, c=self.c + shift)

    def curve(self, s: Floats, r: Floats, candidates: Ints | None) -> Floats:
        """Return the log odds, see the class."""
        z = _times(self.scale, s) + self.bias
        of_logit = _times(self.b, softplus(z)) - _times(self.a, softplus(-z))
        return of_logit + _times(self.share_b, softplus(r)) - _times(self.share_a, softplus(-r)) + self.c


@dataclass(frozen=True)
class Quadratic(Calibration):
    """Log odds h(logit) + h(log odds of the share) + bias, each h quadratic inside an interval and linear outside.

    Its slope goes from `first` at the interval's low end to `last` at the high end, both ≥ 0, and stays what it is
    there beyond: such a curve never falls, which a plain quadratic may (probmetrics' *quadratic*). With t = (x − low) /
    (high − low), cut off at 0 and 1,

        h(x) = first · [(high − low)(t − t²/2) + min(x − low, 0)] + last · [(high − low) t²/2 + max(x − high, 0)]

    Each of the four numbers is a pair: of the logit, and of the log odds of the share.
    """

    kind: ClassVar[str] = "quadratic"
    low: tuple[float, float]
    high: tuple[float, float]
    first: tuple[float, float]
    last: tuple[float, float]
    bias: float

    def __post_init__(self) -> None:
        _check_parameters(self, at_least_0=("first", "last"))
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"Expected `low` below `high`, got {self.low} and {self.high}. Fit again.")

    @property
    def competition(self) -> float:
        """How much competition counts, by the slopes in the middle of the intervals."""
        return _part(self.first[1] + self.last[1], self.first[0] + self.last[0])

    def shifted(self, shift: float) -> Quadratic:
        """Return the curve with `shift` added to all log odds."""
        return replace(self, bias=self.bias + shift)

    def curve(self, s: Floats, r: Floats, candidates: Ints | None) -> Floats:
        """Return the log odds, see the class."""
        odds = np.zeros(np.broadcast_shapes(s.shape, r.shape)) + self.bias
        for view, x in enumerate((s, r)):
            slopes = self.first[view], self.last[view]
            for slope, part in zip(slopes, halves(x, self.low[view], self.high[view]), strict=True):
                odds = odds + _times(slope, part)
        return odds


def halves(x: Floats, low: float, high: float) -> tuple[Floats, Floats]:
    """Return what each end's slope multiplies in `Quadratic`: its formula's two brackets."""
    width = high - low
    t = np.clip((x - low) / width, 0, 1)
    return width * (t - t * t / 2) + np.minimum(x - low, 0), width * t * t / 2 + np.maximum(x - high, 0)


@dataclass(frozen=True)
class Isotonic(Calibration):
    """Log odds linear between knots and constant outside: `heights` at `places`, neither ever falling.

    The knots stand on scale · logit + share · log odds of the share; scale is 1 and share 0 for the logit itself.
    """

    kind: ClassVar[str] = "isotonic"
    places: tuple[float, ...]
    heights: tuple[float, ...]
    scale: float = 1.0
    share: float = 0.0

    def __post_init__(self) -> None:
        _check_parameters(self, at_least_0=("scale", "share"))
        falls = any(min(np.diff(knots), default=0) < 0 for knots in (self.places, self.heights))
        if not self.places or len(self.places) != len(self.heights) or falls:
            raise ValueError(
                f"Expected as many rising heights as rising places, at least 1, got {len(self.heights)} and "
                f"{len(self.places)}{', of which some fall' if falls else ''}. Fit again."
            )

    @property
    def competition(self) -> float:
        """How much competition counts: share / (scale + share)."""
        return _part(self.share, self.scale)

    def shifted(self, shift: float) -> Isotonic:
        """Return the curve with `shift` added to all log odds."""
        return replace(self, heights=tuple(height + shift for height in self.heights))

    def curve(self, s: Floats, r: Floats, candidates: Ints | None) -> Floats:
        """Return the log odds, see the class."""
        knots = self._knots
        x = _times(self.scale, s) if not self.share else _times(self.scale, s) + _times(self.share, r)
        x = np.clip(x, knots.places[0], knots.places[-1])
        after = np.clip(knots.before(x), 1, max(len(self.places) - 1, 1))
        gap = knots.gaps[after]
        part = np.divide(x - knots.starts[after], gap, out=np.zeros_like(x), where=gap > 0)
        # np.interp may overshoot a knot by a rounding; a curve that never falls must not.
        curve: Floats = np.minimum(knots.feet[after] + part * knots.rises[after], knots.tops[after])
        return curve

    @cached_property
    def _knots(self) -> Knots:
        return Knots(np.array(self.places), np.array(self.heights))


@dataclass(frozen=True)
class PlattCandidate(Calibration):
    """Log odds scalesⱼ · x + biasesⱼ for fitted candidate j, scale · x + bias for a new one; x: those of another curve.

    That curve, `base`, is the logit itself if not given.
    """

    kind: ClassVar[str] = "platt-candidate"
    scale: float
    bias: float
    scales: tuple[float, ...]
    biases: tuple[float, ...]
    base: Calibration = field(default_factory=lambda: Platt(1.0, 0.0))

    def __post_init__(self) -> None:
        _check_parameters(self, at_least_0=("scale", "scales"))
        if len(self.scales) != len(self.biases):
            raise ValueError(f"Expected as many biases as scales, got {len(self.biases)} and {len(self.scales)}.")

    @property
    def competition(self) -> float:
        """How much competition counts: what it does in the base."""
        return self.base.competition

    def shifted(self, shift: float) -> PlattCandidate:
        """Return the curve with `shift` added to all log odds."""
        return replace(self, bias=self.bias + shift, biases=tuple(bias + shift for bias in self.biases))

    def curve(self, s: Floats, r: Floats, candidates: Ints | None) -> Floats:
        """Return the log odds, see the class."""
        m = len(self.scales)
        columns = s.shape[-1] if s.ndim else None
        if candidates is None and columns != m:
            raise ValueError(
                f"Expected logits of shape (..., {m}), a column for each fitted candidate, got {s.shape}. Try "
                "`candidates`: the fitted place of each column, −1 for a new one."
            )
        places = np.arange(m) if candidates is None else candidates
        if places.shape != (columns,):
            raise ValueError(f"Expected `candidates` of shape ({columns},) for logits {s.shape}, got {places.shape}.")
        if places.size and not (places.min() >= -1 and places.max() < m):
            raise ValueError(f"Expected `candidates` from −1 to {m - 1}, got {places.min()} to {places.max()}.")
        # Place −1 is the last: what all share.
        scales, biases = np.array((*self.scales, self.scale)), np.array((*self.biases, self.bias))
        curve: Floats = _times(scales[places], self.base.curve(s, r, places)) + biases[places]
        return curve


@dataclass(frozen=True)
class Adjusted(Calibration):
    """Log odds scale · x + bias, x those of another curve: what feedback from use made of it."""

    kind: ClassVar[str] = "adjusted"
    scale: float
    bias: float
    base: Calibration

    def __post_init__(self) -> None:
        _check_parameters(self, at_least_0=("scale",))

    @property
    def competition(self) -> float:
        """How much competition counts: what it does in the base."""
        return self.base.competition

    def shifted(self, shift: float) -> Adjusted:
        """Return the curve with `shift` added to all log odds."""
        return replace(self, bias=self.bias + shift)

    def curve(self, s: Floats, r: Floats, candidates: Ints | None) -> Floats:
        """Return the log odds, see the class."""
        return _times(self.scale, self.base.curve(s, r, candidates)) + self.bias

    def unmoved(self, z: Floats) -> Floats:
        """Return the base's log odds from these."""
        return (z - self.bias) / self.scale if self.scale else np.zeros_like(z)


def calibration_from_dict(saved: dict[str, Any]) -> Calibration:
    """Read what `Calibration.as_dict` gave. Without a kind it is Platt's, as older versions saved it.

    Raises:
        TypeError, ValueError: an unknown kind, or parameters that do not fit it.
    """
    parameters = {
        name: calibration_from_dict(value)
        if isinstance(value, dict)
        else tuple(value)
        if isinstance(value, list)
        else value
        for name, value in saved.items()
    }
    kind: Any = parameters.pop("kind", Platt.kind)
    return lookup(Calibration.kinds, kind, "kind")(**parameters)


def softplus(z: Floats) -> Floats:
    """Return log(1 + exp z)."""
    value: Floats = np.logaddexp(0, z)
    return value


def _times(factor: float | Floats, x: Floats) -> Floats:
    """Return factor · x, where 0 · ∞ = 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        product: Floats = np.where(np.equal(factor, 0), 0.0, factor * x)
    return product


def _part(part: float, rest: float) -> float:
    """Return part / (part + rest), 0 for nothing at all."""
    return part / (part + rest) if part > 0 else 0.0


def _plain(value: Any) -> Any:
    if isinstance(value, Calibration):
        return value.as_dict()
    return list(value) if isinstance(value, tuple) else value


def _check_parameters(calibration: Any, at_least_0: tuple[str, ...]) -> None:
    for one in fields(calibration):
        value = getattr(calibration, one.name)
        if isinstance(value, Calibration):
            continue
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "biuf" or (one.type == "float" and numbers.ndim):
            what = "a number" if one.type == "float" else "numbers"
            raise TypeError(f"Expected `{one.name}` of {calibration.kind!r} to be {what}, got {value!r}. Fit again.")
        if not np.isfinite(numbers).all() or (one.name in at_least_0 and (numbers < 0).any()):
            bound = " and at least 0" if one.name in at_least_0 else ""
            raise ValueError(
                f"Expected `{one.name}` of {calibration.kind!r} to be finite{bound}, got {value}. Fit again."
            )
