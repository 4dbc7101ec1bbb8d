"""None of these: how well a query's best score tells queries with a right answer from queries without."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sigmax.metrics.intervals import Figure, Floats

__all__ = ["NONE_SCORES", "auroc_figure"]

#: The natural scores of "something is right", and the figure that measures each.
NONE_SCORES = {
    "share": "none_auroc_share",
    "logit": "none_auroc_logit",
    "presence": "none_auroc_presence",
}


def auroc_figure(scores: Floats, answered: NDArray[np.bool_]) -> Figure:
    """Probability that a query with a right answer scores above one without; ties count half (Hanley & McNeil 1982).

    Args:
        scores: (n,) the best score of each query.
        answered: (n,) whether the query has a right answer.
    """
    _, group = np.unique(scores, return_inverse=True)
    order = np.argsort(group, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(group[order])), len(order) - 1)

    def figure(weights: Floats) -> Floats:
        values = np.empty(len(weights))
        for start in range(0, len(weights), 200):  # (200, n) at a time
            block = weights[start : start + 200, order]
            have, lack = block * answered[order], block * ~answered[order]
            have_below = np.diff(have.cumsum(1)[:, ends], prepend=0, axis=1)
            lack_upto = lack.cumsum(1)[:, ends]
            lack_here = np.diff(lack_upto, prepend=0, axis=1)
            above = (have_below * (lack_upto - lack_here / 2)).sum(1)
            with np.errstate(invalid="ignore"):
                values[start : start + 200] = above / (have.sum(1) * lack.sum(1))
        return values

    return figure
