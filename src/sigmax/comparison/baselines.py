"""What people would use today instead: scikit-learn's tf-idf and one-against-rest logistic regression."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from sigmax.calibration.calibrator import Calibrator
from sigmax.data.dataset import MatchDataset
from sigmax.data.normal import normal
from sigmax.data.pictures import Query
from sigmax.errors import DataError
from sigmax.scan import Logits

__all__ = ["TfidfBaseline"]


class TfidfBaseline:
    """Word 1–2-grams and character 2–5-grams, sublinear tf-idf, one logistic regression a label with C = 30.

    Args:
        data: labelled texts; fitted on their train split.

    Raises:
        DataError: data whose candidates are not labels.
    """

    def __init__(self, data: MatchDataset) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.pipeline import make_pipeline, make_union

        if not data.labels:
            raise DataError("tf-idf + logistic regression needs fixed labels: data with columns text and labels.")
        self.calibrator: Calibrator | None = None
        train = data.split("train")
        truth = data.graph[train].toarray().astype(np.int64)
        # A label that is never right, or always, in the train split has nothing to separate.
        self.known = np.flatnonzero((truth.any(0)) & ~truth.all(0))
        self.unknown_logits = np.where(truth.all(0), 10.0, -10.0).astype(np.float32)
        self.place = {name: j for j, name in enumerate(data.candidates)}
        self.pipeline = make_pipeline(
            make_union(
                TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
                TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
            ),
            OneVsRestClassifier(LogisticRegression(C=30.0, solver="liblinear")),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.pipeline.fit([normal(str(data.queries[i])) for i in train], truth[:, self.known])

    def logits(self, queries: Sequence[Query], candidates: Sequence[str]) -> Logits:
        """Return log odds of every query over every label."""
        logits = np.tile(self.unknown_logits, (len(queries), 1))
        decided = self.pipeline.decision_function([normal(str(query)) for query in queries]).reshape(len(queries), -1)
        logits[:, self.known] = decided
        return Logits(logits[:, [self.place[name] for name in candidates]])
