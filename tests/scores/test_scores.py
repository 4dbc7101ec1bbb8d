import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

import sigmax
from helpers.scored import lists
from sigmax.errors import DataError, UnknownNameError
from sigmax.evaluation import calibrate as calibrate_model
from sigmax.scores import ScoreModel, Scores, calibrate_scores, compare_scores
from sigmax.scores.combine import direction, features, fit_ridge, fuse_ranks, segment_totals
from sigmax.scores.table import blocks_of, judged, padded

# -- the table -----------------------------------------------------------------------------------


def test_rows_of_a_query_are_brought_together():
    scores = Scores.of(["b", "a", "b", "a"], [1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4], [1, 0, math.nan, 1])
    assert scores.queries.to_pylist() == ["b", "a"]
    assert scores.candidates.to_pylist() == ["1", "3", "2", "4"]
    assert scores.values[:, 0].tolist() == [0.1, 0.3, 0.2, 0.4]
    assert scores.right.tolist() == [1, -1, 0, 1]
    assert scores.wanted.tolist() == [1, 1]
    other = scores.take(np.array([1]))
    assert (other.queries.to_pylist(), other.candidates.to_pylist()) == (["a"], ["2", "4"])


def test_what_nothing_returned_is_a_missing_answer():
    scores = Scores.of(["a", "a", "b", "c"], ["x", "y", "z", "w"], [1.0, math.nan, math.nan, math.nan], [0, 1, 1, 0])
    assert scores.queries.to_pylist() == ["a", "b"]
    assert scores.lengths.tolist() == [1, 0]
    assert scores.missing.tolist() == [1, 1]
    assert scores.wanted.tolist() == [1, 1]
    assert "3 rows have no score" in scores.notes[0]
    assert "2 of them are right" in scores.notes[0]


def test_duplicates_are_told():
    scores = Scores.of(["a", "a", "a"], ["x", "x", "y"], [3.0, 1.0, 2.0], [0, 1, 0])
    assert scores.values[:, 0].tolist() == [3.0, 2.0]
    assert scores.right.tolist() == [1, 0]
    assert scores.notes == ("1 rows repeat a query and candidate: the first row of each is kept",)


def test_unjudged():
    given = ["a", "a", "b", "b"], ["x", "y", "x", "y"], [1.0, 2.0, 3.0, 4.0], [1, math.nan, math.nan, 0]
    scores = Scores.of(*given)
    assert judged(scores).queries.to_pylist() == ["a"]
    assert "1 queries have unjudged candidates and no right one" in judged(scores).notes[-1]
    assert judged(Scores.of(*given, unjudged="wrong")).queries.to_pylist() == ["a", "b"]
    with pytest.raises(DataError, match="--unjudged wrong"):
        judged(scores.take(np.array([1])))
    with pytest.raises(UnknownNameError):
        Scores.of(*given, unjudged="wrnog")


def test_other_sources():
    matrix = np.array([[1.0, math.nan], [0.5, 2.0]])
    scores = Scores.from_matrix(matrix, np.eye(2), queries=["a", "b"])
    assert scores.lengths.tolist() == [1, 2]
    assert scores.right.tolist() == [1, 0, 1]
    asked = []

    def score(query, candidates):
        asked.append(query)
        return [len(query) + len(one) for one in candidates]

    scores = Scores.from_scorer(score, ["a", "bb"], ["x", "yy"], [["x"], ["zzz"]])
    assert asked == ["a", "bb"]
    assert scores.values[:, 0].tolist() == [2, 3, 3, 4]
    assert scores.missing.tolist() == [0, 1]
    own = Scores.from_scorer(score, ["a", "b"], [["x"], ["y", "z"]])
    assert own.lengths.tolist() == [1, 2]
    with pytest.raises(DataError, match="no column `right`"):
        calibrate_scores(own)


@pytest.mark.parametrize(
    ("values", "message"),
    [([1.0, math.inf], "row 2: the score inf of column 'score' is not finite"), ([], "no rows")],
)
def test_scores_that_cannot_be(values, message):
    with pytest.raises(DataError, match=message):
        Scores.of(["a"] * len(values), ["x", "y"][: len(values)], values)
    with pytest.raises(ValueError, match="columns of one length"):
        Scores.of(["a"], ["x", "y"], [1.0, 2.0])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(1, 60))
def test_blocks_hold_each_query_once(lengths, cells):
    lengths = np.array(lengths)
    blocks = list(blocks_of(lengths, cells))
    assert sorted(np.concatenate(blocks).tolist()) == list(range(len(lengths)))
    for block in blocks:
        assert len(block) == 1 or len(block) * lengths[block].max() <= cells
    index, there = padded(np.concatenate([[0], np.cumsum(lengths)]))
    assert index[there].tolist() == list(range(lengths.sum()))


