"""Ranking over all candidates: MAP, MRR, nDCG, precision@k, recall@k, computed by trec_eval."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints
from sigmax.metrics.intervals import Statistic, mean_statistic
from sigmax.metrics.metric import Metric, Observed

__all__ = ["METRICS", "ORDERS", "RANKING", "best_first", "ranking_metrics", "ranking_values"]

#: What candidates can be ordered by.
ORDERS = {
    "presence": "by presence, equal ones by logit; by logit where the model was not calibrated",
    "logit": "by logit alone",
}
#: The group of these metrics.
RANKING = "ranking"
#: Our name of a metric -> trec_eval's.
_TREC_EVAL = {
    "map": "map",
    "mrr": "recip_rank",
    "ndcg@10": "ndcg_cut_10",
    "precision@1": "P_1",
    "precision@5": "P_5",
    "recall@1": "recall_1",
    "recall@5": "recall_5",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
}
#: A right answer ranked below this counts as not found, as usual in retrieval.
DEPTH = 1000


def best_first(logits: NDArray[Any], depth: int, presence: Floats | None = None) -> Ints:
    """Return (n, depth) places of the best candidates: by presence, equal ones by logit, then in the order offered.

    Args:
        logits: (n, m).
        depth: how many, at most m.
        presence: (n, m); None to order by logit alone, where the model was not calibrated.
    """
    order = _by_logit(logits, depth)
    if presence is None:
        return order
    # A curve that all candidates share never falls, so that the order by logit is one by presence as well.
    ordered = np.take_along_axis(presence, order, 1)
    agree = (np.diff(ordered, axis=1) <= 0).all(1)
    if depth < presence.shape[1]:
        below = presence.copy()
        np.put_along_axis(below, order, -np.inf, 1)
        agree &= ordered[:, -1] >= below.max(1)
    for row in np.flatnonzero(~agree):
        order[row] = np.lexsort((-logits[row], -presence[row]))[:depth]
    return order


def _by_logit(logits: NDArray[Any], depth: int) -> Ints:
    if depth == logits.shape[1]:
        return np.argsort(-logits, axis=1, kind="stable")
    # All above the depth-th logit, and of those equal to it the first: argpartition would take any.
    last = -np.partition(-logits, depth - 1, axis=1)[:, depth - 1 : depth]
    above, level = logits > last, logits == last
    kept = above | (level & (level.cumsum(1) <= depth - above.sum(1, keepdims=True)))
    top = kept.nonzero()[1].reshape(len(logits), depth)
    order = np.argsort(-np.take_along_axis(logits, top, 1), axis=1, kind="stable")
    return np.take_along_axis(top, order, 1)


def ranking_values(logits: NDArray[Any], right: Bools, presence: Floats | None = None) -> dict[str, Floats]:
    """Compute the metrics of each query.

    Args:
        logits: (n, m).
        right: (n, m).
        presence: (n, m) to order by, see `best_first`.

    Returns:
        name -> (n,), NaN for a query with no right answer.
    """
    n, m = logits.shape
    depth = min(DEPTH, m)
    order = best_first(logits, depth, presence)
    import pytrec_eval

    names = [str(j) for j in range(m)]
    ranks = [float(depth - place) for place in range(depth)]  # exact in trec_eval's float32, so no false ties
    answered = np.flatnonzero(right.any(1))
    truth = {str(i): {names[j]: 1 for j in np.flatnonzero(right[i])} for i in answered}
    run = {str(i): dict(zip([names[j] for j in order[i].tolist()], ranks, strict=True)) for i in answered}
    measured = pytrec_eval.RelevanceEvaluator(truth, set(_TREC_EVAL.values())).evaluate(run) if truth else {}
    values = {name: np.full(n, np.nan) for name in _TREC_EVAL}
    for i in answered:
        for name, theirs in _TREC_EVAL.items():
            values[name][i] = measured[str(i)][theirs]
    return values


def ranking_metrics(values: dict[str, Floats]) -> dict[str, Statistic]:
    """Return the mean of each metric over the queries with a right answer."""
    return {name: mean_statistic(per_query) for name, per_query in values.items()}


def _statistics(observed: Observed) -> dict[str, Statistic]:
    if not observed.answered.any():
        return {}
    return ranking_metrics(ranking_values(observed.logits, observed.right, observed.order_presence))


def _metric(name: str, title: str, meaning: str, *, shown: bool = True) -> Metric:
    def compute(observed: Observed) -> Statistic | None:
        return observed.shared(_statistics).get(name)

    return Metric(name, title, meaning, RANKING, "higher", compute, shown=shown, watched=True)


METRICS = (
    _metric("map", "MAP", "mean average precision"),
    _metric("mrr", "MRR", "mean reciprocal rank of the first right answer", shown=False),
    _metric("ndcg@10", "nDCG@10", "normalised discounted cumulative gain of the first 10"),
    _metric("precision@1", "precision@1", "share of queries whose best candidate is right"),
    _metric("precision@5", "precision@5", "share of the best 5 that are right", shown=False),
    _metric("recall@1", "recall@1", "share of the right answers ranked first", shown=False),
    _metric("recall@5", "recall@5", "share of the right answers among the best 5", shown=False),
    _metric("recall@10", "recall@10", "share of the right answers among the best 10"),
    _metric("recall@100", "recall@100", "share of the right answers among the best 100", shown=False),
)
