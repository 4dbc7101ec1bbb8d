"""Reductions of the logits, and the losses made of them, at the speed of the matrix products."""

from sigmax.kernels.dense import reduce_given_logits
from sigmax.kernels.dispatch import ENGINES, KERNELS, reduce_logits, reduce_over_ranks, weighted_loss
from sigmax.kernels.problem import Problem, Reduction, working_dtype

__all__ = [
    "ENGINES",
    "KERNELS",
    "Problem",
    "Reduction",
    "reduce_given_logits",
    "reduce_logits",
    "reduce_over_ranks",
    "weighted_loss",
    "working_dtype",
]
