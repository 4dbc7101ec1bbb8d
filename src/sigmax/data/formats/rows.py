"""Rows of JSONL, CSV and Parquet files, each with the place it came from and the split it belongs to."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from sigmax.data.splits import SPLIT_NAMES, split_of
from sigmax.errors import DataError, lookup, nearest

__all__ = [
    "TABLES",
    "Row",
    "class_names",
    "columns_of",
    "label_cell",
    "lines",
    "named",
    "read_rows",
    "rows_by_split",
    "split_rows",
    "tables_of",
    "text_cell",
    "text_list",
]


class Row(NamedTuple):
    """One record and where it stands, for error messages."""

    values: dict[str, Any]
    where: str  #: "file, line 7" or "file, row 7"


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(lines(path), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}: not JSON: {error.msg} at column {error.colno}: {_around(line, error.pos)}. "
                "Expected one JSON object per line."
            ) from None
        if not isinstance(values, dict):
            raise DataError(f'{where}: expected a JSON object such as {{"query": …}}, got {type(values).__name__}.')
        if "\\ud" in line.lower():
            _check_whole(json.dumps(values, ensure_ascii=False), where)
        yield Row(values, where)


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # texts may be long
    with _opened(path, newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for values in reader:
                where = f"{path}, line {reader.line_num}"
                if None in values or None in values.values():
                    names = reader.fieldnames or ()
                    got = len(values) if None not in values else len(values) - 1 + len(values[None])  # type: ignore[call-overload]
                    got -= sum(value is None for value in values.values())
                    raise DataError(
                        f"{where}: expected {len(names)} fields ({', '.join(names)}), got {got}. Put a text with "
                        "commas in double quotes."
                    )
                yield Row(values, where)
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.reader.line_num}: not CSV: {error}.") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow

    number = 0
    try:
        for batch in _parquet_file(path).iter_batches(batch_size=128):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, f"{path}, row {number}")
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}.") from None


def _parquet_file(path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        # By default a whole row group is read ahead; one may be all of the file.
        return parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}.") from None


#: Readers of tables by the ending of the file's name.
TABLES: dict[str, Callable[[Path], Iterator[Row]]] = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}


def read_rows(path: Path) -> Iterator[Row]:
    """Read the rows of a table, one after the other.

    Raises:
        DataError: an unknown ending, an unreadable file, a broken line, no rows.
    """
    if path.suffix not in TABLES:
        raise DataError(f"{path}: expected a file ending in {', '.join(TABLES)}, got {path.suffix or 'no ending'!r}.")
    if not path.exists():
        raise DataError(f"{path}: no such file.")
    rows = lookup(TABLES, path.suffix, "ending")(path)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: the file has no rows.")
    return chain([first], rows)


def tables_of(path: Path) -> list[tuple[Path, str | None]]:
    """Table files of a path and the split each stands for, if its name or its folder's says so.

    A file; or a folder's train.csv, test-00000-of-00002.parquet and so on; or its metadata.csv, .jsonl or .parquet, and
    those of its split folders.

    Raises:
        DataError: a table or a folder beside those of the splits whose name looks like a split's, misspelt; a folder
            that may not be looked into.
    """
    if path.is_file():
        return [(path, None)]
    found: list[tuple[Path, str | None]] = []
    strange: list[tuple[Path, str]] = []
    for file in sorted(path.iterdir()):
        if file.suffix in TABLES:
            name = re.sub(r"-\d+-of-\d+$", "", file.stem)
            if name in SPLIT_NAMES:
                found.append((file, SPLIT_NAMES[name]))
            else:
                strange.append((file, name))
    if not found:
        found = [(file, None) for file in _metadata(path)]
        for folder in sorted(filter(Path.is_dir, path.iterdir())):
            for file in _metadata(folder):
                if folder.name in SPLIT_NAMES:
                    found.append((file, SPLIT_NAMES[folder.name]))
                else:
                    strange.append((file, folder.name))
    for file, name in strange:
        if any(part for _, part in found) and nearest(name, SPLIT_NAMES, cutoff=0.7):
            split_of(name, str(file))
    return found


def _metadata(folder: Path) -> list[Path]:
    try:
        return [file for file in (folder / f"metadata{ending}" for ending in TABLES) if file.is_file()]
    except PermissionError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}.") from None


def columns_of(path: Path, columns: Mapping[str, str]) -> list[str]:
    """Columns of all tables of a path, under our names.

    Args:
        path: see `tables_of`.
        columns: our name -> the name in the file.

    Raises:
        DataError: a file that cannot be read, or without a column that is to be renamed.
    """
    found: dict[str, None] = {}
    for file, _ in tables_of(path):
        if file.suffix == ".parquet":  # may hold pictures: rows are read once, later
            names = dict.fromkeys(_parquet_file(file).schema_arrow.names)
        else:
            names = dict.fromkeys(name for row in read_rows(file) for name in row.values)
        for theirs in columns.values():
            if theirs not in names:
                raise DataError(
                    f"{file}: no column {theirs!r}; its columns are {', '.join(names)}.{nearest(theirs, names)}"
                )
        found.update(dict.fromkeys(_renamed(names, columns)))
    return list(found)


def split_rows(file: Path, part: str | None, columns: Mapping[str, str]) -> Iterator[tuple[Row, str | None]]:
    """Rows of a table under our column names, each with its split: the file's, or the one in its column `split`.

    Raises:
        DataError: see `read_rows`; a split that has no known name.
    """
    for row in read_rows(file):
        values = _renamed(row.values, columns)
        given = part or values.get("split") or None  # an empty cell of a CSV file is none
        yield Row(values, row.where), None if given is None else split_of(given, row.where)


def rows_by_split(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[Row, str | None]]:
    """Rows of all tables of a path, see `split_rows`."""
    for file, part in tables_of(path):
        yield from split_rows(file, part, columns)


def _renamed(values: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Under our names. A column that has one of our names by accident gives way to the one that was asked for."""
    names = {theirs: ours for ours, theirs in columns.items()}
    return {names.get(name, name): value for name, value in values.items() if name in names or name not in columns}


