import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from helpers.worlds import LEVELS, WORLDS, kept
from sigmax.calibration import calibrator
from sigmax.calibration.any_right import AnyFit, AnyInputs, any_features, fit_any, noisy_or, none_odds
from sigmax.calibration.calibrator import Calibrator, fit_calibrator
from sigmax.calibration.curves import Platt
from sigmax.calibration.fits import CALIBRATIONS
from sigmax.calibration.rules import RULES, decide
from sigmax.errors import DataError

# -- P(any) --------------------------------------------------------------------------------------


def test_noisy_or():
    presence = np.array([[0.5, 0.5, 0.0], [1.0, 0.2, 0.3], [0.0, 0.0, 0.0]])
    assert noisy_or(presence).tolist() == [0.75, 1.0, 0.0]


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5))
def test_noisy_or_is_a_probability_above_each(rows):
    presence = np.array(rows)
    found = noisy_or(presence)
    assert ((found >= presence.max(1) - 1e-12) & (found <= 1)).all()


def test_features():
    z = np.array([[3.0, -1.0, 2.5], [-4.0, -4.0, -9.0]])
    for row, found in zip(z.tolist(), any_features(z), strict=True):
        ordered = sorted(row, reverse=True)
        assert found.tolist() == pytest.approx(
            [
                ordered[0],
                ordered[0] - ordered[1],
                math.log(sum(map(math.exp, row))),
                math.log(sum(math.log1p(math.exp(x)) for x in row)),
            ]
        )
    assert any_features(np.array([[2.0]]))[0, 1] == 0  # one candidate leads nobody
    assert np.isfinite(any_features(np.array([[1e9, -1e9], [-1e9, -1e9], [np.inf, -np.inf]]))).all()
    with pytest.raises(ValueError, match="at least one candidate"):
        any_features(np.empty((2, 0)))


def test_none_odds():
    logits, none = np.array([[1.0, 2.0], [0.0, -3.0]]), np.array([0.5, 4.0])
    with_none = np.exp(np.c_[logits, none])
    share = with_none[:, 2] / with_none.sum(1)
    assert expit(none_odds(logits, none))[:, 0] == pytest.approx(1 - share)


def alike(n=600, m=6, seed=0):
    """Candidates that are copies of each other: all present or none, which noisy-or counts as m chances."""
    random = np.random.default_rng(seed)
    z = np.repeat(random.normal(-1, 2, (n, 1)), m, 1) + random.normal(0, 0.01, (n, m))
    return z, random.random(n) < expit(z[:, 0])


def independent(n=1500, m=6, seed=0):
    random = np.random.default_rng(seed)
    z = random.normal(-3, 2, (n, m))
    return z, (random.random((n, m)) < expit(z)).any(1)


@pytest.mark.parametrize(("world", "method"), [(alike, "head"), (independent, "noisy-or")])
def test_the_better_way_is_kept(world, method):
    z, answered = world()
    fitted = fit_any(AnyInputs(z, z), expit(z), answered)
    assert fitted.method == method
    assert fitted.log_loss[method] == min(fitted.log_loss.values())
    assert set(fitted.log_loss) == {"noisy-or", "head"}
    new, truth = world(seed=1)
    probability = fitted.probability(AnyInputs(new, new))
    assert probability.mean() == pytest.approx(truth.mean(), abs=0.04)
    restored = AnyFit.from_dict(json.loads(json.dumps(fitted.as_dict())))
    assert restored == fitted
    assert (restored.probability(AnyInputs(new, new)) == probability).all()


def test_none_candidate_wins_where_it_knows():
    random = np.random.default_rng(0)
    answered = random.random(400) < 0.7
    logits = random.normal(size=(400, 5))
    none = np.where(answered, -2.0, 2.0) + random.normal(size=400)
    fitted = fit_any(AnyInputs(logits, logits, none), expit(logits), answered)
    assert fitted.method == "none-candidate"
    assert list(fitted.log_loss) == ["noisy-or", "head", "none-candidate"]
    odds = none_odds(logits, none)
    odds = (odds - odds.mean()) / odds.std()
    theirs = LogisticRegression(C=1.0, tol=1e-8).fit(odds, answered).predict_proba(odds)[:, 1]
    assert fitted.probability(AnyInputs(logits, logits, none)) == pytest.approx(theirs, abs=1e-3)
    without = fitted.probability(AnyInputs(logits, logits))
    assert without == pytest.approx(noisy_or(expit(logits)))


@pytest.mark.parametrize("lack", [0, 9])
def test_too_little_for_a_head(lack):
    z = np.random.default_rng(0).normal(size=(50, 3))
    fitted = fit_any(AnyInputs(z, z), expit(z), np.arange(50) >= lack)
    assert (fitted.method, fitted.head) == ("noisy-or", None)
    assert f"dev has {50 - lack} and {lack}" in fitted.reason


# -- the whole -----------------------------------------------------------------------------------


