"""None of these, and answering only when sure.

A score must separate queries that have a right answer from queries that have none, and a model that may abstain should
be right more often when it answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigmax.arrays import Bools, Floats, Ints, row_blocks
from sigmax.metrics.bins import BINS, mass_edges
from sigmax.metrics.intervals import Estimate, Statistic, estimate, mean_statistic
from sigmax.metrics.metric import Better, Metric, Observed
from sigmax.metrics.ranking import PAIRS, best_first

__all__ = [
    "METRICS",
    "NONE",
    "SUREST",
    "RiskCoverage",
    "RiskPoint",
    "any_metrics",
    "auroc_metric",
    "fpr95_metric",
    "risk_coverage",
]

#: The groups of these metrics.
NONE = "none of these"
SUREST = "the surest first"
#: Share of the answerable queries that must be answered.
RECALL = 0.95
#: Points of a risk–coverage curve.
POINTS = 100
BLOCK = 50  # draws at a time: what they need then stays in the processor's cache


def auroc_metric(scores: Floats, answered: Bools) -> Statistic:
    """Measure how often a query with a right answer scores above one without; ties count half (Hanley & McNeil 1982).

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
    """Measure the share of queries without a right answer that pass when 95% of those with one must pass.

    The positive class is "something is right", as in out-of-distribution detection (FPR95: Hendrycks & Gimpel 2017;
    Liang et al. 2018): with t the highest score such that at least 95% of the queries with a
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
    """Measure a probability that any candidate is right, in the order of `METRICS`.

    With q that probability and y whether the query has a right answer: AUROC and FPR95 of q; any_log_loss: mean of
    −y log q − (1 − y) log(1 − q); any_brier: mean of (q − y)²; any_calibration_error: Σ_b (n_b / n) |mean q − mean y|
    over bins of equally many queries. AUROC and FPR95 need both kinds of query and are left out where there is one.

    Args:
        any_probability: (n,) in [0, 1].
        answered: (n,) whether the query has a right answer.

    Raises:
        ValueError: probabilities outside [0, 1], or not one per query.
    """
    if any_probability.shape != answered.shape:
        raise ValueError(
            f"Expected one probability per query, got `any_probability` {any_probability.shape} for `answered` "
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
    """The share of wrong answers when only part of the queries is answered."""

    coverage: float  #: share of queries answered, surest first
    risk: Estimate  #: share of wrong ones among them, with its 95% interval over queries

    def as_dict(self) -> dict[str, Any]:
        """Return coverage and risk, for JSON."""
        return {"coverage": self.coverage, "risk": self.risk.as_dict()}


class RiskCoverage:
    """Risk and coverage when only the surest queries are answered.

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
        """Return the metrics in the order of `METRICS`."""
        return {"aurc": self._aurc, "excess_aurc": lambda weights: self._aurc(weights) - self._least(weights)}

    def points(self, weights: Floats) -> tuple[RiskPoint, ...]:
        """Return the risk of the fewest surest queries that cover 1/k, 2/k, …, 1 of all: k = min(`POINTS`, n)."""
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
        from scipy import special

        total = weights.sum(1)
        errors = weights @ self._all_wrong
        right = total - errors
        least: Floats = (errors - right * (special.digamma(total + 1) - special.digamma(right + 1))) / total
        return least


def _by_score(scores: Floats, answered: Bools) -> tuple[Ints, Ints]:
    """Places of the queries with and without a right answer, by rising score."""
    order = np.argsort(scores, kind="stable")
    return order[answered[order]], order[~answered[order]]


def _cumulated(weights: Floats, places: Ints) -> Floats:
    """(b, n) -> (b, k + 1) sums of the weights at the first 0, 1, …, k of the k places."""
    sums = np.zeros((len(weights), len(places) + 1))
    np.cumsum(weights.take(places, 1), axis=1, out=sums[:, 1:])
    return sums


# -- the metrics ---------------------------------------------------------------------------------


def _largest_share(observed: Observed) -> Floats:
    from scipy import special

    shares = np.empty(len(observed.logits))
    for part in row_blocks(observed.logits.shape, PAIRS):
        logits = observed.logits[part].astype(np.float64)
        if observed.weights is None:
            shares[part] = special.softmax(logits, axis=1).max(1)
        else:
            shares[part] = np.exp(logits.max(1) - special.logsumexp(logits, axis=1, b=observed.weights[part]))
    return shares


def _largest_logit(observed: Observed) -> Floats:
    largest: Floats = observed.logits.max(1).astype(np.float64)
    return largest


def _largest_presence(observed: Observed) -> Floats | None:
    return None if observed.presence is None else observed.presence.max(1)


def _familiarity(observed: Observed) -> Floats | None:
    return observed.familiarity


def _false_alarms(observed: Observed) -> Statistic | None:
    if observed.alarms is None or not observed.answered.any():
        return None
    return mean_statistic(np.where(observed.answered, observed.alarms, np.nan))


