"""Candidates in a model folder: few as lines of JSON, many in Parquet, with all that is made of them beside it."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor, float32, from_numpy

from sigmax.candidates.packed import Packed
from sigmax.model.vectors import Vectors

__all__ = ["FILES", "StoredTexts", "checked_texts", "held", "listed", "read_candidates", "same", "write_candidates"]

#: The files below. Row by row, the first is beside the second; tokens are those of a lexical view.
FILES = ("candidates.jsonl", "candidates.parquet", "candidates.safetensors")
#: Rows of a Parquet file that are read together: what one candidate costs, at most.
GROUP = 4096
#: Groups that are kept decoded.
KEPT_GROUPS = 256


class StoredTexts(Sequence[str]):
    """A column of texts in a Parquet file, read as it is asked for: a row group at a time, of which some are kept.

    Args:
        path: the file, which may be replaced meanwhile: what was opened stays.
        column: its name.

    Raises:
        ValueError: a file that is not Parquet, or lacks the column.
    """

    def __init__(self, path: Path, column: str) -> None:
        from pyarrow import parquet

        self._file = parquet.ParquetFile(path, memory_map=True)
        self._column = column
        about = self._file.metadata
        if column not in self._file.schema_arrow.names:
            raise ValueError(f"{path.name} without a column {column!r}")
        sizes = [about.row_group(place).num_rows for place in range(about.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._kept: OrderedDict[int, Any] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        """Return how many texts there are."""
        return int(self._starts[-1])

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        """Return the text at a place, or those of a slice."""
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step != 1:
                return [self[at] for at in range(start, stop, step)]
            return [text for part in self._parts(start, stop) for text in part]
        at = place + len(self) if place < 0 else place
        if not 0 <= at < len(self):
            raise IndexError(f"Expected a place below {len(self)}, got {place}.")
        number = int(np.searchsorted(self._starts, at, side="right")) - 1
        text: str = self._group(number)[at - int(self._starts[number])].as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        """Return all texts, one after the other; only one row group at a time is in memory."""
        for part in self._parts(0, len(self)):
            yield from part

    def __eq__(self, other: object) -> bool:
        """Whether a sequence holds the same texts in the same order."""
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(ours == theirs for ours, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _parts(self, start: int, stop: int) -> Iterator[list[str]]:
        number = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            first, last = int(self._starts[number]), int(self._starts[number + 1])
            here = min(stop, last)
            column = self._kept[number] if number in self._kept else self._read(number)
            yield column.slice(start - first, here - start).to_pylist()
            start, number = here, number + 1

    def _group(self, number: int) -> Any:
        if number not in self._kept:
            self._kept[number] = self._read(number)
            if len(self._kept) > KEPT_GROUPS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _read(self, number: int) -> Any:
        return self._file.read_row_group(number, columns=[self._column], use_threads=False)[0]


def listed(texts: Sequence[str]) -> Sequence[str]:
    """Return texts as a list of their own, which may be changed; stored ones as they are."""
    return texts if isinstance(texts, StoredTexts) else list(texts)


def held(texts: Sequence[str]) -> Sequence[str]:
    """Return texts that nobody changes: stored ones as they are, others as a tuple."""
    return texts if isinstance(texts, StoredTexts) else tuple(texts)


def same(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether two sequences hold the same texts in the same order."""
    return ours is theirs or (len(ours) == len(theirs) and all(a == b for a, b in zip(ours, theirs, strict=True)))


def write_candidates(folder: Path, ids: Sequence[str], texts: Sequence[str], vectors: Vectors | None) -> None:
    """Write candidates into a new folder: as lines of JSON, or with vectors as Parquet, with these beside it.

    Args:
        folder: where.
        ids: (m,).
        texts: (m,).
        vectors: of the m candidates, prepared by the loss; None for few, which are encoded when they are needed.
    """
    if vectors is None:
        with (folder / "candidates.jsonl").open("w", encoding="utf-8") as file:
            for key, text in zip(ids, texts, strict=True):
                file.write(json.dumps({"_id": key, "text": text}, ensure_ascii=False) + "\n")
        return
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema({"id": pyarrow.string(), "text": pyarrow.string()})
    with parquet.ParquetWriter(folder / "candidates.parquet", schema, compression="zstd") as writer:
        for start in range(0, len(texts), 16 * GROUP):
            rows = slice(start, start + 16 * GROUP)
            table = pyarrow.table({"id": list(ids[rows]), "text": list(texts[rows])}, schema=schema)
            writer.write_table(table, row_group_size=GROUP)
    dense = vectors.dense
    tensors = dense.as_tensors() if isinstance(dense, Packed) else {"vectors": dense.contiguous()}
    if vectors.tokens is not None:
        for name in ("keys", "values", "ends"):
            tensors[name] = from_numpy(np.ascontiguousarray(getattr(vectors.tokens, name)))
    save_file(tensors, str(folder / "candidates.safetensors"))


def read_candidates(folder: Path) -> tuple[Sequence[str], Sequence[str], Vectors | None]:
    """Read ids, texts, and vectors where they are stored. Those are mapped: nothing is read before it is needed.

    Raises:
        ValueError, LookupError, FileNotFoundError: a file that is damaged, lacks something or is not there.
    """
    if not (folder / "candidates.parquet").exists():
        # Not splitlines(): JSON leaves U+2028 and its like as they are.
        lines = (folder / "candidates.jsonl").read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
        return checked_texts([row["_id"] for row in rows]), checked_texts([row["text"] for row in rows]), None
    ids, texts = (StoredTexts(folder / "candidates.parquet", column) for column in ("id", "text"))
    stored = folder / "candidates.safetensors"
    if not stored.exists():
        return ids, texts, None
    tensors = load_file(str(stored))
    vectors = tensors["vectors"]
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise ValueError(f"{tuple(vectors.shape)} vectors of {len(ids)} candidates")
    dense = vectors if vectors.dtype == float32 else Packed(vectors, tensors.get("scales"))
    return ids, texts, Vectors(dense, _tokens(tensors, len(ids)))


def checked_texts(values: list[Any]) -> list[str]:
    """Return values that are texts all.

    Raises:
        TypeError: one that is not.
    """
    other = next((value for value in values if not isinstance(value, str)), None)
    if other is not None:
        raise TypeError(f"expected texts, got {other!r}")
    return values


def _tokens(tensors: dict[str, Tensor], size: int) -> Any:
    if "ends" not in tensors:  # no lexical view, or written before its tokens were kept
        return None
    from sigmax.encoders.lexical import Tokens

    keys, values, ends = (tensors[name].numpy() for name in ("keys", "values", "ends"))
    tokens = Tokens(keys, values, ends)
    if len(tokens) != size or len(tokens.keys) != tokens.ends[-1]:
        raise ValueError(f"tokens of {len(tokens)} texts for {size} candidates")
    return tokens
