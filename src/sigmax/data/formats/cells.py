"""What is in a cell: a text, a list of texts, or the labels of a row."""

from __future__ import annotations

import ast
import datetime
import decimal
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sigmax.data.dataset import Indices
from sigmax.data.formats.reader import Reading
from sigmax.data.formats.rows import Row, Table, parquet_file
from sigmax.data.normal import normal, trimmed
from sigmax.errors import DataError

__all__ = [
    "LabelNames",
    "class_names",
    "indicators",
    "labels_of",
    "named",
    "optional_text",
    "row_labels",
    "text_cell",
    "text_list",
]

#: Columns whose cells in CSV and Excel hold lists.
LISTS = ("answers", "labels", "wrong")
#: Columns that say nothing about labels where each label has a column of its own.
BESIDE_INDICATORS = ("text", "image", "file_name", "split", "id", "_id", "index", "")


def optional_text(value: Any, where: str, column: str) -> str | None:
    """Return a text, or a number or a date as one, without spaces at its ends; None where the cell is empty.

    A number that is whole is written without a point, so that 1 and 1.0 are the same.

    Raises:
        DataError: anything else, or half a character.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float | decimal.Decimal):
        if not math.isfinite(value):
            raise DataError(f"{where}: expected a text in `{column}`, got {value!r}.")
        whole = value == value.to_integral_value() if isinstance(value, decimal.Decimal) else value.is_integer()
        return str(int(value)) if whole else str(value)
    if isinstance(value, bool | int | datetime.date | datetime.time):
        return str(value)
    if not isinstance(value, str):
        kind = "dict" if isinstance(value, dict) else type(value).__name__
        raise DataError(f"{where}: expected texts in `{column}`, got {kind} {repr(value)[:60]}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can hold one, and no file
        half = ord(error.object[error.start])
        raise DataError(f"{where}: half a character (\\u{half:04x} without its other half).") from None
    return trimmed(value) or None


def text_cell(row: Row, column: str) -> str:
    """Return the text in a cell, see `optional_text`.

    Raises:
        DataError: none, or something else.
    """
    text = optional_text(row.values.get(column), row.where, column)
    if text is None:
        raise DataError(f"{row.where}: expected a text under `{column}`, got {row.values.get(column)!r}.")
    return text


def text_list(row: Row, column: str, reading: Reading) -> list[str]:
    """Return the texts of a cell that may hold several; an empty one holds none.

    A list is taken as it is, and a single text is one text. Only where a cell cannot hold a list (CSV, Excel) and its
    column is one of `LISTS`, a text may stand for several: as a JSON list, as Python prints a list, or with
    `reading.separator` between them.

    Raises:
        DataError: something that is not a text in it; what looks like a list of quoted texts and is none.
    """
    value = row.values.get(column)
    if isinstance(value, str) and row.flat and column in LISTS and reading.separator:
        listed = _listed(value, row.where, column)
        value = value.split(reading.separator) if listed is None else listed
    items = value if isinstance(value, list | tuple) else [value]
    texts = (optional_text(item, row.where, column) for item in items)
    return [text for text in texts if text is not None]


def _listed(cell: str, where: str, column: str) -> list[Any] | None:
    """The list that a cell holds as text; None where it is no list."""
    text = cell.strip()
    if not text.startswith("["):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        # ["a" "b"], as NumPy prints an array, is one text to Python.
        if isinstance(found, list) and not re.search(r"""["']\s+["']""", text):
            return found
    if re.match(r"""\[\s*["']""", text):
        raise DataError(
            f"{where}: `{column}` starts like a JSON list but is none: {cell[:60]!r}. "
            'Expected ["one", "two"] or one|two. If it is one text, read it with an empty `separator`.'
        )
    return None


# -- labels --------------------------------------------------------------------------------------


def indicators(columns: Sequence[str]) -> list[str]:
    """Return the columns that may each stand for one label (0 or 1), if there are at least two."""
    found = [name for name in columns if name not in BESIDE_INDICATORS]
    return found if len(found) > 1 and not {"label", "labels"} & {*columns} else []


def row_labels(row: Row, names: dict[str, list[str] | None], reading: Reading) -> list[str]:
    """Return the labels of a row: in its columns `labels` or `label`, or the columns of 0 and 1 that are 1.

    Args:
        row: the row.
        names: what `class_names` gives for these two columns.
        reading: how to read.

    Raises:
        DataError: neither; a cell that holds something else.
    """
    for column in ("labels", "label"):
        if column in row.values:
            value = row.values[column]
            if names[column] is not None:
                value = named(value, names[column], row.where, column)
            return text_list(row._replace(values={column: value}), column, reading)
    columns = indicators(list(row.values))
    if not columns:
        raise DataError(f"{row.where}: expected a list of texts under `labels` (empty for none), got no such key.")
    return [column for column in columns if _indicated(row, column)]


def _indicated(row: Row, column: str) -> bool:
    text = optional_text(row.values[column], row.where, column)
    if text not in ("0", "1", "0.0", "1.0", "False", "True", "false", "true", None):
        raise DataError(
            f"{row.where}: expected 0 or 1 under `{column}`, as where each label has a column of its own, got "
            f"{text[:60]!r}. Drop the columns that are no labels; or, if one column holds the labels, say so by "
            f"columns labels={column}."
        )
    return text in ("1", "1.0", "True", "true")


def class_names(table: Table, column: str) -> list[str] | None:
    """Names of the integers in a Parquet column, where Hugging Face's datasets wrote them into the schema."""
    if table.path.suffix.lower() != ".parquet":
        return None
    try:
        feature = json.loads(parquet_file(table.path).schema_arrow.metadata[b"huggingface"])["info"]["features"][column]
        while "names" not in feature:  # a list of labels, as three generations of the library write it
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        return [str(name) for name in feature["names"]]
    except (KeyError, TypeError, IndexError, ValueError, RecursionError):
        return None


def labels_of(table: Table, reading: Reading) -> dict[str, list[str] | None]:
    """Return `class_names` of the two columns that may hold labels."""
    return {ours: class_names(table, reading.columns.get(ours, ours)) for ours in ("label", "labels")}


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


class LabelNames:
    """Labels as they come. Those with the same normal form are one label, shown as it came first."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._names: list[str] = []

    def place(self, label: str) -> int:
        """Return the place of a label, which is added if it is new."""
        key = normal(label)
        if key not in self._places:
            self._places[key] = len(self._names)
            self._names.append(label)
        return self._places[key]

    def in_order(self) -> tuple[list[str], Indices]:
        """Return the labels in alphabetical order, and for each place the one there.

        Where every label is a whole number, 1 and 1.0 are the same: a table with an empty cell is often written so.
        """
        names = self._names
        if names and all(re.fullmatch(r"-?\d{1,300}(\.0+)?", name) for name in names):
            names = [str(int(name.partition(".")[0])) if "." in name else name for name in names]
        order = sorted(set(names))
        place = {name: j for j, name in enumerate(order)}
        return order, np.array([place[name] for name in names], dtype=np.int64)
