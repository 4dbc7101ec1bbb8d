"""A folder of pictures for each label: cat/1.jpg, or train/cat/1.jpg."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.labelled_pictures import Labelled, assemble, files_below, is_picture, listed
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.pictures import Picture
from sigmax.data.splits import SPLIT_NAMES, split_in, split_of
from sigmax.errors import DataError, nearest

__all__ = ["READER"]

Place = tuple[Path, tuple[str, ...]]  # a file, and the folders and the name that lead to it

#: Folders that hold one side of an annotation, and are no labels.
SIDES = {"images", "image", "imgs", "img", "pictures", "masks", "mask", "labels"}
SIDES |= {"annotations", "annotation", "segmentations", "gt", "ground_truth"}


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether pictures lie in folders of a folder whose tables, if any, are about something else."""
    if not path.is_dir() or {"text", "query", "image", "file_name"} & {*found}:
        return False
    return any(file.parent != path and is_picture(file) for file in files_below(path))


def _read(path: Path, reading: Reading) -> MatchDataset:
    """Read cat/1.jpg, or train/cat/1.jpg: the label is the name of the first folder, however deep the picture lies.

    Pictures beside the folders of the labels have none of them. Folders are those of splits if two of them have words
    of different splits in their names, or one is called exactly so and holds folders; then all have to be.
    """
    files = [(file, file.relative_to(path).parts) for file in files_below(path)]
    places = [(file, parts) for file, parts in files if is_picture(file)]
    folders = sorted({parts[0] for _, parts in places if len(parts) > 1})
    splits = _splits(path, folders, {parts[0] for _, parts in places if len(parts) > 2})
    rows = []
    for folder in folders if splits else [""]:
        below = [(file, parts) for file, parts in places if not splits or parts[0] == folder]
        skipped = _wrapping(below, folder) if splits else 0
        if splits and all(len(parts) == skipped + 1 for _, parts in below):
            raise DataError(
                f"{below[0][0].parent}: {len(below):,} pictures without a folder for each label, as other splits have. "
                "Sort them into such folders, or move them away."
            )
        for file, parts in below:
            labels = parts[skipped:-1][:1]
            rows.append(Labelled(Picture("/".join(parts), file), labels, splits.get(folder)))
    loose = [file for file, parts in places if len(parts) == 1]
    if splits and loose:
        raise DataError(
            f"{loose[0]}: {len(loose):,} pictures lie beside the folders of the splits ({listed(folders)}) and "
            "belong to none. Move them into one, or away."
        )
    notes = _left_out(path, files, places)
    labels_found = {label for row in rows for label in row.labels}
    if len(labels_found) == 1 and all(row.labels for row in rows):
        raise DataError(
            f"{path}: all pictures lie in the folder {listed(labels_found)}. Expected a folder for each label, or "
            "pictures with none of the labels beside it."
        )
    if labels_found and all(label.lower() in SIDES for label in labels_found):
        raise DataError(
            f"{path}: the folders {listed(labels_found)} look like the sides of an annotation and not like labels. "
            "Expected a folder for each label, or a table that names pictures and their labels."
        )
    return assemble(path, rows, reading.seed, notes)


def _splits(path: Path, folders: Sequence[str], deep: Iterable[str]) -> dict[str, str]:
    """Folder -> its split; empty where the folders are labels.

    Raises:
        DataError: folders of splits that hold pictures without a folder for each label, or beside folders of no split.
    """
    exact = {name for name in folders if name.lower() in SPLIT_NAMES}
    parts = {name: part for name in folders if (part := split_in(name))}
    if not (len({*parts.values()}) > 1 or len(parts) == len(folders) or exact & {*deep}):
        odd = {name for name in exact if SPLIT_NAMES[name.lower()] != "train"}  # a train may be a label
        if not odd:
            return {}
        parts = {name: SPLIT_NAMES[name.lower()] for name in odd}
    others = sorted({*folders} - parts.keys())
    if others:
        if nearest(others[0], SPLIT_NAMES, cutoff=0.7):
            split_of(others[0], str(path / others[0]))
        raise DataError(
            f"{path / others[0]}: expected a folder of a split, as {listed(parts)} beside it, got {listed(others)}. "
            "Move folders without labels away; or rename those of the splits, if all of them are labels."
        )
    if folders and not {*folders} & {*deep}:
        raise DataError(
            f"{path}: pictures lie in {listed(folders)} without a folder for each label, as in train/cat/1.jpg, and "
            "without a table of labels (metadata.csv with file_name and label)."
        )
    return parts


def _wrapping(places: Sequence[Place], folder: str) -> int:
    """How many folders lead from the root to those of the labels: the split's, and those that only wrap it again."""
    skipped = 1
    while True:
        names = {parts[skipped] for _, parts in places if len(parts) > skipped + 2}
        whole = all(len(parts) > skipped + 2 for _, parts in places)
        if not whole or len(names) != 1:
            return skipped
        name = names.pop()
        if name != folder and name.lower() not in (*SPLIT_NAMES, "images", "data"):
            return skipped
        skipped += 1


def _left_out(path: Path, files: Sequence[Place], pictures: Sequence[Place]) -> list[str]:
    """A note about files in folders of labels that are no pictures.

    Raises:
        DataError: a folder with files and without any picture, whose label would vanish.
    """
    others = [(file, parts) for file, parts in files if len(parts) > 1 and not is_picture(file)]
    held = {file.parent for file, _ in pictures}
    for file, parts in others:
        if not any(folder.is_relative_to(path / parts[0]) for folder in held):
            raise DataError(
                f"{path / parts[0]}: no picture in it that can be read, but files such as {file.name}: its label would "
                "be lost. Convert them to PNG or JPEG, or remove the folder."
            )
    if not others:
        return []
    kinds = Counter(file.suffix.lower() or "no ending" for file, _ in others)
    shown = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common(5))
    return [f"{len(others):,} files in the folders of the labels are no pictures and were left out ({shown})."]


READER = Reader(
    name="classes",
    describes="a folder of pictures for each label: cat/1.jpg, or train/cat/1.jpg, test/cat/2.jpg; pictures beside the "
    "folders have none of the labels",
    claims=_claims,
    read=_read,
)
