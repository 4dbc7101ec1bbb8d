"""Whole lists from use refit calibrated scores where the world moved, and do not where it did not."""

import csv
import json

import numpy as np
import pytest

from helpers.commands import refused
from helpers.scored import lists, write_table
from sigmax.errors import DataError
from sigmax.scores import ScoreModel, Scores, calibrate_scores
from sigmax.scores.kept import joined, kept_lists, lists_as_tensors, lists_from_tensors
from sigmax.watch import refit
from sigmax.watch.refit import ENOUGH, FEWEST_LISTS, read_lists, whole_lists


@pytest.fixture(scope="module")
def calibrated():
    return calibrate_scores(lists(500, missing=0.05), method="platt")


def moved(n, seed, **given):
    """A world in which the first scorer says nothing any more, and right answers are rarer."""
    scores = lists(n, seed=seed, **given)
    random = np.random.default_rng(seed)
    scores.values[:, 0] = random.permutation(scores.values[:, 0])
    scores.right[(scores.right == 1) & (random.random(len(scores)) < 0.4)] = 0
    return scores


def test_lists_are_kept_without_texts(calibrated, tmp_path):
    known = lists(500, missing=0.05)
    kept = calibrated.lists
    assert (kept.lengths == known.lengths).all()
    assert kept.values == pytest.approx(known.only(*kept.columns).values, rel=1e-6, nan_ok=True)
    assert (kept.right == known.right).all()
    assert (kept.missing == known.missing).all()
    calibrated.save(tmp_path / "scores")
    again = ScoreModel.load(tmp_path / "scores")
    assert again.lists.values == pytest.approx(kept.values, nan_ok=True)
    assert again.lists.queries[0].as_py() == "dev 0"
    (tmp_path / "scores" / "lists.safetensors").unlink()
    older = ScoreModel.load(tmp_path / "scores")
    assert older.lists is None
    with pytest.raises(DataError, match="not kept with these scores"):
        refit(older, lists(60))
    tensors = lists_as_tensors(kept)
    with pytest.raises(ValueError, match="scores in"):
        lists_from_tensors({**tensors, "right": tensors["right"][1:]}, kept.columns)
    with pytest.raises(ValueError, match="right missing"):
        lists_from_tensors({"values": tensors["values"], "lengths": tensors["lengths"]}, kept.columns)


def test_a_sample_of_many_lists(monkeypatch):
    from sigmax.scores import combine

    monkeypatch.setattr(combine, "FITTED_ROWS", 100)
    monkeypatch.setattr(combine, "FITTED_QUERIES", 20)
    assert len(kept_lists(lists(300)).queries) == 20


def test_tables_joined_query_by_query():
    one, other = lists(5, seed=1), lists(4, seed=2, missing=0.9)
    both = joined(one, other)
    assert len(both.queries) == 9
    assert both.missing.tolist() == [0] * 5 + other.missing.tolist()
    for part, places in ((one, np.arange(5)), (other, np.arange(5, 9))):
        again = both.take(places)
        assert again.values == pytest.approx(part.values, nan_ok=True)
        assert (again.right == part.right).all()
        assert again.queries.to_pylist() == part.queries.to_pylist()


def test_a_world_that_moved(calibrated):
    """The column that says nothing any more loses its weight, P(any) is told better, rules are decided anew."""
    found = refit(calibrated, moved(400, 1), old_weight=0.1)
    assert found.model is not None
    assert found.log_loss_after < found.log_loss_before
    assert found.any_log_loss_after < found.any_log_loss_before
    before, after = found.weights["logit"]
    assert sum(after[:2]) < 0.2 * sum(before[:2])
    record = found.model.calibrator.record
    assert record.queries == 400
    assert "anew on 400 queries of feedback" in found.promises
    fresh = moved(1500, 2)
    old, new = (model.evaluate(fresh, draws=0) for model in (calibrated, found.model))
    assert new["log_loss"].value < old["log_loss"].value
    assert new["any_log_loss"].value < old["any_log_loss"].value
    assert json.loads(json.dumps(found.as_dict()))["taken"]
    rates = found.model.record(fresh.take(np.arange(400)))
    assert record.presence.sum() == pytest.approx(rates.presence.sum(), rel=0.25), "of feedback, not of old dev"


def test_few_queries_leave_promises_to_the_mixture(calibrated):
    found = refit(calibrated, moved(ENOUGH - 20, 3), old_weight=0.2)
    assert found.model is not None
    assert f"and {ENOUGH - 20} of feedback" in found.promises
    assert found.model.calibrator.record.queries == found.old_queries + ENOUGH - 20


def test_a_world_that_stayed_is_refused():
    refusals = 0
    for seed in range(4):
        model = calibrate_scores(lists(200, seed=200 + seed), method="platt")
        found = refit(model, lists(80, seed=300 + seed), old_weight=0.0)
        refusals += found.model is None
        assert found.model is not None or found.promises == "promises are those that they were"
    assert refusals >= 3


def test_what_is_refused(calibrated):
    scores = lists(100, seed=4)
    scores.right[scores.starts[:60]] = -1
    assert len(whole_lists(scores).queries) == 40
    with pytest.raises(DataError, match=f"at least {FEWEST_LISTS} lists that are judged throughout, got 40"):
        refit(calibrated, scores)
    with pytest.raises(ValueError, match="`old_weight` from 0 to 1"):
        refit(calibrated, lists(100), old_weight=2)


def test_from_match_to_refit(sigmax, calibrated, tmp_path):
    """Answers as `match` wrote them, with every `right` filled in."""
    folder, answers = tmp_path / "scores", tmp_path / "answers.csv"
    calibrated.save(folder)
    scores = moved(300, 5)
    assert sigmax("match", folder, write_table(tmp_path / "now.csv", scores), "-o", answers).code == 0
    assert len(read_lists(calibrated, answers).queries) == 300
    done = sigmax("recalibrate", folder, answers, "--old-weight", "0.1")
    assert done.code == 0, done.err
    assert "weight of a unit of" in done.out
    assert "made anew on 300 queries" in " ".join(done.out.split())
    new = ScoreModel.load(folder)
    assert new.combination != calibrated.combination
    assert ScoreModel.load(tmp_path / "scores.before").combination == calibrated.combination
    assert isinstance(new.lists, Scores)
    with answers.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows[::5]:
        row["right"] = ""
    with (tmp_path / "some.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert read_lists(calibrated, tmp_path / "some.csv") is None, "then presences are moved, as before"
    refused(sigmax("recalibrate", folder, tmp_path / "no.csv"), 1, "no such file")
