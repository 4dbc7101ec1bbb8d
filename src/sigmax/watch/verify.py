"""Are the promises kept? Fresh labelled queries against what was promised on dev, with chance taken into account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

import numpy as np

from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.record import Record, ThresholdCurve
from sigmax.calibration.rules import CONFIDENCE, Decision, parse_rule
from sigmax.data.dataset import MatchDataset
from sigmax.errors import DataError
from sigmax.evaluation import Evaluation, evaluate_logits
from sigmax.metrics.intervals import DRAWS
from sigmax.model.dual_encoder import DualEncoder
from sigmax.scan import SplitLogits
from sigmax.scores.model import ScoreModel
from sigmax.scores.table import Scores, judged
from sigmax.watch.checks import BROKEN, UNTOLD, Bound, Check, check_bound, check_loss, parse_bound

__all__ = ["ALPHA", "CALIBRATION", "Verification", "at_threshold", "seen_again", "summary", "verify"]

#: Probability that a verification raises a false alarm, all its checks together.
ALPHA = 0.05
#: What is checked of the calibration, unless it is left out.
CALIBRATION = ("calibration_slope>=0.8", "calibration_slope<=1.25", "expected_ratio>=0.8", "expected_ratio<=1.25")


@dataclass(frozen=True, eq=False)
class Verification:
    """What fresh queries say of a model's promises."""

    data: str
    queries: int
    checks: tuple[Check, ...]
    alpha: float
    evaluation: Evaluation
    notes: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[Check, ...]:
        """What is broken for sure."""
        return tuple(check for check in self.checks if check.verdict == BROKEN)

    @property
    def untold(self) -> tuple[Check, ...]:
        """What so few queries cannot tell."""
        return tuple(check for check in self.checks if check.verdict == UNTOLD)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the draws, for JSON."""
        return {
            "data": self.data,
            "queries": self.queries,
            "alpha": self.alpha,
            "broken": len(self.broken),
            "too_few": len(self.untold),
            "checks": [check.as_dict() for check in self.checks],
            "notes": list(self.notes),
        }

    def junit(self, name: str = "sigmax") -> str:
        """Return JUnit XML: what is broken fails, what cannot be told is skipped."""
        suite = ElementTree.Element(
            "testsuite",
            name=f"{name} on {self.data}",
            tests=str(len(self.checks)),
            failures=str(len(self.broken)),
            skipped=str(len(self.untold)),
            errors="0",
        )
        for check in self.checks:
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=check.name)
            if check.verdict == BROKEN:
                ElementTree.SubElement(case, "failure", message=summary(check)).text = check.words
            elif check.verdict == UNTOLD:
                ElementTree.SubElement(case, "skipped", message=summary(check))
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def summary(check: Check) -> str:
    """Say in one line what came of a check."""
    measured = "nothing to measure" if check.value is None else f"{check.value:.3f}"
    if check.low is not None and check.high is not None:
        measured += f" ({check.low:.3f} to {check.high:.3f})"
    said = f"{check.name}: {check.verdict}; {measured} on {check.queries:,} queries"
    if check.verdict == UNTOLD and check.needed:
        said += f"; about {check.needed:,} would tell"
    return said


def verify(
    model: DualEncoder | ScoreModel,
    fresh: MatchDataset | Scores,
    promises: Sequence[str] = (),
    metrics: Sequence[str] = (),
    *,
    confidence: float = CONFIDENCE,
    alpha: float = ALPHA,
    calibration: bool = True,
    draws: int = DRAWS,
) -> Verification:
    """Check promises, bounds of metrics, and calibration on fresh labelled queries.

    Thresholds are those that the rules chose on dev; nothing is fitted on the fresh queries. See
    `sigmax.watch.checks` for what is decided, and how. A model is asked about the candidates that it offers; right
    answers that are none of them count as not found.

    Args:
        model: a calibrated model, or calibrated scores.
        fresh: queries that neither training nor calibration saw: all splits of a data set, or judged scores.
        promises: rules with their level, such as "precision=0.95".
        metrics: bounds, such as "map>=0.8".
        confidence: with which the promises were made.
        alpha: probability of any false alarm.
        calibration: whether `CALIBRATION` is checked as well.
        draws: of the bootstrap, for metrics.

    Raises:
        DataError: a model without calibration, data without truth.
        ValueError: a rule or a bound that cannot be read; nothing to check.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"Expected `alpha` between 0 and 1, both left out, got {alpha}.")
    choices = [parse_rule(text) for text in promises]
    for choice in choices:
        if choice.level is None:
            raise ValueError(f"Expected a promise with a level, such as precision=0.95, got {choice}.")
    bounds = [parse_bound(text) for text in metrics]
    asked = [*bounds, *(parse_bound(text) for text in CALIBRATION if calibration)]
    if not (choices or asked):
        raise ValueError("Expected something to check: `promises`, `metrics`, or `calibration`.")
    calibrator, record, evaluation, name, notes = seen_again(model, fresh, draws=draws if asked else 0)
    if not record.queries:
        raise DataError(f"{name}: no queries.")
    share = alpha / (len(choices) + len(asked))
    checks = [_promise(calibrator.decide(choice, confidence=confidence), record, share) for choice in choices]
    checks += [_metric(bound, evaluation, share) for bound in asked]
    return Verification(name, record.queries, tuple(checks), alpha, evaluation, tuple(notes))


