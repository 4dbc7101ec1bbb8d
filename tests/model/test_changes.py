"""Candidates that are added, replaced and removed after training."""

import json

import numpy as np
import pytest

from helpers.commands import jsonl, posix, refused
from helpers.models import calibrated
from helpers.processes import kills
from sigmax.calibration.calibrator import fit_calibrator
from sigmax.encoders.lexical import Lexical
from sigmax.model import dual_encoder, folder
from sigmax.model.changes import add_candidates, remove_candidates
from sigmax.model.dual_encoder import DualEncoder, load

ASKED = ["moon light", "sun", "a comet"]
IDS = ["m", "s", "f"]


def made(place, *, few, monkeypatch, lexical=False):
    for module in (dual_encoder, folder):
        monkeypatch.setattr(module, "FEW", 100 if few else 2)
    names = ["moon", "sun", "fire"]
    given = {"lexical": Lexical.fit(names)} if lexical else {}
    model = calibrated(candidates=names, candidate_ids=IDS, **given)
    model.save(place)
    return place


@pytest.fixture(params=["few", "many", "many, shared words"])
def place(request, tmp_path, monkeypatch):
    return made(
        tmp_path / "model", few=request.param == "few", monkeypatch=monkeypatch, lexical="words" in request.param
    )


def logits(model):
    return model.logits(ASKED, model.candidates).values


def anew(place):
    """The logits where every candidate is encoded again."""
    model = load(place)
    return model.logits_of(model.vectors(ASKED), model.vectors(list(model.candidates), "candidate")).detach().numpy()


def test_adding_replacing_and_removing(place, tmp_path, monkeypatch):
    before = load(place)
    table = jsonl(
        tmp_path / "new.jsonl",
        [{"id": "c", "text": "comet"}, {"id": "s", "text": "sun light"}, {"id": "f", "text": "fire"}],
    )
    seen = []
    encode = DualEncoder._encode

    def noted(self, items, side, *given):
        seen.extend(items if side == "candidate" else [])
        return encode(self, items, side, *given)

    monkeypatch.setattr(DualEncoder, "_encode", noted)
    change = add_candidates(place, table)
    assert seen == ["sun light", "comet"], "nothing else is encoded"
    counts = {"added": 1, "replaced": 1, "removed": 0, "same": 1, "candidates": 4, "index": False}
    assert change.as_dict() == counts
    monkeypatch.undo()
    model = load(place)
    assert list(model.candidates) == ["moon", "sun light", "fire", "comet"]
    assert list(model.candidate_ids) == ["m", "s", "f", "c"]
    assert logits(model) == pytest.approx(anew(place), abs=1e-5)
    assert logits(model)[:, [0, 2]] == pytest.approx(logits(before)[:, [0, 2]], abs=1e-5)

    gone = jsonl(tmp_path / "gone.jsonl", [{"id": "m"}, {"id": "s"}])
    assert remove_candidates(place, gone).as_dict() == counts | {
        "added": 0, "replaced": 0, "removed": 2, "same": 0, "candidates": 2
    }  # fmt: skip
    model = load(place)
    assert (list(model.candidates), list(model.candidate_ids)) == (["fire", "comet"], ["f", "c"])
    assert logits(model) == pytest.approx(anew(place), abs=1e-5)
    assert model.match("comet").best[0].presence is not None


def test_a_new_candidate_has_what_all_share(tmp_path, monkeypatch):
    """Where each candidate has its own scale and bias, those of the others stay, also once they are many."""
    place = made(tmp_path / "model", few=True, monkeypatch=monkeypatch)
    model = load(place)
    random = np.random.default_rng(0)
    right = random.random((400, 3)) < np.array([0.1, 0.3, 0.6])
    made_up = random.normal(size=right.shape) + right
    model.calibrator = fit_calibrator(made_up, right, model.candidate_ids, method="platt-candidate")
    model.save(place)
    for module in (dual_encoder, folder):
        monkeypatch.setattr(module, "FEW", 3)
    add_candidates(place, jsonl(tmp_path / "new.jsonl", [{"text": "comet"}]))
    after = load(place)
    assert len(after.candidates) == 4
    curve = model.calibrator.calibration
    for query in ASKED:
        found = {one.candidate_id: one for one in after.match(query)}
        for at, key in enumerate(IDS):
            expected = curve.scales[at] * found[key].logit + curve.biases[at]
            if curve.competition == 0:
                assert found[key].presence == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-6)


