"""Encoders trained by others: any sentence-transformers model by name or path, and folders of static vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sigmax.errors import DataError, first_line

__all__ = ["is_static", "load_pretrained"]


def load_pretrained(name: str) -> nn.Module:
    """Load a sentence-transformers model by name or path; int8 static vectors are made trainable.

    Raises:
        DataError: no such model.
    """
    folder = Path(name)
    if folder.is_dir() and is_static(folder):
        return _static(folder)
    from sentence_transformers import SentenceTransformer

    try:
        model: nn.Module = SentenceTransformer(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"Expected `encoder` to be ngrams, ngrams-linear, or a sentence-transformers model by name or path; "
            f"{name!r} did not load: {first_line(error)}"
        ) from error
    return model


def is_static(folder: Path) -> bool:
    """Whether a folder is a model2vec one: a table of vectors, a tokenizer, and no network."""
    config = folder / "config.json"
    return (
        config.exists()
        and (folder / "tokenizer.json").exists()
        and json.loads(config.read_text(encoding="utf-8")).get("model_type") == "model2vec"
    )


def _static(folder: Path) -> nn.Module:
    """Mean of the token vectors. sentence-transformers cannot train int8 vectors, so they are brought to float32.

    int8 vectors come without their scale. Cosines do not need it; training does: it sets how far a step of the
    optimizer goes. 1/127 brings the vectors to a length near 1.
    """
    from safetensors.torch import load_file
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    from sentence_transformers import SentenceTransformer

    tensors: dict[str, Any] = load_file(str(folder / "model.safetensors"))
    if "embeddings" not in tensors:
        raise DataError(f"{folder}/model.safetensors: expected a tensor named embeddings, got {', '.join(tensors)}.")
    vectors = tensors["embeddings"]
    vectors = vectors.float() / 127 if vectors.dtype == torch.int8 else vectors.float()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=vectors)], device="cpu")  # type: ignore[no-any-return]
