"""The folder of calibrated scores: what it is known by; light, for whoever only has to tell it from a model's."""

from __future__ import annotations

from pathlib import Path

from sigmax.errors import DataError

__all__ = ["FILE", "check_score_place", "is_score_folder"]

#: What a folder of calibrated scores is known by.
FILE = "scores.json"
PARTS = frozenset({FILE, "dev.safetensors", "lists.safetensors", "README.md"})


def is_score_folder(folder: str | Path) -> bool:
    """Whether `ScoreModel.save` wrote there."""
    return (Path(folder) / FILE).is_file()


def check_score_place(folder: Path) -> None:
    """Check that calibrated scores may be written there: nothing, an empty folder or such are there.

    Raises:
        DataError: something else, which would be lost.
    """
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name} if folder.exists() else set()
    if found - PARTS:
        raise DataError(f"{folder}: is there already and no calibrated scores. Choose another folder, or remove it.")
