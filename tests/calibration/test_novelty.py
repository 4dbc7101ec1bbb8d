import json
import math

import numpy as np
import pytest
from scipy.special import expit

from sigmax.calibration import AnyFit, AnyInputs, Novelty, fit_any, fit_calibrator, fit_novelty


def cloud(n, seed, *, new=0):
    """Vectors around three directions, and `new` ones around a fourth that training has not."""
    random = np.random.default_rng(seed)
    kinds = np.concatenate([random.integers(3, size=n - new), np.full(new, 3)])
    return 3 * np.eye(8)[kinds] + 0.7 * random.normal(size=(n, 8)), kinds == 3


def test_features_by_a_loop():
    training, _ = cloud(40, 0)
    queries, _ = cloud(6, 1, new=2)
    found = fit_novelty(training, queries).features(queries)
    for vector, (nearest, mean) in zip(queries, found, strict=True):
        cosines = sorted(float(vector @ x / math.hypot(*vector) / math.hypot(*x)) for x in training)[-10:]
        assert nearest == pytest.approx(cosines[-1], abs=1e-5)
        assert mean == pytest.approx(sum(cosines) / 10, abs=1e-5)


def test_few_training_queries_and_empty_vectors():
    novelty = fit_novelty(np.eye(3)[:2], np.eye(3))
    assert novelty.features(np.zeros((1, 3))).tolist() == [[0, 0]]
    assert novelty.features(np.array([[5.0, 0, 0]])).tolist() == [[1.0, 0.5]]
    assert novelty.features(np.zeros((0, 3))).shape == (0, 2)
    for bad in (np.zeros((0, 3)), np.zeros((4, 2)), np.zeros(3)):
        with pytest.raises(ValueError, match=r"Expected \(t, d\) and \(n, d\) vectors"):
            fit_novelty(bad, np.eye(3))


def test_p_values_by_counting():
    novelty = Novelty(np.eye(2, dtype=np.float32), np.array([0.1, 0.2, 0.2, 0.9]))
    p = novelty.p_values(np.array([[0, 0.05], [0, 0.1], [0, 0.2], [0, 1.0]]))
    assert p.tolist() == [1 / 5, 2 / 5, 4 / 5, 1.0]


def test_the_flag_keeps_its_false_alarm_rate():
    """Over dev splits: of queries like dev's at most α, and of new ones nearly all."""
    alarms, caught = [], []
    for seed in range(60):
        novelty = fit_novelty(cloud(100, [seed, 0])[0], cloud(99, [seed, 1])[0])
        queries, new = cloud(300, [seed, 2], new=100)
        flag = novelty.p_values(novelty.features(queries)) <= 0.1
        alarms.append(flag[~new].mean())
        caught.append(flag[new].mean())
    error = np.std(alarms) / math.sqrt(len(alarms))
    assert np.mean(alarms) <= 0.1 + 3 * error
    assert np.mean(alarms) >= 0.1 - 0.01 - 3 * error, "1/(n + 1) below α at most: it is not wasteful"
    assert np.mean(caught) > 0.9


def test_any_right_reads_what_logits_do_not_know():
    """Logits that say nothing about the new kind, and distances that do."""
    novelty = fit_novelty(cloud(200, 0)[0], cloud(50, 1)[0])
    vectors, new = cloud(400, 2, new=120)
    z = np.random.default_rng(0).normal(size=(400, 5))
    features = novelty.features(vectors)
    fitted = fit_any(AnyInputs(z, z, novelty=features), expit(z), ~new)
    assert fitted.method == "head-novelty"
    assert fitted.log_loss["head-novelty"] < 0.5 * fitted.log_loss["head"]
    probability = fitted.probability(AnyInputs(z, z, novelty=features))
    assert probability[~new].min() > probability[new].max() - 0.5
    assert (probability[~new] > 0.5).mean() > 0.9
    again = AnyFit.from_dict(json.loads(json.dumps(fitted.as_dict())))
    assert (again.probability(AnyInputs(z, z, novelty=features)) == probability).all()
    without = fitted.probability(AnyInputs(z, z))
    assert ((without >= 0) & (without <= 1)).all(), "falls back to noisy-or"


def test_through_the_calibrator():
    random = np.random.default_rng(1)
    vectors, new = cloud(300, 3, new=90)
    novelty = fit_novelty(cloud(200, 0)[0], cloud(50, 1)[0])
    logits = random.normal(size=(300, 4))
    right = (np.arange(4) == logits.argmax(1)[:, None]) & ~new[:, None]
    ids = list("abcd")
    fitted = fit_calibrator(logits, right, ids, novelty=novelty.features(vectors))
    assert fitted.any_fit.method == "head-novelty"
    _, anything = fitted.read(logits, ids, novelty=novelty.features(vectors))
    assert anything[~new].mean() > 0.9
    assert anything[new].mean() < 0.2


def test_novelty_survives_saving():
    novelty = fit_novelty(cloud(20, 0)[0], cloud(10, 1)[0])
    again = Novelty.from_tensors(novelty.as_tensors())
    assert np.array_equal(again.seen, novelty.seen)
    assert np.array_equal(again.dev, novelty.dev)
    with pytest.raises(ValueError, match="training queries, seen missing"):
        Novelty.from_tensors({"dev": novelty.dev})
