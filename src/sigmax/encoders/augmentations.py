"""Random changes to pictures in training, so that a network does not depend on position, size or angle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AUGMENTATIONS"]


def _none(pixels: Tensor) -> Tensor:
    """The pixels as they are."""
    return pixels


def _upright(pixels: Tensor) -> Tensor:
    """Rotated, zoomed and shifted a little, never mirrored: for digits, letters and signs."""
    return _moved(pixels, mirror=False)


def _mirrored(pixels: Tensor) -> Tensor:
    """The same, and every other picture mirrored."""
    return _moved(pixels, mirror=True)


def _moved(pixels: Tensor, mirror: bool) -> Tensor:
    """(b, c, s, s) each picture rotated by up to 10°, zoomed and shifted by up to a tenth; edges repeat."""
    import torch
    from torch.nn import functional as F

    b = len(pixels)
    drawn = torch.rand(4, b, device=pixels.device) * 2 - 1
    angle, zoom = drawn[0] * (torch.pi / 18), 1 + 0.1 * drawn[1]
    across, down = zoom * torch.cos(angle), zoom * torch.sin(angle)
    flip = torch.where(torch.rand(b, device=pixels.device) < 0.5, -1.0, 1.0) if mirror else torch.ones_like(angle)
    rows = [
        torch.stack([across * flip, -down, 0.2 * drawn[2]], dim=1),
        torch.stack([down * flip, across, 0.2 * drawn[3]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


#: Augmentations by name: pixels (b, c, s, s) -> pixels; the docstring says what each does.
AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": _none, "upright": _upright, "mirrored": _mirrored}
