import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.special import log_softmax, softmax
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import sigmax
from sigmax import SigmaxClassifier
from sigmax.errors import DataError
from sigmax.families import OBJECTIVES
from sigmax.training.holding_out import fit_temperature, held_out

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")


def expected_failures(estimator):
    reason = "rows are held out by lot, so a row of weight 2 is not two rows, of which one may be held out"
    return {f"check_sample_weight_equivalence_on_{kind}_data": reason for kind in ("dense", "sparse")}


@parametrize_with_checks(
    [SigmaxClassifier("sigmoid"), SigmaxClassifier("softmax-decoupled")], expected_failed_checks=expected_failures
)
def test_scikit_learn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the checks cast NaN themselves
        check(estimator)


# -- features --------------------------------------------------------------------------------------


def standardised():
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.mark.parametrize(
    ("loss", "reference"),
    [
        ("softmax-average", LogisticRegression(C=1.0, tol=1e-8)),
        ("softmax-any", LogisticRegression(C=1.0, tol=1e-8)),  # with one right answer all softmaxes are one
        ("sigmoid", OneVsRestClassifier(LogisticRegression(C=1.0, tol=1e-8))),
    ],
)
def test_features_are_logistic_regression(loss, reference):
    X, y = standardised()
    fitted = SigmaxClassifier(loss).fit(X, y, dev=(X, y))
    reference.fit(X, y)
    logits = fitted.decision_function(X)
    expected = reference.decision_function(X)
    if loss.startswith("softmax"):  # which cannot see what is common to a row
        logits, expected = (part - part.mean(1, keepdims=True) for part in (logits, expected))
    np.testing.assert_allclose(logits, expected, atol=2e-3)


def test_units_of_features_do_not_matter():
    X, y = load_iris(return_X_y=True)
    fitted = SigmaxClassifier(random_state=0).fit(X, y)
    other = SigmaxClassifier(random_state=0).fit(X * [1e-3, 1.0, 1e4, 1.0] + 7, y)
    np.testing.assert_allclose(fitted.predict_proba(X), other.predict_proba(X * [1e-3, 1.0, 1e4, 1.0] + 7), atol=1e-4)


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_single_labels(loss):
    X, y = load_digits(return_X_y=True)
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])[y]
    fitted = SigmaxClassifier(loss, random_state=0).fit(X[:1000], names[:1000])
    shares, predicted = fitted.predict_proba(X[1000:]), fitted.predict(X[1000:])
    assert fitted.classes_.tolist() == sorted(set(names))
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(shares, softmax(fitted.decision_function(X[1000:]) / fitted.temperature_, axis=1))
    assert (predicted == fitted.classes_[shares.argmax(1)]).all()
    assert fitted.score(X[1000:], names[1000:]) == accuracy_score(names[1000:], predicted) > 0.85
    # The temperature is for this: the bare softmax of the logits is farther off.
    bare = softmax(fitted.decision_function(X[1000:]), axis=1)
    assert log_loss(names[1000:], shares, labels=fitted.classes_) < log_loss(names[1000:], bare) + 0.05


def test_two_labels():
    X, y = load_iris(return_X_y=True)
    fitted = SigmaxClassifier(random_state=0).fit(X, y == 2)
    decided = fitted.decision_function(X)
    assert decided.shape == (150,)
    assert ((decided > 0) == fitted.predict(X)).all()
    assert fitted.predict_proba(X).shape == (150, 2)


def several(X):
    """Labels that depend on the features, none of them on some rows."""
    return (X[:, :3] + np.random.default_rng(0).normal(0, 0.3, (len(X), 3)) > 0.8).astype(int)


@pytest.mark.parametrize("given", ["dense", "sparse", "lists"])
def test_several_labels(given):
    X, _ = standardised()
    indicator = several(X)
    assert (indicator.sum(1) == 0).any()
    assert (indicator.sum(1) > 1).any()
    names = np.array(["long", "round", "wide"])
    y = {
        "dense": indicator,
        "sparse": sparse.csr_matrix(indicator),
        "lists": [names[row > 0].tolist() for row in indicator],
    }[given]
    fitted = SigmaxClassifier(random_state=0, validation_fraction=0.3).fit(X, y)
    assert fitted.classes_.tolist() == (names.tolist() if given == "lists" else [0, 1, 2])
    presences = fitted.predict_proba(X)
    assert ((presences >= 0) & (presences <= 1)).all()
    assert np.ptp(presences.sum(1)) > 0.5
    assert presences.mean() == pytest.approx(indicator.mean(), abs=0.05)
    predicted = fitted.predict(X)
    assert (predicted == (presences >= fitted.threshold_)).all()
    assert f1_score(indicator, predicted, average="micro") > 0.7
    if given != "sparse":
        assert fitted.score(X, y) == accuracy_score(indicator, predicted)


