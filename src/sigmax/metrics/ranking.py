"""Ranking over all candidates: MAP, MRR, nDCG, precision@k, recall@k, computed by trec_eval."""

from __future__ import annotations

import numpy as np
import pytrec_eval
from numpy.typing import NDArray

from sigmax.arrays import Floats
from sigmax.metrics.intervals import Statistic, mean_statistic

__all__ = ["RANKING", "ranking_metrics", "ranking_values"]

#: Our name of a metric -> trec_eval's.
RANKING = {
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


def ranking_values(logits: NDArray[np.float32], right: NDArray[np.bool_]) -> dict[str, Floats]:
    """Metrics of each query.

    Args:
        logits: (n, m); ties are broken by the candidates' order.
        right: (n, m).

    Returns:
        name -> (n,), NaN for a query with no right answer.
    """
    n, m = logits.shape
    depth = min(DEPTH, m)
    if depth < m:
        # All above the depth-th logit, and of those equal to it the first: argpartition would take any.
        last = -np.partition(-logits, depth - 1, axis=1)[:, depth - 1 : depth]
        above, level = logits > last, logits == last
        kept = above | (level & (level.cumsum(1) <= depth - above.sum(1, keepdims=True)))
        top = kept.nonzero()[1].reshape(n, depth)
        order = np.take_along_axis(top, np.argsort(-np.take_along_axis(logits, top, 1), axis=1, kind="stable"), 1)
    else:
        order = np.argsort(-logits, axis=1, kind="stable")
    names = [str(j) for j in range(m)]
    ranks = [float(depth - place) for place in range(depth)]  # exact in trec_eval's float32, so no false ties
    answered = np.flatnonzero(right.any(1))
    truth = {str(i): {names[j]: 1 for j in np.flatnonzero(right[i])} for i in answered}
    run = {str(i): dict(zip([names[j] for j in order[i].tolist()], ranks, strict=True)) for i in answered}
    measured = pytrec_eval.RelevanceEvaluator(truth, set(RANKING.values())).evaluate(run) if truth else {}
    values = {name: np.full(n, np.nan) for name in RANKING}
    for i in answered:
        for name, theirs in RANKING.items():
            values[name][i] = measured[str(i)][theirs]
    return values


def ranking_metrics(values: dict[str, Floats]) -> dict[str, Statistic]:
    """Mean of each metric over the queries with a right answer."""
    return {name: mean_statistic(per_query) for name, per_query in values.items()}
