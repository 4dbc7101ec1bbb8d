"""Encode texts of similar length together: filling short ones up to the longest of a batch costs as much as words do.

A batch stays what it is, and so does what its loss sees: only the passes through the network are of parts of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["by_length", "runs_of"]

#: What one more pass costs, in tokens: gradients of all weights are added up once more, each layer is called once more.
#: On a GPU, where a pass waits for the launches of its kernels, more.
PASS = {"cpu": 256, "cuda": 8192}
#: Tokens of a pass without gradient, at most, where it is of several texts: they bound the memory of its activations.
MOST = 2**15


def by_length(encoder: nn.Module, features: Mapping[str, Any]) -> Tensor:
    """Encode features, padded rows of tokens in parts of similar length: -> (b, d), in the order given.

    Features of anything but rows of tokens, padded at their ends, go to the encoder as they are.
    """
    mask = features.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2 or not len(mask) or not bool(mask[:, 0].all()):
        return _vectors(encoder, features)
    lengths = mask.sum(1)
    order = torch.argsort(lengths, descending=True, stable=True)
    falling = lengths[order].tolist()
    most = MOST if not torch.is_grad_enabled() else 2**62
    runs = runs_of(falling, PASS.get(mask.device.type, PASS["cuda"]), most)
    if len(runs) == 1:
        return _vectors(encoder, features)
    parts = [_vectors(encoder, _part(features, order[run], falling[run.start], mask)) for run in runs]
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return torch.cat(parts)[back]


def runs_of(lengths: Sequence[int], cost: int, most: int) -> list[slice]:
    """Cut falling lengths into runs, each padded to its first, wherever that saves more than a pass costs.

    The best cut of a run is looked for first, then those of its two parts.

    Args:
        lengths: falling, at least one.
        cost: of a pass, in tokens.
        most: tokens of a run of several, at most.
    """
    done: list[slice] = []
    left = [slice(0, len(lengths))]
    falling = np.asarray(lengths)
    while left:
        run = left.pop()
        inside = falling[run]
        saved = (len(inside) - np.arange(len(inside))) * (inside[0] - inside)  # by a cut before each
        cut = int(saved.argmax())
        if saved[cut] <= cost:
            cut = 0
            if len(inside) > 1 and len(inside) * int(inside[0]) > most:
                cut = max(1, min(most // max(int(inside[0]), 1), len(inside) - 1))
        if cut:
            left += [slice(run.start + cut, run.stop), slice(run.start, run.start + cut)]
        else:
            done.append(run)
    return done


def _part(features: Mapping[str, Any], rows: Tensor, longest: int, mask: Tensor) -> dict[str, Any]:
    """Some rows of the features, as long as the longest of them."""
    made: dict[str, Any] = {}
    for name, value in features.items():
        if isinstance(value, Tensor) and value.shape[:1] == mask.shape[:1]:
            value = value[rows]
            if value.shape[1:2] == mask.shape[1:2]:
                value = value[:, :longest]
        made[name] = value
    return made


def _vectors(encoder: nn.Module, features: Mapping[str, Any]) -> Tensor:
    vectors: Tensor = encoder(dict(features))["sentence_embedding"]
    return vectors
