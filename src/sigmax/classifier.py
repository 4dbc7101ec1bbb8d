"""A scikit-learn classifier of texts, or of given features, with either loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse, special
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

from sigmax.arrays import Bools, Floats
from sigmax.calibration.calibrator import Calibrator, fit_calibrator
from sigmax.data.dataset import MatchDataset
from sigmax.encoders.build import is_pretrained
from sigmax.encoders.frozen import FrozenEncoder
from sigmax.encoders.pretrained import load_pretrained
from sigmax.errors import DataError
from sigmax.training.holding_out import check_dev, fit_temperature, held_out
from sigmax.training.linear import fit_linear
from sigmax.training.online import OnlineLinear
from sigmax.training.settings import Settings
from sigmax.training.train import train
from sigmax.training.weighted import fit_weighted

__all__ = ["SigmaxClassifier"]

#: Rows held out that `partial_fit` keeps to calibrate on.
KEPT = 1000


class SigmaxClassifier(ClassifierMixin, BaseEstimator):
    r"""Labels texts or given features by softmax or sigmoid, with probabilities calibrated on rows held out.

    Texts are trained by `sigmax.train`: the best epoch on the dev rows is kept. A matrix of features gets a linear
    model, s = W·z + b on features z standardised by the training rows, at the minimum of

        (1/n) Σᵢ wᵢ Lᵢ(s) + |W|² / (2n),  n = Σᵢ wᵢ

    with w the weights of the rows (1 each by default) and L the loss asked for: on single labels "softmax-average" is
    multinomial and "sigmoid" one-against-rest logistic regression with C = 1. `encoder`, `epochs`, `batch_size` and
    `learning_rate` are for texts alone.

    What `predict_proba` gives depends on y:

    - single labels: shares, softmaxⱼ(s / temperature), the temperature fitted on dev, see `fit_temperature`. A row
      adds up to 1 whether or not any label is right, and `predict` takes the largest.
    - several labels a row: presences, each the probability that this label is right, calibrated on dev as
      `sigmax.calibrate` does. A row adds up to nothing in particular; `predict` takes all from `threshold_` on, chosen
      on dev for F1.

    Args:
        loss: a name in `sigmax.families.OBJECTIVES`. A softmax leaves rows without any label out of training.
        encoder: of texts, see `sigmax.encoders.build_towers`; None: chosen from them, see
            `sigmax.encoders.choose_encoder`.
        epochs: passes over the training texts, at most; None: what suits the encoder.
        batch_size: texts a batch; None: what suits the encoder.
        learning_rate: highest rate; None: what suits the encoder.
        class_weight: "balanced", or label -> weight (of an indicator a list of dicts, one for each column), as
            everywhere in scikit-learn; it multiplies `sample_weight`.
        validation_fraction: share of the rows held out as dev, unless `fit` is given some. One row of each label
            is kept for training.
        random_state: of the rows held out and, for texts, of training.

    Attributes:
        classes_: (L,) labels; for an indicator the numbers of its columns.
        model_: the calibrated `sigmax.DualEncoder`, for texts; its `match` flags what is unlike anything in training.
        coef_, intercept_: (L, d) W and (L,) b on the features as given, for features.
        temperature_: what divides the logits of single labels.
        threshold_: presence from which `predict` takes a label, where y has several.
        n_features_in_, feature_names_in_: of features, as everywhere in scikit-learn.

    Example:
        >>> from sigmax import SigmaxClassifier
        >>> X, y = [[0.0], [0.1], [0.2], [0.9], [1.0], [1.1]], ["low", "low", "low", "high", "high", "high"]
        >>> SigmaxClassifier(loss="softmax-average", random_state=0).fit(X, y).predict([[0.3], [0.8]])
        array(['low', 'high'], dtype='<U4')
    """

    def __init__(
        self,
        loss: str = "sigmoid",
        *,
        encoder: str | None = None,
        epochs: float | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        class_weight: Any = None,
        validation_fraction: float = 0.1,
        random_state: Any = None,
    ) -> None:
        self.loss = loss
        self.encoder = encoder
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        """Say that y may have several labels a row, and X may be texts."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.input_tags.string = True
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, dev: tuple[Any, Any] | None = None) -> SigmaxClassifier:
        """Train on some rows, calibrate on others.

        Args:
            X: texts, (n,), or one column of them; or features, (n, d) finite numbers, dense or sparse.
            y: (n,) labels; or an (n, L) indicator of 0 and 1; or a list of n lists of names, empty for none of
                them, which becomes an indicator with the columns `classes_`.
            sample_weight: (n,) weights of the rows in training, not negative; a row of weight 0 is left out. The rows
                that calibrate count alike.
            dev: X and y of rows to calibrate on; None: a share of those given is held out.

        Raises:
            ValueError: an unknown loss, fewer than two labels, no row that could be held out, or
                what scikit-learn refuses everywhere: NaN, lengths that differ, continuous y.
            DataError: some rows that are texts and some that are not, or dev rows that cannot be calibrated on.
        """
        settings = Settings(
            loss=self.loss,
            encoder=self.encoder,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )
        if y is None:
            raise ValueError("This SigmaxClassifier requires y to be passed, but the target y is None.")
        texts = _texts(X)
        rows: Any = texts if texts is not None else self._features(X, ensure_min_samples=2)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, rows, ensure_non_negative=True)
        if weights is not None and not weights.all():
            counted = np.flatnonzero(weights)
            y = y if hasattr(y, "__getitem__") else np.asarray(y)
            rows, y, weights = _safe_indexing(rows, counted), _safe_indexing(y, counted), weights[counted]
        self._learn_labels(y)
        right = self._right(y, _count(rows))
        if self.class_weight is not None:
            by_class = compute_sample_weight(self.class_weight, right.astype(int) if self._several else y)
            weights = by_class if weights is None else weights * by_class
        if dev is None:
            train_rows, dev_rows = held_out(right, self.validation_fraction, settings.seed, several=self._several)
            given, dev_right = _safe_indexing(rows, dev_rows), right[dev_rows]
            rows, right = _safe_indexing(rows, train_rows), right[train_rows]
            weights = None if weights is None else weights[train_rows]
        else:
            given = self._checked(dev[0], texts is not None)
            dev_right = self._right(dev[1], _count(given))
        check_dev(dev_right)
        for name in ("model_", "coef_", "intercept_", "temperature_", "threshold_", "_online", "_trunk"):
            self.__dict__.pop(name, None)
        names = [str(label) for label in self.classes_]
        calibrator = None
        if texts is not None:
            for name in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(name, None)
            self.model_ = train(_dataset(rows, right, weights, given, dev_right, names), settings, tell=False)
            calibrator = self.model_.calibrator
        else:
            self.coef_, self.intercept_ = found = _fit_linear(self.loss, rows, right, weights)
            weights = np.ones(len(right)) if weights is None else weights
            self._online = OnlineLinear.after(self.loss, rows, right, weights, found)
            self._seen, self._held = len(right), (given[-KEPT:], dev_right[-KEPT:])
            self._chance = np.random.default_rng(settings.seed)
        self._calibrate(self._logits(given), dev_right, settings.seed, calibrator)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> SigmaxClassifier:
        """Learn from some more rows, none of which is kept but those held out: the last `KEPT` of them calibrate.

        A share of the rows of each call is held out. The others move a linear model over features, or over the vectors
        of a pretrained `encoder`, which stays as it is; see `sigmax.training.online.OnlineLinear`. An encoder with a
        vocabulary of its own, such as ngrams, would not learn the words that come later; features hashed by
        scikit-learn's HashingVectorizer do. As long as the rows held out are not both right and wrong, logits count
        as they are: `temperature_` is 1, and presences are σ(s).

        Args:
            X: see `fit`.
            y: see `fit`; labels of `classes`.
            classes: all labels there will ever be; in the first call, unless y is an indicator or `fit` went before.
            sample_weight: see `fit`.

        Raises:
            ValueError: no `classes` in the first call, a label that is not among them, a classifier fitted to texts by
                `fit`, `class_weight` "balanced", texts without a pretrained encoder, or what `fit` refuses.
        """
        texts = _texts(X)
        first = not hasattr(self, "_online")
        if hasattr(self, "model_"):
            raise ValueError(
                "Expected a classifier that has not been fitted to texts: those train a model of their own."
            )
        if self.class_weight == "balanced":
            raise ValueError("Expected weights in `class_weight`, got 'balanced': not all rows are known yet.")
        if first and texts is not None:
            self._trunk = _trunk(self.encoder)
        rows = self._encoded(texts) if texts is not None else self._features(X, reset=first)
        weights = _check_sample_weight(sample_weight, rows, ensure_non_negative=True)
        if first:
            self._learn_labels(y, classes)
            if classes is None and (_in_lists(y) or not self._several):
                raise ValueError("classes must be passed on the first call to partial_fit: all labels there will be.")
            self._online = OnlineLinear(self.loss, len(self.classes_), rows.shape[1])
            self._chance = np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))
            self._seen = 0
            self._held = rows[:0], np.empty((0, len(self.classes_)), dtype=bool)
        right = self._right(y, _count(rows))
        if self.class_weight is not None:
            weights = weights * compute_sample_weight(self.class_weight, right.astype(int) if self._several else y)
        before, self._seen = self._seen, self._seen + len(right)
        share = self.validation_fraction
        order = self._chance.permutation(len(right))
        dev, train_rows = np.split(order, [int(self._seen * share) - int(before * share)])
        self._online.learn(rows[train_rows], right[train_rows], weights[train_rows])
        self.coef_, self.intercept_ = self._online.weights, self._online.biases
        stack = sparse.vstack if sparse.issparse(rows) else np.concatenate
        kept, known = stack([self._held[0], rows[dev]])[-KEPT:], np.concatenate([self._held[1], right[dev]])[-KEPT:]
        self._held = kept, known
        self._calibrate(self._linear(kept), known, int(self._chance.integers(2**31)))
        return self

    def _calibrate(self, logits: Floats, right: Bools, seed: int, calibrator: Calibrator | None = None) -> None:
        possible = right.any() and not right.all()
        if not self._several:
            self.temperature_ = fit_temperature(logits, right) if possible else 1.0
            return
        names = [str(label) for label in self.classes_]
        self._calibrator = calibrator or (fit_calibrator(logits, right, names, seed=seed) if possible else None)
        self.threshold_ = 0.5 if self._calibrator is None else self._calibrator.default_threshold

    def decision_function(self, X: Any) -> Floats:
        """Logits (n, L); for two single labels (n,), the second's less the first's.

        Raises:
            ValueError: rows of another kind or width than those of `fit`.
        """
        check_is_fitted(self)
        logits = self._logits(self._checked(X))
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 and not self._several else logits

    def predict_proba(self, X: Any) -> Floats:
        """(n, L) shares for single labels, presences where there may be several; see the class.

        Raises:
            ValueError: rows of another kind or width than those of `fit`.
        """
        check_is_fitted(self)
        logits = self._logits(self._checked(X))
        if self._several:
            if self._calibrator is None:
                return np.asarray(special.expit(logits))
            presences: Floats = self._calibrator.presence(logits, [str(label) for label in self.classes_])
            return presences
        shares: Floats = special.softmax(logits / self.temperature_, axis=1)
        return shares

    def predict(self, X: Any) -> NDArray[Any]:
        """(n,) labels, or an (n, L) indicator where y had several.

        Raises:
            ValueError: rows of another kind or width than those of `fit`.
        """
        probabilities = self.predict_proba(X)
        if self._several:
            return (probabilities >= self.threshold_).astype(np.int64)
        labels: NDArray[Any] = self.classes_[probabilities.argmax(1)]
        return labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy; where y has several labels a row, the share of rows predicted without any mistake."""
        if not _in_lists(y):
            return float(super().score(X, y, sample_weight))
        known = {*self.classes_.tolist()}
        exact = (self.predict(X) == self._right(y, len(y))).all(1)
        exact &= np.array([known.issuperset(row) for row in y])  # nothing predicts a label that fit did not have
        return float(np.average(exact, weights=sample_weight))

    # -- rows and labels -------------------------------------------------------------------------

    def _checked(self, X: Any, as_texts: bool | None = None) -> Any:
        texts = _texts(X)
        if as_texts is None:
            as_texts = hasattr(self, "model_") or hasattr(self, "_trunk")
        if as_texts != (texts is not None):
            raise ValueError(f"Expected `X` to be {'texts' if as_texts else 'features'} as in fit, got the other.")
        return self._features(X, reset=False) if texts is None else texts

    def _features(self, X: Any, **how: Any) -> Any:
        """(n, d) dense or sparse; rows that are arrays of their own are put together."""
        if getattr(X, "ndim", 1) == 1 and hasattr(X, "__len__") and not isinstance(X, str | bytes | dict):
            rows = list(X)
            if not rows:
                raise ValueError("Expected rows in `X`, got none: 0 sample(s).")
            if all(isinstance(row, np.ndarray) and row.ndim == 1 for row in rows) and len({*map(len, rows)}) == 1:
                X = np.stack(rows)
        return validate_data(self, X, dtype=np.float64, accept_sparse="csr", **how)

    def _encoded(self, texts: list[str]) -> Floats:
        vectors: Floats = self._trunk.preprocess(texts)["vectors"].double().numpy()
        return vectors

    def _learn_labels(self, y: Any, classes: Any = None) -> None:
        """Set `classes_`, and whether a row may have several of them."""
        if _in_lists(y):
            self._several, self.classes_ = True, np.array(sorted({label for row in y for label in row}))
        else:
            if getattr(y, "ndim", 1) == 2 and not sparse.issparse(y) and set(np.unique(np.asarray(y))) == {-1, 1}:
                raise ValueError("Expected an indicator of 0 and 1 in `y`, got -1 and 1. Try y > 0.")
            check_classification_targets(y)
            self._several = type_of_target(y) == "multilabel-indicator"
            self.classes_ = np.arange(_dense(y).shape[1]) if self._several else np.unique(column_or_1d(y, warn=True))
        if classes is not None:
            self.classes_ = np.unique(column_or_1d(classes))
        if len(self.classes_) < 2:
            raise ValueError(
                f"Expected at least 2 classes in `y`, got {len(self.classes_)} class: there is nothing to tell apart."
            )

    def _right(self, y: Any, n: int) -> Bools:
        """(n, L) which labels are right."""
        if _in_lists(y):
            right = np.array([[label in row for label in self.classes_] for row in y])
        elif self._several:
            right = _dense(y) != 0
        else:
            right = column_or_1d(y)[:, None] == self.classes_
        if right.shape != (n, len(self.classes_)):
            raise ValueError(
                f"Expected `y` for {n} rows and {len(self.classes_)} labels, got inconsistent numbers of samples or "
                f"labels: {right.shape}."
            )
        if not (self._several or right.any(1).all()):
            raise ValueError(f"Expected labels that `y` of fit has, got others in {int((~right.any(1)).sum())} rows.")
        return right

    def _logits(self, rows: Any) -> Floats:
        if hasattr(self, "model_"):
            return self.model_.logits(rows, self.model_.candidates).values.astype(np.float64)
        return self._linear(self._encoded(rows) if hasattr(self, "_trunk") else rows)

    def _linear(self, features: Any) -> Floats:
        logits: Floats = np.asarray(features @ self.coef_.T) + self.intercept_
        return logits


def _texts(X: Any) -> list[str] | None:
    """Texts as a list, also of one column of them; None for what is to be features."""
    if isinstance(X, str | bytes):
        raise DataError(f"Expected a list of texts in `X`, got one text: {X[:60]!r}. Put it into a list.")
    shape: tuple[int, ...] = getattr(X, "shape", ())
    if len(shape) == 2 and shape[1] == 1 and not sparse.issparse(X):
        column = np.asarray(X)[:, 0]
        return _texts(column) if column.dtype.kind in "OUST" else None
    if len(shape) > 1 or not hasattr(X, "__len__"):
        return None
    rows = list(X)
    others = [i for i, row in enumerate(rows) if not isinstance(row, str)]
    if len(others) == len(rows):
        return None
    if others:
        raise DataError(
            f"Expected a text in each row of `X`, got {len(others)} of {len(rows)} that are none, the first of them in "
            f"row {others[0]}: {rows[others[0]]!r}."
        )
    return [str(row) for row in rows]


def _trunk(encoder: str | None) -> FrozenEncoder:
    """The pretrained encoder by this name."""
    if encoder is None or not is_pretrained(encoder):
        raise ValueError(
            f"Expected features, or texts and a pretrained `encoder`, got texts and encoder={encoder!r}: its "
            "vocabulary is that of all rows. Put a HashingVectorizer before it, or name a sentence-transformers model "
            "or static vectors."
        )
    return FrozenEncoder(load_pretrained(encoder), linear=True)


def _count(rows: Any) -> int:
    return int(rows.shape[0]) if hasattr(rows, "shape") else len(rows)


def _dense(y: Any) -> NDArray[Any]:
    return np.asarray(y.toarray() if sparse.issparse(y) else y)


def _in_lists(y: Any) -> bool:
    """Whether y gives the names of each row's labels in a list, tuple or set."""
    return (
        getattr(y, "ndim", 1) == 1
        and hasattr(y, "__len__")
        and len(y) > 0
        and all(isinstance(row, list | tuple | set | frozenset) and all(isinstance(x, str) for x in row) for row in y)
    )


