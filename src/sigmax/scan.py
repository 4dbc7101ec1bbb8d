"""The scan: the one door to the logits of a split.

Evaluation, calibration, comparison, its examples and the metrics that training watches read logits through `scan`, and
nowhere else, so that queries are encoded once, whatever is then asked of their logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints, Logits
from sigmax.calibration.calibrator import Calibrator
from sigmax.data.dataset import MatchDataset
from sigmax.data.pictures import Query
from sigmax.metrics.condense import condense, joined
from sigmax.metrics.metric import Ranks
from sigmax.metrics.ranking import right_ranks

__all__ = ["BlockScorer", "Logits", "Scorer", "SplitLogits", "scan"]

#: Pairs of a split whose logits are all kept.
WHOLE = 2**24
#: Logits of a block of queries where they are not all kept, and queries of a block at least.
BLOCK, QUERIES = 2**24, 64
#: Candidates that a calibration may tell apart, at most: only beyond are their pairs pooled.
MOST_TOLD_APART = 10_000


class Scorer(Protocol):
    """Whatever gives a logit to every pair of a query and a candidate."""

    calibrator: Calibrator | None

    def logits(self, queries: Sequence[Query], candidates: Sequence[str]) -> Logits:
        """Return the logits of every query over every candidate."""


@runtime_checkable
class BlockScorer(Protocol):
    """A scorer that need not hold the logits of all queries at once."""

    def logit_blocks(
        self, queries: Sequence[Query], candidates: Sequence[str], *, height: int
    ) -> Iterator[tuple[slice, Logits]]:
        """Give `height` queries at a time, and their logits, which the next ones may overwrite."""


@dataclass(frozen=True, eq=False)
class SplitLogits:
    """The logits of a split's queries over all candidates, beside the truth.

    The columns are the m candidates; or, where these are very many, pairs of each query's own, those that matter one
    by one and the others pooled (see `sigmax.metrics.condense`): then `weights`, `columns` and `ranks` are given.
    """

    logits: NDArray[np.float32]  #: (n, m)
    right: Bools  #: (n, m) which pairs are right
    candidate_ids: Sequence[str] = ()  #: as a calibrator knows them; empty where it need not tell them apart
    none: NDArray[np.float32] | None = None  #: (n,) logits of *none of these*; None for a model trained without it
    data: str = ""  #: name of the data set
    split: str = "test"
    weights: Floats | None = None  #: (n, m) pairs that each stands for; None: each for itself
    columns: Ints | None = None  #: (n, m) candidate of each pair, −1 where it stands for several
    ranks: Ranks | None = None  #: of the right answers; None: those that the logits give
    novelty: Floats | None = None  #: (n, f) see `Logits`


def scan(model: Scorer, data: MatchDataset, split: str) -> SplitLogits:
    """Score a split's queries over all candidates of a data set; every query is encoded once.

    Up to `WHOLE` pairs, or of a model that cannot give them in blocks, all logits are kept. Beyond, blocks of queries
    are condensed one after the other: beside the vectors that takes 4 bytes for each of `BLOCK` logits, or of those of
    `QUERIES` queries, and some 100 kB per query.

    Args:
        model: a DualEncoder, or anything else that gives logits.
        data: the data set; its candidates are the ones offered.
        split: which queries.

    Raises:
        UnknownNameError: no such split.
        ValueError: logits that are not finite.
    """
    rows = data.split(split)
    queries, m = [data.queries[i] for i in rows], len(data.candidates)
    if len(rows) * m <= WHOLE or m <= MOST_TOLD_APART or not isinstance(model, BlockScorer):
        found = model.logits(queries, data.candidates)
        right = data.graph[rows].toarray().astype(bool)
        novelty = found.novelty
        return SplitLogits(found.values, right, data.candidate_ids, found.none, data.name, split, novelty=novelty)
    parts, ranks, none, near = [], [], [], []
    for block, found in model.logit_blocks(queries, data.candidates, height=max(QUERIES, BLOCK // m)):
        right = data.graph[rows[block]].toarray().view(bool)
        parts.append(condense(found.values, right))
        ranks.append(right_ranks(found.values, right))
        none.append(found.none)
        near.append(found.novelty)
    pairs = joined(parts)
    starts = np.cumsum([0, *(one.n for one in ranks)])
    return SplitLogits(
        pairs.logits,
        pairs.right,
        (),
        np.concatenate([one for one in none if one is not None]) if none[0] is not None else None,
        data.name,
        split,
        weights=pairs.weights,
        columns=pairs.columns,
        ranks=Ranks(
            np.concatenate([one.queries + start for one, start in zip(ranks, starts, strict=False)]),
            np.concatenate([one.ranks for one in ranks]),
            len(rows),
        ),
        novelty=np.concatenate([one for one in near if one is not None]) if near[0] is not None else None,
    )
