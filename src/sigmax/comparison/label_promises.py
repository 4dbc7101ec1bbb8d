"""How many labels a promise can be made for, each for itself, and what became of it on test."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.rules import CONFIDENCE, RULES, Choice
from sigmax.scan import SplitLogits

__all__ = ["RULE", "LabelPromises", "label_promises"]

RULE = "label-precision"


@dataclass(frozen=True)
class LabelPromises:
    """What the rule *label-precision* promised on dev, and what it accepted on test."""

    level: float  #: of the queries that get a label, at least so many are right
    confidence: float  #: with which that holds for all labels at once
    labels: int
    promised: int  #: labels that it is promised for; the others are never accepted
    queries: int  #: of test
    claimed: int  #: test queries that get any label
    accepted: int  #: (query, label) pairs accepted on test
    right: int  #: of them
    below: int  #: labels promised of whose accepted pairs on test fewer are right than the level

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return asdict(self)


def label_promises(calibrator: Calibrator | None, split: SplitLogits) -> LabelPromises | None:
    """Promise on dev, accept on a split; None without a record that tells labels apart.

    Args:
        calibrator: of the model.
        split: test, over all candidates.
    """
    record = None if calibrator is None else calibrator.record
    if calibrator is None or record is None or record.columns is None or split.weights is not None:
        return None
    level = float(RULES[RULE].example or 0.9)
    decision = calibrator.decide(Choice(RULE, level))
    thresholds = decision.thresholds or {}
    presence = calibrator.presence(split.logits, split.candidate_ids, split.none)
    gets = presence >= [decision.threshold_of(name) for name in split.candidate_ids]
    hits, count = (gets & split.right).sum(0), gets.sum(0)
    return LabelPromises(
        level=level,
        confidence=CONFIDENCE,
        labels=len(split.candidate_ids),
        promised=len(thresholds),
        queries=len(gets),
        claimed=int(gets.any(1).sum()),
        accepted=int(count.sum()),
        right=int(hits.sum()),
        below=int((hits < level * count - 1e-9).sum()),
    )
