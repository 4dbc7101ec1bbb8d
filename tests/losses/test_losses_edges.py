import math

import pytest
import torch

from sigmax import Positives, SigmoidLoss, SoftmaxLoss

kernels = pytest.mark.parametrize("kernel", ["dense", "tiled"])


@kernels
def test_nan_in_a_query_without_right_answers(kernel):
    queries = torch.ones(3, 4)
    queries[2] = math.nan
    with pytest.raises(ValueError, match="in 1 of 3 `queries`"):
        SoftmaxLoss(kernel=kernel)(queries, torch.ones(3, 4), Positives([0, 1], [0, 1], (3, 3)))


@kernels
@pytest.mark.parametrize("loss", [SoftmaxLoss, SigmoidLoss])
def test_nan_in_an_ignored_candidate(loss, kernel):
    candidates = torch.ones(3, 4)
    candidates[2] = math.nan
    positives = Positives([0, 1], [0, 1], (3, 3), ignored=([0, 1, 2], [2, 2, 2]))
    with pytest.raises(ValueError, match="in 1 of 3 `candidates`"):
        loss(kernel=kernel)(torch.ones(3, 4), candidates, positives)


def test_nan_logits_of_a_query_without_right_answers():
    with pytest.raises(ValueError, match="got 2 NaN"):
        SoftmaxLoss().from_logits(torch.tensor([[0.0, 0.0], [math.nan, math.nan]]), Positives([0], [0], (2, 2)))


@kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_zero_vector(kernel, dtype):
    queries = torch.eye(3, 4, dtype=dtype)
    queries[0] = 0
    queries.requires_grad_()
    value = SoftmaxLoss(kernel=kernel)(queries, torch.eye(3, 4, dtype=dtype), Positives([0, 1], [0, 1], (3, 3)))
    value.backward()
    assert value.isfinite()
    assert (queries.grad[0] == 0).all()
    assert queries.grad.isfinite().all()


@kernels
def test_log_q_follows_the_vectors_dtype(kernel):
    x = torch.eye(2)
    value = SoftmaxLoss(kernel=kernel)(x, x, Positives([0], [0], (2, 2)), candidate_log_q=torch.zeros(2).double())
    assert value.dtype == torch.float32


@kernels
def test_autocast_leaves_float64_alone(kernel):
    x = torch.randn(3, 4).double()
    loss = SoftmaxLoss(kernel=kernel)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(x, x, Positives([0], [0], (3, 3)))
    torch.testing.assert_close(value, loss(x, x, Positives([0], [0], (3, 3))))


@pytest.mark.parametrize("kind", [None, 3, Positives([0], [0], (1, 1))])
def test_a_name_of_another_type(kind):
    with pytest.raises(ValueError, match="`positives` to be one of any, average, decoupled, pairs"):
        SoftmaxLoss(positives=kind)
