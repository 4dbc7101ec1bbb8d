"""Linear models solved to the minimum, against scikit-learn and against the definition of the losses."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

import sigmax
from helpers.data import things
from sigmax.families import OBJECTIVES
from sigmax.losses import make_loss
from sigmax.positives import Positives
from sigmax.training.linear import PENALTIES, STRENGTHS, choose_penalty, choose_penalty_on, fit_linear
from sigmax.training.train import train

N, D, M = 120, 7, 4


def problem(kind="single", n=N, seed=0):
    """Features of very different scales, far from 0, and labels that depend on them; float64."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, D)) * 10.0 ** np.linspace(-2, 1, D) + random.normal(size=D)
    logits = (x - x.mean(0)) / x.std(0) @ random.normal(size=(D, M)) + random.gumbel(size=(n, M))
    right = logits > 0.5 if kind == "several" else logits == logits.max(1, keepdims=True)
    return torch.from_numpy(x), sparse.csr_array(right.astype(np.int8))


def dense(right):
    return right.toarray().astype(bool)


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_the_softmax_is_scikit_learns_multinomial_regression(penalty):
    x, right = problem()
    found = fit_linear(x, right, "softmax-average", penalty, tolerance=1e-14, steps=2000)
    theirs = LogisticRegression(C=1 / (penalty * N), tol=1e-10, max_iter=10_000).fit(x, dense(right).argmax(1))
    np.testing.assert_allclose(found.weights, theirs.coef_, atol=1e-4)
    shift = found.biases - torch.from_numpy(theirs.intercept_)  # a shift that all labels share changes nothing
    np.testing.assert_allclose(shift - shift.mean(), 0, atol=1e-4)


@pytest.mark.parametrize("kind", ["single", "several"])
def test_the_sigmoid_is_scikit_learns_one_against_rest(kind):
    x, right = problem(kind)
    penalty = 0.01
    found = fit_linear(x, right, "sigmoid", penalty, tolerance=1e-14, steps=2000)
    one = LogisticRegression(C=1 / (penalty * N), tol=1e-10, max_iter=10_000)
    theirs = OneVsRestClassifier(one).fit(x, right.toarray())
    for j, estimator in enumerate(theirs.estimators_):
        np.testing.assert_allclose(found.weights[j], estimator.coef_[0], atol=1e-4)
        np.testing.assert_allclose(found.biases[j], estimator.intercept_[0], atol=1e-4)


@pytest.mark.parametrize("loss", OBJECTIVES)
@pytest.mark.parametrize("kind", ["single", pytest.param("several", marks=pytest.mark.slow)])
def test_the_gradient_of_the_objective_is_zero_at_the_minimum(loss, kind):
    """The objective as its definition has it, by autograd, on the features as given."""
    x, right = problem(kind)
    found = fit_linear(x, right, loss, 0.02, tolerance=1e-14, steps=2000)
    weights, biases = found.weights.clone().requires_grad_(), found.biases.clone().requires_grad_()
    positives = Positives.from_dense(torch.from_numpy(dense(right)))
    objective = make_loss(loss, logit_scale=1.0, logit_bias=0.0)
    value = objective.from_logits(x @ weights.T + biases, positives) + 0.01 * weights.square().sum()
    value.backward()
    assert value.item() == pytest.approx(found.value, rel=1e-9)
    scale = x.abs().max()
    assert weights.grad.abs().max() < 1e-5 * scale
    assert biases.grad.abs().max() < 1e-5


def test_blocks_of_rows_change_nothing(monkeypatch):
    """Twenty steps along the same way: the sums differ by rounding alone."""
    x, right = problem("several")
    whole = fit_linear(x, right, "softmax-decoupled", 0.01, tolerance=0.0, steps=20)
    monkeypatch.setattr("sigmax.training.problem.PAIR_BLOCK", 10 * M)
    parts = fit_linear(x, right, "softmax-decoupled", 0.01, tolerance=0.0, steps=20)
    torch.testing.assert_close(parts.weights, whole.weights, atol=1e-7, rtol=1e-7)


def test_single_precision_finds_the_same_minimum():
    x, right = problem()
    exact = fit_linear(x, right, "softmax-average", 0.01, tolerance=1e-14, steps=2000)
    single = fit_linear(x.float(), right, "softmax-average", 0.01)
    assert single.weights.dtype == torch.float32
    assert single.value == pytest.approx(exact.value, rel=1e-4)


def test_a_warm_start_takes_fewer_steps():
    x, right = problem()
    first = fit_linear(x, right, "sigmoid", 0.01)
    assert fit_linear(x, right, "sigmoid", 0.01, start=first).steps < first.steps / 2


