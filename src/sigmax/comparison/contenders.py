"""The contenders of a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sigmax.data.dataset import MatchDataset

__all__ = ["CONTENDERS", "Contender", "contenders_for"]


@dataclass(frozen=True)
class Contender:
    """One way to train, compared with the others."""

    name: str
    family: str  #: "softmax", "sigmoid" or "today": what is done without Sigmax
    describes: str
    loss: str | None = None  #: objective; None for the scikit-learn baseline
    draw: str = "known-positives"
    none_candidate: bool = False  #: train *none of these* as a candidate
    texts: bool = False  #: reads only texts
    several: bool = False  #: is softmax-decoupled once more unless queries have several right answers


CONTENDERS: dict[str, Contender] = {
    entry.name: entry
    for entry in (
        Contender("softmax-average", "softmax", "softmax + CE, target 1/k for each right answer", "softmax-average"),
        Contender(
            "softmax-decoupled", "softmax", "softmax + CE, each right answer against wrong ones", "softmax-decoupled"
        ),
        Contender(
            "softmax-pairs",
            "softmax",
            "softmax + CE, every right answer above every wrong one, the worst pairs first",
            "softmax-pairs",
            several=True,
        ),
        Contender(
            "softmax-none",
            "softmax",
            "softmax-decoupled with *none of these* as one more candidate, right where nothing else is",
            "softmax-decoupled",
            none_candidate=True,
        ),
        Contender("sigmoid", "sigmoid", "sigmoid + BCE, every pair on its own", "sigmoid"),
        Contender(
            "one-positive",
            "today",
            "in-batch softmax: one right answer per row, everything else in the batch wrong",
            "softmax-average",
            "one-positive",
        ),
        Contender("tfidf-lr", "today", "scikit-learn tf-idf + one-against-rest logistic regression", texts=True),
    )
}


def contenders_for(data: MatchDataset) -> list[str]:
    """Names of the contenders that make sense on a data set."""
    unanswered = data.unanswered("train") > 0
    several = bool((data.answer_counts[data.split("train")] > 1).any())
    return [
        name
        for name, entry in CONTENDERS.items()
        if (entry.loss is not None or data.labels)
        and (unanswered or not entry.none_candidate)
        and (several or not entry.several)
        and not (entry.texts and data.pictures)
    ]
