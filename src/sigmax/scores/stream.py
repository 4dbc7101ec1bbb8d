"""Rate a table of scores as it streams by: presence, any right and accepted beside every row that was read."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from sigmax.calibration.calibrator import DEFAULT_RULE
from sigmax.calibration.rules import CONFIDENCE, Choice, Decision
from sigmax.data.formats.opening import ending_of
from sigmax.data.formats.reader import Reading
from sigmax.errors import DataError
from sigmax.files import check_file, replace_file
from sigmax.scores.blocks import blocks, layout_of, numbers
from sigmax.scores.model import ScoreModel
from sigmax.scores.read import is_list, read_scores
from sigmax.scores.table import Scores, check_finite, coded

__all__ = ["ENDINGS", "Streamed", "rate_table"]

#: Files that rated rows are written to.
ENDINGS = (".csv", ".parquet", ".jsonl")
#: Columns that are added to each row.
ADDED = ("presence", "any_right", "accepted")


@dataclass(frozen=True)
class Streamed:
    """What became of a table."""

    rows: int
    queries: int
    accepted: int  #: rows
    answered: int  #: queries that got any
    decision: Decision
    notes: tuple[str, ...]


def rate_table(
    model: ScoreModel,
    source: str | Path,
    output: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    rule: str | Choice = DEFAULT_RULE,
    confidence: float = CONFIDENCE,
    delimiter: str | None = None,
) -> Streamed:
    """Add presence, any right and accepted to each row of a table.

    Rows keep their order and their columns. The table is read in blocks; a query's rows must stand together where it is
    larger than one, since its shares are among all of them. A row without any score has no presence.

    Args:
        model: calibrated scores.
        source: a table, a TREC run, or several, see `read_scores`.
        output: a file ending as one of `ENDINGS`; "-": standard output, as CSV.
        columns: our name of a column -> the one in the file.
        rule: what is accepted, such as "precision=0.95".
        confidence: of its promise.
        delimiter: of a CSV file.

    Raises:
        DataError: a broken file, columns that are missing, a query whose rows are far apart.
        OSError: the output cannot be written; nothing is left behind.
    """
    if str(output) != "-":
        if ending_of(Path(output)) not in ENDINGS:
            raise DataError(f"{output}: expected a file ending in {', '.join(ENDINGS)}, or - for standard output.")
        check_file(Path(output))
    decision = model.decide(rule, confidence=confidence)
    work = _Work(model, decision)
    names = [column.name for column in model.combination.columns]
    paths = [Path(source)] if Path(source).exists() else [Path(part.strip()) for part in str(source).split(",")]
    tables = (
        _listed(read_scores(source))
        if all(map(is_list, paths))
        else _blocks(paths[0], Reading(dict(columns or {}), delimiter=delimiter), names)
    )
    rated = work.rated(_ahead(tables), names, str(source))
    if str(output) == "-":
        _write(rated, sys.stdout.buffer, ".csv")
    else:
        with replace_file(Path(output)) as file:
            _write(rated, file, ending_of(Path(output)))
    return Streamed(work.rows, work.queries, work.accepted, work.answered, decision, tuple(work.notes))


class _Work:
    """Rates blocks one after the other, and counts."""

    def __init__(self, model: ScoreModel, decision: Decision) -> None:
        self.model, self.decision = model, decision
        self.rows = self.queries = self.accepted = self.answered = 0
        self.notes: list[str] = []
        self._seen: set[str] = set()

    def rated(self, tables: Iterator[Any], names: Sequence[str], source: str) -> Iterator[Any]:
        """Give the blocks with their new columns; what is left of a query waits for the next block."""
        import pyarrow

        held = None
        before = 0
        for table, more in _and_more(tables):
            table = table if held is None else pyarrow.concat_tables([held, table])
            held = None
            if more:  # the last query may go on
                same = np.asarray(table.column("query").combine_chunks().dictionary_encode().indices)
                cut = len(same) - int(np.argmax(np.append(same[::-1] != same[-1], True)))
                held = table.slice(cut)
                if cut == 0:
                    continue
                table = table.slice(0, cut)
            yield self._one(table, names, source, before)
            before += table.num_rows

    def _one(self, table: Any, names: Sequence[str], source: str, before: int) -> Any:
        import pyarrow

        path = Path(source)
        values = np.stack([numbers(table.column(name), name, path, before) for name in names], axis=1)
        check_finite(values, names, source, before)
        queries = coded(table.column("query").cast(pyarrow.string()))
        code = np.asarray(queries.indices, np.int64)
        texts = queries.dictionary
        for text in texts.to_pylist():
            if text in self._seen:
                self._apart(text, source)
            self._seen.add(text)
        known = np.flatnonzero(~np.isnan(values).all(1))
        order = known if (np.diff(code[known]) >= 0).all() else known[np.argsort(code[known], kind="stable")]
        starts = np.concatenate([[0], np.cumsum(np.bincount(code[order], minlength=len(texts)))])
        candidates = pyarrow.nulls(len(order), pyarrow.string())
        scores = Scores(tuple(names), values[order], starts, texts, candidates, name=source)
        if not self.rows:
            self.notes += self.model.fingerprint.unlike(scores)
        _, of_rows, of_queries = self.model.read(scores)
        presence = np.full(len(values), np.nan)
        presence[order] = of_rows
        accepted = presence >= self.decision.threshold
        self.rows += len(values)
        self.queries += len(texts)
        self.accepted += int(accepted.sum())
        self.answered += int((np.bincount(code[accepted], minlength=len(texts)) > 0).sum())
        for name, column in zip(
            ADDED,
            (
                pyarrow.array(presence, mask=np.isnan(presence)),
                pyarrow.array(of_queries[code]),
                pyarrow.array(accepted),
            ),
            strict=True,
        ):
            if name in table.column_names:
                table = table.drop_columns([name])
            table = table.append_column(name, column)
        return table

    def _apart(self, query: str, source: str) -> None:
        raise DataError(
            f"{source}: rows of the query {query!r} stand in several places, and shares are among all of its "
            "candidates. Sort the table by query."
        )


def _blocks(path: Path, reading: Reading, names: Sequence[str]) -> Iterator[Any]:
    yield from blocks(path, reading, layout_of(path, reading, names))


def _ahead(tables: Iterator[Any]) -> Iterator[Any]:
    """The same tables, each read while the one before is at work."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, tables, None)
        while (table := coming.result()) is not None:
            coming = pool.submit(next, tables, None)
            yield table


