"""A model's metrics on a split, and the calibration that some of them need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sigmax.arrays import Floats
from sigmax.calibration.calibrator import CALIBRATION_PAIRS, Calibrator, fit_calibrator
from sigmax.data.dataset import MatchDataset
from sigmax.metrics.abstention import (
    ANY,
    NONE_FPR95,
    NONE_SCORES,
    SELECTION,
    RiskCoverage,
    RiskPoint,
    any_metrics,
    auroc_metric,
    fpr95_metric,
)
from sigmax.metrics.histogram import LogitHistogram
from sigmax.metrics.intervals import DRAWS, Estimate, Statistic, bootstrap_weights, estimate, measure
from sigmax.metrics.presence import PRESENCE, PresenceTally, ReliabilityBin
from sigmax.metrics.ranking import RANKING, ranking_metrics, ranking_values
from sigmax.scan import Scorer, SplitLogits, scan

__all__ = [
    "CLOSER_TO_ONE",
    "LOWER_IS_BETTER",
    "METRICS",
    "WATCHED",
    "Evaluation",
    "calibrate",
    "calibrate_logits",
    "evaluate",
    "evaluate_logits",
    "goodness",
    "quick_metrics",
]

#: Every metric's name and what it is, in the order of tables.
METRICS: dict[str, str] = {
    "map": "mean average precision",
    "mrr": "mean reciprocal rank of the first right answer",
    "ndcg@10": "normalised discounted cumulative gain of the first 10",
    "precision@1": "share of queries whose best candidate is right",
    "precision@5": "share of right ones among the best 5",
    "recall@1": "share of a query's right answers found at the top",
    "recall@5": "share of a query's right answers among the best 5",
    "recall@10": "share of a query's right answers among the best 10",
    "recall@100": "share of a query's right answers among the best 100",
    "log_loss": "log loss of presences, nats a query, summed over candidates",
    "brier": "squared error of presences, a query, summed over candidates",
    "calibration_error": "mean gap between presence and truth, equal-mass bins over all pairs",
    "smooth_calibration_error": "mean gap between presence and truth, smoothed instead of binned",
    "calibration_slope": "slope of truth on the presences' logits: 1 is perfect, below 1 too sure, above too cautious",
    "expected_ratio": "right pairs expected, the sum of presences, over right pairs there are: 1 is perfect",
    "micro_f1": "F1 over all pairs, at the threshold chosen on dev",
    "macro_f1": "mean of the candidates' F1, at the threshold chosen on dev",
    "none_auroc_share": "none-of-these by the largest share: AUROC",
    "none_auroc_logit": "none-of-these by the largest logit: AUROC",
    "none_auroc_presence": "none-of-these by the largest presence: AUROC",
    "fpr95_share": "unanswerable queries let through by the largest share with 95% of the others",
    "fpr95_logit": "unanswerable queries let through by the largest logit with 95% of the others",
    "fpr95_presence": "unanswerable queries let through by the largest presence with 95% of the others",
    **ANY,
    "aurc": "mean share of wrong best candidates when only the surest queries are answered",
    "excess_aurc": "the same, less what the best order of the queries would leave",
}
LOWER_IS_BETTER = frozenset(
    {"log_loss", "brier", "calibration_error", "smooth_calibration_error", *NONE_FPR95.values(), *SELECTION}
    | {name for name in ANY if name != "none_auroc_any"}
)
#: Metrics that are perfect at 1 and worse on either side.
CLOSER_TO_ONE = frozenset({"calibration_slope", "expected_ratio"})
assert list(METRICS) == [*RANKING, *PRESENCE, *NONE_SCORES.values(), *NONE_FPR95.values(), *ANY, *SELECTION]
assert not LOWER_IS_BETTER & CLOSER_TO_ONE
assert set(METRICS) > LOWER_IS_BETTER | CLOSER_TO_ONE

#: What `quick_metrics` can give: the metrics that training and search may watch.
WATCHED = (*RANKING, NONE_SCORES["share"], NONE_SCORES["logit"])


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics on a split, each with all its bootstrap draws, so that two evaluations can be compared in pairs."""

    data: str
    split: str
    queries: int
    unanswered: int  #: queries with no right answer
    draws: dict[str, Floats]  #: metric -> (1 + draws,), the first being the plain value
    reliability: tuple[ReliabilityBin, ...] = ()  #: bins in which equally many right pairs are expected
    risk_coverage: tuple[RiskPoint, ...] = ()  #: risk when only the surest queries are answered
    logits: LogitHistogram | None = None  #: of right pairs, wrong pairs and queries with no right answer

    def __getitem__(self, metric: str) -> Estimate:
        """Return a metric with its 95% interval."""
        return estimate(self.draws[metric])

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the draws, for JSON."""
        return {
            "data": self.data,
            "split": self.split,
            "queries": self.queries,
            "unanswered": self.unanswered,
            "metrics": {name: self[name].as_dict() for name in self.draws},
            "reliability": [one.as_dict() for one in self.reliability],
            "risk_coverage": [point.as_dict() for point in self.risk_coverage],
            "logits": None if self.logits is None else self.logits.as_dict(),
        }


def goodness(metric: str, value: float) -> float:
    """Return a number that is higher the better the metric's value is."""
    if metric in CLOSER_TO_ONE:
        return -abs(value - 1)
    return -value if metric in LOWER_IS_BETTER else value


