"""A table of texts and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.formats.rows import class_names, label_cell, named, split_rows, tables_of, text_cell, text_list
from sigmax.data.splits import complete
from sigmax.data.texts import IndexPairs, TextStore
from sigmax.errors import DataError

__all__ = ["READER"]


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether there is a column of texts and one of labels."""
    return "text" in found and ("labels" in found or "label" in found)


def _read(path: Path, reading: Reading) -> MatchDataset:
    store = TextStore()
    parts: list[str | None] = []
    labels: dict[str, int] = {}
    pairs = IndexPairs()
    for file, given in tables_of(path):
        names = {ours: class_names(file, reading.columns.get(ours, ours)) for ours in ("label", "labels")}
        for row, part in split_rows(file, given, reading.columns):
            column, value = label_cell(row)
            if names[column] is not None:
                value = named(value, names[column], row.where, column)
            for label in text_list(value, row.where, column):
                pairs.append(len(store), labels.setdefault(label, len(labels)))
            store.append(text_cell(row, "text"))
            parts.append(part)
    if not labels:
        raise DataError(f"{path}: no text has a label.")
    order = sorted(labels)
    place = np.argsort([labels[label] for label in order])
    right, texts = pairs.array(), store.texts()
    right[:, 1] = place[right[:, 1]]
    return MatchDataset(
        name=path.stem,
        queries=texts,
        candidates=order,
        pairs=right,
        splits=complete(parts, texts, reading.seed),
        labels=True,
    )


READER = Reader(
    name="labelled",
    describes="labelled texts: columns text and labels (a list; empty for none of the labels), optionally split",
    claims=_claims,
    read=_read,
    columns=("text", "label", "labels", "split"),
)