# -- the combination -----------------------------------------------------------------------------


def test_what_a_column_says():
    """s, and r beside the candidates that it returned; what it did not return stands with the last."""
    x = np.array([1.0, math.nan, 3.0, math.nan, math.nan])
    starts = np.array([0, 3, 5])
    column = calibrate_scores(lists(60)).combination.columns[0]
    s, r, absent = features(column, x, starts)
    one, two = column.scale * 1.0 + column.bias, column.scale * 3.0 + column.bias
    odds = [one - two, two - one]
    assert s == pytest.approx([one, min(one, two), two, column.lowest, column.lowest])
    assert r == pytest.approx([odds[0], min(odds), odds[1], column.share, column.share])
    assert absent.tolist() == [False, True, False, True, True]


def test_totals_of_segments():
    s = np.array([1.0, 2.0, -5.0, 800.0])
    assert segment_totals(s, np.array([0, 2, 2, 4])) == pytest.approx([logsumexp(s[:2]), -math.inf, 800.0])


@pytest.mark.parametrize("free", [False, True])
def test_weights_against_scikit_learn(free):
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    x = random.normal(size=(3, 500)) * [[1], [4], [0.2]] + 1
    right = random.random(500) < 1 / (1 + np.exp(-(x[0] - 1 + (-1 if free else 1) * 0.5 * (x[1] - 1))))
    slopes, bias = fit_ridge(x, right, free=np.full(3, free))
    spread = x.std(1)
    fit = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(
        ((x - x.mean(1)[:, None]) / spread[:, None]).T, right
    )
    if (fit.coef_ > 0).all() or free:
        assert slopes * spread == pytest.approx(fit.coef_[0], abs=2e-4)
        assert bias + slopes @ x.mean(1) == pytest.approx(fit.intercept_[0], abs=2e-4)
    assert free or (slopes >= 0).all()


@pytest.mark.parametrize("n", [12, 200])
def test_the_direction_is_found_out(n):
    scores = lists(n)
    assert [direction(scores, name)[0] for name in scores.columns] == [False, True, False]


def test_direction_by_pairs():
    """AUC within queries, as a loop."""
    scores = lists(40, several=1)
    gaps = []
    for start, stop in zip(scores.starts[:-1], scores.starts[1:], strict=True):
        x, right = scores.values[start:stop, 0], scores.right[start:stop] == 1
        if right.any() and not right.all():
            gaps.append(np.mean([(a > b) + 0.5 * (a == b) for a in x[right] for b in x[~right]]) - 0.5)
    _, sure = direction(scores, "logit")
    assert sure == pytest.approx(np.mean(gaps) / (np.std(gaps, ddof=1) / math.sqrt(len(gaps))))


def test_rank_fusion():
    scores = Scores.of(["a"] * 3, ["x", "y", "z"], {"up": [3.0, 1.0, 2.0], "down": [0.1, math.nan, 0.3]}, [1, 0, 0])
    assert fuse_ranks(scores, ["down"]) == pytest.approx([2 / 61, 1 / 63, 2 / 62])


# -- calibration ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated():
    return calibrate_scores(lists(600, missing=0.1))


@pytest.mark.slow
def test_calibrated_on_three_columns(calibrated):
    test = lists(600, seed=1, missing=0.1)
    found = calibrated.evaluate(test)
    # Over dev splits and test splits of this size the slope's deviation is about 0.06 each.
    assert abs(found["calibration_slope"].value - 1) < 0.25
    assert abs(found["expected_ratio"].value - 1) < 0.15
    for name in test.columns:
        alone = calibrate_scores(lists(600, missing=0.1).only(name))
        assert alone.evaluate(test.only(name))["log_loss"].value > found["log_loss"].value
    assert any("'distance' falls" in note for note in calibrated.facts["notes"])
    assert [column.lower for column in calibrated.combination.columns] == [False, True, False]


def test_probabilities_are_read_as_log_odds_where_that_fits():
    """A judge that is sure too often: its log odds tell, its probabilities are nearly all 0 or 1."""
    random = np.random.default_rng(0)
    right = random.random((400, 8)) < 0.3
    said = 1 / (1 + np.exp(-(6 * right - 6 + 4 * random.normal(size=right.shape))))
    column = calibrate_scores(Scores.from_matrix(said, right)).combination.columns[0]
    assert column.odds
    assert not calibrate_scores(Scores.from_matrix(2 * said, right)).combination.columns[0].odds


