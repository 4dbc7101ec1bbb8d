"""A table of queries and their right answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sigmax.data.dataset import MatchDataset, settled
from sigmax.data.formats.cells import text_cell, text_list
from sigmax.data.formats.opening import stem_of
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.formats.tables import rows_by_split
from sigmax.data.normal import normal
from sigmax.data.splits import complete
from sigmax.data.texts import IndexPairs, TextStore
from sigmax.errors import DataError

__all__ = ["READER"]


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether there is a column of queries and one of answers."""
    return "query" in found and ("answer" in found or "answers" in found)


def _read(path: Path, reading: Reading) -> MatchDataset:
    queries, candidates = TextStore(), TextStore()
    parts: list[str | None] = []
    right, wrong = IndexPairs(), IndexPairs()
    for row, part in rows_by_split(path, reading):
        for name in {"label", "labels", "score"} & row.values.keys():
            raise DataError(
                f"{row.where}: a table of pairs holds right answers and has no column `{name}`. Put known wrong "
                "answers under `wrong`, with `answer` left empty if there is none, and rename or drop the column."
            )
        text = text_cell(row, "query")
        i = queries.place(text, key=f"{part}\0{normal(text)}")
        if i == len(parts):
            parts.append(part)
        for column, target in (("answer", right), ("answers", right), ("wrong", wrong)):
            for answer in text_list(row, column, reading):
                target.append(i, candidates.place(answer, key=normal(answer)))
    texts = queries.texts()
    pairs, known_wrong, conflicts, notes = settled(right.array(), wrong.array(), reading.conflicts)
    return MatchDataset(
        name=stem_of(path) if path.is_file() else path.stem,
        queries=texts,
        candidates=candidates.texts(),
        pairs=pairs,
        wrong=known_wrong,
        splits=complete(parts, texts, reading.seed),
        conflicts=conflicts,
        notes=tuple(notes),
    )


READER = Reader(
    name="pairs",
    describes="pairs: columns query and answer (one per row) or answers (a list), empty for none; optionally wrong "
    "(known wrong answers, a list) and split",
    claims=_claims,
    read=_read,
    columns=("query", "answer", "answers", "wrong", "split"),
)
