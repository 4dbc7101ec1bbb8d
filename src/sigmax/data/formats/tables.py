"""Which tables a path has, which split each stands for, and their rows under our column names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sigmax.data.formats.opening import ending_of, stem_of
from sigmax.data.formats.reader import Reading
from sigmax.data.formats.rows import TABLES, Row, Table, is_table, parquet_file, read_rows, sheets_of
from sigmax.data.splits import SPLIT_NAMES, split_in, split_of
from sigmax.errors import DataError, nearest

__all__ = ["columns_of", "rows_by_split", "split_rows", "table_files", "tables_of"]


def tables_of(path: Path) -> list[tuple[Table, str | None]]:
    """Tables of a path and the split each stands for, if its name or its folder's says so.

    A file; the sheets of a workbook; a folder's train.csv, test-00000-of-00002.parquet, faq_dev.tsv and so on, or the
    one table that it has; or its metadata.csv, .jsonl or .parquet, and those of its split folders.

    Raises:
        DataError: a table or a folder beside those of the splits whose name looks like a split's, misspelt; several
            sheets of which none names a split; a folder that may not be looked into.
    """
    if path.is_file():
        return _sheets(path) if is_table(path) else []
    found: list[tuple[Table, str | None]] = []
    strange: list[tuple[Path, str]] = []
    for file in table_files(path):
        name = re.sub(r"-\d+-of-\d+$", "", stem_of(file))
        if split := split_in(name):
            found += [(table, split) for table, _ in _sheets(file)]
        else:
            strange.append((file, name))
    if not found:
        found = [(Table(file), None) for file in _metadata(path)]
        for folder in sorted(filter(Path.is_dir, path.iterdir())):
            for file in _metadata(folder):
                if split := split_in(folder.name):
                    found.append((Table(file), split))
                else:
                    strange.append((file, folder.name))
    if not found:
        own = [file for file, _ in strange if file.parent == path]
        return _sheets(own[0]) if len(own) == 1 else []
    for file, name in strange:
        if any(part for _, part in found) and nearest(name, SPLIT_NAMES, cutoff=0.7):
            split_of(name, str(file))
    return found


def table_files(folder: Path) -> list[Path]:
    """Return the tables in a folder, whatever they are called.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        files = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".") and file.is_file()]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror or error}.") from None
    return [file for file in files if ending_of(file) in TABLES and is_table(file)]


def _sheets(path: Path) -> list[tuple[Table, str | None]]:
    if ending_of(path) != ".xlsx":
        return [(Table(path), None)]
    sheets = sheets_of(path)
    named: list[tuple[Table, str | None]] = [(Table(path, name), split) for name in sheets if (split := split_in(name))]
    if not named and len(sheets) > 1:
        raise DataError(
            f"{path}: expected one sheet, or sheets named after splits such as train and test, got "
            f"{', '.join(sheets)}. Rename or remove sheets."
        )
    return named or [(Table(path, name), None) for name in sheets[:1]]


def _metadata(folder: Path) -> list[Path]:
    try:
        return [file for file in (folder / f"metadata{ending}" for ending in TABLES) if file.is_file()]
    except PermissionError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}.") from None


def columns_of(path: Path, reading: Reading) -> list[str]:
    """Columns of all tables of a path, under our names.

    Args:
        path: see `tables_of`.
        reading: how to read, with the columns to rename.

    Raises:
        DataError: a file that cannot be read, or without a column that is to be renamed.
    """
    found: dict[str, None] = {}
    for table, _ in tables_of(path):
        if ending_of(table.path) == ".parquet":  # may hold pictures: rows are read once, later
            names = dict.fromkeys(parquet_file(table.path).schema_arrow.names)
        else:
            names = dict.fromkeys(name for row in read_rows(table, reading) for name in row.values)
        for theirs in reading.columns.values():
            if theirs not in names:
                raise DataError(
                    f"{table}: no column {theirs!r}; its columns are {', '.join(names)}.{nearest(theirs, names)}"
                )
        found.update(dict.fromkeys(_renamed(names, reading.columns)))
    return list(found)


def split_rows(table: Table, part: str | None, reading: Reading) -> Iterator[tuple[Row, str | None]]:
    """Rows of a table under our column names, each with its split: the table's, or the one in its column `split`.

    Raises:
        DataError: see `read_rows`; a split that has no known name.
    """
    for row in read_rows(table, reading):
        values = _renamed(row.values, reading.columns)
        given = part or values.get("split") or None  # an empty cell of a CSV file is none
        if isinstance(given, float) and given != given:
            given = None
        yield row._replace(values=values), None if given is None else split_of(given, row.where)


def rows_by_split(path: Path, reading: Reading) -> Iterator[tuple[Row, str | None]]:
    """Rows of all tables of a path, see `split_rows`."""
    for table, part in tables_of(path):
        yield from split_rows(table, part, reading)


def _renamed(values: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Under our names. A column that has one of our names by accident gives way to the one that was asked for."""
    names = {theirs: ours for ours, theirs in columns.items()}
    return {names.get(name, name): value for name, value in values.items() if name in names or name not in columns}
