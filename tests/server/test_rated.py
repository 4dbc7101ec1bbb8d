"""Calibrated scores that serve, and what /metrics keeps of the last queries."""

import shutil
import sys
import time

import numpy as np
import pytest

from helpers.scored import lists
from helpers.servers import serving
from sigmax.scores import ScoreModel, calibrate_scores
from sigmax.server.metrics import Metrics
from sigmax.server.window import Window

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def posted(scores):
    """Lists as JSON; a score that is not there is left out, or null."""
    names = scores.candidates.to_pylist()
    return [
        {
            "query": query,
            "candidates": [
                {
                    "candidate": names[row],
                    "scores": {
                        name: None if np.isnan(value) else value
                        for name, value in zip(scores.columns, scores.values[row].tolist(), strict=True)
                        if not (np.isnan(value) and row % 2)
                    },
                }
                for row in range(scores.starts[place], scores.starts[place + 1])
            ],
        }
        for place, query in enumerate(scores.queries.to_pylist())
    ]


@pytest.mark.slow
def test_rates_what_is_posted(folder, tmp_path):
    calibrated = tmp_path / "retrieved"
    calibrate_scores(lists(300)).save(calibrated)
    model, scores = ScoreModel.load(calibrated), lists(6, seed=1)
    with serving(folder, calibrated) as server:
        status, answer, _ = server.ask("/rate", {"lists": posted(scores), "top_k": 3, "rule": "precision=0.7"})
        assert status == 200, answer
        assert answer["model"] == "retrieved"
        assert answer["rule"]["promised"]
        for found, matches in zip(answer["results"], model.match(scores, top_k=3, rule="precision=0.7"), strict=True):
            assert found["any"] == pytest.approx(matches.any)
            assert [one["candidate"] for one in found["matches"]] == [one.candidate for one in matches]
            assert [one["presence"] for one in found["matches"]] == pytest.approx([one.presence for one in matches])
            assert found["accepted_count"] == matches.accepted_count
        _, told, _ = server.ask("/models")
        assert told["scores"][0]["scores"] == ["logit", "distance", "chance"]
        assert [one["name"] for one in server.ask("/health")[1]["models"]] == ["things", "retrieved"]
        one = posted(scores)[:1]
        server.refuses(422, "POST lists", body={"query": "a", "model": "retrieved"})
        server.refuses(404, "expected calibrated scores of retrieved", path="/rate", body={"lists": one, "model": "x"})
        one[0]["candidates"][0]["scores"] = {"logits": 1.0}
        server.refuses(422, "Did you mean 'logit'", path="/rate", body={"lists": one})
        one[0]["candidates"][0]["scores"] = {}
        server.refuses(422, "expected a score of", path="/rate", body={"lists": one})
        server.refuses(422, "lists", path="/rate", body={"lists": [{"query": "a", "candidates": []}]})
        window = server.metric("sigmax_window")
        assert window['sigmax_window{model="retrieved",sign="queries"}'] == 6
        signs = model.signs(scores)
        for place, name in enumerate(("best_logit", "any_right", "accepted")):
            value = window[f'sigmax_window{{model="retrieved",sign="{name}"}}']
            assert value == pytest.approx(signs[:, place].mean(), rel=1e-5)
        server.match("moon", model="things")
        assert server.metric("sigmax_window")['sigmax_window{model="things",sign="queries"}'] == 1
        calibrate_scores(lists(300, seed=5, several=1)).save(tmp_path / "other")
        for name in ("lists.safetensors", "scores.json"):
            shutil.copy(tmp_path / "other" / name, calibrated / name)
        end = time.monotonic() + 20
        while server.ask("/models")[1]["scores"][0]["scores"] != ["logit"]:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_window_forgets():
    model = calibrate_scores(lists(300))
    metrics = Metrics()
    window = Window("m", metrics, size=4)
    assert np.isnan(window.unlike())
    window.compare_with(model.calibrator)
    usual = np.median(model.calibrator.record.signs, axis=0)
    for _ in range(4):
        window.add(*usual)
    assert window.unlike() == 0.0
    window.add(usual[0] + 100, usual[1], usual[2])
    assert window.unlike() == 0.25
    assert 'sigmax_window{model="m",sign="queries"} 4.0' in metrics.text().decode()
    window.compare_with(None)
    assert np.isnan(window.unlike())
