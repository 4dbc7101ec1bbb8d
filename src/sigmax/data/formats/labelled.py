"""A table of texts and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats.cells import LabelNames, indicators, labels_of, row_labels, text_cell
from sigmax.data.formats.opening import stem_of
from sigmax.data.formats.reader import Reader, Reading
from sigmax.data.formats.tables import split_rows, tables_of
from sigmax.data.splits import complete
from sigmax.data.texts import IndexPairs, TextStore
from sigmax.errors import DataError

__all__ = ["READER"]


def _claims(path: Path, found: Sequence[str]) -> bool:
    """Whether there is a column of texts and one of labels, or one for each label."""
    return "text" in found and ("labels" in found or "label" in found or bool(indicators(found)))


def _read(path: Path, reading: Reading) -> MatchDataset:
    store = TextStore()
    parts: list[str | None] = []
    labels = LabelNames()
    pairs = IndexPairs()
    for table, given in tables_of(path):
        names = labels_of(table, reading)
        for row, part in split_rows(table, given, reading):
            for label in row_labels(row, names, reading):
                pairs.append(len(store), labels.place(label))
            store.append(text_cell(row, "text"))
            parts.append(part)
    order, place = labels.in_order()
    if not order:
        raise DataError(f"{path}: no text has a label.")
    right, texts = pairs.array(), store.texts()
    right[:, 1] = place[right[:, 1]]
    return MatchDataset(
        name=stem_of(path) if path.is_file() else path.stem,
        queries=texts,
        candidates=order,
        pairs=right,
        splits=complete(parts, texts, reading.seed),
        labels=True,
    )


READER = Reader(
    name="labelled",
    describes="labelled texts: columns text and labels (a list; empty for none of the labels) or label (one), or text "
    "and a column of 0 and 1 for each label; optionally split",
    claims=_claims,
    read=_read,
    columns=("text", "label", "labels", "split"),
)
