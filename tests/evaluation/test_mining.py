import json
import logging

import numpy as np
import pytest
import torch

import sigmax
from sigmax import DataError, MatchDataset, mining
from sigmax.data.batches import Batches
from sigmax.data.writers import write_beir
from sigmax.mining import mine

ONE_EACH = {"train": np.array([0]), "dev": np.array([1]), "test": np.array([2])}


@pytest.fixture
def command(sigmax):
    return sigmax


@pytest.fixture(scope="module")
def data():
    return sigmax.load_data("emoji-hidden")


@pytest.fixture(scope="module")
def model(data):
    return sigmax.train(data, sigmax.Settings(epochs=1, seed=0), tell=False)


def text(given):
    return " ".join(given.casefold().split())


def by_loops(model, data, negatives, bound):
    """What the docstring says, over the whole matrix."""
    rows = data.split("train")
    logits = model.logits([data.queries[i] for i in rows], data.candidates).values
    presence = model.calibrator.presence(logits, data.candidate_ids)
    answers = {}
    for i, j in data.pairs.tolist():
        if i in rows:
            answers.setdefault(text(data.queries[i]), set()).add(text(data.candidates[j]))
    wrong = {(i, j) for i, j in data.wrong.tolist()}
    found = set(wrong)
    for row, i in enumerate(rows.tolist()):
        right = answers.get(text(data.queries[i]), set())
        allowed = [
            j
            for j in range(len(data.candidates))
            if text(data.candidates[j]) not in right and (i, j) not in wrong and presence[row, j] < bound
        ]
        found |= {(i, j) for j in sorted(allowed, key=lambda j: -logits[row, j])[:negatives]}
    return found


@pytest.fixture
def small(data):
    """Few queries, one text twice in other letters with other answers, a candidate twice, a pair known to be wrong."""
    chosen = np.concatenate([data.split(name)[:40] for name in ("train", "dev", "test")])
    place = {int(i): k for k, i in enumerate(chosen)}
    pairs = [(place[i], j) for i, j in data.pairs.tolist() if i in place]
    first = next((i, j) for i, j in pairs if i == 0)
    queries = [data.queries[i] for i in chosen]
    queries[1] = f" {queries[0].upper()} "
    candidates = [*data.candidates, data.candidates[first[1]].title()]
    known = {j for i, j in pairs if i == 3}
    wrong = [j for j in range(len(candidates)) if j not in known][:1]
    return MatchDataset(
        "small",
        queries,
        candidates,
        np.array(pairs),
        {name: np.arange(40 * k, 40 * k + 40) for k, name in enumerate(("train", "dev", "test"))},
        wrong=np.array([(3, wrong[0])]),
        candidate_ids=[*data.candidate_ids, "again"],
    )


@pytest.mark.parametrize("negatives", [1, 5])
@pytest.mark.parametrize("bound", [0.02, 0.5, 1.0])
def test_blocks_find_what_loops_find(small, model, negatives, bound, monkeypatch):
    monkeypatch.setattr(mining, "QUERIES", 7)
    monkeypatch.setattr(mining, "CANDIDATES", 100)
    mined = mine(model, small, negatives=negatives, bound=bound)
    assert {(i, j) for i, j in mined.wrong.tolist()} == by_loops(model, small, negatives, bound)
    assert (mined.pairs == small.pairs).all()
    assert set(mined.wrong[:, 0].tolist()) <= set(small.split("train").tolist())


@pytest.mark.slow
def test_what_may_be_right_is_left_out(data, model, caplog):
    with caplog.at_level(logging.INFO, "sigmax"):
        mined = mine(model, data, bound=0.1)
    said = int(caplog.text.split(" pairs of a presence of 0.1 or more were left out")[0].rsplit(" ", 1)[-1])
    rows = data.split("train")
    presence = model.calibrator.presence(
        model.logits([data.queries[i] for i in rows], data.candidates).values, data.candidate_ids
    )
    place = {int(i): k for k, i in enumerate(rows)}
    chosen = np.array([presence[place[i], j] for i, j in mined.wrong.tolist()])
    assert (chosen < 0.1).all()
    assert said == ((presence >= 0.1) & (data.graph[rows].toarray() == 0)).sum() > 0
    near = np.array([presence[place[i], j] for i, j in mine(model, data, bound=1.0).wrong.tolist()])
    assert (near >= 0.1).any()
    drawn = presence[:, np.random.default_rng(0).integers(len(data.candidates), size=5)]
    assert chosen.mean() > 3 * drawn.mean()


