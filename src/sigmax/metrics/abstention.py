"""None of these, and answering only when sure.

Something must tell queries that have a right answer from queries that have none; and whoever may stay silent should
be right more often on what is answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sigmax.arrays import Bools, Floats
from sigmax.metrics.intervals import Estimate, Statistic, estimate, mean_statistic
from sigmax.metrics.presence import BINS, mass_edges

__all__ = [
    "ANY",
    "NONE_FPR95",
    "NONE_SCORES",
    "SELECTION",
    "RiskCoverage",
    "RiskPoint",
    "any_metrics",
    "auroc_metric",
    "fpr95_metric",
]

#: The natural scores of "something is right", and the metric that measures each.
NONE_SCORES = {
    "share": "none_auroc_share",
    "logit": "none_auroc_logit",
    "presence": "none_auroc_presence",
}
#: The same scores, and the metric that measures each where nearly all answerable queries must be answered.
NONE_FPR95 = {
    "share": "fpr95_share",
    "logit": "fpr95_logit",
    "presence": "fpr95_presence",
}
#: Metrics of answering the surest queries only.
SELECTION = ("aurc", "excess_aurc")
#: Metrics of a probability that any candidate is right, and what they are.
ANY = {
    "none_auroc_any": "none-of-these by the probability of any: AUROC",
    "fpr95_any": "none-of-these by the probability of any: unanswerable queries let through with 95% of the others",
    "any_log_loss": "log loss of the probability of any, nats a query",
    "any_brier": "squared error of the probability of any, a query",
    "any_calibration_error": "mean gap between the probability of any and truth, equal-mass bins over queries",
}
RECALL = 0.95
#: Points of a risk–coverage curve.
POINTS = 100
BLOCK = 50  # draws at a time: what they need then stays in the processor's cache


def auroc_metric(scores: Floats, answered: Bools) -> Statistic:
    """Probability that a query with a right answer scores above one without; ties count half (Hanley & McNeil 1982).

    Args:
        scores: (n,) the best score of each query.
        answered: (n,) whether the query has a right answer.
    """
    have, lack = _by_score(scores, answered)
    below = np.searchsorted(scores[have], scores[lack], side="left")
    upto = np.searchsorted(scores[have], scores[lack], side="right")

    def metric(weights: Floats) -> Floats:
        values = np.empty(len(weights))
        for start in range(0, len(weights), BLOCK):
            block = weights[start : start + BLOCK]
            counts, others = _cumulated(block, have), block.take(lack, 1)
            total = counts[:, -1]
            above = (others * (total[:, None] - (counts[:, below] + counts[:, upto]) / 2)).sum(1)
            with np.errstate(invalid="ignore"):
                values[start : start + BLOCK] = above / (total * others.sum(1))
        return values

    return metric


def fpr95_metric(scores: Floats, answered: Bools) -> Statistic:
    """Share of the queries without a right answer that are taken to have one when 95% of those with one are.

    The class told apart is "something is right", as in the detection of what lies outside a distribution (FPR95:
    Hendrycks & Gimpel 2017; Liang et al. 2018): with t the highest score such that at least 95% of the queries with a
    right answer score ≥ t, the share of the others that score ≥ t.

    Args:
        scores: (n,) the best score of each query.
        answered: (n,) whether the query has a right answer.
    """
    have, lack = _by_score(scores, answered)
    reached = np.searchsorted(scores[lack], scores[have], side="left")  # the others below each threshold

    def metric(weights: Floats) -> Floats:
        values = np.empty(len(weights))
        for start in range(0, len(weights), BLOCK):
            block = weights[start : start + BLOCK]
            counts, others = _cumulated(block, have), _cumulated(block, lack)
            total = counts[:, -1:]
            with np.errstate(invalid="ignore"):
                enough = (total - counts[:, :-1]) / total >= RECALL  # true, then false: scores ≥ a rising threshold
                last = np.maximum(enough.sum(1) - 1, 0)
                low = np.take_along_axis(others, reached[last][:, None], 1)[:, 0]
                share = (others[:, -1] - low) / others[:, -1]
            values[start : start + BLOCK] = np.where(total[:, 0] > 0, share, np.nan)
        return values

    return metric


def any_metrics(any_probability: Floats, answered: Bools) -> dict[str, Statistic]:
    """Metrics of a probability that any candidate is right, in the order of `ANY`.

    With q that probability and y whether the query has a right answer: AUROC and FPR95 of q; any_log_loss: mean of
    −y log q − (1 − y) log(1 − q); any_brier: mean of (q − y)²; any_calibration_error: Σ_b (n_b / n) |mean q − mean y|
    over bins of equally many queries. AUROC and FPR95 need both kinds of query and are left out where there is one.

    Args:
        any_probability: (n,) in [0, 1].
        answered: (n,) whether the query has a right answer.

    Raises:
        ValueError: probabilities outside [0, 1], or not one a query.
    """
    if any_probability.shape != answered.shape:
        raise ValueError(
            f"Expected one probability a query, got `any_probability` {any_probability.shape} for `answered` "
            f"{answered.shape}."
        )
    if not ((any_probability >= 0) & (any_probability <= 1)).all():
        raise ValueError("Expected `any_probability` in [0, 1], got values outside or NaN. Give probabilities.")
    q = np.clip(any_probability, 1e-12, 1 - 1e-12)
    bins = np.searchsorted(mass_edges(any_probability), any_probability, side="right")
    gaps = np.zeros((len(q), BINS))
    gaps[np.arange(len(q)), bins] = any_probability - answered

    def calibration_error(weights: Floats) -> Floats:
        error: Floats = np.abs(weights @ gaps).sum(1) / weights.sum(1)
        return error

    metrics: dict[str, Statistic] = {}
    if answered.any() and not answered.all():
        metrics["none_auroc_any"] = auroc_metric(any_probability, answered)
        metrics["fpr95_any"] = fpr95_metric(any_probability, answered)
    metrics["any_log_loss"] = mean_statistic(-np.where(answered, np.log(q), np.log1p(-q)))
    metrics["any_brier"] = mean_statistic((any_probability - answered) ** 2)
    metrics["any_calibration_error"] = calibration_error
    return metrics


@dataclass(frozen=True)
class RiskPoint:
    """How often answers are wrong when only so many queries are answered."""

    coverage: float  #: share of queries answered, the surest first
    risk: Estimate  #: share of wrong ones among them, with its 95% interval over queries

    def as_dict(self) -> dict[str, Any]:
        """Return coverage and risk, for JSON."""
        return {"coverage": self.coverage, "risk": self.risk.as_dict()}


class RiskCoverage:
    """Answering only the queries that one is sure of.

    risk(c) is the share of wrong ones among the queries with confidence ≥ c, and n queries have the confidences cᵢ:

    - aurc: Σᵢ risk(cᵢ) / n, the area under the risk–coverage curve (El-Yaniv & Wiener 2010; Geifman & El-Yaniv 2017);
    - excess_aurc: aurc less the least there is, that of all right answers before the wrong ones:
      Σ_{j ≤ E} j / (n − E + j) / n with E wrong ones (Geifman, Uziel & El-Yaniv 2019).

    Args:
        confidence: (n,) such as the largest presence.
        wrong: (n,) whether the best candidate is wrong: always for a query with no right answer.
    """

    def __init__(self, confidence: Floats, wrong: Bools) -> None:
        self._order = np.argsort(-confidence, kind="stable")
        self._last: tuple[Floats, Floats] | None = None
        self._all_wrong = wrong.astype(float)
        self._wrong = self._all_wrong[self._order]
        # equal confidences are answered together
        last = np.append(np.diff(confidence[self._order]) != 0, True)
        self._ends = None if last.all() else np.flatnonzero(last)

    def metrics(self) -> dict[str, Statistic]:
        """Metrics in the order of `SELECTION`."""
        return {"aurc": self._aurc, "excess_aurc": lambda weights: self._aurc(weights) - self._least(weights)}

    def points(self, weights: Floats) -> tuple[RiskPoint, ...]:
        """Risk of the fewest surest queries that cover 1/k, 2/k, …, 1 of all; k is `POINTS`, or n if that is less."""
        count = min(POINTS, len(self._order))
        coverage = np.arange(1, count + 1) / count
        risks = np.empty((len(weights), count))
        for row in range(len(weights)):
            (kept,), (wrong,) = self._kept(weights[row : row + 1])
            places = np.searchsorted(kept, coverage * kept[-1] * (1 - 1e-12))
            risks[row] = wrong[places] / kept[places]
        return tuple(RiskPoint(float(c), estimate(risk)) for c, risk in zip(coverage, risks.T, strict=True))

    def _kept(self, weights: Floats) -> tuple[Floats, Floats]:
        """(b, g) queries of at least each confidence, the highest first, and the wrong ones of them."""
        ordered = weights.take(self._order, 1)
        kept, wrong = ordered.cumsum(1), (ordered * self._wrong).cumsum(1)
        return (kept, wrong) if self._ends is None else (kept[:, self._ends], wrong[:, self._ends])

    def _aurc(self, weights: Floats) -> Floats:
        if self._last is not None and self._last[0] is weights:  # both metrics ask with the same draws
            return self._last[1]
        values = np.empty(len(weights))
        for start in range(0, len(weights), BLOCK):
            kept, wrong = self._kept(weights[start : start + BLOCK])
            risk = np.divide(wrong, kept, out=wrong, where=kept > 0)
            area = kept[:, 0] * risk[:, 0] + (np.diff(kept, axis=1) * risk[:, 1:]).sum(1)
            values[start : start + BLOCK] = area / kept[:, -1]
        self._last = weights, values
        return values

    def _least(self, weights: Floats) -> Floats:
        """Σ_{j ≤ E} j / (C + j) = E − C (H(C + E) − H(C)) with C right ones and the harmonic H(k) = ψ(k + 1) + γ."""
        total = weights.sum(1)
        errors = weights @ self._all_wrong
        right = total - errors
        least: Floats = (errors - right * (special.digamma(total + 1) - special.digamma(right + 1))) / total
        return least


def _by_score(scores: Floats, answered: Bools) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of the queries with and without a right answer, by rising score."""
    order = np.argsort(scores, kind="stable")
    return order[answered[order]], order[~answered[order]]


def _cumulated(weights: Floats, places: NDArray[np.int64]) -> Floats:
    """(b, n) -> (b, k + 1) sums of the weights at the first 0, 1, …, k of the k places."""
    sums = np.zeros((len(weights), len(places) + 1))
    np.cumsum(weights.take(places, 1), axis=1, out=sums[:, 1:])
    return sums
