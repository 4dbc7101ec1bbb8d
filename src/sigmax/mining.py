"""Hard negatives: wrong answers that a trained model takes for nearly right."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import sparse, special

from sigmax.arrays import Floats
from sigmax.data.batches import OFFER_ALL
from sigmax.data.dataset import Indices, MatchDataset
from sigmax.data.pictures import Advance
from sigmax.errors import DataError, check_least
from sigmax.model.dual_encoder import DualEncoder
from sigmax.model.vectors import Vectors

__all__ = ["BOUND", "mine"]

log = logging.getLogger(__name__)

#: Presence from which a candidate is more likely a right answer that nobody wrote down.
BOUND = 0.5
#: Queries and candidates of which logits are held at a time.
QUERIES, CANDIDATES = 512, 8192


def mine(
    model: DualEncoder,
    data: MatchDataset,
    *,
    negatives: int = 5,
    bound: float = BOUND,
    advance: Advance | None = None,
) -> MatchDataset:
    """Add to each training query the wrong answers with the highest logits.

    Every candidate is compared, block by block. Left out are the right answers of the query and of training queries
    with the same text, candidates with the same text as one of those, pairs known to be wrong already, and candidates
    of a presence of `bound` or more: they may be right. "Same text" looks at neither case nor spaces.

    Training offers the pairs in `wrong` beside the other answers of a batch, up to `Settings.answers` a query. Whether
    that helps depends on the data: compare on dev.

    Args:
        model: calibrated; best trained on this data.
        data: texts on both sides.
        negatives: wrong answers a query, at most.
        bound: presence from which a candidate is left out, in (0, 1].
        advance: told now and then how much is done, from 0 to 1, and what it is.

    Returns:
        The data with the mined pairs added to `wrong`. Dev and test are as they were.

    Raises:
        ValueError: `negatives` below 1, a bound out of range.
        DataError: pictures or labels, a model without calibration, or one with a second look.
    """
    check_least(1, negatives=negatives)
    if not 0 < bound <= 1:
        raise ValueError(f"Expected `bound` in (0, 1], got {bound}.")
    if data.pictures or data.labels:
        raise DataError(
            f"{data.name}: mining needs texts on both sides, got {'pictures' if data.pictures else 'labels'}. "
            "Labels are all offered in every batch already, or with --negatives at random."
        )
    if model.reranker is not None:
        raise DataError("The model takes a second look, which mining does not. Mine with one trained without `rerank`.")
    if model.calibrator is None:
        raise DataError("The model was not calibrated, so it cannot say what may be right. Try sigmax calibrate.")
    if len(data.candidates) <= OFFER_ALL:
        log.warning("Up to %d candidates are all offered in every batch: mined pairs add nothing there.", OFFER_ALL)
    rows, m = data.split("train"), len(data.candidates)
    taken = _taken(data, rows)
    calibration = model.calibrator.calibration
    places = model.calibrator.places(data.candidate_ids)
    places = np.arange(m) if places is None else places
    candidates = model.candidate_vectors(data.candidates)
    found, left_out = [data.wrong], 0
    for start in range(0, len(rows), QUERIES):
        block = rows[start : start + QUERIES]
        queries = model.vectors([data.queries[i] for i in block])
        totals = _totals(model, queries, candidates)
        best, columns = torch.empty(len(block), 0), torch.empty(len(block), 0, dtype=torch.int64)
        for _, part, values in model.tiles(queries, candidates, height=QUERIES, width=CANDIDATES):
            out = taken[start : start + QUERIES, part].toarray() > 0
            likely = (calibration.presence(values, places[part], totals) >= bound) & ~out
            left_out += int(likely.sum())
            logits = torch.from_numpy(np.where(out | likely, -np.inf, values))
            best = torch.cat([best, logits], 1)
            columns = torch.cat([columns, torch.arange(part.start, part.stop).expand(len(block), -1)], 1)
            best, order = best.topk(min(negatives, best.shape[1]))
            columns = columns.gather(1, order)
        row, place = (best > -torch.inf).numpy().nonzero()
        found.append(np.stack([block[row], columns.numpy()[row, place]], axis=1))
        if advance is not None:
            advance(min(start + QUERIES, len(rows)) / len(rows), "mining")
    if left_out:
        log.info("%d pairs of a presence of %g or more were left out: they may be right.", left_out, bound)
    return replace(data, wrong=np.concatenate(found))


def _totals(model: DualEncoder, queries: Vectors, candidates: Vectors) -> Floats:
    """(b,) log Σ exp of each query's logits over all that is offered, *none of these* too where it was trained."""
    offered = [candidates] if model.none_vector is None else [candidates, Vectors(model.none_vector.detach()[None])]
    totals = np.full(len(queries), -np.inf)
    for part in offered:
        for tile in model.tiles(queries, part, height=QUERIES, width=CANDIDATES):
            totals = np.logaddexp(totals, special.logsumexp(tile.logits.astype(np.float64), axis=1))
    return totals


def _taken(data: MatchDataset, rows: Indices) -> sparse.csr_array:
    """(training queries, m) sparse: above 0 where a pair is known, right or wrong, by its texts."""
    asked, offered = _same([str(data.queries[i]) for i in rows]), _same(data.candidates)
    right = asked @ (asked.T @ data.graph[rows].astype(np.int64) @ offered) @ offered.T
    return sparse.csr_array(right + data.wrong_graph[rows])


def _same(texts: Sequence[str]) -> sparse.csr_array:
    """(n, distinct texts) sparse: 1 where row i has that text."""
    _, place = np.unique([" ".join(text.casefold().split()) for text in texts], return_inverse=True)
    return sparse.csr_array((np.ones(len(texts), np.int64), (np.arange(len(texts)), place)))
