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
from sigmax.candidates.packed import Packed
from sigmax.candidates.store import Found, Sample
from sigmax.errors import DataError, extra, lookup

__all__ = ["FLAT_BELOW", "KINDS", "FaissIndex", "build_index", "kind_for"]

#: Candidates below which an exact scan is fast enough: 50,000 vectors of 128 numbers are compared in milliseconds.
FLAT_BELOW = 50_000
#: Candidates from which inverted lists pay: reading the codes of all takes 1.5 ms per query and million (of 128
#: numbers, one core), misses next to nothing however the vectors lie, and needs no lists to be learnt.
LISTS_FROM = 5_000_000
#: Kinds of index by name: what each is.
KINDS = {
    "pq": "all candidates by codes of 4 bits for 2 numbers (André et al. 2015), the best compared again exactly",
    "ivf-pq": "the same codes in inverted lists (Jégou et al. 2011), of which the nearest are read",
    "hnsw": "a graph of near neighbours (Malkov & Yashunin 2016): slow to build; quick where neighbours are near",
}
#: Vectors that are added between two reports of progress.
PART = 8192
#: Vectors per list that its centre is learnt from.
PER_LIST = 40
#: Vectors that the codes are learnt from.
LEARNT = 100_000
#: Candidates that inverted lists propose for each one asked for, to be compared exactly.
PROPOSED = 10
#: Seconds after which an unfinished index is kept for a later run to go on with.
KEEP_EVERY = 60.0
#: The file, in its folder.
FILE = "index.faiss"
#: Steps of what more effort is: candidates proposed for each one asked for, lists read, and candidates that the search
#: of the graph keeps in view.
EFFORTS = {
    "pq": (2, 4, 8, 16, 32),
    "ivf-pq": (8, 16, 32, 64, 128, 256, 512),
    "hnsw": (64, 128, 256, 512, 1024),
}


def kind_for(size: int) -> str | None:
    """Return the kind of index for so many candidates: none below 50,000, codes, or from 5,000,000 on in lists."""
    return None if size < FLAT_BELOW else "pq" if size < LISTS_FROM else "ivf-pq"


def build_index(
    vectors: Tensor | Packed, folder: Path, kind: str, *, advance: Callable[[float, str], None] | None = None
) -> dict[str, Any]:
    """Build an index over vectors, in parts, and write it into a folder; one that was begun there is gone on with.

    Args:
        vectors: (m, d) float32 or packed, in memory or mapped.
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
    size = len(vectors)
    width = vectors.shape[1] + vectors.shape[1] % 2
    lists = int(2 ** round(np.log2(4 * np.sqrt(size))))
    codes = f"PQ{width // 2}x4fs"
    made = {"pq": codes, "ivf-pq": f"IVF{lists},{codes}", "hnsw": "HNSW32"}[kind]
    if (folder / FILE).exists():
        index = faiss.read_index(str(folder / FILE))
    else:
        index = faiss.index_factory(width, made, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            if advance is not None:
                advance(0.0, f"learning {lists:,} lists" if kind == "ivf-pq" else "learning codes")
            learnt = PER_LIST * lists if kind == "ivf-pq" else LEARNT
            index.train(_even(vectors[torch.from_numpy(drawn(size, learnt))].numpy()))
    kept = time.monotonic()
    for start in range(index.ntotal, size, PART):
        index.add(_even(vectors[start : start + PART].numpy()))
        if advance is not None:
            advance(min(1.0, (start + PART) / size), f"indexing {size:,} candidates")
        if time.monotonic() - kept > KEEP_EVERY:
            _write(index, folder)
            kept = time.monotonic()
    _write(index, folder)
    return {"kind": kind, "made": made, "size": size, "effort": EFFORTS[kind][0]}


def _even(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Add a 0 to vectors of an odd width, for codes of two numbers each: their inner products stay as they are."""
    return np.ascontiguousarray(np.pad(vectors, ((0, 0), (0, vectors.shape[1] % 2))), np.float32)


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
        width = exact.vectors.shape[1]
        # A graph that was built before widths were made even holds them as they are.
        if self._index.ntotal != exact.size or self._index.d not in (width, width + width % 2):
            raise DataError(
                f"{folder}: the index holds {self._index.ntotal:,} vectors of {self._index.d} numbers, the model "
                f"{exact.size:,} of {width}. Build it again: sigmax index {folder.parent}"
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
        index: Any = self._index
        self._proposed = 1
        if self.about["kind"] == "hnsw":
            index.hnsw.efSearch = effort
        elif self.about["kind"] == "ivf-pq":
            index.nprobe, self._proposed = effort, PROPOSED
        else:
            self._proposed = effort

    def search(self, queries: NDArray[np.float32], k: int) -> list[Found]:
        """Find k candidates: the best by their exact inner products of those that the index proposes."""
        asked = _even(queries) if self._index.d != queries.shape[1] else np.ascontiguousarray(queries, np.float32)
        _, proposed = self._index.search(asked, min(self._proposed * k, self.size))
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
