"""Every candidate is looked at: vectors in memory, or mapped from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sigmax.arrays import Ints
from sigmax.candidates.packed import Packed
from sigmax.candidates.store import Found, Picked, Sample

__all__ = ["Exact", "drawn"]

#: Candidates that are compared at a time.
BLOCK = 2**15


class Exact:
    """Candidates whose vectors are compared with a query one and all, in tiles.

    Args:
        vectors: (m, d) float32 or packed, in memory or mapped.
        ids: (m,).
        texts: (m,).
        fingerprint: of what made the vectors.
    """

    def __init__(
        self, vectors: Tensor | Packed, ids: Sequence[str], texts: Sequence[str], *, fingerprint: str = ""
    ) -> None:
        if not len(vectors) == len(ids) == len(texts):
            raise ValueError(
                f"Expected as many ids and texts as vectors, got {len(ids)}, {len(texts)} and {len(vectors)}."
            )
        self.vectors, self.ids, self.texts, self.fingerprint = vectors, ids, texts, fingerprint
        self._drawn: dict[int, Sample] = {}

    @property
    def size(self) -> int:
        """How many candidates there are."""
        return len(self.vectors)

    @torch.no_grad()
    def search(self, queries: NDArray[np.float32], k: int) -> list[Found]:
        """Find the k candidates with the highest inner products, exactly; of equal ones, the first."""
        asked = torch.from_numpy(np.ascontiguousarray(queries))
        best, places = torch.empty(len(asked), 0), torch.empty(len(asked), 0, dtype=torch.int64)
        for start in range(0, self.size, BLOCK):
            products = asked @ self.vectors[start : start + BLOCK].T
            values, columns = products.topk(min(k, products.shape[1]))
            best, places = torch.cat([best, values], 1), torch.cat([places, columns + start], 1)
            best, order = best.topk(min(k, best.shape[1]))
            places = places.gather(1, order)
        return [self.found(row, values) for row, values in zip(places.numpy(), best.numpy(), strict=True)]

    def found(self, places: Ints, products: NDArray[np.float32]) -> Found:
        """Name the candidates at some places."""
        return Found(places, products, Picked(self.ids, places), Picked(self.texts, places))

    def sample(self, count: int) -> Sample:
        """Draw candidates; all of them where there are no more."""
        if count not in self._drawn:
            places = drawn(self.size, count)
            vectors = self.vectors[torch.from_numpy(places)].numpy()
            self._drawn[count] = Sample(places, vectors, Picked(self.texts, places))
        return self._drawn[count]

    def describe(self) -> dict[str, Any]:
        """Tell what it is."""
        return {"kind": "exact", "size": self.size}


def drawn(size: int, count: int) -> Ints:
    """(s,) places of a sample, rising: the same for the same numbers."""
    if count >= size:
        return np.arange(size)
    places: Ints = np.sort(np.random.default_rng(size).choice(size, count, replace=False))
    return places
