"""YOLO: pictures in images, a text file for each in labels, and the labels' names in data.yaml or classes.txt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.labelled_pictures import Labelled, assemble, picture_files
from sigmax.data.formats.opening import lines, opened
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.normal import trimmed
from sigmax.data.pictures import Picture
from sigmax.data.splits import split_in
from sigmax.errors import DataError, first_line

__all__ = ["READER"]

NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt", "obj.names")
YAML = (".yaml", ".yml")


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether folders images and labels lie side by side, with text files in the latter; or a path is a YAML file."""
    if path.is_file():
        return path.suffix.lower() in YAML
    return any(next(labels.rglob("*.txt"), None) is not None for _, labels, _ in _sides(path))


def _sides(root: Path) -> Iterator[tuple[Path, Path, str | None]]:
    """Folders of pictures, those of their labels, and the split that a folder around both stands for."""
    if (root / "images").is_dir() and (root / "labels").is_dir():
        yield root / "images", root / "labels", None
    for folder in sorted(filter(Path.is_dir, root.iterdir())):
        if (folder / "images").is_dir() and (folder / "labels").is_dir():
            yield folder / "images", folder / "labels", split_in(folder.name)


def _read(path: Path, reading: Reading) -> MatchDataset:
    """Read images/train/1.jpg with labels/train/1.txt, or train/images/1.jpg with train/labels/1.txt.

    Each line of a text file begins with the number of a label. A picture without one has none of the labels.
    """
    root = path.parent if path.is_file() else path
    names = _names(path if path.is_file() else root)
    rows, used = [], set()
    for images, labels, around in _sides(root):
        for file in picture_files(images):
            inner = file.relative_to(images)
            text = labels / inner.with_suffix(".txt")
            part = around or (split_in(inner.parts[0]) if len(inner.parts) > 1 else None)
            found = _numbers(text, names) if text.is_file() else []
            used.add(text)
            rows.append(Labelled(Picture(file.relative_to(root).as_posix(), file), found, part))
    orphans = [
        text
        for _, labels, _ in _sides(root)
        for text in sorted(labels.rglob("*.txt"))
        if text not in used and text.name not in NAMES
    ]
    if orphans:
        raise DataError(
            f"{orphans[0]}: no picture of that name in images; {len(orphans):,} files of labels have none. Put the "
            "pictures there, or remove the files."
        )
    if not rows:
        raise DataError(f"{root}: expected pictures in a folder images beside labels, got none.")
    return assemble(root, rows, reading.seed)


def _numbers(text: Path, names: dict[int, str]) -> list[str]:
    """Names of the labels in a file, each once."""
    found: dict[str, None] = {}
    for number, line in enumerate(lines(text), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            label = int(float(fields[0])) if fields[0].replace(".", "", 1).isdecimal() and len(fields[0]) < 12 else -1
            found[names[label]] = None
        except KeyError:
            raise DataError(
                f"{text}, line {number}: expected the number of a label first, in 0 … {max(names)}, got {line[:60]!r}."
            ) from None
    return list(found)


def _names(place: Path) -> dict[int, str]:
    """Number -> name of each label, from a YAML file or a list of lines."""
    files = [place] if place.is_file() else [file for name in NAMES for file in _beside(place, name)]
    if not files:
        raise DataError(f"{place}: expected the labels' names in {' or '.join(NAMES)}, got none of these files.")
    file = files[0]
    if file.suffix.lower() not in YAML:
        named = {number: trimmed(line) for number, line in enumerate(lines(file)) if trimmed(line)}
    else:
        given = _yaml(file)
        entries = given.get("names") if isinstance(given, dict) else None
        listed = entries if isinstance(entries, dict) else dict(enumerate(entries if isinstance(entries, list) else ()))
        named = {}
        for number, name in listed.items():
            if not isinstance(number, int) or not isinstance(name, str | int):
                raise DataError(f"{file}: expected `names` to give each label a name, got {number!r}: {name!r}.")
            named[number] = trimmed(str(name))
    if not named or not all(named.values()):
        raise DataError(f"{file}: expected `names`, the names of the labels, got none or an empty one.")
    return named


def _beside(folder: Path, name: str) -> list[Path]:
    return [file for file in (folder / name, folder / "labels" / name) if file.is_file()]


def _yaml(file: Path) -> Any:
    import yaml

    with opened(file, newline=None) as text:
        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise DataError(f"{file}: not YAML: {first_line(error)}.") from None


READER = Reader(
    name="yolo",
    describes="a YOLO folder, or its data.yaml: images/train/1.jpg with labels/train/1.txt, or train/images/1.jpg with "
    "train/labels/1.txt, and the labels' names in data.yaml or classes.txt",
    claims=_claims,
    read=_read,
    endings=YAML,
)