# -- what people bring ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax-average", "sigmoid"])
def test_sparse_features_are_dense_ones(loss):
    X, y = standardised()
    X = np.where(np.abs(X) > 1, X, 0)
    dense = SigmaxClassifier(loss, random_state=0).fit(X, y)
    for kind in (sparse.csr_matrix, sparse.csc_array, sparse.coo_array):
        fitted = SigmaxClassifier(loss, random_state=0).fit(kind(X), y)
        np.testing.assert_allclose(fitted.predict_proba(kind(X)), dense.predict_proba(X), atol=1e-4)


def test_a_vectorizer_before_it(names):
    X, y = names
    pipeline = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)), SigmaxClassifier("sigmoid", random_state=0)
    )
    assert pipeline.fit(X[:500], y[:500]).score(X[500:], y[500:]) > 0.5


@pytest.mark.parametrize("loss", ["softmax-average", "sigmoid"])
def test_weights_are_repetitions(loss):
    """With rows of its own to calibrate on; nothing else is left to chance."""
    X, y = standardised()
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    weighted = SigmaxClassifier(loss).fit(X, y, sample_weight=weights, dev=(X, y))
    repeated = SigmaxClassifier(loss).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights), dev=(X, y))
    logits, expected = weighted.decision_function(X), repeated.decision_function(X)
    if loss.startswith("softmax"):  # which cannot see what is common to a row
        logits, expected = (part - part.mean(1, keepdims=True) for part in (logits, expected))
    np.testing.assert_allclose(logits, expected, atol=2e-3)


def test_class_weights_are_sample_weights():
    X, y = standardised()
    X, y = X[:110], y[:110]  # ten of the last class
    balanced = SigmaxClassifier("sigmoid", class_weight="balanced").fit(X, y, dev=(X, y))
    given = SigmaxClassifier("sigmoid").fit(X, y, sample_weight=110 / 3 / np.bincount(y)[y], dev=(X, y))
    np.testing.assert_allclose(balanced.coef_, given.coef_, atol=1e-6)
    reference = OneVsRestClassifier(LogisticRegression(C=1.0, tol=1e-8)).fit(X, y)
    assert (balanced.predict(X) == 2).sum() > (reference.predict(X) == 2).sum()
    doubled = SigmaxClassifier("sigmoid", class_weight={0: 1, 1: 1, 2: 5}).fit(X, y, dev=(X, y))
    given = SigmaxClassifier("sigmoid").fit(X, y, sample_weight=np.where(y == 2, 5, 1), dev=(X, y))
    np.testing.assert_allclose(doubled.coef_, given.coef_, atol=1e-6)


def test_weights_are_routed():
    X, y = standardised()
    weights = np.where(y == 0, 3.0, 1.0)
    with config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, SigmaxClassifier(random_state=0).set_fit_request(sample_weight=True))
        pipeline.fit(X, y, sample_weight=weights)
    alone = SigmaxClassifier(random_state=0).fit(StandardScaler().fit_transform(X), y, sample_weight=weights)
    np.testing.assert_allclose(pipeline[-1].coef_, alone.coef_)


def test_rare_labels():
    """100 rows × 3 labels of which 3% are right: whatever the seed, right and wrong are both held out."""
    failed = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        X = random.normal(size=(100, 5))
        y = (random.random((100, 3)) < 0.03).astype(int)
        y[:3] = np.eye(3, dtype=int)  # no label without a right row
        y[3:5] = np.eye(3, dtype=int)[:2]
        fitted = SigmaxClassifier(random_state=seed).fit(X, y)
        presences = fitted.predict_proba(X)
        if not (np.isfinite(presences).all() and presences.mean() < 0.25):
            failed.append(seed)
    assert not failed


def test_grid_search_over_rare_labels():
    random = np.random.default_rng(1)
    X, y = random.normal(size=(200, 4)), (random.random((200, 3)) < 0.05).astype(int)
    search = GridSearchCV(
        SigmaxClassifier(random_state=0), {"loss": ["sigmoid", "softmax-any"]}, cv=3, error_score="raise"
    )
    assert np.isfinite(search.fit(X, y).best_score_)


