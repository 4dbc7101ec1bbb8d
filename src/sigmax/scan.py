"""The scan: the one door to the logits of a split.

Evaluation, calibration, comparison, its examples and the metrics that training watches read logits through `scan`, and
nowhere else, so that queries are encoded once, whatever is then asked of their logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools
from sigmax.calibration.calibrator import Calibrator
from sigmax.data.dataset import MatchDataset
from sigmax.data.pictures import Query

__all__ = ["Logits", "Scorer", "SplitLogits", "scan"]


@dataclass(frozen=True, eq=False)
class Logits:
    """Logits of n queries over m candidates."""

    values: NDArray[np.float32]  #: (n, m)
    none: NDArray[np.float32] | None = None  #: (n,) of *none of these*; None for a model trained without it


class Scorer(Protocol):
    """Whatever gives a logit to every pair of a query and a candidate."""

    calibrator: Calibrator | None

    def logits(self, queries: Sequence[Query], candidates: Sequence[str]) -> Logits:
        """Return the logits of every query over every candidate."""


@dataclass(frozen=True, eq=False)
class SplitLogits:
    """The logits of a split's queries over all candidates, beside the truth."""

    logits: NDArray[np.float32]  #: (n, m)
    right: Bools  #: (n, m) which pairs are right
    candidate_ids: Sequence[str] = ()  #: (m,) as a calibrator knows them; empty where it need not tell them apart
    none: NDArray[np.float32] | None = None  #: (n,) logits of *none of these*; None for a model trained without it
    data: str = ""  #: name of the data set
    split: str = "test"


def scan(model: Scorer, data: MatchDataset, split: str) -> SplitLogits:
    """Score a split's queries over all candidates of a data set; every query is encoded once.

    Args:
        model: a DualEncoder, or anything else that gives logits.
        data: the data set; its candidates are the ones offered.
        split: which queries.

    Raises:
        UnknownNameError: no such split.
        ValueError: logits that are not finite.
    """
    rows = data.split(split)
    found = model.logits([data.queries[i] for i in rows], data.candidates)
    right = data.graph[rows].toarray().astype(bool)
    return SplitLogits(found.values, right, data.candidate_ids, found.none, data.name, split)
