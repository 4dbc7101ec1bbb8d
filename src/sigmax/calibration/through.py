"""What a search returns, calibrated: P(any) of the best, and rules that know what a search may miss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints
from sigmax.calibration.any_right import AnyInputs
from sigmax.calibration.calibrator import CALIBRATION_PAIRS, Calibrator, fit_any_right, unseen_presences
from sigmax.calibration.familiar import Familiar, familiar_numbers
from sigmax.calibration.pairs import Pairs, row_totals
from sigmax.calibration.record import Record

__all__ = ["fit_through"]


def fit_through(
    calibrator: Calibrator,
    logits: NDArray[np.float32],
    right: Bools,
    weights: Floats,
    *,
    best: int,
    missing: Ints,
    none: NDArray[Any] | None = None,
    novelty: Floats | None = None,
    groups: Ints | None = None,
    about: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Calibrator:
    """Fit P(any) and record rules on what a search returns of the dev queries; the curve stays as it is.

    Args:
        calibrator: of the model, fitted on all candidates.
        logits: (n, c): first the `best` that the search returned, then a sample of the others.
        right: (n, c).
        weights: (n, c) pairs that each stands for; 0 where a column is of none.
        best: how many the search returned.
        missing: (n,) right answers that it did not return.
        none: (n,) logits of *none of these*, where it was trained.
        novelty: (n, f) how near the training queries are, as `fit_calibrator` takes it.
        groups: (n,) equal for queries that are nearly the same; None: each for itself.
        about: facts to keep, such as the data's name.
        seed: of folds and samples.

    Returns:
        A calibrator whose P(any) reads the best alone, and says whether any of all candidates is right, found or not;
        and which knows how familiar dev queries are by the same.
        Its record knows what was missed: no rule accepts it, so that what a rule promises holds with the search.
    """
    totals = row_totals(logits, none, weights)
    places = np.full(logits.shape[1], -1)
    odds = calibrator.calibration.log_odds(logits, places, totals)
    method = str(calibrator.about.get("method", "platt")).removesuffix("-candidate")  # columns are no candidates here
    if groups is not None and len(np.unique(groups)) == len(right):
        groups = None
    pairs = Pairs.of(logits, right, none=none, weights=weights, groups=groups, most=CALIBRATION_PAIRS, seed=seed)
    inputs = AnyInputs(logits[:, :best], odds[:, :best], none, weights[:, :best], novelty)
    presence = AnyInputs(logits, odds).presence
    unseen = np.where(weights > 0, unseen_presences(logits, totals, pairs, method, presence, seed), 0.0)
    record = Record.of(unseen[:, :best], right[:, :best], missing=missing, groups=groups)
    numbers = familiar_numbers(inputs.presence, novelty, inputs.weights)
    fitted = replace(
        calibrator,
        any_fit=fit_any_right(inputs, unseen[:, :best], record.answered, groups=groups, seed=seed),
        record=record,
        familiar=Familiar.of(numbers, record.answered, groups=groups, seed=seed),
        about={**calibrator.about, **(about or {}), "queries": len(right), "crossed": True},
    )
    return replace(fitted, threshold=fitted.decide().threshold)
