"""The contenders of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sigmax.data.dataset import MatchDataset
    from sigmax.scan import Scorer
    from sigmax.training.settings import Filled, Settings

__all__ = ["CONTENDERS", "Contender", "contenders_for"]


def _always_there(data: MatchDataset, settings: Filled) -> None:
    """Take part in every comparison."""


@dataclass(frozen=True)
class Contender:
    """One way to train, compared with the others."""

    name: str
    family: str  #: "softmax", "sigmoid" or "today": what is done without Sigmax
    describes: str
    known_as: str = ""  #: of today's practice, what a reader calls it
    loss: str | None = None  #: objective; None for what `fit` trains
    draw: str = "known-positives"
    none_candidate: bool = False  #: train *none of these* as a candidate
    #: Trains without Sigmax, on the train split, with the encoder that the settings name.
    fit: Callable[[MatchDataset, Filled], Scorer] | None = None
    #: Why it takes no part in a comparison of a data set, None if it does.
    missing: Callable[[MatchDataset, Filled], str | None] = _always_there

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the functions, for JSON."""
        about = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in about.items() if not callable(value) and name != "fit"}


# -- who takes part ------------------------------------------------------------------------------


def _no_unanswered(data: MatchDataset, settings: Filled) -> str | None:
    return None if data.unanswered("train") else "needs training queries with no right answer"


def _one_answer(data: MatchDataset, settings: Filled) -> str | None:
    several = bool((data.answer_counts[data.split("train")] > 1).any())
    return None if several else "is softmax-decoupled once more unless queries have several right answers"


def _no_labelled_texts(data: MatchDataset, settings: Filled) -> str | None:
    fits = data.labels and not data.pictures
    return None if fits else "needs texts with fixed labels: data with columns text and labels"


def _no_vectors(data: MatchDataset, settings: Filled) -> str | None:
    from sigmax.encoders.build import is_pretrained

    fits = data.labels and is_pretrained(settings.encoder)
    return None if fits else "needs fixed labels and a pretrained encoder, whose vectors it reads"


def _no_text_pairs(data: MatchDataset, settings: Filled) -> str | None:
    return "needs texts on both sides" if data.labels or data.pictures else None


# -- today's practice ----------------------------------------------------------------------------


def _tfidf_regression(data: MatchDataset, settings: Filled) -> Scorer:
    from sigmax.comparison.baselines import tfidf_regression

    return tfidf_regression(data)


def _tfidf_svm(data: MatchDataset, settings: Filled) -> Scorer:
    from sigmax.comparison.baselines import tfidf_svm

    return tfidf_svm(data)


def _vectors_regression(data: MatchDataset, settings: Filled) -> Scorer:
    from sigmax.comparison.baselines import vectors_regression

    return vectors_regression(data, settings.encoder)


def _bm25(data: MatchDataset, settings: Filled) -> Scorer:
    from sigmax.comparison.baselines import BM25

    return BM25(data)


CONTENDERS: dict[str, Contender] = {
    entry.name: entry
    for entry in (
        Contender(
            name="softmax-average",
            family="softmax",
            describes="softmax + CE, target 1/k for each right answer",
            loss="softmax-average",
        ),
        Contender(
            name="softmax-decoupled",
            family="softmax",
            describes="softmax + CE, each right answer against wrong ones",
            loss="softmax-decoupled",
        ),
        Contender(
            name="softmax-pairs",
            family="softmax",
            describes="softmax + CE, every right answer above every wrong one, the worst pairs first",
            loss="softmax-pairs",
            missing=_one_answer,
        ),
        Contender(
            name="softmax-none",
            family="softmax",
            describes="softmax-decoupled with *none of these* as one more candidate, right where nothing else is",
            loss="softmax-decoupled",
            none_candidate=True,
            missing=_no_unanswered,
        ),
        Contender(name="sigmoid", family="sigmoid", describes="sigmoid + BCE, every pair on its own", loss="sigmoid"),
        Contender(
            name="one-positive",
            family="today",
            describes="in-batch softmax: one right answer per row, everything else in the batch wrong",
            known_as="the usual in-batch softmax with one positive per row",
            loss="softmax-average",
            draw="one-positive",
        ),
        Contender(
            name="tfidf-lr",
            family="today",
            describes="scikit-learn tf-idf + one-against-rest logistic regression",
            known_as="tf-idf with logistic regression",
            fit=_tfidf_regression,
            missing=_no_labelled_texts,
        ),
        Contender(
            name="tfidf-svm",
            family="today",
            describes="scikit-learn tf-idf + one-against-rest linear SVM",
            known_as="tf-idf with a linear SVM",
            fit=_tfidf_svm,
            missing=_no_labelled_texts,
        ),
        Contender(
            name="vectors-lr",
            family="today",
            describes="the pretrained encoder's vectors + scikit-learn logistic regression",
            known_as="logistic regression on the encoder's vectors",
            fit=_vectors_regression,
            missing=_no_vectors,
        ),
        Contender(
            name="bm25",
            family="today",
            describes="BM25 over words, nothing trained",
            known_as="a search engine's BM25",
            fit=_bm25,
            missing=_no_text_pairs,
        ),
    )
}


def contenders_for(data: MatchDataset, settings: Settings | None = None) -> list[str]:
    """Names of the contenders that take part on a data set, with the encoder that the settings name."""
    from sigmax.training.settings import Settings

    filled = (settings or Settings()).filled(data)
    return [name for name, entry in CONTENDERS.items() if entry.missing(data, filled) is None]