def world(n=1500, m=8, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(-2, 1.5, (n, m))
    return logits / 3 + 1, random.random((n, m)) < expit(logits)  # on another scale than the truth's


IDS = [f"c{j}" for j in range(8)]


@pytest.mark.parametrize("method", ["auto", *CALIBRATIONS])
def test_fit_and_round_trip(method):
    logits, right = world()
    fitted = fit_calibrator(logits, right, IDS, method=method, about={"data": "made"})
    assert fitted.about["method"] == method or method == "auto"
    new, truth = world(seed=1)
    presence = fitted.presence(new, IDS)
    assert presence.mean() == pytest.approx(truth.mean(), rel=0.1)
    assert fitted.any(new, IDS).mean() == pytest.approx(truth.any(1).mean(), abs=0.06)
    saved = json.loads(json.dumps(fitted.as_dict()))
    again = Calibrator.from_dict(saved, fitted.record)
    assert (again.presence(new, IDS) == presence).all()
    assert (again.any(new, IDS) == fitted.any(new, IDS)).all()
    for rule in RULES:
        text = f"{rule}=0.6" if RULES[rule].takes_level else rule
        assert again.decide(text) == fitted.decide(text)
        if RULES[rule].each:
            continue
        cautious = decide(text, fitted.record, confidence=0.95)
        assert again.decide(text) == fitted.decide(text) == replace(cautious, confidence=0.9)
    assert fitted.threshold == fitted.default_threshold == fitted.decide().threshold


def test_order_of_candidates_does_not_matter():
    logits, right = world()
    fitted = fit_calibrator(logits, right, IDS, method="platt-candidate")
    turned = list(reversed(range(8)))
    there = fitted.presence(logits[:, turned], [IDS[j] for j in turned])
    assert there == pytest.approx(fitted.presence(logits, IDS)[:, turned])
    assert fitted.places(IDS) is None
    assert fitted.places(["c3", "new", "c0"]).tolist() == [3, -1, 0]


def test_moved():
    logits, right = world()
    fitted = fit_calibrator(logits, right, IDS, method="platt")
    there = fitted.moved(0.2, 0.05)
    shift = math.log(0.05 / 0.95) - math.log(0.2 / 0.8)
    p, q = fitted.presence(logits, IDS), there.presence(logits, IDS)
    assert np.log(q / (1 - q)) == pytest.approx(np.log(p / (1 - p)) + shift)
    assert ((p >= fitted.default_threshold) == (q >= there.default_threshold)).all()
    assert there.any(logits, IDS) == pytest.approx(noisy_or(q))
    with pytest.raises(DataError, match="without the record"):
        there.decide("recall=0.9")


@pytest.mark.parametrize("logits", ["constant", "one candidate", "few"])
def test_bad_dev_splits_give_probabilities(logits):
    x, right = world()
    if logits == "constant":
        x = np.zeros_like(x)
    elif logits == "one candidate":
        x, right = x[:, :1], right[:, :1]
    else:
        x, right = x[:4], right[:4]
        right[:] = False
        right[0, 0] = True
    fitted = fit_calibrator(x, right, IDS[: x.shape[1]])
    for found in (fitted.presence(x, IDS[: x.shape[1]]), fitted.any(x, IDS[: x.shape[1]])):
        assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("value", [True, False])
def test_one_class_only(value):
    logits, right = world()
    with pytest.raises(DataError, match="right and wrong pairs"):
        fit_calibrator(logits, np.full_like(right, value), IDS)


def test_an_old_curve_and_threshold():
    old = Calibrator(Platt(2.0, -1.0), (), threshold=0.3)
    assert old.default_threshold == 0.3
    assert old.presence(np.array([[0.5]]), ["anything"]).tolist() == [[0.5]]


# -- what rules decide by ------------------------------------------------------------------------


def test_rules_are_decided_by_queries_that_the_calibration_did_not_see(monkeypatch):
    """A query's recorded presences do not change with its own truth, but for what the others' fit says."""
    logits, right = world(60)
    seen = []

    def fit(pairs, method, *, seed):
        seen.append(set(pairs.queries.tolist()))
        return real(pairs, method, seed=seed)

    real = calibrator.fit_calibration
    monkeypatch.setattr(calibrator, "fit_calibration", fit)
    fitted = fit_calibrator(logits, right, IDS, method="platt")
    assert seen[0] == set(range(60))
    assert len(seen) == 1 + calibrator.FOLDS
    left_out = [set(range(60)) - part for part in seen[1:]]
    assert sorted(query for part in left_out for query in part) == list(range(60))
    shown = fitted.presence(logits, IDS)[fitted.record.rows[0]]
    assert not np.isin(fitted.record.presence[fitted.record.rows == fitted.record.rows[0]], shown).any()


def test_a_part_that_chose_nothing():
    logits, right = world(200)
    fitted = fit_calibrator(logits, right, IDS, method="quadratic-candidate", held_out=0.4)
    assert fitted.record.queries == fitted.about["held_out"] == 80
    assert fitted.about["queries"] == 120
    rest = [row for row in range(200) if row in set(np.flatnonzero(np.random.default_rng(0).permutation(200) >= 80))]
    alone = fit_calibrator(logits[rest], right[rest], IDS, method="quadratic-candidate")
    assert alone.calibration == fitted.calibration
    assert fitted.decide("recall=0.5") == decide("recall=0.5", fitted.record), "all of δ: nothing was fitted on these"
    assert alone.any_fit == fitted.any_fit
    for part in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="`held_out` from 0 to below 1"):
            fit_calibrator(logits, right, IDS, held_out=part)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_promises_hold_with_a_scale_and_bias_for_each_candidate(name):
    """Of 60 dev splits at most δ, and three standard errors, break a promise; see benchmarks/promises.py for all."""
    draws, broken = 60, dict.fromkeys(LEVELS, 0)
    logits, truth = WORLDS[name].draw(10_000, 2**31)
    ids = [f"c{j}" for j in range(logits.shape[1])]
    for draw in range(draws):
        fitted = fit_calibrator(*WORLDS[name].draw(200, [draw, 5]), ids, method="quadratic-candidate", seed=draw)
        presence = fitted.presence(logits, ids)
        for rule, level in LEVELS.items():
            decision = fitted.decide(f"{rule}={level}")
            broken[rule] += decision.promised and not kept(decision, presence, truth)
    assert max(broken.values()) <= draws * 0.1 + 3 * math.sqrt(draws * 0.09), broken
