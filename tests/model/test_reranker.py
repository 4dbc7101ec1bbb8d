"""The second look: what it does to logits, and from training over saving to matching."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import sigmax
from helpers.data import things
from helpers.readers import save_reader
from sigmax.errors import DataError
from sigmax.mining import mine
from sigmax.model.reranker import Reranker
from sigmax.training.rerank import rerank_rows

QUERIES = ["what is in the sky", "what is hot", "nothing"]
CANDIDATES = ["moon", "sun", "fire", "sea", "tree"]


class Overlap(torch.nn.Module):
    """A cross-encoder in place of a network: counts letters that two texts share."""

    asked = 0

    def predict(self, pairs, **_):
        self.asked += len(pairs)
        return np.array([len(set(query) & set(candidate)) - 3.5 for query, candidate in pairs], np.float32)


@pytest.fixture(scope="module")
def data():
    return things(unanswered=True)


@pytest.fixture(scope="module")
def reader(tmp_path_factory, data):
    words = sorted({word for text in [*data.queries, *data.candidates] for word in text.split()})
    return save_reader(tmp_path_factory.mktemp("reader"), words)


@pytest.fixture(scope="module")
def model(data, reader):
    return sigmax.train(data, sigmax.Settings(loss="sigmoid", rerank=reader, rerank_depth=3, epochs=2))


# -- logits --------------------------------------------------------------------------------------


def looked(logits, queries, candidates, depth, first, second):
    """The formula of `Reranker`, with loops."""
    read = [[len(set(query) & set(candidate)) - 3.5 for candidate in candidates] for query in queries]
    made = np.empty_like(logits)
    for i, row in enumerate(logits):
        best = sorted(range(len(row)), key=lambda j: (-row[j], j))[:depth]
        least = min(read[i][j] for j in best)
        for j in range(len(row)):
            made[i, j] = first * row[j] + second * (read[i][j] if j in best else least)
    return made


finite = st.floats(-20, 20, width=32)


@settings(max_examples=50, deadline=None)
@given(
    logits=arrays(np.float32, (len(QUERIES), len(CANDIDATES)), elements=finite),
    depth=st.integers(1, 7),
    first=st.sampled_from([2.0**-10, 0.5, 1.0]),
    second=st.sampled_from([2.0**-10, 0.5, 1.0]),
)
def test_logits_are_those_of_the_formula(logits, depth, first, second):
    found = logits.copy()
    Reranker(Overlap(), depth=depth, first=first, second=second).look(found, QUERIES, CANDIDATES)
    expected = looked(logits, QUERIES, CANDIDATES, depth, first, second)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3 * np.finfo(np.float32).eps * 30)  # three roundings
    beyond = np.argsort(-logits, axis=1, kind="stable")[:, depth:]
    for row, places, before in zip(found, beyond, logits, strict=True):  # behind the best, and in their order
        rest = np.setdiff1d(np.arange(len(row)), places)
        assert not len(places) or row[places].max() <= row[rest].min() + 1e-5
        assert (np.diff(row[places]) <= 0).all() == (np.diff(before[places]) <= 0).all()


def test_a_pair_is_read_once():
    reranker = Reranker(Overlap(), depth=2)
    pairs = [("ab", "ab"), ("ab", "ab"), ("a", "bab"), ("aba", "b"), ("aba", "")]
    assert reranker.scores(pairs).tolist() == [-1.5, -1.5, -2.5, -2.5, -3.5]
    assert reranker.encoder.asked == 4
    reranker.scores(pairs)
    assert reranker.encoder.asked == 4
    reranker.train().eval()  # what training changed is read anew
    reranker.scores(pairs)
    assert reranker.encoder.asked == 8


@pytest.mark.parametrize("given", [{"depth": 0}, {"first": 0.0}, {"second": -1.0}])
def test_numbers_out_of_range(given):
    with pytest.raises(ValueError, match="Expected `"):
        Reranker(Overlap(), **given)


# -- training ------------------------------------------------------------------------------------


def test_rows_hold_right_answers_and_the_nearest_wrong_ones(data):
    filled = sigmax.Settings(loss="sigmoid", epochs=1).filled(data)
    first = sigmax.train(data, filled)
    rows = list(rerank_rows(first, data, 3, filled, epochs=1, wrong=2))
    assert len(rows) == len(data.split("train"))
    train = [data.queries[i] for i in data.split("train")]
    logits = first.logits(train, data.candidates).values
    place = {query: i for i, query in enumerate(train)}
    for row in rows:
        i = place[row["query"]]
        right = data.graph[[data.split("train")[i]]].toarray()[0]
        of = [data.candidates.index(text) for text in row["docs"]]
        assert [int(right[j]) for j in of] == row["labels"]
        wrong = [j for j in of if not right[j]]
        near = sorted(np.flatnonzero(right == 0), key=lambda j: -logits[i, j])[:3]
        assert len(wrong) == 2 and set(wrong) <= set(near)
    softmax = sigmax.Settings(epochs=1).filled(data)
    answered = list(rerank_rows(first, data, 3, softmax, epochs=2, wrong=2))
    assert len(answered) == 2 * (len(rows) - data.unanswered("train")) and all(1 in row["labels"] for row in answered)


@pytest.mark.slow
def test_from_training_to_matching(model, data, tmp_path):
    model.save(tmp_path / "model")
    again = sigmax.load(tmp_path / "model")
    queries = ["my sky", "my invoice"]
    assert [one.as_dict() for one in again.match(queries)] == [one.as_dict() for one in model.match(queries)]
    assert again.reranker.config() == model.reranker.config() and again.reranker.depth == 3
    evaluation = sigmax.evaluate(again, data)
    assert 0 < evaluation["map"].value <= 1 and "none_auroc_any" in evaluation.draws
    assert model.facts["settings"]["rerank_depth"] == 3


def test_the_second_look_is_never_behind_the_first_stage_on_dev(model, data, caplog):
    with caplog.at_level(logging.INFO, "sigmax"):
        reader, model.reranker = model.reranker, None
        from sigmax.evaluation import quick_metrics

        alone = quick_metrics(model, data)["map"]
        model.reranker = reader
        assert quick_metrics(model, data)["map"] >= alone


def test_blocks_of_queries_have_the_logits_of_all(model, data):
    queries = [data.queries[i] for i in data.split("test")]
    whole = model.logits(queries, data.candidates).values
    for rows, found in model.logit_blocks(queries, data.candidates, height=4):
        np.testing.assert_allclose(found.values, whole[rows], atol=1e-5)


# -- refused -------------------------------------------------------------------------------------


def test_what_cannot_be_read(data, reader, tmp_path):
    with pytest.raises(DataError, match=r"this data has labels\. Leave out `rerank`"):
        sigmax.train(things(labels=True), sigmax.Settings(rerank=reader))
    with pytest.raises(ValueError, match="no `none_candidate` beside `rerank`"):
        sigmax.train(data, sigmax.Settings(rerank=reader, none_candidate=True))
    with pytest.raises(ValueError, match="`rerank_depth` of at least 1, got 0"):
        sigmax.Settings(rerank=reader, rerank_depth=0)
    (tmp_path / "config.json").write_text('{"model_type": "model2vec"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="static vectors cannot read two texts together"):
        sigmax.train(data, sigmax.Settings(rerank=str(tmp_path)))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"cross-encoder .* did not load"):
        sigmax.train(data, sigmax.Settings(rerank=str(empty)))


def test_mining_refuses(model, data):
    with pytest.raises(DataError, match="Mine with one trained without `rerank`"):
        mine(model, data)


def test_a_damaged_second_look(model, tmp_path):
    model.save(tmp_path / "model")
    (tmp_path / "model" / "reranker" / "model.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=r"did not load|damaged"):
        sigmax.load(tmp_path / "model")
