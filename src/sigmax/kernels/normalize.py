"""Vectors of length 1, with one copy held for the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sigmax.kernels.function import apply
from sigmax.kernels.problem import working_dtype

__all__ = ["normalize"]


class _Normalized(torch.autograd.Function):
    """x / |x|, holding one copy of the vectors where a composition of operations holds three."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        unit = torch.empty_like(x)
        length = x.new_empty((len(x), 1), dtype=working_dtype(x))
        for rows in _blocks(x):
            torch.linalg.vector_norm(x[rows], dim=-1, keepdim=True, dtype=length.dtype, out=length[rows])
            unit[rows] = x[rows] / length[rows].masked_fill(length[rows] == 0, math.inf)
            odd = ((length[rows] == 0) | ~length[rows].isfinite()).squeeze(-1)
            if bool(odd.any()):  # squares that no float holds: of 1.9e19 in float32 too many, of 1e-23 none is left
                wide = x[rows][odd].to(length.dtype)
                most = wide.abs().amax(-1, keepdim=True)
                scaled = wide / most.masked_fill(most == 0, math.inf)
                size = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
                unit[rows][odd] = (scaled / size.masked_fill(size == 0, math.inf)).to(unit.dtype)
                length[rows][odd] = most * size
            length[rows].masked_fill_(length[rows] == 0, math.inf)
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, arriving: Tensor) -> Tensor:
        unit, length = ctx.saved_tensors
        gradient = torch.empty_like(arriving)
        for rows in _blocks(unit):  # what lies along the vector changes its length alone
            wide = arriving[rows].to(length.dtype)
            along = (wide * unit[rows]).sum(-1, keepdim=True)
            gradient[rows] = torch.addcmul(wide, unit[rows].to(length.dtype), along, value=-1).div_(length[rows])
        return gradient


def _blocks(x: Tensor) -> Iterator[slice]:
    """Rows that stay in the cache over several operations. On a GPU, all."""
    step = max(1, 2**18 // max(1, x.shape[1])) if x.device.type == "cpu" else max(1, len(x))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def normalize(x: Tensor) -> Tensor:
    """Return x / |x|, in at least float32. A vector of zeros has no direction: it stays 0, with the gradient 0."""
    unit: Tensor = apply(_Normalized, x)
    return unit
