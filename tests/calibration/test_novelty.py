import math

import numpy as np
import pytest

from sigmax.calibration import Novelty, fit_novelty
from sigmax.calibration import novelty as module


def cloud(n, seed, *, new=0, kinds=12):
    """Vectors around directions of kinds, and `new` ones around one more that training has not."""
    random = np.random.default_rng(seed)
    which = np.concatenate([random.integers(kinds, size=n - new), np.full(new, kinds)])
    return 3 * np.eye(kinds + 4)[which] + 0.5 * random.normal(size=(n, kinds + 4)), which == kinds


def profile(vector, mean, candidates):
    """Products with every candidate, both less their mean."""
    middle = candidates.mean(0)
    return [float(sum((vector - mean) * (one - middle))) for one in candidates]


def test_nearness_by_a_loop_over_profiles():
    training, _ = cloud(40, 0)
    queries, _ = cloud(6, 1, new=2)
    candidates = np.random.default_rng(2).normal(size=(20, 16))
    found = fit_novelty(training, candidates).nearness(queries)
    seen = [profile(one, training.mean(0), candidates) for one in training]
    for vector, near in zip(queries, found, strict=True):
        own = profile(vector, training.mean(0), candidates)
        cosines = sorted(
            sum(a * b for a, b in zip(own, other, strict=True)) / math.hypot(*own) / math.hypot(*other)
            for other in seen
        )
        # Half precision rounds coordinates of length 1 by at most 2**-12 each, and what is summed by no more.
        assert near == pytest.approx(sum(cosines[-3:]) / 3, abs=1e-3)


def test_few_candidates_compare_vectors_as_they_are():
    training, _ = cloud(30, 0)
    queries, _ = cloud(5, 1)
    novelty = fit_novelty(training, np.eye(16)[:3])
    assert novelty.views is None
    for vector, near in zip(queries - training.mean(0), novelty.nearness(queries), strict=True):
        others = training - training.mean(0)
        cosines = np.sort(others @ vector / np.linalg.norm(others, axis=1) / np.linalg.norm(vector))
        assert near == pytest.approx(cosines[-3:].mean(), abs=1e-3)


def test_candidates_that_are_all_alike_show_nothing():
    training, _ = cloud(30, 0)
    assert fit_novelty(training, np.ones((50, 16))).views is None


def test_what_no_candidate_sees_does_not_count():
    training, _ = cloud(60, 0)
    candidates = np.concatenate([np.eye(12), np.zeros((12, 4))], axis=1)
    queries, _ = cloud(9, 1)
    moved = queries.copy()
    moved[:, 12:] += 5
    novelty = fit_novelty(training, candidates)
    assert novelty.nearness(moved) == pytest.approx(novelty.nearness(queries), abs=1e-5)


def test_new_kinds_are_farther():
    novelty = fit_novelty(cloud(400, 0)[0], np.random.default_rng(3).normal(size=(40, 16)))
    queries, new = cloud(200, 1, new=60)
    near = novelty.nearness(queries)
    assert np.mean(near[~new][:, None] > near[new][None]) > 0.95


def test_edges():
    training = np.eye(16)[:3]
    novelty = fit_novelty(training, np.eye(16))
    assert novelty.nearness(training.mean(0)[None]).tolist() == [0]
    assert novelty.nearness(np.zeros((0, 16))).shape == (0,)
    assert fit_novelty(np.ones((4, 16)), np.eye(16)).nearness(np.eye(16)).tolist() == [0.0] * 16, "no direction is seen"
    for bad in (np.zeros((0, 16)), np.zeros((4, 2)), np.zeros(16)):
        with pytest.raises(ValueError, match=r"Expected \(t, d\) and \(m, d\) vectors"):
            fit_novelty(bad, np.eye(16))


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_KEPT", 50)
    training, _ = cloud(500, 0)
    novelty = fit_novelty(training, np.eye(16))
    assert novelty.seen.shape == (50, 15)
    assert np.array_equal(novelty.seen, fit_novelty(training, np.eye(16)).seen), "the same sample again"


def test_novelty_survives_saving():
    queries, _ = cloud(5, 2)
    for candidates in (np.eye(16), np.eye(16)[:2]):
        novelty = fit_novelty(cloud(20, 0)[0], candidates)
        again = Novelty.from_tensors(novelty.as_tensors())
        assert np.array_equal(again.nearness(queries), novelty.nearness(queries))
    with pytest.raises(ValueError, match="training queries, seen missing"):
        Novelty.from_tensors({"mean": novelty.mean})
    for bad in ({"seen": novelty.seen[:, :3]}, {"mean": novelty.mean[:2]}, {"seen": novelty.seen[:0]}):
        with pytest.raises(ValueError, match=r"Expected \(t, r\), \(d,\) and \(d, r\) tensors"):
            Novelty.from_tensors({**novelty.as_tensors(), **bad})
