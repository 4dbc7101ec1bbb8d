"""What a rule counts as lost on a query: (c,) Σ loss and (c,) number of queries, at every threshold of a curve."""

from __future__ import annotations

import numpy as np

from sigmax.arrays import Floats
from sigmax.calibration.record import ThresholdCurve

__all__ = ["contains_loss", "false_claims_loss", "precision_loss", "recall_loss"]


def precision_loss(curve: ThresholdCurve) -> tuple[Floats, Floats]:
    """Of a query that gets candidates: the share of wrong ones among them."""
    return curve.wrong, curve.claims


def recall_loss(curve: ThresholdCurve) -> tuple[Floats, Floats]:
    """Of a query that has right answers: the share of these that is missed."""
    return curve.answered - curve.found, np.full(len(curve.t), float(curve.answered))


def contains_loss(curve: ThresholdCurve) -> tuple[Floats, Floats]:
    """Of a query that has right answers: whether all of them are missed."""
    return curve.answered - curve.contained, np.full(len(curve.t), float(curve.answered))


def false_claims_loss(curve: ThresholdCurve) -> tuple[Floats, Floats]:
    """Of a query without an answer: whether it gets a candidate."""
    return curve.false, np.full(len(curve.t), float(curve.unanswered))
