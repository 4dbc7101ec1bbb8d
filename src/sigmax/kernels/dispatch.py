"""Reductions of the logits, and the losses made of them, at the speed of the matrix products.

`reduce_logits` gives A of every row (and column) and the logits of the right pairs; `weighted_loss` the sum that a
training step wants. What they compute is `dense`, in a few readable lines; the engines give the same numbers and
gradients without ever holding the n × m matrix.
"""

from __future__ import annotations

import functools
import logging

from torch import Tensor

from sigmax.errors import lookup
from sigmax.families import directed_loss
from sigmax.kernels import autograd, dense, sharded
from sigmax.kernels.engine import Engine
from sigmax.kernels.fused import Fused
from sigmax.kernels.problem import Inputs, Problem, Reduction
from sigmax.kernels.tiled import Tiled
from sigmax.kernels.triton import Triton
from sigmax.positives import Positives

__all__ = ["ENGINES", "check_kernel", "reduce_logits", "reduce_over_ranks", "weighted_loss"]

log = logging.getLogger(__name__)

#: In order of preference: "auto" takes the first that was made for the device and can. The last one always can.
ENGINES: list[Engine] = [Triton(), Fused(), Tiled()]

#: Up to this many pairs the whole matrix fits the caches and one product beats many small ones.
DENSE_PAIRS = 512 * 512


def check_kernel(kernel: str) -> str:
    """Return `kernel` if it is "auto", "dense", or the name of an engine.

    Raises:
        ValueError: it is none of them.
    """
    return lookup({name: name for name in ("auto", "dense", *(engine.name for engine in ENGINES))}, kernel, "kernel")


def reduce_logits(inputs: Inputs, problem: Problem, kernel: str = "auto") -> Reduction:
    """A of each query over its candidates, likewise of each candidate if `columns`, and the right pairs' logits.

    s = scale · queries @ candidates.T + bias + shift

    Args:
        inputs: vectors (n, d) and (m, d), scale and bias.
        problem: right and ignored pairs of shape (n, m); what A is, and over which pairs and directions it runs.
        kernel: "dense", the name of an engine, or "auto": dense while the matrix is small, else the first of `ENGINES`
            that was made for the device and can.

    Returns:
        rows (n,), columns (m,) or None, pairs (k,) in the order of the problem's positives; float32, or float64 if the
        vectors are. Differentiable once with respect to the inputs.

    Raises:
        ValueError: a kernel that is unknown or cannot run here.
    """
    engine, inputs = _chosen(kernel, inputs, problem)
    return _reduced(engine, inputs, problem)


def weighted_loss(inputs: Inputs, problem: Problem, weights: Tensor, kernel: str = "auto") -> Tensor:
    """Σᵢ wᵢ Lᵢ over the queries, where the weights are known beforehand: one pass, three products.

    Args:
        inputs: see `reduce_logits`.
        problem: see `reduce_logits`; one direction.
        weights: (n,) constants.
        kernel: see `reduce_logits`.

    Returns:
        () float32, or float64 if the vectors are. Differentiable once.

    Raises:
        ValueError: a kernel that is unknown or cannot run here.
    """
    engine, inputs = _chosen(kernel, inputs, problem)
    if engine is not None:
        value = autograd.weighted_loss(engine, inputs, problem, weights)
        if value is not None:
            return value
    rows, _, pairs = _reduced(engine, inputs, problem)
    positives = problem.positives
    losses, _ = directed_loss(problem.objective, rows, pairs, positives.rows, positives.counts)
    return (losses * weights).sum()


def reduce_over_ranks(
    inputs: Inputs, problem: Problem, sizes: sharded.RankSizes, kernel: str = "auto"
) -> tuple[Reduction, Positives]:
    """`reduce_logits` over the queries and candidates of all processes, see `sharded`.

    Args:
        inputs: (n_r, d) queries and (m_r, d) candidates of this rank; scale and bias are the same on all ranks.
        problem: positives of shape (n_r, M), this rank's queries against the candidates of all ranks, in the order of
            ranks; shift (m_r,) of this rank's candidates.
        sizes: what `sharded.agree` returned.
        kernel: see `reduce_logits`; for one shard, which "dense" is not.

    Returns:
        The reduction over all N queries, M candidates and K right pairs, the same on every rank, and the graph of
        those pairs. A rank's gradients are W times its part, which DistributedDataParallel averages.
    """
    engine, inputs = _chosen(kernel, inputs, problem)
    return sharded.reduce(engine or Tiled(), autograd.as_autocast(inputs), problem, sizes)


def _reduced(engine: Engine | None, inputs: Inputs, problem: Problem) -> Reduction:
    return dense.reduce(inputs, problem) if engine is None else autograd.reduce(engine, inputs, problem)


# -- which engine --------------------------------------------------------------------------------


def _chosen(kernel: str, inputs: Inputs, problem: Problem) -> tuple[Engine | None, Inputs]:
    """The engine, and the inputs as it is given them; None for the whole matrix."""
    check_kernel(kernel)
    small = len(inputs.queries) * len(inputs.candidates) <= DENSE_PAIRS
    if kernel == "dense" or (kernel == "auto" and small):
        return None, inputs
    inputs = autograd.as_autocast(inputs)
    reasons: dict[str, str] = {}
    named = [engine for engine in ENGINES if engine.name == kernel]
    made_for_it = [engine for engine in ENGINES if engine.device in (None, inputs.device.type)]
    for engine in named or made_for_it:
        reason = engine.missing(inputs, problem)
        if reason is None:
            for name, why in reasons.items():
                _tell(f"The kernel {engine.name!r} is used instead of {name!r}, which is faster: {why}.")
            return engine, inputs
        reasons[engine.name] = reason
    raise ValueError(_refusal(kernel, inputs, problem))


def _refusal(kernel: str, inputs: Inputs, problem: Problem) -> str:
    """Every engine with what keeps it from running here."""
    lines = [f"  {engine.name}: {engine.missing(inputs, problem) or 'can run here'}" for engine in ENGINES]
    return "\n".join(
        [f"Expected `kernel` to be one that can run here, got {kernel!r}. Try 'auto', 'dense', or of these:", *lines]
    )


@functools.cache  # once per reason
def _tell(message: str) -> None:
    log.info(message)
