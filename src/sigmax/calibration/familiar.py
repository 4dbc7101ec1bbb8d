"""Is a query like those of dev? A flag with a promised false-alarm rate, and P(any) where dev has nothing to fit it on.

Of each dev query that has a right answer, none of which was trained on, a few numbers are kept, larger the more
familiar it is: log Σ −log(1 − presence), what its presences say together; and how near the training queries are
(`sigmax.calibration.novelty`). A query's score is the sum of its numbers, each divided by its deviation, where nearness
counts half: presences know which queries candidates are right for, nearness does not. No weights are fitted: no query
that nobody saw is at hand to fit them on.

The flag's p-value is conformal (Vovk et al. 2005): with k of n dev queries as unfamiliar or more, (k + 1) / (n + 1),
deviations taken over the dev queries and the query itself. Exchanging it with one of them changes nothing, so that of
queries drawn as dev's were at most α have a p-value of at most α, whatever the distribution. (Presences come from a
calibration that was fitted on these dev queries; its few numbers make them more familiar by next to nothing.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints, row_blocks
from sigmax.calibration.record import one_of_each

__all__ = ["FALSE_ALARMS", "UNLIKE", "Familiar", "familiar_numbers", "least_answered"]

#: What is said of a query whose p-value is at most `FALSE_ALARMS`: of queries like dev's, of at most so many.
UNLIKE = "unlike anything in training"
FALSE_ALARMS = 0.05
#: Dev queries that are kept, at most; beyond that, a random sample.
MOST_KEPT = 10_000
#: Dev queries that the prior is worth, beside those that are counted.
PRIOR = 2.0
#: Products held at a time.
BLOCK = 2**22
#: A number that varies by no more than this says nothing: it is rounding.
_CONSTANT = 1e-6
#: Weight of nearness beside presences, both in deviations.
NEARNESS = 0.5
#: −log(1 − p) of a presence is kept between these.
_LEAST, _MOST = 1e-30, 1e3


def familiar_numbers(presence: Floats, novelty: Floats | None, weights: Floats | None = None) -> Floats:
    """Return (n, 1 + f) numbers, larger the more familiar a query is.

    The first is log Σⱼ −log(1 − presenceⱼ), the logarithm of noisy-or's exponent.

    Args:
        presence: (n, m).
        novelty: (n, f) as `Logits.novelty` has it; None for nothing.
        weights: (n, m) pairs that each presence stands for; None: each for itself.
    """
    with np.errstate(divide="ignore"):
        logs = np.minimum(-np.log1p(-presence), _MOST)
    total: Floats = np.log(np.clip((logs if weights is None else logs * weights).sum(1), _LEAST, _MOST))[:, None]
    return total if novelty is None else np.concatenate([total, novelty], axis=1)


def least_answered(queries: int, confidence: float) -> float:
    """Return the share of queries that have a right answer, at least, where all of a sample do: (1 − confidence)^(1/n).

    It is Clopper and Pearson's one-sided bound (1934).
    """
    return float((1 - confidence) ** (1 / queries)) if queries else 0.0


@dataclass(frozen=True, eq=False)
class Familiar:
    """Numbers of dev queries, see `familiar_numbers`, and what they say of another."""

    dev: Floats  #: (n, f) of those that have a right answer
    without: Floats  #: (u, f) of those that have none

    @classmethod
    def of(cls, numbers: Floats, answered: Bools, *, groups: Ints | None = None, seed: int = 0) -> Familiar:
        """Keep the numbers of a dev split, (n, f), of which some queries have a right answer, (n,).

        Of queries that are nearly the same, (n,) groups, one is kept: with another message, only these are exchanged.
        """
        kept = np.arange(len(numbers)) if groups is None else one_of_each(groups)
        if len(kept) > MOST_KEPT:
            kept = np.sort(np.random.default_rng(seed).choice(kept, MOST_KEPT, replace=False))
        return cls(numbers[kept][answered[kept]], numbers[kept][~answered[kept]])

    def fits(self, numbers: Floats) -> bool:
        """Whether numbers are of as many kinds as those of dev: a model that lost what it kept has fewer."""
        return bool(numbers.shape[1] == self.dev.shape[1])

    @property
    def _weights(self) -> Floats:
        return np.array([1.0] + [NEARNESS] * (self.dev.shape[1] - 1))

    def score(self, numbers: Floats) -> Floats:
        """(b, f) -> (b,) how familiar each query is: Σ weight · (number − mean) / deviation, both over dev."""
        spread = self.dev.std(0)
        shares = np.divide(self._weights, spread, where=spread > _CONSTANT, out=np.zeros_like(spread))
        score: Floats = (numbers - self.dev.mean(0)) @ shares
        return score

    def p_values(self, numbers: Floats) -> Floats:
        """(b, f) -> (b,) p-values of "drawn as dev's queries were"; small: unlike them, and unlike training."""
        p: Floats = (1 + self._as_unfamiliar(numbers, self.dev)) / (len(self.dev) + 1)
        return p

    def any_right(self, numbers: Floats, largest: Floats) -> Floats:
        """P(any) by the rule of succession: (k + 2q) / (k + u + 2).

        Of the dev queries that are as unfamiliar or more, k have a right answer and u have none. The prior is the
        query's own largest presence q, worth two dev queries: where dev has nothing like it, the best candidate's
        presence is all that is known, and a lower bound.

        Args:
            numbers: (b, f).
            largest: (b,) largest presence of each query.

        Returns:
            (b,) in [0, 1], at least `largest`.
        """
        have, lack = (self._as_unfamiliar(numbers, kept) for kept in (self.dev, self.without))
        anything: Floats = np.maximum((have + PRIOR * largest) / (have + lack + PRIOR), largest)
        return anything

    def _as_unfamiliar(self, numbers: Floats, kept: Floats) -> Floats:
        """(b,) how many of those kept score at most as each query does."""
        n, found = len(self.dev), np.zeros(len(numbers))
        mean, variance = self.dev.mean(0), self.dev.var(0)
        for rows in row_blocks((len(numbers), len(kept)), BLOCK):
            gaps = numbers[rows] - mean
            spread = np.sqrt((variance + gaps**2 / (n + 1)) * n / (n + 1))
            weights = np.divide(self._weights, spread, where=spread > _CONSTANT, out=np.zeros_like(spread))
            own = (gaps * weights).sum(1)
            scores = weights @ (kept - mean).T
            found[rows] = (scores <= (own + 1e-9 * (1 + np.abs(own)))[:, None]).sum(1)
        return found

    def as_tensors(self) -> dict[str, NDArray[Any]]:
        """Return arrays by name, to be saved beside a record's."""
        return {"familiar": self.dev, "familiar_without": self.without}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Familiar | None:
        """Inverse of `as_tensors`; None of a model saved before this was.

        Raises:
            ValueError: tensors that do not fit together.
        """
        if "familiar" not in tensors:
            return None
        dev, without = (tensors[name].astype(np.float64) for name in ("familiar", "familiar_without"))
        if dev.ndim != 2 or without.ndim != 2 or dev.shape[1] != without.shape[1] or not len(dev):
            raise ValueError(f"Expected (n, f) and (u, f) numbers of dev queries, got {dev.shape} and {without.shape}.")
        return cls(dev, without)
