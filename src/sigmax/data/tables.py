"""Rows of JSONL, CSV and Parquet files, each with the place it came from."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sigmax.errors import DataError, lookup

__all__ = ["TABLES", "Row", "read_rows", "text_list"]


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
                "Expected one JSON object a line."
            ) from None
        if not isinstance(values, dict):
            raise DataError(f'{where}: expected a JSON object such as {{"query": …}}, got {type(values).__name__}.')
        if "\\ud" in line.lower():
            try:
                json.dumps(values, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    f"{where}: half a character (\\u{ord(error.object[error.start]):04x} without its other half)."
                ) from None
        yield Row(values, where)


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # texts may be long
    # Python's str.splitlines would also split at form feeds and the like, inside texts.
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            if None in values or None in values.values():
                got = len(values) if None not in values else len(values) - 1 + len(values[None])  # type: ignore[call-overload]
                got -= sum(value is None for value in values.values())
                raise DataError(
                    f"{where}: expected {len(reader.fieldnames or ())} fields ({', '.join(reader.fieldnames or ())}), "
                    f"got {got}. Put a text with commas in double quotes."
                )
            yield Row(values, where)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.reader.line_num}: not CSV: {error}.") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}.") from None
    for number, values in enumerate(table.to_pylist(), start=1):
        yield Row(values, f"{path}, row {number}")


#: Readers of tables by the ending of the file's name.
TABLES: dict[str, Callable[[Path], Iterator[Row]]] = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}


def read_rows(path: Path) -> list[Row]:
    """Read every row of a table.

    Raises:
        DataError: an unknown ending, an unreadable file, a broken line, no rows.
    """
    if path.suffix not in TABLES:
        raise DataError(f"{path}: expected a file ending in {', '.join(TABLES)}, got {path.suffix or 'no ending'!r}.")
    if not path.exists():
        raise DataError(f"{path}: no such file.")
    rows = list(lookup(TABLES, path.suffix, "ending")(path))
    if not rows:
        raise DataError(f"{path}: the file has no rows.")
    return rows


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
    return [item.strip() for item in value if item.strip()]


def lines(path: Path) -> Iterator[str]:
    """Lines of a text file, without their ends.

    Raises:
        DataError: not UTF-8.
    """
    for line in io.StringIO(_text(path), newline=None):
        yield line.removesuffix("\n")


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}). "
            f"Convert it, for example: iconv -f latin1 -t utf-8 {path.name}"
        ) from None


def _around(line: str, position: int) -> str:
    return repr(line[max(0, position - 20) : position + 20])
