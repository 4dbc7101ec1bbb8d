"""Files to Scores: tables, TREC runs with qrels, JSON of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Floats
from sigmax.data.formats.opening import ending_of, lines
from sigmax.data.formats.reader import Reading
from sigmax.data.formats.rows import TABLES, is_table
from sigmax.errors import DataError, lookup
from sigmax.scores.blocks import blocks, is_run, layout_of, numbers, predictions, run_rows, trec_rows, truths
from sigmax.scores.table import UNJUDGED, Scores, build, check_finite, coded

__all__ = ["are_scores", "is_list", "read_scores"]


def read_scores(
    source: str | Path,
    *,
    scores: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    qrels: str | Path | None = None,
    unjudged: str | None = None,
    delimiter: str | None = None,
) -> Scores:
    """Read scores and, where it is there, their truth.

    Args:
        source: a table of any format that Sigmax reads, with query, candidate, the score columns and right (1, 0,
            empty for unjudged); a TREC run, or several separated by commas, each a column; JSON of
            {query: {candidate: score}}.
        scores: the score columns; none: `score`, or else all columns of numbers.
        columns: our name of a column -> the one in the file: query, candidate, score, right.
        qrels: a file that says which candidates are right: TREC's qrels (query 0 candidate relevance), BEIR's, or a
            table with query, candidate and right. Right answers that no row names count as not found.
        unjudged: a key of `UNJUDGED`; None: "wrong" with qrels, else "ignored".
        delimiter: of a CSV file, where it is not told by its first line.

    Raises:
        DataError: nothing there, a broken file, columns that are missing, scores that are infinite or no numbers.
    """
    reading = Reading(dict(columns or {}), delimiter=delimiter)
    unjudged = unjudged or ("ignored" if qrels is None else "wrong")
    lookup(UNJUDGED, unjudged, "unjudged")
    path = Path(source)
    paths = (
        [path] if path.exists() or "," not in str(source) else [Path(part.strip()) for part in str(source).split(",")]
    )
    for one in paths:
        if not one.is_file():
            raise DataError(f"{one}: no such file.")
    names, values, queries, candidates, right = (
        _joined(paths) if all(map(is_list, paths)) else _table(path, reading, scores)
    )
    if scores and all(map(is_list, paths)):
        places = [names.index(lookup({name: name for name in names}, one, "scores")) for one in scores]
        names, values = tuple(scores), values[:, places]
    name, missing = paths[0].stem, None
    if qrels is not None:
        right, missing = _matched(queries, candidates, Path(qrels))
    return build(names, values, queries, candidates, right, missing=missing, name=name, unjudged=unjudged, notes=())


def are_scores(source: str | Path, columns: Mapping[str, str] | None = None) -> bool:
    """Whether a path is a file of scores: runs, predictions, or a table with the columns query and candidate."""
    parts = [Path(source)] if Path(source).exists() else [Path(part.strip()) for part in str(source).split(",")]
    if not all(path.is_file() for path in parts):
        return False
    if all(map(is_list, parts)):
        return True
    try:
        names = layout_of(parts[0], Reading(dict(columns or {})), ()).names
    except DataError:
        return False
    return {"query", "candidate"} <= set(names)


def is_list(path: Path) -> bool:
    """Whether a file is a TREC run or JSON of predictions: lists of candidates with one score each."""
    return is_run(path) or (ending_of(path) == ".json" and predictions(path) is not None)


_Columns = tuple[tuple[str, ...], Floats, Any, Any, "NDArray[np.int8] | None"]


def _table(path: Path, reading: Reading, scores: Sequence[str]) -> _Columns:
    """Columns of a table, block by block."""
    import pyarrow

    layout = layout_of(path, reading, scores)
    queries: list[Any] = []
    candidates: list[Any] = []
    values, right = [], []
    before = 0
    for table in blocks(path, reading, layout):
        columns = [numbers(table.column(name), name, path, before) for name in layout.scores]
        part = np.stack(columns, axis=1)
        check_finite(part, layout.scores, str(path), before)
        values.append(part)
        for name, parts in (("query", queries), ("candidate", candidates)):
            text = table.column(name).cast(pyarrow.string())
            if text.null_count:
                place = text.is_null().index(True).as_py()
                raise DataError(f"{path}, row {before + place + 1}: no {name}. Every row needs one.")
            parts.extend(text.dictionary_encode().chunks)
        if "right" in table.column_names:
            right.append(truths(table.column("right"), path, before))
        before += table.num_rows
    if not before:
        raise DataError(f"{path}: no rows.")
    whole = [coded(pyarrow.chunked_array(parts)) for parts in (queries, candidates)]
    return layout.scores, np.concatenate(values), whole[0], whole[1], np.concatenate(right) if right else None


def _joined(paths: Sequence[Path]) -> _Columns:
    """Runs side by side: a column each, NaN where one did not return a candidate."""
    import pyarrow

    read = [run_rows(path) if is_run(path) else predictions(path) for path in paths]
    parts = [one for one in read if one is not None]
    names = tuple(path.stem for path in paths)
    if len(set(names)) < len(names):
        raise DataError(f"Expected runs of different names, a column each, got {', '.join(names)}. Rename one.")
    queries = coded(pyarrow.array([text for part in parts for text in part[0]], pyarrow.string()))
    candidates = coded(pyarrow.array([text for part in parts for text in part[1]], pyarrow.string()))
    scores = np.concatenate([np.asarray(part[2], np.float64) for part in parts])
    of = np.repeat(np.arange(len(parts)), [len(part[2]) for part in parts])
    if len(parts) == 1:
        return names, scores[:, None], queries, candidates, None
    key = np.asarray(queries.indices, np.int64) * len(candidates.dictionary) + np.asarray(candidates.indices, np.int64)
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    values = np.full((len(first), len(parts)), np.nan)
    values[place[::-1], of[::-1]] = scores[::-1]  # of a candidate twice in a run, the first stays
    rows = pyarrow.array(first, pyarrow.int64())
    return names, values, queries.take(rows), candidates.take(rows), None


def _matched(queries: Any, candidates: Any, path: Path) -> tuple[NDArray[np.int8], dict[str, int]]:
    """(k,) truth of rows by qrels, and how many right answers of each query no row names."""
    asked, named, judged = _qrels(path)
    of_query = {text: place for place, text in enumerate(queries.dictionary.to_pylist())}
    of_candidate = {text: place for place, text in enumerate(candidates.dictionary.to_pylist())}
    width = len(of_candidate) + 1
    i = np.array([of_query.get(text, -1) for text in asked], np.int64)
    j = np.array([of_candidate.get(text, width - 1) for text in named], np.int64)
    if (i < 0).all():
        raise DataError(
            f"{path}: names none of the queries that were scored, but {', '.join(map(repr, asked[:3]))}; scored were "
            f"{', '.join(map(repr, list(of_query)[:3]))}. Do both use the same ids?"
        )
    key = np.asarray(queries.indices, np.int64) * width + np.asarray(candidates.indices, np.int64)
    known = i >= 0
    judgement = i[known] * width + j[known]
    order = np.argsort(judgement, kind="stable")
    place = np.minimum(np.searchsorted(judgement[order], key), max(len(order) - 1, 0))
    there = judgement[order][place] == key
    truth = np.where(there, judged[known][order][place], -1).astype(np.int8)
    found = np.isin(judgement, key)
    missing: dict[str, int] = {}
    for text, is_right, was_found in zip(
        (text for text, one in zip(asked, known, strict=True) if one), judged[known], found, strict=True
    ):
        if is_right == 1 and not was_found:
            missing[text] = missing.get(text, 0) + 1
    return truth, missing


def _qrels(path: Path) -> tuple[list[str], list[str], NDArray[np.int8]]:
    """Queries, candidates and truth of a file of judgements.

    Raises:
        DataError: none of the forms.
    """
    import pyarrow

    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if ending_of(path) in TABLES and is_table(path):
        head = next(lines(path), "") if ending_of(path) in (".tsv", ".csv") else ""
        renames = {"query": "query-id", "candidate": "corpus-id", "right": "score"} if "corpus-id" in head else {}
        if not (ending_of(path) == ".tsv" and len(head.split("\t")) == 4 and head.split("\t")[1] in ("0", "Q0")):
            reading = Reading(renames)
            layout = layout_of(path, reading, ["right"])
            parts = [table.select(["query", "candidate", "right"]) for table in blocks(path, reading, layout)]
            truth = np.concatenate([truths(part.column("right"), path, 0) for part in parts])
            texts = [
                [text for part in parts for text in part.column(name).cast(pyarrow.string()).to_pylist()]
                for name in ("query", "candidate")
            ]
            return texts[0], texts[1], truth
    asked, named, relevances = trec_rows(path, "query 0 candidate relevance", "qrels, ", 3)
    return asked, named, (np.array(relevances) > 0).astype(np.int8)
