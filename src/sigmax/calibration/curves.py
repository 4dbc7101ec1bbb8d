"""Curves from logit to presence, and how they change in other worlds."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import scipy
from numpy.typing import ArrayLike

from sigmax.arrays import Floats, Ints

__all__ = [
    "Beta",
    "Calibration",
    "Isotonic",
    "Platt",
    "PlattCandidate",
    "moved",
    "sampling_shift",
    "softplus",
]


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
        presence: Floats = scipy.special.expit(self.log_odds(logits, candidates))
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
        return _times(self.b, softplus(z)) - _times(self.a, softplus(-z)) + self.c


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
    return calibration.shifted(float(scipy.special.logit(share_to) - scipy.special.logit(share_from)))


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


def softplus(z: Floats) -> Floats:
    """Return log(1 + exp z)."""
    value: Floats = np.logaddexp(0, z)
    return value


def _times(factor: float | Floats, x: Floats) -> Floats:
    """Return factor · x, where 0 · ∞ = 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        product: Floats = np.where(np.equal(factor, 0), 0.0, factor * x)
    return product


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_parameters(calibration: Any, at_least_0: tuple[str, ...]) -> None:
    for name, value in asdict(calibration).items():
        numbers = np.asarray(value, dtype=np.float64)
        if not np.isfinite(numbers).all() or (name in at_least_0 and (numbers < 0).any()):
            bound = " and at least 0" if name in at_least_0 else ""
            raise ValueError(f"Expected `{name}` of {calibration.kind!r} to be finite{bound}, got {value}. Fit again.")
