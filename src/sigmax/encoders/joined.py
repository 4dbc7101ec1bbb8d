"""Two encoders side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sigmax.encoders.module import Module, encodes

__all__ = ["Joined"]


class Joined(Module):
    """The vectors of two encoders one after the other: a label's products with both add up in its logit.

    Args:
        first: an encoder of texts, (b, d₁) vectors.
        second: another, (b, d₂) vectors.
    """

    parts = ("first", "second")

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def preprocess(self, inputs: Sequence[str], **_: Any) -> dict[str, Any]:
        """Texts -> the features of both, each by the name of its encoder."""
        return {
            f"{part}.{name}": value
            for part in self.parts
            for name, value in encodes(getattr(self, part)).preprocess(inputs).items()
        }

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add "sentence_embedding" (b, d₁ + d₂) to the features."""
        vectors: list[Tensor] = []
        for part in self.parts:
            own = {name.removeprefix(f"{part}."): value for name, value in features.items() if name.startswith(part)}
            vectors.append(getattr(self, part)(own)["sentence_embedding"])
        features["sentence_embedding"] = torch.cat(vectors, dim=1)
        return features

    def get_embedding_dimension(self) -> int:
        """Return the width of the vectors."""
        return sum(encodes(getattr(self, part)).get_embedding_dimension() for part in self.parts)
