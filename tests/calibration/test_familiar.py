import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from sigmax.calibration import (
    AnyFit,
    AnyInputs,
    Calibrator,
    Familiar,
    familiar_numbers,
    fit_any,
    fit_calibrator,
    least_answered,
)
from sigmax.calibration import familiar as module

numbers = st.floats(-50, 50) | st.sampled_from([0.0, 1.0, -50.0, 50.0, 1e-300])


def counted(dev, query, kept):
    """How many of those kept score at most as a query does, deviations over dev and the query itself."""
    together = [*dev, query]
    n = len(together)
    spread = []
    for column in zip(*together, strict=True):
        mean = math.fsum(column) / n
        spread.append(math.sqrt(math.fsum((x - mean) ** 2 for x in column) / n))

    def score(row):
        return math.fsum(w * x / s for w, x, s in zip((1, 0.5), row, spread, strict=True) if s > 1e-6)

    return sum(score(one) <= score(query) + 1e-9 for one in kept)


def test_p_values_and_any_right_by_a_loop():
    random = np.random.default_rng(0)
    dev, without, queries = random.normal(size=(30, 2)), random.normal(size=(4, 2)) - 1, random.normal(size=(9, 2))
    largest = random.uniform(size=9)
    found = Familiar(dev, without)
    for query, q, p, anything in zip(
        queries, largest, found.p_values(queries), found.any_right(queries, largest), strict=True
    ):
        k, u = counted(dev, query, dev), counted(dev, query, without)
        assert p == pytest.approx((k + 1) / 31)
        assert anything == pytest.approx(max(q, (k + 2 * q) / (k + u + 2)))


def test_score_adds_up_numbers_over_their_deviations():
    dev = np.array([[0.0, 5, 7], [2, 9, 7]])
    score = Familiar(dev, dev[:0]).score(np.array([[1.0, 7, 7], [2, 9, 9]]))
    assert score == pytest.approx([0, 1.5]), "what does not vary says nothing"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=12))
def test_p_values_are_super_uniform_on_exchangeable_draws(rows):
    """Each of n + 1 queries in turn is the new one: of the p-values at most a share α is at most α, ties and all."""
    rows = np.array(rows)
    p = np.array([Familiar(np.delete(rows, i, 0), rows[:0]).p_values(rows[i : i + 1])[0] for i in range(len(rows))])
    assert ((p > 0) & (p <= 1)).all()
    for level in (*p, 0.05, 0.3):
        assert (p <= level + 1e-12).mean() <= level + 1e-9


def test_the_flag_keeps_its_false_alarm_rate_and_catches():
    """Over dev splits: of queries like dev's at most α, and not much less; of far ones nearly all."""
    alarms, caught = [], []
    for seed in range(80):
        random = np.random.default_rng(seed)
        found = Familiar(random.standard_t(4, size=(99, 2)), np.zeros((0, 2)))
        alarms.append((found.p_values(random.standard_t(4, size=(200, 2))) <= 0.1).mean())
        caught.append((found.p_values(random.standard_t(4, size=(100, 2)) - 5) <= 0.1).mean())
    error = np.std(alarms) / math.sqrt(len(alarms))
    assert 0.09 - 3 * error <= np.mean(alarms) <= 0.1 + 3 * error
    assert np.mean(caught) > 0.9


def test_familiar_numbers():
    presence = np.array([[0.5, 0.2], [0, 0], [1, 0.3], [1 - 1e-16, 1e-300]])
    found = familiar_numbers(presence, np.array([[0.7], [0.1], [0], [1]]))
    assert found[:, 1].tolist() == [0.7, 0.1, 0, 1]
    assert found[0, 0] == pytest.approx(math.log(-math.log(0.4))), "0.5 · 0.8"
    assert found[1:3, 0] == pytest.approx([math.log(1e-30), math.log(1e3)])
    assert np.isfinite(found).all()
    assert familiar_numbers(presence[:1], None, np.array([[3, 2]])).tolist() == [
        [pytest.approx(math.log(-3 * math.log(0.5) - 2 * math.log(0.8)))]
    ]


def test_least_answered_is_what_a_sample_without_an_exception_promises():
    for n in (1, 10, 500):
        assert least_answered(n, 0.9) ** n == pytest.approx(0.1), "a smaller share gives such a sample in fewer cases"
    assert least_answered(0, 0.9) == 0


def world(n, seed, *, unanswered=0):
    """One right answer each of four, which logits find in most cases; queries without one have lower logits."""
    random = np.random.default_rng(seed)
    right = np.eye(4, dtype=bool)[random.integers(4, size=n)]
    right[:unanswered] = False
    near = random.normal(size=n) + 2 * right.any(1)
    logits = random.normal(size=(n, 4)) + 3.0 * right
    return logits, right, near[:, None]