def test_fewer_candidates_than_asked_for(model):
    few = MatchDataset("few", ["sun", "moon", "fire"], ["sun", "moon"], [[0, 0], [1, 1]], ONE_EACH)
    assert mine(model, few, negatives=9).wrong.tolist() == [[0, 1]]


def test_progress(data, model):
    told = []
    mine(model, data, advance=lambda done, what: told.append((done, what)))
    assert told == sorted(told)
    assert len(told) == -(-len(data.split("train")) // mining.QUERIES)
    assert told[-1] == (1.0, "mining")


# -- files ----------------------------------------------------------------------------------------


def test_round_trip(small, model, tmp_path):
    mined = mine(model, small)
    write_beir(mined, tmp_path / "mined")
    back = sigmax.load_data(tmp_path / "mined")
    assert list(back.queries) == [query.strip() for query in mined.queries]
    for name in ("candidates", "query_ids", "candidate_ids"):
        assert list(getattr(back, name)) == list(getattr(mined, name))
    assert (back.pairs == mined.pairs).all()
    assert (back.wrong == mined.wrong).all()
    for name, indices in mined.splits.items():
        assert (back.split(name) == indices).all()  # queries without an answer too
    assert mined.unanswered("test") == back.unanswered("test")


def test_round_trip_of_ids_that_no_table_can_hold(tmp_path):
    texts = ["one\tanswer", "two\nlines", "three"]
    data = MatchDataset("odd", ["a", "b", "c"], texts, [[0, 0], [1, 2]], ONE_EACH, wrong=[[0, 1]])
    write_beir(data, tmp_path / "odd")
    back = sigmax.load_data(tmp_path / "odd")
    assert list(back.candidates) == texts
    assert back.candidate_ids == ["0", "1", "2"]
    assert (back.pairs == data.pairs).all()
    assert (back.wrong == data.wrong).all()


def test_training_offers_what_was_mined(data, model):
    mined = mine(model, data, negatives=4)
    batch = Batches(mined, batch_size=16)[0]
    for i in batch.queries:
        wrong = mined.wrong[mined.wrong[:, 0] == i][:, 1]
        assert len(wrong)
        assert set(wrong.tolist()) <= set(batch.candidates.tolist())
    plain = Batches(data, batch_size=16)[0]
    assert len(batch.candidates) > len(plain.candidates)


@pytest.mark.slow
def test_command(command, small, model, tmp_path):
    write_beir(small, tmp_path / "data")
    given = sigmax.load_data(tmp_path / "data")
    model.save(tmp_path / "model")
    words = ("mine", tmp_path / "model", tmp_path / "data", "-o", tmp_path / "mined", "--negatives", 2)
    done = command(*words, "--bound", 0.3, "--json")
    assert done.code == 0, done.err
    back = sigmax.load_data(tmp_path / "mined")
    assert (back.wrong == mine(model, given, negatives=2, bound=0.3).wrong).all()
    assert json.loads(done.out) == {
        "data": str(tmp_path / "mined"),
        "queries": 40,
        "mined": len(back.wrong) - 1,
        "wrong": len(back.wrong),
    }
    done = command("train", tmp_path / "mined", "-o", tmp_path / "again", "--epochs", 1)
    assert done.code == 0, done.err
    assert (tmp_path / "again" / "sigmax.json").exists()
    again = command(*words)
    assert again.code == 1
    assert "is there already. Choose another folder" in again.words
    (tmp_path / "empty").mkdir()
    plain = command("mine", tmp_path / "model", tmp_path / "data", "-o", tmp_path / "empty")
    assert plain.code == 0, plain.err
    assert "wrong pairs found for 40 training queries" in plain.out
    assert f"Next: sigmax train {tmp_path / 'empty'}" in plain.words


def test_refused(data, model):
    with pytest.raises(ValueError, match="`negatives` of at least 1, got 0"):
        mine(model, data, negatives=0)
    with pytest.raises(ValueError, match=r"`bound` in \(0, 1\], got 0"):
        mine(model, data, bound=0.0)
    with pytest.raises(DataError, match="digits: mining needs texts on both sides, got pictures"):
        mine(model, sigmax.load_data("digits"))
    calibrator, model.calibrator = model.calibrator, None
    try:
        with pytest.raises(DataError, match=r"not calibrated.*sigmax calibrate"):
            mine(model, data)
    finally:
        model.calibrator = calibrator


def test_no_gradients_are_kept(data, model):
    mine(model, data, negatives=1)
    assert torch.is_grad_enabled()
