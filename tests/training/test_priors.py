"""A bias per label: what it adds to a cosine, where it starts, and that all that follows takes it as it is."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.data import things
from sigmax.data.batches import Batches
from sigmax.data.canvases import digits
from sigmax.data.dataset import MatchDataset
from sigmax.encoders import LabelTable, NgramEmbedding
from sigmax.encoders.labels import unit_with_constant
from sigmax.families import OBJECTIVES
from sigmax.losses import make_loss
from sigmax.model.dual_encoder import DualEncoder, load
from sigmax.positives import Positives
from sigmax.training.settings import Settings
from sigmax.training.train import build_model, train

#: How many of the 40 training queries each label is right for.
COUNTS = {"everywhere": 30, "often": 10, "rare": 2, "never": 0}
LOSSES = ["sigmoid", "softmax-average", "softmax-decoupled"]


def skewed(weights=None, *, single=False) -> MatchDataset:
    """Queries that say nothing of their labels; those of dev and test are right for all but the last."""
    queries = [f"query {number}" for number in range(60)]
    pairs = [(i, j) for j, count in enumerate(COUNTS.values()) for i in range(count)]
    if single:
        pairs = list(enumerate(np.repeat([0, 1, 2], [28, 10, 2])))
    pairs += [(i, j) for i in range(40, 60) for j in range(3)]
    splits = {"train": np.arange(40), "dev": np.arange(40, 50), "test": np.arange(50, 60)}
    return MatchDataset("skewed", queries, list(COUNTS), np.array(pairs), splits, labels=True, weights=weights)


def built(data, **settings):
    filled = Settings(**{"encoder": "ngrams", **settings}).filled(data)
    return build_model(data, filled, Batches(data, draw=filled.draw, negatives=filled.negatives, epochs=1))


def biases(model):
    """What each label adds to a logit."""
    bias = 0.0 if model.loss.logit_bias is None else model.loss.logit_bias.item()
    return model.loss.logit_scale.item() * model.candidate_encoder.biases.detach().double().numpy() + bias


def test_a_label_with_a_bias():
    start, levels = torch.tensor([[3.0, 4.0], [0.0, -2.0]]), torch.tensor([0.5, -7.0])
    table = LabelTable(["cat", "dog"], start, biases=levels)
    made = table(table.preprocess(["dog", "cat", "dog"]))["sentence_embedding"]
    np.testing.assert_allclose(made.detach(), [[0, -1, -7], [0.6, 0.8, 0.5], [0, -1, -7]], rtol=1e-6)
    assert table.get_embedding_dimension() == 3
    with pytest.raises(ValueError, match=r"Expected a bias for each of 2 labels, got \(3,\)"):
        LabelTable(["cat", "dog"], start, biases=torch.zeros(3))


@given(st.integers(0, 2**31 - 1))
def test_logits_are_cosines_and_biases(seed):
    random = torch.Generator().manual_seed(seed)
    names = ["a", "b", "c"]
    query, labels = torch.randn(4, 5, generator=random), torch.randn(3, 5, generator=random)
    levels = torch.randn(3, generator=random)
    loss = make_loss("sigmoid", logit_scale=7.0, logit_bias=-2.0, similarity="dot")
    table = LabelTable(names, labels, biases=levels)
    offered = table(table.preprocess(names))["sentence_embedding"]
    found = loss.logits(unit_with_constant(query), offered).detach()
    for i in range(4):
        for j in range(3):
            dot = sum(float(x) * float(y) for x, y in zip(query[i], labels[j], strict=True))
            length = math.dist([0] * 5, query[i].tolist()) * math.dist([0] * 5, labels[j].tolist())
            expected = 7 * (dot / length + float(levels[j])) - 2
            # float32 sums of six products, of unit vectors and a bias
            assert float(found[i, j]) == pytest.approx(expected, abs=7 * 30 * 2**-24 * (1 + abs(float(levels[j]))))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_they_start_at_the_log_odds(loss, weighted):
    weights = np.where(np.arange(60) < 10, 3.0, 1.0) if weighted else None
    model = built(skewed(weights), loss=loss)
    each = (weights / weights[:40].mean() if weighted else np.ones(60))[:40]
    parts = [(sum(each[:count]) + 0.5) / (sum(each) + 1) for count in COUNTS.values()]
    if loss == "sigmoid":
        expected = [math.log(part / (1 - part)) for part in parts]
    else:
        expected = [math.log(part) - sum(map(math.log, parts)) / 4 for part in parts]
    np.testing.assert_allclose(biases(model), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_else_is_better_before_training(loss):
    """Of logits that do not depend on the query, where every query has one right answer."""
    data = skewed(single=True)
    model, objective = built(data, loss=loss), make_loss(loss, logit_scale=1.0, logit_bias=0.0)
    rows, columns = data.graph[:40].nonzero()
    positives = Positives(torch.from_numpy(rows), torch.from_numpy(columns), (40, 4))
    free = torch.from_numpy(biases(model)).requires_grad_()
    objective.from_logits(free.expand(40, 4), positives).backward()
    assert free.grad.abs().max() < 1 / 40  # the half that is added to each count moves a part by less than 1/40


def test_labels_alike_start_at_zero():
    data = things(labels=True)
    even = MatchDataset(
        "even",
        [f"query {number}" for number in range(60)],
        data.candidates,
        np.array([(i, i % 6) for i in range(60)]),
        {"train": np.arange(30), "dev": np.arange(30, 45), "test": np.arange(45, 60)},
        labels=True,
    )
    for loss in LOSSES:
        assert built(even, loss=loss).candidate_encoder.biases.abs().max() < 0.01


@pytest.mark.parametrize("settings", [{"draw": "one-positive"}, {"negatives": 1}, {"epochs": 0.0}])
def test_where_a_batch_offers_a_part_they_start_at_zero(settings, static_folder):
    encoder = str(static_folder) if "epochs" in settings else "ngrams"
    assert built(skewed(), encoder=encoder, **settings).candidate_encoder.biases.eq(0).all()


def test_none_of_these_has_a_prior():
    model = built(skewed(), none_candidate=True)
    parts = np.array([30.5, 10.5, 2.5, 0.5, 10.5]) / 41
    expected = (np.log(parts) - np.log(parts).mean()) / model.loss.logit_scale.item()
    assert model.none_vector[-1].item() == pytest.approx(expected[-1], rel=1e-5)
    np.testing.assert_allclose(model.candidate_encoder.biases.detach(), expected[:4], rtol=1e-5)


def test_a_linear_head_of_a_network_starts_there_too():
    data = digits({"train": 40, "dev": 5, "test": 5})
    logits = built(data, encoder="convnet", head="linear").logits(data.queries[:2], data.candidates).values
    part = (data.graph[:40].sum(0) + 0.5) / 41
    np.testing.assert_allclose(logits, np.tile(np.log(part) - np.log(part).mean(), (2, 1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", ["sigmoid", "softmax-decoupled"])
def test_they_are_trained_and_saved(loss, tmp_path):
    data = skewed()
    start = biases(built(data, loss=loss))
    model = train(data, Settings(encoder="ngrams", loss=loss, epochs=3, learning_rate=1.0))
    found = biases(model)
    assert not np.array_equal(found, start)
    assert (np.diff(found) < 0).all(), "the more frequent, the larger"
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.candidate_encoder.biases is not None
    expected = model.logits(["xyzzy", "query 3"], model.candidates).values
    np.testing.assert_array_equal(again.logits(["xyzzy", "query 3"], model.candidates).values, expected)


@pytest.mark.parametrize("loss", list(OBJECTIVES))
def test_sampling_is_corrected_as_for_other_logits(loss):
    """The loss of s − log q, whatever part of s is a bias."""
    random = torch.Generator().manual_seed(0)
    query, labels = torch.randn(6, 5, generator=random), torch.randn(4, 5, generator=random)
    table = LabelTable(list("abcd"), labels, biases=torch.tensor([2.0, 0.5, -1.0, -3.0]))
    offered, asked = table(table.preprocess(table.names))["sentence_embedding"], unit_with_constant(query)
    rate = torch.tensor([0.9, 0.5, 0.1, 0.02])
    positives = Positives([0, 1, 1, 2, 3, 4], [0, 0, 1, 2, 3, 1], (6, 4))
    objective = make_loss(loss, logit_scale=3.0, logit_bias=-1.0, similarity="dot")
    got = objective(asked, offered, positives, candidate_log_q=rate.log())
    cosines = torch.nn.functional.cosine_similarity(query[:, None], labels[None], dim=-1)
    bias = 0.0 if objective.logit_bias is None else -1.0
    logits = 3 * (cosines + table.biases) + bias
    expected = objective.from_logits(logits, positives, candidate_log_q=rate.log())
    np.testing.assert_allclose(got.detach(), expected.detach(), rtol=1e-5)


def test_a_table_without_biases_is_as_before():
    """What was saved before labels had one."""
    encoder = NgramEmbedding.fit(["moon", "sun"], dimension=4)
    loss = make_loss("sigmoid", logit_scale=2.0, logit_bias=-1.0)
    table = LabelTable(["moon", "sun"], torch.randn(2, 4))
    assert list(table.state_dict()) == ["vectors"]
    model = DualEncoder(encoder, table, loss, candidates=table.names).eval()
    with torch.no_grad():
        vectors = encoder(encoder.preprocess(["moon sun"]))["sentence_embedding"]
        expected = 2 * torch.nn.functional.cosine_similarity(vectors, table.vectors) - 1
    np.testing.assert_allclose(model.logits(["moon sun"], table.names).values[0], expected, rtol=1e-5)