def _and_more(tables: Iterator[Any]) -> Iterator[tuple[Any, bool]]:
    """Each table, and whether another follows."""
    last = next(tables, None)
    for table in tables:
        yield last, True
        last = table
    if last is not None:
        yield last, False


def _listed(scores: Scores) -> Iterator[Any]:
    """A table of runs that were read."""
    import pyarrow

    columns = {name: scores.values[:, place] for place, name in enumerate(scores.columns)}
    texts = scores.queries.take(pyarrow.array(scores.rows))
    yield pyarrow.table(
        {
            "query": texts.cast(pyarrow.string()),
            "candidate": scores.candidates.cast(pyarrow.string()),
            **{name: pyarrow.array(one, mask=np.isnan(one)) for name, one in columns.items()},
        }
    )


def _write(tables: Iterator[Any], file: IO[bytes], ending: str) -> None:
    import pyarrow
    from pyarrow import parquet

    writer: Any = None
    first = True
    try:
        for table in tables:
            if ending == ".parquet":
                writer = writer or parquet.ParquetWriter(pyarrow.PythonFile(_Kept(file), "w"), table.schema)
                writer.write_table(table)
            elif ending == ".jsonl":
                lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
                file.write("".join(lines).encode())
            else:
                if first:
                    text = io.StringIO()
                    csv.writer(text, lineterminator="\n").writerow(table.column_names)
                    file.write(text.getvalue().encode())
                file.write(_as_csv(table))
            first = False
    finally:
        if writer is not None:
            writer.close()


def _as_csv(table: Any) -> Any:
    """Lines of a table, its texts in quotes only if one of them needs it."""
    import pyarrow
    from pyarrow import csv as arrow

    for style in ("none", "needed"):
        held = pyarrow.BufferOutputStream()
        try:
            arrow.write_csv(table, held, arrow.WriteOptions(include_header=False, quoting_style=style))
        except pyarrow.ArrowInvalid:  # a comma, a quote or a line end in a text
            continue
        return held.getvalue()
    raise DataError("The table holds values that CSV cannot; write .parquet instead.")


class _Kept(io.RawIOBase):
    """A file that stays open when its writer is done."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Write, and say how much."""
        return self.file.write(data)
