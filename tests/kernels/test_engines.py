"""Engines and partitions that are not Sigmax's own: right, or refused with a reason."""

import math
from dataclasses import replace

import pytest
import torch

from helpers import oracles
from helpers.precision import reduced
from sigmax import SoftmaxLoss, kernels
from sigmax.families import OBJECTIVES, Objective, Partition, sum_by_row
from sigmax.kernels import Inputs, Problem, dispatch, tiled
from sigmax.kernels.tiled import Tiled
from sigmax.losses import MatchLoss

#: Two that no engine has a loop for: A = Σ exp sⱼ, whose act is not bounded, and A = ½ log Σ exp 2sⱼ, which needs A.
POISSON = Partition(
    name="poisson",
    reduce=lambda s, dim: s.exp().sum(dim),
    combine=torch.add,
    act=lambda s, _: s.exp(),
    empty=0.0,
)
COLD = Partition(
    name="cold",
    reduce=lambda s, dim: (2 * s).logsumexp(dim) / 2,
    combine=lambda one, other: torch.logaddexp(2 * one, 2 * other) / 2,
    act=lambda s, total: (2 * (s - total.masked_fill(total == -math.inf, 0.0))).exp(),
    empty=-math.inf,
)


def of(partition, against="all", **fields):
    return Objective(
        name=f"sigmoid-{partition.name}",
        family="sigmoid",
        formula="Lᵢ = A(sᵢ) − Σ_{p∈Pᵢ} sᵢₚ",
        partition=partition,
        against=against,
        row_loss=lambda total, s, rows, counts: total.clamp(min=-50) - sum_by_row(s, rows, len(total)),
        floor=torch.zeros_like,
        summary="a test's own",
        **fields,
    )


third = pytest.mark.parametrize("partition", [POISSON, COLD], ids=lambda partition: partition.name)


@third
@pytest.mark.parametrize("columns", [False, True], ids=["rows", "both"])
@pytest.mark.parametrize("against", ["all", "wrong"])
@pytest.mark.parametrize("scale", [0.5, 10.0])
def test_a_third_partition_in_tiles(partition, columns, against, scale, monkeypatch):
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(3, 4))
    batch = oracles.random_batch(7, 9)
    batch.cells[0], batch.cells[1], batch.cells[2] = 0, 1, 2
    ours, truth = (
        reduced(kernel, batch, of(partition, against), columns, scale=scale) for kernel in ("tiled", "dense")
    )
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@third
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_loss_of_a_third_partition(partition, reduction, monkeypatch):
    """In one pass, and in two."""
    monkeypatch.setattr(tiled, "_tile", oracles.tiles_of(3, 4))
    batch = oracles.random_batch(7, 9)
    found = []
    for kernel in ("dense", "tiled"):
        loss = MatchLoss(
            of(partition),
            2.0,
            -1.0,
            learnable=True,
            similarity="cosine",
            directions="queries",
            reduction=reduction,
            kernel=kernel,
        ).double()
        leaves = batch.leaves()
        value = loss(*leaves, batch.positives)
        found.append([value.detach(), *torch.autograd.grad(value.sum(), [*leaves, *loss.parameters()])])
    torch.testing.assert_close(found[1], found[0], rtol=1e-11, atol=1e-12)


@third
def test_triton_refuses_a_third_partition(partition):
    with pytest.raises(ValueError, match=rf"triton: it has no loop for the partition '{partition.name}'"):
        reduced("triton", oracles.random_batch(3, 4), of(partition), False)


@pytest.mark.parametrize("kernel", ["tiled", "triton"])
def test_a_loss_that_is_not_linear_in_a(kernel):
    """Lᵢ = (Aᵢ − Σ sᵢₚ)² of the sigmoid's A: ∂L/∂A is not known before A is, so one pass cannot do."""

    def squared(total, s, rows, counts):
        return (total - sum_by_row(s, rows, len(total))) ** 2

    objective = replace(OBJECTIVES["sigmoid"], name="sigmoid-squared", row_loss=squared, linear=False)
    batch = oracles.random_batch(3, 4)
    vectors = batch.queries.float(), batch.candidates.float()
    problem = Problem(batch.positives, objective)
    if kernel == "triton" and dispatch.Triton().missing(Inputs(*vectors, torch.ones(())), problem):
        pytest.skip("Triton cannot run here")
    found = []
    for name in ("dense", kernel):
        leaves = [*(x.clone().requires_grad_() for x in vectors), torch.tensor(0.7, requires_grad=True)]
        value = kernels.weighted_loss(Inputs(*leaves), problem, torch.ones(3), name)
        found.append([value.detach(), *torch.autograd.grad(value, leaves)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)


# -- an engine from elsewhere --------------------------------------------------------------------


class Mine(Tiled):
    """An engine of another package: it counts what it is asked."""

    name = "mine"

    def __init__(self, reason=None):
        self.reason, self.asked = reason, 0

    def missing(self, inputs, problem):
        return self.reason

    def weighted_loss(self, *given):
        self.asked += 1
        return super().weighted_loss(*given)


@pytest.fixture
def mine(monkeypatch):
    engine = Mine()
    monkeypatch.setattr(dispatch, "ENGINES", [engine, dispatch.Triton(), Tiled()])
    monkeypatch.setattr(dispatch, "DENSE_PAIRS", 0)
    dispatch._tell.cache_clear()
    return engine


def value(kernel="auto"):
    batch = oracles.random_batch(5, 7)
    return SoftmaxLoss(kernel=kernel)(batch.queries.float(), batch.candidates.float(), batch.positives).item()


def test_an_engine_from_elsewhere(mine):
    expected = value("tiled")
    assert mine.asked == 0
    assert value("mine") == value("auto") == expected
    assert mine.asked == 2
    with pytest.raises(ValueError, match=r"`kernel` to be one of auto, dense, mine, tiled, triton, got 'mien'.*'mine'"):
        SoftmaxLoss(kernel="mien")


def test_an_engine_that_cannot_says_why(mine, caplog):
    mine.reason = "it is Sunday"
    with caplog.at_level("INFO", logger="sigmax"):
        assert value("auto") == value("tiled")
    assert caplog.messages == ["The kernel 'tiled' is used instead of 'mine', which is faster: it is Sunday."]
    with pytest.raises(ValueError, match=r"got 'mine'.*\n  mine: it is Sunday\n  triton: .*\n  tiled: can run here"):
        value("mine")


def test_auto_takes_an_engine_for_its_device_only(mine, monkeypatch):
    monkeypatch.setattr(mine, "device", "cuda", raising=False)
    assert value("auto") == value("tiled")
    assert mine.asked == 0
