import json
import math

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as theirs
from sklearn.linear_model import LogisticRegression

from helpers.scripted import MEASURED, Scripted, numbered, random_case
from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.curves import Platt, PlattCandidate
from sigmax.errors import DataError, UnknownNameError
from sigmax.evaluation import calibrate, evaluate, quick_metrics
from sigmax.metrics import presence
from sigmax.metrics.registry import watched

AUROC = ["none_auroc_share", "none_auroc_logit", "none_auroc_presence"]
NONE = [*AUROC, "fpr95_share", "fpr95_logit", "fpr95_presence"]
PRESENCE = [
    "log_loss",
    "brier",
    "calibration_error",
    "smooth_calibration_error",
    "calibration_slope",
    "expected_ratio",
    "micro_f1",
    "macro_f1",
]
ANY = ["none_auroc_any", "fpr95_any", "any_log_loss", "any_brier", "any_calibration_error"]
CALIBRATED = {*PRESENCE, *ANY, "none_auroc_presence", "fpr95_presence", "aurc", "excess_aurc"}  # need a calibration
#: Resampling adds noise, which adds to what is already nearly 0: an interval may lie above the value.
NOISY = {"calibration_error", "smooth_calibration_error"}


def fpr95(answered, scores):
    false, true, _ = theirs.roc_curve(answered, scores, drop_intermediate=False)
    return false[np.argmax(true >= 0.95)]


# -- against direct computation ------------------------------------------------------------------


@pytest.mark.parametrize("split", ["dev", "test"])
def test_equals_direct_computation(split):
    data, logits, right = random_case()
    platt, threshold = Platt(1.3, -1.1), 0.4
    model = Scripted(logits, platt, threshold)
    found = evaluate(model, data, split=split, draws=50)
    rows = data.split(split)
    s, y = logits[rows].astype(np.float32).astype(np.float64), right[rows]
    answered = y.any(1)
    order = np.argsort(-s[answered], axis=1)
    ranked = np.take_along_axis(y[answered], order, 1)
    p = expit(1.3 * s - 1.1)
    wrong = ~y[np.arange(len(y)), s.argmax(1)]
    expected = {
        "map": theirs.label_ranking_average_precision_score(y[answered], s[answered]),
        "mrr": (1 / (ranked.argmax(1) + 1)).mean(),
        "ndcg@10": theirs.ndcg_score(y[answered], s[answered], k=10),
        "precision@1": ranked[:, 0].mean(),
        "precision@5": ranked[:, :5].mean(),
        **{f"recall@{k}": (ranked[:, :k].sum(1) / ranked.sum(1)).mean() for k in (1, 5, 10, 100)},
        "log_loss": theirs.log_loss(y.ravel(), p.ravel()) * y.shape[1],
        "brier": theirs.brier_score_loss(y.ravel(), p.ravel()) * y.shape[1],
        "micro_f1": theirs.f1_score(y, p >= threshold, average="micro"),
        "macro_f1": np.mean([theirs.f1_score(y[:, j], p[:, j] >= threshold) for j in range(12)]),
        "none_auroc_share": theirs.roc_auc_score(answered, softmax(s, axis=1).max(1)),
        "none_auroc_logit": theirs.roc_auc_score(answered, s.max(1)),
        "none_auroc_presence": theirs.roc_auc_score(answered, p.max(1)),
        "fpr95_share": fpr95(answered, softmax(s, axis=1).max(1)),
        "fpr95_logit": fpr95(answered, s.max(1)),
        "fpr95_presence": fpr95(answered, p.max(1)),
        "expected_ratio": p.sum() / y.sum(),
        "aurc": np.mean(np.cumsum(wrong[np.argsort(-p.max(1))]) / np.arange(1, len(p) + 1)),
    }
    slope = LogisticRegression(C=np.inf, tol=1e-10).fit((1.3 * s - 1.1).reshape(-1, 1), y.ravel()).coef_[0, 0]
    assert found["calibration_slope"].value == pytest.approx(slope, rel=1e-3)
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-6), name
    assert (found.data, found.split, found.queries, found.unanswered) == ("numbered", split, 30, (~answered).sum())
    assert model.asked == [([str(i) for i in rows], data.candidates)]


