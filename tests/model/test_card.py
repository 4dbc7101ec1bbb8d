import json
import re
import shlex
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from helpers.data import things
from helpers.models import calibrated, tiny
from sigmax.evaluation import calibrate, evaluate
from sigmax.families import OBJECTIVES
from sigmax.model.card import model_card
from sigmax.model.dual_encoder import load
from sigmax.training.settings import Settings
from sigmax.training.train import train

MARKDOWN = MarkdownIt().enable("table")


@pytest.fixture(scope="module")
def data():
    return things(unanswered=True)


@pytest.fixture(scope="module")
def model(data):
    return train(data, Settings(epochs=1, loss="sigmoid"), tell=False)


def test_it_tells_what_the_flag_is(model):
    dev = len(model.calibrator.familiar.dev)
    card = model.card("x")
    assert "flagged as *unlike anything in training* where it is less familiar" in card
    assert f"than nearly all of {dev} dev queries: of queries drawn as these were, that happens to at most 5%" in card
    assert "unlike anything" not in calibrated().card("x")


def cells(card):
    """Rows of all tables, as lists of texts."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line.startswith("|")]


def test_it_tells_what_was_measured(model, data, tmp_path):
    assert "Nothing was measured" in model.card("x")
    model.facts.pop("measured", None)
    evaluation = evaluate(model, data, split="dev", draws=50)
    model.note(evaluation)
    model.note(evaluation)  # once
    model.save(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert card == load(tmp_path / "model").card("model")
    rows = {row[0]: row[1:] for row in cells(card)}
    assert set(evaluation.draws) <= rows.keys()
    for name in evaluation.draws:
        value, low_high = rows[name][:2]
        assert value == "–" or float(value) == pytest.approx(evaluation[name].value, abs=0.05, rel=0.01)
        if "–" not in low_high.strip("–") or value == "–":
            continue
        low, high = map(float, low_high.split("–"))
        assert low == pytest.approx(evaluation[name].low, abs=0.05, rel=0.01)
        assert high == pytest.approx(evaluation[name].high, abs=0.05, rel=0.01)
    assert card.count("## Measured") == card.count("split of things: 27 queries, 6 of them with no right answer") == 1
    assert rows["train"] == ["81", "18"]
    assert rows["loss"] == ["sigmoid"]
    assert "Nothing was measured" not in card


def test_metrics_from_before_another_calibration_are_left_out(model, data):
    before = model.facts, model.calibrator
    model.note(evaluate(model, data, split="test", draws=0))
    assert "On the test split of things" in model.card("x")
    calibrate(model, data, split="test")
    try:
        assert "Nothing was measured on this model as it is." in model.card("x")
        assert "on the test split of things" in model.card("x")  # where presences come from now
    finally:
        model.facts, model.calibrator = before


def test_metrics_by_their_older_name():
    measured = {"data": "things", "split": "test", "queries": 27, "unanswered": 6, "calibration": None}
    saved = {"map": {"value": 0.75, "low": 0.7, "high": 0.8}, "gone": {"value": 0.5, "low": None, "high": None}}
    old, new = ({"measured": [{**measured, key: saved}]} for key in ("figures", "metrics"))
    assert tiny(facts=old).card("x") == tiny(facts=new).card("x")
    rows = {row[0]: row[1:] for row in cells(tiny(facts=old).card("x"))}
    assert rows["map"] == ["0.750", "0.700–0.800", "mean average precision"]
    assert rows["gone"] == ["0.500", "–––", ""]


def test_metadata():
    given = ModelCard(tiny(facts={"license": "apache-2.0"}).card("x")).data.to_dict()
    assert given == {
        "library_name": "sigmax",
        "license": "apache-2.0",
        "tags": ["sigmax", "sentence-transformers", "sigmoid", "text"],
    }
    assert "license" not in ModelCard(tiny().card("x")).data.to_dict()
    assert ModelCard(tiny(facts={"license": "a: [b\nc"}).card("x")).data.license == "a: [b\nc"


@pytest.mark.parametrize("make", [tiny, calibrated])
def test_what_it_says_runs(make, tmp_path, monkeypatch, capsys):
    from sigmax.cli import main as cli

    name = "it's a model"
    make().save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    card = Path(name, "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    exec(code, {})
    assert len(capsys.readouterr().out.splitlines()) == 3
    (command,) = re.findall(r"^```\n(sigmax .*?)\n```", card, re.MULTILINE)
    monkeypatch.setattr("sys.argv", [*shlex.split(command), "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["query"] == "your text"
    assert ("no presences" in card) == (make is tiny)


def test_the_way_to_an_encoder_is_not_told(tmp_path):
    """Of a model that was saved with it, when training still kept it."""
    card = tiny(facts={"settings": {"encoder": str(tmp_path), "head": None}}).card("x")
    assert str(tmp_path.parent) not in card
    assert ["encoder", tmp_path.name.replace("_", "\\_")] in cells(card)
    assert "head" not in card


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=3))
def test_any_text_is_shown_as_it_is(texts):
    card = model_card(
        texts[0],
        objective=OBJECTIVES["sigmoid"],
        candidates=texts,
        pictures=False,
        calibrator=None,
        facts={"data": texts[0], "queries": 1, "candidates": 1, "labels": False, "settings": {"encoder": texts[-1]}},
    )
    tokens = MARKDOWN.parse(card.split("\n---\n", 1)[1])
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == 1
    assert kinds.count("heading_open") == 5
    assert kinds.count("fence") == 2
    assert "html_block" not in kinds
    plain = [
        "".join(child.content for child in token.children if child.type in ("text", "text_special"))
        for token in tokens
        if token.type == "inline"
    ]
    for text in texts:
        assert f"“{' '.join(text.split())}”" in plain[1]