def test_lists_of_labels_in_cross_validation():
    X, _ = standardised()
    names = np.array(["long", "round", "wide"])
    y = [names[row > 0].tolist() for row in several(X)]
    scores = cross_val_score(SigmaxClassifier(random_state=0), X, y, cv=KFold(3, shuffle=True, random_state=0))
    indicator = several(X)
    expected = cross_val_score(
        SigmaxClassifier(random_state=0), X, indicator, cv=KFold(3, shuffle=True, random_state=0)
    )
    np.testing.assert_allclose(scores, expected)
    sets = [{*row} for row in y]  # with folds by their number scikit-learn itself refuses lists
    assert np.isfinite(cross_val_score(SigmaxClassifier(random_state=0), X, sets, cv=3, error_score="raise")).all()
    fitted = SigmaxClassifier(random_state=0).fit(X, y)
    assert (fitted.predict(X) == SigmaxClassifier(random_state=0).fit(X, sets).predict(X)).all()
    strange = [*y[:-1], [*y[-1], "square"]]
    assert fitted.score(X, strange) <= fitted.score(X, y)
    assert fitted.score(X[-1:], [["square"]]) == 0


def test_frames_of_one_column(names):
    X, y = names
    plain = SigmaxClassifier(epochs=1, random_state=0).fit(X[:200], y[:200])
    expected = plain.predict(X[200:220])
    polars = pytest.importorskip("polars")
    for kind in (
        lambda column: pandas.DataFrame({"text": column}),
        lambda column: pandas.Series(column),
        lambda column: np.array(column, dtype=object)[:, None],
        lambda column: polars.DataFrame({"text": list(map(str, column))}),
        lambda column: polars.Series(list(map(str, column))),
    ):
        fitted = SigmaxClassifier(epochs=1, random_state=0).fit(kind(X[:200]), y[:200])
        assert (fitted.predict(kind(X[200:220])) == expected).all()


def test_frames_of_features():
    polars = pytest.importorskip("polars")
    X, y = standardised()
    expected = SigmaxClassifier(random_state=0).fit(X, y).predict_proba(X)
    frame = {f"x{j}": X[:, j] for j in range(4)}
    for kind in (pandas.DataFrame(frame), polars.DataFrame(frame)):
        fitted = SigmaxClassifier(random_state=0).fit(kind, y)
        assert fitted.feature_names_in_.tolist() == list(frame)
        np.testing.assert_allclose(fitted.predict_proba(kind), expected)
    rows = pandas.Series(list(X))  # an array in each row, as an encoder gives them
    np.testing.assert_allclose(SigmaxClassifier(random_state=0).fit(rows, y).predict_proba(rows), expected)
    np.testing.assert_allclose(SigmaxClassifier(random_state=0).fit(X, polars.Series(y)).predict_proba(X), expected)


# -- held out --------------------------------------------------------------------------------------


def test_dev_rows_are_not_trained_on():
    X, y = load_iris(return_X_y=True)
    random = np.random.default_rng(0)
    fitted = SigmaxClassifier("softmax-average").fit(X, y, dev=(X[::2], y[::2]))
    shuffled = SigmaxClassifier("softmax-average").fit(X, y, dev=(X[::2], random.permutation(y[::2])))
    assert (fitted.coef_ == shuffled.coef_).all()
    assert fitted.temperature_ < 2
    assert shuffled.temperature_ > 2 * fitted.temperature_


@given(st.integers(0, 50))
def test_a_row_of_each_label_is_trained_on(seed):
    y = np.random.default_rng(seed).integers(0, 5, 40)
    right = y[:, None] == np.arange(6)  # the last is nobody's
    train, dev = held_out(right, 0.5, seed)
    assert len(dev) == 20
    assert sorted([*train, *dev]) == list(range(40))
    assert set(y[train]) == set(y)


@pytest.mark.slow
@given(st.integers(0, 30))
def test_temperature(seed):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (200, 4))
    right = np.eye(4, dtype=bool)[[random.choice(4, p=row) for row in softmax(logits / 2.5, axis=1)]]
    temperature = fit_temperature(logits, right)
    assert temperature == pytest.approx(2.5, rel=0.5)

    def loss(t):
        total = 0.0
        for i in range(200):
            for j in range(4):
                y = (1 - 1 / 202) * right[i, j] + 1 / 202 / 4
                total -= y * log_softmax(logits[i] / t)[j]
        return total

    assert loss(temperature) <= min(loss(temperature * 1.01), loss(temperature / 1.01)) + 1e-9
    assert fit_temperature(logits * 10, right) == pytest.approx(10 * temperature, rel=1e-3)
    assert fit_temperature(logits + random.normal(size=(200, 1)), right) == pytest.approx(temperature, rel=1e-3)


