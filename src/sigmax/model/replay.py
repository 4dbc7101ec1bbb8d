"""Vectors recomputed in backward instead of stored (gradient checkpointing)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["Features", "Replayed"]


#: What an encoder reads, by name: tensors, and whatever else its `preprocess` gives.
Features = dict[str, Any]


class Replayed(torch.autograd.Function):
    """Vectors that backward encodes again, with the same dropout and precision, instead of keeping activations.

    torch.utils.checkpoint keeps some of what it recomputes until the whole backward is done; over hundreds of parts
    that adds up.
    """

    @staticmethod
    def forward(
        ctx: Any, embed: Callable[[Features, str], Tensor], features: Features, side: str, *learnt: nn.Parameter
    ) -> Tensor:
        """Encode, and keep what it takes to encode again."""
        ctx.embed, ctx.features, ctx.side = embed, features, side
        kind = learnt[0].device.type if learnt else "cpu"
        ctx.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        ctx.random = torch.get_rng_state(), torch.cuda.get_rng_state() if kind == "cuda" else None
        ctx.save_for_backward(*learnt)
        return embed(features, side)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor | None, ...]:
        """Encode again, with the same random numbers and precision, and go back through that."""
        learnt = ctx.saved_tensors
        kind, dtype, enabled = ctx.autocast
        with torch.random.fork_rng([learnt[0].device] if kind == "cuda" else [], device_type="cuda"):
            torch.set_rng_state(ctx.random[0])
            if ctx.random[1] is not None:
                torch.cuda.set_rng_state(ctx.random[1])
            with torch.enable_grad(), torch.autocast(kind, dtype=dtype, enabled=enabled):
                vectors = ctx.embed(ctx.features, ctx.side)
        return (None, None, None, *torch.autograd.grad(vectors, learnt, arriving, allow_unused=True))
