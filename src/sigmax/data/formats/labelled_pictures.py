"""What the formats of labelled pictures share: finding files, refusing missing ones, and the data set made of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.cells import LabelNames
from sigmax.data.formats.opening import stem_of
from sigmax.data.pictures import ENDINGS, Picture, digests
from sigmax.data.splits import complete
from sigmax.errors import DataError

__all__ = [
    "Labelled",
    "NamedPictures",
    "assemble",
    "escapes",
    "files_below",
    "is_picture",
    "listed",
    "picture_files",
    "refuse_missing",
]


#: How files of pictures begin.
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"P5\n", b"P6\n")


class Labelled(NamedTuple):
    """A picture, its labels, and its split where one is given."""

    picture: Picture
    labels: Sequence[str]
    part: str | None


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Files below a folder, in order of name; hidden ones, __MACOSX and what Windows adds are left out.

    A link to a folder is followed, except to one of those it lies in (`above`). A link to nothing is a file that
    cannot be read.

    Raises:
        DataError: a folder that cannot be listed, or a name that is not UTF-8.
    """
    here = folder.resolve()
    if here in above:
        return
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, os.path.isdir(entry)) for entry in entries)  # a link to itself is none
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror or error}.") from None
    for name, is_folder in found:
        if name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini"):
            continue
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            shown = os.fsencode(name).decode(errors="replace")
            raise DataError(f"{folder}: the name {shown!r} in it is not UTF-8. Rename it.")
        path = folder / name
        if is_folder:
            yield from files_below(path, (*above, here))
        elif os.path.isfile(path) or not os.path.exists(path):
            yield path


def is_picture(file: Path) -> bool:
    """Return whether a file is named like a picture or, under any other name, begins like one that can be read."""
    if file.suffix.lower() in ENDINGS:
        return True
    try:
        with file.open("rb") as content:
            head = content.read(16)
    except OSError:
        return False
    return head.startswith(MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:12] == b"ftypavif"


def picture_files(folder: Path) -> Iterator[Path]:
    """Pictures below a folder, see `files_below` and `is_picture`."""
    return filter(is_picture, files_below(folder))


class NamedPictures:
    """Picture files that others name; `check` refuses those that are missing."""

    def __init__(self) -> None:
        self.missing: list[tuple[str, str]] = []
        self.total = 0

    def find(self, folder: Path, name: str, where: str) -> Path:
        """The file of a name that leads no way out of the folder."""
        if escapes(name):
            raise DataError(f"{where}: expected a path inside {folder}, got {name!r}.")
        self.total += 1
        if not os.path.isfile(folder / name):
            self.missing.append((where, str(folder / name)))
        return folder / name

    def check(self) -> None:
        """Refuse what is missing, see `refuse_missing`."""
        refuse_missing(self.missing, self.total)


def escapes(name: str) -> bool:
    """Return whether a path leads out of the folder it is relative to."""
    path = PureWindowsPath(name)  # knows both kinds of slashes
    return bool(path.anchor) or ".." in path.parts


def refuse_missing(missing: Sequence[tuple[str, str]], total: int) -> None:
    """Refuse a data set that names pictures that do not exist.

    Args:
        missing: where each is named, and the name.
        total: how many pictures are named.

    Raises:
        DataError: any is missing.
    """
    if missing:
        where, name = missing[0]
        raise DataError(
            f"{where}: no such picture: {name}. {len(missing):,} of the {total:,} pictures named are missing. Put them "
            "there, or correct the names."
        )


def assemble(path: Path, rows: Sequence[Labelled], seed: int, notes: Sequence[str] = ()) -> MatchDataset:
    """Make the data set: the labels in alphabetical order, and the splits that are missing.

    Raises:
        DataError: no picture has a label, or a file cannot be read.
    """
    labels = LabelNames()
    pairs = [(i, labels.place(label)) for i, row in enumerate(rows) for label in row.labels]
    order, place = labels.in_order()
    if not order:
        raise DataError(f"{path}: no picture has a label.")
    right = np.array(pairs, dtype=np.int64)
    right[:, 1] = place[right[:, 1]]
    pictures = [row.picture for row in rows]
    whole = path.resolve()
    return MatchDataset(
        name=whole.name if path.is_dir() else stem_of(whole),
        queries=pictures,
        candidates=order,
        pairs=right,
        splits=complete([row.part for row in rows], digests(pictures), seed),
        labels=True,
        notes=tuple(notes),
    )


def listed(names: Iterable[str]) -> str:
    """Return names in alphabetical order, for a message."""
    return ", ".join(sorted(names))
