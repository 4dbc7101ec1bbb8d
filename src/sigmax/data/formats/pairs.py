"""A table of queries and their right answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.formats.rows import rows_by_split, text_cell, text_list
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
    for row, part in rows_by_split(path, reading.columns):
        for name in {"label", "labels", "score"} & row.values.keys():
            raise DataError(
                f"{row.where}: a table of pairs holds right answers and has no column `{name}`. Put known wrong "
                "answers under `wrong`, with `answer` left empty if there is none, and rename or drop the column."
            )
        text = text_cell(row, "query")
        i = queries.place(text, key=f"{part}\0{text}")
        if i == len(parts):
            parts.append(part)
        for column, target in (("answer", right), ("answers", right), ("wrong", wrong)):
            value = row.values.get(column)
            if column == "answer" and isinstance(value, str):
                value = [value]  # one text, whatever characters are in it
            for answer in text_list(value, row.where, column):
                target.append(i, candidates.place(answer))
    texts = queries.texts()
    return MatchDataset(
        name=path.stem,
        queries=texts,
        candidates=candidates.texts(),
        pairs=right.array(),
        wrong=wrong.array(),
        splits=complete(parts, texts, reading.seed),
    )


READER = Reader(
    name="pairs",
    describes="pairs: columns query and answer (one per row) or answers (a list), empty for none; optionally wrong "
    "(known wrong answers) and split",
    claims=_claims,
    read=_read,
    columns=("query", "answer", "answers", "wrong", "split"),
)
