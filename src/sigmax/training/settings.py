"""Training settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sigmax.data.batches import DRAWS
from sigmax.data.dataset import MatchDataset
from sigmax.encoders import AUGMENTATIONS
from sigmax.encoders.build import default_encoder, defaults_of
from sigmax.encoders.plan import HEADS
from sigmax.errors import check_least, lookup
from sigmax.families import OBJECTIVES
from sigmax.metrics.registry import watched

__all__ = ["PRECISIONS", "Settings"]


#: Precision of the products in training; parameters stay float32.
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Settings:
    """How to train. What is None is filled in from the encoder and the data.

    Args:
        loss: a name in `OBJECTIVES`.
        encoder: see `sigmax.encoders.build_towers`; None: ngrams for texts, convnet for pictures.
        two_towers: candidates that are texts get an encoder of their own.
        head: how labels are scored, a name in `HEADS`.
        frozen: keep a pretrained encoder as it is, encode every query once, train what comes after it.
        augment: what training does to pictures, a name in `AUGMENTATIONS`; None: what suits their size.
        epochs: passes over the training queries, at most.
        steps: batches a process, instead of epochs.
        batch_size: queries a batch and process.
        mini_batch_size: texts or pictures encoded at a time, so that a large batch needs the memory of a small one and
            encodes twice; None for all at once.
        learning_rate: highest rate; it rises over the first tenth of the steps and falls linearly to 0.
        logit_scale: where the scale starts.
        answers: right answers drawn a query and batch, at most.
        negatives: candidates drawn at random beside those, see `Batches`.
        draw: how a batch is made, a name in `DRAWS`.
        none_candidate: train one more candidate, *none of these*, right for the queries that have no right answer:
            what a softmax needs to learn from them.
        metric: the dev metric that decides which epoch is kept.
        patience: epochs without a better metric before training stops.
        precision: of the products: float32, bfloat16 or float16 (automatic mixed precision).
        seed: of everything random.
    """

    loss: str = "softmax-decoupled"
    encoder: str | None = None
    two_towers: bool = False
    head: str = "cosine"
    frozen: bool = False
    augment: str | None = None
    epochs: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    mini_batch_size: int | None = None
    learning_rate: float | None = None
    logit_scale: float | None = None
    answers: int = 4
    negatives: int | None = None
    draw: str = "known-positives"
    none_candidate: bool = False
    metric: str = "map"
    patience: int = 3
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without data."""
        lookup(OBJECTIVES, self.loss, "loss")
        lookup(DRAWS, self.draw, "draw")
        lookup(HEADS, self.head, "head")
        if self.augment is not None:
            lookup(AUGMENTATIONS, self.augment, "augment")
        lookup(dict.fromkeys(PRECISIONS), self.precision, "precision")
        lookup(watched(), self.metric, "metric")
        check_least(
            1,
            steps=self.steps,
            batch_size=self.batch_size,
            mini_batch_size=self.mini_batch_size,
            answers=self.answers,
            patience=self.patience,
        )
        check_least(0, negatives=self.negatives, seed=self.seed)
        for name in ("epochs", "learning_rate", "logit_scale"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"Expected `{name}` above 0, got {value}.")

    def filled(self, data: MatchDataset) -> Settings:
        """Return the settings with nothing left open."""
        encoder = self.encoder or default_encoder(data)
        defaults = defaults_of(encoder, data, frozen=self.frozen)
        return replace(
            self,
            encoder=encoder,
            epochs=self.epochs or defaults.epochs,
            batch_size=self.batch_size or defaults.batch_size,
            learning_rate=self.learning_rate or defaults.learning_rate,
            logit_scale=self.logit_scale or defaults.logit_scale,
        )
