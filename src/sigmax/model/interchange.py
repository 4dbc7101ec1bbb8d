"""A model's encoders in other libraries' form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["sentence_transformer"]


def sentence_transformer(
    query_encoder: nn.Module, candidate_encoder: nn.Module | None, *, similarity: str, device: torch.device
) -> SentenceTransformer:
    """Return encoders as one SentenceTransformer, sharing their parameters; two become two routes of a Router."""
    from sentence_transformers.base.modules import Router

    from sentence_transformers import SentenceTransformer

    def modules(encoder: nn.Module) -> list[nn.Module]:
        return list(encoder.children()) if isinstance(encoder, SentenceTransformer) else [encoder]

    route = modules(query_encoder)
    if candidate_encoder is not None:
        route = [Router.for_query_document(route, modules(candidate_encoder))]
    return SentenceTransformer(modules=route, device=str(device), similarity_fn_name=similarity).eval()
