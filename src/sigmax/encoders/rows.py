"""Tables of which a batch reads few rows: their gradient holds those rows alone, so that a step costs what it reads.

An optimizer that owes a row the steps in which nobody read it (`sigmax.training.row_adamw`) watches the table: it is
told which rows are about to be read, and brings them up to date first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sigmax.kernels.function import apply

__all__ = ["add_rows", "rows_of", "watch"]

#: A gradient of this share of a table's rows is a dense one: gathering them would cost more than it saves.
MANY = 0.5
_TOLD = "_sigmax_told"


def watch(table: Tensor, told: Callable[[Tensor], None] | None) -> None:
    """Have `told` called with the places of rows before they are read from a table; None: no longer."""
    setattr(table, _TOLD, told)


class _Rows(torch.autograd.Function):
    """table (v, …), places (u,) sorted and distinct -> its rows (u, …); the table's gradient is sparse."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, places: Tensor) -> Tensor:
        """Gather the rows."""
        ctx.save_for_backward(places)
        ctx.shape = table.shape
        return table.index_select(0, places)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor, None]:
        """Name the rows of the gradient instead of filling a table with zeros."""
        (places,) = ctx.saved_tensors
        return torch.sparse_coo_tensor(
            places[None], arriving, ctx.shape, is_coalesced=True, check_invariants=False
        ), None


def rows_of(table: Tensor, places: Tensor) -> Tensor:
    """(k,) places -> (k, …) rows of a table (v, …), as `table[places]`; the table's gradient is of those rows."""
    read, places = _read(table, places)
    return read[places]


def add_rows(
    table: Tensor, places: Tensor, starts: Tensor, weights: Tensor | None = None, *, mode: str = "sum"
) -> Tensor:
    """Sum rows of a table (v, d), or average them, as `torch.nn.functional.embedding_bag` does: (b, d).

    Args:
        table: the rows; its gradient is of those that are read.
        places: (k,) rows of all sums, one after the other.
        starts: (b,) where each sum begins.
        weights: (k,) factors of the rows, of a sum.
        mode: "sum" or "mean".
    """
    read, places = _read(table, places)
    return F.embedding_bag(places, read, starts, mode=mode, per_sample_weights=weights)


def _read(table: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return what to take rows from, and their places in it."""
    told: Callable[[Tensor], None] | None = getattr(table, _TOLD, None)
    distinct = _distinct(places, len(table)) if torch.is_grad_enabled() and table.requires_grad else None
    if told is not None:
        told(places if distinct is None else distinct[0])
    return (table, places) if distinct is None else (apply(_Rows, table, distinct[0]), distinct[1])


def _distinct(places: Tensor, size: int) -> tuple[Tensor, Tensor] | None:
    """Sort the distinct ones of some places below `size`, and find each among them; None if they are many.

    A byte for each row of the table is touched; sorting the places would take longer.
    """
    seen = torch.zeros(size, dtype=torch.bool, device=places.device)
    seen[places] = True
    distinct = seen.nonzero()[:, 0]
    if len(distinct) >= MANY * size:
        return None
    at = torch.empty(size, dtype=torch.int64, device=places.device)
    at[distinct] = torch.arange(len(distinct), device=places.device)
    return distinct, at[places]
