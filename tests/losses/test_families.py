import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from helpers import oracles
from sigmax import Positives
from sigmax.families import (
    LOGSUMEXP,
    OBJECTIVES,
    SOFTPLUS,
    directed_loss,
    excluded_logits,
    logsumexp_by_row,
    sum_by_row,
)
from sigmax.losses import make_loss

PARTITIONS = [LOGSUMEXP, SOFTPLUS]
partitions = pytest.mark.parametrize("partition", PARTITIONS, ids=lambda partition: partition.name)
objectives = pytest.mark.parametrize("name", list(OBJECTIVES))

logits = st.lists(st.floats(-30, 30), min_size=1, max_size=8).map(lambda row: torch.tensor([row], dtype=torch.float64))


# -- partitions ----------------------------------------------------------------------------------


def test_logsumexp():
    s = [0.5, -2.0, 3.0]
    expected = math.log(sum(math.exp(x) for x in s))
    assert LOGSUMEXP.reduce(torch.tensor([s], dtype=torch.float64), 1).item() == pytest.approx(expected, rel=1e-15)


def test_softplus():
    s = [0.5, -2.0, 3.0]
    expected = sum(math.log(1 + math.exp(x)) for x in s)
    assert SOFTPLUS.reduce(torch.tensor([s], dtype=torch.float64), 1).item() == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("x", [-800.0, -40.0, 0.0, 19.9, 20.1, 37.0, 800.0])
def test_softplus_is_exact_everywhere(x):
    expected = max(x, 0.0) + math.log1p(math.exp(-abs(x)))
    assert SOFTPLUS.reduce(torch.tensor([[x]], dtype=torch.float64), 1).item() == pytest.approx(expected, rel=1e-15)


@partitions
@given(left=logits, right=logits)
def test_tiles_combine(partition, left, right):
    whole = partition.reduce(torch.cat([left, right], 1), 1)
    torch.testing.assert_close(partition.combine(partition.reduce(left, 1), partition.reduce(right, 1)), whole)
    empty = torch.full_like(whole, partition.empty)
    torch.testing.assert_close(partition.combine(whole, empty), whole, rtol=0, atol=0)
    torch.testing.assert_close(partition.combine(empty, empty), empty, rtol=0, atol=0)


@partitions
@given(s=logits)
def test_act_is_the_derivative_of_a(partition, s):
    s.requires_grad_()
    total = partition.reduce(s, 1)
    (slope,) = torch.autograd.grad(total.sum(), s)
    torch.testing.assert_close(partition.act(s, total[:, None]), slope)


@partitions
def test_an_excluded_pair_takes_part_in_nothing(partition):
    s = torch.tensor([[1.0, -math.inf, 2.0]])
    total = partition.reduce(s, 1)
    torch.testing.assert_close(total, partition.reduce(s[:, [0, 2]], 1))
    assert partition.act(s, total[:, None])[0, 1] == 0


@partitions
def test_a_row_of_excluded_pairs_is_an_empty_row(partition):
    s = torch.full((1, 3), -math.inf)
    total = partition.reduce(s, 1)
    assert total.item() == partition.empty
    assert partition.act(s, total[:, None]).tolist() == [[0.0, 0.0, 0.0]]


# -- sums by row ---------------------------------------------------------------------------------


def test_sums_by_row():
    values, rows = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2])
    assert sum_by_row(values, rows, 4).tolist() == [1.0, 0.0, 6.0, 0.0]
    expected = torch.tensor([1.0, -math.inf, math.log(math.exp(2) + math.exp(4)), -math.inf])
    torch.testing.assert_close(logsumexp_by_row(values, rows, 4), expected)


def test_logsumexp_by_row_does_not_overflow():
    values, rows = torch.tensor([5e4, 5e4, -5e4]), torch.tensor([0, 0, 1])
    torch.testing.assert_close(logsumexp_by_row(values, rows, 2), torch.tensor([5e4 + math.log(2), -5e4]))


