"""A free vector for each label of a fixed set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sigmax.data.normal import normal
from sigmax.encoders.module import Module
from sigmax.encoders.rows import rows_of
from sigmax.errors import DataError, nearest
from sigmax.kernels.normalize import normalize

__all__ = ["LabelTable", "has_biases", "unit_with_constant", "with_constant"]


class LabelTable(Module):
    """label -> its own vector, a sentence-transformers module whose "texts" are the labels' names.

    With biases β, label j's vector is (vⱼ/|vⱼ|, βⱼ), of width d + 1: beside (x/|x|, 1), which `unit_with_constant`
    makes of a query, the product is cosine(x, vⱼ) + βⱼ. A cosine alone cannot say that a label is common.

    Args:
        names: the labels.
        vectors: (labels, d) starting vectors.
        biases: (labels,) starting biases, in units of the cosine; None: vectors as they are.
        frozen: whether the vectors stay as they are (a plain linear head is the identity, frozen).

    Raises:
        ValueError: not a vector, or not a bias, for each label.
    """

    tables = ("vectors", "biases")
    biases: nn.Parameter | None

    def __init__(
        self, names: Sequence[str], vectors: Tensor, *, biases: Tensor | None = None, frozen: bool = False
    ) -> None:
        super().__init__()
        self.names = list(names)
        if vectors.ndim != 2 or len(vectors) != len(self.names):
            raise ValueError(f"Expected a vector for each of {len(self.names)} labels, got {tuple(vectors.shape)}.")
        self.frozen = frozen
        self.place = {normal(name): j for j, name in enumerate(self.names)}
        self.vectors = nn.Parameter(vectors.clone(), requires_grad=not frozen)
        if biases is not None and biases.shape != (len(self.names),):
            raise ValueError(f"Expected a bias for each of {len(self.names)} labels, got {tuple(biases.shape)}.")
        given = None if biases is None else nn.Parameter(biases.clone(), requires_grad=not frozen)
        self.register_parameter("biases", given)

    def preprocess(self, inputs: Sequence[str], **_: Any) -> dict[str, Tensor]:
        """Names -> input_ids (b,).

        Raises:
            DataError: a label that the table does not have.
        """
        for name in inputs:
            if normal(name) not in self.place:
                raise DataError(
                    f"Label {name!r} has no vector: the model knows {len(self.names)} labels."
                    f"{nearest(name, self.names)} A label table cannot take new labels; train again."
                )
        return {"input_ids": torch.tensor([self.place[normal(name)] for name in inputs], dtype=torch.int64)}

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Add "sentence_embedding" (b, d) to the features."""
        vectors = rows_of(self.vectors, features["input_ids"])
        if self.biases is not None:
            vectors = torch.cat([normalize(vectors), rows_of(self.biases, features["input_ids"])[:, None]], dim=1)
        features["sentence_embedding"] = vectors
        return features

    def get_embedding_dimension(self) -> int:
        """Return the width of the vectors."""
        return self.vectors.shape[1] + (self.biases is not None)

    def config(self) -> dict[str, Any]:
        """Return the names, and whether the vectors are frozen."""
        return {"names": self.names, "frozen": self.frozen}

    @classmethod
    def restore(cls, config: dict[str, Any], weights: Mapping[str, Tensor], **_: nn.Module) -> LabelTable:
        """Build a table with the saved vectors."""
        return cls(config["names"], weights["vectors"], biases=weights.get("biases"), frozen=config["frozen"])


def has_biases(encoder: nn.Module | None) -> bool:
    """Whether candidates are labels that have a bias each, so that queries need a coordinate of 1."""
    return isinstance(encoder, LabelTable) and encoder.biases is not None


def unit_with_constant(vectors: Tensor) -> Tensor:
    """(b, d) vectors of queries -> (b, d + 1): of length 1, and a coordinate of 1 that meets the labels' biases."""
    return with_constant(normalize(vectors))


def with_constant(vectors: Tensor) -> Tensor:
    """Append a coordinate of 1: (b, d) -> (b, d + 1)."""
    return torch.cat([vectors, torch.ones_like(vectors[:, :1])], dim=1)
