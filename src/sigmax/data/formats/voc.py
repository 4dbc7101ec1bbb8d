"""Pascal VOC: JPEGImages, Annotations, and lists of the splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.labelled_pictures import Labelled, assemble, picture_files, refuse_missing
from sigmax.data.formats.opening import lines
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.pictures import Picture
from sigmax.data.splits import SPLIT_NAMES, split_of
from sigmax.errors import DataError

__all__ = ["READER"]


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether a folder has the two folders every VOC set has."""
    return (path / "JPEGImages").is_dir() and (path / "Annotations").is_dir()


def _read(path: Path, reading: Reading) -> MatchDataset:
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
    refuse_missing(missing, len(wanted))
    return assemble(path, rows, reading.seed)


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


READER = Reader(
    name="voc",
    describes="a Pascal VOC folder: JPEGImages, Annotations/*.xml and, if there, ImageSets/Main/{train,val,test}.txt",
    claims=_claims,
    read=_read,
)
