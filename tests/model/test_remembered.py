"""What a model keeps of its training queries, and who says so."""

import json
from dataclasses import replace

import numpy as np
import pytest

from helpers.data import things
from sigmax.calibration import Familiar
from sigmax.evaluation import calibrate, evaluate
from sigmax.explain import explain
from sigmax.model import remembered
from sigmax.model.dual_encoder import load
from sigmax.model.remembered import remember
from sigmax.report.activations import explanation_words
from sigmax.report.words import matches_words
from sigmax.training.settings import Settings
from sigmax.training.train import train


@pytest.fixture(scope="module")
def data():
    return things()


@pytest.fixture(scope="module")
def model(data):
    return train(data, Settings(epochs=2), tell=False)


def test_training_keeps_its_queries(model, data):
    rows = [i for i in data.split("train") if data.answer_counts[i]]
    assert len(model.novelty.seen) == len(rows)
    found = model.logits([data.queries[i] for i in rows], data.candidates)
    assert found.novelty.shape == (len(rows), 1)
    vectors = model.vectors([data.queries[i] for i in rows]).dense.numpy()
    assert found.novelty[:, 0] == pytest.approx(model.novelty.nearness(vectors), abs=1e-5)


def test_the_folder_holds_them(model, tmp_path):
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    queries = ["moon", "qqqq zzzz"]
    assert again.match(queries) == model.match(queries)
    assert [one.familiar_p for one in again.match(queries)] == [one.familiar_p for one in model.match(queries)]
    (tmp_path / "model" / "novelty.safetensors").unlink()
    without = load(tmp_path / "model")
    assert [one.familiar_p for one in without.match(queries)] == [None, None], "nothing is known, nothing is said"
    assert all(0 <= one.any <= 1 for one in without.match(queries))


def test_a_sample_where_there_are_many(model, data, monkeypatch):
    monkeypatch.setattr(remembered, "MOST_KEPT", 5)
    kept = model.novelty
    try:
        remember(model, data)
        assert len(model.novelty.seen) == 5
    finally:
        model.novelty = kept


@pytest.mark.parametrize("far", [False, True])
def test_everyone_says_so(model, monkeypatch, far):
    """The same p-value in matches, in their JSON, in words and in the activation table."""
    dev = np.repeat(model.calibrator.familiar.dev, 10, axis=0)  # so many that one as far as all has a p below 0.05
    monkeypatch.setattr(model, "calibrator", replace(model.calibrator, familiar=Familiar(dev + 99 * far, dev[:0])))
    (matches,) = model.match(["zzzz qqqq"])
    (table,) = explain(model, ["zzzz qqqq"])
    assert table.familiar_p == matches.familiar_p == json.loads(json.dumps(matches.as_dict()))["familiar_p"]
    assert matches.unlike_training or not far
    assert table.unlike_training == matches.unlike_training == (matches.familiar_p <= 0.05)
    words = explanation_words([table])
    assert ("unlike anything in training" in words[0]) == matches.unlike_training
    assert ("unlike anything in training" in matches_words(matches)) == matches.unlike_training


def test_metrics(model, data):
    found = evaluate(model, data, draws=20)
    assert 0 <= found["false_alarms"].value <= 1
    assert ("none_auroc_familiarity" in found.draws) == ("none_auroc_logit" in found.draws)
    kept, model.novelty = model.novelty, None
    try:
        assert "false_alarms" not in evaluate(model, data, draws=0).draws
    finally:
        model.novelty = kept


def test_calibration_without_what_was_kept(data):
    model = train(data, Settings(epochs=1), tell=False, calibrated=False)
    assert model.novelty is None
    calibrate(model, data)
    assert model.match("moon").familiar_p is None
