"""L-BFGS along a path of penalties, and the coordinates in which it goes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import minimize

from sigmax.losses import make_loss
from sigmax.positives import Positives
from sigmax.training.lbfgs import Lbfgs
from sigmax.training.problem import AXES, ORDER, HeldOut, Problem, coordinates_of

K, M = 6, 3


def quadratic(seed=0):
    """g(θ) = ½ tr θᵀAθ − tr Bᵀθ, whose Hessian is far from a multiple of the identity; A, B and g with its gradient."""
    random = torch.Generator().manual_seed(seed)
    turned = torch.linalg.qr(torch.randn(K, K, generator=random, dtype=torch.float64)).Q
    a = turned @ torch.diag(10.0 ** torch.linspace(-3, 2, K, dtype=torch.float64)) @ turned.T
    b = torch.randn(K, M, generator=random, dtype=torch.float64)

    def slope(theta):
        return float((theta * (a @ theta / 2 - b)).sum()), a @ theta - b

    return a, b, slope


def column(value):
    """The last row is free, as biases are."""
    return torch.tensor([value] * (K - 1) + [0.0], dtype=torch.float64)[:, None]


@pytest.mark.parametrize("wrong_by", [1.0, 1e5, 1e-5])
def test_the_minimum_of_each_penalty(wrong_by):
    """Whatever the scale of the steps is believed to be."""
    a, b, slope = quadratic()
    solver = Lbfgs(slope, torch.zeros(K, M, dtype=torch.float64), memory=2 * K * M)
    for value in (10.0, 0.1, 0.001, 1.0):
        penalty = column(value)
        scale = wrong_by / (a.diag()[:, None] + penalty).expand(K, M)
        solver.go(penalty, lambda scale=scale: scale.mul, tolerance=1e-15, steps=500)
        expected = torch.linalg.solve(a + torch.diag(penalty[:, 0]), b)
        torch.testing.assert_close(solver.at, expected, rtol=1e-4, atol=1e-4)
        f = slope(expected)[0] + 0.5 * float((penalty * expected.square()).sum())
        assert solver.value == pytest.approx(f, rel=1e-9)


def test_what_it_remembers_is_of_the_new_penalty():
    a, _, slope = quadratic()
    solver = Lbfgs(slope, torch.zeros(K, M, dtype=torch.float64), memory=4)
    ones = torch.ones(K, M, dtype=torch.float64)
    for value in (0.5, 0.01, 2.0):
        penalty = column(value)
        solver.go(penalty, lambda: ones.mul, tolerance=0.0, steps=6)
        assert 0 < len(solver._remembered) <= 4
        for step, bent in solver._remembered:
            torch.testing.assert_close(bent, a @ step + penalty * step)


def test_steps_are_counted_and_told():
    _, _, slope = quadratic()
    solver = Lbfgs(slope, torch.zeros(K, M, dtype=torch.float64))
    told = []
    for steps in (5, 7):
        solver.go(
            column(0.1),
            lambda: torch.ones(K, M, dtype=torch.float64).mul,
            tolerance=0.0,
            steps=steps,
            told=lambda step, value: told.append((step, value)),
        )
    assert [step for step, _ in told] == list(range(1, solver.steps + 1))
    assert solver.steps <= 12
    assert solver.value == pytest.approx(min(value for _, value in told))


def test_a_warm_path_takes_fewer_steps_than_cold_starts():
    _, _, slope = quadratic()
    path = [10.0 ** (-k / 2) for k in range(8)]
    ones = torch.ones(K, M, dtype=torch.float64)
    warm = Lbfgs(slope, torch.zeros(K, M, dtype=torch.float64), memory=2 * K * M)
    cold = 0
    for value in path:
        warm.go(column(value), lambda: ones.mul, tolerance=1e-6, steps=100)
        one = Lbfgs(slope, torch.zeros(K, M, dtype=torch.float64), memory=2 * K * M)
        one.go(column(value), lambda: ones.mul, tolerance=1e-6, steps=100)
        cold += one.steps
    assert warm.steps < cold / 2


@given(st.integers(0, 2**31 - 1))
def test_columns_alike_are_one(seed):
    """Logits and |W|² are the same in both coordinates, and what one column says is said by its multiples alike."""
    random = np.random.default_rng(seed)
    kinds = sparse.random(8, 5, 0.4, rng=random, format="csc", dtype=np.float32)
    kinds = kinds[:, np.diff(kinds.indptr) > 1]  # of one row alone all are multiples
    which = random.integers(0, max(1, kinds.shape[1]), 12)
    times = 2.0 ** random.integers(-2, 3, 12)  # powers of two: exact
    x = np.zeros((8, 16), np.float32)
    if kinds.shape[1]:
        x[:, :12] = kinds.toarray()[:, which] * times
    x[3, 12:15] = [0.5, 2.0, 7.0]
    features = sparse.csr_array(x)
    coordinates = coordinates_of(features)
    held = coordinates.inward(features)
    k = len(coordinates.power)
    assert k == len(np.unique(which)) * (kinds.shape[1] > 0) + 3  # what row 3 alone has, what none has, and the 1
    theta = torch.from_numpy(random.normal(size=(k, M)).astype(np.float32))
    empty = torch.from_numpy(np.diff(held.T.matrix.indptr)[:-1] == 0)
    theta[:-1][empty] = 0  # what no query has
    weights, biases = coordinates.outward(theta)
    np.testing.assert_allclose(held @ theta, features @ weights.T.numpy() + biases.numpy(), rtol=1e-5, atol=1e-4)
    assert float(weights.square().sum()) == pytest.approx(float(theta[:-1].square().sum()), rel=1e-5)
    np.testing.assert_allclose(coordinates.weights(weights, biases), theta, rtol=1e-5, atol=1e-6)
    for j in range(3):
        np.testing.assert_allclose(weights[j, 12:15] / weights[j, 13], [0.25, 1.0, 3.5], rtol=1e-5)


@pytest.mark.parametrize("penalty", [1e-4, 1.0])
def test_the_scale_of_sparse_features_knows_their_axes(penalty):
    """It inverts h (V S Vᵀ + ρ (1 − V Vᵀ)) + λ, label by label; V and S are those of the features."""
    random = np.random.default_rng(0)
    strong = sparse.csr_array((random.random((120, 90)) < 0.05) * random.random(90) ** 4 * 10)
    right = sparse.csr_array(np.eye(M, dtype=np.int8)[random.integers(0, M, 120)])
    coordinates = coordinates_of(sparse.csr_array(strong.astype(np.float32)))
    held = coordinates.inward(sparse.csr_array(strong.astype(np.float32)))
    x = held.matrix.toarray().astype(np.float64)
    values, vectors = np.linalg.eigh(x.T @ x / 120)
    found = coordinates.axes
    np.testing.assert_allclose(found.power[:8, 0], values[::-1][:8], rtol=0.02)  # drawn, not exact
    assert found.rest == pytest.approx((np.trace(x.T @ x) / 120 - float(found.power.sum())) / (min(x.shape) - AXES))
    assert abs(float(found.directions[:, 0] @ torch.from_numpy(vectors[:, -1]).float())) > 0.999
    problem = Problem(held, right, "sigmoid", coordinates)
    problem.slope(problem.start())
    theta = torch.from_numpy(random.normal(size=(x.shape[1], M)).astype(np.float32))
    scaled = problem.scale(penalty)(theta)
    v, s = found.directions.double(), found.power.double()
    for j, h in enumerate(problem.curvature.double()):
        hessian = h * (v @ (s * v.T) + found.rest * (torch.eye(len(v)) - v @ v.T)) + penalty * torch.eye(len(v))
        torch.testing.assert_close(hessian @ scaled[:, j].double(), theta[:, j].double(), atol=1e-2, rtol=1e-2)


def test_principal_axes_turn_and_come_back():
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.normal(size=(30, K)) * 10.0 ** np.arange(K) + 3)
    coordinates = coordinates_of(x)
    held = coordinates.inward(x)
    assert (held[:, -1] == 1).all()
    products = held[:, :-1].T @ held[:, :-1] / 30
    scale = coordinates.power[:-1].sqrt()
    torch.testing.assert_close(
        products / torch.outer(scale, scale), torch.eye(K, dtype=torch.float64), atol=1e-4, rtol=0
    )
    theta = torch.from_numpy(random.normal(size=(K + 1, M)))
    weights, biases = coordinates.outward(theta)
    torch.testing.assert_close(x @ weights.T + biases, held @ theta)
    torch.testing.assert_close(coordinates.weights(weights, biases), theta)


@pytest.mark.parametrize("loss", ["sigmoid", "softmax-decoupled"])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_held_out_is_measured_by_its_own_loss_and_by_the_order(weighted, loss):
    """Each at the best scale and bias, found here by another solver; a scale that is already in the logits is free."""
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.normal(size=(60, K)))
    theta = torch.from_numpy(random.normal(size=(K, M)))
    right = (x @ theta + torch.from_numpy(random.gumbel(size=(60, M)))).numpy() > 1
    right[right.any(1).argmin()] = False  # a query without an answer counts for presences alone
    weights = torch.from_numpy(random.random(60)) if weighted else None
    positives, expected = Positives.from_dense(torch.from_numpy(right)), 0.0
    for name in {loss, ORDER}:
        objective = make_loss(name, logit_scale=1.0, logit_bias=0.0)
        objective.reduction = "none"

        def mean(at, objective=objective):
            losses = objective.from_logits(at[0] * (x @ theta) + at[1], positives)
            return float((losses if weights is None else losses * weights).mean())

        expected += math.log(minimize(mean, [1.0, 0.0]).fun)
    for scale in (1.0, 0.2, 4.0):
        found = HeldOut(x, sparse.csr_array(right.astype(np.int8)), loss, weights)
        assert found.loss(scale * theta) == pytest.approx(expected, abs=2e-3)
        assert found.loss(scale * theta) == pytest.approx(expected, abs=1e-3), "from where it was"
