"""From users' files to a MatchDataset: the formats, the order in which they are tried, and `read`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sigmax.data.dataset import CONFLICTS, MatchDataset
from sigmax.data.formats import beir, classes, coco, hugging_face, labelled, npz, pairs, picture_table, voc, yolo
from sigmax.data.formats.opening import ending_of
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.formats.rows import TABLES, is_table
from sigmax.data.formats.tables import columns_of, table_files
from sigmax.errors import DataError, UnknownNameError, lookup, nearest

__all__ = ["READERS", "known_columns", "read", "readers"]

#: The formats. The first that claims a path reads it, so what looks at names that only it uses (qrels, JPEGImages)
#: comes before what takes any folder of pictures (classes), and columns of pictures come before columns of texts.
#: A format from elsewhere is added by READERS[name] = Reader(…, before=…); see `readers`.
READERS: dict[str, Reader] = {
    module.READER.name: module.READER
    for module in (beir, hugging_face, coco, voc, yolo, npz, picture_table, classes, labelled, pairs)
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


def read(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    delimiter: str | None = None,
    separator: str = "|",
    conflicts: str = "right",
) -> MatchDataset:
    """Read a data set in the first format that recognises its files and their columns.

    Args:
        path: a file, or a folder.
        columns: our column name -> the name in the file, for example {"query": "question"}.
        seed: of the split, where the data brings none.
        delimiter: between the fields of a CSV file; None: a tab in .tsv, else the comma, or where the line of names
            has none a semicolon, a tab or a bar.
        separator: between the texts in a cell of the list columns answers, labels and wrong of CSV and Excel; empty:
            such a cell is one text.
        conflicts: a key of `sigmax.data.dataset.CONFLICTS`: what becomes of a pair that is right and wrong at once.

    Raises:
        DataError: nothing there, no format that fits, or anything wrong inside; names file and line.
        UnknownNameError: a column that no format reads.
        ValueError: a delimiter that is not one character.
    """
    reading = Reading(dict(columns or {}), seed, delimiter, separator, conflicts)
    lookup(CONFLICTS, conflicts, "conflicts")
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
    endings = (*TABLES, *(ending for reader in readers() for ending in reader.endings if ending not in TABLES))
    if path.is_file() and ending_of(path) not in endings:
        raise DataError(
            f"{path}: expected a file ending in {', '.join(endings)}, text also compressed as .gz or .zst, got "
            f"{path.suffix or 'no ending'!r}."
        )
    has_tables = is_table(path) if path.is_file() else not (path / "qrels").is_dir()
    found = columns_of(path, reading) if has_tables else []
    for reader in readers():
        if not reader.claims(path, found):
            continue
        if reader.read is not None:
            return reader.read(path, reading)
        assert reader.unpack is not None
        with reader.unpack(path) as tables:
            return _read(tables, reading)
    raise DataError(_unknown(path, found))


def _likely(found: list[str]) -> str:
    """Which column may be which: those that have our names in another case, else the first two."""
    theirs = {name.strip().casefold(): name for name in found}
    for wanted in (("query", ("answer", "answers")), ("text", ("label", "labels"))):
        other = next((name for name in wanted[1] if name in theirs), None)
        if wanted[0] in theirs and other is not None:
            return f"{wanted[0]}={theirs[wanted[0]]},{other}={theirs[other]}"
    first, second = found[0], found[min(1, len(found) - 1)]
    return f"query={first},answer={second}, or text={first},label={second} for labels"


def _unknown(path: Path, found: list[str]) -> str:
    """What to say of a path that no format claims."""
    formats = "\n".join(f"  {reader.describes}" for reader in readers())
    tables = [file.name for file in table_files(path)] if path.is_dir() else []
    advice, holds = "", "no table with rows found in it"
    if found:
        holds = f"its columns are {', '.join(found)}"
        advice = f"\nSay which column is which, for example by columns {_likely(found)}"
    elif tables:
        holds = f"its tables are {', '.join(tables[:6])}{', …' * (len(tables) > 6)}"
        advice = "\nName the tables after splits (train.csv, test.csv), or read one of them."
    return f"{path}: no known format; {holds}. Expected one of\n{formats}{advice}"
