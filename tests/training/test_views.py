"""The lexical view in a model: where it starts, what dev decides, and that it is saved."""

import numpy as np
import pytest
import torch

from helpers.data import things
from sigmax.comparison.baselines import BM25
from sigmax.data import MatchDataset
from sigmax.data.batches import Batches
from sigmax.encoders.bm25 import NEAREST, fit_lexical, nearest_wrong
from sigmax.encoders.lexical import Lexical
from sigmax.errors import DataError
from sigmax.evaluation import quick_metrics
from sigmax.model import load
from sigmax.model.vectors import Vectors
from sigmax.training import Settings, build_model, train
from sigmax.training.views import DENSE, start_lexical, weigh_views

NAMES = [f"{word} {number}" for word in ("pump", "valve", "filter", "hose") for number in range(30)]


def parts(seed: int = 0) -> MatchDataset:
    """Queries name the part they want by a code; no code of dev or test is in train."""
    random = np.random.default_rng(seed)
    codes = [f"SKU-{code}" for code in random.permutation(9000)[: len(NAMES)] + 1000]
    order = random.permutation(len(NAMES))
    return MatchDataset(
        "parts",
        [f"I need the {code.lower()}, please" for code in codes],
        [f"{name}: {code}" for name, code in zip(NAMES, codes, strict=True)],
        np.stack([np.arange(len(NAMES))] * 2, axis=1),
        {"train": order[:60], "dev": order[60:90], "test": order[90:]},
    )


@pytest.mark.parametrize("loss", ["softmax-decoupled", "sigmoid"])
def test_words_never_seen_in_training(loss, tmp_path):
    data = parts()
    model = train(data, Settings(loss=loss, epochs=2))
    assert quick_metrics(model, data, split="test")["map"] == 1
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    queries = [data.queries[i] for i in data.split("test")]
    expected = model.logits(queries, data.candidates).values
    np.testing.assert_array_equal(again.logits(queries, data.candidates).values, expected)
    assert again.match("sku-1", top_k=1)  # whatever it is


@pytest.mark.parametrize("seed", [0, 1])
def test_never_behind_bm25_on_dev(seed):
    """Whatever training did to it."""
    data = parts(seed)
    batches = Batches(data)
    model = build_model(data, Settings(), batches)
    start = model.lexical.log_weights.detach().clone()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.query_encoder.table.weight.fill_(1)  # blind: all vectors point the same way
        model.lexical.theta[torch.rand(len(model.lexical.theta), generator=generator) < 0.9] = -60  # as good as deaf
        model.lexical.log_weights.normal_(std=3, generator=generator)
    before = quick_metrics(model, data)["map"]
    weigh_views(model, data, start, "map")
    assert quick_metrics(model, data)["map"] >= quick_metrics(BM25(data), data)["map"] > before


def test_dev_weighs_the_dense_logit():
    data = parts()
    model = build_model(data, Settings(), Batches(data))
    with torch.no_grad():
        model.query_encoder.table.weight.fill_(1)
        model.lexical.theta.fill_(-60)  # words say nothing
    dense = model.loss.log_scale.item()
    queries, candidates = model.vectors(data.queries), model.vectors(data.candidates, "candidate")
    weigh_views(model, data, model.lexical.log_weights.detach().clone(), "map")
    assert not model.lexical.theta.any()  # BM25 again
    assert model.loss.log_scale.item() == pytest.approx(dense + np.log(DENSE[-1]))
    logits = model.logits_of(queries, candidates)
    words = model.lexical.scores(queries.tokens, candidates.tokens)
    alone = model.logits_of(Vectors(queries.dense), Vectors(candidates.dense))
    torch.testing.assert_close(logits, alone + torch.from_numpy(words))


@pytest.mark.parametrize("loss", ["softmax-decoupled", "sigmoid"])
def test_the_start_has_the_least_loss(loss):
    data = parts()
    batches = Batches(data, batch_size=60, negatives=60)
    model = build_model(data, Settings(loss=loss, batch_size=60, negatives=60), batches)
    batch = batches[0]
    queries, candidates = [data.queries[i] for i in batch.queries], [data.candidates[j] for j in batch.candidates]
    shared = model.lexical(model.lexical.tokens(queries, "query"), model.lexical.tokens(candidates, "candidate"))
    dense = model.loss.logits(model.encode(queries), model.encode(candidates, "candidate")).detach()

    def value(scale: float, shift: float) -> float:
        logits = dense + shared.detach() * scale + (0.0 if model.loss.logit_bias is None else shift)
        return model.loss.from_logits(logits, batch.positives).item()

    least = value(1.0, 0.0)
    for scale, shift in ((0.7, 0.0), (1.4, 0.0), (1.0, 0.5), (1.0, -0.5)):
        assert value(scale, shift) >= least - 2e-3  # what keeps the scale near 1 costs a little
    start_lexical(build_model(things(labels=True), Settings(), batches), batches)  # no such view: nothing to do


