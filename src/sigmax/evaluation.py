"""Metrics of a model on a split, and the calibration that some of them need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints
from sigmax.calibration.calibrator import Calibrator, fit_calibrator
from sigmax.calibration.familiar import FALSE_ALARMS
from sigmax.data.alike import groups_of
from sigmax.data.dataset import MatchDataset
from sigmax.errors import lookup
from sigmax.metrics.abstention import RiskPoint, risk_coverage
from sigmax.metrics.histogram import LogitHistogram
from sigmax.metrics.intervals import DRAWS, Estimate, Statistic, bootstrap_weights, estimate, measure
from sigmax.metrics.metric import Metric, Observed
from sigmax.metrics.presence import ReliabilityBin, presence_tally
from sigmax.metrics.ranking import ORDERS
from sigmax.metrics.registry import METRICS, watched
from sigmax.scan import Scorer, SplitLogits, scan

__all__ = [
    "Evaluation",
    "calibrate",
    "calibrate_logits",
    "evaluate",
    "evaluate_logits",
    "evaluate_observed",
    "quick_metrics",
]


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
    order: str = "logit"  #: what ranking metrics and risk order candidates by: "presence" or "logit"
    competition: float | None = None  #: how much it counts in presences, see `Calibrator.competition`
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
            "order": self.order,
            "competition": self.competition,
            "metrics": {name: self[name].as_dict() for name in self.draws},
            "reliability": [one.as_dict() for one in self.reliability],
            "risk_coverage": [point.as_dict() for point in self.risk_coverage],
            "logits": None if self.logits is None else self.logits.as_dict(),
        }


def calibrate(
    model: Scorer,
    data: MatchDataset,
    *,
    split: str = "dev",
    method: str = "auto",
    held_out: float = 0.0,
    seed: int = 0,
) -> Calibrator:
    """Fit presence and P(any) over all candidates and record what rules need; the model keeps the result.

    Args:
        model: a DualEncoder, or anything else that gives logits.
        data: the data set; its candidates are the ones that will be offered.
        split: which queries; the model must not have been trained on them.
        method: a name in `sigmax.calibration.CALIBRATIONS`, or "auto": chosen by cross-validated log loss.
        held_out: part of the queries, from 0 to below 1, that nothing is fitted on and rules are decided by; 0: all
            queries serve both, see `fit_calibrator`.
        seed: of folds and samples.

    Raises:
        DataError: a split without a right or without a wrong pair, or one that cannot carry the method.
        ValueError: a part to hold out that is not in [0, 1).
    """
    found = scan(model, data, split)
    groups = groups_of(data, split)
    model.calibrator = calibrate_logits(found, method=method, held_out=held_out, groups=groups, seed=seed)
    return model.calibrator


def calibrate_logits(
    split: SplitLogits, *, method: str = "auto", held_out: float = 0.0, groups: Ints | None = None, seed: int = 0
) -> Calibrator:
    """Fit a calibrator to the logits of a split; see `calibrate`."""
    return fit_calibrator(
        split.logits,
        split.right,
        split.candidate_ids,
        none=split.none,
        weights=split.weights,
        novelty=split.novelty,
        groups=groups,
        method=method,
        held_out=held_out,
        about={"data": split.data, "split": split.split},
        seed=seed,
    )


def evaluate(
    model: Scorer, data: MatchDataset, *, split: str = "test", order: str = "presence", draws: int = DRAWS
) -> Evaluation:
    """Measure ranking, presence and none-of-these over all candidates, with 95% intervals over queries.

    Metrics that the data or the model cannot give (none-of-these without a query that has no right answer, presence
    of a model that was not calibrated) are left out.

    Args:
        model: a DualEncoder, or anything else that gives logits.
        data: the data set; its candidates are the ones offered.
        split: which queries.
        order: what candidates are ordered by, as `match` does; a name in `sigmax.metrics.ranking.ORDERS`.
        draws: bootstrap draws; 0 for plain values.

    Raises:
        UnknownNameError: no such split, or no such order.
    """
    return evaluate_logits(scan(model, data, split), calibrator=model.calibrator, order=order, draws=draws)


def evaluate_logits(
    split: SplitLogits, *, calibrator: Calibrator | None = None, order: str = "presence", draws: int = DRAWS
) -> Evaluation:
    """Measure logits as `evaluate` does.

    Args:
        split: logits and truth.
        calibrator: for metrics of presence and P(any); None leaves them out.
        order: as for `evaluate`.
        draws: bootstrap draws; 0 for plain values.

    Raises:
        UnknownNameError: no such order.
    """
    lookup(ORDERS, order, "order")
    logits, right = split.logits, split.right
    observed = Observed(logits, right, weights=split.weights, columns=split.columns, ranks=split.ranks)
    if calibrator is not None:
        presence, any_right = calibrator.read(logits, split.candidate_ids, split.none, split.weights, split.novelty)
        familiar = calibrator.familiarity(presence, split.novelty, split.weights)
        threshold = calibrator.default_threshold
        observed = replace(observed, presence=presence, any_right=any_right, threshold=threshold, order=order)
        if familiar is not None:
            observed = replace(observed, familiarity=familiar[0], alarms=familiar[1] <= FALSE_ALARMS)
    competition = None if calibrator is None else calibrator.competition
    return evaluate_observed(observed, data=split.data, split=split.split, competition=competition, draws=draws)


def evaluate_observed(
    observed: Observed, *, data: str, split: str, competition: float | None = None, draws: int = DRAWS
) -> Evaluation:
    """Measure what was observed, as `evaluate` does.

    Args:
        observed: logits, presences and truth.
        data: name of the data.
        split: its part.
        competition: of the calibrator, for people.
        draws: bootstrap draws; 0 for plain values.
    """
    weights = bootstrap_weights(len(observed.right), draws=draws)
    tally, selection = observed.shared(presence_tally), observed.shared(risk_coverage)
    return Evaluation(
        data,
        split,
        len(observed.right),
        int((~observed.answered).sum()),
        measure(_statistics(METRICS, observed), weights),
        reliability=() if tally is None else tally.reliability(weights),
        risk_coverage=() if selection is None else selection.points(weights),
        order="logit" if observed.order_presence is None else observed.order,
        competition=competition,
        logits=LogitHistogram.of(observed.logits, observed.right, observed.weights),
    )


def quick_metrics(model: Scorer, data: MatchDataset, *, split: str = "dev") -> dict[str, float]:
    """Measure what training watches on dev: the metrics of logits alone, without intervals."""
    scanned = scan(model, data, split)
    observed = Observed(
        scanned.logits, scanned.right, weights=scanned.weights, columns=scanned.columns, ranks=scanned.ranks
    )
    values = measure(_statistics(watched(), observed), np.ones((1, len(scanned.right))))
    return {name: float(value[0]) for name, value in values.items()}


def quick_metric(name: str, logits: NDArray[np.float32], right: Bools) -> float:
    """Measure one of the metrics that training watches; NaN where the data cannot give it.

    Args:
        name: of the metric.
        logits: (n, m).
        right: (n, m) which pairs are right.
    """
    statistic = watched()[name].compute(Observed(logits, right))
    return math.nan if statistic is None else float(measure({name: statistic}, np.ones((1, len(right))))[name][0])


def _statistics(metrics: Mapping[str, Metric], observed: Observed) -> dict[str, Statistic]:
    """Those of the metrics that the data and the model can give."""
    found = {name: metric.compute(observed) for name, metric in metrics.items()}
    return {name: statistic for name, statistic in found.items() if statistic is not None}
