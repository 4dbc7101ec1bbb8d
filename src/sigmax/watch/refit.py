"""Whole lists that were judged in use refit calibrated scores: weights of columns, presences and P(any) anew.

Old dev lists lie in the folder (`sigmax.scores.kept`); of them a part `old_weight`, drawn at random, is fitted together
with the lists from use. It is taken only if it is better where it was not fitted: over feedback queries held out in
turn, the log loss of presences per query must fall by more than a standard error, and that of P(any) may not rise by
more.

Promises are made anew on the feedback alone where it has at least `ENOUGH` queries: they are then about queries that
come as the feedback's did. With fewer, they are about the mixture of old dev and feedback, and hold for queries that
come as such a mixture. (That the same feedback decided to take the new weights makes either a little optimistic.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sigmax.arrays import Bools, Floats
from sigmax.calibration.any_right import folds_of
from sigmax.calibration.solvers import log_loss
from sigmax.data.formats.reader import Reading
from sigmax.errors import DataError
from sigmax.scores.blocks import layout_of
from sigmax.scores.kept import joined
from sigmax.scores.model import ScoreModel, calibrate_scores
from sigmax.scores.read import read_scores
from sigmax.scores.table import Scores

__all__ = ["ENOUGH", "FEWEST_LISTS", "Refit", "read_lists", "refit", "whole_lists"]

#: Whole lists with which weights are fitted anew.
FEWEST_LISTS = 50
#: Feedback queries on which promises are made anew.
ENOUGH = 200
FOLDS = 5
#: Probabilities are kept this far from 0 and 1 in a log loss.
EDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Refit:
    """What whole lists from use did to calibrated scores."""

    model: ScoreModel | None  #: the new one; None: the old one stays
    queries: int  #: of feedback
    old_queries: int  #: of dev that were fitted too
    log_loss_before: float  #: of presences, nats per feedback query, on queries that were not fitted on
    log_loss_after: float
    any_log_loss_before: float  #: of P(any)
    any_log_loss_after: float
    #: column -> before and after: what a unit of its score weighs as a logit and as a share, and not being returned.
    weights: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]]
    reason: str  #: why it was taken or not
    promises: str  #: what promises are about

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the model, for JSON."""
        rest = {name: value for name, value in vars(self).items() if name != "model"}
        return {"taken": self.model is not None, **rest}


def whole_lists(scores: Scores) -> Scores:
    """Return the queries of which every candidate on the list was judged."""
    unjudged = np.bincount(scores.rows[scores.truth < 0], minlength=len(scores.queries))
    return scores.take((unjudged == 0) & (scores.lengths > 0))


def refit(model: ScoreModel, feedback: Scores, *, old_weight: float = 1.0, seed: int = 0) -> Refit:
    """Fit calibrated scores anew on some of their dev lists and on whole lists from use.

    Args:
        model: calibrated scores, with the lists of their dev split.
        feedback: judged lists of later queries, with the same columns; lists that are not judged throughout are left
            out.
        old_weight: the part of the dev lists that is fitted too, from 0 to 1.
        seed: of folds and samples.

    Raises:
        DataError: a model that kept no lists, too few whole lists, columns that are missing.
        ValueError: a weight that is not in [0, 1].
    """
    if not 0 <= old_weight <= 1:
        raise ValueError(f"Expected `old_weight` from 0 to 1, the part of dev that is fitted too, got {old_weight}.")
    if model.lists is None:
        raise DataError(
            "The lists of the dev split were not kept with these scores. Calibrate again: sigmax calibrate."
        )
    names = tuple(column.name for column in model.combination.columns)
    new = whole_lists(feedback.only(*names))
    n = len(new.queries)
    if n < FEWEST_LISTS:
        raise DataError(f"Expected at least {FEWEST_LISTS} lists that are judged throughout, got {n}. Gather more.")
    old = model.lists.take(np.random.default_rng(seed).random(len(model.lists.queries)) < old_weight)
    fold = folds_of(n, FOLDS, seed)
    before = _losses(model, new)
    after = np.zeros_like(before)
    for number in range(FOLDS):
        out = fold == number
        after[out] = _losses(_fitted(model, joined(old, new.take(~out)), seed), new.take(out))
    gain = before - after
    mean, error = gain.mean(0), gain.std(0, ddof=1) / np.sqrt(n)
    fitted = _fitted(model, joined(old, new), seed)
    better = mean[0] > error[0] and mean[1] >= -error[1]
    if better:
        reason = "better on feedback that was not fitted on"
    elif mean[0] > error[0]:
        reason = "the old one stays: P(any) would be worse on feedback that was not fitted on"
    else:
        reason = "the old one stays: on feedback that was not fitted on, the new one is not better beyond chance"
    made, promises = _promising(fitted, old, new)
    was, now = (
        {one.name: _weights(source, place) for place, one in enumerate(source.combination.columns)}
        for source in (model, fitted)
    )
    return Refit(
        model=made if better else None,
        queries=n,
        old_queries=len(old.queries),
        log_loss_before=float(before[:, 0].mean()),
        log_loss_after=float(after[:, 0].mean()),
        any_log_loss_before=float(before[:, 1].mean()),
        any_log_loss_after=float(after[:, 1].mean()),
        weights={name: (was[name], now.get(name, (0.0, 0.0, 0.0))) for name in names},
        reason=reason,
        promises=promises if better else "promises are those that they were",
    )


