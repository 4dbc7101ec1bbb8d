"""Some of the lists that a calibration was made on, without texts: what weights are refitted on beside feedback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.scores.combine import drawn
from sigmax.scores.table import Scores

__all__ = ["joined", "kept_lists", "lists_as_tensors", "lists_from_tensors"]


def kept_lists(scores: Scores, *, seed: int = 0) -> Scores:
    """Return all queries, or as many of them as weights are fitted on, without names."""
    places = drawn(scores, np.arange(len(scores.queries)), seed)
    return lists_from_tensors(lists_as_tensors(scores.take(places)), scores.columns)


def lists_as_tensors(scores: Scores) -> dict[str, NDArray[Any]]:
    """Return scores, truth and lengths as arrays by name, to be saved."""
    missing = {} if scores.missing is None else {"missing": scores.missing.astype(np.int64)}
    return {
        "values": scores.values.astype(np.float32),
        "lengths": scores.lengths.astype(np.int64),
        "right": scores.truth,
        **missing,
    }


def lists_from_tensors(tensors: Mapping[str, NDArray[Any]], columns: tuple[str, ...]) -> Scores:
    """Inverse of `lists_as_tensors`; queries are numbered, candidates have no names.

    Raises:
        ValueError: a tensor is missing, or they do not fit together.
    """
    import pyarrow

    lacking = {"values", "lengths", "right"} - tensors.keys()
    if lacking:
        raise ValueError(f"Expected tensors of lists, {', '.join(sorted(lacking))} missing.")
    values, lengths, right = tensors["values"].astype(np.float64), tensors["lengths"], tensors["right"]
    missing = tensors.get("missing")
    k, n = len(values), len(lengths)
    if (
        values.shape != (k, len(columns))
        or len(right) != k
        or lengths.sum() != k
        or (missing is not None and len(missing) != n)
    ):
        raise ValueError(f"Expected ({k}, {len(columns)}) scores in {n} lists, got {values.shape} and {lengths.sum()}.")
    starts = np.concatenate([[0], np.cumsum(lengths)])
    queries = pyarrow.array([f"dev {place}" for place in range(n)], pyarrow.string())
    return Scores(columns, values, starts, queries, pyarrow.nulls(k, pyarrow.string()), right, missing, "dev")


def joined(one: Scores, other: Scores) -> Scores:
    """Return the queries of one table followed by those of another, which has the columns of the first; truth known."""
    import pyarrow

    missing = None
    if one.missing is not None or other.missing is not None:
        parts = [np.zeros(len(x.queries), np.int64) if x.missing is None else x.missing for x in (one, other)]
        missing = np.concatenate(parts)
    queries, candidates = (
        pyarrow.concat_arrays([part.cast(pyarrow.string()) for part in parts])
        for parts in ((one.queries, other.queries), (one.candidates, other.candidates))
    )
    return Scores(
        one.columns,
        np.concatenate([one.values, other.only(*one.columns).values]),
        np.concatenate([one.starts, one.starts[-1] + other.starts[1:]]),
        queries,
        candidates,
        np.concatenate([one.truth, other.truth]),
        missing,
        other.name,
    )
