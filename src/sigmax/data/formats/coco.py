"""COCO's instances files beside their pictures."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.labelled_pictures import Labelled, NamedPictures, assemble, escapes
from sigmax.data.formats.opening import ending_of, opened
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.formats.rows import is_table
from sigmax.data.normal import trimmed
from sigmax.data.pictures import Picture
from sigmax.data.splits import SPLIT_NAMES, split_of
from sigmax.errors import DataError, first_line

__all__ = ["READER"]


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether the path is a JSON file or a folder that holds instances files."""
    return ending_of(path) == ".json" and not is_table(path) if path.is_file() else bool(_coco_files(path))


def _coco_files(path: Path) -> list[tuple[Path, str | None]]:
    """Instances files and the word in their names, or their folders', that says the split."""
    if path.is_file():
        return [(path, None)]
    annotations = path / "annotations"
    files = sorted(annotations.glob("instances_*.json")) or sorted(annotations.glob("*.json"))
    if files:
        words = [re.findall(r"[a-z]+", file.stem.lower().removeprefix("instances_")) for file in files]
        found = [next((word for word in some if word in SPLIT_NAMES), "".join(some[:1])) for some in words]
        return [(file, word if len(files) > 1 else None) for file, word in zip(files, found, strict=True)]
    name = "_annotations.coco.json"
    below = [(file, file.parent.name) for file in sorted(path.glob(f"*/{name}"))]
    return [(path / name, None)] if (path / name).is_file() else [*below]


def _read(path: Path, reading: Reading) -> MatchDataset:
    """Read instances files. A picture's labels are the names of the categories annotated in it, crowds included."""
    rows: list[Labelled] = []
    files = NamedPictures()
    for file, word in _coco_files(path):
        part = None if word is None else split_of(word, str(file))
        with opened(file, newline=None) as text:
            try:
                content = json.loads(text.read())
            except RecursionError:
                raise DataError(f"{file}: JSON that is nested too deeply to be read.") from None
            except ValueError as error:
                raise DataError(f"{file}: not JSON: {first_line(error)}.") from None
        images, annotations, categories = (
            _field(content, key, list, str(file)) for key in ("images", "annotations", "categories")
        )
        names = {
            _field(entry, "id", int | str, f"{file}, categories[{k}]"): trimmed(
                _field(entry, "name", str, f"{file}, categories[{k}]")
            )
            for k, entry in enumerate(categories)
        }
        labels: dict[int | str, set[str]] = {}
        wanted: dict[int | str, tuple[str, str]] = {}
        for k, entry in enumerate(images):
            where = f"{file}, images[{k}]"
            key = _field(entry, "id", int | str, where)
            if key in wanted:
                raise DataError(f"{where}: id {key!r} was given before, in {wanted[key][1]}.")
            wanted[key] = _field(entry, "file_name", str, where), where
            labels[key] = set()
        for k, entry in enumerate(annotations):
            where = f"{file}, annotations[{k}]"
            image = _field(entry, "image_id", int | str, where)
            category = _field(entry, "category_id", int | str, where)
            if image not in labels or category not in names:
                what = f"image {image!r}" if image not in labels else f"category {category!r}"
                raise DataError(f"{where}: {what} does not exist in the file.")
            labels[image].add(names[category])
        folder = _coco_folder(file, [name for name, _ in wanted.values()])
        base = path if path.is_dir() else folder
        for key, (name, where) in wanted.items():
            found = files.find(folder, name, where)
            shown = found.relative_to(base).as_posix() if found.is_relative_to(base) else name
            rows.append(Labelled(Picture(shown, found), sorted(labels[key]), part))
    files.check()
    return assemble(path, rows, reading.seed)


def _coco_folder(file: Path, names: Sequence[str]) -> Path:
    """The folder with a file's pictures: the first of the usual places that has one of them."""
    set_name = file.stem.removeprefix("instances_")
    places = [above / below for above in (file.parent, file.parent.parent) for below in (".", "images", set_name)] + [
        file.parent.parent / "images" / set_name
    ]
    for place in places:
        if any(os.path.isfile(place / name) for name in names if not escapes(name)):
            return place
    return file.parent


def _field(entry: Any, key: str, kind: Any, where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        words = {list: "a list", str: "a text"}.get(kind, "an integer or a text")
        raise DataError(
            f"{where}: expected {words} under `{key}`, as in COCO's instances, got "
            f"{'no such key' if value is None else repr(value)[:60]}. A table in JSON is an array of objects, or one "
            "object per line."
        )
    return value


READER = Reader(
    name="coco",
    describes="COCO: an instances file (JSON) beside its pictures, or a folder with annotations/instances_*.json or "
    "{train,valid,test}/_annotations.coco.json; the labels of a picture are its categories",
    claims=_claims,
    read=_read,
    endings=(".json",),
)
