"""A model's encoders in other libraries' form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sigmax.data.normal import normal
from sigmax.encoders.labels import has_biases
from sigmax.encoders.module import encodes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["sentence_transformer"]


def sentence_transformer(
    query_encoder: nn.Module, candidate_encoder: nn.Module | None, *, similarity: str, device: torch.device
) -> SentenceTransformer:
    """Return encoders as one SentenceTransformer, sharing their parameters; two become two routes of a Router.

    It reads texts in their normal form, as the model does. Saved and loaded again it is of sentence-transformers' own
    class, which reads them as they come.
    """
    from sentence_transformers.base.modules import Router

    from sentence_transformers import SentenceTransformer

    def modules(encoder: nn.Module) -> list[nn.Module]:
        return list(encoder.children()) if isinstance(encoder, SentenceTransformer) else [encoder]

    class Normalising(SentenceTransformer):
        """Reads texts in their normal form."""

        def preprocess(self, inputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
            texts = [normal(item) if isinstance(item, str) else item for item in inputs]
            return super().preprocess(texts, *args, **kwargs)

    route = modules(query_encoder)
    if has_biases(candidate_encoder):
        route = [*route, *_unit_with_constant(encodes(query_encoder).get_embedding_dimension())]
    if candidate_encoder is not None:
        route = [Router.for_query_document(route, modules(candidate_encoder))]
    return Normalising(modules=route, device=str(device), similarity_fn_name=similarity).eval()


def _unit_with_constant(width: int) -> list[nn.Module]:
    """Modules that do what `sigmax.encoders.labels.unit_with_constant` does: x/|x|, then a matrix that adds a 1."""
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Normalize

    added = torch.cat([torch.eye(width), torch.zeros(1, width)])
    constant = torch.zeros(width + 1)
    constant[-1] = 1
    dense = Dense(width, width + 1, activation_function=nn.Identity(), init_weight=added, init_bias=constant)
    return [Normalize(), dense.requires_grad_(False)]
