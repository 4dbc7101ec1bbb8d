"""Pictures as NumPy arrays in an .npz file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.cells import named
from sigmax.data.formats.labelled_pictures import Labelled, assemble
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.pictures import Picture, Pixels
from sigmax.data.splits import split_of
from sigmax.errors import DataError

__all__ = ["READER"]


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether the path is a file whose name ends in .npz."""
    return path.suffix == ".npz" and path.is_file()


def _read(path: Path, reading: Reading) -> MatchDataset:
    """Read an .npz file with images and labels, x_train and y_train, or train_images and train_labels; never pickles.

    Images: (n, h, w), (n, h, w, 1 or 3) or (n, 1 or 3, h, w) in uint8, or floats in [0, 1]. Labels: (n,) or (n, 1)
    integers or texts, or (n, L) zeros and ones. label_names: (L,) texts. split: (n,) texts, beside images.
    """
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # whatever a broken archive makes NumPy, zipfile and zlib stumble over
        advice = " Save texts as str, not as object." if "pickle" in str(error) else ""
        reason = str(error).partition(" If you trust")[0].rstrip(".")
        raise DataError(f"{path}: not a readable .npz file without pickles: {reason}.{advice}") from None
    names = _texts(arrays["label_names"], f"{path}, label_names") if "label_names" in arrays else None
    rows: list[Labelled] = []
    for key in arrays:
        match = re.fullmatch(r"(images)|x_(\w+)|(\w+)_images", key)
        if match is None:
            continue
        partner = "labels" if match[1] else f"y_{match[2]}" if match[2] else f"{match[3]}_labels"
        where = f"{path}, {key}"
        part = None if match[1] else split_of(match[2] or match[3], where)
        if partner not in arrays:
            raise DataError(f"{where}: no array {partner} beside it; there are {', '.join(arrays)}.")
        images = _pixels(arrays[key], where)
        labels = _array_labels(arrays[partner], names, f"{path}, {partner}")
        parts: Sequence[str | None] = [part] * len(images)
        if match[1] and "split" in arrays:
            parts = [split_of(name, f"{path}, split") for name in _texts(arrays["split"], f"{path}, split")]
        if not len(images) == len(labels) == len(parts):
            raise DataError(
                f"{where}: expected as many images, labels and splits, got {len(images)}, {len(labels)}, {len(parts)}."
            )
        rows += [
            Labelled(Picture(f"{key}[{i}]", image), some, its_part)
            for i, (image, some, its_part) in enumerate(zip(images, labels, parts, strict=True))
        ]
    if not rows:
        raise DataError(
            f"{path}: expected arrays images and labels, x_train and y_train, or train_images and train_labels, got "
            f"{', '.join(arrays) or 'none'}."
        )
    return assemble(path, rows, reading.seed)


def _pixels(images: NDArray[Any], where: str) -> Pixels:
    """(n, h, w) or (n, h, w, 3) in uint8."""
    shape = images.shape
    if images.ndim == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)) or not images.size:
        raise DataError(f"{where}: expected the shape (n, height, width) or (n, height, width, 1 or 3), got {shape}.")
    if images.dtype.kind == "f":
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):
            raise DataError(f"{where}: expected floats in [0, 1], or uint8, got {low:g} to {high:g}.")
        images = np.rint(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise DataError(f"{where}: expected uint8, or floats in [0, 1], got {images.dtype}. Try .astype(np.uint8).")
    return np.ascontiguousarray(images)


def _array_labels(labels: NDArray[Any], names: Sequence[str] | None, where: str) -> list[list[str]]:
    """Labels of each row: of (n,) or (n, 1) the one, of (n, L) those with a 1."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        if labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
            raise DataError(f"{where}: expected zeros and ones in an array (n, labels), got other values.")
        if names is not None and len(names) != labels.shape[1]:
            raise DataError(f"{where}: expected {len(names)} columns, one for each of label_names, got {labels.shape}.")
        return [[str(j) if names is None else names[j] for j in np.flatnonzero(row).tolist()] for row in labels]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind in "iu" and labels.ndim == 1:
        return [[named(value, names, where, "labels")] for value in labels.tolist()]
    return [[text] if text else [] for text in _texts(labels, where)]


def _texts(array: NDArray[Any], where: str) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise DataError(f"{where}: expected one text each, got {array.dtype} {array.shape}.")
    try:
        return (
            [str(text).strip() for text in np.char.decode(array, "utf-8").tolist()]
            if array.dtype.kind == "S"
            else [str(text).strip() for text in array.tolist()]
        )
    except UnicodeDecodeError:
        raise DataError(f"{where}: not UTF-8.") from None


READER = Reader(
    name="npz",
    describes="pictures as arrays: an .npz file with images and labels (optionally split and label_names), or x_train, "
    "y_train, x_test, …, or train_images, train_labels, val_images, …",
    claims=_claims,
    read=_read,
    endings=(".npz",),
)
