"""Ranking over all candidates: MAP, MRR, nDCG, precision@k, recall@k, by counting, equal to trec_eval's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints, row_blocks
from sigmax.metrics.intervals import Statistic, mean_statistic
from sigmax.metrics.metric import Metric, Observed, Ranks

__all__ = [
    "METRICS",
    "ORDERS",
    "RANKING",
    "best_first",
    "ranking_metrics",
    "ranking_values",
    "right_ranks",
    "values_of_ranks",
]

#: What candidates can be ordered by.
ORDERS = {
    "presence": "by presence, equal ones by logit; by logit where the model was not calibrated",
    "logit": "by logit alone",
}
#: The group of these metrics.
RANKING = "ranking"
#: A right answer ranked below this counts as not found, as usual in retrieval.
DEPTH = 1000
#: Right answers per query from which it is cheaper to sort its logits than to count for each one.
_SORTED_FROM = 16
#: Pairs that are ordered at a time.
PAIRS = 2**20


def best_first(logits: NDArray[Any], depth: int, presence: Floats | None = None) -> Ints:
    """Return (n, depth) places of the best candidates: by presence, equal ones by logit, then in the order offered.

    Args:
        logits: (n, m).
        depth: how many, at most m.
        presence: (n, m); None to order by logit alone, where the model was not calibrated.
    """
    if logits.size > PAIRS and len(logits) > 1:
        return np.concatenate(
            [
                best_first(logits[part], depth, None if presence is None else presence[part])
                for part in row_blocks(logits.shape, PAIRS)
            ]
        )
    order = _by_logit(logits, depth)
    if presence is None:
        return order
    # A curve that all candidates share never falls, so that the order by logit is one by presence as well.
    ordered = np.take_along_axis(presence, order, 1)
    agree = (np.diff(ordered, axis=1) <= 0).all(1)
    last = ordered[:, -1:]
    agree &= np.count_nonzero(presence > last, axis=1) == np.count_nonzero(ordered > last, axis=1)
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


def right_ranks(logits: NDArray[Any], right: Bools, presence: Floats | None = None) -> Ranks:
    """Rank the right answers of (n, m) logits in the order of `best_first`: one plus the candidates before."""
    rows, columns = np.nonzero(right)
    ranks = np.empty(len(rows), np.int64)
    ends = np.searchsorted(rows, np.arange(len(logits) + 1))
    for row in np.flatnonzero(np.diff(ends)):
        pairs = slice(ends[row], ends[row + 1])
        keys = (logits[row],) if presence is None else (presence[row], logits[row])
        if pairs.stop - pairs.start > _SORTED_FROM:
            place = np.empty(logits.shape[1], np.int64)
            place[np.lexsort([-key for key in reversed(keys)])] = np.arange(logits.shape[1])
            ranks[pairs] = 1 + place[columns[pairs]]
        else:
            ranks[pairs] = [1 + _before(keys, column) for column in columns[pairs]]
    return Ranks(rows, ranks, len(logits))


def _before(keys: Sequence[NDArray[Any]], column: int) -> int:
    """How many candidates come before one, by the first key, of equal ones by the next, then by their order."""
    key = keys[0]
    before, level = int(np.count_nonzero(key > key[column])), key == key[column]
    if len(keys) > 1:
        same = np.flatnonzero(level)
        return before + _before([other[same] for other in keys[1:]], int(np.searchsorted(same, column)))
    return before + int(np.count_nonzero(level[:column]))


def ranking_values(logits: NDArray[Any], right: Bools, presence: Floats | None = None) -> dict[str, Floats]:
    """Compute the metrics of each query; see `values_of_ranks`.

    Args:
        logits: (n, m).
        right: (n, m).
        presence: (n, m) to order by, see `best_first`.

    Returns:
        name -> (n,), NaN for a query with no right answer.
    """
    return values_of_ranks(right_ranks(logits, right, presence))


def values_of_ranks(found: Ranks) -> dict[str, Floats]:
    """Compute the metrics of each query, in the steps of trec_eval, so that they are equal to the last digit.

    With the R right answers of a query at the ranks r₁ < r₂ < …, of which those up to `DEPTH` count as found:

    - map: Σᵢ (i / rᵢ) / R; mrr: 1 / r₁;
    - precision@k: |{rᵢ ≤ k}| / k; recall@k: |{rᵢ ≤ k}| / R;
    - ndcg@10: Σ_{rᵢ ≤ 10} 1 / log₂(rᵢ + 1), divided by the same sum for the ranks 1, …, min(R, 10).

    Returns:
        name -> (n,), NaN for a query with no right answer.
    """
    n = found.n
    order = np.lexsort([found.ranks, found.queries])
    queries, ranks = found.queries[order], found.ranks[order]
    total = np.bincount(queries, minlength=n)
    before = np.cumsum(total) - total
    number = np.arange(len(queries)) - before[queries] + 1  # i of each rᵢ
    with np.errstate(invalid="ignore", divide="ignore"):

        def per_query(values: Floats, depth: int = 2**62) -> Floats:
            within = ranks <= min(depth, DEPTH)
            # Added in the order of the ranks, as trec_eval adds.
            return np.bincount(queries[within], values[within], n).astype(np.float64)

        ones = np.ones(len(ranks))
        first = np.where(number == 1, 1.0 / ranks, 0.0)
        discount = 1 / np.array([math.log2(rank + 1) for rank in range(1, 11)])
        gains = np.where(ranks <= 10, discount[np.minimum(ranks, 10) - 1], 0.0)
        ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(total, 10)]
        values: dict[str, Floats] = {
            "map": per_query(number / ranks) / total,
            "mrr": per_query(first),
            "ndcg@10": per_query(gains, 10) / ideal,
            **{f"precision@{k}": per_query(ones, k) / k for k in (1, 5)},
            **{f"recall@{k}": per_query(ones, k) / total for k in (1, 5, 10, 100)},
        }
    return {name: np.where(total > 0, value, np.nan) for name, value in values.items()}


def ranking_metrics(values: dict[str, Floats]) -> dict[str, Statistic]:
    """Return the mean of each metric over the queries with a right answer."""
    return {name: mean_statistic(per_query) for name, per_query in values.items()}


def _statistics(observed: Observed) -> dict[str, Statistic]:
    if not observed.answered.any():
        return {}
    # Ranks given are those by logit: a curve that all candidates share never falls, so they are those by presence.
    ranks = observed.ranks or right_ranks(observed.logits, observed.right, observed.order_presence)
    return ranking_metrics(values_of_ranks(ranks))


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
