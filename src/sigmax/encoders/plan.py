"""What an encoder is asked for, and how one is declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from sigmax.data.dataset import MatchDataset

__all__ = ["HEADS", "Defaults", "Plan", "Towers"]


#: How a vector is compared with labels.
HEADS = {
    "cosine": "cosine to each label's vector, times one scale",
    "linear": "one weight a label and coordinate, and a bias a label",
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
        seed: of vectors that start at random.
        two_towers: give candidates that are texts an encoder of their own.
        head: how labels are scored, a name in `HEADS`.
        frozen: keep a pretrained encoder as it is and train what comes after it.
        augment: what training does to pictures, a name in `AUGMENTATIONS`; None: "upright", but for pictures of fewer
            than 32 pixels a side, which turning blurs, "none".
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
    #: Queries a batch. More are more wrong answers where the batch holds the candidates, and fewer steps.
    batch_size: int = 128
    #: AdamW's ε. Far above the gradients of rare n-grams it keeps their steps small, as in SGD; the usual 1e-8 would
    #: move every n-gram alike, however seldom it was seen.
    epsilon: float = 1e-8
    label_rate: float = 1.0  #: rate of a label table's vectors, as a multiple
    scale_rate: float = 0.1  #: rate of scale and bias, as a multiple
    #: Threads on a CPU, None for PyTorch's choice. The operations on a table are so small that threads wait for each
    #: other: one is as fast on an idle machine and many times faster on a busy one.
    threads: int | None = 1
    #: Whether one training takes seconds, so that a comparison may search and repeat without being asked to.
    quick: bool = True


@dataclass(frozen=True)
class Encoder:
    """A way to build the towers for a data set."""

    name: str
    describes: str
    build: Callable[[MatchDataset, Plan], Towers]
    labels: Defaults  #: for fixed labels
    texts: Defaults | None = None  #: for candidates that are texts; None: cannot
    pictures: bool = False  #: whether queries are pictures, or texts
    pretrained: bool = False  #: whether it can be kept frozen
    heads: tuple[str, ...] = ("cosine",)