def test_logsumexp_by_row_gradient():
    values = torch.randn(5, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([0, 0, 2, 2, 2])
    assert torch.autograd.gradcheck(lambda v: logsumexp_by_row(v, rows, 4)[[0, 2]], values)


# -- objectives ----------------------------------------------------------------------------------


@objectives
def test_definition(name):
    which = OBJECTIVES[name]
    assert which.name == name
    assert which.family in ("softmax", "sigmoid")
    assert which.against in ("all", "wrong")
    assert which.formula.startswith("Lᵢ = ")
    assert which.summary[0].islower()
    assert "\n" not in which.summary


def test_a_new_entry_is_what_is_trained(monkeypatch):
    for name in ("softmax-decoupled", "sigmoid"):
        entry = replace(OBJECTIVES[name], name=f"{name}-new")
        monkeypatch.setitem(OBJECTIVES, entry.name, entry)
        assert make_loss(entry.name, logit_scale=1.0, logit_bias=0.0).objective is entry


def test_unknown_objective():
    with pytest.raises(ValueError, match=r"`loss` to be one of .*softmax-decoupled.*'softmax-averge'\. Did you mean '"):
        make_loss("softmax-averge", logit_scale=1.0, logit_bias=0.0)


@objectives
def test_floor(name):
    counts = torch.tensor([1.0, 2.0, 7.0], dtype=torch.float64)
    expected = torch.tensor([oracles.FLOORS[name](int(k)) for k in counts], dtype=torch.float64)
    torch.testing.assert_close(OBJECTIVES[name].floor(counts), expected)


def value(name, s, positives):
    which = OBJECTIVES[name]
    total = which.partition.reduce(excluded_logits(which, s, positives), 1)
    return directed_loss(which, total, s[positives.rows, positives.columns], positives.rows, positives.counts)


@objectives
@given(batch=oracles.batches(smallest=1))
def test_definition_equals_oracle(name, batch):
    s = batch.queries @ batch.candidates.T
    losses, counted = value(name, s, batch.positives)
    expected = oracles.row_losses(name, s.tolist(), batch.shape, batch.right, batch.ignored)
    assert counted.tolist() == [x is not None for x in expected]
    assert losses.tolist() == pytest.approx([x or 0.0 for x in expected], rel=1e-12, abs=1e-12)


def floors(name, positives):
    return OBJECTIVES[name].floor(positives.counts.clamp(min=1).double())


@objectives
@given(batch=oracles.batches(smallest=1), scale=st.floats(0.1, 30))
def test_floor_is_never_undercut(name, batch, scale):
    losses, counted = value(name, scale * batch.queries @ batch.candidates.T, batch.positives)
    assert (losses >= floors(name, batch.positives) - 1e-12 * scale)[counted].all()


@objectives
@given(batch=oracles.batches(smallest=1))
def test_floor_is_reached_in_the_limit(name, batch):
    losses, counted = value(name, torch.where(batch.cells == 1, 50.0, -50.0).double(), batch.positives)
    torch.testing.assert_close(losses[counted], floors(name, batch.positives)[counted], rtol=0, atol=1e-12)


def test_softmax_of_several_cannot_fall_below_log_k():
    s = torch.tensor([[50.0, 50.0, -50.0]], dtype=torch.float64)
    (loss,), _ = value("softmax-average", s, Positives([0, 0], [0, 1], (1, 3)))
    assert loss.item() == pytest.approx(math.log(2))


# -- ∂L/∂s = act(s) − y --------------------------------------------------------------------------


def slope(name, s, positives):
    s = s.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(name, s, positives)[0].sum(), s)
    return gradient


#: y of the law: what the right answers (a bool mask) and the logits of a row are pulled towards
TARGETS = {
    "softmax-average": lambda s, right: right.double() / right.sum(1, keepdim=True),
    "softmax-any": lambda s, right: s.masked_fill(~right, -math.inf).softmax(1),
    "sigmoid": lambda s, right: right.double(),
}


@pytest.mark.parametrize("name", list(TARGETS))
@given(batch=oracles.batches(smallest=1))
def test_gradient_is_act_minus_target(name, batch):
    s, right, ignored = 3 * batch.queries @ batch.candidates.T, batch.cells == 1, batch.cells == 2
    act = s.masked_fill(ignored, -math.inf).softmax(1) if OBJECTIVES[name].family == "softmax" else s.sigmoid()
    expected = (act - TARGETS[name](s, right)).masked_fill(ignored, 0.0)
    if OBJECTIVES[name].needs_positive:
        expected[~right.any(1)] = 0.0
    torch.testing.assert_close(slope(name, s, batch.positives), expected, rtol=1e-12, atol=1e-14)


@objectives
@given(batch=oracles.batches(smallest=1))
def test_wrong_answers_are_pushed_away_and_ignored_ones_left_alone(name, batch):
    gradient = slope(name, 3 * batch.queries @ batch.candidates.T, batch.positives)
    assert (gradient[batch.cells == 0] >= 0).all()
    assert (gradient[batch.cells == 2] == 0).all()


@objectives
def test_only_the_softmax_is_blind_to_a_common_shift(name):
    batch = oracles.random_batch(5, 7, seed=1)
    s = batch.queries @ batch.candidates.T
    shift = torch.linspace(-3, 3, 5, dtype=torch.float64)[:, None]
    before, counted = value(name, s, batch.positives)
    after, _ = value(name, s + shift, batch.positives)
    if OBJECTIVES[name].family == "softmax":
        torch.testing.assert_close(after, before, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(slope(name, s, batch.positives).sum(1), torch.zeros(5).double(), rtol=0, atol=1e-14)
    else:
        assert ((after - before).abs() > 0.1)[counted & (shift[:, 0] != 0)].all()


# -- against others ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if OBJECTIVES[name].family == "softmax"])
def test_one_right_answer_is_cross_entropy(name):
    s = torch.randn(6, 9, dtype=torch.float64)
    target = torch.tensor([3, 0, 8, 8, 1, 4])
    losses, _ = value(name, s, Positives(range(6), target, (6, 9)))
    torch.testing.assert_close(losses, F.cross_entropy(s, target, reduction="none"), rtol=1e-12, atol=0)


def test_average_is_cross_entropy_with_soft_targets():
    batch = oracles.random_batch(6, 9, odds=(0.5, 0.5, 0.0))
    s, right = batch.queries @ batch.candidates.T, (batch.cells == 1).double()
    losses, _ = value("softmax-average", s, batch.positives)
    expected = F.cross_entropy(s, right / right.sum(1, keepdim=True), reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)


def test_sigmoid_is_binary_cross_entropy():
    batch = oracles.random_batch(6, 9, odds=(0.6, 0.4, 0.0))
    s = 5 * batch.queries @ batch.candidates.T
    losses, _ = value("sigmoid", s, batch.positives)
    expected = F.binary_cross_entropy_with_logits(s, (batch.cells == 1).double(), reduction="none").sum(1)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)
