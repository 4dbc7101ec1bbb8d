"""From users' files to a MatchDataset. A format is one entry of `READERS`."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sigmax.data.dataset import MatchDataset
from sigmax.data.formats import labelled_pictures
from sigmax.data.formats.hugging_face import is_saved, saved_tables
from sigmax.data.formats.rows import (
    TABLES,
    Row,
    class_names,
    columns_of,
    label_cell,
    lines,
    named,
    read_rows,
    split_rows,
    tables_of,
    text_list,
)
from sigmax.data.splits import SPLIT_NAMES, complete, split_of
from sigmax.data.texts import Pairs, TextStore
from sigmax.errors import DataError, UnknownNameError, nearest

__all__ = ["READERS", "Reader", "read"]


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
    known = {"query", "answer", "answers", "wrong", "text", "label", "labels", "image", "file_name", "split"}
    for name in columns:
        if name not in known:
            raise UnknownNameError(
                f"Expected columns named from {', '.join(sorted(known))}, got {name!r}.{nearest(name, known)}"
            )
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    endings = (*TABLES, ".json", ".npz")
    if path.is_file() and path.suffix not in endings:
        raise DataError(f"{path}: expected a file ending in {', '.join(endings)}, got {path.suffix or 'no ending'!r}.")
    has_tables = path.suffix in TABLES if path.is_file() else not (path / "qrels").is_dir()
    found = columns_of(path, columns) if has_tables else []
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
    given: list[str] = []  # the splits that queries.jsonl names

    def query_text(row: Row) -> str:
        split = row.values.get("split")
        given.append(sys.intern(split) if isinstance(split, str) else repr(split) if split else "")
        return _text(row, "text")

    query_place, texts = _beir_texts(path / "queries.jsonl", query_text)
    candidate_place, documents = _beir_texts(path / "corpus.jsonl", _document)
    pairs = {True: Pairs(), False: Pairs()}
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
        splits=complete([part.get(i) for i in range(len(texts))], texts, seed),
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
    return f"{title.strip()} {_text(row, 'text')}".strip()


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


# -- tables of pairs, and of labelled texts -----------------------------------------------------


def _read_pairs(path: Path, columns: Mapping[str, str], seed: int) -> MatchDataset:
    queries, candidates = TextStore(), TextStore()
    parts: list[str | None] = []
    right, wrong = Pairs(), Pairs()
    for row, part in _rows_by_split(path, columns):
        for name in {"label", "labels", "score"} & row.values.keys():
            raise DataError(
                f"{row.where}: a table of pairs holds right answers and has no column `{name}`. Put known wrong "
                "answers under `wrong`, with `answer` left empty if there is none, and rename or drop the column."
            )
        text = _text(row, "query")
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
        splits=complete(parts, texts, seed),
    )


def _read_labelled(path: Path, columns: Mapping[str, str], seed: int) -> MatchDataset:
    store = TextStore()
    parts: list[str | None] = []
    labels: dict[str, int] = {}
    pairs = Pairs()
    for file, given in tables_of(path):
        names = {ours: class_names(file, columns.get(ours, ours)) for ours in ("label", "labels")}
        for row, part in split_rows(file, given, columns):
            column, value = label_cell(row)
            if names[column] is not None:
                value = named(value, names[column], row.where, column)
            for label in text_list(value, row.where, column):
                pairs.append(len(store), labels.setdefault(label, len(labels)))
            store.append(_text(row, "text"))
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
        splits=complete(parts, texts, seed),
        labels=True,
    )


def _read_saved(path: Path, columns: Mapping[str, str], seed: int) -> MatchDataset:
    with saved_tables(path) as tables:
        return read(tables, columns=columns, seed=seed)


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
            "datasets",
            "a data set saved by Hugging Face's datasets (save_to_disk), with columns as below; from the hub: "
            "hf:user/name or hf:user/name:configuration",
            lambda path, found: is_saved(path),
            _read_saved,
        ),
        Reader(
            "coco",
            "COCO: an instances file (JSON) beside its pictures, or a folder with annotations/instances_*.json or "
            "{train,valid,test}/_annotations.coco.json; the labels of a picture are its categories",
            labelled_pictures.claims_coco,
            labelled_pictures.read_coco,
        ),
        Reader(
            "voc",
            "a Pascal VOC folder: JPEGImages, Annotations/*.xml and, if there, ImageSets/Main/{train,val,test}.txt",
            labelled_pictures.claims_voc,
            labelled_pictures.read_voc,
        ),
        Reader(
            "arrays",
            "pictures as arrays: an .npz file with images and labels (optionally split and label_names), or x_train, "
            "y_train, x_test, …, or train_images, train_labels, val_images, …",
            lambda path, found: path.suffix == ".npz" and path.is_file(),
            labelled_pictures.read_arrays,
        ),
        Reader(
            "pictures",
            "labelled pictures: columns image or file_name (a path, or in Parquet the file itself) and "
            "label or labels (a list; empty for none), optionally split; also as metadata.csv, .jsonl or .parquet in a "
            "folder of pictures",
            lambda path, found: bool({"image", "file_name"} & {*found}) and bool({"label", "labels"} & {*found}),
            labelled_pictures.read_table,
        ),
        Reader(
            "classes",
            "a folder of pictures for each label: cat/1.jpg, or train/cat/1.jpg, test/cat/2.jpg; pictures beside the "
            "folders have none of the labels",
            labelled_pictures.claims_classes,
            labelled_pictures.read_classes,
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


def _rows_by_split(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[Row, str | None]]:
    for file, part in tables_of(path):
        yield from split_rows(file, part, columns)


def _text(row: Row, column: str) -> str:
    value = row.values.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{row.where}: expected a text under `{column}`, got {value!r}.")
    return value.strip()
