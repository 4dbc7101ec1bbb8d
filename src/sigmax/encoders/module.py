"""Encoders as folders that sentence-transformers can load.

`SentenceTransformer(folder)` reads those of its own modules as they are. For ours it asks for trust_remote_code=True:
without, it imports no class from outside its own package, be it installed or not. What is imported then is the
installed Sigmax; a folder holds no code. `DualEncoder.as_sentence_transformer` needs no such consent: it hands the
modules over already built.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from sigmax.encoders.frozen import FrozenEncoder
from sigmax.encoders.images import PictureEncoder
from sigmax.encoders.labels import LabelTable
from sigmax.encoders.ngrams import NgramEmbedding
from sigmax.encoders.pretrained import load_pretrained
from sigmax.errors import DataError

__all__ = ["load_encoder", "save_encoder"]

_OURS = {
    f"{module.__module__}.{module.__name__}": module
    for module in (NgramEmbedding, LabelTable, PictureEncoder, FrozenEncoder)
}


def save_encoder(encoder: nn.Module, folder: Path) -> None:
    """Write an encoder as a sentence-transformers model folder."""
    folder.mkdir(parents=True)
    kind = f"{type(encoder).__module__}.{type(encoder).__name__}"
    if kind not in _OURS:
        encoder.save(str(folder), create_model_card=False)  # type: ignore[operator]
        return
    encoder.save(str(folder))  # type: ignore[operator]
    modules = [{"idx": 0, "name": "0", "path": "", "type": kind}]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")


def load_encoder(folder: Path) -> nn.Module:
    """Read an encoder that `save_encoder` wrote.

    Raises:
        DataError: not a sentence-transformers model folder.
    """
    listing = folder / "modules.json"
    if not listing.exists():
        raise DataError(f"{folder}: expected a sentence-transformers model folder, got one without modules.json.")
    kind = json.loads(listing.read_text(encoding="utf-8"))[0]["type"]
    if kind in _OURS:
        return _OURS[kind].load(str(folder))
    return load_pretrained(str(folder))
