"""What a training says of itself: what it is about to do, in how much time and memory, and why it stopped."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sigmax.encoders.module import encodes
from sigmax.families import OBJECTIVES
from sigmax.metrics.registry import watched

if TYPE_CHECKING:
    from sigmax.data.batches import Batches
    from sigmax.data.dataset import MatchDataset
    from sigmax.model.dual_encoder import DualEncoder
    from sigmax.training.settings import Filled

__all__ = ["expected_bytes", "tell_data", "tell_memory", "tell_stopped"]

log = logging.getLogger(__name__)

#: Copies of the weights of n-grams that L-BFGS holds, at most: six steps, six gradients, and what it works with.
SOLVER_COPIES = 22


def tell_data(data: MatchDataset, settings: Filled, steps: int) -> None:
    """Log the encoder if it was chosen, why, and its expected time; the sizes; what the loss leaves out."""
    if settings.chosen is not None:
        log.info(
            "Encoder: %s%s (%s); about %s on one CPU core.",
            settings.encoder,
            ", frozen" if settings.frozen else "",
            settings.chosen.reason,
            _duration(settings.chosen.seconds),
        )
    how = f"{steps} steps"
    if settings.epochs == 0:
        how = "nothing trained"
    elif settings.defaults.solved:
        how = "a convex problem, solved"
    log.info("%d training queries, %d candidates, %s.", len(data.split("train")), len(data.candidates), how)
    unanswered = data.unanswered("train")
    if unanswered and OBJECTIVES[settings.loss].needs_positive and not settings.none_candidate:
        log.info(
            "%d of the training queries have no right answer: %s leaves them out (a sigmoid would learn from them).",
            unanswered,
            settings.loss,
        )


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 100 else f"{round(seconds / 60)} min"


def expected_bytes(model: DualEncoder, batches: Batches, settings: Filled) -> int:
    """Estimate what training takes beside the data, in bytes; a network's activations are not known before.

    Trained step by step: weights, a gradient and two moments of those that are trained, the best epoch's copy, and
    three matrices of a batch's logits. Solved: the weights as often as L-BFGS holds them; where an encoder is frozen,
    three copies of the queries' vectors, and beside it the weights of n-grams.
    """
    weights = sum(parameter.nbytes for parameter in model.parameters())
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    queries = len(batches.data.split("train"))
    if settings.defaults.solved:
        width = encodes(model.query_encoder).get_embedding_dimension()
        vectors = 3 * 4 * width * queries if settings.frozen else 0
        return weights + vectors + (SOLVER_COPIES * trained if not settings.frozen or settings.head == "ngrams" else 0)
    batch = batches[0]
    return 2 * weights + 3 * trained + 3 * 4 * len(batch.queries) * len(batch.candidates)


def tell_memory(model: DualEncoder, batches: Batches, settings: Filled) -> None:
    """Log what training is expected to take beside the data."""
    size = expected_bytes(model, batches, settings)
    told = f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{max(1, round(size / 2**20))} MB"
    log.info("About %s of memory for weights, optimizer and logits, beside the data.", told)


def tell_stopped(at: int, kept: int | None, batches: Batches, settings: Filled) -> None:
    """Log at which step training stopped early, why, and which epoch is kept."""
    each = batches.steps_per_epoch
    better = "risen" if watched()[settings.metric].better == "higher" else "fallen"
    log.info(
        "Stopped early, after epoch %d of %d: dev %s has not %s for %d epochs; epoch %d is kept.",
        round(at / each),
        round(batches.steps / each),
        settings.metric,
        better,
        settings.patience,
        round((kept or 0) / each),
    )
