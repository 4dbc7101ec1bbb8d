"""Feedback from use moves presences: log odds become scale · log odds + bias, fitted on dev and feedback together.

What was judged in use is (presence then, right or not). Old dev pairs, on record with their presences, hold the fit
where feedback is scarce. Feedback that was *gathered from accepted* candidates alone says nothing of the others: below
the threshold dev stays as it is; above it, feedback takes dev's place, and counts there as much as what it replaces
(importance weights), so that the fit still looks at pairs as often as they come. Where each judgement had a known
chance of being asked for, its weight is one over that (`propensity`; Horvitz & Thompson 1952).

The order of candidates does not change, so that what a rule accepts on dev stays the same and its threshold moves
along: a promise is still about queries that come as dev's did. P(any) stays as it was: feedback on single candidates
does not tell what else was right. Whole lists do, see `sigmax.watch.refit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from sigmax.arrays import Bools, Floats, Ints
from sigmax.calibration.any_right import folds_of
from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.curves import Adjusted
from sigmax.calibration.fits import fit_platt
from sigmax.calibration.record import FLOOR
from sigmax.calibration.solvers import log_loss
from sigmax.data.formats.reader import Reading
from sigmax.errors import DataError, lookup
from sigmax.model.dual_encoder import DualEncoder
from sigmax.scores.blocks import blocks, layout_of, numbers, truths
from sigmax.scores.model import ScoreModel
from sigmax.scores.read import read_scores

__all__ = ["GATHERED", "Feedback", "Recalibration", "read_feedback", "recalibrate"]

#: Where feedback came from.
GATHERED = {
    "all": "from candidates whatever their presence",
    "accepted": "from those alone that the default rule accepted",
}
#: Presences are kept this far from 0 and 1.
EDGE = 1e-6
FOLDS = 5
#: Judgements with which anything is fitted.
FEWEST = 20


@dataclass(frozen=True, eq=False)
class Feedback:
    """Judgements of k pairs from use."""

    queries: Ints  #: (k,) query of each, by number
    presence: Floats  #: (k,) by the calibration that is to be moved
    right: Bools  #: (k,)
    propensity: Floats | None = None  #: (k,) chance with which each was asked for; None: the same for all

    def __len__(self) -> int:
        return len(self.presence)


@dataclass(frozen=True, eq=False)
class Recalibration:
    """What feedback did to a calibrator."""

    calibrator: Calibrator | None  #: the new one; None: the old one is better, and stays
    scale: float
    bias: float
    judged: int
    log_loss_before: float  #: cross-validated over the feedback's queries, nats per judgement
    log_loss_after: float
    reason: str  #: why it was taken or not
    promises: str = (
        "promises are about queries that come as dev's did: of others, `sigmax verify` says whether they hold"
    )

    def moves(self) -> list[tuple[float, float]]:
        """Some presences before and after."""
        before = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
        after = scipy.special.expit(self.scale * scipy.special.logit(before) + self.bias)
        return list(zip(before.tolist(), after.tolist(), strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the calibrator, for JSON."""
        rest = {name: value for name, value in vars(self).items() if name != "calibrator"}
        return {"taken": self.calibrator is not None, **rest, "moves": self.moves()}


