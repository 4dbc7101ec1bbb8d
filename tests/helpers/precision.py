"""A kernel's numbers, and how far float32 may take them from the truth.

With u = eps / 2, first order in u, whatever the order of the sums:

- A logit is a sum of d products, scaled, with bias and shift added: off by at most e = (d + 4) u S, where S is the
  largest scale · Σ |qᵢ| |cᵢ| + |bias| + |shift|. A right pair's logit is that and no more.
- logsumexp: its derivatives are shares, which add up to 1, so A inherits at most e. The sum of k exponentials adds
  k u of itself, exponential and logarithm a few u: off by e + (k + 8) u (1 + |A|).
- softplus: its relative condition σ(s) / softplus(s) is at most 1.45 (1 where s → −∞), so each term is off by at most
  1.45 e of itself, and their sum by k u more.
- G = Σ gradient · act(s, A) with act = exp(s − A) or σ(s): a relative error of what the exponent is off, e from s, as
  much again and (k + 8) u from A, 2 u S from rounding s − A.
- A gradient by a vector is a sum of up to k products G · vector: (k + 4) u of the sum of their absolute values more.

What lies below the least normal number is lost: k of them to a sum. Here k = n + m, which is at least what is summed.
All weights below are positive, so that G has no terms that cancel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from helpers.oracles import Batch
from sigmax.families import Objective
from sigmax.kernels import Inputs, Problem, Reduction, reduce_given_logits, reduce_logits, working_dtype

__all__ = ["assert_within", "bounds", "gradient_bounds", "reduced"]


def reduced(
    kernel: str,
    batch: Batch,
    objective: Objective,
    columns: bool,
    *,
    scale: float = 3.0,
    bias: float | None = -1.0,
    shift: Tensor | None = None,
    device: str = "cpu",
) -> list[Tensor]:
    """Each part of a reduction, then its gradients for random weights of it; in float64 if the batch is."""
    working = working_dtype(batch.queries)
    leaves = [x.to(device) for x in (batch.queries, batch.candidates)]
    leaves += [torch.tensor(x, dtype=working, device=device) for x in (scale, bias) if x is not None]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    shift = None if shift is None else shift.to(device, working)
    parts = reduce_logits(Inputs(*leaves), Problem(batch.positives.to(device), objective, shift, columns), kernel)
    found = [part.detach() for part in parts if part is not None]
    return [x.cpu() for x in (*found, *torch.autograd.grad(_weighed(parts), leaves))]


def _weighed(parts: Reduction) -> Tensor:
    """A sum of the parts with positive weights; A of an empty row is −∞, which no loss looks at."""
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros(())
    for part in parts:
        if part is not None:
            weight = torch.rand(part.shape, generator=generator, dtype=torch.float64).to(part)
            total = total.to(part) + (weight * part)[part.detach().isfinite()].sum()
    return total


def bounds(
    batch: Batch,
    objective: Objective,
    columns: bool,
    *,
    scale: float = 3.0,
    bias: float | None = -1.0,
    shift: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """How far each number of `reduced` may be from the one in infinite precision."""
    u, tiny, (n, m) = torch.finfo(dtype).eps / 2, torch.finfo(dtype).tiny, batch.shape
    queries, candidates = batch.queries.double(), batch.candidates.double()
    added = (bias or 0.0) + (torch.zeros(m) if shift is None else shift).double()
    s = (scale * queries @ candidates.T + added).requires_grad_()
    parts = reduce_given_logits(s, Problem(batch.positives, objective, columns=columns))
    (gradient,) = torch.autograd.grad(_weighed(parts), s)
    e, k = _logit_error(queries, candidates, scale, added, u), n + m
    totals = [total.detach().abs() for total in parts[:2] if total is not None]
    if objective.partition.term == "softplus":
        of_totals = [(1.45 * e + (k + 8) * u) * total + k * tiny for total in totals]
    else:
        of_totals = [e + (k + 8) * u * (1 + total) for total in totals]
    by_inputs = gradient_bounds(gradient, queries, candidates, scale, added, dtype)
    return [*of_totals, torch.full_like(parts.pairs.detach(), e), *by_inputs[: 4 if bias is not None else 3]]


def gradient_bounds(
    gradient: Tensor, queries: Tensor, candidates: Tensor, scale: float, added: Tensor, dtype: torch.dtype
) -> list[Tensor]:
    """Of the gradients by queries, candidates, scale and bias, from G of positive terms."""
    u, tiny, k = torch.finfo(dtype).eps / 2, torch.finfo(dtype).tiny, sum(gradient.shape)
    e = _logit_error(queries, candidates, scale, added, u)
    relative = 2 * e + (k + 8) * u + 2 * e  # 2 u S is below e
    terms, left, right = gradient.abs() + tiny / u, queries.abs(), candidates.abs()
    sums = [scale * terms @ right, scale * terms.T @ left, (terms * (left @ right.T)).sum(), terms.sum()]
    return [(relative + (2 * k + 4) * u) * x for x in sums]


def _logit_error(queries: Tensor, candidates: Tensor, scale: float, added: Tensor, u: float) -> float:
    if not len(queries) or not len(candidates):
        return 0.0
    largest = (scale * queries.abs() @ candidates.abs().T + added.abs()).max().item()
    return (queries.shape[1] + 4) * u * largest


def assert_within(found: list[Tensor], truth: list[Tensor], bound: list[Tensor]) -> None:
    """Entry by entry; what is infinite in truth is so here."""
    assert len(found) == len(truth) == len(bound)
    for place, (ours, true, most) in enumerate(zip(found, truth, bound, strict=True)):
        assert ours.shape == true.shape == most.shape
        finite = true.isfinite()
        assert torch.equal(ours[~finite].double(), true[~finite]), place
        off = (ours.double() - true)[finite].abs()
        assert bool((off <= most[finite]).all()), (place, (off / most[finite]).max())
