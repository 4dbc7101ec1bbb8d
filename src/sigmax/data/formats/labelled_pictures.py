"""Readers of labelled pictures: folders, tables, COCO, Pascal VOC and arrays. `sigmax.data.formats` registers them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple, TypeVar
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.rows import class_names, label_cell, lines, named, split_rows, tables_of, text_list
from sigmax.data.pictures import ENDINGS, Picture, Pixels, digests
from sigmax.data.splits import SPLIT_NAMES, complete, split_of
from sigmax.errors import DataError, nearest

__all__ = [
    "claims_classes",
    "claims_coco",
    "claims_voc",
    "picture_files",
    "read_arrays",
    "read_classes",
    "read_coco",
    "read_table",
    "read_voc",
]

T = TypeVar("T")


class Labelled(NamedTuple):
    """A picture, its labels, and its split where one is given."""

    picture: Picture
    labels: Sequence[str]
    part: str | None


# -- a folder for each label --------------------------------------------------------------------


def claims_classes(path: Path, found: Sequence[str]) -> bool:
    """Whether pictures lie in folders of a folder that has no tables."""
    return path.is_dir() and not found and any(file.parent != path for file in picture_files(path))


def read_classes(path: Path, columns: Mapping[str, str], seed: int) -> MatchDataset:
    """Read cat/1.jpg, or train/cat/1.jpg: the label is the name of the first folder, however deep the picture lies.

    Pictures beside the folders of the labels have none of them.
    """
    places = [(file, file.relative_to(path).parts) for file in picture_files(path)]
    folders = {parts[0] for _, parts in places if len(parts) > 1}
    deep = {parts[0] for _, parts in places if len(parts) > 2}
    splits = deep & SPLIT_NAMES.keys()
    if not splits and folders <= SPLIT_NAMES.keys():
        raise DataError(
            f"{path}: pictures lie in {_listed(folders)} without a folder for each label, as in train/cat/1.jpg, and "
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
                f"{loose[0]}: {len(loose):,} pictures lie beside the folders of the splits ({_listed(folders)}) and "
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
            f"{path}: all pictures lie in the folder {_listed(labels)}. Expected a folder for each label, or pictures "
            "with none of the labels beside it."
        )
    return _assemble(path, rows, seed)


# -- a table of files, or with the files in it --------------------------------------------------


def read_table(path: Path, columns: Mapping[str, str], seed: int) -> MatchDataset:
    """Read columns image or file_name, and label or labels; pictures that no row names are left out.

    A picture is a path from the table's folder on; in Parquet also a file's bytes, or Hugging Face's {bytes, path}.
    Integers become the class names in the Parquet schema, else texts. Where neither a column `split` nor the table's
    place says so, a path such as train/1.jpg names its split.
    """
    rows: list[Labelled] = []
    files = _Named()
    for table, part in tables_of(path):
        names = {ours: class_names(table, columns.get(ours, ours)) for ours in ("label", "labels")}
        base = path if path.is_dir() else path.parent
        for row, given in split_rows(table, part, columns):
            column, value = label_cell(row)
            labels = text_list(named(value, names[column], row.where, column), row.where, column)
            cell = "file_name" if row.values.get("image") is None else "image"
            source = row.values.get(cell)
            if isinstance(source, Mapping):
                source = source.get("bytes") or source.get("path")
            if isinstance(source, str) and source.strip():
                file = files.find(table.parent, source.strip(), row.where)
                top = PureWindowsPath(source).parts
                picture = Picture(file.relative_to(base).as_posix(), file)
                given = given or (SPLIT_NAMES.get(top[0]) if len(top) > 1 else None)
            elif isinstance(source, bytes) and source:
                picture = Picture(row.where.replace(str(table), table.name), source)
            else:
                raise DataError(
                    f"{row.where}: expected a picture under `{cell}`, as a path"
                    f"{' or bytes' if table.suffix == '.parquet' else ''}, got {source!r}."
                )
            rows.append(Labelled(picture, labels, given))
    files.check()
    return _assemble(path, rows, seed)


# -- COCO ---------------------------------------------------------------------------------------


def claims_coco(path: Path, found: Sequence[str]) -> bool:
    """Whether the path is a JSON file or a folder that holds instances files."""
    return path.suffix == ".json" if path.is_file() else bool(_coco_files(path))


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


def read_coco(path: Path, columns: Mapping[str, str], seed: int) -> MatchDataset:
    """Read instances files. A picture's labels are the names of the categories annotated in it, crowds included."""
    rows: list[Labelled] = []
    files = _Named()
    for file, word in _coco_files(path):
        part = None if word is None else split_of(word, str(file))
        try:
            content = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}: not JSON: {error}.") from None
        images, annotations, categories = (
            _field(content, key, list, str(file)) for key in ("images", "annotations", "categories")
        )
        names = {
            _field(entry, "id", int | str, f"{file}, categories[{k}]"): _field(
                entry, "name", str, f"{file}, categories[{k}]"
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
    return _assemble(path, rows, seed)


def _coco_folder(file: Path, names: Sequence[str]) -> Path:
    """The folder with a file's pictures: the first of the usual places that has one of them."""
    set_name = file.stem.removeprefix("instances_")
    places = [above / below for above in (file.parent, file.parent.parent) for below in (".", "images", set_name)] + [
        file.parent.parent / "images" / set_name
    ]
    for place in places:
        if any(os.path.isfile(place / name) for name in names if not _escapes(name)):
            return place
    return file.parent


def _field(entry: Any, key: str, kind: Any, where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        words = {list: "a list", str: "a text"}.get(kind, "an integer or a text")
        raise DataError(
            f"{where}: expected {words} under `{key}`, as in COCO's instances, got "
            f"{'no such key' if value is None else repr(value)[:60]}."
        )
    return value


# -- Pascal VOC ---------------------------------------------------------------------------------


def claims_voc(path: Path, found: Sequence[str]) -> bool:
    """Whether a folder has the two folders every VOC set has."""
    return (path / "JPEGImages").is_dir() and (path / "Annotations").is_dir()


def read_voc(path: Path, columns: Mapping[str, str], seed: int) -> MatchDataset:
    """Read JPEGImages and Annotations; a picture's labels are the names of its objects, difficult ones included.

    ImageSets/Main/{train,val,trainval,test}.txt say which pictures belong and where to, and each of these needs an
    annotation. Without such files all pictures belong, and those without an annotation have none of the labels.
    """
    pictures: dict[str, Path] = {}
    for file in picture_files(path / "JPEGImages"):
        if file.stem in pictures:
            raise DataError(f"{file}: {pictures[file.stem].name} has the same name; which one is annotated?")
        pictures[file.stem] = file
    annotated = {file.stem: file for file in sorted((path / "Annotations").glob("*.xml"))}
    listed = _voc_sets(path / "ImageSets" / "Main")
    without = [(name, where) for name, (_, where) in listed.items() if name not in annotated]
    if without:
        raise DataError(
            f"{without[0][1]}: {without[0][0]!r} has no file in Annotations; {len(without):,} of {len(listed):,} "
            "pictures listed have none. Remove them from the list."
        )
    wanted = listed or {
        name: (None, str(annotated.get(name, path / "JPEGImages"))) for name in sorted({*pictures, *annotated})
    }
    rows, missing = [], []
    for name, (part, where) in wanted.items():
        if name not in pictures:
            missing.append((where, f"JPEGImages/{name}"))
            continue
        labels = _voc_labels(annotated[name]) if name in annotated else []
        rows.append(Labelled(Picture(pictures[name].relative_to(path).as_posix(), pictures[name]), labels, part))
    _refuse_missing(missing, len(wanted))
    return _assemble(path, rows, seed)


def _voc_sets(folder: Path) -> dict[str, tuple[str | None, str]]:
    """Name of each listed picture -> its split and where that is said."""
    listed: dict[str, tuple[str | None, str]] = {}
    known = (*SPLIT_NAMES, "trainval")
    # trainval repeats train and val; it counts for pictures that are in neither.
    for file in sorted(folder.glob("*.txt"), key=lambda file: (file.stem == "trainval", file.name)):
        if "_" in file.stem and file.stem.rsplit("_", 1)[1] in known:  # cat_train.txt: one label's
            continue
        part = "train" if file.stem == "trainval" else split_of(file.stem, str(file))
        for number, line in enumerate(lines(file), start=1):
            name, where = line.strip(), f"{file}, line {number}"
            if not name:
                continue
            if file.stem == "trainval" and listed.get(name, ("", ""))[0] in ("train", "dev"):
                continue
            if listed.setdefault(name, (part, where))[0] != part:
                raise DataError(
                    f"{where}: {name!r} is in the {listed[name][0]} split already. Each picture belongs to one split."
                )
    return listed


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses what entities are declared in: an annotation needs none, and they can grow without bound."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a DOCTYPE, which annotations do not have")


def _voc_labels(file: Path) -> list[str]:
    try:
        root = ElementTree.XML(file.read_bytes(), ElementTree.XMLParser(target=_NoDoctype()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{file}: not a readable XML annotation: {error}.") from None
    names = [(entry.findtext("name") or "").strip() for entry in root.findall("object")]
    if not all(names):
        raise DataError(f"{file}: expected a <name> in each <object>, got none in object {names.index('') + 1}.")
    return sorted(set(names))


# -- arrays -------------------------------------------------------------------------------------


def read_arrays(path: Path, columns: Mapping[str, str], seed: int) -> MatchDataset:
    """Read an .npz file with images and labels, x_train and y_train, or train_images and train_labels; never pickles.

    Images: (n, h, w), (n, h, w, 1 or 3) or (n, 1 or 3, h, w) in uint8, or floats in [0, 1]. Labels: (n,) or (n, 1)
    integers or texts, or (n, L) zeros and ones. label_names: (L,) texts. split: (n,) texts, beside images.
    """
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # whatever a broken archive makes NumPy, zipfile and zlib stumble over
        advice = " Save texts as str, not as object." if "pickle" in str(error) else ""
        raise DataError(f"{path}: not a readable .npz file without pickles: {error}.{advice}") from None
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
    return _assemble(path, rows, seed)


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


# -- shared -------------------------------------------------------------------------------------


def picture_files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Files below a folder that are named like pictures, in order of name; hidden ones and __MACOSX are left out.

    A link to a folder is followed, except to one of those it lies in (`above`). A link to nothing is a file that
    cannot be read.

    Raises:
        DataError: a folder that cannot be listed.
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
        path = folder / name
        if name.startswith(".") or name == "__MACOSX":
            continue
        if is_folder:
            yield from picture_files(path, (*above, here))
        elif path.suffix.lower() in ENDINGS and (os.path.isfile(path) or not os.path.exists(path)):
            yield path


class _Named:
    """Picture files that others name; `check` refuses those that are missing."""

    def __init__(self) -> None:
        self.missing: list[tuple[str, str]] = []
        self.total = 0

    def find(self, folder: Path, name: str, where: str) -> Path:
        """The file of a name that leads no way out of the folder."""
        if _escapes(name):
            raise DataError(f"{where}: expected a path inside {folder}, got {name!r}.")
        self.total += 1
        if not os.path.isfile(folder / name):
            self.missing.append((where, str(folder / name)))
        return folder / name

    def check(self) -> None:
        _refuse_missing(self.missing, self.total)


def _escapes(name: str) -> bool:
    path = PureWindowsPath(name)  # knows both kinds of slashes
    return bool(path.anchor) or ".." in path.parts


def _refuse_missing(missing: Sequence[tuple[str, str]], total: int) -> None:
    if missing:
        where, name = missing[0]
        raise DataError(
            f"{where}: no such picture: {name}. {len(missing):,} of the {total:,} pictures named are missing. Put them "
            "there, or correct the names."
        )


def _assemble(path: Path, rows: Sequence[Labelled], seed: int) -> MatchDataset:
    labels = sorted({label for row in rows for label in row.labels})
    if not labels:
        raise DataError(f"{path}: no picture has a label.")
    place = {label: j for j, label in enumerate(labels)}
    pictures = [row.picture for row in rows]
    whole = path.resolve()
    return MatchDataset(
        name=whole.name if path.is_dir() else whole.stem,
        queries=pictures,
        candidates=labels,
        pairs=np.array([(i, place[label]) for i, row in enumerate(rows) for label in row.labels], dtype=np.int64),
        splits=complete([row.part for row in rows], digests(pictures), seed),
        labels=True,
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
