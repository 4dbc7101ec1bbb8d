"""How an engine's numbers become part of PyTorch's graph: two passes in general, one where the weights are known.

Both are differentiable once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sigmax.kernels.engine import Engine
from sigmax.kernels.function import apply
from sigmax.kernels.problem import Gradients, Inputs, Problem, Reduction, Wants

__all__ = ["as_autocast", "reduce", "weighted_loss"]


def reduce(engine: Engine, inputs: Inputs, problem: Problem) -> Reduction:
    """`engine.reduce` with gradients: forward makes A and the right pairs' logits, backward runs `engine.gradients`."""
    rows, columns, pairs = apply(_TwoPasses, *inputs, engine, problem)
    return Reduction(rows, columns, pairs)


def weighted_loss(engine: Engine, inputs: Inputs, problem: Problem, weights: Tensor) -> Tensor | None:
    """Σᵢ wᵢ Lᵢ with gradients, computed together in forward; None where the engine has no such pass."""
    grad = torch.is_grad_enabled()
    wants = Wants(*(grad and x is not None and x.requires_grad for x in inputs))
    with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
        done = engine.weighted_loss(inputs, problem, weights, wants)
    if done is None:
        return None
    loss: Tensor = apply(_Given, *done, *inputs)
    return loss


def as_autocast(inputs: Inputs) -> Inputs:
    """Bring the vectors to the dtype that autocast asks for, if it is on; float64 stays."""
    kind = inputs.device.type
    if not torch.is_autocast_enabled(kind):
        return inputs
    dtype = torch.get_autocast_dtype(kind)
    queries, candidates = (x if x.dtype == torch.float64 else x.to(dtype) for x in inputs[:2])
    return inputs._replace(queries=queries, candidates=candidates)


class _TwoPasses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        candidates: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        engine: Engine,
        problem: Problem,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        inputs = Inputs(queries, candidates, scale, bias)
        with torch.autocast(inputs.device.type, enabled=False):
            totals = engine.reduce(inputs, problem)
        ctx.save_for_backward(*inputs, *totals[:2])
        ctx.engine, ctx.problem = engine, problem
        return totals.rows, totals.columns, totals.pairs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *arriving: Tensor | None) -> tuple[Tensor | None, ...]:
        *saved, rows, columns = ctx.saved_tensors
        inputs = Inputs(*saved)
        by_rows, by_columns, by_pairs = arriving
        assert by_rows is not None
        assert by_pairs is not None
        with torch.autocast(inputs.device.type, enabled=False):
            by_inputs = ctx.engine.gradients(
                inputs,
                ctx.problem,
                Reduction(rows, columns, rows[:0]),
                Reduction(by_rows, by_columns, by_pairs),
                Wants(*ctx.needs_input_grad[:4]),
            )
        return (*by_inputs.cast_to(inputs), None, None)


class _Given(torch.autograd.Function):
    """A value whose gradients are there already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Gradients, *inputs: Tensor | None) -> Tensor:
        ctx.dtypes = [None if x is None else x.dtype for x in inputs]
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        scaled = outer.device.type != "cpu" or outer.item() != 1.0  # the usual 1 costs no copy where it can be seen
        by_inputs = [
            None if gradient is None else (gradient * outer.to(gradient.dtype) if scaled else gradient).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (None, None, *by_inputs)