def label_cell(row: Row) -> tuple[str, Any]:
    """Return the column that holds a row's labels, and what is in it.

    Raises:
        DataError: neither `labels` nor `label`.
    """
    for column in ("labels", "label"):
        if column in row.values:
            return column, row.values[column]
    raise DataError(f"{row.where}: expected a list of texts under `labels` (empty for none), got no such key.")


def class_names(file: Path, column: str) -> list[str] | None:
    """Names of the integers in a Parquet column, where Hugging Face's datasets wrote them into the schema."""
    if file.suffix != ".parquet":
        return None
    try:
        feature = json.loads(_parquet_file(file).schema_arrow.metadata[b"huggingface"])["info"]["features"][column]
        while "names" not in feature:  # a list of labels, as three generations of the library write it
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        return [str(name) for name in feature["names"]]
    except (KeyError, TypeError, IndexError, ValueError):
        return None


def named(value: Any, names: Sequence[str] | None, where: str, column: str) -> Any:
    """Return a cell with its integers as texts: their names, where there are any.

    Raises:
        DataError: an integer that has no name.
    """
    if isinstance(value, list):
        return [named(item, names, where, column) for item in value]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if names is None:
        return str(value)
    if not 0 <= value < len(names):
        raise DataError(
            f"{where}: expected `{column}` in 0 … {len(names) - 1}, a place among its {len(names)} class names, got "
            f"{value}." + (" -1 stands for an unknown label: drop such rows." if value == -1 else "")
        )
    return names[value]


def text_cell(row: Row, column: str) -> str:
    """Return the text in a cell.

    Raises:
        DataError: none, or something else.
    """
    value = row.values.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{row.where}: expected a text under `{column}`, got {value!r}.")
    return value.strip()


def text_list(value: Any, where: str, column: str) -> list[str]:
    """Return the texts of a cell: a list; a text; in CSV a JSON list or texts separated by |. Empty means none.

    Raises:
        DataError: something that is not a text in it.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                raise DataError(
                    f"{where}: `{column}` starts like a JSON list but is none: {value[:60]!r}. "
                    'Expected ["one", "two"] or one|two.'
                ) from None
        else:
            value = value.split("|")
    if not isinstance(value, list | tuple):
        value = [value]
    for item in value:
        if not isinstance(item, str):
            raise DataError(f"{where}: expected texts in `{column}`, got {type(item).__name__} {item!r}.")
        _check_whole(item, where)
    return [item.strip() for item in value if item.strip()]


def _check_whole(text: str, where: str) -> None:
    """Refuse halves of characters, which JSON can hold and no file."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: half a character (\\u{ord(error.object[error.start]):04x} without its other half)."
        ) from None


def lines(path: Path) -> Iterator[str]:
    """Lines of a text file, without their ends.

    Raises:
        DataError: not UTF-8.
    """
    with _opened(path, newline=None) as file:
        for line in file:
            yield line.removesuffix("\n")


@contextlib.contextmanager
def _opened(path: Path, newline: str | None) -> Iterator[TextIO]:
    """Open a text file, of which only as much is in memory as is being read."""
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError:
        with path.open("rb") as raw:
            for number, line in enumerate(raw, start=1):  # no character of UTF-8 but the line's end has its byte
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x}). "
                        f"Convert it, for example: iconv -f latin1 -t utf-8 {path.name}"
                    ) from None
        raise


def _around(line: str, position: int) -> str:
    return repr(line[max(0, position - 20) : position + 20])
