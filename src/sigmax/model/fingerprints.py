"""Which vectors are whose: hashes of what makes vectors, and of the candidates that were encoded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from sigmax.model.dual_encoder import DualEncoder

__all__ = ["fingerprints", "texts_fingerprint", "vectors_fingerprint"]


def vectors_fingerprint(query_encoder: nn.Module, candidate_encoder: nn.Module | None, similarity: str) -> str:
    """Return a hash of all that vectors are made by: the weights of the encoders, and how vectors are prepared."""
    hashed = hashlib.blake2b(similarity.encode(), digest_size=16)
    for side, encoder in (("query", query_encoder), ("candidate", candidate_encoder)):
        for name, tensor in () if encoder is None else sorted(encoder.state_dict().items()):
            hashed.update(f"{side} {name} {tuple(tensor.shape)}".encode())
            hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()


def texts_fingerprint(ids: Iterable[str], texts: Iterable[str]) -> str:
    """Return a hash of candidates: their ids and texts, in their order."""
    hashed = hashlib.blake2b(digest_size=16)
    for key, text in zip(ids, texts, strict=True):
        hashed.update(f"{len(key)} {key}{len(text)} {text}".encode())
    return hashed.hexdigest()


def fingerprints(folder: Path, model: DualEncoder) -> dict[str, str]:
    """Return the hashes of what is in a model folder, by "vectors" and "candidates": as it says, or made anew.

    Args:
        folder: which may be none, for a model that was not saved.
        model: that it holds.
    """
    about = folder / "sigmax.json"
    saved: dict[str, str] | None = None
    if about.exists():
        saved = json.loads(about.read_text(encoding="utf-8")).get("fingerprints")
    return saved or {
        "vectors": vectors_fingerprint(model.query_encoder, model.candidate_encoder, model.loss.similarity),
        "candidates": texts_fingerprint(model.candidate_ids, model.candidates),
    }
