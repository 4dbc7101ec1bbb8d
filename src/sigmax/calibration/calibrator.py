"""Calibrator: all that a dev split taught about a model's logits: presence, P(any), and what rules decide from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints, row_blocks
from sigmax.calibration.any_right import SUCCESSION, AnyFit, AnyInputs, fit_any, folds_of, noisy_or
from sigmax.calibration.curves import Adjusted, Calibration, calibration_from_dict
from sigmax.calibration.each import decide_each
from sigmax.calibration.familiar import Familiar, familiar_numbers, least_answered
from sigmax.calibration.fits import fit_calibration
from sigmax.calibration.pairs import Pairs, row_totals
from sigmax.calibration.record import Record
from sigmax.calibration.rules import CONFIDENCE, Choice, Decision, decide, parse_rule
from sigmax.calibration.worlds import moved
from sigmax.errors import DataError

__all__ = ["DEFAULT_RULE", "Calibrator", "fit_any_right", "fit_calibrator", "unseen_presences"]


#: The rule that `match` uses by default.
DEFAULT_RULE = "best-f1"
#: Maximum pairs in a fit; beyond that, wrong pairs are subsampled and weighted.
CALIBRATION_PAIRS = 1_000_000
#: Part of δ that a promise is tested with where presences on record are cross-fitted. They are those of calibrations
#: fitted on four fifths, and the threshold is used on that of all, which tests do not know: at the full δ of 0.1, with
#: 1,000 dev queries, up to 19 of 100 promises were broken in simulated worlds (benchmarks/promises.py).
CROSSED_PART = 0.5
#: Pairs whose presences are made at a time.
READ = 2**18
#: Parts of the dev split that are held out, one after the other, where P(any) is chosen.
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Calibrator:
    """Turns logits into presences, P(any) and decisions.

    Candidates are known by their ids: one that was added after calibration has the shared scale and bias.
    """

    calibration: Calibration
    candidate_ids: tuple[str, ...]  #: those it was fitted over; empty if unknown (models of format 1)
    any_fit: AnyFit | None = None  #: None: noisy-or
    record: Record | None = None  #: of the dev split; None for a model saved before rules were
    threshold: float | None = None  #: of the default rule, where there is no record
    about: Mapping[str, Any] = field(default_factory=dict)  #: data, split, queries, how the calibration was chosen
    familiar: Familiar | None = None  #: what tells a query that is unlike dev's; None for a model saved before it was

    def places(self, candidate_ids: Sequence[str]) -> NDArray[np.int64] | None:
        """(m,) place of each candidate among those of the fit, −1 for a new one; None where they are the same."""
        if not self.candidate_ids or tuple(candidate_ids) == self.candidate_ids:
            return None
        if isinstance(candidate_ids, tuple) and self._placed.get("ids") is candidate_ids:  # served: the same each time
            last: NDArray[np.int64] = self._placed["places"]
            return last
        known = {name: place for place, name in enumerate(self.candidate_ids)}
        places = np.array([known.get(name, -1) for name in candidate_ids], np.int64)
        self._placed.update(ids=candidate_ids, places=places)
        return places

    @cached_property
    def _placed(self) -> dict[str, Any]:
        return {}

    @property
    def competition(self) -> float:
        """How much competition counts, from 0 (the logit alone, a sigmoid's view) to 1 (the share alone, a softmax's).

        It is the data's own answer to "softmax or sigmoid?": of a candidate's logit and the log odds of its share, the
        part of the second in the presence, b / (a + b).
        """
        return self.calibration.competition

    def presence(self, logits: NDArray[Any], candidate_ids: Sequence[str], none: NDArray[Any] | None = None) -> Floats:
        """Return (n, m) presences, in [0, 1]; see `read`."""
        return self.calibration.presence(logits, self.places(candidate_ids), row_totals(logits, none))

    def any(
        self,
        logits: NDArray[Any],
        candidate_ids: Sequence[str],
        none: NDArray[Any] | None = None,
        novelty: Floats | None = None,
    ) -> Floats:
        """Return (n,) P(any); see `read`."""
        return self.read(logits, candidate_ids, none, novelty=novelty)[1]

    def read(
        self,
        logits: NDArray[Any],
        candidate_ids: Sequence[str],
        none: NDArray[Any] | None = None,
        weights: Floats | None = None,
        novelty: Floats | None = None,
    ) -> tuple[Floats, Floats]:
        """Return (n, m) presences and (n,) P(any).

        Args:
            logits: (n, m) over all candidates that are offered: shares are among these, so that a presence may change
                with the candidates beside it.
            candidate_ids: (m,) their ids; not read where there are weights.
            none: (n,) logits of *none of these*, where it was trained.
            weights: (n, m) pairs that each stands for, see `sigmax.metrics.condense`; None: each for itself.
            novelty: (n, f) how near the training queries are, as `Logits.novelty` has it. A P(any) that was fitted with
                it is noisy-or without.
        """
        # Columns that stand for many pairs are no candidates: they get the scale and bias that all share.
        places = self.places(candidate_ids) if weights is None else np.full(logits.shape[1], -1)
        presence, any_right = np.empty(logits.shape), np.empty(len(logits))
        for part in row_blocks(logits.shape, READ):
            some, *beside = (None if x is None else x[part] for x in (logits, none, weights, novelty))
            assert some is not None
            z = self.calibration.log_odds(some, places, row_totals(some, *beside[:2]))
            inputs = AnyInputs(some, z, *beside)
            presence[part], any_right[part] = inputs.presence, self.any_of(inputs)
        return presence, any_right

    def any_of(self, inputs: AnyInputs) -> Floats:
        """(n,) P(any) of queries, as dev said that it is to be made."""
        if isinstance(self.calibration, Adjusted):  # it was fitted to presences before feedback moved them
            inputs = replace(inputs, z=self.calibration.unmoved(inputs.z))
        presence = inputs.presence
        if self.any_fit is None:
            return noisy_or(presence, inputs.weights)
        numbers = familiar_numbers(presence, inputs.novelty, inputs.weights)
        if self.any_fit.method == SUCCESSION and self.familiar is not None and self.familiar.fits(numbers):
            return self.familiar.any_right(numbers, presence.max(1))
        return self.any_fit.probability(inputs)

    def familiarity(
        self, presence: Floats, novelty: Floats | None, weights: Floats | None = None
    ) -> tuple[Floats, Floats] | None:
        """Tell how familiar queries are: (n,) scores, the larger the more, and (n,) p-values, see `Familiar.p_values`.

        None for a model that keeps nothing of its training queries.

        Args:
            presence: (n, m) as `read` returns them.
            novelty: as for `read`.
            weights: as for `read`.
        """
        if isinstance(self.calibration, Adjusted):
            z = scipy.special.logit(np.clip(presence, 1e-15, 1 - 1e-15))
            presence = scipy.special.expit(self.calibration.unmoved(z))
        numbers = familiar_numbers(presence, novelty, weights)
        if novelty is None or self.familiar is None or not self.familiar.fits(numbers):
            return None
        return self.familiar.score(numbers), self.familiar.p_values(numbers)

    def decide(self, rule: str | Choice = DEFAULT_RULE, *, confidence: float = CONFIDENCE) -> Decision:
        """Choose the threshold of a rule, such as "precision=0.95", on the dev split.

        Raises:
            ValueError: a rule that cannot be read.
            DataError: a model saved without its dev record, for any rule but the default.
        """
        if self.record is not None:
            choice = parse_rule(rule) if isinstance(rule, str) else rule
            cautious = 1 - (1 - confidence) * CROSSED_PART if self.about.get("crossed") else confidence
            if choice.rule.each:
                decision = decide_each(choice, self.record, self.candidate_ids, confidence=cautious)
            else:
                decision = decide(choice, self.record, confidence=cautious)
            return replace(decision, confidence=confidence)
        if str(rule) != DEFAULT_RULE or self.threshold is None:
            raise DataError(
                f"The model was saved without the record of its dev split, so only {DEFAULT_RULE} is there, not "
                f"{rule}. Calibrate it again: sigmax calibrate DIR DATA."
            )
        return Decision(Choice(DEFAULT_RULE), self.threshold, False, confidence, None, None, {})

    @cached_property
    def default_threshold(self) -> float:
        """Presence from which the default rule accepts."""
        return self.decide().threshold

    def moved(self, share_from: float, share_to: float) -> Calibrator:
        """Return the calibrator for a world with another share of right pairs, see `sigmax.calibration.moved`.

        P(any) becomes noisy-or, and rules forget the dev split, which was drawn from the world left behind: the
        threshold of the default rule moves along with the presences.
        """
        calibration = moved(self.calibration, share_from, share_to)
        before = scipy.special.logit(np.clip(self.default_threshold, 1e-12, 1 - 1e-12))
        threshold = float(scipy.special.expit(before + scipy.special.logit(share_to) - scipy.special.logit(share_from)))
        return replace(self, calibration=calibration, any_fit=None, record=None, threshold=threshold, familiar=None)

    # -- files -----------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the record and what is kept of dev queries, for JSON."""
        return {
            "calibration": self.calibration.as_dict(),
            "candidate_ids": list(self.candidate_ids),
            "any": None if self.any_fit is None else self.any_fit.as_dict(),
            "threshold": self.threshold,
            "about": dict(self.about),
        }

    def as_tensors(self) -> dict[str, NDArray[Any]]:
        """Return what lies beside `as_dict`: the record, and what is known of dev queries; nothing without a record."""
        if self.record is None:
            return {}
        return {**self.record.as_tensors(), **({} if self.familiar is None else self.familiar.as_tensors())}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any], record: Record | None, familiar: Familiar | None = None) -> Calibrator:
        """Inverse of `as_dict`."""
        return cls(
            calibration_from_dict(saved["calibration"]),
            tuple(saved["candidate_ids"]),
            None if saved["any"] is None else AnyFit.from_dict(saved["any"]),
            record,
            saved["threshold"],
            dict(saved["about"]),
            familiar,
        )


