"""Reductions of the logits, and the losses made of them, at the speed of the matrix products."""

from sigmax.kernels.dense import reduce_given_logits
from sigmax.kernels.dispatch import ENGINES, check_kernel, reduce_logits, reduce_over_ranks, weighted_loss
from sigmax.kernels.engine import Engine
from sigmax.kernels.problem import Gradients, Inputs, Problem, Reduction, Wants, working_dtype

__all__ = [
    "ENGINES",
    "Engine",
    "Gradients",
    "Inputs",
    "Problem",
    "Reduction",
    "Wants",
    "check_kernel",
    "reduce_given_logits",
    "reduce_logits",
    "reduce_over_ranks",
    "weighted_loss",
    "working_dtype",
]
