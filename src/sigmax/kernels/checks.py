"""What the losses refuse, in words: vectors, graphs, rates and weights that do not fit, and what is not finite."""

from __future__ import annotations

import torch
from torch import Tensor

from sigmax.kernels.problem import working_dtype
from sigmax.positives import Positives

__all__ = ["all_finite", "check_positives", "check_vectors", "shift_of", "weights_of", "why_not_finite"]


def check_vectors(queries: Tensor, candidates: Tensor) -> None:
    """Refuse vectors of which no loss can be made."""
    for name, vectors in (("queries", queries), ("candidates", candidates)):
        if vectors.ndim != 2 or not vectors.is_floating_point():
            raise ValueError(
                f"Expected `{name}` to be a floating point tensor of shape (rows, d), got {vectors.dtype} of shape "
                f"{tuple(vectors.shape)}."
            )
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"Expected `queries` and `candidates` of one width d, got {queries.shape[1]} and {candidates.shape[1]}."
        )
    if queries.dtype != candidates.dtype and not torch.is_autocast_enabled(queries.device.type):
        raise ValueError(
            f"Expected `queries` and `candidates` of one dtype, got {queries.dtype} and {candidates.dtype}. "
            "Cast one of them, or use torch.autocast."
        )
    if queries.device != candidates.device:
        raise ValueError(
            f"Expected `queries` and `candidates` on one device, got {queries.device} and {candidates.device}."
        )


def check_positives(positives: Positives, n: int | None, m: int | None) -> None:
    """Refuse what is no graph, or one of another shape; n of None stands for any."""
    if not isinstance(positives, Positives):
        raise TypeError(
            f"Expected `positives` to be a sigmax.Positives, got {type(positives).__name__}. "
            "Make one with Positives(rows, columns, shape), Positives.from_dense(matrix) or Positives.from_ids(…)."
        )
    if n is not None and positives.shape != (n, m):
        raise ValueError(f"Expected `positives` of shape (queries, candidates) = {(n, m)}, got {positives.shape}.")


def shift_of(candidate_log_q: Tensor | None, candidates: Tensor) -> Tensor | None:
    """(m,) what is added to each candidate's logits: −log q."""
    m = len(candidates)
    if candidate_log_q is None:
        return None
    if candidate_log_q.shape != (m,):
        raise ValueError(
            f"Expected `candidate_log_q` of shape ({m},), one log rate per candidate, got "
            f"{tuple(candidate_log_q.shape)}."
        )
    if not bool(torch.isfinite(candidate_log_q).all()):
        raise ValueError("Expected finite `candidate_log_q`, got NaN or infinity. A rate of 0 is never offered.")
    return -candidate_log_q.detach().to(candidates.device, working_dtype(candidates))


def all_finite(*tensors: Tensor) -> bool:
    """Whether all of some tensors is finite."""
    sums = torch.stack([x.detach().sum(dtype=working_dtype(x)) for x in tensors])  # no memory, one look from the GPU
    return bool(sums.isfinite().all()) or all(bool(x.isfinite().all()) for x in tensors)


def why_not_finite(queries: Tensor, candidates: Tensor, logit_scale: Tensor) -> str:
    """Say why a loss is not finite."""
    for name, vectors in (("queries", queries), ("candidates", candidates)):
        bad = int((~torch.isfinite(vectors)).any(1).sum())
        if bad:
            return (
                f"Expected finite vectors, got NaN or infinity in {bad} of {len(vectors)} `{name}`. "
                "Look at the encoder's inputs; lower the learning rate if it happened during training."
            )
    return f"The loss is not finite though the vectors are: logit_scale is {logit_scale.item():.3g}. Lower it."


def weights_of(weights: Tensor | None, rows: Tensor, *, possible: bool) -> Tensor | None:
    """(n,) weights beside the rows, in their working precision."""
    if weights is None:
        return None
    if not possible:
        raise ValueError("Expected `weights` with directions='queries' and one process: they are the queries'.")
    if weights.shape != rows.shape[:1] or not bool((weights >= 0).all()) or not all_finite(weights):
        raise ValueError(f"Expected {len(rows)} finite `weights` that are not negative, got {weights}.")
    return weights.to(rows.device, working_dtype(rows))
