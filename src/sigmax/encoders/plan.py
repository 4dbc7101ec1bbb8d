"""What an encoder is asked for, and how one is declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from sigmax.data.dataset import MatchDataset

__all__ = ["HEADS", "Defaults", "Encoder", "Plan", "Towers"]


#: How a vector is compared with labels.
HEADS = {
    "cosine": "cosine to each label's vector plus a bias per label, times one scale",
    "linear": "one weight per label and coordinate, and one bias per label",
    "ngrams": "linear, and beside it one weight per label and n-gram of the text",
}


@dataclass(frozen=True)
class Towers:
    """Encoders of the two sides, and the similarity that suits their vectors."""

    query: nn.Module
    candidate: nn.Module | None  #: None: the query encoder encodes candidates too
    similarity: str  #: "cosine" or "dot"


@dataclass(frozen=True)
class Plan:
    """What is asked of the towers, whatever the encoder.

    Args:
        seed: seed of random initial vectors.
        two_towers: give candidates that are texts an encoder of their own.
        head: how labels are scored, a name in `HEADS`.
        frozen: keep a pretrained encoder as it is and train what follows it.
        augment: a name in `AUGMENTATIONS`; None: "upright", or "none" for pictures of fewer than 32 pixels per side,
            which rotation would blur.
    """

    seed: int = 0
    two_towers: bool = False
    head: str = "cosine"
    frozen: bool = False
    augment: str | None = None


@dataclass(frozen=True)
class Defaults:
    """Training settings that suit an encoder, chosen on the dev splits of several data sets."""

    epochs: float
    learning_rate: float
    logit_scale: float
    #: Queries per batch. A larger batch has more in-batch negatives and fewer steps.
    batch_size: int = 128
    #: AdamW's ε. Far above the gradients of rare n-grams it keeps their steps small, as in SGD; the usual 1e-8 would
    #: move every n-gram equally, however rarely it was seen.
    epsilon: float = 1e-8
    label_rate: float = 1.0  #: learning rate of a label table's vectors, as a multiple
    scale_rate: float = 0.1  #: learning rate of scale and bias, as a multiple
    #: Threads on a CPU, None for PyTorch's choice. Operations on a table are so small that threads wait for each
    #: other: one is as fast on an idle machine and many times faster on a busy one.
    threads: int | None = 1
    #: Whether a run takes seconds, so that a comparison searches and repeats by default.
    quick: bool = True
    #: Whether products are made in bfloat16 where the processor has instructions for them.
    half: bool = False
    #: Whether what is trained is a linear model over fixed vectors: its minimum is computed, without steps and rates.
    solved: bool = False


@dataclass(frozen=True)
class Encoder:
    """A way to build the towers for a data set."""

    name: str
    describes: str  #: for the command line's help
    build: Callable[[MatchDataset, Plan], Towers]  #: imports what it needs when it is called
    labels: Defaults  #: for fixed labels
    texts: Defaults | None = None  #: for candidates that are texts; None: only fixed labels
    pictures: bool = False  #: whether queries are pictures, or texts
    pretrained: bool = False  #: whether it can be kept frozen
    heads: tuple[str, ...] = ("cosine",)

    def fits(self, data: MatchDataset) -> bool:
        """Whether it reads the queries of a data set and has settings for its candidates."""
        return self.pictures == data.pictures and (data.labels or self.texts is not None)
