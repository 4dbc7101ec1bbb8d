"""verify and drift of a model."""

import json

from helpers.commands import changed, jsonl, refused, rows
from sigmax.model import load


def test_verify_a_model(sigmax, model, data, tmp_path):
    done = sigmax("verify", model, data, "--promise", "precision=0.5", "--no-calibration")
    assert done.code == 0, done.err
    assert "precision=0.5" in done.out
    strange = jsonl(tmp_path / "strange.jsonl", [{**row, "answers": ["strange"]} for row in rows()])
    refused(sigmax("verify", model, strange, "--promise", "precision=0.5"), 1, "none of its candidates")
    more = jsonl(tmp_path / "more.jsonl", [{**row, "answers": [*row["answers"], "strange"]} for row in rows()])
    done = sigmax("verify", model, more, "--promise", "recall=0.9", "--no-calibration")
    assert done.code == 1
    assert "right answers are not among the candidates offered" in done.words
    refused(sigmax("verify", model, data, "--qrels", data), 2, "is for scores that others made")


def test_drift_of_a_model(sigmax, model, data, tmp_path):
    done = sigmax("drift", model, data)
    assert done.code in (0, 1), done.err
    assert "most unlike the queries of dev" in done.out
    strange = jsonl(tmp_path / "strange.jsonl", [{"query": f"zzz {i}"} for i in range(200)])
    done = sigmax("drift", model, strange, "--json")
    assert done.code == 1
    assert len(json.loads(done.out)["unlike"]) == 10
    (changed(model, tmp_path / "old") / "dev.safetensors").unlink()
    refused(sigmax("drift", tmp_path / "old", data), 1, "Calibrate it again")


def test_recalibrate_a_model(sigmax, model, data, tmp_path):
    folder = changed(model, tmp_path / "copy")
    judged = [
        {"query": row["query"], "candidate": answer, "right": 0} for row in rows() for answer in row["answers"]
    ] + [{"query": row["query"], "candidate": "moon", "right": 1} for row in rows()[::2]]
    done = sigmax("recalibrate", folder, jsonl(tmp_path / "feedback.jsonl", judged))
    assert done.code == 0, done.err
    assert (tmp_path / "copy.before" / "sigmax.json").exists()
    assert load(folder).calibrator.calibration.kind == "adjusted"
    assert sigmax("match", folder, "sky").code == 0
    strange = [{**row, "candidate": "strange"} for row in judged]
    refused(sigmax("recalibrate", folder, jsonl(tmp_path / "strange.jsonl", strange)), 1, "none of its candidates")
