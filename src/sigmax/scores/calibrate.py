"""One door to calibration: of a model on data, or of scores that others made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from sigmax.calibration.calibrator import Calibrator
from sigmax.data.dataset import MatchDataset
from sigmax.evaluation import calibrate as calibrate_model
from sigmax.scan import Scorer
from sigmax.scores.model import ScoreModel, calibrate_scores
from sigmax.scores.table import Scores

__all__ = ["calibrate"]


@overload
def calibrate(
    model: Scores,
    data: None = ...,
    *,
    method: str = ...,
    lower_is_better: Sequence[str] | None = ...,
    held_out: float = ...,
    seed: int = ...,
) -> ScoreModel: ...
@overload
def calibrate(
    model: Scorer, data: MatchDataset, *, split: str = ..., method: str = ..., seed: int = ...
) -> Calibrator: ...
def calibrate(model: Scorer | Scores, data: MatchDataset | None = None, **given: Any) -> Calibrator | ScoreModel:
    """Fit presence, P(any) and what rules need.

    Args:
        model: a DualEncoder, or anything else that gives logits, which then keeps the result; or `Scores`, which become
            a `ScoreModel`.
        data: of a model, the data set; its candidates are the ones that will be offered. Scores bring their own.
        given: `method`: a name in `sigmax.calibration.CALIBRATIONS`, or "auto", chosen by cross-validated log loss;
            `seed`: of folds and samples; of a model `split`: which queries, "dev" if not given, none of which it was
            trained on; of scores `lower_is_better` and `held_out`, see `sigmax.scores.calibrate_scores`.

    Returns:
        The `Calibrator`, or the `ScoreModel`.

    Raises:
        DataError: no right or no wrong pair, or too little for the method.
        TypeError: scores with data, or a model without.

    Example:
        >>> import numpy as np, sigmax
        >>> random = np.random.default_rng(0)
        >>> right = random.random((200, 10)) < 0.1
        >>> scores = sigmax.Scores.from_matrix(random.normal(size=(200, 10)) + 3 * right, right)
        >>> calibrated = sigmax.calibrate(scores)
        >>> decision = calibrated.decide("precision=0.8")
        >>> decision.promised
        True
    """
    if isinstance(model, Scores):
        if data is not None:
            raise TypeError("Expected scores alone, which bring their truth, got data as well.")
        return calibrate_scores(model, **given)
    if data is None:
        raise TypeError("Expected the data to calibrate a model on: sigmax.calibrate(model, data).")
    return calibrate_model(model, data, **given)
