"""compare, its files and its report."""

import html
import json
import sys

import pytest

from helpers.commands import refused, rows, write_labelled
from sigmax.comparison.compare import compare
from sigmax.comparison.results import Budget
from sigmax.data.sources import load_data
from sigmax.training.settings import Settings


def test_compare(sigmax, tmp_path):
    data = write_labelled(tmp_path, rows(unanswered=True))
    options = "--steps 4 --batch-size 32 --seeds 2 --rates 0.5,1 --scales 1 --seed 1 --metric mrr"
    names = ["sigmoid", "tfidf-lr"]
    out = tmp_path / "out"
    done = sigmax("compare", data, *options.split(), "--contenders", ",".join(names), "--json", "-o", out)
    assert done.code == 0
    found = json.loads(done.out, parse_constant=pytest.fail)
    assert json.loads((out / "comparison.json").read_text(encoding="utf-8")) == found
    settings = Settings(steps=4, batch_size=32, seed=1, metric="mrr")
    budget = Budget((0.5, 1.0), (1.0,), 2)
    expected = compare(load_data(data), settings, contenders=names, budget=budget)
    expected = json.loads(json.dumps(expected.as_dict()))
    assert min(found.pop("peak_bytes"), expected.pop("peak_bytes")) > 2**20
    assert found.pop("verdict").splitlines()[0].endswith(".")
    for result in (*found["results"], *expected["results"]):
        assert result.pop("train_seconds") > 0
    assert found == expected


@pytest.mark.slow
def test_compare_prints_a_table_and_the_verdict(sigmax, data, tmp_path):
    options = "--contenders sigmoid,softmax-average --steps 2 --rates 1 --scales 1 --seeds 1"
    done = sigmax("compare", data, *options.split(), "-o", tmp_path / "out")
    assert done.code == 0
    assert "things: test metrics" in done.out
    assert "• Ranking: " in done.out
    assert "Of softmax-average, the largest share" in done.out
    assert f"Written: {tmp_path / 'out' / 'comparison.json'}" in done.words
    assert f"Written: {tmp_path / 'out' / 'comparison.png'}" in done.words
    assert sigmax("compare", data, *options.split(), "--json").code == 0


@pytest.mark.slow
def test_compare_writes_a_report(sigmax, data, tmp_path):
    options = "--contenders sigmoid,softmax-average --steps 2 --rates 1 --scales 1 --seeds 1"
    path = tmp_path / "new" / "report.html"
    done = sigmax("compare", data, *options.split(), "--report", path, "--json", "-o", tmp_path / "out")
    assert done.code == 0
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]
    text = html.unescape(path.read_text(encoding="utf-8"))
    said = json.loads(done.out)
    assert said["verdict"].splitlines()[0] in text
    assert said["data"]["fingerprint"] in text
    assert all(example["query"] in text for example in said["examples"])
    assert f"sigmax compare {data} {options} --report {path}" in text


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_report_that_cannot_be_made_is_refused_before_training(missing, sigmax, data, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["sigmax.comparison.compare"], "compare", lambda *_, **__: pytest.fail("trained"))
    refused(sigmax("compare", data, "--report", tmp_path), 1, f"{tmp_path}: is a folder; --report needs a file")
    monkeypatch.setitem(sys.modules, missing, None)
    done = sigmax("compare", data, "--report", tmp_path / "report.html")
    refused(done, 1, f"{missing} is not installed. Try: pip install 'sigmax[report]'")
    assert list(tmp_path.iterdir()) == []


def test_compare_without_matplotlib(sigmax, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    options = "--contenders sigmoid --steps 1 --rates 1 --scales 1 --seeds 1"
    done = sigmax("compare", data, *options.split(), "-o", tmp_path / "out")
    assert done.code == 0
    assert "pip install 'sigmax[report]'" in done.words
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["comparison.json"]


def test_a_file_is_no_folder_for_results(sigmax, tmp_path):
    (tmp_path / "taken").write_text("mine")
    done = sigmax("compare", "emoji", "-o", tmp_path / "taken")
    assert done.code == 1
    assert "needs a folder" in done.err
    assert (tmp_path / "taken").read_text() == "mine"
