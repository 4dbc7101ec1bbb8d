"""Which process this is, and of how many: rank, world size, and what is true on all of them.

A launcher (torchrun) says so in the environment, before any process knows of another; `torch.distributed` says so once
they are connected. This is the only file that reads either.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["all_true", "is_first", "launched", "rank", "world_size"]


def launched() -> int:
    """Return how many processes the launcher started; 0 where there is no launcher."""
    return int(os.environ.get("WORLD_SIZE", "0"))


def rank() -> int:
    """Return this process's number among those launched, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Return whether this is the one process that judges, writes and reports for all."""
    return rank() == 0


def world_size() -> int:
    """Return how many processes are connected: 1 until `torch.distributed` is initialised."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_true(mine: bool, device: torch.device) -> bool:
    """Return whether `mine` is true on every connected process."""
    import torch
    import torch.distributed as dist

    flag = torch.tensor(int(mine), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MIN)
    return bool(flag)