def test_few_rows_do_not_make_sure():
    """All of them predicted rightly: no finite temperature would be the best without smoothing."""
    right = np.eye(3, dtype=bool)
    temperature = fit_temperature(10.0 * right, right)
    assert 0.6 < softmax(10.0 * right / temperature, axis=1).max() < 0.9


# -- texts -----------------------------------------------------------------------------------------


def emoji(column):
    corpus = Path(sigmax.__file__).parent / "data" / "builtin" / "emoji" / "corpus.jsonl"
    return [json.loads(line)[column] for line in corpus.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def names():
    """Names of emoji, and the group of each."""
    X, y = np.array(emoji("text")), np.array(emoji("group"))
    common = np.flatnonzero(y != "components")  # nine emoji
    chosen = np.random.default_rng(0).permutation(common)[:700]
    return X[chosen], y[chosen]


@pytest.fixture(scope="module")
def keywords():
    """Keywords of emoji, and the groups of the emoji they are keywords of."""
    data, groups = sigmax.load_data("emoji"), emoji("group")
    labels = [sorted({groups[j] for j in data.graph[[i]].indices}) for i in range(len(data.queries))]
    chosen = np.random.default_rng(0).permutation(len(data.queries))[:900]
    return np.array([data.queries[i] for i in chosen]), [labels[i] for i in chosen]


@pytest.fixture(scope="module")
def fitted(keywords):
    X, y = keywords
    return SigmaxClassifier(epochs=5, random_state=0).fit(X[:700], y[:700])


def test_texts_with_several_labels(keywords, fitted, tmp_path):
    X, y = keywords
    truth = np.array([[label in row for label in fitted.classes_] for row in y[700:]])
    presences, predicted = fitted.predict_proba(X[700:]), fitted.predict(X[700:])
    rates = np.array([[label in row for label in fitted.classes_] for row in y[:700]]).mean(0)
    losses = [log_loss(truth[:, j], presences[:, j]) for j in range(truth.shape[1])]
    base = [log_loss(truth[:, j], np.full(200, rates[j])) for j in range(truth.shape[1])]
    assert np.mean(losses) < np.mean(base)
    everything = f1_score(truth, np.ones_like(truth), average="micro")
    assert f1_score(truth, predicted, average="micro") > everything + 0.05
    assert fitted.score(X[700:], y[700:]) == accuracy_score(truth, predicted)
    # What was trained is a model like any other.
    fitted.model_.save(tmp_path / "model")
    match = sigmax.load(tmp_path / "model").match(str(X[700]), top_k=1)[0]
    assert match.presence == pytest.approx(presences[0].max(), abs=1e-5)


def test_texts_are_trained_by_train(keywords, fitted):
    assert fitted.model_.facts["settings"]["loss"] == "sigmoid"
    assert fitted.model_.facts["settings"]["epochs"] == 5
    assert fitted.model_.facts["data"]["queries"] == 700
    assert fitted.model_.calibrator.about["queries"] == 70


def test_texts_with_single_labels(names):
    X, y = names
    first = SigmaxClassifier("softmax-average", epochs=4, random_state=1).fit(X[:500], y[:500])
    again = clone(first).fit(list(X[:500]), y[:500].tolist())
    shares = first.predict_proba(X[500:])
    assert (shares == again.predict_proba(X[500:])).all()
    np.testing.assert_allclose(shares.sum(1), 1)
    assert first.score(X[500:], y[500:]) == accuracy_score(y[500:], first.predict(X[500:])) > 0.5
    rates = np.unique(y[:500], return_counts=True)[1] / 500
    assert log_loss(y[500:], shares) < 0.75 * log_loss(y[500:], np.tile(rates, (200, 1)))
    other = clone(first).set_params(random_state=2).fit(X[:500], y[:500])
    assert (shares != other.predict_proba(X[500:])).any()


def test_pickle(keywords, fitted):
    X, _ = keywords
    back = pickle.loads(pickle.dumps(fitted))
    assert (back.predict_proba(X[700:]) == fitted.predict_proba(X[700:])).all()


@pytest.mark.parametrize("given", ["sample_weight", "class_weight"])
def test_weights_of_texts(given):
    """Each text is called two things; the weights decide which."""
    X = [f"{word} {i % 7}" for i in range(60) for word in ("red", "blue")] * 2
    y = np.repeat(["warm", "cold"], 120)
    dev = (["red 1", "blue 2"], ["warm", "cold"])
    for favoured in ("warm", "cold"):
        weights = np.where(y == favoured, 5.0, 0.5)
        ours = SigmaxClassifier("softmax-average", encoder="ngrams", epochs=2, random_state=0)
        if given == "sample_weight":
            ours.fit(X, y, sample_weight=weights, dev=dev)
        else:
            ours.set_params(class_weight={favoured: 5.0, {"warm": "cold", "cold": "warm"}[favoured]: 0.5})
            ours.fit(X, y, dev=dev)
        assert (ours.predict(X) == favoured).all()


# -- part by part ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax-average", "sigmoid"])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_the_first_part_is_learnt_as_fit_learns_it(loss, kind):
    X, y = standardised()
    X = sparse.csr_array(X * (np.abs(X) > 0.3)) if kind == "sparse" else X
    weights = np.where(y == 0, 2.0, 1.0)
    part = SigmaxClassifier(loss, validation_fraction=0.001)
    part.partial_fit(X, y, classes=[0, 1, 2], sample_weight=weights)
    whole = SigmaxClassifier(loss).fit(X, y, sample_weight=weights, dev=(X, y))
    logits, expected = part.decision_function(X), whole.decision_function(X)
    if loss.startswith("softmax"):
        logits, expected = (one - one.mean(1, keepdims=True) for one in (logits, expected))
    np.testing.assert_allclose(logits, expected, atol=2e-3)


@pytest.mark.slow
def test_parts_are_learnt_nearly_as_well_as_the_whole():
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    train, test = order[:1300], order[1300:]
    parts = {"dense": X, "sparse": sparse.csr_array(X)}
    ours = {kind: SigmaxClassifier("softmax-average", random_state=0) for kind in parts}
    for rows in np.array_split(train, 20):
        for kind, features in parts.items():
            ours[kind].partial_fit(features[rows], y[rows], classes=np.arange(10))
    np.testing.assert_allclose(ours["dense"].predict_proba(X), ours["sparse"].predict_proba(parts["sparse"]), atol=1e-4)
    whole = SigmaxClassifier("softmax-average", random_state=0).fit(X[train], y[train])
    assert ours["dense"].score(X[test], y[test]) > whole.score(X[test], y[test]) - 0.02
    assert log_loss(y[test], ours["dense"].predict_proba(X[test])) < 0.25


def test_a_part_after_fit():
    """What fit learnt is not forgotten: labels that the new rows do not have are known as before."""
    X, y = load_digits(return_X_y=True)
    ours = SigmaxClassifier("softmax-average", random_state=0).fit(X[:900], y[:900])
    before = ours.score(X[1000:], y[1000:])
    new = np.flatnonzero(y[900:1000] < 5) + 900
    ours.partial_fit(X[new], y[new])
    assert ours.score(X[1000:], y[1000:]) > before - 0.03


@pytest.mark.slow
def test_parts_with_several_labels():
    random = np.random.default_rng(0)
    X = random.normal(size=(600, 4))
    right = X[:, :3] > 0.8
    names = np.array(["long", "round", "wide"])
    y = [names[row].tolist() for row in right]
    ours, other = SigmaxClassifier(random_state=0), SigmaxClassifier(random_state=0)
    ours.partial_fit(X[:2], [[], []], classes=names)
    np.testing.assert_allclose(ours.predict_proba(X[:5]), 0.5, atol=0.5)  # nothing to calibrate on as yet
    for start in range(0, 600, 100):
        ours.partial_fit(X[start : start + 100], y[start : start + 100], classes=names)
        other.partial_fit(X[start : start + 100], right[start : start + 100].astype(int))
    assert ours.score(X, y) > 0.8
    assert other.score(X, right.astype(int)) > 0.8
    again = pickle.loads(pickle.dumps(ours)).partial_fit(X[:50], y[:50])
    assert (again.predict_proba(X) != ours.predict_proba(X)).any()


def test_parts_of_texts(names, static_folder):
    X, y = names
    ours = SigmaxClassifier("softmax-average", encoder=str(static_folder), random_state=0)
    for start in range(0, 600, 200):
        ours.partial_fit(X[start : start + 200], y[start : start + 200], classes=np.unique(y))
    assert ours.predict_proba(list(X[600:])).shape == (100, len(np.unique(y)))
    assert not hasattr(ours, "n_features_in_")
    with pytest.raises(ValueError, match="to be texts as in fit, got the other"):
        ours.predict(np.ones((3, 4)))


def test_refused_parts():
    X, y = standardised()
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        SigmaxClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match="labels that `y` of fit has, got others in 50 rows"):
        SigmaxClassifier().partial_fit(X, y, classes=[0, 1])
    texts = SigmaxClassifier(encoder="ngrams", epochs=1).fit(["a b", "c d"] * 9, [0, 1] * 9)
    with pytest.raises(ValueError, match="has not been fitted to texts"):
        texts.partial_fit(["a"], [0])
    with pytest.raises(ValueError, match="got 'balanced': not all rows are known yet"):
        SigmaxClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])
    for encoder in (None, "ngrams"):
        with pytest.raises(ValueError, match=f"encoder={encoder!r}: its vocabulary is that of all rows. Put a Hashing"):
            SigmaxClassifier(encoder=encoder).partial_fit(["a", "b"], [0, 1], classes=[0, 1])


