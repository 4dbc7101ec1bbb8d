"""A folder of pictures for each label: cat/1.jpg, or train/cat/1.jpg."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.labelled_pictures import Labelled, assemble, listed, picture_files
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.pictures import Picture
from sigmax.data.splits import SPLIT_NAMES, split_of
from sigmax.errors import DataError, nearest

__all__ = ["READER"]


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether pictures lie in folders of a folder that has no tables."""
    return path.is_dir() and not found and any(file.parent != path for file in picture_files(path))


def _read(path: Path, reading: Reading) -> MatchDataset:
    """Read cat/1.jpg, or train/cat/1.jpg: the label is the name of the first folder, however deep the picture lies.

    Pictures beside the folders of the labels have none of them.
    """
    places = [(file, file.relative_to(path).parts) for file in picture_files(path)]
    folders = {parts[0] for _, parts in places if len(parts) > 1}
    deep = {parts[0] for _, parts in places if len(parts) > 2}
    splits = deep & SPLIT_NAMES.keys()
    if not splits and folders <= SPLIT_NAMES.keys():
        raise DataError(
            f"{path}: pictures lie in {listed(folders)} without a folder for each label, as in train/cat/1.jpg, and "
            "without a table of labels (metadata.csv with file_name and label)."
        )
    letters = [re.sub("[^a-z]", "", name.lower()) for name in folders]  # of train2017
    if not splits and all(nearest(name, SPLIT_NAMES, cutoff=0.7) for name in letters):
        split_of(min(folders), str(path / min(folders)))
    if splits:
        for name in sorted(folders - SPLIT_NAMES.keys()):
            split_of(name, str(path / name))
        loose = [file for file, parts in places if len(parts) == 1]
        if loose:
            raise DataError(
                f"{loose[0]}: {len(loose):,} pictures lie beside the folders of the splits ({listed(folders)}) and "
                "belong to none. Move them into one, or away."
            )
    rows = []
    for file, parts in places:
        inside = parts[1:] if splits else parts
        part = SPLIT_NAMES[parts[0]] if splits else None
        rows.append(Labelled(Picture("/".join(parts), file), inside[:-1][:1], part))
    labels = {label for row in rows for label in row.labels}
    if len(labels) == 1 and all(row.labels for row in rows):
        raise DataError(
            f"{path}: all pictures lie in the folder {listed(labels)}. Expected a folder for each label, or pictures "
            "with none of the labels beside it."
        )
    return assemble(path, rows, reading.seed)


READER = Reader(
    name="classes",
    describes="a folder of pictures for each label: cat/1.jpg, or train/cat/1.jpg, test/cat/2.jpg; pictures beside the "
    "folders have none of the labels",
    claims=_claims,
    read=_read,
)
