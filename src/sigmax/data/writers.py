"""From a MatchDataset to files that `sigmax.data.formats` reads back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sigmax.data.dataset import MatchDataset, row_of
from sigmax.files import replace_folder

__all__ = ["write_beir"]


def write_beir(data: MatchDataset, folder: Path) -> None:
    """Write a BEIR folder: right pairs with score 1, pairs known to be wrong with score 0.

    What is read back equals what was written, but for the name and for candidate ids that hold tabs or line ends, which
    a table of pairs makes of its texts: they become numbers.

    Args:
        data: texts on both sides; what is written has no fixed labels.
        folder: where to; what was there is replaced.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    query_ids, candidate_ids = _ids(data.query_ids), _ids(data.candidate_ids)
    split_of = {int(i): name for name, indices in data.splits.items() for i in indices}
    with replace_folder(folder) as fresh:
        _write_jsonl(
            fresh / "queries.jsonl",
            ({"_id": query_ids[i], "text": text, "split": split_of.get(i)} for i, text in enumerate(data.queries)),
        )
        _write_jsonl(
            fresh / "corpus.jsonl",
            ({"_id": key, "text": text} for key, text in zip(candidate_ids, data.candidates, strict=True)),
        )
        (fresh / "qrels").mkdir()
        for name, indices in data.splits.items():
            with (fresh / "qrels" / f"{name}.tsv").open("w", encoding="utf-8", newline="\n") as file:
                file.write("query-id\tcorpus-id\tscore\n")
                for i in np.sort(indices):
                    for score, graph in ((1, data.graph), (0, data.wrong_graph)):
                        file.writelines(f"{query_ids[i]}\t{candidate_ids[j]}\t{score}\n" for j in row_of(graph, i))


def _ids(given: Sequence[str]) -> Sequence[str]:
    return [str(number) for number in range(len(given))] if any(set("\t\r\n") & {*key} for key in given) else given


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
