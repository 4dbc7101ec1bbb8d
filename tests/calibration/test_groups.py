"""Queries that are nearly the same stay together: a calibration must not be tested on what it was fitted on."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from sigmax.calibration import calibrator as module
from sigmax.calibration.calibrator import fit_calibrator
from sigmax.calibration.fits import _folds, fit_calibration
from sigmax.calibration.pairs import Pairs
from sigmax.calibration.solvers import log_loss

M, COPIES = 6, 6


def messages(n: int, seed: int):
    """n messages in `COPIES` wordings each: what the model misses of a message it misses in all its wordings."""
    random = np.random.default_rng(seed)
    x = np.repeat(2 * random.normal(size=(n, M)), COPIES, axis=0)
    missed = np.repeat(2 * random.normal(size=(n, M)), COPIES, axis=0)
    right = np.repeat(random.random((n, M)), COPIES, axis=0) < expit(x + missed - 1)
    return x + 0.1 * random.normal(size=x.shape), right, np.repeat(np.arange(n), COPIES)


def loss(fitted, logits, right):
    z = fitted.calibration.log_odds(logits)
    return float(log_loss(z, right, np.ones_like(z))[0].sum() / len(z))


def test_near_duplicates_do_not_make_a_scale_and_bias_for_each_candidate():
    """Of made data, the average over worlds: what is chosen with groups does better on new messages, and says so."""
    new, truth, _ = messages(3000, seed=9)
    gaps, told = [], {"groups": [], "none": []}
    for seed in range(6):
        logits, right, groups = messages(12, seed)
        pairs = Pairs.of(logits, right, most=10**6)
        alone = fit_calibration(pairs)
        together = fit_calibration(replace(pairs, groups=groups))
        gaps.append(loss(alone, new, truth) - loss(together, new, truth))
        told["none"].append(loss(alone, new, truth) - alone.log_loss[alone.method])
        told["groups"].append(loss(together, new, truth) - together.log_loss.get(together.method, np.nan))
    assert np.mean(gaps) > 0.1
    assert np.mean(told["none"]) > 0.5, "without groups, cross-validation promises too much"
    assert abs(np.nanmean(told["groups"])) < np.mean(told["none"]) / 2


def test_folds_keep_groups_together():
    logits, right, groups = messages(15, seed=0)
    pairs = replace(Pairs.of(logits, right, most=10**6), groups=groups)
    query, fold = _folds(pairs, 5, seed=0)
    assert (query == pairs.queries).all()
    for group in range(15):
        assert len(set(fold[groups == group])) == 1
    assert set(fold) == set(range(5))


def test_groups_of_one_change_nothing():
    logits, right, _ = messages(20, seed=1)
    ids = [str(j) for j in range(M)]
    plain, alone = (fit_calibrator(logits, right, ids, groups=groups) for groups in (None, np.arange(len(logits))))
    assert plain.as_dict() == alone.as_dict()
    pairs = Pairs.of(logits, right, most=10**6)
    for method in ("platt", "quadratic-candidate", "isotonic"):
        grouped = replace(pairs, groups=np.arange(len(logits)))
        assert fit_calibration(grouped, method) == fit_calibration(pairs, method)


def test_a_group_is_one_witness_of_a_candidate():
    """Six wordings of each message teach of a candidate what one wording does."""
    logits, right, groups = messages(40, seed=2)
    logits = np.repeat(logits[::COPIES], COPIES, axis=0)
    six = fit_calibration(replace(Pairs.of(logits, right, most=10**6), groups=groups), "platt-candidate").calibration
    one = fit_calibration(Pairs.of(logits[::COPIES], right[::COPIES], most=10**6), "platt-candidate").calibration
    free = fit_calibration(Pairs.of(logits, right, most=10**6), "platt-candidate").calibration
    assert six.biases == pytest.approx(one.biases, abs=0.1)
    assert np.abs(np.subtract(free.biases, one.biases)).max() > 0.3


def test_few_groups_are_little_to_choose_by():
    logits, right, groups = messages(4, seed=3)
    fitted = fit_calibration(replace(Pairs.of(logits, right, most=10**6), groups=groups))
    assert fitted.method == "platt"
    assert "right pairs that are not nearly the same" in fitted.reason or "for 5 folds" in fitted.reason


def test_a_group_is_held_out_as_a_whole(monkeypatch):
    logits, right, groups = messages(30, seed=4)
    ids = [str(j) for j in range(M)]
    seen = []

    def fit(pairs, method, *, seed):
        seen.append(set(pairs.queries.tolist()))
        return real(pairs, method, seed=seed)

    real = module.fit_calibration
    monkeypatch.setattr(module, "fit_calibration", fit)
    fitted = fit_calibrator(logits, right, ids, method="platt", groups=groups)
    assert fitted.about["groups"] == 30
    for part in seen[1:]:
        left_out = sorted(set(range(len(logits))) - part)
        assert len(left_out) == COPIES * len({groups[i] for i in left_out})
    held = fit_calibrator(logits, right, ids, method="platt", groups=groups, held_out=0.5)
    assert held.about["held_out"] == 90
    assert held.about["groups"] == 15
    with pytest.raises(ValueError, match="a group for each of 180 rows, got 3"):
        fit_calibrator(logits, right, ids, groups=np.array([0, 0, 1]))
