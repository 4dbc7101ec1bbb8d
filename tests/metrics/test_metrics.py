import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as theirs
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from sigmax.metrics import Difference, Estimate, ranking
from sigmax.metrics import presence as presence_metrics
from sigmax.metrics.abstention import RiskCoverage, any_metrics, auroc_metric, fpr95_metric
from sigmax.metrics.bins import BINS, expected_edges, mass_edges
from sigmax.metrics.intervals import (
    bootstrap_weights,
    combine_seeds,
    difference,
    estimate,
    mean_statistic,
    measure,
)
from sigmax.metrics.presence import PresenceTally
from sigmax.metrics.ranking import best_first, ranking_metrics, ranking_values
from sigmax.metrics.smooth import COARSEST, FINEST, smooth_grid

RANKING = [metric.name for metric in ranking.METRICS]
PRESENCE = [metric.name for metric in presence_metrics.METRICS]
ANY = ["none_auroc_any", "fpr95_any", "any_log_loss", "any_brier", "any_calibration_error"]
SELECTION = ["aurc", "excess_aurc"]


def one(n: int) -> np.ndarray:
    return np.ones((1, n))


def plain(metric) -> float:
    return float(metric[0])


# -- ranking -------------------------------------------------------------------------------------


def ranked(logits: list[float], right: set[int], depth: int) -> dict[str, float]:
    """The metrics of one query, from their definitions."""
    order = sorted(range(len(logits)), key=lambda j: (-logits[j], j))[:depth]
    found = [place for place, j in enumerate(order, start=1) if j in right]
    gain = sum(1 / math.log2(1 + place) for place in found if place <= 10)
    best = sum(1 / math.log2(1 + place) for place in range(1, min(10, len(right)) + 1))
    metrics = {
        "map": sum(sum(1 for other in found if other <= place) / place for place in found) / len(right),
        "mrr": 1 / found[0] if found else 0.0,
        "ndcg@10": gain / best,
    }
    for k in (1, 5):
        metrics[f"precision@{k}"] = sum(place <= k for place in found) / k
    for k in (1, 5, 10, 100):
        metrics[f"recall@{k}"] = sum(place <= k for place in found) / len(right)
    return metrics


