"""A model's candidate vectors in fewer bits, and what that costs: asked for, measured, told, then written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sigmax.candidates.exact import Exact
from sigmax.candidates.packed import PACKINGS, Packed, kind_of, pack
from sigmax.data.pictures import Advance, Query
from sigmax.errors import DataError, lookup
from sigmax.model.changes import encoded, opened, unchanged
from sigmax.model.folder import FEW, INDEX
from sigmax.model.measured import AT, asked_queries, presence_error_of, recall_of
from sigmax.model.searched import Searched

__all__ = ["Packing", "pack_candidates"]

#: Queries whose presences over all candidates are compared.
COMPARED = 50


@dataclass(frozen=True)
class Packing:
    """What packing did to a model's candidates."""

    kind: str  #: a key of `PACKINGS`
    before: str
    candidates: int
    bytes_before: int  #: of the vectors
    bytes_after: int
    queries: int
    what: str  #: what the queries are
    recall: float  #: part of the best `AT` by float32 vectors that are among the best `AT` now
    presence_error: float | None  #: largest difference of a presence among what is found; None without calibration
    index: bool  #: whether there was an index: it is gone, until it is built again

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return dict(vars(self))


def pack_candidates(
    folder: str | Path, kind: str, *, queries: Sequence[Query] | None = None, advance: Advance | None = None
) -> Packing:
    """Store the vectors of a model's candidates in fewer bits, and measure what is lost against float32.

    The folder is the old one until the new one is whole. Vectors stay mapped: what is compared is turned into single
    precision tile by tile. Those that are packed already are encoded anew.

    Args:
        folder: of the model.
        kind: a key of `PACKINGS`.
        queries: what is asked for the measurement; None: texts of candidates.
        advance: told now and then how much is done, from 0 to 1, and what it is.

    Raises:
        DataError: a model of so few candidates that their vectors are not stored.
        UnknownNameError: another kind.
        OSError: the folder cannot be written, or was changed meanwhile.
    """
    lookup(PACKINGS, kind, "vectors")
    place, model, found = opened(folder)
    size = len(model.candidates)
    if size <= FEW:
        raise DataError(
            f"{place}: vectors are stored of more than {FEW:,} candidates, this model has {size:,}: they are encoded "
            "when it is loaded, and take little."
        )
    stored = model.candidate_vectors(model.candidates)
    before = kind_of(stored.dense)
    whole = stored
    if before != "float32":
        fresh = encoded(model, list(model.candidates), advance)
        assert fresh is not None
        whole = replace(stored, dense=fresh.dense)
    packed = replace(stored, dense=pack(whole.dense.float(), kind))
    exact, new = (Exact(one.dense.cpu(), model.candidate_ids, model.candidates) for one in (whole, packed))
    asked, what = asked_queries(model, exact, queries)
    vectors = model.vectors(asked).dense.float().cpu().numpy()
    recall = recall_of(new.search(vectors, AT), exact.search(vectors, AT), AT)
    error = None
    if model.calibrator is not None:
        searched = Searched(new, sampled=size, tokens=stored.tokens)
        error = presence_error_of(model, searched, exact, asked[:COMPARED])
    index = (place / INDEX).exists()
    unchanged(place, found)
    if kind != before:
        assert model._kept is not None
        model._kept = model._kept[0], packed
        model.save(place)
    return Packing(
        kind,
        before,
        size,
        _bytes(stored.dense),
        _bytes(packed.dense),
        len(asked),
        what,
        recall,
        error,
        index and kind != before,
    )


def _bytes(vectors: Any) -> int:
    tensors = vectors.as_tensors().values() if isinstance(vectors, Packed) else (vectors,)
    return sum(one.numel() * one.element_size() for one in tensors)