def calibrate(
    model: Scorer, data: MatchDataset, *, split: str = "dev", method: str = "auto", seed: int = 0
) -> Calibrator:
    """Fit presence and P(any) over all candidates and record what rules need; the model keeps the result.

    Args:
        model: a DualEncoder, or anything else that gives logits.
        data: the data set; its candidates are the ones that will be offered.
        split: which queries; the model must not have been trained on them.
        method: a name in `sigmax.calibration.CALIBRATIONS`, or "auto": chosen by cross-validated log loss.
        seed: of folds and samples.

    Raises:
        DataError: a split without a right or without a wrong pair, or one that cannot carry the method.
    """
    model.calibrator = calibrate_logits(scan(model, data, split), method=method, seed=seed)
    return model.calibrator


def calibrate_logits(split: SplitLogits, *, method: str = "auto", seed: int = 0) -> Calibrator:
    """Fit a calibrator to the logits of a split; see `calibrate`."""
    return fit_calibrator(
        split.logits,
        split.right,
        split.candidate_ids,
        none=split.none,
        method=method,
        about={"data": split.data, "split": split.split},
        seed=seed,
    )


def evaluate(model: Scorer, data: MatchDataset, *, split: str = "test", draws: int = DRAWS) -> Evaluation:
    """Measure ranking, presence and none-of-these over all candidates, with 95% intervals over queries.

    Metrics that the data or the model cannot give (none-of-these without a query that has no right answer, presence
    of a model that was not calibrated) are left out.

    Args:
        model: a DualEncoder, or anything else that gives logits.
        data: the data set; its candidates are the ones offered.
        split: which queries.
        draws: bootstrap draws; 0 for plain values.
    """
    return evaluate_logits(scan(model, data, split), calibrator=model.calibrator, draws=draws)


def evaluate_logits(split: SplitLogits, *, calibrator: Calibrator | None = None, draws: int = DRAWS) -> Evaluation:
    """Measure logits as `evaluate` does.

    Args:
        split: logits and truth.
        calibrator: for metrics of presence and P(any); None leaves them out.
        draws: bootstrap draws; 0 for plain values.
    """
    logits, right = split.logits, split.right
    presence = anything = None
    if calibrator is not None:
        presence, anything = calibrator.read(logits, split.candidate_ids, split.none)
    metrics = _ranking_and_none(logits, right, presence)
    tally = selection = None
    if calibrator is not None and presence is not None and anything is not None:
        tally = _tally(presence, right, calibrator.default_threshold)
        metrics.update(tally.metrics())
        metrics.update(any_metrics(np.clip(anything, 0.0, 1.0), np.asarray(right.any(1))))
        if right.any():
            selection = _selection(logits, presence, right)
            metrics.update(selection.metrics())
    weights = bootstrap_weights(len(right), draws=draws)
    return Evaluation(
        split.data,
        split.split,
        len(right),
        int((~right.any(1)).sum()),
        measure({name: metrics[name] for name in METRICS if name in metrics}, weights),
        reliability=() if tally is None else tally.reliability(weights),
        risk_coverage=() if selection is None else selection.points(weights),
        logits=LogitHistogram.of(logits, right),
    )


def quick_metrics(model: Scorer, data: MatchDataset, *, split: str = "dev") -> dict[str, float]:
    """Ranking and none-of-these metrics without intervals: what training watches on dev."""
    scanned = scan(model, data, split)
    metrics = _ranking_and_none(scanned.logits, scanned.right, None)
    one = np.ones((1, len(scanned.right)))
    return {name: float(metric(one)[0]) for name, metric in metrics.items() if name in WATCHED}


def _tally(presence: Floats, right: NDArray[np.bool_], threshold: float) -> PresenceTally:
    """What presences add up to."""
    sample = slice(None, None, max(1, presence.size // CALIBRATION_PAIRS))
    tally = PresenceTally.like(presence.ravel()[sample], right.ravel()[sample], threshold)
    for start in range(0, len(presence), 256):
        part = slice(start, start + 256)
        tally.add(presence[part], right[part])
    return tally


def _selection(logits: NDArray[np.float32], presence: Floats, right: NDArray[np.bool_]) -> RiskCoverage:
    """Answering the best candidate, the surest queries first."""
    best = logits.argmax(1)
    rows = np.arange(len(right))
    return RiskCoverage(presence[rows, best], ~right[rows, best])


def _ranking_and_none(
    logits: NDArray[np.float32], right: NDArray[np.bool_], presence: Floats | None
) -> dict[str, Statistic]:
    metrics: dict[str, Statistic] = {}
    answered: NDArray[np.bool_] = np.asarray(right.any(1))
    if answered.any():
        metrics.update(ranking_metrics(ranking_values(logits, right)))
    if answered.any() and not answered.all():
        best = logits.max(1).astype(np.float64)
        scores = {"logit": best, "share": special.softmax(logits.astype(np.float64), axis=1).max(1)}
        if presence is not None:
            scores["presence"] = presence.max(1)
        for name, score in scores.items():
            metrics[NONE_SCORES[name]] = auroc_metric(score, answered)
            metrics[NONE_FPR95[name]] = fpr95_metric(score, answered)
    return metrics
