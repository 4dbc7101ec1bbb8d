"""The fused engine: `tiled` with everything between the products in one compiled loop, on the CPU.

The tensor operations of `tiled` say what is computed, and compute it where Numba is not installed, in float64, and for
a partition without a loop. A logit is read once and written once where they read and write it three to eight times.

The sigmoid needs no bound on its logits here: with e = e^−|s| ≤ 1, softplus(s) = max(s, 0) + log(1 + e), and up to 32
factors 1 + e share a logarithm, built as Π(1 + e) − 1 so that an e far below float32's eps is not lost beside the 1.
"""

from __future__ import annotations

import functools
import math
from types import ModuleType

import torch
from torch import Tensor

from sigmax.kernels.problem import Inputs, Problem, Reduction, Tile, working_dtype
from sigmax.kernels.tiled import Act, Logits, Tiled, inverse

__all__ = ["Fused"]


class Fused(Tiled):
    """The engine for CPUs where Numba is installed."""

    name = "fused"
    device: str | None = "cpu"

    def missing(self, inputs: Inputs, problem: Problem) -> str | None:
        """See `Engine`."""
        if problem.objective.partition.term not in ("exp", "softplus"):
            return f"it has no loop for the partition {problem.objective.partition.name!r}"
        if inputs.device.type != "cpu":
            return f"it runs on the CPU and the vectors are on {inputs.device.type!r}"
        if working_dtype(inputs.queries) != torch.float32:
            return "it works in float32 and the vectors are torch.float64"
        try:
            _loops()
        except ImportError:
            return "Numba is not installed (pip install 'sigmax[fast]')"
        except OSError as error:
            return f"it needs PyTorch's threads in libgomp (Linux): {error}"
        return None

    def tiles(self, inputs: Inputs, problem: Problem, *, whole_rows: bool = False) -> Logits:
        """Return what makes the tiles of logits, with the loops between the products."""
        return _FusedLogits(inputs, problem, whole_rows=whole_rows)


@functools.cache
def _loops() -> ModuleType:
    """The loops; ImportError where Numba is not installed, OSError where libgomp is not."""
    from sigmax.kernels import fused_loops

    return fused_loops


class _FusedLogits(Logits):
    """Logits whose loops are compiled; see `Logits` for what each does."""

    def act(self, block: Tensor) -> Act:
        rows = block.shape[0]
        if self.partition.term == "exp":
            peaks, sums = self.empty(rows), self.empty(rows)
            _loops().run("exp_rows", block, int(not self.safe), peaks, sums)
            some = sums != 0  # a row without candidates has no share to give
            unit = sums.reciprocal().masked_fill_(~some, 0.0)
            return Act(sums.log_().add_(self.bias).add_(peaks), unit, some.to(self.dtype))
        sums, acts = self.empty(rows), self.empty(rows)
        loops = _loops()
        products = self.full((torch.get_num_threads(), loops.LANES), 0.0)
        loops.run("sigmoid_rows", block, self.full(1, self.bias), sums, acts, products)
        return Act(sums, torch.ones_like(sums), acts)

    def totals(self, block: Tensor) -> tuple[Tensor, Tensor]:
        if not self.plain:
            return super().totals(block)
        sums, columns = self.empty(block.shape[0]), self.full((torch.get_num_threads(), block.shape[1]), 0.0)
        _loops().run("exp_sums", block, sums, columns)
        return sums.log_().add_(self.bias), columns.sum(0).log_().add_(self.bias)

    def spread(self, block: Tensor, totals: Reduction, arriving: Reduction, tile: Tile) -> None:
        row_totals, by_row = totals.rows[tile.rows], arriving.rows[tile.rows].to(self.dtype)
        column_totals = by_column = None
        if totals.columns is not None and arriving.columns is not None:
            column_totals, by_column = totals.columns[tile.columns], arriving.columns[tile.columns].to(self.dtype)
        run = _loops().run
        if self.partition.term == "softplus":
            run("spread_sigmoid", block, self.full(1, self.bias), *_contiguous(by_row, by_column))
        elif self.plain:
            by_row = by_row * inverse(row_totals, self.bias)
            if by_column is not None and column_totals is not None:
                by_column = by_column * inverse(column_totals, self.bias)
            run("spread_exp", block, *_contiguous(by_row, by_column))
        else:
            above = [
                None if x is None else (x - self.bias).masked_fill_(x == -math.inf, 0.0)
                for x in (row_totals, column_totals)
            ]
            run("spread_shares", block, *_contiguous(above[0], by_row, above[1], by_column))

    def empty(self, size: int) -> Tensor:
        return torch.empty(size, dtype=self.dtype)


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if x is None else x.contiguous() for x in tensors]
