"""From users' files to a MatchDataset. A format is one entry of `READERS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sigmax.data.dataset import SPLITS, Indices, MatchDataset, seeded_split
from sigmax.data.tables import TABLES, Row, lines, read_rows, text_list
from sigmax.errors import DataError, UnknownNameError, nearest

__all__ = ["READERS", "Reader", "read"]

#: How people name the parts of a data set, and what we call them.
SPLIT_NAMES = {"train": "train", "dev": "dev", "valid": "dev", "val": "dev", "validation": "dev", "test": "test"}


@dataclass(frozen=True)
class Reader:
    """One format."""

    name: str
    describes: str  #: one line for --help and error messages
    claims: Callable[[Path, Sequence[str]], bool]  #: a path and its columns (none for a folder without tables)
    read: Callable[[Path, Mapping[str, str], int], MatchDataset]  #: path, renamed columns, seed of a made split


def read(path: str | Path, *, columns: Mapping[str, str] | None = None, seed: int = 0) -> MatchDataset:
    """Read a data set, telling its format from the files and their columns.

    Args:
        path: a file, or a folder.
        columns: our column name -> the name in the file, for example {"query": "question"}.
        seed: of the split, where the data brings none.

    Raises:
        DataError: nothing there, no format that fits, or anything wrong inside; names file and line.
    """
    path = Path(path)
    columns = dict(columns or {})
    known = {"query", "answer", "answers", "wrong", "text", "label", "labels", "split"}
    for name in columns:
        if name not in known:
            raise UnknownNameError(
                f"Expected columns named from {', '.join(sorted(known))}, got {name!r}.{nearest(name, known)}"
            )
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    found = _columns(path, columns)
    for reader in READERS.values():
        if reader.claims(path, found):
            return reader.read(path, columns, seed)
    formats = "\n".join(f"  {reader.describes}" for reader in READERS.values())
    advice = ""
    if found:
        advice = (
            f"\nTell which is which, for example: --columns query={found[0]},answer={found[min(1, len(found) - 1)]}"
        )
        if len(found) == 1 and any(mark in found[0] for mark in ";\t"):
            advice = "\nThe columns look separated by something else than commas: save the file with commas."
    raise DataError(
        f"{path}: no known format"
        + (f"; its columns are {', '.join(found)}" if found else "; no table with rows found in it")
        + f". Expected one of\n{formats}{advice}"
    )


# -- a BEIR folder ------------------------------------------------------------------------------


def _read_beir(path: Path, columns: Mapping[str, str], seed: int) -> MatchDataset:
    queries = _beir_texts(path / "queries.jsonl")
    corpus = _beir_texts(path / "corpus.jsonl")
    query_place = {key: i for i, key in enumerate(queries)}
    candidate_place = {key: j for j, key in enumerate(corpus)}
    pairs: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    part: dict[int, str] = {}
    for file in sorted((path / "qrels").glob("*.tsv")):
        name = SPLIT_NAMES.get(file.stem, file.stem)
        for number, line in enumerate(lines(file), start=1):
            where = f"{file}, line {number}"
            fields = line.split("\t")
            if not line.strip() or (number == 1 and fields[-1] == "score"):
                continue
            try:
                query, document, score = fields[0], fields[1], float(fields[2])
                if not math.isfinite(score):
                    raise ValueError
            except (IndexError, ValueError):
                raise DataError(
                    f"{where}: expected query-id, corpus-id and a number, separated by tabs, got {line!r}."
                ) from None
            sides = ((query, query_place, "queries.jsonl"), (document, candidate_place, "corpus.jsonl"))
            for key, place, source in sides:
                if key not in place:
                    raise DataError(f"{where}: id {key!r} does not exist in {path / source}.{nearest(key, place)}")
            i = query_place[query]
            if part.setdefault(i, name) != name:
                raise DataError(
                    f"{where}: query {query!r} is in the {part[i]} split already. Each query belongs to one split."
                )
            pairs[score > 0].append((i, candidate_place[document]))
    for i, row in enumerate(queries.values()):
        given = row.values.get("split")
        if i not in part and given is not None:
            part[i] = SPLIT_NAMES.get(str(given), str(given))
    texts = [_text(row, "text") for row in queries.values()]
    return MatchDataset(
        name=path.name,
        queries=texts,
        candidates=[_document(row) for row in corpus.values()],
        pairs=_array(pairs[True]),
        wrong=_array(pairs[False]),
        splits=_complete([part.get(i) for i in range(len(texts))], texts, seed),
        query_ids=list(queries),
        candidate_ids=list(corpus),
    )


def _document(row: Row) -> str:
    """Title and text, of which one may be empty."""
    title = row.values.get("title") or ""
    if not isinstance(title, str):
        raise DataError(f"{row.where}: expected a text under `title`, got {title!r}.")
    if title.strip() and not row.values.get("text"):
        return title.strip()
    return f"{title.strip()} {_text(row, 'text')}".strip()


def _beir_texts(path: Path) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for row in read_rows(path):
        key = row.values.get("_id")
        if not isinstance(key, str):
            raise DataError(f'{row.where}: expected a text under "_id", got {key!r}.')
        if key in rows:
            raise DataError(f"{row.where}: id {key!r} was given before, in {rows[key].where}.")
        rows[key] = row
    return rows


# -- tables of pairs, and of labelled texts -----------------------------------------------------


def _read_pairs(path: Path, columns: Mapping[str, str], seed: int) -> MatchDataset:
    queries: dict[tuple[str | None, str], int] = {}
    candidates: dict[str, int] = {}
    right: list[tuple[int, int]] = []
    wrong: list[tuple[int, int]] = []
    for row, part in _rows_by_split(path, columns):
        for name in {"label", "labels", "score"} & row.values.keys():
            raise DataError(
                f"{row.where}: a table of pairs holds right answers and has no column `{name}`. Put known wrong "
                "answers under `wrong`, with `answer` left empty if there is none, and rename or drop the column."
            )
        i = queries.setdefault((part, _text(row, "query")), len(queries))
        for column, target in (("answer", right), ("answers", right), ("wrong", wrong)):
            value = row.values.get(column)
            if column == "answer" and isinstance(value, str):
                value = [value]  # one text, whatever characters are in it
            for text in text_list(value, row.where, column):
                target.append((i, candidates.setdefault(text, len(candidates))))
    texts = [text for _, text in queries]
    return MatchDataset(
        name=path.stem,
        queries=texts,
        candidates=list(candidates),
        pairs=_array(right),
        wrong=_array(wrong),
        splits=_complete([part for part, _ in queries], texts, seed),
    )


def _read_labelled(path: Path, columns: Mapping[str, str], seed: int) -> MatchDataset:
    texts: list[str] = []
    parts: list[str | None] = []
    labels: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    for row, part in _rows_by_split(path, columns):
        column = "labels" if "labels" in row.values else "label"
        if column not in row.values:
            raise DataError(f"{row.where}: expected a list of texts under `labels` (empty for none), got no such key.")
        for label in text_list(row.values[column], row.where, column):
            pairs.append((len(texts), labels.setdefault(label, len(labels))))
        texts.append(_text(row, "text"))
        parts.append(part)
    if not labels:
        raise DataError(f"{path}: no text has a label.")
    order = sorted(labels)
    place = {labels[label]: j for j, label in enumerate(order)}
    return MatchDataset(
        name=path.stem,
        queries=texts,
        candidates=order,
        pairs=_array([(i, place[j]) for i, j in pairs]),
        splits=_complete(parts, texts, seed),
        labels=True,
    )


#: The formats, in the order they are tried.
READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader(
            "beir",
            "a BEIR folder: queries.jsonl, corpus.jsonl, qrels/{train,dev,test}.tsv (score 0: known to be wrong)",
            lambda path, found: (path / "queries.jsonl").exists() and (path / "qrels").is_dir(),
            _read_beir,
        ),
        Reader(
            "labelled",
            "labelled texts: columns text and labels (a list; empty for none of the labels), optionally split",
            lambda path, found: "text" in found and ("labels" in found or "label" in found),
            _read_labelled,
        ),
        Reader(
            "pairs",
            "pairs: columns query and answer (one a row) or answers (a list), empty for none; optionally wrong (known "
            "wrong answers) and split",
            lambda path, found: "query" in found and ("answer" in found or "answers" in found),
            _read_pairs,
        ),
    )
}


# -- shared by the readers ----------------------------------------------------------------------


def _tables(path: Path) -> list[tuple[Path, str | None]]:
    """Table files of a path and the split each stands for, if its name says so."""
    if path.is_file():
        return [(path, None)]
    return [
        (file, SPLIT_NAMES[file.stem])
        for file in sorted(path.iterdir())
        if file.suffix in TABLES and file.stem in SPLIT_NAMES
    ]


def _columns(path: Path, columns: Mapping[str, str]) -> list[str]:
    if (path / "qrels").is_dir():
        return []
    found: dict[str, None] = {}
    for file, _ in _tables(path):
        names = dict.fromkeys(name for row in read_rows(file) for name in row.values)
        for theirs in columns.values():
            if theirs not in names:
                raise DataError(
                    f"{file}: no column {theirs!r}; its columns are {', '.join(names)}.{nearest(theirs, names)}"
                )
        found.update(dict.fromkeys(_renamed(names, columns)))
    return list(found)


def _renamed(values: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Under our names. A column that has one of our names by accident gives way to the one that was asked for."""
    names = {theirs: ours for ours, theirs in columns.items()}
    return {names.get(name, name): value for name, value in values.items() if name in names or name not in columns}