def test_calibration_error_directly():
    data, logits, right = random_case(300, 15)
    platt = Platt(0.7, -0.5)
    found = evaluate(Scripted(logits, platt, 0.5), data, draws=0)["calibration_error"].value
    p = expit(0.7 * logits[data.split("test")].astype(np.float32) - 0.5).ravel()
    y = right[data.split("test")].ravel()[np.argsort(p)]
    bins = zip(np.array_split(np.sort(p), 15), np.array_split(y, 15), strict=True)
    expected = sum(abs(claimed.sum() - truth.sum()) for claimed, truth in bins) / len(p)
    assert found == pytest.approx(expected, abs=0.003)


def test_ranking_is_measured_in_the_order_of_presence():
    """A scale and bias per candidate reorder the candidates; by logit is measured where that is asked for."""
    data, logits, right = random_case(300, 12)
    random = np.random.default_rng(2)
    scales, biases = random.uniform(0.2, 3, 12), random.normal(size=12)
    model = Scripted(logits, PlattCandidate(1.0, 0.0, tuple(scales), tuple(biases)), 0.4)
    rows = data.split("test")
    s, y = logits[rows].astype(np.float32).astype(float), right[rows]
    answered = y.any(1)
    for order, scores in (("presence", s * scales + biases), ("logit", s)):
        found = evaluate(model, data, order=order, draws=0)
        assert found.order == found.as_dict()["order"] == order
        expected = theirs.label_ranking_average_precision_score(y[answered], scores[answered])
        assert found["map"].value == pytest.approx(expected)
        best = scores.argmax(1)
        wrong = ~y[np.arange(len(y)), best]
        sure = expit(s * scales + biases)[np.arange(len(y)), best]
        risks = np.cumsum(wrong[np.argsort(-sure)]) / np.arange(1, len(y) + 1)
        assert found["aurc"].value == pytest.approx(risks.mean())
    assert evaluate(model, data, draws=0).order == "presence"
    model.calibrator = None
    assert evaluate(model, data, draws=0).order == "logit"
    with pytest.raises(UnknownNameError, match=r"`order`.*'map'"):
        evaluate(model, data, order="map")


def test_quick_metrics_are_the_same():
    data, logits, _ = random_case()
    quick = quick_metrics(Scripted(logits), data)
    found = evaluate(Scripted(logits), data, split="dev", draws=0)
    assert quick == {name: found[name].value for name in watched()}
    assert set(MEASURED) - set(found.draws) == CALIBRATED
    assert quick_metrics(Scripted(logits), data, split="test") != quick


# -- perfect, and hopeless -----------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_perfect_and_hopeless(sign):
    data, _, right = random_case()
    random = np.random.default_rng(1)
    logits = sign * np.where(right, 5, -5) + random.random(right.shape)
    model = Scripted(logits)
    if sign > 0:
        calibrate(model, data)
    else:
        model.calibrator = Calibrator(Platt(1.0, 0.0), (), threshold=0.5)
    found = evaluate(model, data)
    plain = {name: found[name].value for name in MEASURED}
    if sign > 0:
        ones = ["map", "mrr", "ndcg@10", "precision@1", "recall@10", "micro_f1", "macro_f1", *AUROC]
        assert {name: plain[name] for name in ones} == dict.fromkeys(ones, 1.0)
        assert [plain[name] for name in set(NONE) - set(AUROC)] == [0, 0, 0]
        assert plain["excess_aurc"] == pytest.approx(0, abs=1e-12)
        assert np.isnan(plain["calibration_slope"]), "right and wrong pairs are wholly apart"
        assert (found["map"].low, found["map"].high) == (1.0, 1.0)
        assert plain["log_loss"] < 0.3
        assert plain["calibration_error"] < 0.02
    else:
        zeros = ["precision@1", "micro_f1", "macro_f1"]
        assert {name: plain[name] for name in zeros} == dict.fromkeys(zeros, 0.0)
        assert plain["map"] < 0.3
        assert plain["log_loss"] > 30


