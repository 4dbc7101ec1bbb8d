r"""SoftmaxLoss and SigmoidLoss: the objectives of `families` as modules over embeddings.

Both take (queries, candidates, positives), or (logits, positives) through `from_logits`, and share all that
surrounds the objective: similarity, scale, bias, sampling shift, kernel, reduction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sigmax.errors import lookup
from sigmax.families import OBJECTIVES, Objective, directed_loss, of_family
from sigmax.kernels import (
    Inputs,
    Problem,
    Reduction,
    check_kernel,
    reduce_given_logits,
    reduce_logits,
    reduce_over_ranks,
    weighted_loss,
    working_dtype,
)
from sigmax.kernels.checks import (
    all_finite,
    check_positives,
    check_vectors,
    shift_of,
    weights_of,
    why_not_finite,
)
from sigmax.kernels.normalize import normalize
from sigmax.kernels.sharded import agree
from sigmax.positives import Positives
from sigmax.processes import all_true, world_size

__all__ = ["SIMILARITIES", "MatchLoss", "SigmoidLoss", "SoftmaxLoss", "make_loss"]


#: What is done to the vectors before the product ⟨query, candidate⟩.
SIMILARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "cosine": normalize,
    "dot": lambda x: x,
}
Directions = Literal["queries", "both"]
ReduceTo = Literal["mean", "sum", "none"]


class MatchLoss(nn.Module):
    """What both families share. Use `SoftmaxLoss` or `SigmoidLoss`."""

    log_scale: nn.Parameter  #: () log of logit_scale, so that the scale stays positive
    logit_bias: nn.Parameter | None  #: () or None where the objective cannot see a bias

    def __init__(
        self,
        objective: Objective,
        logit_scale: float,
        logit_bias: float | None,
        *,
        learnable: bool,
        similarity: str,
        directions: str,
        reduction: str,
        kernel: str,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__()
        if not (math.isfinite(logit_scale) and logit_scale > 0):
            raise ValueError(f"Expected `logit_scale` to be finite and above 0, got {logit_scale}.")
        if logit_bias is not None and not math.isfinite(logit_bias):
            raise ValueError(f"Expected `logit_bias` to be finite, got {logit_bias}.")
        lookup(SIMILARITIES, similarity, "similarity")
        lookup(dict.fromkeys(get_args(Directions)), directions, "directions")
        lookup(dict.fromkeys(get_args(ReduceTo)), reduction, "reduction")
        check_kernel(kernel)
        self.objective = objective
        self.similarity = similarity
        self.directions = directions
        self.reduction = reduction
        self.kernel = kernel
        self.gather_across_devices = gather_across_devices
        self.log_scale = nn.Parameter(torch.tensor(math.log(logit_scale)), requires_grad=learnable)
        if logit_bias is None:
            self.register_parameter("logit_bias", None)
        else:
            self.logit_bias = nn.Parameter(torch.tensor(float(logit_bias)), requires_grad=learnable)

    @property
    def logit_scale(self) -> Tensor:
        """() tensor: what multiplies the similarity."""
        return self.log_scale.exp()

    def extra_repr(self) -> str:
        """Return the settings for repr()."""
        bias = "" if self.logit_bias is None else f", logit_bias={self.logit_bias.item():.4g}"
        return (
            f"{self.objective.name}, logit_scale={self.logit_scale.item():.4g}{bias}, "
            f"similarity={self.similarity!r}, directions={self.directions!r}, reduction={self.reduction!r}"
        )

    def logits(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """(n, d), (m, d) -> (n, m): logit_scale · ⟨query, candidate⟩ + logit_bias."""
        return self.prepared_logits(self.prepare(queries), self.prepare(candidates))

    def prepare(self, vectors: Tensor) -> Tensor:
        """Make vectors what the product takes: of unit length where the similarity is the cosine."""
        return SIMILARITIES[self.similarity](vectors)

    def prepared_logits(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Make the logits of prepared vectors; see `logits`."""
        scores = (queries @ candidates.T).to(working_dtype(queries))
        if (
            not torch.is_grad_enabled()
        ):  # in place: over many candidates each tensor of logits costs as the product does
            scores.mul_(self.logit_scale)
            return scores if self.logit_bias is None else scores.add_(self.logit_bias)
        scores = scores * self.logit_scale
        return scores if self.logit_bias is None else scores + self.logit_bias

    def forward(
        self,
        queries: Tensor,
        candidates: Tensor,
        positives: Positives,
        *,
        candidate_log_q: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of matching queries to candidates.

        Args:
            queries: (n, d) vectors, floating point.
            candidates: (m, d) vectors of the same dtype and device.
            positives: right and ignored pairs, of shape (n, m).
            candidate_log_q: (m,) log of the rate at which each candidate is offered as a wrong answer. The loss
                is computed on s − log q, so that s itself estimates the logit without sampling (softmax: sampled
                softmax, Bengio & Senécal 2008; sigmoid: case-control sampling by Bayes' rule).
            weights: (n,) wᵢ, not negative: query i's loss counts wᵢ times, and the mean is Σᵢ wᵢ Lᵢ over the number of
                queries that count. For directions="queries", and within one process.

        Returns:
            () for reductions "mean" and "sum"; for "none" the terms that "sum" adds up: (n,), or (n + m,) for
            both directions, 0 where a query is left out.

        With `gather_across_devices`, every rank passes its own queries and candidates, and `positives` of shape
        (queries of the rank, candidates of all ranks in the order of ranks). All ranks get the loss over everything;
        each one's gradients are W times its part of them, which DistributedDataParallel averages to the whole.

        Raises:
            TypeError: `positives` is not a `Positives`.
            ValueError: shapes, dtypes or devices that do not fit, or a loss that is not finite; with
                `gather_across_devices` on all ranks if on one.
        """
        everywhere = self.gather_across_devices and world_size() > 1
        error: Exception | None = None
        try:
            check_vectors(queries, candidates)
            check_positives(positives, *((None, None) if everywhere else (len(queries), len(candidates))))
            shift = shift_of(candidate_log_q, candidates)
            weights = self._weights(weights, queries, everywhere)
        except (TypeError, ValueError) as caught:
            if not everywhere:
                raise
            error = caught
        if everywhere:
            sizes = agree(queries, candidates, positives, error)
        positives = positives.to(queries.device)
        prepare = SIMILARITIES[self.similarity]
        inputs = Inputs(prepare(queries), prepare(candidates), self.logit_scale, self.logit_bias)
        problem = Problem(positives, self.objective, shift, columns=self.directions == "both")
        if everywhere:
            loss = self._reduced(*reduce_over_ranks(inputs, problem, sizes, self.kernel))
        elif problem.columns or self.reduction == "none":
            loss = self._reduced(reduce_logits(inputs, problem, self.kernel), positives, weights)
        else:
            counted = self.objective.counted(positives.counts).to(working_dtype(*inputs[:2]))
            factors = counted / counted.sum().clamp(min=1) if self.reduction == "mean" else counted
            loss = weighted_loss(inputs, problem, factors if weights is None else factors * weights, self.kernel)
        # A vector which takes part in nothing leaves the loss finite and still turns gradients into NaN.
        fine = all_finite(queries, candidates)
        if everywhere and not all_true(fine, queries.device) and fine:
            raise ValueError("Expected finite vectors on all ranks, got NaN or infinity on another one.")
        if not (fine and all_finite(loss)):
            raise ValueError(why_not_finite(queries, candidates, self.logit_scale))
        return loss

    def from_logits(
        self,
        logits: Tensor,
        positives: Positives,
        *,
        candidate_log_q: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of logits as they are: no similarity, no scale, no bias.

        Args:
            logits: (n, m), floating point; −∞ takes a wrong pair out.
            positives: right and ignored pairs, of shape (n, m).
            candidate_log_q: see `forward`.
            weights: see `forward`.

        Raises:
            TypeError: `positives` is not a `Positives`.
            ValueError: shapes that do not fit, NaN, +∞, or a right pair with −∞ in `logits`.
        """
        if logits.ndim != 2 or not logits.is_floating_point():
            raise ValueError(
                f"Expected `logits` to be an (n, m) floating point tensor, got {logits.dtype} of shape "
                f"{tuple(logits.shape)}."
            )
        check_positives(positives, *logits.shape)
        positives = positives.to(logits.device)
        logits = logits.to(working_dtype(logits))
        shift = shift_of(candidate_log_q, logits.T)
        if shift is not None:
            logits = logits + shift
        # Where a row is left out these would give a finite loss and NaN gradients.
        odd = bool((logits.detach().isnan() | (logits.detach() == math.inf)).any())
        loss = self._reduced(
            reduce_given_logits(logits, Problem(positives, self.objective, columns=self.directions == "both")),
            positives,
            self._weights(weights, logits),
        )
        if odd or not bool(torch.isfinite(loss.detach()).all()):
            raise ValueError(
                "Expected finite `logits` (−∞ only on wrong pairs), got "
                f"{int(logits.isnan().sum())} NaN, {int((logits == math.inf).sum())} +∞ and "
                f"{int((logits[positives.rows, positives.columns] == -math.inf).sum())} right pairs with −∞."
            )
        return loss

    def _weights(self, weights: Tensor | None, rows: Tensor, everywhere: bool = False) -> Tensor | None:
        return weights_of(weights, rows, possible=self.directions == "queries" and not everywhere)

    def _reduced(self, reduction: Reduction, positives: Positives, weights: Tensor | None = None) -> Tensor:
        totals = [(reduction.rows, positives.rows, positives.counts)]
        if reduction.columns is not None:
            counts = torch.bincount(positives.columns, minlength=positives.shape[1])
            totals.append((reduction.columns, positives.columns, counts))
        terms = []
        for total, groups, counts in totals:
            losses, counted = directed_loss(self.objective, total, reduction.pairs, groups, counts)
            losses = losses / len(totals) if weights is None else losses * weights
            if self.reduction == "mean":
                losses = losses / counted.sum().clamp(min=1)
            terms.append(losses)
        joined = torch.cat(terms)
        return joined if self.reduction == "none" else joined.sum()


class SoftmaxLoss(MatchLoss):
    r"""Softmax + cross-entropy over the candidates, with any number of right answers.

    With s = logit_scale · ⟨query, candidate⟩ and Pᵢ the right answers of query i (ignored pairs left out of
    every sum):

    - "average":   Lᵢ = logsumexpⱼ(sᵢⱼ) − (1/|Pᵢ|) Σ_{p∈Pᵢ} sᵢₚ; the target is 1/|Pᵢ| each, the floor log |Pᵢ|
      (SupCon's L_out: Khosla et al. 2020).
    - "decoupled": Lᵢ = −(1/|Pᵢ|) Σ_{p∈Pᵢ} log[ exp sᵢₚ / (exp sᵢₚ + Σ_{j wrong} exp sᵢⱼ) ]; floor 0
      (Gupta et al. 2024, DEXML).
    - "any":       Lᵢ = −log Σ_{p∈Pᵢ} softmaxₚ(sᵢ): at least one right answer on top; floor 0.

    - "pairs":     Lᵢ = log[ 1 + Σ_{p∈Pᵢ} Σ_{j wrong} exp(sᵢⱼ − sᵢₚ) ]: every right answer above every wrong one, the
      worst pairs first; floor 0 (LSEPair: Wang et al. 2026).

    A query with no right answer has no target: it is left out, and "mean" divides by the queries that remain.
    A bias would cancel, so there is none.

    Args:
        logit_scale: starting value, above 0. The cosine's range [−1, 1] alone cannot separate anything.
        positives: what several right answers mean: one of the names above, or of another objective of the family in
            `sigmax.families.OBJECTIVES`.
        directions: "queries", or "both": the mean of the loss over queries and of the same loss over
            candidates, each candidate being matched to the queries it is right for.
        reduction: "mean" over the queries that count, "sum", or "none".
        similarity: "cosine" or "dot".
        learnable: whether the scale is trained (as its logarithm).
        kernel: "auto", "dense" or the name of an engine; they agree, see `sigmax.kernels`.
        gather_across_devices: under torch.distributed, compute the loss over the queries and candidates of all
            processes, see `forward`.

    Example:
        >>> import torch, sigmax
        >>> positives = sigmax.Positives([0, 0, 1, 2, 2], [0, 1, 0, 1, 2], shape=(3, 3))
        >>> loss = sigmax.SoftmaxLoss(logit_scale=20.0)
        >>> loss.from_logits(torch.zeros(3, 3), positives)
        tensor(1.0986)
    """

    def __init__(
        self,
        logit_scale: float = 20.0,
        *,
        positives: str = "average",
        directions: Directions = "queries",
        reduction: ReduceTo = "mean",
        similarity: str = "cosine",
        learnable: bool = True,
        kernel: str = "auto",
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(
            lookup(of_family("softmax"), positives, "positives"),
            logit_scale,
            None,
            learnable=learnable,
            similarity=similarity,
            directions=directions,
            reduction=reduction,
            kernel=kernel,
            gather_across_devices=gather_across_devices,
        )


class SigmoidLoss(MatchLoss):
    r"""Sigmoid + binary cross-entropy: every pair on its own.

    With s = logit_scale · ⟨query, candidate⟩ + logit_bias and Pᵢ the right answers of query i:

        Lᵢ = Σ_{j right} −log σ(sᵢⱼ) + Σ_{j wrong} −log(1 − σ(sᵢⱼ)) = Σⱼ softplus(sᵢⱼ) − Σ_{p∈Pᵢ} sᵢₚ

    The floor is 0, and a query with no right answer counts: all its pairs are wrong. "mean" divides by the
    number of queries, not of pairs (SigLIP: Zhai et al. 2023).

    Args:
        logit_scale: starting value, above 0.
        logit_bias: starting value. Good: the log odds of a right pair in a batch, log(p / (1 − p)).
        objective: "sigmoid", the loss above, or another objective of the family in `sigmax.families.OBJECTIVES`.
        reduction: "mean" over queries, "sum", or "none".
        similarity: "cosine" or "dot".
        learnable: whether scale (as its logarithm) and bias are trained.
        kernel: "auto", "dense" or the name of an engine; they agree, see `sigmax.kernels`.
        gather_across_devices: under torch.distributed, compute the loss over the queries and candidates of all
            processes, see `forward`.

    Example:
        >>> import torch, sigmax
        >>> positives = sigmax.Positives([0, 0, 1, 2, 2], [0, 1, 0, 1, 2], shape=(3, 3))
        >>> loss = sigmax.SigmoidLoss(logit_scale=10.0, logit_bias=-10.0)
        >>> loss.from_logits(torch.zeros(3, 3), positives)
        tensor(2.0794)
    """

    def __init__(
        self,
        logit_scale: float = 10.0,
        logit_bias: float = -10.0,
        *,
        objective: str = "sigmoid",
        reduction: ReduceTo = "mean",
        similarity: str = "cosine",
        learnable: bool = True,
        kernel: str = "auto",
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(
            lookup(of_family("sigmoid"), objective, "objective"),
            logit_scale,
            logit_bias,
            learnable=learnable,
            similarity=similarity,
            directions="queries",
            reduction=reduction,
            kernel=kernel,
            gather_across_devices=gather_across_devices,
        )


def make_loss(
    objective: str,
    *,
    logit_scale: float,
    logit_bias: float,
    similarity: str = "cosine",
    gather_across_devices: bool = False,
) -> MatchLoss:
    """Build the module of an objective by its name in `OBJECTIVES`.

    Raises:
        ValueError: an unknown name.
    """
    entry = lookup(OBJECTIVES, objective, "loss")
    if entry.family == "sigmoid":
        return SigmoidLoss(
            logit_scale,
            logit_bias,
            objective=entry.variant,
            similarity=similarity,
            gather_across_devices=gather_across_devices,
        )
    return SoftmaxLoss(
        logit_scale, positives=entry.variant, similarity=similarity, gather_across_devices=gather_across_devices
    )
