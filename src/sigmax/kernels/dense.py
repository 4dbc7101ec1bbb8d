"""The readable kernel: one (n, m) matrix of logits. The definition of what every engine computes."""

from __future__ import annotations

from torch import Tensor

from sigmax.families import Objective, excluded_logits
from sigmax.kernels.problem import Inputs, Problem, Reduction, working_dtype

__all__ = ["reduce", "reduce_given_logits"]


def reduce(inputs: Inputs, problem: Problem) -> Reduction:
    """See `sigmax.kernels.reduce_logits`."""
    logits = (inputs.queries @ inputs.candidates.T).to(working_dtype(inputs.queries)) * inputs.scale
    if inputs.bias is not None:
        logits = logits + inputs.bias
    if problem.shift is not None:
        logits = logits + problem.shift
    return reduce_given_logits(logits, problem)


def reduce_given_logits(logits: Tensor, problem: Problem) -> Reduction:
    """Reduce an (n, m) matrix of logits that is already there."""
    positives, objective = problem.positives, problem.objective
    reduce = objective.partition.reduce
    compared = excluded_logits(objective, logits, positives)
    return Reduction(
        reduce(compared, 1) if logits.shape[1] else _empty(logits, logits.shape[0], objective),
        None
        if not problem.columns
        else (reduce(compared, 0) if logits.shape[0] else _empty(logits, logits.shape[1], objective)),
        logits[positives.rows, positives.columns],
    )


def _empty(logits: Tensor, size: int, objective: Objective) -> Tensor:
    return logits.new_full((size,), objective.partition.empty)
