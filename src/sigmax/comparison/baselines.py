"""The usual baselines: scikit-learn's linear classifiers of tf-idf features or of an encoder's vectors, and BM25."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sigmax.arrays import Logits
from sigmax.calibration.calibrator import Calibrator
from sigmax.data.dataset import MatchDataset
from sigmax.data.normal import normal
from sigmax.data.pictures import Query
from sigmax.encoders.bm25 import fit_lexical
from sigmax.encoders.build import build_towers
from sigmax.encoders.plan import Plan
from sigmax.errors import DataError
from sigmax.evaluation import quick_metrics

if TYPE_CHECKING:
    from sigmax.encoders.frozen import FrozenEncoder

__all__ = ["BM25", "OneAgainstRest", "tfidf_regression", "tfidf_svm", "vectors_regression"]

#: Inverse penalties of logistic regression on vectors, chosen by MAP on dev.
STRENGTHS = (1.0, 10.0, 100.0)


class OneAgainstRest:
    """One binary linear classifier of scikit-learn per label.

    Args:
        data: labelled queries; fitted on their train split.
        features: queries -> (n, d), sparse or dense.
        make: returns an estimator with a `decision_function`.

    Raises:
        DataError: data whose candidates are not labels.
    """

    def __init__(self, data: MatchDataset, features: Callable[[Sequence[Query]], Any], make: Callable[[], Any]) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.multiclass import OneVsRestClassifier

        _check_labels(data)
        self.calibrator: Calibrator | None = None
        self.features = features
        train = data.split("train")
        truth = data.graph[train].toarray().astype(np.int64)
        # A label that is never right, or always, in the train split has nothing to separate.
        self.known = np.flatnonzero((truth.any(0)) & ~truth.all(0))
        self.unknown_logits = np.where(truth.all(0), 10.0, -10.0).astype(np.float32)
        self.place = {name: j for j, name in enumerate(data.candidates)}
        self.classifier = OneVsRestClassifier(make())
        if not len(self.known):  # one training query, or queries that all have the same labels
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.classifier.fit(features([data.queries[i] for i in train]), truth[:, self.known])

    def logits(self, queries: Sequence[Query], candidates: Sequence[str]) -> Logits:
        """Return what each label's classifier says of every query: log odds, or the signed distance of an SVM."""
        logits = np.tile(self.unknown_logits, (len(queries), 1))
        if not len(self.known):
            return Logits(logits[:, [self.place[name] for name in candidates]])
        decided = self.classifier.decision_function(self.features(queries)).reshape(len(queries), -1)
        logits[:, self.known] = decided
        return Logits(logits[:, [self.place[name] for name in candidates]])


class BM25:
    """BM25 over words, nothing trained: the stemmer, k₁ and b that rank best on dev.

    Args:
        data: texts on both sides.

    Raises:
        DataError: pictures, or labels.
    """

    def __init__(self, data: MatchDataset) -> None:
        if data.labels or data.pictures:
            raise DataError("BM25 compares the words of two texts: queries and candidates have to be texts.")
        self.calibrator: Calibrator | None = None
        self.view = fit_lexical(data)

    def logits(self, queries: Sequence[Query], candidates: Sequence[str]) -> Logits:
        """Return the score of every query over every candidate."""
        asked = self.view.tokens([str(query) for query in queries], "query").of_kind("words")
        offered = self.view.tokens(candidates, "candidate").of_kind("words")
        return Logits(self.view.scores(asked, offered))


def tfidf_regression(data: MatchDataset) -> OneAgainstRest:
    """Fit logistic regression with C = 30 on tf-idf.

    Raises:
        DataError: data whose candidates are not labels.
    """
    from sklearn.linear_model import LogisticRegression

    make = partial(LogisticRegression, C=30.0, solver="liblinear", dual=True, random_state=0)
    return OneAgainstRest(data, _tfidf(data), make)


def tfidf_svm(data: MatchDataset) -> OneAgainstRest:
    """Fit a linear SVM with C = 1 on tf-idf.

    Raises:
        DataError: data whose candidates are not labels.
    """
    from sklearn.svm import LinearSVC

    return OneAgainstRest(data, _tfidf(data), partial(LinearSVC, random_state=0))


def vectors_regression(data: MatchDataset, encoder: str) -> OneAgainstRest:
    """Fit logistic regression on the vectors of a pretrained encoder as they are, with C from `STRENGTHS`.

    Raises:
        DataError: data whose candidates are not labels, or an encoder that does not load.
    """
    from sklearn.linear_model import LogisticRegression

    _check_labels(data)
    frozen = cast("FrozenEncoder", build_towers(encoder, data, Plan(frozen=True, head="linear")).query)

    def features(queries: Sequence[Query]) -> Any:
        return frozen.preprocess(queries)["vectors"].numpy()

    makers = (partial(LogisticRegression, C=strength, max_iter=1000) for strength in STRENGTHS)
    fitted = [OneAgainstRest(data, features, make) for make in makers]
    return max(fitted, key=lambda one: quick_metrics(one, data)["map"])


def _check_labels(data: MatchDataset) -> None:
    if not data.labels:
        raise DataError("A classifier of scikit-learn needs fixed labels: data with columns text and labels.")


def _tfidf(data: MatchDataset) -> Callable[[Sequence[Query]], Any]:
    """Word 1–2-grams and character 2–5-grams, sublinear tf-idf, with the vocabulary of the train split."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    _check_labels(data)
    union = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    union.fit([normal(str(data.queries[i])) for i in data.split("train")])
    return lambda queries: union.transform([normal(str(query)) for query in queries])
