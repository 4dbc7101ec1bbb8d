"""A free vector for each label of a fixed set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sigmax.data.normal import normal
from sigmax.encoders.module import Module
from sigmax.errors import DataError, nearest

__all__ = ["LabelTable"]


class LabelTable(Module):
    """label -> its own vector, a sentence-transformers module whose "texts" are the labels' names.

    Args:
        names: the labels.
        vectors: (labels, d) starting vectors.
        frozen: whether the vectors stay as they are (a plain linear head is the identity, frozen).

    Raises:
        ValueError: not a vector for each label.
    """

    def __init__(self, names: Sequence[str], vectors: Tensor, *, frozen: bool = False) -> None:
        super().__init__()
        self.names = list(names)
        if vectors.ndim != 2 or len(vectors) != len(self.names):
            raise ValueError(f"Expected a vector for each of {len(self.names)} labels, got {tuple(vectors.shape)}.")
        self.frozen = frozen
        self.place = {normal(name): j for j, name in enumerate(self.names)}
        self.vectors = nn.Parameter(vectors.clone(), requires_grad=not frozen)

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
        features["sentence_embedding"] = self.vectors[features["input_ids"]]
        return features

    def get_embedding_dimension(self) -> int:
        """Return the width of the vectors."""
        return self.vectors.shape[1]

    def config(self) -> dict[str, Any]:
        """Return the names, and whether the vectors are frozen."""
        return {"names": self.names, "frozen": self.frozen}

    @classmethod
    def restore(cls, config: dict[str, Any], weights: Mapping[str, Tensor], **_: nn.Module) -> LabelTable:
        """Build a table with the saved vectors."""
        return cls(config["names"], weights["vectors"], frozen=config["frozen"])