def _told_apart(
    name: str,
    title: str,
    meaning: str,
    better: Better,
    score: Callable[[Observed], Floats | None],
    measure: Callable[[Floats, Bools], Statistic],
    *,
    shown: bool = True,
    watched: bool = False,
) -> Metric:
    """A metric of a score that should separate queries with a right answer from those without; it needs both."""

    def compute(observed: Observed) -> Statistic | None:
        if not observed.answered.any() or observed.answered.all():
            return None
        scores = observed.shared(score)
        return None if scores is None else measure(scores, observed.answered)

    return Metric(name, title, meaning, NONE, better, compute, shown=shown, watched=watched)


def _any_statistics(observed: Observed) -> dict[str, Statistic]:
    if observed.any_right is None:
        return {}
    return any_metrics(np.clip(observed.any_right, 0.0, 1.0), observed.answered)


def _any(name: str, title: str, meaning: str, better: Better, *, shown: bool = True) -> Metric:
    def compute(observed: Observed) -> Statistic | None:
        return observed.shared(_any_statistics).get(name)

    return Metric(name, title, meaning, NONE, better, compute, shown=shown)


def risk_coverage(observed: Observed) -> RiskCoverage | None:
    """Measure answering with the best candidate, surest queries first; None without presences or right pairs."""
    if observed.presence is None or not observed.answered.any():
        return None
    rows = np.arange(len(observed.right))
    best = best_first(observed.logits, 1, observed.order_presence)[:, 0]
    return RiskCoverage(observed.presence[rows, best], ~observed.right[rows, best])


def _selection_statistics(observed: Observed) -> dict[str, Statistic]:
    selection = observed.shared(risk_coverage)
    return {} if selection is None else selection.metrics()


def _selection(name: str, title: str, meaning: str, *, shown: bool = True) -> Metric:
    def compute(observed: Observed) -> Statistic | None:
        return observed.shared(_selection_statistics).get(name)

    return Metric(name, title, meaning, SUREST, "lower", compute, shown=shown)


METRICS = (
    _told_apart(
        "none_auroc_share",
        "AUROC, largest share",
        "none-of-these by the largest share: AUROC",
        "higher",
        _largest_share,
        auroc_metric,
        watched=True,
    ),
    _told_apart(
        "none_auroc_logit",
        "AUROC, largest logit",
        "none-of-these by the largest logit: AUROC",
        "higher",
        _largest_logit,
        auroc_metric,
        watched=True,
    ),
    _told_apart(
        "none_auroc_presence",
        "AUROC, largest presence",
        "none-of-these by the largest presence: AUROC",
        "higher",
        _largest_presence,
        auroc_metric,
        shown=False,
    ),
    _told_apart(
        "fpr95_share",
        "FPR95, largest share",
        "unanswerable queries let through by the largest share with 95% of the others",
        "lower",
        _largest_share,
        fpr95_metric,
        shown=False,
    ),
    _told_apart(
        "fpr95_logit",
        "FPR95, largest logit",
        "unanswerable queries let through by the largest logit with 95% of the others",
        "lower",
        _largest_logit,
        fpr95_metric,
    ),
    _told_apart(
        "fpr95_presence",
        "FPR95, largest presence",
        "unanswerable queries let through by the largest presence with 95% of the others",
        "lower",
        _largest_presence,
        fpr95_metric,
        shown=False,
    ),
    _told_apart(
        "none_auroc_familiarity",
        "AUROC, familiarity",
        "none-of-these by how familiar a query is, beside those of training: AUROC",
        "higher",
        _familiarity,
        auroc_metric,
    ),
    _any("none_auroc_any", "AUROC, any right", "none-of-these by the probability that any is right: AUROC", "higher"),
    _any(
        "fpr95_any",
        "FPR95, any right",
        "unanswerable queries let through by the probability that any is right with 95% of the others",
        "lower",
    ),
    _any(
        "any_log_loss", "log loss, any right", "log loss of the probability that any is right, nats per query", "lower"
    ),
    _any(
        "any_brier",
        "Brier, any right",
        "squared error of the probability that any is right, per query",
        "lower",
        shown=False,
    ),
    _any(
        "any_calibration_error",
        "calibration error, any right",
        "mean gap between the probability that any is right and truth, equal-mass bins over queries",
        "lower",
        shown=False,
    ),
    Metric(
        "false_alarms",
        "false alarms",
        "queries with a right answer that are called unlike anything in training: at most 5% of queries like dev's",
        NONE,
        "lower",
        _false_alarms,
        shown=False,
    ),
    _selection(
        "aurc",
        "area under risk–coverage",
        "mean share of wrong best candidates when only the surest queries are answered",
    ),
    _selection(
        "excess_aurc",
        "above the best order's",
        "the same, less what the best order of the queries would leave",
        shown=False,
    ),
)
