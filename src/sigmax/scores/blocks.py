"""Tables of scores as Arrow blocks: CSV and Parquet by Arrow itself, all else row by row; every text as it stands."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Floats
from sigmax.data.formats.opening import ending_of, lines, opened, opened_bytes
from sigmax.data.formats.reader import Reading
from sigmax.data.formats.rows import TABLES, Table, delimiter_of, is_table, parquet_file, read_rows
from sigmax.errors import DataError, first_line, nearest

__all__ = ["Layout", "blocks", "is_run", "layout_of", "numbers", "predictions", "run_rows", "trec_rows", "truths"]

#: Bytes of a CSV file, and rows of other tables, that are read at a time.
BYTES, ROWS = 2**25, 2**20
#: Columns that are never scores.
OURS = ("query", "candidate", "right", "split")
#: Texts that stand for no score.
NOTHING = frozenset({"", "nan", "none", "null", "na", "n/a"})
YES, NO = frozenset({"true", "yes", "right"}), frozenset({"false", "no", "wrong"})


class Layout:
    """Which columns of a table are what."""

    def __init__(self, names: Sequence[str], columns: Mapping[str, str], scores: Sequence[str], path: Path) -> None:
        self.renames = {theirs: ours for ours, theirs in columns.items() if ours in OURS}
        for ours, theirs in columns.items():
            if ours not in (*OURS, "score"):
                raise DataError(
                    f"Expected columns named from {', '.join(OURS)}, score, got {ours!r}.{nearest(ours, OURS)}"
                )
            if theirs not in names:
                raise DataError(f"{path}: no column {theirs!r}; its columns are {', '.join(names)}.")
        self.names = [self.renames.get(name, name) for name in names]
        for ours in ("query", "candidate"):
            if ours not in self.names:
                raise DataError(
                    f"{path}: no column {ours!r}; its columns are {', '.join(names)}. Say which it is: {ours}=NAME, "
                    "or give a table with query, candidate, score and right."
                )
        wanted = list(scores) or ([columns["score"]] if "score" in columns else [])
        self.scores = tuple(wanted) or (("score",) if "score" in self.names else ())
        for name in self.scores:
            if name not in self.names:
                raise DataError(
                    f"{path}: no score column {name!r}; its columns are {', '.join(names)}.{nearest(name, names)}"
                )

    def finished(self, table: Any, path: Path) -> None:
        """Take all columns of numbers for scores, where no column is called so."""
        if self.scores:
            return
        found = []
        for name in self.names:
            if name in OURS or name in ("rank", "row", "id"):
                continue
            try:
                numbers(table.column(name).slice(0, 1000), name, path, 0)
            except DataError:
                continue
            found.append(name)
        if not found:
            raise DataError(
                f"{path}: no column 'score' and no other of numbers; its columns are {', '.join(self.names)}. "
                "Say which: --scores NAME,…"
            )
        self.scores = tuple(found)


def layout_of(path: Path, reading: Reading, scores: Sequence[str]) -> Layout:
    """Find which columns of a table are what.

    Raises:
        DataError: a table without queries or candidates.
    """
    return Layout(_names(path, reading), reading.columns, scores, path)


def blocks(path: Path, reading: Reading, layout: Layout) -> Iterator[Any]:
    """Arrow tables of consecutive rows, columns under our names; texts where the file has texts.

    Raises:
        DataError: a file that cannot be read; names the line.
    """
    ending = ending_of(path)
    if ending in (".csv", ".tsv"):
        source = _csv_blocks(path, reading)
    elif ending == ".parquet":
        source = _parquet_blocks(path)
    else:
        source = _row_blocks(path, reading)
    for table in source:
        table = table.rename_columns([layout.renames.get(name, name) for name in table.column_names])
        layout.finished(table, path)
        yield table


def _names(path: Path, reading: Reading) -> list[str]:
    ending = ending_of(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if ending not in TABLES or not is_table(path):
        raise DataError(
            f"{path}: expected scores: a table ({', '.join(TABLES)}) with query, candidate, score and right; a TREC "
            "run (query Q0 candidate rank score tag); or JSON of {query: {candidate: score}}."
        )
    if ending == ".parquet":
        return list(parquet_file(path).schema_arrow.names)
    first = list(islice(read_rows(Table(path), reading), 100))
    return list(dict.fromkeys(name for row in first for name in row.values))


def _csv_blocks(path: Path, reading: Reading) -> Iterator[Any]:
    import pyarrow
    from pyarrow import csv as arrow

    with opened(path, newline="") as text:
        head = text.readline()
        wide = text.encoding.startswith("utf-16")
    mark = reading.delimiter or ("\t" if ending_of(path) == ".tsv" else delimiter_of(head))
    names = [name.strip() for name in next(csv.reader([head], delimiter=mark))]
    if wide or head.count('"') % 2:  # Arrow reads UTF-8, and a line of names that ends
        yield from _row_blocks(path, reading)
        return
    try:
        with opened_bytes(path) as file:
            reader = arrow.open_csv(
                pyarrow.PythonFile(file, "r"),
                read_options=arrow.ReadOptions(block_size=BYTES, column_names=names, skip_rows=1),
                parse_options=arrow.ParseOptions(delimiter=mark, newlines_in_values=True),
                convert_options=arrow.ConvertOptions(
                    column_types=dict.fromkeys(names, pyarrow.string()), strings_can_be_null=False
                ),
            )
            for batch in reader:
                if batch.num_rows:
                    yield pyarrow.Table.from_batches([batch])
    except (pyarrow.ArrowException, ValueError) as error:
        for _ in read_rows(Table(path), reading):  # says which line
            pass
        raise DataError(f"{path}: not CSV that can be read: {first_line(error)}") from None


def _parquet_blocks(path: Path) -> Iterator[Any]:
    import pyarrow

    try:
        for batch in parquet_file(path).iter_batches(batch_size=ROWS):
            yield pyarrow.Table.from_batches([batch])
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {first_line(error)}.") from None


def _row_blocks(path: Path, reading: Reading) -> Iterator[Any]:
    import pyarrow

    rows = read_rows(Table(path), reading)
    names: list[str] | None = None
    for row in rows:
        part = [row, *islice(rows, 2**16 - 1)]
        if names is None:
            names = list(dict.fromkeys(name for one in part for name in one.values))
        columns = {name: [one.values.get(name) for one in part] for name in names}
        yield pyarrow.table({name: _column(values) for name, values in columns.items()})


def _column(values: list[Any]) -> Any:
    import pyarrow

    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return pyarrow.array([None if value is None else float(value) for value in values], pyarrow.float64())
    if kinds == {bool}:
        return pyarrow.array(values, pyarrow.bool_())
    texts = [
        None if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in values
    ]
    return pyarrow.array(texts, pyarrow.string())


# -- cells ---------------------------------------------------------------------------------------


def numbers(column: Any, name: str, path: Path, before: int) -> Floats:
    """Read a column of scores, NaN where a cell is empty.

    Raises:
        DataError: a cell that is no number; names the row.
    """
    import pyarrow
    from pyarrow import compute

    column = _flat(column)
    if pyarrow.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pyarrow.types.is_boolean(column.type):
        column = column.cast(pyarrow.int8())
    if not (pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)):
        try:
            return _floats(column.cast(pyarrow.float64()))
        except pyarrow.ArrowException:
            raise DataError(f"{path}: the column {name!r} holds {column.type}, not numbers.") from None
    try:
        return _floats(column.cast(pyarrow.float64()))
    except pyarrow.ArrowException:
        pass
    trimmed = compute.utf8_trim_whitespace(column)
    nothing = compute.is_in(compute.utf8_lower(trimmed), value_set=pyarrow.array(sorted(NOTHING)))
    filled = compute.if_else(nothing, pyarrow.scalar(None, pyarrow.string()), trimmed)
    try:
        return _floats(filled.cast(pyarrow.float64()))
    except pyarrow.ArrowException:
        for place, text in enumerate(filled.to_pylist()):
            try:
                float(text or 0)
            except ValueError:
                raise DataError(
                    f"{path}, row {before + place + 1}: expected a number in column {name!r}, got {text!r}. Leave it "
                    "empty where the candidate was not returned."
                ) from None
        return np.array([np.nan if text is None else float(text) for text in filled.to_pylist()])


def truths(column: Any, path: Path, before: int) -> NDArray[np.int8]:
    """Read the column `right`: 1 right, 0 wrong, −1 unjudged. A grade above 0 is right.

    Raises:
        DataError: a cell that is none of these.
    """
    code = _flat(column).dictionary_encode()
    meaning = np.array([_truth(value) for value in code.dictionary.to_pylist()] + [-1], np.int8)
    places = code.indices.fill_null(len(meaning) - 1).to_numpy(zero_copy_only=False)
    found: NDArray[np.int8] = meaning[places]
    if (found == -2).any():
        place = int(np.flatnonzero(found == -2)[0])
        raise DataError(
            f"{path}, row {before + place + 1}: expected 1 (right), 0 (wrong) or nothing (unjudged) in column 'right', "
            f"got {column[place].as_py()!r}."
        )
    return found


def _truth(value: Any) -> int:
    if value is None or (isinstance(value, float) and value != value):
        return -1
    text = str(value).strip().lower()
    if text in NOTHING:
        return -1
    if text in YES or text in NO:
        return int(text in YES)
    try:
        return int(float(text) > 0)
    except ValueError:
        return -2


def _floats(column: Any) -> Floats:
    values: Floats = column.to_numpy(zero_copy_only=False)
    return np.where(np.isnan(values), np.nan, values)


def _flat(column: Any) -> Any:
    import pyarrow

    return column.combine_chunks() if isinstance(column, pyarrow.ChunkedArray) else column


# -- runs and predictions ------------------------------------------------------------------------


def is_run(path: Path) -> bool:
    """Whether a file is a TREC run: no table, and six fields in its first line."""
    if not path.is_file() or ending_of(path) in TABLES:
        return False
    return len(next(lines(path), "").split()) == 6


def run_rows(path: Path) -> tuple[list[str], list[str], list[float]]:
    """Queries, candidates and scores of a TREC run.

    Raises:
        DataError: a line without six fields, or a score that is no number.
    """
    return trec_rows(path, "query Q0 candidate rank score tag", "six fields, ", 4)


def trec_rows(path: Path, form: str, what: str, place: int) -> tuple[list[str], list[str], list[float]]:
    """Queries, candidates and numbers of a file in one of TREC's forms: fields between spaces, the candidate third.

    Args:
        path: the file.
        form: names of the fields.
        what: the form's name, for errors.
        place: of the number among the fields.

    Raises:
        DataError: a line with more or fewer fields, a number that is none, or no line.
    """
    queries, candidates, values = [], [], []
    for number, line in enumerate(lines(path), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            if len(fields) != len(form.split()):
                raise ValueError
            values.append(float(fields[place]))
        except ValueError:
            raise DataError(f"{path}, line {number}: expected {what}{form}, got {line[:80]!r}.") from None
        queries.append(fields[0])
        candidates.append(fields[2])
    if not queries:
        raise DataError(f"{path}: no rows.")
    return queries, candidates, values


def predictions(path: Path) -> tuple[list[str], list[str], list[float]] | None:
    """Queries, candidates and scores of JSON {query: {candidate: score}}, also inside subset and split, as MTEB writes.

    Raises:
        DataError: several such tables in one file.
    """
    if ending_of(path) != ".json" or not path.is_file():
        return None
    with opened(path, newline=None) as file:
        if file.read(1) != "{":
            return None
        try:
            content = json.loads("{" + file.read())
        except (ValueError, RecursionError):
            return None
    found = list(_tables_in(content, ""))
    if len(found) > 1:
        raise DataError(
            f"{path}: several tables of scores, {', '.join(name or 'the whole' for name, _ in found)}. Keep one."
        )
    if not found:
        return None
    rows = [(query, one, float(score)) for query, scores in found[0][1].items() for one, score in scores.items()]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _tables_in(content: Any, name: str) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    if not isinstance(content, dict) or not content:
        return
    inner = list(content.values())
    scored = [one for one in inner if isinstance(one, dict)]
    if len(scored) == len(inner) and all(_is_scores(one) for one in scored) and any(scored):
        yield name, content
        return
    for key, one in content.items():
        yield from _tables_in(one, f"{name}/{key}" if name else str(key))


def _is_scores(entry: dict[str, Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in entry.values())
