r"""The law of both families: what each loss *is*, dense and readable.

Scores s = logit_scale · ⟨query, candidate⟩ + logit_bias. For query i with target row yᵢ over the candidates

    L = Σᵢ [ A(sᵢ) − ⟨yᵢ, sᵢ⟩ ],        ∂L/∂s = act(s) − y,        act = A′

A is logsumexp for the softmax family and Σⱼ softplus(sᵢⱼ) for the sigmoid. Everything else in Sigmax (kernels,
losses, tests, the tables in the documentation) reads the definitions of this file, and a new loss is one more
entry of `OBJECTIVES`.

An excluded pair has the logit −∞: exp(−∞) = softplus(−∞) = σ(−∞) = 0, so it takes part in nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sigmax.positives import Positives

__all__ = ["LOGSUMEXP", "OBJECTIVES", "SOFTPLUS", "Objective", "Partition", "directed_loss", "excluded_logits"]


# -- A and act ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Partition:
    """The A of the law, and its derivative.

    A over a union of disjoint tiles is `combine` of the tiles' A, so one engine serves both families.
    """

    name: str
    reduce: Callable[[Tensor, int], Tensor]  #: (n, m) logits, dim -> A along dim
    combine: Callable[[Tensor, Tensor], Tensor]  #: A of two disjoint tiles -> A of their union
    act: Callable[[Tensor, Tensor], Tensor]  #: logits, A broadcast to them -> ∂A/∂s
    empty: float  #: A over no candidates


def _softplus(logits: Tensor) -> Tensor:
    """log(1 + eˢ) = −log σ(−s), exact everywhere (F.softplus turns linear at 20, an error of 2·10⁻⁹)."""
    return -F.logsigmoid(-logits)


def _softmax(logits: Tensor, total: Tensor) -> Tensor:
    """exp(s − A); a row without candidates has A = −∞ and no share to give."""
    return (logits - total.masked_fill(total == -math.inf, 0.0)).exp()


LOGSUMEXP = Partition("logsumexp", lambda s, dim: s.logsumexp(dim), torch.logaddexp, _softmax, -math.inf)
SOFTPLUS = Partition("softplus", lambda s, dim: _softplus(s).sum(dim), torch.add, lambda s, _: s.sigmoid(), 0.0)


# -- sums over each query's right answers --------------------------------------------------------


def sum_by_row(values: Tensor, rows: Tensor, n: int) -> Tensor:
    """(k,) values, (k,) rows -> (n,): Σ of the values of each row; 0 for a row without any."""
    return values.new_zeros(n).index_add(0, rows, values)


def logsumexp_by_row(values: Tensor, rows: Tensor, n: int) -> Tensor:
    """(k,) values, (k,) rows -> (n,): log Σ exp of the values of each row; −∞ for a row without any."""
    peak = values.new_full((n,), -math.inf).scatter_reduce(0, rows, values.detach(), "amax")
    peak = peak.masked_fill(peak == -math.inf, 0.0)
    return sum_by_row((values - peak[rows]).exp(), rows, n).log() + peak


# -- the objectives ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """One loss, as a definition.

    The loss of query i is `row_loss(A, s, rows, counts)[i]`: from A over the candidates it is compared with,
    and from the logits s of its right answers alone.
    """

    name: str
    family: str  #: "softmax" or "sigmoid"
    formula: str
    partition: Partition
    against: str  #: A runs over "all" candidates offered, or over the "wrong" ones only
    row_loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  #: (n,) A, (k,) s, (k,) rows, (n,) |P| -> (n,)
    floor: Callable[[Tensor], Tensor]  #: (n,) |P| -> (n,) the smallest value a query's loss can have
    summary: str  #: one line for --help

    @property
    def needs_positive(self) -> bool:
        """Whether a query with no right answer means nothing to this loss and is left out."""
        return self.family == "softmax"

    def counted(self, counts: Tensor) -> Tensor:
        """(n,) |P| -> (n,) bool: the queries that have a loss."""
        return counts > 0 if self.needs_positive else torch.ones_like(counts, dtype=torch.bool)

    def __reduce__(self) -> tuple[Callable[[str], Objective], tuple[str]]:
        """Pickle the name: what it stands for is code."""
        return _named, (self.name,)


def _named(name: str) -> Objective:
    return OBJECTIVES[name]


def _average(total: Tensor, s: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    return total - sum_by_row(s, rows, len(total)) / counts


def _decoupled(total: Tensor, s: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    return sum_by_row(_softplus(total[rows] - s), rows, len(total)) / counts


def _any(total: Tensor, s: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    return total - logsumexp_by_row(s, rows, len(total))


def _sigmoid(total: Tensor, s: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    return total - sum_by_row(s, rows, len(total))


OBJECTIVES: dict[str, Objective] = {
    entry.name: entry
    for entry in (
        Objective(
            "softmax-average",
            "softmax",
            "Lᵢ = logsumexpⱼ(sᵢⱼ) − (1/|Pᵢ|) Σ_{p∈Pᵢ} sᵢₚ",
            LOGSUMEXP,
            "all",
            _average,
            lambda counts: counts.log(),
            "each query over all candidates, target 1/k for each of its k right answers",
        ),
        Objective(
            "softmax-decoupled",
            "softmax",
            "Lᵢ = −(1/|Pᵢ|) Σ_{p∈Pᵢ} log[ exp sᵢₚ / (exp sᵢₚ + Σ_{j wrong} exp sᵢⱼ) ]",
            LOGSUMEXP,
            "wrong",
            _decoupled,
            torch.zeros_like,
            "each right answer against the wrong ones only",
        ),
        Objective(
            "softmax-any",
            "softmax",
            "Lᵢ = −log Σ_{p∈Pᵢ} softmaxₚ(sᵢ)",
            LOGSUMEXP,
            "all",
            _any,
            torch.zeros_like,
            "at least one right answer on top",
        ),
        Objective(
            "sigmoid",
            "sigmoid",
            "Lᵢ = Σⱼ softplus(sᵢⱼ) − Σ_{p∈Pᵢ} sᵢₚ",
            SOFTPLUS,
            "all",
            _sigmoid,
            torch.zeros_like,
            "every pair on its own: right or wrong; a query with no right answer counts too",
        ),
    )
}


def directed_loss(which: Objective, total: Tensor, s: Tensor, rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each query from A and the logits of its right answers, and which queries count.

    A query left out (no right answer, in the softmax family) has the loss 0.

    Args:
        which: the objective.
        total: (n,) A over the candidates each query is compared with.
        s: (k,) logits of the right pairs.
        rows: (k,) query of each right pair.
        counts: (n,) right answers of each query.

    Returns:
        (n,) losses and (n,) bool, true for the queries that count.
    """
    counted = which.counted(counts)
    # A row that is left out may hold ±∞ − ±∞; it must give neither a value nor a gradient.
    total = total.masked_fill(~counted, 0.0)
    losses = which.row_loss(total, s, rows, counts.clamp(min=1).to(total.dtype))
    return losses.masked_fill(~counted, 0.0), counted


def excluded_logits(which: Objective, logits: Tensor, positives: Positives) -> Tensor:
    """(n, m) logits with −∞ where A does not look: ignored pairs and, `against` the wrong ones only, right pairs."""
    mask = positives.ignored_to_dense()
    if which.against == "wrong":
        mask = mask | positives.to_dense()
    return logits.masked_fill(mask, -math.inf)