# -- in scikit-learn's machinery -------------------------------------------------------------------


def test_grid_search():
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(SigmaxClassifier(random_state=0), {"loss": ["sigmoid", "softmax-average"]}, cv=3)
    assert search.fit(X, y).best_score_ > 0.9
    assert search.best_params_["loss"] in ("sigmoid", "softmax-average")


def test_grid_search_over_texts(names):
    X, y = names
    ours = SigmaxClassifier(encoder="ngrams", epochs=3, random_state=0)
    search = GridSearchCV(ours, {"learning_rate": [1e-7, 0.05]}, cv=2)
    assert search.fit(X[:300], y[:300]).best_params_ == {"learning_rate": 0.05}
    assert search.score(X[300:], y[300:]) > 0.5


def test_pipeline(names):
    X, y = names
    dense = make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), max_features=300), Dense())
    pipeline = make_pipeline(dense, SigmaxClassifier("softmax-average", random_state=0))
    scores = cross_val_score(pipeline, X, y, cv=2, error_score="raise")
    assert (scores > 0.5).all()


class Dense(StandardScaler):
    """From a sparse matrix to a dense one."""

    def fit(self, X, y=None):
        return super().fit(X.toarray())

    def transform(self, X):
        return super().transform(X.toarray())


# -- what is refused -------------------------------------------------------------------------------


