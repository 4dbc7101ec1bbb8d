"""A free vector for each label of a fixed set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sigmax.encoders.places import module_folder
from sigmax.errors import DataError, nearest

__all__ = ["LabelTable"]


class LabelTable(nn.Module):
    """label -> its own vector, a sentence-transformers module whose "texts" are the labels' names.

    Args:
        names: the labels.
        vectors: (labels, d) starting vectors.
        frozen: whether the vectors stay as they are (a plain linear head is the identity, frozen).
    """

    modalities = ("text",)
    save_in_root = True

    def __init__(self, names: Sequence[str], vectors: Tensor, *, frozen: bool = False) -> None:
        super().__init__()
        self.names = list(names)
        self.frozen = frozen
        self.place = {name: j for j, name in enumerate(self.names)}
        self.vectors = nn.Parameter(vectors.clone(), requires_grad=not frozen)

    def preprocess(self, inputs: Sequence[str], **_: Any) -> dict[str, Tensor]:
        """Names -> input_ids (b,).

        Raises:
            DataError: a label that the table does not have.
        """
        for name in inputs:
            if name not in self.place:
                raise DataError(
                    f"Label {name!r} has no vector: the model knows {len(self.names)} labels."
                    f"{nearest(name, self.names)} A label table cannot take new labels; train again."
                )
        return {"input_ids": torch.tensor([self.place[name] for name in inputs], dtype=torch.int64)}

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Add "sentence_embedding" (b, d) to the features."""
        features["sentence_embedding"] = self.vectors[features["input_ids"]]
        return features

    def get_embedding_dimension(self) -> int:
        """Return the width of the vectors."""
        return self.vectors.shape[1]

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write config.json (the names) and model.safetensors (the vectors)."""
        from safetensors.torch import save_file

        config = json.dumps({"names": self.names, "frozen": self.frozen}, ensure_ascii=False, indent=1)
        Path(output_path, "config.json").write_text(config + "\n", encoding="utf-8")
        save_file({"vectors": self.vectors.detach().contiguous()}, str(Path(output_path, "model.safetensors")))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **given: Any) -> LabelTable:
        """Read what `save` wrote; the arguments are those sentence-transformers gives its modules."""
        from safetensors.torch import load_file

        folder = module_folder(model_name_or_path, subfolder, **given)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        vectors = load_file(str(folder / "model.safetensors"))["vectors"]
        return cls(config["names"], vectors, frozen=config["frozen"])
