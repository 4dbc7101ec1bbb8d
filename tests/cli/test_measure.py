"""evaluate and calibrate."""

import json

import pytest

from helpers.commands import changed, jsonl, refused, rows, write_labelled
from sigmax.data.sources import load_data
from sigmax.evaluation import evaluate
from sigmax.model.dual_encoder import load


def test_evaluate(sigmax, model, data, tmp_path):
    for split in ("test", "dev", "train"):
        done = sigmax("evaluate", model, data, "--split", split, "--json")
        assert done.code == 0
        found = json.loads(done.out, parse_constant=pytest.fail)
        assert found == json.loads(json.dumps(evaluate(load(model), load_data(data), split=split).as_dict()))
        assert found["metrics"]["map"]["value"] > 0.9
    assert json.loads(sigmax("evaluate", model, data, "--json").out)["split"] == "test"
    picture = tmp_path / "deep" / "reliability.png"
    done = sigmax("evaluate", model, data, "--figure", picture)
    assert done.code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    plain = changed(model, tmp_path / "plain", calibrator=None)
    refused(sigmax("evaluate", plain, data, "--figure", picture), 1, "not calibrated")
    done = sigmax("evaluate", model, data)
    assert done.code == 0
    assert done.err == ""
    assert "things, test: 27 queries, 6 with no answer" in done.out
    for name in ("MAP", "log loss per query ↓", "AUROC, largest logit"):
        assert name in done.out


def test_calibrate(sigmax, model, data, tmp_path):
    """Anew, by another method, for other candidates; the encoders stay."""
    folder = changed(model, tmp_path / "plain", calibrator=None)
    (folder / "dev.safetensors").unlink()
    done = sigmax("calibrate", folder, data, "--method", "isotonic")
    assert done.code == 0, done.err
    assert "isotonic" in done.out
    assert "unanswerable answered" in done.out
    again, before = load(folder), load(model)
    assert again.calibrator.about["method"] == "isotonic"
    assert again.candidates == before.candidates
    assert (again.logits(["sky"], again.candidates).values == before.logits(["sky"], before.candidates).values).all()
    done = sigmax("calibrate", folder, data, "--json")
    found = json.loads(done.out, parse_constant=pytest.fail)
    assert set(found["about"]["log_loss"]) >= {"platt", "beta", "isotonic"}
    done = sigmax("calibrate", folder, data, "--method", "platt", "--held-out", "0.5")
    assert done.code == 0, done.err
    held = load(folder).calibrator.about["held_out"]
    assert f"rules are decided by {held} others" in " ".join(done.out.split())
    refused(sigmax("calibrate", folder, data, "--held-out", "1"), 2, "at most 0.99")
    done = sigmax("calibrate", folder, data, "--method", "isotonik")
    assert done.code == 2
    assert "Did you mean 'isotonic'" in done.err


def test_other_labels_than_the_model_knows(sigmax, tmp_path):
    data = write_labelled(tmp_path, rows())
    other = jsonl(
        tmp_path / "other.jsonl",
        [{"text": row["query"], "labels": ["mooon"], "split": row["split"]} for row in rows()],
    )
    assert sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1").code == 0
    refused(sigmax("evaluate", tmp_path / "model", other), 1, "Label 'mooon' has no vector", "Did you mean 'moon'?")