def test_labels_start_at_their_log_odds():
    """With nothing to learn from the features, a label's bias is what says how common it is."""
    right = np.zeros((100, 3), np.int8)
    right[:60, 0] = right[60:90, 1] = right[90:, 2] = 1
    found = fit_linear(torch.zeros(100, 2), sparse.csr_array(right), "softmax-average", 1.0)
    np.testing.assert_allclose(torch.softmax(found.biases, 0), [0.6, 0.3, 0.1], atol=0.01)
    assert found.weights.abs().max() == 0


def test_queries_without_an_answer_count_for_the_sigmoid_alone():
    x, right = problem("several")
    empty = sparse.csr_array(np.zeros((30, M), np.int8))
    more = torch.cat([x, torch.zeros(30, D)]), sparse.csr_array(sparse.vstack([right, empty], format="csr"))
    change = {}
    for loss in ("softmax-average", "sigmoid"):
        answered = dense(right).any(1)
        some = fit_linear(x[torch.from_numpy(answered)], right[answered], loss, 0.01)
        change[loss] = (fit_linear(*more, loss, 0.01).weights - some.weights).abs().max().item()
    assert change["softmax-average"] < 1e-2 < change["sigmoid"]


@pytest.mark.parametrize("loss", [pytest.param("softmax-average", marks=pytest.mark.slow), "sigmoid"])
def test_weights_are_repetitions(loss):
    x, right = problem("several")
    weights = np.random.default_rng(3).integers(0, 4, N)
    counted = np.arange(N)[OBJECTIVES[loss].counted(torch.from_numpy(np.diff(right.indptr))).numpy()]
    repeated = np.repeat(counted, weights[counted])
    scale = len(counted) / len(repeated)  # the mean is over as many queries as there are
    given = torch.from_numpy(weights * scale)
    weighted = fit_linear(x, right, loss, 0.01, weights=given, tolerance=1e-14, steps=2000)
    expected = fit_linear(x[repeated], right[repeated], loss, 0.01, tolerance=1e-14, steps=2000)
    assert weighted.value == pytest.approx(expected.value, rel=1e-6)
    np.testing.assert_allclose(weighted.weights, expected.weights, atol=1e-3)


@pytest.mark.slow
def test_the_penalty_follows_the_noise():
    x, right = problem(n=200)
    noise = sparse.csr_array(right.toarray()[np.random.default_rng(1).permutation(200)])
    found = choose_penalty(x, right, "softmax-average").penalty
    assert choose_penalty(x, noise, "softmax-average").penalty > found
    assert found in PENALTIES


@pytest.mark.parametrize("loss", OBJECTIVES)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 3), (3, 1), (7, 4)])
def test_hardly_any_data(n, m, loss):
    """One query, one label, labels that are never right, features that say nothing: finite weights."""
    random = np.random.default_rng(0)
    right = np.zeros((n, m), np.int8)
    right[np.arange(n), random.integers(0, max(1, m - 1), n)] = 1
    right, few = sparse.csr_array(right), sparse.csr_array((random.random((n, 9)) < 0.3).astype(np.float32))
    vectors = torch.from_numpy(random.normal(size=(n, 5)).astype(np.float32))
    for found in (
        choose_penalty(vectors, right, loss),
        choose_penalty(torch.zeros(n, 5), right, loss, weights=torch.full((n,), 2.0)),
        choose_penalty_on((few, right), few, right, loss),
    ):
        assert found.weights.isfinite().all() and found.biases.isfinite().all()
        assert np.isfinite(found.value)


# -- end to end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [pytest.param("softmax-decoupled", marks=pytest.mark.slow), "sigmoid"])
def test_a_frozen_encoder_is_solved(loss, static_folder, tmp_path, caplog):
    data = things(labels=True)
    caplog.set_level(logging.INFO)
    logged = []
    settings = sigmax.Settings(loss=loss, encoder=str(static_folder), frozen=True)
    model = train(data, settings, logged=lambda step, metrics: logged.append(metrics["loss"]))
    assert "a convex problem, solved" in caplog.text
    assert logged[-1] <= min(logged) * 1.001
    right = data.graph[data.split("train")].toarray().astype(bool)
    logits = model.logits([data.queries[i] for i in data.split("train")], data.candidates).values
    answered = right.any(1)
    assert right[answered, logits[answered].argmax(1)].mean() > 0.9
    model.save(tmp_path / "model")
    loaded = sigmax.load(tmp_path / "model")
    np.testing.assert_allclose(
        loaded.logits(data.queries, data.candidates).values[data.split("train")], logits, atol=1e-4
    )
    assert loaded.facts["settings"]["head"] == "linear"


