"""An index file beside the vectors: it proposes candidates, the vectors themselves say how well they fit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sigmax.arrays import Ints
from sigmax.candidates.exact import Exact, drawn
from sigmax.candidates.store import Found, Sample
from sigmax.errors import DataError, extra, lookup

__all__ = ["FLAT_BELOW", "KINDS", "FaissIndex", "build_index", "kind_for"]

#: Candidates below which an exact scan is fast enough: 50,000 vectors of 128 numbers are compared in milliseconds.
FLAT_BELOW = 50_000
#: Candidates from which inverted lists pay: a graph holds each vector and its links, 768 bytes at 128 numbers, and
#: takes hours to build; below, it finds more in the same time.
LISTS_FROM = 2_000_000
#: Kinds of index by name: what each is.
KINDS = {
    "hnsw": "a graph of near neighbours (Malkov & Yashunin 2016)",
    "ivf-pq": "inverted lists of product-quantised vectors (Jégou et al. 2011), compared again with the exact ones",
}
#: Vectors that are added between two reports of progress.
PART = 8192
#: Vectors per list that its centre is learnt from.
PER_LIST = 40
#: Candidates that the index proposes for each one asked for, to be compared exactly.
PROPOSED = {"hnsw": 1, "ivf-pq": 4}
#: Seconds after which an unfinished index is kept for a later run to go on with.
KEEP_EVERY = 60.0
#: Names of the file, and of the settings by which more effort finds more, each with its steps.
FILE = "index.faiss"
EFFORTS = {"hnsw": ("efSearch", (64, 128, 256, 512, 1024)), "ivf-pq": ("nprobe", (8, 16, 32, 64, 128, 256, 512))}


def kind_for(size: int) -> str | None:
    """Return the kind of index for so many candidates: none below 50,000, a graph, or inverted lists from 2,000,000."""
    return None if size < FLAT_BELOW else "hnsw" if size < LISTS_FROM else "ivf-pq"


def build_index(
    vectors: Tensor, folder: Path, kind: str, *, advance: Callable[[float, str], None] | None = None
) -> dict[str, Any]:
    """Build an index over vectors, in parts, and write it into a folder; one that was begun there is gone on with.

    Args:
        vectors: (m, d) float32, in memory or mapped.
        folder: where; its file is `index.faiss`. Nothing but an unfinished index of the same vectors and kind may be
            there. It is kept every minute, whole or not at all.
        kind: a name in `KINDS`.
        advance: told now and then how much is done, from 0 to 1, and what it is.

    Returns:
        Its settings, for `FaissIndex`.

    Raises:
        UnknownNameError: another kind.
        OSError: it cannot be written.
        ImportError: faiss is not installed.
    """
    lookup(KINDS, kind, "kind")
    with extra("index"):
        import faiss
    size, width = vectors.shape
    lists = int(2 ** round(np.log2(4 * np.sqrt(size))))
    # Two numbers to a part of 4 bits; where a width is odd, 8 bits a number.
    made = "HNSW32" if kind == "hnsw" else f"IVF{lists},{'SQ8' if width % 2 else f'PQ{width // 2}x4fs'}"
    if (folder / FILE).exists():
        index = faiss.read_index(str(folder / FILE))
    else:
        index = faiss.index_factory(width, made, faiss.METRIC_INNER_PRODUCT)
        if kind == "ivf-pq":
            if advance is not None:
                advance(0.0, f"learning {lists:,} lists")
            index.train(vectors[torch.from_numpy(drawn(size, PER_LIST * lists))].numpy())
    kept = time.monotonic()
    for start in range(index.ntotal, size, PART):
        index.add(vectors[start : start + PART].numpy())
        if advance is not None:
            advance(min(1.0, (start + PART) / size), f"indexing {size:,} candidates")
        if time.monotonic() - kept > KEEP_EVERY:
            _write(index, folder)
            kept = time.monotonic()
    _write(index, folder)
    return {"kind": kind, "made": made, "size": size, "effort": EFFORTS[kind][1][0]}


def _write(index: Any, folder: Path) -> None:
    import faiss

    fresh = folder / f"{FILE}.new"
    try:
        faiss.write_index(index, str(fresh))
    except RuntimeError as error:  # what it raises, whatever went wrong
        fresh.unlink(missing_ok=True)
        raise OSError(f"{folder}: the index could not be written. Is the disk full?") from error
    os.replace(fresh, folder / FILE)


class FaissIndex:
    """An index that proposes candidates; the vectors beside it give their exact inner products.

    Args:
        folder: see `build_index`.
        about: what that returned.
        exact: the candidates.

    Raises:
        DataError: a damaged file, or one of other vectors.
        ImportError: faiss is not installed.
    """

    def __init__(self, folder: Path, about: dict[str, Any], exact: Exact) -> None:
        with extra("index"):
            import faiss
        self.exact, self.about, self.fingerprint = exact, about, exact.fingerprint
        try:
            self._index = faiss.read_index(str(folder / FILE), faiss.IO_FLAG_MMAP_IFC)  # mapped, not read
        except RuntimeError as error:
            raise DataError(
                f"{folder}: the index is damaged ({str(error).splitlines()[-1][:120]}). Build it again: sigmax index "
                f"{folder.parent}"
            ) from error
        if self._index.ntotal != exact.size or self._index.d != exact.vectors.shape[1]:
            raise DataError(
                f"{folder}: the index holds {self._index.ntotal:,} vectors of {self._index.d} numbers, the model "
                f"{exact.size:,} of {exact.vectors.shape[1]}. Build it again: sigmax index {folder.parent}"
            )
        self.effort = int(about["effort"])

    @property
    def size(self) -> int:
        """How many candidates there are."""
        return self.exact.size

    @property
    def effort(self) -> int:
        """How much is looked at per query: more finds more, and takes longer."""
        return self._effort

    @effort.setter
    def effort(self, effort: int) -> None:
        self._effort = effort
        name = EFFORTS[self.about["kind"]][0]
        index: Any = self._index
        setattr(index.hnsw if name == "efSearch" else index, name, effort)

    def search(self, queries: NDArray[np.float32], k: int) -> list[Found]:
        """Find k candidates: the best by their exact inner products of those that the index proposes."""
        _, proposed = self._index.search(
            np.ascontiguousarray(queries, np.float32), min(PROPOSED[self.about["kind"]] * k, self.size)
        )
        return [self._rescored(query, row[row >= 0], k) for query, row in zip(queries, proposed, strict=True)]

    def _rescored(self, query: NDArray[np.float32], places: Ints, k: int) -> Found:
        products = (self.exact.vectors[torch.from_numpy(places)] @ torch.from_numpy(query)).numpy()
        order = np.argsort(-products, kind="stable")[:k]
        return self.exact.found(places[order], products[order])

    def sample(self, count: int) -> Sample:
        """Draw candidates, see `Exact.sample`."""
        return self.exact.sample(count)

    def describe(self) -> dict[str, Any]:
        """Tell what it is."""
        return {**self.about, "effort": self.effort}