def test_refused():
    X, y = load_iris(return_X_y=True)
    fitted = SigmaxClassifier(random_state=0).fit(X, y)
    for arguments, error, message in (
        ((X, None), ValueError, "requires y to be passed"),
        ((X, np.zeros(150)), ValueError, "at least 2 classes in `y`, got 1 class"),
        ((X[:3], ["a", "b", "c"]), ValueError, "more rows than labels.*got 3 rows of 3 labels.*dev="),
        ((["a text", "another", float("nan")], [0, 1, 1]), DataError, "1 of 3 that are none.*row 2: nan"),
        ((X, y[:-1]), ValueError, "`y` for 150 rows.*inconsistent"),
        ((X, np.where(y[:, None] == [0, 1, 2], 1, -1)), ValueError, "an indicator of 0 and 1 in `y`, got -1 and 1"),
        (([], []), ValueError, "Expected rows in `X`, got none"),
        (("one text", ["a"]), DataError, "a list of texts in `X`, got one text: 'one text'"),
        ((X, np.zeros((150, 3), int)), DataError, "right and wrong labels among the 15 rows .* got wrong ones alone"),
        ((X, np.linspace(0, 1, 150)), ValueError, "Unknown label type: continuous"),
    ):
        with pytest.raises(error, match=message):
            SigmaxClassifier().fit(*arguments)
    with pytest.raises(ValueError, match=r"`validation_fraction` between 0 and 1, got 1\.5"):
        SigmaxClassifier(validation_fraction=1.5).fit(X, y)
    with pytest.raises(ValueError, match=r"`loss` to be one of .*Did you mean 'sigmoid'"):
        SigmaxClassifier("sigmoyd").fit(X, y)
    with pytest.raises(ValueError, match="labels that `y` of fit has, got others in 150 rows"):
        SigmaxClassifier().fit(X, y, dev=(X, y + 10))
    with pytest.raises(ValueError, match="Expected `X` to be features as in fit, got the other"):
        fitted.predict(["a text"])
    with pytest.raises(DataError, match="Expected a list of texts in `X`, got one text: 'a text'"):
        fitted.predict("a text")
