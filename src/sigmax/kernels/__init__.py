"""Reductions of the logits: A of every row (and column), and the logits of the right pairs.

`reduce_logits` is the one entry. What it computes is `dense.reduce_logits`, in a few readable lines; `tiled`
gives the same numbers and gradients without ever holding the n × m matrix.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sigmax.errors import lookup
from sigmax.families import Objective
from sigmax.kernels import dense, tiled
from sigmax.kernels.dense import Reduction
from sigmax.positives import Positives

__all__ = ["KERNELS", "Reduction", "reduce_logits"]

KERNELS: dict[str, Callable[..., Reduction]] = {"dense": dense.reduce_logits, "tiled": tiled.reduce_logits}

#: Up to this many pairs the whole matrix fits the caches and one product beats many small ones.
DENSE_PAIRS = 512 * 512


def reduce_logits(
    queries: Tensor,
    candidates: Tensor,
    positives: Positives,
    objective: Objective,
    *,
    logit_scale: Tensor,
    logit_bias: Tensor | None = None,
    candidate_shift: Tensor | None = None,
    columns: bool = False,
    kernel: str = "auto",
) -> Reduction:
    """A of each query over its candidates, likewise of each candidate if `columns`, and the right pairs' logits.

    s = logit_scale · queries @ candidates.T + logit_bias + candidate_shift

    Args:
        queries: (n, d) vectors.
        candidates: (m, d) vectors.
        positives: right and ignored pairs, of shape (n, m).
        objective: says what A is and over which pairs it runs.
        logit_scale: () tensor.
        logit_bias: () tensor, or None for 0.
        candidate_shift: (m,) added to each candidate's logits, without gradient.
        columns: also reduce each column over the queries.
        kernel: "dense", "tiled", or "auto": dense while the matrix is small.

    Returns:
        rows (n,), columns (m,) or None, pairs (k,) in the order of `positives`; float32, or float64 if the
        vectors are. Differentiable once with respect to queries, candidates, logit_scale and logit_bias.
    """
    if kernel == "auto":
        kernel = "dense" if len(queries) * len(candidates) <= DENSE_PAIRS else "tiled"
    return lookup(KERNELS, kernel, "kernel")(
        queries, candidates, positives, objective, logit_scale, logit_bias, candidate_shift, columns
    )