# -- intervals -----------------------------------------------------------------------------------


def test_intervals():
    data, logits, _ = random_case()
    model = Scripted(logits, Platt(1.0, -1.0), 0.5)
    found = evaluate(model, data)
    for name in MEASURED:
        value = found[name]
        assert name in NOISY or value.low <= value.value <= value.high, name
        assert value.low < value.high or name == "recall@100", name  # of 12 candidates
        assert found.draws[name].shape == (1001,)
    again = evaluate(model, data)
    assert all(np.array_equal(found.draws[name], again.draws[name]) for name in MEASURED)
    plain = evaluate(model, data, draws=0)
    assert plain["map"].value == pytest.approx(found["map"].value, rel=1e-12)
    assert plain.as_dict()["metrics"]["map"] == {"value": plain["map"].value, "low": None, "high": None}


def test_an_interval_is_as_wide_as_the_mean_is_uncertain():
    """Of 400 queries of which half are right at the top, precision@1 has the standard error √(¼/400)."""
    right = np.zeros((1200, 2), bool)
    right[np.arange(1200), np.arange(1200) % 2] = True
    logits = np.tile([1.0, 0.0], (1200, 1))
    value = evaluate(Scripted(logits), numbered(right))["precision@1"]
    assert value.value == pytest.approx(0.5, abs=0.01)
    assert value.high - value.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 400), rel=0.1)


def test_as_dict():
    data, logits, _ = random_case()
    found = evaluate(Scripted(logits), data, draws=20)
    about = found.as_dict()
    assert {key: about[key] for key in ("data", "split", "queries", "unanswered")} == {
        "data": "numbered",
        "split": "test",
        "queries": 30,
        "unanswered": found.unanswered,
    }
    assert about["metrics"]["mrr"] == found["mrr"].as_dict()
    assert list(about["metrics"]) == list(found.draws)
    assert about["reliability"] == about["risk_coverage"] == []


def test_curves():
    data, logits, right = random_case()
    found = evaluate(Scripted(logits, Platt(1.0, -1.0), 0.5), data, draws=50)
    about = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert [b["pairs"] for b in about["reliability"]] == [b.pairs for b in found.reliability]
    rows = data.split("test")
    assert sum(b.pairs for b in found.reliability) == right[rows].size
    assert sum(b.pairs * b.right.value for b in found.reliability) == pytest.approx(right[rows].sum())
    assert len(found.risk_coverage) == len(rows)
    top = right[rows][np.arange(30), logits[rows].argmax(1)].mean()
    assert about["risk_coverage"][-1]["coverage"] == 1
    assert found.risk_coverage[-1].risk.value == pytest.approx(1 - top)
    assert np.mean([point.risk.value for point in found.risk_coverage]) == pytest.approx(found["aurc"].value)


# -- metrics that cannot be given ----------------------------------------------------------------


def test_no_metrics_of_none_where_every_query_has_answers():
    data, logits, _ = random_case(unanswered=0.0)
    found = evaluate(Scripted(logits, Platt(1.0, 0.0), 0.5), data)
    assert set(MEASURED) - set(found.draws) == {*NONE, "none_auroc_any", "fpr95_any"}
    assert found.unanswered == 0
    assert not set(NONE) & set(quick_metrics(Scripted(logits), data))


def test_no_presence_without_calibration():
    data, logits, _ = random_case()
    found = evaluate(Scripted(logits), data)
    assert set(MEASURED) - set(found.draws) == CALIBRATED
    assert found.reliability == found.risk_coverage == ()


def test_no_ranking_where_no_query_has_answers():
    data, logits, right = random_case()
    gone = right.copy()
    gone[data.split("test")] = False
    found = evaluate(Scripted(logits, Platt(1.0, 0.0), 0.5), numbered(gone))
    assert list(found.draws) == [*PRESENCE, "any_log_loss", "any_brier", "any_calibration_error"]
    assert found.unanswered == found.queries


