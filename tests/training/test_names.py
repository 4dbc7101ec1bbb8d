"""Labels' names as examples, where there are few others."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

import sigmax
from helpers.data import THINGS, things
from sigmax.data.dataset import MatchDataset
from sigmax.encoders.frozen import FrozenEncoder
from sigmax.training.names import COPIES, few_per_label, with_names


def pairs_of(data, split):
    rows = data.split(split)
    return sorted((str(data.queries[i]), data.candidates[j]) for i, j in data.pairs if i in set(rows.tolist()))


@pytest.mark.parametrize("copies", [0, 1, 3])
def test_names_are_added_to_train_alone(copies):
    data = things(labels=True, unanswered=True)
    made = with_names(data, copies)
    added = [(name, name) for name in THINGS] * copies
    assert pairs_of(made, "train") == sorted([*pairs_of(data, "train"), *added])
    for split in ("dev", "test"):
        assert pairs_of(made, split) == pairs_of(data, split)
        assert [made.queries[i] for i in made.split(split)] == [data.queries[i] for i in data.split(split)]
    assert len(made.query_ids) == len(made.queries)


def test_names_weigh_as_much_as_a_usual_query():
    data = things(labels=True)
    weights = np.random.default_rng(0).random(len(data.queries))
    made = with_names(replace(data, weights=weights), 1)
    np.testing.assert_array_equal(made.weights[: len(weights)], weights)
    np.testing.assert_allclose(made.weights[len(weights) :], weights[data.split("train")].mean())


def test_which_data_has_few():
    data = things(labels=True)
    assert few_per_label(data) and not few_per_label(things())
    many = MatchDataset(
        "many",
        queries=[f"text {i}" for i in range(60)],
        candidates=["a", "b"],
        pairs=np.array([(i, i % 2) for i in range(60)]),
        splits={"train": np.arange(40), "dev": np.arange(40, 50), "test": np.arange(50, 60)},
        labels=True,
    )
    assert not few_per_label(many)  # twenty of each


@pytest.fixture
def named(static_folder):
    """Words whose vectors lie near those of their label's name; each label has one training query."""
    random = np.random.default_rng(0)
    names = ["moon", "sun", "fire", "sea", "tree", "bird"]
    near = {name: random.normal(size=32) for name in names}
    queries = [f"{name} {i}" for name in names for i in range(9)]

    class Near(torch.nn.Module):
        modalities = ("text",)

        def get_embedding_dimension(self):
            return 32

        def preprocess(self, inputs):
            made = [
                near[text.split()[0]] + 0.9 * np.random.default_rng(len(text) + sum(map(ord, text))).normal(size=32)
                for text in inputs
            ]
            return {"vectors": torch.tensor(np.array(made), dtype=torch.float32)}

        def forward(self, features):
            return features | {"sentence_embedding": features["vectors"]}

    rows = np.arange(len(queries))
    data = MatchDataset(
        "named",
        queries=queries,
        candidates=names,
        pairs=np.stack([rows, rows // 9], axis=1),
        splits={"train": rows[rows % 9 == 0], "dev": rows[(rows % 9 > 0) & (rows % 9 < 5)], "test": rows[rows % 9 > 4]},
        labels=True,
    )
    return data, Near


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax-average", "sigmoid"])
def test_names_help_where_there_is_one_example(named, loss, monkeypatch, caplog):
    data, trunk = named
    monkeypatch.setattr("sigmax.encoders.build.load_pretrained", lambda name: trunk())
    settings = sigmax.Settings(loss=loss, encoder="near", frozen=True)
    caplog.set_level(logging.INFO)
    model = sigmax.train(data, settings)
    assert "each label's name counts as" in caplog.text
    monkeypatch.setattr("sigmax.training.names.COPIES", (0,))
    without = sigmax.train(data, settings)
    dev = [sigmax.evaluate(one, data, split="dev")["map"].value for one in (model, without)]
    assert dev[0] >= dev[1]  # what dev says is what was chosen
    test = [sigmax.evaluate(one, data)["map"].value for one in (model, without)]
    assert test[0] > test[1]


def test_every_name_is_encoded_once(named, monkeypatch):
    data, trunk = named
    read = []
    monkeypatch.setattr("sigmax.encoders.build.load_pretrained", lambda name: trunk())
    encode = FrozenEncoder._encode
    monkeypatch.setattr(
        FrozenEncoder, "_encode", lambda self, items, *told: read.extend(items) or encode(self, items, *told)
    )
    monkeypatch.setattr(FrozenEncoder, "_kept", lambda self, keys, items: self._encode(items))
    sigmax.train(data, sigmax.Settings(encoder="near", frozen=True))
    assert len(COPIES) > 1 and sorted(read) == sorted([*data.queries, *data.candidates])
