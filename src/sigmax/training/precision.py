"""Which precision of matrix products suits this machine."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["has_bfloat16"]

#: Instructions that multiply bfloat16 faster than float32 is multiplied, as `torch.cpu.get_capabilities` names them.
#: Those of AVX-512 alone do not (benchmarks/README.md).
INSTRUCTIONS = ("amx_bf16",)


def has_bfloat16() -> bool:
    """Whether training runs on a CPU that multiplies bfloat16 faster than float32."""
    if torch.cuda.is_available():  # left as it is: nothing was measured there
        return False
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of PyTorch do not tell
    return any(found.get(name, False) for name in INSTRUCTIONS)
