"""What a model makes of its items: all that logits are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Vectors"]


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