def test_missing_answers_count(calibrated):
    scores = lists(600, seed=1, missing=0.1)
    gone = int(scores.missing.sum())
    assert gone > 30
    record = calibrated.record(scores)
    assert record.answered.sum() == (scores.wanted > 0).sum()
    at = record.curve.at(1e-9)
    listed = np.bincount(scores.rows[scores.right == 1], minlength=600)
    wanted = scores.wanted
    assert at["recall"] == pytest.approx((listed[wanted > 0] / wanted[wanted > 0]).mean())
    assert at["contains"] == pytest.approx((listed > 0)[wanted > 0].mean())
    plain = lists(600, seed=1)
    assert calibrated.evaluate(scores, draws=0)["map"].value < calibrated.evaluate(plain, draws=0)["map"].value


def test_ranking_metrics_are_those_of_trec_eval(calibrated):
    import pytrec_eval

    scores = lists(80, seed=3, missing=0.2)
    z, _, _ = calibrated.read(scores)
    names, candidates = scores.queries.to_pylist(), scores.candidates.to_pylist()
    run = {query: {} for query in names}
    qrels = {query: {} for query in names}
    for row, place in enumerate(scores.rows):
        run[names[place]][candidates[row]] = float(z[row])
        if scores.right[row] == 1:
            qrels[names[place]][candidates[row]] = 1
    for place, count in enumerate(scores.missing):
        qrels[names[place]] |= {f"gone{number}": 1 for number in range(count)}
    qrels = {query: one for query, one in qrels.items() if one}
    found = pytrec_eval.RelevanceEvaluator(qrels, {"map", "recip_rank", "recall_5"}).evaluate(run)
    evaluation = calibrated.evaluate(scores, draws=0)
    for ours, theirs in (("map", "map"), ("mrr", "recip_rank"), ("recall@5", "recall_5")):
        values = [found[query][theirs] if query in found else 0.0 for query in qrels]
        assert evaluation[ours].value == pytest.approx(np.mean(values))


def test_rated_as_a_model_rates(calibrated):
    scores = lists(7, seed=2)
    z, presence, anything = calibrated.read(scores)
    found = calibrated.match(scores, top_k=3, rule="precision=0.8")
    assert len(found) == 7
    for number, matches in enumerate(found):
        rows = slice(scores.starts[number], scores.starts[number + 1])
        assert [one.presence for one in matches] == pytest.approx(sorted(presence[rows], reverse=True)[:3])
        assert matches.any == anything[number]
        assert sorted(one.share for one in matches) == pytest.approx(sorted(softmax(z[rows]))[-3:])
        assert matches.accepted_count == (presence[rows] >= matches.decision.threshold).sum()


def test_what_is_read_does_not_depend_on_company(calibrated):
    """Lists of other lengths beside it, other blocks: a query's presences stay."""
    long, short = lists(9, 30, seed=4), lists(5, 3, seed=5)
    names = [f"s{place}" for place in range(5)]
    both = Scores.of(
        [*np.array(long.queries.to_pylist())[long.rows], *np.array(names)[short.rows]],
        [*long.candidates.to_pylist(), *short.candidates.to_pylist()],
        {name: [*long.values[:, place], *short.values[:, place]] for place, name in enumerate(long.columns)},
    )
    for whole, parts in zip(
        calibrated.read(both), zip(calibrated.read(long), calibrated.read(short), strict=True), strict=True
    ):
        assert whole == pytest.approx(np.concatenate(parts))


