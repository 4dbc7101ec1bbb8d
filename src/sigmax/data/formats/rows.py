"""Rows of tables in JSON, CSV, Parquet and Excel files, each with the place it came from."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from sigmax.data.formats.opening import ending_of, lines, opened, opened_bytes
from sigmax.data.formats.reader import Reading
from sigmax.errors import DataError, extra, first_line, lookup

__all__ = ["TABLES", "Row", "Table", "delimiter_of", "is_table", "parquet_file", "read_rows", "sheets_of"]


class Table(NamedTuple):
    """A table: a file, or one sheet of a workbook."""

    path: Path
    sheet: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.sheet is None else f"{self.path}, sheet {self.sheet!r}"


class Row(NamedTuple):
    """One record and where it stands, for error messages."""

    values: dict[str, Any]
    where: str  #: "file, line 7" or "file, row 7"
    flat: bool = False  #: whether a cell cannot hold a list but by its text, as in CSV


# -- JSON ----------------------------------------------------------------------------------------


def _jsonl(table: Table, reading: Reading) -> Iterator[Row]:
    for number, line in enumerate(lines(table.path), start=1):
        if line.strip():
            where = f"{table}, line {number}"
            yield _record(_parsed(line, where, "Expected one JSON object per line."), where)


def _json(table: Table, reading: Reading) -> Iterator[Row]:
    """An array of objects, or objects one per line."""
    if _first_character(table.path) != "[":
        yield from _jsonl(table, reading)
        return
    with opened(table.path, newline=None) as file:
        whole = file.read()
    for number, entry in enumerate(_parsed(whole, str(table), "Expected an array of JSON objects."), start=1):
        yield _record(entry, f"{table}, row {number}")


def _parsed(text: str, where: str, expected: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        around = repr(text[max(0, error.pos - 20) : error.pos + 20])
        raise DataError(f"{where}: not JSON: {error.msg} at column {error.colno}: {around}. {expected}") from None
    except RecursionError:
        raise DataError(f"{where}: JSON that is nested too deeply to be read. {expected}") from None
    except ValueError:
        raise DataError(f"{where}: a number with thousands of digits. {expected}") from None


class _Object(dict[str, Any]):
    """A JSON object that remembers a key given twice."""

    twice: str | None = None

    def __init__(self, entries: list[tuple[str, Any]]) -> None:
        super().__init__(entries)
        if len(self) < len(entries):
            keys = [key for key, _ in entries]
            self.twice = next(key for key in keys if keys.count(key) > 1)


def _record(entry: Any, where: str) -> Row:
    if not isinstance(entry, _Object):
        raise DataError(f'{where}: expected a JSON object such as {{"query": …}}, got {type(entry).__name__}.')
    if entry.twice is not None:
        raise DataError(f"{where}: the key {entry.twice!r} is given twice. Rename or drop one.")
    return Row(entry, where)


def _first_character(path: Path) -> str:
    with opened(path, newline=None) as file:
        while character := file.read(1):
            if not character.isspace():
                return character
    return ""


# -- CSV -----------------------------------------------------------------------------------------


def _csv(table: Table, reading: Reading) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # texts may be long
    with opened(table.path, newline="") as file:
        head = file.readline()
        delimiter = reading.delimiter or ("\t" if ending_of(table.path) == ".tsv" else delimiter_of(head))
        reader = csv.reader(chain([head], file), delimiter=delimiter, strict=True)
        try:
            names = [name.strip() for name in next((row for row in reader if row), [])]
            _check_names(names, str(table))
            for cells in reader:
                if not cells:
                    continue
                where = f"{table}, line {reader.line_num}"
                if len(cells) != len(names):
                    raise DataError(
                        f"{where}: expected {len(names)} fields ({', '.join(names)}), got {len(cells)}. Put a text "
                        f"with {_named(delimiter)} in double quotes, or say which `delimiter` separates the fields."
                    )
                yield Row(dict(zip(names, cells, strict=True)), where, flat=True)
        except csv.Error as error:
            raise DataError(f"{table}, line {reader.line_num}: not CSV: {error}.") from None


def delimiter_of(head: str) -> str:
    """Return what separates a CSV file's fields: the comma, unless its line of names has none and one of the others."""
    return next((mark for mark in ",;\t|" if mark in head), ",")


