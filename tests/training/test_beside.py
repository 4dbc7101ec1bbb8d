"""N-grams beside a frozen encoder: two linear models, and how much each counts."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

import sigmax
from helpers.commands import rows, write_labelled
from helpers.data import THINGS, things
from sigmax.encoders.joined import Joined
from sigmax.errors import DataError
from sigmax.losses import make_loss
from sigmax.positives import Positives
from sigmax.training.beside import RIDGE, weigh


def told(static_folder, **settings):
    data = things(labels=True, unanswered=True)
    given = {"loss": "sigmoid", "encoder": str(static_folder), "frozen": True, "head": "ngrams", **settings}
    return data, sigmax.train(data, sigmax.Settings(**given), calibrated=False)


@pytest.mark.parametrize("loss", ["softmax-decoupled", "sigmoid"])
@pytest.mark.slow
def test_logits_are_a_sum_of_both(loss, static_folder, tmp_path):
    data, model = told(static_folder, loss=loss)
    query = "a word never read: moon zyx"
    assert isinstance(model.query_encoder, Joined)
    frozen, ngrams = model.query_encoder.first, model.query_encoder.second
    x = frozen(frozen.preprocess([query]))["sentence_embedding"][0].detach()
    g = ngrams(ngrams.preprocess([query]))["sentence_embedding"][0].detach()
    table = model.candidate_encoder.vectors.detach()
    (found,) = model.logits([query], data.candidates).values
    for j in range(len(data.candidates)):
        expected = sum(float(x[k] * table[j, k]) for k in range(len(x)))
        expected += sum(float(g[k] * table[j, len(x) + k]) for k in range(len(g)))
        assert found[j] == pytest.approx(expected, abs=1e-4)
    assert torch.count_nonzero(table[:, len(x) :]) == len(data.candidates)  # a coordinate of n-grams for each label
    model.save(tmp_path / "model")
    again = sigmax.load(tmp_path / "model")
    np.testing.assert_allclose(again.logits([query], data.candidates).values[0], found, atol=1e-5)


@pytest.mark.slow
def test_none_of_these_has_both(static_folder):
    data, model = told(static_folder, loss="softmax-decoupled", none_candidate=True)
    queries = [data.queries[i] for i in data.split("test")]
    none = model.logits(queries, data.candidates).none
    assert model.none_vector.shape == (model.query_encoder.get_embedding_dimension(),)
    unanswered = data.answer_counts[data.split("test")] == 0
    assert none[unanswered].mean() > none[~unanswered].mean()


def loss_of(a, b, c, first, second, right, loss):
    objective = make_loss(loss, logit_scale=1.0, logit_bias=0.0)
    positives = Positives.from_dense(torch.from_numpy(right))
    value = objective.from_logits(a * first + b * second + c, positives)
    return value.item() + RIDGE * (math.log(a) ** 2 + math.log(b) ** 2)


@pytest.mark.parametrize("loss", ["softmax-average", "softmax-decoupled", "softmax-pairs", "sigmoid"])
def test_weights_have_the_least_loss(loss):
    random = np.random.default_rng(3)
    right = random.random((80, 5)) < 0.3
    right[:, 0] |= ~right.any(1)
    first = torch.from_numpy(right * 2.0 + random.normal(size=right.shape))
    second = torch.from_numpy(right * 1.0 + random.normal(size=right.shape))
    a, b, c = weigh(first, second, sparse.csr_array(right.astype(np.int8)), loss)
    least = loss_of(a, b, c, first, second, right, loss)
    for other in ((a * 1.05, b, c), (a / 1.05, b, c), (a, b * 1.05, c), (a, b / 1.05, c)):
        assert loss_of(*other, first, second, right, loss) >= least - 1e-9
    if loss == "sigmoid":
        assert all(loss_of(a, b, c + step, first, second, right, loss) > least for step in (0.05, -0.05))


def test_a_view_that_says_nothing_hardly_counts():
    random = np.random.default_rng(0)
    right = np.eye(6, dtype=np.int8)[random.integers(0, 6, 600)]
    first = torch.from_numpy(right * 3.0 + random.normal(size=right.shape))
    noise = torch.from_numpy(4 * random.normal(size=right.shape))
    a, b, _ = weigh(first, noise, sparse.csr_array(right), "softmax-average")
    assert b < 0.1 * a


@pytest.mark.slow
def test_words_that_the_encoder_does_not_know(static_folder):
    """Backwards, words are unknown to the encoder, which then says nothing; n-grams tell them apart."""
    known = things(labels=True)
    data = replace(known, queries=[text[::-1] for text in known.queries])
    maps = {}
    for head in ("linear", "ngrams"):
        settings = sigmax.Settings(loss="sigmoid", encoder=str(static_folder), frozen=True, head=head)
        maps[head] = sigmax.evaluate(sigmax.train(data, settings, calibrated=False), data)["map"].value
    assert maps["ngrams"] > maps["linear"] + 0.1


@pytest.mark.parametrize(
    ("data", "encoder", "said"),
    [
        ("things", "static", "The head ngrams needs fixed labels"),
        ("labels", "ngrams", "The encoder ngrams has the head cosine, got ngrams"),
        ("digits", "convnet", "The encoder convnet has the head cosine or linear, got ngrams"),
    ],
)
def test_where_it_cannot_be(data, encoder, said, static_folder):
    given = sigmax.load_data("digits") if data == "digits" else things(labels=data == "labels")
    name = str(static_folder) if encoder == "static" else encoder
    with pytest.raises(DataError, match=said):
        sigmax.train(given, sigmax.Settings(encoder=name, head="ngrams"))


@pytest.mark.slow
def test_the_command_line(sigmax, static_folder, tmp_path):
    table = write_labelled(tmp_path, rows())
    given = ["--encoder", static_folder, "--frozen", "--head", "ngrams", "--loss", "sigmoid", "-o", tmp_path / "model"]
    done = sigmax("train", table, *given, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["facts"]["settings"]["head"] == "ngrams"
    assert "The frozen encoder's logits count" in done.words
    found = json.loads(sigmax("match", tmp_path / "model", "my lunar", "--json").out)["results"][0]
    assert found["matches"][0]["candidate"] in THINGS
