"""Do bets against "nothing changed" stay small where nothing did, and grow where something did?"""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from helpers.commands import refused
from helpers.data import things
from helpers.scored import lists, write_table
from sigmax.calibration import fit_calibrator
from sigmax.calibration.record import SIGNS, Record
from sigmax.errors import DataError
from sigmax.evaluation import calibrate
from sigmax.scores import calibrate_scores
from sigmax.training.settings import Settings
from sigmax.training.train import train
from sigmax.watch.drift import JUMP, _unlike, bets, drift, evidence, ranks_as_parts, signs_of


def jumper(parts):
    """The simple jumper, by all its stakes."""
    stakes, found = {-1: 1 / 3, 0: 1 / 3, 1: 1 / 3}, []
    for part in parts:
        whole = sum(stakes.values())
        stakes = {e: (1 - JUMP) * stake + JUMP / 3 * whole for e, stake in stakes.items()}
        stakes = {e: stake * (1 + e * (part - 0.5)) for e, stake in stakes.items()}
        found.append(sum(stakes.values()))
    return np.array(found)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_bets_as_they_are_written(parts):
    parts = np.array(parts)
    assert bets(parts) == pytest.approx((jumper(parts) + jumper(np.abs(2 * parts - 1))) / 2)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), max_size=20), st.integers(0, 9)
)
def test_parts_by_counting(dev, now, seed):
    found = ranks_as_parts(np.array(dev, float), np.array(now, float), np.random.default_rng(seed))
    chances = np.random.default_rng(seed).random(len(now))
    for place, value in enumerate(now):
        before = dev + now[:place]
        lower, equal = sum(one < value for one in before), sum(one == value for one in before)
        assert found[place] == pytest.approx((lower + chances[place] * (equal + 1)) / (len(before) + 1))


def alarms(draws, shift, dev=300, now=400, alpha=0.05):
    """Part of the draws in which bets ever reach 1/α, all draws side by side."""
    random = np.random.default_rng(0)
    count = 0
    for _ in range(draws):
        values = random.normal(size=dev + now)
        values[dev:] += shift
        values = np.round(values, 1)  # many ties
        count += bets(ranks_as_parts(values[:dev], values[dev:], random)).max() >= 1 / alpha
    return count / draws


def test_few_false_alarms():
    assert alarms(400, 0.0) <= binom.ppf(0.999, 400, 0.05) / 400


def test_a_shift_is_seen():
    assert alarms(50, 0.7) > 0.9


# -- of scores -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated():
    return calibrate_scores(lists(600))


def test_queries_that_stayed(calibrated):
    found = drift(calibrated, lists(500, seed=1))
    assert found.alarm is None
    assert found.dev_queries == 600
    assert [sign.name for sign in found.signs] == list(SIGNS[:3])
    assert found.unlike_training is None
    assert "No alarm" in found.words()
    assert len(found.unlike) == 10
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["alarm"] is None


def test_queries_that_changed(calibrated):
    scores = lists(500, seed=1)
    before = drift(calibrated, scores)
    scores.values[scores.rows >= 200] -= [2.0, -4.0, 0.2]
    found = drift(calibrated, scores)
    assert 200 < found.alarm < 400
    assert found.evidence > 100 * before.evidence
    assert "Alarm: from query" in found.words()
    scores.values[scores.rows == 7] += [60.0, 0.0, 0.0]
    assert drift(calibrated, scores).unlike[0] == ("q7", 0.0)


def test_what_cannot_be_compared(calibrated):
    with pytest.raises(ValueError, match="`alpha` between 0 and 1"):
        drift(calibrated, lists(10), alpha=1)
    with pytest.raises(DataError, match="watch scores"):
        drift(calibrated, ["a"])
    with pytest.raises(DataError, match="No queries"):
        drift(calibrated, lists(10).take(np.array([], int)))


def test_all_signs_at_once():
    random = np.random.default_rng(0)
    dev, now = random.normal(size=(30, 2)), random.normal(size=(20, 2))
    found = evidence(dev, now, np.random.default_rng(1))
    random = np.random.default_rng(1)
    for place in range(2):
        assert found[:, place] == pytest.approx(bets(ranks_as_parts(dev[:, place], now[:, place], random)))


def test_a_model_that_knows_its_training():
    """How familiar queries are is a sign too; strange ones are named, familiar ones are not."""
    data = things()
    model = train(data, Settings(epochs=2), tell=False)
    calibrate(model, data, split="dev")
    dev = [data.queries[i] for i in data.split("dev")]
    rated = list(model.rate(model.as_queries(dev), model.offer()))
    familiar = [one.familiarity for one in rated]
    assert model.calibrator.record.signs[:, 3] == pytest.approx(familiar, abs=1e-5), "dev's are those of use"
    names, signs, part = signs_of(model, [*dev, "zzzz qqqq"])
    assert signs.shape == (len(dev) + 1, 4)
    assert part == pytest.approx(np.mean([one.familiar_p <= 0.05 for one in model.match([*dev, "zzzz qqqq"])]))
    found = drift(model, names)
    assert [sign.name for sign in found.signs] == list(SIGNS)
    assert found.unlike_training == part
    assert "unlike anything in training" in found.words()
    assert json.loads(json.dumps(found.as_dict()))["unlike_training"] == part
    old = dataclasses.replace(model.calibrator.record, signs=model.calibrator.record.signs[:, :3])
    model.calibrator = dataclasses.replace(model.calibrator, record=old)
    assert [sign.name for sign in drift(model, names).signs] == list(SIGNS[:3]), "of an older folder"


def test_familiar_queries_are_not_unlike():
    dev = np.random.default_rng(0).normal(size=(100, 4))
    now = np.zeros((3, 4))
    now[:, 3] = [9, 0, -9]
    far, part = _unlike(dev, now)
    assert far[0] == 2
    assert part[0] > 0.5
    assert part[2] == 0


def test_signs_are_kept_with_the_record():
    random = np.random.default_rng(0)
    right = random.random((200, 4)) < 0.2
    logits = random.normal(size=right.shape) + 2 * right
    calibrator = fit_calibrator(logits, right, tuple("abcd"))
    presence, anything = calibrator.read(logits, tuple("abcd"))
    expected = np.stack([logits.max(1), anything, (presence >= calibrator.default_threshold).sum(1)], 1)
    assert calibrator.record.signs == pytest.approx(expected)
    assert Record.from_tensors(calibrator.record.as_tensors()).signs == pytest.approx(expected)


# -- the command line ----------------------------------------------------------------------------


def test_drift_of_scores(sigmax, calibrated, tmp_path):
    calibrated.save(tmp_path / "scores")
    scores = lists(300, seed=3)
    done = sigmax("drift", tmp_path / "scores", write_table(tmp_path / "now.csv", scores, right=False))
    assert done.code == 0, done.err
    assert "No alarm" in done.out
    assert "best logit" in done.out
    scores.values[:] -= [3.0, -6.0, 0.3]
    done = sigmax("drift", tmp_path / "scores", write_table(tmp_path / "now.csv", scores, right=False), "--json")
    assert done.code == 1
    assert json.loads(done.out)["alarm"] > 5
    refused(sigmax("drift", tmp_path / "scores", tmp_path / "no.csv"), 1, "no such file")
