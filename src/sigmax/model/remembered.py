"""What a model keeps of its training queries: their directions, to tell a query that is unlike them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sigmax.calibration.novelty import MOST_KEPT, fit_novelty

if TYPE_CHECKING:
    from sigmax.arrays import Floats
    from sigmax.calibration.novelty import Novelty
    from sigmax.data.dataset import MatchDataset
    from sigmax.model.dual_encoder import DualEncoder
    from sigmax.model.vectors import Vectors

__all__ = ["novelty_of", "remember", "trained_on"]


def remember(model: DualEncoder, data: MatchDataset, *, seed: int = 0) -> None:
    """Keep what tells whether a query is like those that training saw; calibrate afterwards.

    A sample of at most 10,000 training queries that have a right answer is encoded once more; what lies in the model
    folder grows no further.

    Args:
        model: a model that was trained on the data's train split.
        data: the data set.
        seed: of the samples.
    """
    random = np.random.default_rng(seed)
    rows = data.split("train")
    rows = rows[data.answer_counts[rows] > 0]
    model.novelty = None
    if len(rows) and data.candidates:
        kept = rows if len(rows) <= MOST_KEPT else np.sort(random.choice(rows, MOST_KEPT, replace=False))
        candidates = model.candidate_vectors(data.candidates).dense
        if len(candidates) > MOST_KEPT:
            places = np.sort(random.choice(len(candidates), MOST_KEPT, replace=False))
            candidates = candidates[torch.from_numpy(places)]
        training = model.vectors([data.queries[i] for i in kept]).dense
        model.novelty = fit_novelty(training.float().numpy(), candidates.float().numpy(), seed=seed)


def trained_on(model: DualEncoder, data: MatchDataset) -> bool:
    """Whether a model's facts say that it was trained on exactly these data."""
    facts = model.facts.get("data")
    return isinstance(facts, dict) and facts.get("fingerprint") == data.fingerprint


def novelty_of(novelty: Novelty | None, queries: Vectors) -> Floats | None:
    """(n, f) how near queries are to those of training; None of a model that keeps nothing of them."""
    return None if novelty is None else novelty.nearness(queries.dense.float().cpu().numpy())[:, None]