def _dataset(
    rows: list[str], right: Bools, weights: Floats | None, dev: list[str], dev_right: Bools, names: list[str]
) -> MatchDataset:
    return MatchDataset(
        name="fit",
        queries=[*rows, *dev],
        candidates=names,
        pairs=np.argwhere(np.concatenate([right, dev_right])),
        splits={"train": np.arange(len(rows)), "dev": len(rows) + np.arange(len(dev))},
        labels=True,
        weights=None if weights is None else np.concatenate([weights, np.ones(len(dev))]),
    )


def _fit_linear(loss: str, features: Any, right: Bools, weights: Floats | None) -> tuple[Floats, Floats]:
    """(L, d) weights and (L,) biases on the features as given, at the minimum that `SigmaxClassifier` states."""
    if weights is not None or sparse.issparse(features):
        return fit_weighted(loss, features, right, np.ones(len(right)) if weights is None else weights)
    mean, deviation = features.mean(0), features.std(0)
    deviation[deviation <= 1e-12 * np.maximum(1, np.abs(mean))] = 1.0  # constant: z is 0 and teaches nothing
    z = torch.from_numpy((features - mean) / deviation)
    found = fit_linear(z, sparse.csr_array(right.astype(np.int8)), loss, 1 / len(z), tolerance=1e-12, steps=1000)
    coefficients: Floats = found.weights.numpy() / deviation
    return coefficients, found.biases.numpy() - coefficients @ mean