def fit_calibrator(
    logits: NDArray[Any],
    right: Bools,
    candidate_ids: Sequence[str],
    *,
    none: NDArray[Any] | None = None,
    weights: Floats | None = None,
    novelty: Floats | None = None,
    missing: Ints | None = None,
    groups: Ints | None = None,
    method: str = "auto",
    held_out: float = 0.0,
    about: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Calibrator:
    """Fit presence and P(any) on a dev split, and keep what rules need of it.

    What rules decide by are presences of queries that the calibration did not see. By default every query's come from
    one that was fitted on the other four fifths, while the threshold is used on the one fitted on all: promises are
    tested with half of δ for that, which is a margin and no proof (benchmarks/promises.py). With `held_out` they are
    those of a part of the split that chose nothing, and the promise holds by construction, at the price of these
    queries for the fit and of the others for the promise.

    Args:
        logits: (n, m) of the dev queries over all candidates that will be offered.
        right: (n, m).
        candidate_ids: (m,).
        none: (n,) logits of *none of these*, where it was trained.
        weights: (n, m) pairs that each stands for, see `sigmax.metrics.condense`; None: each for itself.
        novelty: (n, f) how near the training queries are, as `Logits.novelty` has it: P(any) may look at it.
        missing: (n,) right answers of each query that it was not offered, such as those that a search did not return:
            for rules they are answers that nothing accepts, for P(any) they are not there.
        groups: (n,) equal for queries that are nearly the same, see `sigmax.data.alike.groups_of`: they are kept
            together wherever a part of the split is held out, and are one witness of what rules promise
            (`Record.witnesses`); None: each for itself.
        method: a name in `CALIBRATIONS`, or "auto": chosen by cross-validated log loss.
        held_out: part of the queries, from 0 to below 1, that nothing is fitted on and rules are decided by; 0: all
            queries serve both, by cross-fitting.
        about: facts to keep, such as the data's name.
        seed: of folds and samples.

    Raises:
        DataError: no right or no wrong pair, or a method that the split cannot carry.
        ValueError: logits that are not finite, a part to hold out that is not in [0, 1).
    """
    if not 0 <= held_out < 1:
        raise ValueError(f"Expected `held_out` from 0 to below 1, got {held_out}.")
    if groups is not None and len(np.unique(groups)) == len(right):
        groups = None
    if held_out:
        out = _held_out(held_out, len(right), groups, seed)
        nones, counts = ([None, None] if part is None else [part[~out], part[out]] for part in (none, weights))
        calibrator = fit_calibrator(
            logits[~out],
            right[~out],
            candidate_ids,
            none=nones[0],
            weights=counts[0],
            novelty=None if novelty is None else novelty[~out],
            missing=None if missing is None else missing[~out],
            groups=None if groups is None else groups[~out],
            method=method,
            about=about,
            seed=seed,
        )
        totals = row_totals(logits[out], nones[1], counts[1])
        presence = calibrator.calibration.presence(logits[out], None, totals)
        gone, alike = (None if part is None else part[out] for part in (missing, groups))
        record = Record.of(presence, right[out], weights=counts[1], missing=gone, groups=alike)
        about = {**calibrator.about, "held_out": int(out.sum()), "crossed": False}
        calibrator = replace(calibrator, record=record, about=about)
        threshold = calibrator.default_threshold
        z = calibrator.calibration.log_odds(logits[out], None, totals)
        near = None if novelty is None else novelty[out]
        signs = _signs(calibrator, AnyInputs(logits[out], z, nones[1], counts[1], near), threshold)
        return replace(calibrator, threshold=threshold, record=replace(record, signs=signs))
    pairs = Pairs.of(logits, right, none=none, weights=weights, groups=groups, most=CALIBRATION_PAIRS, seed=seed)
    fitted = fit_calibration(pairs, method, seed=seed)
    totals = row_totals(logits, none, weights)
    inputs = AnyInputs(logits, fitted.calibration.log_odds(logits, None, totals), none, weights, novelty)
    unseen = unseen_presences(logits, totals, pairs, fitted.method, inputs.presence, seed)
    answered = np.asarray(right.any(1))
    calibrator = Calibrator(
        fitted.calibration,
        tuple(candidate_ids),
        fit_any_right(inputs, unseen, answered, groups=groups, seed=seed),
        Record.of(unseen, right, weights=weights, missing=missing, groups=groups),
        about={
            **(about or {}),
            "queries": len(right),
            "groups": len(right) if groups is None else len(np.unique(groups)),
            "right_pairs": int(right.sum()),
            "method": fitted.method,
            "reason": fitted.reason,
            "log_loss": fitted.log_loss,
            "competition": fitted.calibration.competition,
            "crossed": True,
        },
        familiar=Familiar.of(familiar_numbers(inputs.presence, novelty, weights), answered, groups=groups, seed=seed),
    )
    threshold = calibrator.default_threshold
    assert calibrator.record is not None
    record = replace(calibrator.record, signs=_signs(calibrator, inputs, threshold))
    return replace(calibrator, threshold=threshold, record=record)


def _signs(calibrator: Calibrator, inputs: AnyInputs, threshold: float) -> Floats:
    """(n, 3) what is told of each dev query without its truth, as named in `SIGNS`; (n, 4) where training is known."""
    presence, weights = inputs.presence, inputs.weights
    best = np.where(True if weights is None else weights > 0, inputs.logits, -np.inf).max(1, initial=-np.inf)
    accepted = ((presence >= threshold) * (1.0 if weights is None else weights)).sum(1)
    found = [best, calibrator.any_of(inputs), accepted]
    familiar = calibrator.familiarity(presence, inputs.novelty, weights)
    return np.stack(found if familiar is None else [*found, familiar[0]], axis=1)


def _held_out(part: float, n: int, groups: Ints | None, seed: int) -> Bools:
    """(n,) whether a query is held out: whole groups, drawn until they are the part, or the first that is more."""
    units = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(units)
    order = np.random.default_rng(seed).permutation(len(sizes))
    if groups is None:
        return np.asarray(order < round(part * n))
    before = np.empty(len(sizes))
    before[order] = np.cumsum(sizes[order]) - sizes[order]
    return np.asarray(before < round(part * n))[units]


def fit_any_right(
    inputs: AnyInputs, unseen: Floats, answered: Bools, *, groups: Ints | None = None, seed: int = 0
) -> AnyFit:
    """Fit P(any), or say what can be known where dev has too few queries of either kind to fit it on; see `fit_any`."""
    fitted = fit_any(inputs, unseen, answered, groups=groups, seed=seed)
    if fitted.reason is None:
        return fitted
    reason = f"{fitted.reason}: what was seen of queries as unfamiliar is counted instead (rule of succession)"
    if answered.all():
        witnesses = len(answered) if groups is None else len(np.unique(groups))
        least = least_answered(witnesses, CONFIDENCE)
        alike = "" if witnesses == len(answered) else f" ({witnesses:,} that are not nearly the same)"
        reason = (
            f"all {len(answered):,} dev queries{alike} have a right answer. Of queries like them at least {least:.2%} "
            f"have one, with {CONFIDENCE:.0%} confidence; of queries unlike them dev says nothing"
        )
    return replace(fitted, method=SUCCESSION, reason=reason)


def unseen_presences(
    logits: NDArray[Any], totals: Floats, pairs: Pairs, method: str, presence: Floats, seed: int
) -> Floats:
    """(n, m) presences of each query by a calibration of the same kind that did not see it, where one can be fitted."""
    pairs = pairs.thinned(CALIBRATION_PAIRS // 5, seed=seed)
    unseen: Floats = presence.copy()
    units = np.arange(len(logits)) if pairs.groups is None else np.unique(pairs.groups, return_inverse=True)[1]
    fold = folds_of(int(units.max(initial=-1)) + 1, FOLDS, seed)[units]
    for number in range(FOLDS):
        rest = pairs.take(fold[pairs.queries] != number)
        if not 0 < rest.right.sum() < len(rest):
            continue
        curve = fit_calibration(rest, method, seed=seed).calibration
        unseen[fold == number] = curve.presence(logits[fold == number], None, totals[fold == number])
    return unseen