def random_ranking(n: int, m: int, seed: int, values: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Logits (with `values` different ones: many ties) and right answers, none for some queries."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, m)) if values is None else random.integers(values, size=(n, m))
    right = random.random((n, m)) < random.choice([0.0, 0.1, 0.4], size=(n, 1))
    right[0, 0], right[1] = True, False
    return logits.astype(np.float32), right


def assert_ranked(logits: np.ndarray, right: np.ndarray, depth: int) -> None:
    found = ranking_values(logits, right)
    assert list(found) == list(RANKING)
    for i in range(len(logits)):
        answers = set(np.flatnonzero(right[i]).tolist())
        expected = ranked(logits[i].tolist(), answers, depth) if answers else dict.fromkeys(RANKING, math.nan)
        assert {name: values[i] for name, values in found.items()} == pytest.approx(expected, abs=1e-6, nan_ok=True)


@given(st.integers(2, 6), st.integers(1, 150), st.integers(0, 1000), st.sampled_from([None, 1, 2, 5]))
def test_ranking(n, m, seed, values):
    assert_ranked(*random_ranking(n, m, seed, values), depth=ranking.DEPTH)


@pytest.mark.parametrize("values", [None, 1, 2, 5, 20])
@pytest.mark.parametrize("depth", [1, 5, 20])
def test_ranking_ends_at_a_depth(monkeypatch, depth, values):
    monkeypatch.setattr(ranking, "DEPTH", depth)
    for seed in range(10):
        assert_ranked(*random_ranking(5, 60, seed, values), depth=depth)


def test_ties_at_the_depth_go_by_the_order_of_candidates():
    logits = np.zeros((1, 3000), np.float32)
    for place, reciprocal in ((0, 1), (1, 1 / 2), (ranking.DEPTH - 1, 1 / ranking.DEPTH), (ranking.DEPTH, 0)):
        right = np.zeros((1, 3000), bool)
        right[0, place] = True
        assert ranking_values(logits, right)["mrr"] == pytest.approx([reciprocal])
    assert_ranked(*random_ranking(3, 3000, seed=0, values=2), depth=ranking.DEPTH)
    assert_ranked(*random_ranking(3, 3000, seed=0, values=9), depth=ranking.DEPTH)


@pytest.mark.parametrize(
    ("n", "m", "values"), [(60, 40, None), (60, 40, 3), (20, 3000, None), (20, 3000, 50), (5, 1, 1)]
)
def test_ranking_is_trec_evals_to_the_last_digit(n, m, values):
    import pytrec_eval

    logits, right = random_ranking(n, m, seed=3, values=values)
    found = ranking_values(logits, right)
    theirs = {"map": "map", "mrr": "recip_rank", "ndcg@10": "ndcg_cut_10"}
    theirs |= {f"precision@{k}": f"P_{k}" for k in (1, 5)} | {f"recall@{k}": f"recall_{k}" for k in (1, 5, 10, 100)}
    order = np.argsort(-logits, axis=1, kind="stable")[:, : ranking.DEPTH]
    answered = np.flatnonzero(right.any(1))
    truth = {str(i): {str(j): 1 for j in np.flatnonzero(right[i])} for i in answered}
    run = {str(i): {str(j): float(-rank) for rank, j in enumerate(order[i])} for i in answered}
    measured = pytrec_eval.RelevanceEvaluator(truth, set(theirs.values())).evaluate(run)
    for name, their in theirs.items():
        assert found[name][answered].tolist() == [measured[str(i)][their] for i in answered], name


def test_map_is_label_ranking_average_precision():
    logits, right = random_ranking(40, 30, seed=0)
    answered = right.any(1)
    expected = theirs.label_ranking_average_precision_score(right[answered], logits[answered])
    assert plain(ranking_metrics(ranking_values(logits, right))["map"](one(40))) == pytest.approx(expected, abs=1e-6)


def test_ndcg_is_scikit_learns():
    logits, right = random_ranking(40, 30, seed=1)
    answered = right.any(1)
    expected = theirs.ndcg_score(right[answered], logits[answered], k=10)
    assert plain(ranking_metrics(ranking_values(logits, right))["ndcg@10"](one(40))) == pytest.approx(
        expected, abs=1e-6
    )


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([2, 5, 1000]), st.booleans())
def test_best_first(n, m, seed, values, falls):
    """By presence, equal ones by logit, equal ones as offered; any depth gives the beginning of the whole order."""
    random = np.random.default_rng(seed)
    logits = (random.integers(values, size=(n, m)) / 7).astype(np.float32)
    presence = (random.integers(values, size=(n, m)) if falls else logits // 0.5) / values
    for depth in range(1, m + 1):
        found = best_first(logits, depth, presence)
        for i, row in enumerate(found.tolist()):
            order = sorted(range(m), key=lambda j: (-presence[i][j], -logits[i][j], j))
            assert row == order[:depth]
        by_logit = best_first(logits, depth)
        for i, row in enumerate(by_logit.tolist()):
            assert row == sorted(range(m), key=lambda j: (-logits[i][j], j))[:depth]


def test_ranking_by_presence_is_that_of_its_logits():
    """A scale and bias per candidate reorder the candidates, and the metrics follow."""
    logits, right = random_ranking(40, 30, seed=3)
    random = np.random.default_rng(0)
    moved = logits * random.uniform(0.2, 3, 30) + random.normal(size=30)
    presence = 1 / (1 + np.exp(-moved.astype(float)))
    found, expected = ranking_values(logits, right, presence), ranking_values(moved, right)
    plain_order = ranking_values(logits, right)
    for name in RANKING:
        assert found[name] == pytest.approx(expected[name], nan_ok=True)
    assert not np.allclose(found["map"], plain_order["map"], equal_nan=True)


def test_queries_without_an_answer_are_left_out_of_ranking():
    logits, right = random_ranking(20, 12, seed=2)
    answered = right.any(1)
    assert not answered.all()
    everything = ranking_metrics(ranking_values(logits, right))
    kept = ranking_metrics(ranking_values(logits[answered], right[answered]))
    for name in RANKING:
        assert everything[name](one(20)) == pytest.approx(kept[name](one(answered.sum())))
    nothing = ranking_values(logits, np.zeros_like(right))
    assert all(np.isnan(values).all() for values in nothing.values())
    assert all(np.isnan(metric(one(20))) for metric in ranking_metrics(nothing).values())


def test_numbers_too_close_for_32_bits_are_still_apart():
    logits = np.array([[1.0, 1.0 + 1e-12, 0.5]])
    assert ranking_values(logits, np.array([[False, True, False]]))["mrr"] == [1.0]


# -- presence ------------------------------------------------------------------------------------


def random_presence(n: int, m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Presences and truths; some candidates are neither right nor claimed at 0.5."""
    random = np.random.default_rng(seed)
    presence = random.random((n, m)).round(2).clip(0.01, 0.99)
    right = random.random((n, m)) < presence / 2
    presence[:, 0], right[:, 0] = 0.02, False
    return presence, right


def added(presence: np.ndarray, right: np.ndarray, made: PresenceTally) -> PresenceTally:
    for block in (slice(0, 1), slice(1, 4), slice(4, None)):
        if len(presence[block]):
            made.add(presence[block], right[block])
    return made


def tally(presence: np.ndarray, right: np.ndarray, threshold: float = 0.5, edges: np.ndarray | None = None, **given):
    made = PresenceTally(threshold, mass_edges(presence) if edges is None else edges, **given)
    return added(presence, right, made).metrics()


def calibration_error(presence: np.ndarray, right: np.ndarray, edges: np.ndarray) -> float:
    """Σ_b (n_b / N) |mean p − mean y|."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for p, y in zip(presence.ravel().tolist(), right.ravel().tolist(), strict=True):
        bins.setdefault(sum(edge <= p for edge in edges.tolist()), []).append((p, y))
    error = 0.0
    for pairs in bins.values():
        gap = sum(p for p, _ in pairs) / len(pairs) - sum(y for _, y in pairs) / len(pairs)
        error += len(pairs) / presence.size * abs(gap)
    return error


NEW = ("smooth_calibration_error", "calibration_slope", "expected_ratio")  # each has tests of its own


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(("n", "m"), [(1, 5), (7, 4), (40, 25)])
def test_presence(n, m, threshold):
    presence, right = random_presence(n, m, seed=n)
    right[0, 1] = True
    metrics = tally(presence, right, threshold)
    assert list(metrics) == list(PRESENCE)
    metrics = {name: metric for name, metric in metrics.items() if name not in NEW}
    y, p, said = right.ravel(), presence.ravel(), presence >= threshold
    expected = {
        "log_loss": theirs.log_loss(y, p, normalize=False) / n,
        "brier": theirs.brier_score_loss(y, p) * m,
        "calibration_error": calibration_error(presence, right, mass_edges(presence)),
        "micro_f1": theirs.f1_score(y, said.ravel()),
        "macro_f1": theirs.f1_score(right, said, average="macro", zero_division=np.nan),
    }
    assert {name: plain(metric(one(n))) for name, metric in metrics.items()} == pytest.approx(expected)


def test_micro_f1_is_scikit_learns():
    presence, right = random_presence(30, 12, seed=5)
    expected = theirs.f1_score(right, presence >= 0.5, average="micro")
    assert plain(tally(presence, right)["micro_f1"](one(30))) == pytest.approx(expected)


def test_bins_hold_equally_many():
    presence = np.random.default_rng(0).random((20, 30)) ** 4
    edges = mass_edges(presence)
    assert edges.shape == (BINS - 1,)
    assert np.bincount(np.searchsorted(edges, presence.ravel(), side="right")).tolist() == [600 // BINS] * BINS


def test_calibration_error_sees_a_shift():
    random = np.random.default_rng(0)
    presence = random.random((500, 40))
    right = random.random((500, 40)) < presence
    edges = mass_edges(presence)
    assert plain(tally(presence, right, edges=edges)["calibration_error"](one(500))) < 0.02
    moved = np.clip(presence + 0.1, 0, 1)
    assert plain(tally(moved, right, edges=mass_edges(moved))["calibration_error"](one(500))) == pytest.approx(
        0.095, abs=0.02
    )


def test_equal_presences_are_one_bin():
    presence, right = np.full((4, 5), 0.25), np.zeros((4, 5), bool)
    right[0, :4] = True
    assert plain(tally(presence, right)["calibration_error"](one(4))) == pytest.approx(0.05)


def test_presences_of_0_and_1_have_a_finite_log_loss():
    metrics = tally(np.array([[0.0, 1.0]]), np.array([[True, False]]))
    assert plain(metrics["log_loss"](one(1))) == pytest.approx(2 * -math.log(1e-12))
    assert plain(metrics["brier"](one(1))) == 2
    metrics = tally(np.array([[0.0, 1.0]]), np.array([[False, True]]))
    assert plain(metrics["log_loss"](one(1))) == pytest.approx(0, abs=1e-9)


def test_f1_of_nothing_is_not_a_number():
    metrics = tally(np.array([[0.1, 0.2]] * 3), np.zeros((3, 2), bool))
    assert np.isnan(metrics["micro_f1"](one(3)))
    assert np.isnan(metrics["macro_f1"](one(3)))


def smooth_error_at(sigma: float, presence: np.ndarray, right: np.ndarray) -> float:
    """∫₀¹ |Σ (p − y) K_σ(t, p) / N| dt; K_σ: the normal densities around p and all its images beyond 0 and 1."""
    steps = int(max(300, 6 / sigma))
    area = 0.0
    for t in (np.arange(steps) + 0.5) / steps:
        kernel = np.zeros(presence.size)
        for fold in (-4, -2, 0, 2, 4):
            for image in (presence.ravel() + fold, -presence.ravel() + fold):
                kernel += np.exp(-(((t - image) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
        area += abs(((presence - right).ravel() * kernel).mean()) / steps
    return area


def smooth_error(presence: np.ndarray, right: np.ndarray) -> float:
    """The σ that equals the smooth error at σ, by bisection: the one rises, the other falls."""
    low, high = 0.0, 1.0
    for _ in range(17):
        sigma = (low + high) / 2
        low, high = (sigma, high) if smooth_error_at(sigma, presence, right) > sigma else (low, sigma)
    return (low + high) / 2


@pytest.mark.parametrize(("power", "shift"), [(1, 0.1), (1, 0.5), (6, 0.004), (3, -0.2)])
def test_smooth_calibration_error_is_the_papers(power, shift):
    random = np.random.default_rng(power)
    presence = random.random((30, 16)) ** power
    right = random.random((30, 16)) < np.clip(presence + shift, 0, 1)
    grid = smooth_grid(presence.ravel(), right.ravel())
    found = plain(tally(presence, right, grid=grid)["smooth_calibration_error"](one(30)))
    assert found == pytest.approx(smooth_error(presence, right), rel=5e-3)
    assert COARSEST <= grid <= FINEST
    assert grid * found >= 3.9 or grid == FINEST
    finer = tally(presence, right, grid=FINEST)["smooth_calibration_error"](one(30))
    assert found == pytest.approx(plain(finer), rel=5e-3)


def test_smooth_calibration_error_of_one_presence():
    """Whatever the width, a reflected kernel keeps the mass: |p − share right|, if it is not wider than that."""
    right = np.arange(20).reshape(4, 5) < 6
    for p in (0.0, 0.25, 1.0):
        found = plain(tally(np.full((4, 5), p), right)["smooth_calibration_error"](one(4)))
        assert found == pytest.approx(abs(p - 0.3), abs=1e-6)
    assert plain(tally(right.astype(float), right)["smooth_calibration_error"](one(4))) == 0
    wrong = plain(tally(right.astype(float), ~right)["smooth_calibration_error"](one(4)))
    assert wrong == pytest.approx(smooth_error(right.astype(float), ~right), rel=1e-3)


def drawn_pairs(n: int, m: int, seed: int, slope: float, intercept: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Presences, and truths whose logits are intercept + slope · the presences' logits."""
    random = np.random.default_rng(seed)
    z = random.normal(-2, 2, size=(n, m))
    truth = 1 / (1 + np.exp(-(intercept + slope * z)))
    return 1 / (1 + np.exp(-z)), random.random((n, m)) < truth


@pytest.mark.parametrize("slope", [0.3, 1.0, 2.5, -0.7])
def test_calibration_slope_is_a_logistic_regression(slope):
    presence, right = drawn_pairs(60, 50, 0, slope, intercept=-0.5)
    metric = tally(presence, right)["calibration_slope"]
    weights = bootstrap_weights(60, draws=3)
    z = np.log(presence / (1 - presence))
    for draw, found in zip(weights, metric(weights), strict=True):
        fit = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky")
        fit.fit(z.reshape(-1, 1), right.ravel(), sample_weight=np.repeat(draw, 50))
        assert found == pytest.approx(fit.coef_[0, 0], rel=1e-3)


def test_no_calibration_slope_where_there_is_none():
    apart = np.array([[0.1, 0.2, 0.8, 0.9]] * 3)
    for presence, right in (
        (apart, apart > 0.5),
        (apart, np.zeros((3, 4), bool)),
        (apart, np.ones((3, 4), bool)),
        (np.full((3, 4), 0.3), apart > 0.5),
        (apart, apart < 0.5),
    ):
        assert np.isnan(tally(presence, right)["calibration_slope"](one(3)))
    ends = tally(np.array([[0.0, 1.0, 0.5, 0.5], [0.0, 1.0, 0.4, 0.6]]), np.array([[0, 1, 1, 0], [0, 1, 1, 0]], bool))
    assert np.isfinite(ends["calibration_slope"](one(2)))


def test_expected_ratio():
    presence, right = np.array([[0.5, 0.25], [0.75, 0.5]]), np.array([[True, False], [False, False]])
    metric = tally(presence, right)["expected_ratio"]
    assert metric(np.array([[1.0, 1], [2, 0], [0, 2]])) == pytest.approx([2, 0.75, np.nan], nan_ok=True)


def test_reliability_is_scikit_learns():
    presence, right = drawn_pairs(200, 30, 1, 1.0)
    edges = np.quantile(presence, np.arange(1, BINS) / BINS)
    made = added(presence, right, PresenceTally(0.5, edges))
    shares, means = calibration_curve(right.ravel(), presence.ravel(), n_bins=BINS, strategy="quantile")
    bins = made.reliability(bootstrap_weights(200, draws=400))
    assert [b.presence for b in bins] == pytest.approx(means)
    assert [b.right.value for b in bins] == pytest.approx(shares)
    assert sum(b.pairs for b in bins) == presence.size
    for b in bins:
        assert b.right.low <= b.right.value <= b.right.high
        deviation = math.sqrt(b.right.value * (1 - b.right.value) / b.pairs)
        assert b.right.high - b.right.low == pytest.approx(2 * 1.96 * deviation, rel=0.35)
        assert b.as_dict() == {"pairs": b.pairs, "presence": b.presence, "right": b.right.as_dict()}


def test_bins_of_the_diagram_expect_equally_many():
    presence, right = drawn_pairs(400, 30, 2, 1.0)
    made = added(presence, right, PresenceTally.like(presence.ravel(), right.ravel(), 0.5))
    assert made.threshold == 0.5
    assert made.edges == pytest.approx(mass_edges(presence))
    assert made.grid == smooth_grid(presence.ravel(), right.ravel())
    bins = made.reliability(one(400))
    assert len(bins) == BINS
    for b in bins:
        assert b.pairs * b.presence == pytest.approx(presence.sum() / BINS, abs=1.5)
    assert [b.presence for b in bins] == sorted(b.presence for b in bins)
    assert (
        len(added(presence * 0 + 0.5, right, PresenceTally(0.5, expected_edges(np.full(9, 0.5)))).reliability(one(400)))
        == 1
    )


# -- none of these -------------------------------------------------------------------------------


@given(st.integers(2, 30), st.integers(0, 1000), st.sampled_from([1, 3, 1000]))
def test_auroc(n, seed, values):
    random = np.random.default_rng(seed)
    scores, answered = random.integers(values, size=n) / 7, random.random(n) < 0.5
    answered[0], answered[1] = True, False
    weights = random.integers(0, 4, size=(450, n)).astype(float)
    weights[0], weights[1], weights[:, :2] = 1, 0, np.maximum(weights[:, :2], 1)
    found = auroc_metric(scores, answered)(weights)
    for draw in (0, 1, 2, 199, 200, 449):  # in every block
        expected = theirs.roc_auc_score(answered, scores, sample_weight=weights[draw])
        assert found[draw] == pytest.approx(expected)


def test_auroc_counts_ties_half():
    metric = auroc_metric(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False]))
    assert plain(metric(one(4))) == (1 + 1 + 0.5 + 1) / 4
    assert plain(auroc_metric(np.zeros(4), np.array([True, True, True, False]))(one(4))) == 0.5


def test_auroc_without_one_kind_is_not_a_number():
    metric = auroc_metric(np.array([3.0, 2.0, 1.0]), np.array([True, True, False]))
    values = metric(np.array([[1.0, 1, 1], [2, 1, 0], [0, 0, 3]]))
    assert np.isnan(values).tolist() == [False, True, True]


@given(st.integers(2, 40), st.integers(0, 1000), st.sampled_from([1, 3, 1000]))
def test_fpr95_is_scikit_learns(n, seed, values):
    random = np.random.default_rng(seed)
    scores, answered = random.integers(values, size=n) / 7, random.random(n) < 0.5
    answered[0], answered[1] = True, False
    weights = random.integers(0, 4, size=(120, n)).astype(float)
    weights[0], weights[:, :2] = 1, np.maximum(weights[:, :2], 1)
    found = fpr95_metric(scores, answered)(weights)
    assert ((found >= 0) & (found <= 1)).all()
    for draw in (0, 1, 49, 50, 119):  # in every block
        false, true, _ = theirs.roc_curve(answered, scores, sample_weight=weights[draw], drop_intermediate=False)
        assert found[draw] == pytest.approx(false[np.argmax(true >= 0.95 - 1e-12)])


def test_fpr95_by_hand():
    scores = np.append(np.arange(100.0), [2.0, 4.5, 5.0, 50.0])
    answered = np.arange(104) < 100
    assert plain(fpr95_metric(scores, answered)(one(104))) == 2 / 4  # 5, …, 99 are accepted, and so are 5 and 50
    assert np.isnan(fpr95_metric(scores, answered)(answered[None].astype(float)))
    assert np.isnan(fpr95_metric(scores, answered)((~answered)[None].astype(float)))


@given(st.integers(1, 40), st.integers(0, 1000))
def test_any(n, seed):
    random = np.random.default_rng(seed)
    q, answered = random.random(n).round(2), random.random(n) < 0.6
    metrics = any_metrics(q, answered)
    both = answered.any() and not answered.all()
    assert list(metrics) == [name for name in ANY if both or name not in ("none_auroc_any", "fpr95_any")]
    found = {name: plain(metric(one(n))) for name, metric in metrics.items()}
    assert found["any_log_loss"] == pytest.approx(theirs.log_loss(answered, q.clip(1e-12, 1 - 1e-12), labels=[0, 1]))
    assert found["any_brier"] == pytest.approx(theirs.brier_score_loss(answered, q, labels=[False, True]))
    assert found["any_calibration_error"] == pytest.approx(calibration_error(q, answered, mass_edges(q)))
    if both:
        assert found["none_auroc_any"] == pytest.approx(theirs.roc_auc_score(answered, q))
        assert found["fpr95_any"] == plain(fpr95_metric(q, answered)(one(n)))


@pytest.mark.parametrize("bad", [[0.5, 1.1], [-0.1, 0.5], [np.nan, 0.5]])
def test_any_must_be_probabilities(bad):
    with pytest.raises(ValueError, match=r"Expected `any_probability` in \[0, 1\]"):
        any_metrics(np.array(bad), np.array([True, False]))
    with pytest.raises(ValueError, match=r"Expected one probability per query, got `any_probability` \(2,\)"):
        any_metrics(np.array([0.5, 0.5]), np.array([True]))


# -- the surest first ----------------------------------------------------------------------------


def area_under_risk(confidence: list[float], wrong: list[bool]) -> float:
    """Mean over the queries of the share of wrong ones among those at least as sure."""
    risks = []
    for own in confidence:
        kept = [mistake for other, mistake in zip(confidence, wrong, strict=True) if other >= own]
        risks.append(sum(kept) / len(kept))
    return sum(risks) / len(risks)


@given(st.integers(1, 30), st.integers(0, 1000), st.sampled_from([2, 1000]))
def test_aurc(n, seed, values):
    random = np.random.default_rng(seed)
    confidence, wrong = random.integers(values, size=n) / 7, random.random(n) < 0.4
    metrics = RiskCoverage(confidence, wrong).metrics()
    assert list(metrics) == list(SELECTION)
    weights = bootstrap_weights(n, draws=60, seed=seed)
    area, excess = (metrics[name](weights) for name in SELECTION)
    for draw in (0, 1, 49, 50, 60):
        places = np.repeat(np.arange(n), weights[draw].astype(int))
        expected = area_under_risk(confidence[places].tolist(), wrong[places].tolist())
        errors = int(wrong[places].sum())
        least = area_under_risk(list(range(n, 0, -1)), [False] * (n - errors) + [True] * errors)
        assert area[draw] == pytest.approx(expected)
        assert excess[draw] == pytest.approx(expected - least, abs=1e-9)
    assert ((area >= 0) & (area <= 1) & (excess >= -1e-9)).all()


def test_aurc_of_the_best_and_of_no_order():
    wrong = np.arange(1000) >= 700
    best = RiskCoverage(-np.arange(1000.0), wrong).metrics()
    assert plain(best["excess_aurc"](one(1000))) == pytest.approx(0, abs=1e-12)
    assert plain(RiskCoverage(np.zeros(1000), wrong).metrics()["aurc"](one(1000))) == pytest.approx(0.3)


@pytest.mark.parametrize("n", [7, 100, 250])
def test_risk_coverage_points(n):
    random = np.random.default_rng(n)
    confidence, wrong = random.random(n).round(2), random.random(n) < 0.3
    points = RiskCoverage(confidence, wrong).points(bootstrap_weights(n, draws=200))
    assert len(points) == min(100, n)
    assert points[-1].coverage == 1
    assert points[-1].risk.value == pytest.approx(wrong.mean())
    for k, point in enumerate(points, start=1):
        needed = math.ceil(k / len(points) * n - 1e-9)
        level = np.sort(confidence)[::-1][needed - 1]
        assert point.coverage == pytest.approx(k / len(points))
        assert point.risk.value == pytest.approx(wrong[confidence >= level].mean())
        assert 0 <= point.risk.low <= point.risk.high <= 1
        assert point.as_dict() == {"coverage": point.coverage, "risk": point.risk.as_dict()}


# -- a weight is a repetition --------------------------------------------------------------------


def all_metrics(logits: np.ndarray, right: np.ndarray):
    """Every metric there is, with bins and threshold that do not move with the queries."""
    presence = 1 / (1 + np.exp(-logits.astype(float)))
    edges = np.linspace(0, 1, BINS + 1)[1:-1]
    return {
        **ranking_metrics(ranking_values(logits, right)),
        **tally(presence, right, threshold=0.7, edges=edges),
        "auroc": auroc_metric(logits.max(1).astype(float), right.any(1)),
        "fpr95": fpr95_metric(logits.max(1).astype(float), right.any(1)),
        **RiskCoverage(logits.max(1).astype(float), ~right[np.arange(len(right)), logits.argmax(1)]).metrics(),
        "any_log_loss": any_metrics(presence.max(1), right.any(1))["any_log_loss"],
        "any_brier": any_metrics(presence.max(1), right.any(1))["any_brier"],
    }


@pytest.mark.parametrize("seed", range(4))
def test_a_draw_is_the_metric_of_the_repeated_queries(seed):
    logits, right = random_ranking(12, 20, seed)
    metrics = all_metrics(logits, right)
    weights = bootstrap_weights(12, draws=250, seed=seed)
    drawn = measure(metrics, weights)
    for draw in (0, 1, 99, 100, 201, 250):
        places = np.repeat(np.arange(12), weights[draw].astype(int))
        repeated = all_metrics(logits[places], right[places])
        expected = {name: plain(metric(one(12))) for name, metric in repeated.items()}
        assert {name: values[draw] for name, values in drawn.items()} == pytest.approx(
            expected, rel=2e-5, abs=1e-9, nan_ok=True
        )


def test_a_weight_of_0_is_an_absence():
    logits, right = random_ranking(12, 20, seed=9)
    kept = np.arange(12) % 3 > 0
    kept[:2] = True
    drawn = measure(all_metrics(logits, right), kept[None].astype(float))
    alone = measure(all_metrics(logits[kept], right[kept]), one(kept.sum()))
    for name, values in drawn.items():
        assert values == pytest.approx(alone[name], rel=2e-5), name


# -- intervals -----------------------------------------------------------------------------------


def test_bootstrap_weights():
    weights = bootstrap_weights(7, draws=500)
    assert weights.shape == (501, 7)
    assert (weights[0] == 1).all()
    assert (weights.sum(1) == 7).all()
    assert weights[1:].mean() == 1
    assert weights[1:].var() == pytest.approx(6 / 7, abs=0.05)
    assert (bootstrap_weights(7, draws=500) == weights).all()
    assert (bootstrap_weights(7, draws=500, seed=1) != weights).any()
    assert bootstrap_weights(7, draws=0).shape == (1, 7)


def test_mean_statistic():
    metric = mean_statistic(np.array([1.0, np.nan, 4.0]))
    values = metric(np.array([[1.0, 1, 1], [2, 5, 1], [0, 3, 0]]))
    assert values == pytest.approx([2.5, 2.0, np.nan], nan_ok=True)


def test_estimate():
    draws = np.random.default_rng(0).permutation(np.arange(1001.0))
    found = estimate(np.append(400.0, draws))
    assert (found.value, found.low, found.high) == pytest.approx((400, 25, 975))
    with_holes = np.concatenate([[400.0], draws, [np.nan] * 7])
    assert estimate(with_holes) == found, "draws with nothing to measure are passed over"


def test_an_estimate_of_nothing():
    for values in ([np.nan, 1.0, 2.0], [3.0], [3.0, np.nan]):
        found = estimate(np.array(values))
        assert np.isnan(found.low)
        assert np.isnan(found.high)
        assert found.value == pytest.approx(values[0], nan_ok=True)


def test_json_has_no_nan():
    assert Estimate(0.5, math.nan, math.nan).as_dict() == {"value": 0.5, "low": None, "high": None}
    assert json.loads(json.dumps(Difference(0.5, 0.1, 0.9).as_dict(), allow_nan=False)) == {
        "value": 0.5,
        "low": 0.1,
        "high": 0.9,
        "significant": True,
    }


@pytest.mark.parametrize(
    ("low", "high", "significant"),
    [
        (0.1, 0.2, True),
        (-0.2, -0.1, True),
        (-0.1, 0.1, False),
        (0, 0.1, False),
        (-0.1, 0, False),
        (math.nan, math.nan, False),
    ],
)
def test_significant(low, high, significant):
    assert Difference(0.0, low, high).significant is significant


def test_differences_are_paired():
    """B is a little below A on every query: clear in pairs, although both intervals overlap."""
    random = np.random.default_rng(0)
    a = random.random(100)
    b = a - 0.02 - random.random(100) * 0.01
    weights = bootstrap_weights(100, draws=500)
    drawn = [mean_statistic(values)(weights) for values in (a, b)]
    assert estimate(drawn[0]).low < estimate(drawn[1]).high
    gap = difference(*drawn)
    assert gap.significant
    assert gap.value == pytest.approx((a - b).mean())
    turned = difference(drawn[1], drawn[0])
    assert (turned.value, turned.low, turned.high) == pytest.approx((-gap.value, -gap.high, -gap.low))
    assert difference(drawn[0], drawn[0]) == Difference(0.0, 0.0, 0.0)
    assert not difference(drawn[0], drawn[0]).significant


def test_one_seed_stays_as_it_is():
    values = np.random.default_rng(0).random(20)
    assert combine_seeds([values]) == pytest.approx(values)


def test_seeds_are_averaged_and_drawn():
    flat = [np.full(4001, value) for value in (0.0, 3.0, 9.0)]
    combined = combine_seeds(flat)
    assert combined[0] == 4.0
    assert set(combined[1:].round(9)) == {(a + b + c) / 3 for a in (0, 3, 9) for b in (0, 3, 9) for c in (0, 3, 9)}
    assert combined[1:].mean() == pytest.approx(4.0, abs=0.2)
    assert combined[1:].std() == pytest.approx(np.std([0, 3, 9]) / math.sqrt(3), abs=0.1)
    assert (combine_seeds(flat) == combined).all()


def test_combined_seeds_are_paired():
    random = np.random.default_rng(0)
    a, b = random.random((3, 50)), random.random((3, 50))
    assert combine_seeds(a) - combine_seeds(b) == pytest.approx(combine_seeds(a - b))


def test_intervals_cover():
    """95% intervals of a mean hold the true mean about 95 times in 100."""
    random, weights = np.random.default_rng(0), bootstrap_weights(100, draws=500)
    covered = paired = 0
    for _ in range(300):
        values = random.exponential(size=100)
        drawn = mean_statistic(values)(weights)
        found = estimate(drawn)
        covered += found.low <= 1 <= found.high
        gap = difference(drawn, mean_statistic(values + random.normal(0.5, 1, size=100))(weights))
        paired += gap.low <= -0.5 <= gap.high
    assert 0.90 <= covered / 300 <= 0.98
    assert 0.90 <= paired / 300 <= 0.98
