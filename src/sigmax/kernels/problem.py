"""The input of a kernel: vectors, which pairs are right, what A runs over, and which pairs fall into which tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sigmax.families import Objective
from sigmax.positives import Positives

__all__ = ["Buckets", "Gradients", "Inputs", "Problem", "Reduction", "Tile", "Wants", "working_dtype"]


class Inputs(NamedTuple):
    """What gradients are taken by: s = scale · queries @ candidates.T + bias + the problem's shift."""

    queries: Tensor  #: (n, d)
    candidates: Tensor  #: (m, d), of the same dtype and device
    scale: Tensor  #: ()
    bias: Tensor | None = None  #: (), or None for 0

    @property
    def device(self) -> torch.device:
        """Where the vectors are."""
        return self.queries.device


class Reduction(NamedTuple):
    """What a loss needs to know of the logits; or the gradients that arrive at each."""

    rows: Tensor  #: (n,) A of each query over the candidates it is compared with
    columns: Tensor | None  #: (m,) A of each candidate over the queries it is compared with, if asked for
    pairs: Tensor  #: (k,) logits of the right pairs


class Wants(NamedTuple):
    """Which of the inputs need a gradient."""

    queries: bool
    candidates: bool
    scale: bool
    bias: bool


class Gradients(NamedTuple):
    """The gradients by the inputs; None where none is wanted."""

    queries: Tensor | None
    candidates: Tensor | None
    scale: Tensor | None
    bias: Tensor | None

    def cast_to(self, inputs: Inputs) -> Gradients:
        """Return them in the dtypes of the inputs."""
        return Gradients(
            *(None if x is None or y is None else x.to(y.dtype) for x, y in zip(self, inputs, strict=True))
        )


class Tile(NamedTuple):
    """A tile's place, and the right and the excluded pairs inside it, as offsets into its own rows and columns."""

    rows: slice
    columns: slice
    pairs: Tensor  #: places of the tile's right pairs in the order of `positives`
    pair_rows: Tensor
    pair_columns: Tensor
    excluded_rows: Tensor
    excluded_columns: Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything about a loss's logits but the vectors, the scale and the bias."""

    positives: Positives
    objective: Objective
    shift: Tensor | None = None  #: (m,) added to each candidate's logits, without gradient
    columns: bool = False  #: also reduce each column over the queries

    def tiles(self, height: int, width: int) -> Iterator[Tile]:
        """The matrix cut into tiles, row after row of them."""
        n, m = self.positives.shape
        right, skip = self.right_by_tile(height, width), self.excluded_by_tile(height, width)
        rights, skips = right.starts.tolist(), skip.starts.tolist()
        number = 0
        for top in range(0, n, height):
            for left in range(0, m, width):
                here, out = slice(*rights[number : number + 2]), slice(*skips[number : number + 2])
                yield Tile(
                    slice(top, min(top + height, n)),
                    slice(left, min(left + width, m)),
                    right.order[here],
                    right.rows[here],
                    right.columns[here],
                    skip.rows[out],
                    skip.columns[out],
                )
                number += 1

    def right_by_tile(self, height: int, width: int) -> Buckets:
        """The right pairs, sorted by the tile they fall into."""
        n, m = self.positives.shape
        return _by_tile(self.positives.rows, self.positives.columns, m, n, height, width)

    def excluded_by_tile(self, height: int, width: int) -> Buckets:
        """The pairs that A does not look at, sorted by the tile they fall into."""
        n, m = self.positives.shape
        return _by_tile(*self.excluded, m, n, height, width)

    @property
    def excluded(self) -> tuple[Tensor, Tensor]:
        """Rows and columns of the pairs that A does not look at."""
        return self.positives.excluded(positives=self.objective.against == "wrong")


class Buckets(NamedTuple):
    """Pairs sorted by the tile they fall into, tiles in row-major order."""

    order: Tensor  #: place of each pair in the order it was given in
    rows: Tensor  #: offsets inside the tile
    columns: Tensor
    starts: Tensor  #: (tiles + 1,) where each tile's pairs begin


def _by_tile(rows: Tensor, columns: Tensor, m: int, n: int, height: int, width: int) -> Buckets:
    """Sort pairs by tile, tiles in row-major order."""
    across = -(-m // width)
    tiles = -(-n // height) * across
    tile = (rows // height) * across + columns // width
    order = tile.argsort(stable=True)
    starts = torch.searchsorted(tile[order], torch.arange(tiles + 1, device=rows.device))
    return Buckets(order, (rows % height)[order], (columns % width)[order], starts)


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where an input is, else float32: half-precision products are summed and exponentiated in float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
