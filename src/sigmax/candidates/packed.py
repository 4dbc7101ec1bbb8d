"""Vectors in half precision, or in bytes with a scale each: a half or a quarter of the memory and of the disk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sigmax.errors import lookup

__all__ = ["PACKINGS", "Packed", "kind_of", "pack"]

#: How vectors may be stored.
PACKINGS = {
    "float32": "as they were made",
    "float16": "half of the bytes; each number is off by 1/2048 of it, at most",
    "int8": "a quarter of the bytes: whole numbers up to 127 with one scale for each vector",
}


class Packed:
    """(m, d) vectors in fewer bits, in memory or mapped; what is taken of them is in single precision.

    With q the numbers stored and c one scale for each vector, vector j is cⱼ · qⱼ; c is 1 for float16.

    Args:
        values: (m, d) float16 or int8.
        scales: (m,) c; None for float16.

    Raises:
        ValueError: other numbers, or scales that do not fit.
    """

    def __init__(self, values: Tensor, scales: Tensor | None = None) -> None:
        expected = torch.float16 if scales is None else torch.int8
        if values.ndim != 2 or values.dtype != expected:
            raise ValueError(f"Expected (m, d) vectors of {expected}, got {tuple(values.shape)} of {values.dtype}.")
        if scales is not None and scales.shape != (len(values),):
            raise ValueError(f"Expected a scale for each of {len(values)} vectors, got {tuple(scales.shape)}.")
        self.values, self.scales = values, scales

    def __len__(self) -> int:
        """Return how many vectors there are."""
        return len(self.values)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Return some of the vectors, float32."""
        part = self.values[rows].float()
        return part if self.scales is None else part * self.scales[rows][:, None]

    @property
    def shape(self) -> torch.Size:
        """(m, d)."""
        return self.values.shape

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return self.values.device

    def to(self, device: torch.device | str) -> Packed:
        """Return them on a device."""
        return Packed(self.values.to(device), None if self.scales is None else self.scales.to(device))

    def cpu(self) -> Packed:
        """Return them in the processor's memory."""
        return self.to("cpu")

    def float(self) -> Tensor:
        """Return all of them, float32."""
        return self[:]

    def followed_by(self, other: Packed) -> Packed:
        """Return these and then others of the same kind."""
        scales = None
        if self.scales is not None and other.scales is not None:
            scales = torch.cat([self.scales, other.scales])
        return Packed(torch.cat([self.values, other.values]), scales)

    def take(self, places: Tensor) -> Packed:
        """Return those at some places, packed as they are."""
        return Packed(self.values[places], None if self.scales is None else self.scales[places])

    def as_tensors(self) -> dict[str, Tensor]:
        """Return tensors by name, to be saved."""
        scales = {} if self.scales is None else {"scales": self.scales.contiguous()}
        return {"vectors": self.values.contiguous(), **scales}


def pack(vectors: Tensor, kind: str) -> Tensor | Packed:
    """Pack (m, d) float32 vectors.

    The scale of a vector in bytes is the one that keeps its length: inner products are not shrunk by rounding.

    Args:
        vectors: float32.
        kind: a key of `PACKINGS`.

    Raises:
        UnknownNameError: another kind.
    """
    lookup(PACKINGS, kind, "vectors")
    if kind == "float32":
        return vectors
    if kind == "float16":
        return Packed(vectors.half())
    values, scales = torch.empty(vectors.shape, dtype=torch.int8), torch.empty(len(vectors))
    for start in range(0, len(vectors), 2**15):
        rows = slice(start, start + 2**15)
        part = vectors[rows]
        step = part.abs().amax(1).clamp_min(1e-30) / 127
        whole = (part / step[:, None]).round()
        values[rows] = whole.to(torch.int8)
        scales[rows] = part.norm(dim=1) / whole.norm(dim=1).clamp_min(1e-30)
    return Packed(values, scales)


def kind_of(vectors: Any) -> str:
    """Return the key of `PACKINGS` that tells how vectors are stored."""
    if isinstance(vectors, Packed):
        return "float16" if vectors.scales is None else "int8"
    return "float32"
