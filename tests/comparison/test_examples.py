import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax

from helpers.scripted import Scripted, numbered, random_case
from sigmax.calibration.curves import Platt
from sigmax.comparison.examples import EXAMPLES, KINDS, TOP, best_answers, choose_examples
from sigmax.metrics.histogram import BINS, LogitHistogram
from sigmax.scan import scan


def answers_of(logits, data, curve):
    model = Scripted(logits, curve, 0.5)
    return best_answers(scan(model, data, "test"), data.candidates, model.calibrator)


# -- best answers --------------------------------------------------------------------------------


def test_best_answers():
    data, logits, right = random_case()
    found = answers_of(logits, data, Platt(1.3, -1.1))
    rows = data.split("test")
    assert len(found) == len(rows)
    for i, answers in zip(rows, found, strict=True):
        s = logits[i].astype(np.float32).astype(np.float64)
        order = np.argsort(-s)[:TOP]
        assert [one.candidate for one in answers.best] == [str(j) for j in order]
        assert [one.right for one in answers.best] == right[i, order].tolist()
        assert [one.logit for one in answers.best] == pytest.approx(s[order])
        assert [one.share for one in answers.best] == pytest.approx(softmax(s)[order])
        assert [one.presence for one in answers.best] == pytest.approx(expit(1.3 * s - 1.1)[order])
        assert answers.any == pytest.approx(1 - np.prod(1 - expit(1.3 * s - 1.1)))


# -- the choice ----------------------------------------------------------------------------------


def chosen(n=600, seed=0, unanswered=0.2):
    random = np.random.default_rng(seed)
    right = random.random((n, 8)) < 0.3
    right[:, 0] |= ~right.any(1)
    right[random.random(n) < unanswered] = False
    data = numbered(right)
    answers = {
        name: answers_of(right + random.normal(size=right.shape), data, Platt(1.0, 0.0)) for name in ("one", "other")
    }
    return data, right, answers, choose_examples(data, answers)


@pytest.mark.parametrize("seed", range(3))
def test_as_many_of_each_kind(seed):
    data, right, answers, examples = chosen(seed=seed)
    assert [example.kind for example in examples] == [kind for kind in KINDS for _ in range(EXAMPLES // len(KINDS))]
    place = {int(data.queries[i]): number for number, i in enumerate(data.split("test"))}
    assert len({example.query for example in examples}) == EXAMPLES
    for example in examples:
        i = int(example.query)
        assert example.right == tuple(str(j) for j in np.flatnonzero(right[i]))
        assert example.answers == {name: given[place[i]] for name, given in answers.items()}
        hits = [right[i, int(given.best[0].candidate)] for given in example.answers.values()]
        kind = "unanswered" if not right[i].any() else "right" if all(hits) else "differ" if any(hits) else "wrong"
        assert example.kind == kind


def test_the_same_choice_each_time():
    assert chosen()[3] == chosen()[3]


def test_other_kinds_fill_up():
    data, _, answers, examples = chosen(unanswered=0.0)
    assert len(examples) == EXAMPLES
    assert "unanswered" not in {example.kind for example in examples}
    alone = choose_examples(data, {"one": answers["one"]})
    assert {example.kind for example in alone} == {"right", "wrong"}
    assert len(alone) == EXAMPLES


def test_few_queries():
    data, _, _, examples = chosen(n=12)
    assert sorted(int(example.query) for example in examples) == data.split("test").tolist()


# -- histograms ----------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 9))
def test_histogram(seed, n, m):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, m)).astype(np.float32)
    right = random.random((n, m)) < 0.3
    found = LogitHistogram.of(logits, right)
    expected = {"right": [0] * BINS, "wrong": [0] * BINS, "unanswered": [0] * BINS}

    def place(value):
        return next((b for b in range(BINS) if value < found.edges[b + 1]), BINS - 1)

    for i in range(n):
        for j in range(m):
            expected["right" if right[i, j] else "wrong"][place(logits[i, j])] += 1
        if not right[i].any():
            expected["unanswered"][place(max(logits[i]))] += 1
    about = found.as_dict()
    assert {name: about[name] for name in expected} == expected
    assert len(about["edges"]) == BINS + 1
    assert about["edges"][0] <= logits.min() <= logits.max() <= about["edges"][-1]
