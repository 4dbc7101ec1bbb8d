"""A BEIR folder: queries.jsonl, corpus.jsonl and judgements in qrels."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sigmax.data.dataset import MatchDataset, settled
from sigmax.data.formats.cells import optional_text, text_cell
from sigmax.data.formats.opening import ending_of, lines, stem_of
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.formats.rows import Row, Table, read_rows
from sigmax.data.splits import SPLIT_NAMES, complete, split_in, split_of
from sigmax.data.texts import IndexPairs, TextStore
from sigmax.errors import DataError, nearest

__all__ = ["READER"]

#: Endings of files with judgements.
QRELS = (".tsv", ".txt", ".qrels", ".qrel")


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether a folder has queries.jsonl and qrels."""
    return (path / "queries.jsonl").exists() and (path / "qrels").is_dir()


def _read(path: Path, reading: Reading) -> MatchDataset:
    """Read queries, documents and judgements.

    A query that no file of qrels names was not judged, which is not to say that nothing is right for it: it is left
    out, unless queries.jsonl gives its split.
    """
    given: list[str] = []  # the splits that queries.jsonl names

    def query_text(row: Row) -> str:
        split = row.values.get("split")
        given.append(sys.intern(split) if isinstance(split, str) else repr(split) if split else "")
        return text_cell(row, "text")

    query_place, texts = _texts(path / "queries.jsonl", query_text)
    candidate_place, documents = _texts(path / "corpus.jsonl", _document)
    pairs, part, left_out = _judgements(path, query_place, candidate_place)
    beside = {stem_of(path / "qrels" / name) for name in left_out}
    for i, (key, split) in enumerate(zip(query_place, given, strict=True)):
        if split and i not in part and split not in beside:
            part[i] = split_of(split, _where(path / "queries.jsonl", key))
    right, wrong, conflicts, notes = settled(pairs[True].array(), pairs[False].array(), reading.conflicts)
    if left_out:
        notes.append(f"qrels/{', '.join(left_out)}: left out, for the name is no split's ({', '.join(SPLIT_NAMES)}).")
    query_ids = list(query_place)
    judged = np.array(sorted(part), dtype=np.int64)
    if 0 < len(judged) < len(texts):
        notes.append(
            f"{len(texts) - len(judged):,} of {len(texts):,} queries are in no file of qrels: they were not judged and "
            "are left out. Give a query a `split` in queries.jsonl to say that nothing is right for it."
        )
        place = np.full(len(texts), -1, dtype=np.int64)
        place[judged] = np.arange(len(judged))
        right[:, 0], wrong[:, 0] = place[right[:, 0]], place[wrong[:, 0]]
        texts, query_ids = [texts[i] for i in judged], [query_ids[i] for i in judged]
        part = {k: part[i] for k, i in enumerate(judged.tolist())}
    return MatchDataset(
        name=path.resolve().name,
        queries=texts,
        candidates=documents,
        pairs=right,
        wrong=wrong,
        splits=complete([part.get(i) for i in range(len(texts))], texts, reading.seed),
        query_ids=query_ids,
        candidate_ids=list(candidate_place),
        conflicts=conflicts,
        notes=tuple(notes),
    )


def _judgements(
    path: Path, queries: Mapping[str, int], documents: Mapping[str, int]
) -> tuple[dict[bool, IndexPairs], dict[int, str], list[str]]:
    """Pairs that are right, and wrong; the split of each query; and files beside the splits, which are left out."""
    pairs = {True: IndexPairs(), False: IndexPairs()}
    part: dict[int, str] = {}
    left_out: list[str] = []
    files = [file for file in sorted((path / "qrels").iterdir()) if not (file.name.startswith(".") or file.is_dir())]
    known = any(split_in(stem_of(file)) for file in files)
    for file in files:
        if ending_of(file) not in QRELS:
            raise DataError(f"{file}: expected qrels in a file ending in {', '.join(QRELS)}. Rename or remove it.")
        split = split_in(stem_of(file))
        if split is None and (nearest(stem_of(file), SPLIT_NAMES, cutoff=0.7) or not known):
            split = split_of(stem_of(file), str(file))
        if split is None:
            left_out.append(file.name)
            continue
        for number, line in enumerate(lines(file), start=1):
            where = f"{file}, line {number}"
            if not line.strip():
                continue
            query, document, score = _fields(line, where, first=number == 1)
            if score is None:
                continue
            for key, place, source in ((query, queries, "queries.jsonl"), (document, documents, "corpus.jsonl")):
                if key not in place:
                    raise DataError(f"{where}: id {key!r} does not exist in {path / source}.{nearest(key, place)}")
            i = queries[query]
            if part.setdefault(i, split) != split:
                raise DataError(
                    f"{where}: query {query!r} is in the {part[i]} split already. Each query belongs to one split."
                )
            pairs[score > 0].append(i, documents[document])
    return pairs, part, left_out


def _fields(line: str, where: str, *, first: bool) -> tuple[str, str, float | None]:
    """Query, document and score of a line: BEIR's three columns, or TREC's four, of which the second says nothing.

    The score is None in a line of column names.
    """
    fields = line.split("\t") if "\t" in line else line.split()
    if first and fields[-1].strip().lower() in ("score", "rel", "relevance", "label"):
        return "", "", None
    if len(fields) == 4 and fields[1].strip() in ("0", "Q0", "q0"):
        del fields[1]
    try:
        query, document, score = fields
        number = float(score)
        if not math.isfinite(number):
            raise ValueError
    except ValueError:
        raise DataError(
            f"{where}: expected query-id, corpus-id and a number, separated by tabs, or TREC's query-id, 0, corpus-id "
            f"and a number, got {line!r}."
        ) from None
    return query.strip(), document.strip(), number


def _document(row: Row) -> str:
    """Title and text, of which one or both may be empty."""
    parts = (optional_text(row.values.get(column), row.where, column) for column in ("title", "text"))
    return " ".join(filter(None, parts))


def _texts(path: Path, text_of: Callable[[Row], str]) -> tuple[dict[str, int], Sequence[str]]:
    """Place of each id, and the texts."""
    places: dict[str, int] = {}
    store = TextStore()
    for row in read_rows(Table(path), Reading()):
        key = _id(row)
        if key in places:
            raise DataError(f"{row.where}: id {key!r} was given before, in {_where(path, key)}.")
        places[key] = store.append(text_of(row))
    return places, store.texts()


def _id(row: Row) -> str:
    key = row.values.get("_id")
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    if not isinstance(key, str) or not key.strip():
        raise DataError(f'{row.where}: expected an id under "_id", got {key!r}.')
    return key.strip()


def _where(path: Path, key: str) -> str:
    """Where an id first stands."""
    return next(row.where for row in read_rows(Table(path), Reading()) if _id(row) == key)


READER = Reader(
    name="beir",
    describes="a BEIR folder: queries.jsonl, corpus.jsonl, qrels/{train,dev,test}.tsv in BEIR's three columns or "
    "TREC's four (score 0: known to be wrong)",
    claims=_claims,
    read=_read,
)
