"""Which score: each column alone, reciprocal-rank fusion, or a weighted presence of all, on queries of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigmax.calibration.any_right import folds_of
from sigmax.errors import DataError
from sigmax.evaluation import Evaluation
from sigmax.metrics.intervals import DRAWS, Difference, difference
from sigmax.metrics.registry import METRICS
from sigmax.scores.combine import direction, fuse_ranks
from sigmax.scores.model import ScoreModel, calibrate_scores
from sigmax.scores.table import Scores, judged

__all__ = ["FUSED", "WEIGHTED", "ScoreComparison", "compare_scores"]

#: The contenders beside the columns.
FUSED, WEIGHTED = "rank fusion", "weighted"
#: Metrics that a comparison shows, if the data give them.
SHOWN = (
    *("map", "ndcg@10", "precision@1", "recall@10", "log_loss", "calibration_slope", "micro_f1"),
    *("none_auroc_any", "any_log_loss"),
)


@dataclass(frozen=True, eq=False)
class ScoreComparison:
    """Evaluations of each contender on the same queries, with the same bootstrap draws."""

    data: str
    queries: dict[str, int]  #: "dev" and "test"
    evaluations: dict[str, Evaluation]
    models: dict[str, ScoreModel]
    notes: tuple[str, ...]

    def difference(self, metric: str, other: str, one: str = WEIGHTED) -> Difference:
        """Return the paired difference of a metric between two contenders."""
        return difference(self.evaluations[one].draws[metric], self.evaluations[other].draws[metric])

    def best(self, metric: str) -> str:
        """Return the contender that is best by a metric."""
        good = METRICS[metric].goodness
        return max(self.evaluations, key=lambda name: good(self.evaluations[name][metric].value))

    def verdict(self) -> list[str]:
        """Say which is best for ranking, for presence and for *none of these*, and over which others that is sure."""
        said = []
        for question, metric in (
            ("ranking", "map"),
            ("presence", "log_loss"),
            ("none of these", "any_log_loss"),
        ):
            if any(metric not in one.draws for one in self.evaluations.values()):
                continue
            best = self.best(metric)
            others = [name for name in self.evaluations if name != best]
            sure = [name for name in others if self.difference(metric, name, best).significant]
            if len(sure) == len(others):
                what = "better than every other"
            elif sure:
                what = f"surely better than {', '.join(sure)} only"
            else:
                what = "not surely better than any other"
            said.append(f"For {question} ({METRICS[metric].title}): {best}, {what}.")
        return said

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "data": self.data,
            "queries": self.queries,
            "contenders": {name: one.as_dict()["metrics"] for name, one in self.evaluations.items()},
            "verdict": self.verdict(),
            "notes": list(self.notes),
        }


def compare_scores(
    scores: Scores,
    *,
    method: str = "auto",
    lower_is_better: Sequence[str] | None = None,
    test: Scores | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> ScoreComparison:
    """Calibrate each column, their rank fusion and their weighted sum on half of the queries, and measure on the rest.

    All rate the same rows: a column alone gives those that it did not return one presence, fitted too.

    Args:
        scores: judged.
        method: of calibration.
        lower_is_better: columns that are distances; None: found out.
        test: judged scores of other queries; None: half of `scores`.
        seed: of the halves.
        draws: of the bootstrap.

    Raises:
        DataError: too few queries, no right or no wrong pair.
    """
    known = judged(scores)
    if test is None:
        if len(known.queries) < 4:
            raise DataError(f"{scores.name}: expected at least 4 queries to compare on, got {len(known.queries)}.")
        half = folds_of(len(known.queries), 2, seed) == 0
        dev, test = known.take(half), known.take(~half)
    else:
        dev, test = known, judged(test)
    lower = lower_is_better
    if lower is None:
        lower = [name for name in known.columns if direction(dev, name)[0]]
    pairs = {name: (dev.only(name), test.only(name)) for name in known.columns}
    if len(known.columns) > 1:
        pairs[FUSED] = (_fused(dev, lower), _fused(test, lower))
        pairs[WEIGHTED] = (dev, test)
    models, evaluations = {}, {}
    for name, (of_dev, of_test) in pairs.items():
        turned = [column for column in of_dev.columns if column in lower]
        models[name] = calibrate_scores(of_dev, method=method, lower_is_better=turned, seed=seed)
        evaluations[name] = models[name].evaluate(of_test, draws=draws)
    notes = tuple(f"{name!r}: lower is better" for name in lower)
    counts = {"dev": len(dev.queries), "test": len(test.queries)}
    return ScoreComparison(scores.name, counts, evaluations, models, (*known.notes, *notes))


def _fused(scores: Scores, lower: Sequence[str]) -> Scores:
    fused = fuse_ranks(scores, lower)
    return scores.with_column("fused", np.where(fused > 0, fused, np.nan)).only("fused")
