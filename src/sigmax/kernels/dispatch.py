"""Reductions of the logits, and the losses made of them, at the speed of the matrix products.

`reduce_logits` gives A of every row (and column) and the logits of the right pairs; `weighted_loss` the sum that a
training step wants. What they compute is `dense`, in a few readable lines; the engines give the same numbers and
gradients without ever holding the n × m matrix.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sigmax.errors import lookup
from sigmax.families import Objective, directed_loss
from sigmax.kernels import autograd, dense, sharded, tiled
from sigmax.kernels.autograd import Engine
from sigmax.kernels.problem import Problem, Reduction
from sigmax.positives import Positives

__all__ = ["ENGINES", "KERNELS", "reduce_logits", "reduce_over_ranks", "weighted_loss"]


def _triton() -> ModuleType:
    """The Triton engine, imported when it is first wanted: `import sigmax` stays light."""
    from sigmax.kernels import triton

    return triton


def _in_triton(name: str) -> Callable[..., Any]:
    """A function of the Triton engine, by name."""
    return lambda *given: getattr(_triton(), name)(*given)


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("tiled", tiled.reduce, tiled.gradients, tiled.weighted_loss),
        Engine("triton", _in_triton("reduce"), _in_triton("gradients"), _in_triton("weighted_loss")),
    )
}


#: What `kernel` may be: a matrix that is there, or an engine.
KERNELS = ("dense", *ENGINES)


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
        kernel: a name in `KERNELS`, or "auto": dense while the matrix is small, else triton on a GPU that can, else
            tiled. float64 is always tiled where triton is asked for.

    Returns:
        rows (n,), columns (m,) or None, pairs (k,) in the order of `positives`; float32, or float64 if the
        vectors are. Differentiable once with respect to queries, candidates, logit_scale and logit_bias.
    """
    kernel = _chosen(kernel, queries, candidates)
    problem = Problem(positives, objective, candidate_shift, columns)
    if kernel == "dense":
        return dense.reduce(queries, candidates, logit_scale, logit_bias, problem)
    return autograd.reduce(ENGINES[kernel], queries, candidates, logit_scale, logit_bias, problem)


def weighted_loss(
    queries: Tensor,
    candidates: Tensor,
    positives: Positives,
    objective: Objective,
    weights: Tensor,
    *,
    logit_scale: Tensor,
    logit_bias: Tensor | None = None,
    candidate_shift: Tensor | None = None,
    kernel: str = "auto",
) -> Tensor:
    """Σᵢ wᵢ Lᵢ over the queries, where the weights are known beforehand: one pass, three products.

    Args:
        queries: (n, d) vectors.
        candidates: (m, d) vectors.
        positives: right and ignored pairs, of shape (n, m).
        objective: L.
        weights: (n,) constants.
        logit_scale: () tensor.
        logit_bias: () tensor, or None for 0.
        candidate_shift: (m,) added to each candidate's logits, without gradient.
        kernel: see `reduce_logits`.

    Returns:
        () float32, or float64 if the vectors are. Differentiable once.
    """
    kernel = _chosen(kernel, queries, candidates)
    if kernel != "dense":
        problem = Problem(positives, objective, candidate_shift)
        value = autograd.weighted_loss(ENGINES[kernel], queries, candidates, logit_scale, logit_bias, problem, weights)
        if value is not None:
            return value
    rows, _, pairs = reduce_logits(
        queries,
        candidates,
        positives,
        objective,
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        candidate_shift=candidate_shift,
        kernel=kernel,
    )
    losses, _ = directed_loss(objective, rows, pairs, positives.rows, positives.counts)
    return (losses * weights).sum()


def reduce_over_ranks(
    queries: Tensor,
    candidates: Tensor,
    positives: Positives,
    objective: Objective,
    share: sharded.Share,
    *,
    logit_scale: Tensor,
    logit_bias: Tensor | None = None,
    candidate_shift: Tensor | None = None,
    columns: bool = False,
    kernel: str = "auto",
) -> tuple[Reduction, Positives]:
    """`reduce_logits` over the queries and candidates of all processes, see `sharded`.

    Args:
        queries: (n_r, d) vectors of this rank.
        candidates: (m_r, d) vectors of this rank.
        positives: (n_r, M): this rank's queries against the candidates of all ranks, in the order of ranks.
        objective: says what A is and over which pairs it runs.
        share: what `sharded.agree` returned.
        logit_scale: () tensor, the same on all ranks.
        logit_bias: () tensor, or None for 0.
        candidate_shift: (m_r,) added to the logits of this rank's candidates, without gradient.
        columns: also reduce each column over the queries.
        kernel: the engine for one shard; "dense" is none.

    Returns:
        The reduction over all N queries, M candidates and K right pairs, the same on every rank, and the graph of
        those pairs. A rank's gradients are W times its part, which DistributedDataParallel averages.
    """
    kernel = _chosen(kernel, queries, candidates)
    engine = ENGINES["tiled" if kernel == "dense" else kernel]
    problem = Problem(positives, objective, candidate_shift, columns)
    return sharded.reduce(engine, queries, candidates, logit_scale, logit_bias, problem, share)


def _chosen(kernel: str, queries: Tensor, candidates: Tensor) -> str:
    if kernel == "auto":
        if len(queries) * len(candidates) <= DENSE_PAIRS:
            return "dense"
        if queries.device.type != "cuda" or queries.dtype == torch.float64:
            return "tiled"
        reason = _triton().missing(queries.device)
        if reason is not None:
            _tell(f"The kernel 'tiled' is used instead of 'triton', which is faster: {reason}.")
        return "triton" if reason is None else "tiled"
    kernel = lookup({name: name for name in KERNELS}, kernel, "kernel")
    if kernel == "triton":
        if queries.dtype == torch.float64:
            return "tiled"
        reason = _triton().missing(queries.device)
        if reason is not None:
            raise ValueError(
                f"Expected `kernel` to be one that runs here, got 'triton': {reason}. Try 'tiled' or 'auto'."
            )
    return kernel


@functools.cache  # once per reason
def _tell(message: str) -> None:
    logging.getLogger(__name__).warning(message)