def recalibrate(
    calibrator: Calibrator, feedback: Feedback, *, gathered: str = "all", old_weight: float = 1.0, seed: int = 0
) -> Recalibration:
    """Fit a calibrator anew on its dev record and on feedback; it is refused where that does not get better.

    Better is: a lower log loss on feedback of queries that were not fitted on, by more than a standard error.

    Args:
        calibrator: with its record.
        feedback: judgements, with presences by this calibrator.
        gathered: a key of `GATHERED`.
        old_weight: of each old dev pair; above the threshold, where feedback was gathered from accepted ones, the part
            of dev that is not replaced, up to 1.
        seed: of the folds.

    Raises:
        DataError: no record, or too little feedback.
        UnknownNameError: another way to gather.
        ValueError: a negative weight.
    """
    lookup(GATHERED, gathered, "gathered")
    record = calibrator.record
    if not old_weight >= 0:
        raise ValueError(f"Expected `old_weight` of at least 0, got {old_weight}.")
    if record is None:
        raise DataError(
            "The model was saved without the record of its dev split. Calibrate it again: sigmax calibrate."
        )
    if len(feedback) < FEWEST or len(np.unique(feedback.queries)) < FOLDS:
        raise DataError(
            f"Expected at least {FEWEST} judgements of {FOLDS} queries, got {len(feedback)} of "
            f"{len(np.unique(feedback.queries))}. Gather more."
        )
    threshold = calibrator.default_threshold
    seen = record.presence >= max(
        record.floor, FLOOR
    )  # wrong pairs below are not on record, so right ones stay out too
    dev = Feedback(record.rows[seen], record.presence[seen], record.right[seen])
    accepted = dev.presence >= threshold
    of_dev = np.full(len(dev), old_weight)
    of_new = np.ones(len(feedback)) if feedback.propensity is None else 1 / np.maximum(feedback.propensity, 0.01)
    if gathered == "accepted":
        kept = min(old_weight, 1.0)
        of_dev = np.where(accepted, kept, 1.0)
        of_new *= max(accepted.sum() * (1 - kept), 1.0) / of_new.sum() if kept < 1 else 1.0
    fold = folds_of(int(feedback.queries.max()) + 1, FOLDS, seed)[feedback.queries]
    before, after = np.zeros(len(feedback)), np.zeros(len(feedback))
    z = _log_odds(feedback.presence)
    ones = np.ones(len(feedback))
    for number in range(FOLDS):
        out = fold == number
        scale, bias = _fit(dev, of_dev, feedback, np.where(out, 0.0, of_new))
        after[out] = log_loss(scale * z[out] + bias, feedback.right[out], ones[out])[0]
        before[out] = log_loss(z[out], feedback.right[out], ones[out])[0]
    scale, bias = _fit(dev, of_dev, feedback, of_new)
    gains = np.bincount(feedback.queries, of_new * (before - after)) / of_new.sum()
    per_query = gains[np.bincount(feedback.queries) > 0]
    gain = float(per_query.sum())
    error = float(per_query.std(ddof=1) * np.sqrt(len(per_query)))
    losses = (float(np.average(before, weights=of_new)), float(np.average(after, weights=of_new)))
    if gain <= error:
        reason = "the old one stays: on feedback that was not fitted on, the new one is not better beyond chance"
        return Recalibration(None, scale, bias, len(feedback), *losses, reason)
    reason = "better on feedback that was not fitted on"
    return Recalibration(_moved(calibrator, scale, bias), scale, bias, len(feedback), *losses, reason)


def _fit(dev: Feedback, of_dev: Floats, new: Feedback, of_new: Floats) -> tuple[float, float]:
    weights = np.concatenate([of_dev, of_new])
    used = weights > 0
    z = _log_odds(np.concatenate([dev.presence, new.presence]))[used]
    right = np.concatenate([dev.right, new.right])[used]
    fit = fit_platt(z, right, weights[used])
    return fit.scale, fit.bias


