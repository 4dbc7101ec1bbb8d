"""Rules with a threshold for each candidate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sigmax.arrays import Floats, Ints
from sigmax.calibration.record import NOTHING, Record
from sigmax.calibration.rules import CONFIDENCE, Choice, Decision, certified, decide
from sigmax.errors import DataError

__all__ = ["decide_each"]


def decide_each(
    choice: Choice, record: Record, candidate_ids: Sequence[str], *, confidence: float = CONFIDENCE
) -> Decision:
    """Choose a threshold for each candidate, see `RULES`.

    Args:
        choice: a rule whose `each` is true, with its level.
        record: of the dev split.
        candidate_ids: (m,) of the record's columns.
        confidence: 1 − δ, the share of dev splits in which every promise that is made holds.

    Raises:
        DataError: a record that does not tell candidates apart.
        ValueError: a confidence not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"Expected a confidence between 0 and 1, both left out, got {confidence}. Try {CONFIDENCE}.")
    if record.columns is None:
        raise DataError(
            f"The record of the dev split does not tell candidates apart, as {choice} asks for. Calibrate the model "
            "again, over fewer candidates if these are very many: sigmax calibrate DIR DATA."
        )
    if choice.level is not None:
        record = record.witnesses
    assert record.columns is not None
    order = np.argsort(record.columns, kind="stable")
    ends = np.searchsorted(record.columns[order], np.arange(len(candidate_ids) + 1))
    pairs = [order[start:end] for start, end in pairwise(ends)]
    if choice.level is None:
        return _expected_f1(choice, record, pairs, candidate_ids, confidence)
    return _promised(choice, record, pairs, candidate_ids, confidence)


def _promised(
    choice: Choice, record: Record, pairs: list[Ints], candidate_ids: Sequence[str], confidence: float
) -> Decision:
    """Test each candidate that can have enough queries with its part of δ, on `Record.witnesses`.

    A promise takes n queries that get the candidate, of which the level is right: as many right ones are to be expected
    by the presences. Read off these and not off the truth, who is tested is fixed before anything is.
    """
    rule, level = choice.rule, choice.level
    assert level is not None
    seen = [part[record.presence[part] >= record.floor] for part in pairs]
    claims = np.array([min(len(part) - 1, record.presence[part].sum() / level) for part in seen])
    most = np.sort(claims)[::-1]
    delta = 1 - confidence
    tests = 1
    while tests < len(most) and most[tests] >= rule.needed(level, delta / (tests + 1)):
        tests += 1
    part = delta / tests
    least = rule.needed(level, part)
    thresholds: dict[str, float] = {}
    for name, mine, claimed in zip(candidate_ids, seen, claims.tolist(), strict=True):
        if claimed < least:
            continue
        right = record.right[mine]
        curve = Record(right, np.arange(len(mine)), record.presence[mine], right, record.floor).curve
        place = certified(rule, curve, level, part)
        if place is not None and place >= 0:
            thresholds[name] = curve.threshold(place)
    few = int((claims < least).sum())
    reason = (
        f"{choice} is promised for {len(thresholds)} of {len(seen)} candidates, for all of them at once; the others "
        f"are never accepted: {few} are right for too few dev queries (about {math.ceil(level * least)} are "
        f"needed), {len(seen) - few - len(thresholds)} have too many errors."
    )
    achieved: dict[str, float | None] = {"candidates": float(len(seen)), "promised": float(len(thresholds))}
    return Decision(choice, NOTHING, bool(thresholds), confidence, reason, None, achieved, thresholds)


def _expected_f1(
    choice: Choice, record: Record, pairs: list[Ints], candidate_ids: Sequence[str], confidence: float
) -> Decision:
    others = decide("best-f1", record, confidence=confidence)
    found: list[float] = [_best_expected(record.presence[part], record.floor) for part in pairs]
    thresholds = {name: value for name, value in zip(candidate_ids, found, strict=True) if value < NOTHING}
    achieved: dict[str, float | None] = {"candidates": float(len(pairs))}
    return Decision(choice, others.threshold, False, confidence, None, None, achieved, thresholds)


def _best_expected(presence: Floats, floor: float) -> float:
    """Half-way below the place where expected F1 is largest; nothing where no presence is on record from the floor."""
    p = np.sort(presence)[::-1]
    recorded = int((p >= floor).sum())
    if not recorded:
        return NOTHING
    place = int((2 * np.cumsum(p) / (np.arange(1, len(p) + 1) + p.sum()))[:recorded].argmax())
    below = max(float(p[place + 1]) if place + 1 < len(p) else 0.0, floor if p[place] > floor else 0.0)
    half_way = (float(p[place]) + below) / 2
    return half_way if half_way > below else float(p[place])