def _named(delimiter: str) -> str:
    return {",": "commas", ";": "semicolons", "\t": "tabs"}.get(delimiter, f"{delimiter!r}")


def _check_names(names: list[str], where: str) -> None:
    for place, name in enumerate(names):
        if name and name in names[:place]:
            raise DataError(f"{where}: two columns are called {name!r}. Rename or drop one.")


# -- Parquet -------------------------------------------------------------------------------------


def _parquet(table: Table, reading: Reading) -> Iterator[Row]:
    import pyarrow

    file = parquet_file(table.path)
    _check_names(file.schema_arrow.names, str(table))
    number = 0
    try:
        # One thread: with several, each keeps memory of its own.
        for batch in file.iter_batches(batch_size=128, use_threads=False):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, f"{table}, row {number}")
    except MemoryError:  # Arrow's is an error of Arrow's too
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{table}: not a readable Parquet file: {first_line(error)}.") from None


def parquet_file(path: Path) -> Any:
    """Open a Parquet file with pyarrow.

    Raises:
        DataError: it is none.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        # By default a whole row group is read ahead; one may be all of the file.
        return parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except MemoryError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}.") from None


# -- Excel ---------------------------------------------------------------------------------------


def _workbook(path: Path) -> Any:
    with extra("excel"):
        import openpyxl
    try:
        with opened_bytes(path) as file:
            return openpyxl.load_workbook(file, data_only=True)
    except DataError:
        raise
    except Exception as error:  # whatever a broken archive makes openpyxl, zipfile and the XML parser stumble over
        raise DataError(
            f"{path}: not a readable Excel workbook (.xlsx): {first_line(error)}. Save an older .xls as .xlsx."
        ) from None


def sheets_of(path: Path) -> list[str]:
    """Names of the sheets of a workbook that have any cell.

    Raises:
        DataError: not a workbook.
        ImportError: openpyxl is not installed.
    """
    return [sheet.title for sheet in _workbook(path).worksheets if any(map(any, sheet.values))]


def _excel(table: Table, reading: Reading) -> Iterator[Row]:
    book = _workbook(table.path)
    sheet = book[table.sheet] if table.sheet is not None else book.worksheets[0]
    names: list[str] | None = None
    for number, cells in enumerate(sheet.values, start=1):
        if all(cell is None for cell in cells):
            continue
        if names is None:
            names = ["" if cell is None else str(cell).strip() for cell in cells]
            _check_names(names, str(table))
            continue
        nameless = next((cell for cell, name in zip(cells, names, strict=True) if cell is not None and not name), None)
        if nameless is not None:
            raise DataError(f"{table}, row {number}: {nameless!r} stands under no name. Name its column in row 1.")
        values = {name: cell for name, cell in zip(names, cells, strict=True) if name}
        yield Row(values, f"{table}, row {number}", flat=True)


# -- all -----------------------------------------------------------------------------------------

#: Readers of tables by the ending of the file's name.
TABLES: dict[str, Callable[[Table, Reading], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".json": _json,
    ".xlsx": _excel,
}


def is_table(path: Path) -> bool:
    """Return whether a file is a table by its ending; of JSON, an array, or lines that are not COCO's."""
    if ending_of(path) != ".json":
        return ending_of(path) in TABLES
    if _first_character(path) == "[":
        return True
    with opened(path, newline=None) as file:
        head = next((line for line in iter(lambda: file.readline(2**20), "") if line.strip()), "")
    try:
        entry = json.loads(head)
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, Mapping) and not {"images", "annotations", "categories"} & entry.keys()


def read_rows(table: Table, reading: Reading) -> Iterator[Row]:
    """Read the rows of a table, one after the other.

    Raises:
        DataError: an unknown ending, an unreadable file, a broken line, a column named twice, no rows.
    """
    path = table.path
    if ending_of(path) not in TABLES:
        raise DataError(f"{path}: expected a file ending in {', '.join(TABLES)}, got {path.suffix or 'no ending'!r}.")
    if not path.exists():
        raise DataError(f"{path}: no such file.")
    rows = lookup(TABLES, ending_of(path), "ending")(table, reading)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{table}: the {'file' if table.sheet is None else 'sheet'} has no rows.")
    return chain([first], rows)
