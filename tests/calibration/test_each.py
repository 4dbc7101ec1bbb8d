"""Rules with a threshold for each candidate."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from sigmax.calibration.calibrator import fit_calibrator
from sigmax.calibration.each import decide_each
from sigmax.calibration.record import NOTHING, Record
from sigmax.calibration.rules import Choice, decide
from sigmax.errors import DataError

M = 6
IDS = [f"c{j}" for j in range(M)]
PRECISION = Choice("label-precision", 0.8)


def world(n: int, seed: object):
    """Presences that are right, and truth; candidates differ in how often they are and how well they are told apart."""
    random = np.random.default_rng(seed)
    z = np.linspace(-0.5, -4, M) + np.linspace(4, 2, M) * random.normal(size=(n, M))
    return expit(z), random.random((n, M)) < expit(z)


def by_definition(presence, right, level, delta):
    """Thresholds by loops: starts, tests in order from each, each candidate with its part of delta."""

    def least(part):
        return next(n for n in range(1, 10**5) if level**n <= part * (1 + 1e-9))

    seen = [presence[presence[:, j] >= 1e-3, j] for j in range(M)]
    claims = [min(len(p) - 1, p.sum() / level) for p in seen]
    counts = sorted(claims, reverse=True)
    tests = 1
    while tests < M and counts[tests] >= least(delta / (tests + 1)):
        tests += 1
    found = {}
    for j in range(M):
        p, y = presence[:, j], right[:, j]
        p, y = p[p >= 1e-3], y[p >= 1e-3]
        part, starts = delta / tests, []
        if claims[j] < least(part):
            continue
        while least(part / (len(starts) + 1)) * 4 ** len(starts) < len(p):
            starts = [least(part / (len(starts) + 1)) * 4**i for i in range(len(starts) + 1)]
        order = np.argsort(-p)
        best, carried = None, 0.0
        for count in range(1, len(p) + 1):
            carried += part / len(starts) if count in starts else 0.0
            wrong = int((~y[order[:count]]).sum())
            if carried and stats.binom.cdf(wrong, count, 1 - level) <= carried:
                best = count
            else:
                carried = 0.0
        if best is not None:
            found[IDS[j]] = p[order[best - 1]]
    return found


@pytest.mark.parametrize("n", [30, 200, 900])
def test_each_candidate_by_its_definition(n):
    for seed in range(3):
        presence, right = world(n, [seed, n])
        decision = decide_each(PRECISION, Record.of(presence, right), IDS, confidence=0.9)
        expected = by_definition(presence, right, 0.8, 0.1)
        assert set(decision.thresholds) == set(expected)
        for j, name in enumerate(IDS):
            accepted = presence[:, j] >= decision.threshold_of(name)
            assert (accepted == (presence[:, j] >= expected.get(name, NOTHING))).all()
        assert decision.promised == bool(expected)
        assert f"promised for {len(expected)} of {M} candidates" in decision.reason
        assert decision.threshold_of("added later") == NOTHING


def test_all_promises_hold_at_once():
    """At most a part delta of dev splits breaks any promise, for all candidates together."""
    draws, broken, made = 300, 0, 0
    presence, right = world(20_000, 10**6)
    for draw in range(draws):
        decision = decide_each(PRECISION, Record.of(*world(300, [draw, 1])), IDS, confidence=0.9)
        made += len(decision.thresholds)
        truths = [right[presence[:, j] >= decision.threshold_of(name), j] for j, name in enumerate(IDS)]
        broken += any(len(truth) and truth.mean() < 0.8 for truth in truths)
    assert made > 2 * draws
    assert broken <= draws * 0.1 + 3 * math.sqrt(draws * 0.09)


def test_macro_f1_by_its_definition():
    presence, right = world(200, 5)
    decision = decide_each(Choice("macro-f1"), Record.of(presence, right, floor=0), IDS)
    for j, name in enumerate(IDS):
        p = presence[:, j]
        scores = {t: 2 * p[p >= t].sum() / ((p >= t).sum() + p.sum()) for t in p}
        assert (p >= decision.threshold_of(name)).sum() == (p >= max(scores, key=scores.get)).sum()
    assert not decision.promised


def test_macro_f1_is_better_with_a_threshold_for_each():
    presence, right = world(20_000, 6)
    record = Record.of(*world(500, 7))
    own, one = decide_each(Choice("macro-f1"), record, IDS), decide("best-f1", record)

    def macro(thresholds):
        accepted = presence >= thresholds
        return (2 * (accepted & right).sum(0) / (accepted.sum(0) + right.sum(0))).mean()

    assert macro(np.array([own.threshold_of(name) for name in IDS])) > macro(one.threshold) + 0.005


def test_a_calibrator_decides_and_keeps_what_it_takes():
    presence, right = world(600, 8)
    fitted = fit_calibrator(np.log(presence / (1 - presence)), right, IDS, method="platt")
    decision = fitted.decide("label-precision=0.8")
    assert decision.promised
    assert decision.confidence == 0.9
    assert "at least 0.8 of the queries that get it are right" in decision.promise
    again = Record.from_tensors(fitted.record.as_tensors())
    assert (again.columns == fitted.record.columns).all()
    tensors = fitted.record.as_tensors()
    del tensors["columns"]
    with pytest.raises(DataError, match="does not tell candidates apart"):
        decide_each(PRECISION, Record.from_tensors(tensors), IDS)
    with pytest.raises(ValueError, match=r"Expected candidates for label-precision=0\.8"):
        decide(PRECISION, fitted.record)
    with pytest.raises(ValueError, match="Expected a confidence"):
        decide_each(PRECISION, fitted.record, IDS, confidence=1.0)
    with pytest.raises(ValueError, match="one column"):
        Record(
            fitted.record.answered,
            *(fitted.record.as_tensors()[k] for k in ("rows", "presence", "right")),
            columns=np.array([0]),
        )


def test_nothing_to_promise():
    presence, right = world(8, 9)
    decision = decide_each(PRECISION, Record.of(presence, right), IDS)
    assert not decision.promised
    assert decision.thresholds == {}
    assert decision.threshold == NOTHING
    assert f"{M} are right for too few dev queries (about 9 are needed)" in decision.reason
