"""What a model makes of its items, all that logits are made of, and the logits tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sigmax.candidates.packed import Packed
from sigmax.data.pictures import Query

if TYPE_CHECKING:
    from sigmax.encoders.lexical import Tokens

__all__ = ["CANDIDATE_BLOCK", "Tile", "Vectors", "in_parts", "tiled"]

#: Candidates compared at a time: block sizes bound the memory on top of the candidates' vectors.
CANDIDATE_BLOCK = 2**14


class Tile(NamedTuple):
    """The logits of some queries over some candidates."""

    rows: slice
    columns: slice
    logits: NDArray[np.float32]  #: (rows, columns)


@dataclass(frozen=True, eq=False)
class Vectors:
    """The vectors of some queries, or of some candidates.

    Whatever else a model learns to see in an item becomes a field beside `dense`, cut and moved along with it below;
    `DualEncoder.logits_of` is the one place that makes logits of the fields.
    """

    #: (b, d) as `MatchLoss.prepare` leaves them: of unit length where the similarity is the cosine. Those of many
    #: candidates may be packed.
    dense: Tensor | Packed
    tokens: Tokens | None = None  #: of the b texts, for the lexical view; None without it, and for *none of these*
    texts: Sequence[Query] | None = None  #: the b texts, for a second look; None without it

    def __len__(self) -> int:
        return len(self.dense)

    def __getitem__(self, rows: slice) -> Vectors:
        """Return the vectors of some of the items."""
        return Vectors(
            self.dense[rows],
            None if self.tokens is None else self.tokens[rows],
            None if self.texts is None else self.texts[rows],
        )

    def to(self, device: torch.device) -> Vectors:
        """Return the vectors on a device."""
        return Vectors(self.dense.to(device), self.tokens, self.texts)


def in_parts(encode: Callable[[Sequence[Query]], Tensor], items: Sequence[Query], size: int) -> Tensor:
    """Encode items so many at a time, into one (b, d) tensor: parts joined in the end would take twice the memory."""
    if not len(items):
        raise ValueError("Expected at least one item to encode, got none.")
    whole = torch.empty(0)
    for start in range(0, len(items), size):
        part = encode(items[start : start + size])
        if not start:
            whole = torch.empty(len(items), part.shape[1])
        whole[start : start + size] = part
    return whole


def tiled(
    logits_of: Callable[[Vectors, Vectors], Tensor], queries: Vectors, candidates: Vectors, height: int, width: int
) -> Iterator[Tile]:
    """Make the logits of every query over every candidate: all columns of a block of rows, then the next block.

    Raises:
        ValueError: logits that are not finite.
    """
    for top in range(0, len(queries), height):
        rows = slice(top, min(top + height, len(queries)))
        block = queries[rows].to(candidates.dense.device)
        for left in range(0, len(candidates), width):
            columns = slice(left, min(left + width, len(candidates)))
            logits = logits_of(block, candidates[columns]).float()
            low, high = logits.aminmax()
            if not (low.isfinite() and high.isfinite()):
                raise ValueError("The model's logits are not finite: training diverged. Try a lower learning rate.")
            yield Tile(rows, columns, logits.cpu().numpy())
