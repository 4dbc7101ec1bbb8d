"""Vectors recomputed in backward instead of stored (gradient checkpointing)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    pass


__all__ = ["Features"]


#: What an encoder reads: tensors by name.
Features = dict[str, Any]


class _Replayed(torch.autograd.Function):
    """Vectors of which nothing is kept but how to make them again, dropout and precision included.

    torch.utils.checkpoint keeps some of what it makes again until the whole backward is done; over hundreds of parts
    that adds up.
    """

    @staticmethod
    def forward(
        ctx: Any, embed: Callable[[Features, str], Tensor], features: Features, side: str, *learnt: nn.Parameter
    ) -> Tensor:
        ctx.embed, ctx.features, ctx.side = embed, features, side
        kind = learnt[0].device.type if learnt else "cpu"
        ctx.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        ctx.random = torch.get_rng_state(), torch.cuda.get_rng_state() if kind == "cuda" else None
        ctx.save_for_backward(*learnt)
        return embed(features, side)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        learnt = ctx.saved_tensors
        kind, dtype, enabled = ctx.autocast
        with torch.random.fork_rng([learnt[0].device] if kind == "cuda" else [], device_type="cuda"):
            torch.set_rng_state(ctx.random[0])
            if ctx.random[1] is not None:
                torch.cuda.set_rng_state(ctx.random[1])
            with torch.enable_grad(), torch.autocast(kind, dtype=dtype, enabled=enabled):
                vectors = ctx.embed(ctx.features, ctx.side)
        return (None, None, None, *torch.autograd.grad(vectors, learnt, arriving, allow_unused=True))
