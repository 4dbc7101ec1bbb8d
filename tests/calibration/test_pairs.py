import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from sigmax.calibration.pairs import Pairs, row_totals


def test_pairs_of_a_matrix():
    logits = np.arange(6.0).reshape(2, 3)
    pairs = Pairs.of(logits, logits > 3, most=6)
    assert [pairs.queries.tolist(), pairs.candidates.tolist()] == [[0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]]
    assert pairs.size == 3
    assert len(pairs) == 6
    assert np.array_equal(logits[pairs.queries, pairs.candidates], pairs.logits)
    assert pairs.weights.tolist() == [1] * 6
    share = softmax(logits, axis=1).ravel()
    assert pairs.share_odds == pytest.approx(np.log(share / (1 - share)))


def test_shares_leave_room_for_none_of_these():
    logits, none = np.random.default_rng(0).normal(size=(4, 3)), np.array([0.5, -1.0, 9.0, 0.0])
    pairs = Pairs.of(logits, logits > 0, most=12, none=none)
    share = softmax(np.c_[logits, none], axis=1)[:, :3].ravel()
    assert pairs.share_odds == pytest.approx(np.log(share / (1 - share)))
    assert row_totals(logits, none) == pytest.approx(logsumexp(np.c_[logits, none], axis=1))
    assert row_totals(np.zeros((2, 0))).tolist() == [-math.inf, -math.inf]


def test_columns_that_are_no_candidates_are_not_told_apart():
    logits = np.arange(6.0).reshape(2, 3)
    pairs = Pairs.of(logits, logits > 3, most=6, weights=np.array([[1.0, 1, 0], [1, 1, 1]]))
    assert (pairs.size, len(pairs)) == (1, 5)
    assert not pairs.candidates.any()


def test_pairs_that_are_nearly_taken_for_right_are_kept():
    random = np.random.default_rng(1)
    logits = random.normal(size=(50, 40)) + 3 * random.normal(size=(50, 1))
    right = random.random(logits.shape) < 0.02
    whole, some = (Pairs.of(logits, right, most=most) for most in (10**6, 400))
    room = (400 - int(right.sum())) // 3
    kept = set(zip(some.queries.tolist(), some.candidates.tolist(), strict=True))
    for values in (whole.logits, whole.share_odds):
        wrong = np.flatnonzero(~whole.right)
        for place in wrong[np.argsort(values[wrong])[-room:]]:
            assert (whole.queries[place], whole.candidates[place]) in kept
    assert set(np.unique(some.weights)) == {1.0, some.weights.max()}


@given(st.integers(1, 90), st.integers(0, 3))
def test_a_sample_stands_for_all(most, seed):
    random = np.random.default_rng(7)
    right = random.random((9, 10)) < 0.2
    logits = random.normal(size=right.shape)
    pairs = Pairs.of(logits, right, most=most, seed=seed)
    assert pairs.right.sum() == right.sum()
    assert pairs.weights.sum() == pytest.approx((~right).sum() + right.sum() if (~pairs.right).any() else right.sum())
    assert (pairs.weights[pairs.right] == 1).all()
    assert np.array_equal(logits[pairs.queries, pairs.candidates], pairs.logits)
    assert np.array_equal(right[pairs.queries, pairs.candidates], pairs.right)
    again = replace(pairs, weights=2 * pairs.weights).thinned(most=max(1, len(pairs) // 2), seed=seed)
    if (~again.right).any():
        assert again.weights.sum() == pytest.approx(2 * pairs.weights.sum())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("right", [True], r"`right` to be of shape \(k,\) like `logits` \(2,\), got \(1,\)"),
        ("weights", [1.0, 0.0], "`weights` to be finite and above 0"),
        ("weights", [1.0, math.inf], "`weights` to be finite and above 0"),
        ("candidates", [0, 2], r"`candidates` in \[0, 2\), got 0 to 2"),
        ("candidates", [-1, 0], r"got -1 to 0"),
        ("logits", [1.0, math.nan], "Expected finite logits to calibrate on, got 1 that are not"),
    ],
)
def test_pairs_that_do_not_fit(name, value, message):
    fine = {
        "logits": [0.0, 1.0],
        "share_odds": [0.0, 0.0],
        "right": [True, False],
        "queries": [0, 0],
        "candidates": [0, 1],
        "weights": [1, 1],
    }
    Pairs(**fine, size=2)
    with pytest.raises(ValueError, match=message):
        Pairs(**{**fine, name: value}, size=2)
