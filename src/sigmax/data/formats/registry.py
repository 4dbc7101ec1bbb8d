"""From users' files to a MatchDataset: the formats, the order in which they are tried, and `read`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats import beir, classes, coco, hugging_face, labelled, npz, pairs, picture_table, voc
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.formats.rows import TABLES, columns_of
from sigmax.errors import DataError, UnknownNameError, lookup, nearest

__all__ = ["READERS", "known_columns", "read", "readers"]

#: The formats. The first that claims a path reads it, so what looks at names that only it uses (qrels, JPEGImages)
#: comes before what takes any folder of pictures (classes), and columns of pictures come before columns of texts.
#: A format from elsewhere is added by READERS[name] = Reader(…, before=…); see `readers`.
READERS: dict[str, Reader] = {
    module.READER.name: module.READER
    for module in (beir, hugging_face, coco, voc, npz, picture_table, classes, labelled, pairs)
}


def readers() -> list[Reader]:
    """Return the formats in the order they are tried: that of `READERS`, but each in front of its `before`.

    Raises:
        UnknownNameError: a `before` that names no format.
    """
    order: list[Reader] = [reader for reader in READERS.values() if reader.before is None]
    for reader in READERS.values():
        if reader.before is not None:
            order.insert(order.index(lookup(READERS, reader.before, "before")), reader)
    return order


def known_columns() -> list[str]:
    """Return our names of columns, of all formats, each once."""
    return list(dict.fromkeys(name for reader in readers() for name in reader.columns))


def read(path: str | Path, *, columns: Mapping[str, str] | None = None, seed: int = 0) -> MatchDataset:
    """Read a data set in the first format that recognises its files and their columns.

    Args:
        path: a file, or a folder.
        columns: our column name -> the name in the file, for example {"query": "question"}.
        seed: of the split, where the data brings none.

    Raises:
        DataError: nothing there, no format that fits, or anything wrong inside; names file and line.
        UnknownNameError: a column that no format reads.
    """
    reading = Reading(columns=dict(columns or {}), seed=seed)
    known = known_columns()
    for name in reading.columns:
        if name not in known:
            raise UnknownNameError(
                f"Expected columns named from {', '.join(sorted(known))}, got {name!r}.{nearest(name, known)}"
            )
    return _read(Path(path), reading)


def _read(path: Path, reading: Reading) -> MatchDataset:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    endings = (*TABLES, *(ending for reader in readers() for ending in reader.endings))
    if path.is_file() and path.suffix not in endings:
        raise DataError(f"{path}: expected a file ending in {', '.join(endings)}, got {path.suffix or 'no ending'!r}.")
    has_tables = path.suffix in TABLES if path.is_file() else not (path / "qrels").is_dir()
    found = columns_of(path, reading.columns) if has_tables else []
    for reader in readers():
        if not reader.claims(path, found):
            continue
        if reader.read is not None:
            return reader.read(path, reading)
        assert reader.unpack is not None
        with reader.unpack(path) as tables:
            return _read(tables, reading)
    formats = "\n".join(f"  {reader.describes}" for reader in readers())
    advice = ""
    if found:
        advice = (
            "\nSay which column is which, for example by columns "
            f"query={found[0]},answer={found[min(1, len(found) - 1)]}"
        )
        if len(found) == 1 and any(mark in found[0] for mark in ";\t"):
            advice = "\nThe columns look separated by something else than commas: save the file with commas."
    raise DataError(
        f"{path}: no known format"
        + (f"; its columns are {', '.join(found)}" if found else "; no table with rows found in it")
        + f". Expected one of\n{formats}{advice}"
    )
