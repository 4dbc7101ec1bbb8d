"""How an engine's numbers become part of PyTorch's graph: two passes in general, one where the weights are known.

Both are differentiable once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sigmax.kernels.problem import Problem, Reduction, Wants

__all__ = ["Engine", "as_autocast", "reduce", "weighted_loss"]


class Engine(NamedTuple):
    """A way to compute what `sigmax.kernels.tiled` defines."""

    name: str
    reduce: Callable[..., Reduction]
    gradients: Callable[..., tuple[Tensor | None, ...]]
    weighted_loss: Callable[..., tuple[Tensor, tuple[Tensor | None, ...]] | None] | None = None


def reduce(
    engine: Engine, queries: Tensor, candidates: Tensor, scale: Tensor, bias: Tensor | None, problem: Problem
) -> Reduction:
    """`engine.reduce` with gradients: forward makes A and the right pairs' logits, backward runs `engine.gradients`."""
    queries, candidates = as_autocast(queries, candidates)
    rows, columns, pairs = _TwoPasses.apply(queries, candidates, scale, bias, engine, problem)  # type: ignore[no-untyped-call]
    return Reduction(rows, columns, pairs)


def weighted_loss(
    engine: Engine,
    queries: Tensor,
    candidates: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    problem: Problem,
    weights: Tensor,
) -> Tensor | None:
    """Σᵢ wᵢ Lᵢ with gradients, computed together in forward; None where the engine cannot."""
    if engine.weighted_loss is None:
        return None
    queries, candidates = as_autocast(queries, candidates)
    grad = torch.is_grad_enabled()
    wants = Wants(*(grad and x is not None and x.requires_grad for x in (queries, candidates, scale, bias)))
    with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
        done = engine.weighted_loss(queries, candidates, scale, bias, problem, weights, wants)
    if done is None:
        return None
    value, gradients = done
    given: Tensor = _Given.apply(value, gradients, queries, candidates, scale, bias)  # type: ignore[no-untyped-call]
    return given


def as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Bring vectors to the dtype that autocast asks for, if it is on; float64 stays."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


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
        with torch.autocast(queries.device.type, enabled=False):
            totals = engine.reduce(queries, candidates, scale, bias, problem)
        ctx.save_for_backward(queries, candidates, scale, bias, *totals[:2])
        ctx.engine, ctx.problem = engine, problem
        return totals.rows, totals.columns, totals.pairs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *arriving: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        queries, candidates, scale, bias, rows, columns = ctx.saved_tensors
        with torch.autocast(queries.device.type, enabled=False):
            made = ctx.engine.gradients(
                queries,
                candidates,
                scale,
                bias,
                ctx.problem,
                Reduction(rows, columns, rows[:0]),
                Reduction(*arriving),  # type: ignore[arg-type]
                Wants(*ctx.needs_input_grad[:4]),
            )
        by_queries, by_candidates, by_scale, by_bias = made
        return (
            by_queries,
            by_candidates,
            None if by_scale is None else by_scale.to(scale.dtype),
            None if by_bias is None or bias is None else by_bias.to(bias.dtype),
            None,
            None,
        )


class _Given(torch.autograd.Function):
    """A value whose gradients are there already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor | None, ...], *inputs: Tensor | None) -> Tensor:
        ctx.dtypes = [None if x is None else x.dtype for x in inputs]
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        scaled = outer.device.type != "cpu" or outer.item() != 1.0  # the usual 1 costs no copy where it can be seen
        made = [
            None if gradient is None else (gradient * outer.to(gradient.dtype) if scaled else gradient).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (None, None, *made)
