"""A BEIR folder: queries.jsonl, corpus.jsonl and judgements in qrels."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.formats.rows import Row, lines, read_rows, text_cell
from sigmax.data.splits import SPLIT_NAMES, complete, split_of
from sigmax.data.texts import IndexPairs, TextStore
from sigmax.errors import DataError, nearest

__all__ = ["READER"]


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether a folder has queries.jsonl and qrels."""
    return (path / "queries.jsonl").exists() and (path / "qrels").is_dir()


def _read(path: Path, reading: Reading) -> MatchDataset:
    given: list[str] = []  # the splits that queries.jsonl names

    def query_text(row: Row) -> str:
        split = row.values.get("split")
        given.append(sys.intern(split) if isinstance(split, str) else repr(split) if split else "")
        return text_cell(row, "text")

    query_place, texts = _beir_texts(path / "queries.jsonl", query_text)
    candidate_place, documents = _beir_texts(path / "corpus.jsonl", _document)
    pairs = {True: IndexPairs(), False: IndexPairs()}
    part: dict[int, str] = {}
    for file in sorted((path / "qrels").glob("*.tsv")):
        name = split_of(file.stem, str(file))
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
            pairs[score > 0].append(i, candidate_place[document])
    for i, (key, split) in enumerate(zip(query_place, given, strict=True)):
        if split and i not in part:
            if split not in SPLIT_NAMES:
                split_of(split, _where(path / "queries.jsonl", key))
            part[i] = SPLIT_NAMES[split]
    return MatchDataset(
        name=path.name,
        queries=texts,
        candidates=documents,
        pairs=pairs[True].array(),
        wrong=pairs[False].array(),
        splits=complete([part.get(i) for i in range(len(texts))], texts, reading.seed),
        query_ids=list(query_place),
        candidate_ids=list(candidate_place),
    )


def _document(row: Row) -> str:
    """Title and text, of which one may be empty."""
    title = row.values.get("title") or ""
    if not isinstance(title, str):
        raise DataError(f"{row.where}: expected a text under `title`, got {title!r}.")
    if title.strip() and not row.values.get("text"):
        return title.strip()
    return f"{title.strip()} {text_cell(row, 'text')}".strip()


def _beir_texts(path: Path, text_of: Callable[[Row], str]) -> tuple[dict[str, int], Sequence[str]]:
    """Place of each id, and the texts."""
    places: dict[str, int] = {}
    store = TextStore()
    for row in read_rows(path):
        key = row.values.get("_id")
        if not isinstance(key, str):
            raise DataError(f'{row.where}: expected a text under "_id", got {key!r}.')
        if key in places:
            raise DataError(f"{row.where}: id {key!r} was given before, in {_where(path, key)}.")
        places[key] = store.append(text_of(row))
    return places, store.texts()


def _where(path: Path, key: str) -> str:
    """Where an id first stands."""
    return next(row.where for row in read_rows(path) if row.values.get("_id") == key)


READER = Reader(
    name="beir",
    describes="a BEIR folder: queries.jsonl, corpus.jsonl, qrels/{train,dev,test}.tsv (score 0: known to be wrong)",
    claims=_claims,
    read=_read,
)
