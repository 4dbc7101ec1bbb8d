"""Tables of which a batch reads few rows: their gradient holds those rows alone, so that a step costs what it reads.

Only where an optimizer watches the table (`sigmax.training.row_adamw`), which takes such gradients; any other gets a
dense one. As it owes rows the steps in which nobody read them, it is told which are about to be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sigmax.kernels.function import apply

__all__ = ["add_rows", "rows_of", "watch"]

#: From this share of the rows on a gradient is dense, and of a table of fewer numbers: gathering would take longer.
MANY, SMALL = 0.25, 2**21
_TOLD = "_sigmax_told"


def watch(table: Tensor, told: Callable[[Tensor], None] | None) -> None:
    """Call `told` with the distinct places of rows before they are read from a table; None: no longer."""
    setattr(table, _TOLD, told)


class _Rows(torch.autograd.Function):
    """table (v, …), places (k,) -> its rows (k, …); the gradient is of the rows `distinct`, and `which` they are."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, places: Tensor, distinct: Tensor, which: Tensor) -> Tensor:
        """Take the rows."""
        ctx.save_for_backward(distinct, which)
        ctx.shape = table.shape
        return table.index_select(0, places)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor, None, None, None]:
        """Add up what arrives for each row."""
        distinct, which = ctx.saved_tensors
        total = arriving.new_zeros(len(distinct), *arriving.shape[1:]).index_add_(0, which, arriving)
        return _sparse(distinct, total, ctx.shape), None, None, None


class _Sums(torch.autograd.Function):
    """`embedding_bag` with a sparse gradient: one more `embedding_bag`, of what arrives, over the texts of each row."""

    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        places: Tensor,
        starts: Tensor,
        weights: Tensor | None,
        mode: str,
        distinct: Tensor,
        which: Tensor,
    ) -> Tensor:
        """Sum or average the rows."""
        ctx.shape, ctx.mode = table.shape, mode
        ctx.save_for_backward(starts, weights, distinct, which)
        return F.embedding_bag(places, table, starts, mode=mode, per_sample_weights=weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor, None, None, None, None, None, None]:
        """Add up what arrives for each row."""
        starts, weights, distinct, which = ctx.saved_tensors
        sizes = torch.diff(starts, append=starts.new_full((1,), len(which)))
        bags = torch.repeat_interleave(sizes)
        if ctx.mode == "mean":
            weights = (1 / sizes.to(arriving.dtype))[bags]
        order = _order(which, len(distinct))
        counts = which.bincount(minlength=len(distinct))
        total = F.embedding_bag(
            bags[order],
            arriving,
            counts.cumsum(0) - counts,
            mode="sum",
            per_sample_weights=None if weights is None else weights[order],
        )
        return _sparse(distinct, total, ctx.shape), None, None, None, None, None, None


def rows_of(table: Tensor, places: Tensor) -> Tensor:
    """(k,) places -> (k, …) rows of a table (v, …), as `table[places]`; the table's gradient is of those rows."""
    few = _announce(table, places)
    made: Tensor = table[places] if few is None else apply(_Rows, table, places, *few)
    return made


def add_rows(
    table: Tensor, places: Tensor, starts: Tensor, weights: Tensor | None = None, *, mode: str = "sum"
) -> Tensor:
    """Sum rows of a table (v, d), or average them, as `torch.nn.functional.embedding_bag` does: (b, d).

    Args:
        table: the rows; its gradient is of those that are read.
        places: (k,) rows of all sums, one after the other.
        starts: (b,) where each sum begins.
        weights: (k,) factors of the rows, of a sum; without a gradient.
        mode: "sum" or "mean".
    """
    few = _announce(table, places)
    if few is None:
        return F.embedding_bag(places, table, starts, mode=mode, per_sample_weights=weights)
    made: Tensor = apply(_Sums, table, places, starts, weights, mode, *few)
    return made


def _announce(table: Tensor, places: Tensor) -> tuple[Tensor, Tensor] | None:
    """Tell who watches what will be read; return the distinct places, and which each is, if the gradient is of few."""
    told: Callable[[Tensor], None] | None = getattr(table, _TOLD, None)
    if told is None:
        return None
    distinct, which = _distinct(places, len(table))
    told(distinct)
    few = len(distinct) < MANY * len(table) and table.numel() >= SMALL
    return (distinct, which) if few and torch.is_grad_enabled() and table.requires_grad else None


def _distinct(places: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Sort the distinct ones of some places below `size`, and find each among them.

    A byte for each row of the table is touched; sorting the places would take longer.
    """
    seen = torch.zeros(size, dtype=torch.bool, device=places.device)
    seen[places] = True
    distinct = seen.nonzero()[:, 0]
    at = torch.empty(size, dtype=torch.int64, device=places.device)
    at[distinct] = torch.arange(len(distinct), device=places.device)
    return distinct, at[places]


def _order(which: Tensor, size: int) -> Tensor:
    """Order numbers below `size`, equal ones as they come."""
    if which.device.type != "cpu" or size > 2**16:
        return which.argsort(stable=True)
    return torch.from_numpy(which.numpy().astype(np.uint16).argsort(kind="stable"))  # of 16 bits, NumPy's is linear


def _sparse(rows: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    return torch.sparse_coo_tensor(rows[None], values, shape, is_coalesced=True, check_invariants=False)