def test_weights_of_queries_reach_the_solver(static_folder, monkeypatch):
    monkeypatch.setattr("sigmax.training.names.COPIES", (0,))  # names lie so near their queries that the loss is flat
    data = things(labels=True)
    settings = sigmax.Settings("softmax-average", encoder=str(static_folder), frozen=True)

    def vectors(weights):
        return train(replace(data, weights=weights), settings, tell=False).candidate_encoder.vectors.detach()

    alike, some = vectors(None), np.where(np.arange(len(data.queries)) % 3, 3.0, 0.0)
    torch.testing.assert_close(vectors(np.full(len(data.queries), 3.0)), alike, atol=1e-3, rtol=1e-3)
    assert (vectors(some) - alike).abs().max() > 0.01


@pytest.mark.slow
def test_none_of_these_is_solved_with_the_others(static_folder):
    data = things(labels=True, unanswered=True)
    model = train(data, sigmax.Settings(encoder=str(static_folder), frozen=True, none_candidate=True))
    rows = data.split("train")
    scored = model.logits([data.queries[i] for i in rows], data.candidates)
    unanswered = data.answer_counts[rows] == 0
    best_is_none = scored.none > scored.values.max(1)
    assert best_is_none[unanswered].mean() > 0.8
    assert best_is_none[~unanswered].mean() < 0.2


def test_one_positive_counts_pairs(static_folder):
    data = things(labels=True)
    settings = sigmax.Settings(loss="softmax-average", encoder=str(static_folder), frozen=True)
    usual = train(data, settings)
    pairs = train(data, sigmax.Settings(**settings.as_dict() | {"draw": "one-positive"}))
    assert not torch.equal(usual.candidate_encoder.vectors, pairs.candidate_encoder.vectors)


@pytest.mark.slow
def test_a_comparison_solves_each_contender_once(static_folder):
    data = things(labels=True)
    settings = sigmax.Settings(encoder=str(static_folder), frozen=True)
    found = sigmax.compare(data, settings, contenders=["softmax-average", "sigmoid"])
    assert found.budget.runs == 1
    assert all(result.training.curve for result in found.results)


# -- n-grams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax-average", "sigmoid"])
def test_sparse_features_have_the_minimum_of_dense_ones(loss):
    x, right = problem("several")
    x = torch.where(x.abs() > x.abs().median(), x, 0.0)
    dense_one = fit_linear(x, right, loss, 0.01, tolerance=1e-14, steps=2000)
    sparse_one = fit_linear(sparse.csr_array(x.numpy().astype(np.float32)), right, loss, 0.01, tolerance=0, steps=500)
    assert sparse_one.value == pytest.approx(dense_one.value, rel=1e-5)
    np.testing.assert_allclose(sparse_one.weights, dense_one.weights, atol=2e-2)  # float32


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_penalty_of_n_grams_is_the_best_on_dev(noise):
    """Labels that are noise ask for the strongest."""
    random = np.random.default_rng(0)
    x = sparse.csr_array(sparse.random(400, 60, 0.2, rng=random, dtype=np.float32))
    truth = x.toarray() @ random.normal(size=(60, M)) * (1 - noise) + noise * random.normal(size=(400, M))
    right = sparse.csr_array((truth == truth.max(1, keepdims=True)).astype(np.int8))
    found = choose_penalty_on((x[300:], right[300:]), x[:300], right[:300], "softmax-average")
    strength = 1 / (found.penalty * 300)
    assert min(abs(strength - one) for one in STRENGTHS) < 1e-6
    assert (strength == pytest.approx(STRENGTHS[0])) == (noise == 1)


@pytest.mark.parametrize("loss", [*OBJECTIVES])
def test_n_grams_are_solved(loss, tmp_path):
    data = things(labels=True, unanswered=True)
    none = loss == "softmax-decoupled"
    model = train(data, sigmax.Settings(loss=loss, encoder="ngrams-linear", none_candidate=none))
    queries = [data.queries[i] for i in data.split("train")]
    logits = model.logits(queries, data.candidates)
    right = data.graph[data.split("train")].toarray().astype(bool)
    assert (logits.none is not None) == none
    best = logits.values.argmax(1)
    answered = right.any(1)
    assert right[answered, best[answered]].mean() > 0.9
    model.save(tmp_path / "model")
    again = sigmax.load(tmp_path / "model").logits(queries, data.candidates)
    np.testing.assert_array_equal(again.values, logits.values)