def _rows_by_split(path: Path, columns: Mapping[str, str]) -> list[tuple[Row, str | None]]:
    rows = []
    for file, part in _tables(path):
        for row in read_rows(file):
            values = _renamed(row.values, columns)
            given = part or values.get("split") or None  # an empty cell of a CSV file is none
            if given is not None and (not isinstance(given, str) or given not in SPLIT_NAMES):
                raise DataError(
                    f"{row.where}: expected split to be one of {', '.join(SPLIT_NAMES)}, got {given!r}."
                    f"{nearest(str(given), SPLIT_NAMES)}"
                )
            rows.append((Row(values, row.where), SPLIT_NAMES[given] if given is not None else None))
    return rows


def _complete(parts: Sequence[str | None], keys: Sequence[str], seed: int) -> dict[str, Indices]:
    """Given splits where they are complete; where one is missing, made from the queries by seed.

    Without any, all queries are split; without dev, a tenth of train becomes dev; with test alone (as many
    retrieval sets come), it is split.
    """
    given = {name: [i for i, part in enumerate(parts) if part == name] for name in (*SPLITS, *sorted(_others(parts)))}
    free = [i for i, part in enumerate(parts) if part is None]
    if not given["train"] and not (given["dev"] and given["test"]):
        free, given = list(range(len(parts))), {name: [] for name in SPLITS}
    if not given["dev"] and given["train"]:
        made = seeded_split([keys[i] for i in given["train"]], seed=seed, shares=(0.9, 0.1))
        train = given["train"]
        given["train"] = [train[k] for k in made["train"]]
        given["dev"] = [train[k] for name in ("dev", "test") for k in made[name]]
    if free:
        made = seeded_split([keys[i] for i in free], seed=seed)
        for name in SPLITS:
            given[name] += [free[k] for k in made[name]]
    return {name: np.array(sorted(indices), dtype=np.int64) for name, indices in given.items()}


def _others(parts: Sequence[str | None]) -> set[str]:
    return {part for part in parts if part is not None} - set(SPLITS)


def _text(row: Row, column: str) -> str:
    value = row.values.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{row.where}: expected a text under `{column}`, got {value!r}.")
    return value.strip()


def _array(pairs: Sequence[tuple[int, int]]) -> Any:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
