"""The readable kernel: one (n, m) matrix of logits. The definition of what every other kernel computes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sigmax.families import Objective, excluded_logits
from sigmax.positives import Positives

__all__ = ["Reduction", "reduce_given_logits", "reduce_logits", "working_dtype"]


class Reduction(NamedTuple):
    """What a loss needs to know of the logits."""

    rows: Tensor  #: (n,) A of each query over the candidates it is compared with
    columns: Tensor | None  #: (m,) A of each candidate over the queries it is compared with, if asked for
    pairs: Tensor  #: (k,) logits of the right pairs


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where an input is, else float32: half-precision products are summed and exponentiated in float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def reduce_logits(
    queries: Tensor,
    candidates: Tensor,
    positives: Positives,
    objective: Objective,
    logit_scale: Tensor,
    logit_bias: Tensor | None,
    candidate_shift: Tensor | None,
    columns: bool,
) -> Reduction:
    """See `sigmax.kernels.reduce_logits`."""
    logits = (queries @ candidates.T).to(working_dtype(queries)) * logit_scale
    if logit_bias is not None:
        logits = logits + logit_bias
    if candidate_shift is not None:
        logits = logits + candidate_shift
    return reduce_given_logits(logits, positives, objective, columns)


def reduce_given_logits(logits: Tensor, positives: Positives, objective: Objective, columns: bool) -> Reduction:
    """Reduce an (n, m) matrix of logits that is already there."""
    reduce = objective.partition.reduce
    compared = excluded_logits(objective, logits, positives)
    return Reduction(
        reduce(compared, 1) if logits.shape[1] else _empty(logits, logits.shape[0], objective),
        None
        if not columns
        else (reduce(compared, 0) if logits.shape[0] else _empty(logits, logits.shape[1], objective)),
        logits[positives.rows, positives.columns],
    )


def _empty(logits: Tensor, size: int, objective: Objective) -> Tensor:
    return logits.new_full((size,), objective.partition.empty)