def test_where_every_dev_query_has_an_answer():
    logits, right, near = world(300, 0)
    ids = list("abcd")
    fitted = fit_calibrator(logits, right, ids, novelty=near)
    assert fitted.any_fit.method == "succession"
    assert fitted.any_fit.reason.startswith(
        "all 300 dev queries have a right answer. Of queries like them at least 99.2"
    )
    logits, right, near = world(300, 1)
    presence, anything = fitted.read(logits, ids, novelty=near)
    assert 1 - anything.mean() < 0.03, "the truth is 1"
    assert (anything >= presence.max(1)).all()
    assert (anything <= 1).all()
    far = fitted.read(logits - 9, ids, novelty=near - 99)
    assert far[1] == pytest.approx(far[0].max(1), abs=1e-12), "nothing on dev is like it: the best presence is known"
    # Without the numbers it was made from: noisy-or, as for a model saved before.
    assert fitted.read(logits, ids)[1] == pytest.approx(1 - np.prod(1 - presence, axis=1))
    assert fitted.familiarity(presence, None) is None
    score, p = fitted.familiarity(presence, near)
    assert (p <= 0.05).mean() < 0.1
    assert np.all(np.diff(p[np.argsort(score)]) > -0.02), "both tell the same order, but for the deviations"


def test_where_few_dev_queries_have_none():
    logits, right, near = world(300, 0, unanswered=4)
    fitted = fit_calibrator(logits, right, list("abcd"), novelty=near)
    assert fitted.any_fit.method == "succession"
    assert "dev has 296 and 4" in fitted.any_fit.reason
    anything = fitted.read(logits, list("abcd"), novelty=near)[1]
    assert anything[4:].mean() > 0.95
    assert len(fitted.familiar.without) == 4


@pytest.mark.parametrize("n", [2, 5])
def test_two_dev_queries_and_one_candidate(n):
    logits = np.linspace(-1, 1, n)[:, None]
    right = np.ones((n, 1), bool)
    right[0] = False
    fitted = fit_calibrator(logits, right, ["a"])
    for s in ([[0.0]], [[1e30]], [[-1e30]]):
        presence, anything = fitted.read(np.array(s), ["a"])
        assert 0 <= presence[0, 0] <= anything[0] <= 1


def test_ties_everywhere():
    logits = np.zeros((20, 3))
    right = np.eye(3, dtype=bool)[np.arange(20) % 3]
    fitted = fit_calibrator(logits, right, list("abc"), novelty=np.zeros((20, 1)))
    presence = fitted.presence(logits, list("abc"))
    score, p = fitted.familiarity(presence, np.zeros((20, 1)))
    assert score.tolist() == [0] * 20
    assert p.tolist() == [1] * 20
    anything = fitted.read(logits, list("abc"), novelty=np.zeros((20, 1)))[1]
    assert anything == pytest.approx((20 + 2 * presence.max(1)) / 22)


def test_any_right_reads_what_logits_do_not_know():
    """Logits that say nothing about the new kind, and distances that do."""
    random = np.random.default_rng(0)
    new = np.arange(400) < 120
    z, near = random.normal(size=(400, 5)), (random.normal(size=400) - 4 * new)[:, None]
    fitted = fit_any(AnyInputs(z, z, novelty=near), expit(z), ~new)
    assert fitted.method == "head-novelty"
    assert fitted.log_loss["head-novelty"] < 0.5 * fitted.log_loss["head"]
    probability = fitted.probability(AnyInputs(z, z, novelty=near))
    assert (probability[~new] > 0.5).mean() > 0.9
    again = AnyFit.from_dict(json.loads(json.dumps(fitted.as_dict())))
    assert (again.probability(AnyInputs(z, z, novelty=near)) == probability).all()
    without = fitted.probability(AnyInputs(z, z))
    assert ((without >= 0) & (without <= 1)).all(), "falls back to noisy-or"


def test_what_is_kept_is_bounded_and_survives_saving(monkeypatch):
    monkeypatch.setattr(module, "MOST_KEPT", 40)
    logits, right, near = world(200, 0, unanswered=5)
    fitted = fit_calibrator(logits, right, list("abcd"), novelty=near)
    assert len(fitted.familiar.dev) + len(fitted.familiar.without) == 40
    tensors = fitted.familiar.as_tensors()
    saved = json.loads(json.dumps(fitted.as_dict()))
    again = Calibrator.from_dict(saved, fitted.record, Familiar.from_tensors(tensors))
    presence = fitted.presence(logits, list("abcd"))
    for ours, theirs in zip(fitted.familiarity(presence, near), again.familiarity(presence, near), strict=True):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(*(one.read(logits, list("abcd"), novelty=near)[1] for one in (fitted, again)))
    assert Familiar.from_tensors({}) is None
    with pytest.raises(ValueError, match=r"Expected \(n, f\) and \(u, f\) numbers"):
        Familiar.from_tensors({"familiar": np.zeros((2, 2)), "familiar_without": np.zeros((0, 3))})
