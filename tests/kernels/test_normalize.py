"""Vectors of length 1: as in float64, for lengths whose squares no float holds too."""

import pytest
import torch

from sigmax.kernels.normalize import normalize


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-19, 1.0, 1.8e19, 1e25, 3e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_length(size, dtype):
    torch.manual_seed(0)
    x = (torch.rand(5, 7, dtype=torch.float64) * 2 - 1).mul_(size).to(dtype)
    x[2] = 0
    exact = x.double() / x.double().norm(dim=1, keepdim=True).masked_fill((x == 0).all(1, keepdim=True), torch.inf)
    torch.testing.assert_close(normalize(x).double(), exact, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("size", [1e-30, 1e25])
def test_the_gradient_of_any_length(size):
    torch.manual_seed(0)
    x = (torch.randn(4, 6) * size).requires_grad_()
    weights = torch.randn(4, 6)
    (normalize(x) * weights).sum().backward()
    wide = x.detach().double().requires_grad_()
    (torch.nn.functional.normalize(wide, eps=0) * weights).sum().backward()
    torch.testing.assert_close(x.grad.double() * size, wide.grad * size, rtol=1e-5, atol=1e-6)


def test_among_ordinary_rows():
    x = torch.tensor([[3.0, 4.0], [3e20, 4e20], [0.0, 0.0], [3e-30, 4e-30]])
    expected = torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.0, 0.0], [0.6, 0.8]])
    torch.testing.assert_close(normalize(x), expected)