def _moved(calibrator: Calibrator, scale: float, bias: float) -> Calibrator:
    """Move presences, the record's and the threshold's with them."""
    record = calibrator.record
    assert record is not None

    def move(presence: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            moved: Floats = scipy.special.expit(scale * scipy.special.logit(presence) + bias)
        return moved

    floor = float(move(np.array([record.floor]))[0])
    presence = move(record.presence)
    low = ~record.right & (presence < floor)  # by the last digit
    moved = replace(record, presence=np.where(low, floor, presence), floor=floor)
    old = calibrator.calibration
    if isinstance(old, Adjusted):  # twice moved is once moved further
        curve = Adjusted(scale * old.scale, scale * old.bias + bias, old.base)
    else:
        curve = Adjusted(scale, bias, old)
    changed = replace(calibrator, calibration=curve, record=moved)
    return replace(changed, threshold=changed.decide().threshold)


def _log_odds(presence: Floats) -> Floats:
    z: Floats = scipy.special.logit(np.clip(presence, EDGE, 1 - EDGE))
    return z


def read_feedback(
    model: DualEncoder | ScoreModel, source: str | Path, *, columns: Mapping[str, str] | None = None
) -> Feedback:
    """Read judgements: query, candidate and right, as they came in, and `propensity`, the chance of being asked for.

    A model rates the pairs again. For calibrated scores the table is what `match` wrote, whose column `presence` is
    taken, with `right` filled in; or whole lists, which are rated again. Rows without a judgement are left out.

    Raises:
        DataError: a broken table, columns that are missing, candidates that the model does not offer.
    """
    path, reading = Path(source), Reading(dict(columns or {}))
    layout = layout_of(path, reading, ["right"])
    if isinstance(model, ScoreModel) and "presence" not in layout.names:
        scores = read_scores(path, scores=[one.name for one in model.combination.columns], columns=columns)
        known = scores.truth >= 0
        return Feedback(scores.rows[known], model.read(scores)[1][known], scores.truth[known] == 1)
    texts: dict[str, list[Any]] = {"query": [], "candidate": []}
    right, numbers_of = [], {"presence": [], "propensity": []}  # type: ignore[var-annotated]
    before = 0
    for table in blocks(path, reading, layout):
        if "right" not in table.column_names:
            raise DataError(f"{path}: no column 'right' that says which candidates were right (1) or wrong (0).")
        right.append(truths(table.column("right"), path, before))
        for name, parts in texts.items():
            parts += [str(one) for one in table.column(name).to_pylist()]
        for name, found in numbers_of.items():
            if name in table.column_names:
                found.append(numbers(table.column(name), name, path, before))
        before += table.num_rows
    truth = np.concatenate(right)
    number = {query: place for place, query in enumerate(dict.fromkeys(texts["query"]))}
    queries = np.array([number[query] for query in texts["query"]], np.int64)
    if isinstance(model, ScoreModel):
        presence = np.concatenate(numbers_of["presence"])
    else:
        presence = _rated(model, list(number), queries, texts["candidate"], path)
    known = (truth >= 0) & ~np.isnan(presence)
    propensity = np.concatenate(numbers_of["propensity"]) if numbers_of["propensity"] else None
    if propensity is not None and not ((propensity[known] > 0) & (propensity[known] <= 1)).all():
        raise DataError(f"{path}: expected propensities above 0 and at most 1, got others.")
    return Feedback(
        queries[known], presence[known], truth[known] == 1, None if propensity is None else propensity[known]
    )


def _rated(model: DualEncoder, names: list[str], queries: Ints, candidates: list[str], path: Path) -> Floats:
    """(k,) presences of pairs by a model."""
    if model.calibrator is None:
        raise DataError("The model was not calibrated, so there is nothing to move. Calibrate it: sigmax calibrate.")
    place = {text: j for j, text in enumerate(model.candidates)} | {key: j for j, key in enumerate(model.candidate_ids)}
    columns = np.array([place.get(one, -1) for one in candidates], np.int64)
    if (columns < 0).all():
        raise DataError(
            f"{path}: none of its candidates is one that the model offers, such as {candidates[0]!r}; it offers "
            f"{model.candidates[0]!r}."
        )
    presence = np.full(len(queries), np.nan)
    order = np.argsort(queries, kind="stable")
    ends = np.searchsorted(queries[order], np.arange(len(names) + 1))
    for number, rated in enumerate(model.rate(model.as_queries(names), model.offer())):
        rows = order[ends[number] : ends[number + 1]]
        rows = rows[columns[rows] >= 0]
        assert rated.presence is not None
        presence[rows] = rated.presence[columns[rows]]
    return presence