def _promise(decision: Decision, record: Record, alpha: float) -> Check:
    rule, level = decision.choice.rule, decision.choice.level
    assert rule.loss is not None
    assert level is not None
    total, n = rule.loss(at_threshold(record.curve, decision.threshold))
    words = rule.summary.format(level=f"{level:g}")
    if not decision.promised:
        words += " (not promised on dev, where too little was seen)"
    return check_loss(
        str(decision.choice),
        float(total[0]),
        int(n[0]),
        rule.allowed(level),
        exact=rule.exact,
        alpha=alpha,
        words=words,
        level=level,
    )


def at_threshold(curve: ThresholdCurve, threshold: float) -> ThresholdCurve:
    """Return a curve at one threshold alone, which may accept nothing."""
    place = curve.place(threshold)
    names = ("accepted", "hits", "claims", "wrong", "found", "contained", "false", "missed")
    sums: dict[str, Any] = {
        name: getattr(curve, name)[place : place + 1] if place >= 0 else np.zeros(1) for name in names
    }
    return replace(curve, t=np.array([threshold]), **sums)


def _metric(bound: Bound, evaluation: Evaluation, alpha: float) -> Check:
    if bound.metric not in evaluation.draws:
        return check_bound(bound, np.array([np.nan]), evaluation.queries, alpha=alpha)
    return check_bound(bound, evaluation.draws[bound.metric], evaluation.queries, alpha=alpha)


def seen_again(
    model: DualEncoder | ScoreModel, fresh: MatchDataset | Scores, *, draws: int = DRAWS
) -> tuple[Calibrator, Record, Evaluation, str, list[str]]:
    """Ask a model about fresh queries: its calibrator, their record, their evaluation, a name, and notes.

    Raises:
        DataError: a model without calibration; a model with scores, or scores with data.
    """
    if isinstance(model, ScoreModel):
        if not isinstance(fresh, Scores):
            raise DataError("Calibrated scores are verified on scores, a table with query, candidate, score and right.")
        known = judged(fresh)
        notes = [*known.notes, *model.fingerprint.unlike(fresh)]
        return model.calibrator, model.record(known), model.evaluate(known, draws=draws), fresh.name, notes
    if isinstance(fresh, Scores):
        raise DataError("A model is verified on data, queries with their right answers, not on scores.")
    if model.calibrator is None:
        raise DataError("The model was not calibrated, so it promises nothing. Calibrate it first: sigmax calibrate.")
    split, missing, notes = _all_queries(model, fresh)
    presence, _ = model.calibrator.read(split.logits, split.candidate_ids, split.none)
    record = Record.of(presence, split.right, missing=missing)
    evaluation = evaluate_logits(split, calibrator=model.calibrator, draws=draws)
    return model.calibrator, record, evaluation, fresh.name, notes


def _all_queries(model: DualEncoder, data: MatchDataset) -> tuple[SplitLogits, np.ndarray, list[str]]:
    """Logits of all queries over the candidates that the model offers, and how many right answers are none of these."""
    by_id = {name: place for place, name in enumerate(model.candidate_ids)}
    by_text = {text: place for place, text in enumerate(model.candidates)}
    places = np.array(
        [
            by_id.get(name, by_text.get(text, -1))
            for name, text in zip(data.candidate_ids, data.candidates, strict=True)
        ],
        np.int64,
    )
    if (places < 0).all():
        raise DataError(
            f"{data.name}: none of its candidates is one that the model offers. Is it data for this model? If its "
            "candidates have changed, calibrate it on new data first."
        )
    n, m = len(data.queries), len(model.candidates)
    right = np.zeros((n, m), bool)
    pairs = data.pairs
    offered = places[pairs[:, 1]] >= 0
    right[pairs[offered, 0], places[pairs[offered, 1]]] = True
    missing = np.bincount(pairs[~offered, 0], minlength=n)
    notes = []
    if missing.any():
        notes.append(f"{int(missing.sum()):,} right answers are not among the candidates offered: never found")
    found = model.logits(list(data.queries), model.candidates)
    split = SplitLogits(found.values, right, model.candidate_ids, found.none, data.name, "fresh", novelty=found.novelty)
    return split, missing, notes
