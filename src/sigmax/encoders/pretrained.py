"""Encoders trained by others: any sentence-transformers model by name or path, and folders of static vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sigmax.errors import DataError, first_line

if TYPE_CHECKING:
    from torch import nn

__all__ = ["UnloadableError", "is_static", "load_pretrained"]


class UnloadableError(DataError):
    """There is no such model, or it does not load."""


def is_static(folder: Path) -> bool:
    """Whether a folder is one of model2vec: a table of vectors, a tokenizer, and no network."""
    config = folder / "config.json"
    return (
        config.exists()
        and (folder / "tokenizer.json").exists()
        and json.loads(config.read_text(encoding="utf-8")).get("model_type") == "model2vec"
    )


def load_pretrained(name: str) -> nn.Module:
    """Load a sentence-transformers model by name or path, or a folder of static vectors.

    Raises:
        UnloadableError: no such model.
        DataError: a folder without vectors.
    """
    if is_static(Path(name)):
        from sigmax.encoders.static import StaticVectors

        return StaticVectors.read(Path(name))
    from sentence_transformers import SentenceTransformer

    try:
        model: nn.Module = SentenceTransformer(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise UnloadableError(f"The encoder {name!r} did not load: {first_line(error)}") from error
    return model
