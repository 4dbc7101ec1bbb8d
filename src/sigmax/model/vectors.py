"""What a model makes of its items, all that logits are made of, and the logits tile by tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Tile", "Vectors"]


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

    dense: Tensor  #: (b, d) as `MatchLoss.prepare` leaves them: of unit length where the similarity is the cosine

    def __len__(self) -> int:
        return len(self.dense)

    def __getitem__(self, rows: slice) -> Vectors:
        """Return the vectors of some of the items."""
        return Vectors(self.dense[rows])

    def to(self, device: torch.device) -> Vectors:
        """Return the vectors on a device."""
        return Vectors(self.dense.to(device))
