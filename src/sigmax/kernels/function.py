"""Calls of PyTorch's autograd functions."""

from __future__ import annotations

from typing import Any

from torch.autograd import Function

__all__ = ["apply"]


def apply(function: type[Function], *given: Any) -> Any:
    """Call `function.apply`, which PyTorch leaves untyped."""
    return function.apply(*given)
