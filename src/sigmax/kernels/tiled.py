"""The memory-saving kernel: tiles of logits, made, used and forgotten; forward and again in backward.

Forward keeps A (n or n + m numbers) and the right pairs' logits (k numbers). Backward makes each tile once more
and needs only act(s) = A′: with g the gradients arriving at A and at the right pairs' logits,

    G = g_rows · act(s, A_rows) + g_columns · act(s, A_columns) + g_pairs on the right pairs
    ∂queries = scale · G @ candidates      ∂candidates = scale · Gᵀ @ queries
    ∂scale   = ⟨queries, G @ candidates⟩   ∂bias       = Σ G
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sigmax.families import Objective
from sigmax.kernels.dense import Reduction, working_dtype
from sigmax.positives import Positives

__all__ = ["reduce_logits"]

#: Rows and columns of a tile: 2 MiB of float32 logits, and enough rows for the product to run at full speed.
TILE = (512, 1024)


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
    kind = queries.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        queries, candidates = (x if x.dtype == torch.float64 else x.to(dtype) for x in (queries, candidates))
    bias = logit_scale.new_zeros(()) if logit_bias is None else logit_bias
    plan = _Plan(positives, objective, candidate_shift, columns, TILE)
    rows, column_totals, pairs = _Tiled.apply(queries, candidates, logit_scale, bias, plan)  # type: ignore[no-untyped-call]
    return Reduction(rows, column_totals if columns else None, pairs)


class _Tile(NamedTuple):
    """A tile's place, and the right and the excluded pairs inside it, as offsets into its own rows and columns."""

    rows: slice
    columns: slice
    pairs: Tensor  #: places of the tile's right pairs in the order of `positives`
    pair_rows: Tensor
    pair_columns: Tensor
    excluded_rows: Tensor
    excluded_columns: Tensor


class _Plan:
    """How the n × m matrix is cut, and which pairs of the graph fall into which tile."""

    def __init__(
        self,
        positives: Positives,
        objective: Objective,
        shift: Tensor | None,
        columns: bool,
        tile: tuple[int, int],
    ) -> None:
        self.shape = positives.shape
        self.tile = tile
        self.partition = objective.partition
        self.shift = None if shift is None else shift.detach()
        self.columns = columns
        self.count = len(positives)
        self._right = self._by_tile(positives.rows, positives.columns)
        self._excluded = self._by_tile(*positives.excluded(positives=objective.against == "wrong"))

    def _by_tile(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Sort pairs by tile: their order, row and column offsets inside the tile, and where each tile begins."""
        height, width = self.tile
        across = -(-self.shape[1] // width)
        tiles = -(-self.shape[0] // height) * across
        tile = (rows // height) * across + columns // width
        order = tile.argsort(stable=True)
        starts = torch.searchsorted(tile[order], torch.arange(tiles + 1, device=rows.device)).tolist()
        return order, (rows % height)[order], (columns % width)[order], starts

    def tiles(self) -> Iterator[_Tile]:
        height, width = self.tile
        number = 0
        for top in range(0, self.shape[0], height):
            for left in range(0, self.shape[1], width):
                order, rows, columns, starts = self._right
                right = slice(starts[number], starts[number + 1])
                _, skip_rows, skip_columns, skip_starts = self._excluded
                skip = slice(skip_starts[number], skip_starts[number + 1])
                yield _Tile(
                    slice(top, min(top + height, self.shape[0])),
                    slice(left, min(left + width, self.shape[1])),
                    order[right],
                    rows[right],
                    columns[right],
                    skip_rows[skip],
                    skip_columns[skip],
                )
                number += 1

    def logits(self, tile: _Tile, queries: Tensor, candidates: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """The tile's logits, with no pair excluded yet."""
        logits = (queries[tile.rows] @ candidates[tile.columns].T).to(working_dtype(queries))
        logits.mul_(scale).add_(bias)
        if self.shift is not None:
            logits += self.shift[tile.columns]
        return logits


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, candidates: Tensor, scale: Tensor, bias: Tensor, plan: _Plan
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, m = plan.shape
        dtype = working_dtype(queries)
        partition = plan.partition
        row_totals = torch.full((n,), partition.empty, dtype=dtype, device=queries.device)
        column_totals = torch.full((m if plan.columns else 0,), partition.empty, dtype=dtype, device=queries.device)
        pairs = torch.empty(plan.count, dtype=dtype, device=queries.device)
        with torch.autocast(queries.device.type, enabled=False):
            for tile in plan.tiles():
                logits = plan.logits(tile, queries, candidates, scale, bias)
                pairs[tile.pairs] = logits[tile.pair_rows, tile.pair_columns]
                logits[tile.excluded_rows, tile.excluded_columns] = -math.inf
                row_totals[tile.rows] = partition.combine(row_totals[tile.rows], partition.reduce(logits, 1))
                if plan.columns:
                    column_totals[tile.columns] = partition.combine(
                        column_totals[tile.columns], partition.reduce(logits, 0)
                    )
        ctx.save_for_backward(queries, candidates, scale, bias, row_totals, column_totals)
        ctx.plan = plan
        return row_totals, column_totals, pairs

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, row_gradient: Tensor, column_gradient: Tensor, pair_gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        queries, candidates, scale, bias, row_totals, column_totals = ctx.saved_tensors
        plan: _Plan = ctx.plan
        act = plan.partition.act
        dtype = working_dtype(queries)
        wants_queries, wants_candidates, wants_scale, wants_bias, _ = ctx.needs_input_grad
        by_query = torch.zeros(queries.shape, dtype=dtype, device=queries.device)
        by_candidate = torch.zeros(candidates.shape, dtype=dtype, device=candidates.device)
        bias_gradient = torch.zeros((), dtype=dtype, device=queries.device)
        with torch.autocast(queries.device.type, enabled=False):
            for tile in plan.tiles():
                logits = plan.logits(tile, queries, candidates, scale, bias)
                logits[tile.excluded_rows, tile.excluded_columns] = -math.inf
                gradient = act(logits, row_totals[tile.rows, None]) * row_gradient[tile.rows, None]
                if plan.columns:
                    gradient += act(logits, column_totals[tile.columns]) * column_gradient[tile.columns]
                gradient[tile.pair_rows, tile.pair_columns] += pair_gradient[tile.pairs]
                low = gradient.to(queries.dtype)
                if wants_queries or wants_scale:
                    by_query[tile.rows] += low @ candidates[tile.columns]
                if wants_candidates:
                    by_candidate[tile.columns] += low.T @ queries[tile.rows]
                if wants_bias:
                    bias_gradient += gradient.sum()
        return (
            (by_query * scale).to(queries.dtype) if wants_queries else None,
            (by_candidate * scale).to(candidates.dtype) if wants_candidates else None,
            (by_query * queries).sum().to(scale.dtype) if wants_scale else None,
            bias_gradient.to(bias.dtype) if wants_bias else None,
            None,
        )
