"""What figures share: colours, and how they are written to files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from sigmax.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "FORMATS", "GREY", "save_figure"]

COLOURS = {"softmax": "#c2571a", "sigmoid": "#1f6f8b", "today": "#7a7a7a"}
#: For notes and units.
GREY = "#444444"
#: File endings of figures.
FORMATS = (".png", ".svg", ".pdf")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure atomically, on white: legible on light and dark pages.

    Raises:
        ValueError: the path does not end in one of `FORMATS`.
    """
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise ValueError(f"Expected a figure's file to end in {', '.join(FORMATS)}, got {str(path)!r}.")
    drawn = io.BytesIO()
    figure.savefig(drawn, format=ending[1:], dpi=160, facecolor="white")
    write_bytes(path, drawn.getvalue())