def _fitted(model: ScoreModel, scores: Scores, seed: int) -> ScoreModel:
    """Calibrate by the same method, with columns read the same way round."""
    lower = [column.name for column in model.combination.columns if column.lower]
    method = str(model.calibrator.about.get("method", "auto"))
    return calibrate_scores(scores, method=method, lower_is_better=lower, seed=seed)


def _losses(model: ScoreModel, scores: Scores) -> Floats:
    """(n, 2) log loss of each query: of its presences together, and of P(any)."""
    _, presence, anything = model.read(scores)
    n, right = len(scores.queries), scores.truth == 1
    found = np.zeros((n, 2))
    found[:, 0] = np.bincount(scores.rows, _log_loss(presence, right), minlength=n)
    found[:, 1] = _log_loss(anything, np.bincount(scores.rows[right], minlength=n) > 0)
    return found


def _log_loss(probability: Floats, right: Bools) -> Floats:
    p = np.clip(probability, EDGE, 1 - EDGE)
    return log_loss(np.log(p) - np.log1p(-p), right.astype(np.float64), np.ones(len(p)))[0]


def _weights(model: ScoreModel, place: int) -> tuple[float, float, float]:
    """What one unit of a column's score adds to the logit: by its logit, by its share; and by not being returned."""
    one = model.combination
    unit = one.columns[place].scale
    return unit * one.logit_slopes[place], unit * one.share_slopes[place], one.absent[place]


def _promising(model: ScoreModel, old: Scores, new: Scores) -> tuple[ScoreModel, str]:
    """Decide rules on the feedback alone, where there is enough of it, and say what promises are about."""
    calibrator = model.calibrator
    record, n = calibrator.record, len(new.queries)
    assert record is not None
    if n < ENOUGH:
        return model, (
            f"promises are about queries that come as a mixture of {len(old.queries):,} of dev and {n:,} of feedback; "
            f"with {ENOUGH} of feedback they would be about these alone"
        )
    listed = int((old.lengths > 0).sum())  # a record has the queries with lists first
    of_new = np.arange(listed, min(listed + n, record.queries))
    calibrator = replace(calibrator, record=record.take(of_new))
    calibrator = replace(calibrator, threshold=calibrator.decide().threshold)
    said = f"promises were made anew on {n:,} queries of feedback, and are about queries that come as these did"
    return replace(model, calibrator=calibrator), said


def read_lists(model: ScoreModel, source: str | Path, *, columns: Mapping[str, str] | None = None) -> Scores | None:
    """Read feedback as whole lists; None where it has no score columns, a propensity, or too few lists judged whole."""
    names = [column.name for column in model.combination.columns]
    there = layout_of(Path(source), Reading(dict(columns or {})), ["right"]).names
    if not set(names) <= set(there) or "propensity" in there or model.lists is None:
        return None
    scores = read_scores(source, scores=names, columns=columns)
    return scores if len(whole_lists(scores).queries) >= FEWEST_LISTS else None
