"""Feedback moves presences where the world moved, and nothing where it did not."""

import csv
import json

import numpy as np
import pytest
from scipy.special import expit, logit

from helpers.commands import refused
from helpers.scored import lists, write_table
from sigmax.calibration import Adjusted, Platt, calibration_from_dict
from sigmax.errors import DataError, UnknownNameError
from sigmax.scores import ScoreModel, calibrate_scores
from sigmax.watch import Feedback, recalibrate
from sigmax.watch.recalibrate import read_feedback


@pytest.fixture(scope="module")
def calibrated():
    return calibrate_scores(lists(800))


def judged(model, seed, *, moved=0.0, n=500, accepted=False):
    """Feedback of a world in which the log odds of a right pair are lower by `moved`."""
    scores = lists(n, seed=seed)
    _, presence, _ = model.read(scores)
    random = np.random.default_rng(seed)
    right = random.random(len(presence)) < expit(logit(presence) - moved)
    kept = presence >= model.calibrator.default_threshold if accepted else np.ones(len(presence), bool)
    return Feedback(scores.rows[kept], presence[kept], right[kept])


def test_an_adjusted_curve():
    curve = Adjusted(2.0, -1.0, Platt(1.5, 0.5, 0.25))
    logits = np.array([[0.3, -1.0]])
    base = curve.base.log_odds(logits)
    assert curve.log_odds(logits) == pytest.approx(2 * base - 1)
    assert curve.unmoved(curve.log_odds(logits)) == pytest.approx(base)
    assert curve.shifted(0.5).log_odds(logits) == pytest.approx(2 * base - 0.5)
    assert curve.competition == curve.base.competition
    assert calibration_from_dict(json.loads(json.dumps(curve.as_dict()))) == curve


def test_a_world_that_moved(calibrated):
    """The bias comes near to what moved, the more so the less dev counts; order, what is accepted and P(any) stay."""
    found = recalibrate(calibrated.calibrator, judged(calibrated, 1, moved=1.5), old_weight=0.01)
    assert found.bias == pytest.approx(-1.5, abs=0.25)
    assert found.log_loss_after < found.log_loss_before
    half = recalibrate(calibrated.calibrator, judged(calibrated, 1, moved=1.5), old_weight=1.0)
    assert found.bias < half.bias < 0
    new = found.calibrator
    logits = np.random.default_rng(0).normal(size=(50, 6))
    (old_presence, old_any), (presence, anything) = (one.read(logits, ()) for one in (calibrated.calibrator, new))
    assert anything == pytest.approx(old_any)
    assert (np.argsort(presence, axis=1) == np.argsort(old_presence, axis=1)).all()
    assert ((presence >= new.default_threshold) == (old_presence >= calibrated.calibrator.default_threshold)).all()
    twice = recalibrate(new, judged(calibrated, 2, moved=3.0), old_weight=0.01).calibrator
    assert isinstance(twice.calibration, Adjusted)
    assert not isinstance(twice.calibration.base, Adjusted)


@pytest.mark.slow
def test_a_world_that_stayed_is_refused():
    """A new fit would only follow chance; the old one stays nearly always."""
    refusals = 0
    for seed in range(4):
        model = calibrate_scores(lists(500, seed=100 + seed))
        refusals += recalibrate(model.calibrator, judged(model, seed)).calibrator is None
    assert refusals >= 3


def test_gathered_from_accepted_alone(calibrated):
    """Above the threshold feedback counts, below dev does; without that, what was not asked for would move most."""
    feedback = judged(calibrated, 3, n=1500, moved=1.0, accepted=True)
    found = recalibrate(calibrated.calibrator, feedback, gathered="accepted", old_weight=0.0)
    assert found.calibrator is not None
    high, low = (expit(found.scale * logit(p) + found.bias) for p in (0.9, 0.01))
    assert high == pytest.approx(expit(logit(0.9) - 1.0), abs=0.06)
    assert low == pytest.approx(0.01, abs=0.01)


def test_propensities():
    """Judgements asked for with a known chance: rare ones weigh more."""
    model = calibrate_scores(lists(800))
    whole = judged(model, 5, moved=1.5, n=1500)
    chance = np.where(whole.presence > 0.2, 1.0, 0.2)
    kept = np.random.default_rng(0).random(len(whole)) < chance
    some = Feedback(whole.queries[kept], whole.presence[kept], whole.right[kept], chance[kept])
    one, other = (recalibrate(model.calibrator, part, old_weight=0.01) for part in (whole, some))
    assert other.bias == pytest.approx(one.bias, abs=0.2)


def test_what_is_refused(calibrated):
    feedback = judged(calibrated, 1)
    few = Feedback(feedback.queries[:19], feedback.presence[:19], feedback.right[:19])
    with pytest.raises(DataError, match="at least 20 judgements of 5 queries, got 19"):
        recalibrate(calibrated.calibrator, few)
    with pytest.raises(UnknownNameError, match="Did you mean 'accepted'"):
        recalibrate(calibrated.calibrator, feedback, gathered="acepted")
    with pytest.raises(ValueError, match="`old_weight`"):
        recalibrate(calibrated.calibrator, feedback, old_weight=-1)


def test_from_match_to_recalibrate(sigmax, calibrated, tmp_path):
    """Answers with `right` filled in, as people do."""
    folder, answers = tmp_path / "scores", tmp_path / "answers.csv"
    calibrated.save(folder)
    now = write_table(tmp_path / "now.csv", lists(400, seed=7), right=False)
    assert sigmax("match", folder, now, "-o", answers).code == 0
    random = np.random.default_rng(0)
    with answers.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["right"] = (
            int(random.random() < expit(logit(float(row["presence"])) - 1.5)) if random.random() < 0.8 else ""
        )
    with (tmp_path / "feedback.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    done = sigmax("recalibrate", folder, tmp_path / "feedback.csv")
    assert done.code == 0, done.err
    assert "Better on feedback" in done.out
    assert ScoreModel.load(tmp_path / "scores.before").calibrator.calibration == calibrated.calibrator.calibration
    assert isinstance(ScoreModel.load(folder).calibrator.calibration, Adjusted)
    whole = read_feedback(calibrated, write_table(tmp_path / "whole.csv", lists(50, seed=8)))
    assert len(whole) == len(lists(50, seed=8))
    refused(sigmax("recalibrate", folder, now), 1, "column 'right'")