def test_words_that_the_encoder_sees_are_not_counted_twice():
    data = parts()
    started = {}
    for scale in (0.1, 30.0):
        settings = Settings(logit_scale=scale, batch_size=60, negatives=60)
        model = build_model(data, settings, Batches(data, batch_size=60, negatives=60))
        started[scale] = model.lexical.log_weights[0].item()
    assert started[30.0] < started[0.1]  # n-grams not trained yet see the codes as well


def test_dev_can_leave_words_out():
    """Where they mislead."""
    data = parts()
    model = train(data, Settings(epochs=3))
    with torch.no_grad():
        model.lexical.log_weights.fill_(-60)
    alone = quick_metrics(model, data)["map"]
    with torch.no_grad():
        model.lexical.log_weights[1] = 5  # parts of words alone, each with a weight of chance
        model.lexical.theta.uniform_(-9, 9, generator=torch.Generator().manual_seed(0))
    before = quick_metrics(model, data)["map"]
    weigh_views(model, data, torch.full((3,), -60.0), "map")
    assert before < alone
    assert quick_metrics(model, data)["map"] >= alone - 0.01  # what is left of the words breaks ties


def test_mini_batches_and_none_of_these_train_it():
    data = things(unanswered=True)
    model = train(data, Settings(loss="softmax-any", steps=3, mini_batch_size=7, none_candidate=True))
    assert model.lexical is not None and model.none_vector is not None
    assert np.isfinite(model.logits(["night sky"], data.candidates).none).all()


def test_where_there_are_no_two_texts():
    data = things(labels=True)
    assert not Settings().filled(data).lexical
    assert train(data, Settings(steps=1)).lexical is None
    with pytest.raises(DataError, match="queries and candidates have to be texts"):
        BM25(data)


# -- BM25 on a data set --------------------------------------------------------------------------


def test_fitted_once_and_trained_apart():
    data = parts()
    one, other = fit_lexical(data), fit_lexical(data)
    assert one.keys is other.keys
    one.theta.data.fill_(1)
    assert not other.theta.any() and not fit_lexical(data).theta.any()


def test_the_stemmer_is_chosen_on_dev():
    queries = ["sorting apples", "burning boats", "running dogs", "sleeping cats"]
    answers = ["he sorts an apple", "it burns a boat", "she runs a dog", "they sleep: a cat"]
    splits = {"train": np.arange(1), "dev": np.arange(1, 4)}
    data = MatchDataset("x", queries, answers, np.stack([np.arange(4)] * 2, axis=1), splits)
    assert fit_lexical(data).tokenizer.stemmer == "english"


def test_nearest_wrong():
    data = parts()
    near = nearest_wrong(data)
    assert near.shape == (len(data.queries), NEAREST)
    train_rows = data.split("train")
    assert (near[data.split("dev")] == -1).all()
    view: Lexical = fit_lexical(data)
    for i in train_rows[:10]:
        assert i not in near[i]  # the right one
        assert len(set(near[i].tolist())) == NEAREST
        scores = view.scores(view.tokens([data.queries[i]], "query"), view.tokens(data.candidates, "candidate"))[0]
        others = np.setdiff1d(np.arange(len(NAMES)), [*near[i], i])
        assert scores[near[i]].min() >= scores[others].max()


def test_batches_draw_the_nearest():
    data = parts()
    near = nearest_wrong(data)
    batches = Batches(data, batch_size=1, near=near)
    assert batches.offer_all  # few candidates: all are there
    few = Batches(data, batch_size=1, negatives=0, near=near)
    for number in range(5):
        batch = few[number]
        assert len(batch.candidates) == 3  # the right one and two that are near
        assert np.isin(batch.candidates, [*near[batch.queries[0]], batch.queries[0]]).all()
