"""Queries that are nearly the same stay together: a calibration must not be tested on what it was fitted on."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from sigmax.calibration import calibrator as module
from sigmax.calibration.any_right import AnyInputs, fit_any
from sigmax.calibration.calibrator import fit_calibrator
from sigmax.calibration.each import decide_each
from sigmax.calibration.familiar import Familiar
from sigmax.calibration.fits import _folds, fit_calibration
from sigmax.calibration.pairs import Pairs
from sigmax.calibration.record import Record, one_of_each
from sigmax.calibration.rules import Choice, decide
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


# -- promises ------------------------------------------------------------------------------------

IDS = [str(j) for j in range(M)]
LEVELS = {"precision": 0.7, "recall": 0.8, "contains": 0.85, "false-claims": 0.3, "label-precision": 0.7}


def wordings(n: int, copies: int, seed: object):
    """Presences that are right, and truth, of n messages in so many wordings, which hardly change a presence."""
    random = np.random.default_rng(seed)
    z = np.repeat(2.5 * random.normal(size=(n, M)) - 2.5, copies, axis=0)
    right = np.repeat(random.random((n, M)), copies, axis=0) < expit(z)
    return expit(z + 0.01 * random.normal(size=z.shape)), right, np.repeat(np.arange(n), copies)


def made(name: str, record: Record):
    choice = Choice(name, LEVELS[name])
    return decide_each(choice, record, IDS) if choice.rule.each else decide(choice, record)


def broken(decision, presence, right) -> bool:
    level, name = decision.choice.level, decision.choice.name
    if name == "label-precision":
        gets = [(j, presence[:, j] >= decision.threshold_of(key)) for j, key in enumerate(IDS)]
        return any(one.any() and right[one, j].mean() < level for j, one in gets)
    accepted, answered = presence >= decision.threshold, right.any(1)
    hits, claims = (accepted & right).sum(1), accepted.any(1)
    if name == "precision":
        return bool(claims.any() and (hits[claims] / accepted[claims].sum(1)).mean() < level)
    if name == "false-claims":
        return bool(claims[~answered].mean() > level)
    value = hits[answered] / right[answered].sum(1) if name == "recall" else hits[answered] > 0
    return bool(value.mean() < level)


@pytest.mark.slow
def test_promises_hold_where_messages_come_in_several_wordings():
    """At most δ of dev splits break a promise, where each query for itself is counted several times as many do."""
    draws, bad = 300, {"groups": dict.fromkeys(LEVELS, 0), "none": dict.fromkeys(LEVELS, 0)}
    kept = dict.fromkeys(LEVELS, 0)
    presence, right, _ = wordings(20_000, 1, 2**31)
    for draw in range(draws):
        p, truth, groups = wordings(150, 8, draw)
        for way, alike in (("groups", groups), ("none", None)):
            record = Record.of(p, truth, groups=alike)
            for name in LEVELS:
                decision = made(name, record)
                bad[way][name] += decision.promised and broken(decision, presence, right)
                kept[name] += way == "groups" and decision.promised
    most = draws * 0.1 + 3 * math.sqrt(draws * 0.09)
    assert max(bad["groups"].values()) <= most, bad
    assert min(kept.values()) > draws / 4, kept
    assert min(bad["none"][name] for name in ("contains", "false-claims")) > 1.5 * most, bad


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(0, 100))
def test_a_rule_decides_by_one_query_of_each_group(groups, seed):
    random = np.random.default_rng(seed)
    groups = np.array(groups)
    presence, right = random.random((len(groups), M)), random.random((len(groups), M)) < 0.3
    missing = random.integers(0, 2, len(groups))
    drawn = one_of_each(groups)
    assert sorted(groups[drawn]) == sorted(set(groups.tolist()))
    record = Record.of(presence, right, missing=missing, groups=groups)
    alone = Record.of(presence[drawn], right[drawn], missing=missing[drawn])
    tensors, expected = record.witnesses.as_tensors(), alone.as_tensors()
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value)
    for name in ("precision", "contains"):
        mine, theirs = decide(Choice(name, 0.3), record), decide(Choice(name, 0.3), alone)
        assert mine.promised == theirs.promised
        if mine.promised:
            assert mine.threshold == theirs.threshold
        assert mine.achieved == record.curve.at(mine.threshold)
    assert decide("best-f1", record).threshold == decide("best-f1", replace(record, groups=None)).threshold


def test_a_rule_says_that_near_duplicates_count_once():
    presence, right, groups = wordings(10, 8, 1)
    record = Record.of(presence, right, groups=groups)
    answered = int(right[::8].any(1).sum())
    said = decide("contains=0.9", record).reason
    assert f"needs at least 22 answered queries, the dev split has {answered} (near-duplicates count once)" in said
    assert decide("contains=0.9", replace(record, groups=None)).promised
    with pytest.raises(ValueError, match="a group for each of 80 queries, got 3"):
        replace(record, groups=np.arange(3))


def test_a_record_keeps_groups_and_one_from_before_has_none():
    logits, right, groups = messages(30, seed=6)
    fitted = fit_calibrator(logits, right, IDS, method="platt", groups=groups)
    tensors = fitted.record.as_tensors()
    assert (Record.from_tensors(tensors).groups == groups).all()
    assert Record.from_tensors(tensors).witnesses.queries == 30
    del tensors["groups"]
    older = Record.from_tensors(tensors)
    assert older.witnesses is older
    held = fit_calibrator(logits, right, IDS, method="platt", groups=groups, held_out=0.5)
    assert held.record.witnesses.queries == 15


def test_any_right_counts_near_duplicates_once():
    logits, right, groups = messages(15, seed=7)
    answered = right.any(1)
    have, lack = len(set(groups[answered])), len(set(groups[~answered]))
    inputs = AnyInputs(logits, logits)
    fitted = fit_any(inputs, inputs.presence, answered, groups=groups)
    assert fitted.method == "noisy-or"
    assert f"dev has {have} and {lack} that are not nearly the same" in fitted.reason
    right[:, 0] = True
    fitted = fit_calibrator(logits, right, IDS, method="platt", groups=groups)
    assert "all 90 dev queries (15 that are not nearly the same) have a right answer" in fitted.any_fit.reason
    assert f"at least {0.1 ** (1 / 15):.2%} have" in fitted.any_fit.reason
    assert len(fitted.familiar.dev) == 15


def test_a_fold_of_any_right_holds_whole_groups():
    """What tells a message in one wording tells it in all: with groups, a head must not be tested on what it learnt."""
    random = np.random.default_rng(0)
    answered = np.repeat(random.random(24) < 0.5, COPIES)
    novelty = np.repeat(random.normal(size=(24, 12)), COPIES, axis=0)  # says nothing, but tells messages apart
    logits = random.normal(size=(len(answered), M))
    inputs = AnyInputs(logits, logits - 1, novelty=novelty)
    alone, together = (
        fit_any(inputs, inputs.presence, answered, groups=groups) for groups in (None, np.repeat(np.arange(24), COPIES))
    )
    assert alone.log_loss["head-novelty"] < 0.8 * alone.log_loss["head"]
    assert together.log_loss["head-novelty"] > together.log_loss["head"]


def test_the_flag_exchanges_a_query_with_one_of_each_group():
    numbers, groups = np.arange(12.0)[:, None], np.repeat(np.arange(4), 3)
    kept = Familiar.of(numbers, np.ones(12, bool), groups=groups)
    assert (kept.dev == numbers[one_of_each(groups)]).all()
    assert Familiar.p_values(kept, np.array([[-100.0]])) == pytest.approx(1 / 5)