def test_saved(calibrated, tmp_path):
    calibrated.save(tmp_path / "scores")
    again = ScoreModel.load(tmp_path / "scores")
    scores = lists(20, seed=6)
    for one, other in zip(calibrated.read(scores), again.read(scores), strict=True):
        assert (one == other).all()
    assert again.decide("precision=0.8") == calibrated.decide("precision=0.8")
    (tmp_path / "scores" / "scores.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        ScoreModel.load(tmp_path / "scores")
    (tmp_path / "scores" / "scores.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(DataError, match="newer"):
        ScoreModel.load(tmp_path / "scores")
    with pytest.raises(DataError, match=r"expected a folder with scores\.json"):
        ScoreModel.load(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is there already"):
        calibrated.save(tmp_path)


def test_one_door():
    scores = lists(50, several=1)
    assert sigmax.calibrate(scores).combination == calibrate_scores(scores).combination
    with pytest.raises(TypeError, match="scores alone"):
        sigmax.calibrate(scores, object())
    with pytest.raises(TypeError, match=r"sigmax\.calibrate\(model, data\)"):
        sigmax.calibrate(object())
    assert calibrate_model is not sigmax.calibrate


def test_held_out_queries_decide():
    model = calibrate_scores(lists(400), held_out=0.5)
    assert model.calibrator.record.queries == 200


# -- bad input -----------------------------------------------------------------------------------


def test_scores_that_are_all_equal():
    scores = Scores.from_matrix(np.ones((30, 4)), np.eye(30, 4))
    with pytest.raises(DataError, match="all scores of score are equal"):
        calibrate_scores(scores)
    scores = lists(100)
    model = calibrate_scores(scores.with_column("same", np.ones(len(scores))))
    assert [column.name for column in model.combination.columns] == list(scores.columns)
    assert any("all scores of 'same' are equal: left out" in note for note in model.facts["notes"])


@pytest.mark.parametrize(("right", "message"), [(0.0, "no right pair"), (1.0, "no wrong pair")])
def test_one_kind_of_pair(right, message):
    with pytest.raises(DataError, match=message):
        calibrate_scores(Scores.from_matrix(np.random.default_rng(0).normal(size=(30, 4)), np.full((30, 4), right)))


def test_only_right_ones_were_judged():
    truth = np.where(np.random.default_rng(0).random((40, 5)) < 0.3, 1.0, math.nan)
    scores = Scores.from_matrix(np.random.default_rng(1).normal(size=(40, 5)), truth)
    with pytest.raises(DataError, match=r"no wrong pair.*--unjudged wrong"):
        calibrate_scores(scores)


@pytest.mark.parametrize("several", [1, 3])
def test_one_query(several):
    model = calibrate_scores(
        Scores.of(
            ["a"] * 6,
            range(6),
            dict(zip("xyz"[:several], np.random.default_rng(1).normal(size=(several, 6)), strict=True)),
            [1, 0, 0, 1, 0, 0],
        )
    )
    assert not model.decide("precision=0.9").promised
    with pytest.raises(DataError, match="at least 4 queries"):
        compare_scores(Scores.of(["a"] * 3, range(3), [0.1, 0.2, 0.3], [1, 0, 0]))


def test_scores_of_another_model(calibrated):
    scores = lists(100, seed=7)
    assert calibrated.fingerprint.unlike(scores) == []
    other = Scores.of(
        np.array(scores.queries.to_pylist())[scores.rows],
        scores.candidates.to_pylist(),
        {"logit": scores.values[:, 0] * 30, "distance": scores.values[:, 1], "chance": scores.values[:, 2]},
    )
    [said] = calibrated.fingerprint.unlike(other)
    assert "'logit' are unlike those calibrated on" in said
    [short] = calibrated.fingerprint.unlike(lists(100, 3, seed=8))
    assert "lists hold 3 candidates now (median), 12 then" in short
    with pytest.raises(DataError, match="distance, chance missing"):
        calibrated.read(scores.only("logit"))


def test_upside_down_and_said_so():
    scores = lists(300)
    said = calibrate_scores(scores, lower_is_better=["distance"])
    found = calibrate_scores(scores)
    assert said.combination == found.combination
    wrong = calibrate_scores(scores, lower_is_better=[])
    assert "is lower better?" in " ".join(wrong.facts["notes"])
    with pytest.raises(UnknownNameError):
        calibrate_scores(scores, lower_is_better=["distanse"])


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 6), st.floats(0, 0.5))
def test_any_table_is_calibrated_or_refused(seed, n, m, gone):
    scores = lists(n, m, seed, missing=gone)
    try:
        model = calibrate_scores(scores)
    except DataError as error:
        assert "no right pair" in str(error) or "no wrong pair" in str(error) or "are equal" in str(error)
        return
    _, presence, anything = model.read(scores)
    assert ((presence >= 0) & (presence <= 1)).all()
    assert ((anything >= 0) & (anything <= 1)).all()
    assert math.isfinite(model.evaluate(scores, draws=0)["log_loss"].value)


# -- comparison ----------------------------------------------------------------------------------


def test_compared():
    found = compare_scores(lists(400), draws=200)
    assert list(found.evaluations) == ["logit", "distance", "chance", "rank fusion", "weighted"]
    assert found.queries == {"dev": 200, "test": 200}
    for metric in ("map", "log_loss"):
        assert found.best(metric) == "weighted"
        assert all(found.difference(metric, other).significant for other in list(found.evaluations)[:4])
    assert found.verdict()[0] == "For ranking (MAP): weighted, better than every other."
    assert json.loads(json.dumps(found.as_dict()))["contenders"]["weighted"]["map"]["value"] > 0.8
    assert "'distance': lower is better" in found.notes
    one = compare_scores(lists(100, several=1))
    assert list(one.evaluations) == ["logit"]