def test_nothing_changes(place, tmp_path):
    before = (place / "sigmax.json").stat().st_mtime_ns
    change = add_candidates(place, jsonl(tmp_path / "same.jsonl", [{"id": "m", "text": "moon"}]))
    assert (change.same, change.added, change.candidates) == (1, 0, 3)
    assert (place / "sigmax.json").stat().st_mtime_ns == before


def test_an_older_state_is_not_overwritten(place, tmp_path, monkeypatch):
    """Of two commands at once, the second says so instead of undoing what the first did."""
    table = jsonl(tmp_path / "new.jsonl", [{"text": "comet"}])
    rows = jsonl(tmp_path / "other.jsonl", [{"text": "other"}])
    encode = DualEncoder.vectors

    def meanwhile(self, items, side="query"):
        monkeypatch.undo()
        add_candidates(place, rows)
        return encode(self, items, side)

    monkeypatch.setattr(DualEncoder, "vectors", meanwhile)
    with pytest.raises(OSError, match="was changed meanwhile"):
        add_candidates(place, table)
    assert "other" in list(load(place).candidates)


def test_what_cannot_be(sigmax, place, tmp_path):
    twice = jsonl(tmp_path / "twice.jsonl", [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}])
    refused(sigmax("candidates", "add", place, twice), 1, "expected each id once, got 'a' twice")
    unknown = jsonl(tmp_path / "unknown.jsonl", [{"id": "mo"}])
    refused(sigmax("candidates", "remove", place, unknown), 1, "no candidate with the id 'mo'")
    everything = jsonl(tmp_path / "all.jsonl", [{"id": key} for key in IDS])
    refused(sigmax("candidates", "remove", place, everything), 1, "at least one candidate to stay")
    strange = jsonl(tmp_path / "strange.jsonl", [{"title": "x"}])
    refused(sigmax("candidates", "add", place, strange), 1, "a column text or candidate, got title")
    refused(sigmax("candidates", "add", place), 2, "expected a table of what to add")
    refused(sigmax("candidates", "list", place, twice), 2, "expected none for list")
    refused(sigmax("candidates", "renew", place, twice), 2, "expected add, remove, list, pack, got 'renew'")
    refused(sigmax("candidates", "add", tmp_path / "none", twice), 1, "expected a model folder here, got none")
    empty = tmp_path / "empty.csv"
    empty.write_text("id,text\n")
    refused(sigmax("candidates", "add", place, empty), 1, "empty.csv")
    assert list(load(place).candidate_ids) == IDS


def test_on_the_command_line(sigmax, place, tmp_path):
    listed = sigmax("candidates", "list", place)
    assert [json.loads(line) for line in listed.out.splitlines()] == [
        {"id": "m", "text": "moon"}, {"id": "s", "text": "sun"}, {"id": "f", "text": "fire"}
    ]  # fmt: skip
    table = tmp_path / "new.csv"
    table.write_text("name,words\nm,full moon\nq,quasar\n")
    done = sigmax("candidates", "add", place, table, "--columns", "id=name,text=words", "--json")
    assert json.loads(done.out)["candidates"] == 4
    assert "1 added, 1 replaced; the model offers 4 candidates" in done.words
    again = tmp_path / "again.jsonl"
    again.write_text(sigmax("candidates", "list", place).out)
    assert "4 same" in sigmax("candidates", "add", place, again).words


@pytest.mark.slow
@posix
@pytest.mark.parametrize("few", [True, False])
def test_killed_at_any_moment(tmp_path, monkeypatch, few):
    """20 kills: the folder is the old model or the new one, whole, and a last run is as if nothing had been."""
    place = made(tmp_path / "model", few=few, monkeypatch=monkeypatch)
    tables = [
        jsonl(tmp_path / f"{n}.jsonl", [{"id": f"x{j}", "text": f"thing {n} {j}"} for j in range(90)]) for n in range(2)
    ]
    for _ in kills(lambda number: add_candidates(place, tables[number % 2]), 20):
        model = load(place)
        texts = list(model.candidates)
        assert len(texts) == 93
        assert len({text.split()[1] for text in texts[3:]}) == 1, "never half"
        assert model.match("thing 1 5").best
    add_candidates(place, tables[0])
    add_candidates(place, tables[1])
    assert {text.split()[1] for text in list(load(place).candidates)[3:]} == {"1"}
