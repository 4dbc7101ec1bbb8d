"""Static token vectors, averaged: what model2vec and StaticEmbedding of sentence-transformers save."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sigmax.encoders.module import Module, module_folder
from sigmax.encoders.rows import add_rows
from sigmax.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["StaticVectors"]


class StaticVectors(Module):
    """text -> the mean of its tokens' vectors.

    Saved as sentence-transformers' StaticEmbedding, which reads it; unlike that class it needs neither
    sentence-transformers nor transformers.

    Args:
        tokenizer: of the tokenizers package.
        vectors: (v, d) float32, one per token.
    """

    saved_type = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
    tables = ("embedding.weight",)
    also_reads = ("sentence_transformers.models.StaticEmbedding",)

    def __init__(self, tokenizer: Tokenizer, vectors: Tensor) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.tokenizer.no_padding()
        self.embedding = nn.EmbeddingBag.from_pretrained(vectors, freeze=False)

    @classmethod
    def read(cls, folder: Path) -> StaticVectors:
        """Read a folder of model2vec; int8 vectors become float32, so that they can be trained.

        int8 vectors come without their scale. Cosines do not need it; training does: it determines how far a step of
        the optimizer goes. 1/127 brings the vectors to a length near 1.

        Raises:
            DataError: a file without vectors.
        """
        from tokenizers import Tokenizer

        tensors = load_file(str(folder / "model.safetensors"))
        if "embeddings" not in tensors:
            raise DataError(
                f"{folder}/model.safetensors: expected a tensor named embeddings, got {', '.join(tensors)}."
            )
        vectors = tensors["embeddings"]
        vectors = vectors.float() / 127 if vectors.dtype == torch.int8 else vectors.float()
        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")), vectors)

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Texts -> input_ids (k,) and offsets (b,): the tokens of all texts one after the other."""
        texts = [(prompt or "") + text for text in inputs]
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(texts, add_special_tokens=False)]
        ends = np.cumsum([0, *map(len, tokens)])
        return {
            "input_ids": torch.from_numpy(np.concatenate([np.empty(0), *tokens]).astype(np.int64)),
            "offsets": torch.from_numpy(ends[:-1]),
        }

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Add "sentence_embedding" (b, d) to the features."""
        features["sentence_embedding"] = add_rows(
            self.embedding.weight, features["input_ids"], features["offsets"], mode="mean"
        )
        return features

    def get_embedding_dimension(self) -> int:
        """Return the width of the vectors."""
        return self.embedding.embedding_dim

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write tokenizer.json and model.safetensors, as StaticEmbedding does."""
        self.tokenizer.save(str(Path(output_path, "tokenizer.json")))
        save_file(self.state_dict(), str(Path(output_path, "model.safetensors")))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **given: Any) -> StaticVectors:
        """Read what `save` or StaticEmbedding wrote."""
        from tokenizers import Tokenizer

        folder = module_folder(model_name_or_path, subfolder, **given)
        vectors = load_file(str(folder / "model.safetensors"))["embedding.weight"]
        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")), vectors)