def test_order_is_that_of_tables():
    data, logits, _ = random_case()
    assert list(evaluate(Scripted(logits, Platt(1.0, 0.0), 0.5), data, draws=1).draws) == list(MEASURED)


@pytest.mark.parametrize("look", [evaluate, quick_metrics, calibrate])
def test_unknown_split(look):
    data, logits, _ = random_case()
    with pytest.raises(UnknownNameError, match=r"`split`.*'tests'.*Did you mean 'test'"):
        look(Scripted(logits), data, split="tests")


# -- calibration ---------------------------------------------------------------------------------


def test_calibrate_is_a_logistic_regression_on_dev():
    data, logits, right = random_case(1500, 12)
    model = Scripted(logits)
    calibrate(model, data, method="platt")
    rows = data.split("dev")
    s, y = logits[rows].astype(np.float32).ravel(), right[rows].ravel()
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(s[:, None], y)
    assert model.calibration.scale == pytest.approx(fit.coef_[0, 0], rel=0.01)
    assert model.calibration.bias == pytest.approx(fit.intercept_[0], rel=0.01)
    p = model.calibration.presence(s)
    best = max(theirs.f1_score(y, p >= threshold) for threshold in np.quantile(p, np.linspace(0, 1, 60)))
    assert theirs.f1_score(y, p >= model.threshold) >= best
    assert model.asked == [([str(i) for i in rows], data.candidates)]


def test_calibrate_on_another_split():
    data, logits, _ = random_case(1500, 12)
    dev, train = Scripted(logits), Scripted(logits)
    calibrate(dev, data, method="platt")
    calibrate(train, data, method="platt", split="train")
    assert train.calibration != dev.calibration
    assert train.calibration.scale == pytest.approx(dev.calibration.scale, rel=0.2)


def test_a_sample_of_the_wrong_pairs_does(monkeypatch):
    data, logits, right = random_case(3000, 20)
    whole, part, other, again = (Scripted(logits) for _ in range(4))
    calibrate(whole, data, method="platt")
    right_pairs = int(right[data.split("dev")].sum())
    monkeypatch.setattr("sigmax.calibration.calibrator.CALIBRATION_PAIRS", right_pairs + 3000)
    calibrate(part, data, method="platt")
    calibrate(other, data, method="platt", seed=1)
    calibrate(again, data, method="platt")
    assert part.calibration != whole.calibration
    assert part.calibration == again.calibration
    assert other.calibration != part.calibration
    for one in (part, other):
        assert one.calibration.scale == pytest.approx(whole.calibration.scale, rel=0.1)
        assert one.calibration.bias == pytest.approx(whole.calibration.bias, rel=0.1)
        assert one.threshold == pytest.approx(whole.threshold, abs=0.07)
    mean = part.calibration.presence(logits[data.split("dev")]).mean()
    assert mean == pytest.approx(right[data.split("dev")].mean(), rel=0.05)


def test_bins_of_a_sample_do(monkeypatch):
    data, logits, _ = random_case(3000, 20)
    model = Scripted(logits, Platt(0.8, -1.5), 0.5)
    whole = evaluate(model, data, draws=0)
    monkeypatch.setattr(presence, "SAMPLE", 2000)
    part = evaluate(model, data, draws=0)
    for name in MEASURED:
        if name == "calibration_error":
            assert part[name].value == pytest.approx(whole[name].value, abs=0.005)
        elif name == "smooth_calibration_error":  # of another grid
            assert part[name].value == pytest.approx(whole[name].value, rel=0.01)
        else:
            assert part[name].value == whole[name].value


@pytest.mark.parametrize(("value", "message"), [(False, "got 0 and 90"), (True, "got 90 and 0")])
def test_nothing_to_calibrate_on(value, message):
    data = numbered(np.full((90, 3), value))
    with pytest.raises(DataError, match=f"right and wrong pairs.*{message}"):
        calibrate(Scripted(np.zeros((90, 3))), data)
