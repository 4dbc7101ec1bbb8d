"""A table that names pictures, or holds them, and their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.cells import indicators, labels_of, row_labels
from sigmax.data.formats.labelled_pictures import Labelled, NamedPictures, assemble
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.formats.tables import split_rows, tables_of
from sigmax.data.pictures import Picture
from sigmax.data.splits import split_in
from sigmax.errors import DataError

__all__ = ["READER"]


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether there is a column of pictures and one of labels."""
    return bool({"image", "file_name"} & {*found}) and bool({"label", "labels"} & {*found} or indicators(found))


def _read(path: Path, reading: Reading) -> MatchDataset:
    """Read columns image or file_name, and label or labels; pictures that no row names are left out.

    A picture is a path from the table's folder on; in Parquet also a file's bytes, or Hugging Face's {bytes, path}.
    Integers become the class names in the Parquet schema, else texts. Where neither a column `split` nor the table's
    place says so, a path such as train/1.jpg names its split.
    """
    rows: list[Labelled] = []
    files = NamedPictures()
    for table, part in tables_of(path):
        names = labels_of(table, reading)
        base = path if path.is_dir() else path.parent
        for row, given in split_rows(table, part, reading):
            labels = row_labels(row, names, reading)
            cell = "file_name" if row.values.get("image") is None else "image"
            source = row.values.get(cell)
            if isinstance(source, Mapping):
                source = source.get("bytes") or source.get("path")
            if isinstance(source, str) and source.strip():
                file = files.find(table.path.parent, source.strip(), row.where)
                top = PureWindowsPath(source).parts
                picture = Picture(file.relative_to(base).as_posix(), file)
                given = given or (split_in(top[0]) if len(top) > 1 else None)
            elif isinstance(source, bytes) and source:
                picture = Picture(row.where.replace(str(table.path), table.path.name), source)
            else:
                raise DataError(
                    f"{row.where}: expected a picture under `{cell}`, as a path"
                    f"{' or bytes' if table.path.suffix == '.parquet' else ''}, got {source!r}."
                )
            rows.append(Labelled(picture, labels, given))
    files.check()
    return assemble(path, rows, reading.seed)


READER = Reader(
    name="picture_table",
    describes="labelled pictures: columns image or file_name (a path, or in Parquet the file itself) and "
    "label or labels (a list; empty for none), or a column of 0 and 1 for each label; optionally split; also as "
    "metadata.csv, .jsonl or .parquet in a folder of pictures",
    claims=_claims,
    read=_read,
    columns=("image", "file_name", "label", "labels", "split"),
)
