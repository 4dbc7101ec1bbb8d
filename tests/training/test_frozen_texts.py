"""A frozen encoder for texts on both sides: read once, one layer over its vectors, words beside it."""

import numpy as np
import pytest
import torch

import sigmax
from helpers.data import things
from sigmax.encoders.build import build_towers
from sigmax.encoders.frozen import FrozenEncoder
from sigmax.encoders.plan import Plan
from sigmax.encoders.static import StaticVectors
from sigmax.errors import DataError


@pytest.mark.parametrize("two_towers", [False, True])
@pytest.mark.parametrize("loss", ["softmax-decoupled", "sigmoid"])
def test_only_what_follows_is_trained(loss, two_towers, static_folder, tmp_path):
    data = things(unanswered=True)
    settings = sigmax.Settings(loss=loss, encoder=str(static_folder), frozen=True, two_towers=two_towers, epochs=20)
    model = sigmax.train(data, settings)
    towers = [model.query_encoder, *([model.candidate_encoder] if two_towers else [])]
    before = StaticVectors.read(static_folder).state_dict()
    for tower in towers:
        assert isinstance(tower, FrozenEncoder)
        after = tower.trunk.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert not torch.equal(tower.layer.weight, torch.eye(len(tower.mean)))
    assert model.lexical is not None and model.facts["settings"]["head"] == "cosine"
    untrained = sigmax.train(data, sigmax.Settings(encoder=str(static_folder), frozen=True, epochs=0))
    trained, plain = (sigmax.evaluate(one, data)["map"].value for one in (model, untrained))
    assert trained > plain  # 0.6 and more, and 0.5, beside
    model.save(tmp_path / "model")
    new = ["the sky at night", "words never read: zyx"]
    again = sigmax.load(tmp_path / "model")
    np.testing.assert_allclose(
        again.logits(new, data.candidates).values, model.logits(new, data.candidates).values, atol=1e-5
    )


def test_every_text_is_read_once(static_folder, monkeypatch):
    data = things()
    read = []
    forward = StaticVectors.preprocess
    monkeypatch.setattr(StaticVectors, "preprocess", lambda self, texts: read.extend(texts) or forward(self, texts))
    monkeypatch.setattr(FrozenEncoder, "_kept", lambda self, keys, items: self._encode(items))  # no cache of vectors
    sigmax.train(data, sigmax.Settings(encoder=str(static_folder), frozen=True, epochs=3))
    assert sorted(read) == sorted([*data.queries, *data.candidates])


def test_it_starts_as_the_standardised_encoder(static_folder):
    data = things()
    encoder = build_towers(str(static_folder), data, Plan(frozen=True)).query
    trained_on = [*(data.queries[i] for i in data.split("train")), *data.candidates]
    vectors = encoder.eval()(encoder.preprocess(trained_on))["sentence_embedding"].detach()
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(vectors.std(0, correction=0), 1, rtol=1e-4)


def test_a_linear_head_needs_labels(static_folder):
    with pytest.raises(DataError, match="head linear needs fixed labels; texts on both sides are compared by their"):
        sigmax.train(things(), sigmax.Settings(encoder=str(static_folder), frozen=True, head="linear"))
